// The server in workerd, over a real sqld: what it refuses to start with, what its end leaves, and what it weighs.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { buildWorker, kibibytesOf } from "../../scripts/build-worker.ts";
import type { Rows } from "../../src/store/db.ts";
import { HttpClient } from "../support/http-client.ts";
import { isLongRun } from "../support/long.ts";
import { temporaryFolder } from "../support/server.ts";
import { HAS_SQLD, openRemoteTestDb, SQLD_SKIPPED, type Sqld, startSqld } from "../support/sqld.ts";
import { type FrameOf, StreamClient } from "../support/stream-client.ts";
import { startWorker, type WorkerOptions } from "../support/worker.ts";

setDefaultTimeout(60_000); // wrangler takes seconds to start

const OPEN = { TIDEMARK_WITHOUT_CREDENTIALS: "true" };
const AT_START_KIB_MAX = 100;
const IN_ALL_KIB_MAX = 150;

if (!HAS_SQLD) console.warn(`the server in workerd: ${SQLD_SKIPPED}`);

test("a Worker starts with 100 KiB at most, and has 150 KiB in all", async () => {
  using folder = temporaryFolder();
  const modules = await buildWorker(folder.path);
  const atStart = kibibytesOf(modules.filter(({ isAtStart }) => isAtStart));
  expect(atStart).toBeGreaterThan(50); // it is the server that is measured
  expect(atStart).toBeLessThanOrEqual(AT_START_KIB_MAX);
  expect(kibibytesOf(modules)).toBeLessThanOrEqual(IN_ALL_KIB_MAX);
});

describe.skipIf(!HAS_SQLD)("a Worker", () => {
  let sqld: Sqld;
  beforeAll(async () => {
    sqld = await startSqld();
  });
  afterAll(() => sqld[Symbol.asyncDispose]());

  async function answerOf(options: WorkerOptions) {
    await using worker = await startWorker(options);
    const { status, body } = await new HttpClient(worker).call("GET", "/healthz");
    return { status, ...body };
  }

  test.each<[string, WorkerOptions, string]>([
    [
      "without its binding",
      { variables: OPEN, config: { durable_objects: { bindings: [] }, migrations: [] } },
      "binding TIDEMARK",
    ],
    ["without a database", { variables: OPEN }, "TURSO_DATABASE_URL is not set"],
    [
      "with a file",
      { variables: { ...OPEN, TURSO_DATABASE_URL: "file:a.db" } },
      "file:a.db: a Worker has no disk",
    ],
    [
      "open to all without being told to",
      { variables: { TURSO_DATABASE_URL: "http://localhost:1" } },
      "TIDEMARK_WITHOUT_CREDENTIALS",
    ],
    [
      "with a setting that makes no sense",
      { variables: { ...OPEN, TURSO_DATABASE_URL: "http://localhost:1", TIDEMARK_AUTO_CREATE: "yes" } },
      "auto-create",
    ],
  ])("%s answers every request with what is missing", async (_, options, detail) => {
    expect(await answerOf(options)).toEqual({
      status: 500,
      code: "internal",
      retriable: false,
      detail: expect.stringContaining(detail),
    });
  });

  test("whose database cannot be reached says so, not where it is, and serves when it can", async () => {
    await using own = await startSqld();
    await own.signal("SIGKILL");
    await using worker = await startWorker({ variables: { ...OPEN, TURSO_DATABASE_URL: own.url } });
    const http = new HttpClient(worker);
    const refused = await http.call("GET", "/readyz");
    expect(refused).toMatchObject({ status: 503, body: { code: "unavailable", retriable: true } });
    expect(JSON.stringify(refused.body)).not.toContain(String(own.port));
    await own.start();
    for (;;) {
      const { status, body } = await http.call("GET", "/readyz");
      if (status !== 200) continue; // one that failed is not tried again at once
      expect(body).toMatchObject({ status: "ready", durability: "fsync" });
      return;
    }
  });

  test("sends a client that answers no ping two MiB, and the rest when it does", async () => {
    await using worker = await startWorker({ variables: { ...OPEN, TURSO_DATABASE_URL: sqld.url } });
    const http = new HttpClient(worker);
    await http.createTopic("large", 1);
    const records = Array.from({ length: 30 }, () => ({ value: "x".repeat(100_000) }));
    for (let batch = 0; batch < 3; batch += 1) await http.produce("large", records);
    const client = await StreamClient.open(worker.streamUrl);
    const window = { records: 10_000, bytes: 4 * 1024 * 1024 };
    client.send({ type: "subscribe", topics: ["large"], from: "earliest", ack: "none", window });
    await client.expect("subscribed");
    const reader = new CountingReader(client);
    // 2 MiB, 128 KiB that may be on the wire, and the frame that was on its way; the window alone is 41 records.
    while (reader.records < 20) await reader.readWhatThereIs();
    for (let idle = 0; idle < 50; idle += 1) await reader.readWhatThereIs();
    expect(reader.records).toBeLessThanOrEqual(25);
    expect(reader.unansweredPings).toBe(1);
    while (reader.records < 90) await reader.answerAndRead();
  });

  test("is brought back by its alarm for what is due, though nobody asks", async () => {
    if (!isLongRun)
      return console.warn(
        "a Worker's alarm: skipped, because it takes a quarter of a minute. TIDEMARK_LONG=1 runs it.",
      );
    await using own = await startSqld();
    await using worker = await startWorker({ variables: { ...OPEN, TURSO_DATABASE_URL: own.url } });
    const http = new HttpClient(worker);
    // A hundredth of that time is the next look: long enough for an alarm.
    const { status } = await http.call("PUT", "/v1/topics/old", { retention: { ms: 1_100_000 } });
    expect(status).toBe(201);
    await http.produceNumbers("old", 10);
    const db = await openRemoteTestDb(own.url);
    const [{ n } = { n: 0 }] = await until(
      () => db.read({ sql: "SELECT count(*) AS n FROM append_times" }),
      ([row]) => Number(row?.n) > 0,
    );
    expect(n).toBeGreaterThan(0);
    await db.write([{ sql: "UPDATE append_times SET at = at - 2000000" }]);
    await until(
      () => db.read({ sql: "SELECT log_start_offset AS n FROM partitions" }),
      ([row]) => row?.n === 10,
    );
    await db.close();
  });

  test("that is killed under load has lost nothing that it acknowledged, and its group goes on from there", async () => {
    const variables = { ...OPEN, TURSO_DATABASE_URL: sqld.url };
    const acknowledged: number[] = [];
    let committed = 0;
    {
      await using worker = await startWorker({ variables });
      const http = new HttpClient(worker);
      await http.createTopic("orders", 1);
      const client = await StreamClient.open(`${worker.streamUrl}?topic=orders&group=billing`);
      const lanes = Array.from({ length: 4 }, async (_, lane) => {
        for (let n = 0; acknowledged.length < 400; n += 1) {
          const value = lane * 1_000_000 + n;
          const { status } = await http.call("POST", "/v1/topics/orders/records", { records: [{ value }] });
          if (status === 200) acknowledged.push(value);
        }
      });
      while (committed < 200) committed = (await acknowledgeNext(client)) ?? committed;
      await Promise.race(lanes); // the others are in the middle of something
    }
    await using worker = await startWorker({ variables });
    const path = "/v1/topics/orders/partitions/0/records?limit=10000";
    const { body } = await new HttpClient(worker).call("GET", path);
    const values = new Set(body.records.map(({ value }: { value: number }) => value));
    expect(acknowledged.filter((value) => !values.has(value))).toEqual([]);
    // The killed one's lease runs out first.
    const client = await StreamClient.open(`${worker.streamUrl}?topic=orders&group=billing`);
    const first = await firstRecords(client);
    expect(first.records[0]?.offset).toBeGreaterThanOrEqual(committed);
  });
});

/** Asks sqld itself: to ask the Worker would keep it awake. */
async function until(read: () => Promise<Rows>, isMet: (rows: Rows) => boolean): Promise<Rows> {
  for (;;) {
    const rows = await read();
    if (isMet(rows)) return rows;
  }
}

class CountingReader {
  records = 0;
  unansweredPings = 0;
  readonly #client: StreamClient;

  constructor(client: StreamClient) {
    this.#client = client;
  }

  /** What has come until the server has answered one more frame. */
  async readWhatThereIs(): Promise<void> {
    this.#client.send({ type: "resume", id: 1, partitions: [{ topic: "large", partition: 0 }] });
    while ((await this.#take()) !== "ok");
  }

  async answerAndRead(): Promise<void> {
    for (; this.unansweredPings > 0; this.unansweredPings -= 1) this.#client.send({ type: "pong" });
    await this.#take();
  }

  async #take(): Promise<string> {
    const frame = await this.#client.next();
    if (frame.type === "records") this.records += frame.records.length;
    if (frame.type === "ping") this.unansweredPings += 1;
    return frame.type;
  }
}

/** What is committed then, where the next frame says so. */
async function acknowledgeNext(client: StreamClient): Promise<number | undefined> {
  const frame = await client.next();
  if (frame.type === "acked") return frame.offsets[0]?.offset ?? undefined;
  if (frame.type !== "records") return undefined;
  const { topic, partition, generation, next } = frame;
  client.send({ type: "ack", offsets: [{ topic, partition, generation, offset: next }] });
  return undefined;
}

async function firstRecords(client: StreamClient): Promise<FrameOf<"records">> {
  for (;;) {
    const frame = await client.next();
    if (frame.type === "records") return frame;
  }
}
