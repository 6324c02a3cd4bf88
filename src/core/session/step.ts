// One connection's life as a step function: an event and the time come in, effects come out. It does no I/O and asks
// no clock; stream/connection.ts is the driver that does what the effects say and brings their results back as
// events. The step owns the session and changes it in place; the same events at the same times give the same effects.

import { CLOSE_CODES } from "../../protocol/codes.ts";
import type { FrameId } from "../../protocol/frames.ts";
import type { CheckedFrame } from "../client-frame.ts";
import type { Problem } from "../problem.ts";
import { handleAck, handleCommitFailed, handleCommitted } from "./acks.ts";
import { errorFrame, ok } from "./answers.ts";
import { handleReaderGained, handleRepositioned } from "./assigned.ts";
import { closeWhenFinished, handleDraining, handleDrainOverdue } from "./draining.ts";
import { handleClosed, handleEnded, handleTopicChanged } from "./endings.ts";
import type { SessionEffect, SessionEvent, Surroundings } from "./events.ts";
import { handleAlarm, noteHeartbeat, noteLife } from "./heartbeat.ts";
import { handleLocated, handlePause, handleSeek } from "./positions.ts";
import { handleOwnership, handleRelease, revokeFurther } from "./rebalance.ts";
import {
  endCommitAhead,
  freeTaken,
  handleChunk,
  handleCommittedAhead,
  handleGrown,
  handleReadGone,
  readMore,
  sendCommitted,
} from "./records.ts";
import type { Session } from "./state.ts";
import {
  handleJoined,
  handleLeft,
  handleOpenFailed,
  handleReaderOpened,
  handleSubscribe,
  handleUnsubscribe,
  leaveFurther,
} from "./subscribe.ts";
import { handleTransact, handleTransacted } from "./transactions.ts";

export function stepSession(
  session: Session,
  event: SessionEvent,
  around: Surroundings,
): readonly SessionEffect[] {
  freeTaken(session, around);
  const effects = [...handleEvent(session, event, around)];
  // A socket that only produces has none of this to do, and an answer a record.
  if (session.subscriptions.size > 0) {
    effects.push(...sendCommitted(session, around), ...leaveFurther(session), ...revokeFurther(session));
    // Answers and control frames are out: what the windows have left now goes to records.
    effects.push(...readMore(session, around));
  }
  effects.push(...closeWhenFinished(session));
  return effects;
}

function handleEvent(session: Session, event: SessionEvent, around: Surroundings): readonly SessionEffect[] {
  switch (event.type) {
    case "opened":
      return noteHeartbeat(session, around);
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
    case "readerOpened":
      return handleReaderOpened(session, event.ref, event.partitions);
    case "openFailed":
      return handleOpenFailed(session, event.ref, event.problem);
    case "ownership":
      return handleOwnership(session, event);
    case "readerGained":
      return handleReaderGained(session, event.ref, event.partitions);
    case "left":
      return handleLeft(session, event);
    case "ended":
      return handleEnded(session, event.ref, event.reason);
    case "topicChanged":
      return handleTopicChanged(session, event);
    case "chunk":
      return handleChunk(session, event, around);
    case "committedAhead":
      return handleCommittedAhead(session, event);
    case "commitAheadFailed":
      return endCommitAhead(session, event.ref);
    case "readGone":
      return handleReadGone(session, event.ref);
    case "grown":
      return handleGrown(session, event.ref);
    case "repositioned":
      return handleRepositioned(session, event);
    case "located":
      return handleLocated(session, event);
    case "committed":
      return handleCommitted(session, event, around);
    case "commitFailed":
      return handleCommitFailed(session, event);
    case "transacted":
      return handleTransacted(session, event, around);
    case "drained":
      return [];
    case "alarm":
      return handleAlarm(session, around);
    case "draining":
      return handleDraining(session, event.retryAfterMs);
    case "drainOverdue":
      return handleDrainOverdue(session);
    case "closed":
      return handleClosed(session);
  }
}

function handleFrame(session: Session, frame: CheckedFrame, around: Surroundings): readonly SessionEffect[] {
  switch (frame.type) {
    case "subscribe":
      return handleSubscribe(session, frame, around);
    case "ack":
      return handleAck(session, frame, around);
    case "seek":
      return handleSeek(session, frame);
    case "pause":
    case "resume":
      return handlePause(session, frame);
    case "release":
      return handleRelease(session, frame);
    case "produce":
    case "transact":
      return handleTransact(session, frame);
    case "unsubscribe":
      return handleUnsubscribe(session, frame);
    case "pong":
      return ok(frame.id);
  }
}

function refuseFrame(problem: Problem, id: FrameId | undefined): readonly SessionEffect[] {
  const answer = errorFrame(problem, { id });
  if (problem.code !== "bad_frame") return [answer];
  return [answer, { type: "close", code: CLOSE_CODES.badFrame, reason: "bad_frame" }];
}
