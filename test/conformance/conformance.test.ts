// Every runtime, with every database that it can have, does what the contract says: one server a column, and all checks
// at it. Each check is a test; one whose server does not start fails.

import { afterAll, describe, expect, test } from "bun:test";
import { readReadme } from "../../bench/readme.ts";
import { isLongRun } from "../support/long.ts";
import { SQLD_SKIPPED } from "../support/sqld.ts";
import {
  COLUMNS,
  type Column,
  canStart,
  ONE_COLUMN_EACH,
  type StartedColumn,
  startColumn,
} from "./matrix.ts";
import { type CheckResult, runChecks } from "./run.ts";
import { CHECKS, planFor } from "./suite.ts";
import { type ColumnResults, columnName, compatibilityTable } from "./table.ts";

/** For the start of a server too: its column's first test waits for it. */
const TEST_TIMEOUT_MS = 90_000;

/** One server, started when its first test asks for it, and the results of all its checks. */
class ColumnRun {
  readonly column: Column;
  #server: Promise<StartedColumn> | undefined;
  #results: Promise<readonly Promise<CheckResult>[]> | undefined;

  constructor(column: Column) {
    this.column = column;
  }

  async resultAt(index: number): Promise<CheckResult> {
    if (!isLongRun) for (const run of runs) run.#begin().catch(() => {}); // its own tests say so
    const result = (await this.#begin())[index];
    if (!result) throw new Error(`there is no check ${index}`);
    return result;
  }

  async all(): Promise<ColumnResults> {
    return { ...this.column, results: await Promise.all(await this.#begin()) };
  }

  async end(): Promise<void> {
    if (this.#server) await (await this.#server)[Symbol.asyncDispose]();
  }

  #begin(): Promise<readonly Promise<CheckResult>[]> {
    this.#server ??= startColumn(this.column);
    this.#results ??= this.#server.then((server) => runChecks(server, planFor(server.runtime, CHECKS)));
    return this.#results;
  }
}

const runs = (isLongRun ? COLUMNS : ONE_COLUMN_EACH).filter(canStart).map((column) => new ColumnRun(column));
if (!isLongRun)
  console.warn(
    "Bun and Deno on sqld, and the README's table: skipped, because they take as long again. TIDEMARK_LONG=1 runs them.",
  );
for (const column of COLUMNS.filter((each) => !canStart(each)))
  console.warn(`${columnName(column)}: ${SQLD_SKIPPED}`);

for (const run of runs) {
  describe(columnName(run.column), () => {
    afterAll(() => run.end());

    for (const [index, { area, name }] of planFor(run.column.runtime, CHECKS).entries())
      test(
        `${area}: ${name}`,
        async () => {
          const { outcome } = await run.resultAt(index);
          if (outcome.kind === "failed") throw outcome.error;
        },
        TEST_TIMEOUT_MS,
      );
  });
}

describe("README.md", () => {
  test.skipIf(runs.length < COLUMNS.length)("shows the table of this run", async () => {
    const columns = await Promise.all(runs.map((run) => run.all()));
    expect(await readReadme("compatibility")).toBe(compatibilityTable(columns));
  });
});
