// What an operator sees of groups: their members, offsets and lag. Only members whose lease has not run out count.
// Each answer is one statement, so that members, owners and offsets are of one moment. (sqld parses no ORDER BY in an
// aggregate, so group_concat takes its rows from a subquery that is in order.)

import type { GroupDescription, GroupSummary } from "../protocol/http.ts";
import { type Db, numberColumn, type Row } from "./db.ts";

const LIST_GROUPS = `
  SELECT g.group_id,
         (SELECT count(*) FROM member_leases AS l, clock
           WHERE l.group_id = g.group_id AND l.expires_at > clock.now_ms) AS members,
         (SELECT sum(l.lag) FROM consumer_lag AS l WHERE l.group_id = g.group_id) AS lag
  FROM groups AS g
  ORDER BY g.group_id`;

// The tables under consumer_lag and group_members: those have their times as text and owners whose lease is over.
const DESCRIBE_GROUP = `
  WITH live AS (
    SELECT m.member_id, m.instance_id, m.topics, l.expires_at
    FROM clock, members AS m
    JOIN member_leases AS l ON l.group_id = m.group_id AND l.member_id = m.member_id
    WHERE m.group_id = :group_id AND l.expires_at > clock.now_ms
  ),
  owned AS (
    SELECT a.member_id, a.generation, a.partition_id
    FROM assignments AS a JOIN live ON live.member_id = a.member_id
    WHERE a.group_id = :group_id
  )
  SELECT
    (SELECT group_concat(member) FROM (
       SELECT json_object(
                'memberId', live.member_id, 'instanceId', live.instance_id, 'topics', json(live.topics),
                'partitions', json('[' || coalesce((
                  SELECT group_concat(owned_partition) FROM (
                    SELECT json_object('topic', t.topic, 'partition', p.partition, 'generation', o.generation)
                             AS owned_partition
                    FROM owned AS o
                    JOIN partitions AS p ON p.partition_id = o.partition_id
                    JOIN topics AS t ON t.topic_id = p.topic_id
                    WHERE o.member_id = live.member_id
                    ORDER BY t.topic, p.partition)), '') || ']'),
                'leaseExpiresAt', live.expires_at) AS member
       FROM live
       ORDER BY live.member_id)) AS members,
    (SELECT group_concat(offset) FROM (
       SELECT json_object(
                'topic', t.topic, 'partition', p.partition,
                'committedOffset', c.committed_offset,
                'logStartOffset', p.log_start_offset, 'logEndOffset', p.log_end_offset,
                'lag', max(0, p.log_end_offset - max(c.committed_offset, p.log_start_offset)),
                'memberId', o.member_id, 'metadata', c.metadata, 'committedAt', c.committed_at) AS offset
       FROM group_topics AS g
       JOIN topics AS t ON t.topic = g.topic
       JOIN partitions AS p ON p.topic_id = t.topic_id
       LEFT JOIN committed_offsets AS c ON c.group_id = g.group_id AND c.partition_id = p.partition_id
       LEFT JOIN owned AS o ON o.partition_id = p.partition_id
       WHERE g.group_id = :group_id
       ORDER BY t.topic, p.partition)) AS offsets
  FROM groups WHERE group_id = :group_id`;

/** By name. */
export async function listGroups(db: Db): Promise<readonly GroupSummary[]> {
  return (await db.read({ sql: LIST_GROUPS })).map(summaryOf);
}

/** Undefined where there is no such group. */
export async function describeGroup(db: Db, group: string): Promise<GroupDescription | undefined> {
  const [row] = await db.read({ sql: DESCRIBE_GROUP, args: { group_id: group } });
  if (!row) return undefined;
  return {
    group,
    members: JSON.parse(`[${row.members ?? ""}]`),
    offsets: JSON.parse(`[${row.offsets ?? ""}]`),
  };
}

function summaryOf(row: Row): GroupSummary {
  return {
    group: String(row.group_id),
    members: numberColumn(row, "members"),
    lag: row.lag === null ? null : numberColumn(row, "lag"),
  };
}
