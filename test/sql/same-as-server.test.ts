// What SQL appends is what the server would have made of the same: held against the server's own code, for any input.

import { afterAll, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { partitionOfKey } from "../../src/core/partitioner.ts";
import type { NewRecord } from "../../src/core/produce-request.ts";
import { appendRecords } from "../../src/store/appends.ts";
import type { Topic } from "../../src/store/topic-tables.ts";
import { Topics } from "../../src/store/topics.ts";
import { openQueue, openTestDatabase } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import { jsonText } from "../support/json-text-arbitrary.ts";
import { insertOf, parsedRecord } from "../support/sql-appends.ts";
import { openStockSession, type SqlSession, sqlText } from "../support/sql-session.ts";

setDefaultTimeout(60_000); // where the machine has much else to do

const SEED = 20_250_301;
const database = await openTestDatabase();
const queue = openQueue(database.db);
const topics = new Topics({ db: database.db, queue, scheduler: new FakeTime(), createsOnFirstUse: false });
let session: SqlSession;
beforeAll(() => {
  session = openStockSession(database.path);
});
beforeEach(() => database.empty());
afterAll(async () => {
  await session.end();
  await database.close();
});

async function createTopic(topic: string, partitionCount = 1): Promise<Topic> {
  await topics.put(topic, partitionCount);
  return topics.require(topic);
}

/** The expressions of a record that the server has parsed. */
function columnsOf({ key, value, headers }: NewRecord): Readonly<Record<string, string>> {
  return {
    value: typeof value === "string" ? sqlText(value) : `x'${value.toHex()}'`,
    ...(key !== null && { key: sqlText(key) }),
    ...(headers !== null && { headers: sqlText(headers) }),
  };
}

/** One partition with all that SQL appends, one with all that the server does. */
async function sideBySide(records: readonly NewRecord[]) {
  const [ofServer, ofSql] = [await createTopic("server"), await createTopic("sql")];
  for (const record of records) {
    await queue.submit(appendRecords(ofServer, [{ partition: 0, records: [record] }]));
    await session.run(insertOf("sql", columnsOf(record)));
  }
  const rowsOf = async ({ partitionIds: [id = 0] }: Topic) => ({
    records: await session.run(
      `SELECT offset, timestamp, iif(key IS NULL, NULL, hex(key)) AS key, typeof(value) AS type, hex(value) AS value,
         iif(headers IS NULL, NULL, hex(headers)) AS headers
       FROM records WHERE partition_id = ${id} ORDER BY offset`,
    ),
    counters: await session.run(
      `SELECT log_start_offset, log_end_offset, records, bytes, frame_bytes_max FROM partitions WHERE partition_id = ${id}`,
    ),
    times: await session.run(
      `SELECT offset, max_timestamp FROM time_index WHERE partition_id = ${id} ORDER BY offset`,
    ),
  });
  return { ofServer: await rowsOf(ofServer), ofSql: await rowsOf(ofSql) };
}

// ── partitions ───────────────────────────────────────────────────────────────────────────────────────────

describe("the partition of a record", () => {
  test("is that of its key, as the server has it, for keys of any length in any script", async () => {
    await createTopic("wide", 1_000);
    const text = fc.oneof(fc.string({ unit: "binary", maxLength: 40 }), fc.string({ maxLength: 40 }));
    const keys = fc
      .sample(text, { numRuns: 2_000, seed: SEED })
      .filter((key) => key.isWellFormed() && !key.includes("\0"));
    const lengths = new Set(keys.map((key) => Buffer.byteLength(key) % 4));
    expect([lengths.size, keys.length > 1_500]).toEqual([4, true]);
    keys.push("21", "foobar", "abc", "漢".repeat(10_922));
    for (let from = 0; from < keys.length; from += 500) {
      const rows = keys.slice(from, from + 500).map((key, n) => `('wide', ${sqlText(key)}, ${from + n})`);
      await session.run(`INSERT INTO append_record (topic, key, value) VALUES ${rows}`);
    }
    const found = await session.run("SELECT value, partition FROM topic_records WHERE topic = 'wide'");
    const partitions = new Map(found.map(({ value, partition }) => [Number(value), partition]));
    expect(keys.map((_, n) => partitions.get(n))).toEqual(keys.map((key) => partitionOfKey(key, 1_000)));
  });

  test("goes round where it has neither key nor partition", async () => {
    await createTopic("orders", 3);
    for (let value = 0; value < 7; value += 1) await session.run(insertOf("orders", { value: `${value}` }));
    expect(await session.run("SELECT partition, offset, value FROM topic_records ORDER BY value")).toEqual(
      Array.from({ length: 7 }, (_, n) => ({ partition: n % 3, offset: Math.floor(n / 3), value: `${n}` })),
    );
  });
});

// ── counters and the index of times ──────────────────────────────────────────────────────────────────────

describe("a partition", () => {
  const texts = [
    '{"value":1}',
    '{"value":[ 1,\t2 ],"key":"plain"}',
    '{"value":"é漢🎉","key":"\\"q\\\\\\"é","headers":{ "a":"\\u00e9" }}',
    '{"bytes":"AAEC","headers":{"a":""}}',
    '{"bytes":""}',
    '{"value":null,"key":""}',
  ];

  test.each(texts)(
    "that was given %s has the same row and the same counters, whoever gave it",
    async (text) => {
      const record = parsedRecord(text);
      if (!record) throw new Error(`the server refuses ${text}`);
      const { ofServer, ofSql } = await sideBySide([record, record]);
      expect(ofSql).toEqual(ofServer);
    },
  );

  test("has the same rows and the same counters after any records", async () => {
    const key = fc.string({ unit: "grapheme", maxLength: 12 }).filter((text) => !/\p{Cc}/u.test(text));
    const record = fc.record(
      {
        value: jsonText,
        key: key.map((text) => JSON.stringify(text)),
        headers: fc.dictionary(key, key, { maxKeys: 3 }).map((object) => JSON.stringify(object)),
      },
      { requiredKeys: ["value"] },
    );
    const request = (fields: object) =>
      `{${Object.entries(fields).map(([name, text]) => `"${name}":${text}`)}}`;
    const records = fc
      .sample(record, { numRuns: 300, seed: SEED })
      .flatMap((fields) => parsedRecord(request(fields)) ?? []);
    expect(records.length).toBeGreaterThan(200);
    const { ofServer, ofSql } = await sideBySide(records);
    expect(ofSql).toEqual(ofServer);
  });

  test("is never said to have smaller frames than it has, for keys of control characters", async () => {
    for (const key of ["\u0001", '\n\t\u001f"\\', "a\u0001é".repeat(50)]) {
      await database.empty();
      const { ofServer, ofSql } = await sideBySide([
        parsedRecord(`{"value":1,"key":${JSON.stringify(key)}}`) as NewRecord,
      ]); // it is one
      expect(Number(ofSql.counters[0]?.frame_bytes_max)).toBeGreaterThanOrEqual(
        Number(ofServer.counters[0]?.frame_bytes_max),
      );
      expect(ofSql.records).toEqual(ofServer.records);
    }
  });

  test("has dense offsets and counters that agree with its records when SQL and the server take turns", async () => {
    const topic = await createTopic("orders");
    const record = parsedRecord('{"value":"é","key":"k"}') as NewRecord; // it is one
    for (let round = 1; round <= 10; round += 1) {
      await queue.submit(appendRecords(topic, [{ partition: 0, records: Array(round).fill(record) }]));
      await session.run(`INSERT INTO append_record (topic, value, key) SELECT 'orders', '"é"', 'k'
        FROM json_each('[${Array(round).fill(1)}]')`);
    }
    expect(
      await session.run(`SELECT count(*) AS n, min(offset) AS first, max(offset) AS last,
        sum(length(CAST(key || value AS BLOB))) AS bytes FROM records`),
    ).toEqual([{ n: 110, first: 0, last: 109, bytes: 110 * 5 }]);
    expect(await session.run("SELECT log_end_offset, records, bytes FROM partitions")).toEqual([
      { log_end_offset: 110, records: 110, bytes: 110 * 5 },
    ]);
  });

  test("has the index of times that the server writes, also where the server has left some to do", async () => {
    const topic = await createTopic("orders");
    const [id = 0] = topic.partitionIds;
    const stamped = Array.from({ length: 1_500 }, (_, n) => ({
      ...(parsedRecord('{"value":0}') as NewRecord), // it is one
      timestamp: (n * 7_919) % 10_007,
    }));
    const never = { isDue: () => false, forget: () => {} };
    await queue.submit(appendRecords(topic, [{ partition: 0, records: stamped }], never as never)); // it is asked nothing else
    const more = (count: number) =>
      session.run(
        `INSERT INTO append_record (topic, value) SELECT 'orders', 1 FROM json_each('[${Array(count).fill(1)}]')`,
      );
    const index = () => session.run("SELECT offset, max_timestamp FROM time_index ORDER BY offset");
    await more(499);
    expect(await index()).toEqual([]);
    await more(1);
    const highest = await session.run(`SELECT 1000 * n AS offset, max(timestamp) AS max_timestamp
      FROM (SELECT value AS n FROM json_each('[1,2]')) JOIN records ON offset < 1000 * n
      WHERE partition_id = ${id} GROUP BY n`);
    expect(await index()).toEqual(highest);
    await database.pass(1_000);
    await more(1_000);
    const [latest] = await session.run("SELECT now_ms FROM clock");
    expect(await index()).toEqual([...highest, { offset: 3_000, max_timestamp: latest?.now_ms ?? 0 }]);
  });
});
