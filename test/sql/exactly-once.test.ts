// An application's own tables beside the log, from processes of its own: what it writes and what it appends or commits
// is one transaction, and consumers of the running servers see it.

import { expect, setDefaultTimeout, test } from "bun:test";
import type { ServerFrame } from "../../src/protocol/frames.ts";
import { ackOf, type Member, WatchedGroup } from "../groups/member.ts";
import { describePlaces, type Place } from "../support/cluster.ts";
import { ownTransaction } from "../support/own-transaction.ts";
import type { FrameOf } from "../support/stream-client.ts";

setDefaultTimeout(30_000); // where the machine has much else to do

describePlaces("exactly once", (place) => {
  test("what an application appends reaches a consumer that waits, together with its own row", async () => {
    await using own = await newApplication(place(), { partitionCount: 2 });
    const { table, topic, group } = own;
    const member = await group.join(place().server(0));
    const append = (columns: string, values: string) =>
      `INSERT INTO append_record (topic, ${columns}) VALUES ('${topic}', ${values})`;
    const outcome = await ownTransaction(
      place(),
      `INSERT INTO ${table} VALUES (7)`,
      append("key, value, headers, partition", `'Ada', '{"total": 2.0}', '{"via":"sql"}', 0`),
      append("key, partition", "'gone', 0"),
      append("value, partition", "x'0001ff', 0"),
    );
    expect(outcome).toBe("committed");
    await group.until(() => recordsOf(member).length === 3, "3 records");
    expect(recordsOf(member)).toEqual([
      { offset: 0, timestamp: expect.any(Number), key: "Ada", headers: { via: "sql" }, value: { total: 2 } },
      { offset: 1, timestamp: expect.any(Number), key: "gone", value: null },
      { offset: 2, timestamp: expect.any(Number), bytes: "AAH/" },
    ]);
    expect(await place().sql(`SELECT n FROM ${table}`)).toEqual(["7"]);

    expect(await ownTransaction(place(), append("value, partition", `'"more"', 1`))).toBe("committed");
    await group.until(() => recordsOf(member).length === 4, "4 records");
    expect(group.ledger.judge()).toEqual([]);
  });

  test("a record that is refused takes the application's row back", async () => {
    await using own = await newApplication(place());
    const append = (value: string, topic = own.topic) =>
      `INSERT INTO append_record (topic, value) VALUES ('${topic}', ${value})`;
    const row = `INSERT INTO ${own.table} VALUES (1)`;
    expect(await ownTransaction(place(), row, append("1"), append("'not JSON'"))).toBe("bad_request");
    expect(await ownTransaction(place(), row, append("1"), append("1", "nowhere"))).toBe("unknown_topic");
    expect(await ownTransaction(place(), append("1"), row, append("CAST(x'22ff22' AS TEXT)"))).toBe(
      "bad_request",
    );
    expect(await place().sql(`SELECT count(*) FROM ${own.table}`)).toEqual(["0"]);
    expect(
      await place().sql(`SELECT log_end_offset FROM partition_stats WHERE topic = '${own.topic}'`),
    ).toEqual(["0"]);
  });

  test("results and offset are committed together and once, and an ack then frees the window", async () => {
    await using own = await newApplication(place(), { records: 5 });
    const { group, topic } = own;
    const member = await group.join(place().server(0), { acks: false, window: { records: 5 } });
    const frame = await lastFrame(member, 5); // a frame takes half a window: there are some before
    for (const each of framesOf(member)) expect(await own.process(each)).toBe("committed");
    for (const each of framesOf(member)) expect(await own.process(each)).toBe("conflict");
    expect(await own.total()).toBe(0 + 1 + 2 + 3 + 4);
    expect(await place().committedOffsets(group.name, topic)).toEqual([5]);

    await place()
      .http(1)
      .produce(topic, [{ value: 5 }]);
    const { offsets } = await member.untilAcked(member.ack(ackOf(frame)));
    expect(offsets).toEqual([{ topic, partition: 0, offset: 5 }]);
    expect(await own.process(await lastFrame(member, 6))).toBe("committed");
    expect(await own.total()).toBe(15);
    expect(group.ledger.judge()).toEqual([]);
  });

  test("what a consumer has processed whose membership was taken over counts for nothing", async () => {
    await using own = await newApplication(place(), { records: 5 });
    const { group, topic } = own;
    const first = await group.join(place().server(0), { acks: false, instanceId: "tab-7" });
    const late = await lastFrame(first, 5);
    const second = await group.join(place().server(1), { acks: false, instanceId: "tab-7" });
    const again = await lastFrame(second, 5);
    expect(await own.process(late)).toBe("fenced_generation");
    expect(await own.total()).toBe(0);
    expect(await own.process(again)).toBe("committed");
    expect(await own.process(late)).toBe("fenced_generation");
    expect(await own.total()).toBe(10);
    expect(await place().committedOffsets(group.name, topic)).toEqual([5]);
  });

  test("what a consumer has processed before a reset counts for nothing, and what it is sent again does", async () => {
    await using own = await newApplication(place(), { records: 5 });
    const { group, topic } = own;
    const member = await group.join(place().server(0), { acks: false });
    const late = await lastFrame(member, 5);
    const answer = await place()
      .http(1)
      .call("POST", `/v1/groups/${group.name}/reset`, { topics: [{ topic }], to: { offset: 2 } });
    expect(answer.status).toBe(200);
    expect(await own.process(late)).toBe("fenced_generation");
    expect(await own.total()).toBe(0);
    const isAgain = (frame: ServerFrame) => frame.type === "records" && frame.generation > late.generation;
    const again = (await member.untilFrame(isAgain)) as FrameOf<"records">; // its type was compared
    expect(await own.process(again)).toBe("committed");
    expect(await own.total()).toBe(2 + 3 + 4);
  });

  test("an offset beyond the end takes the results back", async () => {
    await using own = await newApplication(place(), { records: 5 });
    const member = await own.group.join(place().server(0), { acks: false });
    const frame = await lastFrame(member, 5);
    expect(await own.process({ ...frame, next: 6 })).toBe("offset_out_of_range");
    expect(await own.process({ ...frame, topic: "nowhere" })).toBe("unknown_topic");
    expect(await own.process({ ...frame, partition: 1 })).toBe("unknown_partition");
    expect(await own.process({ ...frame, generation: frame.generation + 1 })).toBe("fenced_generation");
    expect(await own.total()).toBe(0);
    expect(await place().committedOffsets(own.group.name, own.topic)).toEqual([0]);
  });

  test("applications and servers that append at once give dense offsets, each record once", async () => {
    await using own = await newApplication(place());
    const { topic, group } = own;
    const member = await group.join(place().server(0));
    const rounds = Array.from({ length: 10 }, (_, n) => n);
    const byServers = rounds.map((n) =>
      place()
        .http(n)
        .produce(topic, [{ value: `server ${n}` }]),
    );
    const bySql = rounds
      .slice(0, 4)
      .map((n) =>
        ownTransaction(
          place(),
          ...rounds.map(
            (m) => `INSERT INTO append_record (topic, value) VALUES ('${topic}', '"sql ${n} ${m}"')`,
          ),
        ),
      );
    expect(new Set(await Promise.all(bySql))).toEqual(new Set(["committed"]));
    await Promise.all(byServers);
    await group.until(() => recordsOf(member).length === 50, "50 records");
    const records = recordsOf(member);
    expect(records.map(({ offset }) => offset)).toEqual(records.map((_, offset) => offset));
    const sent = rounds.flatMap((n) => [`server ${n}`, ...(n < 4 ? rounds.map((m) => `sql ${n} ${m}`) : [])]);
    expect(records.map(({ value }) => value).sort()).toEqual(sent.sort());
    expect(group.ledger.judge()).toEqual([]);
  });
});

/** A table, a topic and a group of its own for each test. */
async function newApplication(place: Place, options: { partitionCount?: number; records?: number } = {}) {
  const topic = await place.newTopic(options);
  const group = new WatchedGroup(place.newGroup(), [topic]);
  const table = topic.replace("-", "_");
  await place.sql(`CREATE TABLE ${table} (n INTEGER)`);
  return {
    topic,
    group,
    table,
    total: async () => Number((await place.sql(`SELECT total(n) FROM ${table}`))[0]),
    /** What was sent, written down and committed. */
    process: ({ topic, partition, generation, records, next }: FrameOf<"records">) =>
      ownTransaction(
        place,
        ...records.map(({ value }) => `INSERT INTO ${table} VALUES (${value})`),
        `INSERT INTO commit_offset (group_id, topic, partition, generation, offset)
         VALUES ('${group.name}', '${topic}', ${partition}, ${generation}, ${next})`,
      ),
    [Symbol.asyncDispose]: () => group[Symbol.asyncDispose](),
  };
}

const framesOf = ({ frames }: Member) =>
  frames.filter((frame): frame is FrameOf<"records"> => frame.type === "records");
const recordsOf = (member: Member) => framesOf(member).flatMap(({ records }) => records);

/** The frame that brings the log up to that offset; what the topic holds before comes in one. */
async function lastFrame(member: Member, next: number): Promise<FrameOf<"records">> {
  const frame = await member.untilFrame((each) => each.type === "records" && each.next === next);
  return frame as FrameOf<"records">; // its type was compared
}
