// The ends that a client did not ask for: of a subscription, whose membership or socket is lost, and of partitions,
// whose topic is deleted or which were not acknowledged in time.

import type { RevokeReason } from "../../protocol/frames.ts";
import { gainMore } from "./assigned.ts";
import type { SessionEffect, Surroundings, TopicChange } from "./events.ts";
import {
  find,
  type GroupSource,
  memberOf,
  partitionKey,
  refOf,
  type Session,
  type Subscription,
  type SubscriptionRef,
} from "./state.ts";
import { dropPartition, type PartitionDelivery } from "./window.ts";

/** The partitions are no longer this subscription's, and the subscription ends. */
export function handleEnded(
  session: Session,
  ref: SubscriptionRef,
  reason: "replaced" | "expired",
): readonly SessionEffect[] {
  const subscription = find(session, ref);
  if (!subscription) return [];
  const { name, partitions } = subscription;
  session.subscriptions.delete(name);
  return [
    { type: "stopWaiting", ref },
    ...(reason === "expired" ? [revoked(name, [...partitions.values()], reason)] : []),
    { type: "send", frame: { type: "unsubscribed", subscription: name, code: reason } },
  ];
}

export function handleClosed(session: Session): readonly SessionEffect[] {
  session.isClosed = true;
  return [...session.subscriptions.values()].flatMap((subscription): SessionEffect[] => {
    if (!subscription.isOpen) return []; // opening: let go when it has opened
    session.subscriptions.delete(subscription.name);
    const { source } = subscription;
    const stop: SessionEffect = { type: "stopWaiting", ref: refOf(subscription) };
    return source.kind === "group" ? [stop, letGo(subscription, source)] : [stop];
  });
}

export function letGo({ leaving }: Subscription, { isStatic, member }: GroupSource): SessionEffect {
  if (!member) throw new Error("A membership was let go before it was had");
  return isStatic && !leaving ? { type: "detach", member } : { type: "leave", member };
}

// ── partitions ───────────────────────────────────────────────────────────────────────────────────────────

/** A deleted topic takes its partitions along; one that grows or comes into being brings some. */
export function handleTopicChanged(session: Session, change: TopicChange): readonly SessionEffect[] {
  return [...session.subscriptions.values()]
    .filter(({ topics }) => topics.includes(change.topic))
    .flatMap((subscription) =>
      change.change === "deleted"
        ? loseTopic(subscription, new Set(change.partitionIds))
        : expectMore(subscription),
    );
}

function loseTopic(subscription: Subscription, partitionIds: ReadonlySet<number>): readonly SessionEffect[] {
  if (!subscription.isOpen || subscription.gains > 0)
    for (const partitionId of partitionIds) subscription.gonePartitionIds.add(partitionId);
  const lost = [...subscription.partitions.values()].filter(({ partitionId }) =>
    partitionIds.has(partitionId),
  );
  return lost.length > 0 ? lose(subscription, lost, "topic_deleted") : [];
}

function expectMore(subscription: Subscription): readonly SessionEffect[] {
  if (subscription.isOpen) return subscription.leaving ? [] : [gainMore(subscription)];
  subscription.isStale = true;
  return [];
}

/**
 * Whoever acknowledges nothing for that long loses the partition at once. While the group has nobody else it comes back
 * to the same member, in a new generation and from the committed offset: what it never acknowledged is sent again.
 */
export function revokeStalled(session: Session, { nowMs }: Surroundings): readonly SessionEffect[] {
  return [...session.subscriptions.values()].flatMap((subscription) => {
    const { ackTimeoutMs, partitions } = subscription;
    if (ackTimeoutMs === undefined || !memberOf(subscription)) return [];
    const stalled = [...partitions.values()].filter(
      ({ unackedSinceMs }) => unackedSinceMs !== undefined && nowMs - unackedSinceMs >= ackTimeoutMs,
    );
    if (stalled.length === 0) return [];
    return [...lose(subscription, stalled, "stalled"), gainMore(subscription, stalled)];
  });
}

function lose(
  subscription: Subscription,
  lost: readonly PartitionDelivery[],
  reason: RevokeReason,
): readonly SessionEffect[] {
  const ref = refOf(subscription);
  const stops = lost.map((partition): SessionEffect => {
    const key = partitionKey(partition.topic, partition.partition);
    subscription.partitions.delete(key);
    dropPartition(subscription.delivery, partition);
    return { type: "stopWaiting", ref, partitionKey: key };
  });
  return [...stops, revoked(subscription.name, lost, reason)];
}

function revoked(
  subscription: string,
  lost: readonly PartitionDelivery[],
  reason: RevokeReason,
): SessionEffect {
  const partitions = lost.map(({ topic, partition, generation }) => ({ topic, partition, generation }));
  return { type: "send", frame: { type: "revoked", subscription, partitions, reason, deadlineMs: 0 } };
}
