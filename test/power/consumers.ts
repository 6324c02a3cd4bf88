// Who reads while the power goes: one acknowledges what it was sent, one commits it in the transaction of what it made
// of it.

import type { ServerFrame } from "../../src/protocol/frames.ts";
import type { FrameOf } from "../support/stream-client.ts";
import { type FrameClient, type Journal, type Send, seenRecords, valueText } from "./journal.ts";

/** A subscription in a group; after the power cut another one takes its place. */
abstract class Consumer implements FrameClient {
  readonly name: string;
  readonly group: string;
  readonly topics: readonly string[];
  protected readonly journal: Journal;
  readonly #committed = new Map<string, number | null>();

  constructor(journal: Journal, { group, topics }: { group: string; topics: readonly string[] }) {
    this.journal = journal;
    this.group = group;
    this.topics = topics;
    this.name = journal.name(group);
  }

  start(send: Send): void {
    send({ type: "subscribe", topics: this.topics, group: this.group });
  }

  /** Of its partitions, whatever it has committed in them. */
  get partitionsOwned(): number {
    return this.#committed.size;
  }

  /** Whether its group is done with all of these. */
  hasCommitted(ends: readonly { topic: string; partition: number; logEndOffset: number }[]): boolean {
    return ends
      .filter(({ topic }) => this.topics.includes(topic))
      .every(({ logEndOffset, ...log }) => this.#committed.get(keyOf(log)) === logEndOffset);
  }

  protected committed({ offset, ...log }: { topic: string; partition: number; offset: number | null }): void {
    this.#committed.set(keyOf(log), offset);
  }

  onFrame(frame: ServerFrame, send: Send): void {
    const consumer = this.name;
    if (frame.type === "ping") send({ type: "pong" });
    if (frame.type === "subscribed") {
      const memberId = frame.memberId ?? "";
      const { group } = this;
      this.journal.add({ type: "subscribed", consumer, group, memberId, isCommittedAhead: false });
    }
    if (frame.type === "assigned") {
      for (const each of frame.partitions) this.committed({ ...each, offset: each.committedOffset });
      const partitions = frame.partitions.map(({ reset, ...each }) =>
        typeof reset === "string" ? { ...each, reset } : each,
      );
      this.journal.add({ type: "assigned", consumer, partitions });
    }
    if (frame.type === "records") {
      const { topic, partition, generation, next } = frame;
      const records = seenRecords(frame.records);
      this.journal.add({ type: "polled", consumer, topic, partition, generation, records, next });
    }
  }
}

export class AckingConsumer extends Consumer {
  override onFrame(frame: ServerFrame, send: Send): void {
    super.onFrame(frame, send);
    if (frame.type === "records") {
      const offsets = [offsetOf(frame)];
      send({ type: "ack", id: this.journal.acking(this.name, offsets), offsets });
    }
    if (frame.type === "acked") {
      const offsets = frame.offsets.map(({ code, ...entry }) =>
        code === undefined ? entry : { ...entry, code },
      );
      for (const entry of offsets) if (!("code" in entry)) this.committed(entry);
      this.journal.add({ type: "acked", ack: String(frame.id), offsets });
    }
  }
}

/** Survives its subscriptions: the sequence goes on. */
export interface CopyState {
  sequence: number;
  unanswered: { readonly send: string; readonly frame: FrameOfTransact } | undefined;
}

type FrameOfTransact = Extract<Parameters<Send>[0], { type: "transact" }>;

/** Copies every record of its topics to `target`, a frame of records at a time, exactly once. */
export class CopyingConsumer extends Consumer {
  readonly #state: CopyState;
  readonly #target: string;
  readonly #waiting: FrameOf<"records">[] = [];

  constructor(
    journal: Journal,
    options: { group: string; topics: readonly string[]; target: string; state: CopyState },
  ) {
    super(journal, options);
    this.#state = options.state;
    this.#target = options.target;
  }

  /** What was not answered first: it was written, or its generation is over. */
  override start(send: Send): void {
    if (this.#state.unanswered) send(this.#state.unanswered.frame);
    super.start(send);
  }

  override onFrame(frame: ServerFrame, send: Send): void {
    super.onFrame(frame, send);
    if (frame.type === "records") this.#waiting.push(frame);
    if (frame.type === "transacted") this.#settle({ runs: frame.runs });
    if (frame.type === "error" && frame.id !== undefined) this.#settle({ code: frame.code });
    if (!this.#state.unanswered) this.#copyNext(send);
  }

  #copyNext(send: Send): void {
    const frame = this.#waiting.shift();
    if (!frame) return;
    const producer = `${this.group}-producer`;
    const values = seenRecords(frame.records).map(({ value }) => this.journal.name(`copy ${value}`));
    const records = values.map((value) => ({ value: valueText(value, 0) }));
    const commits = { group: this.group, offsets: [offsetOf(frame)] };
    const { sequence } = this.#state;
    const appends = [{ topic: this.#target, values }];
    const name = this.journal.send({ producer, isIdempotent: true, appends, commits });
    const transact: FrameOfTransact = {
      type: "transact",
      id: name,
      appends: [{ topic: this.#target, records }],
      commits,
      producer: { id: producer, epoch: 0, sequence },
    };
    this.#state.unanswered = { send: name, frame: transact };
    send(transact);
  }

  /** A sequence that was refused is not used up. */
  #settle({ runs, code }: { runs?: FrameOf<"transacted">["runs"]; code?: string }): void {
    const { unanswered } = this.#state;
    if (!unanswered) return;
    this.#state.unanswered = undefined;
    if (runs) {
      this.#state.sequence += 1;
      for (const entry of unanswered.frame.commits?.offsets ?? []) this.committed(entry);
      this.journal.sent(unanswered.send, runs);
      return;
    }
    this.journal.notSent(unanswered.send, code ?? "no code");
    // What it was told is written is not: it cannot go on.
    if (code === "sequence_gap") this.journal.giveUp(`${this.name} was refused with ${code}`);
  }
}

function keyOf({ topic, partition }: { topic: string; partition: number }): string {
  return `${topic}/${partition}`;
}

function offsetOf({ topic, partition, generation, next }: FrameOf<"records">) {
  return { topic, partition, generation, offset: next };
}
