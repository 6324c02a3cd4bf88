// The group memberships of all connections of this process. What a group becomes is decided in core/group-plan.ts and
// done in turns by group-turns.ts; this is the door to them, and finds the groups that something concerns. Other
// processes on the same database do the same, and know of each other by what they write.

import type { GroupChange, OwnedPartition } from "../core/group-change.ts";
import type { GroupPicture, JoinRequest } from "../core/group-picture.ts";
import type { Chance, Log, Scheduler } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import type { ResetRequest } from "../core/reset-plan.ts";
import type { MembershipRef } from "../core/session/state.ts";
import { Batches } from "../store/batches.ts";
import type { Db } from "../store/db.ts";
import { type GroupQuestion, readGroups } from "../store/group-pictures.ts";
import { type ChangedGroup, type PlannedChange, writeGroups } from "../store/groups.ts";
import { endMembershipsWithoutInstance, greetProcesses, renewLease } from "../store/leases.ts";
import type { Topics } from "../store/topics.ts";
import type { WriteQueue } from "../store/write-queue.ts";
import { GroupClock } from "./group-clock.ts";
import { GroupTurns, type GroupTurnsDeps, type ResetOutcome } from "./group-turns.ts";
import type { MemberListener } from "./local-members.ts";
import { ProcessLease } from "./process-lease.ts";

/** Longer statements would hold up the event loop, or be too large for a remote database. */
const GROUPS_PER_BATCH_MAX = 100;
/** That a batch of plans gives, takes or resets: about two megabytes of statements. */
const PARTITIONS_PER_BATCH_MAX = 4_000;

export interface MembershipDeps {
  readonly db: Db;
  readonly topics: Topics;
  readonly queue: WriteQueue;
  readonly scheduler: Scheduler;
  readonly chance: Chance;
  readonly log: Log;
  /** Of this server, where others share the database: its members end with it. */
  readonly processId: string | null;
}

export class Memberships {
  readonly #deps: MembershipDeps;
  readonly #clock: GroupClock;
  readonly #processLease: ProcessLease | undefined;
  readonly #turnsDeps: GroupTurnsDeps;
  readonly #turnsByGroup = new Map<string, GroupTurns>();
  #isClosed = false;

  constructor(deps: MembershipDeps) {
    this.#deps = deps;
    const { db, queue, scheduler, log, processId } = deps;
    this.#clock = new GroupClock({
      db,
      queue,
      scheduler,
      log,
      onDue: (groups) => this.#look(groups),
      ownMembers: () => [...this.#turnsByGroup.values()].flatMap(({ members }) => members),
      onOutageOver: () => this.#lookAtAll(),
      processId,
    });
    if (processId !== null) {
      const onOutage = () => this.#clock.noteOutage();
      this.#processLease = new ProcessLease({ processId, queue, scheduler, log, onOutage });
    }
    // A thousand groups that begin to rebalance at once are read and written together.
    const reads = new Batches<GroupQuestion, GroupPicture>({
      scheduler,
      requestsMax: GROUPS_PER_BATCH_MAX,
      run: (asked) => readGroups(db, asked),
    });
    const writes = new Batches<PlannedChange, ChangedGroup>({
      scheduler,
      requestsMax: GROUPS_PER_BATCH_MAX,
      weightMax: PARTITIONS_PER_BATCH_MAX,
      weigh: ({ plan, resets }) => plan.gains.length + plan.revokedPartitionIds.length + resets.length,
      run: (changes) => queue.submit(writeGroups(changes, processId)),
    });
    this.#turnsDeps = {
      db,
      queue,
      read: (question) => reads.submit(question),
      write: async (change) => {
        // Of a reset whose answer is lost nobody can say what was done: it does not take others with it.
        if (!change.resets.some(({ isExact }) => isExact)) return writes.submit(change);
        const [changed] = await queue.submit(writeGroups([change], processId));
        if (!changed) throw new Error("A plan was written without an outcome");
        return changed;
      },
      processId,
      mayExpire: (databaseMs) => this.#clock.mayExpire(databaseMs),
      scheduler,
      log,
      onDueIn: (ms) => this.#clock.expectIn(ms),
      onOutage: () => this.#clock.noteOutage(),
      onDone: (group) => this.#forgetIfDone(group),
    };
  }

  /**
   * A server that has just opened its database. Of a file that is its own nobody holds a socket of the memberships that
   * it finds; of a shared one other processes may.
   */
  async begin(): Promise<void> {
    const { queue, log, processId } = this.#deps;
    if (processId === null) {
      const ended = await queue.submit(endMembershipsWithoutInstance());
      if (ended > 0) log("memberships of the last run ended", { count: ended });
      await this.#clock.look();
    } else {
      await queue.submit(greetProcesses());
      this.#clock.pause();
    }
  }

  /** There are clients: what is due is carried out. */
  resume(): void {
    this.#clock.resume();
  }

  /** On a shared database, without clients: those who have some carry out what is due, and know of outages. */
  pause(): void {
    if (this.#deps.processId !== null) this.#clock.pause();
  }

  /**
   * The listener is called with what becomes of it, now and later; `onRefused` where nothing does. A join that is refused
   * creates no topic.
   */
  join(
    request: Omit<JoinRequest, "newMemberId">,
    listener: MemberListener,
    onRefused: (error: unknown) => void,
  ): void {
    const { topics, chance } = this.#deps;
    const join = { ...request, newMemberId: chance.newId() };
    // Whatever of them changes after this is told.
    Promise.all(request.topics.map((topic) => topics.find(topic))).then(
      () => this.#enter(join, listener, (error) => this.#enterAgain(join, listener, { error, onRefused })),
      onRefused,
    );
  }

  #enter(join: JoinRequest, listener: MemberListener, onRefused: (error: unknown) => void): void {
    this.#processLease?.hold();
    this.#turnsOf(join.group).join(join, listener, onRefused);
  }

  /** Where topics come into being on first use, those that are missing do now. */
  #enterAgain(
    join: JoinRequest,
    listener: MemberListener,
    { error, onRefused }: { readonly error: unknown; readonly onRefused: (error: unknown) => void },
  ): void {
    const isUnknown = error instanceof Problem && error.code === "unknown_topic";
    if (!isUnknown || !this.#deps.topics.createsOnFirstUse) return onRefused(error);
    this.#createTopics(join.topics).then(() => this.#enter(join, listener, onRefused), onRefused);
  }

  /** When it rejects, the lease ends the membership. */
  leave(member: MembershipRef): Promise<void> {
    this.#letGo(member);
    return this.#change({ kind: "leave", member });
  }

  /** Partitions that are revoked: all that was sent of them is acknowledged, or nobody minds. */
  release(member: MembershipRef, partitions: readonly OwnedPartition[]): Promise<void> {
    return this.#change({ kind: "release", member, partitions });
  }

  /** Partitions that nothing was acknowledged of in time: somebody else gets them, or the same member anew. */
  stall(member: MembershipRef, partitions: readonly OwnedPartition[]): Promise<void> {
    return this.#change({ kind: "stall", member, partitions });
  }

  /** Nobody renews the membership any more: it stays until its lease runs out, or is taken over. */
  async detach(member: MembershipRef): Promise<void> {
    this.#letGo(member);
    // The whole session timeout from now on; where that cannot be written, what was left of it.
    await this.#deps.queue.submit(renewLease(member)).catch((error) => {
      this.#deps.log("lease not renewed", { message: String(error) });
    });
    await this.#clock.look();
  }

  async renew(member: MembershipRef): Promise<void> {
    try {
      const isAlive = await this.#deps.queue.submit(renewLease(member));
      if (!isAlive) this.#turnsByGroup.get(member.group)?.look();
    } catch (error) {
      this.#clock.noteOutage();
      throw error;
    }
  }

  /** Rejects with a Problem as planReset() says, or with a DbError. */
  reset(request: ResetRequest): Promise<ResetOutcome> {
    return this.#turnsOf(request.group).reset(request);
  }

  /** Another process may have given the group this version. */
  onGroupChange(group: string, version: number): void {
    this.#turnsByGroup.get(group)?.lookAt(version);
  }

  /** The database does not answer: leases may be late through no fault of their members. */
  noteOutage(): void {
    this.#clock.noteOutage();
  }

  /** Partitions have come or gone. */
  onTopicChange(topic: string): void {
    for (const turns of this.#turnsByGroup.values()) if (turns.hasTopic(topic)) turns.look();
  }

  /** Looks at leases no more; resolves when nothing of a group is under way. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#clock.pause();
    await Promise.all([...this.#turnsByGroup.values()].map((turns) => turns.close()));
    await this.#processLease?.end();
  }

  async #createTopics(names: readonly string[]): Promise<void> {
    for (const topic of names) await this.#deps.topics.require(topic);
  }

  #change(change: Exclude<GroupChange, { kind: "join" }>): Promise<void> {
    return this.#turnsOf(change.member.group).change(change);
  }

  #look(groups: readonly string[]): void {
    for (const group of groups) this.#turnsOf(group).look();
  }

  #lookAtAll(): void {
    for (const turns of this.#turnsByGroup.values()) turns.look();
  }

  #letGo(member: MembershipRef): void {
    this.#turnsByGroup.get(member.group)?.letGo(member);
  }

  #turnsOf(group: string): GroupTurns {
    const known = this.#turnsByGroup.get(group);
    if (known) return known;
    const turns = new GroupTurns(group, this.#turnsDeps);
    if (this.#isClosed) void turns.close(); // what is asked now is tried once
    this.#turnsByGroup.set(group, turns);
    return turns;
  }

  #forgetIfDone(group: string): void {
    if (this.#turnsByGroup.get(group)?.isNeeded === false) this.#turnsByGroup.delete(group);
    if (this.#turnsByGroup.size === 0) this.#processLease?.letGo();
  }
}
