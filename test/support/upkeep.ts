// Upkeep that runs when a test says so.

import type { Db } from "../../src/store/db.ts";
import { Upkeep, type UpkeepDeps } from "../../src/store/upkeep.ts";
import type { WriteQueue } from "../../src/store/write-queue.ts";
import { FakeTime } from "./fake-time.ts";

export function openUpkeep(deps: { db: Db; queue: WriteQueue } & Partial<UpkeepDeps>): Upkeep {
  return new Upkeep({
    scheduler: new FakeTime(),
    log: (event, facts) => {
      throw new Error(`upkeep logged ${event} ${JSON.stringify(facts)}`);
    },
    processId: null,
    offsetRetentionMs: null,
    hasTimers: false,
    ...deps,
  });
}
