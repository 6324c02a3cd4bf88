// The JSON objects of the protocol itself, frames and settings: everything but the values inside records.

import { JsonCursor } from "./json-text.ts";
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
export function findAmbiguity(text: string, depthMax = OBJECT_DEPTH_MAX): string | undefined {
  return new AmbiguityScan({ depthMax }).find(new JsonCursor(text), 1);
}

/**
 * The texts of all members `records`, as they stand in a valid JSON object. What is inside them is their reader's to
 * judge; throws `bad_request` where any other member stands twice.
 */
export function recordsTexts(text: string): readonly string[] {
  const texts: string[] = [];
  const scan = new AmbiguityScan({ depthMax: OBJECT_DEPTH_MAX, recordsTexts: texts });
  const ambiguity = scan.find(new JsonCursor(text), 1);
  if (ambiguity !== undefined) throw new Problem("bad_request", `Cannot take the request: ${ambiguity}`);
  return texts;
}

function isJsonObject(input: unknown): input is JsonObject {
  return typeof input === "object" && input !== null && !Array.isArray(input);
}

class AmbiguityScan {
  readonly #depthMax: number;
  readonly #recordsTexts: string[] | undefined;

  /** `recordsTexts`: members `records` are put there unseen. */
  constructor({ depthMax, recordsTexts }: { depthMax: number; recordsTexts?: string[] }) {
    this.#depthMax = depthMax;
    this.#recordsTexts = recordsTexts;
  }

  find(cursor: JsonCursor, depth: number): string | undefined {
    const isObject = cursor.kind === "object";
    if (!isObject && cursor.kind !== "array") {
      cursor.take();
      return undefined;
    }
    if (depth > this.#depthMax) return `it nests deeper than ${this.#depthMax}`;
    const names = new Set<string>();
    for (let more = cursor.enter(); more; more = cursor.next()) {
      const name = isObject ? cursor.name() : undefined;
      if (name !== undefined) {
        if (names.has(name)) return `the member "${name}" is there twice`;
        names.add(name);
      }
      const found = this.#findInside(cursor, name, depth);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #findInside(cursor: JsonCursor, name: string | undefined, depth: number): string | undefined {
    if (name !== "records" || !this.#recordsTexts) return this.find(cursor, depth + 1);
    this.#recordsTexts.push(cursor.take());
    return undefined;
  }
}
