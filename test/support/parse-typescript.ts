// TypeScript's own parser, through the API that the compiler's package offers instead of the old `ts.createSourceFile`.
// It is marked unstable, so this file is the only one to use it and package.json pins the version. The synchronous
// twin of the API reads a Node internal that Bun does not have.

import type { SourceFile } from "typescript/unstable/ast";
import { API } from "typescript/unstable/async";
import { createVirtualFileSystem } from "typescript/unstable/fs";

export interface SourceText {
  readonly path: string;
  readonly text: string;
}

const ROOT = "/parse";
const CONFIG = `${ROOT}/tsconfig.json`;
// Syntax only: nothing is resolved, no library is loaded.
const COMPILER_OPTIONS = { noLib: true, noResolve: true, types: [], allowJs: true, jsx: "preserve" };

/**
 * The syntax trees of many files, in order. Two sources may have the same path. Throws where a source is not
 * TypeScript: half a tree would hide what a rule looks for.
 */
export async function parseTypeScript(sources: readonly SourceText[]): Promise<readonly SourceFile[]> {
  const names = sources.map(({ path }, index) => `${index}${path.slice(path.lastIndexOf("."))}`);
  const texts = sources.map(({ text }, index) => [`${ROOT}/${names[index]}`, text]);
  const config = JSON.stringify({ compilerOptions: COMPILER_OPTIONS, files: names });
  const api = new API({
    cwd: ROOT,
    fs: createVirtualFileSystem(Object.fromEntries([[CONFIG, config], ...texts])),
  });
  try {
    const project = (await api.updateSnapshot({ openProjects: [CONFIG] })).getProject(CONFIG);
    if (project === undefined) throw new Error("TypeScript did not open the project of sources to parse");
    return await Promise.all(
      sources.map(async ({ path }, index) => {
        const name = `${ROOT}/${names[index]}`;
        const [mistake] = await project.program.getSyntacticDiagnostics(name);
        const tree = await project.program.getSourceFile(name);
        if (mistake !== undefined || tree === undefined)
          throw new Error(`${path} is not TypeScript: ${mistake?.text}`);
        return tree;
      }),
    );
  } finally {
    await api.close();
  }
}
