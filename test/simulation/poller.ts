// Who reads over HTTP, by long-polls, one partition from its beginning to its end; in the history a reader like others.

import type { PolledEvent } from "../proof/history.ts";
import type { Dice } from "../support/dice.ts";
import { nameOfRecord } from "./batches.ts";
import { LOST } from "./server.ts";
import type { World } from "./world.ts";

const WAIT_MAX_MS = 5_000;
const PAUSE_MAX_MS = 1_000;
const LIMIT_MAX = 50;

interface Fetched {
  readonly topicId: number;
  readonly records: readonly {
    readonly offset: number;
    readonly value: unknown;
    readonly headers?: unknown;
  }[];
  readonly next: number;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
}

/** For ever. Below the log start it begins anew, as another reader. */
export async function poll(world: World, { name, topic }: { name: string; topic: string }): Promise<void> {
  const dice = world.dice.fork(name);
  for (let reader = 1; ; reader += 1) await readOn(world, { dice, consumer: `${name}.${reader}`, topic });
}

async function readOn(
  world: World,
  { dice, consumer, topic }: { dice: Dice; consumer: string; topic: string },
): Promise<void> {
  const path = `/v1/topics/${topic}/partitions/0/records`;
  let next: number | undefined;
  for (;;) {
    await world.time.sleep(dice.below(PAUSE_MAX_MS));
    const where = `from=${next ?? "earliest"}&limit=${dice.between(1, LIMIT_MAX)}&waitMs=${dice.below(WAIT_MAX_MS)}`;
    const answer = await world.call(dice, "GET", `${path}?${where}`);
    if (answer === LOST) continue;
    if (answer.body.code === "offset_out_of_range") break;
    if (answer.status !== 200 && !answer.body.retriable)
      throw new Error(`${consumer}: ${answer.body.detail}`);
    if (answer.status !== 200) continue;
    if (next === undefined) begin(world, { consumer, topic, fetched: answer.body });
    world.record(polled({ consumer, topic, fetched: answer.body }));
    next = Number(answer.body.next);
  }
  world.record({ type: "ended", consumer });
}

interface FetchedBy {
  readonly consumer: string;
  readonly topic: string;
  readonly fetched: Fetched;
}

/** At what it was sent first: nobody else knows where the log started then. */
function begin(world: World, { consumer, topic, fetched }: FetchedBy): void {
  const { topicId, records, next, logStartOffset, logEndOffset } = fetched;
  const position = records[0]?.offset ?? next;
  world.record({ type: "subscribed", consumer, group: null, memberId: "", isCommittedAhead: false });
  const partition = { topic, topicId, partition: 0, generation: 0, position, committedOffset: null };
  world.record({ type: "assigned", consumer, partitions: [{ ...partition, logStartOffset, logEndOffset }] });
}

function polled({ consumer, topic, fetched: { records, next } }: FetchedBy): PolledEvent {
  return {
    type: "polled",
    consumer,
    topic,
    partition: 0,
    generation: 0,
    records: records.map((record) => ({ offset: record.offset, value: nameOfRecord(record) })),
    next,
  };
}
