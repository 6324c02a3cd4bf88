// Owns `groups`, `group_topics`, `members` and `assignments`: who is in a group and who owns what. (How memberships
// go on and end is in leases.ts.)
//
// A change of a group is planned from a snapshot and written on the condition that `groups.version` is still the one
// that was read; every change gives the group a new version. So a plan made from an old picture does nothing, and
// the caller reads again. (What an operator does to a group from outside is in group-changes.ts.)

import type {
  GainPlan,
  GroupMember,
  GroupPartition,
  GroupSnapshot,
  Joined,
  JoinedPartition,
  JoinPlan,
  JoinRequest,
} from "../core/membership.ts";
import { type Db, numberColumn, type Row, type Rows, type SqlValue, type Statement } from "./db.ts";
import { END_CHECK, IS_OK } from "./guard.ts";
import type { Operation } from "./write-queue.ts";

// ── reading a group ──────────────────────────────────────────────────────────────────────────────────────

const GROUP_VERSION =
  "SELECT coalesce((SELECT version FROM groups WHERE group_id = :group_id), 0) AS version";

const GROUP_MEMBERS = `
  SELECT m.member_id, m.instance_id, m.membership, m.lease_expires_at <= clock.now_ms AS is_expired
  FROM members AS m, clock WHERE m.group_id = :group_id`;

const GROUP_PARTITIONS = `
  SELECT t.topic, t.topic_id, p.partition, p.partition_id, p.log_start_offset, p.log_end_offset,
         c.committed_offset, a.member_id AS owner_member_id,
         g.topic_id AS topic_id_seen, coalesce(g.partitions_seen, 0) AS partitions_seen
  FROM json_each(:topics) AS wanted
  JOIN topics AS t ON t.topic = wanted.value
  JOIN partitions AS p ON p.topic_id = t.topic_id
  LEFT JOIN group_topics AS g ON g.group_id = :group_id AND g.topic = t.topic
  LEFT JOIN assignments AS a ON a.group_id = :group_id AND a.partition_id = p.partition_id
  LEFT JOIN committed_offsets AS c ON c.group_id = :group_id AND c.partition_id = p.partition_id
  ORDER BY wanted.key, p.partition`;

/**
 * The version is read first: whatever changes the group after that makes a plan from this snapshot void. A group that
 * is not there has nothing, whatever is found later: it may come and be deleted between these reads, and its version
 * is 0 again.
 */
export async function readGroup(db: Db, groupId: string, topics: readonly string[]): Promise<GroupSnapshot> {
  const [row] = await db.read({ sql: GROUP_VERSION, args: { group_id: groupId } });
  const version = numberColumn(row, "version");
  const args = { group_id: version === 0 ? null : groupId };
  const members = await db.read({ sql: GROUP_MEMBERS, args });
  const partitions = await db.read({
    sql: GROUP_PARTITIONS,
    args: { ...args, topics: JSON.stringify(topics) },
  });
  return {
    version,
    members: members.map(memberOf),
    partitions: partitions.map(partitionOf),
  };
}

// ── join and gain ────────────────────────────────────────────────────────────────────────────────────────

// A topic may have been deleted since: the first join of a group has no version that could tell.
const CHECK_PLAN = `
  INSERT INTO guard (op, ok)
  SELECT :op, coalesce((SELECT version FROM groups WHERE group_id = :group_id), 0) = :version
    AND NOT EXISTS (SELECT 1 FROM json_each(:partition_ids) AS planned
                    WHERE NOT EXISTS (SELECT 1 FROM partitions WHERE partition_id = planned.value))`;

const CHANGE_GROUP = `
  INSERT INTO groups (group_id, version, created_at)
  SELECT :group_id, last + 1, now_ms FROM sequence, clock WHERE ${IS_OK}
  ON CONFLICT (group_id) DO UPDATE SET version = excluded.version`;

const END_ASSIGNMENTS = `
  DELETE FROM assignments
  WHERE group_id = :group_id AND member_id IN (SELECT value FROM json_each(:ended)) AND ${IS_OK}`;

const END_MEMBERS = `
  DELETE FROM members
  WHERE group_id = :group_id AND member_id IN (SELECT value FROM json_each(:ended)) AND ${IS_OK}`;

const INSERT_MEMBER = `
  INSERT INTO members
    (group_id, member_id, instance_id, membership, topics, session_timeout_ms, joined_at, lease_expires_at)
  SELECT :group_id, :member_id, :instance_id, last + 1, :topics, :session_timeout_ms, now_ms, now_ms + :session_timeout_ms
  FROM sequence, clock WHERE ${IS_OK}`;

const SEE_TOPICS = `
  INSERT INTO group_topics (group_id, topic, topic_id, partitions_seen)
  SELECT :group_id, seen.value ->> 'topic', seen.value ->> 'topicId', seen.value ->> 'partitions'
  FROM json_each(:topics_seen) AS seen WHERE ${IS_OK}
  ON CONFLICT (group_id, topic) DO UPDATE
    SET topic_id = excluded.topic_id, partitions_seen = excluded.partitions_seen`;

// An ack may have come in since the plan was made: a policy never writes over an offset that it has not seen.
const RESETS_TO_APPLY = `
  FROM json_each(:resets) AS reset
  LEFT JOIN committed_offsets AS c
    ON c.group_id = :group_id AND c.partition_id = reset.value ->> 'partitionId'
  WHERE ${IS_OK} AND c.committed_offset IS reset.value ->> 'from'`;

const RECORD_RESETS = `
  INSERT INTO offset_history (group_id, topic, partition, previous_offset, new_offset, cause, actor, at)
  SELECT :group_id, reset.value ->> 'topic', reset.value ->> 'partition', reset.value ->> 'from',
         reset.value ->> 'to', reset.value ->> 'cause', 'member ' || :member_id, (SELECT now_ms FROM clock)
  ${RESETS_TO_APPLY}`;

const COMMIT_RESETS = `
  INSERT INTO committed_offsets (group_id, partition_id, committed_offset, metadata, committed_at)
  SELECT :group_id, reset.value ->> 'partitionId', reset.value ->> 'to', NULL, (SELECT now_ms FROM clock)
  ${RESETS_TO_APPLY}
  ON CONFLICT (group_id, partition_id) DO UPDATE
    SET committed_offset = excluded.committed_offset, metadata = NULL, committed_at = excluded.committed_at`;

const ASSIGN_PARTITIONS = `
  INSERT INTO assignments (group_id, partition_id, member_id, generation)
  SELECT :group_id, assigned.value, :member_id, last + 2 + assigned.key
  FROM json_each(:partition_ids) AS assigned, sequence WHERE ${IS_OK}
  ON CONFLICT (group_id, partition_id) DO UPDATE
    SET member_id = excluded.member_id, generation = excluded.generation`;

const ADVANCE_SEQUENCE = `UPDATE sequence SET last = last + :used WHERE ${IS_OK}`;

const READ_ASSIGNMENT = `
  SELECT m.membership, t.topic, t.topic_id, p.partition, p.partition_id, a.generation,
         c.committed_offset, c.metadata, p.log_start_offset, p.log_end_offset
  FROM members AS m
  JOIN assignments AS a ON a.group_id = m.group_id AND a.member_id = m.member_id
  JOIN partitions AS p ON p.partition_id = a.partition_id
  JOIN topics AS t ON t.topic_id = p.topic_id
  LEFT JOIN committed_offsets AS c ON c.group_id = a.group_id AND c.partition_id = a.partition_id
  WHERE m.group_id = :group_id AND m.member_id = :member_id AND ${IS_OK}
    AND a.partition_id IN (SELECT value FROM json_each(:partition_ids))
  ORDER BY a.generation`;

interface PlannedChange {
  readonly op: number;
  readonly group: string;
  /** Of the group, as it was when the change was planned. */
  readonly version: number;
}

/** Settles to undefined, with nothing written, where the group is no longer the one that was planned from. */
export function writeJoin({
  request,
  plan,
  ...planned
}: Omit<PlannedChange, "group"> & {
  readonly request: JoinRequest;
  readonly plan: JoinPlan;
}): Operation<Joined | undefined> {
  const change = { ...planned, group: request.group };
  const args = { op: change.op, group_id: change.group };
  const ended = { ...args, ended: JSON.stringify(plan.endedMemberIds) };
  const member = { ...args, member_id: plan.memberId, ...memberArgs(request) };
  const ends = [
    { sql: END_ASSIGNMENTS, args: ended },
    { sql: END_MEMBERS, args: ended },
  ];
  const membership = [...(plan.endedMemberIds.length > 0 ? ends : []), { sql: INSERT_MEMBER, args: member }];
  return changeOperation(change, plan, membership);
}

/** As writeJoin(), for a member that is there and stays. */
export function writeGain({
  plan,
  ...change
}: PlannedChange & { readonly plan: GainPlan }): Operation<Joined | undefined> {
  return changeOperation(change, plan, []);
}

function changeOperation(
  change: PlannedChange,
  plan: GainPlan,
  membership: readonly Statement[],
): Operation<Joined | undefined> {
  const statements = changeStatements(change, plan, membership);
  return {
    statements,
    bytes: JSON.stringify(statements.map(({ args }) => args)).length,
    settle: (results) => {
      const [assignment = [], check = []] = results.slice(-2);
      return check[0]?.ok === 1 ? joinedOf(plan.memberId, assignment) : undefined;
    },
  };
}

function changeStatements(
  { op, group, version }: PlannedChange,
  plan: GainPlan,
  membership: readonly Statement[],
): readonly Statement[] {
  const args = { op, group_id: group };
  const partition_ids = JSON.stringify(plan.partitionIds);
  const member = { ...args, member_id: plan.memberId, partition_ids };
  const resets = { ...args, resets: JSON.stringify(plan.resets) };
  const commits = [
    { sql: RECORD_RESETS, args: { ...resets, member_id: plan.memberId } },
    { sql: COMMIT_RESETS, args: resets },
  ];
  return [
    { sql: CHECK_PLAN, args: { ...args, version, partition_ids } },
    { sql: CHANGE_GROUP, args },
    ...membership,
    { sql: SEE_TOPICS, args: { ...args, topics_seen: JSON.stringify(plan.topicsSeen) } },
    ...(plan.resets.length > 0 ? commits : []),
    { sql: ASSIGN_PARTITIONS, args: member },
    { sql: ADVANCE_SEQUENCE, args: { op, used: 1 + plan.partitionIds.length } },
    { sql: READ_ASSIGNMENT, args: member },
    { sql: END_CHECK, args: { op } },
  ];
}

function memberArgs({ instanceId, topics, sessionTimeoutMs }: JoinRequest): Record<string, SqlValue> {
  return {
    instance_id: instanceId ?? null,
    topics: JSON.stringify(topics),
    session_timeout_ms: sessionTimeoutMs,
  };
}

// ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────

function memberOf(row: Row): GroupMember {
  return {
    memberId: String(row.member_id),
    instanceId: textOrNull(row.instance_id),
    membership: numberColumn(row, "membership"),
    isExpired: row.is_expired === 1,
  };
}

function partitionOf(row: Row): GroupPartition {
  return {
    topic: String(row.topic),
    topicId: numberColumn(row, "topic_id"),
    partition: numberColumn(row, "partition"),
    partitionId: numberColumn(row, "partition_id"),
    logStartOffset: numberColumn(row, "log_start_offset"),
    logEndOffset: numberColumn(row, "log_end_offset"),
    committedOffset: numberOrNull(row.committed_offset),
    ownerMemberId: textOrNull(row.owner_member_id),
    partitionsSeen: numberColumn(row, "partitions_seen"),
    topicIdSeen: numberOrNull(row.topic_id_seen),
  };
}

function joinedOf(memberId: string, rows: Rows): Joined {
  return {
    memberId,
    membership: numberColumn(rows[0], "membership"),
    partitions: rows.map(joinedPartitionOf),
  };
}

function joinedPartitionOf(row: Row): JoinedPartition {
  return {
    topic: String(row.topic),
    topicId: numberColumn(row, "topic_id"),
    partition: numberColumn(row, "partition"),
    partitionId: numberColumn(row, "partition_id"),
    generation: numberColumn(row, "generation"),
    committedOffset: numberOrNull(row.committed_offset),
    metadata: textOrNull(row.metadata),
    logStartOffset: numberColumn(row, "log_start_offset"),
    logEndOffset: numberColumn(row, "log_end_offset"),
  };
}

function numberOrNull(value: unknown): number | null {
  return typeof value === "number" ? value : null;
}

function textOrNull(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}
