// The server's own command as a process, on one runtime or the other: what it prints, what it refuses to start on, and
// what its end leaves behind.

import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { isLongRun } from "../support/long.ts";
import { sendRaw } from "../support/raw-http.ts";
import {
  type ProcessRuntime,
  refusedServer as refuseServer,
  type ServerOptions,
  startServer as start,
  type TestServer,
  temporaryFolder,
} from "../support/server.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";
import { StreamClient } from "../support/stream-client.ts";
import { versionOneSql } from "../support/version-one.ts";

const STOP_MS_MAX = 5_000;
const NOBODY = 65_534;
const isRoot = process.getuid?.() === 0;

function produce({ url }: TestServer, topic: string, records: readonly unknown[]): Promise<Response> {
  return fetch(`${url}/v1/topics/${topic}/records`, { method: "POST", body: JSON.stringify({ records }) });
}

async function produceValues(server: TestServer, topic: string, count: number): Promise<void> {
  const records = Array.from({ length: count }, (_, n) => ({ value: n, partition: 0 }));
  expect((await produce(server, topic, records)).status).toBe(200);
}

/** Exit code and one line for the person at the terminal: no stack, no source. */
function messageOf({ exitCode, stderr, stdout }: Awaited<ReturnType<typeof refuseServer>>): string {
  expect({ exitCode, stdout, lines: stderr.split("\n").length, stderr }).toEqual({
    exitCode: 2,
    stdout: "",
    lines: 2,
    stderr: expect.stringMatching(/^tidemark: .*\n$/),
  });
  return stderr;
}

async function runInBash(line: string): Promise<string> {
  const child = Bun.spawn(["bash", "-c", line], { stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, exitCode] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  if (exitCode !== 0) throw new Error(`${line}: exit ${exitCode}, ${stderr}`);
  return stdout;
}

export function testServerProcess(runtime: ProcessRuntime): void {
  const startServer = (path: string, options?: ServerOptions) => start(path, { runtime, ...options });
  // The code is the same as Bun's.
  const isWhole = runtime === "bun" || isLongRun;
  const describeShared = isWhole ? describe : describe.skip;
  if (!isWhole)
    console.warn(
      "what Deno shares with Bun: skipped, because it takes as long again. TIDEMARK_LONG=1 runs it.",
    );
  const refusedServer = (path: string, options?: ServerOptions) =>
    refuseServer(path, { runtime, ...options });

  describe("the announcement", () => {
    const commands = ["bash", "curl", "sqlite3"].filter((name) => Bun.which(name) === null);

    test.skipIf(commands.length > 0)("of dev ends with three lines that work when pasted", async () => {
      using folder = temporaryFolder();
      const databasePath = join(folder.path, `it's "a" $HOME \\ folder`, "t.db");
      await using server = await startServer(databasePath);
      const lines = server.announcement.split("\n");
      expect(lines).toHaveLength(5);
      const [ready = "", curl = "", wscat = "", sqlite3 = "", rest] = lines;
      expect(ready).toBe(`tidemark ready url=${server.url} db=file:${databasePath} pid=${server.pid}`);
      expect(ready).toMatch(/ url=http:\/\/127\.0\.0\.1:\d+ /);
      expect(rest).toBe("");

      expect(curl).toStartWith("curl ");
      expect(JSON.parse(await runInBash(curl))).toEqual({ runs: [{ partition: 0, offset: 0, count: 1 }] });

      const [, streamUrl = ""] = wscat.match(/^npx -y wscat@6 -c '(ws:[^']+)'$/) ?? [];
      const client = await StreamClient.open(streamUrl);
      await client.expect("subscribed");
      await client.expect("assigned");
      const frame = await client.expect("records");
      expect(frame.records).toMatchObject([{ offset: 0, key: "u1", value: { hello: "world" } }]);

      expect(sqlite3).toStartWith("sqlite3 ");
      expect(await runInBash(sqlite3)).toStartWith("demo|demo|0|0|0|1|1|");
      await client.close();
    });

    test("of serve is one line", async () => {
      using folder = temporaryFolder();
      await using server = await startServer(join(folder.path, "t.db"), { mode: "serve" });
      expect(server.announcement).toMatch(/^tidemark ready url=\S+ db=\S+ pid=\d+\n$/);
    });

    test("names the process that is to be signalled", async () => {
      using folder = temporaryFolder();
      await using server = await startServer(join(folder.path, "t.db"));
      expect(readFileSync(`/proc/${server.pid}/cmdline`, "utf8")).toContain(`runtimes/${runtime}.ts`);
    });

    test.each(["0.0.0.0", "::"])(
      "is a URL that works on this machine, where it listens on all of %s",
      async (host) => {
        using folder = temporaryFolder();
        const flags = ["--host", host, "--without-credentials"];
        await using server = await startServer(join(folder.path, "t.db"), { flags });
        expect(new URL(server.url).hostname).not.toBe(
          new URL(`http://${host === "::" ? "[::]" : host}`).hostname,
        );
        await produceValues(server, "orders", 1);
      },
    );

    test("is a URL that works on the IPv6 loopback too", async () => {
      if (!(await canListen("::1"))) return;
      using folder = temporaryFolder();
      await using server = await startServer(join(folder.path, "t.db"), { flags: ["--host", "::1"] });
      expect(server.url).toStartWith("http://[::1]:");
      expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
    });
  });

  function canListen(host: string): Promise<boolean> {
    return new Promise((resolve) => {
      const probe = createServer();
      probe.once("error", () => resolve(false));
      probe.listen(0, host, () => probe.close(() => resolve(true)));
    });
  }

  describeShared("a server starts", () => {
    test("in a folder that is not there yet", async () => {
      using folder = temporaryFolder();
      await using server = await startServer("./new/deep/t.db", { cwd: folder.path });
      expect((await fetch(`${server.url}/readyz`)).status).toBe(200);
      expect(existsSync(join(folder.path, "new/deep/t.db"))).toBe(true);
    });

    test("on an empty file", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      writeFileSync(path, "");
      await using server = await startServer(path);
      await produceValues(server, "orders", 1);
    });

    test("on its file again, with everything that was in it", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      const first = await startServer(path);
      await produceValues(first, "orders", 3);
      await first.kill("SIGTERM");
      await using second = await startServer(path, { mode: "serve" });
      expect(await (await fetch(`${second.url}/v1/topics`)).json()).toMatchObject({
        topics: [{ topic: "orders", topicId: 1, partitionCount: 1 }],
      });
      expect(await (await produce(second, "orders", [{ value: 3 }])).json()).toEqual({
        runs: [{ partition: 0, offset: 3, count: 1 }],
      });
    });

    test("on a file of schema version 1, upgrades it, and finds its records by their times", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      const file = new Database(path);
      const timestamps = Array.from({ length: 2_500 }, (_, offset) => offset * 10);
      file.run("PRAGMA auto_vacuum = 2");
      file.run("PRAGMA journal_mode = WAL");
      file.run(versionOneSql({ partition: 0, timestamps }));
      file.close();
      await using server = await startServer(path);
      expect(await (await fetch(`${server.url}/readyz`)).json()).toMatchObject({ schemaVersion: 7 });
      const url = `${server.url}/v1/topics/orders/partitions/0/records`;
      expect(await (await fetch(`${url}?from=@15001&limit=1`)).json()).toMatchObject({
        records: [{ offset: 1_501, timestamp: 15_010, value: 1_501 }],
        next: 1_502,
        logEndOffset: 2_500,
      });
      await produceValues(server, "orders", 1);
      expect(await (await fetch(`${url}?from=@25000`)).json()).toMatchObject({
        records: [{ offset: 2_500 }],
      });
    });

    test("on a database that has tables of its user's own, and leaves them alone", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      stockSqlite(path, "CREATE TABLE mine (n); INSERT INTO mine VALUES (7);");
      await using server = await startServer(path);
      await produceValues(server, "orders", 1);
      expect(stockSqlite(path, "SELECT n FROM mine")).toBe("7");
    });
  });

  describeShared("a server refuses to start", () => {
    test("on a file that another server has open, and gets it right after a kill -9", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      const first = await startServer(path);
      await produceValues(first, "orders", 1);
      const message = messageOf(await refusedServer(path, { mode: "serve" }));
      expect(message).toContain(`another tidemark server has ${path} open`);
      expect(message).toContain("stop it, or give this one a file of its own with --db file:PATH");
      await produceValues(first, "orders", 1);

      await first.kill("SIGKILL");
      await using second = await startServer(path);
      await produceValues(second, "orders", 1);
      expect(stockSqlite(path, "SELECT log_end_offset FROM partition_stats")).toBe("3");
    });

    test("on a file that another server has open under another name", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      await using first = await startServer(path);
      mkdirSync(join(folder.path, "elsewhere"));
      symlinkSync(path, join(folder.path, "elsewhere/symbolic.db"));
      symlinkSync(folder.path, join(folder.path, "elsewhere/folder"));
      await produceValues(first, "orders", 1);
      for (const alias of ["elsewhere/../t.db", "elsewhere/folder/t.db", "elsewhere/symbolic.db"])
        expect(messageOf(await refusedServer(join(folder.path, alias)))).toContain(
          "another tidemark server has",
        );
    });

    test("on a file that has another name, whether or not a server has it open under that", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      const linked = join(folder.path, "linked.db");
      const first = await startServer(path);
      await produceValues(first, "orders", 1);
      linkSync(path, linked);
      const message = messageOf(await refusedServer(linked));
      expect(message).toContain(`${linked} has 2 names (hard links)`);
      expect(message).toContain("remove the other names, or start on a copy");
      await produceValues(first, "orders", 1);
      await first.kill("SIGKILL");
      expect(messageOf(await refusedServer(path))).toContain(`${path} has 2 names`);
      rmSync(linked);
      await using second = await startServer(path);
      await produceValues(second, "orders", 1);
      expect(stockSqlite(path, "SELECT log_end_offset FROM partition_stats")).toBe("3");
    });

    test("on a schema that is newer than it knows", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      await (await startServer(path)).kill("SIGTERM");
      stockSqlite(path, "INSERT INTO tidemark_migrations VALUES (99, '2030-01-01T00:00:00.000Z')");
      const before = stockSqlite(path, ".dump");
      const message = messageOf(await refusedServer(path));
      expect(message).toMatch(/cannot open .*: The database has schema version 99, this server knows \d+:/);
      expect(message).toContain("start a newer tidemark");
      expect(stockSqlite(path, ".dump")).toBe(before);
    });

    test("on a file that is not a database, and leaves it and its folder as they were", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "notes.txt");
      const text = "These are notes, not a database. ".repeat(100);
      writeFileSync(path, text);
      const message = messageOf(await refusedServer(path));
      expect(message).toContain(`${path} is not a SQLite database: give another file with --db file:PATH`);
      expect(readFileSync(path, "utf8")).toBe(text);
    });

    test("on a database that is damaged", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      await (await startServer(path)).kill("SIGTERM");
      const bytes = readFileSync(path);
      writeFileSync(path, bytes.fill(0xa5, 100, 8_192));
      expect(messageOf(await refusedServer(path))).toContain(path);
    });

    test("on a folder", async () => {
      using folder = temporaryFolder();
      expect(messageOf(await refusedServer(folder.path))).toContain(`cannot open ${folder.path}`);
    });

    test("in a folder that cannot be made", async () => {
      using folder = temporaryFolder();
      writeFileSync(join(folder.path, "file"), "");
      const path = join(folder.path, "file/t.db");
      expect(messageOf(await refusedServer(path))).toContain(`cannot write in the folder of ${path}`);
    });

    test("on a file that nobody may write, also as root", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      await (await startServer(path)).kill("SIGTERM");
      chmodSync(path, 0o444);
      const message = messageOf(await refusedServer(path));
      expect(message).toContain(`${path} is read-only: make it writable (chmod u+w), or give another file`);
    });

    const asNobody = ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"];
    const canBeNobody =
      isRoot &&
      Bun.which("setpriv") !== null &&
      Bun.spawnSync([...asNobody, process.execPath, "--version"]).exitCode === 0;

    test.skipIf(!canBeNobody)("on a file of another user", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      await (await startServer(path)).kill("SIGTERM");
      chmodSync(folder.path, 0o777);
      const message = messageOf(await refusedServer(path, { prefix: asNobody }));
      expect(message).toContain(`${path} is read-only`);
    });

    test.skipIf(!canBeNobody)("in a folder of another user", async () => {
      using folder = temporaryFolder();
      chmodSync(folder.path, 0o755);
      const path = join(folder.path, "t.db");
      const message = messageOf(await refusedServer(path, { prefix: asNobody }));
      expect(message).toContain(`cannot write in the folder of ${path}`);
    });

    test("on a port that is in use, says which, and lets go of its file", async () => {
      using folder = temporaryFolder();
      await using first = await startServer(join(folder.path, "first.db"));
      const { port } = new URL(first.url);
      const path = join(folder.path, "second.db");
      const message = messageOf(await refusedServer(path, { flags: ["--port", port] }));
      expect(message).toContain(`port ${port}`);
      expect(message).toContain("in use");
      expect(message).toContain("--port");
      await using second = await startServer(path);
      expect(second.url).not.toBe(first.url);
    });

    test("while another program holds the write lock, and says so after the write deadline", async () => {
      if (!isLongRun)
        return console.warn("a held lock at start: skipped, because it takes 15 s. TIDEMARK_LONG=1 runs it.");
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      await (await startServer(path)).kill("SIGTERM");
      const holder = Bun.spawn([process.execPath, join(import.meta.dir, "../support/lock-holder.ts"), path], {
        stdin: "pipe",
        stdout: "pipe",
      });
      holder.stdin.write("40000\n");
      holder.stdin.flush();
      await holder.stdout.getReader().read();
      expect(messageOf(await refusedServer(path))).toContain("another program holds the write lock of");
      holder.kill();
    }, 60_000);

    test("on a public address", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      const message = messageOf(await refusedServer(path, { mode: "serve", env: { HOST: "0.0.0.0" } }));
      expect(message).toContain("refused to listen on 0.0.0.0");
      expect(existsSync(path)).toBe(false);
    });
  });

  describe("SIGTERM", () => {
    test.each(["SIGTERM", "SIGINT"] as const)(
      "(%s) tells every client to come back and exits with 0",
      async (signal) => {
        using folder = temporaryFolder();
        await using server = await startServer(join(folder.path, "t.db"));
        const consumer = await StreamClient.open(`${server.streamUrl}?topic=orders&group=billing`);
        const silent = await StreamClient.open(server.streamUrl);
        await consumer.expect("subscribed");
        await consumer.expect("assigned");
        const startedAtMs = performance.now();
        const exitCode = server.kill(signal);
        for (const client of [consumer, silent]) {
          expect(await client.expect("draining")).toEqual({ type: "draining", retryAfterMs: 500 });
          expect(await client.closed()).toMatchObject({ code: 4000 });
        }
        expect(await exitCode).toBe(0);
        expect(performance.now() - startedAtMs).toBeLessThan(STOP_MS_MAX);
      },
    );

    test("keeps every produce and ack that was acknowledged, in the one file", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      await using server = await startServer(path);
      await produceValues(server, "acked", 2_000);
      const consumer = await StreamClient.open(`${server.streamUrl}?topic=acked&group=billing`);
      const ackedOffset = ackAll(consumer);
      const acknowledged: number[] = [];
      const statuses = new Set<number>();
      const reached = Promise.withResolvers<void>();
      let value = 0;
      const runLane = async () => {
        for (;;) {
          value += 1;
          const sent = value;
          const response = await produce(server, "orders", [{ value: sent }]).catch(() => undefined);
          if (!response) return; // the connection was closed: it may or may not have been written
          statuses.add(response.status);
          if (response.status === 200) acknowledged.push(sent);
          if (acknowledged.length === 100) reached.resolve();
        }
      };
      const lanes = Array.from({ length: 8 }, runLane);
      await reached.promise;
      expect(await server.kill("SIGTERM")).toBe(0);
      await Promise.all(lanes);

      expect([...statuses].filter((status) => status !== 200 && status !== 503)).toEqual([]);
      // A copy of the one file is a backup: nothing is left in the WAL.
      const copy = join(folder.path, "copy.db");
      copyFileSync(path, copy);
      const stored = stockSqlite(copy, "SELECT value FROM topic_records WHERE topic = 'orders'").split("\n");
      expect(acknowledged.filter((sent) => !stored.includes(String(sent)))).toEqual([]);
      const committed = stockSqlite(copy, "SELECT committed_offset FROM consumer_lag WHERE topic = 'acked'");
      expect(Number(committed)).toBeGreaterThanOrEqual(await ackedOffset);
    });

    test("answers a long-poll that waits, with what is there", async () => {
      using folder = temporaryFolder();
      await using server = await startServer(join(folder.path, "t.db"));
      await produceValues(server, "orders", 1);
      const url = `${server.url}/v1/topics/orders/partitions/0/records`;
      const waiting = fetch(`${url}?from=latest&waitMs=30000`);
      // What is written later is answered later: the poll waits by then.
      for (let round = 0; round < 5; round += 1) expect((await fetch(url)).status).toBe(200);
      const startedAtMs = performance.now();
      expect(await server.kill("SIGTERM")).toBe(0);
      expect(performance.now() - startedAtMs).toBeLessThan(STOP_MS_MAX);
      const answer = await waiting;
      expect({ status: answer.status, body: await answer.json() }).toEqual({
        status: 200,
        body: { topicId: 1, records: [], next: 1, logStartOffset: 0, logEndOffset: 1 },
      });
    });

    test("is not held up by a request that never ends", async () => {
      using folder = temporaryFolder();
      await using server = await startServer(join(folder.path, "t.db"));
      const head = ["POST /v1/topics/orders/records HTTP/1.1", "Content-Length: 1000"];
      const stuck = sendRaw(server.url, head, "{").then(
        ({ status }) => `answered ${status}`,
        (error: Error) => error.message,
      );
      await produceValues(server, "orders", 1);
      expect(await server.kill("SIGTERM")).toBe(0);
      expect(await stuck).toMatch(/no answer|ECONNRESET|answered 400/);
    });
  });

  /** One ack a frame, until the server goes. Resolves to the last offset that it called durable. */
  async function ackAll(consumer: StreamClient): Promise<number> {
    let acked = 0;
    for (;;) {
      const frame = await consumer.next().catch(() => undefined);
      if (frame === undefined) return acked;
      if (frame.type === "acked") acked = frame.offsets[0]?.offset ?? acked;
      if (frame.type !== "records") continue;
      const { topic, partition, generation, next } = frame;
      consumer.send({ type: "ack", offsets: [{ topic, partition, generation, offset: next }] });
    }
  }

  describe("kill -9 and a restart", () => {
    test("end the memberships that are found: the group is served at once, from its committed offsets", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      const first = await startServer(path);
      await produceValues(first, "orders", 10);
      const before = await StreamClient.open(`${first.streamUrl}?topic=orders&group=billing`);
      const { memberId } = await before.expect("subscribed");
      const generation = (await before.expect("assigned")).partitions[0]?.generation ?? 0;
      await before.expect("records");
      before.send({
        type: "ack",
        offsets: [{ topic: "orders", partition: 0, generation, offset: 4, metadata: "m" }],
      });
      expect((await before.expect("acked")).offsets).toEqual([{ topic: "orders", partition: 0, offset: 4 }]);
      await first.kill("SIGKILL");
      expect(stockSqlite(path, "SELECT member_id FROM group_members")).toBe(memberId ?? "none");

      await using second = await startServer(path);
      expect(stockSqlite(path, "SELECT count(*) FROM group_members")).toBe("0");
      const after = await StreamClient.open(`${second.streamUrl}?topic=orders&group=billing`);
      expect((await after.expect("subscribed")).memberId).not.toBe(memberId);
      const [assigned] = (await after.expect("assigned")).partitions;
      expect(assigned).toMatchObject({ position: 4, committedOffset: 4, logEndOffset: 10, metadata: "m" });
      expect(assigned?.generation).toBeGreaterThan(generation);
      expect((await after.expect("records")).records[0]).toMatchObject({ offset: 4, value: 4 });
      after.send({ type: "ack", id: 1, offsets: [{ topic: "orders", partition: 0, generation, offset: 9 }] });
      expect((await after.expect("acked")).offsets).toEqual([
        { topic: "orders", partition: 0, offset: 4, code: "fenced_generation" },
      ]);
    });

    test("leave a static member in its place until the same instanceId takes it over", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "t.db");
      const first = await startServer(path);
      await produceValues(first, "orders", 10);
      const before = await StreamClient.open(
        `${first.streamUrl}?topic=orders&group=billing&instanceId=tab-7`,
      );
      await before.expect("subscribed");
      const generation = (await before.expect("assigned")).partitions[0]?.generation ?? 0;
      await before.expect("records");
      before.send({ type: "ack", offsets: [{ topic: "orders", partition: 0, generation, offset: 6 }] });
      await before.expect("acked");
      await first.kill("SIGKILL");

      await using second = await startServer(path);
      expect(stockSqlite(path, "SELECT instance_id, partitions FROM group_members")).toBe(
        `tab-7|[{"topic":"orders","partition":0,"generation":${generation}}]`,
      );
      const stranger = await StreamClient.open(
        `${second.streamUrl}?topic=orders&group=billing&instanceId=tab-8`,
      );
      await stranger.expect("subscribed");
      expect((await stranger.expect("assigned")).partitions).toEqual([]); // its place is kept
      const after = await StreamClient.open(
        `${second.streamUrl}?topic=orders&group=billing&instanceId=tab-7`,
      );
      await after.expect("subscribed");
      const [assigned] = (await after.expect("assigned")).partitions;
      expect(assigned).toMatchObject({ position: 6, committedOffset: 6 });
      expect(assigned?.generation).toBeGreaterThan(generation);
      expect((await after.expect("records")).records[0]).toMatchObject({ offset: 6, value: 6 });
      expect(stockSqlite(path, "SELECT count(*) FROM group_members")).toBe("2");
      expect(await stranger.untilAnswered()).toEqual([]);
    });
  });

  describeShared("an Origin", () => {
    function handshake(server: TestServer, headers: readonly string[]) {
      return sendRaw(server.url, [
        "GET /v1/stream HTTP/1.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ...headers,
      ]);
    }

    const FOREIGN = [
      "https://evil.example",
      "null",
      "file://",
      "http://localhost.evil.example",
      "http://127.0.0.1.evil.example:4500",
      "http://evil.example#127.0.0.1",
      "not an origin",
      "",
    ];
    const LOOPBACK = [
      "http://localhost:5173",
      "http://127.0.0.1:3000",
      "https://localhost",
      "http://[::1]:8080",
    ];

    test("that is foreign is refused before the upgrade, in dev and in serve", async () => {
      using folder = temporaryFolder();
      for (const mode of ["dev", "serve"] as const) {
        await using server = await startServer(join(folder.path, `${mode}.db`), { mode });
        for (const origin of FOREIGN) {
          const answer = await handshake(server, [`Origin: ${origin}`]);
          expect({ origin, mode, status: answer.status }).toEqual({ origin, mode, status: 403 });
          expect(answer.headers.get("content-type")).toBe("application/problem+json");
          expect(JSON.parse(answer.body)).toMatchObject({ code: "forbidden", retriable: false });
        }
      }
    });

    test("that is foreign is refused on every route of the log, and nothing is written", async () => {
      using folder = temporaryFolder();
      await using server = await startServer(join(folder.path, "t.db"));
      const origin = { origin: "https://evil.example" };
      const requests: readonly [path: string, init: RequestInit][] = [
        ["/v1/topics", {}],
        ["/v1/topics/orders", {}],
        ["/v1/topics/orders", { method: "PUT" }],
        ["/v1/topics/orders/records", { method: "POST", body: '{"records":[{"value":1}]}' }],
        ["/v1/nothing", {}],
      ];
      for (const [path, init] of requests)
        expect((await fetch(server.url + path, { ...init, headers: origin })).status).toBe(403);
      expect(await (await fetch(`${server.url}/v1/topics`)).json()).toEqual({ topics: [] });
    });

    test("on this machine is allowed in dev and not in serve", async () => {
      using folder = temporaryFolder();
      await using dev = await startServer(join(folder.path, "dev.db"));
      await using serve = await startServer(join(folder.path, "serve.db"), { mode: "serve" });
      for (const origin of LOOPBACK) {
        const statuses = [dev, serve].map(
          async (server) => (await handshake(server, [`Origin: ${origin}`])).status,
        );
        expect({ origin, statuses: await Promise.all(statuses) }).toEqual({ origin, statuses: [101, 403] });
      }
    });

    test("of the server itself, one on the list, and none at all are allowed", async () => {
      using folder = temporaryFolder();
      await using server = await startServer(join(folder.path, "t.db"), {
        mode: "serve",
        flags: ["--allow-origin", "https://app.example,http://other.example:81"],
      });
      for (const headers of [
        [],
        [`Origin: ${server.url}`],
        ["Origin: https://app.example"],
        ["Origin: http://other.example:81"],
        ["Host: app.example", "Origin: https://app.example"],
      ]) {
        expect({ headers, status: (await handshake(server, headers)).status }).toEqual({
          headers,
          status: 101,
        });
      }
      for (const origin of ["http://app.example", "https://app.example:444", "http://other.example"])
        expect((await handshake(server, [`Origin: ${origin}`])).status).toBe(403);
    });

    test("of a foreign name that resolves to this machine is refused, in dev and in serve", async () => {
      // DNS rebinding: the page of evil.example asks evil.example:PORT, which now is 127.0.0.1.
      using folder = temporaryFolder();
      for (const mode of ["dev", "serve"] as const) {
        await using server = await startServer(join(folder.path, `${mode}.db`), { mode });
        const { port } = new URL(server.url);
        const headers = [`Host: evil.example:${port}`, `Origin: http://evil.example:${port}`];
        expect((await handshake(server, headers)).status).toBe(403);
        // What a page reads from its own host carries no Origin.
        const [read, own] = [`evil.example:${port}`, `localhost:${port}`].map((host) =>
          sendRaw(server.url, ["GET /v1/topics HTTP/1.1", `Host: ${host}`]),
        );
        expect((await read)?.status).toBe(403);
        expect((await own)?.status).toBe(200);
      }
    });
  });

  describeShared("topics come into being on first use", () => {
    async function firstUses(server: TestServer) {
      const produced = await produce(server, "produced", [{ value: 1 }]);
      const client = await StreamClient.open(`${server.streamUrl}?topic=subscribed&group=g`);
      const answer = await client.next();
      await client.close();
      return { produced, answer };
    }

    test.each([
      ["in dev", { mode: "dev" }],
      ["in serve with --auto-create", { mode: "serve", flags: ["--auto-create"] }],
      ["in serve with TIDEMARK_AUTO_CREATE", { mode: "serve", env: { TIDEMARK_AUTO_CREATE: "1" } }],
    ] as const)("%s, with one partition", async (_, options) => {
      using folder = temporaryFolder();
      await using server = await startServer(join(folder.path, "t.db"), options);
      const { produced, answer } = await firstUses(server);
      expect(await produced.json()).toEqual({ runs: [{ partition: 0, offset: 0, count: 1 }] });
      expect(answer.type).toBe("subscribed");
      const { topics } = (await (await fetch(`${server.url}/v1/topics`)).json()) as { topics: unknown };
      expect(topics).toMatchObject([
        { topic: "produced", partitionCount: 1 },
        { topic: "subscribed", partitionCount: 1 },
      ]);
    });

    test("and not in serve: unknown_topic says how to create them", async () => {
      using folder = temporaryFolder();
      await using server = await startServer(join(folder.path, "t.db"), { mode: "serve" });
      const { produced, answer } = await firstUses(server);
      expect(produced.status).toBe(404);
      expect(await produced.json()).toMatchObject({
        code: "unknown_topic",
        topic: "produced",
        retriable: false,
        detail: expect.stringContaining("PUT /v1/topics/produced"),
      });
      expect(answer).toMatchObject({ type: "error", code: "unknown_topic", subscription: "default" });
      expect(await (await fetch(`${server.url}/v1/topics`)).json()).toEqual({ topics: [] });
      expect((await fetch(`${server.url}/v1/topics/produced`, { method: "PUT" })).status).toBe(201);
      await produceValues(server, "produced", 1);
    });
  });
}
