// Groups of several members over the real socket, as transcripts: who is told what when partitions move.

import { describe, expect, test } from "bun:test";
import { ackOf, type GroupMember, Stage } from "../support/stage.ts";
import { StreamClient } from "../support/stream-client.ts";

const REVOKE_DEADLINE_MS = 5_000;

const stage = new Stage();
const { newTopic, newGroup, joinGroup, committedOf } = stage;

const closeAll = (...members: readonly GroupMember[]) =>
  Promise.all(members.map(({ client }) => client.close()));

const numbersOf = (partitions: readonly { readonly partition: number }[]) =>
  partitions.map(({ partition }) => partition);

/** By partition, as the operator sees it. */
async function ownersOf(
  group: string,
): Promise<ReadonlyMap<number, { memberId: string; generation: number }>> {
  const { body } = await stage.http.call("GET", `/v1/groups/${group}`);
  const owners = new Map<number, { memberId: string; generation: number }>();
  for (const { memberId, partitions } of body.members)
    for (const { partition, generation } of partitions) owners.set(partition, { memberId, generation });
  return owners;
}

function generationOf({ partitions }: Pick<GroupMember, "partitions">, number: number): number {
  const found = partitions.find(({ partition }) => partition === number);
  if (!found) throw new Error(`partition ${number} was not assigned`);
  return found.generation;
}

describe("two members of a group", () => {
  test("share four partitions: half moves when all of it is acknowledged, the other half never stops", async () => {
    const [topic, group] = [await newTopic(4, 2), newGroup()];
    const first = await joinGroup(group, [topic]);
    expect(numbersOf(first.partitions)).toEqual([0, 1, 2, 3]);
    const sent = await first.client.expectRecords(8);

    const second = await joinGroup(group, [topic]);
    expect(second.partitions).toEqual([]);
    const revoked = await first.client.expect("revoked");
    expect(revoked).toEqual({
      type: "revoked",
      subscription: "default",
      partitions: [2, 3].map((partition) => ({
        topic,
        partition,
        generation: generationOf(first, partition),
      })),
      reason: "rebalance",
      deadlineMs: expect.any(Number),
    });
    expect(revoked.deadlineMs).toBeGreaterThan(REVOKE_DEADLINE_MS - 1_000);
    expect(revoked.deadlineMs).toBeLessThanOrEqual(REVOKE_DEADLINE_MS);

    // What stays goes on in its generation; nothing more comes of what goes, and nobody else gets it yet.
    for (const partition of [0, 1, 2, 3]) await stage.http.produce(topic, [{ value: "new", partition }]);
    const live = await first.client.expectRecords(2);
    expect(live.map(({ partition, generation }) => [partition, generation]).toSorted()).toEqual(
      [0, 1].map((partition) => [partition, generationOf(first, partition)]),
    );
    expect(await first.client.untilAnswered()).toEqual([]);
    expect(await second.client.untilAnswered()).toEqual([]);

    const [two, three] = [2, 3].map((number) => sent.find(({ partition }) => partition === number));
    if (!two || !three) throw new Error("nothing was sent of what is revoked");
    first.client.send({ type: "ack", id: 1, offsets: [ackOf(two)] });
    expect((await first.client.expect("acked")).offsets).toEqual([{ topic, partition: 2, offset: 2 }]);
    const gained = await second.client.expect("assigned");
    expect(gained.partitions).toMatchObject([{ partition: 2, position: 2, committedOffset: 2 }]);
    expect(gained.partitions[0]).not.toHaveProperty("reset");
    expect(gained.partitions[0]?.generation).toBeGreaterThan(generationOf(first, 2));
    expect(await second.client.expect("records")).toMatchObject({
      partition: 2,
      records: [{ value: "new" }],
    });

    first.client.send({ type: "ack", id: 2, offsets: [ackOf(three)] });
    await first.client.expect("acked");
    expect(numbersOf((await second.client.expect("assigned")).partitions)).toEqual([3]);
    expect(await second.client.expect("records")).toMatchObject({
      partition: 3,
      records: [{ value: "new" }],
    });

    // The first was told of it before: nothing follows, and its acks of what it kept count.
    expect(await first.client.untilAnswered()).toEqual([]);
    first.client.send({ type: "ack", id: 3, offsets: live.map(ackOf) });
    expect((await first.client.expect("acked")).offsets.map(({ offset, code }) => [offset, code])).toEqual([
      [3, undefined],
      [3, undefined],
    ]);
    const owners = await ownersOf(group);
    for (const partition of [0, 1])
      expect(owners.get(partition)).toEqual({
        memberId: first.subscribed.memberId ?? "",
        generation: generationOf(first, partition),
      });
    for (const partition of [2, 3])
      expect(owners.get(partition)?.memberId).toBe(second.subscribed.memberId ?? "");
    await closeAll(first, second);
  });

  test("share at once what the first has nothing of in hand", async () => {
    const [topic, group] = [await newTopic(4), newGroup()];
    const first = await joinGroup(group, [topic]);
    const second = await joinGroup(group, [topic]);
    expect(numbersOf((await first.client.expect("revoked")).partitions)).toEqual([2, 3]);
    expect(numbersOf((await second.client.expect("assigned")).partitions)).toEqual([2, 3]);
    await closeAll(first, second);
  });

  test("that come at the same time have their shares at the end, whoever was first", async () => {
    const [topic, group] = [await newTopic(4), newGroup()];
    const clients = await Promise.all(
      [0, 1].map(() => StreamClient.open(stage.server.streamUrl, { patienceMs: 4_000 })),
    );
    for (const client of clients) client.send({ type: "subscribe", topics: [topic], group });
    const owned = await Promise.all(
      clients.map(async (client) => {
        const mine = new Set<number>();
        await client.expect("subscribed");
        for (let settled = false; !settled; settled = mine.size === 2) {
          const frame = await client.next();
          if (frame.type === "assigned") for (const { partition } of frame.partitions) mine.add(partition);
          else if (frame.type === "revoked")
            for (const { partition } of frame.partitions) mine.delete(partition);
          else throw new Error(JSON.stringify(frame));
        }
        return [...mine];
      }),
    );
    expect(owned.flat().toSorted()).toEqual([0, 1, 2, 3]);
    await Promise.all(clients.map((client) => client.close()));
  });

  test("with different topics have a topic each, and share the one that both have", async () => {
    const [mine, shared, group] = [await newTopic(2), await newTopic(2), newGroup()];
    const first = await joinGroup(group, [mine, shared]);
    const second = await joinGroup(group, [shared]);
    const revoked = await first.client.expect("revoked");
    expect(revoked.partitions.map(({ topic }) => topic)).toEqual([shared]);
    const gained = await second.client.expect("assigned");
    expect(gained.partitions).toMatchObject(
      revoked.partitions.map(({ topic, partition }) => ({ topic, partition })),
    );
    await closeAll(first, second);
  });

  test("at most once: no record comes to both, none to nobody", async () => {
    const [topic, group] = [await newTopic(4), newGroup()];
    const first = await joinGroup(group, [topic], { ack: "none" });
    const values = Array.from({ length: 100 }, (_, value) => ({ value, partition: value % 4 }));
    const produced = stage.http.produce(topic, values);
    const second = await joinGroup(group, [topic], { ack: "none" });
    await produced;
    const got: unknown[] = [];
    for (const { client } of [first, second]) {
      let quiet = 0;
      while (quiet < 20) {
        const frames = await client.untilAnswered();
        quiet = frames.length === 0 ? quiet + 1 : 0;
        for (const frame of frames)
          if (frame.type === "records") got.push(...frame.records.map(({ value }) => value));
      }
    }
    expect(got.toSorted((a, b) => Number(a) - Number(b))).toEqual(values.map(({ value }) => value));
    expect(await committedOf(group)).toEqual([25, 25, 25, 25]);
    await closeAll(first, second);
  });
});

describe("a partition that is being revoked", () => {
  /** Partition 1 is revoked from the first, which holds its three records and has acknowledged none. */
  async function revoking() {
    const [topic, group] = [await newTopic(2, 3), newGroup()];
    const first = await joinGroup(group, [topic]);
    const sent = await first.client.expectRecords(6);
    const second = await joinGroup(group, [topic]);
    await first.client.expect("revoked");
    const generation = generationOf(first, 1);
    const ack = (offset: number) =>
      first.client.send({ type: "ack", id: offset, offsets: [{ topic, partition: 1, generation, offset }] });
    return { topic, group, first, second, sent, generation, ack };
  }

  test("stays for as long as something of it is not acknowledged, and what is counts", async () => {
    const { topic, group, first, second, ack } = await revoking();
    for (const offset of [1, 2]) {
      ack(offset);
      expect((await first.client.expect("acked")).offsets).toEqual([{ topic, partition: 1, offset }]);
      expect(await second.client.untilAnswered()).toEqual([]);
    }
    expect((await ownersOf(group)).get(1)?.memberId).toBe(first.subscribed.memberId ?? "");
    ack(3);
    await first.client.expect("acked");
    expect((await second.client.expect("assigned")).partitions).toMatchObject([
      { partition: 1, position: 3 },
    ]);
    ack(3); // late, and of no effect: it is somebody else's now
    expect((await first.client.expect("acked")).offsets).toEqual([
      { topic, partition: 1, offset: 3, code: "fenced_generation" },
    ]);
    await closeAll(first, second);
  });

  test("goes when it is released, and what was not acknowledged is sent to the next owner", async () => {
    const { topic, group, first, second, generation, ack } = await revoking();
    ack(1);
    await first.client.expect("acked");
    first.client.send({ type: "release", id: "r", partitions: [{ topic, partition: 1 }] });
    expect(await first.client.expect("ok")).toEqual({ type: "ok", id: "r" });
    const { partitions } = await second.client.expect("assigned");
    expect(partitions).toMatchObject([{ partition: 1, position: 1, committedOffset: 1 }]);
    expect(partitions[0]?.generation).toBeGreaterThan(generation);
    const frame = await second.client.expect("records");
    expect(frame.records.map(({ value }) => value)).toEqual([1, 2]);
    ack(3);
    expect((await first.client.expect("acked")).offsets).toEqual([
      { topic, partition: 1, offset: 1, code: "fenced_generation" },
    ]);
    second.client.send({ type: "ack", offsets: [ackOf(frame)] });
    expect((await second.client.expect("acked")).offsets).toEqual([{ topic, partition: 1, offset: 3 }]);
    expect(await committedOf(group)).toEqual([0, 3]);
    expect(await first.client.untilAnswered()).toEqual([]);
    await closeAll(first, second);
  });

  test("is released with others or not at all", async () => {
    const { topic, group, first, second } = await revoking();
    const release = (...partitions: readonly number[]) =>
      first.client.send({
        type: "release",
        id: "r",
        partitions: partitions.map((partition) => ({ topic, partition })),
      });
    release(1, 0);
    expect(await first.client.expect("error")).toMatchObject({
      id: "r",
      code: "conflict",
      topic,
      partition: 0,
    });
    release(1, 2);
    expect(await first.client.expect("error")).toMatchObject({ id: "r", code: "not_assigned", partition: 2 });
    expect(await second.client.untilAnswered()).toEqual([]);
    expect((await ownersOf(group)).get(1)?.memberId).toBe(first.subscribed.memberId ?? "");
    await closeAll(first, second);
  });

  test("can be sought no more, and pausing it holds up nothing", async () => {
    const { topic, first, second, ack } = await revoking();
    first.client.send({ type: "seek", id: 1, topic, partition: 1, to: "earliest" });
    expect(await first.client.expect("error")).toMatchObject({ id: 1, code: "not_assigned", partition: 1 });
    first.client.send({ type: "pause", id: 2, partitions: [{ topic, partition: 1 }] });
    expect(await first.client.expect("ok")).toMatchObject({ id: 2 });
    ack(3);
    await first.client.expect("acked");
    expect(numbersOf((await second.client.expect("assigned")).partitions)).toEqual([1]);
    await closeAll(first, second);
  });

  test("goes with its owner: unsubscribed, or its socket closed", async () => {
    for (const how of ["unsubscribe", "close"] as const) {
      const { topic, first, second } = await revoking();
      if (how === "close") await first.client.close();
      else first.client.send({ type: "unsubscribe", id: "bye" });
      const { partitions } = await second.client.expect("assigned");
      expect(partitions).toMatchObject([
        { topic, partition: 0, position: 0 },
        { topic, partition: 1, position: 0 },
      ]);
      await closeAll(first, second);
    }
  });

  test("goes to nobody else when the one that it was to go to has left: its owner has it again, anew", async () => {
    const { topic, group, first, second, generation, ack } = await revoking();
    second.client.send({ type: "unsubscribe" });
    await second.client.expect("unsubscribed");
    ack(2);
    expect((await first.client.expect("acked")).offsets).toEqual([{ topic, partition: 1, offset: 2 }]);
    ack(3);
    await first.client.expect("acked");
    const { partitions } = await first.client.expect("assigned");
    expect(partitions).toMatchObject([{ partition: 1, position: 3, committedOffset: 3 }]);
    expect(partitions[0]?.generation).toBeGreaterThan(generation);
    await stage.http.produce(topic, [{ value: "new", partition: 1 }]);
    expect(await first.client.expect("records")).toMatchObject({ partition: 1, records: [{ value: "new" }] });
    expect([...(await ownersOf(group)).keys()].toSorted()).toEqual([0, 1]);
    await closeAll(first, second);
  });
});

describe("a member that leaves", () => {
  test.each(["unsubscribe", "close"] as const)(
    "by %s hands everything back, and others keep their generations",
    async (how) => {
      const [topic, group] = [await newTopic(4, 1), newGroup()];
      const first = await joinGroup(group, [topic]);
      const frames = await first.client.expectRecords(4);
      first.client.send({ type: "ack", offsets: frames.map(ackOf) });
      await first.client.expect("acked");
      const second = await joinGroup(group, [topic]);
      await first.client.expect("revoked");
      await second.client.expect("assigned");
      if (how === "close") await second.client.close();
      else second.client.send({ type: "unsubscribe" });
      const back = (await first.client.expect("assigned")).partitions;
      expect(back).toMatchObject([
        { partition: 2, position: 1, committedOffset: 1 },
        { partition: 3, position: 1, committedOffset: 1 },
      ]);
      for (const { partition, generation } of back)
        expect(generation).toBeGreaterThan(generationOf(first, partition));
      const owners = await ownersOf(group);
      for (const partition of [0, 1])
        expect(owners.get(partition)?.generation).toBe(generationOf(first, partition));
      await stage.http.produce(topic, [{ value: "new", partition: 3 }]);
      expect(await first.client.expect("records")).toMatchObject({
        partition: 3,
        records: [{ value: "new" }],
      });
      await closeAll(first, second);
    },
  );
});

describe("more members than partitions", () => {
  test("leave some without any: their `assigned` is empty, and they are next", async () => {
    const [topic, group] = [await newTopic(2), newGroup()];
    const members = [await joinGroup(group, [topic])];
    for (let more = 0; more < 4; more += 1) members.push(await joinGroup(group, [topic]));
    expect(members.slice(1).map(({ partitions }) => partitions)).toEqual([[], [], [], []]);
    const all = members.map(idOf);
    const owners = await ownersAmong(group, all);
    const idle = members.filter((member) => !owners.has(idOf(member)));
    expect([owners.size, idle.length]).toEqual([2, 3]);
    for (const { client } of idle) expect(await client.untilAnswered()).toEqual([]);
    await closeAll(...members.filter((member) => owners.has(idOf(member))));
    expect((await ownersAmong(group, idle.map(idOf))).size).toBe(2);
    await closeAll(...idle);
  });

  const idOf = ({ subscribed }: GroupMember) => subscribed.memberId ?? "";

  /** Who owns the two partitions, when two of these do: nothing is in hand, so it takes some round trips. */
  async function ownersAmong(group: string, memberIds: readonly string[]): Promise<ReadonlySet<string>> {
    for (let look = 0; look < 500; look += 1) {
      const owners = new Set([...(await ownersOf(group)).values()].map(({ memberId }) => memberId));
      if (owners.size === 2 && [...owners].every((owner) => memberIds.includes(owner))) return owners;
    }
    throw new Error("the group does not settle");
  }
});

describe("a topic that changes under several members", () => {
  test("grows: each gets of the new partitions, from their beginning, and nothing else moves", async () => {
    const [topic, group] = [await newTopic(2), newGroup()];
    const first = await joinGroup(group, [topic], { reset: "latest" });
    const second = await joinGroup(group, [topic], { reset: "latest" });
    await first.client.expect("revoked");
    const [had] = (await second.client.expect("assigned")).partitions;
    await stage.http.call("PUT", `/v1/topics/${topic}`, { partitionCount: 4 });
    const gained = [first, second].map(async ({ client }) => (await client.expect("assigned")).partitions);
    const [mine, others] = await Promise.all(gained);
    expect([...numbersOf(mine ?? []), ...numbersOf(others ?? [])].toSorted()).toEqual([2, 3]);
    expect([mine?.length, others?.length]).toEqual([1, 1]);
    for (const partition of [...(mine ?? []), ...(others ?? [])])
      expect(partition).toMatchObject({ position: 0, committedOffset: 0, reset: "earliest" });
    const owners = await ownersOf(group);
    expect(owners.get(0)?.generation).toBe(generationOf(first, 0));
    expect(owners.get(1)?.generation).toBe(had?.generation ?? 0);
    for (const partition of [0, 1, 2, 3]) await stage.http.produce(topic, [{ value: partition, partition }]);
    for (const { client } of [first, second]) await client.expectRecords(2);
    await closeAll(first, second);
  });

  test("is deleted and created again: all are told, fenced, and share it anew from its beginning", async () => {
    const [topic, group] = [await newTopic(2, 2), newGroup()];
    const first = await joinGroup(group, [topic]);
    const sent = await first.client.expectRecords(4);
    first.client.send({ type: "ack", offsets: sent.map(ackOf) });
    await first.client.expect("acked");
    const second = await joinGroup(group, [topic]);
    await first.client.expect("revoked");
    const [moved] = (await second.client.expect("assigned")).partitions;
    expect((await stage.http.call("DELETE", `/v1/topics/${topic}`)).status).toBe(204);
    for (const { client } of [first, second])
      expect(await client.expect("revoked")).toMatchObject({ reason: "topic_deleted", deadlineMs: 0 });
    const late = { topic, partition: 1, generation: moved?.generation ?? 0, offset: 2 };
    second.client.send({ type: "ack", offsets: [late] });
    expect((await second.client.expect("acked")).offsets).toEqual([
      { topic, partition: 1, offset: null, code: "unknown_topic" },
    ]);
    await stage.http.createTopic(topic, 2);
    const again = await Promise.all([first, second].map(async ({ client }) => client.expect("assigned")));
    const partitions = again.flatMap((frame) => frame.partitions);
    expect(numbersOf(partitions).toSorted()).toEqual([0, 1]);
    expect(again.map((frame) => frame.partitions.length)).toEqual([1, 1]);
    for (const partition of partitions) {
      expect(partition).toMatchObject({ position: 0, committedOffset: 0, reset: "earliest" });
      expect(partition.topicId).toBeGreaterThan(moved?.topicId ?? 0);
      expect(partition.generation).toBeGreaterThan(moved?.generation ?? 0);
    }
    await closeAll(first, second);
  });

  test("is deleted while a partition of it is being revoked: the end of it is told once", async () => {
    const [topic, group] = [await newTopic(2, 2), newGroup()];
    const first = await joinGroup(group, [topic]);
    await first.client.expectRecords(4);
    const second = await joinGroup(group, [topic]);
    expect(numbersOf((await first.client.expect("revoked")).partitions)).toEqual([1]);
    await stage.http.call("DELETE", `/v1/topics/${topic}`);
    expect(await first.client.expect("revoked")).toMatchObject({
      partitions: [{ partition: 0 }],
      reason: "topic_deleted",
    });
    expect(await first.client.untilAnswered()).toEqual([]);
    expect(await second.client.untilAnswered()).toEqual([]);
    await closeAll(first, second);
  });
});

describe("taking a membership over in a group of two", () => {
  test.each(["memberId", "instanceId"] as const)(
    "by %s: partitions stay, in new generations, from the committed offsets; the other member is not disturbed",
    async (by) => {
      const [topic, group] = [await newTopic(4, 4), newGroup()];
      const old = await joinGroup(group, [topic], by === "instanceId" ? { instanceId: "tab-7" } : {});
      const sent = await old.client.expectRecords(16);
      old.client.send({ type: "ack", offsets: sent.map((frame) => ({ ...ackOf(frame), offset: 2 })) });
      await old.client.expect("acked");
      const other = await joinGroup(group, [topic]);
      await old.client.expect("revoked");
      old.client.send({
        type: "release",
        id: 1,
        partitions: [2, 3].map((partition) => ({ topic, partition })),
      });
      await old.client.expect("ok");
      await other.client.expect("assigned");
      await other.client.expectRecords(4);
      const before = await ownersOf(group);

      const { memberId } = old.subscribed;
      const taken = await joinGroup(
        group,
        [topic],
        by === "memberId" ? { memberId } : { instanceId: "tab-7" },
      );
      expect(taken.subscribed.memberId === memberId).toBe(by === "memberId");
      expect(taken.partitions).toMatchObject([
        { partition: 0, position: 2, committedOffset: 2 },
        { partition: 1, position: 2, committedOffset: 2 },
      ]);
      for (const { partition, generation } of taken.partitions)
        expect(generation).toBeGreaterThan(generationOf(old, partition));
      expect(await old.client.next()).toEqual({
        type: "unsubscribed",
        subscription: "default",
        code: "replaced",
      });
      const got = await taken.client.expectRecords(4);
      expect(got.map(({ records }) => records.map(({ value }) => value))).toEqual([
        [2, 3],
        [2, 3],
      ]);
      const late = { topic, partition: 0, generation: generationOf(old, 0), offset: 4 };
      taken.client.send({ type: "ack", offsets: [late] });
      expect((await taken.client.expect("acked")).offsets).toEqual([
        { topic, partition: 0, offset: 2, code: "fenced_generation" },
      ]);
      const after = await ownersOf(group);
      for (const partition of [2, 3]) expect(after.get(partition)).toEqual(before.get(partition) as never);
      expect(await other.client.untilAnswered()).toEqual([]);
      await closeAll(old, other, taken);
    },
  );

  test("while a partition is being revoked: the new subscription has what it keeps, the other the rest", async () => {
    const [topic, group] = [await newTopic(2, 1), newGroup()];
    const old = await joinGroup(group, [topic]);
    await old.client.expectRecords(2);
    const other = await joinGroup(group, [topic]);
    await old.client.expect("revoked");
    const taken = await joinGroup(group, [topic], { memberId: old.subscribed.memberId });
    expect(numbersOf(taken.partitions)).toEqual([0]);
    expect(await other.client.expect("assigned")).toMatchObject({
      partitions: [{ partition: 1, position: 0 }],
    });
    expect(await old.client.next()).toMatchObject({ type: "unsubscribed", code: "replaced" });
    await closeAll(old, other, taken);
  });

  test("by a subscription to other topics gives the old ones to the others", async () => {
    const [one, two, group] = [await newTopic(2), await newTopic(2), newGroup()];
    const old = await joinGroup(group, [one]);
    const other = await joinGroup(group, [one]);
    await old.client.expect("revoked");
    await other.client.expect("assigned");
    const taken = await joinGroup(group, [two], { memberId: old.subscribed.memberId });
    expect(taken.partitions.map(({ topic, partition }) => [topic, partition])).toEqual([
      [two, 0],
      [two, 1],
    ]);
    expect(await other.client.expect("assigned")).toMatchObject({
      partitions: [{ topic: one, partition: 0 }],
    });
    await closeAll(old, other, taken);
  });
});

describe("a partition that stalls", () => {
  test("goes to another member, whatever the balance, and is sent to it from the committed offset", async () => {
    const [topic, group] = [await newTopic(2), newGroup()];
    const stalling = await joinGroup(group, [topic], { ackTimeoutMs: 100 });
    const other = await joinGroup(group, [topic]);
    await stalling.client.expect("revoked");
    expect(numbersOf((await other.client.expect("assigned")).partitions)).toEqual([1]);
    await stage.http.produce(topic, [{ value: "poison", partition: 0 }]);
    const frame = await stalling.client.expect("records");
    expect(await stalling.client.expect("revoked")).toMatchObject({
      partitions: [{ partition: 0 }],
      reason: "stalled",
      deadlineMs: 0,
    });
    expect(await other.client.expect("assigned")).toMatchObject({
      partitions: [{ partition: 0, position: 0 }],
    });
    expect(await other.client.expect("records")).toMatchObject({ records: [{ value: "poison" }] });
    stalling.client.send({ type: "ack", offsets: [ackOf(frame)] });
    expect((await stalling.client.expect("acked")).offsets).toEqual([
      { topic, partition: 0, offset: 0, code: "fenced_generation" },
    ]);
    await closeAll(stalling, other);
  });
});

describe("two subscriptions of one socket", () => {
  test("to one group share nothing: the same topic is a conflict, another one is taken", async () => {
    const [one, two, group] = [await newTopic(1), await newTopic(1), newGroup()];
    const { client } = await joinGroup(group, [one]);
    client.send({ type: "subscribe", id: 1, subscription: "again", topics: [two, one], group });
    const error = await client.expect("error");
    expect(error).toMatchObject({ id: 1, subscription: "again", code: "conflict", retriable: false });
    expect(error.message).toContain(one);
    client.send({ type: "subscribe", id: 2, subscription: "other", topics: [two], group });
    expect(await client.expect("subscribed")).toMatchObject({ id: 2 });
    expect(await client.expect("assigned")).toMatchObject({ partitions: [{ topic: two }] });
    client.send({ type: "subscribe", id: 3, subscription: "elsewhere", topics: [one], group: newGroup() });
    expect(await client.expect("subscribed")).toMatchObject({ id: 3 });
    await client.close();
  });
});

test("nothing of all this was a defect in the server's log", stage.expectNoDefects);
