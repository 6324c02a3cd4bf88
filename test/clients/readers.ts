// Readers: they own nothing, and say themselves how far they are.

import { expect, test } from "bun:test";
import { FaultyProxy } from "../support/faulty-proxy.ts";
import { type ClientStage, expectAllOnce, offsetsOf, partitionEnds, range } from "./client-stage.ts";

const ALL = 2_000;
const CUTS_AFTER = [9_001, 300, 12_345, 20_000];

export function testReaders(stageOf: () => ClientStage): void {
  test("a reader through cuts and a server that is killed: each record once, in order", async () => {
    const stage = stageOf();
    using proxy = new FaultyProxy(stage.server);
    await using worker = stage.worker(proxy.url);
    const topic = await stage.createTopic(ALL / 2);
    worker.tell({
      do: "read",
      name: "r",
      topics: [topic],
      options: { window: { records: 100 } },
      isGated: true,
    });
    await worker.expect("begun");
    proxy.cutEachAfter(CUTS_AFTER);
    worker.tell({ do: "open", name: "r" });
    await worker.untilHandled("r", ALL / 4);
    await stage.restart("SIGKILL");
    await worker.do({ do: "produce", name: "more", topic, from: ALL / 2, to: ALL });
    await worker.untilHandled("r", ALL);
    await worker.do({ do: "close", name: "r" });
    expectAllOnce(worker.journal("r"), ALL);
    expect(stage.query("SELECT * FROM group_topics WHERE topic = ?", topic)).toEqual([]);
  });

  test("a reader of a list of partitions through a cut: these only", async () => {
    const stage = stageOf();
    using proxy = new FaultyProxy(stage.server);
    await using worker = stage.worker(proxy.url);
    const topic = await stage.createTopic(ALL);
    const from = [
      { topic, partition: 1, offset: 100 },
      { topic, partition: 3, offset: 499 },
    ];
    worker.tell({ do: "read", name: "r", topics: [topic], options: { from, window: { records: 100 } } });
    await worker.untilHandled("r", 200);
    proxy.cut();
    await worker.untilHandled("r", 401);
    await worker.do({ do: "close", name: "r" });
    expect(offsetsOf(worker.journal("r"))).toEqual([[], range(100, 500), [], [499]]);
  });

  test("a new process goes on from the cursor of another, with what the other had in hand", async () => {
    const stage = stageOf();
    const topic = await stage.createTopic(ALL);
    await using first = stage.worker();
    const options = { window: { records: 100 } };
    first.tell({ do: "read", name: "r", topics: [topic], options, isGated: true });
    const { partition } = await first.expect("begun");
    await first.do({ do: "cursor", name: "r" });
    const { cursor } = await first.expect("cursor");
    await first.kill();
    expect(JSON.stringify(cursor)).toContain(`"partition":${partition},"offset":0,`);

    await using second = stage.worker();
    second.tell({
      do: "read",
      name: "r",
      topics: [topic],
      options: { ...options, from: cursor },
      breaksAtBatch: 8,
    });
    expect(await second.failure("r")).toBeUndefined();
    await second.do({ do: "cursor", name: "r" });
    const { cursor: afterBreak } = await second.expect("cursor");

    await using third = stage.worker();
    third.tell({ do: "read", name: "r", topics: [topic], options: { from: afterBreak } });
    const broken = lastBatch(second.journal("r"));
    await third.untilHandled("r", ALL - second.journal("r").length + broken);
    await third.do({ do: "close", name: "r" });
    const again = offsetsOf(third.journal("r"));
    const before = offsetsOf(second.journal("r").slice(0, -broken));
    expect<readonly (readonly number[])[]>(
      again.map((offsets, at) => [...(before[at] ?? []), ...offsets]),
    ).toEqual(partitionEnds(ALL).map((end) => range(0, end)));
  });

  test("a reader that goes on from a cursor and is cut before it has its place begins there all the same", async () => {
    const stage = stageOf();
    using proxy = new FaultyProxy(stage.server);
    const topic = await stage.createTopic(ALL);
    const positions = [0, 1, 2].map((partition) => ({ topic, partition, offset: 100 * partition }));
    await using worker = stage.worker(proxy.url);
    proxy.cutBehind('"assigned"');
    const from = { positions, isList: false };
    worker.tell({ do: "read", name: "r", topics: [topic], options: { from } });
    await worker.untilHandled("r", ALL - 300);
    await worker.do({ do: "close", name: "r" });
    expect(offsetsOf(worker.journal("r"))).toEqual([
      range(0, 500),
      range(100, 500),
      range(200, 500),
      range(0, 500),
    ]);
  });
}

/** How many records the last batch had: those of one partition at the end. */
function lastBatch(journal: readonly { readonly partition: number; readonly offset: number }[]): number {
  const last = journal.at(-1)?.partition;
  const start = journal.findLastIndex(({ partition }) => partition !== last);
  return journal.length - start - 1;
}
