// Reads one partition over HTTP by long-polls, from whichever server answers: a reader of the history without a socket.

import * as v from "valibot";
import type { Load } from "./load.ts";

export interface PolledPartition {
  readonly topic: string;
  readonly partition: number;
}

const WAIT_MS = 500;
const PATIENCE_MS = 3_000;
const RETRY_MS = 20;
/** Of what owns nothing. */
const GENERATION = 0;

const Answer = v.object({
  topicId: v.number(),
  records: v.array(v.object({ offset: v.number(), value: v.string() })),
  next: v.number(),
  logStartOffset: v.number(),
  logEndOffset: v.number(),
});

export async function pollPartition(load: Load, name: string, place: PolledPartition): Promise<void> {
  while (load.isConsuming) {
    const consumer = load.recorder.name(name);
    await pollFromBeginning(load, consumer, place);
    load.recorder.write({ type: "ended", consumer });
  }
}

/** Until its place is trimmed. */
async function pollFromBeginning(load: Load, consumer: string, place: PolledPartition): Promise<void> {
  let next: number | undefined;
  while (load.isConsuming) {
    const answer = await read(load, place, next ?? "earliest");
    await load.recorder.opened();
    if (answer === "trimmed") return;
    if (answer === undefined) {
      await Bun.sleep(RETRY_MS); // as a client would: there is nothing to wait for
      continue;
    }
    const { records, topicId, logStartOffset, logEndOffset } = answer;
    if (next === undefined) {
      const position = logStartOffset;
      load.recorder.write({
        type: "subscribed",
        consumer,
        group: null,
        memberId: "",
        isCommittedAhead: false,
      });
      const bounds = { position, committedOffset: null, logStartOffset, logEndOffset };
      const partitions = [{ ...place, topicId, generation: GENERATION, ...bounds }];
      load.recorder.write({ type: "assigned", consumer, partitions });
    }
    next = answer.next;
    load.recorder.write({ type: "polled", consumer, ...place, generation: GENERATION, records, next });
    load.tally.recordsRead += records.length;
  }
}

async function read(
  load: Load,
  { topic, partition }: PolledPartition,
  from: number | "earliest",
): Promise<v.InferOutput<typeof Answer> | "trimmed" | undefined> {
  const { url } = await load.stage.pick();
  const path = `/v1/topics/${topic}/partitions/${partition}/records?from=${from}&waitMs=${WAIT_MS}`;
  try {
    const response = await fetch(url + path, { keepalive: false, signal: AbortSignal.timeout(PATIENCE_MS) });
    const answer = JSON.parse(await response.text());
    if (response.status === 416) return "trimmed";
    if (response.ok) return v.parse(Answer, answer);
    if (response.status < 500) load.problems.push(`a poll was answered ${JSON.stringify(answer)}`);
    return undefined;
  } catch (error) {
    if (error instanceof v.ValiError) load.problems.push(`a poll was answered ${error.message}`);
    return undefined;
  }
}
