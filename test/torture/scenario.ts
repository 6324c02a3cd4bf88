// What a scenario is. Each does one kind of harm to servers under load.

import type { Bout, Verdict } from "./bout.ts";

export interface Scenario {
  readonly name: string;
  /** What one fault is, in the plural, for the table. */
  readonly faults: string;
  /** How many make the figure. */
  readonly figure: number;
  /** Why it cannot be run here; undefined where it can. */
  readonly skipped?: () => string | undefined;
  run(bout: Bout): Promise<Verdict>;
}
