// Owns `records` and the counters of `partitions` together with appends.ts: this is how records get out, chunk by chunk.

import { utf8Length } from "../core/json-text.ts";
import type { ChunkExtent, ReadRequest } from "../core/session/window.ts";
import { INTEGER_MAX } from "../protocol/limits.ts";
import { type Db, numberColumn, type Row } from "./db.ts";

/** What a record looks like on the wire, up to its value: arguments of concat(), which takes NULL for nothing. */
const RECORD_HEAD = `'{"offset":', offset, ',"timestamp":', timestamp,
  CASE WHEN key IS NOT NULL THEN ',"key":' || json_quote(key) END, ',"headers":' || headers`;

// The stored JSON text goes out as it came in. SQLite has no base64, and a BLOB inside a text would make it invalid
// UTF-8, at which the client may abort the process: a record with bytes is NULL here, and is not counted in `texts`.
const RECORD_JSON = `CASE WHEN typeof(value) <> 'blob' THEN concat(${RECORD_HEAD}, ',"value":', value, '}') END`;

// While the largest records of the partition would fit, counting is enough; else nothing is taken and
// MEASURE_RECORDS says how far they fit. One aggregate over the run and nothing around it: as a subquery that is joined to
// the partition SQLite would write the text to a table of its own and read it from there, which takes as long again.
const READ_CHUNK = `
  SELECT (SELECT log_start_offset FROM partitions WHERE partition_id = :partition_id) AS log_start_offset,
         (SELECT log_end_offset FROM partitions WHERE partition_id = :partition_id) AS log_end_offset,
         group_concat(record) AS records, octet_length(group_concat(record)) AS bytes,
         count(*) AS count, count(record) AS texts, max(offset) + 1 AS next
  FROM (
    SELECT offset, ${RECORD_JSON} AS record
    FROM records
    WHERE partition_id = :partition_id AND offset >= :from AND offset < coalesce(:measured_until, ${INTEGER_MAX})
    ORDER BY offset
    LIMIT coalesce((SELECT CASE WHEN :measured_until IS NOT NULL OR frame_bytes_max * :records_max <= :bytes_max
                                THEN :records_max ELSE 0 END
                    FROM partitions WHERE partition_id = :partition_id), 0)
  )`;

// A run in which READ_CHUNK found records with bytes. By its end and not by a count, as where it was measured: the run
// fits the chunk, and what was deleted since must not let others in.
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
         + octet_length(json_quote(key)) + coalesce(octet_length(headers), 0) + :overhead_bytes AS bytes,
         offset
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
  const chunk = await readCounted(db, request, null);
  if (!chunk || chunk.count > 0 || chunk.logEndOffset <= request.from) return chunk;
  const sizes = await measureRecords(db, request);
  if (sizes[0] === undefined) return { ...chunk, next: chunk.logEndOffset };
  const last = sizes[countFitting(sizes, request) - 1];
  if (!last) return { ...chunk, firstRecordBytes: sizes[0].bytes };
  const until = last.offset + 1;
  const measured = await readCounted(db, request, until);
  return measured?.count === 0 ? { ...measured, next: until } : measured; // all of it was deleted in between
}

async function readCounted(
  db: Db,
  request: ReadRequest,
  measuredUntil: number | null,
): Promise<Chunk | undefined> {
  const args = { ...chunkArgs(request), bytes_max: request.bytesMax, measured_until: measuredUntil };
  const [row] = await db.read({ sql: READ_CHUNK, args });
  if (!row || row.log_end_offset === null) return undefined;
  if (numberColumn(row, "texts") < numberColumn(row, "count"))
    return readRows(db, request, numberColumn(row, "next"));
  return chunkOf(row, request.from);
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

interface RecordSize {
  readonly offset: number;
  readonly bytes: number;
}

async function measureRecords(db: Db, request: ReadRequest): Promise<readonly RecordSize[]> {
  const args = { ...chunkArgs(request), overhead_bytes: RECORD_JSON_OVERHEAD_BYTES };
  const rows = await db.read({ sql: MEASURE_RECORDS, args });
  return rows.map((row) => ({ offset: numberColumn(row, "offset"), bytes: numberColumn(row, "bytes") }));
}

function countFitting(sizes: readonly RecordSize[], { bytesMax, loneRecordBytesMax }: ReadRequest): number {
  let bytes = 0;
  const firstTooMany = sizes.findIndex((size) => {
    bytes += size.bytes;
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
