// The changes of one group, one turn after the other: read its picture, tell the members of this process what is new
// for them, decide, write; and again until nothing is left to do. What arrives while a turn is under way is decided
// together in the next. Another process may do the same at the same time: who writes second finds another version and
// reads again.

import type { GroupChange } from "../core/group-change.ts";
import type { GroupPicture, JoinRequest } from "../core/group-picture.ts";
import { type GroupPlan, isIdle, planGroup, policyResets, timesNeededBy } from "../core/group-plan.ts";
import type { Log, Scheduler } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import {
  planReset,
  type ResetRequest,
  type ResetStep,
  resetChange,
  timesNeededByReset,
} from "../core/reset-plan.ts";
import type { MembershipRef } from "../core/session/state.ts";
import { type Db, DbError } from "../store/db.ts";
import { type GroupQuestion, readMetadata } from "../store/group-pictures.ts";
import type { ChangedGroup, OffsetReset, PlannedChange } from "../store/groups.ts";
import { findOffsetsAt } from "../store/places.ts";
import type { WriteQueue } from "../store/write-queue.ts";
import { GroupLeftovers } from "./group-leftovers.ts";
import { LocalMembers, type MemberListener } from "./local-members.ts";

/** Another process changed the group each time between reading and writing. */
const CHANGE_ATTEMPTS_MAX = 20;
/** Until the database is asked again for what it did not give; longer each time where it refuses. */
const RETRY_MS = 1_000;
const RETRY_MAX_MS = 30_000;

export interface ResetOutcome {
  readonly steps: readonly ResetStep[];
  readonly isApplied: boolean;
}

type Pending =
  | {
      readonly kind: "join";
      readonly change: GroupChange;
      readonly request: JoinRequest;
      readonly listener: MemberListener;
      readonly onRefused: (error: unknown) => void;
    }
  | {
      readonly kind: "other";
      readonly change: GroupChange;
      readonly resolve: () => void;
      readonly reject: (error: unknown) => void;
    }
  | {
      readonly kind: "reset";
      readonly request: ResetRequest;
      readonly resolve: (outcome: ResetOutcome) => void;
      readonly reject: (error: unknown) => void;
    };

interface Decision {
  readonly plan: GroupPlan;
  readonly resets: readonly OffsetReset[];
}

export interface GroupTurnsDeps {
  readonly db: Db;
  readonly queue: WriteQueue;
  readonly read: (question: GroupQuestion) => Promise<GroupPicture>;
  readonly write: (change: PlannedChange) => Promise<ChangedGroup>;
  /** Of this server, where others share the database. */
  readonly processId: string | null;
  /** False while leases may have run out through no fault of their members. */
  readonly mayExpire: (databaseMs: number) => boolean;
  readonly scheduler: Scheduler;
  readonly log: Log;
  /** Something of the group is due that much later. */
  readonly onDueIn: (ms: number) => void;
  /** A write may not have happened: leases are late. */
  readonly onOutage: () => void;
  /** Nothing is under way for now. */
  readonly onDone: (group: string) => void;
}

export class GroupTurns {
  readonly #group: string;
  readonly #deps: GroupTurnsDeps;
  readonly #members = new LocalMembers();
  #pending: Pending[] = [];
  /** What is being decided and written. */
  #underWay: readonly Pending[] = [];
  #isLookWanted = false;
  /** Of the group as its members here were told last. */
  #toldVersion = 0;
  /** Few groups ever have any: most keep nothing for it. */
  #leftovers: GroupLeftovers | undefined;
  /** How often the database has refused what is to be done, one time after the other. */
  #refusals = 0;
  #isClosed = false;
  #running: Promise<void> | undefined;
  #cancelRetry: (() => void) | undefined;

  constructor(group: string, deps: GroupTurnsDeps) {
    this.#group = group;
    this.#deps = deps;
  }

  /** Calls either the listener's onJoined or `onRefused`. */
  join(request: JoinRequest, listener: MemberListener, onRefused: (error: unknown) => void): void {
    this.#pending.push({ kind: "join", change: { kind: "join", request }, request, listener, onRefused });
    this.#start();
  }

  /** Resolves when it is durable, or was not so any more. Rejects with a Problem or a DbError. */
  change(change: Exclude<GroupChange, { kind: "join" }>): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#pending.push({ kind: "other", change, resolve, reject });
      this.#start();
    });
  }

  reset(request: ResetRequest): Promise<ResetOutcome> {
    return new Promise((resolve, reject) => {
      this.#pending.push({ kind: "reset", request, resolve, reject });
      this.#start();
    });
  }

  /** Somebody else may have changed the group, or something of it is due. Where it is refused, its time comes later. */
  look(): void {
    this.#isLookWanted = true;
    if (this.#isWanted) this.#start();
  }

  /** The group has a version now that its members here may not have been told of. */
  lookAt(version: number): void {
    if (version > this.#toldVersion) this.look();
  }

  /** The member is told nothing any more. */
  letGo({ memberId, membership }: Omit<MembershipRef, "group">): void {
    if (this.#members.letGo({ memberId, membership })) this.#deps.onDone(this.#group);
  }

  get members(): readonly MembershipRef[] {
    return this.#members.list().map((member) => ({ group: this.#group, ...member }));
  }

  /** Whether a member here subscribes to it, or is about to. */
  hasTopic(topic: string): boolean {
    const asked = [...this.#underWay, ...this.#pending];
    return this.#members.haveTopic(topic) || topicsOf(asked).includes(topic);
  }

  get isNeeded(): boolean {
    return this.#members.count > 0 || this.#running !== undefined || this.#cancelRetry !== undefined;
  }

  /** Resolves when no turn is under way. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelRetry?.();
    await this.#running;
    this.#cancelRetry?.();
  }

  get #isWanted(): boolean {
    const isHeldBack = this.#refusals > 0 && this.#cancelRetry !== undefined;
    return this.#pending.length > 0 || (this.#isLookWanted && !isHeldBack);
  }

  #start(): void {
    this.#running ??= this.#run();
  }

  async #run(): Promise<void> {
    // What arrives in the same turn of the event loop is one change.
    await new Promise<void>((resolve) => this.#deps.scheduler.soon(resolve));
    while (this.#isWanted) {
      this.#isLookWanted = false;
      this.#underWay = this.#takeBatch();
      await this.#turn(this.#underWay);
    }
    this.#underWay = [];
    this.#running = undefined;
    this.#deps.onDone(this.#group);
  }

  /** What can be decided together: one reset, or changes of members of which no two want the same place. */
  #takeBatch(): readonly Pending[] {
    if (this.#pending[0]?.kind === "reset") return this.#pending.splice(0, 1);
    const places = new Set<string>();
    const end = this.#pending.findIndex((pending) => {
      if (pending.kind === "reset") return true;
      if (pending.kind !== "join") return false;
      const wanted = placesOf(pending.request);
      const isTaken = wanted.some((place) => places.has(place));
      for (const place of wanted) places.add(place);
      return isTaken;
    });
    return this.#pending.splice(0, end === -1 ? this.#pending.length : end);
  }

  /** Reads, tells, decides and writes until nothing of the batch, and nothing that it has led to, is left to do. */
  async #turn(batch: readonly Pending[]): Promise<void> {
    const { queue, read, write, onOutage } = this.#deps;
    const topics = topicsOf(batch);
    let left = batch;
    let isFenced = false;
    try {
      let picture = await read({ group: this.#group, topics });
      for (let attempt = 0; attempt < CHANGE_ATTEMPTS_MAX; attempt += 1) {
        if (!isFenced) await this.#tell(picture);
        const decision = await this.#decide(picture, left);
        if (!decision) {
          this.#refusals = 0;
          return;
        }
        const change = { ...decision, op: queue.nextOp(), picture, topics };
        const changed = await write(change);
        // The write has waited for long, and so may have the renewals of others.
        if (changed.isLate) onOutage();
        if (changed.version !== undefined) {
          this.#settle(left, decision, changed.version);
          left = []; // whatever fails from here on, these are done
          isFenced = false;
        }
        const isVoidReset = isResetToPlace(left);
        if (isVoidReset) await this.#fence(change);
        isFenced ||= isVoidReset;
        const shown = isVoidReset ? undefined : changed.picture;
        picture = shown ?? (await read({ group: this.#group, topics }));
      }
      this.#giveUp(left);
    } catch (error) {
      this.#fail(left, error);
    }
  }

  /**
   * An ack that comes in meanwhile voids a reset, and who acknowledges without a pause would void it each time: what it
   * is to reset gets new generations first, which the members here are told of when it is done.
   */
  async #fence(change: PlannedChange): Promise<void> {
    const { queue, write } = this.#deps;
    const plan = { ...change.plan, topicsSeen: [] };
    await write({ ...change, op: queue.nextOp(), plan, resets: [] });
    this.#isLookWanted = true;
  }

  /** Undefined where there is nothing to write; who asked has its answer then. */
  async #decide(picture: GroupPicture, batch: readonly Pending[]): Promise<Decision | undefined> {
    const [first] = batch;
    if (first?.kind === "reset") return this.#decideReset(picture, first);
    const asked = changesOf(batch);
    const { processId } = this.#deps;
    const left = this.#leftovers?.changesFor(picture, { held: this.#members, processId }) ?? [];
    const changes = [...asked, ...left];
    const plan = planGroup(picture, changes, { mayExpire: this.#deps.mayExpire(picture.nowMs) });
    if (isIdle(plan)) {
      this.#leftovers = undefined; // they are done
      if (plan.joinedBefore.size > 0) this.#isLookWanted = true; // tells them what they have
      this.#settle(batch, { plan, resets: [] }, picture.version);
      return undefined;
    }
    const times = await findOffsetsAt(this.#deps.db, timesNeededBy(plan));
    const resets = policyResets(plan, times).map(
      ({ memberId, ...reset }): OffsetReset => ({ ...reset, actor: `member ${memberId}`, isExact: false }),
    );
    return { plan, resets };
  }

  async #decideReset(
    picture: GroupPicture,
    { request, resolve }: Extract<Pending, { kind: "reset" }>,
  ): Promise<Decision | undefined> {
    const times = await findOffsetsAt(this.#deps.db, timesNeededByReset(picture, request));
    const steps = planReset(picture, request, times);
    if (request.isDryRun || steps.length === 0) {
      resolve({ steps, isApplied: false });
      return undefined;
    }
    return resetChange(picture, request, steps);
  }

  #settle(batch: readonly Pending[], { plan, resets }: Decision, version: number): void {
    for (const pending of batch) {
      if (pending.kind === "reset") pending.resolve({ steps: resets, isApplied: true });
      else if (pending.kind === "other") pending.resolve();
    }
    const joins = new Map(plan.joins.map((join) => [join.change, join]));
    for (const pending of batch) {
      if (pending.kind !== "join") continue;
      const refusal = plan.refusals.get(pending.change);
      const planned = joins.get(pending.change);
      const before = plan.joinedBefore.get(pending.change);
      if (refusal) pending.onRefused(refusal);
      else if (planned) this.#members.hold({ memberId: planned.memberId, membership: version }, pending);
      else if (before) this.#members.hold(before, pending);
    }
  }

  /** Others were faster each time; no outage. */
  #giveUp(batch: readonly Pending[]): void {
    const why = `Group "${this.#group}" changed ${CHANGE_ATTEMPTS_MAX} times meanwhile`;
    this.#refuse(batch, new Problem("unavailable", why));
    this.#leave(batch, { mayBeWritten: false });
    this.#isLookWanted = true;
  }

  /** For the next turn. */
  #leave(batch: readonly Pending[], how: { readonly mayBeWritten: boolean }): void {
    this.#leftovers ??= new GroupLeftovers();
    this.#leftovers.add(changesOf(batch), how);
  }

  #refuse(batch: readonly Pending[], error: unknown): void {
    for (const pending of batch) {
      if (pending.kind === "join") pending.onRefused(error);
      else pending.reject(error);
    }
  }

  #fail(batch: readonly Pending[], error: unknown): void {
    this.#refuse(batch, error);
    if (error instanceof Problem && !error.isRetriable && error.code !== "internal") return;
    this.#deps.log("group not changed", { group: this.#group, message: String(error) });
    if (this.#isClosed) return;
    this.#leave(batch, { mayBeWritten: isUnknown(error) });
    this.#refusals = isOutage(error) ? 0 : this.#refusals + 1;
    if (this.#refusals === 0) this.#deps.onOutage();
    this.#cancelRetry?.();
    const delayMs = Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** this.#refusals);
    this.#cancelRetry = this.#deps.scheduler.after(delayMs, () => {
      this.#cancelRetry = undefined;
      this.look();
    });
  }

  async #tell(picture: GroupPicture): Promise<void> {
    const isOld = picture.version !== 0 && picture.version < this.#toldVersion; // a replica may lag
    if (isOld) return;
    this.#expectDue(picture);
    // Until it is told nobody commits in a new generation, so what is read now belongs to the picture.
    await this.#members.tell(picture, (ids) => readMetadata(this.#deps.db, this.#group, ids));
    this.#toldVersion = picture.version;
  }

  /** Whoever wrote it: when that process is gone this one carries it out. */
  #expectDue({ members, partitions }: GroupPicture): void {
    let nextInMs = Number.POSITIVE_INFINITY;
    for (const { expiresInMs } of members) nextInMs = Math.min(nextInMs, expiresInMs);
    for (const { owner } of partitions) nextInMs = Math.min(nextInMs, owner?.revokeInMs ?? nextInMs);
    if (Number.isFinite(nextInMs)) this.#deps.onDueIn(Math.max(0, nextInMs));
  }
}

/** The database did not answer: whoever was to renew a lease could not. */
function isOutage(error: unknown): boolean {
  if (error instanceof DbError) return error.failure !== "rejected";
  return error instanceof Problem && (error.code === "unavailable" || error.code === "outcome_unknown");
}

function isUnknown(error: unknown): boolean {
  return error instanceof Problem && error.code === "outcome_unknown";
}

/** A plan's `from` says what it is about, so an ack in between refuses it. */
function isResetToPlace([first]: readonly Pending[]): boolean {
  return first?.kind === "reset" && first.request.target.kind === "place";
}

function placesOf({ memberId, instanceId }: JoinRequest): readonly string[] {
  const places: string[] = [];
  if (memberId !== undefined) places.push(`member ${memberId}`);
  if (instanceId !== undefined) places.push(`instance ${instanceId}`);
  return places;
}

function changesOf(batch: readonly Pending[]): readonly GroupChange[] {
  return batch.flatMap((pending) => (pending.kind === "reset" ? [] : [pending.change]));
}

function topicsOf(batch: readonly Pending[]): readonly string[] {
  const topics = batch.flatMap((pending) => (pending.kind === "other" ? [] : pending.request.topics));
  return [...new Set(topics)];
}
