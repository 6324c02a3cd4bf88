// What a reader reads: the partitions of its topics with their bounds. It has no group, so nothing else is known of it.

import type { ReadablePartition } from "../core/readers.ts";
import { type Db, numberColumn } from "./db.ts";

const READ_PARTITIONS = `
  SELECT t.topic, t.topic_id, p.partition, p.partition_id, p.log_start_offset, p.log_end_offset
  FROM json_each(:topics) AS wanted
  JOIN topics AS t ON t.topic = wanted.value
  JOIN partitions AS p ON p.topic_id = t.topic_id
  ORDER BY wanted.key, p.partition`;

/** Every partition of the topics that exist, from one snapshot. */
export async function readPartitions(
  db: Db,
  topics: readonly string[],
): Promise<readonly ReadablePartition[]> {
  const rows = await db.read({ sql: READ_PARTITIONS, args: { topics: JSON.stringify(topics) } });
  return rows.map((row) => ({
    topic: String(row.topic),
    topicId: numberColumn(row, "topic_id"),
    partition: numberColumn(row, "partition"),
    partitionId: numberColumn(row, "partition_id"),
    logStartOffset: numberColumn(row, "log_start_offset"),
    logEndOffset: numberColumn(row, "log_end_offset"),
  }));
}
