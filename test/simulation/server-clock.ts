// One server's time: it can stand still, as under SIGSTOP, runs a little faster or slower than the others', and ends
// with its process.

import type { Scheduler } from "../../src/core/ports.ts";
import type { FakeTime } from "../support/fake-time.ts";

export interface ClockError {
  readonly offsetMs: number;
  /** 1.01: it runs one percent fast. */
  readonly rate: number;
}

/** A timer never goes off before its moment, whatever the rates make of it. */
const ROUNDING_MS = 0.001;

export class ServerClock implements Scheduler {
  readonly #time: FakeTime;
  readonly #error: ClockError;
  /** What has come due while it stood still; undefined while it does not. */
  #missed: (() => void)[] | undefined;
  #isOver = false;

  constructor(time: FakeTime, error: ClockError) {
    this.#time = time;
    this.#error = error;
  }

  nowMs(): number {
    return this.#time.nowMs() * this.#error.rate + this.#error.offsetMs;
  }

  after(delayMs: number, run: () => void): () => void {
    let isWanted = true;
    const inMs = delayMs / this.#error.rate + ROUNDING_MS;
    const cancel = this.#time.after(inMs, () => this.#do(() => isWanted && run()));
    return () => {
      isWanted = false;
      cancel();
    };
  }

  soon(run: () => void): void {
    if (!this.#isOver) this.#time.soon(() => this.#do(run));
  }

  freeze(): void {
    this.#missed ??= [];
  }

  thaw(): void {
    const missed = this.#missed ?? [];
    this.#missed = undefined;
    for (const run of missed) this.#time.soon(() => this.#do(run));
  }

  /** As kill -9 does: nothing of it happens ever again. */
  end(): void {
    this.#isOver = true;
    this.#missed = undefined;
  }

  get isFrozen(): boolean {
    return this.#missed !== undefined;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  #do(run: () => void): void {
    if (this.#isOver) return;
    if (this.#missed) this.#missed.push(run);
    else run();
  }
}
