import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  murmur2,
  partitionOfKey,
  partitionRecords,
  requirePartitions,
  runsWithOffsets,
} from "../../src/core/partitioner.ts";
import { Problem } from "../../src/core/problem.ts";
import { type NewRecord, parseJsonProduce } from "../../src/core/produce-request.ts";

const encode = (text: string) => new TextEncoder().encode(text);

// ── murmur2 and keys ─────────────────────────────────────────────────────────────────────────────────────

// From UtilsTest.testMurmur2 of Apache Kafka.
test.each([
  ["21", -973932308],
  ["foobar", -790332482],
  ["a-little-bit-long-string", -985981536],
  ["a-little-bit-longer-string", -1486304829],
  ["lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971],
  ["abc", 479470107],
])("murmur2() of %j is Kafka's", (text, hash) => {
  expect(murmur2(encode(text))).toBe(hash);
});

/** The algorithm once more in plain 32-bit arithmetic on BigInt, byte by byte. */
function murmur2Oracle(bytes: Uint8Array): number {
  const u32 = (value: bigint) => BigInt.asUintN(32, value);
  const m = 0x5bd1e995n;
  let hash = u32(0x9747b28cn ^ BigInt(bytes.length));
  const words = Math.floor(bytes.length / 4);
  for (let word = 0; word < words; word += 1) {
    let k = bytes.slice(4 * word, 4 * word + 4).reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n);
    k = u32(k * m);
    k = u32((k ^ (k >> 24n)) * m);
    hash = u32(hash * m) ^ k;
  }
  const rest = bytes.slice(4 * words);
  if (rest.length > 0) {
    hash ^= rest.reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n);
    hash = u32(hash * m);
  }
  hash = u32((hash ^ (hash >> 13n)) * m);
  return Number(BigInt.asIntN(32, hash ^ (hash >> 15n)));
}

test("murmur2() is the algorithm in plain arithmetic, for bytes of any value and length", () => {
  fc.assert(fc.property(fc.uint8Array(), (bytes) => expect(murmur2(bytes)).toBe(murmur2Oracle(bytes))));
});

test("murmur2() reads a part of a buffer as that part", () => {
  expect(murmur2(encode("xxabcxx").subarray(2, 5))).toBe(479470107);
});

test("partitionOfKey() is Kafka's: the positive part of murmur2 of the UTF-8 key", () => {
  const keys = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.string({ minLength: 1000, maxLength: 1100, size: "max" }),
  );
  fc.assert(
    fc.property(keys, fc.integer({ min: 1, max: 1024 }), (key, partitionCount) => {
      const expected = (murmur2Oracle(encode(key)) & 0x7fffffff) % partitionCount;
      expect(partitionOfKey(key, partitionCount)).toBe(expected);
    }),
    { numRuns: 200 },
  );
});

test("partitionOfKey() is right around the size of its buffer", () => {
  for (const length of [1023, 1024, 1025, 32 * 1024]) {
    const expected = (murmur2Oracle(encode("k".repeat(length))) & 0x7fffffff) % 1000;
    expect(partitionOfKey("k".repeat(length), 1000)).toBe(expected);
  }
  const expected = (murmur2Oracle(encode(`${"k".repeat(1022)}🌊`)) & 0x7fffffff) % 1000;
  expect(partitionOfKey(`${"k".repeat(1022)}🌊`, 1000)).toBe(expected);
});

// ── partitionRecords ─────────────────────────────────────────────────────────────────────────────────────

interface Wish {
  readonly key?: string;
  readonly partition?: number;
}

function recordsOf(wishes: readonly Wish[]): readonly NewRecord[] {
  return parseJsonProduce(JSON.stringify({ records: wishes.map((wish, value) => ({ value, ...wish })) }))
    .records;
}

function partitioned(wishes: readonly Wish[], stickyPartition = 0) {
  const records = recordsOf(wishes);
  const batch = partitionRecords([{ topic: "orders", partitionCount: 4, stickyPartition, records }]);
  const partitions = batch.partitions.map(({ partition, records }) => [
    partition,
    records.map((r) => r.value),
  ]);
  return { partitions, runs: batch.runs.map(({ at, count }) => [batch.partitions[at]?.partition, count]) };
}

test("partitionRecords() follows the record's own partition before its key", () => {
  const own = (partitionOfKey("k", 4) + 1) % 4;
  expect(partitioned([{ key: "k", partition: own }]).partitions).toEqual([[own, ["0"]]]);
});

test("partitionRecords() follows the key before the sticky partition", () => {
  const byKey = partitionOfKey("", 4);
  expect(partitioned([{ key: "" }], (byKey + 1) % 4).partitions).toEqual([[byKey, ["0"]]]);
});

test("partitionRecords() puts all records without key and partition into the sticky one", () => {
  expect(partitioned([{}, {}, {}], 2)).toEqual({ partitions: [[2, ["0", "1", "2"]]], runs: [[2, 3]] });
});

test("partitionRecords() names each partition once, in order of appearance, and folds neighbours", () => {
  const wishes = [3, 1, 1, 3, 3, 0, 1].map((partition) => ({ partition }));
  expect(partitioned(wishes)).toEqual({
    partitions: [
      [3, ["0", "3", "4"]],
      [1, ["1", "2", "6"]],
      [0, ["5"]],
    ],
    runs: [
      [3, 1],
      [1, 2],
      [3, 2],
      [0, 1],
      [1, 1],
    ],
  });
});

test("partitionRecords() keeps the topics of a transaction apart, and folds what follows on in one of them", () => {
  const ofTopic = (topic: string, wishes: readonly Wish[]) => ({
    topic,
    partitionCount: 4,
    stickyPartition: 0,
    records: recordsOf(wishes),
  });
  const { partitions, runs } = partitionRecords([
    ofTopic("orders", [{ partition: 1 }, { partition: 2 }]),
    ofTopic("orders", [{ partition: 2 }, { partition: 2 }]),
    ofTopic("payments", [{ partition: 1 }]),
    ofTopic("orders", [{ partition: 1 }]),
  ]);
  expect(partitions.map(({ topic, partition, records }) => [topic, partition, records.length])).toEqual([
    ["orders", 1, 2],
    ["orders", 2, 3],
    ["payments", 1, 1],
  ]);
  expect(runs).toEqual([
    { at: 0, count: 1 },
    { at: 1, count: 3 },
    { at: 2, count: 1 },
    { at: 0, count: 1 },
  ]);
});

// ── requirePartitions ────────────────────────────────────────────────────────────────────────────────────

test("requirePartitions() takes the last partition and refuses the one behind it, saying which record", () => {
  const ofTopic = { topic: "orders", partitionCount: 4 };
  requirePartitions(recordsOf([{ partition: 3 }]), ofTopic);
  const refused = (append?: number) => () =>
    requirePartitions(recordsOf([{ partition: 3 }, { partition: 4 }]), { ...ofTopic, append });
  expect(refused()).toThrow(Problem);
  expect(refused()).toThrow(
    expect.objectContaining({
      code: "unknown_partition",
      message: "Cannot produce records[1].partition: found 4, allowed 0 to 3",
      facts: { record: 1, topic: "orders", partition: 4, partitionCount: 4 },
    }),
  );
  expect(refused(2)).toThrow("Cannot produce appends[2].records[1].partition: found 4, allowed 0 to 3");
});

// ── runsWithOffsets ──────────────────────────────────────────────────────────────────────────────────────

const at = (topic: string, partition: number, offset: number) => ({ topic, partition, offset });

test("runsWithOffsets() counts on from the offset of each partition", () => {
  const partitions = [at("orders", 3, 0), at("orders", 1, 10)];
  const runs = [0, 1, 0, 1].map((place, index) => ({ at: place, count: index + 1 }));
  expect(runsWithOffsets(runs, partitions)).toEqual([
    { ...at("orders", 3, 0), count: 1 },
    { ...at("orders", 1, 10), count: 2 },
    { ...at("orders", 3, 1), count: 3 },
    { ...at("orders", 1, 12), count: 4 },
  ]);
  expect(partitions[0]?.offset).toBe(0);
});

test("runsWithOffsets() tells where each record went", () => {
  const partitions = fc.array(fc.nat({ max: 3 }), { minLength: 1 });
  fc.assert(
    fc.property(partitions, fc.array(fc.nat(), { minLength: 4, maxLength: 4 }), (wished, bases) => {
      const records = recordsOf(wished.map((partition) => ({ partition })));
      const batch = partitionRecords([{ topic: "orders", partitionCount: 4, stickyPartition: 0, records }]);
      const offsets = batch.partitions.map(({ topic, partition }) =>
        at(topic, partition, bases[partition] ?? 0),
      );
      const told = runsWithOffsets(batch.runs, offsets).flatMap(({ partition, offset, count }) =>
        Array.from({ length: count }, (_, index) => `${partition}@${offset + index}`),
      );
      const placeByRecord = new Map(
        batch.partitions.flatMap(({ partition, records: list }) =>
          list.map((record, index) => [record, `${partition}@${(bases[partition] ?? 0) + index}`] as const),
        ),
      );
      expect(told).toEqual(records.map((record) => placeByRecord.get(record) ?? "nowhere"));
    }),
  );
});

test("runsWithOffsets() throws where a partition has no offset", () => {
  expect(() => runsWithOffsets([{ at: 1, count: 1 }], [])).toThrow("No offset for partition 1");
});
