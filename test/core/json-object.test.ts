import { describe, expect, test } from "bun:test";
import { findAmbiguity, parseJsonObject, recordsTexts } from "../../src/core/json-object.ts";

describe("recordsTexts()", () => {
  test.each([
    ['{"records":[1]}', ["[1]"]],
    [' { "a" : {"records":[0]} , "records" : [ 2.0, "]}" ] } ', ["[0]", '[ 2.0, "]}" ]']],
    ['{"rec\\u006frds":1E400}', ["1E400"]],
    ['{"records":[{"b":1,"b":2}],"b":[{"b":1}]}', ['[{"b":1,"b":2}]']],
    ['{"appends":[{"records":[1]},{"topic":"a","records":[2]}]}', ["[1]", "[2]"]],
    [`{"records":${"[".repeat(99)}${"]".repeat(99)}}`, [`${"[".repeat(99)}${"]".repeat(99)}`]],
    ['{"a":1}', []],
  ])("of %s are %j", (text, texts) => {
    expect(recordsTexts(text)).toEqual(texts);
  });

  test.each([
    '{"records":1,"records":2}',
    '{"a":1,"records":1,"a":2}',
    '{"records":1,"\\u0061":1,"a":2}',
    '{"records":1,"a":{"b":1,"b":1}}',
    '{"appends":[{"records":[1],"records":[2]}]}',
  ])("refuses a member that stands twice: %s", (text) => {
    const isTwice = expect.objectContaining({
      code: "bad_request",
      message: expect.stringContaining("twice"),
    });
    expect(() => recordsTexts(text)).toThrow(isTwice);
  });
});

test("parseJsonObject() takes objects and nothing else", () => {
  expect(parseJsonObject('{"a":1}')).toEqual({ a: 1 });
  for (const text of ["", "[]", "null", "1", '"a"', "{", '{"a":1}x'])
    expect(parseJsonObject(text)).toBeUndefined();
});

test("findAmbiguity() finds a member that stands twice at any depth, and depth itself", () => {
  expect(findAmbiguity('{"a":1,"b":[{"a":1},{"a":1}]}')).toBeUndefined();
  expect(findAmbiguity('{"b":[{"a":1,"a":1}]}')).toContain('"a" is there twice');
  expect(findAmbiguity(`{"a":${"[".repeat(16)}${"]".repeat(16)}}`)).toContain("deeper than 16");
  expect(findAmbiguity(`{"a":${"[".repeat(15)}${"]".repeat(15)}}`)).toBeUndefined();
});
