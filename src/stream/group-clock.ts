// When something of a group is due: a lease that runs out, a deadline of a revocation. One clock a process, set by the
// database's: it finds what is due, whoever wrote it, and has it carried out.
//
// After an outage nobody could renew a lease, so nothing is held against anybody: before it looks at what is due, the
// clock has this process's own members renewed, and everybody's leases run for at least one more heartbeat.

import type { Log, Scheduler } from "../core/ports.ts";
import type { MembershipRef } from "../core/session/state.ts";
import type { Db } from "../store/db.ts";
import { readDue, renewAfterOutage } from "../store/leases.ts";
import type { WriteQueue } from "../store/write-queue.ts";

/** Lets a lease that is due be renewed before it is looked at. */
const SLACK_MS = 50;
/** What could not be read, or was found due and could not be carried out, is looked at again. */
const RETRY_MS = 1_000;
/** A look that comes so much later than it was to come: the process or its machine stood still. */
const STANDSTILL_MS = 2_000;

export interface GroupClockDeps {
  readonly db: Db;
  readonly queue: WriteQueue;
  readonly scheduler: Scheduler;
  readonly log: Log;
  readonly onDue: (groups: readonly string[]) => void;
  readonly ownMembers: () => readonly MembershipRef[];
  /** Of this server, where others share the database. */
  readonly processId: string | null;
}

export class GroupClock {
  readonly #deps: GroupClockDeps;
  #cancel: (() => void) | undefined;
  /** By the scheduler. */
  #dueAtMs = Number.POSITIVE_INFINITY;
  /** Both clocks at the last look. */
  #last: { readonly atMs: number; readonly databaseMs: number } | undefined;
  #isOutage = false;
  #isLooking = false;
  /** What was expected while it looked: written too late, perhaps, for that look to find it. */
  #expectedInMs: number | undefined;
  #isPaused = false;

  constructor(deps: GroupClockDeps) {
    this.#deps = deps;
  }

  /** Something is due that much later, at the earliest. */
  expectIn(ms: number): void {
    if (this.#isPaused) return;
    if (this.#isLooking) {
      this.#expectedInMs = Math.min(this.#expectedInMs ?? ms, ms);
      return;
    }
    const dueAtMs = this.#deps.scheduler.nowMs() + ms + SLACK_MS;
    if (dueAtMs >= this.#dueAtMs) return;
    this.#dueAtMs = dueAtMs;
    this.#cancel?.();
    this.#cancel = this.#deps.scheduler.after(ms + SLACK_MS, () => void this.look());
  }

  /** A write has failed: leases may be late through no fault of their members. */
  noteOutage(): void {
    this.#isOutage = true;
    this.expectIn(RETRY_MS);
  }

  /** False while leases may have run out through no fault of their members. */
  get mayExpire(): boolean {
    return !this.#isOutage && this.#deps.scheduler.nowMs() - this.#dueAtMs < STANDSTILL_MS;
  }

  async look(): Promise<void> {
    if (this.#isLooking || this.#isPaused) return;
    this.#isLooking = true;
    const nextInMs = await this.#carryOut().catch((error: unknown) => {
      this.#deps.log("leases could not be looked at", { message: String(error) });
      this.#isOutage = true;
      return RETRY_MS;
    });
    this.#isLooking = false;
    this.#dueAtMs = Number.POSITIVE_INFINITY;
    this.#cancel?.();
    this.#cancel = undefined;
    const expectedInMs = this.#expectedInMs;
    this.#expectedInMs = undefined;
    if (nextInMs !== undefined) this.expectIn(nextInMs);
    if (expectedInMs !== undefined) this.expectIn(expectedInMs);
  }

  /** Looks no more, until it is resumed. */
  pause(): void {
    this.#isPaused = true;
    this.#cancel?.();
    this.#cancel = undefined;
    this.#dueAtMs = Number.POSITIVE_INFINITY;
    this.#last = undefined;
  }

  resume(): void {
    this.#isPaused = false;
    void this.look();
  }

  /** Returns when to look next; undefined while there is nothing to wait for. */
  async #carryOut(): Promise<number | undefined> {
    const { db, queue, onDue, ownMembers, processId, log } = this.#deps;
    let due = await readDue(db);
    if (this.#isOutage || this.#stoodStill(due.nowMs)) {
      const own = ownMembers();
      await queue.submit(renewAfterOutage(own, processId));
      log("leases renewed after an outage", { own: own.length });
      this.#isOutage = false;
      due = await readDue(db);
    }
    this.#last = { atMs: this.#deps.scheduler.nowMs(), databaseMs: due.nowMs };
    if (due.groups.length === 0) return due.nextInMs;
    onDue(due.groups);
    return Math.min(due.nextInMs ?? RETRY_MS, RETRY_MS);
  }

  /** By the database's clock, which goes on while a machine sleeps. */
  #stoodStill(databaseMs: number): boolean {
    if (!this.#last || this.#dueAtMs === Number.POSITIVE_INFINITY) return false;
    const expectedMs = this.#last.databaseMs + (this.#dueAtMs - this.#last.atMs);
    return databaseMs - expectedMs > STANDSTILL_MS;
  }
}
