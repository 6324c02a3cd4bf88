import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import type { MembershipRef } from "../../src/core/session/state.ts";
import {
  HEARTBEATS_PER_SESSION_TIMEOUT,
  PROCESS_LEASE_MS,
  REVOKE_DEADLINE_MS,
} from "../../src/protocol/limits.ts";
import {
  endMembershipsWithoutInstance,
  greetProcesses,
  readDue,
  renewAfterOutage,
  renewLease,
} from "../../src/store/leases.ts";
import { endProcess, keepProcess } from "../../src/store/processes.ts";
import { Topics } from "../../src/store/topics.ts";
import { openQueue, openTestDatabase, START_MS, stockRows } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import { GroupStore, type JoinOptions, TIMEOUT_MS } from "../support/group-store.ts";

const database = await openTestDatabase();
const { db } = database;
const queue = openQueue(db);
const groups = new GroupStore({ db, queue });
afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  await new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true }).put("orders", 3);
});

/** As server processes on a shared database have them. */
const p1 = new GroupStore({ db, queue, processId: "p1" });
const p2 = new GroupStore({ db, queue, processId: "p2" });

const HEARTBEAT_MS = TIMEOUT_MS / HEARTBEATS_PER_SESSION_TIMEOUT;
const join = (options?: JoinOptions) => groups.join(options);
const rows = (sql: string) => stockRows(database.path, sql);

/** How much later than START_MS each lease runs out: of members by name, of processes by theirs. */
const leases = () =>
  Object.fromEntries(
    rows(`SELECT member_id AS name, lease_expires_at - ${START_MS} AS ms FROM members
          UNION ALL SELECT process_id, lease_expires_at - ${START_MS} FROM processes`).map(({ name, ms }) => [
      String(name),
      ms,
    ]),
  );

const TABLES = ["groups", "members", "assignments", "committed_offsets", "processes", "sequence", "guard"];
const dump = () => Object.fromEntries(TABLES.map((table) => [table, rows(`SELECT * FROM ${table}`)]));

describe("renewLease()", () => {
  test("gives the whole session timeout again, as the database's clock has it", async () => {
    const joined = await join({ sessionTimeoutMs: 6_000 });
    await database.pass(5_999);
    expect(await queue.submit(renewLease(joined))).toBe(true);
    expect(leases()).toEqual({ m1: 5_999 + 6_000 });
  });

  test("after the lease has run out is in time still, while nobody has ended the membership", async () => {
    const joined = await join();
    await database.pass(TIMEOUT_MS + 1_000);
    expect(await queue.submit(renewLease(joined))).toBe(true);
    expect(await readDue(db)).toMatchObject({ groups: [] });
  });

  test("changes nothing but the lease: no version, no other member, no process", async () => {
    const joined = await p1.join();
    await join();
    const before = dump();
    await database.pass(1_000);
    await queue.submit(renewLease(joined));
    const renewed = leases();
    expect(renewed).toEqual({ m1: TIMEOUT_MS + 1_000, m2: TIMEOUT_MS, p1: PROCESS_LEASE_MS });
    await database.run("UPDATE members SET lease_expires_at = :was", { was: START_MS + TIMEOUT_MS });
    expect(dump()).toEqual(before);
  });

  const others: readonly [title: string, change: Partial<MembershipRef>][] = [
    ["an earlier membership of the member", { membership: 0 }],
    ["a membership that never was", { membership: 999 }],
    ["another member", { memberId: "nobody" }],
    ["a member of another group", { group: "other" }],
  ];
  for (const [title, change] of others) {
    test(`of ${title} says that it has ended, and renews nothing`, async () => {
      const joined = await join();
      await database.pass(1_000);
      const before = dump();
      expect(await queue.submit(renewLease({ ...joined, ...change }))).toBe(false);
      expect(dump()).toEqual(before);
    });
  }

  test("says that a membership has ended that was left, or taken over", async () => {
    const left = await join({ group: "a" });
    await groups.leave(left);
    const replaced = await join({ group: "b" });
    await join({ group: "b", memberId: replaced.memberId });
    expect(await queue.submit(renewLease(left))).toBe(false);
    expect(await queue.submit(renewLease(replaced))).toBe(false);
  });
});

describe("renewAfterOutage()", () => {
  test("gives this process's own their whole session timeout, and everybody else a heartbeat at least", async () => {
    const own = await join({ group: "a", newMemberId: "m1" });
    await join({ group: "b", newMemberId: "m2" });
    await database.pass(TIMEOUT_MS + 60_000);
    await queue.submit(renewAfterOutage([own], null));
    const now = TIMEOUT_MS + 60_000;
    expect(leases()).toEqual({ m1: now + TIMEOUT_MS, m2: now + HEARTBEAT_MS });
    expect(await readDue(db)).toMatchObject({ groups: [] });
  });

  test("takes nothing away from whoever has more", async () => {
    await join({ sessionTimeoutMs: 300_000 });
    await database.pass(1_000);
    await queue.submit(renewAfterOutage([], null));
    expect(leases()).toEqual({ m1: 300_000 });
  });

  test("renews no membership that has ended: a ref of an older one counts for nothing", async () => {
    const old = await join();
    const now = await join({ memberId: "m1" });
    await database.pass(TIMEOUT_MS);
    await queue.submit(renewAfterOutage([old], null));
    expect(leases()).toEqual({ m1: TIMEOUT_MS + HEARTBEAT_MS });
    await queue.submit(renewAfterOutage([now], null));
    expect(leases()).toEqual({ m1: 2 * TIMEOUT_MS });
  });

  test("renews this server process, and gives others time enough for a heartbeat of their members", async () => {
    const own = await p1.join({ group: "a", newMemberId: "m1" });
    await p2.join({ group: "b", newMemberId: "m2", sessionTimeoutMs: 6_000 });
    await p2.join({ group: "c", newMemberId: "m3", sessionTimeoutMs: 300_000 });
    await queue.submit(keepProcess("without-members"));
    const now = 400_000;
    await database.pass(now);
    await queue.submit(renewAfterOutage([own], "p1"));
    expect(leases()).toEqual({
      m1: now + TIMEOUT_MS,
      m2: now + 2_000,
      m3: now + 100_000,
      p1: now + HEARTBEAT_MS, // which is more than PROCESS_LEASE_MS
      p2: now + 100_000,
      "without-members": PROCESS_LEASE_MS,
    });
    expect(await readDue(db)).toMatchObject({ groups: [], nextInMs: 2_000 });
  });

  test("brings nobody back whose server process has ended itself", async () => {
    await p1.join();
    await queue.submit(endProcess("p1"));
    await queue.submit(renewAfterOutage([], "p2"));
    expect(rows("SELECT process_id FROM processes")).toEqual([{ process_id: "p2" }]);
    expect(await readDue(db)).toMatchObject({ groups: ["billing"] });
  });

  test("changes no group, and leaves deadlines as they are", async () => {
    await join();
    await join();
    const { groups: before, assignments } = dump();
    await database.pass(TIMEOUT_MS);
    await queue.submit(renewAfterOutage([], null));
    expect(dump()).toMatchObject({ groups: before, assignments });
  });
});

describe("endMembershipsWithoutInstance()", () => {
  test("ends the members whose sockets are gone, in a new version, and leaves static ones what they have", async () => {
    await join({ group: "a" });
    await join({ group: "b", instanceId: "tab-7" });
    await join({ group: "c" });
    await join({ group: "c", instanceId: "tab-8" });
    await database.pass(REVOKE_DEADLINE_MS);
    await groups.carryOut("c");
    const versions = () =>
      Object.fromEntries(rows("SELECT * FROM groups").map((row) => [row.group_id, row.version]));
    const before = versions();
    const kept = rows(
      "SELECT * FROM assignments WHERE (group_id, member_id) IN (VALUES ('b', 'm1'), ('c', 'm2'))",
    );
    expect(kept).toHaveLength(4);
    expect(await queue.submit(endMembershipsWithoutInstance())).toBe(2);
    expect(rows("SELECT group_id, instance_id FROM members ORDER BY 1")).toEqual([
      { group_id: "b", instance_id: "tab-7" },
      { group_id: "c", instance_id: "tab-8" },
    ]);
    expect(rows("SELECT * FROM assignments")).toEqual(kept);
    const after = versions();
    expect(after.b).toBe(before.b);
    for (const group of ["a", "c"]) expect(Number(after[group])).toBeGreaterThan(Number(before[group]));
    expect(rows("SELECT last >= (SELECT max(version) FROM groups) AS ok FROM sequence")).toEqual([{ ok: 1 }]);
    expect(await queue.submit(endMembershipsWithoutInstance())).toBe(0);
  });

  test("keeps offsets, and gives what has become free to whoever is there", async () => {
    await join();
    await join({ instanceId: "tab-8" });
    await queue.submit(endMembershipsWithoutInstance());
    expect(rows("SELECT count(*) AS n FROM committed_offsets")).toEqual([{ n: 3 }]);
    await groups.carryOut();
    expect((await groups.owned("m2")).partitions).toHaveLength(3);
  });

  test("gives static members a heartbeat to come back in: nobody could while the file was closed", async () => {
    await join({ group: "a", instanceId: "tab-7" });
    await join({ group: "b", instanceId: "tab-8", sessionTimeoutMs: 300_000 });
    await database.pass(TIMEOUT_MS + 7);
    await queue.submit(endMembershipsWithoutInstance());
    expect(rows("SELECT group_id, lease_expires_at AS at FROM members ORDER BY 1")).toEqual([
      { group_id: "a", at: START_MS + TIMEOUT_MS + 7 + HEARTBEAT_MS },
      { group_id: "b", at: START_MS + 300_000 },
    ]);
  });
});

describe("greetProcesses()", () => {
  const leasesAfter = async (passedMs: number) => {
    await database.pass(passedMs);
    await queue.submit(greetProcesses());
    return leases();
  };

  test("gives everybody a heartbeat where no server process was alive: nobody has seen the outage", async () => {
    await p1.join({ group: "a", newMemberId: "m1" });
    await p2.join({ group: "b", newMemberId: "m2", instanceId: "tab-7" });
    await p2.join({ group: "c", newMemberId: "m3", sessionTimeoutMs: 6_000 });
    const now = TIMEOUT_MS + 5_000;
    expect(await leasesAfter(now)).toEqual({
      m1: now + HEARTBEAT_MS,
      m2: now + HEARTBEAT_MS,
      m3: now + 2_000,
      p1: now + HEARTBEAT_MS,
      p2: now + HEARTBEAT_MS,
    });
    expect(await readDue(db)).toMatchObject({ groups: [], nextInMs: 2_000 });
  });

  test("gives nothing where one is alive: it has carried out what was due, and will", async () => {
    await p1.join({ group: "a", newMemberId: "m1", sessionTimeoutMs: 6_000 });
    await database.pass(PROCESS_LEASE_MS - 1);
    await p2.join({ group: "b", newMemberId: "m2" });
    const before = leases();
    expect(await leasesAfter(PROCESS_LEASE_MS - 1)).toEqual(before);
    expect(await readDue(db)).toMatchObject({ groups: ["a"] });
  });

  test("gives it from the moment in which the last lease runs out", async () => {
    await p1.join();
    const [early, late] = [await leasesAfter(PROCESS_LEASE_MS - 1), await leasesAfter(1)];
    expect(early).toEqual({ m1: TIMEOUT_MS, p1: PROCESS_LEASE_MS });
    expect(late).toEqual({ m1: TIMEOUT_MS, p1: PROCESS_LEASE_MS + HEARTBEAT_MS });
  });

  test("of a database that nobody has used does nothing", async () => {
    const before = dump();
    await queue.submit(greetProcesses());
    expect(dump()).toEqual(before);
  });
});

describe("readDue()", () => {
  test("of nothing is nothing, at the database's time", async () => {
    await database.pass(3);
    expect(await readDue(db)).toEqual({ nowMs: START_MS + 3, groups: [], nextInMs: undefined });
  });

  test("says when the next lease runs out, and then which group it is of", async () => {
    await join({ group: "a", sessionTimeoutMs: 9_000 });
    await join({ group: "b", sessionTimeoutMs: 6_000 });
    await database.pass(1_000);
    expect(await readDue(db)).toMatchObject({ groups: [], nextInMs: 5_000 });
    await database.pass(4_999);
    expect(await readDue(db)).toMatchObject({ groups: [], nextInMs: 1 });
    await database.pass(1);
    expect(await readDue(db)).toMatchObject({ groups: ["b"], nextInMs: 3_000 });
    await database.pass(3_000);
    expect(await readDue(db)).toMatchObject({ groups: ["a", "b"], nextInMs: undefined });
  });

  test("says when the next deadline of a revocation is, and then which group it is of", async () => {
    await join();
    await database.pass(1_000);
    await join();
    expect(await readDue(db)).toMatchObject({ groups: [], nextInMs: REVOKE_DEADLINE_MS });
    await database.pass(REVOKE_DEADLINE_MS);
    expect(await readDue(db)).toMatchObject({ groups: ["billing"], nextInMs: 39_000 });
    await groups.carryOut();
    expect(await readDue(db)).toMatchObject({ groups: [], nextInMs: 39_000 });
  });

  test("names a group once, whatever of it is due", async () => {
    await p1.join();
    await p1.join();
    await join();
    await database.pass(TIMEOUT_MS);
    expect(await readDue(db)).toMatchObject({ groups: ["billing"], nextInMs: undefined });
  });

  test("says when the next server process ends, and then which groups hang on it, but for static members", async () => {
    await p1.join({ group: "a" });
    await p1.join({ group: "b", instanceId: "tab-7" });
    await database.pass(1_000);
    await p2.join({ group: "c" });
    expect(await readDue(db)).toMatchObject({ groups: [], nextInMs: PROCESS_LEASE_MS - 1_000 });
    await database.pass(PROCESS_LEASE_MS - 1_000);
    expect(await readDue(db)).toMatchObject({ groups: ["a"], nextInMs: 1_000 });
    await groups.carryOut("a");
    expect(await readDue(db)).toMatchObject({ groups: [], nextInMs: 1_000 });
  });

  test("names the groups of a server process that has ended itself at once", async () => {
    await p1.join({ group: "a" });
    await p1.join({ group: "b", instanceId: "tab-7" });
    await p2.join({ group: "c" });
    await queue.submit(endProcess("p1"));
    expect(await readDue(db)).toMatchObject({ groups: ["a"] });
    await groups.carryOut("a");
    expect(await readDue(db)).toMatchObject({ groups: [] });
  });

  test("names what a plan then finds to do, whatever is over", async () => {
    await join({ group: "a", sessionTimeoutMs: 6_000 });
    await p1.join({ group: "b" });
    await p1.join({ group: "c", instanceId: "tab-7" });
    await join({ group: "d", sessionTimeoutMs: 300_000 });
    await join({ group: "d", sessionTimeoutMs: 300_000 });
    for (const ms of [1, 4_999, 1_000, 4_000, TIMEOUT_MS, TIMEOUT_MS, 300_000]) {
      await database.pass(ms);
      const { groups: due } = await readDue(db);
      const busy = [];
      for (const group of ["a", "b", "c", "d"]) {
        const { plan } = await groups.plan([], { group });
        const planned = [plan.endedMemberIds, plan.gains, plan.freedPartitionIds];
        if (planned.some((list) => list.length > 0)) busy.push(group);
      }
      expect(due).toEqual(busy);
      for (const group of due) await groups.carryOut(group);
    }
    expect(rows("SELECT * FROM members")).toEqual([]);
  });
});
