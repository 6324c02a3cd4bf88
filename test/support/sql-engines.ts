// Every SQLite that the triggers of the database have to run in, each on a fresh database.

import { OtherProcess, openTestDatabase } from "./database.ts";
import { isLongRun } from "./long.ts";
import { openStockSession, type SqlSession, sessionOf } from "./sql-session.ts";
import { HAS_SQLD, openRemoteTestDb, SQLD_SKIPPED, startSqld } from "./sqld.ts";

const ONLY_LONG = "skipped, because it takes half a minute: TIDEMARK_LONG=1 runs it";

export interface SqlEngine {
  readonly name: string;
  readonly isThere: boolean;
  /** Runs the statements first. */
  open(create: readonly string[]): Promise<SqlSession>;
}

export const SQL_ENGINES: readonly SqlEngine[] = [
  { name: "stock SQLite in another process", isThere: true, open: openElsewhere(openStockSession) },
  { name: "the server's libSQL", isThere: true, open: openEmbedded },
  {
    name: isLongRun ? "Bun's newer SQLite in another" : `Bun's newer SQLite in another (${ONLY_LONG})`,
    isThere: isLongRun,
    open: openElsewhere((path) => new OtherProcess(path)),
  },
  {
    name: HAS_SQLD ? (isLongRun ? "sqld" : `sqld (${ONLY_LONG})`) : `sqld (${SQLD_SKIPPED})`,
    isThere: isLongRun && HAS_SQLD,
    open: openSqld,
  },
];

function openElsewhere(openSession: (path: string) => SqlSession): SqlEngine["open"] {
  return async (create) => {
    const database = await openTestDatabase();
    for (const sql of create) await database.run(sql);
    const session = openSession(database.path);
    return {
      run: (sql) => session.run(sql),
      end: async () => {
        await session.end();
        await database.close();
      },
    };
  };
}

async function openEmbedded(create: readonly string[]): Promise<SqlSession> {
  const database = await openTestDatabase();
  for (const sql of create) await database.run(sql);
  return { ...sessionOf(database.db), end: database.close };
}

async function openSqld(create: readonly string[]): Promise<SqlSession> {
  const sqld = await startSqld();
  const db = await openRemoteTestDb(sqld.url);
  for (const sql of create) await db.write([{ sql }]);
  return {
    ...sessionOf(db),
    end: async () => {
      await db.close();
      await sqld[Symbol.asyncDispose]();
    },
  };
}
