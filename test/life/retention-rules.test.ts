import { describe, expect, test } from "bun:test";
import { findRetentionFaults } from "./retention-rules.ts";

const LIMITS = { newest: { records: 30 }, fresh: { ms: 1_000 } };

/** One partition, as it was seen at these times. */
function looksAt(topic: string, ...seen: readonly (readonly [atMs: number, start: number, end: number])[]) {
  return seen.map(([atMs, logStartOffset, logEndOffset]) => ({
    fromMs: atMs - 5,
    atMs,
    isAtRest: false,
    retained: [{ topic, partition: 0, logStartOffset, logEndOffset }],
  }));
}

const atRest = <T extends object>(looks: readonly T[]) => looks.map((look) => ({ ...look, isAtRest: true }));

describe("findRetentionFaults()", () => {
  test("has nothing to say of a topic that keeps its newest records", () => {
    const looks = looksAt("newest", [100, 0, 10], [200, 0, 90], [300, 40, 90], [400, 60, 90]);
    expect(findRetentionFaults(looks, LIMITS)).toEqual([]);
    expect(findRetentionFaults(atRest(looksAt("newest", [400, 60, 90], [500, 60, 90])), LIMITS)).toEqual([]);
  });

  test("has nothing to say of a topic that keeps what is young", () => {
    const looks = looksAt("fresh", [100, 0, 10], [1_000, 0, 20], [1_106, 10, 20], [2_100, 20, 20]);
    expect(findRetentionFaults(looks, LIMITS)).toEqual([]);
  });

  test("finds a log start, or an end, that went back", () => {
    expect(findRetentionFaults(looksAt("newest", [100, 20, 60], [200, 10, 60]), LIMITS)).toEqual([
      "newest/0: went back from [20, 60) to [10, 60)",
    ]);
    expect(findRetentionFaults(looksAt("fresh", [100, 0, 60], [200, 0, 59]), LIMITS)).toEqual([
      "fresh/0: went back from [0, 60) to [0, 59)",
    ]);
  });

  test("finds one of the newest records that is gone", () => {
    expect(findRetentionFaults(looksAt("newest", [100, 31, 60]), LIMITS)).toEqual([
      "newest/0: keeps [31, 60), which is less than 30 records",
    ]);
    expect(findRetentionFaults(looksAt("newest", [100, 1, 20]), LIMITS)).toHaveLength(1);
  });

  test("finds a record that is gone before its time", () => {
    expect(findRetentionFaults(looksAt("fresh", [100, 0, 10], [900, 11, 20]), LIMITS)).toEqual([
      "fresh/0: offset 10 is gone and cannot be older than 805 ms of 1000",
    ]);
    expect(findRetentionFaults(looksAt("fresh", [100, 0, 10], [900, 10, 20]), LIMITS)).toEqual([]);
    expect(findRetentionFaults(looksAt("fresh", [100, 0, 10], [1_100, 11, 20]), LIMITS)).toEqual([]);
  });

  test("finds what is left at rest", () => {
    expect(findRetentionFaults(atRest(looksAt("newest", [100, 10, 41])), LIMITS)).toEqual([
      "newest/0: still has [10, 41) when all is done",
    ]);
    expect(findRetentionFaults(atRest(looksAt("fresh", [100, 10, 11])), LIMITS)).toHaveLength(1);
    expect(findRetentionFaults(atRest(looksAt("fresh", [100, 11, 11])), LIMITS)).toEqual([]);
  });
});
