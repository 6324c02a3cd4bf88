// Owns `topics` and `partitions`: which topics there are. What is in a partition belongs to records.ts.

import { Problem } from "../core/problem.ts";
import type { TopicChange } from "../core/session/events.ts";
import { TOPICS_MAX } from "../protocol/limits.ts";
import { type Db, numberColumn, type Row, type Rows } from "./db.ts";
import { deleteTopic } from "./topic-deletion.ts";
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

// Of a new topic all, of one with fewer those that it lacks, of any other none.
const INSERT_PARTITIONS = `
  WITH RECURSIVE numbers (n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :partition_count)
  INSERT INTO partitions (topic_id, partition)
  SELECT t.topic_id, n FROM topics AS t, numbers
  WHERE t.topic = :topic AND NOT EXISTS (SELECT 1 FROM partitions WHERE topic_id = t.topic_id AND partition = n)
  ORDER BY n
  RETURNING partition_id`;

const RAISE_PARTITION_COUNT = `
  UPDATE topics SET partition_count = :partition_count
  WHERE topic = :topic AND partition_count < :partition_count`;

export class Topics {
  readonly #db: Db;
  readonly #queue: WriteQueue;
  /** Found once, kept until it changes here, or until whoever uses it finds it gone. */
  readonly #topicsByName = new Map<string, Topic>();
  /** How often anything was forgotten: what was read before that is not kept. */
  #forgotten = 0;
  readonly #listeners: ((change: TopicChange) => void)[] = [];

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
    const forgotten = this.#forgotten;
    const [row] = await this.#db.read({ sql: FIND_TOPIC, args: { topic } });
    if (!row) return undefined;
    const found = { topic, topicId: numberColumn(row, "topic_id"), partitionIds: partitionIdsOf(row) };
    if (this.#forgotten === forgotten) this.#topicsByName.set(topic, found);
    return found;
  }

  /** Tells of every change that this server makes, once it is durable. The listener must not throw. */
  onChange(listener: (change: TopicChange) => void): void {
    this.#listeners.push(listener);
  }

  /** For whoever found its partitions gone: another process has deleted it. */
  forget({ topic, topicId }: Topic): void {
    if (this.#topicsByName.get(topic)?.topicId === topicId) this.#forget(topic);
  }

  /** Creates it where it is not there, and adds the partitions that it lacks. To ask for fewer is a `conflict`. */
  async put(
    topic: string,
    partitionCount: number | undefined,
  ): Promise<TopicDescription & { isNew: boolean }> {
    const put = putTopic(topic, partitionCount ?? DEFAULT_PARTITION_COUNT);
    const { description, isNew, partitionIds } = await this.#change(topic, put);
    if (!description) throw tooManyTopics(topic);
    if (partitionIds.length > 0) this.#tell({ topic, change: isNew ? "created" : "grown", partitionIds });
    const found = description.partitionCount;
    if (partitionCount !== undefined && partitionCount < found)
      throw fewerPartitions(topic, found, partitionCount);
    return { ...description, isNew };
  }

  /** Its records are gone for everybody; the room that they take is given back later, see purges.ts. */
  async delete(topic: string): Promise<void> {
    const partitionIds = await this.#change(topic, deleteTopic(topic));
    if (!partitionIds) {
      const why = `Cannot delete topic "${topic}": there is none of that name`;
      throw new Problem("unknown_topic", why, { topic });
    }
    this.#tell({ topic, change: "deleted", partitionIds });
  }

  /** Forgotten even where it fails: the outcome may be unknown. */
  async #change<T>(topic: string, operation: Operation<T>): Promise<T> {
    try {
      return await this.#queue.submit(operation);
    } finally {
      this.#forget(topic);
    }
  }

  #forget(topic: string): void {
    this.#topicsByName.delete(topic);
    this.#forgotten += 1;
  }

  #tell(change: TopicChange): void {
    for (const listener of this.#listeners) listener(change);
  }

  async list(): Promise<readonly TopicSummary[]> {
    return (await this.#db.read({ sql: LIST_TOPICS })).map(summaryOf);
  }

  async describe(topic: string): Promise<TopicDescription | undefined> {
    return descriptionOf(await this.#db.read({ sql: DESCRIBE_TOPIC, args: { topic } }));
  }
}

export function unknownTopic(topic: string): Problem {
  return new Problem(
    "unknown_topic",
    `There is no topic "${topic}": create it with PUT /v1/topics/${topic}`,
    { topic },
  );
}

interface PutOutcome {
  /** As the transaction left it; undefined where there are too many topics. */
  readonly description: TopicDescription | undefined;
  readonly isNew: boolean;
  /** Those that came. */
  readonly partitionIds: readonly number[];
}

function putTopic(topic: string, partitionCount: number): Operation<PutOutcome> {
  const args = { topic, partition_count: partitionCount };
  return {
    statements: [
      { sql: INSERT_TOPIC, args: { ...args, topics_max: TOPICS_MAX } },
      { sql: INSERT_PARTITIONS, args },
      { sql: RAISE_PARTITION_COUNT, args },
      { sql: DESCRIBE_TOPIC, args: { topic } },
    ],
    bytes: topic.length,
    settle: ([inserted = [], added = [], , description = []]: readonly Rows[]) => ({
      description: descriptionOf(description),
      isNew: inserted.length === 1,
      partitionIds: added.map((row) => numberColumn(row, "partition_id")),
    }),
  };
}

function tooManyTopics(topic: string): Problem {
  return new Problem(
    "conflict",
    `Cannot create topic "${topic}": there are ${TOPICS_MAX} topics, no more are allowed`,
  );
}

function fewerPartitions(topic: string, found: number, asked: number): Problem {
  const why = `Cannot give topic "${topic}" ${asked} partitions: it has ${found}, and a topic never gets fewer`;
  return new Problem("conflict", why, { found, asked });
}

function partitionIdsOf(row: Row): readonly number[] {
  return JSON.parse(String(row.partition_ids));
}

function descriptionOf(rows: Rows): TopicDescription | undefined {
  const [first] = rows;
  if (!first) return undefined;
  return {
    ...summaryOf(first),
    partitions: rows.map(partitionOf),
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

function partitionOf(row: Row): PartitionDescription {
  return {
    partition: numberColumn(row, "partition"),
    logStartOffset: numberColumn(row, "log_start_offset"),
    logEndOffset: numberColumn(row, "log_end_offset"),
    records: numberColumn(row, "records"),
    bytes: numberColumn(row, "bytes"),
  };
}
