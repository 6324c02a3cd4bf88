import { describe, expect, test } from "bun:test";
import type { OwnedPartition } from "../../../src/core/group-change.ts";
import { Problem } from "../../../src/core/problem.ts";
import type { SubscribeFrame } from "../../../src/protocol/frames.ts";
import { SOCKET_BUFFER_BYTES_MAX } from "../../../src/protocol/limits.ts";
import {
  all,
  type EffectOf,
  framesOf,
  joinedPartition,
  joinResult,
  lines,
  SessionScript,
  theOne,
  unplacedPartition,
} from "../../support/session-script.ts";

const ORDERS = { topic: "orders", partition: 0 };
const FIRST: OwnedPartition = { partitionId: 70, generation: 3 };
const SECOND: OwnedPartition = { partitionId: 71, generation: 4 };
const TWO = [joinedPartition(), joinedPartition({ partition: 1, generation: 4 })];

const revoking = (...owned: readonly OwnedPartition[]) => ({
  revoked: owned.map((each) => ({ ...each, deadlineMs: 5_000 })),
});
const losing = (...owned: readonly OwnedPartition[]) => ({
  lost: owned.map((each) => ({ ...each, reason: "rebalance" as const })),
});
const entry = (offset: number, about: { partition?: number; generation?: number } = {}) => ({
  ...ORDERS,
  generation: 3,
  offset,
  ...about,
});
const deliveryOf = ({ session }: SessionScript) => session.subscriptions.get("default")?.delivery;

/** Ten records of the first of two partitions are out, and the second is being read. */
function sentTen(options: Partial<SubscribeFrame> = {}) {
  const script = new SessionScript();
  script.step({ type: "opened" });
  const { ref, effects } = script.open(options, TWO);
  const sent = script.answer(theOne(effects, "read"), { count: 10, logEndOffset: 100 });
  return { script, ref, reading: theOne(sent, "read") };
}

/** As sentTen(), and the first partition begins to go. */
function revokingTen(options: Partial<SubscribeFrame> = {}) {
  const { script, ref, reading } = sentTen(options);
  return { script, ref, reading, effects: script.own(ref, revoking(FIRST)) };
}

describe("a partition that is revoked with a deadline", () => {
  test("is told of, with the deadline, and waited for no more", () => {
    const { effects } = revokingTen();
    expect(lines(effects)).toEqual(["stop waiting orders/0", "send revoked"]);
    expect(framesOf(effects)).toEqual([
      {
        type: "revoked",
        subscription: "default",
        partitions: [{ ...ORDERS, generation: 3 }],
        reason: "rebalance",
        deadlineMs: 5_000,
      },
    ]);
  });

  test("is told of in one frame with those that go at the same time, and in another with a later one", () => {
    const script = new SessionScript();
    const third = joinedPartition({ partition: 2, generation: 5 });
    const { ref } = script.open({}, [...TWO, third]);
    const change = revoking(FIRST, SECOND, { partitionId: 72, generation: 5 });
    const revoked = change.revoked.map((each, index) => (index === 1 ? { ...each, deadlineMs: 900 } : each));
    expect(framesOf(script.own(ref, { revoked }))).toMatchObject([
      { deadlineMs: 5_000, partitions: [{ partition: 0 }, { partition: 2 }] },
      { deadlineMs: 900, partitions: [{ partition: 1 }] },
    ]);
  });

  test("is sent no more of: neither what is being read, nor what acks make room for, nor growth", () => {
    const script = new SessionScript();
    const { ref, effects } = script.open();
    const sent = script.answer(theOne(effects, "read"), { count: 10, logEndOffset: 100 });
    const reading = theOne(sent, "read");
    script.own(ref, revoking(FIRST));
    expect(lines(script.answer(reading, { count: 10, logEndOffset: 100 }))).toEqual([]);
    expect(lines(script.ackAndCommit([entry(5)]))).toEqual(["send acked"]);
    expect(lines(script.step({ type: "grown", ref: reading.ref }))).toEqual([]);
    expect(lines(script.step({ type: "drained" }))).toEqual([]);
    expect(deliveryOf(script)).toMatchObject({ unackedRecords: 5, reservedBytes: 0 });
  });

  test("is not placed anew by what was being read of it, and lets the others be read when that has ended", () => {
    const outside = sentTen();
    outside.script.own(outside.ref, revoking(SECOND));
    const chunk = outside.script.answer(outside.reading, { logStartOffset: 50, logEndOffset: 100 });
    expect(lines(chunk)).toEqual(["read orders/0 from 10"]);

    const gone = sentTen();
    gone.script.own(gone.ref, revoking(SECOND));
    const effects = gone.script.step({ type: "readGone", ref: gone.reading.ref });
    expect(lines(effects)).toEqual(["read orders/0 from 10"]);
  });

  test("takes acks until it is lost, and those of it are fenced then", () => {
    const { script, ref } = revokingTen();
    const answer = script.ackAndCommit([entry(9)], { id: 1 });
    expect(framesOf(answer)).toMatchObject([{ type: "acked", id: 1, offsets: [{ offset: 9 }] }]);
    expect(theOne(script.ack([entry(11)]), "commit").acks[0]?.refusal).toBe("offset_out_of_range");
    script.own(ref, losing(FIRST));
    expect(theOne(script.ack([entry(10)]), "commit").acks[0]?.refusal).toBe("fenced_generation");
  });

  test("is let go as soon as all that was sent of it is durably acknowledged, and not before", () => {
    const { script } = revokingTen();
    expect(lines(script.ackAndCommit([entry(9)]))).toEqual(["send acked"]);
    const last = theOne(script.ack([entry(10)]), "commit");
    const effects = script.commit(last);
    expect(lines(effects)).toEqual(["send acked", "release 70 in 3 of m1"]);
    expect(theOne(effects, "release").member).toEqual({ group: "billing", memberId: "m1", membership: 1 });
  });

  test("is not let go by an ack that was refused or could not be written", () => {
    const { script } = revokingTen();
    const fenced = theOne(script.ack([entry(10)]), "commit");
    const refused = script.commit(fenced, [{ committedOffset: 0, code: "fenced_generation" }]);
    expect(all(refused, "release")).toEqual([]);
    const { ref, id, acks } = theOne(script.ack([entry(10)]), "commit");
    const problem = new Problem("unavailable", "The disk does not answer");
    const failed = script.step({ type: "commitFailed", ref, id, acks, problem });
    expect(all(failed, "release")).toEqual([]);
    expect(all(script.ackAndCommit([entry(10, { generation: 2 })]), "release")).toEqual([]);
  });

  test("is let go at once where nothing of it is out", () => {
    const { script, ref } = sentTen();
    const effects = script.own(ref, revoking(SECOND));
    expect(lines(effects)).toEqual(["stop waiting orders/1", "send revoked", "release 71 in 4 of m1"]);
  });

  test("is let go at once where it has no place", () => {
    const script = new SessionScript();
    const { ref } = script.open({ reset: "none" }, [unplacedPartition()]);
    expect(lines(script.own(ref, revoking(FIRST)))).toContain("release 70 in 3 of m1");
  });

  test("is let go once, whatever comes after that", () => {
    const { script, ref } = revokingTen();
    script.ackAndCommit([entry(10)]);
    const later = [
      ...script.ackAndCommit([entry(10)]),
      ...script.step({ type: "drained" }),
      ...script.receive({ type: "release", partitions: [ORDERS] }),
      ...script.own(ref, {}),
    ];
    expect(all(later, "release")).toEqual([]);
  });

  test("of another generation than this member has is not told of", () => {
    const { script, ref } = sentTen();
    expect(lines(script.own(ref, revoking({ partitionId: 70, generation: 2 })))).toEqual([]);
  });

  test("refuses a seek as not_assigned, and takes pause and resume without a change", () => {
    const { script } = revokingTen();
    expect(lines(script.receive({ type: "seek", ...ORDERS, to: "earliest" }))).toEqual([
      "send error not_assigned",
    ]);
    expect(lines(script.receive({ type: "pause", id: 1, partitions: [ORDERS] }))).toEqual(["send ok"]);
    expect(lines(script.receive({ type: "resume", id: 2, partitions: [ORDERS] }))).toEqual(["send ok"]);
  });

  test("while it is paused is let go like another, when it is acknowledged", () => {
    const { script, ref } = sentTen();
    script.receive({ type: "pause", partitions: [ORDERS] });
    script.own(ref, revoking(FIRST));
    expect(lines(script.ackAndCommit([entry(10)]))).toEqual(["send acked", "release 70 in 3 of m1"]);
  });

  test("comes along with the join where it was revoked before that", () => {
    const script = new SessionScript();
    const ref = script.subscribe();
    const { owned } = joinResult({ partitions: TWO });
    const effects = script.join(ref, { owned: { ...owned, ...revoking(FIRST) } });
    expect(lines(effects)).toEqual([
      "send subscribed",
      "send assigned",
      "stop waiting orders/0",
      "send revoked",
      "release 70 in 3 of m1",
      "read orders/1 from 0",
    ]);
  });

  test("holds up no drain: the socket closes when it is acknowledged", () => {
    const { script } = revokingTen();
    script.step({ type: "draining", retryAfterMs: 500 });
    expect(lines(script.ackAndCommit([entry(10)]))).toEqual([
      "send acked",
      "release 70 in 3 of m1",
      "close 4000",
    ]);
  });

  test("is revoked and let go of a socket that is to be closed, too", () => {
    const { script, ref } = sentTen();
    script.step({ type: "draining", retryAfterMs: 500 });
    expect(lines(script.own(ref, revoking(FIRST)))).toEqual(["stop waiting orders/0", "send revoked"]);
  });
});

describe("the partitions that stay", () => {
  test("keep their generation, what is being read of them, and their turn", () => {
    const { script, reading } = revokingTen();
    const sent = script.answer(reading, { count: 10, logEndOffset: 100 });
    expect(framesOf(sent)).toMatchObject([{ type: "records", partition: 1, generation: 4, next: 10 }]);
    expect(lines(sent)).toEqual(["send records orders/1 to 10", "read orders/1 from 10"]);
  });

  test("share the window with what is out of those that go, and have all of it when they are gone", () => {
    const { script, ref, reading } = revokingTen({ window: { records: 20 } });
    expect(all(script.answer(reading, { count: 10, logEndOffset: 100 }), "read")).toEqual([]);
    const read = theOne(script.own(ref, losing(FIRST)), "read");
    expect(read.request).toMatchObject({ partitionId: 71, from: 10, recordsMax: 10 });
    expect(deliveryOf(script)).toMatchObject({ unackedRecords: 10, unackedBytes: 1_000 });
  });

  test("are acknowledged as before", () => {
    const { script, reading } = revokingTen();
    script.answer(reading, { count: 10, logEndOffset: 100 });
    const acked = script.ackAndCommit([entry(10, { partition: 1, generation: 4 })], { id: 1 });
    expect(framesOf(acked)).toMatchObject([
      { type: "acked", id: 1, offsets: [{ partition: 1, offset: 10 }] },
    ]);
    expect(all(acked, "release")).toEqual([]);
  });

  test("of other subscriptions of the socket do not notice", () => {
    const { script, ref } = sentTen();
    script.open({ subscription: "s2", group: "audit" });
    const effects = script.own(ref, revoking(FIRST, SECOND));
    expect(framesOf(effects)).toMatchObject([{ type: "revoked", subscription: "default" }]);
    expect(theOne(script.ack([entry(0)], { subscription: "s2" }), "commit").acks[0]?.refusal).toBeUndefined();
  });
});

describe("release", () => {
  test("lets a revoked partition go now, though not all of it is acknowledged, and is answered", () => {
    const { script } = revokingTen();
    const effects = script.receive({ type: "release", id: 1, partitions: [ORDERS] });
    expect(lines(effects)).toEqual(["release 70 in 3 of m1", "send ok"]);
    expect(deliveryOf(script)?.unackedRecords).toBe(0);
  });

  test("makes room for the partitions that stay", () => {
    const { script, reading } = revokingTen({ window: { records: 20 } });
    script.answer(reading, { count: 10, logEndOffset: 100 });
    const effects = script.receive({ type: "release", partitions: [ORDERS] });
    expect(lines(effects)).toEqual(["release 70 in 3 of m1", "read orders/1 from 10"]);
  });

  test("of several lets them go together; named twice they go once", () => {
    const { script, ref, reading } = sentTen();
    script.answer(reading, { count: 10, logEndOffset: 100 });
    script.own(ref, revoking(FIRST, SECOND));
    const partitions = [ORDERS, { topic: "orders", partition: 1 }, ORDERS];
    expect(lines(script.receive({ type: "release", partitions }))).toEqual([
      "release 70 in 3, 71 in 4 of m1",
    ]);
  });

  test("of a partition that was let go already is ok and does nothing more", () => {
    const { script } = revokingTen();
    script.ackAndCommit([entry(10)]);
    expect(lines(script.receive({ type: "release", id: 1, partitions: [ORDERS] }))).toEqual(["send ok"]);
  });

  test("leaves an ack of what was released to the database, and frees nothing by it", () => {
    const { script } = revokingTen();
    script.receive({ type: "release", partitions: [ORDERS] });
    expect(lines(script.ackAndCommit([entry(10)]))).toEqual(["send acked"]);
    expect(deliveryOf(script)?.unackedRecords).toBe(0);
  });

  test("of a partition that is not being revoked is a conflict, and it stays", () => {
    const { script, reading } = sentTen();
    expect(framesOf(script.receive({ type: "release", id: 1, partitions: [ORDERS] }))).toEqual([
      {
        type: "error",
        id: 1,
        subscription: "default",
        ...ORDERS,
        code: "conflict",
        message: 'Cannot release topic "orders" partition 0: it is not being revoked',
        retriable: false,
      },
    ]);
    expect(lines(script.answer(reading, { logEndOffset: 0 }))).toEqual([
      "wait orders/1 at 0",
      "read orders/0 from 10",
    ]);
  });

  test("of one that is being revoked and one that is not has no effect at all", () => {
    const { script } = revokingTen();
    const partitions = [ORDERS, { topic: "orders", partition: 1 }];
    expect(framesOf(script.receive({ type: "release", partitions }))).toMatchObject([
      { partition: 1, code: "conflict" },
    ]);
    expect(deliveryOf(script)?.unackedRecords).toBe(10);
  });

  test("of a partition that is not assigned, or is lost already, is not_assigned", () => {
    const { script, ref } = revokingTen();
    const partitions = [{ topic: "orders", partition: 5 }];
    expect(framesOf(script.receive({ type: "release", id: 1, partitions }))).toMatchObject([
      { type: "error", id: 1, topic: "orders", partition: 5, code: "not_assigned" },
    ]);
    script.own(ref, losing(FIRST));
    expect(lines(script.receive({ type: "release", partitions: [ORDERS] }))).toEqual([
      "send error not_assigned",
    ]);
  });

  test("of no subscription is unknown_subscription, and of a reader a conflict: it owns nothing", () => {
    const script = new SessionScript();
    expect(lines(script.receive({ type: "release", partitions: [ORDERS] }))).toEqual([
      "send error unknown_subscription",
    ]);
    script.read();
    expect(lines(script.receive({ type: "release", partitions: [ORDERS] }))).toEqual(["send error conflict"]);
  });
});

describe("a partition that is lost", () => {
  test("after it was told to go is not told of again, and what is out of it leaves the window", () => {
    const { script, ref } = revokingTen();
    expect(lines(script.own(ref, losing(FIRST)))).toEqual(["stop waiting orders/0"]);
    expect(deliveryOf(script)?.unackedRecords).toBe(0);
  });

  test("after it was let go is not told of again", () => {
    const { script, ref } = revokingTen();
    script.receive({ type: "release", partitions: [ORDERS] });
    expect(framesOf(script.own(ref, losing(FIRST)))).toEqual([]);
  });

  test("without a word before is revoked with deadline 0: it is gone already", () => {
    const { script, ref } = sentTen();
    const effects = script.own(ref, losing(FIRST));
    expect(lines(effects)).toEqual(["stop waiting orders/0", "send revoked"]);
    expect(framesOf(effects)).toEqual([
      {
        type: "revoked",
        subscription: "default",
        partitions: [{ ...ORDERS, generation: 3 }],
        reason: "rebalance",
        deadlineMs: 0,
      },
    ]);
    expect(deliveryOf(script)?.unackedRecords).toBe(0);
  });

  test("beside one that was told to go is told of alone", () => {
    const { script, ref } = revokingTen();
    expect(framesOf(script.own(ref, losing(FIRST, SECOND)))).toMatchObject([
      { type: "revoked", partitions: [{ partition: 1, generation: 4 }], deadlineMs: 0 },
    ]);
    expect(deliveryOf(script)?.turns).toEqual([]);
  });

  test("in a generation that this member has no more is not told of", () => {
    const { script, ref } = sentTen();
    expect(lines(script.own(ref, losing({ partitionId: 70, generation: 2 })))).toEqual([]);
  });

  test("is not sent what was being read of it, and lets the others be read", () => {
    const { script, ref, reading } = sentTen();
    script.own(ref, losing(SECOND));
    expect(lines(script.answer(reading, { count: 10, logEndOffset: 100 }))).toEqual([
      "read orders/0 from 10",
    ]);
  });

  test("comes back like one that never was there, in a new generation and not paused", () => {
    const { script, ref, reading } = sentTen();
    script.receive({ type: "pause", partitions: [ORDERS] });
    script.own(ref, revoking(FIRST));
    script.own(ref, losing(FIRST));
    const effects = script.own(ref, { gained: [joinedPartition({ generation: 9, committedOffset: 4 })] });
    expect(framesOf(effects)).toMatchObject([
      { type: "assigned", partitions: [{ generation: 9, position: 4 }] },
    ]);
    expect(lines(script.answer(reading, { logEndOffset: 0 }))).toEqual([
      "wait orders/1 at 0",
      "read orders/0 from 4",
    ]);
  });

  test("and found with the same member again goes on in the new generation, though it was told to go", () => {
    const { script, ref, reading } = revokingTen();
    script.receive({ type: "pause", partitions: [ORDERS] });
    const effects = script.own(ref, { gained: [joinedPartition({ generation: 9, committedOffset: 4 })] });
    expect(lines(effects)).toEqual(["send assigned", "stop waiting orders/0"]);
    expect(lines(script.answer(reading, { logEndOffset: 0 }))).toEqual([
      "wait orders/1 at 0",
      "read orders/0 from 4",
    ]);
  });
});

describe("a partition that begins anew, in a new generation", () => {
  const anew = (about: Parameters<typeof joinedPartition>[0] = {}) => ({
    gained: [joinedPartition({ generation: 9, ...about })],
  });

  test("is assigned once, and not revoked; what is out of it leaves the window", () => {
    const { script, ref } = sentTen();
    const effects = script.own(ref, anew());
    expect(lines(effects)).toEqual(["send assigned", "stop waiting orders/0"]);
    expect(framesOf(effects)).toMatchObject([
      { partitions: [{ ...ORDERS, generation: 9, position: 0, committedOffset: 0 }] },
    ]);
    expect(deliveryOf(script)).toMatchObject({ unackedRecords: 0, unackedBytes: 0 });
    expect(deliveryOf(script)?.turns).toHaveLength(2);
  });

  test("is not sent the chunk that was being read of it, and is read from its new place when that has come", () => {
    const { script, ref, reading } = sentTen();
    const change = { gained: [joinedPartition({ partition: 1, generation: 9, committedOffset: 50 })] };
    expect(all(script.own(ref, change), "read")).toEqual([]);
    const late = script.answer(reading, { count: 10, logEndOffset: 100 });
    expect(lines(late)).toEqual(["read orders/0 from 10"]);
    expect(lines(script.answer(theOne(late, "read"), { logEndOffset: 10 }))).toEqual([
      "wait orders/0 at 10",
      "read orders/1 from 50",
    ]);
  });

  test("at the end of the log waits there, and no more where it waited before", () => {
    const { script, ref } = sentTen();
    const effects = script.own(ref, anew({ committedOffset: 100, logEndOffset: 100 }));
    expect(lines(effects)).toEqual(["send assigned", "stop waiting orders/0", "wait orders/0 at 100"]);
    expect(theOne(effects, "wait").ref.generation).toBe(9);
  });

  test("frees nothing by an ack that was on its way, and has the later ones of before fenced", () => {
    const { script, ref, reading } = sentTen({ window: { records: 20 } });
    const commit = theOne(script.ack([entry(10)], { id: 1 }), "commit");
    script.own(ref, anew());
    const again = theOne(script.answer(reading, { logEndOffset: 0 }), "read");
    script.answer(again, { count: 10, logEndOffset: 100 });
    expect(framesOf(script.commit(commit))).toMatchObject([{ type: "acked", id: 1 }]);
    expect(deliveryOf(script)?.unackedRecords).toBe(10);
    expect(theOne(script.ack([entry(10)]), "commit").acks[0]?.refusal).toBe("fenced_generation");
  });

  test("from 600 to 0 fences an ack of 550, and takes none above what it has sent since", () => {
    const script = new SessionScript();
    const { ref, effects } = script.open({}, [joinedPartition({ committedOffset: 500 })]);
    script.answer(theOne(effects, "read"), { count: 100, logEndOffset: 600 });
    script.own(ref, anew({ committedOffset: 0, logEndOffset: 600 }));
    const { acks } = theOne(script.ack([entry(550), entry(550, { generation: 9 })]), "commit");
    expect(acks.map(({ refusal }) => refusal)).toEqual(["fenced_generation", "offset_out_of_range"]);
  });

  test("answers a seek of before with not_assigned, and stays at its place", () => {
    const { script, ref, reading } = sentTen();
    const asked = theOne(script.receive({ type: "seek", id: 1, ...ORDERS, to: "latest" }), "locate");
    script.own(ref, anew({ committedOffset: 4 }));
    expect(framesOf(script.locate(asked))).toMatchObject([{ type: "error", id: 1, code: "not_assigned" }]);
    expect(lines(script.answer(reading, { logEndOffset: 0 }))).toContain("read orders/0 from 4");
  });

  test("stays paused: it was not lost", () => {
    const { script, ref, reading } = sentTen();
    script.receive({ type: "pause", partitions: [ORDERS] });
    script.own(ref, anew({ committedOffset: 4 }));
    expect(lines(script.answer(reading, { logEndOffset: 0 }))).toEqual(["wait orders/1 at 0"]);
    expect(lines(script.receive({ type: "resume", partitions: [ORDERS] }))).toEqual(["read orders/0 from 4"]);
  });

  test("has its own time to be acknowledged", () => {
    const { script, ref } = sentTen({ ackTimeoutMs: 1_000 });
    script.at(500).own(ref, anew());
    expect(all(script.at(1_000).step({ type: "alarm" }), "stall")).toEqual([]);
  });

  test("and is revoked with it is told of both, in this order", () => {
    const { script, ref } = sentTen();
    const effects = script.own(ref, { ...anew(), ...revoking({ partitionId: 70, generation: 9 }) });
    expect(lines(effects)).toEqual([
      "send assigned",
      "stop waiting orders/0",
      "stop waiting orders/0",
      "send revoked",
      "release 70 in 9 of m1",
    ]);
  });
});

describe("a topic that is deleted and created again in one change", () => {
  test("is revoked first, then assigned under the same number, and read from its start", () => {
    const script = new SessionScript();
    const { ref, effects } = script.open();
    const sent = script.answer(theOne(effects, "read"), { count: 10, logEndOffset: 100 });
    const change = script.own(ref, {
      gained: [joinedPartition({ topicId: 9, partitionId: 90, generation: 8 })],
      lost: [{ ...FIRST, reason: "topic_deleted" }],
    });
    expect(framesOf(change)).toMatchObject([
      { type: "revoked", reason: "topic_deleted", deadlineMs: 0, partitions: [{ ...ORDERS, generation: 3 }] },
      { type: "assigned", partitions: [{ ...ORDERS, topicId: 9, generation: 8 }] },
    ]);
    expect(deliveryOf(script)).toMatchObject({ unackedRecords: 0, turns: [{ partitionId: 90 }] });
    const late = script.answer(theOne(sent, "read"), { count: 10, logEndOffset: 100 });
    expect(theOne(late, "read").request).toMatchObject({ partitionId: 90, from: 0 });
    expect(framesOf(late)).toEqual([]);
  });

  test("beside a partition that somebody else gets is told of with its own reason", () => {
    const { script, ref } = sentTen();
    const lost = [
      { ...FIRST, reason: "topic_deleted" },
      { ...SECOND, reason: "rebalance" },
    ] as const;
    expect(framesOf(script.own(ref, { lost }))).toMatchObject([
      { reason: "rebalance", partitions: [{ partition: 1 }] },
      { reason: "topic_deleted", partitions: [{ partition: 0 }] },
    ]);
  });
});

describe("a member without a partition", () => {
  test("is assigned nothing, and lives", () => {
    const script = new SessionScript();
    const { ref, effects } = script.open({}, []);
    expect(lines(effects)).toEqual(["send subscribed", "send assigned"]);
    expect(framesOf(effects)[1]).toEqual({ type: "assigned", subscription: "default", partitions: [] });
    expect(lines(script.own(ref, { gained: [joinedPartition()] }))).toEqual([
      "send assigned",
      "read orders/0 from 0",
    ]);
  });

  test("is told of no change that does not concern it", () => {
    const script = new SessionScript();
    const { ref } = script.open({}, []);
    expect(lines(script.own(ref, { ...revoking(FIRST), ...losing(SECOND) }))).toEqual([]);
  });
});

describe("at most once, a partition that is revoked while a chunk of it is committed ahead", () => {
  /** Five records are being committed ahead, and the partition is to go. */
  function committing() {
    const script = new SessionScript();
    const { ref, effects } = script.open({ ack: "none" });
    const asked = script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 100 });
    return { script, ref, ahead: theOne(asked, "commitAhead"), told: script.own(ref, revoking(FIRST)) };
  }
  const committed = (script: SessionScript, { ref, chunk }: EffectOf<"commitAhead">, isFenced = false) =>
    script.step({ type: "committedAhead", ref, chunk, isFenced });

  test("is sent it, then revoked, then let go when the socket has taken it", () => {
    const { script, ahead, told } = committing();
    expect(lines(told)).toEqual([]);
    script.bufferedBytes = 500;
    const sent = committed(script, ahead);
    expect(lines(sent)).toEqual(["send records orders/0 to 5", "stop waiting orders/0", "send revoked"]);
    expect(framesOf(sent)[1]).toMatchObject({ reason: "rebalance", deadlineMs: 5_000 });
    script.bufferedBytes = 0;
    expect(lines(script.step({ type: "drained" }))).toEqual(["release 70 in 3 of m1"]);
  });

  test("is sent it before it goes though it could not be committed, or nobody knows: it is read again", () => {
    const { script, ahead } = committing();
    const again = script.step({ type: "commitAheadFailed", ref: ahead.ref });
    expect(lines(again)).toEqual(["read orders/0 from 0"]);
    const repeated = script.answer(theOne(again, "read"), { count: 5, logEndOffset: 100 });
    const sent = committed(script, theOne(repeated, "commitAhead"));
    expect(lines(sent).slice(0, 3)).toEqual([
      "send records orders/0 to 5",
      "stop waiting orders/0",
      "send revoked",
    ]);
  });

  test("is sent it before it goes though the socket is full in between", () => {
    const { script, ahead } = committing();
    script.bufferedBytes = SOCKET_BUFFER_BYTES_MAX;
    expect(lines(committed(script, ahead))).toEqual([]);
    script.bufferedBytes = 0;
    expect(lines(script.step({ type: "drained" }))).toEqual([
      "send records orders/0 to 5",
      "stop waiting orders/0",
      "send revoked",
    ]);
    expect(lines(script.step({ type: "drained" }))).toEqual(["release 70 in 3 of m1"]);
  });

  test("is sent it before it goes though it is paused in between", () => {
    const { script, ahead } = committing();
    script.receive({ type: "pause", partitions: [ORDERS] });
    expect(lines(committed(script, ahead))).toEqual([
      "send records orders/0 to 5",
      "stop waiting orders/0",
      "send revoked",
    ]);
    expect(lines(script.step({ type: "drained" }))).toEqual(["release 70 in 3 of m1"]);
  });

  test("is sent it before it goes where the revocation comes between two attempts", () => {
    const script = new SessionScript();
    const { ref, effects } = script.open({ ack: "none" });
    const asked = script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 100 });
    const again = script.step({ type: "commitAheadFailed", ref: theOne(asked, "commitAhead").ref });
    expect(lines(script.own(ref, revoking(FIRST)))).toEqual([]);
    const repeated = script.answer(theOne(again, "read"), { count: 5, logEndOffset: 100 });
    expect(lines(committed(script, theOne(repeated, "commitAhead")))[0]).toBe("send records orders/0 to 5");
  });

  test("goes where nothing of it is left in the log", () => {
    const { script, ahead } = committing();
    const again = theOne(script.step({ type: "commitAheadFailed", ref: ahead.ref }), "read");
    const gone = script.answer(again, { count: 0, next: 100, logStartOffset: 0, logEndOffset: 100 });
    expect(lines(gone).slice(-2)).toEqual(["send revoked", "release 70 in 3 of m1"]);
  });

  test("goes where it loses its place by the policy none", () => {
    const { script, ahead } = committing();
    const again = theOne(script.step({ type: "commitAheadFailed", ref: ahead.ref }), "read");
    const asked = script.answer(again, { logStartOffset: 50, logEndOffset: 100 });
    const { ref } = theOne(asked, "reposition");
    const to = { position: null, policy: "none", committedOffset: 5, metadata: null } as const;
    const moved = script.step({
      type: "repositioned",
      ref,
      to: { ...to, logStartOffset: 50, logEndOffset: 100 },
    });
    expect(lines(moved).slice(-2)).toEqual(["send revoked", "release 70 in 3 of m1"]);
  });

  test("is not waited for by a record that is too large for what is left: it comes alone, then it goes", () => {
    const { script, ahead } = committing();
    const again = theOne(script.step({ type: "commitAheadFailed", ref: ahead.ref }), "read");
    const larger = script.answer(again, { count: 0, firstRecordBytes: 300_000, logEndOffset: 100 });
    expect(lines(larger)).toEqual(["read orders/0 from 0"]);
  });

  test("and lost before it is committed is revoked with deadline 0, and sent nothing of it", () => {
    const { script, ref, ahead } = committing();
    expect(framesOf(script.own(ref, losing(FIRST)))).toMatchObject([{ type: "revoked", deadlineMs: 0 }]);
    expect(lines(committed(script, ahead, true))).toEqual([]);
    expect(deliveryOf(script)).toMatchObject({ unackedRecords: 0, reservedBytes: 0, turns: [] });
  });

  test("and fenced first is told of when word of its loss comes", () => {
    const { script, ref, ahead } = committing();
    expect(lines(committed(script, ahead, true))).toEqual([]);
    expect(framesOf(script.own(ref, losing(FIRST)))).toMatchObject([{ type: "revoked", deadlineMs: 0 }]);
  });

  test("is not to be released or sought before it was told of", () => {
    const { script } = committing();
    expect(lines(script.receive({ type: "release", partitions: [ORDERS] }))).toEqual(["send error conflict"]);
    expect(lines(script.receive({ type: "seek", ...ORDERS, to: "earliest" }))).toEqual([
      "send error not_assigned",
    ]);
  });

  test("is named by revoked where the membership expires", () => {
    const { script, ref } = committing();
    expect(framesOf(script.step({ type: "ended", ref, reason: "expired" }))).toMatchObject([
      { type: "revoked", reason: "expired", partitions: [{ ...ORDERS, generation: 3 }] },
      { type: "unsubscribed" },
    ]);
  });

  test("is revoked at once where it is only being read: nothing is committed of that", () => {
    const script = new SessionScript();
    const { ref, effects } = script.open({ ack: "none" });
    expect(lines(script.own(ref, revoking(FIRST)))).toContain("send revoked");
    expect(lines(script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 100 }))).toEqual([]);
  });

  test("lets the other partitions of the subscription go at once", () => {
    const script = new SessionScript();
    const { ref, effects } = script.open({ ack: "none" }, TWO);
    script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 100 });
    expect(framesOf(script.own(ref, revoking(FIRST, SECOND)))).toMatchObject([
      { type: "revoked", partitions: [{ partition: 1 }] },
    ]);
  });

  test("is revoked at once where a seek has voided the chunk: there is nothing to wait for, paused or not", () => {
    const script = new SessionScript();
    const { ref, effects } = script.open({ ack: "none" });
    const asked = script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 100 });
    script.receive({ type: "pause", partitions: [ORDERS] });
    script.seekAndLocate({ ...ORDERS, to: "latest" }, { logEndOffset: 100 });
    expect(lines(script.own(ref, revoking(FIRST)))).toEqual([
      "stop waiting orders/0",
      "send revoked",
      "release 70 in 3 of m1",
    ]);
    expect(lines(committed(script, theOne(asked, "commitAhead")))).toEqual([]);
  });
});

describe("a membership that ends while a partition is revoked", () => {
  test("by a takeover says so and nothing of the partitions", () => {
    const { script, ref } = revokingTen();
    expect(lines(script.step({ type: "ended", ref, reason: "replaced" }))).toEqual([
      "stop waiting default#1",
      "send unsubscribed replaced",
    ]);
  });

  test("by its lease says of which partitions the client does not know yet", () => {
    const { script, ref } = revokingTen();
    expect(framesOf(script.step({ type: "ended", ref, reason: "expired" }))).toMatchObject([
      { type: "revoked", reason: "expired", deadlineMs: 0, partitions: [{ partition: 1, generation: 4 }] },
      { type: "unsubscribed", code: "expired" },
    ]);
  });

  test("by its lease, with all of them revoked, names none", () => {
    const { script, ref } = revokingTen();
    script.own(ref, revoking(SECOND));
    expect(lines(script.step({ type: "ended", ref, reason: "expired" }))).toEqual([
      "stop waiting default#1",
      "send unsubscribed expired",
    ]);
  });

  test("by an unsubscribe leaves, and what comes of the rebalance is void", () => {
    const { script, ref } = revokingTen();
    expect(lines(script.receive({ type: "unsubscribe" }))).toEqual([
      "stop waiting default#1",
      "leave billing m1",
    ]);
    expect(lines(script.own(ref, losing(FIRST)))).toEqual([]);
  });

  for (const [title, options, line] of [
    ["leaves", {}, "leave billing m1"],
    ["with an instanceId is kept for its lease", { instanceId: "tab-7" }, "detach billing m1"],
  ] as const) {
    test(`with its socket ${title}, and nothing is released by that`, () => {
      const { script, ref } = revokingTen(options);
      const commit = theOne(script.ack([entry(10)]), "commit");
      expect(lines(script.step({ type: "closed" }))).toEqual(["stop waiting default#1", line]);
      const late = [...script.commit(commit), ...script.own(ref, losing(FIRST))];
      expect(all(late, "release")).toEqual([]);
    });
  }
});
