// The table of compatibility, made of what a run has found.

import { AREAS, type Database, type Runtime } from "./check.ts";
import type { CheckResult } from "./run.ts";
import { CANNOT } from "./suite.ts";

export interface ColumnResults {
  readonly runtime: Runtime;
  readonly database: Database;
  readonly results: readonly CheckResult[];
}

const RUNTIME_NAMES: Readonly<Record<Runtime, string>> = { bun: "Bun", deno: "Deno", workers: "Workers" };

export function columnName({ runtime, database }: Pick<ColumnResults, "runtime" | "database">): string {
  return `${RUNTIME_NAMES[runtime]}, ${database}`;
}

/** Markdown: a row for each area that has checks, a column for each server, and below it what a runtime cannot do. */
export function compatibilityTable(columns: readonly ColumnResults[]): string {
  const areas = AREAS.filter((area) => columns.some((column) => resultsOf(column, area).length > 0));
  const rows = areas.map((area) => [area, ...columns.map((column) => cellOf(resultsOf(column, area)))]);
  const head = ["", ...columns.map(columnName)];
  const rule = head.map(() => "---");
  const table = [head, rule, ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
  const notes = notesOf(columns);
  return notes.length === 0 ? table : `${table}\n\n${notes.join("\n")}`;
}

/** "11 of 12": what cannot be is not counted, and said beside it. */
function cellOf(results: readonly CheckResult[]): string {
  const passed = results.filter(({ outcome }) => outcome.kind === "passed").length;
  const missing = results.filter(({ outcome }) => outcome.kind === "cannot").length;
  const count = `${passed} of ${results.length - missing}`;
  return missing === 0 ? count : `${count}, ${missing} cannot be`;
}

function resultsOf({ results }: ColumnResults, area: CheckResult["area"]): readonly CheckResult[] {
  return results.filter((result) => result.area === area);
}

function notesOf(columns: readonly ColumnResults[]): readonly string[] {
  const runtimes = [...new Set(columns.map(({ runtime }) => runtime))];
  return runtimes.flatMap((runtime) =>
    Object.values(CANNOT[runtime]).map((why) => `- ${RUNTIME_NAMES[runtime]} ${why}.`),
  );
}
