import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Problem } from "../../src/core/problem.ts";
import { KEY_BYTES_MAX } from "../../src/protocol/limits.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { compactStep, findCompactable, findOutdated, forgetStep } from "../../src/store/compaction.ts";
import { readChunk } from "../../src/store/records.ts";
import { findOffsetAt } from "../../src/store/time-index.ts";
import { Topics } from "../../src/store/topics.ts";
import { STEP_BYTES_MAX } from "../../src/store/trims.ts";
import { openTestDatabase, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import { type GivenRecord, keyed, openLogLife, parsed, values } from "../support/log-life.ts";

const database = await openTestDatabase();
const { db } = database;
const life = openLogLife(database);
const { queue, put, append, run, offsets, check } = life;
afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  life.forget();
});

const step = (recordsMax: number, partitionId = 1) => queue.submit(compactStep({ partitionId, recordsMax }));

const forget = (recordsMax: number, partitionId = 1) => queue.submit(forgetStep({ partitionId, recordsMax }));

const putCompacted = (compaction: { minLagMs?: number; tombstoneMs?: number } = {}) =>
  put({ cleanup: "compact", compaction });

async function compactBy(recordsMax: number): Promise<number> {
  let steps = 0;
  for (let hasMore = true; hasMore; steps += 1) {
    hasMore = (await step(recordsMax)).hasMore;
    await check();
  }
  return steps;
}

const count = async (table: string) =>
  Number((await database.rows(`SELECT count(*) AS n FROM ${table}`))[0]?.n);

/** Offsets of the newest of each key. */
function newest(records: readonly GivenRecord[]): readonly number[] {
  const offsetByKey = new Map(records.map(({ key }, offset) => [key, offset]));
  return [...offsetByKey.values()].sort((a, b) => a - b);
}

describe("Of a compacted topic", () => {
  test("the newest record of each key stays, at its offset, in each partition", async () => {
    await put({ partitionCount: 2, cleanup: "compact" });
    await put({}, "visits");
    await append(keyed("a", "b", "a", "c", "b", "a"));
    await append(keyed("a", "a"), 1);
    await append(keyed("a", "a"), 0, "visits");
    await run();
    expect(await life.stored(1)).toEqual([
      { offset: 3, key: "c", value: "3" },
      { offset: 4, key: "b", value: "4" },
      { offset: 5, key: "a", value: "5" },
    ]);
    expect(await offsets(2)).toEqual([1]);
    expect(await offsets(3)).toEqual([0, 1]);
    expect(await life.bounds()).toEqual({ start: 0, end: 6 });
    await check();
    expect(await append(keyed("b"))).toMatchObject([{ offset: 6 }]);
    await run();
    expect(await offsets()).toEqual([3, 5, 6]);
    await check();
  });

  test("what is done is not done again, and nothing is found to do", async () => {
    await putCompacted();
    await append(keyed("a", "b", "a"));
    await run();
    expect(await findCompactable(db)).toEqual([]);
    expect(await step(100)).toMatchObject({ hasMore: false });
    expect(await offsets()).toEqual([1, 2]);
  });

  test("steps of any size, over appends of any size, leave the same", async () => {
    const key = fc.constantFrom("a", "b", "c", "d", "é", "");
    const value = fc.oneof(fc.integer(), fc.string({ maxLength: 50 }), fc.constant(0));
    const batch = fc.array(fc.record({ key, value }), { minLength: 1, maxLength: 10 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(batch, { minLength: 1, maxLength: 5 }),
        fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 5, maxLength: 5 }),
        async (batches, sizes) => {
          await database.empty();
          life.forget();
          await putCompacted();
          for (const [n, each] of batches.entries()) {
            await append(each);
            await step(sizes[n] ?? 1); // a part of it, before the next come
            await check();
          }
          await compactBy(sizes[0] ?? 1);
          expect(await offsets()).toEqual(newest(batches.flat()));
        },
      ),
      { numRuns: 60 },
    );
  }, 60_000);

  test("any keys that differ are different, and any that do not are the same", async () => {
    const odd = [
      "",
      " ",
      "a",
      "A",
      "1",
      "1.0",
      "01",
      "é",
      "e\u0301",
      "\uffff",
      "🎉",
      "null",
      "\u0001",
      '"',
      "%",
      "_",
    ];
    const long = ["x", "y"].map((last) => "k".repeat(KEY_BYTES_MAX - 1) + last);
    await putCompacted();
    const all = [...odd, ...long];
    await append(keyed(...all, ...all.toReversed()));
    await compactBy(7);
    const stored = await life.stored();
    expect(stored.map(({ key }) => key)).toEqual(all.toReversed());
    const anyKey = fc.string({ unit: "grapheme", maxLength: 5 }).filter((key) => !key.includes("\0"));
    await fc.assert(
      fc.asyncProperty(fc.array(anyKey, { minLength: 1, maxLength: 20 }), async (keys) => {
        await database.empty();
        life.forget();
        await putCompacted();
        await append(keyed(...keys));
        await compactBy(4);
        expect(await offsets()).toEqual(newest(keyed(...keys)));
      }),
      { numRuns: 40 },
    );
  }, 60_000);

  test("a step takes a bounded number of bytes, what it replaces included, and one record at least", async () => {
    await putCompacted();
    const large = (key: string) => ({ key, value: "x".repeat(900_000) });
    for (let batch = 0; batch < 4; batch += 1) await append([large("a"), large("b"), large("c"), large("a")]);
    await append(keyed(...Array.from({ length: 50 }, (_, n) => `k${n % 10}`)));
    const bytes = async () => Number((await database.rows("SELECT bytes FROM partitions"))[0]?.bytes);
    const to = async () =>
      Number((await database.rows("SELECT compacted_to FROM compactions"))[0]?.compacted_to);
    for (let hasMore = true, before = await bytes(), at = 0; hasMore; ) {
      hasMore = (await step(10_000)).hasMore;
      await check();
      expect(before - (await bytes())).toBeLessThanOrEqual(STEP_BYTES_MAX);
      if (at < 12) expect((await to()) - at).toBeLessThanOrEqual(4);
      [before, at] = [await bytes(), await to()];
    }
    expect(await offsets()).toEqual([13, 14, 15, ...Array.from({ length: 10 }, (_, n) => 56 + n)]);
  });

  test("a record larger than a step may be is a step of its own", async () => {
    await putCompacted();
    await append(keyed("a", "b", "a", "b"));
    const bytes = STEP_BYTES_MAX + 1;
    await database.run("UPDATE records SET value = printf('%.*c', :bytes, 'x') WHERE offset < 2", { bytes });
    await database.run("UPDATE partitions SET bytes = 4 + 2 + 2 * :bytes, frame_bytes_max = :bytes + 99", {
      bytes,
    });
    expect(await compactBy(100)).toBe(4);
    expect(await offsets()).toEqual([2, 3]);
  });

  test("records of bytes and with headers are counted as they were", async () => {
    await putCompacted();
    await append([
      { key: "a", bytes: "AP8Q" },
      { key: "a", value: 1, headers: { h: "ö" } },
      { key: "b", bytes: "" },
      { key: "a", bytes: "AP8QAA==" },
    ]);
    await compactBy(2);
    expect(await offsets()).toEqual([2, 3]);
  });
});

describe("A tombstone", () => {
  test("is the value null, and nothing that looks like it", async () => {
    await putCompacted({ tombstoneMs: 0 });
    await append([
      { key: "null", value: null },
      { key: "string", value: "null" },
      { key: "bytes", bytes: Buffer.from("null").toString("base64") },
      { key: "array", value: [null] },
      { key: "zero", value: 0 },
      { key: "false", value: false },
      { key: "empty", value: "" },
      { key: "last", value: 1 },
    ]);
    await compactBy(100);
    expect(await offsets()).toEqual([1, 2, 3, 4, 5, 6, 7]);
  });

  test("takes what was there with it, stays for its time, then goes", async () => {
    await putCompacted({ tombstoneMs: 10_000 });
    await append([{ key: "a", value: 1 }, { key: "a", value: null }, ...keyed("b")]);
    await run();
    expect(await offsets()).toEqual([1, 2]);
    await database.pass(9_999);
    await run();
    expect(await offsets()).toEqual([1, 2]);
    await database.pass(1);
    await run();
    expect(await offsets()).toEqual([2]);
    expect(await count("compacted_keys")).toBe(1);
    await check();
    await append(keyed("a"));
    await run();
    expect(await offsets()).toEqual([2, 3]);
    await check();
  });

  test("stays for a day, where the topic does not say", async () => {
    await putCompacted();
    await append([{ key: "a", value: null }, ...keyed("b")]);
    await run();
    await database.pass(86_399_999);
    await run();
    expect(await offsets()).toEqual([0, 1]);
    await database.pass(1);
    await run();
    expect(await offsets()).toEqual([1]);
  });

  test("that is the last record stays until there is another", async () => {
    await putCompacted({ tombstoneMs: 0 });
    await append([...keyed("b"), { key: "a", value: null }]);
    await run();
    await database.pass(1_000_000);
    await run();
    expect(await offsets()).toEqual([0, 1]);
    await append([{ key: "b", value: null }]);
    await run();
    expect(await offsets()).toEqual([2]);
    expect(await life.bounds()).toEqual({ start: 0, end: 3 });
    await check();
  });

  test("of a key that came back is no tombstone any more; one that came again has its time from then", async () => {
    await putCompacted({ tombstoneMs: 1_000 });
    await append([{ key: "a", value: null }, { key: "c", value: null }, ...keyed("b")]);
    await run();
    await database.pass(999);
    await append([{ key: "a", value: 1 }, { key: "c", value: null }, ...keyed("b")]);
    await run();
    await database.pass(1);
    await run();
    expect(await offsets()).toEqual([3, 4, 5]);
    await database.pass(998);
    await run();
    expect(await offsets()).toEqual([3, 4, 5]);
    await database.pass(1);
    await run();
    expect(await offsets()).toEqual([3, 5]);
    await check();
  });

  test("has the time that its topic says now", async () => {
    await putCompacted({ tombstoneMs: 100_000 });
    await append([{ key: "a", value: null }, ...keyed("b")]);
    await run();
    await database.pass(5_000);
    await putCompacted({ tombstoneMs: 6_000 });
    await run();
    expect(await offsets()).toEqual([0, 1]);
    await putCompacted({ tombstoneMs: 5_000 });
    await run();
    expect(await offsets()).toEqual([1]);
  });

  test("of many goes by a bounded number of records and bytes a step", async () => {
    await putCompacted({ tombstoneMs: 1 });
    const longKey = (n: number) => String(n).padStart(KEY_BYTES_MAX, "k");
    for (let batch = 0; batch < 4; batch += 1)
      await append(Array.from({ length: 50 }, (_, n) => ({ key: longKey(50 * batch + n), value: null })));
    await append(keyed("last"));
    await compactBy(10_000);
    expect(await count("records")).toBe(201);
    await database.pass(1);
    const left: number[] = [];
    for (let hasMore = true; hasMore; left.push(await count("records"))) {
      hasMore = (await step(10_000)).hasMore;
      await check();
    }
    const aStep = Math.floor(STEP_BYTES_MAX / (KEY_BYTES_MAX + 4));
    expect(left).toEqual([201 - aStep, 1]);
    await database.empty();
    life.forget();
    await putCompacted({ tombstoneMs: 1 });
    await append([...Array.from({ length: 10 }, (_, n) => ({ key: `${n}`, value: null })), ...keyed("last")]);
    await compactBy(100);
    await database.pass(1);
    await step(4);
    expect(await count("records")).toBe(7);
    await compactBy(4);
    expect(await offsets()).toEqual([10]);
  });
});

describe("What was appended less than minLagMs ago", () => {
  test("is left alone, whatever its timestamp says, and compacted then", async () => {
    await putCompacted({ minLagMs: 10_000 });
    await append(keyed("a", "a").map((record) => ({ ...record, timestamp: 0 })));
    await run();
    await database.pass(5_000);
    await append(keyed("a", "a", "b"));
    await run();
    await database.pass(4_999);
    await run();
    expect(await offsets()).toEqual([0, 1, 2, 3, 4]);
    await database.pass(1);
    await run();
    expect(await offsets()).toEqual([1, 2, 3, 4]); // the old ones among themselves
    await database.pass(5_000);
    await run();
    expect(await offsets()).toEqual([3, 4]);
    expect(await count("append_times")).toBe(0);
    await check();
  });

  test("is what it says now, larger or smaller", async () => {
    await putCompacted({ minLagMs: 10_000 });
    await append(keyed("a", "a"));
    await run();
    await database.pass(10_000);
    await putCompacted({ minLagMs: 20_000 });
    await run();
    expect(await offsets()).toEqual([0, 1]);
    await putCompacted({ minLagMs: 0 });
    await run();
    expect(await offsets()).toEqual([1]);
    await putCompacted({ minLagMs: 20_000 });
    await append(keyed("a"));
    await run();
    expect(await offsets()).toEqual([1, 2]);
    await check();
  });

  test("is so after the clock was set back too", async () => {
    await putCompacted({ minLagMs: 10_000 });
    await append(keyed("a", "a"));
    await run();
    await database.pass(-1_000_000);
    await run();
    await database.pass(9_999);
    await run();
    expect(await offsets()).toEqual([0, 1]);
    await database.pass(1);
    await run();
    expect(await offsets()).toEqual([1]);
  });
});

describe("A topic that is compacted no longer", () => {
  test("keeps what it has and gets, nothing is known of its keys, and compacted again it is as the first time", async () => {
    await putCompacted();
    await append(keyed("a", "a", "b"));
    await run();
    await put({ cleanup: "delete" });
    await append(keyed("a", "b", "b"));
    await run();
    expect(await offsets()).toEqual([1, 2, 3, 4, 5]);
    expect([await count("compactions"), await count("compacted_keys")]).toEqual([0, 0]);
    await putCompacted();
    await run();
    expect(await offsets()).toEqual([3, 5]);
    await check();
  });

  test.each([1, 3])("and then again, while its keys are half forgotten (%p)", async (forgotten) => {
    await putCompacted();
    await append(keyed("a", "b", "c", "d", "e", "a"));
    await run();
    await put({ cleanup: "delete" });
    await append(keyed("a", "b"));
    expect(await findOutdated(db)).toEqual([1]);
    await forget(forgotten);
    await putCompacted();
    expect(await findOutdated(db)).toEqual([1]);
    expect(await step(100)).toMatchObject({ hasMore: false }); // not before all is forgotten
    expect(await offsets()).toEqual([1, 2, 3, 4, 5, 6, 7]);
    await run();
    expect(await offsets()).toEqual([2, 3, 4, 6, 7]);
    await check();
    expect(await findOutdated(db)).toEqual([]);
  });

  test("forgets a bounded number of keys and bytes a step", async () => {
    await putCompacted();
    for (let batch = 0; batch < 4; batch += 1)
      await append(
        Array.from({ length: 50 }, (_, n) => ({
          key: String(50 * batch + n).padStart(KEY_BYTES_MAX, "0"),
          value: 1,
        })),
      );
    await run();
    await put({ cleanup: "delete" });
    const aStep = STEP_BYTES_MAX / KEY_BYTES_MAX;
    expect(await forget(10_000)).toMatchObject({ hasMore: true });
    expect(await count("compacted_keys")).toBe(200 - aStep);
    expect(await forget(10)).toMatchObject({ hasMore: true });
    expect(await count("compacted_keys")).toBe(190 - aStep);
    expect(await forget(10_000)).toMatchObject({ hasMore: false });
    expect([await count("compactions"), await count("compacted_keys")]).toEqual([0, 0]);
  });

  test("forgets nothing of one that is compacted", async () => {
    await putCompacted();
    await append(keyed("a", "b"));
    await run();
    expect(await forget(100)).toMatchObject({ hasMore: false });
    expect(await count("compacted_keys")).toBe(2);
  });
});

describe("After a trim of a compacted partition", () => {
  test("a newer record of a key that went is the newest, and one that stayed is replaced", async () => {
    await putCompacted();
    await append(keyed("a", "b", "c", "b"));
    await run();
    expect(await offsets()).toEqual([0, 2, 3]);
    await life.trim(3);
    await check();
    await append(keyed("a", "b", "d"));
    await run();
    expect(await offsets()).toEqual([4, 5, 6]);
    expect(await life.bounds()).toEqual({ start: 3, end: 7 });
    await check();
  });

  test("to the end, or beyond what is compacted yet, compaction goes on with what comes", async () => {
    await putCompacted();
    await append(keyed("a", "b", "a", "c"));
    await step(1);
    await life.trim(4);
    await check();
    await run();
    await append(keyed("c", "a", "c"));
    await step(1);
    await life.trim(6);
    await run();
    expect(await offsets()).toEqual([6]);
    await append(keyed("a", "c"));
    await run();
    expect(await offsets()).toEqual([7, 8]);
    await check();
  });

  test("a key whose newer record is not compacted yet is known by the old one no more", async () => {
    await putCompacted({ minLagMs: 0 });
    await append(keyed("a", "b"));
    await run();
    await append(keyed("a"));
    await life.trim(2);
    await check();
    await run();
    expect(await offsets()).toEqual([2]);
    await check();
  });

  test("by retention it is the same", async () => {
    await put({ cleanup: "compact", retention: { records: 2 } });
    await append(keyed("a", "b", "c", "d"));
    await run();
    expect(await offsets()).toEqual([2, 3]);
    await append(keyed("a", "c"));
    await run();
    expect(await offsets()).toEqual([4, 5]);
    await check();
  });
});

describe("A topic that is deleted while it is compacted", () => {
  test("leaves nothing, and one made anew of its name is another", async () => {
    await putCompacted();
    await append(keyed("a", "b", "a", "c"));
    await step(2);
    await life.topics.delete("orders");
    expect(await step(2)).toMatchObject({ hasMore: false });
    await putCompacted();
    await append(keyed("a", "b", "b"));
    await run();
    expect(await offsets(1)).toEqual([]);
    expect(await offsets(2)).toEqual([0, 2]);
    expect([await count("compactions"), await count("compacted_keys"), await count("purges")]).toEqual([
      1, 2, 0,
    ]);
    await check();
  });
});

test("Partitions that are added are compacted too", async () => {
  await putCompacted();
  await append(keyed("a", "a"));
  await run();
  await put({ partitionCount: 3 });
  await append(keyed("a", "a"), 2);
  await run();
  expect(await offsets(3)).toEqual([1]);
  await check();
});

describe("To compact a topic with records without a key", () => {
  const codeOf = (work: Promise<unknown>) =>
    work.then(
      () => "done",
      (error: unknown) => (error instanceof Problem ? { code: error.code, ...error.facts } : error),
    );

  test("is a conflict that names the first, and changes nothing", async () => {
    await put({ partitionCount: 3 });
    await append(keyed("a"), 0);
    await append(keyed("a", "b"), 2);
    await append([...values(1), ...keyed("c")], 2);
    const asked = put({ cleanup: "compact", compaction: { minLagMs: 5 }, retention: { ms: 9 } });
    expect(await codeOf(asked)).toEqual({ code: "conflict", topic: "orders", partition: 2, offset: 2 });
    expect(await life.topics.describe("orders")).toMatchObject({
      cleanup: "delete",
      retention: { ms: null },
      compaction: { minLagMs: null },
    });
    await life.trim(3, 3);
    expect(await codeOf(putCompacted())).toBe("done");
  });

  test("is found among many, and of what is compacted already nothing is looked at", async () => {
    await put({});
    await append(Array.from({ length: 9_000 }, (_, n) => ({ key: `${n}`, value: n })));
    await append(values(1));
    expect(await codeOf(putCompacted())).toEqual({
      code: "conflict",
      topic: "orders",
      partition: 0,
      offset: 9_000,
    });
    await append(Array.from({ length: 2_000 }, (_, n) => ({ key: `${n}`, value: n })));
    await life.trim(2_000);
    await life.trim(4_000);
    await life.trim(6_000);
    await life.trim(8_000);
    await life.trim(9_001);
    const watched = new WatchedDb(db);
    const topics = new Topics({ db: watched, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
    await topics.put("orders", undefined, { cleanup: "compact" });
    const looks = () => watched.reads.filter(({ sql }) => sql.includes("FROM records")).length;
    expect(looks()).toBe(1);
    await topics.put("orders", undefined, { cleanup: "compact" });
    expect(looks()).toBe(1);
  });

  test.each(["a record", "a partition", "a topic made anew"])(
    "is a conflict where it comes while they are looked for: %s",
    async (what) => {
      await put({});
      await append(keyed("a"));
      const watched = new WatchedDb(db);
      watched.onRead = async ({ sql }) => {
        if (!sql.includes("keyless")) return;
        watched.onRead = undefined;
        if (what === "a partition") await put({ partitionCount: 2 });
        if (what === "a topic made anew") {
          await life.topics.delete("orders");
          await put({ partitionCount: 2 });
        }
        later = async () => append(values(2), what === "a record" ? 0 : 1);
      };
      // After the look, before the change.
      let later: (() => Promise<unknown>) | undefined;
      const submit = queue.submit.bind(queue);
      const topics = new Topics({ db: watched, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
      queue.submit = (async (operation: never) => {
        const before = later;
        later = undefined;
        await before?.();
        return submit(operation);
      }) as typeof queue.submit;
      try {
        expect(await codeOf(topics.put("orders", undefined, { cleanup: "compact" }))).toMatchObject({
          code: "conflict",
          partition: what === "a record" ? 0 : 1,
        });
      } finally {
        queue.submit = submit;
      }
      expect(await topics.describe("orders")).toMatchObject({ cleanup: "delete" });
    },
  );

  test("writes nothing afterwards that was checked before", async () => {
    await put({});
    const before = await life.topics.require("orders");
    await putCompacted();
    const records = parsed(values(1));
    const late = appendRecords(before, [{ partition: 0, records }]);
    expect(await queue.submit(late)).toBeUndefined();
    expect(await offsets()).toEqual([]);
    await put({ cleanup: "delete" });
    expect(await queue.submit(late)).toBeUndefined();
    expect(await append(values(1))).toMatchObject([{ offset: 0 }]);
  });

  test("is granted where there are none, or no topic yet", async () => {
    expect(await codeOf(putCompacted())).toBe("done");
    expect(await life.topics.describe("orders")).toMatchObject({ cleanup: "compact" });
  });
});

describe("Reads over gaps", () => {
  const READ = { recordsMax: 3, bytesMax: 256 * 1024, loneRecordBytesMax: 1024 * 1024 };
  const read = (from: number, about: Partial<typeof READ> = {}) =>
    readChunk(db, { partitionId: 1, from, ...READ, ...about });

  /** 0 … 9 with what stands at these. */
  async function setUp(left: readonly number[], end = 10): Promise<void> {
    await putCompacted();
    const isLeft = new Set([...left, end - 1]);
    await append(
      Array.from({ length: end }, (_, n) => ({
        key: isLeft.has(n) ? `${n}` : `${end - 1}`,
        value: n,
        timestamp: n,
      })),
    );
    await run();
    expect(await offsets()).toEqual([...isLeft]);
  }

  test("of a chunk go on behind the last record that it has", async () => {
    await setUp([1, 4, 5, 8]);
    expect(await read(0)).toMatchObject({ count: 3, next: 6, logStartOffset: 0, logEndOffset: 10 });
    expect(await read(6)).toMatchObject({ count: 2, next: 10 });
    expect(await read(2)).toMatchObject({ count: 3, next: 9 });
    expect(await read(0, { recordsMax: 1 })).toMatchObject({ count: 1, next: 2 });
    expect((await read(6, { recordsMax: 1 }))?.records).toContain('"offset":8,');
  });

  test("come through a gap larger than any chunk, measured or not", async () => {
    await setUp([3], 2_000);
    for (const bytesMax of [READ.bytesMax, 60]) {
      expect(await read(0, { bytesMax })).toMatchObject({ next: bytesMax === 60 ? 4 : 2_000 });
      expect(await read(4, { bytesMax })).toMatchObject({ count: 1, next: 2_000 });
    }
  });

  test("where nothing is left before the log end come to the log end", async () => {
    await setUp([3]);
    await life.trim(10);
    expect(await read(4)).toMatchObject({ count: 0, logStartOffset: 10, logEndOffset: 10, next: 10 });
    await database.run("UPDATE partitions SET log_end_offset = 12, frame_bytes_max = 100");
    for (const bytesMax of [READ.bytesMax, 60])
      expect(await read(10, { bytesMax })).toMatchObject({ count: 0, next: 12 });
  });

  test("do not get more than was measured, where compaction has come in between", async () => {
    await putCompacted();
    const large = (key: string) => ({ key, value: "x".repeat(200) });
    await append([...keyed("a", "b", "c"), large("d"), large("e"), ...keyed("a", "b", "c")]);
    const watched = new WatchedDb(db);
    let reads = 0;
    watched.onRead = async () => {
      reads += 1;
      if (reads === 3) await run();
    };
    const about = { partitionId: 1, from: 0, recordsMax: 100, bytesMax: 400, loneRecordBytesMax: 400 };
    const chunk = await readChunk(watched, about);
    expect(reads).toBe(3);
    expect(await offsets()).toEqual([3, 4, 5, 6, 7]);
    expect(chunk).toMatchObject({ count: 0, records: "", next: 3, logEndOffset: 8 });
    expect(await readChunk(db, { ...about, from: 3 })).toMatchObject({ count: 1, next: 4 });
  });

  test("find by time the first that is left, else the log end, and so does the index over them", async () => {
    await setUp([2_500], 6_000);
    const at = (timestamp: number) => findOffsetAt(db, { partitionId: 1, timestamp });
    expect(await at(0)).toBe(2_500);
    expect(await at(2_500)).toBe(2_500);
    expect(await at(2_501)).toBe(5_999);
    expect(await at(6_000)).toBe(6_000);
    const more = Array.from({ length: 3_000 }, (_, n) => ({
      key: `${n % 2}`,
      value: n,
      timestamp: 6_000 + n,
    }));
    await append(more.slice(0, 1_500));
    await run();
    await append(more.slice(1_500));
    expect(await at(6_000)).toBe(7_498);
    expect(await at(7_600)).toBe(7_600);
    const index = await database.rows("SELECT offset, max_timestamp FROM time_index ORDER BY offset");
    expect(index.map(({ offset }) => offset)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => 1_000 * n));
    await run();
    expect(await at(7_600)).toBe(8_998);
    await check();
  });
});
