// Redis Streams: XADD in pipelines, a consumer group, an append-only file that is fsynced before every answer.

import { join } from "node:path";
import { Redis } from "ioredis";
import { BATCH_RECORDS, type Input, inLanes, LANES, rateOf, SINGLE_CLIENTS } from "./input.ts";
import {
  checkReceived,
  findProgram,
  idOf,
  packageVersion,
  programVersion,
  roundStreams,
  startPeer,
} from "./peer.ts";
import type { Missing, Subject, Trial } from "./subject.ts";

const NAME = "Redis Streams";
const GROUP = "bench";
const READ_RECORDS = 500;

export async function startRedis(input: Input): Promise<Subject | Missing> {
  const program = findProgram("redis-server");
  if (program === null) {
    return { name: NAME, missing: "redis-server is not installed: apt-get install redis-server" };
  }
  await using stack = new AsyncDisposableStack();
  const { folder, pid } = stack.use(await startServer(program));
  const clients = Array.from({ length: LANES }, () => new Redis({ path: socketIn(folder) }));
  for (const client of clients) stack.defer(() => client.disconnect());
  await Promise.all(clients.map((client) => client.ping()));
  const version = `${await programVersion(program, "redis-server")}, ${await packageVersion("ioredis")}`;
  const started = stack.move();
  return {
    name: NAME,
    version,
    durability: "fsynced in the append-only file (appendfsync always), those that arrived together at once",
    trials: trialsOf(input, clients),
    pid,
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  };
}

function startServer(program: string) {
  const durably = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""];
  return startPeer({
    // No port: a Unix socket is what Redis recommends to a client on the same machine.
    command: (folder) => [
      program,
      "--dir",
      folder,
      "--port",
      "0",
      "--unixsocket",
      socketIn(folder),
      ...durably,
    ],
    logsTo: "stdout",
    ready: /ready to accept connections at/,
  });
}

function socketIn(folder: string): string {
  return join(folder, "redis.sock");
}

function trialsOf(input: Input, clients: readonly Redis[]): readonly Trial[] {
  const client = clientOf(clients, 0);
  const streams = roundStreams({
    create: (round) => client.xgroup("CREATE", streamOf(round), GROUP, "0", "MKSTREAM"),
    fill: (round) => addBatches(input, clients, streamOf(round)),
    remove: (round) => client.del(streamOf(round)),
  });
  const produce: Trial = {
    workload: "produce",
    path: `pipelines of ${BATCH_RECORDS} XADD; ${LANES} lanes, a connection (Unix socket) each`,
    prepare: streams.renew,
    run: (round) => rateOf(input.values.length, () => streams.fill(round)),
  };
  const consume: Trial = {
    workload: "consume",
    path: `XREADGROUP COUNT ${READ_RECORDS}, the next one sent ahead; XACK of all that it gave`,
    prepare: streams.ensureFilled,
    run: (round) => consumeAll(input, client, streamOf(round)),
  };
  return [produce, singleTrial(input, client), consume];
}

function streamOf(round: number): string {
  return `quakes-${round}`;
}

function clientOf(clients: readonly Redis[], lane: number): Redis {
  return clients[lane] as Redis; // a lane is below LANES
}

function addBatches({ batches }: Input, clients: readonly Redis[], stream: string): Promise<void> {
  return inLanes(LANES, batches, async (batch, lane) => {
    const commands = batch.map((value) => ["xadd", stream, "*", "value", value]);
    const results = await clientOf(clients, lane).pipeline(commands).exec();
    // null: for a transaction that was aborted, which this is not
    for (const [error] of results ?? []) if (error !== null) throw error;
  });
}

/** All on one connection, which sends at once what is asked for at once: no slower than a connection each. */
function singleTrial({ values, singles }: Input, client: Redis): Trial {
  const add = async (stream: string, value: string) => void (await client.xadd(stream, "*", "value", value));
  return {
    workload: "single",
    path: `XADD, ${SINGLE_CLIENTS} producers on one connection (Unix socket)`,
    run: async (round) => {
      const stream = `singles-${round}`;
      const records = values.slice(0, singles);
      const addAll = () => inLanes(SINGLE_CLIENTS, records, (value) => add(stream, value));
      const figures = await rateOf(records.length, addAll);
      await client.del(stream);
      return figures;
    },
  };
}

async function consumeAll(input: Input, client: Redis, stream: string) {
  const ids: string[] = [];
  const figures = await rateOf(input.values.length, () => readAll(client, stream, ids));
  checkReceived(ids, input);
  const [pending] = await client.xpending(stream, GROUP);
  if (pending !== 0) throw new Error(`${pending} records are not acknowledged`);
  return figures;
}

async function readAll(client: Redis, stream: string, ids: string[]): Promise<void> {
  const read = () => client.xreadgroup("GROUP", GROUP, "one", "COUNT", READ_RECORDS, "STREAMS", stream, ">");
  const acks: Promise<number>[] = [];
  let ahead = read();
  for (let answer = await ahead; answer !== null; answer = await ahead) {
    ahead = read();
    const entries = answer.flatMap(([, items]) => items);
    for (const [, fields] of entries) ids.push(idOf(fields?.[1] ?? ""));
    acks.push(client.xack(stream, GROUP, ...entries.map(([id]) => id)));
  }
  await Promise.all(acks);
}
