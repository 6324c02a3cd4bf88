// Keeps the database in order, in the background: deletes what deleted topics have left and what topics no longer keep,
// compacts, lets expire what nobody uses, and gives the room back. What there is to do is found in the tables, so a
// process that starts goes on where another was killed.
//
// It is done by bounded steps, each an operation of the write queue like any other, and after each it rests for several
// times as long as the database took for it: whoever produces has the rest of the time. On a shared database one server
// works at a time, by a lease; to look takes none.

import type { Log, Scheduler } from "../core/ports.ts";
import { compactStep, findCompactable, findOutdated, forgetStep } from "./compaction.ts";
import type { Db } from "./db.ts";
import { expireGroup, expireProducers, hasProducers, walkGroups, walkProducers } from "./expiry.ts";
import type { Operation } from "./operations.ts";
import { findPurges, purgeStep } from "./purges.ts";
import { findRetainable, hasToNote, noteLogEnds, readWaiting, retainStep } from "./retention.ts";
import { FREE_FOR_MS, SpareSpace } from "./spare-space.ts";
import type { StepOf } from "./trims.ts";
import { UPKEEP_LEASE_MS, UpkeepLease } from "./upkeep-lease.ts";
import { FIRST_RECORDS, FOUND_MAX, nextRecords, type StepOutcome } from "./upkeep-steps.ts";
import type { WriteQueue } from "./write-queue.ts";

/** After an append to a topic with retention or compaction: many of them are one look. No two looks are closer. */
const LOOK_AFTER_MS = 250;
/** While there are such topics: then what others have appended is found. */
const LOOK_EVERY_MS = 60_000;
/** The shortest time after which anything is to go is looked at so many times. */
const LOOKS_A_LIFE = 100;
/** After a failure: the database is busy, or has no room. */
const RETRY_AFTER_MS = 5_000;
/** Expired producers, and groups unless they expire sooner. */
const WALK_EVERY_MS = 3_600_000;
/** After a step, so many times as long as it took: upkeep takes a fifth of the time at most. */
const RESTS_A_STEP = 4;
const REST_MAX_MS = 1_000;
/** For one partition, before others are looked at. */
const STEPS_IN_A_ROW = 10;

/** Undefined of what there is to do once. */
type Step = () => Promise<StepOutcome | undefined>;

/** What takes no lease. */
const LOOKED_ONLY = undefined;

/** The first partitions behind one, by id, that have something to do, and one step of it. */
interface Task {
  readonly find: (db: Db, after: number) => Promise<readonly number[]>;
  readonly step: (of: StepOf) => Operation<StepOutcome>;
}

const TASKS: readonly Task[] = [
  { find: findPurges, step: purgeStep },
  { find: findOutdated, step: forgetStep },
  { find: findRetainable, step: retainStep },
  { find: findCompactable, step: compactStep },
];

export interface UpkeepDeps {
  readonly db: Db;
  readonly queue: WriteQueue;
  readonly scheduler: Scheduler;
  readonly log: Log;
  /** Of this server, where others share the database. */
  readonly processId: string | null;
  /** How long a group without members keeps its offsets; null: for ever. */
  readonly offsetRetentionMs: number | null;
  /** False on a platform without timers: something else calls run() from time to time. */
  readonly hasTimers: boolean;
  /** For the next look, which may be an hour away; the scheduler's where it is left out. */
  readonly longTimer?: Pick<Scheduler, "after"> | undefined;
}

export interface UpkeepOutcome {
  /** Nothing is left that could be done now, by this server. */
  readonly isDone: boolean;
  /** Undefined while there is nothing to wait for. */
  readonly nextInMs: number | undefined;
}

export class Upkeep {
  readonly #deps: UpkeepDeps;
  readonly #lease: UpkeepLease;
  readonly #spareSpace: SpareSpace;
  #isStopped = false;
  #running: Promise<UpkeepOutcome> | undefined;
  /** Asked for while it ran: in how many ms. */
  #wantedInMs = Number.POSITIVE_INFINITY;
  /** By the scheduler. */
  #lookAtMs = Number.POSITIVE_INFINITY;
  #cancelLook: (() => void) | undefined;
  #endRest: (() => void) | undefined;
  #walkAtMs = Number.NEGATIVE_INFINITY;
  /** What was found to be done is not all that there was. */
  #isLeft = false;
  readonly #recordsByTask = new Map<Task, number>();

  constructor(deps: UpkeepDeps) {
    this.#deps = deps;
    this.#lease = new UpkeepLease(deps);
    this.#spareSpace = new SpareSpace(deps.db.space, deps.scheduler);
  }

  // ── when ───────────────────────────────────────────────────────────────────────────────────────────────

  /** At the start of a server, and when a topic has been deleted or has other settings. */
  wake(): void {
    this.#lookIn(0);
  }

  /** To a topic with retention or compaction. */
  noteAppend(): void {
    this.#lookIn(LOOK_AFTER_MS);
  }

  /** A producer has written: some time it expires. */
  noteProducer(): void {
    this.#lookIn(WALK_EVERY_MS);
  }

  /**
   * Does what there is to do, and begins nothing after `withinMs` ms. For a scheduler to call, on platforms without
   * timers. Rejects with a DbError or a Problem: what was done until then is done.
   */
  async run(withinMs = Number.POSITIVE_INFINITY): Promise<UpkeepOutcome> {
    while (this.#running) await this.#running.catch(() => undefined); // its caller is told
    this.#running = this.#work(this.#deps.scheduler.nowMs() + withinMs);
    try {
      return await this.#running;
    } finally {
      this.#running = undefined;
    }
  }

  /** Resolves when no step is under way any more; what is left is for the next start. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancelLook?.();
    this.#endRest?.();
    await this.#running?.catch(() => undefined); // its caller is told
  }

  #lookIn(ms: number): void {
    const { scheduler, hasTimers, longTimer = scheduler } = this.#deps;
    if (this.#isStopped || !hasTimers) return;
    if (this.#running) {
      this.#wantedInMs = Math.min(this.#wantedInMs, Math.max(ms, LOOK_AFTER_MS));
      return;
    }
    const atMs = scheduler.nowMs() + ms;
    if (atMs >= this.#lookAtMs) return;
    this.#cancelLook?.();
    this.#lookAtMs = atMs;
    if (ms > 0) this.#cancelLook = longTimer.after(ms, () => void this.#look());
    else void this.#look();
  }

  async #look(): Promise<void> {
    this.#lookAtMs = Number.POSITIVE_INFINITY;
    this.#wantedInMs = Number.POSITIVE_INFINITY;
    let nextInMs: number | undefined = RETRY_AFTER_MS;
    try {
      nextInMs = (await this.run()).nextInMs;
    } catch (error) {
      this.#deps.log("upkeep failed", { message: String(error) });
    }
    const wantedInMs = Math.min(this.#wantedInMs, nextInMs ?? Number.POSITIVE_INFINITY);
    if (wantedInMs < Number.POSITIVE_INFINITY) this.#lookIn(wantedInMs);
  }

  // ── what ───────────────────────────────────────────────────────────────────────────────────────────────

  async #work(untilMs: number): Promise<UpkeepOutcome> {
    const mayGoOn = () => !this.#isStopped && this.#deps.scheduler.nowMs() < untilMs;
    await this.#spareSpace.look();
    try {
      for await (const step of this.#steps()) {
        if (!mayGoOn()) return { isDone: false, nextInMs: LOOK_AFTER_MS };
        if (step === LOOKED_ONLY) await this.#rest(0);
        else if (!(await this.#repeat(step, mayGoOn))) return { isDone: false, nextInMs: UPKEEP_LEASE_MS };
      }
      return { isDone: true, nextInMs: await this.#nextInMs() };
    } finally {
      await this.#lease.end();
    }
  }

  /**
   * What there is to do, as long as something of it is left. What others write meanwhile is for the next look: there may
   * be no end of it, and of steps for a few records each.
   */
  async *#steps(): AsyncGenerator<Step | undefined> {
    const foundTo = new Map<Task, number>();
    do {
      this.#isLeft = false;
      yield* await this.#findSteps(foundTo);
    } while (this.#isLeft);
    yield* this.#expirySteps();
    for (const giveBack of this.#spareSpace.steps()) yield () => giveBack().then(nothing);
  }

  /** `foundTo`: partitions that always have something to do must not keep those behind them waiting. */
  async #findSteps(foundTo: Map<Task, number>): Promise<readonly Step[]> {
    const { db, queue } = this.#deps;
    const steps: Step[] = [];
    if (await hasToNote(db)) steps.push(() => queue.submit(noteLogEnds()));
    for (const task of TASKS) {
      await this.#rest(0); // of ten thousand partitions each of these takes as long as a step: others come in between
      const found = await task.find(db, foundTo.get(task) ?? 0);
      const isFull = found.length === FOUND_MAX;
      if (isFull) this.#isLeft = true;
      foundTo.set(task, isFull ? (found.at(-1) ?? 0) : 0);
      for (const partitionId of found) steps.push(() => this.#doOne(task, partitionId));
    }
    return steps;
  }

  async #doOne(task: Task, partitionId: number): Promise<StepOutcome> {
    const recordsMax = this.#recordsByTask.get(task) ?? FIRST_RECORDS;
    const outcome = await this.#deps.queue.submit(task.step({ partitionId, recordsMax }));
    // The way to a database far away does not get shorter with the step: only the rest of it says how large one may be.
    this.#recordsByTask.set(task, nextRecords(recordsMax, outcome.tookMs - this.#lease.tookMs));
    return outcome;
  }

  async *#expirySteps(): AsyncGenerator<Step | undefined> {
    const { db, queue, scheduler, offsetRetentionMs: idleMaxMs } = this.#deps;
    if (scheduler.nowMs() < this.#walkAtMs) return;
    for await (const ids of walkProducers(db))
      yield ids.length === 0 ? LOOKED_ONLY : () => queue.submit(expireProducers(ids));
    if (idleMaxMs !== null) {
      for await (const groups of walkGroups(db, idleMaxMs)) {
        for (const group of groups)
          yield () => queue.submit(expireGroup({ op: queue.nextOp(), group, idleMaxMs }));
        yield LOOKED_ONLY;
      }
    }
    this.#walkAtMs = scheduler.nowMs() + this.#walkEveryMs;
  }

  /** False where another server has the lease. */
  async #repeat(step: Step, mayGoOn: () => boolean): Promise<boolean> {
    for (let n = 0; n < STEPS_IN_A_ROW && mayGoOn(); n += 1) {
      if (!(await this.#lease.hold())) return false;
      const outcome = await this.#pace(step);
      const { space } = this.#deps.db;
      // What the step has written goes from the WAL into the file now, by itself: later it would hold up the commit of
      // somebody else, together with what other steps have written, and for longer than a step may take.
      if (space) await this.#pace(() => space.checkpoint().then(nothing));
      if (!outcome?.hasMore) return true;
    }
    this.#isLeft = true;
    return true;
  }

  /** Rests afterwards. */
  async #pace(step: Step): Promise<StepOutcome | undefined> {
    const fromMs = this.#deps.scheduler.nowMs();
    const outcome = await step();
    const tookMs = outcome?.tookMs ?? this.#deps.scheduler.nowMs() - fromMs;
    await this.#rest(Math.min(RESTS_A_STEP * tookMs, REST_MAX_MS));
    return outcome;
  }

  #rest(ms: number): Promise<void> {
    if (this.#isStopped) return Promise.resolve();
    return new Promise((resolve) => {
      if (ms <= 0) return this.#deps.scheduler.soon(resolve);
      const cancel = this.#deps.scheduler.after(ms, resolve);
      this.#endRest = () => {
        cancel();
        resolve();
      };
    });
  }

  async #nextInMs(): Promise<number | undefined> {
    const { db, scheduler, offsetRetentionMs } = this.#deps;
    const { topics, shortestMs } = await readWaiting(db);
    const waits: number[] = [];
    await this.#spareSpace.look();
    if (topics > 0) waits.push(LOOK_EVERY_MS);
    if (shortestMs !== undefined) waits.push(shortestMs / LOOKS_A_LIFE);
    if (offsetRetentionMs !== null || (await hasProducers(db)))
      waits.push(this.#walkAtMs - scheduler.nowMs());
    if (this.#spareSpace.isWaiting) waits.push(FREE_FOR_MS);
    return waits.length > 0 ? Math.max(LOOK_AFTER_MS, Math.ceil(Math.min(...waits))) : undefined;
  }

  get #walkEveryMs(): number {
    const { offsetRetentionMs } = this.#deps;
    return Math.min(WALK_EVERY_MS, (offsetRetentionMs ?? WALK_EVERY_MS * LOOKS_A_LIFE) / LOOKS_A_LIFE);
  }
}

function nothing(): undefined {}
