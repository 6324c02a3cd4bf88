import { Problem } from "./problem.ts";

// JSON text as text. Values are kept byte for byte (`2.0`, `1E400`, 20 digits), so what JSON.parse returns is
// of no use: it says whether a text is JSON, and then the cursor finds where each value stands. The cursor
// only *skips*: of text that JSON.parse has not accepted it makes nonsense, though it always ends. It never
// recurses.

/** The depth of a JSON text: arrays and objects inside one another. A scalar is 0, `[]` is 1. */
export function depthOf(text: string): number {
  const cursor = new JsonCursor(text);
  cursor.take();
  return cursor.depth;
}

/**
 * Walks JSON text from value to value; `at` is always a value, or the name of a member.
 *
 *     for (let more = cursor.enter(); more; more = cursor.next()) {
 *       const name = cursor.name(); // in an object only
 *       const text = cursor.take(); // or enter() what stands here, and walk it to its end
 *     }
 */
export class JsonCursor {
  readonly text: string;
  at: number;
  /** The depth of the value that `take` passed last. */
  depth = 0;

  constructor(text: string) {
    this.text = text;
    this.at = afterSpace(text, 0);
  }

  get kind(): JsonKind {
    return kindOf(this.text, this.at);
  }

  /** Steps into an array or object. False when it is empty: then it has been stepped over. */
  enter(): boolean {
    this.at = afterSpace(this.text, this.at + 1);
    if ((this.text.charCodeAt(this.at) | CASE_BIT) !== CLOSE) return true;
    this.at += 1;
    return false;
  }

  /** Steps from a value to the next. False behind the last: the array or object has been stepped over. */
  next(): boolean {
    this.at = afterSpace(this.text, this.at);
    const hasNext = this.text.charCodeAt(this.at) === COMMA;
    this.at += 1;
    if (hasNext) this.at = afterSpace(this.text, this.at);
    return hasNext;
  }

  /** The decoded name of a member; stops at its value. */
  name(): string {
    const start = this.at;
    const end = afterString(this.text, start);
    const colon = afterSpace(this.text, end);
    this.at = afterSpace(this.text, colon + 1);
    return decodeString(this.text.slice(start, end));
  }

  /** The text of the value, without the white space around it; stops behind it. */
  take(): string {
    const start = this.at;
    const code = this.text.charCodeAt(start);
    this.depth = 0;
    if (code === QUOTE) this.at = afterString(this.text, start);
    else if ((code | CASE_BIT) === OPEN) this.passNested();
    else this.at = afterScalar(this.text, start);
    return this.text.slice(start, this.at);
  }

  private passNested(): void {
    const text = this.text;
    let at = this.at;
    let open = 0;
    do {
      const code = text.charCodeAt(at);
      at = code === QUOTE ? afterString(text, at) : at + 1;
      if ((code | CASE_BIT) === OPEN) {
        open += 1;
        if (open > this.depth) this.depth = open;
      } else if ((code | CASE_BIT) === CLOSE) open -= 1;
    } while (open > 0 && at < text.length);
    this.at = at;
  }
}

export type JsonKind = "string" | "number" | "boolean" | "null" | "array" | "object";

/** What kind of value begins at that character. */
export function kindOf(text: string, at = 0): JsonKind {
  switch (text.charAt(at)) {
    case '"':
      return "string";
    case "{":
      return "object";
    case "[":
      return "array";
    case "n":
      return "null";
    case "t":
    case "f":
      return "boolean";
    default:
      return "number";
  }
}

/** What the text of a JSON string says. */
export function decodeString(text: string): string {
  return text.includes("\\") ? JSON.parse(text) : text.slice(1, -1); // mostly there is nothing to decode
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
/** `[` and `{`, and `]` and `}`, differ by this bit and share the others with nothing else. */
const CASE_BIT = 0x20;
const OPEN = 0x7b;
const CLOSE = 0x7d;

/** The four characters that JSON calls white space; String.prototype.trim takes more away. */
export function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;
}

function afterSpace(text: string, start: number): number {
  let at = start;
  while (isSpace(text.charCodeAt(at))) at += 1;
  return at;
}

/** A quote behind an odd number of backslashes belongs to the string. indexOf is faster than a loop here. */
function afterString(text: string, start: number): number {
  let quote = text.indexOf('"', start + 1);
  while (text.charCodeAt(quote - 1) === BACKSLASH) {
    let run = 1;
    while (text.charCodeAt(quote - 1 - run) === BACKSLASH) run += 1;
    if (run % 2 === 0) break;
    quote = text.indexOf('"', quote + 1);
  }
  return quote === -1 ? text.length : quote + 1;
}

function afterScalar(text: string, start: number): number {
  let at = start;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === COMMA || (code | CASE_BIT) === CLOSE || isSpace(code)) break;
    at += 1;
  }
  return at;
}

/**
 * A body as text. Bad UTF-8 is refused instead of becoming U+FFFD. One byte order mark at the start is
 * dropped: files written on Windows begin with it, it is part of no value there, and RFC 8259 lets a reader
 * ignore it.
 */
export function decodeUtf8(body: Uint8Array): string {
  try {
    return decoder.decode(body);
  } catch {
    throw new Problem("bad_request", "Cannot read the body: found bytes that are not UTF-8, allowed UTF-8");
  }
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false });

/** How many bytes a text is as UTF-8. */
export function utf8Length(text: string): number {
  const { read, written } = encoder.encodeInto(text, scratch);
  return read === text.length ? written : encoder.encode(text).length;
}

const encoder = new TextEncoder();
const scratch = new Uint8Array(4096);
