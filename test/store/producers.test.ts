import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import type { ProducerSequence } from "../../src/protocol/frames.ts";
import { INTEGER_MAX, PRODUCER_IDLE_MAX_MS } from "../../src/protocol/limits.ts";
import { raiseEpoch, readRepeated } from "../../src/store/producers.ts";
import { Topics } from "../../src/store/topics.ts";
import { openQueue, openTestDatabase, START_MS, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import { type Placed, problemOf, told, transact } from "../support/transaction-store.ts";

const database = await openTestDatabase();
const db = new WatchedDb(database.db);
const queue = openQueue(db);
let topics: Topics;
afterAll(() => database.close());
beforeEach(async () => {
  await database.empty();
  topics = new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
});

async function topicOf(name = "orders", partitionCount = 1) {
  await topics.put(name, partitionCount);
  return topics.require(name);
}

const sequenceOf = (sequence: number, epoch = 0, id = "p"): ProducerSequence => ({ id, epoch, sequence });

const produce = (producer: ProducerSequence, ...placed: readonly Placed[]) =>
  told(transact(queue, { producer }, ...placed));

const values = async () => (await database.rows("SELECT value FROM records")).map(({ value }) => value);

const stored = () => database.rows("SELECT * FROM producers ORDER BY producer_id");

describe("a producer's next sequence", () => {
  test("is 0 where the id is unknown, and then one more each time, over all topics", async () => {
    const orders = await topicOf("orders");
    const visits = await topicOf("visits");
    expect(await produce(sequenceOf(0), [orders, 0, "1"])).toEqual(["orders/0@0+1"]);
    await database.pass(7);
    expect(await produce(sequenceOf(1), [visits, 0, "1"])).toEqual(["visits/0@0+1"]);
    expect(await produce(sequenceOf(1, 0, "q"), [visits, 0, "2"])).toBe("sequence_gap");
    expect(await produce(sequenceOf(2), [orders, 0, "2"], [visits, 0, "3"])).toEqual([
      "orders/0@1+1",
      "visits/0@1+1",
    ]);
    expect(await stored()).toEqual([{ producer_id: "p", epoch: 0, next_sequence: 3, used_at: START_MS + 7 }]);
  });

  test("is told where another one comes, and nothing is written", async () => {
    const orders = await topicOf();
    const first = await problemOf(transact(queue, { producer: sequenceOf(1) }, [orders, 0, "1"]));
    expect(first).toMatchObject({
      code: "sequence_gap",
      facts: { producer: "p", found: 1, expected: 0 },
    });
    await produce(sequenceOf(0), [orders, 0, "0"]);
    const second = await problemOf(transact(queue, { producer: sequenceOf(2) }, [orders, 0, "2"]));
    expect(second).toMatchObject({ code: "sequence_gap", facts: { found: 2, expected: 1 } });
    expect(await values()).toEqual(["0"]);
    expect(await stored()).toMatchObject([{ next_sequence: 1 }]);
  });

  test("is still the same after anything that was refused", async () => {
    const orders = await topicOf();
    const expectation = [{ topic: "orders", partition: 0, logEndOffset: 9 }];
    const refused = transact(queue, { producer: sequenceOf(0), expect: expectation }, [orders, 0, "1"]);
    expect(await told(refused)).toBe("conflict");
    expect(await stored()).toEqual([]);
    const gone = { ...orders, partitionIds: [99] };
    expect(await produce(sequenceOf(0), [gone, 0, "1"])).toBe("not as known");
    expect(await stored()).toEqual([]);
    expect(await database.rows("SELECT * FROM producer_answers")).toEqual([]);
    expect(await produce(sequenceOf(0), [orders, 0, "2"])).toEqual(["orders/0@0+1"]);
  });

  test("may have no records, with expectations or commits alone", async () => {
    await topicOf();
    const expectation = [{ topic: "orders", partition: 0, logEndOffset: 0 }];
    expect(await told(transact(queue, { producer: sequenceOf(0), expect: expectation }))).toEqual([]);
    expect(await produce(sequenceOf(0))).toEqual(["duplicate"]);
    expect(await produce(sequenceOf(2))).toBe("sequence_gap");
  });

  test("is counted within one flush: of two of the same, the later is the repeat", async () => {
    const orders = await topicOf();
    const before = db.writes.length;
    const outcomes = await Promise.all([
      produce(sequenceOf(0), [orders, 0, "0"]),
      produce(sequenceOf(0), [orders, 0, '"other"']),
      produce(sequenceOf(2), [orders, 0, '"gap"']),
      produce(sequenceOf(1), [orders, 0, "1"]),
      produce(sequenceOf(2), [orders, 0, "2"]),
      produce(sequenceOf(0, 1), [orders, 0, "3"]),
      produce(sequenceOf(3), [orders, 0, '"fenced"']),
    ]);
    expect(db.writes.length).toBe(before + 1);
    expect(outcomes).toEqual([
      ["orders/0@0+1"],
      ["duplicate", "orders/0@0+1"],
      "sequence_gap",
      ["orders/0@1+1"],
      ["orders/0@2+1"],
      ["orders/0@3+1"],
      "fenced_producer",
    ]);
    expect(await values()).toEqual(["0", "1", "2", "3"]);
  });

  test("is each producer's own, with 400 of them in one flush, repeats among them", async () => {
    const orders = await topicOf("orders", 3);
    const before = db.writes.length;
    const all = Array.from({ length: 400 }, (_, index) => index);
    const outcomes = await Promise.all(
      all.map((index) =>
        produce(sequenceOf(0, index % 5, `p${index >> 1}`), [orders, index % 3, String(index)]),
      ),
    );
    expect(db.writes.length).toBe(before + 1);
    const isWritten = outcomes.map((outcome) => Array.isArray(outcome) && outcome[0] !== "duplicate");
    // The second of a pair has the next epoch, and writes; only from 4 to 0 it has an older one.
    expect(isWritten).toEqual(all.map((index) => index % 2 === 0 || index % 5 !== 0));
    expect(await stored()).toHaveLength(200);
    expect((await values()).toSorted()).toEqual(
      all
        .filter((index) => isWritten[index])
        .map(String)
        .toSorted(),
    );
  });
});

describe("a repeated sequence", () => {
  test("of the last 16 is answered as it was, an older one without runs, and none is written again", async () => {
    const orders = await topicOf("orders", 2);
    const first: unknown[] = [];
    for (let sequence = 0; sequence < 40; sequence += 1)
      first.push(await produce(sequenceOf(sequence), [orders, sequence % 2, String(sequence)]));
    for (let sequence = 0; sequence < 40; sequence += 1) {
      const kept = sequence < 24 ? [] : first[sequence];
      expect(await produce(sequenceOf(sequence), [orders, 0, '"again"'])).toEqual([
        "duplicate",
        ...(kept as readonly string[]),
      ]);
    }
    expect(await values()).toHaveLength(40);
    expect(await stored()).toMatchObject([{ next_sequence: 40 }]);
    expect(await database.rows("SELECT count(*) AS n FROM producer_answers")).toEqual([{ n: 16 }]);
  });

  test("has the runs of then, interleaved over many partitions of several topics", async () => {
    const orders = await topicOf("orders", 300);
    const visits = await topicOf("visits", 2);
    await produce(sequenceOf(0, 0, "other"), [orders, 7, "0"], [visits, 1, "0"]);
    const placed = Array.from(
      { length: 900 },
      (_, index): Placed =>
        index % 3 === 0 ? [visits, (index / 3) % 2, "1"] : [orders, (index * 7) % 300, "1"],
    );
    const before = await produce(sequenceOf(0), ...placed);
    await produce(sequenceOf(1), ...placed);
    expect(before).toContain("orders/7@1+1");
    expect(await produce(sequenceOf(0), ...placed)).toEqual(["duplicate", ...before]);
    const answer = await readRepeated(database.db, sequenceOf(0));
    expect(await told(Promise.resolve(answer && { written: answer, appended: [] }))).toEqual([
      "duplicate",
      ...before,
    ]);
  });

  test("is answered although its topics are gone, or are others by now", async () => {
    const orders = await topicOf("orders");
    const visits = await topicOf("visits");
    const placed: readonly Placed[] = [
      [orders, 0, "1"],
      [visits, 0, "2"],
    ];
    const before = await produce(sequenceOf(0), ...placed);
    await topics.delete("orders");
    await topics.delete("visits");
    const after = ["duplicate", ...before];
    expect(await produce(sequenceOf(0), ...placed)).toEqual(after);
    const other = await topicOf("visits", 3);
    expect(await produce(sequenceOf(0), [other, 2, "1"])).toEqual(after);
    expect(await values()).toHaveLength(2); // those of the deleted topics, to be purged
  });

  test("is found before what else it says is judged", async () => {
    const orders = await topicOf();
    const expectation = [{ topic: "orders", partition: 0, logEndOffset: 0 }];
    const again = () =>
      told(transact(queue, { producer: sequenceOf(0), expect: expectation }, [orders, 0, "1"]));
    expect(await again()).toEqual(["orders/0@0+1"]);
    expect(await again()).toEqual(["duplicate", "orders/0@0+1"]);
    const commits = { group: "nobody", offsets: [{ topic: "x", partition: 0, generation: 1, offset: 1 }] };
    expect(await told(transact(queue, { producer: sequenceOf(0), commits }))).toEqual([
      "duplicate",
      "orders/0@0+1",
    ]);
  });

  test("lengthens no life: the id is idle since the last write", async () => {
    const orders = await topicOf();
    await produce(sequenceOf(0), [orders, 0, "1"]);
    await database.pass(10);
    await produce(sequenceOf(0), [orders, 0, "1"]);
    expect(await stored()).toMatchObject([{ used_at: START_MS }]);
  });
});

describe("readRepeated()", () => {
  test("knows nothing of an unknown id, the next sequence, a gap or another epoch", async () => {
    const orders = await topicOf();
    await produce(sequenceOf(0, 3), [orders, 0, "1"]);
    const asked = [
      sequenceOf(0, 3, "q"),
      sequenceOf(1, 3),
      sequenceOf(2, 3),
      sequenceOf(0, 2),
      sequenceOf(0, 4),
    ];
    for (const producer of asked) expect(await readRepeated(db, producer)).toBeUndefined();
    expect(await readRepeated(db, sequenceOf(0, 3))).toMatchObject({ duplicate: true });
  });
});

describe("an epoch", () => {
  test("that is newer starts at 0 and nowhere else, whether it was asked for or not", async () => {
    const orders = await topicOf();
    await produce(sequenceOf(0), [orders, 0, "1"]);
    await produce(sequenceOf(1), [orders, 0, "1"]);
    for (const sequence of [1, 2]) {
      const work = transact(queue, { producer: sequenceOf(sequence, 5) }, [orders, 0, "1"]);
      expect(await problemOf(work)).toMatchObject({
        code: "sequence_gap",
        facts: { found: sequence, expected: 0 },
      });
    }
    expect(await stored()).toMatchObject([{ epoch: 0, next_sequence: 2 }]);
    expect(await produce(sequenceOf(0, 5), [orders, 0, "1"])).toEqual(["orders/0@2+1"]);
    expect(await stored()).toMatchObject([{ epoch: 5, next_sequence: 1 }]);
  });

  test("that is older is fenced, a repeat of what it wrote included", async () => {
    const orders = await topicOf();
    await produce(sequenceOf(0), [orders, 0, "1"]);
    await produce(sequenceOf(0, 2), [orders, 0, "1"]);
    for (const sequence of [0, 1, 7]) {
      const work = transact(queue, { producer: sequenceOf(sequence, 1) }, [orders, 0, "1"]);
      expect(await problemOf(work)).toMatchObject({
        code: "fenced_producer",
        facts: { producer: "p", found: 1, expected: 2 },
      });
    }
    expect(await values()).toHaveLength(2);
  });

  test("never gets the answers of an older one for its own sequences", async () => {
    const orders = await topicOf();
    for (let sequence = 0; sequence < 20; sequence += 1)
      await produce(sequenceOf(sequence), [orders, 0, "1"]);
    expect(await queue.submit(raiseEpoch("p"))).toBe(1);
    for (let sequence = 0; sequence < 20; sequence += 1)
      expect(await readRepeated(db, sequenceOf(sequence, 1))).toBeUndefined();
    expect(await produce(sequenceOf(19, 1), [orders, 0, "1"])).toBe("sequence_gap");
    for (let sequence = 0; sequence < 40; sequence += 1) {
      const written = [`orders/0@${20 + sequence}+1`];
      expect(await produce(sequenceOf(sequence, 1), [orders, 0, "1"])).toEqual(written);
      expect(await produce(sequenceOf(sequence, 1), [orders, 0, "1"])).toEqual(["duplicate", ...written]);
      if (sequence >= 16)
        expect(await produce(sequenceOf(sequence - 16, 1), [orders, 0, "1"])).toEqual(["duplicate"]);
      expect(await produce(sequenceOf(sequence + 2, 1), [orders, 0, "1"])).toBe("sequence_gap");
    }
  });
});

describe("a producer that is idle", () => {
  test("is known until 7 days are over on the database's clock, and unknown from then on", async () => {
    const orders = await topicOf();
    await produce(sequenceOf(0, 4), [orders, 0, "1"]);
    await produce(sequenceOf(1, 4), [orders, 0, "1"]);
    await database.pass(PRODUCER_IDLE_MAX_MS - 1);
    expect(await produce(sequenceOf(1, 4), [orders, 0, "1"])).toEqual(["duplicate", "orders/0@1+1"]);
    expect(await produce(sequenceOf(0, 3), [orders, 0, "1"])).toBe("fenced_producer");
    await database.pass(1);
    expect(await readRepeated(db, sequenceOf(1, 4))).toBeUndefined();
    const work = transact(queue, { producer: sequenceOf(1, 4) }, [orders, 0, "1"]);
    expect(await problemOf(work)).toMatchObject({ code: "sequence_gap", facts: { expected: 0 } });
    expect(await produce(sequenceOf(0, 3), [orders, 0, "1"])).toEqual(["orders/0@2+1"]);
    expect(await stored()).toMatchObject([{ epoch: 3, next_sequence: 1 }]);
    expect(await produce(sequenceOf(1, 3), [orders, 0, "1"])).toEqual(["orders/0@3+1"]);
    expect(await produce(sequenceOf(0, 3), [orders, 0, "1"])).toEqual(["duplicate", "orders/0@2+1"]);
  });
});

describe("raiseEpoch()", () => {
  const raise = (id = "p") => queue.submit(raiseEpoch(id));

  test("gives 1 first, then one more each time, and starts the sequences again", async () => {
    const orders = await topicOf();
    expect(await raise()).toBe(1);
    expect(await produce(sequenceOf(0), [orders, 0, "1"])).toBe("fenced_producer");
    expect(await produce(sequenceOf(0, 1), [orders, 0, "1"])).toEqual(["orders/0@0+1"]);
    expect(await raise()).toBe(2);
    expect(await stored()).toMatchObject([{ epoch: 2, next_sequence: 0 }]);
    expect(await raise("q")).toBe(1);
    expect(await produce(sequenceOf(1, 1), [orders, 0, "1"])).toBe("fenced_producer");
    expect(await produce(sequenceOf(1, 2), [orders, 0, "1"])).toBe("sequence_gap");
    expect(await produce(sequenceOf(0, 2), [orders, 0, "1"])).toEqual(["orders/0@1+1"]);
  });

  test("goes on from an epoch that a client took without asking, and counts as use", async () => {
    const orders = await topicOf();
    await produce(sequenceOf(0, 41), [orders, 0, "1"]);
    await database.pass(PRODUCER_IDLE_MAX_MS - 1);
    expect(await raise()).toBe(42);
    await database.pass(PRODUCER_IDLE_MAX_MS - 1);
    expect(await produce(sequenceOf(1, 41), [orders, 0, "1"])).toBe("fenced_producer");
  });

  test("is a conflict at the highest there is, and changes nothing", async () => {
    const orders = await topicOf();
    await produce(sequenceOf(0, INTEGER_MAX - 1), [orders, 0, "1"]);
    expect(await raise()).toBe(INTEGER_MAX);
    expect(await produce(sequenceOf(0, INTEGER_MAX), [orders, 0, "1"])).toEqual(["orders/0@1+1"]);
    const before = await stored();
    expect(await problemOf(raise())).toMatchObject({
      code: "conflict",
      facts: { producer: "p", epoch: INTEGER_MAX },
    });
    expect(await stored()).toEqual(before);
    expect(await produce(sequenceOf(1, INTEGER_MAX), [orders, 0, "1"])).toEqual(["orders/0@2+1"]);
  });
});
