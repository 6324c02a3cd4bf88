import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { appendRecords } from "../../src/store/appends.ts";
import type { Topic } from "../../src/store/topic-tables.ts";
import { Topics } from "../../src/store/topics.ts";
import { Fetches, type FetchRequest } from "../../src/stream/fetch.ts";
import { SharedReads } from "../../src/stream/shared-reads.ts";
import { WakeUps } from "../../src/stream/wake-ups.ts";
import { openQueue, openTestDatabase, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";

const database = await openTestDatabase();
const queue = openQueue(database.db);
afterAll(() => database.close());
beforeEach(() => database.empty());

/** A partition of ten records, one a second from 1,000 on. */
async function setUp() {
  const time = new FakeTime();
  const topics = new Topics({ db: database.db, queue, scheduler: time, createsOnFirstUse: true });
  const topic = await topics.require("orders");
  const watched = new WatchedDb(database.db);
  const deps = { db: watched, scheduler: time, log: () => {} };
  const wakeUps = new WakeUps(deps);
  const fetches = new Fetches({ ...deps, reads: new SharedReads(deps), wakeUps });
  const fetch = (request: Partial<FetchRequest> = {}) => {
    const { signal } = new AbortController();
    const defaults = { partitionId: 1, recordsMax: 500, bytesMax: 1_000_000, waitMs: 0, signal };
    return fetches.fetch({ topic: "orders", from: "earliest", ...defaults, ...request });
  };
  await append(
    topic,
    Array.from({ length: 10 }, (_, i) => 1_000 * (i + 1)),
  );
  return { topic, watched, time, wakeUps, fetches, fetch };
}

async function append(topic: Topic, timestamps: readonly number[]) {
  const text = JSON.stringify({ records: timestamps.map((timestamp) => ({ value: 1, timestamp })) });
  return queue.submit(appendRecords(topic, [{ partition: 0, records: parseJsonProduce(text).records }]));
}

async function moveLogStart(offset: number): Promise<void> {
  await database.run("DELETE FROM records WHERE offset < :offset", { offset });
  await database.run("UPDATE partitions SET log_start_offset = :offset", { offset });
}

/** What has come of it so far. */
function watch<T>(promise: Promise<T>) {
  const seen: { value?: T; error?: unknown } = {};
  promise.then(
    (value) => {
      seen.value = value;
    },
    (error) => {
      seen.error = error;
    },
  );
  return seen;
}

describe("Fetches.fetch() starts", () => {
  test.each([
    ["earliest", "earliest" as const, { count: 10, next: 10 }],
    ["latest", "latest" as const, { count: 0, next: 10 }],
    ["at an offset", { offset: 4 }, { count: 6, next: 10 }],
    ["at the log end", { offset: 10 }, { count: 0, next: 10 }],
    ["at a time", { timestamp: 3_500 }, { count: 7, next: 10 }],
    ["at a time that is still to come", { timestamp: 10_001 }, { count: 0, next: 10 }],
  ])("%s", async (_, from, chunk) => {
    const { fetch } = await setUp();
    expect(await fetch({ from })).toMatchObject({ ...chunk, logStartOffset: 0, logEndOffset: 10 });
  });

  test("at the log start where the place is below it", async () => {
    const { fetch } = await setUp();
    await moveLogStart(7);
    for (const from of ["earliest", { timestamp: 0 }] as const) {
      const chunk = await fetch({ from });
      expect(chunk).toMatchObject({ count: 3, next: 10, logStartOffset: 7 });
    }
  });

  test("nowhere with an offset outside: offset_out_of_range with the bounds", async () => {
    const { fetch } = await setUp();
    await moveLogStart(7);
    for (const offset of [0, 6, 11, Number.MAX_SAFE_INTEGER]) {
      const facts = { logStartOffset: 7, logEndOffset: 10 };
      expect(await fetch({ from: { offset } }).catch((error) => error)).toMatchObject({
        code: "offset_out_of_range",
        facts,
      });
    }
  });

  test("nowhere where the partition is gone", async () => {
    const { fetch } = await setUp();
    for (const from of ["earliest", { timestamp: 0 }] as const)
      expect(await fetch({ from, partitionId: 9, waitMs: 1_000 })).toBeUndefined();
  });
});

test("Fetches.fetch() shares its reads with all who want the same", async () => {
  const { watched, fetch } = await setUp();
  const chunks = await Promise.all(Array.from({ length: 100 }, () => fetch()));
  expect(watched.reads).toHaveLength(1);
  expect(new Set(chunks).size).toBe(1);
});

describe("a long-poll", () => {
  test("answers at once where there is something", async () => {
    const { fetch, time } = await setUp();
    expect(await fetch({ from: { offset: 9 }, waitMs: 30_000 })).toMatchObject({ count: 1 });
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("waits until the partition grows, and leaves nothing behind", async () => {
    const { topic, fetch, time, wakeUps } = await setUp();
    const seen = watch(fetch({ from: "latest", waitMs: 30_000 }));
    await time.advance(1_000);
    expect(seen).toEqual({});
    const appended = await append(topic, [1, 2]);
    wakeUps.notify(1, appended?.[0]?.logEndOffset ?? 0);
    await time.settle();
    expect(seen.value).toMatchObject({ count: 2, next: 12, logEndOffset: 12 });
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("hears of what another process appended", async () => {
    const { topic, fetch, time } = await setUp();
    const seen = watch(fetch({ from: "latest", waitMs: 30_000 }));
    await time.settle();
    const other = openQueue(await database.openSecond());
    const records = parseJsonProduce('{"records":[{"value":"other"}]}').records;
    await other.submit(appendRecords(topic, [{ partition: 0, records }]));
    await time.advance(100);
    expect(seen.value).toMatchObject({ count: 1, next: 11 });
  });

  test("loses no append that comes between its read and its wait", async () => {
    const { topic, fetch, wakeUps, watched } = await setUp();
    // The read is of before; the append and its wake-up are done before the answer is looked at.
    const read = watched.read.bind(watched);
    let isFirst = true;
    watched.read = async (statement) => {
      const rows = await read(statement);
      if (isFirst) {
        isFirst = false;
        await append(topic, [1]);
        wakeUps.notify(1, 11);
      }
      return rows;
    };
    // No time passes: a wake-up that is lost here is lost for good.
    expect(await fetch({ from: { offset: 10 }, waitMs: 30_000 })).toMatchObject({ count: 1, next: 11 });
  });

  test("answers with nothing when its time is over, and not before", async () => {
    const { fetch, time } = await setUp();
    const seen = watch(fetch({ from: "latest", waitMs: 30_000 }));
    await time.advance(29_999);
    expect(seen).toEqual({});
    await time.advance(1);
    expect(seen.value).toMatchObject({ records: "", count: 0, next: 10, logEndOffset: 10 });
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("looks once more when its time is over", async () => {
    const { topic, fetch, time } = await setUp();
    const seen = watch(fetch({ from: "latest", waitMs: 5 }));
    await time.settle();
    await append(topic, [1]); // before the first poll, and nobody tells
    await time.advance(5);
    expect(seen.value).toMatchObject({ count: 1, next: 11 });
  });

  test("gives up its wait when the client goes away", async () => {
    const { fetch, time, watched } = await setUp();
    const client = new AbortController();
    const seen = watch(fetch({ from: "latest", waitMs: 30_000, signal: client.signal }));
    await time.settle();
    expect(time.pendingDelaysMs).not.toEqual([]);
    client.abort();
    await time.settle();
    expect(seen.value).toMatchObject({ count: 0 });
    const reads = watched.reads.length;
    await time.advance(1_000);
    expect(watched.reads).toHaveLength(reads);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("does not begin to wait for a client that has gone", async () => {
    const { fetch, time } = await setUp();
    await fetch({ from: "latest", waitMs: 30_000, signal: AbortSignal.abort() });
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("is refused when the offset that it waits at is passed by the log start", async () => {
    const { topic, fetch, time, wakeUps } = await setUp();
    const byNumber = watch(fetch({ from: { offset: 10 }, waitMs: 30_000 }));
    const byName = watch(fetch({ from: "latest", waitMs: 30_000 }));
    await time.settle();
    await append(topic, [1, 2, 3]);
    await moveLogStart(12);
    wakeUps.notify(1, 13);
    await time.settle();
    expect(byNumber.error).toMatchObject({ code: "offset_out_of_range", facts: { logStartOffset: 12 } });
    expect(byName.value).toMatchObject({ count: 1, next: 13, logStartOffset: 12 });
  });
});

describe("Fetches.stop()", () => {
  test("answers who waits with what is there, and resolves when all have it", async () => {
    const { fetch, fetches, time } = await setUp();
    const waiting = Array.from({ length: 3 }, () => watch(fetch({ from: "latest", waitMs: 30_000 })));
    await time.settle();
    await fetches.stop();
    for (const seen of waiting) expect(seen.value).toMatchObject({ count: 0, next: 10 });
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("waits for a read that is under way, and lets nobody wait after it", async () => {
    const { fetch, fetches, time } = await setUp();
    const seen = watch(fetch({ from: "latest", waitMs: 30_000 }));
    await fetches.stop();
    expect(seen.value).toMatchObject({ count: 0, next: 10 });
    expect(await fetch({ from: "latest", waitMs: 30_000 })).toMatchObject({ count: 0 });
    expect(time.pendingDelaysMs).toEqual([]);
  });
});

describe("Fetches.fetch() of a topic that is deleted", () => {
  async function deleteOrders(): Promise<void> {
    await new Topics({ db: database.db, queue, scheduler: new FakeTime(), createsOnFirstUse: false }).delete(
      "orders",
    );
  }

  test("during its wait ends at once as unknown_topic, and names it", async () => {
    const { fetch, wakeUps, time } = await setUp();
    const waiting = ["latest" as const, { offset: 10 }, { timestamp: 99_999 }].map((from) =>
      watch(fetch({ from, waitMs: 30_000 })),
    );
    await time.settle();
    await deleteOrders();
    wakeUps.notifyGone([1]);
    await time.settle();
    expect(time.nowMs()).toBe(0);
    for (const { error } of waiting)
      expect(error).toMatchObject({ code: "unknown_topic", facts: { topic: "orders" } });
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("by another process ends the wait with the next poll", async () => {
    const { fetch, time } = await setUp();
    const waiting = watch(fetch({ from: "latest", waitMs: 30_000 }));
    await time.settle();
    await deleteOrders();
    await time.advance(100);
    expect(waiting.error).toMatchObject({ code: "unknown_topic" });
  });

  test("before it is undefined, even with a wait", async () => {
    const { fetch } = await setUp();
    await deleteOrders();
    expect(await fetch({ waitMs: 30_000 })).toBeUndefined();
  });
});

test("Fetches.fetch() whose time is over during its read asks for no time in the past", async () => {
  const { fetch, watched, time } = await setUp();
  let readMs = 0;
  const now = time.nowMs.bind(time);
  time.nowMs = () => now() + readMs;
  watched.onRead = () => {
    readMs += 3;
  };
  const waiting = watch(fetch({ from: "latest", waitMs: 5 }));
  await time.settle();
  expect(time.pendingDelaysMs).toEqual([10, 0]); // a poll, and the end of the wait
  await time.advance(0);
  expect(waiting.value).toMatchObject({ count: 0, next: 10 });
});
