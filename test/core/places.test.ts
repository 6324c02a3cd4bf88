import { describe, expect, test } from "bun:test";
import { assumedOffset, type Place, parsePlace, placeInside } from "../../src/core/places.ts";
import { Problem } from "../../src/core/problem.ts";

const BOUNDS = { logStartOffset: 40, logEndOffset: 100 };

describe("parsePlace()", () => {
  test.each<[string, Place]>([
    ["earliest", "earliest"],
    ["latest", "latest"],
    ["0", { offset: 0 }],
    ["9007199254740991", { offset: Number.MAX_SAFE_INTEGER }],
    ["@0", { timestamp: 0 }],
    ["@1740830400000", { timestamp: 1_740_830_400_000 }],
  ])("reads %s", (text, place) => {
    expect(parsePlace(text)).toEqual(place);
  });

  test.each([
    "",
    "@",
    "-1",
    "@-1",
    "01",
    "1.5",
    "@@1",
    "Earliest",
    "current",
    "1 ",
    "9007199254740992",
    "@now",
  ])("refuses %j", (text) => {
    expect(parsePlace(text)).toBeUndefined();
  });
});

test("assumedOffset() is where placeInside() finds the place, whatever the bounds", () => {
  for (const bounds of [BOUNDS, { logStartOffset: 0, logEndOffset: 0 }]) {
    expect(placeInside("earliest", assumedOffset("earliest"), bounds)).toBe(bounds.logStartOffset);
    expect(placeInside("latest", assumedOffset("latest"), bounds)).toBe(bounds.logEndOffset);
  }
  expect(assumedOffset({ offset: 41 })).toBe(41);
});

describe("placeInside()", () => {
  test("keeps a position that is inside, both ends included", () => {
    for (const place of ["earliest", "latest", { offset: 1 }, { timestamp: 1 }] as const) {
      for (const position of [40, 41, 100]) expect(placeInside(place, position, BOUNDS)).toBe(position);
    }
  });

  test("moves a place that has fallen outside to the nearer end", () => {
    for (const place of ["earliest", "latest", { timestamp: 1 }] as const) {
      expect(placeInside(place, 39, BOUNDS)).toBe(40);
      expect(placeInside(place, 101, BOUNDS)).toBe(100);
    }
  });

  test.each([0, 39, 101, Number.MAX_SAFE_INTEGER])("refuses the offset %d, with the bounds", (offset) => {
    const refusal = (() => {
      try {
        return placeInside({ offset }, offset, BOUNDS);
      } catch (error) {
        return error;
      }
    })();
    if (!(refusal instanceof Problem)) throw new Error(`expected a Problem, found ${refusal}`);
    expect(refusal).toMatchObject({ code: "offset_out_of_range", facts: BOUNDS });
    expect(refusal.message).toContain("log start offset is 40, log end offset is 100");
  });
});
