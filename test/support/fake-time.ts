// Time that a test moves by hand. A turn of the event loop is a real one, so that whatever resolves in microtasks (an
// embedded database does) is done before the next; nothing here waits on a real clock.

import type { Chance, Scheduler } from "../../src/core/ports.ts";

/** A settled system is quiet in a handful of turns; one that is not after so many never will be. */
const TURNS_MAX = 100_000;
/** Polls and retries. They ask no other clock, and moving one in a database for each of them would cost a commit. */
const SHORT_DELAY_MS = 100;
const OTHER_CLOCK_BEHIND_MAX_MS = 1_000;

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
  /** Moves the clock of a database: before every timer that is not a short one, and whenever a test goes on. */
  readonly #onPassed: (passedMs: number) => Promise<void>;
  #untoldMs = 0;

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

  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.after(delayMs, resolve));
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
      this.#passTo(timer.dueAtMs);
      if (timer.delayMs > SHORT_DELAY_MS || this.#untoldMs >= OTHER_CLOCK_BEHIND_MAX_MS) await this.#tell();
      this.#timers.delete(timer);
      timer.run();
      await this.settle();
    }
    this.#passTo(untilMs);
    await this.#tell();
  }

  #nextTimer(untilMs: number): Timer | undefined {
    let next: Timer | undefined;
    for (const timer of this.#timers) {
      if (timer.dueAtMs <= untilMs && (!next || timer.dueAtMs < next.dueAtMs)) next = timer;
    }
    return next;
  }

  #passTo(momentMs: number): void {
    this.#untoldMs += momentMs - this.#nowMs;
    this.#nowMs = momentMs;
  }

  async #tell(): Promise<void> {
    const passedMs = this.#untoldMs;
    this.#untoldMs = 0;
    if (passedMs > 0) await this.#onPassed(passedMs);
  }
}

/** Chance without chance: every draw is the lowest unless told otherwise, ids are counted: `id-1`, `id-2`, … */
export function fakeChance(options: { random?: (() => number) | undefined; ids?: string } = {}): Chance {
  const { random = () => 0, ids = "id" } = options;
  let count = 0;
  return {
    random,
    newId: () => {
      count += 1;
      return `${ids}-${count}`;
    },
  };
}

export function turnOfTheLoop(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
