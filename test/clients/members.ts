// Partitions that go from one member to another, or are reset, or belong to a topic that goes.

import { expect, test } from "bun:test";
import { CHUNK_RECORDS_MAX } from "../../src/protocol/limits.ts";
import type { ClientWorker } from "../support/client-worker.ts";
import {
  type ClientStage,
  expectAllOnce,
  offsetsOf,
  PARTITIONS,
  partitionEnds,
  range,
} from "./client-stage.ts";
import type { ConsumeCommand, Entry } from "./worker-messages.ts";

const ALL = 2_000;
/** More than one frame has: so some of a partition is in hand, and some waits. */
const SENT_EACH = CHUNK_RECORDS_MAX + 100;
const COUNT = PARTITIONS * SENT_EACH + 400;

function consume(topic: string, more: Partial<ConsumeCommand> = {}): ConsumeCommand {
  const { options, ...rest } = more;
  return {
    do: "consume",
    name: "c",
    topics: [topic],
    as: "run",
    options: { group: topic, ...options },
    ...rest,
  };
}

export function testMembers(stageOf: () => ClientStage): void {
  for (const instanceId of [undefined, "till-1"]) {
    const kind = instanceId === undefined ? "another member" : "its own next process, by instanceId";
    test(`a process that is killed is taken over by ${kind}: from what it had committed, nothing is missing`, async () => {
      const stage = stageOf();
      const topic = await stage.createTopic(ALL);
      const options = { group: topic, window: { records: 100 }, ...(instanceId && { instanceId }) };
      await using first = stage.worker();
      first.tell(consume(topic, { options }));
      await first.untilHandled("c", ALL / 4);
      await first.kill();

      await using second = stage.worker();
      second.tell(consume(topic, { options }));
      const starts = await startsOf(second);
      await second.untilHandled("c", ALL - sum(starts));
      await second.do({ do: "close", name: "c" });
      // What the first had acknowledged was in its journal; from there on everything is in the second's, once.
      const before = offsetsOf(first.journal("c"));
      const ends = partitionEnds(ALL);
      for (const [partition, start] of starts.entries()) {
        expect(before[partition]).toEqual(range(0, before[partition]?.length ?? 0));
        expect(before[partition]?.length).toBeGreaterThanOrEqual(start);
        expect(offsetsOf(second.journal("c"))[partition]).toEqual(range(start, ends[partition] ?? 0));
      }
      stage.expectFinished(topic, ALL);
    });
  }

  test("another consumer with the same instanceId ends the first with `replaced`", async () => {
    const stage = stageOf();
    const topic = await stage.createTopic(4);
    await using worker = stage.worker();
    const options = { group: topic, instanceId: "till-1" };
    worker.tell(consume(topic, { name: "first", options }));
    await worker.expect("assigned", { name: "first" });
    await using other = stage.worker();
    other.tell(consume(topic, { options }));
    await other.expect("assigned", { name: "c" });
    expect(await worker.failure("first")).toMatchObject({ code: "replaced", retriable: false });
    await other.do({ do: "close", name: "c" });
  });

  test("a member joins and leaves while handlers are slow: no record twice, the old owner finishes first", async () => {
    const stage = stageOf();
    const topic = await stage.createTopic(PARTITIONS * SENT_EACH);
    await using first = stage.worker();
    await using second = stage.worker();
    const options = { group: topic, window: { records: 2 * PARTITIONS * SENT_EACH } };
    first.tell(consume(topic, { options, isGated: true }));
    await first.until("a record in hand of each partition", () => first.all("begun").length === PARTITIONS);
    second.tell(consume(topic));
    const { partitions: revoked } = await first.expect("revoked");
    expect(revoked).toHaveLength(2);
    expect(second.journal("c")).toEqual([]);
    first.tell({ do: "open", name: "c" });
    // What the first has in hand it finishes; what waits behind that is the second's.
    await second.untilHandled("c", revoked.length * (SENT_EACH - CHUNK_RECORDS_MAX));
    for (const [partition, offsets] of offsetsOf(second.journal("c")).entries()) {
      expect(offsets).toEqual(revoked.includes(partition) ? range(CHUNK_RECORDS_MAX, SENT_EACH) : []);
    }
    await first.until("the loss of these", () => first.all("lost").length >= revoked.length);
    const losses = first.all("lost").map(({ partition, message }) => [partition, message.includes("let go")]);
    expect(Object.fromEntries(losses)).toEqual(
      Object.fromEntries(revoked.map((partition) => [partition, true])),
    );
    await second.do({ do: "close", name: "c" });
    await second.do({ do: "produce", name: "more", topic, from: PARTITIONS * SENT_EACH, to: COUNT });
    await first.untilHandled("c", COUNT - second.journal("c").length);
    await first.do({ do: "close", name: "c" });
    expectAllOnceInAny([...first.journal("c"), ...second.journal("c")], COUNT);
    stage.expectFinished(topic, COUNT);
  });

  test("a handler that does not finish in time loses the partition: its signal aborts, and another gets the record", async () => {
    const stage = stageOf();
    const topic = await stage.createTopic(4);
    await using first = stage.worker();
    await using second = stage.worker();
    first.tell(consume(topic, { options: { group: topic, ackTimeoutMs: 100 }, isGated: true }));
    await first.until("a record in hand of each partition", () => first.all("begun").length === PARTITIONS);
    second.tell(consume(topic));
    await first.until("the loss of all", () => first.all("lost").length >= 2);
    expect(first.all("lost").every(({ code }) => code === "fenced_generation")).toBe(true);
    await second.untilHandled("c", 2);
    await first.kill();
    await second.untilHandled("c", 4);
    await second.do({ do: "close", name: "c" });
    expectAllOnce(second.journal("c"), 4);
    stage.expectFinished(topic, 4);
  });

  test("a reset to the earliest while it runs: everything once more", async () => {
    const stage = stageOf();
    const topic = await stage.createTopic(ALL);
    await using worker = stage.worker();
    worker.tell(consume(topic, { options: { group: topic, window: { records: 200 } } }));
    await worker.untilHandled("c", ALL / 4);
    await reset(stage, topic, "earliest");
    await worker.until("all of it after the reset", () => lastRuns(worker.journal("c"), ALL) !== undefined);
    await worker.do({ do: "close", name: "c" });
    const after = lastRuns(worker.journal("c"), ALL) ?? [];
    expect(offsetsOf(after)).toEqual(partitionEnds(ALL).map((end) => range(0, end)));
    const before = offsetsOf(worker.journal("c").filter((entry) => !after.includes(entry)));
    for (const offsets of before) expect(offsets).toEqual(range(0, offsets.length));
    stage.expectFinished(topic, ALL);
  });

  test("a reset to an offset: batch.ack() of what was in hand is a FencedError, and the loop goes on from there", async () => {
    const stage = stageOf();
    const topic = await stage.createTopic(400);
    await using worker = stage.worker();
    const options = { group: topic, ack: "manual", window: { records: 20 } } as const;
    worker.tell(consume(topic, { as: "batches", options, isGated: true, acksByHand: true }));
    const { partition } = await worker.expect("begun");
    await reset(stage, topic, { offset: 90 });
    await worker.expect("lost", { partition });
    expect((await worker.ask({ do: "ack", name: "c" })).error).toMatchObject({
      name: "FencedError",
      code: "fenced_generation",
      retriable: false,
    });
    const { length: before } = worker.said;
    worker.tell({ do: "open", name: "c" });
    await worker.until(
      "the rest",
      () => worker.all("acked").length > 0 && restOf(worker, before).length >= 40,
    );
    await worker.do({ do: "close", name: "c" });
    const [, ...afterwards] = generationsOf(worker.journal("c"));
    expect(afterwards.flat().every(({ offset }) => offset >= 90)).toBe(true);
    stage.expectFinished(topic, 400);
  });

  test("a topic that is deleted and created again: the new one from its beginning", async () => {
    const stage = stageOf();
    const topic = await stage.createTopic(400);
    await using worker = stage.worker();
    worker.tell(consume(topic));
    await worker.untilHandled("c", 400);
    await stage.http.call("DELETE", `/v1/topics/${topic}`);
    await worker.until("the loss of all", () => worker.all("lost").length === PARTITIONS);
    await stage.http.createTopic(topic, PARTITIONS);
    await stage.fill(topic, 200);
    await worker.untilHandled("c", 600);
    await worker.do({ do: "close", name: "c" });
    expectAllOnce(worker.journal("c").slice(0, 400), 400);
    expectAllOnce(worker.journal("c").slice(400), 200);
    const ids = new Set(worker.journal("c").map(({ topicId }) => topicId));
    expect(ids.size).toBe(2);
    stage.expectFinished(topic, 200);
  });
}

async function reset(stage: ClientStage, topic: string, to: unknown): Promise<void> {
  const answer = await stage.http.call("POST", `/v1/groups/${topic}/reset`, { topics: [{ topic }], to });
  expect(answer.status).toBe(200);
}

/** Where each partition began, when all of them have been assigned. */
async function startsOf(worker: ClientWorker): Promise<readonly number[]> {
  await worker.until("all partitions", () => assignedTo(worker).size === PARTITIONS);
  const assigned = assignedTo(worker);
  return range(0, PARTITIONS).map((partition) => assigned.get(partition) ?? 0);
}

function assignedTo(worker: ClientWorker): ReadonlyMap<number, number> {
  const all = worker.all("assigned", "c").flatMap(({ partitions }) => partitions);
  return new Map(all.map(({ partition, committedOffset }) => [partition, committedOffset ?? 0]));
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}

/** Each record once, in whoever's journal. */
function expectAllOnceInAny(journal: readonly Entry[], count: number): void {
  const sorted = offsetsOf(journal).map((offsets) => offsets.toSorted((a, b) => a - b));
  expect<readonly (readonly number[])[]>(sorted).toEqual(partitionEnds(count).map((end) => range(0, end)));
}

/** What was journaled of each partition in its last generation, where that is all of it. */
function lastRuns(journal: readonly Entry[], count: number): readonly Entry[] | undefined {
  const last = new Map(journal.map(({ partition, generation }) => [partition, generation]));
  const runs = journal.filter(({ partition, generation }) => last.get(partition) === generation);
  return runs.length === count ? runs : undefined;
}

function restOf(worker: ClientWorker, from: number) {
  return worker.said.slice(from).filter((said) => said.type === "handled" && said.offset >= 90);
}

function generationsOf(journal: readonly Entry[]): readonly (readonly Entry[])[] {
  return [...Map.groupBy(journal, ({ generation }) => generation).values()];
}
