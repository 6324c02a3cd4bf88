// Tidemark itself: its own command, durable, as a process of its own, through HTTP and WebSocket.

import { join } from "node:path";
import type { Window } from "../src/protocol/frames.ts";
import { type AnyServer, startServer, temporaryFolder } from "../test/support/server.ts";
import { fanOutTrial } from "./fan-out.ts";
import { HttpConnection } from "./http-connection.ts";
import { type Input, inLanes, LANES, rateOf, SINGLE_CLIENTS } from "./input.ts";
import { latencyTrial } from "./latency.ts";
import { packageVersion, roundStreams } from "./peer.ts";
import { percentiles, type Subject, type Trial } from "./subject.ts";
import { BenchSocket, bodyOf, call, createTopic, produce } from "./tidemark-client.ts";

export const NAME = "Tidemark";
const PARTITIONS = 4;
/** The largest that there is: frames are on their way while others are worked on. */
const WINDOW = { records: 10_000, bytes: 4 * 1024 * 1024 };

export async function startTidemark(input: Input): Promise<Subject> {
  await using stack = new AsyncDisposableStack();
  const { path: folder } = stack.use(temporaryFolder());
  const loopSocket = join(folder, "loop.sock");
  const server = stack.use(
    await startServer(join(folder, "server.db"), {
      env: {
        BUN_OPTIONS: `--preload=${join(import.meta.dir, "loop-delay.ts")}`,
        BENCH_LOOP_DELAY_SOCKET: loopSocket,
      },
    }),
  );
  const started = stack.move();
  return {
    name: NAME,
    version: await versions(),
    durability: "fsynced (WAL, synchronous=FULL)",
    trials: [...trialsOf(input, server), fanOutTrial(server, input), loopTrial(loopSocket)],
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  };
}

async function versions(): Promise<string> {
  const { version } = await Bun.file(join(import.meta.dir, "../package.json")).json();
  return `${version} on Bun ${Bun.version}, ${await packageVersion("libsql")}`;
}

/** What a server does on any runtime and database. */
export function trialsOf(input: Input, server: AnyServer): readonly Trial[] {
  const topics = roundStreams({
    create: (round) => createTopic(server, topicOf(round), 1),
    fill: (round) => produceBatches(input, server, topicOf(round)),
    remove: async () => {}, // deleting it would go on in the background, while others are measured
  });
  return [
    {
      workload: "produce",
      path: `JSON over HTTP, one partition; ${LANES} lanes`,
      prepare: topics.renew,
      run: (round) => rateOf(input.values.length, () => topics.fill(round)),
    },
    spreadTrial(input, server),
    singleOverHttp(input, server),
    singleOverWebSocket(input, server),
    {
      workload: "consume",
      path: "a group of one member over WebSocket, an ack a frame of 500, the largest window",
      prepare: topics.ensureFilled,
      run: (round) => rateOf(input.values.length, () => consumeAll(input, server, round)),
    },
    latencyTrial(server),
  ];
}

function loopTrial(loopSocket: string): Trial {
  return {
    workload: "loop",
    path: "the server's event loop, lateness of a timer of 4 ms in all of the above",
    run: async () => {
      const response = await fetch("http://localhost/", { unix: loopSocket });
      return percentiles((await response.json()) as number[]); // loop-delay.ts answers nothing else
    },
  };
}

function topicOf(round: number): string {
  return `quakes-${round}`;
}

function produceBatches({ batches }: Input, server: AnyServer, topic: string): Promise<void> {
  return inLanes(LANES, batches, async (batch) => {
    await produce(server, topic, bodyOf(batch));
  });
}

function spreadTrial({ values, batches }: Input, server: AnyServer): Trial {
  const topic = (round: number) => `spread-${round}`;
  const headers = { "content-type": "application/x-ndjson" };
  return {
    workload: "produce",
    path: `NDJSON over HTTP, keys by pointer, spread over ${PARTITIONS} partitions; ${LANES} lanes`,
    prepare: (round) => createTopic(server, topic(round), PARTITIONS),
    run: async (round) => {
      const url = `${server.url}/v1/topics/${topic(round)}/records?key=/network`;
      const post = (batch: readonly string[]) =>
        call(url, { method: "POST", headers, body: batch.join("\n") });
      return rateOf(values.length, () => inLanes(LANES, batches, post));
    },
  };
}

// ── one record each ──────────────────────────────────────────────────────────────────────────────────────

function singleOverHttp({ values, singles }: Input, server: AnyServer): Trial {
  const topic = (round: number) => `singles-http-${round}`;
  const bodies = values.slice(0, singles).map((value) => bodyOf([value]));
  return {
    workload: "single",
    path: `JSON over HTTP, ${SINGLE_CLIENTS} clients`,
    prepare: (round) => createTopic(server, topic(round), 1),
    run: async (round) => {
      const open = () => HttpConnection.open(server.url);
      const connections = await Promise.all(Array.from({ length: SINGLE_CLIENTS }, open));
      const path = `/v1/topics/${topic(round)}/records`;
      const post = async (body: string, lane: number) => void (await connections[lane]?.post(path, body));
      const figures = await rateOf(singles, () => inLanes(SINGLE_CLIENTS, bodies, post));
      for (const connection of connections) connection.close();
      return figures;
    },
  };
}

function singleOverWebSocket({ values, singles }: Input, server: AnyServer): Trial {
  const topic = (round: number) => `singles-socket-${round}`;
  return {
    workload: "single",
    path: `\`produce\` frames over WebSocket, ${SINGLE_CLIENTS} clients`,
    prepare: (round) => createTopic(server, topic(round), 1),
    run: async (round) => {
      const open = () => BenchSocket.open(server.streamUrl);
      const sockets = await Promise.all(Array.from({ length: SINGLE_CLIENTS }, open));
      const frameOf = (value: string) =>
        `{"type":"produce","id":1,"topic":"${topic(round)}","records":[{"value":${value}}]}`;
      const frames = values.slice(0, singles).map(frameOf);
      const figures = await rateOf(singles, async () => {
        await Promise.all(sockets.map((socket) => sendAll(socket, frames)));
      });
      for (const socket of sockets) socket.close();
      return figures;
    },
  };
}

/** One frame after the other, as long as there are any. */
function sendAll(socket: BenchSocket, frames: string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const sendNext = () => {
      const frame = frames.pop();
      if (frame === undefined) resolve();
      else socket.sendText(frame);
    };
    socket.onFailure = reject;
    socket.onFrame = (frame) => {
      if (frame.type === "produced") sendNext();
      else reject(new Error(JSON.stringify(frame)));
    };
    sendNext();
  });
}

// ── consume ──────────────────────────────────────────────────────────────────────────────────────────────

async function consumeAll({ values }: Input, server: AnyServer, round: number): Promise<void> {
  const work = {
    topic: topicOf(round),
    group: `bench-${round}`,
    window: WINDOW,
    logEndOffset: values.length,
  };
  const ids = await consumeFrames(server, work);
  if (ids.length !== values.length) throw new Error(`received ${ids.length} of ${values.length}`);
}

export interface FramesToConsume {
  /** Of one partition. */
  readonly topic: string;
  readonly group: string;
  readonly window: Window;
  readonly logEndOffset: number;
}

/** Until the ack of the last record is durable. Returns the ids of what came. */
export async function consumeFrames(
  { streamUrl }: AnyServer,
  { topic, group, window, logEndOffset }: FramesToConsume,
): Promise<readonly string[]> {
  const socket = await BenchSocket.open(streamUrl);
  const ids: string[] = [];
  await new Promise<void>((resolve, reject) => {
    socket.onFailure = reject;
    socket.onFrame = (frame) => {
      if (frame.type === "records") {
        for (const { value } of frame.records) ids.push(value.id);
        socket.ack(frame);
      }
      if (frame.type === "error") reject(new Error(JSON.stringify(frame)));
      if (frame.type === "acked" && frame.offsets[0]?.offset === logEndOffset) resolve();
    };
    socket.send({ type: "subscribe", topics: [topic], group, window });
  });
  socket.close();
  return ids;
}
