// bun run bench:client: what the client library costs. The same server and the same work, once with frames that are written
// and read by hand as PROTOCOL.md has them, once through the library with its default settings.
//
//   --quick   two short rounds     --write   into bench/client.json and the README

import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Client, connect } from "../clients/typescript/client.ts";
import { type AnyServer, startServer, temporaryFolder } from "../test/support/server.ts";
import { type ClientResults, clientTableOf, LIBRARY, RAW } from "./client-table.ts";
import { type Input, inLanes, inputOf, LANES, rateOf, SINGLE_CLIENTS } from "./input.ts";
import { roundStreams } from "./peer.ts";
import { writeReadme } from "./readme.ts";
import { machine, runRounds } from "./rounds.ts";
import type { Subject, Trial } from "./subject.ts";
import { consumeFrames, type FramesToConsume } from "./tidemark.ts";
import { BenchSocket, bodyOf, createTopic, produce } from "./tidemark-client.ts";

const FULL = { rounds: 7, records: 200_000, singles: 20_000 };
const QUICK = { rounds: 2, records: 20_000, singles: 2_000 };

/** By default, and the largest that there is. */
const WINDOWS = [
  { records: 1_000, bytes: 1_048_576 },
  { records: 10_000, bytes: 4_194_304 },
] as const;

interface Quake {
  readonly id: string;
}

interface ProducedQuake {
  readonly value: Quake;
}

const { values: flags } = parseArgs({
  options: { quick: { type: "boolean", default: false }, write: { type: "boolean", default: false } },
});
if (flags.quick && flags.write) throw new Error("--write is for a whole run");

const results = await measure(flags.quick ? QUICK : FULL);
const table = clientTableOf(results);
console.log(table);
if (flags.write) {
  await Bun.write(join(import.meta.dir, "client.json"), `${JSON.stringify(results, null, 2)}\n`);
  await writeReadme("client", table);
}

async function measure({ rounds, records, singles }: typeof FULL): Promise<ClientResults> {
  await using stack = new AsyncDisposableStack();
  const { path: folder } = stack.use(temporaryFolder());
  const server = stack.use(await startServer(join(folder, "server.db")));
  const client = stack.use(connect({ url: server.url }));
  const socket = await BenchSocket.open(server.streamUrl);
  stack.defer(() => socket.close());
  const input = inputOf(records, singles);
  const subjects = [
    subjectOf(RAW, rawTrials(input, server, socket)),
    subjectOf(LIBRARY, libraryTrials(input, server, client)),
  ];
  return { machine: machine(), rounds, recordsARound: records, trials: await runRounds(subjects, rounds) };
}

function subjectOf(name: string, trials: readonly Trial[]): Subject {
  return { name, trials, version: "", durability: "", [Symbol.asyncDispose]: async () => {} };
}

// ── what is the same for both ────────────────────────────────────────────────────────────────────────────

interface Work {
  readonly produceBatch: (topic: string, records: readonly ProducedQuake[]) => Promise<unknown>;
  readonly produceOne: (topic: string, record: ProducedQuake) => Promise<unknown>;
  /** Until the ack of the last record is durable. */
  readonly consumeAll: (work: FramesToConsume) => Promise<readonly string[]>;
}

function trialsOf(name: string, input: Input, server: AnyServer, work: Work): readonly Trial[] {
  const batches = input.batches.map((batch) =>
    batch.map((text): ProducedQuake => ({ value: JSON.parse(text) })),
  );
  const singles = batches.flat().slice(0, input.singles);
  const topicOf = (what: string) => (round: number) => `${what}-${name.replace(" ", "-")}-${round}`;
  const topics = roundStreams({
    create: (round) => createTopic(server, topicOf("consume")(round), 1),
    fill: (round) =>
      inLanes(LANES, input.batches, (batch) => produce(server, topicOf("consume")(round), bodyOf(batch))),
    remove: async () => {},
  });
  return [
    {
      workload: "produce",
      path: "batches of 1,000, four at once",
      prepare: (round) => createTopic(server, topicOf("produce")(round), 1),
      run: (round) =>
        rateOf(input.values.length, () =>
          inLanes(
            LANES,
            batches,
            async (batch) => void (await work.produceBatch(topicOf("produce")(round), batch)),
          ),
        ),
    },
    {
      workload: "single",
      path: "one connection, 64 at once, one record each and waiting for the answer",
      prepare: (round) => createTopic(server, topicOf("single")(round), 1),
      run: (round) =>
        rateOf(input.singles, () =>
          inLanes(
            SINGLE_CLIENTS,
            singles,
            async (record) => void (await work.produceOne(topicOf("single")(round), record)),
          ),
        ),
    },
    ...WINDOWS.map(
      (window): Trial => ({
        workload: "consume",
        path: `an ack a frame, a window of ${window.records.toLocaleString("en")} records`,
        prepare: topics.ensureFilled,
        run: (round) =>
          rateOf(input.values.length, async () => {
            const topic = topicOf("consume")(round);
            const logEndOffset = input.values.length;
            const group = `g-${window.records}-${round}`;
            const ids = await work.consumeAll({ topic, group, window, logEndOffset });
            if (ids.length !== input.values.length)
              throw new Error(`received ${ids.length} of ${input.values.length}`);
          }),
      }),
    ),
  ];
}

// ── by hand ──────────────────────────────────────────────────────────────────────────────────────────────

function rawTrials(input: Input, server: AnyServer, socket: BenchSocket): readonly Trial[] {
  const ask = asking(socket);
  return trialsOf("raw", input, server, {
    produceBatch: (topic, records) => ask((id) => JSON.stringify({ type: "produce", id, topic, records })),
    produceOne: (topic, record) =>
      ask((id) => JSON.stringify({ type: "produce", id, topic, records: [record] })),
    consumeAll: (work) => consumeFrames(server, work),
  });
}

function asking(socket: BenchSocket): (write: (id: number) => string) => Promise<void> {
  const waiting = new Map<number, () => void>();
  let lastId = 0;
  socket.onFrame = (frame) => {
    if (frame.type !== "produced") throw new Error(JSON.stringify(frame));
    waiting.get(Number(frame.id))?.();
    waiting.delete(Number(frame.id));
  };
  return (write) =>
    new Promise((resolve) => {
      lastId += 1;
      waiting.set(lastId, resolve);
      socket.sendText(write(lastId));
    });
}

// ── through the library ──────────────────────────────────────────────────────────────────────────────────

function libraryTrials(input: Input, server: AnyServer, client: Client): readonly Trial[] {
  return trialsOf("library", input, server, {
    produceBatch: (topic, records) => client.produce(topic, records),
    produceOne: (topic, record) => client.produce(topic, record),
    consumeAll: (work) => consumeByLibrary(server, work),
  });
}

async function consumeByLibrary(
  { url }: AnyServer,
  { topic, group, window, logEndOffset }: FramesToConsume,
): Promise<readonly string[]> {
  await using client = connect({ url });
  const ids: string[] = [];
  for await (const batch of client.consume(topic, { group, window })) {
    for (const { value } of batch.records) ids.push((value as Quake).id); // the input is nothing else
    if (batch.next !== logEndOffset) continue;
    await batch.ack();
    break;
  }
  return ids;
}
