// bun run simulate [--seeds N] [--from SEED] [--mode safety|liveness] [--log FILE]; SEED=… replays one.
//
// Runs seeds one after the other and says of each that fails what is wrong and how to see it again. The same seed gives
// the same history, byte for byte.

import { createHash } from "node:crypto";
import { parseArgs } from "node:util";
import { SimulatedDatabase } from "./database.ts";
import { type Mode, type Run, runSeed } from "./simulation.ts";

const FAILURES_SHOWN = 5;

interface Options {
  readonly seeds: number;
  readonly from: number;
  readonly mode: Mode | undefined;
  readonly logPath: string | undefined;
}

async function main(): Promise<void> {
  const { seeds, from, mode, logPath } = readOptions();
  const database = await SimulatedDatabase.open();
  const startedAtMs = performance.now();
  const failed: number[] = [];
  const rejections: string[] = [];
  process.on("unhandledRejection", (reason) => rejections.push(`unhandled rejection: ${reason}`));
  for (let seed = from; seed < from + seeds; seed += 1) {
    const run = await runSeed(database, seed, mode);
    const wrong = [
      ...run.failures,
      ...rejections.splice(0),
      ...run.anomalies.map(({ name, says }) => `${name}: ${says}`),
    ];
    if (wrong.length > 0) failed.push(seed);
    if (wrong.length > 0 || seeds === 1) report(run, wrong);
    if (logPath !== undefined) await Bun.write(logPath, `${run.log.join("\n")}\n`);
    if ((seed - from + 1) % 100 === 0)
      console.error(`${seed - from + 1} seeds, ${failed.length} failed, ${seconds(startedAtMs)} s`);
  }
  await database.close();
  console.log(
    `${seeds} seeds from ${from}: ${failed.length} failed in ${seconds(startedAtMs)} s${failed.length > 0 ? `: ${failed.join(" ")}` : ""}`,
  );
  process.exit(failed.length === 0 ? 0 : 1);
}

function report(run: Run, wrong: readonly string[]): void {
  const { seed, mode, setting, history, faults, settledAfterMs } = run;
  const text = history.map((event) => `${JSON.stringify(event)}\n`).join("");
  console.log(
    `SEED=${seed} ${mode}, ${setting}, ${history.length} events, settled after ${settledAfterMs} ms`,
  );
  console.log(`  history ${createHash("sha256").update(text).digest("hex")}`);
  console.log(`  faults ${JSON.stringify(faults)}`);
  for (const line of wrong.slice(0, FAILURES_SHOWN)) console.log(`  ${line}`);
  if (wrong.length > FAILURES_SHOWN) console.log(`  and ${wrong.length - FAILURES_SHOWN} more`);
}

function seconds(sinceMs: number): string {
  return ((performance.now() - sinceMs) / 1_000).toFixed(1);
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      seeds: { type: "string", default: "1000" },
      from: { type: "string", default: "1" },
      mode: { type: "string" },
      log: { type: "string" },
    },
  });
  const seed = process.env.SEED;
  const mode = values.mode;
  if (mode !== undefined && mode !== "safety" && mode !== "liveness")
    throw new Error(`--mode is safety or liveness, not ${mode}`);
  return {
    seeds: seed === undefined ? Number(values.seeds) : 1,
    from: Number(seed ?? values.from),
    mode,
    logPath: values.log,
  };
}

await main();
