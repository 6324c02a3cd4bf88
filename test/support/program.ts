// Programs that a test writes, checks and runs, as a user of the client would.

import { join } from "node:path";
import { REPOSITORY } from "./server.ts";

/** What programs and examples call the server, until a test puts a real one in its place. */
export const URL_IN_EXAMPLES = "http://127.0.0.1:4500";

export interface Outcome {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

const DEADLINE_MS = 30_000;

/** Rejects where it could not be started; how it ended is for the test to judge. */
export async function run(command: readonly string[], cwd: string): Promise<Outcome> {
  const child = Bun.spawn([...command], {
    cwd,
    env: { ...process.env, NO_COLOR: "1" },
    stdout: "pipe",
    stderr: "pipe",
    timeout: DEADLINE_MS,
  });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return { exitCode: await child.exited, stdout, stderr };
}

/** Throws with what it wrote, unless it ended with 0. Returns its standard output. */
export async function succeed(command: readonly string[], cwd: string): Promise<string> {
  const { exitCode, stdout, stderr } = await run(command, cwd);
  if (exitCode !== 0) throw new Error(`${command.join(" ")} ended with ${exitCode}: ${stdout}${stderr}`);
  return stdout;
}

const COMPILER = [process.execPath, join(REPOSITORY, "node_modules/typescript/bin/tsc")];

/** Strict, with what browsers have and no more: what a program may count on everywhere. */
const STRICT = {
  strict: true,
  noEmit: true,
  target: "ESNext",
  lib: ["ESNext", "DOM"],
  types: [],
  moduleDetection: "force",
};

/** Checks every source in the folder, the declarations that they use included. Returns what the compiler complains of. */
export async function typeCheck(folder: string, options: object): Promise<string> {
  const config = { compilerOptions: { ...STRICT, ...options }, include: ["*.ts"] };
  await Bun.write(join(folder, "tsconfig.json"), JSON.stringify(config));
  return (await run([...COMPILER, "-p", ".", "--pretty", "false"], folder)).stdout;
}

/** For programs in any folder: `@tidemark/client` is the client's source, for the compiler and for Bun. */
export const FROM_SOURCE = {
  module: "ESNext",
  moduleResolution: "bundler",
  allowImportingTsExtensions: true,
  paths: {
    "@tidemark/client": [join(REPOSITORY, "clients/typescript/client.ts")],
    "@tidemark/client/consumer": [join(REPOSITORY, "clients/typescript/consumer-client.ts")],
    valibot: [join(REPOSITORY, "node_modules/valibot")],
  },
};
