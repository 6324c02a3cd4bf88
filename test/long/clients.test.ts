// What the client library promises where it takes real time, on Bun, Deno and Node 24.

import { afterAll, beforeAll, describe } from "bun:test";
import { ClientStage } from "../clients/client-stage.ts";
import { testMemory } from "../clients/memory.ts";
import { testPatience } from "../clients/patience.ts";
import { CLIENT_RUNTIMES } from "../support/client-worker.ts";
import { describeLong } from "../support/long.ts";

for (const runtime of CLIENT_RUNTIMES) {
  describeLong(`the client library on ${runtime}`, "waits for half a minute of silence", () => {
    let stage: ClientStage;
    beforeAll(async () => {
      stage = await ClientStage.start(runtime);
    });
    afterAll(() => stage[Symbol.asyncDispose]());

    describe("patience", () => testPatience(() => stage));
    // What is held is the same everywhere: the window, and the server's.
    if (runtime === "bun") describe("memory", () => testMemory(() => stage));
  });
}
