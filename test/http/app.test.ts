// The HTTP side over the real server: what each route answers, and how each refuses.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { join } from "node:path";
import { chunkedBody, sendRaw } from "../support/raw-http.ts";
import { startServer, type TestServer, temporaryFolder } from "../support/server.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";
import { StreamClient } from "../support/stream-client.ts";

const MIB = 1024 * 1024;
const BODY_BYTES_MAX = 4_000_000;
const BATCH_RECORDS_MAX = 10_000;
const NDJSON = { "content-type": "application/x-ndjson" };

const folder = temporaryFolder();
let server: TestServer;

beforeAll(async () => {
  server = await startServer(join(folder.path, "t.db"));
});
afterAll(async () => {
  await server.kill("SIGKILL");
  folder.remove();
});

let topicsMade = 0;

function newName(): string {
  topicsMade += 1;
  return `t${topicsMade}`;
}

/** A topic of its own for a test. */
async function newTopic(partitionCount = 1): Promise<string> {
  const topic = newName();
  expect((await put(topic, { partitionCount })).status).toBe(201);
  return topic;
}

function put(topic: string, settings?: unknown): Promise<Response> {
  const body = settings === undefined ? null : JSON.stringify(settings);
  return fetch(`${server.url}/v1/topics/${topic}`, { method: "PUT", body });
}

function get(path: string): Promise<Response> {
  return fetch(server.url + path);
}

type Body = string | Uint8Array<ArrayBuffer>;

function post(topic: string, body: Body, { query = "", headers = {} } = {}): Promise<Response> {
  return fetch(`${server.url}/v1/topics/${topic}/records${query}`, { method: "POST", body, headers });
}

function produce(topic: string, records: readonly unknown[]): Promise<Response> {
  return post(topic, JSON.stringify({ records }));
}

function produceLines(topic: string, body: Body, query = ""): Promise<Response> {
  return post(topic, body, { query, headers: NDJSON });
}

async function runsOf(answer: Promise<Response>): Promise<unknown> {
  const response = await answer;
  const body = (await response.json()) as { runs: unknown };
  expect({ status: response.status, body }).toEqual({ status: 200, body: { runs: expect.any(Array) } });
  return body.runs;
}

/** An error as it must be, whatever it is. */
async function problemOf(answer: Response | Promise<Response>): Promise<Record<string, unknown>> {
  const response = await answer;
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  const problem = (await response.json()) as Record<string, unknown>;
  expect(problem.status).toBe(response.status);
  expect(String(problem.detail).length).toBeGreaterThan(10);
  expect(typeof problem.code).toBe("string");
  expect(problem.retriable).toBe(false);
  expect(response.headers.get("retry-after")).toBeNull();
  return problem;
}

async function logEndsOf(topic: string): Promise<readonly number[]> {
  const { partitions } = (await (await get(`/v1/topics/${topic}`)).json()) as {
    partitions: { logEndOffset: number }[];
  };
  return partitions.map(({ logEndOffset }) => logEndOffset);
}

describe("health", () => {
  test("/healthz says that the process is alive", async () => {
    const response = await get("/healthz");
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("application/json");
    expect(await response.json()).toEqual({ status: "alive" });
  });

  test("/readyz says what the database promises", async () => {
    const response = await get("/readyz");
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({ status: "ready", durability: "fsync", schemaVersion: 7 });
  });
});

describe("PUT /v1/topics/:topic", () => {
  test("creates a topic with 201, and answers 200 when it is there", async () => {
    const created = await put("created", { partitionCount: 3 });
    expect(created.status).toBe(201);
    expect(created.headers.get("content-type")).toBe("application/json");
    const partition = { logStartOffset: 0, logEndOffset: 0, records: 0, bytes: 0 };
    const description = await created.json();
    expect(description).toEqual({
      topic: "created",
      topicId: expect.any(Number),
      partitionCount: 3,
      partitions: [0, 1, 2].map((number) => ({ partition: number, ...partition })),
      retention: null,
      cleanup: "delete",
      compaction: null,
      schema: null,
      createdAt: expect.any(Number),
    });
    for (const settings of [{ partitionCount: 3 }, {}, undefined]) {
      const again = await put("created", settings);
      expect({ status: again.status, body: await again.json() }).toEqual({ status: 200, body: description });
    }
  });

  test.each([
    ["no body", undefined],
    ["no settings", {}],
    ["partitionCount null", { partitionCount: null }],
  ])("gives one partition for %s", async (name, settings) => {
    const response = await put(`default-${name.replaceAll(" ", "-")}`, settings);
    expect(response.status).toBe(201);
    expect(await response.json()).toMatchObject({ partitionCount: 1 });
  });

  test("gives 1,024 partitions and refuses one more", async () => {
    expect(await (await put("partitions-1024", { partitionCount: 1_024 })).json()).toMatchObject({
      partitionCount: 1_024,
    });
    const problem = await problemOf(put("partitions-1025", { partitionCount: 1_025 }));
    expect(problem).toMatchObject({ status: 400, code: "bad_request" });
    expect(problem.detail).toContain('"partitionCount" must be an integer from 1 to 1024');
    expect((await get("/v1/topics/partitions-1025")).status).toBe(404);
  });

  test.each([[0], [-1], [1.5], [1e21], ["2"], [true], [[]], [{}]])(
    "refuses the partitionCount %j",
    async (partitionCount) => {
      const problem = await problemOf(put("bad-count", { partitionCount }));
      expect(problem).toMatchObject({ status: 400, code: "bad_request" });
      expect(problem.detail).toContain("partitionCount");
    },
  );

  test("refuses fewer partitions as a conflict, the default of null too", async () => {
    const topic = await newTopic(3);
    for (const [partitionCount, asked] of [
      [2, 2],
      [null, 1],
    ] as const) {
      const problem = await problemOf(put(topic, { partitionCount }));
      expect(problem).toMatchObject({ status: 409, code: "conflict", found: 3, asked });
    }
    expect(await (await get(`/v1/topics/${topic}`)).json()).toMatchObject({ partitionCount: 3 });
  });

  test.each([
    [{ retention: { ms: 1 } }],
    [{ retention: { bytes: Number.MAX_SAFE_INTEGER, records: 1 } }],
    [{ cleanup: "compact" }],
    [{ cleanup: "compact", compaction: { minLagMs: 0, tombstoneMs: 0 } }],
  ])("creates a topic with %j, and says so", async (settings) => {
    const topic = newName();
    const expected = { retention: null, cleanup: "delete", compaction: null, ...settings };
    const created = await put(topic, settings);
    expect(created.status).toBe(201);
    expect(await created.json()).toMatchObject(expected);
    expect(await (await get(`/v1/topics/${topic}`)).json()).toMatchObject(expected);
  });

  test("leaves what is absent as it is, member by member, and gives the default for null", async () => {
    const topic = newName();
    const after = async (settings: unknown) => {
      const found = (await (await put(topic, settings)).json()) as Record<string, unknown>;
      const { retention, cleanup, compaction } = found;
      return { retention, cleanup, compaction };
    };
    const compaction = { minLagMs: 5, tombstoneMs: 7 };
    await after({ retention: { ms: 1_000, bytes: 2_000 }, cleanup: "compact", compaction });
    const retention = { ms: 1_000, bytes: 2_000, records: 3 };
    const all = { retention, cleanup: "compact", compaction };
    expect(await after({ retention: { records: 3 } })).toEqual(all);
    expect(await after({ partitionCount: 2 })).toEqual(all);
    const fewer = { retention: { ms: null, records: null }, compaction: { minLagMs: null } };
    expect(await after(fewer)).toEqual({
      retention: { bytes: 2_000 },
      cleanup: "compact",
      compaction: { tombstoneMs: 7 },
    });
    const nothing = { retention: null, cleanup: null, compaction: null };
    expect(await after(nothing)).toEqual({ ...nothing, cleanup: "delete" });
  });

  test("changes nothing where it refuses fewer partitions", async () => {
    const topic = await newTopic(3);
    const settings = { partitionCount: 2, retention: { records: 1 }, cleanup: "compact", schema: true };
    expect((await put(topic, settings)).status).toBe(409);
    expect(await (await get(`/v1/topics/${topic}`)).json()).toMatchObject({
      retention: null,
      cleanup: "delete",
      schema: null,
    });
  });

  test.each([
    ["a member that nobody knows", '{"partitions":2}', 'there is no member "partitions"'],
    ["__proto__ as such a member", '{"__proto__":2}', "__proto__"],
    [
      "a member twice",
      '{"partitionCount":2,"partitionCount":3}',
      'the member "partitionCount" is there twice',
    ],
    ["an array", "[]", "one JSON object"],
    ["a number", "3", "one JSON object"],
    ["null", "null", "one JSON object"],
    ["half an object", "{", "one JSON object"],
    ["nesting too deep", `{"partitionCount":${"[".repeat(100_000)}${"]".repeat(100_000)}}`, "settings"],
  ])("refuses the settings that are %s", async (_, body, why) => {
    const problem = await problemOf(fetch(`${server.url}/v1/topics/refused`, { method: "PUT", body }));
    expect(problem).toMatchObject({ status: 400, code: "bad_request" });
    expect(problem.detail).toContain(why);
    expect(String(problem.detail).length).toBeLessThan(400);
    expect((await get("/v1/topics/refused")).status).toBe(404);
  });

  test("takes a description back, and null for the default", async () => {
    const topic = await newTopic(2);
    const settings = {
      partitionCount: 2,
      retention: null,
      cleanup: "delete",
      compaction: null,
      schema: null,
    };
    for (const body of [settings, { cleanup: null }]) {
      const response = await put(topic, body);
      expect(response.status).toBe(200);
      expect(await response.json()).toMatchObject({ topic, ...settings });
    }
  });

  test("refuses a parameter instead of passing over it", async () => {
    const problem = await problemOf(put("refused?partitionCount=4"));
    expect(problem).toMatchObject({ status: 400, code: "bad_request" });
    expect(problem.detail).toContain("partitionCount");
  });

  test("by many at once creates the topic once", async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => put("at-once", { partitionCount: 2 })),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([...Array(19).fill(200), 201]);
    const bodies = await Promise.all(answers.map((answer) => answer.text()));
    expect(new Set(bodies).size).toBe(1);
  });
});

describe("the name of a topic", () => {
  const LONGEST = "n".repeat(249);

  test("may have 249 characters, of letters, digits and . _ -", async () => {
    for (const name of [LONGEST, "a", "0", "...", "-", "_", "A.b_c-9", "..a"]) {
      expect({ name, status: (await put(name)).status }).toEqual({ name, status: 201 });
      expect(await (await get(`/v1/topics/${name}`)).json()).toMatchObject({ topic: name });
    }
  });

  test("is judged after percent-decoding", async () => {
    expect(await (await put("%64%65coded")).json()).toMatchObject({ topic: "decoded" });
    expect((await get("/v1/topics/decoded")).status).toBe(200);
  });

  test.each([
    `${LONGEST}n`,
    "a b",
    "a%20b",
    "a%2Fb",
    "a%00",
    "%C3%A4",
    "a%FF",
    "a%zz",
    "a%",
    "a:b",
    "a+b",
    "%F0%9F%90%9F",
  ])("is refused: %s", async (name) => {
    for (const request of [put(name), get(`/v1/topics/${name}`), produce(name, [{ value: 1 }])]) {
      const problem = await problemOf(request);
      expect(problem).toMatchObject({ status: 400, code: "bad_request" });
      expect(problem.detail).toContain("1 to 249 characters of A-Z a-z 0-9 . _ -");
      expect(String(problem.detail).length).toBeLessThan(300);
    }
  });

  test.each([".", "..", "%2e", "%2E%2e", ".%2e"])("is never %s, however it is written", async (name) => {
    for (const [method, suffix] of [
      ["PUT", ""],
      ["GET", ""],
      ["POST", "/records"],
    ]) {
      const answer = await sendRaw(server.url, [
        `${method} /v1/topics/${name}${suffix} HTTP/1.1`,
        "Content-Length: 0",
      ]);
      expect({ method, isRefused: [400, 404, 405].includes(answer.status) }).toEqual({
        method,
        isRefused: true,
      });
      expect(answer.headers.get("content-type")).toBe("application/problem+json");
    }
    const { topics } = (await (await get("/v1/topics")).json()) as { topics: { topic: string }[] };
    expect(topics.filter(({ topic }) => [".", "..", ""].includes(topic))).toEqual([]);
  });
});

describe("GET /v1/topics", () => {
  test("lists topics by name", async () => {
    await put("list-b", { partitionCount: 2 });
    await put("list-a");
    const response = await get("/v1/topics");
    expect(response.status).toBe(200);
    const { topics } = (await response.json()) as { topics: { topic: string }[] };
    expect(topics.filter(({ topic }) => topic.startsWith("list-"))).toEqual([
      { topic: "list-a", topicId: expect.any(Number), partitionCount: 1 },
      { topic: "list-b", topicId: expect.any(Number), partitionCount: 2 },
    ] as never);
    const names = topics.map(({ topic }) => topic);
    expect(names).toEqual([...names].sort());
  });

  test("/:topic counts what was appended", async () => {
    const topic = await newTopic(2);
    const record = { key: "é", headers: { a: "b" }, value: "x", partition: 1 }; // 2 + 9 + 3 bytes
    await produce(topic, [record, record]);
    const { partitions } = (await (await get(`/v1/topics/${topic}`)).json()) as { partitions: unknown };
    expect(partitions).toEqual([
      { partition: 0, logStartOffset: 0, logEndOffset: 0, records: 0, bytes: 0 },
      { partition: 1, logStartOffset: 0, logEndOffset: 2, records: 2, bytes: 28 },
    ]);
  });

  test("/:topic of a topic that is not there is unknown_topic, and creates none", async () => {
    const problem = await problemOf(get("/v1/topics/nowhere"));
    expect(problem).toMatchObject({ status: 404, code: "unknown_topic", topic: "nowhere" });
    expect((await get("/v1/topics/nowhere")).status).toBe(404);
  });
});

describe("POST …/records takes", () => {
  test("records as JSON, whatever the content type", async () => {
    const topic = await newTopic();
    const body = '{"records":[{"value":1}]}';
    const types = [
      undefined,
      "application/json",
      "text/plain",
      "application/x-www-form-urlencoded",
      "application/json; charset=utf-8",
    ];
    for (const [offset, type] of types.entries()) {
      const headers = type === undefined ? {} : { "content-type": type };
      expect(await runsOf(post(topic, body, { headers }))).toEqual([{ partition: 0, offset, count: 1 }]);
    }
  });

  test.each([
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "Application/X-NDJSON ; charset=utf-8",
  ])("values as lines of %s", async (type) => {
    const topic = await newTopic();
    const answer = post(topic, '{"n":1}\r\n\r\n  2\n"three"', { headers: { "content-type": type } });
    expect(await runsOf(answer)).toEqual([{ partition: 0, offset: 0, count: 3 }]);
  });

  test("a key from each line by ?key=: a string as it is, a number or boolean by its text, else none", async () => {
    const topic = await newTopic();
    const ids = ['"u1"', "2.0", "1E400", "12345678901234567890", "true", "null", '"\\u00e9\\n"', '""'];
    const lines = [...ids.map((id) => `{"a/b":[{"id":${id}}]}`), "{}", "7", '{"a/b":{"0":{"id":"o"}}}'];
    await runsOf(produceLines(topic, lines.join("\n"), "?key=/a~1b/0/id"));
    const keys = stockSqlite(
      server.databasePath,
      `SELECT json_group_array(key) FROM (SELECT key FROM topic_records WHERE topic = '${topic}' ORDER BY offset)`,
    );
    expect(JSON.parse(keys)).toEqual([
      "u1",
      "2.0",
      "1E400",
      "12345678901234567890",
      "true",
      null,
      "é\n",
      "",
      null,
      null,
      "o",
    ]);
  });

  test("a byte order mark in front, which is part of no value", async () => {
    const topic = await newTopic();
    await runsOf(post(topic, '\ufeff{"records":[{"value":1}]}'));
    await runsOf(produceLines(topic, "\ufeff2\n3"));
    const values = stockSqlite(
      server.databasePath,
      `SELECT value FROM topic_records WHERE topic = '${topic}'`,
    );
    expect(values).toBe("1\n2\n3");
  });

  test("a timestamp of the producer's, and gives its own time else", async () => {
    const topic = await newTopic();
    const startedAtMs = Date.now() - 1_000;
    await produce(topic, [
      { value: 1, timestamp: 0 },
      { value: 2, timestamp: 9_007_199_254_740_991 },
      { value: 3 },
    ]);
    const client = await StreamClient.open(`${server.streamUrl}?topic=${topic}&group=${topic}`);
    await client.expect("subscribed");
    await client.expect("assigned");
    const [first, second, third] = (await client.expect("records")).records;
    expect([first?.timestamp, second?.timestamp]).toEqual([0, 9_007_199_254_740_991]);
    expect(third?.timestamp).toBeGreaterThan(startedAtMs);
    expect(third?.timestamp).toBeLessThan(Date.now() + 1_000);
    await client.close();
  });

  test("many produces at once, each record at an offset of its own", async () => {
    const topic = await newTopic();
    const runs = await Promise.all(
      Array.from({ length: 200 }, (_, n) => runsOf(produce(topic, [{ value: n }, { value: n }]))),
    );
    const offsets = (runs as { offset: number; count: number }[][]).map(([run]) => run?.offset ?? -1);
    expect(offsets.sort((a, b) => a - b)).toEqual(Array.from({ length: 200 }, (_, n) => 2 * n));
    const pairs = `SELECT count(*) FROM topic_records AS a JOIN topic_records AS b USING (topic, value)
      WHERE topic = '${topic}' AND a.offset % 2 = 0 AND b.offset = a.offset + 1`;
    expect(stockSqlite(server.databasePath, pairs)).toBe("200");
  });
});

describe("POST …/records with bytes", () => {
  const EVERY_BYTE = Uint8Array.from({ length: 256 }, (_, byte) => byte).toBase64();

  async function deliveredFrom(topic: string, query = ""): Promise<readonly unknown[]> {
    const response = await get(`/v1/topics/${topic}/partitions/0/records${query}`);
    expect(response.status).toBe(200);
    return ((await response.json()) as { records: unknown[] }).records;
  }

  test("gives them back over HTTP as base64, among values, and keeps them as BLOBs", async () => {
    const topic = await newTopic();
    const [first, ...others] = [
      { key: "k", headers: { h: "1" }, timestamp: 1, bytes: EVERY_BYTE },
      { timestamp: 2, value: { a: [1] } },
      { timestamp: 3, bytes: "" },
      { timestamp: 4, value: null },
      { timestamp: 5, bytes: "gID/" },
    ];
    expect(await runsOf(produce(topic, [first]))).toEqual([{ partition: 0, offset: 0, count: 1 }]);
    expect(await runsOf(produce(topic, others))).toEqual([{ partition: 0, offset: 1, count: 4 }]);
    expect(await deliveredFrom(topic)).toEqual(
      [first, ...others].map((record, offset) => ({ offset, ...record })),
    );
    expect(await deliveredFrom(topic, "?from=1&limit=1")).toEqual([{ offset: 1, ...others[0] }]);
    const stored = `SELECT typeof(value), hex(value) FROM topic_records WHERE topic = '${topic}' AND offset > 0`;
    expect(stockSqlite(server.databasePath, `${stored} ORDER BY offset`)).toBe(
      "text|7B2261223A5B315D7D\nblob|\ntext|6E756C6C\nblob|8080FF",
    );
  });

  test("gives back the largest that is allowed, and refuses one byte more", async () => {
    const topic = await newTopic();
    const bytes = (length: number) => new Uint8Array(length).fill(0xfe).toBase64();
    const problem = await problemOf(produce(topic, [{ bytes: bytes(MIB + 1) }]));
    expect(problem).toMatchObject({ status: 413, code: "record_too_large", found: MIB + 1, allowed: MIB });
    await runsOf(produce(topic, [{ timestamp: 1, bytes: bytes(MIB) }]));
    const [delivered] = await deliveredFrom(topic, "?maxBytes=1");
    expect(Bun.deepEquals(delivered, { offset: 0, timestamp: 1, bytes: bytes(MIB) })).toBe(true);
  });
});

describe("POST …/records keeps byte for byte", () => {
  const VALUES = [
    "2.0",
    "-0",
    "0.10",
    "1E400",
    "1e-400",
    "12345678901234567890",
    "-0.00000000000000000000000000000000000001",
    '{"a":1,"a":2,"a":{"b":1,"b":2}}',
    '{"__proto__":{"x":1},"constructor":null,"":0}',
    '"\\ud800"',
    '{"\\udc00\\ud800":"\\ud83d"}',
    '"\\u0000"',
    '{"z":1,"a":2,"10":3,"9":4}',
    '{ "spaced" :\t[ 1 ,\r2 ] }',
    '"\\u00e9\\/\\"\\\\\\b"',
    '"é😀\u2028\u2029\u007f\u0085\ufeff"',
    '"<script>]}],\\"next\\":7"',
    "null",
    "true",
    '""',
    "{}",
    "[]",
    `${"[".repeat(128)}${"]".repeat(128)}`,
    `"${"x".repeat(300_000)}"`,
  ];

  const hexOf = (text: string) => Buffer.from(text).toString("hex").toUpperCase();

  /** In the texts of the frames. */
  async function expectDelivered(topic: string, expectedRecords: readonly string[]): Promise<void> {
    const client = await StreamClient.open(`${server.streamUrl}?topic=${topic}&group=${topic}`);
    await client.expect("subscribed");
    const generation = (await client.expect("assigned")).partitions[0]?.generation;
    const head = `{"type":"records","subscription":"default","generation":${generation},"topic":"${topic}","partition":0,"records":[`;
    const chunks: string[] = [];
    for (let next = 0; next < expectedRecords.length; ) {
      const text = await client.nextText();
      if (JSON.parse(text).type === "acked") continue;
      next = JSON.parse(text).next;
      const tail = `],"next":${next},"logEndOffset":${expectedRecords.length}}`;
      expect(text).toStartWith(head);
      expect(text).toEndWith(tail);
      chunks.push(text.slice(head.length, text.length - tail.length));
      client.send({ type: "ack", offsets: [{ topic, partition: 0, generation, offset: next }] });
    }
    // One long string would be unreadable where they differ.
    const split = (text: string) => text.split(/(?<=\}),(?=\{"offset":\d+,"timestamp":)/);
    expect(split(chunks.join(","))).toEqual(split(expectedRecords.join(",")));
    await client.close();
  }

  /** In the file, as stock SQLite reads it. */
  function expectStored(topic: string, values: readonly string[]): void {
    const sql = `SELECT hex(value) FROM topic_records WHERE topic = '${topic}' ORDER BY offset`;
    expect(stockSqlite(server.databasePath, sql).split("\n")).toEqual(values.map(hexOf));
  }

  test("the values of a JSON body", async () => {
    const topic = await newTopic();
    const records = VALUES.map((value, n) => `{ "timestamp":${n} , "value" : ${value}\n}`);
    await runsOf(post(topic, `{"records":[${records.join(", ")}]}`));
    await expectDelivered(
      topic,
      VALUES.map((value, n) => `{"offset":${n},"timestamp":${n},"value":${value}}`),
    );
    expectStored(topic, VALUES);
  });

  test("the values of NDJSON lines", async () => {
    const topic = await newTopic();
    await runsOf(produceLines(topic, VALUES.map((value) => ` ${value}\t`).join("\r\n")));
    expectStored(topic, VALUES);
    const times = stockSqlite(
      server.databasePath,
      `SELECT DISTINCT CAST(round((julianday(timestamp) - 2440587.5) * 86400000.0) AS INTEGER)
       FROM topic_records WHERE topic = '${topic}'`,
    );
    await expectDelivered(
      topic,
      VALUES.map((value, n) => `{"offset":${n},"timestamp":${times},"value":${value}}`),
    );
  });

  test("headers, and every key as the same text", async () => {
    const topic = await newTopic();
    const keys = [
      "",
      "u1",
      'quote " backslash \\',
      "control \u0001\n\u001f",
      "é😀\u2028\u{10ffff}\ufffe",
      "{}",
      "null",
    ];
    const headers = '{ "z":"1", "a" : "\\u00e9\\n", "__proto__":"p", "10":"" }';
    const records = keys.map(
      (key, n) => `{"timestamp":${n},"key":${JSON.stringify(key)},"headers":${headers},"value":0}`,
    );
    await runsOf(post(topic, `{"records":[${records}]}`));
    const client = await StreamClient.open(`${server.streamUrl}?topic=${topic}&group=${topic}`);
    await client.expect("subscribed");
    await client.expect("assigned");
    const text = await client.nextText();
    expect(text.split(`"headers":${headers},"value":0`)).toHaveLength(keys.length + 1);
    expect(JSON.parse(text).records.map(({ key }: { key: string }) => key)).toEqual(keys);
    const sql = `SELECT hex(key), hex(headers) FROM topic_records WHERE topic = '${topic}' ORDER BY offset`;
    expect(stockSqlite(server.databasePath, sql).split("\n")).toEqual(
      keys.map((key) => `${hexOf(key)}|${hexOf(headers)}`),
    );
    await client.close();
  });

  test("without what is absent: no key for null, no headers for {}", async () => {
    const topic = await newTopic();
    await runsOf(post(topic, '{"records":[{"key":null,"headers":{},"value":null,"timestamp":5}]}'));
    await expectDelivered(topic, ['{"offset":0,"timestamp":5,"value":null}']);
  });
});

describe("POST …/records gives each record its partition:", () => {
  // Kafka's own: toPositive(murmur2(key)) % n.
  const HASHES = [
    ["21", -973_932_308],
    ["foobar", -790_332_482],
    ["abc", 479_470_107],
  ] as const;

  test.each([1, 2, 3, 7, 1_000])("a key's murmur2 among %i", async (partitionCount) => {
    const topic = await newTopic(partitionCount);
    for (const [key, hash] of HASHES) {
      const partition = (hash & 0x7fffffff) % partitionCount;
      expect(await runsOf(produce(topic, [{ key, value: 1 }]))).toMatchObject([{ partition, count: 1 }]);
      const line = JSON.stringify({ key });
      expect(await runsOf(produceLines(topic, line, "?key=/key"))).toMatchObject([{ partition, count: 1 }]);
    }
  });

  test("the record's own before its key's", async () => {
    const topic = await newTopic(7);
    const records = HASHES.map(([key]) => ({ key, value: 1, partition: 6 }));
    expect(await runsOf(produce(topic, records))).toEqual([{ partition: 6, offset: 0, count: 3 }]);
  });

  test("one for all keyless records of a batch, and not always the same", async () => {
    const topic = await newTopic(8);
    const used = new Set<unknown>();
    for (let batch = 0; batch < 40; batch += 1) {
      const runs = await runsOf(produce(topic, [{ value: 1 }, { value: 2, key: null }, { value: 3 }]));
      expect(runs).toMatchObject([{ count: 3 }]);
      used.add((runs as { partition: number }[])[0]?.partition);
    }
    expect(used.size).toBeGreaterThan(1);
    expect(await runsOf(produceLines(topic, "1\n2\n3\n"))).toMatchObject([{ count: 3 }]);
  });

  test("one that a new topic would not have either creates no topic", async () => {
    const problem = await problemOf(produce("never-made", [{ value: 1, partition: 7 }]));
    expect(problem).toMatchObject({ status: 404, code: "unknown_partition" });
    expect((await get("/v1/topics/never-made")).status).toBe(404);
  });

  test("runs are folded in the order of the request", async () => {
    const topic = await newTopic(3);
    const partitions = [0, 0, 1, 0, 2, 2, 2, 0, 1, 1];
    const records = partitions.map((partition, value) => ({ partition, value }));
    expect(await runsOf(produce(topic, records))).toEqual([
      { partition: 0, offset: 0, count: 2 },
      { partition: 1, offset: 0, count: 1 },
      { partition: 0, offset: 2, count: 1 },
      { partition: 2, offset: 0, count: 3 },
      { partition: 0, offset: 3, count: 1 },
      { partition: 1, offset: 1, count: 2 },
    ]);
    const sql = `SELECT group_concat(partition || ':' || offset || '=' || value, ' ')
      FROM (SELECT * FROM topic_records WHERE topic = '${topic}' ORDER BY partition, offset)`;
    expect(stockSqlite(server.databasePath, sql)).toBe(
      "0:0=0 0:1=1 0:2=3 0:3=7 1:0=2 1:1=8 1:2=9 2:0=4 2:1=5 2:2=6",
    );
  });

  test("one that the topic has not is unknown_partition, and nothing of the batch is written", async () => {
    const topic = await newTopic(2);
    const records = [
      { partition: 0, value: 1 },
      { partition: 1, value: 1 },
      { partition: 2, value: 1 },
    ];
    const problem = await problemOf(produce(topic, records));
    expect(problem).toMatchObject({
      status: 404,
      code: "unknown_partition",
      record: 2,
      partition: 2,
      partitionCount: 2,
    });
    expect(await logEndsOf(topic)).toEqual([0, 0]);
  });
});

describe("POST …/records refuses, and writes nothing:", () => {
  async function expectRefused(
    request: (topic: string) => Response | Promise<Response>,
    expected: Record<string, unknown>,
  ): Promise<void> {
    const topic = await newTopic(2);
    expect(await problemOf(request(topic))).toMatchObject(expected);
    expect(await logEndsOf(topic)).toEqual([0, 0]);
  }

  const contains = (text: string) => expect.stringContaining(text);

  const BODIES: readonly [name: string, body: Body, facts: Record<string, unknown>][] = [
    ["an empty body", "", { found: "text that is not JSON" }],
    ["white space", " \n", { found: "text that is not JSON" }],
    ["a byte order mark alone", "\ufeff", { found: "text that is not JSON" }],
    ["two byte order marks", '\ufeff\ufeff{"records":[{"value":1}]}', { found: "text that is not JSON" }],
    ["half a body", '{"records":[{"value":1}', { found: "text that is not JSON" }],
    ["two bodies", '{"records":[{"value":1}]}{}', { found: "text that is not JSON" }],
    ["an array", '[{"value":1}]', { found: "array" }],
    ["no records", "{}", { found: 'no "records"' }],
    ["empty records", '{"records":[]}', { found: "empty array" }],
    [
      "records twice",
      '{"records":[{"value":1}],"records":[{"value":1}]}',
      { detail: contains('"records" twice') },
    ],
    ["an unknown member", '{"records":[{"value":1}],"acks":1}', { detail: contains('"acks"') }],
    [
      "an unknown member of a record",
      '{"records":[{"value":1},{"value":1,"offset":1}]}',
      { record: 1, detail: contains('"offset"') },
    ],
    [
      "a member of a record twice",
      '{"records":[{"value":1,"value":2}]}',
      { record: 0, detail: contains('"value" twice') },
    ],
    [
      "neither value nor bytes",
      '{"records":[{"key":"u"}]}',
      { record: 0, detail: contains('neither "value" nor "bytes"') },
    ],
    [
      "both value and bytes",
      '{"records":[{"value":1,"bytes":""}]}',
      { record: 0, detail: contains('both "value" and "bytes"') },
    ],
    [
      "bytes that are no string",
      '{"records":[{"bytes":[1]}]}',
      { record: 0, found: "array", detail: contains("records[0].bytes") },
    ],
    [
      "bytes that are not base64",
      '{"records":[{"value":1},{"bytes":"AA=A"}]}',
      { record: 1, found: '"AA=A"', detail: contains("records[1].bytes") },
    ],
    [
      "a producer without its id",
      '{"records":[{"value":1}],"producer":{}}',
      { detail: contains('"producer.id"') },
    ],
    ["an empty expect", '{"records":[{"value":1}],"expect":[]}', { detail: contains('"expect"') }],
    ["a number as a key", '{"records":[{"value":1,"key":7}]}', { record: 0, found: "number" }],
    [
      "a lone surrogate in a key",
      '{"records":[{"value":1,"key":"\\ud800"}]}',
      { record: 0, found: "lone surrogate" },
    ],
    ["NUL in a key", '{"records":[{"value":1,"key":"a\\u0000"}]}', { record: 0, found: "NUL" }],
    [
      "a lone surrogate in a header",
      '{"records":[{"value":1,"headers":{"a":"\\udfff"}}]}',
      { record: 0, found: "lone surrogate" },
    ],
    [
      "NUL in a header's name",
      '{"records":[{"value":1,"headers":{"\\u0000":"a"}}]}',
      { record: 0, found: "NUL" },
    ],
    [
      "a header twice",
      '{"records":[{"value":1,"headers":{"a":"1","\\u0061":"2"}}]}',
      { record: 0, detail: contains('"a" twice') },
    ],
    ["a number as a header", '{"records":[{"value":1,"headers":{"a":1}}]}', { record: 0, found: "number" }],
    ["a negative timestamp", '{"records":[{"value":1,"timestamp":-1}]}', { record: 0, found: "-1" }],
    ["a fraction as a partition", '{"records":[{"value":1,"partition":0.5}]}', { record: 0, found: "0.5" }],
    ["a timestamp of 2^53", '{"records":[{"value":1,"timestamp":9007199254740992}]}', { record: 0 }],
    [
      "a value 129 deep",
      `{"records":[{"value":${"[".repeat(129)}${"]".repeat(129)}}]}`,
      { record: 0, found: 129, allowed: 128 },
    ],
  ];

  test.each(BODIES)("%s", async (_, body, facts) => {
    await expectRefused((topic) => post(topic, body), { status: 400, code: "bad_request", ...facts });
  });

  const BAD_UTF8: readonly [name: string, bytes: readonly number[]][] = [
    ["a stray continuation byte", [0x80]],
    ["half a character", [0xc3]],
    ["an overlong slash", [0xc0, 0xaf]],
    ["a surrogate", [0xed, 0xa0, 0x80]],
    ["a code point too high", [0xf4, 0x90, 0x80, 0x80]],
    ["Latin-1", [0xe9]],
  ];

  test.each(BAD_UTF8)("%s, which is not UTF-8", async (_, bytes) => {
    const around = (before: string, after: string) =>
      new Uint8Array([...Buffer.from(before), ...bytes, ...Buffer.from(after)]);
    const expected = { status: 400, code: "bad_request", detail: contains("UTF-8") };
    await expectRefused((topic) => post(topic, around('{"records":[{"value":"', '"}]}')), expected);
    await expectRefused((topic) => produceLines(topic, around('1\n"', '"\n')), expected);
  });

  test("UTF-16 with its byte order mark", async () => {
    const body = new Uint8Array(Buffer.from('\ufeff{"records":[{"value":1}]}', "utf16le"));
    await expectRefused((topic) => post(topic, body), {
      status: 400,
      code: "bad_request",
      detail: contains("UTF-8"),
    });
  });

  test.each([
    ["no line", "", {}],
    ["blank lines", "\r\n \n\t\n", {}],
    ["a line that is not JSON", "1\n2\n{\n4", { line: 3 }],
    ["a line with two values", "1\n\n2 3", { line: 3 }],
    ["a value over two lines", "[1,\n2]", { line: 1 }],
    ["a line 129 deep", `1\n${"[".repeat(129)}${"]".repeat(129)}`, { line: 2, found: 129, allowed: 128 }],
  ])("%s of NDJSON", async (_, body, facts) => {
    await expectRefused((topic) => produceLines(topic, body), { status: 400, code: "bad_request", ...facts });
  });

  test("NDJSON with a bad line 4,000, by its number", async () => {
    const lines = Array.from({ length: 5_000 }, (_, n) => JSON.stringify({ n }));
    lines[3_999] = '{"n":3999';
    await expectRefused((topic) => produceLines(topic, lines.join("\n"), "?key=/n"), {
      status: 400,
      code: "bad_request",
      line: 4_000,
      detail: contains("line 4000"),
    });
  });

  test("a key that is an object or an array, by its line", async () => {
    for (const [found, id] of [
      ["object", "{}"],
      ["array", "[1]"],
    ]) {
      await expectRefused((topic) => produceLines(topic, `{"id":1}\n{"id":${id}}`, "?key=/id"), {
        code: "bad_request",
        line: 2,
        found,
      });
    }
  });

  test("a lone surrogate or NUL as the key of a line", async () => {
    for (const id of ['"\\ud800"', '"\\u0000"'])
      await expectRefused((topic) => produceLines(topic, `{"id":${id}}`, "?key=/id"), {
        code: "bad_request",
        line: 1,
      });
  });

  test.each(["id", "/a~", "/a~2", "a/b"])("?key=%s, which is not a JSON pointer", async (pointer) => {
    await expectRefused((topic) => produceLines(topic, "1", `?key=${pointer}`), {
      status: 400,
      code: "bad_request",
      detail: contains("JSON pointer"),
    });
  });

  test("?key= with JSON, and says what it goes with", async () => {
    await expectRefused((topic) => post(topic, '{"records":[{"value":1}]}', { query: "?key=/id" }), {
      status: 400,
      code: "bad_request",
      detail: contains("application/x-ndjson"),
    });
  });

  test("?key= twice", async () => {
    await expectRefused((topic) => produceLines(topic, '{"a":1,"b":2}', "?key=/a&key=/b"), {
      status: 400,
      code: "bad_request",
      detail: contains('"key"'),
    });
  });

  test.each(["?keys=/id", "?partition=1", "?Key=/id", "?key=/id&x=1"])(
    "the unknown parameter of %s",
    async (query) => {
      for (const request of [
        (topic: string) => post(topic, '{"records":[{"value":1}]}', { query }),
        (topic: string) => produceLines(topic, "1", query),
      ])
        await expectRefused(request, { status: 400, code: "bad_request", detail: contains("parameter") });
    },
  );
});

describe("a limit of POST …/records:", () => {
  /** That many bytes: one batch of records, or spaces behind it. */
  function bodyOf(bytes: number): Uint8Array<ArrayBuffer> {
    const value = JSON.stringify("é".repeat(400_000));
    const body = JSON.stringify({ records: Array.from({ length: 4 }, () => ({ value: JSON.parse(value) })) });
    return new Uint8Array(Buffer.from(body + " ".repeat(bytes - Buffer.byteLength(body))));
  }

  const WAYS: readonly [
    name: string,
    send: (
      topic: string,
      body: Uint8Array<ArrayBuffer>,
    ) => Promise<{ status: number; body: string; type: string | null }>,
  ][] = [
    [
      "with a content-length",
      async (topic, body) => {
        const response = await post(topic, body);
        return {
          status: response.status,
          body: await response.text(),
          type: response.headers.get("content-type"),
        };
      },
    ],
    ["in small chunks", (topic, body) => sendChunked(topic, body, 10_000)],
    ["in one chunk", (topic, body) => sendChunked(topic, body, 5_000_000)],
  ];

  async function sendChunked(topic: string, body: Uint8Array, chunkBytes: number) {
    const head = [`POST /v1/topics/${topic}/records HTTP/1.1`, "Transfer-Encoding: chunked"];
    const answer = await sendRaw(server.url, head, chunkedBody(body, chunkBytes));
    return { ...answer, type: answer.headers.get("content-type") };
  }

  test.each(WAYS)("a body of 4,000,000 bytes is taken %s, one byte more is not", async (_, send) => {
    const topic = await newTopic();
    expect(await send(topic, bodyOf(BODY_BYTES_MAX))).toMatchObject({
      status: 200,
      body: '{"runs":[{"partition":0,"offset":0,"count":4}]}',
    });
    const refused = await send(topic, bodyOf(BODY_BYTES_MAX + 1));
    expect(refused).toMatchObject({ status: 413, type: "application/problem+json" });
    expect(JSON.parse(refused.body)).toMatchObject({
      code: "batch_too_large",
      allowed: BODY_BYTES_MAX,
      retriable: false,
    });
    expect(JSON.parse(refused.body).found).toBeGreaterThan(BODY_BYTES_MAX);
    expect(await logEndsOf(topic)).toEqual([4]);
  });

  test.each([5 * MIB, 100 * MIB, 10_000 * MIB])(
    "an announced length of %i is refused before it is sent",
    async (length) => {
      const head = ["POST /v1/topics/announced/records HTTP/1.1", `Content-Length: ${length}`];
      const answer = await sendRaw(server.url, head, "{");
      expect(answer).toMatchObject({ status: 413 });
      expect(answer.headers.get("content-type")).toBe("application/problem+json");
      expect(JSON.parse(answer.body)).toMatchObject({
        code: "batch_too_large",
        found: length,
        allowed: BODY_BYTES_MAX,
      });
    },
  );

  test("settings have the same limit", async () => {
    const answer = await problemOf(
      fetch(`${server.url}/v1/topics/large`, { method: "PUT", body: bodyOf(BODY_BYTES_MAX + 1) }),
    );
    expect(answer).toMatchObject({ status: 413, code: "batch_too_large" });
  });

  test("10,000 records, and one more is refused", async () => {
    const topic = await newTopic();
    const values = Array.from({ length: BATCH_RECORDS_MAX }, (_, n) => n);
    const records = values.map((value) => ({ value }));
    expect(await runsOf(produce(topic, records))).toEqual([{ partition: 0, offset: 0, count: 10_000 }]);
    expect(await runsOf(produceLines(topic, values.join("\n")))).toEqual([
      { partition: 0, offset: 10_000, count: 10_000 },
    ]);
    const facts = { status: 413, code: "batch_too_large", found: 10_001, allowed: 10_000 };
    expect(await problemOf(produce(topic, [...records, { value: 1 }]))).toMatchObject({
      ...facts,
      record: 10_000,
    });
    expect(await problemOf(produceLines(topic, [...values, 1].join("\n")))).toMatchObject({
      ...facts,
      line: 10_001,
    });
    expect(await logEndsOf(topic)).toEqual([20_000]);
  });

  test("a record of 1 MiB, counted as key, headers and value in UTF-8, and a byte more is refused", async () => {
    const topic = await newTopic();
    const headers = { h: "1" }; // 9 bytes
    const key = "éé"; // 4 bytes
    const valueOfBytes = (bytes: number) =>
      `${"é".repeat(Math.floor((bytes - 2) / 2))}${bytes % 2 === 1 ? "x" : ""}`;
    const facts = { status: 413, code: "record_too_large", found: MIB + 1, allowed: MIB };
    const secondRecord = { ...facts, record: 1 };
    expect(await runsOf(produce(topic, [{ value: valueOfBytes(MIB) }]))).toMatchObject([{ count: 1 }]);
    expect(await runsOf(produce(topic, [{ key, headers, value: valueOfBytes(MIB - 13) }]))).toMatchObject([
      { count: 1 },
    ]);
    expect(await problemOf(produce(topic, [{ value: 1 }, { value: valueOfBytes(MIB + 1) }]))).toMatchObject(
      secondRecord,
    );
    expect(
      await problemOf(produce(topic, [{ value: 1 }, { key, headers, value: valueOfBytes(MIB - 12) }])),
    ).toMatchObject(secondRecord);
    expect(await runsOf(produceLines(topic, JSON.stringify(valueOfBytes(MIB))))).toMatchObject([
      { count: 1 },
    ]);
    const lines = `1\n${JSON.stringify(valueOfBytes(MIB + 1))}`;
    expect(await problemOf(produceLines(topic, lines))).toMatchObject({ ...facts, line: 2 });
    expect(await logEndsOf(topic)).toEqual([3]);
    const { partitions } = (await (await get(`/v1/topics/${topic}`)).json()) as {
      partitions: { bytes: number }[];
    };
    expect(partitions[0]?.bytes).toBe(3 * MIB);
  });

  test("a key of 32 KiB, and a byte more is refused", async () => {
    const topic = await newTopic();
    const key = "é".repeat(16 * 1024);
    expect(await runsOf(produce(topic, [{ key, value: 1 }]))).toMatchObject([{ count: 1 }]);
    expect(await problemOf(produce(topic, [{ key: `${key}x`, value: 1 }]))).toMatchObject({
      status: 413,
      code: "record_too_large",
      found: 32 * 1024 + 1,
      allowed: 32 * 1024,
    });
  });

  test("64 headers of 16 KiB, and one header or byte more is refused", async () => {
    const topic = await newTopic();
    const headersOf = (count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, n) => [`h${n}`, ""]));
    const sized = (bytes: number) => ({ h: "x".repeat(bytes - '{"h":""}'.length) });
    expect(await runsOf(produce(topic, [{ headers: headersOf(64), value: 1 }]))).toMatchObject([
      { count: 1 },
    ]);
    expect(await runsOf(produce(topic, [{ headers: sized(16 * 1024), value: 1 }]))).toMatchObject([
      { count: 1 },
    ]);
    for (const [headers, found] of [
      [headersOf(65), 65],
      [sized(16 * 1024 + 1), 16 * 1024 + 1],
    ] as const) {
      expect(await problemOf(produce(topic, [{ headers, value: 1 }]))).toMatchObject({
        status: 413,
        code: "record_too_large",
        found,
      });
    }
  });
});

describe("a path", () => {
  test.each([
    "/v1",
    "/v1/",
    "/v1/topics/",
    "/v1/topic",
    "/v2/topics",
    "/v1/topics/a/records/1",
    "/v1/topics//records",
    "/favicon.ico",
  ])("that is no route is 404: %s", async (path) => {
    for (const method of ["GET", "POST", "PUT", "DELETE", "PATCH"]) {
      const problem = await problemOf(fetch(server.url + path, { method }));
      expect(problem).toMatchObject({ status: 404, code: "bad_request" });
      expect(problem.detail).toContain(`${method} ${path}`);
    }
  });

  test("that is very long is quoted in part", async () => {
    const problem = await problemOf(get(`/${"x".repeat(10_000)}`));
    expect(problem.status).toBe(404);
    expect(String(problem.detail).length).toBeLessThan(400);
  });

  test.each([
    ["POST", "/v1/topics", "GET"],
    ["DELETE", "/v1/topics", "GET"],
    ["POST", "/v1/topics/orders", "GET, PUT, DELETE"],
    ["GET", "/v1/topics/orders/records", "POST"],
    ["PUT", "/v1/topics/orders/records", "POST"],
    ["POST", "/v1/stream", "GET"],
    ["PUT", "/healthz", "GET"],
    ["DELETE", "/readyz", "GET"],
    ["PATCH", "/v1/transactions", "POST"],
  ])("does not take %s %s: 405, and Allow names what it takes", async (method, path, allow) => {
    const response = await fetch(server.url + path, { method });
    expect(response.status).toBe(405);
    const allowed = response.headers.get("allow")?.split(", ") ?? [];
    expect(allowed).toEqual(expect.arrayContaining(allow.split(", ")));
    expect(allowed).not.toContain(method);
    expect(await problemOf(response)).toMatchObject({ code: "bad_request", allowed });
  });

  test.each([
    ["GET", "/metrics", "/metrics"],
    ["GET", "/", "/"],
  ])("of a later version is refused by name: %s %s", async (method, path, route) => {
    const problem = await problemOf(fetch(server.url + path, { method }));
    expect(problem).toMatchObject({ status: 501, detail: `${method} ${route} is not built yet` });
  });

  test("answers HEAD as GET, without the body", async () => {
    for (const [path, status] of [
      ["/healthz", 200],
      ["/v1/topics", 200],
      ["/v1/topics/nowhere", 404],
      ["/nothing", 404],
    ] as const) {
      const response = await fetch(server.url + path, { method: "HEAD" });
      const whole = await get(path);
      expect(response.status).toBe(status);
      expect(response.headers.get("content-type")).toBe(whole.headers.get("content-type"));
      expect(await response.text()).toBe("");
    }
  });

  test("answers OPTIONS with what it takes, and gives no other site a right", async () => {
    const response = await fetch(`${server.url}/v1/topics/orders/records`, {
      method: "OPTIONS",
      headers: { origin: "https://evil.example", "access-control-request-method": "POST" },
    });
    expect(response.status).toBe(403);
    expect([...response.headers.keys()].filter((name) => name.startsWith("access-control-"))).toEqual([]);
    const own = await fetch(`${server.url}/v1/topics/orders/records`, { method: "OPTIONS" });
    expect(own.headers.get("allow")).toContain("POST");
  });

  test("/v1/stream without an upgrade is 426, and says to what", async () => {
    const response = await get("/v1/stream?topic=orders&group=billing");
    expect(response.status).toBe(426);
    expect(response.headers.get("upgrade")).toBe("websocket");
    expect(await problemOf(response)).toMatchObject({
      status: 426,
      detail: expect.stringContaining("WebSocket"),
    });
    const head = ["GET /v1/stream HTTP/1.1", "Upgrade: h2c", "Connection: Upgrade"];
    expect((await sendRaw(server.url, head)).status).toBe(426);
  });
});

describe("a broken request", () => {
  test("with a Host that is none is refused", async () => {
    for (const host of ["[", "a b", "a:b:c", "%"]) {
      for (const head of [[], ["Origin: http://localhost"]]) {
        const answer = await sendRaw(server.url, ["GET /v1/topics HTTP/1.1", `Host: ${host}`, ...head]);
        expect({ host, isRefused: [400, 404].includes(answer.status) }).toEqual({ host, isRefused: true });
      }
    }
  });

  test("with both lengths, with bad chunks or none at all is 400, and the next is served", async () => {
    const post = "POST /v1/topics/broken/records HTTP/1.1";
    for (const [head, body] of [
      [[post, "Content-Length: 3", "Transfer-Encoding: chunked"], "0\r\n\r\n"],
      [[post, "Transfer-Encoding: chunked"], "zz\r\nabc\r\n0\r\n\r\n"],
      [["HELLO"], ""],
    ] as const)
      expect((await sendRaw(server.url, head, body)).status).toBe(400);
    expect((await get("/healthz")).status).toBe(200);
  });

  test("that ends in the middle of its body writes nothing", async () => {
    const topic = await newTopic();
    const { hostname, port } = new URL(server.url);
    const socket = connect(Number(port), hostname);
    socket.end(
      `POST /v1/topics/${topic}/records HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: 100\r\n\r\n1\n2\n3\n`,
    );
    await new Promise((resolve) => socket.on("data", () => undefined).once("close", resolve));
    expect(await logEndsOf(topic)).toEqual([0]);
  });
});

test("nothing of all this was a defect in the server's log", () => {
  expect(
    server.logged.split("\n").filter((line) => /event="(defect|database failed|write failed)"/.test(line)),
  ).toEqual([]);
});
