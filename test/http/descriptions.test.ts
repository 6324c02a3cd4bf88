// The two descriptions: that they are valid, that they say neither more nor less than the server does, and that what a
// real server answers is what they say.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import asyncapiSchema from "@asyncapi/specs/schemas/3.0.0.json" with { type: "json" };
import { Validator } from "@seriousme/openapi-schema-validator";
import { Ajv } from "ajv";
import packageJson from "../../package.json" with { type: "json" };
import { parseClientFrame, parseSubscribeQuery } from "../../src/core/client-frame.ts";
import { type AppDeps, createApp, NOT_BUILT_ROUTES } from "../../src/http/app.ts";
import { CLOSE_CODES, ERROR_CODES, type ErrorCode } from "../../src/protocol/codes.ts";
import { PROTOCOL_REVISION } from "../../src/protocol/revision.ts";
import { CLIENT_FRAME_SCHEMAS } from "../../src/protocol/schemas/client.ts";
import { SERVER_FRAME_SCHEMAS } from "../../src/protocol/schemas/server.ts";
import { Described, type Json, pointerTo, referencesOf, resolveReference } from "../support/described.ts";
import { startServer, type TestServer, temporaryFolder } from "../support/server.ts";
import { StreamClient } from "../support/stream-client.ts";

const METHODS = ["GET", "PUT", "POST", "DELETE"];

/** Whatever of it is touched fails: the descriptions need none of it. */
const NO_DEPS = new Proxy({ origins: { allowed: [], allowsLoopback: true } } as unknown as AppDeps, {
  get(deps, name) {
    if (name === "origins") return deps.origins;
    if (name === "then") return undefined;
    return new Proxy(
      {},
      {
        get: () => () => {
          throw new Error(`${String(name)} was asked`);
        },
      },
    );
  },
});
const app = createApp(NO_DEPS);

const openapi = new Described(await documentOf("/openapi.json"));
const asyncapi = new Described(await documentOf("/asyncapi.json"));

async function documentOf(path: string): Promise<Json> {
  const response = await app.fetch(new Request(`http://localhost${path}`));
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toBe("application/json");
  return response.json();
}

/** `GET /v1/topics/{topic}` → what is said of it. */
const operations = new Map<string, Json>(
  Object.entries<Json>(openapi.document.paths).flatMap(([path, methods]) =>
    Object.entries<Json>(methods).map(([method, operation]) => [
      `${method.toUpperCase()} ${path}`,
      operation,
    ]),
  ),
);

describe("/openapi.json", () => {
  test("is OpenAPI 3.1", async () => {
    const { valid, errors } = await new Validator().validate(structuredClone(openapi.document));
    expect({ valid, errors }).toEqual({ valid: true, errors: undefined });
    expect(openapi.document.openapi).toStartWith("3.1.");
  });

  test("refers to nothing that is not there", () => {
    for (const reference of referencesOf(openapi.document))
      expect({ reference, found: resolveReference(openapi.document, reference) }).toEqual({
        reference,
        found: expect.any(Object),
      });
  });

  test("carries the version of the package and the revision of the protocol", () => {
    for (const { info } of [openapi.document, asyncapi.document])
      expect(info).toMatchObject({
        title: "Tidemark",
        version: packageJson.version,
        license: { name: packageJson.license },
        "x-protocol-revision": PROTOCOL_REVISION,
      });
  });

  test("describes every route that is served, and none that is not", () => {
    const refused = new Set(NOT_BUILT_ROUTES.map(([method, path]) => `${method} ${path}`));
    const routes = app.routes.filter(({ method }) => METHODS.includes(method));
    const served = new Set(routes.map(({ method, path }) => `${method} ${path}`)).difference(refused);
    const asTemplates = [...served].map((route) => route.replace(/:(\w+)/g, "{$1}"));
    expect([...operations.keys()].sort()).toEqual(asTemplates.sort());
  });

  test("gives every operation a name of its own, a summary and one tag that is listed", () => {
    const names = [...operations.values()].map(({ operationId }) => operationId);
    expect(new Set(names).size).toBe(operations.size);
    const tags = openapi.document.tags.map(({ name }: Json) => name);
    for (const operation of operations.values()) {
      expect(operation.summary).toBeString();
      expect(operation.tags).toHaveLength(1);
      expect(tags).toContain(operation.tags[0]);
    }
  });

  test("lists each parameter of a path once, and it is required", () => {
    for (const [route, { parameters = [] }] of operations) {
      const inPath = parameters.filter((parameter: Json) => parameter.in === "path");
      expect(inPath.map(({ name }: Json) => `{${name}}`)).toEqual(route.match(/\{\w+\}/g) ?? []);
      expect(inPath.every(({ required }: Json) => required)).toBe(true);
    }
  });

  test("names codes under their own status, and says of retriable ones when to come back", () => {
    for (const operation of operations.values())
      for (const [status, { content, headers }] of Object.entries<Json>(operation.responses)) {
        const codes: readonly ErrorCode[] | undefined = codesOf(content);
        if (codes === undefined || status === "426") continue;
        expect(codes.map((code) => ERROR_CODES[code].status)).toEqual(
          codes.map(() => Number(status) as never),
        );
        expect(headers !== undefined).toBe(codes.some((code) => ERROR_CODES[code].retriable));
      }
  });
});

function codesOf(content: Json): readonly ErrorCode[] | undefined {
  return content?.["application/problem+json"]?.schema.allOf[1].properties.code.enum;
}

describe("/asyncapi.json", () => {
  const { document } = asyncapi;

  test("is AsyncAPI 3.0", () => {
    const ajv = new Ajv({
      strict: false,
      allErrors: true,
      validateFormats: false,
      meta: false,
      validateSchema: false,
    });
    const validate = ajv.compile(asyncapiSchema);
    validate(document);
    expect(validate.errors ?? []).toEqual([]);
    expect(document.asyncapi).toBe("3.0.0");
  });

  test("refers to nothing that is not there", () => {
    for (const reference of referencesOf(document))
      expect({ reference, found: resolveReference(document, reference) }).toEqual({
        reference,
        found: expect.any(Object),
      });
  });

  test("has a message for every frame, each in the channel and in an operation or a reply", () => {
    const types = [...Object.keys(CLIENT_FRAME_SCHEMAS), ...Object.keys(SERVER_FRAME_SCHEMAS)].sort();
    expect(Object.keys(document.components.messages).sort()).toEqual(types);
    expect(Object.keys(document.channels.stream.messages).sort()).toEqual(types);
    const used = Object.values<Json>(document.operations).flatMap(referencesOf);
    for (const type of types) expect(used).toContain(`#/channels/stream/messages/${type}`);
  });

  test("lets the server receive what a client sends, and send the rest", () => {
    const typesOf = (action: string) =>
      Object.values<Json>(document.operations)
        .filter((operation) => operation.action === action)
        .flatMap(({ messages }) => messages.map(({ $ref }: Json) => $ref.split("/").at(-1)));
    expect(typesOf("receive").sort()).toEqual(Object.keys(CLIENT_FRAME_SCHEMAS).sort());
    expect(Object.keys(SERVER_FRAME_SCHEMAS)).toEqual(expect.arrayContaining(typesOf("send")));
  });

  test.each([
    ["subscribe", "subscribed"],
    ["ack", "acked"],
    ["seek", "assigned"],
    ["produce", "produced"],
    ["unsubscribe", "unsubscribed"],
    ["pause", "ok"],
    ["resume", "ok"],
    ["release", "ok"],
    ["pong", "ok"],
  ])("answers %s with %s or error, by its id", (type, answer) => {
    const { reply } = document.operations[type];
    expect(reply.messages.map(({ $ref }: Json) => $ref.split("/").at(-1))).toEqual([answer, "error"]);
    for (const name of [type, answer, "error"])
      expect(document.components.messages[name].correlationId).toEqual({ location: "$message.payload#/id" });
  });

  test("has every close code", () => {
    const found = document.channels.stream["x-close-codes"].map(({ name, code }: Json) => [name, code]);
    expect(Object.fromEntries(found)).toEqual(CLOSE_CODES);
  });

  test("has the query parameters that the stream takes", () => {
    const pointer = "/channels/stream/bindings/ws/query";
    const all = {
      topic: "orders",
      id: "1",
      subscription: "s",
      group: "billing",
      instanceId: "i",
      memberId: "m",
      reset: "@5",
      ack: "manual",
      sessionTimeoutMs: "6000",
      ackTimeoutMs: "100",
    };
    const { from: _, ...described } = resolveReference(document, `#${pointer}/properties`) as Json;
    expect(Object.keys(described).sort()).toEqual(Object.keys(all).sort());
    expect(parseSubscribeQuery(new URLSearchParams(all))).toHaveProperty("frame");
    expect(openapi.document.paths["/v1/stream"].get.parameters.map(({ name }: Json) => name).sort()).toEqual(
      [...Object.keys(all), "from"].sort(),
    );
    for (const from of ["earliest", "latest", "0", "12", "@12", "none", "-1", "01", "@", "1e3", ""]) {
      const isTaken = "frame" in (parseSubscribeQuery(new URLSearchParams({ topic: "t", from })) ?? {});
      const mistakes = asyncapi.mistakesOf(pointerTo("channels", "stream", "bindings", "ws", "query"), {
        from,
      });
      expect({ from, isTaken }).toEqual({ from, isTaken: mistakes.length === 0 });
    }
    for (const reset of ["earliest", "latest", "none", "@12", "12", "current", "@-1"]) {
      const query = new URLSearchParams({ topic: "t", group: "g", reset });
      const isTaken = "frame" in (parseSubscribeQuery(query) ?? {});
      const mistakes = asyncapi.mistakesOf(pointerTo("channels", "stream", "bindings", "ws", "query"), {
        reset,
      });
      expect({ reset, isTaken }).toEqual({ reset, isTaken: mistakes.length === 0 });
    }
  });
});

describe("a description", () => {
  test("takes no parameters", async () => {
    for (const path of ["/openapi.json?x=1", "/asyncapi.json?x=1"])
      expect((await app.fetch(new Request(`http://localhost${path}`))).status).toBe(400);
  });

  test("is the same each time, also to those who ask at once", async () => {
    const fresh = createApp(NO_DEPS);
    for (const path of ["/openapi.json", "/asyncapi.json"]) {
      const ask = async () => (await fresh.fetch(new Request(`http://localhost${path}`))).text();
      const texts = await Promise.all([ask(), ask(), ask()]);
      expect(new Set([...texts, await ask()]).size).toBe(1);
    }
  });
});

describe("a real server", () => {
  const folder = temporaryFolder();
  let server: TestServer;
  /** What it has answered: `201 PUT /v1/topics/{topic}`. */
  const answered = new Set<string>();

  beforeAll(async () => {
    server = await startServer(join(folder.path, "t.db"));
  });
  afterAll(async () => {
    await server.kill("SIGKILL");
    folder.remove();
  });

  /** Asks, and holds the answer against what is said of it. */
  async function call(method: string, path: string, body?: unknown, type?: string): Promise<Json> {
    const headers = type === undefined ? undefined : { "content-type": type };
    const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
    const response = await fetch(server.url + path, { method, body: text ?? null, headers: headers ?? {} });
    const route = routeOf(method, path.split("?")[0] ?? "");
    const { status } = response;
    const described = operations.get(route)?.responses[status];
    expect({ route, status, described }).toEqual({ route, status, described: expect.any(Object) });
    answered.add(`${status} ${route}`);
    const answer = await response.text();
    if (described.content === undefined) {
      expect(answer).toBe("");
      return undefined;
    }
    const mediaType = response.headers.get("content-type") ?? "";
    expect(Object.keys(described.content)).toContain(mediaType);
    const [asked = "", template = ""] = route.split(" ");
    const schema = pointerTo(
      "paths",
      template,
      asked.toLowerCase(),
      "responses",
      status,
      "content",
      mediaType,
      "schema",
    );
    const found = JSON.parse(answer);
    expect({ route, found, mistakes: openapi.mistakesOf(schema, found) }).toEqual({
      route,
      found,
      mistakes: [],
    });
    expect(undescribed(resolveSchema(openapi.document, schema), found)).toEqual([]);
    return found;
  }

  function routeOf(method: string, path: string): string {
    const fits = (route: string) =>
      new RegExp(`^${route.replace(/\{\w+\}/g, "[^/]+")}$`).test(`${method} ${path}`);
    const literal = [...operations.keys()]
      .filter(fits)
      .sort((a, b) => a.split("{").length - b.split("{").length);
    return literal[0] ?? `no route ${method} ${path}`;
  }

  test("answers every route as it is described", async () => {
    await call("GET", "/healthz");
    await call("GET", "/readyz");
    await call("GET", "/openapi.json");
    await call("GET", "/asyncapi.json");
    await call("PUT", "/v1/topics/orders", { partitionCount: 2 });
    await call("PUT", "/v1/topics/orders");
    await call("PUT", "/v1/topics/orders", { partitionCount: 1 });
    await call("PUT", "/v1/topics/orders", { other: 1 });
    await call("PUT", "/v1/topics/..%2f", {});
    await call("GET", "/v1/topics");
    await call("GET", "/v1/topics/orders");
    await call("GET", "/v1/topics/nowhere");

    const records = [
      { key: "k", value: { a: 1 }, headers: { h: "x" }, timestamp: 5, partition: 0 },
      { key: null, value: null, partition: 1 },
    ];
    await call("POST", "/v1/topics/orders/records", { records });
    await call("POST", "/v1/topics/orders/records", { records: [] });
    await call("POST", "/v1/topics/orders/records", { records: [{ value: 1, partition: 9 }] });
    await call("POST", "/v1/topics/orders/records", { records: [{ key: "k".repeat(32_769), value: 1 }] });
    await call("POST", "/v1/topics/orders/records", "x".repeat(4_000_001));
    await call("POST", "/v1/producers/p1");
    await call("POST", "/v1/producers/..%2f");
    const producer = { id: "p1", epoch: 1, sequence: 0 };
    await call("POST", "/v1/topics/orders/records", { records, producer });
    await call("POST", "/v1/topics/orders/records", { records, producer });
    await call("POST", "/v1/topics/orders/records", { records, producer: { ...producer, sequence: 7 } });
    await call("POST", "/v1/topics/orders/records", { records, producer: { ...producer, epoch: 0 } });
    const appends = [{ topic: "orders", records }];
    await call("POST", "/v1/transactions", { appends, producer: { ...producer, sequence: 1 } });
    await call("POST", "/v1/transactions", { appends, producer: { ...producer, sequence: 1 } });
    await call("POST", "/v1/transactions", {
      appends,
      expect: [{ topic: "orders", partition: 0, logEndOffset: 0 }],
    });
    await call("POST", "/v1/transactions", {
      appends: [{ topic: "nowhere", records: [{ value: 1, partition: 9 }] }],
    });
    const commit = { topic: "orders", partition: 0, generation: 1, offset: 1 };
    await call("POST", "/v1/transactions", { appends, commits: { group: "nobody", offsets: [commit] } });
    await call("POST", "/v1/transactions", {});
    await call("GET", "/v1/topics/orders/partitions/0/records?from=earliest&limit=10&maxBytes=1000&waitMs=0");
    await call("GET", "/v1/topics/orders/partitions/0/records?from=@5");
    await call("GET", "/v1/topics/orders/partitions/0/records?from=99");
    await call("GET", "/v1/topics/orders/partitions/7/records");
    await call("GET", "/v1/topics/orders/partitions/0/records?limit=10001");

    const offsets = [
      { topic: "orders", partition: 0, offset: 1, metadata: "m" },
      { topic: "orders", partition: 8, offset: 1 },
      { topic: "orders", partition: 1, offset: 99 },
    ];
    await call("POST", "/v1/groups/outside/offsets", { offsets });
    await call("POST", "/v1/groups/outside/offsets", { offsets: [] });
    await call("GET", "/v1/groups");
    await call("GET", "/v1/groups/outside");
    await call("GET", "/v1/groups/nobody");
    await call("DELETE", "/v1/groups/outside/topics/other");

    const client = await StreamClient.open(`${server.streamUrl}?topic=orders&group=live&instanceId=i`);
    await client.expect("subscribed");
    await call("GET", "/v1/groups/live");
    await call("DELETE", "/v1/groups/live");
    await call("DELETE", "/v1/groups/live/topics/orders");
    await call("POST", "/v1/groups/live/offsets", { offsets: offsets.slice(0, 1) });
    const topics = [{ topic: "orders" }];
    await call("POST", "/v1/groups/live/reset", { topics, to: "latest", dryRun: true, reason: "r" });
    await call("POST", "/v1/groups/live/reset", {
      plan: [{ topic: "orders", partition: 0, from: 9, to: 0 }],
    });
    await call("POST", "/v1/groups/live/reset", { topics, to: { offset: 999 } });
    await call("POST", "/v1/groups/live/reset", { topics: [{ topic: "nowhere" }], to: "latest" });
    await call("POST", "/v1/groups/live/reset", {
      topics: [{ topic: "orders", partitions: [9] }],
      to: "latest",
    });
    await call("POST", "/v1/groups/live/reset", { topics });
    await call("POST", "/v1/groups/nobody/reset", { topics, to: "latest" });
    await client.close();

    await call("DELETE", "/v1/groups/outside/topics/orders");
    await call("DELETE", "/v1/groups/outside");
    await call("DELETE", "/v1/groups/outside");
    const trimmed = "/v1/topics/orders/partitions/0/records";
    await call("DELETE", `${trimmed}?before=1`);
    await call("DELETE", `${trimmed}?before=99`);
    await call("DELETE", trimmed);
    await call("DELETE", "/v1/topics/orders");
    await call("DELETE", "/v1/topics/orders");
    await call("GET", "/v1/stream");

    const wanted = [...operations].flatMap(([route, { responses }]) =>
      Object.keys(responses)
        .filter((status) => status.startsWith("2"))
        .map((status) => `${status} ${route}`),
    );
    expect(wanted.filter((answer) => !answered.has(answer))).toEqual([]);
  });

  test("takes NDJSON by every name that is listed", async () => {
    const types = Object.keys(operations.get("POST /v1/topics/{topic}/records")?.requestBody.content);
    expect(types).toContain("application/x-ndjson");
    for (const type of types.filter((listed) => listed !== "application/json"))
      expect(await call("POST", "/v1/topics/lines/records?key=/k", '{"k":"a"}\n\n{"k":"b"}\n', type)).toEqual(
        {
          runs: [{ partition: 0, offset: expect.any(Number), count: 2 }],
        },
      );
  });

  test("takes the query parameters that are listed, within their limits, and no other", async () => {
    const path = "/v1/topics/orders/partitions/0/records";
    const { parameters } = operations.get("GET /v1/topics/{topic}/partitions/{partition}/records") as Json;
    for (const { name, schema } of parameters.filter((parameter: Json) => parameter.in === "query")) {
      if (schema.type !== "integer") continue;
      for (const [value, status] of [
        [schema.minimum, 200],
        [schema.minimum - 1, 400],
        [schema.maximum + 1, 400],
      ])
        expect({
          name,
          value,
          status: (await fetch(`${server.url}${path}?${name}=${value}`)).status,
        }).toEqual({
          name,
          value,
          status,
        });
    }
  });

  test("sends frames as they are described", async () => {
    const seen = new Set<string>();
    const client = await StreamClient.open(server.streamUrl, { patienceMs: 10_000 });
    const take = async (type: string) => {
      for (;;) {
        const frame = await client.next();
        seen.add(frame.type);
        const schema = pointerTo("components", "messages", frame.type, "payload");
        expect({ frame, mistakes: asyncapi.mistakesOf(schema, frame) }).toEqual({ frame, mistakes: [] });
        expect(undescribed(resolveSchema(asyncapi.document, schema), frame)).toEqual([]);
        if (frame.type === type) return frame as Json;
      }
    };
    const send = (frame: Json) => {
      const mistakes = asyncapi.mistakesOf(pointerTo("components", "messages", frame.type, "payload"), frame);
      expect({ frame, mistakes }).toEqual({ frame, mistakes: [] });
      expect(parseClientFrame(JSON.stringify(frame))).toHaveProperty("frame");
      client.send(frame);
    };
    send({ type: "produce", id: 1, topic: "frames", records: [{ key: "k", value: 1, headers: { a: "b" } }] });
    await take("produced");
    send({
      type: "subscribe",
      id: 2,
      subscription: "s",
      topics: ["frames"],
      group: "g",
      reset: { ago: 1000 },
    });
    await take("subscribed");
    await take("assigned");
    send({ type: "seek", id: 3, subscription: "s", topic: "frames", partition: 0, to: { offset: 0 } });
    const { generation, topic, partition, next } = await take("records");
    send({
      type: "ack",
      id: 4,
      subscription: "s",
      offsets: [
        { topic, partition, generation, offset: next, metadata: "m" },
        { topic, partition: 7, generation, offset: 1 },
      ],
    });
    await take("acked");
    send({ type: "transact", id: 8, appends: [{ topic: "frames", records: [{ value: 1 }] }] });
    await take("transacted");
    send({ type: "pause", id: 5, subscription: "s", partitions: [{ topic, partition }] });
    await take("ok");
    send({ type: "seek", id: 6, subscription: "nobody", topic, partition, to: "current" });
    await take("error");
    send({ type: "unsubscribe", id: 7, subscription: "s" });
    await take("unsubscribed");
    await client.close();
    expect([...seen].sort()).toEqual([
      "acked",
      "assigned",
      "error",
      "ok",
      "produced",
      "records",
      "subscribed",
      "transacted",
      "unsubscribed",
    ]);
  });
});

/** The schema at a pointer, without references. */
function resolveSchema(document: Json, pointer: string): Json {
  const schema = resolveReference(document, `#${pointer}`) as Json;
  const whole = schema?.allOf?.[0] ?? schema;
  return whole?.$ref === undefined ? whole : resolveReference(document, whole.$ref);
}

/** Members of an answer that its schema does not know. A problem may have any facts, a document is described elsewhere. */
function undescribed(schema: Json, found: Json, path = ""): readonly string[] {
  if (Array.isArray(found))
    return found.flatMap((item, index) => undescribed(schema.items ?? {}, item, `${path}/${index}`));
  if (typeof found !== "object" || found === null || schema.properties === undefined) return [];
  if ("retriable" in schema.properties && "detail" in schema.properties) return [];
  return Object.entries<Json>(found).flatMap(([name, member]) =>
    name in schema.properties
      ? undescribed(schema.properties[name], member, `${path}/${name}`)
      : [`${path}/${name}`],
  );
}
