// The database port over a local file: it reads on the caller's thread, and leaves writing to a FileWriter.
//
// The connection that reads is replaced when a read has failed.

import { type Db, DbError, type Rows, type Statement, type WriteOptions } from "./db.ts";
import { type FileWriter, openFileWriter } from "./file-writer.ts";
import { dbErrorOf, SqliteConnection } from "./sqlite-connection.ts";

/** SQLite counts them in 32 bits. */
const DATA_VERSIONS_PER_READER = 2 ** 32;

/**
 * Opens or creates the file. Rejects with a DbError: `busy`, or `rejected` where it is not a database of ours.
 * `openWriter`: on another thread, where the runtime has them.
 */
export async function openEmbeddedDb(
  path: string,
  openWriter: (path: string) => Promise<FileWriter> = openFileWriter,
): Promise<Db> {
  return new EmbeddedDb(path, await openWriter(path));
}

class EmbeddedDb implements Db {
  readonly durability = "fsync";
  readonly isShared = false; // whoever runs the server owns the file
  readonly readsAtOnceMax = 1;
  readonly #path: string;
  readonly #writer: FileWriter;
  #reader: SqliteConnection | undefined;
  /** Each reader counts its own data versions. */
  #readersOpened = 0;
  #isClosed = false;

  constructor(path: string, writer: FileWriter) {
    this.#path = path;
    this.#writer = writer;
  }

  async read(statement: Statement): Promise<Rows> {
    return this.#withReader((reader) => reader.run(statement));
  }

  write(statements: readonly Statement[], options?: WriteOptions): Promise<readonly Rows[]> {
    return this.#writer.write(statements, options);
  }

  script(sql: string): Promise<void> {
    return this.#writer.script(sql);
  }

  async dataVersion(): Promise<number> {
    return this.#withReader(
      (reader) => this.#readersOpened * DATA_VERSIONS_PER_READER + reader.numberPragma("data_version"),
    );
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#retireReader(); // the last checkpoint needs all of the WAL
    await this.#writer.close();
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
}
