#!/usr/bin/env bun
// The entry on Bun: its sockets, and nothing else.

import type { ServerWebSocket } from "bun";
import { CLIENT_FRAME_BYTES_MAX, SOCKET_ANSWERS_BYTES_MAX } from "../protocol/limits.ts";
import type { SocketHandlers, SocketPort } from "../stream/socket.ts";
import { type Fetch, type Listener, runServer } from "./server-process.ts";

/** Bodies have a limit of ours, and an answer that says so: Bun would refuse larger ones without a word. */
const HTTP_BODY_BYTES_MAX = Number.MAX_SAFE_INTEGER;
/** The last guard: records stop at 2 MiB and answers close the socket at 6 MiB, long before Bun would drop a frame. */
const BACKPRESSURE_BYTES_MAX = 2 * SOCKET_ANSWERS_BYTES_MAX;
/** A frame above the limit is told so; one far above it closes the socket before it is all in memory. */
const FRAME_BYTES_MAX = 2 * CLIENT_FRAME_BYTES_MAX;
/** Bun cuts a silent request after 10 s; a write may wait for the lock for 15 s, a read for 30 s. */
const HTTP_IDLE_TIMEOUT_S = 60;

interface SocketData {
  /** Until the socket is open: it holds on to the whole request. */
  accept: ((socket: SocketPort) => SocketHandlers) | undefined;
  handlers?: SocketHandlers | undefined;
}

function listen(fetch: Fetch, { host, port }: { readonly host: string; readonly port: number }): Listener {
  const http = Bun.serve<SocketData, never>({
    hostname: host,
    port,
    maxRequestBodySize: HTTP_BODY_BYTES_MAX,
    idleTimeout: HTTP_IDLE_TIMEOUT_S,
    fetch: (request, http) =>
      fetch(request, {
        upgrade: (handshake: Request, accept: (socket: SocketPort) => SocketHandlers) =>
          // Bun answers the handshake itself; whatever is returned here is not sent.
          http.upgrade(handshake, { data: { accept } }) ? new Response(null) : undefined,
      }),
    websocket: {
      maxPayloadLength: FRAME_BYTES_MAX,
      backpressureLimit: BACKPRESSURE_BYTES_MAX,
      closeOnBackpressureLimit: true,
      idleTimeout: 0, // the session has its own heartbeat
      sendPings: false,
      open: (ws) => {
        ws.data.handlers = ws.data.accept?.(socketPort(ws));
        ws.data.accept = undefined;
        ws.data.handlers?.onOpen();
      },
      message: (ws, data) => ws.data.handlers?.onMessage(typeof data === "string" ? data : undefined),
      pong: (ws) => ws.data.handlers?.onPong(),
      drain: (ws) => ws.data.handlers?.onDrain(),
      close: (ws) => ws.data.handlers?.onClose(),
    },
  });
  return { origin: http.url.origin, stop: () => http.stop() };
}

function socketPort(ws: ServerWebSocket<SocketData>): SocketPort {
  return {
    send: (text) => void ws.send(text),
    bufferedBytes: () => ws.getBufferedAmount(),
    close: (code, reason) => ws.close(code, reason),
    ping: () => void ws.ping(),
  };
}

runServer(listen);
