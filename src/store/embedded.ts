// The database port over a local file.
//
// Two connections: one for life writes and checkpoints, one reads and is replaced when a read has failed. Two traps
// shape this file:
//
// 1. After one SQLITE_BUSY a connection can acknowledge autocommit writes that are never committed. So nothing here
//    writes outside a transaction, and the lock is taken through `exec`, the one call that comes through BUSY clean.
//    Every other statement of a write runs with the lock in hand and cannot meet BUSY.
// 2. Every call is synchronous inside: waiting for a lock would stop the process. The busy timeout stays 0 and the
//    write queue retries.

import {
  type Db,
  DbError,
  type DbFailure,
  type FileSpace,
  type Rows,
  type Statement,
  type WriteOptions,
} from "./db.ts";
import { EMPTY_GUARD } from "./guard.ts";
import { dbErrorOf, SqliteConnection } from "./sqlite-connection.ts";

const BEGIN_WITH_LOCK = "BEGIN; UPDATE write_lock SET n = n WHERE 0";
const AUTO_VACUUM_INCREMENTAL = 2;
const SYNCHRONOUS_FULL = 2;
const WAL_PAGES_PER_CHECKPOINT = 1_000;
/** SQLite counts them in 32 bits. */
const DATA_VERSIONS_PER_READER = 2 ** 32;
/** What a checkpoint leaves of a WAL that a burst has made long. */
const WAL_KEPT_BYTES = 64 * 1024 * 1024;

/** Opens or creates the file. Rejects with a DbError: `busy`, or `rejected` where it is not a database of ours. */
export async function openEmbeddedDb(path: string): Promise<Db> {
  let writer: SqliteConnection | undefined;
  try {
    writer = new SqliteConnection(path);
    prepareWriter(writer);
    return new EmbeddedDb(path, writer);
  } catch (error) {
    writer?.close();
    throw dbErrorOf(error, "rejected");
  }
}

class EmbeddedDb implements Db {
  readonly durability = "fsync";
  readonly isShared = false; // whoever runs the server owns the file
  readonly readsAtOnceMax = 1;
  readonly #path: string;
  readonly #writer: SqliteConnection;
  #reader: SqliteConnection | undefined;
  /** Each reader counts its own data versions. */
  #readersOpened = 0;
  #isClosed = false;

  constructor(path: string, writer: SqliteConnection) {
    this.#path = path;
    this.#writer = writer;
  }

  async read(statement: Statement): Promise<Rows> {
    return this.#withReader((reader) => reader.run(statement));
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

  readonly space: FileSpace = {
    freePages: async () =>
      this.#withReader((reader) =>
        numberPragma(reader, "auto_vacuum") === AUTO_VACUUM_INCREMENTAL
          ? numberPragma(reader, "freelist_count")
          : 0,
      ),
    // With the lock in hand like every write: a PRAGMA that meets BUSY would leave a statement open.
    giveBack: (pages) =>
      this.script(`UPDATE write_lock SET n = n WHERE 0; PRAGMA incremental_vacuum(${pages});`),
    checkpoint: async () => void this.#writer.pragma("wal_checkpoint(PASSIVE)"),
  };

  async dataVersion(): Promise<number> {
    return this.#withReader(
      (reader) => this.#readersOpened * DATA_VERSIONS_PER_READER + numberPragma(reader, "data_version"),
    );
  }

  /**
   * Leaves everything in the one file, so that a copy of it is a backup. Rejects where there is no room for that: then
   * it is closed all the same, and what is missing in the file is in its WAL.
   */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#retireReader();
    try {
      this.#writer.pragma("wal_checkpoint(TRUNCATE)");
    } catch (error) {
      throw dbErrorOf(error, "rejected");
    } finally {
      this.#writer.close();
    }
  }

  #withReader<T>(use: (reader: SqliteConnection) => T): T {
    if (this.#isClosed) throw new DbError("io", "The database is closed");
    try {
      this.#reader ??= this.#openReader();
      return use(this.#reader);
    } catch (error) {
      // The failed statement may stay open and pin this connection to an old snapshot: it is not used again.
      this.#retireReader();
      throw dbErrorOf(error, "rejected");
    }
  }

  #openReader(): SqliteConnection {
    const reader = new SqliteConnection(this.#path);
    // One connection checkpoints: two at once can reset a WAL that the other still writes (SQLite 3.45.1).
    reader.pragma("wal_autocheckpoint = 0");
    reader.pragma("query_only = ON");
    this.#readersOpened += 1;
    return reader;
  }

  #retireReader(): void {
    this.#reader?.close();
    this.#reader = undefined;
  }

  /** Rolls back whatever was not committed. */
  #endTransaction(): void {
    if (!this.#isClosed && this.#writer.isInTransaction) this.#writer.exec("ROLLBACK");
  }
}

function prepareWriter(writer: SqliteConnection): void {
  // Counts only before the first table and before WAL; a file that has tables of its own keeps what it has.
  if (numberPragma(writer, "page_count") === 0) writer.pragma(`auto_vacuum = ${AUTO_VACUUM_INCREMENTAL}`);
  if (writer.pragma("journal_mode = WAL") !== "wal")
    throw new DbError("rejected", "The database file cannot use a WAL");
  writer.pragma(`synchronous = ${SYNCHRONOUS_FULL}`);
  writer.pragma(`wal_autocheckpoint = ${WAL_PAGES_PER_CHECKPOINT}`);
  writer.pragma(`journal_size_limit = ${WAL_KEPT_BYTES}`);
  if (numberPragma(writer, "synchronous") !== SYNCHRONOUS_FULL) {
    throw new DbError("rejected", "The database file does not accept PRAGMA synchronous = FULL");
  }
}

function numberPragma(connection: SqliteConnection, name: string): number {
  const value = connection.pragma(name);
  if (typeof value !== "number") throw new DbError("rejected", `PRAGMA ${name} gave ${typeof value}`);
  return value;
}
