// When something of a group is due: a lease that runs out, a deadline of a revocation. One clock a process, set by the
// database's: it finds what is due, whoever wrote it, and has it carried out.
//
// After an outage nobody could renew a lease, so nothing is held against anybody: before it looks at what is due, the
// clock has this process's own members renewed, and everybody else's leases run for one more heartbeat, once until they
// are renewed. The same where the process stood still, or the database's clock was set forward. Where it was set back,
// what was written before is shortened to what it would be now.

import type { Log, Scheduler } from "../core/ports.ts";
import type { MembershipRef } from "../core/session/state.ts";
import { PROCESS_LEASE_MS } from "../protocol/limits.ts";
import type { Db } from "../store/db.ts";
import { type Due, readDue, renewAfterOutage, shortenToClock } from "../store/leases.ts";
import type { WriteQueue } from "../store/write-queue.ts";

/** Lets a lease that is due be renewed before it is looked at. */
const SLACK_MS = 50;
/** What could not be read, or was found due and could not be carried out, is looked at again. */
const RETRY_MS = 1_000;
/** A look that comes so much later than it was to come, or a clock that goes so differently, says that time was lost. */
const STANDSTILL_MS = 2_000;
/** A clock that is set back would put off what is due for as long. */
const LOOK_EVERY_MS = 10_000;
/** Others renew their leases after an outage in less: a server without clients would not know of it. */
const TRUST_AFTER_MS = PROCESS_LEASE_MS / 4 + RETRY_MS;

export interface GroupClockDeps {
  readonly db: Db;
  readonly queue: WriteQueue;
  readonly scheduler: Scheduler;
  readonly log: Log;
  readonly onDue: (groups: readonly string[]) => void;
  readonly ownMembers: () => readonly MembershipRef[];
  /** Leases were renewed after an outage: what others did in it may not have been noticed. */
  readonly onOutageOver: () => void;
  /** Of this server, where others share the database. */
  readonly processId: string | null;
}

export class GroupClock {
  readonly #deps: GroupClockDeps;
  #cancel: (() => void) | undefined;
  /** By the scheduler. */
  #dueAtMs = Number.POSITIVE_INFINITY;
  /** Both clocks: the database's was read between these two moments. */
  #last: { readonly fromMs: number; readonly toMs: number; readonly databaseMs: number } | undefined;
  /** By the scheduler: until then no lease is held to be over. */
  #trustedFromMs = Number.NEGATIVE_INFINITY;
  /** How many were noted, and how many of them are over. */
  #outages = 0;
  #outagesOver = 0;
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
    this.#outages += 1;
    this.expectIn(RETRY_MS);
  }

  /**
   * False while leases may have run out through no fault of their members.
   * `databaseMs`: when they were read, by the database's clock.
   */
  mayExpire(databaseMs: number): boolean {
    const nowMs = this.#deps.scheduler.nowMs();
    if (this.#isOutage || nowMs < this.#trustedFromMs || nowMs - this.#dueAtMs >= STANDSTILL_MS) return false;
    if (this.#last && databaseMs - this.#last.databaseMs > nowMs - this.#last.fromMs + STANDSTILL_MS) {
      this.noteOutage();
      return false;
    }
    return true;
  }

  get #isOutage(): boolean {
    return this.#outages > this.#outagesOver;
  }

  async look(): Promise<void> {
    if (this.#isLooking || this.#isPaused) return;
    this.#isLooking = true;
    const nextInMs = await this.#carryOut().catch((error: unknown) => {
      this.#deps.log("leases could not be looked at", { message: String(error) });
      this.#outages += 1;
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
    const { scheduler, processId } = this.#deps;
    if (processId !== null) this.#trustedFromMs = scheduler.nowMs() + TRUST_AFTER_MS;
    void this.look();
  }

  /** Returns when to look next; undefined while there is nothing to wait for. */
  async #carryOut(): Promise<number | undefined> {
    const due = await this.#readDue();
    if (due.groups.length > 0) this.#deps.onDue(due.groups);
    if (due.nextInMs === undefined && due.groups.length === 0) return undefined;
    return Math.min(due.nextInMs ?? LOOK_EVERY_MS, due.groups.length > 0 ? RETRY_MS : LOOK_EVERY_MS);
  }

  /** After whatever has to be written first. */
  async #readDue(): Promise<Due> {
    const { db, queue, ownMembers, onOutageOver, processId, log } = this.#deps;
    const { due, isBack, isLate } = await this.#readBoth();
    if (isBack) {
      await queue.submit(shortenToClock());
      log("the database's clock was set back");
    }
    const isOutage = this.#isOutage || isLate;
    if (isOutage) {
      const noted = this.#outages; // what is noted from here on is another
      const own = ownMembers();
      await queue.submit(renewAfterOutage(own, processId));
      log("leases renewed after an outage", { own: own.length });
      this.#outagesOver = noted;
      onOutageOver();
    }
    return isBack || isOutage ? readDue(db) : due;
  }

  /**
   * What is due. `isBack`: the database's clock was set back since the last look. `isLate`: by that clock the look comes
   * long after it was to come; it goes on while a process or a machine stands still.
   */
  async #readBoth(): Promise<{ readonly due: Due; readonly isBack: boolean; readonly isLate: boolean }> {
    const { db, scheduler } = this.#deps;
    const fromMs = scheduler.nowMs();
    const due = await readDue(db);
    const before = this.#last;
    this.#last = { fromMs, toMs: scheduler.nowMs(), databaseMs: due.nowMs };
    if (!before) return { due, isBack: false, isLate: false };
    const passedMs = due.nowMs - before.databaseMs;
    const isBack = passedMs < fromMs - before.toMs - STANDSTILL_MS;
    const isLate = passedMs > this.#dueAtMs - before.fromMs + STANDSTILL_MS;
    return { due, isBack, isLate };
  }
}
