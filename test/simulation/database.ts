// The database of a simulation: one file, on a clock of its own. Servers that share it reach it through DatabaseLink,
// a network that loses and delays; a server that owns it has it through the embedded port, behind FaultyFile.
//
// One for all seeds of a process: connections that are opened and closed again and again leak.

import { type InStatement, LibsqlError, type ResultSet } from "@libsql/client/web";
import type { Db, Row, SqlValue, Statement } from "../../src/store/db.ts";
import { SqliteConnection } from "../../src/store/sqlite-connection.ts";
import { openTestDatabase, START_MS, type TestDatabase } from "../support/database.ts";

export class SimulatedDatabase {
  /** The port of a server that owns the file. */
  readonly file: Db;
  /** How many transactions have written, the clock's aside. */
  writes = 0;
  /** As `clock` will say it. */
  nowMs: () => number = () => START_MS;
  /** Nobody answers. */
  isDown = false;
  /** Somebody else has the write lock. */
  isLocked = false;
  readonly #database: TestDatabase;
  readonly #connection: SqliteConnection;
  #toldMs = START_MS;

  private constructor(database: TestDatabase) {
    this.#database = database;
    this.file = database.db;
    this.#connection = new SqliteConnection(database.path);
  }

  static async open(): Promise<SimulatedDatabase> {
    return new SimulatedDatabase(await openTestDatabase());
  }

  async close(): Promise<void> {
    this.#connection.close();
    await this.#database.close();
  }

  /** As new. */
  async empty(): Promise<void> {
    await this.#database.empty();
    this.#connection.pragma("wal_checkpoint(TRUNCATE)");
    Object.assign(this, { writes: 0, isDown: false, isLocked: false });
    this.#toldMs = START_MS;
  }

  /** Time that has passed reaches the file before whoever reads it next. */
  tick(): void {
    const nowMs = this.nowMs();
    if (nowMs === this.#toldMs) return;
    this.#toldMs = nowMs;
    this.#connection.run({ sql: "UPDATE clock SET now_ms = :now_ms", args: { now_ms: nowMs } });
  }

  rows(sql: string, args: Readonly<Record<string, SqlValue>> = {}): readonly Row[] {
    return this.#connection.run({ sql, args });
  }

  /** One transaction of somebody's who has the file open. Throws what SQLite throws. */
  transaction(statements: readonly Statement[]): readonly (readonly Row[])[] {
    this.tick();
    this.#connection.exec("BEGIN IMMEDIATE");
    try {
      const results = statements.map((statement) => this.#connection.run(statement));
      this.#connection.exec("COMMIT");
      this.writes += 1;
      return results;
    } finally {
      if (this.#connection.isInTransaction) this.#connection.exec("ROLLBACK");
    }
  }

  // ── as a remote database answers ───────────────────────────────────────────────────────────────────────

  execute(statement: InStatement): ResultSet {
    this.tick();
    return asRemote(() => resultOf(this.#connection.run(plainStatement(statement))));
  }

  batch(statements: readonly InStatement[]): ResultSet[] {
    if (this.isLocked) throw new LibsqlError("SQLite error: database is locked", "SQLITE_BUSY");
    return asRemote(() => this.transaction(statements.map(plainStatement)).map(resultOf));
  }
}

function asRemote<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "SQLITE_UNKNOWN";
    throw new LibsqlError(`SQLite error: ${error instanceof Error ? error.message : error}`, code);
  }
}

function plainStatement(statement: InStatement): Statement {
  if (typeof statement === "string") return { sql: statement };
  const args = Object.entries(statement.args ?? {}).map(([name, value]) => [name, plainValue(value)]);
  return { sql: statement.sql, args: Object.fromEntries(args) };
}

function plainValue(value: unknown): SqlValue {
  if (typeof value === "bigint") return Number(value);
  if (value === null || typeof value === "string" || typeof value === "number") return value;
  throw new TypeError(`no statement of a server binds ${typeof value}`);
}

/** Every value twice, by name and by position, as the client gives them. */
function resultOf(rows: readonly Row[]): ResultSet {
  const columns = Object.keys(rows[0] ?? {});
  const result = {
    columns,
    columnTypes: [],
    rows: rows.map((row) => ({ ...row, ...Object.values(row) })),
    rowsAffected: 0,
  };
  // The rest of it nobody asks for.
  return result as unknown as ResultSet;
}
