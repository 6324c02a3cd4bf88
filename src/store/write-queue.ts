// The only way to the disk: operations wait here and are written together, one transaction a flush.
//
// While a flush is being written the next one gathers, so the number of operations a commit grows with the load and
// no timer is needed. Results come in the order of submission, except that operations which are repeated because their
// answer was lost settle after their neighbours. An operation must not fail: its statements carry their own conditions
// and write nothing where these do not hold, so a refused operation leaves its neighbours alone. When a flush fails all
// the same, its operations are repeated one by one and only the guilty one is refused.

import type { Chance, Log, Scheduler } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import { PENDING_WRITE_BYTES_MAX, WRITE_DEADLINE_MS } from "../protocol/limits.ts";
import type { Append } from "./appends.ts";
import { type Db, DbError, problemOfDbError, type WriteOptions } from "./db.ts";
import {
  type AnyOperation,
  isRefused,
  logEndsAfterEach,
  partsOf,
  type Submitted,
  settle,
  settleAll,
} from "./operations.ts";

const FLUSH_OPERATIONS_MAX = 512;
/** About 10,000 records of 200 bytes: longer would hold the event loop too long. One larger operation goes alone. */
const FLUSH_BYTES_MAX = 2 * 1024 * 1024;
/** Turns of the event loop. A read of a chunk takes one: so many chunks of a consumer that catches up share a commit. */
const PATIENT_TURNS_MAX = 8;
const BUSY_RETRY_MIN_MS = 2;
const BUSY_RETRY_MAX_MS = 50;

interface Pending extends Submitted {
  readonly deadlineAtMs: number;
}

export class WriteQueue {
  readonly #db: Db;
  readonly #scheduler: Scheduler;
  readonly #chance: Chance;
  readonly #log: Log;
  readonly #isReading: () => boolean;
  #pending: Pending[] = [];
  #pendingBytes = 0;
  /** The first so many operations are written one by one: a flush of them has failed. */
  #suspects = 0;
  #lastOp = 0;
  #isRunning = false;
  #isClosed = false;
  #onIdle: (() => void)[] = [];

  /** `isReading`: chunks are being read; without it nothing ever is. */
  constructor(deps: { db: Db; scheduler: Scheduler; chance: Chance; log: Log; isReading?: () => boolean }) {
    this.#db = deps.db;
    this.#scheduler = deps.scheduler;
    this.#chance = deps.chance;
    this.#log = deps.log;
    this.#isReading = deps.isReading ?? (() => false);
  }

  /** Resolves when the operation is durable. Rejects with a Problem; only `outcome_unknown` may have been written. */
  submit<T>(operation: AnyOperation<T>): Promise<T> {
    if (this.#isClosed) return Promise.reject(new Problem("unavailable", "The server is stopping"));
    if (this.#pendingBytes + operation.bytes > PENDING_WRITE_BYTES_MAX)
      return Promise.reject(this.#tooMuchPending());
    return new Promise<T>((resolve, reject) => {
      const deadlineAtMs = this.#scheduler.nowMs() + WRITE_DEADLINE_MS;
      // The value that reaches `resolve` is what this operation's own `settle` returned.
      const settle = { resolve: resolve as (value: unknown) => void, reject };
      this.#pending.push({ operation, deadlineAtMs, isWritten: false, ...settle });
      this.#pendingBytes += operation.bytes;
      this.#start();
    });
  }

  /** For an operation's row in `guard`: no two of this queue have the same, so none in a flush have. */
  nextOp(): number {
    this.#lastOp += 1;
    return this.#lastOp;
  }

  /** Takes nothing new; resolves when all that was taken is settled. */
  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.#isRunning) await new Promise<void>((resolve) => this.#onIdle.push(resolve));
  }

  #start(): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#scheduler.soon(() => void this.#run());
  }

  async #run(): Promise<void> {
    for (;;) {
      for (let turn = 1; turn < PATIENT_TURNS_MAX && this.#mayWait(); turn += 1) await this.#pause(0);
      this.#refuseOverdue();
      const flush = this.#nextFlush();
      if (flush.length === 0) break;
      const retryAfterMs = await this.#write(flush);
      // A turn between two flushes lets in the requests that have arrived while this one was written.
      if (this.#pending.length > 0) await this.#pause(retryAfterMs);
    }
    this.#isRunning = false;
    for (const resolve of this.#onIdle.splice(0)) resolve();
  }

  /** A commit holds up the event loop until it is on disk: as long as the read of a chunk. */
  #mayWait(): boolean {
    return this.#isReading() && this.#pending.every(({ operation }) => operation.isPatient);
  }

  /** Returns how long to wait before the next flush. */
  async #write(flush: readonly Pending[]): Promise<number> {
    try {
      const parts = partsOf(flush);
      const statements = parts.flatMap((part) => part.statements);
      const fromMs = this.#scheduler.nowMs();
      const results = await this.#db.write(statements, this.#optionsFor(flush));
      this.#take(flush.length);
      settleAll(parts, results, this.#scheduler.nowMs() - fromMs);
      return 0;
    } catch (error) {
      return this.#recover(flush, error);
    }
  }

  #optionsFor(flush: readonly Pending[]): WriteOptions {
    const [oldest] = flush;
    const partitionIds = flush.flatMap(({ operation }) => operation.appends ?? []).map(partitionIdOf);
    return {
      appendedTo: [...new Set(partitionIds)],
      leavesGuard: flush.some(({ operation }) => operation.op !== undefined),
      withinMs: oldest ? oldest.deadlineAtMs - this.#scheduler.nowMs() : WRITE_DEADLINE_MS,
    };
  }

  /** The first so many are settled, or about to be. */
  #take(count: number): readonly Pending[] {
    this.#suspects = Math.max(0, this.#suspects - count);
    const taken = this.#pending.splice(0, count);
    for (const { operation } of taken) this.#pendingBytes -= operation.bytes;
    return taken;
  }

  #recover(flush: readonly Pending[], error: unknown): number {
    const failure = error instanceof DbError ? error : new DbError("unknown", String(error), error);
    if (failure.failure === "busy") {
      return BUSY_RETRY_MIN_MS + this.#chance.random() * (BUSY_RETRY_MAX_MS - BUSY_RETRY_MIN_MS);
    }
    this.#log("write failed", {
      failure: failure.failure,
      message: failure.message,
      operations: flush.length,
    });
    if (failure.failure === "unanswered") this.#settleUnanswered(flush.length, failure);
    else if (flush.length > 1 && failure.failure !== "unknown") this.#suspects = flush.length;
    else this.#refuse(flush.length, problemOfDbError(failure));
    return 0;
  }

  /** They are written. Those that can be repeated are, before all others; the others go by what is known. */
  #settleUnanswered(count: number, failure: DbError): void {
    const taken = this.#take(count);
    const logEnds = logEndsAfterEach(taken, failure.left);
    const repeated: Pending[] = [];
    for (const [index, pending] of taken.entries()) {
      const { operation } = pending;
      // Not repeated: what came behind it is written, and it may hold after that.
      if (isRefused(pending.operation, failure.left)) pending.reject(refusalIsLost());
      else if (operation.statements && operation.afterLostAnswer === "repeat")
        repeated.push({ ...pending, isWritten: true });
      else
        settle(pending, () => {
          const byLogEnds = operation.statements ? operation.afterLostAnswer : operation.settle;
          if (typeof byLogEnds !== "function") throw problemOfDbError(failure);
          return byLogEnds(logEnds[index] ?? new Map());
        });
    }
    this.#pending.unshift(...repeated);
    for (const { operation } of repeated) this.#pendingBytes += operation.bytes;
  }

  #nextFlush(): readonly Pending[] {
    const operationsMax = this.#suspects > 0 ? 1 : FLUSH_OPERATIONS_MAX;
    let bytes = 0;
    let count = 0;
    for (const { operation } of this.#pending) {
      bytes += operation.bytes;
      const isFull = count === operationsMax || bytes > FLUSH_BYTES_MAX || operation.isAlone;
      if (count > 0 && isFull) break;
      count += 1;
      if (operation.isAlone) break;
    }
    return this.#pending.slice(0, count);
  }

  /** The oldest come first, so those past their deadline do too. */
  #refuseOverdue(): void {
    const nowMs = this.#scheduler.nowMs();
    const firstInTime = this.#pending.findIndex(({ deadlineAtMs }) => deadlineAtMs > nowMs);
    const overdue = firstInTime === -1 ? this.#pending.length : firstInTime;
    if (overdue > 0) this.#refuse(overdue, overdueProblem());
  }

  #refuse(count: number, problem: Problem): void {
    for (const { isWritten, reject } of this.#take(count)) reject(isWritten ? answerIsLost() : problem);
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      if (delayMs > 0) this.#scheduler.after(delayMs, resolve);
      else this.#scheduler.soon(resolve);
    });
  }

  #tooMuchPending(): Problem {
    return new Problem(
      "unavailable",
      `${this.#pendingBytes} bytes of writes are waiting for the disk, at most ${PENDING_WRITE_BYTES_MAX} may`,
    );
  }
}

function partitionIdOf({ partitionId }: Append): number {
  return partitionId;
}

function answerIsLost(): Problem {
  return problemOfDbError(new DbError("unanswered", "the answer of a write was lost"));
}

function refusalIsLost(): Problem {
  return new Problem("unavailable", "The answer of the database is lost: nothing of this was written");
}

function overdueProblem(): Problem {
  return new Problem(
    "unavailable",
    `The write waited ${WRITE_DEADLINE_MS} ms for the database's write lock; nothing was written`,
  );
}
