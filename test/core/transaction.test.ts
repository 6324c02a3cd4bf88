import { describe, expect, test } from "bun:test";
import { Problem } from "../../src/core/problem.ts";
import {
  parseProduceBody,
  produceOf,
  readProduce,
  readTransaction,
  type Transaction,
} from "../../src/core/transaction.ts";
import { BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX } from "../../src/protocol/limits.ts";
import { transactEnvelopeSchema } from "../../src/protocol/schemas/client.ts";
import { judge } from "../../src/protocol/schemas/verdict.ts";

const COMMITS = { group: "billing", offsets: [{ topic: "orders", partition: 0, generation: 3, offset: 7 }] };

/** As the border reads a body: the envelope by its schema, the records off the text. */
function read(text: string): Transaction {
  const verdict = judge(transactEnvelopeSchema, JSON.parse(text));
  if (verdict.kind !== "valid") throw new Error(`the envelope is not valid: ${JSON.stringify(verdict)}`);
  return readTransaction(text, verdict.output);
}

const appendOf = (topic: string, records: string) => `{"topic":"${topic}","records":${records}}`;

const bodyOf = (...appends: readonly string[]) => `{"appends":[${appends}]}`;

function refusalOf(work: () => unknown): { code: string; message: string; facts: object } {
  try {
    work();
  } catch (error) {
    if (error instanceof Problem) return { code: error.code, message: error.message, facts: error.facts };
    throw error;
  }
  throw new Error("it was not refused");
}

const valuesOf = ({ appends }: Transaction) =>
  appends.map(({ records }) => records.map(({ value }) => value));

const records = (count: number) => `[${Array.from({ length: count }, (_, n) => `{"value":${n}}`)}]`;

/** So many bytes of an append's `records`. */
function recordsOfBytes(bytes: number): string {
  const frame = '{"value":""}';
  const each = 900_000;
  const whole = Math.floor((bytes - 2) / (each + 1));
  const rest = bytes - 2 - whole * (each + 1);
  const texts = [...Array.from({ length: whole }, () => each), rest].map(
    (size) => `{"value":"${"x".repeat(size - frame.length)}"}`,
  );
  return `[${texts}]`;
}

describe("readTransaction()", () => {
  test("leaves every value as it came, byte for byte, in the order of the appends", () => {
    const values = [
      "2.0",
      "-0",
      "1E400",
      "12345678901234567890",
      '{ "a" : 1,"a":2 }',
      "[ 1,\t2 ]",
      '"\\u00e9"',
    ];
    const list = (some: readonly string[]) =>
      `[ ${some.map((value) => `{"value": ${value} }`).join(" , ")} ]`;
    const text = `{ "appends" : [ ${appendOf("b", list(values.slice(0, 3)))} , ${appendOf("a", list(values.slice(3)))} ,
      {"records":[{"value":{"records":[1.0]}}], "topic":"b"} ] }`;
    const transaction = read(text);
    expect(valuesOf(transaction)).toEqual([values.slice(0, 3), values.slice(3), ['{"records":[1.0]}']]);
    expect(transaction.appends.map(({ topic, append }) => [topic, append])).toEqual([
      ["b", 0],
      ["a", 1],
      ["b", 2],
    ]);
  });

  test("finds records whose member's name is written with escapes", () => {
    expect(valuesOf(read('{"appends":[{"\\u0072ecords":[{"value":1.0}],"topic":"a"}]}'))).toEqual([["1.0"]]);
  });

  test("takes its conditions over as they are", () => {
    const conditions = {
      producer: { id: "p", epoch: 1, sequence: 2 },
      commits: COMMITS,
      expect: [{ topic: "orders", partition: 0, logEndOffset: 9 }],
    };
    const text = JSON.stringify({ appends: [{ topic: "a", records: [{ value: 1 }] }], ...conditions });
    expect(read(text)).toMatchObject(conditions);
    expect(read(bodyOf(appendOf("a", records(1))))).toEqual({
      appends: [expect.objectContaining({ topic: "a" })],
      producer: undefined,
      commits: undefined,
      expect: undefined,
    });
  });

  test("takes no appends where there are commits, and nowhere else", () => {
    expect(read(JSON.stringify({ appends: [], commits: COMMITS })).appends).toEqual([]);
    const conditions = {
      producer: { id: "p", epoch: 0, sequence: 0 },
      expect: [{ topic: "orders", partition: 0, logEndOffset: 9 }],
    };
    for (const body of [{ appends: [] }, { appends: [], ...conditions }])
      expect(refusalOf(() => read(JSON.stringify(body)))).toMatchObject({
        code: "bad_request",
        message: "Cannot transact: found neither appends nor commits, allowed one of them",
      });
  });

  test("takes 10,000 records over its appends, and says at which append there is one too many", () => {
    const half = records(BATCH_RECORDS_MAX / 2);
    const full = read(bodyOf(appendOf("a", half), appendOf("b", half)));
    expect(full.appends.map((append) => append.records.length)).toEqual([5_000, 5_000]);
    const refused = refusalOf(() =>
      read(
        bodyOf(
          appendOf("a", half),
          appendOf("b", half),
          appendOf("a", records(1)),
          appendOf("c", records(1)),
        ),
      ),
    );
    expect(refused).toMatchObject({ code: "batch_too_large", facts: { append: 2 } });
    expect(refused.message).toContain("appends[2]");
  });

  test("takes 4,000,000 bytes of records over its appends, and not one more", () => {
    const body = (bytes: number) =>
      bodyOf(appendOf("a", recordsOfBytes(BATCH_BYTES_MAX / 2)), appendOf("b", recordsOfBytes(bytes)));
    expect(read(body(BATCH_BYTES_MAX / 2)).appends).toHaveLength(2);
    expect(refusalOf(() => read(body(BATCH_BYTES_MAX / 2 + 1)))).toEqual({
      code: "batch_too_large",
      message: "Cannot transact: found 4000001 bytes of records, allowed 4000000",
      facts: { found: BATCH_BYTES_MAX + 1, allowed: BATCH_BYTES_MAX },
    });
  });

  test("counts bytes of UTF-8, not characters", () => {
    const ascii = recordsOfBytes(BATCH_BYTES_MAX - 10);
    expect(read(bodyOf(appendOf("a", ascii))).appends).toHaveLength(1);
    const longer = ascii.replaceAll(/x{12}"\}/g, `${"é".repeat(12)}"}`);
    expect(refusalOf(() => read(bodyOf(appendOf("a", longer)))).code).toBe("batch_too_large");
  });

  test.each([
    ["no records", "[]", "bad_request", "appends[1].records"],
    ["a record that is no object", "[7]", "bad_request", "appends[1].records[0]"],
    ["a record without content", '[{"value":1},{}]', "bad_request", "appends[1].records[1]"],
    ["two contents", '[{"value":1,"bytes":"AA=="}]', "bad_request", "appends[1].records[0]"],
    ["an unknown member", '[{"value":1,"topic":"x"}]', "bad_request", "appends[1].records[0]"],
    ["a member twice", '[{"value":1,"value":2}]', "bad_request", "appends[1].records[0]"],
    [
      "a key that is no text",
      '[{"value":1},{"value":1},{"value":1},{"value":1,"key":7}]',
      "bad_request",
      "appends[1].records[3].key",
    ],
    ["a partition below 0", '[{"value":1,"partition":-1}]', "bad_request", "appends[1].records[0].partition"],
    [
      "a timestamp that is none",
      '[{"value":1,"timestamp":1.5}]',
      "bad_request",
      "appends[1].records[0].timestamp",
    ],
    ["bytes that are no base64", '[{"bytes":"A"}]', "bad_request", "appends[1].records[0].bytes"],
    [
      "too large a record",
      `[{"value":"${"x".repeat(RECORD_BYTES_MAX)}"}]`,
      "record_too_large",
      "appends[1].records[0]",
    ],
  ])("refuses %s and says where", (_, second, code, place) => {
    const refused = refusalOf(() => read(bodyOf(appendOf("a", records(1)), appendOf("b", second))));
    expect(refused.code).toBe(code);
    expect(refused.message).toContain(place);
  });

  test.each([
    ["topic", '{"appends":[{"topic":"a","topic":"b","records":[{"value":1}]}]}'],
    ["records", '{"appends":[{"topic":"a","records":[{"value":1}],"records":[{"value":2}]}]}'],
    ["appends", '{"appends":[],"appends":[{"topic":"a","records":[{"value":1}]}]}'],
    [
      "sequence",
      '{"appends":[{"topic":"a","records":[{"value":1}]}],"producer":{"id":"p","epoch":0,"sequence":0,"sequence":1}}',
    ],
  ])("refuses a request that has %s twice", (member, text) => {
    expect(refusalOf(() => read(text))).toMatchObject({
      code: "bad_request",
      message: `Cannot take the request: the member "${member}" is there twice`,
    });
  });
});

describe("a produce", () => {
  test("is a transaction of one append without a place, whose expectations are of its topic", () => {
    const producer = { id: "p", epoch: 0, sequence: 0 };
    const expected = [{ topic: "orders", partition: 1, logEndOffset: 4 }];
    const text =
      '{"records":[{"value":2.0}],"producer":{"id":"p","epoch":0,"sequence":0},"expect":[{"partition":1,"logEndOffset":4}]}';
    const found = parseProduceBody("orders", text);
    expect(found).toMatchObject({ producer, expect: expected });
    expect(found.appends[0]).not.toHaveProperty("append");
    expect(valuesOf(found)).toEqual([["2.0"]]);
    const frame = `{"type":"produce","topic":"orders",${text.slice(1)}`;
    const envelope = {
      type: "produce",
      topic: "orders",
      records: [{}],
      producer,
      expect: [{ partition: 1, logEndOffset: 4 }],
    };
    expect(readProduce(frame, envelope as Parameters<typeof readProduce>[1])).toEqual(found);
  });

  test("without options has no conditions", () => {
    const { producer, commits, expect: expected } = produceOf("orders", { records: [] });
    expect([producer, commits, expected]).toEqual([undefined, undefined, undefined]);
  });

  test.each([
    ['"producer":{"id":"p","epoch":0}', "sequence"],
    ['"producer":{"id":"p","epoch":0,"sequence":0,"x":1}', 'there is no member "producer.x"'],
    [
      '"producer":{"id":"p","epoch":0,"epoch":1,"sequence":0}',
      'in "producer" the member "epoch" is there twice',
    ],
    ['"producer":null', "producer"],
    ['"expect":[]', "expect"],
    ['"expect":[{"topic":"orders","partition":0,"logEndOffset":0}]', "topic"],
    [
      '"expect":[{"partition":0,"logEndOffset":0},{"partition":0,"logEndOffset":1}]',
      "must not name a partition twice",
    ],
    ['"commits":{}', "commits"],
  ])("with %s is refused", (member, why) => {
    const refused = refusalOf(() => parseProduceBody("orders", `{"records":[{"value":1}],${member}}`));
    expect(refused.code).toBe("bad_request");
    expect(refused.message).toContain(why);
  });
});
