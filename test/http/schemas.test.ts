// The schema of a topic over the real server: how it is set, what it refuses, what it leaves as it is.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { SCHEMA_BYTES_MAX } from "../../src/protocol/limits.ts";
import { HttpClient } from "../support/http-client.ts";
import { startServer, type TestServer, temporaryFolder } from "../support/server.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";
import { StreamClient } from "../support/stream-client.ts";

const QUAKE = {
  type: "object",
  required: ["id", "mag"],
  properties: { id: { type: "string" }, mag: { type: "number", minimum: 0 } },
};

const folder = temporaryFolder();
let server: TestServer;
let http: HttpClient;
let topicsMade = 0;

beforeAll(async () => {
  server = await startServer(join(folder.path, "t.db"));
  http = new HttpClient(server);
});
afterAll(async () => {
  await server.kill("SIGKILL");
  folder.remove();
});

async function newTopic(settings: object): Promise<string> {
  topicsMade += 1;
  const topic = `t${topicsMade}`;
  expect(await http.call("PUT", `/v1/topics/${topic}`, settings)).toMatchObject({ status: 201 });
  return topic;
}

const produce = (topic: string, ...values: readonly unknown[]) =>
  http.call("POST", `/v1/topics/${topic}/records`, { records: values.map((value) => ({ value })) });

describe("PUT /v1/topics/:topic with a schema", () => {
  test("gives it back, keeps it where it is left out, and removes it with null", async () => {
    const topic = await newTopic({ schema: QUAKE });
    for (const settings of [{}, { partitionCount: 2 }, { schema: QUAKE }])
      expect((await http.call("PUT", `/v1/topics/${topic}`, settings)).body.schema).toEqual(QUAKE);
    expect((await http.call("GET", `/v1/topics/${topic}`)).body.schema).toEqual(QUAKE);
    expect(await produce(topic, "anything")).toMatchObject({ status: 422 });
    expect((await http.call("PUT", `/v1/topics/${topic}`, { schema: null })).body.schema).toBeNull();
    expect(await produce(topic, "anything")).toMatchObject({ status: 200 });
  });

  test("that is not one is refused with its place, and nothing is created or changed", async () => {
    const topic = await newTopic({ schema: QUAKE });
    for (const [schema, path] of [
      [{ type: "strin" }, "/type"],
      [{ properties: { mag: { minimum: "3" } } }, "/properties/mag/minimum"],
      [{ pattern: "(" }, "/pattern"],
      [{ $ref: "https://example.org/other.json" }, "/$ref"],
      [{ $ref: "#" }, ""],
      [{ $schema: "http://json-schema.org/draft-03/schema#" }, "/$schema"],
      ["object", ""],
      [[QUAKE], ""],
      [3, ""],
    ] as const)
      for (const name of [topic, "never-made"]) {
        const { status, body } = await http.call("PUT", `/v1/topics/${name}`, { schema, partitionCount: 3 });
        expect({ schema, status, code: body.code, path: body.path }).toEqual({
          schema,
          status: 400,
          code: "bad_request",
          path,
        });
      }
    expect((await http.call("GET", `/v1/topics/${topic}`)).body).toMatchObject({
      schema: QUAKE,
      partitionCount: 1,
    });
    expect(await http.call("GET", "/v1/topics/never-made")).toMatchObject({ status: 404 });
  });

  test("is taken at 64 KiB of JSON and refused one byte above", async () => {
    const ofBytes = (bytes: number) => {
      const empty = JSON.stringify({ description: "" }).length;
      return { description: "x".repeat(bytes - empty) };
    };
    const topic = await newTopic({ schema: ofBytes(SCHEMA_BYTES_MAX) });
    const refused = await http.call("PUT", `/v1/topics/${topic}`, { schema: ofBytes(SCHEMA_BYTES_MAX + 1) });
    expect(refused).toMatchObject({ status: 400, body: { code: "bad_request" } });
    expect(refused.body.detail).toContain("65537 bytes");
  });

  test("and fewer partitions than there are is a conflict, and the schema stays", async () => {
    const topic = await newTopic({ partitionCount: 3, schema: QUAKE });
    const settings = { partitionCount: 2, schema: null };
    expect(await http.call("PUT", `/v1/topics/${topic}`, settings)).toMatchObject({ status: 409 });
    expect((await http.call("GET", `/v1/topics/${topic}`)).body.schema).toEqual(QUAKE);
  });

  test("leaves the records that are there as they are", async () => {
    const topic = await newTopic({});
    await produce(topic, "no quake", { id: "nc1", mag: 4 });
    await http.call("PUT", `/v1/topics/${topic}`, { schema: QUAKE });
    const { body } = await http.call("GET", `/v1/topics/${topic}/partitions/0/records`);
    expect(body.records.map((record: { value: unknown }) => record.value)).toEqual([
      "no quake",
      { id: "nc1", mag: 4 },
    ]);
  });
});

describe("a record that the schema does not allow", () => {
  const good = { id: "nc1", mag: 4.2 };

  test("refuses the batch, names the record, the place and the rule, and nothing is written", async () => {
    const topic = await newTopic({ schema: QUAKE });
    const { status, body } = await produce(topic, good, { id: "nc2", mag: -1 }, { id: 3 });
    expect({ status, body }).toEqual({
      status: 422,
      body: expect.objectContaining({
        code: "schema_violation",
        retriable: false,
        topic,
        record: 1,
        path: "/mag",
        rule: "/properties/mag/minimum",
      }),
    });
    expect(body.detail).toContain("records[1]");
    expect(await produce(topic, good)).toMatchObject({ body: { runs: [{ offset: 0 }] } });
  });

  test("is named by its line in NDJSON", async () => {
    const topic = await newTopic({ schema: QUAKE });
    const lines = [good, good, { id: "nc2" }].map((value) => JSON.stringify(value)).join("\n\n");
    const response = await fetch(`${server.url}/v1/topics/${topic}/records`, {
      method: "POST",
      headers: { "content-type": "application/x-ndjson" },
      body: lines,
    });
    expect(response.status).toBe(422);
    expect(await response.json()).toMatchObject({ line: 5, path: "", rule: "/required" });
  });

  test("is one with bytes, and a tombstone where null is not allowed", async () => {
    const topic = await newTopic({ schema: QUAKE });
    const bytes = await http.call("POST", `/v1/topics/${topic}/records`, { records: [{ bytes: "AA==" }] });
    expect(bytes).toMatchObject({ status: 422, body: { code: "schema_violation", record: 0 } });
    expect(await produce(topic, null)).toMatchObject({ status: 422, body: { path: "", rule: "/type" } });
    await http.call("PUT", `/v1/topics/${topic}`, { schema: { anyOf: [QUAKE, { type: "null" }] } });
    expect(await produce(topic, null)).toMatchObject({ status: 200 });
  });

  test("refuses a transaction whole, and names the append", async () => {
    const [free, strict] = [await newTopic({}), await newTopic({ schema: QUAKE })];
    const { status, body } = await http.call("POST", "/v1/transactions", {
      appends: [
        { topic: free, records: [{ value: 1 }] },
        { topic: strict, records: [{ value: good }, { value: 1 }] },
      ],
    });
    expect({ status, body }).toMatchObject({ status: 422, body: { topic: strict, append: 1, record: 1 } });
    expect((await http.call("GET", `/v1/topics/${free}/partitions/0/records`)).body.logEndOffset).toBe(0);
  });

  test("over the socket is an error frame with the same facts, and the socket lives", async () => {
    const topic = await newTopic({ schema: QUAKE });
    const client = await StreamClient.open(server.streamUrl);
    client.send({ type: "produce", id: 1, topic, records: [{ value: { id: "nc1", mag: "big" } }] });
    expect(await client.expect("error")).toMatchObject({
      id: 1,
      code: "schema_violation",
      record: 0,
      path: "/mag",
      rule: "/properties/mag/type",
    });
    client.send({ type: "produce", id: 2, topic, records: [{ value: good }] });
    expect(await client.expect("produced")).toMatchObject({ id: 2 });
    await client.close();
  });

  test("does not count for its producer, and a repeat of what was written before the schema is answered", async () => {
    const topic = await newTopic({});
    const send = (sequence: number, value: unknown) =>
      http.call("POST", `/v1/topics/${topic}/records`, {
        records: [{ value }],
        producer: { id: topic, epoch: 0, sequence },
      });
    expect(await send(0, "free")).toMatchObject({ status: 200 });
    await http.call("PUT", `/v1/topics/${topic}`, { schema: QUAKE });
    expect(await send(1, "free")).toMatchObject({ status: 422 });
    expect(await send(0, "free")).toMatchObject({
      status: 200,
      body: { runs: [{ partition: 0, offset: 0, count: 1 }], duplicate: true },
    });
    expect(await send(1, good)).toMatchObject({ status: 200, body: { runs: [{ offset: 1 }] } });
  });
});

test("the value is kept byte for byte, whatever the schema made of it", async () => {
  const topic = await newTopic({ schema: { properties: { n: { type: "number" } } } });
  const value = '{"n":2.0, "m":12345678901234567890,"n":1E400}';
  await http.call("POST", `/v1/topics/${topic}/records`, `{"records":[{"value":${value}}]}`);
  expect(stockSqlite(server.databasePath, `SELECT value FROM topic_records WHERE topic = '${topic}'`)).toBe(
    value,
  );
});
