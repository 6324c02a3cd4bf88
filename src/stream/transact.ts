// One transaction, a produce among them, from checked records to runs: find the topics and hold the records against
// their schemas, then partition, write, wake. Two steps, so that a socket can keep its writes in order: writeTo() has
// submitted its records when it returns. A schema that changes in between is no danger: what is written names the
// version that its records were held against.

import { partitionRecords, requireKeys, requirePartitions, runsWithOffsets } from "../core/partitioner.ts";
import type { Chance } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import type { TopicAppend, Transaction, Written } from "../core/transaction.ts";
import { TRANSACTION_PARTITIONS_MAX } from "../protocol/limits.ts";
import { appendRecords } from "../store/appends.ts";
import type { Db } from "../store/db.ts";
import { readRepeated } from "../store/producers.ts";
import type { TimeIndexCadence } from "../store/time-index.ts";
import { DEFAULT_PARTITION_COUNT, type Topic } from "../store/topic-tables.ts";
import { type Topics, unknownTopic } from "../store/topics.ts";
import { type TransactionOutcome, writeTransaction } from "../store/transactions.ts";
import type { Upkeep } from "../store/upkeep.ts";
import type { WriteQueue } from "../store/write-queue.ts";
import type { RecordSchemas } from "./record-schemas.ts";
import type { WakeUps } from "./wake-ups.ts";

export interface TransactDeps {
  readonly db: Db;
  readonly topics: Topics;
  readonly queue: WriteQueue;
  readonly wakeUps: WakeUps;
  readonly schemas: RecordSchemas;
  readonly timeIndexCadence: TimeIndexCadence;
  readonly chance: Chance;
  /** Is told of what it may have something to do with. */
  readonly upkeep: Pick<Upkeep, "noteAppend" | "noteProducer" | "wake">;
}

/** The topics that a transaction appends to, by name. */
type Targets = ReadonlyMap<string, Topic>;

/**
 * Resolves when all of it is durable. Rejects with a Problem, and then nothing was written; only after
 * `outcome_unknown` it may have been.
 */
export async function transact(deps: TransactDeps, transaction: Transaction): Promise<Written> {
  const written = findTargets(deps, transaction).then((targets) => writeTo(deps, transaction, targets));
  return unlessRepeated(deps, transaction, written);
}

/** The writes of one socket: written in the order in which they came. */
export class TransactionLane {
  readonly #deps: TransactDeps;
  /** The last look for topics. */
  #finding: Promise<unknown> = Promise.resolve();
  /** Until all that came is answered. */
  #answering: Promise<unknown> = Promise.resolve();
  /** How many found a topic to be another one, and were written after what came behind them. */
  #delayed = 0;

  constructor(deps: TransactDeps) {
    this.#deps = deps;
  }

  transact(transaction: Transaction): Promise<Written> {
    const earlier = this.#answering;
    const targets = this.#finding.then(() => findTargets(this.#deps, transaction));
    const written = targets.then((found) => this.#write(transaction, found, earlier));
    this.#finding = targets.catch(() => undefined); // its own frame is told of that
    const answered = unlessRepeated(this.#deps, transaction, written);
    this.#answering = earlier.then(() => answered).then(noop, noop);
    return answered;
  }

  /** Where an earlier one was delayed its producer's next sequence was judged too early. */
  async #write(transaction: Transaction, targets: Targets, earlier: Promise<unknown>): Promise<Written> {
    const delayed = this.#delayed;
    const write = () =>
      writeTo(this.#deps, transaction, targets, () => {
        this.#delayed += 1;
        return earlier;
      });
    try {
      return await write();
    } catch (error) {
      if (!(error instanceof Problem && error.code === "sequence_gap")) throw error;
      await earlier;
      if (this.#delayed === delayed) throw error;
      return write();
    }
  }
}

function noop(): void {}

/**
 * A producer that repeats what was written before gets the answer of then, although the topic of then is gone by now,
 * or takes such records no more.
 */
async function unlessRepeated(
  { db }: TransactDeps,
  { producer }: Transaction,
  written: Promise<Written>,
): Promise<Written> {
  try {
    return await written;
  } catch (error) {
    const isJudgedBefore = error instanceof Problem && JUDGED_BEFORE_THE_PRODUCER.has(error.code);
    const repeated = producer && isJudgedBefore ? await readRepeated(db, producer) : undefined;
    if (!repeated) throw error;
    return repeated;
  }
}

const JUDGED_BEFORE_THE_PRODUCER: ReadonlySet<string> = new Set([
  "unknown_topic",
  "unknown_partition",
  "batch_too_large", // its records went to fewer partitions then
  "schema_violation",
  "bad_request", // they had no key, and the topic was not compacted then
]);

// ── find ─────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * With topics that take these records. Those that are not there are created where first use does that: none where one
 * of them could not take its records, and none by a producer that repeats what was written before.
 */
async function findTargets(deps: TransactDeps, transaction: Transaction): Promise<Targets> {
  const { appends } = transaction;
  const found = new Map<string, Topic | undefined>();
  for (const append of appends) found.set(append.topic, await findTarget(deps, append));
  if ([...found.values()].includes(undefined)) await requireCreatable(deps, transaction, found);
  const targets = new Map<string, Topic>();
  for (const [name, topic] of found) targets.set(name, topic ?? (await deps.topics.require(name)));
  return targets;
}

/** Throws where the transaction could not be written with the topics that are to be created for it, or was written. */
async function requireCreatable(
  { db }: TransactDeps,
  { appends, producer }: Transaction,
  found: ReadonlyMap<string, Topic | undefined>,
): Promise<void> {
  const { partitions } = partitionRecords(
    appends.map(({ topic, records }) => {
      const partitionCount = found.get(topic)?.partitionIds.length ?? DEFAULT_PARTITION_COUNT;
      return { topic, partitionCount, stickyPartition: 0, records };
    }),
  );
  requireFewPartitions(partitions.length);
  const [gone = ""] = [...found].flatMap(([name, topic]) => (topic ? [] : [name]));
  if (producer && (await readRepeated(db, producer))) throw unknownTopic(gone); // and is answered as it was then
}

/** Undefined where it is to be created. What is remembered of it may be out of date: it is looked at once more. */
async function findTarget(deps: TransactDeps, append: TopicAppend): Promise<Topic | undefined> {
  const { topics } = deps;
  const remembered = await topics.find(append.topic);
  if (!remembered && !topics.createsOnFirstUse) throw unknownTopic(append.topic);
  try {
    await requireTaken(deps, append, remembered);
    return remembered;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    const current = await topics.findAgain(append);
    await requireTaken(deps, append, current);
    return current;
  }
}

/** Throws `unknown_partition`, `bad_request` or `schema_violation` where the topic does not take these records. */
async function requireTaken(
  { schemas }: TransactDeps,
  wanted: TopicAppend,
  topic: Topic | undefined,
): Promise<void> {
  const partitionCount = topic?.partitionIds.length ?? DEFAULT_PARTITION_COUNT;
  requirePartitions(wanted.records, { topic: wanted.topic, partitionCount, append: wanted.append });
  if (topic?.isCompacted) requireKeys(wanted.records, wanted);
  if (topic) await schemas.require(wanted, topic);
}

// ── write ────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * Where a topic is not as it was found, another process has changed it: all are looked up, or created, once more, when
 * `onChanged` lets it.
 */
async function writeTo(
  deps: TransactDeps,
  transaction: Transaction,
  targets: Targets,
  onChanged: () => Promise<unknown> = () => Promise.resolve(),
): Promise<Written> {
  const written = await writeOnce(deps, transaction, targets);
  if (written) return written;
  await onChanged();
  await Promise.all([...targets.values()].map((topic) => deps.topics.findAgain(topic)));
  const again = await writeOnce(deps, transaction, await findTargets(deps, transaction));
  if (!again) throw new Problem("unavailable", "The topic is being changed; nothing was written");
  return again;
}

/** Undefined, nothing written, where a topic is gone or has another schema. */
async function writeOnce(
  deps: TransactDeps,
  transaction: Transaction,
  targets: Targets,
): Promise<Written | undefined> {
  const outcome = await submit(deps, transaction, targets);
  if (!outcome) return undefined;
  for (const { partitionId, logEndOffset } of outcome.appended)
    deps.wakeUps.notify(partitionId, logEndOffset);
  if (targets.values().some(({ hasUpkeep }) => hasUpkeep)) deps.upkeep.noteAppend();
  if (transaction.producer) deps.upkeep.noteProducer();
  return outcome.written;
}

/** Has submitted it when it returns. */
async function submit(
  deps: TransactDeps,
  { appends, ...conditions }: Transaction,
  targets: Targets,
): Promise<TransactionOutcome | undefined> {
  const { queue, timeIndexCadence: cadence } = deps;
  const topics = appends.map(({ topic }) => targetOf(targets, topic));
  const { partitions, runs } = partitionRecords(
    appends.map(({ topic, records }, index) => {
      const partitionCount = topics[index]?.partitionIds.length ?? 0;
      return { topic, partitionCount, stickyPartition: anyOf(deps, partitionCount), records };
    }),
  );
  const [only, ...others] = topics;
  const isConditional = conditions.producer || conditions.commits || conditions.expect || others.length > 0;
  if (!only || isConditional) {
    requireFewPartitions(partitions.length);
    const op = queue.nextOp();
    return queue.submit(writeTransaction({ op, partitions, runs, topics: targets, conditions, cadence }));
  }
  const appended = await queue.submit(appendRecords(only, partitions, cadence));
  return appended && { written: { runs: runsWithOffsets(runs, appended) }, appended };
}

function targetOf(targets: Targets, name: string): Topic {
  const topic = targets.get(name);
  if (!topic) throw new RangeError(`topic ${name} of a transaction was not looked up`);
  return topic;
}

function anyOf({ chance }: TransactDeps, partitionCount: number): number {
  return Math.floor(chance.random() * partitionCount);
}

function requireFewPartitions(found: number): void {
  const allowed = TRANSACTION_PARTITIONS_MAX;
  if (found <= allowed) return;
  const message = `Cannot transact: found records for ${found} partitions, allowed ${allowed}`;
  throw new Problem("batch_too_large", message, { found, allowed });
}
