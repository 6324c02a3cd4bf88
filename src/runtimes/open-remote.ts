// A remote libSQL server: the same on every runtime.

import type { Problem } from "../core/problem.ts";
import { DbError } from "../store/db.ts";
import { openRemoteDb, type RemoteDatabase } from "../store/remote.ts";
import { DatabaseError } from "./database-error.ts";
import { type OpenDatabase, openMigrated, type Patience } from "./open-database.ts";

/** Rejects with a DatabaseError. */
export async function openRemote(database: RemoteDatabase & Patience): Promise<OpenDatabase> {
  try {
    const db = await openMigrated(() => openRemoteDb(database), database);
    return { db, release: () => {}, errorOf: beginErrorOfRemote(database.url) };
  } catch (error) {
    if (!(error instanceof DbError)) throw error;
    const hint = /HTTP status 40[13]/.test(error.message) ? "; give its token in TURSO_AUTH_TOKEN" : "";
    throw new DatabaseError(`cannot open the database ${database.url}: ${error.message}${hint}`);
  }
}

export function beginErrorOfRemote(url: string): (error: DbError | Problem) => DatabaseError {
  return ({ message }) => new DatabaseError(`cannot use the database ${url}: ${message}`);
}
