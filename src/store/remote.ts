// The database port over a remote libSQL server (sqld, Turso), by HTTP. Other server processes write to it too.
//
// A write is one batch: one transaction, one round trip. Its answer may get lost, and a request may arrive long after
// it was given up, so every batch carries a number: its first statement fails unless the number is above the last one
// that this writer has written. A write without an answer is therefore sent again as it was. Where it was written
// before, the number says so and nothing happens twice; only the rows that it returned are lost, and what it
// left is read back.
//
// Browser-safe client: the same on every runtime. It has no deadline of its own, and asks for compressed answers, which
// take longer to make than to send.

import { createClient, type InStatement, LibsqlError, type ResultSet, type Row } from "@libsql/client/http";
import type { Scheduler } from "../core/ports.ts";
import type { Durability } from "../protocol/frames.ts";
import { WRITE_DEADLINE_MS } from "../protocol/limits.ts";
import {
  boundArgs,
  type Db,
  DbError,
  type DbFailure,
  type FlushTrace,
  type Rows,
  type Statement,
  type WriteOptions,
} from "./db.ts";
import { EMPTY_GUARD } from "./guard.ts";

/** Of one request. sqld ends a transaction that has the lock for 5 s: who has waited for that long gets an answer. */
const CALL_DEADLINE_MS = 6_000;
const RETRY_MIN_MS = 50;
const RETRY_MAX_MS = 500;
/** sqld answers 429 above 128 requests of all its clients together. */
const READS_AT_ONCE_MAX = 32;
const SYNCHRONOUS_FULL = 2;

// Two of the same number, or an older one: NOT NULL fails, and with it the batch.
const CLAIM_NUMBER = `
  INSERT INTO flushes (writer_id, number, written_at) SELECT :writer_id, :number, now_ms FROM clock WHERE true
  ON CONFLICT (writer_id) DO UPDATE
    SET number = CASE WHEN number < excluded.number THEN excluded.number END,
        written_at = excluded.written_at, log_ends = NULL, refused_ops = NULL`;

// Last: the conditions that did not hold are still in `guard`.
const NOTE_TRACE = `
  UPDATE flushes
  SET log_ends = (
        SELECT json_group_array(json_array(p.partition_id, p.log_end_offset, t.schema_version))
        FROM partitions AS p JOIN topics AS t ON t.topic_id = p.topic_id
        WHERE p.partition_id IN (SELECT value FROM json_each(:partition_ids))),
      refused_ops = (SELECT json_group_array(op) FROM guard WHERE NOT ok)
  WHERE writer_id = :writer_id`;

const READ_TRACE =
  "SELECT log_ends, refused_ops FROM flushes WHERE writer_id = :writer_id AND number = :number";

// Of writers that have been gone for so long that no request of theirs can arrive any more.
const FORGET_WRITERS = "DELETE FROM flushes WHERE written_at < (SELECT now_ms FROM clock) - 86400000";

export interface RemoteDatabase {
  /** http, https or libsql. */
  readonly url: string;
  readonly authToken: string | undefined;
  /** Nobody else's. */
  readonly writerId: string;
  readonly scheduler: Scheduler;
  readonly callDeadlineMs?: number;
  /** What speaks to it: by HTTP, unless a simulation puts a network of its own in between. */
  readonly connect?: (concurrency: number) => RemoteClient;
}

/** What is asked of `@libsql/client`. */
export interface RemoteClient {
  readonly closed: boolean;
  execute(statement: InStatement): Promise<ResultSet>;
  batch(statements: InStatement[], mode: "write"): Promise<ResultSet[]>;
  executeMultiple(sql: string): Promise<void>;
  close(): void;
}

/** Rejects with a DbError where the database cannot be reached, or refuses. */
export async function openRemoteDb(database: RemoteDatabase): Promise<Db> {
  const reader = clientOf(database, READS_AT_ONCE_MAX);
  try {
    const { rows } = await reader.execute("PRAGMA synchronous");
    const durability = rows[0]?.synchronous === SYNCHRONOUS_FULL ? "fsync" : "relaxed";
    return new RemoteDb(reader, durability, database);
  } catch (error) {
    reader.close();
    throw dbErrorOf(error);
  }
}

function clientOf(
  { url, authToken, callDeadlineMs = CALL_DEADLINE_MS, connect }: RemoteDatabase,
  concurrency: number,
): RemoteClient {
  if (connect) return connect(concurrency);
  return createClient({
    url,
    ...(authToken !== undefined && { authToken }),
    fetch: fetchWithin(callDeadlineMs),
    concurrency,
  });
}

class RemoteDb implements Db {
  readonly durability: Durability;
  readonly isShared = true;
  readonly readsAtOnceMax = READS_AT_ONCE_MAX / 2;
  readonly #reader: RemoteClient;
  /** A client of its own: a write never waits behind reads that get no answer. */
  readonly #writer: RemoteClient;
  readonly #writerId: string;
  readonly #scheduler: Scheduler;
  #lastNumber = 0;

  constructor(reader: RemoteClient, durability: Durability, database: RemoteDatabase) {
    this.#reader = reader;
    this.#writer = clientOf(database, 1);
    this.durability = durability;
    this.#writerId = database.writerId;
    this.#scheduler = database.scheduler;
  }

  async read(statement: Statement): Promise<Rows> {
    return this.#call(async () => {
      const { columns, rows } = await this.#reader.execute(boundStatement(statement));
      return plainRows(columns, rows);
    });
  }

  async write(statements: readonly Statement[], options: WriteOptions = {}): Promise<readonly Rows[]> {
    this.#requireOpen();
    this.#lastNumber += 1;
    const number = this.#lastNumber;
    const batch = this.#numbered(statements, number, options);
    const results = await this.#send(batch, number, options.withinMs ?? WRITE_DEADLINE_MS);
    return results.slice(1, 1 + statements.length);
  }

  /** sqld leaves out, without a word, what its parser does not understand: a test compares what has come of it. */
  async script(sql: string): Promise<void> {
    await this.#call(() => this.#writer.executeMultiple(`BEGIN IMMEDIATE;\n${sql}\nCOMMIT;`));
  }

  async close(): Promise<void> {
    this.#reader.close();
    this.#writer.close();
  }

  #requireOpen(): void {
    if (this.#reader.closed) throw new DbError("io", "The database is closed");
  }

  #numbered(
    statements: readonly Statement[],
    number: number,
    { appendedTo = [], leavesGuard = false }: WriteOptions,
  ): readonly Statement[] {
    const writer = { writer_id: this.#writerId };
    const note = { ...writer, partition_ids: JSON.stringify(appendedTo) };
    const isTraced = leavesGuard || appendedTo.length > 0;
    return [
      { sql: CLAIM_NUMBER, args: { ...writer, number } },
      ...statements,
      ...(isTraced ? [{ sql: NOTE_TRACE, args: note }] : []),
      ...(leavesGuard ? [{ sql: EMPTY_GUARD }] : []),
      ...(number === 1 ? [{ sql: FORGET_WRITERS }] : []),
    ];
  }

  /** Again and again until there is an answer, or no time. */
  async #send(batch: readonly Statement[], number: number, withinMs: number): Promise<readonly Rows[]> {
    const endsAtMs = this.#scheduler.nowMs() + withinMs;
    const bound = batch.map(boundStatement);
    let mayBeWritten = false;
    for (let delayMs = RETRY_MIN_MS; ; delayMs = Math.min(RETRY_MAX_MS, delayMs * 2)) {
      try {
        const results = await this.#writer.batch(bound, "write");
        return results.map(({ columns, rows }) => plainRows(columns, rows));
      } catch (error) {
        const failure = isClaimed(error) ? await this.#readBack(number) : dbErrorOf(error);
        mayBeWritten ||= failure.failure === "unknown";
        if (isFinal(failure, mayBeWritten)) throw failure;
        if (this.#scheduler.nowMs() + delayMs >= endsAtMs)
          throw new DbError(mayBeWritten ? "unknown" : "io", failure.message, failure);
        await new Promise<void>((resolve) => this.#scheduler.after(delayMs, resolve));
      }
    }
  }

  /** It was written: `unanswered`, with what it left; `unknown` as long as that cannot be read. */
  async #readBack(number: number): Promise<DbError> {
    try {
      const question = { sql: READ_TRACE, args: { writer_id: this.#writerId, number } };
      const [row] = (await this.#writer.execute(boundStatement(question))).rows;
      if (!row) return new DbError("unknown", `flush ${number} is not to be found any more`);
      return new DbError("unanswered", "the answer of a write was lost", undefined, traceOf(row));
    } catch (error) {
      return new DbError("unknown", String(error), error);
    }
  }

  async #call<T>(call: () => Promise<T>): Promise<T> {
    this.#requireOpen();
    try {
      return await call();
    } catch (error) {
      const { failure, message } = dbErrorOf(error);
      throw new DbError(failure === "unknown" ? unansweredCall(error) : failure, message, error);
    }
  }
}

function traceOf({ log_ends, refused_ops }: Row): FlushTrace {
  const partitions: [number, number, number][] = JSON.parse(String(log_ends ?? "[]"));
  const refusedOps: number[] = JSON.parse(String(refused_ops ?? "[]"));
  return {
    partitions: new Map(
      partitions.map(([partitionId, logEndOffset, schemaVersion]) => [
        partitionId,
        { logEndOffset, schemaVersion },
      ]),
    ),
    refusedOps: new Set(refusedOps),
  };
}

// ── the client's shapes ──────────────────────────────────────────────────────────────────────────────────

function fetchWithin(deadlineMs: number): (request: Request) => Promise<Response> {
  return (request) => {
    request.headers.set("accept-encoding", "identity");
    return fetch(request, { signal: AbortSignal.timeout(deadlineMs) });
  };
}

function boundStatement({ sql, args }: Statement): InStatement {
  return args === undefined ? sql : { sql, args: boundArgs(args) };
}

/** The client's rows have every value twice, by name and by position. */
function plainRows(columns: readonly string[], rows: readonly Row[]): Rows {
  return rows.map((row) => Object.fromEntries(columns.map((name, index) => [name, row[index]])));
}

// ── errors ───────────────────────────────────────────────────────────────────────────────────────────────

/** The first statement is the one that refuses a number for the second time. */
function isClaimed(error: unknown): boolean {
  return (
    error instanceof LibsqlError &&
    error.code.startsWith("SQLITE_CONSTRAINT") &&
    error.message.includes("flushes.number")
  );
}

/** The same again would say no more. */
function isFinal(error: DbError, mayBeWritten: boolean): boolean {
  switch (error.failure) {
    case "unanswered":
      return true;
    case "rejected": // by SQL for what it is, and so it was before; by a gateway for other reasons
      return !mayBeWritten || statusOf(error) === undefined;
    case "busy":
    case "full":
      return !mayBeWritten;
    case "io":
    case "unknown":
      return false;
  }
}

function dbErrorOf(error: unknown): DbError {
  if (error instanceof DbError) return error;
  return new DbError(failureOf(error), String(error), error);
}

function failureOf(error: unknown): DbFailure {
  const code = codeOf(error);
  if (NEVER_SENT.has(code)) return "io";
  if (code.startsWith("SQLITE_BUSY") || code.startsWith("SQLITE_LOCKED")) return "busy";
  if (code.startsWith("SQLITE_FULL")) return "full";
  if (code.startsWith("SQLITE_IOERR")) return "unknown"; // it may have been the commit
  if (/^(SQLITE|SQL|ARGS)_/.test(code)) return "rejected";
  const status = statusOf(error);
  if (status === 429) return "busy";
  // sqld says so of every database while it stops.
  if (status === 404) return "io";
  // A gateway may have lost the answer; everything else that is refused by its status was not done.
  if (status !== undefined && status < 500) return "rejected";
  return "unknown";
}

/**
 * Of what is not a write: the answer is one that can never be taken, or there was none. (Where sqld says that it is too
 * large, it means all that it sends at the moment: no read asks for more than it gives.)
 */
function unansweredCall(error: unknown): DbFailure {
  return error instanceof RangeError ? "rejected" : "io";
}

/** The database was not reached at all. */
const NEVER_SENT = new Set(["ECONNREFUSED", "ConnectionRefused", "ENOTFOUND", "EAI_AGAIN"]);

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return "";
  return "code" in error && typeof error.code === "string" ? error.code : codeOf(error.cause);
}

function statusOf(error: unknown): number | undefined {
  if (!(error instanceof Error)) return undefined;
  return "status" in error && typeof error.status === "number" ? error.status : statusOf(error.cause);
}
