// Random JSON as text, with everything a writer of JSON may do: white space, escapes, members given twice,
// numbers that no JavaScript number can hold.

import fc from "fast-check";

/** White space around a value; mostly none. */
const space = fc.constantFrom("", "", "", "", " ", "\t", "\r\n  ");

const oddString = fc.constantFrom(
  '"\\ud800"',
  '"\\u0000"',
  '"\\\\"',
  '"\\""',
  '"]}"',
  '"\\\\\\",["',
  '"\u2028"',
);

/** The text of a string that is well formed, with some characters escaped that need not be. */
export const jsonStringText: fc.Arbitrary<string> = fc
  .tuple(fc.string({ unit: "binary", maxLength: 8 }), fc.boolean())
  .map(([value, isEscaped]) => (isEscaped ? `"${escapeAll(value)}"` : JSON.stringify(value)));

/** A JSON value without white space around it. */
export const jsonText: fc.Arbitrary<string> = fc.letrec<{ value: string }>((tie) => {
  const spaced = surrounded(tie("value"));
  const member = fc.tuple(surrounded(jsonStringText), spaced).map((parts) => parts.join(":"));
  const scalar = fc.constantFrom("null", "true", "false", "0", "-0", "2.0", "1E400", "12345678901234567890");
  const array = fc
    .tuple(fc.array(spaced, { maxLength: 4 }), space)
    .map(([items, gap]) => `[${items.join(",") || gap}]`);
  const object = fc
    .tuple(fc.array(member, { maxLength: 4 }), space)
    .map(([items, gap]) => `{${items.join(",") || gap}}`);
  return {
    value: fc.oneof({ maxDepth: 5 }, scalar, oddString, jsonStringText, array, object),
  };
}).value;

/** The same text with random white space before and behind it. */
export function surrounded(text: fc.Arbitrary<string>): fc.Arbitrary<string> {
  return fc.tuple(space, text, space).map((parts) => parts.join(""));
}

function escapeAll(value: string): string {
  return Array.from({ length: value.length }, (_, at) => {
    return `\\u${value.charCodeAt(at).toString(16).padStart(4, "0")}`;
  }).join("");
}
