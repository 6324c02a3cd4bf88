// What the client library promises, on one runtime, against a real server.

import { afterAll, beforeAll, describe } from "bun:test";
import type { ClientRuntime } from "../support/client-worker.ts";
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

  describe("faults", () => testFaults(() => stage));
  describe("members", () => testMembers(() => stage));
  describe("acks", () => testAcks(() => stage));
  describe("readers", () => testReaders(() => stage));
  describe("bad input", () => testBadInput(() => stage));
}
