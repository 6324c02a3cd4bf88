import type { Context, Hono } from "hono";
import { parseNdjsonProduce } from "../core/produce-request.ts";
import { parseProduceBody, producedRuns, produceOf, type Transaction } from "../core/transaction.ts";
import type { TopicDescription as TopicAnswer } from "../protocol/http.ts";
import { JSON_DEPTH_MAX } from "../protocol/limits.ts";
import { topicSettingsSchema } from "../protocol/schemas/client.ts";
import { DEFAULT_PARTITION_COUNT, type TopicDescription, type TopicSettings } from "../store/topic-tables.ts";
import { unknownTopic } from "../store/topics.ts";
import { requireJsonSchema } from "../stream/record-schemas.ts";
import { usePartition } from "../stream/topic-partition.ts";
import { transact } from "../stream/transact.ts";
import { trimLog } from "../stream/trim.ts";
import type { AppDeps, AppEnv } from "./app.ts";
import { checkBody, parseBodyObject, readBody } from "./body.ts";
import { nameParam, offsetParam, partitionParam, refuseOtherParameters } from "./parameters.ts";

const NDJSON_TYPES = new Set([
  "application/x-ndjson",
  "application/ndjson",
  "application/jsonl",
  "application/x-jsonlines",
]);
/** How errors call the body. */
const SETTINGS = "settings of the topic";
const NO_RETENTION = { ms: null, bytes: null, records: null };
const DEFAULT_COMPACTION = { minLagMs: null, tombstoneMs: null };

export function addTopicRoutes(app: Hono<AppEnv>, deps: AppDeps): void {
  const { topics, queue, upkeep } = deps;

  app.put("/v1/topics/:topic", async (c) => {
    const topic = nameParam(c, "topic");
    refuseOtherParameters(c);
    const { partitionCount, ...others } = await parseSettings(await readBody(c.req.raw));
    const { isNew, ...description } = await topics.put(topic, partitionCount, others);
    upkeep.wake();
    return c.json(topicBody(description), isNew ? 201 : 200);
  });

  app.get("/v1/topics", async (c) => {
    refuseOtherParameters(c);
    return c.json({ topics: await topics.list() });
  });

  app.get("/v1/topics/:topic", async (c) => {
    const topic = nameParam(c, "topic");
    refuseOtherParameters(c);
    const description = await topics.describe(topic);
    if (!description) throw unknownTopic(topic);
    return c.json(topicBody(description));
  });

  app.delete("/v1/topics/:topic", async (c) => {
    const topic = nameParam(c, "topic");
    refuseOtherParameters(c);
    await topics.delete(topic);
    return c.body(null, 204);
  });

  app.delete("/v1/topics/:topic/partitions/:partition/records", async (c) => {
    const name = nameParam(c, "topic");
    const partition = partitionParam(c);
    refuseOtherParameters(c, ["before"]);
    const before = offsetParam(c, "before");
    const known = await topics.find(name);
    if (!known) throw unknownTopic(name);
    const { topic, result } = await usePartition(topics, known, {
      partition,
      use: (partitionId) => trimLog(queue, { partitionId, before }),
    });
    return c.json({ topic: name, topicId: topic.topicId, partition, ...result });
  });

  app.post("/v1/topics/:topic/records", async (c) => {
    const topic = nameParam(c, "topic");
    const { runs, duplicate } = await transact(deps, parseProduce(c, topic, await readBody(c.req.raw)));
    return c.json({ runs: producedRuns(runs), duplicate });
  });
}

function parseProduce(c: Context<AppEnv>, topic: string, body: string): Transaction {
  const type = c.req.header("content-type")?.split(";")[0]?.trim().toLowerCase() ?? "";
  const isNdjson = NDJSON_TYPES.has(type);
  refuseOtherParameters(c, isNdjson ? ["key"] : [], {
    key: 'it goes with "content-type: application/x-ndjson"',
  });
  if (!isNdjson) return parseProduceBody(topic, body);
  return produceOf(topic, parseNdjsonProduce(body, c.req.query("key") ?? null));
}

/** What is absent stays as it is, and null is the default. */
async function parseSettings(body: string): Promise<TopicSettings> {
  const input = body.trim() === "" ? {} : parseBodyObject(body, SETTINGS, JSON_DEPTH_MAX);
  const { partitionCount, retention, cleanup, compaction, schema } = checkBody(
    topicSettingsSchema,
    input,
    SETTINGS,
  );
  if (schema !== undefined && schema !== null) await requireJsonSchema(schema);
  return {
    partitionCount: partitionCount === null ? DEFAULT_PARTITION_COUNT : partitionCount,
    retention: retention === null ? NO_RETENTION : retention,
    cleanup: cleanup === null ? "delete" : cleanup,
    compaction: compaction === null ? DEFAULT_COMPACTION : compaction,
    schema: schema === undefined || schema === null ? schema : JSON.stringify(schema),
  };
}

/** Of retention and compaction what was set; null where nothing was. */
function topicBody({
  createdAt,
  schema,
  retention,
  compaction,
  ...description
}: TopicDescription): TopicAnswer {
  const { partitions, cleanup, ...summary } = description;
  return {
    ...summary,
    partitions,
    retention: setOnly(retention),
    cleanup,
    compaction: setOnly(compaction),
    schema: schema === null ? null : JSON.parse(schema),
    createdAt,
  };
}

function setOnly<Name extends string>(
  limits: Readonly<Record<Name, number | null>>,
): Readonly<Partial<Record<Name, number>>> | null {
  const set = Object.entries(limits).filter(([, value]) => value !== null);
  return set.length === 0 ? null : (Object.fromEntries(set) as Partial<Record<Name, number>>); // of its own entries
}
