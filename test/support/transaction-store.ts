// Transactions as a server writes them, without the server: topics looked up, partitioned, submitted to its queue.

import { partitionRecords } from "../../src/core/partitioner.ts";
import { Problem } from "../../src/core/problem.ts";
import { type NewRecord, parseJsonProduce } from "../../src/core/produce-request.ts";
import type { Topic } from "../../src/store/topic-tables.ts";
import {
  type TransactionOutcome,
  type TransactionWrite,
  writeTransaction,
} from "../../src/store/transactions.ts";
import type { WriteQueue } from "../../src/store/write-queue.ts";

export type Conditions = TransactionWrite["conditions"];

/** A record: its value is JSON text. */
export type Placed = readonly [topic: Topic, partition: number, value: string];

/** One record. */
export function recordOf(value: string, partition = 0): readonly NewRecord[] {
  return parseJsonProduce(`{"records":[{"partition":${partition},"value":${value}}]}`).records;
}

/** As it would be submitted: the records are of topics as they were known when they were checked. */
export function transactionOf(queue: WriteQueue, conditions: Conditions, placed: readonly Placed[]) {
  return transactionOfRecords(
    queue,
    conditions,
    placed.map(([topic, partition, value]) => ({ topic, records: recordOf(value, partition) })),
  );
}

export function transactionOfRecords(
  queue: WriteQueue,
  conditions: Conditions,
  appends: readonly { readonly topic: Topic; readonly records: readonly NewRecord[] }[],
) {
  const batches = appends.map(({ topic: { topic, partitionIds }, records }) => ({
    ...{ topic, records, stickyPartition: 0 },
    partitionCount: partitionIds.length,
  }));
  const topics = new Map(appends.map(({ topic }) => [topic.topic, topic]));
  return writeTransaction({ op: queue.nextOp(), ...partitionRecords(batches), topics, conditions });
}

export function transact(
  queue: WriteQueue,
  conditions: Conditions,
  ...placed: readonly Placed[]
): Promise<TransactionOutcome | undefined> {
  return queue.submit(transactionOf(queue, conditions, placed));
}

/** What its client is told: runs as `topic/partition@offset+count`, a Problem by its code. */
export async function told(
  work: Promise<TransactionOutcome | undefined>,
): Promise<readonly string[] | string> {
  try {
    const outcome = await work;
    if (!outcome) return "not as known";
    const { runs, duplicate } = outcome.written;
    const texts = runs.map(
      ({ topic, partition, offset, count }) => `${topic}/${partition}@${offset}+${count}`,
    );
    return duplicate ? ["duplicate", ...texts] : texts;
  } catch (error) {
    if (error instanceof Problem) return error.code;
    throw error;
  }
}

export function problemOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => "nothing was refused",
    (error: unknown) => error,
  );
}
