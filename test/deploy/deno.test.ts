// What deno.json says of the ways to start. (That they start: test/runtimes/deno.test.ts.)

import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { DENO_PERMISSIONS, REPOSITORY } from "../support/server.ts";

const { tasks, deploy } = await Bun.file(join(REPOSITORY, "deno.json")).json();

test.each(Object.entries<string>(tasks))(
  "deno task %s gives the permissions, and starts what is there",
  (_, task) => {
    const flags = task.match(/--allow-\w+/g) ?? [];
    expect(new Set(flags)).toEqual(new Set(DENO_PERMISSIONS));
    const entries = task.match(/\S+\.ts/g) ?? [];
    expect(entries).toHaveLength(1);
    expect(existsSync(join(REPOSITORY, entries[0] ?? ""))).toBe(true);
  },
);

test("deno task serve listens on this machine only", () => {
  expect(tasks.serve).toContain("--host 127.0.0.1 --port 4500");
});

test("Deno Deploy starts what is there", () => {
  expect(deploy.install).toBe("deno install --prod");
  expect(existsSync(join(REPOSITORY, deploy.runtime.entrypoint))).toBe(true);
});
