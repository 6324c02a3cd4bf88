import assert from "node:assert/strict";

const SHOWN_MAX = 1_000;

/** Every member of `expected` is in `found`; an array has as many entries. `found` may have more members. */
export function assertMatches(found: unknown, expected: unknown): void {
  if (!matches(found, expected)) assert.fail(`expected ${show(expected)}, found ${show(found)}`);
}

export function show(value: unknown): string {
  return (JSON.stringify(value) ?? String(value)).slice(0, SHOWN_MAX);
}

function matches(found: unknown, expected: unknown): boolean {
  if (typeof expected !== "object" || expected === null) return Object.is(found, expected);
  if (typeof found !== "object" || found === null) return false;
  if (Array.isArray(expected) && !(Array.isArray(found) && found.length === expected.length)) return false;
  return Object.entries(expected).every(([name, value]) => matches(Reflect.get(found, name), value));
}

/** `first`, `first` + 1, … */
export function countFrom(first: number, end: number): readonly number[] {
  return Array.from({ length: end - first }, (_, index) => first + index);
}
