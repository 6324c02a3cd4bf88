// What Deno Deploy starts: see deno.json.

import { runDeployed } from "../../src/runtimes/deno.ts";

runDeployed();
