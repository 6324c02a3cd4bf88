import assert from "node:assert/strict";
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

export const positions = checksOf("positions and windows", {
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
});
