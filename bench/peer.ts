// What the peers have in common: a server as a process of its own, a stream for each round, and the check of what came.

import { deepStrictEqual } from "node:assert";
import { join } from "node:path";
import { Output, temporaryFolder } from "../test/support/server.ts";
import type { Input } from "./input.ts";

/** All that is looked at of a record. */
export interface Quake {
  readonly id: string;
}

export interface PeerOptions {
  /** `folder`: empty, for all that it stores. */
  readonly command: (folder: string) => readonly string[];
  readonly logsTo: "stdout" | "stderr";
  /** What it logs when it takes connections. */
  readonly ready: RegExp;
}

/** Disposing of it stops the process and removes its folder. */
export interface Peer extends AsyncDisposable {
  readonly folder: string;
  readonly pid: number;
  /** How its log matched `ready`. */
  readonly announced: RegExpMatchArray;
}

export async function startPeer({ command, logsTo, ready }: PeerOptions): Promise<Peer> {
  await using stack = new AsyncDisposableStack();
  const { path: folder } = stack.use(temporaryFolder());
  const child = Bun.spawn([...command(folder)], { stdout: "pipe", stderr: "pipe" });
  stack.defer(async () => {
    child.kill("SIGTERM");
    child.kill("SIGCONT"); // it may stand still
    await child.exited;
  });
  const outputs = { stdout: new Output(child.stdout, child), stderr: new Output(child.stderr, child) };
  await outputs[logsTo].until(ready);
  const announced = outputs[logsTo].text.match(ready);
  if (announced === null) {
    throw new Error(`${command(folder)[0]} did not start: ${outputs.stdout.text}${outputs.stderr.text}`);
  }
  const started = stack.move();
  return { folder, pid: child.pid, announced, [Symbol.asyncDispose]: () => started.disposeAsync() };
}

/** Debian keeps servers where the PATH of a user does not lead. */
export function findProgram(name: string): string | null {
  return Bun.which(name, { PATH: `${process.env.PATH}:/usr/sbin` });
}

/** e.g. "redis-server 7.0.15" */
export async function programVersion(program: string, name: string): Promise<string> {
  const text = await Bun.$`${program} --version`.text();
  const [version] = text.match(/\d+\.\d+\.\d+/) ?? [];
  if (version === undefined) throw new Error(`${program} --version says ${text}`);
  return `${name} ${version}`;
}

/** e.g. "ioredis 6.0.0" */
export async function packageVersion(name: string): Promise<string> {
  const path = join(import.meta.dir, "../node_modules", name, "package.json");
  const { version }: { version: string } = await Bun.file(path).json();
  return `${name} ${version}`;
}

export interface RoundStreamsOptions {
  create(round: number): Promise<unknown>;
  fill(round: number): Promise<void>;
  remove(round: number): Promise<unknown>;
}

/** Each round's stream replaces that of the former, so that the disk stays small. */
export function roundStreams({ create, fill, remove }: RoundStreamsOptions) {
  let current: number | undefined;
  const filled = new Set<number>();
  const renew = async (round: number) => {
    if (current !== undefined) await remove(current);
    filled.clear();
    current = round;
    await create(round);
  };
  const fillOnce = async (round: number) => {
    await fill(round);
    filled.add(round);
  };
  /** For who consumes: `produce` may have had its turn in this round, or not. */
  const ensureFilled = async (round: number) => {
    if (filled.has(round)) return;
    await renew(round);
    await fillOnce(round);
  };
  return { renew, fill: fillOnce, ensureFilled };
}

/** Every record of the input once; in any order, as lanes overtake each other. */
export function checkReceived(ids: readonly string[], { values }: Input): void {
  deepStrictEqual(ids.toSorted(), values.map(idOf).toSorted());
}

export function idOf(value: string): string {
  const quake: Quake = JSON.parse(value);
  return quake.id;
}
