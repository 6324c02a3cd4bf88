// What a consumer sends and hands out, frame by frame, over a network that the test plays.

import { describe, expect, test } from "bun:test";
import type { Batch } from "../../clients/typescript/batch.ts";
import { connect } from "../../clients/typescript/client.ts";
import type { ConsumeOptions } from "../../clients/typescript/consumer.ts";
import type { TidemarkError } from "../../clients/typescript/errors.ts";
import {
  ackedFrame,
  assignedFrame,
  assignedPartition,
  ClientStage,
  errorFrame,
  recordsFrame,
  type StageSocket,
  subscribedFrame,
} from "../support/client-stage.ts";

/** A consumer of the group "g", one connection that is up, and its first assignment: orders 0 in generation 3 from 42. */
async function subscribe(options: Partial<ConsumeOptions> = {}, partitions = [assignedPartition(3, 42)]) {
  const stage = new ClientStage();
  const client = connect({ url: "http://log.test", platform: stage.platform });
  const consumer = client.consume("orders", { group: "g", ...options });
  const socket = await stage.connection(1);
  socket.say(subscribedFrame(socket.takeId("subscribe"), "m1"), assignedFrame(partitions));
  return { stage, client, consumer, socket, batches: consumer[Symbol.asyncIterator]() };
}

async function reconnect(
  stage: ClientStage,
  partitions: Parameters<typeof assignedFrame>[0],
): Promise<StageSocket> {
  await stage.time.advance(200);
  const socket = await stage.connection(2);
  socket.say(subscribedFrame(socket.takeId("subscribe"), "m2"), assignedFrame(partitions));
  await stage.time.settle();
  return socket;
}

async function take(batches: AsyncIterator<Batch>): Promise<Batch> {
  const { value, done } = await batches.next();
  if (done) throw new Error("the loop has ended");
  return value;
}

function offsetsOf({ records }: Batch): readonly number[] {
  return records.map(({ offset }) => offset);
}

function failureOf(promise: Promise<unknown>): Promise<TidemarkError> {
  return promise.then(
    () => Promise.reject(new Error("it did not fail")),
    (error) => error,
  );
}

const ackOf = (generation: number, offset: number) => ({
  ...{ type: "ack", subscription: "s1", id: expect.any(Number) },
  offsets: [{ topic: "orders", partition: 0, generation, offset }],
});

describe("acks", () => {
  test("a batch is acknowledged when the loop asks for the next one, not before", async () => {
    const { socket, batches, stage } = await subscribe();
    socket.say(recordsFrame(3, { from: 42, next: 44 }), recordsFrame(3, { from: 44, next: 45 }));
    expect(offsetsOf(await take(batches))).toEqual([42, 43]);
    await stage.time.settle();
    expect(socket.take()).toEqual([]);
    expect(offsetsOf(await take(batches))).toEqual([44]);
    expect(socket.take()).toEqual([ackOf(3, 44)]);
  });

  test("a break leaves the batch unacknowledged, and leaves the group", async () => {
    const { socket, consumer, stage } = await subscribe();
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    const loop = (async () => {
      for await (const _ of consumer) break;
    })();
    await stage.time.settle();
    const id = socket.sent[0]?.id;
    expect(socket.take()).toEqual([{ type: "unsubscribe", id: expect.any(Number), subscription: "s1" }]);
    socket.say({ type: "unsubscribed", id, subscription: "s1" });
    await loop;
  });

  test("what throws in the loop leaves the batch unacknowledged", async () => {
    const { socket, consumer, stage } = await subscribe();
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    const loop = (async () => {
      for await (const batch of consumer) throw new Error(`bad order in ${batch.topic}`);
    })();
    await stage.time.settle();
    socket.say({ type: "unsubscribed", id: socket.takeId("unsubscribe"), subscription: "s1" });
    expect(await failureOf(loop)).toEqual(new Error("bad order in orders") as TidemarkError);
  });

  test("are gathered while two frames of them are under way", async () => {
    const { socket, batches } = await subscribe();
    for (let from = 42; from < 47; from++) socket.say(recordsFrame(3, { from, next: from + 1 }));
    for (let count = 0; count < 5; count++) await take(batches);
    const [first, second, ...others] = socket.take();
    expect([first, second, others]).toEqual([ackOf(3, 43), ackOf(3, 44), []]);
    socket.say(ackedFrame(first?.id ?? 0, 43));
    expect(socket.take()).toEqual([ackOf(3, 46)]);
  });

  test("by everyRecords and everyMs come when so much or so long was done", async () => {
    const { socket, batches, stage } = await subscribe({ ack: { everyRecords: 3, everyMs: 500 } });
    for (let from = 42; from < 48; from++) socket.say(recordsFrame(3, { from, next: from + 1 }));
    for (let count = 0; count < 4; count++) await take(batches);
    expect(socket.take()).toEqual([ackOf(3, 45)]);
    await take(batches);
    expect(socket.take()).toEqual([]);
    await stage.time.advance(500);
    expect(socket.take()).toEqual([ackOf(3, 46)]);
  });

  test("by everyRecords alone do not wait for ever: large records fill the window before there are as many", async () => {
    const { socket, batches, stage } = await subscribe({ ack: { everyRecords: 400 } });
    socket.say(recordsFrame(3, { from: 42, next: 43 }), recordsFrame(3, { from: 43, next: 44 }));
    await take(batches);
    await take(batches);
    expect(socket.take()).toEqual([]);
    await stage.time.advance(1_000);
    expect(socket.take()).toEqual([ackOf(3, 43)]);
  });

  test("by hand say when they are durable", async () => {
    const { socket, batches } = await subscribe({ ack: "manual" });
    socket.say(recordsFrame(3, { from: 42, next: 45 }), recordsFrame(3, { from: 45, next: 46 }));
    const batch = await take(batches);
    await take(batches);
    expect(socket.take()).toEqual([]);
    const done = batch.ackThrough({ offset: 43 }, "checkpoint");
    const [ack] = socket.take();
    expect(ack?.offsets).toEqual([
      { topic: "orders", partition: 0, generation: 3, offset: 44, metadata: "checkpoint" },
    ]);
    socket.say(ackedFrame(ack?.id ?? 0, 44));
    await done;
  });

  test("that the database could not take are sent again", async () => {
    const { socket, batches, stage } = await subscribe({ ack: "manual" });
    socket.say(recordsFrame(3, { from: 42, next: 45 }));
    const done = (await take(batches)).ack();
    const id = socket.takeId("ack");
    socket.say(errorFrame(id, "unavailable", "busy"));
    expect(socket.take()).toEqual([]);
    await stage.time.advance(200);
    const [again] = socket.take();
    expect(again).toEqual(ackOf(3, 45));
    socket.say(ackedFrame(again?.id ?? 0, 45));
    await done;
  });

  test("of an offset that the batch does not have are refused here", async () => {
    const { socket, batches } = await subscribe({ ack: "manual" });
    socket.say(recordsFrame(3, { from: 42, next: 45 }));
    const error = await failureOf((await take(batches)).ackThrough({ offset: 45 }));
    expect(error).toMatchObject({ code: "offset_out_of_range", retriable: false });
  });

  test("that are fenced reject with a FencedError", async () => {
    const { socket, batches } = await subscribe({ ack: "manual" });
    socket.say(recordsFrame(3, { from: 42, next: 45 }));
    const failure = failureOf((await take(batches)).ack());
    const offsets = [{ topic: "orders", partition: 0, offset: 50, code: "fenced_generation" } as const];
    socket.say({ type: "acked", id: socket.takeId("ack"), subscription: "s1", offsets });
    expect(await failure).toMatchObject({ name: "FencedError", code: "fenced_generation" });
  });
});

describe("what went wrong once", () => {
  const errorFrame = (id: number, code: "bad_request" | "no_committed_offset") => ({
    ...{ type: "error" as const, id, subscription: "s1", code, message: code, retriable: false },
  });

  test("an ack that was refused is sent again when it is said again, and close() waits for nothing", async () => {
    const { stage, socket, batches, consumer } = await subscribe({ ack: "manual" });
    socket.say(recordsFrame(3, { from: 42, next: 45 }));
    const batch = await take(batches);
    const refused = failureOf(batch.ack("too long"));
    socket.say(errorFrame(socket.takeId("ack"), "bad_request"));
    expect(await refused).toMatchObject({ code: "bad_request" });
    const again = failureOf(batch.ack());
    socket.say(errorFrame(socket.takeId("ack"), "bad_request"));
    await again;
    const closing = consumer.close();
    await stage.time.settle();
    const [ack] = socket.take();
    socket.say(ackedFrame(ack?.id ?? 0, 45));
    await stage.time.settle();
    socket.say({ type: "unsubscribed", id: socket.takeId("unsubscribe"), subscription: "s1" });
    await closing;
  });

  test("acks after a seek back make room, though all of it was committed before", async () => {
    const { socket, batches, consumer } = await subscribe();
    const sought = consumer.seek({ topic: "orders", partition: 0, to: "earliest" });
    const id = socket.takeId("seek");
    socket.say(assignedFrame([assignedPartition(3, 0, { committedOffset: 42 })], id));
    await sought;
    socket.say(recordsFrame(3, { from: 0, next: 2 }), recordsFrame(3, { from: 2, next: 4 }));
    await take(batches);
    await take(batches);
    expect(socket.take()).toEqual([ackOf(3, 2)]);
  });

  test("run() rejects by what there is no place for, whichever lane gets it", async () => {
    const { socket, consumer, stage } = await subscribe({ reset: "none" });
    const running = failureOf(consumer.run(() => {}));
    await stage.time.settle();
    const { id: _, ...frame } = errorFrame(0, "no_committed_offset");
    socket.say({ ...frame, topic: "orders", partition: 0 });
    await stage.time.settle();
    socket.say({ type: "unsubscribed", id: socket.takeId("unsubscribe"), subscription: "s1" });
    expect(await running).toMatchObject({ code: "no_committed_offset" });
  });

  test("a partition that has no place is not sought to one after a reconnect", async () => {
    const nowhere = { position: null, committedOffset: null };
    const { stage, socket } = await subscribe({ reset: "none" }, [assignedPartition(3, 0, nowhere)]);
    socket.end();
    const next = await reconnect(stage, [assignedPartition(9, 0, nowhere)]);
    expect(next.take()).toEqual([]);
  });

  test("a consumer that fails by itself leaves the group", async () => {
    const { stage, socket, batches } = await subscribe({ reset: "none" });
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    await take(batches);
    socket.end();
    const next = await reconnect(stage, [assignedPartition(9, 42)]);
    const error = { ...errorFrame(next.takeId("seek"), "bad_request"), code: "offset_out_of_range" as const };
    next.say(error);
    expect(await failureOf(batches.next())).toMatchObject({ code: "offset_out_of_range" });
    expect(next.take().at(-1)).toMatchObject({ type: "unsubscribe" });
  });

  test("what is closed before the server has answered leaves the group", async () => {
    const stage = new ClientStage();
    const client = connect({ url: "http://log.test", platform: stage.platform });
    const consumer = client.consume("orders", { group: "g" });
    const socket = await stage.connection(1);
    void consumer.close();
    await stage.time.settle();
    expect(socket.take().map(({ type }) => type)).toEqual(["subscribe", "unsubscribe"]);
  });
});

describe("after the connection was lost", () => {
  test("it goes on from the next record that was not handed out, in the new generation", async () => {
    const { stage, socket, batches } = await subscribe();
    socket.say(recordsFrame(3, { from: 42, next: 44 }), recordsFrame(3, { from: 44, next: 46 }));
    const inHand = await take(batches);
    socket.end();
    const next = await reconnect(stage, [assignedPartition(9, 42)]);
    const [seek] = next.take();
    expect(seek).toMatchObject({ type: "seek", topic: "orders", partition: 0, to: { offset: 44 } });
    next.say(recordsFrame(9, { from: 42, next: 46 })); // on its way before the seek: void
    next.say(assignedFrame([assignedPartition(9, 44, { committedOffset: 42 })], seek?.id));
    next.say(recordsFrame(9, { from: 44, next: 46 }));
    expect({ lost: inHand.signal.aborted, generation: inHand.generation }).toEqual({
      lost: false,
      generation: 9,
    });
    expect(offsetsOf(await take(batches))).toEqual([44, 45]);
    expect(next.take()).toEqual([ackOf(9, 44)]);
  });

  test("a seek that is refused hands out nothing twice", async () => {
    const { stage, socket, batches } = await subscribe();
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    await take(batches);
    socket.end();
    const next = await reconnect(stage, [assignedPartition(9, 42)]);
    const id = next.takeId("seek");
    next.say(recordsFrame(9, { from: 42, next: 46 }));
    next.say(errorFrame(id, "not_assigned", "it moves"));
    expect(offsetsOf(await take(batches))).toEqual([44, 45]);
  });

  test("no ack of an older generation is sent: what became of it is read from the committed offset", async () => {
    const { stage, socket, batches } = await subscribe({ ack: "manual" });
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    const done = (await take(batches)).ack();
    socket.end(); // before "acked"
    const next = await reconnect(stage, [assignedPartition(9, 44)]);
    await done;
    expect(next.take()).toEqual([]);
  });

  test("an ack that waited for its turn and was never sent is not taken for one that was", async () => {
    const { stage, socket, batches } = await subscribe();
    for (let from = 42; from < 46; from++) socket.say(recordsFrame(3, { from, next: from + 1 }));
    for (let count = 0; count < 3; count++) await take(batches);
    expect(socket.take()).toEqual([ackOf(3, 43), ackOf(3, 44)]); // both under way: the next one waits
    const inHand = await take(batches);
    socket.end();
    await reconnect(stage, [assignedPartition(9, 45)]); // so it was somebody else who committed 45
    expect(inHand.signal.aborted).toBe(true);
  });

  test("an ack that did not arrive is made anew", async () => {
    const { stage, socket, batches } = await subscribe({ ack: "manual" });
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    const done = (await take(batches)).ack();
    socket.end();
    const next = await reconnect(stage, [assignedPartition(9, 42)]);
    const [seek, ...early] = next.take();
    expect(early).toEqual([]); // above what this generation has reached
    next.say(assignedFrame([assignedPartition(9, 44, { committedOffset: 42 })], seek?.id));
    const [ack] = next.take();
    expect(ack).toEqual(ackOf(9, 44));
    next.say(ackedFrame(ack?.id ?? 0, 44));
    await done;
  });

  test.each([
    ["somebody else has committed further", assignedPartition(9, 45)],
    ["it was reset to before what was committed", assignedPartition(9, 10)],
    ["a policy has put it elsewhere", assignedPartition(9, 42, { reset: "earliest" })],
    ["it is another topic of that name", assignedPartition(9, 42, { topicId: 8 })],
  ])("a batch in hand is lost where %s", async (_, assigned) => {
    const { stage, socket, batches } = await subscribe();
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    const batch = await take(batches);
    socket.end();
    const next = await reconnect(stage, [assigned]);
    expect(batch.signal.reason).toMatchObject({ name: "FencedError", code: "fenced_generation" });
    expect(await failureOf(batch.ack())).toMatchObject({ name: "FencedError" });
    const position = assigned.position ?? 0;
    next.say(recordsFrame(9, { from: position, next: position + 1 }));
    expect(offsetsOf(await take(batches))).toEqual([position]);
    expect(next.take()).toEqual([]);
  });

  test("a partition that is not assigned again is lost", async () => {
    const { stage, socket, batches, consumer } = await subscribe();
    const lost: number[] = [];
    consumer.on("lost", ({ partition }) => lost.push(partition));
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    const batch = await take(batches);
    socket.end();
    await reconnect(stage, []);
    expect({ lost, aborted: batch.signal.aborted }).toEqual({ lost: [0], aborted: true });
  });

  test("everything is lost when the session timeout has passed without a connection", async () => {
    const { stage, socket, batches } = await subscribe();
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    const batch = await take(batches);
    socket.end();
    await stage.time.advance(44_000);
    expect(batch.signal.aborted).toBe(false);
    await stage.time.advance(1_000);
    expect(batch.signal.aborted).toBe(true);
  });

  test("the membership is taken over by memberId, and a paused partition stays paused", async () => {
    const { stage, socket, consumer } = await subscribe({ instanceId: "tab-7" });
    const pausing = consumer.pause();
    socket.say({ type: "ok", id: socket.takeId("pause") });
    await pausing;
    socket.end();
    await stage.time.advance(200);
    const next = await stage.connection(2);
    const [frame] = next.take();
    expect(frame).toMatchObject({ type: "subscribe", memberId: "m1", instanceId: "tab-7", group: "g" });
    next.say(subscribedFrame(frame?.id, "m1"), assignedFrame([assignedPartition(9, 42)]));
    expect(next.take()).toMatchObject([{ type: "pause", partitions: [{ topic: "orders", partition: 0 }] }]);
    expect(consumer.partitions).toMatchObject([{ generation: 9, position: 42, isPaused: true }]);
  });
});

describe("ownership", () => {
  test("records of another generation are dropped", async () => {
    const { socket, batches } = await subscribe();
    socket.say(recordsFrame(2, { from: 42, next: 44 }), recordsFrame(3, { from: 42, next: 43 }));
    expect(offsetsOf(await take(batches))).toEqual([42]);
  });

  test("a reset while it runs ends what is in hand and what waits", async () => {
    const { socket, batches } = await subscribe();
    socket.say(recordsFrame(3, { from: 42, next: 44 }), recordsFrame(3, { from: 44, next: 46 }));
    const batch = await take(batches);
    socket.say(assignedFrame([assignedPartition(5, 0)]), recordsFrame(5, { from: 0, next: 1 }));
    expect(batch.signal.aborted).toBe(true);
    expect(offsetsOf(await take(batches))).toEqual([0]);
    expect(socket.take()).toEqual([]); // nothing of the old generation
  });

  const revoke = (socket: StageSocket, deadlineMs: number) =>
    socket.say({
      ...{ type: "revoked", subscription: "s1", reason: "rebalance", deadlineMs },
      partitions: [{ topic: "orders", partition: 0, generation: 3 }],
    });

  test("a revoked partition is let go as soon as what is in hand is done and durable", async () => {
    const { socket, batches, stage } = await subscribe();
    socket.say(recordsFrame(3, { from: 42, next: 44 }), recordsFrame(3, { from: 44, next: 46 }));
    const batch = await take(batches);
    revoke(socket, 5_000);
    expect({ sent: socket.take(), aborted: batch.signal.aborted }).toEqual({ sent: [], aborted: false });
    void batches.next();
    await stage.time.settle();
    const [ack, ...others] = socket.take();
    expect([ack, others]).toEqual([ackOf(3, 44), []]);
    socket.say(ackedFrame(ack?.id ?? 0, 44));
    expect(socket.take()).toMatchObject([
      { type: "release", partitions: [{ topic: "orders", partition: 0 }] },
    ]);
    expect(batch.signal.aborted).toBe(true);
  });

  test("a revoked partition of which nothing is in hand is let go at once", async () => {
    const { socket } = await subscribe();
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    revoke(socket, 5_000);
    expect(socket.take()).toMatchObject([{ type: "release" }]);
  });

  test("a batch in hand is lost at the deadline of its revocation", async () => {
    const { socket, batches, stage } = await subscribe();
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    const batch = await take(batches);
    revoke(socket, 5_000);
    await stage.time.advance(4_999);
    expect(batch.signal.aborted).toBe(false);
    await stage.time.advance(1);
    expect(batch.signal.aborted).toBe(true);
  });

  test("a partition that is revoked without a deadline is gone", async () => {
    const { socket, batches } = await subscribe();
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    const batch = await take(batches);
    revoke(socket, 0);
    expect(await failureOf(batch.ack())).toMatchObject({ name: "FencedError" });
    expect(socket.take()).toEqual([]);
  });

  test("a membership that has expired is begun anew, one that another instance has taken over is not", async () => {
    const { socket, batches, stage } = await subscribe({ instanceId: "tab-7" });
    socket.say({ type: "unsubscribed", subscription: "s1", code: "expired" });
    socket.say(subscribedFrame(socket.takeId("subscribe"), "m2"), assignedFrame([assignedPartition(8, 42)]));
    socket.say({ type: "unsubscribed", subscription: "s1", code: "replaced" });
    await stage.time.settle();
    expect(socket.take()).toEqual([]);
    expect(await failureOf(batches.next())).toMatchObject({ code: "replaced", retriable: false });
  });

  test("a membership that its own late frame on an older connection has taken over is taken back", async () => {
    const { socket, batches } = await subscribe();
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    const { signal } = await take(batches);
    socket.say({ type: "unsubscribed", subscription: "s1", code: "replaced" });
    const [frame] = socket.take();
    expect(frame).toMatchObject({ type: "subscribe", memberId: "m1" });
    socket.say(subscribedFrame(frame?.id, "m1"), assignedFrame([assignedPartition(9, 42)]));
    expect(signal.aborted).toBe(false);
  });
});

describe("seek, pause, resume", () => {
  test("a seek makes void what waited, and leaves what is in hand", async () => {
    const { socket, batches, consumer } = await subscribe();
    socket.say(recordsFrame(3, { from: 42, next: 44 }), recordsFrame(3, { from: 44, next: 46 }));
    const batch = await take(batches);
    const sought = consumer.seek({ topic: "orders", partition: 0, to: { offset: 10 } });
    const id = socket.takeId("seek");
    socket.say(
      assignedFrame([assignedPartition(3, 10, { committedOffset: 42 })], id),
      recordsFrame(3, { from: 10, next: 11 }),
    );
    await sought;
    expect(offsetsOf(await take(batches))).toEqual([10]);
    expect(batch.signal.aborted).toBe(false);
    expect(socket.take()).toEqual([ackOf(3, 44)]);
  });

  test("a seek that is refused loses nothing of what waited", async () => {
    const { socket, batches, consumer } = await subscribe();
    const failure = failureOf(consumer.seek({ topic: "orders", partition: 0, to: { offset: 5_000 } }));
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    const message = "Cannot read from offset 5000";
    socket.say(errorFrame(socket.takeId("seek"), "offset_out_of_range", message));
    expect(await failure).toMatchObject({ code: "offset_out_of_range" });
    expect(offsetsOf(await take(batches))).toEqual([42, 43]);
  });

  test("what waits of a paused partition is not handed out before it resumes", async () => {
    const { socket, batches, consumer } = await subscribe();
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    const pausing = consumer.pause();
    socket.say({ type: "ok", id: socket.takeId("pause") });
    await pausing;
    const taking = take(batches);
    expect(await Promise.race([taking, Promise.resolve("nothing")])).toBe("nothing");
    const resuming = consumer.resume();
    socket.say({ type: "ok", id: socket.takeId("resume") });
    await resuming;
    expect(offsetsOf(await taking)).toEqual([42, 43]);
  });

  test("of a partition that is not its own are refused here", async () => {
    const { consumer } = await subscribe();
    const error = await failureOf(consumer.pause([{ topic: "orders", partition: 5 }]));
    expect(error).toMatchObject({ name: "FencedError", code: "not_assigned" });
  });
});

describe("at most once", () => {
  const options = { ack: "none" } as const;

  test("nothing is acknowledged, and what was sent is handed out after a loss too", async () => {
    const { socket, batches, stage } = await subscribe(options);
    socket.say(recordsFrame(3, { from: 42, next: 44 }), recordsFrame(3, { from: 44, next: 46 }));
    expect(offsetsOf(await take(batches))).toEqual([42, 43]);
    socket.end();
    const next = await reconnect(stage, [assignedPartition(9, 46)]);
    next.say(recordsFrame(9, { from: 46, next: 47 }));
    expect(offsetsOf(await take(batches))).toEqual([44, 45]);
    expect(offsetsOf(await take(batches))).toEqual([46]);
    expect([socket.take(), next.take()]).toEqual([[], []]);
  });

  test("the window is one for all its partitions", async () => {
    const two = [assignedPartition(3, 0), assignedPartition(4, 0, { partition: 1 })];
    const { socket } = await subscribe(options, two);
    socket.say(recordsFrame(3, { from: 0, next: 500 }));
    expect(socket.take()).toEqual([]);
    socket.say(recordsFrame(4, { from: 0, next: 500, partition: 1 }));
    expect(socket.take()).toMatchObject([{ type: "pause", partitions: [{ partition: 1 }] }]);
  });

  test("a consumer that sleeps asks for no more than a window, and goes on when that is gone", async () => {
    const { socket, batches } = await subscribe(options);
    socket.say(recordsFrame(3, { from: 42, next: 542 }));
    expect(socket.take()).toEqual([]);
    socket.say(recordsFrame(3, { from: 542, next: 1_042 }));
    expect(socket.take()).toMatchObject([{ type: "pause" }]);
    await take(batches);
    expect(socket.take()).toEqual([]);
    await take(batches);
    expect(socket.take()).toMatchObject([{ type: "resume" }]);
  });
});

describe("errors", () => {
  test.each([
    ["unknown_topic", false],
    ["bad_request", false],
  ] as const)("a subscribe that is refused as %s ends the loop with it", async (code, retriable) => {
    const stage = new ClientStage();
    const client = connect({ url: "http://log.test", platform: stage.platform });
    const taking = failureOf(client.consume("ordrs", { group: "g" })[Symbol.asyncIterator]().next());
    const socket = await stage.connection(1);
    socket.say(errorFrame(socket.takeId("subscribe"), code));
    expect(await taking).toMatchObject({ code, retriable });
  });

  test("a subscribe that cannot be done now is tried again", async () => {
    const stage = new ClientStage();
    const client = connect({ url: "http://log.test", platform: stage.platform });
    client.consume("orders", { group: "g" });
    const socket = await stage.connection(1);
    const id = socket.takeId("subscribe");
    socket.say(errorFrame(id, "unavailable", "busy"));
    expect(socket.take()).toEqual([]);
    await stage.time.advance(200);
    expect(socket.take()).toMatchObject([{ type: "subscribe" }]);
  });

  test("a partition without a place, by the policy none, ends the loop with what to do", async () => {
    const { socket, batches, stage } = await subscribe({ reset: "none" }, [
      assignedPartition(3, 0, { position: null, committedOffset: null }),
    ]);
    const taking = failureOf(batches.next());
    socket.say({
      ...{ type: "error", subscription: "s1", topic: "orders", partition: 0, retriable: false },
      code: "no_committed_offset",
      message: "nothing is committed",
    });
    await stage.time.settle();
    socket.say({ type: "unsubscribed", id: socket.takeId("unsubscribe"), subscription: "s1" });
    expect(await taking).toMatchObject({
      code: "no_committed_offset",
      facts: { topic: "orders", partition: 0 },
    });
  });

  test("what is closed refuses to be used", async () => {
    const { client, socket, stage, consumer, batches } = await subscribe({ ack: "manual" });
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    const batch = await take(batches);
    const closing = client.close();
    await stage.time.settle();
    socket.say({ type: "unsubscribed", id: socket.takeId("unsubscribe"), subscription: "s1" });
    await closing;
    expect(client.status).toBe("closed");
    expect((await batches.next()).done).toBe(true);
    expect(() => client.consume("orders", { group: "g" })).toThrow("closed");
    expect(await failureOf(client.produce("orders", { value: 1 }))).toMatchObject({
      code: "closed",
      retriable: false,
    });
    expect(await failureOf(batch.ack())).toMatchObject({ code: "fenced_generation" });
    expect(await failureOf(consumer.seek({ topic: "orders", partition: 0, to: "latest" }))).toMatchObject({
      code: "closed",
    });
  });

  test("a signal ends the loop with its reason, after what was done is acknowledged", async () => {
    const stopping = new AbortController();
    const { socket, batches, stage } = await subscribe({ signal: stopping.signal });
    socket.say(recordsFrame(3, { from: 42, next: 44 }));
    await take(batches);
    const taking = failureOf(batches.next());
    await stage.time.settle();
    stopping.abort(new Error("deploy"));
    socket.say(ackedFrame(socket.takeId("ack"), 44));
    await stage.time.settle();
    socket.say({ type: "unsubscribed", id: socket.takeId("unsubscribe"), subscription: "s1" });
    expect(await taking).toEqual(new Error("deploy") as TidemarkError);
  });
});

describe("run()", () => {
  test("keeps the order of a partition and lets partitions go side by side", async () => {
    const { socket, consumer, stage } = await subscribe({}, [
      assignedPartition(3, 0),
      assignedPartition(4, 0, { partition: 1 }),
    ]);
    const running = new Map<number, () => void>();
    const seen: string[] = [];
    void consumer.run(({ partition, offset }) => {
      seen.push(`${partition}/${offset}`);
      return new Promise<void>((resolve) => running.set(partition, resolve));
    });
    socket.say(recordsFrame(3, { from: 0, next: 2 }), recordsFrame(4, { from: 0, next: 1, partition: 1 }));
    await stage.time.settle();
    expect(seen).toEqual(["0/0", "1/0"]);
    running.get(0)?.();
    await stage.time.settle();
    expect(seen).toEqual(["0/0", "1/0", "0/1"]);
    expect(socket.take()).toEqual([ackOf(3, 1)]);
  });

  test("tries a record again, and rejects when it fails for the last time", async () => {
    const { socket, consumer, stage } = await subscribe({ retry: { attempts: 2, backoffMs: 100 } });
    const attempts: number[] = [];
    const running = failureOf(
      consumer.run(({ offset }, { attempt }) => {
        if (offset === 42) return;
        attempts.push(attempt);
        throw new Error("bad order");
      }),
    );
    socket.say(recordsFrame(3, { from: 42, next: 45 }));
    await stage.time.settle();
    const ack = socket.takeId("ack");
    expect(attempts).toEqual([1]);
    await stage.time.advance(100);
    expect(attempts).toEqual([1, 2]);
    socket.say(ackedFrame(ack, 43));
    await stage.time.settle();
    socket.say({ type: "unsubscribed", id: socket.takeId("unsubscribe"), subscription: "s1" });
    expect(await running).toMatchObject({
      code: "handler_failed",
      facts: { topic: "orders", partition: 0, offset: 43 },
      cause: new Error("bad order"),
    });
  });

  test("puts what fails into the dead-letter topic, in the transaction that commits past it", async () => {
    const { socket, consumer, stage } = await subscribe({ deadLetter: "failed" });
    void consumer.run(({ offset }) => {
      if (offset === 43) throw new Error("bad order");
    });
    socket.say(recordsFrame(3, { from: 42, next: 45 }));
    await stage.time.settle();
    const [ack, ...frames] = socket.take();
    expect(ack).toEqual(ackOf(3, 43));
    expect(frames).toMatchObject([
      {
        type: "transact",
        producer: { epoch: 0, sequence: 0 },
        appends: [
          {
            topic: "failed",
            records: [
              {
                value: 43,
                headers: {
                  "tidemark-error": "Error: bad order",
                  "tidemark-origin-topic": "orders",
                  "tidemark-origin-partition": "0",
                  "tidemark-origin-offset": "43",
                },
              },
            ],
          },
        ],
        commits: {
          group: "g",
          offsets: [{ topic: "orders", partition: 0, generation: 3, offset: expect.any(Number) }],
        },
      },
    ]);
    // What was done since follows when the transaction is through.
    socket.say(ackedFrame(ack?.id ?? 0, 43));
    expect(socket.take()).toEqual([]);
    socket.say({
      type: "transacted",
      id: frames[0]?.id,
      runs: [{ topic: "failed", partition: 0, offset: 0, count: 1 }],
    });
    await stage.time.settle();
    expect(socket.take()).toEqual([ackOf(3, 45)]);
  });

  test("stops at the record that it has when it is closed", async () => {
    const { socket, consumer, stage } = await subscribe();
    const seen: number[] = [];
    let finish = () => {};
    const running = consumer.run(({ offset }) => {
      seen.push(offset);
      return new Promise<void>((resolve) => {
        finish = resolve;
      });
    });
    socket.say(recordsFrame(3, { from: 42, next: 45 }));
    await stage.time.settle();
    const closing = consumer.close();
    await stage.time.settle();
    expect(socket.take()).toEqual([]);
    finish();
    await stage.time.settle();
    const [ack, ...others] = socket.take();
    expect([ack, others]).toEqual([ackOf(3, 43), []]);
    socket.say(ackedFrame(ack?.id ?? 0, 43));
    await stage.time.settle();
    socket.say({ type: "unsubscribed", id: socket.takeId("unsubscribe"), subscription: "s1" });
    await Promise.all([closing, running]);
    expect(seen).toEqual([42]);
  });
});
