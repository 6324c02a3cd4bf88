// A server for consumers and readers, as PROTOCOL.md says what it does, without a network: connections break with what is
// on its way, answers come late, partitions change hands. When, the dice say. consumer-connection.ts has the sockets.

import type { ErrorCode } from "../../src/protocol/codes.ts";
import type {
  AckedEntry,
  AckFrame,
  AssignedPartition,
  ClientFrame,
  ReleaseFrame,
  RevokeReason,
  SeekFrame,
  ServerFrame,
  SubscribeFrame,
} from "../../src/protocol/frames.ts";
import type { Place } from "../../src/protocol/places.ts";
import type { Dice } from "../support/dice.ts";
import { FakeTime } from "../support/fake-time.ts";
import { type Connection, ModelSocket } from "./consumer-connection.ts";

export const TOPIC = "orders";
const REVOKE_DEADLINE_MS = 5_000;
const SESSION_TIMEOUT_MS = 45_000;

export interface Log {
  start: number;
  end: number;
  /** Compacted away. */
  readonly gaps: Set<number>;
}

/** A partition in the hands of a member or reader. */
interface Share {
  readonly generation: number;
  position: number;
  reached: number;
  unacknowledged: number[];
  isPaused: boolean;
}

export interface Member {
  readonly id: string;
  readonly name: string;
  connection: Connection;
  readonly group: string | undefined;
  readonly isCommittedFirst: boolean;
  readonly windowRecords: number;
  readonly shares: Map<number, Share>;
}

interface Slot {
  committed: number;
  /** How often it was put elsewhere, by nobody's ack. */
  moves: number;
  owner: Member | undefined;
  /** Stops the deadline, while it is being revoked. */
  stopDeadline: (() => void) | undefined;
}

export type Trouble = "unavailable" | "outcome_unknown";

export class ConsumerWorld {
  readonly dice: Dice;
  readonly time: FakeTime = new FakeTime();
  readonly seen = new Map<string, number>();
  readonly connections: Connection[] = [];
  logs: Log[];
  topicId = 7;
  /** The next acks and subscriptions come to this. */
  troubles: Trouble[] = [];
  readonly slots: Slot[];
  #members: Member[] = [];
  #lastGeneration = 0;
  #lastId = 0;
  /** What consumers did and must not. */
  readonly defects: Error[] = [];
  /** By consumers that may hand out nothing twice. */
  readonly handedOutOnce = new Set<string>();

  constructor(dice: Dice) {
    this.dice = dice;
    this.logs = Array.from({ length: dice.between(1, 3) }, () => emptyLog());
    this.slots = this.logs.map(() => ({
      ...{ committed: 0, moves: 0, owner: undefined, stopDeadline: undefined },
    }));
  }

  count(what: string): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + 1);
  }

  openSocket(onFrames: Pick<Connection, "onSent" | "onDelivered">): WebSocket {
    const socket = new ModelSocket();
    const connection: Connection = {
      ...{ socket, toServer: [], toClient: [], isDraining: false, isOpen: false, lateAcks: [], ...onFrames },
    };
    socket.onSend = (text) => {
      connection.onSent(JSON.parse(text));
      connection.toServer.push(text);
    };
    this.connections.push(connection);
    return socket as unknown as WebSocket; // as much of one as the client uses
  }

  existing(partition: number, from: number, next: number): readonly number[] {
    const { start, gaps } = this.log(partition);
    const offsets: number[] = [];
    for (let offset = Math.max(from, start); offset < next; offset += 1)
      if (!gaps.has(offset)) offsets.push(offset);
    return offsets;
  }

  log(partition: number): Log {
    const log = this.logs[partition];
    if (!log) throw new Error(`there is no partition ${partition}`);
    return log;
  }

  slot(partition: number): Slot {
    const slot = this.slots[partition];
    if (!slot) throw new Error(`there is no partition ${partition}`);
    return slot;
  }

  get members(): readonly Member[] {
    return this.#members;
  }

  // ── what clients ask ───────────────────────────────────────────────────────────────────────────────────

  handle(connection: Connection, frame: ClientFrame): void {
    const { id } = frame;
    if (frame.type === "pong") return void (id !== undefined && this.#say(connection, { type: "ok", id }));
    if (frame.type === "subscribe") return this.#subscribe(connection, frame);
    const name = "subscription" in frame ? (frame.subscription ?? "default") : "default";
    const member = this.#members.find((each) => each.connection === connection && each.name === name);
    if (!member) return this.#refuse(connection, frame, "unknown_subscription");
    switch (frame.type) {
      case "ack":
        return this.#ack(member, frame);
      case "seek":
        return this.#seek(member, frame);
      case "pause":
      case "resume":
        return this.#pause(member, frame);
      case "release":
        return this.#release(member, frame);
      case "unsubscribe":
        for (const answer of connection.lateAcks.splice(0)) answer(); // nothing of it follows
        this.#say(connection, { type: "unsubscribed", id, subscription: name });
        return this.#endMember(member);
      default:
        throw new Error(`a consumer sends no "${frame.type}"`);
    }
  }

  #subscribe(connection: Connection, frame: SubscribeFrame): void {
    if (connection.isDraining || this.troubles.length > 0) {
      this.troubles.shift();
      this.count("subscribe refused");
      return this.#refuse(connection, frame, "unavailable");
    }
    const { memberId, group, subscription: name = "default" } = frame;
    const older = this.#members.find((each) => memberId !== undefined && each.id === memberId);
    const member: Member = {
      id: older?.id ?? this.#nextId(),
      ...{ name, connection, group, isCommittedFirst: frame.ack === "none", shares: new Map() },
      windowRecords: frame.window?.records ?? 1_000,
    };
    this.#say(connection, {
      ...{ type: "subscribed", id: frame.id, subscription: name, heartbeatMs: 15_000, durability: "fsync" },
      ...{ memberId: group === undefined ? undefined : member.id, sessionTimeoutMs: SESSION_TIMEOUT_MS },
    });
    if (older) this.#takeOver(older, member);
    this.#members.push(member);
    if (group === undefined) return this.#startReader(member, frame);
    const kept = this.#partitions.filter((partition) => this.slot(partition).owner === member);
    const free = this.#partitions.filter((partition) => !this.slot(partition).owner);
    const gained = [...kept, ...free.filter((partition) => this.#wantedOwner(partition) === member)];
    this.#sayAssigned(
      member,
      gained.map((partition) => this.#give(partition, member)),
    );
    this.#rebalance();
  }

  #takeOver(older: Member, member: Member): void {
    this.count("taken over");
    this.#say(older.connection, { type: "unsubscribed", subscription: older.name, code: "replaced" });
    for (const partition of older.shares.keys()) {
      const slot = this.slot(partition);
      if (slot.stopDeadline) this.#free(partition);
      else slot.owner = member;
    }
    older.shares.clear();
    this.#members = this.#members.filter((each) => each !== older);
  }

  #startReader(member: Member, { from }: SubscribeFrame): void {
    const starts = this.#partitions.map((partition) => {
      const { start, end } = this.log(partition);
      const listed = Array.isArray(from) ? from.find((each) => each.partition === partition) : undefined;
      const wanted = listed?.offset ?? (from === "latest" ? end : start);
      return this.#assign(partition, member, { position: Math.max(wanted, start), committedOffset: null });
    });
    this.#sayAssigned(member, starts);
  }

  #ack(member: Member, frame: AckFrame): void {
    const { connection, name } = member;
    const isBad = frame.offsets.some(({ metadata }) => metadata === "too long");
    const trouble = isBad ? "bad_request" : this.troubles.shift();
    if (trouble) this.count(`ack ${trouble}`);
    const isWritten = trouble === undefined || (trouble === "outcome_unknown" && this.dice.oneIn(2));
    const offsets = isWritten ? frame.offsets.map((entry) => this.#commit(member, entry)) : [];
    connection.lateAcks.push(() => {
      if (trouble) this.#refuse(connection, frame, trouble);
      else this.#say(connection, { type: "acked", id: frame.id, subscription: name, offsets });
    });
  }

  #commit(member: Member, { partition, generation, offset }: AckFrame["offsets"][number]): AckedEntry {
    const share = member.shares.get(partition);
    const slot = this.slot(partition);
    const committed = member.group === undefined ? null : slot.committed;
    const entry = { topic: TOPIC, partition, offset: committed };
    if (share?.generation !== generation) {
      this.count("fenced");
      return { ...entry, code: "fenced_generation" };
    }
    if (offset > share.reached) throw new Error(`ack of ${offset} above what was reached, ${share.reached}`);
    share.unacknowledged = share.unacknowledged.filter((each) => each >= offset);
    if (committed === null) return entry;
    slot.committed = Math.max(committed, offset);
    this.#handOverFinished(partition);
    return { ...entry, offset: slot.committed };
  }

  #seek(member: Member, frame: SeekFrame): void {
    const { partition, to, id } = frame;
    const share = member.shares.get(partition);
    if (!share || (member.group !== undefined && this.slot(partition).stopDeadline))
      return this.#refuse(member.connection, frame, "not_assigned");
    const { start, end } = this.log(partition);
    const position = positionOf(to, this.log(partition));
    if (position < start || position > end) {
      this.count("seek out of range");
      return this.#refuse(member.connection, frame, "offset_out_of_range");
    }
    this.count("seek");
    this.#move(share, position);
    const { committed } = this.slot(partition);
    const committedOffset = member.group === undefined ? null : committed;
    const partitions = [this.#describe(partition, share, { position, committedOffset })];
    this.#say(member.connection, { type: "assigned", id, subscription: member.name, partitions });
  }

  #move(share: Share, position: number): void {
    share.position = position;
    share.reached = Math.max(share.reached, position);
    share.unacknowledged = [];
  }

  #pause(member: Member, frame: ClientFrame & { type: "pause" | "resume" }): void {
    const shares = frame.partitions.map(({ partition }) => member.shares.get(partition));
    if (shares.includes(undefined)) return this.#refuse(member.connection, frame, "not_assigned");
    for (const share of shares) if (share) share.isPaused = frame.type === "pause";
    if (frame.id !== undefined) this.#say(member.connection, { type: "ok", id: frame.id });
  }

  #release(member: Member, frame: ReleaseFrame): void {
    const [partition = -1] = frame.partitions.map((each) => each.partition);
    if (!member.shares.has(partition)) return this.#refuse(member.connection, frame, "not_assigned");
    if (!this.slot(partition).stopDeadline) return this.#refuse(member.connection, frame, "conflict");
    this.count("released");
    if (frame.id !== undefined) this.#say(member.connection, { type: "ok", id: frame.id });
    this.#free(partition);
    this.#rebalance();
  }

  // ── who has what ───────────────────────────────────────────────────────────────────────────────────────

  get #partitions(): readonly number[] {
    return this.logs.map((_, partition) => partition);
  }

  /** By turns: who is wanted has no two more than another. */
  #wantedOwner(partition: number): Member | undefined {
    const members = this.#members.filter(({ group }) => group !== undefined);
    return members[partition % members.length];
  }

  #rebalance(): void {
    for (const partition of this.#partitions) {
      const { owner, stopDeadline } = this.slot(partition);
      const wanted = this.#wantedOwner(partition);
      if (!wanted || wanted === owner || stopDeadline) continue;
      if (!owner) this.#sayAssigned(wanted, [this.#give(partition, wanted)]);
      else this.#revoke(partition, owner);
    }
  }

  #revoke(partition: number, owner: Member): void {
    this.count("revoked");
    this.sayRevoked(owner, partition, "rebalance", REVOKE_DEADLINE_MS);
    this.slot(partition).stopDeadline = this.time.after(REVOKE_DEADLINE_MS, () => {
      this.count("deadline passed");
      this.#free(partition);
      this.#rebalance();
    });
    this.#handOverFinished(partition);
  }

  #handOverFinished(partition: number): void {
    const { owner, stopDeadline } = this.slot(partition);
    if (!stopDeadline || owner?.shares.get(partition)?.unacknowledged.length !== 0) return;
    this.count("handed over");
    this.#free(partition);
    this.#rebalance();
  }

  #free(partition: number): void {
    const slot = this.slot(partition);
    slot.stopDeadline?.();
    slot.stopDeadline = undefined;
    slot.owner?.shares.delete(partition);
    slot.owner = undefined;
  }

  /** A new generation, from the committed offset or where the policy puts it. */
  #give(partition: number, member: Member): AssignedPartition {
    const slot = this.slot(partition);
    const { start } = this.log(partition);
    const isBelow = slot.committed < start;
    if (isBelow) this.moveCommitted(partition, start);
    slot.owner = member;
    const position = slot.committed;
    return this.#assign(partition, member, {
      ...{ position, committedOffset: position },
      ...(isBelow ? { reset: "earliest" } : {}),
    });
  }

  #assign(
    partition: number,
    member: Member,
    facts: Pick<AssignedPartition, "committedOffset" | "reset"> & { readonly position: number },
  ): AssignedPartition {
    this.#lastGeneration += 1;
    const { position } = facts;
    const isPaused = member.shares.get(partition)?.isPaused ?? false;
    const share: Share = {
      ...{ generation: this.#lastGeneration, position, reached: position, unacknowledged: [], isPaused },
    };
    member.shares.set(partition, share);
    return this.#describe(partition, share, facts);
  }

  #describe(
    partition: number,
    { generation }: Share,
    facts: Pick<AssignedPartition, "position" | "committedOffset" | "reset">,
  ): AssignedPartition {
    const { start, end } = this.log(partition);
    const { topicId } = this;
    return {
      topic: TOPIC,
      topicId,
      partition,
      generation,
      logStartOffset: start,
      logEndOffset: end,
      ...facts,
    };
  }

  #endMember(member: Member): void {
    this.#members = this.#members.filter((each) => each !== member);
    if (member.group === undefined) return;
    for (const partition of [...member.shares.keys()]) this.#free(partition);
    this.#rebalance();
  }

  #nextId(): string {
    this.#lastId += 1;
    return `m${this.#lastId}`;
  }

  // ── what happens by itself ─────────────────────────────────────────────────────────────────────────────

  /** Sends some records of one partition, where the window has room. */
  send(member: Member, partition: number): boolean {
    const share = member.shares.get(partition);
    const isMoving = member.group !== undefined && this.slot(partition).stopDeadline !== undefined;
    if (!share || share.isPaused || isMoving || member.connection.isDraining) return false;
    const room = member.windowRecords - sum(member.shares.values());
    const most = Math.min(room, Math.max(1, Math.floor(member.windowRecords / 2)), this.dice.between(1, 8));
    const { end } = this.log(partition);
    const { moves } = this.slot(partition);
    const offsets = this.existing(partition, share.position, end).slice(0, Math.max(0, most));
    const last = offsets.at(-1);
    if (last === undefined) return false;
    share.position = last + 1;
    share.reached = Math.max(share.reached, last + 1);
    if (member.isCommittedFirst) this.slot(partition).committed = last + 1;
    else share.unacknowledged.push(...offsets);
    this.#say(member.connection, {
      ...{
        type: "records",
        subscription: member.name,
        generation: share.generation,
        topic: TOPIC,
        partition,
      },
      records: offsets.map((offset) => ({ offset, timestamp: 1_740_830_400_000, value: { move: moves } })),
      ...{ next: last + 1, logEndOffset: end },
    });
    return true;
  }

  /** An operator's reset. */
  reset(partition: number, offset: number): void {
    this.count("reset");
    const { owner, stopDeadline } = this.slot(partition);
    this.moveCommitted(partition, offset);
    if (stopDeadline) this.#free(partition);
    else if (owner) this.#sayAssigned(owner, [this.#give(partition, owner)]);
    this.#rebalance();
  }

  /** Retention: whoever was below goes on from there. */
  deleteBefore(partition: number, start: number): void {
    this.log(partition).start = start;
    for (const member of this.#members) {
      const share = member.shares.get(partition);
      if (!share || share.position >= start) continue;
      this.count("out of range");
      this.#move(share, start);
      const slot = this.slot(partition);
      if (member.group !== undefined) this.moveCommitted(partition, start);
      const committedOffset = member.group === undefined ? null : slot.committed;
      const facts = { position: start, committedOffset, reset: "earliest" } as const;
      this.#sayAssigned(member, [this.#describe(partition, share, facts)]);
    }
  }

  expire(member: Member): void {
    this.count("expired");
    const { connection, name } = member;
    this.#say(connection, { type: "unsubscribed", subscription: name, code: "expired" });
    this.#endMember(member);
  }

  stall(member: Member, partition: number): void {
    this.count("stalled");
    this.sayRevoked(member, partition, "stalled", 0);
    this.#free(partition);
    this.#rebalance();
  }

  /** The topic is deleted, and created anew. */
  recreate(): void {
    this.count("recreated");
    this.topicId += 1;
    const members = [...this.#members];
    for (const member of members)
      for (const partition of [...member.shares.keys()]) {
        this.sayRevoked(member, partition, "topic_deleted", 0);
        if (member.group === undefined) member.shares.delete(partition);
        else this.#free(partition);
      }
    for (const partition of this.#partitions) {
      this.logs[partition] = emptyLog();
      this.moveCommitted(partition, 0);
    }
    const readers = members.filter(({ group }) => group === undefined);
    for (const reader of readers) this.#startReader(reader, { type: "subscribe", topics: [TOPIC] });
    this.#rebalance();
  }

  /** The server has found out that a socket is dead: its memberships end. */
  notice(connection: Connection): void {
    connection.isDraining = true;
    this.connections.splice(this.connections.indexOf(connection), 1);
    for (const member of this.#members.filter((each) => each.connection === connection))
      this.#endMember(member);
  }

  moveCommitted(partition: number, offset: number): void {
    const slot = this.slot(partition);
    slot.committed = offset;
    slot.moves += 1;
  }

  sayRevoked(member: Member, partition: number, reason: RevokeReason, deadlineMs: number): void {
    const { generation = 0 } = member.shares.get(partition) ?? {};
    const partitions = [{ topic: TOPIC, partition, generation }];
    const { name, connection } = member;
    this.#say(connection, { type: "revoked", subscription: name, partitions, reason, deadlineMs });
  }

  #sayAssigned({ connection, name }: Member, partitions: readonly AssignedPartition[]): void {
    this.#say(connection, { type: "assigned", subscription: name, partitions });
  }

  #refuse(connection: Connection, { id, ...frame }: ClientFrame, code: ErrorCode): void {
    const retriable = code === "unavailable" || code === "outcome_unknown";
    const subscription = "subscription" in frame ? frame.subscription : undefined;
    this.#say(connection, { type: "error", id, subscription, code, message: code, retriable });
  }

  #say(connection: Connection, frame: ServerFrame): void {
    connection.toClient.push(JSON.stringify(frame));
  }
}

function emptyLog(): Log {
  return { start: 0, end: 0, gaps: new Set() };
}

/** Timestamps are offsets here. */
function positionOf(to: Place, { start, end }: Log): number {
  if (to === "earliest") return start;
  if (to === "latest") return end;
  if (typeof to === "object" && "offset" in to) return to.offset;
  if (typeof to === "object" && "timestamp" in to) return Math.min(Math.max(to.timestamp, start), end);
  throw new Error(`nobody seeks to ${JSON.stringify(to)} here`);
}

function sum(shares: Iterable<Share>): number {
  return [...shares].reduce((count, { unacknowledged }) => count + unacknowledged.length, 0);
}
