// What a transaction of the client sends when its connection is lost, over a network that the test plays.

import { expect, test } from "bun:test";
import { connect } from "../../clients/typescript/client.ts";
import type { ServerFrame } from "../../src/protocol/frames.ts";
import {
  assignedFrame,
  assignedPartition,
  ClientStage,
  recordsFrame,
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

test("a transaction that was lost, and is fenced when it is sent again, is sent in the new generation", async () => {
  const stage = new ClientStage();
  const tidemark = connect({ url: "http://log.test", platform: stage.platform });
  const batches = tidemark.consume("orders", { group: "g" })[Symbol.asyncIterator]();
  const socket = await stage.connection(1);
  socket.say(subscribedFrame(socket.takeId("subscribe"), "m1"), assignedFrame([assignedPartition(3, 42)]));
  socket.say(recordsFrame(3, { from: 42, next: 43 }));
  const { value: batch } = await batches.next();
  if (!batch) throw new Error("the loop has ended");
  const transacted = tidemark.transact({ commits: batch });
  await stage.time.settle();
  expect(socket.take()).toMatchObject([commitIn(3)]);

  socket.end();
  await stage.time.advance(200);
  const next = await stage.connection(2);
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
