// Random histories of writes, several to a flush, against what PROTOCOL.md says in memory.

import { afterAll, expect, test } from "bun:test";
import fc from "fast-check";
import { Problem } from "../../src/core/problem.ts";
import type { NewRecord } from "../../src/core/produce-request.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { raiseEpoch } from "../../src/store/producers.ts";
import { deleteTopic } from "../../src/store/topic-deletion.ts";
import { findTopics, putTopic, type Topic } from "../../src/store/topic-tables.ts";
import { openQueue, openTestDatabase, START_MS, WatchedDb } from "../support/database.ts";
import { GroupStore } from "../support/group-store.ts";
import { isLongRun } from "../support/long.ts";
import { type ModelAnswer, type ModelWrite, TransactionModel } from "../support/transaction-model.ts";
import { recordsAt, transactionOf } from "../support/transaction-writes.ts";

const database = await openTestDatabase();
afterAll(() => database.close());

const GROUP = "billing";
const NAMES = ["orders", "audit"];
const PARTITIONS: Readonly<Record<string, number>> = { orders: 2, audit: 1 };
const DAY_MS = 24 * 60 * 60 * 1_000;

const place = fc.constantFrom(["orders", 0], ["orders", 1], ["audit", 0]) as fc.Arbitrary<[string, number]>;
/** Where it is looked for may not be there. */
const anyPlace = fc.oneof(
  { weight: 9, arbitrary: place },
  { weight: 1, arbitrary: fc.constantFrom(["audit", 1], ["nothing", 0]) },
) as fc.Arbitrary<[string, number]>;
const appends = (minLength: number) =>
  fc.array(fc.tuple(place, fc.integer({ min: 1, max: 3 })), { minLength, maxLength: 3 });
const often = <T>(usual: T, ...others: readonly T[]) =>
  fc.oneof(
    { weight: 4, arbitrary: fc.constant(usual) },
    { weight: 1, arbitrary: fc.constantFrom(...others) },
  );
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });

const transaction = fc.record({
  kind: fc.constant("transact" as const),
  appends: appends(1),
  producer: maybe(
    fc.record({
      id: fc.constantFrom("p", "q"),
      newer: often(0, -1, 1),
      ahead: often(0, -1, -1, -1, -2, -17, 1, 5),
    }),
  ),
  commit: maybe(fc.record({ at: anyPlace, ahead: often(0, -1, -2, 1, 99), generation: often(0, -1, 1) })),
  expect: maybe(
    fc.uniqueArray(fc.record({ at: anyPlace, ahead: often(0, -1, 1) }), {
      selector: ({ at }) => `${at}`,
      minLength: 1,
      maxLength: 2,
    }),
  ),
});
const operation = fc.oneof(
  { weight: 8, arbitrary: transaction },
  { weight: 1, arbitrary: transaction.map((one) => ({ ...one, appends: [] })) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("append" as const),
      at: place,
      count: fc.integer({ min: 1, max: 3 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constantFrom("schema" as const, "delete" as const, "create" as const),
      topic: fc.constantFrom(...NAMES),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("raise" as const), id: fc.constantFrom("p", "q") }) },
);
type Planned = typeof operation extends fc.Arbitrary<infer T> ? T : never;
const flush = fc.record({
  operations: fc.array(operation, { minLength: 1, maxLength: 8 }),
  daysAfter: often(0, 6, 7, 8),
  isTurn: fc.boolean(),
});

class History {
  readonly watched = new WatchedDb(database.db);
  readonly queue = openQueue(this.watched);
  readonly groups = new GroupStore({ db: database.db, queue: this.queue });
  readonly model = new TransactionModel(START_MS);
  /** As they were found before the flush, gone by now or not. */
  readonly known = new Map<string, { readonly topic: Topic; readonly topicId: number }>();
  #values = 0;
  #schemas = 0;
  #topicsMade = 0;

  async begin(): Promise<void> {
    await database.empty();
    this.watched.onWrite = async () => void expect(await database.rows("SELECT * FROM guard")).toEqual([]);
    for (const topic of NAMES) await this.#create(topic);
    await this.groups.join({ topics: NAMES, policies: { missing: "none", outOfRange: "none" } });
    await this.lookAround();
  }

  /** What a server knows when the next flush begins, and what a turn of the group has done. */
  async lookAround(): Promise<void> {
    for (const topic of (await findTopics(database.db, NAMES)).topics) {
      const topicId = this.model.topics.get(topic.topic)?.topicId ?? -1; // the model counts for itself
      this.known.set(topic.topic, { topic, topicId });
    }
    const owned = await database.rows(
      `SELECT t.topic, p.partition, a.generation, c.committed_offset
       FROM topics AS t JOIN partitions AS p ON p.topic_id = t.topic_id
       LEFT JOIN assignments AS a ON a.partition_id = p.partition_id
       LEFT JOIN committed_offsets AS c ON c.partition_id = p.partition_id`,
    );
    for (const { topic: name, partition, generation, committed_offset } of owned) {
      const topic = this.model.topics.get(String(name));
      if (!topic) throw new Error(`${name} is not in the model`);
      topic.generations[Number(partition)] = numberOf(generation);
      topic.committed[Number(partition)] = numberOf(committed_offset);
    }
  }

  /** Submits it; the answer of the model and that of the store, when it comes. */
  submit(planned: Planned): { readonly expected: unknown; readonly found: Promise<unknown> } {
    switch (planned.kind) {
      case "append":
        return this.#appendPlainly(planned);
      case "transact":
        return this.#transact(planned);
      case "raise":
        return {
          expected: this.model.raise(planned.id),
          found: this.queue.submit(raiseEpoch(planned.id)),
        };
      case "delete":
        this.model.topics.delete(planned.topic);
        return done(this.queue.submit(deleteTopic(planned.topic)));
      case "create":
        return done(this.#create(planned.topic));
      case "schema":
        return done(this.#setSchema(planned.topic));
    }
  }

  #create(topic: string): Promise<unknown> {
    return this.#put(topic, undefined);
  }

  #setSchema(topic: string): Promise<unknown> {
    this.#schemas += 1;
    const put = this.#put(topic, `{"title":"${this.#schemas}"}`);
    const known = this.model.topics.get(topic);
    if (known) known.schemaVersion += 1;
    return put;
  }

  #put(topic: string, schema: string | undefined): Promise<unknown> {
    const partitionCount = PARTITIONS[topic] ?? 1;
    if (!this.model.topics.has(topic)) {
      this.#topicsMade += 1;
      this.model.topics.set(topic, {
        topicId: this.#topicsMade,
        schemaVersion: 0,
        logs: Array.from({ length: partitionCount }, () => []),
        committed: Array.from({ length: partitionCount }, () => undefined),
        generations: Array.from({ length: partitionCount }, () => undefined),
      });
    }
    return this.queue.submit(
      putTopic({ op: this.queue.nextOp(), topic, settings: { partitionCount, schema } }),
    );
  }

  #appendPlainly({ at, count }: Extract<Planned, { kind: "append" }>) {
    const { model: append, topic, records } = this.#batch(at, count);
    const [name, partition] = at;
    const found = this.queue
      .submit(appendRecords(topic, [{ partition, records }]))
      .then((appended) =>
        appended ? { runs: appended.map(({ offset }) => [name, partition, offset, count]) } : "changed",
      );
    return { expected: this.model.write({ appends: [append] }), found };
  }

  #transact({
    appends: planned,
    producer,
    commit,
    expect: expectations,
  }: Extract<Planned, { kind: "transact" }>) {
    const batches = planned.map(([at, count]) => this.#batch(at, count));
    const conditions = {
      producer: producer && this.#sequenceOf(producer),
      commits: commit && {
        group: GROUP,
        offsets: [
          {
            topic: commit.at[0],
            partition: commit.at[1],
            generation: (this.#of(commit.at)?.generation ?? 1) + commit.generation,
            offset: Math.max(0, (this.#of(commit.at)?.end ?? 0) + commit.ahead),
          },
        ],
      },
      expect: expectations?.map(({ at, ahead }) => ({
        topic: at[0],
        partition: at[1],
        logEndOffset: Math.max(0, (this.#of(at)?.end ?? 0) + ahead),
      })),
    };
    const write: ModelWrite = {
      appends: batches.map(({ model }) => model),
      producer: conditions.producer,
      commits: conditions.commits?.offsets,
      expect: conditions.expect,
    };
    const found = this.queue.submit(transactionOf(this.queue, conditions, ...batches)).then((outcome) => {
      if (!outcome) return "changed";
      const { runs, ...rest } = outcome.written;
      return { runs: runs.map((run) => [run.topic, run.partition, run.offset, run.count]), ...rest };
    });
    return { expected: this.model.write(write), found };
  }

  #sequenceOf({ id, newer, ahead }: { readonly id: string; readonly newer: number; readonly ahead: number }) {
    const epoch = Math.max(0, (this.model.producers.get(id)?.epoch ?? 0) + newer);
    return { id, epoch, sequence: Math.max(0, this.model.nextOf(id, epoch) + ahead) };
  }

  #of([name, partition]: readonly [string, number]) {
    const topic = this.model.topics.get(name);
    return (
      topic && {
        end: topic.logs[partition]?.length,
        generation: topic.generations[partition],
      }
    );
  }

  #batch([name, partition]: readonly [string, number], count: number) {
    const known = this.known.get(name);
    if (!known) throw new Error(`${name} was never there`);
    const values = Array.from({ length: count }, () => this.#nextValue());
    const records: readonly NewRecord[] = recordsAt(partition, ...values);
    const { topic, topicId } = known;
    const { schemaVersion } = topic;
    return { topic, records, model: { topic: name, topicId, schemaVersion, partition, values } };
  }

  #nextValue(): string {
    this.#values += 1;
    return `${this.#values}`;
  }

  async compare(): Promise<void> {
    const { topics, producers } = this.model;
    const partitions = await database.rows(
      `SELECT t.topic, p.partition, p.log_end_offset, p.records
       FROM topics AS t JOIN partitions AS p ON p.topic_id = t.topic_id ORDER BY t.topic, p.partition`,
    );
    const stored: unknown[] = [];
    for (const { topic, partition, log_end_offset, records } of partitions) {
      const rows = await database.rows(
        "SELECT offset, value FROM topic_records WHERE topic = :topic AND partition = :partition ORDER BY offset",
        { topic: String(topic), partition: Number(partition) },
      );
      expect(rows.map(({ offset }) => offset)).toEqual(rows.map((_, index) => index));
      expect([log_end_offset, records]).toEqual([rows.length, rows.length]);
      stored.push([topic, partition, rows.map(({ value }) => value)]);
    }
    const logs = [...topics]
      .toSorted()
      .flatMap(([topic, one]) => one.logs.map((log, at) => [topic, at, log]));
    expect(stored).toEqual(logs);
    const committed = await database.rows(
      `SELECT t.topic, p.partition, c.committed_offset AS at FROM committed_offsets AS c
       JOIN partitions AS p ON p.partition_id = c.partition_id JOIN topics AS t ON t.topic_id = p.topic_id
       ORDER BY t.topic, p.partition`,
    );
    const expected = [...topics]
      .toSorted()
      .flatMap(([topic, one]) =>
        one.committed.flatMap((at, partition) => (at === undefined ? [] : [{ topic, partition, at }])),
      );
    expect(committed).toEqual(expected);
    expect(await database.rows("SELECT * FROM producers ORDER BY producer_id")).toEqual(
      [...producers].toSorted().map(([producer_id, { epoch, next, usedAt }]) => ({
        producer_id,
        epoch,
        next_sequence: next,
        used_at: usedAt,
      })),
    );
    expect(await database.rows("SELECT * FROM guard")).toEqual([]);
  }
}

const numberOf = (value: unknown) => (typeof value === "number" ? value : undefined);

const done = (work: Promise<unknown>) => ({ expected: undefined, found: work.then(() => undefined) });

/** The facts that the model knows. */
function refusalOf(error: unknown, expected: unknown): unknown {
  if (!(error instanceof Problem)) throw error;
  const facts: ModelAnswer & object = { refused: error.code };
  const known = Object.keys(Object(expected)).filter((name) => name !== "refused");
  return { ...facts, ...Object.fromEntries(known.map((name) => [name, error.facts[name]])) };
}

test("any history of writes is answered and stored as the protocol says, whatever shared their flushes", async () => {
  const kinds = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(fc.array(flush, { minLength: 1, maxLength: 6 }), async (flushes) => {
      const history = new History();
      await history.begin();
      for (const { operations, daysAfter, isTurn } of flushes) {
        const submitted = operations.map((planned) => history.submit(planned));
        const answers = submitted.map(({ expected, found }) =>
          found.catch((error: unknown) => refusalOf(error, expected)),
        );
        const expectations: unknown[] = submitted.map(({ expected }) => expected);
        expect(await Promise.all(answers)).toEqual(expectations);
        for (const answer of expectations) count(kinds, answer);
        await history.compare();
        await database.pass(daysAfter * DAY_MS);
        history.model.nowMs += daysAfter * DAY_MS;
        if (isTurn) await history.groups.change([], { topics: NAMES, mayExpire: false });
        await history.lookAround();
      }
    }),
    { numRuns: isLongRun ? 300 : 60 },
  );
  for (const kind of KINDS) expect([kind, (kinds.get(kind) ?? 0) > 0]).toEqual([kind, true]);
}, 120_000);

/** What the histories must have come by to say anything. */
const KINDS = [
  ...["written", "duplicate", "changed", "sequence_gap", "fenced_producer", "fenced_generation"],
  ...["conflict", "offset_out_of_range", "unknown_topic", "unknown_partition"],
];

function count(kinds: Map<string, number>, answer: unknown): void {
  const { refused, duplicate, runs } = Object(answer);
  const kind = answer === "changed" ? answer : (refused ?? (duplicate ? "duplicate" : runs && "written"));
  if (typeof kind === "string") kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
}
