// The group of a model, its log, and who has which of its partitions: as PROTOCOL.md says how they change hands.

import type { ErrorCode } from "../../src/protocol/codes.ts";
import type { AssignedPartition, ClientFrame, RevokeReason, ServerFrame } from "../../src/protocol/frames.ts";
import type { Dice } from "../support/dice.ts";
import { FakeTime } from "../support/fake-time.ts";
import { type Connection, ModelSocket } from "./consumer-connection.ts";

export const TOPIC = "orders";
const REVOKE_DEADLINE_MS = 5_000;

export interface Log {
  start: number;
  end: number;
  /** Compacted away. */
  readonly gaps: Set<number>;
}

/** A partition in the hands of a member or reader. */
export interface Share {
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

/** A group and its log, and who has which of its partitions. */
export class ConsumerGroup {
  readonly dice: Dice;
  readonly time: FakeTime = new FakeTime();
  readonly seen = new Map<string, number>();
  readonly connections: Connection[] = [];
  logs: Log[];
  topicId = 7;
  /** The next acks and subscriptions come to this. */
  troubles: Trouble[] = [];
  readonly slots: Slot[];
  members: Member[] = [];
  protected lastGeneration = 0;
  protected lastId = 0;
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

  // ── who has what ───────────────────────────────────────────────────────────────────────────────────────

  protected get partitions(): readonly number[] {
    return this.logs.map((_, partition) => partition);
  }

  /** By turns: who is wanted has no two more than another. */
  protected wantedOwner(partition: number): Member | undefined {
    const members = this.members.filter(({ group }) => group !== undefined);
    return members[partition % members.length];
  }

  protected rebalance(): void {
    for (const partition of this.partitions) {
      const { owner, stopDeadline } = this.slot(partition);
      const wanted = this.wantedOwner(partition);
      if (!wanted || wanted === owner || stopDeadline) continue;
      if (!owner) this.sayAssigned(wanted, [this.give(partition, wanted)]);
      else this.revoke(partition, owner);
    }
  }

  protected revoke(partition: number, owner: Member): void {
    this.count("revoked");
    this.sayRevoked(owner, partition, "rebalance", REVOKE_DEADLINE_MS);
    this.slot(partition).stopDeadline = this.time.after(REVOKE_DEADLINE_MS, () => {
      this.count("deadline passed");
      this.free(partition);
      this.rebalance();
    });
    this.handOverFinished(partition);
  }

  protected handOverFinished(partition: number): void {
    const { owner, stopDeadline } = this.slot(partition);
    if (!stopDeadline || owner?.shares.get(partition)?.unacknowledged.length !== 0) return;
    this.count("handed over");
    this.free(partition);
    this.rebalance();
  }

  protected free(partition: number): void {
    const slot = this.slot(partition);
    slot.stopDeadline?.();
    slot.stopDeadline = undefined;
    slot.owner?.shares.delete(partition);
    slot.owner = undefined;
  }

  /** A new generation, from the committed offset or where the policy puts it. */
  protected give(partition: number, member: Member): AssignedPartition {
    const slot = this.slot(partition);
    const { start } = this.log(partition);
    const isBelow = slot.committed < start;
    if (isBelow) this.moveCommitted(partition, start);
    slot.owner = member;
    const position = slot.committed;
    return this.assign(partition, member, {
      ...{ position, committedOffset: position },
      ...(isBelow ? { reset: "earliest" } : {}),
    });
  }

  protected assign(
    partition: number,
    member: Member,
    facts: Pick<AssignedPartition, "committedOffset" | "reset"> & { readonly position: number },
  ): AssignedPartition {
    this.lastGeneration += 1;
    const { position } = facts;
    const isPaused = member.shares.get(partition)?.isPaused ?? false;
    const share: Share = {
      ...{ generation: this.lastGeneration, position, reached: position, unacknowledged: [], isPaused },
    };
    member.shares.set(partition, share);
    return this.describe(partition, share, facts);
  }

  protected describe(
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

  protected endMember(member: Member): void {
    this.members = this.members.filter((each) => each !== member);
    if (member.group === undefined) return;
    for (const partition of [...member.shares.keys()]) this.free(partition);
    this.rebalance();
  }

  protected nextId(): string {
    this.lastId += 1;
    return `m${this.lastId}`;
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
    this.say(connection, { type: "revoked", subscription: name, partitions, reason, deadlineMs });
  }

  protected sayAssigned({ connection, name }: Member, partitions: readonly AssignedPartition[]): void {
    this.say(connection, { type: "assigned", subscription: name, partitions });
  }

  protected refuse(connection: Connection, { id, ...frame }: ClientFrame, code: ErrorCode): void {
    const retriable = code === "unavailable" || code === "outcome_unknown";
    const subscription = "subscription" in frame ? frame.subscription : undefined;
    this.say(connection, { type: "error", id, subscription, code, message: code, retriable });
  }

  protected say(connection: Connection, frame: ServerFrame): void {
    connection.toClient.push(JSON.stringify(frame));
  }
}

export function emptyLog(): Log {
  return { start: 0, end: 0, gaps: new Set() };
}
