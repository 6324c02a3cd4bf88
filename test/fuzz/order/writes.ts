// produce and transact, with all that they may depend on.

import type { AckEntry, ClientFrame } from "../../../src/protocol/frames.ts";
import { type Asked, FrameCommand, pickPartition, refused, type Speaker } from "./command.ts";
import { type Expected, GROUP, type Model, PARTITIONS, TOPIC } from "./model.ts";
import type { Held } from "./view.ts";

export interface ProduceOptions {
  readonly partition: number;
  readonly count: number;
  readonly condition: "none" | "expect" | "unexpected" | "next" | "repeat" | "gap" | "fenced" | "partition";
}

/** Partly by a producer: it writes one sequence after the other, in epoch 1. */
export class Produce extends FrameCommand {
  readonly options: ProduceOptions;

  constructor(speaker: Speaker, options: ProduceOptions) {
    super(speaker);
    this.options = options;
  }

  ask(model: Model): Asked {
    const { partition, count, condition } = this.options;
    const end = model.ends[partition] ?? 0;
    const runs = [{ partition, offset: end, count }];
    const written = { type: "produced", runs } as const;
    const frame = { type: "produce", topic: TOPIC, records: model.records(partition, count) } as const;
    const { length: next } = model.sequences;
    const by = (sequence: number, epoch = 1) => ({ ...frame, producer: { id: "p", epoch, sequence } });
    switch (condition) {
      case "none":
        return { frame, expected: written };
      case "expect":
        return { frame: { ...frame, expect: [{ partition, logEndOffset: end }] }, expected: written };
      case "unexpected":
        return {
          frame: { ...frame, expect: [{ partition, logEndOffset: end + 1 }] },
          expected: refused("conflict"),
        };
      case "partition":
        return {
          frame: { ...frame, records: [{ partition: PARTITIONS, value: 0 }] },
          expected: refused("unknown_partition"),
        };
      case "next":
        return { frame: by(next), expected: written };
      case "gap":
        return { frame: by(next + 1), expected: refused("sequence_gap") };
      case "fenced":
        return { frame: by(next, 0), expected: refused("fenced_producer") };
      case "repeat":
        return { frame: by(next - 1), expected: { type: "produced", runs: runsOf(model), duplicate: true } };
    }
  }

  /** A producer that has written nothing is unknown: any epoch begins at 0. */
  override check({ sequences }: Readonly<Model>): boolean {
    const needsMore = this.options.condition === "repeat" || this.options.condition === "fenced";
    return !needsMore || sequences.length > 0;
  }

  override toString(): string {
    return this.said({ produce: this.options });
  }
}

/** As the last one was answered. */
function runsOf({ sequences }: Model) {
  return sequences.at(-1)?.map(({ partition, offset, count }) => ({ partition, offset, count }));
}

export interface TransactOptions {
  /** Which of the partitions that the subscription has is committed. */
  readonly which: number;
  readonly count: number;
  /** Where it appends to. */
  readonly target: number;
  readonly commit: "right" | "old" | "back" | "beyond";
}

export class Transact extends FrameCommand {
  readonly options: TransactOptions;

  constructor(speaker: Speaker, options: TransactOptions) {
    super(speaker);
    this.options = options;
  }

  ask(model: Model): Asked {
    const { target, count } = this.options;
    const entry = this.#entry(model);
    const appends = [{ topic: TOPIC, records: model.records(target, count) }];
    const frame: ClientFrame = { type: "transact", appends, commits: { group: GROUP, offsets: [entry] } };
    return { frame, expected: this.#expect(model, entry) };
  }

  override check({ members }: Readonly<Model>): boolean {
    return this.speaker.isLost || members.length > 0;
  }

  /** Whoever it is, on whichever socket. */
  #owner({ members }: Model, partition: number): Held | undefined {
    return members.find(({ held }) => held.has(partition))?.held.get(partition);
  }

  #entry(model: Model): AckEntry {
    const { which, commit } = this.options;
    const partition = pickPartition(this.view(model), which);
    const held = this.#owner(model, partition);
    const generation = commit === "old" ? 0 : (held?.generation ?? 0);
    const committed = model.committed.get(partition) ?? 0;
    const offsets = {
      right: held?.next ?? 0,
      old: held?.next ?? 0,
      back: committed,
      beyond: (model.ends[partition] ?? 0) + 1,
    };
    return { topic: TOPIC, partition, generation, offset: offsets[commit] };
  }

  #expect(model: Model, { partition, generation, offset }: AckEntry): Expected {
    const { target, count } = this.options;
    if (this.#owner(model, partition)?.generation !== generation) return refused("fenced_generation");
    if (offset > (model.ends[partition] ?? 0)) return refused("offset_out_of_range");
    if (offset <= (model.committed.get(partition) ?? -1)) return refused("conflict");
    const runs = [{ topic: TOPIC, partition: target, offset: model.ends[target] ?? 0, count }];
    return { type: "transacted", runs };
  }

  override toString(): string {
    return this.said({ transact: this.options });
  }
}
