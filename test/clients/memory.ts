// A consumer that sleeps while much is produced: what waits for it waits in the log, not in memory.

import { expect, test } from "bun:test";
import type { ClientWorker } from "../support/client-worker.ts";
import { residentBytes } from "../support/memory.ts";
import type { ClientStage } from "./client-stage.ts";

const MIB = 1024 * 1024;
const RECORDS_EACH = 3_500;
const VALUE = "x".repeat(1_000);
const BATCHES = 24;
/** A third of what is produced; the window is 1 MiB, and each runtime keeps what it likes beside. */
const GROWTH_BYTES_MAX = 28 * MIB;
const TEST_TIMEOUT_MS = 120_000;

export function testMemory(stageOf: () => ClientStage): void {
  for (const ack of ["each-batch", "none"] as const) {
    test(
      `a consumer with ack "${ack}" sleeps while 80 MiB come: its memory and the server's stay`,
      async () => {
        const stage = stageOf();
        const topic = await stage.createTopic();
        await using worker = stage.worker();
        const options = { group: topic, ack };
        worker.tell({ do: "consume", name: "c", topics: [topic], as: "run", options, isGated: true });
        await produce(stage, topic, BATCHES / 4); // both have grown to what they need
        await worker.expect("begun");
        const before = measure(stage, worker);
        await produce(stage, topic, BATCHES);
        const after = measure(stage, worker);
        expect(after.client - before.client).toBeLessThan(GROWTH_BYTES_MAX);
        expect(after.server - before.server).toBeLessThan(GROWTH_BYTES_MAX);
      },
      TEST_TIMEOUT_MS,
    );
  }
}

async function produce({ http }: ClientStage, topic: string, batches: number): Promise<void> {
  const records = Array.from({ length: RECORDS_EACH }, (_, n) => ({ value: VALUE, partition: n % 4 }));
  for (let batch = 0; batch < batches; batch++) await http.produce(topic, records);
}

function measure({ server }: ClientStage, { pid }: ClientWorker): { client: number; server: number } {
  return { client: residentBytes(pid), server: residentBytes(server.pid) };
}
