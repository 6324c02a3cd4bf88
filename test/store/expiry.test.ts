import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { expireGroup, expireProducers, walkGroups, walkProducers } from "../../src/store/expiry.ts";
import { commitFromOutside } from "../../src/store/group-changes.ts";
import { renewLease } from "../../src/store/leases.ts";
import { keepProcess } from "../../src/store/processes.ts";
import { readRepeated } from "../../src/store/producers.ts";
import { openTestDatabase } from "../support/database.ts";
import { GroupStore, TIMEOUT_MS } from "../support/group-store.ts";
import { openLogLife, values } from "../support/log-life.ts";
import { recordsAt, transactionOf } from "../support/transaction-writes.ts";

const DAY_MS = 24 * 60 * 60 * 1_000;
const PRODUCER_MS = 7 * DAY_MS;
/** How long the groups of these tests keep their offsets. */
const IDLE_MS = 1_000_000;

const database = await openTestDatabase();
const { db } = database;
const life = openLogLife(database);
const { queue, run } = life;
const groups = new GroupStore({ db, queue });
afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  life.forget();
  await life.put({ partitionCount: 2 });
});

async function all<T>(parts: AsyncGenerator<readonly T[]>): Promise<readonly T[]> {
  const found: T[] = [];
  for await (const part of parts) found.push(...part);
  return found;
}

const count = async (table: string) =>
  Number((await database.rows(`SELECT count(*) AS n FROM ${table}`))[0]?.n);

describe("A producer", () => {
  const write = async (sequence: number, id = "p", epoch = 0) => {
    const topic = await life.topics.require("orders");
    const conditions = { producer: { id, epoch, sequence } };
    return queue.submit(transactionOf(queue, conditions, { topic, records: recordsAt(0, "1") }));
  };
  const known = async () =>
    (await database.rows("SELECT producer_id FROM producers ORDER BY producer_id")).map(
      ({ producer_id }) => producer_id,
    );

  test("that has written nothing for seven days is gone, its answers with it, and no other", async () => {
    await write(0, "old");
    await write(1, "old");
    await database.pass(1);
    await write(0, "young");
    await database.pass(PRODUCER_MS - 2);
    await run();
    expect(await known()).toEqual(["old", "young"]);
    await database.pass(1);
    await run();
    expect(await known()).toEqual(["young"]);
    expect(await database.rows("SELECT DISTINCT producer_id FROM producer_answers")).toEqual([
      { producer_id: "young" },
    ]);
    expect(await readRepeated(db, { id: "young", epoch: 0, sequence: 0 })).toBeDefined();
  });

  test("that has written in between stays for seven days from then", async () => {
    await write(0);
    await database.pass(PRODUCER_MS - 1);
    await write(1);
    await database.pass(PRODUCER_MS - 1);
    await run();
    expect(await known()).toEqual(["p"]);
    await database.pass(1);
    await run();
    expect(await known()).toEqual([]);
    expect(await count("producer_answers")).toBe(0);
  });

  test("that comes back after it was found and before it is deleted stays, with its new answers", async () => {
    await write(0, "back");
    await write(0, "gone");
    await database.pass(PRODUCER_MS);
    const found = await all(walkProducers(db));
    expect(found).toEqual(["back", "gone"]);
    await write(0, "back");
    await queue.submit(expireProducers(found));
    expect(await known()).toEqual(["back"]);
    expect(await database.rows("SELECT producer_id, sequence FROM producer_answers")).toEqual([
      { producer_id: "back", sequence: 0 },
    ]);
    await write(1, "back");
  });

  test("is found among many, in parts of a bounded size", async () => {
    await database.run(
      `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
       INSERT INTO producers
       SELECT printf('p%04d', i), 0, 1, now_ms - CASE WHEN i % 3 = 0 OR i < 400 THEN :idle ELSE 0 END FROM n, clock`,
      { idle: PRODUCER_MS },
    );
    const parts = await Array.fromAsync(walkProducers(db));
    expect(parts).toHaveLength(6);
    expect(Math.max(...parts.map((part) => part.length))).toBe(200);
    expect(parts.at(-1)).toEqual([]);
    await run();
    expect(await count("producers")).toBe(400);
    expect(await all(walkProducers(db))).toEqual([]);
  });

  test("used in the future, as the clock was set back, stays", async () => {
    await write(0);
    await database.pass(-PRODUCER_MS);
    await run();
    expect(await known()).toEqual(["p"]);
  });
});

describe("A group without members", () => {
  const expire = () => run({ offsetRetentionMs: IDLE_MS });
  const tables = [
    "groups",
    "group_topics",
    "members",
    "assignments",
    "committed_offsets",
    "offset_history",
    "idle_groups",
  ];
  const left = async () => {
    const found: string[] = [];
    for (const table of tables)
      for (const { group_id } of await database.rows(`SELECT DISTINCT group_id FROM ${table}`))
        found.push(`${table}: ${group_id}`);
    return found;
  };
  const exists = async (group = "billing") =>
    (await database.rows("SELECT 1 FROM groups WHERE group_id = :group", { group })).length === 1;
  const commit = (group: string, offset: number) =>
    queue.submit(
      commitFromOutside({
        op: queue.nextOp(),
        group,
        offsets: [{ topic: "orders", partition: 0, offset }],
      }),
    );

  test("stays for ever, where nobody says anything else", async () => {
    await life.append(values(3));
    await commit("billing", 1);
    for (let year = 0; year < 3; year += 1) {
      await run();
      await database.pass(365 * DAY_MS);
    }
    await run();
    expect(await exists()).toBe(true);
    expect(await count("idle_groups")).toBe(0);
  });

  test("goes with all its rows after its time, and no other", async () => {
    await life.append(values(3));
    await commit("billing", 1);
    await database.run(
      "INSERT INTO offset_history SELECT 1, 'billing', 'orders', 0, 1, 0, 'a test', 'me', now_ms FROM clock",
    );
    await expire();
    await database.pass(IDLE_MS - 1);
    await commit("other", 1);
    await expire();
    expect(await exists()).toBe(true);
    await database.pass(1);
    await expire();
    expect(await left()).toEqual([
      "groups: other",
      "group_topics: other",
      "committed_offsets: other",
      "idle_groups: other",
    ]);
    expect(await count("guard")).toBe(0);
  });

  test("has its time from when it is found without members, and again from each commit", async () => {
    await life.append(values(3));
    await commit("billing", 1);
    await database.pass(10 * IDLE_MS);
    await expire();
    await database.pass(IDLE_MS - 1);
    await expire();
    expect(await exists()).toBe(true);
    await commit("billing", 2);
    await database.pass(1);
    await expire();
    expect(await exists()).toBe(true);
    await database.pass(IDLE_MS - 1);
    await expire();
    expect(await exists()).toBe(true);
    await database.pass(1);
    await expire();
    expect(await exists()).toBe(false);
  });

  test("does not go while a member lives, by its lease, nor before its time after that", async () => {
    const member = await groups.join();
    for (let passed = 0; passed < 3 * IDLE_MS; passed += TIMEOUT_MS - 1) {
      await expire();
      await queue.submit(renewLease(member));
      await database.pass(TIMEOUT_MS - 1);
    }
    expect(await count("idle_groups")).toBe(0);
    await database.pass(1); // nobody has ended it
    await expire();
    expect(await count("idle_groups")).toBe(1);
    await database.pass(IDLE_MS - 1);
    await expire();
    expect(await exists()).toBe(true);
    await database.pass(1);
    await expire();
    expect(await left()).toEqual([]);
  });

  test("has its time anew after a member that was renewed when its lease had run out", async () => {
    const member = await groups.join();
    await database.pass(TIMEOUT_MS);
    await expire();
    expect(await count("idle_groups")).toBe(1);
    await database.pass(IDLE_MS - 100);
    expect(await queue.submit(renewLease(member))).toBe(true);
    await expire();
    await database.pass(TIMEOUT_MS);
    await expire(); // dead again, a moment ago
    expect(await exists()).toBe(true);
    await database.pass(IDLE_MS - 1);
    await expire();
    expect(await exists()).toBe(true);
    await database.pass(1);
    await expire();
    expect(await exists()).toBe(false);
  });

  test("does not go where somebody joined after it was found, and left again", async () => {
    await groups.leave(await groups.join());
    await expire();
    await database.pass(IDLE_MS);
    expect(await all(walkGroups(db, IDLE_MS))).toEqual(["billing"]);
    const op = queue.nextOp();
    const late = expireGroup({ op, group: "billing", idleMaxMs: IDLE_MS });
    const member = await groups.join();
    await queue.submit(late);
    expect(await left()).toContain("members: billing");
    await groups.leave(member);
    await queue.submit(late);
    expect(await exists()).toBe(true);
    await expire();
    await database.pass(IDLE_MS);
    await expire();
    expect(await exists()).toBe(false);
  });

  test("lives by the lease of its server, on a shared database", async () => {
    await queue.submit(keepProcess("s1"));
    const shared = new GroupStore({ db, queue, processId: "s1" });
    await shared.join({ sessionTimeoutMs: 600_000 });
    await expire();
    expect(await count("idle_groups")).toBe(0);
    await database.pass(300_000);
    await expire(); // the server is dead, the member's own lease is not over
    expect(await count("idle_groups")).toBe(1);
    await queue.submit(keepProcess("s1"));
    expect(await all(walkGroups(db, IDLE_MS))).toEqual([]);
  });

  test("has its time anew after the clock was set back", async () => {
    await life.append(values(3));
    await commit("billing", 1);
    await expire();
    await database.pass(-10 * IDLE_MS);
    await expire();
    await database.pass(IDLE_MS - 1);
    await expire();
    expect(await exists()).toBe(true);
    await database.pass(1);
    await expire();
    expect(await exists()).toBe(false);
  });

  test("is found among many, in parts of a bounded size", async () => {
    await database.run(
      `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 449)
       INSERT INTO groups SELECT printf('g%04d', i), i, now_ms FROM n, clock`,
    );
    expect((await Array.fromAsync(walkGroups(db, IDLE_MS))).map((part) => part.length)).toEqual([
      200, 200, 50,
    ]);
    await expire();
    expect(await count("idle_groups")).toBe(450);
    expect(await all(walkGroups(db, IDLE_MS))).toEqual([]);
    await database.pass(IDLE_MS);
    await expire();
    expect([await count("groups"), await count("idle_groups")]).toEqual([0, 0]);
  });

  test("that is gone is unknown: who joins starts as in a new one", async () => {
    await life.append(values(3));
    await commit("billing", 2);
    await expire();
    await database.pass(IDLE_MS);
    await expire();
    const { partitions } = await groups.join();
    expect(partitions.map(({ committedOffset }) => committedOffset)).toEqual([0, 0]);
  });
});
