// Who is no owner any more changes nothing, whatever it still sends, and wherever it is connected.

import { expect, setDefaultTimeout, test } from "bun:test";
import type { AckEntry } from "../../src/protocol/frames.ts";
import { describePlaces, type Place } from "../support/cluster.ts";
import { keyOf, type Member, type Owned, WatchedGroup } from "./member.ts";

setDefaultTimeout(30_000); // where the machine has much else to do

describePlaces("fencing", (place) => {
  test("an instanceId on two connections belongs to the second, and nobody else is moved", async () => {
    await using group = await newGroup(place(), { partitionCount: 4 });
    const { topic } = group;
    const first = await group.join(place().server(0), { instanceId: "tab-7", acks: false });
    const other = await group.join(place().server(1), { acks: false });
    await group.untilBalanced(4);
    for (const partition of [0, 1, 2, 3]) await place().http(2).produceNumbers(topic, 5, partition);
    const before = await untilRead(first, 2, 5);
    await untilRead(other, 2, 5);
    const othersFrames = other.frames.length;

    const second = await group.join(place().server(2), { instanceId: "tab-7", acks: false });
    expect((await first.until("unsubscribed")).code).toBe("replaced");
    expect(namesOf([...second.owned.values()])).toEqual(namesOf(before));
    expectNewGenerations(second, before);
    await untilRead(second, 2, 5);

    first.client.send({ type: "ack", id: "late", offsets: before.map((owned) => ackTo(owned, 5)) });
    expect(await first.until("error")).toMatchObject({ id: "late", code: "unknown_subscription" });
    const { offsets } = await second.untilAcked(second.ack(...before.map((owned) => ackTo(owned, 5))));
    expect(offsets.map(({ code }) => code)).toEqual(before.map(() => "fenced_generation"));
    expect(await place().committedOffsets(group.name, topic)).toEqual([0, 0, 0, 0]);

    other.client.send({ type: "pong", id: "quiet" });
    await other.until("ok");
    expect(other.frames.slice(othersFrames).map(({ type }) => type)).toEqual(["ok"]);
    expect(group.ledger.judge()).toEqual([]);
  });

  test("an ack that is under way while the membership is taken over counts before it or not at all", async () => {
    await using group = await newGroup(place(), { records: 100 });
    const { topic } = group;
    let holder = await group.join(place().server(0), { instanceId: "i", acks: false });
    for (let round = 1; round <= 8; round += 1) {
      const [owned] = await untilRead(holder, 1, 100);
      const entry = ackTo(owned, round * 10);
      const late = [holder.ack(entry), holder.ack(entry)];
      const successor = await group.join(place().server(round), { instanceId: "i", acks: false });
      await Promise.race([...late.map((id) => holder.untilAcked(id)), holder.until("unsubscribed")]);
      const [now] = [...successor.owned.values()];
      const committed = (await place().committedOffsets(group.name, topic))[0] ?? -1;
      expect(now?.position).toBe(committed);
      holder = successor;
    }
    expect(group.ledger.judge()).toEqual([]);
  });

  test("a memberId takes its membership over from another server", async () => {
    await using group = await newGroup(place(), { partitionCount: 4 });
    const { topic } = group;
    const first = await group.join(place().server(0), { acks: false });
    const other = await group.join(place().server(1));
    await group.untilBalanced(4);
    const before = [...first.owned.values()];
    const { memberId } = first;
    const othersAssigned = other.frames.filter(({ type }) => type === "assigned").length;

    const second = await group.join(place().server(2), { memberId, acks: false });
    expect(second.memberId).toBe(memberId);
    expect((await first.until("unsubscribed")).code).toBe("replaced");
    expect(namesOf([...second.owned.values()])).toEqual(namesOf(before));
    expectNewGenerations(second, before);
    const { offsets } = await second.untilAcked(second.ack(...before.map((owned) => ackTo(owned, 1))));
    expect(offsets.map(({ code }) => code)).toEqual(before.map(() => "fenced_generation"));
    for (const partition of [0, 1, 2, 3]) await place().http(1).produceNumbers(topic, 1, partition);
    await untilRead(second, 2);
    await untilRead(other, 2);
    expect(other.frames.filter(({ type }) => type === "assigned").length).toBe(othersAssigned);
    expect(await membersOf(place(), group)).toEqual([memberId, other.memberId].sort());
    expect(group.ledger.judge()).toEqual([]);
  });

  test.each(["unsubscribe", "close"] as const)(
    "a leave by %s that comes after the membership was taken over does not end the new one",
    async (how) => {
      for (const instanceId of ["i", undefined]) {
        await using group = await newGroup(place());
        const { topic } = group;
        const first = await group.join(place().server(0), { instanceId });
        const taking = group.join(place().server(1), { instanceId, memberId: first.memberId });
        // Once at any moment of the take-over, once when it has happened and the old server may not know.
        if (instanceId === undefined) await taking;
        if (how === "close") await first.close();
        else first.client.send({ type: "unsubscribe", id: "late" });
        const second = await taking;
        if (how === "unsubscribe")
          await first.untilFrame(({ type }) => type === "unsubscribed" || type === "error");
        await place()
          .http(2)
          .produce(topic, [{ value: instanceId ?? "by memberId" }]);
        await second.until("acked");
        expect(await membersOf(place(), group)).toEqual([second.memberId]);
        expect(second.frames.filter(({ type }) => type === "unsubscribed" || type === "revoked")).toEqual([]);
        expect(group.ledger.judge()).toEqual([]);
      }
    },
  );

  test("a leave is done although its member is gone: the same name joins anew", async () => {
    await using group = await newGroup(place());
    const first = await group.join(place().server(0), { instanceId: "i" });
    await group.leave(first);
    const second = await group.join(place().server(1), { memberId: first.memberId, instanceId: "i" });
    expect(second.owned.size).toBe(1);
    expect(group.ledger.judge()).toEqual([]);
  });

  test("an ack on a new socket in an old generation is fenced", async () => {
    await using group = await newGroup(place(), { records: 10 });
    const { topic } = group;
    const first = await group.join(place().server(0), { acks: false });
    const [owned] = await untilRead(first, 1);
    await first.untilAcked(first.ack(ackTo(owned, 3)));
    await group.close(first);

    const second = await group.join(place().server(1), { acks: false });
    await untilRead(second, 1);
    const { offsets } = await second.untilAcked(second.ack(ackTo(owned, 10)));
    expect(offsets).toEqual([{ topic, partition: 0, offset: 3, code: "fenced_generation" }]);
    expect(await place().committedOffsets(group.name, topic)).toEqual([3]);
    expect(group.ledger.judge()).toEqual([]);
  });

  test("an owner that comes back after a takeover is refused its transaction whole, on every server", async () => {
    await using group = await newGroup(place(), { records: 10 });
    const { topic } = group;
    const results = await place().newTopic({});
    const transaction = (owned: Owned | undefined, offset: number, value: string) => ({
      appends: [{ topic: results, records: [{ value }] }],
      commits: { group: group.name, offsets: [ackTo(owned, offset)] },
    });
    const first = await group.join(place().server(0), { acks: false });
    const [lost] = await untilRead(first, 1);
    const second = await group.join(place().server(2), { memberId: first.memberId, acks: false });
    const [owned] = await untilRead(second, 1, 10);

    const fenced = { code: "fenced_generation", topic, partition: 0, generation: lost?.generation };
    first.client.send({ type: "transact", id: "late", ...transaction(lost, 10, "of the first") });
    expect(await first.until("error")).toMatchObject({ ...fenced, id: "late", found: owned?.generation });
    for (const server of [0, 1, 2]) {
      const late = transaction(lost, 10, "of the first");
      const { status, body } = await place().http(server).call("POST", "/v1/transactions", late);
      expect({ status, body }).toMatchObject({ status: 409, body: fenced });
    }
    expect(await place().committedOffsets(group.name, topic)).toEqual([0]);

    second.client.send({ type: "transact", id: "now", ...transaction(owned, 10, "of the second") });
    expect(await second.until("transacted")).toMatchObject({
      runs: [{ topic: results, offset: 0, count: 1 }],
    });
    expect(await place().committedOffsets(group.name, topic)).toEqual([10]);
    expect(await place().sql(`SELECT value FROM topic_records WHERE topic = '${results}'`)).toEqual([
      '"of the second"',
    ]);
  });

  test("a late ack of 550 after a reset from 600 to 0 is fenced, and all is sent again", async () => {
    await using group = await newGroup(place(), { records: 700 });
    const { topic } = group;
    const member = await group.join(place().server(0), { acks: false, window: { records: 10_000 } });
    const [owned] = await untilRead(member, 1, 700);
    await member.untilAcked(member.ack(ackTo(owned, 600)));
    const { status, body } = await place()
      .http(1)
      .call("POST", `/v1/groups/${group.name}/reset`, { topics: [{ topic }], to: { offset: 0 } });
    expect({ status, body }).toEqual({
      status: 200,
      body: { plan: [{ topic, partition: 0, from: 600, to: 0 }], applied: true },
    });

    // Its server may not have told it yet, and may not know itself.
    const { offsets } = await member.untilAcked(member.ack(ackTo(owned, 550)));
    expect(offsets).toEqual([{ topic, partition: 0, offset: 0, code: "fenced_generation" }]);
    const [again] = await untilRead(member, 1, 700, owned?.generation);
    expect(again?.generation).toBeGreaterThan(owned?.generation ?? 0);
    expect(again).toMatchObject({ position: 0, committedOffset: 0 });
    await member.untilAcked(member.ack(ackTo(owned, 700)));
    expect(await place().committedOffsets(group.name, topic)).toEqual([0]);
    await member.untilAcked(member.ack(ackTo(again, 700)));
    expect(await place().committedOffsets(group.name, topic)).toEqual([700]);
    expect(group.ledger.violations).toEqual([]);
  });

  test("a group that is deleted and born again has higher generations, and old acks are fenced", async () => {
    await using group = await newGroup(place(), { partitionCount: 2, records: 10 });
    const { topic } = group;
    const first = await group.join(place().server(0), { acks: false });
    const old = await untilRead(first, 2);
    await first.untilAcked(first.ack(...old.map((owned) => ackTo(owned, 4))));
    expect((await deleteGroup(place(), group)).body.code).toBe("conflict");
    await group.close(first);
    await untilNoMembers(place(), group);
    expect((await deleteGroup(place(), group)).status).toBe(204);
    expect(await place().sql(`SELECT * FROM commit_history WHERE group_id = '${group.name}'`)).toEqual([]);

    await using born = new WatchedGroup(group.name, [topic]);
    const second = await born.join(place().server(2), { acks: false });
    const now = await untilRead(second, 2);
    expect(now).toMatchObject([
      { position: 0, committedOffset: 0, reset: "earliest" },
      { position: 0, committedOffset: 0, reset: "earliest" },
    ]);
    expect(Math.min(...generationsOf(now))).toBeGreaterThan(Math.max(...generationsOf(old)));
    const { offsets } = await second.untilAcked(second.ack(...old.map((owned) => ackTo(owned, 10))));
    expect(offsets).toMatchObject([
      { offset: 0, code: "fenced_generation" },
      { offset: 0, code: "fenced_generation" },
    ]);
    expect(await place().committedOffsets(group.name, topic)).toEqual([0, 0]);
    expect(born.ledger.judge()).toEqual([]);
  });
});

// ─────────────────────────────────────────────────────────────────────────────────────────────────────────

async function newGroup(
  place: Place,
  options: { partitionCount?: number; records?: number } = {},
): Promise<WatchedGroup> {
  return new WatchedGroup(place.newGroup(), [await place.newTopic(options)]);
}

/** What it owns, when it has been sent so many records of each partition, in generations after that one. */
async function untilRead(member: Member, partitions: number, next = 1, after = 0): Promise<readonly Owned[]> {
  const read = () =>
    [...member.owned.values()].filter((owned) => owned.next >= next && owned.generation > after);
  await member.untilFrame(() => read().length === partitions);
  return read().sort((a, b) => a.partition - b.partition);
}

function ackTo(owned: Owned | undefined, offset: number): AckEntry {
  if (!owned) throw new Error("it owns nothing");
  const { topic, partition, generation } = owned;
  return { topic, partition, generation, offset };
}

function expectNewGenerations(member: Member, before: readonly Owned[]): void {
  for (const owned of before)
    expect(member.owned.get(keyOf(owned))?.generation).toBeGreaterThan(owned.generation);
}

function namesOf(partitions: readonly Owned[]): readonly string[] {
  return partitions.map(keyOf).sort();
}

function generationsOf(partitions: readonly Owned[]): readonly number[] {
  return partitions.map(({ generation }) => generation);
}

function deleteGroup(place: Place, { name }: WatchedGroup) {
  return place.http(1).call("DELETE", `/v1/groups/${name}`);
}

function membersOf(place: Place, { name }: WatchedGroup): Promise<readonly string[]> {
  return place.sql(`SELECT member_id FROM group_members WHERE group_id = '${name}' ORDER BY member_id`);
}

/** The leave of a socket that was closed is written soon after. */
async function untilNoMembers(place: Place, group: WatchedGroup): Promise<void> {
  for (let looks = 0; (await membersOf(place, group)).length > 0; looks += 1)
    expect(looks).toBeLessThan(1_000);
}
