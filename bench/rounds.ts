// Systems that are compared take turns in every round, so that what the machine does meanwhile happens to all of them.

import { cpus, release, totalmem } from "node:os";
import type { TrialResult } from "./results.ts";
import { type Figures, type Subject, WORKLOADS } from "./subject.ts";

export type IsWanted = (system: string, workload?: string) => boolean;

/** Each trial has its turn in every round. `isWanted`: all of them where it is left out. */
export async function runRounds(
  subjects: readonly Subject[],
  rounds: number,
  isWanted: IsWanted = () => true,
): Promise<readonly TrialResult[]> {
  const trials = WORKLOADS.flatMap((workload) =>
    subjects.flatMap(({ name, pid, trials }) =>
      trials
        .filter((trial) => trial.workload === workload && isWanted(name, workload))
        .map((trial) => ({ system: name, pid, trial, figures: [] as Figures[] })),
    ),
  );
  for (const { pid } of subjects) signal(pid, "SIGSTOP");
  for (let round = 0; round <= rounds; round += 1)
    for (const { system, pid, trial, figures } of trials) {
      signal(pid, "SIGCONT");
      await trial.prepare?.(round);
      const measured = await trial.run(round);
      signal(pid, "SIGSTOP");
      if (round > 0) figures.push(measured);
      console.error(
        `round ${round} of ${rounds}: ${trial.workload}, ${system}, ${trial.path}: ${said(measured)}`,
      );
    }
  return trials.map(({ system, trial: { workload, path }, figures }) => ({
    system,
    workload,
    path,
    figures,
  }));
}

function signal(pid: number | undefined, name: "SIGSTOP" | "SIGCONT"): void {
  if (pid !== undefined) process.kill(pid, name);
}

function said(figures: Figures): string {
  return Object.entries(figures)
    .map(([name, value]) => `${name} ${"rate" in figures ? Math.round(value) : value.toFixed(2)}`)
    .join(", ");
}

/** E.g. "2 × AMD EPYC, 24 GiB, linux 6.1". */
export function machine(): string {
  const processors = cpus();
  const model = processors[0]?.model.trim() ?? "processors";
  return `${processors.length} × ${model}, ${Math.round(totalmem() / 2 ** 30)} GiB, ${process.platform} ${release()}`;
}
