// Which runtimes there are with which databases, and how each is started: the command that a user would run, in a process
// of its own.

import { join } from "node:path";
import { type AnyServer, startServer, temporaryFolder } from "../support/server.ts";
import { HAS_SQLD, startSqld } from "../support/sqld.ts";
import { startWorker } from "../support/worker.ts";
import type { Database, Runtime, ServerUnderTest } from "./check.ts";

export interface Column {
  readonly runtime: Runtime;
  readonly database: Database;
}

/** `await using` ends it and removes what it has written. */
export type StartedColumn = ServerUnderTest & AsyncDisposable;

/** In the order of the table. */
export const COLUMNS: readonly Column[] = [
  { runtime: "bun", database: "file" },
  { runtime: "bun", database: "sqld" },
  { runtime: "deno", database: "file" },
  { runtime: "deno", database: "sqld" },
  { runtime: "workers", database: "sqld" },
];

/** Each runtime once: where there is no time for all, and where the database makes no difference. */
export const ONE_COLUMN_EACH = COLUMNS.filter(
  ({ runtime, database }) => runtime === "workers" || database === "file",
);

/** On other platforms than sqld's the columns with sqld are skipped, and whoever runs them says so. */
export function canStart({ database }: Column): boolean {
  return database === "file" || HAS_SQLD;
}

/** What a runtime brings: a server in the mode `serve` on a path of a file that is not there yet, or on a URL of sqld. */
const STARTS: Readonly<Record<Runtime, (database: string) => Promise<AnyServer>>> = {
  bun: (database) => startServer(database, { mode: "serve", runtime: "bun" }),
  deno: (database) => startServer(database, { mode: "serve", runtime: "deno" }),
  workers: (url) =>
    startWorker({ variables: { TURSO_DATABASE_URL: url, TIDEMARK_WITHOUT_CREDENTIALS: "true" } }),
};

/** Rejects with what the server has said where it does not start. */
export async function startColumn(column: Column): Promise<StartedColumn> {
  await using starting = new AsyncDisposableStack();
  const database = await databaseFor(column, starting);
  const { url, streamUrl } = starting.use(await STARTS[column.runtime](database));
  const started = starting.move(); // from here on the server is its caller's to end
  return { ...column, url, streamUrl, [Symbol.asyncDispose]: () => started.disposeAsync() };
}

async function databaseFor({ database }: Column, started: AsyncDisposableStack): Promise<string> {
  if (database === "sqld") return started.use(await startSqld()).url;
  return join(started.use(temporaryFolder()).path, "t.db");
}
