// Who is silent, on every runtime: the checks of test/conformance/ that take real time.

import { expect, test } from "bun:test";
import { heartbeats } from "../conformance/heartbeats.ts";
import { canStart, ONE_COLUMN_EACH, startColumn } from "../conformance/matrix.ts";
import { runChecks } from "../conformance/run.ts";
import { planFor } from "../conformance/suite.ts";
import { columnName } from "../conformance/table.ts";
import { describeLong } from "../support/long.ts";

const TEST_TIMEOUT_MS = 90_000;

describeLong("heartbeats", "waits for three pings and one more", () => {
  for (const column of ONE_COLUMN_EACH.filter(canStart))
    test(
      columnName(column),
      async () => {
        await using server = await startColumn(column);
        const results = await Promise.all(runChecks(server, planFor(column.runtime, heartbeats)));
        const passed = results.map(({ name }) => ({ name, outcome: { kind: "passed" } }));
        expect(results.map(({ name, outcome }) => ({ name, outcome }))).toEqual(passed as typeof results);
      },
      TEST_TIMEOUT_MS,
    );
});
