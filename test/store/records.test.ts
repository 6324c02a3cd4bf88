import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { NewRecord } from "../../src/core/produce-request.ts";
import type { ReadRequest } from "../../src/core/session/window.ts";
import { CHUNK_BYTES_MAX, CHUNK_RECORDS_MAX, RECORD_BYTES_MAX } from "../../src/protocol/limits.ts";
import { type Chunk, readChunk, readLogEnds } from "../../src/store/records.ts";
import { openTestDatabase, START_MS, stockRows, WatchedDb } from "../support/database.ts";
import { jsonText } from "../support/json-text-arbitrary.ts";
import { bytesMember, openLogStore, records, values } from "../support/log-store.ts";

const database = await openTestDatabase();
const { createTopic, append, appendTo } = openLogStore(database);
afterAll(() => database.close());
beforeEach(() => database.empty());

// ── reading ──────────────────────────────────────────────────────────────────────────────────────────────

const ALL: Omit<ReadRequest, "partitionId"> = {
  from: 0,
  recordsMax: CHUNK_RECORDS_MAX,
  bytesMax: CHUNK_BYTES_MAX,
  loneRecordBytesMax: 0,
};

const read = (request: Partial<ReadRequest> = {}) =>
  readChunk(database.db, { partitionId: 1, ...ALL, ...request });

/** A record as it must stand in a frame: the value as it came, the rest as JSON says it. */
function frameText(record: NewRecord, offset: number): string {
  const key = record.key === null ? "" : `,"key":${JSON.stringify(record.key)}`;
  const headers = record.headers === null ? "" : `,"headers":${record.headers}`;
  return `{"offset":${offset},"timestamp":${record.timestamp ?? START_MS}${key}${headers},${valueMember(record)}}`;
}

function valueMember({ value }: NewRecord): string {
  return typeof value === "string" ? `"value":${value}` : bytesMember(value);
}

const frameTexts = (list: readonly NewRecord[], first = 0) =>
  list.map((record, index) => frameText(record, first + index)).join(",");

describe("readChunk()", () => {
  const ODD_VALUES = [
    "2.0",
    "-0",
    "1E400",
    "12345678901234567890",
    "0.1000000000000000055511151231257827",
    '{"b":1,"a":2,"b":3}',
    '{"__proto__":{"x":1}}',
    '{ "a" : [ 1 ,\t2 ] }',
    '"\\u0000"',
    '"\\ud800"',
    '"\\/ \\u00fc ü 😀"',
    '""',
    "null",
    "true",
    "[]",
    `${"[".repeat(128)}${"]".repeat(128)}`,
  ];

  test("delivers every value byte for byte as it came", async () => {
    const topic = await createTopic();
    const list = values(...ODD_VALUES);
    await appendTo(topic, list);
    expect((await read())?.records).toBe(frameTexts(list));
    for (const [offset, value] of ODD_VALUES.entries()) {
      const chunk = await read({ from: offset, recordsMax: 1 });
      expect(chunk?.records).toBe(`{"offset":${offset},"timestamp":${START_MS},"value":${value}}`);
    }
  });

  test("delivers every key and header as it was", async () => {
    const topic = await createTopic();
    const keys = [
      "",
      "k",
      'quote "',
      "back\\slash",
      "\u0001\u001f\n\t\b",
      "ü日本😀",
      "\u2028",
      "'",
      "\u007f",
    ];
    const list = records(
      ...keys.map(
        (key) => `{"key":${JSON.stringify(key)},"value":1,"headers":{"h":${JSON.stringify(key)}, "i":"2"}}`,
      ),
    );
    await appendTo(topic, list);
    const chunk = await read();
    expect(chunk?.records).toBe(frameTexts(list));
    const delivered: { key: string; headers: unknown }[] = JSON.parse(`[${chunk?.records}]`);
    expect(delivered.map(({ key }) => key)).toEqual(keys);
    expect(delivered.map(({ headers }) => headers)).toEqual(keys.map((h) => ({ h, i: "2" })));
  });

  test("says where the chunk ends, how large it is, and where the log ends", async () => {
    const topic = await createTopic();
    const list = records('{"key":"ü","value":"日本"}', '{"value":2}', '{"value":3}');
    await appendTo(topic, list);
    const text = frameTexts(list.slice(0, 2));
    expect(await read({ recordsMax: 2 })).toEqual({
      records: text,
      count: 2,
      bytes: Buffer.byteLength(text),
      next: 2,
      logStartOffset: 0,
      logEndOffset: 3,
    });
  });

  test("reads from the offset and no other partition", async () => {
    const topic = await createTopic(2);
    await append(
      topic,
      { partition: 0, records: values("0", "1", "2") },
      { partition: 1, records: values("9") },
    );
    const chunk = await read({ from: 1 });
    expect(JSON.parse(`[${chunk?.records}]`)).toMatchObject([
      { offset: 1, value: 1 },
      { offset: 2, value: 2 },
    ]);
    expect(await read({ partitionId: 2 })).toMatchObject({ count: 1, next: 1, logEndOffset: 1 });
  });

  test.each([0, 3, 17])(
    "brings nothing from offset %d of a partition that ends there or before",
    async (from) => {
      const topic = await createTopic();
      if (from > 0) await appendTo(topic, values("0", "1", "2"));
      const logEndOffset = from > 0 ? 3 : 0;
      expect(await read({ from })).toEqual({
        records: "",
        count: 0,
        bytes: 0,
        next: from,
        logStartOffset: 0,
        logEndOffset,
      });
    },
  );

  test("says where the log starts", async () => {
    const topic = await createTopic();
    await appendTo(topic, values("0", "1", "2"));
    await database.run("DELETE FROM records WHERE offset < 2");
    await database.run("UPDATE partitions SET log_start_offset = 2");
    expect(await read()).toMatchObject({ count: 1, next: 3, logStartOffset: 2, logEndOffset: 3 });
    expect(await read({ from: 3 })).toMatchObject({ count: 0, logStartOffset: 2 });
  });

  test("gives undefined where the partition is gone", async () => {
    await createTopic();
    expect(await read({ partitionId: 2 })).toBeUndefined();
  });

  test("takes as many records as are asked for and not one more", async () => {
    const topic = await createTopic();
    await appendTo(topic, values(...Array.from({ length: 1_001 }, (_, i) => String(i))));
    for (const recordsMax of [1, 2, 499, 500]) {
      expect(await read({ recordsMax })).toMatchObject({ count: recordsMax, next: recordsMax });
    }
    expect(await read({ from: 1_000 })).toMatchObject({ count: 1, next: 1_001 });
  });

  test("passes over records that are gone, at the start, in the middle and at the end", async () => {
    const topic = await createTopic();
    await appendTo(topic, values("0", "1", "2", "3", "4", "5", "6"));
    await database.run("DELETE FROM records WHERE offset IN (0, 1, 3, 5, 6)");
    expect(await read()).toMatchObject({ count: 2, next: 5, logEndOffset: 7 });
    expect(JSON.parse(`[${(await read())?.records}]`)).toMatchObject([{ offset: 2 }, { offset: 4 }]);
    expect(await read({ from: 5 })).toMatchObject({ count: 0, next: 7, logEndOffset: 7 });
  });

  test("costs one query while the largest records would fit", async () => {
    const topic = await createTopic();
    await appendTo(topic, values(...Array.from({ length: 600 }, (_, i) => String(i))));
    const watched = new WatchedDb(database.db);
    expect(await readChunk(watched, { partitionId: 1, ...ALL })).toMatchObject({ count: 500 });
    expect(watched.reads).toHaveLength(1);
  });
});

describe("readChunk() with large records", () => {
  const KIB = 1024;
  const OVERHEAD_MAX = 90;
  const recordOf = (bytes: number) => `{"value":"${"x".repeat(bytes - 2)}"}`;

  test("takes as many as fit the bytes and never more", async () => {
    const topic = await createTopic();
    await appendTo(topic, records(...Array.from({ length: 20 }, () => recordOf(10_000))));
    for (const bytesMax of [10_100, 20_000, 20_200, 55_000, 100_000]) {
      const chunk = await read({ bytesMax });
      expect(chunk?.bytes).toBeLessThanOrEqual(bytesMax);
      expect(chunk?.bytes).toBe(Buffer.byteLength(chunk?.records ?? ""));
      expect(chunk?.count).toBe(Math.floor(bytesMax / (10_000 + OVERHEAD_MAX)));
    }
  });

  test("takes nothing of a first record that is too large, and says how much room it needs", async () => {
    const topic = await createTopic();
    const list = records(recordOf(100 * KIB), '{"value":1}');
    await appendTo(topic, list);
    const chunk = await read({ bytesMax: 64 * KIB });
    expect(chunk).toMatchObject({ records: "", count: 0, bytes: 0, next: 0, logEndOffset: 2 });
    const needed = chunk?.firstRecordBytes ?? 0;
    expect(needed).toBeGreaterThanOrEqual(Buffer.byteLength(frameTexts(list.slice(0, 1))));
    expect(needed).toBeLessThanOrEqual(100 * KIB + OVERHEAD_MAX + "null".length);
    expect(await read({ bytesMax: needed })).toMatchObject({ count: 1, next: 1 });
    expect(await read({ bytesMax: needed - 1 })).toMatchObject({ count: 0, firstRecordBytes: needed });
  });

  test("takes a first record that is too large alone where the reader takes it", async () => {
    const topic = await createTopic();
    const list = records(recordOf(100 * KIB), '{"value":1}');
    await appendTo(topic, list);
    const chunk = await read({ bytesMax: 64 * KIB, loneRecordBytesMax: Number.MAX_SAFE_INTEGER });
    const text = frameTexts(list.slice(0, 1));
    expect(chunk).toEqual({
      records: text,
      count: 1,
      bytes: text.length,
      next: 1,
      logStartOffset: 0,
      logEndOffset: 2,
    });
  });

  test("brings the largest record that is allowed in its place among small ones", async () => {
    const topic = await createTopic();
    const list = records(
      '{"value":0}',
      '{"value":1}',
      recordOf(RECORD_BYTES_MAX),
      '{"value":3}',
      '{"value":4}',
    );
    await appendTo(topic, list);
    const chunks: (Chunk | undefined)[] = [];
    for (let from = 0; from < 5; from = chunks.at(-1)?.next ?? 5) {
      const chunk = await read({ from });
      chunks.push(
        chunk?.firstRecordBytes ? await read({ from, loneRecordBytesMax: Number.MAX_SAFE_INTEGER }) : chunk,
      );
    }
    expect(chunks.map((chunk) => chunk?.count)).toEqual([2, 1, 2]);
    expect(chunks.map((chunk) => chunk?.records).join(",")).toBe(frameTexts(list));
    expect(chunks[1]?.bytes).toBeGreaterThan(RECORD_BYTES_MAX);
  });

  test("that is too large at once costs two queries and brings no value", async () => {
    const topic = await createTopic();
    await appendTo(topic, records(...Array.from({ length: 3 }, () => recordOf(RECORD_BYTES_MAX))));
    const watched = new WatchedDb(database.db);
    const chunk = await readChunk(watched, { partitionId: 1, ...ALL });
    expect(chunk).toMatchObject({ count: 0, records: "" });
    expect(watched.reads).toHaveLength(2);
  });
});

describe("readChunk() of records with bytes", () => {
  const EVERY_BYTE = Uint8Array.from({ length: 256 }, (_, byte) => byte);
  const LARGEST = Uint8Array.from({ length: RECORD_BYTES_MAX }, (_, n) => (n * 31 + (n >> 8)) & 0xff);
  /** No UTF-8: as text it would end the process. */
  const NOT_UTF8 = [
    Uint8Array.of(0x80),
    Uint8Array.of(0xff, 0xfe),
    Uint8Array.of(0xed, 0xa0, 0x80),
    Uint8Array.of(0xc3),
    Uint8Array.of(0, 0, 0),
  ];

  test("delivers all of them as base64, with key, headers and timestamp", async () => {
    const topic = await createTopic();
    const all = [new Uint8Array(), EVERY_BYTE, ...NOT_UTF8];
    await appendTo(
      topic,
      records(
        ...all.map((bytes) => `{"key":"ü\\n","timestamp":1,"headers":{"h": "1"},${bytesMember(bytes)}}`),
      ),
    );
    const text = all
      .map(
        (bytes, offset) =>
          `{"offset":${offset},"timestamp":1,"key":"ü\\n","headers":{"h": "1"},${bytesMember(bytes)}}`,
      )
      .join(",");
    expect(await read()).toEqual({
      records: text,
      count: all.length,
      bytes: Buffer.byteLength(text),
      next: all.length,
      logStartOffset: 0,
      logEndOffset: all.length,
    });
  });

  test("delivers values between them byte for byte", async () => {
    const topic = await createTopic();
    const list = records(
      '{"value":2.0}',
      '{"bytes":"gA=="}',
      '{"value":{ "a" : "ü" }}',
      '{"bytes":"/w=="}',
      '{"value":"\\ud800"}',
    );
    await appendTo(topic, list);
    expect((await read())?.records).toBe(frameTexts(list));
    expect((await read({ from: 1, recordsMax: 3 }))?.records).toBe(frameTexts(list.slice(1, 4), 1));
    expect(await read({ from: 1, recordsMax: 3 })).toMatchObject({ count: 3, next: 4, logEndOffset: 5 });
  });

  test("brings the largest that is allowed alone, and says before how much room it needs", async () => {
    const topic = await createTopic();
    const list = records('{"value":0}', `{${bytesMember(LARGEST)}}`, '{"value":2}');
    await appendTo(topic, list);
    expect(await read()).toMatchObject({ records: frameTexts(list.slice(0, 1)), next: 1 });
    const text = frameTexts(list.slice(1, 2), 1);
    const refused = await read({ from: 1 });
    expect(refused).toMatchObject({ count: 0, next: 1 });
    const needed = refused?.firstRecordBytes ?? 0;
    expect(needed).toBeGreaterThanOrEqual(text.length);
    expect(needed).toBeLessThanOrEqual(text.length + MEASURED_TOO_MUCH);
    const lone = await read({ from: 1, loneRecordBytesMax: needed });
    expect(lone).toMatchObject({ count: 1, bytes: text.length, next: 2 });
    expect(lone?.records === text).toBe(true);
    expect(await read({ from: 2 })).toMatchObject({ count: 1, next: 3 });
  });

  test("takes as many as fit the bytes as base64, never more", async () => {
    const topic = await createTopic();
    await appendTo(
      topic,
      records(...Array.from({ length: 20 }, () => `{${bytesMember(LARGEST.slice(0, 9_000))}}`)),
    );
    for (const bytesMax of [12_100, 24_000, 24_200, 60_000, 120_000]) {
      const chunk = await read({ bytesMax });
      expect(chunk?.bytes).toBe(Buffer.byteLength(chunk?.records ?? ""));
      expect(chunk?.bytes).toBeLessThanOrEqual(bytesMax);
      expect(chunk?.count).toBe(Math.floor(bytesMax / (12_000 + MEASURED_TOO_MUCH + '""'.length)));
    }
  });

  test("costs one query more where there are some, and none where the run has none", async () => {
    const topic = await createTopic();
    await appendTo(topic, records('{"value":0}', '{"bytes":"AA=="}', '{"value":2}'));
    const watched = new WatchedDb(database.db);
    const request = { partitionId: 1, ...ALL };
    expect(await readChunk(watched, { ...request, recordsMax: 1 })).toMatchObject({ count: 1 });
    expect(watched.reads).toHaveLength(1);
    expect(await readChunk(watched, { ...request, from: 2 })).toMatchObject({ count: 1 });
    expect(watched.reads).toHaveLength(2);
    expect(await readChunk(watched, request)).toMatchObject({ count: 3 });
    expect(watched.reads).toHaveLength(4);
  });

  test.each([
    { what: "the first: no other comes in its place", where: "offset = 0", left: [1, 2], next: 3 },
    { what: "all that were seen: the next come, measured anew", where: "offset < 3", left: [3, 4], next: 5 },
  ])("are as they are when some go in between, $what", async ({ where, left, next }) => {
    const topic = await createTopic();
    await appendTo(
      topic,
      records('{"value":0}', '{"bytes":"AA=="}', '{"value":2}', '{"value":3}', '{"value":4}'),
    );
    const watched = new WatchedDb(database.db);
    watched.onRead = async () => {
      if (watched.reads.length !== 2) return;
      await database.run(`DELETE FROM records WHERE ${where}`);
      await database.run("UPDATE partitions SET log_start_offset = 1");
    };
    const chunk = await readChunk(watched, { partitionId: 1, ...ALL, recordsMax: 3 });
    expect(chunk).toMatchObject({ count: left.length, next, logStartOffset: 1, logEndOffset: 5 });
    const delivered: { offset: number }[] = JSON.parse(`[${chunk?.records}]`);
    expect(delivered.map(({ offset }) => offset)).toEqual([...left]);
  });

  test("gives undefined where the partition goes while they are read", async () => {
    const topic = await createTopic();
    await appendTo(topic, records('{"bytes":"AA=="}'));
    const watched = new WatchedDb(database.db);
    watched.onRead = async () => {
      if (watched.reads.length === 2) await database.run("DELETE FROM partitions");
    };
    expect(await readChunk(watched, { partitionId: 1, ...ALL })).toBeUndefined();
  });
});

test("readChunk() gives back all that was appended, JSON or bytes, in order, in chunks of any limits", async () => {
  const member = fc.oneof(
    jsonText.map((value) => `"value":${value}`),
    fc.uint8Array({ maxLength: 40 }).map(bytesMember),
    fc.integer({ min: 0, max: 3_000 }).map((length) => bytesMember(new Uint8Array(length).fill(0xff))),
  );
  const text = fc
    .string({ unit: "grapheme", maxLength: 10 })
    .filter((s) => s.isWellFormed() && !s.includes("\0"));
  const envelope = fc.tuple(fc.option(text), fc.option(text)).map(([key, header]) => {
    const keyText = key === null ? "" : `"key":${JSON.stringify(key)},`;
    return header === null ? keyText : `${keyText}"headers":{"h":${JSON.stringify(header)}},`;
  });
  const batch = fc.array(fc.tuple(envelope, member), { minLength: 1, maxLength: 6 });
  const limits = fc.record({
    recordsMax: fc.integer({ min: 1, max: 20 }),
    bytesMax: fc.oneof(fc.integer({ min: 1, max: 8_000 }), fc.constant(CHUNK_BYTES_MAX)),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(batch, { minLength: 1, maxLength: 4 }), limits, async (batches, limit) => {
      await database.empty();
      const topic = await createTopic();
      for (const list of batches)
        await appendTo(topic, records(...list.map(([head, value]) => `{${head}${value}}`)));
      const expected = batches
        .flat()
        .map(([head, value], offset) => `{"offset":${offset},"timestamp":${START_MS},${head}${value}}`);
      const chunks: Chunk[] = [];
      for (let from = 0; from < expected.length; from = chunks.at(-1)?.next ?? 0) {
        const chunk = await read({ from, ...limit, loneRecordBytesMax: Number.MAX_SAFE_INTEGER });
        if (!chunk || chunk.next <= from) throw new Error(`nothing from ${from}: ${JSON.stringify(chunk)}`);
        expect(chunk.bytes).toBe(Buffer.byteLength(chunk.records));
        if (chunk.count > 1) expect(chunk.bytes).toBeLessThanOrEqual(limit.bytesMax);
        expect(chunk.count).toBeLessThanOrEqual(limit.recordsMax);
        chunks.push(chunk);
      }
      expect(chunks.map((chunk) => chunk.records).join(",")).toBe(expected.join(","));
    }),
    { numRuns: 100 },
  );
}, 60_000);

test("readChunk() brings what a reader of the stored records would, within every limit", async () => {
  const text = fc
    .string({ unit: "grapheme", maxLength: 30 })
    .filter((s) => s.isWellFormed() && !s.includes("\0"));
  const json = fc.oneof(
    fc.json({ maxDepth: 3 }),
    fc.integer({ min: 2, max: 3_000 }).map((length) => JSON.stringify("x".repeat(length))),
    fc.constantFrom("2.0", "1E400", "-0", '{ "a" : 1 }', '"\\ud800"', "null"),
  );
  const value = fc.oneof(
    { weight: 3, arbitrary: json.map((text) => `"value":${text}`) },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 2_000 }).map(bytesMember) },
  );
  const record = fc
    .record({
      value,
      key: fc.option(text),
      header: fc.option(text),
      timestamp: fc.option(fc.nat(), { nil: undefined }),
    })
    .map(({ value: member, key, header, timestamp }) => {
      const headers = header === null ? undefined : { h: header };
      return `${JSON.stringify({ key, headers, timestamp }).slice(0, -1)},${member}}`;
    });
  const request = fc.record({
    from: fc.nat({ max: 12 }),
    recordsMax: fc.integer({ min: 1, max: 12 }),
    bytesMax: fc.oneof(fc.integer({ min: 1, max: 8_000 }), fc.constant(CHUNK_BYTES_MAX)),
    loneRecordBytesMax: fc.constantFrom(0, 200, 2_000, Number.MAX_SAFE_INTEGER),
  });
  const batches = fc.array(fc.array(record, { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 3 });
  const deleted = fc.uniqueArray(fc.nat({ max: 11 }), { maxLength: 3 });

  await fc.assert(
    fc.asyncProperty(
      batches,
      deleted,
      fc.array(request, { minLength: 1, maxLength: 6 }),
      async (all, gone, requests) => {
        await database.empty();
        const topic = await createTopic();
        const stored: { offset: number; text: string }[] = [];
        for (const batch of all) {
          const list = records(...batch);
          for (const one of list) stored.push({ offset: stored.length, text: frameText(one, stored.length) });
          await appendTo(topic, list);
        }
        await database.run("DELETE FROM records WHERE offset IN (SELECT value FROM json_each(:gone))", {
          gone: JSON.stringify(gone),
        });
        const left = stored.filter(({ offset }) => !gone.includes(offset));
        for (const one of requests) checkChunk(left, stored.length, one, await read(one));
      },
    ),
    { numRuns: 100 },
  );
}, 60_000);

/** Measured sizes are at most this much above the real ones. */
const MEASURED_TOO_MUCH = 90 + "null".length;

function checkChunk(
  stored: readonly { offset: number; text: string }[],
  logEndOffset: number,
  { from, recordsMax, bytesMax, loneRecordBytesMax }: Omit<ReadRequest, "partitionId">,
  chunk: Chunk | undefined,
): void {
  if (!chunk) throw new Error("the partition is there");
  const ahead = stored.filter(({ offset }) => offset >= from);
  const taken = ahead.slice(0, chunk.count);
  expect(chunk.records).toBe(taken.map(({ text }) => text).join(","));
  expect(chunk.bytes).toBe(Buffer.byteLength(chunk.records));
  expect(chunk.logEndOffset).toBe(logEndOffset);
  expect(chunk.count).toBeLessThanOrEqual(recordsMax);
  expect(chunk.bytes).toBeLessThanOrEqual(
    chunk.count === 1 ? Math.max(bytesMax, loneRecordBytesMax) : bytesMax,
  );
  const following = ahead[chunk.count];
  const sizeOf = (text: string | undefined) => Buffer.byteLength(text ?? "");
  if (chunk.count > 0) {
    expect(chunk.next).toBe((taken.at(-1)?.offset ?? 0) + 1);
    expect(chunk.firstRecordBytes).toBeUndefined();
    // It stopped because it had to.
    if (chunk.count < recordsMax && following)
      expect(chunk.bytes + sizeOf(following.text) + (chunk.count + 1) * MEASURED_TOO_MUCH).toBeGreaterThan(
        bytesMax,
      );
  } else if (following) {
    expect(chunk.next).toBe(from);
    expect(chunk.firstRecordBytes).toBeGreaterThan(Math.max(bytesMax, loneRecordBytesMax));
    expect(chunk.firstRecordBytes).toBeGreaterThanOrEqual(sizeOf(following.text));
    expect(chunk.firstRecordBytes).toBeLessThanOrEqual(sizeOf(following.text) + MEASURED_TOO_MUCH);
  } else {
    expect(chunk.next).toBe(Math.max(from, logEndOffset)); // nothing there to come back for
  }
}

describe("readLogEnds()", () => {
  test("gives the log end of each partition that is there", async () => {
    const topic = await createTopic(3);
    await append(topic, { partition: 0, records: values("1", "2") }, { partition: 2, records: values("3") });
    expect(await readLogEnds(database.db, [1, 3, 99])).toEqual(
      new Map([
        [1, 2],
        [3, 1],
      ]),
    );
    expect(await readLogEnds(database.db, [])).toEqual(new Map());
  });
});

// ── for people: the views, read by stock SQLite beside the open database ─────────────────────────────────

describe("the view topic_records", () => {
  test("shows every column of every record to stock SQLite", async () => {
    const orders = await createTopic(2);
    const payments = await createTopic(1, "payments");
    await append(
      orders,
      {
        partition: 0,
        records: records('{"key":"u1","value":{ "a": 2.0 },"headers":{"h":"1"},"timestamp":1}'),
      },
      { partition: 1, records: records('{"value":null}', '{"value":"x","timestamp":253402300799999}') },
    );
    await appendTo(payments, records('{"value":[1],"timestamp":253402300800000}'));
    const columns = ["topic", "partition", "offset", "timestamp", "key", "value", "headers"];
    expect(columnsOf("topic_records")).toEqual(columns);
    const iso = new Date(START_MS).toISOString();
    const expected = [
      ["orders", 0, 0, "1970-01-01T00:00:00.001Z", "u1", '{ "a": 2.0 }', '{"h":"1"}'],
      ["orders", 1, 0, iso, null, "null", null],
      ["orders", 1, 1, "9999-12-31T23:59:59.999Z", null, '"x"', null],
      ["payments", 0, 0, null, null, "[1]", null],
    ];
    expect(rowsOf("SELECT * FROM topic_records ORDER BY topic, partition, offset")).toEqual(expected);
  });
});

describe("the views", () => {
  test("show records with bytes as BLOBs to stock SQLite, and count them", async () => {
    const topic = await createTopic();
    await appendTo(topic, records('{"bytes":"AP+A"}', '{"value":1,"timestamp":5}', '{"bytes":""}'));
    expect(
      rowsOf("SELECT offset, hex(value), typeof(value), length(value) FROM topic_records ORDER BY offset"),
    ).toEqual([
      [0, "00FF80", "blob", 3],
      [1, "31", "text", 1],
      [2, "", "blob", 0],
    ]);
    const iso = new Date(START_MS).toISOString();
    expect(rowsOf("SELECT records, bytes, last_timestamp FROM partition_stats")).toEqual([[3, 4, iso]]);
  });
});

describe("the view partition_stats", () => {
  test("shows every column of every partition to stock SQLite", async () => {
    const topic = await createTopic(2);
    await appendTo(
      topic,
      records('{"key":"k","value":10}', '{"value":1,"timestamp":5000}', '{"value":1,"timestamp":1234}'),
    );
    await database.run("DELETE FROM records WHERE offset = 0");
    await database.run(
      "UPDATE partitions SET log_start_offset = 1, records = 2, bytes = 2 WHERE partition = 0",
    );
    const columns = [
      "topic",
      "partition",
      "log_start_offset",
      "log_end_offset",
      "records",
      "bytes",
      "last_timestamp",
    ];
    expect(columnsOf("partition_stats")).toEqual(columns);
    expect(rowsOf("SELECT * FROM partition_stats ORDER BY partition")).toEqual([
      ["orders", 0, 1, 3, 2, 2, "1970-01-01T00:00:01.234Z"],
      ["orders", 1, 0, 0, 0, 0, null],
    ]);
  });

  test("agrees with the records after any appends", async () => {
    const topic = await createTopic(3);
    for (const partition of [0, 2, 0, 0]) await appendTo(topic, values("1", '"ü"', "[true]"), partition);
    const counted = stockRows(
      database.path,
      `SELECT topic, partition, count(*) AS records, max(offset) + 1 AS log_end_offset,
              sum(length(CAST(value AS BLOB))) AS bytes, max(timestamp) AS last_timestamp
       FROM topic_records GROUP BY topic, partition`,
    );
    const stats = stockRows(
      database.path,
      "SELECT topic, partition, records, log_end_offset, bytes, last_timestamp FROM partition_stats WHERE records > 0",
    );
    expect(stats).toEqual(counted);
    expect(stats).toHaveLength(2);
  });
});

function columnsOf(view: string): readonly unknown[] {
  return stockRows(database.path, `SELECT name FROM pragma_table_info('${view}')`).map(({ name }) => name);
}

/** The values of each row, in the order of the columns. */
function rowsOf(sql: string): readonly (readonly unknown[])[] {
  return stockRows(database.path, sql).map((row) => Object.values(row));
}
