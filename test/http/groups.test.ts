// Groups over the real server: what an operator sees of them, and what they may do to them.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { startServer, type TestServer, temporaryFolder } from "../support/server.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";
import { StreamClient } from "../support/stream-client.ts";

const ACK_ENTRIES_MAX = 10_000;
const METADATA_BYTES_MAX = 4_096;
const BODY_BYTES_MAX = 4_000_000;

const folder = temporaryFolder();
let server: TestServer;

beforeAll(async () => {
  server = await startServer(join(folder.path, "t.db"));
});
afterAll(async () => {
  await server.kill("SIGKILL");
  folder.remove();
});

let namesMade = 0;

/** A topic and a group of its own for a test; the topic's first partition holds `count` records. */
async function newNames({ count = 0, partitionCount = 1 } = {}) {
  namesMade += 1;
  const topic = `t${namesMade}`;
  await call("PUT", `/v1/topics/${topic}`, JSON.stringify({ partitionCount }));
  const records = Array.from({ length: count }, (_, value) => ({ value, partition: 0 }));
  if (count > 0) await call("POST", `/v1/topics/${topic}/records`, JSON.stringify({ records }));
  return { topic, group: `g${namesMade}` };
}

function call(method: string, path: string, body?: string): Promise<Response> {
  return fetch(server.url + path, { method, ...(body === undefined ? {} : { body }) });
}

function commit(group: string, offsets: readonly unknown[]): Promise<Response> {
  return call("POST", `/v1/groups/${group}/offsets`, JSON.stringify({ offsets }));
}

async function committed(group: string, offsets: readonly unknown[]): Promise<unknown> {
  const response = await commit(group, offsets);
  const body = (await response.json()) as { offsets: unknown };
  expect({ status: response.status, body }).toEqual({ status: 200, body: { offsets: expect.any(Array) } });
  return body.offsets;
}

async function describeGroup(group: string): Promise<Record<string, unknown>> {
  const response = await call("GET", `/v1/groups/${group}`);
  expect(response.status).toBe(200);
  return (await response.json()) as Record<string, unknown>;
}

async function summaryOf(group: string): Promise<unknown> {
  const { groups } = (await (await call("GET", "/v1/groups")).json()) as { groups: { group: string }[] };
  return groups.find((summary) => summary.group === group);
}

/** An error as it must be, whatever it is. */
async function problemOf(answer: Promise<Response>): Promise<Record<string, unknown>> {
  const response = await answer;
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  const problem = (await response.json()) as Record<string, unknown>;
  expect(problem).toMatchObject({ status: response.status, retriable: false });
  expect(String(problem.detail).length).toBeGreaterThan(10);
  expect(String(problem.detail).length).toBeLessThan(400);
  return problem;
}

async function expectDone(answer: Promise<Response>): Promise<void> {
  const response = await answer;
  expect({ status: response.status, body: await response.text() }).toEqual({ status: 204, body: "" });
}

/** A member of the group that has been given its partitions. */
async function subscribe(topic: string, group: string, more: Record<string, unknown> = {}) {
  const client = await StreamClient.open(server.streamUrl, { patienceMs: 4_000 });
  client.send({ type: "subscribe", id: 1, topics: [topic], group, ...more });
  const { memberId } = await client.expect("subscribed");
  const { partitions } = await client.expect("assigned");
  return { client, memberId, partitions };
}

/** Answered once the membership has ended. */
async function leave(client: StreamClient): Promise<void> {
  client.send({ type: "unsubscribe", id: "bye" });
  for (;;) if ((await client.next()).type === "unsubscribed") break;
  await client.close();
}

describe("GET /v1/groups", () => {
  test("gives every group by name, with live members and lag", async () => {
    const { topic, group } = await newNames({ count: 5 });
    expect(await summaryOf(group)).toBeUndefined();
    const { client } = await subscribe(topic, group);
    await committed(`${group}-outside`, [{ topic, partition: 0, offset: 3 }]);
    expect(await summaryOf(group)).toEqual({ group, members: 1, lag: 5 });
    expect(await summaryOf(`${group}-outside`)).toEqual({ group: `${group}-outside`, members: 0, lag: 2 });
    await leave(client);
    expect(await summaryOf(group)).toEqual({ group, members: 0, lag: 5 });
    const { groups } = (await (await call("GET", "/v1/groups")).json()) as { groups: { group: string }[] };
    const names = groups.map((summary) => summary.group);
    expect(names).toEqual([...names].sort());
  });

  test("gives null as the lag where nothing is committed at all", async () => {
    const { topic, group } = await newNames({ count: 5 });
    const { client } = await subscribe(topic, group, { reset: "none" });
    expect(await summaryOf(group)).toEqual({ group, members: 1, lag: null });
    await leave(client);
  });

  test("/:group says who owns what and where it stands", async () => {
    const { topic, group } = await newNames({ count: 3, partitionCount: 2 });
    const beforeMs = Date.now();
    const { client, memberId, partitions } = await subscribe(topic, group, { instanceId: "tab-7" });
    const generations = partitions.map(({ generation }) => generation);
    const owned = [0, 1].map((partition) => ({ topic, partition, generation: generations[partition] }));
    await client.expect("records");
    const ack = { topic, partition: 0, generation: generations[0], offset: 2, metadata: "half" };
    client.send({ type: "ack", id: 2, offsets: [ack] });
    await client.expect("acked");
    const shared = { topic, logStartOffset: 0, memberId, committedAt: expect.any(Number) };
    const description = await describeGroup(group);
    expect(description).toEqual({
      group,
      members: [
        {
          memberId,
          instanceId: "tab-7",
          topics: [topic],
          partitions: owned,
          leaseExpiresAt: expect.any(Number),
        },
      ],
      offsets: [
        { ...shared, partition: 0, committedOffset: 2, logEndOffset: 3, lag: 1, metadata: "half" },
        { ...shared, partition: 1, committedOffset: 0, logEndOffset: 0, lag: 0, metadata: null },
      ],
    });
    const { members, offsets } = description as {
      members: { leaseExpiresAt: number }[];
      offsets: { committedAt: number }[];
    };
    const times = [members[0]?.leaseExpiresAt, ...offsets.map(({ committedAt }) => committedAt)];
    for (const time of times) {
      expect(Number.isSafeInteger(time)).toBe(true);
      expect(Math.abs(Number(time) - beforeMs)).toBeLessThan(120_000);
    }
    await leave(client);
    expect(await describeGroup(group)).toMatchObject({ members: [], offsets: [{ memberId: null }, {}] });
  });

  test("/:group of a group that is not there is unknown_group", async () => {
    const problem = await problemOf(call("GET", "/v1/groups/nobody"));
    expect(problem).toMatchObject({ status: 404, code: "unknown_group", group: "nobody" });
  });
});

describe("DELETE /v1/groups/:group", () => {
  test("leaves nothing behind, in no table and no view", async () => {
    const { topic, group } = await newNames({ count: 2, partitionCount: 2 });
    const { client } = await subscribe(topic, group);
    await leave(client);
    await expectDone(call("DELETE", `/v1/groups/${group}`));
    expect(await problemOf(call("GET", `/v1/groups/${group}`))).toMatchObject({ code: "unknown_group" });
    expect(await summaryOf(group)).toBeUndefined();
    const counts = ["consumer_lag", "group_members", "commit_history", "committed_offsets", "groups"].map(
      (name) => stockSqlite(server.databasePath, `SELECT count(*) FROM ${name} WHERE group_id = '${group}'`),
    );
    expect(counts).toEqual(["0", "0", "0", "0", "0"]);
  });

  test("is a conflict while it has a live member, which does not notice", async () => {
    const { topic, group } = await newNames({ count: 1 });
    const { client, partitions } = await subscribe(topic, group);
    const problem = await problemOf(call("DELETE", `/v1/groups/${group}`));
    expect(problem).toMatchObject({ status: 409, code: "conflict", group });
    const { next, generation } = await client.expect("records");
    expect(generation).toBe(partitions[0]?.generation ?? -1);
    client.send({ type: "ack", id: 2, offsets: [{ topic, partition: 0, generation, offset: next }] });
    expect((await client.expect("acked")).offsets).toEqual([{ topic, partition: 0, offset: next }]);
    await leave(client);
    await expectDone(call("DELETE", `/v1/groups/${group}`));
  });

  test("is a conflict while a static member may come back, though its socket is closed", async () => {
    const { topic, group } = await newNames();
    const { client } = await subscribe(topic, group, { instanceId: "tab" });
    await client.close();
    expect(await problemOf(call("DELETE", `/v1/groups/${group}`))).toMatchObject({ code: "conflict" });
    const back = await subscribe(topic, group, { instanceId: "tab" });
    await leave(back.client);
    await expectDone(call("DELETE", `/v1/groups/${group}`));
  });

  test("of a group that is not there is unknown_group", async () => {
    const problem = await problemOf(call("DELETE", "/v1/groups/nobody"));
    expect(problem).toMatchObject({ status: 404, code: "unknown_group", group: "nobody" });
  });

  test("lets it be born again, from the beginning and in greater generations", async () => {
    const { topic, group } = await newNames({ count: 2, partitionCount: 3 });
    let highest = 0;
    for (let life = 0; life < 3; life += 1) {
      const { client, partitions } = await subscribe(topic, group);
      const generations = partitions.map(({ generation }) => generation);
      expect(Math.min(...generations)).toBeGreaterThan(highest);
      highest = Math.max(...generations);
      const { next, generation, records } = await client.expect("records");
      expect(records[0]?.offset).toBe(0);
      client.send({ type: "ack", id: 2, offsets: [{ topic, partition: 0, generation, offset: next }] });
      await client.expect("acked");
      await leave(client);
      await expectDone(call("DELETE", `/v1/groups/${group}`));
    }
  });
});

describe("DELETE /v1/groups/:group/topics/:topic", () => {
  test("forgets a topic that the group left", async () => {
    const [first, second] = [await newNames({ count: 2 }), await newNames({ count: 2 })];
    const { group } = first;
    await committed(group, [
      { topic: first.topic, partition: 0, offset: 1 },
      { topic: second.topic, partition: 0, offset: 1 },
    ]);
    await expectDone(call("DELETE", `/v1/groups/${group}/topics/${first.topic}`));
    expect(await describeGroup(group)).toMatchObject({ offsets: [{ topic: second.topic, lag: 1 }] });
    const again = await problemOf(call("DELETE", `/v1/groups/${group}/topics/${first.topic}`));
    expect(again).toMatchObject({ status: 404, code: "unknown_topic", group, topic: first.topic });
  });

  test("is a conflict while a live member subscribes to it, and only to it", async () => {
    const [first, second] = [await newNames({ count: 2 }), await newNames({ count: 2 })];
    const { group } = first;
    await committed(group, [{ topic: second.topic, partition: 0, offset: 1 }]);
    const { client } = await subscribe(first.topic, group);
    const problem = await problemOf(call("DELETE", `/v1/groups/${group}/topics/${first.topic}`));
    expect(problem).toMatchObject({ status: 409, code: "conflict", group, topic: first.topic });
    await expectDone(call("DELETE", `/v1/groups/${group}/topics/${second.topic}`));
    expect((await client.expect("records")).records).toHaveLength(2);
    await leave(client);
    await expectDone(call("DELETE", `/v1/groups/${group}/topics/${first.topic}`));
    expect(await describeGroup(group)).toEqual({ group, members: [], offsets: [] });
  });

  test("of a group that is not there is unknown_group", async () => {
    const { topic } = await newNames();
    const problem = await problemOf(call("DELETE", `/v1/groups/nobody/topics/${topic}`));
    expect(problem).toMatchObject({ status: 404, code: "unknown_group" });
  });
});

describe("POST /v1/groups/:group/offsets", () => {
  test("creates the group, and a consumer goes on from there", async () => {
    const { topic, group } = await newNames({ count: 5 });
    const offsets = [{ topic, partition: 0, offset: 3, metadata: "from the old log" }];
    expect(await committed(group, offsets)).toEqual([{ topic, partition: 0, offset: 3 }]);
    const { client, partitions } = await subscribe(topic, group, { reset: "latest" });
    expect(partitions).toMatchObject([{ position: 3, committedOffset: 3, metadata: "from the old log" }]);
    expect((await client.expect("records")).records.map(({ value }) => value)).toEqual([3, 4]);
    await leave(client);
  });

  test("answers each entry, forward only and inside the log", async () => {
    const { topic, group } = await newNames({ count: 5, partitionCount: 2 });
    const entry = { topic, partition: 0 };
    expect(
      await committed(group, [
        { ...entry, offset: 2 },
        { ...entry, offset: 4 },
        { ...entry, offset: 6 },
        { topic, partition: 1, offset: 1 },
        { topic, partition: 2, offset: 0 },
        { topic: "nowhere", partition: 0, offset: 0 },
      ]),
    ).toEqual([
      { ...entry, offset: 4 },
      { ...entry, offset: 4, code: "offset_out_of_range" },
      { topic, partition: 1, offset: null, code: "offset_out_of_range" },
      { topic, partition: 2, offset: null, code: "unknown_partition" },
      { topic: "nowhere", partition: 0, offset: null, code: "unknown_topic" },
    ]);
    expect(await committed(group, [{ ...entry, offset: 1 }])).toEqual([{ ...entry, offset: 4 }]);
    expect((await call("GET", "/v1/topics/nowhere")).status).toBe(404);
  });

  test("is a conflict while the group has a live member", async () => {
    const { topic, group } = await newNames({ count: 5 });
    const { client } = await subscribe(topic, group);
    const problem = await problemOf(commit(group, [{ topic, partition: 0, offset: 3 }]));
    expect(problem).toMatchObject({ status: 409, code: "conflict", group });
    expect(await describeGroup(group)).toMatchObject({ offsets: [{ committedOffset: 0 }] });
    await leave(client);
    expect(await committed(group, [{ topic, partition: 0, offset: 3 }])).toMatchObject([{ offset: 3 }]);
  });

  test("by many at once leaves the highest", async () => {
    const { topic, group } = await newNames({ count: 30 });
    const order = Array.from({ length: 30 }, (_, index) => ((index * 7) % 30) + 1);
    await Promise.all(order.map((offset) => committed(group, [{ topic, partition: 0, offset }])));
    expect(await describeGroup(group)).toMatchObject({ offsets: [{ committedOffset: 30, lag: 0 }] });
  });

  const entry = (more: Record<string, unknown>) =>
    JSON.stringify({ offsets: [{ topic: "a", partition: 0, offset: 0, ...more }] });

  test.each([
    ["no body", "", "one JSON object"],
    ["an array", "[]", "one JSON object"],
    ["half an object", "{", "one JSON object"],
    ["no offsets", "{}", '"offsets" must be there'],
    ["offsets null", '{"offsets":null}', '"offsets"'],
    ["offsets as an object", '{"offsets":{}}', '"offsets"'],
    ["no entries", '{"offsets":[]}', '"offsets" must not be empty'],
    ["an entry that is none", '{"offsets":[7]}', '"offsets.0"'],
    ["no topic", '{"offsets":[{"partition":0,"offset":0}]}', '"offsets.0.topic" must be there'],
    ["no offset", '{"offsets":[{"topic":"a","partition":0}]}', '"offsets.0.offset" must be there'],
    ["a topic that is no name", entry({ topic: "a b" }), '"offsets.0.topic"'],
    ["a negative offset", entry({ offset: -1 }), '"offsets.0.offset" must be an integer from 0'],
    ["half an offset", entry({ offset: 1.5 }), '"offsets.0.offset" must be an integer from 0'],
    [
      "an offset past 2^53",
      '{"offsets":[{"topic":"a","partition":0,"offset":9007199254740992}]}',
      '"offsets.0.offset"',
    ],
    ["an offset as text", entry({ offset: "1" }), '"offsets.0.offset" must be a number'],
    ["a negative partition", entry({ partition: -1 }), '"offsets.0.partition"'],
    ["a generation", entry({ generation: 3 }), 'there is no member "offsets.0.generation"'],
    ["a member that nobody knows", '{"offsets":[{"topic":"a","partition":0,"offset":0}],"x":1}', '"x"'],
    ["NUL in metadata", entry({ metadata: "a\0b" }), "NUL"],
    ["a lone surrogate in metadata", entry({ metadata: "\ud800" }), "lone surrogate"],
    [
      "a member twice",
      '{"offsets":[{"topic":"a","partition":0,"offset":0,"offset":1}]}',
      'the member "offset" is there twice',
    ],
  ])("refuses %s", async (_, body, why) => {
    const problem = await problemOf(call("POST", "/v1/groups/refused/offsets", body));
    expect(problem).toMatchObject({ status: 400, code: "bad_request" });
    expect(problem.detail).toContain(why);
    expect(await summaryOf("refused")).toBeUndefined();
  });

  test("takes 10,000 entries and refuses one more", async () => {
    const { topic, group } = await newNames({ count: 1 });
    const entries = Array.from({ length: ACK_ENTRIES_MAX + 1 }, () => ({ topic, partition: 0, offset: 1 }));
    const problem = await problemOf(commit(group, entries));
    expect(problem).toMatchObject({ status: 400, code: "bad_request" });
    expect(problem.detail).toContain(`at most ${ACK_ENTRIES_MAX} entries`);
    expect(await committed(group, entries.slice(1))).toEqual([{ topic, partition: 0, offset: 1 }]);
  });

  test("takes 4 KiB of metadata and refuses one byte more", async () => {
    const { topic, group } = await newNames();
    const longest = "é".repeat(METADATA_BYTES_MAX / 2);
    const withMetadata = (metadata: string) => [{ topic, partition: 0, offset: 0, metadata }];
    const problem = await problemOf(commit(group, withMetadata(`${longest}x`)));
    expect(problem).toMatchObject({ status: 400, code: "bad_request" });
    await committed(group, withMetadata(longest));
    expect(await describeGroup(group)).toMatchObject({ offsets: [{ metadata: longest }] });
  });

  test("takes a body of 4,000,000 bytes and refuses one more", async () => {
    const { topic, group } = await newNames();
    const body = JSON.stringify({ offsets: [{ topic, partition: 0, offset: 0 }] });
    const path = `/v1/groups/${group}/offsets`;
    const problem = await problemOf(call("POST", path, body.padEnd(BODY_BYTES_MAX + 1)));
    expect(problem).toMatchObject({ status: 413, code: "batch_too_large" });
    expect((await call("POST", path, body.padEnd(BODY_BYTES_MAX))).status).toBe(200);
  });
});

const ROUTES = [
  ["GET", "/v1/groups/:name"],
  ["DELETE", "/v1/groups/:name"],
  ["DELETE", "/v1/groups/:name/topics/orders"],
  ["DELETE", "/v1/groups/billing/topics/:name"],
  ["POST", "/v1/groups/:name/offsets"],
] as const;

test.each(ROUTES)("%s %s refuses what is no name", async (method, path) => {
  for (const name of ["a%20b", "%C3%A4", "n".repeat(250), "a:b"]) {
    const problem = await problemOf(call(method, path.replace(":name", name)));
    expect(problem).toMatchObject({ status: 400, code: "bad_request" });
    expect(problem.detail).toContain("1 to 249 characters of A-Z a-z 0-9 . _ -");
  }
});

test.each([["GET", "/v1/groups"], ...ROUTES])(
  "%s %s refuses a parameter by its name",
  async (method, path) => {
    for (const [query, named] of [
      ["force=true", "force"],
      ["a=1&a=2", "a"],
    ]) {
      const problem = await problemOf(call(method, `${path.replace(":name", "billing")}?${query}`));
      expect(problem).toMatchObject({ status: 400, code: "bad_request" });
      expect(problem.detail).toContain(`"${named}"`);
    }
  },
);

test.each([
  ["POST", "/v1/groups", "GET"],
  ["PUT", "/v1/groups/billing", "GET, DELETE"],
  ["GET", "/v1/groups/billing/topics/orders", "DELETE"],
  ["GET", "/v1/groups/billing/offsets", "POST"],
])("%s %s is 405, and Allow names what it takes", async (method, path, allow) => {
  const response = await call(method, path);
  expect(response.headers.get("allow")).toBe(allow);
  expect(response.status).toBe(405);
});

test("nothing of all this was a defect in the server's log", () => {
  expect(
    server.logged.split("\n").filter((line) => /event="(defect|database failed|write failed)"/.test(line)),
  ).toEqual([]);
});
