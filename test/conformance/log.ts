// What a check makes for itself: topics, groups and producers with names that nobody else has, on any server of the
// database and in any run.

import assert from "node:assert/strict";
import type { AckEntry, AssignedPartition, Run } from "../../src/protocol/frames.ts";
import type { ServerUnderTest } from "./check.ts";
import { bodyOf, call } from "./http.ts";
import { countFrom } from "./match.ts";
import { type FrameOf, Socket } from "./socket.ts";

const LIFE_PATIENCE_MS = 15_000;
const LOOK_EVERY_MS = 50;

export function newName(prefix: string): string {
  return `${prefix}-${crypto.randomUUID()}`;
}

interface NewTopic {
  readonly partitionCount?: number;
  /** Of each partition; their values are their offsets. */
  readonly records?: number;
  /** Beside the number of partitions. */
  readonly settings?: object;
}

export async function newTopic(server: ServerUnderTest, options: NewTopic = {}): Promise<string> {
  const { partitionCount = 1, records = 0, settings = {} } = options;
  const topic = newName("topic");
  bodyOf(await call(server, "PUT", `/v1/topics/${topic}`, { partitionCount, ...settings }), 201);
  if (records === 0) return topic;
  const numbers = (partition: number) => countFrom(0, records).map((value) => ({ value, partition }));
  await produce(server, topic, countFrom(0, partitionCount).flatMap(numbers));
  return topic;
}

export async function produce(
  server: ServerUnderTest,
  topic: string,
  records: readonly object[],
): Promise<readonly Run[]> {
  return bodyOf(await call(server, "POST", recordsPath(topic), { records })).runs;
}

/** Where records are produced to. */
export function recordsPath(topic: string): string {
  return `/v1/topics/${topic}/records`;
}

/** Where records are read from. */
export function partitionPath(topic: string, partition = 0): string {
  return `/v1/topics/${topic}/partitions/${partition}/records`;
}

/** `{topicId, records, next, logStartOffset, logEndOffset}` */
export async function read(server: ServerUnderTest, topic: string, partition = 0, query = "") {
  return bodyOf(await call(server, "GET", partitionPath(topic, partition) + query));
}

/** Of each partition. */
export async function logEndsOf(server: ServerUnderTest, topic: string): Promise<readonly number[]> {
  const { partitions } = bodyOf(await call(server, "GET", `/v1/topics/${topic}`));
  return partitions.map(({ logEndOffset }: { logEndOffset: number }) => logEndOffset);
}

/** Deletes the records of partition 0 below that offset. */
export async function trim(server: ServerUnderTest, topic: string, before: number): Promise<void> {
  bodyOf(await call(server, "DELETE", `${partitionPath(topic)}?before=${before}`));
}

/** By topic and partition; null where nothing is committed. */
export async function committedOf(server: ServerUnderTest, group: string): Promise<readonly unknown[]> {
  const { offsets } = bodyOf(await call(server, "GET", `/v1/groups/${group}`));
  return offsets.map(({ committedOffset }: { committedOffset: number | null }) => committedOffset);
}

/** `using` closes its socket. */
export interface Subscriber extends Disposable {
  readonly socket: Socket;
  readonly subscribed: FrameOf<"subscribed">;
  /** As they were assigned at first. */
  readonly partitions: readonly AssignedPartition[];
}

/** On a socket of its own; what it is assigned at first has come. */
export async function subscribe(
  server: ServerUnderTest,
  fields: { readonly topics: readonly string[] } & Readonly<Record<string, unknown>>,
): Promise<Subscriber> {
  const socket = await Socket.open(server);
  socket.send({ type: "subscribe", ...fields });
  const subscribed = await socket.expect("subscribed");
  const { partitions } = await socket.expect("assigned");
  return { socket, subscribed, partitions, [Symbol.dispose]: () => socket[Symbol.dispose]() };
}

/** As subscribe(), where somebody has just gone: the server may notice only now, and hands over then. */
export async function succeed(
  server: ServerUnderTest,
  fields: Parameters<typeof subscribe>[1],
): Promise<Subscriber> {
  const subscriber = await subscribe(server, fields);
  if (subscriber.partitions.length > 0) return subscriber;
  const { partitions } = await subscriber.socket.expect("assigned");
  return { ...subscriber, partitions };
}

export function ackOf({ topic, partition, generation, next }: FrameOf<"records">): AckEntry {
  return { topic, partition, generation, offset: next };
}

/** Answered, entry by entry. */
export async function ack(
  socket: Socket,
  ...offsets: readonly AckEntry[]
): Promise<FrameOf<"acked">["offsets"]> {
  socket.send({ type: "ack", offsets });
  return (await socket.expect("acked")).offsets;
}

/** The partition that a subscriber was assigned; its only one by default. */
export function partitionOf(
  { partitions }: Pick<Subscriber, "partitions">,
  partition = 0,
): AssignedPartition {
  const found = partitions.find((assigned) => assigned.partition === partition);
  assert.ok(found, `partition ${partition} was not assigned`);
  return found;
}

/**
 * Nothing more comes to the socket, although the server has had an occasion: a reader that came after has been sent
 * what is produced now.
 */
export async function assertQuiet(server: ServerUnderTest, socket: Socket, topic: string): Promise<void> {
  using witness = await subscribe(server, { topics: [topic], from: "latest" });
  await produce(server, topic, [{ value: "witness" }]);
  await witness.socket.records(1);
  assert.deepEqual(await socket.settle(), []);
}

/** For what the server does by itself, of which it sends no word: looks at the topic until it is so. */
export async function untilTopic(
  server: ServerUnderTest,
  topic: string,
  // biome-ignore lint/suspicious/noExplicitAny: a check says by its expectations what it wants to find
  isSo: (partition: any) => boolean,
): Promise<void> {
  const lateAtMs = Date.now() + LIFE_PATIENCE_MS;
  for (;;) {
    const { partitions } = bodyOf(await call(server, "GET", `/v1/topics/${topic}`));
    if (isSo(partitions[0])) return;
    if (Date.now() > lateAtMs) assert.fail(`not in ${LIFE_PATIENCE_MS} ms: ${JSON.stringify(partitions)}`);
    await read(server, topic, 0, `?from=latest&waitMs=${LOOK_EVERY_MS}`); // so as not to look all the time
  }
}
