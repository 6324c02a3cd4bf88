import { describe, expect, test } from "bun:test";
import type { GroupPartition, GroupPicture, Ownership } from "../../src/core/group-picture.ts";
import { newsOf, type ToldOwnerships, tellOwnership, untoldMetadata } from "../../src/core/ownership.ts";
import { memberOf, partitionOf, pictureOf, topicOf } from "../support/group-picture.ts";

const ID = 70_000;
const METADATA = new Map([[ID, "m"]]);
const NOTHING = { gained: [], revoked: [], lost: [] };
const OWNED: Ownership = { memberId: "a", generation: 5, revokeInMs: null, reset: null };

/** Orders 0, in the picture as it is. */
const owned = (owner: Ownership | null, about: Partial<GroupPartition> = {}) => [
  partitionOf({ ...about, owner }),
];

/** What member "a" is told of one picture after the other. */
function tell(...pictures: readonly (readonly GroupPartition[])[]) {
  const told: ToldOwnerships = new Map();
  return pictures.map((partitions) => tellNext(told, pictureOf(["a", "b"], partitions)));
}

function tellNext(told: ToldOwnerships, picture: GroupPicture, member = memberOf("a")) {
  return tellOwnership(told, member, { ...newsOf(picture), metadata: METADATA });
}

/** What it is told last. */
const last = (...pictures: readonly (readonly GroupPartition[])[]) => tell(...pictures).at(-1);

describe("tellOwnership()", () => {
  test("says all that there is to know of a gained partition", () => {
    expect(last(owned(OWNED, { hasMetadata: true }))).toEqual({
      gained: [
        {
          topic: "orders",
          topicId: 7,
          partition: 0,
          partitionId: ID,
          generation: 5,
          committedOffset: 60,
          metadata: "m",
          logStartOffset: 40,
          logEndOffset: 100,
          reset: null,
          unplaced: null,
        },
      ],
      revoked: [],
      lost: [],
    });
  });

  test("names the policy that gave a gained partition its place", () => {
    const reset = { ago: 5 };
    expect(last(owned({ ...OWNED, reset }))?.gained).toMatchObject([{ reset, unplaced: null }]);
  });

  test("says of a gained partition that the policy none leaves it without a place", () => {
    const told: ToldOwnerships = new Map();
    const member = memberOf("a", { policies: { missing: "none", outOfRange: "latest" } });
    const partitions = [
      partitionOf({ owner: OWNED, committedOffset: null }),
      partitionOf({ owner: OWNED, partition: 1, committedOffset: 0 }),
      partitionOf({ owner: OWNED, partition: 2 }),
    ];
    const { gained } = tellNext(told, pictureOf([member], partitions), member);
    expect(gained.map(({ unplaced }) => unplaced?.code)).toEqual([
      "no_committed_offset",
      undefined,
      undefined,
    ]);
  });

  test("says nothing twice", () => {
    const revoked = owned({ ...OWNED, revokeInMs: 5_000 });
    const told = tell(owned(OWNED), owned(OWNED), revoked, revoked, owned(null), owned(null));
    expect([told[1], told[3], told[5]]).toEqual([NOTHING, NOTHING, NOTHING]);
  });

  test("says nothing of others, of what nobody owns, nor of offsets that moved", () => {
    const before = [...topicOf("orders", ["a", "b", null]), ...topicOf("refunds", ["b~"])];
    const after = topicOf("orders", ["a", null, "b"], { committedOffset: 90, logEndOffset: 120 });
    const [first, second] = tell(before, after);
    expect(first).toMatchObject({ gained: [{ topic: "orders", partition: 0 }], revoked: [], lost: [] });
    expect(second).toEqual(NOTHING);
  });

  test("says of a revoked partition how long it stays", () => {
    expect(last(owned(OWNED), owned({ ...OWNED, revokeInMs: 4_321 }))).toEqual({
      ...NOTHING,
      revoked: [{ partitionId: ID, generation: 5, deadlineMs: 4_321 }],
    });
  });

  test.each([0, -1, -60_000])("says 0 where the deadline is over, by %d ms", (revokeInMs) => {
    expect(last(owned(OWNED), owned({ ...OWNED, revokeInMs }))?.revoked).toMatchObject([{ deadlineMs: 0 }]);
  });

  test("says of a partition that was gained and is revoked by now both", () => {
    expect(last(owned({ ...OWNED, revokeInMs: 100 }))).toMatchObject({
      gained: [{ partitionId: ID, generation: 5 }],
      revoked: [{ partitionId: ID, generation: 5, deadlineMs: 100 }],
      lost: [],
    });
  });

  test.each<[string, Ownership | null]>([
    ["is free", null],
    ["is another member's", { ...OWNED, memberId: "b", generation: 6 }],
    ["is revoked from another member", { ...OWNED, memberId: "b", generation: 6, revokeInMs: 9 }],
  ])("a partition that %s is lost by a rebalance, in the generation that it had", (_, owner) => {
    const lost = [{ partitionId: ID, generation: 5, reason: "rebalance" as const }];
    expect(last(owned(OWNED), owned(owner))).toEqual({ ...NOTHING, lost });
    expect(last(owned({ ...OWNED, revokeInMs: 9 }), owned(owner))).toEqual({ ...NOTHING, lost });
  });

  test("a partition that is not there any more is lost with its topic", () => {
    const lost = [{ partitionId: ID, generation: 5, reason: "topic_deleted" as const }];
    expect(last(owned(OWNED), [])).toEqual({ ...NOTHING, lost });
  });

  test("a topic created again is lost and gained: its partitions are others", () => {
    const again = owned({ ...OWNED, generation: 6 }, { topicId: 17, topicIdSeen: 17 });
    expect(last(owned(OWNED), again)).toMatchObject({
      gained: [{ topicId: 17, partition: 0, generation: 6 }],
      lost: [{ partitionId: ID, generation: 5, reason: "topic_deleted" }],
    });
  });

  test("a partition in a new generation is gained, not lost: by a reset, or lost and gained meanwhile", () => {
    const [, change] = tell(owned(OWNED), owned({ ...OWNED, generation: 6 }, { committedOffset: 40 }));
    expect(change).toMatchObject({ gained: [{ generation: 6, committedOffset: 40 }], revoked: [], lost: [] });
  });

  test("a partition that is revoked in the next generation too is revoked again", () => {
    const change = last(
      owned({ ...OWNED, revokeInMs: 9 }),
      owned({ ...OWNED, generation: 6, revokeInMs: 5_000 }),
    );
    expect(change).toMatchObject({
      gained: [{ generation: 6 }],
      revoked: [{ generation: 6, deadlineMs: 5_000 }],
    });
  });

  test("a partition that was lost and comes back is gained anew", () => {
    expect(last(owned(OWNED), owned(null), owned({ ...OWNED, generation: 9 }))).toMatchObject({
      gained: [{ generation: 9 }],
      lost: [],
    });
  });

  test("leaves in `told` what the member has, and nothing else", () => {
    const told: ToldOwnerships = new Map();
    tellNext(told, pictureOf(["a"], topicOf("orders", ["a", "a~", "b", null])));
    expect([...told]).toEqual([
      [70_000, { generation: 100, isRevoked: false }],
      [70_001, { generation: 101, isRevoked: true }],
    ]);
    tellNext(told, pictureOf(["a"], topicOf("orders", [null, "a~", "b", null])));
    expect([...told.keys()]).toEqual([70_001]);
  });

  test("of many partitions says each thing of each", () => {
    const before = [...topicOf("orders", ["a", "a", "a", "b"]), ...topicOf("refunds", ["a"])];
    const after = topicOf("orders", ["a", "a~", "b", "a"]);
    expect(last(before, after)).toMatchObject({
      gained: [{ partition: 3, generation: 103 }],
      revoked: [{ partitionId: 70_001 }],
      lost: [
        { partitionId: 70_002, reason: "rebalance" },
        { partitionId: 80_000, reason: "topic_deleted" },
      ],
    });
  });
});

describe("untoldMetadata()", () => {
  test("names what is gained with metadata, until it is told", () => {
    const partitions = [
      partitionOf({ owner: OWNED, hasMetadata: true }),
      partitionOf({ owner: OWNED, partition: 1 }),
      partitionOf({ owner: { ...OWNED, memberId: "b" }, partition: 2, hasMetadata: true }),
      partitionOf({ owner: null, partition: 3, hasMetadata: true }),
    ];
    const picture = pictureOf(["a", "b"], partitions);
    const told: ToldOwnerships = new Map();
    expect(untoldMetadata(told, memberOf("a"), newsOf(picture))).toEqual([ID]);
    tellNext(told, picture);
    expect(untoldMetadata(told, memberOf("a"), newsOf(picture))).toEqual([]);
  });
});
