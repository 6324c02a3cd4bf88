import assert from "node:assert/strict";
import { checksOf, type ServerUnderTest } from "./check.ts";
import { type Answer, assertRefused, bodyOf, call } from "./http.ts";
import {
  committedOf,
  logEndsOf,
  newName,
  newTopic,
  partitionOf,
  read,
  type Subscriber,
  subscribe,
} from "./log.ts";
import { assertMatches } from "./match.ts";
import { Socket } from "./socket.ts";

function transact(server: ServerUnderTest, body: object): Promise<Answer> {
  return call(server, "POST", "/v1/transactions", body);
}

const appendTo = (topic: string, ...values: readonly unknown[]) => ({
  topic,
  records: values.map((value) => ({ value, partition: 0 })),
});

interface Transforming extends Disposable {
  readonly source: string;
  readonly target: string;
  readonly group: string;
  readonly member: Subscriber;
  /** Appends a record to the target, and commits that offset of the source. */
  body(offset: number, generation?: number): object;
}

/** A member that may be sent two of the four records of a topic, and a topic to write to. */
async function transforming(server: ServerUnderTest): Promise<Transforming> {
  const [source, target] = [await newTopic(server, { records: 4 }), await newTopic(server)];
  const group = newName("group");
  const member = await subscribe(server, { topics: [source], group, window: { records: 2 } });
  await member.socket.records(2);
  const own = partitionOf(member).generation;
  const body = (offset: number, generation = own) => ({
    appends: [appendTo(target, offset)],
    commits: { group, offsets: [{ topic: source, partition: 0, generation, offset }] },
  });
  return { source, target, group, member, body, [Symbol.dispose]: () => member[Symbol.dispose]() };
}

export const transactions = checksOf("transactions", {
  "write to several topics, with one answer": async (server) => {
    const [one, two] = [await newTopic(server), await newTopic(server, { records: 3 })];
    const answer = await transact(server, {
      appends: [appendTo(one, 1, 2), appendTo(two, 3), appendTo(one, 4)],
    });
    assert.deepEqual(bodyOf(answer), {
      runs: [
        { topic: one, partition: 0, offset: 0, count: 2 },
        { topic: two, partition: 0, offset: 3, count: 1 },
        { topic: one, partition: 0, offset: 2, count: 1 },
      ],
    });
    assertMatches((await read(server, one)).records, [{ value: 1 }, { value: 2 }, { value: 4 }]);
  },

  "write nothing anywhere where one record, topic or expectation is wrong": async (server) => {
    const [one, two] = [await newTopic(server), await newTopic(server)];
    const first = appendTo(one, 1);
    const refused = [
      [
        { appends: [first, { topic: two, records: [{ value: 1 }, {}] }] },
        400,
        "bad_request",
        { append: 1, record: 1 },
      ],
      [{ appends: [first, appendTo(newName("topic"), 1)] }, 404, "unknown_topic", {}],
      [
        { appends: [first, { topic: two, records: [{ value: 1, partition: 1 }] }] },
        404,
        "unknown_partition",
        {},
      ],
      [
        { appends: [first], expect: [{ topic: two, partition: 0, logEndOffset: 1 }] },
        409,
        "conflict",
        { topic: two, partition: 0, expected: 1, found: 0 },
      ],
      [{ appends: [] }, 400, "bad_request", {}],
      [{ appends: [first], commit: {} }, 400, "bad_request", {}],
    ] as const;
    for (const [body, status, code, facts] of refused)
      assertRefused(await transact(server, body), status, code, facts);
    assert.deepEqual([await logEndsOf(server, one), await logEndsOf(server, two)], [[0], [0]]);
  },

  "commit with what they append, and not a second time": async (server) => {
    using work = await transforming(server);
    const { source, target, group, body } = work;
    assert.deepEqual(bodyOf(await transact(server, body(2))).runs, [
      { topic: target, partition: 0, offset: 0, count: 1 },
    ]);
    assert.deepEqual(await committedOf(server, group), [2]);
    const facts = { topic: source, partition: 0, found: 2, committedOffset: 2 };
    assertRefused(await transact(server, body(2)), 409, "conflict", facts);
    assert.deepEqual(await logEndsOf(server, target), [1]);
  },

  "of a generation that is fenced append nothing": async (server) => {
    using work = await transforming(server);
    const { source, target, group, member, body } = work;
    const { generation } = partitionOf(member);
    const facts = { topic: source, partition: 0, generation: generation - 1, found: generation };
    assertRefused(await transact(server, body(2, generation - 1)), 409, "fenced_generation", facts);
    assert.deepEqual([await logEndsOf(server, target), await committedOf(server, group)], [[0], [0]]);
  },

  "that commit above the log end append nothing": async (server) => {
    using work = await transforming(server);
    assertRefused(await transact(server, work.body(5)), 416, "offset_out_of_range");
    assert.deepEqual(await logEndsOf(server, work.target), [0]);
    assert.deepEqual(await committedOf(server, work.group), [0]);
  },

  "with a producer are written once, whatever has been committed since": async (server) => {
    using work = await transforming(server);
    const producer = { id: newName("producer"), epoch: 0, sequence: 0 };
    const body = { ...work.body(2), producer };
    const { runs } = bodyOf(await transact(server, body));
    assert.deepEqual(bodyOf(await transact(server, body)), { runs, duplicate: true });
    assert.deepEqual(await logEndsOf(server, work.target), [1]);
    const later = { ...work.body(3), producer: { ...producer, sequence: 2 } };
    assertRefused(await transact(server, later), 409, "sequence_gap", { expected: 1 });
    assert.deepEqual(await committedOf(server, work.group), [2]);
  },

  "as a frame free the window of what they commit": async (server) => {
    using work = await transforming(server);
    const { target, group, member, body } = work;
    const { socket } = member;
    socket.send({ type: "transact", id: 1, ...body(2) });
    const runs = [{ topic: target, partition: 0, offset: 0, count: 1 }];
    assert.deepEqual(await socket.expect("transacted"), { type: "transacted", id: 1, runs });
    assertMatches(await socket.records(2), [{ offset: 2 }, { offset: 3 }]);
    assert.deepEqual(await committedOf(server, group), [2]);
  },

  "as a frame that is refused leave the socket as it was": async (server) => {
    using work = await transforming(server);
    using socket = await Socket.open(server);
    socket.send({ type: "transact", id: 1, ...work.body(2, 1) });
    assertMatches(await socket.expect("error"), {
      id: 1,
      code: "fenced_generation",
      topic: work.source,
      partition: 0,
    });
    socket.send({ type: "transact", id: 2, ...work.body(2) });
    assertMatches(await socket.expect("transacted"), { id: 2 });
  },

  "are seen whole: who sees one record finds the others": async (server) => {
    const [one, two] = [await newTopic(server), await newTopic(server)];
    using reader = await subscribe(server, { topics: [two], from: "latest" });
    const written = transact(server, { appends: [appendTo(one, 1), appendTo(two, 2)] });
    await reader.socket.records(1);
    assertMatches((await read(server, one)).records, [{ offset: 0, value: 1 }]);
    bodyOf(await written);
  },

  "may only commit": async (server) => {
    using work = await transforming(server);
    const { commits } = work.body(1) as { commits: object };
    assert.deepEqual(bodyOf(await transact(server, { appends: [], commits })), { runs: [] });
    assert.deepEqual(await committedOf(server, work.group), [1]);
  },
});
