// What the client library promises, on one runtime, against a real server.

import { afterAll, beforeAll, describe } from "bun:test";
import type { ClientRuntime } from "../support/client-worker.ts";
import { ClientStage } from "./client-stage.ts";
import { testFaults } from "./faults.ts";
import { testMembers } from "./members.ts";

export function testBehaviour(runtime: ClientRuntime): void {
  let stage: ClientStage;

  beforeAll(async () => {
    stage = await ClientStage.start(runtime);
  });
  afterAll(() => stage[Symbol.asyncDispose]());

  describe("faults", () => testFaults(() => stage));
  describe("members", () => testMembers(() => stage));
}
