// The query parameters of /v1/stream: a subscribe frame in a URL, see parseSubscribeQuery() in core/client-frame.ts.

import { INTEGER_MAX, TOPICS_PER_SUBSCRIPTION_MAX } from "../protocol/limits.ts";
import { subscribeFrameSchema } from "../protocol/schemas/client.ts";
import { describeSchema, type JsonSchema } from "./json-schema.ts";

/** As parsePlace() in core/places.ts reads it. */
export const PLACE_TEXT = {
  type: "string",
  pattern: "^(earliest|latest|@?(0|[1-9][0-9]{0,15}))$",
  description: `"earliest", "latest", an offset, or "@" and milliseconds since 1970; a number is at most ${INTEGER_MAX}.`,
} as const satisfies JsonSchema;

const POLICY_TEXT = {
  type: "string",
  pattern: "^(earliest|latest|none|@(0|[1-9][0-9]{0,15}))$",
  description: '"earliest", "latest", "none", or "@" and milliseconds since 1970.',
} as const satisfies JsonSchema;

const { subscription, group, instanceId, memberId, ack, sessionTimeoutMs, ackTimeoutMs } =
  subscribeFrameSchema.entries;

/** By name. `topic` is given once for each topic. */
export function describeStreamQuery(): Readonly<Record<string, JsonSchema>> {
  const topic = describeSchema(subscribeFrameSchema.entries.topics, "refused").items;
  const sameAsInFrame = { subscription, group, instanceId, memberId, ack, sessionTimeoutMs, ackTimeoutMs };
  const described = Object.entries(sameAsInFrame).map(([name, schema]) => [
    name,
    describeSchema(schema, "refused"),
  ]);
  return {
    topic: { type: "array", items: topic, minItems: 1, maxItems: TOPICS_PER_SUBSCRIPTION_MAX },
    id: { type: "string", maxLength: 249 },
    from: PLACE_TEXT,
    reset: POLICY_TEXT,
    ...Object.fromEntries(described),
  };
}
