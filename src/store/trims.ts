// Moves the log start offset of a partition up and deletes what falls below it, one bounded step after the other: to
// delete millions of records at once would keep everybody else from the disk for as long.
//
// Each step is whole, in one transaction: its records are gone, the log start is behind them and the counters are less
// exactly what went. So whatever happens between two steps, views and tables agree.

import type { LogBounds } from "../core/places.ts";
import { numberColumn } from "./db.ts";
import type { Operation } from "./operations.ts";
import { forgetTimes } from "./time-index.ts";

/** What one step deletes at most, one larger record excepted. */
export const STEP_RECORDS_MAX = 5_000;
export const STEP_BYTES_MAX = 8 * 1024 * 1024;

export const STEP_LIMITS = { records_max: STEP_RECORDS_MAX, bytes_max: STEP_BYTES_MAX };

/**
 * A row for each of the first records below `:before`, with its bytes as the append has counted them; `is_left` where
 * the step would be too large with it. The length of a column comes from the row's header: no value is read for it.
 */
export const FIRST_RECORDS = `
  SELECT offset, bytes,
         row_number() OVER in_order > :records_max
           OR (row_number() OVER in_order > 1 AND sum(bytes) OVER in_order > :bytes_max) AS is_left
  FROM (
    SELECT offset,
           octet_length(value) + coalesce(octet_length(key), 0) + coalesce(octet_length(headers), 0) AS bytes
    FROM records
    WHERE partition_id = :partition_id AND offset < :before
    ORDER BY offset
    LIMIT :records_max + 1
  )
  WINDOW in_order AS (ORDER BY offset)`;

const RAISE_LOG_START = `
  UPDATE partitions
  SET log_start_offset = step.next_offset,
      records = records - step.taken,
      bytes = bytes - step.taken_bytes,
      frame_bytes_max = CASE WHEN records = step.taken THEN 0 ELSE frame_bytes_max END
  FROM (
    SELECT coalesce(min(offset) FILTER (WHERE is_left), :before) AS next_offset,
           count(*) FILTER (WHERE NOT is_left) AS taken,
           coalesce(sum(bytes) FILTER (WHERE NOT is_left), 0) AS taken_bytes
    FROM (${FIRST_RECORDS})
  ) AS step
  WHERE partition_id = :partition_id AND log_start_offset < :before AND :before <= log_end_offset`;

const DELETE_BELOW_LOG_START = `
  DELETE FROM records
  WHERE partition_id = :partition_id
    AND offset < (SELECT log_start_offset FROM partitions WHERE partition_id = :partition_id)`;

const READ_BOUNDS = `
  SELECT log_start_offset, log_end_offset FROM partitions WHERE partition_id = :partition_id`;

export interface Trim {
  readonly partitionId: number;
  /** What the log start offset becomes, by as many steps as it takes. Above the log end a step does nothing. */
  readonly before: number;
}

/** Settles to where the log stands after the step: at `before` when there is no more to do. Undefined where it is gone. */
export function trimStep({ partitionId, before }: Trim): Operation<LogBounds | undefined> {
  const args = { partition_id: partitionId };
  return {
    statements: [
      { sql: RAISE_LOG_START, args: { ...args, ...STEP_LIMITS, before } },
      { sql: DELETE_BELOW_LOG_START, args },
      ...forgetTimes(partitionId),
      { sql: READ_BOUNDS, args },
    ],
    bytes: 0,
    afterLostAnswer: "repeat",
    settle: (results) => {
      const row = results.at(-1)?.[0];
      if (!row) return undefined;
      return {
        logStartOffset: numberColumn(row, "log_start_offset"),
        logEndOffset: numberColumn(row, "log_end_offset"),
      };
    },
  };
}
