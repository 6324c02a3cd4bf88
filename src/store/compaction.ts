// Owns `compactions`, `compacted_keys` and `superseded`: of a topic with `cleanup` "compact" the newest record of each
// key stays.
//
// A partition is walked through once, from its start to its end: a step takes the next records, and of each key that
// they have it deletes all but the newest, the one that was the newest before them included. `compacted_keys` says which
// that is, so no step looks at what an earlier one has looked at, and what a step costs does not grow with the log.
// Offsets do not change, and neither does the log start: whoever reads sees gaps and nothing else. The last record of a
// partition is always the newest of its key; a tombstone goes when its time is over, unless it is the last record.

import { COMPACTION_TOMBSTONE_MS } from "../protocol/limits.ts";
import { type Db, numberColumn } from "./db.ts";
import type { Operation } from "./operations.ts";
import { HAS_UPKEEP, thinAppendTimes } from "./retention.ts";
import { RECORD_BYTES, STEP_BYTES_MAX, type StepOf } from "./trims.ts";
import { FOUND_MAX, type StepOutcome, stepOperation } from "./upkeep-steps.ts";

const OF_COMPACTION = "SELECT 1 FROM compactions AS d WHERE d.partition_id = :partition_id";

/** What it has found out is about the topic as it is. `p` is a partition, `t` its topic, `d` its compaction. */
const IS_CURRENT = "t.cleanup = 'compact' AND d.cleanup_version = t.cleanup_version";

/** Below it, what was appended is old enough. */
const YOUNGEST = `
  CASE WHEN t.compaction_min_lag_ms > 0
       THEN coalesce((SELECT max(a.log_end_offset) FROM append_times AS a, clock AS c
                      WHERE a.partition_id = p.partition_id AND a.at <= c.now_ms - t.compaction_min_lag_ms), 0)
       ELSE p.log_end_offset END`;

// By their time: otherwise all keys of the partition would be looked at.
const TOMBSTONES = "compacted_keys AS k INDEXED BY compacted_keys_by_tombstone";

const IS_OLD_TOMBSTONE = `
  k.partition_id = p.partition_id AND k.offset < p.log_end_offset - 1
    AND k.tombstone_at <= c.now_ms - coalesce(t.compaction_tombstone_ms, :tombstone_ms)`;

const OLD_TOMBSTONES = `FROM clock AS c CROSS JOIN ${TOMBSTONES} WHERE ${IS_OLD_TOMBSTONE}`;

const OF_TOPICS = `
  compactions AS d
  JOIN partitions AS p ON p.partition_id = d.partition_id
  JOIN topics AS t ON t.topic_id = p.topic_id`;

const CURRENT_COMPACTION = `
  FROM ${OF_TOPICS}
  WHERE d.partition_id = :partition_id AND ${IS_CURRENT}`;

const TOMBSTONE_ARGS = { tombstone_ms: COMPACTION_TOMBSTONE_MS };

// ── what there is to do ──────────────────────────────────────────────────────────────────────────────────

const FIND_COMPACTABLE = `
  SELECT p.partition_id
  FROM topics AS t
  CROSS JOIN partitions AS p ON p.topic_id = t.topic_id
  LEFT JOIN compactions AS d ON d.partition_id = p.partition_id
  WHERE ${HAS_UPKEEP} AND t.cleanup = 'compact' AND p.partition_id > :after AND p.records > 0
    AND (d.partition_id IS NULL OR d.cleanup_version <> t.cleanup_version OR d.compacted_to < (${YOUNGEST})
      OR EXISTS (SELECT 1 ${OLD_TOMBSTONES}))
  ORDER BY p.partition_id LIMIT :found_max`;

/** The first partitions behind that one, by id, that have something to compact. */
export async function findCompactable(db: Db, after = 0): Promise<readonly number[]> {
  const args = { after, found_max: FOUND_MAX, ...TOMBSTONE_ARGS };
  const rows = await db.read({ sql: FIND_COMPACTABLE, args });
  return rows.map((row) => numberColumn(row, "partition_id"));
}

const FIND_OUTDATED = `
  SELECT d.partition_id
  FROM compactions AS d
  LEFT JOIN partitions AS p ON p.partition_id = d.partition_id
  LEFT JOIN topics AS t ON t.topic_id = p.topic_id
  WHERE d.partition_id > :after AND (t.topic_id IS NULL OR NOT (${IS_CURRENT}))
  ORDER BY d.partition_id LIMIT :found_max`;

/** The first behind that one, by id, that are compacted no longer, or not yet again: what is known of their keys is to go. */
export async function findOutdated(db: Db, after = 0): Promise<readonly number[]> {
  const rows = await db.read({ sql: FIND_OUTDATED, args: { after, found_max: FOUND_MAX } });
  return rows.map((row) => numberColumn(row, "partition_id"));
}

// ── records without a key ────────────────────────────────────────────────────────────────────────────────

const LOOKED_AT_MAX = 5_000;

const LOOK_FOR_KEYLESS = `
  SELECT count(*) AS records, max(offset) + 1 AS next, min(offset) FILTER (WHERE key IS NULL) AS keyless
  FROM (SELECT offset, key FROM records
        WHERE partition_id = :partition_id AND offset >= :from ORDER BY offset LIMIT :looked_at_max)`;

export interface LookForKeyless {
  /** All below has been looked at. */
  readonly next: number;
  /** Nothing is left to look at. */
  readonly isAtEnd: boolean;
  /** The first offset whose record has no key; null where each has one. */
  readonly keyless: number | null;
}

/** Looks at a bounded number of records from there on. */
export async function lookForKeyless(db: Db, partitionId: number, from: number): Promise<LookForKeyless> {
  const args = { partition_id: partitionId, from, looked_at_max: LOOKED_AT_MAX };
  const [row] = await db.read({ sql: LOOK_FOR_KEYLESS, args });
  return {
    next: typeof row?.next === "number" ? row.next : from,
    isAtEnd: numberColumn(row, "records") < LOOKED_AT_MAX,
    keyless: typeof row?.keyless === "number" ? row.keyless : null,
  };
}

// ── a step forward ───────────────────────────────────────────────────────────────────────────────────────

const BEGIN = `
  INSERT INTO compactions (partition_id, cleanup_version, compacted_to, step_end)
  SELECT p.partition_id, t.cleanup_version, p.log_start_offset, p.log_start_offset
  FROM partitions AS p JOIN topics AS t ON t.topic_id = p.topic_id
  WHERE p.partition_id = :partition_id AND t.cleanup = 'compact'
  ON CONFLICT (partition_id) DO NOTHING`;

// What the next records weigh, with those that they may replace.
const NEXT_RECORDS = `
  SELECT r.offset,
         octet_length(r.value) + octet_length(r.key) + coalesce(octet_length(r.headers), 0)
         + coalesce((SELECT ${RECORD_BYTES} FROM records AS replaced
                     WHERE replaced.partition_id = :partition_id AND replaced.offset = k.offset), 0) AS bytes
  FROM records AS r
  LEFT JOIN compacted_keys AS k ON k.partition_id = :partition_id AND k.key = r.key
  WHERE r.partition_id = :partition_id
    AND r.offset >= (SELECT d.compacted_to FROM compactions AS d WHERE d.partition_id = :partition_id)
    AND r.offset < (SELECT ${YOUNGEST} ${CURRENT_COMPACTION})
  ORDER BY r.offset LIMIT :records_max`;

// Mostly the largest records would fit, and to count is enough.
const BOUND_STEP = `
  UPDATE compactions
  SET step_end = max(compacted_to, coalesce(
    CASE WHEN (SELECT p.frame_bytes_max FROM partitions AS p WHERE p.partition_id = :partition_id)
              * 2 * :records_max <= :bytes_max
         THEN (SELECT r.offset + 1 FROM records AS r
               WHERE r.partition_id = :partition_id AND r.offset >= compactions.compacted_to
                 AND r.offset < (SELECT ${YOUNGEST} ${CURRENT_COMPACTION})
               ORDER BY r.offset LIMIT 1 OFFSET :records_max - 1)
         ELSE (SELECT CASE WHEN count(*) = :records_max OR max(bytes) > :bytes_max
                           THEN max(offset) FILTER (WHERE nth = 1 OR bytes <= :bytes_max) + 1 END
               FROM (SELECT offset, row_number() OVER in_order AS nth, sum(bytes) OVER in_order AS bytes
                     FROM (${NEXT_RECORDS}) WINDOW in_order AS (ORDER BY offset))) END,
    (SELECT ${YOUNGEST} ${CURRENT_COMPACTION}),
    compacted_to))
  WHERE partition_id = :partition_id`;

const STEP = `
  FROM compactions AS d
  JOIN records AS r ON r.partition_id = d.partition_id AND r.offset >= d.compacted_to AND r.offset < d.step_end
  WHERE d.partition_id = :partition_id AND r.key IS NOT NULL`;

const NOTE_SUPERSEDED = `
  INSERT INTO superseded (offset)
  WITH newest AS MATERIALIZED (SELECT r.key, max(r.offset) AS offset ${STEP} GROUP BY r.key)
  SELECT r.offset ${STEP} AND r.offset NOT IN (SELECT offset FROM newest)
  UNION
  SELECT k.offset FROM newest AS n
  CROSS JOIN compacted_keys AS k ON k.partition_id = :partition_id AND k.key = n.key`;

// A tombstone is the value null, JSON like any other. The step's own records are the newest of their keys by now.
const NOTE_KEYS = `
  INSERT INTO compacted_keys (partition_id, key, offset, tombstone_at)
  SELECT r.partition_id, r.key, r.offset,
         CASE WHEN octet_length(r.value) = 4 AND r.value = 'null' THEN (SELECT now_ms FROM clock) END
  ${STEP}
  ON CONFLICT (partition_id, key) DO UPDATE
    SET offset = excluded.offset, tombstone_at = excluded.tombstone_at`;

const ADVANCE = "UPDATE compactions SET compacted_to = step_end WHERE partition_id = :partition_id";

/** Their time counts no more, except for retention. */
const FORGET_APPEND_TIMES = `
  DELETE FROM append_times
  WHERE partition_id = :partition_id
    AND log_end_offset <= (SELECT d.compacted_to ${CURRENT_COMPACTION} AND t.retention_ms IS NULL)`;

// ── and what it deletes ──────────────────────────────────────────────────────────────────────────────────

const NOTE_OLD_TOMBSTONES = `
  INSERT INTO superseded (offset)
  SELECT offset FROM (
    SELECT r.offset, row_number() OVER in_order AS nth, sum(${RECORD_BYTES}) OVER in_order AS bytes
    FROM (SELECT k.offset
          FROM ${OF_TOPICS} CROSS JOIN clock AS c CROSS JOIN ${TOMBSTONES}
          WHERE d.partition_id = :partition_id AND ${IS_CURRENT} AND ${IS_OLD_TOMBSTONE}
          LIMIT :records_max) AS old
    CROSS JOIN records AS r ON r.partition_id = :partition_id AND r.offset = old.offset
    WINDOW in_order AS (ORDER BY r.offset))
  WHERE nth = 1 OR bytes <= :bytes_max`;

// By their keys, while the records are there: what is old and not of this step is not looked at.
const FORGET_OLD_TOMBSTONES = `
  DELETE FROM compacted_keys
  WHERE partition_id = :partition_id
    AND key IN (SELECT r.key FROM superseded AS s
                CROSS JOIN records AS r ON r.partition_id = :partition_id AND r.offset = s.offset)`;

const TAKE_FROM_COUNTERS = `
  UPDATE partitions
  SET records = records - gone_records, bytes = bytes - gone_bytes
  FROM (SELECT count(*) AS gone_records, coalesce(sum(${RECORD_BYTES}), 0) AS gone_bytes
        FROM superseded AS s CROSS JOIN records AS r ON r.partition_id = :partition_id AND r.offset = s.offset) AS gone
  WHERE partition_id = :partition_id`;

const DELETE_SUPERSEDED = `
  DELETE FROM records WHERE partition_id = :partition_id AND offset IN (SELECT offset FROM superseded)`;

const END_STEP = "DELETE FROM superseded";

const IS_LEFT = `
  SELECT 1 ${CURRENT_COMPACTION}
    AND (d.compacted_to < (${YOUNGEST}) OR EXISTS (SELECT 1 ${OLD_TOMBSTONES}))`;

/** Compacts the next records of the partition, and deletes old tombstones. */
export function compactStep({ partitionId, recordsMax }: StepOf): Operation<StepOutcome> {
  const args = { partition_id: partitionId };
  const limits = { records_max: recordsMax, bytes_max: STEP_BYTES_MAX };
  return stepOperation([
    { sql: BEGIN, args },
    { sql: BOUND_STEP, args: { ...args, ...limits } },
    { sql: NOTE_SUPERSEDED, args },
    { sql: TAKE_FROM_COUNTERS, args },
    { sql: DELETE_SUPERSEDED, args },
    { sql: END_STEP },
    { sql: NOTE_KEYS, args },
    { sql: ADVANCE, args },
    { sql: NOTE_OLD_TOMBSTONES, args: { ...args, ...limits, ...TOMBSTONE_ARGS } },
    { sql: FORGET_OLD_TOMBSTONES, args },
    { sql: TAKE_FROM_COUNTERS, args },
    { sql: DELETE_SUPERSEDED, args },
    { sql: END_STEP },
    { sql: FORGET_APPEND_TIMES, args },
    thinAppendTimes(partitionId),
    { sql: IS_LEFT, args: { ...args, ...TOMBSTONE_ARGS } },
  ]);
}

// ── a topic that is compacted no longer ──────────────────────────────────────────────────────────────────

const IS_OUTDATED = `
  EXISTS (${OF_COMPACTION}) AND NOT EXISTS (SELECT 1 ${CURRENT_COMPACTION})`;

const FORGET_KEYS = `
  DELETE FROM compacted_keys
  WHERE partition_id = :partition_id AND ${IS_OUTDATED}
    AND key <= (SELECT max(key) FILTER (WHERE nth = 1 OR bytes <= :bytes_max)
                FROM (SELECT key, row_number() OVER in_order AS nth, sum(octet_length(key)) OVER in_order AS bytes
                      FROM (SELECT key FROM compacted_keys WHERE partition_id = :partition_id
                            ORDER BY key LIMIT :records_max)
                      WINDOW in_order AS (ORDER BY key)))`;

const FORGET_COMPACTION = `
  DELETE FROM compactions
  WHERE partition_id = :partition_id AND ${IS_OUTDATED}
    AND NOT EXISTS (SELECT 1 FROM compacted_keys WHERE partition_id = :partition_id)`;

const IS_OUTDATED_LEFT = `SELECT 1 WHERE ${IS_OUTDATED}`;

/** Forgets what is known of the partition's keys, where its topic is gone or not what it was. */
export function forgetStep({ partitionId, recordsMax }: StepOf): Operation<StepOutcome> {
  const args = { partition_id: partitionId };
  return stepOperation([
    { sql: FORGET_KEYS, args: { ...args, records_max: recordsMax, bytes_max: STEP_BYTES_MAX } },
    { sql: FORGET_COMPACTION, args },
    { sql: IS_OUTDATED_LEFT, args },
  ]);
}
