// Subscriptions without a group: which partitions they read and from where. Nothing is owned and nothing is written.

import { Problem } from "../core/problem.ts";
import {
  neededReaderTimes,
  planReader,
  planReaderGain,
  type ReaderPartition,
  type ReaderRequest,
} from "../core/readers.ts";
import type { Db } from "../store/db.ts";
import { findOffsetsAt } from "../store/places.ts";
import { readPartitions } from "../store/reader-partitions.ts";
import type { Topics } from "../store/topics.ts";

export interface ReaderDeps {
  readonly db: Db;
  readonly topics: Topics;
}

/** Rejects with a DbError, or a Problem as planReader() says. A request that is refused creates no topic. */
export async function openReader(
  deps: ReaderDeps,
  request: ReaderRequest,
): Promise<readonly ReaderPartition[]> {
  try {
    // Whatever of them changes after this is told.
    await Promise.all(request.topics.map((topic) => deps.topics.find(topic)));
    return await placeReader(deps, request);
  } catch (error) {
    if (!(error instanceof Problem && error.code === "unknown_topic")) throw error;
    if (!deps.topics.createsOnFirstUse) throw error;
    for (const topic of request.topics) await deps.topics.require(topic);
    return placeReader(deps, request);
  }
}

/** What the topics have beside the known. Rejects with a DbError. */
export async function gainForReader(
  { db }: ReaderDeps,
  request: ReaderRequest,
  knownPartitionIds: ReadonlySet<number>,
): Promise<readonly ReaderPartition[]> {
  return planReaderGain(request, await readPartitions(db, request.topics), knownPartitionIds);
}

async function placeReader({ db }: ReaderDeps, request: ReaderRequest): Promise<readonly ReaderPartition[]> {
  const partitions = await readPartitions(db, request.topics);
  const times = await findOffsetsAt(db, neededReaderTimes(request, partitions));
  return planReader(request, partitions, times);
}
