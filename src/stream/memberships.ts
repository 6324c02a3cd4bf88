// Joins and ends of group memberships, for all connections of this process: a group's changes one after the other,
// and whoever loses a membership is told. What a join brings is decided in core/membership.ts; the database judges
// every write again, so several processes may do this at once.

import {
  type GainRequest,
  type GroupSnapshot,
  type JoinRequest,
  type JoinResult,
  joinResult,
  neededTimes,
  planGain,
  planJoin,
  type TimeOffsets,
} from "../core/membership.ts";
import type { Chance, Log, Scheduler } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import type { MembershipRef } from "../core/session/state.ts";
import type { ResetPolicies } from "../protocol/places.ts";
import type { Db } from "../store/db.ts";
import { readGroup, writeGain, writeJoin } from "../store/groups.ts";
import {
  endExpiredMemberships,
  endMembership,
  endMembershipsWithoutInstance,
  msUntilNextExpiry,
  renewLease,
} from "../store/leases.ts";
import { findOffsetsAt } from "../store/places.ts";
import type { Topics } from "../store/topics.ts";
import type { WriteQueue } from "../store/write-queue.ts";

/** Another process changed the group each time between reading and writing. */
const CHANGE_ATTEMPTS_MAX = 20;
/** Lets a lease that is due be renewed before it is looked at. */
const EXPIRY_SLACK_MS = 50;
const EXPIRY_RETRY_MS = 1_000;

export type EndReason = "replaced" | "expired";

interface Holder {
  readonly membership: number;
  readonly onEnd: (reason: EndReason) => void;
}

export class Memberships {
  readonly #db: Db;
  readonly #topics: Topics;
  readonly #queue: WriteQueue;
  readonly #scheduler: Scheduler;
  readonly #chance: Chance;
  readonly #log: Log;
  /** The connection that holds a membership, by group and member. */
  readonly #holders = new Map<string, Holder>();
  /** The last change of each group that is under way. */
  readonly #changesByGroup = new Map<string, Promise<unknown>>();
  #cancelExpiry: (() => void) | undefined;
  #isClosed = false;

  constructor(deps: {
    db: Db;
    topics: Topics;
    queue: WriteQueue;
    scheduler: Scheduler;
    chance: Chance;
    log: Log;
  }) {
    this.#db = deps.db;
    this.#topics = deps.topics;
    this.#queue = deps.queue;
    this.#scheduler = deps.scheduler;
    this.#chance = deps.chance;
    this.#log = deps.log;
  }

  /** A server that has just opened an embedded file: nobody holds a socket of the memberships that it finds. */
  async endThoseOfLastRun(): Promise<void> {
    const ended = await this.#queue.submit(endMembershipsWithoutInstance());
    if (ended.length > 0) this.#log("memberships of the last run ended", { count: ended.length });
    await this.#scheduleExpiry();
  }

  /** Rejects with a Problem. `onEnd` is called once, when the membership is lost to others or to its lease. */
  join(request: Omit<JoinRequest, "newMemberId">, onEnd: (reason: EndReason) => void): Promise<JoinResult> {
    return this.#inTurn(request.group, async () => {
      const result = await this.#joinOrCreateTopics({ ...request, newMemberId: this.#chance.newId() });
      this.#holders.set(holderKey(request.group, result.memberId), { membership: result.membership, onEnd });
      return result;
    });
  }

  /**
   * What the member's topics have beside what is owned, and what it has just lost, anew. Undefined where there is
   * nothing, or the membership has ended. Rejects with a Problem.
   */
  gain(request: GainRequest): Promise<JoinResult | undefined> {
    return this.#inTurn(request.group, () => this.#gainNow(request));
  }

  /** When it rejects, the lease ends the membership. */
  leave(member: MembershipRef): Promise<void> {
    this.#letGo(member);
    return this.#inTurn(member.group, async () => {
      await this.#queue.submit(endMembership(member));
    });
  }

  /** Nobody renews the membership any more: it stays until its lease runs out, or is taken over. */
  async detach(member: MembershipRef): Promise<void> {
    this.#letGo(member);
    // The whole session timeout from now on; where that cannot be written, what was left of it.
    await this.#queue.submit(renewLease(member)).catch((error) => {
      this.#log("lease not renewed", { message: String(error) });
    });
    await this.#scheduleExpiry();
  }

  async renew(member: MembershipRef): Promise<void> {
    const isAlive = await this.#queue.submit(renewLease(member));
    if (!isAlive) this.#tellEnd(member, "expired");
  }

  /** Looks at leases no more. */
  close(): void {
    this.#isClosed = true;
    this.#cancelExpiry?.();
  }

  /** A join that is refused for another reason creates nothing. */
  async #joinOrCreateTopics(request: JoinRequest): Promise<JoinResult> {
    try {
      return await this.#joinNow(request);
    } catch (error) {
      if (!(error instanceof Problem && error.code === "unknown_topic")) throw error;
      for (const topic of request.topics) await this.#topics.require(topic);
      return this.#joinNow(request);
    }
  }

  async #joinNow(request: JoinRequest): Promise<JoinResult> {
    return this.#planned(request, async ({ snapshot, times, ...change }) => {
      const plan = planJoin(request, snapshot, times);
      const joined = await this.#queue.submit(writeJoin({ ...change, request, plan }));
      if (!joined) return undefined;
      for (const memberId of plan.endedMemberIds)
        this.#tellReplaced(request.group, memberId, joined.membership);
      return { result: joinResult(joined, plan) };
    });
  }

  async #gainNow(request: GainRequest): Promise<JoinResult | undefined> {
    return this.#planned(request, async ({ snapshot, times, ...change }) => {
      const plan = planGain(request, snapshot, times);
      if (!plan || plan.partitionIds.length === 0) return { result: undefined };
      const gained = await this.#queue.submit(writeGain({ ...change, plan }));
      return gained && { result: joinResult(gained, plan) };
    });
  }

  /** Reads the group and lets `change` plan and write, again and again until the write meets the group as it was read. */
  async #planned<T>(
    request: { readonly group: string; readonly topics: readonly string[]; readonly policies: ResetPolicies },
    change: (picture: {
      readonly op: number;
      readonly group: string;
      readonly version: number;
      readonly snapshot: GroupSnapshot;
      readonly times: TimeOffsets;
    }) => Promise<{ readonly result: T } | undefined>,
  ): Promise<T> {
    const { group, topics, policies } = request;
    for (let attempt = 0; attempt < CHANGE_ATTEMPTS_MAX; attempt += 1) {
      const snapshot = await readGroup(this.#db, group, topics);
      const times = await findOffsetsAt(this.#db, neededTimes(snapshot.partitions, policies));
      const { version } = snapshot;
      const done = await change({ op: this.#queue.nextOp(), group, version, snapshot, times });
      if (done) return done.result;
    }
    throw new Problem(
      "unavailable",
      `Group "${group}" changed ${CHANGE_ATTEMPTS_MAX} times while it was joined`,
    );
  }

  #inTurn<T>(group: string, change: () => Promise<T>): Promise<T> {
    const before = this.#changesByGroup.get(group) ?? Promise.resolve();
    const result = before.then(change);
    // Whoever asked for the change gets its error; the next one goes on.
    const settled = result.then(
      () => undefined,
      (error) => {
        const isRefusal = error instanceof Problem && !error.isRetriable;
        // A join may have been written all the same, a leave may not: nobody renews what is there then.
        if (!isRefusal) this.#expireLater();
      },
    );
    this.#changesByGroup.set(group, settled);
    void settled.then(() => {
      if (this.#changesByGroup.get(group) === settled) this.#changesByGroup.delete(group);
    });
    return result;
  }

  #tellReplaced(group: string, memberId: string, byMembership: number): void {
    const holder = this.#holders.get(holderKey(group, memberId));
    if (holder && holder.membership < byMembership) this.#tellEnd({ group, memberId, ...holder }, "replaced");
  }

  #tellEnd(member: MembershipRef, reason: EndReason): void {
    const holder = this.#holders.get(holderKey(member.group, member.memberId));
    if (holder?.membership !== member.membership) return;
    this.#letGo(member);
    holder.onEnd(reason);
  }

  #letGo(member: MembershipRef): void {
    const key = holderKey(member.group, member.memberId);
    if (this.#holders.get(key)?.membership === member.membership) this.#holders.delete(key);
  }

  /** Connections renew their own members' leases; this ends those that nobody renews. */
  async #scheduleExpiry(): Promise<void> {
    const inMs = await msUntilNextExpiry(this.#db);
    if (inMs !== undefined) this.#expireAfter(inMs + EXPIRY_SLACK_MS);
  }

  /** Not now: the database has just failed. */
  #expireLater(): void {
    this.#expireAfter(EXPIRY_RETRY_MS);
  }

  #expireAfter(delayMs: number): void {
    this.#cancelExpiry?.();
    if (this.#isClosed) return;
    this.#cancelExpiry = this.#scheduler.after(delayMs, () => {
      this.#endExpired().catch((error) => {
        this.#log("leases could not be looked at", { message: String(error) });
        this.#expireLater();
      });
    });
  }

  async #endExpired(): Promise<void> {
    for (const member of await this.#queue.submit(endExpiredMemberships())) this.#tellEnd(member, "expired");
    await this.#scheduleExpiry();
  }
}

/** A group's name has no slash. */
function holderKey(group: string, memberId: string): string {
  return `${group}/${memberId}`;
}
