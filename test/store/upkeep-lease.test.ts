import { afterAll, beforeEach, expect, test } from "bun:test";
import { Topics } from "../../src/store/topics.ts";
import { UPKEEP_LEASE_MS } from "../../src/store/upkeep-lease.ts";
import { WriteQueue } from "../../src/store/write-queue.ts";
import { openTestDatabase, WatchedDb } from "../support/database.ts";
import { FakeTime, fakeChance } from "../support/fake-time.ts";
import { openUpkeep } from "../support/upkeep.ts";

const database = await openTestDatabase();
afterAll(() => database.close());
beforeEach(() => database.empty());

/** A database far away. */
const WRITE_MS = 300;

test("Upkeep renews its lease before it is over, however many slow steps one partition takes", async () => {
  const db = new WatchedDb(database.db, { isShared: true });
  const time = new FakeTime(database.pass);
  const deps = { db, scheduler: time, chance: fakeChance(), log: () => {} };
  const queue = new WriteQueue(deps);
  const topics = new Topics({ db, queue, scheduler: time, createsOnFirstUse: true });
  await topics.put("large", 1);
  await database.run(
    `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
     INSERT INTO records SELECT 1, i, i, NULL, '1', NULL FROM n`,
  );
  await database.run("UPDATE partitions SET log_end_offset = 4001");
  await topics.delete("large");
  const takenAtMs: number[] = [];
  db.onWrite = async (statements) => {
    if (statements.some(({ sql }) => sql.includes("INSERT INTO upkeep_lease"))) takenAtMs.push(time.nowMs());
    await time.sleep(WRITE_MS);
  };
  const done = openUpkeep({ ...deps, queue, processId: "a" }).run();
  await time.advance(60_000);
  expect((await done).isDone).toBe(true);
  expect(takenAtMs.length).toBeGreaterThan(2);
  const gapsMs = takenAtMs.slice(1).map((atMs, index) => atMs - (takenAtMs[index] ?? 0));
  expect(Math.max(...gapsMs)).toBeLessThan(UPKEEP_LEASE_MS);
  expect(await database.rows("SELECT * FROM upkeep_lease")).toEqual([]);
});
