// docs/runtimes.md names files.

import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { REPOSITORY } from "./support/server.ts";

const PAGE = readFileSync(join(REPOSITORY, "docs/runtimes.md"), "utf8");

test("docs/runtimes.md names files that are there", () => {
  const named = [...PAGE.matchAll(/`((?:src|test)\/[\w./-]+)`/g)].map(([, path]) => path ?? "");
  const linked = [...PAGE.matchAll(/\]\(([^)]+)\)/g)].map(([, path]) => join("docs", path ?? ""));
  expect([named.length, linked.length]).toEqual([4, 5]);
  expect([...named, ...linked].filter((path) => !existsSync(join(REPOSITORY, path)))).toEqual([]);
});
