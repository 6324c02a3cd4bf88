// A write on conditions: appends to several topics, commits of a group, a producer's sequence, all or nothing. It touches
// the tables of records.ts, commits.ts and producers.ts with their statements.
//
// The conditions are judged once, by the first statement. Where they hold the others write; where they do not, the
// first of them that failed says why, read in the same transaction.

import { type BatchRun, type PartitionRecords, runsWithOffsets } from "../core/partitioner.ts";
import { Problem } from "../core/problem.ts";
import { answerRuns, repeatedAnswer, sequenceProblem } from "../core/producers.ts";
import type { Transaction, Written } from "../core/transaction.ts";
import type { TopicExpectation } from "../protocol/frames.ts";
import {
  type AppendedPartition,
  type AppendTarget,
  appendedTo,
  appendStatements,
  appendTarget,
  bytesOfTargets,
  tracesOf,
} from "./appends.ts";
import { ALL_COMMITS_ADVANCE, commitArgs, commitStatements, refusedCommit } from "./commits.ts";
import { type FlushTrace, numberColumn, type Row, type Rows, type SqlValue, type Statement } from "./db.ts";
import { IS_OK } from "./guard.ts";
import type { Operation } from "./operations.ts";
import {
  findProducer,
  IS_NEXT_SEQUENCE,
  nextSequenceArgs,
  noteSequence,
  producerState,
} from "./producers.ts";
import type { TimeIndexCadence } from "./time-index.ts";
import type { Topic } from "./topic-tables.ts";

// A topic that is gone, or has another schema than the records were checked against: [partition id, schema version].
const PARTITIONS_ARE_AS_KNOWN = `
  NOT EXISTS (
    SELECT 1 FROM json_each(:targets) AS target
    LEFT JOIN partitions AS p ON p.partition_id = target.value ->> 0
    LEFT JOIN topics AS t ON t.topic_id = p.topic_id
    WHERE t.schema_version IS NOT target.value ->> 1)`;

// [topic, partition, log end offset]
const UNMET_EXPECTATION = `
  SELECT e.key AS entry, t.topic_id, t.partition_count, p.log_end_offset
  FROM json_each(:expect) AS e
  LEFT JOIN topics AS t ON t.topic = e.value ->> 0
  LEFT JOIN partitions AS p ON p.topic_id = t.topic_id AND p.partition = e.value ->> 1
  WHERE p.log_end_offset IS NOT e.value ->> 2`;

const ALL_IS_AS_EXPECTED = `NOT EXISTS (${UNMET_EXPECTATION})`;

const FIND_UNMET_EXPECTATION = `${UNMET_EXPECTATION} AND NOT ${IS_OK} ORDER BY e.key LIMIT 1`;

export interface TransactionWrite {
  /** WriteQueue.nextOp(). */
  readonly op: number;
  readonly partitions: readonly PartitionRecords[];
  readonly runs: readonly BatchRun[];
  /** Those that are appended to, by name. */
  readonly topics: ReadonlyMap<string, Topic>;
  readonly conditions: Pick<Transaction, "producer" | "commits" | "expect">;
  readonly cadence?: TimeIndexCadence;
}

export interface TransactionOutcome {
  readonly written: Written;
  readonly appended: readonly AppendedPartition[];
}

/**
 * Settles to undefined, nothing written, where a topic that it appends to is gone or has another schema. Throws the
 * Problem of the first condition that does not hold: the producer's, the commits', the expectations'.
 */
export function writeTransaction(write: TransactionWrite): Operation<TransactionOutcome | undefined> {
  const { op, runs, conditions } = write;
  const targets = targetsOf(write);
  const sections = sectionsOf(write, targets);
  const outcomeOf = (logEnds: ReadonlyMap<number, number>) => {
    const appended = appendedTo(targets, logEnds);
    if (!appended) throw goneSince();
    return { written: { runs: runsWithOffsets(runs, appended) }, appended };
  };
  return {
    statements: Object.values(sections).flat(),
    op,
    bytes: bytesOfTargets(targets) + JSON.stringify(conditions).length,
    appends: targets,
    settle: (results) => {
      const rows = rowsOf(sections, results);
      const isWritten = rows.check[0]?.[0]?.ok === 1;
      return isWritten ? outcomeOf(logEndsIn(tracesOf(targets, rows.appends))) : refusedOutcome(write, rows);
    },
    afterLostAnswer: outcomeOf,
  };
}

function logEndsIn(traces: FlushTrace["partitions"]): ReadonlyMap<number, number> {
  return new Map([...traces].map(([partitionId, { logEndOffset }]) => [partitionId, logEndOffset]));
}

function targetsOf({ partitions, topics, cadence }: TransactionWrite): readonly AppendTarget[] {
  return partitions.map(({ topic: name, partition, records }) => {
    const topic = topics.get(name);
    if (!topic) throw new RangeError(`topic ${name} of a transaction was not looked up`);
    return appendTarget(topic, { partition, records }, cadence);
  });
}

/** In the order in which they run. */
function sectionsOf({ op, runs, conditions }: TransactionWrite, targets: readonly AppendTarget[]) {
  const { producer, commits, expect } = conditions;
  const commit = commits && commitStatements(op, commits);
  return {
    check: [checkConditions(op, targets, conditions)],
    producer: producer ? [findProducer(op, producer)] : [],
    refusedCommit: commit ? [commit.find] : [],
    unmetExpectation: expect ? [findUnmet(op, expect)] : [],
    appends: targets.flatMap((target) => appendStatements(target, op)),
    commit: commit ? [commit.commit] : [],
    sequence: producer ? noteSequence({ op, producer, appended: targets, runs: answerRuns(runs) }) : [],
  } satisfies Record<string, readonly Statement[]>;
}

type Sections = ReturnType<typeof sectionsOf>;

/** What the statements of each section gave. */
function rowsOf(sections: Sections, results: readonly Rows[]): Record<keyof Sections, readonly Rows[]> {
  const rest = [...results];
  const taken = Object.entries(sections).map(([name, { length }]) => [name, rest.splice(0, length)]);
  return Object.fromEntries(taken); // each name once
}

function checkConditions(
  op: number,
  targets: readonly AppendTarget[],
  { producer, commits, expect }: TransactionWrite["conditions"],
): Statement {
  const conditions = [PARTITIONS_ARE_AS_KNOWN];
  if (producer) conditions.push(IS_NEXT_SEQUENCE);
  if (commits) conditions.push(ALL_COMMITS_ADVANCE);
  if (expect) conditions.push(ALL_IS_AS_EXPECTED);
  return {
    sql: `INSERT INTO guard (op, ok) SELECT :op, ${conditions.join(" AND ")} RETURNING ok`,
    args: {
      op,
      targets: JSON.stringify(targets.map(({ partitionId, schemaVersion }) => [partitionId, schemaVersion])),
      ...(producer && nextSequenceArgs(producer)),
      ...(commits && commitArgs(commits)),
      ...(expect && expectArgs(expect)),
    },
  };
}

function findUnmet(op: number, expect: readonly TopicExpectation[]): Statement {
  return { sql: FIND_UNMET_EXPECTATION, args: { op, ...expectArgs(expect) } };
}

function expectArgs(expect: readonly TopicExpectation[]): Record<string, SqlValue> {
  const entries = expect.map(({ topic, partition, logEndOffset }) => [topic, partition, logEndOffset]);
  return { expect: JSON.stringify(entries) };
}

/** After a lost answer: what was written is not there any more. */
function goneSince(): Problem {
  return new Problem(
    "outcome_unknown",
    "The database has written this or not, and a topic of it is gone since",
  );
}

// ── where the conditions do not hold ─────────────────────────────────────────────────────────────────────

/** A producer's repeat comes first: what it was written against may have changed since, and does not matter any more. */
function refusedOutcome(
  { conditions, topics }: TransactionWrite,
  rows: Record<keyof Sections, readonly Rows[]>,
): TransactionOutcome | undefined {
  const { producer, commits, expect } = conditions;
  if (producer) {
    const row = rows.producer[0]?.[0];
    const state = row && producerState(row);
    const written = repeatedAnswer(producer, state);
    if (written) return { written, appended: [] };
    const problem = sequenceProblem(producer, state);
    if (problem) throw problem;
  }
  const refused = rows.refusedCommit[0]?.[0];
  if (commits && refused) throw refusedCommit(commits, refused);
  const unmet = rows.unmetExpectation[0]?.[0];
  const expectation = unmet && expect?.[numberColumn(unmet, "entry")];
  // A topic that is gone and appended to as well is looked for once more: first use may create it.
  const isGone = unmet?.topic_id === null && expectation && topics.has(expectation.topic);
  if (expectation && !isGone) throw unmetProblem(expectation, unmet);
  return undefined;
}

function unmetProblem({ topic, partition, logEndOffset: expected }: TopicExpectation, row: Row): Problem {
  const attempt = `Cannot write: expected log end offset ${expected} in topic "${topic}" partition ${partition}`;
  const facts = { topic, partition, expected };
  if (row.topic_id === null) return new Problem("unknown_topic", `${attempt}, there is no such topic`, facts);
  if (row.log_end_offset === null)
    return new Problem("unknown_partition", `${attempt}, the topic has no such partition`, {
      ...facts,
      partitionCount: row.partition_count,
    });
  const found = numberColumn(row, "log_end_offset");
  return new Problem("conflict", `${attempt}, found ${found}`, { ...facts, found });
}
