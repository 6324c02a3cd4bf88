import { describe, expect, test } from "bun:test";
import type { GroupPartition } from "../../src/core/group-picture.ts";
import { neededTime, type Start, startOf, unplacedOf } from "../../src/core/starts.ts";
import type { ResetPolicies, ResetPolicy } from "../../src/protocol/places.ts";
import { NEW_TOPIC, partitionOf } from "../support/group-picture.ts";

// Of partitionOf() the log holds [40, 100), and the group has seen three partitions of the topic.

const MISSING = { committedOffset: null };
const TOPIC_CREATED_AGAIN = { committedOffset: null, topicIdSeen: 6 };
const NEW_PARTITION = { committedOffset: null, partition: 3 };
const AGO = { ago: 60_000 };
const AT = { timestamp: 5 };

const both = (policy: ResetPolicy): ResetPolicies => ({ missing: policy, outOfRange: policy });

describe("startOf()", () => {
  test.each([40, 41, 60, 99, 100])(
    "committed %d in [40, 100) stays there, whatever the policies",
    (offset) => {
      for (const policy of ["earliest", "latest", "none", AGO, AT] as const) {
        for (const about of [{}, NEW_TOPIC, NEW_PARTITION, TOPIC_CREATED_AGAIN]) {
          const partition = partitionOf({ ...about, committedOffset: offset });
          expect(startOf(partition, both(policy))).toEqual({ kind: "committed" });
        }
      }
    },
  );

  const places: readonly [policy: ResetPolicy, to: number][] = [
    ["earliest", 40],
    ["latest", 100],
    [AGO, 77],
    [AT, 77],
  ];
  const lost: readonly [title: string, about: Partial<GroupPartition>, reason: keyof ResetPolicies][] = [
    ["nothing committed in a topic that the group knows", MISSING, "missing"],
    ["nothing committed in a topic that is new to the group", NEW_TOPIC, "missing"],
    ["committed one below the log", { committedOffset: 39 }, "outOfRange"],
    ["committed 0", { committedOffset: 0 }, "outOfRange"],
    ["committed one above the log", { committedOffset: 101 }, "outOfRange"],
    ["committed far above the log", { committedOffset: Number.MAX_SAFE_INTEGER }, "outOfRange"],
    ["out of range in a topic that is new to it", { ...NEW_TOPIC, committedOffset: 0 }, "outOfRange"],
    ["out of range in a new partition", { ...NEW_PARTITION, committedOffset: 0 }, "outOfRange"],
  ];
  for (const [title, about, reason] of lost) {
    for (const [policy, to] of places) {
      test(`${title}, ${JSON.stringify(policy)}: starts at ${to}`, () => {
        const partition = partitionOf(about);
        const times = new Map([[partition.partitionId, 77]]);
        const start = startOf(partition, { ...both("none"), [reason]: policy }, times);
        expect(start).toMatchObject({
          kind: "reset",
          topic: "orders",
          partition: partition.partition,
          partitionId: partition.partitionId,
          from: partition.committedOffset,
          to,
          policy,
        });
      });
    }

    test(`${title}, "none": has no place`, () => {
      const partition = partitionOf(about);
      const code = reason === "missing" ? "no_committed_offset" : "offset_out_of_range";
      expect(startOf(partition, { ...both("earliest"), [reason]: "none" })).toMatchObject({
        kind: "unplaced",
        topic: "orders",
        partition: partition.partition,
        partitionId: partition.partitionId,
        code,
      });
    });
  }

  for (const [title, about] of [
    ["a partition that is new in a topic that the group knows", NEW_PARTITION],
    ["a partition of a topic created again", TOPIC_CREATED_AGAIN],
    [
      "one of more partitions than it had, of a topic created again",
      { ...TOPIC_CREATED_AGAIN, partition: 9 },
    ],
  ] as const) {
    test.each<ResetPolicy>(["earliest", "latest", "none", AGO, AT])(
      `${title} starts at its beginning though the policy is %j`,
      (policy) => {
        const start = startOf(partitionOf(about), both(policy));
        expect(start).toMatchObject({ kind: "reset", from: null, to: 40, policy: "earliest" });
      },
    );
  }

  test("the last partition that the group has seen is not a new one, the next is", () => {
    const startOfPartition = (partition: number) =>
      startOf(partitionOf({ ...MISSING, partition }), both("latest"));
    expect(startOfPartition(2)).toMatchObject({ to: 100, policy: "latest" });
    expect(startOfPartition(3)).toMatchObject({ to: 40, policy: "earliest" });
  });

  test("an empty log has one place, whatever the policy", () => {
    const empty = partitionOf({ ...MISSING, logStartOffset: 7, logEndOffset: 7 });
    for (const policy of ["earliest", "latest"] as const)
      expect(startOf(empty, both(policy))).toMatchObject({ to: 7, policy });
    expect(startOf({ ...empty, committedOffset: 7 }, both("none"))).toEqual({ kind: "committed" });
  });

  test("leads into the log, though it has moved since a time was looked up", () => {
    const partition = partitionOf(MISSING);
    const placeAt = (offset: number) =>
      startOf(partition, both(AGO), new Map([[partition.partitionId, offset]]));
    expect(placeAt(39)).toMatchObject({ to: 40 });
    expect(placeAt(101)).toMatchObject({ to: 100 });
  });

  test("does not go on without a time that nobody looked up", () => {
    expect(() => startOf(partitionOf(MISSING), both(AGO))).toThrow("not looked up");
  });

  test.each<[string, Partial<GroupPartition>, ResetPolicy]>([
    ["missing: latest", MISSING, "latest"],
    ["missing: ago 60000 ms", MISSING, AGO],
    ["outOfRange: timestamp 5", { committedOffset: 5 }, AT],
    ["new partition: earliest", NEW_PARTITION, "latest"],
  ])("says in the history why it reset: %s", (cause, about, policy) => {
    const partition = partitionOf(about);
    const start = startOf(partition, both(policy), new Map([[partition.partitionId, 50]]));
    expect(causeOf(start)).toBe(cause);
  });

  test("says of what has no place where it is, what is missing and what the log holds", () => {
    const missing = messageOf(startOf(partitionOf(MISSING), both("none")));
    const outOfRange = messageOf(startOf(partitionOf({ committedOffset: 5 }), both("none")));
    for (const message of [missing, outOfRange])
      for (const fact of ['"orders"', "partition 0", '"none"', "[40, 100)"]) expect(message).toContain(fact);
    expect(outOfRange).toContain("committed offset 5");
    expect(missing).toContain("no committed offset");
  });
});

const causeOf = (start: Start) => (start.kind === "reset" ? start.cause : undefined);
const messageOf = (start: Start) => (start.kind === "unplaced" ? start.message : undefined);

describe("unplacedOf()", () => {
  test("is what startOf() says of a partition without a place", () => {
    for (const about of [MISSING, NEW_TOPIC, { committedOffset: 0 }]) {
      const partition = partitionOf(about);
      const unplaced = unplacedOf(partition, both("none"));
      expect(startOf(partition, both("none"))).toEqual({ kind: "unplaced", ...unplaced } as Start);
    }
  });

  test.each<[string, Partial<GroupPartition>, ResetPolicies]>([
    ["the committed offset is usable", {}, both("none")],
    ["it is new in a topic that the group knows", NEW_PARTITION, both("none")],
    ["the topic was created again", TOPIC_CREATED_AGAIN, both("none")],
    ["only the other policy is none", MISSING, { missing: "earliest", outOfRange: "none" }],
    ["only the other policy is none", { committedOffset: 0 }, { missing: "none", outOfRange: AGO }],
  ])("is null where %s", (_, about, policies) => {
    expect(unplacedOf(partitionOf(about), policies)).toBeNull();
  });
});

describe("neededTime()", () => {
  const byTime = { missing: AGO, outOfRange: AT };

  test.each<[string, Partial<GroupPartition>, object | undefined]>([
    ["without a committed offset", MISSING, AGO],
    ["in a topic that is new to the group", NEW_TOPIC, AGO],
    ["committed below the log", { committedOffset: 39 }, AT],
    ["committed above the log", { committedOffset: 101 }, AT],
    ["committed inside the log", {}, undefined],
    ["that is new in a topic that the group knows", NEW_PARTITION, undefined],
    ["of a topic created again", TOPIC_CREATED_AGAIN, undefined],
  ])("of a partition %s", (_, about, place) => {
    expect<unknown>(neededTime(partitionOf(about), byTime)).toEqual(place);
  });

  test.each(["earliest", "latest", "none"] as const)("is none where the policy is %s", (policy) => {
    expect(neededTime(partitionOf(MISSING), both(policy))).toBeUndefined();
    expect(neededTime(partitionOf({ committedOffset: 0 }), both(policy))).toBeUndefined();
  });
});
