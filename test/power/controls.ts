// What must lose: a run of power cuts that finds nothing says something only if these are found out.

import { cpSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { REPOSITORY, temporaryFolder } from "../support/server.ts";

const SETTING = "const SYNCHRONOUS_FULL = 2;";

export interface BrokenSources extends Disposable {
  readonly repository: string;
}

/** The server, but with `synchronous=NORMAL`: a commit waits for no fsync. */
export function sourcesThatDoNotWait(): BrokenSources {
  const folder = temporaryFolder();
  for (const part of ["src", "migrations", "package.json", "sql.d.ts"])
    cpSync(join(REPOSITORY, part), join(folder.path, part), { recursive: true });
  symlinkSync(join(REPOSITORY, "node_modules"), join(folder.path, "node_modules"));
  const path = join(folder.path, "src/store/embedded.ts");
  const source = readFileSync(path, "utf8");
  if (!source.includes(SETTING)) throw new Error(`${path} does not say "${SETTING}" any more`);
  writeFileSync(path, source.replace(SETTING, SETTING.replace("2", "1")));
  return { repository: folder.path, [Symbol.dispose]: folder.remove };
}
