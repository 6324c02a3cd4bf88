// One produce, from checked records to runs: find the topic, then partition, append, wake. Two steps, so that a socket
// can keep its produces in order: appendTo() has submitted its records when it returns.

import {
  type AppendedRun,
  partitionRecords,
  requirePartitions,
  runsWithOffsets,
} from "../core/partitioner.ts";
import type { Chance } from "../core/ports.ts";
import type { NewRecord } from "../core/produce-request.ts";
import { appendRecords } from "../store/records.ts";
import type { TimeIndexCadence } from "../store/time-index.ts";
import type { Topic } from "../store/topic-tables.ts";
import { DEFAULT_PARTITION_COUNT, type Topics, unknownTopic } from "../store/topics.ts";
import type { WriteQueue } from "../store/write-queue.ts";
import type { WakeUps } from "./wake-ups.ts";

export interface ProduceDeps {
  readonly topics: Topics;
  readonly queue: WriteQueue;
  readonly wakeUps: WakeUps;
  readonly timeIndexCadence: TimeIndexCadence;
  readonly chance: Chance;
}

/**
 * Resolves when every record is durable, all in one transaction. Rejects with a Problem; only `outcome_unknown` may
 * have been written.
 */
export async function produce(
  deps: ProduceDeps,
  topicName: string,
  records: readonly NewRecord[],
): Promise<readonly AppendedRun[]> {
  return appendTo(deps, await findTarget(deps, topicName, records), records);
}

/** The topic, created where first use does that; records that it could not take create none. */
export async function findTarget(
  { topics }: Pick<ProduceDeps, "topics">,
  topicName: string,
  records: readonly NewRecord[],
): Promise<Topic> {
  const remembered = await topics.find(topicName);
  if (!remembered && !topics.createsOnFirstUse) throw unknownTopic(topicName);
  // Another process may have given it more partitions.
  const known = hasPartitions(remembered, records)
    ? remembered
    : await topics.findAgain({ topic: topicName });
  const partitionCount = known?.partitionIds.length ?? DEFAULT_PARTITION_COUNT;
  requirePartitions(records, { topic: topicName, partitionCount });
  return known ?? topics.require(topicName);
}

function hasPartitions(topic: Topic | undefined, records: readonly NewRecord[]): boolean {
  const partitionCount = topic?.partitionIds.length ?? DEFAULT_PARTITION_COUNT;
  return records.every(({ partition }) => partition === null || partition < partitionCount);
}

/** Where the topic is gone, another process has deleted it: it is found, or created, once more. */
export async function appendTo(
  deps: ProduceDeps,
  topic: Topic,
  records: readonly NewRecord[],
): Promise<readonly AppendedRun[]> {
  const runs = await appendOnce(deps, topic, records);
  if (runs) return runs;
  await deps.topics.findAgain(topic);
  const current = await findTarget(deps, topic.topic, records);
  const runsAgain = await appendOnce(deps, current, records);
  if (!runsAgain) throw unknownTopic(topic.topic);
  return runsAgain;
}

/** Undefined, nothing written, where the topic is gone. */
async function appendOnce(
  { queue, wakeUps, timeIndexCadence, chance }: ProduceDeps,
  topic: Topic,
  records: readonly NewRecord[],
): Promise<readonly AppendedRun[] | undefined> {
  const stickyPartition = Math.floor(chance.random() * topic.partitionIds.length);
  const batch = partitionRecords(records, {
    topic: topic.topic,
    partitionCount: topic.partitionIds.length,
    stickyPartition,
  });
  const appended = await queue.submit(appendRecords(topic, batch.partitions, timeIndexCadence));
  if (!appended) return undefined;
  for (const { partitionId, logEndOffset } of appended) wakeUps.notify(partitionId, logEndOffset);
  return runsWithOffsets(batch.runs, new Map(appended.map(({ partition, offset }) => [partition, offset])));
}
