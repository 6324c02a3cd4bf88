// Stack note 1, in the suite: after SQLITE_BUSY a connection of libSQL can acknowledge writes that are never
// committed. Another process holds the write lock again and again while clients produce and acknowledge; then what
// they were told is held against the file. The same is run through a copy of the sources that does without the
// server's way of writing: the scenario can fail.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { createClient } from "@libsql/client/sqlite3";
import { openEmbeddedDb } from "../src/store/embedded.ts";
import { breakSources } from "./support/broken-sources.ts";
import { runBusyScenario } from "./support/busy-scenario.ts";
import { isLongRun } from "./support/long.ts";
import { temporaryFolder } from "./support/server.ts";

const EMBEDDED = "src/store/embedded.ts";
const BEGINS = "writer.exec(BEGIN_WITH_LOCK);";
const COMMITS = 'writer.exec("COMMIT");';

test("while another process holds the write lock nothing acknowledged is lost and nothing wedges", async () => {
  using folder = temporaryFolder();
  const outcome = await runBusyScenario(join(folder.path, "t.db"));
  expect(outcome.faults).toEqual([]);
  expect(outcome.acknowledgedProduces).toBeGreaterThan(50);
  expect(outcome.acknowledgedAcks).toBeGreaterThan(30);
}, 30_000);

if (!isLongRun)
  console.warn(
    "a server that writes by autocommit: skipped, it takes five seconds. TIDEMARK_LONG=1 runs it.",
  );

test.skipIf(!isLongRun)(
  "a server that writes by autocommit fails this: it loses what it acknowledged, or wedges",
  async () => {
    using folder = temporaryFolder();
    using copy = breakSources([
      { file: EMBEDDED, from: BEGINS, to: "" },
      { file: EMBEDDED, from: COMMITS, to: "" },
    ]);
    const { faults } = await runBusyScenario(join(folder.path, "t.db"), copy.repository);
    expect(faults.filter((fault) => /^(lost|wedged):/.test(fault))).not.toEqual([]);
  },
  30_000,
);

/** What becomes of a write that meets BUSY, of the same when the lock has just been let go, and of the close. */
async function writeAroundBusy(path: string, open: typeof openEmbeddedDb): Promise<readonly unknown[]> {
  const db = await open(path);
  await db.script("CREATE TABLE write_lock (n INTEGER); CREATE TABLE rows (n INTEGER);");
  const outcomeOf = (work: Promise<unknown>) =>
    work.then(
      () => "done",
      (error: Error) => error.message,
    );
  const insert = () => outcomeOf(db.write([{ sql: "INSERT INTO rows VALUES (1)" }]));
  const other = createClient({ url: `file:${path}`, concurrency: 1 });
  const holder = await other.transaction("write");
  const whileHeld = await insert();
  await holder.rollback();
  const afterwards = await insert(); // in microtasks after the first: nothing is collected in between
  other.close();
  return [whileHeld, afterwards, await outcomeOf(db.close())];
}

test("the writing connection is whole again as soon as the lock is free", async () => {
  using folder = temporaryFolder();
  expect(await writeAroundBusy(join(folder.path, "t.db"), openEmbeddedDb)).toEqual([
    "SQLITE_BUSY: database is locked",
    "done",
    "done",
  ]);
});

test("without the lock through exec it is not, until the failed statement is collected", async () => {
  using folder = temporaryFolder();
  using copy = breakSources([{ file: EMBEDDED, from: BEGINS, to: 'writer.exec("BEGIN");' }]);
  const { openEmbeddedDb: openWithoutLock } = await import(join(copy.repository, EMBEDDED));
  expect(await writeAroundBusy(join(folder.path, "t.db"), openWithoutLock)).toEqual([
    expect.stringContaining("database is locked"),
    expect.stringContaining("cannot commit transaction - SQL statements in progress"),
    expect.stringContaining("database table is locked"),
  ]);
});
