// What is acknowledged has been fsynced before: seen from the kernel, call by call.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { HttpClient } from "../support/http-client.ts";
import { startServer, temporaryFolder } from "../support/server.ts";
import { StreamClient } from "../support/stream-client.ts";
import { sourcesThatDoNotWait } from "./controls.ts";
import { type Call, HAS_STRACE, judgeReplies, readTrace, TRACE_SKIPPED, tracePrefix } from "./trace.ts";

const ONE_BY_ONE = 20;
const AT_ONCE = 64;
/** The first comes alone, then whatever has come meanwhile goes together. */
const FLUSHES_MAX = 16;
const ACKS = 10;
const PRODUCED = '"runs":[';
const ACKED = '"type":"acked"';

if (!HAS_STRACE) console.warn(`fsync: ${TRACE_SKIPPED}`);

const folder = temporaryFolder();
afterAll(() => folder.remove());

interface Traced {
  readonly calls: readonly Call[];
  readonly wal: string;
}

/** Each part of the work ends with a question whose answer names it: a mark in the trace. */
async function traceServer(name: string, repository?: string): Promise<Traced> {
  const databasePath = join(folder.path, name, "new/t.db");
  const tracePath = join(folder.path, `${name}.trace`);
  const options = repository === undefined ? {} : { repository };
  await using server = await startServer(databasePath, { ...options, prefix: tracePrefix(tracePath) });
  const http = new HttpClient(server);
  const mark = (text: string) => http.call("GET", `/v1/topics/${text}`);
  const produce = () => http.produce("orders", [{ value: "some text" }]);
  await produce();
  await mark("mark-1");
  for (let n = 0; n < ONE_BY_ONE; n += 1) await produce();
  await mark("mark-2");
  await Promise.all(Array.from({ length: AT_ONCE }, produce));
  await mark("mark-3");
  await acknowledge(server.streamUrl);
  await mark("mark-4");
  await server.kill("SIGTERM");
  return { calls: readTrace(tracePath, server.pid), wal: `${databasePath}-wal` };
}

async function acknowledge(streamUrl: string): Promise<void> {
  const client = await StreamClient.open(streamUrl, { patienceMs: 5_000 });
  client.send({ type: "subscribe", topics: ["orders"], group: "billing" });
  await client.expect("subscribed");
  await client.expect("assigned");
  const { topic, partition, generation } = await client.expect("records");
  for (let offset = 1; offset <= ACKS; offset += 1) {
    client.send({ type: "ack", offsets: [{ topic, partition, generation, offset }] });
    await client.expect("acked");
  }
  await client.close();
}

describe.skipIf(!HAS_STRACE)("a server that is traced", () => {
  let traced: Traced;
  beforeAll(async () => {
    traced = await traceServer("as-it-is");
  });

  const judge = ({ calls, wal }: Traced, { text, part }: { text: string; part: number }) =>
    judgeReplies(calls, { text, after: `mark-${part}`, until: `mark-${part + 1}`, wal });

  test("answers each produce after an fsync of the WAL that it has written", () => {
    const { syncs, ...judged } = judge(traced, { text: PRODUCED, part: 1 });
    expect(judged).toEqual({ replies: ONE_BY_ONE, tooEarly: 0, withoutSync: 0 });
    expect(syncs).toBeGreaterThanOrEqual(ONE_BY_ONE);
  });

  test("writes what comes at once with few fsyncs, and answers none of it before its own", () => {
    const { replies, tooEarly, syncs } = judge(traced, { text: PRODUCED, part: 2 });
    expect({ replies, tooEarly }).toEqual({ replies: AT_ONCE, tooEarly: 0 });
    expect(syncs).toBeWithin(1, FLUSHES_MAX + 1);
  });

  test("says acked after an fsync of the commit", () => {
    const { syncs, ...judged } = judge(traced, { text: ACKED, part: 3 });
    expect(judged).toEqual({ replies: ACKS, tooEarly: 0, withoutSync: 0 });
    expect(syncs).toBeGreaterThanOrEqual(ACKS);
  });

  test("has fsynced the entry of its database, and of the folders that it made, before its first answer", () => {
    const firstReply = traced.calls.findIndex(({ kind }) => kind === "reply");
    const synced = traced.calls
      .slice(0, firstReply)
      .flatMap((call) => (call.kind === "sync" ? call.path : []));
    const made = join(folder.path, "as-it-is");
    expect(synced).toEqual(expect.arrayContaining([folder.path, made, join(made, "new")]));
  });

  test("is found out where it does not wait for the fsync", async () => {
    using sources = sourcesThatDoNotWait();
    const broken = await traceServer("broken", sources.repository);
    expect(judge(broken, { text: PRODUCED, part: 1 })).toMatchObject({
      replies: ONE_BY_ONE,
      tooEarly: ONE_BY_ONE,
      withoutSync: ONE_BY_ONE,
    });
    expect(judge(broken, { text: ACKED, part: 3 })).toMatchObject({ replies: ACKS, tooEarly: ACKS });
  });
});
