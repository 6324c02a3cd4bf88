// Small histories, for what is easier told than mutated: each with what it would be if one thing were otherwise.

import { describe, expect, test } from "bun:test";
import { type AnomalyName, findAnomalies } from "./checker.ts";
import type { EventOf, History, HistoryEvent, LogRef, OffsetEntry, ResetRow, SendEvent } from "./history.ts";

const LOG: LogRef = { topic: "orders", topicId: 1, partition: 0 };
const NEW_LOG: LogRef = { ...LOG, topicId: 2 };
const AT = { topic: "orders", partition: 0 };

describe("an answer that is learned late", () => {
  const acked = { type: "acked", ack: "a1", offsets: [{ ...AT, offset: 2 }] } as const;
  const reset = { group: "g", ...AT, previous: 2, offset: 0, cause: "reset: again" };

  finds(
    "nothing in an ack that a reset has overtaken",
    [],
    [
      ...written(2),
      ...owned(1),
      polled(1, 0, 2),
      acking(1, 2),
      looked({ committed: 0, generation: 2, resets: [reset] }),
      acked,
      looked({ committed: 0, generation: 2 }),
    ],
  );

  finds(
    "that an ack is gone, with no reset between",
    ["commit went back"],
    [
      ...written(2),
      ...owned(1),
      polled(1, 0, 2),
      acking(1, 2),
      looked({ committed: 0, generation: 1 }),
      acked,
      looked({ committed: 0, generation: 1 }),
    ],
  );

  finds(
    "nothing in an ack for a topic that has been created anew",
    [],
    [
      ...written(2),
      ...owned(1),
      polled(1, 0, 2),
      acking(1, 2),
      looked({ log: NEW_LOG, end: 0, committed: 0, generation: 2 }),
      acked,
      looked({ log: NEW_LOG, end: 0, committed: 0, generation: 2 }),
    ],
  );

  finds(
    "nothing in a reset of the topic that had the name before",
    [],
    [
      ...owned(1),
      looked({ committed: 0, generation: 1, end: 0 }),
      looked({ log: NEW_LOG, end: 0, resets: [{ ...reset, offset: 2 }] }),
    ],
  );
});

describe("a generation that is over", () => {
  finds(
    "that an ack is accepted after a snapshot has shown a newer one",
    ["stale commit accepted"],
    [
      ...written(2),
      ...owned(1),
      polled(1, 0, 2),
      looked({ committed: 0, generation: 2 }),
      acking(1, 2),
      { type: "acked", ack: "a1", offsets: [{ ...AT, offset: 2 }] },
    ],
  );

  finds(
    "nothing where the newer one came while the ack was under way",
    [],
    [
      ...written(2),
      ...owned(1),
      polled(1, 0, 2),
      acking(1, 2),
      looked({ committed: 2, generation: 2 }),
      { type: "acked", ack: "a1", offsets: [{ ...AT, offset: 2 }] },
    ],
  );

  const made: SendEvent = {
    type: "send",
    send: "t1",
    producer: "c",
    isIdempotent: false,
    appends: [{ topic: "orders", values: ["made"] }],
    commits: { group: "g", offsets: [entry(1, 2)] },
  };

  finds(
    "that a transaction of it is seen, which nobody has answered",
    ["stale commit accepted"],
    [
      ...written(2),
      ...owned(1),
      polled(1, 0, 2),
      looked({ committed: 0, generation: 2 }),
      made,
      logged("v0", "v1", "made"),
    ],
  );

  finds(
    "nothing in a transaction that is not seen",
    [],
    [
      ...written(2),
      ...owned(1),
      polled(1, 0, 2),
      looked({ committed: 0, generation: 2 }),
      made,
      logged("v0", "v1"),
    ],
  );
});

describe("where an ownership begins", () => {
  finds(
    "that it is not what a snapshot has seen",
    ["reset started at the wrong place"],
    [
      ...written(2),
      looked({ committed: 0, generation: 1 }),
      ...owned(1, { position: 1, committedOffset: 1 }),
    ],
  );

  finds(
    "nothing where a policy has moved it since",
    [],
    [
      ...written(2),
      looked({
        committed: 1,
        generation: 1,
        resets: [{ group: "g", ...AT, previous: 0, offset: 1, cause: "outOfRange: earliest" }],
      }),
      ...owned(1, { position: 0, committedOffset: 0 }),
    ],
  );

  finds(
    "that an operator's reset was not heeded",
    ["reset started at the wrong place"],
    [
      ...written(2),
      looked({
        committed: 1,
        generation: 1,
        resets: [{ group: "g", ...AT, previous: 0, offset: 1, cause: "reset: again" }],
      }),
      ...owned(1, { position: 0, committedOffset: 0 }),
    ],
  );

  finds(
    "nothing where the policy `none` has no place for an offset outside the log",
    [],
    [...owned(1, { position: null, committedOffset: 1, logStartOffset: 5, logEndOffset: 9 })],
  );

  finds(
    "nothing where a position that a seek has moved is moved on by a policy",
    [],
    [
      ...owned(1, { position: 7, committedOffset: 7, logEndOffset: 9 }),
      ...owned(1, { position: 2, committedOffset: 7, logEndOffset: 9, isSought: true }),
      ...owned(1, { position: 5, committedOffset: 7, logStartOffset: 5, logEndOffset: 9, reset: "earliest" }),
    ],
  );
});

describe("a frame", () => {
  const beforeTrim = [...written(3), ...owned(1), polled(1, 0, 1)];

  finds(
    "nothing where what it passes over is trimmed at the next look",
    [],
    [...beforeTrim, polled(1, 2, 3), looked({ start: 2, end: 3, committed: 0, generation: 1 })],
  );

  finds(
    "that it passes over what was trimmed later",
    ["external poll skip"],
    [
      ...beforeTrim,
      polled(1, 2, 3),
      looked({ end: 3, committed: 0, generation: 1 }),
      looked({ start: 2, end: 3, committed: 0, generation: 1 }),
    ],
  );

  finds(
    'that of `"ack":"none"` it was sent before it was committed',
    ["commit went back"],
    [
      ...written(2),
      ...owned(1, {}, { isCommittedAhead: true }),
      looked({ committed: 0, generation: 1 }),
      polled(1, 0, 2),
      looked({ committed: 0, generation: 1 }),
    ],
  );
});

describe("a send that nobody has answered", () => {
  const send: SendEvent = {
    type: "send",
    send: "s",
    producer: "p",
    isIdempotent: false,
    appends: [{ topic: "orders", values: ["one", "other"] }],
  };

  finds("nothing where all of it is there, or nothing", [], [send, logged("one", "other")]);
  finds("nothing where nothing of it is there", [], [send, logged()]);
  finds("that a part of it is there", ["lost write"], [send, logged("one")]);
});

describe("a commit from outside", () => {
  const passing = { type: "passing", group: "g", ...AT, offset: 2 } as const;

  finds("nothing, before anybody has seen the topic", [], [...written(2), passing, looked({ committed: 2 })]);
  finds("that nobody has asked for it", ["commit past delivered"], [...written(2), looked({ committed: 2 })]);
});

describe("records made of records", () => {
  finds(
    "that one is made twice",
    ["processed twice"],
    [...made("m1", 1), ...made("m2", 2), logged("m1", "m2")],
  );
  finds(
    "nothing where a reset lies between",
    [],
    [
      ...made("m1", 1),
      ...made("m2", 2),
      looked({ end: 2, resets: [{ group: "g", ...AT, previous: 2, offset: 0, cause: "reset: again" }] }),
      logged("m1", "m2"),
    ],
  );
  finds(
    "nothing where one of the transactions has failed",
    [],
    [...made("m1", 1), ...made("m2", 2), logged("m1")],
  );

  function made(value: string, generation: number): History {
    const sources = ["orders/0@1"];
    return [
      {
        type: "send",
        send: value,
        producer: value,
        isIdempotent: false,
        appends: [{ topic: "orders", values: [value], sources }],
        commits: { group: "g", offsets: [entry(generation, 2)] },
      },
    ];
  }
});

// ── words for histories ──────────────────────────────────────────────────────────────────────────────────

function finds(what: string, names: readonly AnomalyName[], history: History): void {
  test(`finds ${what}`, () => {
    expect(findAnomalies(history).map(({ name }) => name)).toEqual([...names]);
  });
}

/** Values v0, v1, … */
function written(count: number): History {
  const values = Array.from({ length: count }, (_, n) => `v${n}`);
  return [
    { type: "send", send: "s1", producer: "p", isIdempotent: true, appends: [{ topic: "orders", values }] },
  ];
}

function owned(
  generation: number,
  change: Partial<EventOf<"assigned">["partitions"][number]> = {},
  { isCommittedAhead = false } = {},
): History {
  const bounds = { logStartOffset: 0, logEndOffset: 3 };
  const place = { ...LOG, generation, position: 0, committedOffset: 0, ...bounds, ...change };
  return [
    { type: "subscribed", consumer: "c", group: "g", memberId: "m", isCommittedAhead },
    { type: "assigned", consumer: "c", partitions: [place] },
  ];
}

function polled(generation: number, from: number, next: number): HistoryEvent {
  const records = Array.from({ length: next - from }, (_, n) => ({
    offset: from + n,
    value: `v${from + n}`,
  }));
  return { type: "polled", consumer: "c", ...AT, generation, records, next };
}

function entry(generation: number, offset: number): OffsetEntry {
  return { ...AT, generation, offset };
}

function acking(generation: number, offset: number): HistoryEvent {
  return { type: "acking", consumer: "c", ack: "a1", offsets: [entry(generation, offset)] };
}

interface Look {
  readonly log?: LogRef;
  readonly start?: number;
  readonly end?: number;
  readonly committed?: number;
  readonly generation?: number;
  readonly resets?: readonly ResetRow[];
}

function looked({ log = LOG, start = 0, end = 2, committed, generation, resets = [] }: Look): HistoryEvent {
  return {
    type: "snapshot",
    logs: [{ ...log, logStartOffset: start, logEndOffset: end }],
    committed: committed === undefined ? [] : [{ group: "g", ...log, offset: committed }],
    owners: generation === undefined ? [] : [{ group: "g", ...log, generation }],
    resets,
  };
}

function logged(...values: readonly string[]): HistoryEvent {
  const records = values.map((value, offset) => ({ offset, value }));
  return { type: "log", ...LOG, logStartOffset: 0, logEndOffset: values.length, records };
}
