// What becomes of a producer's sequence, by what its producer has written before.

import type { ProducerSequence } from "../protocol/frames.ts";
import { type BatchRun, type PartitionOffset, runsWithOffsets } from "./partitioner.ts";
import { Problem } from "./problem.ts";
import type { Written } from "./transaction.ts";

/** What is known of a producer that is not idle for too long. */
export interface ProducerState {
  readonly epoch: number;
  readonly nextSequence: number;
  /** Of the sequence that was asked for, while it is kept. */
  readonly answer: StoredAnswer | undefined;
}

/** Small, as one is kept for every one of a producer's last sequences: JSON texts. */
export interface StoredAnswer {
  /** [topic, partition, offset of the first record] of each partition of the batch. */
  readonly partitions: string;
  /** As `answerRuns` gives them. */
  readonly runs: string;
}

/** The first answer, where the sequence was written before; none of its runs where they are not kept any more. */
export function repeatedAnswer(
  { epoch, sequence }: ProducerSequence,
  state: ProducerState | undefined,
): Written | undefined {
  if (!state || state.epoch !== epoch || sequence >= state.nextSequence) return undefined;
  return { runs: state.answer ? runsOf(state.answer) : [], duplicate: true };
}

/** Why it is not written; undefined where it is the next one. */
export function sequenceProblem(
  { id, epoch, sequence }: ProducerSequence,
  state: ProducerState | undefined,
): Problem | undefined {
  const attempt = `Cannot take sequence ${sequence} of producer "${id}"`;
  if (state && epoch < state.epoch) {
    const message = `${attempt} in epoch ${epoch}: its epoch is ${state.epoch}`;
    return new Problem("fenced_producer", message, { producer: id, found: epoch, expected: state.epoch });
  }
  const expected = state?.epoch === epoch ? state.nextSequence : 0;
  if (sequence === expected) return undefined;
  const message = `${attempt} in epoch ${epoch}: the next one is ${expected}`;
  return new Problem("sequence_gap", message, { producer: id, found: sequence, expected });
}

/** JSON: which partition of the batch, records, which partition, records, … */
export function answerRuns(runs: readonly BatchRun[]): string {
  return JSON.stringify(runs.flatMap(({ at, count }) => [at, count]));
}

function runsOf({ partitions, runs }: StoredAnswer): Written["runs"] {
  const starts: [string, number, number][] = JSON.parse(partitions);
  const offsets: PartitionOffset[] = starts.map(([topic, partition, offset]) => ({
    topic,
    partition,
    offset,
  }));
  const numbers: number[] = JSON.parse(runs);
  const pairs: BatchRun[] = [];
  for (let at = 0; at + 1 < numbers.length; at += 2)
    pairs.push({ at: numbers[at] ?? 0, count: numbers[at + 1] ?? 0 });
  return runsWithOffsets(pairs, offsets);
}
