import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { findOffsetsAt, readPlaceFacts } from "../../src/store/places.ts";
import { Topics } from "../../src/store/topics.ts";
import { openQueue, openTestDatabase, START_MS, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";

const database = await openTestDatabase();
const { db } = database;
const queue = openQueue(db);

afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  const topics = new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
  await topics.put("orders", 2);
  // Partition 0: a record a second, the last one now. Partition 1 is empty.
  const records = [4_000, 3_000, 2_000, 1_000, 0].map((agoMs) => ({ value: 1, timestamp: START_MS - agoMs }));
  const list = parseJsonProduce(JSON.stringify({ records })).records;
  await queue.submit(appendRecords(await topics.require("orders"), [{ partition: 0, records: list }]));
});

const commit = (group: string, partitionId: number, offset: number, metadata: string | null = null) =>
  db.write([
    {
      sql: "INSERT INTO groups (group_id, version, created_at) VALUES (:group, 1, 0)",
      args: { group },
    },
    {
      sql: "INSERT INTO committed_offsets VALUES (:group, :partitionId, :offset, :metadata, 0)",
      args: { group, partitionId, offset, metadata },
    },
  ]);

describe("readPlaceFacts()", () => {
  test("brings the bounds of the log and what the group has committed, with its metadata", async () => {
    await commit("billing", 1, 3, "m");
    await commit("audit", 2, 9);
    const facts = { logStartOffset: 0, logEndOffset: 5, offsetAtTime: undefined };
    expect(await readPlaceFacts(db, { partitionId: 1, group: "billing", place: "current" })).toEqual({
      ...facts,
      committedOffset: 3,
      metadata: "m",
    });
    for (const group of ["audit", undefined]) {
      expect(await readPlaceFacts(db, { partitionId: 1, group, place: "earliest" })).toEqual({
        ...facts,
        committedOffset: null,
        metadata: null,
      });
    }
  });

  test.each([
    [{ timestamp: START_MS - 2_500 }, 2],
    [{ timestamp: START_MS - 2_000 }, 2],
    [{ timestamp: START_MS + 1 }, 5],
    [{ ago: 2_500 }, 2],
    [{ ago: 0 }, 4],
    [{ ago: Number.MAX_SAFE_INTEGER }, 0],
  ] as const)("finds the offset of %j", async (place, offsetAtTime) => {
    const facts = await readPlaceFacts(db, { partitionId: 1, group: undefined, place });
    expect(facts).toMatchObject({ offsetAtTime });
  });

  test("reckons on the database's clock", async () => {
    await database.pass(1_000);
    const facts = await readPlaceFacts(db, { partitionId: 1, group: undefined, place: { ago: 2_500 } });
    expect(facts).toMatchObject({ offsetAtTime: 3 });
  });

  test("looks up no time where the place is none", async () => {
    const watched = new WatchedDb(db);
    for (const place of ["latest", "none", "current", { offset: 1 }, { shift: 1 }] as const)
      await readPlaceFacts(watched, { partitionId: 1, group: "billing", place });
    expect(watched.reads).toHaveLength(5);
  });

  test("finds nothing of a partition that is gone, by time or not", async () => {
    for (const place of ["latest", { ago: 5 }] as const)
      expect(await readPlaceFacts(db, { partitionId: 99, group: "billing", place })).toBeUndefined();
  });
});

describe("findOffsetsAt()", () => {
  test("finds each partition's own, and leaves out what is gone", async () => {
    const wanted = [
      { partitionId: 1, place: { timestamp: START_MS - 3_000 } },
      { partitionId: 2, place: { ago: 3_000 } },
      { partitionId: 99, place: { ago: 3_000 } },
    ];
    expect([...(await findOffsetsAt(db, wanted))]).toEqual([
      [1, 1],
      [2, 0],
    ]);
  });

  test("of nothing asks nothing", async () => {
    const watched = new WatchedDb(db);
    expect((await findOffsetsAt(watched, [])).size).toBe(0);
    expect(watched.reads).toEqual([]);
  });

  test("takes one moment for all", async () => {
    const watched = new WatchedDb(db);
    const clocks = () => watched.reads.filter(({ sql }) => sql.includes("FROM clock")).length;
    await findOffsetsAt(
      watched,
      [1, 2].map((partitionId) => ({ partitionId, place: { ago: 1 } })),
    );
    expect(clocks()).toBe(1);
  });
});
