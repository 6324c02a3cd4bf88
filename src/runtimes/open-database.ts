// What a server does on its database before its first request: opens it, migrates it, begins. open-file.ts and
// open-remote.ts know how; here is how often it is tried.

import type { Scheduler } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import { type Db, DbError, type DbFailure } from "../store/db.ts";
import { migrate } from "../store/migrations.ts";
import type { DatabaseError } from "./database-error.ts";

/** Somebody may hold the lock for a moment, and a remote database may start at the same time. */
const OPEN_DEADLINE_MS = 15_000;
const RETRY_MS = 100;
const PASSING_FAILURES: ReadonlySet<DbFailure> = new Set(["busy", "io", "unknown"]);

export interface OpenDatabase {
  readonly db: Db;
  /** Lets it go, when the server has stopped. */
  readonly release: () => void;
  /** What to say where the server cannot begin on it. */
  readonly errorOf: (error: DbError | Problem) => DatabaseError;
}

export interface Patience {
  readonly scheduler: Scheduler;
  /** How long what may pass is tried again. */
  readonly withinMs?: number;
}

/** Whole and migrated. Rejects with a DbError. */
export function openMigrated(open: () => Promise<Db>, patience: Patience): Promise<Db> {
  return retried(async () => migrated(await open()), patience);
}

/** What may be done again. Rejects with what `errorOf` says, where the database does not let it. */
export async function beginOn(
  begin: () => Promise<void>,
  { errorOf, ...patience }: Pick<OpenDatabase, "errorOf"> & Patience,
): Promise<void> {
  try {
    await retried(begin, patience);
  } catch (error) {
    throw error instanceof DbError || error instanceof Problem ? errorOf(error) : error;
  }
}

/** Until the deadline, as long as the failure may pass. */
async function retried<T>(
  work: () => Promise<T>,
  { scheduler, withinMs = OPEN_DEADLINE_MS }: Patience,
): Promise<T> {
  const deadlineAtMs = scheduler.nowMs() + withinMs;
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
