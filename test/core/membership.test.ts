import { describe, expect, test } from "bun:test";
import {
  type GroupMember,
  type GroupPartition,
  type GroupSnapshot,
  type JoinRequest,
  planJoin,
  startOf,
} from "../../src/core/membership.ts";
import { Problem } from "../../src/core/problem.ts";
import type { ResetPolicy } from "../../src/protocol/frames.ts";

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
