// Browser-safe. The frames of GET /v1/stream as plain types; schemas/ has their schemas, kept equal by the compiler.
//
// All ranges are half-open and every offset is a *next* offset: the position after what was sent or processed.

import type { ErrorCode } from "./codes.ts";
import type { Place, ReaderPlace, ResetPolicies, ResetPolicy } from "./places.ts";

/** Chosen by the client; the one answer to a frame carries the same. */
export type FrameId = number | string;

/** Most that may be sent and not yet acknowledged on one subscription. */
export interface Window {
  readonly records: number;
  readonly bytes: number;
}

/** Any member may be left out. */
type Optional<T> = { readonly [K in keyof T]?: T[K] | undefined };

// ── client → server ──────────────────────────────────────────────────────────────────────────────────────

export interface SubscribeFrame {
  readonly type: "subscribe";
  readonly id?: FrameId | undefined;
  readonly subscription?: string | undefined;
  readonly topics: readonly string[];
  /** Either this or `from`. */
  readonly group?: string | undefined;
  /** A subscription without a group is a reader: from here, or these partitions only. */
  readonly from?: ReaderPlace | readonly ReaderStart[] | undefined;
  readonly instanceId?: string | undefined;
  readonly memberId?: string | undefined;
  readonly reset?: ResetPolicy | Optional<ResetPolicies> | undefined;
  /** `none`: a group's offsets are committed before the records are sent. */
  readonly ack?: AckMode | undefined;
  readonly window?: Optional<Window> | undefined;
  readonly sessionTimeoutMs?: number | undefined;
  readonly ackTimeoutMs?: number | undefined;
}

export type AckMode = "manual" | "none";

/** Where a reader starts in one partition. */
export interface ReaderStart {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  /** The topic that the offset belongs to; another one of the same name is refused. */
  readonly topicId?: number | undefined;
}

export interface PartitionName {
  readonly topic: string;
  readonly partition: number;
}

export interface AckEntry {
  readonly topic: string;
  readonly partition: number;
  readonly generation: number;
  /** The next offset to be processed: the `next` of the last frame that was. */
  readonly offset: number;
  readonly metadata?: string | undefined;
}

export interface AckFrame {
  readonly type: "ack";
  readonly id?: FrameId | undefined;
  readonly subscription?: string | undefined;
  readonly offsets: readonly AckEntry[];
}

export interface UnsubscribeFrame {
  readonly type: "unsubscribe";
  readonly id?: FrameId | undefined;
  readonly subscription?: string | undefined;
}

/** Lets a partition that is being revoked go before its deadline. */
export interface ReleaseFrame {
  readonly type: "release";
  readonly id?: FrameId | undefined;
  readonly subscription?: string | undefined;
  readonly partitions: readonly PartitionName[];
}

/** Moves the position, never the committed offset. The answer is `assigned`. */
export interface SeekFrame {
  readonly type: "seek";
  readonly id?: FrameId | undefined;
  readonly subscription?: string | undefined;
  readonly topic: string;
  readonly partition: number;
  readonly to: Place;
}

/** No records of these partitions until `resume`, or until they are lost. */
export interface PauseFrame {
  readonly type: "pause";
  readonly id?: FrameId | undefined;
  readonly subscription?: string | undefined;
  readonly partitions: readonly PartitionName[];
}

export interface ResumeFrame {
  readonly type: "resume";
  readonly id?: FrameId | undefined;
  readonly subscription?: string | undefined;
  readonly partitions: readonly PartitionName[];
}

/** As the body of POST /v1/topics/:topic/records. */
export interface ProduceFrame {
  readonly type: "produce";
  readonly id?: FrameId | undefined;
  readonly topic: string;
  readonly records: readonly ProducedRecord[];
  readonly producer?: ProducerSequence | undefined;
  readonly expect?: readonly Expectation[] | undefined;
}

/** Says which of a producer's batches and transactions this is, so that a repeated one is not written twice. */
export interface ProducerSequence {
  readonly id: string;
  readonly epoch: number;
  /** From 0 by 1, over all topics. */
  readonly sequence: number;
}

/** Nothing is written unless this is the partition's log end. */
export interface Expectation {
  readonly partition: number;
  readonly logEndOffset: number;
}

export interface TopicExpectation extends Expectation {
  readonly topic: string;
}

/** As the body of POST /v1/transactions: all or nothing. */
export interface TransactFrame {
  readonly type: "transact";
  readonly id?: FrameId | undefined;
  readonly producer?: ProducerSequence | undefined;
  readonly appends: readonly { readonly topic: string; readonly records: readonly ProducedRecord[] }[];
  readonly commits?: GroupCommits | undefined;
  readonly expect?: readonly TopicExpectation[] | undefined;
}

/** Each must be the owner's and must advance. */
export interface GroupCommits {
  readonly group: string;
  readonly offsets: readonly AckEntry[];
}

/** Exactly one of `value` and `bytes`. */
export interface ProducedRecord {
  readonly key?: string | null | undefined;
  /** Any JSON, kept as the text that came; null is a tombstone. */
  readonly value?: unknown;
  /** Base64. */
  readonly bytes?: string | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Milliseconds since 1970; absent: the time of the append. */
  readonly timestamp?: number | undefined;
  /** Absent: by the key, else one for the whole batch. */
  readonly partition?: number | undefined;
}

export interface PongFrame {
  readonly type: "pong";
  readonly id?: FrameId | undefined;
}

export type ClientFrame =
  | SubscribeFrame
  | AckFrame
  | ReleaseFrame
  | SeekFrame
  | PauseFrame
  | ResumeFrame
  | ProduceFrame
  | TransactFrame
  | UnsubscribeFrame
  | PongFrame;

// ── server → client ──────────────────────────────────────────────────────────────────────────────────────

/** `fsync`: what is acknowledged is on disk. `relaxed`: a remote database acknowledges before that. */
export type Durability = "fsync" | "relaxed";

export interface SubscribedFrame {
  readonly type: "subscribed";
  readonly id?: FrameId | undefined;
  readonly subscription: string;
  /** Absent for a reader. */
  readonly memberId?: string | undefined;
  readonly heartbeatMs: number;
  readonly sessionTimeoutMs: number;
  readonly durability: Durability;
}

export interface AssignedPartition {
  readonly topic: string;
  readonly topicId: number;
  readonly partition: number;
  readonly generation: number;
  /** The first offset that will be sent; null where the policy `none` found no usable committed offset. */
  readonly position: number | null;
  readonly committedOffset: number | null;
  readonly metadata?: string | undefined;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
  /** The policy that gave the position, where one did. */
  readonly reset?: ResetPolicy | undefined;
}

/** For these partitions all before is void: records follow from `position`. */
export interface AssignedFrame {
  readonly type: "assigned";
  /** Of the `seek` that it answers. */
  readonly id?: FrameId | undefined;
  readonly subscription: string;
  readonly partitions: readonly AssignedPartition[];
}

/** The server never builds this as an object: see `recordsFrameText` in core/session/records.ts. */
export interface RecordsFrame {
  readonly type: "records";
  readonly subscription: string;
  readonly generation: number;
  readonly topic: string;
  readonly partition: number;
  readonly records: readonly DeliveredRecord[];
  readonly next: number;
  readonly logEndOffset: number;
}

export interface DeliveredRecord {
  readonly offset: number;
  readonly timestamp: number;
  readonly key?: string | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Either this or `bytes`. */
  readonly value?: unknown;
  /** Base64. */
  readonly bytes?: string | undefined;
}

export interface AckedEntry {
  readonly topic: string;
  readonly partition: number;
  /** The durable committed offset after the ack; null where nothing is committed. */
  readonly offset: number | null;
  /** Why the entry had no effect; with `outcome_unknown` it may have had one. */
  readonly code?: ErrorCode | undefined;
}

export interface AckedFrame {
  readonly type: "acked";
  readonly id?: FrameId | undefined;
  readonly subscription: string;
  readonly offsets: readonly AckedEntry[];
}

/** `stalled`: nothing of it was acknowledged for the subscription's `ackTimeoutMs`. */
export type RevokeReason = "rebalance" | "expired" | "stalled" | "topic_deleted";

export interface RevokedFrame {
  readonly type: "revoked";
  readonly subscription: string;
  readonly partitions: readonly {
    readonly topic: string;
    readonly partition: number;
    readonly generation: number;
  }[];
  readonly reason: RevokeReason;
  /** 0: already gone. */
  readonly deadlineMs: number;
}

export interface UnsubscribedFrame {
  readonly type: "unsubscribed";
  readonly id?: FrameId | undefined;
  readonly subscription: string;
  /** Absent when the client asked for it. */
  readonly code?: "replaced" | "expired" | undefined;
}

/** Consecutive records of one partition, in the order of the request. */
export interface Run {
  readonly partition: number;
  /** Of the first record; the others follow. */
  readonly offset: number;
  readonly count: number;
}

/** All of the batch is durable. */
export interface ProducedFrame {
  readonly type: "produced";
  readonly id?: FrameId | undefined;
  readonly runs: readonly Run[];
  /** The producer's sequence was written before: these are its runs, none where it is not among the last 16. */
  readonly duplicate?: true | undefined;
}

export interface TopicRun extends Run {
  readonly topic: string;
}

/** All of the transaction is durable. */
export interface TransactedFrame {
  readonly type: "transacted";
  readonly id?: FrameId | undefined;
  readonly runs: readonly TopicRun[];
  readonly duplicate?: true | undefined;
}

export interface OkFrame {
  readonly type: "ok";
  readonly id: FrameId;
}

export interface PingFrame {
  readonly type: "ping";
}

export interface DrainingFrame {
  readonly type: "draining";
  readonly retryAfterMs: number;
}

/** The facts of its code (`expected`, `found`, …) stand beside these members, as in a problem over HTTP. */
export interface ErrorFrame {
  readonly type: "error";
  readonly id?: FrameId | undefined;
  readonly subscription?: string | undefined;
  readonly topic?: string | undefined;
  readonly partition?: number | undefined;
  readonly code: ErrorCode;
  readonly message: string;
  readonly retriable: boolean;
}

export type ServerFrame =
  | SubscribedFrame
  | AssignedFrame
  | RecordsFrame
  | AckedFrame
  | RevokedFrame
  | UnsubscribedFrame
  | ProducedFrame
  | TransactedFrame
  | OkFrame
  | PingFrame
  | DrainingFrame
  | ErrorFrame;
