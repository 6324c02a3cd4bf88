// Opens the database of an embedded server, whole and migrated, or says why not and what to do.

import type { Scheduler } from "../core/ports.ts";
import { type Db, DbError } from "../store/db.ts";
import { openEmbeddedDb } from "../store/embedded.ts";
import { migrate } from "../store/migrations.ts";
import { FileError } from "./owned-file.ts";

/** Somebody with the file open in a shell may hold its lock for a moment. */
const OPEN_DEADLINE_MS = 15_000;
const BUSY_RETRY_MS = 100;

export async function openDatabase(path: string, scheduler: Scheduler): Promise<Db> {
  const deadlineAtMs = scheduler.nowMs() + OPEN_DEADLINE_MS;
  for (;;) {
    try {
      return await openMigrated(path);
    } catch (error) {
      if (!(error instanceof DbError)) throw error;
      if (error.failure !== "busy" || scheduler.nowMs() > deadlineAtMs) throw fileErrorOf(error, path);
      await new Promise<void>((resolve) => scheduler.after(BUSY_RETRY_MS, resolve));
    }
  }
}

async function openMigrated(path: string): Promise<Db> {
  const db = await openEmbeddedDb(path);
  try {
    await migrate(db);
    return db;
  } catch (error) {
    await db.close();
    throw error;
  }
}

export function lockedFile(path: string): FileError {
  return new FileError(
    `another program holds the write lock of ${path}: end its transaction, then start again`,
  );
}

function fileErrorOf({ failure, message }: DbError, path: string): FileError {
  if (failure === "busy") return lockedFile(path);
  if (message.includes("NOTADB")) {
    return new FileError(`${path} is not a SQLite database: give another file with --db file:PATH`);
  }
  return new FileError(`cannot open ${path}: ${message}`);
}
