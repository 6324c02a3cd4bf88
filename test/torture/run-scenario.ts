// One scenario, from a fresh stage to the verdict.

import { Bout, type BoutOptions, type Verdict } from "./bout.ts";
import type { Scenario } from "./scenario.ts";

export interface Judged extends Verdict {
  readonly scenario: string;
  readonly runtime: string;
  readonly seconds: number;
}

/** `historyPath`: the history is kept there if anything is wrong, or always where `isKept`. */
export async function runScenario(
  scenario: Scenario,
  options: BoutOptions & { readonly historyPath: string; readonly isKept: boolean },
): Promise<Judged> {
  const startedAtMs = Date.now();
  await using bout = new Bout(options);
  const verdict = await scenario.run(bout).catch((error: unknown) => failed(bout, error));
  if (options.isKept || verdict.wrong.length > 0) bout.recorder.save(options.historyPath);
  const seconds = Math.round((Date.now() - startedAtMs) / 1_000);
  return { ...verdict, scenario: scenario.name, runtime: bout.stage.runtime, seconds };
}

/** What it was told until then is worth a look. */
function failed({ load, faults }: Bout, error: unknown): Verdict {
  const { acknowledged, unknown, settled, recordsRead } = load.tally;
  const wrong = [`the scenario broke off: ${Bun.inspect(error)}`, ...load.problems];
  return { faults, acknowledged, unknown, settled, recordsRead, wrong, notes: [] };
}
