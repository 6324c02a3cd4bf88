// The server in workerd, over a real sqld: what it weighs, what it refuses to start with, what is its own. What takes a
// quarter of a minute: test/long/workers.test.ts. What it has to do like any other: test/conformance/.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { buildWorker, kibibytesOf } from "../../scripts/build-worker.ts";
import { HttpClient } from "../support/http-client.ts";
import { temporaryFolder } from "../support/server.ts";
import { HAS_SQLD, SQLD_SKIPPED, type Sqld, startSqld } from "../support/sqld.ts";
import { StreamClient } from "../support/stream-client.ts";
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
    [
      "with a file",
      { variables: { ...OPEN, TURSO_DATABASE_URL: "file:a.db" } },
      "file:a.db: a Worker has no disk",
    ],
  ])("%s answers every request with what is missing", async (_, options, detail) => {
    expect(await answerOf(options)).toEqual({
      status: 500,
      code: "internal",
      retriable: false,
      detail: expect.stringContaining(detail),
    });
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
});

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
