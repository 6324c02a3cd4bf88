import assert from "node:assert/strict";
import type { ServerFrame } from "../../src/protocol/frames.ts";
import { checksOf } from "./check.ts";
import { bodyOf, call } from "./http.ts";
import { ack, ackOf, committedOf, newName, newTopic, partitionOf, produce, subscribe } from "./log.ts";
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

  "records that are appended later follow at once, each once and in order": async (server) => {
    const topic = await newTopic(server);
    using member = await subscribe(server, { topics: [topic], group: newName("group") });
    for (const offset of countFrom(0, 10)) {
      await produce(server, topic, [{ value: offset }]);
      const frame = await member.socket.expect("records");
      assertMatches(frame, { records: [{ offset, value: offset }], next: offset + 1 });
    }
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

  "a socket that the client closes is closed with its code": async (server) => {
    const socket = await Socket.open(server);
    await socket.settle();
    await socket.close();
    assert.equal((await socket.closed()).code, 1000);
  },

  "a pong with an id is answered": async (server) => {
    using socket = await Socket.open(server);
    socket.send({ type: "pong", id: 0 });
    assert.deepEqual(await socket.expect("ok"), { type: "ok", id: 0 });
  },
});
