import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { PROCESS_LEASE_MS } from "../../src/protocol/limits.ts";
import { renewLease } from "../../src/store/leases.ts";
import { endProcess, keepProcess } from "../../src/store/processes.ts";
import { Topics } from "../../src/store/topics.ts";
import { openQueue, openTestDatabase, START_MS, stockRows } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import { GroupStore, readGroup, TIMEOUT_MS } from "../support/group-store.ts";

const database = await openTestDatabase();
const { db } = database;
const queue = openQueue(db);
const groups = new GroupStore({ db, queue, processId: "p1" });
afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  await new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true }).put("orders", 2);
});

const keep = (processId = "p1") => queue.submit(keepProcess(processId));
const end = (processId = "p1") => queue.submit(endProcess(processId));
const rows = (sql: string) => stockRows(database.path, sql);

/** How much later than START_MS each lease runs out. */
const leases = () =>
  Object.fromEntries(
    rows("SELECT * FROM processes ORDER BY process_id").map((row) => [
      row.process_id,
      Number(row.lease_expires_at) - START_MS,
    ]),
  );

/** Who is alive, as a picture of the group and as the view have it. */
async function alive(): Promise<readonly string[]> {
  const { members } = await readGroup(db, "billing", []);
  const found = members.filter(({ expiresInMs }) => expiresInMs > 0).map(({ memberId }) => memberId);
  const [{ now_ms: now } = {}] = await database.rows("SELECT now_ms FROM clock");
  const view = rows(`SELECT member_id FROM member_leases WHERE expires_at > ${now} ORDER BY member_id`);
  expect(view.map(({ member_id }) => member_id)).toEqual(found);
  return found;
}

describe("keepProcess()", () => {
  test("gives a lease from now on, again and again", async () => {
    await keep();
    expect(leases()).toEqual({ p1: PROCESS_LEASE_MS });
    await database.pass(2_500);
    await keep();
    expect(leases()).toEqual({ p1: 2_500 + PROCESS_LEASE_MS });
  });

  test("takes nothing away from a process that has more", async () => {
    await groups.join();
    await database.run("UPDATE processes SET lease_expires_at = lease_expires_at + 100000");
    await keep();
    expect(leases()).toEqual({ p1: PROCESS_LEASE_MS + 100_000 });
  });

  test("forgets others that are gone and have no members, from the moment in which they are", async () => {
    await keep("gone");
    await database.pass(1);
    await keep("alive");
    await database.pass(PROCESS_LEASE_MS - 2);
    await keep();
    expect(Object.keys(leases())).toEqual(["alive", "gone", "p1"]);
    await database.pass(1);
    await keep();
    expect(Object.keys(leases())).toEqual(["alive", "p1"]);
  });

  test("forgets none that has members, static or not: it may come back to them", async () => {
    await new GroupStore({ db, queue, processId: "dynamic" }).join({ group: "a" });
    await new GroupStore({ db, queue, processId: "static" }).join({ group: "b", instanceId: "tab-7" });
    await database.pass(PROCESS_LEASE_MS);
    await keep();
    expect(Object.keys(leases())).toEqual(["dynamic", "p1", "static"]);
    await groups.carryOut("a");
    await keep();
    expect(Object.keys(leases())).toEqual(["p1", "static"]);
  });

  test("after its lease has run out brings it and its members back, where nobody has ended them", async () => {
    await groups.join();
    await database.pass(PROCESS_LEASE_MS);
    expect(await alive()).toEqual([]);
    await keep();
    expect(await alive()).toEqual(["m1"]);
  });
});

describe("a member without instanceId", () => {
  test("ends with the lease of its server process, whatever is left of its own", async () => {
    const joined = await groups.join();
    await database.pass(PROCESS_LEASE_MS - 1);
    await queue.submit(renewLease(joined));
    expect(await alive()).toEqual(["m1"]);
    await database.pass(1);
    expect(await alive()).toEqual([]);
    await groups.carryOut();
    expect(rows("SELECT * FROM members")).toEqual([]);
    expect(rows("SELECT * FROM assignments")).toEqual([]);
  });

  test("ends with its own lease, whatever is left of its process's", async () => {
    await groups.join({ sessionTimeoutMs: 6_000 });
    await database.pass(5_999);
    await keep();
    expect(await alive()).toEqual(["m1"]);
    await database.pass(1);
    expect(await alive()).toEqual([]);
  });

  test("of no process, where there is only one, ends with its own lease alone", async () => {
    await new GroupStore({ db, queue }).join();
    await database.pass(TIMEOUT_MS - 1);
    expect(await alive()).toEqual(["m1"]);
    await database.pass(1);
    expect(await alive()).toEqual([]);
  });
});

test("a static member outlives its server process for as long as its own lease runs", async () => {
  await groups.join({ instanceId: "tab-7" });
  await end();
  await database.pass(TIMEOUT_MS - 1);
  expect(await alive()).toEqual(["m1"]);
  await groups.carryOut();
  expect((await groups.owned("m1")).partitions).toHaveLength(2);
  await database.pass(1);
  expect(await alive()).toEqual([]);
});

describe("endProcess()", () => {
  test("ends what hangs on it at once, and nothing of others", async () => {
    await groups.join();
    await groups.join({ instanceId: "tab-7" });
    await new GroupStore({ db, queue, processId: "p2" }).join();
    await new GroupStore({ db, queue }).join();
    await end();
    expect(await alive()).toEqual(["m2", "m3", "m4"]);
    expect(leases()).toEqual({ p2: PROCESS_LEASE_MS });
  });

  test("of one that has no lease does nothing", async () => {
    await keep();
    await end("nobody");
    expect(leases()).toEqual({ p1: PROCESS_LEASE_MS });
  });
});

describe("the view member_leases", () => {
  test("shows every member's to stock SQLite", async () => {
    await groups.join({ group: "a" });
    await groups.join({ group: "b", instanceId: "tab-7" });
    await new GroupStore({ db, queue }).join({ group: "c" });
    await groups.join({ group: "d", sessionTimeoutMs: 6_000 });
    await new GroupStore({ db, queue, processId: "ended" }).join({ group: "e" });
    await end("ended");
    const member = (group_id: string, expires_at: number) => ({ group_id, member_id: "m1", expires_at });
    expect(rows("SELECT * FROM member_leases ORDER BY group_id")).toEqual([
      member("a", START_MS + PROCESS_LEASE_MS),
      member("b", START_MS + TIMEOUT_MS),
      member("c", START_MS + TIMEOUT_MS),
      member("d", START_MS + 6_000),
      member("e", 0),
    ]);
  });
});
