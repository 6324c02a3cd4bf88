import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { commitFromOutside } from "../../src/store/group-changes.ts";
import { deleteTopic } from "../../src/store/topic-deletion.ts";
import { Topics } from "../../src/store/topics.ts";
import { openQueue, openTestDatabase, stockRows } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";

const database = await openTestDatabase();
const queue = openQueue(database.db);
const topics = () =>
  new Topics({ db: database.db, queue, scheduler: new FakeTime(), createsOnFirstUse: true });
afterAll(() => database.close());
beforeEach(() => database.empty());

async function append(name: string, partition: number, count: number) {
  const topic = await topics().require(name);
  const text = JSON.stringify({ records: Array.from({ length: count }, () => ({ value: 1 })) });
  return queue.submit(appendRecords(topic, [{ partition, records: parseJsonProduce(text).records }]));
}

/** A live member that owns every partition of these topics, with a reset that has given each an offset. */
async function join(group: string, ...topicNames: string[]): Promise<void> {
  const args = { group, names: JSON.stringify(topicNames) };
  const partitions = `
    FROM topics AS t JOIN partitions AS p ON p.topic_id = t.topic_id
    WHERE t.topic IN (SELECT value FROM json_each(:names))`;
  await database.db.write(
    [
      "UPDATE sequence SET last = last + 1 WHERE length(:names) > 0 AND length(:group) > 0",
      "INSERT INTO groups SELECT :group, last, 0 FROM sequence WHERE length(:names) > 0",
      "INSERT INTO members SELECT :group, 'm', NULL, last, :names, 10000, 0, 9e15, '{}', NULL, 0 FROM sequence",
      `INSERT INTO group_topics SELECT DISTINCT :group, t.topic, t.topic_id, t.partition_count ${partitions}`,
      `INSERT INTO assignments SELECT :group, p.partition_id, 'm', 1, NULL, NULL ${partitions}`,
      `INSERT INTO committed_offsets SELECT :group, p.partition_id, 0, NULL, 0 ${partitions}`,
      `INSERT INTO offset_history SELECT NULL, :group, t.topic, p.partition, NULL, 0, 'c', 'a', 0 ${partitions}`,
    ].map((sql) => ({ sql, args })),
  );
}

const commit = (group: string, topic: string, offset: number) =>
  queue.submit(commitFromOutside({ op: queue.nextOp(), group, offsets: [{ topic, partition: 0, offset }] }));

const table = (name: string) => stockRows(database.path, `SELECT * FROM ${name} ORDER BY 1`);

const TABLES = [
  "topics",
  "groups",
  "group_topics",
  "members",
  "assignments",
  "committed_offsets",
  "sequence",
];

const dump = () => TABLES.map((name) => [name, stockRows(database.path, `SELECT * FROM ${name}`)]);

/** Topics "orders" (partitions 1 to 3, with records in 1 and 3) and "payments" (4), each with groups. */
async function setUp() {
  await topics().put("orders", 3);
  await topics().put("payments", 1);
  await append("orders", 0, 10);
  await append("orders", 2, 5);
  await append("payments", 0, 4);
  await join("both", "orders", "payments");
  await commit("outside", "orders", 3);
  await join("elsewhere", "payments");
}

describe("deleteTopic()", () => {
  test("takes all that the topic has out of sight, and nothing of any other", async () => {
    await setUp();
    const others = {
      partitions: table("partitions").filter(({ topic_id }) => topic_id === 2),
      lag: stockRows(database.path, "SELECT * FROM consumer_lag WHERE topic = 'payments' ORDER BY group_id"),
      records: stockRows(database.path, "SELECT * FROM topic_records WHERE topic = 'payments'"),
    };
    expect(await queue.submit(deleteTopic("orders"))).toEqual([1, 2, 3]);
    expect(table("topics")).toMatchObject([{ topic: "payments" }]);
    expect(table("partitions")).toEqual(others.partitions);
    expect(table("assignments").map(({ partition_id }) => partition_id)).toEqual([4, 4]);
    expect(table("committed_offsets").map(({ partition_id }) => partition_id)).toEqual([4, 4]);
    expect(stockRows(database.path, "SELECT * FROM consumer_lag ORDER BY group_id")).toEqual(others.lag);
    expect(stockRows(database.path, "SELECT * FROM topic_records")).toEqual(others.records);
    expect(stockRows(database.path, "SELECT DISTINCT topic FROM partition_stats")).toEqual([
      { topic: "payments" },
    ]);
  });

  test("leaves what groups have seen and what was done to them, and members alive", async () => {
    await setUp();
    const left = ["group_topics", "offset_history", "members"].map(table);
    expect(table("offset_history").some(({ topic }) => topic === "orders")).toBe(true);
    await queue.submit(deleteTopic("orders"));
    expect(["group_topics", "offset_history", "members"].map(table)).toEqual(left);
  });

  test("notes the partitions that have held records", async () => {
    await setUp();
    await queue.submit(deleteTopic("orders"));
    expect(table("purges")).toEqual([{ partition_id: 1 }, { partition_id: 3 }]);
    expect(stockRows(database.path, "SELECT count(*) AS n FROM records")).toEqual([{ n: 19 }]);
  });

  test("gives a new version to the groups that have to do with it, and to no other", async () => {
    await setUp();
    await database.run(
      "INSERT INTO groups VALUES ('only-owns', 1, 0), ('only-committed', 1, 0), ('only-saw', 1, 0)",
    );
    await database.run("INSERT INTO assignments VALUES ('only-owns', 2, 'm', 1, NULL, NULL)");
    await database.run("INSERT INTO committed_offsets VALUES ('only-committed', 1, 2, NULL, 0)");
    await database.run("INSERT INTO group_topics VALUES ('only-saw', 'orders', 1, 3)");
    const before = new Map(table("groups").map(({ group_id, version }) => [group_id, Number(version)]));
    const last = Number(table("sequence")[0]?.last);
    await queue.submit(deleteTopic("orders"));
    const after = table("groups");
    const changed = after.filter(({ group_id, version }) => version !== before.get(group_id));
    expect(changed.map(({ group_id }) => group_id).sort()).toEqual([
      "both",
      "only-committed",
      "only-owns",
      "only-saw",
      "outside",
    ]);
    for (const { version } of changed) expect(Number(version)).toBeGreaterThan(last);
    const lastNow = Number(stockRows(database.path, "SELECT last FROM sequence")[0]?.last);
    expect(lastNow).toBeGreaterThanOrEqual(Math.max(...after.map(({ version }) => Number(version))));
  });

  test("of a topic that is not there does nothing, whatever groups have seen of that name", async () => {
    await setUp();
    await queue.submit(deleteTopic("orders"));
    const before = dump();
    for (const topic of ["orders", "never", "Payments"])
      expect(await queue.submit(deleteTopic(topic))).toBeUndefined();
    expect(dump()).toEqual(before);
  });

  test("twice at once deletes it once", async () => {
    await setUp();
    const both = [queue.submit(deleteTopic("orders")), queue.submit(deleteTopic("orders"))];
    expect(await Promise.all(both)).toEqual([[1, 2, 3], undefined]);
  });

  test("lets no append in behind it, and spoils no neighbour in the flush", async () => {
    await setUp();
    const known = await topics().require("orders");
    const records = parseJsonProduce('{"records":[{"value":1}]}').records;
    const [before, deleted, after, payment] = await Promise.all([
      queue.submit(appendRecords(known, [{ partition: 1, records }])),
      queue.submit(deleteTopic("orders")),
      queue.submit(appendRecords(known, [{ partition: 1, records }])),
      append("payments", 0, 1),
    ]);
    expect(before).toMatchObject([{ partitionId: 2, offset: 0 }]);
    expect(deleted).toEqual([1, 2, 3]);
    expect(after).toBeUndefined();
    expect(payment).toMatchObject([{ offset: 4 }]);
    expect(table("purges")).toHaveLength(3);
  });
});

describe("a topic created anew", () => {
  test("is another one: its id, its partitions, its offsets from 0", async () => {
    await setUp();
    await queue.submit(deleteTopic("orders"));
    const created = await topics().put("orders", 1);
    expect(created.topicId).toBeGreaterThan(2);
    expect(created.partitions).toEqual([
      { partition: 0, logStartOffset: 0, logEndOffset: 0, records: 0, bytes: 0 },
    ]);
    expect(await append("orders", 0, 2)).toMatchObject([{ partitionId: 5, offset: 0, logEndOffset: 2 }]);
    expect(stockRows(database.path, "SELECT offset FROM topic_records WHERE topic = 'orders'")).toHaveLength(
      2,
    );
  });
});
