import assert from "node:assert/strict";
import { checksOf } from "./check.ts";
import { bodyOf, call } from "./http.ts";
import { ack, ackOf, committedOf, newName, newTopic, partitionOf, subscribe, succeed } from "./log.ts";
import { assertMatches } from "./match.ts";
import { Socket } from "./socket.ts";

export const acks = checksOf("acks", {
  "acked is durable: a new connection goes on from there, with its metadata": async (server) => {
    const topic = await newTopic(server, { records: 5 });
    const group = newName("group");
    const first = await subscribe(server, { topics: [topic], group });
    const { generation } = partitionOf(first);
    await first.socket.records(5);
    const entry = { topic, partition: 0, generation, offset: 3, metadata: "page 7 ☕" };
    first.socket.send({ type: "ack", id: 2, offsets: [entry] });
    const offsets = [{ topic, partition: 0, offset: 3 }];
    assert.deepEqual(await first.socket.expect("acked"), {
      type: "acked",
      id: 2,
      subscription: "default",
      offsets,
    });
    assert.deepEqual(await committedOf(server, group), [3]);
    await first.socket.close();
    using second = await succeed(server, { topics: [topic], group });
    assertMatches(second.partitions, [{ position: 3, committedOffset: 3, metadata: "page 7 ☕" }]);
    assert.ok(partitionOf(second).generation > generation);
    assertMatches(await second.socket.records(2), [{ offset: 3 }, { offset: 4 }]);
  },

  "commits go forward: at or below the committed offset nothing is committed": async (server) => {
    const topic = await newTopic(server, { records: 5 });
    using member = await subscribe(server, { topics: [topic], group: newName("group") });
    const { generation } = partitionOf(member);
    await member.socket.records(5);
    for (const [offset, committed] of [
      [4, 4],
      [2, 4],
      [4, 4],
      [5, 5],
    ] as const) {
      const answer = await ack(member.socket, { topic, partition: 0, generation, offset });
      assert.deepEqual(answer, [{ topic, partition: 0, offset: committed }]);
    }
  },

  "a refused entry does not spoil the others": async (server) => {
    const topic = await newTopic(server, { partitionCount: 2, records: 3 });
    const group = newName("group");
    using member = await subscribe(server, { topics: [topic], group });
    const [one, two] = [partitionOf(member, 0).generation, partitionOf(member, 1).generation];
    await member.socket.records(6);
    const answers = await ack(
      member.socket,
      { topic, partition: 0, generation: one, offset: 2 },
      { topic, partition: 1, generation: two, offset: 4 },
      { topic, partition: 1, generation: one, offset: 1 },
      { topic, partition: 2, generation: one, offset: 1 },
      { topic: newName("topic"), partition: 0, generation: one, offset: 1 },
    );
    const codes = answers.map(({ partition, code }) => `${partition} ${code ?? "accepted"}`);
    assert.deepEqual(codes.toSorted(), [
      "0 accepted",
      "0 unknown_topic",
      "1 fenced_generation",
      "1 offset_out_of_range",
      "2 unknown_partition",
    ]);
    assert.deepEqual(await committedOf(server, group), [2, 0]);
  },

  "a partition that is named twice counts once, the highest": async (server) => {
    const topic = await newTopic(server, { records: 5 });
    using member = await subscribe(server, { topics: [topic], group: newName("group") });
    const { generation } = partitionOf(member);
    await member.socket.records(5);
    const entry = (offset: number) => ({ topic, partition: 0, generation, offset });
    assertMatches(await ack(member.socket, entry(1), entry(4), entry(2)), [{ offset: 4 }]);
  },

  "above what was sent is refused, unless a seek went there": async (server) => {
    const topic = await newTopic(server, { records: 20 });
    using member = await subscribe(server, {
      topics: [topic],
      group: newName("group"),
      window: { records: 2 },
    });
    const { socket } = member;
    const { generation } = partitionOf(member);
    await socket.records(2);
    const entry = { topic, partition: 0, generation, offset: 15 };
    assertMatches(await ack(socket, entry), [{ offset: 0, code: "offset_out_of_range" }]);
    socket.send({ type: "seek", topic, partition: 0, to: { offset: 15 } });
    await socket.expect("assigned");
    await socket.records(2);
    assert.deepEqual(await ack(socket, entry), [{ topic, partition: 0, offset: 15 }]);
  },

  "are answered in their order": async (server) => {
    const topic = await newTopic(server, { records: 5 });
    using member = await subscribe(server, { topics: [topic], group: newName("group") });
    const { generation } = partitionOf(member);
    await member.socket.records(5);
    for (const offset of [1, 2, 3, 4, 5])
      member.socket.send({ type: "ack", id: offset, offsets: [{ topic, partition: 0, generation, offset }] });
    const ids = [];
    while (ids.length < 5) ids.push((await member.socket.expect("acked")).id);
    assert.deepEqual(ids, [1, 2, 3, 4, 5]);
  },

  "of a subscription that is not there are unknown_subscription": async (server) => {
    using socket = await Socket.open(server);
    const offsets = [{ topic: newName("topic"), partition: 0, generation: 1, offset: 1 }];
    socket.send({ type: "ack", id: 1, subscription: "s9", offsets });
    assertMatches(await socket.expect("error"), { id: 1, subscription: "s9", code: "unknown_subscription" });
    assert.deepEqual(await socket.settle(), []);
  },

  "have an old generation fenced after a takeover": async (server) => {
    const topic = await newTopic(server, { records: 2 });
    const [group, instanceId] = [newName("group"), newName("instance")];
    using older = await subscribe(server, { topics: [topic], group, instanceId });
    const frame = await older.socket.expect("records");
    using newer = await subscribe(server, { topics: [topic], group, instanceId });
    await newer.socket.records(2);
    assertMatches(await ack(newer.socket, ackOf(frame)), [{ offset: 0, code: "fenced_generation" }]);
    const { generation } = partitionOf(newer);
    assertMatches(await ack(newer.socket, { ...ackOf(frame), generation }), [{ offset: 2 }]);
  },

  "show as lag in the group": async (server) => {
    const topic = await newTopic(server, { records: 5 });
    const group = newName("group");
    using member = await subscribe(server, { topics: [topic], group });
    const { generation } = partitionOf(member);
    await member.socket.records(5);
    await ack(member.socket, { topic, partition: 0, generation, offset: 2, metadata: "m" });
    const { offsets } = bodyOf(await call(server, "GET", `/v1/groups/${group}`));
    const { memberId } = member.subscribed;
    const bounds = { committedOffset: 2, logStartOffset: 0, logEndOffset: 5, lag: 3 };
    assertMatches(offsets, [{ topic, partition: 0, ...bounds, memberId, metadata: "m" }]);
  },
});
