import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { OffsetSet } from "./offset-set.ts";

const END = 40;
const offset = fc.integer({ min: 0, max: END });
const range = fc.record({ from: offset, until: offset });

describe("OffsetSet", () => {
  test("agrees with a set of numbers, for any ranges", () => {
    fc.assert(
      fc.property(fc.array(range), range, (ranges, { from, until }) => {
        const ours = new OffsetSet();
        const plain = new Set<number>();
        for (const each of ranges) {
          ours.add(each.from, each.until);
          for (let number = each.from; number < each.until; number += 1) plain.add(number);
        }
        const asked = Array.from({ length: Math.max(0, until - from) }, (_, index) => from + index);
        expect(ours.firstMissing(from, until)).toBe(asked.find((number) => !plain.has(number)));
        expect(ours.end).toBe(Math.max(-1, ...plain) + 1);
      }),
    );
  });

  test("takes a million offsets that come one after the other, and a thousand gaps", () => {
    const set = new OffsetSet();
    for (let number = 0; number < 1_000_000; number += 1) if (number % 1_000 > 0) set.add(number, number + 1);
    expect(set.firstMissing(1, 1_000_000)).toBe(1_000);
    for (let number = 0; number < 1_000_000; number += 1_000) set.add(number, number + 1);
    expect(set.firstMissing(0, 1_000_000)).toBeUndefined();
    expect(set.firstMissing(0, 1_000_001)).toBe(1_000_000);
  });
});
