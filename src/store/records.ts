// Owns `records` and the counters of `partitions`: appends, and reads of one chunk.

import { appendRowsJson } from "../core/append-rows.ts";
import { utf8Length } from "../core/json-text.ts";
import type { PartitionOffset } from "../core/partitioner.ts";
import type { NewRecord } from "../core/produce-request.ts";
import type { ChunkExtent, ReadRequest } from "../core/session/window.ts";
import { type Db, numberColumn, type Row, type Rows, type SqlValue, type Statement } from "./db.ts";
import { IS_OK_OR_FREE } from "./guard.ts";
import { indexTimes, type TimeIndexCadence } from "./time-index.ts";
import type { Topic } from "./topic-tables.ts";
import type { Append, Operation } from "./write-queue.ts";

// ── append ───────────────────────────────────────────────────────────────────────────────────────────────

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
/** Punctuation and a timestamp around a row's key, headers and value. */
const ROW_OVERHEAD_BYTES = 32;

export interface PartitionAppend {
  readonly partition: number;
  readonly records: readonly NewRecord[];
}

export interface AppendedPartition extends PartitionOffset {
  readonly partitionId: number;
  readonly logEndOffset: number;
}

/**
 * Appends to partitions of one topic, all or nothing. Settles to undefined, nothing written, where the topic is gone or
 * has another schema. `cadence`: says which appends look after the time index too; without it each does.
 */
export function appendRecords(
  topic: Topic,
  appends: readonly PartitionAppend[],
  cadence?: TimeIndexCadence,
): Operation<readonly AppendedPartition[] | undefined> {
  const targets = appends.map((append) => appendTarget(topic, append));
  return {
    statements: targets.flatMap((target) => appendStatements(target, { op: null, cadence })),
    bytes: bytesOfTargets(targets),
    appends: targets,
    settle: (results) => appendedTo(targets, logEndsOf(targets, results)),
    afterLostAnswer: (logEnds) => appendedTo(targets, logEnds),
  };
}

/** A partition of a topic as it was when the records for it were checked. */
export interface AppendTarget extends Append {
  readonly topic: string;
  readonly partition: number;
  /** A database takes no larger argument; most appends are one piece. */
  readonly pieces: readonly (readonly NewRecord[])[];
}

export function appendTarget(topic: Topic, { partition, records }: PartitionAppend): AppendTarget {
  return {
    topic: topic.topic,
    partition,
    partitionId: partitionIdOf(topic, partition),
    schemaVersion: topic.schemaVersion,
    count: records.length,
    pieces: piecesOf(records),
  };
}

/** By partition id, from the results of all `appendStatements`: only ADVANCE_LOG_END gives rows, one a piece. */
export function logEndsOf(
  targets: readonly AppendTarget[],
  results: readonly Rows[],
): ReadonlyMap<number, number> {
  const advanced = results.flat();
  const logEnds = new Map<number, number>();
  for (const { partitionId, pieces } of targets) {
    const last = advanced.splice(0, pieces.length).at(-1);
    if (last) logEnds.set(partitionId, numberColumn(last, "log_end_offset"));
  }
  return logEnds;
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
export function appendStatements(
  target: AppendTarget,
  { op, cadence }: { readonly op: number | null; readonly cadence: TimeIndexCadence | undefined },
): readonly Statement[] {
  const { partitionId, schemaVersion, count, pieces } = target;
  const isIndexDue = cadence?.isDue(partitionId, count) ?? true;
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
  const hasBytes = records.some(({ value }) => typeof value !== "string");
  return [
    {
      sql: hasBytes ? APPEND_RECORDS_WITH_BYTES : APPEND_RECORDS,
      args: { ...where, rows: appendRowsJson(records) },
    },
    { sql: ADVANCE_LOG_END, args: { ...where, ...counters } },
  ];
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

// ── read ─────────────────────────────────────────────────────────────────────────────────────────────────

/** What a record looks like on the wire, up to its value: arguments of concat(), which takes NULL for nothing. */
const RECORD_HEAD = `'{"offset":', offset, ',"timestamp":', timestamp,
  CASE WHEN key IS NOT NULL THEN ',"key":' || json_quote(key) END, ',"headers":' || headers`;

// The stored JSON text goes out as it came in. SQLite has no base64, and a BLOB inside a text would make it invalid
// UTF-8, at which the client may abort the process: a record with bytes is NULL here, and is not counted in `texts`.
const RECORD_JSON = `CASE WHEN typeof(value) <> 'blob' THEN concat(${RECORD_HEAD}, ',"value":', value, '}') END`;

// While the largest records of the partition would fit, counting is enough; else nothing is taken and
// MEASURE_RECORDS says how many fit.
const READ_CHUNK = `
  SELECT p.log_start_offset, p.log_end_offset, c.records, octet_length(c.records) AS bytes, c.count, c.texts, c.next
  FROM partitions AS p
  LEFT JOIN (
    SELECT group_concat(record) AS records, count(*) AS count, count(record) AS texts, max(offset) + 1 AS next
    FROM (
      SELECT offset, ${RECORD_JSON} AS record
      FROM records
      WHERE partition_id = :partition_id AND offset >= :from
      ORDER BY offset
      LIMIT (SELECT CASE WHEN :is_measured OR frame_bytes_max * :records_max <= :bytes_max THEN :records_max ELSE 0 END
             FROM partitions WHERE partition_id = :partition_id)
    )
  ) AS c
  WHERE p.partition_id = :partition_id`;

// A run in which READ_CHUNK found records with bytes. By its end and not by a count: the run fits the chunk, and what
// was deleted since must not let others in.
const READ_ROWS = `
  SELECT p.log_start_offset, p.log_end_offset, r.head, r.value
  FROM partitions AS p
  LEFT JOIN (
    SELECT offset, concat(${RECORD_HEAD}) AS head, value
    FROM records
    WHERE partition_id = :partition_id AND offset >= :from AND offset < :until
  ) AS r
  WHERE p.partition_id = :partition_id
  ORDER BY r.offset`;

// The length of a column comes from the row's header: a large value is not read to be measured. Bytes count as
// base64, and its two quotes.
const MEASURE_RECORDS = `
  SELECT CASE WHEN typeof(value) = 'blob' THEN (octet_length(value) + 2) / 3 * 4 + 2 ELSE octet_length(value) END
         + octet_length(json_quote(key)) + coalesce(octet_length(headers), 0) + :overhead_bytes AS bytes
  FROM records
  WHERE partition_id = :partition_id AND offset >= :from
  ORDER BY offset
  LIMIT :records_max`;

/** Member names, punctuation and two integers of 16 digits around a record's key, headers and value. */
const RECORD_JSON_OVERHEAD_BYTES = 90;

/** A run of records as the text of a JSON array's elements. */
export interface Chunk extends ChunkExtent {
  readonly records: string;
  /** From the same snapshot as the records. */
  readonly logStartOffset: number;
}

/** Undefined where the partition is gone. */
export async function readChunk(db: Db, request: ReadRequest): Promise<Chunk | undefined> {
  const chunk = await readCounted(db, request, false);
  if (!chunk || chunk.count > 0 || chunk.logEndOffset <= request.from) return chunk;
  const sizes = await measureRecords(db, request);
  const fitting = countFitting(sizes, request);
  if (sizes[0] === undefined) return { ...chunk, next: chunk.logEndOffset };
  if (fitting === 0) return { ...chunk, firstRecordBytes: sizes[0] };
  return readCounted(db, { ...request, recordsMax: fitting }, true);
}

async function readCounted(db: Db, request: ReadRequest, isMeasured: boolean): Promise<Chunk | undefined> {
  const args = { ...chunkArgs(request), bytes_max: request.bytesMax, is_measured: isMeasured ? 1 : 0 };
  const [row] = await db.read({ sql: READ_CHUNK, args });
  if (row && numberColumn(row, "texts") < numberColumn(row, "count"))
    return readRows(db, request, numberColumn(row, "next"));
  return row && chunkOf(row, request.from);
}

/** The chunk that ends before `until`, whatever its records hold. */
async function readRows(db: Db, request: ReadRequest, until: number): Promise<Chunk | undefined> {
  const { partitionId, from } = request;
  const rows = await db.read({ sql: READ_ROWS, args: { partition_id: partitionId, from, until } });
  const [first] = rows;
  if (!first) return undefined;
  const texts = rows.filter(({ head }) => head !== null).map(recordText);
  const records = texts.join(",");
  return { records, count: texts.length, bytes: utf8Length(records), next: until, ...boundsOf(first) };
}

function recordText({ head, value }: Row): string {
  if (!(value instanceof ArrayBuffer)) return `${head},"value":${value}}`;
  return `${head},"bytes":"${new Uint8Array(value).toBase64()}"}`;
}

async function measureRecords(db: Db, request: ReadRequest): Promise<readonly number[]> {
  const args = { ...chunkArgs(request), overhead_bytes: RECORD_JSON_OVERHEAD_BYTES };
  const rows = await db.read({ sql: MEASURE_RECORDS, args });
  return rows.map((row) => numberColumn(row, "bytes"));
}

function countFitting(sizes: readonly number[], { bytesMax, loneRecordBytesMax }: ReadRequest): number {
  let bytes = 0;
  const firstTooMany = sizes.findIndex((size) => {
    bytes += size;
    return bytes > bytesMax;
  });
  if (firstTooMany === -1) return sizes.length;
  return firstTooMany === 0 && bytes <= loneRecordBytesMax ? 1 : firstTooMany;
}

function chunkArgs({ partitionId, from, recordsMax }: ReadRequest) {
  return { partition_id: partitionId, from, records_max: recordsMax };
}

function chunkOf(row: Row, from: number): Chunk {
  const bounds = boundsOf(row);
  if (typeof row.records !== "string") return { records: "", count: 0, bytes: 0, next: from, ...bounds };
  return {
    records: row.records,
    count: numberColumn(row, "count"),
    bytes: numberColumn(row, "bytes"),
    next: numberColumn(row, "next"),
    ...bounds,
  };
}

function boundsOf(row: Row) {
  return {
    logStartOffset: numberColumn(row, "log_start_offset"),
    logEndOffset: numberColumn(row, "log_end_offset"),
  };
}

// ── growth ───────────────────────────────────────────────────────────────────────────────────────────────

const LOG_ENDS = `
  SELECT partition_id, log_end_offset FROM partitions
  WHERE partition_id IN (SELECT value FROM json_each(:partition_ids))`;

/** By partition id. */
export async function readLogEnds(
  db: Db,
  partitionIds: readonly number[],
): Promise<ReadonlyMap<number, number>> {
  const rows = await db.read({ sql: LOG_ENDS, args: { partition_ids: JSON.stringify(partitionIds) } });
  return new Map(rows.map((row) => [numberColumn(row, "partition_id"), numberColumn(row, "log_end_offset")]));
}
