// What becomes of a log while it is in use, on a real server: retention, compaction, and the room on the disk.

import { describe, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { join } from "node:path";
import { partitionOfKey } from "../src/core/partitioner.ts";
import type { SubscribeFrame } from "../src/protocol/frames.ts";
import { stockRows } from "./support/database.ts";
import { bodiesOf, readEarthquakes } from "./support/earthquakes.ts";
import { HttpClient } from "./support/http-client.ts";
import { isLongRun } from "./support/long.ts";
import { startServer, type TestServer, temporaryFolder } from "./support/server.ts";
import { stockSqlite } from "./support/stock-sqlite.ts";
import { StreamClient } from "./support/stream-client.ts";

const LOOK_EVERY_MS = 20;
const TIMEOUT_MS = 60_000;
const MIB = 1024 * 1024;

/** Background work has no event for who looks from outside. Ends with the test's own time. */
async function until(isMet: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isMet())) await Bun.sleep(LOOK_EVERY_MS);
}

async function start(): Promise<{ server: TestServer; http: HttpClient } & AsyncDisposable> {
  const folder = temporaryFolder();
  const server = await startServer(join(folder.path, "log.db"));
  return {
    server,
    http: new HttpClient(server),
    [Symbol.asyncDispose]: async () => {
      await server.kill("SIGKILL");
      folder.remove();
    },
  };
}

async function open(
  { streamUrl }: TestServer,
  subscribe: Omit<SubscribeFrame, "type">,
): Promise<StreamClient> {
  const client = await StreamClient.open(streamUrl, { patienceMs: TIMEOUT_MS / 2 });
  client.send({ type: "subscribe", ...subscribe });
  await client.expect("subscribed");
  return client;
}

async function partitionsOf(http: HttpClient, topic: string) {
  const { body } = await http.call("GET", `/v1/topics/${topic}`);
  return body.partitions as readonly {
    readonly logStartOffset: number;
    readonly logEndOffset: number;
    readonly records: number;
  }[];
}

/** The counters of every partition, and what is there. */
function countersAndRecords({ databasePath }: TestServer) {
  return stockRows(
    databasePath,
    `SELECT p.records, p.bytes, count(r.offset) AS found_records,
            coalesce(sum(length(CAST(r.value AS BLOB)) + coalesce(length(CAST(r.key AS BLOB)), 0)
              + coalesce(length(CAST(r.headers AS BLOB)), 0)), 0) AS found_bytes
     FROM partitions AS p LEFT JOIN records AS r ON r.partition_id = p.partition_id GROUP BY p.partition_id`,
  );
}

function expectCountersToAgree(server: TestServer): void {
  for (const { records, bytes, found_records, found_bytes } of countersAndRecords(server))
    expect({ records, bytes }).toEqual({ records: found_records as number, bytes: found_bytes as number });
}

describe("a compacted topic", () => {
  const PARTITIONS = 4;
  const { lines } = readEarthquakes();
  const networkOf = (line: string) => String(JSON.parse(line).network);

  /** By key: the last line of the file, and the offset that it gets. */
  function latestByKey(): ReadonlyMap<string, { readonly offset: number; readonly line: string }> {
    const latest = new Map<string, { offset: number; line: string }>();
    const ends = Array.from({ length: PARTITIONS }, () => 0);
    for (const line of lines) {
      const key = networkOf(line);
      const partition = partitionOfKey(key, PARTITIONS);
      const offset = ends[partition] ?? 0;
      latest.set(key, { offset, line });
      ends[partition] = offset + 1;
    }
    return latest;
  }

  test(
    "of the earthquakes gives who joins at its start the latest of every network, where it always was",
    async () => {
      await using running = await start();
      const { server, http } = running;
      await http.call("PUT", "/v1/topics/quakes", { partitionCount: PARTITIONS, cleanup: "compact" });
      for (const body of bodiesOf(lines, 5_000)) {
        const answer = await fetch(`${server.url}/v1/topics/quakes/records?key=/network`, {
          method: "POST",
          headers: { "content-type": "application/x-ndjson" },
          body: body.join("\n"),
        });
        expect(answer.status).toBe(200);
      }
      const latest = latestByKey();
      const left = async () =>
        (await partitionsOf(http, "quakes")).reduce((sum, { records }) => sum + records, 0);
      await until(async () => (await left()) === latest.size);

      const client = await open(server, { topics: ["quakes"], group: "watch", window: { records: 10_000 } });
      await client.expect("assigned");
      const frames = await client.expectRecords(latest.size);
      const found = frames.flatMap(({ records }) => records.map(({ key, ...record }) => [key, record]));
      const expected = [...latest].map(([key, { offset, line }]) => [
        key,
        { offset, value: JSON.parse(line) },
      ]);
      expect(Object.fromEntries(found)).toMatchObject(Object.fromEntries(expected));
      expect(found).toHaveLength(expected.length);
      for (const { logStartOffset } of await partitionsOf(http, "quakes")) expect(logStartOffset).toBe(0);
      expectCountersToAgree(server);
    },
    TIMEOUT_MS,
  );

  test("goes on to be read by a consumer that is connected: it sees gaps and nothing else", async () => {
    await using running = await start();
    const { server, http } = running;
    await http.createTopic("prices");
    const produce = (from: number, count: number) =>
      http.produce(
        "prices",
        Array.from({ length: count }, (_, n) => ({ key: `k${(from + n) % 3}`, value: from + n })),
      );
    await produce(0, 10);
    const client = await open(server, { topics: ["prices"], group: "shop", window: { records: 4 } });
    await client.expect("assigned");
    const [first] = await client.expectRecords(2);
    await client.expectRecords(2);
    expect((await http.call("PUT", "/v1/topics/prices", { cleanup: "compact" })).status).toBe(200);
    await until(async () => (await partitionsOf(http, "prices"))[0]?.records === 3);
    client.send({
      type: "ack",
      offsets: [{ topic: "prices", partition: 0, generation: first?.generation, offset: 4 }],
    });
    const next = await client.nextMany(3);
    expect(next.map(({ type }) => type)).toEqual(["acked", "records", "records"]);
    expect(
      next.flatMap((frame) => (frame.type === "records" ? frame.records.map(({ offset }) => offset) : [])),
    ).toEqual([7, 8, 9]);
    expect((await http.call("PUT", "/v1/topics/prices", { cleanup: "delete" })).status).toBe(200);
    client.send({
      type: "ack",
      offsets: [{ topic: "prices", partition: 0, generation: first?.generation, offset: 10 }],
    });
    await client.expect("acked");
    await http.produce("prices", [{ value: "no key" }, { key: "k0", value: 1 }, { key: "k0", value: 2 }]);
    const [frame, more] = [await client.expect("records"), await client.expect("records")];
    expect([...frame.records, ...more.records].map(({ offset }) => offset)).toEqual([10, 11, 12]);
    const { body } = await http.call("GET", "/v1/groups/shop");
    expect(body.offsets).toMatchObject([
      { committedOffset: 10, logStartOffset: 0, logEndOffset: 13, lag: 3 },
    ]);
  });

  test("takes no record without a key, whichever way it comes", async () => {
    await using running = await start();
    const { server, http } = running;
    await http.call("PUT", "/v1/topics/prices", { cleanup: "compact" });
    const record = { value: 1 };
    const refusals: readonly (readonly [string, unknown])[] = [
      ["/v1/topics/prices/records", { records: [{ key: "k", value: 1 }, record] }],
      ["/v1/transactions", { appends: [{ topic: "prices", records: [{ key: null, value: 1 }] }] }],
    ];
    for (const [path, body] of refusals) {
      const answer = await http.call("POST", path, body);
      expect(answer).toMatchObject({ status: 400, body: { code: "bad_request", retriable: false } });
      expect(answer.body.detail).toContain("records[");
      expect(answer.body.detail).toContain('topic "prices" is compacted');
    }
    const ndjson = await fetch(`${server.url}/v1/topics/prices/records?key=/k`, {
      method: "POST",
      headers: { "content-type": "application/x-ndjson" },
      body: '{"k":"a"}\n\n{"j":"a"}\n',
    });
    expect(await ndjson.json()).toMatchObject({ code: "bad_request", line: 3 });
    const client = await StreamClient.open(server.streamUrl);
    client.send({ type: "produce", id: 1, topic: "prices", records: [record] });
    expect(await client.expect("error")).toMatchObject({ id: 1, code: "bad_request", topic: "prices" });
    client.send({ type: "produce", id: 2, topic: "prices", records: [{ key: "", value: 1 }] });
    await client.expect("produced");
    const insert = "INSERT INTO append_record (topic, value) VALUES ('prices', 1)";
    expect(() => stockSqlite(server.databasePath, `PRAGMA wal_autocheckpoint = 0; ${insert}`)).toThrow(
      /bad_request: the topic is compacted/,
    );
    expect(await partitionsOf(http, "prices")).toMatchObject([{ records: 1, logEndOffset: 1 }]);
  });

  test("cannot be made of one that has a record without a key, until that is gone", async () => {
    await using running = await start();
    const { http } = running;
    await http.createTopic("prices", 2);
    await http.produce("prices", [
      { key: "a", value: 1, partition: 1 },
      { value: 2, partition: 1 },
    ]);
    const compact = () => http.call("PUT", "/v1/topics/prices", { cleanup: "compact" });
    const refused = await compact();
    expect(refused).toMatchObject({ status: 409, body: { code: "conflict", partition: 1, offset: 1 } });
    await http.call("DELETE", "/v1/topics/prices/partitions/1/records?before=2");
    expect(await compact()).toMatchObject({ status: 200, body: { cleanup: "compact" } });
  });
});

describe("retention", () => {
  test("by records leaves the newest, and a consumer below is told by its policy where it goes on", async () => {
    await using running = await start();
    const { server, http } = running;
    await http.produceNumbers("orders", 100);
    const client = await open(server, { topics: ["orders"], group: "billing", window: { records: 20 } });
    await client.expect("assigned");
    const [frame] = await client.expectRecords(20);
    const generation = frame?.generation;
    client.send({ type: "ack", offsets: [{ topic: "orders", partition: 0, generation, offset: 10 }] });
    await client.expect("acked");
    await client.expectRecords(10); // the window is full again, and its owner is at 30
    await http.call("PUT", "/v1/topics/orders", { retention: { records: 25 } });
    await until(async () => (await partitionsOf(http, "orders"))[0]?.logStartOffset === 75);
    expect(
      stockSqlite(server.databasePath, "SELECT committed_offset, log_start_offset, lag FROM consumer_lag"),
    ).toBe("10|75|25");
    client.send({ type: "ack", offsets: [{ topic: "orders", partition: 0, generation, offset: 30 }] });
    await client.expect("acked");
    expect((await client.expect("assigned")).partitions).toMatchObject([
      {
        generation,
        position: 75,
        committedOffset: 75,
        logStartOffset: 75,
        logEndOffset: 100,
        reset: "earliest",
      },
    ]);
    expect((await client.expect("records")).records[0]?.offset).toBe(75);
    const history =
      "SELECT previous_offset, new_offset, cause FROM commit_history ORDER BY at DESC, new_offset DESC";
    expect(stockSqlite(server.databasePath, history).split("\n")[0]).toBe("30|75|outOfRange: earliest");
    expectCountersToAgree(server);
  });

  test("by age takes what was appended long enough ago, whatever its timestamp says, and nothing younger", async () => {
    await using running = await start();
    const { http } = running;
    const ms = 1_500;
    await http.call("PUT", "/v1/topics/clicks", { retention: { ms } });
    await http.produce("clicks", [{ value: "old", timestamp: 4_102_444_800_000 }]);
    const appendedAtMs = performance.now();
    const startOf = async () => (await partitionsOf(http, "clicks"))[0]?.logStartOffset;
    let lastSeenMs = appendedAtMs;
    await until(async () => {
      const askedAtMs = performance.now();
      const isThere = (await startOf()) === 0;
      if (isThere) lastSeenMs = askedAtMs;
      return !isThere;
    });
    expect(performance.now() - appendedAtMs).toBeGreaterThanOrEqual(ms - 1);
    expect(lastSeenMs).toBeGreaterThan(appendedAtMs);
    await http.produce("clicks", [{ value: "new", timestamp: 1 }]);
    expect(await partitionsOf(http, "clicks")).toMatchObject([{ logStartOffset: 1, records: 1 }]);
  });

  test("that is taken back deletes nothing more", async () => {
    await using running = await start();
    const { http } = running;
    await http.call("PUT", "/v1/topics/orders", { retention: { records: 5 } });
    await http.produceNumbers("orders", 10);
    await until(async () => (await partitionsOf(http, "orders"))[0]?.records === 5);
    await http.call("PUT", "/v1/topics/orders", { retention: null });
    await http.call("PUT", "/v1/topics/witness", { retention: { records: 1 } });
    await http.produce(
      "orders",
      Array.from({ length: 10 }, (_, value) => ({ value })),
    );
    await http.produceNumbers("witness", 10);
    await until(async () => (await partitionsOf(http, "witness"))[0]?.records === 1); // upkeep was there
    expect(await partitionsOf(http, "orders")).toMatchObject([{ logStartOffset: 5, records: 15 }]);
  });
});

describe("the room on the disk", () => {
  const RECORDS = 40_000;
  const records = Array.from({ length: 10_000 }, () => ({ value: "x".repeat(200) }));
  const fill = async (http: HttpClient, topic: string) => {
    for (let written = 0; written < RECORDS; written += records.length) await http.produce(topic, records);
  };

  if (!isLongRun)
    console.warn(
      "the room on the disk: skipped, because it waits until nobody needs it. TIDEMARK_LONG=1 runs it.",
    );

  test.skipIf(!isLongRun)(
    "is used again by what comes next, and given back when nobody needs it, across a kill -9 in the middle",
    async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "log.db");
      const sizeOf = () => statSync(path).size;
      const first = await startServer(path);
      const http = new HttpClient(first);
      await fill(http, "large");
      const full = sizeOf();
      expect(full).toBeGreaterThan(9 * MIB);
      await http.call("DELETE", "/v1/topics/large");
      await until(() => stockSqlite(path, "SELECT count(*) FROM records") === "0");
      await http.call("PUT", "/v1/topics/ring", { retention: { records: RECORDS } });
      await fill(http, "ring");
      expect(sizeOf()).toBeLessThan(1.1 * full);
      await http.call("PUT", "/v1/topics/ring", { retention: { records: 100 } });
      await until(async () => Number((await partitionsOf(http, "ring"))[0]?.records) < RECORDS / 2);
      await first.kill("SIGKILL");

      await using second = await startServer(path);
      expect(sizeOf()).toBeGreaterThan(0.9 * full);
      await until(() => sizeOf() < full / 5);
      expect(await partitionsOf(new HttpClient(second), "ring")).toMatchObject([
        { logStartOffset: RECORDS - 100, logEndOffset: RECORDS, records: 100 },
      ]);
      expect(stockSqlite(path, "SELECT count(*) FROM purges")).toBe("0");
      expect(stockSqlite(path, "PRAGMA integrity_check")).toBe("ok");
      expectCountersToAgree(second);
      expect(second.logged).toBe("");
    },
    TIMEOUT_MS,
  );
});
