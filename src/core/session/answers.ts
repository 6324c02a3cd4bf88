import type { ErrorFrame, FrameId } from "../../protocol/frames.ts";
import { Problem } from "../problem.ts";
import type { SessionEffect } from "./events.ts";

/** Of a frame that names no subscription. */
export const DEFAULT_SUBSCRIPTION = "default";

export function unsubscribed({ name, id }: { name: string; id: FrameId | undefined }): SessionEffect {
  return { type: "send", frame: { type: "unsubscribed", id, subscription: name } };
}

export function unknownSubscription(name: string): Problem {
  return new Problem("unknown_subscription", `This socket has no subscription "${name}"`);
}

export function errorFrame(
  problem: Problem,
  about: { name?: string; id?: FrameId | undefined; topic?: string; partition?: number },
): SessionEffect {
  const frame: ErrorFrame = {
    type: "error",
    id: about.id,
    subscription: about.name,
    topic: about.topic,
    partition: about.partition,
    code: problem.code,
    message: problem.message,
    retriable: problem.isRetriable,
  };
  return { type: "send", frame };
}
