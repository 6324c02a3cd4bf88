// bun run bench:exactly-once: what exactly once costs beside a plain produce, in one run on one machine.
//
// One client sends JSON bodies over HTTP one after the other, each kind in turn: plain, with a producer's sequence, and
// as a transaction that commits an offset of a group as well. Medians of the time a call takes, and of the ratios of
// calls that followed each other. Which kind comes first changes from round to round.

import { Database } from "bun:sqlite";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readEarthquakes } from "../test/support/earthquakes.ts";
import { startServer } from "../test/support/server.ts";

const ROUNDS = 200;
const WARM_UP_ROUNDS = 20;
const BATCHES = [1_000, 100, 1] as const;
const SQL_SAMPLES = 60;
const SQL_SILENCE_MAX_MS = 500;
const KINDS = ["plain", "producer", "transaction"] as const;
type Kind = (typeof KINDS)[number];

const folder = mkdtempSync(join(tmpdir(), "tidemark-bench-"));
const { lines } = readEarthquakes();
const server = await startServer(join(folder, "server.db"));
const topics = { plain: "plain", producer: "producer", transaction: "transaction" } satisfies Record<
  Kind,
  string
>;
for (const topic of Object.values(topics)) await call("PUT", `/v1/topics/${topic}`, "{}");
// What the transactions commit: one offset more each time, of a partition that has enough of them.
await call("PUT", "/v1/topics/source", "{}");
const commitsNeeded = BATCHES.length * (ROUNDS + WARM_UP_ROUNDS);
await call(
  "POST",
  "/v1/topics/source/records",
  JSON.stringify({ records: Array.from({ length: commitsNeeded }, (_, value) => ({ value })) }),
);
const generation = await joinGroup();
let sequence = 0;
let committed = 0;

console.log("| a call of | plain produce, ms | with a producer | with a commit, as a transaction |");
console.log("|---|---|---|---|");
for (const batch of BATCHES) {
  const times: Record<Kind, number[]> = { plain: [], producer: [], transaction: [] };
  for (let round = 0; round < WARM_UP_ROUNDS + ROUNDS; round += 1)
    for (const [place] of KINDS.entries()) {
      const kind = KINDS[(place + round) % KINDS.length] ?? "plain";
      const tookMs = await timeOf(kind, batch, round);
      if (round >= WARM_UP_ROUNDS) times[kind].push(tookMs);
    }
  const plain = median(times.plain);
  const cells = (["producer", "transaction"] as const).map((kind) => {
    const ratios = times[kind].map((ms, round) => ms / (times.plain[round] ?? Number.NaN));
    return `${median(times[kind]).toFixed(2)} (${median(ratios).toFixed(2)} ×)`;
  });
  console.log(
    `| ${batch === 1 ? "1 record" : `${batch.toLocaleString("en")} records`} | ${plain.toFixed(2)} | ${cells.join(" | ")} |`,
  );
}
const delaysMs = await sqlDelays();
console.log(
  `\nINSERT INTO append_record, committed by another process → delivered to a consumer that waits: ` +
    `${median(delaysMs).toFixed(0)} ms, at most ${Math.max(...delaysMs).toFixed(0)} ms of ${delaysMs.length}`,
);
await server.kill("SIGTERM");
rmSync(folder, { recursive: true, force: true });

async function timeOf(kind: Kind, batch: number, round: number): Promise<number> {
  const [path, body] = requestOf(kind, batch, round);
  const startMs = performance.now();
  await call("POST", path, body);
  return performance.now() - startMs;
}

function requestOf(kind: Kind, batch: number, round: number): readonly [path: string, body: string] {
  const first = (round * batch) % lines.length;
  const values = Array.from({ length: batch }, (_, n) => `{"value":${lines[(first + n) % lines.length]}}`);
  const records = `"records":[${values.join(",")}]`;
  const path = `/v1/topics/${topics[kind]}/records`;
  switch (kind) {
    case "plain":
      return [path, `{${records}}`];
    case "producer":
      return [path, `{"producer":{"id":"bench","epoch":0,"sequence":${sequence++}},${records}}`];
    case "transaction": {
      committed += 1;
      const offsets = `[{"topic":"source","partition":0,"generation":${generation},"offset":${committed}}]`;
      const commits = `"commits":{"group":"bench","offsets":${offsets}}`;
      return ["/v1/transactions", `{"appends":[{"topic":"${topics[kind]}",${records}}],${commits}}`];
    }
  }
}

/** A member that owns the source and reads one record of it; its generation. */
async function joinGroup(): Promise<number> {
  const socket = new WebSocket(server.streamUrl);
  return new Promise((resolve, reject) => {
    socket.onerror = () => reject(new Error("cannot join"));
    socket.onopen = () =>
      socket.send(
        JSON.stringify({ type: "subscribe", topics: ["source"], group: "bench", window: { records: 1 } }),
      );
    socket.onmessage = ({ data }) => {
      const frame = JSON.parse(String(data));
      if (frame.type === "ping") socket.send('{"type":"pong"}');
      if (frame.type === "assigned") resolve(frame.partitions[0].generation);
    };
  });
}

/** By stock SQLite beside the server, after silences of up to half a second. */
async function sqlDelays(): Promise<readonly number[]> {
  const database = new Database(server.databasePath);
  database.run("PRAGMA busy_timeout = 5000");
  database.run("PRAGMA wal_autocheckpoint = 0");
  const append = database.query("INSERT INTO append_record (topic, value) VALUES ('source', '1')");
  const reader = new WebSocket(`${server.streamUrl}?topic=source&from=latest`);
  let deliver = () => {};
  await new Promise<void>((resolve) => {
    reader.onmessage = ({ data }) => {
      const { type } = JSON.parse(String(data));
      if (type === "assigned") resolve();
      if (type === "records") deliver();
    };
  });
  const delaysMs: number[] = [];
  for (let sample = 0; sample < SQL_SAMPLES; sample += 1) {
    await Bun.sleep(Math.random() * SQL_SILENCE_MAX_MS);
    const { promise, resolve } = Promise.withResolvers<void>();
    deliver = resolve;
    append.run();
    const committedAtMs = performance.now();
    await promise;
    delaysMs.push(performance.now() - committedAtMs);
  }
  database.close();
  return delaysMs;
}

async function call(method: string, path: string, body: string): Promise<void> {
  const response = await fetch(`${server.url}${path}`, { method, body });
  if (!response.ok) throw new Error(await response.text());
  await response.arrayBuffer();
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
