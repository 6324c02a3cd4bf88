// Power cuts under load: bun run torture --power [--cuts N] [--seed N] [--place file|sqld] [--control]. Linux, root.
//
// The table goes to standard output, progress to standard error. Exit 0: nothing was lost and nothing is wrong; with
// --control: what must lose has lost. 1: otherwise. 2: it could not be tried.

import { parseArgs } from "node:util";
import { type CutRow, lineOf, runPowerControls, runPowerCuts, TABLE_HEAD } from "./cuts.ts";
import { missingForPowerCuts } from "./disk.ts";

const CUTS_DEFAULT = 50;
/** Of a kind: with so many at least one loses something. */
const CONTROL_CUTS_DEFAULT = 8;
const FINDINGS_SHOWN = 10;

export interface PowerArguments {
  readonly cuts?: number | undefined;
  readonly seed?: number | undefined;
  readonly place?: "file" | "sqld" | undefined;
  readonly isControl?: boolean | undefined;
}

/** Resolves to the exit code. */
export async function powerMain({ cuts, seed, place, isControl = false }: PowerArguments): Promise<number> {
  const missing = missingForPowerCuts();
  if (missing !== undefined) {
    console.error(`power cuts need ${missing}`);
    return 2;
  }
  const interruption = new AbortController();
  const onInterrupt = () => {
    console.error("interrupted: the cut under way ends first, and everything is unmounted");
    interruption.abort();
  };
  process.on("SIGINT", onInterrupt);
  const options = {
    cuts: cuts ?? (isControl ? CONTROL_CUTS_DEFAULT : CUTS_DEFAULT),
    seed: seed ?? 1 + Math.floor(Math.random() * 1_000_000),
    place,
    report: (line: string) => console.error(line),
    signal: interruption.signal,
  };
  console.error(TABLE_HEAD);
  const rows = await (isControl ? runPowerControls(options) : runPowerCuts(options)).finally(() =>
    process.off("SIGINT", onInterrupt),
  );
  console.log([TABLE_HEAD, ...rows.map(lineOf)].join("\n"));
  if (interruption.signal.aborted) return 130;
  return isControl ? judgeControls(rows) : judgeCuts(rows);
}

function judgeCuts(rows: readonly CutRow[]): number {
  const wrong = rows.filter(({ findings }) => findings.length > 0);
  for (const { seed, findings } of wrong)
    console.log(`\nseed ${seed}:\n  ${findings.slice(0, FINDINGS_SHOWN).join("\n  ")}`);
  const { records, lost } = sumsOf(rows);
  console.log(
    `\n${rows.length} power cuts, ${lost} lost of ${records} records, ${wrong.length} cuts with anomalies`,
  );
  return wrong.length === 0 ? 0 : 1;
}

function judgeControls(rows: readonly CutRow[]): number {
  const kinds = [...new Set(rows.map(({ what }) => what))];
  const sums = kinds.map((kind) => ({ kind, ...sumsOf(rows.filter(({ what }) => what === kind)) }));
  for (const { kind, records, lost } of sums)
    console.log(`\n${kind}: ${lost} lost of ${records} records (${Math.round((100 * lost) / records)} %)`);
  return sums.every(({ lost }) => lost > 0) ? 0 : 1;
}

function sumsOf(rows: readonly CutRow[]): { readonly records: number; readonly lost: number } {
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  return { records: sum(rows.map(({ records }) => records)), lost: sum(rows.map(({ lost }) => lost)) };
}

/** Its message says how it is used. */
export class UsageError extends Error {}

export function readPowerArguments(argv: readonly string[]): PowerArguments {
  try {
    const { values } = parseArgs({
      args: [...argv],
      options: {
        cuts: { type: "string" },
        seed: { type: "string" },
        place: { type: "string" },
        control: { type: "boolean" },
      },
    });
    const { cuts, seed, place, control } = values;
    if (place !== undefined && place !== "file" && place !== "sqld")
      throw new UsageError(`--place is file or sqld, not ${place}`);
    if (place !== undefined && control)
      throw new UsageError("--control has its own places: leave --place out");
    return {
      cuts: wholeNumber("--cuts", cuts),
      seed: wholeNumber("--seed", seed),
      place,
      isControl: control,
    };
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function wholeNumber(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new UsageError(`${flag} is a whole number from 1, not ${text}`);
  return Number(text);
}
