// JSON pointers (RFC 6901), into a parsed value and into its text.

import type { JsonCursor } from "./json-text.ts";

export type JsonPointer = readonly string[];

/** Undefined where the text is not a JSON pointer. */
export function parsePointer(pointer: string): JsonPointer | undefined {
  if (/^[^/]|~(?![01])/.test(pointer)) return undefined;
  const tokens = pointer.split("/").slice(1);
  return tokens.map((token) => token.replaceAll("~1", "/").replaceAll("~0", "~"));
}

/** Own members and elements only: what an object inherits is not in the document. */
export function resolvePointer(pointer: JsonPointer, root: unknown): unknown {
  let found = root;
  for (const token of pointer) {
    if (typeof found !== "object" || found === null) return undefined;
    if (!Object.hasOwn(found, token)) return undefined;
    found = Reflect.get(found, token);
  }
  return found;
}

/**
 * The text that the pointer leads to; of a member given twice the last, as JSON.parse takes it. Null where it
 * leads to what only the parsed value has, the length of an array.
 */
export function textAt(cursor: JsonCursor, pointer: JsonPointer, level = 0): string | null {
  const { kind } = cursor;
  if (level === pointer.length || (kind !== "array" && kind !== "object")) return cursor.take();
  let found: string | null = null;
  let index = 0;
  for (let more = cursor.enter(); more; more = cursor.next()) {
    const name = kind === "array" ? String(index) : cursor.name();
    if (name === pointer[level]) found = textAt(cursor, pointer, level + 1);
    else cursor.take();
    index += 1;
  }
  return found;
}
