import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { Problem } from "../../src/core/problem.ts";
import type { TopicChange } from "../../src/core/session/events.ts";
import { GROUP_BYTES_MAX, TOPIC_PARTITIONS_MAX, TOPICS_MAX } from "../../src/protocol/limits.ts";
import { type Db, DbError } from "../../src/store/db.ts";
import { Topics } from "../../src/store/topics.ts";
import { failing, openQueue, openTestDatabase, START_MS, stockRows, WatchedDb } from "../support/database.ts";
import { FakeTime, turnOfTheLoop } from "../support/fake-time.ts";

const database = await openTestDatabase();
afterAll(() => database.close());
beforeEach(() => database.empty());

/** As a server process has them. `isShared`: other processes write to the same database. */
function openTopics(
  options: { createsOnFirstUse?: boolean; isShared?: boolean; readsAtOnceMax?: number } = {},
) {
  const { readsAtOnceMax = 1, isShared = false } = options;
  const db = Object.assign(new WatchedDb(database.db, { isShared }), { readsAtOnceMax });
  const time = new FakeTime();
  const createsOnFirstUse = options.createsOnFirstUse ?? false;
  /** What somebody here waits for. */
  const wanted = new Set<string>();
  const isWanted = (topic: string) => wanted.has(topic);
  const logged: string[] = [];
  const log = (event: string, facts = {}) => void logged.push(`${event} ${JSON.stringify(facts)}`);
  const topics = new Topics({ db, queue: openQueue(db), scheduler: time, log, createsOnFirstUse, isWanted });
  const told: TopicChange[] = [];
  topics.onChange((change) => told.push(change));
  return { db, topics, time, told, wanted, logged };
}

/** Between the next read and the arrival of its rows. */
function duringNextRead(db: Db, act: () => Promise<unknown>): void {
  const read = db.read.bind(db);
  db.read = async (statement) => {
    db.read = read;
    const rows = await read(statement);
    await act();
    return rows;
  };
}

/** The next write is done, and its answer is this. */
function answerNextWrite(db: Db, failure: "unknown" | "unanswered"): void {
  const write = db.write.bind(db);
  db.write = async (statements, options) => {
    db.write = write;
    await write(statements, options);
    throw new DbError(failure, "scripted");
  };
}

/** The names that each of these reads has looked up. */
const namesAskedBy = (reads: WatchedDb["reads"]) =>
  reads.flatMap(({ args }): string[][] =>
    args?.topics === undefined ? [] : [JSON.parse(String(args.topics))],
  );

async function problemOf(promise: Promise<unknown>): Promise<Problem> {
  const outcome = await promise.then(
    () => "resolved",
    (error: unknown) => error,
  );
  if (outcome instanceof Problem) return outcome;
  throw new Error(`expected a Problem, found ${outcome}`);
}

const dump = () => ({
  topics: stockRows(database.path, "SELECT * FROM topics ORDER BY topic_id"),
  partitions: stockRows(database.path, "SELECT * FROM partitions ORDER BY partition_id"),
});

describe("Topics.put()", () => {
  test("creates a topic with its partitions, empty, at the time of the database", async () => {
    const { topics } = openTopics();
    const empty = { logStartOffset: 0, logEndOffset: 0, records: 0, bytes: 0 };
    expect(await topics.put("orders", 3)).toEqual({
      topic: "orders",
      topicId: 1,
      partitionCount: 3,
      partitions: [
        { partition: 0, ...empty },
        { partition: 1, ...empty },
        { partition: 2, ...empty },
      ],
      retention: { ms: null, bytes: null, records: null },
      cleanup: "delete",
      compaction: { minLagMs: null, tombstoneMs: null },
      schema: null,
      createdAt: START_MS,
      isNew: true,
    });
    const row = { topic_id: 1, topic: "orders", partition_count: 3, created_at: START_MS };
    const limits = { retention_ms: null, retention_bytes: null, retention_records: null };
    const cleanup = { cleanup: "delete", cleanup_version: 0 };
    const compaction = { compaction_min_lag_ms: null, compaction_tombstone_ms: null };
    expect(dump().topics).toEqual([
      { ...row, schema: null, schema_version: 0, ...limits, ...cleanup, ...compaction },
    ]);
    expect(dump().partitions).toHaveLength(3);
  });

  test("gives one partition where no count is asked for", async () => {
    const { topics } = openTopics();
    expect(await topics.put("orders", undefined)).toMatchObject({ partitionCount: 1, isNew: true });
    expect(dump().partitions).toMatchObject([{ topic_id: 1, partition: 0 }]);
  });

  test("creates 1,024 partitions", async () => {
    const { topics } = openTopics();
    const { partitions } = await topics.put("orders", TOPIC_PARTITIONS_MAX);
    expect(partitions.map(({ partition }) => partition)).toEqual(
      Array.from({ length: TOPIC_PARTITIONS_MAX }, (_, partition) => partition),
    );
  });

  test.each([3, undefined])("of the same again (%p partitions) changes nothing", async (again) => {
    const { topics } = openTopics();
    await topics.put("orders", 3);
    const before = dump();
    await database.pass(1_000);
    expect(await topics.put("orders", again)).toMatchObject({
      topicId: 1,
      partitionCount: 3,
      createdAt: START_MS,
      isNew: false,
    });
    expect(dump()).toEqual(before);
  });

  test.each([1, 2])(
    "refuses fewer partitions, says what it found, and changes nothing (%p)",
    async (asked) => {
      const { topics } = openTopics();
      await topics.put("orders", 3);
      const before = dump();
      const problem = await problemOf(topics.put("orders", asked));
      expect(problem).toMatchObject({ code: "conflict", facts: { found: 3, asked } });
      expect(problem.message).toContain(`topic "orders" ${asked} partitions: it has 3`);
      expect(dump()).toEqual(before);
    },
  );

  test("adds the partitions that are missing, and leaves those that are there as they are", async () => {
    const { topics } = openTopics();
    await topics.put("orders", 2);
    await topics.put("other", 1);
    await database.run("UPDATE partitions SET log_end_offset = 7, records = 7 WHERE partition_id = 2");
    const grown = await topics.put("orders", 5);
    expect(grown).toMatchObject({ topicId: 1, partitionCount: 5, createdAt: START_MS, isNew: false });
    expect(grown.partitions.map(({ partition, records }) => [partition, records])).toEqual([
      [0, 0],
      [1, 7],
      [2, 0],
      [3, 0],
      [4, 0],
    ]);
    expect(dump().topics).toMatchObject([{ partition_count: 5 }, { topic: "other", partition_count: 1 }]);
    expect(await topics.find("orders")).toMatchObject({ partitionIds: [1, 2, 4, 5, 6] });
    expect(await topics.find("other")).toMatchObject({ partitionIds: [3] });
  });

  test("of many counts at once gives the highest, each partition once", async () => {
    const { topics } = openTopics();
    const other = openTopics().topics;
    const counts = [3, 7, 1, 5, 7, 2];
    const outcomes = await Promise.allSettled(
      counts.map((count, index) => (index % 2 === 0 ? topics : other).put("orders", count)),
    );
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") expect(outcome.reason).toMatchObject({ code: "conflict" });
    }
    expect(dump().topics).toMatchObject([{ partition_count: 7 }]);
    expect(dump().partitions.map(({ partition }) => partition)).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(outcomes.filter(({ status }) => status === "fulfilled").length).toBeGreaterThanOrEqual(2);
  });

  test("of the same topic twice at once creates it once", async () => {
    const { topics } = openTopics();
    const both = await Promise.all([topics.put("orders", 2), topics.put("orders", 2)]);
    expect(both.map(({ isNew }) => isNew)).toEqual([true, false]);
    expect(dump().partitions).toHaveLength(2);
  });

  test("of two counts at once creates the first and refuses the second", async () => {
    const { topics } = openTopics();
    const [first, second] = await Promise.allSettled([topics.put("orders", 2), topics.put("orders", 1)]);
    expect(first).toMatchObject({ status: "fulfilled", value: { partitionCount: 2, isNew: true } });
    expect(second).toMatchObject({ status: "rejected", reason: { code: "conflict" } });
    expect(dump().partitions).toHaveLength(2);
  });

  test("tells names apart by case and by every character", async () => {
    const { topics } = openTopics();
    for (const topic of ["orders", "Orders", "orders.", "orders-", "a".repeat(249)])
      expect(await topics.put(topic, 1)).toMatchObject({ topic, isNew: true });
    expect(dump().topics).toHaveLength(5);
  });

  test("never gives an id again", async () => {
    const { topics } = openTopics();
    await topics.put("orders", 2);
    await database.db.write([{ sql: "DELETE FROM partitions" }, { sql: "DELETE FROM topics" }]);
    expect(await topics.put("orders", 2)).toMatchObject({ topicId: 2, isNew: true });
    expect(dump().partitions).toMatchObject([{ partition_id: 3 }, { partition_id: 4 }]);
  });

  describe("near the limit of 10,000 topics", () => {
    async function fillUpTo(count: number): Promise<void> {
      await database.db.write([
        {
          sql: `WITH RECURSIVE numbers (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
                INSERT INTO topics (topic, partition_count, created_at) SELECT 'filler-' || n, 1, 0 FROM numbers`,
          args: { count },
        },
        { sql: "INSERT INTO partitions (topic_id, partition) SELECT topic_id, 0 FROM topics" },
      ]);
    }

    test("creates the last that is allowed and refuses one more, which leaves nothing", async () => {
      const { topics } = openTopics();
      await fillUpTo(TOPICS_MAX - 1);
      expect(await topics.put("last", 1)).toMatchObject({ isNew: true });
      const problem = await problemOf(topics.put("one-more", 7));
      expect(problem.code).toBe("conflict");
      expect(problem.message).toContain('"one-more": there are 10000 topics');
      expect(await topics.find("one-more")).toBeUndefined();
      expect(await database.rows("SELECT count(*) AS n FROM topics")).toEqual([{ n: TOPICS_MAX }]);
      expect(await database.rows("SELECT count(*) AS n FROM partitions")).toEqual([{ n: TOPICS_MAX }]);
    });

    test("still answers for a topic that is there", async () => {
      const { topics } = openTopics();
      await fillUpTo(TOPICS_MAX);
      expect(await topics.put("filler-1", 1)).toMatchObject({ topic: "filler-1", isNew: false });
      expect(await topics.list()).toHaveLength(TOPICS_MAX);
    });
  });
});

describe("Topics.put() of a topic that groups have", () => {
  /** Of 50 characters: each of its partitions counts 400 bytes, and 10,000 are what one group may have. */
  const nameOf = (name: string) => name.padEnd(50, "-");
  const orders = nameOf("orders");

  /** With so many partitions, as far as topics know. */
  async function fill(name: string, partitionCount: number): Promise<string> {
    const args = { topic: nameOf(name), partition_count: partitionCount };
    await database.run(
      "INSERT INTO topics (topic, partition_count, created_at) VALUES (:topic, :partition_count, 0)",
      args,
    );
    return nameOf(name);
  }

  async function addGroup(group: string, topics: readonly string[]): Promise<void> {
    await database.run("INSERT INTO groups VALUES (:group, 1, 0)", { group });
    for (const topic of topics)
      await database.run("INSERT INTO group_topics VALUES (:group, :topic, 1, 1)", { group, topic });
  }

  const everything = () => ({
    ...dump(),
    catalog: stockRows(database.path, "SELECT * FROM catalog"),
    guard: stockRows(database.path, "SELECT * FROM guard"),
  });
  const tooLarge = (partitions: number, group = "billing") => ({
    code: "conflict",
    facts: { topic: orders, group, found: partitions * 400, allowed: GROUP_BYTES_MAX },
  });

  test("adds partitions up to what the group can be read with; one more is refused and leaves nothing", async () => {
    const { topics, told } = openTopics();
    await topics.put(orders, 1);
    await addGroup("billing", [await fill("large", 9_900), orders, "gone"]);
    expect(await topics.put(orders, 100)).toMatchObject({ partitionCount: 100 });
    const before = everything();
    const problem = await problemOf(topics.put(orders, 101));
    expect(problem).toMatchObject(tooLarge(10_001));
    for (const part of [`"${orders}" 101 partitions`, 'group "billing"', "4000400 bytes", "at most 4000000"])
      expect(problem.message).toContain(part);
    expect(everything()).toEqual(before);
    expect(before.guard).toEqual([]);
    expect(told).toHaveLength(2);
    expect((await topics.find(orders))?.partitionIds).toHaveLength(100);
  });

  test("creates it anew, or not, by the same measure", async () => {
    const { topics } = openTopics({ createsOnFirstUse: true });
    await topics.put(orders, 3);
    await addGroup("billing", [orders, await fill("large", 9_997)]);
    await topics.delete(orders);
    const before = everything();
    expect(await problemOf(topics.put(orders, 4))).toMatchObject(tooLarge(10_001));
    expect(everything()).toEqual(before);
    expect(await topics.find(orders)).toBeUndefined();
    expect(await topics.put(orders, 3)).toMatchObject({ partitionCount: 3, isNew: true });
    await topics.delete(orders);
    await database.run("UPDATE topics SET partition_count = 10000");
    expect(await problemOf(topics.require(orders))).toMatchObject(tooLarge(10_001));
  });

  test("is never refused for a group that is too large where it adds nothing", async () => {
    const { topics } = openTopics();
    await topics.put(orders, 3);
    await addGroup("billing", [orders, await fill("larger", 20_000)]);
    const before = everything();
    for (const count of [3, undefined])
      expect(await topics.put(orders, count)).toMatchObject({ partitionCount: 3, isNew: false });
    expect(await problemOf(topics.put(orders, 2))).toMatchObject({ facts: { found: 3, asked: 2 } });
    expect(everything()).toEqual(before);
    expect(await problemOf(topics.put(orders, 4))).toMatchObject(tooLarge(20_004));
  });

  test("is never refused for a group that is too large and does not have it", async () => {
    const { topics } = openTopics();
    await addGroup("billing", [await fill("larger", 20_000)]);
    await addGroup("shipping", [orders]);
    expect(await topics.put(orders, 3)).toMatchObject({ isNew: true });
    expect(await topics.put(orders, 4)).toMatchObject({ partitionCount: 4 });
    expect(await topics.put("of-nobody", 4)).toMatchObject({ isNew: true });
  });

  test("names the one group of many that would be too large", async () => {
    const { topics } = openTopics();
    await topics.put(orders, 1);
    const large = await fill("large", 9_999);
    for (const group of ["a", "b", "d"]) await addGroup(group, [orders, nameOf("small")]);
    await addGroup("c", [large, orders]);
    await addGroup("e", [large]);
    expect(await problemOf(topics.put(orders, 2))).toMatchObject(tooLarge(10_001, "c"));
  });

  test("counts what its neighbours in a flush have added, and harms none of them", async () => {
    const { db, topics } = openTopics();
    const visits = nameOf("visits");
    await addGroup("billing", [orders, visits, await fill("large", 9_990)]);
    const before = db.writes.length;
    const outcomes = await Promise.allSettled([
      topics.put("first", 2),
      topics.put(visits, 6),
      topics.put(orders, 5),
      topics.put(orders, 4),
      topics.put(visits, 7),
      topics.put("last", 2),
    ]);
    expect(db.writes.length - before).toBe(1);
    expect(
      outcomes.map((outcome) =>
        outcome.status === "fulfilled" ? outcome.value.isNew : outcome.reason.facts.found,
      ),
    ).toEqual([true, true, 4_000_400, true, 4_000_400, true]);
    const made = { first: 2, [visits]: 6, [orders]: 4, last: 2 };
    for (const [topic, partitionCount] of Object.entries(made))
      expect(await topics.describe(topic)).toMatchObject({
        partitionCount,
        partitions: { length: partitionCount },
      });
    expect(everything().guard).toEqual([]);
  });

  test("is refused again where the answer was lost", async () => {
    const { db, topics } = openTopics();
    await addGroup("billing", [orders]);
    answerNextWrite(db, "unanswered");
    expect(await problemOf(topics.put(orders, 10_001))).toMatchObject(tooLarge(10_001));
    answerNextWrite(db, "unanswered");
    expect(await topics.put(orders, 10)).toMatchObject({ partitionCount: 10 });
    expect(everything().guard).toEqual([]);
  });

  test("looks up groups by the topic and goes through no others", async () => {
    const { db, topics } = openTopics();
    await topics.put(orders, 1);
    // On a connection of its own: after an EXPLAIN libSQL leaves it at the snapshot that it had.
    const other = await database.openSecond();
    const steps: string[] = [];
    for (const { sql, args = {} } of db.writes.flat()) {
      const plan = await other.read({ sql: `EXPLAIN QUERY PLAN ${sql}`, args });
      steps.push(...plan.map(({ detail }) => String(detail)));
    }
    expect(steps.filter((step) => /SCAN (groups|group_topics|concerned|g)\b/.test(step))).toEqual([]);
    expect(steps).toContainEqual(
      expect.stringMatching(/SEARCH concerned .*group_topics_by_topic \(topic=\?\)/),
    );
  });
});

describe("Topics.find()", () => {
  test("gives the partitions' ids in the order of their numbers, beside those of others", async () => {
    const { topics } = openTopics();
    for (const [topic, count] of [
      ["orders", 2],
      ["other", 3],
      ["orders", 12],
      ["other", 4],
    ] as const)
      await topics.put(topic, count);
    const numbers = await database.rows(
      "SELECT partition_id AS id FROM partitions WHERE topic_id = 1 ORDER BY partition",
    );
    const expected = {
      topic: "orders",
      topicId: 1,
      partitionIds: numbers.map(({ id }) => Number(id)),
      schema: null,
      isCompacted: false,
      schemaVersion: 0,
      hasUpkeep: false,
    };
    expect(await topics.find("orders")).toEqual(expected);
    expect(await openTopics().topics.find("orders")).toEqual(expected);
  });

  test("asks once for a topic that is there, and not at all for one that it has made", async () => {
    const { db, topics, time } = openTopics();
    await topics.put("orders", 2);
    const later = openTopics();
    for (let i = 0; i < 5; i += 1) {
      await time.advance(60_000);
      expect(await topics.find("orders")).toEqual({
        topic: "orders",
        topicId: 1,
        partitionIds: [1, 2],
        schema: null,
        isCompacted: false,
        schemaVersion: 0,
        hasUpkeep: false,
      });
      expect(await later.topics.find("orders")).toMatchObject({ partitionIds: [1, 2] });
    }
    expect([db.reads.length, later.db.reads.length]).toEqual([0, 1]);
  });

  test("does not remember that a topic is not there", async () => {
    const { topics } = openTopics();
    expect(await topics.find("orders")).toBeUndefined();
    await openTopics().topics.put("orders", 1);
    expect(await topics.find("orders")).toMatchObject({ topicId: 1 });
  });
});

describe("Topics' memory", () => {
  test("is of the topic as it is after growth, deletion and creation anew", async () => {
    const { topics } = openTopics();
    await topics.put("orders", 1);
    expect(await topics.find("orders")).toMatchObject({ topicId: 1, partitionIds: [1] });
    await topics.put("orders", 3);
    expect(await topics.find("orders")).toMatchObject({ topicId: 1, partitionIds: [1, 2, 3] });
    await topics.delete("orders");
    expect(await topics.find("orders")).toBeUndefined();
    await topics.put("orders", 2);
    expect(await topics.find("orders")).toMatchObject({ partitionIds: [4, 5] });
  });

  test("does not keep what was read before a change that ends first", async () => {
    for (const isKnown of [true, false]) {
      await database.empty();
      const { db, topics } = openTopics();
      await (isKnown ? topics : openTopics().topics).put("orders", 1);
      duringNextRead(db, () => topics.delete("orders"));
      expect(await topics.findAgain({ topic: "orders" })).toMatchObject({ topicId: 1 });
      expect(await topics.find("orders")).toBeUndefined();
    }
  });

  test("is of a topic as it is now for whoever found it to be another", async () => {
    const { topics, told } = openTopics();
    await topics.put("orders", 1);
    const old = await topics.require("orders");
    const other = openTopics().topics; // as another process has it
    await other.delete("orders");
    await other.put("orders", 1);
    expect(await topics.find("orders")).toEqual(old);
    expect(await topics.findAgain(old)).toMatchObject({ topicId: 2, partitionIds: [2] });
    expect(await topics.find("orders")).toMatchObject({ topicId: 2 });
    await other.delete("orders");
    expect(await topics.findAgain(old)).toBeUndefined();
    expect(told.slice(1)).toEqual([
      { topic: "orders", change: "deleted", partitionIds: [1] },
      { topic: "orders", change: "created", partitionIds: [2] },
      { topic: "orders", change: "deleted", partitionIds: [2] },
    ]);
  });

  test("lets go of a topic whose change has an unknown outcome", async () => {
    const { db, topics } = openTopics();
    await topics.put("orders", 1);
    await topics.require("orders");
    answerNextWrite(db, "unknown");
    expect(await problemOf(topics.delete("orders"))).toMatchObject({ code: "outcome_unknown" });
    expect(await topics.find("orders")).toBeUndefined();
  });
});

describe("Topics' memory of a shared database", () => {
  /** Two server processes on one database. */
  function openBoth() {
    return { own: openTopics({ isShared: true }), other: openTopics({ isShared: true }).topics };
  }

  test("is kept for a second, of a topic that was found or made", async () => {
    const { own, other } = openBoth();
    await other.put("found", 1);
    await own.topics.find("found");
    await own.topics.put("made", 1);
    await other.put("found", 2);
    await other.put("made", 2);
    const ask = async () => {
      const all = [await own.topics.find("found"), await own.topics.find("made")];
      return all.map((topic) => topic?.partitionIds.length);
    };
    await own.time.advance(999);
    expect(await ask()).toEqual([1, 1]);
    expect(own.db.reads).toHaveLength(1);
    await own.time.advance(1);
    expect(await ask()).toEqual([2, 2]);
    expect(own.db.reads).toHaveLength(3);
    expect(await ask()).toEqual([2, 2]);
    expect(own.db.reads).toHaveLength(3);
  });

  test("lets what another has grown, deleted, created or made anew be told when it is found", async () => {
    const { own, other } = openBoth();
    own.wanted.add("orders");
    await other.put("orders", 1);
    const find = async () => {
      await own.time.advance(1_000);
      own.told.length = 0;
      await own.topics.find("orders");
      return own.told.map(({ change, partitionIds }) => [change, ...partitionIds]);
    };
    expect(await find()).toEqual([]); // the first that it knows of it
    await other.put("orders", 3);
    expect(await find()).toEqual([["grown", 2, 3]]);
    expect(await find()).toEqual([]);
    await other.delete("orders");
    expect(await find()).toEqual([["deleted", 1, 2, 3]]);
    expect(await find()).toEqual([]);
    await other.put("orders", 2);
    expect(await find()).toEqual([["created", 4, 5]]);
    await other.delete("orders");
    await other.put("orders", 1);
    expect(await find()).toEqual([
      ["deleted", 4, 5],
      ["created", 6],
    ]);
  });

  test("asks each time for a topic that is gone, and remembers one that is wanted", async () => {
    const { own, other } = openBoth();
    own.wanted.add("orders");
    await own.topics.put("orders", 1);
    await other.delete("orders");
    await own.time.advance(1_000);
    const before = own.db.reads.length;
    for (let times = 0; times < 3; times += 1) expect(await own.topics.find("orders")).toBeUndefined();
    expect(own.db.reads.length - before).toBe(3);
    await other.put("orders", 1);
    await own.topics.find("orders");
    expect(own.told.map(({ change }) => change)).toEqual(["created", "deleted", "created"]);
  });

  test("is all looked up by refresh(), in one read, old or not", async () => {
    const { own, other } = openBoth();
    await own.topics.refresh();
    expect(own.db.reads).toEqual([]); // nothing that could have changed
    for (const topic of ["deleted", "grown", "same", "unasked"]) await other.put(topic, 1);
    for (const topic of ["deleted", "grown", "same", "never-there"]) await own.topics.find(topic);
    await other.delete("deleted");
    await other.put("grown", 2);
    await other.put("never-there", 1);
    const before = own.db.reads.length;
    await own.topics.refresh();
    expect(own.db.reads.length - before).toBe(1);
    expect(own.told).toEqual([
      { topic: "deleted", change: "deleted", partitionIds: [1] },
      { topic: "grown", change: "grown", partitionIds: [5] },
    ]);
    await own.topics.refresh();
    expect(own.told).toHaveLength(2);
  });

  test("is of every partition where another has added some before this one adds more", async () => {
    const { own, other } = openBoth();
    await own.topics.put("orders", 1);
    await other.put("orders", 3);
    expect(await own.topics.put("orders", 5)).toMatchObject({ partitionCount: 5 });
    expect(await own.topics.find("orders")).toMatchObject({ partitionIds: [1, 2, 3, 4, 5] });
    expect(own.told.slice(1)).toEqual([{ topic: "orders", change: "grown", partitionIds: [2, 3, 4, 5] }]);
  });

  test("is of every partition where the answer of a put was lost and it is done again", async () => {
    const { own } = openBoth();
    await own.topics.put("orders", 1);
    answerNextWrite(own.db, "unanswered");
    expect(await own.topics.put("orders", 3)).toMatchObject({ partitionCount: 3, isNew: false });
    expect(await own.topics.find("orders")).toMatchObject({ partitionIds: [1, 2, 3] });
    expect(own.told.slice(1)).toEqual([{ topic: "orders", change: "grown", partitionIds: [2, 3] }]);
  });

  test("lets a topic that another has deleted go when this one makes it anew", async () => {
    const { own, other } = openBoth();
    await own.topics.put("orders", 1);
    await other.delete("orders");
    await own.topics.put("orders", 2);
    expect(await own.topics.find("orders")).toMatchObject({ topicId: 2, partitionIds: [2, 3] });
    expect(own.told.slice(1)).toEqual([
      { topic: "orders", change: "deleted", partitionIds: [1] },
      { topic: "orders", change: "created", partitionIds: [2, 3] },
    ]);
  });

  test("lets a topic that another has made anew go when this one adds to it, or deletes it", async () => {
    for (const last of ["put", "delete"] as const) {
      await database.empty();
      const { own, other } = openBoth();
      await own.topics.put("orders", 1);
      await other.delete("orders");
      await other.put("orders", 1);
      if (last === "put") await own.topics.put("orders", 2);
      else await own.topics.delete("orders");
      const gone = own.told.filter(({ change }) => change === "deleted");
      expect(gone.flatMap(({ partitionIds }) => partitionIds)).toContain(1);
      const found = await own.topics.find("orders");
      expect(found?.partitionIds).toEqual(last === "put" ? [2, 3] : undefined);
    }
  });

  test("does not fall back to what an earlier look brings later", async () => {
    const { own, other } = openBoth();
    await own.topics.put("orders", 1);
    await other.delete("orders");
    const read = own.db.read.bind(own.db);
    let letGo = () => {};
    own.db.read = async (statement) => {
      own.db.read = read;
      const rows = await read(statement);
      await new Promise<void>((resolve) => {
        letGo = resolve;
      });
      return rows;
    };
    const early = own.topics.refresh(); // finds it gone
    await turnOfTheLoop();
    await other.put("orders", 1);
    await own.topics.refresh(); // finds it made anew
    letGo();
    await early;
    expect(await own.topics.find("orders")).toMatchObject({ topicId: 2 });
    expect(own.told.slice(1)).toEqual([
      { topic: "orders", change: "deleted", partitionIds: [1] },
      { topic: "orders", change: "created", partitionIds: [2] },
    ]);
  });

  test("is looked up again after a change whose outcome is unknown, and what became of it is told", async () => {
    const { own } = openBoth();
    await own.topics.put("orders", 1);
    await own.topics.put("other", 1);
    answerNextWrite(own.db, "unknown");
    expect(await problemOf(own.topics.delete("orders"))).toMatchObject({ code: "outcome_unknown" });
    expect(own.told).toHaveLength(2);
    expect(await own.topics.find("other")).toMatchObject({ topicId: 2 });
    expect(await own.topics.find("orders")).toBeUndefined();
    expect(own.told.slice(2)).toEqual([{ topic: "orders", change: "deleted", partitionIds: [1] }]);
    expect(own.logged).toEqual([]);
  });

  test("says in the log where that cannot be looked up, and looks again with the next use", async () => {
    const { own } = openBoth();
    await own.topics.put("orders", 1);
    answerNextWrite(own.db, "unknown");
    own.db.onRead = failing(new DbError("io", "scripted"));
    expect(await problemOf(own.topics.delete("orders"))).toMatchObject({ code: "outcome_unknown" });
    await own.time.settle();
    expect(own.logged).toEqual([
      'topic could not be looked up {"topic":"orders","message":"DbError: scripted"}',
    ]);
    expect(await own.topics.find("orders")).toBeUndefined();
  });
});

describe("News of topics on a shared database", () => {
  /** Two server processes on one database; both know `orders` and `other`, and nothing is told yet. */
  async function openBoth() {
    const own = openTopics({ isShared: true });
    const other = openTopics({ isShared: true });
    for (const topic of ["orders", "other"]) {
      await own.topics.put(topic, 1);
      await other.topics.find(topic);
    }
    own.told.length = 0;
    return { own, other: other.topics };
  }
  const grown = { topic: "orders", change: "grown", partitionIds: [3] } as const;

  test("are told whatever this server changes of others while they are read", async () => {
    for (const look of ["refresh", "find"] as const) {
      await database.empty();
      const { own, other } = await openBoth();
      await other.put("orders", 2);
      duringNextRead(own.db, async () => {
        await own.topics.put("other", 1);
        await own.topics.put("new", 1);
        await problemOf(own.topics.delete("never-there"));
      });
      await (look === "refresh" ? own.topics.refresh() : own.topics.findAgain({ topic: "orders" }));
      expect(own.told.filter(({ topic }) => topic === "orders")).toEqual([grown]);
      expect(await own.topics.find("orders")).toMatchObject({ partitionIds: [1, 3] });
    }
  });

  test("are told where what is read is known for the first time meanwhile", async () => {
    const { other } = await openBoth();
    const own = openTopics({ isShared: true });
    duringNextRead(own.db, () => own.topics.put("other", 1));
    await own.topics.find("orders");
    await other.put("orders", 2);
    await own.topics.refresh();
    expect(own.told).toEqual([grown]);
  });

  test("of a topic that this server changes while it is read are told, by whoever knows the later state", async () => {
    const { own, other } = await openBoth();
    duringNextRead(own.db, () => own.topics.put("orders", 2)); // what was read is older
    await own.topics.refresh();
    expect(own.told).toEqual([grown]);
    const write = own.db.write.bind(own.db);
    let answer = () => {};
    own.db.write = async (statements, options) => {
      own.db.write = write;
      const results = await write(statements, options);
      await new Promise<void>((resolve) => {
        answer = resolve;
      });
      return results;
    };
    const put = own.topics.put("orders", 3);
    await turnOfTheLoop();
    await other.put("orders", 4); // after it, and before it is answered
    duringNextRead(own.db, async () => {
      answer();
      await put;
    });
    await own.topics.refresh(); // what was read is newer
    expect(own.told.flatMap(({ partitionIds }) => partitionIds)).toEqual([3, 4, 5]);
    expect(await own.topics.find("orders")).toMatchObject({ partitionIds: [1, 3, 4, 5] });
  });

  test("of a topic that another makes anew before this one's deletion is answered are told", async () => {
    const { own, other } = await openBoth();
    own.wanted.add("orders");
    const write = own.db.write.bind(own.db);
    own.db.write = async (statements, options) => {
      own.db.write = write;
      const results = await write(statements, options);
      await other.put("orders", 1);
      await own.topics.refresh();
      return results;
    };
    await own.topics.delete("orders");
    expect(own.told).toEqual([
      { topic: "orders", change: "deleted", partitionIds: [1] },
      { topic: "orders", change: "created", partitionIds: [3] },
      { topic: "orders", change: "deleted", partitionIds: [1] },
    ]);
    expect(await own.topics.find("orders")).toMatchObject({ partitionIds: [3] });
  });

  test("are told by refresh(), or it rejects and tells them when it is called again", async () => {
    const { own, other } = await openBoth();
    await other.put("orders", 2);
    const [{ version } = {}] = await database.rows("SELECT version FROM catalog");
    own.db.onRead = failing(new DbError("io", "scripted"));
    await expect(own.topics.refresh(Number(version))).rejects.toThrow("scripted");
    expect(own.told).toEqual([]);
    await own.topics.refresh(Number(version));
    expect(own.told).toEqual([grown]);
    // A replica that lags behind what was seen elsewhere.
    await expect(own.topics.refresh(Number(version) + 1)).rejects.toThrow("as of version 3 of the catalog");
  });

  test("are told of a change of this server whose outcome is unknown, without anybody asking", async () => {
    const { own } = await openBoth();
    own.wanted.add("gone").add("orders");
    await own.topics.find("gone");
    for (const failure of ["unknown", "unanswered"] as const) {
      for (const change of [
        () => own.topics.put("orders", 9),
        () => own.topics.put("gone", 1),
        () => own.topics.delete("orders"),
        () => own.topics.delete("gone"),
      ]) {
        answerNextWrite(own.db, failure);
        await change().catch(() => {}); // a put whose answer is lost is done again
        await own.time.settle();
      }
      expect(own.told.splice(0).map(({ topic, change }) => `${topic} ${change}`)).toEqual([
        `orders ${failure === "unknown" ? "grown" : "created"}`,
        "gone created",
        "orders deleted",
        "gone deleted",
      ]);
    }
  });

  test("come to an end while this server goes on changing topics", async () => {
    const { own, other } = await openBoth();
    await other.put("orders", 2);
    let puts = 0;
    const putWithoutEnd = () => {
      duringNextRead(own.db, async () => {
        puts += 1;
        await own.topics.put("orders", 2);
        putWithoutEnd();
      });
    };
    putWithoutEnd();
    await own.topics.refresh();
    expect(own.told).toEqual([grown]);
    expect(puts).toBe(1);
  });
});

describe("The names that Topics remembers", () => {
  function openBoth(options: { readsAtOnceMax?: number } = {}) {
    const own = openTopics({ isShared: true, ...options });
    const asked = async () => {
      own.db.reads.length = 0;
      await own.topics.refresh();
      return namesAskedBy(own.db.reads);
    };
    return { own, other: openTopics({ isShared: true }).topics, asked };
  }

  test("are looked up a hundred at once", async () => {
    const { own, asked } = openBoth();
    for (let n = 0; n < 250; n += 1) await own.topics.put(`topic-${n}`, 1);
    const names = await asked();
    expect(names.map(({ length }) => length)).toEqual([100, 100, 50]);
    expect(new Set(names.flat()).size).toBe(250);
  });

  test("are looked up by as many reads at once as the database takes", async () => {
    for (const readsAtOnceMax of [1, 3, 16]) {
      await database.empty();
      const { own, asked } = openBoth({ readsAtOnceMax });
      for (let n = 0; n < 650; n += 1) own.wanted.add(`topic-${n}`);
      await Promise.all([...own.wanted].map((topic) => own.topics.find(topic)));
      const underWay = { now: 0, most: 0 };
      own.db.onRead = async () => {
        underWay.now += 1;
        underWay.most = Math.max(underWay.most, underWay.now);
        await turnOfTheLoop();
        underWay.now -= 1;
      };
      const names = await asked();
      expect(new Set(names.flat())).toEqual(own.wanted);
      expect(names).toHaveLength(7);
      expect(underWay).toEqual({ now: 0, most: Math.min(readsAtOnceMax, 7) });
    }
  });

  test("are not looked up any further where one look fails or comes too early", async () => {
    const { own, asked } = openBoth({ readsAtOnceMax: 2 });
    for (let n = 0; n < 650; n += 1) own.wanted.add(`topic-${n}`);
    await Promise.all([...own.wanted].map((topic) => own.topics.find(topic)));
    own.db.reads.length = 0;
    await expect(own.topics.refresh(1)).rejects.toThrow("as of version 0 of the catalog");
    own.db.onRead = failing(new DbError("io", "scripted"));
    await expect(own.topics.refresh()).rejects.toThrow("scripted");
    await turnOfTheLoop();
    expect(own.db.reads).toHaveLength(4);
    expect(new Set((await asked()).flat())).toEqual(own.wanted);
  });

  test("are not those of topics that are gone, whoever has deleted them, or were never there", async () => {
    const { own, other, asked } = openBoth();
    for (const topic of ["here", "mine", "theirs"]) await own.topics.put(topic, 1);
    await own.topics.delete("mine");
    await other.delete("theirs");
    await own.topics.find("never-there");
    expect(await asked()).toEqual([["here", "theirs"]]);
    expect(own.told.slice(3)).toEqual([
      { topic: "mine", change: "deleted", partitionIds: [2] },
      { topic: "theirs", change: "deleted", partitionIds: [3] },
    ]);
    expect(await asked()).toEqual([["here"]]);
    await other.put("mine", 1);
    await own.topics.find("mine");
    expect(await asked()).toEqual([["here", "mine"]]);
  });

  test("are those of topics that are gone or were never there while somebody wants them", async () => {
    const { own, other, asked } = openBoth();
    own.wanted.add("mine").add("theirs").add("never-there");
    for (const topic of ["mine", "theirs"]) await own.topics.put(topic, 1);
    await own.topics.delete("mine");
    await other.delete("theirs");
    await own.topics.find("never-there");
    await own.topics.refresh();
    own.told.length = 0;
    for (const topic of ["mine", "theirs", "never-there"]) await other.put(topic, 1);
    await own.topics.refresh();
    expect(own.told.map(({ topic, change }) => `${topic} ${change}`).toSorted()).toEqual([
      "mine created",
      "never-there created",
      "theirs created",
    ]);
    for (const topic of ["mine", "theirs", "never-there"]) await other.delete(topic);
    own.wanted.delete("theirs");
    await own.topics.refresh();
    own.wanted.delete("mine");
    await own.topics.refresh();
    expect(await asked()).toEqual([["never-there"]]);
  });

  test("stay few where many were wanted once and nothing changes", async () => {
    const { own, asked } = openBoth();
    own.wanted.add("wanted");
    await own.topics.find("wanted");
    for (let n = 0; n < 1_000; n += 1) {
      own.wanted.add(`topic-${n}`);
      await own.topics.find(`topic-${n}`);
      own.wanted.delete(`topic-${n}`);
    }
    const names = (await asked()).flat();
    expect(names.length).toBeLessThan(150);
    expect(names).toContain("wanted");
    expect(await asked()).toEqual([["wanted"]]);
  });
});

describe("Topics.onChange()", () => {
  test("tells of what is durable: created, grown, deleted, and which partitions came or went", async () => {
    const { topics, told } = openTopics({ createsOnFirstUse: true });
    topics.onChange((change) => {
      const rows = stockRows(database.path, "SELECT partition_id FROM partitions ORDER BY partition_id");
      const isThere = change.partitionIds.every((id) => rows.some(({ partition_id }) => partition_id === id));
      expect(isThere).toBe(change.change !== "deleted");
    });
    await topics.put("orders", 2);
    await topics.put("orders", 2);
    await topics.put("orders", undefined);
    await topics.put("orders", 4);
    await problemOf(topics.put("orders", 1));
    await topics.require("first-use");
    await topics.delete("orders");
    await problemOf(topics.delete("orders"));
    expect(told).toEqual([
      { topic: "orders", change: "created", partitionIds: [1, 2] },
      { topic: "orders", change: "grown", partitionIds: [3, 4] },
      { topic: "first-use", change: "created", partitionIds: [5] },
      { topic: "orders", change: "deleted", partitionIds: [1, 2, 3, 4] },
    ]);
  });

  test("tells of its own changes once, however often they are looked at, on a shared database too", async () => {
    const { topics, told, time } = openTopics({ isShared: true });
    const look = async () => {
      await topics.refresh();
      await time.advance(1_000);
      await topics.find("orders");
    };
    await topics.put("orders", 2);
    await look();
    await topics.put("orders", 3);
    await look();
    await topics.delete("orders");
    await look();
    await topics.put("orders", 1);
    await look();
    expect(told).toEqual([
      { topic: "orders", change: "created", partitionIds: [1, 2] },
      { topic: "orders", change: "grown", partitionIds: [3] },
      { topic: "orders", change: "deleted", partitionIds: [1, 2, 3] },
      { topic: "orders", change: "created", partitionIds: [4] },
    ]);
  });

  test("tells nothing of a change that was refused or failed", async () => {
    const { db, topics, told } = openTopics();
    db.onWrite = failing(new DbError("full", "scripted"));
    expect(await problemOf(topics.put("orders", 2))).toMatchObject({ code: "storage_full" });
    expect(await problemOf(topics.delete("orders"))).toMatchObject({
      code: "unknown_topic",
      facts: { topic: "orders" },
    });
    expect(told).toEqual([]);
  });
});

describe("Topics.require()", () => {
  test("says unknown_topic and creates nothing where topics are created by PUT only", async () => {
    const { db, topics } = openTopics();
    const problem = await problemOf(topics.require("orders"));
    expect(problem).toMatchObject({ code: "unknown_topic", facts: { topic: "orders" } });
    expect(problem.message).toContain("PUT /v1/topics/orders");
    expect(db.writes).toEqual([]);
    expect(dump()).toEqual({ topics: [], partitions: [] });
  });

  test("creates a topic with one partition where first use does", async () => {
    const { topics } = openTopics({ createsOnFirstUse: true });
    expect(await topics.require("orders")).toEqual({
      topic: "orders",
      topicId: 1,
      partitionIds: [1],
      schema: null,
      isCompacted: false,
      schemaVersion: 0,
      hasUpkeep: false,
    });
    expect(dump().topics).toMatchObject([{ topic: "orders", partition_count: 1 }]);
  });

  test("gives the topic that is there, with all its partitions, and writes nothing", async () => {
    const { topics } = openTopics();
    await topics.put("orders", 3);
    const later = openTopics({ createsOnFirstUse: true });
    expect(await later.topics.require("orders")).toMatchObject({ topicId: 1, partitionIds: [1, 2, 3] });
    expect(later.db.writes).toEqual([]);
  });

  test("by many at once creates one topic", async () => {
    const { topics } = openTopics({ createsOnFirstUse: true });
    const all = await Promise.all(Array.from({ length: 20 }, () => topics.require("orders")));
    expect(new Set(all.map(({ topicId }) => topicId))).toEqual(new Set([1]));
    expect(dump().partitions).toHaveLength(1);
  });
});

describe("Topics.list() and describe()", () => {
  test("list every topic by name", async () => {
    const { topics } = openTopics();
    expect(await topics.list()).toEqual([]);
    await topics.put("payments", 2);
    await topics.put("orders", 1);
    expect(await topics.list()).toEqual([
      { topic: "orders", topicId: 2, partitionCount: 1 },
      { topic: "payments", topicId: 1, partitionCount: 2 },
    ]);
  });

  test("describe what the partitions' rows say, and nothing where there is no topic", async () => {
    const { topics } = openTopics();
    await topics.put("orders", 2);
    await database.run(
      "UPDATE partitions SET log_start_offset = 2, log_end_offset = 7, records = 4, bytes = 99 WHERE partition = 1",
    );
    expect(await topics.describe("orders")).toMatchObject({
      partitions: [
        { partition: 0, logStartOffset: 0, logEndOffset: 0, records: 0, bytes: 0 },
        { partition: 1, logStartOffset: 2, logEndOffset: 7, records: 4, bytes: 99 },
      ],
    });
    expect(await topics.describe("nowhere")).toBeUndefined();
  });
});

describe("the tables of topics", () => {
  test("refuse to lose a topic that has partitions, and keep both", async () => {
    const { topics } = openTopics();
    await topics.put("orders", 2);
    const before = dump();
    await expect(database.run("DELETE FROM topics")).rejects.toMatchObject({ failure: "rejected" });
    expect(dump()).toEqual(before);
  });

  test("refuse a partition of no topic and a second of the same number", async () => {
    const { topics } = openTopics();
    await topics.put("orders", 1);
    const before = dump();
    for (const [topicId, partition] of [
      [99, 0],
      [1, 0],
    ]) {
      const sql = `INSERT INTO partitions (topic_id, partition) VALUES (${topicId}, ${partition})`;
      await expect(database.run(sql)).rejects.toMatchObject({ failure: "rejected" });
    }
    expect(dump()).toEqual(before);
  });
});
