// What this server remembers of topics, and tells of them. (The tables are in topic-tables.ts.)
//
// What was found of a topic is remembered, and whatever is found to be different later is told. Looks and this server's
// own changes overtake each other on their way here, so each brings along the version of the catalog that it saw: of
// two that say something of a name the one with the higher version is right, whichever comes first, and no news is lost.

import type { Log, Scheduler } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import type { TopicChange } from "../core/session/events.ts";
import type { TopicSummary } from "../protocol/http.ts";
import { Batches } from "./batches.ts";
import { type LookForKeyless, lookForKeyless } from "./compaction.ts";
import type { Db } from "./db.ts";
import type { Operation } from "./operations.ts";
import { deleteTopic } from "./topic-deletion.ts";
import {
  describeTopic,
  findTopics,
  keylessRecord,
  listTopics,
  putTopic,
  type Topic,
  type TopicDescription,
  type TopicSettings,
  type Versioned,
  versioned,
} from "./topic-tables.ts";
import type { WriteQueue } from "./write-queue.ts";

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
   * Creates it where it is not there, adds the partitions that it lacks and gives it these settings. To ask for fewer
   * partitions is a `conflict`, and to ask for more than a group that has the topic can be read with, or to compact what
   * has records without a key.
   */
  async put(
    topic: string,
    partitionCount: number | undefined,
    others: Omit<TopicSettings, "partitionCount"> = {},
  ): Promise<TopicDescription & { isNew: boolean }> {
    const lookedThrough = others.cleanup === "compact" ? await this.#requireKeys(topic) : undefined;
    const settings = { partitionCount, ...others };
    const put = putTopic({ op: this.#queue.nextOp(), topic, settings, lookedThrough });
    const { outcome, version } = await this.#change(topic, put);
    const { description, isNew, topic: after, addedPartitionIds } = outcome;
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

  /**
   * Throws `conflict` where a record of it has no key. Returns how far it was looked through, by partition id: in the
   * transaction of the change only what comes after that is looked at, so that nobody waits for it.
   */
  async #requireKeys(name: string): Promise<ReadonlyMap<number, number>> {
    const lookedThrough = new Map<number, number>();
    const topic = await this.findAgain({ topic: name });
    if (topic?.isCompacted) return lookedThrough;
    for (const [partition, partitionId] of (topic?.partitionIds ?? []).entries()) {
      let looked: LookForKeyless | undefined;
      do {
        await new Promise<void>((resolve) => this.#scheduler.soon(resolve));
        looked = await lookForKeyless(this.#db, partitionId, looked?.next ?? 0);
        if (looked.keyless !== null) throw keylessRecord(name, partition, looked.keyless);
        lookedThrough.set(partitionId, looked.next);
      } while (!looked.isAtEnd);
    }
    return lookedThrough;
  }

  /** Its records are gone for everybody; the room that they take is given back later, see upkeep.ts. */
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
    const { topics, version } = await findTopics(this.#db, names);
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
    return listTopics(this.#db);
  }

  async describe(topic: string): Promise<TopicDescription | undefined> {
    return describeTopic(this.#db, topic);
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

function fewerPartitions(topic: string, found: number, asked: number): Problem {
  const why = `Cannot give topic "${topic}" ${asked} partitions: it has ${found}, and a topic never gets fewer`;
  return new Problem("conflict", why, { found, asked });
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
