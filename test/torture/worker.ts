// Consume, transform, produce: for every record that it is sent it appends one, in one transaction with the commit.
// What it appends begins with what it comes from, so at the end anybody can see whether each came through once.

import type { AckEntry } from "../../src/protocol/frames.ts";
import type { FrameOf } from "../support/stream-client.ts";
import type { GroupPlace } from "./consumers.ts";
import type { Load } from "./load.ts";
import {
  conclude,
  eventOf,
  frameOf,
  type Outcome,
  outcomeOfCode,
  runsOf,
  type Send,
  sendOverHttp,
} from "./sends.ts";
import { Subscriber } from "./subscriber.ts";

export const SEPARATOR = ">";

export interface WorkerPlace extends GroupPlace {
  readonly into: string;
  /** It numbers its transactions, and settles one without an answer before it goes on. */
  readonly isIdempotent: boolean;
}

interface Batch {
  readonly entry: AckEntry;
  readonly values: readonly string[];
  /** Where each of them is. */
  readonly places: readonly string[];
}

export class Worker extends Subscriber {
  readonly #place: WorkerPlace;
  #batches: Batch[] = [];
  #open: { readonly send: Send; readonly batch: Batch } | undefined;
  #sequence = 0;

  constructor(load: Load, name: string, place: WorkerPlace) {
    super(load, name, place);
    this.#place = place;
  }

  protected override subscription() {
    const { group, topics } = this.#place;
    return { group, topics, window: { records: 100 } };
  }

  protected override onRecords({ topic, partition, generation, next, records }: FrameOf<"records">): void {
    if (!this.load.isSettling && this.load.dice.isLucky(0.01)) this.client?.cut();
    this.#batches.push({
      entry: { topic, partition, generation, offset: next },
      values: records.map((record) => ("value" in record ? String(record.value) : "bytes")),
      places: records.map(({ offset }) => `${topic}/${partition}@${offset}`),
    });
    this.#goOn();
  }

  protected override onAnswer(frame: FrameOf<"acked"> | FrameOf<"transacted"> | FrameOf<"error">): void {
    const open = this.#open;
    if (!open || frame.id !== open.send.name) return;
    if (frame.type === "transacted") {
      this.#close({ kind: "sent", runs: runsOf(open.send, frame.runs.map(Object)) });
    } else if (frame.type === "error") {
      const outcome = outcomeOfCode(frame.code);
      // It was not the time, or nobody knows: it comes back, and is sent what is not committed.
      if (outcome.kind === "later" && !this.#place.isIdempotent) this.#close(outcome);
      if (outcome.kind !== "refused") return this.client?.cut();
      this.#close(outcome);
      const { topic, partition, generation } = open.batch.entry;
      this.#batches = this.#batches.filter(
        ({ entry }) =>
          entry.topic !== topic || entry.partition !== partition || entry.generation !== generation,
      );
    }
    this.#goOn();
  }

  protected override async afterEnd(): Promise<void> {
    this.#batches = [];
    const open = this.#open;
    if (!open) return;
    this.load.tally.ended("cut");
    if (!this.#place.isIdempotent) {
      this.#open = undefined;
      return conclude(this.load, open.send, { kind: "unknown" }, true);
    }
    const outcome = await sendOverHttp(this.load, open.send);
    this.#open = undefined;
    if (outcome.kind === "sent") this.#sequence += 1;
  }

  #goOn(): void {
    const batch = this.#open ? undefined : this.#batches.shift();
    if (!batch || !this.client) return;
    const { group, into, isIdempotent } = this.#place;
    const name = this.load.recorder.name(this.name);
    const values = batch.values.map((value) => `${value}${SEPARATOR}${name}`);
    const send: Send = {
      name,
      producer: this.name,
      sequence: isIdempotent ? this.#sequence : undefined,
      appends: [{ topic: into, values, sources: batch.places }],
      commits: { group, offsets: [batch.entry] },
    };
    this.#open = { send, batch };
    this.load.recorder.write(eventOf(send));
    this.load.tally.asked();
    this.client.send(frameOf(send));
  }

  #close(outcome: Outcome): void {
    const send = this.#open?.send;
    this.#open = undefined;
    if (!send) return;
    if (outcome.kind === "sent") this.#sequence += 1;
    this.load.tally.ended("answered");
    conclude(this.load, send, outcome, false);
  }
}
