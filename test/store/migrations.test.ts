import { Database } from "bun:sqlite";
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import log0001 from "../../migrations/0001_log.sql" with { type: "text" };
import timeIndex0002 from "../../migrations/0002_time_index.sql" with { type: "text" };
import purges0003 from "../../migrations/0003_purges.sql" with { type: "text" };
import { isIdle, planGroup } from "../../src/core/group-plan.ts";
import { type Db, DbError } from "../../src/store/db.ts";
import { openEmbeddedDb } from "../../src/store/embedded.ts";
import { migrate, schemaVersion } from "../../src/store/migrations.ts";
import { OtherProcess, stockRows } from "../support/database.ts";
import { readGroup } from "../support/group-store.ts";
import { temporaryFolder } from "../support/server.ts";
import { versionOneSql } from "../support/version-one.ts";

const folder = temporaryFolder();
afterAll(() => folder.remove());

const STABLE_TABLES = [
  "append_times",
  "assignments",
  "catalog",
  "committed_offsets",
  "compacted_keys",
  "compactions",
  "flushes",
  "group_topics",
  "groups",
  "guard",
  "idle_groups",
  "members",
  "offset_history",
  "partitions",
  "processes",
  "producer_answers",
  "producers",
  "purges",
  "records",
  "sequence",
  "superseded",
  "tidemark_migrations",
  "time_index",
  "topics",
  "trim_steps",
  "upkeep_lease",
  "write_lock",
];
const STABLE_VIEWS = [
  "append_record",
  "clock",
  "commit_history",
  "commit_offset",
  "consumer_lag",
  "group_members",
  "member_leases",
  "partition_stats",
  "record_to_append",
  "text_to_check",
  "topic_records",
];

const LATEST = readdirSync(join(import.meta.dir, "../../migrations")).length;
const ALL_VERSIONS = Array.from({ length: LATEST }, (_, index) => ({ version: index + 1 }));
const ISO_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

let files = 0;

/** A path of its own for each test; the file may be made beforehand by whoever had it before Tidemark. */
function newPath(userSql?: string): string {
  files += 1;
  const path = join(folder.path, `${files}.db`);
  if (userSql !== undefined) {
    const user = new Database(path);
    user.run(userSql);
    user.close(); // before Tidemark opens it: two SQLites in one process would break each other's locks
  }
  return path;
}

const namesOf = (path: string, type: "table" | "view") =>
  stockRows(
    path,
    `SELECT name FROM sqlite_schema WHERE type = '${type}' AND name NOT LIKE 'sqlite_%' ORDER BY name`,
  ).map(({ name }) => String(name));

async function withDb<T>(path: string, use: (db: Db) => Promise<T>): Promise<T> {
  const db = await openEmbeddedDb(path);
  try {
    return await use(db);
  } finally {
    await db.close();
  }
}

async function failureOf(promise: Promise<unknown>): Promise<DbError> {
  const outcome = await promise.then(
    () => "resolved",
    (error: unknown) => error,
  );
  if (outcome instanceof DbError) return outcome;
  throw new Error(`expected a DbError, found ${outcome}`);
}

describe("migrate()", () => {
  test("gives a fresh file every table and view, and its version", async () => {
    const path = newPath();
    await withDb(path, async (db) => {
      expect(await schemaVersion(db)).toBe(0);
      await migrate(db);
      expect(await schemaVersion(db)).toBe(LATEST);
    });
    expect(namesOf(path, "table")).toEqual(STABLE_TABLES);
    expect(namesOf(path, "view")).toEqual(STABLE_VIEWS);
    expect(stockRows(path, "PRAGMA integrity_check")).toEqual([{ integrity_check: "ok" }]);
    expect(stockRows(path, "PRAGMA auto_vacuum")).toEqual([{ auto_vacuum: 2 }]);
  });

  test("gives the counters their one row each", async () => {
    const path = newPath();
    await withDb(path, migrate);
    expect(stockRows(path, "SELECT n FROM write_lock")).toEqual([{ n: 0 }]);
    expect(stockRows(path, "SELECT last FROM sequence")).toEqual([{ last: 0 }]);
    expect(stockRows(path, "SELECT version FROM catalog")).toEqual([{ version: 0 }]);
    expect(stockRows(path, "SELECT count(*) AS n FROM guard")).toEqual([{ n: 0 }]);
  });

  test("makes views that stock SQLite can read while they are empty", async () => {
    const path = newPath();
    await withDb(path, migrate);
    for (const view of STABLE_VIEWS.filter((name) => name !== "clock"))
      expect(stockRows(path, `SELECT * FROM ${view}`)).toEqual([]);
  });

  test("gives a clock of milliseconds since 1970 UTC", async () => {
    const path = newPath();
    await withDb(path, async (db) => {
      await migrate(db);
      const before = Date.now();
      const [row] = await db.read({ sql: "SELECT now_ms, typeof(now_ms) AS type FROM clock" });
      expect(row?.type).toBe("integer");
      expect(row?.now_ms).toBeGreaterThanOrEqual(before);
      expect(row?.now_ms).toBeLessThanOrEqual(Date.now());
    });
  });

  test("does nothing to a file that is migrated", async () => {
    const path = newPath();
    await withDb(path, async (db) => {
      await migrate(db);
      await db.write([{ sql: "UPDATE sequence SET last = 7" }]);
      await migrate(db);
      await migrate(db);
    });
    await withDb(path, migrate);
    expect(stockRows(path, "SELECT last FROM sequence")).toEqual([{ last: 7 }]);
    expect(stockRows(path, "SELECT version FROM tidemark_migrations")).toEqual(ALL_VERSIONS);
  });

  test("says when it was applied", async () => {
    const path = newPath();
    await withDb(path, migrate);
    expect(stockRows(path, "SELECT version, applied_at FROM tidemark_migrations")).toEqual(
      ALL_VERSIONS.map((version) => ({ ...version, applied_at: expect.stringMatching(ISO_TIME) })),
    );
  });

  test("of two servers at once is done once, and both may go on", async () => {
    const path = newPath();
    const [first, second] = [await openEmbeddedDb(path), await openEmbeddedDb(path)];
    await Promise.all([migrate(first), migrate(second)]);
    expect(await schemaVersion(first)).toBe(LATEST);
    expect(await schemaVersion(second)).toBe(LATEST);
    expect(stockRows(path, "SELECT version FROM tidemark_migrations")).toEqual(ALL_VERSIONS);
    expect(stockRows(path, "SELECT last FROM sequence")).toEqual([{ last: 0 }]);
    await first.close();
    await second.close();
  });

  test("of four processes at once is done once, and all of them end well", async () => {
    const path = newPath();
    const children = Array.from({ length: 4 }, () =>
      Bun.spawn([process.execPath, "-e", MIGRATE_IN_A_PROCESS, path], { stderr: "pipe" }),
    );
    expect(await Promise.all(children.map(({ stderr }) => stderr.text()))).toEqual(["", "", "", ""]);
    expect(await Promise.all(children.map(({ exited }) => exited))).toEqual([0, 0, 0, 0]);
    expect(stockRows(path, "SELECT version FROM tidemark_migrations")).toEqual(ALL_VERSIONS);
    expect(stockRows(path, "SELECT last FROM sequence")).toEqual([{ last: 0 }]);
    expect(namesOf(path, "table")).toEqual(STABLE_TABLES);
  });

  test("says busy while another process holds the lock, leaves nothing, and is done afterwards", async () => {
    const path = newPath();
    await withDb(path, async (db) => {
      const other = new OtherProcess(path);
      await other.run("BEGIN IMMEDIATE");
      expect((await failureOf(migrate(db))).failure).toBe("busy");
      await other.run("ROLLBACK");
      expect(await other.run("SELECT name FROM sqlite_schema")).toEqual([]);
      await migrate(db);
      expect(await other.run("SELECT version FROM tidemark_migrations")).toEqual(ALL_VERSIONS);
      await other.end();
    });
  });

  test("leaves tables of the user's own and what is in them", async () => {
    const path = newPath(`
      CREATE TABLE accounts (id INTEGER PRIMARY KEY, name TEXT);
      INSERT INTO accounts VALUES (1, 'Ada'), (2, 'Grace');
      CREATE VIEW names AS SELECT name FROM accounts;`);
    await withDb(path, migrate);
    expect(stockRows(path, "SELECT name FROM names ORDER BY name")).toEqual([
      { name: "Ada" },
      { name: "Grace" },
    ]);
    expect(namesOf(path, "table")).toEqual(["accounts", ...STABLE_TABLES].sort());
    expect(stockRows(path, "SELECT version FROM tidemark_migrations")).toEqual(ALL_VERSIONS);
  });

  // `members` is made in the middle of the migration: what came before it must be gone again.
  test("that fails half way leaves the file as it was, and says why", async () => {
    const path = newPath(
      "CREATE TABLE members (email TEXT); INSERT INTO members VALUES ('ada@example.org');",
    );
    await withDb(path, async (db) => {
      for (let round = 0; round < 3; round += 1) {
        const failure = await failureOf(migrate(db));
        expect(failure.failure).toBe("rejected");
        expect(failure.message).toContain("members");
        expect(await schemaVersion(db)).toBe(0);
      }
    });
    expect(namesOf(path, "table")).toEqual(["members"]);
    expect(namesOf(path, "view")).toEqual([]);
    expect(stockRows(path, "SELECT * FROM members")).toEqual([{ email: "ada@example.org" }]);
  });

  test("that failed is done when what was in its way is gone", async () => {
    const path = newPath("CREATE TABLE members (email TEXT)");
    await withDb(path, async (db) => {
      await failureOf(migrate(db));
      await db.script("DROP TABLE members;");
      await migrate(db);
      expect(await schemaVersion(db)).toBe(LATEST);
    });
    expect(namesOf(path, "table")).toEqual(STABLE_TABLES);
  });

  test("refuses a newer schema, names both versions and changes nothing", async () => {
    const path = newPath();
    await withDb(path, async (db) => {
      await migrate(db);
      await db.write([{ sql: "INSERT INTO tidemark_migrations VALUES (17, 'later')" }]);
      const before = stockRows(path, "SELECT name, sql FROM sqlite_schema");
      const failure = await failureOf(migrate(db));
      expect(failure.failure).toBe("rejected");
      expect(failure.message).toContain(`schema version 17, this server knows ${LATEST}:`);
      expect(stockRows(path, "SELECT name, sql FROM sqlite_schema")).toEqual(before);
    });
    expect(stockRows(path, "SELECT version FROM tidemark_migrations")).toEqual([
      ...ALL_VERSIONS,
      { version: 17 },
    ]);
  });

  test.each([
    ["of another shape", "CREATE TABLE migrations (id INTEGER, name TEXT)"],
    ["with a version that is text", "CREATE TABLE migrations AS SELECT '20240101_init' AS version"],
    ["with a version that this server knows", "CREATE TABLE migrations AS SELECT 1 AS version"],
  ])("does not take a table called migrations %s for its own", async (_, userSql) => {
    const path = newPath(userSql);
    const before = stockRows(path, "SELECT * FROM migrations");
    await withDb(path, async (db) => {
      const outcome = await migrate(db).then(
        () => "migrated",
        (error: unknown) => error,
      );
      if (outcome === "migrated") expect(namesOf(path, "table")).toContain("topics");
      else expect(outcome).toBeInstanceOf(DbError);
    });
    expect(stockRows(path, "SELECT * FROM migrations")).toEqual(before);
  });
});

describe("migrate() of a file of version 1", () => {
  test("keeps its records and indexes their times, block by block", async () => {
    const path = newPath(
      versionOneSql({ partition: 0, timestamps: [...range(1_000), 5_000, ...range(1_500), 9_000] }) +
        versionOneSql({ partition: 1, timestamps: range(1_000) }) +
        versionOneSql({ partition: 2, timestamps: range(999) }),
    );
    await withDb(path, migrate);
    expect(stockRows(path, "SELECT version FROM tidemark_migrations")).toEqual(ALL_VERSIONS);
    expect(stockRows(path, "SELECT * FROM time_index ORDER BY partition_id, offset")).toEqual([
      { partition_id: 1, offset: 1_000, max_timestamp: 999 },
      { partition_id: 1, offset: 2_000, max_timestamp: 5_000 },
      { partition_id: 2, offset: 1_000, max_timestamp: 999 },
    ]);
    expect(stockRows(path, "SELECT count(*) AS n FROM records")).toEqual([{ n: 2_502 + 1_000 + 999 }]);
    expect(namesOf(path, "table")).toEqual(STABLE_TABLES);
  });
});

describe("migrate() of a file of version 3", () => {
  test("keeps groups and their members, who go on as they were until somebody else joins", async () => {
    const path = newPath(`
      CREATE TABLE tidemark_migrations (version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL) STRICT;
      INSERT INTO tidemark_migrations VALUES (1, ''), (2, ''), (3, '');
      ${log0001} ${timeIndex0002} ${purges0003}
      INSERT INTO topics VALUES (1, 'orders', 1, 0);
      INSERT INTO partitions (topic_id, partition, log_end_offset) VALUES (1, 0, 9);
      UPDATE sequence SET last = 2;
      INSERT INTO groups VALUES ('billing', 1, 0);
      INSERT INTO group_topics VALUES ('billing', 'orders', 1, 1);
      INSERT INTO members VALUES ('billing', 'm1', 'tab-7', 1, '["orders"]', 45000, 0, 9000000000000);
      INSERT INTO assignments VALUES ('billing', 1, 'm1', 2);
      INSERT INTO committed_offsets VALUES ('billing', 1, 5, 'five', 0);`);
    const picture = await withDb(path, async (db) => {
      await migrate(db);
      return readGroup(db, "billing", []);
    });
    expect(stockRows(path, "SELECT version FROM tidemark_migrations")).toEqual(ALL_VERSIONS);
    expect(picture).toMatchObject({
      version: 1,
      members: [
        {
          memberId: "m1",
          membership: 1,
          instanceId: "tab-7",
          policies: { missing: "earliest", outOfRange: "earliest" },
        },
      ],
      partitions: [
        {
          committedOffset: 5,
          hasMetadata: true,
          owner: { memberId: "m1", generation: 2, revokeInMs: null, reset: null },
        },
      ],
    });
    expect(isIdle(planGroup(picture, [], { mayExpire: true }))).toBe(true);
    expect(stockRows(path, "SELECT lease_expires_at FROM group_members")).toEqual([
      { lease_expires_at: new Date(9_000_000_000_000).toISOString() },
    ]);
    expect(stockRows(path, "PRAGMA integrity_check")).toEqual([{ integrity_check: "ok" }]);
  });
});

const range = (count: number) => Array.from({ length: count }, (_, index) => index);

const MIGRATE_IN_A_PROCESS = `
  const { openEmbeddedDb } = await import(${JSON.stringify(import.meta.resolve("../../src/store/embedded.ts"))});
  const { migrate } = await import(${JSON.stringify(import.meta.resolve("../../src/store/migrations.ts"))});
  for (;;) {
    let db;
    try {
      db = await openEmbeddedDb(process.argv[1]);
      await migrate(db);
      await db.close();
      break;
    } catch (error) {
      if (error.failure !== "busy") throw error;
      await db?.close();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }`;
