import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import type { JoinRequest } from "../../src/core/group-picture.ts";
import type { OwnershipChange } from "../../src/core/ownership.ts";
import { Problem } from "../../src/core/problem.ts";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import type { PlanTarget, ResetRequest } from "../../src/core/reset-plan.ts";
import type { JoinResult } from "../../src/core/session/events.ts";
import type { MembershipRef } from "../../src/core/session/state.ts";
import type { Place } from "../../src/protocol/places.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { commitOffsets } from "../../src/store/commits.ts";
import { type Db, DbError, type Statement } from "../../src/store/db.ts";
import { readGroups } from "../../src/store/group-pictures.ts";
import { writeGroups } from "../../src/store/groups.ts";
import { Topics } from "../../src/store/topics.ts";
import { WriteQueue } from "../../src/store/write-queue.ts";
import { GroupTurns } from "../../src/stream/group-turns.ts";
import { failing, openTestDatabase, START_MS, WatchedDb } from "../support/database.ts";
import { FakeTime, fakeChance } from "../support/fake-time.ts";

const database = await openTestDatabase();
const second = await database.openSecond();
afterAll(() => database.close());
beforeEach(() => database.empty());

const GROUP = "billing";
const TIMEOUT_MS = 45_000;
const REVOKE_DEADLINE_MS = 5_000;
const RETRY_MS = 1_000;

interface Options {
  readonly db?: Db;
  readonly ids?: string;
  readonly partitionCount?: number;
  /** What a write says of the group afterwards; false as where that is too much to be said. */
  readonly tellsPicture?: boolean;
}

/** The turns of one group in one server process, and what its members were told, in order. */
async function setUp(options: Options = {}) {
  const { db = database.db, ids = "m", partitionCount = 1, tellsPicture = true } = options;
  const watched = new WatchedDb(db);
  const time = new FakeTime((ms) => database.pass(ms));
  const noted: string[] = [];
  const dueInMs: number[] = [];
  const chance = fakeChance({ ids });
  const log = (event: string) => void noted.push(event);
  const queue = new WriteQueue({ db: watched, scheduler: time, chance, log });
  const topics = new Topics({ db: watched, queue, scheduler: time, createsOnFirstUse: false });
  await topics.put("orders", partitionCount);
  let mayExpire = true;
  const turns = new GroupTurns(GROUP, {
    db: watched,
    queue,
    read: async (question) => (await readGroups(watched, [question]))[0] ?? nothing(),
    write: async (change) => {
      const changed = (await queue.submit(writeGroups([change], null)))[0] ?? nothing();
      return tellsPicture ? changed : { ...changed, picture: undefined };
    },
    processId: null,
    mayExpire: () => mayExpire,
    scheduler: time,
    log,
    onDueIn: (ms) => dueInMs.push(ms),
    onOutage: () => noted.push("outage"),
    onDone: () => noted.push("done"),
  });
  const told: string[] = [];
  const join = (request: Partial<JoinRequest> = {}): Promise<JoinResult> => {
    const newMemberId = chance.newId();
    return new Promise((resolve, reject) =>
      turns.join(
        requestOf({ newMemberId, ...request }),
        {
          onJoined: (joined) => {
            told.push(`${newMemberId} joined${textOf(joined.owned)}`);
            resolve(joined);
          },
          onChange: (change) => told.push(`${newMemberId}${textOf(change)}`),
          onEnd: (reason) => told.push(`${newMemberId} ${reason}`),
        },
        reject,
      ),
    );
  };
  const holdExpiries = () => {
    mayExpire = false;
  };
  watched.reads.length = watched.writes.length = 0;
  return { watched, time, noted, dueInMs, queue, topics, turns, told, join, holdExpiries };
}

function requestOf(request: Partial<JoinRequest> & { newMemberId: string }): JoinRequest {
  return {
    group: GROUP,
    topics: ["orders"],
    memberId: undefined,
    instanceId: undefined,
    policies: { missing: "earliest", outOfRange: "earliest" },
    sessionTimeoutMs: TIMEOUT_MS,
    ...request,
  };
}

function nothing(): never {
  throw new Error("a question or a change has no answer");
}

/** ` +0 ~1 -2`: gained, revoked, lost, by number of the partition (ids are one higher). */
function textOf({ gained, revoked, lost }: OwnershipChange): string {
  return [
    ...gained.map(({ partition }) => ` +${partition}`),
    ...revoked.map(({ partitionId }) => ` ~${partitionId - 1}`),
    ...lost.map(({ partitionId }) => ` -${partitionId - 1}`),
  ].join("");
}

const refOf = ({ memberId, membership }: JoinResult): MembershipRef => ({
  group: GROUP,
  memberId,
  membership,
});
const leave = (joined: JoinResult) => ({ kind: "leave", member: refOf(joined) }) as const;
const release = (joined: JoinResult, ...partitions: readonly number[]) =>
  ({
    kind: "release",
    member: refOf(joined),
    partitions: joined.owned.gained.filter(({ partition }) => partitions.includes(partition)),
  }) as const;

const memberIds = async () =>
  (await database.rows("SELECT member_id FROM members ORDER BY member_id")).map(({ member_id }) => member_id);
const owners = async () =>
  (await database.rows("SELECT member_id FROM assignments ORDER BY partition_id")).map(
    ({ member_id }) => member_id,
  );
const committed = async () =>
  (await database.rows("SELECT committed_offset FROM committed_offsets ORDER BY partition_id")).map(
    ({ committed_offset }) => committed_offset,
  );
const endAt = (offset: number) => database.run("UPDATE partitions SET log_end_offset = :offset", { offset });
const isPicture = ({ sql }: Statement) => sql.includes("partitions_seen");

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "resolved",
    (error) => (error instanceof Problem ? error.code : `defect: ${error}`),
  );
}

/** Runs `meanwhile` between the reading of the group and the writing of a plan, as often as it is told. */
function interfere(watched: WatchedDb, times: number, meanwhile: (round: number) => Promise<unknown>): void {
  let round = 0;
  watched.onWrite = async (statements) => {
    if (!statements.some(({ sql }) => sql.includes("INSERT INTO groups")) || round === times) return;
    round += 1;
    await meanwhile(round);
  };
}

describe("a turn", () => {
  test("decides together what has arrived, and tells each member once", async () => {
    const { join, turns, told, time, watched } = await setUp({ partitionCount: 4 });
    const first = await join();
    await time.settle();
    told.length = 0;
    const before = watched.writes.length;
    turns.letGo(refOf(first));
    const changed = [join(), join(), turns.change(leave(first))];
    await Promise.all(changed);
    await time.settle();
    expect(watched.writes.length - before).toBe(1);
    expect(told.toSorted()).toEqual(["m-2 joined +0 +1", "m-3 joined +2 +3"]);
  });

  test("lets what arrives while it is under way wait for the next, whole", async () => {
    const { join, time, watched } = await setUp({ partitionCount: 3 });
    let later: readonly Promise<unknown>[] = [];
    watched.onWrite = () => {
      watched.onWrite = undefined;
      later = [join(), join()];
    };
    await join();
    await Promise.all(later);
    await time.settle();
    expect(watched.writes).toHaveLength(2);
    expect(await memberIds()).toEqual(["m-1", "m-2", "m-3"]);
  });

  test("takes no two joins that want the same place", async () => {
    const { join, told, time, watched } = await setUp();
    await Promise.all([join({ instanceId: "tab-7" }), join(), join({ instanceId: "tab-7" })]);
    await time.settle();
    expect(watched.writes).toHaveLength(2);
    expect(told.filter((line) => line.endsWith("replaced"))).toEqual(["m-1 replaced"]);
    expect(await memberIds()).toEqual(["m-2", "m-3"]);
  });

  test("with nothing to do reads once, writes nothing and is done", async () => {
    const { turns, time, watched, noted } = await setUp();
    turns.look();
    await time.settle();
    expect(watched.reads.filter(isPicture)).toHaveLength(1);
    expect(watched.writes).toEqual([]);
    expect([noted, turns.isNeeded]).toEqual([["done"], false]);
  });

  test("ends when there is nothing left to do, whatever was asked", async () => {
    const { join, turns, time, watched } = await setUp({ partitionCount: 2 });
    const first = await join();
    await join();
    await turns.change(release(first, 1));
    await time.settle();
    const reads = watched.reads.length;
    await time.advance(4_000);
    expect(watched.reads.length).toBe(reads);
    expect(await owners()).toEqual(["m-1", "m-2"]);
  });

  test("tells what is revoked with the time that is left, and when the next thing is due", async () => {
    const { join, time, dueInMs } = await setUp({ partitionCount: 2 });
    await join();
    await time.settle();
    expect(Math.min(...dueInMs)).toBe(TIMEOUT_MS);
    await join();
    await time.settle();
    expect(Math.min(...dueInMs)).toBe(REVOKE_DEADLINE_MS);
  });

  test("ends nobody while leases may have run out through no fault of their members", async () => {
    const { join, turns, time, holdExpiries } = await setUp();
    await join();
    holdExpiries();
    await time.advance(TIMEOUT_MS + 1);
    turns.look();
    await time.settle();
    expect(await memberIds()).toEqual(["m-1"]);
  });

  test("ends a member whose lease has run out, tells it, and gives its partitions to the others", async () => {
    const { join, turns, told, time } = await setUp({ partitionCount: 2 });
    await join({ sessionTimeoutMs: 6_000 });
    const other = await join();
    await turns.change(release(other)); // nothing
    await time.advance(6_000);
    told.length = 0;
    turns.look();
    await time.settle();
    expect(told).toContain("m-1 expired");
    expect(await owners()).toEqual(["m-2", "m-2"]);
  });

  test("does not end a member whose renewal comes in between", async () => {
    const { join, turns, told, time, watched } = await setUp();
    await join({ sessionTimeoutMs: 6_000 });
    await time.advance(6_000);
    interfere(watched, 1, () =>
      second.write([{ sql: "UPDATE members SET lease_expires_at = lease_expires_at + 9000" }]),
    );
    turns.look();
    await time.settle();
    expect(told).toEqual(["m-1 joined +0"]);
    expect(await memberIds()).toEqual(["m-1"]);
  });

  test("that is written long after its look ends nobody, says that leases may be late, and looks again", async () => {
    const { join, turns, time, watched, noted } = await setUp();
    await join({ sessionTimeoutMs: 6_000 });
    await time.advance(6_000);
    interfere(watched, 1, () => database.pass(2_001));
    turns.look();
    await time.settle();
    expect(noted).toContain("outage");
  });
});

describe("a join", () => {
  test("says nothing of itself before it is durable, and then first that it has joined", async () => {
    const { join, told, watched, time } = await setUp({ partitionCount: 2 });
    let release = () => {};
    watched.onWrite = () =>
      new Promise<void>((resolve) => {
        release = resolve;
      });
    const joined = join();
    await time.advance(5_000);
    expect(told).toEqual([]);
    watched.onWrite = undefined;
    release();
    await joined;
    expect(told).toEqual(["m-1 joined +0 +1"]);
  });

  test("that is ended before it was told is told both, in that order", async () => {
    const { join, told, watched, time } = await setUp({ tellsPicture: false });
    let pictures = 0;
    watched.onRead = async (statement) => {
      pictures += isPicture(statement) ? 1 : 0;
      if (pictures !== 2) return; // the first look after the join was written
      await second.write([{ sql: "DELETE FROM members" }, { sql: "UPDATE groups SET version = 1000" }]);
    };
    await join();
    await time.settle();
    expect(told).toEqual(["m-1 joined", "m-1 expired"]);
  });

  test("whose answer is lost has joined: it finds itself", async () => {
    const { join, told, watched, time } = await setUp({ partitionCount: 2 });
    watched.onWrite = async (statements) => {
      watched.onWrite = undefined;
      await database.db.write(statements);
      throw new DbError("unanswered", "scripted");
    };
    const { memberId } = await join();
    await time.settle();
    expect(memberId).toBe("m-1");
    expect(told).toEqual(["m-1 joined +0 +1"]);
    expect(await memberIds()).toEqual(["m-1"]);
    expect(await database.rows("SELECT count(*) AS n FROM offset_history")).toEqual([{ n: 2 }]);
  });

  test("that takes over and whose answer is lost is not replaced by itself", async () => {
    const { join, told, watched, time } = await setUp();
    await join({ instanceId: "tab-7" });
    watched.onWrite = async (statements) => {
      watched.onWrite = undefined;
      await database.db.write(statements);
      throw new DbError("unanswered", "scripted");
    };
    await join({ instanceId: "tab-7" });
    await time.settle();
    expect(told).toEqual(["m-1 joined +0", "m-1 replaced", "m-2 joined +0"]);
    expect(await memberIds()).toEqual(["m-2"]);
  });

  test("by the memberId of a member whose answer is lost holds it", async () => {
    const { join, told, watched, time } = await setUp();
    await join();
    watched.onWrite = async (statements) => {
      watched.onWrite = undefined;
      await database.db.write(statements);
      throw new DbError("unanswered", "scripted");
    };
    const again = await join({ memberId: "m-1" });
    await time.settle();
    expect(again.memberId).toBe("m-1");
    expect(told).toContain("m-1 replaced");
    expect(await memberIds()).toEqual(["m-1"]);
    const [row] = await database.rows("SELECT membership FROM members");
    expect(row?.membership).toBe(again.membership);
  });

  test("starts by a policy where the time is, on the database's clock, and records why", async () => {
    const { join, topics, queue } = await setUp();
    const records = [3_000, 2_000, 1_000].map((agoMs) => ({ value: 1, timestamp: START_MS - agoMs }));
    const list = parseJsonProduce(JSON.stringify({ records })).records;
    await queue.submit(appendRecords(await topics.require("orders"), [{ partition: 0, records: list }]));
    const { owned } = await join({ policies: { missing: { ago: 2_500 }, outOfRange: "none" } });
    expect(owned.gained).toMatchObject([{ committedOffset: 1, reset: { ago: 2_500 } }]);
    expect(await database.rows("SELECT cause, actor FROM offset_history")).toEqual([
      { cause: "missing: ago 2500 ms", actor: "member m-1" },
    ]);
  });

  test.each([
    { policy: "earliest", says: "does not say that a policy placed what an ack has placed meanwhile" },
    { policy: "none", says: "does not call a partition unplaced that an ack has placed meanwhile" },
  ] as const)("$says", async ({ policy }) => {
    const { join, queue, watched } = await setUp();
    await endAt(3);
    const old = await join({ policies: { missing: "none", outOfRange: "none" } });
    const ack = { topic: "orders", partition: 0, offset: 3, metadata: null, refusal: undefined };
    const generation = old.owned.gained[0]?.generation ?? 0;
    watched.onRead = (statement) => {
      if (!isPicture(statement)) return;
      watched.onRead = undefined;
      // Goes to the queue now and to disk in a later turn: after this reading of the group, before the join.
      void queue.submit(commitOffsets(GROUP, [{ ...ack, generation }]));
    };
    const { owned } = await join({
      memberId: old.memberId,
      policies: { missing: policy, outOfRange: "none" },
    });
    expect(owned.gained).toMatchObject([{ committedOffset: 3, reset: null, unplaced: null }]);
  });

  test("that nobody waits for any more is let go, and told nothing", async () => {
    const { join, turns, told, time, noted } = await setUp();
    const joined = await join();
    await time.settle();
    turns.letGo(refOf(joined));
    expect([turns.isNeeded, noted.at(-1)]).toEqual([false, "done"]);
    await second.write([{ sql: "DELETE FROM members" }, { sql: "UPDATE groups SET version = 1000" }]);
    turns.look();
    await time.settle();
    expect(told).toEqual(["m-1 joined +0"]);
  });

  test("is not let go by the name of an older membership", async () => {
    const { join, turns, time } = await setUp();
    const old = await join();
    const now = await join({ memberId: old.memberId });
    turns.letGo(refOf(old));
    await time.settle();
    expect(turns.members).toEqual([refOf(now)]);
  });
});

describe("a turn while another process changes the group", () => {
  test("looks again and shares with the other's member", async () => {
    const here = await setUp({ partitionCount: 2 });
    const there = await setUp({ db: second, ids: "other", partitionCount: 2 });
    interfere(here.watched, 1, () => there.join());
    const { owned } = await here.join();
    await here.time.settle();
    expect(owned).toEqual({ gained: [], revoked: [], lost: [] });
    expect(await memberIds()).toEqual(["m-1", "other-1"]);
    expect(await owners()).toEqual(["other-1", "other-1"]);
    expect(await database.rows("SELECT * FROM guard")).toEqual([]);
  });

  test("looks again and joins where the other has left", async () => {
    const here = await setUp();
    const there = await setUp({ db: second, ids: "other" });
    interfere(here.watched, 3, async () => there.turns.change(leave(await there.join())));
    const { memberId, owned } = await here.join();
    expect(await memberIds()).toEqual([memberId]);
    expect(owned.gained.map(({ generation }) => generation)).toEqual(
      (await database.rows("SELECT generation FROM assignments")).map(({ generation }) => Number(generation)),
    );
  });

  test("gives up as unavailable when the group changes every time, and has written nothing", async () => {
    const here = await setUp();
    const there = await setUp({ db: second, ids: "other" });
    interfere(here.watched, 1_000, async () => there.turns.change(leave(await there.join())));
    expect(await codeOf(here.join())).toBe("unavailable");
    expect(await memberIds()).toEqual([]);
    expect(await database.rows("SELECT * FROM guard")).toEqual([]);
  });

  test("of two processes lets both in, and each partition has one owner", async () => {
    const here = await setUp({ partitionCount: 4 });
    const there = await setUp({ db: second, ids: "other", partitionCount: 4 });
    const joins = Array.from({ length: 5 }, () => [here.join(), there.join()]).flat();
    for (let turn = 0; turn < 20; turn += 1) {
      await here.time.advance(50);
      await there.time.advance(50);
    }
    await Promise.all(joins);
    expect(await memberIds()).toHaveLength(10);
    expect(await database.rows("SELECT count(DISTINCT generation) AS n FROM assignments")).toEqual([
      { n: 4 },
    ]);
    expect(await database.rows("SELECT * FROM guard")).toEqual([]);
  });

  test("loses a release that it planned for an owner that is no more", async () => {
    const here = await setUp({ partitionCount: 2 });
    const first = await here.join();
    await here.join();
    await here.time.settle();
    interfere(here.watched, 1, () =>
      second.write([
        { sql: "UPDATE assignments SET generation = 100, revoke_deadline = NULL WHERE partition_id = 2" },
        { sql: "UPDATE groups SET version = 101" },
        { sql: "UPDATE sequence SET last = 101" },
      ]),
    );
    await here.turns.change(release(first, 1));
    const [row] = await database.rows("SELECT member_id, generation FROM assignments WHERE partition_id = 2");
    expect(row).toEqual({ member_id: "m-1", generation: 100 });
  });
});

describe("GroupTurns.lookAt()", () => {
  test("looks at a version that its members were not told of, and at no other", async () => {
    const { join, turns, time, watched } = await setUp();
    await join();
    await time.settle();
    const [row] = await database.rows("SELECT version FROM groups");
    const version = Number(row?.version);
    const reads = watched.reads.length;
    turns.lookAt(version);
    turns.lookAt(version - 1);
    await time.settle();
    expect(watched.reads.length).toBe(reads);
    turns.lookAt(version + 1);
    await time.settle();
    expect(watched.reads.length).toBe(reads + 1);
  });
});

describe("a database that fails", () => {
  test("refuses what was asked for, is an outage, and is asked again after a second", async () => {
    const { join, turns, time, watched, noted } = await setUp();
    watched.onWrite = failing(new DbError("io", "scripted"));
    expect(await codeOf(join())).toBe("unavailable");
    expect(noted).toContain("outage");
    await time.settle();
    expect(turns.isNeeded).toBe(true);
    const reads = watched.reads.length;
    await time.advance(RETRY_MS);
    expect(watched.reads.length).toBe(reads + 1);
    expect(turns.isNeeded).toBe(false);
  });

  test("during a look that nobody asked for is asked again, and its members hear what they missed", async () => {
    const { join, turns, told, time, watched } = await setUp({ partitionCount: 2 });
    await join();
    await second.write([
      {
        sql: "UPDATE assignments SET revoke_deadline = (SELECT now_ms + 5000 FROM clock) WHERE partition_id = 2",
      },
      { sql: "UPDATE groups SET version = 1000" },
    ]);
    watched.onRead = failing(new DbError("io", "1"), new DbError("io", "2"));
    turns.lookAt(1_000);
    await time.advance(RETRY_MS);
    expect(told).toEqual(["m-1 joined +0 +1"]);
    await time.advance(RETRY_MS);
    expect(told).toEqual(["m-1 joined +0 +1", "m-1 ~1"]);
  });

  test("after the server has stopped is not asked again", async () => {
    const { join, turns, time, watched } = await setUp();
    watched.onWrite = failing(new DbError("io", "scripted"));
    const refused = codeOf(join());
    await turns.close();
    expect(await refused).toBe("unavailable");
    await time.advance(10_000);
    expect(time.pendingDelaysMs).toEqual([]);
  });
});

describe("GroupTurns.reset()", () => {
  const to = (place: Place, options: Partial<ResetRequest> = {}): ResetRequest => ({
    group: GROUP,
    topics: ["orders"],
    target: { kind: "place", topics: [{ topic: "orders" }], to: place },
    isDryRun: false,
    reason: undefined,
    ...options,
  });
  const plan = (...steps: PlanTarget["steps"]): ResetRequest =>
    to("latest", { target: { kind: "plan", steps } });

  test("commits, records, and gives the owner new generations, in one write", async () => {
    const { join, turns, told, time, watched } = await setUp({ partitionCount: 2 });
    const joined = await join();
    await endAt(9);
    await time.settle();
    const writes = watched.writes.length;
    const { steps, isApplied } = await turns.reset(to({ offset: 4 }));
    await time.settle();
    expect([steps.map(({ from, to }) => [from, to]), isApplied]).toEqual([
      [
        [0, 4],
        [0, 4],
      ],
      true,
    ]);
    expect(watched.writes.length - writes).toBe(1);
    expect(told).toEqual(["m-1 joined +0 +1", "m-1 +0 +1"]);
    const last = Math.max(...joined.owned.gained.map(({ generation }) => generation));
    for (const { generation } of await database.rows("SELECT generation FROM assignments"))
      expect(generation).toBeGreaterThan(last);
    expect(await committed()).toEqual([4, 4]);
  });

  test("leaves partitions that it does not name alone", async () => {
    const { join, turns, told, time } = await setUp({ partitionCount: 3 });
    await join();
    await endAt(9);
    const target = { kind: "place", topics: [{ topic: "orders", partitions: [1] }], to: "latest" } as const;
    await turns.reset(to("latest", { target }));
    await time.settle();
    expect(told.slice(1)).toEqual(["m-1 +1"]);
    expect(await committed()).toEqual([0, 9, 0]);
  });

  test("as a dry run says what it would do and writes nothing", async () => {
    const { join, turns, told, time, watched } = await setUp();
    await join();
    await endAt(9);
    await time.settle();
    const writes = watched.writes.length;
    expect(await turns.reset(to("latest", { isDryRun: true }))).toMatchObject({
      steps: [{ from: 0, to: 9 }],
      isApplied: false,
    });
    await time.settle();
    expect([watched.writes.length - writes, told.length, await committed()]).toEqual([0, 1, [0]]);
  });

  test("plans again where an ack comes in between, and starts from what that has committed", async () => {
    const { join, turns, queue, watched } = await setUp();
    const { owned } = await join();
    await endAt(9);
    const ack = { topic: "orders", partition: 0, offset: 3, metadata: null, refusal: undefined };
    const generation = owned.gained[0]?.generation ?? 0;
    watched.onRead = (statement) => {
      if (!isPicture(statement)) return;
      watched.onRead = undefined;
      void queue.submit(commitOffsets(GROUP, [{ ...ack, generation }]));
    };
    expect(await turns.reset(to({ shift: 2 }))).toMatchObject({ steps: [{ from: 3, to: 5 }] });
    expect(await committed()).toEqual([5]);
  });

  test("of a plan is a conflict where an ack comes in between, as a whole", async () => {
    const { join, turns, queue, watched } = await setUp({ partitionCount: 2 });
    const { owned } = await join();
    await endAt(9);
    const ack = { topic: "orders", partition: 0, offset: 3, metadata: null, refusal: undefined };
    const generation = owned.gained[0]?.generation ?? 0;
    watched.onRead = (statement) => {
      if (!isPicture(statement)) return;
      watched.onRead = undefined;
      void queue.submit(commitOffsets(GROUP, [{ ...ack, generation }]));
    };
    const step = (partition: number) => ({ topic: "orders", partition, from: 0, to: 7 });
    expect(await codeOf(turns.reset(plan(step(0), step(1))))).toBe("conflict");
    expect(await committed()).toEqual([3, 0]);
    expect(await database.rows("SELECT * FROM offset_history WHERE cause LIKE 'reset%'")).toEqual([]);
  });

  test("whose answer is lost is not done twice: it says that it is not known", async () => {
    const { join, turns, watched, time } = await setUp();
    await join();
    await endAt(9);
    await time.settle();
    watched.onWrite = async (statements) => {
      watched.onWrite = undefined;
      await database.db.write(statements);
      throw new DbError("unanswered", "scripted");
    };
    expect(await codeOf(turns.reset(to({ shift: 2 })))).toBe("outcome_unknown");
    await time.advance(RETRY_MS);
    expect(await committed()).toEqual([2]);
  });

  test("waits for its turn behind joins, and those behind it see what it did", async () => {
    const { join, turns, time } = await setUp();
    const results: string[] = [];
    await Promise.all([
      join({ policies: { missing: "latest", outOfRange: "latest" } }).then(() => results.push("joined")),
      turns.reset(to("earliest")).then(({ steps }) => results.push(`reset from ${steps[0]?.from}`)),
      join().then(() => results.push("joined")),
    ]);
    await time.settle();
    expect(results).toEqual(["joined", "reset from 0", "joined"]);
  });

  test("of a partition that is being revoked takes it from its owner and gives it to whom it was to go", async () => {
    const { join, turns, told, time } = await setUp({ partitionCount: 2 });
    await join();
    await join();
    await endAt(9);
    await time.settle();
    expect(told).toEqual(["m-1 joined +0 +1", "m-1 ~1", "m-2 joined"]);
    told.length = 0;
    await turns.reset(to("latest"));
    await time.settle();
    expect(told.toSorted()).toEqual(["m-1 +0 -1", "m-2 +1"]);
    expect(await owners()).toEqual(["m-1", "m-2"]);
    expect(await committed()).toEqual([9, 9]);
  });

  test("of partitions that nobody owns commits, and gives no generation", async () => {
    const { join, turns, time } = await setUp();
    await turns.change(leave(await join()));
    await endAt(9);
    await turns.reset(to("latest"));
    await time.settle();
    expect([await committed(), await owners()]).toEqual([[9], []]);
  });

  test("that is refused leaves others in the queue alone", async () => {
    const { join, turns } = await setUp();
    await join();
    const outcomes = [turns.reset(to({ offset: 1 })), join(), turns.reset(to("current"))].map(codeOf);
    expect(await Promise.all(outcomes)).toEqual(["offset_out_of_range", "resolved", "resolved"]);
  });
});
