import { describe, expect, test } from "bun:test";
import type { GroupPartition } from "../../src/core/group-picture.ts";
import { isIdle, planGroup } from "../../src/core/group-plan.ts";
import { Problem } from "../../src/core/problem.ts";
import {
  type PlaceTarget,
  planReset,
  type ResetRequest,
  resetChange,
  timesNeededByReset,
} from "../../src/core/reset-plan.ts";
import type { PlannedStep } from "../../src/protocol/http.ts";
import type { Place } from "../../src/protocol/places.ts";
import {
  applyPlan,
  GROUP,
  NEW_TOPIC,
  NO_GROUP,
  partitionOf,
  pictureOf,
  topicOf,
} from "../support/group-picture.ts";

const ORDERS: PlaceTarget["topics"] = [{ topic: "orders" }];
/** Their logs hold [40, 100). */
const THREE = topicOf("orders", [null, null, null]);
const NO_TIMES: ReadonlyMap<number, number> = new Map();

function resetOf(target: ResetRequest["target"], about: Partial<ResetRequest> = {}): ResetRequest {
  const named = target.kind === "place" ? target.topics : target.steps;
  const topics = [...new Set(named.map(({ topic }) => topic))];
  return { group: GROUP, topics, target, isDryRun: false, reason: undefined, ...about };
}

const toPlace = (to: Place, topics = ORDERS) => resetOf({ kind: "place", topics, to });
const ofPlan = (...steps: readonly PlannedStep[]) => resetOf({ kind: "plan", steps });
const step = (about: Partial<PlannedStep> = {}): PlannedStep => ({
  topic: "orders",
  partition: 0,
  from: 60,
  to: 50,
  ...about,
});

/** Where the reset leads, partition by partition. */
const planOf = (request: ResetRequest, partitions: readonly GroupPartition[] = THREE, times = NO_TIMES) =>
  planReset(pictureOf([], partitions), request, times).map(({ topic, partition, from, to }) => [
    `${topic}/${partition}`,
    from,
    to,
  ]);

function problemOf(plan: () => unknown): Problem {
  try {
    plan();
  } catch (error) {
    if (error instanceof Problem) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("planReset() to a place", () => {
  test("takes 10,000 partitions and no more", () => {
    const many = (count: number) =>
      topicOf(
        "orders",
        Array.from({ length: count }, () => null),
      );
    expect(planOf(toPlace("latest"), many(10_000))).toHaveLength(10_000);
    const problem = problemOf(() => planOf(toPlace("latest"), many(10_001)));
    expect(problem).toMatchObject({ code: "bad_request", facts: { found: 10_001, allowed: 10_000 } });
  });

  const one = (about: Partial<GroupPartition>) => [partitionOf({ partitionsSeen: 1, ...about })];
  const places: readonly [place: Place, committedOffset: number | null, to: number][] = [
    ["earliest", 60, 40],
    ["earliest", null, 40],
    ["latest", 60, 100],
    ["latest", null, 100],
    ["current", 60, 60],
    ["current", 5, 40],
    ["current", 500, 100],
    [{ offset: 40 }, 60, 40],
    [{ offset: 41 }, null, 41],
    [{ offset: 100 }, 60, 100],
    [{ shift: 5 }, 60, 65],
    [{ shift: -5 }, 60, 55],
    [{ shift: 0 }, 60, 60],
    [{ shift: -21 }, 60, 40],
    [{ shift: 41 }, 60, 100],
    [{ timestamp: 5 }, 60, 77],
    [{ timestamp: 5 }, null, 77],
    [{ ago: 60_000 }, 60, 77],
  ];
  test.each(places)("%j from committed %j in [40, 100) is %d", (place, committedOffset, to) => {
    const times = new Map([[70_000, 77]]);
    expect(planOf(toPlace(place), one({ committedOffset }), times)).toEqual([
      ["orders/0", committedOffset, to],
    ]);
  });

  test.each([
    [39, 40],
    [101, 100],
  ])("of a time leads into the log, though it has moved since: %d is %d", (found, to) => {
    const times = new Map([[70_000, found]]);
    expect(planOf(toPlace({ timestamp: 5 }), one({}), times)).toEqual([["orders/0", 60, to]]);
  });

  test("takes all partitions of a topic, or those that are named, in the order named", () => {
    expect(planOf(toPlace("earliest")).map(([name]) => name)).toEqual(["orders/0", "orders/1", "orders/2"]);
    const named = toPlace("earliest", [{ topic: "orders", partitions: [2, 0] }]);
    expect(planOf(named).map(([name]) => name)).toEqual(["orders/2", "orders/0"]);
    expect(planOf(toPlace("earliest", [{ topic: "orders", partitions: [] }]))).toEqual([]);
  });

  test("takes each topic that is named and no other", () => {
    const partitions = [
      ...THREE,
      ...topicOf("refunds", [null], { logStartOffset: 3 }),
      ...topicOf("visits", [null]),
    ];
    const request = toPlace("earliest", [{ topic: "refunds" }, { topic: "orders", partitions: [1] }]);
    expect(planOf(request, partitions)).toEqual([
      ["refunds/0", 60, 3],
      ["orders/1", 60, 40],
    ]);
  });

  test("is by partition: each has its own log and its own committed offset", () => {
    const partitions = [
      partitionOf({ partition: 0, logEndOffset: 62, committedOffset: 61 }),
      partitionOf({ partition: 1, logStartOffset: 0, logEndOffset: 5, committedOffset: 1 }),
    ];
    expect(planOf(toPlace({ shift: 3 }), partitions)).toEqual([
      ["orders/0", 61, 62],
      ["orders/1", 1, 4],
    ]);
  });

  test("names each step's partition by its id", () => {
    const steps = planReset(pictureOf([], THREE), toPlace("latest"), NO_TIMES);
    expect(steps.map(({ partitionId }) => partitionId)).toEqual([70_000, 70_001, 70_002]);
  });

  test.each<Place>([{ offset: 39 }, { offset: 101 }])(
    "refuses %j, outside of a log, and says of which",
    (place) => {
      const problem = problemOf(() =>
        planOf(toPlace(place), [
          ...one({ partition: 0, logEndOffset: 200, logStartOffset: 0 }),
          partitionOf({ partition: 1 }),
        ]),
      );
      const found = typeof place === "object" && "offset" in place ? place.offset : undefined;
      expect(problem.code).toBe("offset_out_of_range");
      expect(problem.facts).toEqual({
        topic: "orders",
        partition: 1,
        found,
        logStartOffset: 40,
        logEndOffset: 100,
      });
      for (const fact of ['"orders"', "partition 1", `${found}`, "40", "100"])
        expect(problem.message).toContain(fact);
    },
  );

  test.each<Place>(["current", { shift: 1 }])(
    "refuses %j where nothing is committed, and says where",
    (place) => {
      const partitions = [
        partitionOf({ partition: 0 }),
        partitionOf({ partition: 1, committedOffset: null }),
      ];
      const problem = problemOf(() => planOf(toPlace(place), partitions));
      expect(problem).toMatchObject({
        code: "no_committed_offset",
        facts: { topic: "orders", partition: 1 },
      });
      expect(problem.message).toContain("partition 1");
    },
  );
});

describe("planReset() of a plan", () => {
  test("is its steps, in their order", () => {
    const request = ofPlan(step({ partition: 1, to: 40 }), step({ partition: 0, to: 100 }));
    expect(planOf(request)).toEqual([
      ["orders/1", 60, 40],
      ["orders/0", 60, 100],
    ]);
  });

  test("is what a dry run to a place answered, as long as nothing has moved", () => {
    for (const place of ["earliest", "latest", "current", { offset: 41 }, { shift: -3 }] as const) {
      const planned = planReset(pictureOf([], THREE), { ...toPlace(place), isDryRun: true }, NO_TIMES);
      expect(planReset(pictureOf([], THREE), ofPlan(...planned), NO_TIMES)).toEqual(planned);
    }
  });

  test("starts from nothing where nothing is committed", () => {
    const partitions = topicOf("orders", [null], { committedOffset: null });
    expect(planOf(ofPlan(step({ from: null, to: 41 })), partitions)).toEqual([["orders/0", null, 41]]);
  });

  test("may start from an offset that has left the log", () => {
    const partitions = topicOf("orders", [null], { committedOffset: 5 });
    expect(planOf(ofPlan(step({ from: 5, to: 40 })), partitions)).toEqual([["orders/0", 5, 40]]);
  });

  test.each<[from: number | null, committedOffset: number | null]>([
    [59, 60],
    [61, 60],
    [null, 60],
    [60, null],
    [0, null],
    [null, 0],
  ])("from %j is a conflict where %j is committed", (from, committedOffset) => {
    const partitions = topicOf("orders", [null, null], { committedOffset });
    const steps = [step({ from: committedOffset }), step({ from, partition: 1 })];
    const problem = problemOf(() => planOf(ofPlan(...steps), partitions));
    expect(problem.code).toBe("conflict");
    expect(problem.facts).toEqual({ topic: "orders", partition: 1, expected: from, found: committedOffset });
    for (const fact of ['"orders"', "partition 1", `from ${from}`, `is ${committedOffset}`])
      expect(problem.message).toContain(fact);
  });

  test.each([39, 101])("to %d is out of range, and says of which partition", (to) => {
    const problem = problemOf(() => planOf(ofPlan(step(), step({ partition: 2, to }))));
    expect(problem).toMatchObject({
      code: "offset_out_of_range",
      facts: { topic: "orders", partition: 2, found: to, logStartOffset: 40, logEndOffset: 100 },
    });
  });
});

describe("planReset() refuses", () => {
  const targets = (topic: string, partition: number): readonly [string, ResetRequest][] => [
    ["to a place", toPlace("earliest", [{ topic: "orders" }, { topic, partitions: [partition] }])],
    ["of a plan", ofPlan(step({ partition: 1 }), step({ topic, partition }))],
  ];

  test.each([...targets("orders", 0), ...targets("nope", 0)])(
    "a group that is not there, %s",
    (_, request) => {
      const picture = { ...NO_GROUP, partitions: THREE };
      const problem = problemOf(() => planReset(picture, request, NO_TIMES));
      expect(problem).toMatchObject({ code: "unknown_group", facts: { group: GROUP } });
      expect(problem.message).toContain(`"${GROUP}"`);
    },
  );

  test.each(targets("nope", 0))("a topic that is not there, %s", (_, request) => {
    const problem = problemOf(() => planOf(request));
    expect(problem).toMatchObject({ code: "unknown_topic", facts: { topic: "nope" } });
    expect(problem.message).toContain('"nope"');
  });

  test.each([...targets("orders", 3), ...targets("orders", Number.MAX_SAFE_INTEGER)])(
    "a partition that is not there, %s",
    (_, request) => {
      const problem = problemOf(() => planOf(request));
      expect(problem).toMatchObject({
        code: "unknown_partition",
        facts: { topic: "orders", partitionCount: 3 },
      });
      expect(problem.message).toContain("0 to 2");
    },
  );
});

describe("timesNeededByReset()", () => {
  test.each<Place>([{ ago: 5 }, { timestamp: 5 }])("names every partition for %j", (place) => {
    const times = timesNeededByReset(
      pictureOf([], THREE),
      toPlace(place, [{ topic: "orders", partitions: [0, 2] }]),
    );
    expect<unknown>(times).toEqual([
      { partitionId: 70_000, place },
      { partitionId: 70_002, place },
    ]);
  });

  test("is nothing for places that need no time, nor for plans", () => {
    for (const place of ["earliest", "latest", "current", { offset: 1 }, { shift: 1 }] as const)
      expect(timesNeededByReset(pictureOf([], THREE), toPlace(place))).toEqual([]);
    expect(timesNeededByReset(pictureOf([], THREE), ofPlan(step()))).toEqual([]);
  });

  test("refuses what planReset() refuses, and in the same order", () => {
    const picture = { ...NO_GROUP, partitions: THREE };
    const request = toPlace({ ago: 5 }, [{ topic: "nope" }]);
    expect(problemOf(() => timesNeededByReset(picture, request)).code).toBe("unknown_group");
    expect(problemOf(() => timesNeededByReset(pictureOf([], THREE), request)).code).toBe("unknown_topic");
  });
});

describe("resetChange()", () => {
  const changeOf = (picture: ReturnType<typeof pictureOf>, request = toPlace("earliest"), times = NO_TIMES) =>
    resetChange(picture, request, planReset(picture, request, times));
  const gainsOf = ({ plan }: ReturnType<typeof changeOf>) =>
    plan.gains.map(({ partition, member }) => [partition.partition, member.memberId]);

  test("gives each owner a new generation of what is reset, and leaves the rest alone", () => {
    const picture = pictureOf(["a", "b"], topicOf("orders", ["a", "b", "a", null]));
    const change = changeOf(picture, toPlace("earliest", [{ topic: "orders", partitions: [0, 1, 3] }]));
    expect(gainsOf(change)).toEqual([
      [0, "a"],
      [1, "b"],
    ]);
    expect(change.plan).toMatchObject({
      joins: [],
      endedMemberIds: [],
      revokedPartitionIds: [],
      freedPartitionIds: [],
    });
    const before = { picture, last: 1_000 };
    const generations = applyPlan(before, change.plan).picture.partitions.map(
      ({ owner }) => owner?.generation,
    );
    expect(generations).toEqual([1_002, 1_003, 102, undefined]);
  });

  test("of an owner's partition that stays where it is gives it a new generation too", () => {
    expect(gainsOf(changeOf(pictureOf(["a"], topicOf("orders", ["a"])), toPlace("current")))).toEqual([
      [0, "a"],
    ]);
  });

  test("frees what is being revoked, and the next plan gives it to whom it was to go", () => {
    const picture = pictureOf(["a", "b"], topicOf("orders", ["a", "a~"]));
    const change = changeOf(picture);
    expect(gainsOf(change)).toEqual([[0, "a"]]);
    expect(change.plan.freedPartitionIds).toEqual([70_001]);
    const { picture: after } = applyPlan({ picture, last: 1_000 }, change.plan);
    const { gains } = planGroup(after, [], { mayExpire: true });
    expect(gains.map(({ partition, member }) => [partition.partition, member.memberId])).toEqual([[1, "b"]]);
  });

  test("leaves to the next plan what a member that is gone has left behind", () => {
    const picture = pictureOf([], topicOf("orders", ["gone"]));
    expect(isIdle(changeOf(picture).plan)).toBe(true);
  });

  test("writes its steps exactly as planned, as an operator", () => {
    const picture = pictureOf([], THREE);
    const { resets } = changeOf(picture, toPlace("latest", [{ topic: "orders", partitions: [1] }]));
    expect(resets).toEqual([
      {
        topic: "orders",
        partition: 1,
        partitionId: 70_001,
        from: 60,
        to: 100,
        cause: "reset: latest",
        actor: "operator",
        isExact: true,
      },
    ]);
  });

  test.each<[string, ResetRequest]>([
    ["reset: earliest", toPlace("earliest")],
    ["reset: latest", toPlace("latest")],
    ["reset: current", toPlace("current")],
    ["reset: offset 41", toPlace({ offset: 41 })],
    ["reset: shift 5", toPlace({ shift: 5 })],
    ["reset: shift -5", toPlace({ shift: -5 })],
    ["reset: timestamp 5", toPlace({ timestamp: 5 })],
    ["reset: ago 60000 ms", toPlace({ ago: 60_000 })],
    ["reset: plan", ofPlan(step())],
    ["reset: latest (bad deploy)", { ...toPlace("latest"), reason: "bad deploy" }],
    ["reset: plan (bad deploy)", { ...ofPlan(step()), reason: "bad deploy" }],
    ["reset: latest", { ...toPlace("latest"), reason: "" }],
  ])("says in the history: %s", (cause, request) => {
    const { resets } = changeOf(pictureOf([], topicOf("orders", [null])), request, new Map([[70_000, 77]]));
    expect(resets.map((reset) => reset.cause)).toEqual([cause]);
  });

  describe("notes as seen", () => {
    const seenAfter = (about: Partial<GroupPartition>) => {
      const picture = pictureOf([], topicOf("orders", [null, null, null], about));
      return changeOf(picture, toPlace("latest", [{ topic: "orders", partitions: [1] }])).plan.topicsSeen;
    };

    test("a topic that is new to the group, with all its partitions", () => {
      expect(seenAfter(NEW_TOPIC)).toEqual([{ topic: "orders", topicId: 7, partitions: 3 }]);
    });

    test("no topic that is not reset", () => {
      const refunds = topicOf("refunds", [null], NEW_TOPIC);
      const picture = pictureOf([], [...topicOf("orders", [null], NEW_TOPIC), ...refunds]);
      expect(changeOf(picture).plan.topicsSeen.map(({ topic }) => topic)).toEqual(["orders"]);
    });

    test("nothing where the group knows the topic, though it has grown", () => {
      expect(seenAfter({})).toEqual([]);
      expect(seenAfter({ partitionsSeen: 1 })).toEqual([]);
    });

    test("nothing of a topic created again: its other partitions still start at their beginning", () => {
      expect(seenAfter({ topicIdSeen: 6, committedOffset: null })).toEqual([]);
    });
  });
});
