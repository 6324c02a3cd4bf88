// Owns `time_index`: which part of a partition can hold the first record at or after a time.
//
// A row for every 1,000 offsets says the running maximum timestamp below it. That maximum never falls, so the last row
// below the time is found by one seek, and the record wanted is among the next 1,000: up to the next row. Rows are a
// short cut and never the truth: where some are not written yet the look-up reads further and finds the same.

import { type Db, numberColumn, type Statement } from "./db.ts";

/** Offsets a row; the migration fills the index by the same measure. */
const INTERVAL_RECORDS = 1_000;
/** Partitions a statement. Each looks through up to about 1,000 records: more at once would hold up the event loop. */
const LOOK_UPS_MAX = 100;

// The maximum goes on from the last row, which the OFFSET leaves out. Timestamps are never below 0.
const INDEX_TIMES = `
  WITH RECURSIVE blocks (offset, max_timestamp) AS (
    SELECT coalesce(max(offset), 0), coalesce(max(max_timestamp), 0)
    FROM (SELECT offset, max_timestamp FROM time_index
          WHERE partition_id = :partition_id ORDER BY offset DESC LIMIT 1)
    UNION ALL
    SELECT b.offset + :interval,
           max(b.max_timestamp, coalesce((SELECT max(r.timestamp) FROM records AS r
                                          WHERE r.partition_id = :partition_id
                                            AND r.offset >= b.offset AND r.offset < b.offset + :interval), 0))
    FROM blocks AS b
    WHERE b.offset + :interval <= (SELECT log_end_offset FROM partitions WHERE partition_id = :partition_id)
  )
  INSERT INTO time_index (partition_id, offset, max_timestamp)
  SELECT :partition_id, offset, max_timestamp FROM blocks LIMIT -1 OFFSET 1`;

/** Indexes every 1,000 records that are complete and have no row: none most of the time. After the append. */
export function indexTimes(partitionId: number): Statement {
  return { sql: INDEX_TIMES, args: { partition_id: partitionId, interval: INTERVAL_RECORDS } };
}

const OF_LOG_START = "(SELECT log_start_offset FROM partitions WHERE partition_id = :partition_id)";
const OF_LAST_ROW = "(SELECT max(offset) FROM time_index WHERE partition_id = :partition_id)";

// INDEX_TIMES goes on from the last row, so that one stays. At or below the log start no record is left for it to speak
// of, and without the reset one timestamp far ahead would spoil every later row, long after its record is gone.
const RESET_LAST_TIME = `
  UPDATE time_index SET max_timestamp = 0
  WHERE partition_id = :partition_id AND offset = ${OF_LAST_ROW} AND offset <= ${OF_LOG_START}`;

// A look-up never starts below the log start: rows there say nothing that it does not know.
const FORGET_TIMES = `
  DELETE FROM time_index
  WHERE partition_id = :partition_id AND offset <= ${OF_LOG_START} AND offset < ${OF_LAST_ROW}`;

/** Takes away what is of no use any more. After the log start has moved, in the same transaction. */
export function forgetTimes(partitionId: number): readonly Statement[] {
  return [RESET_LAST_TIME, FORGET_TIMES].map((sql) => ({ sql, args: { partition_id: partitionId } }));
}

/**
 * Which appends carry INDEX_TIMES. It finds out for itself what is missing, but to ask with each append would double
 * the cost of small ones; with one for every 1,000 records fewer than 2,000 lie behind the last row, and up to
 * 1,000 more for every other server on the database.
 */
export class TimeIndexCadence {
  readonly #recordsSinceByPartitionId = new Map<number, number>();

  /** The first append to a partition catches up on what an earlier process left. */
  isDue(partitionId: number, records: number): boolean {
    const since = (this.#recordsSinceByPartitionId.get(partitionId) ?? INTERVAL_RECORDS) + records;
    const isDue = since >= INTERVAL_RECORDS;
    this.#recordsSinceByPartitionId.set(partitionId, isDue ? 0 : since);
    return isDue;
  }

  /** Partitions that are gone, for good: no id is given twice. */
  forget(partitionIds: readonly number[]): void {
    for (const partitionId of partitionIds) this.#recordsSinceByPartitionId.delete(partitionId);
  }
}

// All below the last row whose maximum is lower is too early; from there on the first that is not is near.
const FIND_OFFSETS_AT = `
  SELECT p.partition_id, coalesce(
    (SELECT r.offset FROM records AS r
     WHERE r.partition_id = p.partition_id
       AND r.offset >= max(p.log_start_offset, coalesce(
             (SELECT i.offset FROM time_index AS i
              WHERE i.partition_id = p.partition_id AND i.max_timestamp < wanted.timestamp
              ORDER BY i.max_timestamp DESC, i.offset DESC LIMIT 1), 0))
       AND r.timestamp >= wanted.timestamp
     ORDER BY r.offset LIMIT 1),
    p.log_end_offset) AS offset
  FROM (SELECT value ->> 0 AS partition_id, value ->> 1 AS timestamp FROM json_each(:wanted) LIMIT -1) AS wanted
  JOIN partitions AS p ON p.partition_id = wanted.partition_id`;

export interface TimeQuestion {
  readonly partitionId: number;
  readonly timestamp: number;
}

/**
 * The lowest offset whose timestamp is at or after it, else the log end, by partition id. One that is gone is left out.
 */
export async function findOffsetsAtTimes(
  db: Db,
  wanted: readonly TimeQuestion[],
): Promise<ReadonlyMap<number, number>> {
  const offsets = new Map<number, number>();
  for (let first = 0; first < wanted.length; first += LOOK_UPS_MAX) {
    const pairs = wanted
      .slice(first, first + LOOK_UPS_MAX)
      .map(({ partitionId, timestamp }) => [partitionId, timestamp]);
    const rows = await db.read({ sql: FIND_OFFSETS_AT, args: { wanted: JSON.stringify(pairs) } });
    for (const row of rows) offsets.set(numberColumn(row, "partition_id"), numberColumn(row, "offset"));
  }
  return offsets;
}

/** Undefined where the partition is gone. */
export async function findOffsetAt(db: Db, wanted: TimeQuestion): Promise<number | undefined> {
  return (await findOffsetsAtTimes(db, [wanted])).get(wanted.partitionId);
}
