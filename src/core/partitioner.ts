import { Problem } from "./problem.ts";
import type { NewRecord } from "./produce-request.ts";

/** Consecutive records of a request that belong to one partition. */
export interface PartitionRun {
  readonly partition: number;
  readonly count: number;
}

/** A run with its place in the log: `offset` is that of its first record, the others follow. */
export interface AppendedRun extends PartitionRun {
  readonly offset: number;
}

export interface PartitionedBatch {
  /** Each partition once, in order of first appearance. */
  readonly partitions: readonly { readonly partition: number; readonly records: readonly NewRecord[] }[];
  /** In the order of the request. */
  readonly runs: readonly PartitionRun[];
}

interface PartitionsOf {
  readonly topic: string;
  readonly partitionCount: number;
}

export interface PartitionChoice extends PartitionsOf {
  /** Of the records with neither partition nor key. */
  readonly stickyPartition: number;
}

/** By the record's own partition, else by its key, else the sticky one. */
export function partitionRecords(records: readonly NewRecord[], choice: PartitionChoice): PartitionedBatch {
  const recordsByPartition = new Map<number, NewRecord[]>();
  const runs: { partition: number; count: number }[] = [];
  for (const [index, record] of records.entries()) {
    const partition = partitionOf(record, choice);
    if (partition >= choice.partitionCount)
      throw unknownPartition({
        record: index,
        topic: choice.topic,
        partition,
        partitionCount: choice.partitionCount,
      });
    const run = runs.at(-1);
    if (run?.partition === partition) run.count += 1;
    else runs.push({ partition, count: 1 });
    const list = recordsByPartition.get(partition);
    if (list === undefined) recordsByPartition.set(partition, [record]);
    else list.push(record);
  }
  const partitions = Array.from(recordsByPartition, ([partition, list]) => ({ partition, records: list }));
  return { partitions, runs };
}

/** Throws `unknown_partition` where a record asks for one that the topic does not have. */
export function requirePartitions(
  records: readonly NewRecord[],
  { topic, partitionCount }: PartitionsOf,
): void {
  for (const [record, { partition }] of records.entries()) {
    if (partition !== null && partition >= partitionCount)
      throw unknownPartition({ record, topic, partition, partitionCount });
  }
}

/** The runs of a batch whose partitions were appended from these offsets on. */
export function runsWithOffsets(
  runs: readonly PartitionRun[],
  baseOffsets: ReadonlyMap<number, number>,
): AppendedRun[] {
  const nextOffsets = new Map(baseOffsets);
  return runs.map(({ partition, count }) => {
    const offset = nextOffsets.get(partition);
    if (offset === undefined) throw new Error(`No base offset for partition ${partition} of a run`);
    nextOffsets.set(partition, offset + count);
    return { partition, offset, count };
  });
}

/** As Kafka's default partitioner: `toPositive(murmur2(key)) % n`. */
export function partitionOfKey(key: string, partitionCount: number): number {
  const { read, written } = encoder.encodeInto(key, scratch);
  const hash = read === key.length ? murmur2Of(scratchView, written) : murmur2(encoder.encode(key));
  return (hash & 0x7fffffff) % partitionCount;
}

const encoder = new TextEncoder();
/** Keys that do not fit get an array of their own. */
const scratch = new Uint8Array(1024);
const scratchView = new DataView(scratch.buffer);

/** Kafka's murmur2, a signed 32-bit integer. */
export function murmur2(bytes: Uint8Array): number {
  return murmur2Of(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), bytes.byteLength);
}

function murmur2Of(view: DataView, length: number): number {
  const tail = length & ~3;
  let hash = SEED ^ length;
  for (let at = 0; at < tail; at += 4) {
    const word = Math.imul(view.getInt32(at, true), M);
    hash = Math.imul(hash, M) ^ Math.imul(word ^ (word >>> 24), M);
  }
  for (let at = tail; at < length; at += 1) hash ^= view.getUint8(at) << (8 * (at - tail));
  if (tail < length) hash = Math.imul(hash, M);
  hash = Math.imul(hash ^ (hash >>> 13), M);
  return hash ^ (hash >>> 15);
}

const SEED = 0x9747b28c;
const M = 0x5bd1e995;

function partitionOf(record: NewRecord, { partitionCount, stickyPartition }: PartitionChoice): number {
  if (record.partition !== null) return record.partition;
  return record.key === null ? stickyPartition : partitionOfKey(record.key, partitionCount);
}

function unknownPartition(
  facts: PartitionsOf & { readonly record: number; readonly partition: number },
): Problem {
  const { record, partition, partitionCount } = facts;
  const allowed = `0 to ${partitionCount - 1}`;
  const message = `Cannot produce records[${record}].partition: found ${partition}, allowed ${allowed}`;
  return new Problem("unknown_partition", message, { ...facts });
}
