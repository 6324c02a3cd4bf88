// Who writes while the power goes: over HTTP one batch after the other, over a socket several at once. With sequences
// they send again, after the power is back, what was not answered; without, nobody will ever know.

import type { ProducedRecord, ProduceFrame, ServerFrame } from "../../src/protocol/frames.ts";
import { HttpClient } from "../support/http-client.ts";
import { type FrameClient, type Journal, type Send, valueText } from "./journal.ts";

/** At most as many as the server remembers the answers of. */
const IN_FLIGHT = 6;

export interface ProducerOptions {
  readonly id: string;
  readonly topic: string;
  readonly partitionCount: number;
  readonly isIdempotent: boolean;
  readonly random: () => number;
  readonly recordsMax: number;
  readonly valueBytesMax: number;
}

interface Batch {
  readonly send: string;
  readonly sequence: number;
  readonly records: readonly ProducedRecord[];
}

/** Makes batches, and remembers those that are not answered, in order. */
class Batches {
  readonly unanswered = new Map<number, Batch>();
  readonly #journal: Journal;
  readonly #options: ProducerOptions;
  #next = 0;

  constructor(journal: Journal, options: ProducerOptions) {
    this.#journal = journal;
    this.#options = options;
  }

  make(): Batch {
    const { id, topic, partitionCount, isIdempotent, random, recordsMax, valueBytesMax } = this.#options;
    const count = 1 + Math.floor(random() * recordsMax);
    const names = Array.from({ length: count }, () => this.#journal.name(id));
    const records = names.map((name) => ({
      value: valueText(name, Math.floor(random() * valueBytesMax)),
      partition: Math.floor(random() * partitionCount),
    }));
    const send = this.#journal.send({ producer: id, isIdempotent, appends: [{ topic, values: names }] });
    const batch = { send, sequence: this.#next, records };
    this.#next += 1;
    this.unanswered.set(batch.sequence, batch);
    return batch;
  }

  body({ sequence, records }: Batch): Pick<ProduceFrame, "records" | "producer"> {
    const { id, isIdempotent } = this.#options;
    return isIdempotent ? { records, producer: { id, epoch: 0, sequence } } : { records };
  }

  answer(sequence: number, answer: { runs?: ProducedRuns; code?: string }): void {
    const batch = this.unanswered.get(sequence);
    if (!batch) return;
    this.unanswered.delete(sequence);
    const runs = answer.runs?.map((run) => ({ topic: this.#options.topic, ...run }));
    if (runs) this.#journal.sent(batch.send, runs);
    else this.#journal.notSent(batch.send, answer.code ?? "no code");
  }
}

type ProducedRuns = readonly {
  readonly partition: number;
  readonly offset: number;
  readonly count: number;
}[];

export class SocketProducer implements FrameClient {
  readonly #batches: Batches;
  readonly #topic: string;
  #isFinishing = false;

  constructor(journal: Journal, options: ProducerOptions) {
    this.#batches = new Batches(journal, options);
    this.#topic = options.topic;
  }

  start(send: Send): void {
    for (let n = 0; n < IN_FLIGHT; n += 1) this.#produce(this.#batches.make(), send);
  }

  /** Only what was not answered, once more, in the same order. */
  finish(send: Send): void {
    this.#isFinishing = true;
    for (const batch of this.#batches.unanswered.values()) this.#produce(batch, send);
  }

  get isDone(): boolean {
    return this.#batches.unanswered.size === 0;
  }

  onFrame(frame: ServerFrame, send: Send): void {
    if (frame.type === "ping") send({ type: "pong" });
    if (frame.type === "produced") this.#batches.answer(Number(frame.id), frame);
    if (frame.type === "error") this.#batches.answer(Number(frame.id), { code: frame.code });
    if (frame.type === "produced" && !this.#isFinishing) this.#produce(this.#batches.make(), send);
  }

  #produce(batch: Batch, send: Send): void {
    send({ type: "produce", id: batch.sequence, topic: this.#topic, ...this.#batches.body(batch) });
  }
}

export class HttpProducer {
  readonly #batches: Batches;
  readonly #options: ProducerOptions;

  constructor(journal: Journal, options: ProducerOptions) {
    this.#batches = new Batches(journal, options);
    this.#options = options;
  }

  /** Resolves when no answer comes any more. */
  async runUntilCut(url: string): Promise<void> {
    while (await this.#produce(url, this.#batches.make()));
  }

  /** Without sequences what was not answered is left as it is. */
  async finish(url: string): Promise<void> {
    if (!this.#options.isIdempotent) return;
    for (const batch of this.#batches.unanswered.values())
      if (!(await this.#produce(url, batch))) throw new Error(`${this.#options.id} got no answer`);
  }

  async #produce(url: string, batch: Batch): Promise<boolean> {
    const path = `/v1/topics/${this.#options.topic}/records`;
    const answer = await new HttpClient({ url })
      .call("POST", path, this.#batches.body(batch))
      .catch(() => undefined);
    // A 504 says that nobody knows, which is what no answer says.
    if (answer === undefined || answer.status >= 500) return false;
    this.#batches.answer(batch.sequence, answer.body);
    return true;
  }
}
