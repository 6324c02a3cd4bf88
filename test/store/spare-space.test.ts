import { afterAll, describe, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { join } from "node:path";
import { DbError, type FileSpace } from "../../src/store/db.ts";
import { openEmbeddedDb } from "../../src/store/embedded.ts";
import { migrate } from "../../src/store/migrations.ts";
import { FREE_FOR_MS, SpareSpace } from "../../src/store/spare-space.ts";
import { OtherProcess, openQueue, openTestDatabase, stockRows } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import { openLogLife } from "../support/log-life.ts";
import { temporaryFolder } from "../support/server.ts";
import { openUpkeep } from "../support/upkeep.ts";

const KEPT_PAGES = 256;
const STEP_PAGES = 256;

/** A file that has so many free pages, and what was asked of it. */
function fakeSpace() {
  const asked: unknown[] = [];
  const file = { free: 0 };
  const space: FileSpace = {
    freePages: async () => file.free,
    giveBack: async (pages) => {
      asked.push(pages);
      file.free -= pages;
    },
    checkpoint: async () => {},
  };
  const time = new FakeTime();
  const spare = new SpareSpace(space, time);
  const giveBack = async () => {
    for (const step of spare.steps()) await step();
  };
  return { asked, file, time, spare, giveBack };
}

describe("SpareSpace", () => {
  test("gives back what has been free for five seconds, in steps, and keeps some", async () => {
    const { asked, file, time, spare, giveBack } = fakeSpace();
    file.free = KEPT_PAGES + 2 * STEP_PAGES + 7;
    await spare.look();
    await giveBack();
    await time.advance(FREE_FOR_MS - 1);
    await spare.look();
    await giveBack();
    expect(asked).toEqual([]);
    expect(spare.isWaiting).toBe(true);
    await time.advance(1);
    await spare.look();
    await giveBack();
    expect(asked).toEqual([STEP_PAGES, STEP_PAGES, 7]);
    expect(file.free).toBe(KEPT_PAGES);
    expect(spare.isWaiting).toBe(false);
    await giveBack();
    expect(asked).toHaveLength(3);
  });

  test("does not give back what was used in between, though it is free again", async () => {
    const { asked, file, time, spare, giveBack } = fakeSpace();
    for (const free of [10_000, KEPT_PAGES + 3, 10_000]) {
      file.free = free;
      await spare.look();
      await time.advance(FREE_FOR_MS / 2);
    }
    await giveBack();
    expect(asked).toEqual([3]);
  });

  test("begins to count again where next to nothing was free for a moment", async () => {
    const { asked, file, time, spare, giveBack } = fakeSpace();
    for (const free of [10_000, KEPT_PAGES, 10_000]) {
      file.free = free;
      await spare.look();
      await time.advance(FREE_FOR_MS / 2);
    }
    await giveBack();
    expect(asked).toEqual([]);
  });

  test("of a database that is no file of ours is none", async () => {
    const spare = new SpareSpace(undefined, new FakeTime());
    await spare.look();
    expect([...spare.steps()]).toEqual([]);
    expect(spare.isWaiting).toBe(false);
  });
});

describe("A file", () => {
  const opened: { close(): Promise<void> }[] = [];
  afterAll(async () => {
    for (const each of opened) await each.close();
  });

  async function setUp() {
    const database = await openTestDatabase();
    opened.push(database);
    const { db } = database;
    const life = openLogLife(database);
    await life.put({ retention: { records: 10 } });
    for (let batch = 0; batch < 10; batch += 1)
      await life.append(Array.from({ length: 100 }, () => ({ value: "x".repeat(8_000) })));
    await db.space?.checkpoint();
    const time = new FakeTime((passed) => database.pass(passed));
    const upkeep = openUpkeep({ db, queue: life.queue, scheduler: time, hasTimers: true });
    return { database, db, life, time, upkeep, size: () => statSync(database.path).size };
  }

  test("is shorter after what retention has deleted was free for a while, and is whole", async () => {
    const { database, db, life, time, upkeep, size } = await setUp();
    const full = size();
    expect(full).toBeGreaterThan(8_000_000);
    await upkeep.run();
    expect(await life.offsets()).toHaveLength(10);
    expect(size()).toBe(full);
    upkeep.wake();
    await time.advance(3 * FREE_FOR_MS);
    const [{ page_size: pageBytes = 0 } = {}] = await database.rows("PRAGMA page_size");
    expect(await db.space?.freePages()).toBe(KEPT_PAGES);
    expect(size()).toBeLessThan((KEPT_PAGES + 200) * Number(pageBytes));
    expect(stockRows(database.path, "PRAGMA integrity_check")).toEqual([{ integrity_check: "ok" }]);
    await life.append([{ value: 1 }]);
    expect(stockRows(database.path, "SELECT count(*) AS n FROM records")).toEqual([{ n: 11 }]);
    await upkeep.stop();
  });

  test("that another process writes to keeps it until that is done, and no write is lost for it", async () => {
    const { database, db, life, size } = await setUp();
    await life.run();
    const free = (await db.space?.freePages()) ?? 0;
    expect(free).toBeGreaterThan(1_000);
    const other = new OtherProcess(database.path);
    await other.run("BEGIN IMMEDIATE");
    for (let n = 0; n < 3; n += 1) {
      const failed = await db.space?.giveBack(100).catch((error: unknown) => error);
      expect(failed).toBeInstanceOf(DbError);
      expect((failed as DbError).failure).toBe("busy");
      expect(await db.space?.freePages()).toBe(free);
    }
    await other.run("COMMIT");
    for (let n = 0; n < 5; n += 1) await life.append([{ value: n }]);
    expect(stockRows(database.path, "SELECT count(*) AS n FROM records")).toEqual([{ n: 15 }]);
    await db.space?.giveBack(100);
    expect(await db.space?.freePages()).toBeLessThanOrEqual(free - 100);
    const before = size();
    await db.space?.checkpoint();
    expect(size()).toBeLessThan(before);
    expect(await other.run("SELECT count(*) AS n FROM records")).toEqual([{ n: 15 }]);
    await other.end();
  });

  test("of another process's making that cannot give anything back is left as it is", async () => {
    using folder = temporaryFolder({ isInMemory: true });
    const path = join(folder.path, "t.db");
    const other = new OtherProcess(path);
    await other.run("CREATE TABLE mine (n INTEGER)");
    await other.end();
    const db = await openEmbeddedDb(path);
    await migrate(db);
    await db.write([
      {
        sql: `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
              INSERT INTO records SELECT 1, i, 0, NULL, printf('%.*c', 4000, 'x'), NULL FROM n`,
      },
      { sql: "DELETE FROM records" },
    ]);
    await db.space?.checkpoint();
    const size = statSync(path).size;
    expect(await db.space?.freePages()).toBe(0);
    const time = new FakeTime();
    const upkeep = openUpkeep({ db, queue: openQueue(db), scheduler: time, hasTimers: true });
    upkeep.wake();
    await time.advance(10 * FREE_FOR_MS);
    expect(statSync(path).size).toBe(size);
    await upkeep.stop();
    await db.close();
  });
});
