// bun run simulate [--seeds 1000] [--from 1] [--mode safety|liveness] [--jobs N] [--first] [--log FILE]; SEED=… replays one.
//
// Runs seeds, as many at once as there are processors, and says of each that fails what is wrong and how to see it
// again. The same seed gives the same history, byte for byte; --log writes it down, with all that led to it.

import { createHash } from "node:crypto";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { SimulatedDatabase } from "./database.ts";
import { type Mode, type Run, runSeed } from "./simulation.ts";

const ANOMALIES_SHOWN = 5;
const PROGRESS_EVERY = 100;

interface Options {
  readonly seeds: number;
  readonly from: number;
  readonly mode: Mode | undefined;
  readonly jobs: number;
  /** Ends with the first that fails; one process only. */
  readonly isFirstEnough: boolean;
  readonly logPath: string | undefined;
}

async function main(): Promise<void> {
  const options = readOptions();
  const startedAtMs = performance.now();
  const failed = options.jobs > 1 ? await runInProcesses(options) : await runHere(options);
  // A child's seeds are counted by its parent.
  if (process.send) process.send(failed);
  else {
    const { seeds, from } = options;
    const which = failed.length === 0 ? "" : `: SEED=${failed.join(", SEED=")}`;
    const tookS = ((performance.now() - startedAtMs) / 1_000).toFixed(0);
    console.log(`${seeds} seeds from ${from} in ${tookS} s: ${failed.length} failed${which}`);
  }
  process.exitCode = failed.length === 0 ? 0 : 1;
}

async function runInProcesses({ seeds, from, mode, jobs }: Options): Promise<readonly number[]> {
  const share = Math.ceil(seeds / jobs);
  const parts = Array.from({ length: jobs }, (_, job) => ({
    from: from + job * share,
    seeds: Math.min(share, seeds - job * share),
  }));
  const failed = await Promise.all(
    parts.filter((part) => part.seeds > 0).map((part) => runChild(part, mode)),
  );
  return failed.flat();
}

async function runChild({ from, seeds }: { from: number; seeds: number }, mode: Mode | undefined) {
  const flags = ["--from", String(from), "--seeds", String(seeds), "--jobs", "1"];
  const { promise, resolve } = Promise.withResolvers<readonly number[]>();
  const child = Bun.spawn([process.execPath, import.meta.path, ...flags, ...(mode ? ["--mode", mode] : [])], {
    stdio: ["ignore", "inherit", "inherit"],
    ipc: resolve,
  });
  const exited = child.exited.then((code) => {
    if (code > 1) throw new Error(`the process of seeds ${from} to ${from + seeds - 1} ended with ${code}`);
  });
  await exited;
  return promise;
}

async function runHere({ seeds, from, mode, logPath, isFirstEnough }: Options): Promise<readonly number[]> {
  const database = await SimulatedDatabase.open();
  const rejections: string[] = [];
  process.on("unhandledRejection", (reason) => rejections.push(`unhandled rejection: ${reason}`));
  const failed: number[] = [];
  for (let seed = from; seed < from + seeds; seed += 1) {
    const run = await runSeed(database, seed, mode);
    const wrong = [...rejections.splice(0), ...wrongWith(run)];
    if (wrong.length > 0) failed.push(seed);
    if (wrong.length > 0 || seeds === 1) report(run, wrong);
    if (logPath !== undefined) await Bun.write(logPath, `${run.log.join("\n")}\n`);
    const done = seed - from + 1;
    if (isFirstEnough && failed.length > 0) break;
    if (done % PROGRESS_EVERY === 0)
      console.error(`from ${from}: ${done} of ${seeds}, ${failed.length} failed`);
  }
  await database.close();
  return failed;
}

export function wrongWith({ failures, anomalies }: Run): readonly string[] {
  return [...failures, ...anomalies.map(({ name, says }) => `${name}: ${says}`)];
}

/** One event a line. */
export function historyText({ history }: Run): string {
  return history.map((event) => `${JSON.stringify(event)}\n`).join("");
}

function report(run: Run, wrong: readonly string[]): void {
  const { seed, mode, setting, history, faults, settledAfterMs } = run;
  const settled = settledAfterMs === undefined ? "" : `, settled after ${settledAfterMs} ms`;
  console.log(`SEED=${seed} ${mode}, ${setting}, ${history.length} events${settled}`);
  console.log(`  history ${createHash("sha256").update(historyText(run)).digest("hex")}`);
  console.log(`  faults ${JSON.stringify(faults)}`);
  for (const line of wrong.slice(0, ANOMALIES_SHOWN)) console.log(`  ${line}`);
  if (wrong.length > ANOMALIES_SHOWN) console.log(`  and ${wrong.length - ANOMALIES_SHOWN} more`);
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      seeds: { type: "string", default: "1000" },
      from: { type: "string", default: "1" },
      mode: { type: "string" },
      jobs: { type: "string" },
      first: { type: "boolean", default: false },
      log: { type: "string" },
    },
  });
  const { mode, log: logPath, first: isFirstEnough } = values;
  if (mode !== undefined && mode !== "safety" && mode !== "liveness")
    throw new Error(`--mode is safety or liveness, found ${mode}`);
  const { SEED } = process.env;
  if (SEED !== undefined)
    return { seeds: 1, from: positive("SEED", SEED), mode, jobs: 1, isFirstEnough, logPath };
  if (logPath !== undefined) throw new Error("--log is for one seed: SEED=… says which");
  return {
    seeds: positive("--seeds", values.seeds),
    from: positive("--from", values.from),
    jobs: isFirstEnough ? 1 : positive("--jobs", values.jobs ?? String(availableParallelism())),
    isFirstEnough,
    mode,
    logPath,
  };
}

function positive(name: string, text: string): number {
  if (!/^[1-9]\d{0,9}$/.test(text)) throw new Error(`${name} is a number above 0, found ${text}`);
  return Number(text);
}

if (import.meta.main) await main();
