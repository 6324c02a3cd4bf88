import { expect, test } from "bun:test";
import fc from "fast-check";
import { Problem } from "../../src/core/problem.ts";
import {
  type NewRecord,
  parseJsonProduce,
  parseNdjsonProduce,
  parseRecordsArray,
} from "../../src/core/produce-request.ts";
import type { ErrorCode } from "../../src/protocol/codes.ts";
import { jsonStringText, jsonText, surrounded } from "../support/json-text-arbitrary.ts";

const MIB = 1024 * 1024;

function problemOf(parse: () => unknown): Problem {
  try {
    parse();
  } catch (error) {
    if (error instanceof Problem) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

interface Refusal {
  readonly code: ErrorCode;
  readonly message: string;
  readonly facts: Problem["facts"];
}

function refusalOf(parse: () => unknown): Refusal {
  const { code, message, facts } = problemOf(parse);
  return { code, message, facts };
}

/** The one record of a body of one. */
function recordOf(envelope: string): NewRecord {
  return only(parseJsonProduce(`{"records":[${envelope}]}`).records);
}

function only(records: readonly NewRecord[]): NewRecord {
  const [record] = records;
  if (record === undefined || records.length > 1) throw new Error(`${records.length} records instead of one`);
  return record;
}

function nested(depth: number): string {
  return "[".repeat(depth) + "]".repeat(depth);
}

// ── parseJsonProduce: what is taken ──────────────────────────────────────────────────────────────────────

test("parseJsonProduce() reads every member of a record", () => {
  const text = '{"key":"k","value":{"a": 1},"headers":{"h":"x"},"timestamp":5,"partition":3}';
  expect(recordOf(text)).toMatchObject({
    key: "k",
    value: '{"a": 1}',
    headers: '{"h":"x"}',
    timestamp: 5,
    partition: 3,
  });
});

test("parseJsonProduce() gives null for what is absent", () => {
  expect(recordOf('{"value":1}')).toMatchObject({
    key: null,
    headers: null,
    timestamp: null,
    partition: null,
  });
});

test("parseJsonProduce() keeps the order of the records", () => {
  const records = parseJsonProduce('{"records":[{"value":1},{"value":2},{"value":3}]}').records;
  expect(records.map(({ value }) => value)).toEqual(["1", "2", "3"]);
});

test("parseJsonProduce() takes white space wherever JSON has it, and only trims it around a value", () => {
  const text = ' {\n "records" : [ {\t"value" :\r\n {"a" : [ 1 ] } , "key" : "k" } ] } ';
  expect(only(parseJsonProduce(text).records)).toMatchObject({ key: "k", value: '{"a" : [ 1 ] }' });
});

test("parseJsonProduce() knows a member by its decoded name", () => {
  expect(recordOf(String.raw`{"\u0076alue":1,"\u006bey":"k"}`)).toMatchObject({ value: "1", key: "k" });
});

test.each([
  ["2.0"],
  ["-0"],
  ["1E400"],
  ["12345678901234567890"],
  ["null"],
  ['"]},{"'],
  [String.raw`"\ud800"`],
  [String.raw`"\u0000"`],
  [String.raw`"\\"`],
  ['{"a":1,"a":2}'],
  ['{"__proto__":{"x":1}}'],
  ['"\u2028🌊"'],
  ["[1 ,\n 2]"],
])("parseJsonProduce() keeps the value %j byte for byte", (value) => {
  expect(recordOf(`{"key":"k","value": ${value} ,"timestamp":1}`).value).toBe(value);
});

test("parseJsonProduce() keeps any value byte for byte", () => {
  fc.assert(
    fc.property(fc.array(jsonText, { minLength: 1 }), fc.constantFrom("", " ", "\n\t"), (values, gap) => {
      const records = values.map((value) => `{${gap}"value"${gap}:${gap}${value}${gap}}`);
      const parsed = parseJsonProduce(`{"records":[${records.join(`${gap},${gap}`)}]}`).records;
      expect(parsed.map(({ value }) => value)).toEqual(values);
    }),
  );
});

test.each([
  ['"plain"', "plain"],
  ['""', ""],
  ["null", null],
  [String.raw`"\ud83c\udf0a \" \\ \n"`, '🌊 " \\ \n'],
])("parseJsonProduce() decodes the key %j", (text, key) => {
  expect(recordOf(`{"key":${text},"value":1}`).key).toBe(key);
});

test("parseJsonProduce() keeps headers as they came, escapes, order and white space included", () => {
  const headers = String.raw`{ "b":"\u0041" , "a" : "", "__proto__":"x", "toString":"y" }`;
  expect(recordOf(`{"value":1,"headers": ${headers} }`).headers).toBe(headers);
});

test.each(["{}", "{ \n }"])("parseJsonProduce() takes the empty headers %j for none", (headers) => {
  expect(recordOf(`{"value":1,"headers":${headers}}`).headers).toBeNull();
});

test.each([
  ["0", 0],
  ["-0", 0],
  ["1e3", 1000],
  ["9007199254740991", Number.MAX_SAFE_INTEGER],
])("parseJsonProduce() takes %s for an integer", (text, value) => {
  const record = recordOf(`{"value":1,"timestamp":${text},"partition":${text}}`);
  expect([record.timestamp, record.partition]).toEqual([value, value]);
});

test.each([
  ["", []],
  ["AA==", [0]],
  ["/+8=", [0xff, 0xef]],
  [String.raw`\/\u002b8=`, [0xff, 0xef]],
])("parseJsonProduce() decodes the bytes %j", (base64, bytes) => {
  expect(recordOf(`{"key":"k","bytes": "${base64}" ,"timestamp":1}`)).toMatchObject({
    key: "k",
    value: new Uint8Array(bytes),
    headers: null,
    timestamp: 1,
  });
});

test("parseJsonProduce() decodes any bytes, among values that it leaves as they came", () => {
  const value = fc.oneof(jsonText, fc.uint8Array());
  fc.assert(
    fc.property(fc.array(value, { minLength: 1 }), (values) => {
      const records = values.map((one) =>
        typeof one === "string" ? `{"value":${one}}` : `{"bytes":"${Buffer.from(one).toString("base64")}"}`,
      );
      const parsed = parseJsonProduce(`{"records":[${records.join(",")}]}`).records;
      expect(parsed.map((record) => record.value)).toEqual(values);
    }),
  );
});

// ── parseRecordsArray ────────────────────────────────────────────────────────────────────────────────────

test("parseRecordsArray() gives the same records as a JSON body around the array", () => {
  const text =
    ' [ {"value":{ "a": 2.0 },"key":"k","headers":{"h":"1"},"timestamp":1,"partition":2}, {"bytes":"AAE="} ] ';
  expect(parseRecordsArray(text)).toEqual(parseJsonProduce(`{"records":${text}}`).records);
  expect(parseRecordsArray(text)).toHaveLength(2);
});

test.each([
  "[]",
  "{}",
  "1",
  '"[]"',
  "null",
  '[{"value":1,"value":2}]',
  "[1]",
  '[{"value":1},{"bytes":"AA"}]',
])("parseRecordsArray() refuses %s as a JSON body with it is refused", (text) => {
  const refusal = refusalOf(() => parseRecordsArray(text));
  expect(refusal).toEqual(refusalOf(() => parseJsonProduce(`{"records":${text}}`).records));
  expect(refusal.code).toBe("bad_request");
});

test("parseRecordsArray() refuses a raw lone surrogate", () => {
  expect(refusalOf(() => parseRecordsArray('[{"value":"\ud800"}]')).message).toContain("lone surrogate");
});

test("parseRecordsArray() takes 10,000 records, not 10,001", () => {
  const array = (count: number) => `[${Array(count).fill('{"value":1}').join(",")}]`;
  expect(parseRecordsArray(array(10_000))).toHaveLength(10_000);
  expect(refusalOf(() => parseRecordsArray(array(10_001)))).toMatchObject({ code: "batch_too_large" });
});

// ── parseJsonProduce: what is refused ────────────────────────────────────────────────────────────────────

const NOT_JSON = "Cannot produce the body: found text that is not JSON, allowed JSON";

test.each([
  ["an empty body", "", NOT_JSON],
  ["half a body", '{"records":[{"value":1}', NOT_JSON],
  ["more than one value", '{"records":[{"value":1}]} 1', NOT_JSON],
  ["a trailing comma", '{"records":[{"value":1},]}', NOT_JSON],
  ["a byte order mark that nobody dropped", '\ufeff{"records":[{"value":1}]}', NOT_JSON],
  [
    "a raw lone surrogate",
    '{"records":[{"value":"\ud800"}]}',
    "Cannot produce the body: found lone surrogate",
  ],
  ["a body that is an array", '[{"value":1}]', "Cannot produce the body: found array, allowed object"],
  ["a body that is a scalar", "17", "Cannot produce the body: found number, allowed object"],
  ["no records", "{}", 'Cannot produce the body: found no "records"'],
  ["empty records", '{"records":[]}', "Cannot produce records: found empty array, allowed 1 record or more"],
  ["records that are no array", '{"records":{}}', "Cannot produce records: found object, allowed array"],
  [
    "an unknown member",
    '{"records":[{"value":1}],"acks":1}',
    'the body: found member "acks", allowed records, producer, expect',
  ],
  [
    "a producer twice",
    '{"producer":null,"records":[{"value":1}],"producer":{}}',
    'Cannot produce the body: found member "producer" twice, allowed once',
  ],
  [
    "records twice",
    String.raw`{"records":[{"value":1}],"\u0072ecords":[{"value":2}]}`,
    'Cannot produce the body: found member "records" twice, allowed once',
  ],
])("parseJsonProduce() refuses %s", (_, text, message) => {
  const refusal = refusalOf(() => parseJsonProduce(text).records);
  expect(refusal.code).toBe("bad_request");
  expect(refusal.message).toContain(message);
});

const REFUSED_RECORDS: readonly (readonly [name: string, envelope: string, message: string])[] = [
  ["a record that is no object", "[]", ": found array, allowed object"],
  [
    "an unknown member",
    '{"value":1,"offset":1}',
    ': found member "offset", allowed key, value, bytes, headers',
  ],
  ["__proto__ as a member", '{"value":1,"__proto__":{}}', ': found member "__proto__"'],
  ["constructor as a member", '{"value":1,"constructor":1}', ': found member "constructor"'],
  [
    "neither value nor bytes",
    '{"key":"k"}',
    ': found neither "value" nor "bytes", allowed exactly one of them',
  ],
  ["both value and bytes", '{"value":1,"bytes":"AA=="}', ': found both "value" and "bytes"'],
  ["value null beside bytes", '{"value":null,"bytes":"AA=="}', ': found both "value" and "bytes"'],
  ["bytes that are null", '{"bytes":null}', ".bytes: found null, allowed string of base64"],
  ["bytes that are a number", '{"bytes":12}', ".bytes: found number, allowed string of base64"],
  ["bytes that are an array", '{"bytes":[0,255]}', ".bytes: found array, allowed string of base64"],
  [
    "bytes for URLs",
    '{"bytes":"_-_-"}',
    '.bytes: found "_-_-", allowed base64 of the standard alphabet, padded, without white space',
  ],
  ["bytes without padding", '{"bytes":"AA"}', '.bytes: found "AA", allowed base64'],
  ["bytes with bits behind the last", '{"bytes":"AB=="}', '.bytes: found "AB==", allowed base64'],
  [
    "bytes with white space",
    String.raw`{"bytes":"AAAA\n"}`,
    String.raw`.bytes: found "AAAA\n", allowed base64`,
  ],
  [
    "bytes with NUL",
    String.raw`{"bytes":"AAA\u0000"}`,
    String.raw`.bytes: found "AAA\u0000", allowed base64`,
  ],
  ["bytes with a lone surrogate", String.raw`{"bytes":"AAA\ud800"}`, '.bytes: found "AAA'],
  ["value twice", '{"value":1,"value":2}', ': found member "value" twice, allowed once'],
  ["key twice, once escaped", String.raw`{"key":"a","value":1,"\u006bey":"a"}`, ': found member "key" twice'],
  ["bytes twice", '{"bytes":null,"bytes":null}', ': found member "bytes" twice'],
  ["a key that is a number", '{"key":1,"value":1}', ".key: found number, allowed string or null"],
  ["a key that is an object", '{"key":{},"value":1}', ".key: found object, allowed string or null"],
  ["a key with a lone surrogate", String.raw`{"key":"\ud800","value":1}`, ".key: found lone surrogate"],
  [
    "a key with NUL",
    String.raw`{"key":"a\u0000","value":1}`,
    ".key: found NUL, allowed Unicode text without NUL",
  ],
  [
    "a timestamp that is a string",
    '{"value":1,"timestamp":"1"}',
    ".timestamp: found string, allowed integer",
  ],
  ["a timestamp of null", '{"value":1,"timestamp":null}', ".timestamp: found null"],
  [
    "a negative timestamp",
    '{"value":1,"timestamp":-1}',
    ".timestamp: found -1, allowed integer from 0 to 9007",
  ],
  ["a timestamp with a fraction", '{"value":1,"timestamp":1.5}', ".timestamp: found 1.5"],
  ["a timestamp of 2^53", '{"value":1,"timestamp":9007199254740992}', ".timestamp: found 9007199254740992"],
  ["an infinite timestamp", '{"value":1,"timestamp":1E400}', ".timestamp: found 1E400"],
  ["a partition that is a boolean", '{"value":1,"partition":true}', ".partition: found boolean"],
  ["a negative partition", '{"value":1,"partition":-1}', ".partition: found -1"],
  ["a partition of 2^53", '{"value":1,"partition":9007199254740992}', ".partition: found 9007199254740992"],
  ["headers of null", '{"value":1,"headers":null}', ".headers: found null, allowed object of strings"],
  ["headers that are an array", '{"value":1,"headers":[]}', ".headers: found array"],
  [
    "a header that is a number",
    '{"value":1,"headers":{"h":1}}',
    '.headers["h"]: found number, allowed string',
  ],
  ["a header of null", '{"value":1,"headers":{"h":null}}', '.headers["h"]: found null'],
  [
    "a header twice",
    String.raw`{"value":1,"headers":{"h":"1","\u0068":"1"}}`,
    '.headers: found member "h" twice',
  ],
  [
    "a header name with a lone surrogate",
    String.raw`{"value":1,"headers":{"\udc00":""}}`,
    "found lone surrogate",
  ],
  ["a header name with NUL", String.raw`{"value":1,"headers":{"\u0000":""}}`, "found NUL"],
  [
    "a header with a lone surrogate",
    String.raw`{"value":1,"headers":{"h":"\ud800"}}`,
    "found lone surrogate",
  ],
  ["a header with NUL", String.raw`{"value":1,"headers":{"h":"\u0000"}}`, '.headers["h"]: found NUL'],
];

test.each(REFUSED_RECORDS)("parseJsonProduce() refuses %s and says where", (_, envelope, message) => {
  const refusal = refusalOf(() => parseJsonProduce(`{"records":[{"value":1},${envelope}]}`).records);
  expect(refusal.code).toBe("bad_request");
  expect(refusal.message).toStartWith("Cannot produce records[1]");
  expect(refusal.message).toContain(message);
  expect(refusal.facts).toMatchObject({ record: 1 });
});

test("parseJsonProduce() does not repeat a long name or number of the request", () => {
  const long = "9".repeat(100_000);
  const [name, number] = [`{"${long}":1}`, `{"value":1,"timestamp":${long}}`];
  expect(problemOf(() => recordOf(`{"bytes":"${long}!"}`)).message.length).toBeLessThan(250);
  expect(problemOf(() => recordOf(name)).message.length).toBeLessThan(250);
  expect(problemOf(() => recordOf(number)).message.length).toBeLessThan(250);
});

// ── parseNdjsonProduce: what is taken ────────────────────────────────────────────────────────────────────

test("parseNdjsonProduce() takes each line as a value, without what only a JSON body can say", () => {
  const text = '{"key":"no envelope","timestamp":1}\n[1]\n"x"\nnull\n';
  const records = parseNdjsonProduce(text, null).records;
  expect(records.map(({ value }) => value)).toEqual([
    '{"key":"no envelope","timestamp":1}',
    "[1]",
    '"x"',
    "null",
  ]);
  for (const record of records) {
    expect(record).toMatchObject({ key: null, headers: null, timestamp: null, partition: null });
  }
});

test("parseNdjsonProduce() keeps any line byte for byte and skips blank ones", () => {
  const lines = fc.array(fc.tuple(jsonText, fc.constantFrom("", " ", "\t", "\r")), { minLength: 1 });
  const blank = fc.constantFrom("\n", "\r\n", "\n \t\r\n", "\n\n");
  fc.assert(
    fc.property(lines, blank, (values, newline) => {
      const text = values.map(([value, gap]) => `${gap}${oneLine(value)}${gap}`).join(newline);
      const parsed = parseNdjsonProduce(text, null).records;
      expect(parsed.map(({ value }) => value)).toEqual(values.map(([value]) => oneLine(value)));
    }),
  );
});

function oneLine(json: string): string {
  return json.replaceAll("\n", " ");
}

test.each([
  ["no newline at the end", "1\n2"],
  ["a newline at the end", "1\n2\n"],
  ["CRLF", "1\r\n2\r\n"],
  ["blank lines and white space", "\n \t\n 1 \n\r\n\n\t2\t\n \n"],
])("parseNdjsonProduce() takes %s", (_, text) => {
  expect(parseNdjsonProduce(text, null).records.map(({ value }) => value)).toEqual(["1", "2"]);
});

test("parseNdjsonProduce() ends lines at newlines only, not at U+2028", () => {
  expect(only(parseNdjsonProduce('"a\u2028b\u2029c"\n', null).records).value).toBe('"a\u2028b\u2029c"');
});

const KEYS: readonly (readonly [line: string, pointer: string, key: string | null])[] = [
  ['{"a":"x"}', "/a", "x"],
  ['{"a":""}', "/a", ""],
  [String.raw`{"a":"\u0041\n"}`, "/a", "A\n"],
  ['{"a":{"b":[10,"y"]}}', "/a/b/1", "y"],
  ['{"a":2.0}', "/a", "2.0"],
  ['{"a":-0}', "/a", "-0"],
  ['{"a": 1E400 }', "/a", "1E400"],
  ['{"a":12345678901234567890}', "/a", "12345678901234567890"],
  ['{"b":[0,{"a":"[,1"},[1.50]],"a":1}', "/b/2/0", "1.50"],
  ['{"a":true}', "/a", "true"],
  ['{"a":false}', "/a", "false"],
  ['{"a":null}', "/a", null],
  ['{"b":1}', "/a", null],
  ['{"a":1,"a":2.0}', "/a", "2.0"],
  [String.raw`{"a":1,"\u0061":3.0,"b":4}`, "/a", "3.0"],
  ['{"a":{"b":1},"a":{"b":5.0}}', "/a/b", "5.0"],
  ['{"a":{"b":1},"a":7}', "/a/b", null],
  ['{"a":7,"a":{"b":5.0}}', "/a/b", "5.0"],
  ['{"a":7,"a":[1]}', "/a/length", null],
  ['{"a":[[1,2]]}', "/a/0/length", null],
  ['{"a":1,"a":"last"}', "/a", "last"],
  ['"whole"', "", "whole"],
  ["1.0", "", "1.0"],
  ["true", "", "true"],
  ["null", "", null],
  ['{"":{"":1}}', "//", "1"],
  ['{"a/b":"slash","m~n":"tilde"}', "/a~1b", "slash"],
  ['{"a/b":"slash","m~n":"tilde"}', "/m~0n", "tilde"],
  ['{"~1":"not a slash"}', "/~01", "not a slash"],
  ["[7.0,8]", "/0", "7.0"],
  ["[7.0,8]", "/2", null],
  ["[7.0,8]", "/01", null],
  ["[7.0,8]", "/-", null],
  ["[7.0,8]", "/-0", null],
  ["[7.0,8]", "/1.0", null],
  ["[7.0,8]", "/length", null],
  ['["x"]', "/constructor", null],
  ['"text"', "/length", null],
  ['"text"', "/0", null],
  ["{}", "/__proto__", null],
  ["{}", "/constructor/name", null],
  ["{}", "/toString", null],
  ['{"__proto__":"own"}', "/__proto__", "own"],
  ['{"__proto__":6.0}', "/__proto__", "6.0"],
  ['{"length":9}', "/length", "9"],
  ['{"0":"zero"}', "/0", "zero"],
];

test.each(KEYS)("parseNdjsonProduce() of %j finds at %j the key %j", (line, pointer, key) => {
  expect(only(parseNdjsonProduce(line, pointer).records).key).toBe(key);
});

test("parseNdjsonProduce() takes the same member as JSON.parse, and its text", () => {
  const member = fc.tuple(
    fc.constantFrom("a", "b", String.raw`\u0061`),
    surrounded(fc.constantFrom("1", "2", "3")),
  );
  fc.assert(
    fc.property(fc.array(member), (members) => {
      const line = `{${members.map(([name, text]) => `"${name}":${oneLine(text)}`).join(",")}}`;
      const expected: number | undefined = JSON.parse(line).a;
      expect(only(parseNdjsonProduce(line, "/a").records).key).toBe(
        expected === undefined ? null : String(expected),
      );
    }),
  );
});

// ── parseNdjsonProduce: what is refused ──────────────────────────────────────────────────────────────────

test.each([
  ["a body without a line", "", "Cannot produce the body: found no records, allowed one JSON value a line"],
  ["a body of blank lines", "\n \r\n\t\n", "Cannot produce the body: found no records"],
  ["a raw lone surrogate", '"\udc00"', "Cannot produce the body: found lone surrogate"],
])("parseNdjsonProduce() refuses %s", (_, text, message) => {
  const refusal = refusalOf(() => parseNdjsonProduce(text, null).records);
  expect(refusal.code).toBe("bad_request");
  expect(refusal.message).toContain(message);
});

test.each([
  ["a value over two lines", "{\n}"],
  ["two values on a line", "1 2"],
  ["a bare word", "secret"],
  ["a no-break space", "\u00a01"],
  ["a byte order mark", "\ufeff1"],
  ["half a string", '"a'],
])("parseNdjsonProduce() refuses %s by its line, counting the blank ones", (_, line) => {
  expect(refusalOf(() => parseNdjsonProduce(`1\n\n \r\n${line}\n2\n`, null).records)).toEqual({
    code: "bad_request",
    message: "Cannot produce line 4: found text that is not JSON, allowed JSON",
    facts: { line: 4, found: "text that is not JSON", allowed: "JSON" },
  });
});

test.each([
  [
    "an object",
    '{"a":{}}',
    "the key of line 2: found object, allowed string, number, boolean, null or nothing",
  ],
  [
    "an array",
    '{"a":[]}',
    "the key of line 2: found array, allowed string, number, boolean, null or nothing",
  ],
  ["a lone surrogate", String.raw`{"a":"\ud800"}`, "the key of line 2: found lone surrogate"],
  ["NUL", String.raw`{"a":"\u0000"}`, "the key of line 2: found NUL"],
])("parseNdjsonProduce() refuses %s as a key", (_, line, message) => {
  const refusal = refusalOf(() => parseNdjsonProduce(`{"a":1}\n${line}\n`, "/a").records);
  expect(refusal.code).toBe("bad_request");
  expect(refusal.message).toContain(message);
  expect(refusal.facts).toMatchObject({ line: 2 });
});

test.each(["a", "a/b", "#/a", "/~", "/~2", "/a~", " /a"])(
  "parseNdjsonProduce() refuses the pointer %j",
  (pointer) => {
    const { code, message } = refusalOf(() => parseNdjsonProduce('{"a":"x"}', pointer).records);
    expect(code).toBe("bad_request");
    expect(message).toStartWith(`Cannot read ?key=${JSON.stringify(pointer)}: `);
  },
);

// ── limits: at, and one above ────────────────────────────────────────────────────────────────────────────

test("parseJsonProduce() takes 128 arrays inside one another in a value, not 129", () => {
  expect(recordOf(`{"value":${nested(128)}}`).value).toBe(nested(128));
  expect(refusalOf(() => recordOf(`{"value":${nested(129)}}`))).toEqual({
    code: "bad_request",
    message: "Cannot produce records[0].value: found 129 arrays and objects inside one another, allowed 128",
    facts: { record: 0, found: 129, allowed: 128 },
  });
});

test("parseNdjsonProduce() takes 128 arrays inside one another in a line, not 129", () => {
  expect(only(parseNdjsonProduce(nested(128), null).records).value).toBe(nested(128));
  const long = `{"a":${nested(127)},"b":"${"x".repeat(256)}"}`;
  expect(only(parseNdjsonProduce(long, null).records).value).toBe(long);
  expect(refusalOf(() => parseNdjsonProduce(`1\n${nested(129)}`, "").records)).toEqual({
    code: "bad_request",
    message: "Cannot produce line 2: found 129 arrays and objects inside one another, allowed 128",
    facts: { line: 2, found: 129, allowed: 128 },
  });
});

test("a million arrays inside one another are refused like 129", () => {
  const deep = nested(1_000_000);
  expect(problemOf(() => recordOf(`{"value":${deep}}`)).facts).toMatchObject({ found: 1_000_000 });
  expect(problemOf(() => recordOf(`{"key":${deep},"value":1}`)).facts).toMatchObject({ found: 1_000_000 });
  expect(problemOf(() => parseNdjsonProduce(deep, "/0/0").records).facts).toMatchObject({ found: 1_000_000 });
  expect(problemOf(() => parseJsonProduce(deep).records).code).toBe("bad_request");
});

test("parseJsonProduce() takes a key of 32 KiB of UTF-8, not one more", () => {
  const key = "é".repeat(16 * 1024);
  expect(recordOf(`{"key":"${key}","value":1}`).key).toBe(key);
  expect(refusalOf(() => recordOf(`{"key":"${key}x","value":1}`))).toEqual({
    code: "record_too_large",
    message: "Cannot produce records[0].key: found 32769 bytes, allowed 32768",
    facts: { record: 0, found: 32_769, allowed: 32_768 },
  });
});

test("parseNdjsonProduce() takes a key of 32 KiB of UTF-8, not one more", () => {
  const key = "k".repeat(32 * 1024);
  expect(only(parseNdjsonProduce(`"${key}"`, "").records).key).toBe(key);
  expect(refusalOf(() => parseNdjsonProduce(`\n"${key}k"`, "").records)).toEqual({
    code: "record_too_large",
    message: "Cannot produce the key of line 2: found 32769 bytes, allowed 32768",
    facts: { line: 2, found: 32_769, allowed: 32_768 },
  });
});

function headersOf(count: number): string {
  return `{${Array.from({ length: count }, (_, index) => `"h${index}":""`).join(",")}}`;
}

test("parseJsonProduce() takes 64 headers, not 65", () => {
  expect(recordOf(`{"value":1,"headers":${headersOf(64)}}`).headers).toBe(headersOf(64));
  expect(refusalOf(() => recordOf(`{"value":1,"headers":${headersOf(65)}}`))).toEqual({
    code: "record_too_large",
    message: "Cannot produce records[0].headers: found 65 headers, allowed 64",
    facts: { record: 0, found: 65, allowed: 64 },
  });
});

test("parseJsonProduce() takes headers of 16 KiB of text, not one byte more", () => {
  const headers = (bytes: number) => `{"é":"${"x".repeat(bytes - '{"é":""}'.length - 1)}"}`;
  expect(recordOf(`{"value":1,"headers":${headers(16_384)}}`).headers).toBe(headers(16_384));
  expect(refusalOf(() => recordOf(`{"value":1,"headers":${headers(16_385)}}`))).toEqual({
    code: "record_too_large",
    message: "Cannot produce records[0].headers: found 16385 bytes, allowed 16384",
    facts: { record: 0, found: 16_385, allowed: 16_384 },
  });
});

test("parseJsonProduce() takes key, headers and value of 1 MiB together, not one byte more", () => {
  const envelope = (bytes: number) => {
    const value = `"${"x".repeat(bytes - 'é{"h":"1"}""'.length - 1)}"`;
    return `{"key":"é","headers":{"h":"1"},"value": ${value} }`;
  };
  expect(recordOf(envelope(MIB)).bytes).toBe(MIB);
  expect(refusalOf(() => recordOf(envelope(MIB + 1)))).toEqual({
    code: "record_too_large",
    message: "Cannot produce records[0]: found 1048577 bytes, allowed 1048576",
    facts: { record: 0, found: MIB + 1, allowed: MIB },
  });
});

test("parseJsonProduce() takes key, headers and decoded bytes of 1 MiB together, not one byte more", () => {
  const envelope = (bytes: number) => {
    const base64 = Buffer.alloc(bytes - 'é{"h":"1"}'.length - 1).toString("base64");
    return `{"key":"é","headers":{"h":"1"},"bytes":"${base64}"}`;
  };
  expect(recordOf(envelope(MIB)).bytes).toBe(MIB);
  expect(refusalOf(() => recordOf(envelope(MIB + 1)))).toEqual({
    code: "record_too_large",
    message: "Cannot produce records[0]: found 1048577 bytes, allowed 1048576",
    facts: { record: 0, found: MIB + 1, allowed: MIB },
  });
});

test("parseNdjsonProduce() takes a line of 1 MiB, white space around it aside, not one byte more", () => {
  const line = `"${"x".repeat(MIB - 2)}"`;
  expect(only(parseNdjsonProduce(`  ${line}\r\n`, null).records).bytes).toBe(MIB);
  expect(refusalOf(() => parseNdjsonProduce(`1\n${line.replace("x", "xx")}`, null).records)).toEqual({
    code: "record_too_large",
    message: "Cannot produce line 2: found 1048577 bytes, allowed 1048576",
    facts: { line: 2, found: MIB + 1, allowed: MIB },
  });
});

test("parseJsonProduce() takes 10,000 records, not 10,001", () => {
  const body = (count: number) => `{"records":[${Array(count).fill('{"value":1}').join(",")}]}`;
  expect(parseJsonProduce(body(10_000)).records).toHaveLength(10_000);
  expect(refusalOf(() => parseJsonProduce(body(10_001)).records)).toEqual({
    code: "batch_too_large",
    message: "Cannot produce records[10000]: found 10001 records or more, allowed 10000",
    facts: { record: 10_000, found: 10_001, allowed: 10_000 },
  });
});

test("parseNdjsonProduce() takes 10,000 lines that are not blank, not 10,001", () => {
  expect(parseNdjsonProduce("1\n\n".repeat(10_000), null).records).toHaveLength(10_000);
  expect(refusalOf(() => parseNdjsonProduce("\n1".repeat(10_001), null).records)).toEqual({
    code: "batch_too_large",
    message: "Cannot produce line 10002: found 10001 records or more, allowed 10000",
    facts: { line: 10_002, found: 10_001, allowed: 10_000 },
  });
});

// ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────

test("bytes is the UTF-8 of the decoded key and of the texts of headers and value", () => {
  const record = recordOf('{"key":"\\u00e9","headers":{"h" : "ü"},"value": "🌊\\n" }');
  expect(record.bytes).toBe(2 + 12 + 8);
});

test("frameBytesMax is the text of the record with the largest integers, and a comma", () => {
  fc.assert(
    fc.property(fc.option(jsonStringText), jsonText, fc.boolean(), (keyText, value, hasHeaders) => {
      const key: string | null = keyText === null ? null : JSON.parse(keyText);
      fc.pre(!key?.includes("\0"));
      const headers = hasHeaders ? '{"h":"ü"}' : null;
      const record = recordOf(`{"value":${value},"key":${keyText}${headers ? `,"headers":${headers}` : ""}}`);
      const largest = Number.MAX_SAFE_INTEGER;
      const keyed = `{"offset":${largest},"timestamp":${largest},"key":${key === null ? "" : quoteLongest(key)}`;
      const frame = `${keyed},"headers":${headers ?? ""},"value":${value}},`;
      expect(record.frameBytesMax).toBe(new TextEncoder().encode(frame).length);
    }),
  );
});

test("frameBytesMax counts bytes as they stand in a frame, as base64", () => {
  for (let count = 0; count < 10; count += 1) {
    const base64 = Buffer.alloc(count).toString("base64");
    const record = recordOf(`{"bytes":"${base64}","key":"k","headers":{"h":"ü"}}`);
    const largest = Number.MAX_SAFE_INTEGER;
    const frame = `{"offset":${largest},"timestamp":${largest},"key":"k","headers":{"h":"ü"},"bytes":"${base64}"},`;
    expect(record.frameBytesMax).toBe(Buffer.byteLength(frame));
    expect(record.bytes).toBe(1 + '{"h":"ü"}'.length + 1 + count);
  }
});

/** As SQLite's json_quote may write it at worst. */
function quoteLongest(key: string): string {
  return JSON.stringify(key).replaceAll(/\\[bfnrt]/g, "\\u00XX");
}

// ── anything at all ──────────────────────────────────────────────────────────────────────────────────────

const validBody = fc
  .array(fc.tuple(jsonText, jsonStringText), { minLength: 1, maxLength: 4 })
  .map((records) =>
    records.map(([value, text], index) => {
      const content = index % 2 === 0 ? `"value":${value}` : '"bytes":"AAECAw=="';
      return `{${content},"key":${text},"headers":{${text}:${text}}}`;
    }),
  )
  .map((records) => `{"records":[${records.join(",")}]}`);

const mutatedBody = fc
  .tuple(
    validBody,
    fc.nat(),
    fc.nat({ max: 3 }),
    fc.constantFrom("", '"', "\\", ",", "[", "}", "\n", "0", "\ud800"),
  )
  .map(([text, at, removed, added]) => {
    const start = at % text.length;
    return text.slice(0, start) + added + text.slice(start + removed);
  });

test("parseJsonProduce() of a damaged body gives records or a Problem, nothing else", () => {
  fc.assert(
    fc.property(mutatedBody, (text) => {
      expectRecordsOrProblem(() => parseJsonProduce(text).records);
    }),
    { numRuns: 2000 },
  );
});

test("parseNdjsonProduce() of a damaged body gives records or a Problem, nothing else", () => {
  const pointer = fc.constantFrom(
    null,
    "",
    "/records/0/key",
    "/records/0/value",
    "/records/0/headers/0",
    "/~",
  );
  fc.assert(
    fc.property(mutatedBody, pointer, (text, keyPointer) => {
      expectRecordsOrProblem(() => parseNdjsonProduce(text, keyPointer).records);
    }),
    { numRuns: 2000 },
  );
});

function expectRecordsOrProblem(parse: () => readonly NewRecord[]): void {
  try {
    for (const { value } of parse())
      if (typeof value === "string") expect(() => JSON.parse(value)).not.toThrow();
  } catch (error) {
    expect(error).toBeInstanceOf(Problem);
  }
}
