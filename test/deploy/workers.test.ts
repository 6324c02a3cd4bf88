// What deploy/workers/ hands to wrangler. (That it runs: test/runtimes/workers.test.ts, and the conformance suite.)

import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { REPOSITORY, temporaryFolder } from "../support/server.ts";
import { HAS_SQLD } from "../support/sqld.ts";
import { readWorkerConfig, runWrangler, writeWorker } from "../support/worker.ts";

setDefaultTimeout(60_000); // where the machine has much else to do

const FOLDER = join(REPOSITORY, "deploy/workers");

test.skipIf(!HAS_SQLD)("wrangler takes the configuration, and finds the object and the modules", async () => {
  using folder = temporaryFolder();
  await writeWorker(folder.path);
  const child = runWrangler(["deploy", "--dry-run", "--outdir", "out"], folder.path);
  const [stdout, stderr, exitCode] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  expect(stdout).toContain("env.TIDEMARK (TidemarkServer)");
  expect(existsSync(join(folder.path, "out/workers.js"))).toBe(true);
});

test("what builds it is there, and is started by the Bun that everything else is started by", async () => {
  const { build } = await readWorkerConfig();
  const [, bun, script = ""] = String(Object(build).command).match(/^npx -y (bun@\S+) (\S+)$/) ?? [];
  expect(existsSync(join(FOLDER, script))).toBe(true);
  expect(existsSync(join(FOLDER, String(Object(build).watch_dir)))).toBe(true);
  expect(readFileSync(join(REPOSITORY, "README.md"), "utf8")).toContain(`npx -y ${bun} run dev`);
});

test("its page names the wrangler that the tests run", async () => {
  const { devDependencies } = await Bun.file(join(REPOSITORY, "package.json")).json();
  const named = readFileSync(join(FOLDER, "README.md"), "utf8").match(/wrangler@[\d.]+/g) ?? [];
  expect(named.length).toBeGreaterThan(1);
  expect(new Set(named)).toEqual(new Set([`wrangler@${devDependencies.wrangler}`]));
});
