// deno serve deploy/deno/serve.ts

import { servedByDeno } from "../../src/runtimes/deno.ts";

export default await servedByDeno();
