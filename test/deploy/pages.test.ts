// The pages of deploy/ are followed by hand, at worst at night: what they name is there, and what they promise comes.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { DENO_PERMISSIONS, REPOSITORY, startServer, temporaryFolder } from "../support/server.ts";
import { linksOf, type PageStep, readPage, SETTING, wordsOfProse } from "./pages.ts";

setDefaultTimeout(60_000); // where the machine has much else to do

const STEPS_MAX = 10;
const PAGES = ["docker", "compose", "fly", "workers", "deno"].map((way) => readPage(`${way}/README.md`));
const OVERVIEW = readPage("README.md");
/** Deno's own flags beside the server's. */
const KNOWN = `${usage()} ${DENO_PERMISSIONS.join(" ")}`;
/** Whoever pastes has these. */
const UNABLE = ["bash", "curl"].some((name) => Bun.which(name) === null);

/** What the program says of itself to whoever gives it no command. */
function usage(): string {
  return Bun.spawnSync([process.execPath, join(REPOSITORY, "src/runtimes/bun.ts")]).stderr.toString();
}

function readDeploy(path: string): string {
  return readFileSync(join(REPOSITORY, "deploy", path), "utf8");
}

function isKnown(setting: string): boolean {
  return KNOWN.split(/[\s,]+/).includes(setting);
}

describe.each(PAGES.map((page) => [page.path, page] as const))("deploy/%s", (_, page) => {
  test("has at most ten steps, in order, each with something to paste and what it shows", () => {
    expect(page.steps.length).toBeGreaterThan(3);
    expect(page.steps.length).toBeLessThanOrEqual(STEPS_MAX);
    expect(page.steps.map(({ number }) => number)).toEqual(page.steps.map((_step, index) => index + 1));
    for (const { number, commands } of page.steps)
      expect({ number, commands }).not.toMatchObject({ commands: "" });
    const unsaid = page.steps.filter((step) => step.answer === undefined && !saysWhatItShows(step));
    expect(unsaid.map(({ number }) => number)).toEqual([]);
  });

  test("names files that are there", () => {
    const paths = page.text.match(/\b(?:deploy|src|test|migrations)\/[\w./-]*\w/g) ?? [];
    expect(paths.length).toBeGreaterThan(0);
    expect(paths.filter((path) => !existsSync(join(REPOSITORY, path)))).toEqual([]);
  });

  test.skipIf(UNABLE)("promises answers that a server gives, command by command", async () => {
    using folder = temporaryFolder();
    await using server = await startServer(join(folder.path, "t.db"), { mode: "serve" });
    const asked = page.steps.filter(({ commands }) => commands.startsWith("curl "));
    expect(asked.filter(({ answer }) => answer !== undefined).length).toBeGreaterThan(1);
    for (const step of asked) expect(await pasted(step, server.url)).toBe(step.answer ?? "");
  });
});

describe.each([OVERVIEW, ...PAGES].map((page) => [page.path, page] as const))("deploy/%s", (_, page) => {
  test("links to pages that are there", () => {
    expect(
      linksOf(page).filter((link) => !existsSync(join(REPOSITORY, "deploy", dirname(page.path), link))),
    ).toEqual([]);
  });

  test("names flags and variables that the server has", () => {
    const flags = wordsOfProse(page).flatMap((word) => word.match(/^--[a-z-]+/) ?? []);
    const variables = page.text.match(SETTING) ?? [];
    expect([...flags, ...variables].filter((setting) => !isKnown(setting))).toEqual([]);
  });
});

test("the program tells of its flags and variables", () => {
  expect(usage()).toMatch(/ --auto-create +TIDEMARK_AUTO_CREATE /);
});

test("deploy/README.md has a line for each way", () => {
  const ways = OVERVIEW.text.match(/^\| \[.*\]\(.*\) \| .+ \|$/gm) ?? [];
  expect(ways).toHaveLength(5);
  expect(linksOf(OVERVIEW)).toEqual(PAGES.map(({ path }) => path));
});

test.each(["docker/Dockerfile", "compose/compose.yaml", "fly/fly.toml"])(
  "deploy/%s sets variables that the server has",
  (path) => {
    const variables = readDeploy(path).match(SETTING) ?? [];
    expect(variables).toContain("TURSO_DATABASE_URL");
    expect(variables.filter((variable) => !isKnown(variable))).toEqual([]);
  },
);

function saysWhatItShows({ text }: PageStep): boolean {
  return /\b[Ii]t\s+shows\b/.test(text.split("```")[0] ?? "");
}

async function pasted({ commands }: PageStep, url: string): Promise<string> {
  const child = Bun.spawn(["bash", "-ec", commands.replaceAll("http://127.0.0.1:4500", url)], {
    stderr: "pipe",
  });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  if ((await child.exited) !== 0) throw new Error(`${commands}${stderr}`);
  return stdout.trimEnd();
}
