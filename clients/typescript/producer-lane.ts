// Browser-safe. What producer-step.ts decides on and what it decides, as plain data.

import type { TidemarkError } from "./errors.ts";

/** One send or transaction. */
export interface LaneItem {
  readonly count: number;
  /** When it was handed over. */
  readonly tick: number;
}

export interface LaneFrame<T extends LaneItem> {
  /** Of no other frame of this producer. */
  readonly key: number;
  readonly epoch: number;
  readonly sequence: number;
  readonly items: readonly T[];
  readonly attempts: number;
  /** Its answer is still to come. */
  readonly isAsked: boolean;
  readonly isDoubtful: boolean;
  /** What the last attempt came to. */
  readonly trouble: TidemarkError | undefined;
}

export interface LaneState<T extends LaneItem> {
  /** In the order of their sequences. */
  readonly frames: readonly LaneFrame<T>[];
  readonly epoch: number;
  readonly nextSequence: number;
  readonly lastKey: number;
  /** In a row. */
  readonly failures: number;
  /** Waits before it tries again. */
  readonly isPaused: boolean;
  /** Why nothing is sent any more. */
  readonly end: TidemarkError | undefined;
}

/** What does not change, or is another's to say. */
export interface LaneRules {
  readonly isUp: boolean;
  readonly isIdempotent: boolean;
  /** The id that the user has given: nobody here may give it a new epoch. */
  readonly ownId: string | undefined;
}

/** What the server wrote for a frame. `isDuplicate`: it had been written before. */
export interface Written {
  readonly isDuplicate: boolean;
}

export type LaneEvent<T extends LaneItem, W extends Written> =
  | { readonly type: "taken"; readonly items: readonly T[] }
  | { readonly type: "answered"; readonly key: number; readonly answer: W | TidemarkError }
  | { readonly type: "up" }
  | { readonly type: "timer" }
  /** What was handed over then, or before, has been tried for long enough. */
  | { readonly type: "expired"; readonly tick: number };

export type LaneEffect<T extends LaneItem, W extends Written> =
  | { readonly type: "ask"; readonly frame: LaneFrame<T> }
  | { readonly type: "resolve"; readonly items: readonly T[]; readonly answer: W }
  | { readonly type: "reject"; readonly items: readonly T[]; readonly error: TidemarkError }
  /** Back to the front of what waits; `alone`: these of them go one by one. */
  | { readonly type: "putBack"; readonly items: readonly T[]; readonly alone: readonly T[] }
  | { readonly type: "pause"; readonly failures: number }
  /** Everything that waits is rejected, and whatever comes. */
  | { readonly type: "end"; readonly error: TidemarkError };

export interface LaneStep<T extends LaneItem, W extends Written> {
  readonly state: LaneState<T>;
  readonly effects: readonly LaneEffect<T, W>[];
}

export function emptyLane(epoch: number): LaneState<never> {
  return {
    frames: [],
    epoch,
    nextSequence: 0,
    lastKey: 0,
    failures: 0,
    isPaused: false,
    end: undefined,
  };
}
