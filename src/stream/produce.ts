// One produce, from checked records to runs: partition, append, wake.

import { type AppendedRun, partitionRecords, runsWithOffsets } from "../core/partitioner.ts";
import type { Chance } from "../core/ports.ts";
import type { NewRecord } from "../core/produce-request.ts";
import { appendRecords } from "../store/records.ts";
import type { TimeIndexCadence } from "../store/time-index.ts";
import { DEFAULT_PARTITION_COUNT, type Topic, type Topics, unknownTopic } from "../store/topics.ts";
import type { WriteQueue } from "../store/write-queue.ts";
import type { WakeUps } from "./wake-ups.ts";

export interface ProduceDeps {
  readonly topics: Topics;
  readonly queue: WriteQueue;
  readonly wakeUps: WakeUps;
  readonly timeIndexCadence: TimeIndexCadence;
  readonly chance: Chance;
}

/** Resolves when every record is durable, all in one transaction. Rejects with a Problem, and then none was written. */
export async function produce(
  { topics, queue, wakeUps, timeIndexCadence, chance }: ProduceDeps,
  topicName: string,
  records: readonly NewRecord[],
): Promise<readonly AppendedRun[]> {
  const topic = (await topics.find(topicName)) ?? (await createFor(topics, topicName, records));
  const stickyPartition = Math.floor(chance.random() * topic.partitionIds.length);
  const batch = partitionRecords(records, { partitionCount: topic.partitionIds.length, stickyPartition });
  const appended = await queue.submit(appendRecords(topic, batch.partitions, timeIndexCadence));
  if (!appended) throw unknownTopic(topicName);
  for (const { partitionId, logEndOffset } of appended) wakeUps.notify(partitionId, logEndOffset);
  return runsWithOffsets(batch.runs, new Map(appended.map(({ partition, offset }) => [partition, offset])));
}

/** Records that the new topic could not take create none. */
function createFor(topics: Topics, topicName: string, records: readonly NewRecord[]): Promise<Topic> {
  if (!topics.createsOnFirstUse) throw unknownTopic(topicName);
  partitionRecords(records, { partitionCount: DEFAULT_PARTITION_COUNT, stickyPartition: 0 });
  return topics.require(topicName);
}
