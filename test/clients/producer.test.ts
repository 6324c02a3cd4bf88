// The producer of the client library against the real server.

import { afterEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { FencedError, TidemarkError } from "../../clients/typescript/errors.ts";
import { Link } from "../../clients/typescript/link.ts";
import { Producer } from "../../clients/typescript/producer.ts";
import type { ProducerOptions } from "../../clients/typescript/producer-options.ts";
import { readServerUrl } from "../../clients/typescript/server-url.ts";
import { HttpClient } from "../support/http-client.ts";
import { startServer, type TestServer, temporaryFolder } from "../support/server.ts";
import { countFrom, Stage } from "../support/stage.ts";
import { type LossyPlatform, lossyPlatform } from "./lossy-socket.ts";

const stage = new Stage();
const { newTopic, newGroup, newName, joinGroup, committedOf } = stage;

interface Client {
  readonly producer: Producer;
  readonly link: Link;
  readonly platform: LossyPlatform;
}

const links: Link[] = [];

afterEach(() => {
  for (const link of links.splice(0)) link.close(new TidemarkError("closed", "the test is over"));
});

function connect(options: ProducerOptions = {}, server: Pick<TestServer, "url"> = stage.server): Client {
  const platform = lossyPlatform();
  const link = new Link({ url: readServerUrl(server.url), token: undefined, platform });
  link.start();
  links.push(link);
  return { link, platform, producer: new Producer(link, platform, options) };
}

async function valuesIn(topic: string, server: Pick<TestServer, "url"> = stage.server): Promise<unknown[]> {
  const path = `/v1/topics/${topic}/partitions/0/records?limit=10000&maxBytes=4000000`;
  const { body } = await new HttpClient(server).call("GET", path);
  return body.records.map(({ value }: { value: unknown }) => value);
}

/** What a promise rejects with. */
async function errorOf(promise: Promise<unknown>): Promise<TidemarkError> {
  const error = await promise.then(
    () => undefined,
    (reason) => reason,
  );
  if (error instanceof TidemarkError) return error;
  throw new Error(`not rejected with an error of the library: ${error}`);
}

function produceFrames({ sent }: LossyPlatform) {
  return sent.map((text) => JSON.parse(text)).filter(({ type }) => type === "produce");
}

const NUMBERS_ONLY = { schema: { type: "number" } };

describe("send()", () => {
  test("resolves with where the records are", async () => {
    const topic = await newTopic(2);
    const { producer } = connect();
    expect(await producer.send(topic, { value: 1, partition: 1 })).toEqual({
      runs: [{ partition: 1, offset: 0, count: 1 }],
    });
    const records = [1, 1, 0].map((partition) => ({ value: partition, partition }));
    expect((await producer.send(topic, records)).runs).toEqual([
      { partition: 1, offset: 1, count: 2 },
      { partition: 0, offset: 0, count: 1 },
    ]);
  });

  test("of one turn and one topic go together, each with its own runs", async () => {
    const [a, b] = [await newTopic(), await newTopic()];
    const { producer, platform } = connect();
    const records = [{ value: 1 }, { value: 2 }];
    const produced = await Promise.all([
      producer.send(a, { value: 0 }),
      producer.send(b, { value: 0 }),
      producer.send(a, records),
    ]);
    expect(produced.map(({ runs }) => runs[0])).toEqual([
      { partition: 0, offset: 0, count: 1 },
      { partition: 0, offset: 0, count: 1 },
      { partition: 0, offset: 1, count: 2 },
    ]);
    expect(produceFrames(platform).map(({ topic }) => topic)).toEqual([a, b]);
  });

  test("while frames are unanswered gathers up to batchRecords, and divides no send", async () => {
    const topic = await newTopic();
    const { producer, platform } = connect({ inFlight: 1, batchRecords: 3 });
    await producer.send(topic, { value: 0 });
    const sends = [1, 2, 2, 1, 1, 4].map((count) =>
      producer.send(
        topic,
        Array.from({ length: count }, () => ({ value: count })),
      ),
    );
    await Promise.all(sends);
    expect(produceFrames(platform).map(({ records }) => records.length)).toEqual([1, 3, 3, 1, 4]);
  });

  test("reads the records at once", async () => {
    const topic = await newTopic();
    const { producer } = connect();
    const value = { count: 1 };
    const sent = producer.send(topic, { value });
    value.count = 2;
    await sent;
    expect(await valuesIn(topic)).toEqual([{ count: 1 }]);
  });

  test("writes bytes, keys, headers, timestamps and tombstones", async () => {
    const topic = await newTopic();
    const { producer } = connect();
    const bytes = Uint8Array.from({ length: 20_000 }, (_, index) => index % 256);
    await producer.send(topic, [
      { bytes, key: "k", headers: { kind: "raw" }, timestamp: 5 },
      { value: null, key: "k", timestamp: 6 },
    ]);
    const { body } = await stage.http.call("GET", `/v1/topics/${topic}/partitions/0/records`);
    expect(body.records).toEqual([
      {
        offset: 0,
        key: "k",
        timestamp: 5,
        headers: { kind: "raw" },
        bytes: Buffer.from(bytes).toString("base64"),
      },
      { offset: 1, key: "k", timestamp: 6, value: null },
    ]);
  });

  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  for (const [what, value] of [
    ["a cycle", cycle],
    ["a bigint", 1n],
    ["NaN, which JSON makes null of", Number.NaN],
  ] as const) {
    test(`rejects ${what} naming the record, and sends nothing`, async () => {
      const { producer, platform } = connect();
      const error = await errorOf(producer.send("topic", [{ value: 1 }, { value }]));
      expect(error).toMatchObject({ code: "bad_request", facts: { record: 1 } });
      expect(platform.sent).toEqual([]);
    });
  }

  test("rejects what would close the connection for all, and the connection lives", async () => {
    const topic = await newTopic();
    const { producer, platform } = connect();
    await producer.send(topic, { value: 0 });
    const huge = Array.from({ length: 5 }, () => ({ value: "é".repeat(500_000) }));
    expect(await errorOf(producer.send(topic, huge))).toMatchObject({ code: "batch_too_large" });
    const noNumber = [{ partition: 0, logEndOffset: Number.NaN }];
    expect(await errorOf(producer.send(topic, { value: 1 }, { expect: noNumber }))).toMatchObject({
      code: "bad_request",
    });
    expect(await errorOf(producer.send(undefined as unknown as string, { value: 1 }))).toMatchObject({
      code: "bad_request",
    });
    await producer.send(topic, { value: 1 });
    expect(platform.sent).toHaveLength(2);
  });

  test("with expectations travels alone and is refused alone", async () => {
    const topic = await newTopic();
    const { producer } = connect();
    const atStart = { expect: [{ partition: 0, logEndOffset: 0 }] };
    const sends = [
      producer.send(topic, { value: 0 }, atStart),
      producer.send(topic, { value: "late" }, atStart),
      producer.send(topic, { value: 1 }),
    ];
    await Promise.allSettled(sends);
    expect(await errorOf(sends[1] ?? Promise.resolve())).toMatchObject({
      code: "conflict",
      facts: { expected: 0, found: 1 },
    });
    expect(await valuesIn(topic)).toEqual([0, 1]);
  });
});

describe("what is refused", () => {
  test("does not spoil what went with it, nor what was under way behind it", async () => {
    const topic = newName("numbers");
    await stage.http.call("PUT", `/v1/topics/${topic}`, NUMBERS_ONLY);
    const { producer } = connect({ batchRecords: 4 });
    const sends = [0, 1, "bad", 3, 4, 5, "bad", 7, 8, 9].map((value) =>
      producer.send(topic, [{ value: 100 }, { value }]),
    );
    const outcomes = await Promise.allSettled(sends);
    expect(outcomes.flatMap(({ status }, at) => (status === "rejected" ? [at] : []))).toEqual([2, 6]);
    expect((await valuesIn(topic)).filter((value) => value !== 100)).toEqual([0, 1, 3, 4, 5, 7, 8, 9]);
  });

  test("is told which of its own records it was", async () => {
    const topic = newName("numbers");
    await stage.http.call("PUT", `/v1/topics/${topic}`, NUMBERS_ONLY);
    const { producer } = connect();
    const [, bad] = [
      producer.send(topic, [{ value: 1 }, { value: 2 }]),
      producer.send(topic, [{ value: 3 }, { value: "four" }]),
    ];
    const error = await errorOf(bad);
    expect(error).toMatchObject({ code: "schema_violation", facts: { record: 1 }, retriable: false });
    expect(error.message).toContain("records[1]");
    await producer.flush();
    expect(await valuesIn(topic)).toEqual([1, 2]);
  });

  test("as a whole is refused for all of it at once", async () => {
    await using folder = new AsyncFolder();
    await using server = await startServer(join(folder.path, "t.db"), { mode: "serve" });
    const { producer, platform } = connect({}, server);
    const sends = countFrom(0, 20).map((value) => errorOf(producer.send("nowhere", { value })));
    for (const error of await Promise.all(sends)) expect(error.code).toBe("unknown_topic");
    expect(platform.sent).toHaveLength(1);
  });
});

/** Removed behind what runs in it. */
class AsyncFolder implements AsyncDisposable {
  readonly #folder = temporaryFolder();

  get path(): string {
    return this.#folder.path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#folder.remove();
  }
}

describe("a lost connection", () => {
  test("after the write and before the answer: written once, in order, and told so", async () => {
    const topic = await newTopic();
    const { producer, platform } = connect({ batchRecords: 10 });
    let frames = 0;
    platform.isLost = (frame) => {
      if (frame.includes('"produced"')) frames += 1;
      return frames % 4 === 3;
    };
    const values = countFrom(0, 1_000);
    const produced = await Promise.all(values.map((value) => producer.send(topic, { value })));
    expect(await valuesIn(topic)).toEqual([...values]);
    expect(produced.map(({ runs }) => runs)).toEqual(
      values.map((offset) => [{ partition: 0, offset, count: 1 }]),
    );
    expect(platform.lost).toBeGreaterThan(10);
    expect(produced.filter(({ duplicate }) => duplicate).length).toBeGreaterThan(100);
  });

  test("without idempotence is outcome_unknown, and nothing is sent again", async () => {
    const topic = await newTopic();
    const { producer, platform } = connect({ idempotent: false });
    platform.isLost = (frame) => frame.includes('"produced"');
    const error = await errorOf(producer.send(topic, { value: 1 }));
    expect(error).toMatchObject({ code: "outcome_unknown", cause: { code: "connection_lost" } });
    platform.isLost = () => false;
    await producer.send(topic, { value: 2 });
    expect(await valuesIn(topic)).toEqual([1, 2]);
    expect(produceFrames(platform).map(({ producer }) => producer)).toEqual([undefined, undefined]);
  });

  test("to a server that is killed, or stops, and comes back: each record once and in order", async () => {
    await using folder = new AsyncFolder();
    const path = join(folder.path, "t.db");
    let server = await startServer(path);
    const port = Number(new URL(server.url).port);
    const { producer } = connect({ batchRecords: 20 }, server);
    const offsets: (number | undefined)[] = [];
    for (let round = 0; round < 4; round += 1) {
      const sends = countFrom(round * 1_000, (round + 1) * 1_000).map((value) =>
        producer.send("topic", { value }).then(({ runs }) => offsets.push(runs[0]?.offset)),
      );
      await sends[round * 150]; // some are written, some are under way
      await server.kill(round % 2 === 0 ? "SIGKILL" : "SIGTERM");
      server = await startServer(path, { port });
      await Promise.all(sends);
    }
    expect(await valuesIn("topic", server)).toEqual([...countFrom(0, 4_000)]);
    expect(offsets).toEqual([...countFrom(0, 4_000)]);
    await server.kill("SIGKILL");
  }, 30_000);

  test("for longer than deliveryTimeoutMs: what may be written is outcome_unknown, the rest unavailable", async () => {
    const topic = await newTopic();
    const { producer, platform, link } = connect({ deliveryTimeoutMs: 300, inFlight: 1 });
    await producer.send(topic, { value: 0 });
    platform.isLost = (frame) => frame.includes('"produced"') || frame.includes('"error"');
    const [asked, waiting] = [producer.send(topic, { value: 1 }), producer.send("other", { value: 2 })];
    expect(await errorOf(asked)).toMatchObject({ code: "outcome_unknown", retriable: true });
    expect(await errorOf(waiting)).toMatchObject({ code: "unavailable", retriable: true });
    platform.isLost = () => false;
    if (!link.isUp) await new Promise<void>((resolve) => link.listen({ onUp: resolve }));
    await producer.send(topic, { value: 3 });
    expect(await valuesIn(topic)).toEqual([0, 1, 3]);
  });
});

describe("a producer id of one's own", () => {
  async function takeEpoch(id: string): Promise<number> {
    return (await stage.http.call("POST", `/v1/producers/${id}`)).body.epoch;
  }

  test("needs its epoch", () => {
    expect(() => connect({ id: "mine" })).toThrow("epoch");
    expect(() => connect({ inFlight: 17 })).toThrow("inFlight");
  });

  test("is fenced by its next run, for good", async () => {
    const [topic, id] = [await newTopic(), newName("producer")];
    const first = connect({ id, epoch: await takeEpoch(id) }).producer;
    await first.send(topic, { value: 1 });
    const second = connect({ id, epoch: await takeEpoch(id) }).producer;
    const outcomes = [first.send(topic, { value: "fenced" }), second.send(topic, { value: 2 })];
    expect(await errorOf(outcomes[0] ?? Promise.resolve())).toBeInstanceOf(FencedError);
    await outcomes[1];
    expect(await errorOf(first.send(topic, { value: "fenced" }))).toBeInstanceOf(FencedError);
    expect(await valuesIn(topic)).toEqual([1, 2]);
  });

  test("in an epoch that another run has used says so, and loses nothing in silence", async () => {
    const [topic, id] = [await newTopic(), newName("producer")];
    await connect({ id, epoch: 1 }).producer.send(topic, { value: 1 });
    const error = await errorOf(connect({ id, epoch: 1 }).producer.send(topic, { value: 2 }));
    expect(error).toMatchObject({ code: "conflict", retriable: false });
    expect(error.message).toContain("another run");
  });
});

describe("transact()", () => {
  test("writes records and commits together, in the order of the sends", async () => {
    const [input, output] = [await newTopic(1, 5), await newTopic()];
    const group = newGroup();
    const { partitions } = await joinGroup(group, [input]);
    const generation = partitions[0]?.generation ?? -1;
    const { producer, platform } = connect();
    let asked = 0;
    const commits = () => {
      asked += 1;
      return { group, offsets: [{ topic: input, partition: 0, generation, offset: 3 }] };
    };
    platform.isLost = (frame) => platform.lost === 0 && frame.includes('"transacted"');
    const [, transacted] = await Promise.all([
      producer.send(output, { value: "before" }),
      producer.transact({ appends: [{ topic: output, records: { value: "inside" } }], commits }),
      producer.send(output, { value: "behind" }),
    ]);
    expect(transacted).toEqual({
      runs: [{ topic: output, partition: 0, offset: 1, count: 1 }],
      duplicate: true,
    });
    expect(await valuesIn(output)).toEqual(["before", "inside", "behind"]);
    expect(await committedOf(group)).toEqual([3]);
    expect(asked).toBe(2);
  });

  test("is refused whole where a commit is fenced, and spoils nothing behind it", async () => {
    const [input, output] = [await newTopic(1, 5), await newTopic()];
    const group = newGroup();
    await joinGroup(group, [input]);
    const { producer } = connect();
    const commits = { group, offsets: [{ topic: input, partition: 0, generation: 999_999, offset: 3 }] };
    const transacted = producer.transact({
      appends: [{ topic: output, records: { value: "inside" } }],
      commits,
    });
    const behind = producer.send(output, { value: "behind" });
    expect(await errorOf(transacted)).toBeInstanceOf(FencedError);
    await behind;
    expect(await valuesIn(output)).toEqual(["behind"]);
  });

  test("rejects with what its commits throw, and takes no sequence", async () => {
    const topic = await newTopic();
    const { producer } = connect();
    const lost = new FencedError("not_assigned", "gone");
    const commits = () => {
      throw lost;
    };
    const transacted = producer.transact({ appends: [{ topic, records: { value: 1 } }], commits });
    expect(await errorOf(transacted)).toBe(lost);
    await producer.send(topic, { value: 2 });
    expect(await valuesIn(topic)).toEqual([2]);
  });
});

describe("life", () => {
  test("flush() waits for all that was sent, and lingers no longer", async () => {
    const topic = await newTopic();
    const { producer } = connect({ lingerMs: 1_000_000 });
    let settled = 0;
    for (const value of countFrom(0, 5)) void producer.send(topic, { value }).then(() => (settled += 1));
    await producer.flush();
    expect(settled).toBe(5);
    await producer.flush();
  });

  test("lingerMs gathers several turns; a full batch does not wait", async () => {
    const topic = await newTopic();
    const { producer, platform } = connect({ lingerMs: 1_000_000, batchRecords: 2 });
    const first = producer.send(topic, { value: 1 });
    await Promise.resolve();
    await Promise.all([first, producer.send(topic, { value: 2 })]);
    expect(produceFrames(platform)).toHaveLength(1);
  });

  test("close() finishes what was sent and takes nothing more", async () => {
    const topic = await newTopic();
    const { producer } = connect();
    const sent = producer.send(topic, { value: 1 });
    const closed = producer.close();
    expect(await errorOf(producer.send(topic, { value: 2 }))).toMatchObject({ code: "closed" });
    await closed;
    expect((await sent).runs).toHaveLength(1);
    expect(await valuesIn(topic)).toEqual([1]);
  });

  test("the end of the connection rejects everything with its error", async () => {
    const { producer, link } = connect();
    const sends = [producer.send("a", { value: 1 }), producer.send("b", { value: 2 })];
    const end = new TidemarkError("closed", "by you");
    const flushed = producer.flush();
    link.close(end);
    for (const send of sends) expect(await errorOf(send)).toBe(end);
    await flushed;
    expect(await errorOf(producer.send("a", { value: 3 }))).toBe(end);
  });

  test("a signal takes a send back while it waits, and only then", async () => {
    const topic = await newTopic();
    const { producer } = connect({ inFlight: 1 });
    await producer.send(topic, { value: 0 });
    const [early, late] = [new AbortController(), new AbortController()];
    const sent = producer.send(topic, { value: 1 }, { signal: late.signal });
    await Promise.resolve(); // it is sent
    const waiting = producer.send(topic, { value: 2 }, { signal: early.signal });
    const behind = producer.send(topic, { value: 3 });
    late.abort();
    early.abort("enough");
    await expect(waiting).rejects.toBe("enough");
    await expect(producer.send(topic, { value: 4 }, { signal: early.signal })).rejects.toBe("enough");
    await Promise.all([sent, behind]);
    expect(await valuesIn(topic)).toEqual([0, 1, 3]);
  });

  test("more than bufferBytes is rate_limited, until something is answered", async () => {
    const topic = await newTopic();
    const { producer } = connect({ bufferBytes: 100 });
    const value = "x".repeat(80);
    const first = producer.send(topic, { value });
    expect(await errorOf(producer.send(topic, { value }))).toMatchObject({
      code: "rate_limited",
      retriable: true,
    });
    await first;
    await producer.send(topic, { value: "y".repeat(200) });
  });
});
