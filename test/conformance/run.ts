// Runs planned checks, some at once: what a check waits for is mostly the database's disk.

import type { ServerUnderTest } from "./check.ts";
import type { PlannedCheck } from "./suite.ts";

const AT_ONCE = 8;

export type Outcome =
  | { readonly kind: "passed" }
  | { readonly kind: "failed"; readonly error: unknown }
  | { readonly kind: "cannot" };

export interface CheckResult extends Pick<PlannedCheck, "area" | "name" | "lacks"> {
  readonly outcome: Outcome;
}

/** Begins all of them, in their order; each resolves by itself, and none rejects. */
export function runChecks(
  server: ServerUnderTest,
  planned: readonly PlannedCheck[],
): readonly Promise<CheckResult>[] {
  const enter = gate(AT_ONCE);
  return planned.map(async ({ area, name, lacks, check }) => {
    const outcome = check === undefined ? CANNOT_BE : await enter(() => outcomeOf(check(server)));
    return { area, name, ...(lacks === undefined ? {} : { lacks }), outcome };
  });
}

const CANNOT_BE: Outcome = { kind: "cannot" };

function outcomeOf(checked: Promise<void>): Promise<Outcome> {
  return checked.then(
    () => ({ kind: "passed" }),
    (error: unknown) => ({ kind: "failed", error }),
  );
}

/** Lets so many in at once, in the order in which they came. */
function gate(atOnce: number): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = [];
  let free = atOnce;
  return async (work) => {
    if (free > 0) free -= 1;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else free += 1;
    }
  };
}
