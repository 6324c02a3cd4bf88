// Browser-safe. What the schemas of the wire are made of: integers, names, texts, lists, choices.
//
// Some of these judge an input in a way that no other description of a schema can say (a list is counted before it is
// looked into). `documents` names the plain schema that means the same, for OpenAPI and AsyncAPI. Behind a check
// stands what it is in JSON Schema, as metadata, or a description of what JSON Schema cannot say.

import * as v from "valibot";
import { INTEGER_MAX, METADATA_BYTES_MAX, NAME_PATTERN } from "../limits.ts";
import { findBadText } from "../text.ts";

const FRAME_ID_CHARACTERS_MAX = 249;

/** A schema that stands for another, simpler one wherever the wire is described. */
export interface Documented {
  readonly documents: v.GenericSchema;
}

function documentedAs<Schema extends v.GenericSchema>(
  schema: Schema,
  documents: v.GenericSchema,
): Schema & Documented {
  return Object.assign(schema, { documents });
}

export const integer = (minimum: number, maximum: number) => {
  const rule = `must be an integer from ${minimum} to ${maximum}`;
  return v.pipe(v.number(), v.integer(rule), v.minValue(minimum, rule), v.maxValue(maximum, rule));
};

export const offset = integer(0, INTEGER_MAX);
export const timestampMs = integer(0, INTEGER_MAX);

/** An array is an object to JavaScript, and one with no member that is missing where all are optional. */
const isNoArray = v.custom<object>(
  (input) => typeof input === "object" && input !== null && !Array.isArray(input),
  "must be an object",
);

/** An object all of whose members may be absent. */
export const looseMembers = <const Entries extends v.ObjectEntries>(entries: Entries) => {
  const members = v.strictObject(entries);
  return documentedAs(v.pipe(isNoArray, members), members);
};

const isGoodText = v.check<string, string>(
  (input) => findBadText(input) === null,
  "must not hold NUL or a lone surrogate",
);

const GOOD_TEXT = "without NUL and lone surrogates";

export const text = (charactersMax: number) =>
  v.pipe(
    v.string(),
    v.maxLength(charactersMax, `must be at most ${charactersMax} characters`),
    isGoodText,
    v.description(`At most ${charactersMax} UTF-16 code units, ${GOOD_TEXT}.`),
  );

export const textOfBytes = (bytesMax: number) =>
  v.pipe(
    v.string(),
    isGoodText,
    v.description(`At most ${bytesMax} bytes of UTF-8, ${GOOD_TEXT}.`),
    v.check(
      (input) => new TextEncoder().encode(input).length <= bytesMax,
      `must be at most ${bytesMax} bytes of UTF-8`,
    ),
    v.metadata({ maxLength: bytesMax }),
  );

export const goodText = v.pipe(v.string(), isGoodText, v.description(`Text ${GOOD_TEXT}.`));

export const base64 = v.pipe(
  v.string(),
  v.base64("must be base64"),
  v.metadata({ pattern: "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" }),
);

/** Counted before it is looked into: a frame may hold a million mistakes, and each would become an object. */
export const listOf = <const Item extends v.GenericSchema>(item: Item, max: number, min = 1) => {
  const few = `must have at most ${max} entries`;
  const some = "must not be empty";
  return documentedAs(
    v.pipe(v.array(v.unknown()), v.minLength(min, some), v.maxLength(max, few), v.array(item)),
    v.pipe(v.array(item), v.minLength(min, some), v.maxLength(max, few)),
  );
};

/** A union whose option is chosen by a look at the input, so that an error speaks of the one that was meant. */
export const oneOf = <const Options extends readonly [v.GenericSchema, ...v.GenericSchema[]]>(
  options: Options,
  choose: (input: unknown) => Options[number],
) => documentedAs(v.lazy<Options[number]>(choose), v.union(options));

/** One of these words. A check and not a picklist: another word is a string all the same, and not allowed. */
export const word = <const Words extends readonly string[]>(words: Words) =>
  documentedAs(
    v.pipe(
      v.string(),
      v.check((input) => words.includes(input), `must be ${listed(words)}`),
    ) as v.GenericSchema<string, Words[number]>, // the check says so
    v.picklist(words),
  );

function listed(words: readonly string[]): string {
  const quoted = words.map((name) => `"${name}"`);
  return quoted.length === 1 ? String(quoted[0]) : `${quoted.slice(0, -1).join(", ")} or ${quoted.at(-1)}`;
}

export const name = v.pipe(
  v.string(),
  v.regex(NAME_PATTERN, "must be 1 to 249 characters of A-Z a-z 0-9 . _ -"),
  v.check((input) => input !== "." && input !== "..", "must be neither . nor .."),
  v.metadata({ not: { enum: [".", ".."] } }),
);

export const metadata = textOfBytes(METADATA_BYTES_MAX);

/** A record in a batch or a delivery. */
export const hasOneContent = <T extends object>() =>
  v.check<T, string>(
    (input) => Object.hasOwn(input, "value") !== Object.hasOwn(input, "bytes"),
    'must have exactly one of "value" and "bytes"',
  );

export const ONE_CONTENT = { oneOf: [{ required: ["value"] }, { required: ["bytes"] }] };

const frameIdText = text(FRAME_ID_CHARACTERS_MAX);

export const frameId = oneOf([offset, frameIdText], (input) =>
  typeof input === "string" ? frameIdText : offset,
);

export function isObject(input: unknown): input is object {
  return typeof input === "object" && input !== null && !Array.isArray(input);
}

export function hasMember(input: unknown, member: string): boolean {
  return isObject(input) && Object.hasOwn(input, member);
}
