// Reads over HTTP: one chunk from a place, at once or when there is something. A long-poll waits as a subscription
// does, by WakeUps, and reads again; it ends with its time, its client or its server, whichever is first.

import { assumedOffset, type FetchPlace, placeInside } from "../core/places.ts";
import type { Scheduler } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import { INTEGER_MAX } from "../protocol/limits.ts";
import type { Db } from "../store/db.ts";
import type { Chunk } from "../store/records.ts";
import { findOffsetAt } from "../store/time-index.ts";
import { unknownTopic } from "../store/topics.ts";
import type { SharedReads } from "./shared-reads.ts";
import type { WakeUps } from "./wake-ups.ts";

export interface FetchRequest {
  readonly topic: string;
  readonly partitionId: number;
  readonly from: FetchPlace;
  readonly recordsMax: number;
  /** Of the records as they stand in the answer; a larger one comes alone where it is the first. */
  readonly bytesMax: number;
  readonly waitMs: number;
  /** Aborted when the client is gone. */
  readonly signal: AbortSignal;
}

/** `ended`: the client is gone or the server stops. */
type WaitOutcome = "grown" | "overdue" | "ended";

export class Fetches {
  readonly #db: Db;
  readonly #reads: SharedReads;
  readonly #wakeUps: WakeUps;
  readonly #scheduler: Scheduler;
  readonly #underWay = new Set<Promise<unknown>>();
  /** One for each that waits. */
  readonly #endings = new Set<() => void>();
  #isStopping = false;

  constructor(deps: { db: Db; reads: SharedReads; wakeUps: WakeUps; scheduler: Scheduler }) {
    this.#db = deps.db;
    this.#reads = deps.reads;
    this.#wakeUps = deps.wakeUps;
    this.#scheduler = deps.scheduler;
  }

  /**
   * Undefined where the partition is gone from the beginning; where it goes during the wait that ends at once, with
   * `unknown_topic`. Rejects with a DbError, or with `offset_out_of_range`. Commits nothing.
   */
  async fetch(request: FetchRequest): Promise<Chunk | undefined> {
    const fetching = this.#fetch(request);
    this.#underWay.add(fetching);
    try {
      return await fetching;
    } finally {
      this.#underWay.delete(fetching);
    }
  }

  /** Who waits is answered with what is there; resolves when nobody reads any more. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    for (const end of [...this.#endings]) end();
    await Promise.allSettled(this.#underWay);
  }

  async #fetch(request: FetchRequest): Promise<Chunk | undefined> {
    const overdueAtMs = this.#scheduler.nowMs() + request.waitMs;
    let position = await this.#locate(request);
    if (position === undefined) return undefined;
    for (let hasWaited = false; ; ) {
      const isLast = this.#scheduler.nowMs() >= overdueAtMs;
      const chunk = await this.#read(request, position);
      if (!chunk && hasWaited) throw unknownTopic(request.topic);
      if (!chunk) return undefined;
      const inside = placeInside(request.from, position, chunk);
      if (inside !== position) {
        position = inside; // the bounds were not known, or have moved
        continue;
      }
      if (chunk.next > position || isLast) return chunk;
      const outcome = await this.#waitUntilGrown(request, position, overdueAtMs);
      if (outcome === "ended") return chunk;
      hasWaited = true;
    }
  }

  async #locate({ partitionId, from }: FetchRequest): Promise<number | undefined> {
    return typeof from === "object" && "timestamp" in from
      ? findOffsetAt(this.#db, { partitionId, timestamp: from.timestamp })
      : assumedOffset(from);
  }

  async #read({ partitionId, recordsMax, bytesMax }: FetchRequest, from: number): Promise<Chunk | undefined> {
    const limits = { recordsMax, bytesMax, loneRecordBytesMax: INTEGER_MAX };
    try {
      return await this.#reads.read({ partitionId, from, ...limits });
    } catch (error) {
      if (error instanceof Problem && error.code === "unknown_partition") return undefined;
      throw error;
    }
  }

  #waitUntilGrown(
    { partitionId, signal }: FetchRequest,
    position: number,
    overdueAtMs: number,
  ): Promise<WaitOutcome> {
    if (signal.aborted || this.#isStopping) return Promise.resolve("ended");
    return new Promise((resolve) => {
      const settle = (outcome: WaitOutcome) => {
        stopWaiting();
        cancelTimer();
        this.#endings.delete(end);
        signal.removeEventListener("abort", end);
        resolve(outcome);
      };
      const end = () => settle("ended");
      // WakeUps looks at what was told since the read that found nothing: no wake-up is lost in between.
      const stopWaiting = this.#wakeUps.wait(partitionId, position, () => settle("grown"));
      const delayMs = Math.max(0, overdueAtMs - this.#scheduler.nowMs()); // the read took its time too
      const cancelTimer = this.#scheduler.after(delayMs, () => settle("overdue"));
      this.#endings.add(end);
      signal.addEventListener("abort", end);
    });
  }
}
