// The server in workerd, as `wrangler dev --local` runs it: what deploy/workers/wrangler.jsonc says, on this machine.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { buildWorker } from "../../scripts/build-worker.ts";
import { NODE } from "./node.ts";
import { type AnyServer, Output, REPOSITORY, temporaryFolder } from "./server.ts";

const WRANGLER = join(REPOSITORY, "node_modules/wrangler/bin/wrangler.js");
const READY = /Ready on (http\S+)/;

export type WorkerConfig = Readonly<Record<string, unknown>>;

export interface WorkerOptions {
  /** Of the Worker. */
  readonly variables?: Readonly<Record<string, string>>;
  /** What is other than in wrangler.jsonc. */
  readonly config?: WorkerConfig;
}

export async function readWorkerConfig(): Promise<WorkerConfig> {
  return Bun.JSONC.parse(
    await Bun.file(join(REPOSITORY, "deploy/workers/wrangler.jsonc")).text(),
  ) as WorkerConfig;
}

/** `await using` ends it. Rejects with what it wrote where it does not become ready. */
export async function startWorker({ variables = {}, config = {} }: WorkerOptions = {}): Promise<AnyServer> {
  const folder = temporaryFolder();
  await writeWorker(folder.path, config);
  const launched = await launchWorker(folder.path, variables).catch((error) => {
    folder.remove();
    throw error;
  });
  const end = () => launched[Symbol.asyncDispose]().then(folder.remove);
  return { ...launched, [Symbol.asyncDispose]: end };
}

/** The Worker whose wrangler.json is in the folder. What it stores stays there. */
export async function launchWorker(
  folder: string,
  variables: Readonly<Record<string, string>>,
): Promise<AnyServer> {
  const child = spawnWorker(folder, variables);
  const output = new Output(child.stdout, child);
  const errors = new Output(child.stderr, child);
  const kill = async () => {
    if (child.exitCode === null && child.signalCode === null) killTree(child.pid);
    await child.exited;
  };
  if (!(await output.until(READY))) {
    await kill();
    throw new Error(`the Worker did not start: ${output.text}${errors.text}`);
  }
  const [, url = ""] = output.text.match(READY) ?? [];
  return { url, streamUrl: `${url.replace("http", "ws")}/v1/stream`, [Symbol.asyncDispose]: kill };
}

/** Its modules, and the same configuration without the command that builds them: that goes through npx. */
export async function writeWorker(folder: string, config: WorkerConfig = {}): Promise<void> {
  await buildWorker(join(folder, "dist"));
  const { build: _, ...deployed } = await readWorkerConfig();
  await Bun.write(join(folder, "wrangler.json"), JSON.stringify({ ...deployed, ...config }));
}

function spawnWorker(folder: string, variables: Readonly<Record<string, string>>) {
  const flags = ["--local", "--ip", "127.0.0.1", "--port", "0", "--inspector-port", "0"];
  const set = Object.entries(variables).flatMap(([name, value]) => ["--var", `${name}:${value}`]);
  return runWrangler(["dev", ...flags, "--show-interactive-dev-session", "false", ...set], folder);
}

/** workerd is a child of its child. They stay in the group of the tests, so that whoever ends those ends them too. */
function killTree(pid: number): void {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
    .split(" ")
    .filter(Boolean)
    .map(Number);
  process.kill(pid, "SIGKILL"); // first, so that it starts no others
  for (const child of children) killTree(child);
}

export function runWrangler(args: readonly string[], folder: string) {
  return Bun.spawn([NODE, WRANGLER, ...args], {
    env: { ...process.env, HOME: folder, WRANGLER_SEND_METRICS: "false", CI: "true", NO_COLOR: "1" },
    stdout: "pipe",
    stderr: "pipe",
    cwd: folder,
  });
}
