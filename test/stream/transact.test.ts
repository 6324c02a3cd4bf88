import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { type NewRecord, parseJsonProduce } from "../../src/core/produce-request.ts";
import { TimeIndexCadence } from "../../src/store/time-index.ts";
import { Topics } from "../../src/store/topics.ts";
import { RecordSchemas } from "../../src/stream/record-schemas.ts";
import { type TransactDeps, TransactionLane, transact } from "../../src/stream/transact.ts";
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
    db,
    topics: new Topics({ db, queue, scheduler: new FakeTime(), createsOnFirstUse }),
    queue,
    wakeUps: new WakeUps({ db, scheduler: new FakeTime(), log: () => {} }),
    schemas: new RecordSchemas(),
    timeIndexCadence: new TimeIndexCadence(),
    chance: fakeChance({ random }),
    upkeep: { noteAppend: () => {}, noteProducer: () => {}, wake: () => {} },
  };
  const elsewhere = new Topics({
    db: otherDb,
    queue: openQueue(otherDb),
    scheduler: new FakeTime(),
    createsOnFirstUse: false,
  });
  return { deps, elsewhere };
}

const produce = async (deps: TransactDeps, topic: string, records: readonly NewRecord[]) =>
  (await transact(deps, { appends: [{ topic, records }] })).runs;

const one = (record: Readonly<Record<string, unknown>> = {}) =>
  parseJsonProduce(JSON.stringify({ records: [{ value: 1, ...record }] })).records;

const problemOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "resolved",
    (error: unknown) => error,
  );

const written = () =>
  stockRows(database.path, "SELECT topic, partition, offset FROM topic_records ORDER BY 1, 2, 3");

const valuesOf = (topic: string) =>
  stockRows(database.path, `SELECT value FROM topic_records WHERE topic = '${topic}' ORDER BY offset`).map(
    ({ value }) => Number(value),
  );

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
    expect(await produce(deps, "orders", one())).toEqual([
      { topic: "orders", partition: 0, offset: 0, count: 1 },
    ]);
    expect(written()).toEqual([{ topic: "orders", partition: 0, offset: 0 }]);
  });

  test("goes to the one that was created in its place, over all its partitions", async () => {
    const { deps, elsewhere } = setUp({ random: () => 0.9 });
    await deps.topics.put("orders", 1);
    await produce(deps, "orders", one());
    await elsewhere.delete("orders");
    await elsewhere.put("orders", 3);
    expect(await produce(deps, "orders", one())).toEqual([
      { topic: "orders", partition: 2, offset: 0, count: 1 },
    ]);
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

describe("produce()", () => {
  test("judges the records' partitions by the topic that is there, else by the one that would be", async () => {
    const { deps } = setUp({ createsOnFirstUse: true });
    await deps.topics.put("orders", 3);
    expect(await produce(deps, "orders", one({ partition: 2 }))).toMatchObject([{ partition: 2 }]);
    for (const topic of ["orders", "new"]) {
      const problem = await problemOf(produce(deps, topic, one({ partition: 3 })));
      expect(problem).toMatchObject({ code: "unknown_partition", facts: { record: 0, partition: 3 } });
    }
    expect(await deps.topics.find("new")).toBeUndefined();
  });

  test("says unknown_topic first where no use creates one", async () => {
    const { deps } = setUp();
    const problem = await problemOf(produce(deps, "new", one({ partition: 3 })));
    expect(problem).toMatchObject({ code: "unknown_topic" });
  });
});

describe("produce() to a topic whose schema another process has changed", () => {
  const NUMBERS = '{"type":"number"}';
  const TEXTS = '{"type":"string"}';

  test("holds the records against the new one, though it remembers the old", async () => {
    const { deps, elsewhere } = setUp();
    await deps.topics.put("orders", 1);
    await produce(deps, "orders", one({ value: "text" }));
    await elsewhere.put("orders", undefined, { schema: NUMBERS });
    expect(await problemOf(produce(deps, "orders", one({ value: "text" })))).toMatchObject({
      code: "schema_violation",
      facts: { topic: "orders", record: 0, path: "", rule: "/type" },
    });
    expect(await produce(deps, "orders", one({ value: 7 }))).toMatchObject([{ offset: 1 }]);
    await elsewhere.put("orders", undefined, { schema: TEXTS });
    expect(await produce(deps, "orders", one({ value: "text" }))).toMatchObject([{ offset: 2 }]);
    await elsewhere.put("orders", undefined, { schema: null });
    expect(await produce(deps, "orders", one({ value: 7 }))).toMatchObject([{ offset: 3 }]);
  });

  test("never writes what the schema forbids that was set before the write, whatever the order of the steps", async () => {
    const { deps } = setUp();
    await deps.topics.put("orders", 1);
    const put = deps.topics.put("orders", undefined, { schema: NUMBERS });
    const asked = Array.from({ length: 20 }, () =>
      problemOf(produce(deps, "orders", one({ value: "text" }))),
    );
    await put;
    for (const problem of await Promise.all(asked))
      expect(problem).toMatchObject({ code: "schema_violation" });
    expect(stockRows(database.path, "SELECT value FROM topic_records")).toEqual([]);
  });

  test("is checked in a transaction as well, and then written whole", async () => {
    const { deps, elsewhere } = setUp();
    await deps.topics.put("orders", 1);
    await deps.topics.put("payments", 1);
    await produce(deps, "orders", one());
    await produce(deps, "payments", one());
    await elsewhere.put("payments", undefined, { schema: NUMBERS });
    const both = (value: unknown) => ({
      appends: [
        { topic: "orders", append: 0, records: one() },
        { topic: "payments", append: 1, records: one({ value }) },
      ],
    });
    expect(await problemOf(transact(deps, both("text")))).toMatchObject({
      code: "schema_violation",
      facts: { append: 1, record: 0 },
    });
    expect(await transact(deps, both(7))).toMatchObject({ runs: [{ offset: 1 }, { offset: 1 }] });
  });
});

describe("TransactionLane", () => {
  test("writes in the order of the calls, whatever has to be looked up for each", async () => {
    const { deps } = setUp();
    await deps.topics.put("orders", 1);
    const lane = new TransactionLane({ ...deps, topics: setUp().deps.topics });
    const all = Array.from({ length: 50 }, (_, value) => one({ value }));
    const written = await Promise.all(
      all.map((records) => lane.transact({ appends: [{ topic: "orders", records }] })),
    );
    expect(written.map(({ runs }) => runs[0]?.offset)).toEqual(all.map((_, index) => index));
  });

  test("takes all sequences of a burst although another process has made their topic anew", async () => {
    const { deps, elsewhere } = setUp();
    await deps.topics.put("orders", 1);
    await deps.topics.put("audit", 1);
    await deps.topics.find("audit");
    await elsewhere.delete("orders");
    await elsewhere.put("orders", 1);
    const lane = new TransactionLane(deps);
    const topics = ["orders", "audit", "orders", "audit", "audit", "orders"];
    const all = await Promise.allSettled(
      topics.map((topic, sequence) =>
        lane.transact({
          appends: [{ topic, records: one({ value: sequence }) }],
          producer: { id: "p", epoch: 0, sequence },
        }),
      ),
    );
    expect(all.map(({ status }) => status)).toEqual(topics.map(() => "fulfilled"));
    expect(valuesOf("orders")).toEqual([0, 2, 5]);
    expect(valuesOf("audit")).toEqual([1, 3, 4]);
  });

  test("keeps the order of a topic that another process has made anew, however many topics each append has", async () => {
    const { deps, elsewhere } = setUp();
    const names = ["orders", "b", "c", "d"];
    for (const name of names) await deps.topics.put(name, 1);
    await elsewhere.delete("orders");
    await elsewhere.put("orders", 1);
    const lane = new TransactionLane(deps);
    const counts = [4, 1, 3, 1, 2];
    await Promise.all(
      counts.map((count, value) =>
        lane.transact({
          appends: names.slice(0, count).map((topic) => ({ topic, records: one({ value }) })),
        }),
      ),
    );
    expect(valuesOf("orders")).toEqual([0, 1, 2, 3, 4]);
  });

  test("says sequence_gap for what follows a sequence that was refused", async () => {
    const { deps } = setUp();
    await deps.topics.put("orders", 1);
    const lane = new TransactionLane(deps);
    const all = await Promise.allSettled(
      [0, 1, 2].map((sequence) =>
        lane.transact({
          appends: [{ topic: "orders", records: one({ value: sequence }) }],
          producer: { id: "p", epoch: 0, sequence },
          expect: sequence === 0 ? [{ topic: "orders", partition: 0, logEndOffset: 7 }] : undefined,
        }),
      ),
    );
    const codes = all.map((each) => (each.status === "rejected" ? each.reason.code : each.status));
    expect(codes).toEqual(["conflict", "sequence_gap", "sequence_gap"]);
    expect(written()).toEqual([]);
  });
});
