// bun run torture: real servers under load, killed, stopped, starved of their disk and of their database; what their
// clients saw and what the database has goes to the checker of test/proof/. Exits with 1 if anything is wrong.

import { tmpdir } from "node:os";
import { join } from "node:path";
import { powerMain, readPowerArguments, UsageError } from "../power/power.ts";
import { FlagError, type Flags, readFlags } from "./flags.ts";
import { stopOnSignals } from "./last-rites.ts";
import { type Judged, runScenario } from "./run-scenario.ts";
import type { Scenario } from "./scenario.ts";
import { SCENARIOS } from "./scenarios.ts";

/** One that makes its figure sooner ends sooner. */
const SLICE_MS = 60_000;
const WRONG_SHOWN = 20;

async function main(): Promise<number> {
  const [first, ...others] = process.argv.slice(2);
  if (first === "--power") return powerMain(readPowerArguments(others));
  stopOnSignals();
  const flags = readFlags(process.argv.slice(2));
  const scenarios = SCENARIOS.filter(({ name }) => flags.scenarios.includes(name)).filter(isPossible);
  const endsAtMs = flags.isFigures ? Number.POSITIVE_INFINITY : Date.now() + flags.minutes * 60_000;
  const judged: Judged[] = [];
  for (let turn = 0; turn < scenarios.length || (!flags.isFigures && Date.now() < endsAtMs); turn += 1) {
    const scenario = scenarios[turn % scenarios.length];
    if (!scenario || Date.now() >= endsAtMs) break;
    judged.push(await runTurn(scenario, { flags, turn, endsAtMs }));
  }
  console.log(tableOf(judged));
  return judged.some(({ wrong }) => wrong.length > 0) ? 1 : 0;
}

function isPossible({ name, skipped }: Scenario): boolean {
  const why = skipped?.();
  if (why !== undefined) console.log(`${name}: skipped, ${why}`);
  return why === undefined;
}

async function runTurn(
  scenario: Scenario,
  { flags, turn, endsAtMs }: { flags: Flags; turn: number; endsAtMs: number },
): Promise<Judged> {
  const seed = flags.seed + turn;
  const say = (text: string) =>
    console.error(`${new Date().toISOString().slice(11, 19)} ${scenario.name}: ${text}`);
  say(`seed ${seed}`);
  const judged = await runScenario(scenario, {
    seed,
    say,
    faultsMax: flags.faults ?? scenario.figure,
    endsAtMs: flags.isFigures ? endsAtMs : Math.min(endsAtMs, Date.now() + SLICE_MS),
    historyPath: historyPath(flags, turn),
    isKept: flags.historyPath !== undefined,
  });
  say(`${judged.faults} ${scenario.faults}; ${judged.wrong.length} wrong`);
  for (const note of judged.notes) say(note);
  for (const wrong of judged.wrong.slice(0, WRONG_SHOWN)) say(`WRONG ${wrong}`);
  if (judged.wrong.length > 0) say(`seed ${seed}, history in ${historyPath(flags, turn)}`);
  return judged;
}

function historyPath({ historyPath, seed }: Flags, turn: number): string {
  const path = historyPath ?? join(tmpdir(), `tidemark-torture-${seed}.ndjson`);
  return path.replace(/(\.[^./]*)?$/, (ending) => `.${turn}${ending}`);
}

function tableOf(judged: readonly Judged[]): string {
  const head = [
    "scenario",
    "runtime",
    "faults",
    "acknowledged",
    "unknown settled",
    "left unknown",
    "records read",
    "wrong",
    "seconds",
  ];
  const rows = judged.map((each) =>
    [
      ...[
        each.scenario,
        each.runtime,
        each.faults,
        each.acknowledged,
        each.settled,
        each.unknown - each.settled,
      ],
      ...[each.recordsRead, each.wrong.length, each.seconds],
    ].map(String),
  );
  const widths = head.map((name, at) => Math.max(name.length, ...rows.map((row) => row[at]?.length ?? 0)));
  return [head, ...rows]
    .map((row) =>
      row
        .map((cell, at) => cell.padEnd(widths[at] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

main().then(
  (exitCode) => process.exit(exitCode),
  (error: unknown) => {
    console.error(error instanceof FlagError || error instanceof UsageError ? error.message : error);
    process.exit(2);
  },
);
