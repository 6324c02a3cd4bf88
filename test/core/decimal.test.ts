import { expect, test } from "bun:test";
import { parseDecimal } from "../../src/core/decimal.ts";

test.each([
  ["0", 0],
  ["7", 7],
  ["1000", 1_000],
  ["9007199254740991", Number.MAX_SAFE_INTEGER],
])("parseDecimal() takes %s", (text, number) => {
  expect(parseDecimal(text)).toBe(number);
});

test.each([
  "",
  " 1",
  "1 ",
  "1\n",
  "01",
  "00",
  "+1",
  "-1",
  "-0",
  "1.0",
  "1e3",
  "0x10",
  "1_000",
  "٣",
  "NaN",
  "Infinity",
  "9007199254740992",
  "99999999999999999999",
])("parseDecimal() refuses %j", (text) => {
  expect(parseDecimal(text)).toBeUndefined();
});
