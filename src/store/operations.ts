// What others ask the write queue to write, and what a flush makes of it: the statements of all its operations, and
// afterwards what each of them is told.

import { type Append, type AppendOperation, appendStatements, joinAppends, tracesOf } from "./appends.ts";
import { type FlushTrace, NO_TRACE, type PartitionTrace, type Rows, type Statement } from "./db.ts";

export interface Operation<T> {
  readonly statements: readonly Statement[];
  /** What it holds in memory while it waits. */
  readonly bytes: number;
  /** Of its condition, whose row in `guard` it leaves to the end of the flush: after a lost answer that is what tells. */
  readonly op?: number;
  /** What it adds to partitions, where they are there, with that schema, and its condition holds. */
  readonly appends?: readonly Append[];
  /** No other operation shares its flush. */
  readonly isAlone?: boolean;
  /** While chunks are read it waits a few turns of the event loop for others of its kind. */
  readonly isPatient?: boolean;
  /**
   * What to do where it was written and its rows are lost, which happens on a remote database only: `repeat` it, where
   * that gives the same answer, or settle by the log end after its append in each partition that it has appended to.
   * Without it, `outcome_unknown`. Where its condition did not hold nothing was written, and it is `unavailable`.
   */
  readonly afterLostAnswer?: "repeat" | ((logEnds: ReadonlyMap<number, number>) => T);
  /**
   * Reads the rows of its statements once they are durable. Throws a Problem where its conditions did not hold.
   * `isRepeated`: the same was written before, and what it finds now may be what has come of that since.
   * `tookMs`: the database, for the whole flush.
   */
  settle(results: readonly Rows[], isRepeated: boolean, tookMs: number): T;
}

export type AnyOperation<T> = Operation<T> | AppendOperation<T>;

/** An operation and who waits for it. */
export interface Submitted {
  readonly operation: AnyOperation<unknown>;
  /** It was done, and is repeated for the answer that was lost: whatever comes of that, nobody may say it was not. */
  readonly isWritten: boolean;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

// ── what a flush writes ──────────────────────────────────────────────────────────────────────────────────

/** What is written by statements of its own: one operation, or appends that follow each other. */
export interface Part {
  readonly statements: readonly Statement[];
  settle(results: readonly Rows[], tookMs: number): void;
}

export function partsOf(flush: readonly Submitted[]): readonly Part[] {
  const parts: Part[] = [];
  let appends: Submitted[] = [];
  for (const pending of flush) {
    const { operation } = pending;
    if (!operation.statements) {
      appends.push(pending);
      continue;
    }
    parts.push(...partOfAppends(appends), partOf(pending, operation));
    appends = [];
  }
  return [...parts, ...partOfAppends(appends)];
}

function partOf(pending: Submitted, operation: Operation<unknown>): Part {
  const { statements } = operation;
  const { isWritten } = pending;
  return {
    statements,
    settle: (results, tookMs) => settle(pending, () => operation.settle(results, isWritten, tookMs)),
  };
}

function partOfAppends(flush: readonly Submitted[]): readonly Part[] {
  if (flush.length === 0) return [];
  const targets = joinAppends(
    flush.flatMap(({ operation }) => (operation.statements ? [] : operation.appends)),
  );
  return [
    {
      statements: targets.flatMap((target) => appendStatements(target, null)),
      settle: (results) => settleByLogEnds(flush, tracesOf(targets, results)),
    },
  ];
}

function settleByLogEnds(flush: readonly Submitted[], partitions: ReadonlyMap<number, PartitionTrace>): void {
  const logEnds = logEndsAfterEach(flush, { ...NO_TRACE, partitions });
  for (const [index, pending] of flush.entries()) {
    const { operation } = pending;
    if (!operation.statements) settle(pending, () => operation.settle(logEnds[index] ?? new Map()));
  }
}

export function settleAll(parts: readonly Part[], results: readonly Rows[], tookMs: number): void {
  let first = 0;
  for (const part of parts) {
    const end = first + part.statements.length;
    part.settle(results.slice(first, end), tookMs);
    first = end;
  }
}

export function settle({ resolve, reject }: Submitted, outcomeOf: () => unknown): void {
  try {
    resolve(outcomeOf());
  } catch (error) {
    reject(error instanceof Error ? error : new Error(String(error)));
  }
}

// ── what is known of it afterwards ───────────────────────────────────────────────────────────────────────

/** What the log ends were after each operation, of the partitions that it has appended to, by what the last has left. */
export function logEndsAfterEach(
  flush: readonly Submitted[],
  left: FlushTrace,
): readonly ReadonlyMap<number, number>[] {
  const logEnds = new Map<number, number>();
  return flush
    .toReversed()
    .map(({ operation }) => {
      const after = new Map<number, number>();
      if (isRefused(operation, left)) return after;
      for (const { partitionId, schemaVersion, count } of operation.appends ?? []) {
        const partition = left.partitions.get(partitionId);
        if (partition?.schemaVersion !== schemaVersion) continue;
        const logEnd = logEnds.get(partitionId) ?? partition.logEndOffset;
        after.set(partitionId, logEnd);
        logEnds.set(partitionId, logEnd - count);
      }
      return after;
    })
    .reverse();
}

/** Its condition did not hold: it has written nothing. */
export function isRefused({ op }: AnyOperation<unknown>, { refusedOps }: FlushTrace): boolean {
  return op !== undefined && refusedOps.has(op);
}
