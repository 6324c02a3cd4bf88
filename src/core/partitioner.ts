// Which partition each record goes to, and which runs of offsets a request gets for them.

import type { TopicRun } from "../protocol/frames.ts";
import { Problem } from "./problem.ts";
import type { NewRecord } from "./produce-request.ts";

/** What of a request goes where. */
export interface PartitionedBatch {
  /** Each partition once, in order of first appearance. */
  readonly partitions: readonly PartitionRecords[];
  /** In the order of the request: consecutive records of one partition. */
  readonly runs: readonly BatchRun[];
}

export interface PartitionRecords {
  readonly topic: string;
  readonly partition: number;
  readonly records: readonly NewRecord[];
}

/** `at`: which of the batch's partitions. */
export interface BatchRun {
  readonly at: number;
  readonly count: number;
}

/** A partition of a batch and where in it the batch begins. */
export interface PartitionOffset {
  readonly topic: string;
  readonly partition: number;
  /** Of the batch's first record in it; the others follow. */
  readonly offset: number;
}

/** Records for one topic. */
export interface TopicRecords {
  readonly topic: string;
  readonly partitionCount: number;
  /** Of the records with neither partition nor key. */
  readonly stickyPartition: number;
  readonly records: readonly NewRecord[];
}

/** By the record's own partition, which the topic must have, else by its key, else the sticky one. */
export function partitionRecords(appends: readonly TopicRecords[]): PartitionedBatch {
  const partitions: { topic: string; partition: number; records: NewRecord[] }[] = [];
  const runs: { at: number; count: number }[] = [];
  const placesByTopic = new Map<string, Map<number, number>>();
  for (const append of appends) {
    const { topic } = append;
    const places = placesByTopic.get(topic) ?? new Map<number, number>();
    placesByTopic.set(topic, places);
    for (const record of append.records) {
      const partition = partitionOf(record, append);
      let at = places.get(partition);
      if (at === undefined) {
        at = partitions.push({ topic, partition, records: [] }) - 1;
        places.set(partition, at);
      }
      partitions[at]?.records.push(record);
      const run = runs.at(-1);
      if (run?.at === at) run.count += 1;
      else runs.push({ at, count: 1 });
    }
  }
  return { partitions, runs };
}

interface RecordsOf {
  readonly topic: string;
  readonly partitionCount: number;
  /** Of a transaction's appends. */
  readonly append?: number | undefined;
}

/** Throws `unknown_partition` where a record asks for one that the topic does not have. */
export function requirePartitions(records: readonly NewRecord[], of: RecordsOf): void {
  for (const [record, { partition }] of records.entries()) {
    if (partition !== null && partition >= of.partitionCount)
      throw unknownPartition({ ...of, record, partition });
  }
}

interface PlacesOf {
  readonly topic: string;
  readonly append?: number | undefined;
  /** Of NDJSON: the line of each record. */
  readonly lines?: readonly number[] | undefined;
}

/** Throws `bad_request` where a record has no key: of a topic that is compacted each must have one. */
export function requireKeys(records: readonly NewRecord[], { topic, append, lines }: PlacesOf): void {
  const record = records.findIndex(({ key }) => key === null);
  if (record === -1) return;
  const line = lines?.[record];
  const path = `${append === undefined ? "" : `appends[${append}].`}records[${record}]`;
  const where = line === undefined ? path : `line ${line}`;
  const message = `Cannot produce ${where} without a key: topic "${topic}" is compacted, each of its records must have one`;
  throw new Problem("bad_request", message, {
    topic,
    ...(line === undefined ? { append, record } : { line }),
  });
}

/** The runs of a batch whose partitions were appended from these offsets on. */
export function runsWithOffsets(
  runs: readonly BatchRun[],
  partitions: readonly PartitionOffset[],
): readonly TopicRun[] {
  const nextOffsets = partitions.map(({ offset }) => offset);
  return runs.map(({ at, count }) => {
    const appended = partitions[at];
    const offset = nextOffsets[at];
    if (!appended || offset === undefined) throw new Error(`No offset for partition ${at} of a batch`);
    nextOffsets[at] = offset + count;
    return { topic: appended.topic, partition: appended.partition, offset, count };
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

function partitionOf(record: NewRecord, { partitionCount, stickyPartition }: TopicRecords): number {
  if (record.partition !== null) return record.partition;
  return record.key === null ? stickyPartition : partitionOfKey(record.key, partitionCount);
}

function unknownPartition(
  facts: RecordsOf & { readonly record: number; readonly partition: number },
): Problem {
  const { append, record, partition, partitionCount } = facts;
  const path = `${append === undefined ? "" : `appends[${append}].`}records[${record}].partition`;
  const message = `Cannot produce ${path}: found ${partition}, allowed 0 to ${partitionCount - 1}`;
  return new Problem("unknown_partition", message, { ...facts });
}
