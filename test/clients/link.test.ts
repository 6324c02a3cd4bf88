// How a client connects, notices that a connection is dead, and comes back; over a network that the test plays.

import { describe, expect, test } from "bun:test";
import { connect } from "../../clients/typescript/client.ts";
import type { TidemarkError } from "../../clients/typescript/errors.ts";
import type { TokenSource } from "../../clients/typescript/link.ts";
import { backoffMs } from "../../clients/typescript/link-step.ts";
import { PROTOCOL_REVISION } from "../../src/protocol/revision.ts";
import {
  assignedFrame,
  assignedPartition,
  ClientStage,
  recordsFrame,
  subscribedFrame,
} from "../support/client-stage.ts";

const SOCKET_TRIES = 20_000;

/** Whether the one error says so. Bun's toMatchObject would write its matcher into the error. */
function says([error, ...others]: readonly TidemarkError[], words: string): boolean {
  return others.length === 0 && error?.message.includes(words) === true;
}

function start(options: { token?: TokenSource } = {}) {
  const stage = new ClientStage();
  const client = connect({ url: "http://log.test/", platform: stage.platform, ...options });
  const seen: string[] = [];
  const ends: TidemarkError[] = [];
  client.on("status", (status) => seen.push(status));
  client.on("end", (error) => ends.push(error));
  const consumer = client.consume("orders", { group: "g" });
  return { stage, client, consumer, seen, ends };
}

test("a client connects when it is first used, to /v1/stream", async () => {
  const stage = new ClientStage();
  const client = connect({ url: "https://log.test/tide/", platform: stage.platform });
  expect([client.status, stage.sockets.length]).toEqual(["waiting", 0]);
  client.consume("orders", { group: "g" });
  expect([client.status, stage.sockets[0]?.url]).toEqual(["connecting", "wss://log.test/tide/v1/stream"]);
});

test.each([
  "log.test",
  "ftp://log.test",
  "http://u:p@log.test",
  "http://log.test?a=1",
  "http://log.test#a",
  "",
])("%p is no URL of a server", (url) => {
  expect(() => connect({ url })).toThrow(
    `Cannot connect to ${JSON.stringify(url)}: give the URL of a server`,
  );
});

test("several consumers share one connection", async () => {
  const { stage, client } = start();
  client.consume("payments", { group: "g" });
  const socket = await stage.connection(1);
  expect(socket.take()).toMatchObject([
    { type: "subscribe", subscription: "s1", topics: ["orders"] },
    { type: "subscribe", subscription: "s2", topics: ["payments"] },
  ]);
});

describe("a lost connection", () => {
  test("is made again after a pause with full jitter, which doubles up to a limit", async () => {
    const { stage, seen } = start();
    const pauses: number[] = [];
    for (let failures = 0; failures < 9; failures++) {
      stage.sockets.at(-1)?.end();
      await stage.time.settle();
      const [pause = 0] = stage.time.pendingDelaysMs.filter((delay) => delay !== 5_000); // of the question why
      pauses.push(pause);
      await stage.time.advance(pause);
    }
    expect(pauses).toEqual([100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
    expect(seen.slice(0, 3)).toEqual(["connecting", "waiting", "connecting"]);
    expect([backoffMs(0, 0), backoffMs(50, 0.999)]).toEqual([0, 19_980]);
  });

  test("is made at once when the machine is online again, or the page is seen", async () => {
    const { stage } = start();
    stage.sockets[0]?.end();
    stage.wake();
    expect(stage.sockets).toHaveLength(2);
  });

  test("is given up for another when it does not open in time", async () => {
    const { stage } = start();
    await stage.time.advance(10_000);
    expect(stage.sockets[0]?.isClosed).toBe(true);
    await stage.time.advance(100);
    expect(stage.sockets).toHaveLength(2);
  });

  test("after a word of it begins with the shortest pause again, except where the client was too fast", async () => {
    const { stage } = start();
    for (const [count, closeCode, pause] of [
      [1, 1006, 100],
      [2, 4029, 200],
      [3, 4029, 400],
      [4, 4008, 100],
    ] as const) {
      const socket = await stage.connection(count);
      socket.say({ type: "ping" });
      socket.end(closeCode);
      expect(stage.time.pendingDelaysMs).toEqual([pause]);
      await stage.time.advance(pause);
    }
  });

  test("by a server that drains comes back when it was told to, and not all at once", async () => {
    const { stage, seen } = start();
    const socket = await stage.connection(1);
    socket.say(subscribedFrame(socket.takeId("subscribe"), "m1"), { type: "draining", retryAfterMs: 500 });
    expect(seen.at(-1)).toBe("draining");
    socket.end(4000);
    expect(stage.time.pendingDelaysMs.filter((delay) => delay < 1_000)).toEqual([750]);
  });

  test("keeps acknowledging while the server drains", async () => {
    const { stage, consumer } = start();
    const socket = await stage.connection(1);
    socket.say(subscribedFrame(socket.takeId("subscribe"), "m1"), assignedFrame([assignedPartition(3, 42)]));
    socket.say(recordsFrame(3, { from: 42, next: 44 }), { type: "draining", retryAfterMs: 500 });
    const batches = consumer[Symbol.asyncIterator]();
    await batches.next();
    void batches.next();
    await stage.time.settle();
    expect(socket.take()).toMatchObject([{ type: "ack", offsets: [{ offset: 44 }] }]);
  });
});

describe("a silent connection", () => {
  test("is asked whether it lives, and dropped when it does not answer", async () => {
    const { stage } = start();
    const socket = await stage.connection(1);
    socket.say(subscribedFrame(socket.takeId("subscribe"), "m1")); // heartbeats every 15 s
    await stage.time.advance(15_000);
    socket.say({ type: "ping" });
    await stage.time.advance(7_500);
    expect(socket.take()).toEqual([{ type: "pong" }]); // it was heard
    await stage.time.advance(22_500);
    expect(socket.take()).toEqual([{ type: "pong", id: expect.any(Number) }]);
    await stage.time.advance(5_000);
    expect(socket.isClosed).toBe(true);
    await stage.time.advance(100);
    expect(stage.sockets).toHaveLength(2);
  });

  test("lives when it answers", async () => {
    const { stage } = start();
    const socket = await stage.connection(1);
    await stage.time.advance(20_000);
    socket.say({ type: "ok", id: socket.takeId("pong") });
    await stage.time.advance(5_000);
    expect(socket.isClosed).toBe(false);
  });

  test("is asked at once when the page is seen again", async () => {
    const { stage } = start();
    const socket = await stage.connection(1);
    socket.take();
    stage.wake();
    expect(socket.take()).toEqual([{ type: "pong", id: expect.any(Number) }]);
  });

  test("pings are answered while a handler awaits", async () => {
    const { stage, consumer } = start();
    const socket = await stage.connection(1);
    socket.say(subscribedFrame(socket.takeId("subscribe"), "m1"), assignedFrame([assignedPartition(3, 42)]));
    let isHandling = false;
    void consumer.run(() => {
      isHandling = true;
      return new Promise(() => {});
    });
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    await stage.time.settle();
    socket.say({ type: "ping" });
    expect([isHandling, socket.take()]).toEqual([true, [{ type: "pong" }]]);
  });
});

describe("a token", () => {
  test("is fetched anew for each connection, and nothing is sent before it is accepted", async () => {
    let count = 0;
    const { stage } = start({ token: async () => `token-${++count}` });
    const first = await stage.connection(1);
    expect(first.sent).toEqual([{ type: "auth", id: expect.any(Number), token: "token-1" }]);
    first.say({ type: "ok", id: first.takeId("auth") });
    expect(first.take()).toMatchObject([{ type: "subscribe" }]);
    first.end();
    await stage.time.advance(200);
    const second = await stage.connection(2);
    expect(second.take()).toEqual([{ type: "auth", id: expect.any(Number), token: "token-2" }]);
  });

  test("that is refused ends the client with the server's word", async () => {
    const { stage, ends, client } = start({ token: "old" });
    const socket = await stage.connection(1);
    const message = "The token is not valid";
    socket.say({
      type: "error",
      id: socket.takeId("auth"),
      code: "unauthenticated",
      message,
      retriable: false,
    });
    expect(ends).toMatchObject([{ code: "unauthenticated", message, retriable: false }]);
    expect([client.status, socket.isClosed]).toEqual(["closed", true]);
  });

  test("that could not be fetched for an older connection is no matter of a newer one", async () => {
    const refusals: ((error: Error) => void)[] = [];
    const { stage } = start({ token: () => new Promise((_, reject) => refusals.push(reject)) });
    await stage.connection(1);
    await stage.time.advance(10_000 + 200);
    const second = await stage.connection(2);
    refusals[0]?.(new Error("offline"));
    await stage.time.settle();
    expect(second.isClosed).toBe(false);
  });

  test("that cannot be fetched is asked for again", async () => {
    const { stage } = start({ token: () => Promise.reject(new Error("offline")) });
    await stage.connection(1);
    await stage.time.advance(200);
    expect(stage.sockets).toHaveLength(2);
  });
});

describe("a close code that is final", () => {
  test.each([
    [1000, "closed"],
    [1009, "frame_too_large"],
    [4400, "bad_frame"],
    [4401, "unauthenticated"],
    [4403, "forbidden"],
    [4999, "closed"],
  ] as const)("%d ends the client and its consumers with the code %s", async (closeCode, code) => {
    const { stage, ends, consumer, client } = start();
    const socket = await stage.connection(1);
    const taking = consumer[Symbol.asyncIterator]()
      .next()
      .catch((error) => error);
    socket.end(closeCode, "because");
    const message = `The server closed the connection with ${closeCode}: because`;
    const error = { name: "ConnectionClosedError", closeCode, code, retriable: false, message };
    expect(await taking).toMatchObject(error);
    expect(ends).toMatchObject([error]);
    await stage.time.advance(SOCKET_TRIES);
    expect([stage.sockets.length, client.status]).toEqual([1, "closed"]);
  });

  test.each([1001, 1006, 1011, 4000, 4008, 4029])("%d is none", async (closeCode) => {
    const { stage, ends } = start();
    const socket = await stage.connection(1);
    socket.end(closeCode);
    await stage.time.advance(SOCKET_TRIES);
    expect([ends, stage.sockets.length > 1]).toEqual([[], true]);
  });
});

describe("a socket that does not open", () => {
  async function refuse(answer: ClientStage["answer"]) {
    const started = start();
    const troubles: TidemarkError[] = [];
    started.client.on("trouble", (error) => troubles.push(error));
    started.stage.answer = answer;
    started.stage.sockets[0]?.end();
    await started.stage.time.settle();
    return { ...started, troubles };
  }

  const problem = (status: number, code: string) => () =>
    Response.json({ status, code, detail: "says why", retriable: false }, { status });

  test("because nobody is there is tried again, and the trouble says what to look at", async () => {
    const { troubles, ends } = await refuse(() => Promise.reject(new TypeError("refused")));
    expect(troubles).toMatchObject([{ code: "connection_lost", retriable: true }]);
    expect(says(troubles, "is the server running")).toBe(true);
    expect(ends).toEqual([]);
  });

  test("because the page's origin is not allowed ends the client", async () => {
    const { ends } = await refuse(problem(403, "forbidden"));
    expect(ends).toMatchObject([{ code: "forbidden", message: "says why" }]);
  });

  test("because it is no Tidemark server ends the client", async () => {
    const { ends } = await refuse(() => new Response("<h1>Not found</h1>", { status: 404 }));
    expect(ends).toMatchObject([{ code: "not_a_server", retriable: false }]);
    expect(says(ends, "Check the URL")).toBe(true);
  });

  test("because a proxy has lost its server is tried again", async () => {
    const { troubles, ends } = await refuse(() => new Response("bad gateway", { status: 502 }));
    expect(troubles).toMatchObject([{ code: "connection_lost" }]);
    expect(ends).toEqual([]);
  });

  const older = (url: string) =>
    url.endsWith("/openapi.json")
      ? Response.json({ info: { "x-protocol-revision": 2 } })
      : problem(426, "bad_request")();

  test("because the server is too old ends the client with what to do", async () => {
    const { ends } = await refuse(older);
    expect(ends).toMatchObject([
      {
        code: "unsupported_revision",
        facts: { found: 2 },
      },
    ]);
    expect(says(ends, "upgrade the server")).toBe(true);
  });

  test("nor is a frame understood by a server that is too old", async () => {
    const { stage, ends } = start();
    stage.answer = older;
    const socket = await stage.connection(1);
    socket.end(4400, "There is no frame of the type");
    await stage.time.settle();
    expect(ends).toMatchObject([{ code: "unsupported_revision" }]);
  });

  test("by a server of today is a bad frame like any other", async () => {
    const { stage, ends } = start();
    stage.answer = () => Response.json({ info: { "x-protocol-revision": PROTOCOL_REVISION } });
    const socket = await stage.connection(1);
    socket.end(4400, "no");
    await stage.time.settle();
    expect(ends).toMatchObject([{ code: "bad_frame", closeCode: 4400 }]);
  });

  test("an explanation that comes after another connection was made changes nothing", async () => {
    let explain = (_: Response) => {};
    const { stage, ends } = await refuse(
      () =>
        new Promise((resolve) => {
          explain = resolve;
        }),
    );
    await stage.time.advance(200);
    await stage.connection(2);
    explain(new Response("", { status: 404 }));
    await stage.time.settle();
    expect(ends).toEqual([]);
  });
});

test.each(["hello", "null", "3", '"x"'])("a server that says %s is none", async (data) => {
  const { stage, ends } = start();
  const socket = await stage.connection(1);
  socket.onmessage?.({ data });
  expect(ends).toMatchObject([{ code: "not_a_server" }]);
});

test("where no socket may be opened, as on a page that came over TLS, the client ends and says so", async () => {
  const stage = new ClientStage();
  const refuse = (): WebSocket => {
    throw new DOMException("mixed content", "SecurityError");
  };
  const client = connect({ url: "http://log.test", platform: { ...stage.platform, openSocket: refuse } });
  const taking = client.consume("orders", { group: "g" })[Symbol.asyncIterator]().next();
  const error = await taking.catch((error) => error);
  expect(error).toMatchObject({ code: "bad_url", retriable: false });
  expect(error.message).toContain("mixed content");
});
