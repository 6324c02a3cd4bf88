// Producers, expectations and transactions over HTTP on the real server: what is written once, what is written only as
// expected, and what is written together.

import { describe, expect, test } from "bun:test";
import { type GroupMember, Stage } from "../support/stage.ts";

const ANSWERS_KEPT = 16;
const IDLE_MAX_MS = 7 * 24 * 60 * 60 * 1_000;
const INTEGER_MAX = Number.MAX_SAFE_INTEGER;

/** Topics come into being by PUT. */
const serve = new Stage({ mode: "serve" });
/** Topics come into being on first use. */
const dev = new Stage();
const { newTopic, newGroup, newName, joinGroup, committedOf, sql } = serve;

interface Asked {
  readonly at?: Stage;
  readonly type?: string;
}

async function post(path: string, body: unknown, { at = serve, type }: Asked = {}) {
  const response = await fetch(at.server.url + path, {
    method: "POST",
    ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }),
    ...(type !== undefined && { headers: { "content-type": type } }),
  });
  const { headers, status } = response;
  // biome-ignore lint/suspicious/noExplicitAny: a test says by its expectations what it wants to find
  const answer: any = await response.json();
  return { status, type: headers.get("content-type"), retryAfter: headers.get("retry-after"), body: answer };
}

const transact = (body: unknown, asked?: Asked) => post("/v1/transactions", body, asked);
const raise = (id: string, asked?: Asked) => post(`/v1/producers/${id}`, undefined, asked);
const produce = (topic: string, body: object, asked?: Asked) =>
  post(`/v1/topics/${topic}/records`, { records: [{ value: 1, partition: 0 }], ...body }, asked);

type Answered = Awaited<ReturnType<typeof post>>;

function bodyOf({ status, type, body }: Answered) {
  expect({ status, type, body }).toEqual({ status: 200, type: "application/json", body });
  return body;
}

/** An error as it must be, whatever it is: its code and its facts. */
function problemOf({ status, type, retryAfter, body }: Answered): Record<string, unknown> {
  const { status: said, detail, retriable, ...problem } = body;
  expect({ type, said, retriable, retryAfter }).toEqual({
    type: "application/problem+json",
    said: status,
    retriable: false,
    retryAfter: null,
  });
  expect(String(detail).length).toBeGreaterThan(10);
  expect(String(detail).length).toBeLessThan(400);
  return { status, ...problem };
}

const append = (topic: string, ...records: readonly object[]) => ({
  topic,
  records: records.length > 0 ? records : [{ value: 1, partition: 0 }],
});
const run = (topic: string, offset: number, { partition = 0, count = 1 } = {}) => ({
  topic,
  partition,
  offset,
  count,
});

async function logEndsOf(topic: string, { http } = serve): Promise<readonly number[]> {
  const { body } = await http.call("GET", `/v1/topics/${topic}`);
  return body.partitions.map(({ logEndOffset }: { logEndOffset: number }) => logEndOffset);
}

async function isThere(topic: string, { http } = serve): Promise<boolean> {
  return (await http.call("GET", `/v1/topics/${topic}`)).status === 200;
}

async function deleteTopic(topic: string, { http } = serve): Promise<void> {
  expect((await http.call("DELETE", `/v1/topics/${topic}`)).status).toBe(204);
}

/** A producer of its own, which has written that many batches of one record to a topic of its own. */
async function producing(written = 0) {
  const [topic, id] = [await newTopic(), newName("producer")];
  const next = (sequence: number, epoch = 0) => produce(topic, { producer: { id, epoch, sequence } });
  for (let sequence = 0; sequence < written; sequence += 1)
    expect(bodyOf(await next(sequence))).toEqual({ runs: [{ partition: 0, offset: sequence, count: 1 }] });
  return { topic, id, next };
}

describe("a producer's sequence", () => {
  test("that is the next one is written, with an answer like any other's", async () => {
    const { topic, next } = await producing(2);
    expect(bodyOf(await next(2))).toEqual({ runs: [{ partition: 0, offset: 2, count: 1 }] });
    expect(await logEndsOf(topic)).toEqual([3]);
  });

  test("that is sent again is not written again, and answered with the runs of the first time", async () => {
    const { topic, next } = await producing(3);
    for (const sequence of [1, 2, 0])
      expect(bodyOf(await next(sequence))).toEqual({
        runs: [{ partition: 0, offset: sequence, count: 1 }],
        duplicate: true,
      });
    expect(await logEndsOf(topic)).toEqual([3]);
  });

  test("that is sent many times at once is written once", async () => {
    const { topic, next } = await producing(1);
    const answers = (await Promise.all(Array.from({ length: 20 }, () => next(1)))).map(bodyOf);
    expect(answers.filter(({ duplicate }) => duplicate !== true)).toHaveLength(1);
    for (const { runs } of answers) expect(runs).toEqual([{ partition: 0, offset: 1, count: 1 }]);
    expect(await logEndsOf(topic)).toEqual([2]);
  });

  test(`is answered with its runs while it is one of the last ${ANSWERS_KEPT}, and with none of them after`, async () => {
    const written = ANSWERS_KEPT + 2;
    const { topic, next } = await producing(written);
    expect(bodyOf(await next(2))).toEqual({
      runs: [{ partition: 0, offset: 2, count: 1 }],
      duplicate: true,
    });
    for (const sequence of [1, 0])
      expect(bodyOf(await next(sequence))).toEqual({ runs: [], duplicate: true });
    expect(await logEndsOf(topic)).toEqual([written]);
  });

  test("that leaves one out is sequence_gap, names the next one, and writes nothing", async () => {
    const { topic, id, next } = await producing(2);
    expect(problemOf(await next(3))).toEqual({
      status: 409,
      code: "sequence_gap",
      producer: id,
      found: 3,
      expected: 2,
    });
    expect(await logEndsOf(topic)).toEqual([2]);
  });

  test("counts over all topics, produces and transactions alike", async () => {
    const { topic, id, next } = await producing(1);
    const other = await newTopic();
    const producer = { id, epoch: 0, sequence: 1 };
    expect(bodyOf(await transact({ appends: [append(other)], producer })).runs).toEqual([run(other, 0)]);
    expect(bodyOf(await next(2)).runs).toEqual([{ partition: 0, offset: 1, count: 1 }]);
    expect(problemOf(await produce(other, { producer: { id, epoch: 0, sequence: 4 } }))).toMatchObject({
      code: "sequence_gap",
      expected: 3,
    });
    expect([await logEndsOf(topic), await logEndsOf(other)]).toEqual([[2], [1]]);
  });

  test("of an id that is unknown starts at 0, and at no other", async () => {
    const { topic, id, next } = await producing();
    expect(problemOf(await next(1))).toMatchObject({ code: "sequence_gap", producer: id, expected: 0 });
    expect(bodyOf(await next(0))).toEqual({ runs: [{ partition: 0, offset: 0, count: 1 }] });
    expect(await logEndsOf(topic)).toEqual([1]);
  });

  test("of an id that has written nothing for seven days starts at 0 again, in any epoch", async () => {
    const { topic, id, next } = await producing();
    expect(bodyOf(await next(0, 5))).toEqual({ runs: [{ partition: 0, offset: 0, count: 1 }] });
    const age = (ms: number) =>
      sql(`UPDATE producers SET used_at = used_at - ${ms} WHERE producer_id = '${id}'`);
    age(IDLE_MAX_MS - 60_000);
    expect(bodyOf(await next(0, 5)).duplicate).toBe(true);
    expect(problemOf(await next(0, 0)).code).toBe("fenced_producer");
    age(60_000);
    expect(problemOf(await next(1, 5))).toMatchObject({ code: "sequence_gap", expected: 0 });
    expect(bodyOf(await next(0, 0))).toEqual({ runs: [{ partition: 0, offset: 1, count: 1 }] });
    expect(await logEndsOf(topic)).toEqual([2]);
  });

  test.each<[code: string, refused: (topic: string) => object]>([
    ["unknown_partition", () => ({ records: [{ value: 1, partition: 9 }] })],
    ["bad_request", () => ({ records: [] })],
    ["conflict", () => ({ expect: [{ partition: 0, logEndOffset: 99 }] })],
  ])("does not count where it was refused with %s: the same one may be sent again", async (code, refused) => {
    const { topic, id, next } = await producing(1);
    const producer = { id, epoch: 0, sequence: 1 };
    expect(problemOf(await produce(topic, { producer, ...refused(topic) })).code).toBe(code);
    expect(problemOf(await next(2))).toMatchObject({ code: "sequence_gap", expected: 1 });
    expect(bodyOf(await next(1))).toEqual({ runs: [{ partition: 0, offset: 1, count: 1 }] });
    expect(await logEndsOf(topic)).toEqual([2]);
  });

  test("that was written is not judged by what it says now: other records and expectations change nothing", async () => {
    const { topic, id } = await producing(1);
    const producer = { id, epoch: 0, sequence: 0 };
    const other = await newTopic();
    const again = { runs: [{ partition: 0, offset: 0, count: 1 }], duplicate: true };
    for (const [name, body] of [
      [topic, { records: [{ value: 2 }, { value: 3 }] }],
      [topic, { records: [{ value: 2, partition: 9 }] }],
      [topic, { expect: [{ partition: 9, logEndOffset: 9 }] }],
      [other, {}],
    ] as const)
      expect(bodyOf(await produce(name, { ...body, producer }))).toEqual(again);
    expect([await logEndsOf(topic), await logEndsOf(other)]).toEqual([[1], [0]]);
  });

  test("that was written is answered as then although the topic is gone, and its successor is not", async () => {
    const { topic, next } = await producing(2);
    await deleteTopic(topic);
    expect(bodyOf(await next(1))).toEqual({
      runs: [{ partition: 0, offset: 1, count: 1 }],
      duplicate: true,
    });
    expect(problemOf(await next(2))).toEqual({ status: 404, code: "unknown_topic", topic });
    expect(await isThere(topic)).toBe(false);
  });

  test("that was written creates no topic where first use does", async () => {
    const [topic, id] = [newName("first"), newName("producer")];
    const once = () => produce(topic, { producer: { id, epoch: 0, sequence: 0 } }, { at: dev });
    const { runs } = bodyOf(await once());
    await deleteTopic(topic, dev);
    expect(bodyOf(await once())).toEqual({ runs, duplicate: true });
    expect(await isThere(topic, dev)).toBe(false);
  });

  test("that was written is answered as then although its keys go elsewhere now", async () => {
    const [topic, id] = [await newTopic(), newName("producer")];
    const records = Array.from({ length: 20 }, (_, value) => ({ value, key: `k${value}` }));
    const once = () => produce(topic, { records, producer: { id, epoch: 0, sequence: 0 } });
    expect(bodyOf(await once())).toEqual({ runs: [{ partition: 0, offset: 0, count: 20 }] });
    await serve.http.call("PUT", `/v1/topics/${topic}`, { partitionCount: 8 });
    expect(bodyOf(await once())).toEqual({
      runs: [{ partition: 0, offset: 0, count: 20 }],
      duplicate: true,
    });
    expect(await logEndsOf(topic)).toEqual([20, 0, 0, 0, 0, 0, 0, 0]);
  });

  test("that was written is answered as then although it would be for too many partitions now", async () => {
    const [wide, other, id] = [await newTopic(1_000), await newTopic(24), newName("producer")];
    const toEach = (topic: string, count: number) =>
      append(topic, ...Array.from({ length: count }, (_, partition) => ({ value: 1, partition })));
    const producer = { id, epoch: 0, sequence: 0 };
    const appends = [toEach(wide, 1_000), toEach(other, 24)];
    const { runs } = bodyOf(await transact({ appends, producer }));
    expect(runs).toHaveLength(1_024);
    // As a key or the partition for a whole batch may make of it.
    await serve.http.call("PUT", `/v1/topics/${other}`, { partitionCount: 25 });
    const now = { appends: [toEach(wide, 1_000), toEach(other, 25)], producer };
    expect(bodyOf(await transact(now))).toEqual({ runs, duplicate: true });
  });

  test("is kept in order with those of other producers, which are counted apart", async () => {
    const [one, two] = [await producing(3), await producing(1)];
    expect(problemOf(await two.next(3))).toMatchObject({ code: "sequence_gap", expected: 1 });
    expect(bodyOf(await one.next(3)).runs).toHaveLength(1);
  });

  test("is none of NDJSON: not as a parameter, and a line is a value", async () => {
    const topic = await newTopic();
    const type = "application/x-ndjson";
    const path = `/v1/topics/${topic}/records`;
    for (const parameter of ["producer", "expect"]) {
      const refused = await post(`${path}?${parameter}=1`, "1\n", { type });
      expect(problemOf(refused).code).toBe("bad_request");
      expect(refused.body.detail).toContain(`"${parameter}"`);
    }
    const line = JSON.stringify({ records: [{ value: 1 }], producer: { id: "p", epoch: 7, sequence: 7 } });
    expect(bodyOf(await post(path, line, { type })).runs).toEqual([{ partition: 0, offset: 0, count: 1 }]);
    const { body } = await serve.http.call("GET", `/v1/topics/${topic}/partitions/0/records`);
    expect(body.records).toMatchObject([{ offset: 0, value: JSON.parse(line) }]);
  });
});

describe("a producer's epoch", () => {
  test("that is older is fenced_producer, says the newer one, and writes nothing", async () => {
    const { topic, id, next } = await producing();
    bodyOf(await next(0, 3));
    for (const sequence of [0, 1])
      expect(problemOf(await next(sequence, 2))).toEqual({
        status: 409,
        code: "fenced_producer",
        producer: id,
        found: 2,
        expected: 3,
      });
    expect(await logEndsOf(topic)).toEqual([1]);
  });

  test("that is newer starts at 0, and fences those before it", async () => {
    const { topic, next } = await producing(2);
    expect(problemOf(await next(2, 7))).toMatchObject({ code: "sequence_gap", expected: 0 });
    expect(bodyOf(await next(2)).runs).toHaveLength(1); // what was refused has begun no epoch
    expect(bodyOf(await next(0, 7))).toEqual({ runs: [{ partition: 0, offset: 3, count: 1 }] });
    expect(problemOf(await next(3)).code).toBe("fenced_producer");
    expect(problemOf(await next(0)).code).toBe("fenced_producer");
    expect(await logEndsOf(topic)).toEqual([4]);
  });

  test("has answers of its own: a sequence is never answered with the runs of an older one", async () => {
    const { topic, next } = await producing(3);
    expect(bodyOf(await next(0, 1))).toEqual({ runs: [{ partition: 0, offset: 3, count: 1 }] });
    expect(problemOf(await next(2, 1))).toMatchObject({ code: "sequence_gap", expected: 1 });
    expect(bodyOf(await next(0, 1))).toEqual({
      runs: [{ partition: 0, offset: 3, count: 1 }],
      duplicate: true,
    });
    expect(await logEndsOf(topic)).toEqual([4]);
  });

  test("is given by POST /v1/producers/:id, 1 at first and each time the next", async () => {
    const id = newName("producer");
    for (const epoch of [1, 2, 3]) expect(bodyOf(await raise(id))).toEqual({ id, epoch });
  });

  test("that is given fences whoever started at 0 without asking, from the answer on", async () => {
    const { topic, id, next } = await producing(2);
    expect(bodyOf(await raise(id))).toEqual({ id, epoch: 1 });
    for (const sequence of [1, 2])
      expect(problemOf(await next(sequence))).toMatchObject({ code: "fenced_producer", expected: 1 });
    expect(problemOf(await next(2, 1))).toMatchObject({ code: "sequence_gap", expected: 0 });
    expect(bodyOf(await next(0, 1))).toEqual({ runs: [{ partition: 0, offset: 2, count: 1 }] });
    expect(await logEndsOf(topic)).toEqual([3]);
  });

  test("that is given is above one that the producer chose itself", async () => {
    const { id, next } = await producing();
    bodyOf(await next(0, 41));
    expect(bodyOf(await raise(id))).toEqual({ id, epoch: 42 });
  });

  test("is given once to each of many that ask at the same time", async () => {
    const id = newName("producer");
    const answers = await Promise.all(Array.from({ length: 20 }, () => raise(id)));
    const epochs = answers.map((answer) => bodyOf(answer).epoch).sort((a, b) => a - b);
    expect(epochs).toEqual(Array.from({ length: 20 }, (_, n) => n + 1));
  });

  test("that is the highest has no higher one", async () => {
    const { id, next } = await producing();
    bodyOf(await next(0, INTEGER_MAX));
    expect(problemOf(await raise(id))).toEqual({
      status: 409,
      code: "conflict",
      producer: id,
      epoch: INTEGER_MAX,
    });
    expect(bodyOf(await next(1, INTEGER_MAX)).runs).toHaveLength(1);
  });
});

describe("an expectation", () => {
  test("that is met lets the batch be written", async () => {
    const topic = await newTopic(2, 3);
    const expected = [1, 0].map((partition) => ({ partition, logEndOffset: 3 }));
    expect(bodyOf(await produce(topic, { expect: expected }))).toEqual({
      runs: [{ partition: 0, offset: 3, count: 1 }],
    });
  });

  test.each([2, 4])(
    "of %d where the partition ends at 3 is a conflict that says both, and nothing is written",
    async (logEndOffset) => {
      const topic = await newTopic(2, 3);
      expect(problemOf(await produce(topic, { expect: [{ partition: 1, logEndOffset }] }))).toEqual({
        status: 409,
        code: "conflict",
        topic,
        partition: 1,
        expected: logEndOffset,
        found: 3,
      });
      expect(await logEndsOf(topic)).toEqual([3, 3]);
    },
  );

  test("of several that are not met is answered for the first of them", async () => {
    const topic = await newTopic(3, 3);
    const ends = [3, 8, 9];
    const expected = [0, 2, 1].map((partition, n) => ({ partition, logEndOffset: ends[n] }));
    expect(problemOf(await produce(topic, { expect: expected }))).toMatchObject({
      code: "conflict",
      partition: 2,
      expected: 8,
      found: 3,
    });
    expect(await logEndsOf(topic)).toEqual([3, 3, 3]);
  });

  test("is about the log end, also where the log has lost its beginning", async () => {
    const topic = await newTopic(1, 3);
    await serve.http.call("DELETE", `/v1/topics/${topic}/partitions/0/records?before=3`);
    expect(problemOf(await produce(topic, { expect: [{ partition: 0, logEndOffset: 0 }] })).found).toBe(3);
    expect(bodyOf(await produce(topic, { expect: [{ partition: 0, logEndOffset: 3 }] })).runs).toHaveLength(
      1,
    );
  });

  test("lets one of many write that have all read to the same end", async () => {
    const topic = await newTopic(1, 3);
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => produce(topic, { expect: [{ partition: 0, logEndOffset: 3 }] })),
    );
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    for (const refused of answers.filter(({ status }) => status !== 200))
      expect(problemOf(refused)).toMatchObject({ code: "conflict", expected: 3, found: 4 });
    expect(await logEndsOf(topic)).toEqual([4]);
  });

  test("that was not met may be said anew with the same sequence", async () => {
    const { topic, id } = await producing(2);
    const attempt = (logEndOffset: number) =>
      produce(topic, { producer: { id, epoch: 0, sequence: 2 }, expect: [{ partition: 0, logEndOffset }] });
    const { found } = problemOf(await attempt(1));
    expect(bodyOf(await attempt(Number(found)))).toEqual({ runs: [{ partition: 0, offset: 2, count: 1 }] });
    expect(bodyOf(await attempt(1)).duplicate).toBe(true);
  });

  test("of a partition that does not exist is unknown_partition, whatever is expected of it", async () => {
    const topic = await newTopic(2, 3);
    for (const logEndOffset of [0, 3])
      expect(problemOf(await produce(topic, { expect: [{ partition: 2, logEndOffset }] }))).toMatchObject({
        status: 404,
        code: "unknown_partition",
        topic,
        partition: 2,
        partitionCount: 2,
      });
    expect(await logEndsOf(topic)).toEqual([3, 3]);
  });

  test("of a transaction may be of a topic that it appends nothing to", async () => {
    const [read, written] = [await newTopic(1, 3), await newTopic()];
    const attempt = (logEndOffset: number) =>
      transact({ appends: [append(written)], expect: [{ topic: read, partition: 0, logEndOffset }] });
    expect(problemOf(await attempt(2))).toEqual({
      status: 409,
      code: "conflict",
      topic: read,
      partition: 0,
      expected: 2,
      found: 3,
    });
    expect(bodyOf(await attempt(3)).runs).toEqual([run(written, 0)]);
  });

  test("of a transaction in a topic that does not exist is unknown_topic, and creates nothing", async () => {
    for (const at of [serve, dev]) {
      const [topic, unknown] = [await at.newTopic(), newName("nowhere")];
      const expected = [{ topic: unknown, partition: 0, logEndOffset: 0 }];
      const refused = await transact({ appends: [append(topic)], expect: expected }, { at });
      expect(problemOf(refused)).toMatchObject({ status: 404, code: "unknown_topic", topic: unknown });
      expect([await logEndsOf(topic, at), await isThere(unknown, at)]).toEqual([[0], false]);
    }
  });

  test("of 0 is met by a topic that comes into being with the batch", async () => {
    const topic = newName("first");
    const expected = { expect: [{ partition: 0, logEndOffset: 0 }] };
    expect(bodyOf(await produce(topic, expected, { at: dev })).runs).toHaveLength(1);
    expect(problemOf(await produce(topic, expected, { at: dev }))).toMatchObject({
      code: "conflict",
      found: 1,
    });
  });
});

/** A member of a group of its own that was sent so many records of its one partition. */
async function consuming(records = 5) {
  const [topic, group] = [await newTopic(1, records), newGroup()];
  const member: GroupMember = await joinGroup(group, [topic]);
  await member.client.expectRecords(records);
  const generation = member.partitions[0]?.generation ?? -1;
  const commits = (offset: number, entry: object = {}) => ({
    group,
    offsets: [{ topic, partition: 0, generation, offset, ...entry }],
  });
  return { topic, group, member, generation, commits };
}

describe("a transaction", () => {
  test("appends to several topics: its runs are in the order of the request, each with its topic", async () => {
    const [one, two] = [await newTopic(2), await newTopic()];
    const to = (partition: number) => ({ value: partition, partition });
    const appends = [append(one, to(1), to(1), to(0)), append(two, to(0)), append(one, to(0), to(1))];
    const answer = await transact({ appends });
    expect(bodyOf(answer)).toEqual({
      runs: [
        run(one, 0, { partition: 1, count: 2 }),
        run(one, 0),
        run(two, 0),
        run(one, 1),
        run(one, 2, { partition: 1 }),
      ],
    });
    expect([await logEndsOf(one), await logEndsOf(two)]).toEqual([[2, 3], [1]]);
  });

  test("folds what follows itself in one partition into one run, also where the topic comes again", async () => {
    const topic = await newTopic();
    expect(bodyOf(await transact({ appends: [append(topic), append(topic), append(topic)] }))).toEqual({
      runs: [run(topic, 0, { count: 3 })],
    });
  });

  test("takes records as a produce does: keys, bytes, headers, timestamps, values byte for byte", async () => {
    const topic = await newTopic();
    const records =
      '[{"key":"k","value":{"b":2.0,"a":1E400,"a":2},"timestamp":7},{"bytes":"AAEC","headers":{"h":"1"},"timestamp":8}]';
    bodyOf(await transact(`{"appends":[{"topic":"${topic}","records":${records}}]}`));
    const text = await (await fetch(`${serve.server.url}/v1/topics/${topic}/partitions/0/records`)).text();
    expect(text).toContain('{"offset":0,"timestamp":7,"key":"k","value":{"b":2.0,"a":1E400,"a":2}}');
    expect(text).toContain('{"offset":1,"timestamp":8,"headers":{"h":"1"},"bytes":"AAEC"}');
  });

  test("is written whole or not at all where one of its topics is unknown, and creates none", async () => {
    const [topic, unknown] = [await newTopic(), newName("nowhere")];
    for (const appends of [
      [append(topic), append(unknown)],
      [append(unknown), append(topic)],
    ])
      expect(problemOf(await transact({ appends }))).toEqual({
        status: 404,
        code: "unknown_topic",
        topic: unknown,
      });
    expect([await logEndsOf(topic), await isThere(unknown)]).toEqual([[0], false]);
  });

  test("creates the topics that are not there where first use does", async () => {
    const [one, two] = [newName("first"), newName("first")];
    const appends = [append(one), append(two), append(one)];
    expect(bodyOf(await transact({ appends }, { at: dev })).runs).toEqual([
      run(one, 0),
      run(two, 0),
      run(one, 1),
    ]);
    expect([await logEndsOf(one, dev), await logEndsOf(two, dev)]).toEqual([[2], [1]]);
  });

  test("creates no topic where one of them could not take its records", async () => {
    const [one, two] = [newName("first"), newName("first")];
    const appends = [append(one), append(two, { value: 1, partition: 1 })];
    expect(problemOf(await transact({ appends }, { at: dev }))).toMatchObject({
      code: "unknown_partition",
      topic: two,
      record: 0,
      partition: 1,
      partitionCount: 1,
    });
    expect([await isThere(one, dev), await isThere(two, dev)]).toEqual([false, false]);
  });

  test("creates no topic where it is for too many partitions", async () => {
    const prefix = newName("many");
    const appends = Array.from({ length: 1_025 }, (_, n) => append(`${prefix}-${n}`));
    expect(problemOf(await transact({ appends }, { at: dev }))).toEqual({
      status: 413,
      code: "batch_too_large",
      found: 1_025,
      allowed: 1_024,
    });
    expect(await isThere(`${prefix}-0`, dev)).toBe(false);
  });

  test("with a record for a partition that is not there writes nothing, and says which record", async () => {
    const [one, two] = [await newTopic(), await newTopic(2)];
    const appends = [append(one), append(two, { value: 1 }, { value: 1, partition: 2 })];
    expect(problemOf(await transact({ appends }))).toEqual({
      status: 404,
      code: "unknown_partition",
      topic: two,
      partition: 2,
      partitionCount: 2,
      append: 1,
      record: 1,
    });
    expect([await logEndsOf(one), await logEndsOf(two)]).toEqual([[0], [0, 0]]);
  });

  test("commits with what it appends, metadata too", async () => {
    const { topic, group, commits, member } = await consuming();
    const out = await newTopic();
    const body = { appends: [append(out)], commits: commits(3, { metadata: "to the third" }) };
    expect(bodyOf(await transact(body))).toEqual({ runs: [run(out, 0)] });
    const { body: described } = await serve.http.call("GET", `/v1/groups/${group}`);
    expect(described.offsets).toMatchObject([
      { topic, partition: 0, committedOffset: 3, lag: 2, metadata: "to the third" },
    ]);
    await member.client.close();
  });

  test("that appends nothing commits alone, and is answered without runs", async () => {
    const { group, commits, member } = await consuming();
    expect(bodyOf(await transact({ appends: [], commits: commits(2) }))).toEqual({ runs: [] });
    expect(await committedOf(group)).toEqual([2]);
    await member.client.close();
  });

  test("that neither appends nor commits is bad_request", async () => {
    expect(problemOf(await transact({ appends: [] }))).toEqual({ status: 400, code: "bad_request" });
    const producer = { id: newName("producer"), epoch: 0, sequence: 0 };
    expect(problemOf(await transact({ appends: [], producer })).code).toBe("bad_request");
  });

  test("may commit beyond what was sent, up to the log end", async () => {
    const [topic, group, out] = [await newTopic(1, 9), newGroup(), await newTopic()];
    const { client, partitions } = await joinGroup(group, [topic], { window: { records: 2 } });
    await client.expect("records");
    const offsets = [{ topic, partition: 0, generation: partitions[0]?.generation, offset: 9 }];
    bodyOf(await transact({ appends: [append(out)], commits: { group, offsets } }));
    expect(await committedOf(group)).toEqual([9]);
    await client.close();
  });

  test("that commits above the log end is offset_out_of_range, and nothing of it is written", async () => {
    const { topic, group, commits, member } = await consuming();
    const out = await newTopic();
    await serve.http.call("DELETE", `/v1/topics/${topic}/partitions/0/records?before=1`);
    expect(problemOf(await transact({ appends: [append(out)], commits: commits(6) }))).toMatchObject({
      status: 416,
      code: "offset_out_of_range",
      group,
      topic,
      partition: 0,
      found: 6,
      logStartOffset: 1,
      logEndOffset: 5,
    });
    expect([await logEndsOf(out), await committedOf(group)]).toEqual([[0], [0]]);
    await member.client.close();
  });

  test.each([3, 2])(
    "that commits %d where 3 is committed is a conflict, and nothing of it is written",
    async (offset) => {
      const { topic, group, commits, member } = await consuming();
      const out = await newTopic();
      bodyOf(await transact({ appends: [append(out)], commits: commits(3) }));
      expect(problemOf(await transact({ appends: [append(out)], commits: commits(offset) }))).toEqual({
        status: 409,
        code: "conflict",
        group,
        topic,
        partition: 0,
        found: offset,
        committedOffset: 3,
      });
      expect([await logEndsOf(out), await committedOf(group)]).toEqual([[1], [3]]);
      await member.client.close();
    },
  );

  test("that is sent again without a producer appends nothing twice: its commit does not advance", async () => {
    const { commits, member } = await consuming();
    const out = await newTopic();
    const once = () => transact({ appends: [append(out)], commits: commits(5) });
    const answers = await Promise.all(Array.from({ length: 10 }, once));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(await logEndsOf(out)).toEqual([1]);
    await member.client.close();
  });

  test.each([-1, 1])(
    "that commits in a generation %d beside the accepted one is fenced, and nothing of it is written",
    async (difference) => {
      const { topic, group, generation, commits, member } = await consuming();
      const out = await newTopic();
      const stale = generation + difference;
      const body = { appends: [append(out)], commits: commits(3, { generation: stale }) };
      expect(problemOf(await transact(body))).toEqual({
        status: 409,
        code: "fenced_generation",
        group,
        topic,
        partition: 0,
        generation: stale,
        found: generation,
      });
      expect([await logEndsOf(out), await committedOf(group)]).toEqual([[0], [0]]);
      await member.client.close();
    },
  );

  test("that commits for a partition that nobody owns is fenced, and found is null", async () => {
    const { topic, group, commits, member } = await consuming();
    const out = await newTopic();
    member.client.send({ type: "unsubscribe" });
    await member.client.expect("unsubscribed");
    const body = { appends: [append(out)], commits: commits(3) };
    expect(problemOf(await transact(body))).toMatchObject({ code: "fenced_generation", topic, found: null });
    expect([await logEndsOf(out), await committedOf(group)]).toEqual([[0], [0]]);
    await member.client.close();
  });

  test("of which some commits are refused commits none, and names the first of them", async () => {
    const [topic, group, out] = [await newTopic(3, 5), newGroup(), await newTopic()];
    const { client, partitions } = await joinGroup(group, [topic]);
    const offsets = partitions.map(({ partition, generation }) => ({
      topic,
      partition,
      generation,
      offset: partition === 0 ? 5 : 6 + partition,
    }));
    expect(problemOf(await transact({ appends: [append(out)], commits: { group, offsets } }))).toMatchObject({
      code: "offset_out_of_range",
      partition: 1,
      found: 7,
    });
    expect([await logEndsOf(out), await committedOf(group)]).toEqual([[0], [0, 0, 0]]);
    await client.close();
  });

  test("with a producer is found before its commits and expectations are judged", async () => {
    const { group, commits, member } = await consuming();
    const [out, id] = [await newTopic(), newName("producer")];
    const body = {
      appends: [append(out)],
      commits: commits(3),
      expect: [{ topic: out, partition: 0, logEndOffset: 0 }],
      producer: { id, epoch: 0, sequence: 0 },
    };
    expect(bodyOf(await transact(body))).toEqual({ runs: [run(out, 0)] });
    expect(bodyOf(await transact(body))).toEqual({ runs: [run(out, 0)], duplicate: true });
    // Also where the member is gone since, and the topics with it.
    await member.client.close();
    await deleteTopic(out);
    expect(bodyOf(await transact(body))).toEqual({ runs: [run(out, 0)], duplicate: true });
    expect(await committedOf(group)).toEqual([3]);
  });

  test("whose repeat differs commits nothing of what it says now", async () => {
    const { group, commits, member } = await consuming();
    const producer = { id: newName("producer"), epoch: 0, sequence: 0 };
    bodyOf(await transact({ appends: [], commits: commits(3), producer }));
    expect(bodyOf(await transact({ appends: [], commits: commits(5), producer }))).toEqual({
      runs: [],
      duplicate: true,
    });
    expect(await committedOf(group)).toEqual([3]);
    await member.client.close();
  });

  test("is answered for its producer before its commits, and for these before its expectations", async () => {
    const { commits, member } = await consuming();
    const [out, id] = [await newTopic(), newName("producer")];
    const wrong = {
      appends: [append(out)],
      commits: commits(9),
      expect: [{ topic: out, partition: 0, logEndOffset: 9 }],
    };
    const gap = { ...wrong, producer: { id, epoch: 0, sequence: 1 } };
    expect(problemOf(await transact(gap)).code).toBe("sequence_gap");
    expect(problemOf(await transact(wrong)).code).toBe("offset_out_of_range");
    expect(problemOf(await transact({ ...wrong, commits: commits(5) })).code).toBe("conflict");
    expect(await logEndsOf(out)).toEqual([0]);
    await member.client.close();
  });

  test("that was refused leaves its sequence to the next attempt", async () => {
    const { group, commits, member } = await consuming();
    const [out, id] = [await newTopic(), newName("producer")];
    const attempt = (offset: number) =>
      transact({
        appends: [append(out)],
        commits: commits(offset),
        producer: { id, epoch: 0, sequence: 0 },
      });
    expect(problemOf(await attempt(0)).code).toBe("conflict");
    expect(problemOf(await attempt(6)).code).toBe("offset_out_of_range");
    expect(bodyOf(await attempt(5))).toEqual({ runs: [run(out, 0)] });
    expect([await logEndsOf(out), await committedOf(group)]).toEqual([[1], [5]]);
    await member.client.close();
  });

  test("of the wrong epoch neither appends nor commits", async () => {
    const { group, commits, member } = await consuming();
    const [out, id] = [await newTopic(), newName("producer")];
    bodyOf(await raise(id));
    const producer = { id, epoch: 0, sequence: 0 };
    const refused = await transact({ appends: [append(out)], commits: commits(3), producer });
    expect(problemOf(refused)).toMatchObject({ code: "fenced_producer", expected: 1 });
    expect([await logEndsOf(out), await committedOf(group)]).toEqual([[0], [0]]);
    await member.client.close();
  });

  test("may have 10,000 records in several appends", async () => {
    const topic = await newTopic();
    const half = append(topic, ...Array.from({ length: 5_000 }, () => ({ value: 1 })));
    expect(bodyOf(await transact({ appends: [half, half] })).runs).toEqual([
      run(topic, 0, { count: 10_000 }),
    ]);
  });

  test("may append to 1,024 partitions with as many expectations", async () => {
    const [one, two] = [await newTopic(1_000), await newTopic(24)];
    const all = [
      ...Array.from({ length: 1_000 }, (_, partition) => ({ topic: one, partition })),
      ...Array.from({ length: 24 }, (_, partition) => ({ topic: two, partition })),
    ];
    const appends = all.map(({ topic, partition }) => append(topic, { value: 1, partition }));
    const expected = all.map((partition) => ({ ...partition, logEndOffset: 0 }));
    expect(bodyOf(await transact({ appends, expect: expected })).runs).toHaveLength(1_024);
    expect(problemOf(await transact({ appends, expect: expected }))).toMatchObject({
      code: "conflict",
      topic: one,
      partition: 0,
      found: 1,
    });
  });
});

test.each<[path: string, body: object, member: string]>([
  ["/v1/transactions", { appends: [append("t")], acks: 1 }, '"acks"'],
  ["/v1/transactions", { appends: [{ ...append("t"), partition: 0 }] }, '"appends.0.partition"'],
  ["/v1/transactions", { appends: [append("t", { value: 1, offset: 3 })] }, '"offset"'],
  [
    "/v1/transactions",
    { appends: [append("t")], commits: { group: "g", offsets: [], member: "m" } },
    '"commits.member"',
  ],
  [
    "/v1/transactions",
    { appends: [append("t")], producer: { id: "p", epoch: 0, sequence: 0, lane: 1 } },
    '"producer.lane"',
  ],
  [
    "/v1/transactions",
    { appends: [append("t")], expect: [{ topic: "t", partition: 0, logEndOffset: 0, found: 1 }] },
    '"expect.0.found"',
  ],
  ["/v1/topics/t/records", { records: [{ value: 1 }], commits: {} }, '"commits"'],
  [
    "/v1/topics/t/records",
    { records: [{ value: 1 }], expect: [{ topic: "t", partition: 0, logEndOffset: 0 }] },
    '"expect.0.topic"',
  ],
  ["/v1/producers/p", { epoch: 3 }, '"epoch"'],
  ["/v1/transactions?sequence=1", { appends: [append("t")] }, '"sequence"'],
  ["/v1/producers/p?epoch=1", {}, '"epoch"'],
])(
  "a member or parameter that is unknown is named, and nothing is done: POST %s %j",
  async (path, body, member) => {
    const refused = await post(path, body, { at: dev });
    expect(problemOf(refused)).toMatchObject({ status: 400, code: "bad_request" });
    expect(refused.body.detail).toContain(member);
    expect(await isThere("t", dev)).toBe(false);
    expect(dev.sql("SELECT count(*) FROM producers WHERE producer_id = 'p'")).toBe("0");
  },
);

describe.each(["serve", "dev"])("of the server in %s", (mode) => {
  test("nothing of all this was a defect in its log", () => {
    (mode === "serve" ? serve : dev).expectNoDefects();
  });
});
