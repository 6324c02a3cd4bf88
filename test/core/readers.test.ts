import { describe, expect, test } from "bun:test";
import { Problem } from "../../src/core/problem.ts";
import {
  neededReaderTimes,
  planReader,
  planReaderGain,
  type ReadablePartition,
  type ReaderRequest,
} from "../../src/core/readers.ts";
import type { ReaderStart } from "../../src/protocol/frames.ts";
import { PARTITIONS_PER_SUBSCRIPTION_MAX } from "../../src/protocol/limits.ts";
import type { ReaderPlace } from "../../src/protocol/places.ts";

/** The log holds [40, 100). */
const partitionOf = (options: Partial<ReadablePartition> = {}): ReadablePartition => {
  const { partition = 0 } = options;
  return {
    topic: "orders",
    topicId: 7,
    partition,
    partitionId: 70 + partition,
    logStartOffset: 40,
    logEndOffset: 100,
    ...options,
  };
};
const TWO = [partitionOf(), partitionOf({ partition: 1, logStartOffset: 0, logEndOffset: 8 })];
const startOf = (options: Partial<ReaderStart> = {}): ReaderStart => ({
  topic: "orders",
  partition: 0,
  offset: 50,
  ...options,
});
const from = (place: ReaderRequest["from"], topics: readonly string[] = ["orders"]): ReaderRequest => ({
  topics,
  from: place,
});
const NO_TIMES: ReadonlyMap<number, number> = new Map();
const positionsOf = (request: ReaderRequest, partitions = TWO, times = NO_TIMES) =>
  planReader(request, partitions, times).map(({ partitionId, position }) => [partitionId, position]);

function problemOf(plan: () => unknown): Problem {
  try {
    plan();
  } catch (error) {
    if (error instanceof Problem) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("planReader() of a place", () => {
  const times = new Map([
    [70, 55],
    [71, 3],
  ]);
  const cases: readonly [place: ReaderPlace, first: number, second: number][] = [
    ["earliest", 40, 0],
    ["latest", 100, 8],
    [{ timestamp: 5 }, 55, 3],
    [{ ago: 5 }, 55, 3],
  ];
  for (const [place, first, second] of cases) {
    test(`starts every partition of its topics there: ${JSON.stringify(place)}`, () => {
      expect(positionsOf(from(place), TWO, times)).toEqual([
        [70, first],
        [71, second],
      ]);
    });
  }

  test("keeps all that is known of a partition", () => {
    expect(planReader(from("latest"), [partitionOf()], NO_TIMES)).toEqual([
      { ...partitionOf(), position: 100 },
    ]);
  });

  test("puts a time that has left the log since inside of it", () => {
    for (const [offset, position] of [
      [39, 40],
      [40, 40],
      [100, 100],
      [101, 100],
    ] as const) {
      expect(positionsOf(from({ timestamp: 5 }), [partitionOf()], new Map([[70, offset]]))).toEqual([
        [70, position],
      ]);
    }
  });

  test("takes an offset at both ends of the log", () => {
    expect(positionsOf(from({ offset: 40 }), [partitionOf()])).toEqual([[70, 40]]);
    expect(positionsOf(from({ offset: 100 }), [partitionOf()])).toEqual([[70, 100]]);
  });

  for (const offset of [39, 101]) {
    test(`refuses the offset ${offset} outside of [40, 100) and names the partition`, () => {
      const partitions = [
        partitionOf({ logStartOffset: 0, logEndOffset: 200 }),
        partitionOf({ partition: 1 }),
      ];
      const problem = problemOf(() => planReader(from({ offset }), partitions, NO_TIMES));
      expect(problem).toMatchObject({
        code: "offset_out_of_range",
        facts: { topic: "orders", partition: 1, found: offset, logStartOffset: 40, logEndOffset: 100 },
      });
      expect(problem.message).toContain('Topic "orders" partition 1:');
    });
  }

  test("of several topics starts in all of them; one that is not there is unknown_topic", () => {
    const both = [partitionOf(), partitionOf({ topic: "refunds", topicId: 8, partitionId: 80 })];
    expect(positionsOf(from("latest", ["orders", "refunds"]), both)).toEqual([
      [70, 100],
      [80, 100],
    ]);
    const problem = problemOf(() => planReader(from("latest", ["orders", "gone"]), both, NO_TIMES));
    expect(problem).toMatchObject({ code: "unknown_topic", facts: { topic: "gone" } });
  });

  test("takes as many partitions as a subscription may have, and not one more", () => {
    const many = (count: number) =>
      Array.from({ length: count }, (_, partition) => partitionOf({ partition, partitionId: partition }));
    expect(positionsOf(from("latest"), many(PARTITIONS_PER_SUBSCRIPTION_MAX))).toHaveLength(10_000);
    const tooMany = many(PARTITIONS_PER_SUBSCRIPTION_MAX + 1);
    expect(problemOf(() => planReader(from("latest"), tooMany, NO_TIMES))).toMatchObject({
      code: "bad_request",
      facts: { found: 10_001, allowed: 10_000 },
    });
  });
});

describe("planReader() of certain partitions", () => {
  test("reads these and no others, each from its own offset, in the order in which they were named", () => {
    const three = [...TWO, partitionOf({ partition: 2 })];
    const starts = [startOf({ partition: 2, offset: 99 }), startOf({ partition: 1, offset: 0 })];
    expect(positionsOf(from(starts), three)).toEqual([
      [72, 99],
      [71, 0],
    ]);
  });

  test("takes the topicId that the topic has", () => {
    expect(positionsOf(from([startOf({ topicId: 7 })]))).toEqual([[70, 50]]);
  });

  test("takes few partitions of a topic that has more than a subscription may have", () => {
    const many = Array.from({ length: PARTITIONS_PER_SUBSCRIPTION_MAX + 1 }, (_, partition) =>
      partitionOf({ partition }),
    );
    expect(positionsOf(from([startOf()]), many)).toEqual([[70, 50]]);
  });

  const refusals: readonly [title: string, starts: readonly ReaderStart[], refused: object][] = [
    [
      "a partition that is not there",
      [startOf(), startOf({ partition: 2 })],
      { code: "unknown_partition", facts: { topic: "orders", partition: 2 } },
    ],
    [
      "another topicId",
      [startOf({ topicId: 6 })],
      { code: "unknown_topic", facts: { topic: "orders", topicId: 6, found: 7 } },
    ],
    [
      "another topicId, though the topic has no such partition now",
      [startOf({ topicId: 6, partition: 9 })],
      { code: "unknown_topic", facts: { topic: "orders", topicId: 6, found: 7 } },
    ],
    [
      "an offset below the log",
      [startOf({ partition: 1, offset: 0 }), startOf({ offset: 39 })],
      { code: "offset_out_of_range", facts: { topic: "orders", partition: 0, found: 39 } },
    ],
    [
      "an offset above the log",
      [startOf({ partition: 1, offset: 9 })],
      { code: "offset_out_of_range", facts: { topic: "orders", partition: 1, found: 9 } },
    ],
  ];
  for (const [title, starts, refused] of refusals) {
    test(`refuses ${title}`, () => {
      expect(problemOf(() => planReader(from(starts), TWO, NO_TIMES))).toMatchObject(refused);
    });
  }

  test("refuses a topic that is in topics and not there, though none of its partitions is wanted", () => {
    const request = from([startOf()], ["orders", "gone"]);
    expect(problemOf(() => planReader(request, TWO, NO_TIMES))).toMatchObject({ code: "unknown_topic" });
  });
});

describe("neededReaderTimes()", () => {
  test("names every partition of a reader from a time", () => {
    for (const place of [{ timestamp: 5 }, { ago: 5 }]) {
      expect(neededReaderTimes(from(place), TWO)).toEqual([
        { partitionId: 70, place },
        { partitionId: 71, place },
      ]);
    }
  });

  test("names none for any other place, nor for certain partitions", () => {
    for (const place of ["earliest", "latest", { offset: 5 }, [startOf()]] as const)
      expect(neededReaderTimes(from(place), TWO)).toEqual([]);
  });
});

describe("planReaderGain()", () => {
  const gainedIds = (request: ReaderRequest, partitions: readonly ReadablePartition[], known: number[]) =>
    planReaderGain(request, partitions, new Set(known)).map(({ partitionId }) => partitionId);

  test("starts what has appeared at its beginning, whatever the place was", () => {
    for (const place of ["earliest", "latest", { offset: 60 }, { timestamp: 5 }, { ago: 5 }] as const) {
      expect(planReaderGain(from(place), TWO, new Set([71]))).toEqual([{ ...partitionOf(), position: 40 }]);
    }
  });

  test("brings nothing where all is known", () => {
    expect(gainedIds(from("latest"), TWO, [70, 71])).toEqual([]);
    expect(gainedIds(from([startOf()]), TWO, [70])).toEqual([]);
  });

  test("of certain partitions brings nothing of a topic that grew", () => {
    expect(gainedIds(from([startOf()]), [...TWO, partitionOf({ partition: 2 })], [70])).toEqual([]);
  });

  const created = [
    partitionOf({ topicId: 9, partitionId: 90, logStartOffset: 0, logEndOffset: 3 }),
    partitionOf({ topicId: 9, partition: 1, partitionId: 91 }),
  ];

  test("of certain partitions brings those, from their beginning, where the topic was created again", () => {
    expect(planReaderGain(from([startOf()]), created, new Set())).toEqual([
      { ...created[0], position: 0 } as (typeof created)[number] & { position: number },
    ]);
  });

  test("of a partition that was asked for by topicId brings nothing of another topic of the name", () => {
    const starts = [startOf({ topicId: 7 }), startOf({ partition: 1 })];
    expect(gainedIds(from(starts), created, [])).toEqual([91]);
  });

  test("does not take the same number in another topic for a wanted partition", () => {
    const other = partitionOf({ topic: "refunds", topicId: 8, partitionId: 80 });
    expect(gainedIds(from([startOf()], ["orders", "refunds"]), [other], [])).toEqual([]);
  });
});
