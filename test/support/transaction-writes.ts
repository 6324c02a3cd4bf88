// Transactions as the store writes them, of topics as they were found.

import { partitionRecords } from "../../src/core/partitioner.ts";
import { type NewRecord, parseJsonProduce } from "../../src/core/produce-request.ts";
import type { Operation } from "../../src/store/operations.ts";
import type { Topic } from "../../src/store/topic-tables.ts";
import {
  type TransactionOutcome,
  type TransactionWrite,
  writeTransaction,
} from "../../src/store/transactions.ts";
import type { WriteQueue } from "../../src/store/write-queue.ts";

/** Records with a partition go there, others by their key or to partition 0. */
export interface AppendTo {
  readonly topic: Topic;
  readonly records: readonly NewRecord[];
}

export function transactionOf(
  queue: WriteQueue,
  conditions: TransactionWrite["conditions"],
  ...appends: readonly AppendTo[]
): Operation<TransactionOutcome | undefined> {
  const topics = new Map(appends.map(({ topic }) => [topic.topic, topic]));
  const batch = partitionRecords(
    appends.map(({ topic, records }) => {
      const partitionCount = topic.partitionIds.length;
      return { topic: topic.topic, partitionCount, stickyPartition: 0, records };
    }),
  );
  return writeTransaction({ op: queue.nextOp(), ...batch, topics, conditions });
}

/** To one partition; `values` are JSON texts. */
export function recordsAt(partition: number, ...values: readonly string[]): readonly NewRecord[] {
  const texts = values.map((value) => `{"partition":${partition},"value":${value}}`);
  return parseJsonProduce(`{"records":[${texts.join(",")}]}`).records;
}
