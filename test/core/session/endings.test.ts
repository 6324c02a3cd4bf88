import { describe, expect, test } from "bun:test";
import type { OwnedPartition } from "../../../src/core/group-change.ts";
import type { OwnershipChange } from "../../../src/core/ownership.ts";
import { Problem } from "../../../src/core/problem.ts";
import type { SessionEffect, SessionEvent } from "../../../src/core/session/events.ts";
import {
  all,
  framesOf,
  joinedPartition,
  lines,
  readerPartition,
  SessionScript,
  theOne,
} from "../../support/session-script.ts";

const entry = { topic: "orders", partition: 0, generation: 3, offset: 0 };
const closed: SessionEvent = { type: "closed" };

describe("a membership that somebody took over", () => {
  test("ends the subscription with unsubscribed, replaced, and nothing is revoked or left", () => {
    const script = new SessionScript();
    const { ref } = script.open({ id: 1, subscription: "s1" });
    const effects = script.step({ type: "ended", ref, reason: "replaced" });
    expect(lines(effects)).toEqual(["stop waiting s1#1", "send unsubscribed replaced"]);
    expect(framesOf(effects)).toEqual([{ type: "unsubscribed", subscription: "s1", code: "replaced" }]);
  });

  test("commits nothing any more, and nothing of it is sent", () => {
    const script = new SessionScript();
    const { ref, effects } = script.open();
    script.step({ type: "ended", ref, reason: "replaced" });
    expect(lines(script.ack([entry]))).toEqual(["send error unknown_subscription"]);
    expect(lines(script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 9 }))).toEqual([]);
    const partition = { ...ref, partitionKey: "orders/0", generation: 3, run: 0 };
    expect(lines(script.step({ type: "grown", ref: partition }))).toEqual([]);
  });

  test("leaves the other subscriptions of the socket alone", () => {
    const script = new SessionScript();
    const { ref } = script.open({ subscription: "s1" });
    const other = script.open({ subscription: "s2", group: "audit" });
    script.step({ type: "ended", ref, reason: "replaced" });
    expect(lines(script.ack([entry], { subscription: "s2" }))).toEqual(["commit audit orders/0=0"]);
    expect(lines(script.answer(theOne(other.effects, "read"), { count: 1, logEndOffset: 1 }))).toEqual([
      "send records orders/0 to 1",
      "wait orders/0 at 1",
    ]);
  });

  test("answers an ack that was on its way", () => {
    const script = new SessionScript();
    const { ref } = script.open();
    const commit = theOne(script.ack([entry], { id: 8 }), "commit");
    script.step({ type: "ended", ref, reason: "replaced" });
    const answer = script.commit(commit, [{ committedOffset: 0, code: "fenced_generation" }]);
    expect(framesOf(answer)).toEqual([
      {
        type: "acked",
        id: 8,
        subscription: "default",
        offsets: [{ topic: "orders", partition: 0, offset: 0, code: "fenced_generation" }],
      },
    ]);
  });

  test("frees the name", () => {
    const script = new SessionScript();
    const { ref } = script.open({ subscription: "s1" });
    script.step({ type: "ended", ref, reason: "replaced" });
    expect(script.subscribe({ subscription: "s1" })).toEqual({ name: "s1", serial: 2 });
  });

  test("is told once", () => {
    const script = new SessionScript();
    const { ref } = script.open();
    script.step({ type: "ended", ref, reason: "replaced" });
    expect(lines(script.step({ type: "ended", ref, reason: "replaced" }))).toEqual([]);
  });

  test("does not end the subscription that took it over under the same name", () => {
    const script = new SessionScript();
    const earlier = script.open({ subscription: "s1" }).ref;
    script.receive({ type: "unsubscribe", subscription: "s1" });
    script.open({ subscription: "s1", memberId: "m1" });
    expect(lines(script.step({ type: "ended", ref: earlier, reason: "replaced" }))).toEqual([]);
    expect(lines(script.ack([entry], { subscription: "s1" }))).toEqual(["commit billing orders/0=0"]);
  });
});

describe("a membership whose lease ran out", () => {
  test("is revoked, then unsubscribed; there is nothing left to leave", () => {
    const script = new SessionScript();
    const partitions = [joinedPartition(), joinedPartition({ partition: 1, generation: 4 })];
    const { ref } = script.open({ subscription: "s1" }, partitions);
    const effects = script.step({ type: "ended", ref, reason: "expired" });
    expect(lines(effects)).toEqual(["stop waiting s1#1", "send revoked", "send unsubscribed expired"]);
    expect(framesOf(effects)[0]).toEqual({
      type: "revoked",
      subscription: "s1",
      partitions: [
        { topic: "orders", partition: 0, generation: 3 },
        { topic: "orders", partition: 1, generation: 4 },
      ],
      reason: "expired",
      deadlineMs: 0,
    });
  });

  test("does not close the socket", () => {
    const script = new SessionScript();
    const { ref } = script.open();
    expect(all(script.step({ type: "ended", ref, reason: "expired" }), "close")).toEqual([]);
    expect(lines(script.receive({ type: "pong", id: 1 }))).toEqual(["send ok"]);
  });
});

describe("a socket that closed", () => {
  test("ends the memberships of its subscriptions; those with an instanceId are kept for their lease", () => {
    const script = new SessionScript();
    script.open({ subscription: "s1" });
    const ref = script.subscribe({ subscription: "s2", group: "audit", instanceId: "tab-7" });
    script.join(ref, { memberId: "m2", membership: 5 });
    const effects = script.step(closed);
    expect(lines(effects)).toEqual([
      "stop waiting s1#1",
      "leave billing m1",
      "stop waiting s2#2",
      "detach audit m2",
    ]);
    expect(theOne(effects, "detach").member).toEqual({ group: "audit", memberId: "m2", membership: 5 });
    expect(theOne(effects, "leave")).not.toHaveProperty("answer");
  });

  test("reads, waits and renews nothing more, whatever still comes", () => {
    const script = new SessionScript();
    const { ref, effects } = script.open();
    const commit = theOne(script.ack([entry]), "commit");
    script.step(closed);
    const late = [
      ...script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 9 }),
      ...script.commit(commit),
      ...script.step({ type: "drained" }),
      ...script.step({ type: "grown", ref: { ...ref, partitionKey: "orders/0", generation: 3, run: 0 } }),
      ...script.step({ type: "ended", ref, reason: "replaced" }),
    ];
    const kinds = new Set(late.map(({ type }) => type));
    for (const kind of ["read", "wait", "renew", "join", "leave", "detach", "close"] as const) {
      expect(kinds).not.toContain(kind);
    }
  });

  const joinings = [
    {
      title: "without instanceId: its membership ends when it arrives",
      options: {},
      line: "leave billing m1",
    },
    {
      title: "with instanceId: its membership is kept for its lease when it arrives",
      options: { instanceId: "tab-7" },
      line: "detach billing m1",
    },
  ];
  for (const { title, options, line } of joinings) {
    test(`while joining ${title}`, () => {
      const script = new SessionScript();
      const ref = script.subscribe(options);
      expect(lines(script.step(closed))).toEqual([]);
      expect(lines(script.join(ref))).toEqual([line]);
      expect(lines(script.step({ type: "drained" }))).toEqual([]);
    });
  }

  test("while joining and unsubscribed: the membership ends when it arrives", () => {
    const script = new SessionScript();
    const ref = script.subscribe();
    script.receive({ type: "unsubscribe" });
    script.step(closed);
    expect(lines(script.join(ref))).toEqual(["leave billing m1"]);
  });

  test("while a static member was joining and unsubscribed: the membership ends, it is not kept", () => {
    const script = new SessionScript();
    const ref = script.subscribe({ instanceId: "tab-7" });
    script.receive({ type: "unsubscribe" });
    script.step(closed);
    const effects = script.join(ref);
    expect(all(effects, "detach")).toEqual([]);
    expect(all(effects, "leave")).toHaveLength(1);
  });

  test("while a join failed lets nothing go, as there is nothing", () => {
    const script = new SessionScript();
    const ref = script.subscribe();
    script.step(closed);
    const problem = new Problem("unknown_topic", "There is no such topic");
    const effects = script.step({ type: "openFailed", ref, problem });
    expect(effects.filter(({ type }) => type !== "send")).toEqual([]);
  });

  test("after an unsubscribe does not let the same membership go twice", () => {
    const script = new SessionScript();
    script.open();
    script.receive({ type: "unsubscribe" });
    expect(lines(script.step(closed))).toEqual([]);
  });

  test("after a takeover does not end the membership that somebody else has now", () => {
    const script = new SessionScript();
    const { ref } = script.open();
    script.step({ type: "ended", ref, reason: "replaced" });
    expect(lines(script.step(closed))).toEqual([]);
  });
});

describe("a reader whose socket closed", () => {
  test("waits and reads no more; nobody is told", () => {
    const script = new SessionScript();
    const { effects } = script.read();
    expect(lines(script.step(closed))).toEqual(["stop waiting default#1"]);
    expect(lines(script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 9 }))).toEqual([]);
  });

  test("while it opens does nothing when it has opened", () => {
    const script = new SessionScript();
    const frame = { type: "subscribe", topics: ["orders"], from: "latest" } as const;
    const { ref } = theOne(script.receive(frame), "openReader");
    script.step(closed);
    expect(lines(script.step({ type: "readerOpened", ref, partitions: [readerPartition()] }))).toEqual([]);
  });
});

describe("a topic of a group that is deleted", () => {
  const deleted = (...owned: readonly OwnedPartition[]): Partial<OwnershipChange> => ({
    lost: owned.map((each) => ({ ...each, reason: "topic_deleted" })),
  });
  const first = { partitionId: 70, generation: 3 };
  const second = { partitionId: 71, generation: 4 };

  test("takes its partitions along, and the subscription lives on with the others", () => {
    const script = new SessionScript();
    const refunds = joinedPartition({ topic: "refunds", topicId: 8, partitionId: 80, generation: 5 });
    const partitions = [joinedPartition(), joinedPartition({ partition: 1, generation: 4 }), refunds];
    const { ref, effects } = script.open({ topics: ["orders", "refunds"] }, partitions);
    const ending = script.own(ref, deleted(first, second));
    expect(lines(ending)).toEqual(["stop waiting orders/0", "stop waiting orders/1", "send revoked"]);
    expect(framesOf(ending)).toEqual([
      {
        type: "revoked",
        subscription: "default",
        partitions: [
          { topic: "orders", partition: 0, generation: 3 },
          { topic: "orders", partition: 1, generation: 4 },
        ],
        reason: "topic_deleted",
        deadlineMs: 0,
      },
    ]);
    const late = script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 9 });
    expect(lines(late)).toEqual(["read refunds/0 from 0"]);
  });

  test("frees what its partitions held of the window", () => {
    const script = new SessionScript();
    const refunds = joinedPartition({ topic: "refunds", topicId: 8, partitionId: 80, generation: 5 });
    const options = { topics: ["orders", "refunds"], window: { records: 2 } };
    const { ref, effects } = script.open(options, [joinedPartition(), refunds]);
    const sent = script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 9 });
    const full = script.answer(theOne(sent, "read"), { count: 1, logEndOffset: 9 });
    expect(all(full, "read")).toEqual([]);
    expect(theOne(script.own(ref, deleted(first)), "read").request).toMatchObject({
      partitionId: 80,
      recordsMax: 1,
    });
  });

  test("fences acks, and answers those that were on their way", () => {
    const script = new SessionScript();
    const { ref } = script.open();
    const commit = theOne(script.ack([entry], { id: 8 }), "commit");
    script.own(ref, deleted(first));
    expect(lines(script.ack([entry]))).toEqual(["commit billing orders/0=0 (fenced_generation)"]);
    const answer = script.commit(commit, [{ committedOffset: null, code: "unknown_topic" }]);
    expect(framesOf(answer)).toMatchObject([{ type: "acked", id: 8, offsets: [{ code: "unknown_topic" }] }]);
  });

  test("whose read says first that it is gone is read no more, and word of it follows", () => {
    const script = new SessionScript();
    const { ref, effects } = script.open({}, [
      joinedPartition(),
      joinedPartition({ partition: 1, generation: 4 }),
    ]);
    const gone = script.step({ type: "readGone", ref: theOne(effects, "read").ref });
    expect(lines(gone)).toEqual(["read orders/1 from 0"]);
    const next = script.answer(theOne(gone, "read"), { count: 1, logEndOffset: 1 });
    expect(lines(next)).toEqual(["send records orders/1 to 1", "wait orders/1 at 1"]);
    expect(lines(script.own(ref, deleted(first)))).toEqual(["stop waiting orders/0", "send revoked"]);
  });
});

describe("a topic of a reader that is deleted", () => {
  const deleted = (...partitionIds: readonly number[]) =>
    ({ type: "topicChanged", topic: "orders", change: "deleted", partitionIds }) as const;

  test("takes its partitions along, in the generations of the reader", () => {
    const script = new SessionScript();
    script.read();
    expect(framesOf(script.step(deleted(70)))).toEqual([
      {
        type: "revoked",
        subscription: "default",
        partitions: [{ topic: "orders", partition: 0, generation: 1 }],
        reason: "topic_deleted",
        deadlineMs: 0,
      },
    ]);
  });

  test("says nothing to who has none of these partitions, nor to groups: they are told of what they own", () => {
    const script = new SessionScript();
    script.read({ subscription: "r1" }, [readerPartition({ partitionId: 90 })]);
    script.read({ subscription: "r2", topics: ["refunds"] }, [readerPartition({ topic: "refunds" })]);
    script.open({ subscription: "s1" });
    expect(lines(script.step(deleted(70)))).toEqual([]);
  });

  test("while a reader opens is not assigned when it has opened", () => {
    const script = new SessionScript();
    const frame = { type: "subscribe", topics: ["orders"], from: "latest" } as const;
    const { ref } = theOne(script.receive(frame), "openReader");
    script.step(deleted(70));
    const partitions = [readerPartition(), readerPartition({ partition: 1 })];
    const effects = script.step({ type: "readerOpened", ref, partitions });
    expect(framesOf(effects)[1]).toMatchObject({ type: "assigned", partitions: [{ partition: 1 }] });
    expect(lines(effects)).toEqual(["send subscribed", "send assigned", "read orders/1 from 0"]);
  });
});

describe("a topic that is created or grows", () => {
  for (const change of ["created", "grown"] as const) {
    const changed = { type: "topicChanged", topic: "orders", change, partitionIds: [71] } as const;

    test(`(${change}) while a reader opens is asked for when it has opened, once`, () => {
      const script = new SessionScript();
      const frame = { type: "subscribe", topics: ["orders"], from: "latest" } as const;
      const { ref } = theOne(script.receive(frame), "openReader");
      expect(lines(script.step(changed))).toEqual([]);
      expect(lines(script.step(changed))).toEqual([]);
      const effects = script.step({ type: "readerOpened", ref, partitions: [readerPartition()] });
      expect(all(effects, "gainReader")).toMatchObject([{ ref, knownPartitionIds: new Set([70]) }]);
      expect(lines(script.step({ type: "readerGained", ref, partitions: [] }))).toEqual([]);
    });

    test(`(${change}) while a reader opens that has left already is not asked for`, () => {
      const script = new SessionScript();
      const frame = { type: "subscribe", topics: ["orders"], from: "latest" } as const;
      const { ref } = theOne(script.receive(frame), "openReader");
      script.step(changed);
      script.receive({ type: "unsubscribe" });
      const effects = script.step({ type: "readerOpened", ref, partitions: [readerPartition()] });
      expect(all(effects, "gainReader")).toEqual([]);
    });

    test(`(${change}) is not asked for by a group: it is told of what it gets`, () => {
      const script = new SessionScript();
      const ref = script.subscribe();
      expect(lines(script.step(changed))).toEqual([]);
      expect(lines(script.join(ref))).toEqual(["send subscribed", "send assigned", "read orders/0 from 0"]);
      expect(lines(script.step(changed))).toEqual([]);
    });
  }
});

describe("a partition that stays unacknowledged", () => {
  const acknowledged = (offset: number, about: { partition?: number; generation?: number } = {}) => ({
    ...entry,
    offset,
    ...about,
  });
  const alarm: SessionEvent = { type: "alarm" };

  /** At 0 ms ten records of each of two partitions are out, to be acknowledged within a second. */
  function sentTwenty() {
    const script = new SessionScript();
    script.step({ type: "opened" });
    const partitions = [joinedPartition(), joinedPartition({ partition: 1, generation: 4 })];
    const { ref, effects } = script.open({ ackTimeoutMs: 1_000, window: { records: 20 } }, partitions);
    const second = script.answer(theOne(effects, "read"), { count: 10, logEndOffset: 100 });
    const full = script.answer(theOne(second, "read"), { count: 10, logEndOffset: 100 });
    return { script, ref, second, full };
  }

  test("sets the alarm for when it is due, once for all that is sent before", () => {
    const { second, full } = sentTwenty();
    expect(theOne(second, "setAlarm").delayMs).toBe(1_000);
    expect(all(full, "setAlarm")).toEqual([]);
  });

  test("sets no alarm without an ack timeout", () => {
    const script = new SessionScript();
    script.step({ type: "opened" });
    const { effects } = script.open();
    expect(all(script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 9 }), "setAlarm")).toEqual(
      [],
    );
  });

  test("is revoked as stalled, at once, and whoever has nothing to do may have it", () => {
    const { script } = sentTwenty();
    script.at(500).ackAndCommit([acknowledged(10, { partition: 1, generation: 4 })]);
    const stalled = script.at(1_000).step(alarm);
    expect(lines(stalled)).toEqual([
      "stop waiting orders/0",
      "send revoked",
      "stall 70 in 3 of m1",
      "alarm in 14000",
    ]);
    expect(theOne(stalled, "stall").member).toEqual({ group: "billing", memberId: "m1", membership: 1 });
    expect(framesOf(stalled)).toEqual([
      {
        type: "revoked",
        subscription: "default",
        partitions: [{ topic: "orders", partition: 0, generation: 3 }],
        reason: "stalled",
        deadlineMs: 0,
      },
    ]);
  });

  test("is not revoked a moment too early; the alarm is set for the rest", () => {
    const { script } = sentTwenty();
    expect(lines(script.at(999).step(alarm))).toEqual(["alarm in 1"]);
  });

  test("is given more time by progress, and by nothing else", () => {
    const { script } = sentTwenty();
    script.at(600).ackAndCommit([acknowledged(4), acknowledged(4, { partition: 1, generation: 4 })]);
    expect(lines(script.at(1_000).step(alarm))).toEqual(["alarm in 600"]);
    // The first goes on; the second says again what it has said.
    script.at(1_500).ackAndCommit([acknowledged(5), acknowledged(4, { partition: 1, generation: 4 })]);
    const stalled = script.at(1_600).step(alarm);
    expect(theOne(stalled, "stall").partitions).toEqual([{ partitionId: 71, generation: 4 }]);
    expect(theOne(stalled, "setAlarm").delayMs).toBe(900);
  });

  test("that is acknowledged begins anew with the next records that are sent", () => {
    const { script } = sentTwenty();
    const acks = [acknowledged(10), acknowledged(10, { partition: 1, generation: 4 })];
    const read = theOne(script.at(900).ackAndCommit(acks), "read");
    expect(lines(script.at(1_000).step(alarm))).toEqual(["alarm in 14000"]);
    const sent = script.at(5_000).answer(read, { count: 1, logEndOffset: 100 });
    expect(theOne(sent, "setAlarm").delayMs).toBe(1_000);
  });

  test("frees its share of the window, and what is read of it is not sent", () => {
    const { script } = sentTwenty();
    script.at(500).ackAndCommit([acknowledged(10, { partition: 1, generation: 4 })]);
    const stalled = script.at(1_000).step(alarm);
    expect(script.session.subscriptions.get("default")?.delivery.unackedRecords).toBe(0);
    expect(framesOf(stalled)).toHaveLength(1);
  });

  test("is fenced until it is assigned again, in a new generation, from what is committed", () => {
    const { script, ref } = sentTwenty();
    script.at(500).ackAndCommit([acknowledged(10, { partition: 1, generation: 4 })]);
    script.at(1_000).step(alarm);
    const refusalOf = (generation: number) =>
      theOne(script.ack([acknowledged(10, { generation })]), "commit").acks[0]?.refusal;
    expect(refusalOf(3)).toBe("fenced_generation");
    const assigned = script.own(ref, { gained: [joinedPartition({ generation: 9, committedOffset: 4 })] });
    expect(framesOf(assigned)).toMatchObject([
      { type: "assigned", partitions: [{ partition: 0, generation: 9, position: 4, committedOffset: 4 }] },
    ]);
    expect([refusalOf(3), refusalOf(9)]).toEqual(["fenced_generation", "offset_out_of_range"]);
  });

  test("answers with what is durable an ack that was on its way, and frees nothing of what came after", () => {
    const { script } = sentTwenty();
    const commit = theOne(script.ack([acknowledged(10)], { id: 8 }), "commit");
    expect(theOne(script.at(1_000).step(alarm), "stall").partitions).toHaveLength(2);
    expect(framesOf(script.commit(commit))).toMatchObject([
      { type: "acked", id: 8, offsets: [{ partition: 0, offset: 10 }] },
    ]);
  });

  test("does not move the heartbeat", () => {
    const { script } = sentTwenty();
    const at: number[] = [];
    let dueAtMs = 1_000;
    while (dueAtMs <= 60_000) {
      const effects = script.at(dueAtMs).step(alarm);
      if (all(effects, "ping").length > 0) at.push(dueAtMs);
      dueAtMs += theOne(effects, "setAlarm").delayMs;
      if (at.length === 3) break;
    }
    expect(at).toEqual([15_000, 30_000, 45_000]);
  });

  test("of another subscription stalls on its own time", () => {
    const { script } = sentTwenty();
    const other = script.open({ subscription: "s2", group: "audit", ackTimeoutMs: 5_000 });
    const groupsOf = (effects: readonly SessionEffect[]) =>
      all(effects, "stall").map(({ member }) => member.group);
    script.answer(theOne(other.effects, "read"), { count: 1, logEndOffset: 1 });
    expect(groupsOf(script.at(1_000).step(alarm))).toEqual(["billing"]);
    expect(groupsOf(script.at(5_000).step(alarm))).toEqual(["audit"]);
  });

  test("that somebody else gets is not told of again", () => {
    const { script, ref } = sentTwenty();
    script.at(1_000).step(alarm);
    expect(
      lines(script.own(ref, { lost: [{ partitionId: 70, generation: 3, reason: "rebalance" }] })),
    ).toEqual([]);
  });

  test("while it is being revoked does not stall, and sets no alarm: the deadline is its end", () => {
    const { script, ref } = sentTwenty();
    script.own(ref, {
      revoked: [
        { partitionId: 70, generation: 3, deadlineMs: 5_000 },
        { partitionId: 71, generation: 4, deadlineMs: 5_000 },
      ],
    });
    expect(lines(script.at(1_000).step(alarm))).toEqual(["alarm in 14000"]);
  });

  test("is lost once: what a rebalance wants of it afterwards is void", () => {
    const { script, ref } = sentTwenty();
    script.at(1_000).step(alarm);
    expect(
      lines(script.own(ref, { revoked: [{ partitionId: 70, generation: 3, deadlineMs: 5_000 }] })),
    ).toEqual([]);
  });
});
