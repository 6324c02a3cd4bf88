// Owns `upkeep_lease`: which of the server processes on a shared database does the upkeep. Two that did it at once would
// do no harm, each step finds out for itself what there is to do; but they would do it twice.

import type { Scheduler } from "../core/ports.ts";
import type { Operation } from "./operations.ts";
import type { WriteQueue } from "./write-queue.ts";

/** A step and the rest after it are shorter, where the database answers. */
export const UPKEEP_LEASE_MS = 10_000;
const RENEW_AFTER_MS = UPKEEP_LEASE_MS / 3;

// One that is further ahead than any lease is from before the clock was set back.
const TAKE_LEASE = `
  INSERT INTO upkeep_lease (one, process_id, expires_at)
  SELECT 1, :process_id, now_ms + :lease_ms FROM clock WHERE true
  ON CONFLICT (one) DO UPDATE SET process_id = excluded.process_id, expires_at = excluded.expires_at
    WHERE upkeep_lease.process_id = excluded.process_id
       OR upkeep_lease.expires_at NOT BETWEEN excluded.expires_at - :lease_ms + 1 AND excluded.expires_at`;

const READ_HOLDER = "SELECT process_id FROM upkeep_lease";

const END_LEASE = "DELETE FROM upkeep_lease WHERE process_id = :process_id";

export interface UpkeepLeaseDeps {
  /** Null where no other server shares the database: then there is nothing to hold. */
  readonly processId: string | null;
  readonly queue: WriteQueue;
  readonly scheduler: Scheduler;
}

export class UpkeepLease {
  readonly #deps: UpkeepLeaseDeps;
  /** By the scheduler; undefined while it is not held. */
  #heldSinceMs: number | undefined;
  #tookMs = 0;

  constructor(deps: UpkeepLeaseDeps) {
    this.#deps = deps;
  }

  /** Takes it, or renews it when it is time to. False where another process has it. */
  async hold(): Promise<boolean> {
    const { processId, queue, scheduler } = this.#deps;
    if (processId === null) return true;
    const nowMs = scheduler.nowMs();
    if (this.#heldSinceMs !== undefined && nowMs - this.#heldSinceMs < RENEW_AFTER_MS) return true;
    const { isHeld, tookMs } = await queue.submit(takeLease(processId));
    this.#heldSinceMs = isHeld ? nowMs : undefined;
    this.#tookMs = tookMs;
    return isHeld;
  }

  /** The database, for next to nothing: the way there and back. 0 where it is a file of our own. */
  get tookMs(): number {
    return this.#tookMs;
  }

  async end(): Promise<void> {
    const { processId, queue } = this.#deps;
    if (processId === null || this.#heldSinceMs === undefined) return;
    this.#heldSinceMs = undefined;
    await queue.submit(endLease(processId));
  }
}

function takeLease(processId: string): Operation<{ readonly isHeld: boolean; readonly tookMs: number }> {
  return {
    statements: [
      { sql: TAKE_LEASE, args: { process_id: processId, lease_ms: UPKEEP_LEASE_MS } },
      { sql: READ_HOLDER },
    ],
    bytes: 0,
    isAlone: true,
    afterLostAnswer: "repeat",
    settle: (results, _isRepeated, tookMs) => ({
      isHeld: results.at(-1)?.[0]?.process_id === processId,
      tookMs,
    }),
  };
}

function endLease(processId: string): Operation<void> {
  return {
    statements: [{ sql: END_LEASE, args: { process_id: processId } }],
    bytes: 0,
    afterLostAnswer: "repeat",
    settle: () => undefined,
  };
}
