// Whole servers on a real database, with sockets in memory and time that the test moves: what crosses the wire when
// processes share a file, leases run out, disks fail and clients stop reading. conversations.test.ts has the wire
// itself, over real sockets.

import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { AckEntry, ServerFrame, SubscribeFrame } from "../../src/protocol/frames.ts";
import { SOCKET_ANSWERS_BYTES_MAX, SOCKET_BUFFER_BYTES_MAX } from "../../src/protocol/limits.ts";
import { createServer } from "../../src/runtimes/server.ts";
import { type Db, DbError, type DbFailure, type Statement } from "../../src/store/db.ts";
import type { SocketHandlers, SocketPort } from "../../src/stream/socket.ts";
import { failing, openTestDatabase, START_MS, stockRows, WatchedDb } from "../support/database.ts";
import { FakeTime, fakeChance } from "../support/fake-time.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const HEARTBEAT_MS = 15_000;
const SESSION_TIMEOUT_MS = 45_000;
/** What a look at the leases waits beyond the one that is due. */
const SLACK_MS = 50;

const database = await openTestDatabase();
const second = await database.openSecond();
afterAll(() => database.close());
beforeEach(() => database.empty());

type FrameOf<T extends ServerFrame["type"]> = Extract<ServerFrame, { type: T }>;

/** The client's end of a socket in memory. It answers pings unless it is told not to. */
class TestClient {
  readonly port: SocketPort;
  closed: { code: number; reason: string } | undefined;
  answersPings = true;
  /** A client that does not read leaves what it is sent in the server's buffer. */
  isReading = true;
  bufferedBytes = 0;
  protocolPings = 0;
  sentAfterClose = 0;
  pings = 0;
  /** Once: what the next send throws. */
  sendError: Error | undefined;
  #handlers: SocketHandlers | undefined;
  #frames: ServerFrame[] = [];

  constructor() {
    this.port = {
      send: (text) => this.#receive(text),
      bufferedBytes: () => this.bufferedBytes,
      close: (code, reason) => {
        if (this.closed) return;
        this.closed = { code, reason };
        this.#handlers?.onClose(); // before close() returns, as Bun does
      },
      ping: () => {
        this.protocolPings += 1;
      },
    };
  }

  accept(handlers: SocketHandlers): void {
    this.#handlers = handlers;
  }

  /** What has come since the last time, in order; pings aside. */
  take(): readonly ServerFrame[] {
    return this.#frames.splice(0);
  }

  /** The frames of one type that have come; everything else is dropped. */
  takeOnly<T extends ServerFrame["type"]>(type: T): readonly FrameOf<T>[] {
    return this.take().filter((frame): frame is FrameOf<T> => frame.type === type);
  }

  /** The types of what has come, for where the rest does not matter. */
  takeTypes(): readonly string[] {
    return this.take().map(({ type }) => type);
  }

  say(frame: Readonly<Record<string, unknown>>): void {
    this.#handlers?.onMessage(JSON.stringify(frame));
  }

  /** A binary frame: a runtime's adapter passes on no text. */
  sayBytes(): void {
    this.#handlers?.onMessage(undefined);
  }

  subscribe(options: Partial<SubscribeFrame> = {}): void {
    this.say({ type: "subscribe", topics: ["orders"], group: "billing", ...options });
  }

  ack(offsets: readonly AckEntry[], about: { id?: number; subscription?: string } = {}): void {
    this.say({ type: "ack", ...about, offsets });
  }

  pong(): void {
    this.#handlers?.onPong();
  }

  hangUp(): void {
    this.closed = { code: 1006, reason: "" };
    this.#handlers?.onClose();
  }

  readAgain(): void {
    this.isReading = true;
    this.bufferedBytes = 0;
    this.#handlers?.onDrain();
  }

  #receive(text: string): void {
    if (this.sendError) {
      const error = this.sendError;
      this.sendError = undefined;
      throw error;
    }
    if (this.closed) {
      this.sentAfterClose += 1;
      return;
    }
    if (!this.isReading) this.bufferedBytes += Buffer.byteLength(text);
    const frame: ServerFrame = JSON.parse(text);
    if (frame.type !== "ping") this.#frames.push(frame);
    else this.#receivePing();
  }

  #receivePing(): void {
    this.pings += 1;
    if (this.answersPings) queueMicrotask(() => this.say({ type: "pong" }));
  }
}

interface Runs {
  readonly runs: readonly { partition: number; offset: number; count: number }[];
}

interface ServerOptions {
  readonly db?: Db;
  readonly ids?: string;
  readonly time?: FakeTime;
  /** As on a remote database: it looks for what others change, and holds a lease for its members. */
  readonly isShared?: boolean;
}

/** A server process; several of them share the database, and all go by one time. */
function startServer(options: ServerOptions = {}) {
  const watched = new WatchedDb(options.db ?? database.db, { isShared: options.isShared ?? false });
  const time: FakeTime = options.time ?? new FakeTime((ms) => database.pass(ms));
  const log: string[] = [];
  const server = createServer({
    db: watched,
    scheduler: time,
    chance: fakeChance({ ids: options.ids ?? "m", random: () => 0.5 }),
    log: (event) => log.push(event),
    origins: { allowed: [], allowsLoopback: true },
    createsTopicsOnFirstUse: true,
  });
  const call = async (method: string, path: string, body?: unknown): Promise<Response> =>
    server.app.fetch(
      new Request(`http://localhost${path}`, {
        method,
        ...(body !== undefined && { body: JSON.stringify(body) }),
      }),
    );

  async function connect(query = ""): Promise<TestClient> {
    const client = new TestClient();
    await server.app.fetch(new Request(`http://localhost/v1/stream${query}`), {
      upgrade: (_: Request, accept: (socket: SocketPort) => SocketHandlers) => {
        const handlers = accept(client.port);
        client.accept(handlers);
        handlers.onOpen();
        return new Response(null);
      },
    });
    return client;
  }

  async function produce(
    values: readonly unknown[],
    { topic = "orders", partition = 0 } = {},
  ): Promise<Runs> {
    const records = values.map((value) => ({ value, partition }));
    let response = await call("POST", `/v1/topics/${topic}/records`, { records });
    // A read that was to fail has met the look-up of the topic: nothing was written, and it says so.
    if (response.status === 503) response = await call("POST", `/v1/topics/${topic}/records`, { records });
    expect(response.status).toBe(200);
    return response.json() as Promise<Runs>;
  }

  const createTopic = (topic: string, partitionCount: number) =>
    call("PUT", `/v1/topics/${topic}`, { partitionCount });

  /** A client that has joined; what it was told is taken. */
  async function join(subscribe: Partial<SubscribeFrame> = {}, client?: TestClient) {
    const joining = client ?? (await connect());
    joining.subscribe(subscribe);
    await time.settle();
    const [subscribed, assigned, ...rest] = joining.take();
    if (subscribed?.type !== "subscribed" || assigned?.type !== "assigned")
      throw new Error(`expected subscribed and assigned, found ${JSON.stringify([subscribed, assigned])}`);
    return { client: joining, subscribed, partitions: assigned.partitions, frames: rest };
  }

  return { ...server, watched, time, log, call, connect, produce, createTopic, join };
}

const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);

const record = (offset: number, value: unknown = offset, timestamp = START_MS) => ({
  offset,
  timestamp,
  value,
});

/** Two servers that share the database, as on a remote one. */
async function startTwoServers() {
  const time = new FakeTime((ms) => database.pass(ms));
  const here = startServer({ time, isShared: true });
  const there = startServer({ db: second, ids: "other", time, isShared: true });
  await here.start();
  await there.start();
  return { time, here, there };
}

/** An echo of the frame, as the protocol wants it. */
function ackOf({ topic, partition, generation, next }: FrameOf<"records">): AckEntry {
  return { topic, partition, generation, offset: next };
}

function theRecords(frames: readonly ServerFrame[]): readonly FrameOf<"records">[] {
  return frames.filter((frame): frame is FrameOf<"records"> => frame.type === "records");
}

function firstRecords(frames: readonly ServerFrame[]): FrameOf<"records"> {
  const [first] = theRecords(frames);
  if (!first) throw new Error("no records have come");
  return first;
}

const rows = (sql: string) => stockRows(database.path, sql);
const committed = (group = "billing") =>
  rows(`SELECT committed_offset FROM consumer_lag WHERE group_id = '${group}' ORDER BY partition`).map(
    ({ committed_offset }) => committed_offset,
  );
const memberIds = () =>
  rows("SELECT member_id FROM members ORDER BY member_id").map(({ member_id }) => member_id);
const isChunkRead = ({ sql }: Statement) => sql.includes("group_concat(record)");

describe("a consumer", () => {
  test("subscribes, is assigned, gets records, acknowledges and is told that it is durable", async () => {
    const { connect, produce, time } = startServer();
    await produce(["a", { b: 1 }]);
    const client = await connect();
    client.subscribe({ id: 1 });
    await time.settle();
    expect(client.take()).toEqual([
      {
        type: "subscribed",
        id: 1,
        subscription: "default",
        memberId: "m-1",
        heartbeatMs: HEARTBEAT_MS,
        sessionTimeoutMs: SESSION_TIMEOUT_MS,
        durability: "fsync",
      },
      {
        type: "assigned",
        subscription: "default",
        partitions: [
          {
            topic: "orders",
            topicId: 1,
            partition: 0,
            generation: 2,
            position: 0,
            committedOffset: 0,
            logStartOffset: 0,
            logEndOffset: 2,
            reset: "earliest",
          },
        ],
      },
      {
        type: "records",
        subscription: "default",
        generation: 2,
        topic: "orders",
        partition: 0,
        records: [record(0, "a"), record(1, { b: 1 })],
        next: 2,
        logEndOffset: 2,
      },
    ]);
    client.ack([{ topic: "orders", partition: 0, generation: 2, offset: 2, metadata: "done" }], { id: 2 });
    expect(client.take()).toEqual([]);
    await time.settle();
    expect(client.take()).toEqual([
      {
        type: "acked",
        id: 2,
        subscription: "default",
        offsets: [{ topic: "orders", partition: 0, offset: 2 }],
      },
    ]);
    expect(rows("SELECT committed_offset, lag, metadata, member_id FROM consumer_lag")).toEqual([
      { committed_offset: 2, lag: 0, metadata: "done", member_id: "m-1" },
    ]);
    expect(time.nowMs()).toBe(0);
  });

  test("is not told of an ack before it is on disk", async () => {
    const { join, produce, time, watched } = startServer();
    await produce([0]);
    const { client, frames } = await join();
    let release = () => {};
    watched.onWrite = () =>
      new Promise<void>((resolve) => {
        release = resolve;
      });
    client.ack([ackOf(firstRecords(frames))]);
    await time.advance(5_000);
    expect(client.take()).toEqual([]);
    expect(committed()).toEqual([0]);
    watched.onWrite = undefined;
    release();
    await time.settle();
    expect(client.takeTypes()).toEqual(["acked"]);
    expect(committed()).toEqual([1]);
  });

  test("subscribes by the URL alone", async () => {
    const { connect, produce, time } = startServer();
    await produce([0, 1]);
    const client = await connect("?topic=orders&group=billing&reset=latest");
    await time.settle();
    expect(client.take()).toMatchObject([
      { type: "subscribed", subscription: "default" },
      { type: "assigned", partitions: [{ position: 2, reset: "latest" }] },
    ]);
  });

  test("whose URL makes no sense is refused and closed", async () => {
    const { connect, time } = startServer();
    const client = await connect("?topic=orders&group=billing&window=5");
    await time.settle();
    expect(client.take()).toMatchObject([{ type: "error", code: "bad_frame" }]);
    expect(client.closed?.code).toBe(4400);
    expect(memberIds()).toEqual([]);
    expect(time.pendingDelaysMs).toEqual([]); // nothing is left of it
  });

  test("that waits is woken by a produce while time stands still, and nobody else is", async () => {
    const { join, produce, time, watched } = startServer();
    await produce([0], { topic: "payments" });
    const { client } = await join();
    const other = await join({ group: "other", topics: ["payments"], reset: "latest" });
    const before = watched.reads.length;
    await produce(["now"]);
    await time.settle();
    expect(client.take()).toMatchObject([
      { type: "records", records: [record(0, "now")], next: 1, logEndOffset: 1 },
    ]);
    expect(other.client.take()).toEqual([]);
    expect(time.nowMs()).toBe(0);
    expect(watched.reads.slice(before).filter(isChunkRead)).toHaveLength(1);
  });

  test("that waits gets each record once, however many produces there are at once", async () => {
    const { join, produce, time } = startServer();
    const { client } = await join();
    await Promise.all(numbers(0, 40).map((n) => produce([n, n])));
    await time.settle();
    const offsets = theRecords(client.take()).flatMap(({ records }) => records.map(({ offset }) => offset));
    expect(offsets).toEqual(numbers(0, 80));
  });

  test("gets the records that come while it is far behind, in order and once", async () => {
    const { join, produce, time } = startServer();
    await produce(numbers(0, 1_200));
    const { client, frames } = await join({ window: { records: 10_000, bytes: 4 * MIB } });
    await produce(numbers(1_200, 1_500));
    await time.settle();
    const all = theRecords([...frames, ...client.take()]);
    expect(all.flatMap(({ records }) => records.map(({ value }) => value))).toEqual(numbers(0, 1_500));
    expect(all.every(({ records }) => records.length <= 500)).toBe(true);
  });

  test("does not get what does not fit its window until an ack has made room", async () => {
    const { join, produce, time } = startServer();
    await produce(numbers(0, 10));
    const { client, frames } = await join({ window: { records: 4 } });
    const got = [...frames];
    expect(theRecords(got).map(({ next }) => next)).toEqual([2, 4]);
    await time.advance(1_000);
    expect(client.take()).toEqual([]);
    client.ack([ackOf(firstRecords(got))]);
    await time.settle();
    expect(client.take()).toMatchObject([{ type: "acked" }, { type: "records", next: 6 }]);
    await time.advance(1_000);
    expect(client.take()).toEqual([]);
  });

  test("of two subscriptions on one socket gets each by its name, and leaving one leaves the other", async () => {
    const { join, produce, time } = startServer();
    const { client } = await join({ subscription: "s1", group: "a" });
    await join({ subscription: "s2", group: "b" }, client);
    await produce([0]);
    await time.settle();
    const [one, two] = theRecords(client.take());
    expect([one?.subscription, two?.subscription]).toEqual(["s1", "s2"]);
    client.say({ type: "unsubscribe", id: 7, subscription: "s1" });
    await time.settle();
    expect(client.take()).toEqual([{ type: "unsubscribed", id: 7, subscription: "s1" }]);
    expect(rows("SELECT group_id FROM members")).toEqual([{ group_id: "b" }]);
    await produce([1]);
    await time.settle();
    expect(client.take()).toMatchObject([{ type: "records", subscription: "s2", next: 2 }]);
  });
});

describe("an append by another process", () => {
  test("is found by the poll, within 100 ms, and not without it", async () => {
    const { join, produce, time } = startServer();
    const elsewhere = startServer({ db: second, ids: "other", time });
    await produce([0]);
    const { client } = await join({ reset: "latest" });
    await time.advance(5_000);
    await elsewhere.produce(["foreign"]);
    await time.settle();
    expect(client.take()).toEqual([]);
    await time.advance(100);
    expect(client.take()).toMatchObject([{ type: "records", records: [{ offset: 1, value: "foreign" }] }]);
  });

  test("and own appends come in the order of their offsets, each once", async () => {
    const { join, produce, time } = startServer();
    const elsewhere = startServer({ db: second, ids: "other", time });
    const { client } = await join();
    for (let round = 0; round < 10; round += 1) {
      await elsewhere.produce([`foreign ${round}`]);
      if (round % 3 === 0) await time.advance(7);
      await produce([`own ${round}`]);
      if (round % 4 === 0) await time.advance(100);
    }
    await time.advance(100);
    const values = theRecords(client.take()).flatMap(({ records }) => records);
    expect(values.map(({ offset }) => offset)).toEqual(numbers(0, 20));
    expect(values.map(({ value }) => value)).toEqual(
      numbers(0, 10).flatMap((round) => [`foreign ${round}`, `own ${round}`]),
    );
  });

  test("is not looked for while nobody waits", async () => {
    const { join, time, watched } = startServer();
    const { client } = await join();
    client.say({ type: "unsubscribe" });
    await time.settle();
    const before = watched.reads.length;
    await startServer({ db: second, time }).produce([0]);
    await time.advance(10_000);
    expect(watched.reads.length).toBe(before);
  });

  test("to a topic that is created there reaches who waits for its records here", async () => {
    const time = new FakeTime((ms) => database.pass(ms));
    const elsewhere = startServer({ db: second, ids: "other", time });
    await elsewhere.createTopic("orders", 2);
    const { join } = startServer({ time });
    const { client, partitions } = await join();
    expect(partitions).toHaveLength(2);
    await elsewhere.produce([1], { partition: 1 });
    await time.advance(100);
    expect(client.take()).toMatchObject([{ type: "records", partition: 1, next: 1 }]);
  });
});

test("a thousand consumers that wait at one place cost one read of what is appended", async () => {
  const { connect, produce, time, watched } = startServer();
  await produce([0]);
  const clients = await Promise.all(
    numbers(0, 1_000).map((n) => connect(`?topic=orders&group=group-${n}&reset=latest`)),
  );
  await time.settle();
  const generations = clients.map((client) => {
    const [, assigned] = client.take();
    return assigned?.type === "assigned" ? assigned.partitions[0]?.generation : undefined;
  });
  expect(new Set(generations).size).toBe(1_000);
  const before = watched.reads.length;
  await produce(["for all"]);
  await time.settle();
  expect(watched.reads.slice(before).filter(isChunkRead)).toHaveLength(1);
  for (const [i, client] of clients.entries()) {
    const frames = client.take();
    expect(frames).toHaveLength(1);
    expect(frames).toMatchObject([{ type: "records", generation: generations[i], next: 2 }]);
  }
  expect(time.nowMs()).toBe(0);
});

describe("a second member", () => {
  test("of a group whose only partition is taken has none, and the first goes on", async () => {
    const { join, produce, time } = startServer();
    const first = await join();
    const second = await join();
    expect([second.partitions, second.frames]).toEqual([[], []]);
    await produce([0]);
    await time.settle();
    const frames = first.client.take();
    expect(frames).toMatchObject([{ type: "records" }]);
    first.client.ack([ackOf(firstRecords(frames))]);
    await time.settle();
    expect(first.client.take()).toMatchObject([{ type: "acked", offsets: [{ offset: 1 }] }]);
    expect(second.client.take()).toEqual([]);
    expect(memberIds()).toEqual(["m-1", "m-2"]);
  });

  test("gets the partition when the first has left, from the committed offset", async () => {
    const { join, produce, time } = startServer();
    await produce(numbers(0, 4));
    const first = await join({ window: { records: 4 } });
    first.client.ack([ackOf(firstRecords(first.frames))]);
    await time.settle();
    const next = await join();
    first.client.say({ type: "unsubscribe" });
    await time.settle();
    const [assigned, ...records] = next.client.take();
    expect(assigned).toMatchObject({
      type: "assigned",
      partitions: [{ partition: 0, position: 2, committedOffset: 2 }],
    });
    expect(records).toMatchObject([{ type: "records", records: [record(2), record(3)] }]);
    expect(time.nowMs()).toBe(0);
  });

  test("gets what the first lets go when it has acknowledged all that it was sent; what stays goes on", async () => {
    const { createTopic, join, produce, time } = startServer();
    await createTopic("orders", 2);
    for (const partition of [0, 1]) await produce(numbers(0, 2), { partition });
    const first = await join();
    const sent = theRecords(first.frames);
    const next = await join();
    const [generation, stays] = [1, 0].map((n) => first.partitions[n]?.generation);
    expect(first.client.take()).toEqual([
      {
        type: "revoked",
        subscription: "default",
        partitions: [{ topic: "orders", partition: 1, generation: generation ?? 0 }],
        reason: "rebalance",
        deadlineMs: 5_000,
      },
    ]);
    expect(next.partitions).toEqual([]);
    for (const partition of [0, 1]) await produce([2], { partition });
    await time.settle();
    expect(first.client.take()).toMatchObject([
      { type: "records", partition: 0, generation: stays, next: 3 },
    ]);
    first.client.ack(sent.filter(({ partition }) => partition === 1).map(ackOf));
    await time.settle();
    expect(first.client.take()).toMatchObject([{ type: "acked", offsets: [{ partition: 1, offset: 2 }] }]);
    const [assigned, ...records] = next.client.take();
    expect(assigned).toMatchObject({ type: "assigned", partitions: [{ partition: 1, position: 2 }] });
    expect(records).toMatchObject([{ type: "records", partition: 1, records: [record(2)] }]);
    expect(time.nowMs()).toBe(0);
  });

  test("gets it at the deadline from a first that does nothing, whose acks are fenced from then on", async () => {
    const { createTopic, join, produce, time } = startServer();
    await createTopic("orders", 2);
    await produce(numbers(0, 4), { partition: 1 });
    const first = await join({ window: { records: 8 } });
    const late = ackOf(firstRecords(first.frames));
    const next = await join();
    first.client.take();
    await time.advance(4_000);
    first.client.ack([{ ...late, offset: 1 }]); // still counts
    await time.settle();
    expect(first.client.take()).toMatchObject([{ type: "acked", offsets: [{ offset: 1 }] }]);
    expect(next.client.take()).toEqual([]);
    await time.advance(1_000 + SLACK_MS);
    expect(next.client.take()).toMatchObject([
      { type: "assigned", partitions: [{ partition: 1, position: 1, committedOffset: 1 }] },
      { type: "records", records: numbers(1, 4).map((n) => record(n)) },
    ]);
    expect(first.client.take()).toEqual([]); // it was told before
    first.client.ack([late]);
    await time.settle();
    expect(first.client.take()).toMatchObject([
      { type: "acked", offsets: [{ offset: 1, code: "fenced_generation" }] },
    ]);
    expect(committed()).toEqual([0, 1]);
  });

  test("at most once: what is committed ahead is sent before the partition goes, and nothing twice", async () => {
    const { createTopic, join, produce, connect, time, watched } = startServer();
    await createTopic("orders", 2);
    const first = await join({ ack: "none" });
    // The commit of what was produced is held until the second member has come.
    let write = () => {};
    watched.onWrite = async (statements) => {
      if (!statements.some(({ sql }) => sql.includes("INSERT INTO committed_offsets"))) return;
      watched.onWrite = undefined;
      await new Promise<void>((resolve) => {
        write = resolve;
      });
    };
    await produce(numbers(0, 3), { partition: 1 });
    await time.settle();
    const client = await connect();
    client.subscribe({ ack: "none" });
    await time.settle();
    write();
    await time.settle();
    const got = theRecords(first.client.take());
    const rest = theRecords(client.take());
    expect([...got, ...rest].flatMap(({ records }) => records)).toEqual(numbers(0, 3).map((n) => record(n)));
    await time.advance(6_000);
    expect(rows("SELECT count(DISTINCT member_id) AS n FROM assignments")).toEqual([{ n: 2 }]);
    expect([...theRecords(first.client.take()), ...theRecords(client.take())]).toEqual([]);
  });
});

describe("servers that share a database", () => {
  const HAND_OVER_MAX_MS = 1_000;

  test("hand a partition over within a second, with nothing lost and nothing twice where it was acknowledged", async () => {
    const { here, there, time } = await startTwoServers();
    await here.createTopic("orders", 2);
    for (const partition of [0, 1]) await here.produce(numbers(0, 2), { partition });
    const first = await here.join();
    const next = await there.join();
    expect(next.partitions).toEqual([]);
    await time.advance(100);
    expect(first.client.take()).toMatchObject([
      { type: "revoked", reason: "rebalance", partitions: [{ partition: 1 }] },
    ]);
    first.client.ack(theRecords(first.frames).map(ackOf));
    await time.advance(HAND_OVER_MAX_MS - 100);
    expect(next.client.take()).toMatchObject([
      { type: "assigned", partitions: [{ partition: 1, position: 2, committedOffset: 2 }] },
    ]);
    await there.produce(["new"], { partition: 1 });
    await time.settle();
    expect(next.client.take()).toMatchObject([{ type: "records", records: [{ value: "new" }] }]);
    expect(first.client.takeTypes()).toEqual(["acked"]);
  });

  test("tell a member within a second that another has taken its membership over, and fence it before that", async () => {
    const { here, there, time } = await startTwoServers();
    await here.produce(numbers(0, 4));
    const old = await here.join();
    const taken = await there.join({ memberId: old.subscribed.memberId });
    old.client.ack([ackOf(firstRecords(old.frames))]);
    await time.settle();
    expect(old.client.take()).toMatchObject([
      { type: "acked", offsets: [{ offset: 0, code: "fenced_generation" }] },
    ]);
    await time.advance(HAND_OVER_MAX_MS);
    expect(old.client.take()).toEqual([{ type: "unsubscribed", subscription: "default", code: "replaced" }]);
    expect(taken.client.take()).toEqual([]);
  });

  test("reset a group whose member is at another, within a second", async () => {
    const { here, there, time } = await startTwoServers();
    await here.produce(numbers(0, 4));
    const { client, frames, partitions } = await here.join();
    client.ack([ackOf(firstRecords(frames))]);
    await time.settle();
    client.take();
    const reset = { topics: [{ topic: "orders" }], to: { offset: 1 } };
    const answered = there.call("POST", "/v1/groups/billing/reset", reset);
    await time.settle();
    expect(await (await answered).json()).toEqual({
      plan: [{ topic: "orders", partition: 0, from: 4, to: 1 }],
      applied: true,
    });
    await time.advance(HAND_OVER_MAX_MS);
    const [assigned, records] = client.take();
    expect(assigned).toMatchObject({ type: "assigned", partitions: [{ position: 1, committedOffset: 1 }] });
    expect(records).toMatchObject({ type: "records", records: numbers(1, 4).map((n) => record(n)) });
    const [before] = partitions;
    if (records?.type === "records") expect(records.generation).toBeGreaterThan(before?.generation ?? 0);
  });

  test("tell each other of topics: growth, deletion, and a topic that comes back", async () => {
    const { here, there, time } = await startTwoServers();
    await here.createTopic("orders", 1);
    const { client } = await here.join();
    const reader = await here.connect("?topic=orders&from=latest");
    await time.settle();
    reader.take();
    await there.createTopic("orders", 2);
    await time.advance(HAND_OVER_MAX_MS);
    for (const one of [client, reader])
      expect(one.take()).toMatchObject([{ type: "assigned", partitions: [{ partition: 1, position: 0 }] }]);
    await there.call("DELETE", "/v1/topics/orders");
    await time.advance(HAND_OVER_MAX_MS);
    for (const one of [client, reader])
      expect(one.take()).toMatchObject([{ type: "revoked", reason: "topic_deleted", deadlineMs: 0 }]);
    await there.createTopic("orders", 1);
    await time.advance(HAND_OVER_MAX_MS);
    for (const one of [client, reader])
      expect(one.take()).toMatchObject([{ type: "assigned", partitions: [{ partition: 0, position: 0 }] }]);
  });

  test("take over what a server that is killed has left, after its lease; its late acks are fenced", async () => {
    const { here, there, time } = await startTwoServers();
    await here.createTopic("orders", 2);
    const first = await here.join();
    const next = await there.join();
    // From here on nothing of it reaches the database.
    here.watched.onRead = here.watched.onWrite = () => {
      throw new DbError("io", "scripted");
    };
    await time.advance(9_000);
    expect(next.client.take()).toMatchObject([{ type: "assigned", partitions: [{ partition: 1 }] }]);
    await time.advance(2_000);
    expect(next.client.take()).toMatchObject([{ type: "assigned", partitions: [{ partition: 0 }] }]);
    expect(memberIds()).toEqual([next.subscribed.memberId]);
    here.watched.onRead = here.watched.onWrite = undefined;
    await time.advance(HAND_OVER_MAX_MS);
    expect(first.client.takeTypes().at(-1)).toBe("unsubscribed");
  });

  test("that stops hands its partitions over at once", async () => {
    const { here, there, time } = await startTwoServers();
    await here.createTopic("orders", 2);
    await here.join();
    const next = await there.join();
    const stopped = here.stop();
    await time.advance(HAND_OVER_MAX_MS);
    await stopped;
    const gained = next.client.takeOnly("assigned").flatMap(({ partitions }) => partitions);
    expect(gained.map(({ partition }) => partition).toSorted()).toEqual([0, 1]);
    expect(rows("SELECT process_id FROM processes")).toHaveLength(1);
  });

  test("ask the database nothing while nobody is connected", async () => {
    const { here, there, time } = await startTwoServers();
    const { client } = await here.join();
    client.hangUp();
    await time.advance(60_000);
    const reads = here.watched.reads.length + there.watched.reads.length;
    await time.advance(600_000);
    expect(here.watched.reads.length + there.watched.reads.length).toBe(reads);
    expect(time.pendingDelaysMs).toEqual([]);
  });
});

describe("taking a membership over", () => {
  test.each(["memberId", "instanceId"] as const)(
    "by %s ends the old subscription, fences it, and goes on from the committed offset in a new generation",
    async (by) => {
      const { join, produce, time } = startServer();
      await produce(numbers(0, 6));
      const old = await join({ window: { records: 6 }, instanceId: "tab-7" });
      const [acked, unacked] = theRecords(old.frames);
      if (!acked || !unacked) throw new Error("two frames were due");
      old.client.ack([ackOf(acked)]);
      await time.settle();
      old.client.take();

      const identity = by === "memberId" ? { memberId: old.subscribed.memberId } : { instanceId: "tab-7" };
      const taken = await join(identity);
      expect(old.client.take()).toEqual([
        { type: "unsubscribed", subscription: "default", code: "replaced" },
      ]);
      expect(old.client.closed).toBeUndefined();
      expect(taken.subscribed.memberId).toBe(by === "memberId" ? "m-1" : "m-2");
      expect(taken.partitions).toMatchObject([{ position: 3, committedOffset: 3 }]);
      expect(taken.partitions[0]?.generation).toBeGreaterThan(acked.generation);
      expect(taken.frames).toMatchObject([{ records: [record(3), record(4), record(5)] }]);

      old.client.ack([ackOf(unacked)], { id: 9 });
      await time.settle();
      expect(old.client.take()).toMatchObject([{ type: "error", id: 9, code: "unknown_subscription" }]);
      expect(committed()).toEqual([3]);

      await produce([6]);
      await time.settle();
      expect(old.client.take()).toEqual([]);
      expect(taken.client.take()).toMatchObject([{ type: "records", next: 7 }]);
    },
  );

  test("at another server fences the late ack of the old one, which is told at its next heartbeat", async () => {
    const { join, produce, time } = startServer();
    const elsewhere = startServer({ db: second, ids: "other", time });
    await produce(numbers(0, 4));
    const old = await join({ window: { records: 4 } });
    const [acked, unacked] = theRecords(old.frames);
    if (!acked || !unacked) throw new Error("two frames were due");
    old.client.ack([ackOf(acked)]);
    await time.settle();
    old.client.take();

    const taken = await elsewhere.join({ memberId: old.subscribed.memberId });
    expect(taken.partitions).toMatchObject([{ committedOffset: 2 }]);
    expect(taken.partitions[0]?.generation).toBeGreaterThan(acked.generation);
    old.client.ack([ackOf(unacked)], { id: 9 });
    await time.settle();
    expect(old.client.take()).toMatchObject([
      { type: "acked", id: 9, offsets: [{ offset: 2, code: "fenced_generation" }] },
    ]);
    expect(committed()).toEqual([2]);

    await time.advance(HEARTBEAT_MS);
    expect(old.client.takeTypes().at(-1)).toBe("unsubscribed");
    taken.client.ack([ackOf(firstRecords(taken.frames))]);
    await time.settle();
    expect(committed()).toEqual([4]);
    expect(old.client.take()).toEqual([]);
  });

  test("from the same socket ends the one subscription and serves the other", async () => {
    const { join, produce, time } = startServer();
    const { client, subscribed } = await join({ subscription: "s1" });
    client.subscribe({ subscription: "s2", memberId: subscribed.memberId });
    await time.settle();
    expect(client.take()).toMatchObject([
      { type: "unsubscribed", subscription: "s1", code: "replaced" },
      { type: "subscribed", subscription: "s2" },
      { type: "assigned", subscription: "s2" },
    ]);
    await produce([0]);
    await time.settle();
    expect(client.take()).toMatchObject([{ type: "records", subscription: "s2" }]);
  });

  test("while an ack is on its way counts it or fences it, and the two agree with what is durable", async () => {
    const { join, connect, produce, time } = startServer();
    await produce(numbers(0, 4));
    const old = await join();
    const client = await connect();
    old.client.ack([ackOf(firstRecords(old.frames))]);
    client.subscribe({ memberId: old.subscribed.memberId });
    await time.settle();
    const [acked] = old.client.takeOnly("acked");
    const [assigned] = client.takeOnly("assigned");
    expect(acked?.offsets[0]?.offset).toBe(assigned?.partitions[0]?.position ?? null);
    expect(committed()).toEqual([assigned?.partitions[0]?.position]);
  });
});

describe("a socket that closes", () => {
  test("ends its memberships, and the next member goes on from the committed offset", async () => {
    const { join, produce, time } = startServer();
    await produce(numbers(0, 4));
    const first = await join({ window: { records: 4 } });
    first.client.ack([ackOf(firstRecords(first.frames))]);
    await time.settle();
    first.client.hangUp();
    await time.settle();
    expect(memberIds()).toEqual([]);
    expect(rows("SELECT member_id, generation, committed_offset FROM consumer_lag")).toEqual([
      { member_id: null, generation: null, committed_offset: 2 },
    ]);
    const next = await join();
    expect(next.partitions).toMatchObject([{ position: 2 }]);
    expect(next.frames).toMatchObject([{ records: [record(2), record(3)] }]);
  });

  test("leaves nothing running: no timers, no waits, no reads", async () => {
    const { join, produce, time, watched } = startServer();
    const { client } = await join();
    client.hangUp();
    await time.settle();
    expect(time.pendingDelaysMs).toEqual([SESSION_TIMEOUT_MS + SLACK_MS]); // a last look at the leases
    await time.advance(SESSION_TIMEOUT_MS + SLACK_MS);
    expect(time.pendingDelaysMs).toEqual([]);
    await produce([0]);
    await time.advance(60_000);
    expect(watched.reads.filter(isChunkRead)).toHaveLength(0);
    expect(client.take()).toEqual([]);
  });

  test("while a read is to be asked again asks no more", async () => {
    const { join, produce, time, watched } = startServer();
    const { client } = await join();
    watched.onRead = (statement) => {
      if (isChunkRead(statement)) throw new DbError("io", "scripted");
    };
    await produce([0]);
    await time.settle();
    const before = watched.reads.filter(isChunkRead).length;
    client.hangUp();
    await time.advance(10_000);
    expect(watched.reads.filter(isChunkRead).length).toBe(before);
  });

  test("while its join is on its way ends the membership when it has come", async () => {
    const { connect, time } = startServer();
    const client = await connect();
    client.subscribe();
    client.hangUp();
    await time.settle();
    expect(client.take()).toEqual([]);
    expect(memberIds()).toEqual([]);
    await time.advance(SESSION_TIMEOUT_MS + SLACK_MS);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("while an ack is on its way does not undo it", async () => {
    const { join, produce, time } = startServer();
    await produce([0]);
    const { client, frames } = await join();
    client.ack([ackOf(firstRecords(frames))]);
    client.hangUp();
    await time.settle();
    expect(committed()).toEqual([1]);
    expect(memberIds()).toEqual([]);
    expect(client.sentAfterClose).toBe(0);
  });

  test("while the database fails ends its membership by its lease at the latest", async () => {
    const { join, time, watched } = startServer();
    const { client } = await join();
    watched.onWrite = failing(new DbError("io", "scripted"));
    client.hangUp();
    await time.settle();
    expect(memberIds()).toEqual(["m-1"]);
    await time.advance(SESSION_TIMEOUT_MS + SLACK_MS);
    expect(memberIds()).toEqual([]);
  });

  test("of a static member leaves it its partitions, to which it comes back", async () => {
    const { join, produce, time } = startServer();
    await produce(numbers(0, 4));
    const first = await join({ instanceId: "tab-7", window: { records: 4 } });
    first.client.ack([ackOf(firstRecords(first.frames))]);
    await time.settle();
    first.client.hangUp();
    await time.advance(20_000);
    expect(rows("SELECT member_id FROM consumer_lag")).toEqual([{ member_id: "m-1" }]);
    const other = await join();
    expect(other.partitions).toEqual([]);
    const back = await join({ instanceId: "tab-7" });
    expect(back.partitions).toMatchObject([{ position: 2 }]);
    expect(back.partitions[0]?.generation).toBeGreaterThan(first.partitions[0]?.generation ?? 0);
    await time.advance(SESSION_TIMEOUT_MS);
    expect(rows("SELECT instance_id FROM members ORDER BY member_id")).toEqual([
      { instance_id: null },
      { instance_id: "tab-7" },
    ]);
    expect(other.client.take()).toEqual([]);
    expect(back.client.closed).toBeUndefined();
  });

  test("of a static member gives its partitions to others when its lease has run out, not before", async () => {
    const { join, time } = startServer();
    const first = await join({ instanceId: "tab-7", sessionTimeoutMs: 6_000 });
    first.client.hangUp();
    await time.advance(5_999);
    const other = await join();
    expect(other.partitions).toEqual([]);
    expect(memberIds()).toEqual(["m-1", "m-2"]);
    await time.advance(1);
    await time.advance(2 * SLACK_MS);
    expect(memberIds()).toEqual(["m-2"]);
    expect(other.client.take()).toMatchObject([{ type: "assigned", partitions: [{ partition: 0 }] }]);
  });

  test("of a static member that has unsubscribed leaves nothing", async () => {
    const { join, time } = startServer();
    const { client } = await join({ instanceId: "tab-7" });
    client.say({ type: "unsubscribe" });
    client.hangUp();
    await time.settle();
    expect(memberIds()).toEqual([]);
  });
});

describe("signs of life", () => {
  test.each([
    { by: "the answer to a ping", answersPings: true },
    { by: "protocol-level pongs", answersPings: false },
  ])("by $by keep the membership for as long as they come", async ({ answersPings }) => {
    const { join, time } = startServer();
    const { client } = await join();
    client.answersPings = answersPings;
    for (let beat = 0; beat < 20; beat += 1) {
      await time.advance(HEARTBEAT_MS);
      if (!answersPings) client.pong();
      const [member] = rows("SELECT m.lease_expires_at - clock.now_ms AS left_ms FROM members AS m, clock");
      expect(member?.left_ms).toBeGreaterThanOrEqual(HEARTBEAT_MS);
    }
    expect(client.closed).toBeUndefined();
    expect(client.take()).toEqual([]);
    expect(client.protocolPings).toBe(client.pings);
  });

  test.each([0, 1, 7_500, 14_999])(
    "that come %d ms after each heartbeat keep the partitions from a second member",
    async (delayMs) => {
      const { join, time } = startServer();
      const { client } = await join();
      client.answersPings = false;
      for (let beat = 0; beat < 6; beat += 1) {
        await time.advance(HEARTBEAT_MS);
        await time.advance(delayMs);
        client.say({ type: "pong" });
        await time.advance(HEARTBEAT_MS - delayMs);
      }
      const other = await join();
      expect(other.partitions).toEqual([]);
      expect(client.take()).toEqual([]);
    },
  );

  test("that stop are asked for three times, then the membership ends and the socket closes with 4008", async () => {
    const { join, connect, time } = startServer();
    const { client } = await join();
    client.answersPings = false;
    const told: string[] = [];
    for (let second = 0; second <= 75 && !client.closed; second += 1) {
      for (const { type } of client.take()) told.push(`${second} s ${type}`);
      await time.advance(1_000);
    }
    for (const { type } of client.take()) told.push(`end ${type}`);
    expect(client.pings).toBe(3);
    expect(told.map((line) => line.replace(/^\S+ (s )?/, ""))).toEqual(["revoked", "unsubscribed"]);
    expect(client.closed).toMatchObject({ code: 4008 });
    expect(time.nowMs()).toBeLessThanOrEqual(61_000);
    expect(memberIds()).toEqual([]);
    const next = await connect();
    next.subscribe();
    await time.settle();
    expect(next.takeTypes()).toEqual(["subscribed", "assigned"]);
  });

  test("that stop end a static membership too", async () => {
    const { join, time } = startServer();
    const { client } = await join({ instanceId: "tab-7", sessionTimeoutMs: 6_000 });
    client.answersPings = false;
    await time.advance(10_000);
    expect(memberIds()).toEqual([]);
    expect(client.take()).toMatchObject([
      { type: "revoked", reason: "expired", deadlineMs: 0, partitions: [{ topic: "orders", partition: 0 }] },
      { type: "unsubscribed", code: "expired" },
    ]);
  });

  test("of one client do not count for another", async () => {
    const { join, time } = startServer();
    const alive = await join({ group: "alive" });
    const silent = await join({ group: "silent" });
    silent.client.answersPings = false;
    await time.advance(61_000);
    expect(silent.client.closed).toMatchObject({ code: 4008 });
    expect(alive.client.closed).toBeUndefined();
    expect(rows("SELECT group_id FROM members")).toEqual([{ group_id: "alive" }]);
  });
});

describe("a database that fails", () => {
  test.each([
    { failure: "io", code: "unavailable" },
    { failure: "full", code: "storage_full" },
    { failure: "unknown", code: "outcome_unknown" },
  ] as const satisfies readonly { failure: DbFailure; code: string }[])(
    "with $failure during an ack says $code, retriable, and the socket lives",
    async ({ failure, code }) => {
      const { join, produce, time, watched } = startServer();
      await produce([0, 1]);
      const { client, frames } = await join();
      const entry = ackOf(firstRecords(frames));
      watched.onWrite = failing(new DbError(failure, "scripted"));
      client.ack([entry], { id: 1 });
      await time.settle();
      expect(client.take()).toMatchObject([
        { type: "error", id: 1, subscription: "default", code, retriable: true },
      ]);
      expect(committed()).toEqual([0]);
      expect(client.closed).toBeUndefined();
      client.ack([entry], { id: 2 });
      await time.settle();
      expect(client.take()).toMatchObject([{ type: "acked", id: 2, offsets: [{ offset: 2 }] }]);
      expect(committed()).toEqual([2]);
    },
  );

  test("by a lock that is held lets an ack wait, and says unavailable after 15 s, having written nothing", async () => {
    const { join, produce, time, watched } = startServer();
    await produce([0]);
    const { client, frames } = await join();
    watched.onWrite = () => {
      throw new DbError("busy", "scripted");
    };
    client.ack([ackOf(firstRecords(frames))], { id: 1 });
    await time.advance(14_999);
    expect(client.take()).toEqual([]);
    await time.advance(100);
    expect(client.take()).toMatchObject([{ type: "error", id: 1, code: "unavailable", retriable: true }]);
    expect(committed()).toEqual([0]);
    watched.onWrite = undefined;
    client.ack([ackOf(firstRecords(frames))], { id: 2 });
    await time.advance(50); // the queue may be waiting to try a renewal again
    expect(client.take()).toMatchObject([{ type: "acked", id: 2, offsets: [{ offset: 1 }] }]);
  });

  test("during a subscribe says so with its id, and the name is free to try again", async () => {
    const { connect, produce, time, watched } = startServer();
    await produce([0]);
    const client = await connect();
    watched.onWrite = failing(new DbError("io", "scripted"));
    client.subscribe({ id: 1 });
    await time.settle();
    expect(client.take()).toMatchObject([{ type: "error", id: 1, code: "unavailable", retriable: true }]);
    expect(memberIds()).toEqual([]);
    client.subscribe({ id: 2 });
    await time.settle();
    expect(client.takeTypes()).toEqual(["subscribed", "assigned", "records"]);
  });

  test("during an unsubscribe says so, and the membership ends by its lease", async () => {
    const { join, time, watched } = startServer();
    const { client } = await join();
    watched.onWrite = failing(new DbError("io", "scripted"));
    client.say({ type: "unsubscribe", id: 1 });
    await time.settle();
    expect(client.take()).toMatchObject([{ type: "error", id: 1, code: "unavailable", retriable: true }]);
    await time.advance(SESSION_TIMEOUT_MS + SLACK_MS);
    expect(memberIds()).toEqual([]);
  });

  test("during a read is asked again after a second, and nothing is lost or sent twice", async () => {
    const { join, produce, time, watched, log } = startServer();
    const { client } = await join();
    const errors = [new DbError("io", "1"), new DbError("io", "2")];
    watched.onRead = (statement) => {
      const error = isChunkRead(statement) ? errors.shift() : undefined;
      if (error) throw error;
    };
    await produce([0, 1]);
    await time.advance(999);
    expect(client.take()).toEqual([]);
    await time.advance(2_000);
    expect(client.take()).toMatchObject([{ type: "records", records: [record(0), record(1)], next: 2 }]);
    expect(log.filter((event) => event === "read failed")).toHaveLength(2);
    expect(client.closed).toBeUndefined();
  });

  test("for one is not noticed by another: what they ask meanwhile is answered", async () => {
    const { join, produce, time, watched } = startServer();
    await produce([0]);
    const one = await join({ group: "one" });
    const two = await join({ group: "two" });
    // The disk refuses whatever is written for group "one".
    watched.onWrite = (statements) => {
      if (statements.some(({ args }) => args?.group_id === "one")) throw new DbError("rejected", "scripted");
    };
    one.client.ack([ackOf(firstRecords(one.frames))]);
    two.client.ack([ackOf(firstRecords(two.frames))]);
    await time.settle();
    expect(one.client.take()).toMatchObject([{ type: "error", code: "internal", retriable: false }]);
    expect(two.client.take()).toMatchObject([{ type: "acked", offsets: [{ offset: 1 }] }]);
    expect([...committed("one"), ...committed("two")]).toEqual([0, 1]);
  });

  test("is no reason to end a membership when its renewal cannot be written", async () => {
    const { join, produce, time, watched } = startServer();
    const { client } = await join();
    watched.onWrite = (statements) => {
      if (statements.some(({ sql }) => sql.includes("UPDATE members"))) throw new DbError("io", "scripted");
    };
    await time.advance(HEARTBEAT_MS + 1_000);
    watched.onWrite = undefined;
    await time.advance(HEARTBEAT_MS);
    await produce([0]);
    await time.settle();
    expect(client.take()).toMatchObject([{ type: "records" }]);
    expect(memberIds()).toEqual(["m-1"]);
  });
});

describe("a client that does not read", () => {
  const LARGE = "x".repeat(100 * KIB);

  test("gets no records while its socket holds 2 MiB, and the rest when it reads again", async () => {
    const { join, connect, produce, time } = startServer();
    for (let batch = 0; batch < 3; batch += 1) await produce(Array.from({ length: 20 }, () => LARGE));
    const client = await connect();
    client.isReading = false;
    const { frames } = await join({ window: { records: 10_000, bytes: 4 * MIB } }, client);
    expect(client.bufferedBytes).toBeGreaterThanOrEqual(SOCKET_BUFFER_BYTES_MAX);
    expect(client.bufferedBytes).toBeLessThan(SOCKET_BUFFER_BYTES_MAX + 256 * KIB);
    await time.advance(1_000);
    await produce(["small"]);
    await time.settle();
    expect(client.take()).toEqual([]);
    expect(client.closed).toBeUndefined();

    client.readAgain();
    await time.settle();
    const more = theRecords(client.take());
    expect(more.length).toBeGreaterThan(0); // though nothing was acknowledged: its window has room
    const all = [...theRecords(frames), ...more];
    for (let round = 0; round < 20; round += 1) {
      await time.settle();
      all.push(...theRecords(client.take()));
      const last = all.at(-1);
      if (last) client.ack([ackOf(last)]);
    }
    expect(all.flatMap(({ records }) => records.map(({ offset }) => offset))).toEqual(numbers(0, 61));
  });

  test("does not hold up another", async () => {
    const { join, connect, produce, time } = startServer();
    const stalled = await connect();
    stalled.isReading = false;
    await join({ group: "stalled", window: { records: 10_000, bytes: 4 * MIB } }, stalled);
    const other = await join({ group: "other" });
    for (let batch = 0; batch < 30; batch += 1) {
      await produce([LARGE]);
      await time.settle();
      const frames = other.client.take();
      expect(frames).toMatchObject([{ type: "records", next: batch + 1 }]);
      other.client.ack([ackOf(firstRecords(frames))]);
      await time.settle();
      expect(other.client.takeTypes()).toEqual(["acked"]);
    }
    expect(stalled.bufferedBytes).toBeLessThan(SOCKET_BUFFER_BYTES_MAX + 256 * KIB);
  });

  test("and goes on asking is closed with 4029, its membership ends, and nobody else notices", async () => {
    const { join, produce, time } = startServer();
    const other = await join({ group: "other" });
    const { client } = await join();
    client.isReading = false;
    const asking = { type: "unsubscribe", id: "i".repeat(249), subscription: "s".repeat(249) };
    let asked = 0;
    while (!client.closed && asked < 100_000) {
      client.say(asking);
      asked += 1;
    }
    expect(client.closed).toEqual({ code: 4029, reason: "slow down" });
    expect(client.bufferedBytes).toBeGreaterThan(SOCKET_ANSWERS_BYTES_MAX);
    expect(client.bufferedBytes).toBeLessThan(SOCKET_ANSWERS_BYTES_MAX + 2 * KIB);
    await time.settle();
    expect(rows("SELECT group_id FROM members")).toEqual([{ group_id: "other" }]);
    await produce([0]);
    await time.settle();
    expect(other.client.take()).toMatchObject([{ type: "records" }]);
  });
});

describe("a connection", () => {
  test("whose socket throws is closed with 1011, and another goes on", async () => {
    const { join, produce, time, log } = startServer();
    const broken = await join({ group: "broken" });
    const other = await join({ group: "other" });
    broken.client.sendError = new Error("the runtime's socket has a defect");
    await produce([0]);
    await time.settle();
    expect(broken.client.closed).toMatchObject({ code: 1011 });
    expect(log).toContain("defect");
    expect(other.client.take()).toMatchObject([{ type: "records", next: 1 }]);
    expect(rows("SELECT group_id FROM members")).toEqual([{ group_id: "other" }]);
  });

  test("that gets bytes instead of text is closed with 4400, and its membership ends", async () => {
    const { join, time } = startServer();
    const { client } = await join();
    client.sayBytes();
    await time.settle();
    expect(client.take()).toMatchObject([
      { type: "error", code: "bad_frame", message: "A frame must be text, found bytes" },
    ]);
    expect(client.closed).toMatchObject({ code: 4400 });
    expect(memberIds()).toEqual([]);
  });
});

describe("a server that stops", () => {
  test("on a full disk, where the database cannot be tidied up, ends all the same and says so", async () => {
    const { stop, watched, log } = startServer();
    watched.onClose = () => {
      throw new DbError("full", "SQLITE_FULL: database or disk is full");
    };
    await stop();
    expect(log).toEqual(["database not tidied up"]);
  });

  test("tells its clients when to come back, writes what it has taken, and ends their memberships", async () => {
    const { join, produce, time, stop, watched } = startServer();
    await produce([0]);
    const { client, frames } = await join();
    let committedAtClose: readonly unknown[] | undefined;
    watched.onClose = () => {
      committedAtClose = committed();
    };
    const waiting = await join({ group: "waiting", instanceId: "tab-7" });
    client.ack([ackOf(firstRecords(frames))]);
    const stopped = stop();
    await time.settle();
    expect(client.take()).toMatchObject([{ type: "draining", retryAfterMs: 500 }, { type: "acked" }]);
    expect([client.closed?.code, waiting.client.closed]).toEqual([4000, undefined]); // one has records in hand
    await time.advance(2_000);
    await stopped;
    for (const one of [client, waiting.client]) expect(one.closed).toMatchObject({ code: 4000 });
    expect(committedAtClose).toEqual([1]);
    expect(rows("SELECT group_id FROM members")).toEqual([{ group_id: "waiting" }]);
  });

  test("waits two seconds for acks and one for a client that does not answer the close, and no longer", async () => {
    const { join, time, stop } = startServer();
    const { client } = await join();
    client.port.close = () => {};
    let isStopped = false;
    const stopped = stop().then(() => {
      isStopped = true;
    });
    await time.advance(2_999);
    expect(isStopped).toBe(false);
    await time.advance(1);
    await stopped;
    expect(client.take()).toMatchObject([{ type: "draining" }]);
  });

  test("and starts again lets static members back in and ends the others", async () => {
    const { join, time } = startServer();
    await join({ group: "a" });
    const { partitions } = await join({ group: "b", instanceId: "tab-7" });
    // It is killed here: nobody is told and nothing is written.
    const next = startServer({ time, ids: "n" });
    await next.start();
    expect(rows("SELECT group_id FROM members")).toEqual([{ group_id: "b" }]);
    await next.join({ group: "a" });
    const back = await next.join({ group: "b", instanceId: "tab-7" });
    expect(back.partitions[0]?.generation).toBeGreaterThan(partitions[0]?.generation ?? 0);
  });
});

// ── readers, positions, at most once, produce, stalls ────────────────────────────────────────────────────

describe("a reader", () => {
  test("gets everything from its place on, needs no acks, and writes nothing", async () => {
    const { connect, produce, time, watched } = startServer();
    await produce(numbers(0, 3));
    const writes = watched.writes.length;
    const client = await connect();
    client.say({ type: "subscribe", topics: ["orders"], from: { offset: 1 }, window: { records: 1 } });
    await time.settle();
    const frames = client.take();
    expect(frames[0]).not.toHaveProperty("memberId");
    expect(frames[1]).toMatchObject({
      type: "assigned",
      partitions: [{ generation: 1, position: 1, committedOffset: null }],
    });
    expect(theRecords(frames).flatMap(({ records }) => records)).toEqual([record(1), record(2)]);
    expect(watched.writes).toHaveLength(writes);
    await produce(numbers(3, 9));
    await time.settle();
    expect(client.takeOnly("records").flatMap(({ records }) => records)).toEqual(
      numbers(3, 9).map((n) => record(n)),
    );
    expect(rows("SELECT * FROM members")).toEqual([]);
  });

  test("that does not read holds no more than its window, and gets the rest when it reads again", async () => {
    const { connect, produce, time } = startServer();
    await produce(numbers(0, 10));
    const client = await connect();
    client.isReading = false;
    client.say({ type: "subscribe", topics: ["orders"], from: "earliest", window: { records: 4 } });
    await time.settle();
    expect(client.takeOnly("records").flatMap(({ records }) => records)).toHaveLength(4);
    client.readAgain();
    await time.settle();
    expect(client.takeOnly("records").flatMap(({ records }) => records)).toHaveLength(6);
  });

  test("of a topic that is created on its first use gets what comes", async () => {
    const { connect, produce, time } = startServer();
    const client = await connect("?topic=orders&from=latest");
    await time.settle();
    expect(client.takeTypes()).toEqual(["subscribed", "assigned"]);
    await produce([0]);
    await time.settle();
    expect(firstRecords(client.take()).records).toEqual([record(0)]);
  });

  test("is told which partition an offset does not lie in, and its name stays free", async () => {
    const { connect, produce, time } = startServer();
    await produce([0]);
    const client = await connect("?topic=orders&from=2&id=1");
    await time.settle();
    expect(client.take()).toMatchObject([
      {
        type: "error",
        id: "1",
        code: "offset_out_of_range",
        message: expect.stringContaining('"orders" partition 0'),
      },
    ]);
    client.say({ type: "subscribe", topics: ["orders"], from: { ago: 0 } });
    await time.settle();
    expect(client.takeTypes()).toEqual(["subscribed", "assigned", "records"]);
  });
});

describe("seeks", () => {
  test("are answered in their order, and records follow from the last place only", async () => {
    const { join, produce, time } = startServer();
    await produce(numbers(0, 10));
    const { client } = await join();
    client.take();
    const places = [{ offset: 3 }, { ago: 0 }, "earliest", { shift: 8 }] as const;
    for (const [id, to] of places.entries())
      client.say({ type: "seek", id, topic: "orders", partition: 0, to });
    await time.settle();
    const frames = client.take();
    const answers = frames.filter((frame): frame is FrameOf<"assigned"> => frame.type === "assigned");
    expect(answers.map(({ id, partitions }) => [id, partitions[0]?.position])).toEqual([
      [0, 3],
      [1, 0],
      [2, 0],
      [3, 8],
    ]);
    const last = frames.lastIndexOf(answers.at(-1) as ServerFrame);
    expect(theRecords(frames.slice(last)).flatMap(({ records }) => records)).toEqual([record(8), record(9)]);
    expect(committed()).toEqual([0]);
  });

  test("that cannot be looked up are errors, and the next one is answered", async () => {
    const { join, produce, time, watched } = startServer();
    await produce([0]);
    const { client } = await join();
    client.take();
    watched.onRead = failing(new DbError("io", "1"));
    for (const id of [1, 2]) client.say({ type: "seek", id, topic: "orders", partition: 0, to: "earliest" });
    await time.settle();
    expect(client.take()).toMatchObject([
      { type: "error", id: 1, code: "unavailable" },
      { type: "assigned", id: 2 },
      { type: "records" },
    ]);
  });
});

describe("a group at most once", () => {
  test("has committed what it is sent before it is sent", async () => {
    const { join, produce, time, watched } = startServer();
    await produce(numbers(0, 4));
    let committedBefore: unknown;
    const { client, frames } = await join({ ack: "none", window: { records: 4 } });
    expect(theRecords(frames).map(({ next }) => next)).toEqual([2, 4]);
    expect(committed()).toEqual([4]);
    watched.onWrite = async (statements) => {
      if (statements.some(({ sql }) => sql.includes("INSERT INTO committed_offsets")))
        committedBefore = client.take().length;
    };
    await produce([4]);
    await time.settle();
    expect([committedBefore, client.takeOnly("records").map(({ next }) => next)]).toEqual([0, [5]]);
  });

  test("gets a frame a second later when it could not be committed, and nothing twice", async () => {
    const { join, produce, time, watched, log } = startServer();
    const { client } = await join({ ack: "none" });
    await produce([0]);
    watched.onWrite = failing(new DbError("io", "1"));
    await time.settle();
    expect([client.take(), committed()]).toEqual([[], [0]]);
    await time.advance(1_000);
    expect(client.takeOnly("records").flatMap(({ records }) => records)).toEqual([record(0)]);
    expect([committed(), log.includes("commit before sending failed")]).toEqual([[1], true]);
  });

  test("is sent nothing any more when another process has its partition", async () => {
    const time = new FakeTime((ms) => database.pass(ms));
    const { join, produce } = startServer({ time });
    const other = startServer({ db: second, ids: "other", time });
    const { client, subscribed } = await join({ ack: "none" });
    const taken = await other.join({ memberId: String(subscribed.memberId), ack: "none" });
    await produce([0]);
    await time.advance(200);
    expect(theRecords(client.take())).toEqual([]);
    expect(taken.client.takeOnly("records").flatMap(({ records }) => records)).toEqual([record(0)]);
  });
});

describe("produce over the socket", () => {
  test("appends in the order of the frames, though a topic comes into being on the way", async () => {
    const { connect, time } = startServer();
    const client = await connect();
    for (const id of [0, 1, 2])
      client.say({ type: "produce", id, topic: "orders", records: [{ value: id }] });
    await time.settle();
    expect(client.take()).toEqual(
      [0, 1, 2].map((id) => ({ type: "produced", id, runs: [{ partition: 0, offset: id, count: 1 }] })),
    );
    expect(rows("SELECT value FROM records ORDER BY offset")).toEqual(
      ["0", "1", "2"].map((value) => ({ value })),
    );
  });

  test("reaches a subscription of the same socket", async () => {
    const { join, time } = startServer();
    const { client } = await join();
    client.say({ type: "produce", id: 1, topic: "orders", records: [{ key: "k", value: { n: 1 } }] });
    await time.settle();
    expect(client.take()).toMatchObject([
      { type: "produced", id: 1 },
      { type: "records", records: [{ offset: 0, key: "k", value: { n: 1 } }] },
    ]);
  });

  test("that is refused does not hold up the next", async () => {
    const { connect, time } = startServer();
    const client = await connect();
    client.say({ type: "produce", id: 1, topic: "orders", records: [{ value: 1, partition: 5 }] });
    client.say({ type: "produce", id: 2, topic: "orders", records: [{ value: 2 }] });
    await time.settle();
    expect(client.take()).toMatchObject([
      { type: "error", id: 1, code: "unknown_partition" },
      { type: "produced", id: 2, runs: [{ offset: 0 }] },
    ]);
  });
});

describe("a consumer that acknowledges nothing in time", () => {
  test("loses the partition, gets it back in a new generation, and all that it has not acknowledged again", async () => {
    const { join, produce, time } = startServer();
    await produce(numbers(0, 4));
    const { client, partitions, frames } = await join({ ackTimeoutMs: 2_000 });
    const first = firstRecords(frames);
    await time.advance(1_500);
    client.ack([{ ...ackOf(first), offset: 1 }]);
    await time.advance(1_999);
    expect(client.takeTypes()).toEqual(["acked"]);
    await time.advance(1);
    const [revoked, assigned, ...rest] = client.take();
    const { generation } = partitions[0] ?? {};
    expect(revoked).toMatchObject({
      type: "revoked",
      partitions: [{ topic: "orders", partition: 0, generation }],
      reason: "stalled",
      deadlineMs: 0,
    });
    expect(assigned).toMatchObject({ type: "assigned", partitions: [{ position: 1, committedOffset: 1 }] });
    const again = firstRecords(rest);
    expect(again.generation).toBeGreaterThan(Number(generation));
    expect(again.records).toEqual(numbers(1, 4).map((n) => record(n)));
    client.ack([ackOf(first)], { id: 1 });
    client.ack([ackOf(again)], { id: 2 });
    await time.settle();
    expect(client.take()).toMatchObject([
      { type: "acked", id: 1, offsets: [{ offset: 1, code: "fenced_generation" }] },
      { type: "acked", id: 2, offsets: [{ offset: 4 }] },
    ]);
  });

  test("gets it back when the database can write again", async () => {
    const { join, produce, time, watched } = startServer();
    await produce([0]);
    const { client } = await join({ ackTimeoutMs: 2_000 });
    watched.onWrite = failing(new DbError("io", "1"));
    await time.advance(2_000);
    expect(client.takeTypes()).toEqual(["revoked"]);
    await time.advance(1_000);
    expect(client.takeTypes()).toEqual(["assigned", "records"]);
  });
});

describe("a consumer whose position has left the log", () => {
  const trimTo = (offset: number) =>
    database.db.write([
      { sql: "DELETE FROM records WHERE offset < :offset", args: { offset } },
      { sql: "UPDATE partitions SET log_start_offset = :offset", args: { offset } },
    ]);

  for (const [reset, position, expected] of [
    ["earliest", 7, [7]],
    ["latest", 10, [10]],
    ["none", null, [2]],
  ] as const) {
    test(`goes on by its policy ${reset}, which is committed where the offset is of no use`, async () => {
      const { join, produce, time } = startServer();
      await produce(numbers(0, 10));
      const { client, frames } = await join({ reset: { outOfRange: reset }, window: { records: 4 } });
      expect(theRecords(frames).map(({ next }) => next)).toEqual([2, 4]);
      await trimTo(7);
      client.ack([{ ...ackOf(firstRecords(frames)), offset: 2 }]);
      await time.settle();
      const [acked, assigned] = client.take();
      expect([acked?.type, assigned?.type]).toEqual(["acked", "assigned"]);
      expect(assigned).toMatchObject({ partitions: [{ position, logStartOffset: 7, logEndOffset: 10 }] });
      expect(committed()).toEqual([...expected]);
    });
  }
});

// ── whatever happens: I4, I5 and I6 ──────────────────────────────────────────────────────────────────────

test("a group gets every record in order from its committed offset, whatever happens to its consumers", async () => {
  const step = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant("produce" as const),
        count: fc.integer({ min: 1, max: 8 }),
        partition: fc.nat({ max: 1 }),
        elsewhere: fc.boolean(),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({ kind: fc.constant("ack" as const), frames: fc.integer({ min: 1, max: 3 }) }),
    },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant("advance" as const), ms: fc.constantFrom(5, 100, 20_000) }),
    },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        { kind: "reconnect" as const },
        { kind: "takeOver" as const },
        { kind: "failWrite" as const },
        { kind: "failRead" as const },
      ),
    },
  );
  const window = fc.integer({ min: 1, max: 6 });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), window, async (steps, records) => {
      await database.empty();
      const run = new GroupRun(records);
      await run.open();
      for (const next of steps) {
        if (next.kind === "produce") await run.produce(next);
        else if (next.kind === "ack") await run.ack(next.frames);
        else if (next.kind === "advance") await run.advance(next.ms);
        else if (next.kind === "failWrite") run.here.watched.onWrite = failing(new DbError("io", "scripted"));
        else if (next.kind === "failRead") run.here.watched.onRead = failing(new DbError("io", "scripted"));
        else await run.replace(next.kind);
        run.check();
      }
      await run.drain();
    }),
    { numRuns: 40 },
  );
}, 60_000);

/** One group on two partitions: what its consumers have got and acknowledged, held against the file. */
class GroupRun {
  readonly here = startServer();
  readonly #elsewhere = startServer({ db: second, ids: "other", time: this.here.time });
  readonly #window: number;
  #client = new TestClient();
  #memberId: string | undefined;
  /** Records frames that are not acknowledged, oldest first. */
  #unacked: FrameOf<"records">[] = [];
  /** By partition: what must come next, and how much there is. */
  readonly #expected = [0, 0];
  readonly #produced = [0, 0];
  readonly #lastCommitted = [0, 0];

  constructor(window: number) {
    this.#window = window;
  }

  async open(): Promise<void> {
    await this.here.createTopic("orders", 2);
    await this.#subscribe();
  }

  async produce({
    count,
    partition,
    elsewhere,
  }: {
    count: number;
    partition: number;
    elsewhere: boolean;
  }): Promise<void> {
    const from = this.#produced[partition] ?? 0;
    // A write that was made to fail is tried again, as a producer would.
    const server = elsewhere ? this.#elsewhere : this.here;
    server.watched.onWrite = undefined;
    await server.produce(numbers(from, from + count), { partition });
    this.#produced[partition] = from + count;
    await this.#settle();
  }

  async ack(frames: number): Promise<void> {
    const offsets = this.#unacked.slice(0, frames).map(ackOf);
    if (offsets.length === 0) return;
    this.#client.ack(offsets);
    await this.#settle();
  }

  async advance(ms: number): Promise<void> {
    await this.here.time.advance(ms);
    await this.#settle();
  }

  async replace(how: "reconnect" | "takeOver"): Promise<void> {
    this.here.watched.onWrite = undefined;
    this.here.watched.onRead = undefined;
    if (how === "reconnect") {
      this.#client.hangUp();
      await this.here.time.settle();
    }
    await this.#subscribe();
  }

  /** Never more than the window; a committed offset never goes back and never above what was acknowledged. */
  check(): void {
    const unacked = this.#unacked.reduce((sum, { records }) => sum + records.length, 0);
    expect(unacked).toBeLessThanOrEqual(this.#window);
    for (const [partition, offset] of committed().entries()) {
      expect(Number(offset)).toBeGreaterThanOrEqual(this.#lastCommitted[partition] ?? 0);
      expect(Number(offset)).toBeLessThanOrEqual(this.#expected[partition] ?? 0);
      this.#lastCommitted[partition] = Number(offset);
    }
  }

  /** When the faults are over and the consumer goes on, everything has been delivered and committed. */
  async drain(): Promise<void> {
    this.here.watched.onWrite = undefined;
    this.here.watched.onRead = undefined;
    await this.advance(5_000);
    while (this.#unacked.length > 0) await this.ack(1);
    expect(this.#expected).toEqual(this.#produced);
    expect(committed()).toEqual(this.#produced);
    this.check();
  }

  async #subscribe(): Promise<void> {
    const client = await this.here.connect();
    client.subscribe({ memberId: this.#memberId, window: { records: this.#window } });
    await this.here.time.settle();
    this.#client = client;
    this.#unacked = [];
    const frames = client.take();
    const [subscribed, assigned] = frames;
    if (subscribed?.type !== "subscribed" || assigned?.type !== "assigned")
      throw new Error(`expected subscribed and assigned, found ${JSON.stringify(frames)}`);
    this.#memberId = subscribed.memberId;
    for (const { partition, position, committedOffset } of assigned.partitions) {
      expect(position).toBe(committedOffset);
      expect(position).toBe(Number(committed()[partition]));
      this.#expected[partition] = position ?? Number.NaN;
    }
    this.#receive(frames.slice(2));
  }

  async #settle(): Promise<void> {
    await this.here.time.settle();
    this.#receive(this.#client.take());
  }

  #receive(frames: readonly ServerFrame[]): void {
    for (const frame of frames) {
      if (frame.type === "records") this.#receiveRecords(frame);
      else if (frame.type === "acked") this.#receiveAcked(frame);
      else expect(frame).toMatchObject({ type: "error", retriable: true });
    }
  }

  #receiveRecords(frame: FrameOf<"records">): void {
    const { partition, records, next } = frame;
    for (const { offset, value } of records) {
      expect({ partition, offset, value }).toEqual({
        partition,
        offset: this.#expected[partition] ?? -1,
        value: offset,
      });
      this.#expected[partition] = offset + 1;
    }
    expect(next).toBe(this.#expected[partition] ?? -1);
    this.#unacked.push(frame);
  }

  #receiveAcked({ offsets }: FrameOf<"acked">): void {
    for (const { partition, offset, code } of offsets) {
      expect(code).toBeUndefined();
      this.#unacked = this.#unacked.filter(
        (frame) => frame.partition !== partition || frame.next > (offset ?? 0),
      );
    }
  }
}
