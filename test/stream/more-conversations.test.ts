// Readers, positions, at most once and produce over the real socket, as transcripts.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { AssignedPartition } from "../../src/protocol/frames.ts";
import type { Place, ReaderPlace } from "../../src/protocol/places.ts";
import { HttpClient } from "../support/http-client.ts";
import { startServer, type TestServer, temporaryFolder } from "../support/server.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";
import { type FrameOf, StreamClient } from "../support/stream-client.ts";

const folder = temporaryFolder();
let server: TestServer;
let http: HttpClient;

beforeAll(async () => {
  server = await startServer(join(folder.path, "t.db"));
  http = new HttpClient(server);
});
afterAll(async () => {
  await server.kill("SIGKILL");
  folder.remove();
});

let names = 0;

/** A topic of its own, with that many records in partition 0: offset n has the value n and the timestamp 1000 + n. */
async function newTopic(records: number, partitionCount = 1): Promise<string> {
  names += 1;
  const topic = `topic-${names}`;
  await http.createTopic(topic, partitionCount);
  if (records > 0) await http.produceNumbers(topic, records);
  return topic;
}

function newGroup(): string {
  names += 1;
  return `group-${names}`;
}

function open(query = ""): Promise<StreamClient> {
  return StreamClient.open(server.streamUrl + query, { patienceMs: 4_000 });
}

interface Opened {
  readonly client: StreamClient;
  readonly partition: AssignedPartition;
}

async function subscribe(frame: Readonly<Record<string, unknown>>): Promise<Opened> {
  const client = await open();
  client.send({ type: "subscribe", ...frame });
  await client.expect("subscribed");
  const { partitions } = await client.expect("assigned");
  const [partition] = partitions;
  if (!partition) throw new Error("nothing was assigned");
  return { client, partition };
}

function valuesOf(frames: readonly FrameOf<"records">[]): readonly unknown[] {
  return frames.flatMap(({ records }) => records.map(({ value }) => value));
}

function countFrom(first: number, end: number): readonly number[] {
  return Array.from({ length: end - first }, (_, index) => first + index);
}

function committed(group: string): string {
  return stockSqlite(
    server.databasePath,
    `SELECT coalesce(group_concat(partition_id || '=' || committed_offset), 'nothing') FROM committed_offsets WHERE group_id = '${group}'`,
  ).trim();
}

describe("a reader", () => {
  test("of the whole topic reads it and what comes, owns nothing and commits nothing", async () => {
    const topic = await newTopic(3);
    const { client, partition } = await subscribe({ id: 1, topics: [topic], from: "earliest" });
    expect(partition).toMatchObject({
      topic,
      partition: 0,
      position: 0,
      committedOffset: null,
      generation: 1,
    });
    expect(valuesOf(await client.expectRecords(3))).toEqual([0, 1, 2]);
    await http.produce(topic, [{ value: "new" }]);
    expect(valuesOf(await client.expectRecords(1))).toEqual(["new"]);
    expect(
      (await http.call("GET", "/v1/groups")).body.groups.map((each: { group: string }) => each.group),
    ).not.toContain(topic);
    await client.close();
  });

  test.each<[name: string, from: ReaderPlace, position: number]>([
    ["latest", "latest", 10],
    ["an offset", { offset: 4 }, 4],
    ["the log end as an offset", { offset: 10 }, 10],
    ["a time", { timestamp: 1_007 }, 7],
    ["a time before all", { timestamp: 0 }, 0],
    ["a time after all", { timestamp: 2_000 }, 10],
    ["a moment ago", { ago: 1_000 }, 10],
    ["longer ago than time is", { ago: Number.MAX_SAFE_INTEGER }, 0],
  ])("starts from %s", async (_, from, position) => {
    const topic = await newTopic(10);
    const { client, partition } = await subscribe({ topics: [topic], from });
    expect(partition).toMatchObject({ position, logStartOffset: 0, logEndOffset: 10 });
    if (position < 10)
      expect(valuesOf(await client.expectRecords(10 - position))).toEqual(countFrom(position, 10));
    await client.close();
  });

  test("of certain partitions reads these and no other", async () => {
    const topic = await newTopic(10, 3);
    await http.produceNumbers(topic, 5, 2);
    await http.produceNumbers(topic, 5, 1);
    const client = await open();
    const from = [
      { topic, partition: 2, offset: 1 },
      { topic, partition: 0, offset: 9 },
    ];
    client.send({ type: "subscribe", topics: [topic], from });
    await client.expect("subscribed");
    const { partitions } = await client.expect("assigned");
    expect(partitions.map(({ partition, position }) => [partition, position])).toEqual([
      [2, 1],
      [0, 9],
    ]);
    const frames = await client.expectRecords(5);
    expect(new Set(frames.map(({ partition }) => partition))).toEqual(new Set([0, 2]));
    expect(await client.untilAnswered()).toEqual([]);
    await client.close();
  });

  test.each<[name: string, (topic: string) => unknown, code: string]>([
    ["an offset above the end", () => ({ offset: 11 }), "offset_out_of_range"],
    [
      "an offset above the end of a partition",
      (topic) => [{ topic, partition: 0, offset: 11 }],
      "offset_out_of_range",
    ],
    ["a partition that is not there", (topic) => [{ topic, partition: 1, offset: 0 }], "unknown_partition"],
    [
      "another topic of that name",
      (topic) => [{ topic, partition: 0, offset: 0, topicId: 999_999 }],
      "unknown_topic",
    ],
    [
      "a partition twice",
      (topic) => [
        { topic, partition: 0, offset: 0 },
        { topic, partition: 0, offset: 1 },
      ],
      "bad_request",
    ],
    ["a topic that is not subscribed", () => [{ topic: "other", partition: 0, offset: 0 }], "bad_request"],
    ["a committed offset", () => "current", "bad_request"],
  ])("is refused from %s, and may try again", async (_, from, code) => {
    const topic = await newTopic(10);
    const client = await open();
    client.send({ type: "subscribe", id: 1, topics: [topic], from: from(topic) });
    expect(await client.expect("error")).toMatchObject({ id: 1, code });
    client.send({ type: "subscribe", id: 2, topics: [topic], from: "latest" });
    expect(await client.expect("subscribed")).toMatchObject({ id: 2 });
    await client.close();
  });

  test("that acknowledges holds the records back by its window, and still commits nothing", async () => {
    const topic = await newTopic(6);
    const { client, partition } = await subscribe({
      topics: [topic],
      from: "earliest",
      ack: "manual",
      window: { records: 2 },
    });
    expect(valuesOf(await client.expectRecords(2))).toEqual([0, 1]);
    expect(await client.untilAnswered()).toEqual([]);
    const { generation } = partition;
    client.send({ type: "ack", id: 2, offsets: [{ topic, partition: 0, generation, offset: 2 }] });
    expect(await client.expect("acked")).toMatchObject({ id: 2, offsets: [{ offset: null }] });
    expect(valuesOf(await client.expectRecords(2))).toEqual([2, 3]);
    client.send({
      type: "ack",
      id: 3,
      offsets: [
        { topic, partition: 0, generation, offset: 5 },
        { topic, partition: 0, generation: 9, offset: 1 },
      ],
    });
    const { offsets } = await client.expect("acked");
    expect(offsets.map(({ code }) => code)).toEqual(["offset_out_of_range", "fenced_generation"]);
    await client.close();
  });

  test("by the URL alone reads everything, however much more than a window", async () => {
    const topic = await newTopic(5_000);
    const client = await open(`?topic=${topic}&from=0`);
    await client.expect("subscribed");
    await client.expect("assigned");
    expect(valuesOf(await client.expectRecords(5_000))).toEqual(countFrom(0, 5_000));
    await client.close();
  });
});

describe("seek", () => {
  test.each<[name: string, to: Place, position: number]>([
    ["earliest", "earliest", 0],
    ["latest", "latest", 10],
    ["an offset", { offset: 3 }, 3],
    ["a time", { timestamp: 1_008 }, 8],
    ["ago", { ago: 5_000 }, 10],
    ["current", "current", 5],
    ["back", { shift: -2 }, 3],
    ["forward", { shift: 3 }, 8],
    ["back beyond the start", { shift: -100 }, 0],
    ["forward beyond the end", { shift: 100 }, 10],
  ])("to %s moves the position and not the committed offset", async (_, to, position) => {
    const topic = await newTopic(10);
    const group = newGroup();
    const { client, partition } = await subscribe({ topics: [topic], group });
    const { generation } = partition;
    await client.expectRecords(10);
    client.send({ type: "ack", id: 1, offsets: [{ topic, partition: 0, generation, offset: 5 }] });
    await client.expect("acked");
    client.send({ type: "seek", id: 2, topic, partition: 0, to });
    expect(await client.expect("assigned")).toMatchObject({
      id: 2,
      partitions: [{ topic, partition: 0, generation, position, committedOffset: 5, logEndOffset: 10 }],
    });
    if (position < 10)
      expect(valuesOf(await client.expectRecords(10 - position))).toEqual(countFrom(position, 10));
    expect((await http.call("GET", `/v1/groups/${group}`)).body.offsets[0].committedOffset).toBe(5);
    await client.close();
  });

  test("outside the log, in a partition that is not there, or without a committed offset is refused", async () => {
    const topic = await newTopic(3);
    const client = await open();
    client.send({ type: "subscribe", topics: [topic], group: newGroup(), reset: "none" });
    await client.expect("subscribed");
    expect(await client.expect("assigned")).toMatchObject({
      partitions: [{ position: null, committedOffset: null }],
    });
    expect(await client.expect("error")).toMatchObject({ code: "no_committed_offset", topic, partition: 0 });
    const cases: [unknown, string][] = [
      [{ topic, partition: 0, to: { offset: 4 } }, "offset_out_of_range"],
      [{ topic, partition: 0, to: "current" }, "no_committed_offset"],
      [{ topic, partition: 0, to: { shift: 1 } }, "no_committed_offset"],
      [{ topic, partition: 1, to: "earliest" }, "not_assigned"],
      [{ topic: "other", partition: 0, to: "earliest" }, "not_assigned"],
    ];
    for (const [id, [seek, code]] of cases.entries()) {
      client.send({ type: "seek", id, ...(seek as object) });
      expect(await client.expect("error")).toMatchObject({ id, code });
    }
    client.send({ type: "seek", topic, partition: 0, to: { offset: 1 } });
    await client.expect("assigned");
    expect(valuesOf(await client.expectRecords(2))).toEqual([1, 2]);
    await client.close();
  });

  test("forward and an ack of that place skip what is between; above it nothing may be acknowledged", async () => {
    const topic = await newTopic(10);
    const group = newGroup();
    const { client, partition } = await subscribe({ topics: [topic], group, window: { records: 2 } });
    const { generation } = partition;
    await client.expectRecords(2);
    client.send({ type: "seek", topic, partition: 0, to: { offset: 9 } });
    await client.expect("assigned");
    await client.expectRecords(1);
    const ack = (offset: number) =>
      client.send({ type: "ack", offsets: [{ topic, partition: 0, generation, offset }] });
    ack(11);
    expect(await client.expect("acked")).toMatchObject({
      offsets: [{ code: "offset_out_of_range", offset: 0 }],
    });
    ack(9);
    const { offsets } = await client.expect("acked");
    expect(offsets).toEqual([{ topic, partition: 0, offset: 9 }]);
    await client.close();
  });

  test("many at once are answered in their order", async () => {
    const topic = await newTopic(10);
    const { client } = await subscribe({ topics: [topic], from: "latest" });
    const places = Array.from({ length: 50 }, (_, id) =>
      id % 2 === 0 ? { timestamp: 1_000 + (id % 10) } : { offset: id % 10 },
    );
    for (const [id, to] of places.entries()) client.send({ type: "seek", id, topic, partition: 0, to });
    const answers = [];
    while (answers.length < places.length) {
      const frame = await client.next();
      if (frame.type === "assigned") answers.push([frame.id, frame.partitions[0]?.position]);
    }
    expect(answers).toEqual(places.map((_, id) => [id, id % 10]));
    await client.close();
  });
});

describe("pause", () => {
  test("stops a partition, keeps the others, and resume goes on where it was", async () => {
    const topic = await newTopic(2, 2);
    const group = newGroup();
    const client = await open();
    client.send({ type: "subscribe", topics: [topic], group });
    await client.expect("subscribed");
    await client.expect("assigned");
    await client.expectRecords(2);
    client.send({ type: "pause", id: 1, partitions: [{ topic, partition: 0 }] });
    expect(await client.expect("ok")).toEqual({ type: "ok", id: 1 });
    await http.produce(topic, [
      { value: "quiet", partition: 0 },
      { value: "heard", partition: 1 },
    ]);
    expect(valuesOf(await client.expectRecords(1))).toEqual(["heard"]);
    expect(await client.untilAnswered()).toEqual([]);
    client.send({ type: "resume", id: 2, partitions: [{ topic, partition: 0 }] });
    expect(await client.expect("ok")).toEqual({ type: "ok", id: 2 });
    expect(valuesOf(await client.expectRecords(1))).toEqual(["quiet"]);
    await client.close();
  });

  test("of a partition that is not assigned pauses none", async () => {
    const topic = await newTopic(0);
    const { client } = await subscribe({ topics: [topic], from: "earliest" });
    client.send({
      type: "pause",
      id: 1,
      partitions: [
        { topic, partition: 0 },
        { topic, partition: 1 },
      ],
    });
    expect(await client.expect("error")).toMatchObject({ id: 1, code: "not_assigned", topic, partition: 1 });
    await http.produce(topic, [{ value: "heard" }]);
    expect(valuesOf(await client.expectRecords(1))).toEqual(["heard"]);
    client.send({ type: "release", id: 2, partitions: [{ topic, partition: 0 }] });
    expect(await client.expect("error")).toMatchObject({ id: 2, code: "conflict" });
    await client.close();
  });
});

describe("a group that acknowledges nothing", () => {
  test("has every record committed before it is sent", async () => {
    const topic = await newTopic(1_200);
    const group = newGroup();
    const { client } = await subscribe({ topics: [topic], group, ack: "none" });
    const frame = await client.expect("records");
    const [first] = (await http.call("GET", `/v1/groups/${group}`)).body.offsets;
    expect(first.committedOffset).toBeGreaterThanOrEqual(frame.next);
    expect(valuesOf(await client.expectRecords(1_200 - frame.records.length)).at(-1)).toBe(1_199);
    expect(committed(group)).toEndWith("=1200");
    await client.close();
  });

  test("is not sent again what its socket took, and is sent what it did not", async () => {
    const topic = await newTopic(3);
    const group = newGroup();
    const query = `?topic=${topic}&group=${group}&ack=none`;
    const first = await open(query);
    await first.expect("subscribed");
    await first.expect("assigned");
    await first.expectRecords(3);
    await first.close();
    await http.produce(topic, [{ value: "next" }]);
    const second = await open(query);
    await second.expect("subscribed");
    expect(await second.expect("assigned")).toMatchObject({
      partitions: [{ position: 3, committedOffset: 3 }],
    });
    expect(valuesOf(await second.expectRecords(1))).toEqual(["next"]);
    await second.close();
  });
});

describe("produce over the socket", () => {
  test("is answered with its runs when it is durable, in the order of the frames, byte for byte", async () => {
    const topic = await newTopic(0, 2);
    const client = await open();
    const value = '{"b":2.0,"a":1E400,"a":12345678901234567890}';
    for (const [id, partition] of [0, 1, 0].entries())
      client.sendText(
        `{"type":"produce","id":${id},"topic":"${topic}","records":[{"partition":${partition},"value":${value}}]}`,
      );
    const answers = [
      await client.expect("produced"),
      await client.expect("produced"),
      await client.expect("produced"),
    ];
    expect(answers.map(({ id, runs }) => [id, ...runs])).toEqual([
      [0, { partition: 0, offset: 0, count: 1 }],
      [1, { partition: 1, offset: 0, count: 1 }],
      [2, { partition: 0, offset: 1, count: 1 }],
    ]);
    const stored = stockSqlite(
      server.databasePath,
      `SELECT DISTINCT value FROM topic_records WHERE topic = '${topic}'`,
    );
    expect(stored.trim()).toBe(value);
    await client.close();
  });

  test("keeps the order of a thousand frames, of a topic that nobody has asked for before", async () => {
    const topic = `fresh-${names}`;
    const client = await open();
    for (let id = 0; id < 1_000; id += 1)
      client.send({ type: "produce", id, topic, records: [{ value: id }] });
    for (let id = 0; id < 1_000; id += 1)
      expect(await client.expect("produced")).toEqual({
        type: "produced",
        id,
        runs: [{ partition: 0, offset: id, count: 1 }],
      });
    client.send({ type: "subscribe", topics: [topic], from: "earliest" });
    await client.expect("subscribed");
    await client.expect("assigned");
    expect(valuesOf(await client.expectRecords(1_000))).toEqual(countFrom(0, 1_000));
    await client.close();
  });

  test("that is wrong in a record writes none of the batch, and the socket lives", async () => {
    const topic = await newTopic(0);
    const client = await open();
    client.send({ type: "produce", id: 1, topic, records: [{ value: 1 }, { key: 5, value: 2 }] });
    expect(await client.expect("error")).toMatchObject({ id: 1, code: "bad_request" });
    client.send({ type: "produce", id: 2, topic, records: [{ value: 1, partition: 1 }] });
    expect(await client.expect("error")).toMatchObject({ id: 2, code: "unknown_partition" });
    client.send({ type: "produce", id: 3, topic, records: [{ value: 1 }] });
    expect(await client.expect("produced")).toMatchObject({ id: 3, runs: [{ offset: 0 }] });
    await client.close();
  });
});

describe("policies by time", () => {
  test("commit where they lead, with the assignment", async () => {
    const topic = await newTopic(10);
    const group = newGroup();
    const { client, partition } = await subscribe({
      topics: [topic],
      group,
      reset: { missing: { timestamp: 1_006 } },
    });
    expect(partition).toMatchObject({ position: 6, committedOffset: 6, reset: { timestamp: 1_006 } });
    expect(committed(group)).toEndWith("=6");
    const history = stockSqlite(
      server.databasePath,
      `SELECT new_offset, cause FROM commit_history WHERE group_id = '${group}'`,
    );
    expect(history.trim()).toBe("6|missing: timestamp 1006");
    await client.close();
  });

  test("that lie a moment back commit the log end", async () => {
    const topic = await newTopic(10);
    const { client, partition } = await subscribe({
      topics: [topic],
      group: newGroup(),
      reset: { ago: 1_000 },
    });
    expect(partition).toMatchObject({ position: 10, committedOffset: 10, reset: { ago: 1_000 } });
    await client.close();
  });
});

describe("a partition that stays unacknowledged", () => {
  test("is revoked as stalled, comes back in a new generation, and is sent again; the old one is fenced", async () => {
    const topic = await newTopic(3);
    const group = newGroup();
    const { client, partition } = await subscribe({ topics: [topic], group, ackTimeoutMs: 100 });
    const old = partition.generation;
    await client.expectRecords(3);
    expect(await client.expect("revoked")).toEqual({
      type: "revoked",
      subscription: "default",
      partitions: [{ topic, partition: 0, generation: old }],
      reason: "stalled",
      deadlineMs: 0,
    });
    const again = (await client.expect("assigned")).partitions[0];
    expect(again?.generation).toBeGreaterThan(old);
    expect(again?.position).toBe(0);
    await client.expectRecords(3);
    const ack = (generation: number, offset: number) =>
      client.send({ type: "ack", id: 1, offsets: [{ topic, partition: 0, generation, offset }] });
    ack(old, 3);
    expect(await client.expect("acked")).toMatchObject({
      offsets: [{ code: "fenced_generation", offset: 0 }],
    });
    ack(again?.generation ?? 0, 3);
    const { offsets } = await client.expect("acked");
    expect(offsets).toEqual([{ topic, partition: 0, offset: 3 }]);
    await client.close();
  });
});

describe("a server that drains", () => {
  test("gives its clients time to acknowledge, sends nothing new, and closes with 4000", async () => {
    const file = join(folder.path, "drained.db");
    await using other = await startServer(file);
    const client = await StreamClient.open(`${other.streamUrl}?topic=t&group=g`, { patienceMs: 4_000 });
    await client.expect("subscribed");
    const generation = (await client.expect("assigned")).partitions[0]?.generation;
    client.send({ type: "produce", topic: "t", records: [{ value: 1 }, { value: 2 }] });
    while ((await client.next()).type !== "records");
    const gone = other.kill("SIGTERM");
    while ((await client.next()).type !== "draining");
    client.send({ type: "subscribe", id: 5, subscription: "late", topics: ["t"], from: "latest" });
    expect(await client.expect("error")).toMatchObject({ id: 5, code: "unavailable", retriable: true });
    client.send({ type: "ack", id: 6, offsets: [{ topic: "t", partition: 0, generation, offset: 2 }] });
    expect(await client.expect("acked")).toMatchObject({ id: 6, offsets: [{ offset: 2 }] });
    expect((await client.closed()).code).toBe(4000);
    expect(await gone).toBe(0);
    expect(stockSqlite(file, "SELECT committed_offset FROM committed_offsets").trim()).toBe("2");
  });
});

describe("a topic that changes while it is subscribed to", () => {
  test("grows: the member gets the new partitions, from their beginning, and keeps the old", async () => {
    const topic = await newTopic(2);
    const group = newGroup();
    const { client, partition } = await subscribe({ topics: [topic], group, reset: "latest" });
    await http.call("PUT", `/v1/topics/${topic}`, { partitionCount: 3 });
    const gained = (await client.expect("assigned")).partitions;
    expect(gained.map(({ partition, position, reset }) => [partition, position, reset])).toEqual([
      [1, 0, "earliest"],
      [2, 0, "earliest"],
    ]);
    await http.produce(topic, [{ value: "old", partition: 0 }]);
    expect(await client.expect("records")).toMatchObject({
      generation: partition.generation,
      records: [{ value: "old" }],
    });
    await http.produce(topic, [{ value: "new", partition: 2 }]);
    expect(valuesOf(await client.expectRecords(1))).toEqual(["new"]);
    await client.close();
  });

  test("is deleted and comes back: revoked, fenced, assigned again from the beginning, whatever the policy", async () => {
    const topic = await newTopic(3);
    const group = newGroup();
    const { client, partition } = await subscribe({ topics: [topic], group, reset: "latest" });
    expect(partition.position).toBe(3);
    expect((await http.call("DELETE", `/v1/topics/${topic}`)).status).toBe(204);
    expect(await client.expect("revoked")).toMatchObject({
      partitions: [{ topic, partition: 0, generation: partition.generation }],
      reason: "topic_deleted",
      deadlineMs: 0,
    });
    client.send({
      type: "ack",
      id: 1,
      offsets: [{ topic, partition: 0, generation: partition.generation, offset: 3 }],
    });
    expect(await client.expect("acked")).toMatchObject({
      offsets: [{ offset: null, code: "unknown_topic" }],
    });
    expect(committed(group)).toBe("nothing");
    await http.produce(topic, [{ value: "again" }]);
    const again = (await client.expect("assigned")).partitions[0];
    expect(again).toMatchObject({ topic, position: 0, committedOffset: 0, reset: "earliest" });
    expect(again?.topicId).toBeGreaterThan(partition.topicId);
    expect(valuesOf(await client.expectRecords(1))).toEqual(["again"]);
    await client.close();
  });

  test("brings a reader what it brings a member", async () => {
    const topic = await newTopic(1);
    const { client } = await subscribe({ topics: [topic], from: "latest" });
    await http.call("PUT", `/v1/topics/${topic}`, { partitionCount: 2 });
    expect((await client.expect("assigned")).partitions).toMatchObject([
      { partition: 1, position: 0, generation: 2 },
    ]);
    await http.call("DELETE", `/v1/topics/${topic}`);
    expect((await client.expect("revoked")).partitions).toHaveLength(2);
    await http.produce(topic, [{ value: "again" }]);
    expect((await client.expect("assigned")).partitions).toMatchObject([
      { partition: 0, position: 0, generation: 3 },
    ]);
    expect(valuesOf(await client.expectRecords(1))).toEqual(["again"]);
    await client.close();
  });

  test("loses its beginning under a member: the policy moves it on, and the history says so", async () => {
    const topic = await newTopic(10);
    const group = newGroup();
    const { client, partition } = await subscribe({ topics: [topic], group, window: { records: 2 } });
    const { generation } = partition;
    await client.expectRecords(2);
    expect(await http.call("DELETE", `/v1/topics/${topic}/partitions/0/records?before=6`)).toMatchObject({
      status: 200,
      body: { logStartOffset: 6, logEndOffset: 10 },
    });
    client.send({ type: "ack", id: 1, offsets: [{ topic, partition: 0, generation, offset: 2 }] });
    await client.expect("acked");
    expect(await client.expect("assigned")).toMatchObject({
      partitions: [
        { partition: 0, generation, position: 6, committedOffset: 6, logStartOffset: 6, reset: "earliest" },
      ],
    });
    expect(valuesOf(await client.expectRecords(2))).toEqual([6, 7]);
    const history = stockSqlite(
      server.databasePath,
      `SELECT previous_offset, new_offset, cause FROM commit_history WHERE group_id = '${group}' AND cause LIKE 'out%'`,
    );
    expect(history.trim()).toBe("2|6|outOfRange: earliest");
    await client.close();
  });

  test("loses its beginning under one that wants no policy: it is halted, told, and may seek", async () => {
    const topic = await newTopic(10);
    const { client } = await subscribe({
      topics: [topic],
      from: "earliest",
      ack: "manual",
      reset: "none",
      window: { records: 2 },
    });
    await client.expectRecords(2);
    await http.call("DELETE", `/v1/topics/${topic}/partitions/0/records?before=6`);
    client.send({ type: "ack", offsets: [{ topic, partition: 0, generation: 1, offset: 2 }] });
    await client.expect("acked");
    expect(await client.expect("assigned")).toMatchObject({ partitions: [{ position: null }] });
    expect(await client.expect("error")).toMatchObject({ code: "offset_out_of_range", topic, partition: 0 });
    client.send({ type: "seek", topic, partition: 0, to: "earliest" });
    expect(await client.expect("assigned")).toMatchObject({ partitions: [{ position: 6 }] });
    expect(valuesOf(await client.expectRecords(2))).toEqual([6, 7]);
    await client.close();
  });
});
