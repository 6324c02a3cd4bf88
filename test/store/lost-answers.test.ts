// Flushes of appends with conditions and without, whose answer a proxy in front of a real sqld loses.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import type { Scheduler } from "../../src/core/ports.ts";
import { Problem } from "../../src/core/problem.ts";
import { commitOffsets } from "../../src/store/commits.ts";
import type { Operation } from "../../src/store/operations.ts";
import { raiseEpoch } from "../../src/store/producers.ts";
import type { RemoteDatabase } from "../../src/store/remote.ts";
import type { Topic } from "../../src/store/topic-tables.ts";
import type { TransactionOutcome, TransactionWrite } from "../../src/store/transactions.ts";
import { CuttingProxy } from "../support/cutting-proxy.ts";
import { GroupStore } from "../support/group-store.ts";
import { isLongRun } from "../support/long.ts";
import {
  APPENDS,
  append,
  first,
  openBehind,
  recordsOf,
  type Sides,
  storeOf,
  valuesIn,
} from "../support/remote-store.ts";
import { HAS_SQLD, openRemoteTestDb, realTime, SQLD_SKIPPED, type Sqld, startSqld } from "../support/sqld.ts";
import { type AppendTo, transactionOf } from "../support/transaction-writes.ts";

setDefaultTimeout(30_000); // where the machine has much else to do

const GUARD = "INSERT INTO guard";

/** What is said of an operation: the offsets of its runs, or the code of its Problem, or that a topic has changed. */
async function told(answer: Promise<unknown>): Promise<unknown> {
  try {
    const outcome = await answer;
    if (outcome === undefined) return "changed";
    if (Array.isArray(outcome)) return outcome.map(({ offset }) => offset);
    const { runs, duplicate } = (outcome as TransactionOutcome).written;
    return [...runs.map(({ offset }) => offset), ...(duplicate ? ["again"] : [])];
  } catch (error) {
    if (error instanceof Problem) return error.code;
    throw error;
  }
}

const all = (...answers: readonly Promise<unknown>[]) => Promise.all(answers.map(told));

const transact = (
  { queue }: Sides,
  conditions: TransactionWrite["conditions"],
  ...appends: readonly AppendTo[]
) => queue.submit(transactionOf(queue, conditions, ...appends));

const producer = (sequence: number, id = "p", epoch = 0) => ({ producer: { id, epoch, sequence } });

const to = (topic: Topic, ...values: readonly string[]): AppendTo => ({
  topic,
  records: recordsOf(...values),
});

const ending = ({ topic }: Topic, logEndOffset: number) => ({
  expect: [{ topic, partition: 0, logEndOffset }],
});

/** Nobody's, where a flush is refused whole. */
const GUILTY: Operation<unknown> = {
  statements: [{ sql: "INSERT INTO guard SELECT value, 1 FROM json_each(:json)", args: { json: "[1, 2" } }],
  bytes: 0,
  settle: () => "done",
};

if (!HAS_SQLD) console.warn(`lost answers: ${SQLD_SKIPPED}`);

describe.skipIf(!HAS_SQLD)("in a flush whose answer is lost,", () => {
  let sqld: Sqld;
  let direct: Sides;
  let made = 0;
  beforeAll(async () => {
    sqld = await startSqld();
    direct = storeOf(await openRemoteTestDb(sqld.url));
  });
  afterAll(() => sqld[Symbol.asyncDispose]());

  async function newTopic(): Promise<Topic> {
    made += 1;
    await direct.topics.put(`topic-${made}`, 1);
    return direct.topics.require(`topic-${made}`);
  }

  const guardRows = () => direct.db.read({ sql: "SELECT * FROM guard" });

  /** Behind a proxy; before anything is sent again `meanwhile` has been done by another server. */
  async function behind(meanwhile: () => Promise<unknown> = async () => {}) {
    const proxy = new CuttingProxy(sqld.port);
    const scheduler: Scheduler = {
      ...realTime,
      after: (_, run) => {
        void meanwhile().then(run);
        return () => {};
      },
    };
    const options: Partial<RemoteDatabase> = { scheduler, callDeadlineMs: 6_000 }; // nothing is held here
    return {
      proxy,
      store: await openBehind(proxy, options),
      [Symbol.dispose]: () => proxy[Symbol.dispose](),
    };
  }

  test("appends, conditions that held and conditions that did not each get their own offsets, once", async () => {
    const topic = await newTopic();
    const other = await newTopic();
    using side = await behind(() => append(direct, topic, recordsOf('"other"')));
    const { proxy, store } = side;
    const stale = await newTopic();
    await direct.topics.put(stale.topic, undefined, { schema: "true" });
    const id = `id-of-${topic.topic}`;
    proxy.isLost = first(1, APPENDS);
    const answers = await all(
      append(store, topic, recordsOf("0", "1")),
      transact(store, producer(0, id), to(topic, "2")),
      transact(store, producer(0, id), to(topic, '"repeat"')),
      transact(store, ending(topic, 99), to(topic, '"refused"')),
      transact(store, ending(topic, 3), to(topic, "3"), to(other, "0")),
      append(store, stale, recordsOf('"stale"')),
      transact(store, producer(0, `${id}-2`), to(topic, '"stale"'), to(stale, '"stale"')),
      transact(store, producer(3, id), to(topic, '"gap"')),
      transact(store, producer(1, id), to(other, "1", "2"), to(topic, "4"), to(other, "3")),
      append(store, other, recordsOf("4")),
      append(store, topic, recordsOf("5")),
    );
    expect(answers).toEqual([
      [0],
      [2],
      "unavailable",
      "unavailable",
      [3, 0],
      "changed",
      "unavailable",
      "unavailable",
      [1, 4, 3],
      [4],
      [5],
    ]);
    expect(proxy.lost).toBe(1);
    expect(await valuesIn(direct.db, topic)).toEqual(["0", "1", "2", "3", "4", "5", '"other"']);
    expect(await valuesIn(direct.db, other)).toEqual(["0", "1", "2", "3", "4"]);
    expect(await valuesIn(direct.db, stale)).toEqual([]);
    expect(await guardRows()).toEqual([]);
  });

  test("what was refused is unavailable, and is never written behind what came after it", async () => {
    const topic = await newTopic();
    using side = await behind();
    const { proxy, store } = side;
    const id = `id-of-${topic.topic}`;
    proxy.isLost = first(1, APPENDS);
    const answers = await all(
      transact(store, ending(topic, 1), to(topic, '"late"')),
      transact(store, producer(1, id), to(topic, '"second"')),
      append(store, topic, recordsOf('"first"')),
      transact(store, ending(topic, 0), to(topic, '"never"')),
    );
    expect(answers).toEqual(["unavailable", "unavailable", [0], "unavailable"]);
    expect(await valuesIn(direct.db, topic)).toEqual(['"first"']);
    expect(await told(transact(store, producer(0, id), to(topic, '"zero"')))).toEqual([1]);
  });

  test("what was refused stays so however often that answer is lost too", async () => {
    const topic = await newTopic();
    using side = await behind();
    const { proxy, store } = side;
    const id = `id-of-${topic.topic}`;
    proxy.isLost = first(4, GUARD);
    const answers = await all(
      transact(store, producer(0, id), to(topic, "0")),
      transact(store, ending(topic, 7), to(topic, '"refused"')),
      transact(store, producer(0, id), to(topic, '"repeat"')),
      append(store, topic, recordsOf("1")),
    );
    expect(answers).toEqual([[0], "unavailable", "unavailable", [1]]);
    expect(proxy.lost).toBe(4);
    expect(await valuesIn(direct.db, topic)).toEqual(["0", "1"]);
    expect(await guardRows()).toEqual([]);
  });

  test("which held a guilty operation, each of its operations is written once for itself", async () => {
    const topic = await newTopic();
    using side = await behind();
    const { proxy, store } = side;
    const id = `id-of-${topic.topic}`;
    let tries = 0;
    // Not the flush of all, which the database refuses: of those that follow, the answer of each but the guilty one's.
    proxy.isLost = (request) => {
      if (!request.includes(APPENDS) || request.includes("[1, 2")) return false;
      tries += 1;
      return tries % 2 === 1 && tries < 12;
    };
    const answers = await all(
      append(store, topic, recordsOf("0")),
      store.queue.submit(GUILTY),
      transact(store, producer(0, id), to(topic, "1")),
      transact(store, ending(topic, 0), to(topic, '"refused"')),
      transact(store, producer(0, id), to(topic, '"repeat"')),
      append(store, topic, recordsOf("2")),
      transact(store, producer(1, id), to(topic, "3")),
    );
    expect(answers).toEqual([[0], "internal", [1], "unavailable", "unavailable", [2], [3]]);
    expect(proxy.lost).toBe(6);
    expect(await valuesIn(direct.db, topic)).toEqual(["0", "1", "2", "3"]);
    expect(await guardRows()).toEqual([]);
  });

  test("a topic gets its schema alone, so whoever comes before and after is told what was done", async () => {
    const topic = await newTopic();
    using side = await behind();
    const { proxy, store } = side;
    const put = store.topics.put(topic.topic, undefined, { schema: '{"type":"number"}' });
    const before = append(store, topic, recordsOf('"queued behind the schema"'));
    await put;
    expect(await told(before)).toBe("changed");

    const current = await direct.topics.findAgain(topic);
    if (!current) throw new Error("it is there");
    const losesAppends = first(1, APPENDS);
    const losesSchema = first(1, "SET schema");
    proxy.isLost = (request) => losesAppends(request) || losesSchema(request);
    const answers = all(
      append(store, current, recordsOf("0")),
      transact(store, producer(0, topic.topic), to(current, "1")),
      store.topics.put(topic.topic, undefined, { schema: null }).then(() => []),
      append(store, current, recordsOf('"after"')),
      transact(store, producer(1, topic.topic), to(current, '"after"')),
    );
    expect(await answers).toEqual([[0], [1], [], "changed", "changed"]);
    expect(proxy.lost).toBe(2);
    expect(await valuesIn(direct.db, topic)).toEqual(["0", "1"]);
    const withSchema = proxy.requests.filter((request) => request.includes("SET schema"));
    expect(withSchema.length).toBeGreaterThanOrEqual(2);
    expect(withSchema.filter((request) => request.includes(APPENDS))).toEqual([]);
  });

  test("a transaction whose topic goes in the same flush is unknown, and its producer can ask for it", async () => {
    const kept = await newTopic();
    const gone = await newTopic();
    using side = await behind();
    const { proxy, store } = side;
    proxy.isLost = first(1, APPENDS);
    const written = transact(store, producer(0, kept.topic), to(kept, "0"), to(gone, "0"));
    const deleted = store.topics.delete(gone.topic);
    const late = transact(store, {}, to(kept, '"late"'), to(gone, '"late"'));
    const behindIt = append(store, kept, recordsOf("1"));
    expect(await all(written, deleted, late, behindIt)).toEqual([
      "outcome_unknown",
      "outcome_unknown",
      "unavailable",
      [1],
    ]);
    expect(await told(transact(store, producer(0, kept.topic), to(kept, "0")))).toEqual([0, 0, "again"]);
    expect(await valuesIn(direct.db, kept)).toEqual(["0", "1"]);
  });

  test("commits of transactions count once, beside acks and a new epoch", async () => {
    const topic = await newTopic();
    await append(direct, topic, recordsOf("0", "1", "2", "3"));
    const group = `group-of-${topic.topic}`;
    const member = await new GroupStore(direct).join({ group, topics: [topic.topic] });
    const generation = member.partitions[0]?.generation ?? -1;
    const entry = (offset: number, about = {}) => ({
      ...{ topic: topic.topic, partition: 0, generation, offset },
      ...about,
    });
    const commits = (...offsets: readonly ReturnType<typeof entry>[]) => ({ commits: { group, offsets } });
    using side = await behind();
    const { proxy, store } = side;
    proxy.isLost = first(1, APPENDS);
    const acks = store.queue.submit(
      commitOffsets(group, [{ ...entry(1), metadata: null, refusal: undefined }]),
    );
    const epoch = store.queue.submit(raiseEpoch(topic.topic));
    const answers = await all(
      transact(store, commits(entry(2)), to(topic, "4")),
      transact(store, commits(entry(2)), to(topic, '"repeat"')),
      transact(store, commits(entry(3, { generation: generation - 1 })), to(topic, '"fenced"')),
      transact(store, commits(entry(9)), to(topic, '"beyond"')),
      transact(store, commits(entry(4))),
      transact(store, producer(0, topic.topic), to(topic, '"older epoch"')),
      append(store, topic, recordsOf("5")),
    );
    expect(answers).toEqual([[4], "unavailable", "unavailable", "unavailable", [], "unavailable", [5]]);
    expect(await acks).toEqual([{ committedOffset: 4, code: undefined }]);
    expect(await epoch).toBeGreaterThanOrEqual(1);
    expect(proxy.lost).toBe(1);
    const [row] = await direct.db.read({
      sql: "SELECT committed_offset FROM committed_offsets WHERE group_id = :group",
      args: { group },
    });
    expect(row).toEqual({ committed_offset: 4 });
    expect(await valuesIn(direct.db, topic)).toEqual(["0", "1", "2", "3", "4", "5"]);
  });

  test("512 transactions of one flush have each their offsets, and each repeat has them when it is answered", async () => {
    const topic = await newTopic();
    using side = await behind();
    const { proxy, store } = side;
    const ids = Array.from({ length: 512 }, (_, n) => `${topic.topic}-${n}`);
    const round = (values: string) =>
      all(
        ...ids.map((id, n) =>
          transact(
            store,
            { ...producer(0, id), ...(values === "first" ? ending(topic, n) : {}) },
            to(topic, values === "first" ? `${n}` : '"repeat"'),
          ),
        ),
      );
    proxy.isLost = first(1, APPENDS);
    expect(await round("first")).toEqual(ids.map((_, n) => [n]));
    proxy.isLost = first(1, APPENDS);
    expect(await round("again")).toEqual(ids.map(() => "unavailable"));
    expect(await round("again")).toEqual(ids.map((_, n) => [n, "again"]));
    expect(proxy.lost).toBe(2);
    expect(await valuesIn(direct.db, topic)).toEqual(ids.map((_, n) => `${n}`));
  });

  test("a transaction of several pieces is written once, and its neighbours in the log stand where they are told", async () => {
    const topic = await newTopic();
    using side = await behind();
    const { proxy, store } = side;
    const value = `"${'\\"'.repeat(50_000)}"`;
    const large = to(topic, ...Array.from({ length: 39 }, () => value));
    const id = topic.topic;
    proxy.isLost = (request) =>
      request.includes(APPENDS) && proxy.lost < 5 && proxy.requests.length % 2 === 0;
    const answers = await all(
      append(store, topic, recordsOf("0")),
      transact(store, { ...producer(0, id), ...ending(topic, 1) }, large),
      transact(store, ending(topic, 1), large),
      transact(store, { ...producer(1, id), ...ending(topic, 40) }, to(topic, "1")),
    );
    expect(answers).toEqual([[0], [1], "unavailable", [40]]);
    const values = await valuesIn(direct.db, topic);
    expect([values.length, values.at(0), values.at(-1)]).toEqual([41, "0", "1"]);
  });

  test("every answer is true of the log, and nobody is written twice, whatever shared it", async () => {
    const kind = fc.constantFrom(
      "append",
      "next",
      "again",
      "skip",
      "ends",
      "ended",
      "stale",
      "both",
      "guilty",
    );
    const flush = fc.array(kind, { minLength: 1, maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(flush, { minLength: 1, maxLength: 4 }),
        fc.array(fc.boolean(), { minLength: 1, maxLength: 7 }),
        async (flushes, losses) => {
          const topics = [await newTopic(), await newTopic()] as const;
          const [topic, other] = topics;
          const stale = { ...topic, schemaVersion: 7 };
          using side = await behind(() => append(direct, topic, recordsOf('"other"')));
          const { proxy, store } = side;
          let requests = 0;
          proxy.isLost = (request) => {
            requests += 1;
            const isFlush = request.includes("INSERT INTO flushes");
            return isFlush && (losses[requests % losses.length] ?? false) && requests < 40;
          };
          let written = 0;
          let sequence = 0;
          let number = 0;
          const said: { value: string; offsets: unknown }[] = [];
          for (const kinds of flushes) {
            const answers = kinds.map((one) => {
              number += 1;
              const value = `${number}`;
              const next = producer(sequence, topic.topic);
              if (one === "next") sequence += 1;
              const answer = {
                append: () => append(store, topic, recordsOf(value)),
                next: () => transact(store, next, to(topic, value)),
                again: () => transact(store, producer(sequence - 1, topic.topic), to(topic, value)),
                skip: () => transact(store, producer(sequence + 5, topic.topic), to(topic, value)),
                ends: () => transact(store, ending(topic, written), to(topic, value)),
                ended: () => transact(store, ending(topic, 1_000), to(topic, value)),
                stale: () => append(store, stale, recordsOf(value)),
                both: () => transact(store, {}, to(other, value), to(topic, value)),
                guilty: () => store.queue.submit(GUILTY),
              }[sequence === 0 && one === "again" ? "append" : one]();
              return told(answer).then((offsets) => said.push({ value, offsets }));
            });
            await Promise.all(answers);
            written = (await valuesIn(direct.db, topic)).length;
          }
          const values = await valuesIn(direct.db, topic);
          const others = await valuesIn(direct.db, other);
          const ours = values.filter((value) => value !== '"other"');
          expect(new Set(ours).size).toBe(ours.length);
          for (const { value, offsets } of said) {
            const isWritten = Array.isArray(offsets) && !offsets.includes("again");
            expect({ value, at: isWritten ? offsets.at(-1) : -1 }).toEqual({
              value,
              at: values.indexOf(value),
            });
            if (Array.isArray(offsets) && offsets.length === 2 && isWritten)
              expect(others[Number(offsets[0])]).toBe(value);
          }
          expect(new Set(others).size).toBe(others.length);
          expect(await guardRows()).toEqual([]);
        },
      ),
      { numRuns: isLongRun ? 25 : 6 },
    );
  });
});
