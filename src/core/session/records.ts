// The loop of a partition: read from my position; when there is nothing, wait until it has grown; read again.

import { SOCKET_BUFFER_BYTES_MAX, SOCKET_WINDOW_BYTES_MAX } from "../../protocol/limits.ts";
import type { SessionEffect, SessionEvent, Surroundings, TextChunk } from "./events.ts";
import { alarmBy } from "./heartbeat.ts";
import {
  find,
  findPartition,
  memberOf,
  type PartitionRef,
  partitionRef,
  type Session,
  type Subscription,
} from "./state.ts";
import { endRead, freeAll, nextRead, type PartitionDelivery, type SocketRoom, takeChunk } from "./window.ts";

export function readMore(session: Session, around: Surroundings): readonly SessionEffect[] {
  // `drained` comes when the socket is full no more.
  if (session.isClosed || session.isDraining || isFull(around)) return [];
  const effects: SessionEffect[] = [];
  for (const subscription of [...session.subscriptions.values()]) {
    const read = subscription.leaving ? undefined : nextRead(subscription.delivery, roomOf(session));
    if (!read) continue;
    takeTurn(session, subscription);
    effects.push({ type: "read", ref: partitionRef(subscription, read.partition), request: read.request });
  }
  return effects;
}

/** Who was served goes behind the others: where the room of the socket is scarce, each gets of it. */
function takeTurn({ subscriptions }: Session, subscription: Subscription): void {
  subscriptions.delete(subscription.name);
  subscriptions.set(subscription.name, subscription);
}

export function handleChunk(
  session: Session,
  { ref, chunk }: Extract<SessionEvent, { type: "chunk" }>,
  around: Surroundings,
): readonly SessionEffect[] {
  const subscription = find(session, ref);
  if (!subscription) return [];
  const partition = findPartition(subscription, ref);
  if (!partition || partition.isPaused || session.isDraining || isFull(around))
    return endReading(session, ref);
  if (isOutside(partition, chunk)) return reposition(subscription, partition);
  const { source, ack } = subscription;
  if (ack === "none" && source.kind === "group" && chunk.count > 0) {
    session.waiting.commitsAhead += 1;
    partition.isCommittedAhead = true;
    subscription.ahead = { ref, committed: undefined };
    return [{ type: "commitAhead", ref, group: source.group, ack: endOf(partition, chunk), chunk }];
  }
  return deliver(session, { subscription, partition, chunk }, around);
}

export function handleCommittedAhead(
  session: Session,
  { ref, chunk, isFenced }: Extract<SessionEvent, { type: "committedAhead" }>,
): readonly SessionEffect[] {
  const subscription = find(session, ref);
  const partition = subscription && findPartition(subscription, ref);
  if (partition && isFenced) partition.phase = "halted"; // somebody else has it: word of that follows
  if (!subscription || !partition || isFenced) return endCommitAhead(session, ref);
  session.waiting.commitsAhead -= 1;
  subscription.ahead = { ref, committed: chunk };
  return [];
}

/** Nothing of the chunk is to be sent. */
export function endCommitAhead(session: Session, ref: PartitionRef): readonly SessionEffect[] {
  session.waiting.commitsAhead -= 1;
  const subscription = find(session, ref);
  if (subscription) subscription.ahead = undefined;
  return endReading(session, ref);
}

/**
 * At most once: what is committed counts as processed, whatever becomes of it. So it is sent though its partition is
 * paused, though the client is leaving, and though the server is about to stop: nobody else will. It waits for nothing
 * but room in the socket, and where the client is leaving not for that.
 */
export function sendCommitted(session: Session, around: Surroundings): readonly SessionEffect[] {
  let { bufferedBytes } = around;
  return [...session.subscriptions.values()].flatMap((subscription) => {
    const { ahead, leaving } = subscription;
    if (!ahead?.committed) return [];
    const { ref, committed: chunk } = ahead;
    const partition = findPartition(subscription, ref);
    if (partition && isFull({ bufferedBytes }) && !leaving) return [];
    subscription.ahead = undefined;
    if (!partition) return endReading(session, ref);
    bufferedBytes += chunk.bytes; // of many that have waited not all go at once
    return deliver(session, { subscription, partition, chunk }, around);
  });
}

/** The read is over and brought nothing: the partition, where it is still there, is read again when it may be. */
function endReading(session: Session, ref: PartitionRef): readonly SessionEffect[] {
  const subscription = find(session, ref);
  if (subscription) endRead(subscription.delivery, findPartition(subscription, ref));
  return [];
}

export function handleReadGone(session: Session, ref: PartitionRef): readonly SessionEffect[] {
  const subscription = find(session, ref);
  const partition = subscription && findPartition(subscription, ref);
  if (partition) partition.phase = "halted";
  return endReading(session, ref);
}

function deliver(
  session: Session,
  delivered: { subscription: Subscription; partition: PartitionDelivery; chunk: TextChunk },
  around: Surroundings,
): readonly SessionEffect[] {
  const { subscription, partition, chunk } = delivered;
  const { name, delivery, ack, ackTimeoutMs } = subscription;
  const { nowMs } = around;
  const effects: SessionEffect[] = [];
  if (takeChunk(delivery, partition, { chunk, nowMs })) {
    const text = recordsFrameText(name, partition, chunk);
    effects.push({ type: "sendText", text, tellsTaken: ack === "none" });
  }
  if (partition.phase === "waiting") {
    const { partitionId } = partition;
    const ref = partitionRef(subscription, partition);
    effects.push({ type: "wait", ref, partitionId, position: chunk.next });
  }
  if (ackTimeoutMs !== undefined) effects.push(...alarmBy(session, around, nowMs + ackTimeoutMs));
  if (chunk.firstRecordBytes === undefined) partition.isCommittedAhead = false;
  return effects;
}

/** Without acks a frame leaves the window when the socket has taken its bytes. */
export function freeTaken(session: Session, { bufferedBytes }: Surroundings): void {
  if (bufferedBytes > 0) return;
  for (const { ack, delivery } of session.subscriptions.values()) {
    if (ack !== "none" || delivery.unackedRecords === 0) continue;
    for (const partition of delivery.turns) freeAll(delivery, partition);
  }
}

// ── positions that have left the log ─────────────────────────────────────────────────────────────────────

function isOutside({ position }: PartitionDelivery, { logStartOffset, logEndOffset }: TextChunk): boolean {
  return position !== null && (position < logStartOffset || position > logEndOffset);
}

function reposition(subscription: Subscription, partition: PartitionDelivery): readonly SessionEffect[] {
  endRead(subscription.delivery, partition);
  partition.phase = "halted";
  const { partitionId, topic, partition: number, generation } = partition;
  const member = memberOf(subscription);
  const policy = subscription.policies.outOfRange;
  const request = { partitionId, topic, partition: number, generation, member, policy };
  return [{ type: "reposition", ref: partitionRef(subscription, partition), request }];
}

// ─────────────────────────────────────────────────────────────────────────────────────────────────────────

function isFull({ bufferedBytes }: Pick<Surroundings, "bufferedBytes">): boolean {
  return bufferedBytes >= SOCKET_BUFFER_BYTES_MAX;
}

function roomOf({ subscriptions }: Session): SocketRoom {
  let taken = 0;
  for (const { delivery } of subscriptions.values()) taken += delivery.unackedBytes + delivery.reservedBytes;
  return { bytes: SOCKET_WINDOW_BYTES_MAX - taken, isEmpty: taken === 0 };
}

function endOf({ topic, partition, generation }: PartitionDelivery, { next }: TextChunk) {
  return { topic, partition, generation, offset: next, metadata: null, refusal: undefined };
}

/** A RecordsFrame; the text of its records is shared by all who read the same chunk. */
function recordsFrameText(
  subscription: string,
  { generation, topic, partition }: PartitionDelivery,
  { records, next, logEndOffset }: TextChunk,
): string {
  return `{"type":"records","subscription":"${subscription}","generation":${generation},"topic":"${topic}","partition":${partition},"records":[${records}],"next":${next},"logEndOffset":${logEndOffset}}`;
}

export function handleGrown(session: Session, ref: PartitionRef): readonly SessionEffect[] {
  const subscription = find(session, ref);
  const partition = subscription && findPartition(subscription, ref);
  if (partition?.phase === "waiting") partition.phase = "ready";
  return [];
}
