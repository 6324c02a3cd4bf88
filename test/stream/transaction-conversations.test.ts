// Producers, expectations and transactions over the real socket, as transcripts: their order, what they commit for the
// members that hold it, and what is refused whole.

import { describe, expect, test } from "bun:test";
import { ackOf, countFrom, type GroupMember, Stage, valuesOf } from "../support/stage.ts";
import type { FrameOf, StreamClient } from "../support/stream-client.ts";

const stage = new Stage({ mode: "serve" });
/** Topics come into being on first use. */
const dev = new Stage();
const { newTopic, newGroup, newName, joinGroup, committedOf, open } = stage;

type Entry = Readonly<Record<string, unknown>>;

const append = (topic: string, ...values: readonly unknown[]) => ({
  topic,
  records: values.map((value) => ({ value, partition: 0 })),
});

/** Sends a transaction of these commits and one record, and is answered. */
async function transacted(client: StreamClient, frame: Entry): Promise<FrameOf<"transacted">> {
  client.send({ type: "transact", id: "t", ...frame });
  return client.expect("transacted");
}

async function refused(client: StreamClient, frame: Entry): Promise<FrameOf<"error">> {
  client.send({ type: "transact", id: "refused", ...frame });
  const error = await client.expect("error");
  expect(error).toMatchObject({ id: "refused", retriable: false });
  return error;
}

async function valuesIn(topic: string, { http } = stage): Promise<readonly unknown[]> {
  const path = `/v1/topics/${topic}/partitions/0/records?limit=10000`;
  return (await http.call("GET", path)).body.records.map(({ value }: { value: unknown }) => value);
}

const ownOf = ({ partitions }: Pick<GroupMember, "partitions">, number = 0) => {
  const found = partitions.find(({ partition }) => partition === number);
  if (!found) throw new Error(`partition ${number} was not assigned`);
  return found;
};

describe("transact", () => {
  test("needs no subscription, and is answered with the runs of the request, each with its topic", async () => {
    const [one, two, client] = [await newTopic(), await newTopic(1, 3), await open()];
    const answer = await transacted(client, { appends: [append(one, 1, 2), append(two, 3), append(one, 4)] });
    expect(answer).toEqual({
      type: "transacted",
      id: "t",
      runs: [
        { topic: one, partition: 0, offset: 0, count: 2 },
        { topic: two, partition: 0, offset: 3, count: 1 },
        { topic: one, partition: 0, offset: 2, count: 1 },
      ],
    });
    await client.close();
  });

  test("without an id is answered without one", async () => {
    const [topic, client] = [await newTopic(), await open()];
    client.send({ type: "transact", appends: [append(topic, 1)] });
    expect(await client.next()).toEqual({
      type: "transacted",
      runs: [{ topic, partition: 0, offset: 0, count: 1 }],
    });
    await client.close();
  });

  test("that appends nothing is answered with no runs, and has committed", async () => {
    const [topic, group] = [await newTopic(1, 4), newGroup()];
    const { client } = await joinGroup(group, [topic]);
    const frame = await client.expect("records");
    const commits = { group, offsets: [ackOf(frame)] };
    expect(await transacted(client, { appends: [], commits })).toEqual({
      type: "transacted",
      id: "t",
      runs: [],
    });
    expect(await committedOf(group)).toEqual([4]);
    await client.close();
  });

  test("has written all of it when it is answered", async () => {
    const [one, two, client] = [await newTopic(), await newTopic(), await open()];
    await transacted(client, { appends: [append(one, "a"), append(two, "b")] });
    expect([await valuesIn(one), await valuesIn(two)]).toEqual([["a"], ["b"]]);
    await client.close();
  });

  test("wakes those that wait for what it has appended", async () => {
    const [one, two, client, reader] = [await newTopic(), await newTopic(), await open(), await open()];
    reader.send({ type: "subscribe", topics: [one, two], from: "latest" });
    await reader.expect("subscribed");
    await reader.expect("assigned");
    await transacted(client, { appends: [append(one, "new"), append(two, "new")] });
    const frames = [await reader.expect("records"), await reader.expect("records")];
    expect(frames.map(({ topic }) => topic).toSorted()).toEqual([one, two].toSorted());
    await Promise.all([client.close(), reader.close()]);
  });

  test("and produce are written in the order of the frames: a burst of sequences is taken, whatever each waits for", async () => {
    const client = await dev.open();
    const [topic, prefix, id] = [await dev.newTopic(), newName("first"), newName("producer")];
    const sequences = countFrom(0, 120);
    const isCreating = (sequence: number) => sequence % 10 === 1;
    for (const sequence of sequences) {
      const producer = { id, epoch: 0, sequence };
      const { records } = append(topic, sequence);
      if (sequence % 2 === 0) client.send({ type: "produce", id: sequence, topic, records, producer });
      else {
        // Some have to create a topic first, and those behind them have not.
        const another = isCreating(sequence) ? [append(`${prefix}-${sequence}`, sequence)] : [];
        client.send({
          type: "transact",
          id: sequence,
          appends: [...another, append(topic, sequence)],
          producer,
        });
      }
    }
    const answers = await client.nextMany(sequences.length);
    expect(answers.filter(({ type }) => type === "error")).toEqual([]);
    expect(await valuesIn(topic, dev)).toEqual(sequences);
    for (const sequence of sequences.filter(isCreating))
      expect(await valuesIn(`${prefix}-${sequence}`, dev)).toEqual([sequence]);
    await client.close();
  });

  test("on a topic that does not exist refuses its own frame, and those around it are written in order", async () => {
    const [topic, client] = [await newTopic(), await open()];
    for (const id of [0, 1, 2])
      client.send({ type: "transact", id, appends: [append(id === 1 ? "nowhere" : topic, id)] });
    const answers = await client.nextMany(3);
    expect(answers.find(({ type }) => type === "error")).toMatchObject({ id: 1, code: "unknown_topic" });
    expect(await valuesIn(topic)).toEqual([0, 2]);
    await client.close();
  });

  test("that is repeated on another socket is answered as then, and duplicate", async () => {
    const [topic, id] = [await newTopic(), newName("producer")];
    const frame = { appends: [append(topic, 1)], producer: { id, epoch: 0, sequence: 0 } };
    const [first, second] = [await open(), await open()];
    const { runs } = await transacted(first, frame);
    expect(await transacted(second, frame)).toEqual({ type: "transacted", id: "t", runs, duplicate: true });
    expect(await valuesIn(topic)).toEqual([1]);
    await Promise.all([first.close(), second.close()]);
  });

  test("with an expectation that is not met says what was expected and found, beside the other members", async () => {
    const [topic, client] = [await newTopic(1, 5), await open()];
    const expected = [{ topic, partition: 0, logEndOffset: 4 }];
    const error = await refused(client, { appends: [append(topic, 1)], expect: expected });
    expect(error).toEqual({
      type: "error",
      id: "refused",
      topic,
      partition: 0,
      code: "conflict",
      message: expect.stringContaining("found 5"),
      retriable: false,
      expected: 4,
      found: 5,
    } as never);
    expect(await valuesIn(topic)).toHaveLength(5);
    await client.close();
  });
});

describe("produce", () => {
  test("of a sequence that was written is answered with the runs of then, without topics, and duplicate", async () => {
    const [topic, client, id] = [await newTopic(2, 3), await open(), newName("producer")];
    const frame = {
      type: "produce",
      id: 1,
      topic,
      records: [0, 1, 1, 0].map((partition) => ({ value: "new", partition })),
      producer: { id, epoch: 0, sequence: 0 },
    };
    const runs = [
      { partition: 0, offset: 3, count: 1 },
      { partition: 1, offset: 3, count: 2 },
      { partition: 0, offset: 4, count: 1 },
    ];
    client.send(frame);
    expect(await client.next()).toEqual({ type: "produced", id: 1, runs });
    client.send({ ...frame, id: 2 });
    expect(await client.next()).toEqual({ type: "produced", id: 2, runs, duplicate: true });
    expect(await valuesIn(topic)).toHaveLength(5);
    await client.close();
  });

  test("of a sequence whose answer is not kept any more is answered without runs, and duplicate", async () => {
    const [topic, client, id] = [await newTopic(), await open(), newName("producer")];
    const send = (sequence: number) =>
      client.send({
        type: "produce",
        id: sequence,
        topic,
        records: [{ value: sequence }],
        producer: { id, epoch: 0, sequence },
      });
    for (const sequence of countFrom(0, 17)) send(sequence);
    await client.nextMany(17);
    send(0);
    expect(await client.next()).toEqual({ type: "produced", id: 0, runs: [], duplicate: true });
    await client.close();
  });

  test.each<[code: string, sequence: number, epoch: number, facts: Entry]>([
    ["sequence_gap", 3, 1, { found: 3, expected: 1 }],
    ["fenced_producer", 1, 0, { found: 0, expected: 1 }],
  ])("that is refused with %s says its producer, and what was found and expected", async (code, ...asked) => {
    const [sequence, epoch, facts] = asked;
    const [topic, client, id] = [await newTopic(), await open(), newName("producer")];
    await transacted(client, { appends: [append(topic, 1)], producer: { id, epoch: 1, sequence: 0 } });
    client.send({
      type: "produce",
      id: 5,
      topic,
      records: [{ value: 2 }],
      producer: { id, epoch, sequence },
    });
    expect(await client.next()).toEqual({
      type: "error",
      id: 5,
      code,
      message: expect.any(String),
      retriable: false,
      producer: id,
      ...facts,
    } as never);
    expect(await valuesIn(topic)).toEqual([1]);
    await client.close();
  });

  test("with an expectation that is not met is a conflict that carries both ends", async () => {
    const [topic, client] = [await newTopic(1, 5), await open()];
    const frame = { type: "produce", id: 5, topic, records: [{ value: 2, partition: 0 }] };
    client.send({ ...frame, expect: [{ partition: 0, logEndOffset: 6 }] });
    expect(await client.next()).toMatchObject({
      type: "error",
      id: 5,
      code: "conflict",
      topic,
      partition: 0,
      expected: 6,
      found: 5,
    });
    client.send({ ...frame, expect: [{ partition: 0, logEndOffset: 5 }] });
    expect(await client.next()).toMatchObject({ type: "produced", runs: [{ offset: 5 }] });
    await client.close();
  });

  test("by a producer whose epoch was raised over HTTP is fenced on its socket", async () => {
    const [topic, client, id] = [await newTopic(), await open(), newName("producer")];
    const send = (epoch: number, sequence: number) =>
      client.send({
        type: "produce",
        topic,
        records: [{ value: [epoch, sequence] }],
        producer: { id, epoch, sequence },
      });
    send(0, 0);
    await client.expect("produced");
    await stage.http.call("POST", `/v1/producers/${id}`);
    send(0, 1);
    send(1, 0);
    const answers = await client.nextMany(2);
    expect(answers).toMatchObject([{ type: "error", code: "fenced_producer" }, { type: "produced" }]);
    expect(await valuesIn(topic)).toEqual([
      [0, 0],
      [1, 0],
    ]);
    await client.close();
  });
});

describe("what a transaction commits", () => {
  test.each([1, 2, 3, 10])(
    "frees a window of %d: consume, transform, produce without an ack goes on to the end, each record once",
    async (records) => {
      const [input, output, group] = [await newTopic(2, 40), await newTopic(), newGroup()];
      const { client } = await joinGroup(group, [input], { window: { records } });
      let committed = 0;
      let consumed = 0;
      while (committed < consumed || consumed < 80) {
        const frame = await client.next();
        if (frame.type === "transacted") {
          for (const { count } of frame.runs) committed += count;
          continue;
        }
        if (frame.type !== "records") throw new Error(`received ${JSON.stringify(frame)}`);
        consumed += frame.records.length;
        client.send({
          type: "transact",
          appends: [append(output, ...frame.records.map(({ value }) => [frame.partition, value]))],
          commits: { group, offsets: [ackOf(frame)] },
        });
      }
      expect(await committedOf(group)).toEqual([40, 40]);
      const { body } = await stage.http.call("GET", `/v1/groups/${group}`);
      expect(body.offsets.map(({ lag }: { lag: number }) => lag)).toEqual([0, 0]);
      const written = (await valuesIn(output)) as readonly [number, number][];
      for (const partition of [0, 1])
        expect(written.filter(([from]) => from === partition).map(([, value]) => value)).toEqual(
          countFrom(0, 40) as number[],
        );
      await client.close();
    },
  );

  test("in part frees that part of the window", async () => {
    const [topic, group] = [await newTopic(1, 10), newGroup()];
    const { client, ...member } = await joinGroup(group, [topic], { window: { records: 4 } });
    expect(valuesOf(await client.expectRecords(4))).toEqual([0, 1, 2, 3]);
    const { generation } = ownOf(member);
    const commits = { group, offsets: [{ topic, partition: 0, generation, offset: 1 }] };
    await transacted(client, { appends: [], commits });
    expect(valuesOf(await client.expectRecords(1))).toEqual([4]);
    expect(await client.untilAnswered()).toEqual([]);
    await client.close();
  });

  test("for a subscription frees no other one's window", async () => {
    const [topic, group, other] = [await newTopic(1, 10), newGroup(), newGroup()];
    const { client, ...member } = await joinGroup(group, [topic], { window: { records: 2 } });
    await client.expectRecords(2);
    client.send({
      type: "subscribe",
      subscription: "b",
      topics: [topic],
      group: other,
      window: { records: 2 },
    });
    await client.expect("subscribed");
    await client.expect("assigned");
    await client.expectRecords(2);
    const { generation } = ownOf(member);
    const commits = { group, offsets: [{ topic, partition: 0, generation, offset: 2 }] };
    await transacted(client, { appends: [], commits });
    const frames = await client.expectRecords(2);
    expect(frames.map(({ subscription }) => subscription)).toEqual(frames.map(() => "default"));
    expect(await client.untilAnswered()).toEqual([]);
    expect(await committedOf(other)).toEqual([0]);
    await client.close();
  });

  test.each(["HTTP", "another socket"])(
    "over %s frees the window with the ack of the same offset, which finds nothing to commit",
    async (where) => {
      const [topic, output, group] = [await newTopic(1, 4), await newTopic(), newGroup()];
      const { client } = await joinGroup(group, [topic], { window: { records: 1 } });
      const frame = await client.expect("records");
      const entry = { ...ackOf(frame), metadata: "by the transaction" };
      const body = { appends: [append(output, "x")], commits: { group, offsets: [entry] } };
      if (where === "HTTP")
        expect((await stage.http.call("POST", "/v1/transactions", body)).status).toBe(200);
      else {
        const other = await open();
        await transacted(other, body);
        await other.close();
      }
      expect(await client.untilAnswered()).toEqual([]); // it is still held
      client.send({ type: "ack", id: 1, offsets: [ackOf(frame)] });
      expect((await client.expect("acked")).offsets).toEqual([{ topic, partition: 0, offset: 1 }]);
      expect(valuesOf([await client.expect("records")])).toEqual([1]);
      const { offsets } = (await stage.http.call("GET", `/v1/groups/${group}`)).body;
      expect(offsets).toMatchObject([{ committedOffset: 1, metadata: "by the transaction" }]);
      await client.close();
    },
  );

  test("beyond what was sent is committed, and what is on its way still comes", async () => {
    const [topic, group] = [await newTopic(1, 6), newGroup()];
    const { client, ...member } = await joinGroup(group, [topic], { window: { records: 2 } });
    expect(valuesOf(await client.expectRecords(2))).toEqual([0, 1]);
    const { generation } = ownOf(member);
    const commits = { group, offsets: [{ topic, partition: 0, generation, offset: 6 }] };
    await transacted(client, { appends: [], commits });
    expect(await committedOf(group)).toEqual([6]);
    const [next] = valuesOf([await client.expect("records")]);
    expect(next).toBe(2);
    await client.close();
  });

  test("again by its producer frees the window where the answer of the first time was lost", async () => {
    const [topic, group, id] = [await newTopic(1, 4), newGroup(), newName("producer")];
    const { client } = await joinGroup(group, [topic], { window: { records: 1 } });
    const frame = await client.expect("records");
    const commits = { group, offsets: [ackOf(frame)] };
    const body = { appends: [], commits, producer: { id, epoch: 0, sequence: 0 } };
    expect((await stage.http.call("POST", "/v1/transactions", body)).status).toBe(200);
    expect((await transacted(client, body)).duplicate).toBe(true);
    expect(valuesOf([await client.expect("records")])).toEqual([1]);
    await client.close();
  });

  test("again by its producer frees nothing of what was sent in another generation since", async () => {
    const [topic, group, id] = [await newTopic(1, 4), newGroup(), newName("producer")];
    const { client } = await joinGroup(group, [topic], { window: { records: 1 } });
    const commits = { group, offsets: [ackOf(await client.expect("records"))] };
    const frame = { appends: [], commits, producer: { id, epoch: 0, sequence: 0 } };
    await transacted(client, frame);
    await client.expect("records");
    await stage.http.call("POST", `/v1/groups/${group}/reset`, { topics: [{ topic }], to: "earliest" });
    await client.expect("assigned");
    expect(valuesOf([await client.expect("records")])).toEqual([0]);
    expect((await transacted(client, frame)).duplicate).toBe(true);
    expect(await client.untilAnswered()).toEqual([]);
    expect(await committedOf(group)).toEqual([0]);
    await client.close();
  });

  test("makes a partition that is being revoked change hands, as soon as it is all that was sent", async () => {
    const [topic, output, group] = [await newTopic(2, 4), await newTopic(), newGroup()];
    const first = await joinGroup(group, [topic]);
    const sent = await first.client.expectRecords(8);
    const second = await joinGroup(group, [topic]);
    const revoked = (await first.client.expect("revoked")).partitions[0];
    const frame = sent.find(({ partition }) => partition === revoked?.partition);
    if (!frame) throw new Error("nothing was sent of what is revoked");
    const part = { ...ackOf(frame), offset: 3 };
    await transacted(first.client, {
      appends: [append(output, "part")],
      commits: { group, offsets: [part] },
    });
    expect(await second.client.untilAnswered()).toEqual([]);
    await transacted(first.client, {
      appends: [append(output, "rest")],
      commits: { group, offsets: [ackOf(frame)] },
    });
    const gained = await second.client.expect("assigned");
    expect(gained.partitions).toMatchObject([
      { partition: frame.partition, position: 4, committedOffset: 4 },
    ]);
    const late = await refused(first.client, {
      appends: [append(output, "late")],
      commits: { group, offsets: [ackOf(frame)] },
    });
    expect(late).toMatchObject({
      code: "fenced_generation",
      topic,
      partition: frame.partition,
      generation: frame.generation,
      found: gained.partitions[0]?.generation,
    } as never);
    expect(await valuesIn(output)).toEqual(["part", "rest"]);
    await Promise.all([first.client.close(), second.client.close()]);
  });

  test("in the generation of before a take-over is refused whole, and says the one that is accepted", async () => {
    const [topic, output, group] = [await newTopic(2, 4), await newTopic(), newGroup()];
    const first = await joinGroup(group, [topic], { instanceId: "worker" });
    const sent = await first.client.expectRecords(8);
    const second = await joinGroup(group, [topic], { instanceId: "worker" });
    expect((await first.client.expect("unsubscribed")).code).toBe("replaced");
    // One of them in its new generation: it does not save the other.
    const [stale, other] = sent.map(ackOf);
    if (!stale || !other) throw new Error("two partitions were not sent");
    const now = { ...other, generation: ownOf(second, other.partition).generation };
    for (const offsets of [[stale], [now, stale]]) {
      const body = { appends: [append(output, "stale")], commits: { group, offsets } };
      expect(await refused(first.client, body)).toMatchObject({
        code: "fenced_generation",
        group,
        topic,
        partition: stale.partition,
        generation: stale.generation,
        found: ownOf(second, stale.partition).generation,
      } as never);
    }
    expect(await valuesIn(output)).toEqual([]);
    expect(await committedOf(group)).toEqual([0, 0]);
    await Promise.all([first.client.close(), second.client.close()]);
  });

  test("in the generation of before a reset is refused whole", async () => {
    const [topic, output, group] = [await newTopic(1, 4), await newTopic(), newGroup()];
    const { client } = await joinGroup(group, [topic]);
    const frame = await client.expect("records");
    const answer = await stage.http.call("POST", `/v1/groups/${group}/reset`, {
      topics: [{ topic }],
      to: { offset: 2 },
    });
    expect(answer.status).toBe(200);
    const [again] = (await client.expect("assigned")).partitions;
    await client.expect("records");
    const body = { appends: [append(output, "stale")], commits: { group, offsets: [ackOf(frame)] } };
    expect(await refused(client, body)).toMatchObject({
      code: "fenced_generation",
      generation: frame.generation,
      found: again?.generation,
    } as never);
    expect([await valuesIn(output), await committedOf(group)]).toEqual([[], [2]]);
    await client.close();
  });

  test("where it is refused frees nothing of the window", async () => {
    const [topic, output, group] = [await newTopic(1, 4), await newTopic(), newGroup()];
    const { client } = await joinGroup(group, [topic], { window: { records: 1 } });
    const frame = await client.expect("records");
    const commits = { group, offsets: [ackOf(frame)] };
    const expected = [{ topic: output, partition: 0, logEndOffset: 7 }];
    await refused(client, { appends: [append(output, 1)], commits, expect: expected });
    expect(await client.untilAnswered()).toEqual([]);
    expect(await committedOf(group)).toEqual([0]);
    await transacted(client, { appends: [append(output, 1)], commits });
    expect(valuesOf([await client.expect("records")])).toEqual([1]);
    await client.close();
  });

  test("is a commit of the owner: it leaves no row in commit_history", async () => {
    const [topic, group] = [await newTopic(1, 4), newGroup()];
    const { client } = await joinGroup(group, [topic]);
    const before = stage.sql(`SELECT count(*) FROM commit_history WHERE group_id = '${group}'`);
    const commits = { group, offsets: [ackOf(await client.expect("records"))] };
    await transacted(client, { appends: [], commits });
    expect(stage.sql(`SELECT count(*) FROM commit_history WHERE group_id = '${group}'`)).toBe(before);
    await client.close();
  });
});

test("nothing of all this was a defect in the servers' logs", () => {
  stage.expectNoDefects();
  dev.expectNoDefects();
});
