// What everybody is given: the earthquakes, JSON values of about 200 bytes, in the same batches.

import { readEarthquakes } from "../test/support/earthquakes.ts";

export const BATCH_RECORDS = 1_000;
/** Batches under way at once. */
export const LANES = 4;
/** Clients that produce one record each and wait for the answer. */
export const SINGLE_CLIENTS = 64;

export interface Input {
  /** A multiple of BATCH_RECORDS values, each the text of a JSON object. */
  readonly values: readonly string[];
  readonly batches: readonly (readonly string[])[];
  /** How many the clients of the workload "single" produce together. */
  readonly singles: number;
}

/** The catalogue from its beginning, as often as it takes. */
export function inputOf(records: number, singles: number): Input {
  const { lines } = readEarthquakes();
  const values = Array.from({ length: records }, (_, index) => lines[index % lines.length] ?? "");
  const batches = Array.from({ length: records / BATCH_RECORDS }, (_, batch) =>
    values.slice(batch * BATCH_RECORDS, (batch + 1) * BATCH_RECORDS),
  );
  return { values, batches, singles };
}

/** Runs `each` on all items, that many at once. */
export async function inLanes<T>(
  lanes: number,
  items: readonly T[],
  each: (item: T, lane: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const lane = async (_: unknown, index: number) => {
    while (next < items.length) {
      const item = items[next++] as T; // next is below the length
      await each(item, index);
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}

/** Per second. */
export async function rateOf(count: number, run: () => Promise<void>): Promise<{ readonly rate: number }> {
  const startMs = performance.now();
  await run();
  return { rate: (count / (performance.now() - startMs)) * 1_000 };
}
