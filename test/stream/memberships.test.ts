import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import type { JoinRequest } from "../../src/core/group-picture.ts";
import type { OwnershipChange } from "../../src/core/ownership.ts";
import { Problem } from "../../src/core/problem.ts";
import type { JoinResult } from "../../src/core/session/events.ts";
import type { MembershipRef } from "../../src/core/session/state.ts";
import { type Db, DbError } from "../../src/store/db.ts";
import { Topics } from "../../src/store/topics.ts";
import { WriteQueue } from "../../src/store/write-queue.ts";
import { Memberships } from "../../src/stream/memberships.ts";
import { failing, openTestDatabase, START_MS, WatchedDb } from "../support/database.ts";
import { FakeTime, fakeChance } from "../support/fake-time.ts";

const database = await openTestDatabase();
const second = await database.openSecond();
afterAll(() => database.close());
beforeEach(() => database.empty());

const TIMEOUT_MS = 45_000;
const RETRY_MS = 1_000;
/** What a look at the leases waits beyond the one that is due. */
const SLACK_MS = 50;
const PROCESS_LEASE_MS = 10_000;
const REVOKE_DEADLINE_MS = 5_000;

type Request = Omit<JoinRequest, "newMemberId">;

interface Options {
  readonly db?: Db;
  readonly ids?: string;
  readonly createsOnFirstUse?: boolean;
  /** Of one of several servers on the database. */
  readonly processId?: string;
  readonly time?: FakeTime;
}

/** A server's memberships; the clocks of the database and of the server move together. */
function startServer(options: Options = {}) {
  const { db = database.db, ids = "id", createsOnFirstUse = true, processId = null } = options;
  const watched = new WatchedDb(db, { isShared: processId !== null });
  const time = options.time ?? new FakeTime((ms) => database.pass(ms));
  const events: string[] = [];
  const log = (event: string) => void events.push(event);
  const chance = fakeChance({ ids });
  const queue = new WriteQueue({ db: watched, scheduler: time, chance, log });
  const topics = new Topics({ db: watched, queue, scheduler: time, createsOnFirstUse });
  const memberships = new Memberships({
    db: watched,
    topics,
    queue,
    scheduler: time,
    chance,
    log,
    processId,
  });
  topics.onChange(({ topic }) => memberships.onTopicChange(topic));
  /** What members were told after they had joined, in order. */
  const told: string[] = [];
  const join = (request: Partial<Request> = {}, name = "member"): Promise<JoinResult> =>
    new Promise((resolve, reject) =>
      memberships.join(
        requestOf(request),
        {
          onJoined: resolve,
          onChange: (change) => told.push(`${name} ${textOf(change)}`),
          onEnd: (reason) => told.push(`${name} ${reason}`),
        },
        reject,
      ),
    );
  return { watched, time, events, queue, topics, memberships, told, join };
}

/** Two servers on one database, with clients. */
async function startTwoServers() {
  const time = new FakeTime((ms) => database.pass(ms));
  const here = startServer({ processId: "p-here", ids: "here", time });
  const there = startServer({ processId: "p-there", ids: "there", time, db: second });
  await here.topics.put("orders", 2);
  for (const { memberships } of [here, there]) {
    await memberships.begin();
    memberships.resume();
  }
  await time.settle();
  /** As the change poll of each does. */
  const poll = async () => {
    for (const { group_id, version } of await database.rows("SELECT group_id, version FROM groups"))
      for (const { memberships } of [here, there])
        memberships.onGroupChange(String(group_id), Number(version));
    await time.settle();
  };
  return { time, here, there, poll };
}

function requestOf(request: Partial<Request>): Request {
  return {
    group: "billing",
    topics: ["orders"],
    memberId: undefined,
    instanceId: undefined,
    policies: { missing: "earliest", outOfRange: "earliest" },
    sessionTimeoutMs: TIMEOUT_MS,
    ...request,
  };
}

/** Partitions by number; ids are one higher where the topic is the first. */
function textOf({ gained, revoked, lost }: OwnershipChange): string {
  return [
    ...gained.map(({ partition }) => `gained ${partition}`),
    ...revoked.map(({ partitionId, deadlineMs }) => `revoked ${partitionId - 1} in ${deadlineMs}`),
    ...lost.map(({ partitionId, reason }) => `lost ${partitionId - 1} ${reason}`),
  ].join(", ");
}

const refOf = ({ memberId, membership }: JoinResult, group = "billing"): MembershipRef => ({
  group,
  memberId,
  membership,
});

const ownedBy = ({ owned }: JoinResult) =>
  owned.gained.map(({ partitionId, generation }) => ({ partitionId, generation }));

const members = () => database.rows("SELECT group_id, member_id, membership FROM members ORDER BY group_id");
const memberIds = async () =>
  (await database.rows("SELECT member_id FROM members ORDER BY member_id")).map(({ member_id }) => member_id);
const owners = async (group = "billing") =>
  (
    await database.rows("SELECT member_id FROM assignments WHERE group_id = :group ORDER BY partition_id", {
      group,
    })
  ).map(({ member_id }) => member_id);

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "resolved",
    (error) => (error instanceof Problem ? error.code : `defect: ${error}`),
  );
}

describe("Memberships.join()", () => {
  test("brings the member's partitions and what its policies did", async () => {
    const { join, told, topics } = startServer();
    await topics.put("orders", 2);
    const result = await join();
    expect(result).toMatchObject({
      memberId: "id-1",
      membership: 1,
      owned: {
        gained: [
          { partition: 0, generation: 2, committedOffset: 0, reset: "earliest", unplaced: null },
          { partition: 1, generation: 3, reset: "earliest" },
        ],
        revoked: [],
        lost: [],
      },
    });
    expect(told).toEqual([]);
    expect(await members()).toEqual([{ group_id: "billing", member_id: "id-1", membership: 1 }]);
  });

  test("creates its topics where first use does", async () => {
    const { join } = startServer();
    const { owned } = await join({ topics: ["orders", "payments"] });
    expect(owned.gained.map(({ topic }) => topic)).toEqual(["orders", "payments"]);
    expect(await database.rows("SELECT topic FROM topics ORDER BY topic")).toEqual([
      { topic: "orders" },
      { topic: "payments" },
    ]);
  });

  test("of a topic that is not there says so and leaves nothing", async () => {
    const { join } = startServer({ createsOnFirstUse: false });
    expect(await codeOf(join())).toBe("unknown_topic");
    expect(await members()).toEqual([]);
    expect(await database.rows("SELECT * FROM groups")).toEqual([]);
  });

  test("of a topic that cannot be created says why", async () => {
    const { join, watched } = startServer();
    watched.onWrite = failing(new DbError("full", "scripted"));
    expect(await codeOf(join())).toBe("storage_full");
    expect(await codeOf(join())).toBe("resolved");
  });

  test("that cannot look for its topics says so", async () => {
    const { join, watched } = startServer();
    watched.onRead = failing(new DbError("io", "scripted"));
    expect(await codeOf(join())).not.toBe("resolved");
    expect(await codeOf(join())).toBe("resolved");
    expect(await members()).toHaveLength(1);
  });

  test("of a second member shares the partitions with the first, which is told to let go", async () => {
    const { join, told, topics, time } = startServer();
    await topics.put("orders", 2);
    await join({}, "first");
    const next = await join({}, "second");
    expect(next.owned).toEqual({ gained: [], revoked: [], lost: [] });
    await time.settle();
    expect(told).toEqual([`first revoked 1 in ${REVOKE_DEADLINE_MS}`]);
    expect(await owners()).toEqual(["id-1", "id-1"]); // until it has let go
    expect(await memberIds()).toEqual(["id-1", "id-2"]);
  });

  test("with an instanceId or a memberId that nobody has is a new member", async () => {
    const { join } = startServer();
    await join({ instanceId: "tab-7" });
    const { memberId } = await join({ memberId: "somebody", instanceId: "tab-9" });
    expect(memberId).toBe("id-2");
    expect((await join({ memberId: "tab-7" })).memberId).toBe("id-3");
    expect(await memberIds()).toEqual(["id-1", "id-2", "id-3"]);
  });

  test("by many at once goes to disk together and gives each its share", async () => {
    const { join, watched, topics, told } = startServer();
    await topics.put("orders", 20);
    const before = watched.writes.length;
    const results = await Promise.all(Array.from({ length: 10 }, () => join()));
    expect(watched.writes.length - before).toBe(1);
    expect(results.map(({ owned }) => owned.gained.length)).toEqual(Array.from({ length: 10 }, () => 2));
    const generations = results.flatMap(({ owned }) => owned.gained.map(({ generation }) => generation));
    expect(new Set(generations).size).toBe(20);
    expect(told).toEqual([]);
  });

  test("of many groups at once goes to disk together", async () => {
    const { join, watched, topics } = startServer();
    await topics.put("orders", 1);
    const before = watched.writes.length;
    const results = await Promise.all(Array.from({ length: 50 }, (_, i) => join({ group: `group-${i}` })));
    expect(watched.writes.length - before).toBe(1);
    expect(new Set(results.map(({ membership }) => membership)).size).toBe(50);
    expect(await members()).toHaveLength(50);
  });

  test("with the memberId of a member takes it over and tells the old one, once", async () => {
    const { join, told } = startServer();
    const first = await join({}, "first");
    const again = await join({ memberId: first.memberId }, "second");
    expect(again.memberId).toBe(first.memberId);
    expect(again.membership).toBeGreaterThan(first.membership);
    expect(again.owned.gained[0]?.generation).toBeGreaterThan(first.owned.gained[0]?.generation ?? 0);
    expect(told).toEqual(["first replaced"]);
    expect(await members()).toEqual([
      { group_id: "billing", member_id: first.memberId, membership: again.membership },
    ]);
  });

  test("with the instanceId of a member takes it over under a new id and tells the old one, once", async () => {
    const { join, told } = startServer();
    await join({ instanceId: "tab-7" }, "first");
    const again = await join({ instanceId: "tab-7" }, "second");
    expect(again.memberId).toBe("id-2");
    expect(told).toEqual(["first replaced"]);
    expect(await memberIds()).toEqual(["id-2"]);
  });

  test("that takes a member over moves nobody else", async () => {
    const { join, told, topics, time } = startServer();
    await topics.put("orders", 4);
    const [first, other] = await Promise.all([join({}, "first"), join({}, "other")]);
    const again = await join({ memberId: first.memberId }, "again");
    await time.settle();
    expect(again.owned.gained.map(({ partition }) => partition)).toEqual(
      first.owned.gained.map(({ partition }) => partition),
    );
    expect(told).toEqual(["first replaced"]);
    const kept = await database.rows(
      "SELECT partition_id AS partitionId, generation FROM assignments WHERE member_id = 'id-2'",
    );
    expect(kept).toEqual(ownedBy(other));
  });

  test("takes over again and again, and tells each holder once", async () => {
    const { join, told } = startServer();
    const { memberId } = await join({}, "0");
    for (const name of ["1", "2", "3"]) await join({ memberId }, name);
    expect(told).toEqual(["0 replaced", "1 replaced", "2 replaced"]);
  });

  test("takes over again and again, all at once, and leaves one holder", async () => {
    const { join, told, time } = startServer();
    const { memberId } = await join({}, "0");
    const results = await Promise.all(["1", "2", "3"].map((name) => join({ memberId }, name)));
    await time.settle();
    expect(told.toSorted()).toEqual(["0 replaced", "1 replaced", "2 replaced"]);
    expect(await members()).toMatchObject([{ member_id: memberId, membership: results[2]?.membership }]);
  });

  test("takes over in one group and leaves a member of the same name in another alone", async () => {
    const { join, told } = startServer();
    await join({ instanceId: "tab-7" }, "billing");
    await join({ group: "shipping", instanceId: "tab-7" }, "shipping");
    await join({ instanceId: "tab-7" }, "billing again");
    expect(told).toEqual(["billing replaced"]);
    expect(await members()).toHaveLength(2);
  });

  test("that fails in the database leaves nothing, and the next one goes on", async () => {
    const { join, watched, topics, told } = startServer();
    await topics.put("orders", 1);
    watched.onWrite = failing(new DbError("io", "scripted"));
    expect(await codeOf(join())).toBe("unavailable");
    expect(await members()).toEqual([]);
    expect(await codeOf(join())).toBe("resolved");
    expect(await members()).toHaveLength(1);
    expect(told).toEqual([]);
  });

  test("whose answer is lost is not taken for one that failed before it", async () => {
    const { join, watched, topics, time, told } = startServer();
    await topics.put("orders", 1);
    watched.onWrite = failing(new DbError("unknown", "scripted"));
    expect(await codeOf(join({}, "first"))).toBe("outcome_unknown");
    watched.onWrite = async (statements) => {
      watched.onWrite = undefined;
      await database.db.write(statements); // it is written, and repeated
      throw new DbError("unanswered", "scripted");
    };
    const second = await join({}, "second");
    await time.advance(RETRY_MS);
    expect(await memberIds()).toEqual([second.memberId]);
    expect(told).toEqual([]);
  });

  test("of a hundred groups with a thousand partitions each is too much for one write, and done all the same", async () => {
    const { join, topics, watched } = startServer();
    await topics.put("orders", 1_000);
    const before = watched.writes.length;
    const joined = await Promise.all(Array.from({ length: 100 }, (_, n) => join({ group: `g${n}` })));
    expect(joined.every(({ owned }) => owned.gained.length === 1_000)).toBe(true);
    expect(watched.writes.length - before).toBeGreaterThan(10);
  }, 20_000);

  test("by a policy of time looks up all partitions together", async () => {
    const { join, topics, watched } = startServer();
    await topics.put("orders", 200);
    watched.reads.length = 0;
    const policies = { missing: { ago: 60_000 }, outOfRange: "earliest" } as const;
    expect((await join({ policies })).owned.gained).toHaveLength(200);
    expect(watched.reads.length).toBeLessThan(10);
  });

  test("whose outcome is unknown leaves nobody behind: a member that was written is ended", async () => {
    const { join, watched, topics, time } = startServer();
    await topics.put("orders", 1);
    watched.onWrite = async (statements) => {
      watched.onWrite = undefined;
      await database.db.write(statements); // it was written, and the answer is lost
      throw new DbError("unknown", "scripted");
    };
    expect(await codeOf(join())).toBe("outcome_unknown");
    expect(await members()).toHaveLength(1);
    await time.advance(RETRY_MS);
    expect(await members()).toEqual([]);
  });

  test("whose outcome is unknown does not take the members with it that are held here", async () => {
    const { join, watched, topics, time, told } = startServer();
    await topics.put("orders", 1);
    const first = await join({}, "first");
    watched.onWrite = failing(new DbError("unknown", "scripted"));
    expect(await codeOf(join())).toBe("outcome_unknown");
    await time.advance(RETRY_MS);
    expect(await memberIds()).toEqual([first.memberId]);
    expect(told).toEqual([]);
  });
});

describe("Memberships.leave()", () => {
  test("ends the membership and tells nobody", async () => {
    const { join, memberships, told } = startServer();
    await memberships.leave(refOf(await join()));
    expect(await members()).toEqual([]);
    expect(told).toEqual([]);
  });

  test("gives what it had to those who stay, at once, who keep what they had", async () => {
    const { join, memberships, told, topics, time } = startServer();
    await topics.put("orders", 4);
    const [first, other] = await Promise.all([join({}, "first"), join({}, "other")]);
    await memberships.leave(refOf(first));
    await time.settle();
    const had = first.owned.gained.map(({ partition }) => `gained ${partition}`).join(", ");
    expect(told).toEqual([`other ${had}`]);
    expect(await owners()).toEqual(["id-2", "id-2", "id-2", "id-2"]);
    const rows = await database.rows("SELECT partition_id AS partitionId, generation FROM assignments");
    for (const kept of ownedBy(other)) expect(rows).toContainEqual(kept);
  });

  test("tells nobody, even when a renewal comes after it", async () => {
    const { join, memberships, told } = startServer();
    const member = refOf(await join());
    const left = memberships.leave(member);
    const renewed = memberships.renew(member);
    await Promise.all([left, renewed]);
    await memberships.renew(member);
    expect(told).toEqual([]);
  });

  test("and a join that is asked for right behind it are one change", async () => {
    const { join, memberships, watched } = startServer();
    const first = await join();
    const before = watched.writes.length;
    const left = memberships.leave(refOf(first));
    const next = await join();
    await left;
    expect(watched.writes.length - before).toBeLessThanOrEqual(2);
    expect(next.owned.gained.map(({ partition }) => partition)).toEqual([0]);
    expect(await memberIds()).toEqual(["id-2"]);
  });

  test("of a membership that was taken over does nothing to the new one", async () => {
    const { join, memberships, told } = startServer();
    const old = await join({}, "old");
    const taken = await join({ memberId: old.memberId }, "new");
    await memberships.leave(refOf(old));
    expect(await members()).toMatchObject([{ membership: taken.membership }]);
    await memberships.renew(refOf(taken));
    expect(told).toEqual(["old replaced"]);
  });

  test("that cannot be written says so, and is done when the database answers again", async () => {
    const { join, memberships, watched, time, told } = startServer();
    const leaving = await join({ sessionTimeoutMs: 300_000 }, "leaving");
    await join({}, "staying");
    await time.advance(RETRY_MS);
    watched.onRead = failing(new DbError("io", "scripted"));
    expect(await codeOf(memberships.leave(refOf(leaving)))).toBe("defect: DbError: scripted");
    await time.advance(RETRY_MS);
    expect(await memberIds()).not.toContain(leaving.memberId);
    expect(told.filter((line) => line.startsWith("leaving"))).toEqual([]);
  });

  test("that cannot be written says so, and the group goes on", async () => {
    const { join, memberships, watched } = startServer();
    const member = refOf(await join());
    watched.onWrite = failing(new DbError("full", "scripted"));
    expect(await codeOf(memberships.leave(member))).toBe("storage_full");
    expect(await members()).toHaveLength(1);
    await memberships.leave(member);
    expect(await members()).toEqual([]);
  });
});

describe("Memberships.release()", () => {
  test("hands a revoked partition on at once; the owner is told that it is gone, the next that it has come", async () => {
    const { join, memberships, told, topics, time } = startServer();
    await topics.put("orders", 2);
    const first = await join({}, "first");
    await join({}, "second");
    await time.settle();
    told.length = 0;
    await memberships.release(refOf(first), ownedBy(first).slice(1));
    await time.settle();
    expect(told).toEqual(["first lost 1 rebalance", "second gained 1"]);
    expect(await owners()).toEqual(["id-1", "id-2"]);
    expect(time.nowMs()).toBe(0);
  });

  test("of what is not revoked does nothing", async () => {
    const { join, memberships, told, topics, time } = startServer();
    await topics.put("orders", 2);
    const first = await join({}, "first");
    await join({}, "second");
    await time.settle();
    told.length = 0;
    await memberships.release(refOf(first), ownedBy(first).slice(0, 1));
    await time.settle();
    expect(told).toEqual([]);
    expect(await owners()).toEqual(["id-1", "id-1"]);
  });

  test("that never comes is done by the deadline, on the database's clock", async () => {
    const { join, told, topics, time } = startServer();
    await topics.put("orders", 2);
    await join({}, "first");
    await join({}, "second");
    await time.advance(REVOKE_DEADLINE_MS - 1);
    told.length = 0;
    expect(await owners()).toEqual(["id-1", "id-1"]);
    await time.advance(1 + SLACK_MS);
    expect(told).toEqual(["first lost 1 rebalance", "second gained 1"]);
    expect(await owners()).toEqual(["id-1", "id-2"]);
  });
});

describe("Memberships.stall()", () => {
  test("gives the partition to somebody else", async () => {
    const { join, memberships, told, topics, time } = startServer();
    await topics.put("orders", 2);
    const [first] = await Promise.all([join({}, "first"), join({}, "second")]);
    await memberships.stall(refOf(first), ownedBy(first));
    await time.settle();
    const stalled = first.owned.gained[0]?.partition;
    expect(told.toSorted()).toEqual([`first lost ${stalled} rebalance`, `second gained ${stalled}`]);
  });

  test("of the only member gives it back, in a new generation", async () => {
    const { join, memberships, told, time } = startServer();
    const first = await join();
    await memberships.stall(refOf(first), ownedBy(first));
    await time.settle();
    expect(told).toEqual(["member gained 0"]);
    const [row] = await database.rows("SELECT generation FROM assignments");
    expect(row?.generation).toBeGreaterThan(first.owned.gained[0]?.generation ?? 0);
  });
});

describe("Memberships.renew()", () => {
  test("moves the lease and tells nobody", async () => {
    const { join, memberships, told, time } = startServer();
    const member = refOf(await join());
    await time.advance(15_000);
    await memberships.renew(member);
    expect(await database.rows("SELECT lease_expires_at FROM members")).toEqual([
      { lease_expires_at: START_MS + 15_000 + TIMEOUT_MS },
    ]);
    expect(told).toEqual([]);
  });

  test("tells the holder, once, that another server has taken the membership over", async () => {
    const { here, there, time } = await startTwoServers();
    const joined = await here.join({}, "here");
    const taken = await there.join({ memberId: joined.memberId }, "there");
    expect(here.told).toEqual([]);
    await here.memberships.renew(refOf(joined));
    await here.memberships.renew(refOf(joined));
    await time.settle();
    expect(here.told).toEqual(["here replaced"]);
    expect(there.told).toEqual([]);
    expect(await members()).toMatchObject([{ membership: taken.membership }]);
  });

  test("of an older membership tells nothing to the holder of the new one", async () => {
    const { join, memberships, told } = startServer();
    const old = await join({}, "old");
    await join({ memberId: old.memberId }, "new");
    await memberships.renew(refOf(old));
    expect(told).toEqual(["old replaced"]);
  });

  test("that fails is no reason to end anybody: who could not renew has another heartbeat", async () => {
    const { join, memberships, time, watched, told } = startServer();
    const member = refOf(await join());
    watched.onWrite = () => {
      throw new DbError("io", "scripted");
    };
    await time.advance(40_000);
    expect(await codeOf(memberships.renew(member))).toBe("unavailable");
    await time.advance(10_000);
    watched.onWrite = undefined;
    await time.advance(2_000);
    expect(told).toEqual([]);
    expect(
      await database.rows("SELECT member_id FROM member_leases, clock WHERE expires_at > now_ms"),
    ).toEqual([{ member_id: "id-1" }]);
  });
});

describe("Memberships.detach()", () => {
  test("keeps the membership until its lease has run out, then ends it and tells nobody", async () => {
    const { join, memberships, time, told } = startServer();
    const member = refOf(await join({ instanceId: "tab-7" }));
    await time.advance(10_000);
    await memberships.detach(member);
    await time.advance(TIMEOUT_MS - 1); // from the end of its socket, whenever it was renewed before
    expect(await members()).toHaveLength(1);
    await time.advance(1 + SLACK_MS);
    expect(await members()).toEqual([]);
    expect(await database.rows("SELECT * FROM assignments")).toEqual([]);
    expect(told).toEqual([]);
    await time.advance(TIMEOUT_MS);
    expect(time.pendingDelaysMs).toEqual([]); // nothing left to look for
  });

  test("leaves the partitions to it, and others keep theirs", async () => {
    const { join, memberships, time, told, topics } = startServer();
    await topics.put("orders", 2);
    const [first, other] = await Promise.all([join({ instanceId: "tab-7" }, "first"), join({}, "other")]);
    await memberships.detach(refOf(first));
    for (let beat = 0; beat < 2; beat += 1) {
      await time.advance(15_000);
      await memberships.renew(refOf(other));
    }
    expect(told).toEqual([]);
    expect((await owners()).toSorted()).toEqual(["id-1", "id-2"]);
    await time.advance(15_000 + SLACK_MS);
    expect(told).toEqual([`other gained ${first.owned.gained[0]?.partition}`]);
  });

  test("of several ends each when its own lease has run out", async () => {
    const { join, memberships, time } = startServer();
    for (const sessionTimeoutMs of [9_000, 6_000, 30_000]) {
      const group = `group-${sessionTimeoutMs}`;
      await memberships.detach(refOf(await join({ group, sessionTimeoutMs, instanceId: "tab" }), group));
    }
    const left = [];
    for (let second = 0; second < 32; second += 1) {
      await time.advance(1_000);
      left.push((await members()).length);
    }
    const expected = Array.from({ length: 32 }, (_, i) => {
      const passedMs = (i + 1) * 1_000;
      return [6_000, 9_000, 30_000].filter((timeoutMs) => passedMs < timeoutMs + SLACK_MS).length;
    });
    expect(left).toEqual(expected);
  });

  test("does not end a membership that was taken over and is renewed", async () => {
    const { join, memberships, time, told } = startServer();
    await memberships.detach(refOf(await join({ instanceId: "tab-7" }, "old")));
    await time.advance(30_000);
    const taken = await join({ instanceId: "tab-7" }, "new");
    for (let beat = 0; beat < 6; beat += 1) {
      await time.advance(15_000);
      await memberships.renew(refOf(taken));
    }
    expect(await members()).toMatchObject([{ membership: taken.membership }]);
    expect(told).toEqual([]);
  });

  test("ends a holder that nobody renews, too, and tells it", async () => {
    const { join, memberships, time, told } = startServer();
    await join({ group: "held", sessionTimeoutMs: 20_000 }, "held");
    await memberships.detach(refOf(await join({ group: "let-go", instanceId: "t" }), "let-go"));
    await time.advance(20_000 + SLACK_MS);
    expect(told).toEqual(["held expired"]);
    expect(await members()).toMatchObject([{ group_id: "let-go" }]);
  });

  test("that cannot be written leaves what was left of the lease", async () => {
    const { join, memberships, time, watched, events } = startServer();
    const member = refOf(await join({ instanceId: "tab-7" }));
    await time.advance(10_000);
    watched.onWrite = failing(new DbError("io", "scripted"));
    await memberships.detach(member);
    expect(events).toContain("lease not renewed");
    await time.advance(35_000 - 1);
    expect(await members()).toHaveLength(1);
    await time.advance(1 + SLACK_MS);
    expect(await members()).toEqual([]);
  });
});

describe("Memberships.onTopicChange()", () => {
  test("gives the members what the topic has grown by, from its beginning, and moves nothing else", async () => {
    const { join, told, topics, time } = startServer();
    await topics.put("orders", 2);
    const policies = { missing: "latest", outOfRange: "latest" } as const;
    await Promise.all([join({ policies }, "first"), join({ policies }, "second")]);
    await topics.put("orders", 4);
    await time.settle();
    expect(told.toSorted()).toEqual(["first gained 2", "second gained 3"]);
    const history = await database.rows("SELECT partition, cause FROM offset_history ORDER BY partition");
    expect(history.map(({ cause }) => cause)).toEqual([
      "missing: latest",
      "missing: latest",
      "new partition: earliest",
      "new partition: earliest",
    ]);
  });

  test("tells what is lost with a topic that is deleted, and gives it again when it is created again", async () => {
    const { join, told, topics, time } = startServer();
    await topics.put("orders", 1);
    await join({ policies: { missing: "latest", outOfRange: "latest" } });
    await topics.delete("orders");
    await time.settle();
    expect(told).toEqual(["member lost 0 topic_deleted"]);
    await topics.put("orders", 1);
    await time.settle();
    expect(told).toEqual(["member lost 0 topic_deleted", "member gained 0"]);
  });

  test("creates no topic", async () => {
    const { join, topics, time } = startServer();
    await join({ topics: ["orders"] });
    await topics.delete("orders");
    await time.advance(1_000);
    expect(await database.rows("SELECT topic FROM topics")).toEqual([]);
  });
});

describe("Memberships.reset()", () => {
  test("moves the offset of a live member, which begins anew in a new generation", async () => {
    const { join, memberships, told, time } = startServer();
    const joined = await join();
    await database.run("UPDATE partitions SET log_end_offset = 9");
    const target = { kind: "place", topics: [{ topic: "orders" }], to: "latest" } as const;
    const request = { group: "billing", topics: ["orders"], target, isDryRun: false, reason: "skip" };
    expect(await memberships.reset(request)).toMatchObject({
      steps: [{ topic: "orders", partition: 0, from: 0, to: 9 }],
      isApplied: true,
    });
    await time.settle();
    expect(told).toEqual(["member gained 0"]);
    const [row] = await database.rows("SELECT generation, reset FROM assignments");
    expect(row?.generation).toBeGreaterThan(joined.owned.gained[0]?.generation ?? 0);
    expect(row?.reset).toBeNull();
    expect(await database.rows("SELECT cause, actor FROM offset_history WHERE new_offset = 9")).toEqual([
      { cause: "reset: latest (skip)", actor: "operator" },
    ]);
  });

  test("of a group that is not there is unknown_group, and leaves nothing behind", async () => {
    const { memberships, topics } = startServer();
    await topics.put("orders", 1);
    const target = { kind: "place", topics: [{ topic: "orders" }], to: "latest" } as const;
    const request = { group: "nobody", topics: ["orders"], target, isDryRun: false, reason: undefined };
    expect(await codeOf(memberships.reset(request))).toBe("unknown_group");
    expect(await database.rows("SELECT * FROM groups")).toEqual([]);
  });
});

describe("several servers on one database", () => {
  test("share the partitions of a group; each tells its own members when it hears of a change", async () => {
    const { here, there, poll } = await startTwoServers();
    const first = await here.join({}, "here");
    await there.join({}, "there");
    expect(here.told).toEqual([]);
    await poll();
    expect(here.told).toEqual([`here revoked 1 in ${REVOKE_DEADLINE_MS}`]);
    await here.memberships.release(refOf(first), ownedBy(first).slice(1));
    await poll();
    expect(here.told.slice(1)).toEqual(["here lost 1 rebalance"]);
    expect(there.told).toEqual(["there gained 1"]);
    expect(await owners()).toEqual(["here-1", "there-1"]);
  });

  test("hang their members on themselves: the lease of the process ends those without an instance", async () => {
    const { here, there, time } = await startTwoServers();
    await here.join({}, "dynamic");
    await here.join({ group: "shipping", instanceId: "tab-7" }, "static");
    await there.join({}, "there");
    expect(await database.rows("SELECT process_id FROM processes ORDER BY process_id")).toEqual([
      { process_id: "p-here" },
      { process_id: "p-there" },
    ]);
    // It stands still from here on, as one that was killed does.
    here.watched.onWrite = () => new Promise(() => {});
    here.watched.onRead = () => new Promise(() => {});
    await time.advance(PROCESS_LEASE_MS + 1_000);
    expect((await members()).map(({ member_id }) => member_id)).toEqual(["there-1", "here-2"]);
    expect(there.told.at(-1)).toContain("gained");
    expect([await owners(), await owners("shipping")]).toEqual([
      ["there-1", "there-1"],
      ["here-2", "here-2"],
    ]);
  });

  test("keep their leases while they live, however long", async () => {
    const { here, there, time } = await startTwoServers();
    const [first, other] = [await here.join({}, "here"), await there.join({}, "there")];
    for (let beat = 0; beat < 20; beat += 1) {
      await time.advance(15_000);
      await here.memberships.renew(refOf(first));
      await there.memberships.renew(refOf(other));
    }
    expect([...here.told, ...there.told].filter((line) => line.includes("expired"))).toEqual([]);
    expect(await memberIds()).toEqual(["here-1", "there-1"]);
  });

  test("end their members when they stop, at once", async () => {
    const { here, there, time, poll } = await startTwoServers();
    await here.join({}, "here");
    await there.join({}, "there");
    await here.memberships.close();
    expect(await database.rows("SELECT process_id FROM processes")).toEqual([{ process_id: "p-there" }]);
    await poll();
    await time.advance(5_000); // a server with its first clients does not hold leases to be over at once
    expect(await memberIds()).toEqual(["there-1"]);
    expect(await owners()).toEqual(["there-1", "there-1"]);
  });

  test("hold no lease and look at nothing while they have neither members nor clients", async () => {
    const { here, there, time } = await startTwoServers();
    await here.memberships.leave(refOf(await here.join()));
    for (const { memberships } of [here, there]) memberships.pause();
    await time.advance(30_000);
    expect(time.pendingDelaysMs).toEqual([]);
    const reads = here.watched.reads.length + there.watched.reads.length;
    await time.advance(60_000);
    expect(here.watched.reads.length + there.watched.reads.length).toBe(reads);
  });
});

describe("Memberships.begin()", () => {
  test("of a file of its own ends the members without an instance and lets the others run out", async () => {
    const last = startServer();
    await last.join({ group: "a" });
    await last.join({ group: "b", instanceId: "tab-7" });
    const { memberships, time, events, told } = startServer({ ids: "next" });
    await memberships.begin();
    expect(await members()).toMatchObject([{ group_id: "b" }]);
    expect(events).toEqual(["memberships of the last run ended"]);
    await time.advance(TIMEOUT_MS + SLACK_MS);
    expect(await members()).toEqual([]);
    expect([...told, ...last.told]).toEqual([]);
  });

  test("of a file without members does nothing and waits for nothing", async () => {
    const { memberships, time, events } = startServer();
    await memberships.begin();
    expect(events).toEqual([]);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("of a file that was closed for long gives static members another heartbeat to come back", async () => {
    const last = startServer();
    await last.join({ instanceId: "tab-7" });
    await database.pass(1_000_000);
    const { memberships, time, join } = startServer({ ids: "next" });
    await memberships.begin();
    await time.advance(14_000);
    expect(await memberIds()).toEqual(["id-1"]);
    expect((await join({ instanceId: "tab-7" })).memberId).toBe("next-1");
    await time.advance(TIMEOUT_MS - 1);
    expect(await memberIds()).toEqual(["next-1"]);
  });

  test("of a shared database ends nobody", async () => {
    const { here, there } = await startTwoServers();
    await here.join({}, "here");
    await there.memberships.begin();
    expect(await memberIds()).toEqual(["here-1"]);
  });
});

describe("Memberships.close()", () => {
  test("looks at leases no more", async () => {
    const { join, memberships, time } = startServer();
    await memberships.detach(refOf(await join({ instanceId: "tab-7" })));
    expect(time.pendingDelaysMs).toHaveLength(1);
    await memberships.close();
    expect(time.pendingDelaysMs).toEqual([]);
    await time.advance(2 * TIMEOUT_MS);
    expect(await members()).toHaveLength(1);
  });

  test("waits for the change that is under way", async () => {
    const { join, memberships, watched, topics } = startServer();
    await topics.put("orders", 1);
    let written = false;
    watched.onWrite = async () => {
      await new Promise<void>((resolve) => setImmediate(resolve));
      written = true;
    };
    void join();
    await Promise.resolve();
    await new Promise<void>((resolve) => setImmediate(resolve));
    await memberships.close();
    expect(written).toBe(true);
  });

  test("looks at leases no more, even when a socket that closes after it cannot be let go", async () => {
    const { join, memberships, queue, time } = startServer();
    const member = refOf(await join());
    await memberships.close();
    await queue.close();
    expect(await codeOf(memberships.leave(member))).toBe("unavailable");
    await memberships.detach(member);
    await time.advance(60_000);
    expect(time.pendingDelaysMs).toEqual([]);
  });
});
