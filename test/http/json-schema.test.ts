// The described JSON Schemas give the verdict of the code: judge() for every frame and body, and parseClientFrame()
// for what a frame's text is.

import { describe, expect, test } from "bun:test";
import { Ajv2020, type SchemaObject } from "ajv/dist/2020.js";
import * as v from "valibot";
import { parseClientFrame } from "../../src/core/client-frame.ts";
import { describeSchema } from "../../src/http/json-schema.ts";
import {
  CLIENT_FRAME_SCHEMAS,
  groupOffsetsSchema,
  placeSchema,
  producedRecordSchema,
  resetRequestSchema,
  topicSettingsSchema,
} from "../../src/protocol/schemas/client.ts";
import { listOf, oneOf, word } from "../../src/protocol/schemas/parts.ts";
import { topicListSchema } from "../../src/protocol/schemas/server.ts";
import { judge } from "../../src/protocol/schemas/verdict.ts";

const ajv = new Ajv2020({ strict: false });

function isDescribed(schema: v.GenericSchema, input: unknown): boolean {
  return ajv.compile(describeSchema(schema, "refused") as SchemaObject)(input);
}

function isJudgedValid(schema: v.GenericSchema, input: unknown): boolean {
  return judge(schema, input).kind === "valid";
}

const MAX = Number.MAX_SAFE_INTEGER;
const names = (count: number) => Array.from({ length: count }, (_, index) => `t${index}`);
const partitions = (count: number) => names(count).map((topic) => ({ topic, partition: 0 }));

const SUBSCRIBE = { type: "subscribe", topics: ["orders"], group: "billing" };
const ENTRY = { topic: "orders", partition: 0, generation: 1, offset: 1 };
const ACK = { type: "ack", offsets: [ENTRY] };
const SEEK = { type: "seek", topic: "orders", partition: 0, to: "earliest" };
const PRODUCE = { type: "produce", topic: "orders", records: [{ value: 1 }] };

const SEQUENCE = { id: "p", epoch: 0, sequence: 0 };
const TRANSACT = { type: "transact", appends: [{ topic: "orders", records: [{ value: 1 }] }] };

const VALID: readonly Readonly<Record<string, unknown>>[] = [
  SUBSCRIBE,
  { ...SUBSCRIBE, id: 0 },
  { ...SUBSCRIBE, id: MAX },
  { ...SUBSCRIBE, id: "x".repeat(249) },
  { ...SUBSCRIBE, subscription: "A.z_0-9" },
  { ...SUBSCRIBE, group: "g".repeat(249) },
  { ...SUBSCRIBE, group: "..." },
  { ...SUBSCRIBE, topics: names(100) },
  { ...SUBSCRIBE, reset: "none" },
  { ...SUBSCRIBE, reset: { ago: 0 } },
  { ...SUBSCRIBE, reset: { timestamp: MAX } },
  { ...SUBSCRIBE, reset: { missing: "latest", outOfRange: { ago: 5 } } },
  { ...SUBSCRIBE, reset: {} },
  { ...SUBSCRIBE, ack: "none" },
  { ...SUBSCRIBE, window: {} },
  { ...SUBSCRIBE, window: { records: 1, bytes: 65_536 } },
  { ...SUBSCRIBE, window: { records: 10_000, bytes: 4_194_304 } },
  { ...SUBSCRIBE, sessionTimeoutMs: 6_000 },
  { ...SUBSCRIBE, sessionTimeoutMs: 300_000 },
  { ...SUBSCRIBE, ackTimeoutMs: 100 },
  { ...SUBSCRIBE, ackTimeoutMs: 86_400_000 },
  { ...SUBSCRIBE, instanceId: "tab-7", memberId: "m".repeat(249) },
  { type: "subscribe", topics: ["a"], from: "latest" },
  { type: "subscribe", topics: ["a"], from: { offset: 5 } },
  { type: "subscribe", topics: ["a"], from: { timestamp: 5 } },
  { type: "subscribe", topics: ["a"], from: { ago: 5 } },
  { type: "subscribe", topics: ["a"], from: [{ topic: "a", partition: 0, offset: 0, topicId: 1 }] },
  ACK,
  { ...ACK, offsets: [{ ...ENTRY, metadata: "m".repeat(4_096) }] },
  { ...ACK, offsets: partitions(10_000).map((entry) => ({ ...ENTRY, ...entry })) },
  { type: "release", id: 1, subscription: "s", partitions: partitions(1) },
  SEEK,
  { ...SEEK, to: "current" },
  { ...SEEK, to: { shift: -MAX } },
  { ...SEEK, to: { offset: MAX } },
  { ...SEEK, to: { timestamp: 0 } },
  { ...SEEK, to: { ago: 0 } },
  { type: "pause", partitions: partitions(10_000) },
  { type: "resume", partitions: partitions(2) },
  PRODUCE,
  { ...PRODUCE, records: [{ value: null }] },
  { ...PRODUCE, records: [{ key: null, value: [] }] },
  { ...PRODUCE, records: [{ key: "k".repeat(32_768), value: "x", timestamp: 0, partition: 0 }] },
  { ...PRODUCE, records: [{ value: 1, headers: Object.fromEntries(names(64).map((name) => [name, ""])) }] },
  { ...PRODUCE, records: names(10_000).map((value) => ({ value })) },
  { ...PRODUCE, producer: SEQUENCE, expect: [{ partition: 0, logEndOffset: 0 }] },
  { ...PRODUCE, expect: names(1_024).map((_, partition) => ({ partition, logEndOffset: MAX })) },
  TRANSACT,
  { ...TRANSACT, producer: { id: "p".repeat(249), epoch: MAX, sequence: MAX } },
  { ...TRANSACT, commits: { group: "g", offsets: [{ ...ENTRY, metadata: "m" }] } },
  { ...TRANSACT, appends: [], commits: { group: "g", offsets: [ENTRY] } },
  { ...TRANSACT, expect: [{ topic: "a", partition: 0, logEndOffset: 0 }] },
  { ...TRANSACT, appends: [...TRANSACT.appends, ...TRANSACT.appends] },
  { type: "unsubscribe" },
  { type: "unsubscribe", id: "u", subscription: "s" },
  { type: "pong" },
  { type: "pong", id: 1 },
];

const INVALID: readonly Readonly<Record<string, unknown>>[] = [
  { ...SUBSCRIBE, other: 1 },
  { ...SUBSCRIBE, topics: undefined },
  { ...SUBSCRIBE, topics: "orders" },
  { ...SUBSCRIBE, topics: [] },
  { ...SUBSCRIBE, topics: names(101) },
  { ...SUBSCRIBE, topics: ["a", "a"] },
  { ...SUBSCRIBE, topics: [1] },
  { ...SUBSCRIBE, topics: ["a/b"] },
  { ...SUBSCRIBE, topics: ["."] },
  { ...SUBSCRIBE, id: -1 },
  { ...SUBSCRIBE, id: 1.5 },
  { ...SUBSCRIBE, id: MAX + 1 },
  { ...SUBSCRIBE, id: "x".repeat(250) },
  { ...SUBSCRIBE, id: null },
  { ...SUBSCRIBE, subscription: "" },
  { ...SUBSCRIBE, group: "g".repeat(250) },
  { ...SUBSCRIBE, group: ".." },
  { ...SUBSCRIBE, group: "ü" },
  { ...SUBSCRIBE, reset: "sometimes" },
  { ...SUBSCRIBE, reset: "current" },
  { ...SUBSCRIBE, reset: { ago: -1 } },
  { ...SUBSCRIBE, reset: { ago: 1, timestamp: 1 } },
  { ...SUBSCRIBE, reset: { missing: "current" } },
  { ...SUBSCRIBE, reset: [] },
  { ...SUBSCRIBE, ack: "auto" },
  { ...SUBSCRIBE, window: { records: 0 } },
  { ...SUBSCRIBE, window: { records: 10_001 } },
  { ...SUBSCRIBE, window: { bytes: 65_535 } },
  { ...SUBSCRIBE, window: { bytes: 4_194_305 } },
  { ...SUBSCRIBE, window: { time: 1 } },
  { ...SUBSCRIBE, window: [] },
  { ...SUBSCRIBE, sessionTimeoutMs: 5_999 },
  { ...SUBSCRIBE, sessionTimeoutMs: 300_001 },
  { ...SUBSCRIBE, sessionTimeoutMs: "6000" },
  { ...SUBSCRIBE, ackTimeoutMs: 99 },
  { ...SUBSCRIBE, ackTimeoutMs: 86_400_001 },
  { ...SUBSCRIBE, memberId: "m".repeat(250) },
  { type: "subscribe", topics: ["a"], from: "none" },
  { type: "subscribe", topics: ["a"], from: [] },
  { type: "subscribe", topics: ["a"], from: { shift: 1 } },
  { type: "subscribe", topics: ["a"], from: [{ topic: "a", partition: 0 }] },
  { type: "subscribe", topics: ["a"], from: [{ topic: "a", partition: 0, offset: 0, other: 0 }] },
  { ...ACK, offsets: [] },
  { ...ACK, offsets: [{ ...ENTRY, generation: undefined }] },
  { ...ACK, offsets: [{ ...ENTRY, offset: -1 }] },
  { ...ACK, offsets: [{ ...ENTRY, metadata: "m".repeat(4_097) }] },
  { ...ACK, offsets: [{ ...ENTRY, metadata: null }] },
  { ...ACK, offsets: partitions(10_001).map((entry) => ({ ...ENTRY, ...entry })) },
  { type: "release" },
  { type: "release", partitions: [{ topic: "a", partition: 0, generation: 1 }] },
  { ...SEEK, to: undefined },
  { ...SEEK, to: "none" },
  { ...SEEK, to: {} },
  { ...SEEK, to: { shift: 1.5 } },
  { ...SEEK, to: { offset: 1, shift: 1 } },
  { ...SEEK, partition: "0" },
  { type: "pause", partitions: partitions(10_001) },
  { type: "resume", partitions: [] },
  { ...PRODUCE, topic: undefined },
  { ...PRODUCE, records: {} },
  { ...PRODUCE, records: [] },
  { ...PRODUCE, records: names(10_001).map((value) => ({ value })) },
  { ...PRODUCE, records: [{}] },
  { ...PRODUCE, records: [{ value: 1, bytes: "AA==" }] },
  { ...PRODUCE, records: [{ bytes: "A" }] },
  { ...PRODUCE, records: [{ value: 1, other: 1 }] },
  { ...PRODUCE, records: [{ value: 1, key: 1 }] },
  { ...PRODUCE, records: [{ value: 1, key: "k".repeat(32_769) }] },
  { ...PRODUCE, records: [{ value: 1, headers: { a: 1 } }] },
  { ...PRODUCE, records: [{ value: 1, headers: Object.fromEntries(names(65).map((name) => [name, ""])) }] },
  { ...PRODUCE, records: [{ value: 1, timestamp: -1 }] },
  { ...PRODUCE, records: [{ value: 1, partition: 0.5 }] },
  { ...PRODUCE, producer: { ...SEQUENCE, sequence: -1 } },
  { ...PRODUCE, producer: { ...SEQUENCE, id: "" } },
  { ...PRODUCE, producer: { id: "p", epoch: 0 } },
  { ...PRODUCE, producer: { ...SEQUENCE, other: 1 } },
  { ...PRODUCE, expect: [] },
  { ...PRODUCE, expect: [{ partition: 0 }] },
  { ...PRODUCE, expect: names(1_025).map((_, partition) => ({ partition, logEndOffset: 0 })) },
  { ...TRANSACT, appends: undefined },
  { ...TRANSACT, appends: [{ topic: "orders" }] },
  { ...TRANSACT, appends: [{ topic: "orders", records: [] }] },
  { ...TRANSACT, appends: [{ topic: "orders", records: [{}] }] },
  { ...TRANSACT, appends: [{ topic: "..", records: [{ value: 1 }] }] },
  { ...TRANSACT, commits: { group: "g", offsets: [] } },
  { ...TRANSACT, commits: { group: "g", offsets: [{ ...ENTRY, generation: undefined }] } },
  { ...TRANSACT, commits: { offsets: [ENTRY] } },
  { ...TRANSACT, expect: [{ partition: 0, logEndOffset: 0 }] },
  { ...TRANSACT, other: 1 },
  { type: "unsubscribe", subscription: 1 },
  { type: "pong", at: 1 },
];

/** The schema of its type, what is undefined left out as JSON does. */
function frameOf(members: Readonly<Record<string, unknown>>) {
  const text = JSON.stringify(members);
  const frame = JSON.parse(text) as { type: keyof typeof CLIENT_FRAME_SCHEMAS };
  return { text, frame, schema: CLIENT_FRAME_SCHEMAS[frame.type] as v.GenericSchema };
}

function title(members: object): string {
  return JSON.stringify(members).slice(0, 90);
}

describe("a frame is taken by its JSON Schema, by judge() and by the server alike", () => {
  for (const [cases, isValid] of [
    [VALID, true],
    [INVALID, false],
  ] as const)
    for (const members of cases)
      test(`${isValid ? "yes" : "no"}: ${title(members)}`, () => {
        const { text, frame, schema } = frameOf(members);
        expect({
          described: isDescribed(schema, frame),
          judged: isJudgedValid(schema, frame),
          taken: "frame" in parseClientFrame(text),
        }).toEqual({ described: isValid, judged: isValid, taken: isValid });
      });

  test("and every type of frame has both", () => {
    for (const cases of [VALID, INVALID])
      expect([...new Set(cases.map(({ type }) => String(type)))].sort()).toEqual(
        Object.keys(CLIENT_FRAME_SCHEMAS).sort(),
      );
  });
});

describe("a body is taken by its JSON Schema and by judge() alike", () => {
  const entry = { topic: "a", partition: 0, offset: 0 };
  const step = { topic: "a", partition: 0, from: 1, to: 0 };
  const cases: readonly (readonly [schema: v.GenericSchema, input: unknown, isValid: boolean])[] = [
    [topicSettingsSchema, {}, true],
    [topicSettingsSchema, { partitionCount: null }, true],
    [topicSettingsSchema, { partitionCount: 1_024 }, true],
    [topicSettingsSchema, { partitionCount: 1_025 }, false],
    [topicSettingsSchema, { partitionCount: 0 }, false],
    [topicSettingsSchema, { other: 0 }, false],
    [groupOffsetsSchema, { offsets: [entry] }, true],
    [groupOffsetsSchema, { offsets: [{ ...entry, generation: 1 }] }, false],
    [groupOffsetsSchema, { offsets: [] }, false],
    [groupOffsetsSchema, { offsets: Array.from({ length: 10_001 }, () => entry) }, false],
    [resetRequestSchema, { topics: [{ topic: "a" }], to: "earliest" }, true],
    [resetRequestSchema, { topics: [{ topic: "a", partitions: [0, 1] }], to: { shift: -1 } }, true],
    [resetRequestSchema, { topics: [{ topic: "a" }], to: "current", dryRun: true, reason: "r" }, true],
    [resetRequestSchema, { plan: [step] }, true],
    [resetRequestSchema, { plan: [{ ...step, from: null }], dryRun: false }, true],
    [resetRequestSchema, {}, false],
    [resetRequestSchema, { topics: [{ topic: "a" }] }, false],
    [resetRequestSchema, { to: "earliest" }, false],
    [resetRequestSchema, { plan: [step], to: "earliest" }, false],
    [resetRequestSchema, { plan: [step], topics: [{ topic: "a" }] }, false],
    [resetRequestSchema, { plan: [step], topics: [{ topic: "a" }], to: "earliest" }, false],
    [resetRequestSchema, { topics: [], to: "earliest" }, false],
    [resetRequestSchema, { topics: names(101).map((topic) => ({ topic })), to: "earliest" }, false],
    [resetRequestSchema, { topics: [{ topic: "a", partitions: [] }], to: "earliest" }, false],
    [resetRequestSchema, { topics: [{ topic: "a", partitions: [1, 1] }], to: "earliest" }, false],
    [resetRequestSchema, { topics: [{ topic: "a", partition: 1 }], to: "earliest" }, false],
    [resetRequestSchema, { topics: [{ topic: "a" }], to: "newest" }, false],
    [resetRequestSchema, { topics: [{ topic: "a" }], to: "earliest", dryRun: 1 }, false],
    [resetRequestSchema, { plan: [] }, false],
    [resetRequestSchema, { plan: [{ ...step, to: null }] }, false],
    [resetRequestSchema, { plan: [{ ...step, from: -1 }] }, false],
    [producedRecordSchema, { bytes: "" }, true],
    [producedRecordSchema, { bytes: "AAAA" }, true],
    [producedRecordSchema, { bytes: "+/8=" }, true],
    [producedRecordSchema, { bytes: "AA" }, false],
    [producedRecordSchema, { bytes: "A-_=" }, false],
    [producedRecordSchema, { bytes: "AAAA\n" }, false],
  ];
  for (const [schema, input, isValid] of cases)
    test(`${isValid ? "yes" : "no"}: ${title(input as object)}`, () => {
      expect({ described: isDescribed(schema, input), judged: isJudgedValid(schema, input) }).toEqual({
        described: isValid,
        judged: isValid,
      });
    });
});

describe("what JSON Schema cannot say stands in a description", () => {
  const cases: readonly (readonly [
    what: string,
    members: Readonly<Record<string, unknown>>,
    says: string,
  ])[] = [
    ["NUL in an id", { type: "pong", id: "\0" }, "without NUL and lone surrogates"],
    ["a lone surrogate in an id", { type: "pong", id: "\ud800" }, "without NUL and lone surrogates"],
    [
      "an id longer in UTF-16 than in characters",
      { type: "pong", id: "😀".repeat(125) },
      "249 UTF-16 code units",
    ],
    [
      "metadata longer in bytes than in characters",
      { ...ACK, offsets: [{ ...ENTRY, metadata: "ü".repeat(2_049) }] },
      "4096 bytes of UTF-8",
    ],
    [
      "a key longer in bytes",
      { ...PRODUCE, records: [{ key: "ü".repeat(16_385), value: 1 }] },
      "32768 bytes of UTF-8",
    ],
  ];
  for (const [what, members, says] of cases)
    test(what, () => {
      const { text, frame, schema } = frameOf(members);
      expect(isDescribed(schema, frame)).toBe(true);
      expect(isJudgedValid(schema, frame)).toBe(false);
      expect(parseClientFrame(text)).toHaveProperty("problem");
      expect(JSON.stringify(describeSchema(schema, "refused"))).toContain(says);
    });
});

describe("describeSchema()", () => {
  test("puts what a schema documents in its place, however deep, and keeps checks behind it", () => {
    const schema = v.strictObject({
      list: v.pipe(
        listOf(word(["a", "b"]), 3),
        v.check((input) => new Set(input).size === input.length),
        v.metadata({ uniqueItems: true }),
      ),
    });
    expect(describeSchema(schema, "refused")).toEqual({
      type: "object",
      properties: {
        list: {
          type: "array",
          items: { type: "string", enum: ["a", "b"] },
          minItems: 1,
          maxItems: 3,
          uniqueItems: true,
        },
      },
      required: ["list"],
      additionalProperties: false,
    });
  });

  test("describes each option of a place", () => {
    expect(describeSchema(placeSchema, "refused").anyOf).toHaveLength(5);
  });

  test("leaves an answer open at every depth, and refuses unknown members of a request", () => {
    expect(JSON.stringify(describeSchema(topicListSchema, "ignored"))).not.toContain("additionalProperties");
    const refusing = JSON.stringify(describeSchema(topicListSchema, "refused"));
    expect(refusing.match(/"additionalProperties":false/g)).toHaveLength(2);
  });

  test.each<[string, v.GenericSchema]>([
    [
      "a check that says nothing",
      v.pipe(
        v.string(),
        v.check((input) => input !== "x", "must not be x"),
      ),
    ],
    ["a transformation", v.pipe(v.string(), v.transform(Number))],
    ["a custom schema", v.object({ member: v.custom<string>(() => true) })],
    ["a lazy schema that documents nothing", v.array(v.lazy(() => v.string()))],
  ])("throws for %s", (_, schema) => {
    expect(() => describeSchema(schema, "refused")).toThrow();
  });

  test("takes the documents of a choice", () => {
    const number = v.number();
    expect(
      describeSchema(
        oneOf([number, v.null()], () => number),
        "refused",
      ),
    ).toEqual({
      anyOf: [{ type: "number" }, { type: "null" }],
    });
  });
});
