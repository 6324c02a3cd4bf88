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

export interface ProducedRecord {
  /** Null: a tombstone, which is known by its name. */
  readonly value: string | null;
  readonly key?: string;
  readonly headers?: { readonly name: string };
}

export interface Batch {
  readonly send: string;
  readonly records: readonly ProducedRecord[];
  /** A compacted topic does not take it. */
  readonly lacksKeys: boolean;
}

/** What the history calls a record that somebody was sent. */
export function nameOfRecord({ value, headers }: { value?: unknown; headers?: unknown }): string {
  if (value !== null) return String(value);
  return typeof headers === "object" && headers !== null && "name" in headers ? String(headers.name) : "null";
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
    const { keys } = this.#world;
    const named = Array.from({ length: this.#dice.spread(1, BATCH_MAX) }, () => {
      this.#values += 1;
      // Who has sequences could not go on after a refusal.
      const hasKey = isIdempotent || keys.isEverywhere || this.#dice.isLucky(0.7);
      const isTombstone = hasKey && this.#dice.isLucky(keys.tombstones);
      const key = hasKey ? `k${this.#dice.below(KEYS)}` : null;
      return { value: `${name}-${this.#values}`, key, isTombstone };
    });
    const send = `${name}#${this.#sends}`;
    this.#sends += 1;
    this.#world.record({
      type: "send",
      send,
      producer: name,
      isIdempotent,
      appends: [
        {
          topic,
          values: named.map(({ value }) => value),
          keys: named.map(({ key }) => key),
          tombstones: named.filter(({ isTombstone }) => isTombstone).map(({ value }) => value),
        },
      ],
    });
    const records = named.map(({ value, key, isTombstone }) => ({
      ...(isTombstone ? { value: null, headers: { name: value } } : { value }),
      ...(key !== null && { key }),
    }));
    return { send, records, lacksKeys: named.some(({ key }) => key === null) };
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
  { send, topic, lacksKeys }: { send: string; topic: string; lacksKeys: boolean },
  found: Found,
): void {
  const isKeyRefused = lacksKeys && found.code === "bad_request";
  if (found.runs) world.record({ type: "sent", send, runs: found.runs.map((run) => ({ topic, ...run })) });
  else if (isKeyRefused || REFUSED.has(found.code ?? ""))
    world.record({ type: "not-sent", send, code: found.code ?? "" });
  else if (found.code !== "outcome_unknown") throw new Error(`${send}: ${JSON.stringify(found)}`);
}
