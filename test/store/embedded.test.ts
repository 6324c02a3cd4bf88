import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { type Client, createClient } from "@libsql/client/sqlite3";
import { type Db, DbError, type Statement } from "../../src/store/db.ts";
import { openEmbeddedDb } from "../../src/store/embedded.ts";
import { migrate } from "../../src/store/migrations.ts";
import { OtherProcess, openTestDatabase, stockRows } from "../support/database.ts";
import { temporaryFolder } from "../support/server.ts";

const folder = temporaryFolder();
const database = await openTestDatabase();
const { db, path } = database;
await db.script("CREATE TABLE t (x);"); // no affinity: what is bound is what is stored

afterAll(async () => {
  await database.close();
  folder.remove();
});

beforeEach(async () => {
  await db.write([{ sql: "DELETE FROM t" }]);
});

const insert = (x: string | number): Statement => ({ sql: "INSERT INTO t VALUES (:x)", args: { x } });
const count = async (of: Db = db) => (await of.read({ sql: "SELECT count(*) AS n FROM t" }))[0]?.n;
const fails = (failure: string) => expect.objectContaining({ name: "DbError", failure });

/** The error that a write or a read has rejected with. */
async function failureOf(promise: Promise<unknown>): Promise<DbError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof DbError) return error;
    throw new Error(`rejected with something else than a DbError: ${error}`);
  }
  throw new Error("resolved, but should have been rejected");
}

/** The PRAGMAs of the connection that writes are seen by a write that asks for them, those of the reader by a read. */
async function writerPragma(name: string): Promise<unknown> {
  const [rows] = await db.write([{ sql: `PRAGMA ${name}` }]);
  return rows?.[0] && Object.values(rows[0])[0];
}

async function readerPragma(name: string): Promise<unknown> {
  const [row] = await db.read({ sql: `PRAGMA ${name}` });
  return row && Object.values(row)[0];
}

describe("openEmbeddedDb()", () => {
  test.each([
    ["journal_mode", "wal"],
    ["synchronous", 2],
    ["auto_vacuum", 2],
    ["wal_autocheckpoint", 1_000],
    ["busy_timeout", 0],
    ["foreign_keys", 1],
    ["query_only", 0],
    ["mmap_size", 0],
    ["journal_size_limit", 64 * 1024 * 1024],
  ])("gives the writer PRAGMA %s = %p", async (name, value) => {
    expect(await writerPragma(name)).toEqual(value);
  });

  test.each([
    ["journal_mode", "wal"],
    ["query_only", 1],
    ["wal_autocheckpoint", 0],
    ["busy_timeout", 0],
    ["mmap_size", 0],
  ])("gives the reader PRAGMA %s = %p", async (name, value) => {
    expect(await readerPragma(name)).toEqual(value);
  });

  test("makes a file that is WAL and can shrink before it has a table", async () => {
    const fresh = join(folder.path, "fresh.db");
    const opened = await openEmbeddedDb(fresh);
    expect(stockRows(fresh, "PRAGMA auto_vacuum")).toEqual([{ auto_vacuum: 2 }]);
    expect(stockRows(fresh, "PRAGMA journal_mode")).toEqual([{ journal_mode: "wal" }]);
    expect(stockRows(fresh, "SELECT count(*) AS n FROM sqlite_schema")).toEqual([{ n: 0 }]);
    await opened.close();
  });

  test("gives back to the file system what incremental vacuum frees", async () => {
    const shrinking = join(folder.path, "shrinking.db");
    const opened = await openEmbeddedDb(shrinking);
    await migrate(opened);
    await opened.script("CREATE TABLE big (x); INSERT INTO big SELECT zeroblob(4000000);");
    await opened.script("DELETE FROM big;");
    await opened.script("PRAGMA incremental_vacuum;");
    await opened.close();
    expect(statSync(shrinking).size).toBeLessThan(1_000_000);
  });

  test("keeps the settings of a file that is opened again", async () => {
    const twice = join(folder.path, "twice.db");
    await (await openEmbeddedDb(twice)).close();
    const again = await openEmbeddedDb(twice);
    expect(await again.read({ sql: "PRAGMA auto_vacuum" })).toMatchObject([{ auto_vacuum: 2 }]);
    expect(await again.read({ sql: "PRAGMA journal_mode" })).toMatchObject([{ journal_mode: "wal" }]);
    await again.close();
  });

  test("refuses a file that is not a database as rejected and leaves it as it is", async () => {
    const text = join(folder.path, "text.db");
    await Bun.write(text, "this is no database, but somebody's only copy of something ".repeat(100));
    const before = await Bun.file(text).text();
    expect(await failureOf(openEmbeddedDb(text))).toEqual(fails("rejected"));
    expect(await Bun.file(text).text()).toBe(before);
  });

  test("refuses a folder and a path without a folder as a DbError", async () => {
    mkdirSync(join(folder.path, "folder.db"));
    expect((await failureOf(openEmbeddedDb(join(folder.path, "folder.db")))).failure).toBe("rejected");
    expect((await failureOf(openEmbeddedDb(join(folder.path, "no/such/folder.db")))).failure).toBe(
      "rejected",
    );
  });

  test("says busy while another process makes the file", async () => {
    const locked = join(folder.path, "locked.db");
    const other = new OtherProcess(locked);
    await other.run("BEGIN EXCLUSIVE");
    expect((await failureOf(openEmbeddedDb(locked))).failure).toBe("busy");
    await other.run("ROLLBACK");
    await (await openEmbeddedDb(locked)).close();
    await other.end();
  });

  const names = [
    "a b.db",
    "a#b.db",
    "a?b.db",
    "a%b.db",
    "a%20b.db",
    "ü日本.db",
    "a'b\"c.db",
    "a+b&c=d.db",
    "?#%25.db",
  ];
  test.each(names)("opens the file that is named, whatever its name: %s", async (name) => {
    const own = join(folder.path, `names-${names.indexOf(name)}`);
    mkdirSync(own);
    const opened = await openEmbeddedDb(join(own, name));
    await opened.script("CREATE TABLE here (x);");
    expect(readdirSync(own).filter((file) => !/-(wal|shm)$/.test(file))).toEqual([name]);
    expect(await opened.read({ sql: "SELECT name FROM sqlite_schema" })).toMatchObject([{ name: "here" }]);
    await opened.close();
  });
});

describe("EmbeddedDb.write()", () => {
  test("binds whole numbers as INTEGER, others as REAL, null as NULL", async () => {
    const sql =
      "SELECT typeof(:whole) AS w, typeof(:zero) AS z, typeof(:max) AS m, typeof(:half) AS h, typeof(:none) AS n";
    const args = { whole: 7, zero: -0, max: Number.MAX_SAFE_INTEGER, half: 7.5, none: null };
    const types = { w: "integer", z: "integer", m: "integer", h: "real", n: "null" };
    expect((await db.write([{ sql, args }]))[0]).toMatchObject([types]);
    expect(await db.read({ sql, args })).toMatchObject([types]);
  });

  test("stores whole numbers as INTEGER in a column without a type", async () => {
    await db.write([insert(41), insert(2 ** 53 - 1)]);
    const types = await db.read({ sql: "SELECT typeof(x) AS t, x FROM t WHERE x >= 41 ORDER BY x" });
    expect(types).toMatchObject([
      { t: "integer", x: 41 },
      { t: "integer", x: 2 ** 53 - 1 },
    ]);
  });

  test("resolves to the rows of each statement, in order", async () => {
    const results = await db.write([
      { sql: "SELECT 1 AS a UNION ALL SELECT 2" },
      insert("rows"),
      { sql: "DELETE FROM t RETURNING x" },
    ]);
    expect(results.map((rows) => rows.map((row) => Object.values(row)))).toEqual([
      [[1], [2]],
      [],
      [["rows"]],
    ]);
  });

  test("is read at once by the other connection and by stock SQLite", async () => {
    await db.write([insert("seen")]);
    expect(await db.read({ sql: "SELECT x FROM t" })).toMatchObject([{ x: "seen" }]);
    expect(stockRows(path, "SELECT x FROM t")).toEqual([{ x: "seen" }]);
  });

  test("is not seen by a read before it is committed", async () => {
    const write = db.write([insert("half"), insert("whole")]);
    const counts = await Promise.all([count(), count(), count()]);
    await write;
    for (const seen of [...counts, await count()]) expect([0, 2]).toContain(Number(seen));
    expect(await count()).toBe(2);
  });

  test.each([
    ["a constraint", { sql: "INSERT INTO write_lock (n) VALUES (NULL)" }],
    ["malformed JSON", { sql: "INSERT INTO t SELECT value FROM json_each('[1,')" }],
    ["a table that is not there", { sql: "INSERT INTO nowhere VALUES (1)" }],
    ["a type that STRICT refuses", { sql: "INSERT INTO write_lock (n) VALUES ('x')" }],
    ["a number that JavaScript cannot count", { sql: "SELECT 9007199254740993" }],
    ["a value that cannot be bound", { sql: "INSERT INTO t VALUES (:x)", args: { x: Number.NaN } }],
  ])(
    "leaves nothing behind when a statement fails for %s, fifty times in a row",
    async (_, bad: Statement) => {
      for (let round = 0; round < 50; round += 1) {
        expect(await failureOf(db.write([insert("before"), bad, insert("after")]))).toEqual(
          fails("rejected"),
        );
        await db.write([insert(round)]);
      }
      expect(stockRows(path, "SELECT count(*) AS n, min(x) AS low, max(x) AS high FROM t")).toEqual([
        { n: 50, low: 0, high: 49 },
      ]);
    },
  );

  test("rolls back when SQLite has ended the transaction by itself", async () => {
    const rollback = { sql: "INSERT OR ROLLBACK INTO write_lock (n) VALUES (NULL)" };
    expect(await failureOf(db.write([insert("before"), rollback, insert("after")]))).toEqual(
      fails("rejected"),
    );
    expect(await count()).toBe(0);
    await db.write([insert("fine")]);
    expect(stockRows(path, "SELECT x FROM t")).toEqual([{ x: "fine" }]);
  });

  test("says full when the file may not grow, writes nothing and goes on when it may", async () => {
    const max = Number(await writerPragma("max_page_count"));
    const big = { sql: "INSERT INTO t VALUES (zeroblob(1000000))" };
    await db.write([{ sql: "PRAGMA max_page_count = 10" }]); // becomes the pages that there are
    const failure = await failureOf(db.write([insert("small"), big]));
    await db.write([{ sql: `PRAGMA max_page_count = ${max}` }]);
    expect(failure).toEqual(fails("full"));
    expect(await count()).toBe(0);
    await db.write([big]);
    expect(stockRows(path, "SELECT length(x) AS n FROM t")).toEqual([{ n: 1_000_000 }]);
  });

  test("after close() rejects with a DbError", async () => {
    const closed = await openEmbeddedDb(join(folder.path, "closed.db"));
    await closed.close();
    expect(await failureOf(closed.write([{ sql: "SELECT 1" }]))).toBeInstanceOf(DbError);
  });
});

// Stack note 1: after one SQLITE_BUSY a connection of this client can acknowledge writes that are never committed.
describe("EmbeddedDb.write() while another process holds the write lock", () => {
  test("says busy at once, and what it acknowledges afterwards is really committed, twenty times", async () => {
    const other = new OtherProcess(path);
    const acknowledged: number[] = [];
    for (let round = 0; round < 20; round += 1) {
      await other.run("BEGIN IMMEDIATE");
      for (let attempt = 0; attempt < 3; attempt += 1) {
        const startedAtMs = performance.now();
        expect(await failureOf(db.write([insert(-1)]))).toEqual(fails("busy"));
        expect(performance.now() - startedAtMs).toBeLessThan(1_000); // a busy timeout would block the process
      }
      await other.run("COMMIT");
      for (const x of [3 * round, 3 * round + 1, 3 * round + 2]) {
        await db.write([insert(x)]);
        acknowledged.push(x);
      }
      expect(await other.run("SELECT x FROM t ORDER BY x")).toEqual(acknowledged.map((x) => ({ x })));
    }
    expect(stockRows(path, "SELECT x FROM t ORDER BY x")).toEqual(acknowledged.map((x) => ({ x })));
    await other.end();
  });

  test("says busy to a script, leaves nothing of it, and runs it afterwards", async () => {
    const other = new OtherProcess(path);
    await other.run("BEGIN IMMEDIATE");
    expect(await failureOf(db.script("CREATE TABLE late (x);"))).toEqual(fails("busy"));
    await other.run("ROLLBACK");
    expect(await other.run("SELECT name FROM sqlite_schema WHERE name = 'late'")).toEqual([]);
    await db.script("CREATE TABLE late (x);");
    expect(await other.run("SELECT name FROM sqlite_schema WHERE name = 'late'")).toEqual([{ name: "late" }]);
    await db.script("DROP TABLE late;");
    await other.end();
  });

  test("goes on reading", async () => {
    const other = new OtherProcess(path);
    await other.run("BEGIN IMMEDIATE");
    await other.run("INSERT INTO t VALUES ('not yet')");
    expect(await count()).toBe(0);
    await other.run("COMMIT");
    expect(await count()).toBe(1);
    await other.end();
  });

  test("gets the lock back from a process that is killed", async () => {
    const other = new OtherProcess(path);
    await other.run("BEGIN IMMEDIATE");
    await other.run("INSERT INTO t VALUES ('lost')");
    expect(await failureOf(db.write([insert("early")]))).toEqual(fails("busy"));
    await other.kill();
    await db.write([insert("late")]);
    expect(stockRows(path, "SELECT x FROM t")).toEqual([{ x: "late" }]);
  });

  test("wins and loses against writers of the same kind without losing what either was told is written", async () => {
    const second = await database.openSecond();
    const acknowledged = { first: 0, second: 0 };
    const writeMany = async (of: Db, who: "first" | "second") => {
      for (let i = 0; i < 200; i += 1) {
        await of.write([insert(who)]).then(
          () => {
            acknowledged[who] += 1;
          },
          (error: DbError) => expect(error).toEqual(fails("busy")),
        );
      }
    };
    await Promise.all([writeMany(db, "first"), writeMany(second, "second")]);
    expect(acknowledged.first + acknowledged.second).toBeGreaterThan(100);
    const found = stockRows(path, "SELECT x, count(*) AS n FROM t GROUP BY x ORDER BY x");
    expect(found).toEqual(
      Object.entries(acknowledged)
        .filter(([, n]) => n > 0)
        .map(([x, n]) => ({ x, n })),
    );
  });
});

describe("EmbeddedDb.read()", () => {
  const bad: Statement = { sql: "SELECT json(x) FROM t" };

  /** Rows of which the second is no JSON: a read of all of them fails in the middle. */
  async function fillWithBadJson(): Promise<void> {
    await db.write([insert("1"), insert("{"), insert("3")]);
  }

  test("refuses to write", async () => {
    expect(await failureOf(db.read(insert("by a read")))).toEqual(fails("rejected"));
    expect(await count()).toBe(0);
    await db.write([insert("by a write")]); // and has left no lock
    expect(await count()).toBe(1);
  });

  test("that fails in the middle does not pin the reader to an old snapshot, twenty times", async () => {
    await fillWithBadJson();
    for (let round = 1; round <= 20; round += 1) {
      expect(await failureOf(db.read(bad))).toEqual(fails("rejected"));
      await db.write([insert(String(round))]);
      expect(await count()).toBe(3 + round);
    }
  });

  test("that fails leaves a reader with the settings of the first", async () => {
    await fillWithBadJson();
    await failureOf(db.read(bad));
    expect(await readerPragma("query_only")).toBe(1);
    expect(await readerPragma("wal_autocheckpoint")).toBe(0);
  });

  test("that fails does not fail the reads beside it", async () => {
    await fillWithBadJson();
    const outcomes = await Promise.allSettled([db.read(bad), count(), count(), db.read(bad), count()]);
    expect(outcomes.map(({ status }) => status)).toEqual([
      "rejected",
      "fulfilled",
      "fulfilled",
      "rejected",
      "fulfilled",
    ]);
  });

  test("that comes while the reader is being replaced is answered", async () => {
    await fillWithBadJson();
    const failed = failureOf(db.read(bad));
    for (let i = 0; i < 20; i += 1) expect(await count()).toBe(3);
    expect(await failed).toEqual(fails("rejected"));
  });
});

describe("EmbeddedDb.dataVersion()", () => {
  test("changes when another process commits, and only then", async () => {
    const other = new OtherProcess(path);
    const before = await db.dataVersion?.();
    expect(await db.dataVersion?.()).toBe(before);
    await other.run("BEGIN IMMEDIATE");
    await other.run("INSERT INTO t VALUES ('foreign')");
    expect(await db.dataVersion?.()).toBe(before);
    await other.run("COMMIT");
    const after = await db.dataVersion?.();
    expect(after).not.toBe(before);
    expect(await db.dataVersion?.()).toBe(after);
    await other.end();
  });

  test("changes when the own writer commits, not when it fails", async () => {
    const before = await db.dataVersion?.();
    await failureOf(db.write([insert("x"), { sql: "nonsense" }]));
    expect(await db.dataVersion?.()).toBe(before);
    await db.write([insert("x")]);
    expect(await db.dataVersion?.()).not.toBe(before);
  });

  test("tells of a commit although a failing read has replaced the reader in between", async () => {
    const own = await openEmbeddedDb(join(folder.path, "version.db"));
    await own.script("CREATE TABLE write_lock (n); CREATE TABLE t (x);");
    for (let round = 0; round < 5; round += 1) {
      const before = await own.dataVersion?.();
      await own.write([insert(round)]);
      await failureOf(own.read({ sql: "SELECT json('{')" }));
      expect(await own.dataVersion?.()).not.toBe(before);
    }
    await own.close();
  });
});

describe("EmbeddedDb.close()", () => {
  test("opens the file no more: what is asked afterwards is refused", async () => {
    const closing = join(folder.path, "closing-0.db");
    const opened = await openEmbeddedDb(closing);
    await migrate(opened);
    await opened.read({ sql: "SELECT 1" });
    await opened.close();
    expect(await failureOf(opened.read({ sql: "SELECT 1" }))).toBeInstanceOf(DbError);
    expect(await failureOf(opened.dataVersion?.() ?? Promise.resolve())).toBeInstanceOf(DbError);
    expect(await failureOf(opened.script("CREATE TABLE late (x);"))).toBeInstanceOf(DbError);
    expect(stockRows(closing, "SELECT name FROM sqlite_schema WHERE name = 'late'")).toEqual([]);
  });

  test("leaves everything in the one file and nothing in the WAL", async () => {
    const closing = join(folder.path, "closing.db");
    const opened = await openEmbeddedDb(closing);
    await migrate(opened);
    await opened.write([{ sql: "UPDATE sequence SET last = 42" }]);
    expect(statSync(`${closing}-wal`).size).toBeGreaterThan(0);
    await opened.close();
    expect(walBytes(closing)).toBe(0);
    const copy = join(folder.path, "copy.db");
    await Bun.write(copy, Bun.file(closing));
    expect(stockRows(copy, "SELECT last FROM sequence")).toEqual([{ last: 42 }]);
  });

  test("leaves nothing in the WAL after reads and writes that failed", async () => {
    const closing = join(folder.path, "closing-2.db");
    const opened = await openEmbeddedDb(closing);
    await opened.script("CREATE TABLE write_lock (n); CREATE TABLE t (x);");
    await opened.write([insert("1"), insert("{")]);
    for (let round = 0; round < 5; round += 1) {
      await failureOf(opened.read({ sql: "SELECT json(x) FROM t" }));
      await failureOf(opened.write([insert("x"), { sql: "INSERT INTO nowhere VALUES (1)" }]));
      await opened.write([insert(round)]);
    }
    await opened.close();
    expect(walBytes(closing)).toBe(0);
  });

  test("does not fail, nor lose anything, while another connection still reads an old snapshot", async () => {
    const closing = join(folder.path, "closing-3.db");
    const opened = await openEmbeddedDb(closing);
    await opened.script("CREATE TABLE write_lock (n); CREATE TABLE t (x);");
    const reader: Client = createClient({ url: `file:${closing}`, concurrency: 1 });
    const snapshot = await reader.transaction("deferred");
    await snapshot.execute("SELECT * FROM t");
    await opened.write([insert("kept")]);
    await opened.close();
    snapshot.close();
    expect((await reader.execute("SELECT x FROM t")).rows).toMatchObject([{ x: "kept" }]);
    reader.close();
  });
});

function walBytes(databasePath: string): number {
  return statSync(`${databasePath}-wal`, { throwIfNoEntry: false })?.size ?? 0;
}
