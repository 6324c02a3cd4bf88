// Growing, deleting and trimming topics, against the real server.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { describeLong } from "../support/long.ts";
import { startServer, type TestServer, temporaryFolder } from "../support/server.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";
import { StreamClient } from "../support/stream-client.ts";

const folder = temporaryFolder();
let server: TestServer;
let strict: TestServer;

beforeAll(async () => {
  server = await startServer(join(folder.path, "dev.db"));
  strict = await startServer(join(folder.path, "serve.db"), { mode: "serve" });
});
afterAll(async () => {
  await Promise.all([server.kill("SIGKILL"), strict.kill("SIGKILL")]);
  folder.remove();
});

interface At {
  readonly at?: TestServer;
}

async function call(method: string, path: string, { at = server, body }: At & { body?: unknown } = {}) {
  const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
  const response = await fetch(`${at.url}/v1/topics/${path}`, init);
  const text = await response.text();
  return { status: response.status, ...(text === "" ? { isEmpty: true } : JSON.parse(text)) };
}

const put = (topic: string, partitionCount: number | null, at?: At) =>
  call("PUT", topic, { ...at, body: { partitionCount } });

const produce = (topic: string, records: readonly unknown[], at?: At) =>
  call("POST", `${topic}/records`, { ...at, body: { records } });

const values = (count: number, partition = 0) =>
  Array.from({ length: count }, (_, value) => ({ value, partition }));

const read = (topic: string, query = "", at?: At) => call("GET", `${topic}/partitions/0/records${query}`, at);

const trim = (topic: string, query: string, at?: At & { partition?: string }) =>
  call("DELETE", `${topic}/partitions/${at?.partition ?? "0"}/records${query}`, at);

const sql = (text: string, { databasePath } = server) => stockSqlite(databasePath, text);

/** A real deletion in the background has no event to wait for; the test's own timeout ends the wait. */
async function untilPurged({ databasePath }: TestServer): Promise<void> {
  while (sql("SELECT count(*) FROM purges", { databasePath } as TestServer) !== "0") await Bun.sleep(5);
}

describe("PUT /v1/topics/:topic with more partitions", () => {
  test("adds them, and answers 200 with the description", async () => {
    const { topicId } = await put("grows", 2);
    await produce("grows", values(3, 1));
    const grown = await put("grows", 4);
    expect(grown).toMatchObject({ status: 200, topic: "grows", topicId, partitionCount: 4 });
    expect(grown.partitions.map(({ logEndOffset }: { logEndOffset: number }) => logEndOffset)).toEqual([
      0, 3, 0, 0,
    ]);
    expect(await call("GET", "grows")).toEqual({ ...grown, status: 200 });
    expect((await produce("grows", values(1, 3))).runs).toEqual([{ partition: 3, offset: 0, count: 1 }]);
    expect(sql("SELECT count(*) FROM partition_stats WHERE topic = 'grows'")).toBe("4");
  });

  test("keeps them where the count is absent; fewer, and the default of null, is a conflict", async () => {
    await put("keeps", 1);
    const three = await put("keeps", 3);
    expect(await call("PUT", "keeps")).toEqual(three);
    expect(await put("keeps", null)).toMatchObject({ status: 409, code: "conflict", found: 3, asked: 1 });
    expect(await put("keeps", 2)).toMatchObject({ status: 409, code: "conflict", found: 3, asked: 2 });
    expect(await put("keeps", 1_025)).toMatchObject({ status: 400, code: "bad_request" });
    expect(await call("GET", "keeps")).toEqual(three);
  });

  test("many at once gives each partition once, and the highest count", async () => {
    const counts = Array.from({ length: 20 }, (_, index) => 1 + ((index * 7) % 20));
    const answers = await Promise.all(counts.map((count) => put("at-once", count)));
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(1);
    for (const { status } of answers) expect([200, 201, 409]).toContain(status);
    const { partitions } = await call("GET", "at-once");
    expect(partitions.map(({ partition }: { partition: number }) => partition)).toEqual(
      Array.from({ length: 20 }, (_, partition) => partition),
    );
  });
});

describe("PUT /v1/topics/:topic of a topic that a group has", () => {
  test("is a conflict that names the group where it would be too large to be read, and changes nothing", async () => {
    const [last = "", ...large] = Array.from({ length: 7 }, (_, n) => `large-${n}`.padEnd(249, "-"));
    for (const topic of large) await put(topic, 1_024);
    await put(last, 1);
    const offsets = [last, ...large].map((topic) => ({ topic, partition: 0, offset: 0 }));
    const body = JSON.stringify({ offsets });
    expect((await fetch(`${server.url}/v1/groups/huge/offsets`, { method: "POST", body })).status).toBe(200);
    const found = (6 * 1_024 + 534) * (350 + 249);
    const refusal = { status: 409, code: "conflict", group: "huge", found, allowed: 4_000_000 };
    const refused = await put(last, 534);
    expect(refused).toMatchObject(refusal);
    expect(refused.detail).toContain(`534 partitions: with them those of group "huge" take ${found} bytes`);
    expect(await call("GET", last)).toMatchObject({ partitionCount: 1, partitions: { length: 1 } });
    expect(await put(last, 533)).toMatchObject({ status: 200, partitionCount: 533 });
    expect((await call("DELETE", last)).status).toBe(204);
    expect(await put(last, 534)).toMatchObject(refusal);
    expect((await call("GET", last)).status).toBe(404);
    expect(await put(last, 533)).toMatchObject({ status: 201, partitionCount: 533 });
    for (const topic of [last, ...large]) await call("DELETE", topic);
  });
});

describe("DELETE /v1/topics/:topic", () => {
  test("answers 204, and it is gone from every view and call", async () => {
    await put("gone", 2, { at: strict });
    await produce("gone", values(10), { at: strict });
    expect(await call("DELETE", "gone", { at: strict })).toEqual({ status: 204, isEmpty: true });
    const unknown = { status: 404, code: "unknown_topic", topic: "gone" };
    expect(await call("GET", "gone", { at: strict })).toMatchObject(unknown);
    expect(await call("DELETE", "gone", { at: strict })).toMatchObject(unknown);
    expect(await produce("gone", values(1), { at: strict })).toMatchObject(unknown);
    expect(await read("gone", "", { at: strict })).toMatchObject(unknown);
    expect(await read("gone", "?waitMs=30000", { at: strict })).toMatchObject(unknown);
    expect(await trim("gone", "?before=1", { at: strict })).toMatchObject(unknown);
    for (const view of ["topic_records", "partition_stats", "consumer_lag"])
      expect(sql(`SELECT count(*) FROM ${view} WHERE topic = 'gone'`, strict)).toBe("0");
    await untilPurged(strict);
    expect(sql("SELECT count(*) FROM records", strict)).toBe("0");
  });

  test("answers a long-poll there at once, and no other", async () => {
    await put("waits", 1);
    await put("waits-on", 1);
    const waiting = Array.from({ length: 5 }, () => read("waits", "?from=latest&waitMs=30000"));
    const other = read("waits-on", "?waitMs=30000");
    await read("waits", "?from=latest&waitMs=1"); // all have been asked by now
    expect((await call("DELETE", "waits")).status).toBe(204);
    for (const answer of await Promise.all(waiting)) {
      expect(answer).toMatchObject({ status: 404, code: "unknown_topic", topic: "waits" });
      expect(answer.detail).toContain('"waits"');
    }
    expect((await call("GET", "waits")).status).toBe(404); // no answer has created it again
    await produce("waits-on", values(1));
    expect(await other).toMatchObject({ status: 200, next: 1 });
  });

  test("lets a topic of the same name be another one", async () => {
    const first = await put("again", 3);
    await produce("again", values(5));
    await call("DELETE", "again");
    const second = await put("again", 1);
    expect(second.status).toBe(201);
    expect(second.topicId).toBeGreaterThan(first.topicId);
    expect(second.partitions).toMatchObject([{ logStartOffset: 0, logEndOffset: 0, records: 0 }]);
    expect(await read("again")).toMatchObject({ topicId: second.topicId, records: [], next: 0 });
    expect((await produce("again", values(1))).runs).toEqual([{ partition: 0, offset: 0, count: 1 }]);
    expect(await produce("again", values(1, 2))).toMatchObject({ status: 404, code: "unknown_partition" });
  });

  test("lets first use create it again", async () => {
    await produce("first-use", values(5));
    await call("DELETE", "first-use");
    expect((await produce("first-use", values(1))).runs).toEqual([{ partition: 0, offset: 0, count: 1 }]);
  });

  test("takes committed offsets with it; a group that knew it starts at the new one's beginning", async () => {
    await produce("acked", values(5));
    const consume = async (reset: string) => {
      const client = await StreamClient.open(`${server.streamUrl}?topic=acked&group=g&reset=${reset}`);
      await client.expect("subscribed");
      const { partitions } = await client.expect("assigned");
      return { client, partition: partitions[0] };
    };
    const before = await consume("earliest");
    await before.client.expect("records");
    const { generation } = before.partition ?? { generation: 0 };
    before.client.send({
      type: "ack",
      id: 1,
      offsets: [{ topic: "acked", partition: 0, generation, offset: 5 }],
    });
    await before.client.expect("acked");
    await call("DELETE", "acked");
    expect(sql("SELECT count(*) FROM consumer_lag WHERE group_id = 'g'")).toBe("0");
    expect(sql("SELECT count(*) FROM committed_offsets WHERE group_id = 'g'")).toBe("0");
    expect(Number(sql("SELECT count(*) FROM commit_history WHERE group_id = 'g'"))).toBeGreaterThan(0);
    await before.client.close();
    await produce("acked", values(7));
    const after = await consume("latest");
    expect(after.partition).toMatchObject({ position: 0, committedOffset: 0, logEndOffset: 7 });
    expect(after.partition?.topicId).not.toBe(before.partition?.topicId);
    await after.client.close();
  });

  test.each([
    ["?now=true", 'no parameter "now"'],
    ["?partition=0", 'no parameter "partition"'],
  ])("refuses %s, and deletes nothing", async (query, why) => {
    await put("stays", 1);
    const problem = await call("DELETE", `stays${query}`);
    expect(problem).toMatchObject({ status: 400, code: "bad_request" });
    expect(problem.detail).toContain(why);
    expect((await call("GET", "stays")).status).toBe(200);
  });

  test.each(["a%20b", "a:b", "n".repeat(250), "%2e%2E"])("refuses what is no name: %s", async (name) => {
    expect((await call("DELETE", name)).status).toBeOneOf([400, 404, 405]);
    expect((await call("DELETE", name)).code).toBe("bad_request");
  });
});

describe("DELETE …/records?before=N", () => {
  test("moves the log start up; what is below is gone from every view and call", async () => {
    const { topicId } = await put("trimmed", 2);
    await produce("trimmed", [...values(10), ...values(4, 1)]);
    expect(await trim("trimmed", "?before=7")).toEqual({
      status: 200,
      topic: "trimmed",
      topicId,
      partition: 0,
      logStartOffset: 7,
      logEndOffset: 10,
    });
    expect(await read("trimmed")).toMatchObject({ logStartOffset: 7, next: 10, records: { length: 3 } });
    expect(await read("trimmed", "?from=6")).toMatchObject({
      status: 416,
      code: "offset_out_of_range",
      logStartOffset: 7,
    });
    const { partitions } = await call("GET", "trimmed");
    expect(partitions).toEqual([
      { partition: 0, logStartOffset: 7, logEndOffset: 10, records: 3, bytes: 3 },
      { partition: 1, logStartOffset: 0, logEndOffset: 4, records: 4, bytes: 4 },
    ]);
    expect(sql("SELECT min(offset), count(*) FROM topic_records WHERE topic='trimmed' AND partition=0")).toBe(
      "7|3",
    );
  });

  test("at or below the log start does nothing, to the log end leaves nothing", async () => {
    await produce("emptied", values(10));
    await trim("emptied", "?before=4");
    for (const before of [0, 3, 4])
      expect(await trim("emptied", `?before=${before}`)).toMatchObject({ status: 200, logStartOffset: 4 });
    expect(await trim("emptied", "?before=10")).toMatchObject({ logStartOffset: 10, logEndOffset: 10 });
    expect(await trim("emptied", "?before=10")).toMatchObject({ status: 200 });
    expect(await read("emptied")).toMatchObject({ records: [], next: 10, logStartOffset: 10 });
    expect((await produce("emptied", values(1))).runs).toEqual([{ partition: 0, offset: 10, count: 1 }]);
    expect(await read("emptied", "?from=@0")).toMatchObject({ next: 11, records: [{ offset: 10 }] });
  });

  test("above the log end is offset_out_of_range with the facts, and deletes nothing", async () => {
    await produce("too-far", values(3));
    expect(await trim("too-far", "?before=4")).toMatchObject({
      status: 416,
      code: "offset_out_of_range",
      found: 4,
      logStartOffset: 0,
      logEndOffset: 3,
    });
    expect(await trim("too-far", "?before=9007199254740991")).toMatchObject({ status: 416 });
    expect(await read("too-far")).toMatchObject({ records: { length: 3 }, logStartOffset: 0 });
  });

  test.each([
    ["", '"before" must be there'],
    ["?before=", '"before"'],
    ["?before=-1", '"before"'],
    ["?before=1.5", '"before"'],
    ["?before=1e1", '"before"'],
    ["?before=01", '"before"'],
    ["?before=earliest", '"before"'],
    ["?before=9007199254740992", '"before"'],
    ["?before=1&before=2", '"before" is there twice'],
    ["?before=1&from=0", '"from"'],
    ["?to=1", '"to"'],
  ])("refuses %p by name, and deletes nothing", async (query, why) => {
    await put("refuses", 1);
    await produce("refuses", values(1));
    const problem = await trim("refuses", query);
    expect(problem).toMatchObject({ status: 400, code: "bad_request" });
    expect(problem.detail).toContain(why);
    expect(await read("refuses")).toMatchObject({ logStartOffset: 0, records: [{ offset: 0 }] });
    await call("DELETE", "refuses");
  });

  test("of a topic or partition that is not there is refused, and creates none", async () => {
    expect(await trim("nowhere", "?before=0")).toMatchObject({
      status: 404,
      code: "unknown_topic",
      topic: "nowhere",
    });
    expect((await call("GET", "nowhere")).status).toBe(404);
    await put("somewhere", 2);
    expect(await trim("somewhere", "?before=0", { partition: "2" })).toMatchObject({
      status: 404,
      code: "unknown_partition",
      topic: "somewhere",
      partition: 2,
      partitionCount: 2,
    });
    for (const partition of ["-1", "x", "1.0", "01"])
      expect(await trim("somewhere", "?before=0", { partition })).toMatchObject({
        status: 400,
        code: "bad_request",
      });
    for (const name of ["a%20b", "n".repeat(250)])
      expect(await trim(name, "?before=0")).toMatchObject({ status: 400, code: "bad_request" });
  });

  test("agrees with the views after every step, and the lag counts what is left", async () => {
    const database = join(folder.path, "steps.db");
    await using steps = await startServer(database);
    const at = { at: steps };
    await put("long", 1, at);
    for (let batch = 0; batch < 5; batch += 1) await produce("long", values(10_000), at);
    const offsets = [{ topic: "long", partition: 0, offset: 10 }];
    const body = JSON.stringify({ offsets });
    expect((await fetch(`${steps.url}/v1/groups/g/offsets`, { method: "POST", body })).status).toBe(200);
    const trimming = trim("long", "?before=49990", at);
    let isDone = false;
    void trimming.then(() => {
      isDone = true;
    });
    const seen = new Set<string>();
    for (let isLast = false; !isLast; ) {
      isLast = isDone;
      const agrees = `
        SELECT s.log_start_offset, s.records = count(r.offset) AND s.bytes = coalesce(sum(length(r.value)), 0)
          AND s.log_start_offset = min(r.offset)
          AND (SELECT lag FROM consumer_lag) = s.log_end_offset - max(10, s.log_start_offset)
        FROM partition_stats AS s LEFT JOIN topic_records AS r ON r.topic = s.topic`;
      const [start = "", isRight] = sql(agrees, steps).split("|");
      expect({ start, isRight }).toEqual({ start, isRight: "1" });
      seen.add(start);
      await Bun.sleep(0);
    }
    expect(await trimming).toMatchObject({ status: 200, logStartOffset: 49_990, logEndOffset: 50_000 });
    expect(seen.has("49990")).toBe(true);
  }, 30_000);
});

describeLong("a large topic that is deleted", "writes and deletes 200,000 records", () => {
  const COUNT = 200_000;

  async function startWithLargeTopic(name: string): Promise<TestServer> {
    const path = join(folder.path, `${name}.db`);
    const first = await startServer(path);
    await put("large", 1, { at: first });
    await put("small", 1, { at: first });
    expect(await first.kill("SIGTERM")).toBe(0);
    stockSqlite(
      path,
      `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ${COUNT})
       INSERT INTO records SELECT 1, i, i, NULL, printf('"%.200c"', 'x'), NULL FROM n;
       UPDATE partitions SET log_end_offset = ${COUNT}, records = ${COUNT}, bytes = 202 * ${COUNT}
       WHERE partition_id = 1;`,
    );
    return startServer(path);
  }

  const countOf = (of: TestServer) => Number(sql("SELECT count(*) FROM records WHERE partition_id = 1", of));

  test("is purged while others produce and consume", async () => {
    await using busy = await startWithLargeTopic("busy");
    const at = { at: busy };
    expect((await call("DELETE", "large", at)).status).toBe(204);
    expect((await call("GET", "large", at)).status).toBe(404);
    let during = 0;
    for (let offset = 0; countOf(busy) > 0; offset += 1) {
      expect((await produce("small", values(1), at)).runs).toEqual([{ partition: 0, offset, count: 1 }]);
      expect(await read("small", `?from=${offset}`, at)).toMatchObject({ next: offset + 1 });
      if (countOf(busy) > 0) during += 1;
    }
    expect(during).toBeGreaterThan(0);
    await untilPurged(busy);
    expect(sql("PRAGMA integrity_check", busy)).toBe("ok");
  }, 60_000);

  test("is purged to the end by the next server, where kill -9 came in the middle", async () => {
    const killed = await startWithLargeTopic("killed");
    expect((await call("DELETE", "large", { at: killed })).status).toBe(204);
    while (countOf(killed) === COUNT) await Bun.sleep(1);
    await killed.kill("SIGKILL");
    const left = countOf(killed);
    expect(left).toBeGreaterThan(0);
    expect(left).toBeLessThan(COUNT);
    expect(sql("SELECT count(*) FROM topic_records", killed)).toBe("0");
    await using next = await startServer(killed.databasePath);
    await untilPurged(next);
    expect(countOf(next)).toBe(0);
    expect(sql("PRAGMA integrity_check", next)).toBe("ok");
    expect(await next.kill("SIGTERM")).toBe(0);
  }, 60_000);

  test("does not keep the server from stopping in the middle", async () => {
    const stopped = await startWithLargeTopic("stopped");
    expect((await call("DELETE", "large", { at: stopped })).status).toBe(204);
    expect(await stopped.kill("SIGTERM")).toBe(0);
    expect(await stopped.stderr()).not.toContain("failed");
    expect(sql("SELECT count(*) FROM purges", stopped)).toBe("1");
  }, 60_000);
});

test("nothing of all this was a defect in the servers' logs", () => {
  expect([server.logged, strict.logged]).toEqual(["", ""]);
});
