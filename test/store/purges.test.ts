import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { DbError } from "../../src/store/db.ts";
import { Purges } from "../../src/store/purges.ts";
import { Topics } from "../../src/store/topics.ts";
import { STEP_BYTES_MAX, STEP_RECORDS_MAX } from "../../src/store/trims.ts";
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
  return { db, time, log, queue, topics, append, purges: new Purges({ ...deps, queue }) };
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

describe("Purges", () => {
  test("delete what a deleted topic has left, and nothing of any other", async () => {
    const { purges, time, log } = await setUp([12_003, 0, 1, 2_000]);
    expect(await allLeft()).toEqual([14_004, 14, 3]);
    purges.wake();
    await time.settle();
    expect(await allLeft()).toEqual([0, 0, 0]);
    expect(await database.rows("SELECT count(*) AS n FROM topic_records")).toEqual([{ n: 1 }]);
    expect(log).toEqual([]);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("take a bounded number of records a step", async () => {
    const { db, purges, time } = await setUp([2 * STEP_RECORDS_MAX + 1]);
    const left: number[] = [];
    db.onWrite = async () => void left.push(await leftOf("records"));
    purges.wake();
    await time.settle();
    expect(left).toEqual([2 * STEP_RECORDS_MAX + 1, STEP_RECORDS_MAX + 1, 1]);
  });

  test("take a bounded number of bytes a step, one record at least", async () => {
    const half = STEP_BYTES_MAX / 2;
    const { db, purges, time } = await setUp([5, 2], half);
    await database.run("UPDATE records SET value = value || value || value WHERE partition_id = 2");
    const left: number[] = [];
    db.onWrite = async () => void left.push(await leftOf("records"));
    purges.wake();
    await time.settle();
    expect(left).toEqual([7, 5, 3, 2, 1]);
    expect(await allLeft()).toEqual([0, 0, 0]);
  });

  test("take a bounded number of the times that are indexed, and all of them in the end", async () => {
    const { db, purges, time } = await setUp([10]);
    await database.run(
      `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <= ${STEP_RECORDS_MAX})
       INSERT INTO time_index SELECT 1, 1000 * i, i FROM n`,
    );
    const left: number[] = [];
    db.onWrite = async () => void left.push(await leftOf("time_index"));
    purges.wake();
    await time.settle();
    expect(left).toEqual([STEP_RECORDS_MAX + 1, 1]);
    expect(await allLeft()).toEqual([0, 0, 0]);
  });

  test("let others write between two steps", async () => {
    const { db, purges, time, append } = await setUp([5 * STEP_RECORDS_MAX]);
    const leftAtAppend: number[] = [];
    let appends: Promise<unknown> = Promise.resolve();
    db.onWrite = () => {
      if (leftAtAppend.length >= 3) return;
      appends = Promise.all([appends, append().then(async () => leftAtAppend.push(await leftOf("records")))]);
    };
    purges.wake();
    await time.settle();
    await appends;
    expect(leftAtAppend.slice(0, 3).every((left) => left > 0)).toBe(true);
    expect(await allLeft()).toEqual([0, 0, 0]);
  });

  test("write nothing where there is nothing to do", async () => {
    const { db, purges, time } = await setUp([0]);
    purges.wake();
    await time.advance(60_000);
    expect(db.writes).toEqual([]);
    expect(db.reads).toHaveLength(1);
  });

  test("go on where they were stopped, when they are woken in another process", async () => {
    const { db, purges, time, queue, log } = await setUp([3 * STEP_RECORDS_MAX]);
    let stopped: Promise<void> | undefined;
    db.onWrite = () => {
      stopped ??= purges.stop();
    };
    purges.wake();
    await time.settle();
    await stopped;
    expect(await leftOf("records")).toBe(2 * STEP_RECORDS_MAX);
    purges.wake();
    await time.advance(60_000);
    expect(await leftOf("records")).toBe(2 * STEP_RECORDS_MAX);
    const next = new Purges({ db, queue, scheduler: time, log: () => {} });
    next.wake();
    await time.settle();
    expect(await allLeft()).toEqual([0, 0, 0]);
    expect(log).toEqual([]);
  });

  test("see what is deleted while they are at work, and are not at work twice", async () => {
    const { db, purges, time, topics } = await setUp([STEP_RECORDS_MAX + 1]);
    let deleted: Promise<void> | undefined;
    db.onWrite = () => {
      deleted ??= topics.delete("other").then(() => purges.wake());
    };
    purges.wake();
    purges.wake();
    await time.settle();
    await deleted;
    await time.settle();
    expect(await database.rows("SELECT count(*) AS n FROM records")).toEqual([{ n: 0 }]);
    const stepsByFlush = db.writes.map(
      (write) => write.filter(({ sql }) => sql.includes("FROM records")).length,
    );
    expect(Math.max(...stepsByFlush)).toBe(2); // the second statement of a step asks whether any are left
  });

  test("try again later where the database is busy or fails, and say so", async () => {
    const { db, purges, time, log } = await setUp([10]);
    db.onRead = failing(new DbError("io", "scripted"));
    db.onWrite = failing(new DbError("full", "scripted"));
    purges.wake();
    await time.settle();
    expect(log).toEqual(["purge failed"]);
    await time.advance(4_999);
    expect(db.writes).toEqual([]);
    await time.advance(1);
    expect(log).toEqual(["purge failed", "write failed", "purge failed"]);
    expect(await leftOf("records")).toBe(10);
    await time.advance(5_000);
    expect(await allLeft()).toEqual([0, 0, 0]);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("are done at once when they are woken before the next try", async () => {
    const { db, purges, time } = await setUp([10]);
    db.onRead = failing(new DbError("io", "scripted"));
    purges.wake();
    await time.settle();
    purges.wake();
    await time.settle();
    expect(await allLeft()).toEqual([0, 0, 0]);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("do not try again once they are stopped", async () => {
    const { db, purges, time } = await setUp([10]);
    db.onRead = failing(new DbError("io", "scripted"));
    purges.wake();
    await time.settle();
    await purges.stop();
    expect(time.pendingDelaysMs).toEqual([]);
    await time.advance(60_000);
    expect(await leftOf("records")).toBe(10);
  });

  test("wait as long as another process holds the write lock", async () => {
    const { db, purges, time, log } = await setUp([10]);
    let isBusy = true;
    db.onWrite = () => {
      if (isBusy) throw new DbError("busy", "scripted");
    };
    purges.wake();
    await time.advance(60_000);
    expect(log.length).toBeGreaterThan(1);
    isBusy = false;
    await time.advance(15_000);
    expect(await allLeft()).toEqual([0, 0, 0]);
  });
});
