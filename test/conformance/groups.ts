import assert from "node:assert/strict";
import { checksOf, type ServerUnderTest } from "./check.ts";
import { bodyOf, call } from "./http.ts";
import { ack, ackOf, newName, newTopic, partitionOf, produce, type Subscriber, subscribe } from "./log.ts";
import { assertMatches, countFrom } from "./match.ts";
import type { FrameOf, Socket } from "./socket.ts";

const REVOKE_DEADLINE_MS = 5_000;

interface Rebalance extends Disposable {
  readonly topic: string;
  readonly group: string;
  readonly older: Subscriber;
  readonly newer: Subscriber;
  /** What the older one was sent of the partition that it is to lose, all of it unacknowledged. */
  readonly held: FrameOf<"records">;
}

/** A member that holds the two records of each of two partitions, and a second one that has joined and waits. */
async function rebalance(server: ServerUnderTest): Promise<Rebalance> {
  const topic = await newTopic(server, { partitionCount: 2, records: 2 });
  const group = newName("group");
  const older = await subscribe(server, { topics: [topic], group });
  const frames = [await older.socket.expect("records"), await older.socket.expect("records")];
  const newer = await subscribe(server, { topics: [topic], group });
  assert.deepEqual(newer.partitions, []);
  const { partitions, reason, deadlineMs } = await older.socket.expect("revoked");
  assert.equal(reason, "rebalance");
  assert.ok(deadlineMs > 0 && deadlineMs <= REVOKE_DEADLINE_MS, `${deadlineMs}`);
  assert.equal(partitions.length, 1);
  const held = frames.find(({ partition }) => partition === partitions[0]?.partition);
  assert.ok(held !== undefined && held.generation === partitions[0]?.generation);
  const dispose = () => {
    older[Symbol.dispose]();
    newer[Symbol.dispose]();
  };
  return { topic, group, older, newer, held, [Symbol.dispose]: dispose };
}

/** The partitions that a socket owns when it owns so many, from those of the start on; records are passed over. */
async function ownedBy(
  socket: Socket,
  count: number,
  start: readonly number[] = [],
): Promise<readonly number[]> {
  const owned = new Set(start);
  while (owned.size !== count) {
    const frame = await socket.next();
    if (frame.type === "records") continue;
    assert.ok(frame.type === "assigned" || frame.type === "revoked", frame.type);
    for (const { partition } of frame.partitions) {
      if (frame.type === "assigned") owned.add(partition);
      else owned.delete(partition);
    }
  }
  return [...owned];
}

/** Reads and acknowledges frame by frame until it has so many records: `partition/offset` of each. */
async function consume(socket: Socket, count: number): Promise<readonly string[]> {
  const taken: string[] = [];
  while (taken.length < count) {
    const frame = await socket.next();
    if (frame.type !== "records") continue;
    taken.push(...frame.records.map(({ offset }) => `${frame.partition}/${offset}`));
    socket.send({ type: "ack", offsets: [ackOf(frame)] });
  }
  return taken;
}

export const groups = checksOf("groups", {
  "a partition moves when all that was sent of it is acknowledged": async (server) => {
    using moving = await rebalance(server);
    const { older, newer, held, topic } = moving;
    const { partition, generation } = held;
    assert.deepEqual(await ack(older.socket, ackOf(held)), [{ topic, partition, offset: 2 }]);
    const gained = partitionOf(await newer.socket.expect("assigned"), partition);
    assertMatches(gained, { position: 2, committedOffset: 2 });
    assert.ok(gained.generation > generation);
    assertMatches(await ack(older.socket, ackOf(held)), [
      { partition, offset: 2, code: "fenced_generation" },
    ]);
  },

  "release lets a partition go, and what was not acknowledged goes to the next owner": async (server) => {
    using moving = await rebalance(server);
    const { older, newer, held, topic } = moving;
    const { partition } = held;
    older.socket.send({ type: "release", id: 1, partitions: [{ topic, partition }] });
    assert.deepEqual(await older.socket.expect("ok"), { type: "ok", id: 1 });
    assertMatches((await newer.socket.expect("assigned")).partitions, [{ partition, position: 0 }]);
    assertMatches(await newer.socket.expect("records"), {
      partition,
      records: [{ offset: 0 }, { offset: 1 }],
    });
    assertMatches(await ack(older.socket, ackOf(held)), [
      { partition, offset: 0, code: "fenced_generation" },
    ]);
  },

  "what stays with its owner is not interrupted": async (server) => {
    using moving = await rebalance(server);
    const { older, held, topic } = moving;
    const partition = 1 - held.partition;
    const { generation } = partitionOf(older, partition);
    await produce(server, topic, [{ value: "on", partition }]);
    assertMatches(await older.socket.expect("records"), { partition, generation, records: [{ offset: 2 }] });
    const entry = { topic, partition, generation, offset: 3 };
    assert.deepEqual(await ack(older.socket, entry), [{ topic, partition, offset: 3 }]);
  },

  "release of what is not being revoked is refused": async (server) => {
    const topic = await newTopic(server);
    using member = await subscribe(server, { topics: [topic], group: newName("group") });
    member.socket.send({ type: "release", id: 1, partitions: [{ topic, partition: 0 }] });
    assertMatches(await member.socket.expect("error"), { id: 1, code: "conflict" });
    member.socket.send({ type: "release", id: 2, partitions: [{ topic, partition: 1 }] });
    assertMatches(await member.socket.expect("error"), { id: 2, code: "not_assigned" });
  },

  "the partitions of a socket that closes go to the others": async (server) => {
    using moving = await rebalance(server);
    await moving.older.socket.close();
    const owned = await ownedBy(moving.newer.socket, 2);
    assert.deepEqual(owned.toSorted(), [0, 1]);
  },

  "the partitions of a subscription that ends go to the others at once": async (server) => {
    const topic = await newTopic(server, { partitionCount: 4 });
    const group = newName("group");
    using older = await subscribe(server, { topics: [topic], group });
    using newer = await subscribe(server, { topics: [topic], group });
    const half = await ownedBy(newer.socket, 2);
    assert.equal((await ownedBy(older.socket, 2, [0, 1, 2, 3])).length, 2);
    newer.socket.send({ type: "unsubscribe", id: 1 });
    await newer.socket.expect("unsubscribed");
    const { partitions } = await older.socket.expect("assigned");
    assert.deepEqual(
      partitions.map(({ partition }) => partition),
      half.toSorted(),
    );
  },

  "two sockets share a topic and no record comes twice": async (server) => {
    const topic = await newTopic(server, { partitionCount: 4 });
    const group = newName("group");
    using one = await subscribe(server, { topics: [topic], group, window: { records: 20 } });
    using two = await subscribe(server, { topics: [topic], group, window: { records: 20 } });
    await Promise.all([ownedBy(two.socket, 2), ownedBy(one.socket, 2, [0, 1, 2, 3])]);
    const records = countFrom(0, 400).map((n) => ({ value: n, partition: n % 4 }));
    await produce(server, topic, records);
    const taken = await Promise.all([consume(one.socket, 200), consume(two.socket, 200)]);
    assert.equal(new Set(taken.flat()).size, 400);
    assert.deepEqual([taken[0]?.length, taken[1]?.length], [200, 200]);
  },

  "an instanceId takes a membership over, and nobody else is moved": async (server) => {
    const topic = await newTopic(server, { partitionCount: 2 });
    const [group, instanceId] = [newName("group"), newName("instance")];
    using older = await subscribe(server, { topics: [topic], group, instanceId });
    using other = await subscribe(server, { topics: [topic], group });
    await ownedBy(other.socket, 1);
    const kept = await ownedBy(older.socket, 1, [0, 1]);
    using newer = await subscribe(server, { topics: [topic], group, instanceId });
    assert.deepEqual(await older.socket.expect("unsubscribed"), {
      type: "unsubscribed",
      subscription: "default",
      code: "replaced",
    });
    assert.deepEqual(
      newer.partitions.map(({ partition }) => partition),
      kept,
    );
    assert.ok((newer.partitions[0]?.generation ?? 0) > partitionOf(older, kept[0]).generation);
    assert.deepEqual(await other.socket.settle(), []);
  },

  "an instanceId keeps its partitions while its socket is away": async (server) => {
    const topic = await newTopic(server, { partitionCount: 2, records: 1 });
    const [group, instanceId] = [newName("group"), newName("instance")];
    const first = await subscribe(server, { topics: [topic], group, instanceId });
    await first.socket.close();
    using other = await subscribe(server, { topics: [topic], group });
    assert.deepEqual(other.partitions, []);
    const { members } = bodyOf(await call(server, "GET", `/v1/groups/${group}`));
    assert.ok(members.some((member: { instanceId: string | null }) => member.instanceId === instanceId));
    using again = await subscribe(server, { topics: [topic], group, instanceId });
    assert.ok(again.partitions.length >= 1);
  },

  "a memberId takes a membership over": async (server) => {
    const topic = await newTopic(server, { partitionCount: 2 });
    const group = newName("group");
    using older = await subscribe(server, { topics: [topic], group });
    const { memberId } = older.subscribed;
    using newer = await subscribe(server, { topics: [topic], group, memberId });
    assert.equal(newer.subscribed.memberId, memberId);
    assert.equal(newer.partitions.length, 2);
    assertMatches(await older.socket.expect("unsubscribed"), { code: "replaced" });
  },

  "a partition that nobody acknowledges is stalled, and sent again": async (server) => {
    const topic = await newTopic(server, { records: 1 });
    using member = await subscribe(server, { topics: [topic], group: newName("group"), ackTimeoutMs: 100 });
    const { socket } = member;
    const first = await socket.expect("records");
    assertMatches(await socket.expect("revoked"), { reason: "stalled", deadlineMs: 0 });
    const again = partitionOf(await socket.expect("assigned"));
    assertMatches(again, { position: 0, committedOffset: 0 });
    assert.ok(again.generation > first.generation);
    assertMatches(await socket.expect("records"), { generation: again.generation, records: [{ offset: 0 }] });
  },

  "a topic of one group twice on a socket is a conflict": async (server) => {
    const topic = await newTopic(server);
    const group = newName("group");
    using member = await subscribe(server, { topics: [topic], group });
    member.socket.send({ type: "subscribe", id: 1, subscription: "second", topics: [topic], group });
    assertMatches(await member.socket.expect("error"), { id: 1, code: "conflict" });
  },

  "groups do not notice each other": async (server) => {
    const topic = await newTopic(server, { records: 3 });
    using one = await subscribe(server, { topics: [topic], group: newName("group") });
    using two = await subscribe(server, { topics: [topic], group: newName("group") });
    const frame = await one.socket.expect("records");
    await ack(one.socket, ackOf(frame));
    assertMatches(await two.socket.records(3), [{ offset: 0 }, { offset: 1 }, { offset: 2 }]);
    assert.deepEqual(await two.socket.settle(), []);
  },
});
