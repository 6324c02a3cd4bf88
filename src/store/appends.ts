// Owns `records` and the counters of `partitions` together with records.ts: this is how records get in.

import { appendRowsJson, appendValuesJson } from "../core/append-rows.ts";
import type { PartitionOffset } from "../core/partitioner.ts";
import type { NewRecord } from "../core/produce-request.ts";
import { numberColumn, type PartitionTrace, type Rows, type SqlValue, type Statement } from "./db.ts";
import { IS_OK_OR_FREE } from "./guard.ts";
import { indexTimes, type TimeIndexCadence } from "./time-index.ts";
import type { Topic } from "./topic-tables.ts";

// A partition is appended to while it is there, its topic has the schema that the records were checked against, and the
// operation's condition holds.
const IS_APPENDABLE = `
  partition_id = :partition_id
  AND (SELECT schema_version FROM topics AS t WHERE t.topic_id = partitions.topic_id) = :schema_version
  AND ${IS_OK_OR_FREE}`;

// The log end comes from the row, in the transaction: no server trusts its memory of it. Where the partition cannot be
// appended to neither statement finds a row, and nothing is written.
const APPEND_RECORDS = `
  INSERT INTO records (partition_id, offset, timestamp, key, value, headers)
  SELECT partition_id, log_end_offset + r.key, coalesce(r.value ->> 1, (SELECT now_ms FROM clock)),
         r.value ->> 0, r.value ->> 3, r.value ->> 2
  FROM partitions CROSS JOIN json_each(:rows) AS r
  WHERE ${IS_APPENDABLE}`;

/** The same where no record has anything but its value: that is its row. It takes half as long. */
const APPEND_VALUES = `
  INSERT INTO records (partition_id, offset, timestamp, key, value, headers)
  SELECT partition_id, log_end_offset + r.key, (SELECT now_ms FROM clock), NULL, r.value, NULL
  FROM partitions CROSS JOIN json_each(:rows) AS r
  WHERE ${IS_APPENDABLE}`;

/** The same where some of the rows are of bytes: only those have a fifth element, and then the fourth is null. */
const APPEND_RECORDS_WITH_BYTES = `
  INSERT INTO records (partition_id, offset, timestamp, key, value, headers)
  SELECT partition_id, log_end_offset + r.key, coalesce(r.value ->> 1, (SELECT now_ms FROM clock)),
         r.value ->> 0, coalesce(r.value ->> 3, unhex(r.value ->> 4)), r.value ->> 2
  FROM partitions CROSS JOIN json_each(:rows) AS r
  WHERE ${IS_APPENDABLE}`;

const ADVANCE_LOG_END = `
  UPDATE partitions
  SET log_end_offset = log_end_offset + :count,
      records = records + :count,
      bytes = bytes + :bytes,
      frame_bytes_max = max(frame_bytes_max, :frame_bytes_max)
  WHERE ${IS_APPENDABLE}
  RETURNING log_end_offset`;

/** sqld refuses arguments above about 4.1 MB. */
const ROWS_BYTES_MAX = 4_000_000;
/** The insert, and the counters. */
const STATEMENTS_A_PIECE = 2;
/** Punctuation and a timestamp around a row's key, headers and value. */
const ROW_OVERHEAD_BYTES = 32;

/** What goes to one partition. */
export interface Append {
  readonly partitionId: number;
  readonly schemaVersion: number;
  readonly count: number;
}

export interface PartitionAppend {
  readonly partition: number;
  readonly records: readonly NewRecord[];
}

/** An append without conditions. Those that follow each other in a flush are written together. */
export interface AppendOperation<T> {
  readonly appends: readonly AppendTarget[];
  /** What it holds in memory while it waits. */
  readonly bytes: number;
  /** By partition id, the log ends after it; one that was not appended to is left out. */
  settle(logEnds: ReadonlyMap<number, number>): T;
  readonly statements?: undefined;
  readonly op?: undefined;
  readonly isAlone?: undefined;
  readonly isPatient?: undefined;
}

export interface AppendedPartition extends PartitionOffset {
  readonly partitionId: number;
  readonly logEndOffset: number;
}

/**
 * Appends to partitions of one topic, all or nothing. Settles to undefined, nothing written, where the topic is gone or
 * has another schema. `cadence`: as appendTarget() has it.
 */
export function appendRecords(
  topic: Topic,
  appends: readonly PartitionAppend[],
  cadence?: TimeIndexCadence,
): AppendOperation<readonly AppendedPartition[] | undefined> {
  const targets = appends.map((append) => appendTarget(topic, append, cadence));
  return {
    appends: targets,
    bytes: bytesOfTargets(targets),
    settle: (logEnds) => appendedTo(targets, logEnds),
  };
}

/** A partition of a topic as it was when the records for it were checked. */
export interface AppendTarget extends Append {
  readonly topic: string;
  readonly partition: number;
  /** A database takes no larger argument; most appends are one piece. */
  readonly pieces: readonly (readonly NewRecord[])[];
  /** It looks after the time index too. */
  readonly isIndexDue: boolean;
}

/** `cadence`: says which appends look after the time index; without it each does. */
export function appendTarget(
  topic: Topic,
  { partition, records }: PartitionAppend,
  cadence: TimeIndexCadence | undefined,
): AppendTarget {
  const partitionId = partitionIdOf(topic, partition);
  const count = records.length;
  return {
    topic: topic.topic,
    partition,
    partitionId,
    schemaVersion: topic.schemaVersion,
    count,
    pieces: piecesOf(records),
    isIndexDue: cadence?.isDue(partitionId, count) ?? true,
  };
}

/**
 * Appends that follow each other and have no conditions, as few as do the same: one a partition, with the records of all
 * in their order. Of appends of one record each it is most of what they cost.
 */
export function joinAppends(targets: readonly AppendTarget[]): readonly AppendTarget[] {
  const together = Map.groupBy(
    targets,
    ({ partitionId, schemaVersion }) => `${partitionId}/${schemaVersion}`,
  );
  return [...together.values()].map(([first, ...others]) => {
    if (!first) throw new RangeError("a group without appends");
    if (others.length === 0) return first;
    const all = [first, ...others];
    return {
      ...first,
      count: all.reduce((sum, { count }) => sum + count, 0),
      pieces: piecesOf(all.flatMap(({ pieces }) => pieces.flat())),
      isIndexDue: all.some(({ isIndexDue }) => isIndexDue),
    };
  });
}

/** By partition id, from the results of all `appendStatements` in order. One that was not appended to is left out. */
export function tracesOf(
  targets: readonly AppendTarget[],
  results: readonly Rows[],
): ReadonlyMap<number, PartitionTrace> {
  const traces = new Map<number, PartitionTrace>();
  let first = 0;
  for (const { partitionId, schemaVersion, pieces, isIndexDue } of targets) {
    const end = first + STATEMENTS_A_PIECE * pieces.length + (isIndexDue ? 1 : 0);
    const last = results.slice(first, end).flat().at(-1); // only ADVANCE_LOG_END gives rows
    first = end;
    if (last) traces.set(partitionId, { logEndOffset: numberColumn(last, "log_end_offset"), schemaVersion });
  }
  return traces;
}

/** Undefined where one of them was not appended to. */
export function appendedTo(
  targets: readonly AppendTarget[],
  logEnds: ReadonlyMap<number, number>,
): readonly AppendedPartition[] | undefined {
  const appended: AppendedPartition[] = [];
  for (const { topic, partition, partitionId, count } of targets) {
    const logEndOffset = logEnds.get(partitionId);
    if (logEndOffset === undefined) return undefined;
    appended.push({ topic, partition, partitionId, offset: logEndOffset - count, logEndOffset });
  }
  return appended;
}

/** `op`: of the condition in `guard`, null without one. */
export function appendStatements(target: AppendTarget, op: number | null): readonly Statement[] {
  const { partitionId, schemaVersion, pieces, isIndexDue } = target;
  const where = { partition_id: partitionId, schema_version: schemaVersion, op };
  return [
    ...pieces.flatMap((piece) => pieceStatements(piece, where)),
    ...(isIndexDue ? [indexTimes(partitionId)] : []),
  ];
}

export function bytesOfTargets(targets: readonly AppendTarget[]): number {
  return targets.reduce((sum, { pieces }) => pieces.reduce((more, piece) => more + bytesOf(piece), sum), 0);
}

function pieceStatements(
  records: readonly NewRecord[],
  where: Readonly<Record<string, SqlValue>>,
): readonly Statement[] {
  const counters = {
    count: records.length,
    bytes: bytesOf(records),
    frame_bytes_max: records.reduce((max, record) => Math.max(max, record.frameBytesMax), 0),
  };
  const { sql, rows } = insertOf(records);
  return [
    { sql, args: { ...where, rows } },
    { sql: ADVANCE_LOG_END, args: { ...where, ...counters } },
  ];
}

function insertOf(records: readonly NewRecord[]): { readonly sql: string; readonly rows: string } {
  if (records.every(isValueOnly)) return { sql: APPEND_VALUES, rows: appendValuesJson(records) };
  const hasBytes = records.some(({ value }) => typeof value !== "string");
  return { sql: hasBytes ? APPEND_RECORDS_WITH_BYTES : APPEND_RECORDS, rows: appendRowsJson(records) };
}

function isValueOnly({ key, value, headers, timestamp }: NewRecord): boolean {
  return key === null && headers === null && timestamp === null && typeof value === "string";
}

function piecesOf(records: readonly NewRecord[]): readonly (readonly NewRecord[])[] {
  if (rowBytesMax(records) <= ROWS_BYTES_MAX) return [records];
  const pieces: NewRecord[][] = [];
  let bytesLeft = 0;
  for (const record of records) {
    const bytes = rowBytesMax([record]);
    if (bytes > bytesLeft) {
      pieces.push([]);
      bytesLeft = ROWS_BYTES_MAX;
    }
    bytesLeft -= bytes;
    pieces.at(-1)?.push(record);
  }
  return pieces;
}

/**
 * As appendRowsJson() writes them: quotes and backslashes take two bytes each, and so does a byte in hex. A key may
 * have control characters as they are, which take six.
 */
function rowBytesMax(records: readonly NewRecord[]): number {
  return records.reduce(
    (sum, { bytes, key }) => sum + 2 * bytes + 4 * (key?.length ?? 0) + ROW_OVERHEAD_BYTES,
    0,
  );
}

function partitionIdOf({ topic, partitionIds }: Topic, partition: number): number {
  const partitionId = partitionIds[partition];
  if (partitionId === undefined) throw new RangeError(`topic ${topic} has no partition ${partition}`);
  return partitionId;
}

function bytesOf(records: readonly NewRecord[]): number {
  return records.reduce((sum, record) => sum + record.bytes, 0);
}
