import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { DbError } from "../../src/store/db.ts";
import { WriteQueue } from "../../src/store/write-queue.ts";
import { ProcessLease } from "../../src/stream/process-lease.ts";
import { failing, openTestDatabase, WatchedDb } from "../support/database.ts";
import { FakeTime, fakeChance } from "../support/fake-time.ts";

const database = await openTestDatabase();
afterAll(() => database.close());
beforeEach(() => database.empty());

const LEASE_MS = 10_000;
const RENEW_EVERY_MS = 2_500;

function setUp() {
  const watched = new WatchedDb(database.db);
  const time = new FakeTime((ms) => database.pass(ms));
  const noted: string[] = [];
  const log = (event: string) => void noted.push(event);
  const queue = new WriteQueue({ db: watched, scheduler: time, chance: fakeChance(), log });
  const onOutage = () => void noted.push("outage");
  const lease = new ProcessLease({ processId: "p", queue, scheduler: time, log, onOutage });
  return { watched, time, noted, lease };
}

const leases = () =>
  database.rows(
    "SELECT process_id, lease_expires_at - now_ms AS left_ms FROM processes, clock ORDER BY process_id",
  );

describe("ProcessLease", () => {
  test("is renewed four times a lease while it is held, and no more when it is let go", async () => {
    const { lease, time, watched } = setUp();
    lease.hold();
    lease.hold();
    await time.advance(4 * RENEW_EVERY_MS);
    expect(watched.writes).toHaveLength(4);
    expect(await leases()).toEqual([{ process_id: "p", left_ms: LEASE_MS }]);
    lease.letGo();
    await time.advance(60_000);
    expect(watched.writes).toHaveLength(4);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("that is let go and held again while it is being renewed is renewed no oftener", async () => {
    const { lease, time, watched } = setUp();
    let answer = () => {};
    watched.onWrite = () =>
      new Promise<void>((resolve) => {
        answer = resolve;
      });
    lease.hold();
    await time.advance(RENEW_EVERY_MS);
    watched.onWrite = undefined;
    lease.letGo();
    lease.hold();
    answer();
    await time.settle();
    expect(time.pendingDelaysMs).toHaveLength(1);
  });

  test("that cannot be renewed is an outage, and is tried again", async () => {
    const { lease, time, watched, noted } = setUp();
    lease.hold();
    watched.onWrite = failing(new DbError("io", "scripted"));
    await time.advance(RENEW_EVERY_MS);
    expect(noted.filter((event) => event === "outage")).toHaveLength(1);
    await time.advance(RENEW_EVERY_MS);
    expect(await leases()).toEqual([{ process_id: "p", left_ms: LEASE_MS }]);
    expect(noted.filter((event) => event === "outage")).toHaveLength(1);
  });

  test("never goes back, and is gone when it is ended", async () => {
    const { lease, time } = setUp();
    await database.run(
      "INSERT INTO processes (process_id, lease_expires_at) SELECT 'p', now_ms + 60000 FROM clock",
    );
    lease.hold();
    await time.advance(RENEW_EVERY_MS);
    expect(await leases()).toEqual([{ process_id: "p", left_ms: 60_000 - RENEW_EVERY_MS }]);
    await lease.end();
    await time.advance(RENEW_EVERY_MS);
    expect(await leases()).toEqual([]);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("that cannot be ended runs out", async () => {
    const { lease, watched, noted } = setUp();
    await database.run(
      "INSERT INTO processes (process_id, lease_expires_at) SELECT 'p', now_ms + 10000 FROM clock",
    );
    watched.onWrite = failing(new DbError("io", "scripted"));
    await lease.end();
    expect(noted).toContain("process lease not ended");
    expect(await leases()).toEqual([{ process_id: "p", left_ms: 10_000 }]);
  });

  test("forgets processes that are dead and have no members left", async () => {
    const { lease, time } = setUp();
    await database.run("INSERT INTO groups (group_id, version, created_at) VALUES ('g', 1, 0)");
    await database.run(
      'INSERT INTO processes (process_id, lease_expires_at) SELECT value, now_ms + 1000 FROM clock, json_each(\'["dead", "missed"]\')',
    );
    await database.run(
      `INSERT INTO members (group_id, member_id, membership, topics, session_timeout_ms, joined_at, lease_expires_at, process_id)
       VALUES ('g', 'm', 1, '[]', 45000, 0, 9e15, 'missed')`,
    );
    lease.hold();
    await time.advance(RENEW_EVERY_MS);
    expect((await leases()).map(({ process_id }) => process_id)).toEqual(["missed", "p"]);
  });
});
