import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { readChanges, readSeen } from "../../src/store/changes.ts";
import { commitOffsets } from "../../src/store/commits.ts";
import { commitFromOutside, deleteGroup, forgetTopic } from "../../src/store/group-changes.ts";
import { endMembershipsWithoutInstance, renewLease } from "../../src/store/leases.ts";
import { keepProcess } from "../../src/store/processes.ts";
import { Topics } from "../../src/store/topics.ts";
import { trimStep } from "../../src/store/trims.ts";
import { openQueue, openTestDatabase, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import { GroupStore, TIMEOUT_MS } from "../support/group-store.ts";

const database = await openTestDatabase();
const { db } = database;
const queue = openQueue(db);
const groups = new GroupStore({ db, queue });
const openTopics = () => new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
let topics = openTopics();
afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  topics = openTopics();
});

/** What one who has seen everything before it sees of it. */
async function seenOf(change: () => Promise<unknown>) {
  const before = await readSeen(db);
  await change();
  const { groups: changed, catalogVersion, version } = await readChanges(db, before);
  expect(await readSeen(db)).toEqual({ version, catalogVersion });
  expect(version).toBeGreaterThanOrEqual(before.version);
  for (const [, groupVersion] of changed) {
    expect(groupVersion).toBeGreaterThan(before.version);
    expect(groupVersion).toBeLessThanOrEqual(version);
  }
  return { groups: changed.map(([group]) => group), topics: catalogVersion - before.catalogVersion };
}

const NOTHING = { groups: [], topics: 0 };

describe("readSeen() and readChanges()", () => {
  test("of a new database see nothing", async () => {
    expect(await readSeen(db)).toEqual({ version: 0, catalogVersion: 0 });
    expect(await readChanges(db, await readSeen(db))).toEqual({ version: 0, catalogVersion: 0, groups: [] });
  });

  test("see every group that has changed since, by its version, and no other", async () => {
    await topics.put("orders", 1);
    await groups.join({ group: "before" });
    const seen = await readSeen(db);
    await groups.join({ group: "a" });
    await groups.join({ group: "b" });
    await groups.join({ group: "a" });
    const { groups: changed, version } = await readChanges(db, seen);
    expect(changed).toEqual(
      (await database.rows("SELECT group_id, version FROM groups WHERE version > 2 ORDER BY version")).map(
        ({ group_id, version: one }) => [group_id, one] as never,
      ),
    );
    expect(changed.map(([group]) => group)).toEqual(["b", "a"]);
    expect(await readChanges(db, { version, catalogVersion: 0 })).toMatchObject({ version, groups: [] });
  });

  test("see each change of a group once, in whichever process it was made", async () => {
    await topics.put("orders", 4);
    const other = openQueue(await database.openSecond());
    let seen = await readSeen(db);
    for (const [index, one] of [queue, other, other, queue].entries()) {
      const { operation } = await groups.planJoin({ newMemberId: `n${index}` });
      await one.submit(operation);
      const changes = await readChanges(db, seen);
      expect(changes.groups).toEqual([["billing", expect.any(Number)]]);
      expect(changes.groups[0]?.[1]).toBeGreaterThan(seen.version);
      seen = changes;
    }
    expect((await readChanges(db, seen)).groups).toEqual([]);
  });

  test("are one read each", async () => {
    const watched = new WatchedDb(db);
    await readChanges(watched, await readSeen(watched));
    expect(watched.reads).toHaveLength(2);
  });

  test("find the groups by an index, however many there are", async () => {
    const watched = new WatchedDb(db);
    await readChanges(watched, { version: 0, catalogVersion: 0 });
    const [{ sql = "", args = {} } = {}] = watched.reads;
    // On a connection of its own: after an EXPLAIN libSQL leaves it at the snapshot that it had.
    const plan = await (await database.openSecond()).read({ sql: `EXPLAIN QUERY PLAN ${sql}`, args });
    expect(plan.map(({ detail }) => String(detail)).filter((detail) => detail.includes("groups"))).toEqual([
      "SEARCH groups USING COVERING INDEX groups_by_version (version>?)",
    ]);
  });
});

describe("a group's version", () => {
  test("is new with every change of its members and owners, and with nothing else", async () => {
    await topics.put("orders", 2);
    const joined = await groups.join();
    const billing = { groups: ["billing"], topics: 0 };
    const acks = joined.partitions.map((owned) => ({ ...owned, offset: 0, refusal: undefined }));
    const { partitions, ...ref } = joined;
    expect(await seenOf(() => queue.submit(commitOffsets("billing", acks)))).toEqual(NOTHING);
    expect(await seenOf(() => queue.submit(renewLease(joined)))).toEqual(NOTHING);
    expect(await seenOf(() => queue.submit(keepProcess("p1")))).toEqual(NOTHING);
    expect(await seenOf(() => groups.join())).toEqual(billing);
    const release = { kind: "release", member: ref, partitions } as const;
    expect(await seenOf(() => groups.change([release]))).toEqual(billing);
    expect(await seenOf(() => groups.leave(joined))).toEqual(billing);
    await database.pass(TIMEOUT_MS);
    expect(await seenOf(() => groups.carryOut())).toEqual(billing);
    const outside = {
      op: queue.nextOp(),
      group: "other",
      offsets: [{ topic: "orders", partition: 0, offset: 0 }],
    };
    expect(await seenOf(() => queue.submit(commitFromOutside(outside)))).toEqual({
      groups: ["other"],
      topics: 0,
    });
    const forgetting = { op: queue.nextOp(), group: "billing", topic: "orders" };
    expect(await seenOf(() => queue.submit(forgetTopic(forgetting)))).toEqual(billing);
  });

  test("is new for the groups of members that have ended with their file, and for no other", async () => {
    await topics.put("orders", 1);
    await groups.join({ group: "a" });
    await groups.join({ group: "b", instanceId: "tab-7" });
    expect(await seenOf(() => queue.submit(endMembershipsWithoutInstance()))).toEqual({
      groups: ["a"],
      topics: 0,
    });
  });

  test("of a group that was deleted is seen no more, and is new where it is born again", async () => {
    await topics.put("orders", 1);
    await groups.leave(await groups.join());
    const deletion = deleteGroup({ op: queue.nextOp(), group: "billing" });
    expect(await seenOf(() => queue.submit(deletion))).toEqual(NOTHING);
    expect(await seenOf(() => groups.join())).toEqual({ groups: ["billing"], topics: 0 });
  });

  test("is new where a topic of the group was deleted", async () => {
    await topics.put("orders", 1);
    await groups.join();
    await topics.put("others", 1);
    await groups.join({ group: "other", topics: ["others"] });
    expect(await seenOf(() => topics.delete("orders"))).toEqual({ groups: ["billing"], topics: 1 });
  });
});

describe("the version of the catalog", () => {
  test("is new with every topic that is created, grown or deleted", async () => {
    const one = { groups: [], topics: 1 };
    expect(await seenOf(() => topics.put("orders", 3))).toEqual(one);
    expect(await seenOf(() => topics.put("orders", 5))).toEqual(one);
    expect(await seenOf(() => topics.put("orders", 1_024))).toEqual(one);
    expect(await seenOf(() => topics.put("others", 1))).toEqual(one);
    expect(await seenOf(() => topics.delete("orders"))).toEqual(one);
    expect(await seenOf(() => topics.put("orders", 1))).toEqual(one);
  });

  test("is the same where nothing has come of a change, and whatever happens in a topic", async () => {
    await topics.put("orders", 2);
    const topic = await topics.require("orders");
    const records = parseJsonProduce('{"records":[{"value":1}]}').records;
    expect(await seenOf(() => topics.put("orders", 2))).toEqual(NOTHING);
    expect(await seenOf(() => topics.put("orders", 1).catch(() => {}))).toEqual(NOTHING);
    expect(await seenOf(() => topics.delete("nowhere").catch(() => {}))).toEqual(NOTHING);
    expect(await seenOf(() => queue.submit(appendRecords(topic, [{ partition: 0, records }])))).toEqual(
      NOTHING,
    );
    expect(await seenOf(() => queue.submit(trimStep({ partitionId: 1, before: 1 })))).toEqual(NOTHING);
  });
});
