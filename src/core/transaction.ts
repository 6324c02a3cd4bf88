// What is written together, all or nothing: from the text of a request to a checked transaction, or a Problem. A
// produce is a transaction of one append.

import type { GroupCommits, ProducerSequence, Run, TopicExpectation, TopicRun } from "../protocol/frames.ts";
import { BATCH_BYTES_MAX } from "../protocol/limits.ts";
import {
  type ProduceEnvelope,
  type ProduceOptions,
  produceOptionsSchema,
  type TransactionEnvelope,
} from "../protocol/schemas/client.ts";
import { judge } from "../protocol/schemas/verdict.ts";
import { findAmbiguity, recordsTexts } from "./json-object.ts";
import { utf8Length } from "./json-text.ts";
import { Problem } from "./problem.ts";
import { type Batch, parseJsonProduce, parseRecordsArray, requireBatchRecords } from "./produce-request.ts";

export interface Transaction {
  /** In the order of the request; a topic may come again. */
  readonly appends: readonly TopicAppend[];
  readonly producer?: ProducerSequence | undefined;
  readonly commits?: GroupCommits | undefined;
  readonly expect?: readonly TopicExpectation[] | undefined;
}

export interface TopicAppend extends Batch {
  readonly topic: string;
  /** Its place among the appends of the request; a produce has none. */
  readonly append?: number;
}

/** What has become of a transaction. */
export interface Written {
  /** In the order of the request; consecutive records of one partition are one run. */
  readonly runs: readonly TopicRun[];
  /** It was written before: this is the answer of then, without runs where that is not kept any more. */
  readonly duplicate?: true;
}

/** What whoever has produced is told: it knows the topic. */
export function producedRuns(runs: readonly TopicRun[]): readonly Run[] {
  return runs.map(({ partition, offset, count }) => ({ partition, offset, count }));
}

/** The JSON body of POST /v1/topics/:topic/records. */
export function parseProduceBody(topic: string, text: string): Transaction {
  const { records, producer, expect } = parseJsonProduce(text);
  const members = { ...parsedMember("producer", producer), ...parsedMember("expect", expect) };
  const verdict = judge(produceOptionsSchema, members);
  if (verdict.kind !== "valid") {
    const why = verdict.kind === "unknownMember" ? `there is no member "${verdict.member}"` : verdict.why;
    throw new Problem("bad_request", `Cannot produce the body: ${why}`);
  }
  return produceOf(topic, { records }, verdict.output);
}

/** `text` of a produce frame, and the rest of it, checked. */
export function readProduce(text: string, { topic, ...options }: ProduceEnvelope): Transaction {
  const [recordsText = ""] = recordsTexts(text);
  return produceOf(topic, { records: parseRecordsArray(recordsText) }, options);
}

export function produceOf(
  topic: string,
  batch: Batch,
  { producer, expect }: ProduceOptions = {},
): Transaction {
  return {
    appends: [{ topic, ...batch }],
    producer,
    expect: expect?.map((expectation) => ({ topic, ...expectation })),
  };
}

/** `text` of a transact frame or of a body of POST /v1/transactions, and the rest of it, checked. */
export function readTransaction(
  text: string,
  { appends, producer, commits, expect }: TransactionEnvelope,
): Transaction {
  if (appends.length === 0 && !commits)
    throw new Problem(
      "bad_request",
      "Cannot transact: found neither appends nor commits, allowed one of them",
    );
  const texts = recordsTexts(text); // in the order of the appends, of which each has one
  requireBytes(texts);
  let records = 0;
  const batches = appends.map(({ topic }, index) => {
    const batch = parseRecordsArray(texts[index] ?? "", index);
    records += batch.length;
    requireBatchRecords(records, index);
    return { topic, append: index, records: batch };
  });
  return { appends: batches, producer, commits, expect };
}

/** A body of that size never comes so far; a frame may be a little larger. */
function requireBytes(texts: readonly string[]): void {
  const found = texts.reduce((sum, text) => sum + utf8Length(text), 0);
  if (found <= BATCH_BYTES_MAX) return;
  const message = `Cannot transact: found ${found} bytes of records, allowed ${BATCH_BYTES_MAX}`;
  throw new Problem("batch_too_large", message, { found, allowed: BATCH_BYTES_MAX });
}

function parsedMember(name: string, text: string | undefined): Record<string, unknown> {
  if (text === undefined) return {};
  const ambiguity = findAmbiguity(text);
  if (ambiguity !== undefined)
    throw new Problem("bad_request", `Cannot produce the body: in "${name}" ${ambiguity}`);
  return { [name]: JSON.parse(text) };
}
