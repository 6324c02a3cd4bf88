import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import type { TopicRun } from "../../src/protocol/frames.ts";
import { INTEGER_MAX } from "../../src/protocol/limits.ts";
import { raiseEpoch, readRepeated } from "../../src/store/producers.ts";
import type { Topic } from "../../src/store/topic-tables.ts";
import { Topics } from "../../src/store/topics.ts";
import { openQueue, openTestDatabase, START_MS, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import { type AppendTo, recordsAt, transactionOf } from "../support/transaction-writes.ts";

const IDLE_MAX_MS = 7 * 24 * 60 * 60 * 1_000;

const database = await openTestDatabase();
const { db } = database;
const queue = openQueue(db);
let orders: Topic;
let audit: Topic;
afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  const topics = new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
  await topics.put("orders", 3);
  orders = await topics.require("orders");
  audit = await topics.require("audit");
});

const producerOf = (sequence: number, epoch = 0, id = "p") => ({ id, epoch, sequence });

const one = (): AppendTo => ({ topic: orders, records: recordsAt(0, "1") });

async function write(sequence: number, epoch = 0, append: AppendTo = one()) {
  const conditions = { producer: producerOf(sequence, epoch) };
  const outcome = await queue.submit(transactionOf(queue, conditions, append));
  if (!outcome) throw new Error("no topic has changed");
  return outcome.written;
}

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "written",
    (error: unknown) => error,
  );

const stored = () => database.rows("SELECT * FROM producers ORDER BY producer_id");

const recordsStored = async () => (await database.rows("SELECT count(*) AS n FROM records"))[0]?.n;

/** A hundred records that change their partition again and again, to two topics. */
function interleaved(seed: number): readonly AppendTo[] {
  const records = Array.from({ length: 100 }, (_, n) => recordsAt((n * seed + (n % 3)) % 3, `${n}`)).flat();
  return [{ topic: orders, records }, { topic: audit, records: recordsAt(0, "1", "2") }, one()];
}

describe("the answers of a producer", () => {
  test("of its last 16 sequences are those of the first time to the last run, the 17th is empty", async () => {
    const first: (readonly TopicRun[])[] = [];
    for (let sequence = 0; sequence < 40; sequence += 1) {
      await queue.submit(transactionOf(queue, {}, one())); // others write in between
      const conditions = { producer: producerOf(sequence) };
      const outcome = await queue.submit(transactionOf(queue, conditions, ...interleaved(sequence + 1)));
      first.push(outcome?.written.runs ?? []);
    }
    expect(first[0]?.length).toBeGreaterThan(30);
    const count = await recordsStored();
    for (let sequence = 0; sequence < 40; sequence += 1) {
      const expected = { runs: sequence < 24 ? [] : (first[sequence] ?? []), duplicate: true as const };
      expect(await write(sequence)).toEqual(expected);
      expect(await readRepeated(db, producerOf(sequence))).toEqual(expected);
    }
    expect(await readRepeated(db, producerOf(40))).toBeUndefined();
    expect(await recordsStored()).toBe(count);
    expect(await stored()).toEqual([{ producer_id: "p", epoch: 0, next_sequence: 40, used_at: START_MS }]);
    const answers = await database.rows("SELECT slot, sequence FROM producer_answers ORDER BY slot");
    expect(answers).toHaveLength(16);
    for (const { slot, sequence } of answers) expect(Number(sequence) % 16).toBe(Number(slot));
  });

  test("of an older epoch are never given, not even where the new one has not come so far", async () => {
    for (let sequence = 0; sequence < 20; sequence += 1) await write(sequence, 1);
    for (let sequence = 0; sequence < 3; sequence += 1) await write(sequence, 2);
    for (const sequence of [3, 4, 15, 16, 19]) {
      expect(await readRepeated(db, producerOf(sequence, 2))).toBeUndefined();
      expect(await readRepeated(db, producerOf(sequence, 1))).toBeUndefined();
      const code = sequence === 3 ? "fenced_producer" : "sequence_gap";
      expect(await codeOf(write(sequence, sequence === 3 ? 1 : 2))).toMatchObject({ code });
    }
    expect((await write(1, 2)).runs).toEqual([{ topic: "orders", partition: 0, offset: 21, count: 1 }]);
    for (let sequence = 3; sequence < 18; sequence += 1) await write(sequence, 2);
    expect(await write(1, 2)).toEqual({ runs: [], duplicate: true });
    expect((await write(2, 2)).runs).toMatchObject([{ offset: 22 }]);
  });

  test("of a run that is idle for too long are never given", async () => {
    for (let sequence = 0; sequence < 20; sequence += 1) await write(sequence);
    await database.pass(IDLE_MAX_MS);
    for (let sequence = 0; sequence < 20; sequence += 1)
      expect(await readRepeated(db, producerOf(sequence))).toBeUndefined();
    expect((await write(0)).duplicate).toBeUndefined();
    expect(await readRepeated(db, producerOf(19))).toBeUndefined();
    expect(await codeOf(write(19))).toMatchObject({ code: "sequence_gap", facts: { expected: 1 } });
    expect(await write(0)).toMatchObject({ runs: [{ offset: 20 }], duplicate: true });
  });

  test("of a commit alone has no runs, and is a duplicate", async () => {
    const conditions = {
      producer: producerOf(0),
      expect: [{ topic: "orders", partition: 0, logEndOffset: 0 }],
    };
    const submit = () => queue.submit(transactionOf(queue, conditions));
    expect((await submit())?.written).toEqual({ runs: [] });
    await queue.submit(transactionOf(queue, {}, one()));
    expect((await submit())?.written).toEqual({ runs: [], duplicate: true });
  });
});

describe("a producer", () => {
  test("is known until it has written nothing for 7 days on the database's clock", async () => {
    await write(0);
    await database.pass(IDLE_MAX_MS - 1);
    expect(await write(0)).toMatchObject({ duplicate: true });
    expect(await codeOf(write(2))).toMatchObject({ code: "sequence_gap", facts: { expected: 1 } });
    await database.pass(1); // what is repeated or refused was not written
    expect(await codeOf(write(1))).toMatchObject({ code: "sequence_gap", facts: { expected: 0 } });
    expect(await write(0)).toEqual({ runs: [{ topic: "orders", partition: 0, offset: 1, count: 1 }] });
    await database.pass(IDLE_MAX_MS - 1);
    await write(1);
    await database.pass(IDLE_MAX_MS - 1);
    await write(2);
    const now = START_MS + 3 * IDLE_MAX_MS - 2;
    expect(await stored()).toEqual([{ producer_id: "p", epoch: 0, next_sequence: 3, used_at: now }]);
  });

  test("that is idle for too long may start in any epoch", async () => {
    await write(0, 5);
    expect(await codeOf(write(0, 4))).toMatchObject({
      code: "fenced_producer",
      facts: { producer: "p", found: 4, expected: 5 },
    });
    await database.pass(IDLE_MAX_MS);
    await write(0, 4);
    expect(await stored()).toMatchObject([{ epoch: 4, next_sequence: 1 }]);
  });

  test("starts a newer epoch at 0 and not elsewhere, and fences the older ones", async () => {
    await write(0);
    await write(1);
    expect(await codeOf(write(2, 3))).toMatchObject({
      code: "sequence_gap",
      facts: { found: 2, expected: 0 },
    });
    await write(2); // the epoch was not begun
    await write(0, 3);
    expect(await codeOf(write(3))).toMatchObject({
      code: "fenced_producer",
      facts: { found: 0, expected: 3 },
    });
    expect(await codeOf(write(0))).toMatchObject({ code: "fenced_producer" });
    expect(await recordsStored()).toBe(4);
  });

  test("has no more to do with another than what it has written", async () => {
    const watched = new WatchedDb(db);
    const together = openQueue(watched);
    const ids = Array.from({ length: 300 }, (_, n) => `p-${n}`);
    const round = (sequence: number) =>
      Promise.all(
        ids.map((id) =>
          together.submit(transactionOf(together, { producer: producerOf(sequence, 0, id) }, one())),
        ),
      );
    const rounds = [await round(0), await round(1), await round(1)];
    expect(watched.writes).toHaveLength(3);
    const offsets = rounds.map((all) => all.map((outcome) => outcome?.written.runs[0]?.offset));
    expect(offsets[0]).toEqual(ids.map((_, n) => n));
    expect(offsets[1]).toEqual(ids.map((_, n) => 300 + n));
    expect(offsets[2]).toEqual(offsets[1] ?? []);
    expect(rounds[2]?.every((outcome) => outcome?.written.duplicate)).toBe(true);
    expect(await recordsStored()).toBe(600);
    expect((await stored()).every(({ next_sequence }) => next_sequence === 2)).toBe(true);
    expect(await database.rows("SELECT * FROM guard")).toEqual([]);
  });
});

describe("raiseEpoch()", () => {
  const raise = (id = "p") => queue.submit(raiseEpoch(id));

  test("gives 1 to an id that is unknown, then one more each time, to each id its own", async () => {
    expect([await raise(), await raise(), await raise("q")]).toEqual([1, 2, 1]);
    await database.pass(IDLE_MAX_MS);
    expect(await raise()).toBe(3);
    expect(await stored()).toMatchObject([
      { producer_id: "p", epoch: 3, next_sequence: 0, used_at: START_MS + IDLE_MAX_MS },
      { producer_id: "q", epoch: 1 },
    ]);
  });

  test("fences whoever goes on in an older epoch, and the new one starts at 0 without the old answers", async () => {
    await write(0);
    await write(1);
    const epoch = await raise();
    for (const sequence of [0, 1, 2])
      expect(await codeOf(write(sequence))).toMatchObject({
        code: "fenced_producer",
        facts: { expected: 1 },
      });
    expect(await readRepeated(db, producerOf(0, epoch))).toBeUndefined();
    expect(await codeOf(write(2, epoch))).toMatchObject({ code: "sequence_gap", facts: { expected: 0 } });
    expect(await write(0, epoch)).toEqual({ runs: [{ topic: "orders", partition: 0, offset: 2, count: 1 }] });
  });

  test("in the flush of a write fences what comes behind it, and not what came before", async () => {
    const outcomes = await Promise.allSettled([write(0), raise(), write(1), write(0, 1)]);
    expect(outcomes).toMatchObject([
      { value: { runs: [{ offset: 0 }] } },
      { value: 1 },
      { reason: { code: "fenced_producer" } },
      { value: { runs: [{ offset: 1 }] } },
    ]);
  });

  test("is a conflict above the highest epoch, which goes on", async () => {
    await write(0, INTEGER_MAX);
    expect(await codeOf(raise())).toMatchObject({
      code: "conflict",
      facts: { producer: "p", epoch: INTEGER_MAX },
    });
    await write(1, INTEGER_MAX);
    expect(await stored()).toMatchObject([{ epoch: INTEGER_MAX, next_sequence: 2 }]);
  });
});
