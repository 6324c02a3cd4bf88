// What happens to a session, and what it wants done: the whole of what the step and its driver say to each other.

import type { ErrorCode } from "../../protocol/codes.ts";
import type { FrameId, ServerFrame } from "../../protocol/frames.ts";
import type { Place, ResetPolicy } from "../../protocol/places.ts";
import type { CheckedFrame } from "../client-frame.ts";
import type { OwnedPartition } from "../group-change.ts";
import type { JoinRequest } from "../group-picture.ts";
import type { OwnershipChange } from "../ownership.ts";
import type { PlaceFacts } from "../places.ts";
import type { Problem } from "../problem.ts";
import type { ReaderPartition, ReaderRequest } from "../readers.ts";
import type { Transaction, Written } from "../transaction.ts";
import type { MembershipRef, PartitionRef, SubscriptionRef } from "./state.ts";
import type { ChunkExtent, ReadRequest } from "./window.ts";

export type SessionEvent =
  | { readonly type: "opened" }
  | { readonly type: "frame"; readonly frame: CheckedFrame }
  | { readonly type: "badFrame"; readonly problem: Problem; readonly id: FrameId | undefined }
  | { readonly type: "pong" }
  | { readonly type: "joined"; readonly ref: SubscriptionRef; readonly result: JoinResult }
  | {
      readonly type: "readerOpened";
      readonly ref: SubscriptionRef;
      readonly partitions: readonly ReaderPartition[];
    }
  | { readonly type: "openFailed"; readonly ref: SubscriptionRef; readonly problem: Problem }
  /** A rebalance or a reset: partitions of a group have come, are going, or have gone. */
  | { readonly type: "ownership"; readonly ref: SubscriptionRef; readonly change: OwnershipChange }
  | {
      readonly type: "readerGained";
      readonly ref: SubscriptionRef;
      readonly partitions: readonly ReaderPartition[];
    }
  | {
      readonly type: "left";
      readonly name: string;
      readonly id: FrameId | undefined;
      readonly problem?: Problem;
    }
  /** `replaced`: somebody took the membership over. `expired`: its lease ran out. */
  | { readonly type: "ended"; readonly ref: SubscriptionRef; readonly reason: "replaced" | "expired" }
  | ({ readonly type: "topicChanged" } & TopicChange)
  | { readonly type: "chunk"; readonly ref: PartitionRef; readonly chunk: TextChunk }
  /** Its end is committed: it may be sent. */
  | {
      readonly type: "committedAhead";
      readonly ref: PartitionRef;
      readonly chunk: TextChunk;
      readonly isFenced: boolean;
    }
  /** It may be committed or not: it is read and committed again. */
  | { readonly type: "commitAheadFailed"; readonly ref: PartitionRef }
  /** The partition is no more: word of the deleted topic follows. */
  | { readonly type: "readGone"; readonly ref: PartitionRef }
  | { readonly type: "grown"; readonly ref: PartitionRef }
  | { readonly type: "repositioned"; readonly ref: PartitionRef; readonly to: Reposition }
  | {
      readonly type: "located";
      readonly seek: Seek;
      readonly outcome: LocatedFacts | { readonly problem: Problem };
    }
  | {
      readonly type: "committed";
      readonly ref: SubscriptionRef;
      readonly id: FrameId | undefined;
      readonly acks: readonly AckRequest[];
      readonly outcomes: readonly AckOutcome[];
    }
  | {
      readonly type: "commitFailed";
      readonly ref: SubscriptionRef;
      readonly id: FrameId | undefined;
      readonly acks: readonly AckRequest[];
      readonly problem: Problem;
    }
  | {
      readonly type: "transacted";
      readonly id: FrameId | undefined;
      readonly answer: "produced" | "transacted";
      readonly commits: Transaction["commits"];
      readonly outcome: { readonly written: Written } | { readonly problem: Problem };
    }
  | { readonly type: "drained" }
  | { readonly type: "alarm" }
  | { readonly type: "draining"; readonly retryAfterMs: number }
  /** Who has not finished by now is closed all the same. */
  | { readonly type: "drainOverdue" }
  | { readonly type: "closed" };

export type SessionEffect =
  | { readonly type: "send"; readonly frame: ServerFrame }
  /** `tellsTaken`: a `drained` event is wanted when the socket has taken it. */
  | { readonly type: "sendText"; readonly text: string; readonly tellsTaken: boolean }
  /** The frame, and the protocol's own ping where the runtime has one: either answer is a sign of life. */
  | { readonly type: "ping" }
  | {
      readonly type: "join";
      readonly ref: SubscriptionRef;
      readonly request: Omit<JoinRequest, "newMemberId">;
    }
  | { readonly type: "openReader"; readonly ref: SubscriptionRef; readonly request: ReaderRequest }
  /** Revoked partitions that may change hands now. */
  | {
      readonly type: "release";
      readonly member: MembershipRef;
      readonly partitions: readonly OwnedPartition[];
    }
  /** Partitions that nothing was acknowledged of in time: the client was told that they are gone. */
  | { readonly type: "stall"; readonly member: MembershipRef; readonly partitions: readonly OwnedPartition[] }
  | {
      readonly type: "gainReader";
      readonly ref: SubscriptionRef;
      readonly request: ReaderRequest;
      readonly knownPartitionIds: ReadonlySet<number>;
    }
  /** With an answer, a `left` event is wanted when it is durable. */
  | { readonly type: "leave"; readonly member: MembershipRef; readonly answer?: UnsubscribeAnswer }
  /** The socket of a static member is gone: its lease decides. */
  | { readonly type: "detach"; readonly member: MembershipRef }
  | { readonly type: "renew"; readonly member: MembershipRef }
  | { readonly type: "read"; readonly ref: PartitionRef; readonly request: ReadRequest }
  | {
      readonly type: "wait";
      readonly ref: PartitionRef;
      readonly partitionId: number;
      readonly position: number;
    }
  /** Of one partition, or of all. */
  | { readonly type: "stopWaiting"; readonly ref: SubscriptionRef; readonly partitionKey?: string }
  /** At most once: the end of the chunk is committed before it is sent. */
  | {
      readonly type: "commitAhead";
      readonly ref: PartitionRef;
      readonly group: string;
      readonly ack: AckRequest;
      readonly chunk: TextChunk;
    }
  | { readonly type: "reposition"; readonly ref: PartitionRef; readonly request: RepositionRequest }
  | { readonly type: "locate"; readonly seek: Seek }
  | {
      readonly type: "commit";
      readonly ref: SubscriptionRef;
      readonly group: string;
      readonly id: FrameId | undefined;
      readonly acks: readonly AckRequest[];
    }
  /** `answer`: the frame that says that it is durable. */
  | {
      readonly type: "transact";
      readonly id: FrameId | undefined;
      readonly answer: "produced" | "transacted";
      readonly transaction: Transaction;
    }
  /** Replaces the alarm that was set before. */
  | { readonly type: "setAlarm"; readonly delayMs: number }
  | { readonly type: "close"; readonly code: number; readonly reason: string };

interface UnsubscribeAnswer {
  readonly name: string;
  readonly id: FrameId | undefined;
}

/** What the database says of a join, once it is durable. */
export interface JoinResult {
  readonly memberId: string;
  readonly membership: number;
  readonly owned: OwnershipChange;
}

export type TextChunk = ChunkExtent & { readonly records: string };

export interface TopicChange {
  readonly topic: string;
  readonly change: "created" | "grown" | "deleted";
  /** Those that came or went. */
  readonly partitionIds: readonly number[];
}

/** A seek that was taken and is not answered yet. */
export interface Seek {
  readonly ref: SubscriptionRef;
  readonly id: FrameId | undefined;
  readonly topic: string;
  readonly partition: number;
  readonly generation: number;
  readonly partitionId: number;
  readonly group: string | undefined;
  readonly place: Place;
}

export interface LocatedFacts extends PlaceFacts {
  readonly metadata: string | null;
}

/** A live position that has left the log. */
export interface RepositionRequest {
  readonly partitionId: number;
  readonly topic: string;
  readonly partition: number;
  readonly generation: number;
  /** Undefined for a reader. */
  readonly member: MembershipRef | undefined;
  readonly policy: ResetPolicy;
}

/** What the policy made of it. */
export interface Reposition extends LocatedFacts {
  readonly position: number | null;
  readonly policy: ResetPolicy;
}

/** What the step may know of the outside. */
export interface Surroundings {
  readonly nowMs: number;
  /** What was handed to the socket and has not left the server. */
  readonly bufferedBytes: number;
}

export interface AckRequest {
  readonly topic: string;
  readonly partition: number;
  readonly generation: number;
  readonly offset: number;
  readonly metadata: string | null;
  readonly refusal: ErrorCode | undefined;
}

export interface AckOutcome {
  readonly committedOffset: number | null;
  readonly code: ErrorCode | undefined;
}
