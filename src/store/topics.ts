// Owns `topics` and `partitions`: which topics there are. What is in a partition belongs to records.ts.
//
// What was found of a topic is remembered, and whatever is found to be different later is told. Looks and this server's
// own changes overtake each other on their way here, so each brings along the version of the catalog that it saw: of
// two that say something of a name the one with the higher version is right, whichever comes first, and no news is lost.

import { PARTITION_BYTES } from "../core/group-picture.ts";
import type { Log, Scheduler } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import type { TopicChange } from "../core/session/events.ts";
import { GROUP_BYTES_MAX, TOPICS_MAX } from "../protocol/limits.ts";
import { Batches } from "./batches.ts";
import { type Db, numberColumn, type Row, type Rows } from "./db.ts";
import { END_CHECK, IS_OK } from "./guard.ts";
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

// One row without a topic where none of them is there: the version is told all the same.
const FIND_TOPICS = `
  SELECT c.version, t.topic, t.topic_id, json_group_array(p.partition_id) AS partition_ids
  FROM catalog AS c
  LEFT JOIN topics AS t ON t.topic IN (SELECT value FROM json_each(:topics))
  LEFT JOIN partitions AS p ON p.topic_id = t.topic_id
  GROUP BY t.topic_id`;

const READ_VERSION = "SELECT version FROM catalog";

const LIST_TOPICS = "SELECT topic, topic_id, partition_count FROM topics ORDER BY topic";

const DESCRIBE_TOPIC = `
  SELECT t.topic, t.topic_id, t.partition_count, t.created_at,
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

/** On a shared database what was found may have been changed by another process since. */
const KEPT_MS = 1_000;
const TOPICS_PER_LOOK_MAX = 100;
/** So many names of topics that are gone are remembered before anybody asks whether they are still wanted. */
const GONE_NAMES_UNASKED_MAX = 100;

interface Known {
  /** Undefined where it is gone. */
  readonly topic: Topic | undefined;
  /** Of the catalog: as of it this is so. */
  readonly version: number;
  /** Then it is looked up again. */
  readonly oldAtMs: number;
}

interface TopicsDeps {
  readonly db: Db;
  readonly queue: WriteQueue;
  readonly scheduler: Scheduler;
  /** Without one, what nobody waits for and fails is an unhandled rejection. */
  readonly log?: Log;
  readonly createsOnFirstUse: boolean;
  /** Somebody here waits for the topic, be it there or not: when it comes into being, that is told. */
  readonly isWanted?: (topic: string) => boolean;
}

export class Topics {
  readonly #db: Db;
  readonly #queue: WriteQueue;
  readonly #scheduler: Scheduler;
  readonly #log: Log | undefined;
  readonly #isWanted: (topic: string) => boolean;
  /** A thousand who subscribe at once look up the same. */
  readonly #finds: Batches<string, Topic | null>;
  /** What was found last, of what is there and of what is gone and wanted: what is found later is told as a change. */
  readonly #knownByName = new Map<string, Known>();
  /** Of these, those that are gone. */
  readonly #goneNames = new Set<string>();
  #goneNamesMax = GONE_NAMES_UNASKED_MAX;
  /** As of it some topic was not there and was forgotten: whoever finds one as of an earlier version cannot trust it. */
  #forgottenVersion = 0;
  readonly #listeners: ((change: TopicChange) => void)[] = [];

  readonly createsOnFirstUse: boolean;

  constructor(deps: TopicsDeps) {
    this.#db = deps.db;
    this.#queue = deps.queue;
    this.#scheduler = deps.scheduler;
    this.#log = deps.log;
    this.#isWanted = deps.isWanted ?? (() => false);
    this.createsOnFirstUse = deps.createsOnFirstUse;
    this.#finds = new Batches({
      scheduler: deps.scheduler,
      requestsMax: TOPICS_PER_LOOK_MAX,
      run: async (names) => {
        const { found } = await this.#look(names);
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

  /**
   * Something of the topics has changed, whoever did it. When it resolves all that is known is as of this version of the
   * catalog or a later one, and what was news is told; where it rejects, it is for the caller to ask again.
   */
  async refresh(catalogVersion = 0): Promise<void> {
    const looks = chunksOf([...this.#knownByName.keys()], TOPICS_PER_LOOK_MAX);
    const lookOnAndOn = async () => {
      // All take from the same chunks: one that throws ends them for the others too.
      for (const names of looks) {
        const { version } = await this.#look(names);
        if (version < catalogVersion) throw tooEarly(version, catalogVersion); // a replica may lag
      }
    };
    await Promise.all(Array.from({ length: this.#db.readsAtOnceMax }, lookOnAndOn));
  }

  /**
   * Tells of every change: one that this server makes once it is durable, one that another makes when it is found. Some
   * are told twice. The listener must not throw.
   */
  onChange(listener: (change: TopicChange) => void): void {
    this.#listeners.push(listener);
  }

  /**
   * Creates it where it is not there, and adds the partitions that it lacks. To ask for fewer is a `conflict`, and to ask
   * for more than a group that has the topic can be read with.
   */
  async put(
    topic: string,
    partitionCount: number | undefined,
  ): Promise<TopicDescription & { isNew: boolean }> {
    const put = putTopic({
      op: this.#queue.nextOp(),
      topic,
      partitionCount: partitionCount ?? DEFAULT_PARTITION_COUNT,
    });
    const { outcome, version } = await this.#change(topic, put);
    const { description, isNew, partitionIds, addedPartitionIds } = outcome;
    const after = { topic, topicId: description.topicId, partitionIds };
    const before = this.#keep(topic, after, version);
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
    const { outcome: partitionIds, version } = await this.#change(topic, deleteTopic(topic));
    if (!partitionIds) {
      const why = `Cannot delete topic "${topic}": there is none of that name`;
      throw new Problem("unknown_topic", why, { topic });
    }
    const before = this.#keep(topic, undefined, version);
    // Another server may have made it anew since it was known here.
    const gone = [...new Set([...(before?.topic?.partitionIds ?? []), ...partitionIds])];
    this.#tell({ topic, change: "deleted", partitionIds: gone });
  }

  async #change<T>(topic: string, operation: Operation<T>): Promise<Versioned<T>> {
    try {
      return await this.#queue.submit(versioned(operation));
    } catch (error) {
      if (error instanceof Problem && error.code === "outcome_unknown") this.#lookSoon(topic);
      throw error;
    }
  }

  /** What has become of it is told. Where it cannot be read now, the next use of it looks again. */
  #lookSoon(name: string): void {
    const known = this.#knownByName.get(name);
    if (known) this.#knownByName.set(name, { ...known, oldAtMs: Number.NEGATIVE_INFINITY });
    this.findAgain({ topic: name }).catch((error: unknown) => {
      if (!this.#log) throw error;
      this.#log("topic could not be looked up", { topic: name, message: String(error) });
    });
  }

  async #look(names: readonly string[]): Promise<{ found: ReadonlyMap<string, Topic>; version: number }> {
    const rows = await this.#db.read({ sql: FIND_TOPICS, args: { topics: JSON.stringify(names) } });
    const version = versionOf(rows);
    const topics = rows.filter((row) => row.topic !== null).map(topicOf);
    const found = new Map(topics.map((topic) => [topic.topic, topic]));
    for (const name of new Set(names)) this.#learn(name, found.get(name), version);
    return { found, version };
  }

  #learn(name: string, found: Topic | undefined, version: number): void {
    const before = this.#keep(name, found, version);
    if (before) this.#tellBetween(name, before.topic, found);
  }

  /** Returns what was known before; undefined where nothing was, or something newer is, which stays. */
  #keep(name: string, topic: Topic | undefined, version: number): Known | undefined {
    const before = this.#knownByName.get(name);
    if (before && before.version > version) return undefined;
    this.#goneNames.delete(name);
    if (topic) this.#knownByName.set(name, { topic, version, oldAtMs: this.#oldAtMs(version) });
    else this.#keepGone(name, version);
    return before;
  }

  #oldAtMs(version: number): number {
    if (version < this.#forgottenVersion) return Number.NEGATIVE_INFINITY;
    return this.#db.isShared ? this.#scheduler.nowMs() + KEPT_MS : Number.POSITIVE_INFINITY;
  }

  #keepGone(name: string, version: number): void {
    if (!this.#isWanted(name)) return this.#forget(name, version);
    this.#knownByName.set(name, { topic: undefined, version, oldAtMs: Number.NEGATIVE_INFINITY });
    this.#goneNames.add(name);
    if (this.#goneNames.size > this.#goneNamesMax) this.#forgetUnwanted();
  }

  /** Not before they are twice as many as were wanted the last time: to ask for each may take long. */
  #forgetUnwanted(): void {
    for (const name of this.#goneNames) {
      const version = this.#knownByName.get(name)?.version ?? 0;
      if (!this.#isWanted(name)) this.#forget(name, version);
    }
    this.#goneNamesMax = GONE_NAMES_UNASKED_MAX + 2 * this.#goneNames.size;
  }

  #forget(name: string, version: number): void {
    this.#knownByName.delete(name);
    this.#goneNames.delete(name);
    this.#forgottenVersion = Math.max(this.#forgottenVersion, version);
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

function* chunksOf<T>(all: readonly T[], sizeMax: number): Generator<readonly T[]> {
  for (let first = 0; first < all.length; first += sizeMax) yield all.slice(first, first + sizeMax);
}

function tooEarly(found: number, wanted: number): Error {
  return new Error(
    `Topics were read as of version ${found} of the catalog, version ${wanted} was seen before`,
  );
}

interface Versioned<T> {
  readonly outcome: T;
  /** Of the catalog, when the operation was done. */
  readonly version: number;
}

function versioned<T>({ statements, bytes, afterLostAnswer, settle }: Operation<T>): Operation<Versioned<T>> {
  return {
    statements: [...statements, { sql: READ_VERSION }],
    bytes,
    ...(afterLostAnswer === "repeat" ? { afterLostAnswer } : {}),
    settle: (results) => ({
      outcome: settle(results.slice(0, -1)),
      version: versionOf(results.at(-1) ?? []),
    }),
  };
}

/** In every row the same. */
function versionOf([row = {}]: Rows): number {
  return numberColumn(row, "version");
}

interface TopicPut {
  /** WriteQueue.nextOp(). */
  readonly op: number;
  readonly topic: string;
  readonly partitionCount: number;
}

interface PutOutcome {
  /** As the transaction left it. */
  readonly description: TopicDescription;
  readonly isNew: boolean;
  /** By partition number, as the transaction left them. */
  readonly partitionIds: readonly number[];
  /** Those that it has added. */
  readonly addedPartitionIds: readonly number[];
}

function putTopic(put: TopicPut): Operation<PutOutcome> {
  const { op, topic, partitionCount } = put;
  const args = { op, topic, partition_count: partitionCount };
  const group = { ...args, partition_bytes: PARTITION_BYTES, group_bytes_max: GROUP_BYTES_MAX };
  return {
    statements: [
      { sql: CHECK_GROUPS, args: group },
      { sql: FIND_TOO_LARGE_GROUP, args: group },
      { sql: INSERT_TOPIC, args: { ...args, topics_max: TOPICS_MAX } },
      { sql: INSERT_PARTITIONS, args },
      { sql: RAISE_PARTITION_COUNT, args },
      { sql: DESCRIBE_TOPIC, args: { topic } },
      { sql: END_CHECK, args: { op } },
    ],
    bytes: topic.length,
    afterLostAnswer: "repeat",
    settle: ([, tooLargeGroups = [], inserted = [], added = [], , described = []]: readonly Rows[]) => {
      const [tooLarge] = tooLargeGroups;
      if (tooLarge) throw tooLargeGroup(put, tooLarge);
      const description = descriptionOf(described);
      if (!description) throw tooManyTopics(topic);
      return {
        description,
        isNew: inserted.length === 1,
        partitionIds: described.map(partitionIdOf),
        addedPartitionIds: added.map(partitionIdOf),
      };
    },
  };
}

function tooLargeGroup({ topic, partitionCount }: TopicPut, row: Row): Problem {
  const group = String(row.group_id);
  const found = numberColumn(row, "bytes");
  return new Problem(
    "conflict",
    `Cannot give topic "${topic}" ${partitionCount} partitions: with them those of group "${group}" take ${found} bytes, at most ${GROUP_BYTES_MAX}`,
    { topic, group, found, allowed: GROUP_BYTES_MAX },
  );
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
