import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { Topics } from "../../src/store/topics.ts";
import { usePartition } from "../../src/stream/topic-partition.ts";
import { openQueue, openTestDatabase } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";

const database = await openTestDatabase();
const otherDb = await database.openSecond();
afterAll(() => database.close());
beforeEach(() => database.empty());

const openTopics = (db = database.db) =>
  new Topics({ db, queue: openQueue(db), scheduler: new FakeTime(), createsOnFirstUse: true });

/** What is used by an id that is in the database; the ids that were asked for. */
function watchedUse() {
  const ids: number[] = [];
  const use = async (partitionId: number) => {
    ids.push(partitionId);
    const rows = await database.rows("SELECT 1 FROM partitions WHERE partition_id = :id", {
      id: partitionId,
    });
    return rows.length > 0 ? "used" : undefined;
  };
  return { ids, use };
}

const problemOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "resolved",
    (error: unknown) => error,
  );

describe("usePartition()", () => {
  test("uses what is remembered while it is there", async () => {
    const topics = openTopics();
    await topics.put("orders", 2);
    const topic = await topics.require("orders");
    const { ids, use } = watchedUse();
    expect(await usePartition(topics, topic, { partition: 1, use })).toEqual({ topic, result: "used" });
    expect(ids).toEqual([2]);
  });

  test("looks once more where another process has deleted the topic, and creates none", async () => {
    const topics = openTopics();
    await topics.put("orders", 1);
    const topic = await topics.require("orders");
    await openTopics(otherDb).delete("orders");
    const { ids, use } = watchedUse();
    const problem = await problemOf(usePartition(topics, topic, { partition: 0, use }));
    expect(problem).toMatchObject({ code: "unknown_topic", facts: { topic: "orders" } });
    expect(ids).toEqual([1]);
    expect(await topics.find("orders")).toBeUndefined();
  });

  test("uses the topic that was created in its place, and says which it was", async () => {
    const topics = openTopics();
    await topics.put("orders", 2);
    const topic = await topics.require("orders");
    const elsewhere = openTopics(otherDb);
    await elsewhere.delete("orders");
    const { topicId } = await elsewhere.put("orders", 1);
    const { ids, use } = watchedUse();
    expect(await usePartition(topics, topic, { partition: 0, use })).toMatchObject({
      topic: { topicId },
      result: "used",
    });
    expect(ids).toEqual([1, 3]);
    const problem = await problemOf(usePartition(topics, topic, { partition: 1, use }));
    expect(problem).toMatchObject({ code: "unknown_partition", facts: { partition: 1, partitionCount: 1 } });
  });
});
