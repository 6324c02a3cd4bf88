// Deletes a topic, in one transaction that hides all of it at once: rows of `topics`, `partitions`, `assignments` and
// `committed_offsets` go, beside the modules that own them. The records may be millions: their partitions are noted in
// `purges`, and purges.ts deletes them afterwards.
//
// Every group that has to do with the topic gets a new version, so a join that was planned before does nothing. What
// groups have seen of the topic stays in `group_topics`: a topic created anew starts a known group at its beginning.

import { numberColumn } from "./db.ts";
import type { Operation } from "./operations.ts";

const TOPIC_PARTITIONS = `
  SELECT p.partition_id FROM topics AS t JOIN partitions AS p ON p.topic_id = t.topic_id WHERE t.topic = :topic`;

const IS_THERE = "EXISTS (SELECT 1 FROM topics WHERE topic = :topic)";

const CHANGE_GROUPS = `
  UPDATE groups SET version = (SELECT last + 1 FROM sequence)
  WHERE ${IS_THERE} AND group_id IN (
    SELECT group_id FROM group_topics WHERE topic = :topic
    UNION SELECT group_id FROM assignments WHERE partition_id IN (${TOPIC_PARTITIONS})
    UNION SELECT group_id FROM committed_offsets WHERE partition_id IN (${TOPIC_PARTITIONS}))`;

// Where no group was changed a number is lost, which is no harm.
const ADVANCE_SEQUENCE = `UPDATE sequence SET last = last + 1 WHERE ${IS_THERE}`;

const DELETE_ASSIGNMENTS = `DELETE FROM assignments WHERE partition_id IN (${TOPIC_PARTITIONS})`;

const DELETE_COMMITTED_OFFSETS = `DELETE FROM committed_offsets WHERE partition_id IN (${TOPIC_PARTITIONS})`;

const NOTE_PURGES = `
  INSERT INTO purges (partition_id)
  SELECT p.partition_id FROM topics AS t JOIN partitions AS p ON p.topic_id = t.topic_id
  WHERE t.topic = :topic AND p.log_end_offset > 0`;

const DELETE_PARTITIONS = `
  DELETE FROM partitions WHERE topic_id = (SELECT topic_id FROM topics WHERE topic = :topic)
  RETURNING partition_id`;

const DELETE_TOPIC = "DELETE FROM topics WHERE topic = :topic RETURNING topic_id";

/** Settles to the ids of the partitions that went; to undefined, nothing written, where there is no such topic. */
export function deleteTopic(topic: string): Operation<readonly number[] | undefined> {
  const order = [
    CHANGE_GROUPS,
    ADVANCE_SEQUENCE,
    DELETE_ASSIGNMENTS,
    DELETE_COMMITTED_OFFSETS,
    NOTE_PURGES,
    DELETE_PARTITIONS,
    DELETE_TOPIC,
  ];
  return {
    statements: order.map((sql) => ({ sql, args: { topic } })),
    bytes: topic.length,
    settle: (results) => {
      const [partitions = [], topics = []] = results.slice(-2);
      if (topics.length === 0) return undefined;
      return partitions.map((row) => numberColumn(row, "partition_id"));
    },
  };
}
