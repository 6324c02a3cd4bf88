// One connection's life as a step function: an event and the time come in, effects come out. It does no I/O and asks
// no clock; stream/connection.ts is the driver that does what the effects say and brings their results back as
// events. The step owns the session and changes it in place; the same events at the same times give the same effects.

import { CLOSE_CODES } from "../../protocol/codes.ts";
import type { ClientFrame, FrameId } from "../../protocol/frames.ts";
import type { Problem } from "../problem.ts";
import { handleAck, handleCommitted, handleFailed } from "./acks.ts";
import { errorFrame, unsubscribed } from "./answers.ts";
import { handleClosed, handleEnded } from "./endings.ts";
import type { SessionEffect, SessionEvent, Surroundings } from "./events.ts";
import { handleAlarm, nextAlarm, noteLife } from "./heartbeat.ts";
import { handleChunk, handleGrown, readMore } from "./records.ts";
import type { Session } from "./state.ts";
import { handleJoined, handleJoinFailed, handleSubscribe, handleUnsubscribe } from "./subscribe.ts";

export function stepSession(
  session: Session,
  event: SessionEvent,
  around: Surroundings,
): readonly SessionEffect[] {
  const effects = [...handleEvent(session, event, around)];
  // Answers and control frames are out: what the windows have left now goes to records.
  effects.push(...readMore(session, around));
  return effects;
}

function handleEvent(session: Session, event: SessionEvent, around: Surroundings): readonly SessionEffect[] {
  switch (event.type) {
    case "opened":
      return [nextAlarm(session, around)];
    case "frame":
      noteLife(session, around);
      return handleFrame(session, event.frame, around);
    case "badFrame":
      noteLife(session, around);
      return refuseFrame(event.problem, event.id);
    case "pong":
      noteLife(session, around);
      return [];
    case "joined":
      return handleJoined(session, event.ref, event.result);
    case "joinFailed":
      return handleJoinFailed(session, event.ref, event.problem);
    case "left":
      return [event.problem ? errorFrame(event.problem, event) : unsubscribed(event)];
    case "ended":
      return handleEnded(session, event.ref, event.reason);
    case "chunk":
      return handleChunk(session, event, around);
    case "grown":
      return handleGrown(session, event.ref);
    case "committed":
      return handleCommitted(session, event);
    case "failed":
      return handleFailed(session, event);
    case "drained":
      return [];
    case "alarm":
      return handleAlarm(session, around);
    case "draining":
      return [
        { type: "send", frame: { type: "draining", retryAfterMs: event.retryAfterMs } },
        { type: "close", code: CLOSE_CODES.draining, reason: "draining" },
      ];
    case "closed":
      return handleClosed(session);
  }
}

function handleFrame(session: Session, frame: ClientFrame, around: Surroundings): readonly SessionEffect[] {
  switch (frame.type) {
    case "subscribe":
      return handleSubscribe(session, frame, around);
    case "ack":
      return handleAck(session, frame);
    case "unsubscribe":
      return handleUnsubscribe(session, frame);
    case "pong":
      return frame.id === undefined ? [] : [{ type: "send", frame: { type: "ok", id: frame.id } }];
  }
}

function refuseFrame(problem: Problem, id: FrameId | undefined): readonly SessionEffect[] {
  const answer = errorFrame(problem, { id });
  if (problem.code !== "bad_frame") return [answer];
  return [answer, { type: "close", code: CLOSE_CODES.badFrame, reason: "bad_frame" }];
}
