// A timer for what may be hours away, in a Durable Object. A timer in memory would keep the object there, and be lost with
// it; an alarm is kept by the platform, which brings the object back.

import type { Scheduler } from "../core/ports.ts";

/** Below, a timer in memory: an object without anybody is not put away so soon, and an alarm is written to its storage. */
export const ALARM_FROM_MS = 10_000;

export interface AlarmStorage {
  /** `atMs`: ms since 1970. There is one alarm: it takes the place of the one before. */
  setAlarm(atMs: number): Promise<void>;
}

/** One run at a time. */
export class ObjectAlarm implements Pick<Scheduler, "after"> {
  readonly #storage: AlarmStorage;
  readonly #scheduler: Scheduler;
  readonly #onFailure: (error: unknown) => void;
  #run: (() => void) | undefined;

  constructor(storage: AlarmStorage, scheduler: Scheduler, onFailure: (error: unknown) => void) {
    this.#storage = storage;
    this.#scheduler = scheduler;
    this.#onFailure = onFailure;
  }

  after(delayMs: number, run: () => void): () => void {
    if (delayMs < ALARM_FROM_MS) return this.#scheduler.after(delayMs, run);
    this.#run = run;
    this.#storage.setAlarm(Date.now() + delayMs).catch(this.#onFailure);
    return () => {
      if (this.#run === run) this.#run = undefined; // the alarm rings for nothing
    };
  }

  /** An object that was put away in between finds nothing to run here, and looks for itself as it starts. */
  ring(): void {
    const run = this.#run;
    this.#run = undefined;
    run?.();
  }
}
