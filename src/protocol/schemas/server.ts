// Browser-safe. The valibot schema of every frame and answer that the server sends: for the descriptions and the tests.
// They are strict, so that a test sees a member that nobody has described; a client ignores what it does not know.

import * as v from "valibot";
import { ERROR_CODES, type ErrorCode } from "../codes.ts";
import type {
  AckedFrame,
  AssignedFrame,
  DeliveredRecord,
  DrainingFrame,
  ErrorFrame,
  OkFrame,
  PingFrame,
  ProducedFrame,
  RecordsFrame,
  RevokedFrame,
  ServerFrame,
  SubscribedFrame,
  TransactedFrame,
  UnsubscribedFrame,
} from "../frames.ts";
import type {
  CommittedOffsets,
  Fetched,
  GroupDescription,
  GroupList,
  PartitionBounds,
  ProducerEpoch,
  Readiness,
  ResetPlan,
  TopicDescription,
  TopicList,
} from "../http.ts";
import { INTEGER_MAX } from "../limits.ts";
import { resetPolicySchema } from "./client.ts";
import {
  base64,
  frameId,
  hasOneContent,
  integer,
  metadata,
  name,
  ONE_CONTENT,
  offset,
  timestampMs,
} from "./parts.ts";

const errorCode = v.picklist(Object.keys(ERROR_CODES) as ErrorCode[]); // exactly the keys
const generation = integer(1, INTEGER_MAX);
const durationMs = integer(0, INTEGER_MAX);

// ── frames ───────────────────────────────────────────────────────────────────────────────────────────────

export const subscribedFrameSchema = v.strictObject({
  type: v.literal("subscribed"),
  id: v.optional(frameId),
  subscription: name,
  memberId: v.optional(v.string()),
  heartbeatMs: durationMs,
  sessionTimeoutMs: durationMs,
  durability: v.picklist(["fsync", "relaxed"]),
}) satisfies v.GenericSchema<unknown, SubscribedFrame>;

const assignedPartitionSchema = v.strictObject({
  topic: name,
  topicId: offset,
  partition: offset,
  generation,
  position: v.nullable(offset),
  committedOffset: v.nullable(offset),
  metadata: v.optional(metadata),
  logStartOffset: offset,
  logEndOffset: offset,
  reset: v.optional(resetPolicySchema),
});

export const assignedFrameSchema = v.strictObject({
  type: v.literal("assigned"),
  id: v.optional(frameId),
  subscription: name,
  partitions: v.array(assignedPartitionSchema),
}) satisfies v.GenericSchema<unknown, AssignedFrame>;

export const deliveredRecordSchema = v.pipe(
  v.strictObject({
    offset,
    timestamp: timestampMs,
    key: v.optional(v.string()),
    headers: v.optional(v.record(v.string(), v.string())),
    value: v.optional(v.unknown()),
    bytes: v.optional(base64),
  }),
  hasOneContent(),
  v.metadata(ONE_CONTENT),
) satisfies v.GenericSchema<unknown, DeliveredRecord>;

export const recordsFrameSchema = v.strictObject({
  type: v.literal("records"),
  subscription: name,
  generation,
  topic: name,
  partition: offset,
  records: v.array(deliveredRecordSchema),
  next: offset,
  logEndOffset: offset,
}) satisfies v.GenericSchema<unknown, RecordsFrame>;

const ackedEntrySchema = v.strictObject({
  topic: name,
  partition: offset,
  offset: v.nullable(offset),
  code: v.optional(errorCode),
});

export const ackedFrameSchema = v.strictObject({
  type: v.literal("acked"),
  id: v.optional(frameId),
  subscription: name,
  offsets: v.array(ackedEntrySchema),
}) satisfies v.GenericSchema<unknown, AckedFrame>;

export const revokedFrameSchema = v.strictObject({
  type: v.literal("revoked"),
  subscription: name,
  partitions: v.array(v.strictObject({ topic: name, partition: offset, generation })),
  reason: v.picklist(["rebalance", "expired", "stalled", "topic_deleted"]),
  deadlineMs: durationMs,
}) satisfies v.GenericSchema<unknown, RevokedFrame>;

export const unsubscribedFrameSchema = v.strictObject({
  type: v.literal("unsubscribed"),
  id: v.optional(frameId),
  subscription: name,
  code: v.optional(v.picklist(["replaced", "expired"])),
}) satisfies v.GenericSchema<unknown, UnsubscribedFrame>;

const run = { partition: offset, offset, count: integer(1, INTEGER_MAX) };
const produced = { runs: v.array(v.strictObject(run)), duplicate: v.optional(v.literal(true)) };
const transacted = {
  runs: v.array(v.strictObject({ topic: name, ...run })),
  duplicate: v.optional(v.literal(true)),
};

export const producedFrameSchema = v.strictObject({
  type: v.literal("produced"),
  id: v.optional(frameId),
  ...produced,
}) satisfies v.GenericSchema<unknown, ProducedFrame>;

export const transactedFrameSchema = v.strictObject({
  type: v.literal("transacted"),
  id: v.optional(frameId),
  ...transacted,
}) satisfies v.GenericSchema<unknown, TransactedFrame>;

export const okFrameSchema = v.strictObject({
  type: v.literal("ok"),
  id: frameId,
}) satisfies v.GenericSchema<unknown, OkFrame>;

export const pingFrameSchema = v.strictObject({
  type: v.literal("ping"),
}) satisfies v.GenericSchema<unknown, PingFrame>;

export const drainingFrameSchema = v.strictObject({
  type: v.literal("draining"),
  retryAfterMs: durationMs,
}) satisfies v.GenericSchema<unknown, DrainingFrame>;

/** The facts of its code stand beside these members. */
export const errorFrameSchema = v.looseObject({
  type: v.literal("error"),
  id: v.optional(frameId),
  subscription: v.optional(name),
  topic: v.optional(name),
  partition: v.optional(offset),
  code: errorCode,
  message: v.string(),
  retriable: v.boolean(),
}) satisfies v.GenericSchema<unknown, ErrorFrame>;

export const SERVER_FRAME_SCHEMAS = {
  subscribed: subscribedFrameSchema,
  assigned: assignedFrameSchema,
  records: recordsFrameSchema,
  acked: ackedFrameSchema,
  revoked: revokedFrameSchema,
  unsubscribed: unsubscribedFrameSchema,
  produced: producedFrameSchema,
  transacted: transactedFrameSchema,
  ok: okFrameSchema,
  ping: pingFrameSchema,
  draining: drainingFrameSchema,
  error: errorFrameSchema,
} satisfies {
  readonly [T in ServerFrame["type"]]: v.GenericSchema<unknown, Extract<ServerFrame, { type: T }>>;
};

// ── answers over HTTP ────────────────────────────────────────────────────────────────────────────────────

/** application/problem+json; the facts of each code stand beside these members. */
export const problemSchema = v.looseObject({
  status: integer(400, 599),
  code: errorCode,
  detail: v.string(),
  retriable: v.boolean(),
});

const topicSummary = { topic: name, topicId: offset, partitionCount: integer(1, INTEGER_MAX) };

export const topicListSchema = v.strictObject({
  topics: v.array(v.strictObject(topicSummary)),
}) satisfies v.GenericSchema<unknown, TopicList>;

const limit = integer(0, INTEGER_MAX);

export const topicDescriptionSchema = v.strictObject({
  ...topicSummary,
  partitions: v.array(
    v.strictObject({
      partition: offset,
      logStartOffset: offset,
      logEndOffset: offset,
      records: offset,
      bytes: offset,
    }),
  ),
  retention: v.nullable(
    v.strictObject({ ms: v.optional(limit), bytes: v.optional(limit), records: v.optional(limit) }),
  ),
  cleanup: v.picklist(["delete", "compact"]),
  compaction: v.nullable(v.strictObject({ minLagMs: v.optional(limit), tombstoneMs: v.optional(limit) })),
  schema: v.nullable(v.union([v.boolean(), v.looseObject({})])),
  createdAt: timestampMs,
}) satisfies v.GenericSchema<unknown, TopicDescription>;

export const produceAnswerSchema = v.strictObject(produced);

export const transactAnswerSchema = v.strictObject(transacted);

export const producerSchema = v.strictObject({
  id: name,
  epoch: integer(0, INTEGER_MAX),
}) satisfies v.GenericSchema<unknown, ProducerEpoch>;

export const fetchAnswerSchema = v.strictObject({
  topicId: offset,
  records: v.array(deliveredRecordSchema),
  next: offset,
  logStartOffset: offset,
  logEndOffset: offset,
}) satisfies v.GenericSchema<unknown, Fetched>;

export const deleteRecordsAnswerSchema = v.strictObject({
  topic: name,
  topicId: offset,
  partition: offset,
  logStartOffset: offset,
  logEndOffset: offset,
}) satisfies v.GenericSchema<unknown, PartitionBounds>;

export const groupListSchema = v.strictObject({
  groups: v.array(v.strictObject({ group: name, members: offset, lag: v.nullable(offset) })),
}) satisfies v.GenericSchema<unknown, GroupList>;

export const groupDescriptionSchema = v.strictObject({
  group: name,
  members: v.array(
    v.strictObject({
      memberId: v.string(),
      instanceId: v.nullable(name),
      topics: v.array(name),
      partitions: v.array(v.strictObject({ topic: name, partition: offset, generation })),
      leaseExpiresAt: timestampMs,
    }),
  ),
  offsets: v.array(
    v.strictObject({
      topic: name,
      partition: offset,
      committedOffset: v.nullable(offset),
      logStartOffset: offset,
      logEndOffset: offset,
      lag: v.nullable(offset),
      memberId: v.nullable(v.string()),
      metadata: v.nullable(metadata),
      committedAt: v.nullable(timestampMs),
    }),
  ),
}) satisfies v.GenericSchema<unknown, GroupDescription>;

export const committedOffsetsAnswerSchema = v.strictObject({
  offsets: v.array(ackedEntrySchema),
}) satisfies v.GenericSchema<unknown, CommittedOffsets>;

export const readinessSchema = v.strictObject({
  status: v.literal("ready"),
  durability: v.picklist(["fsync", "relaxed"]),
  schemaVersion: offset,
}) satisfies v.GenericSchema<unknown, Readiness>;

export const livenessSchema = v.strictObject({ status: v.literal("alive") });

export const resetAnswerSchema = v.strictObject({
  plan: v.array(v.strictObject({ topic: name, partition: offset, from: v.nullable(offset), to: offset })),
  applied: v.boolean(),
}) satisfies v.GenericSchema<unknown, ResetPlan>;
