// One connection to a local file, with its prepared statements.
//
// `@libsql/client` opens local files through the package `libsql`, and so does this, one layer lower: the client
// prepares every statement anew and leaves freeing it to the garbage collector. Kept and used again, a small read takes
// a quarter of the time, and ten thousand of them leave 10 MiB to the collector instead of 80.
//
// After SQLITE_BUSY, or any other error, a statement can stay open until it is collected. So nothing here writes
// outside a transaction, a statement that has failed is not used again, and the lock is taken by `exec`, which
// finishes what it has begun.

import Database from "libsql";
import {
  boundArgs,
  DbError,
  type DbFailure,
  type Row,
  type Rows,
  type SqlValue,
  type Statement,
} from "./db.ts";

/** Statements are written as constants; this only bounds what somebody builds. */
const STATEMENTS_MAX = 500;

type Prepared = Database.Statement<[Readonly<Record<string, SqlValue | bigint>>]>;

export class SqliteConnection {
  readonly #database: Database.Database;
  readonly #prepared = new Map<string, Prepared>();

  /** Opens or creates the file; a lock that somebody holds is never waited for. Throws what SQLite throws. */
  constructor(path: string) {
    this.#database = new Database(path, { timeout: 0 });
  }

  /** Runs one statement to its end. */
  run({ sql, args }: Statement): Rows {
    const prepared = this.#prepare(sql);
    try {
      const bound = boundArgs(args);
      if (prepared.reader) return prepared.all(bound).map(rowOf);
      prepared.run(bound);
      return [];
    } catch (error) {
      this.#prepared.delete(sql);
      throw error;
    }
  }

  /** Runs a whole script. The one call that comes through BUSY without leaving a statement open. */
  exec(sql: string): void {
    this.#database.exec(sql);
  }

  pragma(name: string): unknown {
    const [row] = this.run({ sql: `PRAGMA ${name}` });
    return row && Object.values(row)[0];
  }

  get isInTransaction(): boolean {
    return this.#database.inTransaction;
  }

  close(): void {
    this.#prepared.clear();
    if (this.#database.open) this.#database.close();
  }

  #prepare(sql: string): Prepared {
    const known = this.#prepared.get(sql);
    if (known) return known;
    const prepared: Prepared = this.#database.prepare(sql);
    prepared.safeIntegers(true);
    if (this.#prepared.size >= STATEMENTS_MAX) this.#prepared.clear();
    this.#prepared.set(sql, prepared);
    return prepared;
  }
}

/** `other`: what a failure means that the code does not tell. */
export function dbErrorOf(error: unknown, other: DbFailure): DbError {
  if (error instanceof DbError) return error;
  const code = error instanceof Database.SqliteError ? error.code : "";
  const text = error instanceof Error ? error.message : String(error);
  const message = code === "" ? text : `${code}: ${text}`;
  if (code.startsWith("SQLITE_BUSY") || code.startsWith("SQLITE_LOCKED"))
    return new DbError("busy", message, error);
  if (code.startsWith("SQLITE_FULL")) return new DbError("full", message, error);
  if (other === "rejected" && code.startsWith("SQLITE_IOERR")) return new DbError("io", message, error);
  return new DbError(other, message, error);
}

function rowOf(row: unknown): Row {
  const columns = row as Record<string, unknown>; // a fresh object of the library's
  for (const name in columns) {
    const value = columns[name];
    if (typeof value === "bigint") columns[name] = safeNumber(value);
  }
  return columns;
}

function safeNumber(value: bigint): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw new RangeError(`${value} is above 2^53 − 1`);
  return number;
}
