// Owns `committed_offsets`: what acks write, and what a policy writes where the offset has left the log. (What policies
// write when a member gets a partition is in groups.ts; commits from outside in group-changes.ts.)

import { Problem } from "../core/problem.ts";
import type { AckOutcome, AckRequest } from "../core/session/events.ts";
import type { ErrorCode } from "../protocol/codes.ts";
import type { GroupCommits } from "../protocol/frames.ts";
import { numberColumn, type Row, type Statement } from "./db.ts";
import { IS_OK, IS_OK_OR_FREE } from "./guard.ts";
import type { Operation } from "./operations.ts";

// The generation is judged in the write itself: an owner that has lost the partition, whatever it believes, has no
// effect. Forward only. Where a partition is named twice the highest accepted offset counts.
const COMMIT_OFFSETS = `
  INSERT INTO committed_offsets (group_id, partition_id, committed_offset, metadata, committed_at)
  SELECT :group_id, p.partition_id, max(ack.value ->> 3), ack.value ->> 4, (SELECT now_ms FROM clock)
  FROM json_each(:acks) AS ack
  JOIN topics AS t ON t.topic = ack.value ->> 0
  JOIN partitions AS p ON p.topic_id = t.topic_id AND p.partition = ack.value ->> 1
  JOIN assignments AS a ON a.group_id = :group_id AND a.partition_id = p.partition_id
  WHERE ack.value ->> 5 AND a.generation = ack.value ->> 2 AND ${IS_OK_OR_FREE}
  GROUP BY p.partition_id
  ON CONFLICT (group_id, partition_id) DO UPDATE
    SET committed_offset = excluded.committed_offset, metadata = excluded.metadata,
        committed_at = excluded.committed_at
    WHERE excluded.committed_offset > committed_offsets.committed_offset`;

const ANSWER_ACKS = `
  SELECT t.topic_id, p.partition_id, c.committed_offset, a.generation
  FROM json_each(:acks) AS ack
  LEFT JOIN topics AS t ON t.topic = ack.value ->> 0
  LEFT JOIN partitions AS p ON p.topic_id = t.topic_id AND p.partition = ack.value ->> 1
  LEFT JOIN assignments AS a ON a.group_id = :group_id AND a.partition_id = p.partition_id
  LEFT JOIN committed_offsets AS c ON c.group_id = :group_id AND c.partition_id = p.partition_id
  ORDER BY ack.key`;

/** One transaction for all acks of a frame. Settles to one result for each, in order; a refused one spoils nothing. */
export function commitOffsets(group: string, acks: readonly AckRequest[]): Operation<readonly AckOutcome[]> {
  const args = { group_id: group, acks: ackEntries(acks) };
  return {
    statements: [
      { sql: COMMIT_OFFSETS, args: { ...args, op: null } },
      { sql: ANSWER_ACKS, args },
    ],
    bytes: args.acks.length,
    afterLostAnswer: "repeat",
    settle: ([, answers], isRepeated) =>
      acks.map((ack, index) => resultOf(ack, answers?.[index] ?? {}, isRepeated)),
  };
}

function ackEntries(acks: readonly AckRequest[]): string {
  return JSON.stringify(
    acks.map(({ topic, partition, generation, offset, metadata, refusal }) => [
      topic,
      partition,
      generation,
      offset,
      metadata,
      refusal === undefined ? 1 : 0,
    ]),
  );
}

// ── commits of a transaction ─────────────────────────────────────────────────────────────────────────────

// Whoever owns the partition commits, inside the log and forward: else a repeated transaction would be written twice.
const REFUSED_COMMIT = `
  SELECT ack.key AS entry, t.topic_id, t.partition_count, p.partition_id, p.log_start_offset, p.log_end_offset,
         a.generation, c.committed_offset
  FROM json_each(:acks) AS ack
  LEFT JOIN topics AS t ON t.topic = ack.value ->> 0
  LEFT JOIN partitions AS p ON p.topic_id = t.topic_id AND p.partition = ack.value ->> 1
  LEFT JOIN assignments AS a ON a.group_id = :group_id AND a.partition_id = p.partition_id
  LEFT JOIN committed_offsets AS c ON c.group_id = :group_id AND c.partition_id = p.partition_id
  WHERE NOT coalesce(a.generation = ack.value ->> 2
                     AND ack.value ->> 3 > coalesce(c.committed_offset, -1)
                     AND ack.value ->> 3 <= p.log_end_offset, 0)`;

/** Holds where every commit of the transaction is the owner's, inside the log, and forward. */
export const ALL_COMMITS_ADVANCE = `NOT EXISTS (${REFUSED_COMMIT})`;

const FIND_REFUSED_COMMIT = `${REFUSED_COMMIT} AND NOT ${IS_OK} ORDER BY ack.key LIMIT 1`;

export function commitArgs({ group, offsets }: GroupCommits): { group_id: string; acks: string } {
  const acks = offsets.map(({ metadata = null, ...entry }) => ({ ...entry, metadata, refusal: undefined }));
  return { group_id: group, acks: ackEntries(acks) };
}

/** The first that does not hold, where the condition does not; and the commits themselves, where it does. */
export function commitStatements(
  op: number,
  commits: GroupCommits,
): { readonly find: Statement; readonly commit: Statement } {
  const args = { op, ...commitArgs(commits) };
  return { find: { sql: FIND_REFUSED_COMMIT, args }, commit: { sql: COMMIT_OFFSETS, args } };
}

/** Of a row that `find` gave. */
export function refusedCommit({ group, offsets }: GroupCommits, row: Row): Problem {
  const entry = offsets[numberColumn(row, "entry")];
  if (!entry) throw new RangeError("a refused commit is none of the transaction's");
  const { topic, partition, generation, offset } = entry;
  const attempt = `Cannot commit offset ${offset} of topic "${topic}" partition ${partition} for group "${group}"`;
  const facts = { group, topic, partition };
  if (row.topic_id === null) return new Problem("unknown_topic", `${attempt}: there is no such topic`, facts);
  if (row.partition_id === null)
    return new Problem("unknown_partition", `${attempt}: the topic has no such partition`, {
      ...facts,
      partitionCount: row.partition_count,
    });
  if (row.generation !== generation) {
    const owner = row.generation === null ? "nobody owns it" : `its generation is ${row.generation}`;
    const found = row.generation;
    return new Problem("fenced_generation", `${attempt} in generation ${generation}: ${owner}`, {
      ...facts,
      generation,
      found,
    });
  }
  const logEndOffset = numberColumn(row, "log_end_offset");
  if (offset > logEndOffset) {
    const why = `${attempt}: log end offset is ${logEndOffset}`;
    const logStartOffset = row.log_start_offset;
    return new Problem("offset_out_of_range", why, { ...facts, found: offset, logStartOffset, logEndOffset });
  }
  const committedOffset = numberColumn(row, "committed_offset");
  const why = `${attempt}: ${committedOffset} is committed, and a transaction must advance it`;
  return new Problem("conflict", why, { ...facts, found: offset, committedOffset });
}

// ── an offset that has left the log ──────────────────────────────────────────────────────────────────────

// Only the owner's policy, and only over the offset that it has seen: an ack may have come in between.
const RESETTABLE = `
  FROM assignments AS a
  JOIN partitions AS p ON p.partition_id = a.partition_id
  JOIN topics AS t ON t.topic_id = p.topic_id
  JOIN committed_offsets AS c ON c.group_id = a.group_id AND c.partition_id = a.partition_id
  WHERE a.group_id = :group_id AND a.partition_id = :partition_id AND a.generation = :generation
    AND c.committed_offset = :from`;

const RECORD_RESET = `
  INSERT INTO offset_history (group_id, topic, partition, previous_offset, new_offset, cause, actor, at)
  SELECT a.group_id, t.topic, p.partition, c.committed_offset, :to, :cause, 'member ' || a.member_id,
         (SELECT now_ms FROM clock)
  ${RESETTABLE}`;

const COMMIT_RESET = `
  UPDATE committed_offsets SET committed_offset = :to, metadata = NULL, committed_at = (SELECT now_ms FROM clock)
  WHERE group_id = :group_id AND partition_id = :partition_id AND EXISTS (SELECT 1 ${RESETTABLE})
  RETURNING committed_offset`;

export interface PolicyCommit {
  readonly group: string;
  readonly partitionId: number;
  readonly generation: number;
  readonly from: number;
  readonly to: number;
  readonly cause: string;
}

/** Settles to false, with nothing written, where the generation or the committed offset is another one by now. */
export function commitPolicy({
  group,
  partitionId,
  generation,
  from,
  to,
  cause,
}: PolicyCommit): Operation<boolean> {
  const args = { group_id: group, partition_id: partitionId, generation, from, to };
  return {
    statements: [
      { sql: RECORD_RESET, args: { ...args, cause } },
      { sql: COMMIT_RESET, args },
    ],
    bytes: cause.length,
    afterLostAnswer: "repeat",
    settle: ([, committed]) => committed?.length === 1,
  };
}

// ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Whose answer was lost may have been committed before the partition changed hands. */
function resultOf(ack: AckRequest, row: Row, isRepeated: boolean): AckOutcome {
  const code = codeOf(ack, row);
  return {
    committedOffset: typeof row.committed_offset === "number" ? row.committed_offset : null,
    code: code === "fenced_generation" && isRepeated ? "outcome_unknown" : code,
  };
}

function codeOf({ generation, refusal }: AckRequest, row: Row): ErrorCode | undefined {
  if (row.topic_id === null) return "unknown_topic";
  if (row.partition_id === null) return "unknown_partition";
  if (row.generation !== generation) return "fenced_generation";
  return refusal;
}
