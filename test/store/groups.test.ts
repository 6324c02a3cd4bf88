import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type GainRequest,
  type Joined,
  type JoinRequest,
  planGain,
  planJoin,
} from "../../src/core/membership.ts";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import type { MembershipRef } from "../../src/core/session/state.ts";
import { commitOffsets } from "../../src/store/commits.ts";
import { readGroup, writeGain, writeJoin } from "../../src/store/groups.ts";
import {
  endExpiredMemberships,
  endMembership,
  endMembershipsWithoutInstance,
  msUntilNextExpiry,
  renewLease,
} from "../../src/store/leases.ts";
import { appendRecords } from "../../src/store/records.ts";
import { Topics } from "../../src/store/topics.ts";
import { openQueue, openTestDatabase, START_MS, stockRows, WatchedDb } from "../support/database.ts";

const database = await openTestDatabase();
const { db } = database;
const queue = openQueue(db);
let topics = new Topics({ db, queue, createsOnFirstUse: true });

afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  topics = new Topics({ db, queue, createsOnFirstUse: true });
});

const TIMEOUT_MS = 45_000;
let lastOp = 0;

function request(options: Partial<JoinRequest> = {}): JoinRequest {
  return {
    group: "billing",
    topics: ["orders"],
    memberId: undefined,
    instanceId: undefined,
    newMemberId: "m1",
    policies: { missing: "earliest", outOfRange: "earliest" },
    sessionTimeoutMs: TIMEOUT_MS,
    ...options,
  };
}

/** A join that is planned from what the group is now, to be written now or later. */
async function planned(options: Partial<JoinRequest> = {}) {
  const asked = request(options);
  const snapshot = await readGroup(db, asked.group, asked.topics);
  const plan = planJoin(asked, snapshot);
  lastOp += 1;
  return { plan, operation: writeJoin({ op: lastOp, request: asked, version: snapshot.version, plan }) };
}

async function join(options: Partial<JoinRequest> = {}): Promise<Joined> {
  const joined = await queue.submit((await planned(options)).operation);
  if (!joined) throw new Error("the group has changed while it was joined");
  return joined;
}

async function produce(count: number, topic = "orders", partition = 0): Promise<void> {
  const list = parseJsonProduce(
    JSON.stringify({ records: Array.from({ length: count }, (_, value) => ({ value })) }),
  );
  await queue.submit(appendRecords(await topics.require(topic), [{ partition, records: list }]));
}

async function ack(
  { partitions }: Joined,
  offset: number,
  metadata: string | null = null,
  group = "billing",
) {
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

const refOf = ({ memberId, membership }: Joined, group = "billing"): MembershipRef => ({
  group,
  memberId,
  membership,
});

const rows = (sql: string) => stockRows(database.path, sql);
const versionOf = (group = "billing") =>
  rows(`SELECT version FROM groups WHERE group_id = '${group}'`)[0]?.version;

/** Everything that is in the database of groups. */
const dump = () =>
  Object.fromEntries(
    [
      "groups",
      "group_topics",
      "members",
      "assignments",
      "committed_offsets",
      "offset_history",
      "guard",
      "sequence",
    ].map((table) => [table, rows(`SELECT * FROM ${table}`)]),
  );

describe("writeJoin()", () => {
  test("writes one membership and all that belongs to it", async () => {
    await topics.put("orders", 2);
    await produce(3);
    const joined = await join();
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
        },
      ],
      assignments: [
        { group_id: "billing", partition_id: 1, member_id: "m1", generation: 2 },
        { group_id: "billing", partition_id: 2, member_id: "m1", generation: 3 },
      ],
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
      sequence: [{ last: 3 }],
    });
    const shared = { topic: "orders", topicId: 1, committedOffset: 0, metadata: null, logStartOffset: 0 };
    expect(joined).toEqual({
      memberId: "m1",
      membership: 1,
      partitions: [
        { ...shared, partition: 0, partitionId: 1, generation: 2, logEndOffset: 3 },
        { ...shared, partition: 1, partitionId: 2, generation: 3, logEndOffset: 0 },
      ],
    });
  });

  test("is one transaction, history included", async () => {
    await topics.put("orders", 2);
    const watched = new WatchedDb(db);
    await openQueue(watched).submit((await planned()).operation);
    expect(watched.writes).toHaveLength(1);
    expect(rows("SELECT count(*) AS n FROM offset_history")).toEqual([{ n: 2 }]);
  });

  test("that the database refuses half way leaves nothing", async () => {
    await topics.put("orders", 2);
    const { operation } = await planned();
    const before = dump();
    const broken = {
      ...operation,
      statements: [...operation.statements, { sql: "INSERT INTO nowhere VALUES (1)" }],
    };
    const outcome = queue.submit(broken).catch((error: unknown) => error);
    expect(await outcome).toMatchObject({ code: "internal" });
    expect(dump()).toEqual(before);
  });

  test("assigns the partitions of every topic it names, in the order of the names", async () => {
    await topics.put("orders", 2);
    await topics.put("payments", 1);
    const { partitions } = await join({ topics: ["payments", "orders"] });
    expect(partitions.map(({ topic, partition, generation }) => [topic, partition, generation])).toEqual([
      ["payments", 0, 2],
      ["orders", 0, 3],
      ["orders", 1, 4],
    ]);
    expect(rows("SELECT topics FROM members")).toEqual([{ topics: '["payments","orders"]' }]);
  });

  test("gives the static name and the lease that were asked for", async () => {
    await topics.put("orders", 1);
    await join({ instanceId: "tab-7", sessionTimeoutMs: 6_000 });
    expect(rows("SELECT instance_id, session_timeout_ms, lease_expires_at FROM members")).toEqual([
      { instance_id: "tab-7", session_timeout_ms: 6_000, lease_expires_at: START_MS + 6_000 },
    ]);
  });

  test("takes over: the old membership and its assignments are gone, everything has a new number", async () => {
    await topics.put("orders", 2);
    const first = await join();
    await ack(first, 0, "kept");
    const second = await join({ memberId: "m1", newMemberId: "m2" });
    expect(second.memberId).toBe("m1");
    expect(second.membership).toBeGreaterThan(first.membership);
    const generations = [...first.partitions, ...second.partitions].map(({ generation }) => generation);
    expect(generations).toEqual(generations.toSorted((a, b) => a - b));
    expect(new Set(generations).size).toBe(4);
    expect(rows("SELECT member_id, membership FROM members")).toEqual([
      { member_id: "m1", membership: second.membership },
    ]);
    expect(rows("SELECT generation FROM assignments ORDER BY generation")).toEqual(
      second.partitions.map(({ generation }) => ({ generation })),
    );
  });

  test("takes over by instance under a new member, and the old one is gone", async () => {
    await topics.put("orders", 1);
    await join({ instanceId: "tab-7" });
    await join({ instanceId: "tab-7", newMemberId: "m2" });
    expect(rows("SELECT member_id, instance_id FROM members")).toEqual([
      { member_id: "m2", instance_id: "tab-7" },
    ]);
    expect(rows("SELECT member_id FROM assignments")).toEqual([{ member_id: "m2" }]);
  });

  test("with fewer topics lets go of the others and remembers that the group had them", async () => {
    await topics.put("orders", 1);
    await topics.put("payments", 1);
    await join({ topics: ["orders", "payments"] });
    await join({ memberId: "m1", topics: ["payments"] });
    expect(rows("SELECT partition_id FROM assignments")).toEqual([{ partition_id: 2 }]);
    expect(rows("SELECT topic FROM group_topics ORDER BY topic")).toEqual([
      { topic: "orders" },
      { topic: "payments" },
    ]);
    expect(rows("SELECT partition_id FROM committed_offsets ORDER BY partition_id")).toHaveLength(2);
  });

  test("leaves another group alone", async () => {
    await topics.put("orders", 1);
    await join({ group: "other" });
    const before = (table: string) => rows(`SELECT * FROM ${table} WHERE group_id = 'other'`);
    const tables = ["groups", "members", "assignments", "committed_offsets", "offset_history"];
    const others = tables.map(before);
    await join();
    await join({ memberId: "m1" });
    expect(tables.map(before)).toEqual(others);
    expect(rows("SELECT count(*) AS n FROM members")).toEqual([{ n: 2 }]);
  });

  test("ends a member whose lease has run out", async () => {
    await topics.put("orders", 1);
    await join();
    await database.pass(TIMEOUT_MS);
    await join({ newMemberId: "m2" });
    expect(rows("SELECT member_id FROM members")).toEqual([{ member_id: "m2" }]);
    expect(rows("SELECT member_id FROM assignments")).toEqual([{ member_id: "m2" }]);
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

  test("are never shared between groups, partitions or servers", async () => {
    await topics.put("orders", 3);
    const otherQueue = openQueue(await database.openSecond());
    const all: number[] = [];
    for (let round = 0; round < 6; round += 1) {
      const { operation } = await planned({ group: `group-${round % 3}`, memberId: "m1" });
      const joined = await (round % 2 === 0 ? queue : otherQueue).submit(operation);
      all.push(...(joined?.partitions ?? []).map(({ generation }) => generation));
    }
    expect(all).toHaveLength(18);
    expect(new Set(all).size).toBe(18);
  });
});

describe("writeJoin() that was planned from an old picture", () => {
  test.each([
    ["another joined", async () => void (await join({ newMemberId: "other" }))],
    [
      "another joined and left",
      async () => void (await queue.submit(endMembership(refOf(await join({ newMemberId: "other" }))))),
    ],
  ])("does nothing and settles to undefined where %s", async (_, meanwhile) => {
    await topics.put("orders", 2);
    const { operation } = await planned();
    await meanwhile();
    const before = dump();
    expect(await queue.submit(operation)).toBeUndefined();
    expect(dump()).toEqual(before);
    expect(before.guard).toEqual([]);
  });

  test("does nothing where the member that it takes over has rejoined", async () => {
    await topics.put("orders", 1);
    await join();
    const { operation } = await planned({ memberId: "m1" });
    await join({ memberId: "m1" });
    const before = dump();
    expect(await queue.submit(operation)).toBeUndefined();
    expect(dump()).toEqual(before);
  });

  test("of two in one flush does nothing for the second, and neither disturbs their neighbours", async () => {
    await topics.put("orders", 2);
    const first = await planned({ newMemberId: "first" });
    const second = await planned({ newMemberId: "second" });
    const watched = new WatchedDb(db);
    const shared = openQueue(watched);
    const other = await planned({ group: "other", newMemberId: "third" });
    const [won, lost, third] = await Promise.all(
      [first, second, other].map(({ operation }) => shared.submit(operation)),
    );
    expect(watched.writes).toHaveLength(1);
    expect(won?.memberId).toBe("first");
    expect(lost).toBeUndefined();
    expect(third?.partitions).toHaveLength(2);
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
        Array.from({ length: 6 }, (_, i) => planned({ group, newMemberId: `m${i}` })),
      );
      const results = [];
      for (const [i, { operation }] of plans.entries())
        results.push(await (i % 2 === round % 2 ? queue : otherQueue).submit(operation));
      expect(results.filter((joined) => joined !== undefined)).toHaveLength(1);
      expect(rows(`SELECT count(*) AS n FROM members WHERE group_id = '${group}'`)).toEqual([{ n: 1 }]);
    }
  });
});

describe("policies", () => {
  const history = () =>
    rows("SELECT previous_offset, new_offset, cause, actor FROM offset_history ORDER BY history_id");
  const committed = () =>
    rows("SELECT committed_offset, metadata FROM committed_offsets ORDER BY partition_id");

  test("commit the beginning for earliest and the end for latest", async () => {
    await topics.put("orders", 1);
    await produce(5);
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
  });

  test("commit nothing and record nothing for none", async () => {
    await topics.put("orders", 1);
    await produce(5);
    const { partitions } = await join({ policies: { missing: "none", outOfRange: "none" } });
    expect(partitions).toMatchObject([{ committedOffset: null, generation: 2 }]);
    expect(committed()).toEqual([]);
    expect(history()).toEqual([]);
  });

  test("leave a committed offset that can be used, with its metadata", async () => {
    await topics.put("orders", 1);
    await produce(5);
    const first = await join({ policies: { missing: "latest", outOfRange: "latest" } });
    await database.run("UPDATE committed_offsets SET committed_offset = 3, metadata = 'mine'");
    const second = await join({
      memberId: first.memberId,
      policies: { missing: "latest", outOfRange: "latest" },
    });
    expect(second.partitions).toMatchObject([{ committedOffset: 3, metadata: "mine" }]);
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
      await topics.put("orders", 1);
      await produce(5);
      await join();
      await database.run("UPDATE partitions SET log_start_offset = 2");
      await database.run(
        `UPDATE committed_offsets SET committed_offset = ${committedOffset}, metadata = 'old'`,
      );
      await database.pass(7);
      const again = await join({ memberId: "m1", policies: { missing: "none", outOfRange: policy } });
      expect(again.partitions).toMatchObject([{ committedOffset: to, metadata: null }]);
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
    await topics.put("orders", 1);
    await produce(5);
    const first = await join({ policies: { missing: "none", outOfRange: "none" } });
    const { operation } = await planned({ memberId: "m1" });
    await ack(first, 3, "acked");
    const second = await queue.submit(operation);
    expect(second?.partitions).toMatchObject([{ committedOffset: 3, metadata: "acked" }]);
    expect(committed()).toEqual([{ committed_offset: 3, metadata: "acked" }]);
    expect(history()).toEqual([]);
  });

  test("never write over an ack that came between the plan and the write, where the offset was out of range", async () => {
    await topics.put("orders", 2);
    await produce(5);
    const first = await join();
    await database.run("UPDATE partitions SET log_start_offset = 2 WHERE partition = 0");
    const { plan, operation } = await planned({ memberId: "m1" });
    expect(plan.resets).toMatchObject([{ partition: 0, from: 0, to: 2 }]);
    await ack(first, 4);
    await queue.submit(operation);
    expect(committed()).toMatchObject([{ committed_offset: 4 }, { committed_offset: 0 }]);
    expect(history()).toHaveLength(2); // of the first join
  });

  test("start a topic that was created anew at its beginning, whatever the policy", async () => {
    await topics.put("orders", 1);
    await join();
    await db.write(
      ["assignments", "committed_offsets", "partitions", "topics"].map((t) => ({ sql: `DELETE FROM ${t}` })),
    );
    topics = new Topics({ db, queue, createsOnFirstUse: true });
    await topics.put("orders", 1);
    await produce(4);
    const { partitions } = await join({
      memberId: "m1",
      policies: { missing: "latest", outOfRange: "latest" },
    });
    expect(partitions).toMatchObject([{ topicId: 2, committedOffset: 0, logEndOffset: 4 }]);
    expect(rows("SELECT topic_id, partitions_seen FROM group_topics")).toEqual([
      { topic_id: 2, partitions_seen: 1 },
    ]);
    expect(history().at(-1)).toMatchObject({ new_offset: 0, cause: "new partition: earliest" });
  });

  test("start partitions that the group has not seen at their beginning, whatever the policy", async () => {
    await topics.put("orders", 1);
    await produce(4);
    await join({ policies: { missing: "latest", outOfRange: "latest" } });
    await db.write([
      {
        sql: "INSERT INTO partitions (topic_id, partition, log_start_offset, log_end_offset) VALUES (1, 1, 3, 9)",
      },
      { sql: "UPDATE topics SET partition_count = 2" },
    ]);
    const { partitions } = await join({
      memberId: "m1",
      policies: { missing: "latest", outOfRange: "latest" },
    });
    expect(partitions.map(({ committedOffset }) => committedOffset)).toEqual([4, 3]);
    expect(rows("SELECT partitions_seen FROM group_topics")).toEqual([{ partitions_seen: 2 }]);
  });
});

describe("endMembership()", () => {
  test("ends the membership and its assignments, keeps the group and its offsets, and is told", async () => {
    await topics.put("orders", 2);
    const joined = await join();
    const version = versionOf();
    expect(await queue.submit(endMembership(refOf(joined)))).toEqual([refOf(joined)]);
    const { members, assignments, committed_offsets, groups } = dump();
    expect({ members, assignments }).toEqual({ members: [], assignments: [] });
    expect(committed_offsets).toHaveLength(2);
    expect(groups).toMatchObject([{ group_id: "billing" }]);
    expect(versionOf()).toBeGreaterThan(Number(version));
  });

  test("of an older membership after a rejoin does nothing", async () => {
    await topics.put("orders", 2);
    const old = await join();
    await join({ memberId: "m1" });
    const before = dump();
    expect(await queue.submit(endMembership(refOf(old)))).toEqual([]);
    expect(dump()).toEqual(before);
  });

  test("twice does nothing the second time", async () => {
    await topics.put("orders", 1);
    const joined = await join();
    await queue.submit(endMembership(refOf(joined)));
    const before = dump();
    expect(await queue.submit(endMembership(refOf(joined)))).toEqual([]);
    expect(dump()).toEqual(before);
  });

  test("leaves a member of the same name in another group alone", async () => {
    await topics.put("orders", 1);
    await join({ group: "other" });
    const other = rows("SELECT * FROM members WHERE group_id = 'other'");
    await queue.submit(endMembership(refOf(await join())));
    expect(rows("SELECT * FROM members")).toEqual(other);
    expect(rows("SELECT group_id FROM assignments")).toEqual([{ group_id: "other" }]);
  });

  test("makes a plan void that still counts on the member", async () => {
    await topics.put("orders", 1);
    const joined = await join();
    const { operation } = await planned({ memberId: "m1" });
    await queue.submit(endMembership(refOf(joined)));
    expect(await queue.submit(operation)).toBeUndefined();
  });
});

describe("leases", () => {
  test("are renewed from the time of the database", async () => {
    await topics.put("orders", 1);
    const joined = await join();
    await database.pass(10_000);
    expect(await queue.submit(renewLease(refOf(joined)))).toBe(true);
    expect(rows("SELECT lease_expires_at FROM members")).toEqual([
      { lease_expires_at: START_MS + 10_000 + TIMEOUT_MS },
    ]);
  });

  test("of a membership that has ended, or is an older one, are not renewed", async () => {
    await topics.put("orders", 1);
    const old = await join();
    const joined = await join({ memberId: "m1" });
    await database.pass(10_000);
    expect(await queue.submit(renewLease(refOf(old)))).toBe(false);
    expect(rows("SELECT lease_expires_at FROM members")).toEqual([
      { lease_expires_at: START_MS + TIMEOUT_MS },
    ]);
    await queue.submit(endMembership(refOf(joined)));
    expect(await queue.submit(renewLease(refOf(joined)))).toBe(false);
    expect(rows("SELECT * FROM members")).toEqual([]);
  });

  test("end at their last millisecond and not one before", async () => {
    await topics.put("orders", 1);
    const joined = await join();
    await database.pass(TIMEOUT_MS - 1);
    expect(await queue.submit(endExpiredMemberships())).toEqual([]);
    expect(rows("SELECT member_id FROM assignments")).toHaveLength(1);
    await database.pass(1);
    expect(await queue.submit(endExpiredMemberships())).toEqual([refOf(joined)]);
    expect(dump()).toMatchObject({ members: [], assignments: [] });
  });

  test("of several groups end together, and those that still run do not", async () => {
    await topics.put("orders", 2);
    const a = await join({ group: "a", sessionTimeoutMs: 6_000 });
    const b = await join({ group: "b", sessionTimeoutMs: 7_000 });
    await join({ group: "c", sessionTimeoutMs: 9_000 });
    const versions = { a: versionOf("a"), b: versionOf("b"), c: versionOf("c") };
    await database.pass(8_000);
    const ended = await queue.submit(endExpiredMemberships());
    expect(ended.toSorted((x, y) => x.group.localeCompare(y.group))).toEqual([refOf(a, "a"), refOf(b, "b")]);
    expect(rows("SELECT DISTINCT group_id FROM assignments")).toEqual([{ group_id: "c" }]);
    expect(versionOf("a")).toBeGreaterThan(Number(versions.a));
    expect(versionOf("b")).toBeGreaterThan(Number(versions.b));
    expect(versionOf("c")).toBe(versions.c);
  });

  test("end with their assignments even when time goes on between the statements", async () => {
    await topics.put("orders", 1);
    await join({ group: "a", sessionTimeoutMs: 6_000 });
    await join({ group: "b", sessionTimeoutMs: 6_001 });
    // A clock that moves by a millisecond as soon as the first member's assignments are gone.
    await db.script(`
      ALTER TABLE clock RENAME TO base_clock;
      CREATE VIEW clock (now_ms) AS SELECT now_ms + 2 - (SELECT count(*) FROM assignments) FROM base_clock;`);
    try {
      await database.run("UPDATE base_clock SET now_ms = now_ms + 6000");
      await queue.submit(endExpiredMemberships());
      const orphans =
        "SELECT group_id FROM assignments WHERE (group_id, member_id) NOT IN (SELECT group_id, member_id FROM members)";
      expect(rows(orphans)).toEqual([]);
      expect(rows("SELECT group_id FROM members")).toEqual(rows("SELECT group_id FROM assignments"));
    } finally {
      await db.script("DROP VIEW clock; ALTER TABLE base_clock RENAME TO clock;");
    }
  });

  test("of members without an instance are ended by a server that opens the file, the others stay", async () => {
    await topics.put("orders", 1);
    const dynamic = await join({ group: "a" });
    await join({ group: "b", instanceId: "tab-7" });
    const b = rows("SELECT * FROM members WHERE group_id = 'b'");
    expect(await queue.submit(endMembershipsWithoutInstance())).toEqual([refOf(dynamic, "a")]);
    expect(rows("SELECT * FROM members")).toEqual(b);
    expect(rows("SELECT group_id FROM assignments")).toEqual([{ group_id: "b" }]);
    expect(await queue.submit(endMembershipsWithoutInstance())).toEqual([]);
  });

  test("say when the next one runs out: the nearest, never less than now, nothing where there is none", async () => {
    await topics.put("orders", 1);
    expect(await msUntilNextExpiry(db)).toBeUndefined();
    await join({ group: "a", sessionTimeoutMs: 9_000 });
    await join({ group: "b", sessionTimeoutMs: 6_000 });
    await database.pass(1_000);
    expect(await msUntilNextExpiry(db)).toBe(5_000);
    await database.pass(60_000);
    expect(await msUntilNextExpiry(db)).toBe(0);
  });
});

describe("readGroup()", () => {
  test("says of a group that is not there that it has nothing, and shows the partitions of topics that are", async () => {
    await topics.put("orders", 2);
    expect(await readGroup(db, "billing", ["nowhere", "orders"])).toEqual({
      version: 0,
      members: [],
      partitions: [0, 1].map((partition) => ({
        topic: "orders",
        topicId: 1,
        partition,
        partitionId: partition + 1,
        logStartOffset: 0,
        logEndOffset: 0,
        committedOffset: null,
        ownerMemberId: null,
        partitionsSeen: 0,
        topicIdSeen: null,
      })),
    });
  });

  test("shows members with their leases as the database's clock sees them", async () => {
    await topics.put("orders", 1);
    await join({ instanceId: "tab-7" });
    await database.pass(TIMEOUT_MS - 1);
    const member = { memberId: "m1", membership: 1, instanceId: "tab-7" };
    expect((await readGroup(db, "billing", ["orders"])).members).toEqual([{ ...member, isExpired: false }]);
    await database.pass(1);
    expect((await readGroup(db, "billing", ["orders"])).members).toEqual([{ ...member, isExpired: true }]);
  });
});

describe("writeGain()", () => {
  const deleteTopic = (topicId: number) =>
    db.write([
      { sql: "DELETE FROM assignments" },
      { sql: "DELETE FROM committed_offsets" },
      { sql: "DELETE FROM partitions WHERE topic_id = :id", args: { id: topicId } },
      { sql: "DELETE FROM topics WHERE topic_id = :id", args: { id: topicId } },
    ]);
  const growTo = (partition: number) =>
    database.run("INSERT INTO partitions (topic_id, partition) VALUES (1, :partition)", { partition });

  /** A gain that is planned from what the group is now, to be written now or later. */
  async function plannedGain(joined: Joined, options: Partial<GainRequest> = {}) {
    const asked = {
      ...refOf(joined),
      topics: ["orders"],
      policies: { missing: "latest", outOfRange: "latest" },
      lostPartitionIds: [],
      ...options,
    } as const;
    const snapshot = await readGroup(db, asked.group, asked.topics);
    const plan = planGain(asked, snapshot);
    if (!plan) throw new Error("the membership has ended");
    lastOp += 1;
    return writeGain({ op: lastOp, group: asked.group, version: snapshot.version, plan });
  }
  const assignments = () =>
    rows("SELECT partition_id, member_id, generation FROM assignments ORDER BY partition_id");

  test("gives what has grown, committed at its beginning, and leaves the rest and the membership alone", async () => {
    await topics.put("orders", 1);
    await produce(3);
    const joined = await join();
    const member = rows("SELECT * FROM members");
    await growTo(1);
    const gained = await queue.submit(await plannedGain(joined));
    expect(gained).toEqual({
      memberId: "m1",
      membership: joined.membership,
      partitions: [
        {
          topic: "orders",
          topicId: 1,
          partition: 1,
          partitionId: 2,
          generation: 4,
          committedOffset: 0,
          metadata: null,
          logStartOffset: 0,
          logEndOffset: 0,
        },
      ],
    });
    expect(assignments()).toEqual([
      { partition_id: 1, member_id: "m1", generation: 2 },
      { partition_id: 2, member_id: "m1", generation: 4 },
    ]);
    expect(rows("SELECT * FROM members")).toEqual(member);
    expect(rows("SELECT partitions_seen FROM group_topics")).toEqual([{ partitions_seen: 2 }]);
    expect(rows("SELECT partition, new_offset, cause FROM offset_history").at(-1)).toEqual({
      partition: 1,
      new_offset: 0,
      cause: "new partition: earliest",
    });
    expect(versionOf()).toBe(3);
  });

  test("gives what was lost again in a new generation, from the committed offset with its metadata", async () => {
    await topics.put("orders", 2);
    const joined = await join();
    await produce(5);
    await ack(joined, 3, "three");
    const gained = await queue.submit(await plannedGain(joined, { lostPartitionIds: [1] }));
    expect(gained?.partitions).toMatchObject([
      { partitionId: 1, generation: 5, committedOffset: 3, metadata: "three" },
    ]);
    expect(await ack(joined, 4)).toMatchObject([{ committedOffset: 3, code: "fenced_generation" }]);
    if (gained) expect(await ack(gained, 4)).toMatchObject([{ committedOffset: 4 }]);
  });

  test("gives generations above every earlier one, join or gain", async () => {
    await topics.put("orders", 1);
    const joined = await join();
    const generations = [joined.partitions[0]?.generation ?? 0];
    for (let times = 0; times < 3; times += 1) {
      const gained = await queue.submit(await plannedGain(joined, { lostPartitionIds: [1] }));
      generations.push(gained?.partitions[0]?.generation ?? 0);
    }
    const again = await join({ memberId: "m1" });
    generations.push(again.partitions[0]?.generation ?? 0);
    expect(generations).toEqual([...new Set(generations)].sort((a, b) => a - b));
  });

  const changes: readonly [title: string, change: (joined: Joined) => Promise<unknown>][] = [
    ["was joined by somebody else", () => join({ memberId: "m1" })],
    ["was left", (joined) => queue.submit(endMembership(refOf(joined)))],
    ["has gained already", async (joined) => queue.submit(await plannedGain(joined))],
    ["lost the topic that it gains", () => deleteTopic(1)],
  ];
  for (const [title, change] of changes) {
    test(`of a group that ${title} in between writes nothing`, async () => {
      await topics.put("orders", 1);
      const joined = await join();
      await growTo(1);
      const gain = await plannedGain(joined);
      await change(joined);
      const before = dump();
      expect(await queue.submit(gain)).toBeUndefined();
      expect(dump()).toEqual(before);
    });
  }

  test("writes no policy over an ack that came in between, and says where the group stands", async () => {
    await topics.put("orders", 1);
    await produce(9);
    const joined = await join();
    await database.run("UPDATE partitions SET log_start_offset = 5");
    const gain = await plannedGain(joined, { lostPartitionIds: [1] });
    await ack(joined, 7);
    expect((await queue.submit(gain))?.partitions).toMatchObject([{ committedOffset: 7 }]);
    expect(rows("SELECT new_offset FROM offset_history")).toEqual([{ new_offset: 0 }]);
  });
});

test("writeJoin() of a group's first member to a topic that was deleted in between writes nothing", async () => {
  await topics.put("orders", 1);
  const { operation } = await planned();
  await db.write([{ sql: "DELETE FROM partitions" }, { sql: "DELETE FROM topics" }]);
  const before = dump();
  expect(await queue.submit(operation)).toBeUndefined();
  expect(dump()).toEqual(before);
});

test("joins, ends and expiries in any order leave one owner a partition, only of members that are there", async () => {
  const step = fc.oneof(
    fc.record({
      kind: fc.constant("join" as const),
      group: fc.constantFrom("a", "b"),
      takesOver: fc.boolean(),
    }),
    fc.record({ kind: fc.constant("end" as const), pick: fc.nat() }),
    fc.record({ kind: fc.constant("renew" as const), pick: fc.nat() }),
    fc.record({ kind: fc.constant("pass" as const), ms: fc.integer({ min: 1, max: 60_000 }) }),
    fc.record({ kind: fc.constant("expire" as const) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 15 }), async (steps) => {
      await database.empty();
      topics = new Topics({ db, queue, createsOnFirstUse: true });
      await topics.put("orders", 2);
      const memberships: MembershipRef[] = [];
      let highest = 0;
      for (const [index, next] of steps.entries()) {
        const picked = "pick" in next ? memberships[next.pick % (memberships.length || 1)] : undefined;
        if (next.kind === "join") {
          const memberId = next.takesOver
            ? memberships.findLast(({ group }) => group === next.group)?.memberId
            : undefined;
          const joined = await join({ group: next.group, memberId, newMemberId: `m${index}` }).catch((e) => {
            expect(e).toMatchObject({ code: "conflict" });
          });
          if (!joined) continue;
          memberships.push(refOf(joined, next.group));
          for (const { generation } of joined.partitions) {
            expect(generation).toBeGreaterThan(highest);
            highest = generation;
          }
        } else if (next.kind === "end" && picked) await queue.submit(endMembership(picked));
        else if (next.kind === "renew" && picked) await queue.submit(renewLease(picked));
        else if (next.kind === "pass") await database.pass(next.ms);
        else if (next.kind === "expire") await queue.submit(endExpiredMemberships());
        const [found] = await database.rows(`
          SELECT (SELECT count(*) FROM assignments AS a LEFT JOIN members AS m USING (group_id, member_id)
                  WHERE m.member_id IS NULL) AS orphans,
                 (SELECT count(*) FROM (SELECT 1 FROM members GROUP BY group_id HAVING count(*) > 1)) AS crowded,
                 (SELECT 2 * count(*) FROM members) - (SELECT count(*) FROM assignments) AS missing,
                 (SELECT count(*) FROM guard) AS guards`);
        expect(found).toEqual({ orphans: 0, crowded: 0, missing: 0, guards: 0 });
      }
    }),
    { numRuns: 60 },
  );
}, 60_000);

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
});

describe("the view commit_history", () => {
  test("shows every column of every reset to stock SQLite, oldest first", async () => {
    await topics.put("orders", 1);
    await produce(5);
    await join({ policies: { missing: "latest", outOfRange: "none" } });
    await database.run("UPDATE partitions SET log_start_offset = 6, log_end_offset = 8");
    await database.pass(1_001);
    await join({ memberId: "m1" });
    const shared = { group_id: "billing", topic: "orders", partition: 0, actor: "member m1" };
    expect(rows("SELECT * FROM commit_history")).toEqual([
      {
        ...shared,
        previous_offset: null,
        new_offset: 5,
        cause: "missing: latest",
        at: new Date(START_MS).toISOString(),
      },
      {
        ...shared,
        previous_offset: 5,
        new_offset: 6,
        cause: "outOfRange: earliest",
        at: new Date(START_MS + 1_001).toISOString(),
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
    "INSERT INTO members VALUES ('no', 'm', NULL, 1, '[]', 1, 1, 1)",
    "INSERT INTO assignments VALUES ('no', 1, 'm', 1)",
    "INSERT INTO committed_offsets VALUES ('no', 1, 1, NULL, 1)",
    "INSERT INTO group_topics VALUES ('no', 'orders', 1, 1)",
  ])("refuse a row of a group that is not there: %s", async (sql) => {
    await expect(database.run(sql)).rejects.toMatchObject({ failure: "rejected" });
  });
});
