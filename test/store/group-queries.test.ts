import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { PROCESS_LEASE_MS, REVOKE_DEADLINE_MS } from "../../src/protocol/limits.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { commitFromOutside } from "../../src/store/group-changes.ts";
import { describeGroup, listGroups } from "../../src/store/group-queries.ts";
import { Topics } from "../../src/store/topics.ts";
import { openQueue, openTestDatabase, START_MS, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import { GroupStore, type JoinOptions, TIMEOUT_MS } from "../support/group-store.ts";

const database = await openTestDatabase();
const { db } = database;
const queue = openQueue(db);
let topics = new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
const groups = new GroupStore({ db, queue });

afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  topics = new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
});

const join = (options: JoinOptions = {}) => groups.join(options);

async function produce(count: number, topic = "orders", partition = 0): Promise<void> {
  const list = parseJsonProduce(
    JSON.stringify({ records: Array.from({ length: count }, (_, value) => ({ value })) }),
  ).records;
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
            { topic: "orders", partition: 0, generation: 3 },
            { topic: "orders", partition: 1, generation: 4 },
            { topic: "payments", partition: 0, generation: 5 },
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
    await topics.put("payments", 1);
    await join();
    await join({ instanceId: "tab", topics: ["orders", "payments"], sessionTimeoutMs: 6_000 });
    await database.pass(REVOKE_DEADLINE_MS);
    await groups.carryOut();
    const { members, offsets } = (await describeGroup(db, "billing")) ?? {};
    const found = members?.map(({ memberId, partitions }) => [
      memberId,
      ...partitions.map(({ topic, partition }) => `${topic}/${partition}`),
    ]);
    expect(found).toEqual([
      ["m1", "orders/0", "orders/1"],
      ["m2", "orders/2", "payments/0"],
    ]);
    expect(members?.[1]).toMatchObject({
      instanceId: "tab",
      topics: ["orders", "payments"],
      leaseExpiresAt: START_MS + 6_000,
    });
    expect(offsets?.map(({ memberId }) => memberId)).toEqual(["m1", "m1", "m2", "m2"]);
    expect(await listGroups(db)).toMatchObject([{ members: 2 }]);
  });

  test("gives a partition that changes hands to who owns it still", async () => {
    await topics.put("orders", 2);
    await join();
    await join();
    expect(await describeGroup(db, "billing")).toMatchObject({
      members: [{ partitions: [{ partition: 0 }, { partition: 1 }] }, { partitions: [] }],
    });
  });

  test("counts a member on another process as long as that process's lease runs, a static one its own", async () => {
    await topics.put("orders", 2);
    const others = new GroupStore({ db, queue, processId: "p1" });
    await others.join();
    await others.join({ instanceId: "tab" });
    const leases = async () =>
      (await describeGroup(db, "billing"))?.members.map(({ memberId, leaseExpiresAt }) => [
        memberId,
        leaseExpiresAt - START_MS,
      ]);
    expect(await leases()).toEqual([
      ["m1", PROCESS_LEASE_MS],
      ["m2", TIMEOUT_MS],
    ]);
    await database.pass(PROCESS_LEASE_MS);
    expect(await leases()).toEqual([["m2", TIMEOUT_MS]]);
    expect(await listGroups(db)).toMatchObject([{ members: 1 }]);
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
