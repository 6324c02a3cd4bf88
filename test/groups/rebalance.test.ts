// Who owns what while members, partitions and topics come and go, on several servers at once. What must hold at every
// moment is judged by the ledger of the group with every frame that any member receives.

import { expect, setDefaultTimeout, test } from "bun:test";
import { describePlaces, type Place } from "../support/cluster.ts";
import { StreamClient } from "../support/stream-client.ts";
import { keyOf, type Member, WatchedGroup } from "./member.ts";

setDefaultTimeout(30_000); // where the machine has much else to do

describePlaces("a rebalance", (place) => {
  test("of members that come and go everywhere at once loses nothing and gives nothing to two", async () => {
    const partitionCount = 12;
    const topic = await place().newTopic({ partitionCount });
    await using group = new WatchedGroup(place().newGroup(), [topic]);
    await using producer = new Producer(place(), topic, partitionCount);
    let members: readonly Member[] = [];
    for (const { joining, leaving } of [
      { joining: 6, leaving: 0 },
      { joining: 3, leaving: 3 },
      { joining: 0, leaving: 4 },
      { joining: 5, leaving: 1 },
      { joining: 2, leaving: 5 },
    ]) {
      const [goers, stayers] = [members.slice(0, leaving), members.slice(leaving)];
      const [joined] = await Promise.all([
        Promise.all(range(joining).map((n) => group.join(place().server(n)))),
        ...goers.map((member, n) => goAway(group, member, place().server(n + 1))),
      ]);
      members = [
        ...stayers,
        ...joined,
        ...[...group.members].filter((member) => !stayers.includes(member) && !joined.includes(member)),
      ];
      await group.untilBalanced(partitionCount);
    }
    const produced = await producer.stop();
    expect(Math.min(...produced)).toBeGreaterThan(0);

    await untilAllAcked(group, topic, produced);
    expect(await place().committedOffsets(group.name, topic)).toEqual(produced);
    await untilAgreed(place(), group);
    expect(group.ledger.judge()).toEqual([]);
  }, 20_000);

  test("waits for the owner on another server to acknowledge what it has, or to release it", async () => {
    const topic = await place().newTopic({ partitionCount: 4, records: 5 });
    await using group = new WatchedGroup(place().newGroup(), [topic]);
    const first = await group.join(place().server(0), { acks: false });
    await group.until(() => [...first.owned.values()].every(({ next }) => next === 5), "all sent");
    const held = new Map([...first.owned.values()].map((owned) => [owned.partition, owned]));
    const second = await group.join(place().server(1));
    const { partitions, reason, deadlineMs } = await first.until("revoked");
    expect([reason, partitions.length, second.owned.size]).toEqual(["rebalance", 2, 0]);
    expect(deadlineMs).toBeGreaterThan(3_000);

    const [acked, released] = partitions;
    if (!acked || !released) throw new Error("two were revoked");
    const { offsets } = await first.untilAcked(first.ack({ ...acked, offset: 5 }));
    expect(offsets).toEqual([{ topic, partition: acked.partition, offset: 5 }]);
    await group.until(() => second.owned.size === 1, "one handed over");
    expect(second.owned.get(keyOf(acked))).toMatchObject({ position: 5, committedOffset: 5 });
    first.client.send({ type: "release", partitions: [{ topic, partition: released.partition }] });
    await group.until(() => second.owned.size === 2, "two handed over");
    expect(second.owned.get(keyOf(released))).toMatchObject({ position: 0, committedOffset: 0 });

    const late = partitions.map((partition) => ({ ...partition, offset: 5 }));
    const refused = await first.untilAcked(first.ack(...late));
    expect(refused.offsets.map(({ code }) => code)).toEqual(["fenced_generation", "fenced_generation"]);
    for (const owned of first.owned.values())
      expect(owned.generation).toBe(held.get(owned.partition)?.generation ?? 0);
    expect(group.ledger.judge()).toEqual([]);
  });

  test("fences who goes on acknowledging what it has lost", async () => {
    const topic = await place().newTopic({ partitionCount: 4 });
    await using group = new WatchedGroup(place().newGroup(), [topic]);
    await using producer = new Producer(place(), topic, 4);
    const first = await group.join(place().server(0));
    const lost = [...first.owned.values()];
    for (let round = 0; round < 6; round += 1) {
      const other = await group.join(place().server(1));
      await group.untilBalanced(4);
      // The old generations, with all that anybody was sent.
      const acks = lost.map(({ partition, generation }) => ({
        ...{ topic, partition, generation },
        offset: group.ledger.delivered(keyOf({ topic, partition })),
      }));
      const kept = new Set([...first.owned.values()].map(({ generation }) => generation));
      const { offsets } = await first.untilAcked(first.ack(...acks));
      for (const [index, { code }] of offsets.entries())
        expect(code === undefined).toBe(kept.has(acks[index]?.generation ?? 0));
      await group.leave(other);
      await group.untilBalanced(4);
    }
    const produced = await producer.stop();
    await untilAllAcked(group, topic, produced);
    expect(group.ledger.judge()).toEqual([]);
  }, 20_000);

  test("gives partitions that are added to members on other servers, from their beginning", async () => {
    const topic = await place().newTopic({ partitionCount: 2 });
    await using group = new WatchedGroup(place().newGroup(), [topic]);
    const options = { reset: "latest", acks: true } as const;
    const members = await Promise.all([1, 2].map((n) => group.join(place().server(n), options)));
    await group.untilBalanced(2);
    const before = members.map(({ owned }) => [...owned.values()].map(({ generation }) => generation));

    await place().http(0).createTopic(topic, 6);
    for (const partition of range(6)) await place().http(0).produceNumbers(topic, 3, partition);
    await group.untilBalanced(6);
    await untilAllAcked(group, topic, Array(6).fill(3));
    for (const [index, { owned }] of members.entries()) {
      const generations = [...owned.values()].map(({ generation }) => generation);
      expect(generations).toEqual(expect.arrayContaining(before[index] ?? []));
    }
    expect(await place().committedOffsets(group.name, topic)).toEqual([3, 3, 3, 3, 3, 3]);
    await untilAgreed(place(), group);
    expect(group.ledger.judge()).toEqual([]);
  });

  test("of members of different topic lists shares each topic among those that want it", async () => {
    const [first, second, third] = [
      await place().newTopic({ partitionCount: 4 }),
      await place().newTopic({ partitionCount: 4 }),
      await place().newTopic({ partitionCount: 3 }),
    ];
    await using group = new WatchedGroup(place().newGroup(), []);
    const [a, b, c] = await Promise.all([
      group.join(place().server(0), { topics: [first] }),
      group.join(place().server(1), { topics: [first, second] }),
      group.join(place().server(2), { topics: [second, third] }),
    ]);
    if (!a || !b || !c) throw new Error("three joined");
    const sharesOf = (topic: string) =>
      [a, b, c].map(({ owned }) => [...owned.values()].filter((each) => each.topic === topic).length);
    const all = () => [first, second, third].map(sharesOf);
    const isShared = (shares: readonly (readonly number[])[]) => Bun.deepEquals(all(), shares);
    await group.until(
      () =>
        isShared([
          [2, 2, 0],
          [0, 2, 2],
          [0, 0, 3],
        ]),
      "shared by three",
    );

    await group.leave(b);
    await group.until(
      () =>
        isShared([
          [4, 0, 0],
          [0, 0, 4],
          [0, 0, 3],
        ]),
      "shared by two",
    );
    await untilAgreed(place(), group);
    expect(group.ledger.judge()).toEqual([]);
    await group.close(a, c);
    const left = () => place().sql(`SELECT member_id FROM group_members WHERE group_id = '${group.name}'`);
    await untilIs(left, []);
  });

  test("of a topic that is deleted and created again through another server reaches members and readers", async () => {
    const topic = await place().newTopic({ partitionCount: 2, records: 5 });
    await using group = new WatchedGroup(place().newGroup(), [topic]);
    const members = await Promise.all([0, 1].map((n) => group.join(place().server(n))));
    await group.untilBalanced(2);
    await untilAllAcked(group, topic, [5, 5]);
    const old = members.flatMap(({ owned }) => [...owned.values()]);
    const reader = await StreamClient.open(place().server(0).streamUrl, { patienceMs: 4_000 });
    reader.send({ type: "subscribe", topics: [topic], from: "earliest" });
    await reader.expect("subscribed");
    const { partitions: readBefore } = await reader.expect("assigned");
    await reader.expectRecords(10);

    expect((await place().http(2).call("DELETE", `/v1/topics/${topic}`)).status).toBe(204);
    for (const member of members)
      await member.untilFrame(
        (frame) => frame.type === "revoked" && frame.reason === "topic_deleted" && frame.deadlineMs === 0,
      );
    expect(await reader.expect("revoked")).toMatchObject({ reason: "topic_deleted", deadlineMs: 0 });
    await group.until(() => group.isBalanced(0), "nothing owned");
    await place().http(2).createTopic(topic, 2);
    for (const partition of [0, 1]) await place().http(2).produceNumbers(topic, 3, partition);
    await group.untilBalanced(2);
    for (const { owned } of members) {
      const [now] = [...owned.values()];
      expect(now).toMatchObject({ position: 0, committedOffset: 0 });
      expect(now?.topicId).not.toBe(readBefore[0]?.topicId);
      expect(now?.generation).toBeGreaterThan(Math.max(...old.map(({ generation }) => generation)));
    }
    const { partitions: readAfter } = await reader.expect("assigned");
    expect(readAfter).toMatchObject([
      { partition: 0, position: 0 },
      { partition: 1, position: 0 },
    ]);
    await reader.expectRecords(6);
    await untilIs(() => place().committedOffsets(group.name, topic), [3, 3]);
    const [{ partition = 0, generation = 0 } = {}] = old;
    const { offsets } = (await members[0]?.untilAcked(
      members[0].ack({ topic, partition, generation, offset: 5 }),
    )) ?? { offsets: [] };
    expect(offsets).toMatchObject([{ offset: 3, code: "fenced_generation" }]);
    expect(group.ledger.violations).toEqual([]);
    await reader.close();
  });

  test("of 100 members on 100 partitions gives each of them one", async () => {
    const topic = await place().newTopic({ partitionCount: 100 });
    await using group = new WatchedGroup(place().newGroup(), [topic]);
    await Promise.all(range(100).map((n) => group.join(place().server(n % 2))));
    await group.untilBalanced(100, 10_000);
    await untilAgreed(place(), group);
    for (const partition of range(100)) await place().http(2).produceNumbers(topic, 1, partition);
    await untilAllAcked(group, topic, Array(100).fill(1));
    expect([...group.members].map(({ owned }) => owned.size)).toEqual(Array(100).fill(1));
    expect(group.ledger.judge()).toEqual([]);
  }, 20_000);

  test("of 200 groups of one member each gives each of them all", async () => {
    const topic = await place().newTopic({ partitionCount: 2, records: 2 });
    const groups = range(200).map(() => new WatchedGroup(place().newGroup(), [topic]));
    await Promise.all(groups.map((group, n) => group.join(place().server(n % 2))));
    for (const group of groups) {
      await group.untilBalanced(2);
      await untilAllAcked(group, topic, [2, 2]);
      expect(group.ledger.judge()).toEqual([]);
    }
    const lines = await place().sql(
      `SELECT count(*), min(committed_offset) FROM consumer_lag WHERE topic = '${topic}'`,
    );
    expect(lines).toEqual(["400|2"]);
    await Promise.all(groups.map((group) => group.close(...group.members)));
  }, 20_000);
});

// ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Appends to all partitions through all servers, one batch after the other, until it is stopped. */
class Producer implements AsyncDisposable {
  readonly #produced: number[];
  #isStopped = false;
  readonly #done: Promise<void>;

  constructor(place: Place, topic: string, partitionCount: number) {
    this.#produced = Array(partitionCount).fill(0);
    this.#done = this.#run(place, topic);
  }

  /** How many records each partition has got. */
  async stop(): Promise<readonly number[]> {
    this.#isStopped = true;
    await this.#done;
    return this.#produced;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #run(place: Place, topic: string): Promise<void> {
    for (let batch = 0; !this.#isStopped; batch += 1) {
      const records = this.#produced.map((value, partition) => ({ value, partition }));
      await place.http(batch).produce(topic, records);
      for (const partition of this.#produced.keys())
        this.#produced[partition] = (this.#produced[partition] ?? 0) + 1;
    }
  }
}

/** In one of the ways there are, in turn; by a take-over somebody else stays in its place. */
async function goAway(
  group: WatchedGroup,
  member: Member,
  elsewhere: { readonly streamUrl: string },
): Promise<void> {
  const way = member.memberId.charCodeAt(0) % 3;
  if (way === 0) return group.leave(member);
  if (way === 1) return group.close(member);
  await group.join(elsewhere, { memberId: member.memberId });
  await member.until("unsubscribed");
  await group.close(member);
}

function untilAllAcked(group: WatchedGroup, topic: string, produced: readonly number[]): Promise<void> {
  const { ledger } = group;
  const isAcked = () =>
    produced.every((count, partition) => ledger.acked(keyOf({ topic, partition })) === count);
  const found = () => produced.map((_, partition) => ledger.acked(keyOf({ topic, partition })));
  return group.signal.until(isAcked, () => `acked ${found()} of ${produced}`, 8_000);
}

/** The database says what the members were told: nothing is left to do. */
async function untilAgreed(place: Place, group: WatchedGroup): Promise<void> {
  const owners = () =>
    place.sql(
      `SELECT topic, partition, member_id, generation FROM consumer_lag
       WHERE group_id = '${group.name}' AND member_id IS NOT NULL`,
    );
  expect((await owners()).toSorted()).toEqual([...group.ownerLines()]);
  expect(
    await place.sql(
      `SELECT * FROM assignments WHERE group_id = '${group.name}' AND revoke_deadline IS NOT NULL`,
    ),
  ).toEqual([]);
}

/** What was sent to the server is written soon after. */
async function untilIs(look: () => Promise<readonly unknown[]>, wanted: readonly unknown[]): Promise<void> {
  let found = await look();
  for (let looks = 0; looks < 500 && !Bun.deepEquals(found, wanted); looks += 1) found = await look();
  expect(found).toEqual(wanted);
}

function range(count: number): readonly number[] {
  return Array.from({ length: count }, (_, n) => n);
}
