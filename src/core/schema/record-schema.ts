import "@hyperjump/json-schema/draft-07";
import {
  registerSchema,
  setShouldValidateFormat,
  unregisterSchema,
} from "@hyperjump/json-schema/draft-2020-12";
import {
  addFormat,
  addKeyword,
  type CompiledSchema,
  compile,
  type EvaluationPlugin,
  getKeyword,
  getSchema,
  interpret,
  type ValidationContext,
} from "@hyperjump/json-schema/experimental";
import { fromJs, type JsonNode, value as valueIn } from "@hyperjump/json-schema/instance/experimental";
import { parsePointer, resolvePointer } from "../json-pointer.ts";
import { Problem } from "../problem.ts";
import type { NewRecord } from "../produce-request.ts";
import { checkSchema } from "./check.ts";
import { FORMATS } from "./formats.ts";
import type { Draft } from "./keywords.ts";
import { quote, textOf } from "./text.ts";

// A topic's schema: JSON Schema of the draft 2020-12 or draft-07, compiled once and then asked for every record. The
// library walks a table that it made of the schema; it makes no code, so it runs where `eval` is forbidden.
//
// It judges what JSON.parse returns. A number is judged as the double nearest to it: 1E400 is Infinity there, a number
// but no integer and above every `maximum`; an integer of 20 digits is judged by its first 16 or so, and equals its
// neighbours in `const`, `enum` and `uniqueItems`. Of a member given twice the last is judged. What is stored is the
// text as it came all the same.

export interface Violation {
  /** JSON pointer into the value; "" is all of it. Where a member's name breaks the rule, the pointer of the member. */
  readonly path: string;
  /** JSON pointer into the schema, to the keyword that is broken; "" where it is no keyword. */
  readonly rule: string;
  /** What was found and what is allowed. */
  readonly message: string;
}

/** How much judging is left to do. Shared by the records of a batch, so that a batch is bounded, not only a record. */
export interface Budget {
  /** Schemas, of those inside the schema, that may be held against a value. */
  evaluations: number;
}

export interface RecordSchema {
  /** The first rule that the value breaks, of rules inside rules the innermost. The value is at most 128 deep. */
  findViolation(value: unknown, budget?: Budget): Violation | undefined;
}

/**
 * Throws `bad_request` where it is no schema, or where JSON Schema would silently ignore a part of it, with the place.
 * References lead into the schema itself; nothing is fetched. Unknown keywords are annotations, unless they are one
 * letter away from a known one or of another draft. `format` is checked where formats.ts knows it. Its regular
 * expressions are run as they are: one that takes exponential time is its author's own, and stops the server.
 */
export async function compileRecordSchema(schema: unknown): Promise<RecordSchema> {
  const { draft, copy } = checkSchema(schema);
  // The library keeps schemas in one table for all; the number keeps two at the same time apart.
  schemasCompiled += 1;
  const uri = `https://schema.invalid/${schemasCompiled}`;
  registerSchema(copy, uri, DIALECTS[draft]);
  try {
    const compiled = await compile(await getSchema(uri));
    return new CompiledRecordSchema(compiled, schema);
  } catch (error) {
    // checkSchema is there to say it better.
    const message = error instanceof Error ? error.message : String(error);
    throw new Problem("bad_request", `Cannot set the schema: found ${quote(message)}, allowed JSON Schema`);
  } finally {
    unregisterSchema(uri);
  }
}

export interface RecordsPlace {
  readonly topic: string;
  /** Of NDJSON: the line of each record. */
  readonly lines?: readonly number[] | undefined;
  /** Of a transaction's appends. */
  readonly append?: number | undefined;
}

/** Throws `schema_violation` for the first record that breaks the schema. */
export function requireSchema(
  records: readonly NewRecord[],
  schema: RecordSchema,
  { topic, lines, append }: RecordsPlace,
): void {
  const bytes = records.reduce((sum, record) => sum + record.bytes, 0);
  const budget = { evaluations: EVALUATIONS_MAX + EVALUATIONS_PER_BYTE_MAX * bytes };
  records.forEach(({ value }, index) => {
    const violation =
      typeof value === "string" ? schema.findViolation(JSON.parse(value), budget) : bytesAre(value.length);
    if (violation === undefined) return;
    const line = lines?.[index];
    const place = line === undefined ? { append, record: index } : { line };
    throw violationProblem(violation, place, topic);
  });
}

// ── asking ───────────────────────────────────────────────────────────────────────────────────────────────

class CompiledRecordSchema implements RecordSchema {
  private readonly compiled: CompiledSchema;
  private readonly schema: unknown;
  private readonly meter = new Meter();

  constructor(compiled: CompiledSchema, schema: unknown) {
    this.compiled = compiled;
    this.schema = schema;
    // In the table, not beside it: the library forgets plugins of a call when it tries an "if".
    compiled.ast.plugins.add(this.meter);
  }

  findViolation(value: unknown, budget: Budget = { evaluations: EVALUATIONS_MAX }): Violation | undefined {
    // It is what JSON.parse returned, or it has no place in a record.
    const instance = fromJs(value as Parameters<typeof fromJs>[0]);
    try {
      if (this.isValid(instance, budget, [])) return undefined;
      // Few records break a rule, so that it is looked for only then.
      const finder = new RuleFinder();
      this.isValid(instance, { evaluations: Number.POSITIVE_INFINITY }, [finder]);
      return describe(finder.found, this.schema);
    } catch (error) {
      if (error instanceof MeterStop) return { path: "", rule: "", message: error.message };
      throw error;
    }
  }

  private isValid(instance: JsonNode, budget: Budget, plugins: EvaluationPlugin[]): boolean {
    this.meter.start(budget);
    return interpret(this.compiled, instance, { plugins }).valid;
  }
}

/** A batch may always take this many, about half a second. */
const EVALUATIONS_MAX = 1_000_000;
/** And more by its size: an item takes two bytes and, mostly, one evaluation. */
const EVALUATIONS_PER_BYTE_MAX = 2;
/** Inside one another. V8's stack takes 1,161 of them and not 2,193; the server's own calls are on it too. */
const EVALUATION_DEPTH_MAX = 900;

/** A recursive schema with two ways down a level has 2^n for a value n deep, and a record is enough to ask for it. */
class Meter implements EvaluationPlugin {
  private budget: Budget = { evaluations: 0 };
  private depth = 0;

  start(budget: Budget): void {
    this.budget = budget;
    this.depth = 0;
  }

  beforeSchema(): void {
    this.budget.evaluations -= 1;
    if (this.budget.evaluations < 0)
      throw new MeterStop("found more work than its size allows, allowed fewer ways to try it by the schema");
    this.depth += 1;
    if (this.depth > EVALUATION_DEPTH_MAX) throw new MeterStop(TOO_DEEP);
  }

  afterSchema(): void {
    this.depth -= 1;
  }
}

const TOO_DEEP = `found more than ${EVALUATION_DEPTH_MAX} schemas inside one another for it, allowed ${EVALUATION_DEPTH_MAX}`;

class MeterStop extends Error {}

interface Found {
  /** Pointer into the value. */
  readonly path: string;
  /** URI of the keyword. */
  readonly uri: string;
  /** What is at the path, or the name of it. */
  readonly value: unknown;
}

interface FindingContext extends ValidationContext {
  found?: Found;
}

/** A schema fails by the first of its keywords that does, and that by what is inside it, if that tells more. */
class RuleFinder implements EvaluationPlugin<FindingContext> {
  found: Found | undefined;

  afterKeyword(
    [id, uri]: readonly [id: string, uri: string, value: unknown],
    instance: JsonNode,
    inside: FindingContext,
    isValid: boolean,
    around: FindingContext,
  ): void {
    if (isValid) return;
    around.found ??= (WHOLE_RULES.has(id) ? undefined : inside.found) ?? foundAt(uri, instance);
  }

  afterSchema(uri: string, instance: JsonNode, context: FindingContext, isValid: boolean): void {
    if (!isValid && context.ast[uri] === false) context.found ??= foundAt(uri, instance);
    this.found = context.found;
  }
}

/** Of these no single schema inside is to blame. */
const WHOLE_RULES: ReadonlySet<string> = new Set(
  ["anyOf", "oneOf", "not", "contains"].map((name) => `https://json-schema.org/keyword/${name}`),
);

function foundAt(uri: string, instance: JsonNode): Found {
  const { pointer } = instance;
  // The library puts a star before the pointer of a member's name.
  const path = pointer.startsWith("*") ? pointer.slice(1) : pointer;
  return { path, uri, value: valueIn(instance) };
}

// ── what the library is told once ────────────────────────────────────────────────────────────────────────

let schemasCompiled = 0;

const DIALECTS: Readonly<Record<Draft, string>> = {
  "2020-12": "https://json-schema.org/draft/2020-12/schema",
  "draft-07": "http://json-schema.org/draft-07/schema",
};

setShouldValidateFormat(true);
for (const [name, fits] of Object.entries(FORMATS)) {
  const handler = (value: unknown) => typeof value !== "string" || fits(value);
  addFormat({ id: `https://json-schema.org/format/${name}`, handler });
}

/** The library's own takes everything for a multiple that is 0.0000001 away from one. */
addKeyword({
  ...getKeyword<number>("https://json-schema.org/keyword/multipleOf"),
  interpret: (divisor, instance) => {
    const value = valueIn<unknown>(instance);
    return typeof value !== "number" || isMultiple(value, divisor);
  },
});

/** 4.35 is one of 0.01, though 4.35 / 0.01 is 434.99999999999994: the last bit of the quotient is rounded away. */
function isMultiple(value: number, divisor: number): boolean {
  const quotient = value / divisor;
  if (!Number.isFinite(quotient)) return value % divisor === 0;
  return Math.abs(quotient - Math.round(quotient)) <= Number.EPSILON * Math.abs(quotient);
}

// ── what is wrong ────────────────────────────────────────────────────────────────────────────────────────

function describe(found: Found | undefined, schema: unknown): Violation {
  if (found === undefined) throw new Error("The schema is broken, but by none of its rules");
  const rule = decodeURI(found.uri.slice(found.uri.indexOf("#") + 1));
  const keyword = rule.slice(rule.lastIndexOf("/") + 1);
  const argument = resolvePointer(parsePointer(rule) ?? [], schema);
  const allowed = argument === false ? "nothing there" : `${keyword} ${textOf(argument)}`;
  const message = `found ${foundBy(keyword, argument, found.value)}, allowed ${allowed}`;
  return { path: found.path, rule, message };
}

/** What is missing says more than the object that it is missing from. */
function foundBy(keyword: string, argument: unknown, value: unknown): string {
  if (keyword !== "required" || !Array.isArray(argument) || typeof value !== "object" || value === null)
    return textOf(value);
  const missing = argument.find((name) => typeof name === "string" && !Object.hasOwn(value, name));
  return `no ${quote(String(missing))}`;
}

function bytesAre(count: number): Violation {
  return { path: "", rule: "", message: `found ${count} bytes that are no JSON, allowed a JSON value` };
}

function violationProblem(
  violation: Violation,
  place: { readonly append?: number | undefined; readonly record: number } | { readonly line: number },
  topic: string,
): Problem {
  const where = whereIs(place);
  const { message } = violation;
  const path = shorten(violation.path);
  const rule = shorten(violation.rule);
  const breaks = `its value at ${quote(path)} breaks ${quote(rule)} of the topic's schema`;
  return new Problem(
    "schema_violation",
    `Cannot produce ${where} to topic ${quote(topic)}: ${breaks}: ${message}`,
    { topic, ...place, path, rule },
  );
}

function whereIs(place: Parameters<typeof violationProblem>[1]): string {
  if ("line" in place) return `line ${place.line}`;
  const append = place.append === undefined ? "" : `appends[${place.append}].`;
  return `${append}records[${place.record}]`;
}

/** A name in a value may be a megabyte long. */
const POINTER_LENGTH_MAX = 1_024;

function shorten(pointer: string): string {
  const whole = pointer.toWellFormed();
  return whole.length <= POINTER_LENGTH_MAX ? whole : `${whole.slice(0, POINTER_LENGTH_MAX).toWellFormed()}…`;
}
