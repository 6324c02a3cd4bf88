// Topics and records for the tests of appends and reads: the text of a record counts, so it is given as text.

import { type NewRecord, parseJsonProduce } from "../../src/core/produce-request.ts";
import { type AppendedPartition, appendRecords, type PartitionAppend } from "../../src/store/appends.ts";
import type { Topic } from "../../src/store/topic-tables.ts";
import { Topics } from "../../src/store/topics.ts";
import { openQueue, type TestDatabase } from "./database.ts";
import { FakeTime } from "./fake-time.ts";

/** Records of a request as a client would write it. */
export function records(...texts: readonly string[]): readonly NewRecord[] {
  return parseJsonProduce(`{"records":[${texts.join(",")}]}`).records;
}

export function values(...all: readonly string[]): readonly NewRecord[] {
  return records(...all.map((value) => `{"value":${value}}`));
}

/** The member of a record with bytes. */
export function bytesMember(bytes: Uint8Array): string {
  return `"bytes":"${Buffer.from(bytes).toString("base64")}"`;
}

type Appended = Promise<readonly AppendedPartition[] | undefined>;

/** A queue on the database, and what is done through it. */
export function openLogStore({ db }: TestDatabase) {
  const queue = openQueue(db);
  const createTopic = async (partitionCount = 1, topic = "orders"): Promise<Topic> => {
    const topics = new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
    await topics.put(topic, partitionCount);
    return topics.require(topic);
  };
  const append = (topic: Topic, ...appends: readonly PartitionAppend[]): Appended =>
    queue.submit(appendRecords(topic, appends));
  /** All records to one partition. */
  const appendTo = (topic: Topic, list: readonly NewRecord[], partition = 0): Appended =>
    append(topic, { partition, records: list });
  return { queue, createTopic, append, appendTo };
}
