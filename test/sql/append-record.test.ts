// What append_record takes and what it refuses, through each of the SQLites that it has to run in.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  HEADERS_BYTES_MAX,
  HEADERS_MAX,
  JSON_DEPTH_MAX,
  KEY_BYTES_MAX,
  RECORD_BYTES_MAX,
} from "../../src/protocol/limits.ts";
import { SQL_ENGINES } from "../support/sql-engines.ts";
import { refusalOf, type SqlSession, sqlText } from "../support/sql-session.ts";

setDefaultTimeout(30_000); // where the machine has much else to do

/** SQL expressions; what is absent is not named in the INSERT. */
interface Columns {
  readonly topic?: string;
  readonly key?: string;
  readonly value?: string;
  readonly headers?: string;
  readonly partition?: string;
}

const insert = ({ topic = "'orders'", ...columns }: Columns, verb = "INSERT") =>
  `${verb} INTO append_record (${["topic", ...Object.keys(columns)]}) VALUES (${[topic, ...Object.values(columns)]})`;

const x = (count: number) => `printf('%.*c', ${count}, 'x')`;
/** JSON text of that many bytes. */
const jsonOf = (bytes: number) => `'"' || ${x(bytes - 2)} || '"'`;
/** An object of one header, of that many bytes. */
const headersOf = (bytes: number) => `'{"a":"' || ${x(bytes - 8)} || '"}'`;
const manyHeaders = (count: number) =>
  `'${JSON.stringify(Object.fromEntries(Array.from({ length: count }, (_, n) => [`h${n}`, ""])))}'`;
const nested = (depth: number, open = "[", close = "]") => `'${open.repeat(depth)}${close.repeat(depth)}'`;
const nestedObjects = (depth: number) => `'${'{"a":['.repeat(depth / 2)}${"]}".repeat(depth / 2)}'`;

interface Stored {
  readonly key: string | null;
  readonly type: string;
  readonly value: string | null;
  readonly headers: string | null;
}

const NOTHING: Stored = { key: null, type: "text", value: null, headers: null };

/** What is stored of it. */
const TAKEN: readonly (readonly [name: string, columns: Columns, stored: Partial<Stored>])[] = [
  [
    "JSON as it came, white space inside included",
    { value: `'{"a": [1,\t2.0, 1E400]}'` },
    { value: '{"a": [1,\t2.0, 1E400]}' },
  ],
  ["JSON without the white space around it", { value: sqlText(" \n\r\t[] \n\r\t") }, { value: "[]" }],
  [
    "members twice, escaped NULs and lone surrogates in a value",
    { value: `'{"a":"\\u0000","a":"\\ud800"}'` },
    { value: '{"a":"\\u0000","a":"\\ud800"}' },
  ],
  ["no value, which is a tombstone", { key: "'k'" }, { key: "k", value: "null" }],
  ["NULL, which is a tombstone", { key: "'k'", value: "NULL" }, { key: "k", value: "null" }],
  ["an integer", { value: "-9223372036854775808" }, { value: "-9223372036854775808" }],
  ["a number with a fraction", { value: "0.5" }, { value: "0.5" }],
  ["a number that needs seventeen digits", { value: "0.1 + 0.2" }, { value: "0.30000000000000004" }],
  ["a large number", { value: "1e300" }, { value: "1.0e+300" }],
  ["a BLOB, whatever is in it", { value: "x'00ff'" }, { type: "blob", value: "00FF" }],
  ["an empty BLOB", { value: "x''" }, { type: "blob", value: "" }],
  ["an empty key", { key: "''", value: "1" }, { key: "", value: "1" }],
  [
    "a record with a key to a compacted topic",
    { topic: "'latest'", key: "''", value: "1" },
    { key: "", value: "1" },
  ],
  ["a tombstone to a compacted topic", { topic: "'latest'", key: "'k'" }, { key: "k", value: "null" }],
  [
    "a key of control characters, quotes and all planes",
    { key: sqlText('\u0001\n"\\é漢🎉\uffff'), value: "1" },
    { key: '\u0001\n"\\é漢🎉\uffff', value: "1" },
  ],
  [
    "headers as they came",
    { value: "1", headers: `'{"a": "1", "\\u00e9":"\\ud83c\\udf89" }'` },
    { value: "1", headers: '{"a": "1", "\\u00e9":"\\ud83c\\udf89" }' },
  ],
  [
    "headers without the white space around them",
    { value: "1", headers: `' {"a":""} '` },
    { value: "1", headers: '{"a":""}' },
  ],
  [
    "a backslash before u0000 and ud800, which is no escape",
    { value: "1", headers: `'{"a":"\\\\u0000\\\\ud800"}'` },
    { value: "1", headers: '{"a":"\\\\u0000\\\\ud800"}' },
  ],
  ["empty headers, which are none", { value: "1", headers: `' { } '` }, { value: "1" }],
  ["NULL for headers and key", { value: "1", key: "NULL", headers: "NULL" }, { value: "1" }],
  [
    "a partition that is a float, as JavaScript's clients bind numbers",
    { value: "1", partition: "2.0" },
    { value: "1" },
  ],
];

/** At the limit, where there is no need to look at it all. */
const TAKEN_AT_LIMIT: readonly (readonly [name: string, columns: Columns])[] = [
  ["a key of 32 KiB", { value: "1", key: x(KEY_BYTES_MAX) }],
  [
    "a key of 32 KiB in characters of three bytes",
    { value: "1", key: sqlText(`${"漢".repeat((KEY_BYTES_MAX - 2) / 3)}xx`) },
  ],
  ["headers of 16 KiB", { value: "1", headers: headersOf(HEADERS_BYTES_MAX) }],
  ["64 headers", { value: "1", headers: manyHeaders(HEADERS_MAX) }],
  ["a value of 1 MiB", { value: jsonOf(RECORD_BYTES_MAX) }],
  ["a value of 1 MiB and white space around it", { value: `'  ' || ${jsonOf(RECORD_BYTES_MAX)} || '  '` }],
  [
    "a value of 1 MiB that is not ASCII",
    { value: `'"' || replace(${x((RECORD_BYTES_MAX - 2) / 2)}, 'x', 'é') || '"'` },
  ],
  ["a BLOB of 1 MiB", { value: `zeroblob(${RECORD_BYTES_MAX})` }],
  [
    "key, headers and value of 1 MiB together",
    { key: x(100), headers: headersOf(200), value: jsonOf(RECORD_BYTES_MAX - 300) },
  ],
  ["arrays 128 deep", { value: nested(JSON_DEPTH_MAX) }],
  ["objects and arrays 128 deep", { value: nestedObjects(JSON_DEPTH_MAX) }],
  ["300 arrays beside one another", { value: `'[${"[],".repeat(299)}[]]'` }],
  ["300 brackets in a string", { value: `'"${"[{".repeat(150)}"'` }],
];

const REFUSED: readonly (readonly [code: string, name: string, columns: Columns])[] = [
  ["unknown_topic", "a topic that is not there", { topic: "'nowhere'", value: "1" }],
  ["unknown_topic", "NULL for the topic", { topic: "NULL", value: "1" }],
  ["unknown_topic", "a topic by its bytes", { topic: "x'6f7264657273'", value: "1" }],
  ["unknown_partition", "the partition after the last", { value: "1", partition: "4" }],
  ["unknown_partition", "a partition below 0", { value: "1", partition: "-1" }],
  ["unknown_partition", "half a partition", { value: "1", partition: "0.5" }],
  ["unknown_partition", "a partition that is text", { value: "1", partition: "'0'" }],
  ["schema_violation", "a topic with a schema", { topic: "'checked'", value: "1" }],
  ["bad_request", "a key that is an integer", { value: "1", key: "7" }],
  ["bad_request", "a key that is a float", { value: "1", key: "7.5" }],
  ["bad_request", "a key that is a BLOB", { value: "1", key: "x'6b'" }],
  ["bad_request", "a key with a NUL", { value: "1", key: sqlText("a\0b") }],
  ["bad_request", "a key that ends with a NUL", { value: "1", key: sqlText("a\0") }],
  ["bad_request", "a key that is not UTF-8", { value: "1", key: "CAST(x'ff' AS TEXT)" }],
  ["bad_request", "a key that is half a surrogate pair", { value: "1", key: "CAST(x'eda080' AS TEXT)" }],
  ["bad_request", "text that is not JSON", { value: "'hello'" }],
  ["bad_request", "empty text", { value: "''" }],
  ["bad_request", "JSON and a NUL", { value: sqlText("1\0") }],
  ["bad_request", "JSON5", { value: "'{a:1}'" }],
  ["bad_request", "two values", { value: "'1 2'" }],
  ["bad_request", "infinity", { value: "9e999" }],
  ["bad_request", "minus infinity", { value: "-9e999" }],
  ["bad_request", "a value that is not UTF-8", { value: `CAST(x'22ff22' AS TEXT)` }],
  ["bad_request", "a value that ends in half a character", { value: `CAST(x'22c322' AS TEXT)` }],
  ["bad_request", "arrays 129 deep", { value: nested(JSON_DEPTH_MAX + 1) }],
  ["bad_request", "objects and arrays 130 deep", { value: nestedObjects(JSON_DEPTH_MAX + 2) }],
  [
    "bad_request",
    "an array 129 deep after many that are not",
    { value: `'[${"[1],".repeat(500)}' || ${nested(JSON_DEPTH_MAX)} || ']'` },
  ],
  ["bad_request", "no key, to a compacted topic", { topic: "'latest'", value: "1" }],
  ["bad_request", "NULL for a key, to a compacted topic", { topic: "'latest'", key: "NULL", value: "1" }],
  ["bad_request", "headers that are not JSON", { value: "1", headers: "'a=b'" }],
  ["bad_request", "headers that are an array", { value: "1", headers: `'["a"]'` }],
  ["bad_request", "headers that are an empty array", { value: "1", headers: "'[]'" }],
  ["bad_request", "headers that are a number", { value: "1", headers: "1" }],
  ["bad_request", "headers that are a BLOB", { value: "1", headers: "x'7b7d'" }],
  ["bad_request", "a header that is a number", { value: "1", headers: `'{"a":1}'` }],
  ["bad_request", "a header that is null", { value: "1", headers: `'{"a":"1","b":null}'` }],
  ["bad_request", "a header that is an object", { value: "1", headers: `'{"a":{}}'` }],
  ["bad_request", "a header twice", { value: "1", headers: `'{"a":"1","b":"2","a":"1"}'` }],
  ["bad_request", "a header twice, once in escapes", { value: "1", headers: `'{"a":"1","\\u0061":"1"}'` }],
  ["bad_request", "a NUL in a header", { value: "1", headers: `'{"a":"\\u0000"}'` }],
  ["bad_request", "a NUL in the name of a header", { value: "1", headers: `'{"\\u0000":""}'` }],
  ["bad_request", "a lone high surrogate in a header", { value: "1", headers: `'{"a":"\\uD83C"}'` }],
  [
    "bad_request",
    "a lone low surrogate in the name of a header",
    { value: "1", headers: `'{"\\uDF89":""}'` },
  ],
  ["bad_request", "surrogates the wrong way round", { value: "1", headers: `'{"a":"\\udf89\\ud83c"}'` }],
  ["bad_request", "headers and a NUL", { value: "1", headers: sqlText("{}\0") }],
  [
    "bad_request",
    "headers that are not UTF-8",
    { value: "1", headers: "CAST(x'7b2261223a22ff227d' AS TEXT)" },
  ],
  ["record_too_large", "a key of 32 KiB and one byte", { value: "1", key: x(KEY_BYTES_MAX + 1) }],
  [
    "record_too_large",
    "headers of 16 KiB and one byte",
    { value: "1", headers: headersOf(HEADERS_BYTES_MAX + 1) },
  ],
  ["record_too_large", "65 headers", { value: "1", headers: manyHeaders(HEADERS_MAX + 1) }],
  ["record_too_large", "a value of 1 MiB and one byte", { value: jsonOf(RECORD_BYTES_MAX + 1) }],
  [
    "record_too_large",
    "a value of 1 MiB and two bytes that is not ASCII",
    { value: `'"' || replace(${x(RECORD_BYTES_MAX / 2)}, 'x', 'é') || '"'` },
  ],
  ["record_too_large", "a BLOB of 1 MiB and one byte", { value: `zeroblob(${RECORD_BYTES_MAX + 1})` }],
  [
    "record_too_large",
    "1 MiB and one byte together",
    { key: x(100), headers: headersOf(200), value: jsonOf(RECORD_BYTES_MAX - 299) },
  ],
];

const CREATE = [
  `INSERT INTO topics (topic, partition_count, created_at, schema, cleanup)
   VALUES ('orders', 4, 0, NULL, 'delete'), ('checked', 1, 0, '{}', 'delete'), ('latest', 1, 0, NULL, 'compact')`,
  "INSERT INTO partitions (topic_id, partition) VALUES (1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (3, 0)",
  "CREATE TABLE own (n INTEGER)",
];
const STATE = `SELECT (SELECT json_group_array(json_array(log_end_offset, records, bytes, frame_bytes_max)) FROM partitions)
  || (SELECT count(*) FROM records) || (SELECT count(*) FROM own) AS state`;
const STORED = `SELECT key, typeof(value) AS type, headers,
    CASE typeof(value) WHEN 'blob' THEN hex(value) ELSE value END AS value
  FROM records`;

/** The conflict clause of a statement holds in the triggers that it fires; what they raise stays what it is. */
const VERBS = ["INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE", "INSERT OR FAIL", "INSERT OR ROLLBACK"];

for (const { name, isThere, open } of SQL_ENGINES) {
  describe.skipIf(!isThere)(`append_record in ${name}`, () => {
    let session: SqlSession;
    beforeAll(async () => {
      session = await open(CREATE);
    });
    afterAll(() => session.end());

    async function storedBy(columns: Columns): Promise<unknown> {
      await session.run("DELETE FROM records");
      await session.run(insert(columns));
      const rows = await session.run(STORED);
      expect(rows.length).toBe(1);
      return rows[0];
    }

    test.each(TAKEN.map(([title, columns, stored]) => ({ title, columns, stored })))(
      "takes $title",
      async ({ columns, stored }) => {
        expect(await storedBy(columns)).toEqual({ ...NOTHING, ...stored });
      },
    );

    test.each(TAKEN_AT_LIMIT.map(([title, columns]) => ({ title, columns })))(
      "takes $title",
      async ({ columns }) => {
        const [before] = await session.run("SELECT sum(log_end_offset) AS n FROM partitions");
        await session.run(insert(columns));
        const [after] = await session.run("SELECT sum(log_end_offset) AS n FROM partitions");
        expect(after?.n).toBe(Number(before?.n) + 1);
      },
    );

    test.each(REFUSED.map(([code, title, columns]) => ({ code, title, columns })))(
      "refuses $title: $code, and changes nothing",
      async ({ code, columns }) => {
        const before = await session.run(STATE);
        for (const verb of VERBS)
          expect(await refusalOf(session.run(insert(columns, verb)))).toBe(code as "none");
        expect(await session.run(STATE)).toEqual(before);
      },
    );

    test("gives the time of the database's clock", async () => {
      const [before] = await session.run("SELECT now_ms FROM clock");
      await session.run(insert({ value: "1", partition: "3" }));
      const [row] = await session.run(
        "SELECT timestamp, now_ms FROM records, clock WHERE partition_id = 4 ORDER BY offset DESC LIMIT 1",
      );
      expect(row?.timestamp).toBeGreaterThanOrEqual(Number(before?.now_ms));
      expect(row?.timestamp).toBeLessThanOrEqual(Number(row?.now_ms));
    });

    test("takes rows of a SELECT in their order, from its own records too, and all of them or none", async () => {
      const rows = (condition: string) =>
        `INSERT INTO append_record (topic, value, partition)
         SELECT 'orders', value, 1 FROM json_each('[7,8,9]') WHERE ${condition} ORDER BY value DESC`;
      const of1 = "SELECT offset, value FROM records WHERE partition_id = 2 ORDER BY offset";
      await session.run("DELETE FROM records");
      await session.run("UPDATE partitions SET log_end_offset = 5 WHERE partition_id = 2");
      await session.run(rows("true"));
      await session.run(
        "INSERT INTO append_record (topic, value, partition) SELECT topic, value, partition FROM topic_records",
      );
      const stored = ["9", "8", "7", "9", "8", "7"].map((value, n) => ({ offset: 5 + n, value }));
      expect(await session.run(of1)).toEqual(stored);
      const bad = rows("true").replace("value, 1", "iif(value = 7, 'not JSON', value), 1");
      expect(await refusalOf(session.run(bad))).toBe("bad_request");
      expect(await refusalOf(session.run(bad.replace("INSERT", "INSERT OR FAIL")))).toBe("bad_request");
      expect(await session.run(of1)).toEqual(stored);
    });

    test("is empty to SELECT, and refuses UPDATE and DELETE", async () => {
      for (const view of ["append_record", "commit_offset"]) {
        expect(await session.run(`SELECT * FROM ${view}`)).toEqual([]);
        const [column] = await session.run(`SELECT name FROM pragma_table_info('${view}')`);
        for (const sql of [`UPDATE ${view} SET ${column?.name} = 1`, `DELETE FROM ${view}`])
          expect(session.run(sql)).rejects.toThrow(`cannot modify ${view} because it is a view`);
      }
    });
  });
}
