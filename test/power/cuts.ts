// Many power cuts, one after the other. A seed says for each what happens, so that one can be repeated alone; at which
// instruction the power goes is the clock's.

import { seededRandom } from "../support/seeded-random.ts";
import { HAS_SQLD } from "../support/sqld.ts";
import { sourcesThatDoNotWait } from "./controls.ts";
import type { CacheFate } from "./disk.ts";
import type { Place } from "./machine.ts";
import { type CutOutcome, cutPower, type Scenario } from "./one-cut.ts";

export interface PowerOptions {
  readonly cuts: number;
  /** Of the first cut; the next ones have the next ones. */
  readonly seed: number;
  /** By default the file, and every tenth time sqld. */
  readonly place?: Place | undefined;
  /** Told of every cut. */
  readonly report?: (line: string) => void;
  /** The cut that is under way still comes to its end. */
  readonly signal?: AbortSignal;
}

export interface ControlOptions extends PowerOptions {
  /** A kind of control is over when one of its cuts has lost something: `cuts` is the most that it gets. */
  readonly stopsAtLoss?: boolean;
}

export interface CutRow extends CutOutcome {
  readonly what: string;
  readonly seed: number;
  readonly place: Place;
  readonly fate: CacheFate;
  readonly ms: number;
}

const SCENARIOS = [
  "steady",
  "checkpoints",
  "upkeep",
  "deletions",
  "first record",
  "checkpoints",
  "upkeep",
  "first start",
  "steady",
  "checkpoints",
  "deletions",
  "upkeep",
] as const satisfies readonly Scenario[];
const FATES = ["all kept", "all lost", "some kept"] as const satisfies readonly CacheFate[];
const SQLD_EVERY = 10;

/** Rejects only where a cut could not be made at all. */
export async function runPowerCuts(options: PowerOptions): Promise<readonly CutRow[]> {
  return repeat(options, (seed) => {
    const random = seededRandom(seed);
    const place = options.place ?? (HAS_SQLD && seed % SQLD_EVERY === 0 ? "sqld" : "file");
    const scenario = place === "sqld" ? pick(SQLD_SCENARIOS, random) : pick(SCENARIOS, seed);
    return { what: scenario, scenario, place, fate: pick(FATES, random), random };
  });
}

/** sqld's own first start is not ours to judge. */
const SQLD_SCENARIOS = [
  "steady",
  "checkpoints",
  "deletions",
  "upkeep",
] as const satisfies readonly Scenario[];

/** A server that does not wait for fsync, and then a file system that does not make the disk write: both must lose. */
export async function runPowerControls(options: ControlOptions): Promise<readonly CutRow[]> {
  using sources = sourcesThatDoNotWait();
  const { repository } = sources;
  const common = { scenario: "steady", place: "file" } as const;
  const normal = await repeat(options, (seed) => {
    const random = seededRandom(seed);
    return { what: "synchronous=NORMAL", ...common, fate: pick(FATES, seed), random, repository };
  });
  const unflushed = await repeat(options, (seed) => {
    const random = seededRandom(seed);
    return { what: "disk not flushed", ...common, fate: "all lost", random, flushes: false };
  });
  return [...normal, ...unflushed];
}

async function repeat(
  { cuts, seed, report = () => {}, signal, stopsAtLoss = false }: ControlOptions,
  planOf: (seed: number) => Parameters<typeof cutPower>[0] & { readonly what: string },
): Promise<readonly CutRow[]> {
  const rows: CutRow[] = [];
  for (let index = 0; index < cuts && !signal?.aborted; index += 1) {
    const plan = planOf(seed + index);
    const startedAtMs = performance.now();
    const outcome = await cutPower(plan).catch((error: unknown) => {
      if (!signal?.aborted)
        throw new Error(`the cut of seed ${seed + index}: ${String(error)}`, { cause: error });
    });
    if (!outcome) break;
    const { what, place, fate } = plan;
    const row = { what, place, fate, seed: seed + index, ms: performance.now() - startedAtMs, ...outcome };
    rows.push(row);
    report(lineOf(row));
    if (stopsAtLoss && row.lost > 0) break;
  }
  return rows;
}

export function lineOf(row: CutRow): string {
  const { seed, what, place, fate, records, unanswered, blocksInCache, lost, findings, ms } = row;
  const cells = [seed, what.padEnd(18), place, fate.padEnd(9), records, unanswered, blocksInCache, lost];
  return [...cells, findings.length, (ms / 1_000).toFixed(1)]
    .map((cell) => String(cell).padStart(7))
    .join(" ");
}

export const TABLE_HEAD = [
  ...["seed", "what".padEnd(18), "place", "cache".padEnd(9), "records", "unanswd", "blocks", "lost"],
  ...["wrong", "s"],
]
  .map((cell) => cell.padStart(7))
  .join(" ");

function pick<T>(from: readonly [T, ...T[]], by: number | (() => number)): T {
  const index = typeof by === "number" ? by : Math.floor(by() * from.length);
  return from[index % from.length] ?? from[0];
}
