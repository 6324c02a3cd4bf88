// Browser-safe. Reads topics without a group: it owns nothing and commits nothing, and says itself how far it is.

import type { AssignedPartition, ReaderStart, SubscribeFrame } from "../../src/protocol/frames.ts";
import type { Place, ReaderPlace, ResetPolicy } from "../../src/protocol/places.ts";
import type { BatchOf, RecordOf, TopicValues } from "./batch.ts";
import { BatchSource } from "./batch-source.ts";
import type { PartitionOf, Surroundings } from "./consumer.ts";
import { Emitter } from "./emitter.ts";
import type { TidemarkError } from "./errors.ts";
import { Subscription } from "./subscription.ts";
import type { Tenure } from "./tenure.ts";

/** How far a reader is: JSON, to be kept and given to `read(topics, {from})` later. */
export interface Cursor {
  readonly positions: readonly ReaderStart[];
  /** Whether the reader had these partitions only, by a list. */
  readonly isList: boolean;
  /** Where the others begin, of a reader that had none yet; else they are new, and begin at their beginning. */
  readonly others?: ReaderPlace | undefined;
}

export interface ReadOptions {
  /**
   * Where to start. A place: in all partitions. A list: in these partitions only. A cursor: where it was taken, and what
   * has come into being since, from its beginning. "earliest" by default.
   */
  readonly from?: ReaderPlace | readonly ReaderStart[] | Cursor | undefined;
  /** Where to go on when the log does not reach back to where it was. "earliest" by default; "none": an error. */
  readonly reset?: ResetPolicy | undefined;
  /** Most that is sent and not gone through: as for a consumer. */
  readonly window?: { readonly records?: number; readonly bytes?: number };
  /** Ends it: what waits rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

export interface ReaderEvents {
  readonly assigned: { readonly partitions: readonly AssignedPartition[] };
  readonly lost: PartitionOf & { readonly error: TidemarkError };
  /** Something went wrong that the reader goes on after. */
  readonly trouble: TidemarkError;
}

export class Reader<Values = TopicValues> implements AsyncIterable<BatchOf<Values>>, AsyncDisposable {
  readonly #events = new Emitter<ReaderEvents>();
  readonly #subscription: Subscription;
  readonly #source: BatchSource<Values>;
  readonly #topics: readonly string[];
  readonly #options: ReadOptions;
  #hasBegun = false;

  /** @internal */
  constructor(
    topics: readonly string[],
    options: ReadOptions,
    { link, platform, name, checkOf, forget }: Surroundings,
  ) {
    this.#topics = topics;
    this.#options = options;
    this.#subscription = new Subscription({
      ...{ link, platform, name, pace: {} },
      request: () => this.#request(),
      startOf: (assigned) => this.#startOf(assigned),
      outOfRange: options.reset,
      tell: {
        assigned: (partitions) => this.#handleAssigned(partitions),
        revoked: () => {}, // a reader's are only lost
        lost: ({ topic, partition }, error) => this.#events.emit("lost", { topic, partition, error }),
        trouble: (error) => this.#events.emit("trouble", error),
        ended: () => forget(this),
      },
    });
    this.#source = new BatchSource({
      ...{ subscription: this.#subscription, platform, signal: options.signal, checkOf },
      ...{ group: undefined, deadLetter: undefined, retry: undefined },
      acksWhenDone: true,
      onInvalid: (_, error) => this.#events.emit("trouble", error),
    });
  }

  [Symbol.asyncIterator](): AsyncGenerator<BatchOf<Values>, void, undefined> {
    return this.#source.batches();
  }

  /** One by one. */
  records(): AsyncGenerator<RecordOf<Values>, void, undefined> {
    return this.#source.records();
  }

  /** How far the loop is, or was when it ended: what it has in hand is not part of it. */
  cursor(): Cursor {
    const { from = "earliest" } = this.#options;
    const list = this.#list;
    if (this.#hasBegun)
      return { positions: this.#positions(({ processed }) => processed), isList: list !== undefined };
    if (isCursor(from)) return from;
    return list
      ? { positions: list, isList: true }
      : { positions: [], isList: false, others: from as ReaderPlace }; // nor a list
  }

  /** Goes on from another place in one partition. */
  seek({ topic, partition, to }: PartitionOf & { readonly to: ReaderPlace }): Promise<void> {
    return this.#subscription.seek(topic, partition, to);
  }

  /** Calls `listener` at each event of that name. Returns what stops it. */
  on<Name extends keyof ReaderEvents>(name: Name, listener: (event: ReaderEvents[Name]) => void): () => void {
    return this.#events.on(name, listener);
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The partitions that were asked for, where only these are wanted. */
  get #list(): readonly ReaderStart[] | undefined {
    const { from } = this.#options;
    if (isCursor(from)) return from.isList ? from.positions : undefined;
    return typeof from === "object" && "length" in from ? from : undefined;
  }

  #handleAssigned(partitions: readonly AssignedPartition[]): void {
    this.#hasBegun = true;
    this.#events.emit("assigned", { partitions });
  }

  /** Acks commit nothing here; they say what was gone through, so that no more than the window waits on either side. */
  #request(): Omit<SubscribeFrame, "type" | "id" | "subscription"> {
    const { window, reset } = this.#options;
    return {
      topics: this.#topics,
      from: this.#from(),
      ack: "manual",
      window,
      reset: reset && { outOfRange: reset },
    };
  }

  #from(): ReaderPlace | readonly ReaderStart[] {
    const { from = "earliest" } = this.#options;
    // Not like the cursor: what is in hand is not to come again.
    if (this.#list) return this.#ownList(this.#list);
    // What is known is sought when it is assigned: "latest" is the place where the least is sent for nothing.
    return this.#hasBegun || isCursor(from) ? "latest" : (from as ReaderPlace); // nor a list: the compiler cannot see it
  }

  /** Where it is, or, where all its topics are gone, what it wanted: the server says what is wrong with that. */
  #ownList(list: readonly ReaderStart[]): readonly ReaderStart[] {
    const positions = this.#hasBegun ? this.#positions(({ handedOut }) => handedOut) : [];
    return positions.length > 0 ? positions : list;
  }

  /** Where it is to begin "earliest", a cursor says nothing: that means the same. */
  #positions(offsetOf: (tenure: Tenure) => number): readonly ReaderStart[] {
    return [...this.#subscription.lastTenures].flatMap((tenure) => {
      const { topic, topicId, partition, start } = tenure;
      if (start === undefined) return [{ topic, partition, offset: offsetOf(tenure), topicId }];
      const isKnown = typeof start === "object" && "offset" in start;
      return isKnown ? [{ topic, partition, offset: start.offset, topicId }] : [];
    });
  }

  /** What was subscribed to from "latest" without that being anybody's place: it begins where the cursor says, or is new. */
  #startOf(assigned: AssignedPartition): Place | undefined {
    const { from } = this.#options;
    const cursor = !this.#hasBegun && isCursor(from) ? from : undefined;
    if (this.#list || !(this.#hasBegun || cursor)) return undefined;
    const known = cursor?.positions.find((position) => isOf(position, assigned));
    return known ? { offset: known.offset } : (cursor?.others ?? "earliest");
  }
}

function isOf({ topic, partition, topicId }: ReaderStart, assigned: AssignedPartition): boolean {
  return (
    topic === assigned.topic &&
    partition === assigned.partition &&
    (topicId ?? assigned.topicId) === assigned.topicId
  );
}

function isCursor(from: ReadOptions["from"]): from is Cursor {
  return typeof from === "object" && "positions" in from;
}
