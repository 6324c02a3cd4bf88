// Durable Streams: its reference server on files, JSON over HTTP, reads that catch up from the beginning.

import { join } from "node:path";
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client";
import { BATCH_RECORDS, type Input, inLanes, LANES, rateOf, SINGLE_CLIENTS } from "./input.ts";
import { checkReceived, packageVersion, type Quake, roundStreams, startPeer } from "./peer.ts";
import type { Subject, Trial } from "./subject.ts";

const SERVER = join(import.meta.dir, "durable-streams-server.ts");
/** A request a record takes a millisecond: fewer of them do. */
const APART_RECORDS_MAX = 2_000;
const JSON_TYPE = { contentType: "application/json" };

export async function startDurableStreams(input: Input): Promise<Subject> {
  const server = await packageVersion("@durable-streams/server");
  const client = await packageVersion("@durable-streams/client");
  const peer = await startPeer({
    command: (folder) => [process.execPath, SERVER, folder],
    logsTo: "stdout",
    ready: /^ready (\S+)$/m,
  });
  const [, url = ""] = peer.announced;
  return {
    name: "Durable Streams",
    version: `${server} on Bun ${Bun.version}, ${client}`,
    durability:
      "fdatasynced in the stream's file, an append at a time; its metadata is repaired from that file",
    trials: trialsOf(input, url),
    pid: peer.pid,
    [Symbol.asyncDispose]: () => peer[Symbol.asyncDispose](),
  };
}

function trialsOf(input: Input, base: string): readonly Trial[] {
  const urlOf = (round: number) => `${base}/quakes-${round}`;
  const streams = roundStreams({
    create: (round) => createStream(urlOf(round)),
    fill: (round) => appendBatches(input, urlOf(round)),
    remove: (round) => DurableStream.delete({ url: urlOf(round) }),
  });
  const produce: Trial = {
    workload: "produce",
    path: `IdempotentProducer, flush() after ${BATCH_RECORDS}: a request; ${LANES} lanes, a producer each`,
    prepare: streams.renew,
    run: (round) => rateOf(input.values.length, () => streams.fill(round)),
  };
  const consume: Trial = {
    workload: "consume",
    path: "stream({ live: false }).json() from the beginning; it has no consumer groups and no acks",
    prepare: streams.ensureFilled,
    run: (round) => readAll(input, urlOf(round)),
  };
  const apart = singleTrial(input, base, {
    handles: SINGLE_CLIENTS,
    path: "a handle each: a request a record",
  });
  const together = singleTrial(input, base, { handles: 1, path: "one handle, which batches what waits" });
  return [produce, apart, together, consume];
}

function createStream(url: string): Promise<DurableStream> {
  return DurableStream.create({ url, ...JSON_TYPE });
}

async function appendBatches({ batches }: Input, url: string): Promise<void> {
  const lanes = Array.from({ length: LANES }, (_, lane) => laneTo(url, `lane-${lane}`));
  await inLanes(LANES, batches, async (batch, lane) => {
    await (lanes[lane] as Lane)(batch); // a lane is below LANES
  });
}

type Lane = (batch: readonly string[]) => Promise<void>;

/** flush() ends without an error where a request has failed; only onError hears of that. */
function laneTo(url: string, id: string): Lane {
  const errors: Error[] = [];
  const onError = (error: Error) => void errors.push(error);
  const producer = new IdempotentProducer(new DurableStream({ url, ...JSON_TYPE }), id, { onError });
  return async (batch) => {
    for (const value of batch) producer.append(value);
    await producer.flush();
    for (const error of errors) throw error;
  };
}

function singleTrial({ values, singles }: Input, base: string, of: { handles: number; path: string }): Trial {
  const urlOf = (round: number) => `${base}/singles-${of.handles}-${round}`;
  return {
    workload: "single",
    path: `append(), ${SINGLE_CLIENTS} producers on ${of.path}`,
    prepare: async (round) => void (await createStream(urlOf(round))),
    run: async (round) => {
      const url = urlOf(round);
      const handles = Array.from({ length: of.handles }, () => new DurableStream({ url, ...JSON_TYPE }));
      const append = (value: string, client: number) => {
        const handle = handles[client % of.handles] as DurableStream; // below the number of handles
        return handle.append(value);
      };
      const records = values.slice(0, of.handles === 1 ? singles : Math.min(singles, APART_RECORDS_MAX));
      const figures = await rateOf(records.length, () => inLanes(SINGLE_CLIENTS, records, append));
      await DurableStream.delete({ url });
      return figures;
    },
  };
}

async function readAll(input: Input, url: string) {
  const ids: string[] = [];
  const figures = await rateOf(input.values.length, async () => {
    const answer = await stream<Quake>({ url, live: false });
    for (const { id } of await answer.json()) ids.push(id);
  });
  checkReceived(ids, input);
  return figures;
}
