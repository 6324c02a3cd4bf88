import type { Context, Hono } from "hono";
import {
  FETCH_BYTES_DEFAULT,
  FETCH_BYTES_MAX,
  FETCH_RECORDS_DEFAULT,
  FETCH_RECORDS_MAX,
  FETCH_WAIT_MAX_MS,
} from "../protocol/limits.ts";
import type { Chunk } from "../store/records.ts";
import type { Topic } from "../store/topic-tables.ts";
import { DEFAULT_PARTITION_COUNT } from "../store/topic-tables.ts";
import { type Topics, unknownTopic } from "../store/topics.ts";
import { usePartition } from "../stream/topic-partition.ts";
import type { AppDeps, AppEnv } from "./app.ts";
import { integerParam, nameParam, partitionParam, placeParam, refuseOtherParameters } from "./parameters.ts";

export function addFetchRoute(app: Hono<AppEnv>, { topics, fetches }: AppDeps): void {
  app.get("/v1/topics/:topic/partitions/:partition/records", async (c) => {
    const name = nameParam(c, "topic");
    const partition = partitionParam(c);
    const parameters = fetchParameters(c);
    const known = (await topics.find(name)) ?? (await createFor(topics, name, partition));
    const request = { topic: name, ...parameters, signal: c.req.raw.signal };
    const { topic, result } = await usePartition(topics, known, {
      partition,
      use: (partitionId) => fetches.fetch({ partitionId, ...request }),
    });
    return c.body(answerText(topic, result), 200, { "content-type": "application/json" });
  });
}

function fetchParameters(c: Context<AppEnv>) {
  refuseOtherParameters(c, ["from", "limit", "maxBytes", "waitMs"]);
  return {
    from: placeParam(c, "from", "earliest"),
    recordsMax: integerParam(c, "limit", { min: 1, max: FETCH_RECORDS_MAX, fallback: FETCH_RECORDS_DEFAULT }),
    bytesMax: integerParam(c, "maxBytes", { min: 1, max: FETCH_BYTES_MAX, fallback: FETCH_BYTES_DEFAULT }),
    waitMs: integerParam(c, "waitMs", { min: 0, max: FETCH_WAIT_MAX_MS, fallback: 0 }),
  };
}

/** A read of a partition that the new topic would not have creates none. */
function createFor(topics: Topics, name: string, partition: number): Promise<Topic> {
  if (partition >= DEFAULT_PARTITION_COUNT) throw unknownTopic(name);
  return topics.require(name);
}

/** The records are text already: no object is made of any. */
function answerText({ topicId }: Topic, { records, next, logStartOffset, logEndOffset }: Chunk): string {
  return `{"topicId":${topicId},"records":[${records}],"next":${next},"logStartOffset":${logStartOffset},"logEndOffset":${logEndOffset}}`;
}
