// The README's figures are those of the last run of the bench that was kept, and its table says of each goal what it is.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { type ClientResults, clientTableOf } from "../bench/client-table.ts";
import { type Growth, growthTableOf } from "../bench/growth-table.ts";
import { readReadme } from "../bench/readme.ts";
import { type Results, type TrialResult, tableOf } from "../bench/results.ts";
import { type RuntimeResults, runtimeTableOf } from "../bench/runtimes-table.ts";

const RUNTIME_RESULTS = join(import.meta.dir, "../bench/runtimes.json");
const CLIENT_RESULTS = join(import.meta.dir, "../bench/client.json");
const RESULTS = join(import.meta.dir, "../bench/results.json");

test("README.md shows the table of bench/results.json", async () => {
  const results: Results = await Bun.file(RESULTS).json();
  expect(await readReadme("bench")).toBe(tableOf(results));
  for (const { figures } of results.trials) expect(figures).toHaveLength(results.rounds);
});

test("README.md shows the table of bench/runtimes.json", async () => {
  const results: RuntimeResults = await Bun.file(RUNTIME_RESULTS).json();
  expect(await readReadme("runtimes")).toBe(runtimeTableOf(results));
  for (const { figures } of results.trials) expect(figures).toHaveLength(results.rounds);
});

test("README.md shows the table of bench/client.json", async () => {
  const results: ClientResults = await Bun.file(CLIENT_RESULTS).json();
  expect(await readReadme("client")).toBe(clientTableOf(results));
  for (const { figures } of results.trials) expect(figures).toHaveLength(results.rounds);
});

test("clientTableOf() compares with raw frames, round by round, and says whether the goal is reached", () => {
  const trial = (system: string, ...all: readonly number[]): TrialResult => ({
    system,
    workload: "consume",
    path: "p",
    figures: rates(...all),
  });
  const rowOf = (...all: readonly number[]) => {
    const trials = [trial("raw frames", 10_000, 20_000, 40_000), trial("the library", ...all)];
    return clientTableOf({ machine: "m", rounds: 3, recordsARound: 1_000, trials }).split("\n")[2];
  };
  expect(rowOf(20_000, 16_000, 4_000)).toEndWith("| 0.80 | 0.8 × ✓ |");
  expect(rowOf(20_000, 15_900, 4_000)).toEndWith("| 0.8 × ✗ |");
});

test("runtimeTableOf() compares with Bun on the same database, round by round", () => {
  const trial = (system: string, ...all: readonly number[]): TrialResult => ({
    system,
    workload: "produce",
    path: "p",
    figures: rates(...all),
  });
  const table = runtimeTableOf({
    machine: "m",
    rounds: 3,
    recordsARound: 1_000,
    trials: [
      trial("Bun, file", 10, 20, 40),
      trial("Deno, file", 20, 20, 20),
      trial("Workers, sqld", 1, 2, 3),
    ],
  });
  expect(table.split("\n")[2]).toBe("| produce: p | 0.0k | 0.0k (1.00 ×) | 0.0k |");
});

const rates = (...all: readonly number[]) => all.map((rate) => ({ rate }));
const times = (p50Ms: number, p99Ms: number) => [{ p50Ms, p99Ms, maxMs: 9 }];

function lineOf(trials: readonly TrialResult[], part: string): string {
  const results: Results = { machine: "m", rounds: 1, recordsARound: 1_000, systems: [], trials };
  return (
    tableOf(results)
      .split("\n")
      .find((line) => line.includes(part)) ?? ""
  );
}

test("tableOf() compares with Tidemark by the median of each round's ratio, not by the ratio of the medians", () => {
  const trials: readonly TrialResult[] = [
    { system: "Tidemark", workload: "produce", path: "p", figures: rates(100_000, 300_000, 200_000) },
    { system: "Redis Streams", workload: "produce", path: "q", figures: rates(100_000, 200_000, 50_000) },
  ];
  expect(lineOf(trials, "Redis")).toBe("| Redis Streams: q | 100k (50k–200k) | 1.50 × | ≥ 1.5 ×: reached |");
  expect(lineOf(trials, "Tidemark: p")).toBe("| Tidemark: p | 200k (100k–300k) |  |  |");
});

test.each([
  ["produce", "raw libSQL", rates(133_000), "≥ 0.75 ×: reached"],
  ["produce", "raw libSQL", rates(134_000), "≥ 0.75 ×: **not reached**"],
  ["single", "Tidemark", rates(20_000), "≥ 20k: reached"],
  ["single", "Tidemark", rates(19_999), "≥ 20k: **not reached**"],
  ["latency", "Tidemark", times(1, 5), "p50 ≤ 1, p99 ≤ 5 ms: reached"],
  ["latency", "Tidemark", times(1.1, 5), "p50 ≤ 1, p99 ≤ 5 ms: **not reached**"],
  ["latency", "Tidemark", times(1, 5.1), "p50 ≤ 1, p99 ≤ 5 ms: **not reached**"],
] as const)("tableOf() says of %s of %s at %j: %s", (workload, system, figures, said) => {
  const subject: TrialResult = { system: "Tidemark", workload, path: "subject", figures: rates(100_000) };
  const trial: TrialResult = { system, workload, path: "over HTTP", figures };
  expect(lineOf([subject, trial], "over HTTP")).toContain(` ${said} |`);
});

test("tableOf() has a row that says why a system is missing", () => {
  const systems = [{ name: "NATS JetStream", version: "", durability: "", missing: "it is not installed" }];
  const trials: readonly TrialResult[] = [
    { system: "Tidemark", workload: "produce", path: "p", figures: rates(1) },
  ];
  const table = tableOf({ machine: "m", rounds: 1, recordsARound: 1_000, systems, trials });
  expect(table).toContain("| NATS JetStream: it is not installed | – | – | |");
});

test("README.md shows the table of bench/growth.json", async () => {
  const growth: Growth = await Bun.file(join(import.meta.dir, "../bench/growth.json")).json();
  expect(await readReadme("growth")).toBe(growthTableOf(growth));
});

test("growthTableOf() gives the median of each round's ratio, and says of memory whether it is within its goal", () => {
  const figures = { small: [10, 20, 100], large: [10, 40, 300] };
  const costs = [{ what: "w", small: "1", large: "9", figures }];
  const memory = [2, 3].map((mib) => ({
    what: `${mib}`,
    bytes: mib * 1024 * 1024,
    bytesMax: 2 * 1024 * 1024,
  }));
  const lines = growthTableOf({ costs, memory }).split("\n");
  expect(lines).toContain("| w | 1 | 20.0 (10.0–100) | 9 | 40.0 (10.0–300) | 2.00 |");
  expect(lines).toContain("| 2 | 2.0 | ≤ 2: reached |");
  expect(lines).toContain("| 3 | 3.0 | ≤ 2: **not reached** |");
});
