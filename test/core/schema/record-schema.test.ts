import { expect, test } from "bun:test";
import { resolve } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "fast-check";
import { Problem } from "../../../src/core/problem.ts";
import { type NewRecord, parseJsonProduce } from "../../../src/core/produce-request.ts";
import {
  compileRecordSchema,
  requireSchema,
  type Violation,
} from "../../../src/core/schema/record-schema.ts";
import { SCHEMA_BYTES_MAX } from "../../../src/protocol/limits.ts";

const DRAFT_07 = "http://json-schema.org/draft-07/schema#";

/** Schemas and values are JSON text here, so that they have what only JSON.parse makes: an own `__proto__`. */
async function violationOf(schema: string, value: string): Promise<Violation | undefined> {
  const compiled = await compileRecordSchema(JSON.parse(schema));
  return compiled.findViolation(JSON.parse(value));
}

async function problemOf(schema: unknown): Promise<Problem> {
  try {
    await compileRecordSchema(schema);
  } catch (error) {
    if (error instanceof Problem) return error;
    throw error;
  }
  throw new Error("the schema was taken");
}

function nested(depth: number, innermost: string): string {
  return `{"a":`.repeat(depth) + innermost + "}".repeat(depth);
}

// ── which rule is broken ─────────────────────────────────────────────────────────────────────────────────

type Case = readonly [schema: string, value: string, path: string, rule: string, message: string];

const BROKEN: readonly Case[] = [
  ['{"type":"object"}', "1", "", "/type", 'found 1, allowed type "object"'],
  [
    '{"properties":{"mag":{"minimum":0}}}',
    '{"mag":-1}',
    "/mag",
    "/properties/mag/minimum",
    "found -1, allowed minimum 0",
  ],
  ['{"required":["id","at"]}', '{"id":1}', "", "/required", 'found no "at", allowed required ["id","at"]'],
  [
    '{"additionalProperties":false}',
    '{"x":1}',
    "/x",
    "/additionalProperties",
    "found 1, allowed nothing there",
  ],
  ['{"items":{"type":"string"}}', '["a",[1]]', "/1", "/items/type", 'found [1], allowed type "string"'],
  ['{"prefixItems":[true,{"const":2}]}', "[1,3]", "/1", "/prefixItems/1/const", "found 3, allowed const 2"],
  ['{"prefixItems":[true],"items":false}', "[1,3]", "/1", "/items", "found 3, allowed nothing there"],
  ['{"enum":["a","b"]}', '"c"', "", "/enum", 'found "c", allowed enum ["a","b"]'],
  [
    '{"propertyNames":{"maxLength":1}}',
    '{"a":1,"b/c":1}',
    "/b~1c",
    "/propertyNames/maxLength",
    'found "b/c", allowed maxLength 1',
  ],
  [
    '{"patternProperties":{"^a/":{"type":"null"}}}',
    '{"a/b":1}',
    "/a~1b",
    "/patternProperties/^a~1/type",
    'found 1, allowed type "null"',
  ],
  [
    '{"dependentRequired":{"a":["b"]}}',
    '{"a":1}',
    "",
    "/dependentRequired",
    'found {"a":1}, allowed dependentRequired {"a":["b"]}',
  ],
  [
    '{"dependentSchemas":{"a":{"maxProperties":1}}}',
    '{"a":1,"b":2}',
    "",
    "/dependentSchemas/a/maxProperties",
    'found {"a":1,"b":2}, allowed maxProperties 1',
  ],
  [
    '{"allOf":[{},{"properties":{"a":{"maximum":3}}}]}',
    '{"a":4}',
    "/a",
    "/allOf/1/properties/a/maximum",
    "found 4, allowed maximum 3",
  ],
  [
    '{"if":{"required":["a"]},"then":{"required":["b"]}}',
    '{"a":1}',
    "",
    "/then/required",
    'found no "b", allowed required ["b"]',
  ],
  ['{"if":{"required":["a"]},"else":false}', "{}", "", "/else", "found {}, allowed nothing there"],
  [
    '{"anyOf":[{"type":"string"},{"type":"null"}]}',
    "1",
    "",
    "/anyOf",
    'found 1, allowed anyOf [{"type":"string"},{"type":"null"}]',
  ],
  ['{"oneOf":[true,true]}', "1", "", "/oneOf", "found 1, allowed oneOf [true,true]"],
  ['{"not":{"type":"null"}}', "null", "", "/not", 'found null, allowed not {"type":"null"}'],
  ['{"contains":{"const":1}}', "[2]", "", "/contains", 'found [2], allowed contains {"const":1}'],
  [
    '{"uniqueItems":true}',
    '[{"a":1,"b":2},{"b":2,"a":1}]',
    "",
    "/uniqueItems",
    'found [{"a":1,"b":2},{"b":2,"a":1}], allowed uniqueItems true',
  ],
  [
    '{"$ref":"#/$defs/n","$defs":{"n":{"type":"number"}}}',
    '"x"',
    "",
    "/$defs/n/type",
    'found "x", allowed type "number"',
  ],
  [
    '{"properties":{"a":{"$ref":"#n"}},"$defs":{"x":{"$anchor":"n","type":"number"}}}',
    '{"a":"x"}',
    "/a",
    "/$defs/x/type",
    'found "x", allowed type "number"',
  ],
  [
    '{"$id":"T0","type":"object","properties":{"next":{"$ref":"T0"}}}',
    '{"next":{"next":1}}',
    "/next/next",
    "/type",
    'found 1, allowed type "object"',
  ],
  [
    '{"properties":{"a":{"$ref":"#/$defs/never"}},"$defs":{"never":false}}',
    '{"a":1}',
    "/a",
    "/$defs/never",
    "found 1, allowed nothing there",
  ],
  [
    '{"$ref":"#/$defs/a%25b%20%C3%A9%23","$defs":{"a%b é#":{"type":"null"}}}',
    "1",
    "",
    "/$defs/a%b é#/type",
    'found 1, allowed type "null"',
  ],
  [
    '{"allOf":[{"properties":{"a":true}}],"unevaluatedProperties":false}',
    '{"a":1,"b":2}',
    "/b",
    "/unevaluatedProperties",
    "found 2, allowed nothing there",
  ],
  ["false", "1", "", "", "found 1, allowed nothing there"],
  [
    `{"$schema":"${DRAFT_07}","items":[{"const":1}],"additionalItems":{"const":2}}`,
    "[1,3]",
    "/1",
    "/additionalItems/const",
    "found 3, allowed const 2",
  ],
  [
    `{"$schema":"${DRAFT_07}","dependencies":{"a":["b"],"c":{"required":["d"]}}}`,
    '{"c":1}',
    "",
    "/dependencies/c/required",
    'found no "d", allowed required ["d"]',
  ],
  [
    `{"$schema":"${DRAFT_07}","$ref":"#/definitions/A","definitions":{"A":{"type":"object"}}}`,
    "1",
    "",
    "/definitions/A/type",
    'found 1, allowed type "object"',
  ],
  [
    `{"$schema":"${DRAFT_07}","allOf":[{"$ref":"#n"}],"definitions":{"A":{"$id":"#n","type":"object"}}}`,
    "1",
    "",
    "/definitions/A/type",
    'found 1, allowed type "object"',
  ],
];

test.each(BROKEN)("%s names what %s breaks: %j %j", async (schema, value, path, rule, message) => {
  expect(await violationOf(schema, value)).toEqual({ path, rule, message });
});

test("findViolation() names a member of any name, and the rule for it", async () => {
  const name = fc.oneof(fc.string(), fc.constantFrom("__proto__", "a/b~c", "%41", "#", "?", "é 🌊", "*"));
  await fc.assert(
    fc.asyncProperty(name, async (text) => {
      const token = text.replaceAll("~", "~0").replaceAll("/", "~1");
      const member = JSON.stringify(text);
      const violation = await violationOf(`{"properties":{${member}:{"type":"null"}}}`, `{${member}:1}`);
      expect(violation).toMatchObject({ path: `/${token}`, rule: `/properties/${token}/type` });
    }),
  );
});

test("findViolation() reads a member whose name is a lone surrogate", async () => {
  const violation = await violationOf('{"additionalProperties":false}', String.raw`{"\ud800":1}`);
  expect(violation).toMatchObject({ path: "/\ud800", rule: "/additionalProperties" });
});

// ── what is allowed ──────────────────────────────────────────────────────────────────────────────────────

const JUDGED: readonly (readonly [schema: string, value: string, isAllowed: boolean])[] = [
  ['{"type":"integer"}', "1.0", true],
  ['{"type":"integer"}', "1.5", false],
  ['{"type":["integer","null"]}', "null", true],
  ['{"const":{"a":1,"b":[2]}}', '{"b":[2.0],"a":1}', true],
  ['{"const":0}', "false", false],
  ['{"uniqueItems":true}', "[1,true]", true],
  ['{"maxLength":1}', '"🌊"', true],
  [String.raw`{"pattern":"^\\p{Letter}+$"}`, '"é"', true],
  [String.raw`{"pattern":"^\\p{Letter}+$"}`, '"1"', false],
  ['{"pattern":"b"}', '"abc"', true],
  ['{"minContains":0,"contains":false}', "[]", true],
  ['{"prefixItems":[true],"contains":true}', "[]", false],
  ['{"definitions":{"a":{"type":"null"}},"$ref":"#/definitions/a"}', "1", false],
  // Annotations, with what a reader may take for more than that.
  ['{"default":{"$ref":"#/nowhere"},"examples":[{"$id":"::"}],"x-note":1,"units":"km"}', "1", true],

  // What every object inherits is in none of them.
  ['{"required":["toString"]}', "{}", false],
  ['{"required":["__proto__"]}', "{}", false],
  ['{"required":["__proto__"]}', '{"__proto__":1}', true],
  ['{"properties":{"constructor":{"type":"string"}}}', "{}", true],
  ['{"properties":{"a":{}},"additionalProperties":false}', '{"constructor":1}', false],
  ['{"properties":{"a":{}},"additionalProperties":false}', '{"__proto__":1}', false],
  ['{"properties":{"a":{}},"unevaluatedProperties":false}', '{"hasOwnProperty":1}', false],
  ['{"properties":{"__proto__":{"type":"string"}}}', '{"__proto__":1}', false],
  ['{"properties":{"a":{}}}', '{"__proto__":1,"constructor":2,"toString":3}', true],
  ['{"dependentRequired":{"toString":["a"]}}', "{}", true],
  ['{"dependentRequired":{"a":["toString"]}}', '{"a":1}', false],
  ['{"const":{"__proto__":1}}', '{"__proto__":2}', false],
  ['{"const":{"toString":1}}', '{"x":1}', false],

  // Numbers are the doubles nearest to their texts.
  ['{"type":"number"}', "1E400", true],
  ['{"type":"integer"}', "1E400", false],
  ['{"maximum":1E308}', "1E400", false],
  ['{"const":12345678901234567890}', "12345678901234567891", true],
  ['{"multipleOf":0.01}', "4.35", true],
  ['{"multipleOf":0.01}', "4.355", false],
  ['{"multipleOf":0.01}', "123456789012.34", true],
  ['{"multipleOf":1}', "1.00000001", false],
  ['{"multipleOf":0.000000001}', "0.0000000015", false],
  ['{"multipleOf":0.5}', "1E308", true],
  ['{"multipleOf":0.5}', "1E400", false],

  ['{"format":"date-time"}', '"2024-02-29T23:59:60Z"', true],
  ['{"format":"date-time"}', '"2023-02-29T00:00:00Z"', false],
  ['{"format":"date-time"}', '"2024-02-29 00:00:00Z"', false],
  ['{"format":"date"}', '"2024-13-01"', false],
  ['{"format":"time"}', '"12:00:60Z"', false],
  ['{"format":"time"}', '"08:59:60+08:00"', false],
  ['{"format":"time"}', '"08:59:60.5-15:00"', true],
  ['{"format":"duration"}', '"P1Y2M3DT4H"', true],
  ['{"format":"duration"}', '"P"', false],
  ['{"format":"duration"}', '"P1DT"', false],
  ['{"format":"duration"}', '"P1Y3D"', false],
  ['{"format":"uuid"}', '"2eb8aa08-aa98-11ea-b4aa-73b441d16380"', true],
  ['{"format":"uuid"}', '"2eb8aa08aa9811eab4aa73b441d16380"', false],
  ['{"format":"email"}', '"joe@example.com"', true],
  ['{"format":"email"}', '"joe@[127.0.0.1]"', true],
  ['{"format":"email"}', '"joe..a@example.com"', false],
  ['{"format":"hostname"}', '"-a.example"', false],
  ['{"format":"ipv4"}', '"127.0.0.01"', false],
  ['{"format":"ipv6"}', '"::ffff:1.2.3.4"', true],
  ['{"format":"ipv6"}', '"1::2::3"', false],
  ['{"format":"ipv6"}', '"1:2:3:4:5:6:7"', false],
  ['{"format":"uri"}', '"https://a@example.com:80/b?c#d"', true],
  ['{"format":"uri"}', '"/b?c"', false],
  ['{"format":"uri-reference"}', '"/b?c"', true],
  ['{"format":"uri-reference"}', '"a b"', false],
  ['{"format":"json-pointer"}', '"/a~2"', false],
  ['{"format":"regex"}', '"("', false],
  ['{"format":"email"}', "1", true],
  ['{"format":"int64"}', '"nobody knows"', true],
  [`{"$schema":"${DRAFT_07}","format":"date"}`, '"x"', false],
];

test.each(JUDGED)("%s of %s says %j", async (schema, value, isAllowed) => {
  expect((await violationOf(schema, value)) === undefined).toBe(isAllowed);
});

// ── against another library ──────────────────────────────────────────────────────────────────────────────

const NAMES = ["a", "b", "c"] as const;
const name = fc.constantFrom(...NAMES);
const someNames = fc.uniqueArray(name, { maxLength: 2 });
const small = fc.integer({ min: 0, max: 3 });

const { value: anyValue } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    fc.constantFrom(null, true, false, 0, 1, 2, 3, 1.5, -1, "", "a", "ab", "🌊"),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(name, tie("value"), { maxKeys: 3, noNullPrototype: true }),
  ),
}));

const { schema: anySchema } = fc.letrec((tie) => {
  const schema = tie("schema");
  const list = fc.array(schema, { minLength: 1, maxLength: 3 });
  const members = fc.dictionary(name, schema, { maxKeys: 3 });
  const keywords = fc.record(
    {
      type: fc.constantFrom("null", "boolean", "object", "array", "number", "string", "integer"),
      enum: fc.array(anyValue, { minLength: 1, maxLength: 3 }),
      const: anyValue,
      minimum: small,
      exclusiveMaximum: small,
      multipleOf: fc.integer({ min: 1, max: 3 }),
      minLength: small,
      maxLength: small,
      pattern: fc.constantFrom("a", "^a$", "^.$"),
      required: someNames,
      minProperties: small,
      maxProperties: small,
      properties: members,
      patternProperties: fc.dictionary(fc.constantFrom("a", "[bc]"), schema, { maxKeys: 2 }),
      additionalProperties: schema,
      unevaluatedProperties: schema,
      propertyNames: schema,
      dependentRequired: fc.dictionary(name, someNames, { maxKeys: 2 }),
      dependentSchemas: members,
      minItems: small,
      maxItems: small,
      uniqueItems: fc.boolean(),
      prefixItems: list,
      items: schema,
      contains: schema,
      allOf: list,
      anyOf: list,
      oneOf: list,
      not: schema,
      if: schema,
      // biome-ignore lint/suspicious/noThenProperty: it is a keyword
      then: schema,
      else: schema,
      $ref: fc.constantFrom("#/$defs/number", "#/$defs/tree"),
    },
    { requiredKeys: [] },
  );
  // A schema of all keywords allows nothing.
  const some = fc
    .uniqueArray(fc.nat(40), { maxLength: 3 })
    .chain((picked) =>
      keywords.map((all) =>
        withoutAjvsMistake(
          Object.fromEntries(Object.entries(all).filter((_, index) => picked.includes(index))),
        ),
      ),
    );
  return { schema: fc.oneof({ maxDepth: 3, withCrossShrink: true }, fc.boolean(), some, some, some) };
});

/** Ajv 8.20 forgets "contains" of an empty array where "prefixItems" stands beside it. */
function withoutAjvsMistake({ contains, ...schema }: Record<string, unknown>): Record<string, unknown> {
  return contains === undefined || "prefixItems" in schema ? schema : { ...schema, contains };
}

const DEFS = {
  number: { type: "number" },
  tree: { type: ["object", "null"], properties: { a: { $ref: "#/$defs/tree" } } },
};

/** Undefined where Ajv's own code fails: with "patternProperties" beside an "anyOf" with a reference it may. */
function ask(isValid: (value: unknown) => boolean, value: unknown): boolean | undefined {
  try {
    return isValid(value);
  } catch (error) {
    if (error instanceof TypeError) return undefined;
    throw error;
  }
}

test("findViolation() allows what Ajv allows", async () => {
  // Its own checks of good style are off: they refuse a "then" without "if".
  const ajv = new Ajv2020({ strict: false, unicodeRegExp: true, validateSchema: false });
  let allowed = 0;
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(anySchema, fc.array(anyValue, { minLength: 3, maxLength: 8 }), async (inner, values) => {
      const schema = { $defs: DEFS, allOf: [inner] };
      const isValid = ajv.compile(schema);
      const compiled = await compileRecordSchema(schema);
      for (const value of values) {
        const expected = ask(isValid, value);
        if (expected === undefined) continue;
        expect([value, compiled.findViolation(value) === undefined]).toEqual([value, expected]);
        if (expected) allowed += 1;
        else refused += 1;
      }
    }),
    { numRuns: 80 },
  );
  expect(Math.min(allowed, refused)).toBeGreaterThan(30); // otherwise it compares nothing
}, 30_000); // some of the schemas are large, and Ajv makes code of each

// ── what is no schema ────────────────────────────────────────────────────────────────────────────────────

const NO_SCHEMA: readonly (readonly [schema: unknown, message: string])[] = [
  [undefined, ": found null, allowed a schema: object or boolean"],
  [null, ": found null, allowed a schema: object or boolean"],
  [[], ": found [], allowed a schema"],
  [1, ": found 1, allowed a schema"],
  ["{}", ': found "{}", allowed a schema'],
  [{ type: "strin" }, ' at "/type": found "strin", allowed one of null, boolean, object'],
  [{ type: [] }, ' at "/type": found [], allowed one of'],
  [{ type: ["string", "string"] }, ' at "/type": found ["string","string"]'],
  [{ properties: { a: { required: "a" } } }, ' at "/properties/a/required": found "a", allowed array of'],
  [{ required: ["a", "a"] }, ' at "/required": found ["a","a"], allowed array of different strings'],
  [{ minimum: "3" }, ' at "/minimum": found "3", allowed number'],
  [JSON.parse('{"maximum":1E400}'), ' at "/maximum": found null, allowed number'],
  [{ multipleOf: 0 }, ' at "/multipleOf": found 0, allowed number above 0'],
  [{ minLength: -1 }, ' at "/minLength": found -1, allowed integer from 0'],
  [{ maxItems: 1.5 }, ' at "/maxItems": found 1.5, allowed integer from 0'],
  [{ uniqueItems: 1 }, ' at "/uniqueItems": found 1, allowed boolean'],
  [{ pattern: "(" }, ' at "/pattern": found "(", allowed a regular expression'],
  [
    { pattern: "\\-" },
    ' at "/pattern": found "\\\\-", allowed a regular expression of ECMAScript with the flag "u"',
  ],
  [
    { patternProperties: { "(": true } },
    ' at "/patternProperties": found {"(":true}, allowed object of schemas',
  ],
  [{ properties: [] }, ' at "/properties": found [], allowed object of schemas'],
  [{ properties: { a: 5 } }, ' at "/properties": found {"a":5}, allowed object of schemas'],
  [{ additionalProperties: null }, ' at "/additionalProperties": found null, allowed a schema'],
  [{ allOf: [] }, ' at "/allOf": found [], allowed array of one schema or more'],
  [{ anyOf: {} }, ' at "/anyOf": found {}, allowed array of one schema'],
  [{ enum: "a" }, ' at "/enum": found "a", allowed array'],
  [{ dependentRequired: { a: "b" } }, ' at "/dependentRequired": found {"a":"b"}, allowed object of arrays'],
  [{ title: 1 }, ' at "/title": found 1, allowed string'],
  [{ items: [{}] }, ' at "/items": found [{}], allowed a schema'],
  [{ $ref: 1 }, ' at "/$ref": found 1, allowed string'],
  [{ $anchor: "#a" }, ' at "/$anchor": found "#a"'],
  [{ $id: "http://[" }, ': found "http://[", allowed a URI'],

  [
    { $schema: "http://json-schema.org/draft-04/schema#" },
    ' at "/$schema": found "http://json-schema.org/draft-04/schema#", allowed "https://json-schema.org/draft/2020-12/schema" or "http://json-schema.org/draft-07/schema#"',
  ],
  [{ $schema: 7 }, ' at "/$schema": found 7'],
  [
    { items: { $schema: DRAFT_07 } },
    ' at "/items/$schema": found "http://json-schema.org/draft-07/schema#", allowed 2020-12',
  ],

  [
    { $ref: "https://example.com/other" },
    ' at "/$ref": found "https://example.com/other", allowed a reference to a schema that is in this one',
  ],
  [{ items: { $ref: "other.json" } }, ' at "/items/$ref": found "other.json"'],
  [{ $ref: "https://json-schema.org/draft/2020-12/schema" }, ' at "/$ref"'],
  [{ $ref: "#/$defs/a" }, ' at "/$ref": found "#/$defs/a"'],
  [{ $ref: "#/properties", properties: {} }, ' at "/$ref": found "#/properties"'],
  [{ $ref: "#a" }, ' at "/$ref": found "#a"'],
  [{ $ref: "#constructor" }, ' at "/$ref": found "#constructor"'],
  [{ $ref: "#/$defs/__proto__", $defs: {} }, ' at "/$ref": found "#/$defs/__proto__"'],
  [{ $ref: "#/%E0%A4%A" }, ' at "/$ref"'],
  [{ $anchor: "a", items: { $anchor: "a" } }, ' at "/items": found the name "#a" a second time'],
  [
    { $defs: { a: { $id: "b" }, c: { $id: "b" } } },
    ' at "/$defs/c": found the name "https://schema.invalid/b" a second time',
  ],

  [{ $ref: "#" }, ": found a schema that comes back to itself for the same value"],
  [{ allOf: [{ $ref: "#" }] }, ": found a schema that comes back to itself"],
  [{ not: { if: { $ref: "#" } } }, ": found a schema that comes back to itself"],
  [{ dependentSchemas: { a: { $ref: "#" } } }, ": found a schema that comes back to itself"],
  [
    { $defs: { a: { $ref: "#/$defs/b" }, b: { anyOf: [true, { $ref: "#/$defs/a" }] } } },
    "found a schema that comes back to itself",
  ],

  // JSON Schema would take all of these, and not do what their authors expect.
  [{ maxlength: 1 }, ' at "/maxlength": found a keyword that would be ignored, allowed "maxLength"'],
  [{ require: ["a"] }, ' at "/require": found a keyword that would be ignored, allowed "required"'],
  [{ additional_properties: false }, ' allowed "additionalProperties"'],
  [{ minmium: 1 }, ' allowed "minimum"'],
  [
    { items: { nullable: true } },
    ' at "/items/nullable": found a keyword that would be ignored, allowed "null" among',
  ],
  [{ id: "x" }, ' at "/id": found a keyword that would be ignored, allowed "$id"'],
  [
    { additionalItems: false },
    ' at "/additionalItems": found a keyword that would be ignored, allowed "prefixItems"',
  ],
  [{ dependencies: {} }, ' allowed "dependentRequired" and "dependentSchemas"'],
  [{ $dynamicRef: "#a" }, ' at "/$dynamicRef": found a keyword that would be ignored'],
  [{ $vocabulary: {} }, ' at "/$vocabulary": found a keyword that would be ignored'],
  [
    { $schema: DRAFT_07, prefixItems: [true] },
    ' at "/prefixItems": found a keyword that would be ignored, allowed a keyword of draft-07; this one is of 2020-12',
  ],
  [
    { $schema: DRAFT_07, items: { $ref: "#/definitions/a", minimum: 1 } },
    ' at "/items/minimum": found a keyword beside "$ref"',
  ],
  [{ $schema: DRAFT_07, items: { $ref: "#", $id: "x" } }, ' at "/items/$id": found a keyword beside "$ref"'],

  [
    { const: { $ref: "#" } },
    ' at "/const": found a member "$ref", "$id" or "$anchor", allowed values without them',
  ],
  [{ enum: [[{ $id: "a" }]] }, ' at "/enum": found a member'],
  [{ const: "\ud800" }, ": found lone surrogate, allowed Unicode text"],
];

test.each(NO_SCHEMA)("compileRecordSchema() refuses %j and says where", async (schema, message) => {
  const { code, message: found } = await problemOf(schema);
  expect(code).toBe("bad_request");
  expect(found).toStartWith("Cannot set the schema");
  expect(found).toContain(message);
});

test("compileRecordSchema() takes a schema that is 128 deep, not one that is deeper", async () => {
  const deep = (depth: number) => JSON.parse(`${'{"items":'.repeat(depth - 1)}{}${"}".repeat(depth - 1)}`);
  expect((await compileRecordSchema(deep(128))).findViolation([])).toBeUndefined();
  expect((await problemOf(deep(129))).message).toContain("found more than 128 arrays and objects inside");
  expect((await problemOf(deep(3_000))).message).toContain("found more than 128 arrays and objects inside");
});

test("compileRecordSchema() takes a schema of 64 KiB, not of one byte more", async () => {
  const empty = JSON.stringify({ description: "é" }).length + 1;
  const sized = (bytes: number) => ({ description: `é${"x".repeat(bytes - empty)}` });
  expect((await compileRecordSchema(sized(SCHEMA_BYTES_MAX))).findViolation(1)).toBeUndefined();
  const { message } = await problemOf(sized(SCHEMA_BYTES_MAX + 1));
  expect(message).toContain("found 65537 bytes, allowed 65536 bytes of JSON");
});

test("compileRecordSchema() leaves the schema as it was, and asks nobody for another", async () => {
  const schema = Object.freeze({ $defs: Object.freeze({ a: Object.freeze({}) }), $ref: "#/$defs/a" });
  const text = JSON.stringify(schema);
  await compileRecordSchema(schema);
  expect(JSON.stringify(schema)).toBe(text);
});

test("compileRecordSchema() keeps apart what is compiled at the same time, of the same $id too", async () => {
  const ofType = (type: string) => compileRecordSchema({ $id: "https://example.com/a", type });
  const [string, number] = await Promise.all([ofType("string"), ofType("number")]);
  expect([string.findViolation("a"), number.findViolation(1)]).toEqual([undefined, undefined]);
  expect([string.findViolation(1), number.findViolation("a")]).toMatchObject([
    { rule: "/type" },
    { rule: "/type" },
  ]);
});

// ── what it costs ────────────────────────────────────────────────────────────────────────────────────────

const TREE = '{"type":"object","properties":{"a":{"anyOf":[{"type":"null"},{"allOf":[{"$ref":"#"}]}]}}}';

test("findViolation() goes 128 levels down a recursive schema", async () => {
  expect(await violationOf(TREE, nested(127, "{}"))).toBeUndefined();
  expect(
    await violationOf(
      TREE.replace("anyOf", "allOf").replace('"null"', '["null","object"]'),
      nested(127, "1"),
    ),
  ).toMatchObject({
    path: "/a".repeat(127),
  });
});

/** Each level in two ways. */
const TWO_WAYS = [
  '{"properties":{"a":{"oneOf":[{"$ref":"#","maxProperties":9},{"$ref":"#","minProperties":9}]}}}',
  '{"then":true,"else":true,"if":{"properties":{"a":{"$ref":"#"}}}}',
];

test.each(TWO_WAYS)("findViolation() ends soon where %s would take 2^100 steps", async (schema) => {
  const violation = await violationOf(schema, nested(100, "{}"));
  expect(violation).toMatchObject({
    path: "",
    rule: "",
    message: expect.stringContaining("more work than its size"),
  });
  expect(await violationOf(schema, nested(8, "{}"))).toBeUndefined();
});

test("requireSchema() gives a batch, not each of its records, so many steps", async () => {
  const schema = await compileRecordSchema(JSON.parse(TWO_WAYS[0] ?? ""));
  const record = `{"value":${nested(14, "{}")}}`; // some 80,000 each
  const records = parseJsonProduce(`{"records":[${Array(100).fill(record).join()}]}`).records;
  expect(refusalOf(records, schema).message).toContain("more work than its size");
  expect(requireSchema(records.slice(0, 5), schema, { topic: "t" })).toBeUndefined();
});

test("findViolation() refuses a value when a chain of references is longer than the stack allows", async () => {
  const link = (index: number) => [`d${index}`, { $ref: `#/$defs/d${index + 1}` }] as const;
  const $defs = Object.fromEntries([
    ...Array.from({ length: 1_200 }, (_, index) => link(index)),
    ["d1200", {}],
  ]);
  const schema = await compileRecordSchema({ $ref: "#/$defs/d0", $defs });
  expect(schema.findViolation(1)?.message).toStartWith("found more than 900 schemas inside one another");
});

test("findViolation() compares a hundred thousand items with each other in no time", async () => {
  const schema = await compileRecordSchema({ uniqueItems: true, not: { contains: { const: -1 } } });
  const items = Array.from({ length: 100_000 }, (_, index) => index);
  const before = performance.now();
  expect(schema.findViolation(items)).toBeUndefined();
  expect(schema.findViolation([...items, 7])).toMatchObject({ rule: "/uniqueItems" });
  expect(performance.now() - before).toBeLessThan(5_000); // in pairs it would be minutes
});

// ── records ──────────────────────────────────────────────────────────────────────────────────────────────

function recordsOf(...values: readonly string[]): readonly NewRecord[] {
  return parseJsonProduce(`{"records":[${values.map((value) => `{${value}}`).join()}]}`).records;
}

type Compiled = Awaited<ReturnType<typeof compileRecordSchema>>;

function refusalOf(records: readonly NewRecord[], schema: Compiled, lines?: readonly number[]): Problem {
  try {
    requireSchema(records, schema, { topic: "quakes", lines });
  } catch (error) {
    if (error instanceof Problem) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

const MAGNITUDE = await compileRecordSchema({ type: "object", properties: { mag: { minimum: 0 } } });

test("requireSchema() takes records that keep to it", () => {
  const records = recordsOf('"value":{"mag":0}', '"value":{},"key":"k"');
  expect(requireSchema(records, MAGNITUDE, { topic: "quakes" })).toBeUndefined();
});

test("requireSchema() names the first record that does not, the path and the rule", () => {
  const records = recordsOf('"value":{"mag":2.0}', '"value":{"mag": -1}', '"value":5');
  const { code, message, facts } = refusalOf(records, MAGNITUDE);
  expect(code).toBe("schema_violation");
  expect(message).toBe(
    'Cannot produce records[1] to topic "quakes": its value at "/mag" breaks "/properties/mag/minimum" of the ' +
      "topic's schema: found -1, allowed minimum 0",
  );
  expect(facts).toEqual({ topic: "quakes", record: 1, path: "/mag", rule: "/properties/mag/minimum" });
});

test("requireSchema() names the line where there are lines", () => {
  const { message, facts } = refusalOf(recordsOf('"value":{}', '"value":[]'), MAGNITUDE, [1, 4]);
  expect(message).toStartWith('Cannot produce line 4 to topic "quakes": its value at "" breaks "/type"');
  expect(facts).toEqual({ topic: "quakes", line: 4, path: "", rule: "/type" });
});

test("requireSchema() refuses bytes, whatever the schema", async () => {
  const { code, message, facts } = refusalOf(recordsOf('"bytes":"AAE="'), await compileRecordSchema(true));
  expect(code).toBe("schema_violation");
  expect(message).toContain("found 2 bytes that are no JSON, allowed a JSON value");
  expect(facts).toEqual({ topic: "quakes", record: 0, path: "", rule: "" });
});

test("requireSchema() judges a tombstone like any value", async () => {
  expect(refusalOf(recordsOf('"key":"k","value":null'), MAGNITUDE).message).toContain(
    "found null, allowed type",
  );
  const nullable = await compileRecordSchema({ type: ["object", "null"] });
  expect(requireSchema(recordsOf('"value":null'), nullable, { topic: "quakes" })).toBeUndefined();
});

test("requireSchema() repeats no long name, value or rule", async () => {
  const long = "x".repeat(100_000);
  const schema = await compileRecordSchema({ additionalProperties: { enum: [long.slice(0, 50_000)] } });
  const { message, facts } = refusalOf(recordsOf(`"value":{"${long}":"${long}"}`), schema);
  expect(message.length).toBeLessThan(500);
  expect(String(facts.path).length).toBeLessThan(1_100);
});

test("requireSchema() tells of a lone surrogate in well-formed text", async () => {
  const schema = await compileRecordSchema({ additionalProperties: false });
  const { message, facts } = refusalOf(recordsOf(String.raw`"value":{"\ud800":"\ud800"}`), schema);
  expect([message.isWellFormed(), facts.path]).toEqual([true, "/\ufffd"]);
});

// ── the runtimes ─────────────────────────────────────────────────────────────────────────────────────────

/** Says "done" when all is well; whoever makes code of text or asks the network is thrown out, as by Workers. */
const SCRIPT = `
  const refuse = (name) => function () { throw new Error(name + " was called"); };
  for (const name of ["eval", "Function", "fetch"]) globalThis[name] = refuse(name);
  Object.defineProperty(Object.getPrototypeOf(() => {}), "constructor", { value: refuse("Function") });
  const { compileRecordSchema } = await import(${JSON.stringify(resolve("src/core/schema/record-schema.ts"))});
  const schema = await compileRecordSchema(${TREE});
  const value = JSON.parse(${JSON.stringify(nested(127, "{}"))});
  const remote = await compileRecordSchema({ $ref: "https://example.com/" }).catch((error) => error.code);
  const found = [schema.findViolation(value), schema.findViolation(1)?.rule, remote].join();
  console.log(found === ",/type,bad_request" ? "done" : found);
`;

const RUNTIMES: readonly (readonly [name: string, command: readonly string[]])[] = [
  ["Bun", [process.execPath, "--eval", SCRIPT]],
  ["Deno", [resolve("node_modules/.bin/deno"), "eval", "--no-check", SCRIPT]],
];

test.each(RUNTIMES)(
  "compileRecordSchema() runs on %s without eval, Function and fetch",
  async (_, command) => {
    const child = Bun.spawn([...command], {
      stdout: "pipe",
      stderr: "pipe",
      env: { ...process.env, NO_COLOR: "1" },
    });
    const [out, error] = await Promise.all([child.stdout.text(), child.stderr.text()]);
    expect([out.trim(), error]).toEqual(["done", ""]);
  },
);
