// What bench:client has measured, as a table. Pure: a test makes the README's of the kept results again.

import { figuresText, ratioOf, type TrialResult } from "./results.ts";
import type { WorkloadName } from "./subject.ts";

export const RAW = "raw frames";
export const LIBRARY = "the library";

export interface ClientResults {
  readonly machine: string;
  readonly rounds: number;
  readonly recordsARound: number;
  readonly trials: readonly TrialResult[];
}

/** How many times the rate of raw frames the library has to reach. */
const GOALS: Readonly<Partial<Record<WorkloadName, number>>> = { produce: 0.8, consume: 0.8 };

export function clientTableOf({ machine, rounds, recordsARound, trials }: ClientResults): string {
  const rows = trials
    .filter(({ system }) => system === LIBRARY)
    .map((library) =>
      rowOf(
        library,
        trials.find((trial) => isRawOf(trial, library)),
      ),
    );
  const records = recordsARound.toLocaleString("en");
  return [
    `| records/s | ${RAW} | ${LIBRARY} | ${LIBRARY} ÷ ${RAW} | goal |`,
    "|---|---|---|---|---|",
    ...rows,
    "",
    `${machine}; ${rounds} interleaved rounds after one to warm up, ${records} records each; median (min–max).`,
  ].join("\n");
}

function isRawOf({ system, workload, path }: TrialResult, library: TrialResult): boolean {
  return system === RAW && workload === library.workload && path === library.path;
}

function rowOf(library: TrialResult, raw: TrialResult | undefined): string {
  const ratio = ratioOf(library, raw);
  if (!raw || ratio === undefined) throw new Error(`there is nothing to compare "${library.path}" with`);
  const goal = GOALS[library.workload];
  const verdict = goal === undefined ? "–" : `${goal} × ${ratio >= goal ? "✓" : "✗"}`;
  return `| ${library.workload}: ${library.path} | ${figuresText(raw.figures)} | ${figuresText(library.figures)} | ${ratio.toFixed(2)} | ${verdict} |`;
}
