import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { createServer } from "../../src/runtimes/server.ts";
import type { SocketHandlers, SocketPort } from "../../src/stream/socket.ts";
import { openTestDatabase, WatchedDb } from "../support/database.ts";
import { FakeTime, fakeChance } from "../support/fake-time.ts";

const database = await openTestDatabase();
afterAll(() => database.close());
beforeEach(() => database.empty());

/** As on a platform without timers. */
async function start() {
  const time = new FakeTime((ms) => database.pass(ms));
  const db = new WatchedDb(database.db);
  const server = createServer({
    db,
    scheduler: time,
    chance: fakeChance(),
    log: (event, facts) => {
      throw new Error(`${event} ${JSON.stringify(facts)}`);
    },
    origins: { allowed: [], allowsLoopback: true },
    createsTopicsOnFirstUse: true,
    keepsUpByItself: false,
  });
  await server.start();
  const call = async (method: string, path: string, body?: unknown) => {
    const init = { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
    const answer = await server.app.fetch(new Request(`http://localhost${path}`, init));
    return JSON.parse((await answer.text()) || "null");
  };
  return { server, db, time, call };
}

describe("Server.keepUp(), where nothing is done by itself", () => {
  const records = Array.from({ length: 10 }, (_, value) => ({ key: `k${value % 2}`, value }));

  test("does what there is to do when it is called, and only then", async () => {
    const { server, time, call } = await start();
    await call("PUT", "/v1/topics/orders", { retention: { records: 3 } });
    await call("PUT", "/v1/topics/prices", { cleanup: "compact" });
    for (const topic of ["orders", "prices"]) await call("POST", `/v1/topics/${topic}/records`, { records });
    await time.advance(3_600_000);
    const offsets = async (topic: string) =>
      (await call("GET", `/v1/topics/${topic}/partitions/0/records`)).records.map(
        ({ offset }: { offset: number }) => offset,
      );
    expect([await offsets("orders"), await offsets("prices")]).toEqual([
      records.map(({ value }) => value),
      records.map(({ value }) => value),
    ]);
    expect(time.pendingDelaysMs).toEqual([]);

    expect(await server.keepUp(1_000)).toEqual({ isDone: true, nextInMs: 60_000 });
    expect([await offsets("orders"), await offsets("prices")]).toEqual([
      [7, 8, 9],
      [8, 9],
    ]);
    expect(time.pendingDelaysMs).toEqual([]);
    await server.stop();
  });

  test("says when to come again: when something has reached its age", async () => {
    const { server, time, call } = await start();
    await call("PUT", "/v1/topics/orders", { retention: { ms: 100_000 } });
    await call("POST", "/v1/topics/orders/records", { records });
    expect(await server.keepUp(1_000)).toEqual({ isDone: true, nextInMs: 1_000 });
    await time.advance(99_999);
    await server.keepUp(1_000);
    expect((await call("GET", "/v1/topics/orders")).partitions).toMatchObject([{ logStartOffset: 0 }]);
    await time.advance(1);
    await server.keepUp(1_000);
    expect((await call("GET", "/v1/topics/orders")).partitions).toMatchObject([{ logStartOffset: 10 }]);
    await server.stop();
  });

  test("has nothing to do where there is nothing, and writes nothing", async () => {
    const { server, db } = await start();
    db.writes.length = 0;
    expect(await server.keepUp(1_000)).toEqual({ isDone: true, nextInMs: undefined });
    expect(db.writes).toEqual([]);
    await server.stop();
  });
});

describe("Server.stop()", () => {
  test("tells who comes while it stops to come back later, where the runtime still lets it in", async () => {
    const { server, time, call } = await start();
    await call("POST", "/v1/topics/orders/records", { records: [{ value: 1 }] });
    const connect = async () => {
      const socket = new LoggedSocket();
      await server.app.fetch(new Request("http://localhost/v1/stream"), { upgrade: socket.upgrade });
      return socket;
    };
    const early = await connect();
    early.handlers?.onMessage(JSON.stringify({ type: "subscribe", topics: ["orders"], group: "billing" }));
    await time.settle();
    expect(early.log).toEqual(["subscribed", "assigned", "records"]); // and not acknowledged: that is waited for
    const stopped = server.stop();
    await time.settle();
    const late = await connect();
    await time.advance(60_000);
    await stopped;
    expect(await call("GET", "/v1/topics")).toMatchObject({ code: "unavailable", retriable: true });
    for (const { log } of [early, late]) expect(log.slice(-2)).toEqual(["draining", "closed 4000"]);
  });
});

class LoggedSocket {
  readonly log: string[] = [];
  handlers: SocketHandlers | undefined;

  readonly upgrade = (_: Request, accept: (socket: SocketPort) => SocketHandlers): Response => {
    this.handlers = accept({
      send: (text) => void this.log.push(JSON.parse(text).type),
      bufferedBytes: () => 0,
      close: (code) => {
        this.log.push(`closed ${code}`);
        this.handlers?.onClose();
      },
    });
    this.handlers.onOpen();
    return new Response(null);
  };
}
