// docs/sql.md is held to the database: its tables name every column in order, and each of its blocks is run as it
// stands, beside a server on a file and on sqld.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createClient } from "@libsql/client/web";
import { ERROR_CODES } from "../../src/protocol/codes.ts";
import { WatchedGroup } from "../groups/member.ts";
import { Place } from "../support/cluster.ts";
import { openTestDatabase } from "../support/database.ts";
import { HttpClient } from "../support/http-client.ts";
import { REPOSITORY, startServer, type TestServer, temporaryFolder } from "../support/server.ts";
import { HAS_SQLD, SQLD_SKIPPED } from "../support/sqld.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";
import type { FrameOf } from "../support/stream-client.ts";

setDefaultTimeout(30_000); // where the machine has much else to do

const PAGE = readFileSync(join(REPOSITORY, "docs/sql.md"), "utf8");
const BLOCKS = [...PAGE.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language = "", text = ""]) => ({
  language,
  text,
}));
const run = new Set<string>();

/** The one block of that language with those words in it. */
function block(language: string, words: string): string {
  const found = BLOCKS.filter((each) => each.language === language && each.text.includes(words));
  const [only] = found;
  if (!only || found.length > 1) throw new Error(`${found.length} blocks of ${language} have "${words}"`);
  run.add(only.text);
  return only.text;
}

// ── columns and codes ────────────────────────────────────────────────────────────────────────────────────

describe("docs/sql.md", () => {
  const STABLE =
    "topics partitions records groups members committed_offsets offset_history producers topic_records " +
    "partition_stats consumer_lag group_members commit_history append_record commit_offset";
  const sections = new Map(
    PAGE.split(/^#{2,3} /m).map((section): [string, string] => [
      /^`(\w+)`$/m.exec(section.split("\n")[0] ?? "")?.[1] ?? "",
      section,
    ]),
  );
  let database: Awaited<ReturnType<typeof openTestDatabase>>;
  beforeAll(async () => {
    database = await openTestDatabase();
  });
  afterAll(() => database.close());

  test("has a section for every stable table and view, and no other", () => {
    expect([...sections.keys()].filter((name) => name !== "").sort()).toEqual(STABLE.split(" ").sort());
  });

  test.each(STABLE.split(" "))("names every column of %s, in order", async (name) => {
    const rows = await database.rows(`SELECT name FROM pragma_table_info('${name}')`);
    const named = [...(sections.get(name) ?? "").matchAll(/^\| `(\w+)` \|/gm)].map(([, column]) => column);
    expect(rows.length).toBeGreaterThan(0);
    expect(named).toEqual(rows.map((row) => row.name as string)); // names are text
  });

  test("names every code that the views raise, and no other", async () => {
    const triggers = await database.rows("SELECT sql FROM sqlite_schema WHERE type = 'trigger'");
    const raised = triggers.flatMap(({ sql }) =>
      [...String(sql).matchAll(/RAISE\(ABORT, '(\w+): /g)].map(([, code = ""]) => code),
    );
    const table = PAGE.slice(
      PAGE.indexOf("### What is refused"),
      PAGE.indexOf("### What a connection needs"),
    );
    const named = [...table.matchAll(/^\| `(\w+)` \|/gm)].map(([, code = ""]) => code);
    expect(named.sort()).toEqual([...new Set(raised)].sort());
    expect(raised.filter((code) => !Object.hasOwn(ERROR_CODES, code))).toEqual([]);
    expect(String(triggers.map(({ sql }) => sql)).split("RAISE(").length - 1).toBe(raised.length);
  });
});

// ── blocks ───────────────────────────────────────────────────────────────────────────────────────────────

/** Runs a block in the folder; resolves to what it wrote to standard error where it failed, else to "". */
async function runBlock(folder: string, language: "sh" | "js", text: string, env = {}): Promise<string> {
  const file = join(folder, `block-${run.size}.${language}`);
  writeFileSync(file, text);
  const command = language === "sh" ? ["sh", file] : [process.execPath, file];
  const child = Bun.spawn(command, {
    cwd: folder,
    env: { ...process.env, ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [said, exitCode] = await Promise.all([child.stderr.text(), child.exited]);
  return exitCode === 0 ? "" : said || "failed";
}

const ORDERS = [
  { key: "a", value: { customer: "Ada", total: 12.5 } },
  { key: "o", value: { customer: 'O\'Neill "Ben"', total: 2 } },
  { key: "a", value: { customer: "Ada", total: 30 } },
];
const TOTALS = { Ada: 42.5, 'O\'Neill "Ben"': 2 };

describe("the blocks of docs/sql.md beside a server on a file", () => {
  const folder = temporaryFolder();
  const path = join(folder.path, ".tidemark/tidemark.db");
  let server: TestServer;
  let group: WatchedGroup;
  let accounts: WatchedGroup;
  beforeAll(async () => {
    mkdirSync(join(folder.path, ".tidemark"));
    symlinkSync(join(REPOSITORY, "node_modules"), join(folder.path, "node_modules"));
    server = await startServer(path, { mode: "serve" });
    const http = new HttpClient(server);
    await http.createTopic("orders");
    await http.createTopic("accounts");
    await http.produce("orders", ORDERS);
    group = new WatchedGroup("billing", ["orders"]);
    accounts = new WatchedGroup("accounts", ["accounts"]);
  });
  afterAll(async () => {
    await group[Symbol.asyncDispose]();
    await accounts[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
    folder.remove();
  });

  const totals = () => {
    const text = stockSqlite(path, "SELECT json_group_object(customer, total) FROM totals");
    return JSON.parse(text);
  };

  test("consume into a table: once, and nothing in a stale generation", async () => {
    const text = block("sh", "INSERT INTO commit_offset");
    const member = await group.join(server, { acks: false });
    const frame = await member.until("records");
    const withFrame = (changed: Partial<FrameOf<"records">>) => {
      writeFileSync(join(folder.path, "frame.json"), JSON.stringify({ ...frame, ...changed }));
      return runBlock(folder.path, "sh", text);
    };
    expect(await withFrame({ generation: frame.generation - 1 })).toContain("fenced_generation: ");
    expect(totals()).toEqual({});
    expect(await withFrame({})).toBe("");
    expect(totals()).toEqual(TOTALS);
    expect(await withFrame({})).toContain("conflict: ");
    expect(totals()).toEqual(TOTALS);
    expect(stockSqlite(path, "SELECT committed_offset, lag FROM consumer_lag")).toBe("3|0");
  });

  test("an outbox, with sqlite3 and with @libsql/client: a waiting consumer is sent the records", async () => {
    const member = await accounts.join(server);
    expect(await runBlock(folder.path, "sh", block("sh", "INSERT INTO append_record"))).toBe("");
    const js = block("js", "// libsql-on-a-file.js");
    expect(await runBlock(folder.path, "js", js)).toBe("");
    const values = () => member.frames.flatMap((each) => (each.type === "records" ? each.records : []));
    await accounts.until(() => values().length === 2, "2 records");
    expect(values().map(({ key, value }) => [key, value])).toEqual([
      ["ada", { name: "Ada" }],
      ["linus", { name: "Linus" }],
    ]);
    expect(await runBlock(folder.path, "js", js)).toContain("UNIQUE constraint failed: accounts.id");
    expect(stockSqlite(path, "SELECT id FROM accounts ORDER BY id")).toBe("ada\nlinus");
    expect(stockSqlite(path, "SELECT log_end_offset FROM partition_stats WHERE topic = 'accounts'")).toBe(
      "2",
    );
  });

  test("questions: each has an answer", () => {
    const questions = block("sql", "-- Who lags most?")
      .replace(/^--.*\n/gm, "")
      .split(";")
      .filter((sql) => sql.trim() !== "");
    const rows = questions.map((sql) => stockSqlite(path, sql.trim()).split("\n").filter(Boolean).length);
    // Two groups, whose partitions have owners; two orders of Ada's, two keys, two topics; one start of the group.
    expect(rows).toEqual([2, 0, 2, 2, 2, 1]);
  });
});

if (!HAS_SQLD) console.warn(`the blocks of docs/sql.md on sqld: ${SQLD_SKIPPED}`);

describe.skipIf(!HAS_SQLD)("the blocks of docs/sql.md beside servers on sqld", () => {
  const folder = temporaryFolder();
  let place: Place;
  beforeAll(async () => {
    symlinkSync(join(REPOSITORY, "node_modules"), join(folder.path, "node_modules"));
    place = await Place.start("sqld");
    await place.http(0).createTopic("orders");
    await place.http(0).createTopic("accounts");
  });
  afterAll(async () => {
    await place[Symbol.asyncDispose]();
    folder.remove();
  });

  test("consume into a table, killed again and again: each record once", async () => {
    const file = join(folder.path, "consume.js");
    writeFileSync(file, block("js", "// consume.js"));
    const env = { ...process.env, TURSO_DATABASE_URL: place.database, STREAM_URL: place.server(0).streamUrl };
    const start = () =>
      Bun.spawn([process.execPath, file], { cwd: folder.path, env, stdout: "ignore", stderr: "pipe" });
    const committed = async () => (await place.committedOffsets("billing", "orders"))[0] ?? 0;
    let consumer = start();
    const rounds = 5;
    for (let round = 0; round < rounds; round += 1) {
      const before = await committed();
      for (let n = 0; n < 10; n += 1) await place.http(1).produce("orders", ORDERS);
      while ((await committed()) === before) expect(consumer.exitCode).toBeNull();
      consumer.kill("SIGKILL"); // with frames behind it, and perhaps in the middle of one
      await consumer.exited;
      consumer = start();
    }
    while ((await committed()) < rounds * 10 * ORDERS.length) expect(consumer.exitCode).toBeNull();
    consumer.kill("SIGKILL");
    await consumer.exited;
    expect(await consumer.stderr.text()).toBe("");
    const [row] = await place.sql("SELECT json_group_object(customer, total) FROM totals");
    expect(JSON.parse(row ?? "")).toEqual({ Ada: rounds * 10 * 42.5, 'O\'Neill "Ben"': rounds * 10 * 2 });
  });

  test("an outbox: a waiting consumer is sent the record, and nothing of one that was refused", async () => {
    await using accounts = new WatchedGroup("accounts", ["accounts"]);
    const member = await accounts.join(place.server(1));
    const text = block("js", "// outbox.js");
    const env = { TURSO_DATABASE_URL: place.database };
    expect(await runBlock(folder.path, "js", text, env)).toBe("");
    expect((await member.until("records")).records).toMatchObject([
      { key: "grace", value: { name: "Grace" } },
    ]);
    expect(await runBlock(folder.path, "js", text, env)).toContain("UNIQUE constraint failed: accounts.id");
    const client = createClient({ url: place.database });
    const { rows } = await client.execute(
      "SELECT log_end_offset FROM partition_stats WHERE topic = 'accounts'",
    );
    client.close();
    expect(rows.map((row) => row.log_end_offset)).toEqual([1]);
  });

  test("were all that there are", () => {
    expect(BLOCKS.filter(({ text }) => !run.has(text))).toEqual([]);
  });
});
