// Choices by chance, all from one seed: the same seed makes the same choices.

import { seededRandom } from "./seeded-random.ts";

export class Dice {
  readonly #random: () => number;
  readonly #seed: number;

  constructor(seed: number) {
    this.#seed = seed;
    this.#random = seededRandom(seed);
  }

  /** Dice of their own for whoever has this name: how often they are thrown changes nobody else's. */
  fork(name: string): Dice {
    let hash = this.#seed;
    for (const character of name) hash = Math.imul(hash ^ character.charCodeAt(0), 0x01000193);
    return new Dice(hash);
  }

  /** From 0 up to 1. */
  random(): number {
    return this.#random();
  }

  isLucky(probability: number): boolean {
    return this.#random() < probability;
  }

  /** An integer from 0, below `end`. */
  below(end: number): number {
    return Math.floor(this.#random() * end);
  }

  /** An integer, both ends included. */
  between(min: number, max: number): number {
    return min + this.below(max - min + 1);
  }

  /** Small ones as often as large ones: every power of ten between has the same chance. */
  spread(min: number, max: number): number {
    return Math.round(min * (max / min) ** this.#random());
  }

  /** True once in so many times. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  pick<T>(items: readonly T[]): T {
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
