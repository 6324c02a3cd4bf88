// Where a reader starts: which partitions, and from where in each. Pure decisions over what was read of its topics.

import type { ReaderStart } from "../protocol/frames.ts";
import { PARTITIONS_PER_SUBSCRIPTION_MAX } from "../protocol/limits.ts";
import type { ReaderPlace } from "../protocol/places.ts";
import { placeInside, resolvePlace, type TimePlace, timeOf } from "./places.ts";
import { Problem } from "./problem.ts";

export interface ReaderRequest {
  readonly topics: readonly string[];
  /** A place in all partitions of the topics, or these partitions only. */
  readonly from: ReaderPlace | readonly ReaderStart[];
}

export interface ReadablePartition {
  readonly topic: string;
  readonly topicId: number;
  readonly partition: number;
  readonly partitionId: number;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
}

export interface ReaderPartition extends ReadablePartition {
  readonly position: number;
}

/** The partitions whose start only a look at the timestamps can find. */
export function neededReaderTimes(
  { from }: ReaderRequest,
  partitions: readonly ReadablePartition[],
): readonly { readonly partitionId: number; readonly place: TimePlace }[] {
  const place = isPlace(from) ? timeOf(from) : undefined;
  return place ? partitions.map(({ partitionId }) => ({ partitionId, place })) : [];
}

/** Throws `unknown_topic`, `unknown_partition`, `offset_out_of_range`, or `bad_request` where there are too many. */
export function planReader(
  request: ReaderRequest,
  partitions: readonly ReadablePartition[],
  times: ReadonlyMap<number, number>,
): readonly ReaderPartition[] {
  const { topics, from } = request;
  const known = new Set(partitions.map(({ topic }) => topic));
  const unknown = topics.find((topic) => !known.has(topic));
  if (unknown !== undefined) throw unknownTopic(unknown);
  if (isPlace(from)) {
    refuseTooMany(partitions.length);
    return partitions.map((partition) => placed(partition, from, times.get(partition.partitionId)));
  }
  const byName = new Map(partitions.map((each) => [`${each.topic}/${each.partition}`, each]));
  return from.map((start) => startIn(start, byName));
}

/**
 * Partitions that have appeared since: they start at their beginning, as in a group. Of a reader of certain
 * partitions only those, in a topic that was created again; one that was asked for by topicId is gone for good.
 */
export function planReaderGain(
  { from }: ReaderRequest,
  partitions: readonly ReadablePartition[],
  knownPartitionIds: ReadonlySet<number>,
): readonly ReaderPartition[] {
  return partitions
    .filter((partition) => !knownPartitionIds.has(partition.partitionId) && isWanted(partition, from))
    .map((partition) => ({ ...partition, position: partition.logStartOffset }));
}

function isWanted({ topic, partition, topicId }: ReadablePartition, from: ReaderRequest["from"]): boolean {
  if (isPlace(from)) return true;
  return from.some(
    (start) =>
      start.topic === topic &&
      start.partition === partition &&
      (start.topicId === undefined || start.topicId === topicId),
  );
}

function placed(
  partition: ReadablePartition,
  place: ReaderPlace,
  offsetAtTime: number | undefined,
): ReaderPartition {
  const facts = { ...partition, committedOffset: null, offsetAtTime };
  return { ...partition, position: inPartition(partition, () => resolvePlace(place, facts)) };
}

function startIn(start: ReaderStart, byName: ReadonlyMap<string, ReadablePartition>): ReaderPartition {
  const first = byName.get(`${start.topic}/0`); // a topic that is there has a partition 0
  if (first && start.topicId !== undefined && first.topicId !== start.topicId) throw otherTopic(start, first);
  const found = byName.get(`${start.topic}/${start.partition}`);
  if (!found) throw unknownPartition(start);
  return { ...found, position: inPartition(found, () => placeInside(start, start.offset, found)) };
}

/** A refusal says of which partition it speaks. */
function inPartition(partition: ReadablePartition, resolve: () => number): number {
  try {
    return resolve();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    const { topic, partition: number } = partition;
    const message = `Topic "${topic}" partition ${number}: ${error.message}`;
    throw new Problem(error.code, message, { ...error.facts, topic, partition: number });
  }
}

function isPlace(from: ReaderRequest["from"]): from is ReaderPlace {
  return !Array.isArray(from);
}

function unknownTopic(topic: string): Problem {
  return new Problem("unknown_topic", `Cannot read topic "${topic}": there is no such topic`, { topic });
}

function otherTopic({ topic, topicId }: ReaderStart, found: ReadablePartition): Problem {
  const why = `the topic of that name has the topicId ${found.topicId} now: offsets of ${topicId} mean nothing in it`;
  return new Problem("unknown_topic", `Cannot read topic "${topic}" with the topicId ${topicId}: ${why}`, {
    topic,
    topicId,
    found: found.topicId,
  });
}

function unknownPartition({ topic, partition }: ReaderStart): Problem {
  const message = `Cannot read topic "${topic}" partition ${partition}: it has no such partition`;
  return new Problem("unknown_partition", message, { topic, partition });
}

function refuseTooMany(found: number): void {
  if (found <= PARTITIONS_PER_SUBSCRIPTION_MAX) return;
  throw new Problem(
    "bad_request",
    `Cannot read ${found} partitions: at most ${PARTITIONS_PER_SUBSCRIPTION_MAX} a subscription`,
    { found, allowed: PARTITIONS_PER_SUBSCRIPTION_MAX },
  );
}
