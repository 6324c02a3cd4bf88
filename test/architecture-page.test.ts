// ARCHITECTURE.md names files and tests: it may not outlive them.

import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const repository = join(import.meta.dir, "..");
const page = readFileSync(join(repository, "ARCHITECTURE.md"), "utf8");

test("ARCHITECTURE.md names only files that are there", () => {
  const paths = [...page.matchAll(/`((?:[a-z-]+\/)*[a-z-]+(?:\.test)?\.ts)`/g)].map(([, path]) => path ?? "");
  expect(paths.length).toBeGreaterThan(20);
  const missing = paths.filter(
    (path) => !["", "src", "clients/typescript"].some((folder) => existsSync(join(repository, folder, path))),
  );
  expect(missing).toEqual([]);
});

test("RELIABILITY.md gives commands that are there", () => {
  const reliability = readFileSync(join(repository, "RELIABILITY.md"), "utf8");
  const { scripts } = JSON.parse(readFileSync(join(repository, "package.json"), "utf8"));
  const named = [...reliability.matchAll(/bun run ([a-z]+)/g)].map(([, script]) => script ?? "");
  expect(new Set(named)).toEqual(new Set(["torture", "simulate", "test"]));
  expect(named.filter((script) => !(script in scripts))).toEqual([]);
  const paths = [...reliability.matchAll(/\btest\/[a-z/-]+(?:\.test)?(?:\.ts)?/g)].map(([path]) => path);
  expect(paths.filter((path) => !existsSync(join(repository, path)))).toEqual([]);
});

test("ARCHITECTURE.md names for each invariant tests that are there", () => {
  const rowsOf = (kind: RegExp) => page.split("\n").filter((line) => kind.test(line));
  const [ofServer, ofClient] = [rowsOf(/^\| I\d+ \|/), rowsOf(/^\| C\d+ \|/)];
  expect([ofServer.length, ofClient.length]).toEqual([10, 6]);
  const rows = [...ofServer, ...ofClient];
  for (const row of rows) {
    const sources = [...row.matchAll(/`(test\/[^`]+\.test\.ts)`/g)].map(([, path]) =>
      readFileSync(join(repository, path ?? ""), "utf8"),
    );
    expect(sources.length).toBeGreaterThan(0);
    const claims = [...row.matchAll(/"([^"]+)"/g)].map(([, claim]) => claim ?? "");
    const lost = claims.filter((claim) => !sources.some((source) => source.includes(claim)));
    expect(lost).toEqual([]);
  }
});
