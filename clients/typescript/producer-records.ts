// Browser-safe. Records on their way to the wire: written as JSON once, when they are handed over, and their runs taken
// apart again where several sends went in one frame. Pure.

import type { Run } from "../../src/protocol/frames.ts";
import { CLIENT_FRAME_BYTES_MAX } from "../../src/protocol/limits.ts";
import { errorOf, TidemarkError } from "./errors.ts";

/** What is written to a topic. Exactly one of `value` and `bytes`. At most 1 MiB with key and headers. */
export interface ProducerRecord {
  /** At most 32 KiB. Records of one key go to one partition, in order. */
  readonly key?: string | null | undefined;
  /** Anything that JSON has; null is a tombstone. */
  readonly value?: unknown;
  readonly bytes?: Uint8Array | undefined;
  /** At most 64, and 16 KiB. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Milliseconds since 1970; absent: the time of the append. */
  readonly timestamp?: number | undefined;
  /** Absent: by the key, without one any. */
  readonly partition?: number | undefined;
}

/** The members of a JSON array, without its brackets. */
export interface EncodedRecords {
  readonly text: string;
  readonly count: number;
}

/** What a frame has beside records, expectations and commits takes less than this. */
const FRAME_ENVELOPE_BYTES = 2_048;
/** Texts to `String.fromCharCode` by so many, which every engine takes as arguments. */
const CHARACTERS_AT_ONCE = 8_192;

/** Throws `bad_request` with the fact `record`, where one of them cannot be written as JSON. */
export function encodeRecords(records: ProducerRecord | readonly ProducerRecord[]): EncodedRecords {
  const list: readonly ProducerRecord[] = isList(records) ? records : [records];
  if (list.length === 0) throw errorOf("bad_request", "Cannot produce: found no records, allowed 1 or more");
  const hasBytes = list.some((record) => record?.bytes);
  list.forEach(requireValue);
  try {
    return { text: JSON.stringify(hasBytes ? list.map(wireRecord) : list).slice(1, -1), count: list.length };
  } catch {
    throw unwritable(list);
  }
}

/** Each send's own, where sends of so many records went together. Nothing is known of those behind the last run. */
export function splitRuns<T extends Run>(
  runs: readonly T[],
  counts: readonly number[],
): readonly (readonly T[])[] {
  let at = 0;
  let used = 0;
  return counts.map((count) => {
    const own: T[] = [];
    for (let missing = count; missing > 0 && at < runs.length; ) {
      const run = runs[at] as T; // it is below the length
      const taken = Math.min(missing, run.count - used);
      own.push({ ...run, offset: run.offset + used, count: taken });
      missing -= taken;
      used += taken;
      if (used === run.count) {
        at += 1;
        used = 0;
      }
    }
    return own;
  });
}

/** A larger frame would close the connection, for everybody on it. Throws `batch_too_large`. */
export function requireFrame(...texts: readonly string[]): void {
  const allowed = CLIENT_FRAME_BYTES_MAX - FRAME_ENVELOPE_BYTES;
  const length = texts.reduce((sum, text) => sum + text.length, 0);
  if (length * 3 <= allowed) return; // no character takes more bytes than that
  const found = new TextEncoder().encode(texts.join("")).length;
  if (found <= allowed) return;
  const why = `Cannot write: found ${found} bytes in one batch, allowed ${allowed}`;
  throw errorOf("batch_too_large", why, { facts: { found, allowed } });
}

/** JSON of entries whose members are numbers: a NaN among them would close the connection. */
export function encodeEntries<T extends object>(
  member: string,
  entries: readonly T[],
  numbers: readonly (keyof T & string)[],
): string {
  for (const entry of entries) {
    for (const name of numbers) {
      if (Number.isInteger(entry[name])) continue;
      throw errorOf(
        "bad_request",
        `Cannot write: ${member} has ${entry[name]} as ${name}, allowed an integer`,
      );
    }
  }
  return JSON.stringify(entries);
}

/** The refusal of a frame, as the send sees it whose records begin at `start` of the frame's. */
export function relativeError(error: TidemarkError, record: number, start: number): TidemarkError {
  const message = error.message.replaceAll(`records[${record}]`, `records[${record - start}]`);
  return errorOf(error.code, message, {
    facts: { ...error.facts, record: record - start },
    cause: error.cause,
  });
}

function isList(records: ProducerRecord | readonly ProducerRecord[]): records is readonly ProducerRecord[] {
  return Array.isArray(records);
}

/** JSON makes null of it, and null deletes a key. */
function requireValue(record: ProducerRecord | undefined, index: number): void {
  if (typeof record?.value !== "number" || Number.isFinite(record.value)) return;
  throw badRecord(index, `found the value ${record.value}, allowed what JSON has`);
}

function wireRecord(record: ProducerRecord): object {
  return record?.bytes instanceof Uint8Array ? { ...record, bytes: base64Of(record.bytes) } : record;
}

function base64Of(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += CHARACTERS_AT_ONCE)
    text += String.fromCharCode(...bytes.subarray(at, at + CHARACTERS_AT_ONCE));
  return btoa(text);
}

/** Which one it is, is looked for only when it is known that there is one. */
function unwritable(list: readonly ProducerRecord[]): TidemarkError {
  for (const [index, record] of list.entries()) {
    try {
      JSON.stringify(record);
    } catch (cause) {
      return badRecord(index, `it cannot be written as JSON: ${cause}`, cause);
    }
  }
  return errorOf("bad_request", "Cannot produce: the records cannot be written as JSON");
}

function badRecord(record: number, why: string, cause?: unknown): TidemarkError {
  return new TidemarkError("bad_request", `Cannot produce records[${record}]: ${why}`, {
    facts: { record },
    cause,
  });
}
