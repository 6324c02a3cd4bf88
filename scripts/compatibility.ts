// bun run conformance: every check of test/conformance/ on every runtime, as a table. --write puts it into the README.

import { parseArgs } from "node:util";
import { writeReadme } from "../bench/readme.ts";
import { COLUMNS, type Column, canStart, startColumn } from "../test/conformance/matrix.ts";
import { runChecks } from "../test/conformance/run.ts";
import { CHECKS, planFor } from "../test/conformance/suite.ts";
import { type ColumnResults, columnName, compatibilityTable } from "../test/conformance/table.ts";
import { SQLD_SKIPPED } from "../test/support/sqld.ts";

const MARKER = "compatibility";

const { values: flags } = parseArgs({ options: { write: { type: "boolean", default: false } } });

if (flags.write && !COLUMNS.every(canStart)) throw new Error("--write is for a whole run: sqld is not here");
const columns: ColumnResults[] = [];
for (const column of COLUMNS) {
  if (canStart(column)) columns.push(await run(column));
  else console.error(`${columnName(column)}: ${SQLD_SKIPPED}`);
}
const table = compatibilityTable(columns);
console.log(table);
process.exitCode = columns.flatMap(reportFailures).length === 0 ? 0 : 1;
if (flags.write && process.exitCode === 0) await writeReadme(MARKER, table);

async function run(column: Column): Promise<ColumnResults> {
  const startedAtMs = performance.now();
  await using server = await startColumn(column);
  const results = await Promise.all(runChecks(server, planFor(column.runtime, CHECKS)));
  const seconds = ((performance.now() - startedAtMs) / 1_000).toFixed(1);
  console.error(`${columnName(column)}: ${results.length} checks in ${seconds} s`);
  return { ...column, results };
}

/** A line for each, which it returns too. */
function reportFailures(column: ColumnResults): readonly string[] {
  const lines = column.results.flatMap(({ area, name, outcome }) =>
    outcome.kind === "failed" ? [`${columnName(column)}, ${area}: ${name}: ${outcome.error}`] : [],
  );
  for (const line of lines) console.error(line);
  return lines;
}
