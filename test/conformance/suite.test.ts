// The suite itself: what it may use, how it replaces what a runtime cannot do, and how its results become a table.

import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { AREAS, type Check, type ServerUnderTest } from "./check.ts";
import { heartbeats } from "./heartbeats.ts";
import { type CheckResult, type Outcome, runChecks } from "./run.ts";
import { CANNOT, CHECKS, planFor } from "./suite.ts";
import { type ColumnResults, compatibilityTable } from "./table.ts";

/** They start servers, or are tests. */
const MAY_USE_BUN = new Set(["matrix.ts", "conformance.test.ts", "suite.test.ts"]);
const PORTABLE = readdirSync(import.meta.dir).filter((file) => !MAY_USE_BUN.has(file));
const SERVER: ServerUnderTest = { url: "", streamUrl: "", runtime: "bun", database: "file" };

const noPongs = { bun: {}, deno: { protocolPings: "has none" }, workers: {} };
const nothing = async () => {};
const opposite = { name: "is closed", check: async () => {} };

describe("the checks", () => {
  test("have names of their own within their area, and every area has some", () => {
    const all = [...CHECKS, ...heartbeats].map(({ area, name }) => `${area}: ${name}`);
    expect(all).toHaveLength(new Set(all).size);
    expect(new Set([...CHECKS, ...heartbeats].map(({ area }) => area))).toEqual(new Set(AREAS));
  });

  test.each(PORTABLE)("use what every runtime has: %s", (file) => {
    const text = readFileSync(join(import.meta.dir, file), "utf8");
    const imports = [...text.matchAll(/from "([^"]+)"/g)].map(([, path = ""]) => path);
    const foreign = imports.filter((path) => !/^\.\/[\w-]+\.ts$/.test(path) && path !== "node:assert/strict");
    expect(foreign.filter((path) => path !== "../../src/protocol/frames.ts")).toEqual([]);
    expect(text).not.toMatch(/\b(Bun|Deno|process|Buffer|require)\b[.(]/);
  });
});

describe("planFor()", () => {
  const needy: Check = { area: "stream", name: "stays", needs: "protocolPings", check: nothing };

  test("leaves a check as it is where the runtime can do it", () => {
    expect(planFor("bun", [needy], noPongs)).toEqual([{ area: "stream", name: "stays", check: nothing }]);
  });

  test("puts the opposite in its place where it cannot", () => {
    const planned = planFor("deno", [{ ...needy, otherwise: opposite }], noPongs);
    expect(planned).toEqual([{ area: "stream", lacks: "protocolPings", ...opposite }]);
  });

  test("keeps it without a check where the opposite cannot be checked", () => {
    const planned = planFor("deno", [needy], noPongs);
    expect(planned).toEqual([{ area: "stream", name: "stays", lacks: "protocolPings" }]);
  });

  test("replaces what is declared and nothing else, on each runtime", () => {
    for (const runtime of ["bun", "deno", "workers"] as const) {
      const replaced = planFor(runtime, [...CHECKS, ...heartbeats]).flatMap(({ lacks }) => lacks ?? []);
      expect(replaced.filter((ability) => CANNOT[runtime][ability] === undefined)).toEqual([]);
    }
    expect(planFor("deno", heartbeats).map(({ lacks }) => lacks)).toEqual([undefined, "protocolPings"]);
  });
});

describe("runChecks()", () => {
  const planned = (name: string, check?: () => Promise<void>) => ({
    area: "stream" as const,
    name,
    ...(check && { check }),
  });

  test("says of each whether it passed, failed or cannot be", async () => {
    const error = new Error("no records");
    const checks = [planned("a", nothing), planned("b", () => Promise.reject(error)), planned("c")];
    const outcomes = (await Promise.all(runChecks(SERVER, checks))).map(({ name, outcome }) => [
      name,
      outcome,
    ]);
    expect(outcomes).toEqual([
      ["a", { kind: "passed" }],
      ["b", { kind: "failed", error }],
      ["c", { kind: "cannot" }],
    ]);
  });

  test("runs eight at once, and begins the next when one of them is done", async () => {
    const done: (() => void)[] = [];
    const check = () => new Promise<void>((resolve) => done.push(resolve));
    const results = runChecks(
      SERVER,
      Array.from({ length: 10 }, (_, n) => planned(`${n}`, check)),
    );
    expect(done).toHaveLength(8);
    done[3]?.();
    await results[3];
    expect(done).toHaveLength(9);
    for (let n = 0; n < 10; n += 1) {
      done[n]?.();
      if (n !== 3) await results[n];
    }
    expect(done).toHaveLength(10);
  });
});

describe("compatibilityTable()", () => {
  const result = (area: CheckResult["area"], outcome: Outcome): CheckResult => ({ area, name: "n", outcome });
  const failed: Outcome = { kind: "failed", error: new Error("e") };
  const passed: Outcome = { kind: "passed" };

  test("counts what passed in each area, in the order of the areas", () => {
    const columns: readonly ColumnResults[] = [
      { runtime: "bun", database: "file", results: [result("stream", failed), result("topics", passed)] },
      { runtime: "bun", database: "sqld", results: [result("stream", passed), result("stream", failed)] },
    ];
    expect(compatibilityTable(columns).split("\n")).toEqual([
      "|  | Bun, file | Bun, sqld |",
      "| --- | --- | --- |",
      "| topics | 1 of 1 | 0 of 0 |",
      "| stream | 0 of 1 | 1 of 2 |",
    ]);
  });

  test("says beside a count what cannot be, and below it why", () => {
    const results = [result("stream", passed), result("stream", { kind: "cannot" })];
    const columns: readonly ColumnResults[] = [
      { runtime: "deno", database: "file", results },
      { runtime: "workers", database: "sqld", results },
    ];
    const [, , row, , ...notes] = compatibilityTable(columns).split("\n");
    expect(row).toBe("| stream | 1 of 1, 1 cannot be | 1 of 1, 1 cannot be |");
    expect(notes).toEqual([
      expect.stringMatching(/^- Deno tells a server of no protocol-level pongs: .*\.$/),
      expect.stringMatching(/^- Workers tells a server of no protocol-level pongs: .*\.$/),
      expect.stringMatching(/^- Workers has no files: .*\.$/),
    ]);
  });
});
