// Browser-safe. What the values of topics are, said once for the compiler and, on request, checked at run time.

import { type Issue, SchemaViolationError } from "./errors.ts";
import type { ProducerRecord } from "./producer-records.ts";

/**
 * A schema of any library that keeps to Standard Schema 1 (valibot, zod, arktype, …). Only what is used of it.
 *
 * Source: https://standardschema.dev
 */
export interface StandardSchema<Input = unknown, Output = Input> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => StandardResult<Output> | Promise<StandardResult<Output>>;
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
}

type StandardResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly Issue[] };

/** Topics by name, each with the schema of its values. */
export type TopicDefinitions = Readonly<Record<string, { readonly value: StandardSchema }>>;

/** No definitions: any topic, and values are `unknown`. */
export type AnyTopics = Record<never, never>;

/** Names of the topics that are defined; any name where none is. */
export type TopicName<Topics> = keyof Topics extends never ? string : keyof Topics & string;

/** What travels: what one produces, and consumes where it is not checked. */
export type ValueOf<Topics, Name> = Name extends keyof Topics
  ? Topics[Name] extends { readonly value: StandardSchema<infer Input, unknown> }
    ? Input
    : unknown
  : unknown;

/** What a schema makes of it: what one consumes where it is checked. */
export type CheckedValueOf<Topics, Name> = Name extends keyof Topics
  ? Topics[Name] extends {
      readonly value: StandardSchema<never, infer Output> | StandardSchema<unknown, infer Output>;
    }
    ? Output
    : unknown
  : unknown;

/** A record as it is produced: with a value of this type, or with bytes. */
export type RecordFor<Value> = ProducerRecord &
  (
    | { readonly value: Value; readonly bytes?: never }
    | { readonly bytes: Uint8Array; readonly value?: never }
  );

/**
 * Topics by name, for `connect({topics})`: keys are names, `value` a schema.
 *
 * @example
 * ```ts
 * import { connect, defineTopics } from "@tidemark/client";
 * import * as v from "valibot";
 *
 * const topics = defineTopics({ orders: { value: v.object({ total: v.number() }) } });
 * const tidemark = connect({ url: "http://127.0.0.1:4500", topics, check: true });
 * await tidemark.produce("orders", { value: { total: 12.5 } });
 * await tidemark.close();
 * ```
 */
export function defineTopics<const Topics extends TopicDefinitions>(topics: Topics): Topics {
  return topics;
}

/** Judges values of one topic. Resolves with what the schema makes of the value, or with why it is none. */
export type ValueCheck = (
  value: unknown,
) => unknown | SchemaViolationError | Promise<unknown | SchemaViolationError>;

/** The check of a topic's values; none where nothing is to be checked. */
export function createCheck(topics: TopicDefinitions | undefined, topic: string): ValueCheck | undefined {
  const schema = topics && Object.hasOwn(topics, topic) ? topics[topic]?.value : undefined;
  if (!schema) return undefined;
  const judge = (result: StandardResult<unknown>) =>
    result.issues
      ? new SchemaViolationError(`A value is not what topic "${topic}" has`, result.issues, { topic })
      : result.value;
  return (value) => {
    const result = schema["~standard"].validate(value);
    return result instanceof Promise ? result.then(judge) : judge(result);
  };
}

/** One or many. */
export function listOf<Item>(items: Item | readonly Item[]): readonly Item[] {
  return Array.isArray(items) ? items : [items as Item]; // not an array
}
