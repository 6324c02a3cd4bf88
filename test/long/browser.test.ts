// The client library in a real browser: a page of another origin than the server's, through a killed server, a lost
// network, and a tab that nobody looks at.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { connect } from "../../clients/typescript/client.ts";
import { CHROMIUM, Chromium, type Tab } from "../support/chromium.ts";
import { describeLong } from "../support/long.ts";
import { FROM_SOURCE } from "../support/program.ts";
import { startServer, type TestServer, temporaryFolder } from "../support/server.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";

const TEST_TIMEOUT_MS = 60_000;
const RECORDS = 2_000;

/** What the page has: a consumer whose journal can be read, and a wait for what is to happen. */
const PAGE_SCRIPT = `
import { connect } from "@tidemark/client";

const journal = [];
const happened = [];
let changed = () => {};
const note = (list, what) => { list.push(what); changed(); };

globalThis.page = {
  journal,
  happened,
  async until(isSo) {
    while (!isSo(this)) await new Promise((resolve) => { changed = resolve; });
    return true;
  },
  start(url, options) {
    this.client = connect({ url });
    this.client.on("status", (status) => note(happened, status));
    globalThis.addEventListener("online", () => note(happened, "page online"));
    document.addEventListener("visibilitychange", () => note(happened, "page " + document.visibilityState));
    this.consumer = this.client.consume("orders", options);
    this.consumer.on("assigned", ({ partitions }) => note(happened, "assigned " + partitions.length));
    this.consumer.on("lost", ({ partition }) => note(happened, "lost " + partition));
    this.consumer.run(({ partition, offset }) => note(journal, partition + "/" + offset)).catch((error) => note(happened, String(error)));
  },
};
`;

describeLong("the client library in Chromium", "needs Chromium", () => {
  const isThere = CHROMIUM !== null;
  if (!isThere) console.warn("skipped: there is no chromium here");

  const folder = temporaryFolder();
  let browser: Chromium;
  let pages: Bun.Server<undefined>;

  beforeAll(async () => {
    if (!isThere) return;
    const script = await bundle(folder.path);
    pages = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: ({ url }) =>
        url.endsWith(".js")
          ? new Response(script, { headers: { "content-type": "text/javascript" } })
          : new Response('<!doctype html><script type="module" src="/page.js"></script>', {
              headers: { "content-type": "text/html" },
            }),
    });
    browser = await Chromium.start();
  }, TEST_TIMEOUT_MS);
  afterAll(async () => {
    await browser?.[Symbol.asyncDispose]();
    await pages?.stop(true);
    folder.remove();
  });

  let names = 0;
  async function startPage(options: { sessionTimeoutMs?: number } = {}) {
    names += 1;
    const databasePath = join(folder.path, `${names}.db`);
    const server = await startServer(databasePath);
    const client = connect({ url: server.url });
    await client.admin.putTopic("orders", { partitionCount: 4 });
    const tab = await browser.open(pages.url.href);
    await tab.evaluate(
      `new Promise((resolve) => { const look = () => globalThis.page ? resolve() : requestAnimationFrame(look); look(); })`,
    );
    await tab.evaluate(
      `page.start(${JSON.stringify(server.url)}, ${JSON.stringify({ group: "g", ...options })})`,
    );
    return { server, client, tab, databasePath };
  }

  const restart = (server: TestServer, databasePath: string) =>
    startServer(databasePath, { port: Number(new URL(server.url).port) });

  test.skipIf(!isThere)(
    "consumes through a killed server: each record once, and the lag is 0",
    async () => {
      const { server, client, tab, databasePath } = await startPage();
      const values = Array.from({ length: RECORDS / 2 }, (_, id) => ({ key: `k${id}`, value: { id } }));
      await client.produce("orders", values);
      await until(tab, "({ journal }) => journal.length >= 300");
      await server.kill("SIGKILL");
      await using _ = await restart(server, databasePath);
      await client.produce("orders", values);
      await until(tab, `({ journal }) => journal.length >= ${RECORDS}`);
      await tab.evaluate("page.consumer.close()");
      const journal = await tab.evaluate<readonly string[]>("page.journal");
      expect(new Set(journal).size).toBe(RECORDS);
      expect(journal).toHaveLength(RECORDS);
      expect(stockSqlite(databasePath, "SELECT sum(lag), count(*) FROM consumer_lag")).toBe("0|4");
      // Over HTTP too, from the page's own origin: the server says that it may read the answer.
      expect(await tab.evaluate<number>("page.client.admin.topics().then((topics) => topics.length)")).toBe(
        1,
      );
      await tab.evaluate("page.client.close()");
      await client.close();
    },
    TEST_TIMEOUT_MS,
  );

  test.skipIf(!isThere)(
    "connects at once when the machine is online again",
    async () => {
      const { server, tab, databasePath, client } = await startPage();
      await until(tab, '({ happened }) => happened.includes("open")');
      await tab.setOffline(true);
      await server.kill("SIGKILL");
      await until(tab, '({ happened }) => happened.filter((what) => what === "waiting").length >= 4'); // pauses are long now
      await using _ = await restart(server, databasePath);
      await tab.evaluate("page.happened.length = 0");
      await tab.setOffline(false);
      await until(tab, '({ happened }) => happened.includes("open")');
      const happened = await tab.evaluate<readonly string[]>("page.happened");
      // Where the pause was over by itself just then, there is an attempt before the event.
      expect(happened.slice(happened.indexOf("page online")).slice(0, 3)).toEqual([
        "page online",
        "connecting",
        "open",
      ]);
      await client.close();
    },
    TEST_TIMEOUT_MS,
  );

  test.skipIf(!isThere)(
    "a tab that nobody looks at answers pings, keeps its partitions and goes on",
    async () => {
      const { server, tab, client } = await startPage({ sessionTimeoutMs: 6_000 });
      await using _ = server;
      await until(tab, '({ happened }) => happened.includes("open")');
      await until(tab, '({ happened }) => happened.includes("assigned 4")');
      const generations = "page.consumer.partitions.map(({ generation }) => generation).join()";
      const before = await tab.evaluate<string>(generations);
      await (await browser.open("about:blank")).show();
      await until(tab, '({ happened }) => happened.includes("page hidden")');
      await Bun.sleep(3 * 6_000); // as long as three sessions: what is silent for one is out
      await client.produce("orders", { value: "behind" });
      await until(tab, "({ journal }) => journal.length === 1");
      expect(await tab.evaluate<string>(generations)).toBe(before);
      await tab.show();
      await until(tab, '({ happened }) => happened.includes("page visible")');
      expect(await tab.evaluate<readonly string[]>("page.happened")).not.toContain("waiting");
      await client.close();
    },
    TEST_TIMEOUT_MS,
  );
});

async function bundle(place: string): Promise<string> {
  const entry = join(place, "page.ts");
  await Bun.write(entry, PAGE_SCRIPT);
  await Bun.write(join(place, "tsconfig.json"), JSON.stringify({ compilerOptions: FROM_SOURCE }));
  const { outputs } = await Bun.build({ entrypoints: [entry], target: "browser", minify: true });
  return (await outputs[0]?.text()) ?? "";
}

async function until(tab: Tab, isSo: string): Promise<void> {
  await tab.evaluate(`page.until(${isSo})`);
}
