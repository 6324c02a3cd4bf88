import { afterAll, beforeEach, expect, test } from "bun:test";
import { readPartitions } from "../../src/store/reader-partitions.ts";
import { Topics } from "../../src/store/topics.ts";
import { openQueue, openTestDatabase } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";

const database = await openTestDatabase();
const { db } = database;
const queue = openQueue(db);

afterAll(() => database.close());
beforeEach(() => database.empty());

test("readPartitions() brings every partition of the topics that are, in the order of the request", async () => {
  const topics = new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
  for (const [topic, partitions] of Object.entries({ orders: 2, others: 1, refunds: 1 }))
    await topics.put(topic, partitions);
  await database.run("UPDATE partitions SET log_start_offset = 5, log_end_offset = 9 WHERE partition_id = 2");
  const empty = { logStartOffset: 0, logEndOffset: 0 };
  expect(await readPartitions(db, ["refunds", "nowhere", "orders"])).toEqual([
    { topic: "refunds", topicId: 3, partition: 0, partitionId: 4, ...empty },
    { topic: "orders", topicId: 1, partition: 0, partitionId: 1, ...empty },
    { topic: "orders", topicId: 1, partition: 1, partitionId: 2, logStartOffset: 5, logEndOffset: 9 },
  ]);
});

test("readPartitions() of topics that are not there brings none", async () => {
  expect(await readPartitions(db, ["nowhere"])).toEqual([]);
});
