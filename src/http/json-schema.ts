// A valibot schema of the wire as JSON Schema 2020-12, for OpenAPI, for AsyncAPI and for the hash of the protocol.
//
// Nothing is left out silently: a schema or a check that JSON Schema cannot say throws here, unless the schema itself
// says what stands for it (see protocol/schemas/parts.ts).

import { type JsonSchema, toJsonSchema } from "@valibot/to-json-schema";
import type * as v from "valibot";

export type { JsonSchema } from "@valibot/to-json-schema";

/** Of a strict object: a request's is refused with them, an answer's reader ignores them. */
export type UnknownMembers = "refused" | "ignored";

export function describeSchema(schema: v.GenericSchema, unknownMembers: UnknownMembers): JsonSchema {
  const { $schema: _, ...described } = toJsonSchema(plainSchema(schema), {
    target: "draft-2020-12",
    ignoreActions: ["check"],
    // What is returned here hides what could not be converted.
    overrideSchema: ({ jsonSchema, errors }) =>
      unknownMembers === "ignored" && !errors ? openObject(jsonSchema) : undefined,
  });
  return described;
}

function openObject(described: JsonSchema): JsonSchema {
  if (described.additionalProperties !== false) return described;
  const { additionalProperties: _, ...open } = described;
  return open;
}

/** What is looked into of a schema, whatever its kind. */
interface SchemaParts {
  readonly type: string;
  readonly documents?: v.GenericSchema;
  readonly pipe?: readonly v.PipeItem<unknown, unknown, v.BaseIssue<unknown>>[];
  readonly entries?: Readonly<Record<string, v.GenericSchema>>;
  readonly item?: v.GenericSchema;
  readonly wrapped?: v.GenericSchema;
  readonly key?: v.GenericSchema;
  readonly value?: v.GenericSchema;
  readonly options?: readonly unknown[];
}

/** The same schema with every `documents` in its place. */
function plainSchema(schema: v.GenericSchema): v.GenericSchema {
  const parts: SchemaParts = schema;
  const { documents, pipe, entries, item, wrapped, key, value, options } = parts;
  if (documents && !isInherited(parts)) return plainSchema(documents);
  const plain = {
    ...schema,
    ...(pipe && { pipe: describedPipe(pipe) }),
    ...(entries && { entries: mapValues(entries, plainSchema) }),
    ...(item && { item: plainSchema(item) }),
    ...(wrapped && { wrapped: plainSchema(wrapped) }),
    ...(key && { key: plainSchema(key) }),
    ...(value && { value: plainSchema(value) }),
    ...(options && { options: options.map((option) => (isSchema(option) ? plainSchema(option) : option)) }),
  };
  if (parts.type === "lazy") throw new Error("A lazy schema must say what it documents");
  return plain;
}

/** v.pipe() copies what its first schema has: the checks behind it are not in the `documents` of that. */
function isInherited({ documents, pipe }: SchemaParts): boolean {
  const first: unknown = pipe?.[0];
  return isSchema(first) && (first as SchemaParts).documents === documents; // any schema is looked into as one
}

function describedPipe(pipe: NonNullable<SchemaParts["pipe"]>): NonNullable<SchemaParts["pipe"]> {
  const mute = pipe.find((part, index) => part.type === "check" && pipe[index + 1]?.kind !== "metadata");
  if (mute) throw new Error(`A check must be followed by what it is in JSON Schema: ${messageOf(mute)}`);
  return pipe.map((part) => (isSchema(part) ? plainSchema(part) : part));
}

function messageOf(part: object): string {
  return "message" in part ? String(part.message) : "it has no message";
}

function isSchema(part: unknown): part is v.GenericSchema {
  return typeof part === "object" && part !== null && "kind" in part && part.kind === "schema";
}

function mapValues<T, U>(
  values: Readonly<Record<string, T>>,
  change: (value: T) => U,
): Readonly<Record<string, U>> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, change(value)]));
}
