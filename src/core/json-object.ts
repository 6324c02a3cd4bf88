// The JSON objects of the protocol itself, frames and settings: everything but the values inside records.

import { depthOf, JsonCursor } from "./json-text.ts";
import { Problem } from "./problem.ts";

export type JsonObject = Readonly<Record<string, unknown>>;

/** No frame and no settings nest deeper than this; more is refused before it is walked. */
const OBJECT_DEPTH_MAX = 16;

/** Undefined where the text is not JSON or not an object. */
export function parseJsonObject(text: string): JsonObject | undefined {
  try {
    const input: unknown = JSON.parse(text);
    return isJsonObject(input) ? input : undefined;
  } catch {
    return undefined; // the caller says what it wanted; the parser's own message repeats the input
  }
}

/** For the message about a text that is no JSON object. */
export function foundInstead(text: string): string {
  try {
    const input: unknown = JSON.parse(text);
    return input === null ? "null" : Array.isArray(input) ? "an array" : `a ${typeof input}`;
  } catch {
    return "text that is not JSON";
  }
}

/**
 * What makes the text of a valid JSON object ambiguous: JSON.parse takes the last of two members of one name and
 * another reader the first. Undefined where every member stands once.
 */
export function findAmbiguity(text: string): string | undefined {
  if (depthOf(text) > OBJECT_DEPTH_MAX) return `it nests deeper than ${OBJECT_DEPTH_MAX}`;
  const twice = memberTwice(new JsonCursor(text));
  return twice === undefined ? undefined : `the member "${twice}" is there twice`;
}

/**
 * The text of one member of a valid JSON object that has it. Throws `bad_request` where any of its members, but none
 * inside them, stands twice: what is inside is the reader's to judge.
 */
export function memberText(text: string, wanted: string): string {
  const cursor = new JsonCursor(text);
  const names = new Set<string>();
  let found = "";
  for (let more = cursor.enter(); more; more = cursor.next()) {
    const name = cursor.name();
    if (names.has(name))
      throw new Problem("bad_request", `The member ${JSON.stringify(name)} is there twice`);
    names.add(name);
    const value = cursor.take();
    if (name === wanted) found = value;
  }
  return found;
}

function isJsonObject(input: unknown): input is JsonObject {
  return typeof input === "object" && input !== null && !Array.isArray(input);
}

function memberTwice(cursor: JsonCursor): string | undefined {
  const isObject = cursor.kind === "object";
  if (!isObject && cursor.kind !== "array") {
    cursor.take();
    return undefined;
  }
  const names = new Set<string>();
  for (let more = cursor.enter(); more; more = cursor.next()) {
    if (isObject) {
      const name = cursor.name();
      if (names.has(name)) return name;
      names.add(name);
    }
    const inner = memberTwice(cursor);
    if (inner !== undefined) return inner;
  }
  return undefined;
}
