// What a client does with the partitions that it has: ack, release, pause, resume, seek.

import type { ErrorCode } from "../../../src/protocol/codes.ts";
import type { AckEntry, ClientFrame } from "../../../src/protocol/frames.ts";
import type { Place } from "../../../src/protocol/places.ts";
import {
  type Asked,
  FrameCommand,
  pickPartition,
  refused,
  type Speaker,
  UNKNOWN_SUBSCRIPTION,
} from "./command.ts";
import { type Expected, type Model, PARTITIONS, TOPIC } from "./model.ts";
import type { Held, View } from "./view.ts";

const ACKS = [
  "right",
  "part",
  "repeated",
  "below",
  "furthest",
  "beyond",
  "old",
  "stolen",
  "partition",
  "topic",
] as const;
export const ACK_KINDS: readonly AckKind[] = ACKS;
export type AckKind = (typeof ACKS)[number];

export class Ack extends FrameCommand {
  readonly kind: AckKind;
  readonly which: number;

  constructor(speaker: Speaker, about: { readonly kind: AckKind; readonly which: number }) {
    super(speaker);
    this.kind = about.kind;
    this.which = about.which;
  }

  ask(model: Model): Asked {
    const view = this.view(model);
    const entry = this.#entry(model, this.#soughtBack(view) ?? pickPartition(view, this.which));
    const frame: ClientFrame = { type: "ack", subscription: this.speaker.name, offsets: [entry] };
    return { frame, expected: view ? this.#expect(model, view, entry) : UNKNOWN_SUBSCRIPTION };
  }

  #entry(model: Model, partition: number): AckEntry {
    const held = this.view(model)?.held.get(partition);
    const right = { topic: TOPIC, partition, generation: held?.generation ?? 0, offset: held?.next ?? 0 };
    switch (this.kind) {
      case "part":
        return { ...right, offset: held?.unacked[1] ?? right.offset };
      case "repeated":
        return { ...right, offset: Math.min(right.offset, model.committed.get(partition) ?? 0) };
      case "below":
        return { ...right, offset: Math.max(0, (model.committed.get(partition) ?? 0) - 1) };
      case "furthest":
        return { ...right, offset: held?.furthest ?? 0 };
      case "beyond":
        return { ...right, offset: (held?.furthest ?? 0) + 1 };
      case "old":
        return { ...right, generation: Math.max(0, right.generation - 1) };
      case "stolen":
        return { ...right, generation: this.#otherOwner(model, partition)?.generation ?? 0 };
      case "partition":
        return { ...right, partition: PARTITIONS };
      case "topic":
        return { ...right, topic: "nowhere" };
      default:
        return right;
    }
  }

  /** What was reached before a seek back may be acknowledged after it. */
  #soughtBack(view: View | undefined): number | undefined {
    const held = this.kind === "furthest" ? [...(view?.held ?? [])] : [];
    return held.find(([, { next, furthest }]) => next < furthest)?.[0];
  }

  #otherOwner(model: Model, partition: number): Held | undefined {
    return model.members
      .find((view) => view !== this.view(model) && view.held.has(partition))
      ?.held.get(partition);
  }

  #expect(model: Model, view: View, entry: AckEntry): Expected {
    const { topic, partition, generation, offset } = entry;
    const held = topic === TOPIC ? view.held.get(partition) : undefined;
    const isFenced = held?.generation !== generation;
    const code = isFenced ? "fenced_generation" : offset > held.furthest ? "offset_out_of_range" : undefined;
    const answer = (offsetAfter: number | null, why: ErrorCode | undefined): Expected => ({
      type: "acked",
      subscription: view.name,
      offsets: [{ topic, partition, offset: offsetAfter, ...(why && { code: why }) }],
    });
    if (view.isReader) return answer(null, code);
    if (topic !== TOPIC) return answer(null, "unknown_topic");
    if (partition >= PARTITIONS) return answer(null, "unknown_partition");
    const committed = model.committed.get(partition) ?? 0;
    return answer(code ? committed : Math.max(committed, offset), code);
  }

  override toString(): string {
    return this.said({ ack: this.kind, which: this.which });
  }
}

export class Steer extends FrameCommand {
  readonly type: "pause" | "resume" | "release";
  readonly which: readonly number[];

  constructor(
    speaker: Speaker,
    about: { readonly type: "pause" | "resume" | "release"; readonly which: readonly number[] },
  ) {
    super(speaker);
    this.type = about.type;
    this.which = about.which;
  }

  /** Release mostly where something goes. */
  override check(model: Readonly<Model>): boolean {
    const { isLost } = this.speaker;
    return isLost || (super.check(model) && (this.type !== "release" || this.#going(model).length > 0));
  }

  ask(model: Model): Asked {
    const numbers = this.#choose(model);
    const partitions = [...numbers].map((partition) => ({ topic: TOPIC, partition }));
    return {
      frame: { type: this.type, subscription: this.speaker.name, partitions },
      expected: this.#expect(model, [...numbers]),
    };
  }

  #going(model: Readonly<Model>): readonly number[] {
    const held = this.view(model)?.held ?? [];
    return [...held].flatMap(([partition, { isRevoked }]) => (isRevoked ? [partition] : []));
  }

  #choose(model: Model): ReadonlySet<number> {
    const going = this.#going(model);
    if (this.type === "release" && going.length > 0 && this.which[0] !== 0) return new Set(going);
    return new Set(this.which.map((which) => pickPartition(this.view(model), which)));
  }

  #expect(model: Model, numbers: readonly number[]): Expected {
    const view = this.view(model);
    if (!view) return UNKNOWN_SUBSCRIPTION;
    const held = numbers.map((partition) => view.held.get(partition));
    if (held.includes(undefined)) return refused("not_assigned");
    const isKept = this.type === "release" && held.some((each) => !each?.isRevoked);
    return isKept ? refused("conflict") : { type: "ok" };
  }

  override toString(): string {
    return this.said({ [this.type]: this.which });
  }
}

export class SeekTo extends FrameCommand {
  readonly which: number;
  readonly to: Place;

  constructor(speaker: Speaker, about: { readonly which: number; readonly to: Place }) {
    super(speaker);
    this.which = about.which;
    this.to = about.to;
  }

  ask(model: Model): Asked {
    const { to } = this;
    const partition = pickPartition(this.view(model), this.which);
    const frame: ClientFrame = { type: "seek", subscription: this.speaker.name, topic: TOPIC, partition, to };
    return { frame, expected: this.#expect(model, partition) };
  }

  #expect(model: Model, partition: number): Expected {
    const { to } = this;
    const view = this.view(model);
    if (!view) return UNKNOWN_SUBSCRIPTION;
    const held = view.held.get(partition);
    if (!held || held.isRevoked) return refused("not_assigned");
    const end = model.ends[partition] ?? 0;
    const committed = model.committed.get(partition) ?? 0;
    if (view.isReader && (to === "current" || (typeof to === "object" && "shift" in to)))
      return refused("bad_request");
    const position = placeOf(to, { committed, end });
    if (position > end) return refused("offset_out_of_range");
    return {
      type: "assigned",
      subscription: view.name,
      partitions: [{ topic: TOPIC, partition, generation: held.generation, position, logEndOffset: end }],
    };
  }

  override toString(): string {
    return this.said({ seek: this.which, to: this.to });
  }
}

export function placeOf(
  to: Place,
  { committed, end }: { readonly committed: number; readonly end: number },
): number {
  if (to === "earliest") return 0;
  if (to === "latest") return end;
  if (to === "current") return committed;
  if ("offset" in to) return to.offset;
  if ("shift" in to) return Math.min(Math.max(committed + to.shift, 0), end);
  throw new RangeError("no command goes to a time");
}
