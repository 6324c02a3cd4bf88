// A real server: its own command, its own process, its own pid to signal.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Subprocess } from "bun";

export const REPOSITORY = join(import.meta.dir, "../..");

const READY = /^tidemark ready url=(\S+) db=(.+) pid=(\d+)$/m;
/** The line of `serve` is the last; behind that of `dev` come three to paste, in the same write. */
const ANNOUNCED = { dev: /^tidemark ready .*\n.*\n.*\n.*\n/m, serve: /^tidemark ready .*\n/m };

export type ProcessRuntime = "bun" | "deno";

export interface ServerOptions {
  readonly runtime?: ProcessRuntime;
  readonly mode?: "dev" | "serve";
  readonly flags?: readonly string[];
  /** Any that is free by default. */
  readonly port?: number;
  /** Another copy of the sources, for tests that break them on purpose. */
  readonly repository?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Words in front of the command, e.g. to run it as another user. */
  readonly prefix?: readonly string[];
}

/** Whatever it runs on. `await using` ends it with SIGKILL where the test has not. */
export interface AnyServer extends AsyncDisposable {
  readonly url: string;
  readonly streamUrl: string;
}

export interface TestServer extends AnyServer {
  readonly databasePath: string;
  readonly pid: number;
  /** What the server printed on standard output until it was ready. */
  readonly announcement: string;
  /** Signals the server itself and waits until it is gone. */
  kill(signal: NodeJS.Signals): Promise<number | null>;
  /** All that it wrote to standard error, once it is gone. */
  stderr(): Promise<string>;
  /** What it has written to standard error so far. */
  readonly logged: string;
}

/** How a server ended that did not become ready. */
export interface Refusal {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

const MEMORY = "/dev/shm";

/** `using` removes it. `isInMemory`: where the machine has such a place; what is in it costs no fsync. */
export function temporaryFolder(
  options: { isInMemory?: boolean } = {},
): { readonly path: string; remove(): void } & Disposable {
  const parent = options.isInMemory && existsSync(MEMORY) ? MEMORY : tmpdir();
  const path = mkdtempSync(join(parent, "tidemark-test-"));
  const remove = () => rmSync(path, { recursive: true, force: true });
  return { path, remove, [Symbol.dispose]: remove };
}

/** `databasePath`: or the URL of a remote database. Rejects with what the server wrote when it does not become ready. */
export async function startServer(databasePath: string, options: ServerOptions = {}): Promise<TestServer> {
  const { child, stdout, stderr } = launch(databasePath, options);
  const isReady = await stdout.until(ANNOUNCED[options.mode ?? "dev"]);
  const [, url = "", , pid] = stdout.text.match(READY) ?? [];
  if (!isReady) {
    throw new Error(`the server did not start: exit ${await child.exited}, ${await stderr.whole}`);
  }
  const kill = async (signal: NodeJS.Signals) => {
    if (child.exitCode === null && child.signalCode === null) process.kill(Number(pid), signal);
    await child.exited;
    return child.exitCode;
  };
  return {
    url,
    streamUrl: `${url.replace("http", "ws")}/v1/stream`,
    databasePath,
    pid: Number(pid),
    announcement: stdout.text,
    kill,
    stderr: () => stderr.whole,
    get logged() {
      return stderr.text;
    },
    [Symbol.asyncDispose]: async () => void (await kill("SIGKILL")),
  };
}

/** For a server that must not start. Rejects when it becomes ready. */
export async function refusedServer(databasePath: string, options: ServerOptions = {}): Promise<Refusal> {
  const { child, stdout, stderr } = launch(databasePath, options);
  if (await stdout.until(READY)) {
    child.kill("SIGKILL");
    throw new Error(`the server started: ${stdout.text}`);
  }
  return { exitCode: await child.exited, stdout: await stdout.whole, stderr: await stderr.whole };
}

/** As deploy/deno/README.md says. */
export const DENO_PERMISSIONS = ["net", "env", "read", "write", "ffi", "sys"].map(
  (name) => `--allow-${name}`,
);
/** Not the one in .bin: that would be a parent of the server, and take its signals. */
export const DENO = join(REPOSITORY, "node_modules/@deno", denoTarget(), "deno");

function denoTarget(): string {
  const target = `${process.platform}-${process.arch}`;
  return process.platform === "linux" ? `${target}-glibc` : target;
}

function commandOf(runtime: ProcessRuntime, repository: string): readonly string[] {
  if (runtime === "bun") return [process.execPath, join(repository, "src/runtimes/bun.ts")];
  return [DENO, "run", "--quiet", ...DENO_PERMISSIONS, join(repository, "src/runtimes/deno.ts")];
}

export function spawnServer(databasePath: string, options: ServerOptions = {}) {
  const { mode = "dev", flags = [], port = 0, repository = REPOSITORY, env = {}, cwd, prefix = [] } = options;
  const database = /^(http|libsql)/.test(databasePath) ? databasePath : `file:${databasePath}`;
  const command = commandOf(options.runtime ?? "bun", repository);
  const args = [mode, "--port", String(port), "--db", database, ...flags];
  return Bun.spawn([...prefix, ...command, ...args], {
    env: { ...foreignEnvironment(), ...env },
    stdout: "pipe",
    stderr: "pipe",
    ...(cwd === undefined ? {} : { cwd }),
  });
}

/** Without what a server would take for its settings. */
function foreignEnvironment(): Record<string, string | undefined> {
  const isSetting = (name: string) => /^(PORT|HOST|TURSO_.*|TIDEMARK_.*)$/.test(name);
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !isSetting(name)));
}

function launch(databasePath: string, options: ServerOptions) {
  const child = spawnServer(databasePath, options);
  return { child, stdout: new Output(child.stdout, child), stderr: new Output(child.stderr, child) };
}

/** What a process writes, read all the time so that it never waits for us. */
export class Output {
  text = "";
  /** All of it, when the process has ended. */
  readonly whole: Promise<string>;
  #onChange: (() => void)[] = [];
  #hasEnded = false;

  constructor(stream: ReadableStream<Uint8Array>, process: Subprocess) {
    this.whole = this.#read(stream).then(async () => {
      await process.exited;
      return this.text;
    });
  }

  /** False where the output ends first. */
  async until(pattern: RegExp): Promise<boolean> {
    while (!pattern.test(this.text)) {
      if (this.#hasEnded) return false;
      await new Promise<void>((resolve) => this.#onChange.push(resolve));
    }
    return true;
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      this.text += decoder.decode(chunk, { stream: true });
      this.#changed();
    }
    this.#hasEnded = true;
    this.#changed();
  }

  #changed(): void {
    for (const resolve of this.#onChange.splice(0)) resolve();
  }
}
