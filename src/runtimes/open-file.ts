// The embedded database: a file that this process owns. Loaded where one is wanted only, as it brings a native library.

import type { Scheduler } from "../core/ports.ts";
import type { Problem } from "../core/problem.ts";
import { DbError } from "../store/db.ts";
import { openEmbeddedDb } from "../store/embedded.ts";
import { DatabaseError } from "./database-error.ts";
import { type OpenDatabase, openMigrated } from "./open-database.ts";
import { fullDisk, ownFile } from "./owned-file.ts";

/** Rejects with a DatabaseError. */
export async function openFile(givenPath: string, scheduler: Scheduler): Promise<OpenDatabase> {
  const { path, release } = ownFile(givenPath);
  try {
    const db = await openMigrated(() => openEmbeddedDb(path), { scheduler });
    return { db, release, errorOf: beginErrorOfFile(path) };
  } catch (error) {
    throw error instanceof DbError ? fileErrorOf(error, path) : error;
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
