// Owns `append_times`, and says how much of a partition its topic no longer keeps: by age, by bytes, by records.
//
// Age counts from the append, and no append notes its time: for topics where age counts it is noted from time to time
// where each log ends. All below that was appended before, so what goes is at least as old as it has to be, and at most
// a hundredth older, a look aside. Each step of retention finds out in its own transaction what is to go: a setting that
// was changed holds from then on, and what others delete meanwhile is not deleted twice over.

import { COMPACTION_TOMBSTONE_MS } from "../protocol/limits.ts";
import { type Db, numberColumn, type Statement } from "./db.ts";
import type { Operation } from "./operations.ts";
import { RECORD_BYTES, type StepOf, stepStatements } from "./trims.ts";
import { FOUND_MAX, type StepOutcome, stepOperation } from "./upkeep-steps.ts";

/** Partitions a step. */
const NOTED_MAX = 2_000;
/** The log end is noted so many times in the time that records are kept. */
const NOTES_A_LIFE = 100;

/** The index of these topics is used where a query says exactly this. `t` are topics. */
export const HAS_UPKEEP = `(t.retention_ms IS NOT NULL OR t.retention_bytes IS NOT NULL OR t.retention_records IS NOT NULL
  OR t.cleanup = 'compact')`;

/** The shortest age that counts for topic `t`, in ms; NULL where none does. */
export const SHORTEST_AGE_MS = `
  CASE WHEN t.cleanup = 'compact' AND t.compaction_min_lag_ms > 0
       THEN min(t.compaction_min_lag_ms, coalesce(t.retention_ms, t.compaction_min_lag_ms))
       ELSE t.retention_ms END`;

// ── when what was appended ───────────────────────────────────────────────────────────────────────────────

// What is in the log and not noted yet, or was compacted and is of no age any more. Where the clock was set back, what
// was noted before that, in what is the future now, counts for nothing. CROSS JOIN: the few topics come first, always.
const NOT_NOTED = `
  FROM clock AS c CROSS JOIN topics AS t CROSS JOIN partitions AS p ON p.topic_id = t.topic_id
  WHERE ${HAS_UPKEEP} AND (${SHORTEST_AGE_MS}) IS NOT NULL
    AND p.log_end_offset > max(
      p.log_start_offset,
      coalesce((SELECT max(a.log_end_offset) FROM append_times AS a
                WHERE a.partition_id = p.partition_id AND a.at <= c.now_ms), 0),
      coalesce((SELECT d.compacted_to FROM compactions AS d
                WHERE d.partition_id = p.partition_id AND t.retention_ms IS NULL), 0))
    AND NOT EXISTS (
      SELECT 1 FROM append_times AS a
      WHERE a.partition_id = p.partition_id AND a.at <= c.now_ms
        AND a.at > c.now_ms - (${SHORTEST_AGE_MS}) / :notes_a_life)`;

const HAS_NOT_NOTED = `SELECT 1 ${NOT_NOTED} LIMIT 1`;

const NOTE_LOG_ENDS = `
  INSERT INTO append_times (partition_id, log_end_offset, at)
  SELECT p.partition_id, p.log_end_offset, c.now_ms ${NOT_NOTED} LIMIT :noted_max
  ON CONFLICT (partition_id, log_end_offset) DO UPDATE SET at = excluded.at`;

/** Log ends are to be noted. */
export async function hasToNote(db: Db): Promise<boolean> {
  return (await db.read({ sql: HAS_NOT_NOTED, args: { notes_a_life: NOTES_A_LIFE } })).length > 0;
}

/** Notes when what has been appended since was there. A bounded number of partitions. */
export function noteLogEnds(): Operation<StepOutcome> {
  const args = { notes_a_life: NOTES_A_LIFE };
  return stepOperation([
    { sql: NOTE_LOG_ENDS, args: { ...args, noted_max: NOTED_MAX } },
    { sql: HAS_NOT_NOTED, args },
  ]);
}

// The last of each hundredth of the life stays.
const THIN = `
  DELETE FROM append_times AS a
  WHERE a.partition_id = :partition_id
    AND a.log_end_offset <= (SELECT compacted_to FROM compactions WHERE partition_id = :partition_id)
    AND EXISTS (
      SELECT 1
      FROM partitions AS p JOIN topics AS t ON t.topic_id = p.topic_id
      WHERE p.partition_id = :partition_id
        AND a.at / max(t.retention_ms / :notes_a_life, 1)
          = (SELECT b.at FROM append_times AS b
             WHERE b.partition_id = :partition_id AND b.log_end_offset > a.log_end_offset
             ORDER BY b.log_end_offset LIMIT 1) / max(t.retention_ms / :notes_a_life, 1))`;

/**
 * What was noted for a compaction that is done, more often than retention needs it: where little has to wait for
 * compaction and much is kept there would be no end of it.
 */
export function thinAppendTimes(partitionId: number): Statement {
  return { sql: THIN, args: { partition_id: partitionId, notes_a_life: NOTES_A_LIFE } };
}

// ── what is not kept ─────────────────────────────────────────────────────────────────────────────────────

const IS_OVER = `
  (p.records > t.retention_records OR p.bytes > t.retention_bytes
   OR EXISTS (SELECT 1 FROM append_times AS a
              WHERE a.partition_id = p.partition_id AND a.log_end_offset > p.log_start_offset
                AND a.at <= (SELECT now_ms FROM clock) - t.retention_ms))`;

const FIND_RETAINABLE = `
  SELECT p.partition_id
  FROM topics AS t CROSS JOIN partitions AS p ON p.topic_id = t.topic_id
  WHERE ${HAS_UPKEEP} AND p.partition_id > :after AND ${IS_OVER}
  ORDER BY p.partition_id LIMIT :found_max`;

const OF_TOPIC = "FROM topics AS t WHERE t.topic_id = partitions.topic_id";
const ONE_PARTITION = `
  FROM partitions AS p JOIN topics AS t ON t.topic_id = p.topic_id WHERE p.partition_id = :partition_id`;

const BELOW_AGE = `(
  SELECT max(a.log_end_offset) FROM append_times AS a, clock AS c
  WHERE a.partition_id = partitions.partition_id AND a.at <= c.now_ms - (SELECT t.retention_ms ${OF_TOPIC}))`;

// The first record that stays; no further than one step goes, for that is as far as is looked.
const BELOW_COUNT = `
  CASE WHEN records > (SELECT t.retention_records ${OF_TOPIC}) THEN coalesce(
    (SELECT r.offset FROM records AS r WHERE r.partition_id = :partition_id
     ORDER BY r.offset LIMIT 1 OFFSET min(:records_max, (SELECT p.records - t.retention_records ${ONE_PARTITION}))),
    log_end_offset) END`;

const BELOW_BYTES = `
  CASE WHEN bytes > (SELECT t.retention_bytes ${OF_TOPIC}) THEN (
    SELECT coalesce(
      min(offset) FILTER (WHERE bytes_before >= (SELECT p.bytes - t.retention_bytes ${ONE_PARTITION})),
      CASE WHEN count(*) > :records_max THEN max(offset) END,
      (SELECT p.log_end_offset ${ONE_PARTITION}))
    FROM (SELECT offset, sum(bytes) OVER (ORDER BY offset) - bytes AS bytes_before
          FROM (SELECT offset, ${RECORD_BYTES} AS bytes FROM records
                WHERE partition_id = :partition_id ORDER BY offset LIMIT :records_max + 1))) END`;

const NOT_KEPT = `max(coalesce(${BELOW_AGE}, 0), coalesce(${BELOW_COUNT}, 0), coalesce(${BELOW_BYTES}, 0))`;

const IS_LEFT = `SELECT 1 ${ONE_PARTITION} AND ${IS_OVER}`;

/** The first partitions behind that one, by id, that have more than their topic keeps. */
export async function findRetainable(db: Db, after = 0): Promise<readonly number[]> {
  const rows = await db.read({ sql: FIND_RETAINABLE, args: { after, found_max: FOUND_MAX } });
  return rows.map((row) => numberColumn(row, "partition_id"));
}

/** Deletes the oldest of what the topic does not keep. */
export function retainStep(step: StepOf): Operation<StepOutcome> {
  return stepOperation([
    ...stepStatements(step, NOT_KEPT, { records_max: step.recordsMax }),
    { sql: IS_LEFT, args: { partition_id: step.partitionId } },
  ]);
}

// ── what will have to be done ────────────────────────────────────────────────────────────────────────────

const HAS_NOTES = `EXISTS (
  SELECT 1 FROM partitions AS p CROSS JOIN append_times AS a ON a.partition_id = p.partition_id
  WHERE p.topic_id = t.topic_id)`;

const HAS_UNCOMPACTED = `EXISTS (
  SELECT 1 FROM partitions AS p LEFT JOIN compactions AS d ON d.partition_id = p.partition_id
  WHERE p.topic_id = t.topic_id AND p.log_end_offset > max(coalesce(d.compacted_to, 0), p.log_start_offset))`;

// The last record of a partition stays, whatever it is: it waits for nothing.
const HAS_TOMBSTONES = `EXISTS (
  SELECT 1 FROM partitions AS p CROSS JOIN compacted_keys AS k INDEXED BY compacted_keys_by_tombstone
  WHERE p.topic_id = t.topic_id AND k.partition_id = p.partition_id AND k.tombstone_at IS NOT NULL
    AND k.offset < p.log_end_offset - 1)`;

const READ_WAITING = `
  SELECT count(*) AS topics,
         min(CASE WHEN ${HAS_NOTES} THEN t.retention_ms END) AS age_ms,
         min(CASE WHEN t.cleanup = 'compact' AND ${HAS_UNCOMPACTED} THEN t.compaction_min_lag_ms END) AS lag_ms,
         min(CASE WHEN t.cleanup = 'compact' AND ${HAS_TOMBSTONES}
                  THEN coalesce(t.compaction_tombstone_ms, :tombstone_ms) END) AS tombstone_ms
  FROM topics AS t WHERE ${HAS_UPKEEP}`;

export interface Waiting {
  /** With retention or compaction. */
  readonly topics: number;
  /** Of the times after which something that is there is to go, the shortest; undefined where nothing is. */
  readonly shortestMs: number | undefined;
}

export async function readWaiting(db: Db): Promise<Waiting> {
  const [row] = await db.read({ sql: READ_WAITING, args: { tombstone_ms: COMPACTION_TOMBSTONE_MS } });
  const times = [row?.age_ms, row?.lag_ms, row?.tombstone_ms].filter((ms) => typeof ms === "number");
  return {
    topics: numberColumn(row, "topics"),
    shortestMs: times.length > 0 ? Math.min(...times) : undefined,
  };
}
