// The database port: the only way to SQL, and the place where tests put faults.
//
// Three methods. `read` sees only what is committed; `write` is one transaction, all or nothing; `script` is a
// migration. Embedded and remote differ behind this and nowhere else.

import type { Log } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import type { Durability } from "../protocol/frames.ts";

export type SqlValue = string | number | null;

export interface Statement {
  readonly sql: string;
  /** By the name after the colon. Whole numbers are bound as INTEGER. */
  readonly args?: Readonly<Record<string, SqlValue>>;
}

export type Row = Readonly<Record<string, unknown>>;
export type Rows = readonly Row[];

export interface Db {
  /** What the database promises of a write that `write` has resolved. */
  readonly durability: Durability;
  /** Other server processes write to it too. */
  readonly isShared: boolean;
  /** So many reads may be under way at once; with one, each holds up the event loop. */
  readonly readsAtOnceMax: number;
  read(statement: Statement): Promise<Rows>;
  /** One transaction; the rows of each statement, in order. Rejects with a DbError. */
  write(statements: readonly Statement[], options?: WriteOptions): Promise<readonly Rows[]>;
  /** One transaction over a whole script, for DDL. Rejects with a DbError. */
  script(sql: string): Promise<void>;
  /** Of a file that this process owns: what deleted rows have left in it. */
  readonly space?: FileSpace;
  /** A number that changes when anybody commits, where the database can tell cheaply. */
  dataVersion?(): Promise<number>;
  close(): Promise<void>;
}

export interface FileSpace {
  /** Pages that are used for nothing; 0 where the file cannot give any back. */
  freePages(): Promise<number>;
  /** Gives so many of them back to the disk: the file is shorter after the next checkpoint. Rejects with a DbError. */
  giveBack(pages: number): Promise<void>;
  /** Moves what is committed into the file. */
  checkpoint(): Promise<void>;
}

export interface WriteOptions {
  /** Partitions whose log ends it moves: what it left is known even where the answer is lost. */
  readonly appendedTo?: readonly number[];
  /** Its statements leave rows in `guard`: they end with the transaction. */
  readonly leavesGuard?: boolean;
  /** How long to go on trying where it is not known whether it was written. */
  readonly withinMs?: number;
}

/**
 * `busy`: another writer holds the lock, nothing was written, try again.
 * `full`: no room on the disk, nothing was written.
 * `io`: the disk or the connection failed before the commit, nothing was written.
 * `rejected`: the database refuses these statements, nothing was written; the same will fail again.
 * `unknown`: it may or may not have been written.
 * `unanswered`: it was written, and the rows that it returned are lost.
 */
export type DbFailure = "busy" | "full" | "io" | "rejected" | "unknown" | "unanswered";

/** What a write left whose answer is lost. */
export interface FlushTrace {
  /** Of those that it may have appended to and that are there, by id. */
  readonly partitions: ReadonlyMap<number, PartitionTrace>;
  /** Those whose condition, left in `guard`, did not hold. */
  readonly refusedOps: ReadonlySet<number>;
}

export interface PartitionTrace {
  readonly logEndOffset: number;
  readonly schemaVersion: number;
}

export const NO_TRACE: FlushTrace = { partitions: new Map(), refusedOps: new Set() };

export class DbError extends Error {
  readonly failure: DbFailure;
  /** By a write that was `unanswered`. */
  readonly left: FlushTrace;

  constructor(failure: DbFailure, message: string, cause?: unknown, left: FlushTrace = NO_TRACE) {
    super(message, { cause });
    this.name = "DbError";
    this.failure = failure;
    this.left = left;
  }
}

/** The border: what a client is told about an error. One that is nobody's answer is a defect, and is logged. */
export function problemOf(error: unknown, log: Log): Problem {
  if (error instanceof Problem) return error;
  log(error instanceof DbError ? "database failed" : "defect", {
    message: String(error),
    stack: error instanceof Error ? error.stack : undefined,
  });
  if (error instanceof DbError) return problemOfDbError(error);
  return new Problem("internal", "The server failed to do this; its log says why");
}

export function problemOfDbError(error: DbError): Problem {
  switch (error.failure) {
    case "busy":
      return new Problem(
        "unavailable",
        "Another process holds the database's write lock; nothing was written",
      );
    case "full":
      return new Problem("storage_full", "The database has no room left; nothing was written");
    case "io":
      return new Problem("unavailable", "The database could not be read or written; nothing was written");
    case "rejected":
      return new Problem("internal", "The database refused the operation; nothing was written");
    case "unknown":
      return new Problem(
        "outcome_unknown",
        "The database failed during the write; it may or may not have happened",
      );
    case "unanswered":
      return new Problem(
        "outcome_unknown",
        "The database has done this or refused it, and its answer is lost",
      );
  }
}

/** A JavaScript number would be bound as REAL, and 7.0 is not an offset. */
export function boundArgs(
  args: Readonly<Record<string, SqlValue>> = {},
): Record<string, string | number | bigint | null> {
  const bound: Record<string, string | number | bigint | null> = {};
  for (const [name, value] of Object.entries(args)) {
    if (Number.isNaN(value)) throw new DbError("rejected", `:${name} is not a number`);
    bound[name] = Number.isSafeInteger(value) ? BigInt(value as number) : value;
  }
  return bound;
}

/** The first row's column, as the number that the statement promises. */
export function numberColumn(row: Row | undefined, column: string): number {
  const value = row?.[column];
  if (typeof value !== "number") throw new TypeError(`column ${column} is ${typeof value}, not a number`);
  return value;
}
