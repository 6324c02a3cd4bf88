import { describe, expect, test } from "bun:test";
import type { OwnershipChange } from "../../../src/core/ownership.ts";
import { Problem } from "../../../src/core/problem.ts";
import type { LocatedFacts } from "../../../src/core/session/events.ts";
import { SEEKS_WAITING_MAX } from "../../../src/protocol/limits.ts";
import type { Place } from "../../../src/protocol/places.ts";
import {
  all,
  framesOf,
  joinedPartition,
  lines,
  readerPartition,
  SessionScript,
  theOne,
  unplacedPartition,
} from "../../support/session-script.ts";

const ORDERS = { topic: "orders", partition: 0 };
const entry = (offset: number, about: { partition?: number; generation?: number } = {}) => ({
  topic: "orders",
  partition: 0,
  generation: 3,
  offset,
  ...about,
});
const TWO = [joinedPartition(), joinedPartition({ partition: 1, generation: 4 })];

/** Ten of the twenty records that the window has room for are sent, and the next are being read. */
function sentTen() {
  const script = new SessionScript();
  const { ref, effects } = script.open({ window: { records: 20 } });
  const sent = script.answer(theOne(effects, "read"), { count: 10, logEndOffset: 100 });
  return { script, ref, reading: theOne(sent, "read") };
}

describe("seek", () => {
  const found: LocatedFacts = {
    logStartOffset: 40,
    logEndOffset: 100,
    committedOffset: 60,
    metadata: "m",
    offsetAtTime: 70,
  };
  const places: readonly [place: Place, position: number][] = [
    ["earliest", 40],
    ["latest", 100],
    ["current", 60],
    [{ offset: 40 }, 40],
    [{ offset: 100 }, 100],
    [{ timestamp: 5 }, 70],
    [{ ago: 5 }, 70],
    [{ shift: 5 }, 65],
    [{ shift: -50 }, 40],
  ];
  for (const [to, position] of places) {
    test(`to ${JSON.stringify(to)} is answered by assigned at ${position}, and read from there`, () => {
      const script = new SessionScript();
      const { effects } = script.open();
      script.answer(theOne(effects, "read"), { logEndOffset: 0 });
      const asking = script.receive({ type: "seek", id: 7, ...ORDERS, to });
      expect(lines(asking)).toEqual(["locate orders/0"]);
      const moved = script.locate(theOne(asking, "locate"), found);
      expect(lines(moved)).toEqual([
        "stop waiting orders/0",
        "send assigned",
        `read orders/0 from ${position}`,
      ]);
      expect(framesOf(moved)).toEqual([
        {
          type: "assigned",
          id: 7,
          subscription: "default",
          partitions: [
            {
              ...ORDERS,
              topicId: 7,
              generation: 3,
              position,
              committedOffset: 60,
              metadata: "m",
              logStartOffset: 40,
              logEndOffset: 100,
            },
          ],
        },
      ]);
    });
  }

  test("asks for what its place depends on: the partition, the group, the place", () => {
    const script = new SessionScript();
    const { ref } = script.open();
    const { seek } = theOne(script.receive({ type: "seek", id: 7, ...ORDERS, to: "current" }), "locate");
    expect(seek).toEqual({
      ref,
      id: 7,
      ...ORDERS,
      generation: 3,
      partitionId: 70,
      group: "billing",
      place: "current",
    });
  });

  test("without id is answered all the same, without id", () => {
    const script = new SessionScript();
    script.open();
    const [assigned] = framesOf(script.seekAndLocate({ ...ORDERS, to: "latest" }));
    expect(assigned).toMatchObject({ type: "assigned", partitions: [{ position: 1_000_000 }] });
    expect(assigned).not.toHaveProperty("id");
  });

  test("empties the partition's share of the window, and no other's", () => {
    const script = new SessionScript();
    const { effects } = script.open({ window: { records: 20 } }, TWO);
    const second = script.answer(theOne(effects, "read"), { count: 10, logEndOffset: 100 });
    const full = script.answer(theOne(second, "read"), { count: 10, logEndOffset: 100 });
    expect(all(full, "read")).toEqual([]);
    const moved = script.seekAndLocate({ ...ORDERS, to: { offset: 50 } });
    expect(theOne(moved, "read").request).toMatchObject({ from: 50, recordsMax: 10 });
  });

  test("voids the chunk that is being read: it is not sent, and what follows is read from the place", () => {
    const { script, reading } = sentTen();
    const moved = script.seekAndLocate({ ...ORDERS, to: { offset: 3 } });
    expect(lines(moved)).toEqual(["stop waiting orders/0", "send assigned"]); // one read at a time
    const late = script.answer(reading, { count: 5, logEndOffset: 100 });
    expect(lines(late)).toEqual(["read orders/0 from 3"]);
    expect(lines(script.answer(theOne(late, "read"), { count: 2, logEndOffset: 5 }))).toEqual([
      "send records orders/0 to 5",
      "wait orders/0 at 5",
    ]);
  });

  test("to where the partition is read already voids the chunk as well: it would come twice", () => {
    const { script, reading } = sentTen();
    script.seekAndLocate({ ...ORDERS, to: { offset: 10 } });
    expect(lines(script.answer(reading, { count: 5, logEndOffset: 100 }))).toEqual(["read orders/0 from 10"]);
  });

  test("sends what is read before its place is known, as it is then still wanted", () => {
    const { script, reading } = sentTen();
    const asking = script.receive({ type: "seek", ...ORDERS, to: "earliest" });
    expect(lines(script.answer(reading, { count: 5, logEndOffset: 15 }))).toEqual([
      "send records orders/0 to 15",
      "wait orders/0 at 15",
    ]);
    expect(lines(script.locate(theOne(asking, "locate")))).toEqual([
      "stop waiting orders/0",
      "send assigned",
      "read orders/0 from 0",
    ]);
  });

  test("cancels the wait: a wake-up that was meant for it does nothing", () => {
    const script = new SessionScript();
    const { effects } = script.open();
    const waiting = theOne(script.answer(theOne(effects, "read"), { logEndOffset: 0 }), "wait");
    const reading = theOne(script.seekAndLocate({ ...ORDERS, to: { offset: 5 } }), "read");
    const again = theOne(script.answer(reading, { logEndOffset: 5 }), "wait");
    expect(lines(script.step({ type: "grown", ref: waiting.ref }))).toEqual([]);
    expect(lines(script.step({ type: "grown", ref: again.ref }))).toEqual(["read orders/0 from 5"]);
  });

  test("raises what may be acknowledged to its place, and no further", () => {
    const { script } = sentTen();
    const refusalOf = (offset: number) => theOne(script.ack([entry(offset)]), "commit").acks[0]?.refusal;
    expect(refusalOf(50)).toBe("offset_out_of_range");
    script.seekAndLocate({ ...ORDERS, to: { offset: 50 } });
    expect([refusalOf(50), refusalOf(51)]).toEqual([undefined, "offset_out_of_range"]);
  });

  test("back leaves what was reached before open to be acknowledged", () => {
    const { script } = sentTen();
    script.seekAndLocate({ ...ORDERS, to: "earliest" });
    const refusalOf = (offset: number) => theOne(script.ack([entry(offset)]), "commit").acks[0]?.refusal;
    expect([refusalOf(10), refusalOf(11)]).toEqual([undefined, "offset_out_of_range"]);
  });

  test("frees once what an ack that was on its way covers", () => {
    const { script, reading } = sentTen();
    const commit = theOne(script.ack([entry(10)]), "commit");
    script.seekAndLocate({ ...ORDERS, to: "earliest" });
    const read = theOne(script.answer(reading, { logEndOffset: 100 }), "read");
    const sent = script.answer(read, { count: 10, logEndOffset: 100 });
    const full = script.answer(theOne(sent, "read"), { count: 10, logEndOffset: 100 });
    expect(all(full, "read")).toEqual([]);
    // What it names was sent again since: the client says that it has it.
    expect(theOne(script.commit(commit), "read").request.recordsMax).toBe(10);
    expect(script.session.subscriptions.get("default")?.delivery.unackedRecords).toBe(10);
  });

  test("commits nothing", () => {
    const { script } = sentTen();
    const moved = script.seekAndLocate({ ...ORDERS, to: "latest" });
    expect([...all(moved, "commit"), ...all(moved, "commitAhead"), ...all(moved, "reposition")]).toEqual([]);
  });

  test("of several is answered in order, and the last one counts", () => {
    const { script, reading } = sentTen();
    const asked = [3, 7, 5].map((offset, id) =>
      theOne(script.receive({ type: "seek", id, ...ORDERS, to: { offset } }), "locate"),
    );
    const answers = asked.flatMap((locate) => framesOf(script.locate(locate)));
    expect(answers).toMatchObject([
      { id: 0, partitions: [{ position: 3 }] },
      { id: 1, partitions: [{ position: 7 }] },
      { id: 2, partitions: [{ position: 5 }] },
    ]);
    expect(lines(script.answer(reading, { count: 1, logEndOffset: 100 }))).toEqual(["read orders/0 from 5"]);
  });

  test("of a paused partition moves it, and it stays paused", () => {
    const { script, reading } = sentTen();
    script.receive({ type: "pause", partitions: [ORDERS] });
    script.answer(reading, { count: 1, logEndOffset: 100 });
    expect(lines(script.seekAndLocate({ ...ORDERS, to: { offset: 3 } }))).toEqual([
      "stop waiting orders/0",
      "send assigned",
    ]);
    expect(lines(script.receive({ type: "resume", partitions: [ORDERS] }))).toEqual(["read orders/0 from 3"]);
  });

  test("gives a partition a place that the policy none left without one", () => {
    const script = new SessionScript();
    const ref = script.subscribe({ reset: "none" });
    script.join(ref, { partitions: [unplacedPartition()] });
    expect(theOne(script.seekAndLocate({ ...ORDERS, to: { offset: 9 } }), "read").request.from).toBe(9);
  });

  const owned = { partitionId: 70, generation: 3 };
  const lost: readonly [
    title: string,
    change: Partial<OwnershipChange> | "unsubscribe",
    code: "not_assigned" | "unknown_subscription",
  ][] = [
    ["that is lost", { lost: [{ ...owned, reason: "rebalance" }] }, "not_assigned"],
    ["that begins to be revoked", { revoked: [{ ...owned, deadlineMs: 5_000 }] }, "not_assigned"],
    ["that begins anew", { gained: [joinedPartition({ generation: 8 })] }, "not_assigned"],
    [
      "whose topic is deleted and created again",
      {
        lost: [{ ...owned, reason: "topic_deleted" }],
        gained: [joinedPartition({ partitionId: 90, topicId: 9, generation: 8 })],
      },
      "not_assigned",
    ],
    ["whose subscription ends", "unsubscribe", "unknown_subscription"],
  ];
  for (const [title, change, code] of lost) {
    test(`of a partition ${title} in between is ${code}`, () => {
      const script = new SessionScript();
      const { ref } = script.open();
      const asked = theOne(script.receive({ type: "seek", id: 7, ...ORDERS, to: "latest" }), "locate");
      if (change === "unsubscribe") script.receive({ type: "unsubscribe" });
      else script.own(ref, change);
      const answer = script.locate(asked);
      expect(framesOf(answer)).toMatchObject([
        { type: "error", id: 7, subscription: "default", ...ORDERS, code },
      ]);
      expect(all(answer, "read")).toEqual([]);
      expect(script.session.waiting.seeks).toBe(0);
    });
  }

  const refusals: readonly [title: string, to: Place, found: Partial<LocatedFacts>, code: string][] = [
    ["an offset below the log", { offset: 39 }, { logStartOffset: 40 }, "offset_out_of_range"],
    ["an offset above the log", { offset: 101 }, { logEndOffset: 100 }, "offset_out_of_range"],
    ["current where nothing is committed", "current", {}, "no_committed_offset"],
    ["a shift where nothing is committed", { shift: 5 }, {}, "no_committed_offset"],
  ];
  for (const [title, to, facts, code] of refusals) {
    test(`to ${title} is ${code}, and the partition goes on where it was`, () => {
      const { script, reading } = sentTen();
      const refused = script.seekAndLocate({ id: 7, ...ORDERS, to }, facts);
      expect(framesOf(refused)).toMatchObject([{ type: "error", id: 7, ...ORDERS, code }]);
      expect(lines(script.answer(reading, { count: 1, logEndOffset: 11 }))).toEqual([
        "send records orders/0 to 11",
        "wait orders/0 at 11",
      ]);
    });
  }

  test("that could not be looked up is an error with its id, and moves nothing", () => {
    const { script, reading } = sentTen();
    const { seek } = theOne(script.receive({ type: "seek", id: 7, ...ORDERS, to: "latest" }), "locate");
    const problem = new Problem("unavailable", "The disk does not answer");
    const refused = script.step({ type: "located", seek, outcome: { problem } });
    expect(framesOf(refused)).toMatchObject([{ type: "error", id: 7, code: "unavailable", retriable: true }]);
    expect(lines(script.answer(reading, { count: 1, logEndOffset: 99 }))[0]).toBe(
      "send records orders/0 to 11",
    );
  });

  test("of a partition that is not assigned, or of no subscription, is refused and looks nothing up", () => {
    const script = new SessionScript();
    script.open({ subscription: "s1" });
    const about = { type: "seek", id: 7, topic: "orders", to: "latest" } as const;
    expect(framesOf(script.receive({ ...about, subscription: "s1", partition: 1 }))).toMatchObject([
      { type: "error", id: 7, subscription: "s1", topic: "orders", partition: 1, code: "not_assigned" },
    ]);
    expect(framesOf(script.receive({ ...about, partition: 0 }))).toMatchObject([
      { type: "error", id: 7, subscription: "default", code: "unknown_subscription" },
    ]);
  });

  test("is rate_limited while as many are waiting as may, and taken again when one is answered", () => {
    const script = new SessionScript();
    script.open();
    const frame = { type: "seek", ...ORDERS, to: "latest" } as const;
    const asked = Array.from({ length: SEEKS_WAITING_MAX }, () => theOne(script.receive(frame), "locate"));
    expect(framesOf(script.receive({ ...frame, id: 7 }))).toMatchObject([
      { type: "error", id: 7, code: "rate_limited", retriable: true },
    ]);
    for (const locate of asked.slice(0, 1)) script.locate(locate);
    expect(lines(script.receive(frame))).toEqual(["locate orders/0"]);
  });

  describe("of a reader", () => {
    test.each<Place>(["current", { shift: 0 }, { shift: -5 }])(
      "to %j is bad_request: nothing is committed",
      (to) => {
        const script = new SessionScript();
        script.read();
        expect(framesOf(script.receive({ type: "seek", id: 7, ...ORDERS, to }))).toMatchObject([
          { type: "error", id: 7, code: "bad_request" },
        ]);
      },
    );

    test.each<Place>(["latest", { offset: 5 }, { timestamp: 5 }, { ago: 5 }])(
      "to %j keeps its generation",
      (to) => {
        const script = new SessionScript();
        script.read({ subscription: "t" });
        const about = { subscription: "t", id: 7, ...ORDERS, to };
        const asked = theOne(script.receive({ type: "seek", ...about }), "locate");
        expect(asked.seek.group).toBeUndefined();
        expect(framesOf(script.locate(asked, { logEndOffset: 5, offsetAtTime: 5 }))).toMatchObject([
          { type: "assigned", id: 7, partitions: [{ generation: 1, position: 5, committedOffset: null }] },
        ]);
      },
    );
  });
});

describe("pause", () => {
  test("holds back the chunk that is being read, and resume reads it again", () => {
    const { script, reading } = sentTen();
    expect(lines(script.receive({ type: "pause", id: 1, partitions: [ORDERS] }))).toEqual(["send ok"]);
    expect(lines(script.answer(reading, { count: 5, logEndOffset: 100 }))).toEqual([]);
    expect(lines(script.step({ type: "drained" }))).toEqual([]);
    const resumed = script.receive({ type: "resume", id: 2, partitions: [ORDERS] });
    expect(lines(resumed)).toEqual(["send ok", "read orders/0 from 10"]);
    expect(framesOf(resumed)).toEqual([{ type: "ok", id: 2 }]);
  });

  test("that is over before the chunk has come sends it", () => {
    const { script, reading } = sentTen();
    script.receive({ type: "pause", partitions: [ORDERS] });
    script.receive({ type: "resume", partitions: [ORDERS] });
    expect(lines(script.answer(reading, { count: 5, logEndOffset: 100 }))[0]).toBe(
      "send records orders/0 to 15",
    );
  });

  test("keeps what the partition holds of the window until it is acknowledged", () => {
    const { script, reading } = sentTen();
    script.receive({ type: "pause", partitions: [ORDERS] });
    script.answer(reading, { count: 5, logEndOffset: 100 });
    script.ackAndCommit([entry(4)]);
    const resumed = script.receive({ type: "resume", partitions: [ORDERS] });
    expect(theOne(resumed, "read").request).toMatchObject({ from: 10, recordsMax: 10 });
    expect(script.session.subscriptions.get("default")?.delivery.unackedRecords).toBe(6);
  });

  test("of one partition lets the others go on", () => {
    const script = new SessionScript();
    const { effects } = script.open({}, TWO);
    const other = script.receive({ type: "pause", partitions: [ORDERS] });
    expect(lines(other)).toEqual([]);
    const second = script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 9 });
    expect(lines(second)).toEqual(["read orders/1 from 0"]);
    const third = script.answer(theOne(second, "read"), { count: 1, logEndOffset: 9 });
    expect(lines(third)).toEqual(["send records orders/1 to 1", "read orders/1 from 1"]);
  });

  test("of a partition that waits lets it wait: it is read when it has grown and goes on", () => {
    const script = new SessionScript();
    const { effects } = script.open();
    const { ref } = theOne(script.answer(theOne(effects, "read"), { logEndOffset: 0 }), "wait");
    script.receive({ type: "pause", partitions: [ORDERS] });
    expect(lines(script.step({ type: "grown", ref }))).toEqual([]);
    expect(lines(script.receive({ type: "resume", partitions: [ORDERS] }))).toEqual(["read orders/0 from 0"]);
  });

  test("twice is over with one resume, and resume of what is not paused does nothing", () => {
    const { script, reading } = sentTen();
    for (const type of ["pause", "pause", "resume", "resume"] as const)
      expect(lines(script.receive({ type, partitions: [ORDERS, ORDERS] }))).toEqual([]);
    expect(lines(script.answer(reading, { count: 1, logEndOffset: 11 }))[0]).toBe(
      "send records orders/0 to 11",
    );
  });

  test("ends with the loss of the partition: what comes in its place is not paused", () => {
    const script = new SessionScript();
    const { effects } = script.read();
    script.receive({ type: "pause", partitions: [ORDERS] });
    script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 1 });
    script.step({ type: "topicChanged", topic: "orders", change: "deleted", partitionIds: [70] });
    const created = { topic: "orders", change: "created", partitionIds: [90] } as const;
    const { ref } = theOne(script.step({ type: "topicChanged", ...created }), "gainReader");
    const partitions = [readerPartition({ topicId: 9, partitionId: 90 })];
    expect(lines(script.step({ type: "readerGained", ref, partitions }))).toEqual([
      "send assigned",
      "read orders/0 from 0",
    ]);
  });

  for (const type of ["pause", "resume"] as const) {
    test(`${type} of one partition that is assigned and one that is not has no effect at all`, () => {
      const { script, reading } = sentTen();
      if (type === "resume") script.receive({ type: "pause", partitions: [ORDERS] });
      const partitions = [ORDERS, { topic: "orders", partition: 1 }];
      expect(framesOf(script.receive({ type, id: 1, partitions }))).toMatchObject([
        { type: "error", id: 1, topic: "orders", partition: 1, code: "not_assigned" },
      ]);
      const sent = script.answer(reading, { count: 1, logEndOffset: 11 });
      expect(all(sent, "sendText")).toHaveLength(type === "pause" ? 1 : 0);
    });

    test(`${type} without id is not answered; of no subscription it is unknown_subscription`, () => {
      const script = new SessionScript();
      script.subscribe();
      expect(lines(script.receive({ type, partitions: [ORDERS] }))).toEqual([
        "send error unknown_subscription",
      ]);
      script.join({ name: "default", serial: 1 });
      expect(framesOf(script.receive({ type, partitions: [ORDERS] }))).toEqual([]);
    });
  }
});
