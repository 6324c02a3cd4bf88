// Owns `topics` and `partitions`: which topics there are. What is in a partition belongs to records.ts, what goes when a
// topic is deleted to topic-deletion.ts.

import { PARTITION_BYTES } from "../core/group-picture.ts";
import { Problem } from "../core/problem.ts";
import type { Cleanup, PartitionDescription, TopicSummary } from "../protocol/http.ts";
import { GROUP_BYTES_MAX, TOPICS_MAX } from "../protocol/limits.ts";
import { type Db, numberColumn, type Row, type Rows } from "./db.ts";
import { END_CHECK, IS_OK } from "./guard.ts";
import type { Operation } from "./operations.ts";
import { HAS_UPKEEP } from "./retention.ts";

export const DEFAULT_PARTITION_COUNT = 1;

export interface Topic {
  readonly topic: string;
  readonly topicId: number;
  /** By partition number. */
  readonly partitionIds: readonly number[];
  /** JSON Schema of its values as text; null: any JSON. */
  readonly schema: string | null;
  /** Each of its records must have a key. */
  readonly isCompacted: boolean;
  /** Counts the changes of schema and cleanup: what was checked against another one is not written. */
  readonly schemaVersion: number;
  /** It has retention or compaction: after an append there may be something to do. */
  readonly hasUpkeep: boolean;
}

/** Most that is kept of each partition; null: no limit. */
export interface Retention {
  /** ms since the append */
  readonly ms: number | null;
  /** Of keys, headers and values as UTF-8. */
  readonly bytes: number | null;
  readonly records: number | null;
}

/** Null: the default. */
export interface Compaction {
  readonly minLagMs: number | null;
  readonly tombstoneMs: number | null;
}

export interface TopicDescription extends TopicSummary {
  readonly partitions: readonly PartitionDescription[];
  readonly retention: Retention;
  readonly cleanup: Cleanup;
  readonly compaction: Compaction;
  /** JSON Schema as text, or null. */
  readonly schema: string | null;
  /** ms since 1970 */
  readonly createdAt: number;
}

// One row without a topic where none of them is there: the version is told all the same.
const FIND_TOPICS = `
  SELECT c.version, t.topic, t.topic_id, t.schema, t.schema_version, t.cleanup,
         ${HAS_UPKEEP} AS has_upkeep, json_group_array(p.partition_id) AS partition_ids
  FROM catalog AS c
  LEFT JOIN topics AS t ON t.topic IN (SELECT value FROM json_each(:topics))
  LEFT JOIN partitions AS p ON p.topic_id = t.topic_id
  GROUP BY t.topic_id`;

const READ_VERSION = "SELECT version FROM catalog";

const LIST_TOPICS = "SELECT topic, topic_id, partition_count FROM topics ORDER BY topic";

const DESCRIBE_TOPIC = `
  SELECT t.topic, t.topic_id, t.partition_count, t.created_at, t.schema, t.schema_version,
         t.retention_ms, t.retention_bytes, t.retention_records,
         t.cleanup, t.compaction_min_lag_ms, t.compaction_tombstone_ms, ${HAS_UPKEEP} AS has_upkeep,
         p.partition, p.partition_id, p.log_start_offset, p.log_end_offset, p.records, p.bytes
  FROM topics AS t JOIN partitions AS p ON p.topic_id = t.topic_id
  WHERE t.topic = :topic
  ORDER BY p.partition`;

// A group's picture is one read, see group-pictures.ts: with more partitions it could not be read any more. Groups that
// do not have the topic are not looked at, and none where the put adds nothing or the check has found that it may.
const FIND_TOO_LARGE_GROUP = `
  SELECT concerned.group_id, sum(
           max(coalesce(t.partition_count, 0), iif(g.topic = :topic, :partition_count, 0))
           * (:partition_bytes + length(g.topic))) AS bytes
  FROM group_topics AS concerned
  JOIN group_topics AS g ON g.group_id = concerned.group_id
  LEFT JOIN topics AS t ON t.topic = g.topic
  WHERE ${IS_OK} IS NOT 1 AND concerned.topic = :topic
    AND NOT EXISTS (SELECT 1 FROM topics WHERE topic = :topic AND partition_count >= :partition_count)
  GROUP BY concerned.group_id
  HAVING bytes > :group_bytes_max
  ORDER BY concerned.group_id
  LIMIT 1`;

const CHECK_GROUPS = `INSERT INTO guard (op, ok) SELECT :op, NOT EXISTS (${FIND_TOO_LARGE_GROUP})`;

const INSERT_TOPIC = `
  INSERT INTO topics (topic, partition_count, created_at)
  SELECT :topic, :partition_count, now_ms FROM clock
  WHERE ${IS_OK} AND (SELECT count(*) FROM topics) < :topics_max
  ON CONFLICT (topic) DO NOTHING
  RETURNING topic_id`;

// Of a new topic all, of one with fewer those that it lacks, of any other none.
const INSERT_PARTITIONS = `
  WITH RECURSIVE numbers (n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :partition_count)
  INSERT INTO partitions (topic_id, partition)
  SELECT t.topic_id, n FROM topics AS t, numbers
  WHERE ${IS_OK} AND t.topic = :topic
    AND NOT EXISTS (SELECT 1 FROM partitions WHERE topic_id = t.topic_id AND partition = n)
  ORDER BY n
  RETURNING partition_id`;

const RAISE_PARTITION_COUNT = `
  UPDATE topics SET partition_count = :partition_count
  WHERE ${IS_OK} AND topic = :topic AND partition_count < :partition_count`;

// Not where fewer partitions are asked for: that is refused, and then nothing is done.
const IS_CHANGEABLE = `
  ${IS_OK} AND topic = :topic AND partition_count <= coalesce(:partition_count_asked, partition_count)`;

const SET_SCHEMA = `
  UPDATE topics SET schema = :schema, schema_version = schema_version + 1
  WHERE ${IS_CHANGEABLE} AND schema IS NOT :schema`;

// What its records must have changes with it, as with a schema.
const SET_CLEANUP = `
  UPDATE topics
  SET cleanup = :cleanup, cleanup_version = cleanup_version + 1, schema_version = schema_version + 1
  WHERE ${IS_CHANGEABLE} AND cleanup <> :cleanup`;

const SET_LIMITS = {
  retention_ms: `UPDATE topics SET retention_ms = :value WHERE ${IS_CHANGEABLE}`,
  retention_bytes: `UPDATE topics SET retention_bytes = :value WHERE ${IS_CHANGEABLE}`,
  retention_records: `UPDATE topics SET retention_records = :value WHERE ${IS_CHANGEABLE}`,
  compaction_min_lag_ms: `UPDATE topics SET compaction_min_lag_ms = :value WHERE ${IS_CHANGEABLE}`,
  compaction_tombstone_ms: `UPDATE topics SET compaction_tombstone_ms = :value WHERE ${IS_CHANGEABLE}`,
};

// Of a topic that is to be compacted: what was looked through before is not looked at again. `:looked` is
// [partition id, offset that was come to] of each partition; those that came later have the higher ids.
const FIND_KEYLESS = `
  SELECT p.partition, r.offset
  FROM topics AS t
  JOIN json_each(:looked) AS looked
  CROSS JOIN partitions AS p ON p.partition_id = looked.value ->> 0 AND p.topic_id = t.topic_id
  CROSS JOIN records AS r ON r.partition_id = p.partition_id AND r.offset >= looked.value ->> 1
  WHERE t.topic = :topic AND t.cleanup <> 'compact' AND :cleanup = 'compact' AND r.key IS NULL
  UNION ALL
  SELECT p.partition, r.offset
  FROM topics AS t
  JOIN partitions AS p ON p.topic_id = t.topic_id
    AND p.partition_id > coalesce((SELECT max(value ->> 0) FROM json_each(:looked)), 0)
  CROSS JOIN records AS r ON r.partition_id = p.partition_id
  WHERE t.topic = :topic AND t.cleanup <> 'compact' AND :cleanup = 'compact' AND r.key IS NULL
  LIMIT 1`;

const CHECK_KEYS = `UPDATE guard SET ok = 0 WHERE op = :op AND ok AND EXISTS (${FIND_KEYLESS})`;

// ── reading ──────────────────────────────────────────────────────────────────────────────────────────────

/** Those that are there, and the version of the catalog as of which that is so. */
export async function findTopics(
  db: Db,
  names: readonly string[],
): Promise<{ readonly topics: readonly Topic[]; readonly version: number }> {
  const rows = await db.read({ sql: FIND_TOPICS, args: { topics: JSON.stringify(names) } });
  return { topics: rows.filter((row) => row.topic !== null).map(topicOf), version: versionOf(rows) };
}

/** By name. */
export async function listTopics(db: Db): Promise<readonly TopicSummary[]> {
  return (await db.read({ sql: LIST_TOPICS })).map(summaryOf);
}

/** Undefined where there is no such topic. */
export async function describeTopic(db: Db, topic: string): Promise<TopicDescription | undefined> {
  return descriptionOf(await db.read({ sql: DESCRIBE_TOPIC, args: { topic } }));
}

/** sqld parses no ORDER BY in an aggregate; but a topic's later partitions have the higher ids. */
function topicOf(row: Row): Topic {
  const partitionIds: number[] = JSON.parse(String(row.partition_ids));
  return topicWith(
    row,
    partitionIds.sort((a, b) => a - b),
  );
}

function topicWith(row: Row, partitionIds: readonly number[]): Topic {
  return {
    topic: String(row.topic),
    topicId: numberColumn(row, "topic_id"),
    partitionIds,
    schema: schemaOf(row),
    isCompacted: cleanupOf(row) === "compact",
    schemaVersion: numberColumn(row, "schema_version"),
    hasUpkeep: row.has_upkeep === 1,
  };
}

function schemaOf({ schema }: Row): string | null {
  return typeof schema === "string" ? schema : null;
}

function cleanupOf({ cleanup }: Row): Cleanup {
  return cleanup === "compact" ? "compact" : "delete";
}

function limitOf(row: Row, column: keyof typeof SET_LIMITS): number | null {
  return row[column] === null ? null : numberColumn(row, column);
}

function descriptionOf(rows: Rows): TopicDescription | undefined {
  const [first] = rows;
  if (!first) return undefined;
  return {
    ...summaryOf(first),
    partitions: rows.map(partitionOf),
    retention: {
      ms: limitOf(first, "retention_ms"),
      bytes: limitOf(first, "retention_bytes"),
      records: limitOf(first, "retention_records"),
    },
    cleanup: cleanupOf(first),
    compaction: {
      minLagMs: limitOf(first, "compaction_min_lag_ms"),
      tombstoneMs: limitOf(first, "compaction_tombstone_ms"),
    },
    schema: schemaOf(first),
    createdAt: numberColumn(first, "created_at"),
  };
}

function summaryOf(row: Row): TopicSummary {
  return {
    topic: String(row.topic),
    topicId: numberColumn(row, "topic_id"),
    partitionCount: numberColumn(row, "partition_count"),
  };
}

function partitionIdOf(row: Row): number {
  return numberColumn(row, "partition_id");
}

function partitionOf(row: Row): PartitionDescription {
  return {
    partition: numberColumn(row, "partition"),
    logStartOffset: numberColumn(row, "log_start_offset"),
    logEndOffset: numberColumn(row, "log_end_offset"),
    records: numberColumn(row, "records"),
    bytes: numberColumn(row, "bytes"),
  };
}

// ── writing ──────────────────────────────────────────────────────────────────────────────────────────────

export interface Versioned<T> {
  readonly outcome: T;
  /** Of the catalog, when the operation was done. */
  readonly version: number;
}

/** With the version of the catalog as of which it was done. */
export function versioned<T>({
  statements,
  bytes,
  isAlone = false,
  afterLostAnswer,
  settle,
}: Operation<T>): Operation<Versioned<T>> {
  return {
    statements: [...statements, { sql: READ_VERSION }],
    bytes,
    isAlone,
    ...(afterLostAnswer === "repeat" ? { afterLostAnswer } : {}),
    settle: (results, isRepeated, tookMs) => ({
      outcome: settle(results.slice(0, -1), isRepeated, tookMs),
      version: versionOf(results.at(-1) ?? []),
    }),
  };
}

/** In every row the same. */
function versionOf([row = {}]: Rows): number {
  return numberColumn(row, "version");
}

type Changed<T> = { readonly [Member in keyof T]?: T[Member] | undefined };

/** Undefined: what the topic has, or the default. */
export interface TopicSettings {
  readonly partitionCount?: number | undefined;
  readonly retention?: Changed<Retention> | undefined;
  readonly cleanup?: Cleanup | undefined;
  readonly compaction?: Changed<Compaction> | undefined;
  /** JSON Schema as text, null for none. */
  readonly schema?: string | null | undefined;
}

interface TopicPut {
  /** WriteQueue.nextOp(). */
  readonly op: number;
  readonly topic: string;
  readonly settings: TopicSettings;
  /** Where its records are to be compacted: how far they have been looked through, by partition id. */
  readonly lookedThrough?: ReadonlyMap<number, number> | undefined;
}

interface PutOutcome {
  /** As the transaction left it. */
  readonly description: TopicDescription;
  readonly isNew: boolean;
  readonly topic: Topic;
  /** Those that it has added. */
  readonly addedPartitionIds: readonly number[];
}

/** Throws `conflict` where a group could not be read any more, or a record that is to be compacted has no key. */
export function putTopic(put: TopicPut): Operation<PutOutcome> {
  const { op, topic, settings, lookedThrough = new Map() } = put;
  const { partitionCount, cleanup, schema } = settings;
  const args = { op, topic, partition_count: partitionCount ?? DEFAULT_PARTITION_COUNT };
  const change = { op, topic, partition_count_asked: partitionCount ?? null };
  const group = { ...args, partition_bytes: PARTITION_BYTES, group_bytes_max: GROUP_BYTES_MAX };
  const keys = { topic, cleanup: cleanup ?? null, looked: JSON.stringify([...lookedThrough]) };
  return {
    statements: [
      { sql: CHECK_GROUPS, args: group },
      { sql: CHECK_KEYS, args: { op, ...keys } },
      { sql: FIND_TOO_LARGE_GROUP, args: group },
      { sql: FIND_KEYLESS, args: keys },
      { sql: INSERT_TOPIC, args: { ...args, topics_max: TOPICS_MAX } },
      { sql: INSERT_PARTITIONS, args },
      { sql: RAISE_PARTITION_COUNT, args },
      ...(schema === undefined ? [] : [{ sql: SET_SCHEMA, args: { ...change, schema } }]),
      ...(cleanup === undefined ? [] : [{ sql: SET_CLEANUP, args: { ...change, cleanup } }]),
      ...limitsOf(settings).map(([column, value]) => ({
        sql: SET_LIMITS[column],
        args: { ...change, value },
      })),
      { sql: DESCRIBE_TOPIC, args: { topic } },
      { sql: END_CHECK, args: { op } },
    ],
    bytes: topic.length + (schema?.length ?? 0),
    // The schema's version that a flush leaves says which of its appends were written.
    isAlone: schema !== undefined || cleanup !== undefined,
    afterLostAnswer: "repeat",
    settle: (results) => {
      const [, , tooLargeGroups = [], keyless = [], inserted = [], added = []] = results;
      const described = results.at(-2) ?? [];
      const [tooLarge] = tooLargeGroups;
      if (tooLarge) throw tooLargeGroup(put, tooLarge);
      const [found] = keyless;
      if (found) throw keylessRecord(topic, numberColumn(found, "partition"), numberColumn(found, "offset"));
      const description = descriptionOf(described);
      const [first] = described;
      if (!description || !first) throw tooManyTopics(topic);
      return {
        description,
        isNew: inserted.length === 1,
        topic: topicWith(first, described.map(partitionIdOf)),
        addedPartitionIds: added.map(partitionIdOf),
      };
    },
  };
}

function limitsOf({
  retention = {},
  compaction = {},
}: TopicSettings): readonly [keyof typeof SET_LIMITS, number | null][] {
  const limits = {
    retention_ms: retention.ms,
    retention_bytes: retention.bytes,
    retention_records: retention.records,
    compaction_min_lag_ms: compaction.minLagMs,
    compaction_tombstone_ms: compaction.tombstoneMs,
  };
  return Object.entries(limits).filter(([, value]) => value !== undefined) as [
    keyof typeof SET_LIMITS,
    number | null,
  ][];
}

function tooLargeGroup({ topic, settings }: TopicPut, row: Row): Problem {
  const { partitionCount = DEFAULT_PARTITION_COUNT } = settings;
  const group = String(row.group_id);
  const found = numberColumn(row, "bytes");
  return new Problem(
    "conflict",
    `Cannot give topic "${topic}" ${partitionCount} partitions: with them those of group "${group}" take ${found} bytes, at most ${GROUP_BYTES_MAX}`,
    { topic, group, found, allowed: GROUP_BYTES_MAX },
  );
}

export function keylessRecord(topic: string, partition: number, offset: number): Problem {
  return new Problem(
    "conflict",
    `Cannot compact topic "${topic}": its partition ${partition} has a record without a key at offset ${offset}. ` +
      "Delete what has no key first, or take another topic",
    { topic, partition, offset },
  );
}

function tooManyTopics(topic: string): Problem {
  return new Problem(
    "conflict",
    `Cannot create topic "${topic}": there are ${TOPICS_MAX} topics, no more are allowed`,
  );
}
