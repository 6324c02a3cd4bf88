import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { FIRST_RECORDS, nextRecords, STEP_MS, stepOperation } from "../../src/store/upkeep-steps.ts";

describe("nextRecords()", () => {
  test("grows by half at most, where a step takes no time, up to ten thousand", () => {
    const sizes = [FIRST_RECORDS];
    for (let n = 0; n < 10; n += 1) sizes.push(nextRecords(sizes.at(-1) ?? 0, 0));
    expect(sizes.slice(0, 3)).toEqual([500, 750, 1_125]);
    expect(sizes.at(-1)).toBe(10_000);
  });

  test("is halved at most, where a step takes long, down to a hundred", () => {
    expect(nextRecords(1_000, 10)).toBe(500);
    expect(nextRecords(1_000, 60_000)).toBe(500);
    expect(nextRecords(150, 1_000)).toBe(100);
    expect(nextRecords(100, 1_000)).toBe(100);
  });

  test("stays where a step takes what it is to take", () => {
    expect(nextRecords(1_234, STEP_MS)).toBe(1_234);
  });

  test("comes to rest, whatever a record costs, near that time or at a limit", () => {
    fc.assert(
      fc.property(fc.double({ min: 0.0001, max: 1, noNaN: true }), (msARecord) => {
        let records = FIRST_RECORDS;
        for (let n = 0; n < 50; n += 1) records = nextRecords(records, records * msARecord);
        const wanted = Math.min(Math.max(STEP_MS / msARecord, 100), 10_000);
        expect(Math.abs(records - wanted)).toBeLessThanOrEqual(1);
      }),
    );
  });
});

test("stepOperation() says whether there is more by the rows of its last statement, and how long it took", () => {
  const { settle, ...operation } = stepOperation([{ sql: "a" }, { sql: "b" }]);
  expect(operation).toMatchObject({ isAlone: true, afterLostAnswer: "repeat" });
  expect(settle([[{ x: 1 }], []], false, 7)).toEqual({ hasMore: false, tookMs: 7 });
  expect(settle([[], [{ x: 1 }]], false, 8)).toEqual({ hasMore: true, tookMs: 8 });
});
