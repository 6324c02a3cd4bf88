// What subscribers of one server are told of topics that another server on the same database changes, whatever else the
// first one does meanwhile.

import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import type { Statement } from "../../src/store/db.ts";
import { openTestDatabase } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import { type Instance, type MemoryClient, startInstance } from "../support/instances.ts";

const database = await openTestDatabase();
const second = await database.openSecond();
afterAll(() => database.close());
beforeEach(() => database.empty());

/** Longer than it takes to find out what another has written. */
const NOTICE_MS = 1_000;

async function startTwo() {
  const time = new FakeTime((ms) => database.pass(ms));
  const a = await startInstance({ db: database.db, time, name: "a" });
  const b = await startInstance({ db: second, time, name: "b" });
  const put = async (instance: Instance, topic: string, partitionCount: number) =>
    instance.call("PUT", `/v1/topics/${topic}`, { partitionCount });
  const remove = (instance: Instance, topic: string) => instance.call("DELETE", `/v1/topics/${topic}`);
  return { time, a, b, put, remove };
}

/** A member of a group and a reader, on sockets of their own. */
async function subscribeBoth(instance: Instance, topic = "orders") {
  const member = await instance.join({ topics: [topic] });
  const reader = await instance.connect();
  reader.say({ type: "subscribe", topics: [topic], from: "latest" });
  return [member, reader] as const;
}

const isLookUp = ({ sql }: Statement) => sql.includes("json_group_array(p.partition_id)");

/** Between the next look for topics and the arrival of its rows. */
function duringNextLook({ watched }: Instance, act: () => Promise<unknown>): void {
  const read = watched.read.bind(watched);
  watched.read = async (statement) => {
    const rows = await read(statement);
    if (!isLookUp(statement)) return rows;
    watched.read = read;
    await act();
    return rows;
  };
}

const assignedTo = (client: MemoryClient) =>
  client.takeOnly("assigned").flatMap(({ partitions }) => partitions.map(({ partition }) => partition));

describe("a partition that another server adds", () => {
  test("is given out though this server answers a PUT of another topic while it looks", async () => {
    const { time, a, b, put } = await startTwo();
    await put(a, "orders", 1);
    await put(a, "other", 1);
    const both = await subscribeBoth(a);
    await time.advance(NOTICE_MS);
    expect(both.map(assignedTo)).toEqual([[0], [0]]);
    await put(b, "orders", 2);
    let isPut = false;
    duringNextLook(a, async () => {
      isPut = (await put(a, "other", 1)).ok;
    });
    await time.advance(NOTICE_MS);
    expect(isPut).toBe(true);
    expect(both.map(assignedTo)).toEqual([[1], [1]]);
    await b.produce(1, 1);
    await time.advance(NOTICE_MS);
    for (const client of both) expect(client.takeOnly("records")).toMatchObject([{ partition: 1, next: 1 }]);
  });

  test.each(["member", "reader"] as const)(
    "comes to a %s who subscribed while this server answered such a PUT",
    async (kind) => {
      const { time, a, b, put } = await startTwo();
      await put(b, "orders", 1);
      await put(a, "other", 1);
      const client = await a.connect();
      duringNextLook(a, () => put(a, "other", 1));
      if (kind === "member") client.subscribe();
      else client.say({ type: "subscribe", topics: ["orders"], from: "latest" });
      await time.advance(NOTICE_MS);
      expect(assignedTo(client)).toEqual([0]);
      await put(b, "orders", 2);
      await time.advance(NOTICE_MS);
      expect(assignedTo(client)).toEqual([1]);
    },
  );

  test("comes to who subscribed when the topic was not there, and came into being during that", async () => {
    const { time, a, b, put } = await startTwo();
    const reader = await a.connect();
    duringNextLook(a, () => put(b, "orders", 1));
    reader.say({ type: "subscribe", topics: ["orders"], from: "latest" });
    await time.advance(NOTICE_MS);
    expect(assignedTo(reader)).toEqual([0]);
    await put(b, "orders", 2);
    await time.advance(NOTICE_MS);
    expect(assignedTo(reader)).toEqual([1]);
  });
});

describe("a topic that is deleted and created again", () => {
  test.each([
    ["b", "b"],
    ["b", "a"],
    ["a", "b"],
    ["a", "a"],
  ])("by the servers %s and %s is told to the subscribers of its name", async (deleting, creating) => {
    const { time, a, b, put, remove } = await startTwo();
    const both = await subscribeBoth(a); // the topic comes into being by that
    await time.advance(NOTICE_MS);
    expect(both.map(assignedTo)).toEqual([[0], [0]]);
    for (let times = 0; times < 2; times += 1) {
      await remove(deleting === "a" ? a : b, "orders");
      await put(b, "other", times + 1); // others are looked up meanwhile
      await time.advance(NOTICE_MS);
      for (const client of both)
        expect(client.take()).toMatchObject([{ type: "revoked", reason: "topic_deleted" }]);
      await put(creating === "a" ? a : b, "orders", 2);
      await time.advance(NOTICE_MS);
      expect(both.map(assignedTo)).toEqual([
        [0, 1],
        [0, 1],
      ]);
      for (const client of both) client.take();
    }
  });

  test("is told to a subscription of several topics that others have left", async () => {
    const { time, a, b, put, remove } = await startTwo();
    const reader = await a.connect();
    reader.say({ type: "subscribe", subscription: "one", topics: ["orders"], from: "latest" });
    reader.say({ type: "subscribe", subscription: "two", topics: ["other", "orders"], from: "latest" });
    await time.advance(NOTICE_MS);
    await remove(b, "orders");
    await time.advance(NOTICE_MS);
    reader.say({ type: "unsubscribe", subscription: "one" });
    await put(b, "third", 1);
    await time.advance(NOTICE_MS);
    reader.take();
    await put(b, "orders", 1);
    await time.advance(NOTICE_MS);
    expect(reader.takeOnly("assigned")).toMatchObject([
      { subscription: "two", partitions: [{ topic: "orders" }] },
    ]);
  });
});

describe("a topic that is gone", () => {
  test("is asked for as long as somebody subscribes to it, and then no more", async () => {
    const { time, a, b, put, remove } = await startTwo();
    const member = await a.join();
    await put(a, "other", 1);
    const reader = await a.connect();
    reader.say({ type: "subscribe", topics: ["other"], from: "latest" });
    await remove(b, "orders");
    await time.advance(NOTICE_MS);
    const namesAsked = async () => {
      a.watched.reads.length = 0;
      await b.call("PUT", `/v1/topics/${crypto.randomUUID()}`, {});
      await time.advance(NOTICE_MS);
      const looks = a.watched.reads.filter(isLookUp);
      return looks.map(({ args }) => JSON.parse(String(args?.topics)).toSorted());
    };
    expect(await namesAsked()).toEqual([["orders", "other"]]);
    member.say({ type: "unsubscribe" });
    await time.settle();
    await namesAsked();
    expect(await namesAsked()).toEqual([["other"]]);
    reader.hangUp();
  });
});
