import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { readChunk } from "../../src/store/records.ts";
import type { Topic } from "../../src/store/topic-tables.ts";
import { Topics } from "../../src/store/topics.ts";
import { STEP_BYTES_MAX, TRIM_RECORDS_MAX, trimStep } from "../../src/store/trims.ts";
import { openQueue, openTestDatabase, stockRows } from "../support/database.ts";
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

const append = (topic: Topic, records: readonly unknown[], partition = 0) =>
  queue.submit(
    appendRecords(topic, [{ partition, records: parseJsonProduce(JSON.stringify({ records })).records }]),
  );

const values = (count: number) => Array.from({ length: count }, (_, value) => ({ value }));

const trim = (before: number, partitionId = 1) => queue.submit(trimStep({ partitionId, before }));

/** What partitions say of themselves, and what is there, with the lengths that stock SQLite counts. */
function counters() {
  return stockRows(
    database.path,
    `SELECT p.partition_id, p.log_start_offset, p.log_end_offset, p.records, p.bytes, p.frame_bytes_max,
            count(r.offset) AS found_records,
            coalesce(sum(length(CAST(r.value AS BLOB)) + coalesce(length(CAST(r.key AS BLOB)), 0)
              + coalesce(length(CAST(r.headers AS BLOB)), 0)), 0) AS found_bytes,
            coalesce(min(r.offset), p.log_end_offset) AS found_start
     FROM partitions AS p LEFT JOIN records AS r ON r.partition_id = p.partition_id
     GROUP BY p.partition_id`,
  );
}

function checkCounters(): void {
  for (const row of counters()) {
    expect({ records: row.records, bytes: row.bytes }).toEqual({
      records: row.found_records,
      bytes: row.found_bytes,
    });
    expect(Number(row.found_start)).toBeGreaterThanOrEqual(Number(row.log_start_offset));
  }
}

describe("trimStep()", () => {
  test("moves the log start up and takes from the counters what it deletes", async () => {
    const topic = await createTopic(2);
    const records = [
      { key: "ü\n", value: "€", headers: { h: "ö" } },
      { value: null },
      { key: "k", value: { deep: [1, 2.0] } },
    ];
    await append(topic, records);
    await append(topic, records, 1);
    const untouched = counters()[1];
    expect(await trim(2)).toEqual({ logStartOffset: 2, logEndOffset: 3 });
    expect(counters()[0]).toMatchObject({
      log_start_offset: 2,
      log_end_offset: 3,
      records: 1,
      found_start: 2,
    });
    checkCounters();
    expect(counters()[1]).toEqual(untouched);
  });

  test("counts a BLOB by its bytes, as an append does", async () => {
    await append(await createTopic(), [{ value: 1 }]);
    await database.run(
      "INSERT INTO records VALUES (1, 1, 0, 'k', x'00ff00', NULL), (1, 2, 0, NULL, x'', NULL)",
    );
    await database.run("UPDATE partitions SET log_end_offset = 3, records = 3, bytes = bytes + 4");
    checkCounters();
    await trim(2);
    expect(counters()[0]).toMatchObject({ records: 1, bytes: 0 });
    checkCounters();
  });

  test("to the log end leaves nothing, and the next record has the next offset", async () => {
    const topic = await createTopic();
    await append(topic, values(10));
    expect(await trim(10)).toEqual({ logStartOffset: 10, logEndOffset: 10 });
    expect(counters()[0]).toMatchObject({ records: 0, bytes: 0, frame_bytes_max: 0, found_records: 0 });
    expect(await append(topic, [{ value: "later" }])).toMatchObject([{ offset: 10, logEndOffset: 11 }]);
    const chunk = await readChunk(database.db, {
      partitionId: 1,
      from: 0,
      recordsMax: 10,
      bytesMax: 1_000,
      loneRecordBytesMax: 0,
    });
    expect(chunk).toMatchObject({ count: 1, next: 11, logStartOffset: 10 });
    expect(chunk?.records).toContain('"offset":10');
    checkCounters();
  });

  test("keeps the largest size of a record while any is there", async () => {
    const topic = await createTopic();
    await append(topic, [{ value: "x".repeat(1_000) }, { value: 1 }]);
    await trim(1);
    expect(Number(counters()[0]?.frame_bytes_max)).toBeGreaterThan(1_000);
    await trim(2);
    await append(topic, [{ value: 1 }]);
    expect(Number(counters()[0]?.frame_bytes_max)).toBeLessThan(1_000);
  });

  test.each([0, 4, 5, 11, Number.MAX_SAFE_INTEGER])(
    "of an offset at or below the start, or above the end, does nothing (%p)",
    async (before) => {
      await append(await createTopic(), values(10));
      await trim(5);
      const written = counters();
      expect(await trim(before)).toEqual({ logStartOffset: 5, logEndOffset: 10 });
      expect(counters()).toEqual(written);
    },
  );

  test("of a partition that is gone is undefined", async () => {
    expect(await trim(0)).toBeUndefined();
  });

  test("takes a bounded number of records, whole after every step", async () => {
    const topic = await createTopic();
    const rest = 7;
    await append(topic, values(TRIM_RECORDS_MAX));
    await append(topic, values(TRIM_RECORDS_MAX + rest));
    const end = 2 * TRIM_RECORDS_MAX + rest;
    const starts: unknown[] = [];
    for (let step = 0; step < 4; step += 1) {
      starts.push((await trim(end - 1))?.logStartOffset);
      expect(counters()[0]).toMatchObject({ log_start_offset: starts[step], found_start: starts[step] });
      checkCounters();
    }
    expect(starts).toEqual([TRIM_RECORDS_MAX, 2 * TRIM_RECORDS_MAX, end - 1, end - 1]);
  });

  test("takes a bounded number of bytes, small records beside large ones", async () => {
    const topic = await createTopic();
    const large = { value: "x".repeat(900_000) };
    for (let batch = 0; batch < 3; batch += 1) await append(topic, [large, large, large, large]);
    await append(topic, values(20));
    const bytesOf = () => Number(counters()[0]?.bytes);
    const taken: number[] = [];
    for (let left = bytesOf(); left > 0; left = bytesOf()) {
      await trim(32);
      taken.push(left - bytesOf());
      checkCounters();
    }
    expect(taken).toHaveLength(3);
    expect(Math.max(...taken)).toBeLessThanOrEqual(STEP_BYTES_MAX);
    expect(taken[0]).toBe(4 * 900_002);
  });

  test("takes one record at least, however large", async () => {
    const topic = await createTopic();
    await append(topic, values(3));
    const bytes = STEP_BYTES_MAX + 1;
    await database.run("UPDATE records SET value = printf('%.*c', :bytes, 'x') WHERE offset < 2", { bytes });
    await database.run("UPDATE partitions SET bytes = :bytes", { bytes: 2 * bytes + 1 });
    expect(await trim(3)).toMatchObject({ logStartOffset: 1 });
    checkCounters();
    expect(await trim(3)).toMatchObject({ logStartOffset: 2 });
    expect(await trim(3)).toMatchObject({ logStartOffset: 3 });
    checkCounters();
  });

  test("passes over offsets that have no record", async () => {
    await append(await createTopic(), values(10));
    await database.run("DELETE FROM records WHERE offset BETWEEN 2 AND 7");
    await database.run("UPDATE partitions SET records = 4, bytes = 4");
    expect(await trim(5)).toMatchObject({ logStartOffset: 5 });
    checkCounters();
    expect(await trim(9)).toMatchObject({ logStartOffset: 9 });
    checkCounters();
  });

  test("lets what was submitted before it and after it be as if nothing were deleted", async () => {
    const topic = await createTopic();
    const outcomes = await Promise.all([
      append(topic, values(5)),
      trim(5),
      append(topic, values(5)),
      trim(7),
    ]);
    expect(outcomes).toMatchObject([
      [{ offset: 0 }],
      { logStartOffset: 5, logEndOffset: 5 },
      [{ offset: 5 }],
      { logStartOffset: 7, logEndOffset: 10 },
    ]);
    checkCounters();
  });
});

test("trimStep() and appends in any order agree with a list", async () => {
  const record = fc.record({ key: fc.option(fc.string()), value: fc.jsonValue() });
  const action = fc.oneof(
    fc.record({ records: fc.array(record, { minLength: 1, maxLength: 8 }) }),
    fc.record({ before: fc.nat({ max: 40 }) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 12 }), async (actions) => {
      await database.empty();
      const topic = await createTopic();
      let [start, end] = [0, 0];
      for (const each of actions) {
        if ("records" in each) {
          const records = each.records.filter(({ key }) => !key?.includes("\0"));
          if (records.length === 0) continue;
          await append(topic, records);
          end += records.length;
        } else {
          if (each.before <= end) start = Math.max(start, each.before);
          expect(await trim(each.before)).toEqual({ logStartOffset: start, logEndOffset: end });
        }
        const row = (
          await database.rows("SELECT log_start_offset, log_end_offset, records FROM partitions")
        )[0];
        expect(row).toEqual({ log_start_offset: start, log_end_offset: end, records: end - start });
        const [found] = await database.rows(
          `SELECT count(*) AS records, min(offset) AS start, coalesce(sum(octet_length(value)
             + coalesce(octet_length(key), 0)), 0) - (SELECT bytes FROM partitions) AS bytes_off FROM records`,
        );
        expect(found).toEqual({ records: end - start, start: start === end ? null : start, bytes_off: 0 });
      }
    }),
    { numRuns: 40 },
  );
}, 60_000);
