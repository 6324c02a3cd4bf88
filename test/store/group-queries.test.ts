import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { type Joined, type JoinRequest, planJoin } from "../../src/core/membership.ts";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { commitFromOutside } from "../../src/store/group-changes.ts";
import { describeGroup, listGroups } from "../../src/store/group-queries.ts";
import { readGroup, writeJoin } from "../../src/store/groups.ts";
import { appendRecords } from "../../src/store/records.ts";
import { Topics } from "../../src/store/topics.ts";
import { openQueue, openTestDatabase, START_MS, WatchedDb } from "../support/database.ts";

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

async function join(options: Partial<JoinRequest> = {}): Promise<Joined> {
  const request: JoinRequest = {
    group: "billing",
    topics: ["orders"],
    memberId: undefined,
    instanceId: undefined,
    newMemberId: "m1",
    policies: { missing: "earliest", outOfRange: "earliest" },
    sessionTimeoutMs: TIMEOUT_MS,
    ...options,
  };
  const snapshot = await readGroup(db, request.group, request.topics);
  const plan = planJoin(request, snapshot);
  const write = writeJoin({ op: queue.nextOp(), request, version: snapshot.version, plan });
  const joined = await queue.submit(write);
  if (!joined) throw new Error("the group has changed while it was joined");
  return joined;
}

async function produce(count: number, topic = "orders", partition = 0): Promise<void> {
  const list = parseJsonProduce(
    JSON.stringify({ records: Array.from({ length: count }, (_, value) => ({ value })) }),
  );
  await queue.submit(appendRecords(await topics.require(topic), [{ partition, records: list }]));
}

const commit = (partition: number, offset: number, group = "billing", metadata?: string) =>
  queue.submit(
    commitFromOutside({
      op: queue.nextOp(),
      group,
      offsets: [{ topic: "orders", partition, offset, metadata }],
    }),
  );

describe("listGroups()", () => {
  test("of no groups is empty", async () => {
    expect(await listGroups(db)).toEqual([]);
  });

  test("gives every group by name, with its live members and all its lag", async () => {
    await topics.put("orders", 2);
    await topics.put("payments", 1);
    await produce(5);
    await produce(3, "orders", 1);
    await commit(0, 4, "c");
    await join({ group: "a", topics: ["orders", "payments"] });
    await join({ group: "b", policies: { missing: "none", outOfRange: "none" } });
    expect(await listGroups(db)).toEqual([
      { group: "a", members: 1, lag: 8 },
      { group: "b", members: 1, lag: null },
      { group: "c", members: 0, lag: 1 },
    ]);
    await database.pass(TIMEOUT_MS);
    expect((await listGroups(db)).map(({ members }) => members)).toEqual([0, 0, 0]);
  });

  test("says 0, not null, of a group that has read everything", async () => {
    await topics.put("orders", 1);
    await commit(0, 0);
    expect(await listGroups(db)).toEqual([{ group: "billing", members: 0, lag: 0 }]);
  });
});

describe("describeGroup()", () => {
  test("of a group that is not there is undefined", async () => {
    expect(await describeGroup(db, "billing")).toBeUndefined();
  });

  test("says who owns what, and where the group stands", async () => {
    await topics.put("payments", 1);
    await topics.put("orders", 2);
    await produce(5);
    await commit(0, 3, "billing", 'é "quoted" \\ 😀');
    await database.pass(10);
    await join({ topics: ["payments", "orders"], instanceId: "tab-7" });
    const shared = { logStartOffset: 0, memberId: "m1", metadata: null, committedAt: START_MS + 10 };
    expect(await describeGroup(db, "billing")).toEqual({
      group: "billing",
      members: [
        {
          memberId: "m1",
          instanceId: "tab-7",
          topics: ["payments", "orders"],
          partitions: [
            { topic: "orders", partition: 0, generation: 4 },
            { topic: "orders", partition: 1, generation: 5 },
            { topic: "payments", partition: 0, generation: 3 },
          ],
          leaseExpiresAt: START_MS + 10 + TIMEOUT_MS,
        },
      ],
      offsets: [
        {
          ...shared,
          topic: "orders",
          partition: 0,
          committedOffset: 3,
          logEndOffset: 5,
          lag: 2,
          metadata: 'é "quoted" \\ 😀',
          committedAt: START_MS,
        },
        { ...shared, topic: "orders", partition: 1, committedOffset: 0, logEndOffset: 0, lag: 0 },
        { ...shared, topic: "payments", partition: 0, committedOffset: 0, logEndOffset: 0, lag: 0 },
      ],
    });
  });

  test("gives each of several members what is theirs", async () => {
    await topics.put("orders", 3);
    await join();
    await database.run(
      `INSERT INTO members SELECT group_id, 'm0', 'tab', 99, '["orders","x"]', session_timeout_ms, joined_at,
                                  lease_expires_at + 7 FROM members`,
    );
    await database.run("UPDATE assignments SET member_id = 'm0' WHERE partition_id = 2");
    const { members, offsets } = (await describeGroup(db, "billing")) ?? {};
    const found = members?.map(({ memberId, partitions }) => [
      memberId,
      ...partitions.map(({ partition }) => partition),
    ]);
    expect(found).toEqual([
      ["m0", 1],
      ["m1", 0, 2],
    ]);
    expect(members?.[0]).toMatchObject({
      topics: ["orders", "x"],
      leaseExpiresAt: START_MS + TIMEOUT_MS + 7,
    });
    expect(offsets?.map(({ memberId }) => memberId)).toEqual(["m1", "m0", "m1"]);
    expect(await listGroups(db)).toMatchObject([{ members: 2 }]);
  });

  test("gives null for what is absent", async () => {
    await topics.put("orders", 2);
    await produce(2, "orders", 1);
    await commit(0, 0);
    const { members, offsets } = (await describeGroup(db, "billing")) ?? {};
    expect(members).toEqual([]);
    expect(offsets?.[1]).toEqual({
      topic: "orders",
      partition: 1,
      committedOffset: null,
      logStartOffset: 0,
      logEndOffset: 2,
      lag: null,
      memberId: null,
      metadata: null,
      committedAt: null,
    });
  });

  test("knows no member and no owner whose lease has run out", async () => {
    await topics.put("orders", 1);
    await join();
    await database.pass(TIMEOUT_MS - 1);
    expect(await describeGroup(db, "billing")).toMatchObject({
      members: [{ memberId: "m1" }],
      offsets: [{ memberId: "m1" }],
    });
    await database.pass(1);
    expect(await describeGroup(db, "billing")).toMatchObject({
      members: [],
      offsets: [{ memberId: null, committedOffset: 0 }],
    });
  });

  test("gives whole numbers that JavaScript can just count", async () => {
    await topics.put("orders", 1);
    const max = Number.MAX_SAFE_INTEGER;
    await database.run("UPDATE partitions SET log_start_offset = :max, log_end_offset = :max", { max });
    await commit(0, max);
    expect(await describeGroup(db, "billing")).toMatchObject({
      offsets: [{ committedOffset: max, logStartOffset: max, logEndOffset: max, lag: 0 }],
    });
  });

  test("agrees with consumer_lag, column by column", async () => {
    await topics.put("orders", 3);
    await produce(7);
    await produce(2, "orders", 2);
    await commit(0, 3);
    await database.run(
      "UPDATE partitions SET log_start_offset = 5 WHERE partition_id = 1", // above what is committed
    );
    await join({ policies: { missing: "none", outOfRange: "none" } });
    const { offsets } = (await describeGroup(db, "billing")) ?? {};
    const view = await database.rows(
      `SELECT topic, partition, committed_offset AS committedOffset, log_start_offset AS logStartOffset,
              log_end_offset AS logEndOffset, lag, member_id AS memberId, metadata
       FROM consumer_lag WHERE group_id = 'billing' ORDER BY topic, partition`,
    );
    expect(offsets?.map(({ committedAt: _, ...columns }) => columns)).toEqual(view as never);
    expect(view.map(({ lag }) => lag)).toEqual([2, null, null]);
  });

  test("is of one moment: one statement", async () => {
    await topics.put("orders", 1);
    await join();
    const watched = new WatchedDb(db);
    await describeGroup(watched, "billing");
    await listGroups(watched);
    expect(watched.reads).toHaveLength(2);
  });
});
