// Looks by whoever reads over HTTP: the bounds of all, and each compacted partition in one read.

import { HttpClient } from "../support/http-client.ts";
import { keyedRecord, type Look } from "./looks.ts";
import { COMPACTED, RETAINED } from "./topics.ts";

const READ = "from=earliest&limit=10000&maxBytes=4000000";

/** Rejects where the server does not answer. */
export async function lookOverHttp(url: string, { isAtRest = false } = {}): Promise<Look> {
  const fromMs = Date.now();
  const retained = (await Promise.all(RETAINED.map((topic) => readBounds(url, topic)))).flat();
  const partitions = Array.from({ length: COMPACTED.partitionCount }, (_, partition) => partition);
  const compacted = await Promise.all(partitions.map((partition) => readPartition(url, partition)));
  return { fromMs, atMs: Date.now(), isAtRest, retained, compacted };
}

async function readBounds(url: string, topic: string): Promise<Look["retained"]> {
  const { partitions } = await get(url, `/v1/topics/${topic}`);
  return partitions.map(({ partition, logStartOffset, logEndOffset }: Look["retained"][number]) => ({
    topic,
    partition,
    logStartOffset,
    logEndOffset,
  }));
}

async function readPartition(url: string, partition: number): Promise<Look["compacted"][number]> {
  const { topic } = COMPACTED;
  const path = `/v1/topics/${topic}/partitions/${partition}/records?${READ}`;
  const { logStartOffset, logEndOffset, records, next } = await get(url, path);
  if (next !== logEndOffset) throw new Error(`${topic}/${partition} does not fit into one read`);
  const seen = records.map((record: { offset: number; value: unknown }) => ({
    ...keyedRecord(record),
    offset: record.offset,
  }));
  return { topic, partition, logStartOffset, logEndOffset, records: seen };
}

async function get(url: string, path: string) {
  const { status, body } = await new HttpClient({ url }).call("GET", path);
  if (status !== 200) throw new Error(`GET ${path}: ${status} ${JSON.stringify(body)}`);
  return body;
}
