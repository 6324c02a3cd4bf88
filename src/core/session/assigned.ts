// How partitions come to a subscription, one way for all: by joining, by opening a reader, and later when a topic
// grows, comes into being, or stalls. Whatever comes is told by `assigned` before its first record.

import type { AssignedPartition, FrameId } from "../../protocol/frames.ts";
import type { ResetPolicy } from "../../protocol/places.ts";
import type { JoinedPartition, JoinResult } from "../membership.ts";
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
import { addPartition, moveTo, type PartitionDelivery } from "./window.ts";

// ── what is gained ───────────────────────────────────────────────────────────────────────────────────────

/** The partitions of a join or a gain, each from its committed offset or from where a policy has put it. */
export function assignJoined(subscription: Subscription, result: JoinResult): readonly SessionEffect[] {
  const unplacedIds = new Set(result.unplaced.map(({ partitionId }) => partitionId));
  const policies = new Map(result.resets.map(({ partitionId, policy }) => [partitionId, policy]));
  const partitions = result.partitions.filter((joined) => isThere(subscription, joined));
  const waits = partitions.flatMap((joined) => {
    const position = unplacedIds.has(joined.partitionId) ? null : joined.committedOffset;
    return add(subscription, { ...joined, position });
  });
  const unplaced = result.unplaced.filter((each) => isThere(subscription, each));
  return [
    assigned(
      subscription,
      partitions.map((joined) => describe(subscription, joined, policies.get(joined.partitionId))),
    ),
    ...unplaced.map(({ code, message, topic, partition }) =>
      errorFrame(new Problem(code, message), { name: subscription.name, topic, partition }),
    ),
    ...waits,
  ];
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

/** Asks for what the subscription's topics have beside what it has; `lost`: its own, to be had anew. */
export function gainMore(subscription: Subscription, lost: readonly PartitionDelivery[] = []): SessionEffect {
  const { source, topics, policies, partitions } = subscription;
  const ref = refOf(subscription);
  subscription.isStale = false;
  subscription.gains += 1;
  if (source.kind === "reader") {
    const knownPartitionIds = new Set([...partitions.values()].map(({ partitionId }) => partitionId));
    return { type: "gainReader", ref, request: { topics, from: source.from }, knownPartitionIds };
  }
  if (!source.member) throw new Error("A subscription asked for more before it had joined");
  const lostPartitionIds = lost.map(({ partitionId }) => partitionId);
  return { type: "gain", ref, member: source.member, topics, policies, lostPartitionIds };
}

export function handleGained(
  session: Session,
  { ref, result }: Extract<SessionEvent, { type: "gained" }>,
): readonly SessionEffect[] {
  const subscription = find(session, ref);
  if (!subscription) return [];
  const effects = result ? assignJoined(subscription, result) : [];
  endGain(subscription);
  return effects;
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
  endGain(subscription);
  return effects;
}

function endGain(subscription: Subscription): void {
  subscription.gains -= 1;
  if (subscription.gains === 0) subscription.gonePartitionIds.clear();
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

type Described = Omit<JoinedPartition, "partitionId">;

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
