// Browser-safe. The frames of GET /v1/stream as plain types; schemas.ts has their schemas, kept equal by the compiler.
//
// All ranges are half-open and every offset is a *next* offset: the position after what was sent or processed.

import type { ErrorCode } from "./codes.ts";

/** Chosen by the client; the one answer to a frame carries the same. */
export type FrameId = number | string;

/** Where to start when there is no usable committed offset. */
export type ResetPolicy = "earliest" | "latest" | "none";

/** `missing`: nothing is committed. `outOfRange`: what is committed lies outside [log start, log end]. */
export interface ResetPolicies {
  readonly missing: ResetPolicy;
  readonly outOfRange: ResetPolicy;
}

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
  readonly group: string;
  readonly instanceId?: string | undefined;
  readonly memberId?: string | undefined;
  readonly reset?: ResetPolicy | Optional<ResetPolicies> | undefined;
  readonly ack?: "manual" | undefined;
  readonly window?: Optional<Window> | undefined;
  readonly sessionTimeoutMs?: number | undefined;
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

export interface PongFrame {
  readonly type: "pong";
  readonly id?: FrameId | undefined;
}

export type ClientFrame = SubscribeFrame | AckFrame | UnsubscribeFrame | PongFrame;

// ── server → client ──────────────────────────────────────────────────────────────────────────────────────

/** `fsync`: what is acknowledged is on disk. */
export type Durability = "fsync";

export interface SubscribedFrame {
  readonly type: "subscribed";
  readonly id?: FrameId | undefined;
  readonly subscription: string;
  readonly memberId: string;
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

export interface AssignedFrame {
  readonly type: "assigned";
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
  readonly value: unknown;
}

export interface AckedEntry {
  readonly topic: string;
  readonly partition: number;
  /** The durable committed offset after the ack; null where nothing is committed. */
  readonly offset: number | null;
  /** Why the entry had no effect. */
  readonly code?: ErrorCode | undefined;
}

export interface AckedFrame {
  readonly type: "acked";
  readonly id?: FrameId | undefined;
  readonly subscription: string;
  readonly offsets: readonly AckedEntry[];
}

export interface RevokedFrame {
  readonly type: "revoked";
  readonly subscription: string;
  readonly partitions: readonly {
    readonly topic: string;
    readonly partition: number;
    readonly generation: number;
  }[];
  readonly reason: "expired";
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
  | OkFrame
  | PingFrame
  | DrainingFrame
  | ErrorFrame;
