// One partition of a topic by name, for whoever reads or trims it: what is remembered of a topic may be out of date.

import { Problem } from "../core/problem.ts";
import type { Topic } from "../store/topic-tables.ts";
import { type Topics, unknownTopic } from "../store/topics.ts";

export interface PartitionUse<T> {
  readonly partition: number;
  /** Undefined where the partition is gone. */
  readonly use: (partitionId: number) => Promise<T | undefined>;
}

/**
 * Where the topic is not as it is remembered, another process has changed it: it is looked up once more, and used as it
 * is now.
 * Rejects with `unknown_partition` where the topic does not have it, `unknown_topic` where it is not there any more.
 */
export async function usePartition<T>(
  topics: Topics,
  topic: Topic,
  { partition, use }: PartitionUse<T>,
): Promise<{ readonly topic: Topic; readonly result: T }> {
  const partitionId = topic.partitionIds[partition];
  const result = partitionId === undefined ? undefined : await use(partitionId);
  if (result !== undefined) return { topic, result };
  const current = await topics.findAgain(topic);
  const again = current && (await use(partitionIdOf(current, partition)));
  if (!current || again === undefined) throw unknownTopic(topic.topic);
  return { topic: current, result: again };
}

function partitionIdOf({ topic, partitionIds }: Topic, partition: number): number {
  const partitionId = partitionIds[partition];
  if (partitionId !== undefined) return partitionId;
  const partitionCount = partitionIds.length;
  throw new Problem(
    "unknown_partition",
    `There is no partition ${partition} of topic "${topic}": its partitions are 0 to ${partitionCount - 1}`,
    { topic, partition, partitionCount },
  );
}
