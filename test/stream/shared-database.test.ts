// Several servers that share nothing but a database: who owns what, whoever of them stands still, dies, is cut off or
// has a wrong clock.

import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { DbError } from "../../src/store/db.ts";
import { openTestDatabase, stockRows } from "../support/database.ts";
import { FakeTime, turnOfTheLoop } from "../support/fake-time.ts";
import { type FrameOf, type Instance, type MemoryClient, startInstance } from "../support/instances.ts";

const database = await openTestDatabase();
const others = [await database.openSecond(), await database.openSecond()];
afterAll(() => database.close());
beforeEach(() => database.empty());

const PROCESS_LEASE_MS = 10_000;
/** Longer than it takes to find out what others have written, and what is due. */
const NOTICE_MS = 1_000;

async function startInstances(count: number, options: { clockOffsetMs?: number } = {}) {
  const time = new FakeTime((ms) => database.pass(ms));
  const instances: Instance[] = [];
  for (const db of [database.db, ...others].slice(0, count)) {
    const name = "abc"[instances.length] ?? "";
    const isLast = instances.length === count - 1;
    instances.push(await startInstance({ db, time, name, ...(isLast ? options : {}) }));
  }
  const [a, b] = instances as [Instance, Instance];
  await a.call("PUT", "/v1/topics/orders", { partitionCount: 2 });
  return { time, instances, a, b };
}

const rows = (sql: string) => stockRows(database.path, sql);
const owners = () =>
  rows("SELECT partition, member_id FROM consumer_lag ORDER BY partition").map(({ member_id }) => member_id);
const committed = () =>
  rows("SELECT committed_offset FROM consumer_lag ORDER BY partition").map(
    ({ committed_offset }) => committed_offset,
  );

const assignedTo = (client: MemoryClient) =>
  client.takeOnly("assigned").flatMap(({ partitions }) => partitions.map(({ partition }) => partition));

const ackOf = ({ topic, partition, generation, next }: FrameOf<"records">) => ({
  topic,
  partition,
  generation,
  offset: next,
});

describe("servers on one database", () => {
  test("share the partitions of a group between their members", async () => {
    const { time, a, b } = await startInstances(2);
    const first = await a.join();
    expect(assignedTo(first)).toEqual([0, 1]);
    const second = await b.join();
    await time.advance(NOTICE_MS);
    expect(first.take()).toMatchObject([
      { type: "revoked", reason: "rebalance", partitions: [{ partition: 1 }] },
    ]);
    expect(assignedTo(second)).toEqual([1]);
    await a.produce(3, 1);
    await time.advance(NOTICE_MS);
    expect(second.takeOnly("records")).toMatchObject([{ partition: 1, next: 3 }]);
    expect(first.take()).toEqual([]);
  });

  test("plan again where another has changed the group since", async () => {
    const { time, a, b } = await startInstances(2);
    const second = await b.connect();
    const first = await a.connect();
    let isMeanwhile = true;
    a.watched.onWrite = async () => {
      if (!isMeanwhile) return;
      isMeanwhile = false;
      second.subscribe();
      while (second.received === 0) await turnOfTheLoop();
    };
    first.subscribe();
    await time.advance(NOTICE_MS);
    expect(new Set(owners()).size).toBe(2);
    expect(second.take().map(({ type }) => type)).toEqual(["subscribed", "assigned", "revoked"]);
    expect(first.take().map(({ type }) => type)).toEqual(["subscribed", "assigned", "assigned"]);
  });

  test("make one rebalance of all that joins and leaves at once", async () => {
    const { time, a } = await startInstances(1);
    const leaving = await a.join();
    const version = () => rows("SELECT version FROM groups");
    const [before] = version();
    const joining = await Promise.all(Array.from({ length: 20 }, () => a.connect()));
    leaving.hangUp();
    for (const client of joining) client.subscribe();
    await time.settle();
    // One number for the version, and one for the new generation of each of the two partitions.
    expect(version()).toEqual([{ version: Number(before?.version) + 3 }]);
    expect(joining.flatMap(assignedTo).toSorted()).toEqual([0, 1]);
  });

  test("hand over what a member leaves within 200 ms", async () => {
    const { time, a, b } = await startInstances(2);
    const first = await a.join();
    const second = await b.join();
    await time.advance(NOTICE_MS);
    second.take();
    first.hangUp();
    await time.advance(200);
    expect(assignedTo(second)).toEqual([0]);
  });

  test("find topics that another has made, given more partitions, deleted and made again", async () => {
    const { time, a, b } = await startInstances(2);
    const member = await a.join();
    const reader = await a.connect();
    reader.say({ type: "subscribe", subscription: "r", topics: ["orders"], from: "latest" });
    await time.settle();
    member.take();
    reader.take();
    await b.call("PUT", "/v1/topics/orders", { partitionCount: 3 });
    await b.produce(1, 2);
    await time.advance(NOTICE_MS);
    expect(member.take().map(({ type }) => type)).toEqual(["assigned", "records"]);
    expect(reader.take().map(({ type }) => type)).toEqual(["assigned", "records"]);
    await b.call("DELETE", "/v1/topics/orders");
    await time.advance(NOTICE_MS);
    expect(member.take()).toMatchObject([{ type: "revoked", reason: "topic_deleted" }]);
    expect(reader.take()).toMatchObject([{ type: "revoked", reason: "topic_deleted" }]);
    await b.produce(1);
    await time.advance(NOTICE_MS);
    expect(member.take().map(({ type }) => type)).toEqual(["assigned", "records"]);
    expect(reader.take().map(({ type }) => type)).toEqual(["assigned", "records"]);
  });

  test("give a member the partition that its topic gets while its join is being written", async () => {
    const { time, a } = await startInstances(1);
    const client = await a.connect();
    const isHeld = Promise.withResolvers<void>();
    const held = Promise.withResolvers<void>();
    a.watched.onWrite = async () => {
      a.watched.onWrite = undefined;
      isHeld.resolve();
      await held.promise;
    };
    const other = a.call("PUT", "/v1/topics/payments", {});
    await isHeld.promise;
    client.subscribe(); // its join goes into the flush after the one that is held, and the growth behind it
    for (let turn = 0; turn < 50; turn += 1) await turnOfTheLoop();
    const growth = a.call("PUT", "/v1/topics/orders", { partitionCount: 3 });
    for (let turn = 0; turn < 50; turn += 1) await turnOfTheLoop();
    held.resolve();
    await Promise.all([other, growth]);
    await time.advance(NOTICE_MS);
    expect(assignedTo(client).toSorted()).toEqual([0, 1, 2]);
  });

  test("produce to and read from partitions that another has just made", async () => {
    const { a, b } = await startInstances(2);
    await a.produce(1);
    await b.call("PUT", "/v1/topics/orders", { partitionCount: 3 });
    await a.produce(1, 2);
    expect((await a.call("GET", "/v1/topics/orders/partitions/2/records?from=0")).status).toBe(200);
  });
});

describe("a server that stands still", () => {
  test("loses its members to the others, and its clients' late acks are fenced", async () => {
    const { time, a, b } = await startInstances(2);
    await a.produce(10);
    const paused = await a.join();
    const second = await b.join();
    await time.advance(NOTICE_MS);
    const [records] = paused.takeOnly("records");
    second.take();
    a.pause();
    await time.advance(PROCESS_LEASE_MS + NOTICE_MS);
    expect(assignedTo(second)).toEqual([0]);
    if (!records) throw new Error("no records have come");
    paused.ack(ackOf(records));
    a.resume();
    await time.settle();
    await time.advance(NOTICE_MS);
    expect(paused.take()).toMatchObject([
      { type: "acked", offsets: [{ code: "fenced_generation", offset: 0 }] },
      { type: "revoked", reason: "expired" },
      { type: "unsubscribed", code: "expired" },
    ]);
    expect(committed()).toEqual([0, 0]);
  });

  test("for less than its lease keeps what it has", async () => {
    const { time, a, b } = await startInstances(2);
    const paused = await a.join();
    await b.join();
    await time.advance(NOTICE_MS);
    paused.take();
    const before = owners();
    a.pause();
    await time.advance(PROCESS_LEASE_MS / 2);
    a.resume();
    await time.advance(60_000);
    expect(owners()).toEqual(before);
    expect(paused.take()).toEqual([]);
  });

  test("alone does not hold it against its own members", async () => {
    const { time, a } = await startInstances(1);
    const member = await a.join();
    member.take();
    a.pause();
    await time.advance(2 * PROCESS_LEASE_MS);
    a.resume();
    await time.advance(NOTICE_MS);
    await a.produce(1);
    await time.advance(NOTICE_MS);
    expect(member.take()).toMatchObject([{ type: "records" }]);
  });

  test("leaves static members alone until their own lease is over", async () => {
    const { time, a, b } = await startInstances(2);
    await a.join({ instanceId: "tab-1" });
    const second = await b.join();
    await time.advance(NOTICE_MS);
    second.take();
    a.crash();
    await time.advance(PROCESS_LEASE_MS + NOTICE_MS);
    expect(second.take()).toEqual([]);
    const again = await b.join({ instanceId: "tab-1" });
    await time.advance(NOTICE_MS);
    expect(assignedTo(again)).toEqual([0]);
    expect(second.take()).toEqual([]);
  });
});

describe("a server that dies", () => {
  test("between assignment and first read leaves nothing undelivered", async () => {
    const { time, a, b } = await startInstances(2);
    await b.produce(5);
    const dead = await a.connect();
    a.watched.onRead = ({ sql }) => {
      if (sql.includes("group_concat(record)")) a.crash();
    };
    dead.subscribe();
    await time.settle();
    expect(dead.take().map(({ type }) => type)).toEqual(["subscribed", "assigned"]);
    const second = await b.join();
    await time.advance(PROCESS_LEASE_MS + NOTICE_MS);
    expect(second.takeOnly("records")).toMatchObject([
      { partition: 0, records: [{ offset: 0 }, {}, {}, {}, {}] },
    ]);
  });

  test("while it revokes has its deadline carried out by another", async () => {
    const { time, a, b } = await startInstances(2);
    await a.produce(5, 1);
    await a.join();
    const second = await b.join();
    await time.advance(NOTICE_MS);
    second.take();
    expect(rows("SELECT count(*) AS n FROM assignments WHERE revoke_deadline IS NOT NULL")).toEqual([
      { n: 1 },
    ]);
    a.crash();
    await time.advance(4_500);
    expect(second.takeOnly("records")).toMatchObject([{ partition: 1, next: 5 }]);
  });

  test("is forgotten when its members are gone", async () => {
    const { time, a, b } = await startInstances(2);
    await a.join();
    await b.join();
    a.crash();
    await time.advance(2 * PROCESS_LEASE_MS);
    expect(rows("SELECT process_id FROM processes")).toHaveLength(1);
  });
});

describe("retention", () => {
  test("goes on where the server dies that topics are known to, on one that never had to do with them", async () => {
    const { time, a, b } = await startInstances(2);
    await b.join();
    await time.advance(NOTICE_MS);
    await a.call("PUT", "/v1/topics/kept", { retention: { ms: 10_000, records: 5 } });
    await a.produce(8, 0, "kept");
    await time.advance(NOTICE_MS);
    const left = () => rows("SELECT records FROM partition_stats WHERE topic = 'kept'");
    expect(left()).toEqual([{ records: 5 }]);
    a.crash();
    await time.advance(70_000);
    expect(left()).toEqual([{ records: 0 }]);
    await b.stop();
  });
});

describe("an outage of the database", () => {
  // Of 8 s nobody is told: a write waits for the lock for longer, and a lease runs out in 6.
  test.each([
    ["io", 60_000],
    ["io", 8_000],
    ["busy", 60_000],
    ["busy", 8_000],
  ] as const)("(%s, %i ms) expires nobody", async (failure, outageMs) => {
    const { time, instances, a } = await startInstances(3);
    const members: MemoryClient[] = [];
    for (const instance of instances)
      members.push(await instance.join({ sessionTimeoutMs: 6_000, topics: ["orders"] }));
    const third = members[2];
    await time.advance(NOTICE_MS);
    for (const member of members) member.take();
    const before = owners();
    for (const instance of instances) instance.cutOff(failure);
    await time.advance(outageMs);
    for (const instance of instances) {
      instance.letBack();
      if (instance === a) await a.join({ instanceId: "new" }); // a rebalance before all others
      await time.advance(300);
    }
    await time.advance(60_000);
    expect(owners()).toEqual(before);
    expect(rows("SELECT count(*) AS n FROM members")).toEqual([{ n: 4 }]);
    expect(third?.take()).toEqual([]);
    await a.produce(1, 0);
    await a.produce(1, 1);
    await time.advance(NOTICE_MS);
    expect(members.flatMap((member) => member.takeOnly("records"))).toHaveLength(2);
  });

  test("for one server only costs it its members", async () => {
    const { time, a, b } = await startInstances(2);
    const lost = await a.join();
    const second = await b.join();
    await time.advance(NOTICE_MS);
    second.take();
    a.cutOff();
    await time.advance(PROCESS_LEASE_MS + NOTICE_MS);
    expect(assignedTo(second)).toEqual([0]);
    lost.take();
    a.letBack();
    await time.advance(3_000);
    expect(lost.take()).toMatchObject([
      { type: "revoked", reason: "expired" },
      { type: "unsubscribed", code: "expired" },
    ]);
  });
});

describe("an outage that only some have seen", () => {
  test("expires nobody when the first client of an idle server comes before the others have renewed", async () => {
    const { time, a, b } = await startInstances(2);
    const member = await a.join({ sessionTimeoutMs: 6_000 });
    member.take();
    for (const instance of [a, b]) instance.cutOff();
    await time.advance(30_000);
    for (const instance of [a, b]) instance.letBack();
    await b.join(); // it has had no client, and so has not noticed
    await time.advance(60_000);
    expect(rows("SELECT count(*) AS n FROM members")).toEqual([{ n: 2 }]);
    expect(member.take()).toMatchObject([{ type: "revoked", reason: "rebalance" }]);
  });

  test("again and again by one server keeps the dead of another alive no longer than once", async () => {
    const { time, instances, b } = await startInstances(3);
    const [a, , c] = instances;
    await a?.join({ sessionTimeoutMs: 300_000 });
    const second = await b.join();
    await c?.join({ group: "another" });
    await time.advance(NOTICE_MS);
    second.take();
    a?.crash();
    for (let times = 0; times < 15; times += 1) {
      c?.cutOff();
      await time.advance(3_000);
      c?.letBack();
      await time.advance(7_000);
    }
    expect(assignedTo(second)).toEqual([0]);
  });

  test("does not hide from a server that a group was deleted and born again meanwhile", async () => {
    const { time, a, b } = await startInstances(2);
    const member = await a.join();
    member.take();
    await b.connect();
    a.cutOff();
    await time.advance(PROCESS_LEASE_MS + NOTICE_MS);
    expect((await b.call("DELETE", "/v1/groups/billing")).status).toBe(204);
    a.letBack();
    await time.advance(3_000);
    expect(member.take()).toMatchObject([{ type: "revoked", reason: "expired" }, { type: "unsubscribed" }]);
  });
});

describe("a group that the database refuses to read", () => {
  test("keeps no other from being handed over", async () => {
    const { time, a, b } = await startInstances(2);
    await b.join();
    await b.join({ group: "stuck" });
    const second = await a.join();
    const stuck = await a.join({ group: "stuck" });
    await time.advance(NOTICE_MS);
    for (const client of [second, stuck]) client.take();
    a.watched.onRead = ({ args }) => {
      if (String(args?.asked).includes('"stuck"')) throw new DbError("rejected", "too large");
    };
    await a.connect().then((client) => client.subscribe({ group: "stuck" }));
    b.crash();
    await time.advance(PROCESS_LEASE_MS + 2 * NOTICE_MS);
    expect(assignedTo(second)).toEqual([0]);
    expect(a.log.filter((line) => line.includes("outage"))).toEqual([]);
    const tries = () => a.log.filter((line) => line.includes("not changed")).length;
    const before = tries();
    await time.advance(120_000);
    expect(tries() - before).toBeLessThan(10); // less and less often, whatever is due
  });
});

describe("a database whose clock", () => {
  test("is set forward expires nobody, also where somebody joins at that moment", async () => {
    const { time, a, b } = await startInstances(2);
    const members = [await a.join(), await b.join()];
    await time.advance(PROCESS_LEASE_MS);
    await database.pass(3_600_000);
    await a.join({ instanceId: "new" });
    await time.advance(60_000);
    expect(rows("SELECT count(*) AS n FROM members")).toEqual([{ n: 3 }]);
    for (const member of members)
      expect(member.take().filter(({ type }) => type === "unsubscribed")).toEqual([]);
  });

  test("is set back puts nothing off for as long", async () => {
    const { time, a, b } = await startInstances(2);
    await a.join();
    const second = await b.join();
    await time.advance(NOTICE_MS);
    second.take();
    await database.pass(-3_600_000);
    await time.advance(2 * PROCESS_LEASE_MS);
    a.crash();
    await time.advance(2 * PROCESS_LEASE_MS + NOTICE_MS);
    expect(assignedTo(second)).toEqual([0]);
  });
});

describe("a server whose clock is an hour ahead", () => {
  test("expires nobody and loses nobody", async () => {
    const { time, a, b } = await startInstances(2, { clockOffsetMs: 3_600_000 });
    const first = await a.join({ sessionTimeoutMs: 6_000 });
    const second = await b.join({ sessionTimeoutMs: 6_000 });
    await time.advance(NOTICE_MS);
    first.take();
    second.take();
    const before = owners();
    await time.advance(120_000);
    expect(owners()).toEqual(before);
    expect([...first.take(), ...second.take()]).toEqual([]);
  });

  test("carries out what is due by the database's clock", async () => {
    const { time, a, b } = await startInstances(2, { clockOffsetMs: 3_600_000 });
    await a.join();
    const second = await b.join();
    await time.advance(NOTICE_MS);
    second.take();
    a.crash();
    await time.advance(PROCESS_LEASE_MS - 2 * NOTICE_MS - 2_500);
    expect(second.take()).toEqual([]);
    await time.advance(4 * NOTICE_MS);
    expect(assignedTo(second)).toEqual([0]);
  });
});
