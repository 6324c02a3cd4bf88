// Who waits for which partition to grow. A wake-up carries no data: whoever is woken reads again from its position,
// so history and live are one path and it does not matter who appended.
//
// The server's own appends are told by `notify`. Appends by others are found by one query for all partitions that
// somebody waits for; while nobody waits nobody asks.

import type { Log, Scheduler } from "../core/ports.ts";
import type { Db } from "../store/db.ts";
import { readLogEnds } from "../store/records.ts";

const POLL_INTERVAL_MIN_MS = 10;
/** What another process has appended is seen within this time and two round trips to the database. */
const POLL_INTERVAL_MAX_MS = 50;

interface Waiter {
  readonly position: number;
  readonly wake: () => void;
}

export class WakeUps {
  readonly #db: Db;
  readonly #scheduler: Scheduler;
  readonly #log: Log;
  readonly #waitersByPartitionId = new Map<number, Set<Waiter>>();
  /** The highest log end that was told or found: a hint that a reader may have missed, never the truth. */
  readonly #logEndsByPartitionId = new Map<number, number>();
  #pollIntervalMs = POLL_INTERVAL_MIN_MS;
  #dataVersion: number | undefined;
  #cancelPoll: (() => void) | undefined;
  #isPolling = false;

  constructor(deps: { db: Db; scheduler: Scheduler; log: Log }) {
    this.#db = deps.db;
    this.#scheduler = deps.scheduler;
    this.#log = deps.log;
  }

  /** Wakes once, when the log end is above the position. The returned function gives up. */
  wait(partitionId: number, position: number, wake: () => void): () => void {
    // An append may have been told between the read that found nothing and this call.
    if ((this.#logEndsByPartitionId.get(partitionId) ?? 0) > position) return this.#wakeSoon(wake);
    const waiter = { position, wake };
    const waiters = this.#waitersByPartitionId.get(partitionId) ?? new Set();
    this.#waitersByPartitionId.set(partitionId, waiters.add(waiter));
    this.#dataVersion = undefined; // what was committed before this waiter came was not looked at for it
    this.#pollLater();
    return () => this.#forget(partitionId, waiter);
  }

  #wakeSoon(wake: () => void): () => void {
    let isWanted = true;
    this.#scheduler.soon(() => isWanted && wake());
    return () => {
      isWanted = false;
    };
  }

  notify(partitionId: number, logEndOffset: number): void {
    const known = this.#logEndsByPartitionId.get(partitionId) ?? 0;
    this.#logEndsByPartitionId.set(partitionId, Math.max(known, logEndOffset));
    for (const waiter of this.#waitersByPartitionId.get(partitionId) ?? []) {
      if (waiter.position >= logEndOffset) continue;
      this.#forget(partitionId, waiter);
      waiter.wake();
    }
  }

  /** Wakes all who wait at partitions that are gone: they read again and find it so. */
  notifyGone(partitionIds: readonly number[]): void {
    for (const partitionId of partitionIds) {
      this.#logEndsByPartitionId.delete(partitionId);
      for (const waiter of [...(this.#waitersByPartitionId.get(partitionId) ?? [])]) {
        this.#forget(partitionId, waiter);
        waiter.wake();
      }
    }
  }

  #forget(partitionId: number, waiter: Waiter): void {
    const waiters = this.#waitersByPartitionId.get(partitionId);
    waiters?.delete(waiter);
    if (waiters?.size === 0) this.#waitersByPartitionId.delete(partitionId);
    if (this.#waitersByPartitionId.size > 0) return;
    this.#cancelPoll?.();
    this.#cancelPoll = undefined;
  }

  #pollLater(): void {
    if (this.#isPolling || this.#cancelPoll) return;
    this.#cancelPoll = this.#scheduler.after(this.#pollIntervalMs, () => void this.#poll());
  }

  async #poll(): Promise<void> {
    this.#cancelPoll = undefined;
    this.#isPolling = true;
    const hasGrown = await this.#findGrown();
    this.#isPolling = false;
    this.#pollIntervalMs = hasGrown
      ? POLL_INTERVAL_MIN_MS
      : Math.min(this.#pollIntervalMs * 2, POLL_INTERVAL_MAX_MS);
    if (this.#waitersByPartitionId.size > 0) this.#pollLater();
  }

  async #findGrown(): Promise<boolean> {
    try {
      const version = await this.#db.dataVersion?.();
      if (version !== undefined && version === this.#dataVersion) return false;
      this.#dataVersion = version;
      const waitedFor = [...this.#waitersByPartitionId.keys()];
      const logEnds = await readLogEnds(this.#db, waitedFor);
      this.notifyGone(waitedFor.filter((partitionId) => !logEnds.has(partitionId)));
      const grown = [...logEnds].filter(([id, end]) => end > (this.#logEndsByPartitionId.get(id) ?? 0));
      for (const [partitionId, logEndOffset] of grown) this.notify(partitionId, logEndOffset);
      return grown.length > 0;
    } catch (error) {
      this.#log("poll failed", { message: String(error) });
      this.#dataVersion = undefined; // the next poll asks again
      return false;
    }
  }
}
