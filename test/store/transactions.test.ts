import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { BATCH_BYTES_MAX } from "../../src/protocol/limits.ts";
import { appendRecords, readChunk } from "../../src/store/records.ts";
import type { Topic } from "../../src/store/topic-tables.ts";
import { Topics } from "../../src/store/topics.ts";
import { OtherProcess, openQueue, openTestDatabase, START_MS, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import { GroupStore, type Joined } from "../support/group-store.ts";
import {
  type Conditions,
  type Placed,
  problemOf,
  recordOf,
  told,
  transact,
  transactionOfRecords,
} from "../support/transaction-store.ts";

const database = await openTestDatabase();
const db = new WatchedDb(database.db);
const queue = openQueue(db);
const groups = new GroupStore({ db, queue });
let topics: Topics;
afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  topics = new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
});

async function topicOf(name: string, partitionCount = 1) {
  await topics.put(name, partitionCount);
  return topics.require(name);
}

const when = (conditions: Conditions, ...placed: readonly Placed[]) =>
  told(transact(queue, conditions, ...placed));

const plain = (topic: Topic, value: string) =>
  queue.submit(appendRecords(topic, [{ partition: 0, records: recordOf(value) }]));

const CHANGED_BY_WRITES = [
  ...["records", "partitions", "time_index", "committed_offsets"],
  ...["offset_history", "producers", "producer_answers", "guard"],
];

async function dump() {
  const tables = CHANGED_BY_WRITES.map(async (table) => [
    table,
    await database.rows(`SELECT * FROM ${table} ORDER BY 1, 2`),
  ]);
  return Object.fromEntries(await Promise.all(tables));
}

const guard = () => database.rows("SELECT * FROM guard");

const committed = () =>
  database.rows(
    "SELECT partition_id AS p, committed_offset AS o, metadata AS m FROM committed_offsets ORDER BY 1",
  );

/** Topics of three records a partition, and a member of "billing" that has committed 1 in each of "orders". */
async function setUp() {
  const orders = await topicOf("orders", 3);
  const alerts = await topicOf("alerts", 2);
  for (const { topic, partitionIds } of [orders, alerts])
    for (const partition of partitionIds.keys())
      for (const value of ["1", "2", "3"]) await when({}, [await topics.require(topic), partition, value]);
  const joined = await groups.join({ policies: { missing: { timestamp: 0 }, outOfRange: "earliest" } });
  const offsets = [0, 1, 2].map((partition) => entryOf(joined, partition, 1));
  await when({ commits: { group: "billing", offsets } });
  return { orders, alerts, joined };
}

function entryOf(joined: Joined, partition: number, offset: number, metadata?: string) {
  const generation = joined.partitions.find((one) => one.partition === partition)?.generation ?? -1;
  return { topic: "orders", partition, generation, offset, ...(metadata !== undefined && { metadata }) };
}

const commitsOf = (...offsets: readonly ReturnType<typeof entryOf>[]): Conditions => ({
  commits: { group: "billing", offsets },
});

const expecting = (
  ...all: readonly (readonly [topic: string, partition: number, logEnd: number])[]
): Conditions => ({
  expect: all.map(([topic, partition, logEndOffset]) => ({ topic, partition, logEndOffset })),
});

const producerOf = (sequence: number): Conditions => ({ producer: { id: "p", epoch: 0, sequence } });

describe("writeTransaction() whose conditions hold", () => {
  test("writes records, commits and the sequence together, runs in the order of the request", async () => {
    const { orders, alerts, joined } = await setUp();
    const conditions = {
      ...producerOf(0),
      ...expecting(["alerts", 0, 3], ["orders", 2, 3]),
      ...commitsOf(entryOf(joined, 0, 3, "ü"), entryOf(joined, 2, 2)),
    };
    const runs = await when(
      conditions,
      ...([
        [alerts, 1, "4"],
        [alerts, 1, "5"],
        [orders, 0, "4"],
        [alerts, 0, "4"],
        [alerts, 1, "6"],
      ] as const),
    );
    expect(runs).toEqual(["alerts/1@3+2", "orders/0@3+1", "alerts/0@3+1", "alerts/1@5+1"]);
    expect(await committed()).toEqual([
      { p: 1, o: 3, m: "ü" },
      { p: 2, o: 1, m: null },
      { p: 3, o: 2, m: null },
    ]);
    expect(await database.rows("SELECT * FROM producers")).toEqual([
      { producer_id: "p", epoch: 0, next_sequence: 1, used_at: START_MS },
    ]);
    expect(await guard()).toEqual([]);
  });

  test("tells where each partition ends, for those who wait there", async () => {
    const { orders, alerts } = await setUp();
    const outcome = await transact(queue, expecting(["orders", 0, 3]), [alerts, 1, "4"], [orders, 0, "4"]);
    expect(outcome?.appended).toMatchObject([
      { topic: "alerts", partition: 1, offset: 3, logEndOffset: 4 },
      { topic: "orders", partition: 0, offset: 3, logEndOffset: 4 },
    ]);
  });

  test("judges expectations and commits by the log before its own records", async () => {
    const { orders, joined } = await setUp();
    const conditions = { ...expecting(["orders", 0, 3]), ...commitsOf(entryOf(joined, 0, 3)) };
    expect(await when(conditions, [orders, 0, "4"])).toEqual(["orders/0@3+1"]);
    expect(await when(commitsOf(entryOf(joined, 0, 5)), [orders, 0, "5"])).toBe("offset_out_of_range");
  });

  test("commits many partitions at once, and the first of all in each", async () => {
    await topicOf("orders", 500);
    const joined = await groups.join({ policies: { missing: "none", outOfRange: "none" } });
    expect(await committed()).toEqual([]);
    const offsets = Array.from({ length: 500 }, (_, partition) =>
      entryOf(joined, partition, 0, String(partition)),
    );
    expect(await when(commitsOf(...offsets))).toEqual([]);
    expect(await committed()).toHaveLength(500);
    expect(await when(commitsOf(...offsets))).toBe("conflict");
  });

  test("keeps bytes, and records of more than a statement takes, byte for byte", async () => {
    const orders = await topicOf("orders");
    const alerts = await topicOf("alerts");
    const large = `"${'\\"'.repeat(49_000)}"`;
    const quotes = parseJsonProduce(
      `{"records":[${Array(35).fill(`{"value":${large}}`).join(",")}]}`,
    ).records;
    const bytes = parseJsonProduce('{"records":[{"bytes":"AP8Q"},{"value": 2.0 },{"bytes":""}]}').records;
    const appends = [
      { topic: alerts, records: bytes },
      { topic: orders, records: quotes },
      { topic: alerts, records: bytes },
    ];
    const write = () =>
      transactionOfRecords(queue, { ...producerOf(0), ...expecting(["orders", 0, 0]) }, appends);
    expect(
      write().statements.filter(({ sql }) => sql.includes("INSERT INTO records")).length,
    ).toBeGreaterThan(2);
    const runs = ["alerts/0@0+3", "orders/0@0+35", "alerts/0@3+3"];
    expect(await told(queue.submit(write()))).toEqual(runs);
    expect(await told(queue.submit(write()))).toEqual(["duplicate", ...runs]);
    const room = { recordsMax: 10_000, bytesMax: 2 * BATCH_BYTES_MAX, loneRecordBytesMax: BATCH_BYTES_MAX };
    const [partitionId = 0] = alerts.partitionIds;
    const chunk = await readChunk(database.db, { partitionId, from: 0, ...room });
    const three = ['"bytes":"AP8Q"', '"value":2.0', '"bytes":""'];
    const texts = [...three, ...three].map(
      (text, offset) => `{"offset":${offset},"timestamp":${START_MS},${text}}`,
    );
    expect(chunk?.records).toBe(texts.join(","));
    const sql = "SELECT DISTINCT value = :large AS is_same FROM records WHERE partition_id = :id";
    const [id = 0] = orders.partitionIds;
    expect(await database.rows(sql, { large, id })).toEqual([{ is_same: 1 }]);
  });
});

describe("writeTransaction() of which a condition does not hold", () => {
  type Case = readonly [name: string, code: string, conditions: (joined: Joined) => Conditions];
  const PRODUCER: Case = ["producer", "sequence_gap", () => producerOf(1)];
  const COMMITS: readonly Case[] = [
    [
      "fenced commit",
      "fenced_generation",
      (joined) => commitsOf({ ...entryOf(joined, 0, 2), generation: 1 }),
    ],
    [
      "commit of another group",
      "fenced_generation",
      (joined) => ({
        commits: { group: "others", offsets: [entryOf(joined, 0, 2)] },
      }),
    ],
    ["commit of what is committed", "conflict", (joined) => commitsOf(entryOf(joined, 0, 1))],
    ["commit below", "conflict", (joined) => commitsOf(entryOf(joined, 0, 0))],
    ["commit above the log end", "offset_out_of_range", (joined) => commitsOf(entryOf(joined, 0, 9))],
    ["commit in no topic", "unknown_topic", (joined) => commitsOf({ ...entryOf(joined, 0, 2), topic: "x" })],
    ["commit in no partition", "unknown_partition", (joined) => commitsOf(entryOf(joined, 9, 2))],
    [
      "last of several commits",
      "offset_out_of_range",
      (joined) => commitsOf(entryOf(joined, 0, 2), entryOf(joined, 1, 3), entryOf(joined, 2, 4)),
    ],
  ];
  const EXPECTATIONS: readonly Case[] = [
    ["log end above", "conflict", () => expecting(["alerts", 0, 2])],
    ["log end below", "conflict", () => expecting(["alerts", 0, 4])],
    ["expectation in no topic", "unknown_topic", () => expecting(["x", 0, 0])],
    ["expectation in no partition", "unknown_partition", () => expecting(["alerts", 2, 0])],
    [
      "last of several expectations",
      "conflict",
      () => expecting(["orders", 0, 3], ["alerts", 0, 3], ["alerts", 1, 9]),
    ],
  ];

  test.each([PRODUCER, ...COMMITS, ...EXPECTATIONS])(
    "%s, is %s and writes nothing, beside neighbours that notice nothing",
    async (_, code, conditionsOf) => {
      const { orders, alerts, joined } = await setUp();
      const conditions = conditionsOf(joined);
      const before = await dump();
      expect(await when(conditions, [orders, 0, "-1"], [alerts, 0, "-1"])).toBe(code);
      expect(await dump()).toEqual(before);
      const writes = db.writes.length;
      const [first, second, third] = await Promise.all([
        plain(orders, "4"),
        when(conditions, [orders, 1, "-1"], [alerts, 1, "-1"]),
        when({}, [orders, 0, "5"], [alerts, 1, "4"]),
      ]);
      expect(db.writes.length).toBe(writes + 1);
      expect(first).toMatchObject([{ offset: 3 }]);
      expect([second, third]).toEqual([code, ["orders/0@4+1", "alerts/1@3+1"]]);
      expect(await database.rows("SELECT 1 FROM records WHERE value = '-1'")).toEqual([]);
    },
  );

  test("says the producer's problem before the commits', and that before the expectations'", async () => {
    const { orders, joined } = await setUp();
    const before = await dump();
    for (const [, commitCode, commits] of COMMITS)
      for (const [, , expectation] of EXPECTATIONS) {
        const both = { ...commits(joined), ...expectation(joined) };
        expect(await when(both, [orders, 0, "-1"])).toBe(commitCode);
        expect(await when({ ...both, ...producerOf(1) }, [orders, 0, "-1"])).toBe("sequence_gap");
        expect(await when({ ...both, ...producerOf(0) }, [orders, 0, "-1"])).toBe(commitCode);
      }
    expect(await dump()).toEqual(before);
  });

  test("says which entry it was and what was found there", async () => {
    const { joined } = await setUp();
    const generation = entryOf(joined, 0, 0).generation;
    const about = { topic: "orders", partition: 0 };
    const factsOf = (conditions: Conditions) => problemOf(transact(queue, conditions));
    const ofGroup = { group: "billing", ...about };
    expect(await factsOf(commitsOf(entryOf(joined, 1, 2), entryOf(joined, 0, 4)))).toMatchObject({
      facts: { ...ofGroup, found: 4, logEndOffset: 3 },
    });
    expect(await factsOf(commitsOf(entryOf(joined, 0, 1)))).toMatchObject({
      facts: { ...ofGroup, found: 1, committedOffset: 1 },
    });
    expect(await factsOf(commitsOf({ ...entryOf(joined, 0, 2), generation: 99_999 }))).toMatchObject({
      facts: { ...ofGroup, generation: 99_999, found: generation },
    });
    expect(await factsOf(expecting(["alerts", 0, 3], ["orders", 0, 7], ["orders", 1, 8]))).toMatchObject({
      facts: { ...about, expected: 7, found: 3 },
    });
  });
});

describe("writeTransaction() to a topic that is not as it was", () => {
  const changes: readonly (readonly [name: string, change: () => Promise<unknown>])[] = [
    ["deleted", () => topics.delete("orders")],
    [
      "created anew",
      async () => {
        await topics.delete("orders");
        await topics.put("orders", 3);
      },
    ],
    ["given a schema", () => topics.put("orders", undefined, "{}")],
    [
      "given a schema and freed of it",
      async () => {
        await topics.put("orders", undefined, "{}");
        await topics.put("orders", undefined, null);
      },
    ],
  ];

  test.each(changes)("%s, settles to undefined and writes nothing", async (name, change) => {
    const { orders, alerts } = await setUp();
    await change();
    const before = await dump();
    expect(await when({}, [alerts, 0, "-1"], [orders, 2, "-1"])).toBe("not as known");
    expect(await when(producerOf(0), [alerts, 0, "-1"], [orders, 2, "-1"])).toBe("not as known");
    if (name === "deleted")
      expect(await when(expecting(["orders", 0, 3]), [orders, 0, "-1"])).toBe("not as known");
    expect(await dump()).toEqual(before);
  });

  test("and is not appended to, is no concern of its commits and expectations", async () => {
    const { alerts, joined } = await setUp();
    await topics.put("orders", undefined, "{}");
    const conditions = { ...expecting(["orders", 0, 3]), ...commitsOf(entryOf(joined, 0, 2)) };
    expect(await when(conditions, [alerts, 0, "4"])).toEqual(["alerts/0@3+1"]);
  });

  test("says first what is wrong with its producer, its commits and other expectations", async () => {
    const { orders, joined } = await setUp();
    await topics.put("orders", undefined, "{}");
    expect(await when(producerOf(1), [orders, 0, "-1"])).toBe("sequence_gap");
    expect(await when(commitsOf(entryOf(joined, 0, 1)), [orders, 0, "-1"])).toBe("conflict");
    expect(await when(expecting(["alerts", 0, 9]), [orders, 0, "-1"])).toBe("conflict");
  });
});

describe("a transaction over three topics", () => {
  test("is seen whole or not at all by another process, in every snapshot", async () => {
    const all = [await topicOf("a"), await topicOf("b"), await topicOf("c")];
    const reader = new OtherProcess(database.path);
    const sums = `SELECT group_concat(n) AS n FROM (
      SELECT count(r.offset) AS n FROM partitions AS p LEFT JOIN records AS r ON r.partition_id = p.partition_id
      GROUP BY p.partition_id
      UNION ALL SELECT log_end_offset FROM partitions
      UNION ALL SELECT coalesce(sum(next_sequence), 0) FROM producers)`;
    const seen = new Set<string>();
    let isDone = false;
    const reading = (async () => {
      while (!isDone) for (const { n } of await reader.run(sums)) seen.add(String(n));
    })();
    for (let sequence = 0; sequence < 150; sequence += 1)
      await when(producerOf(sequence), ...all.map((topic): Placed => [topic, 0, "1"]));
    isDone = true;
    await reading;
    for (const { n } of await reader.run(sums)) seen.add(String(n));
    await reader.end();
    expect(seen).toContain(Array(7).fill(150).join());
    expect([...seen].filter((counts) => new Set(counts.split(",")).size !== 1)).toEqual([]);
  });
});
