// Who consumes: members of a group, who acknowledge by frames or in transactions, hold, forget, seek, let go or do not,
// repeat old acks, and come back; and readers without a group.

import type { AckEntry, AssignedPartition, ServerFrame, SubscribeFrame } from "../../src/protocol/frames.ts";
import type { Dice } from "../support/dice.ts";
import { nameOfRecord } from "./batches.ts";
import type { SimulatedSocket } from "./socket.ts";
import type { FrameOf, World } from "./world.ts";

const RECONNECT_MAX_MS = 2_000;
const WORK_MIN_MS = 1;
const WORK_MAX_MS = 500;
const HOLD_MAX_MS = 20_000;
const SUBSCRIBE_PATIENCE_MS = 20_000;
const SESSION_MIN_MS = 6_000;
const SESSION_MAX_MS = 15_000;
const WINDOW_MAX = 200;
/** Of a member that comes back: by which name. */
const COMES_BACK = ["memberId", "instanceId", "new"] as const;

export type AckMode = "ack" | "transact" | "sql" | "none";

export interface MemberOptions {
  readonly name: string;
  readonly topics: readonly string[];
  /** Null: a reader. */
  readonly group: string | null;
  readonly reset?: "earliest" | "latest";
  readonly ackMode?: AckMode;
  /** Where a transaction puts what it makes of each record. */
  readonly outputTopic?: string;
}

/** What was sent of a partition and is not acknowledged. */
interface Held {
  readonly entry: AckEntry;
  readonly records: FrameOf<"records">["records"];
}

export class SimulatedMember {
  readonly #world: World;
  readonly #dice: Dice;
  readonly #options: MemberOptions;
  readonly #comesBackAs: (typeof COMES_BACK)[number];
  readonly #isSteady: boolean;
  #topics: readonly string[];
  #socket: SimulatedSocket | undefined;
  /** Its name in the history: another one each time that it subscribes. */
  #consumer = "";
  #isSubscribed = false;
  #incarnations = 0;
  /** It has an `ackTimeoutMs`. */
  #mayStall = false;
  #memberId: string | undefined;
  #ids = 0;
  #held: Held[] = [];
  #owned = new Map<string, AssignedPartition>();
  #lastAck: readonly AckEntry[] = [];
  #worksUntilMs = 0;
  #isAnswerAwaited = false;
  #seekIds = new Set<string>();
  /** By id, until they are answered. */
  readonly #acks = new Map<string, readonly AckEntry[]>();
  /** What an ack said that has failed. */
  #unanswered: AckEntry[] = [];
  readonly #transactions = new Map<string, { readonly send: string; readonly held: Held }>();

  constructor(world: World, options: MemberOptions) {
    this.#world = world;
    this.#options = options;
    this.#topics = options.topics;
    this.#dice = world.dice.fork(options.name);
    this.#comesBackAs = this.#dice.pick(COMES_BACK);
    this.#isSteady = this.#dice.isLucky(0.5);
  }

  /** For ever. */
  async run(): Promise<void> {
    for (;;) {
      if (!this.#socket?.isOpen) await this.#connect();
      else this.#live();
      await this.#world.time.sleep(this.#dice.spread(WORK_MIN_MS, WORK_MAX_MS));
    }
  }

  // ── coming and going ───────────────────────────────────────────────────────────────────────────────────

  async #connect(): Promise<void> {
    await this.#world.time.sleep(this.#dice.below(RECONNECT_MAX_MS));
    const server = this.#world.pickServer(this.#dice);
    this.#incarnations += 1;
    const consumer = `${this.#options.name}.${this.#incarnations}`;
    this.#consumer = consumer;
    this.#isSubscribed = false;
    this.#isAnswerAwaited = false;
    this.#held = [];
    this.#owned = new Map();
    this.#seekIds = new Set();
    this.#transactions.clear();
    this.#acks.clear();
    this.#unanswered = [];
    this.#worksUntilMs = 0;
    this.#socket = await server?.connect({
      onFrame: (frame) => this.#receive(frame),
      onClose: () => this.#noteEnd(consumer),
    });
    // What is committed ahead may be so before it hears that it has subscribed.
    if (this.#options.ackMode === "none") this.#noteSubscribed("");
    this.#socket?.send(this.#subscription());
    this.#world.time.after(SUBSCRIBE_PATIENCE_MS, () => {
      if (this.#consumer === consumer && !this.#isSubscribed) this.#leave();
    });
  }

  #subscription(): Record<string, unknown> {
    const { group, reset = "earliest", ackMode, name } = this.#options;
    const topics = this.#topics;
    const records = this.#dice.spread(2, WINDOW_MAX);
    const common = { type: "subscribe", id: "subscribe", topics, window: { records, bytes: 65_536 } };
    if (group === null) return { ...common, from: "earliest", ack: this.#dice.pick(["none", "manual"]) };
    const sessionTimeoutMs = this.#dice.between(SESSION_MIN_MS, SESSION_MAX_MS);
    this.#mayStall = this.#dice.isLucky(0.2);
    const isBack = this.#memberId !== undefined && this.#comesBackAs === "memberId";
    const fields: Partial<SubscribeFrame> = {
      group,
      reset,
      ack: ackMode === "none" ? "none" : "manual",
      sessionTimeoutMs,
      ...(isBack && { memberId: this.#memberId }),
      ...(this.#comesBackAs === "instanceId" && { instanceId: name }),
      ...(this.#mayStall && { ackTimeoutMs: this.#dice.between(2_000, 20_000) }),
    };
    return { ...common, ...fields };
  }

  #leave(): void {
    if (!this.#socket?.isOpen) return;
    this.#socket.hangUp();
    this.#noteEnd(this.#consumer);
  }

  #noteSubscribed(memberId: string): void {
    const { group, ackMode } = this.#options;
    const isCommittedAhead = ackMode === "none";
    this.#world.record({ type: "subscribed", consumer: this.#consumer, group, memberId, isCommittedAhead });
  }

  /** That it has stalled may have been said too late for it to hear. */
  #noteEnd(consumer: string): void {
    if (this.#mayStall) this.#world.stalledGroups.add(this.#options.group ?? "");
    this.#world.record({ type: "ended", consumer });
  }

  // ── what comes ─────────────────────────────────────────────────────────────────────────────────────────

  #receive(frame: ServerFrame): void {
    const consumer = this.#consumer;
    switch (frame.type) {
      case "ping":
        return this.#socket?.send({ type: "pong" });
      case "subscribed":
        this.#isSubscribed = true;
        this.#memberId = frame.memberId;
        return this.#noteSubscribed(frame.memberId ?? "");
      case "assigned":
        return this.#receiveAssigned(frame);
      case "records":
        return this.#receiveRecords(frame);
      case "revoked":
        return this.#receiveRevoked(frame);
      case "acked":
        this.#acks.delete(String(frame.id));
        return this.#world.record({ type: "acked", ack: `${consumer}/${frame.id}`, offsets: frame.offsets });
      case "transacted":
        return this.#receiveTransacted(String(frame.id), frame);
      case "error":
        return this.#receiveError(frame);
      case "unsubscribed":
      case "draining":
        return this.#leave();
      default:
        return;
    }
  }

  #receiveAssigned({ id, partitions }: FrameOf<"assigned">): void {
    const isSought = typeof id === "string" && this.#seekIds.has(id);
    for (const each of partitions) {
      this.#drop(each);
      this.#owned.set(nameOf(each), each);
    }
    this.#world.record({
      type: "assigned",
      consumer: this.#consumer,
      partitions: partitions.map(({ reset, ...each }) => ({
        ...each,
        ...(reset !== undefined && { reset: typeof reset === "string" ? reset : JSON.stringify(reset) }),
        ...(isSought && { isSought }),
      })),
    });
  }

  #receiveRecords(frame: FrameOf<"records">): void {
    const { topic, partition, generation, next, records } = frame;
    this.#world.record({
      type: "polled",
      consumer: this.#consumer,
      topic,
      partition,
      generation,
      records: records.map((record) => ({ offset: record.offset, value: nameOfRecord(record) })),
      next,
    });
    this.#held.push({ entry: { topic, partition, generation, offset: next }, records });
    if (this.#worksUntilMs === 0) this.#workFor(this.#dice.spread(WORK_MIN_MS, WORK_MAX_MS));
  }

  /** It finishes what it holds, lets go at once, or does neither. */
  #receiveRevoked({ partitions, reason }: FrameOf<"revoked">): void {
    if (reason === "stalled") this.#world.stalledGroups.add(this.#options.group ?? "");
    this.#world.record({ type: "revoked", consumer: this.#consumer, partitions });
    const lets = this.#dice.pick(["finish", "release", "nothing"] as const);
    for (const each of partitions) {
      if (lets !== "finish" || this.#options.ackMode === "transact" || this.#options.ackMode === "sql")
        this.#drop(each);
      this.#owned.delete(nameOf(each));
    }
    const names = partitions.map(({ topic, partition }) => ({ topic, partition }));
    if (lets === "release") this.#socket?.send({ type: "release", partitions: names });
  }

  #receiveError({ id, code, message }: FrameOf<"error">): void {
    this.#world.note(`${this.#consumer}: ${code}: ${message}`);
    const transaction = this.#transactions.get(String(id));
    if (transaction && code !== "outcome_unknown")
      this.#world.record({ type: "not-sent", send: transaction.send, code });
    if (transaction || id === "subscribe") this.#leave(); // and begins again at what is committed
    // Of several topics one is gone: the first is always there.
    if (id === "subscribe" && code === "unknown_topic") this.#topics = this.#topics.slice(0, 1);
    const ack = this.#acks.get(String(id));
    if (ack) this.#unanswered.push(...ack);
  }

  #receiveTransacted(id: string, { runs }: FrameOf<"transacted">): void {
    const transaction = this.#transactions.get(id);
    if (!transaction) return;
    this.#transactions.delete(id);
    this.#isAnswerAwaited = false;
    this.#world.record({ type: "sent", send: transaction.send, runs });
  }

  #drop({ topic, partition }: { topic: string; partition: number }): void {
    this.#held = this.#held.filter(({ entry }) => entry.topic !== topic || entry.partition !== partition);
  }

  // ── what it does ───────────────────────────────────────────────────────────────────────────────────────

  #workFor(ms: number): void {
    const isHeld = this.#world.isChaos && !this.#isSteady && this.#dice.isLucky(0.05);
    this.#worksUntilMs = this.#world.time.nowMs() + (isHeld ? this.#dice.below(HOLD_MAX_MS) : ms);
  }

  #live(): void {
    if (!this.#isSubscribed || this.#world.time.nowMs() < this.#worksUntilMs) return;
    this.#worksUntilMs = 0;
    if (this.#held.length + this.#unanswered.length > 0) this.#acknowledge();
    if (this.#world.isChaos && !this.#isSteady) this.#wander();
  }

  #acknowledge(): void {
    switch (this.#options.ackMode ?? "ack") {
      case "ack":
        return this.#ack([...this.#unanswered.splice(0), ...this.#held.splice(0).map(({ entry }) => entry)]);
      case "transact":
        return this.#transact();
      case "sql":
        return this.#commitBySql();
      case "none":
        this.#held = [];
    }
  }

  /** Of each partition the last, as clients gather them. */
  #ack(entries: readonly AckEntry[]): void {
    const offsets = [...new Map(entries.map((entry) => [nameOf(entry), entry])).values()];
    this.#lastAck = offsets;
    const id = this.#nextId("ack");
    this.#acks.set(id, offsets);
    if (this.#options.group !== null)
      this.#world.record({
        type: "acking",
        consumer: this.#consumer,
        ack: `${this.#consumer}/${id}`,
        offsets,
      });
    this.#socket?.send({ type: "ack", id, offsets });
  }

  /** One at a time: each commit must advance. */
  #transact(): void {
    if (this.#isAnswerAwaited) return;
    const held = this.#held.shift();
    if (!held) return;
    const { send, topic, records } = this.#makeOutput(held);
    const id = this.#nextId("transact");
    this.#isAnswerAwaited = true;
    this.#transactions.set(id, { send, held });
    const commits = { group: this.#options.group, offsets: [held.entry] };
    this.#socket?.send({ type: "transact", id, appends: [{ topic, records }], commits });
  }

  /** The user's own transaction, in the file. */
  #commitBySql(): void {
    const { database } = this.#world;
    const held = this.#held.shift();
    if (!held || database.isDown || database.isLocked) return this.#leave();
    const { send, topic, records } = this.#makeOutput(held);
    const { entry } = held;
    try {
      database.transaction([
        ...records.map(({ value }) => ({
          sql: "INSERT INTO append_record (topic, value) VALUES (:topic, json_quote(:value))",
          args: { topic, value },
        })),
        {
          sql: `INSERT INTO commit_offset (group_id, topic, partition, generation, offset)
                VALUES (:group_id, :topic, :partition, :generation, :offset)`,
          args: {
            group_id: this.#options.group,
            topic: entry.topic,
            partition: entry.partition,
            generation: entry.generation,
            offset: entry.offset,
          },
        },
      ]);
      this.#world.record({ type: "sent", send, runs: [] });
      this.#ack([entry]); // commits nothing more: the server learns that its window is free
    } catch (error) {
      this.#world.record({ type: "not-sent", send, code: String(error) });
      this.#leave();
    }
  }

  #makeOutput({ entry, records }: Held) {
    const { group, outputTopic = "" } = this.#options;
    const send = `${this.#consumer}/${this.#nextId("send")}`;
    const values = records.map(({ offset }) => `${send}:${offset}`);
    const sources = records.map(({ offset }) => `${entry.topic}/${entry.partition}@${offset}`);
    this.#world.record({
      type: "send",
      send,
      producer: this.#consumer,
      isIdempotent: false,
      appends: [{ topic: outputTopic, values, sources }],
      commits: { group: group ?? "", offsets: [entry] },
    });
    return { send, topic: outputTopic, records: values.map((value) => ({ value })) };
  }

  /** Now and then something that nobody needs. */
  #wander(): void {
    const act = this.#dice.below(200);
    const partition = this.#owned.size > 0 ? this.#dice.pick([...this.#owned.values()]) : undefined;
    if (act === 0) this.#socket?.send({ type: "unsubscribe", id: this.#nextId("unsubscribe") });
    if (act <= 1) return this.#leave();
    if (act <= 3 && this.#lastAck.length > 0 && this.#options.ackMode === "ack")
      return this.#ack(this.#lastAck);
    if (!partition) return;
    const named = { topic: partition.topic, partition: partition.partition };
    if (act === 4) this.#seek(partition);
    if (act === 5) this.#socket?.send({ type: "pause", partitions: [named] });
    if (act === 5)
      this.#world.time.after(this.#dice.below(HOLD_MAX_MS), () =>
        this.#socket?.send({ type: "resume", partitions: [named] }),
      );
  }

  /** Back, or to where it is: forward it would leave out what nobody else is sent. */
  #seek({ topic, partition }: AssignedPartition): void {
    const id = this.#nextId("seek");
    this.#seekIds.add(id);
    const to = this.#dice.pick(["earliest", "current", { shift: 0 }, { shift: -10 }]);
    this.#socket?.send({ type: "seek", id, topic, partition, to });
  }

  #nextId(what: string): string {
    this.#ids += 1;
    return `${what}-${this.#ids}`;
  }
}

function nameOf({ topic, partition }: { topic: string; partition: number }): string {
  return `${topic}/${partition}`;
}
