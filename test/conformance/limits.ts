import assert from "node:assert/strict";
import { checksOf } from "./check.ts";
import { assertRefused, bodyOf, call, callInPieces } from "./http.ts";
import {
  ack,
  logEndsOf,
  newName,
  newTopic,
  partitionOf,
  partitionPath,
  produce,
  read,
  recordsPath,
  subscribe,
} from "./log.ts";
import { assertMatches, countFrom } from "./match.ts";
import { Socket } from "./socket.ts";

const KIB = 1024;
const RECORD_BYTES_MAX = KIB * KIB;
const BATCH_BYTES_MAX = 4_000_000;
const FRAME_BYTES_MAX = 4 * KIB * KIB + 64 * KIB;
const WHOLE_READ = "?maxBytes=4000000";

/** A string whose JSON text has so many bytes. */
const textOf = (bytes: number) => "x".repeat(bytes - 2);

/** White space behind JSON is JSON too. */
const filled = (body: object, bytes: number) => JSON.stringify(body).padEnd(bytes);

export const limits = checksOf("limits", {
  "a record of 1 MiB is taken and delivered, one byte more is record_too_large": async (server) => {
    const topic = await newTopic(server);
    using member = await subscribe(server, { topics: [topic], group: newName("group") });
    const records = [{ value: 0 }, { value: textOf(RECORD_BYTES_MAX + 1) }];
    const facts = { record: 1, found: RECORD_BYTES_MAX + 1, allowed: RECORD_BYTES_MAX };
    assertRefused(
      await call(server, "POST", recordsPath(topic), { records }),
      413,
      "record_too_large",
      facts,
    );
    const value = textOf(RECORD_BYTES_MAX);
    await produce(server, topic, [{ value }]);
    assertMatches(await member.socket.records(1), [{ offset: 0, value }]);
    assertMatches((await read(server, topic)).records, [{ offset: 0, value }]);
  },

  "bytes of 1 MiB are taken and delivered by frames": async (server) => {
    const topic = await newTopic(server);
    const bytes = btoa("ÿ".repeat(RECORD_BYTES_MAX));
    using socket = await Socket.open(server);
    socket.send({ type: "produce", id: 1, topic, records: [{ bytes }] });
    assertMatches(await socket.expect("produced"), { id: 1 });
    using reader = await subscribe(server, { topics: [topic], from: "earliest" });
    assertMatches(await reader.socket.records(1), [{ offset: 0, bytes }]);
  },

  "a body of 4,000,000 bytes is taken, one byte more is batch_too_large": async (server) => {
    const topic = await newTopic(server);
    const body = { records: countFrom(0, 4).map((n) => ({ key: `${n}`, value: textOf(999_900) })) };
    const large = await call(server, "POST", recordsPath(topic), filled(body, BATCH_BYTES_MAX + 1));
    assertRefused(large, 413, "batch_too_large", { allowed: BATCH_BYTES_MAX });
    bodyOf(await call(server, "POST", recordsPath(topic), filled(body, BATCH_BYTES_MAX)));
    const first = await read(server, topic, 0, WHOLE_READ);
    assertMatches(first.records[0], body.records[0]);
    assert.deepEqual(await logEndsOf(server, topic), [4]);
  },

  "a body that does not say its length is counted as it comes": async (server) => {
    const topic = await newTopic(server);
    const body = { records: countFrom(0, 4).map(() => ({ value: textOf(999_900) })) };
    const large = await callInPieces(server, recordsPath(topic), filled(body, BATCH_BYTES_MAX + 1));
    assertRefused(large, 413, "batch_too_large", { allowed: BATCH_BYTES_MAX });
    const taken = await callInPieces(server, recordsPath(topic), filled(body, BATCH_BYTES_MAX));
    assert.deepEqual(bodyOf(taken).runs, [{ partition: 0, offset: 0, count: 4 }]);
  },

  "a batch of nearly 4,000,000 bytes is taken as a frame, and streamed": async (server) => {
    const topic = await newTopic(server);
    using socket = await Socket.open(server);
    const value = textOf(39_000);
    socket.send({ type: "produce", id: 1, topic, records: countFrom(0, 100).map(() => ({ value })) });
    assertMatches(await socket.expect("produced"), { id: 1, runs: [{ offset: 0, count: 100 }] });
    using reader = await subscribe(server, { topics: [topic], from: "earliest" });
    assertMatches(
      await reader.socket.records(100),
      countFrom(0, 100).map((offset) => ({ offset, value })),
    );
  },

  "a batch has at most 10,000 records": async (server) => {
    const topic = await newTopic(server);
    const ofCount = (count: number) => ({ records: countFrom(0, count).map((value) => ({ value })) });
    const more = await call(server, "POST", recordsPath(topic), ofCount(10_001));
    assertRefused(more, 413, "batch_too_large", { allowed: 10_000 });
    bodyOf(await call(server, "POST", recordsPath(topic), ofCount(10_000)));
    const { records, next } = await read(server, topic, 0, `${WHOLE_READ}&limit=10000`);
    assert.deepEqual([records.length, next, records[9_999].value], [10_000, 10_000, 9_999]);
  },

  "a frame of 4 MiB + 64 KiB is read, one byte more closes with 1009": async (server) => {
    using socket = await Socket.open(server);
    using neighbour = await Socket.open(server);
    socket.sendText(filled({ type: "pong", id: 1 }, FRAME_BYTES_MAX));
    assertMatches(await socket.expect("ok"), { id: 1 });
    socket.sendText(filled({ type: "pong", id: 2 }, FRAME_BYTES_MAX + 1));
    assert.equal((await socket.closed()).code, 1009);
    assert.deepEqual(await neighbour.settle(), []);
  },

  "a key has at most 32 KiB": async (server) => {
    const topic = await newTopic(server);
    const send = (key: string) => call(server, "POST", recordsPath(topic), { records: [{ key, value: 1 }] });
    const facts = { record: 0, found: 32 * KIB + 1, allowed: 32 * KIB };
    assertRefused(await send("k".repeat(32 * KIB + 1)), 413, "record_too_large", facts);
    assertRefused(await send("é".repeat(16 * KIB + 1)), 413, "record_too_large");
    bodyOf(await send("é".repeat(16 * KIB)));
  },

  "a record has at most 64 headers and 16 KiB of them": async (server) => {
    const topic = await newTopic(server);
    const send = (headers: object) =>
      call(server, "POST", recordsPath(topic), { records: [{ value: 1, headers }] });
    const some = (count: number) => Object.fromEntries(countFrom(0, count).map((n) => [`h${n}`, "v"]));
    assertRefused(await send(some(65)), 413, "record_too_large");
    assertRefused(await send({ h: "v".repeat(16 * KIB) }), 413, "record_too_large");
    bodyOf(await send(some(64)));
    bodyOf(await send({ h: "v".repeat(16 * KIB - 8) }));
  },

  "metadata has at most 4 KiB": async (server) => {
    const topic = await newTopic(server, { records: 1 });
    using member = await subscribe(server, { topics: [topic], group: newName("group") });
    const { generation } = partitionOf(member);
    await member.socket.records(1);
    const entry = (bytes: number) => ({
      topic,
      partition: 0,
      generation,
      offset: 1,
      metadata: "m".repeat(bytes),
    });
    member.socket.send({ type: "ack", id: 1, offsets: [entry(4_097)] });
    assertMatches(await member.socket.expect("error"), { id: 1, code: "bad_request" });
    assertMatches(await ack(member.socket, entry(4_096)), [{ offset: 1 }]);
  },

  "a topic has at most 1,024 partitions": async (server) => {
    const topic = newName("topic");
    const put = (partitionCount: number) => call(server, "PUT", `/v1/topics/${topic}`, { partitionCount });
    assertRefused(await put(1_025), 400, "bad_request");
    assertMatches(bodyOf(await put(1_024), 201), { partitionCount: 1_024 });
    await produce(server, topic, [{ value: 1, partition: 1_023 }]);
    bodyOf(await call(server, "DELETE", `/v1/topics/${topic}`), 204);
  },

  "a socket has at most 64 subscriptions": async (server) => {
    const topic = await newTopic(server);
    using socket = await Socket.open(server);
    for (const n of countFrom(0, 65))
      socket.send({ type: "subscribe", id: n, subscription: `s${n}`, topics: [topic], from: "latest" });
    const codes = [];
    for (let answers = 0; answers < 65; ) {
      const frame = await socket.next();
      if (frame.type === "assigned") continue;
      answers += 1;
      if (frame.type === "error") codes.push(`${frame.id} ${frame.code}`);
    }
    assert.deepEqual(codes, ["64 bad_request"]);
  },

  "a subscription has at most 100 topics, and none twice": async (server) => {
    const topic = await newTopic(server);
    using socket = await Socket.open(server);
    socket.send({ type: "subscribe", id: 1, topics: countFrom(0, 101).map((n) => `t${n}`), from: "latest" });
    assertMatches(await socket.expect("error"), { id: 1, code: "bad_request" });
    socket.send({ type: "subscribe", id: 2, topics: [topic, topic], from: "latest" });
    assertMatches(await socket.expect("error"), { id: 2, code: "bad_request" });
  },

  "windows and timeouts are inside their limits or bad_request": async (server) => {
    const topic = await newTopic(server);
    using socket = await Socket.open(server);
    const wrong = [
      { window: { records: 0 } },
      { window: { records: 10_001 } },
      { window: { bytes: 65_535 } },
      { window: { bytes: 4_194_305 } },
      { sessionTimeoutMs: 5_999 },
      { sessionTimeoutMs: 300_001 },
      { ackTimeoutMs: 99 },
    ];
    for (const [id, fields] of wrong.entries()) {
      socket.send({ type: "subscribe", id, topics: [topic], group: newName("group"), ...fields });
      assertMatches(await socket.expect("error"), { id, code: "bad_request", retriable: false });
    }
    const window = { records: 10_000, bytes: 4_194_304 };
    const most = { window, sessionTimeoutMs: 300_000, ackTimeoutMs: 86_400_000 };
    socket.send({ type: "subscribe", id: 99, topics: [topic], group: newName("group"), ...most });
    assertMatches(await socket.expect("subscribed"), { id: 99, sessionTimeoutMs: 300_000 });
  },

  "a read has at most 10,000 records, 4,000,000 bytes and 30 s": async (server) => {
    const topic = await newTopic(server, { records: 1 });
    for (const query of ["limit=10001", "maxBytes=4000001", "waitMs=30001"])
      assertRefused(await call(server, "GET", `${partitionPath(topic)}?${query}`), 400, "bad_request");
    const query = "?limit=10000&maxBytes=4000000&waitMs=30000";
    assert.equal((await read(server, topic, 0, query)).next, 1);
  },
});
