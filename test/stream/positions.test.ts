import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { Problem } from "../../src/core/problem.ts";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import type { RepositionRequest, Seek } from "../../src/core/session/events.ts";
import type { Place, ResetPolicy } from "../../src/protocol/places.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { Topics } from "../../src/store/topics.ts";
import { locate, reposition } from "../../src/stream/positions.ts";
import { openQueue, openTestDatabase, START_MS, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";

const database = await openTestDatabase();
const { db } = database;
const queue = openQueue(db);

const MEMBER = { group: "billing", memberId: "m1", membership: 1 };
const GENERATION = 3;

afterAll(() => database.close());

/** The log holds [40, 100), a record a second up to now; the group owns the partition. */
beforeEach(async () => {
  await database.empty();
  const topics = new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
  const records = Array.from({ length: 100 }, (_, n) => ({
    value: n,
    timestamp: START_MS - (99 - n) * 1_000,
  }));
  const list = parseJsonProduce(JSON.stringify({ records })).records;
  await queue.submit(appendRecords(await topics.require("orders"), [{ partition: 0, records: list }]));
  await db.write([
    { sql: "DELETE FROM records WHERE offset < 40" },
    { sql: "UPDATE partitions SET log_start_offset = 40" },
    { sql: "INSERT INTO groups (group_id, version, created_at) VALUES ('billing', 1, 0)" },
    {
      sql: `INSERT INTO members (group_id, member_id, membership, topics, session_timeout_ms, joined_at, lease_expires_at)
            VALUES ('billing', 'm1', 1, '["orders"]', 45000, 0, 9e15)`,
    },
    {
      sql: `INSERT INTO assignments (group_id, partition_id, member_id, generation) VALUES ('billing', 1, 'm1', 3)`,
    },
  ]);
});

const commit = (offset: number) =>
  database.run(
    `INSERT INTO committed_offsets VALUES ('billing', 1, :offset, 'm', 0)
     ON CONFLICT DO UPDATE SET committed_offset = excluded.committed_offset`,
    { offset },
  );
const committed = async () => (await database.rows("SELECT committed_offset FROM committed_offsets"))[0];
const history = () => database.rows("SELECT previous_offset, new_offset, cause FROM offset_history");

const requestOf = (policy: ResetPolicy, options: Partial<RepositionRequest> = {}): RepositionRequest => ({
  partitionId: 1,
  topic: "orders",
  partition: 0,
  generation: GENERATION,
  member: MEMBER,
  policy,
  ...options,
});

describe("reposition()", () => {
  const policies: readonly [policy: ResetPolicy, position: number, cause: string][] = [
    ["earliest", 40, "outOfRange: earliest"],
    ["latest", 100, "outOfRange: latest"],
    [{ ago: 10_000 }, 89, "outOfRange: ago 10000 ms"],
    [{ timestamp: START_MS - 99_000 }, 40, `outOfRange: timestamp ${START_MS - 99_000}`],
  ];
  for (const [policy, position, cause] of policies) {
    test(`commits where ${JSON.stringify(policy)} leads over an offset that has left the log`, async () => {
      await commit(5);
      expect(await reposition({ db, queue }, requestOf(policy))).toMatchObject({
        position,
        policy,
        committedOffset: position,
        metadata: null,
        logStartOffset: 40,
        logEndOffset: 100,
      });
      expect(await committed()).toEqual({ committed_offset: position });
      expect(await history()).toEqual([{ previous_offset: 5, new_offset: position, cause }]);
    });

    test(`moves only the position to where ${JSON.stringify(policy)} leads while the committed offset is usable`, async () => {
      await commit(40);
      expect(await reposition({ db, queue }, requestOf(policy))).toMatchObject({
        position,
        policy,
        committedOffset: 40,
        metadata: "m",
      });
      expect([await committed(), await history()]).toEqual([{ committed_offset: 40 }, []]);
    });
  }

  test("of none gives no position and commits nothing", async () => {
    await commit(5);
    expect(await reposition({ db, queue }, requestOf("none"))).toMatchObject({
      position: null,
      policy: "none",
      committedOffset: 5,
    });
    expect([await committed(), await history()]).toEqual([{ committed_offset: 5 }, []]);
  });

  test("of a group that has committed nothing moves the position and commits nothing", async () => {
    expect(await reposition({ db, queue }, requestOf("earliest"))).toMatchObject({
      position: 40,
      committedOffset: null,
    });
    expect([await committed(), await history()]).toEqual([undefined, []]);
  });

  test("of a reader writes nothing, whatever groups have committed", async () => {
    await commit(5);
    const watched = new WatchedDb(db);
    const reader = requestOf({ ago: 10_000 }, { member: undefined, generation: 1 });
    expect(await reposition({ db: watched, queue: openQueue(watched) }, reader)).toMatchObject({
      position: 89,
      committedOffset: null,
    });
    expect(watched.writes).toEqual([]);
  });

  test("of a committed offset above the log commits as well", async () => {
    await commit(101);
    expect(await reposition({ db, queue }, requestOf("latest"))).toMatchObject({ position: 100 });
    expect(await history()).toMatchObject([{ previous_offset: 101, new_offset: 100 }]);
  });

  test("keeps what an ack has committed in between, where it is usable", async () => {
    await commit(5);
    const watched = new WatchedDb(db);
    let isFirst = true;
    watched.onWrite = async () => {
      if (isFirst) await commit(60);
      isFirst = false;
    };
    const repositioned = await reposition({ db, queue: openQueue(watched) }, requestOf("earliest"));
    expect(repositioned).toMatchObject({ position: 40, committedOffset: 60, metadata: "m" });
    expect([await committed(), await history()]).toEqual([{ committed_offset: 60 }, []]);
  });

  test("tries again where the ack in between was of no use either", async () => {
    await commit(5);
    const watched = new WatchedDb(db);
    let isFirst = true;
    watched.onWrite = async () => {
      if (isFirst) await commit(6);
      isFirst = false;
    };
    await reposition({ db, queue: openQueue(watched) }, requestOf("earliest"));
    expect(await history()).toEqual([{ previous_offset: 6, new_offset: 40, cause: "outOfRange: earliest" }]);
  });

  test("of somebody else's partition, or one that is gone, says nothing and writes nothing", async () => {
    await commit(5);
    expect(await reposition({ db, queue }, requestOf("earliest", { generation: 2 }))).toBeUndefined();
    expect(await reposition({ db, queue }, requestOf("earliest", { partitionId: 99 }))).toBeUndefined();
    expect([await committed(), await history()]).toEqual([{ committed_offset: 5 }, []]);
  });
});

describe("locate()", () => {
  const seekOf = (place: Place, options: Partial<Seek> = {}): Seek => ({
    ref: { name: "default", serial: 1 },
    id: 7,
    topic: "orders",
    partition: 0,
    generation: GENERATION,
    partitionId: 1,
    group: "billing",
    place,
    ...options,
  });

  test("brings what the place depends on", async () => {
    await commit(60);
    expect(await locate({ db, queue }, seekOf({ ago: 10_000 }))).toEqual({
      logStartOffset: 40,
      logEndOffset: 100,
      committedOffset: 60,
      metadata: "m",
      offsetAtTime: 89,
    });
    expect(await locate({ db, queue }, seekOf("latest", { group: undefined }))).toMatchObject({
      committedOffset: null,
    });
  });

  test("of a partition that is gone is not_assigned", async () => {
    const refusal = await locate({ db, queue }, seekOf("latest", { partitionId: 99 })).catch(
      (error) => error,
    );
    if (!(refusal instanceof Problem)) throw new Error(`expected a Problem, found ${refusal}`);
    expect(refusal).toMatchObject({ code: "not_assigned", facts: { topic: "orders", partition: 0 } });
  });
});
