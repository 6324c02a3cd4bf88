// bun run bench:upkeep [words of one kind]: what others notice while a million records are deleted or compacted in the background.
//
// Each kind has a server of its own with three topics of so many records. For the first, four lanes of batches to
// another topic, before, during and after: the rate. For the second, single records at a steady pace: how long each
// waits for its answer. For the third nobody asks for anything, and the longest stop of the event loop is that of the
// longest step. All in one run, as ratios to what is without: the rates of two runs differ by a third.

import { Database } from "bun:sqlite";
import { join } from "node:path";
import { startServer, type TestServer, temporaryFolder } from "../test/support/server.ts";
import { inLanes, LANES } from "./input.ts";
import { median } from "./results.ts";
import { BenchSocket, call } from "./tidemark-client.ts";

const MILLION = 1_000_000;
const BATCH_RECORDS = 1_000;
const MEASURED_MS = 4_000;
const SINGLES_A_SECOND = 1_000;
const VALUE = JSON.stringify({ text: "x".repeat(188) });

interface Kind {
  readonly name: string;
  readonly records: number;
  /** Of the n-th record. */
  readonly key?: (n: number) => string;
  start(server: TestServer, topic: string): Promise<void>;
  /** Nothing is left to do. */
  readonly isDone: (left: Left) => boolean;
}

interface Left {
  readonly records: number;
  readonly purges: number;
  readonly toCompact: number;
}

const KINDS: readonly Kind[] = [
  {
    name: "retention deletes 1M records",
    records: MILLION,
    start: (server, topic) => put(server, topic, { retention: { records: 1 } }),
    isDone: ({ records }) => records <= 1,
  },
  {
    name: "compaction of 1M records, 1,000 keys",
    records: MILLION,
    key: (n) => `key-${(n * 7_919) % 1_000}`,
    start: (server, topic) => put(server, topic, { cleanup: "compact" }),
    isDone: ({ toCompact }) => toCompact === 0,
  },
  {
    name: "compaction of 300k records, each with another key",
    records: 300_000,
    key: (n) => `key-${(n * 7_919) % MILLION}`,
    start: (server, topic) => put(server, topic, { cleanup: "compact" }),
    isDone: ({ toCompact }) => toCompact === 0,
  },
  {
    name: "a topic of 1M records is deleted",
    records: MILLION,
    start: ({ url }, topic) => call(`${url}/v1/topics/${topic}`, { method: "DELETE" }),
    isDone: ({ purges }) => purges === 0,
  },
];

console.log(
  "| while | batches, of the rate without | single records, p99 in ms: without, while, ratio | longest stop, ms |",
);
console.log("|---|---|---|---|");
const [only = ""] = process.argv.slice(2);
for (const kind of KINDS.filter(({ name }) => name.includes(only)))
  console.log(`| ${kind.name} | ${(await measure(kind)).join(" | ")} |`);
process.exit(0);

async function measure(kind: Kind): Promise<readonly string[]> {
  using folder = temporaryFolder();
  const loopSocket = join(folder.path, "loop.sock");
  await using server = await startServer(join(folder.path, "server.db"), {
    env: {
      BUN_OPTIONS: `--preload=${join(import.meta.dir, "loop-delay.ts")}`,
      BENCH_LOOP_DELAY_SOCKET: loopSocket,
    },
  });
  for (const topic of ["first", "second", "third"]) await fill(server, topic, kind);

  const rates = await aroundUpkeep(server, { kind, topic: "first", load: () => batchRate(server) });
  const rate = rates.during / median([rates.before, rates.after]);
  const p99s = await aroundUpkeep(server, { kind, topic: "second", load: () => singlesP99(server) });
  const p99 = median([p99s.before, p99s.after]);

  await loopDelays(loopSocket);
  await kind.start(server, "third");
  await untilDone(server, kind, "third");
  const longest = Math.max(...(await loopDelays(loopSocket)));
  return [
    `${rate.toFixed(2)} ×`,
    `${p99.toFixed(1)}, ${p99s.during.toFixed(1)}, ${(p99s.during / p99).toFixed(2)} ×`,
    longest.toFixed(1),
  ];
}

interface UpkeepOf {
  readonly kind: Kind;
  readonly topic: string;
  readonly load: () => Promise<number>;
}

async function aroundUpkeep(server: TestServer, { kind, topic, load }: UpkeepOf) {
  await load(); // to be warm
  const before = await load();
  await kind.start(server, topic);
  const during = await load();
  if (kind.isDone(leftOf(server, topic))) throw new Error(`${kind.name}: over before the load was`);
  await untilDone(server, kind, topic);
  return { before, during, after: await load() };
}

// ── the loads ────────────────────────────────────────────────────────────────────────────────────────────

/** Records a second. */
async function batchRate(server: TestServer): Promise<number> {
  const body = bodyOf(0);
  const fromMs = performance.now();
  let sent = 0;
  const lane = async () => {
    while (performance.now() - fromMs < MEASURED_MS) {
      await call(`${server.url}/v1/topics/load/records`, { method: "POST", body });
      sent += BATCH_RECORDS;
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  return (sent / (performance.now() - fromMs)) * 1_000;
}

/** ms from the frame to its answer, of one in a hundred longer. */
async function singlesP99({ streamUrl }: TestServer): Promise<number> {
  const socket = await BenchSocket.open(streamUrl);
  const sentAtMs: number[] = [];
  const waitedMs: number[] = [];
  const count = (MEASURED_MS / 1_000) * SINGLES_A_SECOND;
  const answered = new Promise<void>((resolve, reject) => {
    socket.onFailure = reject;
    socket.onFrame = (frame) => {
      if (frame.type !== "produced") return reject(new Error(JSON.stringify(frame)));
      waitedMs.push(performance.now() - (sentAtMs[Number(frame.id)] ?? 0));
      if (waitedMs.length === count) resolve();
    };
  });
  const fromMs = performance.now();
  const timer = setInterval(() => {
    const due = Math.min(count, Math.floor(((performance.now() - fromMs) * SINGLES_A_SECOND) / 1_000));
    for (let id = sentAtMs.length; id < due; id += 1) {
      sentAtMs.push(performance.now());
      socket.sendText(`{"type":"produce","id":${id},"topic":"load","records":[{"value":${VALUE}}]}`);
    }
  }, 1);
  await answered;
  clearInterval(timer);
  socket.close();
  return waitedMs.sort((a, b) => a - b)[Math.floor(0.99 * count)] ?? Number.NaN;
}

async function loopDelays(unix: string): Promise<readonly number[]> {
  return (await fetch("http://localhost/", { unix })).json() as Promise<number[]>; // loop-delay.ts answers nothing else
}

// ── the topics ───────────────────────────────────────────────────────────────────────────────────────────

function bodyOf(first: number, key?: Kind["key"]): string {
  const records = Array.from({ length: BATCH_RECORDS }, (_, n) => {
    const keyed = key ? `"key":"${key(first + n)}",` : "";
    return `{${keyed}"value":${VALUE}}`;
  });
  return `{"records":[${records.join(",")}]}`;
}

async function fill(server: TestServer, topic: string, { records, key }: Kind): Promise<void> {
  await put(server, topic, {});
  const batches = Array.from({ length: records / BATCH_RECORDS }, (_, batch) => batch * BATCH_RECORDS);
  await inLanes(LANES, batches, (first) =>
    call(`${server.url}/v1/topics/${topic}/records`, { method: "POST", body: bodyOf(first, key) }),
  );
}

function put({ url }: TestServer, topic: string, settings: object): Promise<void> {
  return call(`${url}/v1/topics/${topic}`, { method: "PUT", body: JSON.stringify(settings) });
}

async function untilDone(server: TestServer, kind: Kind, topic: string): Promise<void> {
  while (!kind.isDone(leftOf(server, topic))) await Bun.sleep(100);
}

/** Asked of the file, so that the server has nothing to do with it. */
function leftOf({ databasePath }: TestServer, topic: string): Left {
  const sql = `
    SELECT coalesce((SELECT sum(records) FROM partition_stats WHERE topic = '${topic}'), 0) AS records,
           (SELECT count(*) FROM purges) AS purges,
           coalesce((SELECT sum(p.log_end_offset - coalesce(d.compacted_to, 0))
                     FROM topics AS t JOIN partitions AS p ON p.topic_id = t.topic_id
                     LEFT JOIN compactions AS d ON d.partition_id = p.partition_id
                     WHERE t.topic = '${topic}'), 0) AS toCompact`;
  using database = new Database(databasePath, { readonly: true });
  database.run("PRAGMA busy_timeout = 5000");
  return database.query(sql).get() as Left; // the columns of the statement
}
