import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { MIGRATIONS } from "../../src/store/migration-scripts.ts";
import { SCHEMA_VERSION } from "../../src/store/migrations.ts";

const FOLDER = join(import.meta.dir, "../../migrations");

test("MIGRATIONS are the files of migrations/, all of them and in order, up to the version that the server wants", () => {
  const files = readdirSync(FOLDER).toSorted();
  expect(files.map((name) => Number.parseInt(name, 10))).toEqual(files.map((_, index) => index + 1));
  expect(MIGRATIONS).toEqual(files.map((name) => readFileSync(join(FOLDER, name), "utf8")));
  expect(MIGRATIONS).toHaveLength(SCHEMA_VERSION);
});
