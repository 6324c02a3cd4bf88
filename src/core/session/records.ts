// The loop of a partition: read from my position; when there is nothing, wait until it has grown; read again.

import { SOCKET_BUFFER_BYTES_MAX, SOCKET_WINDOW_BYTES_MAX } from "../../protocol/limits.ts";
import type { SessionEffect, SessionEvent, Surroundings } from "./events.ts";
import {
  find,
  findPartition,
  type PartitionRef,
  partitionRef,
  type Session,
  type Subscription,
} from "./state.ts";
import {
  type ChunkExtent,
  endRead,
  nextRead,
  type PartitionDelivery,
  type SocketRoom,
  takeChunk,
} from "./window.ts";

export function readMore(session: Session, around: Surroundings): readonly SessionEffect[] {
  if (session.isClosed || isFull(around)) return []; // `drained` comes
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
  const { name, delivery } = subscription;
  const partition = findPartition(subscription, ref);
  if (!partition || isFull(around)) {
    endRead(delivery, partition); // it was lost, or it is read again when the socket has drained
    return [];
  }
  const hasRecords = takeChunk(delivery, partition, chunk);
  const effects: SessionEffect[] = [];
  if (hasRecords) effects.push({ type: "sendText", text: recordsFrameText(name, partition, chunk) });
  if (partition.phase === "waiting") {
    effects.push({ type: "wait", ref, partitionId: partition.partitionId, position: chunk.next });
  }
  return effects;
}

function isFull({ bufferedBytes }: Surroundings): boolean {
  return bufferedBytes >= SOCKET_BUFFER_BYTES_MAX;
}

function roomOf({ subscriptions }: Session): SocketRoom {
  let taken = 0;
  for (const { delivery } of subscriptions.values()) taken += delivery.unackedBytes + delivery.reservedBytes;
  return { bytes: SOCKET_WINDOW_BYTES_MAX - taken, isEmpty: taken === 0 };
}

/** A RecordsFrame; the text of its records is shared by all who read the same chunk. */
function recordsFrameText(
  subscription: string,
  { generation, topic, partition }: PartitionDelivery,
  { records, next, logEndOffset }: ChunkExtent & { readonly records: string },
): string {
  return `{"type":"records","subscription":"${subscription}","generation":${generation},"topic":"${topic}","partition":${partition},"records":[${records}],"next":${next},"logEndOffset":${logEndOffset}}`;
}

export function handleGrown(session: Session, ref: PartitionRef): readonly SessionEffect[] {
  const subscription = find(session, ref);
  const partition = subscription && findPartition(subscription, ref);
  if (partition?.phase === "waiting") partition.phase = "ready";
  return [];
}
