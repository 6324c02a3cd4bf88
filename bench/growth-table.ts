// What bench --growth has measured, as kept in growth.json, and the table that is made of it.

import { median } from "./results.ts";

export interface Growth {
  readonly costs: readonly CostRow[];
  readonly memory: readonly MemoryRow[];
}

/** Microseconds, one figure a round. */
export interface CostRow {
  readonly what: string;
  /** How many there are of what grows. */
  readonly small: string;
  readonly large: string;
  readonly figures: { readonly small: readonly number[]; readonly large: readonly number[] };
}

export interface MemoryRow {
  readonly what: string;
  readonly bytes: number;
  readonly bytesMax: number;
}

const MIB = 1024 * 1024;

export function growthTableOf({ costs, memory }: Growth): string {
  return [
    "| µs each: median (min–max) | with | | with | | ratio |\n|---|---|---|---|---|---|",
    ...costs.map(costLine),
    "\n| memory | MiB | goal |\n|---|---|---|",
    ...memory.map(memoryLine),
  ].join("\n");
}

function costLine({ what, small, large, figures }: CostRow): string {
  const ratios = figures.large.map((cost, round) => cost / (figures.small[round] ?? Number.NaN));
  const cells = [what, small, spread(figures.small), large, spread(figures.large), median(ratios).toFixed(2)];
  return `| ${cells.join(" | ")} |`;
}

function spread(figures: readonly number[]): string {
  const said = (figure: number) => (figure < 100 ? figure.toFixed(1) : figure.toFixed(0));
  return `${said(median(figures))} (${said(Math.min(...figures))}–${said(Math.max(...figures))})`;
}

function memoryLine({ what, bytes, bytesMax }: MemoryRow): string {
  const isReached = bytes <= bytesMax;
  return `| ${what} | ${(bytes / MIB).toFixed(1)} | ≤ ${bytesMax / MIB}: ${isReached ? "reached" : "**not reached**"} |`;
}
