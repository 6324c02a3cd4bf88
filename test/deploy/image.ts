// The image as `docker build` would make it, in a folder: what COPY copies, what its line of RUN installs, and nothing of
// the repository that .dockerignore keeps back. Its commands run on this machine's Bun.

import { cpSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Output, REPOSITORY, temporaryFolder } from "../support/server.ts";
import { lastCommand, lastValue, readStages, type Stage, type Step } from "./dockerfile.ts";

export const DOCKERFILE = readFileSync(join(REPOSITORY, "deploy/docker/Dockerfile"), "utf8");

/** Laid over the environment of whatever is started here: any free port, and the word without which it refuses. */
export const LISTENING_HERE = { PORT: "0", TIDEMARK_WITHOUT_CREDENTIALS: "true" } as const;

export interface Image extends Disposable {
  /** Its file system. */
  readonly root: string;
  readonly workdir: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly command: readonly string[];
  readonly healthcheck: readonly string[];
}

/** `context`: what is sent to Docker. */
export async function buildImage(context = REPOSITORY): Promise<Image> {
  const folder = temporaryFolder();
  const stages = readStages(DOCKERFILE);
  for (const stage of stages) await buildStage(stage, { context, folder: folder.path });
  const image = stages.at(-1);
  if (image === undefined) throw new Error("the Dockerfile has no FROM");
  return {
    root: join(folder.path, image.name),
    workdir: lastValue(image, "workdir") ?? "/",
    environment: environmentOf(image),
    command: lastCommand(image, "cmd") ?? [],
    healthcheck: lastCommand(image, "healthcheck") ?? [],
    [Symbol.dispose]: folder.remove,
  };
}

/** Files of the context that Docker is sent, by their paths in it. */
export function filesSent(context = REPOSITORY): readonly string[] {
  const lines = readFileSync(join(REPOSITORY, ".dockerignore"), "utf8").split("\n");
  const patterns = lines.map((line) => line.trim()).filter((line) => line !== "" && !line.startsWith("#"));
  const walk = (under: string): string[] =>
    readdirSync(join(context, under), { withFileTypes: true }).flatMap((entry) => {
      const path = join(under, entry.name);
      if (SLOW_AND_KEPT_BACK.has(path) && !isSent(path, patterns)) return [];
      if (entry.isDirectory()) return walk(path);
      return isSent(path, patterns) ? [path] : [];
    });
  return walk("");
}

const SLOW_AND_KEPT_BACK: ReadonlySet<string> = new Set(["node_modules", ".git"]);

/** As Docker reads it: the last line that names the file, or a folder above it, decides. */
function isSent(path: string, patterns: readonly string[]): boolean {
  let sent = true;
  const names = path.split("/").map((_, index, all) => all.slice(0, index + 1).join("/"));
  for (const pattern of patterns) {
    const glob = new Bun.Glob(pattern.replace(/^!/, ""));
    if (names.some((name) => glob.match(name))) sent = pattern.startsWith("!");
  }
  return sent;
}

export function environmentOf(stage: Stage): Readonly<Record<string, string>> {
  return Object.assign({}, ...stage.steps.map((step) => (step.kind === "env" ? step.variables : {})));
}

async function buildStage(stage: Stage, at: { context: string; folder: string }): Promise<void> {
  let workdir = "/";
  const root = join(at.folder, stage.name);
  mkdirSync(root, { recursive: true });
  for (const step of stage.steps) {
    if (step.kind === "workdir") workdir = step.value;
    if (step.kind === "copy") copy(step, { ...at, into: join(root, workdir) });
    if (step.kind === "run" && step.line.startsWith("bun ")) await run(step.line, join(root, workdir));
  }
}

function copy(
  step: Extract<Step, { kind: "copy" }>,
  at: { context: string; folder: string; into: string },
): void {
  const target = join(at.into, step.target);
  for (const source of step.sources) {
    if (step.from === null) copySent(source, { ...at, target });
    else cpSync(join(at.folder, step.from, source), target, { recursive: true });
  }
}

function copySent(source: string, { context, target }: { context: string; target: string }): void {
  const files = filesSent(context).filter((file) => file === source || file.startsWith(`${source}/`));
  if (files.length === 0)
    throw new Error(`COPY ${source}: there is no such file, or .dockerignore keeps it back`);
  for (const file of files) {
    const to = join(target, file === source ? file : file.slice(source.length));
    mkdirSync(dirname(to), { recursive: true });
    cpSync(join(context, file), to);
  }
}

async function run(line: string, cwd: string): Promise<void> {
  const child = Bun.spawn([process.execPath, ...line.split(" ").slice(1)], {
    cwd,
    stdout: "ignore",
    stderr: "pipe",
  });
  const message = await child.stderr.text();
  if ((await child.exited) !== 0) throw new Error(`RUN ${line}: ${message}`);
}

/** A command of the image, with the environment that a container would have. */
export function spawnIn(
  image: Image,
  command: readonly string[],
  environment: Readonly<Record<string, string>>,
) {
  const [program, ...args] = command;
  if (program !== "bun") throw new Error(`${program}: the image has Bun and nothing else of ours`);
  const child = Bun.spawn([process.execPath, ...args], {
    cwd: join(image.root, image.workdir),
    env: { PATH: dirname(process.execPath), ...image.environment, ...environment },
    stdout: "pipe",
    stderr: "pipe",
  });
  return { child, stdout: new Output(child.stdout, child), stderr: new Output(child.stderr, child) };
}

/** What CMD starts, when it is ready. `await using` ends it. */
export async function startImage(image: Image, environment: Readonly<Record<string, string>>) {
  const { child, stdout, stderr } = spawnIn(image, image.command, environment);
  const isReady = await stdout.until(/^tidemark ready .*\n/m);
  if (!isReady) throw new Error(`the image did not start: ${await stderr.whole}`);
  const [, port = "", pid] = stdout.text.match(/^tidemark ready url=\S+:(\d+) db=.+ pid=(\d+)$/m) ?? [];
  return {
    /** As where the port is published. */
    url: `http://127.0.0.1:${port}`,
    /** The one that the server gives as its own. */
    pid: Number(pid),
    child,
    healthcheck: () => spawnIn(image, image.healthcheck, { PORT: port }).child.exited,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}
