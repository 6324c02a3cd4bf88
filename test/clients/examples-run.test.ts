// Every program in examples/ does what its comment says, against a real server. (alerts.ts and event-sourcing.ts, across
// kills and side by side: test/exactly-once/.)

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { HttpClient } from "../support/http-client.ts";
import { HAS_NODE, NODE_SKIPPED } from "../support/node.ts";
import {
  type AnyServer,
  DENO,
  Output,
  type ProcessRuntime,
  REPOSITORY,
  startServer,
  temporaryFolder,
} from "../support/server.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";
import { launchWorker } from "../support/worker.ts";

setDefaultTimeout(60_000); // where the machine has much else to do

const EXAMPLES = join(REPOSITORY, "examples");

const folder = temporaryFolder();
afterAll(() => folder.remove());

let databases = 0;

function startLog() {
  databases += 1;
  return startServer(join(folder.path, `${databases}.db`));
}

/** As the comment of the example says. */
function start(runtime: ProcessRuntime, example: string, ...args: readonly string[]) {
  const command = { bun: [process.execPath], deno: [DENO, "run", "--quiet", "--allow-net"] }[runtime];
  const child = Bun.spawn([...command, join(EXAMPLES, example), ...args], {
    env: { ...process.env, NO_COLOR: "1" },
    cwd: folder.path,
    stdout: "pipe",
    stderr: "pipe",
  });
  return { child, stdout: new Output(child.stdout, child), stderr: new Output(child.stderr, child) };
}

test("there is a test for every example", () => {
  const names = readdirSync(EXAMPLES).filter((name) => name !== "README.md");
  expect(names.toSorted()).toEqual([
    "alerts.ts",
    "cloudflare-worker",
    "event-sourcing.ts",
    "outbox.ts",
    "worker.ts",
  ]);
});

test.each(["bun", "deno"] as const)(
  "worker.ts on %s ships, puts aside what fails, and leaves on SIGTERM",
  async (runtime) => {
    await using server = await startLog();
    const http = new HttpClient(server);
    await http.createTopic("orders", 2);
    await http.createTopic("orders-failed");
    await http.produce("orders", ordersOf([{ total: 12.5 }, { sum: 1 }, { total: 3 }]));
    const { child, stdout, stderr } = start(runtime, "worker.ts", server.url);
    const failed = await http.call("GET", "/v1/topics/orders-failed/partitions/0/records?waitMs=30000");
    expect(failed.body.records).toMatchObject([
      { key: "k1", value: { sum: 1 }, headers: { "tidemark-error": "Error: an order without a total" } },
    ]);
    expect(await stdout.until(/shipped k0 for 12.5\n/)).toBe(true);
    expect(await stdout.until(/shipped k2 for 3\n/)).toBe(true);
    child.kill("SIGTERM");
    expect((await stdout.whole).split("\n")).toEqual([
      "connection: connecting",
      "connection: open",
      ...["shipped k0 for 12.5", "shipped k2 for 3"].toSorted(byPlaceIn(stdout.text)),
      "connection: closed",
      "stopped: 2 shipped, 3 attempts failed",
      "",
    ]);
    expect({ exitCode: child.exitCode, stderr: await stderr.whole }).toEqual({ exitCode: 0, stderr: "" });
    const { body } = await http.call("GET", "/v1/groups/shipping");
    expect(body.members).toEqual([]);
    expect(body.offsets.map(({ lag }: { lag: number }) => lag)).toEqual([0, 0]);
  },
);

/** Partitions are gone through side by side. */
function byPlaceIn(text: string): (a: string, b: string) => number {
  return (a, b) => text.indexOf(a) - text.indexOf(b);
}

function ordersOf(values: readonly object[]): readonly object[] {
  return values.map((value, index) => ({ key: `k${index}`, value }));
}

test("outbox.ts greets every customer once, also where it is killed at any moment", async () => {
  await using server = await startLog();
  const args = [server.url, server.databasePath];
  // Before the first record is consumed; with results that are committed and not acknowledged.
  for (const moment of [/refused/, /greeted/]) {
    const { child, stdout } = start("bun", "outbox.ts", ...args);
    await stdout.until(moment);
    child.kill("SIGKILL");
    await child.exited;
  }
  const { child, stdout, stderr } = start("bun", "outbox.ts", ...args);
  const lines = (await stdout.whole).trimEnd().split("\n");
  expect({ exitCode: child.exitCode, stderr: await stderr.whole }).toEqual({ exitCode: 0, stderr: "" });
  expect(lines[0]).toMatch(/^refused: UNIQUE constraint failed/);
  expect(lines.slice(1).join("\n")).toMatch(/^(greeted \S+(, \S+)*\n?)+$/);

  const rows = (sql: string) => stockSqlite(server.databasePath, sql).split("\n");
  const customers = rows("SELECT id FROM customers ORDER BY id");
  expect(customers.length).toBeGreaterThanOrEqual(3);
  expect(rows("SELECT key FROM topic_records WHERE topic = 'customers' ORDER BY key")).toEqual(customers);
  expect(rows("SELECT customer FROM greetings ORDER BY customer")).toEqual(customers);
  expect(rows("SELECT DISTINCT text FROM greetings ORDER BY text")).toEqual([
    "Hello, Ada",
    "Hello, Grace",
    "Hello, Linus",
  ]);
  expect(rows("SELECT sum(lag) FROM consumer_lag")).toEqual(["0"]);
});

test("event-sourcing.ts runs on Deno as well", async () => {
  await using server = await startLog();
  const { child, stdout, stderr } = start("deno", "event-sourcing.ts", server.url);
  expect(await stdout.whole).toBe("3 of 10 withdrawals of 30 succeeded, 10 is left\n");
  expect({ exitCode: child.exitCode, stderr: await stderr.whole }).toEqual({ exitCode: 0, stderr: "" });
});

test("alerts.ts runs on Deno as well", async () => {
  await using server = await startLog();
  const http = new HttpClient(server);
  await http.createTopic("alerts");
  const records = [6.1, 3.9].map((magnitude) => ({
    value: { id: `q${magnitude}`, magnitude, place: "sea" },
  }));
  await http.call("POST", "/v1/topics/quakes/records", { records });
  const { child } = start("deno", "alerts.ts", server.url);
  const alerts = await http.call("GET", "/v1/topics/alerts/partitions/0/records?waitMs=30000");
  expect(alerts.body.records).toMatchObject([{ key: "q6.1", value: { magnitude: 6.1, place: "sea" } }]);
  child.kill("SIGKILL");
  await child.exited;
});

if (!HAS_NODE) console.warn(`cloudflare-worker: ${NODE_SKIPPED}`);

test.skipIf(!HAS_NODE)("cloudflare-worker in workerd produces what is POSTed", async () => {
  await using server = await startLog();
  await using worker = await launchWorker(await writeExampleWorker("posts"), { TIDEMARK_URL: server.url });
  const posted = await post(worker, { customer: "ada", total: 12.5 });
  expect({ status: posted.status, body: await posted.json() }).toEqual({
    status: 201,
    body: { runs: [{ partition: 0, offset: 0, count: 1 }] },
  });
  expect((await post(worker, { customer: "bob" })).status).toBe(400);
  expect((await fetch(worker.url)).status).toBe(404);
  const { body } = await new HttpClient(server).call("GET", "/v1/topics/orders/partitions/0/records");
  expect(body.records).toMatchObject([{ key: "ada", value: { customer: "ada", total: 12.5 } }]);
});

test.skipIf(!HAS_NODE)(
  "cloudflare-worker counts every order once, killed and started again too",
  async () => {
    await using server = await startLog();
    await new HttpClient(server).produce("orders", ordersOf([{ total: 5 }, { sum: 1 }]));
    const place = await writeExampleWorker("total");
    const wanted = [
      { orders: 3, total: 8 },
      { orders: 4, total: 11 },
    ];
    for (const total of wanted) {
      await using worker = await launchWorker(place, { TIDEMARK_URL: server.url });
      await post(worker, { customer: "ada", total: 3 });
      await untilTotal(worker, total);
    }
  },
);

function post({ url }: AnyServer, order: object): Promise<Response> {
  return fetch(`${url}/orders`, { method: "POST", body: JSON.stringify(order) });
}

/** Returns a folder with its own configuration, without what would make it Node's. */
async function writeExampleWorker(name: string): Promise<string> {
  const example = join(EXAMPLES, "cloudflare-worker");
  const config = Object(Bun.JSONC.parse(await Bun.file(join(example, "wrangler.jsonc")).text()));
  expect(config).not.toHaveProperty("compatibility_flags");
  const place = join(folder.path, name);
  await Bun.write(
    join(place, "wrangler.json"),
    JSON.stringify({ ...config, main: join(example, config.main) }),
  );
  return place;
}

interface Total {
  readonly orders: number;
  readonly total: number;
}

/** Fails by the test's timeout where it never gets there, and at once where it is passed. */
async function untilTotal(worker: AnyServer, wanted: Total): Promise<void> {
  for (;;) {
    const found = (await (await fetch(`${worker.url}/total`)).json()) as Total;
    if (found.orders >= wanted.orders) return expect(found).toEqual(wanted);
    await Bun.sleep(20); // nothing tells of it
  }
}
