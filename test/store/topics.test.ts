import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { Problem } from "../../src/core/problem.ts";
import type { TopicChange } from "../../src/core/session/events.ts";
import { TOPIC_PARTITIONS_MAX, TOPICS_MAX } from "../../src/protocol/limits.ts";
import { DbError } from "../../src/store/db.ts";
import { Topics } from "../../src/store/topics.ts";
import { failing, openQueue, openTestDatabase, START_MS, stockRows, WatchedDb } from "../support/database.ts";

const database = await openTestDatabase();
afterAll(() => database.close());
beforeEach(() => database.empty());

function openTopics(options: { createsOnFirstUse?: boolean } = {}) {
  const db = new WatchedDb(database.db);
  const topics = new Topics({
    db,
    queue: openQueue(db),
    createsOnFirstUse: options.createsOnFirstUse ?? false,
  });
  return { db, topics };
}

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
      createdAt: START_MS,
      isNew: true,
    });
    expect(dump().topics).toEqual([
      { topic_id: 1, topic: "orders", partition_count: 3, created_at: START_MS },
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

describe("Topics.find()", () => {
  test("gives the partitions' ids in the order of their numbers", async () => {
    const { topics } = openTopics();
    await topics.put("other", 1);
    await database.db.write([
      { sql: "INSERT INTO topics (topic, partition_count, created_at) VALUES ('orders', 3, 0)" },
      { sql: "INSERT INTO partitions (topic_id, partition) VALUES (2, 2), (2, 0), (2, 1)" },
    ]);
    expect(await topics.find("orders")).toEqual({ topic: "orders", topicId: 2, partitionIds: [3, 4, 2] });
  });

  test("asks once for a topic that is there", async () => {
    const { db, topics } = openTopics();
    await topics.put("orders", 2);
    const before = db.reads.length;
    for (let i = 0; i < 5; i += 1) await topics.find("orders");
    expect(db.reads.length - before).toBe(1);
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
    const { db, topics } = openTopics();
    await topics.put("orders", 1);
    let isReading: (() => void) | undefined;
    const reading = new Promise<void>((resolve) => {
      isReading = resolve;
    });
    const read = db.read.bind(db);
    db.read = async (statement) => {
      const rows = await read(statement);
      db.read = read;
      isReading?.();
      await topics.delete("orders"); // while the reader still holds the old rows
      return rows;
    };
    const found = topics.find("orders");
    await reading;
    expect(await found).toMatchObject({ topicId: 1 });
    expect(await topics.find("orders")).toBeUndefined();
  });

  test("lets go of a topic that somebody found gone, and of no newer one", async () => {
    const { db, topics } = openTopics();
    await topics.put("orders", 1);
    const old = await topics.require("orders");
    const other = openTopics().topics; // as another process has it
    await other.delete("orders");
    await other.put("orders", 1);
    expect(await topics.find("orders")).toEqual(old);
    topics.forget(old);
    expect(await topics.find("orders")).toMatchObject({ topicId: 2 });
    const reads = db.reads.length;
    topics.forget(old);
    expect(await topics.find("orders")).toMatchObject({ topicId: 2 });
    expect(db.reads.length).toBe(reads);
  });

  test("lets go of a topic whose change has an unknown outcome", async () => {
    const { db, topics } = openTopics();
    await topics.put("orders", 1);
    await topics.require("orders");
    const write = db.write.bind(db);
    db.write = async (statements) => {
      await write(statements);
      db.write = write;
      throw new DbError("unknown", "scripted");
    };
    expect(await problemOf(topics.delete("orders"))).toMatchObject({ code: "outcome_unknown" });
    expect(await topics.find("orders")).toBeUndefined();
  });
});

describe("Topics.onChange()", () => {
  test("tells of what is durable: created, grown, deleted, and which partitions came or went", async () => {
    const { topics } = openTopics({ createsOnFirstUse: true });
    const told: TopicChange[] = [];
    topics.onChange((change) => {
      const rows = stockRows(database.path, "SELECT partition_id FROM partitions ORDER BY partition_id");
      const isThere = change.partitionIds.every((id) => rows.some(({ partition_id }) => partition_id === id));
      expect(isThere).toBe(change.change !== "deleted");
      told.push(change);
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

  test("tells nothing of a change that was refused or failed", async () => {
    const { db, topics } = openTopics();
    const told: TopicChange[] = [];
    topics.onChange((change) => told.push(change));
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
    expect(await topics.require("orders")).toEqual({ topic: "orders", topicId: 1, partitionIds: [1] });
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
