// Topics, groups and producers over HTTP, by the client, over a real server.

import { afterAll, describe, expect, test } from "bun:test";
import { Admin } from "../../clients/typescript/admin.ts";
import { FencedError, TidemarkError } from "../../clients/typescript/errors.ts";
import { call } from "../../clients/typescript/http.ts";
import { PLATFORM } from "../../clients/typescript/platform.ts";
import { readServerUrl } from "../../clients/typescript/server-url.ts";
import { CuttingProxy } from "../support/cutting-proxy.ts";
import { ackOf, Stage } from "../support/stage.ts";

const stage = new Stage();

const adminOf = (url: string) => new Admin({ url: readServerUrl(url), token: undefined, platform: PLATFORM });
const admin = () => adminOf(stage.server.url);

/** Fails where there is none, or one that is no error of the library. */
async function errorOf(outcome: Promise<unknown>): Promise<TidemarkError> {
  const error = await outcome.then(
    (value) => new Error(`it resolved with ${JSON.stringify(value)}`),
    (error: unknown) => error,
  );
  if (error instanceof TidemarkError) return error;
  throw error;
}

afterAll(() => stage.expectNoDefects());

describe("topics", () => {
  test("putTopic() creates, changes, and says which of the two it was", async () => {
    const topic = stage.newName("topic");
    const made = await admin().putTopic(topic, { partitionCount: 2, retention: { records: 10 } });
    expect(made).toEqual({
      topic,
      topicId: expect.any(Number),
      partitionCount: 2,
      partitions: [0, 1].map((partition) => ({
        partition,
        logStartOffset: 0,
        logEndOffset: 0,
        records: 0,
        bytes: 0,
      })),
      retention: { records: 10 },
      cleanup: "delete",
      compaction: null,
      schema: null,
      createdAt: expect.any(Number),
      created: true,
    });
    const changed = await admin().putTopic(topic, { retention: null, schema: { type: "number" } });
    expect(changed).toEqual({ ...made, retention: null, schema: { type: "number" }, created: false });
    expect(await admin().putTopic(topic)).toEqual(changed);
  });

  test("topic() and topics() tell of them", async () => {
    const topic = await stage.newTopic(2, 3);
    const { partitions, topicId } = await admin().topic(topic);
    expect(partitions.map(({ logEndOffset }) => logEndOffset)).toEqual([3, 3]);
    const listed = await admin().topics();
    expect(listed.filter((each) => each.topic === topic)).toEqual([{ topic, topicId, partitionCount: 2 }]);
  });

  test("deleteTopic() deletes it, once", async () => {
    const topic = await stage.newTopic(1, 3);
    expect(await admin().deleteTopic(topic)).toBeUndefined();
    expect(await errorOf(admin().topic(topic))).toMatchObject({ code: "unknown_topic" });
    expect(await errorOf(admin().deleteTopic(topic))).toMatchObject({ code: "unknown_topic" });
  });

  test("deleteRecords() moves the log start of the partition that it names", async () => {
    const topic = await stage.newTopic(2, 5);
    const { topicId } = await admin().topic(topic);
    const bounds = { topic, topicId, partition: 1, logStartOffset: 3, logEndOffset: 5 };
    expect(await admin().deleteRecords({ topic, partition: 1, before: 3 })).toEqual(bounds);
    const { partitions } = await admin().topic(topic);
    expect(partitions.map(({ logStartOffset }) => logStartOffset)).toEqual([0, 3]);
    expect(await errorOf(admin().deleteRecords({ topic, partition: 1, before: 6 }))).toMatchObject({
      code: "offset_out_of_range",
      facts: { status: 416, found: 6, logStartOffset: 3, logEndOffset: 5 },
    });
  });
});

describe("readRecords()", () => {
  test("gives records from a place, as many as are asked for, and where to read on", async () => {
    const topic = await stage.newTopic(2, 5); // the timestamps are 1,000 and on
    const valuesFrom = async (asked: object) => {
      const { records, next } = await admin().readRecords({ topic, partition: 1, ...asked });
      return [records.map(({ value }) => value), next];
    };
    expect(await valuesFrom({})).toEqual([[0, 1, 2, 3, 4], 5]);
    expect(await valuesFrom({ from: 2, limit: 2 })).toEqual([[2, 3], 4]);
    expect(await valuesFrom({ from: { offset: 3 } })).toEqual([[3, 4], 5]);
    expect(await valuesFrom({ from: { timestamp: 1_004 } })).toEqual([[4], 5]);
    expect(await valuesFrom({ from: "latest" })).toEqual([[], 5]);
    expect(await valuesFrom({ from: "earliest", maxBytes: 1 })).toEqual([[0], 1]);
    expect(await errorOf(valuesFrom({ from: 6 }))).toMatchObject({ code: "offset_out_of_range" });
  });

  test("gives bytes as bytes, and all else as it was produced", async () => {
    const topic = await stage.newTopic();
    const bytes = Uint8Array.from({ length: 256 }, (_, byte) => byte);
    await stage.http.produce(topic, [
      { key: "k", bytes: Buffer.from(bytes).toString("base64"), timestamp: 7 },
      { value: null, headers: { a: "b" }, timestamp: 8 },
    ]);
    const { topicId } = await admin().topic(topic);
    expect(await admin().readRecords({ topic, partition: 0 })).toEqual({
      topicId,
      records: [
        { offset: 0, timestamp: 7, key: "k", bytes },
        { offset: 1, timestamp: 8, value: null, headers: { a: "b" } },
      ],
      next: 2,
      logStartOffset: 0,
      logEndOffset: 2,
    });
  });

  test("waits for a record, and its signal ends the wait with its reason", async () => {
    const topic = await stage.newTopic();
    const read = { topic, partition: 0 };
    const waiting = admin().readRecords({ ...read, waitMs: 30_000 });
    expect((await admin().readRecords(read)).records).toEqual([]);
    await stage.http.produceNumbers(topic, 1);
    expect((await waiting).records).toMatchObject([{ offset: 0 }]);

    const gone = new AbortController();
    const ended = admin().readRecords({
      topic,
      partition: 0,
      from: 1,
      waitMs: 30_000,
      signal: gone.signal,
    });
    const reason = new Error("enough");
    gone.abort(reason);
    expect(await ended.catch((error) => error)).toBe(reason);
  });
});

describe("groups", () => {
  test("commit() creates a group, entry by entry; group() and groups() tell of it", async () => {
    const group = stage.newGroup();
    const topic = await stage.newTopic(2, 5);
    const answer = await admin().commit(group, [
      { topic, partition: 0, offset: 3, metadata: "m" },
      { topic, partition: 1, offset: 6 },
    ]);
    expect(answer).toEqual([
      { topic, partition: 0, offset: 3 },
      { topic, partition: 1, offset: null, code: "offset_out_of_range" },
    ]);
    const { members, offsets } = await admin().group(group);
    expect(members).toEqual([]);
    expect(offsets[0]).toMatchObject({ topic, committedOffset: 3, lag: 2, metadata: "m" });
    expect(await admin().groups()).toContainEqual({ group, members: 0, lag: 2 });
  });

  test("reset() tries a place, applies the plan of the trial, and refuses it a second time", async () => {
    const group = stage.newGroup();
    const topic = await stage.newTopic(1, 5);
    await admin().commit(group, [{ topic, partition: 0, offset: 4 }]);
    const trial = await admin().reset(group, { topics: [{ topic }], to: { shift: -3 }, dryRun: true });
    expect(trial).toEqual({ plan: [{ topic, partition: 0, from: 4, to: 1 }], applied: false });
    expect(await stage.committedOf(group)).toEqual([4]);
    const { plan } = trial;
    expect(await admin().reset(group, { plan, reason: "once more" })).toEqual({ plan, applied: true });
    expect(await stage.committedOf(group)).toEqual([1]);
    expect(stage.sql(`SELECT cause FROM commit_history WHERE group_id = '${group}'`)).toContain("once more");
    expect(await errorOf(admin().reset(group, { plan }))).toMatchObject({
      code: "conflict",
      retriable: false,
      facts: { status: 409, topic, partition: 0, expected: 4, found: 1 },
    });
  });

  test("forgetTopic() and deleteGroup() wait for no live member: conflict", async () => {
    const group = stage.newGroup();
    const [kept, left] = [await stage.newTopic(1, 1), await stage.newTopic(1, 1)];
    await admin().commit(
      group,
      [kept, left].map((topic) => ({ topic, partition: 0, offset: 1 })),
    );
    const { client } = await stage.joinGroup(group, [kept]);
    expect(await errorOf(admin().deleteGroup(group))).toMatchObject({ code: "conflict" });
    expect(await errorOf(admin().forgetTopic(group, kept))).toMatchObject({ code: "conflict" });
    await admin().forgetTopic(group, left);
    expect((await admin().group(group)).offsets.map(({ topic }) => topic)).toEqual([kept]);
    client.send({ type: "unsubscribe", id: 1 });
    await client.expect("unsubscribed");
    await admin().deleteGroup(group);
    expect(await errorOf(admin().group(group))).toMatchObject({ code: "unknown_group", facts: { group } });
  });

  test("commit() is a conflict while a member is live", async () => {
    const group = stage.newGroup();
    const topic = await stage.newTopic(1, 1);
    const { client } = await stage.joinGroup(group, [topic]);
    client.send({ type: "ack", id: 1, offsets: [ackOf(await client.expect("records"))] });
    await client.expect("acked");
    expect(await errorOf(admin().commit(group, [{ topic, partition: 0, offset: 1 }]))).toMatchObject({
      code: "conflict",
    });
  });
});

describe("the rest", () => {
  test("newEpoch() gives one after the other, and what is older is fenced", async () => {
    const id = stage.newName("producer");
    expect(await admin().newEpoch(id)).toEqual({ id, epoch: 1 });
    expect(await admin().newEpoch(id)).toEqual({ id, epoch: 2 });
  });

  test("ready() says what the database promises", async () => {
    expect(await admin().ready()).toEqual({
      status: "ready",
      durability: "fsync",
      schemaVersion: expect.any(Number),
    });
  });
});

describe("a refusal", () => {
  test("has the server's code, message and facts", async () => {
    const topic = stage.newName("nowhere");
    const error = await errorOf(admin().topic(topic));
    expect(error).toMatchObject({
      code: "unknown_topic",
      retriable: false,
      facts: { code: "unknown_topic", status: 404, topic },
    });
    expect(error.message).toContain(topic);
    expect(error.facts).not.toContainAnyKeys(["detail", "message", "retriable", "retryAfterMs"]);
  });

  test("of settings names what is wrong with them", async () => {
    const topic = stage.newName("topic");
    expect(await errorOf(admin().putTopic(topic, { schema: { properties: { n: { type: "strin" } } } })))
      // A place in the schema.
      .toMatchObject({ code: "bad_request", facts: { status: 400, path: "/properties/n/type" } });
    await admin().putTopic(topic, { partitionCount: 2 });
    const fewer = admin().putTopic(topic, { partitionCount: 1 });
    expect(await errorOf(fewer)).toMatchObject({ code: "conflict", facts: { status: 409 } });
  });

  test.each(["", ".", "..", "a b", "a/b", "a?b", "a#b", "%2e%2e", "ä", "\ud800", "a".repeat(250)])(
    "of the name %j is bad_request, and no other route is met",
    async (name) => {
      const topic = await stage.newTopic();
      for (const call of [
        () => admin().topic(name),
        () => admin().putTopic(name),
        () => admin().deleteGroup(name),
        () => admin().forgetTopic(name, topic),
        () => admin().deleteRecords({ topic: name, partition: 0, before: 0 }),
        () => admin().newEpoch(name),
      ]) {
        const error = await errorOf(call());
        expect([error.code, error.message]).toEqual(["bad_request", expect.stringContaining("a name is")]);
      }
      expect(await admin().topic(topic)).toMatchObject({ topic }); // DELETE /v1/groups/../topics/:topic
    },
  );
});

/** A server that is not ours. `using` ends it. */
function otherServer(answer: (request: Request) => Response | Promise<Response>) {
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: answer });
  const url = `http://127.0.0.1:${server.port}`;
  return { url, [Symbol.dispose]: () => void server.stop(true) };
}

const problemOf = (status: number, problem: object, headers: Record<string, string> = {}) =>
  new Response(JSON.stringify({ status, ...problem }), { status, headers });

test("a record that the topic's schema does not allow is refused with its place", async () => {
  const topic = stage.newName("topic");
  await admin().putTopic(topic, { schema: { properties: { n: { type: "number" } } } });
  const server = { url: readServerUrl(stage.server.url), token: undefined, platform: PLATFORM };
  const produce = (...values: readonly unknown[]) =>
    call(server, {
      method: "POST",
      path: ["v1", "topics", topic, "records"],
      body: { records: values.map((value) => ({ value })) },
    });
  expect(await produce({ n: 1 })).toMatchObject({ status: 200, body: { runs: [{ offset: 0, count: 1 }] } });
  expect(await errorOf(produce({ n: 1 }, { n: "1" }))).toMatchObject({
    code: "schema_violation",
    facts: { status: 422, topic, record: 1, path: "/n", rule: "/properties/n/type" },
  });
});

describe("what is no answer of a server", () => {
  test.each<[string, () => Response]>([
    ["a page", () => new Response("<!doctype html><title>Hello</title>")],
    ["nothing", () => new Response(null)],
    ["a list", () => Response.json([])],
    ["another server's error with a code", () => Response.json({ code: "ENOENT" }, { status: 404 })],
    ["a text", () => Response.json("hello")],
    ["another server's 404", () => Response.json({ error: "no such page" }, { status: 404 })],
    ["a proxy's 401", () => new Response("who are you?", { status: 401 })],
  ])("%s is not_a_server, and says so", async (_, answer) => {
    using other = otherServer(answer);
    const error = await errorOf(adminOf(other.url).topics());
    expect(error).toMatchObject({
      code: "not_a_server",
      retriable: false,
      facts: { status: answer().status },
    });
    expect(error.message).toContain(`${other.url}/v1/topics`);
    expect(error.message).toContain("Check the URL");
  });

  test.each([502, 503, 504, 429])(
    "a proxy's %i is connection_lost: the server may come back",
    async (status) => {
      using other = otherServer(() => new Response("<h1>Bad gateway</h1>", { status }));
      const error = await errorOf(adminOf(other.url).topics());
      expect(error).toMatchObject({ code: "connection_lost", retriable: true });
      expect(error.message).toContain(String(status));
    },
  );

  test("a server that is gone is connection_lost, with its cause and what to do", async () => {
    const gone = otherServer(() => new Response());
    gone[Symbol.dispose]();
    const error = await errorOf(adminOf(gone.url).topics());
    expect(error).toMatchObject({ code: "connection_lost", retriable: true, cause: expect.any(Error) });
    expect(error.message).toContain("is the server running, is this its URL");
    expect(error.message).not.toContain("may have been done");
  });

  test("an answer that was lost is connection_lost, and the request is not sent again", async () => {
    using proxy = new CuttingProxy(Number(new URL(stage.server.url).port));
    proxy.isLost = () => true;
    const id = stage.newName("producer");
    const error = await errorOf(adminOf(proxy.url).newEpoch(id));
    expect(error).toMatchObject({ code: "connection_lost", cause: expect.any(Error) });
    expect(error.message).toContain("may have been done");
    expect(proxy.requests).toHaveLength(1);
    expect(await admin().newEpoch(id)).toEqual({ id, epoch: 2 }); // it was done
  });
});

test("an unavailable server's error says when to come back; a code that is not known is kept", async () => {
  let answer = problemOf(503, { code: "unavailable", detail: "stopping" }, { "retry-after": "2" });
  using other = otherServer(() => answer);
  expect(await errorOf(adminOf(other.url).topics())).toMatchObject({
    code: "unavailable",
    message: "stopping",
    retriable: true,
    facts: { status: 503, retryAfterMs: 2_000 },
  });
  answer = problemOf(409, { code: "of_tomorrow", detail: "new" });
  const unknown = await errorOf(adminOf(other.url).topics());
  expect([unknown.code as string, unknown.retriable, unknown.facts]).toEqual([
    "of_tomorrow",
    false,
    { code: "of_tomorrow", status: 409 },
  ]);
  answer = problemOf(409, { code: "fenced_producer", detail: "older", expected: 2 });
  expect(await errorOf(adminOf(other.url).newEpoch("p"))).toBeInstanceOf(FencedError);
});

describe("a token", () => {
  test("goes with each call, asked for anew", async () => {
    const seen: (string | null)[] = [];
    using other = otherServer(({ headers }) => {
      seen.push(headers.get("authorization"));
      return Response.json({ topics: [] });
    });
    const url = readServerUrl(other.url);
    let tokens = 0;
    const asked = new Admin({ url, platform: PLATFORM, token: async () => `t${++tokens}` });
    await asked.topics();
    await asked.topics();
    await new Admin({ url, platform: PLATFORM, token: "fixed" }).topics();
    await adminOf(other.url).topics();
    expect(seen).toEqual(["Bearer t1", "Bearer t2", "Bearer fixed", null]);
  });

  test("that cannot be fetched is unauthenticated, and nothing is sent", async () => {
    const cause = new Error("no session");
    const platform = { ...PLATFORM, fetch: () => Promise.reject(new Error("it was sent")) };
    const url = readServerUrl(stage.server.url);
    const failing = new Admin({ url, platform, token: () => Promise.reject(cause) });
    expect(await errorOf(failing.topics())).toMatchObject({ code: "unauthenticated", cause });
  });
});

test("what has a body says that it is JSON, what has none says nothing", async () => {
  const seen: (string | null)[] = [];
  using other = otherServer(({ headers }) => {
    seen.push(headers.get("content-type"));
    return Response.json({});
  });
  await adminOf(other.url).putTopic("t");
  await adminOf(other.url).newEpoch("p");
  expect(seen).toEqual(["application/json", null]);
});

test("a signal that is aborted already sends nothing, and asks for no token", async () => {
  const reason = new Error("never mind");
  const token = () => Promise.reject(new Error("it was asked"));
  const asking = new Admin({ url: readServerUrl(stage.server.url), platform: PLATFORM, token });
  const options = { signal: AbortSignal.abort(reason) };
  const topic = stage.newName("topic");
  expect(
    await admin()
      .putTopic(topic, {}, options)
      .catch((error) => error),
  ).toBe(reason);
  expect(await asking.ready(options).catch((error) => error)).toBe(reason);
  expect(await errorOf(admin().topic(topic))).toMatchObject({ code: "unknown_topic" });
});

test("a server behind a path of a proxy is asked there", async () => {
  using other = otherServer(({ url }) => Response.json({ topics: [{ topic: new URL(url).pathname }] }));
  expect(await adminOf(`${other.url}/log/`).topics()).toEqual([
    expect.objectContaining({ topic: "/log/v1/topics" }),
  ]);
});
