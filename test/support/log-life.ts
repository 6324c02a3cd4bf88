// Topics with retention and compaction, what is appended to them, and whether counters, views and tables agree.

import { expect } from "bun:test";
import { type NewRecord, parseJsonProduce } from "../../src/core/produce-request.ts";
import { appendRecords } from "../../src/store/appends.ts";
import type { Row } from "../../src/store/db.ts";
import type { TopicSettings } from "../../src/store/topic-tables.ts";
import { Topics } from "../../src/store/topics.ts";
import { trimStep } from "../../src/store/trims.ts";
import type { UpkeepDeps } from "../../src/store/upkeep.ts";
import { openQueue, type TestDatabase } from "./database.ts";
import { FakeTime } from "./fake-time.ts";
import { openUpkeep } from "./upkeep.ts";

export interface GivenRecord {
  readonly key?: string | null;
  readonly value?: unknown;
  /** base64 */
  readonly bytes?: string;
  readonly timestamp?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface StoredRecord {
  readonly offset: number;
  readonly key: string | null;
  readonly value: unknown;
}

export type LogLife = ReturnType<typeof openLogLife>;

export function openLogLife(database: TestDatabase) {
  const { db } = database;
  const queue = openQueue(db);
  const openTopics = () => new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
  let topics = openTopics();
  const put = (settings: TopicSettings = {}, topic = "orders") => {
    const { partitionCount, ...others } = settings;
    return topics.put(topic, partitionCount, others);
  };
  return {
    queue,
    get topics() {
      return topics;
    },
    /** The database was emptied. */
    forget: () => {
      topics = openTopics();
    },
    put,
    append: async (records: readonly GivenRecord[], partition = 0, topic = "orders") =>
      queue.submit(appendRecords(await topics.require(topic), [{ partition, records: parsed(records) }])),
    trim: (before: number, partitionId = 1) => queue.submit(trimStep({ partitionId, before })),
    /** All that there is to do. */
    run: (deps: Partial<UpkeepDeps> = {}) => openUpkeep({ db, queue, ...deps }).run(),
    stored: async (partitionId = 1): Promise<readonly StoredRecord[]> => {
      const sql = "SELECT offset, key, value FROM records WHERE partition_id = :id ORDER BY offset";
      const rows = await database.rows(sql, { id: partitionId });
      return rows.map(({ offset, key, value }) => ({
        offset: Number(offset),
        key: typeof key === "string" ? key : null,
        value,
      }));
    },
    offsets: async (partitionId = 1): Promise<readonly number[]> => {
      const rows = await database.rows(
        "SELECT offset FROM records WHERE partition_id = :id ORDER BY offset",
        { id: partitionId },
      );
      return rows.map(({ offset }) => Number(offset));
    },
    bounds: async (partitionId = 1): Promise<Row | undefined> =>
      (
        await database.rows(
          "SELECT log_start_offset AS start, log_end_offset AS end FROM partitions WHERE partition_id = :id",
          { id: partitionId },
        )
      )[0],
    check: () => checkTables(database),
  };
}

export function parsed(records: readonly GivenRecord[]): readonly NewRecord[] {
  return parseJsonProduce(JSON.stringify({ records })).records;
}

export function keyed(...keys: readonly string[]): readonly GivenRecord[] {
  return keys.map((key, value) => ({ key, value }));
}

export function values(count: number): readonly GivenRecord[] {
  return Array.from({ length: count }, (_, value) => ({ value }));
}

const PARTITIONS = `
  SELECT p.partition_id, p.log_start_offset, p.log_end_offset, p.records, p.bytes,
         s.log_start_offset AS view_start, s.log_end_offset AS view_end, s.records AS view_records, s.bytes AS view_bytes,
         count(r.offset) AS found_records, coalesce(min(r.offset), p.log_start_offset) AS first,
         coalesce(max(r.offset), p.log_end_offset - 1) AS last,
         coalesce(sum(length(CAST(r.value AS BLOB)) + coalesce(length(CAST(r.key AS BLOB)), 0)
           + coalesce(length(CAST(r.headers AS BLOB)), 0)), 0) AS found_bytes
  FROM partitions AS p
  JOIN topics AS t ON t.topic_id = p.topic_id
  JOIN partition_stats AS s ON s.topic = t.topic AND s.partition = p.partition
  LEFT JOIN records AS r ON r.partition_id = p.partition_id
  GROUP BY p.partition_id`;

// Of partitions whose compaction is of the topic as it is: below where it has come to there is one record a key, and
// nothing else is known.
const WRONG_KEYS = `
  SELECT * FROM (
    SELECT d.partition_id, r.key, r.offset FROM compactions AS d
    JOIN partitions AS p ON p.partition_id = d.partition_id
    JOIN topics AS t ON t.topic_id = p.topic_id AND t.cleanup = 'compact' AND t.cleanup_version = d.cleanup_version
    JOIN records AS r ON r.partition_id = d.partition_id AND r.offset < d.compacted_to
    EXCEPT SELECT partition_id, key, offset FROM compacted_keys)
  UNION ALL
  SELECT * FROM (
    SELECT k.partition_id, k.key, k.offset FROM compacted_keys AS k
    JOIN partitions AS p ON p.partition_id = k.partition_id
    JOIN compactions AS d ON d.partition_id = k.partition_id
    JOIN topics AS t ON t.topic_id = p.topic_id AND t.cleanup = 'compact' AND t.cleanup_version = d.cleanup_version
    EXCEPT SELECT partition_id, key, offset FROM records)`;

const LEFT_OVER = `
  SELECT (SELECT count(*) FROM trim_steps) + (SELECT count(*) FROM superseded) + (SELECT count(*) FROM guard)
       + (SELECT count(*) FROM compactions WHERE step_end > compacted_to) AS rows`;

/** Between any two steps. */
async function checkTables(database: TestDatabase): Promise<void> {
  for (const row of await database.rows(PARTITIONS)) {
    const { log_start_offset: start, log_end_offset: end, records, bytes } = row;
    const expected = {
      records,
      bytes,
      view_start: start,
      view_end: end,
      view_records: records,
      view_bytes: bytes,
    };
    const { found_records, found_bytes, view_start, view_end, view_records, view_bytes } = row;
    expect({
      records: found_records,
      bytes: found_bytes,
      view_start,
      view_end,
      view_records,
      view_bytes,
    }).toEqual(expected);
    expect(Number(row.first)).toBeGreaterThanOrEqual(Number(start));
    expect(Number(row.last)).toBe(Number(end) - 1);
  }
  expect(await database.rows(WRONG_KEYS)).toEqual([]);
  expect(await database.rows(LEFT_OVER)).toEqual([{ rows: 0 }]);
}
