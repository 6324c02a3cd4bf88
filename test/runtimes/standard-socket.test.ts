import { describe, expect, test } from "bun:test";
import { connect, isHandshake, type StandardSocket } from "../../src/runtimes/standard-socket.ts";
import type { SocketPort } from "../../src/stream/socket.ts";

const MIB = 1024 * 1024;

/** The runtime's end, which holds what it is sent until the client takes it. */
class FakeSocket implements StandardSocket {
  bufferedAmount = 0;
  readyState: number = WebSocket.OPEN;
  readonly closes: number[] = [];
  readonly log: string[] = [];
  readonly #listeners = new Map<string, ((event: { readonly data: unknown }) => void)[]>();
  port: SocketPort | undefined;

  constructor() {
    connect(this, (port) => {
      this.port = port;
      return {
        onOpen: () => this.log.push("open"),
        onMessage: (text) => this.log.push(`message ${text}`),
        onPong: () => this.log.push("pong"),
        onDrain: () => this.log.push("drain"),
        onClose: () => this.log.push("close"),
      };
    });
  }

  send(text: string): void {
    this.bufferedAmount += text.length;
  }

  close(code: number): void {
    this.closes.push(code);
  }

  addEventListener(type: string, listener: (event: { readonly data: unknown }) => void): void {
    this.#listeners.set(type, [...(this.#listeners.get(type) ?? []), listener]);
  }

  happen(type: "message" | "close" | "error", data?: unknown): void {
    for (const listener of this.#listeners.get(type) ?? []) listener({ data });
  }
}

/** Its own timer is the next one that is due. */
async function until(isMet: () => boolean): Promise<void> {
  while (!isMet()) await new Promise((resolve) => setImmediate(resolve));
}

describe("connect()", () => {
  test("passes on text, and says of bytes that they are none", () => {
    const socket = new FakeSocket();
    socket.happen("message", "hello");
    socket.happen("message", new ArrayBuffer(1));
    expect(socket.log).toEqual(["open", "message hello", "message undefined"]);
  });

  test("says once that the socket is empty, when it is", async () => {
    const socket = new FakeSocket();
    socket.port?.send("x".repeat(MIB));
    socket.port?.send("x".repeat(MIB));
    expect(socket.port?.bufferedBytes()).toBe(2 * MIB);
    socket.bufferedAmount = 1;
    const asked = new FakeSocket(); // empty, and asked at the same times
    asked.port?.send("");
    await until(() => asked.log.includes("drain"));
    expect(socket.log).toEqual(["open"]);
    socket.bufferedAmount = 0;
    await until(() => socket.log.includes("drain"));
    expect(socket.log).toEqual(["open", "drain"]);
  });

  test("closes at once, and behind much only when that is sent", async () => {
    const socket = new FakeSocket();
    socket.port?.close(4000, "draining");
    expect([socket.closes, socket.log]).toEqual([[4000], ["open", "close"]]);

    const full = new FakeSocket();
    full.port?.send("x".repeat(MIB));
    full.port?.close(4008, "heartbeat missed");
    expect([full.closes, full.log]).toEqual([[], ["open", "close"]]);
    full.port?.send("too late");
    expect(full.bufferedAmount).toBe(MIB);
    full.bufferedAmount = 0;
    await until(() => full.closes.length > 0);
    expect([full.closes, full.log]).toEqual([[4008], ["open", "close"]]);
  });

  test.each(["close", "error"] as const)(
    "says once that it has ended, by %s, and nothing after that",
    (type) => {
      const socket = new FakeSocket();
      socket.happen(type);
      socket.happen("close");
      socket.happen("message", "late");
      socket.port?.close(1000, "");
      expect(socket.log).toEqual(["open", "close"]);
    },
  );
});

describe("isHandshake()", () => {
  const HEADERS = { upgrade: "WebSocket", "sec-websocket-version": "13", "sec-websocket-key": "a" };
  const handshake = (method: string, headers: Record<string, string>) =>
    isHandshake(new Request("http://localhost/v1/stream", { method, headers }));

  test("takes one of version 13, however it spells the protocol", () => {
    expect(handshake("GET", HEADERS)).toBe(true);
  });

  test.each([
    ["POST", HEADERS],
    ["HEAD", HEADERS],
    ["GET", { ...HEADERS, "sec-websocket-version": "8" }],
    ["GET", { ...HEADERS, upgrade: "h2c" }],
    ["GET", { upgrade: "websocket", "sec-websocket-version": "13" }],
    ["GET", { upgrade: "websocket", "sec-websocket-key": "a" }],
    ["GET", {}],
  ])("does not take %s with %j", (method, headers) => {
    expect(handshake(method, headers)).toBe(false);
  });
});
