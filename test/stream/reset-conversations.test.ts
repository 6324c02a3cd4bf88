// An operator's reset over HTTP, and what the live members of the group are told of it over the real socket.

import { describe, expect, test } from "bun:test";
import type { Place } from "../../src/protocol/places.ts";
import type { Answer } from "../support/http-client.ts";
import { countFrom, Stage, valuesOf } from "../support/stage.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";
import { StreamClient } from "../support/stream-client.ts";

const RECORDS = 10;

const stage = new Stage();
const { newGroup, joinGroup, committedOf } = stage;
/** Offset n has the value n and the timestamp 1000 + n. */
const newTopic = (partitionCount = 1) => stage.newTopic(partitionCount, RECORDS);

/** A member that has acknowledged `committed` of its one partition, and holds the rest. */
async function consuming(committed = 5) {
  const [topic, group] = [await newTopic(), newGroup()];
  const { client, partitions } = await joinGroup(group, [topic]);
  await client.expectRecords(RECORDS);
  const generation = partitions[0]?.generation ?? 0;
  const ack = (offset: number, of = generation) =>
    client.send({ type: "ack", offsets: [{ topic, partition: 0, generation: of, offset }] });
  ack(committed);
  await client.expect("acked");
  return { topic, group, client, generation, ack };
}

function reset(group: string, body: Readonly<Record<string, unknown>>): Promise<Answer> {
  return stage.http.call("POST", `/v1/groups/${group}/reset`, body);
}

/** The group stands there in partition 0 and up, of one topic. */
async function commit(group: string, topic: string, ...committed: readonly number[]): Promise<void> {
  const offsets = committed.map((offset, partition) => ({ topic, partition, offset }));
  const answer = await stage.http.call("POST", `/v1/groups/${group}/offsets`, { offsets });
  expect(answer.status).toBe(200);
}

/** Of resets by an operator, oldest first. */
function historyOf(group: string): readonly string[] {
  const rows = stockSqlite(
    stage.server.databasePath,
    `SELECT partition, coalesce(previous_offset, 'nothing'), new_offset, cause, actor FROM commit_history
     WHERE group_id = '${group}' AND cause LIKE 'reset%' ORDER BY at, partition`,
  );
  return rows === "" ? [] : rows.split("\n");
}

describe("a reset of a live group", () => {
  test.each<[to: Place, offset: number, cause: string]>([
    ["earliest", 0, "earliest"],
    ["latest", 10, "latest"],
    [{ offset: 3 }, 3, "offset 3"],
    [{ offset: 10 }, 10, "offset 10"],
    [{ timestamp: 1_008 }, 8, "timestamp 1008"],
    [{ timestamp: 5_000 }, 10, "timestamp 5000"],
    [{ ago: 1_000 }, 10, "ago 1000 ms"],
    [{ ago: Number.MAX_SAFE_INTEGER }, 0, `ago ${Number.MAX_SAFE_INTEGER} ms`],
    [{ shift: -2 }, 3, "shift -2"],
    [{ shift: 2 }, 7, "shift 2"],
    [{ shift: -100 }, 0, "shift -100"],
    [{ shift: 100 }, 10, "shift 100"],
    ["current", 5, "current"],
  ])("to %j: answered, assigned in a new generation, and sent from there", async (to, offset, cause) => {
    const { topic, group, client, generation } = await consuming();
    const answer = await reset(group, { topics: [{ topic }], to, reason: "after the outage" });
    expect(answer).toEqual({
      status: 200,
      body: { plan: [{ topic, partition: 0, from: 5, to: offset }], applied: true },
    });
    const [assigned] = (await client.expect("assigned")).partitions;
    expect(assigned).toMatchObject({ topic, partition: 0, position: offset, committedOffset: offset });
    expect(assigned).not.toHaveProperty("reset");
    expect(assigned?.generation).toBeGreaterThan(generation);
    if (offset < RECORDS) {
      const frames = await client.expectRecords(RECORDS - offset);
      expect(valuesOf(frames)).toEqual(countFrom(offset, RECORDS));
      expect(frames[0]?.generation).toBe(assigned?.generation);
    }
    await stage.http.produce(topic, [{ value: "new" }]);
    expect(valuesOf(await client.expectRecords(1))).toEqual(["new"]);
    expect(await committedOf(group)).toEqual([offset]);
    expect(historyOf(group)).toEqual([`0|5|${offset}|reset: ${cause} (after the outage)|operator`]);
    await client.close();
  });

  test("fences acks that come late, and takes those of the new generation", async () => {
    const { topic, group, client, generation, ack } = await consuming();
    await reset(group, { topics: [{ topic }], to: "earliest" });
    ack(9);
    const assigned = (await client.expect("assigned")).partitions[0];
    await client.expectRecords(RECORDS);
    expect((await client.expect("acked")).offsets).toEqual([
      { topic, partition: 0, offset: 0, code: "fenced_generation" },
    ]);
    ack(9, generation);
    expect((await client.expect("acked")).offsets[0]?.code).toBe("fenced_generation");
    ack(2, assigned?.generation);
    expect((await client.expect("acked")).offsets).toEqual([{ topic, partition: 0, offset: 2 }]);
    expect(await committedOf(group)).toEqual([2]);
    await client.close();
  });

  test("frees the window of what was sent before: it is void", async () => {
    const [topic, group] = [await newTopic(), newGroup()];
    const { client } = await joinGroup(group, [topic], { window: { records: 4 } });
    expect(valuesOf(await client.expectRecords(4))).toEqual([0, 1, 2, 3]);
    await reset(group, { topics: [{ topic }], to: { offset: 6 } });
    await client.expect("assigned");
    expect(valuesOf(await client.expectRecords(4))).toEqual([6, 7, 8, 9]);
    await client.close();
  });

  test("leaves a partition paused that is paused", async () => {
    const { topic, group, client } = await consuming();
    client.send({ type: "pause", id: 1, partitions: [{ topic, partition: 0 }] });
    await client.expect("ok");
    await reset(group, { topics: [{ topic }], to: { offset: 7 } });
    expect(await client.expect("assigned")).toMatchObject({ partitions: [{ position: 7 }] });
    await stage.http.produce(topic, [{ value: "new" }]);
    expect(await client.untilAnswered()).toEqual([]);
    client.send({ type: "resume", id: 2, partitions: [{ topic, partition: 0 }] });
    await client.expect("ok");
    expect(valuesOf(await client.expectRecords(4))).toEqual([7, 8, 9, "new"]);
    await client.close();
  });

  test("moves only the partitions that are named; the others go on in their generations", async () => {
    const [topic, group] = [await newTopic(3), newGroup()];
    const { client, partitions } = await joinGroup(group, [topic]);
    await client.expectRecords(3 * RECORDS);
    const answer = await reset(group, { topics: [{ topic, partitions: [2, 0] }], to: { offset: 8 } });
    expect(answer.body.plan).toEqual([
      { topic, partition: 2, from: 0, to: 8 },
      { topic, partition: 0, from: 0, to: 8 },
    ]);
    const assigned = (await client.expect("assigned")).partitions;
    expect(assigned.map(({ partition }) => partition).toSorted()).toEqual([0, 2]);
    expect(valuesOf(await client.expectRecords(4)).toSorted()).toEqual([8, 8, 9, 9]);
    const generation = partitions[1]?.generation;
    client.send({ type: "ack", offsets: [{ topic, partition: 1, generation, offset: 10 }] });
    expect((await client.expect("acked")).offsets).toEqual([{ topic, partition: 1, offset: 10 }]);
    expect(await committedOf(group)).toEqual([8, 10, 8]);
    expect(historyOf(group)).toEqual(["0|0|8|reset: offset 8|operator", "2|0|8|reset: offset 8|operator"]);
    await client.close();
  });

  test("reaches each of its members, and no subscription of another group and no reader", async () => {
    const [topic, group] = [await newTopic(2), newGroup()];
    const members = [await joinGroup(group, [topic])];
    await members[0]?.client.expectRecords(2 * RECORDS);
    members.push(await joinGroup(group, [topic]));
    await members[0]?.client.expect("revoked");
    members[0]?.client.send({ type: "release", id: 1, partitions: [{ topic, partition: 1 }] });
    await members[0]?.client.expect("ok");
    await members[1]?.client.expect("assigned");
    await members[1]?.client.expectRecords(RECORDS);
    const other = await joinGroup(newGroup(), [topic], { reset: "latest" });
    const reader = await StreamClient.open(`${stage.server.streamUrl}?topic=${topic}&from=latest`, {
      patienceMs: 4_000,
    });
    await reader.expect("subscribed");
    await reader.expect("assigned");
    await reset(group, { topics: [{ topic }], to: { offset: 9 } });
    for (const [partition, { client }] of members.entries()) {
      expect(await client.expect("assigned")).toMatchObject({ partitions: [{ partition, position: 9 }] });
      expect(valuesOf(await client.expectRecords(1))).toEqual([9]);
    }
    for (const client of [other.client, reader]) expect(await client.untilAnswered()).toEqual([]);
    await Promise.all([...members, other].map(({ client }) => client.close()));
    await reader.close();
  });

  test("of a partition that is being revoked ends the wait: it goes to its next owner from the new place", async () => {
    const [topic, group] = [await newTopic(2), newGroup()];
    const first = await joinGroup(group, [topic]);
    await first.client.expectRecords(2 * RECORDS);
    const second = await joinGroup(group, [topic]);
    await first.client.expect("revoked");
    const generation = first.partitions[1]?.generation;
    await reset(group, { topics: [{ topic, partitions: [1] }], to: { offset: 7 } });
    expect(await second.client.expect("assigned")).toMatchObject({
      partitions: [{ partition: 1, position: 7, committedOffset: 7 }],
    });
    expect(valuesOf(await second.client.expectRecords(3))).toEqual([7, 8, 9]);
    first.client.send({ type: "ack", offsets: [{ topic, partition: 1, generation, offset: 10 }] });
    expect((await first.client.expect("acked")).offsets[0]).toMatchObject({
      offset: 7,
      code: "fenced_generation",
    });
    await Promise.all([first.client.close(), second.client.close()]);
  });

  test("gives a place to what the policy `none` has left without one", async () => {
    const [topic, group] = [await newTopic(), newGroup()];
    const { client } = await joinGroup(group, [topic], { reset: "none" });
    expect(await client.expect("error")).toMatchObject({ code: "no_committed_offset" });
    const shifted = await reset(group, { topics: [{ topic }], to: { shift: 1 } });
    expect(shifted).toMatchObject({
      status: 409,
      body: { code: "no_committed_offset", topic, partition: 0 },
    });
    expect((await reset(group, { topics: [{ topic }], to: { offset: 8 } })).body.plan).toEqual([
      { topic, partition: 0, from: null, to: 8 },
    ]);
    expect(await client.expect("assigned")).toMatchObject({
      partitions: [{ position: 8, committedOffset: 8 }],
    });
    expect(valuesOf(await client.expectRecords(2))).toEqual([8, 9]);
    expect(historyOf(group)).toEqual(["0|nothing|8|reset: offset 8|operator"]);
    await client.close();
  });

  test("many times while it consumes: every record comes from the last place on, in order", async () => {
    const { topic, group, client } = await consuming();
    const places = [0, 9, 3, 7, 1];
    await Promise.all(places.map((offset) => reset(group, { topics: [{ topic }], to: { offset } })));
    const last = (await committedOf(group))[0] ?? 0;
    for (let isLast = false; !isLast; ) {
      const frame = await client.next(); // what was sent in between is void
      isLast = frame.type === "assigned" && frame.partitions[0]?.position === last;
    }
    expect(valuesOf(await client.expectRecords(RECORDS - last))).toEqual(countFrom(last, RECORDS));
    expect(await client.untilAnswered()).toEqual([]);
    expect(historyOf(group)).toHaveLength(places.length);
    await client.close();
  });
});

describe("a reset of a group without members", () => {
  test("to a time finds it in every partition", async () => {
    const [topic, group] = [await newTopic(2), newGroup()];
    await commit(group, topic, 1, 2);
    const answer = await reset(group, { topics: [{ topic }], to: { timestamp: 1_006 } });
    expect(answer.body).toEqual({
      plan: [
        { topic, partition: 0, from: 1, to: 6 },
        { topic, partition: 1, from: 2, to: 6 },
      ],
      applied: true,
    });
    expect(await committedOf(group)).toEqual([6, 6]);
    const { client, partitions } = await joinGroup(group, [topic]);
    expect(partitions).toMatchObject([{ position: 6 }, { position: 6 }]);
    await client.close();
  });

  test("by how long ago it is goes by the database's clock", async () => {
    const [topic, group] = [await newTopic(), newGroup()];
    await commit(group, topic, 1);
    const hour = 3_600_000;
    await stage.http.produce(
      topic,
      [3, 2, 1].map((hours) => ({ value: hours, timestamp: Date.now() - hours * hour })),
    );
    const answer = await reset(group, { topics: [{ topic }], to: { ago: 2.5 * hour } });
    expect(answer.body.plan).toEqual([{ topic, partition: 0, from: 1, to: RECORDS + 1 }]);
  });

  test("in a topic that it never had commits there", async () => {
    const [topic, other, group] = [await newTopic(), await newTopic(), newGroup()];
    await commit(group, topic, 1);
    const answer = await reset(group, { topics: [{ topic: other }], to: "latest" });
    expect(answer.body).toEqual({
      plan: [{ topic: other, partition: 0, from: null, to: 10 }],
      applied: true,
    });
    const { client, partitions } = await joinGroup(group, [other], { reset: "earliest" });
    expect(partitions).toMatchObject([{ position: 10, committedOffset: 10 }]);
    await client.close();
  });

  test("stays inside a log that has lost its beginning", async () => {
    const [topic, group] = [await newTopic(), newGroup()];
    await commit(group, topic, 2);
    await stage.http.call("DELETE", `/v1/topics/${topic}/partitions/0/records?before=6`);
    for (const [to, offset] of [
      ["current", 6],
      [{ shift: -1 }, 6],
      ["earliest", 6],
      [{ timestamp: 0 }, 6],
      [{ shift: 2 }, 8],
    ] as const)
      expect((await reset(group, { topics: [{ topic }], to })).body.plan).toMatchObject([{ to: offset }]);
    expect(await reset(group, { topics: [{ topic }], to: { offset: 5 } })).toMatchObject({
      status: 416,
      body: { code: "offset_out_of_range", topic, partition: 0, logStartOffset: 6, logEndOffset: 10 },
    });
  });
});

describe("a dry run", () => {
  test("says what would be done and does nothing; its plan can be sent back and is applied exactly", async () => {
    const { topic, group, client, generation, ack } = await consuming();
    const dry = await reset(group, {
      topics: [{ topic }],
      to: { shift: -3 },
      dryRun: true,
      reason: "a look",
    });
    expect(dry).toEqual({
      status: 200,
      body: { plan: [{ topic, partition: 0, from: 5, to: 2 }], applied: false },
    });
    expect(await client.untilAnswered()).toEqual([]);
    expect([await committedOf(group), historyOf(group)]).toEqual([[5], []]);
    ack(5, generation); // its generation still counts
    expect((await client.expect("acked")).offsets[0]).not.toHaveProperty("code");
    const applied = await reset(group, { plan: dry.body.plan, reason: "as planned" });
    expect(applied.body).toEqual({ ...dry.body, applied: true });
    expect(await client.expect("assigned")).toMatchObject({ partitions: [{ position: 2 }] });
    expect(historyOf(group)).toEqual(["0|5|2|reset: plan (as planned)|operator"]);
    await client.close();
  });

  test("of a plan says whether it would still be applied", async () => {
    const [topic, group] = [await newTopic(), newGroup()];
    await commit(group, topic, 4);
    const step = { topic, partition: 0, to: 0 };
    expect((await reset(group, { plan: [{ ...step, from: 4 }], dryRun: true })).body.applied).toBe(false);
    expect((await reset(group, { plan: [{ ...step, from: 3 }], dryRun: true })).body.code).toBe("conflict");
    expect(await committedOf(group)).toEqual([4]);
  });
});

describe("a plan", () => {
  test("that is out of date in one partition is a conflict as a whole, which says where", async () => {
    const { topic, group, client, ack } = await consuming();
    const dry = await reset(group, { topics: [{ topic }], to: "earliest", dryRun: true });
    ack(7);
    await client.expect("acked");
    expect(await reset(group, { plan: dry.body.plan })).toMatchObject({
      status: 409,
      body: { code: "conflict", retriable: false, topic, partition: 0, expected: 5, found: 7 },
    });
    expect(await client.untilAnswered()).toEqual([]);
    expect([await committedOf(group), historyOf(group)]).toEqual([[7], []]);
    await client.close();
  });

  test("of several partitions is applied to all or to none", async () => {
    const [topic, group] = [await newTopic(3), newGroup()];
    await commit(group, topic, 4, 5, 6);
    const plan = [0, 1, 2].map((partition) => ({ topic, partition, from: 4 + partition, to: 9 - partition }));
    const wrong = plan.map((step) => (step.partition === 1 ? { ...step, from: 0 } : step));
    expect((await reset(group, { plan: wrong })).status).toBe(409);
    expect(
      (await reset(group, { plan: plan.with(2, { topic, partition: 2, from: 6, to: 11 }) })).status,
    ).toBe(416);
    expect(await committedOf(group)).toEqual([4, 5, 6]);
    expect((await reset(group, { plan })).body).toEqual({ plan, applied: true });
    expect(await committedOf(group)).toEqual([9, 8, 7]);
    expect(historyOf(group)).toEqual([
      "0|4|9|reset: plan|operator",
      "1|5|8|reset: plan|operator",
      "2|6|7|reset: plan|operator",
    ]);
  });

  test("made from commit_history undoes a reset", async () => {
    const [topic, group] = [await newTopic(2), newGroup()];
    await commit(group, topic, 4, 7);
    await reset(group, { topics: [{ topic }], to: "latest" });
    expect(await committedOf(group)).toEqual([10, 10]);
    const rows = stockSqlite(
      stage.server.databasePath,
      `SELECT json_group_array(json_object('topic', topic, 'partition', partition,
                                           'from', new_offset, 'to', previous_offset))
       FROM commit_history WHERE group_id = '${group}' AND cause = 'reset: latest'`,
    );
    const undone = await reset(group, { plan: JSON.parse(rows), reason: "undo" });
    expect(undone.body.applied).toBe(true);
    expect(await committedOf(group)).toEqual([4, 7]);
    expect(historyOf(group).slice(2)).toEqual([
      "0|10|4|reset: plan (undo)|operator",
      "1|10|7|reset: plan (undo)|operator",
    ]);
  });
});

test("nothing of all this was a defect in the server's log", stage.expectNoDefects);
