// Every file in test/long/ wraps its tests in describeLong(): they take minutes, real time, Chromium or root, and
// run only with TIDEMARK_LONG=1, as CI does. A plain `bun run test` counts them as skipped and says why.

import { describe } from "bun:test";

export const isLongRun = process.env.TIDEMARK_LONG === "1";

/** `why` ends the sentence "skipped, because it …": `takes four minutes`, `needs Chromium`. */
export function describeLong(name: string, why: string, body: () => void): void {
  if (!isLongRun) console.warn(`${name}: skipped, because it ${why}. TIDEMARK_LONG=1 runs it.`);
  describe.skipIf(!isLongRun)(name, body);
}
