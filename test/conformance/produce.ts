import assert from "node:assert/strict";
import type { Run } from "../../src/protocol/frames.ts";
import { checksOf } from "./check.ts";
import { assertRefused, bodyOf, call } from "./http.ts";
import { logEndsOf, newTopic, partitionPath, produce, read, recordsPath, subscribe } from "./log.ts";
import { assertMatches, countFrom } from "./match.ts";

const NDJSON = { headers: { "content-type": "application/x-ndjson" } };

/** From UtilsTest.testMurmur2 of Apache Kafka. */
const MURMUR2 = {
  "21": -973932308,
  foobar: -790332482,
  "a-little-bit-long-string": -985981536,
  "a-little-bit-longer-string": -1486304829,
  lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8: -58897971,
  abc: 479470107,
};

export const produces = checksOf("produce", {
  "is answered with runs in the order of the request": async (server) => {
    const topic = await newTopic(server, { partitionCount: 2 });
    const records = [0, 0, 1, 0, 1, 1].map((partition, value) => ({ value, partition }));
    assert.deepEqual(await produce(server, topic, records), [
      { partition: 0, offset: 0, count: 2 },
      { partition: 1, offset: 0, count: 1 },
      { partition: 0, offset: 2, count: 1 },
      { partition: 1, offset: 1, count: 2 },
    ]);
  },

  "gives dense offsets to batches that come at once, each in one piece": async (server) => {
    const topic = await newTopic(server);
    const batch = countFrom(0, 10).map((value) => ({ value }));
    const answers = await Promise.all(countFrom(0, 20).map(() => produce(server, topic, batch)));
    const offsets = answers.flat().map(({ offset }: Run) => offset);
    assert.deepEqual(
      offsets.toSorted((a, b) => a - b),
      countFrom(0, 20).map((n) => n * 10),
    );
    const { records } = await read(server, topic);
    assertMatches(
      records,
      countFrom(0, 200).map((offset) => ({ offset, value: offset % 10 })),
    );
  },

  "puts a key where Kafka puts it, by murmur2 of its UTF-8": async (server) => {
    for (const partitionCount of [7, 16]) {
      const topic = await newTopic(server, { partitionCount });
      for (const [key, hash] of Object.entries(MURMUR2)) {
        const [run] = await produce(server, topic, [{ key, value: 1 }]);
        assert.equal(run?.partition, (hash & 0x7fffffff) % partitionCount, key);
      }
    }
  },

  "follows a record's own partition before its key, and keeps a batch without keys together": async (
    server,
  ) => {
    const topic = await newTopic(server, { partitionCount: 8 });
    const own = countFrom(0, 8).map((partition) => ({ key: "abc", value: 1, partition }));
    const runs = await produce(server, topic, own);
    assert.deepEqual(
      runs,
      countFrom(0, 8).map((partition) => ({ partition, offset: 0, count: 1 })),
    );
    const [sticky, ...others] = await produce(
      server,
      topic,
      countFrom(0, 9).map((value) => ({ value })),
    );
    assert.deepEqual([sticky?.count, others], [9, []]);
  },

  "keeps key, headers and timestamp, and leaves out what is absent or empty": async (server) => {
    const topic = await newTopic(server);
    const whole = { key: "ключ", value: { a: 1 }, headers: { kind: "x", "": "", ж: "é" }, timestamp: 1_234 };
    await produce(server, topic, [
      whole,
      { key: null, value: 2, headers: {}, timestamp: 0 },
      { key: "", value: 3 },
    ]);
    const { records } = await read(server, topic);
    assert.deepEqual(records.slice(0, 2), [
      { offset: 0, ...whole },
      { offset: 1, timestamp: 0, value: 2 },
    ]);
    assert.equal(records[2].key, "");
    assert.ok(records[2].timestamp > 1_600_000_000_000);
  },

  "keeps a tombstone as the value null": async (server) => {
    const topic = await newTopic(server);
    await produce(server, topic, [{ key: "k", value: null, timestamp: 1 }]);
    const { records } = await read(server, topic);
    assert.deepEqual(records, [{ offset: 0, timestamp: 1, key: "k", value: null }]);
  },

  "gives bytes back as they came, among values, over HTTP and over the socket": async (server) => {
    const topic = await newTopic(server);
    const every = btoa(String.fromCharCode(...countFrom(0, 256)));
    const produced = [
      { bytes: every, key: "k", headers: { h: "1" } },
      { bytes: "" },
      { value: "AA==" },
      { bytes: "gA==" },
    ];
    await produce(
      server,
      topic,
      produced.map((record) => ({ ...record, timestamp: 5 })),
    );
    const expected = produced.map((record, offset) => ({ offset, timestamp: 5, ...record }));
    assert.deepEqual((await read(server, topic)).records, expected);
    using reader = await subscribe(server, { topics: [topic], from: "earliest" });
    assert.deepEqual(await reader.socket.records(4), expected);
  },

  "takes NDJSON, with the key by a pointer into each value": async (server) => {
    const topic = await newTopic(server);
    const lines = ['{"id":"u1"}', '{"id":2.0}', "", '{"id":true}', '{"id":null}', "{}", "7"];
    const answer = await call(server, "POST", `${recordsPath(topic)}?key=/id`, lines.join("\r\n"), NDJSON);
    assert.deepEqual(bodyOf(answer).runs, [{ partition: 0, offset: 0, count: 6 }]);
    const { records } = await read(server, topic);
    const keys = records.map(({ key }: { key?: string }) => key);
    assert.deepEqual(keys, ["u1", "2.0", "true", undefined, undefined, undefined]);
  },

  "refuses NDJSON whole, by the line that is wrong": async (server) => {
    const topic = await newTopic(server);
    const refused = [
      ["1\n\n{broken\n4\n", "", 3],
      ['{"id":1}\n{"id":{}}\n', "?key=/id", 2],
      ['{"id":[]}\n', "?key=/id", 1],
    ] as const;
    for (const [body, query, line] of refused)
      assertRefused(
        await call(server, "POST", recordsPath(topic) + query, body, NDJSON),
        400,
        "bad_request",
        { line },
      );
    assertRefused(await call(server, "POST", recordsPath(topic), "\n\n", NDJSON), 400, "bad_request");
    assert.deepEqual(await logEndsOf(server, topic), [0]);
  },

  "refuses a batch whole for one record that is wrong, and names it": async (server) => {
    const topic = await newTopic(server, { partitionCount: 2 });
    const wrong = [
      "{}",
      '{"value":1,"bytes":"AA=="}',
      '{"value":1,"offset":7}',
      '{"value":1,"value":2}',
      '{"key":"a","key":"b","value":1}',
      '{"key":"\\ud800","value":1}',
      '{"key":"\\u0000","value":1}',
      '{"key":7,"value":1}',
      '{"value":1,"headers":{"h":"\\udfff"}}',
      '{"value":1,"headers":{"h":1}}',
      '{"value":1,"headers":null}',
      '{"value":1,"timestamp":-1}',
      '{"value":1,"timestamp":1.5}',
      '{"value":1,"partition":-1}',
      '{"bytes":"AA="}',
      '{"bytes":null}',
      "[]",
    ];
    for (const record of wrong) {
      const body = `{"records":[{"value":0,"partition":1},${record}]}`;
      assertRefused(await call(server, "POST", recordsPath(topic), body), 400, "bad_request", { record: 1 });
    }
    assert.deepEqual(await logEndsOf(server, topic), [0, 0]);
  },

  "refuses a body without records, and one with a member that it does not know": async (server) => {
    const topic = await newTopic(server);
    for (const body of [
      "",
      "{}",
      '{"records":[]}',
      '{"records":{}}',
      "[1]",
      '{"records":[{"value":1}],"acks":"all"}',
    ])
      assertRefused(await call(server, "POST", recordsPath(topic), body), 400, "bad_request");
    const unknown = await call(server, "POST", `${recordsPath(topic)}?acks=all`, { records: [{ value: 1 }] });
    assertRefused(unknown, 400, "bad_request");
    assert.deepEqual(await logEndsOf(server, topic), [0]);
  },

  "with an expectation is written only where the partition ends there": async (server) => {
    const topic = await newTopic(server, { records: 2 });
    const expecting = (logEndOffset: number) =>
      call(server, "POST", recordsPath(topic), {
        records: [{ value: 2 }],
        expect: [{ partition: 0, logEndOffset }],
      });
    const facts = { topic, partition: 0, expected: 3, found: 2 };
    assertRefused(await expecting(3), 409, "conflict", facts);
    assert.deepEqual(bodyOf(await expecting(2)).runs, [{ partition: 0, offset: 2, count: 1 }]);
    assertRefused(await expecting(2), 409, "conflict", { expected: 2, found: 3 });
    assert.deepEqual(await logEndsOf(server, topic), [3]);
  },

  "of many that expect the same end lets one write": async (server) => {
    const topic = await newTopic(server);
    const body = { records: [{ value: 1 }], expect: [{ partition: 0, logEndOffset: 0 }] };
    const answers = await Promise.all(
      countFrom(0, 8).map(() => call(server, "POST", recordsPath(topic), body)),
    );
    const statuses = answers.map(({ status }) => status);
    assert.deepEqual(statuses.toSorted(), [200, ...Array(7).fill(409)]);
    assert.deepEqual(await logEndsOf(server, topic), [1]);
  },
});

/** Texts that JSON.parse and JSON.stringify would not give back. */
const TEXTS = [
  "2.0",
  "-0",
  "1E400",
  "12345678901234567890",
  "0.1000000000000000055511151231257827",
  '{"b":1,"a":2,"10":3,"9":4}',
  '{"a":1,"a":2}',
  '{"__proto__":{"x":1},"constructor":null}',
  '"\\u0000"',
  '"\\ud800"',
  '"\\u00e9 é \\/ 🌊"',
  '{ "a" : [ 1 ,\t2 ] }',
  '""',
  "[]",
  "true",
];

export const jsonText = checksOf("JSON byte for byte", {
  "a value comes back over HTTP as the text that was sent": async (server) => {
    const topic = await newTopic(server);
    const records = TEXTS.map((text) => `{"timestamp":1,"value":${text}}`).join(",");
    bodyOf(await call(server, "POST", recordsPath(topic), `{"records":[${records}]}`));
    const { text } = await call(server, "GET", partitionPath(topic));
    for (const [offset, value] of TEXTS.entries())
      assert.ok(text.includes(`{"offset":${offset},"timestamp":1,"value":${value}}`), `${value} in ${text}`);
  },

  "a value comes back over the socket as the text that was sent": async (server) => {
    const topic = await newTopic(server);
    using reader = await subscribe(server, { topics: [topic], from: "earliest" });
    const records = TEXTS.map((text) => `{"timestamp":1,"value":${text}}`).join(",");
    reader.socket.sendText(`{"type":"produce","id":1,"topic":"${topic}","records":[${records}]}`);
    const frames = [await reader.socket.next(), await reader.socket.next()];
    assert.deepEqual(frames.map(({ type }) => type).toSorted(), ["produced", "records"]);
    const { text } = await call(server, "GET", partitionPath(topic));
    const [, stored = ""] = /"records":\[(.*)\],"next"/s.exec(text) ?? [];
    assert.ok(stored.startsWith('{"offset":0,"timestamp":1,"value":2.0}'), stored);
    using late = await subscribe(server, { topics: [topic], from: "earliest" });
    await late.socket.expect("records");
    assert.ok(late.socket.text.includes(stored), `${stored} in ${late.socket.text}`);
    for (const value of TEXTS) assert.ok(late.socket.text.includes(`"value":${value}}`), value);
  },

  "a line of NDJSON comes back as it was sent": async (server) => {
    const topic = await newTopic(server);
    bodyOf(await call(server, "POST", recordsPath(topic), TEXTS.join("\n"), NDJSON));
    const { text } = await call(server, "GET", partitionPath(topic));
    for (const value of TEXTS) assert.ok(text.includes(`"value":${value}}`), `${value} in ${text}`);
  },

  "a value may be 128 deep and not 129": async (server) => {
    const topic = await newTopic(server);
    const deep = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;
    const send = (depth: number) =>
      call(server, "POST", recordsPath(topic), `{"records":[{"value":${deep(depth)}}]}`);
    assertRefused(await send(129), 400, "bad_request", { record: 0 });
    bodyOf(await send(128));
    const { text } = await call(server, "GET", partitionPath(topic));
    assert.ok(text.includes(`"value":${deep(128)}}`));
    assertRefused(await send(20_000), 400, "bad_request");
  },
});
