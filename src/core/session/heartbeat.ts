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
}

/** Renews the leases of a client that was heard of, asks one that is silent, gives up one that stays so. */
export function handleAlarm(session: Session, around: Surroundings): readonly SessionEffect[] {
  const silentMs = around.nowMs - session.lastSeenAtMs;
  if (silentMs < heartbeatMs(session)) return [...renewals(session), nextAlarm(session, around)];
  const expired = [...session.subscriptions.values()].filter(
    ({ sessionTimeoutMs }) => silentMs >= sessionTimeoutMs,
  );
  const effects = expired.flatMap((subscription) => expire(session, subscription));
  if (session.pingsUnanswered >= PINGS_UNANSWERED_MAX) {
    return [...effects, { type: "close", code: CLOSE_CODES.heartbeatMissed, reason: "heartbeat missed" }];
  }
  session.pingsUnanswered += 1;
  return [...effects, { type: "ping" }, nextAlarm(session, around)];
}

function renewals(session: Session): readonly SessionEffect[] {
  return [...session.subscriptions.values()].flatMap((subscription): SessionEffect[] => {
    const { member } = subscription;
    return member
      ? [{ type: "renew", ref: refOf(subscription), member: membershipOf(subscription, member) }]
      : [];
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

function heartbeatMs(session: Session): number {
  let timeoutMs = SESSION_TIMEOUT_DEFAULT_MS;
  for (const { sessionTimeoutMs } of session.subscriptions.values())
    timeoutMs = Math.min(timeoutMs, sessionTimeoutMs);
  return heartbeatOf(timeoutMs);
}

export function heartbeatOf(sessionTimeoutMs: number): number {
  return Math.floor(sessionTimeoutMs / HEARTBEATS_PER_SESSION_TIMEOUT);
}
