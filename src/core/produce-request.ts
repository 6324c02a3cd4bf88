import {
  BATCH_BYTES_MAX,
  BATCH_RECORDS_MAX,
  HEADERS_BYTES_MAX,
  HEADERS_MAX,
  INTEGER_MAX,
  JSON_DEPTH_MAX,
  KEY_BYTES_MAX,
  RECORD_BYTES_MAX,
} from "../protocol/limits.ts";
import { findBadText } from "../protocol/text.ts";
import { base64Length, decodeBase64 } from "./base64.ts";
import { type JsonPointer, parsePointer, resolvePointer, textAt } from "./json-pointer.ts";
import { decodeString, depthOf, isSpace, JsonCursor, kindOf, utf8Length } from "./json-text.ts";
import { Problem } from "./problem.ts";

// From the text of a produce request to checked records: all of them, or a Problem. JSON.parse says whether
// it is JSON (and finds an NDJSON line's key); everything else is read off the text by the cursor, in one
// pass. So a value stays byte for byte, and a member given twice is seen: JSON.parse takes the last of them,
// SQLite the first.

/** A record that passed every check which needs no knowledge of its topic. */
export interface NewRecord {
  readonly key: string | null;
  /** JSON text as it came, without the white space around it; or the bytes of a record with `bytes`. */
  readonly value: string | Uint8Array;
  /** JSON object text as it came; null when absent or empty. */
  readonly headers: string | null;
  /** Milliseconds since 1970; null: the time of the append. */
  readonly timestamp: number | null;
  /** The one it asks for, not yet held against the topic; null: by key, or sticky. */
  readonly partition: number | null;
  /** UTF-8 of key, headers text and value text, or the decoded bytes in its place. */
  readonly bytes: number;
  /** It takes no more than this in a records frame, the comma behind it included. */
  readonly frameBytesMax: number;
}

/** Records that go to one topic together, all or none. */
export interface Batch {
  readonly records: readonly NewRecord[];
  /** Of NDJSON: the line of each record, from 1. */
  readonly lines?: readonly number[];
}

export interface JsonProduce extends Batch {
  /** Every other member as it stands, undefined where it is not there; whose values are the caller's to judge. */
  readonly producer: string | undefined;
  readonly expect: string | undefined;
}

/** `{"records":[{"key"?, "value" or "bytes", "headers"?, "timestamp"?, "partition"?}, …], "producer"?, "expect"?}` */
export function parseJsonProduce(text: string): JsonProduce {
  requireWellFormed(text);
  parseJson(text, BODY);
  const cursor = new JsonCursor(text);
  if (cursor.kind !== "object") throw refusal(BODY, { found: cursor.kind, allowed: "object" });
  let records: readonly NewRecord[] | undefined;
  const texts = { producer: undefined as string | undefined, expect: undefined as string | undefined };
  for (let more = cursor.enter(); more; more = cursor.next()) {
    const name = cursor.name();
    if (name !== "records" && name !== "producer" && name !== "expect")
      throw unknownMember(BODY, name, ["records", "producer", "expect"]);
    if ((name === "records" ? records : texts[name]) !== undefined) throw memberTwice(BODY, name);
    if (name === "records") records = readRecords(cursor, BODY);
    else texts[name] = cursor.take();
  }
  if (!records) throw refusal(BODY, { found: 'no "records"', allowed: '{"records": […]}' });
  return { records, ...texts };
}

/**
 * The `records` of a frame or a transaction: `text` is one value that JSON.parse has accepted, and is checked as in a
 * JSON body. `append`: which of a transaction's appends it is.
 */
export function parseRecordsArray(text: string, append?: number): readonly NewRecord[] {
  const place = append === undefined ? BODY : { append };
  requireWellFormed(text);
  requireBatchBytes(text, place);
  return readRecords(new JsonCursor(text), place);
}

/** Throws `batch_too_large`. `append`: where one more record was one too many. */
export function requireBatchRecords(records: number, append: number): void {
  if (records > BATCH_RECORDS_MAX) throw batchTooLarge({ append }, records);
}

/**
 * One JSON value a line; blank lines are counted as lines and otherwise skipped. `keyPointer` is a JSON
 * pointer (RFC 6901) into each value: a string is the key as it is, a number or boolean by its text in the
 * line; null or nothing means no key.
 */
export function parseNdjsonProduce(text: string, keyPointer: string | null): Batch {
  requireWellFormed(text);
  const pointer = keyPointer === null ? null : readPointer(keyPointer);
  const records: NewRecord[] = [];
  const lines: number[] = [];
  let start = 0;
  for (let line = 1; start < text.length; line += 1) {
    const newline = text.indexOf("\n", start);
    const end = newline === -1 ? text.length : newline;
    const value = sliceTrimmed(text, start, end);
    start = end + 1;
    if (value === "") continue;
    if (records.length === BATCH_RECORDS_MAX) throw batchTooLarge({ line });
    records.push(readLine(value, pointer, { line }));
    lines.push(line);
  }
  if (records.length === 0) throw refusal(BODY, { found: "no records", allowed: "one JSON value a line" });
  return { records, lines };
}

/** Where something stands in the request: the whole body, a record of a JSON body, a line of NDJSON. */
interface Place {
  /** Of a transaction's appends. */
  readonly append?: number;
  readonly record?: number;
  readonly line?: number;
}

const BODY: Place = {};

// ── JSON body ────────────────────────────────────────────────────────────────────────────────────────────

function readRecords(cursor: JsonCursor, batch: Place): readonly NewRecord[] {
  const member = "records";
  if (cursor.kind !== "array") throw refusal(batch, { member, found: cursor.kind, allowed: "array" });
  const records: NewRecord[] = [];
  for (let more = cursor.enter(); more; more = cursor.next()) {
    const place = { ...batch, record: records.length };
    if (records.length === BATCH_RECORDS_MAX) throw batchTooLarge(place);
    records.push(readRecord(cursor, place));
  }
  if (records.length === 0)
    throw refusal(batch, { member, found: "empty array", allowed: "1 record or more" });
  return records;
}

function readRecord(cursor: JsonCursor, place: Place): NewRecord {
  if (cursor.kind !== "object") throw refusal(place, { found: cursor.kind, allowed: "object" });
  const texts = readEnvelope(cursor, place);
  return newRecord(place, {
    key: readKey(texts, place),
    value: readValue(texts, place),
    headers: readHeaders(texts, place),
    timestamp: readInteger(texts, "timestamp", place),
    partition: readInteger(texts, "partition", place),
  });
}

const ENVELOPE_MEMBERS = ["key", "value", "bytes", "headers", "timestamp", "partition"] as const;

/** The text of each member of a record, null where it is absent. */
type Envelope = Record<(typeof ENVELOPE_MEMBERS)[number], string | null>;

function readEnvelope(cursor: JsonCursor, place: Place): Envelope {
  const texts: Envelope = { ...NO_MEMBERS };
  for (let more = cursor.enter(); more; more = cursor.next()) {
    const name = cursor.name();
    const member = ENVELOPE_MEMBERS.find((known) => known === name);
    if (member === undefined) throw unknownMember(place, name, ENVELOPE_MEMBERS);
    if (texts[member] !== null) throw memberTwice(place, name);
    texts[member] = cursor.take();
    if (cursor.depth > JSON_DEPTH_MAX) throw tooDeep(place, cursor.depth, member);
  }
  return texts;
}

const NO_MEMBERS: Readonly<Envelope> = {
  key: null,
  value: null,
  bytes: null,
  headers: null,
  timestamp: null,
  partition: null,
};

function readKey(texts: Envelope, place: Place): string | null {
  if (texts.key === null) return null;
  const kind = kindOf(texts.key);
  if (kind === "null") return null;
  if (kind !== "string") throw refusal(place, { member: "key", found: kind, allowed: "string or null" });
  return decodeString(texts.key);
}

function readValue(texts: Envelope, place: Place): string | Uint8Array {
  const { value, bytes } = texts;
  const allowed = "exactly one of them";
  if (value !== null && bytes !== null) throw refusal(place, { found: 'both "value" and "bytes"', allowed });
  if (value !== null) return value;
  if (bytes !== null) return readBytes(bytes, place);
  throw refusal(place, { found: 'neither "value" nor "bytes"', allowed });
}

function readBytes(text: string, place: Place): Uint8Array {
  const member = "bytes";
  const kind = kindOf(text);
  if (kind !== "string") throw refusal(place, { member, found: kind, allowed: "string of base64" });
  const base64 = decodeString(text);
  const bytes = decodeBase64(base64);
  if (bytes) return bytes;
  const allowed = "base64 of the standard alphabet, padded, without white space";
  throw refusal(place, { member, found: quote(base64), allowed });
}

function readInteger(texts: Envelope, member: "timestamp" | "partition", place: Place): number | null {
  const text = texts[member];
  if (text === null) return null;
  const allowed = `integer from 0 to ${INTEGER_MAX}`;
  const kind = kindOf(text);
  if (kind !== "number") throw refusal(place, { member, found: kind, allowed });
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw refusal(place, { member, found: cut(text), allowed });
  return value + 0; // −0 becomes 0
}

function readHeaders(texts: Envelope, place: Place): string | null {
  const text = texts.headers;
  if (text === null) return null;
  const member = "headers";
  const kind = kindOf(text);
  if (kind !== "object") throw refusal(place, { member, found: kind, allowed: "object of strings" });
  const bytes = utf8Length(text);
  if (bytes > HEADERS_BYTES_MAX) throw tooLarge(place, { member, found: bytes, allowed: HEADERS_BYTES_MAX });
  const count = countHeaders(text, place);
  if (count > HEADERS_MAX)
    throw tooLarge(place, { member, found: count, allowed: HEADERS_MAX, unit: "headers" });
  return count === 0 ? null : text;
}

function countHeaders(text: string, place: Place): number {
  const names = new Set<string>();
  const cursor = new JsonCursor(text);
  for (let more = cursor.enter(); more; more = cursor.next()) {
    const name = cursor.name();
    if (names.has(name)) throw memberTwice(place, name, "headers");
    names.add(name);
    const member = `headers[${quote(name)}]`;
    const kind = cursor.kind;
    if (kind !== "string") throw refusal(place, { member, found: kind, allowed: "string" });
    requireGoodText(place, member, name);
    requireGoodText(place, member, decodeString(cursor.take()));
  }
  return names.size;
}

// ── NDJSON body ──────────────────────────────────────────────────────────────────────────────────────────

function readLine(value: string, pointer: JsonPointer | null, place: Place): NewRecord {
  const parsed = parseJson(value, place);
  // A level is two characters: most lines are too short to be too deep.
  const depth = value.length > 2 * JSON_DEPTH_MAX ? depthOf(value) : 0;
  if (depth > JSON_DEPTH_MAX) throw tooDeep(place, depth);
  const key = pointer === null ? null : readLineKey({ value, parsed }, pointer, place);
  return newRecord(place, { key, value, headers: null, timestamp: null, partition: null });
}

interface Line {
  readonly value: string;
  readonly parsed: unknown;
}

function readLineKey({ value, parsed }: Line, pointer: JsonPointer, place: Place): string | null {
  const found = resolvePointer(pointer, parsed);
  if (found === undefined || found === null) return null;
  if (typeof found === "string") return found;
  if (typeof found === "boolean") return String(found);
  if (typeof found === "number") return textAt(new JsonCursor(value), pointer);
  const allowed = "string, number, boolean, null or nothing";
  throw refusal(place, { member: "key", found: Array.isArray(found) ? "array" : "object", allowed });
}

function readPointer(text: string): JsonPointer {
  const pointer = parsePointer(text);
  if (pointer) return pointer;
  const rule = 'a JSON pointer (RFC 6901): "" or "/…", with "~0" for "~" and "~1" for "/"';
  throw new Problem("bad_request", `Cannot read ?key=${quote(text)}: allowed is ${rule}`);
}

function sliceTrimmed(text: string, from: number, to: number): string {
  let start = from;
  let end = to;
  while (start < end && isSpace(text.charCodeAt(start))) start += 1;
  while (start < end && isSpace(text.charCodeAt(end - 1))) end -= 1;
  return text.slice(start, end);
}

// ── both ─────────────────────────────────────────────────────────────────────────────────────────────────

/** Decoded UTF-8 holds no lone surrogate; any other string might, and SQLite must never get one. */
function requireWellFormed(text: string): void {
  if (!text.isWellFormed()) throw refusal(BODY, { found: "lone surrogate", allowed: "Unicode text" });
}

/** A body of that size never comes so far; a frame may be a little larger than a batch. */
function requireBatchBytes(text: string, place: Place): void {
  if (text.length * 3 <= BATCH_BYTES_MAX) return; // no character takes more bytes than that
  const found = utf8Length(text);
  if (found <= BATCH_BYTES_MAX) return;
  throw problem("batch_too_large", place, {
    member: "records",
    found,
    allowed: BATCH_BYTES_MAX,
    unit: "bytes",
  });
}

function parseJson(text: string, place: Place): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The error's own message quotes the input, and differs between runtimes.
    throw refusal(place, { found: "text that is not JSON", allowed: "JSON" });
  }
}

type Fields = Omit<NewRecord, "bytes" | "frameBytesMax">;

function newRecord(place: Place, { key, value, headers, timestamp, partition }: Fields): NewRecord {
  if (key !== null) requireGoodText(place, "key", key);
  const keyBytes = key === null ? 0 : utf8Length(key);
  if (keyBytes > KEY_BYTES_MAX)
    throw tooLarge(place, { member: "key", found: keyBytes, allowed: KEY_BYTES_MAX });
  const valueBytes = typeof value === "string" ? utf8Length(value) : value.length;
  const bytes = keyBytes + valueBytes + (headers === null ? 0 : utf8Length(headers));
  if (bytes > RECORD_BYTES_MAX) throw tooLarge(place, { found: bytes, allowed: RECORD_BYTES_MAX });
  const base64BytesMore = typeof value === "string" ? 0 : base64Length(valueBytes) + 2 - valueBytes;
  const quotingBytes = key === null ? 0 : quotingBytesMax(key);
  const frameBytesMax = FRAME_RECORD.length + bytes + base64BytesMore + quotingBytes;
  return { key, value, headers, timestamp, partition, bytes, frameBytesMax };
}

/** `"bytes":` is as long as `"value":`. */
const FRAME_RECORD = `{"offset":${INTEGER_MAX},"timestamp":${INTEGER_MAX},"key":,"headers":,"value":},`;

/** What JSON needs around and inside a key beyond its own bytes; `\u0001` is five more than one. */
function quotingBytesMax(key: string): number {
  let bytes = 2;
  for (let i = 0; i < key.length; i += 1) {
    const code = key.charCodeAt(i);
    if (code < 0x20) bytes += 5;
    else if (code === 0x22 || code === 0x5c) bytes += 1;
  }
  return bytes;
}

function requireGoodText(place: Place, member: string, text: string): void {
  const found = findBadText(text);
  if (found !== null) throw refusal(place, { member, found, allowed: "Unicode text without NUL" });
}

// ── Problems ─────────────────────────────────────────────────────────────────────────────────────────────

interface Finding {
  /** The part of the place that it is about, where that is not all of it. */
  readonly member?: string | undefined;
  readonly found: string | number;
  readonly allowed: string | number;
  /** Of a number that was found. */
  readonly unit?: string;
}

function refusal(place: Place, finding: Finding): Problem {
  return problem("bad_request", place, finding);
}

function unknownMember(place: Place, name: string, known: readonly string[]): Problem {
  return refusal(place, { found: `member ${quote(name)}`, allowed: known.join(", ") });
}

function memberTwice(place: Place, name: string, member?: string): Problem {
  return refusal(place, { member, found: `member ${quote(name)} twice`, allowed: "once" });
}

function tooDeep(place: Place, found: number, member?: string): Problem {
  const unit = "arrays and objects inside one another";
  return refusal(place, { member, found, allowed: JSON_DEPTH_MAX, unit });
}

function tooLarge(place: Place, finding: Finding): Problem {
  return problem("record_too_large", place, { unit: "bytes", ...finding });
}

function batchTooLarge(place: Place, found = BATCH_RECORDS_MAX + 1): Problem {
  return problem("batch_too_large", place, { found, allowed: BATCH_RECORDS_MAX, unit: "records or more" });
}

function problem(
  code: "bad_request" | "record_too_large" | "batch_too_large",
  place: Place,
  finding: Finding,
): Problem {
  const { member, found, allowed, unit = "" } = finding;
  const what = `${found} ${unit}`.trimEnd();
  const message = `Cannot produce ${locate(place, member)}: found ${what}, allowed ${allowed}`;
  return new Problem(code, message, { ...place, found, allowed });
}

function locate({ append, record, line }: Place, member: string | undefined): string {
  if (line !== undefined) return member === undefined ? `line ${line}` : `the ${member} of line ${line}`;
  const path = [
    append === undefined ? undefined : `appends[${append}]`,
    record === undefined ? undefined : `records[${record}]`,
    member,
  ].filter((part) => part !== undefined);
  return path.length === 0 ? "the body" : path.join(".");
}

/** A name out of the request, for a message. */
function quote(name: string): string {
  return JSON.stringify(cut(name));
}

function cut(text: string): string {
  return text.length <= 64 ? text : `${text.slice(0, 64)}…`;
}
