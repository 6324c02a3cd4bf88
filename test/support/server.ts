// A real server: its own command, its own process, its own pid to signal.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const REPOSITORY = join(import.meta.dir, "../..");

export interface ServerOptions {
  readonly mode?: "dev" | "serve";
  readonly flags?: readonly string[];
  /** Another copy of the sources, for tests that break them on purpose. */
  readonly repository?: string;
  readonly env?: Readonly<Record<string, string>>;
}

export interface TestServer {
  readonly url: string;
  readonly streamUrl: string;
  readonly databasePath: string;
  readonly pid: number;
  /** What the server printed on standard output until it was ready. */
  readonly announcement: string;
  /** Signals the server itself and waits until it is gone. */
  kill(signal: NodeJS.Signals): Promise<number | null>;
  stderr(): Promise<string>;
}

export function temporaryFolder(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), "tidemark-test-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** Rejects with what the server wrote when it does not become ready. */
export async function startServer(databasePath: string, options: ServerOptions = {}): Promise<TestServer> {
  const child = spawnServer(databasePath, options);
  const announcement = await untilReady(child.stdout);
  const [, url, , pid] = announcement.match(/tidemark ready url=(\S+) db=(.+) pid=(\d+)/) ?? [];
  if (url === undefined) {
    throw new Error(`the server did not start: exit ${await child.exited}, ${await child.stderr.text()}`);
  }
  return {
    url,
    streamUrl: `${url.replace("http", "ws")}/v1/stream`,
    databasePath,
    pid: Number(pid),
    announcement,
    kill: async (signal) => {
      process.kill(Number(pid), signal);
      await child.exited;
      return child.exitCode;
    },
    stderr: () => child.stderr.text(),
  };
}

export function spawnServer(databasePath: string, options: ServerOptions = {}) {
  const { mode = "dev", flags = [], repository = REPOSITORY, env = {} } = options;
  const entry = join(repository, "src/runtimes/bun.ts");
  return Bun.spawn([process.execPath, entry, mode, "--port", "0", "--db", `file:${databasePath}`, ...flags], {
    env: { ...process.env, ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
}

async function untilReady(stdout: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  const reader = stdout.getReader();
  let text = "";
  while (!/tidemark ready .*\n/.test(text)) {
    const { value, done } = await reader.read();
    if (done) break;
    text += decoder.decode(value, { stream: true });
  }
  reader.releaseLock();
  return text;
}
