// Owns `topics` and `partitions`: which topics there are. What is in a partition belongs to records.ts.

import type { Scheduler } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import type { TopicChange } from "../core/session/events.ts";
import { TOPICS_MAX } from "../protocol/limits.ts";
import { Batches } from "./batches.ts";
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

const FIND_TOPICS = `
  SELECT t.topic, t.topic_id, json_group_array(p.partition_id) AS partition_ids
  FROM topics AS t JOIN partitions AS p ON p.topic_id = t.topic_id
  WHERE t.topic IN (SELECT value FROM json_each(:topics))
  GROUP BY t.topic_id`;

const LIST_TOPICS = "SELECT topic, topic_id, partition_count FROM topics ORDER BY topic";

const DESCRIBE_TOPIC = `
  SELECT t.topic, t.topic_id, t.partition_count, t.created_at,
         p.partition, p.partition_id, p.log_start_offset, p.log_end_offset, p.records, p.bytes
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

/** On a shared database what was found may have been changed by another process since. */
const KEPT_MS = 1_000;
const TOPICS_PER_LOOK_MAX = 100;

interface Known {
  /** Undefined where it was there before and is not now. */
  readonly topic: Topic | undefined;
  /** Then it is looked up again. */
  readonly oldAtMs: number;
  /** The look that found it, or the last one before it was made: what an earlier look brings later is older. */
  readonly look: number;
}

export class Topics {
  readonly #db: Db;
  readonly #queue: WriteQueue;
  readonly #scheduler: Scheduler;
  /** A thousand who subscribe at once look up the same. */
  readonly #finds: Batches<string, Topic | null>;
  /** What was found last of each name that was ever found: whatever is found later is told as a change of it. */
  readonly #knownByName = new Map<string, Known>();
  /** How often this server has changed anything: what was read before that is not kept. */
  #changes = 0;
  #looks = 0;
  readonly #listeners: ((change: TopicChange) => void)[] = [];

  readonly createsOnFirstUse: boolean;

  constructor(deps: { db: Db; queue: WriteQueue; scheduler: Scheduler; createsOnFirstUse: boolean }) {
    this.#db = deps.db;
    this.#queue = deps.queue;
    this.#scheduler = deps.scheduler;
    this.createsOnFirstUse = deps.createsOnFirstUse;
    this.#finds = new Batches({
      scheduler: deps.scheduler,
      requestsMax: TOPICS_PER_LOOK_MAX,
      run: async (names) => {
        const found = await this.#look(names);
        return names.map((name) => found.get(name) ?? null);
      },
    });
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
    const known = this.#knownByName.get(topic);
    if (known?.topic && known.oldAtMs > this.#scheduler.nowMs()) return known.topic;
    return this.findAgain({ topic });
  }

  /** For whoever found it to be another than was remembered: as it is now. */
  async findAgain({ topic }: Pick<Topic, "topic">): Promise<Topic | undefined> {
    return (await this.#finds.submit(topic)) ?? undefined;
  }

  /** Something of the topics has changed, whoever did it. */
  async refresh(): Promise<void> {
    if (this.#knownByName.size > 0) await this.#look([...this.#knownByName.keys()]);
  }

  /**
   * Tells of every change: one that this server makes once it is durable, one that another makes when it is found. Some
   * are told twice. The listener must not throw.
   */
  onChange(listener: (change: TopicChange) => void): void {
    this.#listeners.push(listener);
  }

  /** Creates it where it is not there, and adds the partitions that it lacks. To ask for fewer is a `conflict`. */
  async put(
    topic: string,
    partitionCount: number | undefined,
  ): Promise<TopicDescription & { isNew: boolean }> {
    const put = putTopic(topic, partitionCount ?? DEFAULT_PARTITION_COUNT);
    const { description, isNew, partitionIds, addedPartitionIds } = await this.#change(put);
    if (!description) throw tooManyTopics(topic);
    const before = this.#knownByName.get(topic);
    const after = { topic, topicId: description.topicId, partitionIds };
    this.#keep(topic, after);
    // Another server may have changed it too since it was known here.
    if (before) this.#tellBetween(topic, before.topic, after);
    else if (addedPartitionIds.length > 0)
      this.#tell({ topic, change: isNew ? "created" : "grown", partitionIds: addedPartitionIds });
    const found = description.partitionCount;
    if (partitionCount !== undefined && partitionCount < found)
      throw fewerPartitions(topic, found, partitionCount);
    return { ...description, isNew };
  }

  /** Its records are gone for everybody; the room that they take is given back later, see purges.ts. */
  async delete(topic: string): Promise<void> {
    const partitionIds = await this.#change(deleteTopic(topic));
    if (!partitionIds) {
      const why = `Cannot delete topic "${topic}": there is none of that name`;
      throw new Problem("unknown_topic", why, { topic });
    }
    const before = this.#knownByName.get(topic);
    if (before) this.#keep(topic, undefined);
    // Another server may have made it anew since it was known here.
    const gone = [...new Set([...(before?.topic?.partitionIds ?? []), ...partitionIds])];
    this.#tell({ topic, change: "deleted", partitionIds: gone });
  }

  async #change<T>(operation: Operation<T>): Promise<T> {
    try {
      return await this.#queue.submit(operation);
    } catch (error) {
      this.#makeOld(); // the outcome may be unknown
      throw error;
    } finally {
      this.#changes += 1;
    }
  }

  async #look(names: readonly string[]): Promise<ReadonlyMap<string, Topic>> {
    const changes = this.#changes;
    this.#looks += 1;
    const look = this.#looks;
    const rows = await this.#db.read({ sql: FIND_TOPICS, args: { topics: JSON.stringify(names) } });
    const found = new Map(rows.map(topicOf).map((topic) => [topic.topic, topic]));
    if (this.#changes === changes)
      for (const name of new Set(names)) this.#learn(name, found.get(name), look);
    return found;
  }

  #learn(name: string, found: Topic | undefined, look: number): void {
    const before = this.#knownByName.get(name);
    if (before ? before.look > look : !found) return;
    this.#keep(name, found, look);
    if (before) this.#tellBetween(name, before.topic, found);
  }

  #keep(name: string, topic: Topic | undefined, look = this.#looks): void {
    const oldAtMs = this.#db.isShared ? this.#scheduler.nowMs() + KEPT_MS : Number.POSITIVE_INFINITY;
    this.#knownByName.set(name, { topic, oldAtMs, look });
  }

  #makeOld(): void {
    for (const [name, known] of this.#knownByName)
      this.#knownByName.set(name, { ...known, oldAtMs: Number.NEGATIVE_INFINITY });
  }

  #tellBetween(name: string, before: Topic | undefined, after: Topic | undefined): void {
    for (const change of changesBetween(name, before, after)) this.#tell(change);
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
  /** By partition number, as the transaction left them. */
  readonly partitionIds: readonly number[];
  /** Those that it has added. */
  readonly addedPartitionIds: readonly number[];
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
    afterLostAnswer: "repeat",
    settle: ([inserted = [], added = [], , description = []]: readonly Rows[]) => ({
      description: descriptionOf(description),
      isNew: inserted.length === 1,
      partitionIds: description.map(partitionIdOf),
      addedPartitionIds: added.map(partitionIdOf),
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

/** sqld parses no ORDER BY in an aggregate; but a topic's later partitions have the higher ids. */
function topicOf(row: Row): Topic {
  const partitionIds: number[] = JSON.parse(String(row.partition_ids));
  return {
    topic: String(row.topic),
    topicId: numberColumn(row, "topic_id"),
    partitionIds: partitionIds.sort((a, b) => a - b),
  };
}

function changesBetween(
  topic: string,
  before: Topic | undefined,
  after: Topic | undefined,
): readonly TopicChange[] {
  if (before && before.topicId === after?.topicId) {
    const partitionIds = after.partitionIds.slice(before.partitionIds.length);
    return partitionIds.length > 0 ? [{ topic, change: "grown", partitionIds }] : [];
  }
  return [
    ...(before ? [{ topic, change: "deleted", partitionIds: before.partitionIds } as const] : []),
    ...(after ? [{ topic, change: "created", partitionIds: after.partitionIds } as const] : []),
  ];
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
