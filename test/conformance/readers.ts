import assert from "node:assert/strict";
import { checksOf } from "./check.ts";
import { bodyOf, call } from "./http.ts";
import { ack, ackOf, newName, newTopic, produce, subscribe, trim } from "./log.ts";
import { assertMatches, countFrom } from "./match.ts";
import { Socket } from "./socket.ts";

export const readers = checksOf("readers", {
  "start at a place in all partitions, and are no members": async (server) => {
    const topic = await newTopic(server, { partitionCount: 2 });
    const times = [100, 200, 300].map((timestamp) => ({ value: 1, timestamp, partition: 0 }));
    await produce(server, topic, times);
    const places = [
      ["earliest", 0],
      ["latest", 3],
      [{ timestamp: 150 }, 1],
      [{ ago: 60_000 }, 3],
    ] as const;
    for (const [from, position] of places) {
      using reader = await subscribe(server, { topics: [topic], from });
      assert.equal(reader.subscribed.memberId, undefined);
      assertMatches(reader.partitions, [
        { position, committedOffset: null },
        { position: 0, committedOffset: null },
      ]);
      assert.equal((await reader.socket.records(3 - position)).length, 3 - position);
    }
  },

  "start at an offset in the partitions that they name, and only there": async (server) => {
    const topic = await newTopic(server, { partitionCount: 3, records: 4 });
    const { topicId } = bodyOf(await call(server, "GET", `/v1/topics/${topic}`));
    const from = [{ topic, partition: 1, offset: 3, topicId }];
    using reader = await subscribe(server, { topics: [topic], from });
    assertMatches(reader.partitions, [{ partition: 1, position: 3, topicId }]);
    assertMatches(await reader.socket.records(1), [{ offset: 3 }]);
    await produce(
      server,
      topic,
      countFrom(0, 3).map((partition) => ({ value: "new", partition })),
    );
    assertMatches(await reader.socket.expect("records"), { partition: 1, records: [{ offset: 4 }] });
    assert.deepEqual(await reader.socket.settle(), []);
  },

  "are refused another topic of the name, an offset out of the log and a place of groups": async (server) => {
    const topic = await newTopic(server, { records: 4 });
    await trim(server, topic, 2);
    using socket = await Socket.open(server);
    const refused = [
      [[{ topic, partition: 0, offset: 2, topicId: 999_999_999 }], "unknown_topic"],
      [[{ topic, partition: 1, offset: 0 }], "unknown_partition"],
      [{ offset: 1 }, "offset_out_of_range"],
      [{ offset: 5 }, "offset_out_of_range"],
      [{ shift: -1 }, "bad_request"],
      ["current", "bad_request"],
    ] as const;
    for (const [index, [from, code]] of refused.entries()) {
      socket.send({ type: "subscribe", id: index, topics: [topic], from });
      assertMatches(await socket.expect("error"), { id: index, code });
    }
    assert.deepEqual(await socket.settle(), []);
  },

  "by a URL, from an offset and from a time": async (server) => {
    const topic = await newTopic(server);
    await produce(
      server,
      topic,
      [100, 200, 300].map((timestamp) => ({ value: 1, timestamp })),
    );
    for (const [from, position] of [
      ["latest", 3],
      ["1", 1],
      ["@250", 2],
    ] as const) {
      using socket = await Socket.open(server, `?topic=${topic}&from=${from}`);
      await socket.expect("subscribed");
      assertMatches((await socket.expect("assigned")).partitions, [{ position }]);
    }
  },

  "with acks free their window and commit nothing": async (server) => {
    const topic = await newTopic(server, { records: 6 });
    const window = { records: 2 };
    using reader = await subscribe(server, { topics: [topic], from: "earliest", ack: "manual", window });
    const { socket } = reader;
    await socket.expect("records");
    const second = await socket.expect("records");
    assertMatches(await ack(socket, ackOf(second)), [{ topic, partition: 0, offset: null }]);
    assertMatches(await socket.records(2), [{ offset: 2 }, { offset: 3 }]);
  },

  "without acks are sent everything": async (server) => {
    const topic = await newTopic(server, { records: 50 });
    using reader = await subscribe(server, { topics: [topic], from: "earliest", window: { records: 2 } });
    assertMatches(
      await reader.socket.records(50),
      countFrom(0, 50).map((offset) => ({ offset })),
    );
  },

  "seek, like members": async (server) => {
    const topic = await newTopic(server, { records: 5 });
    using reader = await subscribe(server, { topics: [topic], from: "latest" });
    reader.socket.send({ type: "seek", id: 1, topic, partition: 0, to: { offset: 3 } });
    assertMatches(await reader.socket.expect("assigned"), { id: 1, partitions: [{ position: 3 }] });
    assertMatches(await reader.socket.records(2), [{ offset: 3 }, { offset: 4 }]);
    reader.socket.send({ type: "seek", id: 2, topic, partition: 0, to: "current" });
    assertMatches(await reader.socket.expect("error"), { id: 2, code: "bad_request" });
  },

  "are told of a topic that is deleted, and get it again": async (server) => {
    const topic = await newTopic(server, { records: 2 });
    using reader = await subscribe(server, { topics: [topic], from: "latest" });
    assert.equal((await call(server, "DELETE", `/v1/topics/${topic}`)).status, 204);
    const gone = { reason: "topic_deleted", deadlineMs: 0, partitions: [{ topic, partition: 0 }] };
    assertMatches(await reader.socket.expect("revoked"), gone);
    bodyOf(await call(server, "PUT", `/v1/topics/${topic}`), 201);
    assertMatches((await reader.socket.expect("assigned")).partitions, [{ position: 0, logEndOffset: 0 }]);
    await produce(server, topic, [{ value: "again" }]);
    assertMatches(await reader.socket.records(1), [{ offset: 0, value: "again" }]);
  },

  "say either group or from": async (server) => {
    const topic = await newTopic(server);
    using socket = await Socket.open(server);
    socket.send({ type: "subscribe", id: 1, topics: [topic] });
    assertMatches(await socket.expect("error"), { id: 1, code: "bad_request" });
    socket.send({ type: "subscribe", id: 2, topics: [topic], group: newName("group"), from: "latest" });
    assertMatches(await socket.expect("error"), { id: 2, code: "bad_request" });
  },
});
