// Who writes to the log: over HTTP, over a socket, by SQL; with sequences, again and again until it is answered, or
// without, once.

import type { Dice } from "../support/dice.ts";
import { type Answer, LOST } from "./server.ts";
import type { SimulatedSocket } from "./socket.ts";
import type { World } from "./world.ts";

const PAUSE_MIN_MS = 20;
const PAUSE_MAX_MS = 3_000;
const RETRY_MAX_MS = 1_000;
const BATCH_MAX = 20;
const KEYS = 10;

export interface ProducerOptions {
  readonly name: string;
  readonly topic: string;
}

interface Batch {
  readonly send: string;
  readonly records: readonly { readonly value: string; readonly key?: string }[];
}

class Batches {
  readonly #world: World;
  readonly #dice: Dice;
  readonly #options: ProducerOptions & { readonly isIdempotent: boolean };
  #sends = 0;
  #values = 0;

  constructor(world: World, dice: Dice, options: ProducerOptions & { isIdempotent: boolean }) {
    this.#world = world;
    this.#dice = dice;
    this.#options = options;
  }

  next(): Batch {
    const { name, topic, isIdempotent } = this.#options;
    const records = Array.from({ length: this.#dice.spread(1, BATCH_MAX) }, () => {
      this.#values += 1;
      const key = this.#dice.isLucky(0.7) ? { key: `k${this.#dice.below(KEYS)}` } : {};
      return { value: `${name}-${this.#values}`, ...key };
    });
    const send = `${name}#${this.#sends}`;
    this.#sends += 1;
    const values = records.map(({ value }) => value);
    this.#world.record({
      type: "send",
      send,
      producer: name,
      isIdempotent,
      appends: [{ topic, values }],
    });
    return { send, records };
  }
}

function pause(world: World, dice: Dice): Promise<void> {
  return world.time.sleep(dice.spread(PAUSE_MIN_MS, PAUSE_MAX_MS));
}

/** Refused, and nothing was written. */
const REFUSED = new Set(["unavailable", "storage_full", "unknown_topic"]);

interface Found {
  readonly runs?: readonly { readonly partition: number; readonly offset: number; readonly count: number }[];
  readonly code?: string;
}

function recordOutcome(world: World, { send, topic }: { send: string; topic: string }, found: Found): void {
  if (found.runs) world.record({ type: "sent", send, runs: found.runs.map((run) => ({ topic, ...run })) });
  else if (REFUSED.has(found.code ?? "")) world.record({ type: "not-sent", send, code: found.code ?? "" });
  else if (found.code !== "outcome_unknown") throw new Error(`${send}: ${JSON.stringify(found)}`);
}

/** Each is sent once: of what is not answered nobody knows. */
export async function producePlainly(world: World, options: ProducerOptions): Promise<void> {
  const dice = world.dice.fork(options.name);
  const batches = new Batches(world, dice, { ...options, isIdempotent: false });
  const { topic } = options;
  while (!world.isEnding) {
    await pause(world, dice);
    const { send, records } = batches.next();
    const answer = await world.call(dice, "POST", `/v1/topics/${topic}/records`, { records });
    if (answer !== LOST) recordOutcome(world, { send, topic }, answer.body);
  }
}

/** One after the other, each until it is answered by whoever. */
export async function produceInSequence(world: World, options: ProducerOptions): Promise<void> {
  const dice = world.dice.fork(options.name);
  const batches = new Batches(world, dice, { ...options, isIdempotent: true });
  const { name, topic } = options;
  for (let sequence = 0; !world.isEnding; sequence += 1) {
    await pause(world, dice);
    const { send, records } = batches.next();
    const body = { records, producer: { id: name, epoch: 0, sequence } };
    let answer: Answer | typeof LOST = LOST;
    while (answer === LOST || answer.status !== 200) {
      if (answer !== LOST && !answer.body.retriable)
        throw new Error(`${send} was refused: ${JSON.stringify(answer.body)}`);
      await world.time.sleep(dice.below(RETRY_MAX_MS));
      answer = await world.call(dice, "POST", `/v1/topics/${topic}/records`, body);
    }
    recordOutcome(world, { send, topic }, answer.body);
  }
}

/** Several under way on one socket; after any trouble all that is unanswered goes again, on another. */
export class SocketProducer {
  readonly #world: World;
  readonly #dice: Dice;
  readonly #options: ProducerOptions;
  readonly #batches: Batches;
  readonly #inFlightMax: number;
  /** In order. */
  #unanswered: (Batch & { readonly sequence: number })[] = [];
  #sequence = 0;
  #socket: SimulatedSocket | undefined;

  constructor(world: World, options: ProducerOptions) {
    this.#world = world;
    this.#options = options;
    this.#dice = world.dice.fork(options.name);
    this.#batches = new Batches(world, this.#dice, { ...options, isIdempotent: true });
    this.#inFlightMax = this.#dice.between(1, 6);
  }

  async run(): Promise<void> {
    while (!this.#world.isEnding || this.#unanswered.length > 0) {
      await pause(this.#world, this.#dice);
      if (!this.#socket?.isOpen) await this.#connect();
      if (this.#unanswered.length < this.#inFlightMax && !this.#world.isEnding) this.#sendNext();
    }
    this.#socket?.hangUp();
  }

  #sendNext(): void {
    const batch = { ...this.#batches.next(), sequence: this.#sequence };
    this.#sequence += 1;
    this.#unanswered.push(batch);
    this.#send(batch);
  }

  #send({ sequence, records }: Batch & { readonly sequence: number }): void {
    const { name, topic } = this.#options;
    const producer = { id: name, epoch: 0, sequence };
    this.#socket?.send({ type: "produce", id: sequence, topic, records, producer });
  }

  async #connect(): Promise<void> {
    this.#socket = await this.#world.pickServer(this.#dice)?.connect({
      onClose: () => {},
      onFrame: (frame) => {
        if (frame.type === "produced") this.#settle(Number(frame.id), frame);
        if (frame.type === "error") this.#trouble(frame);
        if (frame.type === "draining") this.#socket?.hangUp();
        if (frame.type === "ping") this.#socket?.send({ type: "pong" });
      },
    });
    for (const batch of this.#unanswered) this.#send(batch);
  }

  #settle(sequence: number, found: Found): void {
    const batch = this.#unanswered.find((each) => each.sequence === sequence);
    this.#unanswered = this.#unanswered.filter((each) => each.sequence !== sequence);
    if (batch) recordOutcome(this.#world, { send: batch.send, topic: this.#options.topic }, found);
  }

  /** A gap is the trouble of the one before it. */
  #trouble({ code, retriable, message }: { code: string; retriable: boolean; message: string }): void {
    if (!retriable && code !== "sequence_gap") throw new Error(`${this.#options.name}: ${code}: ${message}`);
    this.#socket?.hangUp();
  }
}

/** As the user's own program does that has the file open. */
export async function produceBySql(world: World, options: ProducerOptions): Promise<void> {
  const dice = world.dice.fork(options.name);
  const batches = new Batches(world, dice, { ...options, isIdempotent: false });
  while (!world.isEnding) {
    await pause(world, dice);
    if (world.database.isDown || world.database.isLocked) continue;
    const { send, records } = batches.next();
    world.database.transaction(
      records.map(({ key = null, value }) => ({
        sql: "INSERT INTO append_record (topic, key, value) VALUES (:topic, :key, json_quote(:value))",
        args: { topic: options.topic, key, value },
      })),
    );
    world.record({ type: "sent", send, runs: [] });
  }
}
