import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  decodeString,
  decodeUtf8,
  depthOf,
  isSpace,
  JsonCursor,
  kindOf,
  utf8Length,
} from "../../src/core/json-text.ts";
import { Problem } from "../../src/core/problem.ts";
import { findBadText } from "../../src/protocol/text.ts";
import { jsonStringText, jsonText, surrounded } from "../support/json-text-arbitrary.ts";

function elementsOf(text: string): { elements: string[]; rest: string } {
  const cursor = new JsonCursor(text);
  const elements: string[] = [];
  for (let more = cursor.enter(); more; more = cursor.next()) elements.push(cursor.take());
  return { elements, rest: text.slice(cursor.at).trim() };
}

function membersOf(text: string): { members: string[][]; rest: string } {
  const cursor = new JsonCursor(text);
  const members: string[][] = [];
  for (let more = cursor.enter(); more; more = cursor.next()) members.push([cursor.name(), cursor.take()]);
  return { members, rest: text.slice(cursor.at).trim() };
}

// ── JsonCursor ───────────────────────────────────────────────────────────────────────────────────────────

test("JsonCursor.take() gives the elements of an array as their texts stand", () => {
  const spaced = fc.array(fc.tuple(jsonText, fc.constantFrom("", " ", "\r\n\t")));
  fc.assert(
    fc.property(spaced, (items) => {
      const text = ` [${items.map(([item, gap]) => `${gap}${item}${gap}`).join(",")} ] `;
      expect(elementsOf(text)).toEqual({ elements: items.map(([item]) => item), rest: "" });
    }),
  );
});

test("JsonCursor.name() gives the names of an object decoded, in order, the repeated ones too", () => {
  const items = fc.array(fc.tuple(jsonStringText, jsonText, fc.constantFrom("", " ", "\r\n\t")));
  fc.assert(
    fc.property(items, (members) => {
      const texts = members.map(([name, value, gap]) => `${gap}${name}${gap}:${gap}${value}${gap}`);
      const expected = members.map(([name, value]) => [JSON.parse(name), value]);
      expect(membersOf(`{${texts.join(",")}}`)).toEqual({ members: expected, rest: "" });
    }),
  );
});

test("JsonCursor.take() passes the whole of any value, and nothing else", () => {
  fc.assert(
    fc.property(surrounded(jsonText), (text) => {
      const cursor = new JsonCursor(text);
      expect(cursor.take()).toBe(text.trim());
      expect(text.slice(cursor.at).trim()).toBe("");
    }),
  );
});

test("JsonCursor.enter() lets the caller walk what is inside, and next() goes on behind it", () => {
  const cursor = new JsonCursor('[[1, [] ], {"a": {}}, 2]');
  expect(cursor.enter()).toBe(true);
  expect([cursor.enter(), cursor.take(), cursor.next()]).toEqual([true, "1", true]);
  expect([cursor.enter(), cursor.next()]).toEqual([false, false]);
  expect([cursor.next(), cursor.enter(), cursor.name()]).toEqual([true, true, "a"]);
  expect([cursor.enter(), cursor.next()]).toEqual([false, false]);
  expect([cursor.next(), cursor.take(), cursor.next()]).toEqual([true, "2", false]);
  expect(cursor.at).toBe(cursor.text.length);
});

test("JsonCursor ends on text that is not JSON", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom(...'[]{}",:\\ 1') })), (text) => {
      new JsonCursor(text).take();
      elementsOf(text);
    }),
  );
});

test.each([
  ["a quote behind one backslash", String.raw`["\"",1]`, [String.raw`"\""`, "1"]],
  ["a quote behind two", String.raw`["\\",1]`, [String.raw`"\\"`, "1"]],
  ["a quote behind three", String.raw`["\\\"",1]`, [String.raw`"\\\""`, "1"]],
  ["brackets in a string", '["]}[{,",1]', ['"]}[{,"', "1"]],
  ["an empty string", '["",1]', ['""', "1"]],
  ["U+2028 and an emoji", '["\u2028","🌊"]', ['"\u2028"', '"🌊"']],
  ["scalars", "[1,-2.5e+3 ,true,null]", ["1", "-2.5e+3", "true", "null"]],
])("JsonCursor.take() is not misled by %s", (_, text, elements) => {
  expect(elementsOf(text)).toEqual({ elements, rest: "" });
});

// ── depth ────────────────────────────────────────────────────────────────────────────────────────────────

function depthOracle(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depthOracle));
}

test.each([
  ["1", 0],
  ['"[[["', 0],
  ["[]", 1],
  ["{}", 1],
  ['{"[":"{"}', 1],
  ["[[],[[]],[]]", 3],
  ['{"a":[{"b":[]}]}', 4],
  [' [ { "a" : [ ] } ] ', 3],
])("depthOf() of %s is %d", (text, depth) => {
  expect(depthOf(text)).toBe(depth);
});

test("depthOf() is the depth of the parsed value", () => {
  fc.assert(
    // JSON.stringify leaves every member in once; of a repeated one, JSON.parse would hide the depth.
    fc.property(jsonText, (text) => {
      const value: unknown = JSON.parse(text);
      expect(depthOf(JSON.stringify(value))).toBe(depthOracle(value));
    }),
  );
});

test("JsonCursor.take() says the depth of each value by itself", () => {
  const cursor = new JsonCursor("[[[1]],2,[]]");
  const depths: number[] = [];
  for (let more = cursor.enter(); more; more = cursor.next()) {
    cursor.take();
    depths.push(cursor.depth);
  }
  expect(depths).toEqual([2, 0, 1]);
});

test.each([
  ["arrays", "[".repeat(1_000_000) + "]".repeat(1_000_000)],
  ["objects", `${'{"a":'.repeat(1_000_000)}1${"}".repeat(1_000_000)}`],
])("depthOf() walks a million %s inside one another", (_, text) => {
  expect(depthOf(text)).toBe(1_000_000);
});

// ── parts ────────────────────────────────────────────────────────────────────────────────────────────────

test.each([
  ['"a"', "string"],
  ["{}", "object"],
  ["[]", "array"],
  ["null", "null"],
  ["true", "boolean"],
  ["false", "boolean"],
  ["-1", "number"],
  ["0", "number"],
] as const)("kindOf() of %s is %s", (text, kind) => {
  expect(kindOf(text)).toBe(kind);
});

test("decodeString() is JSON.parse of a string", () => {
  fc.assert(fc.property(jsonStringText, (text) => expect(decodeString(text)).toBe(JSON.parse(text))));
});

test("isSpace() is true for the four white spaces of JSON only", () => {
  const codes = Array.from({ length: 0x10000 }, (_, code) => code).filter(isSpace);
  expect(codes).toEqual([0x09, 0x0a, 0x0d, 0x20]);
});

test("utf8Length() is the length of the encoded text", () => {
  const longer = fc.string({ unit: "binary", minLength: 4000, maxLength: 4200, size: "max" });
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: "binary" }), longer), (text) => {
      expect(utf8Length(text)).toBe(new TextEncoder().encode(text).length);
    }),
    { numRuns: 50 },
  );
});

test.each([4095, 4096, 4097, 100_000])("utf8Length() of %d characters of one byte and of four", (length) => {
  expect(utf8Length("a".repeat(length))).toBe(length);
  expect(utf8Length("🌊".repeat(length))).toBe(4 * length);
});

test.each([
  ["nothing in good text", "grün 🌊\u2028", null],
  ["a high surrogate alone", "a\ud800b", "lone surrogate"],
  ["a low surrogate alone", "\udc00", "lone surrogate"],
  ["surrogates the wrong way round", "\udc00\ud800", "lone surrogate"],
  ["NUL", "a\0", "NUL"],
])("findBadText() finds %s", (_, text, found) => {
  expect(findBadText(text)).toBe(found as ReturnType<typeof findBadText>); // test.each widens it to string
});

// ── decodeUtf8 ───────────────────────────────────────────────────────────────────────────────────────────

test("decodeUtf8() gives any text back", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      expect(decodeUtf8(new TextEncoder().encode(`"${text}"`))).toBe(`"${text}"`);
    }),
  );
});

test("decodeUtf8() drops one byte order mark at the start and keeps every other", () => {
  const decode = (text: string) => decodeUtf8(new TextEncoder().encode(text));
  expect(decode("\ufeff[1]")).toBe("[1]");
  expect(decode("\ufeff\ufeff[1]")).toBe("\ufeff[1]");
  expect(decode('"\ufeff"')).toBe('"\ufeff"');
});

test.each([
  ["a byte that UTF-8 has not", [0x22, 0xff, 0x22]],
  ["a sequence cut off at the end", [0x22, 0xe2, 0x82]],
  ["a continuation byte alone", [0x80]],
  ["an overlong slash", [0xc0, 0xaf]],
  ["an encoded surrogate", [0xed, 0xa0, 0x80]],
  ["a code point above U+10FFFF", [0xf4, 0x90, 0x80, 0x80]],
])("decodeUtf8() refuses %s, and the next body is read from its start", (_, bytes) => {
  expect(() => decodeUtf8(Uint8Array.from(bytes))).toThrow(Problem);
  expect(() => decodeUtf8(Uint8Array.from(bytes))).toThrow(
    "Cannot read the body: found bytes that are not UTF-8",
  );
  expect(decodeUtf8(Uint8Array.of(0x31))).toBe("1");
});
