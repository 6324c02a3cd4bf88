import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { INTEGER_MAX } from "../../src/protocol/limits.ts";
import { compactStep } from "../../src/store/compaction.ts";
import { commitFromOutside } from "../../src/store/group-changes.ts";
import {
  findRetainable,
  hasToNote,
  noteLogEnds,
  readWaiting,
  retainStep,
} from "../../src/store/retention.ts";
import type { TopicSettings } from "../../src/store/topic-tables.ts";
import { STEP_BYTES_MAX } from "../../src/store/trims.ts";
import { openTestDatabase } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import { type GivenRecord, keyed, openLogLife, parsed, values } from "../support/log-life.ts";
import { openUpkeep } from "../support/upkeep.ts";

const database = await openTestDatabase();
const { db } = database;
const life = openLogLife(database);
const { queue, put, append, run, offsets, check } = life;
afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  life.forget();
});

const retain = (recordsMax: number, partitionId = 1) => queue.submit(retainStep({ partitionId, recordsMax }));

const from = (start: number, end: number) => Array.from({ length: end - start }, (_, n) => start + n);

const bytesOf = (records: readonly GivenRecord[]) => parsed(records).map(({ bytes }) => bytes);

const MIXED: readonly GivenRecord[] = [
  { value: "x".repeat(1_000) },
  { key: "ü\n€", value: 1 },
  { bytes: "AP8Q/w==" },
  { value: null, headers: { a: "ö", b: "" } },
  { key: "k".repeat(300), bytes: "" },
  { bytes: "" },
  { value: { deep: ["y".repeat(5_000)] } },
  { key: "", value: "" },
  ...values(20),
  { key: "🎉", value: "z".repeat(200), headers: { h: "x".repeat(100) } },
];

describe("What is beyond the records that are kept", () => {
  test("goes, to the last one, from each partition for itself and from no other topic", async () => {
    await put({ partitionCount: 3, retention: { records: 4 } });
    await put({ retention: { records: 7 } }, "visits");
    await put({}, "kept");
    await append(values(10));
    await append(values(4), 1);
    await append(values(5), 2);
    await append(values(9), 0, "visits");
    await append(values(50), 0, "kept");
    await run();
    expect(await offsets(1)).toEqual(from(6, 10));
    expect(await offsets(2)).toEqual(from(0, 4));
    expect(await offsets(3)).toEqual(from(1, 5));
    expect(await offsets(4)).toEqual(from(2, 9));
    expect(await offsets(5)).toEqual(from(0, 50));
    expect(await life.bounds(1)).toEqual({ start: 6, end: 10 });
    await check();
  });

  test("goes by steps of any size, whole after each, the log start at the first record that is left", async () => {
    for (const recordsMax of [1, 2, 3, 5, 100]) {
      await database.empty();
      life.forget();
      await put({ retention: { records: 4 } });
      await append(values(17));
      let steps = 0;
      for (let hasMore = true; hasMore; steps += 1) {
        hasMore = (await retain(recordsMax)).hasMore;
        const [start] = await offsets();
        expect(await life.bounds()).toEqual({ start, end: 17 });
        await check();
      }
      expect(steps).toBe(Math.ceil(13 / recordsMax));
      expect(await offsets()).toEqual(from(13, 17));
    }
  });

  test("counts what is there, not offsets: of a compacted topic that is less", async () => {
    await put({ cleanup: "compact" });
    await append(keyed("a", "a", "a", "b", "b", "c", "d", "d"));
    await run();
    expect(await offsets()).toEqual([2, 4, 5, 7]);
    await put({ retention: { records: 3 } });
    await run();
    expect(await offsets()).toEqual([4, 5, 7]);
    expect(await life.bounds()).toEqual({ start: 4, end: 8 });
    await check();
  });
});

describe("What is beyond the bytes that are kept", () => {
  test("goes, and not a record more, whatever the records are made of", async () => {
    const sizes = bytesOf(MIXED);
    const total = sizes.reduce((a, b) => a + b);
    for (const kept of [1, 2, 30, 500, 5_200, 6_000, total - 1, total, total + 1]) {
      for (const recordsMax of [2, 500]) {
        await database.empty();
        life.forget();
        await put({ retention: { bytes: kept } });
        await append(MIXED);
        await check();
        for (let hasMore = true; hasMore; ) {
          hasMore = (await retain(recordsMax)).hasMore;
          await check();
        }
        expect(await offsets()).toEqual(from(startFor({ sizes, bytes: kept }), sizes.length));
      }
    }
  });

  test("may be all there is", async () => {
    await put({ retention: { bytes: 100 } });
    await append([{ value: "x".repeat(200) }]);
    await run();
    expect(await offsets()).toEqual([]);
    expect(await life.bounds()).toEqual({ start: 1, end: 1 });
    expect(await append([{ value: 1 }])).toMatchObject([{ offset: 1 }]);
    await run();
    expect(await offsets()).toEqual([1]);
    await check();
  });

  test("goes by a bounded number of bytes a step", async () => {
    await put({ retention: { bytes: 10 } });
    const large = { value: "x".repeat(900_000) };
    for (let batch = 0; batch < 3; batch += 1) await append([large, large, large, large]);
    await append(values(10));
    const taken: number[] = [];
    const bytes = async () =>
      Number((await database.rows("SELECT sum(bytes) AS bytes FROM partitions"))[0]?.bytes);
    for (let hasMore = true; hasMore; ) {
      const before = await bytes();
      hasMore = (await retain(10_000)).hasMore;
      taken.push(before - (await bytes()));
    }
    expect(taken).toEqual(Array.from({ length: 3 }, () => 4 * 900_002));
    expect(taken[0]).toBeLessThanOrEqual(STEP_BYTES_MAX);
    expect(await offsets()).toEqual(from(12, 22));
    await check();
  });
});

/** The first record that stays. */
function startFor(about: {
  sizes: readonly number[];
  records?: number | null | undefined;
  bytes?: number | null | undefined;
}): number {
  const { sizes, records, bytes } = about;
  let start = records == null ? 0 : Math.max(0, sizes.length - records);
  const sum = () => sizes.slice(start).reduce((a, b) => a + b, 0);
  while (bytes != null && sum() > bytes) start += 1;
  return start;
}

describe("What is older than the time that is kept", () => {
  test("goes, and nothing younger", async () => {
    await put({ retention: { ms: 10_000 } });
    await append(values(3));
    await run();
    await database.pass(5_000);
    await append(values(2));
    await run();
    await database.pass(4_999);
    await run();
    expect(await offsets()).toEqual(from(0, 5));
    await database.pass(1);
    await run();
    expect(await offsets()).toEqual([3, 4]);
    await database.pass(4_999);
    await run();
    expect(await offsets()).toEqual([3, 4]);
    await database.pass(1);
    await run();
    expect(await offsets()).toEqual([]);
    expect(await life.bounds()).toEqual({ start: 5, end: 5 });
    expect(await database.rows("SELECT * FROM append_times")).toEqual([]);
    await check();
  });

  test("is not what its timestamp says", async () => {
    await put({ retention: { ms: 10_000 } });
    await append([
      { value: 1, timestamp: 0 },
      { value: 2, timestamp: INTEGER_MAX },
    ]);
    await run();
    await database.pass(9_999);
    await run();
    expect(await offsets()).toEqual([0, 1]);
    await database.pass(1);
    await run();
    expect(await offsets()).toEqual([]);
  });

  test("goes within three hundredths of that time, where a server looks by itself", async () => {
    const ms = 100_000;
    const time = new FakeTime((passed) => database.pass(passed));
    const upkeep = openUpkeep({ db, queue, scheduler: time, hasTimers: true });
    await put({ retention: { ms } });
    upkeep.wake();
    const appendedAt: number[] = [];
    const ages: number[] = [];
    for (let second = 0; second < 330; second += 1) {
      if (second % 7 < 3 && second < 200) {
        await append(values(1));
        appendedAt.push(time.nowMs());
        upkeep.noteAppend();
      }
      await time.advance(1_000);
      const { start } = (await life.bounds()) as { start: number };
      while (ages.length < start) ages.push(time.nowMs() - (appendedAt[ages.length] ?? 0));
    }
    await upkeep.stop();
    expect(ages).toHaveLength(appendedAt.length);
    expect(Math.min(...ages)).toBeGreaterThanOrEqual(ms);
    expect(Math.max(...ages)).toBeLessThanOrEqual(ms * 1.03 + 1_000);
  });

  test("counts from when retention was set, for what was there before", async () => {
    await put({});
    await append(values(3));
    await database.pass(1_000_000);
    await put({ retention: { ms: 1_000 } });
    await run();
    await database.pass(999);
    await run();
    expect(await offsets()).toEqual([0, 1, 2]);
    await database.pass(1);
    await run();
    expect(await offsets()).toEqual([]);
  });

  test("is as old again after the clock was set back, and not older than that", async () => {
    await put({ retention: { ms: 10_000 } });
    await append(values(3));
    await run();
    await database.pass(-86_400_000);
    await run();
    await database.pass(9_999);
    await run();
    expect(await offsets()).toEqual([0, 1, 2]);
    await database.pass(1);
    await run();
    expect(await offsets()).toEqual([]);
    expect(await database.rows("SELECT * FROM append_times")).toEqual([]);
    await check();
  });

  test("is what was there when the clock was set forward, and what came after that is not", async () => {
    await put({ retention: { ms: 10_000 } });
    await append(values(3));
    await run();
    await database.pass(86_400_000);
    await append(values(2));
    await run();
    expect(await offsets()).toEqual([3, 4]);
    await database.pass(-86_400_000);
    await append(values(1));
    await run();
    await database.pass(10_100);
    await run();
    expect(await offsets()).toEqual([]);
  });

  test("is noted for many partitions, in more than one step", async () => {
    await put({ partitionCount: 2_100, retention: { ms: 1_000 } });
    await database.run("UPDATE partitions SET log_end_offset = 1");
    const notes = async () => (await database.rows("SELECT count(*) AS n FROM append_times"))[0]?.n;
    expect((await queue.submit(noteLogEnds())).hasMore).toBe(true);
    expect(await notes()).toBe(2_000);
    expect((await queue.submit(noteLogEnds())).hasMore).toBe(false);
    expect(await notes()).toBe(2_100);
    expect(await hasToNote(db)).toBe(false);
  });

  test("is noted a hundred times in that time, however often it is looked at", async () => {
    await put({ retention: { ms: 1_000_000 } });
    for (let n = 0; n < 400; n += 1) {
      await append(values(1));
      await run();
      await database.pass(1_000);
    }
    const [row] = await database.rows("SELECT count(*) AS n FROM append_times");
    expect(Number(row?.n)).toBeLessThanOrEqual(41);
  });

  test("is noted no more often for a compaction that waits for little: what is noted does not grow", async () => {
    await put({ cleanup: "compact", compaction: { minLagMs: 1_000 }, retention: { ms: 100_000 } });
    let most = 0;
    for (let n = 0; n < 600; n += 1) {
      await append(keyed(`k${n}`));
      await run();
      await database.pass(250);
      const [row] = await database.rows("SELECT count(*) AS n FROM append_times");
      most = Math.max(most, Number(row?.n));
    }
    expect(most).toBeLessThanOrEqual(110);
    // The first of 600 is 150 s old: a hundredth for when it was noted, one for what was taken away of that.
    const [first = 0] = await offsets();
    expect(first).toBeGreaterThanOrEqual(600 - 400 - 12);
    expect(first).toBeLessThanOrEqual(600 - 400);
    await check();
  });
});

test("Several limits together: what any of them does not keep goes", async () => {
  await put({ retention: { records: 10, bytes: 40, ms: 1_000 } });
  await append([...values(8), { value: "x".repeat(30) }, { value: 1 }]);
  await run();
  expect(await offsets()).toEqual(from(1, 10)); // of 8 records of one byte, one of 32 and one of one
  await put({ retention: { records: 3 } });
  await run();
  expect(await offsets()).toEqual([7, 8, 9]);
  await put({ retention: { bytes: 20 } });
  await run();
  expect(await offsets()).toEqual([9]);
  await database.pass(1_000);
  await run();
  expect(await offsets()).toEqual([]);
  await check();
});

describe("A limit that changes", () => {
  test("between two steps holds from then on: taken away, nothing more goes", async () => {
    await put({ retention: { records: 1, bytes: 1, ms: 1 } });
    await append(values(20));
    expect(await retain(4)).toMatchObject({ hasMore: true });
    expect(await offsets()).toEqual(from(4, 20));
    await put({ retention: { records: null, bytes: null, ms: null } });
    await database.pass(1_000_000);
    expect(await retain(4)).toMatchObject({ hasMore: false });
    await run();
    expect(await offsets()).toEqual(from(4, 20));
    await check();
  });

  test("to more keeps what is there, to less takes what is too much", async () => {
    await put({ retention: { records: 5 } });
    await append(values(10));
    await retain(2);
    await put({ retention: { records: 7 } });
    await run();
    expect(await offsets()).toEqual(from(3, 10));
    await put({ retention: { records: 6 } });
    await run();
    expect(await offsets()).toEqual(from(4, 10));
    await put({ retention: { ms: 10_000 } });
    await run();
    await database.pass(10_000);
    await put({ retention: { ms: 20_000 } });
    await run();
    expect(await offsets()).toEqual(from(4, 10));
    await put({ retention: { ms: 10_000 } });
    await run();
    expect(await offsets()).toEqual([]);
  });

  test("between a look and its step, where the topic is gone or made anew, does no harm", async () => {
    await put({ retention: { records: 1 } });
    await append(values(5));
    expect(await findRetainable(db)).toEqual([1]);
    await life.topics.delete("orders");
    expect(await retain(100)).toMatchObject({ hasMore: false });
    await put({});
    await append(values(5));
    expect(await retain(100, 2)).toMatchObject({ hasMore: false });
    expect(await offsets(2)).toEqual(from(0, 5));
    await run();
    expect(await offsets(1)).toEqual([]);
    await check();
  });
});

test.each([1, INTEGER_MAX])("Limits of %p are kept", async (limit) => {
  await put({ retention: { records: limit, bytes: limit, ms: limit }, compaction: { minLagMs: limit } });
  await append(values(5));
  await run();
  expect(await offsets()).toEqual(limit === 1 ? [4] : from(0, 5));
  await database.pass(1);
  await run();
  expect(await offsets()).toEqual(limit === 1 ? [] : from(0, 5));
  expect((await run()).nextInMs).toBeGreaterThanOrEqual(250);
  await check();
});

test("The lag of a group counts from the log start, where it has not come so far", async () => {
  await put({ retention: { records: 4 } });
  await append(values(3));
  const offsetsToCommit = [{ topic: "orders", partition: 0, offset: 2 }];
  await queue.submit(commitFromOutside({ op: queue.nextOp(), group: "g", offsets: offsetsToCommit }));
  const lag = () => database.rows("SELECT committed_offset, log_start_offset, lag FROM consumer_lag");
  expect(await lag()).toEqual([{ committed_offset: 2, log_start_offset: 0, lag: 1 }]);
  await append(values(7));
  expect(await lag()).toEqual([{ committed_offset: 2, log_start_offset: 0, lag: 8 }]);
  await run();
  expect(await lag()).toEqual([{ committed_offset: 2, log_start_offset: 6, lag: 4 }]);
});

describe("readWaiting()", () => {
  test("is about what is there, not about topics that have nothing that waits", async () => {
    await put({ retention: { ms: 1_000 } }, "empty");
    await put({ retention: { ms: 700_000 } }, "full");
    await put({ cleanup: "compact" }, "compacted");
    await put({ retention: { records: 3 } }, "counted");
    expect(await readWaiting(db)).toEqual({ topics: 4, shortestMs: undefined });
    await append(values(2), 0, "full");
    await append(values(2), 0, "counted");
    await run();
    expect(await readWaiting(db)).toEqual({ topics: 4, shortestMs: 700_000 });
  });

  test("is about the age for compaction while something is not compacted, and for retention after that", async () => {
    await put({ cleanup: "compact", compaction: { minLagMs: 5_000 }, retention: { ms: 700_000 } });
    await append(keyed("a", "b"));
    await run();
    expect(await readWaiting(db)).toEqual({ topics: 1, shortestMs: 5_000 });
    await database.pass(5_000);
    await run();
    expect(await readWaiting(db)).toEqual({ topics: 1, shortestMs: 700_000 });
    await database.pass(695_000);
    await run();
    expect(await readWaiting(db)).toEqual({ topics: 1, shortestMs: undefined });
    expect(await offsets()).toEqual([]);
  });

  test("is not about a tombstone that is the last record: it stays", async () => {
    await put({ cleanup: "compact", compaction: { tombstoneMs: 5_000 } });
    await append([{ key: "a", value: null }]);
    await run();
    expect(await readWaiting(db)).toEqual({ topics: 1, shortestMs: undefined });
    await append([{ key: "b", value: 1 }]);
    await run();
    expect(await readWaiting(db)).toEqual({ topics: 1, shortestMs: 5_000 });
    await database.pass(5_000);
    await run();
    expect(await readWaiting(db)).toEqual({ topics: 1, shortestMs: undefined });
  });
});

// ── against a list ───────────────────────────────────────────────────────────────────────────────────────

interface ModelRecord {
  readonly offset: number;
  readonly key: string;
  readonly isTombstone: boolean;
  readonly bytes: number;
  readonly atMs: number;
  /** When compaction came to it. */
  seenAtMs?: number;
}

/** What the log has to be after everything was done that there was to do; age is judged from outside. */
class LogModel {
  nowMs = 0;
  start = 0;
  end = 0;
  log: ModelRecord[] = [];
  settings: { records: number | null; bytes: number | null; ms: number | null; isCompacted: boolean } = {
    records: null,
    bytes: null,
    ms: null,
    isCompacted: false,
  };

  append(records: readonly GivenRecord[]): void {
    for (const [n, bytes] of bytesOf(records).entries()) {
      const isTombstone = records[n]?.value === null;
      this.log.push({ offset: this.end, key: String(records[n]?.key), isTombstone, bytes, atMs: this.nowMs });
      this.end += 1;
    }
  }

  trim(before: number): void {
    if (before > this.end || before <= this.start) return;
    this.start = before;
    this.log = this.log.filter(({ offset }) => offset >= before);
  }

  /** The log start that records and bytes ask for. */
  startByLimits(): number {
    const { records, bytes } = this.settings;
    const sizes = this.log.map((record) => record.bytes);
    const index = startFor({ sizes, records, bytes });
    return index === 0 ? this.start : (this.log[index]?.offset ?? this.end);
  }

  compact(tombstoneMs: number): void {
    if (!this.settings.isCompacted) return;
    const newest = new Map(this.log.map(({ key, offset }) => [key, offset]));
    this.log = this.log.filter(({ key, offset }) => newest.get(key) === offset);
    for (const record of this.log) record.seenAtMs ??= this.nowMs;
    this.log = this.log.filter(
      ({ isTombstone, offset, seenAtMs = 0 }) =>
        !isTombstone || offset === this.end - 1 || seenAtMs > this.nowMs - tombstoneMs,
    );
  }
}

const TOMBSTONE_MS = 400;

const record = fc.record({
  key: fc.constantFrom("a", "b", "c", "ü🎉", ""),
  value: fc.oneof(
    fc.constant(null),
    fc.integer({ min: 0, max: 9 }),
    fc.string({ minLength: 20, maxLength: 60 }),
  ),
});
const limit = (max: number) => fc.option(fc.integer({ min: 1, max }));
const ANY_ACTION = fc.oneof(
  fc.record({ append: fc.array(record, { minLength: 1, maxLength: 7 }) }),
  fc.record({ trim: fc.nat({ max: 30 }) }),
  fc.record({ pass: fc.integer({ min: 1, max: 600 }) }),
  fc.record({ records: limit(12) }),
  fc.record({ bytes: limit(200) }),
  fc.record({ ms: limit(1_000) }),
  fc.record({ isCompacted: fc.boolean() }),
  fc.record({ step: fc.constantFrom("retain", "compact"), recordsMax: fc.integer({ min: 1, max: 5 }) }),
  fc.constant({ run: true }),
);

test("Appends, trims, changes of limits, time, retention and compaction in any order agree with a list", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(ANY_ACTION, { maxLength: 25 }), async (actions) => {
      await database.empty();
      life.forget();
      const model = new LogModel();
      await put({ compaction: { tombstoneMs: TOMBSTONE_MS } });
      for (const action of [...actions, { run: true }]) {
        if ("append" in action) {
          model.append(action.append);
          await append(action.append);
        } else if ("trim" in action) {
          model.trim(action.trim);
          await life.trim(action.trim);
        } else if ("pass" in action) {
          model.nowMs += action.pass;
          await database.pass(action.pass);
        } else if ("step" in action) {
          // Anything may be half done: what is done of it is found again by the next run.
          const of = { partitionId: 1, recordsMax: action.recordsMax };
          if (action.step === "compact") await queue.submit(compactStep(of));
          else await queue.submit(retainStep(of));
          await check();
          await followStep(model);
          continue;
        } else if ("run" in action) {
          await run();
          await followRun(model);
        } else {
          Object.assign(model.settings, action);
          if ("isCompacted" in action && !action.isCompacted)
            for (const each of model.log) delete each.seenAtMs;
          await put(settingsOf(action));
        }
        await check();
        expect(await life.bounds()).toEqual({ start: model.start, end: model.end });
        expect(await offsets()).toEqual(model.log.map(({ offset }) => offset));
      }
    }),
    { numRuns: 60 },
  );
}, 120_000);

type Changed = Partial<LogModel["settings"]>;

function settingsOf({ isCompacted, ...retention }: Changed): TopicSettings {
  if (isCompacted !== undefined) return { cleanup: isCompacted ? "compact" : "delete" };
  return { retention };
}

/** What age has taken is judged by the log itself: at least as old as it has to be. */
async function followAge(model: LogModel, start: number): Promise<void> {
  const { ms } = model.settings;
  const gone = model.log.filter(({ offset }) => offset < start);
  if (start > model.startByLimits()) {
    if (ms === null) throw new Error(`went up to ${start} for no reason`);
    for (const { atMs } of gone) expect(atMs).toBeLessThanOrEqual(model.nowMs - ms);
  }
  model.trim(start);
}

async function followRun(model: LogModel): Promise<void> {
  const { start } = (await life.bounds()) as { start: number };
  expect(start).toBeGreaterThanOrEqual(model.startByLimits());
  await followAge(model, start);
  model.compact(TOMBSTONE_MS);
}

/** A step goes no further than a run would. */
async function followStep(model: LogModel): Promise<void> {
  const { start } = (await life.bounds()) as { start: number };
  const byLimits = model.startByLimits();
  if (start > byLimits) await followAge(model, start);
  else model.trim(start);
  const left = new Set(await offsets());
  const superseded = model.log.filter(({ offset }) => !left.has(offset));
  for (const { key, offset, isTombstone } of superseded) {
    const isNewest = !model.log.some((other) => other.key === key && other.offset > offset);
    expect(isNewest ? isTombstone : true).toBe(true);
    expect(offset).toBeLessThan(model.end - 1);
  }
  model.log = model.log.filter(({ offset }) => left.has(offset));
  if (!model.settings.isCompacted) return;
  const seen = await database.rows("SELECT offset FROM compacted_keys");
  const seenOffsets = new Set(seen.map(({ offset }) => Number(offset)));
  for (const each of model.log) if (seenOffsets.has(each.offset)) each.seenAtMs ??= model.nowMs;
}
