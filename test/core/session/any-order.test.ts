// A server, a log, groups and a client around one session, moved by chance: reads, acks, seeks, pauses, rebalances,
// resets and time in any order. The client believes nothing but the frames that it gets, and holds every one against
// what it may get.

import { expect, test } from "bun:test";
import fc from "fast-check";
import type { OwnedPartition } from "../../../src/core/group-change.ts";
import type { GroupMember, GroupPartition } from "../../../src/core/group-picture.ts";
import {
  newsOf,
  type OwnershipChange,
  type ToldOwnerships,
  tellOwnership,
} from "../../../src/core/ownership.ts";
import { Problem } from "../../../src/core/problem.ts";
import type {
  AckOutcome,
  AckRequest,
  LocatedFacts,
  SessionEffect,
  SessionEvent,
} from "../../../src/core/session/events.ts";
import type { AssignedPartition, SubscribeFrame, Window } from "../../../src/protocol/frames.ts";
import { SOCKET_BUFFER_BYTES_MAX, WINDOW_BYTES_MIN } from "../../../src/protocol/limits.ts";
import type { Place, ResetPolicy } from "../../../src/protocol/places.ts";
import {
  type EffectOf,
  framesOf,
  joinResult,
  lines,
  readerPartition,
  readSizes,
  SessionScript,
  transacted,
} from "../../support/session-script.ts";

const KIB = 1024;
const POLICY_TIME_OFFSET = 7;
const REVOKE_DEADLINE_MS = 5_000;

// ── the log ──────────────────────────────────────────────────────────────────────────────────────────────

interface Log {
  readonly partition: number;
  readonly partitionId: number;
  readonly sizes: number[];
  logStartOffset: number;
}

/** The partitions of the one topic, and of those that had its name before. */
class Topic {
  logs: Log[] = [];
  #lastId = 0;

  add(sizes: readonly number[]): Log {
    this.#lastId += 1;
    const log = {
      partition: this.logs.length,
      partitionId: this.#lastId,
      sizes: [...sizes],
      logStartOffset: 0,
    };
    this.logs.push(log);
    return log;
  }

  find(partitionId: number): Log | undefined {
    return this.logs.find((log) => log.partitionId === partitionId);
  }
}

const boundsOf = ({ logStartOffset, sizes }: Log) => ({ logStartOffset, logEndOffset: sizes.length });

function policyPosition(policy: ResetPolicy, log: Log): number | null {
  if (policy === "none") return null;
  if (policy === "latest") return log.sizes.length;
  const wanted = policy === "earliest" ? 0 : POLICY_TIME_OFFSET;
  return Math.min(Math.max(wanted, log.logStartOffset), log.sizes.length);
}

// ── the group ────────────────────────────────────────────────────────────────────────────────────────────

/** As the database has it. One of its members is the subscription of its name; of the others nobody here knows. */
class Group {
  /** Of the one member. */
  readonly #ownerships = new Map<number, { generation: number; isRevoked: boolean }>();
  readonly #committed = new Map<number, number>();
  readonly #told: ToldOwnerships = new Map();
  readonly #reset: ResetPolicy;

  constructor(reset: ResetPolicy) {
    this.#reset = reset;
  }

  owns({ partitionId, generation }: OwnedPartition): boolean {
    return this.#ownerships.get(partitionId)?.generation === generation;
  }

  isOwned({ partitionId }: Log): boolean {
    return this.#ownerships.has(partitionId);
  }

  isRevoked({ partitionId }: Pick<Log, "partitionId">): boolean {
    return this.#ownerships.get(partitionId)?.isRevoked ?? false;
  }

  committed({ partitionId }: Pick<Log, "partitionId">): number {
    return this.#committed.get(partitionId) ?? 0;
  }

  /** In a new generation, whoever had it. */
  give(log: Log, generation: number): void {
    const { partitionId, logStartOffset, sizes } = log;
    const committed = this.#committed.get(partitionId);
    const isUsable = committed !== undefined && committed >= logStartOffset && committed <= sizes.length;
    const start = policyPosition(committed === undefined ? "earliest" : this.#reset, log);
    if (!isUsable && start !== null) this.#committed.set(partitionId, start);
    this.#ownerships.set(partitionId, { generation, isRevoked: false });
  }

  revoke({ partitionId }: Log): void {
    const ownership = this.#ownerships.get(partitionId);
    if (ownership) ownership.isRevoked = true;
  }

  /** A deadline is over, or was before anybody here has heard of it. */
  take({ partitionId }: Pick<Log, "partitionId">): void {
    this.#ownerships.delete(partitionId);
  }

  reset(log: Log, to: { generation: number; offset: number }): void {
    if (!this.isOwned(log) || this.isRevoked(log)) return;
    this.#committed.set(log.partitionId, to.offset);
    this.#ownerships.set(log.partitionId, { generation: to.generation, isRevoked: false });
  }

  commit(owned: OwnedPartition, offset: number): boolean {
    if (!this.owns(owned)) return false;
    this.#committed.set(owned.partitionId, Math.max(this.committed(owned), offset));
    return true;
  }

  /** What its member has to be told, by the same function as in the server. */
  tell(logs: readonly Log[]): OwnershipChange {
    const existing = new Set(logs.map(({ partitionId }) => partitionId));
    for (const partitionId of this.#ownerships.keys())
      if (!existing.has(partitionId)) this.take({ partitionId });
    const member: GroupMember = {
      memberId: "m1",
      membership: 1,
      instanceId: null,
      processId: null,
      topics: ["orders"],
      policies: { missing: "earliest", outOfRange: this.#reset },
      expiresInMs: 45_000,
    };
    const partitions = logs.map((log) => this.#partition(log));
    const picture = { group: "g", version: 1, nowMs: 0, members: [member], partitions };
    return tellOwnership(this.#told, member, { ...newsOf(picture), metadata: new Map() });
  }

  #partition(log: Log): GroupPartition {
    const { partition, partitionId } = log;
    const ownership = this.#ownerships.get(partitionId);
    return {
      topic: "orders",
      topicId: 7,
      partition,
      partitionId,
      ...boundsOf(log),
      committedOffset: this.#committed.get(partitionId) ?? null,
      hasMetadata: false,
      owner: ownership
        ? {
            memberId: "m1",
            generation: ownership.generation,
            revokeInMs: ownership.isRevoked ? REVOKE_DEADLINE_MS : null,
            reset: null,
          }
        : null,
      partitionsSeen: 0,
      topicIdSeen: null,
    };
  }
}

// ── the client ───────────────────────────────────────────────────────────────────────────────────────────

interface Owned {
  readonly generation: number;
  /** The next offset that it must get; null: it has no place. */
  next: number | null;
  /** The highest position that it was given or has reached. */
  furthest: number;
  isPaused: boolean;
  /** It goes, or has gone: the client may acknowledge what it has. */
  isRevoked: boolean;
  /** What it has, and its server counts as unacknowledged. */
  unacked: { readonly offset: number; readonly bytes: number }[];
}

interface Subscriber {
  readonly name: string;
  /** Undefined: a reader. */
  readonly group: Group | undefined;
  readonly window: Window;
  readonly isAcking: boolean;
  readonly owned: Map<number, Owned>;
  isOpen: boolean;
  /** The id of its unsubscribe, from then on: it is sent what is committed ahead and nothing else. */
  leavingId: number | undefined;
  isEnded: boolean;
  isAnswered: boolean;
  read: EffectOf<"read"> | undefined;
  /** The sizes of the log that was read last. */
  sizesRead: readonly number[];
  /** While the end of what it brought is committed the read is not over. */
  isCommittingAhead: boolean;
  /** How far, by generation, as long as no seek has voided it. */
  readonly committedAhead: Map<number, number>;
  /** How far, by generation, it is to be sent as soon as that is committed: nothing has failed. */
  readonly due: Map<number, number>;
  /** What was asked for and is not answered, in its order. */
  readonly gains: (() => SessionEvent)[];
}

type GainEffect = EffectOf<"join"> | EffectOf<"openReader"> | EffectOf<"gainReader">;

type Pending =
  | EffectOf<"commit">
  | EffectOf<"commitAhead">
  | EffectOf<"locate">
  | EffectOf<"reposition">
  | EffectOf<"release">
  | EffectOf<"stall">
  | EffectOf<"leave">
  | EffectOf<"transact">;

class World {
  readonly script = new SessionScript();
  readonly topic = new Topic();
  readonly subscribers = new Map<string, Subscriber>();
  readonly #pending: Pending[] = [];
  readonly #waits = new Map<string, EffectOf<"wait">>();
  #lastGeneration = 0;
  #lastId = 0;
  #alarmAtMs = Number.POSITIVE_INFINITY;
  isDraining = false;
  isClosed = false;

  constructor(logs: readonly (readonly number[])[], subscriptions: readonly SubscriptionChoice[]) {
    for (const sizes of logs) this.topic.add(sizes);
    this.step({ type: "opened" });
    for (const [index, choice] of subscriptions.entries()) this.#subscribe(`s${index}`, choice);
  }

  #subscribe(name: string, { kind, ack, window, reset, ackTimeoutMs }: SubscriptionChoice): void {
    const isAcking = ack === "manual";
    const source = kind === "group" ? { group: name } : { from: "earliest" as const };
    const timeout = kind === "group" && isAcking ? { ackTimeoutMs } : {};
    const frame: SubscribeFrame = { type: "subscribe", subscription: name, topics: ["orders"], ...source };
    this.subscribers.set(name, {
      name,
      group: kind === "group" ? new Group(reset) : undefined,
      window,
      isAcking,
      owned: new Map(),
      isOpen: false,
      leavingId: undefined,
      isEnded: false,
      isAnswered: false,
      read: undefined,
      sizesRead: [],
      isCommittingAhead: false,
      committedAhead: new Map(),
      due: new Map(),
      gains: [],
    });
    this.receive({ ...frame, ...timeout, ack, window, reset: { outOfRange: reset } });
  }

  receive(frame: Parameters<SessionScript["receive"]>[0]): void {
    this.step({ type: "frame", frame });
  }

  step(event: SessionEvent): void {
    if (this.isClosed) return;
    if (this.script.bufferedBytes === 0) this.#takeAll();
    const effects = this.script.step(event);
    for (const effect of effects) this.#see(effect);
    for (const subscriber of this.subscribers.values()) this.#check(subscriber);
  }

  /** Without acks a frame is out of the window when the socket has taken it. */
  #takeAll(): void {
    for (const { isAcking, owned } of this.subscribers.values())
      if (!isAcking) for (const partition of owned.values()) partition.unacked = [];
  }

  // ── what the session wants ───────────────────────────────────────────────────────────────────────────

  #see(effect: SessionEffect): void {
    switch (effect.type) {
      case "send":
      case "sendText":
        return this.#receiveFrame(effect);
      case "read":
        return this.#seeRead(effect);
      case "join":
      case "openReader":
      case "gainReader":
        return this.#seeGain(effect);
      case "release":
        this.#seeRelease(effect);
        this.#pending.push(effect);
        return;
      case "wait":
        this.#waits.set(`${effect.ref.name}/${effect.ref.partitionKey}`, effect);
        return;
      case "stopWaiting":
        for (const [key, { ref }] of this.#waits) {
          const isMeant = effect.partitionKey === undefined || effect.partitionKey === ref.partitionKey;
          if (ref.serial === effect.ref.serial && isMeant) this.#waits.delete(key);
        }
        return;
      case "setAlarm":
        expect(effect.delayMs).toBeGreaterThanOrEqual(0);
        this.#alarmAtMs = this.script.nowMs + effect.delayMs;
        return;
      case "close":
        this.isClosed = true;
        return;
      case "commitAhead":
        this.#the(effect.ref.name).isCommittingAhead = true;
        this.#the(effect.ref.name).committedAhead.set(effect.ack.generation, effect.ack.offset);
        this.#the(effect.ref.name).due.set(effect.ack.generation, effect.ack.offset);
        this.#pending.push(effect);
        return;
      case "commit":
      case "locate":
      case "reposition":
      case "stall":
      case "transact":
        this.#pending.push(effect);
        return;
      case "leave":
        this.#seeLeave(this.#the(effect.member.group));
        if (effect.answer) this.#pending.push(effect);
        return;
      case "detach":
      case "renew":
      case "ping":
        return;
    }
  }

  #seeRead(read: EffectOf<"read">): void {
    const subscriber = this.#the(read.ref.name);
    const owned = subscriber.owned.get(Number(read.ref.partitionKey.split("/")[1]));
    if (
      subscriber.read ||
      subscriber.isCommittingAhead ||
      this.#isFull ||
      this.isDraining ||
      !owned ||
      subscriber.leavingId !== undefined ||
      owned.isPaused ||
      owned.isRevoked
    )
      throw new Error(`no ${lines([read])} is wanted now`);
    expect(read.request.from).toBe(owned.next ?? -1);
    subscriber.read = read;
  }

  /** What is let go was told to go, and nothing of it is out; at most once: nothing of it is committed and not sent. */
  #seeRelease({ member, partitions }: EffectOf<"release">): void {
    const { owned, committedAhead } = this.#the(member.group);
    for (const { generation } of partitions) {
      const released = [...owned.values()].find((each) => each.generation === generation);
      expect(released).toMatchObject({ isRevoked: true, unacked: [] });
      expect(committedAhead.get(generation) ?? -1).toBeLessThanOrEqual(released?.furthest ?? -1);
    }
  }

  /** Once, when it was asked to, and everything that is committed ahead has been sent. */
  #seeLeave(subscriber: Subscriber): void {
    const { leavingId, isEnded } = subscriber;
    expect({ isAsked: leavingId !== undefined, isEnded }).toEqual({ isAsked: true, isEnded: false });
    expect(unsent(subscriber)).toEqual([]);
    end(subscriber);
  }

  /** The database answers now or later, and always in the order in which it was asked. */
  #seeGain(effect: GainEffect): void {
    const subscriber = this.#the(effect.ref.name);
    let found: SessionEvent | undefined;
    const find = () => {
      found ??= this.#gainOf(subscriber, effect);
      return found;
    };
    if (subscriber.gains.length === 0) find(); // what it finds may be gone when it comes
    subscriber.gains.push(find);
  }

  #gainOf(subscriber: Subscriber, effect: GainEffect): SessionEvent {
    const { ref } = effect;
    if (effect.type === "openReader" || effect.type === "gainReader") {
      const known = effect.type === "gainReader" ? effect.knownPartitionIds : new Set();
      const partitions = this.topic.logs
        .filter(({ partitionId }) => !known.has(partitionId))
        .map((log) => readerPartition({ ...log, ...boundsOf(log), position: log.logStartOffset }));
      const type = effect.type === "openReader" ? "readerOpened" : "readerGained";
      return { type, ref, partitions };
    }
    for (const log of this.topic.logs) subscriber.group?.give(log, this.#nextGeneration());
    const owned = subscriber.group?.tell(this.topic.logs) ?? { gained: [], revoked: [], lost: [] };
    return { type: "joined", ref, result: joinResult({ owned }) };
  }

  #nextGeneration(): number {
    this.#lastGeneration += 1;
    return this.#lastGeneration;
  }

  // ── what the client gets ─────────────────────────────────────────────────────────────────────────────

  #receiveFrame(effect: EffectOf<"send"> | EffectOf<"sendText">): void {
    for (const frame of framesOf([effect])) {
      if (frame.type === "records") this.#receiveRecords(frame);
      if (frame.type === "assigned") {
        const subscriber = this.#the(frame.subscription);
        expect(subscriber.isOpen).toBe(true);
        for (const partition of frame.partitions) receiveAssigned(subscriber, partition);
      }
      if (frame.type === "subscribed") this.#the(frame.subscription).isOpen = true;
      if (frame.type === "revoked") {
        const { owned } = this.#the(frame.subscription);
        for (const { partition, generation } of frame.partitions) {
          const revoked = owned.get(partition);
          expect(revoked).toMatchObject({ generation, isRevoked: false });
          if (revoked && frame.deadlineMs > 0) revoked.isRevoked = true;
          else owned.delete(partition);
        }
      }
      if (frame.type === "unsubscribed") this.#receiveUnsubscribed(this.#the(frame.subscription), frame.id);
    }
  }

  #receiveUnsubscribed(subscriber: Subscriber, id: unknown): void {
    expect(subscriber.isAnswered).toBe(false);
    expect(id).toBe(subscriber.leavingId);
    if (!subscriber.group && id !== undefined) end(subscriber);
    expect(subscriber.isEnded).toBe(true);
    subscriber.isAnswered = true;
  }

  #receiveRecords(frame: Extract<ReturnType<typeof framesOf>[number], { type: "records" }>): void {
    const subscriber = this.#the(frame.subscription);
    const { owned, isEnded, leavingId } = subscriber;
    const partition = owned.get(frame.partition);
    const isLeaving = leavingId !== undefined;
    const isDue = unsent(subscriber).includes(frame.partition);
    if (!partition || isEnded || partition.isRevoked || ((partition.isPaused || isLeaving) && !isDue))
      throw new Error(`unwanted: ${JSON.stringify(frame)}`);
    expect(frame.generation).toBe(partition.generation);
    const from = partition.next ?? -1;
    const offsets = frame.records.map(({ offset }) => offset);
    expect(offsets.length).toBeGreaterThan(0);
    expect(offsets).toEqual(offsets.map((_, index) => from + index));
    expect(frame.next).toBe(from + offsets.length);
    if (this.#isFull && !isLeaving) throw new Error("the socket is full");
    // Of the log that was read: the topic may have been created anew since.
    const { sizesRead } = subscriber;
    partition.unacked.push(...offsets.map((offset) => ({ offset, bytes: sizesRead[offset] ?? 0 })));
    partition.next = frame.next;
    partition.furthest = Math.max(partition.furthest, frame.next);
  }

  get #isFull(): boolean {
    return this.script.bufferedBytes >= SOCKET_BUFFER_BYTES_MAX;
  }

  #check(subscriber: Subscriber): void {
    const { window, owned, leavingId, isCommittingAhead } = subscriber;
    // What is committed is sent, at once, paused or not: it waits for a full socket only.
    const maySendLater = isCommittingAhead || (this.#isFull && leavingId === undefined);
    if (!maySendLater || this.isClosed) expect(unsent(subscriber)).toEqual([]);
    const unacked = [...owned.values()].flatMap((partition) => partition.unacked);
    expect(unacked.length).toBeLessThanOrEqual(window.records);
    if (unacked.length > 1) expect(sum(unacked.map(({ bytes }) => bytes))).toBeLessThanOrEqual(window.bytes);
  }

  // ── moves ────────────────────────────────────────────────────────────────────────────────────────────

  answerRead(which: number): void {
    const reading = [...this.subscribers.values()].filter(({ read }) => read);
    const subscriber = pick(reading, which);
    const read = subscriber?.read;
    if (!subscriber || !read) return;
    subscriber.read = undefined;
    const log = this.topic.find(read.request.partitionId);
    if (!log) return this.step({ type: "readGone", ref: read.ref });
    subscriber.sizesRead = log.sizes;
    const from = Math.max(read.request.from, log.logStartOffset);
    const extent = readSizes(log.sizes, { ...read.request, from });
    const records = Array.from(
      { length: extent.count },
      (_, index) => `{"offset":${from + index},"timestamp":0,"value":null}`,
    );
    const chunk = { ...extent, logStartOffset: log.logStartOffset, records: records.join(",") };
    this.step({ type: "chunk", ref: read.ref, chunk });
  }

  settle(which: number, isDone: boolean): boolean {
    const pending = pick(this.#pending, which);
    if (!pending) return false;
    // Commits are settled in their order, and so are seeks.
    const first = this.#pending.find(({ type }) => type === pending.type) ?? pending;
    this.#pending.splice(this.#pending.indexOf(first), 1);
    this.#settleOne(first, isDone);
    return true;
  }

  #settleOne(pending: Pending, isDone: boolean): void {
    const problem = new Problem("unavailable", "The disk does not answer");
    switch (pending.type) {
      case "commit": {
        const { ref, id, acks } = pending;
        if (!isDone) return this.step({ type: "commitFailed", ref, id, acks, problem });
        return this.step({ type: "committed", ref, id, acks, outcomes: this.#commit(pending) });
      }
      case "commitAhead": {
        const { ref, chunk, ack } = pending;
        const subscriber = this.#the(ref.name);
        subscriber.isCommittingAhead = false;
        // What has failed for all that the server knows may be there.
        const isFenced = !this.#commitOne(subscriber, ack);
        if (isFenced || !isDone) subscriber.due.delete(ack.generation);
        if (!isDone) return this.step({ type: "commitAheadFailed", ref });
        return this.step({ type: "committedAhead", ref, chunk, isFenced });
      }
      case "locate": {
        const facts = this.#factsOf(pending.seek.partitionId);
        return this.step({
          type: "located",
          seek: pending.seek,
          outcome: isDone && facts ? facts : { problem },
        });
      }
      case "reposition": {
        const log = this.topic.find(pending.request.partitionId);
        const facts = this.#factsOf(pending.request.partitionId);
        if (!log || !facts) return;
        const { policy } = pending.request;
        const to = { ...facts, policy, position: policyPosition(policy, log) };
        return this.step({ type: "repositioned", ref: pending.ref, to });
      }
      case "release":
        return this.#release(pending);
      case "stall":
        return this.#stall(pending, isDone);
      case "leave":
        return pending.answer && this.step({ type: "left", ...pending.answer });
      case "transact":
        return this.step(transacted(pending, { written: { runs: [] } }));
    }
  }

  #factsOf(partitionId: number): LocatedFacts | undefined {
    const log = this.topic.find(partitionId);
    return (
      log && { ...boundsOf(log), committedOffset: null, metadata: null, offsetAtTime: POLICY_TIME_OFFSET }
    );
  }

  /** Where it cannot be written the deadline does the same. */
  #release({ member, partitions }: EffectOf<"release">): void {
    const { group } = this.#the(member.group);
    for (const owned of partitions) if (group?.owns(owned) && group.isRevoked(owned)) group.take(owned);
  }

  /** To another member, or to the same one anew. */
  #stall({ member, partitions }: EffectOf<"stall">, isTaken: boolean): void {
    const { group } = this.#the(member.group);
    for (const owned of partitions) {
      const log = this.topic.find(owned.partitionId);
      if (!log || !group?.owns(owned)) continue;
      if (isTaken || group.isRevoked(log)) group.take(log);
      else group.give(log, this.#nextGeneration());
    }
  }

  #commit({ ref, acks }: EffectOf<"commit">): readonly AckOutcome[] {
    const subscriber = this.#the(ref.name);
    return acks.map((ack) => {
      if (ack.refusal !== undefined) return { committedOffset: null, code: ack.refusal };
      if (!this.#commitOne(subscriber, ack)) return { committedOffset: null, code: "fenced_generation" };
      const owned = subscriber.owned.get(ack.partition);
      if (owned?.generation === ack.generation)
        owned.unacked = owned.unacked.filter(({ offset }) => offset >= ack.offset);
      return { committedOffset: ack.offset, code: undefined };
    });
  }

  #commitOne({ group }: Subscriber, { partition, generation, offset }: AckRequest): boolean {
    const log = this.topic.logs.find((each) => each.partition === partition);
    return log !== undefined && group?.commit({ ...log, generation }, offset) === true;
  }

  settleGain(which: number): boolean {
    const asking = [...this.subscribers.values()].filter(({ gains }) => gains.length > 0);
    const found = pick(asking, which)?.gains.shift();
    if (!found) return false;
    this.step(found());
    return true;
  }

  ack(which: number, howFar: number): void {
    const { subscriber, partition, owned } = this.#ownedAt(which) ?? {};
    if (!subscriber || partition === undefined || !owned) return;
    const offset = Math.max(0, (owned.next ?? 0) - (howFar % 12) + 1);
    const generation = owned.generation - (howFar % 11 === 10 ? 1 : 0);
    if (!subscriber.group && offset <= owned.furthest && generation === owned.generation)
      owned.unacked = owned.unacked.filter((record) => record.offset >= offset);
    const offsets = [{ topic: "orders", partition, generation, offset }];
    this.receive({ type: "ack", subscription: subscriber.name, offsets });
  }

  ackEverything(): void {
    for (const { name, owned, group, leavingId } of this.subscribers.values()) {
      if (leavingId !== undefined) continue;
      const offsets = [...owned].flatMap(([partition, { generation, next }]) =>
        next === null ? [] : [{ topic: "orders", partition, generation, offset: next }],
      );
      if (!group) for (const partition of owned.values()) partition.unacked = [];
      if (offsets.length > 0) this.receive({ type: "ack", subscription: name, offsets });
    }
  }

  seek(which: number, to: Place): void {
    const { subscriber, partition } = this.#ownedAt(which) ?? {};
    if (subscriber && partition !== undefined)
      this.receive({ type: "seek", subscription: subscriber.name, topic: "orders", partition, to });
  }

  pause(which: number, type: "pause" | "resume"): void {
    const { subscriber, partition, owned } = this.#ownedAt(which) ?? {};
    if (!subscriber || partition === undefined || !owned) return;
    owned.isPaused = type === "pause";
    this.receive({ type, subscription: subscriber.name, partitions: [{ topic: "orders", partition }] });
  }

  resumeEverything(): void {
    for (const [which] of this.#allOwned().entries()) this.pause(which, "resume");
  }

  // ── the groups ───────────────────────────────────────────────────────────────────────────────────────

  rebalance(which: number, how: "revoke" | "take" | "give"): void {
    const { group, log } = pick(this.#allShares(), which) ?? {};
    if (!group || !log) return;
    if (how === "revoke") group.revoke(log);
    if (how === "take") group.take(log);
    if (how === "give" && !group.isOwned(log)) group.give(log, this.#nextGeneration());
  }

  reset(which: number, howFar: number): void {
    const { group, log } = pick(this.#allShares(), which) ?? {};
    if (!group || !log) return;
    const offset = Math.min(Math.max(howFar, log.logStartOffset), log.sizes.length);
    group.reset(log, { generation: this.#nextGeneration(), offset });
  }

  release(which: number): void {
    const { subscriber, partition, owned } = this.#ownedAt(which) ?? {};
    if (!subscriber?.group || partition === undefined || !owned) return;
    if (owned.isRevoked) owned.unacked = [];
    const partitions = [{ topic: "orders", partition }];
    this.receive({ type: "release", subscription: subscriber.name, partitions });
  }

  /** The member is told what has become of its group. */
  look(which: number): void {
    const subscriber = pick(this.#members, which);
    if (!subscriber?.group) return;
    const { name, owned, group } = subscriber;
    const change = group.tell(this.topic.logs);
    const lost = new Set(change.lost.map(({ generation }) => generation));
    const isLost = ({ generation }: Owned) => lost.has(generation);
    for (const [partition, each] of owned) if (each.isRevoked && isLost(each)) owned.delete(partition);
    this.step({ type: "ownership", ref: { name, serial: this.#serialOf(subscriber) }, change });
    if (!this.isClosed) expect([...owned.values()].filter(isLost)).toEqual([]);
  }

  lookAtEverything(): void {
    for (const [which] of this.#members.entries()) this.look(which);
  }

  giveEverything(): void {
    for (const { group, log } of this.#allShares())
      if (!group.isOwned(log)) group.give(log, this.#nextGeneration());
  }

  get #members(): readonly Subscriber[] {
    return [...this.subscribers.values()].filter(({ group, isOpen, isEnded }) => group && isOpen && !isEnded);
  }

  #allShares() {
    return this.#members.flatMap(({ group }) =>
      group ? this.topic.logs.map((log) => ({ group, log })) : [],
    );
  }

  #serialOf({ name }: Subscriber): number {
    return [...this.subscribers.keys()].indexOf(name) + 1;
  }

  end(which: number, how: "unsubscribe" | "replaced" | "expired"): void {
    const subscriber = pick([...this.subscribers.values()], which);
    if (!subscriber?.isOpen || subscriber.isEnded) return;
    if (how === "unsubscribe") return this.#unsubscribe(subscriber);
    subscriber.isEnded = true;
    const serial = this.#serialOf(subscriber);
    this.step({ type: "ended", ref: { name: subscriber.name, serial }, reason: how });
    if (how === "expired" && !this.isClosed)
      expect([...subscriber.owned.values()].filter(({ isRevoked }) => !isRevoked)).toEqual([]);
    end(subscriber);
  }

  /** Once: another one while it is leaving is refused. */
  #unsubscribe(subscriber: Subscriber): void {
    this.#lastId += 1;
    subscriber.leavingId ??= this.#lastId;
    this.receive({ type: "unsubscribe", id: this.#lastId, subscription: subscriber.name });
  }

  /** One of those whose chunk is being committed ahead, if there are any. */
  unsubscribeCommitting(which: number): void {
    const subscriber = pick(
      [...this.subscribers.values()].filter((each) => each.isCommittingAhead),
      which,
    );
    if (subscriber) this.end([...this.subscribers.values()].indexOf(subscriber), "unsubscribe");
  }

  pauseCommitting(): void {
    for (const [which, { subscriber }] of this.#allOwned().entries())
      if (subscriber.isCommittingAhead) this.pause(which, "pause");
  }

  growLog(which: number, sizes: readonly number[]): void {
    pick(this.topic.logs, which)?.sizes.push(...sizes);
  }

  trim(which: number, by: number): void {
    const log = pick(this.topic.logs, which);
    if (log) log.logStartOffset = Math.min(log.sizes.length, log.logStartOffset + by);
  }

  growTopic(sizes: readonly number[]): void {
    if (this.topic.logs.length === 0) return;
    const { partitionId } = this.topic.add(sizes);
    this.#tell("grown", [partitionId]);
  }

  deleteTopic(): void {
    const partitionIds = this.topic.logs.map(({ partitionId }) => partitionId);
    if (partitionIds.length === 0) return;
    this.topic.logs = [];
    this.#tell("deleted", partitionIds);
  }

  createTopic(sizes: readonly number[]): void {
    if (this.topic.logs.length > 0) return;
    const { partitionId } = this.topic.add(sizes);
    this.#tell("created", [partitionId]);
  }

  #tell(change: "grown" | "deleted" | "created", partitionIds: readonly number[]): void {
    this.step({ type: "topicChanged", topic: "orders", change, partitionIds });
  }

  /** Tells whoever waits for a partition that has grown. */
  wake(): void {
    for (const [key, { ref, partitionId, position }] of [...this.#waits]) {
      if (position >= (this.topic.find(partitionId)?.sizes.length ?? 0)) continue;
      this.#waits.delete(key);
      this.step({ type: "grown", ref });
    }
  }

  buffer(bytes: number): void {
    this.script.bufferedBytes = bytes;
    this.step({ type: "drained" });
  }

  /** The client is alive: it is heard of before the alarm. */
  pass(ms: number): void {
    this.script.nowMs += ms;
    this.receive({ type: "pong" });
    while (this.script.nowMs >= this.#alarmAtMs) {
      this.#alarmAtMs = Number.POSITIVE_INFINITY;
      this.step({ type: "alarm" });
    }
  }

  drain(): void {
    this.isDraining = true;
    this.step({ type: "draining", retryAfterMs: 500 });
  }

  // ── the end ──────────────────────────────────────────────────────────────────────────────────────────

  get isQuiet(): boolean {
    const subscribers = [...this.subscribers.values()];
    return this.#pending.length === 0 && subscribers.every(({ read, gains }) => !read && gains.length === 0);
  }

  settleEverything(): void {
    for (let rounds = 2_000; !this.isClosed && !this.isQuiet; rounds -= 1) {
      expect(rounds).toBeGreaterThan(0);
      this.settleGain(0);
      this.settle(0, true);
      this.answerRead(0);
    }
  }

  expectNothingReserved(): void {
    for (const { delivery } of this.script.session.subscriptions.values())
      expect(delivery.reservedBytes).toBe(0);
    expect(Object.values(this.script.session.waiting)).toEqual([0, 0, 0, 0, 0]);
  }

  /** Every open subscription has every partition, and has got all of it that lies behind its place. */
  expectCaughtUp(): void {
    for (const { name, owned, isEnded, isAnswered } of this.subscribers.values()) {
      expect([name, isAnswered]).toEqual([name, isEnded]);
      if (isEnded) continue;
      const partitions = [...owned.keys()].sort();
      expect([name, ...partitions]).toEqual([name, ...this.topic.logs.map(({ partition }) => partition)]);
      for (const { partition, sizes } of this.topic.logs) {
        expect(owned.get(partition)?.isRevoked).toBe(false);
        const next = owned.get(partition)?.next ?? null;
        if (next !== null) expect([name, partition, next]).toEqual([name, partition, sizes.length]);
      }
    }
  }

  #allOwned() {
    const staying = [...this.subscribers.values()].filter(({ leavingId }) => leavingId === undefined);
    return staying.flatMap((subscriber) =>
      [...subscriber.owned].map(([partition, owned]) => ({ subscriber, partition, owned })),
    );
  }

  #ownedAt(which: number) {
    return pick(this.#allOwned(), which);
  }

  #the(name: string): Subscriber {
    const subscriber = this.subscribers.get(name);
    if (!subscriber) throw new Error(`there is no subscription ${name}`);
    return subscriber;
  }
}

function receiveAssigned(
  { owned, group, committedAhead, due }: Subscriber,
  { partition, generation, position }: AssignedPartition,
): void {
  const before = owned.get(partition);
  const isSame = before?.generation === generation;
  if (before && !isSame && !group) throw new Error(`a reader's partition ${partition} was never revoked`);
  if (before) expect(generation).toBeGreaterThanOrEqual(before.generation);
  if (isSame) for (const committed of [committedAhead, due]) committed.delete(generation);
  owned.set(partition, {
    generation,
    next: position,
    furthest: Math.max(isSame ? before.furthest : -1, position ?? -1),
    unacked: [],
    isPaused: before !== undefined && !before.isRevoked && before.isPaused,
    isRevoked: false,
  });
}

function end(subscriber: Subscriber): void {
  subscriber.isEnded = true;
  subscriber.owned.clear();
  subscriber.gains.length = 0;
  subscriber.read = undefined;
  subscriber.isCommittingAhead = false;
}

/** The partitions of which more is committed ahead, or is about to be, than was sent. */
function unsent({ owned, due }: Subscriber): readonly number[] {
  return [...owned].flatMap(([partition, { generation, next }]) =>
    (due.get(generation) ?? -1) > (next ?? -1) ? [partition] : [],
  );
}

function pick<T>(items: readonly T[], which: number): T | undefined {
  return items[which % items.length];
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

// ── chance ───────────────────────────────────────────────────────────────────────────────────────────────

const sizesArbitrary = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: 1, max: 4 * KIB }) },
    { weight: 1, arbitrary: fc.integer({ min: 1, max: 100 * KIB }) },
  ),
  { maxLength: 25 },
);

const subscriptionArbitrary = fc.record({
  kind: fc.constantFrom("group" as const, "reader" as const),
  ack: fc.constantFrom("manual" as const, "none" as const),
  window: fc.record({
    records: fc.integer({ min: 1, max: 20 }),
    bytes: fc.integer({ min: WINDOW_BYTES_MIN, max: 2 * WINDOW_BYTES_MIN }),
  }),
  reset: fc.constantFrom<ResetPolicy>("earliest", "latest", "none", { ago: 5 }),
  ackTimeoutMs: fc.constantFrom(undefined, 1_000),
});

type SubscriptionChoice = typeof subscriptionArbitrary extends fc.Arbitrary<infer T> ? T : never;
type Move = (world: World) => void;

const move = <T>(weight: number, given: fc.Arbitrary<T>, run: (world: World, given: T) => void) => ({
  weight,
  arbitrary: given.map((value): Move => {
    const made = (world: World) => run(world, value);
    return Object.assign(made, { toString: () => `${run}(${JSON.stringify(value)})` });
  }),
});
const which = fc.nat(9);
const placeArbitrary = fc.oneof(
  fc.constantFrom<Place>("earliest", "latest", { ago: 5 }),
  fc.nat(30).map((offset): Place => ({ offset })),
);

const moveArbitrary = fc.oneof(
  move(14, which, (world, given) => world.answerRead(given)),
  move(8, fc.tuple(which, fc.nat(200)), (world, given) => world.ack(...given)),
  move(10, fc.tuple(which, fc.integer({ min: 0, max: 3 })), (world, [given, luck]) =>
    world.settle(given, luck > 0),
  ),
  move(5, which, (world, given) => void world.settleGain(given)),
  move(4, fc.tuple(which, placeArbitrary), (world, given) => world.seek(...given)),
  move(3, which, (world, given) => world.pause(given, "pause")),
  move(3, which, (world, given) => world.pause(given, "resume")),
  move(3, fc.tuple(which, sizesArbitrary), (world, given) => world.growLog(...given)),
  move(2, fc.tuple(which, fc.nat(15)), (world, given) => world.trim(...given)),
  move(3, fc.constant(0), (world) => world.wake()),
  move(1, sizesArbitrary, (world, given) => world.growTopic(given)),
  move(1, fc.constant(0), (world) => world.deleteTopic()),
  move(2, sizesArbitrary, (world, given) => world.createTopic(given)),
  move(2, fc.constantFrom(0, 1, SOCKET_BUFFER_BYTES_MAX), (world, given) => world.buffer(given)),
  move(2, fc.constantFrom(1, 600, 1_000), (world, given) => world.pass(given)),
  move(
    1,
    fc.tuple(which, fc.constantFrom("unsubscribe" as const, "replaced" as const, "expired" as const)),
    (world, given) => world.end(...given),
  ),
  move(1, which, (world, given) => world.unsubscribeCommitting(given)),
  move(1, fc.constant(0), (world) => world.pauseCommitting()),
  move(
    6,
    fc.tuple(which, fc.constantFrom("revoke" as const, "take" as const, "give" as const)),
    (world, given) => world.rebalance(...given),
  ),
  move(1, fc.tuple(which, fc.nat(25)), (world, given) => world.reset(...given)),
  move(8, which, (world, given) => world.look(given)),
  move(2, which, (world, given) => world.release(given)),
);

const worldArbitrary = fc
  .tuple(
    fc.array(sizesArbitrary, { minLength: 1, maxLength: 3 }),
    fc.array(subscriptionArbitrary, { minLength: 1, maxLength: 3 }),
  )
  .map((given) => Object.assign(() => new World(...given), { toString: () => JSON.stringify(given) }));
const movesArbitrary = fc.array(moveArbitrary, { maxLength: 150, size: "max" });

test("in whatever order: windows hold, records come in order to whom they belong, and all of them in the end", () => {
  const property = fc.property(worldArbitrary, movesArbitrary, (create, moves) => {
    const world = create();
    for (const make of moves) make(world);
    world.buffer(0);
    world.resumeEverything();
    for (let rounds = 0; rounds < 200; rounds += 1) {
      world.giveEverything();
      world.lookAtEverything();
      world.settleEverything();
      world.ackEverything();
      world.wake();
      world.buffer(0);
    }
    world.settleEverything();
    world.expectNothingReserved();
    world.expectCaughtUp();
  });
  fc.assert(property, { numRuns: 300 });
}, 60_000);

test("in whatever order: a socket that is to be closed sends nothing new, and closes when all is acknowledged", () => {
  const property = fc.property(worldArbitrary, movesArbitrary, movesArbitrary, (create, moves, later) => {
    const world = create();
    for (const make of moves) make(world);
    world.drain();
    for (const make of later) make(world);
    world.buffer(0);
    world.lookAtEverything();
    world.settleEverything();
    world.ackEverything();
    world.settleEverything();
    world.buffer(0);
    expect(world.isClosed).toBe(true);
  });
  fc.assert(property, { numRuns: 200 });
}, 60_000);
