// How partitions come to a subscription, one way for all: by joining, by opening a reader, and later by a rebalance, a
// reset or a topic that grows. Whatever comes is told by `assigned` before its first record.

import type { AssignedPartition, FrameId } from "../../protocol/frames.ts";
import type { ResetPolicy } from "../../protocol/places.ts";
import type { GainedPartition } from "../ownership.ts";
import type { LogBounds } from "../places.ts";
import { Problem } from "../problem.ts";
import type { ReaderPartition } from "../readers.ts";
import { errorFrame } from "./answers.ts";
import type { LocatedFacts, Reposition, SessionEffect, SessionEvent } from "./events.ts";
import {
  find,
  findPartition,
  partitionKey,
  partitionRef,
  refOf,
  type Session,
  type Subscription,
  type SubscriptionRef,
} from "./state.ts";
import { addPartition, dropPartition, isRevoked, moveTo, type PartitionDelivery } from "./window.ts";

// ── what is gained ───────────────────────────────────────────────────────────────────────────────────────

/**
 * Each from its committed offset or from where a policy has put it. One that is there already begins anew, and stays
 * paused unless it was on its way out.
 */
export function assignGained(
  subscription: Subscription,
  gained: readonly GainedPartition[],
): readonly SessionEffect[] {
  const begun = gained.flatMap((partition) => {
    const position = partition.unplaced ? null : partition.committedOffset;
    const before = subscription.partitions.get(partitionKey(partition.topic, partition.partition));
    const isPaused = before?.isPaused && !isRevoked(before);
    return [
      ...(before ? replace(subscription, before) : []),
      ...add(subscription, { ...partition, position, isPaused }),
    ];
  });
  return [
    assigned(
      subscription,
      gained.map((partition) => describe(subscription, partition, partition.reset ?? undefined)),
    ),
    ...gained.flatMap(({ unplaced, topic, partition }) =>
      unplaced
        ? [
            errorFrame(new Problem(unplaced.code, unplaced.message), {
              name: subscription.name,
              topic,
              partition,
            }),
          ]
        : [],
    ),
    ...begun,
  ];
}

function replace(subscription: Subscription, before: PartitionDelivery): readonly SessionEffect[] {
  const key = partitionKey(before.topic, before.partition);
  removePartition(subscription, before);
  return [{ type: "stopWaiting", ref: refOf(subscription), partitionKey: key }];
}

/** What it held of the window is free. */
export function removePartition(subscription: Subscription, partition: PartitionDelivery): void {
  subscription.partitions.delete(partitionKey(partition.topic, partition.partition));
  subscription.revoking.delete(partition);
  dropPartition(subscription.delivery, partition);
}

export function assignRead(
  subscription: Subscription,
  found: readonly ReaderPartition[],
): readonly SessionEffect[] {
  const partitions = found.filter((each) => isThere(subscription, each));
  const waits: SessionEffect[] = [];
  const described = partitions.map((partition) => {
    const added = { ...partition, generation: nextGeneration(subscription) };
    waits.push(...add(subscription, added));
    return describe(subscription, { ...added, committedOffset: null, metadata: null }, undefined);
  });
  return [assigned(subscription, described), ...waits];
}

/** Asks for what the topics of a reader have beside what it has. */
export function gainMore(subscription: Subscription): readonly SessionEffect[] {
  const { source, topics, partitions } = subscription;
  if (source.kind !== "reader") return [];
  subscription.isStale = false;
  subscription.gains += 1;
  const knownPartitionIds = new Set([...partitions.values()].map(({ partitionId }) => partitionId));
  const request = { topics, from: source.from };
  return [{ type: "gainReader", ref: refOf(subscription), request, knownPartitionIds }];
}

export function handleReaderGained(
  session: Session,
  ref: SubscriptionRef,
  partitions: readonly ReaderPartition[],
): readonly SessionEffect[] {
  const subscription = find(session, ref);
  if (!subscription) return [];
  // Two gains at once may find the same.
  const found = partitions.filter(
    ({ topic, partition }) => !subscription.partitions.has(partitionKey(topic, partition)),
  );
  const effects = found.length > 0 ? assignRead(subscription, found) : [];
  subscription.gains -= 1;
  if (subscription.gains === 0) subscription.gonePartitionIds.clear();
  return effects;
}

function isThere(
  { gonePartitionIds }: Subscription,
  { partitionId }: { readonly partitionId: number },
): boolean {
  return !gonePartitionIds.has(partitionId);
}

/** At the end of the log there is nothing to read yet: whoever appends after this picture was taken wakes it. */
function add(
  subscription: Subscription,
  added: Parameters<typeof addPartition>[1] & LogBounds,
): readonly SessionEffect[] {
  const partition = addPartition(subscription.delivery, added);
  subscription.partitions.set(partitionKey(added.topic, added.partition), partition);
  const { position, partitionId } = partition;
  if (position === null || position !== added.logEndOffset) return [];
  partition.phase = "waiting";
  return [{ type: "wait", ref: partitionRef(subscription, partition), partitionId, position }];
}

function nextGeneration({ source }: Subscription): number {
  if (source.kind !== "reader") throw new Error("Generations of a group come from the database");
  source.lastGeneration += 1;
  return source.lastGeneration;
}

// ── what is moved ────────────────────────────────────────────────────────────────────────────────────────

/** The place that a policy has given to a position that had left the log. */
export function handleRepositioned(
  session: Session,
  { ref, to }: Extract<SessionEvent, { type: "repositioned" }>,
): readonly SessionEffect[] {
  const subscription = find(session, ref);
  const partition = subscription && findPartition(subscription, ref);
  if (!subscription || !partition) return [];
  const left = partition.position;
  const moved = move(subscription, partition, to);
  if (to.position !== null) return [moved];
  const { topic, partition: number } = partition;
  return [
    moved,
    errorFrame(outOfLog(partition, left, to), { name: subscription.name, topic, partition: number }),
  ];
}

/** `assigned` for one partition that stays with its owner. */
export function move(
  subscription: Subscription,
  partition: PartitionDelivery,
  to: LocatedFacts & { readonly position: number | null; readonly policy?: Reposition["policy"] },
  id?: FrameId,
): SessionEffect {
  moveTo(subscription.delivery, partition, to.position);
  const policy = to.position === null ? undefined : to.policy;
  return assigned(subscription, [describe(subscription, { ...partition, ...to }, policy)], id);
}

function outOfLog(
  { topic, partition }: PartitionDelivery,
  position: number | null,
  { logStartOffset, logEndOffset }: LogBounds,
): Problem {
  return new Problem(
    "offset_out_of_range",
    `The position ${position} in topic "${topic}" partition ${partition} is out of range and the reset policy is "none"; the log holds [${logStartOffset}, ${logEndOffset})`,
  );
}

// ── the frame ────────────────────────────────────────────────────────────────────────────────────────────

function assigned(
  { name }: Subscription,
  partitions: readonly AssignedPartition[],
  id?: FrameId,
): SessionEffect {
  return { type: "send", frame: { type: "assigned", id, subscription: name, partitions } };
}

type Described = Omit<GainedPartition, "partitionId" | "reset" | "unplaced">;

function describe(
  { partitions }: Subscription,
  {
    topic,
    topicId,
    partition,
    generation,
    committedOffset,
    metadata,
    logStartOffset,
    logEndOffset,
  }: Described,
  reset: ResetPolicy | undefined,
): AssignedPartition {
  return {
    topic,
    topicId,
    partition,
    generation,
    position: partitions.get(partitionKey(topic, partition))?.position ?? null,
    committedOffset,
    metadata: metadata ?? undefined,
    logStartOffset,
    logEndOffset,
    reset,
  };
}
