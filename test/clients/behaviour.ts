// What the client library promises, on one runtime, against a real server.

import { afterAll, beforeAll, describe } from "bun:test";
import type { ClientRuntime } from "../support/client-worker.ts";
import { describeLong } from "../support/long.ts";
import { testAcks } from "./acks.ts";
import { testBadInput } from "./bad-input.ts";
import { ClientStage } from "./client-stage.ts";
import { testFaults } from "./faults.ts";
import { testMembers } from "./members.ts";
import { testReaders } from "./readers.ts";

export function testBehaviour(runtime: ClientRuntime): void {
  let stage: ClientStage;

  beforeAll(async () => {
    stage = await ClientStage.start(runtime);
  });
  afterAll(() => stage[Symbol.asyncDispose]());

  const describeRest = runtime === "bun" ? describe : describeOtherwise;
  describe("faults", () => testFaults(() => stage));
  describeRest("members", () => testMembers(() => stage));
  describeRest("acks", () => testAcks(() => stage));
  describeRest("readers", () => testReaders(() => stage));
  describeRest("bad input", () => testBadInput(() => stage));
}

/** The library is the same everywhere, and so is what it is told here: the sockets and timers of all are in the faults. */
function describeOtherwise(name: string, body: () => void): void {
  describeLong(name, "is done on Bun as well", body);
}
