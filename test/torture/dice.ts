// Chance with a seed. What real processes make of it differs from run to run; what is done to them does not.

import { seededRandom } from "../support/seeded-random.ts";

export class Dice {
  readonly #random: () => number;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  /** `share` of all throws, from 0 to 1. */
  says(share: number): boolean {
    return this.#random() < share;
  }

  /** A whole number from `min` to `max`, both included. */
  between(min: number, max: number): number {
    return min + Math.floor(this.#random() * (max - min + 1));
  }

  pick<T>(list: readonly T[]): T | undefined {
    return list[this.between(0, list.length - 1)];
  }
}
