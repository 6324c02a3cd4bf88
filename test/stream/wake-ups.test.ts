import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { type Db, DbError } from "../../src/store/db.ts";
import { Topics } from "../../src/store/topics.ts";
import { WakeUps } from "../../src/stream/wake-ups.ts";
import { failing, openQueue, openTestDatabase, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";

const database = await openTestDatabase();
/** As another process has it: what it appends nobody here is told of. */
const otherQueue = openQueue(await database.openSecond());

afterAll(() => database.close());
beforeEach(() => database.empty());

/** Partitions 1, 2 and 3, each of a topic of its own. */
async function setUp(change: (db: WatchedDb) => Db = (db) => db) {
  const topics = new Topics({
    db: database.db,
    queue: openQueue(database.db),
    scheduler: new FakeTime(),
    createsOnFirstUse: true,
  });
  for (const topic of ["a", "b", "c"]) await topics.put(topic, 1);
  const watched = new WatchedDb(database.db);
  const time = new FakeTime();
  const log: string[] = [];
  const wakeUps = new WakeUps({ db: change(watched), scheduler: time, log: (event) => log.push(event) });
  const woken: string[] = [];
  const wait = (name: string, partitionId: number, position: number) =>
    wakeUps.wait(partitionId, position, () => woken.push(name));
  return { watched, time, log, wakeUps, woken, wait };
}

const openElsewhere = () =>
  new Topics({ db: database.db, queue: otherQueue, scheduler: new FakeTime(), createsOnFirstUse: false });

async function appendElsewhere(topic: "a" | "b" | "c", count = 1): Promise<void> {
  const values = Array.from({ length: count }, () => ({ value: 1 }));
  const records = parseJsonProduce(JSON.stringify({ records: values })).records;
  const found = await openElsewhere().require(topic);
  await otherQueue.submit(appendRecords(found, [{ partition: 0, records }]));
}

describe("WakeUps.notify()", () => {
  test("wakes whoever waits at a position below the log end, once", async () => {
    const { wakeUps, woken, wait } = await setUp();
    wait("at 0", 1, 0);
    wait("at 4", 1, 4);
    wakeUps.notify(1, 5);
    expect(woken).toEqual(["at 0", "at 4"]);
    wakeUps.notify(1, 9);
    expect(woken).toEqual(["at 0", "at 4"]);
  });

  test("wakes nobody at or above the log end, and nobody of another partition", async () => {
    const { wakeUps, woken, wait } = await setUp();
    wait("at 5", 1, 5);
    wait("at 6", 1, 6);
    wait("elsewhere", 2, 0);
    wakeUps.notify(1, 5);
    expect(woken).toEqual([]);
    wakeUps.notify(1, 6);
    expect(woken).toEqual(["at 5"]);
  });

  test("wakes nobody who has given up", async () => {
    const { wakeUps, woken, wait } = await setUp();
    wait("stays", 1, 0);
    wait("gives up", 1, 0)();
    wakeUps.notify(1, 1);
    expect(woken).toEqual(["stays"]);
  });

  test("lets a waiter that is woken wait again", async () => {
    const { wakeUps, woken, time } = await setUp();
    const waitFrom = (position: number): void =>
      void wakeUps.wait(1, position, () => {
        woken.push(`woken at ${position}`);
        waitFrom(position + 1);
      });
    waitFrom(0);
    for (const end of [1, 2, 3]) wakeUps.notify(1, end);
    await time.settle();
    expect(woken).toEqual(["woken at 0", "woken at 1", "woken at 2"]);
  });

  test("with nobody waiting costs nothing", async () => {
    const { wakeUps, watched, time } = await setUp();
    wakeUps.notify(1, 5);
    await time.advance(60_000);
    expect(time.pendingDelaysMs).toEqual([]);
    expect(watched.reads).toEqual([]);
  });
});

describe("WakeUps.wait()", () => {
  test("below a log end that was told already wakes in a turn of its own", async () => {
    const { wakeUps, woken, wait, time, watched } = await setUp();
    wakeUps.notify(1, 5);
    wait("late", 1, 3);
    expect(woken).toEqual([]);
    await time.settle();
    expect(woken).toEqual(["late"]);
    expect(watched.reads).toEqual([]);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("below a log end that was told already wakes nobody who has given up at once", async () => {
    const { wakeUps, woken, wait, time } = await setUp();
    wakeUps.notify(1, 5);
    wait("late", 1, 3)();
    await time.settle();
    expect(woken).toEqual([]);
  });

  test("at a log end that was told waits", async () => {
    const { wakeUps, woken, wait, time } = await setUp();
    wakeUps.notify(1, 5);
    wait("at the end", 1, 5);
    await time.advance(1_000);
    expect(woken).toEqual([]);
    wakeUps.notify(1, 6);
    expect(woken).toEqual(["at the end"]);
  });

  test("given up twice, or after it was woken, takes nothing from others", async () => {
    const { wakeUps, woken, wait } = await setUp();
    const giveUp = wait("first", 1, 0);
    wakeUps.notify(1, 1);
    wait("second", 1, 1);
    giveUp();
    giveUp();
    wakeUps.notify(1, 2);
    expect(woken).toEqual(["first", "second"]);
  });
});

describe("WakeUps.notifyGone()", () => {
  test("wakes all who wait there, once, whatever their position, and nobody else", async () => {
    const { wakeUps, woken, wait, time } = await setUp();
    for (const [name, partitionId, position] of [
      ["a", 1, 0],
      ["b", 1, 1_000],
      ["c", 2, 0],
      ["d", 3, 0],
    ] as const)
      wait(name, partitionId, position);
    wakeUps.notifyGone([1, 2, 99]);
    wakeUps.notifyGone([1]);
    expect(woken).toEqual(["a", "b", "c"]);
    await time.advance(1_000);
    expect(woken).toEqual(["a", "b", "c"]);
  });

  test("forgets what it knows of the partition", async () => {
    const { wakeUps, woken, wait, time } = await setUp();
    wakeUps.notify(1, 5);
    wakeUps.notifyGone([1]);
    wait("a", 1, 0);
    await time.settle();
    expect(woken).toEqual([]);
  });

  test("comes to an end where who is woken waits again at once", async () => {
    const { wakeUps } = await setUp();
    let wakes = 0;
    const waitAgain = (): void =>
      void wakeUps.wait(1, 0, () => {
        wakes += 1;
        if (wakes < 10) waitAgain();
      });
    for (let waiter = 0; waiter < 3; waiter += 1) waitAgain();
    wakeUps.notifyGone([1]);
    expect(wakes).toBe(3);
  });

  test("is what a poll does with a partition that another process has deleted", async () => {
    const { woken, wait, time, log } = await setUp();
    wait("a", 1, 0);
    wait("b", 2, 0);
    await time.advance(10);
    const elsewhere = openElsewhere();
    await elsewhere.delete("a");
    await time.advance(100);
    expect(woken).toEqual(["a"]);
    wait("too late", 1, 0);
    await time.advance(100);
    expect(woken).toEqual(["a", "too late"]);
    expect(log).toEqual([]);
  });
});

describe("WakeUps' polling", () => {
  test("does not happen while nobody waits", async () => {
    const { watched, time, wait, wakeUps } = await setUp();
    await time.advance(60_000);
    const giveUp = wait("gives up", 1, 0);
    wait("is woken", 2, 0);
    expect(time.pendingDelaysMs).toEqual([10]);
    giveUp();
    wakeUps.notify(2, 1);
    expect(time.pendingDelaysMs).toEqual([]);
    await time.advance(60_000);
    expect(watched.reads).toEqual([]);
  });

  test("comes every 10 ms, doubling to 50 ms", async () => {
    const { time, wait } = await setUp();
    wait("waits", 1, 0);
    const delays: (number | undefined)[] = [];
    for (let poll = 0; poll < 7; poll += 1) {
      delays.push(...time.pendingDelaysMs);
      await time.advance(time.pendingDelaysMs[0] ?? 0);
    }
    expect(delays).toEqual([10, 20, 40, 50, 50, 50, 50]);
  });

  test("starts anew at 10 ms when something has grown", async () => {
    const { time, wait, woken } = await setUp();
    wait("a", 1, 0);
    wait("b", 2, 0);
    await time.advance(950); // polls at 10, 30, 70, then every 50 ms
    expect(time.pendingDelaysMs).toEqual([50]);
    await appendElsewhere("a");
    await time.advance(20); // to 970
    expect(woken).toEqual(["a"]);
    expect(time.pendingDelaysMs).toEqual([10]);
  });

  test("finds what another process has appended, and not before it is due", async () => {
    const { time, wait, woken } = await setUp();
    wait("a", 1, 0);
    await appendElsewhere("a");
    await time.settle();
    expect(woken).toEqual([]);
    await time.advance(9);
    expect(woken).toEqual([]);
    await time.advance(1);
    expect(woken).toEqual(["a"]);
  });

  test("finds an append that was made before the first poll that sees the waiter", async () => {
    const { time, wait, woken } = await setUp();
    wait("a", 1, 0);
    await time.advance(1_000);
    await appendElsewhere("b"); // seen by a poll that asks for "a" only
    await time.advance(100);
    wait("b", 2, 0);
    await time.advance(100);
    expect(woken).toEqual(["b"]);
  });

  test("finds every append of many, one after the other", async () => {
    const { time, wakeUps, woken } = await setUp();
    const waitFrom = (position: number): void =>
      void wakeUps.wait(1, position, () => {
        woken.push(`at ${position}`);
        waitFrom(position + 1);
      });
    waitFrom(0);
    for (let i = 0; i < 5; i += 1) {
      await appendElsewhere("a");
      await time.advance(100);
    }
    expect(woken).toEqual([0, 1, 2, 3, 4].map((position) => `at ${position}`));
  });

  test("asks one question for all partitions that somebody waits for, and only for these", async () => {
    const { time, wait, watched } = await setUp();
    for (let i = 0; i < 100; i += 1) {
      wait(`a ${i}`, 1, 0);
      wait(`b ${i}`, 2, 0);
    }
    await time.advance(10);
    expect(watched.reads).toHaveLength(1);
    expect(JSON.parse(String(watched.reads[0]?.args?.partition_ids))).toEqual([1, 2]);
  });

  test("asks nothing while nobody has committed anything", async () => {
    const { time, wait, watched } = await setUp();
    wait("a", 1, 0);
    await time.advance(10_000);
    expect(watched.reads).toHaveLength(1);
    await database.pass(1); // any commit
    await time.advance(100);
    expect(watched.reads).toHaveLength(2);
  });

  test("does not wake anybody for a commit that is no append, nor for an append elsewhere", async () => {
    const { time, wait, woken } = await setUp();
    wait("a", 1, 0);
    await time.advance(10);
    await database.pass(1);
    await appendElsewhere("b");
    await time.advance(1_000);
    expect(woken).toEqual([]);
  });

  test("asks each time where the database cannot tell whether anybody has committed", async () => {
    const { time, wait, watched, woken } = await setUp((db) => ({
      durability: "fsync",
      isShared: true,
      readsAtOnceMax: 1,
      read: (statement) => db.read(statement),
      write: (statements) => db.write(statements),
      script: (sql) => db.script(sql),
      close: () => db.close(),
    }));
    wait("a", 1, 0);
    await time.advance(10 + 20 + 40);
    expect(watched.reads).toHaveLength(3);
    await appendElsewhere("a");
    await time.advance(80);
    expect(woken).toEqual(["a"]);
  });

  test("goes on after a poll that failed, and still finds what that one would have found", async () => {
    const { time, wait, watched, woken, log } = await setUp();
    watched.onRead = failing(new DbError("io", "scripted"));
    wait("a", 1, 0);
    await appendElsewhere("a");
    await time.advance(10);
    expect(log).toEqual(["poll failed"]);
    expect(woken).toEqual([]);
    await time.advance(1_000);
    expect(woken).toEqual(["a"]);
    expect(log).toEqual(["poll failed"]);
  });

  test("goes on after a poll could not tell whether anybody has committed", async () => {
    const { time, wait, watched, woken, log } = await setUp();
    const dataVersion = watched.dataVersion.bind(watched);
    watched.dataVersion = () => Promise.reject(new DbError("io", "scripted"));
    wait("a", 1, 0);
    await appendElsewhere("a");
    await time.advance(10);
    expect(log).toEqual(["poll failed"]);
    watched.dataVersion = dataVersion;
    await time.advance(20);
    expect(woken).toEqual(["a"]);
  });

  test("is never done twice at once, however waiters come and go while it is under way", async () => {
    const { time, wait, watched } = await setUp();
    const held: (() => void)[] = [];
    watched.onRead = () => new Promise<void>((resolve) => held.push(resolve));
    const giveUp = wait("first", 1, 0);
    await time.advance(10);
    expect(held).toHaveLength(1);
    giveUp();
    wait("second", 1, 0);
    held[0]?.();
    await time.settle();
    expect(time.pendingDelaysMs).toHaveLength(1);
    wait("third", 1, 0);
    expect(time.pendingDelaysMs).toHaveLength(1);
  });

  test("stops when the last waiter gives up while it is under way", async () => {
    const { time, wait, watched } = await setUp();
    const held: (() => void)[] = [];
    watched.onRead = () => new Promise<void>((resolve) => held.push(resolve));
    const giveUp = wait("first", 1, 0);
    await time.advance(10);
    giveUp();
    held[0]?.();
    await time.advance(60_000);
    expect(time.pendingDelaysMs).toEqual([]);
    expect(held).toHaveLength(1);
  });

  test("leaves alone what has been told in the meantime", async () => {
    const { time, wait, watched, wakeUps, woken } = await setUp();
    await appendElsewhere("a", 3);
    wait("a", 1, 0);
    watched.onRead = () => wakeUps.notify(1, 5); // while the poll is under way; it will find 3
    await time.advance(10);
    expect(woken).toEqual(["a"]);
    watched.onRead = undefined;
    wait("below 5", 1, 4);
    await time.settle();
    expect(woken).toEqual(["a", "below 5"]);
  });
});
