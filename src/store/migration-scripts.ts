// The schema, script by script. Loaded where a database is behind.

import log0001 from "../../migrations/0001_log.sql" with { type: "text" };
import timeIndex0002 from "../../migrations/0002_time_index.sql" with { type: "text" };
import purges0003 from "../../migrations/0003_purges.sql" with { type: "text" };
import rebalances0004 from "../../migrations/0004_rebalances.sql" with { type: "text" };
import producers0005 from "../../migrations/0005_producers.sql" with { type: "text" };
import sqlWrites0006 from "../../migrations/0006_sql_writes.sql" with { type: "text" };
import logLife0007 from "../../migrations/0007_log_life.sql" with { type: "text" };

/** In order; a released one is never edited. */
export const MIGRATIONS: readonly string[] = [
  log0001,
  timeIndex0002,
  purges0003,
  rebalances0004,
  producers0005,
  sqlWrites0006,
  logLife0007,
];
