// Reads groups, each whole: what every decision about them is made from. What is written is in groups.ts.

import type { GroupPicture } from "../core/group-picture.ts";
import { type Db, numberColumn, type Row, type Statement } from "./db.ts";

/** Of 4 KiB at most. */
const METADATA_PER_READ_MAX = 500;

// One statement for all that ask at the same time. Of each group version, members, owners and offsets are of one moment.
// sqld parses no ORDER BY in an aggregate, so group_concat takes its rows from a subquery that is in order.
const READ_PICTURES = `
  SELECT
    asked.value ->> 0 AS group_id,
    coalesce((SELECT version FROM groups WHERE group_id = asked.value ->> 0), 0) AS version,
    clock.now_ms,
    (SELECT group_concat(member) FROM (
       SELECT json_object(
                'memberId', m.member_id, 'membership', m.membership, 'instanceId', m.instance_id,
                'processId', m.process_id,
                'topics', json(m.topics), 'policies', json(m.policies),
                'expiresInMs', l.expires_at - clock.now_ms) AS member
       FROM members AS m
       JOIN member_leases AS l ON l.group_id = m.group_id AND l.member_id = m.member_id
       WHERE m.group_id = asked.value ->> 0
       ORDER BY m.member_id)) AS members,
    (SELECT group_concat(partition) FROM (
       SELECT json_object(
                'topic', t.topic, 'topicId', t.topic_id,
                'partition', p.partition, 'partitionId', p.partition_id,
                'logStartOffset', p.log_start_offset, 'logEndOffset', p.log_end_offset,
                'committedOffset', c.committed_offset,
                'hasMetadata', json(iif(c.metadata IS NULL, 'false', 'true')),
                'owner', CASE WHEN a.member_id IS NOT NULL THEN json_object(
                  'memberId', a.member_id, 'generation', a.generation,
                  'revokeInMs', a.revoke_deadline - clock.now_ms, 'reset', json(a.reset)) END,
                'partitionsSeen', coalesce(g.partitions_seen, 0), 'topicIdSeen', g.topic_id) AS partition
       FROM topics AS t
       JOIN partitions AS p ON p.topic_id = t.topic_id
       LEFT JOIN group_topics AS g ON g.group_id = asked.value ->> 0 AND g.topic = t.topic
       LEFT JOIN assignments AS a ON a.group_id = asked.value ->> 0 AND a.partition_id = p.partition_id
       LEFT JOIN committed_offsets AS c ON c.group_id = asked.value ->> 0 AND c.partition_id = p.partition_id
       WHERE t.topic IN (
         SELECT named.value FROM json_each(asked.value, '$[1]') AS named
         UNION
         SELECT subscribed.value FROM members AS m, json_each(m.topics) AS subscribed
         WHERE m.group_id = asked.value ->> 0)
       ORDER BY t.topic, p.partition)) AS partitions
  FROM json_each(:asked) AS asked, clock
  ORDER BY asked.key`;

export interface GroupQuestion {
  readonly group: string;
  /** Beside those that its members subscribe to. */
  readonly topics: readonly string[];
}

/** One picture for each, in order, also of a group that is not there. */
export async function readGroups(db: Db, asked: readonly GroupQuestion[]): Promise<readonly GroupPicture[]> {
  return (await db.read(pictureStatement(asked))).map(pictureOf);
}

/** For whoever wants the pictures beside something else; pictureOf() reads its rows. */
export function pictureStatement(asked: readonly GroupQuestion[]): Statement {
  const pairs = asked.map(({ group, topics }) => [group, topics]);
  return { sql: READ_PICTURES, args: { asked: JSON.stringify(pairs) } };
}

export function pictureOf(row: Row): GroupPicture {
  return {
    group: String(row.group_id),
    version: numberColumn(row, "version"),
    nowMs: numberColumn(row, "now_ms"),
    members: listColumn(row, "members"),
    partitions: listColumn(row, "partitions"),
  };
}

/** What the statement above has put together: the elements of a JSON array. */
function listColumn<T>(row: Row, column: string): readonly T[] {
  return JSON.parse(`[${row[column] ?? ""}]`);
}

// ── what is told with a partition that is gained ─────────────────────────────────────────────────────────

const READ_METADATA = `
  SELECT partition_id, metadata FROM committed_offsets
  WHERE group_id = :group_id AND partition_id IN (SELECT value FROM json_each(:partition_ids))
    AND metadata IS NOT NULL`;

/** By partition id. */
export async function readMetadata(
  db: Db,
  group: string,
  partitionIds: readonly number[],
): Promise<ReadonlyMap<number, string>> {
  const metadata = new Map<number, string>();
  for (let first = 0; first < partitionIds.length; first += METADATA_PER_READ_MAX) {
    const ids = JSON.stringify(partitionIds.slice(first, first + METADATA_PER_READ_MAX));
    const rows = await db.read({ sql: READ_METADATA, args: { group_id: group, partition_ids: ids } });
    for (const row of rows) metadata.set(numberColumn(row, "partition_id"), String(row.metadata));
  }
  return metadata;
}
