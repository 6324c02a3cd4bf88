// Browser-safe. One send or transaction, from what the user hands over to the text of its frame. Pure.

import { errorOf } from "./errors.ts";
import type { LaneFrame, LaneItem } from "./producer-lane.ts";
import type { Produced, SendOptions, Transaction } from "./producer-options.ts";
import type { Waiting } from "./producer-queue.ts";
import { encodeEntries, encodeRecords, type ProducerRecord, requireFrame } from "./producer-records.ts";

/** What is known before it is handed over. */
export interface Draft extends Waiting {
  /** What stands behind the records in the frame. */
  readonly tail: string;
  readonly commits: Transaction["commits"];
  /** As they were written last. */
  commitsText: string;
}

export interface Item extends Draft, LaneItem {
  readonly resolve: (produced: Produced) => void;
  readonly reject: (reason: unknown) => void;
  /** Takes the listener off its signal. */
  stopListening: () => void;
}

/** Throws `bad_request` and `batch_too_large`. */
export function draftSend(
  topic: string,
  records: ProducerRecord | readonly ProducerRecord[],
  { expect }: SendOptions,
): Draft {
  requireTopic(topic);
  const { text, count } = encodeRecords(records);
  const tail = expect ? `,"expect":${encodeEntries("expect", expect, ["partition", "logEndOffset"])}` : "";
  requireFrame(text, tail);
  return { topic, text, count, tail, commits: undefined, commitsText: "", isAlone: expect !== undefined };
}

/** Throws `bad_request` and `batch_too_large`. */
export function draftTransaction({ appends, commits, expect }: Transaction): Draft {
  let count = 0;
  const texts = appends.map(({ topic, records }) => {
    requireTopic(topic);
    const encoded = encodeRecords(records);
    count += encoded.count;
    return `{"topic":${JSON.stringify(topic)},"records":[${encoded.text}]}`;
  });
  const text = texts.join(",");
  for (const { topic } of expect ?? []) requireTopic(topic);
  const tail = expect ? `,"expect":${encodeEntries("expect", expect, ["partition", "logEndOffset"])}` : "";
  requireFrame(text, tail);
  return { topic: undefined, text, count, tail, commits, commitsText: "", isAlone: true };
}

/** Asks for the commits of a transaction that is about to be sent. Throws what that throws, where it is the first time. */
export function refreshCommits(item: Draft): void {
  const { commits, commitsText } = item;
  if (!commits) return;
  try {
    const { group, offsets } = typeof commits === "function" ? commits() : commits;
    requireTopic(group);
    for (const { topic } of offsets) requireTopic(topic);
    const entries = encodeEntries("commits", offsets, ["partition", "generation", "offset"]);
    const text = `,"commits":{"group":${JSON.stringify(group)},"offsets":${entries}}`;
    requireFrame(item.text, item.tail, text);
    item.commitsText = text;
  } catch (error) {
    // It may have been written: only the server knows, and it finds a repeat before it looks at the commits.
    if (commitsText === "") throw error;
  }
}

export function frameText(
  { epoch, sequence, items }: LaneFrame<Item>,
  { id, producerId }: { readonly id: number; readonly producerId: string | undefined },
): string {
  const [first] = items;
  const texts = items.length === 1 ? (first?.text ?? "") : items.map(({ text }) => text).join(",");
  const what =
    first?.topic === undefined
      ? `"type":"transact","appends":[${texts}]${first?.commitsText}`
      : `"type":"produce","topic":${JSON.stringify(first.topic)},"records":[${texts}]`;
  const producer =
    producerId === undefined ? "" : `,"producer":${JSON.stringify({ id: producerId, epoch, sequence })}`;
  return `{"id":${id},${what}${first?.tail}${producer}}`;
}

/** Anything but text here would close the connection. Whether it is a name, the server says. */
function requireTopic(name: unknown): void {
  if (typeof name !== "string")
    throw errorOf(
      "bad_request",
      `Cannot write: found ${typeof name} where the name of a topic or group must be`,
    );
}
