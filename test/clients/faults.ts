// A consumer and a producer go on through whatever happens to the server and to the network.

import { expect, test } from "bun:test";
import type { ClientWorker } from "../support/client-worker.ts";
import { FaultyProxy } from "../support/faulty-proxy.ts";
import { type ClientStage, expectAllOnce, offsetsOf, PARTITIONS, partitionEnds } from "./client-stage.ts";
import type { ConsumeCommand } from "./worker-messages.ts";

const BEFORE = 800;
const DURING = 1_600;
const ALL = 2_000;

/** In the middle of frames of any kind, and between handshakes and answers. */
const CUTS_AFTER = [9_001, 300, 12_345, 20_000, 700, 15_432, 9_876, 450];

/** Frames of at most 100 records: each of them is shorter than most of what comes between two cuts. */
const SMALL_WINDOW = { window: { records: 200 } };

interface Traffic {
  readonly as?: ConsumeCommand["as"];
  readonly options?: Omit<ConsumeCommand["options"], "group">;
  readonly acksByHand?: boolean;
}

/**
 * Records were there before, are produced when `fault` begins, while it lasts, and after it. Each of them is in the log
 * once and in order, in the journal once and in order, and committed.
 */
export async function goThrough(
  stage: ClientStage,
  worker: ClientWorker,
  fault: () => Promise<void>,
  { as = "run", options, ...rest }: Traffic = {},
): Promise<void> {
  const topic = await stage.createTopic(BEFORE / 2);
  worker.tell({
    do: "consume",
    name: "c",
    topics: [topic],
    as,
    options: { group: topic, ...options },
    ...rest,
  });
  await worker.do({ do: "produce", name: "before", topic, from: BEFORE / 2, to: BEFORE });
  await worker.untilHandled("c", BEFORE / 2);
  worker.tell({ do: "produce", name: "during", topic, from: BEFORE, to: DURING });
  await worker.expect("produced", { name: "during" });
  await fault();
  expect((await worker.expect("answered", { name: "during" })).error).toBeUndefined();
  await worker.do({ do: "produce", name: "after", topic, from: DURING, to: ALL });
  await worker.untilHandled("c", ALL);
  await worker.do({ do: "close", name: "c" });
  stage.expectLog(topic, ALL);
  expectAllOnce(worker.journal("c"), ALL);
  stage.expectFinished(topic, ALL);
}

export function testFaults(stageOf: () => ClientStage): void {
  test("the server is killed and started again: each record once", async () => {
    const stage = stageOf();
    await using worker = stage.worker();
    await goThrough(stage, worker, () => stage.restart("SIGKILL"));
    expect(worker.all("status").map(({ status }) => status)).toContain("waiting");
  });

  test("what handlers have in hand while the server is killed and started again is theirs: it comes once", async () => {
    const stage = stageOf();
    await using worker = stage.worker();
    const topic = await stage.createTopic(BEFORE);
    const options = { group: topic };
    worker.tell({ do: "consume", name: "c", topics: [topic], as: "run", options, isGated: true });
    await worker.until("a record in hand of each partition", () => worker.all("begun").length === PARTITIONS);
    await stage.restart("SIGKILL");
    await worker.until("another assignment", () => worker.all("assigned").length === 2);
    worker.tell({ do: "open", name: "c" });
    await worker.untilHandled("c", BEFORE);
    await worker.do({ do: "close", name: "c" });
    expect(worker.all("lost")).toEqual([]);
    expectAllOnce(worker.journal("c"), BEFORE);
    stage.expectFinished(topic, BEFORE);
  });

  test("the server stops and is started again: what is in hand is acknowledged while it drains", async () => {
    const stage = stageOf();
    await using worker = stage.worker();
    await goThrough(stage, worker, () => stage.restart("SIGTERM"), { as: "batches" });
    expect(worker.all("status").map(({ status }) => status)).toContain("draining");
  });

  test("connections are cut in the middle of frames and acks: each record once", async () => {
    const stage = stageOf();
    using proxy = new FaultyProxy(stage.server);
    await using worker = stage.worker(proxy.url);
    await goThrough(stage, worker, async () => proxy.cutEachAfter(CUTS_AFTER), { options: SMALL_WINDOW });
    expect(proxy.cuts).toBeGreaterThan(CUTS_AFTER.length / 2);
  });

  test("records one by one through cuts: each once", async () => {
    const stage = stageOf();
    using proxy = new FaultyProxy(stage.server);
    await using worker = stage.worker(proxy.url);
    const traffic = {
      as: "records",
      options: { ...SMALL_WINDOW, ack: { everyRecords: 50, everyMs: 20 } },
    } as const;
    await goThrough(stage, worker, async () => proxy.cutEachAfter(CUTS_AFTER), traffic);
  });

  test("acknowledged by hand through cuts: what ack() has resolved for is durable", async () => {
    const stage = stageOf();
    using proxy = new FaultyProxy(stage.server);
    await using worker = stage.worker(proxy.url);
    const traffic = { as: "batches", options: { ...SMALL_WINDOW, ack: "manual" }, acksByHand: true } as const;
    await goThrough(
      stage,
      worker,
      async () => {
        proxy.cutEachAfter(CUTS_AFTER);
        await stage.server.kill("SIGKILL");
        const [{ group_id: group = "" } = {}] = stage.query(
          "SELECT group_id FROM groups ORDER BY created_at DESC",
        );
        for (const { partition, next } of worker.all("acked", "c")) {
          expect(stage.committed(group)[partition]).toBeGreaterThanOrEqual(next);
        }
        await stage.startAgain();
      },
      traffic,
    );
  });

  test('with ack "none" nothing comes twice, and gaps only where a connection was cut', async () => {
    const stage = stageOf();
    using proxy = new FaultyProxy(stage.server);
    await using worker = stage.worker(proxy.url);
    const topic = await stage.createTopic(ALL);
    const options = { group: topic, ack: "none", window: { records: 50 } } as const;
    worker.tell({ do: "consume", name: "c", topics: [topic], as: "run", options, isGated: true });
    await worker.expect("begun");
    proxy.cutEachAfter([6_000, 7_000]);
    worker.tell({ do: "open", name: "c" });
    await worker.until("the end of each partition", () => reachesEnds(worker));
    await worker.do({ do: "close", name: "c" });
    for (const offsets of offsetsOf(worker.journal("c"))) {
      expect([...offsets]).toEqual([...new Set(offsets)].sort((a, b) => a - b));
      expect(
        offsets.filter((offset, at) => offset !== (offsets[at - 1] ?? -1) + 1).length,
      ).toBeLessThanOrEqual(3);
    }
    stage.expectFinished(topic, ALL);
  });
}

function reachesEnds(worker: ClientWorker): boolean {
  const ends = partitionEnds(ALL);
  return offsetsOf(worker.journal("c")).every(
    (offsets, partition) => offsets.at(-1) === (ends[partition] ?? 0) - 1,
  );
}
