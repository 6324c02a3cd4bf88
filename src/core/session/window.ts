// Flow control of one subscription: which partition to read next, how much of it, and what an ack frees. The window
// of unacknowledged records bounds what is ever sent, so it bounds the server's memory for a consumer.
//
// The functions change the Delivery that they are given and do nothing else.

import type { Window } from "../../protocol/frames.ts";
import { CHUNK_BYTES_MAX, CHUNK_RECORDS_MAX } from "../../protocol/limits.ts";

export interface Delivery {
  readonly window: Window;
  unackedRecords: number;
  unackedBytes: number;
  /** What the read that is under way may bring; 0 while there is none. One read at a time. */
  reservedBytes: number;
  /** All partitions, in the order in which they take turns: the first was served longest ago. */
  readonly turns: PartitionDelivery[];
}

export interface PartitionDelivery {
  readonly topic: string;
  readonly topicId: number;
  readonly partition: number;
  readonly partitionId: number;
  readonly generation: number;
  /** Next offset to be sent; null until the partition has a place. */
  position: number | null;
  /** The highest position of this ownership: nothing above it may be acknowledged. −1 before there is any. */
  furthest: number;
  /** Sent and not acknowledged, in offset order. */
  readonly sent: SentChunk[];
  /** `waiting`: at the log end, until the partition grows. `halted`: without a place, or while one is found. */
  phase: "ready" | "reading" | "waiting" | "halted";
  /** By the client. */
  isPaused: boolean;
  /** New with every `assigned`: what was read or waited for before it is void. */
  run: number;
  /** Since when nothing of it was acknowledged; undefined while everything is. */
  unackedSinceMs: number | undefined;
  /**
   * `wanted`: as soon as what is committed ahead has been sent, though it may have to be read again for that.
   * `told`: the client knows, and may acknowledge what it has. `released`: it has let go.
   */
  revocation: "none" | "wanted" | "told" | "released";
  revokeDeadlineMs: number;
  /** At most once: more of it is committed, or may be, than has been sent. */
  isCommittedAhead: boolean;
  /** Set when the next record did not fit what the windows had left: the room that it needs. */
  nextRecordBytes: number;
}

interface SentChunk {
  readonly next: number;
  unackedRecords: number;
  readonly bytes: number;
}

export interface ReadRequest {
  readonly partitionId: number;
  readonly from: number;
  readonly recordsMax: number;
  /** Of the records as they stand in the frame. */
  readonly bytesMax: number;
  /** 0, or the size of the first record: it comes alone although it is larger than `bytesMax`. */
  readonly loneRecordBytesMax: number;
}

/** What a read brought. */
export interface ChunkExtent {
  readonly count: number;
  /** Of the records as they stand in the frame, as UTF-8. */
  readonly bytes: number;
  /** The offset after the last record; `from` when there is none. */
  readonly next: number;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
  /** Set where nothing came because the first record is larger than `bytesMax`: its size. */
  readonly firstRecordBytes?: number;
}

/** What all windows of the socket together have left. */
export interface SocketRoom {
  readonly bytes: number;
  /** Nothing is unacknowledged on the whole socket. */
  readonly isEmpty: boolean;
}

export function createDelivery(window: Window): Delivery {
  return { window, unackedRecords: 0, unackedBytes: 0, reservedBytes: 0, turns: [] };
}

/** The partition takes turns with the others from now on. */
export function addPartition(
  delivery: Delivery,
  added: Pick<
    PartitionDelivery,
    "topic" | "topicId" | "partition" | "partitionId" | "generation" | "position"
  > & { readonly isPaused?: boolean | undefined },
): PartitionDelivery {
  const partition: PartitionDelivery = {
    ...added,
    furthest: added.position ?? -1,
    sent: [],
    phase: added.position === null ? "halted" : "ready",
    isPaused: added.isPaused ?? false,
    run: 0,
    unackedSinceMs: undefined,
    revocation: "none",
    revokeDeadlineMs: 0,
    isCommittedAhead: false,
    nextRecordBytes: 0,
  };
  delivery.turns.push(partition);
  return partition;
}

/** The client was told that it goes. */
export function isRevoked({ revocation }: PartitionDelivery): boolean {
  return revocation === "told" || revocation === "released";
}

/** The partition is lost: what it held of the window is free. A read of it that is under way still ends. */
export function dropPartition(delivery: Delivery, partition: PartitionDelivery): void {
  freeAll(delivery, partition);
  delivery.turns.splice(delivery.turns.indexOf(partition), 1);
}

/** All before is void: records follow from the position, where there is one. */
export function moveTo(delivery: Delivery, partition: PartitionDelivery, position: number | null): void {
  freeAll(delivery, partition);
  partition.run += 1;
  partition.position = position;
  partition.furthest = Math.max(partition.furthest, position ?? -1);
  partition.nextRecordBytes = 0;
  partition.phase = position === null ? "halted" : "ready";
  partition.isCommittedAhead = false; // void like the rest
}

/** The partition whose turn it is, and how much of it: undefined while there is no room or nothing to read. */
export function nextRead(
  delivery: Delivery,
  room: SocketRoom,
): { partition: PartitionDelivery; request: ReadRequest } | undefined {
  const { window, unackedRecords, unackedBytes, reservedBytes, turns } = delivery;
  const recordsLeft = window.records - unackedRecords;
  const bytesLeft = Math.min(window.bytes - unackedBytes, room.bytes);
  if (reservedBytes > 0 || recordsLeft <= 0 || bytesLeft <= 0) return undefined;
  const index = turns.findIndex(({ phase, isPaused }) => phase === "ready" && !isPaused);
  const partition = turns[index];
  if (!partition || partition.position === null) return undefined;
  const { nextRecordBytes } = partition;
  // Nobody overtakes a large record whose turn it is: the room that others would take is the room that it needs.
  if (nextRecordBytes > roomForOne(delivery, room, bytesLeft)) return undefined;
  turns.push(...turns.splice(index, 1));
  partition.phase = "reading";
  const bytesMax = Math.min(CHUNK_BYTES_MAX, half(window.bytes), bytesLeft);
  delivery.reservedBytes = Math.max(bytesMax, nextRecordBytes);
  return {
    partition,
    request: {
      partitionId: partition.partitionId,
      from: partition.position,
      recordsMax: Math.min(CHUNK_RECORDS_MAX, half(window.records), recordsLeft),
      bytesMax,
      loneRecordBytesMax: nextRecordBytes,
    },
  };
}

/** A record larger than half a window, or than all of it, goes alone; than its whole window, when that is empty. */
function roomForOne({ unackedRecords }: Delivery, room: SocketRoom, bytesLeft: number): number {
  if (room.isEmpty) return Number.MAX_SAFE_INTEGER;
  return unackedRecords === 0 ? room.bytes : bytesLeft;
}

/** Accounts for what a read brought and is sent now. Returns whether there is something to send. */
export function takeChunk(
  delivery: Delivery,
  partition: PartitionDelivery,
  { chunk, nowMs }: { readonly chunk: ChunkExtent; readonly nowMs: number },
): boolean {
  endRead(delivery, partition);
  if (chunk.next >= chunk.logEndOffset) partition.phase = "waiting";
  partition.nextRecordBytes = chunk.firstRecordBytes ?? 0;
  partition.position = chunk.next;
  if (chunk.count === 0) return false;
  partition.furthest = Math.max(partition.furthest, chunk.next);
  partition.unackedSinceMs ??= nowMs;
  partition.sent.push({ next: chunk.next, unackedRecords: chunk.count, bytes: chunk.bytes });
  delivery.unackedRecords += chunk.count;
  delivery.unackedBytes += chunk.bytes;
  return true;
}

/** The read is over, whatever it brought; the partition may be read again. */
export function endRead(delivery: Delivery, partition: PartitionDelivery | undefined): void {
  delivery.reservedBytes = 0;
  if (partition?.phase === "reading") partition.phase = "ready";
}

/** Everything of the partition that is out leaves the window. */
export function freeAll(delivery: Delivery, partition: PartitionDelivery): void {
  freeAcked(delivery, partition, { offset: Number.MAX_SAFE_INTEGER, nowMs: 0 });
}

/** Frees what an accepted ack covers: every record below `offset`. */
export function freeAcked(
  delivery: Delivery,
  partition: PartitionDelivery,
  { offset, nowMs }: { readonly offset: number; readonly nowMs: number },
): void {
  const unackedBefore = delivery.unackedRecords;
  for (let oldest = partition.sent[0]; oldest && oldest.next <= offset; oldest = partition.sent[0]) {
    partition.sent.shift();
    delivery.unackedRecords -= oldest.unackedRecords;
    delivery.unackedBytes -= oldest.bytes;
  }
  freeInside(delivery, partition.sent[0], offset);
  if (partition.sent.length === 0) partition.unackedSinceMs = undefined;
  else if (delivery.unackedRecords < unackedBefore) partition.unackedSinceMs = nowMs;
}

/**
 * At most `next − offset` records of the chunk lie at or above the offset, fewer where there are gaps: counting the
 * rest as acknowledged never frees too much. Its bytes stay until the chunk is done.
 */
function freeInside(delivery: Delivery, chunk: SentChunk | undefined, offset: number): void {
  if (!chunk) return;
  const stillUnacked = Math.min(chunk.unackedRecords, chunk.next - offset);
  delivery.unackedRecords -= chunk.unackedRecords - stillUnacked;
  chunk.unackedRecords = stillUnacked;
}

function half(size: number): number {
  return Math.max(1, Math.floor(size / 2));
}
