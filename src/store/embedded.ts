// The database port over a local file, through @libsql/client.
//
// Two connections: one for life writes and checkpoints, one reads and is replaced when a read has failed. Three traps of the client shape this file:
//
// 1. After one SQLITE_BUSY a connection can acknowledge autocommit writes that are never committed. So nothing here
//    writes outside a transaction, and the lock is taken through `executeMultiple`, the one call that comes through
//    BUSY clean. Every other statement of a write runs with the lock in hand and cannot meet BUSY.
// 2. Every call is synchronous inside: waiting for a lock would stop the process. The busy timeout stays 0 and the
//    write queue retries.
// 3. A PRAGMA reaches one pooled connection: `concurrency: 1` makes that the only one.

import {
  type Client,
  createClient,
  type InArgs,
  LibsqlError,
  type ResultSet,
  type Transaction,
} from "@libsql/client/sqlite3";
import { type Db, DbError, type DbFailure, type Rows, type SqlValue, type Statement } from "./db.ts";

const TAKE_WRITE_LOCK = "UPDATE write_lock SET n = n WHERE 0";
const AUTO_VACUUM_INCREMENTAL = 2;
const SYNCHRONOUS_FULL = 2;
const WAL_PAGES_PER_CHECKPOINT = 1_000;
/** SQLite counts them in 32 bits. */
const DATA_VERSIONS_PER_READER = 2 ** 32;
/** What a checkpoint leaves of a WAL that a burst has made long. */
const WAL_KEPT_BYTES = 64 * 1024 * 1024;

/** Opens or creates the file. Rejects with a DbError: `busy`, or `rejected` where it is not a database of ours. */
export async function openEmbeddedDb(path: string): Promise<Db> {
  let writer: Client | undefined;
  try {
    writer = openConnection(path);
    await prepareWriter(writer);
    return new EmbeddedDb(path, writer);
  } catch (error) {
    writer?.close();
    throw dbErrorOf(error, "rejected");
  }
}

interface Reader {
  readonly client: Client;
  /** Which of this database's readers it is: each counts its own data versions. */
  readonly serial: number;
  readsUnderWay: number;
  isRetired: boolean;
}

class EmbeddedDb implements Db {
  readonly durability = "fsync";
  readonly #path: string;
  readonly #writer: Client;
  #reader: Promise<Reader> | undefined;
  #readersOpened = 0;
  #isClosed = false;

  constructor(path: string, writer: Client) {
    this.#path = path;
    this.#writer = writer;
  }

  read({ sql, args }: Statement): Promise<Rows> {
    return this.#withReader(async ({ client }) =>
      rowsOf(await client.execute({ sql, args: boundArgs(args) })),
    );
  }

  async write(statements: readonly Statement[]): Promise<readonly Rows[]> {
    let transaction: Transaction | undefined;
    let failureOfThisStep: DbFailure = "rejected";
    try {
      transaction = await this.#writer.transaction("deferred");
      await transaction.executeMultiple(TAKE_WRITE_LOCK);
      const results = await transaction.batch(
        statements.map(({ sql, args }) => ({ sql, args: boundArgs(args) })),
      );
      failureOfThisStep = "unknown";
      await transaction.commit();
      return results.map(rowsOf);
    } catch (error) {
      throw dbErrorOf(error, failureOfThisStep);
    } finally {
      transaction?.close(); // rolls back whatever was not committed
    }
  }

  async script(sql: string): Promise<void> {
    try {
      await this.#writer.executeMultiple(`BEGIN IMMEDIATE;\n${sql}\nCOMMIT;`);
    } catch (error) {
      throw dbErrorOf(error, "rejected");
    }
  }

  dataVersion(): Promise<number> {
    return this.#withReader(
      async ({ client, serial }) =>
        serial * DATA_VERSIONS_PER_READER + (await pragma(client, "data_version")),
    );
  }

  /** Leaves everything in the one file, so that a copy of it is a backup. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const reader = await this.#reader;
    if (reader) this.#retire(reader);
    await this.#writer.execute("PRAGMA wal_checkpoint(TRUNCATE)");
    this.#writer.close();
  }

  async #withReader<T>(use: (reader: Reader) => Promise<T>): Promise<T> {
    const reader = await this.#currentReader();
    reader.readsUnderWay += 1;
    try {
      return await use(reader);
    } catch (error) {
      // The failed statement may stay open and pin this connection to an old snapshot: it is not used again.
      this.#retire(reader);
      throw dbErrorOf(error, "rejected");
    } finally {
      reader.readsUnderWay -= 1;
      closeIfDone(reader);
    }
  }

  async #currentReader(): Promise<Reader> {
    if (this.#isClosed) throw new DbError("io", "The database is closed");
    this.#reader ??= this.#openReader();
    try {
      return await this.#reader;
    } catch (error) {
      this.#reader = undefined; // the next read tries again
      throw dbErrorOf(error, "rejected");
    }
  }

  async #openReader(): Promise<Reader> {
    const client = openConnection(this.#path);
    // One connection checkpoints: two at once can reset a WAL that the other still writes (SQLite 3.45.1).
    await client.execute("PRAGMA wal_autocheckpoint = 0");
    await client.execute("PRAGMA query_only = ON");
    this.#readersOpened += 1;
    return { client, serial: this.#readersOpened, readsUnderWay: 0, isRetired: false };
  }

  #retire(reader: Reader): void {
    if (reader.isRetired) return;
    reader.isRetired = true;
    this.#reader = undefined;
    closeIfDone(reader);
  }
}

function closeIfDone({ client, readsUnderWay, isRetired }: Reader): void {
  if (isRetired && readsUnderWay === 0) client.close();
}

function openConnection(path: string): Client {
  return createClient({ url: fileUrl(path), concurrency: 1 });
}

export function fileUrl(path: string): string {
  return `file:${encodeURI(path).replace(/[#?]/g, encodeURIComponent)}`;
}

async function prepareWriter(writer: Client): Promise<void> {
  // Counts only before the first table and before WAL; a file that has tables of its own keeps what it has.
  if ((await pragma(writer, "page_count")) === 0)
    await writer.execute(`PRAGMA auto_vacuum = ${AUTO_VACUUM_INCREMENTAL}`);
  const journalMode = await writer.execute("PRAGMA journal_mode = WAL");
  if (journalMode.rows[0]?.[0] !== "wal") throw new DbError("rejected", "The database file cannot use a WAL");
  await writer.execute(`PRAGMA synchronous = ${SYNCHRONOUS_FULL}`);
  await writer.execute(`PRAGMA wal_autocheckpoint = ${WAL_PAGES_PER_CHECKPOINT}`);
  await writer.execute(`PRAGMA journal_size_limit = ${WAL_KEPT_BYTES}`);
  if ((await pragma(writer, "synchronous")) !== SYNCHRONOUS_FULL) {
    throw new DbError("rejected", "The database file does not accept PRAGMA synchronous = FULL");
  }
}

async function pragma(client: Client, name: string): Promise<number> {
  const value = (await client.execute(`PRAGMA ${name}`)).rows[0]?.[0];
  if (typeof value !== "number") throw new DbError("rejected", `PRAGMA ${name} gave ${typeof value}`);
  return value;
}

/** A JavaScript number would be bound as REAL, and 7.0 is not an offset. */
function boundArgs(args: Readonly<Record<string, SqlValue>> = {}): InArgs {
  const bound: Record<string, SqlValue | bigint> = {};
  for (const [name, value] of Object.entries(args)) {
    bound[name] = typeof value === "number" && Number.isSafeInteger(value) ? BigInt(value) : value;
  }
  return bound;
}

function rowsOf(result: ResultSet): Rows {
  return result.rows;
}

/** `other`: what a failure means that the code does not tell. */
function dbErrorOf(error: unknown, other: DbFailure): DbError {
  if (error instanceof DbError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof LibsqlError ? error.code : "";
  if (code === "SQLITE_BUSY" || code === "SQLITE_LOCKED") return new DbError("busy", message, error);
  if (code === "SQLITE_FULL") return new DbError("full", message, error);
  if (other === "rejected" && code.startsWith("SQLITE_IOERR")) return new DbError("io", message, error);
  return new DbError(other, message, error);
}
