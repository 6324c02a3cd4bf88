import { describe, expect, test } from "bun:test";
import type { OwnershipChange } from "../../../src/core/ownership.ts";
import type { ReaderPartition } from "../../../src/core/readers.ts";
import type { Reposition, TopicChange } from "../../../src/core/session/events.ts";
import type { SubscribeFrame } from "../../../src/protocol/frames.ts";
import type { ResetPolicy } from "../../../src/protocol/places.ts";
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
const entry = (offset: number, about: { generation?: number } = {}) => ({
  ...ORDERS,
  generation: 3,
  offset,
  ...about,
});
const changed = (change: TopicChange["change"], ...partitionIds: readonly number[]) =>
  ({ type: "topicChanged", topic: "orders", change, partitionIds }) as const;
const grown = joinedPartition({ partition: 1, generation: 4, logEndOffset: 9 });

describe("what a group gains", () => {
  /** A member that reads the first partition of its topic. */
  function reading() {
    const script = new SessionScript();
    const { ref, effects } = script.open();
    return { script, ref, read: theOne(effects, "read") };
  }

  test("is assigned, and nothing else is touched: what was being read is sent", () => {
    const { script, ref, read } = reading();
    const effects = script.own(ref, { gained: [{ ...grown, reset: "earliest", metadata: "m" }] });
    expect(framesOf(effects)).toEqual([
      {
        type: "assigned",
        subscription: "default",
        partitions: [
          {
            topic: "orders",
            topicId: 7,
            partition: 1,
            generation: 4,
            position: 0,
            committedOffset: 0,
            metadata: "m",
            logStartOffset: 0,
            logEndOffset: 9,
            reset: "earliest",
          },
        ],
      },
    ]);
    const sent = script.answer(read, { count: 1, logEndOffset: 1 });
    expect(lines(sent)).toEqual(["send records orders/0 to 1", "wait orders/0 at 1", "read orders/1 from 0"]);
  });

  test("at the end of its log waits for what is appended, and is not read before", () => {
    const { script, ref } = reading();
    const effects = script.own(ref, { gained: [{ ...grown, committedOffset: 9 }] });
    expect(lines(effects)).toEqual(["send assigned", "wait orders/1 at 9"]);
  });

  test("without a place is assigned without one, and an error names it", () => {
    const { script, ref, read } = reading();
    const effects = script.own(ref, { gained: [unplacedPartition({ partition: 1, generation: 4 })] });
    expect(framesOf(effects)).toMatchObject([
      { type: "assigned", partitions: [{ partition: 1, position: null }] },
      { type: "error", topic: "orders", partition: 1, code: "no_committed_offset" },
    ]);
    expect(lines(script.answer(read, { logEndOffset: 0 }))).toEqual(["wait orders/0 at 0"]);
  });

  test("by a subscription that is gone says nothing", () => {
    const { script, ref } = reading();
    script.receive({ type: "unsubscribe" });
    expect(lines(script.own(ref, { gained: [grown] }))).toEqual([]);
  });

  test("is of its own subscription only", () => {
    const { script } = reading();
    const other = script.open({ subscription: "s2", group: "audit" }, []);
    expect(framesOf(script.own(other.ref, { gained: [grown] }))).toMatchObject([
      { type: "assigned", subscription: "s2" },
    ]);
    expect([...(script.session.subscriptions.get("default")?.partitions.keys() ?? [])]).toEqual(["orders/0"]);
  });
});

describe("a reader", () => {
  const TWO = [
    readerPartition({ position: 5 }),
    readerPartition({ partition: 1, position: 6, logEndOffset: 6 }),
  ];

  test("is subscribed without a member, assigned in generations of its own from 1, and read", () => {
    const script = new SessionScript();
    const { effects } = script.read({ id: 1, subscription: "t", from: "latest" }, TWO);
    expect(lines(effects)).toEqual([
      "send subscribed",
      "send assigned",
      "wait orders/1 at 6",
      "read orders/0 from 5",
    ]);
    expect(framesOf(effects)).toEqual([
      {
        type: "subscribed",
        id: 1,
        subscription: "t",
        heartbeatMs: 15_000,
        sessionTimeoutMs: 45_000,
        durability: "fsync",
      },
      {
        type: "assigned",
        subscription: "t",
        partitions: [
          {
            ...ORDERS,
            topicId: 7,
            generation: 1,
            position: 5,
            committedOffset: null,
            logStartOffset: 0,
            logEndOffset: 1_000_000,
          },
          {
            topic: "orders",
            topicId: 7,
            partition: 1,
            generation: 2,
            position: 6,
            committedOffset: null,
            logStartOffset: 0,
            logEndOffset: 6,
          },
        ],
      },
    ]);
  });

  test("asks for its topics and its place", () => {
    const from = [{ ...ORDERS, offset: 5 }];
    const frame: SubscribeFrame = { type: "subscribe", topics: ["orders", "refunds"], from };
    const { request } = theOne(new SessionScript().receive(frame), "openReader");
    expect(request).toEqual({ topics: ["orders", "refunds"], from });
  });

  test("gains what has come, beside what it knows, in the next generation", () => {
    const script = new SessionScript();
    script.read({ from: "latest" }, TWO);
    const gain = theOne(script.step(changed("grown", 72)), "gainReader");
    expect([...gain.knownPartitionIds]).toEqual([70, 71]);
    expect(gain.request).toEqual({ topics: ["orders"], from: "latest" });
    const partitions = [readerPartition({ partition: 2 })];
    const effects = script.step({ type: "readerGained", ref: gain.ref, partitions });
    expect(framesOf(effects)).toMatchObject([
      { type: "assigned", partitions: [{ partition: 2, generation: 3, committedOffset: null }] },
    ]);
  });

  test("gains once what two gains have found, and says nothing of nothing", () => {
    const script = new SessionScript();
    script.read();
    const [first, second] = [71, 72].map((id) => theOne(script.step(changed("grown", id)), "gainReader"));
    if (!first || !second) throw new Error("nothing was asked for");
    const partitions = [readerPartition({ partition: 1 })];
    const both = [first, second].flatMap(({ ref }) =>
      framesOf(script.step({ type: "readerGained", ref, partitions })),
    );
    expect(both).toMatchObject([{ type: "assigned", partitions: [{ partition: 1, generation: 2 }] }]);
  });

  test("does not get what was deleted while it was looked up", () => {
    const script = new SessionScript();
    script.read();
    const { ref } = theOne(script.step(changed("grown", 71)), "gainReader");
    script.step(changed("deleted", 70, 71));
    const effects = script.step({
      type: "readerGained",
      ref,
      partitions: [readerPartition({ partition: 1 })],
    });
    expect(all(effects, "read")).toEqual([]);
    expect(script.session.subscriptions.get("default")?.partitions.size).toBe(0);
  });

  test("with two gains under way keeps to a deletion that came before the second result", () => {
    const script = new SessionScript();
    script.read();
    const { ref } = theOne(script.step(changed("grown", 71)), "gainReader");
    script.step(changed("grown", 72));
    script.step(changed("deleted", 70, 71, 72));
    script.step({ type: "readerGained", ref, partitions: [] });
    script.step({ type: "readerGained", ref, partitions: [readerPartition({ partition: 1 })] });
    // Nothing is kept of what has gone: topics may come and go for as long as the socket lives.
    expect(script.session.subscriptions.get("default")).toMatchObject({
      partitions: new Map(),
      gains: 0,
      gonePartitionIds: new Set(),
    });
  });

  test("by a subscription that is gone gains nothing", () => {
    const script = new SessionScript();
    script.read();
    const { ref } = theOne(script.step(changed("grown", 71)), "gainReader");
    script.receive({ type: "unsubscribe" });
    const partitions = [readerPartition({ partition: 1 })];
    expect(lines(script.step({ type: "readerGained", ref, partitions }))).toEqual([]);
  });

  test("of other topics asks for nothing", () => {
    const script = new SessionScript();
    script.read({ topics: ["refunds"] }, []);
    expect(lines(script.step(changed("grown", 71)))).toEqual([]);
  });

  test("of a topic created again numbers on: an ack of before frees nothing of it", () => {
    const script = new SessionScript();
    const { effects } = script.read({ ack: "manual", window: { records: 2 } });
    script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 1 });
    script.step(changed("deleted", 70));
    const { ref } = theOne(script.step(changed("created", 90)), "gainReader");
    const again: ReaderPartition = readerPartition({ topicId: 9, partitionId: 90 });
    const read = theOne(script.step({ type: "readerGained", ref, partitions: [again] }), "read");
    expect(read.ref.generation).toBe(2);
    script.answer(read, { count: 1, logEndOffset: 1 });
    expect(framesOf(script.ack([entry(1, { generation: 1 })]))).toMatchObject([
      { type: "acked", offsets: [{ code: "fenced_generation" }] },
    ]);
    expect(script.session.subscriptions.get("default")?.delivery.unackedRecords).toBe(1);
  });
});

describe("a position that has left the log", () => {
  /** A chunk says that the log begins above where its partition is read. */
  function outside(
    options: Partial<SubscribeFrame> = {},
    partitions = [joinedPartition({ committedOffset: 5 })],
  ) {
    const script = new SessionScript();
    const { effects } = script.open(options, partitions);
    const bounds = { logStartOffset: 40, logEndOffset: 100 };
    const asked = script.answer(theOne(effects, "read"), { count: 10, next: 50, ...bounds });
    return { script, asked };
  }
  const to = (position: number | null, policy: ResetPolicy): Reposition => ({
    position,
    policy,
    logStartOffset: 40,
    logEndOffset: 100,
    committedOffset: position,
    metadata: null,
  });

  test("sends nothing and asks the policy outOfRange where to go on", () => {
    const { asked } = outside({ reset: { missing: "none", outOfRange: "latest" } });
    expect(lines(asked)).toEqual(["reposition orders/0"]);
    expect(theOne(asked, "reposition").request).toEqual({
      partitionId: 70,
      topic: "orders",
      partition: 0,
      generation: 3,
      member: { group: "billing", memberId: "m1", membership: 1 },
      policy: "latest",
    });
  });

  test("of a reader asks without a member", () => {
    const script = new SessionScript();
    const { effects } = script.read({ reset: { timestamp: 5 } });
    const asked = script.answer(theOne(effects, "read"), { logStartOffset: 1, logEndOffset: 9 });
    const { request } = theOne(asked, "reposition");
    expect(request).toMatchObject({ member: undefined, policy: { timestamp: 5 }, generation: 1 });
  });

  const policies: readonly [policy: ResetPolicy, position: number][] = [
    ["earliest", 40],
    ["latest", 100],
    [{ ago: 5 }, 70],
    [{ timestamp: 5 }, 71],
  ];
  for (const [policy, position] of policies) {
    test(`is assigned anew at ${position} by ${JSON.stringify(policy)}, in the same generation, and read`, () => {
      const { script, asked } = outside({ reset: policy });
      const { ref } = theOne(asked, "reposition");
      const moved = script.step({ type: "repositioned", ref, to: to(position, policy) });
      expect(lines(moved)).toEqual(["send assigned", `read orders/0 from ${position}`]);
      expect(framesOf(moved)).toEqual([
        {
          type: "assigned",
          subscription: "default",
          partitions: [
            {
              ...ORDERS,
              topicId: 7,
              generation: 3,
              position,
              committedOffset: position,
              logStartOffset: 40,
              logEndOffset: 100,
              reset: policy,
            },
          ],
        },
      ]);
      expect(theOne(script.ack([entry(position)]), "commit").acks[0]?.refusal).toBeUndefined();
    });
  }

  test("by none is assigned without a position, an error names it, and a seek gives it one", () => {
    const { script, asked } = outside({ reset: "none" });
    const { ref } = theOne(asked, "reposition");
    const moved = script.step({
      type: "repositioned",
      ref,
      to: { ...to(null, "none"), committedOffset: 5 },
    });
    expect(framesOf(moved)).toEqual([
      {
        type: "assigned",
        subscription: "default",
        partitions: [
          {
            ...ORDERS,
            topicId: 7,
            generation: 3,
            position: null,
            committedOffset: 5,
            logStartOffset: 40,
            logEndOffset: 100,
          },
        ],
      },
      {
        type: "error",
        subscription: "default",
        ...ORDERS,
        code: "offset_out_of_range",
        message: expect.stringContaining("The position 5 "),
        retriable: false,
      },
    ]);
    expect(lines(script.step({ type: "drained" }))).toEqual([]);
    const sought = script.seekAndLocate({ ...ORDERS, to: "earliest" }, { logStartOffset: 40 });
    expect(theOne(sought, "read").request.from).toBe(40);
  });

  test("that a seek has moved in the meantime stays where the seek has put it", () => {
    const { script, asked } = outside();
    const { ref } = theOne(asked, "reposition");
    script.seekAndLocate({ ...ORDERS, to: { offset: 60 } });
    expect(lines(script.step({ type: "repositioned", ref, to: to(40, "earliest") }))).toEqual([]);
  });

  const meanwhile: readonly [title: string, change: Partial<OwnershipChange>][] = [
    ["is lost", { lost: [{ partitionId: 70, generation: 3, reason: "rebalance" }] }],
    ["begins to be revoked", { revoked: [{ partitionId: 70, generation: 3, deadlineMs: 5_000 }] }],
    ["begins anew", { gained: [joinedPartition({ generation: 8 })] }],
  ];
  for (const [title, change] of meanwhile) {
    test(`of a partition that ${title} in the meantime moves nothing`, () => {
      const { script, asked } = outside();
      const { ref } = theOne(asked, "reposition");
      script.own(ref, change);
      expect(lines(script.step({ type: "repositioned", ref, to: to(40, "earliest") }))).toEqual([]);
    });
  }

  test("holds up no other partition of the subscription", () => {
    const { script, asked } = outside({}, [joinedPartition({ committedOffset: 5 }), grown]);
    expect(lines(asked)).toEqual(["reposition orders/0", "read orders/1 from 0"]);
    const sent = script.answer(theOne(asked, "read"), { count: 9, logEndOffset: 9 });
    expect(lines(sent)).toEqual(["send records orders/1 to 9", "wait orders/1 at 9"]);
  });

  test("is one above the log end, too", () => {
    const script = new SessionScript();
    const { effects } = script.open({}, [joinedPartition({ committedOffset: 50, logEndOffset: 51 })]);
    const asked = script.answer(theOne(effects, "read"), { logStartOffset: 0, logEndOffset: 49 });
    expect(lines(asked)).toEqual(["reposition orders/0"]);
  });

  test("is none at the log start, nor at the log end", () => {
    for (const bounds of [
      { logStartOffset: 50, logEndOffset: 60 },
      { logStartOffset: 40, logEndOffset: 50 },
    ]) {
      const script = new SessionScript();
      const { effects } = script.open({}, [joinedPartition({ committedOffset: 50 })]);
      expect(all(script.answer(theOne(effects, "read"), bounds), "reposition")).toEqual([]);
    }
  });

  test("keeps a paused partition paused", () => {
    const { script, asked } = outside();
    script.receive({ type: "pause", partitions: [ORDERS] });
    const { ref } = theOne(asked, "reposition");
    expect(lines(script.step({ type: "repositioned", ref, to: to(40, "earliest") }))).toEqual([
      "send assigned",
    ]);
    expect(lines(script.receive({ type: "resume", partitions: [ORDERS] }))).toEqual([
      "read orders/0 from 40",
    ]);
  });
});
