// bun run bench --growth: what a record costs, and a consumer holds in memory, when there is much of everything. Small
// and large take turns, so what is said of them is a ratio within one run.

import { statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startServer, type TestServer, temporaryFolder } from "../test/support/server.ts";
import { measureMemory } from "./growth-memory.ts";
import { type CostRow, type Growth, growthTableOf } from "./growth-table.ts";
import { BATCH_RECORDS, type Input, inLanes, inputOf, LANES } from "./input.ts";
import { writeReadme } from "./readme.ts";
import { BenchSocket, bodyOf, call, createTopic, produce } from "./tidemark-client.ts";

const FULL = {
  records: [1_000_000, 20_000_000],
  partitions: 1_000,
  groups: 1_000,
  rounds: 5,
  measured: 50_000,
} as const;
const QUICK = {
  records: [20_000, 100_000],
  partitions: 20,
  groups: 20,
  rounds: 2,
  measured: 10_000,
} as const;
type Sizes = typeof FULL | typeof QUICK;

const BYTES_A_RECORD = 200;
const FILL_BATCH_RECORDS = 10_000;
const LOOK_UPS = 100;
/** One frame of the default window. */
const GROUP_RECORDS = 500;
const RESULTS = join(import.meta.dir, "growth.json");

export async function measureGrowth(options: { isQuick: boolean; isWritten: boolean }): Promise<string> {
  const sizes = options.isQuick ? QUICK : FULL;
  const input = inputOf(sizes.measured, 0);
  const costs = [
    ...(await growRecords(sizes, input)),
    ...(await growPartitions(sizes, input)),
    ...(await growGroups(sizes)),
  ];
  const growth: Growth = { costs, memory: await measureMemory(options.isQuick) };
  if (options.isWritten) {
    await Bun.write(RESULTS, `${JSON.stringify(growth, null, 2)}\n`);
    await writeReadme("growth", growthTableOf(growth));
  }
  return growthTableOf(growth);
}

interface Case {
  readonly label: string;
  /** Microseconds, of each of what is counted. */
  run(round: number): Promise<number>;
}

/** The first round warms up. */
async function compare(
  what: string,
  rounds: number,
  [small, large]: readonly [Case, Case],
): Promise<CostRow> {
  const figures = { small: [] as number[], large: [] as number[] };
  for (let round = 0; round <= rounds; round += 1) {
    const measured = { small: await small.run(round), large: await large.run(round) };
    console.error(
      `${what}, round ${round}: ${small.label} ${measured.small} µs, ${large.label} ${measured.large} µs`,
    );
    if (round === 0) continue;
    figures.small.push(measured.small);
    figures.large.push(measured.large);
  }
  return { what, small: small.label, large: large.label, figures };
}

async function microsecondsOf(count: number, run: () => Promise<void>): Promise<number> {
  const startMs = performance.now();
  await run();
  return ((performance.now() - startMs) * 1_000) / count;
}

// ── records ──────────────────────────────────────────────────────────────────────────────────────────────

async function growRecords({ records, rounds, measured }: Sizes, input: Input): Promise<readonly CostRow[]> {
  using folder = temporaryFolder();
  await requireRoom(records[1] * BYTES_A_RECORD);
  await using small = await startServer(join(folder.path, "small.db"));
  await using large = await startServer(join(folder.path, "large.db"));
  await fill(small, records[0]);
  await fill(large, records[1]);
  const label = (count: number) => `${count.toLocaleString("en")} records`;
  const cases = (run: (server: TestServer, round: number) => Promise<number>): [Case, Case] => [
    { label: label(records[0]), run: (round) => run(small, round) },
    { label: label(records[1]), run: (round) => run(large, round) },
  ];
  return [
    await compare(
      `produce, batches of ${BATCH_RECORDS.toLocaleString("en")}`,
      rounds,
      cases((server) => produceAll(server, "log", input)),
    ),
    await compare(
      "consume the last of them, in a group",
      rounds,
      cases((server, round) => consumeTail(server, { round, measured })),
    ),
    await compare("find a record by its time, over HTTP", rounds, cases(lookUpTimes)),
  ];
}

async function requireRoom(bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(tmpdir());
  if (bavail * bsize < 2 * bytes) throw new Error(`${tmpdir()} has no room for ${2 * bytes} bytes`);
}

/** Values of a hundred bytes. The timestamp of each record is its offset. */
async function fill(server: TestServer, count: number): Promise<void> {
  await createTopic(server, "log", 1);
  const starts = Array.from({ length: count / FILL_BATCH_RECORDS }, (_, batch) => batch * FILL_BATCH_RECORDS);
  await inLanes(1, starts, async (first) => {
    const records = Array.from(
      { length: FILL_BATCH_RECORDS },
      (_, n) => `{"timestamp":${first + n},"value":"${FILLING}"}`,
    );
    await produce(server, "log", `{"records":[${records.join(",")}]}`);
    if (first % 1_000_000 === 0) console.error(`filled: ${first} of ${count} records`);
  });
}

const FILLING = "x".repeat(98);

function produceAll(server: TestServer, topic: string, { batches, values }: Input): Promise<number> {
  return microsecondsOf(values.length, () =>
    inLanes(LANES, batches, (batch) => produce(server, topic, bodyOf(batch))),
  );
}

async function consumeTail(
  server: TestServer,
  { round, measured }: { round: number; measured: number },
): Promise<number> {
  const group = `tail-${round}`;
  const offset = (await logEndOf(server)) - measured;
  const body = JSON.stringify({ offsets: [{ topic: "log", partition: 0, offset }] });
  await call(`${server.url}/v1/groups/${group}/offsets`, { method: "POST", body });
  return microsecondsOf(measured, () => consume(server, { topic: "log", group, count: measured }));
}

/** Anywhere in the log. */
async function lookUpTimes(server: TestServer): Promise<number> {
  const logEndOffset = await logEndOf(server);
  return microsecondsOf(LOOK_UPS, async () => {
    for (let n = 0; n < LOOK_UPS; n += 1) {
      const time = Math.floor((logEndOffset * n) / LOOK_UPS);
      await call(`${server.url}/v1/topics/log/partitions/0/records?from=@${time}&limit=1`, {});
    }
  });
}

interface TopicDescription {
  readonly partitions: readonly { readonly logEndOffset: number }[];
}

async function logEndOf({ url }: TestServer): Promise<number> {
  const response = await fetch(`${url}/v1/topics/log`);
  const { partitions } = (await response.json()) as TopicDescription; // as PROTOCOL.md has it
  return partitions[0]?.logEndOffset ?? 0;
}

/** Until the ack of the last of `count` records is durable. */
async function consume(
  { streamUrl }: TestServer,
  { topic, group, count }: { topic: string; group: string; count: number },
): Promise<void> {
  const socket = await BenchSocket.open(streamUrl);
  let acked = 0;
  const places = new Map<number, number>();
  await new Promise<void>((resolve, reject) => {
    socket.onFailure = reject;
    socket.onFrame = (frame) => {
      if (frame.type === "error") reject(new Error(JSON.stringify(frame)));
      if (frame.type === "assigned")
        for (const { partition, position } of frame.partitions) places.set(partition, position ?? 0);
      if (frame.type === "records") socket.ack(frame);
      if (frame.type !== "acked") return;
      for (const { partition, offset } of frame.offsets) {
        acked += (offset ?? 0) - (places.get(partition) ?? 0);
        places.set(partition, offset ?? 0);
      }
      if (acked === count) resolve();
    };
    socket.send({ type: "subscribe", topics: [topic], group });
  });
  socket.close();
}

// ── partitions ───────────────────────────────────────────────────────────────────────────────────────────

async function growPartitions(
  { partitions, rounds }: Sizes,
  { values, batches }: Input,
): Promise<readonly CostRow[]> {
  using folder = temporaryFolder();
  await using server = await startServer(join(folder.path, "partitions.db"));
  const cases = (run: (topic: string, count: number) => Promise<number>): [Case, Case] => [
    { label: "1 partition", run: (round) => run(`one-${round}`, 1) },
    {
      label: `${partitions.toLocaleString("en")} partitions`,
      run: (round) => run(`many-${round}`, partitions),
    },
  ];
  const produced = async (topic: string, partitionOf: (batch: number, record: number) => number) => {
    const bodies = batches.map((batch, index) => {
      const records = batch.map(
        (value, record) => `{"partition":${partitionOf(index, record)},"value":${value}}`,
      );
      return `{"records":[${records.join(",")}]}`;
    });
    return microsecondsOf(values.length, () =>
      inLanes(LANES, bodies, (body) => produce(server, topic, body)),
    );
  };
  const consumed = (topic: string) =>
    microsecondsOf(values.length, () => consume(server, { topic, group: topic, count: values.length }));
  return [
    await compare(
      "produce, each batch to one of them",
      rounds,
      cases(async (topic, count) => {
        await createTopic(server, `whole-${topic}`, count);
        return produced(`whole-${topic}`, (batch) => batch % count);
      }),
    ),
    await compare(
      "produce, each batch spread over all",
      rounds,
      cases(async (topic, count) => {
        await createTopic(server, topic, count);
        return produced(topic, (_, record) => record % count);
      }),
    ),
    await compare("consume all that was spread, in a group", rounds, cases(consumed)),
  ];
}

// ── groups ───────────────────────────────────────────────────────────────────────────────────────────────

/** As many deliveries to one group as to all: each reads what there is from the beginning, at the same moment. */
async function growGroups({ groups, rounds }: Sizes): Promise<readonly CostRow[]> {
  using folder = temporaryFolder();
  await using server = await startServer(join(folder.path, "groups.db"));
  const input = inputOf(GROUP_RECORDS * groups, 0);
  await createTopic(server, "long", 1);
  await produceAll(server, "long", input);
  await createTopic(server, "short", 1);
  await produce(server, "short", bodyOf(input.values.slice(0, GROUP_RECORDS)));
  const run = async (names: readonly string[], topic: string, count: number) => {
    const joined = await Promise.all(names.map((group) => joinAtEnd(server, topic, group)));
    const cost = await microsecondsOf(count * names.length, async () => {
      await Promise.all(joined.map((socket) => readFromStart(socket, topic, count)));
    });
    for (const socket of joined) socket.close();
    return cost;
  };
  const many = (round: number) => Array.from({ length: groups }, (_, n) => `many-${round}-${n}`);
  return [
    await compare("consume, a delivery", rounds, [
      { label: "1 group", run: (round) => run([`one-${round}`], "long", input.values.length) },
      {
        label: `${groups.toLocaleString("en")} groups`,
        run: (round) => run(many(round), "short", GROUP_RECORDS),
      },
    ]),
  ];
}

async function joinAtEnd({ streamUrl }: TestServer, topic: string, group: string): Promise<BenchSocket> {
  const socket = await BenchSocket.open(streamUrl);
  const assigned = socket.until("assigned");
  socket.send({ type: "subscribe", topics: [topic], group, reset: "latest" });
  await assigned;
  return socket;
}

/** Until it has been sent all; what a seek goes over again cannot be committed again. */
function readFromStart(socket: BenchSocket, topic: string, count: number): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.onFailure = reject;
    socket.onFrame = (frame) => {
      if (frame.type === "error") reject(new Error(JSON.stringify(frame)));
      if (frame.type !== "records") return;
      socket.ack(frame);
      if (frame.next === count) resolve();
    };
    socket.send({ type: "seek", topic, partition: 0, to: "earliest" });
  });
}
