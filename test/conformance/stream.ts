import assert from "node:assert/strict";
import type { ServerFrame } from "../../src/protocol/frames.ts";
import { checksOf } from "./check.ts";
import { bodyOf, call } from "./http.ts";
import {
  ack,
  ackOf,
  assertQuiet,
  committedOf,
  newName,
  newTopic,
  partitionOf,
  produce,
  subscribe,
  trim,
} from "./log.ts";
import { assertMatches, countFrom } from "./match.ts";
import { Socket } from "./socket.ts";

export const streams = checksOf("stream", {
  "a subscribe frame is answered, its partitions assigned, their records sent": async (server) => {
    const topic = await newTopic(server, { partitionCount: 2 });
    await produce(server, topic, [{ value: 7, key: "k", timestamp: 9, partition: 0 }]);
    using socket = await Socket.open(server);
    socket.send({ type: "subscribe", id: "a", subscription: "s1", topics: [topic], group: newName("group") });
    const { memberId, durability, ...subscribed } = await socket.expect("subscribed");
    const times = { heartbeatMs: 15_000, sessionTimeoutMs: 45_000 };
    assert.deepEqual(subscribed, { type: "subscribed", id: "a", subscription: "s1", ...times });
    assert.ok(memberId !== undefined && memberId.length > 0 && ["fsync", "relaxed"].includes(durability));
    const { partitions } = await socket.expect("assigned");
    const start = { topic, position: 0, committedOffset: 0, logStartOffset: 0, reset: "earliest" };
    assertMatches(partitions, [
      { ...start, partition: 0, logEndOffset: 1 },
      { ...start, partition: 1, logEndOffset: 0 },
    ]);
    const { generation } = partitionOf({ partitions });
    assert.deepEqual(await socket.expect("records"), {
      type: "records",
      subscription: "s1",
      generation,
      topic,
      partition: 0,
      records: [{ offset: 0, timestamp: 9, key: "k", value: 7 }],
      next: 1,
      logEndOffset: 1,
    });
  },

  "a URL subscribes as a frame does": async (server) => {
    const [one, two] = [await newTopic(server, { records: 3 }), await newTopic(server, { records: 1 })];
    const group = newName("group");
    const query = `?topic=${one}&topic=${two}&group=${group}&reset=latest&ack=manual&subscription=s&id=7&sessionTimeoutMs=6000&instanceId=tab-1`;
    using socket = await Socket.open(server, query);
    const subscribed = await socket.expect("subscribed");
    assertMatches(subscribed, { id: "7", subscription: "s", sessionTimeoutMs: 6_000, heartbeatMs: 2_000 });
    const { partitions } = await socket.expect("assigned");
    const positions = partitions.map(({ topic, position }) => [topic, position]);
    assert.deepEqual(Object.fromEntries(positions), { [one]: 3, [two]: 1 });
    const { members } = bodyOf(await call(server, "GET", `/v1/groups/${group}`));
    assertMatches(members, [{ memberId: subscribed.memberId, instanceId: "tab-1" }]);
  },

  "reset policies say where a new group starts, and commit it": async (server) => {
    const topic = await newTopic(server);
    await produce(
      server,
      topic,
      [100, 200, 300].map((timestamp) => ({ value: 1, timestamp })),
    );
    const starts = [
      ["earliest", 0],
      ["latest", 3],
      [{ timestamp: 150 }, 1],
      [{ ago: 60_000 }, 3],
      [{ missing: { timestamp: 250 }, outOfRange: "none" }, 2],
    ] as const;
    for (const [reset, position] of starts) {
      const group = newName("group");
      using member = await subscribe(server, { topics: [topic], group, reset });
      assertMatches(member.partitions, [{ position, committedOffset: position }]);
      assert.deepEqual(await committedOf(server, group), [position]);
    }
  },

  "the policy none sends nothing until a seek gives it a place": async (server) => {
    const topic = await newTopic(server, { records: 3 });
    const group = newName("group");
    using member = await subscribe(server, { topics: [topic], group, reset: "none" });
    const { socket } = member;
    assertMatches(member.partitions, [{ position: null, committedOffset: null }]);
    const error = { topic, partition: 0, code: "no_committed_offset", retriable: false };
    assertMatches(await socket.expect("error"), error);
    assert.deepEqual(await committedOf(server, group), [null]);
    socket.send({ type: "seek", id: 1, topic, partition: 0, to: { offset: 1 } });
    assertMatches(await socket.expect("assigned"), {
      id: 1,
      partitions: [{ position: 1, committedOffset: null }],
    });
    assertMatches(await socket.records(2), [{ offset: 1 }, { offset: 2 }]);
  },

  "a committed offset that has left the log follows the policy outOfRange": async (server) => {
    const topic = await newTopic(server, { records: 6 });
    const group = newName("group");
    const commit = { offsets: [{ topic, partition: 0, offset: 1 }] };
    bodyOf(await call(server, "POST", `/v1/groups/${group}/offsets`, commit));
    await trim(server, topic, 4);
    const reset = { missing: "earliest", outOfRange: "latest" };
    using member = await subscribe(server, { topics: [topic], group, reset });
    assertMatches(member.partitions, [
      { position: 6, committedOffset: 6, logStartOffset: 4, reset: "latest" },
    ]);
  },

  "a position that has left the log is assigned anew, by the policy outOfRange": async (server) => {
    const topic = await newTopic(server, { records: 20 });
    using member = await subscribe(server, {
      topics: [topic],
      group: newName("group"),
      window: { records: 1 },
    });
    const { socket } = member;
    const frame = await socket.expect("records");
    await trim(server, topic, 15);
    socket.send({ type: "ack", offsets: [ackOf(frame)] });
    const { partitions } = await socket.until("assigned");
    assertMatches(partitions, [{ position: 15, logStartOffset: 15, reset: "earliest" }]);
    assertMatches(await socket.records(1), [{ offset: 15 }]);
  },

  "records that are appended later follow at once, each once and in order": async (server) => {
    const topic = await newTopic(server);
    using member = await subscribe(server, { topics: [topic], group: newName("group") });
    for (const offset of countFrom(0, 10)) {
      await produce(server, topic, [{ value: offset }]);
      const frame = await member.socket.expect("records");
      assertMatches(frame, { records: [{ offset, value: offset }], next: offset + 1 });
    }
  },

  "a frame has at most 500 records and half the window": async (server) => {
    const topic = await newTopic(server, { records: 1_200 });
    const sizesOf = async (records: number) => {
      using reader = await subscribe(server, { topics: [topic], from: "earliest", window: { records } });
      const sizes: number[] = [];
      while (sizes.length < 3) sizes.push((await reader.socket.expect("records")).records.length);
      return sizes;
    };
    for (const size of await sizesOf(10_000)) assert.ok(size <= 500, `${size}`);
    for (const size of await sizesOf(100)) assert.ok(size <= 50, `${size}`);
  },

  "the window is what may be sent and not yet acknowledged": async (server) => {
    const topic = await newTopic(server, { records: 30 });
    using member = await subscribe(server, {
      topics: [topic],
      group: newName("group"),
      window: { records: 10 },
    });
    const { socket } = member;
    assertMatches(
      await socket.records(10),
      countFrom(0, 10).map((offset) => ({ offset })),
    );
    await assertQuiet(server, socket, topic);
    const { generation } = partitionOf(member);
    await ack(socket, { topic, partition: 0, generation, offset: 4 });
    assertMatches(
      await socket.records(4),
      countFrom(10, 14).map((offset) => ({ offset })),
    );
    await assertQuiet(server, socket, topic);
  },

  "a record larger than the whole window is sent alone": async (server) => {
    const topic = await newTopic(server);
    const large = "x".repeat(100_000);
    await produce(server, topic, [{ value: 0 }, { value: large }, { value: 2 }]);
    using member = await subscribe(server, {
      topics: [topic],
      group: newName("group"),
      window: { bytes: 65_536 },
    });
    const { socket } = member;
    const first = await socket.expect("records");
    assertMatches(first.records, [{ offset: 0 }]);
    await ack(socket, ackOf(first));
    const second = await socket.expect("records");
    assertMatches(second.records, [{ offset: 1, value: large }]);
    await ack(socket, ackOf(second));
    assertMatches(await socket.records(1), [{ offset: 2 }]);
  },

  "pause stops a partition and resume goes on with it": async (server) => {
    const topic = await newTopic(server, { partitionCount: 2 });
    using member = await subscribe(server, { topics: [topic], group: newName("group") });
    const { socket } = member;
    const partitions = [{ topic, partition: 0 }];
    socket.send({ type: "pause", id: 1, partitions });
    assert.deepEqual(await socket.expect("ok"), { type: "ok", id: 1 });
    await produce(server, topic, [{ value: "held", partition: 0 }]);
    await produce(server, topic, [{ value: "sent", partition: 1 }]);
    assertMatches(await socket.expect("records"), { partition: 1, records: [{ value: "sent" }] });
    socket.send({ type: "resume", id: 2, partitions });
    assert.deepEqual(await socket.expect("ok"), { type: "ok", id: 2 });
    assertMatches(await socket.expect("records"), { partition: 0, records: [{ value: "held" }] });
    socket.send({ type: "pause", id: 3, partitions: [...partitions, { topic, partition: 9 }] });
    assertMatches(await socket.expect("error"), { id: 3, code: "not_assigned" });
  },

  "seek moves the position and never the committed offset": async (server) => {
    const topic = await newTopic(server, { records: 10 });
    const group = newName("group");
    using member = await subscribe(server, { topics: [topic], group, reset: "latest" });
    const { socket } = member;
    const { generation } = partitionOf(member);
    const places = [
      [{ offset: 4 }, 4],
      ["earliest", 0],
      [{ shift: -3 }, 7],
      ["current", 10],
      [{ timestamp: 0 }, 0],
      ["latest", 10],
    ] as const;
    for (const [to, position] of places) {
      socket.send({ type: "seek", id: 1, topic, partition: 0, to });
      const { id, partitions } = await socket.expect("assigned");
      assertMatches(
        { id, partitions },
        { id: 1, partitions: [{ position, generation, committedOffset: 10 }] },
      );
      const expected = countFrom(position, 10).map((offset) => ({ offset }));
      assertMatches(await socket.records(expected.length), expected);
    }
    assert.deepEqual(await committedOf(server, group), [10]);
  },

  "seek out of the log or in a partition of somebody else is refused": async (server) => {
    const topic = await newTopic(server, { records: 2 });
    using member = await subscribe(server, { topics: [topic], group: newName("group"), reset: "latest" });
    const { socket } = member;
    socket.send({ type: "seek", id: 1, topic, partition: 0, to: { offset: 3 } });
    const error = { id: 1, code: "offset_out_of_range", logStartOffset: 0, logEndOffset: 2 };
    assertMatches(await socket.expect("error"), error);
    socket.send({ type: "seek", id: 2, topic, partition: 1, to: "earliest" });
    assertMatches(await socket.expect("error"), { id: 2, code: "not_assigned", topic, partition: 1 });
    assert.deepEqual(await socket.settle(), []);
  },

  "ack none: what is sent was committed before": async (server) => {
    const topic = await newTopic(server, { records: 5 });
    const group = newName("group");
    using member = await subscribe(server, { topics: [topic], group, ack: "none" });
    await member.socket.records(5);
    assert.deepEqual(await committedOf(server, group), [5]);
    await produce(server, topic, [{ value: 5 }]);
    assertMatches(await member.socket.records(1), [{ offset: 5 }]);
    assert.deepEqual(await committedOf(server, group), [6]);
  },

  "produce frames are written in their order, and an error leaves the socket as it was": async (server) => {
    const topic = await newTopic(server);
    using socket = await Socket.open(server);
    const send = (id: number, more: object) =>
      socket.send({ type: "produce", id, topic, records: [{ value: id }], ...more });
    send(1, {});
    send(2, { records: [] });
    send(3, { topic: newName("topic") });
    send(4, { expect: [{ partition: 0, logEndOffset: 9 }] });
    send(5, {});
    const answers: ServerFrame[] = [];
    while (answers.length < 5) answers.push(await socket.next());
    const byId = (id: number) => answers.find((answer) => Reflect.get(answer, "id") === id);
    assertMatches(byId(1), { type: "produced", runs: [{ partition: 0, offset: 0, count: 1 }] });
    assertMatches(byId(2), { type: "error", code: "bad_request", retriable: false });
    assertMatches(byId(3), { type: "error", code: "unknown_topic" });
    assertMatches(byId(4), { type: "error", code: "conflict", topic, partition: 0, expected: 9, found: 1 });
    assertMatches(byId(5), { type: "produced", runs: [{ partition: 0, offset: 1, count: 1 }] });
  },

  "unsubscribe ends a subscription and frees its name": async (server) => {
    const topic = await newTopic(server);
    const group = newName("group");
    using member = await subscribe(server, { topics: [topic], group });
    const { socket } = member;
    socket.send({ type: "unsubscribe", id: 1 });
    assert.deepEqual(await socket.expect("unsubscribed"), {
      type: "unsubscribed",
      id: 1,
      subscription: "default",
    });
    const { members } = bodyOf(await call(server, "GET", `/v1/groups/${group}`));
    assert.deepEqual(members, []);
    socket.send({ type: "unsubscribe", id: 2 });
    assertMatches(await socket.expect("error"), {
      id: 2,
      code: "unknown_subscription",
      subscription: "default",
    });
    socket.send({ type: "subscribe", id: 3, topics: [topic], group });
    assertMatches(await socket.expect("subscribed"), { id: 3 });
  },

  "one socket carries many subscriptions, each by its name": async (server) => {
    const topic = await newTopic(server);
    using socket = await Socket.open(server);
    for (const subscription of ["a", "b", "c"]) {
      socket.send({ type: "subscribe", subscription, topics: [topic], group: newName("group") });
      assertMatches(await socket.expect("subscribed"), { subscription });
      assertMatches(await socket.expect("assigned"), { subscription });
    }
    socket.send({ type: "subscribe", id: 4, subscription: "b", topics: [topic], group: newName("group") });
    assertMatches(await socket.expect("error"), { id: 4, subscription: "b", code: "conflict" });
    await produce(server, topic, [{ value: 1 }]);
    const names = [];
    while (names.length < 3) names.push((await socket.expect("records")).subscription);
    assert.deepEqual(names.toSorted(), ["a", "b", "c"]);
  },

  "a subscription to a topic that is not there is refused": async (server) => {
    const topic = newName("topic");
    using socket = await Socket.open(server);
    socket.send({ type: "subscribe", id: 1, topics: [topic], group: newName("group") });
    assertMatches(await socket.expect("error"), { id: 1, code: "unknown_topic", retriable: false });
    assert.deepEqual(await socket.settle(), []);
  },

  "a topic that is deleted is revoked, and assigned again when it is created again": async (server) => {
    const topic = await newTopic(server, { records: 1 });
    using member = await subscribe(server, { topics: [topic], group: newName("group") });
    const { socket } = member;
    const { generation, topicId } = partitionOf(member);
    const frame = await socket.expect("records");
    await call(server, "DELETE", `/v1/topics/${topic}`);
    const { partitions, reason, deadlineMs } = await socket.expect("revoked");
    assert.deepEqual(
      [partitions, reason, deadlineMs],
      [[{ topic, partition: 0, generation }], "topic_deleted", 0],
    );
    assertMatches(await ack(socket, ackOf(frame)), [{ offset: null, code: "unknown_topic" }]);
    bodyOf(await call(server, "PUT", `/v1/topics/${topic}`), 201);
    const again = partitionOf(await socket.expect("assigned"));
    assertMatches(again, { position: 0, committedOffset: 0, logEndOffset: 0 });
    assert.ok(again.topicId > topicId && again.generation > generation);
  },

  "a partition that is added is assigned from its beginning": async (server) => {
    const topic = await newTopic(server, { records: 2 });
    using member = await subscribe(server, { topics: [topic], group: newName("group"), reset: "latest" });
    bodyOf(await call(server, "PUT", `/v1/topics/${topic}`, { partitionCount: 2 }));
    assertMatches((await member.socket.expect("assigned")).partitions, [{ partition: 1, position: 0 }]);
    await produce(server, topic, [{ value: 1, partition: 1 }]);
    assertMatches(await member.socket.records(1), [{ offset: 0, value: 1 }]);
  },

  "a pong with an id is answered": async (server) => {
    using socket = await Socket.open(server);
    socket.send({ type: "pong", id: 0 });
    assert.deepEqual(await socket.expect("ok"), { type: "ok", id: 0 });
  },
});
