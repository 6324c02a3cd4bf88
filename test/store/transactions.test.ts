import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { deleteTopic } from "../../src/store/topic-deletion.ts";
import type { Topic } from "../../src/store/topic-tables.ts";
import { Topics } from "../../src/store/topics.ts";
import type { TransactionWrite } from "../../src/store/transactions.ts";
import { openQueue, openTestDatabase, START_MS, stockRows, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import { GroupStore, type Joined } from "../support/group-store.ts";
import { type AppendTo, recordsAt, transactionOf } from "../support/transaction-writes.ts";

const database = await openTestDatabase();
const { db } = database;
const queue = openQueue(db);
const groups = new GroupStore({ db, queue });
let topics = new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
let orders: Topic;
let audit: Topic;
afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  topics = new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
  await topics.put("orders", 2);
  await topics.put("audit", 1);
  orders = await topics.require("orders");
  audit = await topics.require("audit");
});

type Conditions = TransactionWrite["conditions"];

const transact = (conditions: Conditions, ...appends: readonly AppendTo[]) =>
  queue.submit(transactionOf(queue, conditions, ...appends));

const to = (topic: Topic, ...values: readonly string[]): AppendTo => ({
  topic,
  records: recordsAt(0, ...values),
});

const join = () => groups.join({ topics: ["orders"], policies: { missing: "none", outOfRange: "none" } });

const commitOf = (
  { partitions }: Pick<Joined, "partitions">,
  offset: number,
  about: Readonly<Record<string, unknown>> = {},
) => ({
  topic: "orders",
  partition: 0,
  generation: partitions.find(({ partition }) => partition === 0)?.generation ?? -1,
  offset,
  ...about,
});

const committing = (...offsets: readonly ReturnType<typeof commitOf>[]): Conditions => ({
  commits: { group: "billing", offsets },
});

const expecting = (topic: string, partition: number, logEndOffset: number): Conditions => ({
  expect: [{ topic, partition, logEndOffset }],
});

const numbered = (sequence: number, epoch = 0): Conditions => ({ producer: { id: "p", epoch, sequence } });

/** The whole of what is stored. */
const dump = () =>
  ["records", "partitions", "committed_offsets", "producers", "producer_answers", "guard"].map((table) =>
    stockRows(database.path, `SELECT * FROM ${table} ORDER BY 1, 2`),
  );

const refused = (code: string, facts: Readonly<Record<string, unknown>> = {}) => ({ code, facts });

/** Its Problem; what it would have written is not there, nor anything else changed. */
async function refusalOf(conditions: Conditions, ...appends: readonly AppendTo[]): Promise<unknown> {
  const before = dump();
  const outcome = await transact(conditions, ...appends).catch((error: unknown) => error);
  expect(dump()).toEqual(before);
  return outcome;
}

const logOf = async (topic: string) =>
  (
    await database.rows("SELECT value FROM topic_records WHERE topic = :topic ORDER BY partition, offset", {
      topic,
    })
  ).map(({ value }) => value);

describe("writeTransaction()", () => {
  test("writes to several topics and tells the runs in the order of the request", async () => {
    await transact({}, to(audit, "0"));
    const outcome = await transact({}, to(orders, "1", "2"), to(audit, "3"), {
      topic: orders,
      records: [...recordsAt(1, "4"), ...recordsAt(0, "5")],
    });
    expect(outcome?.written).toEqual({
      runs: [
        { topic: "orders", partition: 0, offset: 0, count: 2 },
        { topic: "audit", partition: 0, offset: 1, count: 1 },
        { topic: "orders", partition: 1, offset: 0, count: 1 },
        { topic: "orders", partition: 0, offset: 2, count: 1 },
      ],
    });
    expect(outcome?.appended.map(({ partitionId, logEndOffset }) => [partitionId, logEndOffset])).toEqual([
      [1, 3],
      [3, 2],
      [2, 1],
    ]);
    expect(await logOf("orders")).toEqual(["1", "2", "5", "4"]);
  });

  test("writes commits with their metadata at the time of the database, with appends and without", async () => {
    await transact({}, to(orders, "0", "1"));
    const joined = await join();
    await database.pass(5);
    await transact(committing(commitOf(joined, 1, { metadata: "m" })), to(audit, "1"));
    const committed = () =>
      database.rows("SELECT committed_offset, metadata, committed_at FROM committed_offsets");
    expect(await committed()).toEqual([{ committed_offset: 1, metadata: "m", committed_at: START_MS + 5 }]);
    expect((await transact(committing(commitOf(joined, 2))))?.written).toEqual({ runs: [] });
    expect(await committed()).toEqual([{ committed_offset: 2, metadata: null, committed_at: START_MS + 5 }]);
  });

  test("judges a commit by the log end before its own appends", async () => {
    const joined = await join();
    expect(await refusalOf(committing(commitOf(joined, 1)), to(orders, "0"))).toMatchObject(
      refused("offset_out_of_range", { found: 1, logEndOffset: 0 }),
    );
    expect(await transact(committing(commitOf(joined, 0)), to(orders, "0"))).toBeDefined();
  });

  test("judges an expectation by the log end before its own appends, and a longer log is a conflict too", async () => {
    expect(await transact(expecting("orders", 0, 0), to(orders, "0", "1"))).toBeDefined();
    for (const expected of [0, 1, 3])
      expect(await refusalOf(expecting("orders", 0, expected), to(audit, "0"))).toMatchObject(
        refused("conflict", { topic: "orders", partition: 0, expected, found: 2 }),
      );
  });

  test("keeps records with bytes as they came, beside JSON", async () => {
    const { records } = parseJsonProduce('{"records":[{"bytes":"AP+A"},{"value":"x"},{"bytes":""}]}');
    await transact(numbered(0), { topic: audit, records }, to(orders, "1"));
    expect(
      await database.rows(
        "SELECT typeof(value) AS type, hex(value) AS hex FROM records WHERE partition_id = 3",
      ),
    ).toEqual([
      { type: "blob", hex: "00FF80" },
      { type: "text", hex: "227822" },
      { type: "blob", hex: "" },
    ]);
  });

  test("writes a batch of several pieces at once, on conditions that its own pieces would spoil", async () => {
    const value = `"${'\\"'.repeat(50_000)}"`;
    const records = recordsAt(0, ...Array.from({ length: 39 }, () => value));
    const conditions = { ...numbered(0), ...expecting("orders", 0, 0) };
    const operation = transactionOf(queue, conditions, { topic: orders, records }, to(audit, "1"));
    expect(
      operation.statements.filter(({ sql }) => sql.includes("INSERT INTO records")).length,
    ).toBeGreaterThan(2);
    expect((await queue.submit(operation))?.written.runs).toEqual([
      { topic: "orders", partition: 0, offset: 0, count: 39 },
      { topic: "audit", partition: 0, offset: 0, count: 1 },
    ]);
    const [{ n, ends } = {}] = await database.rows(
      "SELECT count(*) AS n, max(offset) + 1 AS ends FROM records WHERE partition_id = 1",
    );
    expect([n, ends]).toEqual([39, 39]);
    expect(await refusalOf(conditions, { topic: orders, records })).toMatchObject({
      written: { duplicate: true, runs: [{ offset: 0, count: 39 }, { topic: "audit" }] },
    });
    expect(await refusalOf(expecting("orders", 0, 0), { topic: orders, records })).toMatchObject(
      refused("conflict"),
    );
  });
});

describe("writeTransaction() writes nothing and says why where", () => {
  test.each([
    [{ generation: 1_000 }, "fenced_generation", { group: "billing", generation: 1_000 }],
    [{ generation: 0 }, "fenced_generation", { generation: 0 }],
    [{ offset: 3 }, "offset_out_of_range", { found: 3, logStartOffset: 0, logEndOffset: 2 }],
    [{ offset: 1 }, "conflict", { found: 1, committedOffset: 1 }],
    [{ offset: 0 }, "conflict", { found: 0, committedOffset: 1 }],
    [{ partition: 7 }, "unknown_partition", { partition: 7, partitionCount: 2 }],
    [{ topic: "nothing" }, "unknown_topic", { topic: "nothing" }],
  ])("a commit is %j: %s", async (about, code, facts) => {
    await transact({}, to(orders, "0", "1"));
    const joined = await join();
    await transact(committing(commitOf(joined, 1)));
    const other = commitOf(joined, 0, { partition: 1, generation: joined.partitions[1]?.generation });
    const conditions = committing(other, commitOf(joined, 2, about));
    expect(await refusalOf(conditions, to(audit, "0"))).toMatchObject(refused(code, facts));
    expect(await transact(committing(other, commitOf(joined, 2)), to(audit, "0"))).toBeDefined();
  });

  test("a commit is of a partition that nobody owns", async () => {
    const conditions = committing(commitOf({ partitions: [] }, 0));
    expect(await refusalOf(conditions)).toMatchObject(refused("fenced_generation", { found: null }));
  });

  test.each([
    ["another log end", "orders", 0, 1, "conflict", { found: 0 }],
    ["an unknown partition", "orders", 2, 0, "unknown_partition", { partitionCount: 2 }],
    ["an unknown topic", "nothing", 0, 0, "unknown_topic", {}],
  ])("an expectation names %s", async (_, topic, partition, expected, code, facts) => {
    const { expect: first = [] } = expecting("audit", 0, 0);
    const { expect: second = [] } = expecting(topic, partition, expected);
    expect(await refusalOf({ expect: [...first, ...second] }, to(audit, "0"))).toMatchObject(
      refused(code, { topic, partition, expected, ...facts }),
    );
  });

  test("several conditions fail: the producer's, then the commits', then the expectations', the first of each", async () => {
    const joined = await join();
    const all = {
      ...numbered(1),
      ...committing(commitOf(joined, 9), commitOf(joined, 8, { partition: 1 })),
      expect: [...(expecting("orders", 1, 5).expect ?? []), ...(expecting("orders", 0, 6).expect ?? [])],
    };
    const stale = { ...orders, schemaVersion: 3 };
    expect(await refusalOf(all, to(stale, "0"))).toMatchObject(refused("sequence_gap", { expected: 0 }));
    const { producer: _, ...others } = all;
    expect(await refusalOf(others, to(stale, "0"))).toMatchObject(
      refused("offset_out_of_range", { found: 9, partition: 0 }),
    );
    const { commits: __, ...last } = others;
    expect(await refusalOf(last, to(stale, "0"))).toMatchObject(
      refused("conflict", { partition: 1, expected: 5, found: 0 }),
    );
    expect(await refusalOf({}, to(stale, "0"))).toBeUndefined();
  });

  test("a repeat is answered, whatever else has become of it", async () => {
    const joined = await join();
    const conditions = { ...numbered(0), ...committing(commitOf(joined, 0)), ...expecting("audit", 0, 0) };
    await transact(conditions, to(orders, "0"), to(audit, "1"));
    await queue.submit(deleteTopic("orders"));
    expect(await refusalOf(conditions, to(orders, "0"), to(audit, "1"))).toEqual({
      written: {
        runs: [
          { topic: "orders", partition: 0, offset: 0, count: 1 },
          { topic: "audit", partition: 0, offset: 0, count: 1 },
        ],
        duplicate: true,
      },
      appended: [],
    });
  });

  test.each([
    ["has another schema", () => topics.put("orders", undefined, { schema: "true" })],
    [
      "had another schema for a while",
      () =>
        topics
          .put("orders", undefined, { schema: "true" })
          .then(() => topics.put("orders", undefined, { schema: null })),
    ],
    ["is gone", () => topics.delete("orders")],
    ["was created anew", () => topics.delete("orders").then(() => topics.put("orders", 2))],
  ])("a topic %s: undefined, and its sequence is still the next", async (_, change) => {
    const before = orders;
    await change();
    for (const conditions of [{}, numbered(0), expecting("audit", 0, 0), expecting("orders", 0, 0)])
      expect(await refusalOf(conditions, to(audit, "0"), to(before, "0"))).toBeUndefined();
    expect(await transact(numbered(0), to(audit, "0"))).toBeDefined();
  });

  test("a topic that is only expected is gone: unknown_topic", async () => {
    await topics.delete("orders");
    expect(await refusalOf(expecting("orders", 0, 0), to(audit, "0"))).toMatchObject(
      refused("unknown_topic"),
    );
  });
});

describe("transactions of one flush", () => {
  test("are judged one after the other, and one that is refused leaves its neighbours alone", async () => {
    const watched = new WatchedDb(db);
    const together = openQueue(watched);
    const joined = await join();
    const submit = (conditions: Conditions, ...appends: readonly AppendTo[]) =>
      together.submit(transactionOf(together, conditions, ...appends));
    const outcomes = await Promise.allSettled([
      submit(expecting("orders", 0, 0), to(orders, "0")),
      submit(expecting("orders", 0, 0), to(orders, '"never"'), to(audit, '"never"')),
      submit(numbered(0), to(audit, "0")),
      submit(numbered(0), to(audit, '"never"')),
      submit(numbered(1), to(audit, "1")),
      submit(committing(commitOf(joined, 1)), to(audit, "2")),
      submit(committing(commitOf(joined, 1)), to(audit, '"never"')),
      submit(expecting("audit", 0, 3), to(orders, "1")),
    ]);
    expect(watched.writes).toHaveLength(1);
    const told = outcomes.map((outcome) =>
      outcome.status === "rejected"
        ? outcome.reason.code
        : [
            ...(outcome.value?.written.runs ?? []).map(({ offset }) => offset),
            outcome.value?.written.duplicate,
          ],
    );
    expect(told).toEqual([
      [0, undefined],
      "conflict",
      [0, undefined],
      [0, true],
      [1, undefined],
      [2, undefined],
      "conflict",
      [1, undefined],
    ]);
    expect(await logOf("orders")).toEqual(["0", "1"]);
    expect(await logOf("audit")).toEqual(["0", "1", "2"]);
    expect(await database.rows("SELECT * FROM guard")).toEqual([]);
  });
});
