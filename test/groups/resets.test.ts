// An operator's reset of a group that is at work, asked of any server: what was acknowledged before it counts no more.

import { expect, setDefaultTimeout, test } from "bun:test";
import type { AckEntry } from "../../src/protocol/frames.ts";
import { describePlaces, describeSqld, type Place } from "../support/cluster.ts";
import { CuttingProxy } from "../support/cutting-proxy.ts";
import { startServer } from "../support/server.ts";
import { ackOf, keyOf, type Member, type Owned, WatchedGroup } from "./member.ts";

setDefaultTimeout(30_000); // where the machine has much else to do

const RESET_SEEN_MAX_MS = 1_000;

describePlaces("a reset", (place) => {
  test("while its members acknowledge without a pause stands, and counts in new generations only", async () => {
    const [partitionCount, records] = [4, 120];
    await using group = await newGroup(place(), { partitionCount, records });
    const { topic } = group;
    const members = await Promise.all(
      [0, 1].map((n) => group.join(place().server(n), { window: { records: 4 } })),
    );
    await group.untilBalanced(partitionCount);
    for (const member of members) acknowledgeOn(member);
    await untilCommitted(group, 20);

    const { status, body } = await reset(place(), group, {
      topics: [{ topic }],
      to: "earliest",
      reason: "again",
    });
    expect({ status, applied: body.applied }).toEqual({ status: 200, applied: true });
    const generations = await generationsOf(place(), group);
    await untilGenerations(group, generations);
    await untilCommitted(group, records);

    // All that was accepted before the reset is what it began from, and nothing of that was accepted afterwards.
    for (const { partition, from } of body.plan) {
      const key = keyOf({ topic, partition });
      const own = generations[partition] ?? 0;
      expect(from).toBeGreaterThanOrEqual(20);
      expect(group.ledger.acceptedIn(key, (generation) => generation < own)).toBe(from);
      expect(group.ledger.acceptedIn(key, (generation) => generation >= own)).toBe(records);
      expect(group.ledger.startsIn(key, own)).toEqual([0]);
    }
    expect(group.ledger.violations).toEqual([]);
    expect(await historyOf(place(), group, "reset%")).toEqual(
      body.plan.map(
        ({ partition, from }: { partition: number; from: number }) =>
          `${partition}|${from}|0|reset: earliest (again)|operator`,
      ),
    );
  }, 20_000);

  test("on one server is seen by the members of all others within a second", async () => {
    await using group = await newGroup(place(), { partitionCount: 3, records: 10 });
    const { topic } = group;
    const members = await Promise.all([0, 1, 2].map((n) => group.join(place().server(n))));
    await group.untilBalanced(3);
    await untilCommitted(group, 10);
    for (const [round, to] of [{ offset: 2 }, "earliest", { offset: 7 }, { shift: -1 }].entries()) {
      const seen = members.map(({ frames }) => frames.length);
      const { body } = await reset(place(), group, { topics: [{ topic }], to }, round);
      expect(body.applied).toBe(true);
      await Promise.all(
        members.map((member, n) =>
          member.untilFrame((frame) => frame.type === "assigned", RESET_SEEN_MAX_MS, seen[n]),
        ),
      );
      await untilCommitted(group, 10);
    }
    expect(group.ledger.violations).toEqual([]);
  });

  test("by a plan that is out of date in one partition is refused as a whole", async () => {
    await using group = await newGroup(place(), { partitionCount: 3, records: 10 });
    const { topic } = group;
    const member = await group.join(place().server(0));
    await untilCommitted(group, 10);
    const { body: dry } = await reset(place(), group, {
      topics: [{ topic }],
      to: { offset: 4 },
      dryRun: true,
    });
    expect(dry).toEqual({
      plan: [0, 1, 2].map((partition) => ({ topic, partition, from: 10, to: 4 })),
      applied: false,
    });
    await place()
      .http(2)
      .produce(topic, [{ value: "one more", partition: 2 }]);
    await member.untilFrame(
      (frame) => frame.type === "acked" && frame.offsets.some(({ offset }) => offset === 11),
    );
    const frames = member.frames.length;

    const refused = await reset(place(), group, { plan: dry.plan });
    expect(refused).toMatchObject({
      status: 409,
      body: { code: "conflict", topic, partition: 2, expected: 10, found: 11, retriable: false },
    });
    member.client.send({ type: "pong", id: "quiet" });
    await member.until("ok");
    expect(member.frames.slice(frames).map(({ type }) => type)).toEqual(["ok"]);
    expect(await place().committedOffsets(group.name, topic)).toEqual([10, 10, 11]);
    expect(await historyOf(place(), group, "reset%")).toEqual([]);
    const plan = [...dry.plan.slice(0, 2), { topic, partition: 2, from: 11, to: 4 }];
    expect(await reset(place(), group, { plan })).toEqual({ status: 200, body: { plan, applied: true } });
  });

  test("is undone from the history", async () => {
    await using group = await newGroup(place(), { partitionCount: 2, records: 10 });
    const { topic } = group;
    const member = await group.join(place().server(0), { acks: false });
    const owned = await untilOwned(member, 2);
    await member.untilAcked(member.ack(...owned.map((each) => ackTo(each, 3 + each.partition))));
    await reset(place(), group, { topics: [{ topic }], to: "latest", reason: "by mistake" });
    expect(await place().committedOffsets(group.name, topic)).toEqual([10, 10]);

    const lines = await place().sql(
      `SELECT partition, new_offset, previous_offset FROM commit_history
       WHERE group_id = '${group.name}' AND cause LIKE '%by mistake%' ORDER BY partition`,
    );
    const plan = lines.map((line) => {
      const [partition, from, to] = line.split("|").map(Number);
      return { topic, partition, from, to };
    });
    const { body } = await reset(place(), group, { plan, reason: "undone" });
    expect(body).toEqual({ plan, applied: true });
    expect(await place().committedOffsets(group.name, topic)).toEqual([3, 4]);
    await member.untilFrame(
      (frame) => frame.type === "assigned" && frame.partitions.every(({ position }) => (position ?? 0) < 10),
      RESET_SEEN_MAX_MS,
      1 + member.frames.findIndex(({ type }) => type === "assigned"),
    );
    expect(await historyOf(place(), group, "reset%")).toEqual([
      "0|3|10|reset: latest (by mistake)|operator",
      "1|4|10|reset: latest (by mistake)|operator",
      "0|10|3|reset: plan (undone)|operator",
      "1|10|4|reset: plan (undone)|operator",
    ]);
  });

  test("at once on several servers happens once after the other, each whole", async () => {
    await using group = await newGroup(place(), { partitionCount: 3, records: 20 });
    const { topic } = group;
    const member = await group.join(place().server(0), { acks: false });
    await untilOwned(member, 3);
    const targets = [3, 6, 9, 12, 15];
    const answers = await Promise.all(
      targets.map((offset, n) => reset(place(), group, { topics: [{ topic }], to: { offset } }, n)),
    );
    expect(answers.map(({ status, body }) => [status, body.applied])).toEqual(Array(5).fill([200, true]));
    const committed = await place().committedOffsets(group.name, topic);
    expect(new Set(committed).size).toBe(1);
    // Each began where another had led.
    const froms = answers.map(({ body }) => body.plan[0].from);
    expect([...froms, committed[0]].sort((a, b) => a - b)).toEqual([0, ...targets]);
  });
});

describeSqld("an answer of the database that is lost", (place) => {
  test("leaves a commit done once, and answered once", async () => {
    using proxy = new CuttingProxy(place().sqldPort);
    await using server = await startServer(proxy.url, { mode: "serve" });
    await using group = await newGroup(place(), { records: 10 });
    const { topic } = group;
    const member = await group.join(server, { acks: false });
    const [owned] = await untilOwned(member, 1);
    for (const offset of [3, 7, 10]) {
      const { lost } = proxy;
      proxy.isLost = (request) => proxy.lost === lost && request.includes("INTO committed_offsets");
      const { offsets } = await member.untilAcked(member.ack(ackTo(owned, offset)));
      expect(offsets).toEqual([{ topic, partition: 0, offset }]);
      expect(proxy.lost).toBe(lost + 1);
      expect(await place().committedOffsets(group.name, topic)).toEqual([offset]);
    }
    const acked = member.frames.filter(({ type }) => type === "acked");
    expect(acked.length).toBe(3);
    expect(member.frames.filter(({ type }) => type === "error")).toEqual([]);
    expect(group.ledger.judge()).toEqual([]);
  });

  test("leaves a join and a leave done once", async () => {
    using proxy = new CuttingProxy(place().sqldPort);
    await using server = await startServer(proxy.url, { mode: "serve" });
    await using group = await newGroup(place(), { partitionCount: 2, records: 1 });
    const { topic } = group;
    proxy.isLost = (request) => proxy.lost === 0 && request.includes("INTO members");
    const member = await group.join(server);
    expect(proxy.lost).toBe(1);
    await untilCommitted(group, 1);
    expect(member.owned.size).toBe(2);
    const membersLeft = () =>
      place().sql(`SELECT member_id FROM group_members WHERE group_id = '${group.name}'`);
    expect(await membersLeft()).toEqual([member.memberId]);
    expect(await place().committedOffsets(group.name, topic)).toEqual([1, 1]);

    proxy.isLost = (request) => proxy.lost === 1 && request.includes("DELETE FROM members");
    await group.leave(member);
    expect(proxy.lost).toBe(2);
    expect(await membersLeft()).toEqual([]);
    expect(group.ledger.judge()).toEqual([]);
  });

  test("leaves a reset done at most once, and says so", async () => {
    using proxy = new CuttingProxy(place().sqldPort);
    await using server = await startServer(proxy.url, { mode: "serve" });
    await using group = await newGroup(place(), { records: 10 });
    const { topic } = group;
    const member = await group.join(place().server(1), { acks: false });
    const [owned] = await untilOwned(member, 1);
    await member.untilAcked(member.ack(ackTo(owned, 8)));
    proxy.isLost = (request) => proxy.lost === 0 && request.includes("INTO offset_history");
    const response = await fetch(`${server.url}/v1/groups/${group.name}/reset`, {
      method: "POST",
      body: JSON.stringify({ topics: [{ topic }], to: { shift: -3 } }),
    });
    expect(proxy.lost).toBe(1);
    expect([response.status, await response.json()]).toMatchObject([
      504,
      { code: "outcome_unknown", retriable: true },
    ]);
    expect(await place().committedOffsets(group.name, topic)).toEqual([5]);
    expect(await historyOf(place(), group, "reset%")).toEqual(["0|8|5|reset: shift -3|operator"]);
  });
});

// ─────────────────────────────────────────────────────────────────────────────────────────────────────────

async function newGroup(
  place: Place,
  options: { partitionCount?: number; records?: number } = {},
): Promise<WatchedGroup> {
  return new WatchedGroup(place.newGroup(), [await place.newTopic(options)]);
}

function reset(place: Place, { name }: WatchedGroup, body: object, server = 2) {
  return place.http(server).call("POST", `/v1/groups/${name}/reset`, body);
}

/** Acknowledges what it was sent in every generation that it had and has, on and on, until its socket closes. */
function acknowledgeOn(member: Member): void {
  const run = async () => {
    while (!member.isClosed) {
      const entries = new Map<string, AckEntry>();
      for (const frame of member.frames)
        if (frame.type === "records") entries.set(`${frame.partition}/${frame.generation}`, ackOf(frame));
      await member.untilAcked(member.ack(...entries.values()));
    }
  };
  run().catch((error) => {
    if (!member.isClosed) throw error; // else the test is over
  });
}

/** All partitions that they own are acknowledged so far at least, as their owners know. */
function untilCommitted(group: WatchedGroup, offset: number): Promise<void> {
  const committed = (owned: Owned) => {
    const accepted = group.ledger.acceptedIn(keyOf(owned), (generation) => generation === owned.generation);
    return Math.max(accepted, owned.committedOffset ?? 0);
  };
  const isMet = () =>
    [...group.members].every(
      ({ owned }) => owned.size > 0 && [...owned.values()].every((each) => committed(each) >= offset),
    );
  const found = () => [...group.members].map(({ owned }) => [...owned.values()].map(committed));
  return group.signal.until(isMet, () => `acknowledged ${JSON.stringify(found())}, not ${offset}`);
}

/** By partition number, as they are now. */
async function generationsOf(place: Place, { name }: WatchedGroup): Promise<readonly number[]> {
  const lines = await place.sql(
    `SELECT generation FROM consumer_lag WHERE group_id = '${name}' ORDER BY partition`,
  );
  return lines.map(Number);
}

function untilGenerations({ members, signal }: WatchedGroup, generations: readonly number[]): Promise<void> {
  const owned = () => [...members].flatMap((member) => [...member.owned.values()]);
  const isNow = ({ partition, generation }: Owned) => generations[partition] === generation;
  const isMet = () => owned().length === generations.length && owned().every(isNow);
  return signal.until(isMet, () => `owned ${JSON.stringify(owned())}, not ${generations}`, RESET_SEEN_MAX_MS);
}

/** What it owns, when it has been sent something of all. */
async function untilOwned(member: Member, partitions: number): Promise<readonly Owned[]> {
  const owned = () => [...member.owned.values()].filter(({ next, position }) => next > (position ?? 0));
  await member.untilFrame(() => owned().length === partitions);
  return owned().sort((a, b) => a.partition - b.partition);
}

function ackTo(owned: Owned | undefined, offset: number): AckEntry {
  if (!owned) throw new Error("it owns nothing");
  const { topic, partition, generation } = owned;
  return { topic, partition, generation, offset };
}

function historyOf(place: Place, { name }: WatchedGroup, cause: string): Promise<readonly string[]> {
  return place.sql(
    `SELECT partition, previous_offset, new_offset, cause, actor FROM commit_history
     WHERE group_id = '${name}' AND cause LIKE '${cause}'`,
  );
}
