// Bad input over HTTP, and every limit at the limit and one above. After each case all is as it was.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { ERROR_CODES } from "../../src/protocol/codes.ts";
import {
  BAD_PRODUCES,
  BAD_TRANSACTIONS,
  type BadWrite,
  fieldsOf,
  PRODUCED,
  textOf,
  tooManyBytes,
} from "../support/bad-transactions.ts";
import { nested, PRODUCER, RECORDS_EACH, WatchedServer } from "../support/watched-server.ts";

let watched: WatchedServer;
beforeAll(async () => {
  watched = await WatchedServer.start();
});
afterAll(() => watched.stop());

interface Request {
  readonly method?: string;
  readonly path: string;
  readonly body?: string | Uint8Array;
  readonly type?: string;
}

async function send({ method = "POST", path, body, type }: Request) {
  const response = await fetch(watched.server.url + path, {
    method,
    ...(body !== undefined && { body: body as string }),
    ...(type !== undefined && { headers: { "content-type": type } }),
  });
  const text = await response.text();
  return { status: response.status, type: response.headers.get("content-type"), text };
}

type Refused = readonly [name: string, request: Request, status: number, code: string, detail: RegExp];

const NDJSON = "application/x-ndjson";
const MIB = 1024 * 1024;
const PRODUCE = "/v1/topics/orders/records";
const FETCH = "/v1/topics/orders/partitions/0/records";
const COMMIT = "/v1/groups/outside/offsets";

const EPOCH = `/v1/producers/${PRODUCER.id}`;
const TRANSACT = "/v1/transactions";

const produce = (record: string, path = PRODUCE): Request => ({ path, body: `{"records":[${record}]}` });
const commit = (entry: Record<string, unknown>): Request => ({
  path: COMMIT,
  body: JSON.stringify({ offsets: [{ topic: "orders", partition: 0, offset: 5, ...entry }] }),
});
const get = (path: string): Request => ({ method: "GET", path });
const put = (path: string, body: string): Request => ({ method: "PUT", path, body });
const remove = (path: string): Request => ({ method: "DELETE", path });
const RESET = "/v1/groups/outside/reset";
const ORDERS = [{ topic: "orders" }];
/** It would be applied: the group has committed 4 there. */
const STEP = { topic: "orders", partition: 0, from: 4, to: 0 };
const reset = (body: Record<string, unknown>, group = "outside"): Request => ({
  path: `/v1/groups/${group}/reset`,
  body: JSON.stringify(body),
});
const lines = (bad: string) =>
  Array.from({ length: 5_000 }, (_, n) => (n === 3_999 ? bad : `{"n":${n}}`)).join("\n");
const headers = (count: number) =>
  JSON.stringify(Object.fromEntries(numbers(count).map((n) => [`h${n}`, ""])));
const numbers = (count: number) => Array.from({ length: count }, (_, n) => n);
/** A headers object that is so many bytes as text. */
const headersOfBytes = (bytes: number) => `{"a":"${"x".repeat(bytes - '{"a":""}'.length)}"}`;
const values = (count: number) =>
  numbers(count)
    .fill(1)
    .map((value) => `{"value":${value}}`)
    .join(",");
/** A request of so many bytes, of records that are each small enough. */
const bodyOfBytes = (bytes: number, [start, end] = ["{", "}"]) => {
  const record = `{"value":"${"x".repeat(900_000)}"}`;
  const head = `${start}"records":[${record},${record},${record},${record},{"value":"`;
  const tail = `"}]${end}`;
  return `${head}${"x".repeat(bytes - head.length - tail.length)}${tail}`;
};
const transactionOfBytes = (bytes: number, topic = "orders") =>
  bodyOfBytes(bytes, [`{"appends":[{"topic":"${topic}",`, "}]}"]);

const REFUSED: readonly Refused[] = [
  // ── what is not JSON, or not the JSON that was meant ──
  ["an empty body", { path: PRODUCE, body: "" }, 400, "bad_request", /not JSON/],
  ["half a body", { path: PRODUCE, body: '{"records":[' }, 400, "bad_request", /not JSON/],
  ["an array", { path: PRODUCE, body: "[]" }, 400, "bad_request", /array/],
  ["no records", { path: PRODUCE, body: "{}" }, 400, "bad_request", /"records"/],
  ["empty records", produce(""), 400, "bad_request", /empty/],
  ["a record that is no object", produce("1"), 400, "bad_request", /records\[0\].*number/],
  [
    "an unknown member of a request",
    { path: PRODUCE, body: '{"records":[{"value":1}],"acks":1}' },
    400,
    "bad_request",
    /"acks"/,
  ],
  ["an unknown member of a record", produce('{"value":1,"offset":3}'), 400, "bad_request", /"offset"/],
  [
    "__proto__ as a member of a record",
    produce('{"value":1,"__proto__":{}}'),
    400,
    "bad_request",
    /"__proto__"/,
  ],
  ["a member of a record twice", produce('{"value":1,"value":2}'), 400, "bad_request", /"value" twice/],
  [
    "records twice",
    { path: PRODUCE, body: '{"records":[{"value":1}],"records":[{"value":1}]}' },
    400,
    "bad_request",
    /"records" twice/,
  ],
  [
    "a body that is not UTF-8",
    { path: PRODUCE, body: new Uint8Array([0x7b, 0xff, 0x7d]) },
    400,
    "bad_request",
    /UTF-8/,
  ],
  [
    "a bad line 4,000 of NDJSON",
    { path: PRODUCE, body: lines('{"n":'), type: NDJSON },
    400,
    "bad_request",
    /line 4000/,
  ],
  [
    "a key that is an object in line 4,000",
    { path: `${PRODUCE}?key=/n`, body: lines('{"n":{}}'), type: NDJSON },
    400,
    "bad_request",
    /line 4000/,
  ],
  [
    "a pointer that is none",
    { path: `${PRODUCE}?key=n`, body: '{"n":1}', type: NDJSON },
    400,
    "bad_request",
    /pointer/i,
  ],

  // ── records ──
  [
    "both value and bytes",
    produce('{"value":1,"bytes":"AA=="}'),
    400,
    "bad_request",
    /both "value" and "bytes"/,
  ],
  ["neither value nor bytes", produce('{"key":"a"}'), 400, "bad_request", /neither "value" nor "bytes"/],
  ["bytes that are not base64", produce('{"bytes":"A?=="}'), 400, "bad_request", /base64/],
  ["base64 without its padding", produce('{"bytes":"AA"}'), 400, "bad_request", /base64/],
  ["a number as key", produce('{"value":1,"key":7}'), 400, "bad_request", /key.*number/],
  [
    "a lone surrogate in a key",
    produce('{"value":1,"key":"\\ud800"}'),
    400,
    "bad_request",
    /key.*lone surrogate/,
  ],
  [
    "a lone surrogate in a header's name",
    produce('{"value":1,"headers":{"\\udc00":"a"}}'),
    400,
    "bad_request",
    /header.*lone surrogate/,
  ],
  [
    "a lone surrogate in a header's value",
    produce('{"value":1,"headers":{"a":"\\udc00"}}'),
    400,
    "bad_request",
    /header.*lone surrogate/,
  ],
  ["NUL in a key", produce('{"value":1,"key":"a\\u0000b"}'), 400, "bad_request", /key.*NUL/],
  [
    "NUL in a header's value",
    produce('{"value":1,"headers":{"a":"\\u0000"}}'),
    400,
    "bad_request",
    /header.*NUL/,
  ],
  ["headers that are an array", produce('{"value":1,"headers":[]}'), 400, "bad_request", /headers.*array/],
  ["a negative timestamp", produce('{"value":1,"timestamp":-1}'), 400, "bad_request", /timestamp.*-1/],
  ["a fractional timestamp", produce('{"value":1,"timestamp":1.5}'), 400, "bad_request", /timestamp.*1\.5/],
  [
    "a timestamp of 2^53",
    produce('{"value":1,"timestamp":9007199254740992}'),
    400,
    "bad_request",
    /timestamp/,
  ],
  ["a negative partition", produce('{"value":1,"partition":-1}'), 400, "bad_request", /partition.*-1/],
  [
    "a partition that is text",
    produce('{"value":1,"partition":"0"}'),
    400,
    "bad_request",
    /partition.*string/,
  ],
  [
    "a partition that the topic does not have",
    produce('{"value":1},{"value":1,"partition":3}'),
    404,
    "unknown_partition",
    /records\[1\].*found 3.*0 to 2/,
  ],
  ["a value nested 129 deep", produce(`{"value":${nested(129)}}`), 400, "bad_request", /129.*128/],
  ["a value nested 10,000 deep", produce(`{"value":${nested(10_000)}}`), 400, "bad_request", /128/],

  // ── one above a limit ──
  ["10,001 records", produce(values(10_001)), 413, "batch_too_large", /10001.*10000/],
  [
    "a body of 4,000,001 bytes",
    { path: PRODUCE, body: bodyOfBytes(4_000_001) },
    413,
    "batch_too_large",
    /4000000/,
  ],
  [
    "a record of 1 MiB and a byte",
    produce(`{"key":"k","value":"${"x".repeat(MIB - 2)}"}`),
    413,
    "record_too_large",
    /1048577.*1048576/,
  ],
  [
    "a key of 32 KiB and a byte",
    produce(`{"value":1,"key":"${"k".repeat(32_769)}"}`),
    413,
    "record_too_large",
    /32769.*32768/,
  ],
  ["65 headers", produce(`{"value":1,"headers":${headers(65)}}`), 413, "record_too_large", /65.*64/],
  [
    "headers of 16 KiB and a byte",
    produce(`{"value":1,"headers":${headersOfBytes(16_385)}}`),
    413,
    "record_too_large",
    /16385.*16384/,
  ],
  [
    "metadata of 4 KiB and a byte",
    commit({ metadata: "m".repeat(4_097) }),
    400,
    "bad_request",
    /metadata.*4096/,
  ],
  ["a topic's name of 250 characters", put(`/v1/topics/${"t".repeat(250)}`, "{}"), 400, "bad_request", /249/],
  ["1,025 partitions", put("/v1/topics/orders", '{"partitionCount":1025}'), 400, "bad_request", /1024/],
  ["a fetch of 10,001 records", get(`${FETCH}?limit=10001`), 400, "bad_request", /limit.*10000/],
  ["a fetch of 4,000,001 bytes", get(`${FETCH}?maxBytes=4000001`), 400, "bad_request", /maxBytes.*4000000/],
  ["a wait of 30,001 ms", get(`${FETCH}?waitMs=30001`), 400, "bad_request", /waitMs.*30000/],

  // ── names, topics, partitions ──
  ["a topic's name with a space", put("/v1/topics/a%20b", "{}"), 400, "bad_request", /topic/],
  ["a topic's name with NUL", put("/v1/topics/a%00", "{}"), 400, "bad_request", /topic/],
  ["a group's name with a slash", get("/v1/groups/a%2Fb"), 400, "bad_request", /group/],
  ["no partitions", put("/v1/topics/orders", '{"partitionCount":0}'), 400, "bad_request", /partitionCount/],
  [
    "fewer partitions than there are",
    put("/v1/topics/orders", '{"partitionCount":2}'),
    409,
    "conflict",
    /3.*2|2.*3/,
  ],
  [
    "retention of no time at all",
    put("/v1/topics/orders", '{"retention":{"ms":0}}'),
    400,
    "bad_request",
    /"retention\.ms" must be an integer from 1 to/,
  ],
  [
    "retention of less than nothing",
    put("/v1/topics/orders", '{"retention":{"bytes":-1}}'),
    400,
    "bad_request",
    /"retention\.bytes" must be an integer from 1 to/,
  ],
  [
    "retention by what nobody counts",
    put("/v1/topics/orders", '{"retention":{"days":7}}'),
    400,
    "bad_request",
    /"retention\.days"/,
  ],
  [
    "a cleanup that there is not",
    put("/v1/topics/orders", '{"cleanup":"compact,delete"}'),
    400,
    "bad_request",
    /"cleanup".*"delete".*"compact"/,
  ],
  [
    "tombstones that stay for less than nothing",
    put("/v1/topics/orders", '{"compaction":{"tombstoneMs":-1}}'),
    400,
    "bad_request",
    /"compaction\.tombstoneMs" must be an integer from 0 to/,
  ],
  [
    "compaction of a topic with a record that has no key",
    put("/v1/topics/orders", '{"cleanup":"compact"}'),
    409,
    "conflict",
    /partition \d+ has a record without a key at offset \d+/,
  ],
  [
    "produce to an unknown topic",
    produce('{"value":1}', "/v1/topics/nowhere/records"),
    404,
    "unknown_topic",
    /"nowhere"/,
  ],
  ["an unknown topic", get("/v1/topics/nowhere"), 404, "unknown_topic", /"nowhere"/],
  ["deleting an unknown topic", remove("/v1/topics/nowhere"), 404, "unknown_topic", /"nowhere"/],
  [
    "an unknown partition",
    get("/v1/topics/orders/partitions/3/records"),
    404,
    "unknown_partition",
    /3.*0 to 2/,
  ],
  [
    "a partition that is no number",
    get("/v1/topics/orders/partitions/one/records"),
    400,
    "bad_request",
    /partition/,
  ],

  // ── reading and trimming ──
  ["a fetch from −1", get(`${FETCH}?from=-1`), 400, "bad_request", /from.*-1/],
  ["a fetch from 1.5", get(`${FETCH}?from=1.5`), 400, "bad_request", /from.*1\.5/],
  ["a fetch from 2^53", get(`${FETCH}?from=9007199254740992`), 400, "bad_request", /from/],
  ["a fetch above the log end", get(`${FETCH}?from=11`), 416, "offset_out_of_range", /11.*0.*10/],
  ["a fetch from an unknown place", get(`${FETCH}?from=newest`), 400, "bad_request", /from.*newest/],
  ["a parameter that is unknown", get(`${FETCH}?offset=1`), 400, "bad_request", /"offset"/],
  ["deleting records above the log end", remove(`${FETCH}?before=11`), 416, "offset_out_of_range", /11.*10/],
  ["deleting records before −1", remove(`${FETCH}?before=-1`), 400, "bad_request", /before/],
  ["deleting records without a place", remove(FETCH), 400, "bad_request", /before/],

  // ── groups ──
  ["an unknown group", get("/v1/groups/nobody"), 404, "unknown_group", /"nobody"/],
  ["deleting an unknown group", remove("/v1/groups/nobody"), 404, "unknown_group", /"nobody"/],
  ["deleting a group with a live member", remove("/v1/groups/witness"), 409, "conflict", /live member/],
  [
    "committing beside a live member",
    {
      path: "/v1/groups/witness/offsets",
      body: '{"offsets":[{"topic":"witness","partition":0,"offset":0}]}',
    },
    409,
    "conflict",
    /live member/,
  ],
  ["committing −1", commit({ offset: -1 }), 400, "bad_request", /offset/],
  ["committing 4.5", commit({ offset: 4.5 }), 400, "bad_request", /offset/],
  ["committing 2^53", commit({ offset: 2 ** 53 }), 400, "bad_request", /offset/],
  ["committing text", commit({ offset: "5" }), 400, "bad_request", /offset/],
  [
    "a lone surrogate in metadata",
    { path: COMMIT, body: '{"offsets":[{"topic":"orders","partition":0,"offset":5,"metadata":"\\ud800"}]}' },
    400,
    "bad_request",
    /metadata/,
  ],
  ["no entries", { path: COMMIT, body: '{"offsets":[]}' }, 400, "bad_request", /offsets.*empty/],

  // ── resets of groups ──
  [
    "a reset of nothing",
    reset({}),
    400,
    "bad_request",
    /reset of the group: it must have "topics" and "to", or "plan"/,
  ],
  ["a reset without a place", reset({ topics: ORDERS }), 400, "bad_request", /"topics" and "to", or "plan"/],
  [
    "a reset of no topics that are said",
    reset({ to: "latest" }),
    400,
    "bad_request",
    /"topics" and "to", or "plan"/,
  ],
  [
    "a reset to a place and by a plan",
    reset({ topics: ORDERS, to: "latest", plan: [STEP] }),
    400,
    "bad_request",
    /"topics" and "to", or "plan"/,
  ],
  [
    "a plan with a place",
    reset({ to: "latest", plan: [STEP] }),
    400,
    "bad_request",
    /"topics" and "to", or "plan"/,
  ],
  [
    "a reset of an empty list of topics",
    reset({ topics: [], to: "latest" }),
    400,
    "bad_request",
    /topics.*empty/,
  ],
  [
    "a reset of an empty list of partitions",
    reset({ topics: [{ topic: "orders", partitions: [] }], to: "latest" }),
    400,
    "bad_request",
    /partitions.*empty/,
  ],
  [
    "a reset of 101 topics",
    reset({ topics: numbers(101).map((n) => ({ topic: `t${n}` })), to: "latest" }),
    400,
    "bad_request",
    /topics.*100/,
  ],
  [
    "a reset of a topic twice",
    reset({ topics: [...ORDERS, ...ORDERS], to: "latest" }),
    400,
    "bad_request",
    /topic twice/,
  ],
  [
    "a reset of a partition twice",
    reset({ topics: [{ topic: "orders", partitions: [1, 0, 1] }], to: "latest" }),
    400,
    "bad_request",
    /partition twice/,
  ],
  [
    "a plan of 10,001 partitions",
    reset({ plan: numbers(10_001).map((partition) => ({ ...STEP, partition })) }),
    400,
    "bad_request",
    /plan.*10000/,
  ],
  ["an empty plan", reset({ plan: [] }), 400, "bad_request", /plan.*empty/],
  [
    "a plan with a partition twice",
    reset({ plan: [STEP, { ...STEP, to: 2 }] }),
    400,
    "bad_request",
    /partition twice/,
  ],
  ["a plan that leads nowhere", reset({ plan: [{ ...STEP, to: null }] }), 400, "bad_request", /plan\.0\.to/],
  ["a plan from −1", reset({ plan: [{ ...STEP, from: -1 }] }), 400, "bad_request", /plan\.0\.from/],
  [
    "a plan without an origin",
    reset({ plan: [{ ...STEP, from: undefined }] }),
    400,
    "bad_request",
    /plan\.0\.from/,
  ],
  ["an unknown member of a reset", reset({ plan: [STEP], force: true }), 400, "bad_request", /"force"/],
  [
    "an unknown member of a plan",
    reset({ plan: [{ ...STEP, generation: 1 }] }),
    400,
    "bad_request",
    /generation/,
  ],
  [
    "a reset to an unknown place",
    reset({ topics: ORDERS, to: "newest" }),
    400,
    "bad_request",
    /to.*"earliest"/,
  ],
  ["a reset to no place of a policy", reset({ topics: ORDERS, to: "none" }), 400, "bad_request", /to/],
  [
    "a reset to two places",
    reset({ topics: ORDERS, to: { offset: 1, shift: 1 } }),
    400,
    "bad_request",
    /one place/,
  ],
  ["a reset to 1.5", reset({ topics: ORDERS, to: { offset: 1.5 } }), 400, "bad_request", /offset/],
  ["a dry run that is text", reset({ plan: [STEP], dryRun: "yes" }), 400, "bad_request", /dryRun/],
  ["a reason with NUL", reset({ plan: [STEP], reason: "a\u0000" }), 400, "bad_request", /reason.*NUL/],
  [
    "a reason of 4 KiB and a byte",
    reset({ plan: [STEP], reason: "r".repeat(4_097) }),
    400,
    "bad_request",
    /reason.*4096/,
  ],
  [
    "a reset with a parameter",
    { ...reset({ plan: [STEP] }), path: `${RESET}?dryRun=true` },
    400,
    "bad_request",
    /"dryRun"/,
  ],
  [
    "a member of a reset twice",
    { path: RESET, body: '{"to":"latest","to":"earliest","topics":[{"topic":"orders"}]}' },
    400,
    "bad_request",
    /"to".*twice/,
  ],
  [
    "a reset of a group that is not there",
    reset({ plan: [STEP] }, "nobody"),
    404,
    "unknown_group",
    /"nobody"/,
  ],
  [
    "a reset of a group that is not there, to a time",
    reset({ topics: ORDERS, to: { ago: 1 } }, "nobody"),
    404,
    "unknown_group",
    /"nobody"/,
  ],
  ["a reset of a group with a bad name", reset({ plan: [STEP] }, "a%2Fb"), 400, "bad_request", /group/],
  [
    "a reset in an unknown topic",
    reset({ topics: [...ORDERS, { topic: "nowhere" }], to: "latest" }),
    404,
    "unknown_topic",
    /"nowhere"/,
  ],
  [
    "a plan for an unknown topic",
    reset({ plan: [{ ...STEP, topic: "nowhere" }] }),
    404,
    "unknown_topic",
    /"nowhere"/,
  ],
  [
    "a reset of an unknown partition",
    reset({ topics: [{ topic: "orders", partitions: [0, 3] }], to: "latest" }),
    404,
    "unknown_partition",
    /3.*0 to 2/,
  ],
  [
    "a plan for an unknown partition",
    reset({ plan: [{ ...STEP, partition: 3 }] }),
    404,
    "unknown_partition",
    /3.*0 to 2/,
  ],
  [
    "a reset to above the log end",
    reset({ topics: ORDERS, to: { offset: RECORDS_EACH + 1 } }),
    416,
    "offset_out_of_range",
    /"orders" partition 0.*11.*10/,
  ],
  [
    "a plan to above the log end",
    reset({ plan: [{ ...STEP, to: 11 }] }),
    416,
    "offset_out_of_range",
    /11.*10/,
  ],
  [
    "a shift where nothing is committed",
    reset({ topics: ORDERS, to: { shift: 1 } }),
    409,
    "no_committed_offset",
    /"orders" partition 1/,
  ],
  [
    "the committed offset where nothing is committed",
    reset({ topics: [{ topic: "orders", partitions: [2] }], to: "current" }),
    409,
    "no_committed_offset",
    /"orders" partition 2/,
  ],
  [
    "a plan out of date",
    reset({ plan: [{ ...STEP, from: 3 }] }),
    409,
    "conflict",
    /"orders" partition 0.*3.*4/,
  ],
  [
    "a plan out of date in its last partition",
    reset({ plan: [STEP, { ...STEP, partition: 1, from: 0 }] }),
    409,
    "conflict",
    /partition 1.*null/,
  ],
  [
    "a dry run of a plan out of date",
    reset({ plan: [{ ...STEP, from: null }], dryRun: true }),
    409,
    "conflict",
    /4/,
  ],

  // ── producers and transactions: see also support/bad-transactions.ts ──
  ...[
    ["a list", "[]", /an array/],
    ["null", "null", /null/],
    ["a number", "1", /a number/],
    ["no JSON", "{", /not JSON/],
    ["an epoch", '{"epoch":4}', /"epoch"/],
    ["__proto__", '{"__proto__":{}}', /__proto__/],
  ].map(
    ([what, body, detail]): Refused => [
      `a new epoch with a body that is ${what}`,
      { path: EPOCH, body: String(body) },
      400,
      "bad_request",
      detail as RegExp,
    ],
  ),
  [
    "a new epoch with a body that is not UTF-8",
    { path: EPOCH, body: new Uint8Array([0xff]) },
    400,
    "bad_request",
    /UTF-8/,
  ],
  ["a new epoch with a parameter", { path: `${EPOCH}?epoch=9` }, 400, "bad_request", /"epoch"/],
  ...["a%20b", "a%2Fb", "a%00", "%C3%A9", "p".repeat(250)].map(
    (name): Refused => [
      `a new epoch of the producer ${name.slice(0, 20)}`,
      { path: `/v1/producers/${name}` },
      400,
      "bad_request",
      /producer/,
    ],
  ),
  ["a producer that is asked for", get(EPOCH), 405, "bad_request", /POST/],
  ["transactions that are asked for", get(TRANSACT), 405, "bad_request", /POST/],
  ["an empty body of a transaction", { path: TRANSACT, body: "" }, 400, "bad_request", /not JSON/],
  ["half a transaction", { path: TRANSACT, body: '{"appends":[' }, 400, "bad_request", /not JSON/],
  ["a transaction that is a list", { path: TRANSACT, body: "[]" }, 400, "bad_request", /an array/],
  [
    "a transaction that is not UTF-8",
    { path: TRANSACT, body: new Uint8Array([0x7b, 0xff, 0x7d]) },
    400,
    "bad_request",
    /UTF-8/,
  ],
  [
    "a transaction nested 10,000 deep",
    {
      path: TRANSACT,
      body: `{"appends":[{"topic":"orders","records":[{"value":1}]}],"expect":${nested(10_000)}}`,
    },
    400,
    "bad_request",
    /expect|16/,
  ],
  [
    "a record of a transaction with a value 129 deep",
    { path: TRANSACT, body: `{"appends":[{"topic":"orders","records":[{"value":${nested(129)}}]}]}` },
    400,
    "bad_request",
    /appends\[0\]\.records\[0\].*129.*128/,
  ],
  [
    "a transaction of 4,000,001 bytes",
    { path: TRANSACT, body: transactionOfBytes(4_000_001) },
    413,
    "batch_too_large",
    /4000000/,
  ],
  [
    "a transaction of more bytes in several appends",
    { path: TRANSACT, body: tooManyBytes() },
    413,
    "batch_too_large",
    /4000000/,
  ],
  [
    "a transaction with a parameter",
    { path: `${TRANSACT}?producer=writer`, body: '{"appends":[]}' },
    400,
    "bad_request",
    /"producer"/,
  ],

  // ── routes ──
  ["a route that is unknown", get("/v1/nothing"), 404, "bad_request", /no route/],
  ["a method that is not taken", remove(PRODUCE), 405, "bad_request", /DELETE/],
  ["the stream without an upgrade", get("/v1/stream"), 426, "bad_request", /upgrade/i],
];

describe("over HTTP is refused, and nothing changes:", () => {
  test.each(REFUSED)("%s", async (_, request, status, code, detail) => {
    const answer = await watched.leavesAllAsItWas(() => send(request));
    expect(answer.type).toBe("application/problem+json");
    const problem = JSON.parse(answer.text);
    expect(problem).toMatchObject({ status, code, retriable: false });
    expect(problem.detail).toMatch(detail);
    expect(answer.status).toBe(status);
  });
});

describe("a produce over HTTP is refused, and nothing changes:", () => {
  test.each(BAD_PRODUCES)("$name", async ({ body, ...expected }) => {
    const { topic, ...records } = PRODUCED;
    const request = {
      path: `/v1/topics/${topic}/records`,
      body: JSON.stringify({ ...records, ...fieldsOf(body) }),
    };
    await expectRefused(request, expected);
  });
});

describe("a transaction over HTTP is refused, and nothing changes:", () => {
  test.each(BAD_TRANSACTIONS)("$name", async ({ body, ...expected }) => {
    await expectRefused({ path: TRANSACT, body: textOf(body) }, expected);
  });

  test("appends to 1,025 partitions", async () => {
    await send(put("/v1/topics/limits-all", '{"partitionCount":1024}'));
    const wide = numbers(1_024).map((partition) => ({ value: 1, partition }));
    const appends = [{ topic: "limits-all", records: wide }, PRODUCED];
    await expectRefused(
      { path: TRANSACT, body: JSON.stringify({ appends }) },
      { code: "batch_too_large", message: /1025 partitions.*1024/, facts: { found: 1_025, allowed: 1_024 } },
    );
  });
});

async function expectRefused(
  request: Request,
  { code, message, facts = {} }: Omit<BadWrite, "name" | "body">,
) {
  const answer = await watched.leavesAllAsItWas(() => send(request));
  expect(answer.type).toBe("application/problem+json");
  const problem = JSON.parse(answer.text);
  expect(problem).toMatchObject({ status: answer.status, code, retriable: false, ...facts });
  expect(problem.detail).toMatch(message);
  expect(answer.status).toBe(ERROR_CODES[code].status);
}

describe("what a producer has written is answered as then, and nothing changes:", () => {
  test.each([0, 1])("the sequence %d, which goes back", async (sequence) => {
    const body = JSON.stringify({ records: [{ value: "again" }], producer: { ...PRODUCER, sequence } });
    const answer = await watched.leavesAllAsItWas(() => send({ path: "/v1/topics/payments/records", body }));
    expect(JSON.parse(answer.text)).toEqual({
      runs: [{ partition: 0, offset: sequence, count: 1 }],
      duplicate: true,
    });
  });
});

describe("commits from outside that have no effect are told so, entry by entry:", () => {
  test.each([
    ["above the log end", { offset: RECORDS_EACH + 1 }, { offset: 4, code: "offset_out_of_range" }],
    ["below the committed offset", { offset: 3 }, { offset: 4 }],
    ["for an unknown partition", { partition: 3 }, { offset: null, code: "unknown_partition" }],
    ["for an unknown topic", { topic: "nowhere" }, { offset: null, code: "unknown_topic" }],
  ])("%s", async (_, entry, outcome) => {
    const answer = await watched.leavesAllAsItWas(() => send(commit(entry)));
    expect(answer.status).toBe(200);
    expect(JSON.parse(answer.text).offsets).toMatchObject([outcome]);
  });
});

// 10,000 topics and 64 MiB of pending writes are held to their limits in test/store/topics.test.ts and
// test/store/write-queue.test.ts.
describe("at its limit is taken:", () => {
  const FREE = "/v1/topics/limits/records";
  test.each([
    ["10,000 records", produce(values(10_000), FREE)],
    ["a body of 4,000,000 bytes", { path: FREE, body: bodyOfBytes(4_000_000) }],
    ["a record of 1 MiB", produce(`{"key":"k","value":"${"x".repeat(MIB - 3)}"}`, FREE)],
    ["a transaction of 4,000,000 bytes", { path: TRANSACT, body: transactionOfBytes(4_000_000, "limits") }],
    [
      "a producer's name of 249 characters",
      { path: `/v1/producers/${"limits".padEnd(249, "p")}`, body: "{}" },
    ],
    [
      "an epoch and 10,000 records in several appends",
      {
        path: TRANSACT,
        body: `{"producer":{"id":"limits","epoch":${2 ** 53 - 1},"sequence":0},"appends":[${[4_000, 6_000]
          .map((count) => `{"topic":"limits","records":[${values(count)}]}`)
          .join(",")}]}`,
      },
    ],
    ["a key of 32 KiB", produce(`{"value":1,"key":"${"k".repeat(32_768)}"}`, FREE)],
    ["64 headers", produce(`{"value":1,"headers":${headers(64)}}`, FREE)],
    ["headers of 16 KiB", produce(`{"value":1,"headers":${headersOfBytes(16_384)}}`, FREE)],
    ["a value nested 128 deep", produce(`{"value":${nested(128)}}`, FREE)],
    ["a timestamp of 2^53 − 1", produce(`{"value":1,"timestamp":${2 ** 53 - 1}}`, FREE)],
    ["a topic's name of 249 characters", put(`/v1/topics/${"limits".padEnd(249, "x")}`, "{}")],
    ["1,024 partitions", put("/v1/topics/limits-wide", '{"partitionCount":1024}')],
    ["a fetch of 10,000 records", get(`${FETCH}?limit=10000`)],
    ["a fetch of 4,000,000 bytes", get(`${FETCH}?maxBytes=4000000`)],
    ["a wait of 30,000 ms, with records there", get(`${FETCH}?waitMs=30000`)],
    ["a fetch from the log end", get(`${FETCH}?from=10`)],
    ["a reason of 4 KiB", reset({ plan: [STEP], dryRun: true, reason: "r".repeat(4_096) })],
    [
      "metadata of 4 KiB",
      {
        path: "/v1/groups/limits/offsets",
        body: JSON.stringify({
          offsets: [{ topic: "limits", partition: 0, offset: 0, metadata: "m".repeat(4_096) }],
        }),
      },
    ],
  ] as const)("%s", async (_, request: Request) => {
    const { status, text } = await watched.leavesAllAsItWas(() => send(request));
    if (status >= 300) throw new Error(`${status} ${text.slice(0, 300)}`);
  });

  test("a reset of 100 topics and 10,000 partitions, and the plan that it answers", async () => {
    const topics = numbers(100).map((n) => ({ topic: `limits-reset-${n}` }));
    for (const { topic } of topics) await send(put(`/v1/topics/${topic}`, '{"partitionCount":100}'));
    const offsets = [{ topic: "limits-reset-0", partition: 0, offset: 0 }];
    await send({ path: "/v1/groups/limits/offsets", body: JSON.stringify({ offsets }) });
    const planned = await watched.leavesAllAsItWas(() =>
      send(reset({ topics, to: "latest", dryRun: true }, "limits")),
    );
    const { plan } = JSON.parse(planned.text);
    expect([planned.status, plan.length]).toEqual([200, 10_000]);
    const applied = await watched.leavesAllAsItWas(() => send(reset({ plan }, "limits")));
    expect(JSON.parse(applied.text)).toEqual({ plan, applied: true });
  }, 20_000);

  test("and a lone surrogate and NUL in a value come back as they were written", async () => {
    const path = "/v1/topics/limits-kept";
    await send(put(path, "{}"));
    await send(produce('{"value":"\\ud800\\u0000"}', `${path}/records`));
    const { text } = await send(get(`${path}/partitions/0/records`));
    expect(text).toContain('"value":"\\ud800\\u0000"');
  });
});
