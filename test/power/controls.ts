// What must lose: a run of power cuts that finds nothing says something only if these are found out.

import { type BrokenSources, breakSources } from "../support/broken-sources.ts";

const FULL = "const SYNCHRONOUS_FULL = 2;";
const NORMAL = "const SYNCHRONOUS_FULL = 1;";

/** The server, but with `synchronous=NORMAL`: a commit waits for no fsync. */
export function sourcesThatDoNotWait(): BrokenSources {
  return breakSources([{ file: "src/store/embedded.ts", from: FULL, to: NORMAL }]);
}
