// What OpenAPI says of each route that is served; a test fails for one that is missing here. Loaded when somebody asks.

import type { DescribeRouteOptions } from "hono-openapi";
import type { ErrorCode } from "../protocol/codes.ts";
import { ERROR_CODES } from "../protocol/codes.ts";
import {
  BATCH_BYTES_MAX,
  BATCH_RECORDS_MAX,
  FETCH_BYTES_DEFAULT,
  FETCH_BYTES_MAX,
  FETCH_RECORDS_DEFAULT,
  FETCH_RECORDS_MAX,
  FETCH_WAIT_MAX_MS,
  INTEGER_MAX,
} from "../protocol/limits.ts";
import {
  groupOffsetsSchema,
  nameSchema,
  produceRequestSchema,
  resetRequestSchema,
  topicSettingsSchema,
  transactRequestSchema,
} from "../protocol/schemas/client.ts";
import {
  committedOffsetsAnswerSchema,
  deleteRecordsAnswerSchema,
  fetchAnswerSchema,
  groupDescriptionSchema,
  groupListSchema,
  livenessSchema,
  problemSchema,
  produceAnswerSchema,
  producerSchema,
  readinessSchema,
  resetAnswerSchema,
  topicDescriptionSchema,
  topicListSchema,
  transactAnswerSchema,
} from "../protocol/schemas/server.ts";
import { describeStreamQuery, PLACE_TEXT } from "./stream-query.ts";

/** What a client sends, by its name among the components. */
export const REQUEST_SCHEMAS = {
  Name: nameSchema,
  TopicSettings: topicSettingsSchema,
  ProduceRequest: produceRequestSchema,
  TransactRequest: transactRequestSchema,
  GroupOffsets: groupOffsetsSchema,
  GroupReset: resetRequestSchema,
};

/** What the server answers. */
export const ANSWER_SCHEMAS = {
  Problem: problemSchema,
  Topics: topicListSchema,
  Topic: topicDescriptionSchema,
  Produced: produceAnswerSchema,
  Transacted: transactAnswerSchema,
  Producer: producerSchema,
  Fetched: fetchAnswerSchema,
  LogBounds: deleteRecordsAnswerSchema,
  Groups: groupListSchema,
  Group: groupDescriptionSchema,
  CommittedOffsets: committedOffsetsAnswerSchema,
  ResetPlan: resetAnswerSchema,
  Readiness: readinessSchema,
  Liveness: livenessSchema,
};

type RequestName = keyof typeof REQUEST_SCHEMAS;
type AnswerName = keyof typeof ANSWER_SCHEMAS;
type Answers = NonNullable<DescribeRouteOptions["responses"]>;
type Parameter = NonNullable<DescribeRouteOptions["parameters"]>[number];

/** Beside those of the route: what any request may meet. */
const ANY: readonly ErrorCode[] = ["bad_request", "internal"];
const READ: readonly ErrorCode[] = [...ANY, "forbidden", "unavailable"];
const WRITE: readonly ErrorCode[] = [...READ, "outcome_unknown", "storage_full"];
const APPEND: readonly ErrorCode[] = [
  "unknown_topic",
  "unknown_partition",
  "batch_too_large",
  "record_too_large",
  "schema_violation",
  "conflict",
  "fenced_producer",
  "sequence_gap",
];

// ── the routes ───────────────────────────────────────────────────────────────────────────────────────────

/** By method and path. */
export const ROUTE_DESCRIPTIONS: ReadonlyMap<string, DescribeRouteOptions> = new Map(
  Object.entries({
    "GET /healthz": {
      operationId: "isAlive",
      summary: "Whether the process is alive",
      tags: ["server"],
      responses: { 200: answer("Alive", "Liveness"), ...problems(ANY) },
    },
    "GET /readyz": {
      operationId: "isReady",
      summary: "Whether the database can be read, and what it promises",
      tags: ["server"],
      responses: { 200: answer("Ready", "Readiness"), ...problems([...ANY, "unavailable"]) },
    },
    "GET /openapi.json": {
      operationId: "describeHttp",
      summary: "This description",
      tags: ["server"],
      responses: { 200: anyJson("OpenAPI 3.1"), ...problems(ANY) },
    },
    "GET /asyncapi.json": {
      operationId: "describeStream",
      summary: "The description of /v1/stream",
      tags: ["server"],
      responses: { 200: anyJson("AsyncAPI 3.0"), ...problems(ANY) },
    },

    "PUT /v1/topics/:topic": {
      operationId: "putTopic",
      summary: "Create a topic, or see that it is there",
      tags: ["topics"],
      parameters: [nameInPath("topic")],
      requestBody: jsonBody("TopicSettings", { required: false }),
      responses: {
        200: answer("It was there", "Topic"),
        201: answer("It was created", "Topic"),
        ...problems([...WRITE, "conflict", "batch_too_large"]),
      },
    },
    "GET /v1/topics": {
      operationId: "listTopics",
      summary: "All topics",
      tags: ["topics"],
      responses: { 200: answer("The topics, by name", "Topics"), ...problems(READ) },
    },
    "GET /v1/topics/:topic": {
      operationId: "getTopic",
      summary: "One topic with its partitions",
      tags: ["topics"],
      parameters: [nameInPath("topic")],
      responses: { 200: answer("The topic", "Topic"), ...problems([...READ, "unknown_topic"]) },
    },
    "DELETE /v1/topics/:topic": {
      operationId: "deleteTopic",
      summary: "Delete a topic, its records and what groups have committed in it",
      tags: ["topics"],
      parameters: [nameInPath("topic")],
      responses: { 204: { description: "It is gone" }, ...problems([...WRITE, "unknown_topic"]) },
    },

    "POST /v1/topics/:topic/records": {
      operationId: "produce",
      summary: "Append records: all of them or none, and durable when it is answered",
      description: `At most ${BATCH_RECORDS_MAX} records and ${BATCH_BYTES_MAX} bytes.`,
      tags: ["records"],
      parameters: [
        nameInPath("topic"),
        inQuery("key", { type: "string" }, "With NDJSON: a JSON pointer to the key in each value"),
      ],
      requestBody: {
        required: true,
        content: { ...jsonBody("ProduceRequest").content, ...ndjsonContent() },
      },
      responses: {
        200: answer("Where the records are, in the order of the request", "Produced"),
        ...problems([...WRITE, ...APPEND]),
      },
    },
    "POST /v1/transactions": {
      operationId: "transact",
      summary: "Append to several topics and commit offsets of a group: all of it or nothing",
      description: `At most ${BATCH_RECORDS_MAX} records and ${BATCH_BYTES_MAX} bytes; nothing of it is visible before all of it is durable.`,
      tags: ["records"],
      requestBody: jsonBody("TransactRequest"),
      responses: {
        200: answer("Where the records are, in the order of the request", "Transacted"),
        ...problems([...WRITE, ...APPEND, "fenced_generation", "offset_out_of_range"]),
      },
    },
    "POST /v1/producers/:producer": {
      operationId: "raiseEpoch",
      summary: "Give a producer a new epoch, and fence whoever goes on in an older one",
      tags: ["records"],
      parameters: [nameInPath("producer")],
      responses: { 200: answer("Its sequences start at 0", "Producer"), ...problems([...WRITE, "conflict"]) },
    },
    "GET /v1/topics/:topic/partitions/:partition/records": {
      operationId: "fetch",
      summary: "Read records, or wait for them; commits nothing",
      tags: ["records"],
      parameters: [
        nameInPath("topic"),
        partitionInPath(),
        inQuery("from", { ...PLACE_TEXT, default: "earliest" }, "Where to read from"),
        inQuery(
          "limit",
          { ...integer(1, FETCH_RECORDS_MAX), default: FETCH_RECORDS_DEFAULT },
          "At most so many records",
        ),
        inQuery(
          "maxBytes",
          { ...integer(1, FETCH_BYTES_MAX), default: FETCH_BYTES_DEFAULT },
          "At most so many bytes, or one larger record",
        ),
        inQuery(
          "waitMs",
          { ...integer(0, FETCH_WAIT_MAX_MS), default: 0 },
          "How long to wait where there are none",
        ),
      ],
      responses: {
        200: answer("The records, and where to read on", "Fetched"),
        ...problems([...WRITE, "unknown_topic", "unknown_partition", "offset_out_of_range"]),
      },
    },
    "DELETE /v1/topics/:topic/partitions/:partition/records": {
      operationId: "deleteRecords",
      summary: "Delete the records below an offset: the log starts there",
      tags: ["records"],
      parameters: [
        nameInPath("topic"),
        partitionInPath(),
        { ...inQuery("before", integer(0, INTEGER_MAX), "The log start offset to come"), required: true },
      ],
      responses: {
        200: answer("Where the log starts and ends now", "LogBounds"),
        ...problems([...WRITE, "unknown_topic", "unknown_partition", "offset_out_of_range"]),
      },
    },

    "GET /v1/groups": {
      operationId: "listGroups",
      summary: "All groups",
      tags: ["groups"],
      responses: { 200: answer("The groups, by name", "Groups"), ...problems(READ) },
    },
    "GET /v1/groups/:group": {
      operationId: "getGroup",
      summary: "One group with its members and offsets",
      tags: ["groups"],
      parameters: [nameInPath("group")],
      responses: { 200: answer("The group", "Group"), ...problems([...READ, "unknown_group"]) },
    },
    "DELETE /v1/groups/:group": {
      operationId: "deleteGroup",
      summary: "Delete a group that has no live members, with its history",
      tags: ["groups"],
      parameters: [nameInPath("group")],
      responses: { 204: { description: "It is gone" }, ...problems([...WRITE, "unknown_group", "conflict"]) },
    },
    "DELETE /v1/groups/:group/topics/:topic": {
      operationId: "forgetTopic",
      summary: "Forget a topic that the group left",
      tags: ["groups"],
      parameters: [nameInPath("group"), nameInPath("topic")],
      responses: {
        204: { description: "It is forgotten" },
        ...problems([...WRITE, "unknown_group", "unknown_topic", "conflict"]),
      },
    },
    "POST /v1/groups/:group/offsets": {
      operationId: "commitOffsets",
      summary: "Commit from outside, for a group without live members",
      tags: ["groups"],
      parameters: [nameInPath("group")],
      requestBody: jsonBody("GroupOffsets"),
      responses: {
        200: answer(
          "What is committed now, entry by entry; with a code where one had no effect",
          "CommittedOffsets",
        ),
        ...problems([...WRITE, "conflict", "batch_too_large"]),
      },
    },

    "POST /v1/groups/:group/reset": {
      operationId: "resetGroup",
      summary: "Move committed offsets to a place, or as a plan says; also while members are live",
      tags: ["groups"],
      parameters: [nameInPath("group")],
      requestBody: jsonBody("GroupReset"),
      responses: {
        200: answer("What was done, or with dryRun what would be", "ResetPlan"),
        ...problems([
          ...WRITE,
          "unknown_group",
          "unknown_topic",
          "unknown_partition",
          "conflict",
          "no_committed_offset",
          "offset_out_of_range",
          "batch_too_large",
        ]),
      },
    },

    "GET /v1/stream": {
      operationId: "stream",
      summary: "Consume and produce over WebSocket",
      description: "/asyncapi.json describes the frames. Query parameters stand for a first subscribe frame.",
      tags: ["records"],
      parameters: Object.entries(describeStreamQuery()).map(([name, schema]) =>
        inQuery(name, schema, `"${name === "topic" ? "topics" : name}" of the subscribe frame`),
      ),
      responses: {
        101: { description: "The stream is open" },
        ...problems(["bad_request", "internal", "forbidden"]),
        426: problem("The request is no WebSocket handshake", ["bad_request"]),
      },
    },
  } satisfies Readonly<Record<string, DescribeRouteOptions>>),
);

// ── what they are made of ────────────────────────────────────────────────────────────────────────────────

function reference(name: RequestName | AnswerName) {
  return { $ref: `#/components/schemas/${name}` };
}

function nameInPath(noun: "topic" | "group" | "producer"): Parameter {
  return { name: noun, in: "path", required: true, schema: reference("Name") };
}

function partitionInPath(): Parameter {
  return { name: "partition", in: "path", required: true, schema: integer(0, INTEGER_MAX) };
}

function inQuery(name: string, schema: object, description: string): Parameter {
  return { name, in: "query", description, schema };
}

function integer(minimum: number, maximum: number) {
  return { type: "integer", minimum, maximum } as const;
}

function jsonBody(name: RequestName, { required = true } = {}) {
  return { required, content: { "application/json": { schema: reference(name) } } };
}

/** Any of the names that NDJSON goes by. */
function ndjsonContent() {
  const types = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
  ];
  const schema = { type: "string", description: "One JSON value a line; blank lines are skipped." } as const;
  return Object.fromEntries(types.map((type) => [type, { schema }]));
}

function answer(description: string, name: AnswerName) {
  return { description, content: { "application/json": { schema: reference(name) } } };
}

function anyJson(description: string) {
  return { description, content: { "application/json": { schema: { type: "object" as const } } } };
}

/** One answer for each status that these codes have. */
function problems(codes: readonly ErrorCode[]): Answers {
  const codesByStatus = Map.groupBy(new Set(codes), (code) => ERROR_CODES[code].status);
  return Object.fromEntries(
    [...codesByStatus].map(([status, codes]) => [status, problem(codes.join(", "), codes)]),
  );
}

function problem(description: string, codes: readonly ErrorCode[]) {
  const isRetriable = codes.some((code) => ERROR_CODES[code].retriable);
  const retryAfter = { description: "In seconds", schema: { type: "string" as const } };
  return {
    description,
    ...(isRetriable && { headers: { "Retry-After": retryAfter } }),
    content: {
      "application/problem+json": {
        schema: { allOf: [reference("Problem"), { properties: { code: { enum: [...codes] } } }] },
      },
    },
  };
}
