// Produce over the socket: handed on in the order of the frames, answered when durable.

import type { CheckedFrame } from "../client-frame.ts";
import { errorFrame } from "./answers.ts";
import type { SessionEffect, SessionEvent } from "./events.ts";
import type { Session } from "./state.ts";

export function handleProduce(
  session: Session,
  { id, topic, records }: Extract<CheckedFrame, { type: "produce" }>,
): readonly SessionEffect[] {
  session.waiting.produces += 1;
  return [{ type: "produce", id, topic, records }];
}

export function handleProduced(
  session: Session,
  { id, outcome }: Extract<SessionEvent, { type: "produced" }>,
): readonly SessionEffect[] {
  session.waiting.produces -= 1;
  if ("problem" in outcome) return [errorFrame(outcome.problem, { id })];
  return [{ type: "send", frame: { type: "produced", id, runs: outcome.runs } }];
}
