// Browser-safe. The valibot schema of every frame and request that a client sends.
//
// A schema says two different things, and judge() keeps them apart: a member missing or of the wrong type (a schema
// issue), and a value of the right type that is not allowed (a check, a validation issue). On the socket the first
// closes it as `bad_frame`, the second is answered with `bad_request`.

import * as v from "valibot";
import type {
  AckFrame,
  ClientFrame,
  PongFrame,
  ResetPolicy,
  SubscribeFrame,
  UnsubscribeFrame,
} from "./frames.ts";
import {
  ACK_ENTRIES_MAX,
  METADATA_BYTES_MAX,
  NAME_PATTERN,
  SESSION_TIMEOUT_MAX_MS,
  SESSION_TIMEOUT_MIN_MS,
  TOPIC_PARTITIONS_MAX,
  TOPICS_PER_SUBSCRIPTION_MAX,
  WINDOW_BYTES_MAX,
  WINDOW_BYTES_MIN,
  WINDOW_RECORDS_MAX,
  WINDOW_RECORDS_MIN,
} from "./limits.ts";

import { findBadText } from "./text.ts";

const FRAME_ID_CHARACTERS_MAX = 249;
const MEMBER_ID_CHARACTERS_MAX = 249;

const integer = (minimum: number, maximum: number) =>
  v.pipe(
    v.number(),
    v.check(
      (input) => Number.isSafeInteger(input) && input >= minimum && input <= maximum,
      `must be an integer from ${minimum} to ${maximum}`,
    ),
  );

/** An array is an object to JavaScript, and one with no member that is missing where all are optional. */
const isNoArray = v.custom<object>(
  (input) => typeof input === "object" && !Array.isArray(input),
  "must be an object",
);

const offset = integer(0, Number.MAX_SAFE_INTEGER);
const text = (charactersMax: number) =>
  v.pipe(
    v.string(),
    v.check((input) => input.length <= charactersMax, `must be at most ${charactersMax} characters`),
    v.check((input) => findBadText(input) === null, "must not hold NUL or a lone surrogate"),
  );

/** Counted before it is looked into: a frame may hold a million mistakes, and each would become an object. */
const listOf = <const Item extends v.GenericSchema>(item: Item, max: number) =>
  v.pipe(
    v.array(v.unknown()),
    v.check((input) => input.length > 0, "must not be empty"),
    v.check((input) => input.length <= max, `must have at most ${max} entries`),
    v.array(item),
  );

export const nameSchema = v.pipe(
  v.string(),
  v.check(
    (input) => NAME_PATTERN.test(input) && input !== "." && input !== "..",
    "must be 1 to 249 characters of A-Z a-z 0-9 . _ -, and neither . nor ..",
  ),
);

// A check and no more: in a union, a transformation after it would hide what the check has to say.
const resetPolicySchema = v.pipe(
  v.string(),
  v.check(isResetPolicy, 'must be "earliest", "latest" or "none"'),
) as v.GenericSchema<string, ResetPolicy>; // the check says so

const metadataSchema = v.pipe(
  v.string(),
  v.check((input) => findBadText(input) === null, "must not hold NUL or a lone surrogate"),
  v.check(
    (input) => new TextEncoder().encode(input).length <= METADATA_BYTES_MAX,
    `must be at most ${METADATA_BYTES_MAX} bytes of UTF-8`,
  ),
);

export const frameIdSchema = v.union([offset, text(FRAME_ID_CHARACTERS_MAX)]);

export const subscribeFrameSchema = v.strictObject({
  type: v.literal("subscribe"),
  id: v.optional(frameIdSchema),
  subscription: v.optional(nameSchema),
  topics: v.pipe(
    listOf(nameSchema, TOPICS_PER_SUBSCRIPTION_MAX),
    v.check((input) => new Set(input).size === input.length, "must not name a topic twice"),
  ),
  group: nameSchema,
  instanceId: v.optional(nameSchema),
  memberId: v.optional(text(MEMBER_ID_CHARACTERS_MAX)),
  reset: v.optional(
    v.union([
      resetPolicySchema,
      v.pipe(
        isNoArray,
        v.strictObject({ missing: v.optional(resetPolicySchema), outOfRange: v.optional(resetPolicySchema) }),
      ),
    ]),
  ),
  ack: v.optional(
    v.pipe(
      v.string(),
      v.check((input) => input === "manual", 'must be "manual"; "none" is not built yet'),
      v.transform(() => "manual" as const),
    ),
  ),
  window: v.optional(
    v.pipe(
      isNoArray,
      v.strictObject({
        records: v.optional(integer(WINDOW_RECORDS_MIN, WINDOW_RECORDS_MAX)),
        bytes: v.optional(integer(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)),
      }),
    ),
  ),
  sessionTimeoutMs: v.optional(integer(SESSION_TIMEOUT_MIN_MS, SESSION_TIMEOUT_MAX_MS)),
}) satisfies v.GenericSchema<unknown, SubscribeFrame>;

export const ackFrameSchema = v.strictObject({
  type: v.literal("ack"),
  id: v.optional(frameIdSchema),
  subscription: v.optional(nameSchema),
  offsets: listOf(
    v.strictObject({
      topic: nameSchema,
      partition: offset,
      generation: offset,
      offset,
      metadata: v.optional(metadataSchema),
    }),
    ACK_ENTRIES_MAX,
  ),
}) satisfies v.GenericSchema<unknown, AckFrame>;

export const unsubscribeFrameSchema = v.strictObject({
  type: v.literal("unsubscribe"),
  id: v.optional(frameIdSchema),
  subscription: v.optional(nameSchema),
}) satisfies v.GenericSchema<unknown, UnsubscribeFrame>;

export const pongFrameSchema = v.strictObject({
  type: v.literal("pong"),
  id: v.optional(frameIdSchema),
}) satisfies v.GenericSchema<unknown, PongFrame>;

/** By `type`, so that a frame of a known type is judged by its own schema alone. */
export const CLIENT_FRAME_SCHEMAS = {
  subscribe: subscribeFrameSchema,
  ack: ackFrameSchema,
  unsubscribe: unsubscribeFrameSchema,
  pong: pongFrameSchema,
} satisfies {
  readonly [T in ClientFrame["type"]]: v.GenericSchema<unknown, Extract<ClientFrame, { type: T }>>;
};

/** PUT /v1/topics/:topic. */
export const topicSettingsSchema = v.strictObject({
  partitionCount: v.optional(v.nullable(integer(1, TOPIC_PARTITIONS_MAX))),
});

/** POST /v1/groups/:group/offsets: as an ack, without a generation. */
export const groupOffsetsSchema = v.strictObject({
  offsets: listOf(
    v.strictObject({ topic: nameSchema, partition: offset, offset, metadata: v.optional(metadataSchema) }),
    ACK_ENTRIES_MAX,
  ),
});

function isResetPolicy(input: string): input is ResetPolicy {
  return input === "earliest" || input === "latest" || input === "none";
}

// ── the verdict ──────────────────────────────────────────────────────────────────────────────────────────

export type Verdict<T> =
  | { readonly kind: "valid"; readonly output: T }
  /** A member is missing or of the wrong type. */
  | { readonly kind: "misfit"; readonly why: string }
  /** A member that nobody knows, by its path. */
  | { readonly kind: "unknownMember"; readonly member: string }
  | { readonly kind: "notAllowed"; readonly why: string };

/** Of what a client sent, an error repeats no more than this. */
const FOUND_CHARACTERS_MAX = 60;

export function judge<const Schema extends v.GenericSchema>(
  schema: Schema,
  input: unknown,
): Verdict<v.InferOutput<Schema>> {
  const result = v.safeParse(schema, input);
  if (result.success) return { kind: "valid", output: result.output };
  const { issues } = result;
  const misfit = issues.find((issue) => issue.kind === "schema" && unknownMemberOf(issue) === undefined);
  if (misfit) return { kind: "misfit", why: describe(misfit) };
  const member = issues.map(unknownMemberOf).find((found) => found !== undefined);
  if (member !== undefined) return { kind: "unknownMember", member: excerpt(member) };
  return { kind: "notAllowed", why: describe(issues[0]) };
}

export function excerpt(text: string): string {
  return text.length <= FOUND_CHARACTERS_MAX ? text : `${text.slice(0, FOUND_CHARACTERS_MAX)}…`;
}

/** A strict object says of a member that it does not know: expected never. */
function unknownMemberOf(issue: v.BaseIssue<unknown>): string | undefined {
  if (issue.type === "strict_object" && issue.expected === "never") return pathOf(issue);
  if (issue.type !== "union") return undefined;
  const inner = issue.issues?.map(unknownMemberOf).find((member) => member !== undefined);
  return inner === undefined ? undefined : `${pathOf(issue)}.${inner}`;
}

function describe(issue: v.BaseIssue<unknown>): string {
  const member = `"${excerpt(pathOf(issue))}"`;
  if (issue.kind === "validation" || issue.type === "custom") return `${member} ${issue.message}`;
  if (issue.received === "undefined") return `${member} must be there`;
  return `${member} must be ${issue.expected}, found ${excerpt(issue.received)}`;
}

function pathOf(issue: v.BaseIssue<unknown>): string {
  return v.getDotPath(issue) ?? "";
}
