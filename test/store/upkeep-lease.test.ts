import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { UPKEEP_LEASE_MS, UpkeepLease } from "../../src/store/upkeep-lease.ts";
import { openQueue, openTestDatabase, START_MS, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";

const database = await openTestDatabase();
const watched = new WatchedDb(database.db);
const queue = openQueue(watched);
const time = new FakeTime((passed) => database.pass(passed));
afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  watched.writes.length = 0;
});

const leaseOf = (processId: string | null) => new UpkeepLease({ processId, queue, scheduler: time });
const stored = () => database.rows("SELECT * FROM upkeep_lease");

describe("UpkeepLease", () => {
  test("is held by one process, until it ends it", async () => {
    const [a, b] = [leaseOf("a"), leaseOf("b")];
    expect(await a.hold()).toBe(true);
    expect(await b.hold()).toBe(false);
    expect(await stored()).toEqual([{ one: 1, process_id: "a", expires_at: START_MS + UPKEEP_LEASE_MS }]);
    await b.end();
    expect(await b.hold()).toBe(false);
    await a.end();
    expect(await stored()).toEqual([]);
    expect(await b.hold()).toBe(true);
    expect(await a.hold()).toBe(false);
  });

  test("of two that take it at the same moment is one's", async () => {
    const held = await Promise.all(["a", "b", "c"].map((id) => leaseOf(id).hold()));
    expect(held).toEqual([true, false, false]);
  });

  test("is another's when it has run out, to the millisecond, and the first finds that out", async () => {
    const [a, b] = [leaseOf("a"), leaseOf("b")];
    await a.hold();
    await time.advance(UPKEEP_LEASE_MS - 1);
    expect(await b.hold()).toBe(false);
    await time.advance(1);
    expect(await b.hold()).toBe(true);
    expect(await a.hold()).toBe(false);
    await a.end();
    expect(await stored()).toMatchObject([{ process_id: "b" }]);
  });

  test("is renewed after a third of it, and not written before", async () => {
    const a = leaseOf("a");
    await a.hold();
    await time.advance(Math.floor(UPKEEP_LEASE_MS / 3));
    await a.hold();
    expect(watched.writes).toHaveLength(1);
    await time.advance(1);
    await a.hold();
    expect(watched.writes).toHaveLength(2);
    await time.advance(UPKEEP_LEASE_MS - 1);
    expect(await leaseOf("b").hold()).toBe(false);
  });

  test("of a process that died is another's after its time; the same id is not kept waiting", async () => {
    await leaseOf("a").hold();
    expect(await leaseOf("a").hold()).toBe(true);
    await time.advance(UPKEEP_LEASE_MS);
    expect(await leaseOf("b").hold()).toBe(true);
  });

  test("that is further ahead than any can be is from before the clock was set back, and counts for nothing", async () => {
    await leaseOf("a").hold();
    await database.pass(-1);
    expect(await leaseOf("b").hold()).toBe(true);
    await database.pass(-1_000_000_000);
    expect(await leaseOf("c").hold()).toBe(true);
    expect(await leaseOf("d").hold()).toBe(false);
  });

  test("is held without a row where no other process shares the database", async () => {
    const alone = leaseOf(null);
    expect(await alone.hold()).toBe(true);
    await alone.end();
    expect(watched.writes).toEqual([]);
  });
});
