// What the log holds, asked of a server: for the history, so that a checker can compare it with what clients were told.

import { COMPACTED } from "../life/topics.ts";
import type { EventOf, LogRef } from "../proof/history.ts";
import { HttpClient } from "../support/http-client.ts";
import { type Journal, seenRecords } from "./journal.ts";

const GROUPS = ["copying", "acking"];
const READ = "limit=10000&maxBytes=4000000";

export interface LogBounds extends LogRef {
  readonly logStartOffset: number;
  readonly logEndOffset: number;
}

export async function takeSnapshot(url: string, journal: Journal): Promise<void> {
  const logs = await readBounds(url);
  const committed: (LogRef & { group: string; offset: number })[] = [];
  for (const group of GROUPS)
    for (const { topic, partition, committedOffset } of await readOffsets(url, group)) {
      const log = logs.find((each) => each.topic === topic && each.partition === partition);
      if (log && committedOffset !== null)
        committed.push({ group, topic, topicId: log.topicId, partition, offset: committedOffset });
    }
  journal.add({ type: "snapshot", logs, committed, owners: [], resets: [] });
}

export async function readEnds(url: string, topics: readonly string[]): Promise<readonly LogBounds[]> {
  return (await readBounds(url)).filter(({ topic }) => topics.includes(topic));
}

export async function readLogs(url: string): Promise<readonly EventOf<"log">[]> {
  const bounds = await readBounds(url);
  const dense = bounds.filter(({ topic }) => topic !== COMPACTED.topic); // that one is judged by rules of its own
  return Promise.all(dense.map(async (log) => ({ type: "log", ...log, records: await readLog(url, log) })));
}

async function readBounds(url: string): Promise<readonly LogBounds[]> {
  const { topics } = await get(url, "/v1/topics");
  const found: LogBounds[] = [];
  for (const { topic, topicId } of topics) {
    const { partitions } = await get(url, `/v1/topics/${topic}`);
    for (const { partition, logStartOffset, logEndOffset } of partitions)
      found.push({ topic, topicId, partition, logStartOffset, logEndOffset });
  }
  return found;
}

async function readOffsets(
  url: string,
  group: string,
): Promise<readonly { topic: string; partition: number; committedOffset: number | null }[]> {
  const answer = await new HttpClient({ url }).call("GET", `/v1/groups/${group}`);
  return answer.status === 404 ? [] : answer.body.offsets;
}

async function readLog(url: string, { topic, partition, logStartOffset, logEndOffset }: LogBounds) {
  const records: { offset: number; value: string }[] = [];
  for (let from = logStartOffset; from < logEndOffset; ) {
    const path = `/v1/topics/${topic}/partitions/${partition}/records?from=${from}&${READ}`;
    const answer = await get(url, path);
    records.push(...seenRecords(answer.records));
    from = answer.next;
  }
  return records;
}

async function get(url: string, path: string) {
  const { status, body } = await new HttpClient({ url }).call("GET", path);
  if (status !== 200) throw new Error(`GET ${path}: ${status} ${JSON.stringify(body)}`);
  return body;
}
