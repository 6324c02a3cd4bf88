import { describe, expect, test } from "bun:test";
import {
  type GainRequest,
  type GroupMember,
  type GroupPartition,
  type GroupSnapshot,
  type Joined,
  type JoinedPartition,
  type JoinRequest,
  joinResult,
  neededTimes,
  planGain,
  planJoin,
  startOf,
} from "../../src/core/membership.ts";
import { Problem } from "../../src/core/problem.ts";
import type { ResetPolicy } from "../../src/protocol/places.ts";

/** The log holds [40, 100); the group has seen the topic and its two partitions. */
const partitionOf = (options: Partial<GroupPartition> = {}): GroupPartition => {
  const { partition = 0 } = options;
  return {
    topic: "orders",
    topicId: 7,
    partition,
    partitionId: 70 + partition,
    logStartOffset: 40,
    logEndOffset: 100,
    committedOffset: 60,
    ownerMemberId: null,
    partitionsSeen: 2,
    topicIdSeen: 7,
    ...options,
  };
};

const NEW_TOPIC = { partitionsSeen: 0, topicIdSeen: null };
const TOPIC_CREATED_AGAIN = { partitionsSeen: 2, topicIdSeen: 6 };
const NEW_PARTITION = { partition: 2, partitionId: 72, partitionsSeen: 2 };

const requestOf = (options: Partial<JoinRequest> = {}): JoinRequest => ({
  group: "billing",
  topics: ["orders"],
  memberId: undefined,
  instanceId: undefined,
  newMemberId: "new",
  policies: { missing: "earliest", outOfRange: "earliest" },
  sessionTimeoutMs: 45_000,
  ...options,
});

const snapshotOf = (options: Partial<GroupSnapshot> = {}): GroupSnapshot => ({
  version: 1,
  members: [],
  partitions: [partitionOf()],
  ...options,
});

const memberOf = (options: Partial<GroupMember> = {}): GroupMember => ({
  memberId: "m1",
  membership: 1,
  instanceId: null,
  isExpired: false,
  ...options,
});

const problemOf = (plan: () => unknown): Problem => {
  try {
    plan();
  } catch (error) {
    if (error instanceof Problem) return error;
    throw error;
  }
  throw new Error("nothing was refused");
};

describe("startOf()", () => {
  /** In one topic that the group has seen, and in one that is new to it: the policy decides where it must. */
  const cases: readonly {
    readonly committedOffset: number | null;
    readonly reason: "missing" | "outOfRange" | undefined;
  }[] = [
    { committedOffset: null, reason: "missing" },
    { committedOffset: 0, reason: "outOfRange" },
    { committedOffset: 39, reason: "outOfRange" },
    { committedOffset: 40, reason: undefined },
    { committedOffset: 60, reason: undefined },
    { committedOffset: 100, reason: undefined },
    { committedOffset: 101, reason: "outOfRange" },
    { committedOffset: Number.MAX_SAFE_INTEGER, reason: "outOfRange" },
  ];
  const placeByPolicy = { earliest: 40, latest: 100 } as const;
  const codeByReason = { missing: "no_committed_offset", outOfRange: "offset_out_of_range" } as const;

  for (const { committedOffset, reason } of cases) {
    for (const policy of ["earliest", "latest", "none"] as const) {
      for (const [title, known] of [
        ["a topic that the group knows", {}],
        ["a topic that is new to the group", NEW_TOPIC],
      ] as const) {
        const outcome =
          reason === undefined
            ? "stays there"
            : policy === "none"
              ? "gets no place"
              : `starts at ${placeByPolicy[policy]}`;
        test(`committed ${committedOffset} in [40, 100), ${policy}, ${title}: ${outcome}`, () => {
          const partition = partitionOf({ committedOffset, ...known });
          // The other policy must not count.
          const other: ResetPolicy = policy === "latest" ? "earliest" : "latest";
          const policies =
            reason === "outOfRange"
              ? { missing: other, outOfRange: policy }
              : { missing: policy, outOfRange: other };
          const start = startOf(partition, policies);
          if (reason === undefined) {
            expect(start).toEqual({ kind: "committed" });
          } else if (policy === "none") {
            expect(start).toMatchObject({
              kind: "unplaced",
              topic: "orders",
              partition: 0,
              partitionId: 70,
              code: codeByReason[reason],
            });
          } else {
            expect(start).toMatchObject({
              kind: "reset",
              topic: "orders",
              partition: 0,
              partitionId: 70,
              from: committedOffset,
              to: placeByPolicy[policy],
              policy,
            });
          }
        });
      }
    }
  }

  for (const policy of ["earliest", "latest", "none"] as const) {
    for (const [title, about] of [
      ["a partition new in a topic that the group knows", NEW_PARTITION],
      ["a topic created again", TOPIC_CREATED_AGAIN],
    ] as const) {
      test(`${title} starts at its beginning though the policy is ${policy}`, () => {
        const start = startOf(partitionOf({ committedOffset: null, ...about }), {
          missing: policy,
          outOfRange: policy,
        });
        expect(start).toMatchObject({ kind: "reset", from: null, to: 40, policy: "earliest" });
      });
    }
  }

  test("the last partition that the group has seen is not a new one, the next is", () => {
    const policies = { missing: "latest", outOfRange: "latest" } as const;
    const seen = partitionOf({ partition: 1, committedOffset: null, partitionsSeen: 2 });
    expect(startOf(seen, policies)).toMatchObject({ to: 100, policy: "latest" });
    const unseen = partitionOf({ partition: 2, committedOffset: null, partitionsSeen: 2 });
    expect(startOf(unseen, policies)).toMatchObject({ to: 40, policy: "earliest" });
  });

  test("a partition that is new to the group and was committed from outside stays there", () => {
    const policies = { missing: "latest", outOfRange: "latest" } as const;
    expect(startOf(partitionOf({ committedOffset: 50, ...NEW_PARTITION }), policies)).toEqual({
      kind: "committed",
    });
  });

  test("an empty log has one place, whatever the policy", () => {
    for (const policy of ["earliest", "latest"] as const) {
      const empty = partitionOf({ committedOffset: null, logStartOffset: 7, logEndOffset: 7 });
      expect(startOf(empty, { missing: policy, outOfRange: policy })).toMatchObject({ to: 7, policy });
    }
  });

  test("says what is missing, where, and what the log holds", () => {
    const policies = { missing: "none", outOfRange: "none" } as const;
    const missing = startOf(partitionOf({ committedOffset: null }), policies);
    const outOfRange = startOf(partitionOf({ committedOffset: 5 }), policies);
    for (const start of [missing, outOfRange]) {
      const message = start.kind === "unplaced" ? start.message : "";
      for (const fact of ['"orders"', "partition 0", '"none"', "[40, 100)"]) expect(message).toContain(fact);
    }
    expect(outOfRange).toMatchObject({ message: expect.stringContaining("5") });
  });

  test("each reset says why, and each why is another", () => {
    const policies = { missing: "latest", outOfRange: "latest" } as const;
    const causes = [
      partitionOf({ committedOffset: null }),
      partitionOf({ committedOffset: 5 }),
      partitionOf({ committedOffset: null, ...NEW_PARTITION }),
    ].map((partition) => {
      const start = startOf(partition, policies);
      return start.kind === "reset" ? start.cause : undefined;
    });
    expect(causes).not.toContain(undefined);
    expect(causes).not.toContain("");
    expect(new Set(causes).size).toBe(3);
  });
});

describe("planJoin()", () => {
  test("gives the first member of a group every partition of its topics", () => {
    const partitions = [
      partitionOf({ committedOffset: null, ...NEW_TOPIC }),
      partitionOf({ partition: 1, committedOffset: null, ...NEW_TOPIC }),
      partitionOf({ topic: "refunds", topicId: 8, partitionId: 80, committedOffset: null, ...NEW_TOPIC }),
    ];
    const plan = planJoin(
      requestOf({ topics: ["orders", "refunds"] }),
      snapshotOf({ version: 0, partitions }),
    );
    expect(plan).toMatchObject({
      memberId: "new",
      endedMemberIds: [],
      partitionIds: [70, 71, 80],
      unplaced: [],
      topicsSeen: [
        { topic: "orders", topicId: 7, partitions: 2 },
        { topic: "refunds", topicId: 8, partitions: 1 },
      ],
    });
    expect(plan.resets.map(({ partitionId, to }) => [partitionId, to])).toEqual([
      [70, 40],
      [71, 40],
      [80, 40],
    ]);
  });

  test("resets only where nothing usable is committed, and leaves without a place only by none", () => {
    const partitions = [
      partitionOf({ partition: 0, committedOffset: 60 }),
      partitionOf({ partition: 1, committedOffset: null }),
      partitionOf({ partition: 2, committedOffset: 5, partitionsSeen: 4 }),
      partitionOf({ partition: 3, committedOffset: 500, partitionsSeen: 4 }),
    ];
    const policies = { missing: "none", outOfRange: "latest" } as const;
    const plan = planJoin(requestOf({ policies }), snapshotOf({ partitions }));
    expect(plan.partitionIds).toEqual([70, 71, 72, 73]);
    expect(plan.resets.map(({ partition, from, to }) => [partition, from, to])).toEqual([
      [2, 5, 100],
      [3, 500, 100],
    ]);
    expect(plan.unplaced.map(({ partition, code }) => [partition, code])).toEqual([
      [1, "no_committed_offset"],
    ]);
  });

  test("commits nothing where everything usable is committed", () => {
    const plan = planJoin(requestOf(), snapshotOf());
    expect(plan).toMatchObject({ partitionIds: [70], resets: [], unplaced: [] });
  });

  test("notes a topic created again as the one that the group has seen now", () => {
    const partitions = [0, 1, 2].map((partition) =>
      partitionOf({ partition, committedOffset: null, ...TOPIC_CREATED_AGAIN }),
    );
    const plan = planJoin(requestOf(), snapshotOf({ partitions }));
    expect(plan.topicsSeen).toEqual([{ topic: "orders", topicId: 7, partitions: 3 }]);
  });

  describe("takes over", () => {
    const takeovers: readonly {
      readonly title: string;
      readonly request: Partial<JoinRequest>;
      readonly members: readonly GroupMember[];
      readonly memberId: string;
      readonly endedMemberIds: readonly string[];
    }[] = [
      {
        title: "a live member by its memberId, and is that member",
        request: { memberId: "m1" },
        members: [memberOf()],
        memberId: "m1",
        endedMemberIds: ["m1"],
      },
      {
        title: "a live member by its instanceId",
        request: { instanceId: "tab-7" },
        members: [memberOf({ instanceId: "tab-7" })],
        memberId: "new",
        endedMemberIds: ["m1"],
      },
      {
        title: "a live static member by its memberId",
        request: { memberId: "m1" },
        members: [memberOf({ instanceId: "tab-7" })],
        memberId: "m1",
        endedMemberIds: ["m1"],
      },
      {
        title: "by both names at once",
        request: { memberId: "m1", instanceId: "tab-7" },
        members: [memberOf({ instanceId: "tab-7" })],
        memberId: "m1",
        endedMemberIds: ["m1"],
      },
      {
        title: "an expired member by its memberId",
        request: { memberId: "m1" },
        members: [memberOf({ isExpired: true })],
        memberId: "m1",
        endedMemberIds: ["m1"],
      },
      {
        title: "the member of its instanceId though it names an older memberId",
        request: { memberId: "m0", instanceId: "tab-7" },
        members: [memberOf({ instanceId: "tab-7" })],
        memberId: "new",
        endedMemberIds: ["m1"],
      },
    ];
    for (const { title, request, members, memberId, endedMemberIds } of takeovers) {
      test(title, () => {
        const plan = planJoin(requestOf(request), snapshotOf({ members }));
        expect({ memberId: plan.memberId, endedMemberIds: plan.endedMemberIds }).toEqual({
          memberId,
          endedMemberIds,
        });
        expect(plan.partitionIds).toEqual([70]);
      });
    }

    test("nobody by a memberId that the group does not know: it is a new member", () => {
      const plan = planJoin(requestOf({ memberId: "long-gone" }), snapshotOf());
      expect(plan).toMatchObject({ memberId: "new", endedMemberIds: [] });
    });

    test("from the committed offsets: a takeover resets nothing", () => {
      const plan = planJoin(requestOf({ memberId: "m1" }), snapshotOf({ members: [memberOf()] }));
      expect(plan.resets).toEqual([]);
    });
  });

  test("ends members whose lease has run out, and each once", () => {
    const members = [
      memberOf({ memberId: "m1", isExpired: true }),
      memberOf({ memberId: "m2", instanceId: "tab-7", isExpired: true }),
      memberOf({ memberId: "m3", instanceId: "tab-8", isExpired: true }),
    ];
    const plan = planJoin(requestOf({ instanceId: "tab-7" }), snapshotOf({ members }));
    expect([...plan.endedMemberIds].sort()).toEqual(["m1", "m2", "m3"]);
    expect(plan.memberId).toBe("new");
  });

  describe("refuses a second live member", () => {
    const others: readonly (readonly [title: string, request: Partial<JoinRequest>, member: GroupMember])[] =
      [
        ["with no name", {}, memberOf()],
        ["beside a static one", {}, memberOf({ instanceId: "tab-7" })],
        ["with another memberId", { memberId: "m2" }, memberOf()],
        ["with another instanceId", { instanceId: "tab-8" }, memberOf({ instanceId: "tab-7" })],
        ["with an instanceId beside one without", { instanceId: "tab-7" }, memberOf()],
        ["with an instanceId that is the other's memberId", { instanceId: "m1" }, memberOf()],
        ["with a memberId that is the other's instanceId", { memberId: "t" }, memberOf({ instanceId: "t" })],
      ];
    for (const [title, request, member] of others) {
      test(title, () => {
        const problem = problemOf(() => planJoin(requestOf(request), snapshotOf({ members: [member] })));
        expect(problem.code).toBe("conflict");
        expect(problem.message).toContain('"billing"');
        expect(problem.message).toContain("not built yet");
      });
    }

    test("though it takes over another one, and though others have expired", () => {
      const members = [
        memberOf({ memberId: "m1" }),
        memberOf({ memberId: "m2" }),
        memberOf({ memberId: "m3", isExpired: true }),
      ];
      const plan = () => planJoin(requestOf({ memberId: "m1" }), snapshotOf({ members }));
      expect(problemOf(plan).code).toBe("conflict");
    });
  });

  describe("refuses an unknown topic", () => {
    test("and names it", () => {
      const problem = problemOf(() => planJoin(requestOf({ topics: ["orders", "nope"] }), snapshotOf()));
      expect(problem).toMatchObject({ code: "unknown_topic", facts: { topic: "nope" } });
      expect(problem.message).toContain('"nope"');
    });

    test("after it has refused a second member: then no topic need come into being", () => {
      const snapshot = snapshotOf({ members: [memberOf()], partitions: [] });
      expect(problemOf(() => planJoin(requestOf(), snapshot)).code).toBe("conflict");
    });
  });
});

describe("policies by time", () => {
  const AGO = { ago: 60_000 };
  const AT = { timestamp: 5 };
  const times = new Map([[70, 77]]);
  const byTime = { missing: AGO, outOfRange: AT };

  test("give a partition without a committed offset the place that was looked up", () => {
    const start = startOf(partitionOf({ committedOffset: null, ...NEW_TOPIC }), byTime, times);
    expect(start).toEqual({
      kind: "reset",
      topic: "orders",
      partition: 0,
      partitionId: 70,
      from: null,
      to: 77,
      policy: AGO,
      cause: "missing: ago 60000 ms",
    });
  });

  test("give one whose committed offset has left the log the place of the other policy", () => {
    const start = startOf(partitionOf({ committedOffset: 39 }), byTime, times);
    expect(start).toMatchObject({ from: 39, to: 77, policy: AT, cause: "outOfRange: timestamp 5" });
  });

  test("lead into the log, though it has moved since they were looked up", () => {
    const partition = partitionOf({ committedOffset: null, ...NEW_TOPIC });
    const placeAt = (offset: number) => startOf(partition, byTime, new Map([[70, offset]]));
    expect(placeAt(39)).toMatchObject({ to: 40 });
    expect(placeAt(101)).toMatchObject({ to: 100 });
  });

  test("do not move a group from where it stands, nor a new partition from its beginning", () => {
    expect(startOf(partitionOf(), byTime)).toEqual({ kind: "committed" });
    const isNew = { committedOffset: null, ...NEW_PARTITION };
    expect(startOf(partitionOf(isNew), byTime)).toMatchObject({ to: 40, policy: "earliest" });
  });

  test("of a join are in its plan", () => {
    const snapshot = snapshotOf({ partitions: [partitionOf({ committedOffset: null, ...NEW_TOPIC })] });
    expect(planJoin(requestOf({ policies: byTime }), snapshot, times).resets).toMatchObject([
      { partitionId: 70, to: 77, policy: AGO },
    ]);
  });

  describe("neededTimes()", () => {
    const cases: readonly [title: string, partition: Partial<GroupPartition>, place: object | undefined][] = [
      ["missing", { committedOffset: null, ...NEW_TOPIC }, AGO],
      ["below the log", { committedOffset: 39 }, AT],
      ["above the log", { committedOffset: 101 }, AT],
      ["usable", {}, undefined],
      ["new in a topic that the group knows", { committedOffset: null, ...NEW_PARTITION }, undefined],
      ["of a topic created again", { committedOffset: null, ...TOPIC_CREATED_AGAIN }, undefined],
    ];
    for (const [title, about, place] of cases) {
      test(`of a partition that is ${title}: ${place ? JSON.stringify(place) : "none"}`, () => {
        const partition = partitionOf(about);
        const expected = place ? [{ partitionId: partition.partitionId, place }] : [];
        expect<unknown>(neededTimes([partition], byTime)).toEqual(expected);
      });
    }

    test("are none where the policies are not by time", () => {
      const partitions = [
        partitionOf({ committedOffset: null, ...NEW_TOPIC }),
        partitionOf({ committedOffset: 0 }),
      ];
      for (const policy of ["earliest", "latest", "none"] as const)
        expect(neededTimes(partitions, { missing: policy, outOfRange: policy })).toEqual([]);
    });
  });
});

describe("planGain()", () => {
  const gainOf = (options: Partial<GainRequest> = {}): GainRequest => ({
    group: "billing",
    memberId: "m1",
    membership: 1,
    topics: ["orders"],
    policies: { missing: "latest", outOfRange: "latest" },
    lostPartitionIds: [],
    ...options,
  });
  const own = (about: Partial<GroupPartition> = {}) => partitionOf({ ownerMemberId: "m1", ...about });
  const grown = partitionOf({ ...NEW_PARTITION, committedOffset: null });
  const snapshot = snapshotOf({ members: [memberOf()], partitions: [own(), grown] });

  test("brings what nobody owns, from its beginning where it is new, and leaves the rest where it is", () => {
    expect(planGain(gainOf(), snapshot)).toMatchObject({
      memberId: "m1",
      partitionIds: [72],
      resets: [{ partitionId: 72, from: null, to: 40, policy: "earliest" }],
      unplaced: [],
      topicsSeen: [{ topic: "orders", topicId: 7, partitions: 2 }],
    });
  });

  test("brings what the member has lost again, from its committed offset", () => {
    expect(planGain(gainOf({ lostPartitionIds: [70] }), snapshot)).toMatchObject({
      partitionIds: [70, 72],
      resets: [{ partitionId: 72 }],
    });
  });

  test("brings nothing of another member, not even what this one says it has lost", () => {
    const others = snapshotOf({
      members: [memberOf(), memberOf({ memberId: "m2", membership: 2 })],
      partitions: [partitionOf({ ownerMemberId: "m2" })],
    });
    expect(planGain(gainOf({ lostPartitionIds: [70] }), others)?.partitionIds).toEqual([]);
  });

  test("brings no partition that is gone", () => {
    expect(
      planGain(
        gainOf({ lostPartitionIds: [99] }),
        snapshotOf({ members: [memberOf()], partitions: [own()] }),
      ),
    ).toMatchObject({ partitionIds: [] });
  });

  test("applies the member's policies, by time too, to what it brings and to nothing else", () => {
    const outside = [own({ committedOffset: 0 }), own({ partition: 1, partitionId: 71, committedOffset: 0 })];
    const policies = { missing: "none", outOfRange: { ago: 5 } } as const;
    const lost = gainOf({ policies, lostPartitionIds: [71] });
    const plan = planGain(
      lost,
      snapshotOf({ members: [memberOf()], partitions: outside }),
      new Map([[71, 66]]),
    );
    expect(plan?.resets).toMatchObject([{ partitionId: 71, from: 0, to: 66, policy: { ago: 5 } }]);
  });

  test("names what the policy none leaves without a place", () => {
    const lost = gainOf({ policies: { missing: "none", outOfRange: "none" }, lostPartitionIds: [70] });
    const outside = snapshotOf({ members: [memberOf()], partitions: [own({ committedOffset: 0 })] });
    expect(planGain(lost, outside)).toMatchObject({
      resets: [],
      unplaced: [{ partitionId: 70, code: "offset_out_of_range" }],
    });
  });

  test.each<[string, readonly GroupMember[]]>([
    ["has ended", []],
    ["is another one of the same member by now", [memberOf({ membership: 2 })]],
    ["is another member's", [memberOf({ memberId: "m2" })]],
  ])("is nothing where the membership %s", (_, members) => {
    expect(planGain(gainOf(), { ...snapshot, members })).toBeUndefined();
  });

  test("is still for a member whose lease has run out and whom nobody has ended", () => {
    const members = [memberOf({ isExpired: true })];
    expect(planGain(gainOf(), { ...snapshot, members })?.partitionIds).toEqual([72]);
  });
});

describe("joinResult()", () => {
  const place = { topic: "orders", partition: 0, partitionId: 70 };
  const joinedOf = (about: Partial<JoinedPartition>): Joined => ({
    memberId: "m1",
    membership: 1,
    partitions: [
      {
        ...place,
        topicId: 7,
        generation: 3,
        committedOffset: 40,
        metadata: null,
        logStartOffset: 40,
        logEndOffset: 100,
        ...about,
      },
    ],
  });
  const planOf = (outcome: { committedOffset: number | null; policy: ResetPolicy }) => {
    const { committedOffset, policy } = outcome;
    const partitions = [partitionOf({ committedOffset, ...NEW_TOPIC })];
    return planJoin(
      requestOf({ policies: { missing: policy, outOfRange: policy } }),
      snapshotOf({ partitions }),
    );
  };

  test("names the policy that gave the place", () => {
    const plan = planOf({ committedOffset: null, policy: "earliest" });
    expect(joinResult(joinedOf({ committedOffset: 40 }), plan).resets).toMatchObject([
      { policy: "earliest" },
    ]);
  });

  test("names no policy where an ack came in between", () => {
    const plan = planOf({ committedOffset: 0, policy: "earliest" });
    expect(joinResult(joinedOf({ committedOffset: 60 }), plan).resets).toEqual([]);
  });

  test("leaves a partition without a place only while its offset is unusable", () => {
    const plan = planOf({ committedOffset: 0, policy: "none" });
    const unplacedAt = (committedOffset: number | null) =>
      joinResult(joinedOf({ committedOffset }), plan).unplaced.length;
    expect([null, 0, 39, 40, 100, 101].map(unplacedAt)).toEqual([1, 1, 1, 0, 0, 1]);
  });
});
