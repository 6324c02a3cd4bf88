// Owns `purges`: deletes what deleted topics have left, in the background and in bounded steps.
//
// A step is an operation of the write queue like any other, and the next one is submitted when it is done: whatever
// others have submitted in the meantime goes first. What is still to be done is in the table, so a process that starts
// goes on where another was killed.

import type { Log, Scheduler } from "../core/ports.ts";
import { INTEGER_MAX } from "../protocol/limits.ts";
import type { Db } from "./db.ts";
import type { Operation } from "./operations.ts";
import { FIRST_RECORDS, STEP_LIMITS, STEP_RECORDS_MAX } from "./trims.ts";
import type { WriteQueue } from "./write-queue.ts";

/** After a failure: the database is busy, or has no room. */
const RETRY_AFTER_MS = 5_000;

const NEXT_PURGE = "SELECT min(partition_id) AS partition_id FROM purges";

const IS_TO_BE_PURGED = "EXISTS (SELECT 1 FROM purges WHERE partition_id = :partition_id)";

const DELETE_RECORDS = `
  DELETE FROM records
  WHERE partition_id = :partition_id AND ${IS_TO_BE_PURGED}
    AND offset <= (SELECT max(offset) FROM (${FIRST_RECORDS}) WHERE NOT is_left)`;

const DELETE_TIMES = `
  DELETE FROM time_index
  WHERE partition_id = :partition_id AND ${IS_TO_BE_PURGED}
    AND offset <= (SELECT max(offset) FROM (
      SELECT offset FROM time_index WHERE partition_id = :partition_id ORDER BY offset LIMIT :records_max))`;

const END_PURGE = `
  DELETE FROM purges
  WHERE partition_id = :partition_id
    AND NOT EXISTS (SELECT 1 FROM records WHERE partition_id = :partition_id)
    AND NOT EXISTS (SELECT 1 FROM time_index WHERE partition_id = :partition_id)`;

export class Purges {
  readonly #db: Db;
  readonly #queue: WriteQueue;
  readonly #scheduler: Scheduler;
  readonly #log: Log;
  /** Something may be in the table that has not been looked at. */
  #isWanted = false;
  #isStopped = false;
  #running: Promise<void> | undefined;
  #cancelRetry: (() => void) | undefined;

  constructor(deps: { db: Db; queue: WriteQueue; scheduler: Scheduler; log: Log }) {
    this.#db = deps.db;
    this.#queue = deps.queue;
    this.#scheduler = deps.scheduler;
    this.#log = deps.log;
  }

  /** Goes on until nothing is left to purge. At the start of a server, and when a topic has been deleted. */
  wake(): void {
    this.#isWanted = true;
    if (this.#isStopped || this.#running) return;
    this.#cancelRetry?.();
    this.#running = this.#run();
  }

  /** Resolves when no step is under way any more; the rest is for the next start. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancelRetry?.();
    await this.#running;
  }

  async #run(): Promise<void> {
    try {
      while (this.#isWanted && !this.#isStopped) await this.#step();
    } catch (error) {
      this.#log("purge failed", { message: String(error) });
      this.#retryLater();
    } finally {
      this.#running = undefined;
    }
  }

  async #step(): Promise<void> {
    this.#isWanted = false; // before the look: whoever wakes during it is not overlooked
    const partitionId = await findNextPurge(this.#db);
    if (partitionId === undefined) return;
    this.#isWanted = true;
    if (!this.#isStopped) await this.#queue.submit(purgeStep(partitionId));
  }

  #retryLater(): void {
    if (!this.#isStopped) this.#cancelRetry = this.#scheduler.after(RETRY_AFTER_MS, () => this.wake());
  }
}

async function findNextPurge(db: Db): Promise<number | undefined> {
  const [row] = await db.read({ sql: NEXT_PURGE });
  return typeof row?.partition_id === "number" ? row.partition_id : undefined;
}

/** Deletes nothing of a partition that is not to be purged, and its row in `purges` with the last that is left. */
function purgeStep(partitionId: number): Operation<void> {
  const args = { partition_id: partitionId };
  return {
    statements: [
      { sql: DELETE_RECORDS, args: { ...args, ...STEP_LIMITS, before: INTEGER_MAX } },
      { sql: DELETE_TIMES, args: { ...args, records_max: STEP_RECORDS_MAX } },
      { sql: END_PURGE, args },
    ],
    bytes: 0,
    afterLostAnswer: "repeat",
    settle: () => undefined,
  };
}
