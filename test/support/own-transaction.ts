// A transaction as an application writes it: in a process of its own, with stock sqlite3 on a file and with
// @libsql/client on sqld. Statements are given without their semicolons.

import type { Place } from "./cluster.ts";
import { REPOSITORY } from "./server.ts";
import { codeIn } from "./sql-session.ts";

/** Resolves to the code that it was refused with, or "committed". */
export async function ownTransaction(
  place: Pick<Place, "database" | "sqld">,
  ...statements: readonly string[]
): Promise<string> {
  const child = place.sqld
    ? libsqlBatch(place.database, statements)
    : sqlite3Script(place.database, statements);
  const [stderr, exitCode] = await Promise.all([child.stderr.text(), child.exited]);
  if (exitCode === 0) return "committed";
  return codeIn(stderr) ?? Promise.reject(new Error(stderr));
}

function sqlite3Script(path: string, statements: readonly string[]) {
  const script = [
    ".timeout 5000",
    "PRAGMA synchronous = FULL;",
    "PRAGMA foreign_keys = ON;",
    "PRAGMA wal_autocheckpoint = 0;",
    ...["BEGIN IMMEDIATE", ...statements, "COMMIT"].map((sql) => `${sql};`),
  ].join("\n");
  return Bun.spawn(["sqlite3", "-bail", path], {
    stdin: Buffer.from(script),
    stderr: "pipe",
    stdout: "ignore",
  });
}

function libsqlBatch(url: string, statements: readonly string[]) {
  return Bun.spawn([process.execPath, "-e", LIBSQL_BATCH, url, ...statements], {
    cwd: REPOSITORY,
    stderr: "pipe",
  });
}

const LIBSQL_BATCH = `
  const { createClient } = require("@libsql/client");
  const [url, ...statements] = process.argv.slice(1);
  await createClient({ url }).batch(statements, "write").catch((error) => {
    console.error(error.message);
    process.exit(1);
  });`;
