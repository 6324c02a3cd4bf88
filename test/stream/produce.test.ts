import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { TimeIndexCadence } from "../../src/store/time-index.ts";
import { Topics } from "../../src/store/topics.ts";
import { appendTo, findTarget, produce } from "../../src/stream/produce.ts";
import { WakeUps } from "../../src/stream/wake-ups.ts";
import { openQueue, openTestDatabase, stockRows } from "../support/database.ts";
import { FakeTime, fakeChance } from "../support/fake-time.ts";

const database = await openTestDatabase();
const otherDb = await database.openSecond();
afterAll(() => database.close());
beforeEach(() => database.empty());

/** Two servers on one database: what one deletes the other has not heard of. */
function setUp({
  createsOnFirstUse = false,
  random = () => 0,
}: {
  createsOnFirstUse?: boolean;
  random?: () => number;
} = {}) {
  const { db } = database;
  const queue = openQueue(db);
  const deps = {
    topics: new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse }),
    queue,
    wakeUps: new WakeUps({ db, scheduler: new FakeTime(), log: () => {} }),
    timeIndexCadence: new TimeIndexCadence(),
    chance: fakeChance({ random }),
  };
  const elsewhere = new Topics({
    db: otherDb,
    queue: openQueue(otherDb),
    scheduler: new FakeTime(),
    createsOnFirstUse: false,
  });
  return { deps, elsewhere };
}

const one = (record: Readonly<Record<string, unknown>> = {}) =>
  parseJsonProduce(JSON.stringify({ records: [{ value: 1, ...record }] }));

const problemOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "resolved",
    (error: unknown) => error,
  );

const written = () =>
  stockRows(database.path, "SELECT topic, partition, offset FROM topic_records ORDER BY 1, 2, 3");

describe("produce() to a topic that another process has deleted", () => {
  test("is unknown_topic where topics are created by PUT only, and writes nothing", async () => {
    const { deps, elsewhere } = setUp();
    await deps.topics.put("orders", 1);
    await produce(deps, "orders", one());
    await elsewhere.delete("orders");
    for (let attempt = 0; attempt < 2; attempt += 1) {
      const problem = await problemOf(produce(deps, "orders", one()));
      expect(problem).toMatchObject({ code: "unknown_topic", facts: { topic: "orders" } });
    }
    expect(written()).toEqual([]);
  });

  test("creates it again where first use does", async () => {
    const { deps, elsewhere } = setUp({ createsOnFirstUse: true });
    await produce(deps, "orders", one());
    await produce(deps, "orders", one());
    await elsewhere.delete("orders");
    expect(await produce(deps, "orders", one())).toEqual([{ partition: 0, offset: 0, count: 1 }]);
    expect(written()).toEqual([{ topic: "orders", partition: 0, offset: 0 }]);
  });

  test("goes to the one that was created in its place, over all its partitions", async () => {
    const { deps, elsewhere } = setUp({ random: () => 0.9 });
    await deps.topics.put("orders", 1);
    await produce(deps, "orders", one());
    await elsewhere.delete("orders");
    await elsewhere.put("orders", 3);
    expect(await produce(deps, "orders", one())).toEqual([{ partition: 2, offset: 0, count: 1 }]);
    expect(await produce(deps, "orders", one({ partition: 1 }))).toMatchObject([{ partition: 1 }]);
  });

  test("is unknown_partition where the new one is smaller, and writes nothing", async () => {
    const { deps, elsewhere } = setUp();
    await deps.topics.put("orders", 3);
    await produce(deps, "orders", one());
    await elsewhere.delete("orders");
    await elsewhere.put("orders", 2);
    const problem = await problemOf(produce(deps, "orders", one({ partition: 2 })));
    expect(problem).toMatchObject({ code: "unknown_partition", facts: { partition: 2, partitionCount: 2 } });
    expect(written()).toEqual([]);
  });
});

describe("findTarget()", () => {
  test("judges the records' partitions by the topic that is there, else by the one that would be", async () => {
    const { deps } = setUp({ createsOnFirstUse: true });
    await deps.topics.put("orders", 3);
    expect(await findTarget(deps, "orders", one({ partition: 2 }))).toMatchObject({ topic: "orders" });
    for (const topic of ["orders", "new"]) {
      const problem = await problemOf(findTarget(deps, topic, one({ partition: 3 })));
      expect(problem).toMatchObject({ code: "unknown_partition", facts: { record: 0, partition: 3 } });
    }
    expect(await deps.topics.find("new")).toBeUndefined();
  });
});

test("findTarget() says unknown_topic first where no use creates one", async () => {
  const { deps } = setUp();
  const problem = await problemOf(findTarget(deps, "new", one({ partition: 3 })));
  expect(problem).toMatchObject({ code: "unknown_topic" });
});

describe("appendTo()", () => {
  test("has submitted its records when it returns: calls in order are appends in order", async () => {
    const { deps } = setUp();
    await deps.topics.put("orders", 1);
    const records = Array.from({ length: 50 }, (_, value) => one({ value }));
    const topic = await findTarget(deps, "orders", one());
    const runs = await Promise.all(records.map((record) => appendTo(deps, topic, record)));
    expect(runs.map(([run]) => run?.offset)).toEqual(records.map((_, index) => index));
  });
});
