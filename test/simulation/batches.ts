// What a producer of a simulation sends, and what becomes of it in the history.

import type { Dice } from "../support/dice.ts";
import type { World } from "./world.ts";

const PAUSE_MIN_MS = 20;
const PAUSE_MAX_MS = 3_000;
const BATCH_MAX = 20;
const KEYS = 10;

export interface ProducerOptions {
  readonly name: string;
  readonly topic: string;
}

export interface Batch {
  readonly send: string;
  readonly records: readonly { readonly value: string; readonly key?: string }[];
}

export class Batches {
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

export function pause(world: World, dice: Dice): Promise<void> {
  return world.time.sleep(dice.spread(PAUSE_MIN_MS, PAUSE_MAX_MS));
}

/** Nothing was written. */
const REFUSED = new Set(["unavailable", "storage_full", "unknown_topic", "conflict"]);

export interface Found {
  readonly runs?: readonly { readonly partition: number; readonly offset: number; readonly count: number }[];
  readonly code?: string;
}

export function recordOutcome(
  world: World,
  { send, topic }: { send: string; topic: string },
  found: Found,
): void {
  if (found.runs) world.record({ type: "sent", send, runs: found.runs.map((run) => ({ topic, ...run })) });
  else if (REFUSED.has(found.code ?? "")) world.record({ type: "not-sent", send, code: found.code ?? "" });
  else if (found.code !== "outcome_unknown") throw new Error(`${send}: ${JSON.stringify(found)}`);
}
