import { diskFull } from "./disk-full.ts";
import { FILE_SCENARIOS } from "./file-scenarios.ts";
import { keeperKill } from "./keepers.ts";
import type { Scenario } from "./scenario.ts";
import { SQLD_SCENARIOS } from "./sqld-scenarios.ts";

export const SCENARIOS: readonly Scenario[] = [...FILE_SCENARIOS, diskFull, ...SQLD_SCENARIOS, keeperKill];
