// When offsets are committed, and what comes again when they are not.

import { expect, test } from "bun:test";
import {
  type ClientStage,
  expectAllOnce,
  offsetsOf,
  PARTITIONS,
  partitionEnds,
  range,
} from "./client-stage.ts";

const ALL = 800;
const THROWS_EVERY = 50;

export function testAcks(stageOf: () => ClientStage): void {
  test("a batch that the loop broke at comes again, what was gone on from does not", async () => {
    const stage = stageOf();
    const topic = await stage.createTopic(400);
    const options = { group: topic, window: { records: 40 } };
    await using worker = stage.worker();
    worker.tell({ do: "consume", name: "first", topics: [topic], as: "batches", options, breaksAtBatch: 4 });
    expect(await worker.failure("first")).toBeUndefined();
    expect(stage.query("SELECT * FROM group_members WHERE group_id = ?", topic)).toEqual([]);
    const committed = stage.committed(topic);
    const last = worker.journal("first").at(-1)?.partition ?? -1;
    for (const [partition, offsets] of offsetsOf(worker.journal("first")).entries()) {
      if (partition === last) expect(committed[partition]).toBeLessThan(offsets.length);
      else expect(committed[partition]).toBe(offsets.length);
    }
    worker.tell({ do: "consume", name: "second", topics: [topic], as: "batches", options });
    await worker.untilHandled(
      "second",
      committed.reduce<number>((left, offset) => left - (offset ?? 0), 400),
    );
    await worker.do({ do: "close", name: "second" });
    expect(offsetsOf(worker.journal("second"))).toEqual(
      partitionEnds(400).map((end, partition) => range(committed[partition] ?? 0, end)),
    );
    stage.expectFinished(topic, 400);
  });

  test("acks that are gathered are not sent before their time, and are when it closes", async () => {
    const stage = stageOf();
    const topic = await stage.createTopic(40);
    const options = { group: topic, ack: { everyRecords: 1_000 } };
    await using first = stage.worker();
    first.tell({ do: "consume", name: "c", topics: [topic], as: "run", options });
    await first.untilHandled("c", 40);
    await first.kill();
    expect(stage.committed(topic)).toEqual([0, 0, 0, 0]);
    await using second = stage.worker();
    second.tell({ do: "consume", name: "c", topics: [topic], as: "run", options });
    await second.untilHandled("c", 40);
    await second.do({ do: "close", name: "c" });
    expectAllOnce(second.journal("c"), 40);
    stage.expectFinished(topic, 40);
  });

  test("what a handler cannot take goes to the dead-letter topic, each once, though the server is killed", async () => {
    const stage = stageOf();
    const topic = await stage.createTopic(ALL);
    const deadLetter = await stage.createTopic();
    const options = {
      group: topic,
      deadLetter,
      retry: { attempts: 2, backoffMs: 1 },
      window: { records: 100 },
    };
    await using worker = stage.worker();
    worker.tell({ do: "consume", name: "c", topics: [topic], as: "run", options, throwsEvery: THROWS_EVERY });
    await worker.untilHandled("c", ALL / 4);
    await stage.restart("SIGKILL");
    await worker.untilHandled("c", ALL - ALL / THROWS_EVERY);
    await worker.do({ do: "close", name: "c" });
    const ends = partitionEnds(ALL);
    const isDead = (offset: number) => offset % THROWS_EVERY === 0;
    expect(offsetsOf(worker.journal("c"))).toEqual(
      ends.map((end) => range(0, end).filter((offset) => !isDead(offset))),
    );
    const dead = ends.flatMap((end, partition) =>
      range(0, end)
        .filter(isDead)
        .map((offset) => `${partition}/${offset}`),
    );
    expect(lettersIn(stage, deadLetter)).toEqual(dead);
    expect(worker.all("thrown")).toHaveLength(dead.length * 2);
    stage.expectFinished(topic, ALL);
  });

  test("a handler that throws where there is no dead-letter topic ends it; the record is not committed", async () => {
    const stage = stageOf();
    const topic = await stage.createTopic(400);
    await using worker = stage.worker();
    const options = { group: topic };
    worker.tell({ do: "consume", name: "c", topics: [topic], as: "run", options, throwsEvery: 3 });
    const failure = await worker.failure("c");
    expect(failure).toMatchObject({ name: "TidemarkError", code: "handler_failed", retriable: false });
    expect(failure?.message).toContain("is not for me");
    expect(stage.committed(topic)).toEqual([0, 0, 0, 0]);
  });

  test("a seek goes on from there and leaves what is committed", async () => {
    const stage = stageOf();
    const topic = await stage.createTopic(400);
    await using worker = stage.worker();
    worker.tell({ do: "consume", name: "c", topics: [topic], as: "run", options: { group: topic } });
    await worker.untilHandled("c", 400);
    await worker.do({ do: "seek", name: "c", partition: 2, offset: 90 });
    await worker.untilHandled("c", 410);
    await worker.do({ do: "close", name: "c" });
    expect(offsetsOf(worker.journal("c"))[2]).toEqual([...range(0, 100), ...range(90, 100)]);
    stage.expectFinished(topic, 400);
  });

  test("a consumer that is closed has left the group; its client goes on", async () => {
    const stage = stageOf();
    const topic = await stage.createTopic(40);
    await using worker = stage.worker();
    worker.tell({ do: "consume", name: "c", topics: [topic], as: "run", options: { group: topic } });
    await worker.untilHandled("c", 40);
    await worker.do({ do: "close", name: "c" });
    stage.expectFinished(topic, 40);
    await worker.do({ do: "produce", name: "more", topic, from: 40, to: 80 });
    stage.expectLog(topic, 80);
    worker.tell({ do: "consume", name: "again", topics: [topic], as: "run", options: { group: topic } });
    await worker.untilHandled("again", 40);
    await worker.do({ do: "closeClient" });
    expect(await worker.failure("again")).toBeUndefined();
    expectAllOnce([...worker.journal("c"), ...worker.journal("again")], 80);
    stage.expectFinished(topic, 80);
  });
}

/** Where they are from, in order. */
function lettersIn(stage: ClientStage, topic: string): readonly string[] {
  const rows: { partition: string; offset: string }[] = stage.query(
    `SELECT headers ->> 'tidemark-origin-partition' AS partition, headers ->> 'tidemark-origin-offset' AS offset
     FROM topic_records WHERE topic = ? ORDER BY CAST(partition AS INTEGER), CAST(offset AS INTEGER)`,
    topic,
  );
  return rows
    .map(({ partition, offset }) => ({ partition: Number(partition), offset: Number(offset) }))
    .sort((a, b) => (a.partition - b.partition) * PARTITIONS * ALL + a.offset - b.offset)
    .map(({ partition, offset }) => `${partition}/${offset}`);
}
