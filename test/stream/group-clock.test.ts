import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import type { MembershipRef } from "../../src/core/session/state.ts";
import { DbError } from "../../src/store/db.ts";
import { WriteQueue } from "../../src/store/write-queue.ts";
import { GroupClock } from "../../src/stream/group-clock.ts";
import { failing, openTestDatabase, START_MS, WatchedDb } from "../support/database.ts";
import { FakeTime, fakeChance } from "../support/fake-time.ts";

const database = await openTestDatabase();
afterAll(() => database.close());
beforeEach(() => database.empty());

const TIMEOUT_MS = 45_000;
const HEARTBEAT_MS = 15_000;
const SLACK_MS = 50;
const RETRY_MS = 1_000;
const STANDSTILL_MS = 2_000;

/** A clock; `own` are the members of its process. What it finds due is carried out by deleting it. */
function setUp({
  own = [],
  processId = null,
}: {
  own?: readonly MembershipRef[];
  processId?: string | null;
} = {}) {
  const watched = new WatchedDb(database.db);
  const time = new FakeTime((ms) => database.pass(ms));
  const log: string[] = [];
  const due: string[] = [];
  let mayExpireWhenDue: boolean | undefined;
  let carriesOut = true;
  const queue = new WriteQueue({
    db: watched,
    scheduler: time,
    chance: fakeChance(),
    log: (event) => log.push(event),
  });
  const clock: GroupClock = new GroupClock({
    db: watched,
    queue,
    scheduler: time,
    log: (event) => log.push(event),
    ownMembers: () => own,
    processId,
    onOutageOver: () => {},
    onDue: (groups) => {
      due.push(...groups.map((group) => `${time.nowMs()} ${group}`));
      mayExpireWhenDue = clock.mayExpire(START_MS + time.nowMs());
      if (carriesOut)
        void database.run(`DELETE FROM members WHERE group_id IN (${groups.map((each) => `'${each}'`)})`);
    },
  });
  return {
    watched,
    time,
    log,
    due,
    clock,
    mayExpireWhenDue: () => mayExpireWhenDue,
    leaveUndone: () => {
      carriesOut = false;
    },
  };
}

let memberships = 0;

/** A member whose lease runs out so much later. */
async function insertMember(
  group: string,
  expiresInMs: number,
  options: { processId?: string; instanceId?: string } = {},
) {
  memberships += 1;
  const { processId = null, instanceId = null } = options;
  await database.run("INSERT OR IGNORE INTO groups (group_id, version, created_at) VALUES (:group, 1, 0)", {
    group,
  });
  await database.run(
    `INSERT INTO members (group_id, member_id, membership, instance_id, topics, session_timeout_ms, joined_at,
                          lease_expires_at, process_id)
     SELECT :group, 'm', :membership, :instance, '["orders"]', ${TIMEOUT_MS}, 0, now_ms + :expires, :process FROM clock`,
    { group, membership: memberships, instance: instanceId, expires: expiresInMs, process: processId },
  );
  return { group, memberId: "m", membership: memberships };
}

const leasesInMs = async () =>
  (
    await database.rows(
      "SELECT l.expires_at - now_ms AS left_ms FROM member_leases AS l, clock ORDER BY l.group_id",
    )
  ).map(({ left_ms }) => left_ms);

describe("GroupClock.look()", () => {
  test("tells of every group with something due, and looks again when the next thing is", async () => {
    const { clock, due, time } = setUp();
    await insertMember("a", 0);
    await insertMember("b", 4_000);
    await insertMember("c", 9_000);
    await clock.look();
    expect(due).toEqual(["0 a"]);
    await time.advance(10_000);
    expect(due).toEqual(["0 a", `${4_000 + SLACK_MS} b`, `${9_000 + SLACK_MS} c`]);
    await time.advance(60_000);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("finds deadlines of revocations as well as leases", async () => {
    const { clock, due, time, leaveUndone } = setUp();
    leaveUndone();
    await insertMember("a", TIMEOUT_MS);
    await database.run("INSERT INTO topics (topic, partition_count, created_at) VALUES ('orders', 1, 0)");
    await database.run("INSERT INTO partitions (topic_id, partition) SELECT topic_id, 0 FROM topics");
    await database.run(
      `INSERT INTO assignments (group_id, partition_id, member_id, generation, revoke_deadline)
       SELECT 'a', partition_id, 'm', 2, :deadline FROM partitions`,
      { deadline: START_MS + 5_000 },
    );
    await clock.look();
    await time.advance(5_000 + SLACK_MS);
    expect(due).toEqual([`${5_000 + SLACK_MS} a`]);
  });

  test("looks every second at what was due and is not done", async () => {
    const { clock, due, time, leaveUndone } = setUp();
    leaveUndone();
    await insertMember("a", 0);
    await clock.look();
    await time.advance(3 * (RETRY_MS + SLACK_MS));
    expect(due).toHaveLength(4);
  });

  test("of nothing waits for nothing", async () => {
    const { clock, time, watched } = setUp();
    await clock.look();
    expect(time.pendingDelaysMs).toEqual([]);
    expect(watched.writes).toEqual([]);
  });

  test("is not done twice at once, and what is expected meanwhile is looked at after it", async () => {
    const { clock, time, watched } = setUp();
    let answer = () => {};
    watched.onRead = () =>
      new Promise<void>((resolve) => {
        answer = resolve;
      });
    const looking = clock.look();
    await clock.look();
    clock.expectIn(3_000);
    clock.expectIn(2_000);
    expect(watched.reads).toHaveLength(1);
    expect(time.pendingDelaysMs).toEqual([]);
    watched.onRead = undefined;
    answer();
    await looking;
    expect(time.pendingDelaysMs).toEqual([2_000 + SLACK_MS]);
  });

  test("that fails is done again after a second, when everybody has had another heartbeat", async () => {
    const { clock, due, time, watched, log } = setUp();
    await insertMember("a", 0);
    watched.onRead = failing(new DbError("io", "scripted"));
    await clock.look();
    expect(log).toEqual(["leases could not be looked at"]);
    expect(clock.mayExpire(START_MS + time.nowMs())).toBe(false);
    await time.advance(RETRY_MS + SLACK_MS);
    expect(due).toEqual([]);
    expect(await leasesInMs()).toEqual([HEARTBEAT_MS]);
    expect(clock.mayExpire(START_MS + time.nowMs())).toBe(true);
    await time.advance(HEARTBEAT_MS + SLACK_MS);
    expect(due).toHaveLength(1);
  });
});

describe("GroupClock.expectIn()", () => {
  test("looks at the earliest of what is expected", async () => {
    const { clock, time, watched } = setUp();
    for (const ms of [9_000, 3_000, 5_000]) clock.expectIn(ms);
    expect(time.pendingDelaysMs).toEqual([3_000 + SLACK_MS]);
    await time.advance(3_000 + SLACK_MS);
    expect(watched.reads).toHaveLength(1);
    await time.advance(20_000);
    expect(watched.reads).toHaveLength(1); // it has asked the database what is next: nothing
  });
});

describe("after an outage", () => {
  test("own members have their whole session timeout again, others at least a heartbeat, and nobody is ended", async () => {
    const own = await insertMember("a", 1_000);
    const { clock, due, time, log } = setUp({ own: [own] });
    await insertMember("b", 1_000);
    await insertMember("c", 40_000);
    clock.noteOutage();
    expect(clock.mayExpire(START_MS + time.nowMs())).toBe(false);
    await time.advance(RETRY_MS + SLACK_MS);
    expect(log).toEqual(["leases renewed after an outage"]);
    expect(due).toEqual([]);
    expect(await leasesInMs()).toEqual([TIMEOUT_MS, HEARTBEAT_MS, 40_000 - RETRY_MS - SLACK_MS]);
    expect(clock.mayExpire(START_MS + time.nowMs())).toBe(true);
  });

  test("that lasts everybody is renewed when it is over, not before", async () => {
    const own = await insertMember("a", 5_000);
    const { clock, due, time, watched } = setUp({ own: [own] });
    watched.onWrite = () => {
      throw new DbError("io", "scripted");
    };
    clock.noteOutage();
    await time.advance(30_000);
    expect(await leasesInMs()).toEqual([-25_000]);
    expect([due, clock.mayExpire(START_MS + time.nowMs())]).toEqual([[], false]);
    watched.onWrite = undefined;
    await time.advance(RETRY_MS + SLACK_MS);
    expect(clock.mayExpire(START_MS + time.nowMs())).toBe(true);
    expect(due).toEqual([]);
    expect(Number((await leasesInMs())[0])).toBeGreaterThan(TIMEOUT_MS - 2 * RETRY_MS);
  });

  test("renews the process too, on whose lease its members hang", async () => {
    const own = await insertMember("a", TIMEOUT_MS, { processId: "p" });
    const { clock, time } = setUp({ own: [own], processId: "p" });
    clock.noteOutage();
    await time.advance(RETRY_MS + SLACK_MS);
    expect(await leasesInMs()).toEqual([HEARTBEAT_MS]); // more than the lease of a process
  });

  test("gives the processes of others a heartbeat of their members", async () => {
    const { clock, time } = setUp({ processId: "p" });
    await insertMember("a", TIMEOUT_MS, { processId: "other" });
    await database.run(
      "INSERT INTO processes (process_id, lease_expires_at) SELECT 'other', now_ms + 500 FROM clock",
    );
    clock.noteOutage();
    await time.advance(RETRY_MS + SLACK_MS);
    expect(await leasesInMs()).toEqual([HEARTBEAT_MS]);
  });
});

describe("a process that stood still", () => {
  test("renews before it ends anybody: what was late may have been late for all", async () => {
    const own = await insertMember("a", 10_000);
    const { clock, due, time, log } = setUp({ own: [own] });
    await clock.look();
    await database.pass(STANDSTILL_MS + 30_000); // the database's clock went on, the process's did not
    await time.advance(10_000 + SLACK_MS);
    expect(log).toEqual(["leases renewed after an outage"]);
    expect(due).toEqual([]);
    expect(await leasesInMs()).toEqual([TIMEOUT_MS]);
  });

  test("for a moment is no outage", async () => {
    const own = await insertMember("a", 10_000);
    const { clock, due, time, log, mayExpireWhenDue } = setUp({ own: [own] });
    await clock.look();
    await database.pass(STANDSTILL_MS - 100);
    await time.advance(10_000 + SLACK_MS);
    expect(log).toEqual([]);
    expect([due.length, mayExpireWhenDue()]).toEqual([1, true]);
  });
});

describe("processes that share a database", () => {
  test("have the members of one that is gone ended, but for its static ones", async () => {
    const { clock, due, time } = setUp({ processId: "p" });
    await insertMember("a", TIMEOUT_MS, { processId: "dead" });
    await insertMember("b", TIMEOUT_MS, { processId: "dead", instanceId: "tab-7" });
    await database.run(
      "INSERT INTO processes (process_id, lease_expires_at) SELECT 'dead', now_ms + 3000 FROM clock",
    );
    await clock.look();
    await time.advance(3_000 + SLACK_MS);
    expect(due).toEqual([`${3_000 + SLACK_MS} a`]);
    await time.advance(20_000);
    expect(due).toHaveLength(1);
  });

  test("have the members of one that has stopped and is forgotten ended, at once", async () => {
    const { clock, due } = setUp({ processId: "p" });
    await insertMember("a", TIMEOUT_MS, { processId: "stopped" });
    expect(Number((await leasesInMs())[0])).toBeLessThanOrEqual(0);
    await clock.look();
    expect(due).toEqual(["0 a"]);
  });
});

describe("GroupClock.pause()", () => {
  test("looks no more, whatever is expected, until it is resumed", async () => {
    const { clock, due, time, watched } = setUp();
    await insertMember("a", 1_000);
    await clock.look();
    clock.pause();
    clock.expectIn(500);
    clock.noteOutage();
    await clock.look();
    await time.advance(10_000);
    expect(watched.reads).toHaveLength(1);
    expect(due).toEqual([]);
    clock.resume();
    await time.settle();
    expect(watched.reads.length).toBeGreaterThan(1);
  });

  test("while it looks ends with that look", async () => {
    const { clock, time, watched } = setUp();
    await insertMember("a", 5_000);
    let answer = () => {};
    watched.onRead = () =>
      new Promise<void>((resolve) => {
        answer = resolve;
      });
    const looking = clock.look();
    clock.pause();
    answer();
    await looking;
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("is no standstill: time that passes while it is paused is held against nobody it should not be", async () => {
    const { clock, due, time, log } = setUp();
    await insertMember("a", 5_000);
    await clock.look();
    clock.pause();
    await time.advance(60_000);
    clock.resume();
    await time.settle();
    expect(log).toEqual([]);
    expect(due).toEqual(["60000 a"]);
  });
});
