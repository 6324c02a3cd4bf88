// The entry on Deno: its sockets, its permissions, and nothing else.

import type { SocketHandlers, SocketPort } from "../stream/socket.ts";
import { scheduler } from "./platform.ts";
import { type Fetch, type Listener, runOnPlatform, runServer, serveForPlatform } from "./server-process.ts";

/** Deno tells nobody when a socket has sent what it held: it is asked, at first in the next turn of the event loop. */
const DRAIN_POLL_MIN_MS = 1;
const DRAIN_POLL_MAX_MS = 50;

const PERMISSIONS =
  "A server needs --allow-net --allow-env, and on a database file also --allow-read --allow-write --allow-ffi --allow-sys";

/** For Deno Deploy, which tells Deno.serve where to listen. */
export function runDeployed(): void {
  runOnPlatform(listen, explain);
}

/** For `deno serve`, which listens itself. Told to end, it closes all sockets with 1001 before anybody is asked. */
export async function servedByDeno(): Promise<Deno.ServeDefaultExport> {
  const { fetch, onListen } = await serveForPlatform(explain);
  return {
    fetch: (request) => answer(request, fetch),
    onListen: (address) => {
      if (address.transport === "tcp") onListen(originOf(address));
    },
  };
}

function listen(fetch: Fetch, { host, port }: { readonly host: string; readonly port: number }): Listener {
  const http = Deno.serve({ hostname: host, port, onListen: () => {} }, (request) => answer(request, fetch));
  return {
    origin: originOf(http.addr),
    stop: (closed) => closed.then(() => http.shutdown()), // which closes sockets in a way of its own
  };
}

function originOf({ hostname, port }: Deno.NetAddr): string {
  return `http://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

function answer(request: Request, fetch: Fetch): Response | Promise<Response> {
  return fetch(request, { upgrade: (handshake, accept) => upgrade(handshake, accept) });
}

function upgrade(request: Request, accept: (socket: SocketPort) => SocketHandlers): Response | undefined {
  if (request.headers.get("upgrade")?.toLowerCase() !== "websocket") return undefined;
  const { socket, response } = Deno.upgradeWebSocket(request, { idleTimeout: 0 }); // the session has its own heartbeat
  socket.onopen = () => connect(socket, accept);
  return response;
}

function connect(socket: WebSocket, accept: (socket: SocketPort) => SocketHandlers): void {
  let isOpen = true;
  const end = () => {
    if (!isOpen) return;
    isOpen = false;
    drain.stop();
    handlers.onClose();
  };
  const drain = new DrainPoll(socket, () => handlers.onDrain());
  const handlers = accept({
    send: (text) => {
      if (socket.readyState !== WebSocket.OPEN) return;
      socket.send(text);
      drain.begin();
    },
    bufferedBytes: () => socket.bufferedAmount,
    close: (code, reason) => {
      socket.close(code, reason);
      end(); // a client that is gone never answers the close
    },
  });
  socket.onmessage = ({ data }) => isOpen && handlers.onMessage(typeof data === "string" ? data : undefined);
  socket.onclose = end;
  handlers.onOpen();
}

/** Asks a socket that holds something until it holds nothing. */
class DrainPoll {
  readonly #socket: WebSocket;
  readonly #onDrain: () => void;
  #cancel: (() => void) | undefined;

  constructor(socket: WebSocket, onDrain: () => void) {
    this.#socket = socket;
    this.#onDrain = onDrain;
  }

  begin(): void {
    if (!this.#cancel) this.#askIn(DRAIN_POLL_MIN_MS);
  }

  stop(): void {
    this.#cancel?.();
  }

  #askIn(delayMs: number): void {
    this.#cancel = scheduler.after(delayMs, () => {
      this.#cancel = undefined;
      if (this.#socket.bufferedAmount > 0) return this.#askIn(Math.min(DRAIN_POLL_MAX_MS, 2 * delayMs));
      this.#onDrain();
    });
  }
}

function explain(error: unknown): string | undefined {
  return error instanceof Deno.errors.NotCapable ? `${error.message}. ${PERMISSIONS}` : undefined;
}

if (import.meta.main) runServer(listen, explain);
