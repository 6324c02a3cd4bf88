import type { NewRecord } from "./produce-request.ts";

/**
 * The rows of one append as JSON, `[[key, timestamp, headers, value], …]`, for one statement:
 *
 *     INSERT INTO records (…) SELECT …, r.value ->> 0, …, r.value ->> 3 FROM json_each(:rows) AS r
 *
 * Value and headers travel as JSON *strings* that hold their text: nested as JSON, SQLite would parse them
 * and lose the white space inside; `->>` gives a string back as it was.
 *
 * A row of bytes is `[key, timestamp, headers, null, hex]`: JSON holds no BLOB, and SQLite decodes hex but not base64.
 */
export function appendRowsJson(records: readonly NewRecord[]): string {
  return JSON.stringify(
    records.map(({ key, timestamp, headers, value }) =>
      typeof value === "string"
        ? [key, timestamp, headers, value]
        : [key, timestamp, headers, null, value.toHex()],
    ),
  );
}

/** The rows of records that have nothing but a value of JSON: `["value", …]`. */
export function appendValuesJson(records: readonly NewRecord[]): string {
  return JSON.stringify(records.map(({ value }) => value));
}
