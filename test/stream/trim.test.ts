import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { DbError } from "../../src/store/db.ts";
import { Topics } from "../../src/store/topics.ts";
import { TRIM_RECORDS_MAX } from "../../src/store/trims.ts";
import { trimLog } from "../../src/stream/trim.ts";
import { failing, openQueue, openTestDatabase, stockRows, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";

const database = await openTestDatabase();
afterAll(() => database.close());
beforeEach(() => database.empty());

const partition = () =>
  stockRows(database.path, "SELECT log_start_offset, log_end_offset, records FROM partition_stats")[0];

async function setUp(recordCount: number) {
  const db = new WatchedDb(database.db);
  const queue = openQueue(db);
  const topics = new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
  const topic = await topics.require("orders");
  const append = (count: number) => {
    const text = JSON.stringify({ records: Array.from({ length: count }, () => ({ value: 1 })) });
    return queue.submit(appendRecords(topic, [{ partition: 0, records: parseJsonProduce(text).records }]));
  };
  for (let left = recordCount; left > 0; left -= TRIM_RECORDS_MAX)
    await append(Math.min(left, TRIM_RECORDS_MAX));
  db.writes.length = 0;
  return { db, queue, topics, append };
}

const problemOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "resolved",
    (error: unknown) => error,
  );

describe("trimLog()", () => {
  test("resolves when the last of its steps is durable", async () => {
    const { db, queue } = await setUp(2 * TRIM_RECORDS_MAX + 10);
    const before = 2 * TRIM_RECORDS_MAX + 1;
    const bounds = { logStartOffset: before, logEndOffset: before + 9 };
    expect(await trimLog(queue, { partitionId: 1, before })).toEqual(bounds);
    expect(db.writes).toHaveLength(3);
    expect(partition()).toEqual({ log_start_offset: before, log_end_offset: before + 9, records: 9 });
  });

  test("lets others write between its steps, and what they append stays", async () => {
    const { db, queue, append } = await setUp(2 * TRIM_RECORDS_MAX);
    const seen: unknown[] = [];
    db.onWrite = () => {
      db.onWrite = undefined;
      void append(3).then(() => seen.push(partition()?.log_start_offset));
    };
    const bounds = await trimLog(queue, { partitionId: 1, before: 2 * TRIM_RECORDS_MAX });
    expect(bounds).toEqual({
      logStartOffset: 2 * TRIM_RECORDS_MAX,
      logEndOffset: 2 * TRIM_RECORDS_MAX + 3,
    });
    expect(seen).toHaveLength(1);
    expect(Number(seen[0])).toBeLessThanOrEqual(2 * TRIM_RECORDS_MAX);
    expect(partition()).toMatchObject({ records: 3 });
  });

  test("refuses an offset above the log end, with the bounds, and deletes nothing", async () => {
    const { queue } = await setUp(10);
    await trimLog(queue, { partitionId: 1, before: 4 });
    for (const before of [11, Number.MAX_SAFE_INTEGER]) {
      const problem = await problemOf(trimLog(queue, { partitionId: 1, before }));
      expect(problem).toMatchObject({
        code: "offset_out_of_range",
        facts: { found: before, logStartOffset: 4, logEndOffset: 10 },
      });
    }
    expect(partition()).toEqual({ log_start_offset: 4, log_end_offset: 10, records: 6 });
  });

  test("that fails in the middle leaves whole steps, and may be asked for again", async () => {
    const { db, queue } = await setUp(2 * TRIM_RECORDS_MAX);
    const failFirst = failing(new DbError("full", "scripted"));
    let writes = 0;
    db.onWrite = () => {
      writes += 1;
      if (writes > 1) failFirst();
    };
    const trim = { partitionId: 1, before: 2 * TRIM_RECORDS_MAX };
    expect(await problemOf(trimLog(queue, trim))).toMatchObject({ code: "storage_full" });
    expect(partition()).toMatchObject({ log_start_offset: TRIM_RECORDS_MAX, records: TRIM_RECORDS_MAX });
    expect(await trimLog(queue, trim)).toMatchObject({ logStartOffset: trim.before });
    expect(partition()).toMatchObject({ records: 0 });
  });

  test("is undefined where the topic is deleted, before it or between its steps", async () => {
    const { db, queue, topics } = await setUp(2 * TRIM_RECORDS_MAX);
    let deleted: Promise<void> | undefined;
    db.onWrite = () => {
      deleted ??= topics.delete("orders");
    };
    expect(await trimLog(queue, { partitionId: 1, before: 2 * TRIM_RECORDS_MAX })).toBeUndefined();
    await deleted;
    expect(await trimLog(queue, { partitionId: 1, before: 0 })).toBeUndefined();
  });
});
