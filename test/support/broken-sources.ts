// A copy of the sources with something broken in it on purpose: for tests that must be able to fail.

import { cpSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { REPOSITORY, temporaryFolder } from "./server.ts";

const PARTS = ["src", "migrations", "package.json", "sql.d.ts"];

export interface Replacement {
  /** From the root of the repository. */
  readonly file: string;
  /** Stands there once. */
  readonly from: string;
  readonly to: string;
}

/** `using` removes it. For the `repository` of a server. */
export interface BrokenSources extends Disposable {
  readonly repository: string;
}

/** `parts`: what is copied beside the server. Throws where the sources are not any more what is to be replaced. */
export function breakSources(
  replacements: readonly Replacement[],
  { parts = [] }: { readonly parts?: readonly string[] } = {},
): BrokenSources {
  const folder = temporaryFolder();
  for (const part of [...PARTS, ...parts])
    cpSync(join(REPOSITORY, part), join(folder.path, part), { recursive: true });
  symlinkSync(join(REPOSITORY, "node_modules"), join(folder.path, "node_modules"));
  for (const { file, from, to } of replacements) {
    const path = join(folder.path, file);
    const source = readFileSync(path, "utf8");
    if (source.split(from).length !== 2) throw new Error(`${file} does not have once: ${from}`);
    writeFileSync(
      path,
      source.replace(from, () => to),
    );
  }
  return { repository: folder.path, [Symbol.dispose]: folder.remove };
}
