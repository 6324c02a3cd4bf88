// Produces and transactions that are wrong, for HTTP and the socket alike: on a WatchedServer all of them are refused.

import type { ErrorCode } from "../../src/protocol/codes.ts";
import { PRODUCER, RECORDS_EACH } from "./watched-server.ts";

/** What is refused, with which code, by which message, and whether over the socket it is a `bad_frame`. */
export interface BadWrite {
  readonly name: string;
  readonly body: string | Readonly<Record<string, unknown>>;
  readonly code: ErrorCode;
  readonly message: RegExp;
  readonly facts?: Readonly<Record<string, unknown>>;
  /** Over HTTP it is `bad_request` then. */
  readonly isBadFrame?: true;
}

type Fields = Readonly<Record<string, unknown>>;

const APPENDS = [{ topic: "orders", records: [{ value: 1, partition: 0 }] }];
const numbers = (count: number) => Array.from({ length: count }, (_, n) => n);
const producerOf = (fields: Fields) => ({ ...PRODUCER, sequence: 2, ...fields });
const commitsOf = (...entries: readonly Fields[]) => ({
  group: "outside",
  offsets: entries.map((entry) => ({ topic: "orders", partition: 0, generation: 1, offset: 5, ...entry })),
});
const expectOf = (fields: Fields) => ({ partition: 0, logEndOffset: RECORDS_EACH, ...fields });
const recordsOf = (count: number) => numbers(count).map((value) => ({ value, partition: 0 }));

const badRequest = (name: string, body: BadWrite["body"], message: RegExp): BadWrite => ({
  name,
  body,
  code: "bad_request",
  message,
});
const misfit = (name: string, body: BadWrite["body"], message: RegExp): BadWrite => ({
  ...badRequest(name, body, message),
  isBadFrame: true,
});

/** What a produce and a transaction have in common; `expectation` is one that is met, but for these fields. */
function badOptions(expectation: (fields: Fields) => Fields): readonly BadWrite[] {
  const producer = (fields: Fields) => ({ producer: producerOf(fields) });
  const expecting = (...entries: readonly Fields[]) => ({ expect: entries.map(expectation) });
  return [
    {
      name: "a sequence that leaves one out",
      body: producer({ sequence: 3 }),
      code: "sequence_gap",
      message: /sequence 3 of producer "writer".*next one is 2/,
      facts: { producer: "writer", found: 3, expected: 2 },
    },
    {
      name: "a sequence of 2^53 − 1",
      body: producer({ sequence: Number.MAX_SAFE_INTEGER }),
      code: "sequence_gap",
      message: /next one is 2/,
      facts: { found: Number.MAX_SAFE_INTEGER, expected: 2 },
    },
    {
      name: "a sequence other than 0 of an unknown producer",
      body: producer({ id: "stranger", sequence: 1 }),
      code: "sequence_gap",
      message: /"stranger".*next one is 0/,
      facts: { producer: "stranger", found: 1, expected: 0 },
    },
    {
      name: "a sequence other than 0 in a newer epoch",
      body: producer({ epoch: 4 }),
      code: "sequence_gap",
      message: /epoch 4.*next one is 0/,
      facts: { found: 2, expected: 0 },
    },
    ...[0, 1, 2].map((sequence) => ({
      name: `an epoch that goes back, with the sequence ${sequence}`,
      body: producer({ epoch: 2, sequence }),
      code: "fenced_producer" as const,
      message: /epoch 2: its epoch is 3/,
      facts: { producer: "writer", found: 2, expected: 3 },
    })),
    badRequest("a sequence of −1", producer({ sequence: -1 }), /producer\.sequence/),
    badRequest("a sequence of 1.5", producer({ sequence: 1.5 }), /producer\.sequence/),
    badRequest("a sequence of 2^53", producer({ sequence: 2 ** 53 }), /producer\.sequence/),
    badRequest("an epoch of −1", producer({ epoch: -1 }), /producer\.epoch/),
    badRequest("an epoch of 2^53", producer({ epoch: 2 ** 53 }), /producer\.epoch/),
    ...["", ".", "..", "a b", "a/b", "a\u0000", "\ud800", "é", "p".repeat(250)].map((id) =>
      badRequest(`the producer ${JSON.stringify(id).slice(0, 20)}`, producer({ id }), /producer\.id/),
    ),
    misfit("a sequence that is text", producer({ sequence: "2" }), /producer\.sequence/),
    misfit("a sequence that is null", producer({ sequence: null }), /producer\.sequence/),
    misfit("a producer that is a number", producer({ id: 7 }), /producer\.id/),
    misfit("a producer without its epoch", producer({ epoch: undefined }), /"producer\.epoch" must be there/),
    misfit("a producer without its id", producer({ id: undefined }), /"producer\.id" must be there/),
    misfit("a producer that is null", { producer: null }, /producer/),
    misfit("a producer that is text", { producer: "writer" }, /producer/),
    misfit("a producer that is a list", { producer: [] }, /producer/),
    badRequest("a producer with a member that is unknown", producer({ lane: 1 }), /"producer\.lane"/),

    {
      name: "an expectation that is not met",
      body: expecting({ logEndOffset: 9 }),
      code: "conflict",
      message: /expected log end offset 9 in topic "orders" partition 0, found 10/,
      facts: { topic: "orders", partition: 0, expected: 9, found: 10 },
    },
    {
      name: "an expectation of 2^53 − 1",
      body: expecting({ logEndOffset: Number.MAX_SAFE_INTEGER }),
      code: "conflict",
      message: /found 10/,
      facts: { expected: Number.MAX_SAFE_INTEGER, found: 10 },
    },
    {
      name: "an expectation in a partition that does not exist",
      body: expecting({}, { partition: 3, logEndOffset: 0 }),
      code: "unknown_partition",
      message: /"orders" partition 3/,
      facts: { topic: "orders", partition: 3, partitionCount: 3 },
    },
    badRequest("an expectation of −1", expecting({ logEndOffset: -1 }), /expect\.0\.logEndOffset/),
    badRequest("an expectation of 0.5", expecting({ logEndOffset: 0.5 }), /expect\.0\.logEndOffset/),
    badRequest("an expectation of 2^53", expecting({ logEndOffset: 2 ** 53 }), /expect\.0\.logEndOffset/),
    badRequest("an expectation in partition −1", expecting({ partition: -1 }), /expect\.0\.partition/),
    badRequest("twice the same partition in expect", expecting({}, {}), /expect.*partition twice/),
    badRequest("no expectation at all", { expect: [] }, /expect.*empty/),
    badRequest(
      "1,025 expectations",
      expecting(...numbers(1_025).map((partition) => ({ partition }))),
      /expect.*1024/,
    ),
    badRequest("an expectation with a member that is unknown", expecting({ found: 1 }), /"expect\.0\.found"/),
    misfit("an expectation that is text", expecting({ logEndOffset: "10" }), /expect\.0\.logEndOffset/),
    misfit("an expectation that is null", { expect: null }, /expect/),
    misfit("an expectation that is no list", { expect: expectOf({}) }, /expect/),
    misfit(
      "an expectation without its partition",
      expecting({ partition: undefined }),
      /partition" must be there/,
    ),
  ];
}

/** The members beside `topic` and `records`, which are good. */
export const BAD_PRODUCES: readonly BadWrite[] = [
  ...badOptions(expectOf),
  badRequest(
    "an expectation that names its topic",
    { expect: [expectOf({ topic: "orders" })] },
    /"expect\.0\.topic"/,
  ),
  badRequest("a produce with commits", { commits: commitsOf({}) }, /"commits"/),
];

const ambiguous = (name: string, body: string, member: string): BadWrite =>
  badRequest(name, body, new RegExp(`"${member}" (is there )?twice`));

/** Whole bodies: a text stands for itself. */
export const BAD_TRANSACTIONS: readonly BadWrite[] = [
  ...badOptions((fields) => expectOf({ topic: "orders", ...fields })).map((bad) => ({
    ...bad,
    body: { appends: APPENDS, ...fieldsOf(bad.body) },
  })),
  {
    name: "an expectation in a topic that does not exist",
    body: { appends: APPENDS, expect: [expectOf({ topic: "nowhere", logEndOffset: 0 })] },
    code: "unknown_topic",
    message: /"nowhere"/,
    facts: { topic: "nowhere", partition: 0 },
  },
  misfit(
    "an expectation without its topic",
    { appends: APPENDS, expect: [expectOf({})] },
    /"expect\.0\.topic" must be there/,
  ),

  // ── appends ──
  badRequest("a transaction of nothing", { appends: [] }, /neither appends nor commits/),
  badRequest(
    "a transaction of a sequence and nothing else",
    { appends: [], producer: producerOf({}) },
    /neither appends nor commits/,
  ),
  misfit("a transaction without appends", {}, /"appends" must be there/),
  misfit("a transaction of commits without appends", { commits: commitsOf({}) }, /"appends" must be there/),
  misfit("appends that are null", { appends: null }, /appends/),
  misfit("appends that are an object", { appends: APPENDS[0] }, /appends/),
  misfit("an append that is a number", { appends: [1] }, /appends\.0/),
  misfit(
    "an append without records",
    { appends: [{ topic: "orders" }] },
    /"appends\.0\.records" must be there/,
  ),
  misfit(
    "an append without a topic",
    { appends: [{ records: [{ value: 1 }] }] },
    /"appends\.0\.topic" must be/,
  ),
  misfit("an append whose records are an object", { appends: [{ topic: "orders", records: {} }] }, /records/),
  badRequest("an append of no records", { appends: [...APPENDS, { topic: "orders", records: [] }] }, /empty/),
  badRequest("an append to a bad name", { appends: [{ topic: "a b", records: [{ value: 1 }] }] }, /topic/),
  badRequest(
    "an append with a member that is unknown",
    { appends: [{ ...APPENDS[0], expect: [] }] },
    /"appends\.0\.expect"/,
  ),
  badRequest("a transaction with a member that is unknown", { appends: APPENDS, ack: 1 }, /"ack"/),
  badRequest("a transaction with __proto__", '{"appends":[],"__proto__":{}}', /__proto__/),
  ...["1", "[]", "null", '"text"'].map((record) =>
    badRequest(
      `a record that is ${record}`,
      `{"appends":[{"topic":"orders","records":[{"value":1},${record}]}]}`,
      /appends\[0\]\.records\[1\]/,
    ),
  ),
  badRequest(
    "a record with both value and bytes in the second append",
    { appends: [...APPENDS, { topic: "orders", records: [{ value: 1, bytes: "" }] }] },
    /appends\[1\]\.records\[0\].*both "value" and "bytes"/,
  ),
  badRequest(
    "a lone surrogate in a key",
    '{"appends":[{"topic":"orders","records":[{"value":1,"key":"\\ud800"}]}]}',
    /lone surrogate/,
  ),
  {
    name: "appends to two topics of which one is unknown",
    body: { appends: [...APPENDS, { topic: "nowhere", records: [{ value: 1 }] }] },
    code: "unknown_topic",
    message: /"nowhere"/,
    facts: { topic: "nowhere" },
  },
  {
    name: "an append to a partition that does not exist beside one to one that does",
    body: { appends: [...APPENDS, { topic: "orders", records: [{ value: 1, partition: 3 }] }] },
    code: "unknown_partition",
    message: /appends\[1\]\.records\[0\]\.partition: found 3, allowed 0 to 2/,
    facts: { topic: "orders", partition: 3, partitionCount: 3, append: 1, record: 0 },
  },
  ambiguous(
    "appends twice",
    '{"appends":[],"appends":[{"topic":"orders","records":[{"value":1}]}]}',
    "appends",
  ),
  ambiguous(
    "the records of an append twice",
    '{"appends":[{"topic":"orders","records":[{"value":1}],"records":[{"value":1}]}]}',
    "records",
  ),
  ambiguous(
    "the topic of an append twice",
    '{"appends":[{"topic":"payments","topic":"orders","records":[{"value":1}]}]}',
    "topic",
  ),
  ambiguous(
    "a member of a record twice",
    '{"appends":[{"topic":"orders","records":[{"value":1,"value":2}]}]}',
    "value",
  ),
  ambiguous(
    "the sequence of a producer twice",
    '{"producer":{"id":"writer","epoch":3,"sequence":2,"sequence":2},"appends":[{"topic":"orders","records":[{"value":1}]}]}',
    "sequence",
  ),

  // ── one above a limit ──
  {
    name: "10,001 records in several appends",
    body: {
      appends: [4_000, 6_001].map((count) => ({ topic: "orders", records: recordsOf(count) })),
    },
    code: "batch_too_large",
    message: /appends\[1\].*10001.*10000/,
    facts: { found: 10_001, allowed: 10_000 },
  },
  badRequest(
    "10,001 appends",
    `{"appends":[${Array(10_001).fill('{"topic":"orders","records":[{"value":1}]}').join(",")}]}`,
    /appends.*10000/,
  ),
  {
    name: "a record of 1 MiB and a byte",
    body: { appends: [...APPENDS, { topic: "orders", records: [{ value: "x".repeat(1024 * 1024 - 1) }] }] },
    code: "record_too_large",
    message: /appends\[1\]\.records\[0\].*1048577.*1048576/,
  },

  // ── commits ──
  ...(
    [
      ["an unknown topic", { topic: "nowhere" }, "unknown_topic", { topic: "nowhere", partition: 0 }],
      [
        "a partition that does not exist",
        { partition: 3 },
        "unknown_partition",
        { topic: "orders", partition: 3, partitionCount: 3 },
      ],
      [
        "a partition that nobody owns",
        {},
        "fenced_generation",
        { topic: "orders", partition: 0, generation: 1, found: null },
      ],
      ["generation 2^53 − 1", { generation: Number.MAX_SAFE_INTEGER }, "fenced_generation", { found: null }],
    ] as const
  ).map(([name, entry, code, facts]) => ({
    name: `a commit of ${name}`,
    body: { appends: APPENDS, commits: commitsOf(entry) },
    code,
    message: /Cannot commit offset 5 of topic/,
    facts: { group: "outside", ...facts },
  })),
  {
    name: "a commit of a group that does not exist",
    body: { appends: APPENDS, commits: { ...commitsOf({}), group: "nobody" } },
    code: "fenced_generation",
    message: /group "nobody".*nobody owns it/,
    facts: { group: "nobody", found: null },
  },
  badRequest(
    "a partition twice in commits",
    { appends: [], commits: commitsOf({}, { offset: 6 }) },
    /partition twice/,
  ),
  badRequest("no commits at all", { appends: APPENDS, commits: commitsOf() }, /commits\.offsets.*empty/),
  {
    name: "10,000 commits, of which the last are of partitions that do not exist",
    body: {
      appends: APPENDS,
      commits: commitsOf(...numbers(10_000).map((partition) => ({ topic: "witness", partition }))),
    },
    code: "fenced_generation", // the first of all: so many are judged
    message: /"witness" partition 0/,
    facts: { topic: "witness", partition: 0, found: null },
  },
  badRequest(
    "10,001 commits",
    { appends: [], commits: commitsOf(...numbers(10_001).map((partition) => ({ partition }))) },
    /commits\.offsets.*10000/,
  ),
  ...["partition", "generation", "offset"].flatMap((member) => [
    ...[-1, 0.5, 2 ** 53].map((value) =>
      badRequest(
        `a commit with ${value} as its ${member}`,
        { appends: APPENDS, commits: commitsOf({ [member]: value }) },
        new RegExp(`commits\\.offsets\\.0\\.${member}`),
      ),
    ),
    misfit(
      `a commit with text as its ${member}`,
      { appends: APPENDS, commits: commitsOf({ [member]: "1" }) },
      new RegExp(`commits\\.offsets\\.0\\.${member}`),
    ),
    misfit(
      `a commit without its ${member}`,
      { appends: APPENDS, commits: commitsOf({ [member]: undefined }) },
      new RegExp(`"commits\\.offsets\\.0\\.${member}" must be there`),
    ),
  ]),
  badRequest(
    "a commit with metadata of 4 KiB and a byte",
    { appends: APPENDS, commits: commitsOf({ metadata: "m".repeat(4_097) }) },
    /metadata.*4096/,
  ),
  badRequest(
    "a commit with NUL in its metadata",
    { appends: APPENDS, commits: commitsOf({ metadata: "\u0000" }) },
    /metadata.*NUL/,
  ),
  badRequest(
    "commits of a bad group's name",
    { appends: APPENDS, commits: { ...commitsOf({}), group: "a b" } },
    /commits\.group/,
  ),
  misfit(
    "commits without a group",
    { appends: APPENDS, commits: { offsets: [] } },
    /"commits\.group" must be/,
  ),
  misfit("commits that are a list", { appends: APPENDS, commits: commitsOf({}).offsets }, /commits/),
  misfit("commits that are null", { appends: APPENDS, commits: null }, /commits/),
  badRequest(
    "commits with a member that is unknown",
    { appends: APPENDS, commits: { ...commitsOf({}), memberId: "m" } },
    /"commits\.memberId"/,
  ),
];

export function textOf(body: BadWrite["body"]): string {
  return typeof body === "string" ? body : JSON.stringify(body);
}

/** Throws where it is a text. */
export function fieldsOf(body: BadWrite["body"]): Fields {
  if (typeof body === "string") throw new Error("it has no fields, it is a text");
  return body;
}

export const PRODUCED = { topic: "orders", records: [{ value: 1, partition: 0 }] } as const;

/** Of 4,000,001 bytes of records or more, in a frame that is small enough; of each record less than 1 MiB. */
export function tooManyBytes(): string {
  const record = `{"value":"${"x".repeat(800_000)}","partition":0}`;
  const append = `{"topic":"orders","records":[${record},${record}]}`;
  return `{"appends":[${append},${append},{"topic":"orders","records":[${record}]}]}`;
}
