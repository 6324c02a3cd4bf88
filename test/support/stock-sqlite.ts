/** What Debian's sqlite3 prints for the statement: rows as lines, columns separated by `|`. */
export function stockSqlite(databasePath: string, sql: string): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync([
    "sqlite3",
    "-bail",
    "-cmd",
    ".timeout 5000",
    databasePath,
    sql,
  ]);
  if (exitCode !== 0) throw new Error(`sqlite3: ${stderr.toString()}`);
  return stdout.toString().trimEnd();
}
