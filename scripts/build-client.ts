// bun run build:client: the client library as it is published, in clients/typescript/dist/.
//
//   npm/   JavaScript with declarations, for `npm publish`
//   jsr/   the sources themselves, for `deno publish`
//
// Both keep the folders of the repository, because the client imports its protocol from src/protocol. Only what the
// exports of clients/typescript/package.json reach is there: `npm pack` in clients/typescript itself would pack a client
// without its protocol, and say nothing.

import { copyFileSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join, relative } from "node:path";

const ROOT = join(import.meta.dir, "..");
const CLIENT = "clients/typescript";
const COMPILER = join(ROOT, "node_modules/typescript/bin/tsc");
/** Beside the manifests. */
const PAPERS = [`${CLIENT}/README.md`, "LICENSE"];

export interface ClientPackages {
  readonly npm: string;
  readonly jsr: string;
}

/** An export's name, and its source in clients/typescript. */
type Entries = Readonly<Record<string, string>>;

interface Manifest extends Readonly<Record<string, unknown>> {
  readonly exports: Entries;
}

/** Whatever was in the folder before is removed. */
export async function buildClient(folder: string): Promise<ClientPackages> {
  rmSync(folder, { recursive: true, force: true });
  const packages = { npm: join(folder, "npm"), jsr: join(folder, "jsr") };
  const manifest: Manifest = await Bun.file(join(ROOT, CLIENT, "package.json")).json();
  const sources = await compile(Object.values(manifest.exports), { folder, outDir: packages.npm });
  for (const source of sources) copyInto(packages.jsr, source, source);
  for (const paper of PAPERS) {
    for (const target of Object.values(packages)) copyInto(target, paper, paper.replace(/.*\//, ""));
  }
  await writeNpmManifest(packages.npm, manifest);
  await writeJsrManifest(packages.jsr, manifest.exports);
  return packages;
}

/** Returns the sources of what it has written, from the repository's root. */
async function compile(
  entries: readonly string[],
  { folder, outDir }: { folder: string; outDir: string },
): Promise<readonly string[]> {
  const config = join(folder, "tsconfig.json");
  await Bun.write(config, JSON.stringify(configOf(entries, outDir)));
  const command = [process.execPath, COMPILER, "-p", config, "--listEmittedFiles", "--pretty", "false"];
  const { exitCode, stdout, stderr } = Bun.spawnSync(command);
  rmSync(config);
  if (exitCode !== 0) throw new Error(`The client does not compile: ${stdout}${stderr}`);
  const emitted = [...stdout.toString().matchAll(/^TSFILE: *(.+)\.js$/gm)].map(([, path]) => path ?? "");
  return emitted.map((path) => `${relative(outDir, path)}.ts`);
}

function configOf(entries: readonly string[], outDir: string): object {
  return {
    extends: join(ROOT, CLIENT, "tsconfig.json"),
    compilerOptions: { noEmit: false, rootDir: ROOT, outDir, rewriteRelativeImportExtensions: true },
    files: entries.map((source) => join(ROOT, CLIENT, source)),
    include: [],
  };
}

function copyInto(target: string, source: string, name: string): void {
  mkdirSync(dirname(join(target, name)), { recursive: true });
  copyFileSync(join(ROOT, source), join(target, name));
}

async function writeNpmManifest(target: string, { private: _, exports, ...rest }: Manifest): Promise<void> {
  const compiled = mapEntries(exports, (source) => {
    const stem = `./${join(CLIENT, source)}`.replace(/\.tsx?$/, "");
    return { types: `${stem}.d.ts`, default: `${stem}.js` };
  });
  await writeJson(join(target, "package.json"), { ...rest, exports: compiled });
}

async function writeJsrManifest(target: string, exports: Entries): Promise<void> {
  const manifest = await Bun.file(join(ROOT, CLIENT, "jsr.json")).json();
  const placed = mapEntries(exports, (source) => `./${join(CLIENT, source)}`);
  await writeJson(join(target, "jsr.json"), { ...manifest, exports: placed });
}

function mapEntries<T>(entries: Entries, place: (source: string) => T): Readonly<Record<string, T>> {
  return Object.fromEntries(Object.entries(entries).map(([name, source]) => [name, place(source)]));
}

async function writeJson(path: string, value: unknown): Promise<void> {
  await Bun.write(path, `${JSON.stringify(value, null, 2)}\n`);
}

if (import.meta.main) {
  const { npm, jsr } = await buildClient(join(ROOT, CLIENT, "dist"));
  console.log(`npm publish in ${relative(ROOT, npm)}, deno publish in ${relative(ROOT, jsr)}`);
}
