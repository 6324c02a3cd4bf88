// The topics with a life that the crash tests write to: small limits, so that upkeep is at work all the time.

import { HttpClient } from "../support/http-client.ts";

/** Keeps the newest records. */
export const NEWEST = { topic: "newest", partitionCount: 2, retention: { records: 30 } };
/** Keeps what was appended of late. */
export const FRESH = { topic: "fresh", partitionCount: 2, retention: { ms: 1_000 } };
/** Keeps the newest record of each key. */
export const COMPACTED = {
  topic: "compacted",
  partitionCount: 2,
  cleanup: "compact",
  compaction: { tombstoneMs: 400 },
};
export const KEYS = 12;

export const RETAINED = [NEWEST.topic, FRESH.topic];
export const LIMITS = { [NEWEST.topic]: NEWEST.retention, [FRESH.topic]: FRESH.retention };

export async function createTopicsWithLife(url: string): Promise<void> {
  for (const { topic, ...settings } of [NEWEST, FRESH, COMPACTED]) await putTopic(url, topic, settings);
}

export async function putTopic(url: string, topic: string, settings: object): Promise<void> {
  const answer = await new HttpClient({ url }).call("PUT", `/v1/topics/${topic}`, settings);
  if (answer.status >= 300) throw new Error(`PUT ${topic}: ${JSON.stringify(answer)}`);
}
