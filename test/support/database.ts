// Real databases in temporary files, and stock SQLite beside them. A libSQL client that is opened leaks a descriptor
// and 170 KiB, so a test file opens one database and empties it between its tests.

import { join } from "node:path";
import { type AppendOperation, appendStatements } from "../../src/store/appends.ts";
import type {
  Db,
  DbError,
  FlushTrace,
  Row,
  Rows,
  SqlValue,
  Statement,
  WriteOptions,
} from "../../src/store/db.ts";
import { openEmbeddedDb } from "../../src/store/embedded.ts";
import { migrate } from "../../src/store/migrations.ts";
import { WriteQueue } from "../../src/store/write-queue.ts";
import { FakeTime, fakeChance } from "./fake-time.ts";
import { temporaryFolder } from "./server.ts";

/** 2025-03-01T12:00:00.000Z: what the clock of an emptied test database says. */
export const START_MS = 1_740_830_400_000;

export interface TestDatabase {
  readonly db: Db;
  readonly path: string;
  /** Another connection to the same file, as another server process has; open until the database is closed. */
  openSecond(): Promise<Db>;
  /** Empties every table, starts every counter again and puts the clock back to START_MS. */
  empty(): Promise<void>;
  /** Moves the database's clock. */
  pass(ms: number): Promise<void>;
  /** Runs one statement that writes. */
  run(sql: string, args?: Readonly<Record<string, SqlValue>>): Promise<Rows>;
  /** All rows of a query, as plain objects. */
  rows(sql: string, args?: Readonly<Record<string, SqlValue>>): Promise<readonly Row[]>;
  close(): Promise<void>;
}

/** Migrated. Its `clock` is a table, as design 7a provides for; with `hasRealClock` it is the view that it was. */
export async function openTestDatabase(options: { hasRealClock?: boolean } = {}): Promise<TestDatabase> {
  const folder = temporaryFolder({ isInMemory: true });
  const path = join(folder.path, "test.db");
  const db = await openEmbeddedDb(path);
  await migrate(db);
  if (!options.hasRealClock) {
    await db.script("DROP VIEW clock; CREATE TABLE clock (now_ms INTEGER NOT NULL) STRICT;");
    await db.script(`INSERT INTO clock VALUES (${START_MS});`);
  }
  const others: Db[] = [];
  const run = async (sql: string, args: Readonly<Record<string, SqlValue>> = {}) =>
    (await db.write([{ sql, args }]))[0] ?? [];
  return {
    db,
    path,
    run,
    rows: async (sql, args = {}) => (await db.read({ sql, args })).map((row) => ({ ...row })),
    pass: async (ms) => void (await run("UPDATE clock SET now_ms = now_ms + :ms", { ms })),
    openSecond: async () => {
      const second = await openEmbeddedDb(path);
      others.push(second);
      return second;
    },
    empty: () => emptyDatabase(db, options.hasRealClock === true),
    close: async () => {
      for (const other of others) await other.close();
      await db.close();
      folder.remove();
    },
  };
}

/** Children before parents. */
const TABLES = [
  "upkeep_lease",
  "idle_groups",
  "superseded",
  "compacted_keys",
  "compactions",
  "trim_steps",
  "append_times",
  "producer_answers",
  "producers",
  "offset_history",
  "committed_offsets",
  "assignments",
  "members",
  "processes",
  "flushes",
  "group_topics",
  "idle_groups",
  "groups",
  "upkeep_lease",
  "purges",
  "trim_steps",
  "superseded",
  "compacted_keys",
  "compactions",
  "append_times",
  "time_index",
  "records",
  "partitions",
  "topics",
  "guard",
  "sqlite_sequence",
];

async function emptyDatabase(db: Db, hasRealClock: boolean): Promise<void> {
  const clock = hasRealClock ? [] : [{ sql: "UPDATE clock SET now_ms = :now", args: { now: START_MS } }];
  await db.write([
    ...TABLES.map((table) => ({ sql: `DELETE FROM ${table}` })),
    { sql: "UPDATE sequence SET last = 0" },
    { sql: "UPDATE catalog SET version = 0" },
    ...clock,
  ]);
}

/** Passes everything on to a real database, counts it, and fails or interferes where a test says so. */
export class WatchedDb implements Db {
  readonly durability = "fsync";
  readonly readsAtOnceMax: number;
  /** As a remote database is; a file that several servers of a test have open is so too. */
  readonly isShared: boolean;
  readonly reads: Statement[] = [];
  readonly writes: (readonly Statement[])[] = [];
  /** Called before each; what it throws is the outcome. */
  onRead: ((statement: Statement) => Promise<void> | void) | undefined;
  onWrite: ((statements: readonly Statement[]) => Promise<void> | void) | undefined;
  /** Called instead of closing: the database belongs to the test. */
  onClose: (() => void) | undefined;
  readonly #db: Db;

  constructor(db: Db, options: { isShared?: boolean } = {}) {
    this.#db = db;
    this.readsAtOnceMax = db.readsAtOnceMax;
    this.isShared = options.isShared ?? db.isShared;
  }

  async read(statement: Statement): Promise<Rows> {
    this.reads.push(statement);
    await this.onRead?.(statement);
    return this.#db.read(statement);
  }

  async write(statements: readonly Statement[], options?: WriteOptions): Promise<readonly Rows[]> {
    this.writes.push(statements);
    await this.onWrite?.(statements);
    return this.#db.write(statements, options);
  }

  script(sql: string): Promise<void> {
    return this.#db.script(sql);
  }

  async dataVersion(): Promise<number> {
    return (await this.#db.dataVersion?.()) ?? 0;
  }

  async close(): Promise<void> {
    this.onClose?.();
  }
}

/** Of a write without conditions, to topics whose schema was never changed. */
export function traceOf(logEnds: ReadonlyMap<number, number>): FlushTrace {
  const partitions = [...logEnds].map(
    ([id, logEndOffset]) => [id, { logEndOffset, schemaVersion: 0 }] as const,
  );
  return { partitions: new Map(partitions), refusedOps: new Set() };
}

/** Throws each of these in turn, then no more. */
export function failing(...errors: readonly DbError[]): () => void {
  const left = [...errors];
  return () => {
    const error = left.shift();
    if (error) throw error;
  };
}

/**
 * What stock SQLite reads in the file, beside whoever has it open: Debian's sqlite3 3.40 where it is installed, else
 * the SQLite that Bun brings, in a process of its own (two SQLites in one process would break each other's locks).
 */
export function stockRows(path: string, sql: string): readonly Row[] {
  const command = Bun.which("sqlite3")
    ? ["sqlite3", "-readonly", "-json", path, sql]
    : [process.execPath, "-e", READ_WITH_BUN, path, sql];
  const { stdout, stderr, exitCode } = Bun.spawnSync(command);
  if (exitCode !== 0) throw new Error(`stock SQLite: ${stderr}`);
  return JSON.parse(stdout.toString().trim() || "[]");
}

const READ_WITH_BUN = `
  const { Database } = require("bun:sqlite");
  const [path, sql] = process.argv.slice(1);
  console.log(JSON.stringify(new Database(path, { readonly: true }).query(sql).all()));`;

/** Another process with stock SQLite on the file: holds locks, reads and writes as it is told. */
export class OtherProcess {
  readonly #child;
  readonly #reader;
  #unread = "";

  constructor(path: string) {
    this.#child = Bun.spawn([process.execPath, "-e", OBEY, path], { stdin: "pipe", stdout: "pipe" });
    this.#reader = this.#child.stdout.getReader();
  }

  /** Rejects with what SQLite says, or resolves to the rows. */
  async run(sql: string): Promise<readonly Row[]> {
    this.#child.stdin.write(`${JSON.stringify(sql)}\n`);
    await this.#child.stdin.flush();
    const answer: { rows?: readonly Row[]; error?: string } = JSON.parse(await this.#line());
    if (answer.error !== undefined) throw new Error(answer.error);
    return answer.rows ?? [];
  }

  async end(): Promise<void> {
    this.#child.stdin.end();
    await this.#child.exited;
  }

  /** As kill -9 does. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
  }

  async #line(): Promise<string> {
    while (!this.#unread.includes("\n")) {
      const { value, done } = await this.#reader.read();
      if (done) throw new Error("the other process is gone");
      this.#unread += new TextDecoder().decode(value);
    }
    const [line = "", ...rest] = this.#unread.split("\n");
    this.#unread = rest.join("\n");
    return line;
  }
}

const OBEY = `
  const { Database } = require("bun:sqlite");
  const db = new Database(process.argv[1]);
  for await (const line of console) {
    try {
      console.log(JSON.stringify({ rows: db.prepare(JSON.parse(line)).all() }));
    } catch (error) {
      console.log(JSON.stringify({ error: String(error) }));
    }
  }`;

/** What the queue makes of an append that stands alone. */
export function statementsOf({ appends }: AppendOperation<unknown>): readonly Statement[] {
  return appends.flatMap((append) => appendStatements(append, null));
}

/** The queue of a server on this database, with time that stands still. */
export function openQueue(db: Db): WriteQueue {
  return new WriteQueue({ db, scheduler: new FakeTime(), chance: fakeChance(), log: () => {} });
}
