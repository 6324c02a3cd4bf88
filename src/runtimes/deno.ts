// The entry on Deno: its sockets, its permissions, and nothing else.

import type { SocketHandlers, SocketPort } from "../stream/socket.ts";
import { type Fetch, type Listener, runOnPlatform, runServer, serveForPlatform } from "./server-process.ts";
import { connect, isHandshake } from "./standard-socket.ts";

/** Deno's own ping: who does not answer it is not there. The session has its heartbeat for who does not listen. */
const GONE_AFTER_S = 60;

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
  const isUpgrade = /\bupgrade\b/i.test(request.headers.get("connection") ?? "");
  if (!isUpgrade || !isHandshake(request)) return undefined;
  const { socket, response } = Deno.upgradeWebSocket(request, { idleTimeout: GONE_AFTER_S });
  socket.onopen = () => connect(socket, accept);
  return response;
}

function explain(error: unknown): string | undefined {
  return error instanceof Deno.errors.NotCapable ? `${error.message}. ${PERMISSIONS}` : undefined;
}

if (import.meta.main) runServer(listen, explain);
