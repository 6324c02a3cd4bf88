import type { Context, Hono } from "hono";
import { type NewRecord, parseJsonProduce, parseNdjsonProduce } from "../core/produce-request.ts";
import { topicSettingsSchema } from "../protocol/schemas.ts";
import { DEFAULT_PARTITION_COUNT, type TopicDescription, unknownTopic } from "../store/topics.ts";
import { produce } from "../stream/produce.ts";
import type { AppDeps, AppEnv } from "./app.ts";
import { checkBody, parseBodyObject, readBody, refusedBody } from "./body.ts";
import { nameParam, refuseOtherParameters } from "./parameters.ts";

const NDJSON_TYPES = new Set([
  "application/x-ndjson",
  "application/ndjson",
  "application/jsonl",
  "application/x-jsonlines",
]);
/** How errors call the body. */
const SETTINGS = "settings of the topic";
const NOT_BUILT_SETTINGS = new Set(["retention", "cleanup", "compaction", "schema"]);

export function addTopicRoutes(app: Hono<AppEnv>, deps: AppDeps): void {
  const { topics } = deps;

  app.put("/v1/topics/:topic", async (c) => {
    const topic = nameParam(c, "topic");
    refuseOtherParameters(c);
    const settings = parseSettings(await readBody(c.req.raw));
    const { isNew, ...description } = await topics.put(
      topic,
      settings.partitionCount === null ? DEFAULT_PARTITION_COUNT : settings.partitionCount,
    );
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

  app.post("/v1/topics/:topic/records", async (c) => {
    const topic = nameParam(c, "topic");
    const runs = await produce(deps, topic, parseRecords(c, await readBody(c.req.raw)));
    return c.json({ runs });
  });
}

function parseRecords(c: Context<AppEnv>, body: string): readonly NewRecord[] {
  const type = c.req.header("content-type")?.split(";")[0]?.trim().toLowerCase() ?? "";
  const isNdjson = NDJSON_TYPES.has(type);
  refuseOtherParameters(c, isNdjson ? ["key"] : [], {
    key: 'it goes with "content-type: application/x-ndjson"',
  });
  return isNdjson ? parseNdjsonProduce(body, c.req.query("key") ?? null) : parseJsonProduce(body);
}

function parseSettings(body: string): { readonly partitionCount?: number | null | undefined } {
  if (body.trim() === "") return {};
  const input = parseBodyObject(body, SETTINGS);
  const notBuilt = Object.keys(input).find((member) => NOT_BUILT_SETTINGS.has(member));
  if (notBuilt !== undefined) throw refusedBody(SETTINGS, `"${notBuilt}" is not built yet`);
  return checkBody(topicSettingsSchema, input, SETTINGS);
}

/** As every topic is until settings can be given: nothing expires, nothing is compacted, any value is taken. */
function topicBody({ createdAt, ...description }: TopicDescription) {
  return { ...description, retention: null, cleanup: "delete", compaction: null, schema: null, createdAt };
}
