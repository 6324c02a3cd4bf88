import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type ParsedFrame, parseClientFrame, parseSubscribeQuery } from "../../src/core/client-frame.ts";
import type { AckFrame, SubscribeFrame } from "../../src/protocol/frames.ts";
import {
  CLIENT_FRAME_BYTES_MAX,
  INTEGER_MAX,
  METADATA_BYTES_MAX,
  RECORD_BYTES_MAX,
} from "../../src/protocol/limits.ts";

const name249 = "n".repeat(249);
const topicNames = (count: number) => Array.from({ length: count }, (_, index) => `t${index}`);

const subscribe = (members: Readonly<Record<string, unknown>> = {}): string =>
  JSON.stringify({ type: "subscribe", topics: ["orders"], group: "billing", ...members });
const ackEntry = { topic: "orders", partition: 0, generation: 3, offset: 543 };
const ack = (members: Readonly<Record<string, unknown>> = {}): string =>
  JSON.stringify({ type: "ack", offsets: [{ ...ackEntry, ...members }] });
/** A member as text, where JSON.stringify would not write it like that. */
const withText = (frame: string, member: string): string => frame.replace(/\}$/, `,${member}}`);

function problemOf(parsed: ParsedFrame | undefined) {
  if (!parsed || !("problem" in parsed)) throw new Error(`was taken: ${JSON.stringify(parsed)}`);
  return { ...parsed, code: parsed.problem.code, message: parsed.problem.message };
}

function frameOf(parsed: ParsedFrame | undefined) {
  if (!parsed || "problem" in parsed) throw new Error(`was refused: ${parsed?.problem.message}`);
  return parsed.frame;
}

const titleOf = (text: string) => (text.length <= 100 ? text : `${text.slice(0, 97)}…`);

// ── taken ────────────────────────────────────────────────────────────────────────────────────────────────

describe("parseClientFrame() takes", () => {
  const taken: readonly (readonly [title: string, text: string])[] = [
    ["the least of a subscribe frame", subscribe()],
    [
      "every member of a subscribe frame that is built",
      subscribe({
        id: 1,
        subscription: "s1",
        instanceId: "tab-7",
        memberId: "0b5e…",
        reset: { missing: "latest", outOfRange: "none" },
        ack: "manual",
        window: { records: 10, bytes: 65_536 },
        sessionTimeoutMs: 45_000,
      }),
    ],
    ["an ack", ack()],
    ["an ack with metadata", ack({ metadata: "half" })],
    ["an empty metadata", ack({ metadata: "" })],
    ["unsubscribe", '{"type":"unsubscribe"}'],
    ["unsubscribe with a name", '{"type":"unsubscribe","id":"u","subscription":"s1"}'],
    ["pong", '{"type":"pong"}'],
    ["white space around everything", ' \n\t{ "type" : "pong" }\r\n'],
    ["members in any order", '{"id":4,"type":"pong"}'],
    ["the smallest id", '{"type":"pong","id":0}'],
    ["the largest id", `{"type":"pong","id":${INTEGER_MAX}}`],
    ["an empty id", '{"type":"pong","id":""}'],
    ["an id of 249 characters", JSON.stringify({ type: "pong", id: name249 })],
    ["an id with an astral character", '{"type":"pong","id":"\\ud83d\\ude00"}'],
    ["a memberId of 249 characters", subscribe({ memberId: name249 })],
    ["names of 249 characters", subscribe({ topics: [name249], group: name249, subscription: name249 })],
    ["names of one character, of each kind", subscribe({ topics: ["A", "z", "0", "_", "-", "a.b", "..."] })],
    ["100 topics", subscribe({ topics: topicNames(100) })],
    ["the smallest window", subscribe({ window: { records: 1, bytes: 65_536 } })],
    ["the largest window", subscribe({ window: { records: 10_000, bytes: 4_194_304 } })],
    ["half a window", subscribe({ window: { records: 5 } })],
    ["an empty window", subscribe({ window: {} })],
    ["the shortest session timeout", subscribe({ sessionTimeoutMs: 6_000 })],
    ["the longest session timeout", subscribe({ sessionTimeoutMs: 300_000 })],
    ["every reset policy: earliest", subscribe({ reset: "earliest" })],
    ["every reset policy: latest", subscribe({ reset: "latest" })],
    ["every reset policy: none", subscribe({ reset: "none" })],
    ["half of the reset policies", subscribe({ reset: { outOfRange: "none" } })],
    ["no reset policies", subscribe({ reset: {} })],
    ["metadata of 4 KiB, one byte a character", ack({ metadata: "m".repeat(METADATA_BYTES_MAX) })],
    ["metadata of 4 KiB, two bytes a character", ack({ metadata: "é".repeat(METADATA_BYTES_MAX / 2) })],
    ["metadata of 4 KiB, four bytes a character", ack({ metadata: "😀".repeat(METADATA_BYTES_MAX / 4) })],
    ["metadata with quotes, lines and what looks like JSON", ack({ metadata: '{"a":"\n\\"' })],
    ["the largest offset", ack({ offset: INTEGER_MAX })],
    ["offset 0", ack({ offset: 0 })],
    ["an offset written with an exponent", ack().replace("543", "5.43e2")],
    ["a partition named twice", JSON.stringify({ type: "ack", offsets: [ackEntry, ackEntry] })],
    ["10,000 entries", JSON.stringify({ type: "ack", offsets: Array<unknown>(10_000).fill(ackEntry) })],
  ];
  for (const [title, text] of taken) {
    test(`${title}: ${titleOf(text)}`, () => {
      expect<unknown>(frameOf(parseClientFrame(text))).toEqual(JSON.parse(text));
    });
  }
});

// ── refused ──────────────────────────────────────────────────────────────────────────────────────────────

describe("parseClientFrame() refuses as bad_frame, which closes the socket,", () => {
  const notAnObject = "one JSON object";
  const bad: readonly (readonly [title: string, text: string, says: string])[] = [
    ["nothing", "", notAnObject],
    ["white space", "  ", notAnObject],
    ["what is not JSON", "hello", notAnObject],
    ["half a frame", '{"type":"pong"', notAnObject],
    ["two frames", '{"type":"pong"}{"type":"pong"}', notAnObject],
    ["a frame and a comma", '{"type":"pong",}', notAnObject],
    ["single quotes", "{'type':'pong'}", notAnObject],
    ["a control character in a string", '{"type":"po\nng"}', notAnObject],
    ["a byte order mark", '\ufeff{"type":"pong"}', notAnObject],
    ["an array", '[{"type":"pong"}]', notAnObject],
    ["null", "null", notAnObject],
    ["a number", "1", notAnObject],
    ["a string", '"pong"', notAnObject],
    ["true", "true", notAnObject],
    ["a frame without type", "{}", '"type"'],
    ["a type that is null", '{"type":null}', '"type"'],
    ["a type that is a number", '{"type":1}', '"type"'],
    ["a type that is an array", '{"type":["pong"]}', '"type"'],
    ["a type in another case", '{"type":"Pong"}', '"Pong"'],
    ["a type that nobody knows", '{"type":"hello"}', '"hello"'],
    ["a type of the server's", '{"type":"subscribed"}', '"subscribed"'],
    ["the type __proto__", '{"type":"__proto__"}', '"__proto__"'],
    ["the type constructor", '{"type":"constructor"}', '"constructor"'],
    ["the type toString", '{"type":"toString"}', '"toString"'],
    ["an empty type", '{"type":""}', '""'],
    ["an ack without offsets", '{"type":"ack"}', '"offsets"'],
    ["offsets that are an object", '{"type":"ack","offsets":{}}', '"offsets"'],
    ["offsets that are null", '{"type":"ack","offsets":null}', '"offsets"'],
    ["an entry that is a number", '{"type":"ack","offsets":[1]}', '"offsets.0"'],
    ["an entry that is an array", '{"type":"ack","offsets":[[]]}', '"offsets.0'],
    [
      "an entry without topic",
      '{"type":"ack","offsets":[{"partition":0,"generation":3,"offset":1}]}',
      '"offsets.0.topic"',
    ],
    [
      "an entry without partition",
      '{"type":"ack","offsets":[{"topic":"orders","generation":3,"offset":1}]}',
      '"offsets.0.partition"',
    ],
    [
      "an entry without generation",
      '{"type":"ack","offsets":[{"topic":"orders","partition":0,"offset":1}]}',
      '"offsets.0.generation"',
    ],
    [
      "an entry without offset",
      '{"type":"ack","offsets":[{"topic":"orders","partition":0,"generation":3}]}',
      '"offsets.0.offset"',
    ],
    ["a topic that is a number", ack({ topic: 1 }), '"offsets.0.topic"'],
    ["a partition that is text", ack({ partition: "0" }), '"offsets.0.partition"'],
    ["a generation that is text", ack({ generation: "3" }), '"offsets.0.generation"'],
    ["an offset that is text", ack({ offset: "543" }), '"offsets.0.offset"'],
    ["an offset that is null", ack({ offset: null }), '"offsets.0.offset"'],
    ["an offset that is true", ack({ offset: true }), '"offsets.0.offset"'],
    ["metadata that is an object", ack({ metadata: {} }), '"offsets.0.metadata"'],
    ["metadata that is null", ack({ metadata: null }), '"offsets.0.metadata"'],
    [
      "the wrong type in the second entry",
      JSON.stringify({ type: "ack", offsets: [ackEntry, { ...ackEntry, offset: "1" }] }),
      '"offsets.1.offset"',
    ],
    ["topics that are text", subscribe({ topics: "orders" }), '"topics"'],
    ["topics that are null", subscribe({ topics: null }), '"topics"'],
    ["a topic that is null", subscribe({ topics: [null] }), '"topics.0"'],
    ["no topics", '{"type":"subscribe","group":"billing"}', '"topics"'],
    ["a group that is null", subscribe({ group: null }), '"group"'],
    ["a group that is a number", subscribe({ group: 1 }), '"group"'],
    ["a subscription that is a number", subscribe({ subscription: 1 }), '"subscription"'],
    ["an instanceId that is a number", subscribe({ instanceId: 1 }), '"instanceId"'],
    ["a memberId that is a number", subscribe({ memberId: 1 }), '"memberId"'],
    ["a reset that is a number", subscribe({ reset: 1 }), '"reset'],
    ["a reset that is null", subscribe({ reset: null }), '"reset'],
    ["a reset that is an array", subscribe({ reset: ["latest"] }), '"reset'],
    ["a reset that is an empty array", subscribe({ reset: [] }), '"reset'],
    ["a window that is an array", subscribe({ window: [10] }), '"window'],
    ["a window that is an empty array", subscribe({ window: [] }), '"window'],
    ["a policy that is a number", subscribe({ reset: { missing: 1 } }), '"reset'],
    ["an ack that is true", subscribe({ ack: true }), '"ack"'],
    ["a window that is a number", subscribe({ window: 10 }), '"window"'],
    ["a window's records that are text", subscribe({ window: { records: "10" } }), '"window.records"'],
    ["a session timeout that is text", subscribe({ sessionTimeoutMs: "45000" }), '"sessionTimeoutMs"'],
    ["an id that is null", '{"type":"pong","id":null}', '"id"'],
    ["an id that is true", '{"type":"pong","id":true}', '"id"'],
    ["an id that is an object", '{"type":"pong","id":{}}', '"id"'],
    ["an id that is an array", '{"type":"pong","id":[1]}', '"id"'],
    ["an unsubscribe of a number", '{"type":"unsubscribe","subscription":1}', '"subscription"'],
    [
      "a wrong type before a member that nobody knows",
      withText(ack({ offset: "1" }), '"bogus":1'),
      '"offsets.0.offset"',
    ],
    ["a wrong type before a value that is not allowed", subscribe({ topics: [], group: 1 }), '"group"'],
    ["nesting of a million arrays in an id", `{"type":"pong","id":${nested(1_000_000)}}`, ""],
    ["nesting of a million arrays and no object", nested(1_000_000), notAnObject],
  ];
  for (const [title, text, says] of bad) {
    test(`${title}: ${titleOf(text)}`, () => {
      const { code, message } = problemOf(parseClientFrame(text));
      expect(code).toBe("bad_frame");
      expect(message).toContain(says);
      expect(message.length).toBeLessThan(300);
    });
  }
});

function nested(depth: number): string {
  return "[".repeat(depth) + "]".repeat(depth);
}

describe("parseClientFrame() refuses as bad_request, and the socket lives,", () => {
  const notAllowed: readonly (readonly [title: string, text: string, says: string])[] = [
    // members that nobody knows
    ["a member that nobody knows", '{"type":"pong","bogus":1}', '"bogus"'],
    ["a member of another frame", '{"type":"pong","offsets":[]}', '"offsets"'],
    ["a member in another case", subscribe({ Reset: "latest" }), '"Reset"'],
    ["a member without name", '{"type":"pong","":1}', '""'],
    ["the member __proto__", '{"type":"pong","__proto__":{"id":1}}', '"__proto__"'],
    ["the member constructor", '{"type":"pong","constructor":1}', '"constructor"'],
    ["a member that nobody knows, deeply nested", `{"type":"pong","x":${nested(100_000)}}`, '"x"'],
    ["a member of an entry that nobody knows", ack({ leaderEpoch: 1 }), '"offsets.0.leaderEpoch"'],
    ["an entry's topicId, which only a reader has", ack({ topicId: 7 }), '"offsets.0.topicId"'],
    ["a member of the window that nobody knows", subscribe({ window: { ms: 1 } }), '"window.ms"'],
    ["a policy for what nobody knows", subscribe({ reset: { other: "latest" } }), '"reset.other"'],
    // values that are not allowed
    ["a policy that nobody knows", subscribe({ reset: "newest" }), '"reset'],
    ["an empty policy", subscribe({ reset: "" }), '"reset'],
    ["a policy that nobody knows, for missing", subscribe({ reset: { missing: "newest" } }), '"reset'],
    ["a policy that nobody knows, for outOfRange", subscribe({ reset: { outOfRange: "Latest" } }), '"reset'],
    ["an ack mode that nobody knows", subscribe({ ack: "auto" }), '"ack"'],
    ["no topic", subscribe({ topics: [] }), '"topics"'],
    ["101 topics", subscribe({ topics: topicNames(101) }), "100"],
    ["a topic twice", subscribe({ topics: ["a", "b", "a"] }), '"topics"'],
    ["an empty topic", subscribe({ topics: [""] }), '"topics.0"'],
    ["the topic .", subscribe({ topics: ["."] }), '"topics.0"'],
    ["the topic ..", subscribe({ topics: [".."] }), '"topics.0"'],
    ["a topic of 250 characters", subscribe({ topics: [`${name249}n`] }), "249"],
    ["a topic with a slash", subscribe({ topics: ["a/b"] }), '"topics.0"'],
    ["a topic with a space", subscribe({ topics: ["a b"] }), '"topics.0"'],
    ["a topic with a line break at its end", subscribe({ topics: ["a\n"] }), '"topics.0"'],
    ["a topic with a letter that is not ASCII", subscribe({ topics: ["ä"] }), '"topics.0"'],
    ["a topic with a quote", subscribe({ topics: ['a"'] }), '"topics.0"'],
    ["a topic with a NUL", subscribe({ topics: ["a\u0000"] }), '"topics.0"'],
    ["a group of 250 characters", subscribe({ group: `${name249}n` }), '"group"'],
    ["the group ..", subscribe({ group: ".." }), '"group"'],
    ["an empty subscription", subscribe({ subscription: "" }), '"subscription"'],
    ["a subscription of 250 characters", subscribe({ subscription: `${name249}n` }), '"subscription"'],
    ["an instanceId of 250 characters", subscribe({ instanceId: `${name249}n` }), '"instanceId"'],
    ["an instanceId with a NUL", subscribe({ instanceId: "a\u0000" }), '"instanceId"'],
    ["a memberId of 250 characters", subscribe({ memberId: `${name249}n` }), '"memberId"'],
    ["a memberId with a NUL", subscribe({ memberId: "a\u0000" }), '"memberId"'],
    ["a memberId with a lone surrogate", subscribe({ memberId: "\ud800" }), '"memberId"'],
    ["an unsubscribe of ..", '{"type":"unsubscribe","subscription":".."}', '"subscription"'],
    // windows and timeouts
    ["a window of 0 records", subscribe({ window: { records: 0 } }), "1 to 10000"],
    ["a window of 10,001 records", subscribe({ window: { records: 10_001 } }), "1 to 10000"],
    ["a window of half a record", subscribe({ window: { records: 1.5 } }), '"window.records"'],
    ["a window of 64 KiB − 1", subscribe({ window: { bytes: 65_535 } }), "65536"],
    ["a window of 4 MiB + 1", subscribe({ window: { bytes: 4_194_305 } }), "4194304"],
    ["a window below nothing", subscribe({ window: { bytes: -65_536 } }), '"window.bytes"'],
    ["a session timeout of 5,999 ms", subscribe({ sessionTimeoutMs: 5_999 }), "6000"],
    ["a session timeout of 300,001 ms", subscribe({ sessionTimeoutMs: 300_001 }), "300000"],
    ["a session timeout of 6,000.5 ms", subscribe({ sessionTimeoutMs: 6_000.5 }), '"sessionTimeoutMs"'],
    // acks
    ["no entry", '{"type":"ack","offsets":[]}', '"offsets"'],
    [
      "10,001 entries",
      JSON.stringify({ type: "ack", offsets: Array<unknown>(10_001).fill(ackEntry) }),
      '"offsets"',
    ],
    ["an offset below 0", ack({ offset: -1 }), '"offsets.0.offset"'],
    ["half an offset", ack({ offset: 0.5 }), '"offsets.0.offset"'],
    ["an offset of 2^53", ack({ offset: 2 ** 53 }), '"offsets.0.offset"'],
    ["an offset of 1e400", ack().replace("543", "1e400"), '"offsets.0.offset"'],
    ["an offset just above an integer", ack().replace("543", "1.0000000001"), '"offsets.0.offset"'],
    ["a partition below 0", ack({ partition: -1 }), '"offsets.0.partition"'],
    ["half a partition", ack({ partition: 0.5 }), '"offsets.0.partition"'],
    ["a partition of 2^53", ack({ partition: 2 ** 53 }), '"offsets.0.partition"'],
    ["a generation below 0", ack({ generation: -1 }), '"offsets.0.generation"'],
    ["a generation of 2^53", ack({ generation: 2 ** 53 }), '"offsets.0.generation"'],
    ["a topic of an entry that is no name", ack({ topic: "a/b" }), '"offsets.0.topic"'],
    ["metadata of 4 KiB and a byte", ack({ metadata: "m".repeat(METADATA_BYTES_MAX + 1) }), "4096"],
    [
      "metadata of 4 KiB and a byte, two bytes a character",
      ack({ metadata: `${"é".repeat(METADATA_BYTES_MAX / 2)}m` }),
      "4096",
    ],
    [
      "metadata of fewer characters than 4 KiB and more bytes",
      ack({ metadata: "😀".repeat(METADATA_BYTES_MAX / 4 + 1) }),
      "4096",
    ],
    ["metadata with a NUL", ack({ metadata: "a\u0000b" }), '"offsets.0.metadata"'],
    ["metadata with a high surrogate alone", ack({ metadata: "\ud800" }), '"offsets.0.metadata"'],
    ["metadata with a low surrogate alone", ack({ metadata: "a\udc00b" }), '"offsets.0.metadata"'],
    [
      "the second entry, when the first is right",
      JSON.stringify({ type: "ack", offsets: [ackEntry, { ...ackEntry, offset: -1 }] }),
      '"offsets.1.offset"',
    ],
    // ids
    ["an id below 0", '{"type":"pong","id":-1}', '"id"'],
    ["half an id", '{"type":"pong","id":0.5}', '"id"'],
    ["an id of 2^53", '{"type":"pong","id":9007199254740992}', '"id"'],
    ["an id of 1e400", '{"type":"pong","id":1e400}', '"id"'],
    ["an id of 250 characters", JSON.stringify({ type: "pong", id: `${name249}n` }), '"id"'],
    ["an id with a NUL", '{"type":"pong","id":"a\\u0000"}', '"id"'],
    ["an id with a lone surrogate", '{"type":"pong","id":"\\udfff"}', '"id"'],
    // members twice
    ["the type twice", '{"type":"pong","type":"pong"}', '"type" is there twice'],
    ["the type twice, once escaped", '{"type":"pong","\\u0074ype":"pong"}', '"type" is there twice'],
    ["an id twice", '{"type":"pong","id":1,"id":1}', '"id" is there twice'],
    ["topics twice", withText(subscribe(), '"topics":["orders"]'), '"topics" is there twice'],
    [
      "a group twice, once escaped",
      withText(subscribe(), '"gro\\u0075p":"billing"'),
      '"group" is there twice',
    ],
    [
      "an offset twice",
      '{"type":"ack","offsets":[{"topic":"orders","partition":0,"generation":3,"offset":1,"offset":2}]}',
      '"offset" is there twice',
    ],
    [
      "an offset twice, in the second entry, once escaped",
      `{"type":"ack","offsets":[${JSON.stringify(ackEntry)},{"topic":"orders","partition":0,"generation":3,"offset":1,"\\u006fffset":1}]}`,
      '"offset" is there twice',
    ],
    [
      "a window's records twice",
      withText(subscribe(), '"window":{"records":1,"records":2}'),
      '"records" is there twice',
    ],
    [
      "a policy twice",
      withText(subscribe(), '"reset":{"missing":"none","missing":"none"}'),
      '"missing" is there twice',
    ],
    // in the contract and not built yet
    ["auth", '{"type":"auth","token":"secret"}', '"auth" frame: this frame is not built yet'],
  ];
  for (const [title, text, says] of notAllowed) {
    test(`${title}: ${titleOf(text)}`, () => {
      const { code, message } = problemOf(parseClientFrame(text));
      expect([code, message]).toEqual(["bad_request", expect.stringContaining(says)]);
      expect(message.length).toBeLessThan(400);
    });
  }

  test("and never repeats a token", () => {
    const { message } = problemOf(parseClientFrame('{"type":"auth","token":"secret"}'));
    expect(message).not.toContain("secret");
  });

  test("and repeats no more than the beginning of what is long", () => {
    const { message } = problemOf(parseClientFrame(JSON.stringify({ type: "pong", ["x".repeat(5_000)]: 1 })));
    expect(message).toContain("xxx…");
    expect(message.length).toBeLessThan(200);
  });
});

describe("the id of a frame that is refused", () => {
  const cases: readonly (readonly [title: string, text: string, id: unknown])[] = [
    ["is repeated: a number", '{"type":"pong","id":7,"bogus":1}', 7],
    ["is repeated: 0", '{"type":"pong","id":0,"bogus":1}', 0],
    ["is repeated: text", '{"type":"pong","id":"seven","bogus":1}', "seven"],
    ["is repeated: empty text", '{"type":"pong","id":"","bogus":1}', ""],
    ["is repeated of a frame that is not built", '{"type":"auth","id":3}', 3],
    ["is repeated of a record that is refused", '{"type":"produce","id":9,"topic":"t","records":[{}]}', 9],
    ["is repeated of a frame whose member is missing", '{"type":"ack","id":4}', 4],
    ["is repeated of a frame of an unknown type", '{"type":"hello","id":5}', 5],
    ["is repeated of a frame without type", '{"id":6}', 6],
    ["is repeated of a frame with a member twice", '{"type":"pong","id":8,"type":"pong"}', 8],
    ["is none where there is none", '{"type":"pong","bogus":1}', undefined],
    ["is none where it is of the wrong type", '{"type":"pong","id":{}}', undefined],
    ["is none where it is null", '{"type":"pong","id":null}', undefined],
    ["is none where there is no frame", "hello", undefined],
  ];
  for (const [title, text, id] of cases) {
    test(`${title}: ${text}`, () => {
      expect<unknown>(problemOf(parseClientFrame(text)).id).toBe(id);
    });
  }

  test("is not repeated as null where JSON cannot say it: 1e400", () => {
    const { id } = problemOf(parseClientFrame('{"type":"pong","id":1e400}'));
    expect(JSON.stringify({ id })).not.toBe('{"id":null}');
  });
});

describe("a frame as large as a frame may be", () => {
  const fill = (head: string, element: string, tail: string) => {
    const count = Math.floor((CLIENT_FRAME_BYTES_MAX - head.length - tail.length) / (element.length + 1));
    return `${head}${Array<string>(count).fill(element).join(",")}${tail}`;
  };
  const floods: readonly (readonly [title: string, text: string])[] = [
    ["entries that are numbers", fill('{"type":"ack","offsets":[', "0", "]}")],
    ["entries that are empty", fill('{"type":"ack","offsets":[', "{}", "]}")],
    ["more entries than a frame may hold", fill('{"type":"ack","offsets":[', JSON.stringify(ackEntry), "]}")],
    ["topics that are numbers", fill('{"type":"subscribe","group":"g","topics":[', "0", "]}")],
    ["topics that are empty", fill('{"type":"subscribe","group":"g","topics":[', '""', "]}")],
    ["topics of one name", fill('{"type":"subscribe","group":"g","topics":[', '"a"', "]}")],
    ["members of one name", fill("{", '"type":"pong"', "}")],
    ["arrays in one another", `{"type":"pong","id":${nested(CLIENT_FRAME_BYTES_MAX / 2 - 20)}}`],
  ];
  const msOf = (run: () => unknown) => {
    const startedAtMs = performance.now();
    run();
    return performance.now() - startedAtMs;
  };
  for (const [title, text] of floods) {
    // To describe each of a million wrong entries took seconds and gigabytes, while every other socket waited.
    test(`is refused in little more time than it takes to parse: ${title}`, () => {
      expect(problemOf(parseClientFrame(text)).message.length).toBeLessThan(300);
      const isQuick = () => msOf(() => parseClientFrame(text)) < 100 + 6 * msOf(() => JSON.parse(text));
      expect(isQuick() || isQuick() || isQuick()).toBe(true);
    });
  }
});

// ── readers, positions and policies by time ──────────────────────────────────────────────────────────────

const reader = (members: Readonly<Record<string, unknown>> = {}): string =>
  JSON.stringify({ type: "subscribe", topics: ["orders"], from: "latest", ...members });
const start = { topic: "orders", partition: 0, offset: 5 };
const seek = (members: Readonly<Record<string, unknown>> = {}): string =>
  JSON.stringify({ type: "seek", topic: "orders", partition: 0, to: "latest", ...members });
const ofPartitions = (type: string, members: Readonly<Record<string, unknown>> = {}): string =>
  JSON.stringify({ type, partitions: [{ topic: "orders", partition: 0 }], ...members });
const TIME_MS = 1_740_830_400_000;

describe("parseClientFrame() takes", () => {
  const places = ["earliest", "latest", { offset: 0 }, { offset: INTEGER_MAX }, { timestamp: TIME_MS }];
  const taken: readonly (readonly [title: string, text: string])[] = [
    ...[...places, { ago: 60_000 }].map((from) => ["a reader from", reader({ from })] as const),
    ["a reader from one partition", reader({ from: [start] })],
    [
      "a reader from two partitions, one of them of a known topic",
      reader({ from: [start, { ...start, partition: 1, topicId: 7 }] }),
    ],
    [
      "a reader with everything that a reader may have",
      reader({
        id: 1,
        subscription: "s1",
        ack: "manual",
        reset: { outOfRange: { ago: 5 } },
        window: { records: 10 },
        sessionTimeoutMs: 6_000,
      }),
    ],
    ["a reader that names its default", reader({ ack: "none" })],
    ["a reader with one policy for all", reader({ reset: { timestamp: 0 } })],
    ["a group that acknowledges nothing", subscribe({ ack: "none" })],
    ["the shortest ack timeout", subscribe({ ackTimeoutMs: 100 })],
    ["the longest ack timeout", subscribe({ ackTimeoutMs: 86_400_000 })],
    ["a policy at a time", subscribe({ reset: { timestamp: TIME_MS } })],
    ["a policy some time ago", subscribe({ reset: { ago: 0 } })],
    [
      "a policy at a time for one, some time ago for the other",
      subscribe({ reset: { missing: { ago: 60_000 }, outOfRange: { timestamp: TIME_MS } } }),
    ],
    ...[...places, "current", { ago: 60_000 }, { shift: -5 }, { shift: 0 }, { shift: INTEGER_MAX }].map(
      (to) => ["seek to", seek({ to })] as const,
    ),
    ["seek with id and name", seek({ id: "s", subscription: "s1" })],
    ...["pause", "resume", "release"].flatMap((type) => [
      [type, ofPartitions(type)] as const,
      [`${type} with id and name`, ofPartitions(type, { id: 0, subscription: "s1" })] as const,
      [
        `${type} of a partition named twice`,
        ofPartitions(type, { partitions: Array(2).fill({ topic: "orders", partition: 3 }) }),
      ] as const,
    ]),
  ];
  for (const [title, text] of taken) {
    test(`${title}: ${titleOf(text)}`, () => {
      expect<unknown>(frameOf(parseClientFrame(text))).toEqual(JSON.parse(text));
    });
  }
});

describe("parseClientFrame() refuses as bad_frame, which closes the socket,", () => {
  const without = (frame: string, member: string) =>
    JSON.stringify({ ...JSON.parse(frame), [member]: undefined });
  const bad: readonly (readonly [title: string, text: string, says: string])[] = [
    ["a reader's place that is a number", reader({ from: 5 }), '"from'],
    ["a reader's place that is null", reader({ from: null }), '"from'],
    ["a reader's place that is true", reader({ from: true }), '"from'],
    ["a reader's place without anything", reader({ from: {} }), '"from.offset"'],
    ["a reader's offset that is text", reader({ from: { offset: "5" } }), '"from.offset"'],
    ["a reader's time that is text", reader({ from: { timestamp: "now" } }), '"from.timestamp"'],
    ["a reader's partition that is a number", reader({ from: [5] }), '"from.0"'],
    [
      "a reader's partition without offset",
      reader({ from: [{ topic: "o", partition: 0 }] }),
      '"from.0.offset"',
    ],
    ["a reader's partition without topic", reader({ from: [{ partition: 0, offset: 0 }] }), '"from.0.topic"'],
    ["a reader's topicId that is text", reader({ from: [{ ...start, topicId: "7" }] }), '"from.0.topicId"'],
    ["an ack timeout that is text", subscribe({ ackTimeoutMs: "60000" }), '"ackTimeoutMs"'],
    ["a policy some time ago that is text", subscribe({ reset: { ago: "1h" } }), '"reset.ago"'],
    ["a policy whose time is null", subscribe({ reset: { timestamp: null } }), '"reset.timestamp"'],
    [
      "a policy whose time is null, for missing",
      subscribe({ reset: { missing: { timestamp: null } } }),
      '"reset.missing.timestamp"',
    ],
    ...["topic", "partition", "to"].map(
      (member) => [`seek without ${member}`, without(seek(), member), `"${member}`] as const,
    ),
    ["seek to a number", seek({ to: 5 }), '"to'],
    ["seek to null", seek({ to: null }), '"to'],
    ["seek to an array", seek({ to: [5] }), '"to'],
    ["seek to nothing", seek({ to: {} }), '"to.offset"'],
    ["seek to an offset that is text", seek({ to: { offset: "5" } }), '"to.offset"'],
    ["seek by a shift that is text", seek({ to: { shift: "5" } }), '"to.shift"'],
    ["seek in a partition that is text", seek({ partition: "0" }), '"partition"'],
    ...["pause", "resume", "release"].flatMap((type) => [
      [`${type} without partitions`, without(ofPartitions(type), "partitions"), '"partitions"'] as const,
      [`${type} of text`, ofPartitions(type, { partitions: "orders" }), '"partitions"'] as const,
      [`${type} of a name`, ofPartitions(type, { partitions: ["orders"] }), '"partitions.0"'] as const,
      [
        `${type} without a partition's number`,
        ofPartitions(type, { partitions: [{ topic: "orders" }] }),
        '"partitions.0.partition"',
      ] as const,
    ]),
    ["produce without topic", '{"type":"produce","records":[{"value":1}]}', '"topic"'],
    ["produce to a number", '{"type":"produce","topic":1,"records":[{"value":1}]}', '"topic"'],
    ["produce without records", '{"type":"produce","topic":"orders"}', '"records"'],
    ["produce of an object", '{"type":"produce","topic":"orders","records":{}}', '"records"'],
    ["produce with an id that is null", produce("[]", '"id":null'), '"id"'],
  ];
  for (const [title, text, says] of bad) {
    test(`${title}: ${titleOf(text)}`, () => {
      const { code, message } = problemOf(parseClientFrame(text));
      expect([code, message]).toEqual(["bad_frame", expect.stringContaining(says)]);
    });
  }
});

describe("parseClientFrame() refuses as bad_request, and the socket lives,", () => {
  const notAllowed: readonly (readonly [title: string, text: string, says: string])[] = [
    // what does not go together
    ["a group with a place", subscribe({ from: "latest" }), '"from"'],
    ["a group with partitions to read", subscribe({ from: [start] }), '"from"'],
    ["neither a group nor a place", '{"type":"subscribe","topics":["orders"]}', '"group"'],
    ["a reader with an instanceId", reader({ instanceId: "tab-7" }), '"instanceId"'],
    ["a reader with a memberId", reader({ memberId: "m" }), '"memberId"'],
    ["a reader with an ack timeout", reader({ ack: "manual", ackTimeoutMs: 60_000 }), '"ackTimeoutMs"'],
    ["a reader with a policy for missing", reader({ reset: { missing: "latest" } }), '"reset.missing"'],
    ["ack none with an ack timeout", subscribe({ ack: "none", ackTimeoutMs: 60_000 }), '"ackTimeoutMs"'],
    [
      "a reader of a topic that is not in topics",
      reader({ from: [{ ...start, topic: "refunds" }] }),
      "refunds",
    ],
    ["a reader of a partition named twice", reader({ from: [start, { ...start, offset: 6 }] }), "twice"],
    // values
    ["a reader of no partition", reader({ from: [] }), '"from"'],
    ["a reader's place that nobody knows", reader({ from: "newest" }), '"from"'],
    ["a reader at what only a group has", reader({ from: "current" }), '"from"'],
    ["a reader's offset below 0", reader({ from: { offset: -1 } }), '"from.offset"'],
    ["a reader's partition below 0", reader({ from: [{ ...start, partition: -1 }] }), '"from.0.partition"'],
    ["a reader's topic that is no name", reader({ from: [{ ...start, topic: "a/b" }] }), '"from.0.topic"'],
    ["an ack timeout of 99 ms", subscribe({ ackTimeoutMs: 99 }), "100 to 86400000"],
    ["an ack timeout of a day and a ms", subscribe({ ackTimeoutMs: 86_400_001 }), "100 to 86400000"],
    ["a policy some time to come", subscribe({ reset: { ago: -1 } }), '"reset.ago"'],
    ["a policy before 1970", subscribe({ reset: { timestamp: -1 } }), '"reset.timestamp"'],
    ["seek to what nobody knows", seek({ to: "newest" }), '"to"'],
    ["seek to a policy", seek({ to: "none" }), '"to"'],
    ["seek by half a record", seek({ to: { shift: 0.5 } }), '"to.shift"'],
    ["seek below 0", seek({ to: { offset: -1 } }), '"to.offset"'],
    ["seek in a topic that is no name", seek({ topic: ".." }), '"topic"'],
    ...["pause", "resume", "release"].flatMap((type) => [
      [`${type} of nothing`, ofPartitions(type, { partitions: [] }), '"partitions"'] as const,
      [
        `${type} of a partition below 0`,
        ofPartitions(type, { partitions: [{ topic: "orders", partition: -1 }] }),
        '"partitions.0.partition"',
      ] as const,
    ]),
    // members that nobody knows
    ["a place with two meanings", reader({ from: { offset: 5, timestamp: 5 } }), '"from" must be one place'],
    ["a reader by a shift", reader({ from: { offset: 1, shift: 5 } }), '"from.shift"'],
    [
      "a member of a reader's partition",
      reader({ from: [{ ...start, generation: 1 }] }),
      '"from.0.generation"',
    ],
    ["a member of a policy", subscribe({ reset: { ago: 5, missing: "latest" } }), '"reset.missing"'],
    ["a member of seek", seek({ offset: 5 }), '"offset"'],
    ["a member of a place", seek({ to: { shift: 5, from: 1 } }), '"to.from"'],
    ...["pause", "resume", "release"].flatMap((type) => [
      [`a member of ${type}`, ofPartitions(type, { topic: "orders" }), '"topic"'] as const,
      [
        `a member of a partition in ${type}`,
        ofPartitions(type, { partitions: [{ topic: "orders", partition: 0, generation: 1 }] }),
        '"partitions.0.generation"',
      ] as const,
    ]),
    // members twice
    ["a place twice", withText(reader(), '"from":"earliest"'), '"from" is there twice'],
    ["an offset twice", '{"type":"subscribe","topics":["a"],"from":{"offset":1,"offset":2}}', '"offset"'],
    ["a shift twice", '{"type":"seek","topic":"a","partition":0,"to":{"shift":1,"shift":2}}', '"shift"'],
    ["partitions twice", withText(ofPartitions("pause"), '"partitions":[]'), '"partitions"'],
  ];
  for (const [title, text, says] of notAllowed) {
    test(`${title}: ${titleOf(text)}`, () => {
      const { code, message } = problemOf(parseClientFrame(text));
      expect([code, message]).toEqual(["bad_request", expect.stringContaining(says)]);
    });
  }
});

// ── produce ──────────────────────────────────────────────────────────────────────────────────────────────

function produce(records: string, member = '"id":3'): string {
  return `{"type":"produce","topic":"orders",${member},"records":${records}}`;
}

function producedOf(text: string) {
  const frame = frameOf(parseClientFrame(text));
  if (frame.type !== "produce") throw new Error(`was taken for ${frame.type}`);
  return frame;
}

const recordsOf = (text: string) => producedOf(text).transaction.appends.flatMap(({ records }) => records);

describe("parseClientFrame() of produce", () => {
  test("gives the topic, the id and the records", () => {
    expect(
      producedOf(produce('[{"key":"u1","value":{"n":1},"headers":{"a":"b"},"timestamp":5,"partition":2}]')),
    ).toEqual({
      type: "produce",
      id: 3,
      transaction: {
        appends: [
          {
            topic: "orders",
            records: [
              expect.objectContaining({
                key: "u1",
                value: '{"n":1}',
                headers: '{"a":"b"}',
                timestamp: 5,
                partition: 2,
              }),
            ],
          },
        ],
      },
    });
  });

  for (const value of [
    "2.0",
    "1E400",
    "12345678901234567890",
    '{"b":1,"a":2,"b":3}',
    '{"__proto__":{"x":1}}',
    '"\\u0041\\ud800"',
    "[ 1,  2 ]",
    "null",
    '"]}"',
  ]) {
    test(`keeps a value byte for byte: ${value}`, () => {
      const text = ` { "records" : [ {"value":1}, { "value" : ${value} } ] , "topic":"orders","type":"produce" } `;
      expect(recordsOf(text).map((record) => record.value)).toEqual(["1", value]);
    });
  }

  test("keeps what is deeper than a frame may nest, inside a value", () => {
    const value = nested(100);
    expect(recordsOf(produce(`[{"value":${value}}]`))[0]?.value).toBe(value);
  });

  test("reads the records whose name is written with escapes", () => {
    const text = '{"type":"produce","topic":"orders","rec\\u006frds":[{"value":2.0}]}';
    expect(recordsOf(text).map(({ value }) => value)).toEqual(["2.0"]);
  });

  const refused: readonly (readonly [title: string, text: string, says: string])[] = [
    ["no records", produce("[]"), "records"],
    ["a topic that is no name", produce('[{"value":1}]').replace("orders", ".."), '"topic"'],
    ["a record that is a number", produce("[1]"), "records[0]"],
    ["a record without value", produce('[{"value":1},{"key":"a"}]'), "records[1]"],
    ["a record's key that is a number", produce('[{"key":1,"value":1}]'), "records[0]"],
    ["a record's partition below 0", produce('[{"partition":-1,"value":1}]'), "records[0]"],
    ["a member of a record that nobody knows", produce('[{"value":1,"offset":5}]'), '"offset"'],
    ["a value twice in a record", produce('[{"value":1,"value":2}]'), '"value" twice'],
    ["a value that nests deeper than 128", produce(`[{"value":${nested(129)}}]`), "128"],
    ["the topic twice", produce('[{"value":1}]', '"topic":"orders"'), '"topic" is there twice'],
    ["the records twice", produce('[{"value":1}]', '"records":[{"value":2}]'), '"records" is there twice'],
    ["the records twice, once escaped", produce('[{"value":1}]', '"rec\\u006frds":[]'), '"records"'],
    ["the type twice", produce('[{"value":1}]', '"type":"produce"'), '"type" is there twice'],
    ["an empty list of expectations", produce('[{"value":1}]', '"expect":[]'), '"expect" must not be empty'],
    [
      "a partition expected twice",
      produce(
        '[{"value":1}]',
        '"expect":[{"partition":0,"logEndOffset":1},{"partition":0,"logEndOffset":2}]',
      ),
      "must not name a partition twice",
    ],
    [
      "a producer's id twice",
      produce('[{"value":1}]', '"producer":{"id":"p","id":"q","epoch":0,"sequence":0}'),
      '"id" is there twice',
    ],
    [
      "a sequence below 0",
      produce('[{"value":1}]', '"producer":{"id":"p","epoch":0,"sequence":-1}'),
      '"producer.sequence"',
    ],
    ["a member that nobody knows", produce('[{"value":1}]', '"partition":0'), '"partition"'],
    ["a subscription", produce('[{"value":1}]', '"subscription":"s1"'), '"subscription"'],
  ];
  for (const [title, text, says] of refused) {
    test(`refuses ${title}, and the socket lives: ${titleOf(text)}`, () => {
      const { code, message } = problemOf(parseClientFrame(text));
      expect([code, message]).toEqual(["bad_request", expect.stringContaining(says)]);
    });
  }

  test("refuses a record larger than a record may be, by its own code and with the frame's id", () => {
    const value = JSON.stringify("x".repeat(RECORD_BYTES_MAX));
    expect(problemOf(parseClientFrame(produce(`[{"value":${value}}]`)))).toMatchObject({
      code: "record_too_large",
      id: 3,
    });
  });
});

// ── the URL ──────────────────────────────────────────────────────────────────────────────────────────────

describe("parseSubscribeQuery()", () => {
  const parse = (query: string) => parseSubscribeQuery(new URLSearchParams(query));
  const billing = "topic=orders&group=billing";

  test("without parameters is no frame", () => {
    expect(parse("")).toBeUndefined();
    expect(parse("?")).toBeUndefined();
  });

  const taken: readonly (readonly [query: string, frame: Partial<SubscribeFrame>])[] = [
    [billing, {}],
    ["group=billing&topic=orders", {}],
    ["topic=orders&topic=refunds&group=billing", { topics: ["orders", "refunds"] }],
    ["topic=orders&group=billing&topic=refunds", { topics: ["orders", "refunds"] }],
    [`${billing}&reset=latest`, { reset: "latest" }],
    [`${billing}&reset=none&ack=manual`, { reset: "none", ack: "manual" }],
    [`${billing}&reset=earliest&ack=none`, { reset: "earliest", ack: "none" }],
    [`${billing}&reset=@1740830400000`, { reset: { timestamp: 1_740_830_400_000 } }],
    [`${billing}&ackTimeoutMs=60000`, { ackTimeoutMs: 60_000 }],
    [`${billing}&ackTimeoutMs=100`, { ackTimeoutMs: 100 }],
    [
      `${billing}&subscription=s1&instanceId=tab-7&memberId=m`,
      { subscription: "s1", instanceId: "tab-7", memberId: "m" },
    ],
    [`${billing}&sessionTimeoutMs=6000`, { sessionTimeoutMs: 6_000 }],
    [`${billing}&sessionTimeoutMs=300000`, { sessionTimeoutMs: 300_000 }],
    [`${billing}&id=7`, { id: "7" }],
    ["topic=o%2Er&group=b%5Fg", { topics: ["o.r"], group: "b_g" }],
  ];
  for (const [query, frame] of taken) {
    test(`takes ?${query}`, () => {
      expect(frameOf(parse(query))).toEqual({
        type: "subscribe",
        topics: ["orders"],
        group: "billing",
        ...frame,
      });
    });
  }

  const readers: readonly (readonly [query: string, frame: Partial<SubscribeFrame>])[] = [
    ["from=earliest", { from: "earliest" }],
    ["from=latest&ack=manual", { from: "latest", ack: "manual" }],
    ["from=5", { from: { offset: 5 } }],
    ["from=0&ack=none", { from: { offset: 0 }, ack: "none" }],
    ["from=@0", { from: { timestamp: 0 } }],
    ["from=@1740830400000", { from: { timestamp: 1_740_830_400_000 } }],
    ["from=latest&reset=latest", { from: "latest", reset: "latest" }],
    ["from=latest&subscription=s1&id=7", { from: "latest", subscription: "s1", id: "7" }],
  ];
  for (const [query, frame] of readers) {
    test(`takes a reader: ?topic=orders&${query}`, () => {
      expect(frameOf(parse(`topic=orders&${query}`))).toEqual({
        type: "subscribe",
        topics: ["orders"],
        ...frame,
      });
    });
  }

  const refused: readonly (readonly [title: string, query: string, says: string])[] = [
    ["no topic", "group=billing", '"topics"'],
    ["an empty topic", "topic=&group=billing", '"topics.0"'],
    ["a topic twice", "topic=orders&topic=orders&group=billing", '"topics"'],
    [
      "101 topics",
      `${topicNames(101)
        .map((name) => `topic=${name}`)
        .join("&")}&group=billing`,
      "100",
    ],
    ["a topic that is no name", "topic=a%2Fb&group=billing", '"topics.0"'],
    ["a topic with a NUL", "topic=a%00&group=billing", '"topics.0"'],
    ["a group twice", `${billing}&group=audit`, '"group"'],
    ["a group twice, both the same", `${billing}&group=billing`, '"group"'],
    ["a reset twice", `${billing}&reset=none&reset=none`, '"reset"'],
    ["a type", `${billing}&type=subscribe`, '"type"'],
    ["another type", `${billing}&type=ack`, '"type"'],
    ["topics beside topic", `${billing}&topics=refunds`, '"topics"'],
    ["a parameter that nobody knows", `${billing}&bogus=1`, '"bogus"'],
    ["a parameter in another case", `${billing}&Reset=none`, '"Reset"'],
    ["the parameter __proto__", `${billing}&__proto__=1`, '"__proto__"'],
    ["the parameter constructor", `${billing}&constructor=1`, '"constructor"'],
    ["a parameter without name", `${billing}&=1`, '""'],
    ["a policy that nobody knows", `${billing}&reset=newest`, '"reset'],
    ["a session timeout of 5,999 ms", `${billing}&sessionTimeoutMs=5999`, "6000"],
    ["a session timeout of 300,001 ms", `${billing}&sessionTimeoutMs=300001`, "300000"],
    ["a session timeout of 6000.5 ms", `${billing}&sessionTimeoutMs=6000.5`, '"sessionTimeoutMs"'],
    ["an empty session timeout", `${billing}&sessionTimeoutMs=`, '"sessionTimeoutMs"'],
    [
      "a session timeout twice",
      `${billing}&sessionTimeoutMs=6000&sessionTimeoutMs=6000`,
      '"sessionTimeoutMs"',
    ],
    ["neither a group nor a place", "topic=orders", '"group"'],
    ["a place beside a group", `${billing}&from=latest`, '"from"'],
    ["a place twice", "topic=orders&from=5&from=5", '"from"'],
    ["a place that nobody knows", "topic=orders&from=newest", '"from"'],
    ["a place that only a group has", "topic=orders&from=current", '"from"'],
    ["a place below 0", "topic=orders&from=-1", '"from"'],
    ["an offset as a policy", `${billing}&reset=5`, '"reset'],
    ["a time as a policy that is none", `${billing}&reset=@now`, '"reset'],
    ["an ack mode that nobody knows", `${billing}&ack=auto`, '"ack"'],
    ["an ack timeout beside ack=none", `${billing}&ack=none&ackTimeoutMs=60000`, '"ackTimeoutMs"'],
    ["an ack timeout of a reader", "topic=orders&from=latest&ackTimeoutMs=60000", '"ackTimeoutMs"'],
    ["an ack timeout of 99 ms", `${billing}&ackTimeoutMs=99`, "100"],
    ["an instanceId of a reader", "topic=orders&from=latest&instanceId=tab-7", '"instanceId"'],
    ["a memberId of a reader", "topic=orders&from=latest&memberId=m", '"memberId"'],
  ];
  for (const [title, query, says] of refused) {
    test(`refuses ${title}, and the socket lives: ?${titleOf(query)}`, () => {
      const { code, message } = problemOf(parse(query));
      expect([code, message]).toEqual(["bad_request", expect.stringContaining(says)]);
    });
  }

  test("refuses a session timeout that is no number", () => {
    for (const text of ["soon", "6000ms", "NaN", "Infinity", "6,000"]) {
      const { message } = problemOf(parse(`${billing}&sessionTimeoutMs=${text}`));
      expect(message).toContain('"sessionTimeoutMs"');
    }
  });

  test("answers with the id that the URL gave", () => {
    expect(problemOf(parse(`${billing}&id=q1&bogus=1`)).id).toBe("q1");
    expect(problemOf(parse(`id=q1&${billing}&group=audit`)).id).toBe("q1");
  });
});

// ── anything at all ──────────────────────────────────────────────────────────────────────────────────────

/** Taken as it was sent, or refused with one of two codes and a message: nothing else, whatever the text. */
function expectVerdict(text: string): void {
  const parsed = parseClientFrame(text);
  if ("frame" in parsed) {
    expect<unknown>(parsed.frame).toEqual(JSON.parse(text));
  } else {
    expect(["bad_frame", "bad_request"]).toContain(parsed.problem.code);
    expect(parsed.problem.message).not.toBe("");
    expect(["string", "number", "undefined"]).toContain(typeof parsed.id);
  }
}

describe("parseClientFrame() never throws and alters nothing", () => {
  const wholeFrames = [
    subscribe({ id: 1, reset: { missing: "none" }, window: { records: 5 }, memberId: "m", instanceId: "i" }),
    ack({ metadata: "é\u2028" }),
    '{"type":"unsubscribe","id":"u"}',
    '{"type":"pong","id":3}',
    reader({ from: [start], reset: { outOfRange: { ago: 5 } } }),
    seek({ id: "s", to: { shift: -5 } }),
    ofPartitions("pause", { subscription: "s1" }),
  ];

  test("given any text", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), expectVerdict));
  });

  test("given any JSON", () => {
    fc.assert(fc.property(fc.json(), expectVerdict));
  });

  test("given an object of a known type with any members", () => {
    const type = fc.constantFrom("subscribe", "ack", "unsubscribe", "pong", "seek", "pause", "release");
    const memberName = fc.constantFrom(
      "id",
      "topics",
      "group",
      "reset",
      "window",
      "offsets",
      "ack",
      "memberId",
      "subscription",
      "sessionTimeoutMs",
      "from",
      "to",
      "topic",
      "partition",
      "partitions",
      "__proto__",
      "bogus",
    );
    const value = fc.oneof(
      fc.jsonValue(),
      fc.constant(["orders"]),
      fc.constant([ackEntry]),
      fc.constantFrom("latest", { offset: 5 }, { ago: 5 }, { shift: -5 }, 0),
      fc.constantFrom([start], [{ topic: "orders", partition: 0 }]),
      fc.constant("g"),
    );
    const members = fc.array(fc.tuple(memberName, value), { maxLength: 5 });
    const property = fc.property(type, members, (name, pairs) => {
      const texts = pairs.map(([member, given]) => `${JSON.stringify(member)}:${JSON.stringify(given)}`);
      expectVerdict(`{${[`"type":"${name}"`, ...texts].join(",")}}`);
    });
    fc.assert(property, { numRuns: 500 });
  });

  test("given a frame in which characters were changed, lost, doubled or added", () => {
    const edit = fc.record({
      at: fc.nat(300),
      length: fc.nat(3),
      text: fc.oneof(
        fc.constantFrom("", '"', "{", "}", "[", "]", ",", ":", "\\", "\\u0000", "\\ud800", "0", "-", "null"),
        fc.string({ unit: "binary", maxLength: 3 }),
      ),
    });
    const edits = fc.array(edit, { minLength: 1, maxLength: 4 });
    const property = fc.property(fc.constantFrom(...wholeFrames), edits, (whole, made) => {
      const edited = made.reduce((text, { at, length, text: added }) => {
        const start = at % (text.length + 1);
        return text.slice(0, start) + added + text.slice(start + length);
      }, whole);
      expectVerdict(edited);
    });
    fc.assert(property, { numRuns: 1_000 });
  });

  test("given any parameters in the URL", () => {
    const name = fc.oneof(fc.constantFrom("topic", "group", "reset", "id", "__proto__"), fc.string());
    const pairs = fc.array(fc.tuple(name, fc.string({ unit: "binary" })), { minLength: 1, maxLength: 6 });
    const property = fc.property(pairs, (made) => {
      const parsed = parseSubscribeQuery(new URLSearchParams(made));
      expect(parsed).toBeDefined();
      if (parsed && "problem" in parsed) expect(["bad_frame", "bad_request"]).toContain(parsed.problem.code);
    });
    fc.assert(property, { numRuns: 300 });
  });
});

test("an accepted ack is typed as one", () => {
  const frame: AckFrame = { type: "ack", id: 2, subscription: "s1", offsets: [ackEntry] };
  expect(frameOf(parseClientFrame(JSON.stringify(frame)))).toEqual(frame);
});
