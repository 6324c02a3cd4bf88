// A server that is a process of its own: settings, database, signals, and the line that says it is ready. Bun and Deno
// differ in how they listen, and in nothing else.

import process from "node:process";
import { beginServer } from "./begin-server.ts";
import { readSettings } from "./command-line.ts";
import { DatabaseError } from "./database-error.ts";
import type { OpenDatabase } from "./open-database.ts";
import { openRemote } from "./open-remote.ts";
import { chance, log, scheduler } from "./platform.ts";
import type { Server } from "./server.ts";
import {
  type DatabaseSetting,
  requirePlatform,
  type Settings,
  SettingsError,
  settingsOf,
} from "./settings.ts";

const STOP_DEADLINE_MS = 5_000;
/** For answers that are on their way when everything is on disk; idle keep-alive connections are not waited for. */
const LAST_ANSWERS_MS = 200;

export type Fetch = Server["app"]["fetch"];

export interface Listener {
  /** E.g. `http://127.0.0.1:4500`. */
  readonly origin: string;
  /** Takes no more connections, at the latest when all sockets are `closed`; resolves when the last answer is out. */
  readonly stop: (closed: Promise<void>) => Promise<unknown>;
}

/** Throws an error with the code EADDRINUSE where somebody else listens there. */
export type Listen = (fetch: Fetch, address: Pick<Settings, "host" | "port">) => Listener;

/** What only the runtime knows of an error, for the person at the terminal. */
export type Explain = (error: unknown) => string | undefined;

/** As the command line says. It ends by a signal, or with a message. */
export function runServer(listen: Listen, explain?: Explain): void {
  void exitOnError(explain, async () => run(listen, readSettings(process.argv.slice(2), process.env)));
}

/** The same, as the environment says, where `listen` listens at an address of the platform. */
export function runOnPlatform(listen: Listen, explain?: Explain): void {
  void exitOnError(explain, async () => run(listen, platformSettings()));
}

async function run(listen: Listen, settings: Settings): Promise<void> {
  const { server, release } = await begin(settings);
  const listener = listenOn(settings, () => listen(server.app.fetch, settings));
  stopOnSignals(server, release, listener.stop);
  announce(settings, ownUrl(listener.origin));
}

export interface PlatformServer {
  readonly fetch: Fetch;
  /** When the platform listens. */
  readonly onListen: (origin: string) => void;
}

/** The same, where the platform listens itself. */
export function serveForPlatform(explain?: Explain): Promise<PlatformServer> {
  return exitOnError(explain, async () => {
    const settings = platformSettings();
    const { server, release } = await begin(settings);
    stopOnSignals(server, release, (closed) => closed);
    return { fetch: server.app.fetch, onListen: (origin) => announce(settings, ownUrl(origin)) };
  });
}

function platformSettings(): Settings {
  return requirePlatform(settingsOf("serve", {}, process.env), process.env);
}

async function begin(settings: Settings): Promise<{ readonly server: Server; readonly release: () => void }> {
  const opened = await open(settings.database);
  return { server: await beginServer(opened, settings), release: opened.release };
}

async function open(database: DatabaseSetting): Promise<OpenDatabase> {
  if (database.kind === "remote") return openRemote({ ...database, writerId: chance.newId(), scheduler });
  const { openFile } = await import("./open-file.ts");
  return openFile(database.path, scheduler);
}

function listenOn({ host, port }: Settings, listen: () => Listener): Listener {
  try {
    return listen();
  } catch (error) {
    const isTaken = error instanceof Error && "code" in error && error.code === "EADDRINUSE";
    if (!isTaken) throw error;
    throw new SettingsError(
      `port ${port} of ${host} is in use: stop what listens there, or give another with --port`,
    );
  }
}

function stopOnSignals(server: Server, release: () => void, stopListening: Listener["stop"]): void {
  const stop = async () => {
    const stopped = server.stop();
    const answered = stopListening(stopped);
    await stopped;
    await Promise.race([answered, lastAnswers()]);
    release();
  };
  let isStopping = false;
  const onSignal = (signal: string) => {
    if (isStopping) return;
    isStopping = true;
    log("stopping", { signal });
    scheduler.after(STOP_DEADLINE_MS, () => process.exit(1));
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

function lastAnswers(): Promise<void> {
  return new Promise((resolve) => void scheduler.after(LAST_ANSWERS_MS, resolve));
}

/** Where it listens on all addresses, the one at which it answers this machine. */
function ownUrl(origin: string): string {
  return origin.replace("//0.0.0.0", "//127.0.0.1").replace("//[::]", "//[::1]");
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

async function exitOnError<T>(explain: Explain | undefined, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    const isExpected = error instanceof SettingsError || error instanceof DatabaseError;
    const message = isExpected ? error.message : explain?.(error);
    console.error(...(message === undefined ? ["tidemark:", error] : [`tidemark: ${message}`]));
    process.exit(message === undefined ? 1 : 2);
  }
}
