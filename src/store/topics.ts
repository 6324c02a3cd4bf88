// Owns `topics` and `partitions`: which topics there are. What is in a partition belongs to records.ts.

import { Problem } from "../core/problem.ts";
import { TOPICS_MAX } from "../protocol/limits.ts";
import { type Db, numberColumn, type Row, type Rows } from "./db.ts";
import type { Operation, WriteQueue } from "./write-queue.ts";

export const DEFAULT_PARTITION_COUNT = 1;

export interface Topic {
  readonly topic: string;
  readonly topicId: number;
  /** By partition number. */
  readonly partitionIds: readonly number[];
}

export interface TopicSummary {
  readonly topic: string;
  readonly topicId: number;
  readonly partitionCount: number;
}

export interface TopicDescription extends TopicSummary {
  readonly partitions: readonly PartitionDescription[];
  /** ms since 1970 */
  readonly createdAt: number;
}

export interface PartitionDescription {
  readonly partition: number;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
  readonly records: number;
  readonly bytes: number;
}

const FIND_TOPIC = `
  SELECT t.topic_id, json_group_array(p.partition_id ORDER BY p.partition) AS partition_ids
  FROM topics AS t JOIN partitions AS p ON p.topic_id = t.topic_id
  WHERE t.topic = :topic
  GROUP BY t.topic_id`;

const LIST_TOPICS = "SELECT topic, topic_id, partition_count FROM topics ORDER BY topic";

const DESCRIBE_TOPIC = `
  SELECT t.topic, t.topic_id, t.partition_count, t.created_at,
         p.partition, p.log_start_offset, p.log_end_offset, p.records, p.bytes
  FROM topics AS t JOIN partitions AS p ON p.topic_id = t.topic_id
  WHERE t.topic = :topic
  ORDER BY p.partition`;

const INSERT_TOPIC = `
  INSERT INTO topics (topic, partition_count, created_at)
  SELECT :topic, :partition_count, now_ms FROM clock
  WHERE (SELECT count(*) FROM topics) < :topics_max
  ON CONFLICT (topic) DO NOTHING
  RETURNING topic_id`;

const INSERT_PARTITIONS = `
  WITH RECURSIVE numbers (n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :partition_count)
  INSERT INTO partitions (topic_id, partition)
  SELECT t.topic_id, n FROM topics AS t, numbers
  WHERE t.topic = :topic AND NOT EXISTS (SELECT 1 FROM partitions WHERE topic_id = t.topic_id)`;

export class Topics {
  readonly #db: Db;
  readonly #queue: WriteQueue;
  /** Found once, kept: a topic's partitions do not change. */
  readonly #topicsByName = new Map<string, Topic>();

  readonly createsOnFirstUse: boolean;

  constructor(deps: { db: Db; queue: WriteQueue; createsOnFirstUse: boolean }) {
    this.#db = deps.db;
    this.#queue = deps.queue;
    this.createsOnFirstUse = deps.createsOnFirstUse;
  }

  /** For whoever uses a topic by name: it is there, or it comes into being with one partition, or `unknown_topic`. */
  async require(topic: string): Promise<Topic> {
    const known = await this.find(topic);
    if (known) return known;
    if (this.createsOnFirstUse) await this.put(topic, undefined);
    const created = await this.find(topic);
    if (!created) throw unknownTopic(topic);
    return created;
  }

  async find(topic: string): Promise<Topic | undefined> {
    const known = this.#topicsByName.get(topic);
    if (known) return known;
    const [row] = await this.#db.read({ sql: FIND_TOPIC, args: { topic } });
    if (!row) return undefined;
    const found = { topic, topicId: numberColumn(row, "topic_id"), partitionIds: partitionIdsOf(row) };
    this.#topicsByName.set(topic, found);
    return found;
  }

  /** Creates it where it is not there. An existing topic keeps its partitions: fewer or more is a `conflict`. */
  async put(
    topic: string,
    partitionCount: number | undefined,
  ): Promise<TopicDescription & { isNew: boolean }> {
    const isNew = await this.#queue.submit(createTopic(topic, partitionCount ?? DEFAULT_PARTITION_COUNT));
    const description = await this.describe(topic);
    if (!description) throw tooManyTopics(topic);
    const found = description.partitionCount;
    if (partitionCount !== undefined && partitionCount !== found)
      throw otherCount(topic, found, partitionCount);
    return { ...description, isNew };
  }

  async list(): Promise<readonly TopicSummary[]> {
    return (await this.#db.read({ sql: LIST_TOPICS })).map(summaryOf);
  }

  async describe(topic: string): Promise<TopicDescription | undefined> {
    const rows = await this.#db.read({ sql: DESCRIBE_TOPIC, args: { topic } });
    const [first] = rows;
    if (!first) return undefined;
    return {
      ...summaryOf(first),
      partitions: rows.map(partitionOf),
      createdAt: numberColumn(first, "created_at"),
    };
  }
}

export function unknownTopic(topic: string): Problem {
  return new Problem(
    "unknown_topic",
    `There is no topic "${topic}": create it with PUT /v1/topics/${topic}`,
    { topic },
  );
}

function createTopic(topic: string, partitionCount: number): Operation<boolean> {
  const args = { topic, partition_count: partitionCount };
  return {
    statements: [
      { sql: INSERT_TOPIC, args: { ...args, topics_max: TOPICS_MAX } },
      { sql: INSERT_PARTITIONS, args },
    ],
    bytes: topic.length,
    settle: ([inserted]: readonly Rows[]) => inserted?.length === 1,
  };
}

function tooManyTopics(topic: string): Problem {
  return new Problem(
    "conflict",
    `Cannot create topic "${topic}": there are ${TOPICS_MAX} topics, no more are allowed`,
  );
}

function otherCount(topic: string, found: number, asked: number): Problem {
  const attempt = `Cannot give topic "${topic}" ${asked} partitions: it has ${found}`;
  const facts = { found, asked };
  if (asked < found) return new Problem("conflict", `${attempt}, and a topic never gets fewer`, facts);
  return new Problem("bad_request", `${attempt}, and adding partitions is not built yet`, facts);
}

function partitionIdsOf(row: Row): readonly number[] {
  return JSON.parse(String(row.partition_ids));
}

function summaryOf(row: Row): TopicSummary {
  return {
    topic: String(row.topic),
    topicId: numberColumn(row, "topic_id"),
    partitionCount: numberColumn(row, "partition_count"),
  };
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
