// Brings a database to the schema that this server knows.

import { type Db, DbError, numberColumn } from "./db.ts";

/** Of what migration-scripts.ts has, the last. */
export const SCHEMA_VERSION = 7;

const HAS_MIGRATIONS =
  "SELECT count(*) AS n FROM sqlite_schema WHERE type = 'table' AND name = 'tidemark_migrations'";
const CURRENT_VERSION = "SELECT coalesce(max(version), 0) AS version FROM tidemark_migrations";

/** Any number of processes may do this at once. Throws a DbError, `rejected` on a schema newer than this server. */
export async function migrate(db: Db): Promise<void> {
  for (;;) {
    const version = await schemaVersion(db);
    if (version === SCHEMA_VERSION) return;
    if (version > SCHEMA_VERSION) throw newerSchema(version);
    await applyNext(db, version);
  }
}

/** 0 before the first migration. */
export async function schemaVersion(db: Db): Promise<number> {
  const [table] = await db.read({ sql: HAS_MIGRATIONS });
  if (numberColumn(table, "n") === 0) return 0;
  const [current] = await db.read({ sql: CURRENT_VERSION });
  return numberColumn(current, "version");
}

/** The row of the version is the check under the lock: of two processes that apply it, the second fails whole. */
async function applyNext(db: Db, version: number): Promise<void> {
  const next = version + 1;
  const { MIGRATIONS } = await import("./migration-scripts.ts"); // for the most starts have nothing to apply
  try {
    await db.script(`
      CREATE TABLE IF NOT EXISTS tidemark_migrations (version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL) STRICT;
      INSERT INTO tidemark_migrations VALUES (${next}, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'));
      ${MIGRATIONS[version]}`);
  } catch (error) {
    const wasAppliedByAnother = (await schemaVersion(db)) >= next;
    if (!wasAppliedByAnother) throw error;
  }
}

function newerSchema(version: number): DbError {
  return new DbError(
    "rejected",
    `The database has schema version ${version}, this server knows ${SCHEMA_VERSION}: start a newer tidemark, ` +
      "or restore the backup made before the upgrade",
  );
}
