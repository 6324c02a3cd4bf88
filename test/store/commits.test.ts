import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import type { AckRequest } from "../../src/core/session/events.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { commitOffsets, commitPolicy, type PolicyCommit } from "../../src/store/commits.ts";
import { DbError } from "../../src/store/db.ts";
import { Topics } from "../../src/store/topics.ts";
import { openQueue, openTestDatabase, START_MS, stockRows, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import { GroupStore, type Joined, type JoinOptions } from "../support/group-store.ts";

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

/** Where nothing is committed, nothing is. */
const join = (options: JoinOptions = {}) =>
  groups.join({ policies: { missing: "none", outOfRange: "none" }, ...options });

async function produce(values: readonly unknown[], partition = 0, topic = "orders"): Promise<void> {
  const list = parseJsonProduce(JSON.stringify({ records: values.map((value) => ({ value })) })).records;
  await queue.submit(appendRecords(await topics.require(topic), [{ partition, records: list }]));
}

/** An ack of a partition in the generation that the join gave it. */
function ackOf(
  joined: Joined,
  partition: number,
  offset: number,
  options: Partial<AckRequest> = {},
): AckRequest {
  const owned = joined.partitions.find((one) => one.partition === partition);
  const generation = owned?.generation ?? -1;
  return { topic: "orders", partition, generation, offset, metadata: null, refusal: undefined, ...options };
}

const commit = (acks: readonly AckRequest[], group = "billing") => queue.submit(commitOffsets(group, acks));
const accepted = (committedOffset: number) => ({ committedOffset, code: undefined });
const rows = (sql: string) => stockRows(database.path, sql);
const committed = () =>
  rows(
    "SELECT partition_id AS p, committed_offset AS o, metadata AS m, committed_at AS at FROM committed_offsets",
  );

describe("commitOffsets()", () => {
  test("commits the offset with its metadata at the time of the database", async () => {
    await topics.put("orders", 1);
    const joined = await join();
    await database.pass(5);
    expect(await commit([ackOf(joined, 0, 3, { metadata: 'ü "quoted" \\ 😀' })])).toEqual([accepted(3)]);
    expect(committed()).toEqual([{ p: 1, o: 3, m: 'ü "quoted" \\ 😀', at: START_MS + 5 }]);
  });

  test("commits offset 0 where nothing is committed", async () => {
    await topics.put("orders", 1);
    const joined = await join();
    expect(await commit([ackOf(joined, 0, 0)])).toEqual([accepted(0)]);
    expect(committed()).toMatchObject([{ o: 0 }]);
  });

  test("commits the largest offset that there is exactly", async () => {
    await topics.put("orders", 1);
    const joined = await join();
    const max = Number.MAX_SAFE_INTEGER;
    expect(await commit([ackOf(joined, 0, max)])).toEqual([accepted(max)]);
    expect(
      rows(
        "SELECT typeof(committed_offset) AS t, committed_offset = 9007199254740991 AS ok FROM committed_offsets",
      ),
    ).toEqual([{ t: "integer", ok: 1 }]);
  });

  test("goes forward only, and says where the group stands", async () => {
    await topics.put("orders", 1);
    const joined = await join();
    await commit([ackOf(joined, 0, 5, { metadata: "five" })]);
    await database.pass(100);
    for (const offset of [5, 4, 0]) {
      expect(await commit([ackOf(joined, 0, offset, { metadata: "later" })])).toEqual([accepted(5)]);
      expect(committed()).toEqual([{ p: 1, o: 5, m: "five", at: START_MS }]);
    }
    expect(await commit([ackOf(joined, 0, 6)])).toEqual([accepted(6)]);
    expect(committed()).toEqual([{ p: 1, o: 6, m: null, at: START_MS + 100 }]);
  });

  test("whose answer was lost, and whose partition changed hands before it was repeated, is not called refused", async () => {
    await topics.put("orders", 2);
    const joined = await join();
    const watched = new WatchedDb(db);
    let isLost = true;
    watched.onWrite = async (statements) => {
      if (!isLost) return;
      isLost = false;
      await db.write(statements);
      await database.run("UPDATE assignments SET generation = generation + 100 WHERE partition_id = 1");
      throw new DbError("unanswered", "the answer of a write was lost");
    };
    const own = openQueue(watched);
    const acks = [ackOf(joined, 0, 3), ackOf(joined, 1, 4)];
    expect(await own.submit(commitOffsets("billing", acks))).toEqual([
      { committedOffset: 3, code: "outcome_unknown" },
      accepted(4),
    ]);
    expect(committed()).toMatchObject([{ o: 3 }, { o: 4 }]);
    // Asked once more it is told what there is.
    expect(await own.submit(commitOffsets("billing", acks))).toEqual([
      { committedOffset: 3, code: "fenced_generation" },
      accepted(4),
    ]);
  });

  test("with a stale generation has no effect and does not spoil its neighbours", async () => {
    await topics.put("orders", 3);
    const old = await join();
    const joined = await join({ memberId: "m1" });
    const outcomes = await commit([
      ackOf(joined, 0, 1),
      ackOf(old, 1, 7, { metadata: "stale" }),
      ackOf(joined, 2, 3, { metadata: "good" }),
    ]);
    expect(outcomes).toEqual([
      accepted(1),
      { committedOffset: null, code: "fenced_generation" },
      accepted(3),
    ]);
    expect(committed()).toMatchObject([
      { p: 1, o: 1 },
      { p: 3, o: 3, m: "good" },
    ]);
  });

  test.each([
    ["a later", 1],
    ["an earlier", -1],
  ])("with %s generation than the owner's is fenced", async (_, by) => {
    await topics.put("orders", 1);
    const joined = await join();
    await commit([ackOf(joined, 0, 2)]);
    const generation = (joined.partitions[0]?.generation ?? 0) + by;
    expect(await commit([ackOf(joined, 0, 9, { generation })])).toEqual([
      { committedOffset: 2, code: "fenced_generation" },
    ]);
    expect(committed()).toMatchObject([{ o: 2 }]);
  });

  test("with the generation of another group is fenced in both", async () => {
    await topics.put("orders", 1);
    const billing = await join();
    const shipping = await join({ group: "shipping" });
    expect(await commit([ackOf(shipping, 0, 9)], "billing")).toMatchObject([{ code: "fenced_generation" }]);
    expect(await commit([ackOf(billing, 0, 9)], "shipping")).toMatchObject([{ code: "fenced_generation" }]);
    expect(committed()).toEqual([]);
  });

  test("with the generation of another partition is fenced", async () => {
    await topics.put("orders", 2);
    const joined = await join();
    const generation = joined.partitions[1]?.generation ?? 0;
    expect(await commit([ackOf(joined, 0, 9, { generation })])).toMatchObject([
      { code: "fenced_generation" },
    ]);
    expect(committed()).toEqual([]);
  });

  test("after the membership has ended is fenced, and the committed offset stays", async () => {
    await topics.put("orders", 1);
    const joined = await join();
    await commit([ackOf(joined, 0, 2)]);
    await groups.leave(joined);
    expect(await commit([ackOf(joined, 0, 3)])).toEqual([{ committedOffset: 2, code: "fenced_generation" }]);
    expect(committed()).toMatchObject([{ o: 2 }]);
  });

  test("of a group that is not there is fenced and makes none", async () => {
    await topics.put("orders", 1);
    const joined = await join();
    expect(await commit([ackOf(joined, 0, 3)], "nobody")).toEqual([
      { committedOffset: null, code: "fenced_generation" },
    ]);
    expect(rows("SELECT group_id FROM groups")).toEqual([{ group_id: "billing" }]);
  });

  test("names an unknown topic, an unknown partition, and what the session has refused", async () => {
    await topics.put("orders", 2);
    const joined = await join();
    const outcomes = await commit([
      ackOf(joined, 0, 1, { topic: "nowhere" }),
      ackOf(joined, 7, 1),
      ackOf(joined, 0, 99, { refusal: "offset_out_of_range" }),
      ackOf(joined, 1, 4),
    ]);
    expect(outcomes).toEqual([
      { committedOffset: null, code: "unknown_topic" },
      { committedOffset: null, code: "unknown_partition" },
      { committedOffset: null, code: "offset_out_of_range" },
      accepted(4),
    ]);
    expect(committed()).toMatchObject([{ p: 2, o: 4 }]);
  });

  test("answers a refused entry with the offset that is durable", async () => {
    await topics.put("orders", 1);
    const joined = await join();
    await commit([ackOf(joined, 0, 4)]);
    expect(await commit([ackOf(joined, 0, 99, { refusal: "offset_out_of_range" })])).toEqual([
      { committedOffset: 4, code: "offset_out_of_range" },
    ]);
    expect(committed()).toMatchObject([{ o: 4 }]);
  });

  test.each([
    { order: [3, 7, 5], what: "in the middle" },
    { order: [7, 3, 5], what: "first" },
    { order: [3, 5, 7], what: "last" },
  ])("of a partition named several times counts the highest, $what, with its metadata", async ({ order }) => {
    await topics.put("orders", 1);
    const joined = await join();
    const outcomes = await commit(
      order.map((offset) => ackOf(joined, 0, offset, { metadata: `at ${offset}` })),
    );
    expect(outcomes).toEqual(order.map(() => accepted(7)));
    expect(committed()).toMatchObject([{ o: 7, m: "at 7" }]);
  });

  test("of a partition named twice does not count what was refused, though it is higher", async () => {
    await topics.put("orders", 1);
    const old = await join();
    const joined = await join({ memberId: "m1" });
    const outcomes = await commit([
      ackOf(joined, 0, 3),
      ackOf(joined, 0, 90, { refusal: "offset_out_of_range" }),
      ackOf(old, 0, 95),
    ]);
    expect(outcomes).toEqual([
      accepted(3),
      { committedOffset: 3, code: "offset_out_of_range" },
      { committedOffset: 3, code: "fenced_generation" },
    ]);
    expect(committed()).toMatchObject([{ o: 3 }]);
  });

  test("of two frames in one flush is answered in order, each with what was durable with it", async () => {
    await topics.put("orders", 1);
    const joined = await join();
    const watched = new WatchedDb(db);
    const shared = openQueue(watched);
    const outcomes = await Promise.all(
      [4, 2, 9].map((offset) => shared.submit(commitOffsets("billing", [ackOf(joined, 0, offset)]))),
    );
    expect(outcomes).toEqual([[accepted(4)], [accepted(4)], [accepted(9)]]);
    expect(watched.writes).toHaveLength(1);
  });

  test("commits a thousand partitions in one transaction, with a stale one among them", async () => {
    await topics.put("orders", 1_000);
    const joined = await join();
    const acks = joined.partitions.map(({ partition }) =>
      ackOf(joined, partition, partition + 1, partition === 500 ? { generation: 0 } : {}),
    );
    const outcomes = await commit(acks);
    expect(outcomes.filter(({ code }) => code !== undefined)).toEqual([
      { committedOffset: null, code: "fenced_generation" },
    ]);
    expect(rows("SELECT count(*) AS n, sum(committed_offset) AS s FROM committed_offsets")).toEqual([
      { n: 999, s: 500_500 - 501 },
    ]);
  });

  test("writes no history: that is for resets", async () => {
    await topics.put("orders", 1);
    await commit([ackOf(await join(), 0, 3)]);
    expect(rows("SELECT * FROM offset_history")).toEqual([]);
  });
});

test("commitOffsets() agrees with a map that only goes forward, for any frames", async () => {
  const entry = fc.record({
    partition: fc.nat({ max: 3 }), // 3 is not there
    offset: fc.nat({ max: 20 }),
    isStale: fc.integer({ min: 0, max: 4 }).map((n) => n === 0),
    refusal: fc.constantFrom(undefined, undefined, undefined, "offset_out_of_range" as const),
    metadata: fc.option(fc.string({ maxLength: 5 }).filter((s) => s.isWellFormed() && !s.includes("\0"))),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(entry, { minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 5 }),
      async (frames) => {
        await database.empty();
        topics = new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
        await topics.put("orders", 3);
        const joined = await join();
        const model = new Map<number, number>();
        for (const frame of frames) {
          const acks = frame.map(({ partition, offset, isStale, refusal, metadata }) =>
            ackOf(joined, partition, offset, { refusal, metadata, ...(isStale ? { generation: 1 } : {}) }),
          );
          for (const { partition, offset, isStale, refusal } of frame) {
            const isCounted = partition < 3 && !isStale && refusal === undefined;
            if (isCounted) model.set(partition, Math.max(offset, model.get(partition) ?? 0));
          }
          const outcomes = await commit(acks);
          expect(outcomes).toEqual(
            frame.map(({ partition, isStale, refusal }) => ({
              committedOffset: model.get(partition) ?? null,
              code: partition === 3 ? "unknown_partition" : isStale ? "fenced_generation" : refusal,
            })),
          );
        }
        const stored = await database.rows(
          "SELECT partition_id - 1 AS p, committed_offset AS o FROM committed_offsets",
        );
        expect(new Map(stored.map(({ p, o }) => [p, o]))).toEqual(new Map([...model].sort()));
      },
    ),
    { numRuns: 60 },
  );
}, 60_000);

// ── for people ───────────────────────────────────────────────────────────────────────────────────────────

describe("the view consumer_lag", () => {
  const columns = [
    "group_id",
    "topic",
    "partition",
    "committed_offset",
    "log_start_offset",
    "log_end_offset",
    "lag",
    "oldest_unread_at",
    "member_id",
    "generation",
    "committed_at",
    "metadata",
  ];

  test("shows every column of every partition to stock SQLite", async () => {
    await topics.put("orders", 4);
    const joined = await join();
    for (const partition of [0, 1, 2]) {
      await database.pass(1_000);
      await produce([1, 2, 3], partition);
    }
    await database.pass(500);
    await commit([ackOf(joined, 0, 1, { metadata: "half way" }), ackOf(joined, 1, 3)]);
    expect(rows("SELECT name FROM pragma_table_info('consumer_lag')").map(({ name }) => name)).toEqual(
      columns,
    );
    const at = (ms: number) => new Date(START_MS + ms).toISOString();
    expect(rows("SELECT * FROM consumer_lag ORDER BY partition").map((row) => Object.values(row))).toEqual([
      ["billing", "orders", 0, 1, 0, 3, 2, at(1_000), "m1", 2, at(3_500), "half way"],
      ["billing", "orders", 1, 3, 0, 3, 0, null, "m1", 3, at(3_500), null],
      ["billing", "orders", 2, null, 0, 3, null, at(3_000), "m1", 4, null, null],
      ["billing", "orders", 3, null, 0, 0, null, null, "m1", 5, null, null],
    ]);
  });

  test("has a row for every partition of every topic of every group, with members or without", async () => {
    await topics.put("orders", 2);
    await topics.put("payments", 1);
    await topics.put("nobody", 3);
    const joined = await join({ topics: ["orders", "payments"] });
    await join({ group: "shipping" });
    await groups.leave(joined);
    expect(
      rows("SELECT group_id, topic, partition, member_id, generation FROM consumer_lag ORDER BY 1, 2, 3").map(
        (row) => Object.values(row),
      ),
    ).toEqual([
      ["billing", "orders", 0, null, null],
      ["billing", "orders", 1, null, null],
      ["billing", "payments", 0, null, null],
      ["shipping", "orders", 0, "m1", 6],
      ["shipping", "orders", 1, "m1", 7],
    ]);
  });

  test.each([
    {
      committedOffset: 0,
      logStart: 4,
      lag: 6,
      why: "from the log start where the committed offset is below it",
    },
    { committedOffset: 4, logStart: 4, lag: 6, why: "from the committed offset at the log start" },
    { committedOffset: 10, logStart: 0, lag: 0, why: "as nothing at the log end" },
    { committedOffset: 12, logStart: 0, lag: 0, why: "as nothing above the log end, never negative" },
    { committedOffset: 7, logStart: 10, lag: 0, why: "as nothing in a log that is empty" },
  ])("counts lag $why", async ({ committedOffset, logStart, lag }) => {
    await topics.put("orders", 1);
    const joined = await join();
    await commit([ackOf(joined, 0, committedOffset)]);
    await database.run(`UPDATE partitions SET log_start_offset = ${logStart}, log_end_offset = 10`);
    expect(rows("SELECT lag FROM consumer_lag")).toEqual([{ lag }]);
  });

  test("says when the first record that is not processed was made, over gaps", async () => {
    await topics.put("orders", 1);
    const joined = await join();
    for (const value of [0, 1, 2, 3]) {
      await database.pass(10);
      await produce([value]);
    }
    await commit([ackOf(joined, 0, 1)]);
    await database.run("DELETE FROM records WHERE offset IN (1, 2)");
    expect(rows("SELECT oldest_unread_at AS at FROM consumer_lag")).toEqual([
      { at: new Date(START_MS + 40).toISOString() },
    ]);
  });

  test("agrees with the tables after every commit and append", async () => {
    await topics.put("orders", 2);
    const joined = await join();
    for (const [partition, count, offset] of [
      [0, 3, 2],
      [1, 1, 1],
      [0, 2, 5],
      [1, 4, 3],
    ] as const) {
      await produce(
        Array.from({ length: count }, () => 0),
        partition,
      );
      await commit([ackOf(joined, partition, offset)]);
      const expected = rows(`
        SELECT p.partition, (SELECT count(*) FROM records AS r WHERE r.partition_id = p.partition_id
                             AND r.offset >= c.committed_offset) AS lag
        FROM partitions AS p JOIN committed_offsets AS c USING (partition_id) ORDER BY 1`);
      expect(rows("SELECT partition, lag FROM consumer_lag WHERE lag IS NOT NULL ORDER BY 1")).toEqual(
        expected,
      );
    }
  });
});

describe("commitPolicy()", () => {
  const history = () =>
    rows(
      "SELECT group_id, topic, partition, previous_offset, new_offset, cause, actor, at FROM offset_history ORDER BY history_id",
    );
  const generationOf = (joined: Joined) => joined.partitions[0]?.generation ?? -1;

  /** A member has committed 5, and the policy wants 40 instead. */
  async function committedFive() {
    await topics.put("orders", 1);
    const joined = await join();
    await commit([ackOf(joined, 0, 5, { metadata: "five" })]);
    const apply = (options: Partial<PolicyCommit> = {}) =>
      queue.submit(
        commitPolicy({
          group: "billing",
          partitionId: 1,
          generation: generationOf(joined),
          from: 5,
          to: 40,
          cause: "outOfRange: earliest",
          ...options,
        }),
      );
    return { joined, apply };
  }

  test("commits the place of the policy and records who, when and why", async () => {
    const { apply } = await committedFive();
    await database.pass(9);
    expect(await apply()).toBe(true);
    expect(committed()).toEqual([{ p: 1, o: 40, m: null, at: START_MS + 9 }]);
    expect(history()).toEqual([
      {
        group_id: "billing",
        topic: "orders",
        partition: 0,
        previous_offset: 5,
        new_offset: 40,
        cause: "outOfRange: earliest",
        actor: "member m1",
        at: START_MS + 9,
      },
    ]);
  });

  test("goes back as well as forward", async () => {
    const { apply } = await committedFive();
    expect(await apply({ to: 0 })).toBe(true);
    expect(committed()).toMatchObject([{ o: 0 }]);
    expect(history()).toMatchObject([{ previous_offset: 5, new_offset: 0 }]);
  });

  const refusals: readonly [title: string, options: Partial<PolicyCommit>][] = [
    ["of an earlier generation", { generation: 1 }],
    ["of a generation that never was", { generation: 999 }],
    ["of another group", { group: "audit" }],
    ["of a partition that is not there", { partitionId: 99 }],
    ["over an offset that is not committed any more", { from: 4 }],
  ];
  for (const [title, options] of refusals) {
    test(`${title} writes nothing, history included`, async () => {
      const { apply } = await committedFive();
      expect(await apply(options)).toBe(false);
      expect(committed()).toMatchObject([{ o: 5, m: "five" }]);
      expect(history()).toEqual([]);
    });
  }

  test("after an ack has come in writes nothing over it", async () => {
    const { joined, apply } = await committedFive();
    const [, applied] = await Promise.all([commit([ackOf(joined, 0, 6)]), apply()]);
    expect(applied).toBe(false);
    expect(committed()).toMatchObject([{ o: 6 }]);
    expect(history()).toEqual([]);
  });

  test("after the membership has ended writes nothing", async () => {
    const { joined, apply } = await committedFive();
    await groups.leave(joined);
    expect(await apply()).toBe(false);
    expect(committed()).toMatchObject([{ o: 5 }]);
  });

  test("where nothing is committed writes nothing", async () => {
    await topics.put("orders", 1);
    const generation = generationOf(await join());
    const place = { group: "billing", partitionId: 1, generation, from: 0, to: 40, cause: "why" };
    expect(await queue.submit(commitPolicy(place))).toBe(false);
    expect([...committed(), ...history()]).toEqual([]);
  });

  test("twice is once: the second finds another offset", async () => {
    const { apply } = await committedFive();
    expect(await Promise.all([apply(), apply()])).toEqual([true, false]);
    expect(history()).toHaveLength(1);
  });
});
