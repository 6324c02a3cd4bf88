// bun scripts/build-worker.ts: the server for Cloudflare Workers, as modules in deploy/workers/dist/.
//
// wrangler's own bundler makes one file of everything. Here what compiles JSON Schemas and what describes the protocol
// stay modules of their own, which are loaded when a topic has a schema, or when somebody asks: a Worker starts with
// the rest.

import { rmSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "bun";

const ROOT = join(import.meta.dir, "..");

export interface WorkerModule {
  readonly path: string;
  readonly gzippedBytes: number;
  /** Loaded with the Worker, not later. */
  readonly isAtStart: boolean;
}

/** Whatever was in the folder before is removed. */
export async function buildWorker(folder: string): Promise<readonly WorkerModule[]> {
  rmSync(folder, { recursive: true, force: true });
  const { outputs } = await Bun.build({
    entrypoints: [join(ROOT, "src/runtimes/workers.ts")],
    outdir: folder,
    target: "browser",
    conditions: ["workerd", "worker", "browser"],
    external: ["cloudflare:workers", "node:*"],
    splitting: true,
    minify: true,
  });
  const texts = new Map(
    await Promise.all(outputs.map(async ({ path }) => [path, await Bun.file(path).text()] as const)),
  );
  const atStart = staticallyImported(join(folder, "workers.js"), texts);
  return [...texts].map(([path, text]) => ({
    path,
    gzippedBytes: gzipSync(text, { level: 9 }).length,
    isAtStart: atStart.has(path),
  }));
}

function staticallyImported(entry: string, texts: ReadonlyMap<string, string>): ReadonlySet<string> {
  const found = new Set([entry]);
  const transpiler = new Bun.Transpiler({ loader: "js" });
  for (const path of found) {
    const text = texts.get(path);
    if (text === undefined) throw new Error(`${path} is imported, and was not built`);
    for (const { kind, path: specifier } of transpiler.scanImports(text)) {
      if (kind === "import-statement" && specifier.startsWith(".")) found.add(join(path, "..", specifier));
    }
  }
  return found;
}

export function kibibytesOf(modules: readonly WorkerModule[]): number {
  return modules.reduce((sum, { gzippedBytes }) => sum + gzippedBytes, 0) / 1024;
}

if (import.meta.main) {
  const modules = await buildWorker(join(ROOT, "deploy/workers/dist"));
  const atStart = kibibytesOf(modules.filter(({ isAtStart }) => isAtStart));
  console.log(
    `${atStart.toFixed(1)} KiB gzipped at the start, ${kibibytesOf(modules).toFixed(1)} KiB in all`,
  );
}
