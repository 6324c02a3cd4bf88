import type {
  AckedEntry,
  AckFrame,
  ClientFrame,
  ReleaseFrame,
  SeekFrame,
  SubscribeFrame,
} from "../../src/protocol/frames.ts";
import type { Place } from "../../src/protocol/places.ts";
import type { Connection } from "./consumer-connection.ts";

import { ConsumerGroup, emptyLog, type Log, type Member, type Share, TOPIC } from "./consumer-group.ts";

const SESSION_TIMEOUT_MS = 45_000;

export class ConsumerWorld extends ConsumerGroup {
  // ── what clients ask ───────────────────────────────────────────────────────────────────────────────────

  handle(connection: Connection, frame: ClientFrame): void {
    const { id } = frame;
    if (frame.type === "pong") return void (id !== undefined && this.say(connection, { type: "ok", id }));
    if (frame.type === "subscribe") return this.subscribe(connection, frame);
    const name = "subscription" in frame ? (frame.subscription ?? "default") : "default";
    const member = this.members.find((each) => each.connection === connection && each.name === name);
    if (!member) return this.refuse(connection, frame, "unknown_subscription");
    switch (frame.type) {
      case "ack":
        return this.ack(member, frame);
      case "seek":
        return this.seek(member, frame);
      case "pause":
      case "resume":
        return this.pause(member, frame);
      case "release":
        return this.release(member, frame);
      case "unsubscribe":
        for (const answer of connection.lateAcks.splice(0)) answer(); // nothing of it follows
        this.say(connection, { type: "unsubscribed", id, subscription: name });
        return this.endMember(member);
      default:
        throw new Error(`a consumer sends no "${frame.type}"`);
    }
  }

  protected subscribe(connection: Connection, frame: SubscribeFrame): void {
    if (connection.isDraining || this.troubles.length > 0) {
      this.troubles.shift();
      this.count("subscribe refused");
      return this.refuse(connection, frame, "unavailable");
    }
    const { memberId, group, subscription: name = "default" } = frame;
    const older = this.members.find((each) => memberId !== undefined && each.id === memberId);
    const member: Member = {
      id: older?.id ?? this.nextId(),
      ...{ name, connection, group, isCommittedFirst: frame.ack === "none", shares: new Map() },
      windowRecords: frame.window?.records ?? 1_000,
    };
    this.say(connection, {
      ...{ type: "subscribed", id: frame.id, subscription: name, heartbeatMs: 15_000, durability: "fsync" },
      ...{ memberId: group === undefined ? undefined : member.id, sessionTimeoutMs: SESSION_TIMEOUT_MS },
    });
    if (older) this.takeOver(older, member);
    this.members.push(member);
    if (group === undefined) return this.startReader(member, frame);
    const kept = this.partitions.filter((partition) => this.slot(partition).owner === member);
    const free = this.partitions.filter((partition) => !this.slot(partition).owner);
    const gained = [...kept, ...free.filter((partition) => this.wantedOwner(partition) === member)];
    this.sayAssigned(
      member,
      gained.map((partition) => this.give(partition, member)),
    );
    this.rebalance();
  }

  protected takeOver(older: Member, member: Member): void {
    this.count("taken over");
    this.say(older.connection, { type: "unsubscribed", subscription: older.name, code: "replaced" });
    for (const partition of older.shares.keys()) {
      const slot = this.slot(partition);
      if (slot.stopDeadline) this.free(partition);
      else slot.owner = member;
    }
    older.shares.clear();
    this.members = this.members.filter((each) => each !== older);
  }

  protected startReader(member: Member, { from }: SubscribeFrame): void {
    const starts = this.partitions.map((partition) => {
      const { start, end } = this.log(partition);
      const listed = Array.isArray(from) ? from.find((each) => each.partition === partition) : undefined;
      const wanted = listed?.offset ?? (from === "latest" ? end : start);
      return this.assign(partition, member, { position: Math.max(wanted, start), committedOffset: null });
    });
    this.sayAssigned(member, starts);
  }

  protected ack(member: Member, frame: AckFrame): void {
    const { connection, name } = member;
    const isBad = frame.offsets.some(({ metadata }) => metadata === "too long");
    const trouble = isBad ? "bad_request" : this.troubles.shift();
    if (trouble) this.count(`ack ${trouble}`);
    const isWritten = trouble === undefined || (trouble === "outcome_unknown" && this.dice.oneIn(2));
    const offsets = isWritten ? frame.offsets.map((entry) => this.commit(member, entry)) : [];
    connection.lateAcks.push(() => {
      if (trouble) this.refuse(connection, frame, trouble);
      else this.say(connection, { type: "acked", id: frame.id, subscription: name, offsets });
    });
  }

  protected commit(
    member: Member,
    { partition, generation, offset }: AckFrame["offsets"][number],
  ): AckedEntry {
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
    this.handOverFinished(partition);
    return { ...entry, offset: slot.committed };
  }

  protected seek(member: Member, frame: SeekFrame): void {
    const { partition, to, id } = frame;
    const share = member.shares.get(partition);
    if (!share || (member.group !== undefined && this.slot(partition).stopDeadline))
      return this.refuse(member.connection, frame, "not_assigned");
    const { start, end } = this.log(partition);
    const position = positionOf(to, this.log(partition));
    if (position < start || position > end) {
      this.count("seek out of range");
      return this.refuse(member.connection, frame, "offset_out_of_range");
    }
    this.count("seek");
    this.move(share, position);
    const { committed } = this.slot(partition);
    const committedOffset = member.group === undefined ? null : committed;
    const partitions = [this.describe(partition, share, { position, committedOffset })];
    this.say(member.connection, { type: "assigned", id, subscription: member.name, partitions });
  }

  protected move(share: Share, position: number): void {
    share.position = position;
    share.reached = Math.max(share.reached, position);
    share.unacknowledged = [];
  }

  protected pause(member: Member, frame: ClientFrame & { type: "pause" | "resume" }): void {
    const shares = frame.partitions.map(({ partition }) => member.shares.get(partition));
    if (shares.includes(undefined)) return this.refuse(member.connection, frame, "not_assigned");
    for (const share of shares) if (share) share.isPaused = frame.type === "pause";
    if (frame.id !== undefined) this.say(member.connection, { type: "ok", id: frame.id });
  }

  protected release(member: Member, frame: ReleaseFrame): void {
    const [partition = -1] = frame.partitions.map((each) => each.partition);
    if (!member.shares.has(partition)) return this.refuse(member.connection, frame, "not_assigned");
    if (!this.slot(partition).stopDeadline) return this.refuse(member.connection, frame, "conflict");
    this.count("released");
    if (frame.id !== undefined) this.say(member.connection, { type: "ok", id: frame.id });
    this.free(partition);
    this.rebalance();
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
    this.say(member.connection, {
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
    if (stopDeadline) this.free(partition);
    else if (owner) this.sayAssigned(owner, [this.give(partition, owner)]);
    this.rebalance();
  }

  /** Retention: whoever was below goes on from there. */
  deleteBefore(partition: number, start: number): void {
    this.log(partition).start = start;
    for (const member of this.members) {
      const share = member.shares.get(partition);
      if (!share || share.position >= start) continue;
      this.count("out of range");
      this.move(share, start);
      const slot = this.slot(partition);
      if (member.group !== undefined) this.moveCommitted(partition, start);
      const committedOffset = member.group === undefined ? null : slot.committed;
      const facts = { position: start, committedOffset, reset: "earliest" } as const;
      this.sayAssigned(member, [this.describe(partition, share, facts)]);
    }
  }

  expire(member: Member): void {
    this.count("expired");
    const { connection, name } = member;
    this.say(connection, { type: "unsubscribed", subscription: name, code: "expired" });
    this.endMember(member);
  }

  stall(member: Member, partition: number): void {
    this.count("stalled");
    this.sayRevoked(member, partition, "stalled", 0);
    this.free(partition);
    this.rebalance();
  }

  /** The topic is deleted, and created anew. */
  recreate(): void {
    this.count("recreated");
    this.topicId += 1;
    const members = [...this.members];
    for (const member of members)
      for (const partition of [...member.shares.keys()]) {
        this.sayRevoked(member, partition, "topic_deleted", 0);
        if (member.group === undefined) member.shares.delete(partition);
        else this.free(partition);
      }
    for (const partition of this.partitions) {
      this.logs[partition] = emptyLog();
      this.moveCommitted(partition, 0);
    }
    const readers = members.filter(({ group }) => group === undefined);
    for (const reader of readers) this.startReader(reader, { type: "subscribe", topics: [TOPIC] });
    this.rebalance();
  }

  /** The server has found out that a socket is dead: its memberships end. */
  notice(connection: Connection): void {
    connection.isDraining = true;
    this.connections.splice(this.connections.indexOf(connection), 1);
    for (const member of this.members.filter((each) => each.connection === connection))
      this.endMember(member);
  }
}

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
