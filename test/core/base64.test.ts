import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { base64Length, decodeBase64 } from "../../src/core/base64.ts";

const EVERY_BYTE = Uint8Array.from({ length: 256 }, (_, byte) => byte);

const base64Of = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");

describe("decodeBase64()", () => {
  // RFC 4648, section 10
  test.each([
    ["", ""],
    ["Zg==", "f"],
    ["Zm8=", "fo"],
    ["Zm9v", "foo"],
    ["Zm9vYg==", "foob"],
    ["Zm9vYmE=", "fooba"],
    ["Zm9vYmFy", "foobar"],
  ])("takes %j for %j", (base64, text) => {
    expect(decodeBase64(base64)).toEqual(new TextEncoder().encode(text));
  });

  test("gives every byte back", () => {
    expect(decodeBase64(base64Of(EVERY_BYTE))).toEqual(EVERY_BYTE);
  });

  test.each([
    ["a space in front", " AAAA"],
    ["a space inside", "AA AA"],
    ["a newline inside", "AAAA\nAAAA"],
    ["a newline at the end", "AAAA\n"],
    ["a tab before the padding", "AA\t=="],
    ["white space alone", " "],
    ["four spaces, as long as three bytes", "    "],
    ["the alphabet for URLs, -", "AA-A"],
    ["the alphabet for URLs, _", "AA_A"],
    ["one letter", "A"],
    ["two letters without padding", "AA"],
    ["three letters without padding", "AAA"],
    ["half of its padding", "AA="],
    ["padding alone", "===="],
    ["padding that nothing needs", "AAAA===="],
    ["padding after one letter", "A==="],
    ["more behind the padding", "AA==AAAA"],
    ["bits behind one byte", "AB=="],
    ["bits behind two bytes", "AAB="],
    ["a letter of another alphabet", "ÄAAA"],
    ["full-width letters", "ＡＡＡＡ"],
    ["NUL", "AAA\0"],
    ["a lone surrogate", "AAA\ud800"],
    ["a data URL", "data:;base64,AAAA"],
  ])("refuses %s", (_, text) => {
    expect(decodeBase64(text)).toBeUndefined();
  });

  test("takes just the text that these bytes are encoded as, of all texts", () => {
    const text = fc.oneof(
      fc.string({ unit: fc.constantFrom(..."ABCwxyz0189+/=-_ \n"), maxLength: 12 }),
      fc.uint8Array({ maxLength: 40 }).map(base64Of),
    );
    fc.assert(
      fc.property(text, (candidate) => {
        const lenient = Buffer.from(candidate, "base64");
        const expected = base64Of(lenient) === candidate ? new Uint8Array(lenient) : undefined;
        expect(decodeBase64(candidate)).toEqual(expected);
      }),
      { numRuns: 2_000 },
    );
  });
});

test("base64Length() is the length of so many bytes as base64", () => {
  for (let bytes = 0; bytes < 100; bytes += 1)
    expect(base64Length(bytes)).toBe(base64Of(new Uint8Array(bytes)).length);
});
