// The ends of a subscription that its client did not ask for: its membership is lost, or its socket.

import type { SessionEffect } from "./events.ts";
import { find, membershipOf, refOf, type Session, type Subscription, type SubscriptionRef } from "./state.ts";

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
  const revoked = [...partitions.values()].map(({ topic, partition, generation }) => ({
    topic,
    partition,
    generation,
  }));
  return [
    { type: "stopWaiting", ref },
    ...(reason === "expired" ? [revokedFrame(name, revoked)] : []),
    { type: "send", frame: { type: "unsubscribed", subscription: name, code: reason } },
  ];
}

function revokedFrame(
  subscription: string,
  partitions: readonly { topic: string; partition: number; generation: number }[],
): SessionEffect {
  return {
    type: "send",
    frame: { type: "revoked", subscription, partitions, reason: "expired", deadlineMs: 0 },
  };
}

export function handleClosed(session: Session): readonly SessionEffect[] {
  session.isClosed = true;
  return [...session.subscriptions.values()].flatMap((subscription): SessionEffect[] => {
    if (!subscription.member) return []; // joining: let go when it has joined
    session.subscriptions.delete(subscription.name);
    return [{ type: "stopWaiting", ref: refOf(subscription) }, letGo(subscription, subscription.member)];
  });
}

export function letGo(
  subscription: Subscription,
  member: { memberId: string; membership: number },
): SessionEffect {
  const ref = membershipOf(subscription, member);
  const isKept = subscription.isStatic && !subscription.leaving;
  return isKept ? { type: "detach", member: ref } : { type: "leave", member: ref };
}
