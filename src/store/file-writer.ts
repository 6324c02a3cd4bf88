// Writes a local file: one connection for the life of the process, which writes and checkpoints.
//
// Two traps shape this file:
//
// 1. After one SQLITE_BUSY a connection can acknowledge autocommit writes that are never committed. So nothing here
//    writes outside a transaction, and the lock is taken through `exec`, the one call that comes through BUSY clean.
//    Every other statement of a write runs with the lock in hand and cannot meet BUSY.
// 2. Every call is synchronous inside, and a commit waits for the disk. A runtime that has threads opens it on one of
//    its own (runtimes/writer-thread.ts), so that requests are read while a commit is on its way. The busy timeout
//    stays 0 all the same: the write queue retries, and between its tries others get their turn.

import { DbError, type DbFailure, type Rows, type Statement, type WriteOptions } from "./db.ts";
import { EMPTY_GUARD } from "./guard.ts";
import { dbErrorOf, SqliteConnection } from "./sqlite-connection.ts";

const BEGIN_WITH_LOCK = "BEGIN; UPDATE write_lock SET n = n WHERE 0";
const AUTO_VACUUM_INCREMENTAL = 2;
const SYNCHRONOUS_FULL = 2;
const WAL_PAGES_PER_CHECKPOINT = 1_000;
/** What a checkpoint leaves of a WAL that a burst has made long. */
const WAL_KEPT_BYTES = 64 * 1024 * 1024;

/** The writing half of the database port, on whatever thread. Every method rejects with a DbError. */
export interface FileWriter {
  write(statements: readonly Statement[], options?: WriteOptions): Promise<readonly Rows[]>;
  script(sql: string): Promise<void>;
  /** Leaves everything in the one file, so that a copy of it is a backup; where there is no room for that, in its WAL. */
  close(): Promise<void>;
}

/** Opens or creates the file. Rejects with a DbError: `busy`, or `rejected` where it is not a database of ours. */
export async function openFileWriter(path: string): Promise<FileWriter> {
  let writer: SqliteConnection | undefined;
  try {
    writer = new SqliteConnection(path);
    prepareWriter(writer);
    return new ConnectionWriter(writer);
  } catch (error) {
    writer?.close();
    throw dbErrorOf(error, "rejected");
  }
}

class ConnectionWriter implements FileWriter {
  readonly #writer: SqliteConnection;
  #isClosed = false;

  constructor(writer: SqliteConnection) {
    this.#writer = writer;
  }

  async write(
    statements: readonly Statement[],
    { leavesGuard }: WriteOptions = {},
  ): Promise<readonly Rows[]> {
    const writer = this.#writer;
    let failureOfThisStep: DbFailure = "rejected";
    try {
      writer.exec(BEGIN_WITH_LOCK);
      const results = statements.map((statement) => writer.run(statement));
      if (leavesGuard) writer.run({ sql: EMPTY_GUARD });
      failureOfThisStep = "unknown";
      writer.exec("COMMIT");
      return results;
    } catch (error) {
      throw dbErrorOf(error, failureOfThisStep);
    } finally {
      this.#endTransaction();
    }
  }

  async script(sql: string): Promise<void> {
    try {
      this.#writer.exec(`BEGIN IMMEDIATE;\n${sql}\nCOMMIT;`);
    } catch (error) {
      throw dbErrorOf(error, "rejected");
    } finally {
      this.#endTransaction();
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    try {
      this.#writer.pragma("wal_checkpoint(TRUNCATE)");
    } catch (error) {
      throw dbErrorOf(error, "rejected");
    } finally {
      this.#writer.close();
    }
  }

  /** Rolls back whatever was not committed. */
  #endTransaction(): void {
    if (!this.#isClosed && this.#writer.isInTransaction) this.#writer.exec("ROLLBACK");
  }
}

function prepareWriter(writer: SqliteConnection): void {
  // Counts only before the first table and before WAL; a file that has tables of its own keeps what it has.
  if (writer.numberPragma("page_count") === 0) writer.pragma(`auto_vacuum = ${AUTO_VACUUM_INCREMENTAL}`);
  if (writer.pragma("journal_mode = WAL") !== "wal")
    throw new DbError("rejected", "The database file cannot use a WAL");
  writer.pragma(`synchronous = ${SYNCHRONOUS_FULL}`);
  writer.pragma(`wal_autocheckpoint = ${WAL_PAGES_PER_CHECKPOINT}`);
  writer.pragma(`journal_size_limit = ${WAL_KEPT_BYTES}`);
  if (writer.numberPragma("synchronous") !== SYNCHRONOUS_FULL) {
    throw new DbError("rejected", "The database file does not accept PRAGMA synchronous = FULL");
  }
}
