// What a reader asks for and hands out, over a network that the test plays: where it goes on after a loss, and from a cursor.

import { expect, test } from "bun:test";
import type { Batch } from "../../clients/typescript/batch.ts";
import { connect } from "../../clients/typescript/client.ts";
import type { Cursor, ReadOptions } from "../../clients/typescript/reader.ts";
import type { ErrorCode } from "../../src/protocol/codes.ts";
import type { AssignedPartition } from "../../src/protocol/frames.ts";
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

/** A reader's partition: nothing is committed. */
const partitionAt = (generation: number, position: number, others: Partial<AssignedPartition> = {}) =>
  assignedPartition(generation, position, { committedOffset: null, ...others });

async function open(options: ReadOptions) {
  const stage = new ClientStage();
  const reader = connect({ url: "http://log.test", platform: stage.platform }).read("orders", options);
  return { stage, reader, batches: reader[Symbol.asyncIterator](), socket: await stage.connection(1) };
}

async function take(batches: AsyncIterator<Batch>): Promise<readonly number[]> {
  const { value, done } = await batches.next();
  return done ? [] : value.records.map(({ offset }: { offset: number }) => offset);
}

async function reopen(stage: ClientStage): Promise<StageSocket> {
  stage.sockets[0]?.end();
  await stage.time.advance(200);
  return stage.connection(2);
}

test("a reader acknowledges what was gone through: it frees the window, and commits nothing", async () => {
  const { socket, batches } = await open({ from: "latest", window: { records: 10 } });
  const [subscribe] = socket.take();
  expect(subscribe).toMatchObject({
    topics: ["orders"],
    from: "latest",
    ack: "manual",
    window: { records: 10 },
  });
  expect(subscribe).not.toHaveProperty("group");
  socket.say(subscribedFrame(subscribe?.id), assignedFrame([partitionAt(1, 42)]));
  socket.say(recordsFrame(1, { from: 42, next: 44 }), recordsFrame(1, { from: 44, next: 45 }));
  expect(await take(batches)).toEqual([42, 43]);
  expect(socket.take()).toEqual([]);
  expect(await take(batches)).toEqual([44]);
  const [ack] = socket.take();
  expect(ack).toMatchObject({ type: "ack", offsets: [{ generation: 1, offset: 44 }] });
  socket.say(ackedFrame(ack?.id ?? 0, null));
  expect(socket.take()).toEqual([]);
});

test("after a loss it goes on where it was, and new partitions from their beginning", async () => {
  const { stage, socket, batches, reader } = await open({ from: { timestamp: 5 } });
  socket.say(subscribedFrame(socket.takeId("subscribe")), assignedFrame([partitionAt(1, 42)]));
  socket.say(recordsFrame(1, { from: 42, next: 44 }));
  await take(batches);
  const next = await reopen(stage);
  const [subscribe] = next.take();
  expect(subscribe).toMatchObject({ from: "latest" });
  next.say(
    subscribedFrame(subscribe?.id),
    assignedFrame([partitionAt(1, 90), partitionAt(2, 7, { partition: 1 })]),
  );
  const seeks = next.take();
  expect(seeks).toMatchObject([
    { type: "seek", partition: 0, to: { offset: 44 } },
    { type: "seek", partition: 1, to: "earliest" },
  ]);
  next.say(recordsFrame(1, { from: 90, next: 91 })); // void
  next.say(
    assignedFrame([partitionAt(1, 44)], seeks[0]?.id),
    assignedFrame([partitionAt(2, 0, { partition: 1 })], seeks[1]?.id),
  );
  next.say(recordsFrame(1, { from: 44, next: 46 }));
  expect(await take(batches)).toEqual([44, 45]);
  expect(reader.cursor().positions).toEqual([
    { topic: "orders", partition: 0, offset: 44, topicId: 7 },
    { topic: "orders", partition: 1, offset: 0, topicId: 7 },
  ]);
});

test("it goes on where it was however long it had no connection: it has no membership to lose", async () => {
  const { stage, socket, batches } = await open({ from: "earliest" });
  socket.say(
    subscribedFrame(socket.takeId("subscribe")),
    assignedFrame([partitionAt(1, 0)]),
    recordsFrame(1, { from: 0, next: 2 }),
  );
  await take(batches);
  socket.end();
  await stage.time.advance(100_000); // nobody lets the next ones open
  const next = await stage.connection(stage.sockets.length);
  next.say(subscribedFrame(next.takeId("subscribe")), assignedFrame([partitionAt(1, 90)]));
  expect(next.take()).toMatchObject([{ type: "seek", partition: 0, to: { offset: 2 } }]);
});

test("a list goes on as a list: only these partitions", async () => {
  const { stage, socket, batches, reader } = await open({
    from: [{ topic: "orders", partition: 0, offset: 42 }],
  });
  socket.say(subscribedFrame(socket.takeId("subscribe")), assignedFrame([partitionAt(1, 42)]));
  socket.say(recordsFrame(1, { from: 42, next: 44 }));
  await take(batches);
  const cursor = reader.cursor();
  expect(cursor).toEqual({
    positions: [{ topic: "orders", partition: 0, offset: 42, topicId: 7 }],
    isList: true,
  });
  const next = await reopen(stage);
  expect(next.take()).toMatchObject([{ from: [{ topic: "orders", partition: 0, offset: 44, topicId: 7 }] }]);

  const resumed = await open({ from: JSON.parse(JSON.stringify(cursor)) });
  expect(resumed.socket.take()).toMatchObject([{ from: cursor.positions }]);
});

test("a cursor is gone on from: what was in hand comes again, what is new from its beginning", async () => {
  const cursor: Cursor = {
    isList: false,
    positions: [
      { topic: "orders", partition: 0, offset: 42, topicId: 7 },
      { topic: "orders", partition: 1, offset: 5, topicId: 6 }, // of a topic that was deleted
    ],
  };
  const { socket, batches, reader } = await open({ from: cursor });
  expect(reader.cursor()).toEqual(cursor);
  const [subscribe] = socket.take();
  expect(subscribe).toMatchObject({ from: "latest" });
  socket.say(
    subscribedFrame(subscribe?.id),
    assignedFrame([partitionAt(1, 90), partitionAt(2, 30, { partition: 1 })]),
  );
  const seeks = socket.take();
  expect(seeks).toMatchObject([
    { partition: 0, to: { offset: 42 } },
    { partition: 1, to: "earliest" },
  ]);
  socket.say(assignedFrame([partitionAt(1, 42)], seeks[0]?.id), recordsFrame(1, { from: 42, next: 43 }));
  expect(await take(batches)).toEqual([42]);
  expect(reader.cursor().positions[0]).toMatchObject({ offset: 42 });
});

/** A reader that has gone through [0, 2), was cut, and whose seek to 2 is refused while records of elsewhere come. */
async function refuseSeek(options: ReadOptions, code: ErrorCode) {
  const { stage, socket, batches, reader } = await open({ from: "earliest", ...options });
  const troubles: string[] = [];
  reader.on("trouble", (error) => troubles.push(error.code));
  socket.say(
    subscribedFrame(socket.takeId("subscribe")),
    assignedFrame([partitionAt(1, 0)]),
    recordsFrame(1, { from: 0, next: 2 }),
  );
  await take(batches);
  const next = await reopen(stage);
  next.say(subscribedFrame(next.takeId("subscribe")), assignedFrame([partitionAt(1, 90)]));
  const id = next.takeId("seek");
  next.say(recordsFrame(1, { from: 90, next: 91 }));
  next.say(errorFrame(id, code));
  await stage.time.settle();
  return { stage, next, batches, troubles };
}

test("where the log does not reach back to it, it goes on by its policy", async () => {
  const { next, batches, troubles } = await refuseSeek({}, "offset_out_of_range");
  expect(troubles).toEqual(["offset_out_of_range"]);
  next.say(assignedFrame([partitionAt(1, 50)], next.takeId("seek")), recordsFrame(1, { from: 50, next: 51 }));
  expect(await take(batches)).toEqual([50]);
});

test("with the policy none it ends instead", async () => {
  const { batches } = await refuseSeek({ reset: "none" }, "offset_out_of_range");
  expect(await take(batches).catch(({ code }) => code)).toBe("offset_out_of_range");
});

test("a seek that cannot be done now is tried again, and nothing is handed out before", async () => {
  const { stage, next, batches } = await refuseSeek({}, "rate_limited");
  const taking = take(batches);
  expect(next.sent).toEqual([]);
  await stage.time.advance(200);
  next.say(assignedFrame([partitionAt(1, 2)], next.takeId("seek")), recordsFrame(1, { from: 2, next: 3 }));
  expect(await taking).toEqual([2]);
});

test("a cursor of a reader that has nothing yet says where it was to begin", async () => {
  const { reader } = await open({ from: "latest" });
  const cursor = reader.cursor();
  expect(cursor).toEqual({ positions: [], isList: false, others: "latest" });
  const { socket } = await open({ from: JSON.parse(JSON.stringify(cursor)) });
  socket.say(subscribedFrame(socket.takeId("subscribe")), assignedFrame([partitionAt(1, 90)]));
  expect(socket.take()).toMatchObject([{ type: "seek", partition: 0, to: "latest" }]);
});

test("a list of which every topic is gone is asked for as it was given", async () => {
  const from = [{ topic: "orders", partition: 0, offset: 42 }];
  const { stage, socket } = await open({ from });
  socket.say(subscribedFrame(socket.takeId("subscribe")), assignedFrame([partitionAt(1, 42)]));
  const partitions = [{ topic: "orders", partition: 0, generation: 1 }];
  socket.say({ type: "revoked", subscription: "s1", partitions, reason: "topic_deleted", deadlineMs: 0 });
  const next = await reopen(stage);
  expect(next.take()).toMatchObject([{ from }]);
});
