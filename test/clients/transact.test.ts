// What a transaction of the client sends when its connection is lost, over a network that the test plays.

import { expect, test } from "bun:test";
import { connect, FencedError } from "../../clients/typescript/client.ts";
import type { ServerFrame } from "../../src/protocol/frames.ts";
import {
  assignedFrame,
  assignedPartition,
  ClientStage,
  recordsFrame,
  type StageSocket,
  subscribedFrame,
} from "../support/client-stage.ts";

const commitIn = (generation: number) => ({
  type: "transact",
  commits: { group: "g", offsets: [{ topic: "orders", partition: 0, generation, offset: 43 }] },
});

function fencedFrame(id: number, generation: number): ServerFrame {
  const message = `Cannot commit in generation ${generation}: nobody owns it`;
  const facts = { topic: "orders", partition: 0, generation };
  return { type: "error", id, code: "fenced_generation", message, retriable: false, ...facts };
}

/** A batch of one record, 42, in hand, and the transaction that commits it on its way. */
async function begin() {
  const stage = new ClientStage();
  const tidemark = connect({ url: "http://log.test", platform: stage.platform });
  const batches = tidemark.consume("orders", { group: "g", ack: "manual" })[Symbol.asyncIterator]();
  const socket = await stage.connection(1);
  socket.say(subscribedFrame(socket.takeId("subscribe"), "m1"), assignedFrame([assignedPartition(3, 42)]));
  socket.say(recordsFrame(3, { from: 42, next: 43 }));
  const { value: batch } = await batches.next();
  if (!batch) throw new Error("the loop has ended");
  const transacted = tidemark.transact({ commits: batch });
  await stage.time.settle();
  const [sent] = socket.take();
  expect(sent).toMatchObject(commitIn(3));
  return { stage, socket, batches, batch, transacted, id: sent?.id ?? 0 };
}

async function reconnect({ stage, socket }: { stage: ClientStage; socket: StageSocket }) {
  socket.end();
  await stage.time.advance(200);
  return stage.connection(2);
}

test("a transaction that was lost, and is fenced when it is sent again, is sent in the new generation", async () => {
  const { stage, socket, transacted } = await begin();
  const next = await reconnect({ stage, socket });
  const [again, subscribe] = next.take().toSorted((a, b) => b.type.localeCompare(a.type));
  expect([again, subscribe]).toMatchObject([commitIn(3), { type: "subscribe" }]);
  next.say(fencedFrame(again?.id ?? 0, 3));
  await stage.time.settle();
  expect(next.take()).toEqual([]); // whose the partition is now, is not known yet
  next.say(subscribedFrame(subscribe?.id, "m2"), assignedFrame([assignedPartition(4, 42)]));
  await stage.time.settle();
  const [renewed] = next.take().filter(({ type }) => type === "transact");
  expect(renewed).toMatchObject(commitIn(4));
  next.say({ type: "transacted", id: renewed?.id, runs: [] });
  expect(await transacted).toEqual({ runs: [] });
});

test("what a fenced transaction did not write comes again, also where its loss was not told of", async () => {
  const { stage, socket, batches, batch, transacted, id } = await begin();
  socket.say(fencedFrame(id, 3));
  expect(await transacted.catch((error) => error)).toBeInstanceOf(FencedError);
  expect(batch.signal.aborted).toBe(true);
  const taken = batches.next();
  const next = await reconnect({ stage, socket }); // before `revoked` came
  next.say(subscribedFrame(next.takeId("subscribe"), "m2"), assignedFrame([assignedPartition(5, 42)]));
  next.say(recordsFrame(5, { from: 42, next: 44 }));
  await stage.time.settle();
  expect((await taken).value?.records.map(({ offset }) => offset)).toEqual([42, 43]);
});
