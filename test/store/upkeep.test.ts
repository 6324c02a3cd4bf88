import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { DbError } from "../../src/store/db.ts";
import { Topics } from "../../src/store/topics.ts";
import { Upkeep, type UpkeepDeps } from "../../src/store/upkeep.ts";
import { UPKEEP_LEASE_MS } from "../../src/store/upkeep-lease.ts";
import { FIRST_RECORDS, STEP_MS } from "../../src/store/upkeep-steps.ts";
import { WriteQueue } from "../../src/store/write-queue.ts";
import { failing, openTestDatabase, WatchedDb } from "../support/database.ts";
import { FakeTime, fakeChance, turnOfTheLoop } from "../support/fake-time.ts";
import { keyed, openLogLife, values } from "../support/log-life.ts";

const LOOK_AFTER_MS = 250;
const LOOK_EVERY_MS = 60_000;
const HOURLY_MS = 3_600_000;
const STEPS_IN_A_ROW = 10;
const REST_MAX_MS = 1_000;

const database = await openTestDatabase();
const life = openLogLife(database);
const { put, append, offsets, check } = life;
afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  life.forget();
});

/** Time that passes while the database writes, too. */
class WorkingTime extends FakeTime {
  workedMs = 0;

  override nowMs(): number {
    return super.nowMs() + this.workedMs;
  }
}

/** A server: its upkeep, its queue and its time. */
function server(about: Partial<UpkeepDeps> & { isShared?: boolean } = {}) {
  const { isShared = false, ...others } = about;
  const db = new WatchedDb(database.db, { isShared });
  const time = new WorkingTime((passed) => database.pass(passed));
  const log: string[] = [];
  const deps = { db, scheduler: time, chance: fakeChance(), log: (event: string) => log.push(event) };
  const queue = new WriteQueue(deps);
  const upkeep = new Upkeep({
    ...deps,
    queue,
    processId: null,
    offsetRetentionMs: null,
    hasTimers: true,
    ...others,
  });
  /** Each write takes so long. */
  const takes = (ms: number) => {
    db.onWrite = async () => {
      time.workedMs += ms;
      await database.pass(ms);
    };
  };
  return { db, time, log, queue, upkeep, takes };
}

/** What steps were taken: of which partitions, and how large. */
function stepsOf({ writes }: WatchedDb): readonly { partition: unknown; records: unknown }[] {
  return writes.flatMap((write) => {
    const bounded = write.find(({ sql }) =>
      /UPDATE (trim_steps|compactions)\s+SET (before|step_end)/.test(sql),
    );
    return bounded ? [{ partition: bounded.args?.partition_id, records: bounded.args?.records_max }] : [];
  });
}

const partitionsOf = (db: WatchedDb) => stepsOf(db).map(({ partition }) => partition);

describe("Upkeep looks", () => {
  test("a quarter of a second after an append, once after many", async () => {
    const { db, time, upkeep } = server();
    await put({ retention: { records: 2 } });
    upkeep.wake();
    await time.settle();
    await append(values(3));
    upkeep.noteAppend();
    await time.advance(LOOK_AFTER_MS - 100);
    await append(values(3));
    upkeep.noteAppend();
    await time.advance(99);
    expect(stepsOf(db)).toEqual([]);
    await time.advance(1);
    expect(await offsets()).toEqual([4, 5]);
    expect(stepsOf(db)).toHaveLength(1);
    await upkeep.stop();
  });

  test("at once when it is woken, and a quarter of a second after that when it was at work", async () => {
    const { db, time, upkeep } = server();
    await put({ retention: { records: 2 } });
    await append(values(3));
    let appended: Promise<unknown> | undefined;
    db.onWrite = () => {
      appended ??= append(values(3)).then(() => upkeep.noteAppend());
    };
    upkeep.wake();
    await time.settle();
    await appended;
    await time.advance(LOOK_AFTER_MS);
    expect(await offsets()).toEqual([4, 5]);
    await upkeep.stop();
  });

  test("no more where there is nothing, once an hour for producers, once a minute for retention", async () => {
    const { time, upkeep } = server();
    await put({});
    await append(values(3));
    expect(await upkeep.run()).toEqual({ isDone: true, nextInMs: undefined });
    await database.run("INSERT INTO producers SELECT 'p', 0, 1, now_ms FROM clock");
    expect(await upkeep.run()).toEqual({ isDone: true, nextInMs: HOURLY_MS });
    await put({ retention: { records: 5 } });
    expect(await upkeep.run()).toEqual({ isDone: true, nextInMs: LOOK_EVERY_MS });
    upkeep.wake();
    await time.settle();
    expect(time.pendingDelaysMs).toEqual([LOOK_EVERY_MS]);
    await append(values(9)); // another process
    await time.advance(LOOK_EVERY_MS - 1);
    expect(await offsets()).toHaveLength(12);
    await time.advance(1);
    expect(await offsets()).toHaveLength(5);
    await upkeep.stop();
  });

  test("an hour after a producer has written, and no sooner for one that writes while it looks", async () => {
    const { time, upkeep, db } = server();
    db.onRead = () => upkeep.noteProducer();
    upkeep.wake();
    await time.settle();
    expect(time.pendingDelaysMs).toEqual([HOURLY_MS]);
    await upkeep.stop();
  });

  test.each([
    [1, 250],
    [100_000, 1_000],
    [7 * 86_400_000, 60_000],
    [Number.MAX_SAFE_INTEGER, 60_000],
  ])("a hundred times in the %p ms that something waits: every %p ms", async (ms, everyMs) => {
    const { upkeep } = server();
    await put({ retention: { ms } });
    expect((await upkeep.run()).nextInMs).toBe(LOOK_EVERY_MS);
    await append(values(1));
    expect((await upkeep.run()).nextInMs).toBe(everyMs);
    await database.pass(Math.min(ms, 200_000_000));
    await upkeep.run();
    if (ms < LOOK_EVERY_MS) expect((await upkeep.run()).nextInMs).toBe(LOOK_EVERY_MS);
  });

  test("no more often for what another topic would have to wait for", async () => {
    const { upkeep } = server();
    await put({ retention: { ms: 1_000 } }, "short");
    await put({ retention: { ms: 1_000_000 } });
    await append(values(1));
    expect((await upkeep.run()).nextInMs).toBe(10_000);
    await put({ cleanup: "compact", compaction: { tombstoneMs: 0 } }, "compacted");
    await append([{ key: "k", value: null }], 0, "compacted");
    expect((await upkeep.run()).nextInMs).toBe(10_000); // the last record stays
  });
});

describe("Upkeep takes a fifth of the time", () => {
  test.each([
    [10, 40],
    [400, REST_MAX_MS],
  ])("a step of %p ms is followed by a rest of %p ms", async (tookMs, restMs) => {
    const { db, time, upkeep, takes } = server();
    await put({ retention: { records: 1 } });
    await append(values(3_000));
    takes(tookMs);
    upkeep.wake();
    await time.settle();
    expect(stepsOf(db)).toHaveLength(1);
    expect(time.pendingDelaysMs).toEqual([restMs]);
    await time.advance(restMs - 1);
    expect(stepsOf(db)).toHaveLength(1);
    await time.advance(1);
    expect(stepsOf(db)).toHaveLength(2);
    await upkeep.stop();
  });

  test("a step is followed by a checkpoint in its own turn, and a rest from that too", async () => {
    const { db, time, upkeep, takes } = server();
    const done: string[] = [];
    const checkpoint = async () => {
      done.push(`checkpoint at ${time.nowMs()}`);
      time.workedMs += 2;
    };
    Object.assign(db, { space: { freePages: async () => 0, giveBack: async () => {}, checkpoint } });
    await put({ retention: { records: 1 } });
    await append(values(10));
    takes(3);
    const run = upkeep.run().then(() => done.push(`done at ${time.nowMs()}`));
    await time.advance(1_000);
    await run;
    expect(stepsOf(db)).toHaveLength(1);
    expect(done).toEqual(["checkpoint at 15", "done at 25"]);
  });

  test("by steps that are larger where they are quick, and smaller where they are not", async () => {
    const { db, upkeep, takes, time } = server();
    await put({ retention: { records: 1 } });
    await append(values(5_000));
    await upkeep.run();
    expect(stepsOf(db).map(({ records }) => records)).toEqual([500, 750, 1_125, 1_688, 2_532]);
    db.writes.length = 0;
    await append(values(3_000));
    takes(10);
    upkeep.wake();
    await time.advance(1_000);
    expect(stepsOf(db).map(({ records }) => records)).toEqual([3_798]);
    await append(values(3_000));
    upkeep.wake();
    await time.advance(1_000);
    expect(stepsOf(db).map(({ records }) => records)).toEqual(
      [3_798, 1_899, 950, 475].slice(0, stepsOf(db).length),
    );
    await upkeep.stop();
  });
});

describe("Upkeep goes from partition to partition", () => {
  test("after ten steps, so that none has to wait for all of another", async () => {
    const { db, upkeep, takes, time } = server();
    takes(STEP_MS); // the size stays
    await put({ partitionCount: 2, retention: { records: 1 } });
    for (let batch = 0; batch < 3; batch += 1) await append(values(4_000));
    await append(values(2 * FIRST_RECORDS), 1);
    upkeep.wake();
    await time.advance(10_000);
    const inOrder = partitionsOf(db);
    expect(inOrder.slice(0, STEPS_IN_A_ROW + 3)).toEqual([
      ...Array.from({ length: STEPS_IN_A_ROW }, () => 1),
      2,
      2,
      1,
    ]);
    expect([await offsets(1), await offsets(2)].map(({ length }) => length)).toEqual([1, 1]);
    await check();
    await upkeep.stop();
  });

  test("of more than a look finds, each, though others always have something", async () => {
    const { db, upkeep } = server();
    await put({ partitionCount: 250, retention: { records: 2 } });
    for (let partition = 0; partition < 250; partition += 1) await append(values(5), partition);
    const pending: Promise<unknown>[] = [];
    db.onWrite = () => {
      const partitionId = Number(partitionsOf(db).at(-1));
      if (pending.length < 2_000) pending.push(append(values(5), partitionId - 1));
    };
    await upkeep.run();
    await Promise.all(pending);
    expect(partitionsOf(db)).toEqual(Array.from({ length: 250 }, (_, n) => n + 1));
  });

  test("of more than a look finds, all", async () => {
    const { upkeep } = server();
    await put({ partitionCount: 230, cleanup: "compact" });
    for (let partition = 0; partition < 230; partition += 1) await append(keyed("a", "a"), partition);
    await upkeep.run();
    expect(await database.rows("SELECT count(*) AS n FROM records")).toEqual([{ n: 230 }]);
  });
});

describe("While others go on appending", () => {
  test("a pass comes to its end, and to what is due once in a while", async () => {
    const { db, upkeep, time } = server();
    await put({ retention: { records: 2 } });
    await append(values(5));
    const insert = "INSERT INTO producers VALUES ('p', 0, 1, 0)";
    await database.run(insert);
    let appends = 0;
    const pending: Promise<unknown>[] = [];
    db.onWrite = (statements) => {
      if (!statements.some(({ sql }) => sql.includes("trim_steps"))) return;
      appends += 1;
      if (appends < 1_000) pending.push(append(values(5))); // written after the step
      upkeep.noteAppend();
    };
    upkeep.wake();
    for (let turn = 0; turn < 20; turn += 1) await time.settle();
    expect(appends).toBe(1);
    expect(await database.rows("SELECT * FROM producers")).toEqual([]);
    expect(time.pendingDelaysMs).toEqual([LOOK_AFTER_MS]);
    await time.advance(4 * LOOK_AFTER_MS);
    expect(appends).toBe(5);
    await Promise.all(pending);
    await upkeep.stop();
  });

  test("to look for what there is to do leaves turns of the event loop to others", async () => {
    const { db, upkeep } = server();
    const readsByTurn = new Map<number, number>();
    let turn = 0;
    db.onRead = () => void readsByTurn.set(turn, (readsByTurn.get(turn) ?? 0) + 1);
    let isDone = false;
    void upkeep.run().then(() => {
      isDone = true;
    });
    for (; !isDone; turn += 1) await turnOfTheLoop();
    expect([...readsByTurn.values()].slice(0, 4)).toEqual([1, 1, 1, 1]);
  });

  test("to look through names that are all in use leaves turns of the event loop to others", async () => {
    const { db, upkeep } = server();
    await database.run(
      `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 1999)
       INSERT INTO producers SELECT printf('p%04d', i), 0, 1, now_ms FROM n, clock`,
    );
    const readsByTurn: number[] = [];
    const running = upkeep.run();
    let isDone = false;
    void running.then(() => {
      isDone = true;
    });
    while (!isDone) {
      await turnOfTheLoop();
      readsByTurn.push(db.reads.filter(({ sql }) => sql.includes("FROM producers")).length);
    }
    const read = readsByTurn.map((reads, turn) => reads - (readsByTurn[turn - 1] ?? 0));
    expect(Math.max(...read)).toBeLessThanOrEqual(2);
    expect(readsByTurn.at(-1)).toBe(12); // and one whether there are any
    expect(db.writes).toEqual([]);
  });
});

describe("Upkeep that is stopped", () => {
  test("in a rest ends at once, after the step that is under way, and begins no other", async () => {
    const { db, time, upkeep, takes } = server();
    await put({ retention: { records: 1 } });
    await append(values(3_000));
    takes(100);
    upkeep.wake();
    await time.settle();
    const left = (await offsets()).length;
    await upkeep.stop();
    expect(stepsOf(db)).toHaveLength(1);
    expect(time.pendingDelaysMs).toEqual([]);
    upkeep.wake();
    upkeep.noteAppend();
    await time.advance(HOURLY_MS);
    expect((await offsets()).length).toBe(left);
    await check();
    await server().upkeep.run(); // the next start
    expect(await offsets()).toHaveLength(1);
  });
});

describe("run()", () => {
  test("without timers sets none, whatever happens", async () => {
    const { upkeep, time, db } = server({ hasTimers: false });
    await put({ retention: { records: 1 } });
    await append(values(3));
    upkeep.wake();
    upkeep.noteAppend();
    await time.advance(HOURLY_MS);
    expect(db.reads).toEqual([]);
    expect(await upkeep.run(1_000)).toEqual({ isDone: true, nextInMs: LOOK_EVERY_MS });
    expect(await offsets()).toHaveLength(1);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("begins nothing after its time, and says that there is more", async () => {
    const { upkeep, db, takes, time } = server({ hasTimers: false });
    await put({ retention: { records: 1 } });
    await append(values(5_000));
    takes(10);
    const running = upkeep.run(75);
    await time.advance(1_000);
    expect(await running).toEqual({ isDone: false, nextInMs: LOOK_AFTER_MS });
    expect(stepsOf(db)).toHaveLength(2); // 10 + 40 + 10 + 40
    await check();
    expect(await upkeep.run(0)).toEqual({ isDone: false, nextInMs: LOOK_AFTER_MS });
    expect(stepsOf(db)).toHaveLength(2);
  });

  test("twice at once is once after the other", async () => {
    const { upkeep, db } = server({ hasTimers: false });
    await put({ retention: { records: 1 } });
    await append(values(3));
    expect(await Promise.all([upkeep.run(), upkeep.run()])).toMatchObject([
      { isDone: true },
      { isDone: true },
    ]);
    expect(stepsOf(db)).toHaveLength(1);
  });

  test("rejects where the database fails, and the next does it", async () => {
    const { upkeep, db } = server({ hasTimers: false });
    await put({ retention: { records: 1 } });
    await append(values(3));
    db.onWrite = failing(new DbError("full", "scripted"));
    await expect(upkeep.run()).rejects.toMatchObject({ code: "storage_full" });
    await check();
    await upkeep.run();
    expect(await offsets()).toHaveLength(1);
  });
});

describe("Of two servers on a database", () => {
  const shared = (processId: string) => server({ isShared: true, processId });

  test("one works, the other comes again when the lease would be over", async () => {
    const [a, b] = [shared("a"), shared("b")];
    await put({ retention: { records: 1 } });
    await append(values(3));
    let second: unknown;
    a.db.onWrite = async (statements) => {
      if (second === undefined && statements.some(({ sql }) => sql.includes("trim_steps"))) {
        second = null;
        second = await b.upkeep.run();
      }
    };
    expect(await a.upkeep.run()).toMatchObject({ isDone: true });
    expect(second).toEqual({ isDone: false, nextInMs: UPKEEP_LEASE_MS });
    expect(stepsOf(b.db)).toEqual([]);
    expect(await database.rows("SELECT * FROM upkeep_lease")).toEqual([]);
    expect(await b.upkeep.run()).toMatchObject({ isDone: true });
  });

  test("one whose database is far away takes steps as large as any: the way does not count", async () => {
    const { db, upkeep, takes, time } = shared("a");
    await put({ retention: { records: 1 } });
    await append(values(3_000));
    takes(40);
    upkeep.wake();
    await time.advance(10_000);
    expect(stepsOf(db).map(({ records }) => records)).toEqual([500, 750, 1_125, 1_688]);
    await upkeep.stop();
  });

  test("one that has nothing to do takes no lease", async () => {
    const a = shared("a");
    await put({ retention: { records: 1 } });
    await database.run("INSERT INTO producers SELECT 'p', 0, 1, now_ms FROM clock");
    await a.upkeep.run();
    expect(a.db.writes).toEqual([]);
  });

  test("the other takes over when the first died, after the time of its lease", async () => {
    const [a, b] = [shared("a"), shared("b")];
    await put({ retention: { records: 1 } });
    await append(values(3));
    await database.run("INSERT INTO upkeep_lease SELECT 1, 'dead', now_ms + :ms FROM clock", {
      ms: UPKEEP_LEASE_MS,
    });
    b.upkeep.wake();
    for (let turn = 0; turn < 5; turn += 1) await b.time.settle();
    await b.time.advance(UPKEEP_LEASE_MS - 1);
    expect(await offsets()).toHaveLength(3);
    await b.time.advance(1);
    expect(await offsets()).toHaveLength(1);
    await b.upkeep.stop();
    await a.upkeep.stop();
  });

  test("the other takes over at once where the clock was set back behind the lease", async () => {
    const b = shared("b");
    await put({ retention: { records: 1 } });
    await append(values(3));
    await database.run("INSERT INTO upkeep_lease SELECT 1, 'dead', now_ms + 86400000 FROM clock");
    expect(await b.upkeep.run()).toMatchObject({ isDone: true });
    expect(await offsets()).toHaveLength(1);
  });

  test("the one that works keeps its lease, however long its steps and rests take", async () => {
    const a = shared("a");
    await put({ retention: { records: 1 } });
    await append(values(3_000));
    const left: unknown[] = [];
    a.db.onWrite = async (statements) => {
      if (!statements.some(({ sql }) => sql.includes("trim_steps"))) return;
      left.push(...(await database.rows("SELECT expires_at > now_ms AS is_held FROM upkeep_lease, clock")));
      a.time.workedMs += 300;
      await database.pass(300);
    };
    a.upkeep.wake();
    await a.time.advance(60_000);
    expect(left.length).toBeGreaterThan(STEPS_IN_A_ROW + 5);
    expect(left).toEqual(left.map(() => ({ is_held: 1 })));
    expect(await offsets()).toHaveLength(1);
    expect(await database.rows("SELECT * FROM upkeep_lease")).toEqual([]);
    await a.upkeep.stop();
  });

  test("both at once, after the lease was lost, do no harm", async () => {
    const [a, b] = [shared("a"), shared("b")];
    await put({ partitionCount: 3, cleanup: "compact", retention: { records: 3 } });
    for (let partition = 0; partition < 3; partition += 1)
      await append(keyed(..."abcabcdabefga".split("")), partition);
    a.db.onWrite = async () => {
      await database.run("DELETE FROM upkeep_lease");
    };
    b.db.onWrite = a.db.onWrite;
    await Promise.all([a.upkeep.run(), b.upkeep.run()]);
    await server().upkeep.run();
    await check();
    for (const partitionId of [1, 2, 3]) expect(await offsets(partitionId)).toEqual([10, 11, 12]);
  });
});

describe("What upkeep reads and writes", () => {
  /** With the clock that a real database has: it makes other plans. */
  test("is found by an index: no step and no look goes through a whole table or partition", async () => {
    const real = await openTestDatabase({ hasRealClock: true });
    const its = openLogLife(real);
    const db = new WatchedDb(real.db);
    const queue = new WriteQueue({ db, scheduler: new FakeTime(), chance: fakeChance(), log: () => {} });
    const topics = new Topics({ db: real.db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
    await topics.put("gone", 1);
    await its.append(values(3), 0, "gone");
    await topics.delete("gone");
    await topics.put("counted", 1, { retention: { records: 1, bytes: 1, ms: 1 } });
    await its.append(values(3), 0, "counted");
    await topics.put("compacted", 1, { cleanup: "compact", compaction: { tombstoneMs: 0, minLagMs: 0 } });
    await its.append([{ key: "a", value: null }, ...keyed("a", "b", "b")], 0, "compacted");
    await topics.put("no_longer", 1, { cleanup: "compact" });
    await its.append(keyed("a", "b"), 0, "no_longer");
    await its.run();
    await topics.put("no_longer", 1, { cleanup: "delete" });
    await its.append([{ key: "a", value: null }, ...keyed("b")], 0, "compacted");
    await its.append(values(3), 0, "counted");
    await real.run("INSERT INTO producers VALUES ('p', 0, 1, 0)");
    await real.run("INSERT INTO groups VALUES ('g', 1, 0)");
    db.reads.length = 0;
    db.writes.length = 0;
    const upkeep = new Upkeep({
      db,
      queue,
      scheduler: new FakeTime(),
      log: () => {},
      processId: "a",
      offsetRetentionMs: 1,
      hasTimers: false,
    });
    await upkeep.run();
    const statements = new Map(
      [...db.reads, ...db.writes.flat()].map((statement) => [statement.sql, statement]),
    );
    expect(statements.size).toBeGreaterThan(40);
    const scans: string[] = [];
    for (const { sql, args = {} } of statements.values())
      for (const { detail } of await real.rows(`EXPLAIN QUERY PLAN ${sql}`, args))
        if (String(detail).startsWith("SCAN ") && !isShort(String(detail))) scans.push(`${detail}: ${sql}`);
    expect(scans).toEqual([]);
    await real.close();
  });
});

/** Of what is scanned: there is one row, or as many as a step takes, or as there is to do. */
function isShort(scan: string): boolean {
  const short = [
    /^SCAN CONSTANT ROW/,
    /^SCAN \(subquery-\d+\)/,
    /^SCAN (c|clock|gone|newest|n|s|s2|superseded|guard|old|sequence|upkeep_lease|json_each)( |$)/,
    /^SCAN t USING COVERING INDEX topics_with_upkeep/,
    /^SCAN (d|purges)( |$)/, // partitions that are compacted, or are to be purged
    /^SCAN value|^SCAN json_each VIRTUAL TABLE/,
  ];
  return short.some((pattern) => pattern.test(scan));
}
