// What was measured, as kept in results.json, and the table that is made of it. Pure: a test makes the README's table of
// the file again.

import { type Figures, WORKLOADS, type WorkloadName } from "./subject.ts";

export interface Results {
  /** e.g. "2 × AMD EPYC, 24 GiB, linux 6.1" */
  readonly machine: string;
  readonly rounds: number;
  readonly recordsARound: number;
  readonly systems: readonly System[];
  readonly trials: readonly TrialResult[];
}

export interface System {
  readonly name: string;
  readonly version: string;
  readonly durability: string;
  /** Why nothing of it was measured. */
  readonly missing?: string | undefined;
}

export interface TrialResult {
  readonly system: string;
  readonly workload: WorkloadName;
  readonly path: string;
  /** One a round, in the order of the rounds. */
  readonly figures: readonly Figures[];
}

/** The system that all others are compared with. */
export const SUBJECT = "Tidemark";

const TITLES: Readonly<Record<WorkloadName, string>> = {
  produce: "produce, batches of 1,000 on four lanes, records/s",
  single: "produce, 64 clients, one record each and waiting for the answer, records/s",
  consume: "consume what is there, acknowledged by batches, records/s",
  latency: "from produced to delivered, 1,000 records/s",
  fanOut: "fan-out to 1,000 readers, deliveries/s",
  loop: "delay of the server's event loop, in all of the above",
};

/** At least that rate, at least that many times the other system's rate, or at most that long. */
type Goal =
  | { readonly rate: number }
  | { readonly times: number }
  | { readonly p50Ms: number; readonly p99Ms: number };

interface GoalOf {
  readonly workload: WorkloadName;
  readonly system: string;
  /** A word of the path, where only one of its trials has the goal. */
  readonly path?: string;
  readonly goal: Goal;
}

const GOALS: readonly GoalOf[] = [
  { workload: "produce", system: "raw libSQL", goal: { times: 0.75 } },
  { workload: "produce", system: "NATS JetStream", goal: { times: 2 } },
  { workload: "produce", system: "Redis Streams", goal: { times: 1.5 } },
  { workload: "single", system: SUBJECT, path: "HTTP", goal: { rate: 20_000 } },
  { workload: "single", system: SUBJECT, path: "WebSocket", goal: { rate: 40_000 } },
  { workload: "consume", system: "raw libSQL", path: "SQL", goal: { times: 0.9 } },
  { workload: "consume", system: "NATS JetStream", goal: { times: 1.1 } },
  { workload: "consume", system: "Redis Streams", goal: { times: 3 } },
  { workload: "latency", system: SUBJECT, goal: { p50Ms: 1, p99Ms: 5 } },
  { workload: "fanOut", system: SUBJECT, goal: { rate: 1_000_000 } },
  { workload: "loop", system: SUBJECT, goal: { p50Ms: 50, p99Ms: 50 } },
];

export function tableOf(results: Results): string {
  const head = `| | median (min–max) | ${SUBJECT} ÷ it | goal |\n|---|---|---|---|`;
  const parts = WORKLOADS.flatMap((workload) => sectionOf(results, workload));
  return [head, ...parts, "", ...results.systems.map(lineOfSystem), "", lineOfMachine(results)].join("\n");
}

function sectionOf({ trials, systems }: Results, workload: WorkloadName): readonly string[] {
  const ofWorkload = trials.filter((trial) => trial.workload === workload);
  const subject = ofWorkload.find(({ system }) => system === SUBJECT);
  if (ofWorkload.length === 0) return [];
  const missing = systems.filter(({ missing, name }) => missing !== undefined && hasGoal(workload, name));
  return [
    `| **${TITLES[workload]}** | | | |`,
    ...ofWorkload.map((trial) => rowOf(trial, subject)),
    ...missing.map(({ name, missing }) => `| ${name}: ${missing} | – | – | |`),
  ];
}

function rowOf(trial: TrialResult, subject: TrialResult | undefined): string {
  const ratio = trial.system === SUBJECT ? undefined : ratioOf(subject, trial);
  const goal = goalOf(trial);
  const cells = [
    `${trial.system}: ${trial.path}`,
    figuresText(trial.figures),
    ratio === undefined ? "" : `${ratio.toFixed(2)} ×`,
    goal === undefined
      ? ""
      : `${goalText(goal)}: ${isReached(goal, trial, ratio) ? "reached" : "**not reached**"}`,
  ];
  return `| ${cells.join(" | ")} |`;
}

// ── goals ────────────────────────────────────────────────────────────────────────────────────────────────

function goalOf({ workload, system, path }: TrialResult): Goal | undefined {
  return GOALS.find((of) => of.workload === workload && of.system === system && path.includes(of.path ?? ""))
    ?.goal;
}

function hasGoal(workload: WorkloadName, system: string): boolean {
  return GOALS.some((of) => of.workload === workload && of.system === system);
}

function goalText(goal: Goal): string {
  if ("rate" in goal) return `≥ ${rateText(goal.rate)}`;
  if ("times" in goal) return `≥ ${goal.times} ×`;
  return `p50 ≤ ${goal.p50Ms}, p99 ≤ ${goal.p99Ms} ms`;
}

function isReached(goal: Goal, { figures }: TrialResult, ratio: number | undefined): boolean {
  if ("rate" in goal) return median(figures.map(rateIn)) >= goal.rate;
  if ("times" in goal) return ratio !== undefined && ratio >= goal.times;
  return medianOf(figures, "p50Ms") <= goal.p50Ms && medianOf(figures, "p99Ms") <= goal.p99Ms;
}

/** What follows each other in a round has met the same machine: the median of each round's ratio. */
export function ratioOf(
  subject: TrialResult | undefined,
  trial: TrialResult | undefined,
): number | undefined {
  if (!subject || !trial) return undefined;
  return median(trial.figures.map((figures, round) => rateIn(subject.figures[round]) / rateIn(figures)));
}

// ── figures ──────────────────────────────────────────────────────────────────────────────────────────────

export function figuresText(figures: readonly Figures[]): string {
  if (figures.some((round) => "rate" in round)) {
    const rates = figures.map(rateIn);
    return `${rateText(median(rates))} (${rateText(Math.min(...rates))}–${rateText(Math.max(...rates))})`;
  }
  const [p50, p99, max] = (["p50Ms", "p99Ms", "maxMs"] as const).map((name) =>
    medianOf(figures, name).toFixed(1),
  );
  return `p50 ${p50}, p99 ${p99}, max ${max} ms`;
}

function rateIn(figures: Figures | undefined): number {
  return figures && "rate" in figures ? figures.rate : Number.NaN;
}

function medianOf(figures: readonly Figures[], name: "p50Ms" | "p99Ms" | "maxMs"): number {
  return median(figures.map((round) => ("rate" in round ? Number.NaN : round[name])));
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function rateText(rate: number): string {
  if (rate >= 1_000_000) return `${(rate / 1_000_000).toFixed(2)}M`;
  return rate >= 10_000 ? `${Math.round(rate / 1_000)}k` : `${(rate / 1_000).toFixed(1)}k`;
}

// ── what it was measured on ──────────────────────────────────────────────────────────────────────────────

function lineOfSystem({ name, version, durability, missing }: System): string {
  return missing === undefined
    ? `- ${name}: ${version}; acknowledged when ${durability}`
    : `- ${name}: ${missing}`;
}

function lineOfMachine({ machine, rounds, recordsARound }: Results): string {
  const records = recordsARound.toLocaleString("en");
  return `${machine}; ${rounds} interleaved rounds after one to warm up, ${records} records each.`;
}
