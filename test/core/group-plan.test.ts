import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { GroupChange } from "../../src/core/group-change.ts";
import type { GroupMember, GroupPartition, GroupPicture, JoinRequest } from "../../src/core/group-picture.ts";
import { type GroupPlan, isIdle, planGroup, policyResets, timesNeededBy } from "../../src/core/group-plan.ts";
import { GROUP_BYTES_MAX, PARTITIONS_PER_SUBSCRIPTION_MAX } from "../../src/protocol/limits.ts";
import {
  anyHistory,
  checkBalance,
  checkNothingMovedAndCameBack,
  play,
  settle,
  TOPICS,
  takeTurn,
} from "../support/group-history.ts";
import {
  applyPlan,
  joinOf,
  leaveOf,
  memberOf,
  NEW_TOPIC,
  NO_GROUP,
  partitionOf,
  pictureOf,
  releaseOf,
  stallOf,
  topicOf,
} from "../support/group-picture.ts";

const plan = (picture: GroupPicture, ...changes: readonly GroupChange[]) =>
  planGroup(picture, changes, { mayExpire: true });

const nameOf = ({ topic, partition }: GroupPartition) => `${topic}/${partition}`;

/** What moves: who gains which partitions, which are revoked, which are freed. */
function movesOf(picture: GroupPicture, { gains, revokedPartitionIds, freedPartitionIds }: GroupPlan) {
  const names = new Map(picture.partitions.map((partition) => [partition.partitionId, nameOf(partition)]));
  const gained: Record<string, string> = {};
  for (const { partition, member } of gains) gained[nameOf(partition)] = member.memberId;
  const namesOf = (ids: readonly number[]) => ids.map((id) => names.get(id));
  return { gained, revoked: namesOf(revokedPartitionIds), freed: namesOf(freedPartitionIds) };
}

const moves = (picture: GroupPicture, ...changes: readonly GroupChange[]) =>
  movesOf(picture, plan(picture, ...changes));

const NO_MOVES = { gained: {}, revoked: [], freed: [] };

/** How many partitions of a topic each member gains. */
function sharesOf({ gains }: GroupPlan, topic: string): Readonly<Record<string, number>> {
  const shares: Record<string, number> = {};
  for (const { partition, member } of gains)
    if (partition.topic === topic) shares[member.memberId] = (shares[member.memberId] ?? 0) + 1;
  return shares;
}

describe("a join", () => {
  test("of a group that is not there gets everything", () => {
    const picture = {
      ...NO_GROUP,
      partitions: [...topicOf("orders", [null, null], NEW_TOPIC), ...topicOf("refunds", [null], NEW_TOPIC)],
    };
    const join = joinOf("a", { topics: ["orders", "refunds"] });
    const planned = plan(picture, join);
    expect(movesOf(picture, planned)).toEqual({
      ...NO_MOVES,
      gained: { "orders/0": "a", "orders/1": "a", "refunds/0": "a" },
    });
    expect(planned).toMatchObject({ joins: [{ change: join, request: join.request, memberId: "a" }] });
    expect(planned.endedMemberIds).toEqual([]);
  });

  test("gets nothing of a topic that it did not ask for, though the picture has it", () => {
    const picture = pictureOf([], [...topicOf("orders", [null]), ...topicOf("refunds", [null])]);
    expect(moves(picture, joinOf("a"))).toEqual({ ...NO_MOVES, gained: { "orders/0": "a" } });
  });

  test("beside an owner of everything: only what moves is revoked, and nothing is gained", () => {
    const picture = pictureOf(["a"], topicOf("orders", ["a", "a", "a", "a", "a"]));
    expect(moves(picture, joinOf("b"))).toEqual({ ...NO_MOVES, revoked: ["orders/3", "orders/4"] });
  });

  test("does not move what is on its way already", () => {
    const picture = pictureOf(["a", "b"], topicOf("orders", ["a", "a", "a", "a~", "a~", "a~"]));
    expect(moves(picture, joinOf("c"))).toEqual({ ...NO_MOVES, revoked: ["orders/2"] });
  });

  test("does not move the rest of an owner for what it is letting go", () => {
    const picture = pictureOf(["a", "b"], topicOf("orders", ["a~", "a"]));
    expect(moves(picture, joinOf("c"))).toEqual(NO_MOVES);
  });

  test("of more members than there are partitions moves nothing", () => {
    const picture = pictureOf(["a", "b"], topicOf("orders", ["b", "a"]));
    expect(moves(picture, joinOf("c"), joinOf("d"))).toEqual(NO_MOVES);
    expect(plan(picture, joinOf("c")).joins).toHaveLength(1);
  });

  test("is balanced in each topic, among those that subscribe to it", () => {
    const picture = pictureOf(
      [memberOf("a", { topics: ["orders", "refunds"] })],
      [...topicOf("orders", ["a", "a", "a", "a"]), ...topicOf("refunds", ["a", "a"])],
    );
    expect(moves(picture, joinOf("b"), joinOf("c", { topics: ["refunds"] }))).toEqual({
      ...NO_MOVES,
      revoked: ["orders/2", "orders/3", "refunds/1"],
    });
  });
});

describe("several joins decided together", () => {
  const two = [...topicOf("orders", Array(7).fill(null)), ...topicOf("refunds", Array(4).fill(null))];
  const topics = ["orders", "refunds"];

  test("share everything at once: each partition one owner, each topic in balance", () => {
    const picture = { ...NO_GROUP, partitions: two };
    const joins = ["a", "b", "c"].map((memberId) => joinOf(memberId, { topics }));
    const planned = plan(picture, ...joins);
    expect(planned.joins.map(({ memberId }) => memberId)).toEqual(["a", "b", "c"]);
    expect(planned.gains.map(({ partition }) => nameOf(partition)).sort()).toEqual(two.map(nameOf).sort());
    expect(Object.values(sharesOf(planned, "orders")).sort()).toEqual([2, 2, 3]);
    expect(Object.values(sharesOf(planned, "refunds")).sort()).toEqual([1, 1, 2]);
  });

  test("get what they subscribe to", () => {
    const planned = plan(
      { ...NO_GROUP, partitions: two },
      joinOf("a", { topics: ["orders"] }),
      joinOf("b", { topics: ["refunds"] }),
      joinOf("c", { topics }),
    );
    expect([sharesOf(planned, "orders"), sharesOf(planned, "refunds")]).toEqual([
      { a: 4, c: 3 },
      { b: 2, c: 2 },
    ]);
  });

  test("each bring their own policies", () => {
    const planned = plan(
      { ...NO_GROUP, partitions: topicOf("orders", [null, null], NEW_TOPIC) },
      joinOf("a"),
      joinOf("b", { policies: { missing: "latest", outOfRange: "none" } }),
    );
    expect(
      policyResets(planned, new Map()).map(({ partition, memberId, to }) => [partition, memberId, to]),
    ).toEqual([
      [0, "a", 40],
      [1, "b", 100],
    ]);
  });
});

describe("a partition that is being revoked", () => {
  const partitions = topicOf("orders", ["a", "a~"]);
  const picture = pictureOf(["a", "b"], partitions);
  const passed = { ...NO_MOVES, gained: { "orders/1": "b" } };
  const revokeIn = (revokeInMs: number) =>
    pictureOf(
      ["a", "b"],
      partitions.map((each) =>
        each.owner?.revokeInMs ? { ...each, owner: { ...each.owner, revokeInMs } } : each,
      ),
    );

  test("stays where it is until then", () => {
    expect(moves(picture)).toEqual(NO_MOVES);
    expect(moves(revokeIn(1))).toEqual(NO_MOVES);
    expect(isIdle(plan(picture))).toBe(true);
  });

  test("goes on when its owner lets it go", () => {
    expect(moves(picture, releaseOf("a", partitions.slice(1)))).toEqual(passed);
  });

  test.each([0, -1])("goes on when the deadline is over (%d ms)", (revokeInMs) => {
    expect(moves(revokeIn(revokeInMs))).toEqual(passed);
  });

  test("goes on at its deadline though leases may not run out", () => {
    const planned = planGroup(revokeIn(0), [], { mayExpire: false });
    expect(movesOf(picture, planned)).toEqual(passed);
  });

  test("goes on when its owner leaves", () => {
    expect(moves(picture, leaveOf("a"))).toEqual({
      ...NO_MOVES,
      gained: { "orders/0": "b", "orders/1": "b" },
    });
  });

  test("goes on when its owner's lease is over, and stays while leases may not run out", () => {
    const expired = pictureOf([memberOf("a", { expiresInMs: 0 }), "b"], partitions);
    expect(moves(expired).gained).toEqual({ "orders/0": "b", "orders/1": "b" });
    expect(movesOf(expired, planGroup(expired, [], { mayExpire: false }))).toEqual(NO_MOVES);
  });

  test("is gone at once when its owner stalls", () => {
    expect(moves(picture, stallOf("a", partitions.slice(1))).gained).toEqual({ "orders/1": "b" });
  });

  test("goes on when its owner is taken over: it does not pass with what stays", () => {
    expect(moves(picture, joinOf("a2", { memberId: "a" })).gained).toEqual({
      "orders/0": "a",
      "orders/1": "b",
    });
  });

  test("comes back, in a new generation, when whom it was to go to has left", () => {
    expect(moves(picture, leaveOf("b"))).toEqual(NO_MOVES);
    const alone = pictureOf(["a"], partitions);
    expect(moves(alone, releaseOf("a", partitions.slice(1))).gained).toEqual({ "orders/1": "a" });
  });

  test.each<[string, GroupChange]>([
    [
      "a release of an older generation",
      releaseOf("a", [
        {
          ...partitionOf({ partition: 1 }),
          owner: { memberId: "a", generation: 100, revokeInMs: 1, reset: null },
        },
      ]),
    ],
    ["a release by another member", releaseOf("b", partitions.slice(1))],
    ["a release of the other partition", releaseOf("a", partitions.slice(0, 1))],
    ["a leave of an older membership", leaveOf("a", 0)],
  ])("is not let go by %s", (_, change) => {
    expect(moves(picture, change)).toEqual(NO_MOVES);
    expect(isIdle(plan(picture, change))).toBe(true);
  });
});

describe("a leave", () => {
  test("gives what the member had to the others at once, and moves nothing else", () => {
    const picture = pictureOf(["a", "b", "c"], topicOf("orders", ["a", "b", "c", "a", "b", "c"]));
    const planned = plan(picture, leaveOf("b"));
    expect(movesOf(picture, planned)).toEqual({ ...NO_MOVES, gained: { "orders/1": "a", "orders/4": "c" } });
    expect(planned).toMatchObject({ endedMemberIds: ["b"], expiredMemberIds: [] });
  });

  test.each([0, 2])("of another membership of the same member (%d, not 1) does nothing", (membership) => {
    const picture = pictureOf(["a", "b"], topicOf("orders", ["a", "b"]));
    expect(isIdle(plan(picture, leaveOf("a", membership)))).toBe(true);
  });

  test("of one who is not there does nothing", () => {
    expect(isIdle(plan(pictureOf(["a"], topicOf("orders", ["a"])), leaveOf("b")))).toBe(true);
    expect(isIdle(plan(NO_GROUP, leaveOf("b")))).toBe(true);
  });

  test("of the last that subscribes to a topic frees its partitions", () => {
    const picture = pictureOf(
      ["a", memberOf("b", { topics: ["refunds"] })],
      [...topicOf("orders", ["a", "a~", null]), ...topicOf("refunds", ["b"])],
    );
    expect(moves(picture, leaveOf("a"))).toEqual({ ...NO_MOVES, freed: ["orders/0", "orders/1"] });
  });

  test("of everybody together frees everything, and each ends once", () => {
    const picture = pictureOf(["a", "b"], topicOf("orders", ["a", "b"]));
    const planned = plan(picture, leaveOf("a"), leaveOf("b"), leaveOf("a"));
    expect(planned.endedMemberIds).toEqual(["a", "b"]);
    expect(movesOf(picture, planned)).toEqual({ ...NO_MOVES, freed: ["orders/0", "orders/1"] });
  });

  test("together with a join leaves the leaver's partitions to the newcomer", () => {
    const picture = pictureOf(["a", "b"], topicOf("orders", ["a", "b"]));
    expect(moves(picture, leaveOf("a"), joinOf("c"))).toEqual({ ...NO_MOVES, gained: { "orders/0": "c" } });
  });

  for (const order of ["leave first", "join first"]) {
    test(`and a join of the same member, decided together (${order}): it is the takeover that it would have been`, () => {
      const picture = pictureOf(["a", "b"], topicOf("orders", ["a", "b"]));
      const join = joinOf("new", { memberId: "a" });
      const changes = order === "leave first" ? [leaveOf("a"), join] : [join, leaveOf("a")];
      const planned = plan(picture, ...changes);
      expect(planned).toMatchObject({ joins: [{ memberId: "a" }], endedMemberIds: ["a"] });
      expect(movesOf(picture, planned)).toEqual({ ...NO_MOVES, gained: { "orders/0": "a" } });
    });
  }
});

describe("a takeover", () => {
  const partitions = topicOf("orders", ["a", "b", "a", "b", "a"]);
  const gained = (memberId: string) => ({ "orders/0": memberId, "orders/2": memberId, "orders/4": memberId });
  const a = memberOf("a", { instanceId: "tab-7" });
  const takeovers: readonly (readonly [
    title: string,
    request: Partial<JoinRequest>,
    memberId: string,
    member?: GroupMember,
  ])[] = [
    ["by its memberId: it is that member", { memberId: "a" }, "a"],
    ["by its memberId where it is static", { memberId: "a" }, "a", a],
    ["by its instanceId: it is another member", { instanceId: "tab-7" }, "new", a],
    ["by both", { memberId: "a", instanceId: "tab-7" }, "a", a],
    ["by its memberId, with an instanceId that is new", { memberId: "a", instanceId: "tab-9" }, "a"],
    [
      "by its instanceId, with a memberId that nobody has",
      { memberId: "gone", instanceId: "tab-7" },
      "new",
      a,
    ],
    ["by its memberId though its lease is over", { memberId: "a" }, "a", { ...a, expiresInMs: -1 }],
  ];
  test.each(takeovers)(
    "%s. Its partitions pass in new generations, nobody else is moved",
    (_, request, memberId, member = memberOf("a")) => {
      const picture = pictureOf([member, "b"], partitions);
      const planned = plan(picture, joinOf("new", request));
      expect(movesOf(picture, planned)).toEqual({ ...NO_MOVES, gained: gained(memberId) });
      expect(planned.endedMemberIds).toEqual(["a"]);
      expect(planned.joins.map((join) => join.memberId)).toEqual([memberId]);
    },
  );

  test.each<[string, Partial<JoinRequest>]>([
    ["no name", {}],
    ["a memberId that is not there", { memberId: "c" }],
    ["an instanceId that is not there", { instanceId: "tab-8" }],
    ["an instanceId that is another's memberId", { instanceId: "a" }],
    ["a memberId that is another's instanceId", { memberId: "tab-7" }],
  ])("is not a join with %s: it is a new member, and nobody ends", (_, request) => {
    const planned = plan(pictureOf([a, "b"], partitions), joinOf("new", request));
    expect(planned).toMatchObject({ joins: [{ memberId: "new" }], endedMemberIds: [], gains: [] });
  });

  test("of two members by one join, one by each name: it has what both had, and the rest is balanced", () => {
    const members = [memberOf("a"), memberOf("b", { instanceId: "tab-7" }), "c"];
    const picture = pictureOf(members, topicOf("orders", ["a", "b", "c"]));
    const planned = plan(picture, joinOf("new", { memberId: "a", instanceId: "tab-7" }));
    expect(planned.joins.map(({ memberId }) => memberId)).toEqual(["a"]);
    expect([...planned.endedMemberIds].sort()).toEqual(["a", "b"]);
    expect(movesOf(picture, planned)).toEqual({ ...NO_MOVES, gained: { "orders/0": "a", "orders/1": "a" } });
  });

  test("of one member by two joins, one by each name: both are members, and share what it had", () => {
    const picture = pictureOf([a], topicOf("orders", ["a", "a"]));
    const planned = plan(picture, joinOf("n1", { memberId: "a" }), joinOf("n2", { instanceId: "tab-7" }));
    expect(planned.joins.map(({ memberId }) => memberId)).toEqual(["a", "n2"]);
    expect(planned.endedMemberIds).toEqual(["a"]);
    expect(sharesOf(planned, "orders")).toEqual({ a: 1, n2: 1 });
  });

  test("with other topics leaves those that it no longer has to others, or to nobody", () => {
    const topics = ["orders", "refunds", "visits"];
    const picture = pictureOf(
      [memberOf("a", { topics }), memberOf("b", { topics: ["refunds"] })],
      [...topicOf("orders", ["a"]), ...topicOf("refunds", ["a", "b"]), ...topicOf("visits", ["a"])],
    );
    expect(moves(picture, joinOf("new", { memberId: "a" }))).toEqual({
      gained: { "orders/0": "a", "refunds/0": "b" },
      revoked: [],
      freed: ["visits/0"],
    });
  });
});

describe("a lease that is over", () => {
  const expired = memberOf("a", { expiresInMs: 0 });
  const picture = pictureOf([expired, "b"], topicOf("orders", ["a", "b", "a"]));

  test("ends the member, and the others have what it had", () => {
    const planned = plan(picture);
    expect(planned).toMatchObject({ endedMemberIds: ["a"], expiredMemberIds: ["a"] });
    expect(movesOf(picture, planned)).toEqual({ ...NO_MOVES, gained: { "orders/0": "b", "orders/2": "b" } });
  });

  test("ends nobody while leases may have run out through no fault of their members", () => {
    const planned = planGroup(picture, [joinOf("c")], { mayExpire: false });
    expect(planned).toMatchObject({ endedMemberIds: [], expiredMemberIds: [], gains: [] });
    expect(isIdle(planGroup(picture, [], { mayExpire: false }))).toBe(true);
  });

  test("ends nobody a millisecond before", () => {
    const alive = pictureOf([memberOf("a", { expiresInMs: 1 }), "b"], picture.partitions);
    expect(isIdle(plan(alive))).toBe(true);
  });

  test("of the last member frees what it had", () => {
    expect(moves(pictureOf([expired], topicOf("orders", ["a"])))).toEqual({
      ...NO_MOVES,
      freed: ["orders/0"],
    });
  });

  test("of one who leaves and is taken over as well ends it once", () => {
    const planned = plan(picture, leaveOf("a"), joinOf("new", { memberId: "a" }));
    expect(planned).toMatchObject({ endedMemberIds: ["a"], expiredMemberIds: ["a"] });
  });
});

describe("a topic", () => {
  test("that has grown: its new partitions go to who has fewest of it, and nothing moves", () => {
    const picture = pictureOf(
      ["a", "b"],
      topicOf("orders", ["a", "a", "b", null, null], { partitionsSeen: 3 }),
    );
    const planned = plan(picture);
    expect(movesOf(picture, planned).revoked).toEqual([]);
    expect(sharesOf(planned, "orders")).toEqual({ a: 1, b: 1 });
  });

  test("that is gone is nobody's any more, without a plan", () => {
    const both = memberOf("a", { topics: ["orders", "refunds"] });
    expect(isIdle(plan(pictureOf([both], topicOf("orders", ["a"]))))).toBe(true);
    expect(isIdle(plan(pictureOf([both], [])))).toBe(true);
  });

  test("that was created again goes to its subscribers, from its beginning", () => {
    const about = { topicId: 17, topicIdSeen: 7, partitionsSeen: 2, committedOffset: null };
    const latest = memberOf("a", { policies: { missing: "latest", outOfRange: "latest" } });
    const planned = plan(pictureOf([latest], topicOf("orders", [null, null, null], about)));
    expect(policyResets(planned, new Map()).map(({ to }) => to)).toEqual([40, 40, 40]);
    expect(planned.topicsSeen).toEqual([{ topic: "orders", topicId: 17, partitions: 3 }]);
  });

  test("that nobody subscribes to stays without owners", () => {
    expect(isIdle(plan(pictureOf(["a"], [...topicOf("orders", ["a"]), ...topicOf("refunds", [null])])))).toBe(
      true,
    );
  });

  test("whose owner is not in the group any more goes to who is", () => {
    const partitions = topicOf("orders", ["gone", "gone~"]);
    expect(moves(pictureOf(["a"], partitions)).gained).toEqual({ "orders/0": "a", "orders/1": "a" });
    expect(moves(pictureOf([], partitions)).freed).toEqual(["orders/0", "orders/1"]);
  });
});

describe("a stall", () => {
  const partitions = topicOf("orders", ["a", "b", "a", "b"]);
  const picture = pictureOf(["a", "b"], partitions);
  const stalled = [partitions[0], partitions[2]].flatMap((each) => each ?? []);

  test("gives the partition to another member at once, whatever the balance, and moves nothing else", () => {
    expect(moves(picture, stallOf("a", stalled))).toEqual({
      ...NO_MOVES,
      gained: { "orders/0": "b", "orders/2": "b" },
    });
  });

  test("is not undone by the next plan", () => {
    const stored = applyPlan({ picture, last: 1_000 }, plan(picture, stallOf("a", stalled)));
    expect(isIdle(plan(stored.picture))).toBe(true);
  });

  test("leaves the balance to the next that joins or leaves, though that one has nothing", () => {
    const uneven = pictureOf(["a", "b", "c"], topicOf("orders", ["b", "b", "b", "c"]));
    expect(moves(uneven)).toEqual(NO_MOVES);
    expect(moves(uneven, leaveOf("a"))).toEqual({ ...NO_MOVES, revoked: ["orders/2"] });
  });

  test("gives several partitions to several others", () => {
    const three = pictureOf(["a", "b", "c"], topicOf("orders", ["a", "a"]));
    expect(sharesOf(plan(three, stallOf("a", three.partitions)), "orders")).toEqual({ b: 1, c: 1 });
  });

  test("of the only member gives it the partition again, in a new generation", () => {
    const alone = pictureOf(["a"], topicOf("orders", ["a", "a"]));
    expect(moves(alone, stallOf("a", alone.partitions.slice(1)))).toEqual({
      ...NO_MOVES,
      gained: { "orders/1": "a" },
    });
  });

  test("gives nothing to a member that does not subscribe to the topic", () => {
    const others = pictureOf(["a", memberOf("b", { topics: ["refunds"] })], topicOf("orders", ["a"]));
    expect(moves(others, stallOf("a", others.partitions)).gained).toEqual({ "orders/0": "a" });
  });

  test("gives nothing to a member that leaves at the same time", () => {
    expect(moves(picture, stallOf("a", stalled), leaveOf("b")).gained).toMatchObject({ "orders/0": "a" });
  });

  test("does not come back to who stalled because somebody joins at the same time", () => {
    const two = pictureOf(["a", "b"], topicOf("orders", ["b", "b", "a", "a"]));
    const { gained } = moves(two, stallOf("a", two.partitions.slice(2)), joinOf("c"));
    expect(Object.keys(gained)).toEqual(["orders/2", "orders/3"]);
    for (const memberId of Object.values(gained)) expect(memberId).not.toBe("a");
  });

  test.each<[string, GroupChange]>([
    [
      "of an older generation",
      stallOf("a", [
        partitionOf({ owner: { memberId: "a", generation: 99, revokeInMs: null, reset: null } }),
      ]),
    ],
    ["of another's partition", stallOf("a", partitions.slice(1, 2))],
    ["of a partition that nobody has", stallOf("a", [partitionOf({ partition: 9 })])],
  ])("%s does nothing", (_, change) => {
    expect(isIdle(plan(picture, change))).toBe(true);
  });
});

test("a release of a partition that is not being revoked does nothing", () => {
  const picture = pictureOf(["a"], topicOf("orders", ["a"]));
  expect(isIdle(plan(picture, releaseOf("a", picture.partitions)))).toBe(true);
});

describe("a refused join", () => {
  const picture = pictureOf(["a"], topicOf("orders", ["a", "a"]));
  const nope = joinOf("n", { topics: ["orders", "nope"], memberId: "a" });

  test("names the topic that is not there", () => {
    const { refusals } = plan(picture, nope);
    expect(refusals.get(nope)).toMatchObject({ code: "unknown_topic", facts: { topic: "nope" } });
    expect(refusals.get(nope)?.message).toContain('"nope"');
    expect(refusals.get(nope)?.message).toContain('"billing"');
  });

  test("takes nothing over, and alone is nothing to write", () => {
    const planned = plan(picture, nope);
    expect(planned).toMatchObject({ joins: [], endedMemberIds: [] });
    expect(isIdle(planned)).toBe(true);
    expect(isIdle(plan(NO_GROUP, nope))).toBe(true);
  });

  test("does not spoil what is decided with it", () => {
    const good = joinOf("b");
    const planned = plan(picture, nope, good, joinOf("m", { topics: ["refunds"] }));
    expect(planned.joins.map(({ change }) => change)).toEqual([good]);
    expect(planned.refusals.size).toBe(2);
    expect(movesOf(picture, planned).revoked).toEqual(["orders/1"]);
  });

  test("is one of too many partitions, from one above the limit", () => {
    const topics = Array.from({ length: 10 }, (_, index) => `t${index}`);
    const atLimit = topics.flatMap((topic, index) =>
      topicOf(topic, Array(PARTITIONS_PER_SUBSCRIPTION_MAX / 10).fill(null), { topicId: 100 + index }),
    );
    const full = { ...NO_GROUP, partitions: [...atLimit, ...topicOf("orders", [null])] };
    const [most, tooMany] = [joinOf("a", { topics }), joinOf("b", { topics: [...topics, "orders"] })];
    const { joins, refusals, gains } = plan(full, most, tooMany);
    expect(joins.map(({ memberId }) => memberId)).toEqual(["a"]);
    expect(gains).toHaveLength(PARTITIONS_PER_SUBSCRIPTION_MAX);
    const facts = { found: PARTITIONS_PER_SUBSCRIPTION_MAX + 1, allowed: PARTITIONS_PER_SUBSCRIPTION_MAX };
    expect(refusals.get(tooMany)).toMatchObject({ code: "bad_request", facts });
    for (const count of Object.values(facts)) expect(refusals.get(tooMany)?.message).toContain(`${count}`);
  });
});

describe("a join that was written before", () => {
  const a = memberOf("a", { membership: 7 });
  const picture = pictureOf([a, "b"], topicOf("orders", ["a", "b"]));

  test("is the member that it became, and plans nothing", () => {
    const join = joinOf("a");
    const planned = plan(picture, join);
    expect([...planned.joinedBefore]).toEqual([[join, a]]);
    expect(isIdle(planned)).toBe(true);
  });

  test("is not refused though its topic has gone since, nor takes over again", () => {
    const join = joinOf("a", { topics: ["nope"], memberId: "b", instanceId: "tab-7" });
    const planned = plan(picture, join);
    expect(planned.refusals.size).toBe(0);
    expect(planned.joinedBefore.get(join)).toEqual(a);
    expect(isIdle(planned)).toBe(true);
  });

  test("does not keep others from joining", () => {
    expect(plan(picture, joinOf("a"), joinOf("c")).joins.map(({ memberId }) => memberId)).toEqual(["c"]);
  });
});

describe("topicsSeen", () => {
  const seenOf = (about: Partial<GroupPartition>, owners: readonly (string | null)[] = [null, null]) =>
    plan(pictureOf(["a"], topicOf("orders", owners, about))).topicsSeen;
  const now = [{ topic: "orders", topicId: 7, partitions: 2 }];

  test("notes a topic that is new to the group", () => expect(seenOf(NEW_TOPIC)).toEqual(now));
  test("notes one that has grown", () => expect(seenOf({ partitionsSeen: 1 }, ["a", null])).toEqual(now));
  test("notes one created again", () => expect(seenOf({ topicIdSeen: 6, partitionsSeen: 2 })).toEqual(now));
  test("notes one created again with fewer partitions", () =>
    expect(seenOf({ topicIdSeen: 6, partitionsSeen: 5 })).toEqual(now));
  test("notes nothing that the group knows", () => expect(seenOf({})).toEqual([]));

  test("notes nothing that nobody gets a partition of", () => {
    const refunds = topicOf("refunds", [null], NEW_TOPIC);
    const picture = pictureOf(["a"], [...topicOf("orders", ["a"]), ...refunds]);
    expect(plan(picture, joinOf("b")).topicsSeen).toEqual([]);
  });

  test("notes each topic of a first join", () => {
    const partitions = [
      ...topicOf("orders", [null, null], NEW_TOPIC),
      ...topicOf("refunds", [null], NEW_TOPIC),
    ];
    const join = joinOf("a", { topics: ["refunds", "orders"] });
    expect(plan({ ...NO_GROUP, partitions }, join).topicsSeen).toEqual([
      ...now,
      { topic: "refunds", topicId: 8, partitions: 1 },
    ]);
  });
});

describe("policies", () => {
  const partitions = [
    partitionOf({ partition: 0 }),
    partitionOf({ partition: 1, committedOffset: null }),
    partitionOf({ partition: 2, committedOffset: 5 }),
  ];

  test("reset what is gained and has no usable offset, for its new owner", () => {
    const planned = plan(
      pictureOf([memberOf("a", { policies: { missing: "latest", outOfRange: "earliest" } })], partitions),
    );
    expect(policyResets(planned, new Map())).toMatchObject([
      { partition: 1, from: null, to: 100, policy: "latest", cause: "missing: latest", memberId: "a" },
      { partition: 2, from: 5, to: 40, policy: "earliest", cause: "outOfRange: earliest", memberId: "a" },
    ]);
  });

  test("reset nothing that stays, nothing that is revoked and nothing by none", () => {
    const owned = topicOf("orders", ["a", "a", "a~"], { committedOffset: null });
    const staying = plan(pictureOf(["a"], owned), joinOf("b"), joinOf("c"));
    expect(staying.revokedPartitionIds).toHaveLength(1);
    expect(policyResets(staying, new Map())).toEqual([]);
    const none = memberOf("a", { policies: { missing: "none", outOfRange: "none" } });
    expect(policyResets(plan(pictureOf([none], partitions)), new Map())).toEqual([]);
  });

  test("of a takeover are the new subscription's", () => {
    const picture = pictureOf(["a"], topicOf("orders", ["a"], { committedOffset: 5 }));
    const latest = { missing: "latest", outOfRange: "latest" } as const;
    const planned = plan(picture, joinOf("new", { memberId: "a", policies: latest }));
    expect(policyResets(planned, new Map())).toMatchObject([{ from: 5, to: 100, memberId: "a" }]);
  });

  test("by time name what is to be looked up, and lead there", () => {
    const policies = { missing: { ago: 5 }, outOfRange: { timestamp: 9 } };
    const planned = plan(pictureOf([memberOf("a", { policies })], partitions));
    expect<unknown>(timesNeededBy(planned)).toEqual([
      { partitionId: 70_001, place: { ago: 5 } },
      { partitionId: 70_002, place: { timestamp: 9 } },
    ]);
    const times = new Map([
      [70_001, 77],
      [70_002, 88],
    ]);
    expect(policyResets(planned, times).map(({ to }) => to)).toEqual([77, 88]);
  });

  test("that are not by time need none", () => {
    expect(timesNeededBy(plan(pictureOf(["a"], partitions)))).toEqual([]);
  });
});

test("isIdle() is a group that is settled, and any member or partition to write is not", () => {
  const settled = pictureOf(["a", "b"], topicOf("orders", ["a", "b", "a"]));
  expect(isIdle(plan(settled))).toBe(true);
  expect(isIdle(plan(NO_GROUP))).toBe(true);
  const idle = plan(settled);
  const [join] = plan(settled, joinOf("c")).joins;
  const [gain] = plan(settled, leaveOf("a")).gains;
  const busy: readonly Partial<GroupPlan>[] = [
    { joins: join ? [join] : [] },
    { gains: gain ? [gain] : [] },
    { endedMemberIds: ["a"] },
    { revokedPartitionIds: [70_000] },
    { freedPartitionIds: [70_000] },
  ];
  for (const part of busy) expect(isIdle({ ...idle, ...part })).toBe(false);
});

// ── any history of a group ───────────────────────────────────────────────────────────────────────────────

/** The decisions of a plan, in an order of their own. */
function decisionsOf({
  gains,
  joins,
  endedMemberIds,
  revokedPartitionIds,
  freedPartitionIds,
  topicsSeen,
}: GroupPlan) {
  return {
    gains: gains.map(({ partition, member }) => `${partition.partitionId} ${member.memberId}`).sort(),
    joins: joins.map(({ memberId }) => memberId),
    ended: [...endedMemberIds].sort(),
    revoked: [...revokedPartitionIds].sort(),
    freed: [...freedPartitionIds].sort(),
    seen: topicsSeen.map((seen) => JSON.stringify(seen)).sort(),
  };
}

describe("any history of a group", () => {
  const runs = { numRuns: 300 };

  test("without stalls: after every step it settles in balance, and moves nothing to and fro", () => {
    fc.assert(
      fc.property(anyHistory({ withStalls: false }), (history) => {
        play(history, (world) => {
          const settled = settle(world);
          checkBalance(settled);
          checkNothingMovedAndCameBack(world, settled);
          expect(settled.picture.partitions.every(({ owner }) => !owner || owner.revokeInMs === null)).toBe(
            true,
          );
        });
      }),
      runs,
    );
  });

  test("with stalls: after every step it settles, and the next join that gets through brings the balance back", () => {
    fc.assert(
      fc.property(anyHistory({ withStalls: true }), (history) => {
        play(history, (world) => {
          const settled = settle(world);
          const joined = takeTurn(settled, [joinOf("last", { topics: ["orders"] })], true);
          if (joined !== settled) checkBalance(settle(joined));
        });
      }),
      runs,
    );
  });

  test("a stalled partition goes to another member wherever another subscribes to its topic", () => {
    fc.assert(
      fc.property(anyHistory({ withStalls: false }), fc.nat(9), (history, pick) => {
        play(history, (world) => {
          const kept = world.picture.partitions.filter(({ owner }) => owner?.revokeInMs === null);
          const stalled = kept[pick % kept.length];
          if (!stalled?.owner) return;
          const { memberId } = stalled.owner;
          const stall = stallOf(memberId, [stalled]);
          const { members, partitions } = takeTurn(world, [stall, joinOf("new")], false).picture;
          const others = members.filter(
            (each) => each.memberId !== memberId && each.topics.includes(stalled.topic),
          );
          const now = partitions.find(({ partitionId }) => partitionId === stalled.partitionId)?.owner;
          expect(now?.memberId === memberId).toBe(others.length === 0);
        });
      }),
      runs,
    );
  });

  test("a takeover of a settled group gives the member all that it had, and moves nobody else", () => {
    fc.assert(
      fc.property(anyHistory({ withStalls: false }), fc.nat(5), (history, pick) => {
        play(history, (world) => {
          const { picture } = settle(world);
          const { members, partitions } = picture;
          const member = members[pick % members.length];
          if (!member) return;
          const { memberId, topics } = member;
          // Of a topic that is gone a join is refused.
          if (!topics.every((topic) => partitions.some((each) => each.topic === topic))) return;
          for (const instanceId of [undefined, member.instanceId ?? undefined]) {
            const names = instanceId === undefined ? { memberId } : { instanceId };
            const planned = plan(picture, joinOf("new", { topics, ...names }));
            const owned = partitions.filter(({ owner }) => owner?.memberId === memberId);
            expect(planned.gains.map(({ partition }) => partition)).toEqual(owned);
            expect(planned.revokedPartitionIds).toEqual([]);
            expect(planned.freedPartitionIds).toEqual([]);
          }
        });
      }),
      runs,
    );
  });

  test("gives the same plan for the same picture, in whatever order its members and partitions come", () => {
    fc.assert(
      fc.property(anyHistory({ withStalls: false }), fc.infiniteStream(fc.nat(99)), (history, random) => {
        const shuffled = <T>(list: readonly T[]): readonly T[] =>
          list
            .map((each) => ({ each, rank: random.next().value }))
            .sort((a, b) => a.rank - b.rank)
            .map(({ each }) => each);
        play(history, ({ picture }) => {
          const { members, partitions } = picture;
          const other = { ...picture, members: shuffled(members), partitions: shuffled(partitions) };
          const joins = [
            joinOf("new", { instanceId: "t1" }),
            joinOf("newer", { topics: TOPICS.slice(0, 2) }),
          ];
          for (const changes of [[], joins]) {
            const expected = planGroup(picture, changes, { mayExpire: true });
            expect(planGroup(picture, changes, { mayExpire: true })).toEqual(expected);
            expect(decisionsOf(planGroup(other, changes, { mayExpire: true }))).toEqual(
              decisionsOf(expected),
            );
          }
        });
      }),
      runs,
    );
  });
});

describe("a join of a group that is large", () => {
  const longName = (index: number) => `${String(index).padStart(3, "0")}${"x".repeat(246)}`;
  const names = Array.from({ length: 100 }, (_, index) => longName(index));
  const partitions = names.map((topic, index) => partitionOf({ topic, topicId: 100 + index }));
  /** 100 topics of 249 characters, and 400 bytes for the member. */
  const BYTES_EACH = 400 + 100 * (249 + 3);
  const most = Math.floor(GROUP_BYTES_MAX / BYTES_EACH);
  const groupOf = (count: number) =>
    pictureOf(
      Array.from({ length: count }, (_, index) => memberOf(`m${index}`, { topics: names })),
      partitions,
    );

  test("is taken while the database can tell of all members at once", () => {
    const { joins, refusals } = plan(groupOf(most - 1), joinOf("last", { topics: names }));
    expect([joins.length, refusals.size]).toEqual([1, 0]);
  });

  test("and above that is a conflict that says what it takes", () => {
    const { joins, refusals } = plan(groupOf(most), joinOf("last", { topics: names }));
    expect(joins).toEqual([]);
    expect([...refusals.values()]).toMatchObject([
      { code: "conflict", facts: { found: (most + 1) * BYTES_EACH, allowed: GROUP_BYTES_MAX } },
    ]);
  });

  const joinedAndFound = ({ joins, refusals }: GroupPlan) => ({
    joined: joins.map(({ memberId }) => memberId),
    found: [...refusals.values()].map(({ code, facts }) => code === "conflict" && facts.found),
  });
  const judge = (picture: GroupPicture, ...changes: readonly GroupChange[]) =>
    joinedAndFound(plan(picture, ...changes));
  const large = (newMemberId: string, about: Partial<JoinRequest> = {}) =>
    joinOf(newMemberId, { topics: names, ...about });
  const [first = ""] = names;
  const SMALL_BYTES = 400 + 249 + 3;

  describe("that is full", () => {
    const full = groupOf(most);
    const [m0, ...rest] = full.members;
    const withTabs = { ...full, members: m0 ? [{ ...m0, instanceId: "tab-7" }, ...rest] : [] };

    test.each<[string, Partial<JoinRequest>, string]>([
      ["memberId", { memberId: "m0" }, "m0"],
      ["instanceId", { instanceId: "tab-7" }, "new"],
      ["memberId and instanceId", { memberId: "m0", instanceId: "tab-7" }, "m0"],
    ])("takes back who comes by its %s: one place, not two", (_, request, memberId) => {
      expect(judge(withTabs, large("new", request))).toEqual({ joined: [memberId], found: [] });
    });

    test("takes back everybody at once, and nobody else", () => {
      const back = full.members.map(({ memberId }, index) => large(`n${index}`, { memberId }));
      const { joined, found } = judge(full, large("x"), ...back, large("y"));
      expect(joined).toEqual(full.members.map(({ memberId }) => memberId));
      expect(found).toEqual([(most + 1) * BYTES_EACH, (most + 1) * BYTES_EACH]);
    });

    test("refuses who comes back with more than it had and there is room for", () => {
      const small = memberOf("m0", { topics: [first] });
      const picture = { ...full, members: [small, ...rest, memberOf("last", { topics: names.slice(1) })] };
      const found = (most + 1) * BYTES_EACH - 252;
      expect(judge(picture, large("new", { memberId: "m0" }))).toEqual({ joined: [], found: [found] });
    });

    test("gives the room of who comes back with less to those behind it, and to none before it", () => {
      const less = large("n0", { memberId: "m0", topics: [first] });
      const more = large("n1", { topics: names.slice(2) });
      const another = large("n2", { topics: names.slice(2) });
      const MORE_BYTES = BYTES_EACH - 2 * 252;
      const withBoth = (most - 1) * BYTES_EACH + SMALL_BYTES + MORE_BYTES;
      expect(withBoth).toBeLessThan(GROUP_BYTES_MAX);
      expect(judge(full, less, more, another)).toEqual({
        joined: ["m0", "n1"],
        found: [withBoth + MORE_BYTES],
      });
      expect(judge(full, more, less)).toEqual({ joined: ["m0"], found: [most * BYTES_EACH + MORE_BYTES] });
    });

    test("has one place for two joins that take over the same member, one by each name", () => {
      const joins = [large("n0", { memberId: "m0" }), large("n1", { instanceId: "tab-7" })];
      expect(judge(withTabs, ...joins)).toEqual({ joined: ["m0"], found: [(most + 1) * BYTES_EACH] });
    });

    test("does not count a join again that was written before", () => {
      const almostFull = groupOf(most - 1);
      expect(judge(almostFull, large("m0"), large("n1"))).toEqual({ joined: ["n1"], found: [] });
    });
  });

  describe("together with others", () => {
    test("is judged with those that are taken in before it", () => {
      const { joined, found } = judge(groupOf(most - 2), large("a"), large("b"), large("c"), large("d"));
      expect(joined).toEqual(["a", "b"]);
      expect(found).toEqual([(most + 1) * BYTES_EACH, (most + 1) * BYTES_EACH]);
    });

    test("is judged without those that are refused", () => {
      const small = joinOf("b", { topics: [first] });
      const bytes = most * BYTES_EACH + SMALL_BYTES;
      expect(bytes).toBeLessThan(GROUP_BYTES_MAX);
      const unknown = joinOf("c", { topics: ["nope", ...names] });
      const { joins } = plan(groupOf(most), large("a"), unknown, small);
      expect(joins.map(({ memberId }) => memberId)).toEqual(["b"]);
    });
  });

  describe("whose topics have many partitions", () => {
    const wide = names.slice(0, 7);
    const partitionsOfWide = wide.flatMap((topic, index) =>
      topicOf(topic, Array(1_000).fill(null), { topicId: 100 + index }),
    );
    /** A row of each, and its topic's name. */
    const WIDE_BYTES = 1_000 * (350 + 249);
    const six = wide.slice(0, 6);
    const seventh = wide.slice(6);

    test("counts each topic once, and those of refused joins not at all", () => {
      const { joined, found } = judge(
        pictureOf([], partitionsOfWide),
        joinOf("a", { topics: wide }),
        joinOf("b", { topics: six }),
        joinOf("c", { topics: seventh }),
        joinOf("d", { topics: six }),
      );
      expect(joined).toEqual(["b", "d"]);
      expect(found).toEqual([7 * WIDE_BYTES, 7 * WIDE_BYTES]);
    });

    test("does not count a topic any more that its last subscriber has given up", () => {
      const picture = pictureOf([memberOf("a", { topics: six })], partitionsOfWide);
      const joins = [joinOf("n", { memberId: "a", topics: six.slice(1) }), joinOf("c", { topics: seventh })];
      expect(judge(picture, ...joins)).toEqual({ joined: ["a", "c"], found: [] });
    });

    test("is refused to who comes back for another topic that there is no room for", () => {
      const members = ["a", "b"].map((memberId) => memberOf(memberId, { topics: six }));
      const back = joinOf("n", { memberId: "a", topics: wide.slice(1) });
      expect(judge(pictureOf(members, partitionsOfWide), back)).toEqual({
        joined: [],
        found: [7 * WIDE_BYTES],
      });
    });

    test("that have grown too large is taken from who comes back, and from nobody else", () => {
      const picture = pictureOf([memberOf("a", { topics: wide })], partitionsOfWide);
      const back = joinOf("n", { memberId: "a", topics: wide });
      expect(judge(picture, back, joinOf("b", { topics: seventh }))).toEqual({
        joined: ["a"],
        found: [7 * WIDE_BYTES],
      });
    });
  });
});
