// A member as an application would be: it reads all the time, answers pings, knows what it owns, and acknowledges what
// it was sent where the test wants that. What its group must never do is written down as a violation.

import type { AckEntry, AssignedPartition, ServerFrame, SubscribeFrame } from "../../src/protocol/frames.ts";
import type { TestServer } from "../support/server.ts";
import { type FrameOf, StreamClient } from "../support/stream-client.ts";

/** A wait that takes longer fails, before the test's own timeout ends the servers. A machine may be busy. */
const PATIENCE_MS = 20_000;

export interface JoinOptions extends Partial<SubscribeFrame> {
  /** Whether it acknowledges what it is sent; it can be changed later. */
  readonly acks?: boolean;
}

export interface Owned extends AssignedPartition {
  /** The next offset that it will be sent. */
  next: number;
}

/** Waits of a test, for whatever its members receive. */
export class Signal {
  #waiting: (() => void)[] = [];

  notify(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async until(isMet: () => boolean, describe: () => string, patienceMs = PATIENCE_MS): Promise<void> {
    const late = Date.now() + patienceMs;
    while (!isMet()) {
      const leftMs = late - Date.now();
      if (leftMs <= 0) throw new Error(`not in ${patienceMs} ms: ${describe()}`);
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.push(resolve);
      const timer = setTimeout(resolve, leftMs);
      await promise;
      clearTimeout(timer);
    }
  }
}

/** What all members of a group saw, and what must hold of it. */
export class Ledger {
  readonly violations: string[] = [];
  /** Of a partition: all below was sent to somebody. */
  readonly #delivered = new Map<string, number>();
  readonly #acked = new Map<string, number>();
  readonly #current = new Map<string, number>();
  readonly #generations = new Set<number>();
  readonly #starts: { key: string; generation: number; offset: number }[] = [];
  readonly #accepted: { key: string; generation: number; offset: number }[] = [];

  noteAssigned(partition: AssignedPartition): void {
    const { generation, committedOffset, position } = partition;
    const key = keyOf(partition);
    if (this.#generations.has(generation)) this.violated(`${key}: generation ${generation} was given twice`);
    if (position !== committedOffset) this.violated(`${key}: position ${position} is not ${committedOffset}`);
    this.#generations.add(generation);
    this.#current.set(key, Math.max(generation, this.#current.get(key) ?? 0));
    this.#starts.push({ key, generation, offset: committedOffset ?? 0 });
  }

  noteRecords(frame: FrameOf<"records">): void {
    const key = keyOf(frame);
    const delivered = this.#delivered.get(key) ?? 0;
    const first = frame.records[0]?.offset ?? frame.next;
    if (first > delivered) this.violated(`${key}: ${delivered} to ${first} were sent to nobody`);
    this.#delivered.set(key, Math.max(delivered, frame.next));
  }

  /** Somebody has been told of a newer owner before this ack was sent: it has to be refused. */
  isLate(entry: AckEntry): boolean {
    return entry.generation < (this.#current.get(keyOf(entry)) ?? 0);
  }

  noteAcked(entry: AckEntry, { isLate, code, offset }: AckVerdict): void {
    const key = keyOf(entry);
    if (code !== undefined) {
      if (code !== "fenced_generation") this.violated(`${key}: ack refused with ${code}`);
      return;
    }
    if (isLate) this.violated(`${key}: a late ack in generation ${entry.generation} was accepted`);
    if (offset === null || offset < entry.offset)
      this.violated(`${key}: acked ${offset}, not ${entry.offset}`);
    this.#acked.set(key, Math.max(offset ?? 0, this.#acked.get(key) ?? 0));
    this.#accepted.push({ key, generation: entry.generation, offset: offset ?? 0 });
  }

  delivered(key: string): number {
    return this.#delivered.get(key) ?? 0;
  }

  acked(key: string): number {
    return this.#acked.get(key) ?? 0;
  }

  /** The highest offset that was accepted in such a generation; −1 where none was. */
  acceptedIn(key: string, isIt: (generation: number) => boolean): number {
    const accepted = this.#accepted.filter((ack) => ack.key === key && isIt(ack.generation));
    return Math.max(-1, ...accepted.map(({ offset }) => offset));
  }

  /** Where it was told to begin in that generation: once, or not yet. */
  startsIn(key: string, generation: number): readonly number[] {
    const starts = this.#starts.filter((start) => start.key === key && start.generation === generation);
    return starts.map(({ offset }) => offset);
  }

  /**
   * All violations, with those that only the whole shows: generations order what happened to a partition, so whatever
   * was accepted in an earlier one was there when the next began, and nothing was taken back.
   */
  judge(): readonly string[] {
    const history = [
      ...this.#starts.map((start) => ({ ...start, isStart: true })),
      ...this.#accepted.map((ack) => ({ ...ack, isStart: false })),
    ].sort((a, b) => a.generation - b.generation || Number(b.isStart) - Number(a.isStart));
    const committed = new Map<string, number>();
    for (const { key, generation, offset, isStart } of history) {
      const before = committed.get(key) ?? 0;
      if (isStart && offset < before)
        this.violated(`${key}: generation ${generation} began at ${offset}, ${before} was committed`);
      committed.set(key, Math.max(before, offset));
    }
    return this.violations;
  }

  violated(what: string): void {
    this.violations.push(what);
  }
}

interface AckVerdict {
  readonly isLate: boolean;
  readonly code: string | undefined;
  readonly offset: number | null;
}

export class Member {
  readonly client: StreamClient;
  readonly frames: ServerFrame[] = [];
  /** What it may still be sent records of, by `topic/partition`. */
  readonly owned = new Map<string, Owned>();
  readonly #signal: Signal;
  readonly #ledger: Ledger;
  readonly #pendingAcks = new Map<unknown, readonly { entry: AckEntry; isLate: boolean }[]>();
  acks: boolean;
  memberId = "";
  /** By itself or by the server. */
  isClosed = false;
  #lastId = 0;

  private constructor(client: StreamClient, group: WatchedGroup, { acks = true }: JoinOptions) {
    this.client = client;
    this.#signal = group.signal;
    this.#ledger = group.ledger;
    this.acks = acks;
    void this.#listen();
  }

  /** Resolves when it has been told what it owns. */
  static async join(server: Pick<TestServer, "streamUrl">, group: WatchedGroup, options: JoinOptions) {
    const { acks: _, ...fields } = options;
    const member = new Member(await StreamClient.open(server.streamUrl), group, options);
    member.client.send({ type: "subscribe", group: group.name, topics: group.topics, ...fields });
    await member.until("assigned");
    return member;
  }

  /** The first frame of that type that came, or comes. */
  async until<T extends ServerFrame["type"]>(type: T, patienceMs?: number): Promise<FrameOf<T>> {
    return (await this.untilFrame((frame) => frame.type === type, patienceMs)) as FrameOf<T>; // its type was compared
  }

  /** `since`: how many frames to leave out. */
  async untilFrame(
    isIt: (frame: ServerFrame) => boolean,
    patienceMs?: number,
    since = 0,
  ): Promise<ServerFrame> {
    const find = () => this.frames.slice(since).find(isIt);
    await this.#signal.until(
      () => find() !== undefined,
      () => `a frame; received ${JSON.stringify(this.frames.slice(-5))}`,
      patienceMs,
    );
    const frame = find();
    if (!frame) throw new Error("a frame that came is gone");
    return frame;
  }

  /** Answered by `acked`, which is judged when it comes. */
  ack(...entries: readonly AckEntry[]): string {
    this.#lastId += 1;
    const id = `ack ${this.#lastId}`;
    this.#pendingAcks.set(
      id,
      entries.map((entry) => ({ entry, isLate: this.#ledger.isLate(entry) })),
    );
    this.client.send({ type: "ack", id, offsets: entries });
    return id;
  }

  async untilAcked(id: string): Promise<FrameOf<"acked">> {
    const isIt = (frame: ServerFrame) => frame.type === "acked" && frame.id === id;
    return (await this.untilFrame(isIt)) as FrameOf<"acked">; // its type was compared
  }

  /** By `unsubscribe`; the socket stays. */
  async leave(): Promise<void> {
    this.client.send({ type: "unsubscribe" });
    await this.until("unsubscribed");
  }

  async close(): Promise<void> {
    this.owned.clear();
    if (this.isClosed) return;
    this.isClosed = true;
    await this.client.close();
  }

  async #listen(): Promise<void> {
    try {
      for (;;) this.#take(await this.client.next());
    } catch {
      this.isClosed = true; // the socket is closed, and all that came before has been taken
    }
    this.#signal.notify();
  }

  #take(frame: ServerFrame): void {
    this.frames.push(frame);
    if (frame.type === "ping") this.client.send({ type: "pong" });
    if (frame.type === "subscribed") this.memberId = frame.memberId ?? "";
    if (frame.type === "assigned") for (const partition of frame.partitions) this.#gain(partition);
    if (frame.type === "records") this.#read(frame);
    if (frame.type === "revoked") for (const partition of frame.partitions) this.#lose(partition, frame);
    if (frame.type === "acked") this.#judge(frame);
    if (frame.type === "unsubscribed") this.owned.clear();
    this.#signal.notify();
  }

  #gain(partition: AssignedPartition): void {
    this.#ledger.noteAssigned(partition);
    this.owned.set(keyOf(partition), { ...partition, next: partition.position ?? 0 });
  }

  #read(frame: FrameOf<"records">): void {
    const { topic, partition, generation, records, next } = frame;
    const owned = this.owned.get(keyOf(frame));
    const first = records[0]?.offset;
    if (owned?.generation !== generation || owned.next !== first)
      this.#ledger.violated(
        `${keyOf(frame)}: sent ${first} in ${generation} to who has ${JSON.stringify(owned)}`,
      );
    if (owned) owned.next = next;
    this.#ledger.noteRecords(frame);
    if (this.acks) this.ack({ topic, partition, generation, offset: next });
  }

  #lose(
    partition: FrameOf<"revoked">["partitions"][number],
    { reason, deadlineMs }: FrameOf<"revoked">,
  ): void {
    const owned = this.owned.get(keyOf(partition));
    if (owned?.generation !== partition.generation)
      this.#ledger.violated(
        `${keyOf(partition)}: ${reason} revoked ${partition.generation} by ${deadlineMs} ms from who has ${owned?.generation}`,
      );
    this.owned.delete(keyOf(partition));
  }

  #judge({ id, offsets }: FrameOf<"acked">): void {
    const pending = this.#pendingAcks.get(id) ?? [];
    this.#pendingAcks.delete(id);
    for (const [index, { entry, isLate }] of pending.entries()) {
      const { code, offset = null } = offsets[index] ?? {};
      this.#ledger.noteAcked(entry, { isLate, code, offset });
    }
  }
}

/** The members of one group, wherever they are. `await using` closes the sockets of those that are left. */
export class WatchedGroup implements AsyncDisposable {
  readonly name: string;
  readonly topics: readonly string[];
  readonly signal = new Signal();
  readonly ledger = new Ledger();
  readonly members = new Set<Member>();

  constructor(name: string, topics: readonly string[]) {
    this.name = name;
    this.topics = topics;
  }

  async join(server: Pick<TestServer, "streamUrl">, options: JoinOptions = {}): Promise<Member> {
    const member = await Member.join(server, this, options);
    this.members.add(member);
    return member;
  }

  async leave(member: Member): Promise<void> {
    this.members.delete(member);
    await member.leave();
    await member.close();
  }

  async close(...members: readonly Member[]): Promise<void> {
    for (const member of members) this.members.delete(member);
    await Promise.all(members.map((member) => member.close()));
  }

  /** The first of its topics. */
  get topic(): string {
    return this.topics[0] ?? "";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close(...this.members);
  }

  until(isMet: () => boolean, what: string, patienceMs?: number): Promise<void> {
    const describe = () => `${what}; owned: ${JSON.stringify(this.shares())}`;
    return this.signal.until(isMet, describe, patienceMs);
  }

  /** Every one of the partitions has one owner, and nobody has two more than another. */
  untilBalanced(partitions: number, patienceMs?: number): Promise<void> {
    return this.until(() => this.isBalanced(partitions), `${partitions} partitions balanced`, patienceMs);
  }

  isBalanced(partitions: number): boolean {
    const sizes = [...this.members].map(({ owned }) => owned.size);
    const keys = new Set(this.shares().flat());
    return (
      keys.size === partitions &&
      sizes.reduce((sum, size) => sum + size, 0) === partitions &&
      Math.max(...sizes) - Math.min(...sizes) <= 1
    );
  }

  shares(): readonly (readonly string[])[] {
    return [...this.members].map(({ owned }) => [...owned.keys()].sort());
  }

  /** As its members believe: `partition|memberId|generation`, as the database is asked. */
  ownerLines(): readonly string[] {
    return [...this.members]
      .flatMap(({ memberId, owned }) =>
        [...owned.values()].map(
          ({ topic, partition, generation }) => `${topic}|${partition}|${memberId}|${generation}`,
        ),
      )
      .sort();
  }
}

export function keyOf({ topic, partition }: { readonly topic: string; readonly partition: number }): string {
  return `${topic}/${partition}`;
}

export function ackOf(frame: FrameOf<"records">): AckEntry {
  const { topic, partition, generation, next: offset } = frame;
  return { topic, partition, generation, offset };
}
