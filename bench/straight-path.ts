// bun run bench: what the straight path costs beside the bare database, in one run on one machine.
//
// Rounds alternate between the raw insert (all columns, values as JSON strings, one partition, synchronous = FULL, the
// write lock taken as the server does) and the server as a process of its own: produce over HTTP in bodies of 5,000
// lines on four lanes, then consume over WebSocket in a group that acknowledges every frame. Medians, then ratios.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@libsql/client/sqlite3";
import { bodiesOf, readEarthquakes } from "../test/support/earthquakes.ts";
import { startServer, type TestServer } from "../test/support/server.ts";

const ROUNDS = 5;
const LINES_PER_BODY = 5_000;
const LANES = 4;
const RECORDS_PER_ROUND_MIN = 100_000;

const folder = mkdtempSync(join(tmpdir(), "tidemark-bench-"));
const { lines, source } = readEarthquakes();
const repeats = Math.max(1, Math.ceil(RECORDS_PER_ROUND_MIN / lines.length));
const input = Array.from({ length: repeats }, () => lines).flat();
const bodies = bodiesOf(input, LINES_PER_BODY);

console.error(
  `${input.length} records a round (${source} × ${repeats}), ${ROUNDS} rounds after one to warm up`,
);
const server = await startServer(join(folder, "server.db"));
const raw = await openRaw();
const rates: Record<"raw" | "produce" | "consume", number[]> = { raw: [], produce: [], consume: [] };
for (let round = 0; round <= ROUNDS; round += 1) {
  const measured = {
    raw: await rateOf(() => insertRaw(round)),
    produce: await rateOf(() => produceRound(server, round)),
    consume: await rateOf(() => consumeRound(server, round)),
  };
  if (round === 0) continue;
  for (const what of ["raw", "produce", "consume"] as const) rates[what].push(measured[what]);
  console.error(`round ${round}: ${JSON.stringify(measured)}`);
}
await server.kill("SIGTERM");
raw.close();
rmSync(folder, { recursive: true, force: true });
report();

function report(): void {
  const rawRate = median(rates.raw);
  console.log("| what | records/s: median (min–max) | of the raw insert |");
  console.log("|---|---|---|");
  for (const [what, name] of [
    ["raw", "raw `json_each` insert, FULL"],
    ["produce", "produce, NDJSON over HTTP, 4 partitions"],
    ["consume", "consume in a group, an ack a frame"],
  ] as const) {
    const all = rates[what];
    const range = `${thousands(Math.min(...all))}–${thousands(Math.max(...all))}`;
    console.log(`| ${name} | ${thousands(median(all))} (${range}) | ${(median(all) / rawRate).toFixed(2)} |`);
  }
}

async function rateOf(run: () => Promise<void>): Promise<number> {
  const startMs = performance.now();
  await run();
  return Math.round((input.length / (performance.now() - startMs)) * 1_000);
}

// ── the bare database ────────────────────────────────────────────────────────────────────────────────────

async function openRaw() {
  const client = createClient({ url: `file:${join(folder, "raw.db")}`, concurrency: 1 });
  await client.execute("PRAGMA journal_mode = WAL");
  await client.execute("PRAGMA synchronous = FULL");
  await client.executeMultiple(readFileSync(join(import.meta.dir, "../migrations/0001_log.sql"), "utf8"));
  return client;
}

async function insertRaw(round: number): Promise<void> {
  let offset = 0;
  for (const body of bodies) {
    const rows = JSON.stringify(body.map((line) => ["us", 1_451_608_204_910, null, line]));
    const transaction = await raw.transaction("deferred");
    await transaction.executeMultiple("UPDATE write_lock SET n = n WHERE 0");
    await transaction.execute({
      sql: `INSERT INTO records (partition_id, offset, timestamp, key, value, headers)
            SELECT :partition_id, :base + key, value ->> 1, value ->> 0, value ->> 3, value ->> 2
            FROM json_each(:rows)`,
      args: { partition_id: BigInt(round), base: BigInt(offset), rows },
    });
    await transaction.commit();
    offset += body.length;
  }
}

// ── the server ───────────────────────────────────────────────────────────────────────────────────────────

async function produceRound({ url }: TestServer, round: number): Promise<void> {
  await fetch(`${url}/v1/topics/quakes-${round}`, { method: "PUT", body: '{"partitionCount":4}' });
  const texts = bodies.map((body) => body.join("\n"));
  const lane = async () => {
    for (let text = texts.shift(); text !== undefined; text = texts.shift()) {
      const response = await fetch(`${url}/v1/topics/quakes-${round}/records?key=/network`, {
        method: "POST",
        headers: { "content-type": "application/x-ndjson" },
        body: text,
      });
      if (!response.ok) throw new Error(await response.text());
      await response.arrayBuffer();
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
}

async function consumeRound({ streamUrl }: TestServer, round: number): Promise<void> {
  const socket = new WebSocket(`${streamUrl}?topic=quakes-${round}&group=bench-${round}`);
  const acked = new Map<number, number>();
  await new Promise<void>((resolve, reject) => {
    socket.onclose = ({ code }) => reject(new Error(`closed: ${code}`));
    socket.onmessage = ({ data }) => {
      const frame = JSON.parse(String(data));
      if (frame.type === "records") {
        const { topic, partition, generation, next: offset } = frame;
        socket.send(JSON.stringify({ type: "ack", offsets: [{ topic, partition, generation, offset }] }));
      } else if (frame.type === "acked") {
        for (const { partition, offset } of frame.offsets) acked.set(partition, offset);
        if ([...acked.values()].reduce((sum, offset) => sum + offset, 0) === input.length) resolve();
      }
    };
  });
  socket.onclose = null;
  socket.close();
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function thousands(rate: number): string {
  return `${Math.round(rate / 1_000)}k`;
}
