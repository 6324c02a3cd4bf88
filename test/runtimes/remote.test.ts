// The server's own command on a remote database: a real sqld, or what stands in its place.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Scheduler } from "../../src/core/ports.ts";
import { DatabaseError } from "../../src/runtimes/database-error.ts";
import { openRemote } from "../../src/runtimes/open-remote.ts";
import { CuttingProxy } from "../support/cutting-proxy.ts";
import { HttpClient } from "../support/http-client.ts";
import { refusedServer, startServer, type TestServer } from "../support/server.ts";
import { HAS_SQLD, openRemoteTestDb, realTime, SQLD_SKIPPED, type Sqld, startSqld } from "../support/sqld.ts";
import { StreamClient } from "../support/stream-client.ts";

setDefaultTimeout(30_000); // where the machine has much else to do

const OPEN_DEADLINE_MS = 15_000;
const TOKEN = "t0p-s3cret";

async function readyz(server: TestServer): Promise<unknown> {
  const { status, body } = await new HttpClient(server).call("GET", "/readyz");
  return { status, ...body };
}

async function topicsOf(server: TestServer): Promise<readonly string[]> {
  const { body } = await new HttpClient(server).call("GET", "/v1/topics");
  return body.topics.map(({ topic }: { topic: string }) => topic);
}

/** Passes on what has the token, as Turso does. */
function tokenGate(target: string) {
  const gate = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: async (request) => {
      if (request.headers.get("authorization") !== `Bearer ${TOKEN}`)
        return new Response("who?", { status: 401 });
      const { pathname } = new URL(request.url);
      const { method, headers } = request;
      return fetch(target + pathname, { method, headers, body: await request.arrayBuffer() });
    },
  });
  return { url: `http://localhost:${gate.port}`, [Symbol.dispose]: () => void gate.stop(true) };
}

if (!HAS_SQLD) console.warn(`a server on a remote database: ${SQLD_SKIPPED}`);

describe.skipIf(!HAS_SQLD)("a server on a remote database", () => {
  let sqld: Sqld;
  beforeAll(async () => {
    sqld = await startSqld();
  });
  afterAll(() => sqld[Symbol.asyncDispose]());

  test.each([
    ["strong", "fsync"],
    ["relaxed", "relaxed"],
  ] as const)(
    "that is %s says %s when it is asked and when somebody subscribes",
    async (mode, durability) => {
      await using own = await startSqld({ durability: mode });
      await using server = await startServer(own.url);
      expect(server.announcement).toStartWith(
        `tidemark ready url=${server.url} db=${own.url} pid=${server.pid}\n`,
      );
      expect(await readyz(server)).toMatchObject({ status: "ready", durability });
      const client = await StreamClient.open(`${server.streamUrl}?topic=orders&group=billing`);
      expect(await client.expect("subscribed")).toMatchObject({ durability });
      await client.close();
    },
  );

  test("that goes away when it is open and comes back before the first request has a server all the same", async () => {
    await openRemoteTestDb(sqld.url).then((db) => db.close());
    using proxy = new CuttingProxy(sqld.port);
    proxy.isLost = (request) => request.includes("FROM catalog") && proxy.lost === 0;
    await using server = await startServer(proxy.url);
    expect(proxy.lost).toBe(1);
    expect(await readyz(server)).toMatchObject({ status: "ready" });
  });

  test("finds what was written before it, and ends when it is told to", async () => {
    const first = await startServer(sqld.url);
    await new HttpClient(first).produce("kept", [{ key: "k", value: { n: 1 } }, { bytes: "AP8=" }]);
    expect(await first.kill("SIGTERM")).toBe(0);
    await using second = await startServer(sqld.url, { mode: "serve" });
    const { body } = await new HttpClient(second).call("GET", "/v1/topics/kept/partitions/0/records");
    expect(body.records).toMatchObject([
      { offset: 0, key: "k", value: { n: 1 } },
      { offset: 1, bytes: "AP8=" },
    ]);
  });

  test.each(["bun", "deno"] as const)(
    "loses nothing on %s when it is told to end under load, and leaves its group to another at once",
    async (runtime) => {
      const topic = `ended-${runtime}`;
      await using other = await startServer(sqld.url);
      const first = await startServer(sqld.url, { runtime });
      const client = await StreamClient.open(`${first.streamUrl}?topic=${topic}&group=${topic}`);
      const acknowledged: number[] = [];
      const reached = Promise.withResolvers<void>();
      const lanes = Array.from({ length: 4 }, async (_, lane) => {
        for (let value = lane; ; value += 4) {
          const body = JSON.stringify({ records: [{ value }] });
          const url = `${first.url}/v1/topics/${topic}/records`;
          const answer = await fetch(url, { method: "POST", body }).catch(() => undefined);
          if (!answer) return; // the connection was closed: it may or may not have been written
          if (answer.status === 200) acknowledged.push(value);
          if (acknowledged.length === 100) reached.resolve();
        }
      });
      await reached.promise;
      expect(await first.kill("SIGTERM")).toBe(0);
      await Promise.all(lanes);
      expect(await client.closed()).toMatchObject({ code: 4000 });
      const http = new HttpClient(other);
      const { body } = await http.call("GET", `/v1/topics/${topic}/partitions/0/records?limit=10000`);
      const stored = new Set(body.records.map(({ value }: { value: number }) => value));
      expect(acknowledged.filter((value) => !stored.has(value))).toEqual([]);
      // No lease is waited for.
      expect((await http.call("GET", `/v1/groups/${topic}`)).body.members).toEqual([]);
    },
  );

  test("that is empty is migrated once by two that start at the same time, and both serve it", async () => {
    await using empty = await startSqld();
    const [one, other] = await Promise.all([startServer(empty.url), startServer(empty.url)]);
    await using _one = one;
    await using _other = other;
    expect(await readyz(one)).toEqual(await readyz(other));
    await new HttpClient(one).produce("orders", [{ value: 1 }]);
    await new HttpClient(other).produce("orders", [{ value: 2 }]);
    const { body } = await new HttpClient(one).call("GET", "/v1/topics/orders");
    expect(body.partitions).toMatchObject([{ logEndOffset: 2 }]);
    expect(await topicsOf(other)).toEqual(["orders"]);
    const db = await openRemoteTestDb(empty.url);
    const versions = await db.read({ sql: "SELECT version FROM tidemark_migrations ORDER BY version" });
    expect(versions.map(({ version }) => version)).toEqual(versions.map((_, index) => index + 1));
    await db.close();
  });

  test("that is emptied under it is not ready, and that is said", async () => {
    await using own = await startSqld();
    await using server = await startServer(own.url);
    const db = await openRemoteTestDb(own.url);
    await db.script("DELETE FROM tidemark_migrations;");
    await db.close();
    expect(await readyz(server)).toMatchObject({ status: 503, code: "unavailable", retriable: true });
  });

  test("that wants a token is given the one of the flag or of the variable, and nobody else is told it", async () => {
    using gate = tokenGate(sqld.url);
    for (const options of [{ flags: ["--db-token", TOKEN] }, { env: { TURSO_AUTH_TOKEN: TOKEN } }]) {
      const server = await startServer(gate.url, options);
      expect(await readyz(server)).toMatchObject({ status: "ready" });
      expect(await server.kill("SIGTERM")).toBe(0);
      expect(server.announcement + (await server.stderr())).not.toContain(TOKEN);
    }
  });

  test("that wants another token ends at once, and says where it goes", async () => {
    using gate = tokenGate(sqld.url);
    for (const env of [{}, { TURSO_AUTH_TOKEN: "wr0ng" }]) {
      const { exitCode, stdout, stderr } = await refusedServer(gate.url, { env });
      expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: "" });
      expect(stderr).toMatch(/^tidemark: cannot open the database .*401.* TURSO_AUTH_TOKEN\n$/);
      expect(stderr).toContain(gate.url);
      expect(stderr).not.toContain("wr0ng");
    }
  });

  test("of a newer version ends at once, and leaves it alone", async () => {
    await using newer = await startSqld();
    const db = await openRemoteTestDb(newer.url);
    await db.write([{ sql: "INSERT INTO tidemark_migrations VALUES (99, '')" }]);
    const { exitCode, stderr } = await refusedServer(newer.url);
    expect({ exitCode, stderr }).toEqual({
      exitCode: 2,
      stderr: expect.stringContaining("schema version 99"),
    });
    await db.close();
  });
});

describe("openRemote()", () => {
  /** Passes only when it is waited for. */
  function hurriedTime() {
    let nowMs = 0;
    const after = (delayMs: number, run: () => void) => {
      nowMs += delayMs;
      setImmediate(run);
      return () => {};
    };
    return { ...realTime, nowMs: () => nowMs, after } satisfies Scheduler;
  }

  async function refusal(url: string, scheduler: Scheduler): Promise<unknown> {
    const opened = openRemote({ url, authToken: TOKEN, writerId: "w", scheduler, callDeadlineMs: 50 });
    return opened.then(
      () => "opened",
      (error) => error,
    );
  }

  test("tries for 15 s where nobody listens, then says what it could not reach", async () => {
    const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } });
    const url = `http://127.0.0.1:${listener.port}`;
    listener.stop(true);
    const time = hurriedTime();
    const error = await refusal(url, time);
    expect(error).toBeInstanceOf(DatabaseError);
    expect(String(error)).toContain(`cannot open the database ${url}: `);
    expect(String(error)).not.toContain(TOKEN);
    expect(time.nowMs()).toBeGreaterThan(OPEN_DEADLINE_MS);
    expect(time.nowMs()).toBeLessThan(2 * OPEN_DEADLINE_MS);
  });

  test("opens what comes up while it tries", async () => {
    if (!HAS_SQLD) return;
    await using late = await startSqld();
    await late.signal("SIGKILL");
    const opening = openRemote({ url: late.url, authToken: undefined, writerId: "w", scheduler: realTime });
    await late.start();
    const { db } = await opening;
    expect(db.durability).toBe("fsync");
    await db.close();
  });

  test("does not go on where it is refused", async () => {
    using server = tokenGate("http://127.0.0.1:1");
    const time = hurriedTime();
    const opened = openRemote({ url: server.url, authToken: "wr0ng", writerId: "w", scheduler: time });
    expect(String(await opened.catch((error) => error))).toContain("TURSO_AUTH_TOKEN");
    expect(time.nowMs()).toBe(0);
  });
});
