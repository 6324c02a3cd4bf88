import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import type { ReadRequest } from "../../src/core/session/window.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { DbError } from "../../src/store/db.ts";
import { Topics } from "../../src/store/topics.ts";
import { SharedReads } from "../../src/stream/shared-reads.ts";
import { failing, openQueue, openTestDatabase, WatchedDb } from "../support/database.ts";
import { FakeTime, turnOfTheLoop } from "../support/fake-time.ts";

const database = await openTestDatabase();
const queue = openQueue(database.db);
afterAll(() => database.close());
beforeEach(() => database.empty());

const request = (options: Partial<ReadRequest> = {}): ReadRequest => ({
  partitionId: 1,
  from: 0,
  recordsMax: 500,
  bytesMax: 256 * 1024,
  loneRecordBytesMax: 0,
  ...options,
});

async function setUp({ readsAtOnceMax = 1 } = {}) {
  const time = new FakeTime();
  const topics = new Topics({ db: database.db, queue, scheduler: time, createsOnFirstUse: true });
  await topics.put("orders", 1);
  const watched = Object.assign(new WatchedDb(database.db), { readsAtOnceMax });
  const reads = new SharedReads({ db: watched, scheduler: time });
  const produce = async (count: number) => {
    const records = parseJsonProduce(
      JSON.stringify({ records: Array.from({ length: count }, () => ({ value: 1 })) }),
    ).records;
    await queue.submit(appendRecords(await topics.require("orders"), [{ partition: 0, records }]));
  };
  await produce(10);
  return { watched, time, reads, produce };
}

describe("SharedReads.read()", () => {
  test("asks once for all who want the same, and gives them the same text", async () => {
    const { watched, reads } = await setUp();
    const chunks = await Promise.all(Array.from({ length: 1_000 }, () => reads.read(request())));
    expect(watched.reads).toHaveLength(1);
    expect(new Set(chunks).size).toBe(1);
    expect(chunks[0]).toMatchObject({ count: 10, next: 10, logEndOffset: 10 });
  });

  test("hands a chunk to a hundred in a turn, in the order of asking, so that others get their turns", async () => {
    const { reads } = await setUp();
    const order: number[] = [];
    for (let n = 0; n < 250; n += 1) void reads.read(request()).then(() => order.push(n));
    for (const soFar of [0, 100, 200, 250, 250]) {
      expect(order).toEqual(Array.from({ length: soFar }, (_, n) => n));
      await turnOfTheLoop();
    }
  });

  test("hands out a failure in the same way", async () => {
    const { watched, reads } = await setUp();
    watched.onRead = failing(new DbError("io", "scripted"));
    const outcomes = await Promise.allSettled(Array.from({ length: 250 }, () => reads.read(request())));
    expect(outcomes.filter(({ status }) => status === "rejected")).toHaveLength(250);
  });

  test.each([
    { what: "another offset", other: { from: 5 }, brings: { count: 5, next: 10 } },
    { what: "fewer records", other: { recordsMax: 3 }, brings: { count: 3, next: 3 } },
    { what: "fewer bytes", other: { bytesMax: 10 }, brings: { count: 0, next: 0 } },
    {
      what: "a large record alone",
      other: { bytesMax: 10, loneRecordBytesMax: 10_000 },
      brings: { count: 1, next: 1 },
    },
  ])("does not share with who wants something else: $what", async ({ other, brings }) => {
    const { reads } = await setUp();
    const [mine, theirs] = await Promise.all([reads.read(request()), reads.read(request(other))]);
    expect(mine).toMatchObject({ count: 10, next: 10 });
    expect(theirs).toMatchObject(brings);
  });

  test("does not take a request for another because their numbers read alike", async () => {
    const { reads } = await setUp();
    const [one, eleven] = await Promise.all([
      reads.read(request({ from: 1, recordsMax: 15 })),
      reads.read(request({ from: 11, recordsMax: 5 })),
    ]);
    expect(one).toMatchObject({ count: 9, next: 10 });
    expect(eleven).toMatchObject({ count: 0, next: 11 });
  });

  test("reads one chunk a turn of the event loop, in the order of asking", async () => {
    const { watched, reads } = await setUp();
    const order: number[] = [];
    for (const from of [3, 1, 2]) void reads.read(request({ from })).then(() => order.push(from));
    for (const [turn, soFar] of [[], [3], [3, 1], [3, 1, 2]].entries()) {
      expect(order).toEqual(soFar);
      expect(watched.reads).toHaveLength(turn);
      await turnOfTheLoop();
    }
  });

  test("of a database that takes several reads at once has so many under way, and one more when one has come", async () => {
    const { watched, time, reads } = await setUp({ readsAtOnceMax: 3 });
    const answers: (() => void)[] = [];
    watched.onRead = () => new Promise<void>((resolve) => answers.push(resolve));
    const done: number[] = [];
    for (const from of [1, 2, 3, 4, 5]) void reads.read(request({ from })).then(() => done.push(from));
    await time.settle();
    expect(watched.reads).toHaveLength(3);
    answers[1]?.(); // answers come in any order
    await time.settle();
    expect([done, watched.reads.length]).toEqual([[2], 4]);
    for (let next = answers.shift(); next; next = answers.shift()) {
      next();
      await time.settle();
    }
    expect(done.toSorted()).toEqual([1, 2, 3, 4, 5]);
  });

  test("that fail make room for those that wait", async () => {
    const { watched, time, reads } = await setUp({ readsAtOnceMax: 2 });
    watched.onRead = failing(new DbError("io", "1"), new DbError("io", "2"));
    const outcomes = Promise.allSettled([1, 2, 3, 4].map((from) => reads.read(request({ from }))));
    await time.settle();
    expect((await outcomes).map(({ status }) => status)).toEqual([
      "rejected",
      "rejected",
      "fulfilled",
      "fulfilled",
    ]);
  });

  test("reads nothing before its turn and nothing that nobody has asked for", async () => {
    const { watched, time, reads } = await setUp();
    void reads.read(request());
    expect(watched.reads).toEqual([]);
    await time.advance(60_000);
    expect(watched.reads).toHaveLength(1);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("brings what was appended before its turn", async () => {
    const { reads, produce } = await setUp();
    await produce(1);
    expect(await reads.read(request())).toMatchObject({ count: 11, logEndOffset: 11 });
  });

  test("reads again for who asks when the read has begun", async () => {
    const { watched, reads } = await setUp();
    let again: Promise<unknown> | undefined;
    watched.onRead = () => {
      watched.onRead = undefined;
      again = reads.read(request());
    };
    const first = await reads.read(request());
    expect(await again).toEqual(first);
    expect(await again).not.toBe(first);
    expect(watched.reads).toHaveLength(2);
  });

  test("does not keep what it has read", async () => {
    const { watched, reads, produce } = await setUp();
    await reads.read(request());
    await produce(2);
    expect(await reads.read(request())).toMatchObject({ count: 12 });
    expect(watched.reads).toHaveLength(2);
  });

  test("that fails fails for all who shared it and for nobody else, and the next works", async () => {
    const { watched, reads } = await setUp();
    watched.onRead = failing(new DbError("io", "scripted"));
    const outcomes = await Promise.allSettled([
      reads.read(request()),
      reads.read(request()),
      reads.read(request({ from: 4 })),
    ]);
    expect(outcomes).toMatchObject([
      { status: "rejected", reason: { failure: "io" } },
      { status: "rejected", reason: { failure: "io" } },
      { status: "fulfilled", value: { count: 6 } },
    ]);
    expect(await reads.read(request())).toMatchObject({ count: 10 });
  });

  test("says unknown_partition where the partition is gone", async () => {
    const { reads } = await setUp();
    const outcome = await reads.read(request({ partitionId: 99 })).catch((error: unknown) => error);
    expect(outcome).toMatchObject({ name: "Problem", code: "unknown_partition" });
    expect(await reads.read(request())).toMatchObject({ count: 10 });
  });
});
