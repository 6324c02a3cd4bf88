// The socket port over the WebSocket of the standard, which Deno and workerd give a server. (Bun has one of its own.)

import type { SocketHandlers, SocketPort } from "../stream/socket.ts";
import { scheduler } from "./platform.ts";

/** A standard socket tells nobody when it has sent what it held: it is asked, soon at first. */
const ASK_MIN_MS = 1;
const ASK_MAX_MS = 50;

/** What the two have in common. */
export interface StandardSocket {
  readonly bufferedAmount: number;
  readonly readyState: number;
  send(text: string): void;
  close(code: number, reason: string): void;
  addEventListener(type: "message", listener: (event: { readonly data: unknown }) => void): void;
  addEventListener(type: "close" | "error", listener: () => void): void;
}

/** A close behind so much waits until it is sent: once told to close, a runtime would keep it for who never reads. */
const CLOSED_BEHIND_BYTES_MAX = 64 * 1024;
const OPEN = 1;

/** A request that the runtime would fail on, or take for another version, is none. */
export function isHandshake({ method, headers }: Request): boolean {
  return (
    method === "GET" &&
    headers.get("upgrade")?.toLowerCase() === "websocket" &&
    headers.get("sec-websocket-version") === "13" &&
    headers.has("sec-websocket-key")
  );
}

/** `socket` is open. */
export function connect(socket: StandardSocket, accept: (socket: SocketPort) => SocketHandlers): void {
  let isConnected = true;
  const end = () => {
    if (!isConnected) return;
    isConnected = false;
    handlers.onClose();
  };
  const emptying = new Emptying(socket);
  const handlers = accept({
    send: (text) => {
      if (!isConnected || socket.readyState !== OPEN) return;
      socket.send(text);
      emptying.ask(() => isConnected && handlers.onDrain());
    },
    bufferedBytes: () => socket.bufferedAmount,
    close: (code, reason) => {
      const close = () => socket.close(code, reason);
      if (socket.bufferedAmount <= CLOSED_BEHIND_BYTES_MAX) close();
      else emptying.ask(close);
      end(); // a client that is gone never answers the close
    },
  });
  socket.addEventListener("message", ({ data }) => {
    if (isConnected) handlers.onMessage(typeof data === "string" ? data : undefined);
  });
  socket.addEventListener("close", end);
  socket.addEventListener("error", end);
  handlers.onOpen();
}

/** Asks a socket that holds something until it holds nothing; what was wanted last is done then. */
class Emptying {
  readonly #socket: StandardSocket;
  #isAsking = false;
  #onEmpty: () => void = () => {};

  constructor(socket: StandardSocket) {
    this.#socket = socket;
  }

  ask(onEmpty: () => void): void {
    this.#onEmpty = onEmpty;
    if (!this.#isAsking) this.#askIn(ASK_MIN_MS);
  }

  #askIn(delayMs: number): void {
    this.#isAsking = true;
    scheduler.after(delayMs, () => {
      this.#isAsking = false;
      if (this.#socket.bufferedAmount === 0) this.#onEmpty();
      else if (this.#socket.readyState === OPEN) this.#askIn(Math.min(ASK_MAX_MS, 2 * delayMs));
    });
  }
}
