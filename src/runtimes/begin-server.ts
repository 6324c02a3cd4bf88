// From settings and an open database to a server that may take its first request: the same on every runtime.

import { beginOn, type OpenDatabase, type Patience } from "./open-database.ts";
import { chance, log, scheduler } from "./platform.ts";
import { createServer, type Server, type ServerDeps } from "./server.ts";
import type { Settings } from "./settings.ts";

/** What only some runtimes bring. */
type Beginning = Pick<Patience, "withinMs"> & Pick<ServerDeps, "longTimer">;

/** Rejects with a DatabaseError where the database does not let it. */
export async function beginServer(
  { db, errorOf }: OpenDatabase,
  settings: Settings,
  { longTimer, ...patience }: Beginning = {},
): Promise<Server> {
  const server = createServer({
    db,
    scheduler,
    chance,
    log,
    origins: { allowed: settings.allowedOrigins, allowsLoopback: settings.mode === "dev" },
    createsTopicsOnFirstUse: settings.createsTopicsOnFirstUse,
    offsetRetentionMs: settings.offsetRetentionMs,
    ...(longTimer && { longTimer }),
  });
  await beginOn(() => server.start(), { scheduler, errorOf, ...patience });
  return server;
}
