// Browser-safe. The valibot schema of every frame and request that a client sends. server.ts has those of what
// the server sends; verdict.ts says what a schema makes of an input.

import * as v from "valibot";
import type {
  AckFrame,
  ClientFrame,
  PauseFrame,
  PongFrame,
  ProducedRecord,
  ProduceFrame,
  ReleaseFrame,
  ResumeFrame,
  SeekFrame,
  SubscribeFrame,
  TopicExpectation,
  TransactFrame,
  UnsubscribeFrame,
} from "../frames.ts";
import type { GroupOffsets } from "../http.ts";
import {
  ACK_ENTRIES_MAX,
  ACK_TIMEOUT_MAX_MS,
  ACK_TIMEOUT_MIN_MS,
  BATCH_RECORDS_MAX,
  EXPECTATIONS_MAX,
  HEADERS_BYTES_MAX,
  HEADERS_MAX,
  INTEGER_MAX,
  JSON_DEPTH_MAX,
  KEY_BYTES_MAX,
  PARTITIONS_PER_RESET_MAX,
  PARTITIONS_PER_SUBSCRIPTION_MAX,
  RECORD_BYTES_MAX,
  SESSION_TIMEOUT_MAX_MS,
  SESSION_TIMEOUT_MIN_MS,
  TOPIC_PARTITIONS_MAX,
  TOPICS_PER_SUBSCRIPTION_MAX,
  WINDOW_BYTES_MAX,
  WINDOW_BYTES_MIN,
  WINDOW_RECORDS_MAX,
  WINDOW_RECORDS_MIN,
} from "../limits.ts";
import type { Place, ReaderPlace, ResetPolicy } from "../places.ts";
import {
  base64,
  frameId,
  goodText,
  hasMember,
  hasOneContent,
  integer,
  isObject,
  listOf,
  looseMembers,
  metadata,
  name,
  ONE_CONTENT,
  offset,
  oneOf,
  text,
  textOfBytes,
  timestampMs,
  word,
} from "./parts.ts";

const MEMBER_ID_CHARACTERS_MAX = 249;

export const nameSchema = name;
export const frameIdSchema = frameId;

// ── places ───────────────────────────────────────────────────────────────────────────────────────────────

const timestampPlace = v.strictObject({ timestamp: timestampMs });
const agoPlace = v.strictObject({ ago: timestampMs });
const offsetPlace = v.strictObject({ offset });
const shiftPlace = v.strictObject({ shift: integer(-INTEGER_MAX, INTEGER_MAX) });
const policyWord = word(["earliest", "latest", "none"]);
const readerPlaceWord = word(["earliest", "latest"]);
const placeWord = word(["earliest", "latest", "current"]);

const READER_PLACES = { offset: offsetPlace, timestamp: timestampPlace, ago: agoPlace };
const noPlace = v.strictObject({});
const severalPlaces = v.pipe(
  v.looseObject({}),
  v.check(() => false, "must be one place, not several at once"),
);

/** The schema of the place that was meant, so that an error speaks of that one. */
function placeObject<Places extends Readonly<Record<string, v.GenericSchema>>>(
  input: unknown,
  places: Places,
): Places[keyof Places] {
  const meant = Object.keys(places).filter((member) => hasMember(input, member));
  const isOther = isObject(input) && Object.keys(input).length > 0;
  const [first = isOther ? undefined : Object.keys(places)[0]] = meant;
  // No input fits the other two: they only say what is wrong with it.
  if (meant.length > 1) return severalPlaces as unknown as Places[keyof Places];
  return (first === undefined ? noPlace : places[first]) as Places[keyof Places];
}

export const resetPolicySchema = oneOf([policyWord, timestampPlace, agoPlace], (input) =>
  typeof input === "string" ? policyWord : placeObject(input, { timestamp: timestampPlace, ago: agoPlace }),
) satisfies v.GenericSchema<unknown, ResetPolicy>;

const resetPolicies = looseMembers({
  missing: v.optional(resetPolicySchema),
  outOfRange: v.optional(resetPolicySchema),
});

const resetSchema = oneOf([resetPolicySchema, resetPolicies], (input) => {
  const isOnePolicy = typeof input === "string" || hasMember(input, "ago") || hasMember(input, "timestamp");
  return isOnePolicy ? resetPolicySchema : resetPolicies;
});

const readerPlaceSchema = oneOf([readerPlaceWord, offsetPlace, timestampPlace, agoPlace], (input) =>
  typeof input === "string" ? readerPlaceWord : placeObject(input, READER_PLACES),
) satisfies v.GenericSchema<unknown, ReaderPlace>;

export const placeSchema = oneOf([placeWord, offsetPlace, timestampPlace, agoPlace, shiftPlace], (input) =>
  typeof input === "string" ? placeWord : placeObject(input, { ...READER_PLACES, shift: shiftPlace }),
) satisfies v.GenericSchema<unknown, Place>;

const readerStarts = listOf(
  v.strictObject({ topic: name, partition: offset, offset, topicId: v.optional(offset) }),
  PARTITIONS_PER_SUBSCRIPTION_MAX,
);

const fromSchema = oneOf([readerPlaceSchema, readerStarts], (input) =>
  Array.isArray(input) ? readerStarts : readerPlaceSchema,
);

// ── frames ───────────────────────────────────────────────────────────────────────────────────────────────

const topics = v.pipe(
  listOf(name, TOPICS_PER_SUBSCRIPTION_MAX),
  v.check((input) => new Set(input).size === input.length, "must not name a topic twice"),
  v.metadata({ uniqueItems: true }),
);

export const subscribeFrameSchema = v.strictObject({
  type: v.literal("subscribe"),
  id: v.optional(frameId),
  subscription: v.optional(name),
  topics,
  group: v.optional(name),
  from: v.optional(fromSchema),
  instanceId: v.optional(name),
  memberId: v.optional(text(MEMBER_ID_CHARACTERS_MAX)),
  reset: v.optional(resetSchema),
  ack: v.optional(word(["manual", "none"])),
  window: v.optional(
    looseMembers({
      records: v.optional(integer(WINDOW_RECORDS_MIN, WINDOW_RECORDS_MAX)),
      bytes: v.optional(integer(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)),
    }),
  ),
  sessionTimeoutMs: v.optional(integer(SESSION_TIMEOUT_MIN_MS, SESSION_TIMEOUT_MAX_MS)),
  ackTimeoutMs: v.optional(integer(ACK_TIMEOUT_MIN_MS, ACK_TIMEOUT_MAX_MS)),
}) satisfies v.GenericSchema<unknown, SubscribeFrame>;

const ackEntry = v.strictObject({
  topic: name,
  partition: offset,
  generation: offset,
  offset,
  metadata: v.optional(metadata),
});

export const ackFrameSchema = v.strictObject({
  type: v.literal("ack"),
  id: v.optional(frameId),
  subscription: v.optional(name),
  offsets: listOf(ackEntry, ACK_ENTRIES_MAX),
}) satisfies v.GenericSchema<unknown, AckFrame>;

const partitionNames = listOf(
  v.strictObject({ topic: name, partition: offset }),
  PARTITIONS_PER_SUBSCRIPTION_MAX,
);

export const releaseFrameSchema = v.strictObject({
  type: v.literal("release"),
  id: v.optional(frameId),
  subscription: v.optional(name),
  partitions: partitionNames,
}) satisfies v.GenericSchema<unknown, ReleaseFrame>;

export const seekFrameSchema = v.strictObject({
  type: v.literal("seek"),
  id: v.optional(frameId),
  subscription: v.optional(name),
  topic: name,
  partition: offset,
  to: placeSchema,
}) satisfies v.GenericSchema<unknown, SeekFrame>;

export const pauseFrameSchema = v.strictObject({
  type: v.literal("pause"),
  id: v.optional(frameId),
  subscription: v.optional(name),
  partitions: partitionNames,
}) satisfies v.GenericSchema<unknown, PauseFrame>;

export const resumeFrameSchema = v.strictObject({
  type: v.literal("resume"),
  id: v.optional(frameId),
  subscription: v.optional(name),
  partitions: partitionNames,
}) satisfies v.GenericSchema<unknown, ResumeFrame>;

/** For descriptions: core/produce-request.ts reads records off their text, byte for byte, and says the same. */
export const producedRecordSchema = v.pipe(
  v.strictObject({
    key: v.optional(v.nullable(textOfBytes(KEY_BYTES_MAX))),
    value: v.optional(v.unknown()),
    bytes: v.optional(base64),
    headers: v.optional(
      v.pipe(
        v.record(goodText, goodText),
        v.maxEntries(HEADERS_MAX),
        v.description(`At most ${HEADERS_BYTES_MAX} bytes as it stands in the request.`),
      ),
    ),
    timestamp: v.optional(timestampMs),
    partition: v.optional(offset),
  }),
  hasOneContent(),
  v.metadata(ONE_CONTENT),
  v.description(
    `Key, headers and value together are at most ${RECORD_BYTES_MAX} bytes; a value is nested at most ${JSON_DEPTH_MAX} deep.`,
  ),
) satisfies v.GenericSchema<unknown, ProducedRecord>;

export const producedRecordsSchema = listOf(producedRecordSchema, BATCH_RECORDS_MAX);

export const producerSequenceSchema = v.strictObject({ id: name, epoch: offset, sequence: offset });

/** None of a partition twice: two could only say the same or contradict each other. */
const listOfPartitions = <const Item extends v.GenericSchema<unknown, { topic?: string; partition: number }>>(
  item: Item,
  max: number,
) => {
  const list = listOf(item, max);
  const names = (input: v.InferOutput<Item>[]) =>
    new Set(input.map(({ topic = "", partition }) => `${topic}/${partition}`));
  return v.pipe(
    list,
    v.check((input) => names(input).size === input.length, "must not name a partition twice"),
    v.description("No partition twice."),
  );
};

export const expectationsSchema = listOfPartitions(
  v.strictObject({ partition: offset, logEndOffset: offset }),
  EXPECTATIONS_MAX,
);

/** What a produce may have beside its records. */
export const produceOptionsSchema = v.strictObject({
  producer: v.optional(producerSequenceSchema),
  expect: v.optional(expectationsSchema),
});

export type ProduceOptions = v.InferOutput<typeof produceOptionsSchema>;

export const produceFrameSchema = v.strictObject({
  type: v.literal("produce"),
  id: v.optional(frameId),
  topic: name,
  records: producedRecordsSchema,
  ...produceOptionsSchema.entries,
}) satisfies v.GenericSchema<unknown, ProduceFrame>;

const uncheckedRecords = v.array(v.unknown());

/** All of a produce frame but its records, which are judged by their text. */
export const produceEnvelopeSchema = v.strictObject({
  ...produceFrameSchema.entries,
  records: uncheckedRecords,
});

export type ProduceEnvelope = v.InferOutput<typeof produceEnvelopeSchema>;

/** POST /v1/transactions, and the frame of the same. */
const transaction = {
  producer: v.optional(producerSequenceSchema),
  commits: v.optional(v.strictObject({ group: name, offsets: listOfPartitions(ackEntry, ACK_ENTRIES_MAX) })),
  expect: v.optional(
    listOfPartitions(
      v.strictObject({ topic: name, partition: offset, logEndOffset: offset }) satisfies v.GenericSchema<
        unknown,
        TopicExpectation
      >,
      EXPECTATIONS_MAX,
    ),
  ),
};

/** Each has a record at least. None only where there are commits. */
const appendsOf = <const Records extends v.GenericSchema>(records: Records) =>
  listOf(v.strictObject({ topic: name, records }), BATCH_RECORDS_MAX, 0);

export const transactRequestSchema = v.strictObject({
  ...transaction,
  appends: v.pipe(
    appendsOf(producedRecordsSchema),
    v.description(`At most ${BATCH_RECORDS_MAX} records in all of them. Empty only where there are commits.`),
  ),
});

export const transactFrameSchema = v.strictObject({
  type: v.literal("transact"),
  id: v.optional(frameId),
  ...transactRequestSchema.entries,
}) satisfies v.GenericSchema<unknown, TransactFrame>;

/** All of a transaction but its records, which are judged by their text. */
export const transactEnvelopeSchema = v.strictObject({
  ...transaction,
  appends: appendsOf(uncheckedRecords),
});

export type TransactionEnvelope = v.InferOutput<typeof transactEnvelopeSchema>;

export const transactFrameEnvelopeSchema = v.strictObject({
  ...transactFrameSchema.entries,
  ...transactEnvelopeSchema.entries,
});

export const unsubscribeFrameSchema = v.strictObject({
  type: v.literal("unsubscribe"),
  id: v.optional(frameId),
  subscription: v.optional(name),
}) satisfies v.GenericSchema<unknown, UnsubscribeFrame>;

export const pongFrameSchema = v.strictObject({
  type: v.literal("pong"),
  id: v.optional(frameId),
}) satisfies v.GenericSchema<unknown, PongFrame>;

/** By `type`, so that a frame of a known type is judged by its own schema alone. */
export const CLIENT_FRAME_SCHEMAS = {
  subscribe: subscribeFrameSchema,
  ack: ackFrameSchema,
  release: releaseFrameSchema,
  seek: seekFrameSchema,
  pause: pauseFrameSchema,
  resume: resumeFrameSchema,
  produce: produceFrameSchema,
  transact: transactFrameSchema,
  unsubscribe: unsubscribeFrameSchema,
  pong: pongFrameSchema,
} satisfies {
  readonly [T in ClientFrame["type"]]: v.GenericSchema<unknown, Extract<ClientFrame, { type: T }>>;
};

// ── requests over HTTP ───────────────────────────────────────────────────────────────────────────────────

const optionalLimit = (min: number) => v.optional(v.nullable(integer(min, INTEGER_MAX)));

/** PUT /v1/topics/:topic. Absent: as it is; null: the default. */
export const topicSettingsSchema = v.strictObject({
  partitionCount: v.optional(v.nullable(integer(1, TOPIC_PARTITIONS_MAX))),
  schema: v.pipe(
    v.optional(v.unknown()),
    v.description("JSON Schema of the values: an object or a boolean; null removes it."),
  ),
  retention: v.optional(
    v.nullable(looseMembers({ ms: optionalLimit(1), bytes: optionalLimit(1), records: optionalLimit(1) })),
  ),
  cleanup: v.optional(v.nullable(word(["delete", "compact"]))),
  compaction: v.optional(
    v.nullable(looseMembers({ minLagMs: optionalLimit(0), tombstoneMs: optionalLimit(0) })),
  ),
});

/** POST /v1/topics/:topic/records, as JSON. */
export const produceRequestSchema = v.strictObject({
  records: producedRecordsSchema,
  ...produceOptionsSchema.entries,
});

/** POST /v1/groups/:group/offsets: as an ack, without a generation. */
export const groupOffsetsSchema = v.strictObject({
  offsets: listOf(
    v.strictObject({ topic: name, partition: offset, offset, metadata: v.optional(metadata) }),
    ACK_ENTRIES_MAX,
  ),
}) satisfies v.GenericSchema<unknown, GroupOffsets>;

const resetTopics = v.pipe(
  listOf(
    v.strictObject({
      topic: name,
      partitions: v.optional(
        v.pipe(
          listOf(offset, TOPIC_PARTITIONS_MAX),
          v.check((input) => new Set(input).size === input.length, "must not name a partition twice"),
          v.metadata({ uniqueItems: true }),
        ),
      ),
    }),
    TOPICS_PER_SUBSCRIPTION_MAX,
  ),
  v.check(
    (input) => new Set(input.map(({ topic }) => topic)).size === input.length,
    "must not name a topic twice",
  ),
  v.description("No topic twice. Without `partitions`: all of the topic."),
);

const resetPlan = v.pipe(
  listOfPartitions(
    v.strictObject({ topic: name, partition: offset, from: v.nullable(offset), to: offset }),
    PARTITIONS_PER_RESET_MAX,
  ),
  v.description("No partition twice. `from`: the committed offset, null where there is none."),
);

/** POST /v1/groups/:group/reset: a place in partitions of topics, or a plan. */
export const resetRequestSchema = v.pipe(
  v.strictObject({
    topics: v.optional(resetTopics),
    to: v.optional(placeSchema),
    plan: v.optional(resetPlan),
    dryRun: v.optional(v.boolean()),
    reason: v.optional(metadata),
  }),
  v.check(
    ({ topics, to, plan }) =>
      plan === undefined
        ? topics !== undefined && to !== undefined
        : topics === undefined && to === undefined,
    'must have "topics" and "to", or "plan"',
  ),
  v.metadata({
    oneOf: [
      { required: ["topics", "to"], not: { required: ["plan"] } },
      { required: ["plan"], not: { anyOf: [{ required: ["topics"] }, { required: ["to"] }] } },
    ],
  }),
);
