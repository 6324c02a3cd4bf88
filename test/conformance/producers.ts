import assert from "node:assert/strict";
import type { ProducerSequence } from "../../src/protocol/frames.ts";
import { checksOf, type ServerUnderTest } from "./check.ts";
import { type Answer, assertRefused, bodyOf, call } from "./http.ts";
import { logEndsOf, newName, newTopic, recordsPath } from "./log.ts";
import { countFrom } from "./match.ts";
import { Socket } from "./socket.ts";

const ANSWERS_KEPT = 16;

interface Producing {
  readonly topic: string;
  readonly id: string;
  /** Produces one record. */
  next(sequence: number, epoch?: number): Promise<Answer>;
}

/** A producer with a topic of its own, that has written so many batches of one record. */
async function producing(server: ServerUnderTest, written = 0): Promise<Producing> {
  const [topic, id] = [await newTopic(server), newName("producer")];
  const next = (sequence: number, epoch = 0) => send(server, topic, { id, epoch, sequence });
  for (const sequence of countFrom(0, written)) bodyOf(await next(sequence));
  return { topic, id, next };
}

function send(server: ServerUnderTest, topic: string, producer: ProducerSequence): Promise<Answer> {
  return call(server, "POST", recordsPath(topic), { records: [{ value: producer.sequence }], producer });
}

const run = (offset: number) => ({ partition: 0, offset, count: 1 });

export const producers = checksOf("producers", {
  "the next sequence is written, and a repeated one answered as the first time": async (server) => {
    const { topic, next } = await producing(server);
    assert.deepEqual(bodyOf(await next(0)), { runs: [run(0)] });
    assert.deepEqual(bodyOf(await next(1)), { runs: [run(1)] });
    assert.deepEqual(bodyOf(await next(0)), { runs: [run(0)], duplicate: true });
    assert.deepEqual(await logEndsOf(server, topic), [2]);
  },

  "a sequence that is sent many times at once is written once": async (server) => {
    const { topic, next } = await producing(server, 1);
    const answers = (await Promise.all(countFrom(0, 8).map(() => next(1)))).map((answer) => bodyOf(answer));
    for (const { runs } of answers) assert.deepEqual(runs, [run(1)]);
    assert.equal(answers.filter(({ duplicate }) => duplicate !== true).length, 1);
    assert.deepEqual(await logEndsOf(server, topic), [2]);
  },

  "one that leaves another out is sequence_gap and writes nothing": async (server) => {
    const { topic, id, next } = await producing(server, 2);
    assertRefused(await next(3), 409, "sequence_gap", { producer: id, found: 3, expected: 2 });
    assert.deepEqual(await logEndsOf(server, topic), [2]);
    assert.deepEqual(bodyOf(await next(2)).runs, [run(2)]);
  },

  "an unknown id starts at 0": async (server) => {
    const { id, next } = await producing(server);
    assertRefused(await next(1), 409, "sequence_gap", { producer: id, found: 1, expected: 0 });
    assert.deepEqual(bodyOf(await next(0)).runs, [run(0)]);
  },

  "the answers of the last 16 are kept": async (server) => {
    const { next } = await producing(server, ANSWERS_KEPT + 1);
    assert.deepEqual(bodyOf(await next(1)), { runs: [run(1)], duplicate: true });
    assert.deepEqual(bodyOf(await next(0)), { runs: [], duplicate: true });
  },

  "a new epoch starts at 0 and fences the older": async (server) => {
    const { topic, id, next } = await producing(server, 1);
    assert.deepEqual(bodyOf(await call(server, "POST", `/v1/producers/${id}`)), { id, epoch: 1 });
    assertRefused(await next(1), 409, "fenced_producer", { producer: id, found: 0, expected: 1 });
    assertRefused(await next(1, 1), 409, "sequence_gap", { expected: 0 });
    assert.deepEqual(bodyOf(await next(0, 1)).runs, [run(1)]);
    assert.deepEqual(bodyOf(await call(server, "POST", `/v1/producers/${id}`)), { id, epoch: 2 });
    assertRefused(await next(1, 1), 409, "fenced_producer", { found: 1, expected: 2 });
    assert.deepEqual(await logEndsOf(server, topic), [2]);
  },

  "counts over all topics, and what was refused does not count": async (server) => {
    const { id, next } = await producing(server, 1);
    const other = await newTopic(server);
    assert.deepEqual(bodyOf(await send(server, other, { id, epoch: 0, sequence: 1 })).runs, [run(0)]);
    const unknown = await send(server, newName("topic"), { id, epoch: 0, sequence: 2 });
    assertRefused(unknown, 404, "unknown_topic");
    assert.deepEqual(bodyOf(await next(2)).runs, [run(1)]);
  },

  "numbers the frames of a socket too": async (server) => {
    const { topic, id } = await producing(server, 1);
    using socket = await Socket.open(server);
    for (const sequence of [1, 0, 3]) {
      const producer = { id, epoch: 0, sequence };
      socket.send({ type: "produce", id: sequence, topic, records: [{ value: 1 }], producer });
    }
    assert.deepEqual(await socket.next(), { type: "produced", id: 1, runs: [run(1)] });
    assert.deepEqual(await socket.next(), { type: "produced", id: 0, runs: [run(0)], duplicate: true });
    const { code, ...error } = await socket.expect("error");
    assert.deepEqual([error.id, code, Reflect.get(error, "expected")], [3, "sequence_gap", 2]);
  },
});
