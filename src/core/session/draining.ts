// The server is about to stop. The client is told, sent nothing new, and given time to acknowledge what it holds; the
// socket closes as soon as nothing is open any more, or when the time is over.

import { CLOSE_CODES } from "../../protocol/codes.ts";
import type { SessionEffect } from "./events.ts";
import type { Session } from "./state.ts";

const CLOSE: SessionEffect = { type: "close", code: CLOSE_CODES.draining, reason: "draining" };

export function handleDraining(session: Session, retryAfterMs: number): readonly SessionEffect[] {
  session.isDraining = true;
  return [{ type: "send", frame: { type: "draining", retryAfterMs } }];
}

export function handleDrainOverdue({ isClosed }: Session): readonly SessionEffect[] {
  return isClosed ? [] : [CLOSE];
}

export function closeWhenFinished(session: Session): readonly SessionEffect[] {
  return session.isDraining && !session.isClosed && isFinished(session) ? [CLOSE] : [];
}

function isFinished({ subscriptions, waiting }: Session): boolean {
  if (Object.values(waiting).some((count) => count > 0)) return false;
  return [...subscriptions.values()].every(
    ({ isOpen, delivery, ahead }) => isOpen && delivery.unackedRecords === 0 && !ahead,
  );
}
