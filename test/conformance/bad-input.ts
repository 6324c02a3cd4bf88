import assert from "node:assert/strict";
import { checksOf, type ServerUnderTest } from "./check.ts";
import { assertRefused, bodyOf, call, streamed } from "./http.ts";
import {
  ack,
  ackOf,
  logEndsOf,
  newName,
  newTopic,
  partitionPath,
  produce,
  read,
  recordsPath,
  subscribe,
  succeed,
} from "./log.ts";
import { assertMatches } from "./match.ts";
import { Socket } from "./socket.ts";

const encoder = new TextEncoder();
const FOREIGN = { headers: { origin: "https://elsewhere.example" } };

/** The frame closes its socket with 4400 after an error; a neighbour's goes on. */
async function assertBadFrame(server: ServerUnderTest, send: (socket: Socket) => void): Promise<void> {
  using socket = await Socket.open(server);
  send(socket);
  assertMatches(await socket.expect("error"), { code: "bad_frame", retriable: false });
  assert.equal((await socket.closed()).code, 4400);
}

export const badInput = checksOf("bad input", {
  "what is no frame is bad_frame and closes with 4400": async (server) => {
    const frames = [
      "",
      "{",
      "[]",
      "7",
      "null",
      '"ack"',
      "{}",
      '{"type":"subscrib"}',
      '{"type":7}',
      "\ufeff{}",
    ];
    await Promise.all(frames.map((text) => assertBadFrame(server, (socket) => socket.sendText(text))));
  },

  "a member that is missing or of another type is bad_frame": async (server) => {
    const topic = await newTopic(server);
    const frames = [
      { type: "subscribe" },
      { type: "subscribe", topics: topic, group: "g" },
      { type: "subscribe", topics: [topic], group: null },
      { type: "ack" },
      { type: "ack", offsets: [{ topic, partition: 0, offset: 1 }] },
      { type: "ack", offsets: [{ topic, partition: "0", generation: 1, offset: 1 }] },
      { type: "seek", topic, partition: 0 },
      { type: "produce", topic },
      { type: "transact" },
    ];
    await Promise.all(frames.map((frame) => assertBadFrame(server, (socket) => socket.send(frame))));
  },

  "a binary frame is bad_frame": async (server) => {
    const bytes = encoder.encode('{"type":"pong","id":1}');
    await assertBadFrame(server, (socket) => socket.sendBytes(bytes));
  },

  "a member that is unknown or there twice is bad_request by name, and has no effect": async (server) => {
    const topic = await newTopic(server);
    const [group, records] = [newName("group"), [{ value: 1 }]];
    using socket = await Socket.open(server);
    const frames = [
      [JSON.stringify({ type: "subscribe", id: 1, topics: [topic], grupo: group, group }), "grupo"],
      [JSON.stringify({ type: "produce", id: 1, topic, records, acks: "all" }), "acks"],
      [JSON.stringify({ type: "pong", id: 1, at: 7 }), "at"],
      [`{"type":"subscribe","id":1,"topics":["${topic}"],"group":"${group}","group":"g"}`, "group"],
    ] as const;
    for (const [text, named] of frames) {
      socket.sendText(text);
      const { id, code, message } = await socket.expect("error");
      assert.deepEqual([id, code], [1, "bad_request"]);
      assert.ok(message.includes(`"${named}"`), message);
    }
    assert.deepEqual(await socket.settle(), []);
    assert.deepEqual(await logEndsOf(server, topic), [0]);
    assertRefused(await call(server, "GET", `/v1/groups/${group}`), 404, "unknown_group");
  },

  "names, lists and numbers that are not allowed are errors, and the socket lives": async (server) => {
    const topic = await newTopic(server);
    using socket = await Socket.open(server);
    const frames = [
      { type: "subscribe", id: 1, topics: [topic], group: "a b" },
      { type: "subscribe", id: 2, topics: [topic], group: ".." },
      { type: "subscribe", id: 3, topics: [], group: "g" },
      { type: "subscribe", id: 4, topics: [topic], group: "g", reset: "first" },
      { type: "subscribe", id: 5, topics: [topic], group: "g", subscription: "x".repeat(250) },
      { type: "ack", id: 6, offsets: [{ topic, partition: -1, generation: 1, offset: 1 }] },
      { type: "ack", id: 7, offsets: [{ topic, partition: 0, generation: 1, offset: 1.5 }] },
    ];
    for (const frame of frames) {
      socket.send(frame);
      assertMatches(await socket.expect("error"), { id: frame.id, code: "bad_request", retriable: false });
    }
    socket.send({ type: "pong", id: -1 });
    const { id, code } = await socket.expect("error");
    assert.deepEqual([id, code], [undefined, "bad_request"]);
    assert.deepEqual(await socket.settle(), []);
  },

  "a URL of the stream that is not allowed is an error, and the socket lives": async (server) => {
    const queries = [
      "?topic=a",
      "?group=g",
      "?topic=a&group=g&windows=5",
      "?topic=a&group=g&reset=first",
      "?topic=a%20b&group=g",
    ];
    for (const query of queries) {
      using socket = await Socket.open(server, query);
      assertMatches(await socket.expect("error"), { code: "bad_request" });
      assert.deepEqual(await socket.settle(), []);
    }
  },

  "a body that is not UTF-8 is bad_request, and nothing is written": async (server) => {
    const topic = await newTopic(server);
    const [head, tail] = [encoder.encode('{"records":[{"value":"'), encoder.encode('"}]}')];
    for (const wrong of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0xc0, 0x80]]) {
      const body = Uint8Array.from([...head, ...wrong, ...tail]);
      assertRefused(await call(server, "POST", recordsPath(topic), body), 400, "bad_request");
    }
    assert.deepEqual(await logEndsOf(server, topic), [0]);
  },

  "a body that is no JSON object is bad_request on every route that takes one": async (server) => {
    const [topic, group] = [await newTopic(server), newName("group")];
    const routes = [
      ["PUT", `/v1/topics/${topic}`],
      ["POST", recordsPath(topic)],
      ["POST", "/v1/transactions"],
      ["POST", `/v1/groups/${group}/offsets`],
      ["POST", `/v1/groups/${group}/reset`],
      ["POST", `/v1/producers/${newName("producer")}`],
    ] as const;
    for (const [method, path] of routes)
      for (const body of ["{", "[]", "7", '{"unknown":1}'])
        assertRefused(await call(server, method, path, body), 400, "bad_request");
  },

  "a route that is not there is 404, a method that it does not take 405": async (server) => {
    for (const path of ["/v1", "/v1/nothing", "/v2/topics", "/v1/topics/a/b"])
      assertRefused(await call(server, "GET", path), 404, "bad_request");
    const answer = await call(server, "POST", "/v1/topics/orders", "{}");
    assertRefused(answer, 405, "bad_request", { allowed: ["GET", "PUT", "DELETE"] });
    assert.equal(answer.headers.get("allow"), "GET, PUT, DELETE");
  },

  "the stream without an upgrade is 426": async (server) => {
    const answer = await call(server, "GET", "/v1/stream");
    assertRefused(answer, 426, "bad_request");
  },

  "a page of a foreign origin is refused, before anything is done and before the upgrade": async (server) => {
    const topic = newName("topic");
    assertRefused(await call(server, "PUT", `/v1/topics/${topic}`, {}, FOREIGN), 403, "forbidden");
    assertRefused(await call(server, "GET", "/v1/topics", undefined, FOREIGN), 403, "forbidden");
    assertRefused(
      await call(server, "GET", `/v1/stream?topic=${topic}&from=latest`, undefined, FOREIGN),
      403,
      "forbidden",
    );
    assertRefused(await call(server, "GET", `/v1/topics/${topic}`), 404, "unknown_topic");
  },

  "a bad frame of one socket is not noticed by another": async (server) => {
    const topic = await newTopic(server, { records: 1 });
    using neighbour = await subscribe(server, { topics: [topic], group: newName("group") });
    const frame = await neighbour.socket.expect("records");
    await assertBadFrame(server, (socket) => socket.sendText("}"));
    await produce(server, topic, [{ value: 1 }]);
    assertMatches(await neighbour.socket.records(1), [{ offset: 1 }]);
    assertMatches(await ack(neighbour.socket, ackOf(frame)), [{ offset: 1 }]);
  },

  "a client that goes away in the middle of a body writes nothing": async (server) => {
    const topic = await newTopic(server);
    const gone = new AbortController();
    const parts = ['{"records":[{"value":1},', '{"value":2},'];
    const body = new ReadableStream<Uint8Array>({
      pull: (controller) => {
        const part = parts.shift();
        if (part === undefined) gone.abort();
        else controller.enqueue(encoder.encode(part));
      },
    });
    const init = { method: "POST", signal: gone.signal, ...streamed(body) };
    await assert.rejects(fetch(server.url + recordsPath(topic), init));
    assert.deepEqual(await produce(server, topic, [{ value: 3 }]), [{ partition: 0, offset: 0, count: 1 }]);
    assertMatches((await read(server, topic)).records, [{ offset: 0, value: 3 }]);
  },

  "a client that goes away while it waits or is sent records holds nobody up": async (server) => {
    const topic = await newTopic(server);
    const group = newName("group");
    const gone = new AbortController();
    const waiting = fetch(`${server.url}${partitionPath(topic)}?waitMs=30000`, { signal: gone.signal });
    const member = await subscribe(server, { topics: [topic], group, window: { bytes: 4_194_304 } });
    await produce(
      server,
      topic,
      Array.from({ length: 30 }, () => ({ value: "x".repeat(100_000) })),
    );
    await member.socket.expect("records");
    bodyOf(await call(server, "GET", "/healthz"));
    gone.abort();
    await waiting.then((answer) => answer.text()).catch(() => "gone"); // it may have been answered before
    await member.socket.close();
    using next = await succeed(server, { topics: [topic], group });
    assertMatches(next.partitions, [{ position: 0 }]);
    assertMatches((await next.socket.expect("records")).records[0], { offset: 0 });
  },
});
