import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { GroupChange } from "../../src/core/group-change.ts";
import { isIdle, planGroup } from "../../src/core/group-plan.ts";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { type PlaceTarget, planReset, type ResetRequest, resetChange } from "../../src/core/reset-plan.ts";
import type { MembershipRef } from "../../src/core/session/state.ts";
import { METADATA_BYTES_MAX, PROCESS_LEASE_MS, REVOKE_DEADLINE_MS } from "../../src/protocol/limits.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { commitOffsets } from "../../src/store/commits.ts";
import { deleteGroup } from "../../src/store/group-changes.ts";
import { readGroups } from "../../src/store/group-pictures.ts";
import { writeGroups } from "../../src/store/groups.ts";
import { renewLease } from "../../src/store/leases.ts";
import { Topics } from "../../src/store/topics.ts";
import { openQueue, openTestDatabase, START_MS, stockRows, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import {
  GroupStore,
  type Joined,
  type JoinOptions,
  leaving,
  readGroup,
  TIMEOUT_MS,
} from "../support/group-store.ts";

const database = await openTestDatabase();
const { db } = database;
const queue = openQueue(db);
const groups = new GroupStore({ db, queue });
const otherProcess = new GroupStore({ db, queue, processId: "p1" });
const openTopics = () => new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
let topics = openTopics();

afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  topics = openTopics();
});

const join = (options?: JoinOptions) => groups.join(options);
const planJoin = (options?: JoinOptions) => groups.planJoin(options);

async function produce(count: number, topic = "orders", partition = 0): Promise<void> {
  const list = parseJsonProduce(
    JSON.stringify({ records: Array.from({ length: count }, (_, value) => ({ value })) }),
  ).records;
  await queue.submit(appendRecords(await topics.require(topic), [{ partition, records: list }]));
}

async function ack({ partitions, group }: Joined, offset: number, metadata: string | null = null) {
  const acks = partitions.slice(0, 1).map(({ topic, partition, generation }) => ({
    topic,
    partition,
    generation,
    offset,
    metadata,
    refusal: undefined,
  }));
  return queue.submit(commitOffsets(group, acks));
}

const refOf = ({ group, memberId, membership }: Joined): MembershipRef => ({ group, memberId, membership });
const rows = (sql: string) => stockRows(database.path, sql);
const versionOf = (group = "billing") =>
  Number(rows(`SELECT version FROM groups WHERE group_id = '${group}'`)[0]?.version);
const owners = (group = "billing") =>
  rows(
    `SELECT partition_id - 1 AS p, member_id AS m FROM assignments WHERE group_id = '${group}' ORDER BY 1`,
  ).map(({ p, m }) => `${p}:${m}`);

const TABLES = [
  "groups",
  "group_topics",
  "members",
  "assignments",
  "committed_offsets",
  "offset_history",
  "guard",
];

/** Everything that is in the database of groups, but for the sequence: numbers may be lost. */
const dump = () => Object.fromEntries(TABLES.map((table) => [table, rows(`SELECT * FROM ${table}`)]));

/** What a plan that was made from an older picture does. */
const VOID = { version: undefined };

/** Nobody is there and nothing has been committed; the topic has records. */
async function topicOf(partitions: number, records = 0): Promise<void> {
  await topics.put("orders", partitions);
  if (records > 0) await produce(records);
}

describe("readGroups()", () => {
  test("says of a group that is not there that it has nothing, and shows the partitions of topics that are", async () => {
    await topics.put("orders", 2);
    await database.pass(3);
    expect(await readGroup(db, "billing", ["nowhere", "orders", "orders"])).toEqual({
      group: "billing",
      version: 0,
      nowMs: START_MS + 3,
      members: [],
      partitions: [0, 1].map((partition) => ({
        topic: "orders",
        topicId: 1,
        partition,
        partitionId: partition + 1,
        logStartOffset: 0,
        logEndOffset: 0,
        committedOffset: null,
        hasMetadata: false,
        owner: null,
        partitionsSeen: 0,
        topicIdSeen: null,
      })),
    });
  });

  test("shows every member, and every partition of the topics that any of them subscribes to", async () => {
    await topics.put("orders", 1);
    await topics.put("payments", 1);
    await topics.put("nobodys", 1);
    await produce(5);
    const policies = { missing: { ago: 5_000 }, outOfRange: { timestamp: 7 } } as const;
    const first = await join({ policies, instanceId: "tab-7" });
    await ack(first, 3, 'ü "quoted" \\ 😀');
    await join({ topics: ["payments"], sessionTimeoutMs: 6_000 });
    await database.pass(1_000);
    const seen = { partitionsSeen: 1, revokeInMs: null };
    expect(await readGroup(db, "billing", [])).toEqual({
      group: "billing",
      version: 3,
      nowMs: START_MS + 1_000,
      members: [
        {
          memberId: "m1",
          membership: 1,
          instanceId: "tab-7",
          processId: null,
          topics: ["orders"],
          policies,
          expiresInMs: TIMEOUT_MS - 1_000,
        },
        {
          memberId: "m2",
          membership: 3,
          instanceId: null,
          processId: null,
          topics: ["payments"],
          policies: { missing: "earliest", outOfRange: "earliest" },
          expiresInMs: 5_000,
        },
      ],
      partitions: [
        {
          topic: "orders",
          topicId: 1,
          partition: 0,
          partitionId: 1,
          logStartOffset: 0,
          logEndOffset: 5,
          committedOffset: 3,
          hasMetadata: true,
          owner: { memberId: "m1", generation: 2, revokeInMs: seen.revokeInMs, reset: policies.missing },
          partitionsSeen: 1,
          topicIdSeen: 1,
        },
        {
          topic: "payments",
          topicId: 2,
          partition: 0,
          partitionId: 2,
          logStartOffset: 0,
          logEndOffset: 0,
          committedOffset: 0,
          hasMetadata: false,
          owner: { memberId: "m2", generation: 4, revokeInMs: seen.revokeInMs, reset: "earliest" },
          partitionsSeen: 1,
          topicIdSeen: 2,
        },
      ],
    });
  });

  test("shows leases as the database's clock sees them, a member's own or its server process's", async () => {
    await topics.put("orders", 1);
    await join();
    await otherProcess.join();
    await otherProcess.join({ instanceId: "tab-7" });
    const leases = async () =>
      (await readGroup(db, "billing", [])).members.map(({ expiresInMs }) => expiresInMs);
    expect(await leases()).toEqual([TIMEOUT_MS, PROCESS_LEASE_MS, TIMEOUT_MS]);
    await database.pass(PROCESS_LEASE_MS);
    expect(await leases()).toEqual([TIMEOUT_MS - PROCESS_LEASE_MS, 0, TIMEOUT_MS - PROCESS_LEASE_MS]);
    await database.run("DELETE FROM processes");
    expect((await leases())[1]).toBeLessThan(0);
  });

  test("says how long a revoked partition stays with its owner", async () => {
    await topics.put("orders", 2);
    await join();
    await join();
    const left = async () =>
      (await readGroup(db, "billing", [])).partitions.map(({ owner }) => owner?.revokeInMs);
    expect(await left()).toEqual([null, REVOKE_DEADLINE_MS]);
    await database.pass(REVOKE_DEADLINE_MS + 1);
    expect(await left()).toEqual([null, -1]);
  });

  test("is of one moment: one statement", async () => {
    await topics.put("orders", 1);
    const watched = new WatchedDb(db);
    await readGroup(watched, "billing", ["orders"]);
    expect(watched.reads).toHaveLength(1);
  });
});

describe("writeGroups() of a join", () => {
  test("writes one membership and all that belongs to it", async () => {
    await topicOf(2, 3);
    const { operation } = await planJoin();
    expect(await queue.submit(operation)).toEqual({ version: 1, isLate: false });
    const policies = '{"missing":"earliest","outOfRange":"earliest"}';
    expect(dump()).toEqual({
      groups: [{ group_id: "billing", version: 1, created_at: START_MS }],
      group_topics: [{ group_id: "billing", topic: "orders", topic_id: 1, partitions_seen: 2 }],
      members: [
        {
          group_id: "billing",
          member_id: "m1",
          instance_id: null,
          membership: 1,
          topics: '["orders"]',
          session_timeout_ms: TIMEOUT_MS,
          joined_at: START_MS,
          lease_expires_at: START_MS + TIMEOUT_MS,
          policies,
          has_grace: 0,
          process_id: null,
        },
      ],
      assignments: [1, 2].map((partition_id) => ({
        group_id: "billing",
        partition_id,
        member_id: "m1",
        generation: partition_id + 1,
        revoke_deadline: null,
        reset: '"earliest"',
      })),
      committed_offsets: [1, 2].map((partition_id) => ({
        group_id: "billing",
        partition_id,
        committed_offset: 0,
        metadata: null,
        committed_at: START_MS,
      })),
      offset_history: [0, 1].map((partition) => ({
        history_id: partition + 1,
        group_id: "billing",
        topic: "orders",
        partition,
        previous_offset: null,
        new_offset: 0,
        cause: "missing: earliest",
        actor: "member m1",
        at: START_MS,
      })),
      guard: [],
    });
    expect(rows("SELECT last FROM sequence")).toEqual([{ last: 3 }]);
  });

  test("is one transaction, history included", async () => {
    await topics.put("orders", 2);
    const watched = new WatchedDb(db);
    await openQueue(watched).submit((await planJoin()).operation);
    expect(watched.writes).toHaveLength(1);
    expect(rows("SELECT count(*) AS n FROM offset_history")).toEqual([{ n: 2 }]);
  });

  test("that the database refuses half way leaves nothing", async () => {
    await topics.put("orders", 2);
    const { operation } = await planJoin();
    const before = dump();
    const broken = {
      ...operation,
      statements: [...operation.statements, { sql: "INSERT INTO nowhere VALUES (1)" }],
    };
    const outcome = queue.submit(broken).catch((error: unknown) => error);
    expect(await outcome).toMatchObject({ code: "internal" });
    expect(dump()).toEqual(before);
  });

  test("gives the static name, the topics, the policies and the lease that were asked for", async () => {
    await topics.put("orders", 1);
    await topics.put("payments", 1);
    await join({
      instanceId: "tab-7",
      topics: ["payments", "orders"],
      sessionTimeoutMs: 6_000,
      policies: { missing: { ago: 1 }, outOfRange: "none" },
    });
    expect(
      rows("SELECT instance_id, topics, policies, session_timeout_ms, lease_expires_at FROM members"),
    ).toEqual([
      {
        instance_id: "tab-7",
        topics: '["payments","orders"]',
        policies: '{"missing":{"ago":1},"outOfRange":"none"}',
        session_timeout_ms: 6_000,
        lease_expires_at: START_MS + 6_000,
      },
    ]);
  });

  test("hangs the member on its server process, which lives at least as long as a lease from then on", async () => {
    await topics.put("orders", 1);
    await otherProcess.join();
    await database.pass(4_000);
    await otherProcess.join();
    expect(rows("SELECT process_id FROM members")).toEqual([{ process_id: "p1" }, { process_id: "p1" }]);
    expect(rows("SELECT process_id, lease_expires_at FROM processes")).toEqual([
      { process_id: "p1", lease_expires_at: START_MS + 4_000 + PROCESS_LEASE_MS },
    ]);
  });

  test("of several at once is one version, and each has a number of its own in nothing else", async () => {
    await topics.put("orders", 4);
    const requests = ["a", "b", "c"].map(
      (newMemberId): GroupChange => ({
        kind: "join",
        request: {
          group: "billing",
          topics: ["orders"],
          memberId: undefined,
          instanceId: undefined,
          newMemberId,
          policies: { missing: "earliest", outOfRange: "earliest" },
          sessionTimeoutMs: TIMEOUT_MS,
        },
      }),
    );
    expect(await groups.change(requests)).toMatchObject({ version: 1 });
    expect(rows("SELECT member_id, membership FROM members")).toEqual(
      ["a", "b", "c"].map((member_id) => ({ member_id, membership: 1 })),
    );
    expect(owners()).toEqual(["0:a", "1:a", "2:b", "3:c"]);
    expect(rows("SELECT generation FROM assignments ORDER BY 1").map(({ generation }) => generation)).toEqual(
      [2, 3, 4, 5],
    );
  });

  test("takes over: the old membership is gone, everything has a new number, offsets and others stay", async () => {
    await topics.put("orders", 3);
    const first = await join();
    const neighbour = await join();
    await database.pass(REVOKE_DEADLINE_MS);
    await groups.carryOut();
    await ack(first, 0, "kept");
    const before = await groups.owned("m2");
    const second = await join({ memberId: "m1" });
    expect(second.memberId).toBe("m1");
    expect(second.membership).toBeGreaterThan(neighbour.membership);
    expect(second.partitions).toHaveLength(2);
    for (const { generation, reset } of second.partitions) {
      expect(generation).toBeGreaterThan(second.membership);
      expect(reset).toBeNull();
    }
    expect(await groups.owned("m2")).toEqual(before);
    expect(rows("SELECT member_id, membership FROM members")).toEqual([
      { member_id: "m1", membership: second.membership },
      { member_id: "m2", membership: neighbour.membership },
    ]);
  });

  test("takes over by instance under a new member, and the old one is gone", async () => {
    await topics.put("orders", 1);
    await join({ instanceId: "tab-7" });
    await join({ instanceId: "tab-7" });
    expect(rows("SELECT member_id, instance_id FROM members")).toEqual([
      { member_id: "m2", instance_id: "tab-7" },
    ]);
    expect(owners()).toEqual(["0:m2"]);
  });

  test("takes over for another server process", async () => {
    await topics.put("orders", 1);
    await otherProcess.join();
    await new GroupStore({ db, queue, processId: "p2" }).join({ memberId: "m1" });
    expect(rows("SELECT process_id FROM members")).toEqual([{ process_id: "p2" }]);
  });

  test("with fewer topics lets go of the others and remembers that the group had them", async () => {
    await topics.put("orders", 1);
    await topics.put("payments", 1);
    await join({ topics: ["orders", "payments"] });
    await join({ memberId: "m1", topics: ["payments"] });
    expect(owners()).toEqual(["1:m1"]);
    expect(rows("SELECT topic FROM group_topics ORDER BY topic")).toEqual([
      { topic: "orders" },
      { topic: "payments" },
    ]);
    expect(rows("SELECT partition_id FROM committed_offsets ORDER BY partition_id")).toHaveLength(2);
  });

  test("leaves another group alone", async () => {
    await topics.put("orders", 2);
    await join({ group: "other" });
    const of = (table: string) => rows(`SELECT * FROM ${table} WHERE group_id = 'other'`);
    const tables = ["groups", "members", "assignments", "committed_offsets", "offset_history"];
    const others = tables.map(of);
    const joined = await join();
    await join({ memberId: "m1" });
    await join();
    await groups.leave(joined);
    expect(tables.map(of)).toEqual(others);
  });
});

describe("writeGroups() of a rebalance", () => {
  test("revokes what moves until a deadline, and leaves everything else as it is", async () => {
    await topics.put("orders", 3);
    const first = await join();
    await database.pass(7);
    await join();
    expect(rows("SELECT partition_id, member_id, generation, revoke_deadline FROM assignments")).toEqual(
      first.partitions.map(({ partitionId, generation }) => ({
        partition_id: partitionId,
        member_id: "m1",
        generation,
        revoke_deadline: partitionId === 3 ? START_MS + 7 + REVOKE_DEADLINE_MS : null,
      })),
    );
  });

  test("lets the old owner's acks count until the partition has changed hands, and then no more", async () => {
    await topicOf(1, 9);
    const first = await join();
    await join({ topics: ["orders"] });
    expect(await ack(first, 3)).toMatchObject([{ committedOffset: 3 }]);
    await database.run("UPDATE assignments SET revoke_deadline = 0");
    expect(await ack(first, 4)).toMatchObject([{ committedOffset: 4, code: undefined }]);
    await queue.submit((await groups.plan([leaving(first)])).operation);
    expect(await ack(first, 5)).toMatchObject([{ committedOffset: 4, code: "fenced_generation" }]);
    expect(await ack(await groups.owned("m2"), 5)).toMatchObject([{ committedOffset: 5 }]);
  });

  test("gives a partition to the next owner when it is released, in a new generation and not revoked", async () => {
    await topicOf(2, 5);
    const first = await join();
    await join();
    const [, revoked] = (await groups.owned("m1")).partitions;
    if (!revoked) throw new Error("nothing was revoked");
    const change: GroupChange = { kind: "release", member: refOf(first), partitions: [revoked] };
    await groups.change([change]);
    const [gained] = (await groups.owned("m2")).partitions;
    expect(gained).toMatchObject({ partition: 1, revokeInMs: null, reset: null, committedOffset: 0 });
    expect(gained?.generation).toBeGreaterThan(versionOf());
    expect(owners()).toEqual(["0:m1", "1:m2"]);
  });

  test("gives a partition to the next owner when the deadline is over, not before", async () => {
    await topics.put("orders", 2);
    await join();
    await join();
    await database.pass(REVOKE_DEADLINE_MS - 1);
    const early = await groups.plan([]);
    expect(isIdle(early.plan)).toBe(true);
    await database.pass(1);
    await groups.carryOut();
    expect(owners()).toEqual(["0:m1", "1:m2"]);
    expect(rows("SELECT count(revoke_deadline) AS n FROM assignments")).toEqual([{ n: 0 }]);
  });

  test("gives what a member leaves to those who are left, and frees what nobody wants", async () => {
    await topics.put("orders", 2);
    await topics.put("payments", 1);
    const first = await join({ topics: ["orders", "payments"] });
    await join();
    await groups.leave(first);
    expect(owners()).toEqual(["0:m2", "1:m2"]);
    expect(rows("SELECT member_id FROM members")).toEqual([{ member_id: "m2" }]);
    await groups.leave(await groups.owned("m2"));
    expect(dump()).toMatchObject({ members: [], assignments: [], groups: [{ group_id: "billing" }] });
    expect(rows("SELECT count(*) AS n FROM committed_offsets")).toEqual([{ n: 3 }]);
  });

  test("of a leave of an older membership does nothing", async () => {
    await topics.put("orders", 2);
    const old = await join();
    await join({ memberId: "m1" });
    const { plan } = await groups.plan([leaving(old)]);
    expect(isIdle(plan)).toBe(true);
  });

  test("gives what has grown, committed at its beginning, and leaves the rest and the memberships alone", async () => {
    await topicOf(1, 3);
    const joined = await join({ policies: { missing: "latest", outOfRange: "latest" } });
    const members = rows("SELECT * FROM members");
    await topics.put("orders", 2);
    await produce(4, "orders", 1);
    await groups.carryOut();
    expect((await groups.owned("m1")).partitions).toMatchObject([
      joined.partitions[0] ?? {},
      { partition: 1, generation: 4, committedOffset: 0, reset: "earliest" },
    ]);
    expect(rows("SELECT * FROM members")).toEqual(members);
    expect(rows("SELECT partitions_seen FROM group_topics")).toEqual([{ partitions_seen: 2 }]);
    expect(rows("SELECT partition, new_offset, cause FROM offset_history").at(-1)).toEqual({
      partition: 1,
      new_offset: 0,
      cause: "new partition: earliest",
    });
    expect(versionOf()).toBe(3);
  });

  test("of a stalled partition gives it to another, and alone to the same in a new generation", async () => {
    await topicOf(1, 5);
    const first = await join();
    const stall = ({ partitions, ...member }: Joined): GroupChange => ({ kind: "stall", member, partitions });
    await groups.change([stall(first)]);
    const again = await groups.owned("m1");
    expect(again.partitions[0]?.generation).toBeGreaterThan(first.partitions[0]?.generation ?? 0);
    expect(await ack(first, 2)).toMatchObject([{ code: "fenced_generation" }]);
    await join();
    await groups.change([stall(again)]);
    expect(owners()).toEqual(["0:m2"]);
  });
});

describe("readGroups() and writeGroups() of many groups at once", () => {
  const NAMES = ["a", "b", "c", "d"];

  test("read each in the order in which it is asked for, there or not, as it is read alone", async () => {
    await topics.put("orders", 2);
    await topics.put("payments", 1);
    await join({ group: "b" });
    await join({ group: "c", topics: ["payments"] });
    const asked = ["c", "a", "b"].map((group) => ({
      group,
      topics: group === "a" ? ["payments"] : ["orders"],
    }));
    const alone = [];
    for (const { group, topics: names } of asked) alone.push(await readGroup(db, group, names));
    const watched = new WatchedDb(db);
    expect(await readGroups(watched, asked)).toEqual(alone);
    expect(watched.reads).toHaveLength(1);
    expect(alone.map(({ members, partitions }) => [members.length, partitions.length])).toEqual([
      [1, 3],
      [0, 1],
      [1, 2],
    ]);
    expect(await readGroups(db, [])).toEqual([]);
  });

  test("write each with numbers of its own, and answer with what it is then", async () => {
    await topicOf(3, 4);
    const plans = [];
    for (const group of NAMES)
      plans.push((await planJoin({ group, policies: { missing: "latest", outOfRange: "none" } })).planned);
    const watched = new WatchedDb(db);
    const outcomes = await openQueue(watched).submit(writeGroups(plans, null));
    expect(watched.writes).toHaveLength(1);
    for (const [index, { version, isLate, picture }] of outcomes.entries()) {
      const group = NAMES[index] ?? "";
      expect({ version, isLate, picture }).toEqual({
        version: versionOf(group),
        isLate: false,
        picture: await readGroup(db, group, ["orders"]),
      });
      expect(picture?.partitions.map(({ committedOffset }) => committedOffset)).toEqual([4, 0, 0]);
    }
    const numbers = rows(
      "SELECT version AS n FROM groups UNION ALL SELECT generation FROM assignments ORDER BY n",
    );
    expect(numbers.map(({ n }) => n)).toEqual(Array.from({ length: 16 }, (_, index) => index + 1));
    expect(rows("SELECT last FROM sequence")).toEqual([{ last: 16 }]);
    expect(
      rows("SELECT count(*) AS n FROM members AS m JOIN groups USING (group_id) WHERE membership = version"),
    ).toEqual([{ n: 4 }]);
  });

  test("do nothing of the plans that come too late, and everything of the others", async () => {
    await topics.put("orders", 2);
    const plans = [];
    for (const group of NAMES) plans.push((await planJoin({ group, newMemberId: "late" })).planned);
    await join({ group: "b", newMemberId: "early" });
    await join({ group: "d", newMemberId: "early" });
    const outcomes = await queue.submit(writeGroups(plans, null));
    expect(outcomes.map(({ version }) => version !== undefined)).toEqual([true, false, true, false]);
    expect(NAMES.flatMap((group) => owners(group))).toEqual([
      "0:late",
      "1:late",
      "0:early",
      "1:early",
      "0:late",
      "1:late",
      "0:early",
      "1:early",
    ]);
    expect(outcomes[1]?.picture).toEqual(await readGroup(db, "b", ["orders"]));
    expect(rows("SELECT * FROM guard")).toEqual([]);
  });

  test("do what each plan says, and nothing of it to another group", async () => {
    await topicOf(4, 9);
    for (const group of NAMES) await join({ group, newMemberId: "m1" });
    await join({ group: "b", newMemberId: "m2" });
    const first = await groups.owned("m1", "a");
    const rest = ["b", "c"].map((group) => leaving({ ...first, group, membership: membershipOf(group) }));
    const plans = [
      (await groups.plan([leaving(first)], { group: "a" })).planned,
      ...(
        await Promise.all(
          rest.map((change, index) => groups.plan([change], { group: index === 0 ? "b" : "c" })),
        )
      ).map(({ planned }) => planned),
      (await planJoin({ group: "d", newMemberId: "m2" })).planned,
    ];
    await queue.submit(writeGroups(plans, null));
    expect(NAMES.map((group) => owners(group))).toEqual([
      [],
      ["0:m2", "1:m2", "2:m2", "3:m2"],
      [],
      ["0:m1", "1:m1", "2:m1", "3:m1"],
    ]);
    expect(rows("SELECT group_id, partition_id FROM assignments WHERE revoke_deadline IS NOT NULL")).toEqual([
      { group_id: "d", partition_id: 3 },
      { group_id: "d", partition_id: 4 },
    ]);
  });

  const membershipOf = (group: string) =>
    Number(
      rows(`SELECT membership FROM members WHERE group_id = '${group}' AND member_id = 'm1'`)[0]?.membership,
    );

  test("of thousands of partitions take no time that grows with the square of them", async () => {
    await topics.put("orders", 1_000);
    await topics.put("payments", 1_000);
    const { operation } = await planJoin({ topics: ["orders", "payments"] });
    await queue.submit(operation); // in the time that a test has; it took a minute once
    expect(rows("SELECT count(*) AS n FROM assignments")).toEqual([{ n: 2_000 }]);
  });
});

describe("generations", () => {
  test("are greater than every earlier one of the group, whatever has been deleted", async () => {
    await topics.put("orders", 2);
    let highest = 0;
    const deletions = [
      ["DELETE FROM assignments", "DELETE FROM members"],
      ["committed_offsets", "assignments", "members", "group_topics", "groups"].map(
        (t) => `DELETE FROM ${t}`,
      ),
      [],
    ].flatMap((round) => [round, round, round]);
    for (const statements of deletions) {
      const { partitions, membership } = await join({ memberId: "m1" });
      for (const { generation } of partitions) {
        expect(generation).toBeGreaterThan(highest);
        highest = generation;
      }
      expect(membership).toBeLessThan(highest);
      await db.write(statements.map((sql) => ({ sql })));
    }
  });

  test("go on rising when the group was deleted and is born again, by rebalances and resets too", async () => {
    await topics.put("orders", 3);
    let highest = 0;
    const check = async () => {
      const found = await database.rows("SELECT generation FROM assignments ORDER BY generation");
      const fresh = found.map(({ generation }) => Number(generation)).filter((one) => one > highest);
      expect(fresh.length).toBeGreaterThan(0);
      expect(new Set(found.map(({ generation }) => generation)).size).toBe(found.length);
      highest = Math.max(highest, ...fresh);
    };
    for (let life = 0; life < 3; life += 1) {
      const born = highest;
      const first = await join();
      expect(
        Math.min(first.membership, ...first.partitions.map(({ generation }) => generation)),
      ).toBeGreaterThan(born);
      await check();
      await reset({ offset: 0 });
      await check();
      await join();
      await database.pass(REVOKE_DEADLINE_MS);
      await groups.carryOut();
      await check();
      await database.pass(TIMEOUT_MS);
      await queue.submit(deleteGroup({ op: queue.nextOp(), group: "billing" }));
    }
  });

  test("are never shared between groups, partitions or servers", async () => {
    await topics.put("orders", 3);
    const otherQueue = openQueue(await database.openSecond());
    const all: number[] = [];
    for (let round = 0; round < 6; round += 1) {
      const group = `group-${round % 3}`;
      const { operation } = await planJoin({ group, memberId: "m1" });
      await (round % 2 === 0 ? queue : otherQueue).submit(operation);
      all.push(...(await groups.owned("m1", group)).partitions.map(({ generation }) => generation));
    }
    expect(all).toHaveLength(18);
    expect(new Set(all).size).toBe(18);
  });
});

// ── plans that come too late ─────────────────────────────────────────────────────────────────────────────

describe("writeGroups() that was planned from an old picture", () => {
  const meanwhile: readonly [title: string, happen: () => Promise<unknown>][] = [
    ["another joined", () => join()],
    ["another joined and left", async () => groups.leave(await join())],
    ["the group was deleted", () => database.pass(TIMEOUT_MS).then(() => queue.submit(deletion()))],
    ["a partition was revoked", () => join({ topics: ["orders"] })],
  ];
  const deletion = () => deleteGroup({ op: queue.nextOp(), group: "billing" });

  for (const [title, happen] of meanwhile) {
    test(`does nothing where ${title}`, async () => {
      await topics.put("orders", 2);
      await join();
      const { operation } = await planJoin({ newMemberId: "late" });
      await happen();
      const before = dump();
      expect(await queue.submit(operation)).toMatchObject(VOID);
      expect(dump()).toEqual(before);
      expect(before.guard).toEqual([]);
    });
  }

  test("does nothing where the member that it takes over has rejoined", async () => {
    await topics.put("orders", 1);
    await join();
    const { operation } = await planJoin({ memberId: "m1" });
    await join({ memberId: "m1" });
    const before = dump();
    expect(await queue.submit(operation)).toMatchObject(VOID);
    expect(dump()).toEqual(before);
  });

  test("does nothing for the first member of a group where the topic was deleted", async () => {
    await topics.put("orders", 1);
    const { operation } = await planJoin();
    await topics.delete("orders");
    const before = dump();
    expect(await queue.submit(operation)).toMatchObject(VOID);
    expect(dump()).toEqual(before);
  });

  test("does nothing where one of the topics that it gains from was deleted, the others included", async () => {
    await topics.put("orders", 2);
    await topics.put("payments", 1);
    const { operation } = await planJoin({ topics: ["orders", "payments"] });
    await topics.delete("payments");
    await topics.put("payments", 1); // created anew is another one
    expect(await queue.submit(operation)).toMatchObject(VOID);
    expect(dump()).toMatchObject({ groups: [], members: [], assignments: [], committed_offsets: [] });
  });

  test("of two in one flush does nothing for the second, and neither disturbs their neighbours", async () => {
    await topics.put("orders", 2);
    const first = await planJoin({ newMemberId: "first" });
    const second = await planJoin({ newMemberId: "second" });
    const other = await planJoin({ group: "other", newMemberId: "third" });
    const watched = new WatchedDb(db);
    const shared = openQueue(watched);
    const topic = await topics.require("orders");
    const records = parseJsonProduce('{"records":[{"value":1}]}').records;
    const [won, lost, third, appended] = await Promise.all([
      ...[first, second, other].map(({ operation }) => shared.submit(operation)),
      shared.submit(appendRecords(topic, [{ partition: 0, records }])),
    ]);
    expect(watched.writes).toHaveLength(1);
    expect([won, lost, third]).toMatchObject([{ version: 1 }, VOID, { version: expect.any(Number) }]);
    expect(appended).toMatchObject([{ offset: 0, logEndOffset: 1 }]);
    expect(rows("SELECT group_id, member_id FROM members ORDER BY group_id")).toEqual([
      { group_id: "billing", member_id: "first" },
      { group_id: "other", member_id: "third" },
    ]);
    expect(dump().guard).toEqual([]);
  });

  test("lets exactly one of many servers' plans through, whatever their order", async () => {
    await topics.put("orders", 1);
    const otherQueue = openQueue(await database.openSecond());
    for (let round = 0; round < 5; round += 1) {
      const group = `group-${round}`;
      const plans = await Promise.all(
        Array.from({ length: 6 }, (_, i) => planJoin({ group, newMemberId: `m${i}` })),
      );
      const results = [];
      for (const [i, { operation }] of plans.entries())
        results.push(await (i % 2 === round % 2 ? queue : otherQueue).submit(operation));
      expect(results.filter(({ version }) => version !== undefined)).toHaveLength(1);
      expect(rows(`SELECT count(*) AS n FROM members WHERE group_id = '${group}'`)).toEqual([{ n: 1 }]);
    }
  });

  test("is written again where its answer was lost, and then does nothing", async () => {
    await topics.put("orders", 1);
    const { operation } = await planJoin();
    expect(operation.afterLostAnswer).toBe("repeat");
    await queue.submit(operation);
    const before = dump();
    expect(await queue.submit(operation)).toMatchObject(VOID);
    expect(dump()).toEqual(before);
  });
});

describe("writeGroups() that ends a lease", () => {
  /** m1's lease has run out, m2 is alive, and what is due is planned. */
  async function expired(options: JoinOptions = {}) {
    await topics.put("orders", 2);
    const first = await join({ sessionTimeoutMs: 6_000, ...options });
    await join();
    await database.pass(6_000);
    const planned = await groups.plan([]);
    expect(planned.plan.expiredMemberIds).toEqual(["m1"]);
    return { first, ...planned };
  }

  test("gives what the member had to the others, and its acks count no more", async () => {
    const { first, operation } = await expired();
    expect(await queue.submit(operation)).toMatchObject({ version: expect.any(Number), isLate: false });
    expect(owners()).toEqual(["0:m2", "1:m2"]);
    expect(rows("SELECT member_id FROM members")).toEqual([{ member_id: "m2" }]);
    expect(await ack(first, 0)).toMatchObject([{ code: "fenced_generation" }]);
    expect(await queue.submit(renewLease(first))).toBe(false);
  });

  test("does nothing where the member was renewed meanwhile", async () => {
    const { first, operation } = await expired();
    expect(await queue.submit(renewLease(first))).toBe(true);
    const before = dump();
    expect(await queue.submit(operation)).toEqual({ version: undefined, isLate: false });
    expect(dump()).toEqual(before);
  });

  test("does nothing where the member's server process was renewed meanwhile", async () => {
    await topics.put("orders", 2);
    await otherProcess.join();
    await join();
    await database.pass(PROCESS_LEASE_MS);
    const { operation, plan } = await groups.plan([]);
    expect(plan.expiredMemberIds).toEqual(["m1"]);
    await database.run("UPDATE processes SET lease_expires_at = lease_expires_at + 1");
    expect(await queue.submit(operation)).toMatchObject(VOID);
    expect(rows("SELECT member_id FROM members")).toHaveLength(2);
  });

  test.each([
    { afterMs: 2_000, isLate: false },
    { afterMs: 2_001, isLate: true },
  ])("$afterMs ms after the look at it: too late is $isLate", async ({ afterMs, isLate }) => {
    const { operation } = await expired();
    await database.pass(afterMs);
    const before = dump();
    const { version, ...rest } = await queue.submit(operation);
    expect(rest).toEqual({ isLate });
    expect(version === undefined).toBe(isLate);
    if (isLate) expect(dump()).toEqual(before);
  });

  test("late does nothing of the rest of the plan either, and leaves its neighbours alone", async () => {
    const { first } = await expired();
    const late = await groups.plan([
      leaving(await groups.owned("m2")),
      { kind: "stall", member: refOf(first), partitions: first.partitions },
    ]);
    await database.pass(2_001);
    const other = await planJoin({ group: "other" });
    const [lost, won] = await Promise.all([queue.submit(late.operation), queue.submit(other.operation)]);
    expect(lost).toEqual({ version: undefined, isLate: true });
    expect(won).toMatchObject({ version: expect.any(Number), isLate: false });
    expect(rows("SELECT member_id FROM members WHERE group_id = 'billing'")).toHaveLength(2);
    expect(dump().guard).toEqual([]);
  });

  test("late does no harm to a plan that ends none, and is not said of it", async () => {
    await topics.put("orders", 1);
    const { operation } = await planJoin();
    await database.pass(2_001);
    expect(await queue.submit(operation)).toEqual({ version: 1, isLate: false });
    expect(owners()).toEqual(["0:m1"]);
  });

  test("is not planned while leases may have run out through no fault of their members", async () => {
    await expired();
    const { plan } = await groups.plan([], { mayExpire: false });
    expect([...plan.endedMemberIds, ...plan.expiredMemberIds]).toEqual([]);
  });

  test("takes a member over whose lease has run out, and does nothing where it was renewed", async () => {
    const { first } = await expired();
    const { operation } = await planJoin({ memberId: "m1" });
    await queue.submit(renewLease(first));
    expect(await queue.submit(operation)).toMatchObject(VOID);
    expect((await groups.owned("m1")).membership).toBe(first.membership);
    await join({ memberId: "m1" });
    expect((await groups.owned("m1")).membership).toBeGreaterThan(first.membership);
  });
});

// ── offsets ──────────────────────────────────────────────────────────────────────────────────────────────

const history = () =>
  rows("SELECT previous_offset, new_offset, cause, actor FROM offset_history ORDER BY history_id");
const committed = () =>
  rows("SELECT committed_offset, metadata FROM committed_offsets ORDER BY partition_id");

describe("policies", () => {
  test("commit the beginning for earliest and the end for latest", async () => {
    await topicOf(1, 5);
    await database.run("UPDATE partitions SET log_start_offset = 2");
    await join({ group: "a", policies: { missing: "earliest", outOfRange: "none" } });
    await join({ group: "b", policies: { missing: "latest", outOfRange: "none" } });
    expect(rows("SELECT group_id, committed_offset FROM committed_offsets ORDER BY group_id")).toEqual([
      { group_id: "a", committed_offset: 2 },
      { group_id: "b", committed_offset: 5 },
    ]);
    expect(history()).toEqual([
      { previous_offset: null, new_offset: 2, cause: "missing: earliest", actor: "member m1" },
      { previous_offset: null, new_offset: 5, cause: "missing: latest", actor: "member m1" },
    ]);
    expect(rows("SELECT group_id, reset FROM assignments ORDER BY group_id")).toEqual([
      { group_id: "a", reset: '"earliest"' },
      { group_id: "b", reset: '"latest"' },
    ]);
  });

  test("commit the first record at or after a time, and say so to the owner", async () => {
    await topics.put("orders", 1);
    for (let record = 0; record < 5; record += 1) {
      await produce(1);
      await database.pass(1_000);
    }
    const { partitions } = await join({ policies: { missing: { ago: 2_000 }, outOfRange: "none" } });
    expect(partitions).toMatchObject([{ committedOffset: 3, reset: { ago: 2_000 } }]);
    expect(history()).toMatchObject([{ previous_offset: null, new_offset: 3 }]);
  });

  test("of the member that gets the partition apply, not those of who asked for the rebalance", async () => {
    await topicOf(2, 5);
    await produce(5, "orders", 1);
    const first = await join({ policies: { missing: "latest", outOfRange: "latest" } });
    await join({ policies: { missing: "none", outOfRange: "earliest" } });
    await database.run("UPDATE partitions SET log_start_offset = 6, log_end_offset = 9");
    await database.pass(REVOKE_DEADLINE_MS);
    await groups.carryOut();
    expect((await groups.owned("m2")).partitions).toMatchObject([{ committedOffset: 6, reset: "earliest" }]);
    expect(committed()).toMatchObject([{ committed_offset: 5 }, { committed_offset: 6 }]);
    expect(history().at(-1)).toMatchObject({ cause: "outOfRange: earliest", actor: "member m2" });
    await groups.leave(await groups.owned("m2"));
    expect((await groups.owned(first.memberId)).partitions).toMatchObject([
      { committedOffset: 5 },
      { committedOffset: 6, reset: null },
    ]);
  });

  test("commit nothing and record nothing for none", async () => {
    await topicOf(1, 5);
    const { partitions } = await join({ policies: { missing: "none", outOfRange: "none" } });
    expect(partitions).toMatchObject([{ committedOffset: null, generation: 2, reset: null }]);
    expect([...committed(), ...history()]).toEqual([]);
  });

  test("leave a committed offset that can be used, with its metadata", async () => {
    await topicOf(1, 5);
    const policies = { missing: "latest", outOfRange: "latest" } as const;
    await join({ policies });
    await database.run("UPDATE committed_offsets SET committed_offset = 3, metadata = 'mine'");
    const second = await join({ memberId: "m1", policies });
    expect(second.partitions).toMatchObject([{ committedOffset: 3, metadata: "mine", reset: null }]);
    expect(history()).toHaveLength(1);
  });

  test.each([
    { where: "below the log start", committedOffset: 1, policy: "earliest", to: 2 },
    { where: "below the log start", committedOffset: 1, policy: "latest", to: 5 },
    { where: "above the log end", committedOffset: 9, policy: "earliest", to: 2 },
    { where: "above the log end", committedOffset: 9, policy: "latest", to: 5 },
  ] as const)(
    "move an offset $where to $policy and record from where",
    async ({ committedOffset, policy, to }) => {
      await topicOf(1, 5);
      await join();
      await database.run("UPDATE partitions SET log_start_offset = 2");
      await database.run(
        `UPDATE committed_offsets SET committed_offset = ${committedOffset}, metadata = 'old'`,
      );
      await database.pass(7);
      const again = await join({ memberId: "m1", policies: { missing: "none", outOfRange: policy } });
      expect(again.partitions).toMatchObject([{ committedOffset: to, metadata: null, reset: policy }]);
      expect(committed()).toEqual([{ committed_offset: to, metadata: null }]);
      expect(history().at(-1)).toEqual({
        previous_offset: committedOffset,
        new_offset: to,
        cause: `outOfRange: ${policy}`,
        actor: "member m1",
      });
      expect(rows("SELECT committed_at FROM committed_offsets")).toEqual([{ committed_at: START_MS + 7 }]);
      expect(rows("SELECT at FROM offset_history ORDER BY history_id DESC LIMIT 1")).toEqual([
        { at: START_MS + 7 },
      ]);
    },
  );

  test("never write over an ack that came between the plan and the write, where nothing was committed", async () => {
    await topicOf(1, 5);
    const first = await join({ policies: { missing: "none", outOfRange: "none" } });
    const { operation, resets } = await planJoin({ memberId: "m1" });
    expect(resets).toMatchObject([{ from: null, to: 0 }]);
    await ack(first, 3, "acked");
    await queue.submit(operation);
    expect((await groups.owned("m1")).partitions).toMatchObject([
      { committedOffset: 3, metadata: "acked", reset: null },
    ]);
    expect(history()).toEqual([]);
  });

  test("never write over an ack that came between the plan and the write, where the offset was out of range", async () => {
    await topicOf(2, 5);
    const first = await join();
    await database.run("UPDATE partitions SET log_start_offset = 2 WHERE partition = 0");
    const { resets, operation } = await planJoin({ memberId: "m1" });
    expect(resets).toMatchObject([{ partition: 0, from: 0, to: 2 }]);
    await ack(first, 4);
    await queue.submit(operation);
    expect(committed()).toMatchObject([{ committed_offset: 4 }, { committed_offset: 0 }]);
    expect(history()).toHaveLength(2); // of the first join
    expect((await groups.owned("m1")).partitions).toMatchObject([{ reset: null }, { reset: null }]);
  });

  test("start a topic that was created anew at its beginning, whatever the policy", async () => {
    await topics.put("orders", 1);
    await join();
    await topics.delete("orders");
    await topicOf(1, 4);
    await join({ memberId: "m1", policies: { missing: "latest", outOfRange: "latest" } });
    expect((await groups.owned("m1")).partitions).toMatchObject([
      { topicId: 2, committedOffset: 0, logEndOffset: 4 },
    ]);
    expect(rows("SELECT topic_id, partitions_seen FROM group_topics")).toEqual([
      { topic_id: 2, partitions_seen: 1 },
    ]);
    expect(history().at(-1)).toMatchObject({ new_offset: 0, cause: "new partition: earliest" });
  });
});

/** An operator's reset, planned from what the group is now, to be written now or later. */
async function plannedReset(
  to: PlaceTarget["to"],
  topicNames: readonly string[] = ["orders"],
  reason = "replay",
) {
  const target: PlaceTarget = { kind: "place", topics: topicNames.map((topic) => ({ topic })), to };
  const request: ResetRequest = { group: "billing", topics: topicNames, target, isDryRun: false, reason };
  const picture = await readGroup(db, "billing", request.topics);
  const steps = planReset(picture, request, new Map());
  const decision = resetChange(picture, request, steps);
  const planned = { op: queue.nextOp(), picture, ...decision, topics: topicNames };
  return { ...decision, operation: groups.write(planned) };
}

const reset = async (...args: Parameters<typeof plannedReset>) =>
  queue.submit((await plannedReset(...args)).operation);

describe("writeGroups() of an operator's reset", () => {
  test("moves the offsets, gives their owners new generations, and records who, when and why", async () => {
    await topicOf(2, 5);
    const first = await join({ policies: { missing: "latest", outOfRange: "latest" } });
    await database.pass(3);
    expect(await reset({ offset: 0 })).toMatchObject({ version: expect.any(Number) });
    expect(await ack(first, 5)).toMatchObject([{ committedOffset: 0, code: "fenced_generation" }]);
    const again = await groups.owned("m1");
    expect(again.membership).toBe(first.membership);
    expect(again.partitions).toMatchObject([
      { committedOffset: 0, reset: null },
      { committedOffset: 0, reset: null },
    ]);
    expect(rows("SELECT * FROM offset_history ORDER BY history_id").at(2)).toEqual({
      history_id: 3,
      group_id: "billing",
      topic: "orders",
      partition: 0,
      previous_offset: 5,
      new_offset: 0,
      cause: "reset: offset 0 (replay)",
      actor: "operator",
      at: START_MS + 3,
    });
  });

  test("does nothing at all where one of its offsets has moved", async () => {
    await topicOf(2, 5);
    await produce(5, "orders", 1);
    const joined = await join();
    const { operation } = await plannedReset("latest");
    await ack(joined, 2);
    const before = dump();
    expect(await queue.submit(operation)).toMatchObject(VOID);
    expect(dump()).toEqual(before);
    expect(before.guard).toEqual([]);
  });

  test("does nothing where an offset has come that was not there", async () => {
    await topicOf(1, 5);
    const joined = await join({ policies: { missing: "none", outOfRange: "none" } });
    const { operation } = await plannedReset("earliest");
    await ack(joined, 2);
    expect(await queue.submit(operation)).toMatchObject(VOID);
    expect(committed()).toMatchObject([{ committed_offset: 2 }]);
    expect(history()).toEqual([]);
  });

  test("does nothing where a rebalance came first", async () => {
    await topicOf(2, 5);
    await join();
    const { operation } = await plannedReset("latest");
    await join();
    const before = dump();
    expect(await queue.submit(operation)).toMatchObject(VOID);
    expect(dump()).toEqual(before);
  });

  test("does nothing where a topic that is new to the group was deleted", async () => {
    await topicOf(1);
    await topics.put("payments", 1);
    await join();
    const { operation } = await plannedReset("latest", ["orders", "payments"]);
    await topics.delete("payments");
    const before = dump();
    expect(await queue.submit(operation)).toMatchObject(VOID);
    expect(dump()).toEqual(before);
  });

  test("takes a partition that is being revoked from who is losing it, for the next to start there", async () => {
    await topicOf(2, 5);
    await produce(5, "orders", 1);
    await join();
    await join();
    await reset({ offset: 4 });
    expect(owners()).toEqual(["0:m1"]);
    await groups.carryOut();
    expect(owners()).toEqual(["0:m1", "1:m2"]);
    expect((await groups.owned("m2")).partitions).toMatchObject([{ committedOffset: 4, reset: null }]);
  });

  test("of a group without members, in a topic that is new to it, is what the next member starts from", async () => {
    await topicOf(1, 5);
    await topics.put("payments", 2);
    await groups.leave(await join());
    await reset("latest", ["orders", "payments"]);
    expect(rows("SELECT topic, partitions_seen FROM group_topics ORDER BY topic")).toEqual([
      { topic: "orders", partitions_seen: 1 },
      { topic: "payments", partitions_seen: 2 },
    ]);
    expect((await join()).partitions).toMatchObject([{ committedOffset: 5, reset: null }]);
  });

  test("is not asked for twice where its answer was lost", async () => {
    await topicOf(1, 5);
    await join();
    const { operation } = await plannedReset({ shift: 1 });
    expect(operation.afterLostAnswer).toBeUndefined();
  });

  test("of 10,000 partitions fits the arguments that a remote database takes", async () => {
    for (let topic = 0; topic < 10; topic += 1) await topics.put(`topic-${topic}-${"x".repeat(200)}`, 1_000);
    const names = (await topics.list()).map(({ topic }) => topic);
    const joined = await planJoin({ topics: names, newMemberId: crypto.randomUUID() });
    const longest = (statements: readonly { readonly args?: Readonly<Record<string, unknown>> }[]) =>
      Math.max(
        ...statements.flatMap(({ args = {} }) => Object.values(args).map((value) => `${value}`.length)),
      );
    expect(longest(joined.operation.statements)).toBeLessThan(4_100_000);
    await queue.submit(joined.operation);
    const { operation } = await plannedReset("latest", names, "x".repeat(METADATA_BYTES_MAX));
    expect(longest(operation.statements)).toBeLessThan(4_100_000);
    expect(await queue.submit(operation)).toMatchObject({ version: expect.any(Number) });
  }, 60_000);
});

// ── any sequence ─────────────────────────────────────────────────────────────────────────────────────────

const GROUPS = ["a", "b"] as const;
const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("join" as const),
      group: fc.constantFrom(...GROUPS),
      takesOver: fc.boolean(),
      instanceId: fc.constantFrom(undefined, undefined, "tab-1", "tab-2"),
      topics: fc.constantFrom(["orders"], ["payments"], ["orders", "payments"]),
      isElsewhere: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("end" as const), pick: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("release" as const), pick: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("stall" as const), pick: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("renew" as const), pick: fc.nat() }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("pass" as const), ms: fc.integer({ min: 1, max: 60_000 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant("carryOut" as const), group: fc.constantFrom(...GROUPS) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("grow" as const), partitions: fc.integer({ min: 3, max: 5 }) }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: "deleteTopic" as const }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("deleteGroup" as const), group: fc.constantFrom(...GROUPS) }),
  },
);

/** What is written of groups at any moment, whoever did what: nothing of it may be seen twice, or half. */
const INVARIANTS = `
  SELECT
    (SELECT count(*) FROM assignments AS a LEFT JOIN members AS m USING (group_id, member_id)
     WHERE m.member_id IS NULL) AS orphans,
    (SELECT count(*) FROM assignments AS a LEFT JOIN partitions AS p USING (partition_id)
     WHERE p.partition_id IS NULL) AS owned_of_nothing,
    (SELECT count(*) FROM assignments AS a JOIN partitions AS p USING (partition_id) JOIN topics AS t USING (topic_id)
     JOIN members AS m USING (group_id, member_id)
     WHERE NOT EXISTS (SELECT 1 FROM json_each(m.topics) AS wanted WHERE wanted.value = t.topic)) AS unwanted,
    (SELECT count(*) FROM (SELECT 1 FROM members WHERE instance_id IS NOT NULL
                           GROUP BY group_id, instance_id HAVING count(*) > 1)) AS instances_twice,
    (SELECT count(*) - count(DISTINCT generation) FROM assignments) AS generations_twice,
    (SELECT count(*) FROM groups, sequence WHERE version > last) AS versions_ahead,
    (SELECT count(*) FROM assignments, sequence WHERE generation > last) AS generations_ahead,
    (SELECT count(*) FROM guard) AS guards`;

const NONE = {
  orphans: 0,
  owned_of_nothing: 0,
  unwanted: 0,
  instances_twice: 0,
  generations_twice: 0,
  versions_ahead: 0,
  generations_ahead: 0,
  guards: 0,
};

test("joins, ends and expiries in any order leave one owner a partition, only of members that are there", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
      await database.empty();
      topics = openTopics();
      await topics.put("orders", 3);
      await topics.put("payments", 2);
      const known: Joined[] = [];
      const highestByPlace = new Map<string, number>();
      for (const [index, next] of steps.entries()) {
        const ended = await play(next, index, known);
        expect((await database.rows(INVARIANTS))[0]).toEqual(NONE);
        await expectRising(highestByPlace);
        if (ended !== undefined) await expectServed(ended);
      }
    }),
    { numRuns: 100 },
  );
}, 120_000);

type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** Returns the group that has just been brought in order. */
async function play(next: Step, index: number, known: Joined[]): Promise<string | undefined> {
  const picked = "pick" in next ? known[next.pick % (known.length || 1)] : undefined;
  switch (next.kind) {
    case "join": {
      const { group, takesOver, instanceId, isElsewhere } = next;
      const memberId = takesOver ? known.findLast((one) => one.group === group)?.memberId : undefined;
      const store = isElsewhere ? otherProcess : groups;
      const existing = await topics.list();
      const names = next.topics.filter((name) => existing.some(({ topic }) => topic === name));
      if (names.length === 0) return undefined;
      known.push(await store.join({ group, memberId, instanceId, topics: names, newMemberId: `n${index}` }));
      return group;
    }
    case "end":
      if (picked) await groups.leave(picked);
      return picked?.group;
    case "release":
      if (picked) await changePartitions("release", picked);
      return picked?.group;
    case "stall":
      if (picked) await changePartitions("stall", picked);
      return picked?.group;
    case "renew":
      if (picked) await queue.submit(renewLease(picked));
      return undefined;
    case "pass":
      await database.pass(next.ms);
      return undefined;
    case "carryOut":
      await groups.carryOut(next.group);
      return next.group;
    case "grow":
      await topics.put("orders", next.partitions).catch(() => {}); // it has more already
      return undefined;
    case "deleteTopic":
      await topics.delete("orders").catch(() => {}); // it is not there
      return undefined;
    case "deleteGroup":
      await queue.submit(deleteGroup({ op: queue.nextOp(), group: next.group })).catch(() => {}); // it has members
      return undefined;
  }
}

async function changePartitions(kind: "release" | "stall", { group, memberId, membership }: Joined) {
  const { partitions, members } = await readGroup(db, group, []);
  const own = partitions.flatMap(({ partitionId, owner }) =>
    owner?.memberId === memberId ? [{ partitionId, generation: owner.generation }] : [],
  );
  if (members.length > 0)
    await groups.change([{ kind, member: { group, memberId, membership }, partitions: own }], { group });
}

/** A partition's generation in a group never falls, whatever was deleted in between. */
async function expectRising(highestByPlace: Map<string, number>): Promise<void> {
  for (const { place, generation } of await database.rows(
    "SELECT group_id || '/' || partition_id AS place, generation FROM assignments",
  )) {
    expect(Number(generation)).toBeGreaterThanOrEqual(highestByPlace.get(`${place}`) ?? 0);
    highestByPlace.set(`${place}`, Number(generation));
  }
}

/** After a plan was written nothing is due: everything that somebody alive wants has an owner, fairly shared. */
async function expectServed(group: string): Promise<void> {
  const picture = await readGroup(db, group, []);
  expect(picture.members.filter(({ expiresInMs }) => expiresInMs <= 0)).toEqual([]);
  expect(isIdle(planGroup(picture, [], { mayExpire: true }))).toBe(true);
}

// ── for people ───────────────────────────────────────────────────────────────────────────────────────────

describe("the view group_members", () => {
  test("shows every column of every member to stock SQLite", async () => {
    await topics.put("orders", 2);
    await topics.put("payments", 1);
    await join({ group: "a", instanceId: "tab-7", topics: ["orders", "payments"] });
    await join({ group: "b", topics: ["payments"], sessionTimeoutMs: 6_000 });
    await database.run("DELETE FROM assignments WHERE group_id = 'b'");
    expect(rows("SELECT name FROM pragma_table_info('group_members')").map(({ name }) => name)).toEqual([
      "group_id",
      "member_id",
      "instance_id",
      "partitions",
      "lease_expires_at",
    ]);
    const [a, b] = rows("SELECT * FROM group_members ORDER BY group_id");
    expect(JSON.parse(String(a?.partitions))).toEqual([
      { topic: "orders", partition: 0, generation: 2 },
      { topic: "orders", partition: 1, generation: 3 },
      { topic: "payments", partition: 0, generation: 4 },
    ]);
    expect(a).toEqual({
      group_id: "a",
      member_id: "m1",
      instance_id: "tab-7",
      partitions: expect.any(String),
      lease_expires_at: new Date(START_MS + TIMEOUT_MS).toISOString(),
    });
    expect(b).toEqual({
      group_id: "b",
      member_id: "m1",
      instance_id: null,
      partitions: "[]",
      lease_expires_at: new Date(START_MS + 6_000).toISOString(),
    });
  });

  test("shows what each of several members owns, revoked or not", async () => {
    await topics.put("orders", 3);
    await join();
    await join();
    const partitions = () =>
      rows("SELECT partitions FROM group_members ORDER BY member_id").map((row) =>
        JSON.parse(String(row.partitions)).map(({ partition }: { partition: number }) => partition),
      );
    expect(partitions()).toEqual([[0, 1, 2], []]);
    await database.pass(REVOKE_DEADLINE_MS);
    await groups.carryOut();
    expect(partitions()).toEqual([[0, 1], [2]]);
  });

  test("shows the lease of a server process where a member hangs on it", async () => {
    await topics.put("orders", 1);
    await otherProcess.join();
    await otherProcess.join({ instanceId: "tab-7" });
    expect(rows("SELECT lease_expires_at FROM group_members ORDER BY member_id")).toEqual([
      { lease_expires_at: new Date(START_MS + PROCESS_LEASE_MS).toISOString() },
      { lease_expires_at: new Date(START_MS + TIMEOUT_MS).toISOString() },
    ]);
  });
});

describe("the view commit_history", () => {
  test("shows every column of every reset to stock SQLite, oldest first", async () => {
    await topicOf(1, 5);
    await join({ policies: { missing: "latest", outOfRange: "none" } });
    await database.run("UPDATE partitions SET log_start_offset = 6, log_end_offset = 8");
    await database.pass(1_001);
    await join({ memberId: "m1" });
    await database.pass(1_000);
    await reset("latest");
    const shared = { group_id: "billing", topic: "orders", partition: 0 };
    const at = (ms: number) => new Date(START_MS + ms).toISOString();
    expect(rows("SELECT * FROM commit_history")).toEqual([
      {
        ...shared,
        previous_offset: null,
        new_offset: 5,
        cause: "missing: latest",
        actor: "member m1",
        at: at(0),
      },
      {
        ...shared,
        previous_offset: 5,
        new_offset: 6,
        cause: "outOfRange: earliest",
        actor: "member m1",
        at: at(1_001),
      },
      {
        ...shared,
        previous_offset: 6,
        new_offset: 8,
        cause: "reset: latest (replay)",
        actor: "operator",
        at: at(2_001),
      },
    ]);
    expect(rows("SELECT name FROM pragma_table_info('commit_history')").map(({ name }) => name)).toEqual([
      "group_id",
      "topic",
      "partition",
      "previous_offset",
      "new_offset",
      "cause",
      "actor",
      "at",
    ]);
  });
});

describe("the tables of groups", () => {
  test("refuse to lose a group that has topics, members, assignments or offsets", async () => {
    await topics.put("orders", 1);
    await join();
    const before = dump();
    await expect(database.run("DELETE FROM groups")).rejects.toMatchObject({ failure: "rejected" });
    expect(dump()).toEqual(before);
    for (const table of ["assignments", "members", "committed_offsets", "group_topics"])
      await database.run(`DELETE FROM ${table}`);
    await database.run("DELETE FROM groups");
    expect(rows("SELECT count(*) AS n FROM offset_history")).toEqual([{ n: 1 }]); // what happened stays told
  });

  test.each([
    "INSERT INTO members VALUES ('no', 'm', NULL, 1, '[]', 1, 1, 1, '{}', NULL)",
    "INSERT INTO assignments VALUES ('no', 1, 'm', 1, NULL, NULL)",
    "INSERT INTO committed_offsets VALUES ('no', 1, 1, NULL, 1)",
    "INSERT INTO group_topics VALUES ('no', 'orders', 1, 1)",
  ])("refuse a row of a group that is not there: %s", async (sql) => {
    await expect(database.run(sql)).rejects.toMatchObject({ failure: "rejected" });
  });
});
