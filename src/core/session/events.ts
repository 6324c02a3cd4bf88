// What happens to a session, and what it wants done: the whole of what the step and its driver say to each other.

import type { ErrorCode } from "../../protocol/codes.ts";
import type { ClientFrame, FrameId, ServerFrame } from "../../protocol/frames.ts";
import type { JoinRequest, JoinResult } from "../membership.ts";
import type { Problem } from "../problem.ts";
import type { MembershipRef, PartitionRef, SubscriptionRef } from "./state.ts";
import type { ChunkExtent, ReadRequest } from "./window.ts";

export type SessionEvent =
  | { readonly type: "opened" }
  | { readonly type: "frame"; readonly frame: ClientFrame }
  | { readonly type: "badFrame"; readonly problem: Problem; readonly id: FrameId | undefined }
  | { readonly type: "pong" }
  | { readonly type: "joined"; readonly ref: SubscriptionRef; readonly result: JoinResult }
  | { readonly type: "joinFailed"; readonly ref: SubscriptionRef; readonly problem: Problem }
  | {
      readonly type: "left";
      readonly name: string;
      readonly id: FrameId | undefined;
      readonly problem?: Problem;
    }
  /** `replaced`: somebody took the membership over. `expired`: its lease ran out. */
  | { readonly type: "ended"; readonly ref: SubscriptionRef; readonly reason: "replaced" | "expired" }
  | {
      readonly type: "chunk";
      readonly ref: PartitionRef;
      readonly chunk: ChunkExtent & { readonly records: string };
    }
  | { readonly type: "grown"; readonly ref: PartitionRef }
  | {
      readonly type: "committed";
      readonly ref: SubscriptionRef;
      readonly id: FrameId | undefined;
      readonly acks: readonly AckRequest[];
      readonly outcomes: readonly AckOutcome[];
    }
  | {
      readonly type: "failed";
      readonly ref: SubscriptionRef;
      readonly id: FrameId | undefined;
      readonly acks: readonly AckRequest[];
      readonly problem: Problem;
    }
  | { readonly type: "drained" }
  | { readonly type: "alarm" }
  | { readonly type: "draining"; readonly retryAfterMs: number }
  | { readonly type: "closed" };

export type SessionEffect =
  | { readonly type: "send"; readonly frame: ServerFrame }
  | { readonly type: "sendText"; readonly text: string }
  /** The frame, and the protocol's own ping where the runtime has one: either answer is a sign of life. */
  | { readonly type: "ping" }
  | {
      readonly type: "join";
      readonly ref: SubscriptionRef;
      readonly request: Omit<JoinRequest, "newMemberId">;
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
  | { readonly type: "stopWaiting"; readonly ref: SubscriptionRef }
  | {
      readonly type: "commit";
      readonly ref: SubscriptionRef;
      readonly group: string;
      readonly id: FrameId | undefined;
      readonly acks: readonly AckRequest[];
    }
  /** Replaces the alarm that was set before. */
  | { readonly type: "setAlarm"; readonly delayMs: number }
  | { readonly type: "close"; readonly code: number; readonly reason: string };

interface UnsubscribeAnswer {
  readonly name: string;
  readonly id: FrameId | undefined;
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
