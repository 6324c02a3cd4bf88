// Gives the room that deleted rows have left in a file of our own back to the disk, a bounded step at a time. What is
// freed and soon used again stays: only what has been free for a while goes.

import type { Scheduler } from "../core/ports.ts";
import type { FileSpace } from "./db.ts";

/** For what is appended next. */
const KEPT_PAGES = 256;
const STEP_PAGES = 256;
export const FREE_FOR_MS = 5_000;

export class SpareSpace {
  readonly #space: FileSpace | undefined;
  readonly #scheduler: Scheduler;
  /** The fewest that were free since then. */
  #free: { readonly sinceMs: number; readonly pages: number } | undefined;

  constructor(space: FileSpace | undefined, scheduler: Scheduler) {
    this.#space = space;
    this.#scheduler = scheduler;
  }

  /** Before and after what deletes: the fewest pages in between are those that nobody has needed. */
  async look(): Promise<void> {
    const pages = (await this.#space?.freePages()) ?? 0;
    const before = this.#free ?? { sinceMs: this.#scheduler.nowMs(), pages };
    this.#free = pages > KEPT_PAGES ? { ...before, pages: Math.min(pages, before.pages) } : undefined;
  }

  /** There is some that may be given back later. */
  get isWaiting(): boolean {
    return this.#free !== undefined;
  }

  /** What there is to do now, one after the other. */
  *steps(): Generator<() => Promise<void>> {
    const space = this.#space;
    if (!space || !this.#free || this.#scheduler.nowMs() - this.#free.sinceMs < FREE_FOR_MS) return;
    for (let left = this.#free.pages - KEPT_PAGES; left > 0; left -= STEP_PAGES)
      yield () => space.giveBack(Math.min(left, STEP_PAGES));
    this.#free = undefined;
  }
}
