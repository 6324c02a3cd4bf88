import { describe, expect, test } from "bun:test";
import {
  assumedOffset,
  type FetchPlace,
  parsePlace,
  placeInside,
  policyOffset,
  policyText,
  resolvePlace,
  timeOf,
} from "../../src/core/places.ts";
import { Problem } from "../../src/core/problem.ts";
import type { Place, ResetPolicy } from "../../src/protocol/places.ts";

const BOUNDS = { logStartOffset: 40, logEndOffset: 100 };

describe("parsePlace()", () => {
  test.each<[string, FetchPlace]>([
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

describe("resolvePlace()", () => {
  const facts = { ...BOUNDS, committedOffset: 60, offsetAtTime: 70 };
  test.each<[Place, number]>([
    ["earliest", 40],
    ["latest", 100],
    ["current", 60],
    [{ offset: 40 }, 40],
    [{ offset: 99 }, 99],
    [{ offset: 100 }, 100],
    [{ timestamp: 5 }, 70],
    [{ ago: 5 }, 70],
    [{ shift: 0 }, 60],
    [{ shift: 10 }, 70],
    [{ shift: -10 }, 50],
    [{ shift: 41 }, 100],
    [{ shift: -21 }, 40],
    [{ shift: Number.MAX_SAFE_INTEGER }, 100],
    [{ shift: -Number.MAX_SAFE_INTEGER }, 40],
  ])("of %j in [40, 100), 60 committed, is %d", (place, offset) => {
    expect(resolvePlace(place, facts)).toBe(offset);
  });

  test.each<[committedOffset: number, inside: number]>([
    [0, 40],
    [39, 40],
    [101, 100],
  ])("of current puts the committed offset %d inside the log", (committedOffset, inside) => {
    expect(resolvePlace("current", { ...BOUNDS, committedOffset })).toBe(inside);
  });

  test.each<[offsetAtTime: number, inside: number]>([
    [39, 40],
    [101, 100],
  ])("of a time puts the offset %d, which has left the log since, inside of it", (offsetAtTime, inside) => {
    for (const place of [{ timestamp: 5 }, { ago: 5 }])
      expect(resolvePlace(place, { ...BOUNDS, committedOffset: null, offsetAtTime })).toBe(inside);
  });

  test.each([39, 101])("refuses the offset %d", (offset) => {
    expect(() => resolvePlace({ offset }, facts)).toThrow("log start offset is 40, log end offset is 100");
  });

  test.each<Place>(["current", { shift: 0 }, { shift: 5 }])(
    "refuses %j where nothing is committed",
    (place) => {
      const resolve = () => resolvePlace(place, { ...BOUNDS, committedOffset: null });
      expect(resolve).toThrow(expect.objectContaining({ code: "no_committed_offset" }));
    },
  );

  test("of a time that nobody has looked up is a defect, not a guess", () => {
    expect(() => resolvePlace({ ago: 5 }, { ...BOUNDS, committedOffset: 60 })).toThrow("not looked up");
  });
});

test("policyOffset() of a time is where the look-up led, put inside the log", () => {
  const at = (offsetAtTime: number) =>
    policyOffset({ ago: 5 }, { ...BOUNDS, committedOffset: null, offsetAtTime });
  expect([39, 40, 70, 100, 101].map(at)).toEqual([40, 40, 70, 100, 100]);
});

test("timeOf() finds the time of places and policies that are one", () => {
  expect(timeOf({ timestamp: 5 })).toEqual({ timestamp: 5 });
  expect(timeOf({ ago: 0 })).toEqual({ ago: 0 });
  for (const place of ["earliest", "latest", "none", "current", { offset: 5 }, { shift: 5 }] as const)
    expect(timeOf(place)).toBeUndefined();
});

test.each<[ResetPolicy, string]>([
  ["earliest", "earliest"],
  ["none", "none"],
  [{ ago: 60_000 }, "ago 60000 ms"],
  [{ timestamp: 0 }, "timestamp 0"],
])("policyText() says %j as the history of commits has it", (policy, text) => {
  expect(policyText(policy)).toBe(text);
});
