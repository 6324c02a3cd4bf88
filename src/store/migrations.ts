// Brings a database to the schema that this server knows.

import log0001 from "../../migrations/0001_log.sql" with { type: "text" };
import timeIndex0002 from "../../migrations/0002_time_index.sql" with { type: "text" };
import purges0003 from "../../migrations/0003_purges.sql" with { type: "text" };
import rebalances0004 from "../../migrations/0004_rebalances.sql" with { type: "text" };
import producers0005 from "../../migrations/0005_producers.sql" with { type: "text" };
import sqlWrites0006 from "../../migrations/0006_sql_writes.sql" with { type: "text" };
import logLife0007 from "../../migrations/0007_log_life.sql" with { type: "text" };
import { type Db, DbError, numberColumn } from "./db.ts";

/** In order; a released one is never edited. */
const MIGRATIONS: readonly string[] = [
  log0001,
  timeIndex0002,
  purges0003,
  rebalances0004,
  producers0005,
  sqlWrites0006,
  logLife0007,
];

const SCHEMA_VERSION = MIGRATIONS.length;

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
