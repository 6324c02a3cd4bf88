// Choices by chance, all from one seed: the same seed makes the same frames.

import { seededRandom } from "../support/seeded-random.ts";

/** `SEED=… bun test test/fuzz` plays a run again. */
export function seedOfRun(): number {
  const given = process.env.SEED;
  return given === undefined ? Date.now() % 2 ** 32 : Number(given);
}

export class Dice {
  readonly #random: () => number;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  /** An integer from 0, below `end`. */
  below(end: number): number {
    return Math.floor(this.#random() * end);
  }

  /** True once in so many times. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  pick<T>(items: readonly [T, ...T[]] | readonly T[]): T {
    const picked = items[this.below(items.length)];
    if (picked === undefined) throw new RangeError("nothing to choose from");
    return picked;
  }

  /** Each is chosen as often as its weight says. */
  weighted<T>(items: readonly (readonly [weight: number, item: T])[]): T {
    let left = this.below(items.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, item] of items) {
      if (left < weight) return item;
      left -= weight;
    }
    throw new RangeError("nothing to choose from");
  }

  /** Some of the members of an object, none to all of them. */
  some<T extends object>(members: T): Partial<T> {
    return Object.fromEntries(Object.entries(members).filter(() => this.oneIn(2))) as Partial<T>; // entries of a T
  }
}
