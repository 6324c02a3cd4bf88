// Moves a partition's log start up, step by step, with others' writes in between.

import type { LogBounds } from "../core/places.ts";
import { Problem } from "../core/problem.ts";
import { type Trim, trimStep } from "../store/trims.ts";
import type { WriteQueue } from "../store/write-queue.ts";

/**
 * Resolves when the last step is durable; undefined where the partition is gone. Rejects with `offset_out_of_range`
 * above the log end, and then nothing was deleted. What fails later leaves whole steps, and may be asked for again.
 */
export async function trimLog(queue: WriteQueue, trim: Trim): Promise<LogBounds | undefined> {
  for (;;) {
    const bounds = await queue.submit(trimStep(trim));
    if (!bounds || bounds.logStartOffset >= trim.before) return bounds;
    if (trim.before > bounds.logEndOffset) throw aboveLogEnd(trim.before, bounds);
  }
}

function aboveLogEnd(found: number, { logStartOffset, logEndOffset }: LogBounds): Problem {
  return new Problem(
    "offset_out_of_range",
    `Cannot delete the records before offset ${found}: log start offset is ${logStartOffset}, ` +
      `log end offset is ${logEndOffset}`,
    { found, logStartOffset, logEndOffset },
  );
}
