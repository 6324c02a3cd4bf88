// Every example in the client's docstrings and in the READMEs is type-checked, and run against a real server.

import { afterAll, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { FROM_SOURCE, run, typeCheck, URL_IN_EXAMPLES } from "../support/program.ts";
import { Output, REPOSITORY, startServer, type TestServer, temporaryFolder } from "../support/server.ts";
import { type Example, examplesIn } from "./examples.ts";
import { produceSampleOrders } from "./sample-orders.ts";

const TEST_TIMEOUT_MS = 60_000;
const CLIENT = "clients/typescript";

const folder = temporaryFolder();
afterAll(() => folder.remove());

const examples = sourcesOfDocs().flatMap((path) =>
  examplesIn(path, readFileSync(join(REPOSITORY, path), "utf8")),
);

function sourcesOfDocs(): readonly string[] {
  const names = readdirSync(join(REPOSITORY, CLIENT), { recursive: true }).map(String);
  const isOurs = (name: string) => /\.tsx?$/.test(name) && !/^(dist|node_modules)\//.test(name);
  return ["README.md", `${CLIENT}/README.md`, ...names.filter(isOurs).map((name) => `${CLIENT}/${name}`)];
}

test("the READMEs have an example, and so has connect()", () => {
  const paths = examples.map(({ at }) => at.replace(/:\d+$/, ""));
  expect(paths).toContain("README.md");
  expect(paths).toContain(`${CLIENT}/README.md`);
  expect(paths).toContain(`${CLIENT}/client.ts`);
});

test("the README links to pages that are there", () => {
  const page = readFileSync(join(REPOSITORY, CLIENT, "README.md"), "utf8");
  const links = [...page.matchAll(/\]\(([^)#]+)\)/g)].map(([, link]) => link ?? "");
  expect(links.length).toBeGreaterThan(0);
  const isOurs = (link: string) => !link.startsWith("https:");
  expect(links.filter(isOurs).filter((link) => !existsSync(join(REPOSITORY, CLIENT, link)))).toEqual([]);
});

test("every example connects to the one URL that the tests put a real server behind", () => {
  expect(examples.filter(({ text }) => !text.includes(URL_IN_EXAMPLES)).map(({ at }) => at)).toEqual([]);
});

test(
  "every example type-checks",
  async () => {
    const place = join(folder.path, "types");
    await Promise.all(examples.map(({ at, text }) => Bun.write(join(place, fileNameOf(at)), text)));
    expect(await typeCheck(place, FROM_SOURCE)).toBe("");
  },
  TEST_TIMEOUT_MS,
);

/** So that a complaint of the compiler says where the example is. */
function fileNameOf(at: string): string {
  return `${at.replaceAll("/", "-").replace(":", "-line-")}.ts`;
}

test.each(examples)(
  "the example at $at runs",
  async (example) => {
    const place = join(folder.path, "runs", fileNameOf(example.at));
    await using server = await startServer(join(folder.path, `${fileNameOf(example.at)}.db`));
    await produceSampleOrders(server);
    const command = await writeProgram(example, { place, server });
    if (example.isEndless) return await expectLine(command, place);
    const { exitCode, stderr } = await run(command, place);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  },
  TEST_TIMEOUT_MS,
);

/** Returns the command that runs it. */
async function writeProgram(
  { text }: Example,
  { place, server }: { place: string; server: TestServer },
): Promise<readonly string[]> {
  await Bun.write(join(place, "tsconfig.json"), JSON.stringify({ compilerOptions: FROM_SOURCE }));
  await Bun.write(join(place, "example.ts"), text.replaceAll(URL_IN_EXAMPLES, server.url));
  return [process.execPath, "example.ts"];
}

async function expectLine(command: readonly string[], cwd: string): Promise<void> {
  const child = Bun.spawn([...command], { cwd, stdout: "pipe", stderr: "pipe" });
  const stdout = new Output(child.stdout, child);
  const stderr = new Output(child.stderr, child);
  const hasPrinted = await stdout.until(/\n/);
  child.kill("SIGKILL");
  expect({ hasPrinted, stderr: await stderr.whole }).toEqual({ hasPrinted: true, stderr: "" });
}

// ── how examples are found ───────────────────────────────────────────────────────────────────────────────

const SOURCE = `
/**
 * Does it.
 *
 * @example
 * \`\`\`ts
 * const one = 1;
 *
 * if (one) { f(); }
 * \`\`\`
 */
export function f() {}

  /**
   * @example At length:
   * \`\`\`ts endless
   * g();
   * \`\`\`
   */
const text = "\`\`\`ts";
`;

test("examplesIn() finds the programs of docstrings, with the lines where they begin", () => {
  expect(examplesIn("a.ts", SOURCE)).toEqual([
    { at: "a.ts:7", text: "const one = 1;\n\nif (one) { f(); }\n", isEndless: false },
    { at: "a.ts:17", text: "g();\n", isEndless: true },
  ]);
});

test("examplesIn() finds the programs of a page, and leaves the rest", () => {
  const page = "# A\n\n```sh\nnpm i\n```\n\n```ts\nf();\n```\n\n```\nout\n```\n";
  expect(examplesIn("A.md", page)).toEqual([{ at: "A.md:8", text: "f();\n", isEndless: false }]);
});

test.each([
  ["a fence that does not end", "A.md", "```ts\nf();\n", "A.md:2 is in a fence that does not end"],
  ["a program by another name", "A.md", "```js\nf();\n```\n", 'A.md:2 is fenced as "js"'],
  ["a program with a word too many", "A.md", "```ts twice\n```\n", 'A.md:2 is fenced as "ts twice"'],
  ["a program in a list", "A.md", "1. Do:\n\n   ```ts\n   f();\n   ```\n", "A.md:4 is indented"],
  ["an @example in prose", "a.ts", "/**\n * @example f();\n */\n", "a.ts:2 has an @example without"],
])("examplesIn() refuses %s", (_, path, text, message) => {
  expect(() => examplesIn(path, text)).toThrow(message);
});
