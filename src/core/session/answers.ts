import type { ErrorFrame, FrameId } from "../../protocol/frames.ts";
import { Problem } from "../problem.ts";
import type { SessionEffect } from "./events.ts";

/** Of a frame that names no subscription. */
export const DEFAULT_SUBSCRIPTION = "default";

/** Where the client's frame had an id; who gave none wants no answer. */
export function ok(id: FrameId | undefined): readonly SessionEffect[] {
  return id === undefined ? [] : [{ type: "send", frame: { type: "ok", id } }];
}

export function unsubscribed({ name, id }: { name: string; id: FrameId | undefined }): SessionEffect {
  return { type: "send", frame: { type: "unsubscribed", id, subscription: name } };
}

export function unknownSubscription(name: string): Problem {
  return new Problem("unknown_subscription", `This socket has no subscription "${name}"`);
}

/** An error says of which topic and partition it speaks, where it does. */
export function errorFrame(
  problem: Problem,
  about: {
    readonly name?: string;
    readonly id?: FrameId | undefined;
    readonly topic?: string;
    readonly partition?: number;
  },
): SessionEffect {
  const frame: ErrorFrame = {
    ...problem.facts,
    type: "error",
    id: about.id,
    subscription: about.name,
    topic: about.topic ?? textFact(problem.facts.topic),
    partition: about.partition ?? numberFact(problem.facts.partition),
    code: problem.code,
    message: problem.message,
    retriable: problem.isRetriable,
  };
  return { type: "send", frame };
}

function textFact(fact: unknown): string | undefined {
  return typeof fact === "string" ? fact : undefined;
}

function numberFact(fact: unknown): number | undefined {
  return typeof fact === "number" ? fact : undefined;
}
