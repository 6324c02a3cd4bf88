// Time that a test moves by hand. A turn of the event loop is a real one, so that whatever resolves in microtasks (an
// embedded database does) is done before the next; nothing here waits on a real clock.

import type { Chance, Scheduler } from "../../src/core/ports.ts";

/** A settled system is quiet in a handful of turns; one that is not after so many never will be. */
const TURNS_MAX = 100_000;

interface Timer {
  readonly dueAtMs: number;
  readonly delayMs: number;
  readonly run: () => void;
}

export class FakeTime implements Scheduler {
  #nowMs = 0;
  #turnsAhead = 0;
  /** In the order of their making. */
  readonly #timers = new Set<Timer>();
  /** Called with the time that has passed, before the timers of that moment: for a clock in the database. */
  readonly #onPassed: (passedMs: number) => Promise<void>;

  constructor(onPassed: (passedMs: number) => Promise<void> = async () => {}) {
    this.#onPassed = onPassed;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, run: () => void): () => void {
    const timer = { dueAtMs: this.#nowMs + delayMs, delayMs, run };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  soon(run: () => void): void {
    this.#turnsAhead += 1;
    setImmediate(() => {
      this.#turnsAhead -= 1;
      run();
    });
  }

  /** The delays of the timers that are set, in the order of their making. */
  get pendingDelaysMs(): readonly number[] {
    return [...this.#timers].map(({ delayMs }) => delayMs);
  }

  /** Resolves when nothing more happens without time passing. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < TURNS_MAX; turn += 1) {
      await turnOfTheLoop();
      if (this.#turnsAhead === 0) return;
    }
    throw new Error(`not settled after ${TURNS_MAX} turns`);
  }

  /** Lets time pass: each timer runs at its moment, and what it starts settles before the next. */
  async advance(byMs: number): Promise<void> {
    const untilMs = this.#nowMs + byMs;
    await this.settle();
    for (let timer = this.#nextTimer(untilMs); timer; timer = this.#nextTimer(untilMs)) {
      await this.#passTo(timer.dueAtMs);
      if (!this.#timers.delete(timer)) continue; // cancelled at the last moment
      timer.run();
      await this.settle();
    }
    await this.#passTo(untilMs);
  }

  #nextTimer(untilMs: number): Timer | undefined {
    let next: Timer | undefined;
    for (const timer of this.#timers) {
      if (timer.dueAtMs <= untilMs && (!next || timer.dueAtMs < next.dueAtMs)) next = timer;
    }
    return next;
  }

  async #passTo(momentMs: number): Promise<void> {
    const passedMs = momentMs - this.#nowMs;
    this.#nowMs = momentMs;
    if (passedMs > 0) await this.#onPassed(passedMs);
  }
}

/** Chance without chance: ids are counted, every draw is the lowest. */
export function fakeChance(random: () => number = () => 0): Chance {
  let ids = 0;
  return {
    random,
    newId: () => {
      ids += 1;
      return `id-${ids}`;
    },
  };
}

export function turnOfTheLoop(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
