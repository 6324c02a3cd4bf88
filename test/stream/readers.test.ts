import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { Problem } from "../../src/core/problem.ts";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import type { ReaderRequest } from "../../src/core/readers.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { Topics } from "../../src/store/topics.ts";
import { gainForReader, openReader } from "../../src/stream/readers.ts";
import { openQueue, openTestDatabase, START_MS, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";

const database = await openTestDatabase();
const { db } = database;
const queue = openQueue(db);

afterAll(() => database.close());
beforeEach(() => database.empty());

const depsOf = (createsOnFirstUse = true) => ({
  db,
  topics: new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse }),
});
const from = (place: ReaderRequest["from"], topics: readonly string[] = ["orders"]): ReaderRequest => ({
  topics,
  from: place,
});
const topicNames = async () =>
  (await database.rows("SELECT topic FROM topics ORDER BY topic")).map(({ topic }) => topic);

async function produce(count: number, partition = 0): Promise<void> {
  const records = Array.from({ length: count }, (_, n) => ({
    value: n,
    timestamp: START_MS - 1_000 * (count - n),
  }));
  const list = parseJsonProduce(JSON.stringify({ records })).records;
  const topic = await depsOf().topics.require("orders");
  await queue.submit(appendRecords(topic, [{ partition, records: list }]));
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "resolved",
    (error) => (error instanceof Problem ? error.code : `defect: ${error}`),
  );
}

describe("openReader()", () => {
  test("finds the place in every partition, by time too, and writes nothing", async () => {
    await depsOf().topics.put("orders", 2);
    await produce(10);
    const watched = new WatchedDb(db);
    const topics = new Topics({
      db: watched,
      queue: openQueue(watched),
      scheduler: new FakeTime(),
      createsOnFirstUse: true,
    });
    const positionsOf = async (place: ReaderRequest["from"]) =>
      (await openReader({ db: watched, topics }, from(place))).map(({ position }) => position);
    expect(await positionsOf("earliest")).toEqual([0, 0]);
    expect(await positionsOf("latest")).toEqual([10, 0]);
    expect(await positionsOf({ ago: 3_000 })).toEqual([7, 0]);
    expect(await positionsOf({ timestamp: START_MS - 10_000 })).toEqual([0, 0]);
    expect(await positionsOf([{ topic: "orders", partition: 0, offset: 4 }])).toEqual([4]);
    expect(watched.writes).toEqual([]);
  });

  test("creates its topics where first use does", async () => {
    expect(await openReader(depsOf(), from("latest", ["orders", "refunds"]))).toMatchObject([
      { topic: "orders", partition: 0, position: 0 },
      { topic: "refunds", partition: 0, position: 0 },
    ]);
    expect(await topicNames()).toEqual(["orders", "refunds"]);
  });

  test("knows its topics from before its look at them, so that whatever changes after it is told", async () => {
    const deps = depsOf();
    await depsOf().topics.put("orders", 1); // as another process did
    await openReader(deps, from("latest"));
    const told: unknown[] = [];
    deps.topics.onChange((change) => told.push(change));
    await depsOf().topics.put("orders", 2);
    await deps.topics.refresh();
    expect(told).toEqual([{ topic: "orders", change: "grown", partitionIds: [2] }]);
  });

  test("of a topic that is not there is unknown_topic where first use creates none", async () => {
    expect(await codeOf(openReader(depsOf(false), from("latest")))).toBe("unknown_topic");
    expect(await topicNames()).toEqual([]);
  });

  test("of a topicId that the topic does not have is unknown_topic, and no topic comes into being", async () => {
    await depsOf().topics.put("orders", 1);
    const starts = [{ topic: "orders", partition: 0, offset: 0, topicId: 99 }];
    expect(await codeOf(openReader(depsOf(), from(starts)))).toBe("unknown_topic");
    expect(await topicNames()).toEqual(["orders"]);
  });

  test("that is refused for another reason creates nothing", async () => {
    await depsOf().topics.put("orders", 1);
    expect(await codeOf(openReader(depsOf(), from({ offset: 5 })))).toBe("offset_out_of_range");
    const starts = [{ topic: "orders", partition: 1, offset: 0 }];
    expect(await codeOf(openReader(depsOf(), from(starts)))).toBe("unknown_partition");
  });
});

describe("gainForReader()", () => {
  test("brings what is there beside the known, from its beginning", async () => {
    await depsOf().topics.put("orders", 2);
    await produce(5, 1);
    expect(await gainForReader(depsOf(), from("latest"), new Set([1]))).toMatchObject([
      { partitionId: 2, position: 0, logEndOffset: 5 },
    ]);
  });

  test("brings nothing of a topic that is gone, and creates none", async () => {
    expect(await gainForReader(depsOf(), from("latest"), new Set())).toEqual([]);
    expect(await topicNames()).toEqual([]);
  });
});
