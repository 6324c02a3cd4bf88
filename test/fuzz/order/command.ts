// What may happen, each with the answer that the model foretells. A command that says a frame can be said alone, and then
// its answer is known, or in a burst with others, and then only that it is answered, and once.

import type fc from "fast-check";
import type { ErrorCode } from "../../../src/protocol/codes.ts";
import type { ClientFrame } from "../../../src/protocol/frames.ts";
import { type Expected, type Model, PARTITIONS } from "./model.ts";
import type { Real } from "./real.ts";
import type { View } from "./view.ts";

export type Command = fc.AsyncCommand<Model, Real>;

/** Which subscription says it, of the sockets and names that there may be. */
export interface Speaker {
  readonly socket: number;
  readonly name: string;
  /** Whether it speaks where there is no such subscription. */
  readonly isLost: boolean;
}

export interface Asked {
  readonly frame: ClientFrame;
  readonly expected: Expected;
}

export abstract class FrameCommand implements Command {
  readonly speaker: Speaker;

  constructor(speaker: Speaker) {
    this.speaker = speaker;
  }

  /** The frame, and what it must be answered. */
  abstract ask(model: Model): Asked;
  abstract toString(): string;

  check(model: Readonly<Model>): boolean {
    return this.speaker.isLost || model.view(this.speaker.socket, this.speaker.name) !== undefined;
  }

  async run(model: Model, real: Real): Promise<void> {
    const { frame, expected } = this.ask(model);
    real.say(this.speaker.socket, model.ask(this.speaker.socket, frame, expected));
    await real.settle(model);
  }

  view(model: Readonly<Model>): View | undefined {
    return model.view(this.speaker.socket, this.speaker.name);
  }

  said(what: unknown): string {
    return `${this.speaker.socket}/${this.speaker.name} ${JSON.stringify(what)}`;
  }
}

export function refused(code: ErrorCode): Expected {
  return { type: "error", code };
}

export const UNKNOWN_SUBSCRIPTION = refused("unknown_subscription");

/** Mostly one that the subscription has, now and then any. */
export function pickPartition(view: View | undefined, which: number): number {
  const held = [...(view?.held.keys() ?? [])];
  return (which % 4 === 3 ? undefined : held[which % held.length]) ?? which % PARTITIONS;
}
