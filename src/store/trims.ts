// Moves the log start offset of a partition up and deletes what falls below it, one bounded step after the other: to
// delete millions of records at once would keep everybody else from the disk for as long.
//
// Each step is whole, in one transaction: its records are gone, the log start is behind them and the counters are less
// exactly what went. So whatever happens between two steps, views and tables agree. How far a step may go is stored in
// `trim_steps` for its other statements, and is gone with the last of them.

import type { LogBounds } from "../core/places.ts";
import { numberColumn, type SqlValue, type Statement } from "./db.ts";
import type { Operation } from "./operations.ts";
import { forgetTimes } from "./time-index.ts";

/** What a step of a trim that somebody waits for deletes at most. */
export const TRIM_RECORDS_MAX = 2_000;
/** What any step deletes at most, one larger record excepted. */
export const STEP_BYTES_MAX = 4 * 1024 * 1024;

/** As the append has counted them. The length of a column comes from the row's header: no value is read for it. */
export const RECORD_BYTES =
  "octet_length(value) + coalesce(octet_length(key), 0) + coalesce(octet_length(headers), 0)";

export const STEP_END = "(SELECT before FROM trim_steps WHERE partition_id = :partition_id)";

/**
 * `wanted`: an offset of the row of `partitions`. Without a row for the step the other statements do nothing. LIMIT:
 * otherwise SQLite would work out `wanted` once for each place that it stands in.
 */
const beginStep = (wanted: string) => `
  INSERT INTO trim_steps (partition_id, before)
  SELECT partition_id, wanted
  FROM (SELECT partition_id, log_start_offset, log_end_offset, (${wanted}) AS wanted
        FROM partitions WHERE partition_id = :partition_id LIMIT 1)
  WHERE wanted > log_start_offset AND wanted <= log_end_offset`;

const FIRST_RECORDS = `
  SELECT offset, ${RECORD_BYTES} AS bytes FROM records
  WHERE partition_id = :partition_id AND offset < ${STEP_END}
  ORDER BY offset LIMIT :records_max + 1`;

// Mostly all of the first records fit, and to add them up is enough.
const BOUND_STEP = `
  UPDATE trim_steps
  SET before = (
    SELECT CASE
      WHEN bytes > :bytes_max THEN
        coalesce((SELECT min(offset) FROM (SELECT offset, row_number() OVER in_order AS nth, sum(bytes) OVER in_order AS bytes
                                           FROM (${FIRST_RECORDS}) WINDOW in_order AS (ORDER BY offset))
                  WHERE nth > 1 AND bytes > :bytes_max), before)
      WHEN records > :records_max THEN last_offset
      ELSE before END
    FROM (SELECT count(*) AS records, sum(bytes) AS bytes, max(offset) AS last_offset FROM (${FIRST_RECORDS})))
  WHERE partition_id = :partition_id`;

const RAISE_LOG_START = `
  UPDATE partitions
  SET log_start_offset = ${STEP_END},
      records = records - gone_records,
      bytes = bytes - gone_bytes,
      frame_bytes_max = CASE WHEN records = gone_records THEN 0 ELSE frame_bytes_max END
  FROM (SELECT count(*) AS gone_records, coalesce(sum(${RECORD_BYTES}), 0) AS gone_bytes FROM records
        WHERE partition_id = :partition_id AND offset < ${STEP_END}) AS gone
  WHERE partition_id = :partition_id AND ${STEP_END} IS NOT NULL`;

/** Of a compacted partition: a key whose newest record goes is forgotten. */
const FORGET_KEYS = `
  DELETE FROM compacted_keys
  WHERE partition_id = :partition_id
    AND EXISTS (SELECT 1 FROM compactions WHERE partition_id = :partition_id)
    AND key IN (SELECT key FROM records WHERE partition_id = :partition_id AND offset < ${STEP_END})
    AND offset < ${STEP_END}`;

const DELETE_RECORDS = `DELETE FROM records WHERE partition_id = :partition_id AND offset < ${STEP_END}`;

const FORGET_APPEND_TIMES = `
  DELETE FROM append_times WHERE partition_id = :partition_id AND log_end_offset <= ${STEP_END}`;

const END_STEP = "DELETE FROM trim_steps WHERE partition_id = :partition_id";

const READ_BOUNDS = `
  SELECT log_start_offset, log_end_offset FROM partitions WHERE partition_id = :partition_id`;

/** What a step is taken of, and how many records it may delete. */
export interface StepOf {
  readonly partitionId: number;
  readonly recordsMax: number;
}

export interface Trim {
  readonly partitionId: number;
  /** What the log start offset becomes, by as many steps as it takes. Above the log end a step does nothing. */
  readonly before: number;
}

/** Settles to where the log stands after the step: at `before` when there is no more to do. Undefined where it is gone. */
export function trimStep({ partitionId, before }: Trim): Operation<LogBounds | undefined> {
  return {
    statements: [
      ...stepStatements({ partitionId, recordsMax: TRIM_RECORDS_MAX }, ":before", { before }),
      { sql: READ_BOUNDS, args: { partition_id: partitionId } },
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

/**
 * A step towards the offset that `wanted` is, SQL over a row of `partitions`. Where it is NULL, not above the log start
 * or above the log end, the step does nothing.
 */
export function stepStatements(
  step: StepOf,
  wanted: string,
  wantedArgs: Readonly<Record<string, SqlValue>>,
): readonly Statement[] {
  const { partitionId } = step;
  const args = { partition_id: partitionId };
  return [
    { sql: beginStep(wanted), args: { ...args, ...wantedArgs } },
    boundStep(step),
    { sql: RAISE_LOG_START, args },
    { sql: FORGET_KEYS, args },
    { sql: DELETE_RECORDS, args },
    ...forgetTimes(partitionId),
    { sql: FORGET_APPEND_TIMES, args },
    { sql: END_STEP, args },
  ];
}

/** Leaves in `trim_steps` no more than a step may do. */
export function boundStep({ partitionId, recordsMax }: StepOf): Statement {
  return {
    sql: BOUND_STEP,
    args: { partition_id: partitionId, records_max: recordsMax, bytes_max: STEP_BYTES_MAX },
  };
}
