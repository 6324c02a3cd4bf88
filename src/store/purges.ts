// Owns `purges`: what deleted topics have left, deleted in bounded steps. What is still to be done is in the table, so a
// process that starts goes on where another was killed.

import { INTEGER_MAX } from "../protocol/limits.ts";
import { type Db, numberColumn } from "./db.ts";
import type { Operation } from "./operations.ts";
import { boundStep, STEP_END, type StepOf } from "./trims.ts";
import { FOUND_MAX, type StepOutcome, stepOperation } from "./upkeep-steps.ts";

const FIND_PURGES = `
  SELECT partition_id FROM purges WHERE partition_id > :after ORDER BY partition_id LIMIT :found_max`;

const BEGIN_STEP = `
  INSERT INTO trim_steps (partition_id, before)
  SELECT partition_id, :everything FROM purges WHERE partition_id = :partition_id`;

const DELETE_RECORDS = `DELETE FROM records WHERE partition_id = :partition_id AND offset < ${STEP_END}`;

const DELETE_TIMES = `
  DELETE FROM time_index
  WHERE partition_id = :partition_id AND ${STEP_END} IS NOT NULL
    AND offset <= (SELECT max(offset) FROM (
      SELECT offset FROM time_index WHERE partition_id = :partition_id ORDER BY offset LIMIT :records_max))`;

const DELETE_APPEND_TIMES = `
  DELETE FROM append_times WHERE partition_id = :partition_id AND ${STEP_END} IS NOT NULL`;

const END_STEP = "DELETE FROM trim_steps WHERE partition_id = :partition_id";

const END_PURGE = `
  DELETE FROM purges
  WHERE partition_id = :partition_id
    AND NOT EXISTS (SELECT 1 FROM records WHERE partition_id = :partition_id)
    AND NOT EXISTS (SELECT 1 FROM time_index WHERE partition_id = :partition_id)`;

const IS_LEFT = "SELECT 1 FROM purges WHERE partition_id = :partition_id";

/** The first partitions behind that one, by id, of which something is left. */
export async function findPurges(db: Db, after = 0): Promise<readonly number[]> {
  const rows = await db.read({ sql: FIND_PURGES, args: { after, found_max: FOUND_MAX } });
  return rows.map((row) => numberColumn(row, "partition_id"));
}

/** Deletes nothing of a partition that is not to be purged, and its row in `purges` with the last that is left. */
export function purgeStep(step: StepOf): Operation<StepOutcome> {
  const args = { partition_id: step.partitionId };
  return stepOperation([
    { sql: BEGIN_STEP, args: { ...args, everything: INTEGER_MAX } },
    boundStep(step),
    { sql: DELETE_RECORDS, args },
    { sql: DELETE_TIMES, args: { ...args, records_max: step.recordsMax } },
    { sql: DELETE_APPEND_TIMES, args },
    { sql: END_STEP, args },
    { sql: END_PURGE, args },
    { sql: IS_LEFT, args },
  ]);
}
