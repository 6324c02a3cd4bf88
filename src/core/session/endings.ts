// The ends that a client did not ask for: of a subscription, whose membership or socket is lost, and of partitions,
// whose topic is deleted or which were not acknowledged in time.

import { gainMore } from "./assigned.ts";
import type { SessionEffect, Surroundings, TopicChange } from "./events.ts";
import { lose, revoked } from "./rebalance.ts";
import {
  find,
  type GroupSource,
  memberOf,
  refOf,
  type Session,
  type Subscription,
  type SubscriptionRef,
} from "./state.ts";
import { isRevoked } from "./window.ts";

/** The partitions are no longer this subscription's, and the subscription ends. */
export function handleEnded(
  session: Session,
  ref: SubscriptionRef,
  reason: "replaced" | "expired",
): readonly SessionEffect[] {
  const subscription = find(session, ref);
  if (!subscription) return [];
  const { name, partitions, leaving } = subscription;
  const untold = [...partitions.values()].filter((partition) => !isRevoked(partition));
  session.subscriptions.delete(name);
  return [
    { type: "stopWaiting", ref },
    ...(reason === "expired" ? revoked(subscription, untold, { reason, deadlineMs: 0 }) : []),
    { type: "send", frame: { type: "unsubscribed", id: leaving?.id, subscription: name, code: reason } },
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

export function letGo({ leaving }: Subscription, { instanceId, member }: GroupSource): SessionEffect {
  if (!member) throw new Error("A membership was let go before it was had");
  return instanceId !== undefined && !leaving ? { type: "detach", member } : { type: "leave", member };
}

// ── partitions ───────────────────────────────────────────────────────────────────────────────────────────

/** Readers own nothing, so nobody but the topic tells them. */
export function handleTopicChanged(session: Session, change: TopicChange): readonly SessionEffect[] {
  return [...session.subscriptions.values()]
    .filter(({ topics, source }) => source.kind === "reader" && topics.includes(change.topic))
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
  return lose(subscription, lost, "topic_deleted");
}

function expectMore(subscription: Subscription): readonly SessionEffect[] {
  if (subscription.isOpen) return subscription.leaving ? [] : gainMore(subscription);
  subscription.isStale = true;
  return [];
}

/**
 * Whoever acknowledges nothing for that long loses the partition at once. It goes to another member, or comes back to
 * the same one while the group has nobody else: in a new generation and from the committed offset, so what was never
 * acknowledged is sent again.
 */
export function revokeStalled(session: Session, { nowMs }: Surroundings): readonly SessionEffect[] {
  return [...session.subscriptions.values()].flatMap((subscription): readonly SessionEffect[] => {
    const { ackTimeoutMs, partitions } = subscription;
    const member = memberOf(subscription);
    if (ackTimeoutMs === undefined || !member) return [];
    const stalled = [...partitions.values()].filter(
      ({ unackedSinceMs, revocation }) =>
        revocation === "none" && unackedSinceMs !== undefined && nowMs - unackedSinceMs >= ackTimeoutMs,
    );
    if (stalled.length === 0) return [];
    const owned = stalled.map(({ partitionId, generation }) => ({ partitionId, generation }));
    return [...lose(subscription, stalled, "stalled"), { type: "stall", member, partitions: owned }];
  });
}
