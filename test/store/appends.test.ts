import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { NewRecord } from "../../src/core/produce-request.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { type Db, DbError, numberColumn } from "../../src/store/db.ts";
import type { Operation } from "../../src/store/operations.ts";
import { readLogEnds } from "../../src/store/records.ts";
import { TimeIndexCadence } from "../../src/store/time-index.ts";
import type { Topic } from "../../src/store/topic-tables.ts";
import {
  openQueue,
  openTestDatabase,
  START_MS,
  statementsOf,
  stockRows,
  traceOf,
  WatchedDb,
} from "../support/database.ts";
import { jsonText } from "../support/json-text-arbitrary.ts";
import { bytesMember, openLogStore, records, values } from "../support/log-store.ts";

const database = await openTestDatabase();
const { queue, createTopic, append, appendTo } = openLogStore(database);
afterAll(() => database.close());
beforeEach(() => database.empty());

const offsetsOf = (partitionId: number) =>
  database
    .rows("SELECT offset FROM records WHERE partition_id = :id ORDER BY offset", { id: partitionId })
    .then((rows) => rows.map(({ offset }) => offset));

const dump = () => ({
  records: stockRows(database.path, "SELECT * FROM records ORDER BY partition_id, offset"),
  partitions: stockRows(database.path, "SELECT * FROM partitions ORDER BY partition_id"),
});

describe("appendRecords()", () => {
  test("gives consecutive offsets from 0, over batches of any size", async () => {
    const topic = await createTopic();
    const ends = [];
    for (const count of [3, 1, 2]) {
      const appended = await appendTo(topic, values(...Array.from({ length: count }, () => "0")));
      ends.push(appended);
    }
    expect(ends).toEqual([
      [{ topic: "orders", partition: 0, partitionId: 1, offset: 0, logEndOffset: 3 }],
      [{ topic: "orders", partition: 0, partitionId: 1, offset: 3, logEndOffset: 4 }],
      [{ topic: "orders", partition: 0, partitionId: 1, offset: 4, logEndOffset: 6 }],
    ]);
    expect(await offsetsOf(1)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test("numbers each partition of a batch on its own", async () => {
    const topic = await createTopic(3);
    await appendTo(topic, values("0", "0"), 2);
    const appended = await append(
      topic,
      { partition: 2, records: values("1") },
      { partition: 0, records: values("2", "3") },
    );
    expect(appended).toEqual([
      { topic: "orders", partition: 2, partitionId: 3, offset: 2, logEndOffset: 3 },
      { topic: "orders", partition: 0, partitionId: 1, offset: 0, logEndOffset: 2 },
    ]);
    expect(await offsetsOf(2)).toEqual([]);
  });

  test("of one flush follow one another, and so do those of two servers", async () => {
    const topic = await createTopic();
    const otherQueue = openQueue(await database.openSecond());
    const appended = [];
    for (let round = 0; round < 5; round += 1) {
      appended.push(
        ...(await Promise.all([appendTo(topic, values("1", "2")), appendTo(topic, values("3"))])),
      );
      appended.push(await otherQueue.submit(appendRecords(topic, [{ partition: 0, records: values("4") }])));
    }
    const ranges = appended.map((result) => [result?.[0]?.offset, result?.[0]?.logEndOffset]);
    expect(ranges.flat()).toEqual([0, ...ranges.slice(0, -1).flatMap(([, end]) => [end, end]), 20]);
    expect(await offsetsOf(1)).toEqual(Array.from({ length: 20 }, (_, offset) => offset));
  });

  test("never gives an offset again, whatever has been deleted", async () => {
    const topic = await createTopic();
    await appendTo(topic, values("0", "1", "2"));
    await database.run("DELETE FROM records");
    expect(await appendTo(topic, values("3"))).toMatchObject([{ offset: 3, logEndOffset: 4 }]);
  });

  test("counts records, bytes and the largest record of each partition", async () => {
    const topic = await createTopic(2);
    const small = records('{"key":"ü","headers":{"a":"1"},"value":[1, 2]}');
    const large = records(`{"value":"${"x".repeat(1_000)}"}`);
    await append(topic, { partition: 0, records: [...small, ...large] }, { partition: 1, records: small });
    await appendTo(topic, small);
    const smallBytes = 2 + '{"a":"1"}'.length + "[1, 2]".length;
    expect(small[0]?.bytes).toBe(smallBytes);
    expect(dump().partitions).toMatchObject([
      {
        log_start_offset: 0,
        log_end_offset: 3,
        records: 3,
        bytes: 2 * smallBytes + 1_002,
        frame_bytes_max: large[0]?.frameBytesMax,
      },
      { log_end_offset: 1, records: 1, bytes: smallBytes, frame_bytes_max: small[0]?.frameBytesMax },
    ]);
  });

  test("keeps a producer's timestamp and gives the database's time where there is none", async () => {
    const topic = await createTopic();
    await appendTo(
      topic,
      records('{"value":1,"timestamp":0}', '{"value":2}', '{"value":3,"timestamp":9007199254740991}'),
    );
    await database.pass(5);
    await appendTo(topic, values("4", "5"));
    const stored = await database.rows(
      "SELECT timestamp, typeof(timestamp) AS type FROM records ORDER BY offset",
    );
    expect(stored).toEqual(
      [0, START_MS, Number.MAX_SAFE_INTEGER, START_MS + 5, START_MS + 5].map((timestamp) => ({
        timestamp,
        type: "integer",
      })),
    );
  });

  test("stores key, value and headers as text, and NULL for what is not there", async () => {
    const topic = await createTopic();
    await appendTo(
      topic,
      records(
        '{"key":"k","headers":{"h":"1"},"value":7}',
        '{"value":null}',
        '{"key":"","value":"x","headers":{}}',
      ),
    );
    expect(
      await database.rows("SELECT key, value, headers, typeof(value) AS type FROM records ORDER BY offset"),
    ).toEqual([
      { key: "k", value: "7", headers: '{"h":"1"}', type: "text" },
      { key: null, value: "null", headers: null, type: "text" },
      { key: "", value: '"x"', headers: null, type: "text" },
    ]);
  });

  test("stores bytes as a BLOB, among values that stay text", async () => {
    const topic = await createTopic();
    const all = Uint8Array.from({ length: 256 }, (_, byte) => byte);
    await appendTo(
      topic,
      records(
        `{"key":"k","headers":{"h":"1"},"timestamp":7,${bytesMember(all)}}`,
        '{"value":null}',
        '{"bytes":""}',
        '{"value":""}',
      ),
    );
    const sql = `SELECT key, timestamp, headers, hex(value) AS hex, typeof(value) AS type FROM records ORDER BY offset`;
    const plain = { key: null, timestamp: START_MS, headers: null };
    expect(await database.rows(sql)).toEqual([
      { key: "k", timestamp: 7, headers: '{"h":"1"}', hex: all.toHex().toUpperCase(), type: "blob" },
      { ...plain, hex: "6E756C6C", type: "text" },
      { ...plain, hex: "", type: "blob" },
      { ...plain, hex: "2222", type: "text" },
    ]);
    expect(dump().partitions).toMatchObject([{ records: 4, bytes: 1 + 9 + 256 + 4 + 0 + 2 }]);
  });

  test("asks for hex only where a batch has bytes", async () => {
    const topic = await createTopic();
    const sqlOf = (list: readonly NewRecord[]) =>
      statementsOf(appendRecords(topic, [{ partition: 0, records: list }]))[0]?.sql;
    expect(sqlOf(values("1", "2"))).not.toContain("unhex");
    expect(sqlOf(records('{"value":1}', '{"bytes":"AA=="}'))).toContain("unhex");
  });

  test("settles to undefined and writes nothing where the topic is gone", async () => {
    const topic = await createTopic(2);
    await database.db.write([{ sql: "DELETE FROM partitions" }, { sql: "DELETE FROM topics" }]);
    const appended = await append(
      topic,
      { partition: 0, records: values("1") },
      { partition: 1, records: values("2") },
    );
    expect(appended).toBeUndefined();
    expect(dump()).toEqual({ records: [], partitions: [] });
  });

  test("does not write to a topic of the same name that was created anew", async () => {
    const old = await createTopic();
    await database.db.write([{ sql: "DELETE FROM partitions" }, { sql: "DELETE FROM topics" }]);
    await createTopic();
    expect(await appendTo(old, values("1"))).toBeUndefined();
    expect(dump()).toMatchObject({ records: [], partitions: [{ partition_id: 2, log_end_offset: 0 }] });
  });

  test("writes all partitions or none, and leaves its neighbours in the flush alone", async () => {
    const topic = await createTopic(2);
    // A stray row where partition 1 will write: the database refuses the second half of the batch.
    await database.run(
      "INSERT INTO records (partition_id, offset, timestamp, value) VALUES (2, 0, 0, 'stray')",
    );
    const before = dump();
    const [neighbour, refused, another] = await Promise.allSettled([
      appendTo(topic, values('"before"')),
      append(topic, { partition: 0, records: values("1") }, { partition: 1, records: values("2") }),
      appendTo(topic, values('"after"')),
    ]);
    expect(refused).toMatchObject({ status: "rejected", reason: { code: "internal" } });
    expect(neighbour).toMatchObject({ status: "fulfilled", value: [{ offset: 0 }] });
    expect(another).toMatchObject({ status: "fulfilled", value: [{ offset: 1 }] });
    const after = dump();
    expect(after.records.map(({ value }) => value)).toEqual(['"before"', '"after"', "stray"]);
    expect(after.partitions[1]).toEqual(before.partitions[1]);
    expect(after.partitions[0]).toMatchObject({ log_end_offset: 2, records: 2 });
  });

  test("refuses a partition that the topic does not have before anything is written", async () => {
    const topic = await createTopic(2);
    expect(() => appendRecords(topic, [{ partition: 2, records: values("1") }])).toThrow(
      "topic orders has no partition 2",
    );
    expect(dump().records).toEqual([]);
  });
});

describe("appendRecords() of more than a remote database takes at once", () => {
  /** What sqld refuses: note 14 of the stack. */
  const ARGUMENT_BYTES_MAX = 4_100_000;
  const filled = (count: number, valueBytes: number, fill = "x") =>
    values(...Array.from({ length: count }, () => JSON.stringify(fill.repeat(valueBytes))));

  const rowsOf = (operation: ReturnType<typeof appendRecords>) =>
    statementsOf(operation).flatMap(({ args }) => (typeof args?.rows === "string" ? [args.rows] : []));
  const longest = (texts: readonly string[]) => Math.max(...texts.map((text) => Buffer.byteLength(text)));

  test("is written in pieces, each as large as may be", async () => {
    const topic = await createTopic();
    const list = filled(100, 39_990);
    const pieces = rowsOf(appendRecords(topic, [{ partition: 0, records: list }]));
    expect(pieces).toHaveLength(3); // at 4,000,000 bytes by estimate, half of that by what it is here
    expect(pieces.flatMap((text) => JSON.parse(text))).toHaveLength(100);
    expect(longest(pieces)).toBeLessThan(ARGUMENT_BYTES_MAX);
  });

  test.each([
    { more: 0, pieces: 1 },
    { more: 1, pieces: 2 },
  ])(
    "is in $pieces where $more bytes more than 4,000,000 by estimate are asked for",
    async ({ more, pieces }) => {
      const topic = await createTopic();
      // Each of two records counts 32 bytes and twice what it has: two quotes, and so many letters.
      const letters = 4_000_000 / 4 - 32 / 2 - 2;
      const list = [...filled(1, letters), ...filled(1, letters + more)];
      expect(rowsOf(appendRecords(topic, [{ partition: 0, records: list }]))).toHaveLength(pieces);
      expect(await appendTo(topic, list)).toMatchObject([{ offset: 0, logEndOffset: 2 }]);
    },
  );

  test("has dense offsets, right counters and every record in its place, beside its neighbours", async () => {
    const topic = await createTopic(2);
    const large = values(
      ...Array.from({ length: 400 }, (_, index) => JSON.stringify(`${index}:${"x".repeat(9_000 + index)}`)),
    );
    const small = values("1", "2");
    const outcomes = await Promise.all([
      appendTo(topic, small),
      append(topic, { partition: 1, records: small }, { partition: 0, records: large }),
      appendTo(topic, small),
    ]);
    expect(outcomes).toEqual([
      [{ topic: "orders", partition: 0, partitionId: 1, offset: 0, logEndOffset: 2 }],
      [
        { topic: "orders", partition: 1, partitionId: 2, offset: 0, logEndOffset: 2 },
        { topic: "orders", partition: 0, partitionId: 1, offset: 2, logEndOffset: 402 },
      ],
      [{ topic: "orders", partition: 0, partitionId: 1, offset: 402, logEndOffset: 404 }],
    ]);
    const all = [...small, ...large, ...small];
    const stored = await database.rows(
      "SELECT offset, value FROM records WHERE partition_id = 1 ORDER BY offset",
    );
    expect(stored).toEqual(all.map(({ value }, offset) => ({ offset, value })));
    const sum = all.reduce((bytes, record) => bytes + record.bytes, 0);
    const frameBytesMax = Math.max(...large.map((record) => record.frameBytesMax));
    expect(dump().partitions[0]).toMatchObject({
      log_end_offset: 404,
      records: 404,
      bytes: sum,
      frame_bytes_max: frameBytesMax,
    });
  });

  test("in several partitions gives each its own offsets", async () => {
    const topic = await createTopic(3);
    await appendTo(topic, values("1"), 2);
    const [first, second] = [filled(30, 65_000), filled(31, 64_000)];
    const appends = [
      { partition: 2, records: first },
      { partition: 0, records: values("1") },
      { partition: 1, records: second },
    ];
    expect(rowsOf(appendRecords(topic, appends)).length).toBeGreaterThanOrEqual(3);
    expect(await append(topic, ...appends)).toEqual([
      { topic: "orders", partition: 2, partitionId: 3, offset: 1, logEndOffset: 31 },
      { topic: "orders", partition: 0, partitionId: 1, offset: 0, logEndOffset: 1 },
      { topic: "orders", partition: 1, partitionId: 2, offset: 0, logEndOffset: 31 },
    ]);
    for (const [partitionId, count] of [
      [1, 1],
      [2, 31],
      [3, 31],
    ] as const)
      expect(await offsetsOf(partitionId)).toEqual(Array.from({ length: count }, (_, offset) => offset));
  });

  test("settles to undefined and writes nothing where the topic is gone, and spoils no neighbour", async () => {
    const topic = await createTopic(2);
    const other = await createTopic(1, "other");
    await database.db.write([
      { sql: "DELETE FROM partitions WHERE topic_id = 1" },
      { sql: "DELETE FROM topics WHERE topic_id = 1" },
    ]);
    const large = filled(100, 39_000);
    const outcomes = await Promise.all([
      appendTo(other, values("1")),
      append(topic, { partition: 0, records: large }, { partition: 1, records: large }),
      appendTo(other, values("2")),
    ]);
    expect(outcomes).toMatchObject([[{ offset: 0 }], {}, [{ offset: 1 }]].with(1, undefined as never));
    expect(dump().records).toHaveLength(2);
  });

  test("leaves an index of times for all of it", async () => {
    const topic = await createTopic();
    await appendTo(topic, filled(2_500, 1_500));
    expect(await database.rows("SELECT offset FROM time_index ORDER BY offset")).toEqual([
      { offset: 1_000 },
      { offset: 2_000 },
    ]);
  });

  const widest: readonly [title: string, list: () => readonly NewRecord[]][] = [
    ["values full of quotes", () => filled(95, 10_000, '"')],
    ["values full of backslashes", () => filled(95, 10_000, "\\")],
    [
      "values full of white space",
      () => values(...Array.from({ length: 95 }, () => `[${"\n\t".repeat(20_000)}]`)),
    ],
    ["bytes", () => records(...Array.from({ length: 95 }, () => `{${bytesMember(new Uint8Array(40_000))}}`))],
    [
      "headers full of quotes",
      () =>
        records(...Array.from({ length: 200 }, () => `{"value":1,"headers":{"a":"${'\\"'.repeat(7_000)}"}}`)),
    ],
    [
      "keys full of control characters",
      () => records(...Array.from({ length: 110 }, () => `{"key":"${"\\u0001".repeat(32_000)}","value":1}`)),
    ],
    [
      "keys full of wide characters",
      () => records(...Array.from({ length: 110 }, () => `{"key":"${"😀".repeat(8_000)}","value":1}`)),
    ],
    ["as many small records as a batch may have", () => filled(10_000, 380)],
  ];
  for (const [title, list] of widest)
    test(`of ${title} hands over no argument that is too long`, async () => {
      const topic = await createTopic();
      const all = list();
      expect(longest(rowsOf(appendRecords(topic, [{ partition: 0, records: all }])))).toBeLessThan(
        ARGUMENT_BYTES_MAX,
      );
      expect(await appendTo(topic, all)).toMatchObject([{ logEndOffset: all.length }]);
    });
});

describe("appendRecords() whose answer is lost", () => {
  const settled = (
    operation: ReturnType<typeof appendRecords>,
    logEnds: readonly (readonly [number, number])[],
  ) => operation.settle(new Map(logEnds));

  test("says what it appends to each partition, and settles by the log ends after it", async () => {
    const topic = await createTopic(3);
    const operation = appendRecords(topic, [
      { partition: 2, records: values("1", "2", "3") },
      { partition: 0, records: values("4") },
    ]);
    expect(operation.appends).toMatchObject([
      { partitionId: 3, schemaVersion: 0, count: 3 },
      { partitionId: 1, schemaVersion: 0, count: 1 },
    ]);
    expect(
      settled(operation, [
        [1, 10],
        [2, 7],
        [3, 20],
      ]),
    ).toEqual([
      { topic: "orders", partition: 2, partitionId: 3, offset: 17, logEndOffset: 20 },
      { topic: "orders", partition: 0, partitionId: 1, offset: 9, logEndOffset: 10 },
    ]);
    expect(await queue.submit(operation)).toEqual(
      settled(operation, [
        [1, 1],
        [3, 3],
      ]),
    );
  });

  test("settles to undefined where a partition is gone", async () => {
    const topic = await createTopic(2);
    const operation = appendRecords(topic, [
      { partition: 0, records: values("1") },
      { partition: 1, records: values("2") },
    ]);
    expect(settled(operation, [[1, 1]])).toBeUndefined();
    expect(settled(operation, [])).toBeUndefined();
  });

  test("settles as its rows would have, several in a flush, in pieces or not, another's topic gone", async () => {
    const topic = await createTopic(2);
    const gone = await createTopic(1, "gone");
    await database.db.write([
      { sql: "DELETE FROM partitions WHERE topic_id = 2" },
      { sql: "DELETE FROM topics WHERE topic_id = 2" },
    ]);
    const large = values(...Array.from({ length: 100 }, () => `"${"x".repeat(30_000)}"`));
    const batches = [
      [{ partition: 0, records: values("1", "2") }],
      [
        { partition: 1, records: large },
        { partition: 0, records: large },
      ],
      [{ partition: 0, records: values("3") }],
      [{ partition: 1, records: values("4", "5") }],
    ];
    const run = async (db: Db) => {
      const shared = openQueue(db);
      const all = batches.map((batch) => shared.submit(appendRecords(topic, batch)));
      const none = shared.submit(appendRecords(gone, [{ partition: 0, records: values("6") }]));
      return Promise.all([...all, none]);
    };
    const answered = await run(database.db);
    await database.db.write([
      { sql: "DELETE FROM records" },
      { sql: "UPDATE partitions SET log_end_offset = 0, records = 0, bytes = 0" },
    ]);
    const lossy = new WatchedDb(database.db);
    lossy.write = async (statements, options) => {
      await database.db.write(statements, options);
      throw new DbError(
        "unanswered",
        "scripted",
        undefined,
        traceOf(await readLogEnds(lossy, options?.appendedTo ?? [])),
      );
    };
    expect(await run(lossy)).toEqual(answered);
    expect(answered.at(-1)).toBeUndefined();
  });
});

// ── several in a flush ───────────────────────────────────────────────────────────────────────────────────

describe("appends that stand side by side", () => {
  test("are one insert and one update a partition", async () => {
    const topic = await createTopic(2);
    const watched = new WatchedDb(database.db);
    const shared = openQueue(watched);
    const appended = await Promise.all(
      Array.from({ length: 64 }, (_, n) =>
        shared.submit(appendRecords(topic, [{ partition: n % 2, records: values(String(n)) }], NEVER_DUE)),
      ),
    );
    expect(watched.writes.map((statements) => statements.length)).toEqual([4]);
    expect(appended.map((result) => result?.[0]?.offset)).toEqual(
      Array.from({ length: 64 }, (_, n) => Math.floor(n / 2)),
    );
    const odd = await database.rows("SELECT value FROM records WHERE partition_id = 2 ORDER BY offset");
    expect(odd.map(({ value }) => value)).toEqual(Array.from({ length: 32 }, (_, n) => String(2 * n + 1)));
  });

  test("are written apart where an operation stands between them", async () => {
    const topic = await createTopic();
    const [before, seen, after] = await Promise.all([
      appendTo(topic, values("1", "2")),
      queue.submit(lookAt(1)),
      appendTo(topic, values("3")),
    ]);
    expect([before?.[0]?.offset, seen, after?.[0]?.offset]).toEqual([0, 2, 2]);
  });

  test("refuse nobody else where one of them was checked against another schema", async () => {
    const topic = await createTopic();
    const stale = { ...topic, schemaVersion: 7 };
    const appended = await Promise.all(
      [stale, topic, stale, topic].map((of) => appendTo(of, values("1", "2"))),
    );
    expect(appended.map((result) => result?.[0]?.offset)).toEqual([undefined, 0, undefined, 2]);
  });

  test("of any kind, in any order, are stored and answered as if each stood alone", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyOperation, { minLength: 1, maxLength: 12 }), async (operations) => {
        await database.empty();
        const topic = await createTopic(3);
        const logs: string[][] = [[], [], []];
        const expected = operations.map((operation) => resultIn(logs, operation));
        expect(await Promise.all(operations.map((operation) => submitted(topic, operation)))).toEqual(
          expected,
        );
        expect(await logsOf(3)).toEqual(logs);
      }),
      { numRuns: 200 },
    );
  }, 30_000);
});

/** No append looks after the time index. */
const NEVER_DUE = Object.assign(new TimeIndexCadence(), { isDue: () => false });

/** Settles to the log end that its place in the flush sees. */
function lookAt(partitionId: number): Operation<number> {
  const sql = "SELECT log_end_offset FROM partitions WHERE partition_id = :id";
  return {
    statements: [{ sql, args: { id: partitionId } }],
    bytes: 0,
    settle: ([rows]) => numberColumn(rows?.[0], "log_end_offset"),
  };
}

const anyRecord = fc.oneof(
  jsonText.map((value) => `{"value":${value}}`),
  jsonText.map((value) => `{"value":${value}}`),
  jsonText.map((value) => `{"key":"k","value":${value}}`),
  fc.constant('{"bytes":"AP+r"}'),
  fc.constant('{"value":1,"headers":{"h":"x"},"timestamp":5}'),
);

const anyAppend = fc.record({
  parts: fc
    .uniqueArray(
      fc.record({ partition: fc.nat(2), texts: fc.array(anyRecord, { minLength: 1, maxLength: 3 }) }),
      {
        selector: ({ partition }) => partition,
        minLength: 1,
      },
    )
    .map((parts) => parts.map(({ partition, texts }) => ({ partition, records: records(...texts) }))),
  isStale: fc.nat(5).map((n) => n === 0),
});

const anyOperation = fc.oneof(
  { weight: 5, arbitrary: anyAppend },
  { weight: 1, arbitrary: fc.record({ look: fc.nat(2) }) },
);
type AnyOperation = typeof anyOperation extends fc.Arbitrary<infer T> ? T : never;

/** What it must settle to, and does to the logs. */
function resultIn(logs: readonly string[][], operation: AnyOperation): unknown {
  if ("look" in operation) return logs[operation.look]?.length;
  if (operation.isStale) return undefined;
  return operation.parts.map(({ partition, records: list }) => {
    const log = logs[partition] ?? [];
    const offset = log.length;
    log.push(...list.map(stored));
    return { topic: "orders", partition, partitionId: partition + 1, offset, logEndOffset: log.length };
  });
}

function submitted(topic: Topic, operation: AnyOperation): Promise<unknown> {
  if ("look" in operation) return queue.submit(lookAt(operation.look + 1));
  const of = operation.isStale ? { ...topic, schemaVersion: 7 } : topic;
  return queue.submit(appendRecords(of, operation.parts));
}

function stored({ key, value, headers, timestamp }: NewRecord): string {
  const text = typeof value === "string" ? value : value.toHex();
  return JSON.stringify([key, text, headers, timestamp ?? START_MS]);
}

async function logsOf(partitionCount: number): Promise<readonly (readonly string[])[]> {
  const rows = await database.rows(`
    SELECT partition_id, key, timestamp, headers,
           CASE typeof(value) WHEN 'blob' THEN lower(hex(value)) ELSE value END AS text
    FROM records ORDER BY partition_id, offset`);
  return Array.from({ length: partitionCount }, (_, partition) =>
    rows
      .filter((row) => row.partition_id === partition + 1)
      .map(({ key, text, headers, timestamp }) => JSON.stringify([key, text, headers, timestamp])),
  );
}
