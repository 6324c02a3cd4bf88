// Reading a partition over HTTP, against the real server.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { join } from "node:path";
import { startServer, type TestServer, temporaryFolder } from "../support/server.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";

const MIB = 1024 * 1024;

const folder = temporaryFolder();
let server: TestServer;

beforeAll(async () => {
  server = await startServer(join(folder.path, "t.db"));
});
afterAll(async () => {
  await server.kill("SIGKILL");
  folder.remove();
});

interface Fetched {
  readonly topicId: number;
  readonly records: readonly { readonly offset: number; readonly value: unknown }[];
  readonly next: number;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
}

let topicsMade = 0;

function newTopic(): string {
  topicsMade += 1;
  return `t${topicsMade}`;
}

async function produce(topic: string, body: string): Promise<void> {
  const url = `${server.url}/v1/topics/${topic}/records`;
  const response = await fetch(url, { method: "POST", body });
  expect({ status: response.status, body: await response.text() }).toMatchObject({ status: 200 });
}

const produceValues = (topic: string, ...values: readonly unknown[]) =>
  produce(topic, JSON.stringify({ records: values.map((value) => ({ value })) }));

const get = (topic: string, query = "", { partition = "0", method = "GET" } = {}) =>
  fetch(`${server.url}/v1/topics/${topic}/partitions/${partition}/records${query}`, { method });

async function read(topic: string, query = ""): Promise<Fetched> {
  const response = await get(topic, query);
  const text = await response.text();
  expect({ status: response.status, text }).toMatchObject({ status: 200 });
  return JSON.parse(text);
}

async function problemOf(answer: Promise<Response>): Promise<Record<string, unknown>> {
  const response = await answer;
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  const problem = (await response.json()) as Record<string, unknown>;
  expect(problem.status).toBe(response.status);
  return problem;
}

const offsetsOf = ({ records }: Fetched) => records.map(({ offset }) => offset);

describe("GET …/records answers", () => {
  test("with every record as it came, byte for byte, and where it stands", async () => {
    const topic = newTopic();
    await produce(
      topic,
      '{"records":[{"value":{ "b": 2.0, "a":1E400 },"timestamp":5},{"key":"ü","headers":{"h": "1"},"value":null,"timestamp":6}]}',
    );
    const response = await get(topic);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("application/json");
    const topicId = stockSqlite(server.databasePath, `SELECT topic_id FROM topics WHERE topic = '${topic}'`);
    expect(await response.text()).toBe(
      `{"topicId":${topicId},"records":[{"offset":0,"timestamp":5,"value":{ "b": 2.0, "a":1E400 }},` +
        '{"offset":1,"timestamp":6,"key":"ü","headers":{"h": "1"},"value":null}],' +
        '"next":2,"logStartOffset":0,"logEndOffset":2}',
    );
  });

  test("from each place", async () => {
    const topic = newTopic();
    const records = [10, 30, 20, 40].map((timestamp) => ({ value: 0, timestamp }));
    await produce(topic, JSON.stringify({ records }));
    const starts: [string, readonly number[]][] = [
      ["", [0, 1, 2, 3]],
      ["?from=earliest", [0, 1, 2, 3]],
      ["?from=2", [2, 3]],
      ["?from=4", []],
      ["?from=latest", []],
      ["?from=@0", [0, 1, 2, 3]],
      ["?from=%4020", [1, 2, 3]],
      ["?from=@31", [3]],
      ["?from=@41", []],
      ["?from=@9007199254740991", []],
    ];
    for (const [query, offsets] of starts) {
      const fetched = await read(topic, query);
      expect({ query, offsets: offsetsOf(fetched), next: fetched.next }).toEqual({
        query,
        offsets: [...offsets],
        next: 4,
      });
    }
  });

  test("with 500 records unless another limit is given, up to 10,000", async () => {
    const topic = newTopic();
    for (let round = 0; round < 2; round += 1)
      await produceValues(topic, ...Array.from({ length: 5_001 }, () => 0));
    const counts: [string, number][] = [
      ["", 500],
      ["?limit=1", 1],
      ["?limit=501", 501],
      ["?limit=10000", 10_000],
      ["?from=10000&limit=10000", 2],
    ];
    for (const [query, count] of counts) {
      const { records, next, logEndOffset } = await read(topic, query);
      expect({ query, count: records.length, logEndOffset }).toEqual({ query, count, logEndOffset: 10_002 });
      expect(next).toBe((records.at(-1)?.offset ?? -1) + 1);
    }
  });

  test("with at most 1 MiB unless other maxBytes are given, and with a larger record alone", async () => {
    const topic = newTopic();
    const large = "x".repeat(300_000);
    await produceValues(topic, ...Array.from({ length: 10 }, () => large));
    await produceValues(topic, ...Array.from({ length: 10 }, () => large));
    const counts: [string, number][] = [
      ["", 3],
      ["?maxBytes=1", 1],
      ["?maxBytes=300000", 1],
      ["?maxBytes=700000", 2],
      ["?maxBytes=4000000", 13],
    ];
    for (const [query, count] of counts)
      expect({ query, count: (await read(topic, query)).records.length }).toEqual({ query, count });
    expect(MIB).toBeGreaterThan(3 * large.length);
  });

  test("and commits nothing", async () => {
    const topic = newTopic();
    await produceValues(topic, 1);
    const tables = ["committed_offsets", "groups", "members", "group_topics", "offset_history"];
    const counts = `SELECT ${tables.map((table) => `(SELECT count(*) FROM ${table})`).join(" + ")}`;
    await read(topic);
    expect(stockSqlite(server.databasePath, counts)).toBe("0");
  });

  test("HEAD as GET, without the body", async () => {
    const topic = newTopic();
    const response = await get(topic, "", { method: "HEAD" });
    expect({ status: response.status, body: await response.text() }).toEqual({ status: 200, body: "" });
  });

  test("of a topic that is not there: it comes into being on first use", async () => {
    const topic = newTopic();
    expect(await read(topic)).toMatchObject({ records: [], next: 0, logStartOffset: 0, logEndOffset: 0 });
  });
});

describe("GET …/records refuses", () => {
  test.each(["5", "9007199254740991"])("the offset %s outside the log, with its bounds", async (from) => {
    const topic = newTopic();
    await produceValues(topic, 1, 2, 3);
    expect(await problemOf(get(topic, `?from=${from}`))).toMatchObject({
      status: 416,
      code: "offset_out_of_range",
      retriable: false,
      logStartOffset: 0,
      logEndOffset: 3,
    });
    expect((await read(topic, "?from=3")).next).toBe(3);
  });

  test("a partition that the topic has not", async () => {
    const topic = newTopic();
    await produceValues(topic, 1);
    expect(await problemOf(get(topic, "", { partition: "1" }))).toMatchObject({
      status: 404,
      code: "unknown_partition",
      topic,
      partition: 1,
      partitionCount: 1,
    });
  });

  test("partition 1 of a topic that is not there, and makes none", async () => {
    const problem = await problemOf(get("never", "", { partition: "1" }));
    expect(problem).toMatchObject({ status: 404, code: "unknown_topic", topic: "never" });
    expect((await fetch(`${server.url}/v1/topics/never`)).status).toBe(404);
  });

  test.each(["x", "-1", "01", "1.0", "%20", "9007199254740992"])(
    "what is no partition: %s",
    async (partition) => {
      const problem = await problemOf(get("never", "", { partition }));
      expect(problem).toMatchObject({ status: 400, code: "bad_request" });
      expect(problem.detail).toContain("cannot name a partition");
    },
  );

  test.each([
    ["from=", "from"],
    ["from=-1", "from"],
    ["from=01", "from"],
    ["from=1.5", "from"],
    ["from=current", "from"],
    ["from=@", "from"],
    ["from=@-1", "from"],
    ["from=@now", "from"],
    ["from=9007199254740992", "from"],
    ["limit=0", "limit"],
    ["limit=10001", "limit"],
    ["limit=", "limit"],
    ["limit=1e3", "limit"],
    ["limit=+1", "limit"],
    ["maxBytes=0", "maxBytes"],
    ["maxBytes=4000001", "maxBytes"],
    ["maxBytes=x", "maxBytes"],
    ["waitMs=-1", "waitMs"],
    ["waitMs=30001", "waitMs"],
    ["waitMs=1s", "waitMs"],
    ["offset=1", "offset"],
    ["key=/a", "key"],
    ["max_bytes=1", "max_bytes"],
    ["from=1&from=1", "from"],
  ])("?%s by name, and makes no topic", async (query, name) => {
    const problem = await problemOf(get("never", `?${query}`));
    expect(problem).toMatchObject({ status: 400, code: "bad_request" });
    expect(problem.detail).toContain(`"${name}"`);
    expect(problem.detail).not.toContain("ndjson");
    expect((await fetch(`${server.url}/v1/topics/never`)).status).toBe(404);
  });

  test("a topic that is not there, where topics are created by PUT only", async () => {
    await using strict = await startServer(join(folder.path, "strict.db"), { mode: "serve" });
    const path = "/v1/topics/never/partitions/0/records?waitMs=30000";
    const problem = await problemOf(fetch(strict.url + path));
    expect(problem).toMatchObject({ status: 404, code: "unknown_topic", topic: "never" });
  });

  test.each(["a%20b", "a:b", "n".repeat(250)])("what cannot name a topic: %s", async (name) => {
    expect(await problemOf(get(name))).toMatchObject({ status: 400, code: "bad_request" });
  });
});

describe("a long-poll over HTTP", () => {
  test("is answered by the next produce", async () => {
    const topic = newTopic();
    await produceValues(topic, "old");
    const waiting = Array.from({ length: 5 }, () => read(topic, "?from=1&waitMs=30000"));
    await read(topic);
    await produceValues(topic, "new");
    for (const fetched of await Promise.all(waiting))
      expect(fetched).toMatchObject({ records: [{ offset: 1, value: "new" }], next: 2, logEndOffset: 2 });
  });

  test("is answered with nothing when its time is over", async () => {
    const topic = newTopic();
    expect(await read(topic, "?waitMs=1")).toMatchObject({ records: [], next: 0 });
  });

  test("whose client has gone is no trouble to those that stay", async () => {
    const topic = newTopic();
    await read(topic);
    const { hostname, port } = new URL(server.url);
    for (let round = 0; round < 20; round += 1) {
      await new Promise<void>((resolve) => {
        const socket = connect(Number(port), hostname, () => {
          const path = `/v1/topics/${topic}/partitions/0/records?waitMs=30000`;
          socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`, () => socket.destroy());
        });
        socket.on("close", () => resolve());
      });
    }
    const waiting = read(topic, "?waitMs=30000");
    await read(topic);
    await produceValues(topic, 1);
    expect(await waiting).toMatchObject({ next: 1 });
  });
});

test("nothing of all this was a defect in the server's log", () => {
  expect(server.logged).toBe("");
});
