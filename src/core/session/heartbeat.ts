// Time in a session: signs of life, and the one alarm for everything that is due later. Who is heard of keeps its
// leases, who is silent is asked, who stays silent is given up.

import { CLOSE_CODES } from "../../protocol/codes.ts";
import {
  HEARTBEATS_PER_SESSION_TIMEOUT,
  PINGS_UNANSWERED_MAX,
  SESSION_TIMEOUT_DEFAULT_MS,
} from "../../protocol/limits.ts";
import { handleEnded, revokeStalled } from "./endings.ts";
import type { SessionEffect, Surroundings } from "./events.ts";
import { memberOf, refOf, type Session, type Subscription } from "./state.ts";

export function noteLife(session: Session, { nowMs }: Surroundings): void {
  session.lastSeenAtMs = nowMs;
  session.pingsUnanswered = 0;
  session.isHeard = true;
}

export function handleAlarm(session: Session, around: Surroundings): readonly SessionEffect[] {
  session.alarmAtMs = undefined;
  const stalled = revokeStalled(session, around);
  const isDue = around.nowMs >= session.heartbeatAtMs;
  return [
    ...stalled,
    ...(isDue ? lookAtSilence(session, around) : []),
    ...alarmBy(session, around, Math.min(session.heartbeatAtMs, nextStallAtMs(session))),
  ];
}

function lookAtSilence(session: Session, around: Surroundings): readonly SessionEffect[] {
  const silentMs = around.nowMs - session.lastSeenAtMs;
  const renewed = session.isHeard ? renewals(session) : [];
  session.isHeard = false;
  const isSilent = silentMs >= heartbeatMs(session);
  const expired = [...session.subscriptions.values()].filter(
    ({ sessionTimeoutMs }) => isSilent && silentMs >= sessionTimeoutMs,
  );
  const effects = [...renewed, ...expired.flatMap((subscription) => expire(session, subscription))];
  session.heartbeatAtMs = heartbeatDueAtMs(session, around);
  if (!isSilent) return effects;
  if (session.pingsUnanswered >= PINGS_UNANSWERED_MAX) {
    session.heartbeatAtMs = Number.POSITIVE_INFINITY;
    return [...effects, { type: "close", code: CLOSE_CODES.heartbeatMissed, reason: "heartbeat missed" }];
  }
  session.pingsUnanswered += 1;
  return [...effects, { type: "ping" }];
}

function renewals(session: Session): readonly SessionEffect[] {
  return [...session.subscriptions.values()].flatMap((subscription): SessionEffect[] => {
    const member = memberOf(subscription);
    return member ? [{ type: "renew", member }] : [];
  });
}

function expire(session: Session, subscription: Subscription): readonly SessionEffect[] {
  const member = memberOf(subscription);
  if (!member) return [];
  return [{ type: "leave", member }, ...handleEnded(session, refOf(subscription), "expired")];
}

/** There are more subscriptions than before. Never later than it was: who subscribes often would put off renewals. */
export function noteHeartbeat(session: Session, around: Surroundings): readonly SessionEffect[] {
  session.heartbeatAtMs = Math.min(session.heartbeatAtMs, heartbeatDueAtMs(session, around));
  return alarmBy(session, around, session.heartbeatAtMs);
}

/** One that goes off before it is needed finds nothing due and sets the next. */
export function alarmBy(
  session: Session,
  { nowMs }: Surroundings,
  dueAtMs: number,
): readonly SessionEffect[] {
  if (dueAtMs >= (session.alarmAtMs ?? Number.POSITIVE_INFINITY)) return [];
  session.alarmAtMs = dueAtMs;
  return [{ type: "setAlarm", delayMs: Math.max(0, dueAtMs - nowMs) }];
}

/** A heartbeat after the client was last heard of, or after now if it is silent already. */
function heartbeatDueAtMs(session: Session, { nowMs }: Surroundings): number {
  const heartbeat = heartbeatMs(session);
  const isSilent = nowMs - session.lastSeenAtMs >= heartbeat;
  return (isSilent ? nowMs : session.lastSeenAtMs) + heartbeat;
}

function heartbeatMs({ subscriptions }: Session): number {
  const timeoutsMs = [...subscriptions.values()].map(({ sessionTimeoutMs }) => sessionTimeoutMs);
  return heartbeatOf(timeoutsMs.length > 0 ? Math.min(...timeoutsMs) : SESSION_TIMEOUT_DEFAULT_MS);
}

export function heartbeatOf(sessionTimeoutMs: number): number {
  return Math.floor(sessionTimeoutMs / HEARTBEATS_PER_SESSION_TIMEOUT);
}

function nextStallAtMs({ subscriptions }: Session): number {
  let nextAtMs = Number.POSITIVE_INFINITY;
  for (const { ackTimeoutMs, partitions } of subscriptions.values()) {
    if (ackTimeoutMs === undefined) continue;
    for (const { unackedSinceMs, revocation } of partitions.values())
      if (revocation === "none" && unackedSinceMs !== undefined)
        nextAtMs = Math.min(nextAtMs, unackedSinceMs + ackTimeoutMs);
  }
  return nextAtMs;
}
