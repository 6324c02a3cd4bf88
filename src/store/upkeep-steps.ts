// A step of upkeep: how it is written, and how large the next one may be.

import type { Statement } from "./db.ts";
import type { Operation } from "./operations.ts";

/** Partitions a look finds at most, of each kind of work. */
export const FOUND_MAX = 100;
/** What a step is to take: much less than the 20 ms that nobody may have to wait for, as some take longer. */
export const STEP_MS = 3;
const RECORDS_MIN = 100;
const RECORDS_MAX = 10_000;
/** The first step of a process: little, on any machine. */
export const FIRST_RECORDS = 500;

export interface StepOutcome {
  /** There is more of the same to do. */
  readonly hasMore: boolean;
  /** The database. */
  readonly tookMs: number;
}

/**
 * A flush of its own, so that it is known how long it took. There is more to do where its last statement has rows. Done
 * twice it does no harm: each step finds out for itself what there is to do.
 */
export function stepOperation(statements: readonly Statement[]): Operation<StepOutcome> {
  return {
    statements,
    bytes: 0,
    isAlone: true,
    afterLostAnswer: "repeat",
    settle: (results, _isRepeated, tookMs) => ({ hasMore: (results.at(-1)?.length ?? 0) > 0, tookMs }),
  };
}

/** Records a step, after one of so many has taken so long: what it costs depends on the machine, the records, the keys. */
export function nextRecords(records: number, tookMs: number): number {
  const factor = Math.min(Math.max(STEP_MS / Math.max(tookMs, 1), 0.5), 1.5);
  return Math.round(Math.min(Math.max(records * factor, RECORDS_MIN), RECORDS_MAX));
}
