// Owns `producers` and `producer_answers`: which sequence of a producer is the next one, and what its last ones were
// answered. A sequence is judged and counted in the transaction that writes its records, so a batch that is sent again,
// for whatever reason, is written once.

import { Problem } from "../core/problem.ts";
import { type ProducerState, repeatedAnswer } from "../core/producers.ts";
import type { Written } from "../core/transaction.ts";
import type { ProducerSequence } from "../protocol/frames.ts";
import { INTEGER_MAX, PRODUCER_ANSWERS_KEPT, PRODUCER_IDLE_MAX_MS } from "../protocol/limits.ts";
import { type Db, numberColumn, type Row, type SqlValue, type Statement } from "./db.ts";
import { IS_OK } from "./guard.ts";
import type { Operation } from "./operations.ts";

// ── the condition of a write ─────────────────────────────────────────────────────────────────────────────

/** An unknown producer and a new epoch start at 0; an older epoch has no next sequence. */
export const IS_NEXT_SEQUENCE = `
  :sequence = coalesce(
    (SELECT CASE WHEN epoch = :epoch THEN next_sequence WHEN epoch < :epoch THEN 0 ELSE -1 END
     FROM producers, clock
     WHERE producer_id = :producer_id AND used_at > now_ms - :producer_idle_max_ms),
    0)`;

const FIND_PRODUCER = `
  SELECT p.epoch, p.next_sequence, a.partitions, a.runs
  FROM clock JOIN producers AS p ON p.producer_id = :producer_id
  LEFT JOIN producer_answers AS a
    ON a.producer_id = p.producer_id AND a.slot = :sequence % :answers_kept AND a.sequence = :sequence
  WHERE p.used_at > now_ms - :producer_idle_max_ms`;

const FIND_PRODUCER_OF_REFUSED = `${FIND_PRODUCER} AND NOT ${IS_OK}`;

/** What the producer was found at where the condition does not hold: no row where it does. */
export function findProducer(op: number, producer: ProducerSequence): Statement {
  return { sql: FIND_PRODUCER_OF_REFUSED, args: { op, ...findArgs(producer) } };
}

/** The answer of a sequence that was written before. */
export async function readRepeated(db: Db, producer: ProducerSequence): Promise<Written | undefined> {
  const [row] = await db.read({ sql: FIND_PRODUCER, args: findArgs(producer) });
  return repeatedAnswer(producer, row && producerState(row));
}

function findArgs({ id, sequence }: ProducerSequence): Record<string, SqlValue> {
  return {
    producer_id: id,
    sequence,
    answers_kept: PRODUCER_ANSWERS_KEPT,
    producer_idle_max_ms: PRODUCER_IDLE_MAX_MS,
  };
}

export function nextSequenceArgs({ id, epoch, sequence }: ProducerSequence): Record<string, SqlValue> {
  return { producer_id: id, epoch, sequence, producer_idle_max_ms: PRODUCER_IDLE_MAX_MS };
}

export function producerState(row: Row): ProducerState {
  const { partitions, runs } = row;
  return {
    epoch: numberColumn(row, "epoch"),
    nextSequence: numberColumn(row, "next_sequence"),
    answer: typeof runs === "string" ? { partitions: String(partitions), runs } : undefined,
  };
}

// ── what a write leaves ──────────────────────────────────────────────────────────────────────────────────

const COUNT_SEQUENCE = `
  INSERT INTO producers (producer_id, epoch, next_sequence, used_at)
  SELECT :producer_id, :epoch, :sequence + 1, now_ms FROM clock WHERE ${IS_OK}
  ON CONFLICT (producer_id) DO UPDATE
    SET epoch = excluded.epoch, next_sequence = excluded.next_sequence, used_at = excluded.used_at`;

// After the appends: what they have added lies before the log end. `:appended` is [partition id, records] of each.
const KEEP_ANSWER = `
  INSERT INTO producer_answers (producer_id, slot, sequence, partitions, runs)
  SELECT :producer_id, :sequence % :answers_kept, :sequence,
         (SELECT json_group_array(json_array(t.topic, p.partition, p.log_end_offset - (appended.value ->> 1)))
          FROM json_each(:appended) AS appended
          CROSS JOIN partitions AS p ON p.partition_id = appended.value ->> 0
          CROSS JOIN topics AS t ON t.topic_id = p.topic_id),
         :runs
  WHERE ${IS_OK}
  ON CONFLICT (producer_id, slot) DO UPDATE
    SET sequence = excluded.sequence, partitions = excluded.partitions, runs = excluded.runs`;

export interface SequenceWritten {
  readonly op: number;
  readonly producer: ProducerSequence;
  /** In the order of the batch's partitions. */
  readonly appended: readonly { readonly partitionId: number; readonly count: number }[];
  /** As `answerRuns` gives them. */
  readonly runs: string;
}

/** After the appends, in the same transaction. */
export function noteSequence({ op, producer, appended, runs }: SequenceWritten): readonly Statement[] {
  const { id, epoch, sequence } = producer;
  const args = { op, producer_id: id, sequence };
  const pairs = JSON.stringify(appended.map(({ partitionId, count }) => [partitionId, count]));
  return [
    { sql: COUNT_SEQUENCE, args: { ...args, epoch } },
    { sql: KEEP_ANSWER, args: { ...args, answers_kept: PRODUCER_ANSWERS_KEPT, appended: pairs, runs } },
  ];
}

// ── a new epoch ──────────────────────────────────────────────────────────────────────────────────────────

// Never 0: that is what a producer starts with that does not ask, and what it sent may still be on its way.
const RAISE_EPOCH = `
  INSERT INTO producers (producer_id, epoch, next_sequence, used_at)
  SELECT :producer_id, 1, 0, now_ms FROM clock WHERE true
  ON CONFLICT (producer_id) DO UPDATE
    SET epoch = epoch + 1, next_sequence = 0, used_at = excluded.used_at
    WHERE epoch < :epoch_max
  RETURNING epoch`;

/** Whoever goes on in an older epoch is fenced, from this commit on. Throws `conflict` above the highest. */
export function raiseEpoch(producerId: string): Operation<number> {
  return {
    statements: [{ sql: RAISE_EPOCH, args: { producer_id: producerId, epoch_max: INTEGER_MAX } }],
    bytes: producerId.length,
    afterLostAnswer: "repeat", // one more epoch, which nobody was told before
    settle: ([raised]) => {
      const [row] = raised ?? [];
      if (!row) throw noHigherEpoch(producerId);
      return numberColumn(row, "epoch");
    },
  };
}

function noHigherEpoch(id: string): Problem {
  const message = `Cannot raise the epoch of producer "${id}": it is ${INTEGER_MAX}, and there is no higher one`;
  return new Problem("conflict", message, { producer: id, epoch: INTEGER_MAX });
}
