// The loop of a partition: read from my position; when there is nothing, wait until it has grown; read again.

import { SOCKET_BUFFER_BYTES_MAX, SOCKET_WINDOW_BYTES_MAX } from "../../protocol/limits.ts";
import type { SessionEffect, Surroundings } from "./events.ts";
import { find, findPartition, type PartitionRef, partitionRef, type Session } from "./state.ts";
import { type ChunkExtent, nextRead, type PartitionDelivery, takeChunk } from "./window.ts";

export function readMore(session: Session, { bufferedBytes }: Surroundings): readonly SessionEffect[] {
  if (session.isClosed || bufferedBytes >= SOCKET_BUFFER_BYTES_MAX) return []; // `drained` comes
  const effects: SessionEffect[] = [];
  for (const subscription of session.subscriptions.values()) {
    if (subscription.leaving) continue;
    const read = nextRead(subscription.delivery, SOCKET_WINDOW_BYTES_MAX - unackedBytes(session));
    if (read)
      effects.push({ type: "read", ref: partitionRef(subscription, read.partition), request: read.request });
  }
  return effects;
}

function unackedBytes(session: Session): number {
  let bytes = 0;
  for (const { delivery } of session.subscriptions.values()) bytes += delivery.unackedBytes;
  return bytes;
}

export function handleChunk(
  session: Session,
  ref: PartitionRef,
  chunk: ChunkExtent & { readonly records: string },
): readonly SessionEffect[] {
  const reader = find(session, ref);
  if (reader) reader.delivery.isReading = false;
  const owned = findPartition(session, ref);
  if (!owned) return [];
  const { subscription, partition } = owned;
  const hasRecords = takeChunk(subscription.delivery, partition, chunk);
  const effects: SessionEffect[] = [];
  if (hasRecords)
    effects.push({ type: "sendText", text: recordsFrameText(subscription.name, partition, chunk) });
  if (partition.phase === "waiting") {
    effects.push({ type: "wait", ref, partitionId: partition.partitionId, position: chunk.next });
  }
  return effects;
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
  const owned = findPartition(session, ref);
  if (owned?.partition.phase === "waiting") owned.partition.phase = "ready";
  return [];
}
