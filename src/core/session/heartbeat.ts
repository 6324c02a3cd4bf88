// Signs of life: who is heard of keeps its leases, who is silent is asked, who stays silent is given up.

import { CLOSE_CODES } from "../../protocol/codes.ts";
import {
  HEARTBEATS_PER_SESSION_TIMEOUT,
  PINGS_UNANSWERED_MAX,
  SESSION_TIMEOUT_DEFAULT_MS,
} from "../../protocol/limits.ts";
import { handleEnded } from "./endings.ts";
import type { SessionEffect, Surroundings } from "./events.ts";
import { membershipOf, refOf, type Session, type Subscription } from "./state.ts";

export function noteLife(session: Session, { nowMs }: Surroundings): void {
  session.lastSeenAtMs = nowMs;
  session.pingsUnanswered = 0;
  session.isHeard = true;
}

export function handleAlarm(session: Session, around: Surroundings): readonly SessionEffect[] {
  const silentMs = around.nowMs - session.lastSeenAtMs;
  const renewed = session.isHeard ? renewals(session) : [];
  session.isHeard = false;
  if (silentMs < heartbeatMs(session)) return [...renewed, nextAlarm(session, around)];
  const expired = [...session.subscriptions.values()].filter(
    ({ sessionTimeoutMs }) => silentMs >= sessionTimeoutMs,
  );
  const effects = [...renewed, ...expired.flatMap((subscription) => expire(session, subscription))];
  if (session.pingsUnanswered >= PINGS_UNANSWERED_MAX) {
    return [...effects, { type: "close", code: CLOSE_CODES.heartbeatMissed, reason: "heartbeat missed" }];
  }
  session.pingsUnanswered += 1;
  return [...effects, { type: "ping" }, nextAlarm(session, around)];
}

function renewals(session: Session): readonly SessionEffect[] {
  return [...session.subscriptions.values()].flatMap((subscription): SessionEffect[] => {
    const { member } = subscription;
    return member ? [{ type: "renew", member: membershipOf(subscription, member) }] : [];
  });
}

function expire(session: Session, subscription: Subscription): readonly SessionEffect[] {
  if (!subscription.member) return [];
  const member = membershipOf(subscription, subscription.member);
  return [{ type: "leave", member }, ...handleEnded(session, refOf(subscription), "expired")];
}

/** Due a heartbeat after the client was last heard of, or after now if it is silent already. */
export function nextAlarm(session: Session, { nowMs }: Surroundings): SessionEffect {
  const heartbeat = heartbeatMs(session);
  const silentMs = nowMs - session.lastSeenAtMs;
  return { type: "setAlarm", delayMs: silentMs < heartbeat ? heartbeat - silentMs : heartbeat };
}

function heartbeatMs({ subscriptions }: Session): number {
  const timeoutsMs = [...subscriptions.values()].map(({ sessionTimeoutMs }) => sessionTimeoutMs);
  return heartbeatOf(timeoutsMs.length > 0 ? Math.min(...timeoutsMs) : SESSION_TIMEOUT_DEFAULT_MS);
}

export function heartbeatOf(sessionTimeoutMs: number): number {
  return Math.floor(sessionTimeoutMs / HEARTBEATS_PER_SESSION_TIMEOUT);
}
