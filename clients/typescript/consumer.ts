// Browser-safe. A member of a consumer group.

import type {
  AssignedPartition,
  GroupCommits,
  RevokeReason,
  SubscribeFrame,
} from "../../src/protocol/frames.ts";
import type { GroupDescription } from "../../src/protocol/http.ts";
import { WINDOW_RECORDS_DEFAULT } from "../../src/protocol/limits.ts";
import type { Place, ResetPolicies, ResetPolicy } from "../../src/protocol/places.ts";
import type { AckPace } from "./ack-sender.ts";
import type { BatchOf, PlacedRecord, RecordOf, TopicValues } from "./batch.ts";
import { BatchSource, type Handler, type RetryOptions, type RunOptions } from "./batch-source.ts";
import { Emitter } from "./emitter.ts";
import { errorOf, type SchemaViolationError, type TidemarkError } from "./errors.ts";
import { call } from "./http.ts";
import type { Link, LinkOptions } from "./link.ts";
import type { Platform } from "./platform.ts";
import { Subscription, type SubscriptionOptions } from "./subscription.ts";
import type { DeadLetter, Tenure } from "./tenure.ts";
import type { ValueCheck } from "./topics.ts";

/** A partition of a topic. */
export interface PartitionOf {
  readonly topic: string;
  readonly partition: number;
}

export interface ConsumeOptions {
  /** Its members share the partitions of the topics, and one set of committed offsets. */
  readonly group: string;
  /** Where to start where nothing is committed, or what is committed is not in the log any more. "earliest" by default. */
  readonly reset?: ResetPolicy | Partial<ResetPolicies> | undefined;
  /**
   * When offsets are committed.
   *
   * - `"each-batch"` (default): a batch when the loop asks for the next one, a record when its handler has returned. What
   *   throws or breaks stays unacknowledged and comes again. At least once.
   * - `{everyMs?, everyRecords?}`: the same, gathered for so long (1,000 ms where it is not said) or so many records, half
   *   the window at most.
   * - `"manual"`: by `batch.ack()` and `batch.ackThrough(record)` only.
   * - `"none"`: before they are sent. At most once.
   */
  readonly ack?:
    | "each-batch"
    | { readonly everyMs?: number; readonly everyRecords?: number }
    | "manual"
    | "none";
  /** Most that is sent and not acknowledged: 1 to 10,000 records (1,000), 65,536 to 4,194,304 bytes (1,048,576). */
  readonly window?: { readonly records?: number; readonly bytes?: number };
  /** Static membership: who comes back under this name within the session timeout keeps its partitions. */
  readonly instanceId?: string | undefined;
  /** 6,000 to 300,000 milliseconds (45,000). */
  readonly sessionTimeoutMs?: number | undefined;
  /** A partition of which nothing is acknowledged for so many milliseconds goes to another member. Never by default. */
  readonly ackTimeoutMs?: number | undefined;
  /** Ends it: what waits rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** For `run`: how often a handler may fail at one record. */
  readonly retry?: RetryOptions | undefined;
  /**
   * A topic for records that cannot be handled. A copy is written in the same transaction as the ack, with the headers
   * `tidemark-error`, `tidemark-origin-topic`, `tidemark-origin-partition` and `tidemark-origin-offset`.
   */
  readonly deadLetter?: string | undefined;
  /** Is told of records that the schema of their topic does not allow; they are skipped. For `connect({check: true})`. */
  readonly onInvalid?: ((record: PlacedRecord, error: SchemaViolationError) => void) | undefined;
}

export interface ConsumerEvents {
  readonly assigned: { readonly partitions: readonly AssignedPartition[] };
  /** They go to another member. What is in hand may be finished and acknowledged until `deadlineMs` have passed. */
  readonly revoked: {
    readonly partitions: readonly PartitionOf[];
    readonly reason: RevokeReason;
    readonly deadlineMs: number;
  };
  readonly lost: PartitionOf & { readonly error: TidemarkError };
  /** Something went wrong that the consumer goes on after. */
  readonly trouble: TidemarkError;
}

/** What is known here of a partition. */
export interface OwnedPartition extends PartitionOf {
  readonly topicId: number;
  readonly generation: number;
  /** The next offset to be handed out. */
  readonly position: number;
  /** The next offset to be processed by the group, durable; null where nothing is committed. */
  readonly committedOffset: number | null;
  /** As it was when the last records came. */
  readonly logEndOffset: number;
  readonly isPaused: boolean;
}

/** What a consumer or reader needs of its client. @internal */
export interface Surroundings {
  readonly link: Link;
  readonly server: LinkOptions;
  readonly platform: Platform;
  /** Of its subscription. */
  readonly name: string;
  readonly checkOf: (topic: string) => ValueCheck | undefined;
  /** Whoever has ended needs not be closed with the client. */
  readonly forget: (closable: { close(): Promise<void> }) => void;
  /** Absent where the client only consumes. */
  readonly transactDeadLetters: TransactDeadLetters | undefined;
}

/** Appends dead letters to a topic and commits, all of it or nothing. @internal */
export type TransactDeadLetters = (
  topic: string,
  letters: readonly DeadLetter[],
  commits: CommitSource,
) => Promise<unknown>;

/** Whose offsets a transaction commits, as they are when it is sent. @internal */
export interface CommitSource {
  readonly tenure: Tenure;
  readonly commits: () => GroupCommits;
  readonly handleCommitted?: (() => void) | undefined;
  readonly handleFenced: () => void;
}

/**
 * A member of a consumer group: `for await` gives batches, `records()` single records, `run()` calls a handler.
 *
 * Breaking out of a loop closes it.
 */
export class Consumer<Values = TopicValues> implements AsyncIterable<BatchOf<Values>>, AsyncDisposable {
  readonly #events = new Emitter<ConsumerEvents>();
  readonly #subscription: Subscription;
  readonly #source: BatchSource<Values>;
  readonly #around: Surroundings;
  readonly #group: string;

  /** @internal */
  constructor(topics: readonly string[], options: ConsumeOptions, around: Surroundings) {
    const { group, ack = "each-batch", deadLetter, retry, onInvalid, signal } = options;
    refuseContradictions(topics, options, around);
    this.#around = around;
    this.#group = group;
    this.#subscription = new Subscription(this.#subscriptionOf(topics, options));
    this.#source = new BatchSource({
      ...{ subscription: this.#subscription, platform: around.platform, checkOf: around.checkOf },
      ...{ group, deadLetter, retry, onInvalid, signal },
      acksWhenDone: ack !== "manual" && ack !== "none",
    });
  }

  [Symbol.asyncIterator](): AsyncGenerator<BatchOf<Values>, void, undefined> {
    return this.#source.batches();
  }

  /** One by one. A record is done when the next one is asked for; acks are gathered. */
  records(): AsyncGenerator<RecordOf<Values>, void, undefined> {
    return this.#source.records();
  }

  /**
   * Calls `handler` with each record: those of a partition one after the other, partitions side by side.
   *
   * Resolves when the consumer is closed. Rejects with `handler_failed`, whose `cause` is what was thrown, when a handler
   * has failed `retry.attempts` times and there is no `deadLetter`.
   */
  run(handler: Handler<Values>, options?: RunOptions): Promise<void> {
    return this.#source.run(handler, options);
  }

  /** Goes on from another place in one partition. The committed offset stays until something is acknowledged. */
  seek({ topic, partition, to }: PartitionOf & { readonly to: Place }): Promise<void> {
    return this.#subscription.seek(topic, partition, to);
  }

  /** Nothing of these partitions, or of all, until `resume` or until they are lost. */
  async pause(partitions: readonly PartitionOf[] = this.partitions): Promise<void> {
    await Promise.all(partitions.map(({ topic, partition }) => this.#subscription.pause(topic, partition)));
  }

  async resume(partitions: readonly PartitionOf[] = this.partitions): Promise<void> {
    await Promise.all(partitions.map(({ topic, partition }) => this.#subscription.resume(topic, partition)));
  }

  /** What this member has, as far as is known here. */
  get partitions(): readonly OwnedPartition[] {
    return [...this.#subscription.tenures].map(describe);
  }

  /** How many records each partition of the group's topics is behind, asked of the server; null where nothing is committed. */
  async lag(): Promise<readonly (PartitionOf & { readonly lag: number | null })[]> {
    return (await this.#offsets()).map(({ topic, partition, lag }) => ({ topic, partition, lag }));
  }

  /** The group's committed offsets, asked of the server. */
  async committed(): Promise<readonly (PartitionOf & { readonly committedOffset: number | null })[]> {
    return (await this.#offsets()).map(({ topic, partition, committedOffset }) => ({
      topic,
      partition,
      committedOffset,
    }));
  }

  async #offsets(): Promise<GroupDescription["offsets"]> {
    const path = ["v1", "groups", this.#group];
    return (await call<GroupDescription>(this.#around.server, { method: "GET", path })).body.offsets;
  }

  /** Of the membership; another one where the server had ended it meanwhile. */
  get memberId(): string | undefined {
    return this.#subscription.memberId;
  }

  /** Calls `listener` at each event of that name. Returns what stops it. */
  on<Name extends keyof ConsumerEvents>(
    name: Name,
    listener: (event: ConsumerEvents[Name]) => void,
  ): () => void {
    return this.#events.on(name, listener);
  }

  /**
   * Takes nothing more, lets handlers of `run` finish their record (5 s at most), acknowledges what is done and leaves the
   * group. A loop ends when it asks for more; what it has in hand then stays unacknowledged, unless it acknowledges first.
   */
  close(): Promise<void> {
    return this.#source.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #subscriptionOf(topics: readonly string[], options: ConsumeOptions): SubscriptionOptions {
    const { link, platform, name } = this.#around;
    const { ack = "each-batch", reset, deadLetter, window } = options;
    return {
      ...{ link, platform, name },
      request: ({ memberId }) => requestOf(topics, options, memberId),
      pace: typeof ack === "object" ? paceOf(ack, window) : {},
      isCommittedFirst: ack === "none",
      outOfRange: outOfRangeOf(reset),
      ...(deadLetter === undefined
        ? {}
        : { bury: (tenure, letters, offset) => this.#bury(deadLetter, { tenure, letters, offset }) }),
      tell: {
        assigned: (partitions) => this.#events.emit("assigned", { partitions }),
        revoked: ({ partitions, reason, deadlineMs }) =>
          this.#events.emit("revoked", { partitions, reason, deadlineMs }),
        lost: ({ topic, partition }, error) => this.#events.emit("lost", { topic, partition, error }),
        trouble: (error) => this.#events.emit("trouble", error),
        ended: () => this.#around.forget(this),
      },
    };
  }

  #bury(
    topic: string,
    {
      tenure,
      letters,
      offset,
    }: { readonly tenure: Tenure; readonly letters: readonly DeadLetter[]; readonly offset: number },
  ): Promise<unknown> {
    const group = this.#group;
    const { topic: origin, partition } = tenure;
    const commits = () => ({
      group,
      offsets: [{ topic: origin, partition, generation: tenure.generation, offset }],
    });
    const handleFenced = () => this.#subscription.disown(tenure);
    return Promise.resolve(
      this.#around.transactDeadLetters?.(topic, letters, { tenure, commits, handleFenced }),
    );
  }
}

function requestOf(
  topics: readonly string[],
  { group, reset, ack, window, instanceId, sessionTimeoutMs, ackTimeoutMs }: ConsumeOptions,
  memberId: string | undefined,
): Omit<SubscribeFrame, "type" | "id" | "subscription"> {
  return {
    topics,
    group,
    reset,
    ack: ack === "none" ? "none" : "manual",
    window,
    instanceId,
    memberId,
    sessionTimeoutMs,
    ackTimeoutMs,
  };
}

/**
 * No more is gathered than half the window, and not for ever, as bytes fill it too: or nothing would come that more could
 * be made of.
 */
function paceOf(
  { everyMs = GATHERED_MAX_MS, everyRecords = Infinity }: AckPace,
  { records = WINDOW_RECORDS_DEFAULT }: NonNullable<ConsumeOptions["window"]> = {},
): AckPace {
  return { everyMs, everyRecords: Math.min(everyRecords, records / 2) };
}

/** Where only records are counted. */
const GATHERED_MAX_MS = 1_000;

function outOfRangeOf(reset: ConsumeOptions["reset"]): ResetPolicy {
  if (reset === undefined) return "earliest";
  return typeof reset === "object" && !("timestamp" in reset) && !("ago" in reset)
    ? (reset.outOfRange ?? "earliest")
    : reset;
}

function refuseContradictions(
  topics: readonly string[],
  { ack, deadLetter, onInvalid }: ConsumeOptions,
  { checkOf, transactDeadLetters }: Surroundings,
): void {
  if (deadLetter !== undefined && ack === "none") {
    throw errorOf(
      "bad_request",
      'Cannot consume with both "deadLetter" and ack "none": a dead letter is written with the ack, and here there is none',
    );
  }
  if (deadLetter !== undefined && !transactDeadLetters) {
    throw errorOf(
      "bad_request",
      'A client that only consumes writes no dead letters: connect by "@tidemark/client"',
    );
  }
  const checked = topics.find((topic) => checkOf(topic));
  if (checked !== undefined && deadLetter === undefined && onInvalid === undefined) {
    throw errorOf(
      "bad_request",
      `Values of topic "${checked}" are checked: say what becomes of a record that its schema does not allow, by "deadLetter" or "onInvalid"`,
    );
  }
}

function describe({
  topic,
  topicId,
  partition,
  generation,
  handedOut,
  committed,
  logEndOffset,
  isPaused,
}: Tenure): OwnedPartition {
  return {
    topic,
    topicId,
    partition,
    generation,
    position: handedOut,
    committedOffset: committed,
    logEndOffset,
    isPaused: isPaused === true,
  };
}
