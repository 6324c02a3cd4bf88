// The database port over a real sqld, directly and through a proxy that loses answers and holds requests back.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Client, createClient } from "@libsql/client/http";
import type { JoinRequest } from "../../src/core/group-picture.ts";
import type { Scheduler } from "../../src/core/ports.ts";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import type { JoinResult } from "../../src/core/session/events.ts";
import { BATCH_BYTES_MAX, INTEGER_MAX, RECORD_BYTES_MAX } from "../../src/protocol/limits.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { commitOffsets } from "../../src/store/commits.ts";
import type { Db } from "../../src/store/db.ts";
import { openEmbeddedDb } from "../../src/store/embedded.ts";
import { renewLease } from "../../src/store/leases.ts";
import { migrate } from "../../src/store/migrations.ts";
import { readChunk } from "../../src/store/records.ts";
import { openRemoteDb, type RemoteDatabase } from "../../src/store/remote.ts";
import type { Topic } from "../../src/store/topic-tables.ts";
import { Memberships } from "../../src/stream/memberships.ts";
import { CuttingProxy } from "../support/cutting-proxy.ts";
import { statementsOf } from "../support/database.ts";
import { turnOfTheLoop } from "../support/fake-time.ts";
import { readGroup } from "../support/group-store.ts";
import {
  APPENDS,
  append,
  DEADLINE_MS,
  failureOf,
  first,
  openBehind,
  recordsOf,
  type Sides,
  storeOf,
  valuesIn,
} from "../support/remote-store.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { REPOSITORY, temporaryFolder } from "../support/server.ts";
import { HAS_SQLD, openRemoteTestDb, realTime, SQLD_SKIPPED, type Sqld, startSqld } from "../support/sqld.ts";
import { runStoreScenario } from "../support/store-scenario.ts";

setDefaultTimeout(30_000); // where the machine has much else to do

if (!HAS_SQLD) console.warn(`a remote database: ${SQLD_SKIPPED}`);

describe.skipIf(!HAS_SQLD)("a remote database", () => {
  let sqld: Sqld;
  let direct: Sides;
  let topicsMade = 0;
  beforeAll(async () => {
    sqld = await startSqld();
    direct = storeOf(await openRemoteTestDb(sqld.url));
  });
  afterAll(() => sqld[Symbol.asyncDispose]());

  async function newTopic(partitionCount = 1): Promise<Topic> {
    topicsMade += 1;
    await direct.topics.put(`topic-${topicsMade}`, partitionCount);
    return direct.topics.require(`topic-${topicsMade}`);
  }

  async function whileFrozen<T>(work: () => Promise<T>): Promise<T> {
    await sqld.signal("SIGSTOP");
    try {
      return await work();
    } finally {
      await sqld.signal("SIGCONT");
    }
  }

  // ── SQL ────────────────────────────────────────────────────────────────────────────────────────────────

  describe("says the same as an embedded one:", () => {
    const schemaOf = (db: Db) =>
      db.read({ sql: "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name" });

    test("its schema, of which sqld leaves out what it does not understand, and every statement of the store", async () => {
      using folder = temporaryFolder();
      const embedded = await openEmbeddedDb(join(folder.path, "t.db"));
      await migrate(embedded);
      await using fresh = await startSqld();
      const remote = await openRemoteTestDb(fresh.url);
      expect(await schemaOf(remote)).toEqual(await schemaOf(embedded));

      const expected = await runStoreScenario(embedded);
      const found = await runStoreScenario(remote);
      expect(found.told.length).toBeGreaterThan(100);
      expect(found.told).toEqual(expected.told);
      expect(statementsNotIn(found.sql)).toEqual([]);
      await embedded.close();
      await remote.close();
    });
  });

  test("has the time of its own clock", async () => {
    const [row] = await direct.db.read({ sql: "SELECT now_ms FROM clock" });
    expect(Math.abs(Number(row?.now_ms) - Date.now())).toBeLessThan(5_000);
  });

  test("gives back numbers, texts and bytes as they were bound", async () => {
    const { db } = direct;
    await db.script("CREATE TABLE bound (x);");
    const bound = [0, -1, 7.5, INTEGER_MAX, -INTEGER_MAX, "ü\u2028'\"\\", "", null];
    await db.write(bound.map((x) => ({ sql: "INSERT INTO bound VALUES (:x)", args: { x } })));
    const rows = await db.read({ sql: "SELECT x, typeof(x) AS type FROM bound ORDER BY rowid" });
    expect(rows.map(({ x }) => x)).toEqual(bound);
    expect(rows.map(({ type }) => type)).toEqual([
      ...["integer", "integer", "real", "integer", "integer", "text", "text", "null"],
    ]);
    const read = { sql: "SELECT count(*) AS n FROM bound WHERE x = :x", args: { x: INTEGER_MAX } };
    expect(await db.write([read, read], { appendedTo: [1, 2] })).toEqual([[{ n: 1 }], [{ n: 1 }]]);
    const [blob] = await db.read({ sql: "SELECT x'00ff10' AS bytes" });
    expect(blob).toEqual({ bytes: Uint8Array.of(0, 255, 16).buffer });
  });

  test("takes a number above 2^53 − 1 for nothing", async () => {
    expect(await failureOf(direct.db.read({ sql: "SELECT 9007199254740993 AS n" }))).toBe("rejected");
  });

  test("leaves the text of a value as it came", async () => {
    const topic = await newTopic();
    const values = ["2.0", "-0", "1E400", "12345678901234567890", '{"a":1,"a":2}', "[ 1,\t2 ]", '"\\u00e9"'];
    await append(direct, topic, recordsOf(...values));
    expect(await valuesIn(direct.db, topic)).toEqual(values);
  });

  test("takes the largest batch, full of quotes, in pieces, and gives it back in one read", async () => {
    const topic = await newTopic();
    const value = `"${'\\"'.repeat(49_000)}"`;
    const text = `{"records":[${Array(40).fill(`{"value":${value}}`).join(",")}]}`;
    expect(text.length).toBeLessThan(BATCH_BYTES_MAX);
    expect(text.length).toBeGreaterThan(BATCH_BYTES_MAX - value.length);
    await append(direct, topic, parseJsonProduce(text).records);
    expect(await valuesIn(direct.db, topic)).toEqual(Array(40).fill(value));

    const [partitionId = 0] = topic.partitionIds;
    const room = { recordsMax: 10_000, bytesMax: BATCH_BYTES_MAX, loneRecordBytesMax: BATCH_BYTES_MAX };
    const chunk = await readChunk(direct.db, { partitionId, from: 0, ...room });
    expect(chunk).toMatchObject({ count: 40, next: 40 });
    expect(JSON.parse(`[${chunk?.records}]`).at(-1).value).toBe('"'.repeat(49_000));
  });

  test.each([
    ["quotes", `{"value":"${'\\"'.repeat(RECORD_BYTES_MAX / 2 - 1)}"}`],
    ["bytes", `{"bytes":"${new Uint8Array(RECORD_BYTES_MAX).fill(255).toBase64()}"}`],
  ])("takes a record of 1 MiB of %s", async (_, text) => {
    const topic = await newTopic();
    await append(direct, topic, parseJsonProduce(`{"records":[${text}]}`).records);
    const [partitionId = 0] = topic.partitionIds;
    const room = { recordsMax: 1, bytesMax: 1, loneRecordBytesMax: 2 * RECORD_BYTES_MAX };
    const chunk = await readChunk(direct.db, { partitionId, from: 0, ...room });
    expect(JSON.parse(chunk?.records ?? "")).toMatchObject(JSON.parse(text));
  });

  test("refuses a statement for what it is, alone of its flush, and writes nothing of it", async () => {
    const topic = await newTopic();
    const bad = { sql: "INSERT INTO guard SELECT value, 1 FROM json_each(:json)", args: { json: "[1, 2" } };
    const operation = { statements: [bad], bytes: 0, settle: () => "done" };
    const outcomes = await Promise.allSettled([
      append(direct, topic, recordsOf("1")),
      direct.queue.submit(operation),
      append(direct, topic, recordsOf("2")),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
    expect(await valuesIn(direct.db, topic)).toEqual(["1", "2"]);
    expect(await failureOf(direct.db.write([bad]))).toBe("rejected");
    expect(await failureOf(direct.db.write([{ sql: "INSERTT" }]))).toBe("rejected");
    expect(await failureOf(direct.db.script("INSERT INTO nowhere VALUES (1);"))).toBe("rejected");
    expect(await failureOf(direct.db.read({ sql: "SELECT * FROM nowhere" }))).toBe("rejected");
  });

  test("that has no room for an answer, as where many read much at once, may be asked again", async () => {
    const tooLong = { sql: "SELECT hex(zeroblob(2000000)) FROM (VALUES (1), (2), (3), (4))" };
    expect(await failureOf(direct.db.read(tooLong))).toBe("io");
  });

  test("does nothing more when it is closed", async () => {
    const db = await openRemoteTestDb(sqld.url);
    await db.close();
    expect(await failureOf(db.read({ sql: "SELECT 1" }))).toBe("io");
    expect(await failureOf(db.write([{ sql: "DELETE FROM guard" }]))).toBe("io");
    expect(await failureOf(db.script("DELETE FROM guard;"))).toBe("io");
  });

  test("forgets writers that have not written for a day, and no others", async () => {
    const { db } = direct;
    const note =
      "INSERT INTO flushes (writer_id, number, written_at) SELECT :writer_id, 1, now_ms - :age FROM clock";
    const ages = { "gone-1": 86_400_001, "gone-2": 90_000_000, "here-1": 86_000_000, "here-2": 0 };
    await db.write(Object.entries(ages).map(([writer_id, age]) => ({ sql: note, args: { writer_id, age } })));
    await (await openRemoteTestDb(sqld.url)).write([]);
    const sql = "SELECT writer_id FROM flushes WHERE writer_id LIKE '%e-_' ORDER BY writer_id";
    expect(await db.read({ sql })).toEqual([{ writer_id: "here-1" }, { writer_id: "here-2" }]);
  });

  test("is asked for plain answers only", async () => {
    using proxy = new CuttingProxy(sqld.port);
    const { db } = await openBehind(proxy);
    await db.write([]);
    await db.read({ sql: "SELECT 1" });
    await db.script("DELETE FROM guard;");
    expect(proxy.requests.length).toBeGreaterThan(5);
    for (const request of proxy.requests) expect(request).toMatch(/^accept-encoding: *identity\r$/im);
  });

  // ── durability ─────────────────────────────────────────────────────────────────────────────────────────

  test("promises fsync where sqld does, and still after a restart", async () => {
    await using strong = await startSqld();
    const db = await openRemoteTestDb(strong.url);
    expect(db.durability).toBe("fsync");
    await strong.signal("SIGKILL");
    await strong.start();
    expect((await openRemoteTestDb(strong.url)).durability).toBe("fsync");
  });

  test("promises no more than a sqld without settings does", async () => {
    await using relaxed = await startSqld({ durability: "relaxed" });
    expect((await openRemoteTestDb(relaxed.url)).durability).toBe("relaxed");
  });

  // ── lost answers ───────────────────────────────────────────────────────────────────────────────────────

  describe("where the answer of a write is lost:", () => {
    test("an append has its offset, and is there once", async () => {
      using proxy = new CuttingProxy(sqld.port);
      const store = await openBehind(proxy);
      const topic = await newTopic();
      await append(store, topic, recordsOf("0", "1"));
      proxy.isLost = first(1, APPENDS);
      expect(await append(store, topic, recordsOf("2", "3"))).toMatchObject([{ offset: 2, logEndOffset: 4 }]);
      expect(proxy.lost).toBe(1);
      expect(await append(store, topic, recordsOf("4"))).toMatchObject([{ offset: 4, logEndOffset: 5 }]);
      expect(await valuesIn(direct.db, topic)).toEqual(["0", "1", "2", "3", "4"]);
    });

    test("so are several appends to several partitions in one flush, and another writer's in between", async () => {
      using proxy = new CuttingProxy(sqld.port);
      const topic = await newTopic(2);
      let others = 0;
      const scheduler: Scheduler = {
        ...realTime,
        after: (_, run) => {
          others += 1;
          void append(direct, topic, recordsOf('"other"'), recordsOf('"other"', '"other"')).then(run);
          return () => {};
        },
      };
      const store = await openBehind(proxy, { scheduler });
      await append(direct, topic, recordsOf('"before"'), recordsOf('"before"'));
      proxy.isLost = first(1, APPENDS);
      const appended = await Promise.all([
        append(store, topic, recordsOf("0", "1")),
        append(store, topic, recordsOf("2"), recordsOf("0")),
        append(store, topic, recordsOf("3"), recordsOf("1", "2")),
      ]);
      expect([proxy.lost, others]).toEqual([1, 1]);
      expect(appended.map((partitions) => partitions?.map(({ offset }) => offset))).toEqual([
        [1],
        [3, 1],
        [4, 2],
      ]);
      expect(await valuesIn(direct.db, topic)).toEqual(['"before"', "0", "1", "2", "3", '"other"']);
    });

    test("an append to a topic that is deleted in the same flush is told that it is gone", async () => {
      using proxy = new CuttingProxy(sqld.port);
      const store = await openBehind(proxy);
      const topic = await newTopic();
      proxy.isLost = first(1, APPENDS);
      const [appended, deleted] = await Promise.allSettled([
        append(store, topic, recordsOf("0")),
        store.topics.delete(topic.topic),
      ]);
      expect(appended).toEqual({ status: "fulfilled", value: undefined });
      expect(deleted).toMatchObject({ status: "rejected", reason: { code: "outcome_unknown" } });
      expect(await direct.topics.describe(topic.topic)).toBeUndefined();
    });

    test("the log ends are read again where their answer is lost too", async () => {
      using proxy = new CuttingProxy(sqld.port);
      const store = await openBehind(proxy);
      const topic = await newTopic();
      const losesWrite = first(1, APPENDS);
      const losesReads = first(3, "SELECT log_ends");
      proxy.isLost = (request) => losesWrite(request) || losesReads(request);
      expect(await append(store, topic, recordsOf("0"))).toMatchObject([{ offset: 0 }]);
      expect(proxy.lost).toBe(4);
      expect(await valuesIn(direct.db, topic)).toEqual(["0"]);
    });

    test("and the log ends cannot be read in time, it is unknown, not undone", async () => {
      using proxy = new CuttingProxy(sqld.port);
      const { db } = await openBehind(proxy, { scheduler: realTime });
      const topic = await newTopic();
      proxy.isLost = (request) => request.includes(APPENDS) || request.includes("SELECT log_ends");
      const statements = statementsOf(appendRecords(topic, [{ partition: 0, records: recordsOf("0") }]));
      expect(await failureOf(db.write(statements, { appendedTo: topic.partitionIds, withinMs: 300 }))).toBe(
        "unknown",
      );
      expect(await valuesIn(direct.db, topic)).toEqual(["0"]);
    });

    test("a change of topics is answered as it was done", async () => {
      using proxy = new CuttingProxy(sqld.port);
      const { topics } = await openBehind(proxy);
      const { topic } = await newTopic();
      proxy.isLost = first(2, "INSERT INTO topics");
      expect(await topics.put(topic, 3)).toMatchObject({ partitionCount: 3, isNew: false });
      expect(await topics.put(`${topic}-new`, 2)).toMatchObject({ partitionCount: 2 });
      expect(proxy.lost).toBe(2);
      expect(await direct.topics.describe(`${topic}-new`)).toMatchObject({ partitionCount: 2 });
    });

    test("a join is one member, its renewals renew it and its acks count", async () => {
      using proxy = new CuttingProxy(sqld.port);
      const store = await openBehind(proxy);
      const topic = await newTopic(2);
      await append(direct, topic, recordsOf("0", "1"), recordsOf("0"));
      const group = `group-of-${topic.topic}`;
      proxy.isLost = first(1, "INSERT INTO members");
      const { joined, close } = await joinGroup(store, { group, topics: [topic.topic] });
      expect(proxy.lost).toBe(1);
      expect(joined.owned.gained.map(({ partition }) => partition)).toEqual([0, 1]);
      expect((await readGroup(direct.db, group, [])).members).toMatchObject([
        { memberId: joined.memberId, membership: joined.membership },
      ]);

      const member = { group, memberId: joined.memberId, membership: joined.membership };
      proxy.isLost = first(1, "UPDATE members");
      expect(await store.queue.submit(renewLease(member))).toBe(true);
      expect(proxy.lost).toBe(2);
      proxy.isLost = first(1, "INSERT INTO committed_offsets");
      const acks = joined.owned.gained.map(({ partition, generation }) => ({
        ...{ topic: topic.topic, partition, generation, metadata: null, refusal: undefined },
        offset: partition === 0 ? 2 : 1,
      }));
      const fenced = acks.map((ack) => ({ ...ack, generation: ack.generation - 1 }));
      expect(await store.queue.submit(commitOffsets(group, [...acks, ...fenced]))).toEqual([
        { committedOffset: 2, code: undefined },
        { committedOffset: 1, code: undefined },
        // By the repeat nobody can tell whether they were fenced before, too.
        { committedOffset: 2, code: "outcome_unknown" },
        { committedOffset: 1, code: "outcome_unknown" },
      ]);
      expect(proxy.lost).toBe(3);
      await close();
    });

    test("of half of 200 produces, each is there once, in order, at its offset", async () => {
      using proxy = new CuttingProxy(sqld.port);
      const store = await openBehind(proxy);
      const topic = await newTopic();
      const random = seededRandom(7);
      proxy.isLost = (request) => request.includes(APPENDS) && random() < 0.5;
      const offsets: unknown[] = [];
      for (let n = 0; n < 200; n += 1)
        offsets.push((await append(store, topic, recordsOf(`${n}`)))?.[0]?.offset);
      const all = Array.from({ length: 200 }, (_, n) => n);
      expect(offsets).toEqual(all);
      expect(await valuesIn(direct.db, topic)).toEqual(all.map(String));
      expect(proxy.lost).toBeGreaterThan(100);
    });
  });

  // ── late requests ──────────────────────────────────────────────────────────────────────────────────────

  describe("a request that is held back and arrives late", () => {
    test("does nothing after the same was written by a later try", async () => {
      using proxy = new CuttingProxy(sqld.port);
      const store = await openBehind(proxy);
      const topic = await newTopic();
      proxy.isHeld = first(1, APPENDS);
      expect(await append(store, topic, recordsOf("0"))).toMatchObject([{ offset: 0 }]);
      expect(proxy.held).toBe(1);
      await proxy.letThrough();
      expect(await append(store, topic, recordsOf("1"))).toMatchObject([{ offset: 1 }]);
      expect(await valuesIn(direct.db, topic)).toEqual(["0", "1"]);
    });

    test("does nothing after it was given up and a later flush was written", async () => {
      using proxy = new CuttingProxy(sqld.port);
      const store = await openBehind(proxy, { scheduler: realTime });
      const topic = await newTopic();
      proxy.isHeld = (request) => request.includes("held back");
      const statements = statementsOf(
        appendRecords(topic, [{ partition: 0, records: recordsOf('"held back"') }]),
      );
      expect(await failureOf(store.db.write(statements, { withinMs: 100 }))).toBe("unknown");
      expect(await append(store, topic, recordsOf('"later"'))).toMatchObject([{ offset: 0 }]);
      expect(proxy.held).toBe(1);
      await proxy.letThrough();
      expect(await append(store, topic, recordsOf('"last"'))).toMatchObject([{ offset: 1 }]);
      expect(await valuesIn(direct.db, topic)).toEqual(['"later"', '"last"']);
    });
  });

  // ── a database that stands still, is gone, or belongs to somebody else ──────────────────────────────────

  test("that stands still fails reads in time; a write waits for it and is there once", async () => {
    const db = await openRemoteTestDb(sqld.url, { callDeadlineMs: DEADLINE_MS });
    const store = storeOf(db);
    const topic = await newTopic();
    const [appended] = await whileFrozen(async () => {
      const written = append(store, topic, recordsOf("0"));
      expect(await failureOf(db.read({ sql: "SELECT 1" }))).toBe("io");
      return [written];
    });
    expect(await appended).toMatchObject([{ offset: 0 }]);
    expect(await append(store, topic, recordsOf("1"))).toMatchObject([{ offset: 1 }]);
    expect(await valuesIn(db, topic)).toEqual(["0", "1"]);
  });

  test("that stands still until a write is given up leaves it unknown, and goes on in order", async () => {
    const db = await openRemoteTestDb(sqld.url, { callDeadlineMs: 100 });
    const topic = await newTopic();
    const statements = statementsOf(appendRecords(topic, [{ partition: 0, records: recordsOf('"lost"') }]));
    const failure = await whileFrozen(() => failureOf(db.write(statements, { withinMs: 400 })));
    expect(failure).toBe("unknown");
    const store = storeOf(db);
    for (let n = 0; n < 5; n += 1) await append(store, topic, recordsOf(`${n}`));
    const values = await valuesIn(db, topic);
    expect(values.filter((value) => value !== '"lost"')).toEqual(["0", "1", "2", "3", "4"]);
    expect(values.indexOf('"lost"')).toBeLessThan(1); // before everything later, or not at all
  });

  test("that answers no read is asked for 32 at once, and a write goes through with its answer lost", async () => {
    using proxy = new CuttingProxy(sqld.port);
    const store = await openBehind(proxy, { callDeadlineMs: 1_000 });
    const topic = await newTopic();
    proxy.isHeld = (request) => request.includes("SELECT 'nothing'");
    proxy.isLost = first(1, APPENDS);
    const reads = Array.from({ length: 40 }, () => failureOf(store.db.read({ sql: "SELECT 'nothing'" })));
    while (proxy.held < 32) await turnOfTheLoop();
    let isAnyAnswered = false;
    for (const read of reads) void read.then(() => (isAnyAnswered = true));
    expect(await append(store, topic, recordsOf("0"))).toMatchObject([{ offset: 0 }]);
    expect([isAnyAnswered, proxy.held, proxy.lost]).toEqual([false, 32, 1]);
    proxy[Symbol.dispose](); // else they would wait for their deadline
    expect(new Set(await Promise.all(reads))).toEqual(new Set(["io"]));
  });

  test("that is killed and started again serves the same client, with everything it has acknowledged", async () => {
    await using mortal = await startSqld();
    const db = await openRemoteTestDb(mortal.url);
    const store = storeOf(db);
    await store.topics.put("orders", 1);
    const topic = await store.topics.require("orders");
    await append(store, topic, recordsOf("0"));
    await mortal.signal("SIGKILL");
    const statements = statementsOf(appendRecords(topic, [{ partition: 0, records: recordsOf('"never"') }]));
    expect(await failureOf(db.write(statements, { withinMs: 200 }))).toBe("io");
    expect(await failureOf(db.read({ sql: "SELECT 1" }))).toBe("io");
    const appended = append(store, topic, recordsOf("1"));
    await mortal.start();
    expect(await appended).toMatchObject([{ offset: 1 }]);
    expect(await valuesIn(db, topic)).toEqual(["0", "1"]);
  });

  test("whose write lock another client holds is waited for, and nothing is lost", async () => {
    using proxy = new CuttingProxy(sqld.port);
    const store = await openBehind(proxy, { callDeadlineMs: 5_000 });
    const topic = await newTopic();
    const other: Client = createClient({ url: sqld.url });
    const holder = await other.transaction("write");
    await holder.execute("INSERT INTO guard VALUES (-1, 0)");
    const appended = append(store, topic, recordsOf("0"));
    while (!proxy.requests.some((request) => request.includes(APPENDS))) await turnOfTheLoop();
    await holder.commit();
    expect(await appended).toMatchObject([{ offset: 0 }]);
    expect(await direct.db.write([{ sql: "DELETE FROM guard RETURNING op" }])).toEqual([[{ op: -1 }]]);
    other.close();
  });
});

// ── what is no sqld ──────────────────────────────────────────────────────────────────────────────────────

describe("a remote database that is reached and does not answer", () => {
  /** The head of an answer, or none of it, and then nothing. */
  function silent(said: string) {
    const listener = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { data: (socket) => void socket.write(said) },
    });
    return { url: `http://127.0.0.1:${listener.port}`, [Symbol.dispose]: () => listener.stop(true) };
  }

  test.each([
    ["at all", ""],
    [
      "to its end",
      'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"baton":',
    ],
  ])("%s is given up in time", async (_, said) => {
    using server = silent(said);
    expect(await failureOf(openRemoteDb(databaseAt(server.url, { callDeadlineMs: 50 })))).toBe("unknown");
  });
});

describe("what stands in front of a remote database", () => {
  /** Answers the question that opens the database, then like this; counts. */
  function gateway(...answers: readonly { readonly status: number; readonly body?: string }[]) {
    let asked = -1;
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: () => {
        asked += 1;
        if (asked === 0) return Response.json(OPENED);
        const { status, body = "gateway" } = answers[Math.min(asked, answers.length) - 1] ?? { status: 500 };
        return new Response(body, { status, headers: { "content-type": "text/plain" } });
      },
    });
    return { url: server.url.origin, asked: () => asked, [Symbol.dispose]: () => void server.stop(true) };
  }

  const write = async (url: string, withinMs = 100) =>
    failureOf((await openRemoteDb(databaseAt(url))).write([{ sql: "SELECT 1" }], { withinMs }));
  const read = async (url: string) =>
    failureOf((await openRemoteDb(databaseAt(url))).read({ sql: "SELECT 1" }));

  test.each([
    { status: 401, failure: "rejected", ofRead: "rejected" },
    { status: 403, failure: "rejected", ofRead: "rejected" },
    { status: 404, failure: "io", ofRead: "io" },
    { status: 429, failure: "busy", ofRead: "busy" },
    { status: 500, failure: "unknown", ofRead: "io" },
    { status: 502, failure: "unknown", ofRead: "io" },
  ])("and answers $status makes a write $failure and a read $ofRead", async ({ status, failure, ofRead }) => {
    using one = gateway({ status });
    expect(await write(one.url)).toBe(failure);
    const isTriedAgain = failure === "unknown" || failure === "io";
    expect(one.asked() > 1).toBe(isTriedAgain);
    using another = gateway({ status });
    expect(await read(another.url)).toBe(ofRead);
  });

  test("and refuses a write after it may have passed it on leaves it unknown", async () => {
    using server = gateway({ status: 504 }, { status: 401 });
    expect(await write(server.url, 300)).toBe("unknown");
    for (const status of [404, 429]) {
      using other = gateway({ status: 504 }, { status });
      expect(await write(other.url, 300)).toBe("unknown");
    }
  });
});

/** sqld's answer to PRAGMA synchronous. */
const OPENED = {
  baton: null,
  base_url: null,
  results: [
    {
      type: "ok",
      response: {
        type: "execute",
        result: {
          cols: [{ name: "synchronous" }],
          rows: [[{ type: "integer", value: "2" }]],
          affected_row_count: 0,
          last_insert_rowid: null,
        },
      },
    },
    { type: "ok", response: { type: "close" } },
  ],
};

function databaseAt(url: string, about: Partial<RemoteDatabase> = {}): RemoteDatabase {
  return { url, authToken: undefined, writerId: "w", scheduler: realTime, ...about };
}

// ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Where the statements of the store begin that are in none of the texts. */
function statementsNotIn(run: ReadonlySet<string>): readonly string[] {
  const all = [...run].join("\n;\n");
  const folder = join(REPOSITORY, "src/store");
  const files = readdirSync(folder).filter((file) => !NOT_OF_THE_STORE.has(file));
  const beginnings = files.flatMap((file) =>
    [...readFileSync(join(folder, file), "utf8").matchAll(STATEMENT)].map(([, text = ""]) => text.trimEnd()),
  );
  expect(beginnings.length).toBeGreaterThan(80);
  return beginnings.filter((text) => !all.includes(text));
}

/** Up to what is put together from elsewhere. */
const STATEMENT = /["`]\s*((?:WITH|INSERT INTO|UPDATE|DELETE FROM|SELECT)\b[^`"$]*)/g;
/** They bring statements of their own for one of the databases, or run before there is a store. */
const NOT_OF_THE_STORE = new Set(["embedded.ts", "sqlite-connection.ts", "remote.ts", "migrations.ts"]);

/** A member of one group of a server that shares the database with others. */
async function joinGroup(
  { db, queue, topics }: Sides,
  { group, topics: names }: Pick<JoinRequest, "group" | "topics">,
): Promise<{ joined: JoinResult; close(): Promise<void> }> {
  const chance = { random: Math.random, newId: () => crypto.randomUUID() };
  const processId = chance.newId();
  const deps = { db, queue, topics, scheduler: realTime, chance, log: () => {}, processId };
  const memberships = new Memberships(deps);
  await memberships.begin();
  const joined = await new Promise<JoinResult>((onJoined, onRefused) => {
    const policies = { missing: "earliest", outOfRange: "earliest" } as const;
    const request = { group, topics: names, memberId: undefined, instanceId: undefined, policies };
    const listener = { onJoined, onChange: () => {}, onEnd: () => {} };
    memberships.join({ ...request, sessionTimeoutMs: 45_000 }, listener, onRefused);
  });
  return { joined, close: () => memberships.close() };
}
