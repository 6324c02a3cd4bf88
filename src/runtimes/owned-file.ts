// One server a database file. The lock is an open write transaction on a small database beside the file: it is the
// same on every runtime and it dies with its process, even on kill -9, so nothing is ever left to clean up.
//
// Only the entry of a runtime asks for this. The store underneath stays correct with several writers; but two servers
// on one file would not see each other's appends at once, and each would end the other's memberships at its start.

import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  realpathSync,
  statSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { dbErrorOf, SqliteConnection } from "../store/sqlite-connection.ts";
import { DatabaseError } from "./database-error.ts";

const ANY_WRITE_BIT = 0o222;
/** What says that here a folder cannot be opened, or not be fsynced: there is no more that could be done. */
const NO_FOLDER_SYNC: ReadonlySet<unknown> = new Set(["EACCES", "EISDIR", "EPERM", "EINVAL"]);

export interface FileOwnership {
  /** The file itself, whatever links the path that was given goes through. */
  readonly path: string;
  release(): void;
}

/** Throws a DatabaseError where another server owns the file. Keep what it returns: the lock is gone with it. */
export function ownFile(givenPath: string): FileOwnership {
  makeWritable(givenPath);
  const databasePath = existsSync(givenPath)
    ? realpathSync(givenPath)
    : join(realpathSync(dirname(givenPath)), basename(givenPath));
  const lockPath = `${databasePath}-owner`;
  let lock: SqliteConnection | undefined;
  try {
    lock = new SqliteConnection(lockPath);
    lock.exec("BEGIN; CREATE TABLE IF NOT EXISTS owner (pid INTEGER); UPDATE owner SET pid = pid WHERE 0;");
  } catch (error) {
    lock?.close();
    const { failure } = dbErrorOf(error, "rejected");
    if (failure === "full") throw fullDisk(givenPath);
    const isTaken = failure === "busy";
    throw new DatabaseError(isTaken ? takenMessage(givenPath) : `cannot lock ${lockPath}: ${String(error)}`);
  }
  return { path: databasePath, release: () => lock.close() };
}

export function fullDisk(path: string): DatabaseError {
  return new DatabaseError(`there is no room left on the disk of ${path}: make room, then start again`);
}

function takenMessage(path: string): string {
  return `another tidemark server has ${path} open: stop it, or give this one a file of its own with --db file:PATH`;
}

function makeWritable(path: string): void {
  const folder = dirname(path);
  try {
    makeFolder(folder);
    accessSync(folder, constants.W_OK);
  } catch (error) {
    throw new DatabaseError(`cannot write in the folder of ${path}: ${String(error)}`);
  }
  if (!existsSync(path)) return;
  const stats = statSync(path);
  if (stats.isFile() && stats.nlink > 1) throw hardLinked(path, stats.nlink);
  // Root may write whatever the mode says; a file that nobody is meant to write is not opened all the same.
  const isMarkedReadOnly = (stats.mode & ANY_WRITE_BIT) === 0;
  try {
    accessSync(path, constants.W_OK);
  } catch {
    throw readOnly(path);
  }
  if (isMarkedReadOnly) throw readOnly(path);
}

/**
 * SQLite fsyncs the folder of a new file, so that after a power cut the file has its name. A folder that is made here
 * needs the same from the one above it, or all that was acknowledged may be in a folder without a name.
 */
function makeFolder(folder: string): void {
  const firstMade = mkdirSync(folder, { recursive: true });
  if (firstMade === undefined) return;
  const root = dirname(resolve(firstMade));
  for (let above = dirname(resolve(folder)); ; above = dirname(above)) {
    syncFolder(above);
    if (above === root || above === dirname(above)) return;
  }
}

function syncFolder(folder: string): void {
  let opened: number | undefined;
  try {
    opened = openSync(folder, "r");
    fsyncSync(opened);
  } catch (error) {
    if (!NO_FOLDER_SYNC.has(Object(error).code)) throw error;
  } finally {
    if (opened !== undefined) closeSync(opened);
  }
}

/**
 * The lock and the WAL stand beside the name. Under another name of the same file they would be others, and two servers
 * would write over each other.
 */
function hardLinked(path: string, names: number): DatabaseError {
  return new DatabaseError(
    `${path} has ${names} names (hard links), and what is written last stands beside one of them: ` +
      "remove the other names, or start on a copy",
  );
}

function readOnly(path: string): DatabaseError {
  return new DatabaseError(
    `${path} is read-only: make it writable (chmod u+w), or give another file with --db file:PATH`,
  );
}
