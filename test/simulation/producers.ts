// Who writes over HTTP and by SQL: with sequences, again and again until it is answered; on a condition; or once.

import type { Dice } from "../support/dice.ts";
import { type Batch, Batches, type ProducerOptions, pause, recordOutcome } from "./batches.ts";
import { type Answer, LOST } from "./server.ts";
import type { World } from "./world.ts";

const AT_ONCE_MAX = 5;
const COMES_WITH_OTHERS = 0.3;
const RETRY_MAX_MS = 1_000;
/** How often a producer that waits for an answer dies, and another run of it takes over. */
const DIES = 0.03;

/** Each is sent once: of what is not answered nobody knows. Now and then several at once, which one flush may hold. */
export async function producePlainly(world: World, { name, topic }: ProducerOptions): Promise<void> {
  const dice = world.dice.fork(name);
  const lanes = Array.from({ length: AT_ONCE_MAX }, (_, lane) => {
    const options = { name: `${name}.${lane}`, topic, isIdempotent: false };
    return new Batches(world, dice, options);
  });
  while (!world.isEnding) {
    await pause(world, dice);
    const atOnce = dice.isLucky(COMES_WITH_OTHERS) ? dice.between(2, AT_ONCE_MAX) : 1;
    await Promise.all(lanes.slice(0, atOnce).map((batches) => sendOnce(world, dice, { topic, batches })));
  }
}

async function sendOnce(
  world: World,
  dice: Dice,
  { topic, batches }: { readonly topic: string; readonly batches: Batches },
): Promise<void> {
  const { records, ...batch } = batches.next();
  const answer = await world.call(dice, "POST", `/v1/topics/${topic}/records`, { records });
  if (answer !== LOST) recordOutcome(world, { ...batch, topic }, answer.body);
}

/**
 * One after the other, each until it is answered by whoever. When it dies meanwhile, its next run fences what is still
 * on its way, and goes on in the next epoch.
 */
export async function produceInSequence(world: World, options: ProducerOptions): Promise<void> {
  const dice = world.dice.fork(options.name);
  const batches = new Batches(world, dice, { ...options, isIdempotent: true });
  const { name, topic } = options;
  let producer = { id: name, epoch: 0, sequence: 0 };
  while (!world.isEnding) {
    await pause(world, dice);
    const batch = batches.next();
    const answer = await sendUntilAnswered(world, dice, { topic, batch, producer });
    if (answer === LOST) producer = { ...producer, epoch: await nextEpoch(world, dice, name), sequence: 0 };
    else {
      recordOutcome(world, { ...batch, topic }, answer.body);
      producer = { ...producer, sequence: producer.sequence + 1 };
    }
  }
}

interface Sending {
  readonly topic: string;
  readonly batch: Batch;
  readonly producer: { readonly id: string; readonly epoch: number; readonly sequence: number };
}

/** LOST: it died first. */
async function sendUntilAnswered(
  world: World,
  dice: Dice,
  { topic, batch: { send, records }, producer }: Sending,
): Promise<Answer | typeof LOST> {
  for (;;) {
    const answer = await world.call(dice, "POST", `/v1/topics/${topic}/records`, { records, producer });
    if (answer !== LOST && answer.status === 200) return answer;
    // Of two askings for an epoch one came late: it has fenced who asked.
    if (answer !== LOST && answer.body.code === "fenced_producer") return LOST;
    if (answer !== LOST && !answer.body.retriable)
      throw new Error(`${send} was refused: ${JSON.stringify(answer.body)}`);
    if (world.isChaos && dice.isLucky(DIES)) return LOST;
    await world.time.sleep(dice.below(RETRY_MAX_MS));
  }
}

async function nextEpoch(world: World, dice: Dice, producerId: string): Promise<number> {
  for (;;) {
    const answer = await world.call(dice, "POST", `/v1/producers/${producerId}`);
    if (answer !== LOST && answer.status === 200) return Number(answer.body.epoch);
    await world.time.sleep(dice.below(RETRY_MAX_MS));
  }
}

/** Each at the end that it has seen, or not at all. */
export async function produceOnCondition(world: World, options: ProducerOptions): Promise<void> {
  const dice = world.dice.fork(options.name);
  const batches = new Batches(world, dice, { ...options, isIdempotent: false });
  const { topic } = options;
  while (!world.isEnding) {
    await pause(world, dice);
    const described = await world.call(dice, "GET", `/v1/topics/${topic}`);
    if (described === LOST || described.status !== 200) continue;
    const { logEndOffset } = described.body.partitions[0];
    const batch = batches.next();
    const answer = await world.call(dice, "POST", `/v1/topics/${topic}/records`, {
      records: batch.records.map((record) => ({ ...record, partition: 0 })),
      expect: [{ partition: 0, logEndOffset }],
    });
    if (answer === LOST) continue;
    if (answer.status === 200 && answer.body.runs[0].offset !== logEndOffset)
      throw new Error(`${batch.send} expected ${logEndOffset} and is at ${JSON.stringify(answer.body)}`);
    recordOutcome(world, { ...batch, topic }, answer.body);
  }
}

/** As the user's own program does that has the file open. */
export async function produceBySql(world: World, options: ProducerOptions): Promise<void> {
  const dice = world.dice.fork(options.name);
  const batches = new Batches(world, dice, { ...options, isIdempotent: false });
  while (!world.isEnding) {
    await pause(world, dice);
    if (world.database.isDown || world.database.isLocked) continue;
    const batch = batches.next();
    const code = appendBySql(world, options.topic, batch);
    if (code === undefined) world.record({ type: "sent", send: batch.send, runs: [] });
    else world.record({ type: "not-sent", send: batch.send, code });
  }
}

/** The code that a record without a key is refused with, where the topic is compacted. */
function appendBySql(world: World, topic: string, { records, lacksKeys }: Batch): string | undefined {
  const statements = records.map(({ key = null, value, headers }) => ({
    sql: "INSERT INTO append_record (topic, key, value, headers) VALUES (:topic, :key, :value, :headers)",
    args: { topic, key, value: JSON.stringify(value), headers: headers ? JSON.stringify(headers) : null },
  }));
  try {
    world.database.transaction(statements);
    return undefined;
  } catch (error) {
    if (
      lacksKeys &&
      error instanceof Error &&
      error.message.startsWith("bad_request: the topic is compacted")
    )
      return "bad_request";
    throw error;
  }
}
