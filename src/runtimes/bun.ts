#!/usr/bin/env bun
// The entry on Bun: settings, file, sockets, signals. Nothing else knows which runtime this is.

import type { ServerWebSocket } from "bun";
import type { Scheduler } from "../core/ports.ts";
import type { Problem } from "../core/problem.ts";
import { CLIENT_FRAME_BYTES_MAX, SOCKET_ANSWERS_BYTES_MAX } from "../protocol/limits.ts";
import type { Db, DbError } from "../store/db.ts";
import type { SocketHandlers, SocketPort } from "../stream/socket.ts";
import { beginErrorOfFile, beginErrorOfRemote, beginOn, openFile, openRemote } from "./open-database.ts";
import { DatabaseError, ownFile } from "./owned-file.ts";
import { createServer } from "./server.ts";
import { type DatabaseSetting, readSettings, type Settings, SettingsError } from "./settings.ts";

/** Bodies have a limit of ours, and an answer that says so: Bun would refuse larger ones without a word. */
const HTTP_BODY_BYTES_MAX = Number.MAX_SAFE_INTEGER;
/** The last guard: records stop at 2 MiB and answers close the socket at 6 MiB, long before Bun would drop a frame. */
const BACKPRESSURE_BYTES_MAX = 2 * SOCKET_ANSWERS_BYTES_MAX;
/** A frame above the limit is told so; one far above it closes the socket before it is all in memory. */
const FRAME_BYTES_MAX = 2 * CLIENT_FRAME_BYTES_MAX;
/** Bun cuts a silent request after 10 s; a write may wait for the lock for 15 s, a read for 30 s. */
const HTTP_IDLE_TIMEOUT_S = 60;
const STOP_DEADLINE_MS = 5_000;
/** For answers that are on their way when everything is on disk; idle keep-alive connections are not waited for. */
const LAST_ANSWERS_MS = 200;

type Fetch = ReturnType<typeof createServer>["app"]["fetch"];

interface SocketData {
  /** Until the socket is open: it holds on to the whole request. */
  accept: ((socket: SocketPort) => SocketHandlers) | undefined;
  handlers?: SocketHandlers | undefined;
}

const scheduler: Scheduler = {
  nowMs: () => performance.now(),
  after: (delayMs, run) => {
    const timer = setTimeout(run, delayMs);
    return () => clearTimeout(timer);
  },
  soon: (run) => void setImmediate(run),
};

const chance = { random: () => Math.random(), newId: () => crypto.randomUUID() };

function log(event: string, facts: Readonly<Record<string, unknown>> = {}): void {
  const told = Object.entries(facts).filter(([, value]) => value !== undefined);
  const line = [
    `event=${JSON.stringify(event)}`,
    ...told.map(([name, value]) => `${name}=${JSON.stringify(value)}`),
  ];
  process.stderr.write(`${new Date().toISOString()} ${line.join(" ")}\n`);
}

async function main(): Promise<void> {
  const settings = readSettings(process.argv.slice(2), process.env);
  const { db, release, errorOf } = await open(settings.database);
  const server = createServer({
    db,
    scheduler,
    chance,
    log,
    origins: { allowed: settings.allowedOrigins, allowsLoopback: settings.mode === "dev" },
    createsTopicsOnFirstUse: settings.createsTopicsOnFirstUse,
    offsetRetentionMs: settings.offsetRetentionMs,
  });
  await beginOn(() => server.start(), { scheduler, errorOf });
  const http = listen(settings, server.app.fetch);
  stopOnSignals(async () => {
    const answered = http.stop();
    await server.stop();
    await Promise.race([answered, new Promise<void>((resolve) => scheduler.after(LAST_ANSWERS_MS, resolve))]);
    release();
  });
  announce(settings, http.url.origin);
}

interface OpenDatabase {
  readonly db: Db;
  readonly release: () => void;
  /** What to say where it cannot be read or written at the start. */
  readonly errorOf: (error: DbError | Problem) => DatabaseError;
}

async function open(database: DatabaseSetting): Promise<OpenDatabase> {
  if (database.kind === "remote") {
    const db = await openRemote({ ...database, writerId: chance.newId(), scheduler });
    return { db, release: () => {}, errorOf: beginErrorOfRemote(database.url) };
  }
  const { path, release } = ownFile(database.path);
  return { db: await openFile(path, scheduler), release, errorOf: beginErrorOfFile(path) };
}

function listen(settings: Settings, fetch: Fetch) {
  try {
    return serve(settings, fetch);
  } catch (error) {
    const isTaken = error instanceof Error && "code" in error && error.code === "EADDRINUSE";
    if (!isTaken) throw error;
    const { host, port } = settings;
    throw new SettingsError(
      `port ${port} of ${host} is in use: stop what listens there, or give another with --port`,
    );
  }
}

function serve({ host, port }: Settings, fetch: Fetch) {
  return Bun.serve<SocketData, never>({
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
}

function socketPort(ws: ServerWebSocket<SocketData>): SocketPort {
  return {
    send: (text) => void ws.send(text),
    bufferedBytes: () => ws.getBufferedAmount(),
    close: (code, reason) => ws.close(code, reason),
    ping: () => void ws.ping(),
  };
}

function stopOnSignals(stop: () => Promise<void>): void {
  let isStopping = false;
  const onSignal = (signal: string) => {
    if (isStopping) return;
    isStopping = true;
    log("stopping", { signal });
    setTimeout(() => process.exit(1), STOP_DEADLINE_MS).unref();
    stop().then(
      () => process.exit(0),
      (error) => {
        log("stop failed", { message: String(error) });
        process.exit(1);
      },
    );
  };
  process.on("SIGINT", () => onSignal("SIGINT"));
  process.on("SIGTERM", () => onSignal("SIGTERM"));
}

function announce({ mode, database }: Settings, url: string): void {
  const databaseUrl = database.kind === "file" ? `file:${database.path}` : database.url;
  const lines = [`tidemark ready url=${url} db=${databaseUrl} pid=${process.pid}`];
  if (mode === "dev") {
    lines.push(
      `curl ${url}/v1/topics/demo/records -d '{"records":[{"key":"u1","value":{"hello":"world"}}]}'`,
      `npx -y wscat@6 -c '${url.replace("http", "ws")}/v1/stream?topic=demo&group=demo'`,
      `${shellOf(database)} 'SELECT * FROM consumer_lag'`,
    );
  }
  process.stdout.write(`${lines.join("\n")}\n`);
}

function shellOf(database: DatabaseSetting): string {
  if (database.kind === "remote") return `turso db shell ${database.url}`;
  return `sqlite3 '${database.path.replaceAll("'", "'\\''")}'`;
}

main().catch((error: unknown) => {
  const isExpected = error instanceof SettingsError || error instanceof DatabaseError;
  process.stderr.write(isExpected ? `tidemark: ${error.message}\n` : `tidemark: ${Bun.inspect(error)}\n`);
  process.exit(isExpected ? 2 : 1);
});
