// What PROTOCOL.md says of producers, expectations and transactions, in memory: one operation after the other.

import type { AckEntry, ProducerSequence, TopicExpectation } from "../../src/protocol/frames.ts";

const IDLE_MAX_MS = 7 * 24 * 60 * 60 * 1_000;
const ANSWERS_KEPT = 16;

export type Run = readonly [topic: string, partition: number, offset: number, count: number];

export type ModelAnswer =
  | { readonly runs: readonly Run[]; readonly duplicate?: true }
  | { readonly refused: string; readonly found?: unknown; readonly expected?: unknown }
  | "changed";

export interface ModelTopic {
  readonly topicId: number;
  schemaVersion: number;
  /** The values of each partition. */
  readonly logs: string[][];
  readonly committed: (number | undefined)[];
  /** By partition: in which the group owns it. */
  readonly generations: (number | undefined)[];
}

export interface ModelProducer {
  epoch: number;
  next: number;
  usedAt: number;
  readonly answers: Map<number, readonly Run[]>;
}

/** A topic as it was when the records were checked. */
export interface ModelAppend {
  readonly topic: string;
  readonly topicId: number;
  readonly schemaVersion: number;
  readonly partition: number;
  readonly values: readonly string[];
}

export interface ModelWrite {
  readonly appends: readonly ModelAppend[];
  readonly producer?: ProducerSequence | undefined;
  readonly commits?: readonly AckEntry[] | undefined;
  readonly expect?: readonly TopicExpectation[] | undefined;
}

export class TransactionModel {
  readonly topics = new Map<string, ModelTopic>();
  readonly producers = new Map<string, ModelProducer>();
  nowMs: number;

  constructor(nowMs: number) {
    this.nowMs = nowMs;
  }

  raise(id: string): number {
    const epoch = (this.producers.get(id)?.epoch ?? 0) + 1;
    this.producers.set(id, { epoch, next: 0, usedAt: this.nowMs, answers: new Map() });
    return epoch;
  }

  /** What its next sequence in the epoch is. */
  nextOf(id: string, epoch: number): number {
    const known = this.#knownOf(id);
    return known?.epoch === epoch ? known.next : 0;
  }

  write(write: ModelWrite): ModelAnswer {
    const repeated = this.#repeatedAnswer(write.producer);
    const refusal =
      repeated ??
      this.#sequenceRefusal(write.producer) ??
      this.#commitRefusal(write.commits ?? []) ??
      this.#unmet(write) ??
      (write.appends.every((append) => this.#isAsKnown(append)) ? undefined : "changed");
    if (refusal !== undefined) return refusal;
    const runs = this.#append(write.appends);
    for (const { topic, partition, offset } of write.commits ?? []) {
      const committed = this.topics.get(topic)?.committed;
      if (committed) committed[partition] = offset;
    }
    if (write.producer) this.#count(write.producer, runs);
    return { runs };
  }

  #knownOf(id: string): ModelProducer | undefined {
    const known = this.producers.get(id);
    return known && known.usedAt > this.nowMs - IDLE_MAX_MS ? known : undefined;
  }

  #repeatedAnswer(producer: ProducerSequence | undefined): ModelAnswer | undefined {
    const known = producer && this.#knownOf(producer.id);
    if (!known || known.epoch !== producer.epoch || producer.sequence >= known.next) return undefined;
    const isKept = producer.sequence >= known.next - ANSWERS_KEPT;
    return { runs: (isKept && known.answers.get(producer.sequence)) || [], duplicate: true };
  }

  #sequenceRefusal(producer: ProducerSequence | undefined): ModelAnswer | undefined {
    if (!producer) return undefined;
    const known = this.#knownOf(producer.id);
    if (known && producer.epoch < known.epoch)
      return { refused: "fenced_producer", found: producer.epoch, expected: known.epoch };
    const expected = this.nextOf(producer.id, producer.epoch);
    return producer.sequence === expected
      ? undefined
      : { refused: "sequence_gap", found: producer.sequence, expected };
  }

  #commitRefusal(commits: readonly AckEntry[]): ModelAnswer | undefined {
    for (const { topic: name, partition, generation, offset } of commits) {
      const topic = this.topics.get(name);
      const log = topic?.logs[partition];
      if (!topic) return { refused: "unknown_topic" };
      if (!log) return { refused: "unknown_partition" };
      const owned = topic.generations[partition];
      if (owned !== generation) return { refused: "fenced_generation", found: owned ?? null };
      if (offset > log.length) return { refused: "offset_out_of_range", found: offset };
      if (offset <= (topic.committed[partition] ?? -1)) return { refused: "conflict", found: offset };
    }
    return undefined;
  }

  #unmet({ expect = [], appends }: ModelWrite): ModelAnswer | undefined {
    for (const { topic: name, partition, logEndOffset } of expect) {
      const topic = this.topics.get(name);
      const found = topic?.logs[partition]?.length;
      if (found === logEndOffset) continue;
      // First use may create it.
      if (!topic && appends.some((append) => append.topic === name)) return "changed";
      if (!topic) return { refused: "unknown_topic", expected: logEndOffset };
      if (found === undefined) return { refused: "unknown_partition", expected: logEndOffset };
      return { refused: "conflict", found, expected: logEndOffset };
    }
    return undefined;
  }

  #isAsKnown({ topic: name, topicId, schemaVersion }: ModelAppend): boolean {
    const topic = this.topics.get(name);
    return topic?.topicId === topicId && topic.schemaVersion === schemaVersion;
  }

  #append(appends: readonly ModelAppend[]): readonly Run[] {
    const runs: [string, number, number, number][] = [];
    for (const { topic, partition, values } of appends) {
      const log = this.topics.get(topic)?.logs[partition];
      if (!log) throw new RangeError(`${topic}/${partition} is not there`);
      const last = runs.at(-1);
      if (last?.[0] === topic && last[1] === partition) last[3] += values.length;
      else runs.push([topic, partition, log.length, values.length]);
      log.push(...values);
    }
    return runs;
  }

  #count({ id, epoch, sequence }: ProducerSequence, runs: readonly Run[]): void {
    const known = this.#knownOf(id);
    const answers = known?.epoch === epoch ? known.answers : new Map<number, readonly Run[]>();
    answers.set(sequence, runs);
    this.producers.set(id, { epoch, next: sequence + 1, usedAt: this.nowMs, answers });
  }
}
