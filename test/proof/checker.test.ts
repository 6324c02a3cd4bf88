// The checker is checked: it must find nothing in good histories, and what was put into the others.

import { describe, expect, test } from "bun:test";
import { isLongRun } from "../support/long.ts";
import { ANOMALY_NAMES, findAnomalies } from "./checker.ts";
import { goodHistory } from "./good-history.ts";
import { COMMIT_MUTATIONS } from "./mutations/commits.ts";
import { FRAME_MUTATIONS } from "./mutations/frames.ts";
import { KEEPING_MUTATIONS } from "./mutations/keeping.ts";
import { Facts } from "./mutations/mutation.ts";
import { OWNERSHIP_MUTATIONS } from "./mutations/ownership.ts";
import { RECORD_MUTATIONS } from "./mutations/records.ts";
import { SNAPSHOT_MUTATIONS } from "./mutations/snapshots.ts";

const MUTATIONS = [
  ...RECORD_MUTATIONS,
  ...FRAME_MUTATIONS,
  ...OWNERSHIP_MUTATIONS,
  ...COMMIT_MUTATIONS,
  ...SNAPSHOT_MUTATIONS,
  ...KEEPING_MUTATIONS,
];
const GOOD = isLongRun ? { seeds: 5_000, steps: 300 } : { seeds: 100, steps: 120 };
const SPOILT = isLongRun ? { seeds: 80, steps: 200 } : { seeds: 200, steps: 120 };
/** Of each mutation: the quick run tries some; the long one a dozen of each seed, where all would take minutes. */
const PLACES_MAX = isLongRun ? Number.POSITIVE_INFINITY : 8;
const PLACES_OF_SEED_MAX = isLongRun ? 12 : 2;
const TEST_TIMEOUT_MS = isLongRun ? 1_800_000 : 20_000;

describe("findAnomalies()", () => {
  test(
    "finds nothing in good histories",
    () => {
      for (let seed = 1; seed <= GOOD.seeds; seed += 1)
        expect({ seed, anomalies: findAnomalies(goodHistory(seed, GOOD.steps)) }).toEqual({
          seed,
          anomalies: [],
        });
    },
    TEST_TIMEOUT_MS,
  );

  const facts: Facts[] = [];
  const factsOf = (seed: number) => (facts[seed] ??= new Facts(goodHistory(seed, SPOILT.steps)));
  const found = new Set<string>();
  let places = 0;

  test.each(MUTATIONS)(
    "finds that $name",
    ({ expected, spoil }) => {
      let tried = 0;
      for (let seed = 1; seed <= SPOILT.seeds && tried < PLACES_MAX; seed += 1)
        for (const history of Iterator.from(spoil(factsOf(seed))).take(PLACES_OF_SEED_MAX)) {
          tried += 1;
          const names = findAnomalies(history).map(({ name }) => name);
          for (const name of names) found.add(name);
          if (!expected.some((name) => names.includes(name)))
            throw new Error(`seed ${seed}, place ${tried}: found ${names.join(", ") || "nothing"}`);
        }
      places += tried;
      expect(tried).toBeGreaterThan(isLongRun ? 5 : 1);
    },
    TEST_TIMEOUT_MS,
  );

  test("has found every anomaly that it has a name for", () => {
    expect(ANOMALY_NAMES.filter((name) => !found.has(name))).toEqual([]);
    expect(new Set(MUTATIONS.flatMap(({ expected }) => expected)).size).toBe(ANOMALY_NAMES.length);
    console.log(`checker: ${MUTATIONS.length} mutations at ${places} places, all found`);
  });
});
