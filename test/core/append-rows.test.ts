import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { type Client, createClient } from "@libsql/client";
import fc from "fast-check";
import { appendRowsJson } from "../../src/core/append-rows.ts";
import { type NewRecord, parseJsonProduce, parseNdjsonProduce } from "../../src/core/produce-request.ts";
import { jsonStringText, jsonText } from "../support/json-text-arbitrary.ts";
import { temporaryFolder } from "../support/server.ts";

test("appendRowsJson() is an array of [key, timestamp, headers, value], the texts as strings", () => {
  const records = parseJsonProduce(
    '{"records":[{"value":{"a": 1}},{"key":"k","value":2.0,"headers":{"h": "x"},"timestamp":5}]}',
  ).records;
  expect(appendRowsJson(records)).toBe(
    String.raw`[[null,null,null,"{\"a\": 1}"],["k",5,"{\"h\": \"x\"}","2.0"]]`,
  );
});

test("appendRowsJson() gives a record of bytes no value, and its bytes as hex behind it", () => {
  const records = parseJsonProduce(
    '{"records":[{"value":1},{"bytes":"AP+r","key":"k"},{"bytes":""}]}',
  ).records;
  expect(appendRowsJson(records)).toBe(
    '[[null,null,null,"1"],["k",null,null,null,"00ffab"],[null,null,null,null,""]]',
  );
});

test("appendRowsJson() of no records is an empty array", () => {
  expect(appendRowsJson([])).toBe("[]");
});

test("appendRowsJson() gives every text back through JSON.parse", () => {
  const record = fc.record({
    key: fc.option(fc.string({ unit: "binary" })),
    timestamp: fc.option(fc.maxSafeNat()),
    headers: fc.option(jsonStringText.map((text) => `{"h": ${text}}`)),
    value: jsonText,
  });
  fc.assert(
    fc.property(fc.array(record), (rows) => {
      const records = rows.map((row) => ({ ...row, partition: null, bytes: 0, frameBytesMax: 0 }));
      const expected = rows.map(({ key, timestamp, headers, value }) => [key, timestamp, headers, value]);
      expect(JSON.parse(appendRowsJson(records))).toEqual(expected);
    }),
  );
});

// ── through libSQL ───────────────────────────────────────────────────────────────────────────────────────

const folder = temporaryFolder();
let client: Client;

beforeAll(async () => {
  client = createClient({ url: `file:${join(folder.path, "rows.db")}` });
  await client.execute(
    "CREATE TABLE rows (n INTEGER PRIMARY KEY, key TEXT, timestamp INTEGER, headers TEXT, value ANY) STRICT",
  );
});

afterAll(() => {
  client.close();
  folder.remove();
});

const INSERT_ROWS = `
  INSERT INTO rows (n, key, timestamp, headers, value)
  SELECT r.key, r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3 FROM json_each(:rows) AS r`;

const SELECT_ROWS = `
  SELECT key, timestamp, headers, value, typeof(value) AS type, json_quote(key) AS quoted_key
  FROM rows
  ORDER BY n`;

async function store(records: readonly NewRecord[]) {
  await client.batch(
    ["DELETE FROM rows", { sql: INSERT_ROWS, args: { rows: appendRowsJson(records) } }],
    "write",
  );
  return (await client.execute(SELECT_ROWS)).rows;
}

const VALUES = [
  "2.0",
  "-0",
  "0.10",
  "1E400",
  "12345678901234567890",
  "-12345678901234567890",
  "null",
  "true",
  '""',
  String.raw`"\ud800"`,
  String.raw`"\u0000"`,
  String.raw`"\" \\ \/ \b\f\n\r\t \u2028"`,
  '{"a":1,"a":2}',
  '{"__proto__":{"x":1}}',
  '{ "b" : [ 1 ,\t2 ]\r\n}',
  "[".repeat(128) + "]".repeat(128),
  '"🌊 ü \u2028\u2029\ufeff\uffff\u007f"',
];

test.each(VALUES)("appendRowsJson() brings the value %j through SQLite byte for byte", async (value) => {
  const [row] = await store(parseJsonProduce(`{"records":[{"value": ${value} }]}`).records);
  expect(row).toMatchObject({ value, type: "text", key: null, timestamp: null, headers: null });
});

test("appendRowsJson() brings a thousand random values through SQLite, byte for byte, in order", async () => {
  const values = fc.sample(jsonText, { numRuns: 1000, seed: 1 });
  const rows = await store(
    parseJsonProduce(`{"records":[${values.map((value) => `{"value":${value}}`).join(",")}]}`).records,
  );
  expect(rows.map(({ value }) => value)).toEqual(values);
});

const KEYS = [
  '""',
  '"ü🌊\u2028"',
  String.raw`"\" \\ \b\f\n\r\t\u0001\u001f\u007f"`,
  '"null"',
  '"1"',
  '"2.0"',
  '"[1]"',
];

test.each(KEYS)("appendRowsJson() brings the key %j through SQLite", async (key) => {
  const [row] = await store(parseJsonProduce(`{"records":[{"value":1,"key":${key}}]}`).records);
  expect(row?.key).toBe(JSON.parse(key));
});

test("appendRowsJson() brings keys that are the text of numbers through SQLite as text", async () => {
  const rows = await store(parseNdjsonProduce("2.0\n1E400\n-0\n12345678901234567890\ntrue", "").records);
  expect(rows.map(({ key }) => key)).toEqual(["2.0", "1E400", "-0", "12345678901234567890", "true"]);
});

test("appendRowsJson() brings headers through SQLite byte for byte", async () => {
  const headers = '{ "b":"\\u0041 ü" , "a" : "" }';
  const [row] = await store(parseJsonProduce(`{"records":[{"value":1,"headers":${headers}}]}`).records);
  expect(row?.headers).toBe(headers);
});

test("appendRowsJson() brings timestamps through SQLite to the millisecond", async () => {
  const timestamps = [0, 1, 1_479_081_600_123, Number.MAX_SAFE_INTEGER];
  const records = timestamps.map((timestamp) => `{"value":1,"timestamp":${timestamp}}`);
  const rows = await store(parseJsonProduce(`{"records":[${records.join(",")}]}`).records);
  expect(rows.map(({ timestamp }) => timestamp)).toEqual(timestamps);
});

test("frameBytesMax is no less than the record's text as SQLite quotes any key", async () => {
  const controls = Array.from({ length: 0xa0 }, (_, code) => String.fromCharCode(code)).slice(1);
  const keys = [...controls, ...fc.sample(fc.string({ unit: "binary" }), { numRuns: 500, seed: 2 })];
  const bodies = keys.map((key) => key.replaceAll("\0", "")).map((key) => JSON.stringify({ key, value: 1 }));
  const records = parseJsonProduce(`{"records":[${bodies.join(",")}]}`).records;
  const rows = await store(records);
  for (const [index, { quoted_key }] of rows.entries()) {
    const largest = Number.MAX_SAFE_INTEGER;
    const frame = `{"offset":${largest},"timestamp":${largest},"key":${quoted_key},"value":1},`;
    expect(new TextEncoder().encode(frame).length).toBeLessThanOrEqual(records[index]?.frameBytesMax ?? 0);
  }
});
