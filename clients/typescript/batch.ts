// Browser-safe. What a consumer is given: records of one partition, in order, and how to say that they are done.

import type { DeliveredRecord, GroupCommits, RecordsFrame } from "../../src/protocol/frames.ts";
import { decodeBase64 } from "./base64.ts";
import { errorOf } from "./errors.ts";
import type { Subscription } from "./subscription.ts";
import type { Tenure } from "./tenure.ts";

/** A record as it is consumed. */
export interface ConsumedRecord<Value = unknown> {
  /** Its place in its partition, from 0. */
  readonly offset: number;
  /** Milliseconds since 1970. */
  readonly timestamp: number;
  readonly key?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Absent where the record has `bytes`. `null`: a tombstone. */
  readonly value: Value;
  readonly bytes?: Uint8Array;
}

/** A record by itself, which says where it is from. */
export interface PlacedRecord<Value = unknown, Topic extends string = string> extends ConsumedRecord<Value> {
  readonly topic: Topic;
  readonly partition: number;
}

/** The values of topics, by their names. */
export type TopicValues = Readonly<Record<string, unknown>>;

/** A batch of one of the topics: which one, its `topic` says, to the compiler too. */
export type BatchOf<Values> = {
  [Topic in keyof Values & string]: Batch<Values[Topic], Topic>;
}[keyof Values & string];

/** A record of one of the topics. */
export type RecordOf<Values> = {
  [Topic in keyof Values & string]: PlacedRecord<Values[Topic], Topic>;
}[keyof Values & string];

export interface BatchOptions {
  readonly subscription: Subscription;
  readonly tenure: Tenure;
  readonly frame: RecordsFrame;
  /** Absent for a reader. */
  readonly group: string | undefined;
  readonly deadLetter: string | undefined;
}

/**
 * Consecutive records of one partition, at most 500. Offsets may have gaps, where records were compacted away.
 * Source: a `records` frame of PROTOCOL.md.
 */
export class Batch<Value = unknown, Topic extends string = string> {
  readonly topic: Topic;
  readonly topicId: number;
  readonly partition: number;
  /** Empty where a schema allowed none of them and one acknowledges by hand: acknowledge it all the same. */
  records: readonly ConsumedRecord<Value>[];
  /** The offset after the last of them: what `ack()` commits. */
  readonly next: number;
  /** Records of the partition that were still to come when these were read. */
  readonly lag: number;
  readonly #options: BatchOptions;
  /** @internal */
  constructor(options: BatchOptions) {
    const { frame, tenure } = options;
    this.#options = options;
    this.topic = frame.topic as Topic; // the subscription has no other topics
    this.topicId = tenure.topicId;
    this.partition = frame.partition;
    this.records = recordsOf(frame);
    this.next = frame.next;
    this.lag = Math.max(0, frame.logEndOffset - frame.next);
  }

  /** Of the ownership; another one after a reconnect. */
  get generation(): number {
    return this.#options.tenure.generation;
  }

  /** Aborts, with a `FencedError` as its reason, when the partition is lost: another member has it, or it was reset. */
  get signal(): AbortSignal {
    return this.#options.tenure.ending.signal;
  }

  /**
   * Commits the whole batch. Resolves when it is durable.
   *
   * Rejects with a `FencedError` when the partition was lost before that. `metadata`: at most 4 KiB, kept with the offset.
   */
  ack(metadata?: string): Promise<void> {
    return this.#commit(this.next, metadata);
  }

  /** Commits up to and with this record. Resolves and rejects as `ack`. */
  ackThrough({ offset }: { readonly offset: number }, metadata?: string): Promise<void> {
    if (offset < this.next) return this.#commit(offset + 1, metadata);
    const why = `Cannot acknowledge offset ${offset}: this batch ends before ${this.next}`;
    return Promise.reject(errorOf("offset_out_of_range", why));
  }

  #commit(offset: number, metadata: string | undefined): Promise<void> {
    const { subscription, tenure } = this.#options;
    return subscription.commit(tenure, offset, metadata);
  }

  /**
   * What `ack()` would commit, for a transaction of one's own: see `transact`. Of a reader there is nothing to commit.
   *
   * Ask each time: after a reconnect the generation is another. What is `fenced_generation` in one's own SQL is lost only
   * where `signal` aborts. Until then try again, or end the loop by throwing: going on would pass over the batch.
   */
  commits(): GroupCommits {
    const { group, tenure } = this.#options;
    if (group === undefined) throw errorOf("bad_request", "A reader commits nothing: consume in a group");
    const { topic, partition } = this;
    return { group, offsets: [{ topic, partition, generation: tenure.generation, offset: this.next }] };
  }

  /**
   * Puts a copy of this record into the consumer's `deadLetter` topic, in the transaction that commits past it: go on, and
   * the next `ack` that covers it writes both.
   */
  deadLetter(record: { readonly offset: number }, error: unknown): void {
    const { frame, tenure, deadLetter } = this.#options;
    if (deadLetter === undefined)
      throw errorOf("bad_request", "There is no dead-letter topic: name one in consume(…, {deadLetter})");
    const found = frame.records.find(({ offset }) => offset === record.offset);
    if (found) tenure.deadLetters.push({ record: found, error });
  }

  /** A transaction has committed it. @internal */
  handleCommitted(): void {
    const { subscription, tenure } = this.#options;
    subscription.settle(tenure, this.next);
  }

  /** A transaction was refused because of it. @internal */
  handleFenced(): void {
    const { subscription, tenure } = this.#options;
    subscription.disown(tenure);
  }

  /** @internal */
  get tenure(): Tenure {
    return this.#options.tenure;
  }

  /** @internal */

  place(record: ConsumedRecord<Value>): PlacedRecord<Value, Topic> {
    return { topic: this.topic, partition: this.partition, ...record };
  }
}

/** As they came, where nothing is to be decoded: a batch of them is parsed once and never copied. */
function recordsOf<Value>({ records }: RecordsFrame): readonly ConsumedRecord<Value>[] {
  const asTheyCame: readonly unknown[] = records;
  return records.some(hasBytes)
    ? records.map(decode<Value>)
    : (asTheyCame as readonly ConsumedRecord<Value>[]); // a definition says what values are
}

function hasBytes({ bytes }: DeliveredRecord): boolean {
  return bytes !== undefined;
}

/** What an application gets for what travelled. */
export function decode<Value>({ bytes, ...record }: DeliveredRecord): ConsumedRecord<Value> {
  const rest = record as ConsumedRecord<Value>; // a definition says what values are
  return bytes === undefined ? rest : { ...rest, bytes: decodeBase64(bytes) };
}
