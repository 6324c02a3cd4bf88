// What an operator may do to a group, beside groups.ts and commits.ts, which own the tables: delete it, forget a
// topic of it, commit from outside.
//
// All three are refused while a member that they would surprise is alive, on the database's clock; the guard judges
// that once. Members whose lease has run out and that nobody has ended yet end here: they must not come back by a
// renewal to offsets that were changed behind them.

import { Problem } from "../core/problem.ts";
import type { ErrorCode } from "../protocol/codes.ts";
import type { Row, Statement } from "./db.ts";
import { END_CHECK, IS_OK } from "./guard.ts";
import type { Operation } from "./operations.ts";

interface GroupChange {
  /** WriteQueue.nextOp(). */
  readonly op: number;
  readonly group: string;
}

export interface OutsideCommit {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly metadata?: string | undefined;
}

export interface OutsideCommitOutcome {
  readonly topic: string;
  readonly partition: number;
  /** Where the group stands now; null where nothing is committed. */
  readonly offset: number | null;
  readonly code?: ErrorCode;
}

export const LIVE_MEMBER = `
  SELECT 1 FROM clock, members AS m
  JOIN member_leases AS l ON l.group_id = m.group_id AND l.member_id = m.member_id
  WHERE m.group_id = :group_id AND l.expires_at > clock.now_ms`;

const SUBSCRIBES = "EXISTS (SELECT 1 FROM json_each(m.topics) AS subscribed WHERE subscribed.value = :topic)";

const IS_KNOWN = "EXISTS (SELECT 1 FROM groups WHERE group_id = :group_id)";

const HAS_TOPIC = "EXISTS (SELECT 1 FROM group_topics WHERE group_id = :group_id AND topic = :topic)";

/** A group that is there and has members: nobody is alive, so all of them end. */
const END_ALL_MEMBERS: readonly string[] = [
  `DELETE FROM assignments WHERE group_id = :group_id AND ${IS_OK}`,
  `DELETE FROM members WHERE group_id = :group_id AND ${IS_OK}`,
];

// ── delete a group ───────────────────────────────────────────────────────────────────────────────────────

const CHECK_DELETABLE = `INSERT INTO guard (op, ok) SELECT :op, ${IS_KNOWN} AND NOT EXISTS (${LIVE_MEMBER})`;

const READ_IS_KNOWN = `SELECT ${IS_KNOWN} AS is_known`;

/** All that is stored under the name of a group whose members are all dead, where the condition holds. */
export const DELETE_ALL: readonly string[] = [
  ...END_ALL_MEMBERS,
  `DELETE FROM committed_offsets WHERE group_id = :group_id AND ${IS_OK}`,
  `DELETE FROM offset_history WHERE group_id = :group_id AND ${IS_OK}`,
  `DELETE FROM group_topics WHERE group_id = :group_id AND ${IS_OK}`,
  `DELETE FROM idle_groups WHERE group_id = :group_id AND ${IS_OK}`,
  `DELETE FROM groups WHERE group_id = :group_id AND ${IS_OK}`,
  END_CHECK,
];

const DELETE_GROUP: readonly string[] = [CHECK_DELETABLE, READ_IS_KNOWN, ...DELETE_ALL];

/** All that is stored under the group's name, history included. Throws `unknown_group` or `conflict`. */
export function deleteGroup({ op, group }: GroupChange): Operation<void> {
  return {
    statements: statementsOf(DELETE_GROUP, { op, group_id: group }),
    bytes: group.length,
    settle: (results) => {
      if (isDone(results)) return;
      if (results[1]?.[0]?.is_known !== 1) throw unknownGroup(group);
      throw new Problem("conflict", `Cannot delete group "${group}": it has live members`, { group });
    },
  };
}

// ── forget a topic ───────────────────────────────────────────────────────────────────────────────────────

const CHECK_FORGETTABLE = `
  INSERT INTO guard (op, ok)
  SELECT :op, ${HAS_TOPIC} AND NOT EXISTS (${LIVE_MEMBER} AND ${SUBSCRIBES})`;

const READ_HAS_TOPIC = `SELECT ${IS_KNOWN} AS is_known, ${HAS_TOPIC} AS has_topic`;

const CHANGE_KNOWN_GROUP = `
  UPDATE groups SET version = (SELECT last + 1 FROM sequence) WHERE group_id = :group_id AND ${IS_OK}`;

/** Does nothing where the group has no version that was just taken from the sequence. */
const ADVANCE_SEQUENCE = `
  UPDATE sequence SET last = last + 1
  WHERE ${IS_OK} AND (SELECT version FROM groups WHERE group_id = :group_id) > last`;

const FORGET_TOPIC: readonly string[] = [
  CHECK_FORGETTABLE,
  READ_HAS_TOPIC,
  CHANGE_KNOWN_GROUP,
  ADVANCE_SEQUENCE,
  `DELETE FROM assignments
   WHERE group_id = :group_id AND ${IS_OK}
     AND member_id IN (SELECT m.member_id FROM members AS m WHERE m.group_id = :group_id AND ${SUBSCRIBES})`,
  `DELETE FROM members AS m WHERE m.group_id = :group_id AND ${SUBSCRIBES} AND ${IS_OK}`,
  `DELETE FROM committed_offsets
   WHERE group_id = :group_id AND ${IS_OK} AND partition_id IN (
     SELECT p.partition_id FROM topics AS t JOIN partitions AS p ON p.topic_id = t.topic_id WHERE t.topic = :topic)`,
  `DELETE FROM group_topics WHERE group_id = :group_id AND topic = :topic AND ${IS_OK}`,
  END_CHECK,
];

/** The group is as if it had never had the topic; its history stays. Throws `unknown_group`, `unknown_topic` or `conflict`. */
export function forgetTopic({ op, group, topic }: GroupChange & { topic: string }): Operation<void> {
  return {
    statements: statementsOf(FORGET_TOPIC, { op, group_id: group, topic }),
    bytes: group.length + topic.length,
    settle: (results) => {
      if (isDone(results)) return;
      const found = results[1]?.[0];
      if (found?.is_known !== 1) throw unknownGroup(group);
      const attempt = `Cannot forget topic "${topic}" of group "${group}"`;
      const facts = { group, topic };
      if (found.has_topic !== 1)
        throw new Problem("unknown_topic", `${attempt}: the group does not have it`, facts);
      throw new Problem("conflict", `${attempt}: a live member subscribes to it`, facts);
    },
  };
}

// ── commit from outside ──────────────────────────────────────────────────────────────────────────────────

const CHECK_NOBODY_LIVES = `INSERT INTO guard (op, ok) SELECT :op, NOT EXISTS (${LIVE_MEMBER})`;

// Entries are [topic, partition, offset, metadata]. Below the log start a group would have to be reset at once.
const ADVANCING = `
  FROM json_each(:entries) AS entry
  JOIN topics AS t ON t.topic = entry.value ->> 0
  JOIN partitions AS p ON p.topic_id = t.topic_id AND p.partition = entry.value ->> 1
  LEFT JOIN committed_offsets AS c ON c.group_id = :group_id AND c.partition_id = p.partition_id
  WHERE ${IS_OK}
    AND entry.value ->> 2 BETWEEN p.log_start_offset AND p.log_end_offset
    AND entry.value ->> 2 > coalesce(c.committed_offset, -1)`;

const CHANGE_GROUP = `
  INSERT INTO groups (group_id, version, created_at)
  SELECT :group_id, last + 1, now_ms FROM sequence, clock
  WHERE ${IS_OK}
    AND (EXISTS (SELECT 1 FROM members WHERE group_id = :group_id) OR EXISTS (SELECT 1 ${ADVANCING}))
  ON CONFLICT (group_id) DO UPDATE SET version = excluded.version`;

// What the group has seen of a topic stays: a partition that came later starts at its beginning, whatever is
// committed beside it.
const SEE_TOPICS = `
  INSERT INTO group_topics (group_id, topic, topic_id, partitions_seen)
  SELECT DISTINCT :group_id, t.topic, t.topic_id, t.partition_count ${ADVANCING}
  ON CONFLICT (group_id, topic) DO NOTHING`;

const COMMIT = `
  INSERT INTO committed_offsets (group_id, partition_id, committed_offset, metadata, committed_at)
  SELECT :group_id, p.partition_id, max(entry.value ->> 2), entry.value ->> 3, (SELECT now_ms FROM clock)
  ${ADVANCING}
  GROUP BY p.partition_id
  ON CONFLICT (group_id, partition_id) DO UPDATE
    SET committed_offset = excluded.committed_offset, metadata = excluded.metadata,
        committed_at = excluded.committed_at`;

const ANSWER = `
  SELECT t.topic_id, p.partition_id, c.committed_offset,
         entry.value ->> 2 > p.log_end_offset
           OR (entry.value ->> 2 < p.log_start_offset AND entry.value ->> 2 > coalesce(c.committed_offset, -1))
           AS is_out_of_range
  FROM json_each(:entries) AS entry
  LEFT JOIN topics AS t ON t.topic = entry.value ->> 0
  LEFT JOIN partitions AS p ON p.topic_id = t.topic_id AND p.partition = entry.value ->> 1
  LEFT JOIN committed_offsets AS c ON c.group_id = :group_id AND c.partition_id = p.partition_id
  ORDER BY entry.key`;

const COMMIT_FROM_OUTSIDE: readonly string[] = [
  CHECK_NOBODY_LIVES,
  CHANGE_GROUP,
  ADVANCE_SEQUENCE,
  ...END_ALL_MEMBERS,
  SEE_TOPICS,
  COMMIT,
  ANSWER,
  END_CHECK,
];

/**
 * Forward only and inside the log, one transaction; a refused entry spoils nothing. Of several accepted entries of one
 * partition the highest counts, and is answered. Throws `conflict` while the group has live members.
 */
export function commitFromOutside({
  op,
  group,
  offsets,
}: GroupChange & { offsets: readonly OutsideCommit[] }): Operation<readonly OutsideCommitOutcome[]> {
  const entries = JSON.stringify(
    offsets.map(({ topic, partition, offset, metadata }) => [topic, partition, offset, metadata ?? null]),
  );
  return {
    statements: statementsOf(COMMIT_FROM_OUTSIDE, { op, group_id: group, entries }),
    bytes: entries.length,
    settle: (results) => {
      if (!isDone(results)) throw liveMembers(group);
      return outcomesOf(offsets, results[results.length - 2] ?? []);
    },
  };
}

function outcomesOf(
  offsets: readonly OutsideCommit[],
  answers: readonly Row[],
): readonly OutsideCommitOutcome[] {
  const judged = offsets.map((entry, index) => ({ entry, outcome: outcomeOf(entry, answers[index] ?? {}) }));
  const highest = new Map<string, OutsideCommit>();
  for (const { entry, outcome } of judged) {
    const key = `${entry.topic}/${entry.partition}`; // a topic's name has no slash
    if (outcome.code === undefined && entry.offset >= (highest.get(key)?.offset ?? 0))
      highest.set(key, entry);
  }
  const counted = new Set(highest.values());
  return judged
    .filter(({ entry, outcome }) => outcome.code !== undefined || counted.has(entry))
    .map(({ outcome }) => outcome);
}

function outcomeOf({ topic, partition }: OutsideCommit, row: Row): OutsideCommitOutcome {
  const code = codeOf(row);
  const offset = typeof row.committed_offset === "number" ? row.committed_offset : null;
  return { topic, partition, offset, ...(code && { code }) };
}

function codeOf(row: Row): ErrorCode | undefined {
  if (row.topic_id === null) return "unknown_topic";
  if (row.partition_id === null) return "unknown_partition";
  return row.is_out_of_range === 1 ? "offset_out_of_range" : undefined;
}

// ─────────────────────────────────────────────────────────────────────────────────────────────────────────

export function unknownGroup(group: string): Problem {
  return new Problem("unknown_group", `There is no group "${group}"`, { group });
}

function liveMembers(group: string): Problem {
  return new Problem(
    "conflict",
    `Cannot commit for group "${group}" from outside: it has live members, and their acks commit`,
    { group },
  );
}

/** Each gets the arguments that it names. */
export function statementsOf(
  sqls: readonly string[],
  args: NonNullable<Statement["args"]>,
): readonly Statement[] {
  const named = Object.entries(args);
  return sqls.map((sql) => ({
    sql,
    args: Object.fromEntries(named.filter(([name]) => sql.includes(`:${name}`))),
  }));
}

function isDone(results: readonly (readonly Row[])[]): boolean {
  return results.at(-1)?.[0]?.ok === 1;
}
