import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { DbError } from "../../src/store/db.ts";
import { Topics } from "../../src/store/topics.ts";
import { STEP_BYTES_MAX } from "../../src/store/trims.ts";
import { Upkeep } from "../../src/store/upkeep.ts";
import { FIRST_RECORDS, nextRecords } from "../../src/store/upkeep-steps.ts";
import { WriteQueue } from "../../src/store/write-queue.ts";
import { failing, openTestDatabase, WatchedDb } from "../support/database.ts";
import { FakeTime, fakeChance } from "../support/fake-time.ts";

const database = await openTestDatabase();
afterAll(() => database.close());
beforeEach(() => database.empty());

/** A topic "large" that has been deleted, with so many records in each of its partitions, and a topic "other". */
async function setUp(recordCounts: readonly number[], valueBytes = 1) {
  const db = new WatchedDb(database.db);
  const time = new FakeTime();
  const log: string[] = [];
  const deps = { db, scheduler: time, chance: fakeChance(), log: (event: string) => log.push(event) };
  const queue = new WriteQueue(deps);
  const topics = new Topics({ db, queue, scheduler: time, createsOnFirstUse: true });
  await topics.put("large", recordCounts.length);
  for (const [index, count] of recordCounts.entries()) await fill(index + 1, count, valueBytes);
  await topics.delete("large");
  const other = await topics.require("other");
  const append = () => queue.submit(appendRecords(other, [{ partition: 0, records: ONE_RECORD }]));
  await append();
  db.writes.length = 0;
  db.reads.length = 0;
  const open = () =>
    new Upkeep({ ...deps, queue, processId: null, offsetRetentionMs: null, hasTimers: true });
  return { db, time, log, queue, topics, append, open, upkeep: open() };
}

/** What so many steps of a process take, the first ones. Here a step takes no time, so each is larger than the last. */
function taken(steps: number): number {
  let records = FIRST_RECORDS;
  let sum = 0;
  for (let n = 0; n < steps; n += 1, records = nextRecords(records, 0)) sum += records;
  return sum;
}

const ONE_RECORD = parseJsonProduce('{"records":[{"value":1}]}').records;

async function fill(partitionId: number, count: number, valueBytes: number): Promise<void> {
  await database.run(
    `WITH RECURSIVE n (i) AS (SELECT 0 WHERE :count > 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :count)
     INSERT INTO records SELECT :id, i, i, NULL, printf('%.*c', :bytes, 'x'), NULL FROM n`,
    { id: partitionId, count, bytes: valueBytes },
  );
  await database.run(
    `WITH RECURSIVE n (i) AS (SELECT 1000 WHERE :count >= 1000 UNION ALL SELECT i + 1000 FROM n WHERE i + 1000 <= :count)
     INSERT INTO time_index SELECT :id, i, i FROM n`,
    { id: partitionId, count },
  );
  await database.run("UPDATE partitions SET log_end_offset = :count WHERE partition_id = :id", {
    id: partitionId,
    count,
  });
}

async function leftOf(tableName: "records" | "time_index" | "purges"): Promise<number> {
  const otherPartition = "(SELECT partition_id FROM partitions)"; // of "other": the only one
  const [row] = await database.rows(
    `SELECT count(*) AS n FROM ${tableName} WHERE partition_id NOT IN ${otherPartition}`,
  );
  return Number(row?.n);
}

const allLeft = async () => [await leftOf("records"), await leftOf("time_index"), await leftOf("purges")];

describe("What a deleted topic has left", () => {
  test("is deleted, and nothing of any other", async () => {
    const { upkeep, time, log } = await setUp([12_003, 0, 1, 2_000]);
    expect(await allLeft()).toEqual([14_004, 14, 3]);
    upkeep.wake();
    await time.settle();
    expect(await allLeft()).toEqual([0, 0, 0]);
    expect(await database.rows("SELECT count(*) AS n FROM topic_records")).toEqual([{ n: 1 }]);
    expect(log).toEqual([]);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("goes by a bounded number of records a step", async () => {
    const { db, upkeep, time } = await setUp([taken(2) + 1]);
    const left: number[] = [];
    db.onWrite = async () => void left.push(await leftOf("records"));
    upkeep.wake();
    await time.settle();
    expect(left).toEqual([taken(2) + 1, taken(2) + 1 - taken(1), 1]);
  });

  test("goes by a bounded number of bytes a step, one record at least", async () => {
    const half = STEP_BYTES_MAX / 2;
    const { db, upkeep, time } = await setUp([5, 2], half);
    await database.run("UPDATE records SET value = value || value || value WHERE partition_id = 2");
    const left: number[] = [];
    db.onWrite = async () => void left.push(await leftOf("records"));
    upkeep.wake();
    await time.settle();
    expect(left).toEqual([7, 5, 3, 2, 1]);
    expect(await allLeft()).toEqual([0, 0, 0]);
  });

  test("goes by a bounded number of the times that are indexed, and all of them in the end", async () => {
    const { db, upkeep, time } = await setUp([10]);
    await database.run(
      `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <= ${FIRST_RECORDS})
       INSERT INTO time_index SELECT 1, 1000 * i, i FROM n`,
    );
    const left: number[] = [];
    db.onWrite = async () => void left.push(await leftOf("time_index"));
    upkeep.wake();
    await time.settle();
    expect(left).toEqual([FIRST_RECORDS + 1, 1]);
    expect(await allLeft()).toEqual([0, 0, 0]);
  });

  test("lets others write between two steps", async () => {
    const { db, upkeep, time, append } = await setUp([taken(5)]);
    const leftAtAppend: number[] = [];
    let appends: Promise<unknown> = Promise.resolve();
    db.onWrite = () => {
      if (leftAtAppend.length >= 3) return;
      appends = Promise.all([appends, append().then(async () => leftAtAppend.push(await leftOf("records")))]);
    };
    upkeep.wake();
    await time.settle();
    await appends;
    expect(leftAtAppend.slice(0, 3).every((left) => left > 0)).toBe(true);
    expect(await allLeft()).toEqual([0, 0, 0]);
  });

  test("is looked for once where there is nothing, and nothing is written", async () => {
    const { db, upkeep, time } = await setUp([0]);
    upkeep.wake();
    await time.settle();
    const looked = db.reads.length;
    await time.advance(60_000);
    expect(db.reads).toHaveLength(looked);
    expect(db.writes).toEqual([]);
  });

  test("goes on where it was stopped, when another process starts", async () => {
    const { db, upkeep, time, open, log } = await setUp([taken(3)]);
    let stopped: Promise<void> | undefined;
    db.onWrite = () => {
      stopped ??= upkeep.stop();
    };
    upkeep.wake();
    await time.settle();
    await stopped;
    expect(await leftOf("records")).toBe(taken(3) - taken(1));
    upkeep.wake();
    await time.advance(60_000);
    expect(await leftOf("records")).toBe(taken(3) - taken(1));
    open().wake();
    await time.settle();
    expect(await allLeft()).toEqual([0, 0, 0]);
    expect(log).toEqual([]);
  });

  test("is found while others are deleted, and is not deleted twice at once", async () => {
    const { db, upkeep, time, topics } = await setUp([taken(2)]);
    let deleted: Promise<void> | undefined;
    db.onWrite = () => {
      deleted ??= topics.delete("other").then(() => upkeep.wake());
    };
    upkeep.wake();
    upkeep.wake();
    await time.settle();
    await deleted;
    await time.advance(1_000);
    expect(await database.rows("SELECT count(*) AS n FROM records")).toEqual([{ n: 0 }]);
    const stepsByFlush = db.writes.map(
      (write) => write.filter(({ sql }) => sql.includes("DELETE FROM records")).length,
    );
    expect(Math.max(...stepsByFlush)).toBe(1);
  });

  test("is tried again later where the database is busy or fails, and that is said", async () => {
    const { db, upkeep, time, log } = await setUp([10]);
    db.onRead = failing(new DbError("io", "scripted"));
    db.onWrite = failing(new DbError("full", "scripted"));
    upkeep.wake();
    await time.settle();
    expect(log).toEqual(["upkeep failed"]);
    await time.advance(4_999);
    expect(db.writes).toEqual([]);
    await time.advance(1);
    expect(log).toEqual(["upkeep failed", "write failed", "upkeep failed"]);
    expect(await leftOf("records")).toBe(10);
    await time.advance(5_000);
    expect(await allLeft()).toEqual([0, 0, 0]);
  });

  test("is deleted at once when it is woken before the next try", async () => {
    const { db, upkeep, time } = await setUp([10]);
    db.onRead = failing(new DbError("io", "scripted"));
    upkeep.wake();
    await time.settle();
    upkeep.wake();
    await time.settle();
    expect(await allLeft()).toEqual([0, 0, 0]);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("is not tried again once upkeep is stopped", async () => {
    const { db, upkeep, time } = await setUp([10]);
    db.onRead = failing(new DbError("io", "scripted"));
    upkeep.wake();
    await time.settle();
    await upkeep.stop();
    expect(time.pendingDelaysMs).toEqual([]);
    await time.advance(60_000);
    expect(await leftOf("records")).toBe(10);
  });

  test("waits as long as another process holds the write lock", async () => {
    const { db, upkeep, time, log } = await setUp([10]);
    let isBusy = true;
    db.onWrite = () => {
      if (isBusy) throw new DbError("busy", "scripted");
    };
    upkeep.wake();
    await time.advance(60_000);
    expect(log.length).toBeGreaterThan(1);
    isBusy = false;
    await time.advance(15_000);
    expect(await allLeft()).toEqual([0, 0, 0]);
  });
});
