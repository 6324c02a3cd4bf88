import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Problem } from "../../src/core/problem.ts";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { PROCESS_LEASE_MS } from "../../src/protocol/limits.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { commitOffsets } from "../../src/store/commits.ts";
import {
  commitFromOutside,
  deleteGroup,
  forgetTopic,
  type OutsideCommit,
} from "../../src/store/group-changes.ts";
import { renewLease } from "../../src/store/leases.ts";
import { Topics } from "../../src/store/topics.ts";
import { openQueue, openTestDatabase, START_MS, stockRows, WatchedDb } from "../support/database.ts";
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

/** A join that is planned from what the group is now, to be written now or later. */
const planned = async (options: JoinOptions = {}) => (await groups.planJoin(options)).operation;
const join = (options: JoinOptions = {}) => groups.join(options);

async function produce(count: number, topic = "orders", partition = 0): Promise<void> {
  const list = parseJsonProduce(
    JSON.stringify({ records: Array.from({ length: count }, (_, value) => ({ value })) }),
  ).records;
  await queue.submit(appendRecords(await topics.require(topic), [{ partition, records: list }]));
}

/** What becomes of a plan that was made from an older version. */
const VOID = { version: undefined };

const removal = (group = "billing") => deleteGroup({ op: queue.nextOp(), group });
const forgetting = (topic = "orders", group = "billing") => forgetTopic({ op: queue.nextOp(), group, topic });
const outside = (offsets: readonly OutsideCommit[], group = "billing") =>
  commitFromOutside({ op: queue.nextOp(), group, offsets });
const remove = (group?: string) => queue.submit(removal(group));
const forget = (topic?: string, group?: string) => queue.submit(forgetting(topic, group));
const commit = (offsets: readonly OutsideCommit[], group?: string) => queue.submit(outside(offsets, group));
const at = (partition: number, offset: number, metadata?: string): OutsideCommit => ({
  topic: "orders",
  partition,
  offset,
  metadata,
});

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "done",
    (error) => (error instanceof Problem ? error.code : `defect: ${error}`),
  );
}

const rows = (sql: string) => stockRows(database.path, sql);
const GROUP_TABLES = [
  "assignments",
  "committed_offsets",
  "group_topics",
  "groups",
  "members",
  "offset_history",
];

/** Everything that is stored of groups, and the guard. */
const dump = (where = "") =>
  Object.fromEntries(
    [...GROUP_TABLES, ...(where ? [] : ["guard", "sequence"])].map((table) => [
      table,
      rows(`SELECT * FROM ${table} ${where}`),
    ]),
  );
const NOTHING = Object.fromEntries(GROUP_TABLES.map((table) => [table, []]));
const versionOf = (group = "billing") =>
  rows(`SELECT version FROM groups WHERE group_id = '${group}'`)[0]?.version as number;
const committed = () =>
  rows(
    "SELECT partition_id AS p, committed_offset AS o, metadata AS m, committed_at AS at FROM committed_offsets",
  );

describe("deleteGroup()", () => {
  test("leaves nothing of the group behind, and everything of others", async () => {
    await topics.put("orders", 2);
    await join();
    await join({ group: "billing-2" });
    await join({ group: "Billing", instanceId: "tab" });
    await database.pass(TIMEOUT_MS);
    const others = dump("WHERE group_id <> 'billing'");
    await remove();
    expect(dump("WHERE group_id = 'billing'")).toEqual(NOTHING);
    expect(dump("WHERE group_id <> 'billing'")).toEqual(others);
    expect(rows("SELECT * FROM guard")).toEqual([]);
  });

  test("is one transaction", async () => {
    await join({ topics: [(await topics.put("orders", 1)).topic] });
    await database.pass(TIMEOUT_MS);
    const watched = new WatchedDb(db);
    await openQueue(watched).submit(removal());
    expect(watched.writes).toHaveLength(1);
  });

  test("is a conflict until the moment in which the last lease runs out", async () => {
    await topics.put("orders", 1);
    await join();
    await database.pass(TIMEOUT_MS - 1);
    const before = dump();
    expect(await codeOf(remove())).toBe("conflict");
    expect(dump()).toEqual(before);
    await database.pass(1);
    expect(await codeOf(remove())).toBe("done");
  });

  test("is a conflict until the moment in which the last live server process is gone, or its static members", async () => {
    await topics.put("orders", 2);
    const others = new GroupStore({ db, queue, processId: "p1" });
    await others.join();
    await database.pass(PROCESS_LEASE_MS - 1);
    expect(await codeOf(remove())).toBe("conflict");
    await database.pass(1);
    expect(await codeOf(remove())).toBe("done");
    await others.join({ instanceId: "tab-7" });
    await database.pass(TIMEOUT_MS - 1);
    expect(await codeOf(remove())).toBe("conflict");
    await database.pass(1);
    expect(await codeOf(remove())).toBe("done");
    expect(rows("SELECT * FROM members")).toEqual([]);
  });

  test("of a group that is not there is unknown_group, a second time too", async () => {
    const before = dump();
    expect(await codeOf(remove())).toBe("unknown_group");
    expect(dump()).toEqual(before);
    await topics.put("orders", 1);
    await commit([at(0, 0)]);
    expect(await Promise.all([codeOf(remove()), codeOf(remove())])).toEqual(["done", "unknown_group"]);
  });

  test("and born again, the group's generations go on rising", async () => {
    await topics.put("orders", 3);
    let highest = 0;
    for (let life = 0; life < 5; life += 1) {
      const { partitions, membership } = await join();
      const generations = partitions.map(({ generation }) => generation);
      expect(Math.min(membership, ...generations)).toBeGreaterThan(highest);
      highest = Math.max(...generations);
      await database.pass(TIMEOUT_MS);
      await remove();
    }
  });

  test("fences the acks and the renewal of whoever was in it", async () => {
    await topics.put("orders", 1);
    const { partitions, memberId, membership } = await join();
    await database.pass(TIMEOUT_MS);
    await remove();
    await join({ newMemberId: memberId });
    const [{ generation = -1 } = {}] = partitions;
    const ack = { topic: "orders", partition: 0, generation, offset: 0, metadata: null, refusal: undefined };
    expect(await queue.submit(commitOffsets("billing", [ack]))).toMatchObject([
      { code: "fenced_generation" },
    ]);
    expect(await queue.submit(renewLease({ group: "billing", memberId, membership }))).toBe(false);
  });

  test("voids a join that was planned before it, and the next join finds a new group", async () => {
    await topics.put("orders", 1);
    await produce(3);
    await commit([at(0, 2)]);
    const operation = await planned();
    await remove();
    expect(await queue.submit(operation)).toMatchObject(VOID);
    expect(dump("WHERE group_id = 'billing'")).toEqual(NOTHING);
    expect((await join()).partitions).toMatchObject([{ committedOffset: 0 }]);
  });

  test("of a group that came and went after a join looked for it leaves the join nothing of it", async () => {
    await topics.put("orders", 1);
    await produce(5);
    const operation = await planned();
    await commit([at(0, 5)]);
    await remove();
    expect(await queue.submit(operation)).toMatchObject({ version: expect.any(Number) });
    expect((await groups.owned("m1")).partitions).toMatchObject([{ committedOffset: 0 }]);
  });

  test("in one flush with joins and commits is judged in turn", async () => {
    await topics.put("orders", 1);
    await commit([at(0, 0)]);
    const first = await planned({ newMemberId: "m1" });
    const watched = new WatchedDb(db);
    const shared = openQueue(watched);
    const outcomes = await Promise.all([
      codeOf(shared.submit(removal())), // the group that is there
      codeOf(shared.submit(outside([at(0, 0)]))),
      shared.submit(first), // planned from a version that is gone
      codeOf(shared.submit(removal("other"))),
      codeOf(shared.submit(forgetting())),
      codeOf(shared.submit(removal())),
    ]);
    expect(outcomes).toEqual([
      "done",
      "done",
      { version: undefined, isLate: false },
      "unknown_group",
      "done",
      "done",
    ]);
    expect(watched.writes).toHaveLength(1);
    expect(dump("WHERE group_id = 'billing'")).toEqual(NOTHING);
    expect(rows("SELECT * FROM guard")).toEqual([]);
  });
});

describe("forgetTopic()", () => {
  test("takes the topic's committed offsets and what was seen of it, and nothing else", async () => {
    await topics.put("orders", 2);
    await topics.put("payments", 1);
    const all = [at(0, 0), at(1, 0), { topic: "payments", partition: 0, offset: 0 }];
    await commit(all);
    await commit(all, "other");
    await database.pass(1);
    const before = versionOf();
    await forget();
    expect(rows("SELECT topic FROM group_topics WHERE group_id = 'billing'")).toEqual([
      { topic: "payments" },
    ]);
    expect(rows("SELECT partition_id AS p FROM committed_offsets WHERE group_id = 'billing'")).toEqual([
      { p: 3 },
    ]);
    expect(rows("SELECT * FROM committed_offsets WHERE group_id = 'other'")).toHaveLength(3);
    expect(rows("SELECT * FROM group_topics WHERE group_id = 'other'")).toHaveLength(2);
    expect(versionOf()).toBeGreaterThan(before);
    expect(rows("SELECT last >= (SELECT max(version) FROM groups) AS ok FROM sequence")).toEqual([{ ok: 1 }]);
    expect(rows("SELECT * FROM guard")).toEqual([]);
  });

  test("keeps the history, which says what was committed by policies", async () => {
    await topics.put("orders", 1);
    await join();
    await database.pass(TIMEOUT_MS);
    await forget();
    expect(rows("SELECT cause FROM offset_history")).toEqual([{ cause: "missing: earliest" }]);
  });

  test("is a conflict while a live member subscribes to it, and only to it", async () => {
    await topics.put("orders", 1);
    await topics.put("payments", 1);
    await commit([{ topic: "payments", partition: 0, offset: 0 }]);
    await join();
    const before = dump();
    expect(await codeOf(forget("orders"))).toBe("conflict");
    expect(dump()).toEqual(before);
    expect(await codeOf(forget("payments"))).toBe("done");
    const { members, assignments } = dump();
    expect({ members, assignments }).toEqual({ members: before.members, assignments: before.assignments });
    await database.pass(TIMEOUT_MS);
    expect(await codeOf(forget("orders"))).toBe("done");
  });

  test("ends the expired members that subscribe to it, so that they never come back to it", async () => {
    await topics.put("orders", 1);
    const { memberId, membership } = await join();
    await database.pass(TIMEOUT_MS);
    await forget();
    const { members, assignments } = dump();
    expect({ members, assignments }).toEqual({ members: [], assignments: [] });
    expect(await queue.submit(renewLease({ group: "billing", memberId, membership }))).toBe(false);
  });

  test("leaves members of other topics and what they own alone, whoever else ends", async () => {
    await topics.put("orders", 2);
    await topics.put("payments", 1);
    const others = new GroupStore({ db, queue, processId: "p1" });
    await others.join();
    await join({ topics: ["payments"] });
    await database.pass(PROCESS_LEASE_MS); // m1 is gone with its process
    await forget("orders");
    expect(rows("SELECT member_id, partition_id FROM assignments")).toEqual([
      { member_id: "m2", partition_id: 3 },
    ]);
    expect(rows("SELECT member_id FROM members")).toEqual([{ member_id: "m2" }]);
  });

  test("of what is not there says which", async () => {
    await topics.put("orders", 1);
    await topics.put("payments", 1);
    await commit([at(0, 0)]);
    const before = dump();
    expect(await codeOf(forget("orders", "nobody"))).toBe("unknown_group");
    expect(await codeOf(forget("payments"))).toBe("unknown_topic");
    expect(await codeOf(forget("nowhere"))).toBe("unknown_topic");
    expect(dump()).toEqual(before);
  });

  test("voids a join that was planned before it", async () => {
    await topics.put("orders", 1);
    await commit([at(0, 0)]);
    const operation = await planned();
    await forget();
    expect(await queue.submit(operation)).toMatchObject(VOID);
    expect(dump().members).toEqual([]);
  });

  test("makes the topic new to the group: its policy counts again", async () => {
    await topics.put("orders", 1);
    await produce(3);
    await commit([at(0, 1)]);
    await forget();
    const { partitions } = await join({ policies: { missing: "latest", outOfRange: "latest" } });
    expect(partitions).toMatchObject([{ committedOffset: 3 }]);
  });
});

describe("commitFromOutside()", () => {
  test("creates the group, records the topic and commits", async () => {
    await topics.put("orders", 3);
    await produce(5, "orders", 1);
    expect(await commit([at(1, 5, "ü 😀")])).toEqual([{ topic: "orders", partition: 1, offset: 5 }]);
    expect(dump()).toEqual({
      groups: [{ group_id: "billing", version: 1, created_at: START_MS }],
      group_topics: [{ group_id: "billing", topic: "orders", topic_id: 1, partitions_seen: 3 }],
      members: [],
      assignments: [],
      committed_offsets: [
        {
          group_id: "billing",
          partition_id: 2,
          committed_offset: 5,
          metadata: "ü 😀",
          committed_at: START_MS,
        },
      ],
      offset_history: [],
      guard: [],
      sequence: [{ last: 1 }],
    });
  });

  test("goes forward only, and says where the group stands", async () => {
    await topics.put("orders", 1);
    await produce(9);
    await commit([at(0, 5, "five")]);
    await database.pass(100);
    const before = dump();
    for (const offset of [5, 4, 0]) {
      expect(await commit([at(0, offset, "later")])).toEqual([{ topic: "orders", partition: 0, offset: 5 }]);
      expect(dump()).toEqual(before);
    }
    expect(await commit([at(0, 6)])).toEqual([{ topic: "orders", partition: 0, offset: 6 }]);
    expect(committed()).toEqual([{ p: 1, o: 6, m: null, at: START_MS + 100 }]);
    expect(versionOf()).toBe(2);
  });

  test("commits at the log end and refuses one above", async () => {
    await topics.put("orders", 1);
    await produce(3);
    const refused = { topic: "orders", partition: 0, code: "offset_out_of_range" };
    expect(await commit([at(0, 4)])).toEqual([{ ...refused, offset: null }] as never);
    expect(dump()).toMatchObject(NOTHING);
    expect(await commit([at(0, 3)])).toEqual([{ topic: "orders", partition: 0, offset: 3 }]);
    expect(await commit([at(0, 4)])).toEqual([{ ...refused, offset: 3 }] as never);
    expect(await commit([at(0, Number.MAX_SAFE_INTEGER)])).toEqual([{ ...refused, offset: 3 }] as never);
  });

  test("below the log start is out of range, unless it is at or below what is committed", async () => {
    await topics.put("orders", 1);
    await produce(9);
    const answer = { topic: "orders", partition: 0 };
    const refused = { ...answer, code: "offset_out_of_range" };
    const moveStart = (offset: number) =>
      database.run("UPDATE partitions SET log_start_offset = :offset", { offset });
    await moveStart(4);
    expect(await commit([at(0, 3)])).toEqual([{ ...refused, offset: null }] as never);
    expect(await commit([at(0, 4)])).toEqual([{ ...answer, offset: 4 }]);
    await moveStart(8);
    expect(await commit([at(0, 4), at(0, 7)])).toEqual([
      { ...answer, offset: 4 },
      { ...refused, offset: 4 },
    ] as never);
    expect(committed()).toMatchObject([{ o: 4 }]);
  });

  test("answers each entry: a refused one spoils nothing", async () => {
    await topics.put("orders", 2);
    await produce(3);
    const answers = await commit([
      { topic: "nowhere", partition: 0, offset: 0 },
      at(0, 2),
      at(2, 0),
      at(1, 1),
      at(Number.MAX_SAFE_INTEGER, 0),
      at(1, 0),
    ]);
    expect(answers.map(({ topic, partition, offset, code }) => [topic, partition, offset, code])).toEqual([
      ["nowhere", 0, null, "unknown_topic"],
      ["orders", 0, 2, undefined],
      ["orders", 2, null, "unknown_partition"],
      ["orders", 1, 0, "offset_out_of_range"],
      ["orders", Number.MAX_SAFE_INTEGER, null, "unknown_partition"],
      ["orders", 1, 0, undefined],
    ]);
    expect(committed()).toMatchObject([
      { p: 1, o: 2 },
      { p: 2, o: 0 },
    ]);
    expect(rows("SELECT topic FROM group_topics")).toEqual([{ topic: "orders" }]);
  });

  test("of nothing that counts creates no group and no topic", async () => {
    await topics.put("orders", 1);
    const before = dump();
    await commit([{ topic: "nowhere", partition: 0, offset: 0 }, at(1, 0), at(0, 1)]);
    expect(dump()).toEqual(before);
    expect(rows("SELECT topic FROM topics")).toEqual([{ topic: "orders" }]);
  });

  test("counts a partition that is named twice once, the highest accepted", async () => {
    await topics.put("orders", 1);
    await produce(5);
    expect(await commit([at(0, 2, "two"), at(0, 4, "four"), at(0, 3, "three"), at(0, 9, "nine")])).toEqual([
      { topic: "orders", partition: 0, offset: 4 },
      { topic: "orders", partition: 0, offset: 4, code: "offset_out_of_range" },
    ]);
    expect(committed()).toMatchObject([{ o: 4, m: "four" }]);
  });

  test("is a conflict as a whole until the last lease has run out, whatever the member subscribes to", async () => {
    await topics.put("orders", 1);
    await topics.put("payments", 1);
    await join({ topics: ["payments"] });
    await database.pass(TIMEOUT_MS - 1);
    const before = dump();
    expect(await codeOf(commit([at(0, 0)]))).toBe("conflict");
    expect(await codeOf(commit([at(7, 7)]))).toBe("conflict");
    expect(dump()).toEqual(before);
    await database.pass(1);
    expect(await codeOf(commit([at(0, 0)]))).toBe("done");
    expect(await codeOf(commit([at(0, 0)], "other"))).toBe("done");
  });

  test("ends members whose lease has run out, in a new version", async () => {
    await topics.put("orders", 1);
    const { memberId, membership } = await join();
    await database.pass(TIMEOUT_MS);
    const before = versionOf();
    await commit([at(0, 0)]); // commits nothing: the policy has committed 0
    expect(versionOf()).toBeGreaterThan(before);
    const { members, assignments } = dump();
    expect({ members, assignments }).toEqual({ members: [], assignments: [] });
    expect(await queue.submit(renewLease({ group: "billing", memberId, membership }))).toBe(false);
  });

  test("voids a join that was planned before it, and the next join starts there", async () => {
    await topics.put("orders", 1);
    await produce(5);
    const operation = await planned();
    await commit([at(0, 3, "migrated")]);
    expect(await queue.submit(operation)).toMatchObject(VOID);
    expect((await join()).partitions).toMatchObject([{ committedOffset: 3, metadata: "migrated" }]);
  });

  test("leaves partitions that the group has not seen unseen: they start at their beginning", async () => {
    await topics.put("orders", 3);
    await produce(5, "orders", 1);
    await produce(5, "orders", 2);
    await commit([at(0, 0)]);
    await database.run("UPDATE group_topics SET partitions_seen = 2"); // the third was added later
    await commit([at(1, 1)]);
    expect(rows("SELECT partitions_seen FROM group_topics")).toEqual([{ partitions_seen: 2 }]);
    const { partitions } = await join({ policies: { missing: "latest", outOfRange: "latest" } });
    expect(partitions.map(({ committedOffset }) => committedOffset)).toEqual([0, 1, 0]);
  });

  test("takes 10,000 entries at once", async () => {
    const names = Array.from({ length: 10 }, (_, index) => `topic-${index}`);
    for (const name of names) await topics.put(name, 1_000);
    const offsets = names.flatMap((topic) =>
      Array.from({ length: 1_000 }, (_, partition) => ({ topic, partition, offset: 0 })),
    );
    const answers = await commit(offsets);
    expect(answers).toEqual(offsets);
    expect(rows("SELECT count(*) AS n FROM committed_offsets")).toEqual([{ n: 10_000 }]);
  });

  test("agrees with a map that only goes forward, for any entries", async () => {
    await topics.put("orders", 3);
    const [START, END] = [2, 6];
    await database.run("UPDATE partitions SET log_start_offset = :START, log_end_offset = :END", {
      START,
      END,
    });
    const entry = fc.record({ partition: fc.nat(3), offset: fc.nat(8) });
    const requests = fc.array(fc.array(entry, { minLength: 1, maxLength: 5 }), { maxLength: 6 });
    const property = fc.asyncProperty(requests, async (list) => {
      const model = new Map<number, number>();
      const group = `g${queue.nextOp()}`;
      for (const offsets of list) {
        await commit(
          offsets.map(({ partition, offset }) => at(partition, offset)),
          group,
        );
        for (const { partition, offset } of offsets) {
          const isAccepted = partition < 3 && offset >= START && offset <= END;
          if (isAccepted) model.set(partition, Math.max(offset, model.get(partition) ?? 0));
        }
      }
      const found = await database.rows(
        "SELECT partition_id - 1 AS partition, committed_offset AS offset FROM committed_offsets WHERE group_id = :group",
        { group },
      );
      expect(new Map(found.map(({ partition, offset }) => [Number(partition), Number(offset)]))).toEqual(
        new Map([...model].sort(([a], [b]) => a - b)),
      );
    });
    await fc.assert(property, { numRuns: 30 });
  });
});
