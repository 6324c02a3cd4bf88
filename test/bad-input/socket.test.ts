// Bad input over the socket, and every limit of a frame at the limit and one above. After each case all is as it was.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { ServerFrame } from "../../src/protocol/frames.ts";
import {
  BAD_PRODUCES,
  BAD_TRANSACTIONS,
  type BadWrite,
  fieldsOf,
  PRODUCED,
  textOf,
  tooManyBytes,
} from "../support/bad-transactions.ts";
import { RawSocket } from "../support/raw-socket.ts";
import type { FrameOf, StreamClient } from "../support/stream-client.ts";
import { nested, PRODUCER, RECORDS_EACH, WatchedServer } from "../support/watched-server.ts";

let watched: WatchedServer;
/** Has `orders` as `s1` in the group `subject`, of each partition two records, and has acknowledged two of the first. */
let subject: StreamClient;
let generations: readonly number[];

const PARTITIONS = [0, 1, 2] as const;
const SENT_EACH = 2;
const FRAME_BYTES_MAX = 4 * 1024 * 1024 + 64 * 1024;

beforeAll(async () => {
  watched = await WatchedServer.start();
  subject = await watched.connect();
  const window = { records: 2 * SENT_EACH };
  subject.send({ type: "subscribe", subscription: "s1", topics: ["orders"], group: "subject", window });
  await subject.expect("subscribed");
  const { partitions } = await subject.expect("assigned");
  generations = PARTITIONS.map(
    (number) => partitions.find(({ partition }) => partition === number)?.generation ?? -1,
  );
  await subject.expectRecords(2 * SENT_EACH);
  subject.send(ack({ partition: 0, offset: SENT_EACH }));
  await subject.expect("acked");
  await subject.expectRecords(SENT_EACH);
});

afterAll(async () => {
  await subject.close();
  await watched.stop();
});

interface Entry {
  readonly topic?: string;
  readonly partition: number;
  readonly offset: unknown;
  readonly generation?: unknown;
  readonly metadata?: string;
}

function ack(...entries: readonly Entry[]) {
  const offsets = entries.map((entry) => ({
    topic: "orders",
    generation: generations[entry.partition],
    ...entry,
  }));
  return { type: "ack", id: "case", subscription: "s1", offsets };
}

const text = (frame: unknown) => (typeof frame === "string" ? frame : JSON.stringify(frame));
const names = (count: number) => Array.from({ length: count }, (_, n) => `t${n}`);
const subscribe = (fields: Record<string, unknown>) => ({
  type: "subscribe",
  id: "case",
  subscription: "s2",
  topics: ["orders"],
  group: "limits",
  ...fields,
});
const read = (fields: Record<string, unknown>) => ({
  type: "subscribe",
  id: "case",
  subscription: "s2",
  topics: ["orders"],
  from: "latest",
  ...fields,
});
const seek = (to: unknown, fields: Record<string, unknown> = {}) => ({
  type: "seek",
  id: "case",
  subscription: "s1",
  topic: "orders",
  partition: 0,
  to,
  ...fields,
});
const produce = (records: string, fields = "") =>
  `{"type":"produce","id":"case","topic":"orders","records":[${records}]${fields}}`;

// ── what closes the socket ───────────────────────────────────────────────────────────────────────────────

type BadFrame = readonly [name: string, frame: unknown, message: RegExp];

const BAD_FRAMES: readonly BadFrame[] = [
  ["text that is not JSON", "hello", /not JSON/],
  ["half a frame", '{"type":"pong"', /not JSON/],
  ["an array", "[]", /array/],
  ["null", "null", /null/],
  ["a frame nested 10,000 deep", `{"type":"subscribe","reset":${nested(10_000)}}`, /"topics" must be there/],
  ["no type", {}, /type/],
  ["an unknown type", { type: "subscrib" }, /"subscrib"/],
  ["a type that is a number", { type: 1 }, /type/],
  ["__proto__ as a type", { type: "__proto__" }, /"__proto__"/],
  ["subscribe without topics", { type: "subscribe", group: "g" }, /"topics" must be there/],
  ["topics that are text", subscribe({ topics: "orders" }), /"topics"/],
  ["a group that is a number", subscribe({ group: 7 }), /"group"/],
  ["a window that is a number", subscribe({ window: 5 }), /"window"/],
  ["an ack without offsets", { type: "ack", subscription: "s1" }, /"offsets" must be there/],
  [
    "an ack without a generation",
    { type: "ack", offsets: [{ topic: "orders", partition: 0, offset: 1 }] },
    /generation/,
  ],
  [
    "an offset that is text",
    { type: "ack", offsets: [{ topic: "orders", partition: 0, generation: 1, offset: "1" }] },
    /offset/,
  ],
  ["a seek without a place", { type: "seek", topic: "orders", partition: 0 }, /"to" must be there/],
  ["an id that is an object", { type: "pong", id: {} }, /"id"/],
];

describe("over the socket closes it with 4400, says why, and nobody else notices:", () => {
  test.each(BAD_FRAMES)("%s", async (_, frame, message) => {
    await watched.leavesAllAsItWas(async () => {
      const client = await watched.connect();
      client.sendText(text(frame));
      const error = await client.expect("error");
      expect(error).toMatchObject({ code: "bad_frame", retriable: false });
      expect(error.message).toMatch(message);
      expect((await client.closed()).code).toBe(4400);
    });
  });

  test("a frame of 4 MiB + 64 KiB and a byte, with 1009", async () => {
    await watched.leavesAllAsItWas(async () => {
      const client = await watched.connect();
      client.sendText(" ".repeat(FRAME_BYTES_MAX + 1));
      expect((await client.closed()).code).toBe(1009);
    });
  });

  test("bytes that are not UTF-8 in a text frame, with 1007", async () => {
    await watched.leavesAllAsItWas(async () => {
      const socket = await RawSocket.openSilent(watched.server.streamUrl);
      await socket.send([new Uint8Array([0x7b, 0xff, 0x7d])]);
      expect((await socket.readToEnd()).code).toBe(1007);
    });
  });
});

// ── what is refused, and the socket lives ────────────────────────────────────────────────────────────────

type Refused = readonly [name: string, frame: unknown, code: string, message: RegExp];

const REFUSED: readonly Refused[] = [
  [
    "a frame that is not built yet: auth",
    { type: "auth", id: "case", token: "secret" },
    "bad_request",
    /"auth".*not built/,
  ],
  ["an unknown member", { type: "pong", id: "case", at: 1 }, "bad_request", /"at"/],
  ["an unknown member of a window", subscribe({ window: { frames: 1 } }), "bad_request", /frames/],
  [
    "a member twice",
    '{"type":"unsubscribe","id":"case","subscription":"s1","subscription":"s1"}',
    "bad_request",
    /"subscription" is there twice/,
  ],
  ["__proto__ as a member", '{"type":"pong","id":"case","__proto__":{}}', "bad_request", /__proto__/],

  // ── subscribe ──
  ["no topics", subscribe({ topics: [] }), "bad_request", /topics.*empty/],
  ["101 topics", subscribe({ topics: names(101) }), "bad_request", /topics.*100/],
  ["a topic twice", subscribe({ topics: ["orders", "orders"] }), "bad_request", /twice/],
  ["a topic's name with a space", subscribe({ topics: ["a b"] }), "bad_request", /topics/],
  ["an unknown topic", subscribe({ topics: ["nowhere"] }), "unknown_topic", /"nowhere"/],
  ["a group's name of 250 characters", subscribe({ group: "g".repeat(250) }), "bad_request", /group.*249/],
  [
    "neither group nor from",
    { type: "subscribe", id: "case", topics: ["orders"] },
    "bad_request",
    /group.*from|from.*group/,
  ],
  ["both group and from", subscribe({ from: "latest" }), "bad_request", /group.*from|from.*group/],
  ["a name that the socket has", subscribe({ subscription: "s1" }), "conflict", /"s1"/],
  [
    "a topic that the socket has in that group already",
    subscribe({ group: "subject", topics: ["limits", "orders"] }),
    "conflict",
    /"orders".*"subject".*"s1"/,
  ],
  ["an unknown policy", subscribe({ reset: "newest" }), "bad_request", /reset.*"earliest"/],
  ["an unknown policy in parts", subscribe({ reset: { missing: "first" } }), "bad_request", /reset\.missing/],
  ["a policy with an unknown member", subscribe({ reset: { above: "latest" } }), "bad_request", /above/],
  ["a policy by a negative time", subscribe({ reset: { ago: -1 } }), "bad_request", /ago/],
  ["an unknown ack", subscribe({ ack: "auto" }), "bad_request", /"manual" or "none"/],
  ["a window of no records", subscribe({ window: { records: 0 } }), "bad_request", /records.*1 to 10000/],
  [
    "a window of 10,001 records",
    subscribe({ window: { records: 10_001 } }),
    "bad_request",
    /records.*1 to 10000/,
  ],
  ["a window of 65,535 bytes", subscribe({ window: { bytes: 65_535 } }), "bad_request", /bytes.*65536/],
  [
    "a window of 4 MiB and a byte",
    subscribe({ window: { bytes: 4 * 1024 * 1024 + 1 } }),
    "bad_request",
    /bytes.*4194304/,
  ],
  [
    "a session timeout of 5,999 ms",
    subscribe({ sessionTimeoutMs: 5_999 }),
    "bad_request",
    /sessionTimeoutMs.*6000/,
  ],
  [
    "a session timeout of 300,001 ms",
    subscribe({ sessionTimeoutMs: 300_001 }),
    "bad_request",
    /sessionTimeoutMs.*300000/,
  ],
  ["an ack timeout of 99 ms", subscribe({ ackTimeoutMs: 99 }), "bad_request", /ackTimeoutMs.*100/],
  ["a lone surrogate in an id", '{"type":"pong","id":"\\ud800"}', "bad_request", /id.*surrogate/],
  ["NUL in a memberId", subscribe({ memberId: "a\u0000" }), "bad_request", /memberId.*NUL/],
  ["a reader from an unknown place", read({ from: "newest" }), "bad_request", /from/],
  ["a reader from a place with an unknown member", read({ from: { newest: 1 } }), "bad_request", /newest/],
  ["a reader from a shift", read({ from: { shift: 1 } }), "bad_request", /shift/],
  ["a reader from above the log end", read({ from: { offset: 11 } }), "offset_out_of_range", /11.*10/],
  ["a reader from −1", read({ from: { offset: -1 } }), "bad_request", /offset/],
  ["a reader from 2^53", read({ from: { offset: 2 ** 53 } }), "bad_request", /offset/],
  [
    "a reader of an unknown partition",
    read({ from: [{ topic: "orders", partition: 3, offset: 0 }] }),
    "unknown_partition",
    /partition 3/,
  ],
  [
    "a reader of another topic of that name",
    read({ from: [{ topic: "orders", partition: 0, offset: 0, topicId: 99 }] }),
    "unknown_topic",
    /99|orders/,
  ],

  // ── ack, seek, pause, release ──
  [
    "an ack of an unknown subscription",
    {
      type: "ack",
      id: "case",
      subscription: "s9",
      offsets: [{ topic: "orders", partition: 0, generation: 1, offset: 1 }],
    },
    "unknown_subscription",
    /"s9"/,
  ],
  [
    "an ack of nothing",
    { type: "ack", id: "case", subscription: "s1", offsets: [] },
    "bad_request",
    /offsets.*empty/,
  ],
  ["a seek to an unknown place", seek("newest"), "bad_request", /to.*"earliest"/],
  ["a seek to a place with an unknown member", seek({ foo: 1 }), "bad_request", /foo/],
  ["a seek to two places", seek({ offset: 1, shift: 2 }), "bad_request", /one place/],
  ["a seek above the log end", seek({ offset: 11 }), "offset_out_of_range", /11.*10/],
  ["a seek to −1", seek({ offset: -1 }), "bad_request", /offset/],
  ["a seek to 0.5", seek({ offset: 0.5 }), "bad_request", /offset/],
  ["a seek in an unknown partition", seek("latest", { partition: 3 }), "not_assigned", /partition 3/],
  [
    "a seek in an unknown subscription",
    seek("latest", { subscription: "s9" }),
    "unknown_subscription",
    /"s9"/,
  ],
  [
    "a pause of a partition that is not assigned",
    { type: "pause", id: "case", subscription: "s1", partitions: [{ topic: "orders", partition: 3 }] },
    "not_assigned",
    /partition 3/,
  ],
  [
    "a pause of nothing",
    { type: "pause", id: "case", subscription: "s1", partitions: [] },
    "bad_request",
    /partitions.*empty/,
  ],
  [
    "a release of what is not revoked",
    { type: "release", id: "case", subscription: "s1", partitions: [{ topic: "orders", partition: 0 }] },
    "conflict",
    /revoked/,
  ],
  [
    "a release of what the subscription does not have",
    { type: "release", id: "case", subscription: "s1", partitions: [{ topic: "orders", partition: 3 }] },
    "not_assigned",
    /partition 3/,
  ],
  [
    "a release of nothing",
    { type: "release", id: "case", subscription: "s1", partitions: [] },
    "bad_request",
    /partitions.*empty/,
  ],
  [
    "a release in an unknown subscription",
    { type: "release", id: "case", subscription: "s9", partitions: [{ topic: "orders", partition: 0 }] },
    "unknown_subscription",
    /"s9"/,
  ],
  [
    "an unsubscribe of an unknown subscription",
    { type: "unsubscribe", id: "case", subscription: "s9" },
    "unknown_subscription",
    /"s9"/,
  ],

  // ── produce ──
  [
    "a produce to an unknown topic",
    '{"type":"produce","id":"case","topic":"nowhere","records":[{"value":1}]}',
    "unknown_topic",
    /"nowhere"/,
  ],
  [
    "a produce to an unknown partition",
    produce('{"value":1,"partition":3}'),
    "unknown_partition",
    /found 3.*0 to 2/,
  ],
  ["a produce of nothing", produce(""), "bad_request", /empty/],
  [
    "a produce with both value and bytes",
    produce('{"value":1,"bytes":""}'),
    "bad_request",
    /both "value" and "bytes"/,
  ],
  [
    "a produce of 10,001 records",
    produce(Array(10_001).fill('{"value":1}').join(",")),
    "batch_too_large",
    /10001.*10000/,
  ],
  [
    "a produce of a record of 1 MiB and a byte",
    produce(`{"value":"${"x".repeat(1024 * 1024 - 1)}"}`),
    "record_too_large",
    /1048577.*1048576/,
  ],
  [
    "a produce with a lone surrogate in a key",
    produce('{"value":1,"key":"\\ud800"}'),
    "bad_request",
    /lone surrogate/,
  ],
  ["a produce of a value 129 deep", produce(`{"value":${nested(129)}}`), "bad_request", /128/],
];

/** The one answer to the case's frame, and that nothing else came. */
async function answerOf(client: StreamClient, frame: unknown): Promise<ServerFrame> {
  client.sendText(text(frame));
  const answer = await client.next();
  expect(await client.untilAnswered()).toEqual([]);
  return answer;
}

describe("over the socket is refused, and the socket lives:", () => {
  test.each(REFUSED)("%s", async (_, frame, code, message) => {
    const answer = (await watched.leavesAllAsItWas(() => answerOf(subject, frame))) as FrameOf<"error">;
    expect(answer).toMatchObject({ type: "error", code, retriable: false });
    expect(answer.message).toMatch(message);
    // An id that is not allowed cannot be said again.
    if (!text(frame).includes("\\ud800") || code !== "bad_request" || text(frame).includes("case"))
      expect(answer.id).toBe("case");
  });

  test("a frame without an id, with an error that has none", async () => {
    const answer = await watched.leavesAllAsItWas(() =>
      answerOf(subject, { type: "unsubscribe", subscription: "s9" }),
    );
    expect(answer).toMatchObject({ type: "error", code: "unknown_subscription", subscription: "s9" });
    expect(answer).not.toHaveProperty("id");
  });
});

describe("a produce over the socket is refused:", () => {
  test.each(BAD_PRODUCES)("$name", ({ body, ...expected }) =>
    expectRefused(text({ type: "produce", id: "case", ...PRODUCED, ...fieldsOf(body) }), expected),
  );
});

describe("a transaction over the socket is refused:", () => {
  test.each(BAD_TRANSACTIONS)("$name", ({ body, ...expected }) =>
    expectRefused(transactFrame(textOf(body)), expected),
  );

  test("appends of more than 4,000,000 bytes, in a frame that is small enough", () =>
    expectRefused(transactFrame(tooManyBytes()), { code: "batch_too_large", message: /bytes.*4000000/ }));

  test.each<[name: string, entry: Omit<Entry, "partition">, code: BadWrite["code"], facts: object]>([
    [
      "above the log end",
      { offset: RECORDS_EACH + 1 },
      "offset_out_of_range",
      { found: 11, logEndOffset: 10 },
    ],
    ["of what is committed", { offset: 2 }, "conflict", { found: 2, committedOffset: 2 }],
    ["below what is committed", { offset: 1 }, "conflict", { found: 1, committedOffset: 2 }],
    ["in generation 0", { offset: 3, generation: 0 }, "fenced_generation", { generation: 0 }],
  ])("a commit %s, although all else of it is right", async (_, entry, code, facts) => {
    const { offsets } = ack({ partition: 1, offset: 2 }, { partition: 0, ...entry });
    const body = { appends: [PRODUCED], commits: { group: "subject", offsets } };
    await expectRefused(transactFrame(text(body)), {
      code,
      message: /Cannot commit offset/,
      facts: { topic: "orders", partition: 0, ...facts },
    });
  });
});

/** `bad_frame` closes the socket: it is sent on one of its own. */
async function expectRefused(frame: string, expected: Omit<BadWrite, "name" | "body">): Promise<void> {
  const { code, message, facts = {}, isBadFrame } = expected;
  const error = await watched.leavesAllAsItWas(async () => {
    if (!isBadFrame) return answerOf(subject, frame);
    const client = await watched.connect();
    client.sendText(frame);
    const answer = await client.next();
    expect((await client.closed()).code).toBe(4400);
    return answer;
  });
  const said = { code: isBadFrame ? ("bad_frame" as const) : code, retriable: false, ...facts };
  expect(error).toMatchObject({ type: "error", id: "case", ...said } as never);
  expect((error as FrameOf<"error">).message).toMatch(message);
}

function transactFrame(body: string): string {
  const rest = body.slice(1);
  return `{"type":"transact","id":"case"${rest === "}" ? "" : ","}${rest}`;
}

describe("what a producer has written is answered as then over the socket, and nothing changes:", () => {
  test.each([0, 1])("the sequence %d, which goes back", async (sequence) => {
    const producer = { ...PRODUCER, sequence };
    const runs = [{ partition: 0, offset: sequence, count: 1 }];
    const records = [{ value: "again" }];
    const produced = { type: "produce", id: "case", topic: "payments", records, producer };
    expect(await watched.leavesAllAsItWas(() => answerOf(subject, produced))).toEqual({
      type: "produced",
      id: "case",
      runs,
      duplicate: true,
    });
    const appends = [{ topic: "payments", records }];
    const transacted = { type: "transact", id: "case", appends, producer };
    expect(await watched.leavesAllAsItWas(() => answerOf(subject, transacted))).toEqual({
      type: "transacted",
      id: "case",
      runs: runs.map((run) => ({ topic: "payments", ...run })),
      duplicate: true,
    });
  });
});

describe("an ack that cannot count is answered entry by entry, and nothing changes:", () => {
  const cases: readonly (readonly [string, () => unknown, Record<string, unknown>])[] = [
    [
      "above what was delivered",
      () => ack({ partition: 0, offset: 5 }),
      { offset: 2, code: "offset_out_of_range" },
    ],
    [
      "of 2^53 − 1",
      () => ack({ partition: 0, offset: 2 ** 53 - 1 }),
      { offset: 2, code: "offset_out_of_range" },
    ],
    [
      "for a partition that is not owned",
      () => ack({ topic: "witness", partition: 0, offset: 0 }),
      { topic: "witness", code: "fenced_generation" },
    ],
    [
      "for an unknown partition",
      () => ack({ partition: 3, generation: 1, offset: 1 }),
      { offset: null, code: "unknown_partition" },
    ],
    [
      "for an unknown topic",
      () => ack({ topic: "nowhere", partition: 0, offset: 1 }),
      { offset: null, code: "unknown_topic" },
    ],
    [
      "with a generation below",
      () => ack({ partition: 0, generation: (generations[0] ?? 0) - 1, offset: 2 }),
      { offset: 2, code: "fenced_generation" },
    ],
    [
      "with a generation above",
      () => ack({ partition: 0, generation: (generations[0] ?? 0) + 1_000, offset: 2 }),
      { offset: 2, code: "fenced_generation" },
    ],
    ["below the committed offset", () => ack({ partition: 0, offset: 1 }), { offset: 2 }],
    [
      "twice for one partition",
      () => ack({ partition: 0, offset: 1 }, { partition: 0, offset: 2 }),
      { offset: 2 },
    ],
  ];
  test.each(cases)("%s", async (_, frame, outcome) => {
    const answer = await watched.leavesAllAsItWas(() => answerOf(subject, frame()));
    expect(answer).toMatchObject({ type: "acked", id: "case", subscription: "s1" });
    const { offsets } = answer as FrameOf<"acked">;
    expect(offsets).toHaveLength(1);
    expect(offsets[0]).toMatchObject(outcome);
    expect(offsets[0]?.code).toBe(outcome.code as never);
  });

  test("twice for one partition, once above what was delivered: the other counts", async () => {
    const frame = ack({ partition: 0, offset: 2 }, { partition: 0, offset: 99 });
    const { offsets } = (await watched.leavesAllAsItWas(() => answerOf(subject, frame))) as FrameOf<"acked">;
    expect(offsets).toEqual([
      { topic: "orders", partition: 0, offset: 2 },
      { topic: "orders", partition: 0, offset: 2, code: "offset_out_of_range" },
    ]);
  });

  const REFUSED_WHOLE: readonly (readonly [string, () => unknown, RegExp])[] = [
    ["of −1", () => ack({ partition: 0, offset: -1 }), /offset/],
    ["of 0.5", () => ack({ partition: 0, offset: 0.5 }), /offset/],
    ["of 2^53", () => ack({ partition: 0, offset: 2 ** 53 }), /offset/],
    [
      "with metadata of 4 KiB and a byte",
      () => ack({ partition: 0, offset: 2, metadata: "m".repeat(4_097) }),
      /metadata.*4096/,
    ],
    [
      "with a lone surrogate in its metadata",
      () => ack({ partition: 0, offset: 2, metadata: "\ud800" }),
      /metadata.*surrogate/,
    ],
    ["with NUL in its metadata", () => ack({ partition: 0, offset: 2, metadata: "\u0000" }), /metadata.*NUL/],
    [
      "of 10,001 entries",
      () => ack(...Array.from({ length: 10_001 }, () => ({ partition: 0, offset: 2 }))),
      /10000/,
    ],
  ];
  test.each(REFUSED_WHOLE)("%s, the whole frame", async (_, frame, message) => {
    const answer = (await watched.leavesAllAsItWas(() => answerOf(subject, frame()))) as FrameOf<"error">;
    expect(answer).toMatchObject({ type: "error", id: "case", code: "bad_request" });
    expect(answer.message).toMatch(message);
  });
});

// ── limits ───────────────────────────────────────────────────────────────────────────────────────────────

describe("at its limit is taken:", () => {
  const limits = { topics: ["limits"] };
  const cases: readonly (readonly [string, Record<string, unknown>])[] = [
    ["a window of one record", subscribe({ ...limits, window: { records: 1 } })],
    ["a window of 10,000 records", subscribe({ ...limits, window: { records: 10_000 } })],
    ["a window of 65,536 bytes", subscribe({ ...limits, window: { bytes: 65_536 } })],
    ["a window of 4 MiB", subscribe({ ...limits, window: { bytes: 4 * 1024 * 1024 } })],
    ["a session timeout of 6,000 ms", subscribe({ ...limits, sessionTimeoutMs: 6_000 })],
    ["a session timeout of 300,000 ms", subscribe({ ...limits, sessionTimeoutMs: 300_000 })],
    ["an ack timeout of 100 ms", subscribe({ ...limits, ackTimeoutMs: 100 })],
    ["a group's name of 249 characters", subscribe({ ...limits, group: "limits".padEnd(249, "g") })],
    ["a reader from the log end", read({ from: { offset: 10 } })],
    ["a frame of 4 MiB + 64 KiB", read({})],
  ];
  test.each(cases)("%s", async (name, frame) => {
    await watched.leavesAllAsItWas(async () => {
      const client = await watched.connect();
      client.sendText(name.startsWith("a frame") ? text(frame).padEnd(FRAME_BYTES_MAX) : text(frame));
      await client.expect("subscribed");
      await client.expect("assigned");
      await client.close();
    });
  });

  test("100 topics", async () => {
    const topics = names(100).map((name) => `limits-${name}`);
    for (const topic of topics) await watched.http.createTopic(topic);
    await watched.leavesAllAsItWas(async () => {
      const client = await watched.connect();
      client.send(read({ topics }));
      await client.expect("subscribed");
      expect((await client.expect("assigned")).partitions).toHaveLength(100);
      await client.close();
    });
  });

  test("64 subscriptions of a socket, and one more is refused", async () => {
    await watched.leavesAllAsItWas(async () => {
      const client = await watched.connect();
      for (const subscription of names(64)) client.send(read({ subscription, id: subscription }));
      const opened = await client.untilAnswered();
      expect(opened.filter(({ type }) => type === "subscribed")).toHaveLength(64);
      expect(await answerOf(client, read({}))).toMatchObject({
        type: "error",
        code: "bad_request",
        id: "case",
      });
      await client.close();
    });
  });

  test("an ack of 10,000 entries with metadata of 4 KiB", async () => {
    await watched.leavesAllAsItWas(async () => {
      const entries = Array.from({ length: 10_000 }, () => ({ partition: 0, offset: 1 }));
      expect(await answerOf(subject, ack(...entries))).toMatchObject({
        type: "acked",
        offsets: [{ offset: 2 }],
      });
      const metadata = "m".repeat(4_096);
      const answer = await answerOf(subject, ack({ partition: 0, offset: 1, metadata }));
      expect(answer).toMatchObject({ type: "acked", offsets: [{ offset: 2 }] });
    });
  });
});

// ── silence ──────────────────────────────────────────────────────────────────────────────────────────────

describe("a client", () => {
  test("that sends and never reads is closed with 4029, and nobody else notices", async () => {
    await watched.leavesAllAsItWas(async () => {
      const socket = await RawSocket.openSilent(watched.server.streamUrl);
      const question = JSON.stringify({ type: "unsubscribe", id: "q".repeat(200), subscription: "s9" });
      // Much more than the socket's buffers and what the server holds for a client together.
      for (let sent = 0; sent < 40; sent += 1)
        void socket.send(Array.from({ length: 2_500 }, () => question));
      await watched.expectNextRecord();
      await socket.send([question]); // resolves when the server has taken or dropped all of it
      const { texts, code } = await socket.readToEnd();
      expect(code).toBe(4029);
      expect(texts.length).toBeLessThan(100_000);
    });
  });

  test("that subscribes and never acknowledges is sent its window and no more", async () => {
    await watched.leavesAllAsItWas(async () => {
      const client = await watched.connect();
      client.send(subscribe({ topics: ["limits"], window: { records: 4 } }));
      await client.expect("subscribed");
      await client.expect("assigned");
      await watched.http.produce(
        "limits",
        Array.from({ length: 50 }, (_, value) => ({ value, partition: 0 })),
      );
      await client.expectRecords(4);
      for (let turn = 0; turn < 3; turn += 1) await watched.expectNextRecord();
      expect(await client.untilAnswered()).toEqual([]);
      await client.close();
    });
  });

  test("that opens and says nothing costs nobody anything, and may speak later", async () => {
    await watched.leavesAllAsItWas(async () => {
      const client = await watched.connect();
      for (let turn = 0; turn < 3; turn += 1) await watched.expectNextRecord();
      expect(client.unread).toEqual([]);
      client.send(read({}));
      await client.expect("subscribed");
      await client.close();
    });
  });
});
