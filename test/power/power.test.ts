// A few power cuts; `bun run torture --power` makes fifty.

import { expect, test } from "bun:test";
import { describeLong } from "../support/long.ts";
import { runPowerControls, runPowerCuts } from "./cuts.ts";
import { missingForPowerCuts } from "./disk.ts";

const CUTS = 6;
/** Of a kind; the first is enough, unless it comes right behind a checkpoint. */
const CONTROLS_MAX = 6;
const TEST_TIMEOUT_MS = 60_000;

const seed = Number(process.env.SEED ?? 1 + Math.floor(Math.random() * 1_000_000));
const missing = missingForPowerCuts();
if (missing !== undefined) console.warn(`power cuts: skipped, because they need ${missing}`);

describeLong("a power cut", "needs root and loop devices", () => {
  test.skipIf(missing !== undefined)(
    "loses nothing that was acknowledged, and leaves a database that goes on",
    async () => {
      const rows = await runPowerCuts({ cuts: CUTS, seed, place: "file" });
      const wrong = rows.filter(({ findings }) => findings.length > 0);
      expect(wrong.map((row) => ({ seed: row.seed, findings: row.findings.slice(0, 5) }))).toEqual([]);
      expect(rows).toHaveLength(CUTS);
    },
    TEST_TIMEOUT_MS,
  );

  test.skipIf(missing !== undefined)(
    "is noticed where the server does not wait for an fsync, or the file system does not flush the disk",
    async () => {
      const rows = await runPowerControls({ cuts: CONTROLS_MAX, seed, stopsAtLoss: true });
      for (const kind of new Set(rows.map(({ what }) => what))) {
        const lost = rows.filter(({ what }) => what === kind).reduce((sum, row) => sum + row.lost, 0);
        expect({ kind, hasLost: lost > 0 }).toEqual({ kind, hasLost: true });
      }
    },
    TEST_TIMEOUT_MS,
  );
});
