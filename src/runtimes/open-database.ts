// Opens the database of a server, whole and migrated, and lets the server begin on it, or says why not and what to do.

import type { Scheduler } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import { type Db, DbError, type DbFailure } from "../store/db.ts";
import { openEmbeddedDb } from "../store/embedded.ts";
import { migrate } from "../store/migrations.ts";
import { openRemoteDb, type RemoteDatabase } from "../store/remote.ts";
import { DatabaseError, fullDisk } from "./owned-file.ts";

/** Somebody may hold the lock for a moment, and a remote database may start at the same time. */
const OPEN_DEADLINE_MS = 15_000;
const RETRY_MS = 100;
const PASSING_FAILURES: ReadonlySet<DbFailure> = new Set(["busy", "io", "unknown"]);

export async function openFile(path: string, scheduler: Scheduler): Promise<Db> {
  try {
    return await openMigrated(() => openEmbeddedDb(path), scheduler);
  } catch (error) {
    throw error instanceof DbError ? fileErrorOf(error, path) : error;
  }
}

export async function openRemote(database: RemoteDatabase): Promise<Db> {
  try {
    return await openMigrated(() => openRemoteDb(database), database.scheduler);
  } catch (error) {
    if (!(error instanceof DbError)) throw error;
    const hint = /HTTP status 40[13]/.test(error.message) ? "; give its token in TURSO_AUTH_TOKEN" : "";
    throw new DatabaseError(`cannot open the database ${database.url}: ${error.message}${hint}`);
  }
}

/**
 * What a server does on its database before its first request; it may be done again. `errorOf`: what to say where the
 * database does not let it.
 */
export async function beginOn(
  begin: () => Promise<void>,
  { scheduler, errorOf }: { scheduler: Scheduler; errorOf: (error: DbError | Problem) => DatabaseError },
): Promise<void> {
  try {
    await retried(begin, scheduler);
  } catch (error) {
    throw error instanceof DbError || error instanceof Problem ? errorOf(error) : error;
  }
}

function openMigrated(open: () => Promise<Db>, scheduler: Scheduler): Promise<Db> {
  return retried(async () => migrated(await open()), scheduler);
}

/** Until the deadline, as long as the failure may pass. */
async function retried<T>(work: () => Promise<T>, scheduler: Scheduler): Promise<T> {
  const deadlineAtMs = scheduler.nowMs() + OPEN_DEADLINE_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const mayPass = error instanceof DbError && PASSING_FAILURES.has(error.failure);
      if (!mayPass || scheduler.nowMs() > deadlineAtMs) throw error;
      await new Promise<void>((resolve) => scheduler.after(RETRY_MS, resolve));
    }
  }
}

async function migrated(db: Db): Promise<Db> {
  try {
    await migrate(db);
    return db;
  } catch (error) {
    await db.close();
    throw error;
  }
}

/** Of a file that was opened, and then could not be written. */
export function beginErrorOfFile(path: string): (error: DbError | Problem) => DatabaseError {
  return (error) => {
    if (error instanceof DbError) return fileErrorOf(error, path);
    if (error.code === "storage_full") return fullDisk(path);
    if (error.code === "unavailable") return lockedFile(path);
    return new DatabaseError(`cannot use ${path}: ${error.message}`);
  };
}

export function beginErrorOfRemote(url: string): (error: DbError | Problem) => DatabaseError {
  return ({ message }) => new DatabaseError(`cannot use the database ${url}: ${message}`);
}

function lockedFile(path: string): DatabaseError {
  return new DatabaseError(
    `another program holds the write lock of ${path}: end its transaction, then start again`,
  );
}

function fileErrorOf({ failure, message }: DbError, path: string): DatabaseError {
  if (failure === "busy") return lockedFile(path);
  if (failure === "full") return fullDisk(path);
  if (message.includes("NOTADB")) {
    return new DatabaseError(`${path} is not a SQLite database: give another file with --db file:PATH`);
  }
  return new DatabaseError(`cannot open ${path}: ${message}`);
}
