// The client as it is published: built, packed, installed where there is nothing else, checked and run.

import { afterAll, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { connect } from "@tidemark/client";
import { connect as connectOfSource } from "../../clients/typescript/client.ts";
import { buildClient } from "../../scripts/build-client.ts";
import { HAS_NODE, NODE, NODE_SKIPPED } from "../support/node.ts";
import { run, succeed, typeCheck, URL_IN_EXAMPLES } from "../support/program.ts";
import { DENO, REPOSITORY, startServer, temporaryFolder } from "../support/server.ts";

const TEST_TIMEOUT_MS = 60_000;

const PROGRAM = `
import { type Client, connect, TidemarkError } from "@tidemark/client";
import { connect as connectConsumer, FencedError } from "@tidemark/client/consumer";

// @ts-expect-error: the types are there, and say that a URL is wanted
const mistake = () => connect({});

const url = "${URL_IN_EXAMPLES}";
const client: Client = connect({ url });
const { runs } = await client.produce("demo", { value: "x" });
const consuming = connectConsumer({ url });
for await (const { records } of consuming.consume("demo", { group: "g" })) {
  console.log(records[0]?.value, runs[0]?.offset, typeof mistake);
  break;
}
await consuming.close();
await client.close();
const late = await client.produce("demo", { value: "y" }).catch((error) => error);
console.log(late instanceof TidemarkError && !(late instanceof FencedError) && late.code);
`;
const PRINTED = "x 0 function\nclosed\n";

const folder = temporaryFolder();
afterAll(() => folder.remove());
const dist = join(folder.path, "dist");
const project = join(folder.path, "project");

const { npm, jsr } = await buildClient(dist);
const tarball = await pack(npm);
await install(tarball);
const installed = join(project, "node_modules/@tidemark/client");

async function pack(source: string): Promise<string> {
  await succeed([process.execPath, "pm", "pack", "--destination", folder.path], source);
  const [name = ""] = readdirSync(folder.path).filter((each) => each.endsWith(".tgz"));
  return join(folder.path, name);
}

/** With an empty cache, and a registry where nobody answers: whatever is needed beside the tarball would be missed. */
async function install(path: string): Promise<void> {
  mkdirSync(project);
  await Bun.write(join(project, "package.json"), '{"private":true,"type":"module"}');
  const alone = ["--registry", "http://127.0.0.1:9", "--cache-dir", join(folder.path, "cache")];
  await succeed([process.execPath, "add", ...alone, path], project);
}

// ── what is in it ────────────────────────────────────────────────────────────────────────────────────────

test("the manifests agree with each other and with the repository's", async () => {
  const named = await Promise.all(
    ["package.json", "clients/typescript/package.json", "clients/typescript/jsr.json"].map(readManifest),
  );
  const [root, ...clients] = named;
  const { version, license } = root ?? {};
  for (const client of clients) expect(client).toMatchObject({ name: "@tidemark/client", version, license });
});

interface Manifest {
  readonly version: string;
  readonly license: string;
}

async function readManifest(path: string): Promise<Manifest> {
  return await Bun.file(join(REPOSITORY, path)).json();
}

test("what is published is not private and depends on nothing", async () => {
  const manifest = await Bun.file(join(installed, "package.json")).json();
  expect(Object.keys(manifest).filter((key) => /private|dependencies|scripts|bin$/i.test(key))).toEqual([]);
  expect(manifest).toMatchObject({ type: "module", sideEffects: false });
});

test("clients/typescript itself is refused by npm, and names no export for JSR: its protocol is elsewhere", async () => {
  expect(await Bun.file(join(REPOSITORY, "clients/typescript/package.json")).json()).toHaveProperty(
    "private",
    true,
  );
  expect(await Bun.file(join(REPOSITORY, "clients/typescript/jsr.json")).json()).not.toHaveProperty(
    "exports",
  );
});

test("the tarball holds the client, the plain protocol and the papers, and no word of this machine", () => {
  const files = filesIn(installed);
  const isExpected = (path: string) =>
    /^(package\.json|README\.md|LICENSE)$/.test(path) ||
    /^(clients\/typescript|src\/protocol)\/[a-z0-9-]+\.(js|d\.ts)$/.test(path);
  expect(files.filter((path) => !isExpected(path))).toEqual([]);
  for (const paper of ["package.json", "README.md", "LICENSE"]) expect(files).toContain(paper);
  expect(files.filter((path) => /test/.test(path))).toEqual([]);
  const namesMachine = (path: string) =>
    [REPOSITORY, folder.path].some((place) => readFileSync(join(installed, path), "utf8").includes(place));
  expect(files.filter(namesMachine)).toEqual([]);
});

test("everything that a file of the tarball imports is in the tarball", () => {
  const transpiler = new Bun.Transpiler({ loader: "js" });
  const files = filesIn(installed);
  const imports = files
    .filter((path) => path.endsWith(".js"))
    .flatMap((path) =>
      transpiler.scanImports(readFileSync(join(installed, path), "utf8")).map((found) => ({
        path,
        specifier: found.path,
        target: join(path, "..", found.path),
      })),
    );
  expect(imports.length).toBeGreaterThan(5);
  const isThere = ({ specifier, target }: (typeof imports)[number]) =>
    specifier.startsWith(".") && files.includes(target);
  expect(imports.filter((each) => !isThere(each))).toEqual([]);
});

const npmProgram = Bun.which("npm");
const npmTitle = npmProgram ? "" : " (skipped: no npm here)";

test.skipIf(npmProgram === null)(
  `npm packs the same files as Bun${npmTitle}`,
  async () => {
    const output = await succeed([npmProgram ?? "", "pack", "--dry-run", "--json"], npm);
    const [{ files }]: [{ files: { path: string }[] }] = JSON.parse(output);
    expect(files.map(({ path }) => path).sort()).toEqual(filesIn(installed));
  },
  TEST_TIMEOUT_MS,
);

test(
  "a build removes what an older one has left",
  async () => {
    const other = join(folder.path, "other-dist");
    const stale = join(other, "npm/src/protocol/gone.js");
    await Bun.write(stale, "");
    await buildClient(other);
    expect(await Bun.file(stale).exists()).toBe(false);
  },
  TEST_TIMEOUT_MS,
);

// ── what it is good for ──────────────────────────────────────────────────────────────────────────────────

test.each([
  { module: "NodeNext", moduleResolution: "NodeNext" },
  { module: "ESNext", moduleResolution: "bundler" },
])(
  "a program that has installed it type-checks with module $module",
  async (options) => {
    await Bun.write(join(project, "program.ts"), PROGRAM);
    expect(await typeCheck(project, options)).toBe("");
  },
  TEST_TIMEOUT_MS,
);

interface Runtime {
  readonly name: string;
  readonly command: readonly string[];
  readonly isThere: boolean;
}

const RUNTIMES: readonly Runtime[] = [
  { name: "Bun", command: [process.execPath], isThere: true },
  { name: HAS_NODE ? "Node 24" : `Node 24 (${NODE_SKIPPED})`, command: [NODE], isThere: HAS_NODE },
  { name: "Deno", command: [DENO, "run", "--check", "--quiet", "--allow-net"], isThere: true },
];

for (const { name, command, isThere } of RUNTIMES) {
  test.skipIf(!isThere)(
    `a program that has installed it runs on ${name}`,
    async () => {
      expect(await runProgram(command, project)).toBe(PRINTED);
    },
    TEST_TIMEOUT_MS,
  );
}

/** Against a server of its own. Returns what it prints. */
async function runProgram(command: readonly string[], cwd: string): Promise<string> {
  const database = temporaryFolder();
  await using server = await startServer(join(database.path, "t.db"));
  await Bun.write(join(cwd, "running.ts"), PROGRAM.replace(URL_IN_EXAMPLES, server.url));
  try {
    return await succeed([...command, "running.ts"], cwd);
  } finally {
    database.remove();
  }
}

// ── JSR ──────────────────────────────────────────────────────────────────────────────────────────────────

test(
  "deno publish takes it, with every file that it imports",
  async () => {
    const { output, files } = await publish();
    expect(output).toContain("Dry run complete");
    expect(files).toEqual(filesIn(jsr));
    const graph = JSON.parse(await succeed([DENO, "info", "--json", "clients/typescript/client.ts"], jsr));
    const imported: string[] = graph.modules.map(({ local }: { local: string }) => relative(jsr, local));
    expect(imported.length).toBeGreaterThan(5);
    expect(imported.filter((path) => !files.includes(path))).toEqual([]);
  },
  TEST_TIMEOUT_MS,
);

async function publish() {
  const command = [DENO, "publish", "--dry-run", "--allow-dirty"];
  const { stdout, stderr } = await run(command, jsr);
  const output = stdout + stderr;
  const files = [...output.matchAll(/^ *file:\/\/(.+) \([\d.]+\w+\)$/gm)].map(([, path]) =>
    relative(jsr, path ?? ""),
  );
  return { output, files: files.sort() };
}

test(
  "the sources for JSR run on Deno",
  async () => {
    const place = join(folder.path, "from-jsr");
    const imports = {
      "@tidemark/client": join(jsr, "clients/typescript/client.ts"),
      "@tidemark/client/consumer": join(jsr, "clients/typescript/consumer-client.ts"),
    };
    await Bun.write(join(place, "deno.json"), JSON.stringify({ imports }));
    const command = [DENO, "run", "--check", "--quiet", "--allow-net"];
    expect(await runProgram(command, place)).toBe(PRINTED);
  },
  TEST_TIMEOUT_MS,
);

// ── inside the repository ────────────────────────────────────────────────────────────────────────────────

test(
  "in the repository its name means its sources, for Bun and for Deno",
  async () => {
    expect(connect).toBe(connectOfSource);
    const program = 'console.log(import.meta.resolve("@tidemark/client"))';
    const resolved = await succeed([DENO, "eval", program], REPOSITORY);
    expect(resolved).toBe(`${Bun.pathToFileURL(join(REPOSITORY, "clients/typescript/client.ts"))}\n`);
  },
  TEST_TIMEOUT_MS,
);

/** From the folder, sorted. */
function filesIn(root: string): string[] {
  const paths = readdirSync(root, { recursive: true })
    .map(String)
    .filter((path) => path !== ".bun-tag"); // what Bun's installer leaves of its own
  return paths.filter((path) => statSync(join(root, path)).isFile()).sort();
}
