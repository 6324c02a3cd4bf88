// What bench:runtimes has measured, as a table. Pure: a test makes the README's of the kept results again.

import { figuresText, ratioOf, type TrialResult } from "./results.ts";
import { WORKLOADS } from "./subject.ts";

export interface RuntimeResults {
  readonly machine: string;
  readonly rounds: number;
  readonly recordsARound: number;
  /** `system`: "<runtime>, <database>". */
  readonly trials: readonly TrialResult[];
}

/** A row for each workload and path, a column for each system; in brackets, how many times Bun's on the same database. */
export function runtimeTableOf({ machine, rounds, recordsARound, trials }: RuntimeResults): string {
  const systems = [...new Set(trials.map(({ system }) => system))];
  const rows = WORKLOADS.flatMap((workload) => {
    const ofWorkload = trials.filter((trial) => trial.workload === workload);
    const paths = [...new Set(ofWorkload.map(({ path }) => path))];
    return paths.map((path) => {
      const cells = systems.map((system) =>
        cellOf(
          ofWorkload.filter((trial) => trial.path === path),
          system,
        ),
      );
      return `| ${workload}: ${path} | ${cells.join(" | ")} |`;
    });
  });
  const records = recordsARound.toLocaleString("en");
  return [
    `| | ${systems.join(" | ")} |`,
    `|---|${systems.map(() => "---|").join("")}`,
    ...rows,
    "",
    `${machine}; ${rounds} interleaved rounds after one to warm up, ${records} records each; median (× Bun's).`,
  ].join("\n");
}

function cellOf(trials: readonly TrialResult[], system: string): string {
  const trial = trials.find((of) => of.system === system);
  if (!trial) return "–";
  const [runtime = "", database = ""] = system.split(", ");
  const text = figuresText(trial.figures).replace(/ \(.*\)$/, "");
  const ratio =
    runtime === "Bun"
      ? undefined
      : ratioOf(
          trial,
          trials.find((of) => of.system === `Bun, ${database}`),
        );
  return ratio === undefined || Number.isNaN(ratio) ? text : `${text} (${ratio.toFixed(2)} ×)`;
}
