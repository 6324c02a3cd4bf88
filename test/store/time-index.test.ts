import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { findOffsetAt, TimeIndexCadence } from "../../src/store/time-index.ts";
import type { Topic } from "../../src/store/topic-tables.ts";
import { Topics } from "../../src/store/topics.ts";
import { trimStep } from "../../src/store/trims.ts";
import { openQueue, openTestDatabase, START_MS, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";

const database = await openTestDatabase();
const queue = openQueue(database.db);
afterAll(() => database.close());
beforeEach(() => database.empty());

async function createTopic(partitionCount = 1): Promise<Topic> {
  const topics = new Topics({ db: database.db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
  await topics.put("orders", partitionCount);
  return topics.require("orders");
}

const recordsAt = (timestamps: readonly number[]) =>
  parseJsonProduce(JSON.stringify({ records: timestamps.map((timestamp) => ({ value: 0, timestamp })) }))
    .records;

/** One append; to partition 0 unless told otherwise. */
const appendAt = (
  topic: Topic,
  timestamps: readonly number[],
  { partition = 0, cadence }: { partition?: number; cadence?: TimeIndexCadence } = {},
) => queue.submit(appendRecords(topic, [{ partition, records: recordsAt(timestamps) }], cadence));

const times = (count: number, at: (index: number) => number) =>
  Array.from({ length: count }, (_, index) => at(index));

const indexRows = () => database.rows("SELECT * FROM time_index ORDER BY partition_id, offset");

/** All steps of it. */
async function trim(before: number, partitionId = 1): Promise<void> {
  for (;;) {
    const bounds = await queue.submit(trimStep({ partitionId, before }));
    if (!bounds || bounds.logStartOffset >= before) return;
  }
}

const find = (timestamp: number, partitionId = 1) => findOffsetAt(database.db, { partitionId, timestamp });

describe("appendRecords() and the time index:", () => {
  test("a row when a multiple of 1,000 is reached, none before", async () => {
    const topic = await createTopic();
    await appendAt(
      topic,
      times(999, (i) => i),
    );
    expect(await indexRows()).toEqual([]);
    await appendAt(topic, [5]);
    expect(await indexRows()).toEqual([{ partition_id: 1, offset: 1_000, max_timestamp: 998 }]);
    await appendAt(
      topic,
      times(999, () => 3_000),
    );
    expect(await indexRows()).toHaveLength(1);
  });

  test("a row for each multiple that one append passes, each with the maximum so far", async () => {
    const topic = await createTopic();
    await appendAt(
      topic,
      times(700, () => 50),
    );
    await appendAt(topic, [...times(800, () => 10), 70, ...times(1_600, () => 20)]);
    expect(await indexRows()).toEqual([
      { partition_id: 1, offset: 1_000, max_timestamp: 50 },
      { partition_id: 1, offset: 2_000, max_timestamp: 70 },
      { partition_id: 1, offset: 3_000, max_timestamp: 70 },
    ]);
  });

  test("each partition of a batch on its own", async () => {
    const topic = await createTopic(2);
    await appendAt(
      topic,
      times(900, () => 1),
      { partition: 1 },
    );
    const both = [0, 1].map((partition) => ({ partition, records: recordsAt(times(200, () => 9)) }));
    expect(await queue.submit(appendRecords(topic, both))).toMatchObject([
      { partition: 0, offset: 0, logEndOffset: 200 },
      { partition: 1, offset: 900, logEndOffset: 1_100 },
    ]);
    expect(await indexRows()).toEqual([{ partition_id: 2, offset: 1_000, max_timestamp: 9 }]);
  });

  test("nothing where the topic is gone", async () => {
    const topic = await createTopic();
    await database.db.write([{ sql: "DELETE FROM partitions" }, { sql: "DELETE FROM topics" }]);
    expect(
      await appendAt(
        topic,
        times(1_000, () => 1),
      ),
    ).toBeUndefined();
    expect(await indexRows()).toEqual([]);
  });

  test("what a writer without an index has left is caught up on", async () => {
    const topic = await createTopic();
    await appendAt(
      topic,
      times(4_500, (i) => i),
    );
    await database.run("DELETE FROM time_index WHERE offset > 1000");
    await appendAt(topic, [0]);
    expect((await indexRows()).map(({ offset, max_timestamp }) => [offset, max_timestamp])).toEqual(
      [1_000, 2_000, 3_000, 4_000].map((offset) => [offset, offset - 1]),
    );
  });

  test("the time of the append where a record has none", async () => {
    const topic = await createTopic();
    const records = parseJsonProduce(
      JSON.stringify({ records: times(1_000, () => 0).map(() => ({ value: 1 })) }),
    ).records;
    await queue.submit(appendRecords(topic, [{ partition: 0, records }]));
    expect(await indexRows()).toEqual([{ partition_id: 1, offset: 1_000, max_timestamp: START_MS }]);
  });
});

describe("trimStep() and the time index:", () => {
  test("rows at or below the log start go, the others stay as they are", async () => {
    const topic = await createTopic(2);
    for (const partition of [0, 1])
      await appendAt(
        topic,
        times(4_500, (i) => i),
        { partition },
      );
    const others = (await indexRows()).filter(({ partition_id }) => partition_id === 2);
    await trim(1_999);
    expect((await indexRows()).map(({ offset }) => offset)).toEqual([
      2_000, 3_000, 4_000, 1_000, 2_000, 3_000, 4_000,
    ]);
    await trim(3_000);
    expect(await indexRows()).toEqual([{ partition_id: 1, offset: 4_000, max_timestamp: 3_999 }, ...others]);
  });

  test("the last row stays and speaks of nothing where all below it is gone, and the index goes on from it", async () => {
    const topic = await createTopic();
    await appendAt(topic, [...times(2_000, (i) => i), 9_999_999, ...times(1_499, () => 5)]);
    await trim(3_500);
    expect(await indexRows()).toEqual([{ partition_id: 1, offset: 3_000, max_timestamp: 0 }]);
    await appendAt(
      topic,
      times(1_600, (i) => 10_000 + i),
    );
    expect(await indexRows()).toEqual([
      { partition_id: 1, offset: 3_000, max_timestamp: 0 },
      { partition_id: 1, offset: 4_000, max_timestamp: 10_499 },
      { partition_id: 1, offset: 5_000, max_timestamp: 11_499 },
    ]);
    expect(await Promise.all([0, 10_000, 10_500, 11_599, 11_600].map((time) => find(time)))).toEqual([
      3_500, 3_500, 4_000, 5_099, 5_100,
    ]);
  });

  test("a partition that was emptied before it had a row is indexed from its next records on", async () => {
    const topic = await createTopic();
    await appendAt(
      topic,
      times(700, () => 9_999),
    );
    await trim(700);
    expect(await indexRows()).toEqual([]);
    expect(await find(0)).toBe(700);
    await appendAt(
      topic,
      times(400, (i) => i),
    );
    expect(await indexRows()).toEqual([{ partition_id: 1, offset: 1_000, max_timestamp: 299 }]);
    expect(await find(350)).toBe(1_050);
  });
});

describe("TimeIndexCadence", () => {
  test("knows nothing any more of partitions that are gone", () => {
    const cadence = new TimeIndexCadence();
    for (const partitionId of [1, 2]) cadence.isDue(partitionId, 1);
    cadence.forget([1, 3]);
    expect([1, 2].map((partitionId) => cadence.isDue(partitionId, 1))).toEqual([true, false]);
  });

  test("is due with the first append to a partition, then with every 1,000 records", () => {
    const cadence = new TimeIndexCadence();
    expect([1, 999, 1, 1_000, 5_000, 400, 400, 400].map((count) => cadence.isDue(1, count))).toEqual([
      true, // the first
      false,
      true,
      true,
      true,
      false,
      false,
      true,
    ]);
    expect(cadence.isDue(2, 1)).toBe(true);
  });

  test("leaves fewer than 2,000 records without a row, however small the appends", async () => {
    const topic = await createTopic();
    const cadence = new TimeIndexCadence();
    let logEnd = 0;
    for (let round = 0; round < 70; round += 1) {
      const count = 1 + ((round * 37) % 211);
      await appendAt(
        topic,
        times(count, () => round),
        { cadence },
      );
      logEnd += count;
      const indexed = Number((await indexRows()).at(-1)?.offset ?? 0);
      expect(logEnd - indexed).toBeLessThan(2_000);
    }
    expect(logEnd).toBeGreaterThan(6_000);
  });
});

describe("findOffsetAt()", () => {
  test("gives the first record at or after the time, else the log end", async () => {
    const topic = await createTopic();
    await appendAt(topic, [10, 30, 20, 30, 40]);
    expect(await Promise.all([0, 10, 11, 20, 30, 31, 40, 41].map((time) => find(time)))).toEqual([
      0, 0, 1, 1, 1, 4, 4, 5,
    ]);
    expect(await find(Number.MAX_SAFE_INTEGER)).toBe(5);
  });

  test("gives 0 of an empty partition, and undefined where it is gone", async () => {
    await createTopic();
    expect(await find(5)).toBe(0);
    expect(await find(5, 2)).toBeUndefined();
  });

  test("looks at its own partition only", async () => {
    const topic = await createTopic(2);
    await appendAt(
      topic,
      times(2_500, () => 9),
    );
    await appendAt(
      topic,
      times(2_500, (i) => i),
      { partition: 1 },
    );
    expect(await find(1_700, 2)).toBe(1_700);
    expect(await find(9, 1)).toBe(0);
    expect(await find(10, 1)).toBe(2_500);
  });

  test("is two seeks, no scan and no sorting", async () => {
    const topic = await createTopic();
    await appendAt(
      topic,
      times(3_000, (i) => i),
    );
    const watched = new WatchedDb(database.db);
    await findOffsetAt(watched, { partitionId: 1, timestamp: 2_500 });
    expect(watched.reads).toHaveLength(1);
    const [statement] = watched.reads;
    // On a connection of its own: after an EXPLAIN libSQL leaves it at the snapshot that it had.
    const other = await database.openSecond();
    const plan = await other.read({ ...statement, sql: `EXPLAIN QUERY PLAN ${statement?.sql}` });
    expect(plan.map(({ detail }) => detail)).toEqual([
      "CO-ROUTINE wanted",
      "SCAN json_each VIRTUAL TABLE INDEX 1:",
      "SCAN wanted",
      "SEARCH p USING INTEGER PRIMARY KEY (rowid=?)",
      "CORRELATED SCALAR SUBQUERY 2",
      "SEARCH r USING PRIMARY KEY (partition_id=? AND offset>?)",
      "CORRELATED SCALAR SUBQUERY 1",
      "SEARCH i USING COVERING INDEX time_index_by_timestamp (partition_id=? AND max_timestamp<?)",
    ]);
  });
});

test("findOffsetAt() finds what a scan would, and reads fewer than 1,000 records for it", async () => {
  const TIME_MAX = 40;
  // Up, down and mixed runs, with ties and far outliers on both sides.
  const batch = fc
    .record({
      count: fc.integer({ min: 1, max: 1_800 }),
      base: fc.nat({ max: TIME_MAX }),
      slope: fc.constantFrom(-0.01, 0, 0.005, 0.02),
      outliers: fc.array(fc.record({ at: fc.nat({ max: 1_799 }), time: fc.nat({ max: TIME_MAX }) }), {
        maxLength: 3,
      }),
    })
    .map(({ count, base, slope, outliers }) => {
      const timestamps = times(count, (i) => Math.min(TIME_MAX, Math.max(0, Math.round(base + slope * i))));
      for (const { at, time } of outliers) timestamps[at % count] = time;
      return timestamps;
    });
  await fc.assert(
    fc.asyncProperty(
      fc.array(batch, { minLength: 1, maxLength: 6 }),
      fc.oneof(fc.constant(1), fc.double({ min: 0, max: 1, noNaN: true })),
      async (batches, cut) => {
        await database.empty();
        const topic = await createTopic();
        for (const timestamps of batches) await appendAt(topic, timestamps);
        const all = batches.flat();
        await checkAll(all, 0);
        const logStart = Math.floor(cut * all.length);
        await trim(
          logStart,
          Number((await database.rows("SELECT partition_id FROM partitions"))[0]?.partition_id),
        );
        await checkAll(all, logStart);
        for (const timestamps of batches) await appendAt(topic, timestamps);
        await checkAll([...all, ...all], logStart);
      },
    ),
    { numRuns: 25 },
  );

  async function checkAll(all: readonly number[], logStart: number): Promise<void> {
    const partitionId = Number((await database.rows("SELECT partition_id FROM partitions"))[0]?.partition_id);
    const rows = await indexRows();
    for (let time = 0; time <= TIME_MAX + 1; time += 1) {
      const first = all.findIndex((timestamp, offset) => offset >= logStart && timestamp >= time);
      const expected = first === -1 ? all.length : first;
      const found = await find(time, partitionId);
      expect({ time, found }).toEqual({ time, found: expected });
      const start = Number(rows.findLast(({ max_timestamp }) => Number(max_timestamp) < time)?.offset ?? 0);
      if (logStart === 0) expect(expected - start).toBeLessThan(1_000);
    }
  }
}, 60_000);
