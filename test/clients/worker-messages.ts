// What a test says to a worker, and what the worker answers: a JSON line each.

import type { ConsumeOptions, ReadOptions } from "../../clients/typescript/client.ts";

export type Command =
  | ConsumeCommand
  | ReadCommand
  | ProduceCommand
  /** Lets all that waits at the gate of this consumer through, and what comes later. */
  | { readonly do: "open"; readonly name: string }
  /** Acknowledges the batch that a loop has in hand. Answer: `answered`. */
  | { readonly do: "ack"; readonly name: string }
  | { readonly do: "seek"; readonly name: string; readonly partition: number; readonly offset: number }
  /** Of a reader. Answer: `cursor`. */
  | { readonly do: "cursor"; readonly name: string }
  /** Answer: `answered`, after the `done` of its loop. */
  | { readonly do: "close"; readonly name: string }
  | { readonly do: "closeClient" };

interface LoopCommand {
  readonly name: string;
  readonly topics: readonly string[];
  /** Each record, or each batch of a loop, waits until it is opened. Says `begun` before. */
  readonly isGated?: boolean;
  /** Breaks out of the loop, so that this batch is not gone on from. */
  readonly breaksAtBatch?: number;
}

export interface ConsumeCommand extends LoopCommand {
  readonly do: "consume";
  readonly as: "run" | "batches" | "records";
  readonly options: Omit<ConsumeOptions, "signal" | "onInvalid">;
  /** The handler throws at offsets that this divides, at every attempt. */
  readonly throwsEvery?: number;
  /** Acknowledges each batch by hand and waits for it. Says `acked`. */
  readonly acksByHand?: boolean;
}

export interface ReadCommand extends LoopCommand {
  readonly do: "read";
  readonly options: Omit<ReadOptions, "signal">;
}

/** Values `from` to `to`, n into partition n % 4, `SEND_RECORDS` a send. Says `produced` at each, and then `answered`. */
export interface ProduceCommand {
  readonly do: "produce";
  readonly name: string;
  readonly topic: string;
  readonly from: number;
  readonly to: number;
}

/** A record in a handler's journal. */
export interface Entry {
  readonly topicId: number;
  readonly partition: number;
  readonly offset: number;
  readonly generation: number;
  readonly value: number;
}

export interface Failure {
  readonly name: string;
  readonly code: string;
  readonly retriable: boolean;
  readonly message: string;
}

export type Said =
  | ({ readonly type: "handled"; readonly name: string } & Entry)
  | ({ readonly type: "begun"; readonly name: string } & Omit<Entry, "value">)
  | { readonly type: "thrown"; readonly name: string; readonly partition: number; readonly offset: number }
  | {
      readonly type: "acked";
      readonly name: string;
      readonly topicId: number;
      readonly partition: number;
      readonly next: number;
    }
  | {
      readonly type: "lost";
      readonly name: string;
      readonly partition: number;
      readonly code: string;
      readonly message: string;
    }
  | { readonly type: "revoked"; readonly name: string; readonly partitions: readonly number[] }
  | { readonly type: "assigned"; readonly name: string; readonly partitions: readonly Assigned[] }
  | { readonly type: "status"; readonly status: string }
  | { readonly type: "trouble"; readonly code: string; readonly message: string }
  | { readonly type: "end"; readonly error: Failure }
  | { readonly type: "produced"; readonly name: string; readonly to: number }
  | { readonly type: "cursor"; readonly name: string; readonly cursor: NonNullable<ReadOptions["from"]> }
  /** The loop of a consumer or reader has ended. */
  | { readonly type: "done"; readonly name: string; readonly error?: Failure }
  | { readonly type: "answered"; readonly to: string; readonly name?: string; readonly error?: Failure };

export interface Assigned {
  readonly partition: number;
  readonly generation: number;
  readonly committedOffset: number | null;
}

export const SEND_RECORDS = 20;
