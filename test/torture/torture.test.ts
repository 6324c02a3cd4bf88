// The runner of `bun run torture`, in short: a few faults of each kind. What it finds wrong is a finding of the checker.

import { describe, expect, test } from "bun:test";
import { describeLong } from "../support/long.ts";
import { temporaryFolder } from "../support/server.ts";
import { FlagError, readFlags } from "./flags.ts";
import { runScenario } from "./run-scenario.ts";
import { SCENARIOS } from "./scenarios.ts";

/** Where one fails: `bun run torture --scenario NAME --seed N --history FILE`. */
const SEED = 20_251_126;
const TEST_TIMEOUT_MS = 120_000;

/** How many faults of each kind the suite has time for; together three minutes. */
const LONG_FAULTS: Readonly<Record<string, number>> = {
  kill: 30,
  birth: 10,
  stop: 8,
  lock: 2,
  three: 8,
  "disk-full": 5,
  "sqld-kill": 12,
  "sqld-freeze": 2,
  "server-kill": 4,
  "server-freeze": 1,
  proxy: 60,
  mixed: 3,
  "keeper-kill": 1,
};

async function torture(name: string, faultsMax: number, seed = SEED) {
  const scenario = SCENARIOS.find((each) => each.name === name);
  if (!scenario) throw new Error(`there is no scenario ${name}`);
  using folder = temporaryFolder();
  return runScenario(scenario, {
    seed,
    faultsMax,
    endsAtMs: Number.POSITIVE_INFINITY,
    say: () => {},
    historyPath: `${folder.path}/history.ndjson`,
    isKept: false,
  });
}

test.each([
  ["Bun", SEED],
  ["Deno", SEED + 1],
])(
  "kill -9 of a server under load loses nothing acknowledged, repeats nothing, gives no offset again: on %s",
  async (_, seed) => {
    const { wrong, faults, acknowledged, recordsRead } = await torture("kill", 4, seed);
    expect(wrong).toEqual([]);
    expect(faults).toBe(4);
    expect(acknowledged).toBeGreaterThan(40);
    expect(recordsRead).toBeGreaterThan(100);
  },
  30_000,
);

describe("the flags", () => {
  test("say which scenarios, how long and from which seed", () => {
    expect(readFlags(["--minutes", "2", "--scenario", "kill", "--scenario", "lock", "--seed", "7"])).toEqual({
      minutes: 2,
      isFigures: false,
      scenarios: ["kill", "lock"],
      faults: undefined,
      seed: 7,
      historyPath: undefined,
    });
  });

  test.each(["--hours 1", "--minutes", "--minutes soon", "--kills 0", "--scenario earthquake", "kill"])(
    "that mean nothing are refused: %s",
    (flags) => {
      expect(() => readFlags(flags.split(" "))).toThrow(FlagError);
    },
  );
});

describeLong("torture", "takes three minutes", () => {
  test("has a number of faults for every scenario", () => {
    expect(Object.keys(LONG_FAULTS).sort()).toEqual(SCENARIOS.map(({ name }) => name).sort());
  });

  for (const { name, faults, skipped } of SCENARIOS) {
    const why = skipped?.();
    if (why !== undefined) console.warn(`torture ${name}: skipped, ${why}`);
    test.skipIf(why !== undefined)(
      `${name}: nothing is wrong after some of these: ${faults}`,
      async () => {
        const verdict = await torture(name, LONG_FAULTS[name] ?? 1);
        expect(verdict.wrong).toEqual([]);
        expect(verdict.faults).toBeGreaterThanOrEqual(LONG_FAULTS[name] ?? 1);
      },
      TEST_TIMEOUT_MS,
    );
  }
});
