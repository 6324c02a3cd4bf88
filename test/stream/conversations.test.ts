// /v1/stream over the real socket, as transcripts: what a client sends and what it is told, in order.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { AckEntry, AssignedPartition, SubscribeFrame } from "../../src/protocol/frames.ts";
import { RawSocket } from "../support/raw-socket.ts";
import { startServer, type TestServer, temporaryFolder } from "../support/server.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";
import { type FrameOf, StreamClient } from "../support/stream-client.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const FRAME_BYTES_MAX = 4 * MIB + 64 * KIB;

const folder = temporaryFolder();
let server: TestServer;

beforeAll(async () => {
  server = await startServer(join(folder.path, "t.db"));
});
afterAll(async () => {
  await server.kill("SIGKILL");
  folder.remove();
});

let names = 0;

/** A topic of its own for a test, with that many records in partition 0, of that many bytes a value. */
async function newTopic({ partitionCount = 1, records = 0, valueBytes = 0 } = {}): Promise<string> {
  names += 1;
  const topic = `topic-${names}`;
  const body = JSON.stringify({ partitionCount });
  await fetch(`${server.url}/v1/topics/${topic}`, { method: "PUT", body });
  if (records > 0) await produce(topic, records, { valueBytes });
  return topic;
}

async function produce(topic: string, count: number, { partition = 0, valueBytes = 0 } = {}): Promise<void> {
  const value = "x".repeat(Math.max(0, valueBytes - 2));
  const records = Array.from({ length: count }, () => ({ value, partition }));
  await produceRecords(topic, records);
}

async function produceRecords(topic: string, records: readonly unknown[]): Promise<void> {
  const body = JSON.stringify({ records });
  const response = await fetch(`${server.url}/v1/topics/${topic}/records`, { method: "POST", body });
  expect(response.status).toBe(200);
}

function newGroup(): string {
  names += 1;
  return `group-${names}`;
}

function open(query = ""): Promise<StreamClient> {
  return StreamClient.open(server.streamUrl + query, { patienceMs: 4_000 });
}

interface Joined {
  readonly client: StreamClient;
  readonly subscribed: FrameOf<"subscribed">;
  readonly partitions: readonly AssignedPartition[];
}

/** Subscribes, on a socket of its own unless one is given. */
async function subscribe(
  fields: Partial<SubscribeFrame> & { topics: readonly string[] },
  on?: StreamClient,
): Promise<Joined> {
  const client = on ?? (await open());
  client.send({ type: "subscribe", group: newGroup(), ...fields });
  const subscribed = await client.expect("subscribed");
  const { partitions } = await client.expect("assigned");
  return { client, subscribed, partitions };
}

function ackOf(frame: FrameOf<"records">): AckEntry {
  const { topic, partition, generation, next: offset } = frame;
  return { topic, partition, generation, offset };
}

function offsetsOf(frames: readonly FrameOf<"records">[]): readonly number[] {
  return frames.flatMap(({ records }) => records.map(({ offset }) => offset));
}

function range(start: number, end: number): readonly number[] {
  return Array.from({ length: end - start }, (_, n) => start + n);
}

/**
 * Nothing more comes to the client, although the server has had every occasion: what was produced for another group
 * since then has been read, sent and acknowledged.
 */
async function expectQuiet(client: StreamClient, topic: string): Promise<void> {
  const witness = await subscribe({ topics: [topic], reset: "latest" });
  await produce(topic, 1);
  const frame = await witness.client.expect("records");
  witness.client.send({ type: "ack", offsets: [ackOf(frame)] });
  await witness.client.expect("acked");
  await witness.client.close();
  expect(await client.untilAnswered()).toEqual([]);
}

describe("subscribe", () => {
  test("as a frame is answered, then its partitions are assigned, then their records come", async () => {
    const topic = await newTopic({ partitionCount: 2, records: 3 });
    const client = await open();
    client.send({ type: "subscribe", id: "first", subscription: "s1", topics: [topic], group: newGroup() });
    expect(await client.next()).toEqual({
      type: "subscribed",
      id: "first",
      subscription: "s1",
      memberId: expect.stringMatching(/.{10}/),
      heartbeatMs: 15_000,
      sessionTimeoutMs: 45_000,
      durability: "fsync",
    });
    const assigned = await client.expect("assigned");
    const [first, second] = assigned.partitions;
    expect(assigned).toEqual({
      type: "assigned",
      subscription: "s1",
      partitions: [0, 1].map((partition) => ({
        topic,
        topicId: expect.any(Number),
        partition,
        generation: expect.any(Number),
        position: 0,
        committedOffset: 0,
        logStartOffset: 0,
        logEndOffset: partition === 0 ? 3 : 0,
        reset: "earliest",
      })),
    });
    expect(second?.generation).not.toBe(first?.generation);
    const frame = await client.expect("records");
    const { timestamp } = frame.records[0] ?? {};
    expect(frame).toEqual({
      type: "records",
      subscription: "s1",
      generation: first?.generation ?? 0,
      topic,
      partition: 0,
      records: [0, 1, 2].map((offset) => ({ offset, timestamp: timestamp ?? 0, value: "" })),
      next: 3,
      logEndOffset: 3,
    });
    await client.close();
  });

  test("as the parameters of the URL is the same", async () => {
    const [topic, other] = [await newTopic({ records: 1 }), await newTopic({ records: 1 })];
    const group = newGroup();
    const query = `?topic=${topic}&topic=${other}&group=${group}&reset=latest&ack=manual&subscription=s&id=7&sessionTimeoutMs=6000&instanceId=i`;
    const client = await open(query);
    expect(await client.expect("subscribed")).toMatchObject({
      id: "7",
      subscription: "s",
      sessionTimeoutMs: 6_000,
      heartbeatMs: 2_000,
    });
    const { partitions } = await client.expect("assigned");
    expect(partitions).toMatchObject([
      { topic, position: 1, reset: "latest" },
      { topic: other, position: 1, reset: "latest" },
    ]);
    expect(
      stockSqlite(server.databasePath, `SELECT instance_id FROM group_members WHERE group_id = '${group}'`),
    ).toBe("i");
    await client.close();
  });

  test("by the URL and by frames go together on one socket", async () => {
    const topic = await newTopic({ records: 1 });
    const client = await open(`?topic=${topic}&group=${newGroup()}`);
    await client.expect("subscribed");
    await client.expect("assigned");
    await client.expect("records");
    await subscribe({ topics: [topic], subscription: "second" }, client);
    expect((await client.expect("records")).subscription).toBe("second");
    await client.close();
  });

  test.each([
    ["?topic=a", 'give "group"'],
    ["?group=g", "topics"],
    ["?topic=a&group=g&group=h", '"group"'],
    ["?topic=a&group=g&type=ack", '"type"'],
    ["?topics=a&group=g", '"topics"'],
    ["?topic=a&group=g&windows=5", '"windows"'],
    ["?topic=a&group=g&ack=auto", '"ack"'],
    ["?topic=a&group=g&reset=first", '"reset"'],
    ["?topic=a&group=g&from=earliest", '"from" is for readers'],
    ["?topic=a%20b&group=g", '"topics.0"'],
    ["?topic=a&group=..", '"group"'],
    ["?topic=a&group=g&sessionTimeoutMs=5999", "6000 to 300000"],
    ["?topic=a&group=g&sessionTimeoutMs=300001", "6000 to 300000"],
    ["?topic=a&topic=a&group=g", "twice"],
  ])("by the URL %s is refused, and the socket lives", async (query, why) => {
    const client = await open(query);
    const error = await client.expect("error");
    expect(error.code).toBe("bad_request");
    expect(error.message).toContain(why);
    expect(await client.untilAnswered()).toEqual([]);
    await client.close();
  });

  test("many times on one socket: each subscription by its own name", async () => {
    const topic = await newTopic({ records: 2 });
    const client = await open();
    for (const subscription of ["a", "b", "c"]) {
      const { partitions } = await subscribe({ topics: [topic], subscription }, client);
      expect(await client.expect("records")).toMatchObject({
        subscription,
        generation: partitions[0]?.generation ?? 0,
        records: [{ offset: 0 }, { offset: 1 }],
      });
    }
    await produce(topic, 1);
    const frames = [
      await client.expect("records"),
      await client.expect("records"),
      await client.expect("records"),
    ];
    expect(frames.map(({ subscription }) => subscription).sort()).toEqual(["a", "b", "c"]);
    await client.close();
  });

  test("with the name of a subscription that is there is a conflict, and changes nothing", async () => {
    const topic = await newTopic();
    const { client } = await subscribe({ topics: [topic], subscription: "s" });
    client.send({ type: "subscribe", id: 5, subscription: "s", topics: [topic], group: newGroup() });
    expect(await client.expect("error")).toMatchObject({
      id: 5,
      subscription: "s",
      code: "conflict",
      retriable: false,
    });
    await produce(topic, 1);
    expect((await client.expect("records")).subscription).toBe("s");
    await client.close();
  });

  test("64 times on a socket, and not once more", async () => {
    const topic = await newTopic();
    const client = await open();
    for (const n of range(0, 64)) await subscribe({ topics: [topic], subscription: `s${n}` }, client);
    client.send({ type: "subscribe", id: 1, subscription: "s64", topics: [topic], group: newGroup() });
    const error = await client.expect("error");
    expect(error).toMatchObject({ id: 1, code: "bad_request" });
    expect(error.message).toContain("64");
    await client.close();
  });

  test("to 100 topics, and not to one more", async () => {
    const prefix = newGroup();
    const topics = range(0, 101).map((n) => `${prefix}-${n}`);
    const { client, partitions } = await subscribe({ topics: topics.slice(0, 100) });
    expect(partitions.map(({ topic }) => topic)).toEqual(topics.slice(0, 100).toSorted());
    client.send({ type: "subscribe", id: 1, subscription: "more", topics, group: newGroup() });
    const error = await client.expect("error");
    expect(error).toMatchObject({ id: 1, code: "bad_request" });
    expect(error.message).toContain("at most 100 entries");
    await client.close();
  });
});

describe("records", () => {
  test("come in the order of their offsets, every one once, partitions in turn", async () => {
    const topic = await newTopic({ partitionCount: 3 });
    for (const partition of [0, 1, 2]) await produce(topic, 1_200, { partition });
    const { client } = await subscribe({ topics: [topic], window: { records: 10_000 } });
    const frames = await client.expectRecords(3_600);
    for (const partition of [0, 1, 2]) {
      const own = frames.filter((frame) => frame.partition === partition);
      expect(offsetsOf(own)).toEqual(range(0, 1_200));
      for (const [index, { next }] of own.entries())
        expect(own[index + 1]?.records[0]?.offset ?? 1_200).toBe(next);
    }
    expect(
      frames
        .slice(0, 3)
        .map(({ partition }) => partition)
        .sort(),
    ).toEqual([0, 1, 2]);
    expect(Math.max(...frames.map(({ records }) => records.length))).toBe(500);
    await client.close();
  });

  test("that are appended later come at once, each once", async () => {
    const topic = await newTopic();
    const { client } = await subscribe({ topics: [topic] });
    for (const offset of range(0, 50)) {
      await produce(topic, 1);
      const frame = await client.expect("records");
      expect([offsetsOf([frame]), frame.next, frame.logEndOffset]).toEqual([
        [offset],
        offset + 1,
        offset + 1,
      ]);
    }
    await client.close();
  });

  test("that are large come in frames of at most 256 KiB, and a larger one alone", async () => {
    const topic = await newTopic({ records: 20, valueBytes: 60 * KIB });
    await produce(topic, 1, { valueBytes: MIB });
    await produce(topic, 2, { valueBytes: 10 });
    const { client } = await subscribe({ topics: [topic], window: { bytes: 4 * MIB } });
    const sizes: [records: number, bytes: number][] = [];
    for (let next = 0; next < 23; ) {
      const text = await client.nextText();
      const frame = JSON.parse(text);
      next = frame.next;
      sizes.push([frame.records.length, Buffer.byteLength(text)]);
    }
    expect(sizes.slice(0, -2).every(([, bytes]) => bytes <= 256 * KIB + 300)).toBe(true);
    expect(sizes.slice(0, -2)).toEqual(Array.from({ length: 5 }, () => [4, expect.any(Number)]) as never);
    expect(sizes.at(-2)?.[0]).toBe(1);
    expect(sizes.at(-2)?.[1]).toBeGreaterThan(MIB);
    expect(sizes.at(-1)?.[0]).toBe(2);
    await client.close();
  });

  test("with bytes come as base64 among values, in order, and are acknowledged like them", async () => {
    const topic = await newTopic();
    const everyByte = Uint8Array.from({ length: 256 }, (_, byte) => byte).toBase64();
    const produced = [
      { value: 0, timestamp: 1 },
      { bytes: everyByte, timestamp: 2, key: "k", headers: { h: "1" } },
      { bytes: "", timestamp: 3 },
      { value: "AA==", timestamp: 4 },
      { bytes: "gA==", timestamp: 5 },
    ];
    await produceRecords(topic, produced);
    const { client } = await subscribe({ topics: [topic] });
    const frame = await client.expect("records");
    expect(frame.records as readonly unknown[]).toEqual(
      produced.map((record, offset) => ({ offset, ...record })),
    );
    expect([frame.next, frame.logEndOffset]).toEqual([5, 5]);
    client.send({ type: "ack", offsets: [ackOf(frame)] });
    expect((await client.expect("acked")).offsets).toEqual([{ topic, partition: 0, offset: 5 }]);
    await client.close();
  });

  test("with bytes stay within a frame's 256 KiB as base64, and a larger one comes alone", async () => {
    const topic = await newTopic();
    const bytes = (length: number) => new Uint8Array(length).fill(0xff).toBase64();
    for (const lengths of [Array(12).fill(45 * KIB), [MIB], [1, 2]])
      await produceRecords(
        topic,
        lengths.map((length) => ({ bytes: bytes(length) })),
      );
    const { client } = await subscribe({ topics: [topic], window: { bytes: 4 * MIB } });
    const sizes: [records: number, bytes: number][] = [];
    for (let next = 0; next < 15; ) {
      const text = await client.nextText();
      const frame = JSON.parse(text);
      next = frame.next;
      sizes.push([frame.records.length, Buffer.byteLength(text)]);
    }
    expect(sizes.map(([count]) => count)).toEqual([4, 4, 4, 1, 2]);
    expect(sizes.slice(0, 3).every(([, size]) => size <= 256 * KIB + 300)).toBe(true);
    expect(sizes[3]?.[1]).toBeGreaterThan(bytes(MIB).length);
    await client.close();
  });

  test("with bytes that no window holds are sent alone, once nothing is unacknowledged", async () => {
    const topic = await newTopic({ records: 1 });
    const largest = new Uint8Array(MIB).fill(0x80).toBase64();
    await produceRecords(topic, [{ bytes: largest }, { value: 2 }]);
    const { client } = await subscribe({ topics: [topic], window: { bytes: 64 * KIB } });
    const first = await client.expect("records");
    expect(offsetsOf([first])).toEqual([0]);
    expect(await client.untilAnswered()).toEqual([]);
    client.send({ type: "ack", offsets: [ackOf(first)] });
    await client.expect("acked");
    const text = await client.nextText();
    expect(text.includes(`"bytes":"${largest}"}],"next":2`)).toBe(true);
    client.send({ type: "ack", offsets: [ackOf(JSON.parse(text))] });
    await client.expect("acked");
    expect(offsetsOf([await client.expect("records")])).toEqual([2]);
    await client.close();
  });
});

describe("the window", () => {
  test.each([1, 2, 7, 10])(
    "of %i records is kept while the client is silent, and freed by its acks",
    async (records) => {
      const topic = await newTopic({ records: 60 });
      const { client } = await subscribe({ topics: [topic], window: { records } });
      let delivered = 0;
      while (delivered < 30) {
        const frames = await client.expectRecords(Math.min(records, 60 - delivered));
        expect(offsetsOf(frames)).toEqual(range(delivered, delivered + records));
        for (const frame of frames)
          expect(frame.records.length).toBeLessThanOrEqual(Math.max(1, Math.floor(records / 2)));
        delivered += records;
        const last = frames.at(-1);
        if (!last) throw new Error("no frame");
        expect(await client.untilAnswered()).toEqual([]);
        client.send({ type: "ack", offsets: [ackOf(last)] });
        await client.expect("acked");
      }
      await client.close();
    },
  );

  test("of records lets nothing more out, however much is appended", async () => {
    const topic = await newTopic({ records: 30 });
    const { client } = await subscribe({ topics: [topic], window: { records: 10 } });
    await client.expectRecords(10);
    await expectQuiet(client, topic);
    await client.close();
  });

  test("of bytes is kept while the client is silent", async () => {
    const topic = await newTopic({ records: 30, valueBytes: 10 * KIB });
    const { client } = await subscribe({ topics: [topic], window: { bytes: 64 * KIB } });
    const frames = await client.expectRecords(6); // of 10 KiB and a little more: seven do not fit
    await expectQuiet(client, topic);
    for (const { records } of frames) expect(records.length).toBeLessThanOrEqual(3); // half the window
    const last = frames.at(-1);
    if (last) client.send({ type: "ack", offsets: [ackOf(last)] });
    await client.expect("acked");
    expect(offsetsOf(await client.expectRecords(6))).toEqual(range(6, 12));
    await client.close();
  });

  test("that is smaller than a record lets it through alone", async () => {
    const topic = await newTopic({ records: 1, valueBytes: 100 });
    await produce(topic, 2, { valueBytes: 200 * KIB });
    await produce(topic, 1, { valueBytes: 100 });
    const { client } = await subscribe({ topics: [topic], window: { bytes: 64 * KIB } });
    for (const offset of range(0, 4)) {
      const frame = await client.expect("records");
      expect(offsetsOf([frame])).toEqual([offset]);
      await expectNothingMore(client);
      client.send({ type: "ack", offsets: [ackOf(frame)] });
      await client.expect("acked");
    }
    await client.close();
  });

  /** Several round trips: a read that was on its way would have come back. */
  async function expectNothingMore(client: StreamClient): Promise<void> {
    for (let turn = 0; turn < 5; turn += 1) expect(await client.untilAnswered()).toEqual([]);
  }

  test("is freed by a partial ack, by exactly what it covers", async () => {
    const topic = await newTopic({ records: 40 });
    const { client, partitions } = await subscribe({ topics: [topic], window: { records: 10 } });
    const generation = partitions[0]?.generation ?? 0;
    await client.expectRecords(10);
    let sent = 10;
    for (const offset of [3, 4, 9, 14]) {
      client.send({ type: "ack", offsets: [{ topic, partition: 0, generation, offset }] });
      expect((await client.expect("acked")).offsets).toEqual([{ topic, partition: 0, offset }]);
      const freed = offset + 10 - sent;
      expect(offsetsOf(await client.expectRecords(freed))).toEqual(range(sent, sent + freed));
      sent += freed;
      await expectNothingMore(client);
    }
    await client.close();
  });

  test("of one subscription holds up no other on the same socket", async () => {
    const topic = await newTopic({ records: 20 });
    const { client } = await subscribe({ topics: [topic], subscription: "full", window: { records: 1 } });
    await client.expectRecords(1);
    await subscribe({ topics: [topic], subscription: "free" }, client);
    const frames = await client.expectRecords(20);
    expect(frames.every(({ subscription }) => subscription === "free")).toBe(true);
    await client.close();
  });

  test.each([
    [{ records: 0 }, '"window.records" must be an integer from 1 to 10000'],
    [{ records: 10_001 }, '"window.records" must be an integer from 1 to 10000'],
    [{ records: 1.5 }, '"window.records" must be an integer from 1 to 10000'],
    [{ bytes: 64 * KIB - 1 }, '"window.bytes" must be an integer from 65536 to 4194304'],
    [{ bytes: 4 * MIB + 1 }, '"window.bytes" must be an integer from 65536 to 4194304'],
  ])("%j is refused", async (window, why) => {
    const client = await open();
    client.send({ type: "subscribe", id: 1, topics: ["t"], group: newGroup(), window });
    const error = await client.expect("error");
    expect(error).toMatchObject({ id: 1, code: "bad_request" });
    expect(error.message).toContain(why);
    await client.close();
  });

  test.each([{ records: 1 }, { records: 10_000 }, { bytes: 64 * KIB }, { bytes: 4 * MIB }, {}])(
    "%j is taken",
    async (window) => {
      const { client } = await subscribe({ topics: [await newTopic()], window });
      await client.close();
    },
  );
});

describe("ack", () => {
  async function consumed(records = 10) {
    const topic = await newTopic({ records, partitionCount: 2 });
    const group = newGroup();
    const { client, partitions, subscribed } = await subscribe({ topics: [topic], group });
    await client.expectRecords(records);
    const generations = partitions.map(({ generation }) => generation);
    return {
      topic,
      group,
      client,
      subscribed,
      generation: generations[0] ?? 0,
      otherGeneration: generations[1] ?? 0,
    };
  }

  const committedOf = (group: string) =>
    stockSqlite(
      server.databasePath,
      `SELECT partition, committed_offset FROM consumer_lag WHERE group_id = '${group}' ORDER BY partition`,
    );

  test("is answered when it is durable, with its id, in the order of acks", async () => {
    const { topic, group, client, generation } = await consumed();
    for (const offset of range(1, 9))
      client.send({ type: "ack", id: `a${offset}`, offsets: [{ topic, partition: 0, generation, offset }] });
    for (const offset of range(1, 9)) {
      expect(await client.expect("acked")).toEqual({
        type: "acked",
        id: `a${offset}`,
        subscription: "default",
        offsets: [{ topic, partition: 0, offset }],
      });
    }
    expect(committedOf(group)).toBe("0|8\n1|0");
    await client.close();
  });

  test("at or below the committed offset commits nothing and is no error", async () => {
    const { topic, group, client, generation } = await consumed();
    for (const [offset, committed] of [
      [5, 5],
      [5, 5],
      [2, 5],
      [0, 5],
    ] as const) {
      client.send({ type: "ack", offsets: [{ topic, partition: 0, generation, offset }] });
      expect((await client.expect("acked")).offsets).toEqual([{ topic, partition: 0, offset: committed }]);
    }
    expect(committedOf(group)).toBe("0|5\n1|0");
    await client.close();
  });

  test("above what was sent is offset_out_of_range and has no effect", async () => {
    const { topic, group, client, generation } = await consumed();
    client.send({ type: "ack", id: 1, offsets: [{ topic, partition: 0, generation, offset: 11 }] });
    expect((await client.expect("acked")).offsets).toEqual([
      { topic, partition: 0, offset: 0, code: "offset_out_of_range" },
    ]);
    expect(committedOf(group)).toBe("0|0\n1|0");
    await client.close();
  });

  test("of a generation that is not accepted is fenced, older or newer", async () => {
    const { topic, group, client, generation } = await consumed();
    for (const wrong of [generation - 1, generation + 1, 0, 2 ** 53 - 1]) {
      client.send({ type: "ack", offsets: [{ topic, partition: 0, generation: wrong, offset: 5 }] });
      expect((await client.expect("acked")).offsets).toEqual([
        { topic, partition: 0, offset: 0, code: "fenced_generation" },
      ]);
    }
    expect(committedOf(group)).toBe("0|0\n1|0");
    await client.close();
  });

  test("of many entries commits the good ones and names the others", async () => {
    const { topic, group, client, generation, otherGeneration } = await consumed();
    const other = await newTopic();
    client.send({
      type: "ack",
      id: 9,
      offsets: [
        { topic, partition: 1, generation, offset: 0 },
        { topic, partition: 0, generation, offset: 4 },
        { topic, partition: 1, generation: otherGeneration, offset: 7 },
        { topic, partition: 2, generation, offset: 1 },
        { topic: "nowhere", partition: 0, generation, offset: 1 },
        { topic: other, partition: 0, generation, offset: 0 },
      ],
    });
    expect((await client.expect("acked")).offsets).toEqual([
      { topic, partition: 1, offset: 0, code: "fenced_generation" },
      { topic, partition: 0, offset: 4 },
      { topic, partition: 1, offset: 0, code: "offset_out_of_range" },
      { topic, partition: 2, offset: null, code: "unknown_partition" },
      { topic: "nowhere", partition: 0, offset: null, code: "unknown_topic" },
      { topic: other, partition: 0, offset: null, code: "fenced_generation" },
    ]);
    expect(committedOf(group)).toBe("0|4\n1|0");
    await client.close();
  });

  test("that names a partition twice counts once, the highest", async () => {
    const { topic, group, client, generation } = await consumed();
    const entry = (offset: number, metadata: string) => ({
      topic,
      partition: 0,
      generation,
      offset,
      metadata,
    });
    client.send({ type: "ack", offsets: [entry(3, "low"), entry(6, "high"), entry(5, "middle")] });
    expect((await client.expect("acked")).offsets).toEqual([{ topic, partition: 0, offset: 6 }]);
    expect(committedOf(group)).toBe("0|6\n1|0");
    expect(
      stockSqlite(
        server.databasePath,
        `SELECT metadata FROM consumer_lag WHERE group_id = '${group}' AND partition = 0`,
      ),
    ).toBe("high");
    await client.close();
  });

  test("to a subscription that is not there is refused with its id", async () => {
    const { topic, client, generation } = await consumed();
    client.send({
      type: "ack",
      id: 3,
      subscription: "s9",
      offsets: [{ topic, partition: 0, generation, offset: 1 }],
    });
    expect(await client.expect("error")).toMatchObject({
      id: 3,
      subscription: "s9",
      code: "unknown_subscription",
    });
    await client.close();
  });

  test("keeps metadata, which comes back in `assigned` after the next subscribe", async () => {
    const { topic, group, client, generation } = await consumed();
    const metadata = 'é😀 " \\ \n';
    client.send({ type: "ack", offsets: [{ topic, partition: 0, generation, offset: 4, metadata }] });
    await client.expect("acked");
    client.send({ type: "unsubscribe", id: 1 });
    await client.expect("unsubscribed");
    const again = await subscribe({ topics: [topic], group }, client);
    expect(again.partitions).toMatchObject([
      { partition: 0, position: 4, committedOffset: 4, metadata },
      { partition: 1, position: 0, committedOffset: 0 },
    ]);
    expect(again.partitions[0]).not.toHaveProperty("reset");
    expect(again.partitions[1]).not.toHaveProperty("metadata");
    expect(offsetsOf(await client.expectRecords(6))).toEqual(range(4, 10));
    // An ack without metadata takes it away.
    const next = again.partitions[0]?.generation ?? 0;
    client.send({ type: "ack", offsets: [{ topic, partition: 0, generation: next, offset: 5 }] });
    await client.expect("acked");
    client.send({ type: "unsubscribe" });
    await client.expect("unsubscribed");
    expect((await subscribe({ topics: [topic], group }, client)).partitions[0]).not.toHaveProperty(
      "metadata",
    );
    await client.close();
  });

  test("keeps 4 KiB of metadata and refuses a byte more, NUL and a lone surrogate", async () => {
    const { topic, client, generation } = await consumed();
    const send = (metadata: string, id: number) =>
      client.send({ type: "ack", id, offsets: [{ topic, partition: 0, generation, offset: 1, metadata }] });
    send("é".repeat(2 * KIB), 0);
    expect((await client.expect("acked")).id).toBe(0);
    for (const [id, bad] of [`${"é".repeat(2 * KIB)}x`, "\u0000", "\ud800"].entries()) {
      send(bad, id);
      const error = await client.expect("error");
      expect(error).toMatchObject({ id, code: "bad_request" });
      expect(error.message).toContain("offsets.0.metadata");
    }
    await client.close();
  });
});

describe("the reset policy", () => {
  test.each([
    ["earliest", 0],
    ["latest", 5],
  ] as const)("%s is applied where nothing is committed, and committed there", async (reset, position) => {
    const topic = await newTopic({ records: 5, partitionCount: 2 });
    const group = newGroup();
    const { client, partitions, subscribed } = await subscribe({ topics: [topic], group, reset });
    expect(partitions).toMatchObject([
      { partition: 0, position, committedOffset: position, reset },
      { partition: 1, position: 0, committedOffset: 0, reset },
    ]);
    const history = `SELECT partition, previous_offset IS NULL, new_offset, cause, actor FROM commit_history
      WHERE group_id = '${group}' ORDER BY partition`;
    expect(stockSqlite(server.databasePath, history).split("\n")).toEqual([
      `0|1|${position}|missing: ${reset}|member ${subscribed.memberId}`,
      `1|1|0|missing: ${reset}|member ${subscribed.memberId}`,
    ]);
    await client.close();
    await produce(topic, 1);
    // It is applied once: what came while nobody was there is not skipped.
    const again = await subscribe({ topics: [topic], group, reset: "latest" });
    expect(again.partitions[0]).toMatchObject({ position, committedOffset: position, logEndOffset: 6 });
    expect(offsetsOf(await again.client.expectRecords(6 - position))).toEqual(range(position, 6));
    await again.client.close();
  });

  test("none gives no place: the error names the partition, nothing comes, and the subscription lives", async () => {
    const topic = await newTopic({ records: 5 });
    const group = newGroup();
    const { client, partitions } = await subscribe({
      topics: [topic],
      group,
      reset: "none",
      subscription: "s",
    });
    expect(partitions).toMatchObject([{ position: null, committedOffset: null, logEndOffset: 5 }]);
    expect(partitions[0]).not.toHaveProperty("reset");
    expect(await client.expect("error")).toMatchObject({
      subscription: "s",
      topic,
      partition: 0,
      code: "no_committed_offset",
      retriable: false,
    });
    await expectQuiet(client, topic);
    expect(
      stockSqlite(
        server.databasePath,
        `SELECT count(committed_offset) FROM consumer_lag WHERE group_id = '${group}'`,
      ),
    ).toBe("0");
    client.send({ type: "unsubscribe", subscription: "s" });
    expect(await client.next()).toEqual({ type: "unsubscribed", subscription: "s" });
    const again = await subscribe(
      { topics: [topic], group, reset: { missing: "earliest", outOfRange: "none" } },
      client,
    );
    expect(again.partitions).toMatchObject([{ position: 0, committedOffset: 0, reset: "earliest" }]);
    await client.close();
  });

  test("has two halves: missing, and outOfRange where the committed offset is above the log end", async () => {
    const topic = await newTopic({ records: 5 });
    const group = newGroup();
    await (await subscribe({ topics: [topic], group })).client.close();
    // As after a log was restored from an older backup.
    const setTo = (offset: number) =>
      stockSqlite(
        server.databasePath,
        `UPDATE committed_offsets SET committed_offset = ${offset} WHERE group_id = '${group}'`,
      );
    setTo(9);
    const none = await subscribe({
      topics: [topic],
      group,
      reset: { missing: "earliest", outOfRange: "none" },
    });
    expect(none.partitions).toMatchObject(
      [{ position: 9, committedOffset: 9 }].map(() => ({ position: null })),
    );
    expect(await none.client.expect("error")).toMatchObject({
      topic,
      partition: 0,
      code: "offset_out_of_range",
    });
    await none.client.close();
    const latest = await subscribe({
      topics: [topic],
      group,
      reset: { missing: "none", outOfRange: "latest" },
    });
    expect(latest.partitions).toMatchObject([{ position: 5, committedOffset: 5, reset: "latest" }]);
    await latest.client.close();
    setTo(9);
    const byDefault = await subscribe({ topics: [topic], group, reset: { missing: "latest" } });
    expect(byDefault.partitions).toMatchObject([{ position: 0, committedOffset: 0, reset: "earliest" }]);
    await byDefault.client.close();
  });

  test("is judged for each topic on its own", async () => {
    const [known, fresh] = [await newTopic({ records: 3 }), await newTopic({ records: 3 })];
    const group = newGroup();
    await (await subscribe({ topics: [known], group })).client.close();
    const { client, partitions } = await subscribe({ topics: [known, fresh], group, reset: "latest" });
    expect(partitions).toMatchObject([
      { topic: known, position: 0 },
      { topic: fresh, position: 3, reset: "latest" },
    ]);
    await client.close();
  });
});

describe("a member of a group", () => {
  test("that has the only partition keeps it beside a second, who gets it when the first has gone", async () => {
    const topic = await newTopic();
    const group = newGroup();
    const { client } = await subscribe({ topics: [topic], group });
    const second = await subscribe({ topics: [topic], group });
    expect(second.partitions).toEqual([]);
    await produce(topic, 1);
    const frame = await client.expect("records");
    client.send({ type: "ack", offsets: [ackOf(frame)] });
    await client.expect("acked");
    expect(await second.client.untilAnswered()).toEqual([]);
    await client.close();
    // It left with its socket: the partition is free at once.
    const { partitions } = await second.client.expect("assigned");
    expect(partitions).toMatchObject([{ topic, partition: 0, position: 1, committedOffset: 1 }]);
    await second.client.close();
  });

  test("is another than one with an instanceId or memberId that nobody has", async () => {
    const topic = await newTopic();
    const group = newGroup();
    const { client, subscribed } = await subscribe({ topics: [topic], group, instanceId: "tab-7" });
    const others: Joined[] = [];
    for (const fields of [{ instanceId: "tab-8" }, { memberId: "nobody" }, { memberId: "tab-7" }])
      others.push(await subscribe({ topics: [topic], group, ...fields }));
    const ids = [subscribed, ...others.map((other) => other.subscribed)].map(({ memberId }) => memberId);
    expect(new Set(ids).size).toBe(4);
    expect(ids).not.toContain("nobody");
    expect(others.map(({ partitions }) => partitions)).toEqual([[], [], []]);
    expect(await client.untilAnswered()).toEqual([]);
    await Promise.all([client, ...others.map((other) => other.client)].map((each) => each.close()));
  });

  test.each(["memberId", "instanceId"] as const)(
    "is replaced by one with its %s: told so, and fenced",
    async (by) => {
      const topic = await newTopic({ records: 10 });
      const group = newGroup();
      const instanceId = by === "instanceId" ? { instanceId: "tab-7" } : {};
      const old = await subscribe({ topics: [topic], group, subscription: "old", ...instanceId });
      const oldGeneration = old.partitions[0]?.generation ?? 0;
      await old.client.expectRecords(10);
      const ack = {
        type: "ack",
        id: 1,
        subscription: "old",
        offsets: [{ topic, partition: 0, generation: oldGeneration, offset: 4 }],
      };
      old.client.send(ack);
      await old.client.expect("acked");

      const { memberId } = old.subscribed;
      const now = await subscribe({
        topics: [topic],
        group,
        ...(by === "memberId" ? { memberId } : instanceId),
      });
      expect(now.subscribed.memberId === memberId).toBe(by === "memberId");
      const generation = now.partitions[0]?.generation ?? 0;
      expect(now.partitions).toMatchObject([{ position: 4, committedOffset: 4 }]);
      expect(generation).toBeGreaterThan(oldGeneration);
      expect(offsetsOf(await now.client.expectRecords(6))).toEqual(range(4, 10));

      expect(await old.client.next()).toEqual({
        type: "unsubscribed",
        subscription: "old",
        code: "replaced",
      });
      old.client.send({ ...ack, offsets: [{ topic, partition: 0, generation: oldGeneration, offset: 9 }] });
      expect(await old.client.expect("error")).toMatchObject({ id: 1, code: "unknown_subscription" });
      now.client.send({
        type: "ack",
        offsets: [{ topic, partition: 0, generation: oldGeneration, offset: 9 }],
      });
      expect((await now.client.expect("acked")).offsets).toEqual([
        { topic, partition: 0, offset: 4, code: "fenced_generation" },
      ]);
      await produce(topic, 1);
      expect(offsetsOf(await now.client.expectRecords(1))).toEqual([10]);
      expect(await old.client.untilAnswered()).toEqual([]);

      // The end of the old socket takes nothing from the new one.
      await old.client.close();
      now.client.send({ type: "ack", offsets: [{ topic, partition: 0, generation, offset: 11 }] });
      expect((await now.client.expect("acked")).offsets).toEqual([{ topic, partition: 0, offset: 11 }]);
      await now.client.close();
    },
  );

  test("that acknowledges while it is replaced has its acks counted before, or fenced", async () => {
    const topic = await newTopic({ records: 500 });
    const group = newGroup();
    const old = await subscribe({ topics: [topic], group });
    const generation = old.partitions[0]?.generation ?? 0;
    await old.client.expectRecords(500);
    const now = await open();
    const { memberId } = old.subscribed;
    for (const offset of range(1, 101)) {
      old.client.send({ type: "ack", id: offset, offsets: [{ topic, partition: 0, generation, offset }] });
      if (offset === 50) now.send({ type: "subscribe", topics: [topic], group, memberId });
    }
    let accepted = 0;
    let isReplaced = false;
    for (let answered = 0; answered < 100; ) {
      const frame = await old.client.next();
      if (frame.type === "unsubscribed") isReplaced = true;
      else answered += 1;
      if (frame.type === "acked" && frame.offsets[0]?.code === undefined) {
        expect(isReplaced).toBe(false);
        accepted = frame.offsets[0]?.offset ?? 0;
      } else if (frame.type === "acked") {
        expect(frame.offsets[0]?.code).toBe("fenced_generation");
      } else if (frame.type === "error") {
        expect(frame.code).toBe("unknown_subscription");
        expect(isReplaced).toBe(true);
      }
    }
    await now.expect("subscribed");
    const [assigned] = (await now.expect("assigned")).partitions;
    expect(assigned?.position).toBe(accepted);
    expect(assigned?.generation).toBeGreaterThan(generation);
    await Promise.all([old.client.close(), now.close()]);
  });

  test("leaves by unsubscribe, which is answered; its place and its name are free", async () => {
    const topic = await newTopic({ records: 3 });
    const group = newGroup();
    const { client, partitions } = await subscribe({ topics: [topic], group, subscription: "s" });
    const [frame] = await client.expectRecords(3);
    if (frame) client.send({ type: "ack", subscription: "s", offsets: [{ ...ackOf(frame), offset: 2 }] });
    await client.expect("acked");
    client.send({ type: "unsubscribe", id: "bye", subscription: "s" });
    expect(await client.next()).toEqual({ type: "unsubscribed", id: "bye", subscription: "s" });
    expect(
      stockSqlite(server.databasePath, `SELECT count(*) FROM group_members WHERE group_id = '${group}'`),
    ).toBe("0");
    client.send({ type: "unsubscribe", id: "again", subscription: "s" });
    expect(await client.expect("error")).toMatchObject({
      id: "again",
      subscription: "s",
      code: "unknown_subscription",
    });
    await produce(topic, 1);
    expect(await client.untilAnswered()).toEqual([]);
    const again = await subscribe({ topics: [topic], group, subscription: "s" }, client);
    expect(again.partitions[0]?.generation).toBeGreaterThan(partitions[0]?.generation ?? 0);
    expect(offsetsOf(await client.expectRecords(2))).toEqual([2, 3]);
    await client.close();
  });

  test("that is static stays when its socket closes, and its instanceId comes back to it", async () => {
    const topic = await newTopic({ records: 3 });
    const group = newGroup();
    const old = await subscribe({ topics: [topic], group, instanceId: "tab-7" });
    await old.client.close();
    const stranger = await subscribe({ topics: [topic], group });
    expect(stranger.partitions).toEqual([]);
    const back = await subscribe({ topics: [topic], group, instanceId: "tab-7" });
    expect(back.partitions[0]?.generation).toBeGreaterThan(old.partitions[0]?.generation ?? 0);
    await back.client.expectRecords(3);
    back.client.send({ type: "unsubscribe" });
    await back.client.expect("unsubscribed");
    expect((await stranger.client.expect("assigned")).partitions).toMatchObject([{ topic, position: 0 }]);
    await Promise.all([stranger.client.close(), back.client.close()]);
  });
});

describe("a bad frame", () => {
  const BAD_FRAMES: readonly [name: string, frame: string][] = [
    ["no JSON", "hello"],
    ["nothing", ""],
    ["half an object", '{"type":"pong"'],
    ["an array", '[{"type":"pong"}]'],
    ["a string", '"pong"'],
    ["null", "null"],
    ["no type", "{}"],
    ["a type that is no string", '{"type":1}'],
    ["a type that nobody knows", '{"type":"ping"}'],
    ["a type from the prototype", '{"type":"constructor"}'],
    ["subscribe without topics", '{"type":"subscribe","group":"g"}'],
    ["subscribe with topics that are no array", '{"type":"subscribe","group":"g","topics":"orders"}'],
    ["subscribe with a group that is no string", '{"type":"subscribe","group":1,"topics":["orders"]}'],
    [
      "subscribe with a window that is no object",
      '{"type":"subscribe","group":"g","topics":["a"],"window":5}',
    ],
    ["subscribe with a reset that is a number", '{"type":"subscribe","group":"g","topics":["a"],"reset":5}'],
    ["ack without offsets", '{"type":"ack"}'],
    [
      "ack with an offset as text",
      '{"type":"ack","offsets":[{"topic":"a","partition":0,"generation":1,"offset":"1"}]}',
    ],
    ["ack without a generation", '{"type":"ack","offsets":[{"topic":"a","partition":0,"offset":1}]}'],
    ["unsubscribe with a number", '{"type":"unsubscribe","subscription":1}'],
    ["an id that is an object", '{"type":"pong","id":{}}'],
    ["an id that is null", '{"type":"pong","id":null}'],
    ["100,000 brackets", "[".repeat(100_000)],
  ];

  test("closes its socket with 4400 and says why, while another socket goes on", async () => {
    const topic = await newTopic();
    const { client: witness } = await subscribe({ topics: [topic] });
    for (const [name, frame] of BAD_FRAMES) {
      const client = await open();
      client.sendText(frame);
      const error = await client.expect("error");
      expect({ name, code: error.code, retriable: error.retriable }).toEqual({
        name,
        code: "bad_frame",
        retriable: false,
      });
      expect(error.message.length).toBeLessThan(300);
      expect({ name, ...(await client.closed()) }).toEqual({ name, code: 4400, reason: "bad_frame" });
      await produce(topic, 1);
      const received = await witness.expect("records");
      witness.send({ type: "ack", id: name, offsets: [ackOf(received)] });
      expect((await witness.expect("acked")).id).toBe(name);
    }
    await witness.close();
  });

  test("that nests a hundred thousand levels ends neither the server nor another socket", async () => {
    const topic = await newTopic({ records: 1 });
    const other = await subscribe({ topics: [topic] });
    await other.client.expectRecords(1);
    const deep = `${'{"missing":'.repeat(100_000)}1${"}".repeat(100_000)}`;
    for (const member of ["reset", "window", "id", "topics", "bogus"]) {
      const client = await open();
      client.sendText(`{"type":"subscribe","topics":["a"],"group":"g","${member}":${deep}}`);
      expect(await client.expect("error")).toMatchObject({ retriable: false });
      await client.close();
    }
    await produce(topic, 1);
    await other.client.expectRecords(1);
    await other.client.close();
  });

  test("of bytes closes its socket too", async () => {
    for (const bytes of [Buffer.from('{"type":"pong"}'), new Uint8Array([0]), new Uint8Array(0)]) {
      const client = await open();
      client.sendText(bytes);
      const error = await client.expect("error");
      expect(error.code).toBe("bad_frame");
      expect(error.message).toContain("text");
      expect((await client.closed()).code).toBe(4400);
    }
  });

  test("of text that is not UTF-8 closes its socket, and no other", async () => {
    const { client: witness } = await subscribe({ topics: [await newTopic()] });
    for (const bytes of [[0xff], [0xc3], [0xed, 0xa0, 0x80]]) {
      const raw = await RawSocket.openSilent(server.streamUrl);
      await raw.send([
        new Uint8Array([...Buffer.from('{"type":"pong","id":"'), ...bytes, ...Buffer.from('"}')]),
      ]);
      const { texts, code } = await raw.readToEnd();
      expect({ bytes, code, texts: texts.filter((text) => text.includes('"ok"')) }).toEqual({
        bytes,
        code: 1007,
        texts: [],
      });
      expect(await witness.untilAnswered()).toEqual([]);
    }
    await witness.close();
  });

  test("names the member that does not fit, and answers with the frame's id", async () => {
    const client = await open();
    client.send({
      type: "ack",
      id: "a1",
      offsets: [{ topic: "a", partition: true, generation: 1, offset: 1 }],
    });
    const error = await client.expect("error");
    expect(error).toMatchObject({ id: "a1", code: "bad_frame" });
    expect(error.message).toContain('"offsets.0.partition"');
    expect(await client.closed()).toMatchObject({ code: 4400 });
  });

  test("ends the memberships of its socket: its partitions are free at once", async () => {
    const topic = await newTopic();
    const group = newGroup();
    const { client } = await subscribe({ topics: [topic], group });
    client.sendText("bad");
    await client.expect("error");
    await client.closed();
    const next = await subscribe({ topics: [topic], group });
    expect(next.partitions).toMatchObject([{ topic, partition: 0 }]);
    await next.client.close();
  });
});

describe("a frame that is understood and not taken leaves the socket alive:", () => {
  const FRAMES: readonly [name: string, frame: Record<string, unknown>, why: string][] = [
    ["auth, not built yet", { type: "auth", token: "t" }, "not built yet"],
    ["a transaction of nothing", { type: "transact", appends: [] }, "neither appends nor commits"],
    ["neither a group nor a place", { type: "subscribe", topics: ["a"] }, 'give "group"'],
    ["a place for a group", { type: "subscribe", topics: ["a"], group: "g", from: "latest" }, "for readers"],
    [
      "an ack timeout of a reader",
      { type: "subscribe", topics: ["a"], from: "latest", ackTimeoutMs: 1_000 },
      '"ackTimeoutMs"',
    ],
    ["no records", { type: "produce", topic: "a", records: [] }, "records"],
    ["no partitions", { type: "pause", partitions: [] }, '"partitions"'],
    ["an unknown member", { type: "subscribe", topics: ["a"], group: "g", colour: "red" }, '"colour"'],
    [
      "an unknown member of the window",
      { type: "subscribe", topics: ["a"], group: "g", window: { frames: 1 } },
      '"window.frames"',
    ],
    [
      "an unknown member of the reset",
      { type: "subscribe", topics: ["a"], group: "g", reset: { present: "none" } },
      '"reset.present"',
    ],
    [
      "an unknown member of an ack's entry",
      { type: "ack", offsets: [{ topic: "a", partition: 0, generation: 1, offset: 1, next: 2 }] },
      '"offsets.0.next"',
    ],
    ["an unknown member of pong", { type: "pong", time: 5 }, '"time"'],
    ["an unknown member of unsubscribe", { type: "unsubscribe", reason: "x" }, '"reason"'],
    ["a bad topic", { type: "subscribe", topics: ["a/b"], group: "g" }, '"topics.0"'],
    ["a bad group", { type: "subscribe", topics: ["a"], group: "x".repeat(250) }, '"group"'],
    [
      "a bad subscription",
      { type: "subscribe", topics: ["a"], group: "g", subscription: "" },
      '"subscription"',
    ],
    ["a bad instanceId", { type: "subscribe", topics: ["a"], group: "g", instanceId: ".." }, '"instanceId"'],
    [
      "a memberId with NUL",
      { type: "subscribe", topics: ["a"], group: "g", memberId: "\u0000" },
      '"memberId"',
    ],
    ["no topics", { type: "subscribe", topics: [], group: "g" }, '"topics"'],
    [
      "a policy that nobody knows",
      { type: "subscribe", topics: ["a"], group: "g", reset: "newest" },
      '"reset"',
    ],
    [
      "a session timeout that is too short",
      { type: "subscribe", topics: ["a"], group: "g", sessionTimeoutMs: 5_999 },
      "6000 to 300000",
    ],
    ["an empty ack", { type: "ack", offsets: [] }, '"offsets"'],
    [
      "a negative offset",
      { type: "ack", offsets: [{ topic: "a", partition: 0, generation: 1, offset: -1 }] },
      '"offsets.0.offset"',
    ],
  ];

  test.each(FRAMES)("%s", async (_, frame, why) => {
    const client = await open();
    client.send({ id: "f", ...frame });
    const error = await client.expect("error");
    expect(error).toMatchObject({ id: "f", code: "bad_request", retriable: false });
    expect(error.message).toContain(why);
    expect(await client.untilAnswered()).toEqual([]);
    await client.close();
  });

  test("a member twice: two readers would read two things", async () => {
    const client = await open();
    for (const [text, member] of [
      ['{"type":"pong","id":1,"id":1}', "id"],
      ['{"type":"subscribe","id":1,"topics":["a"],"group":"g","group":"h"}', "group"],
      [
        '{"type":"ack","id":1,"offsets":[{"topic":"a","partition":0,"generation":1,"offset":1,"offset":2}]}',
        "offset",
      ],
    ] as const) {
      client.sendText(text);
      const error = await client.expect("error");
      expect(error).toMatchObject({ id: 1, code: "bad_request" });
      expect(error.message).toContain(`"${member}" is there twice`);
    }
    await client.close();
  });

  test("an unknown subscription, whatever is asked of it", async () => {
    const client = await open();
    client.send({ type: "unsubscribe", id: 1 });
    expect(await client.expect("error")).toMatchObject({
      id: 1,
      subscription: "default",
      code: "unknown_subscription",
    });
    await client.close();
  });
});

describe("an answer", () => {
  test.each([0, 1, 2 ** 53 - 1, "", "a", "é😀\u2028", "x".repeat(249)])("carries the id %j", async (id) => {
    const client = await open();
    client.send({ type: "pong", id });
    expect(await client.next()).toEqual({ type: "ok", id });
    client.send({ type: "unsubscribe", id });
    expect(await client.expect("error")).toMatchObject({ id });
    await client.close();
  });

  test("is given to no frame without an id that needs none", async () => {
    const client = await open();
    client.send({ type: "pong" });
    expect(await client.untilAnswered()).toEqual([]);
    await client.close();
  });

  test.each([-1, 0.5, 2 ** 53, "x".repeat(250), "\u0000"])("is refused to the id %j", async (id) => {
    const client = await open();
    client.send({ type: "pong", id });
    const error = await client.expect("error");
    expect(error).toMatchObject({ code: "bad_request" });
    expect(error.message).toContain('"id"');
    await client.close();
  });

  test("comes to every frame once, in order, while records stream", async () => {
    const topic = await newTopic({ records: 2_000 });
    const { client } = await subscribe({ topics: [topic], window: { records: 10_000, bytes: 4 * MIB } });
    for (const id of range(0, 500)) client.send({ type: "pong", id });
    const answers: unknown[] = [];
    let records = 0;
    while (answers.length < 500 || records < 2_000) {
      const frame = await client.next();
      if (frame.type === "ok") answers.push(frame.id);
      else if (frame.type === "records") records += frame.records.length;
      else throw new Error(JSON.stringify(frame));
    }
    expect(answers).toEqual([...range(0, 500)]);
    await client.close();
  });
});

describe("the size of a frame", () => {
  /** A pong of that many bytes, most of them spaces. */
  const pongOf = (bytes: number) => `{"type":"pong","id":1${" ".repeat(bytes - 22)}}`;

  test("may be 4 MiB + 64 KiB", async () => {
    const client = await open();
    client.sendText(pongOf(FRAME_BYTES_MAX));
    expect(await client.next()).toEqual({ type: "ok", id: 1 });
    await client.close();
  });

  test("may not be a byte more: 1009, and nobody else notices", async () => {
    const topic = await newTopic();
    const { client: witness } = await subscribe({ topics: [topic] });
    const client = await open();
    client.sendText(pongOf(FRAME_BYTES_MAX + 1));
    expect(await client.closed()).toMatchObject({ code: 1009 });
    await produce(topic, 1);
    await witness.expect("records");
    await witness.close();
  });
});

describe("a client that asks and never reads", () => {
  test("is closed, its group is free, and nobody else notices", async () => {
    const topic = await newTopic({ records: 1 });
    const [group, witnessGroup] = [newGroup(), newGroup()];
    const { client: witness } = await subscribe({ topics: [topic], group: witnessGroup });
    await witness.expectRecords(1);
    const silent = await RawSocket.openSilent(`${server.streamUrl}?topic=${topic}&group=${group}`);
    const idOf = (n: number) => `${n}-${"x".repeat(240)}`;
    let left = Promise.resolve();
    for (let first = 0; first < 100_000; first += 1_000)
      left = silent.send(
        range(first, first + 1_000).map((n) => JSON.stringify({ type: "pong", id: idOf(n) })),
      );
    for (let n = 0; n < 20; n += 1) {
      await produce(topic, 1);
      const frame = await witness.expect("records");
      witness.send({ type: "ack", offsets: [ackOf(frame)] });
      await witness.expect("acked");
    }
    await left;

    const successor = await open();
    successor.send({ type: "subscribe", topics: [topic], group });
    await successor.expect("subscribed");
    let { partitions } = await successor.expect("assigned");
    if (partitions.length === 0) ({ partitions } = await successor.expect("assigned"));
    expect(partitions).toMatchObject([{ topic, partition: 0 }]);
    await successor.close();
    const { texts, code } = await silent.readToEnd();
    expect(code).toBe(4029);
    const answers = texts.map((text) => JSON.parse(text)).filter(({ type }) => type === "ok");
    expect(answers.length).toBeLessThan(100_000);
    expect(answers.map(({ id }) => id)).toEqual(range(0, answers.length).map(idOf));
    expect(await witness.untilAnswered()).toEqual([]);
    await witness.close();
  }, 20_000);
});

test("nothing of all this was a defect in the server's log", () => {
  const isDefect = (line: string) => /event="(defect|database failed|write failed|read failed)"/.test(line);
  expect(server.logged.split("\n").filter(isDefect)).toEqual([]);
});
