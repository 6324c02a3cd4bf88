// The flags of the command. Whatever is not one of them is refused.

import { SCENARIOS } from "./scenarios.ts";

export interface Flags {
  readonly minutes: number;
  /** Each scenario once, with as many faults as its figure wants; no clock. */
  readonly isFigures: boolean;
  readonly scenarios: readonly string[];
  /** Undefined: as many as the scenario's figure. */
  readonly faults: number | undefined;
  readonly seed: number;
  /** Undefined: a history is kept only where something is wrong, in a temporary folder. */
  readonly historyPath: string | undefined;
}

export class FlagError extends Error {}

const MINUTES = 5;
const USAGE = `bun run torture [--minutes N] [--figures] [--scenario NAME]… [--kills N] [--seed N] [--history FILE]
  --minutes N      the scenarios in turn until the time is over (${MINUTES})
  --figures        each scenario once, until its figure is reached, however long it takes
  --scenario NAME  only this one, or these: ${SCENARIOS.map(({ name }) => name).join(", ")}
  --kills N        so many faults a scenario at the most
  --seed N         of what is done, and when; without it another one each time
  --history FILE   keeps every history there, with the number of the run in front of its ending
  --power          instead: the power goes, again and again (its flags: --cuts N, --seed N, --place file|sqld, --control)`;

export function readFlags(args: readonly string[]): Flags {
  const given = new Map<string, string[]>();
  for (let at = 0; at < args.length; at += 1) {
    const flag = args[at] ?? "";
    const value = flag === "--figures" ? "" : args[++at];
    const isKnown = ["--minutes", "--figures", "--scenario", "--kills", "--seed", "--history"].includes(flag);
    if (!isKnown || value === undefined) throw new FlagError(`what is "${flag}"?\n${USAGE}`);
    given.set(flag, [...(given.get(flag) ?? []), value]);
  }
  const scenarios = given.get("--scenario") ?? SCENARIOS.map(({ name }) => name);
  const unknown = scenarios.find((name) => !SCENARIOS.some((scenario) => scenario.name === name));
  if (unknown !== undefined) throw new FlagError(`there is no scenario "${unknown}"\n${USAGE}`);
  const number = (flag: string) => positive(flag, given.get(flag)?.at(-1));
  return {
    minutes: number("--minutes") ?? MINUTES,
    isFigures: given.has("--figures"),
    scenarios,
    faults: number("--kills"),
    seed: number("--seed") ?? Date.now() % 1_000_000,
    historyPath: given.get("--history")?.at(-1),
  };
}

function positive(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const number = Number(text);
  if (!(number > 0)) throw new FlagError(`${flag} ${text} is not a number above 0\n${USAGE}`);
  return number;
}
