// Records as SQL appends them, and as the server would have parsed them.

import { Problem } from "../../src/core/problem.ts";
import { type NewRecord, parseJsonProduce } from "../../src/core/produce-request.ts";

/** `columns`: SQL expressions. */
export function insertOf(topic: string, columns: Readonly<Record<string, string>>): string {
  return `INSERT INTO append_record (topic, ${Object.keys(columns)}) VALUES ('${topic}', ${Object.values(columns)})`;
}

/** One record of a JSON body; undefined where the server refuses it. */
export function parsedRecord(text: string): NewRecord | undefined {
  try {
    return parseJsonProduce(`{"records":[${text}]}`).records[0];
  } catch (error) {
    if (error instanceof Problem) return undefined;
    throw error;
  }
}
