import { describe, expect, test } from "bun:test";
import { Problem } from "../../../src/core/problem.ts";
import type { SubscriptionRef } from "../../../src/core/session/state.ts";
import type { SubscribeFrame } from "../../../src/protocol/frames.ts";
import { SOCKET_BUFFER_BYTES_MAX, SUBSCRIPTIONS_PER_SOCKET_MAX } from "../../../src/protocol/limits.ts";
import type { ResetPolicies } from "../../../src/protocol/places.ts";
import {
  all,
  type EffectOf,
  framesOf,
  joinedPartition,
  lines,
  readerPartition,
  SessionScript,
  theOne,
  unplacedPartition,
} from "../../support/session-script.ts";

const unknownTopic = new Problem("unknown_topic", 'There is no topic "orders"');

describe("subscribe", () => {
  test("a subscription is subscribed, then assigned, then read", () => {
    const script = new SessionScript();
    const asked = script.receive({ type: "subscribe", id: 1, topics: ["orders"], group: "billing" });
    expect(lines(asked)).toEqual(["join billing for default#1", "alarm in 15000"]);
    const joined = script.join({ name: "default", serial: 1 });
    expect(lines(joined)).toEqual(["send subscribed", "send assigned", "read orders/0 from 0"]);
  });

  test("subscribed says who the member is, how long it may be silent and what durable means", () => {
    const script = new SessionScript();
    const { effects } = script.open({ id: "first", subscription: "s1", sessionTimeoutMs: 30_000 });
    expect(framesOf(effects)[0]).toEqual({
      type: "subscribed",
      id: "first",
      subscription: "s1",
      memberId: "m1",
      heartbeatMs: 10_000,
      sessionTimeoutMs: 30_000,
      durability: "fsync",
    });
  });

  test("a subscribe frame without id is answered without id", () => {
    const [subscribed] = framesOf(new SessionScript().open().effects);
    expect(subscribed).toMatchObject({ type: "subscribed", subscription: "default" });
    expect(subscribed).not.toHaveProperty("id");
  });

  test("assigned gives each partition its place, what was committed, and the policy that gave it", () => {
    const script = new SessionScript();
    const partitions = [
      joinedPartition({ committedOffset: 42, metadata: "m", logEndOffset: 100 }),
      joinedPartition({
        partition: 1,
        generation: 4,
        committedOffset: 5,
        logStartOffset: 5,
        logEndOffset: 9,
        reset: "earliest",
      }),
    ];
    const { effects } = script.open({}, partitions);
    expect(framesOf(effects)[1]).toEqual({
      type: "assigned",
      subscription: "default",
      partitions: [
        {
          topic: "orders",
          topicId: 7,
          partition: 0,
          generation: 3,
          position: 42,
          committedOffset: 42,
          metadata: "m",
          logStartOffset: 0,
          logEndOffset: 100,
        },
        {
          topic: "orders",
          topicId: 7,
          partition: 1,
          generation: 4,
          position: 5,
          committedOffset: 5,
          logStartOffset: 5,
          logEndOffset: 9,
          reset: "earliest",
        },
      ],
    });
  });

  test("the join asks for what the frame said", () => {
    const script = new SessionScript();
    const frame: SubscribeFrame = {
      type: "subscribe",
      subscription: "s1",
      topics: ["orders", "refunds"],
      group: "billing",
      memberId: "m0",
      instanceId: "tab-7",
      reset: "latest",
      sessionTimeoutMs: 6_000,
    };
    expect(theOne(script.receive(frame), "join")).toEqual({
      type: "join",
      ref: { name: "s1", serial: 1 },
      request: {
        topics: ["orders", "refunds"],
        group: "billing",
        memberId: "m0",
        instanceId: "tab-7",
        policies: { missing: "latest", outOfRange: "latest" },
        sessionTimeoutMs: 6_000,
      },
    });
  });

  const policyCases: readonly [SubscribeFrame["reset"], ResetPolicies][] = [
    [undefined, { missing: "earliest", outOfRange: "earliest" }],
    ["earliest", { missing: "earliest", outOfRange: "earliest" }],
    ["latest", { missing: "latest", outOfRange: "latest" }],
    ["none", { missing: "none", outOfRange: "none" }],
    [{}, { missing: "earliest", outOfRange: "earliest" }],
    [{ missing: "none" }, { missing: "none", outOfRange: "earliest" }],
    [{ outOfRange: "latest" }, { missing: "earliest", outOfRange: "latest" }],
    [
      { missing: "latest", outOfRange: "none" },
      { missing: "latest", outOfRange: "none" },
    ],
  ];
  for (const [reset, policies] of policyCases) {
    test(`reset ${JSON.stringify(reset)} means missing ${policies.missing}, outOfRange ${policies.outOfRange}`, () => {
      const effects = new SessionScript().receive({
        type: "subscribe",
        topics: ["orders"],
        group: "billing",
        reset,
      });
      expect(theOne(effects, "join").request.policies).toEqual(policies);
    });
  }
});

describe("policy none", () => {
  const missing = { code: "no_committed_offset", message: "nothing is committed" } as const;
  const outOfRange = { code: "offset_out_of_range", message: "5 is below the log start" } as const;
  const unplacedCases = [
    { title: "nothing committed", committedOffset: null, why: missing },
    { title: "a committed offset below the log start", committedOffset: 5, why: outOfRange },
    { title: "a committed offset above the log end", committedOffset: 500, why: outOfRange },
  ];

  for (const { title, committedOffset, why } of unplacedCases) {
    const unplaced = unplacedPartition({ committedOffset, logStartOffset: 40, logEndOffset: 100 }, why);
    const placed = joinedPartition({ partition: 1, generation: 4, committedOffset: 60, logEndOffset: 100 });

    const open = () => {
      const script = new SessionScript();
      const { effects } = script.open({ id: 1, reset: "none" }, [unplaced, placed]);
      return { script, effects };
    };

    test(`${title}: the position is null and the committed offset is told as it is`, () => {
      const assigned = framesOf(open().effects).find((frame) => frame.type === "assigned");
      expect(assigned?.partitions[0]).toMatchObject({ position: null, committedOffset });
      expect(assigned?.partitions[0]).not.toHaveProperty("reset");
      expect(assigned?.partitions[1]).toMatchObject({ position: 60 });
    });

    test(`${title}: an error after assigned names the partition and is no second answer to the frame`, () => {
      const frames = framesOf(open().effects);
      expect(frames.map(({ type }) => type)).toEqual(["subscribed", "assigned", "error"]);
      expect(frames[2]).toEqual({
        type: "error",
        subscription: "default",
        topic: "orders",
        partition: 0,
        code: why.code,
        message: why.message,
        retriable: false,
      });
    });

    test(`${title}: the partition is never read, its neighbour is`, () => {
      const { script, effects } = open();
      const readKeys: string[] = [];
      let next = all(effects, "read");
      for (let turns = 0; turns < 5; turns += 1) {
        const read = theOne(next, "read");
        readKeys.push(read.ref.partitionKey);
        next = all(script.answer(read, { count: 1, logEndOffset: 100 }), "read");
      }
      expect(readKeys).toEqual(Array(5).fill("orders/1"));
      expect(lines(script.step({ type: "drained" }))).toEqual([]);
    });
  }

  test("a subscription whose only partition has no place reads nothing and lives", () => {
    const script = new SessionScript();
    const { effects } = script.open({ reset: "none" }, [unplacedPartition()]);
    expect(lines(effects)).toEqual(["send subscribed", "send assigned", "send error no_committed_offset"]);
    expect(lines(script.receive({ type: "unsubscribe" }))).toEqual([
      "stop waiting default#1",
      "leave billing m1",
    ]);
  });
});

describe("subscribe that is refused", () => {
  test("a second subscription of one name is a conflict, and the first one goes on", () => {
    const script = new SessionScript();
    const { effects } = script.open({ subscription: "s1" });
    const second = script.receive({
      type: "subscribe",
      id: 2,
      subscription: "s1",
      topics: ["refunds"],
      group: "audit",
    });
    expect(framesOf(second)).toEqual([
      {
        type: "error",
        id: 2,
        subscription: "s1",
        code: "conflict",
        message: expect.stringContaining('"s1"'),
        retriable: false,
      },
    ]);
    expect(all(second, "join")).toEqual([]);
    const sent = script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 5 });
    expect(lines(sent)).toEqual(["send records orders/0 to 1", "read orders/0 from 1"]);
  });

  test("a subscription of the name of one that is still joining is a conflict", () => {
    const script = new SessionScript();
    script.subscribe({ subscription: "s1" });
    const second = script.receive({
      type: "subscribe",
      subscription: "s1",
      topics: ["orders"],
      group: "billing",
    });
    expect(lines(second)).toEqual(["send error conflict"]);
  });

  test(`subscription ${SUBSCRIPTIONS_PER_SOCKET_MAX} is taken, one more is refused until another ends`, () => {
    const script = new SessionScript();
    for (let number = 1; number <= SUBSCRIPTIONS_PER_SOCKET_MAX; number += 1) {
      script.open({ subscription: `s${number}`, group: `g${number}` });
    }
    const frame: SubscribeFrame = {
      type: "subscribe",
      id: 9,
      subscription: "more",
      topics: ["orders"],
      group: "g",
    };
    const refused = script.receive(frame);
    expect(framesOf(refused)).toEqual([
      expect.objectContaining({ type: "error", id: 9, subscription: "more", code: "bad_request" }),
    ]);
    expect(all(refused, "join")).toEqual([]);

    script.receive({ type: "unsubscribe", subscription: "s1" });
    expect(theOne(script.receive(frame), "join").ref.name).toBe("more");
  });

  describe("a second subscription of a socket to a topic in one group", () => {
    const again = (about: Partial<SubscribeFrame>): SubscribeFrame => ({
      type: "subscribe",
      id: 2,
      subscription: "s2",
      topics: ["orders"],
      group: "billing",
      ...about,
    });

    test("is a conflict that names the topic, the group and the first, which goes on", () => {
      const script = new SessionScript();
      const { effects } = script.open({ subscription: "s1", topics: ["refunds", "orders"] });
      const second = script.receive(again({ topics: ["payments", "orders"] }));
      expect(lines(second)).toEqual(["send error conflict"]);
      expect(framesOf(second)).toMatchObject([
        {
          type: "error",
          id: 2,
          subscription: "s2",
          topic: "orders",
          code: "conflict",
          message:
            'Cannot subscribe to topic "orders" in group "billing": subscription "s1" of this socket does already',
          retriable: false,
        },
      ]);
      const sent = script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 5 });
      expect(lines(sent)).toEqual(["send records orders/0 to 1", "read orders/0 from 1"]);
    });

    test("is a conflict while the first is joining, and while it is leaving before it has joined", () => {
      const script = new SessionScript();
      script.subscribe({ subscription: "s1" });
      expect(lines(script.receive(again({})))).toEqual(["send error conflict"]);
      script.receive({ type: "unsubscribe", subscription: "s1" });
      expect(lines(script.receive(again({})))).toEqual(["send error conflict"]);
    });

    const refused: readonly [title: string, about: Partial<SubscribeFrame>][] = [
      ["names another member", { memberId: "m7" }],
      ["has another instanceId", { instanceId: "tab-8" }],
    ];
    for (const [title, about] of refused) {
      test(`is a conflict where it ${title}`, () => {
        const script = new SessionScript();
        script.open({ subscription: "s1", instanceId: "tab-7" });
        expect(lines(script.receive(again(about)))).toEqual(["send error conflict"]);
      });
    }

    test("is a conflict where it takes over one that shares the topic, and another one shares it, too", () => {
      const script = new SessionScript();
      script.open({ subscription: "s1", memberId: "m1" });
      script.join(script.subscribe({ subscription: "s3", topics: ["refunds"] }), { memberId: "m3" });
      const frame = again({ topics: ["orders", "refunds"], memberId: "m1" });
      expect(framesOf(script.receive(frame))).toMatchObject([{ code: "conflict", topic: "refunds" }]);
    });

    const taken: readonly [title: string, about: Partial<SubscribeFrame>][] = [
      ["is to other topics", { topics: ["refunds", "payments"] }],
      ["is in another group", { group: "audit" }],
      ["takes the first over by its memberId", { memberId: "m1" }],
      ["takes the first over by its instanceId", { instanceId: "tab-7" }],
    ];
    for (const [title, about] of taken) {
      test(`is taken where it ${title}`, () => {
        const script = new SessionScript();
        script.open({ subscription: "s1", instanceId: "tab-7" });
        expect(theOne(script.receive(again(about)), "join").ref.name).toBe("s2");
      });
    }

    test("is taken where it, or the first, is a reader", () => {
      const script = new SessionScript();
      script.read({ subscription: "s1" });
      expect(theOne(script.receive(again({})), "join").ref.name).toBe("s2");
      const reader = again({ subscription: "s3", group: undefined, from: "latest" });
      expect(theOne(script.receive(reader), "openReader").ref.name).toBe("s3");
    });

    const ended: readonly [title: string, end: (script: SessionScript, ref: SubscriptionRef) => unknown][] = [
      ["was unsubscribed", (script) => script.receive({ type: "unsubscribe", subscription: "s1" })],
      ["was taken over", (script, ref) => script.step({ type: "ended", ref, reason: "replaced" })],
    ];
    for (const [title, end] of ended) {
      test(`is taken when the first ${title}`, () => {
        const script = new SessionScript();
        end(script, script.open({ subscription: "s1" }).ref);
        expect(theOne(script.receive(again({})), "join").ref.name).toBe("s2");
      });
    }
  });

  test("a join that fails is the answer, and the name is free again", () => {
    const script = new SessionScript();
    const ref = script.subscribe({ id: 7, subscription: "s1" });
    expect(framesOf(script.step({ type: "openFailed", ref, problem: unknownTopic }))).toEqual([
      {
        type: "error",
        id: 7,
        subscription: "s1",
        code: "unknown_topic",
        message: unknownTopic.message,
        retriable: false,
      },
    ]);
    expect(script.subscribe({ subscription: "s1" })).toEqual({ name: "s1", serial: 2 });
  });

  test("a failure that may pass says that it is retriable", () => {
    const script = new SessionScript();
    const problem = new Problem("unavailable", "The disk does not answer");
    const [error] = framesOf(script.step({ type: "openFailed", ref: script.subscribe(), problem }));
    expect(error).toMatchObject({ code: "unavailable", retriable: true });
  });

  test("the failure of an earlier join of the same name leaves the later subscription alone", () => {
    const script = new SessionScript();
    const earlier = script.subscribe({ subscription: "s1" });
    script.step({ type: "openFailed", ref: earlier, problem: unknownTopic });
    script.open({ subscription: "s1" });
    expect(lines(script.step({ type: "openFailed", ref: earlier, problem: unknownTopic }))).toEqual([]);
    expect(lines(script.join(earlier))).toEqual([]);
    const entry = { topic: "orders", partition: 0, generation: 3, offset: 0 };
    expect(lines(script.ack([entry], { subscription: "s1" }))).toEqual(["commit billing orders/0=0"]);
  });
});

describe("unsubscribe", () => {
  test("it is answered when the membership has ended, and not before", () => {
    const script = new SessionScript();
    script.open({ subscription: "s1" });
    const effects = script.receive({ type: "unsubscribe", id: 5, subscription: "s1" });
    expect(lines(effects)).toEqual(["stop waiting s1#1", "leave billing m1"]);
    expect(theOne(effects, "leave")).toEqual({
      type: "leave",
      member: { group: "billing", memberId: "m1", membership: 1 },
      answer: { name: "s1", id: 5 },
    });
    expect(framesOf(script.step({ type: "left", name: "s1", id: 5 }))).toEqual([
      { type: "unsubscribed", id: 5, subscription: "s1" },
    ]);
  });

  test("a static member that unsubscribes leaves, too", () => {
    const script = new SessionScript();
    script.open({ instanceId: "tab-7" });
    expect(lines(script.receive({ type: "unsubscribe" }))).toEqual([
      "stop waiting default#1",
      "leave billing m1",
    ]);
  });

  test("a leave that could not be written is answered with an error", () => {
    const script = new SessionScript();
    script.open();
    script.receive({ type: "unsubscribe", id: 5 });
    const problem = new Problem("unavailable", "The disk does not answer");
    expect(framesOf(script.step({ type: "left", name: "default", id: 5, problem }))).toEqual([
      expect.objectContaining({ type: "error", id: 5, subscription: "default", code: "unavailable" }),
    ]);
  });

  test("nothing more is sent of a subscription that was unsubscribed", () => {
    const script = new SessionScript();
    const { ref, effects } = script.open();
    script.receive({ type: "unsubscribe" });
    expect(lines(script.answer(theOne(effects, "read"), { count: 3, logEndOffset: 9 }))).toEqual([]);
    const partition = { ...ref, partitionKey: "orders/0", generation: 3, run: 0 };
    expect(lines(script.step({ type: "grown", ref: partition }))).toEqual([]);
    expect(lines(script.step({ type: "ended", ref, reason: "replaced" }))).toEqual([]);
  });

  const unknownCases = [
    { title: "never was", prepare: () => undefined },
    {
      title: "was unsubscribed already",
      prepare: (script: SessionScript) => {
        script.open();
        script.receive({ type: "unsubscribe", id: 1 });
      },
    },
    {
      title: "is joining and was unsubscribed already",
      prepare: (script: SessionScript) => {
        script.subscribe();
        script.receive({ type: "unsubscribe", id: 1 });
      },
    },
  ];
  for (const { title, prepare } of unknownCases) {
    test(`a subscription that ${title} is unknown_subscription`, () => {
      const script = new SessionScript();
      prepare(script);
      expect(framesOf(script.receive({ type: "unsubscribe", id: 2 }))).toEqual([
        {
          type: "error",
          id: 2,
          subscription: "default",
          code: "unknown_subscription",
          message: expect.stringContaining('"default"'),
          retriable: false,
        },
      ]);
    });
  }

  test("another subscription of the socket does not notice", () => {
    const script = new SessionScript();
    const { effects } = script.open({ subscription: "s1" });
    script.open({ subscription: "s2", group: "audit" });
    script.receive({ type: "unsubscribe", subscription: "s2" });
    const sent = script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 5 });
    expect(lines(sent)).toEqual(["send records orders/0 to 1", "read orders/0 from 1"]);
  });
});

describe("unsubscribe while joining", () => {
  test("the subscribe is answered first, then the membership is let go; nothing is read", () => {
    const script = new SessionScript();
    const ref = script.subscribe({ id: 1 });
    expect(lines(script.receive({ type: "unsubscribe", id: 2 }))).toEqual([]);
    expect(lines(script.join(ref))).toEqual([
      "send subscribed",
      "send assigned",
      "stop waiting default#1",
      "leave billing m1",
    ]);
    expect(framesOf(script.step({ type: "left", name: "default", id: 2 }))).toEqual([
      { type: "unsubscribed", id: 2, subscription: "default" },
    ]);
  });

  test("a join that fails after it answers both frames, each with its own id", () => {
    const script = new SessionScript();
    const ref = script.subscribe({ id: 1 });
    script.receive({ type: "unsubscribe", id: 2 });
    expect(framesOf(script.step({ type: "openFailed", ref, problem: unknownTopic }))).toEqual([
      expect.objectContaining({ type: "error", id: 1, code: "unknown_topic" }),
      { type: "unsubscribed", id: 2, subscription: "default" },
    ]);
    expect(script.subscribe()).toEqual({ name: "default", serial: 2 });
  });
});

describe("unsubscribe at most once, while a chunk is committed ahead", () => {
  const ORDERS = { topic: "orders", partition: 0 };
  const FIRST = { partitionId: 70, generation: 3 };
  const LEAVING = ["send records orders/0 to 5", "stop waiting default#1", "leave billing m1"];

  /** Five records are being committed ahead, and the client has unsubscribed. */
  function leaving(options: Partial<SubscribeFrame> = {}) {
    const script = new SessionScript();
    const { ref, effects } = script.open({ ack: "none", ...options });
    const asked = script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 100 });
    const told = script.receive({ type: "unsubscribe", id: 5 });
    return { script, ref, ahead: theOne(asked, "commitAhead"), told };
  }
  const committed = (script: SessionScript, { ref, chunk }: EffectOf<"commitAhead">, isFenced = false) =>
    script.step({ type: "committedAhead", ref, chunk, isFenced });
  const left = (script: SessionScript) => framesOf(script.step({ type: "left", name: "default", id: 5 }));

  test("waits for it: its records are sent, then the membership ends, then it is answered, once", () => {
    const { script, ahead, told } = leaving();
    expect(lines(told)).toEqual([]);
    const sent = committed(script, ahead);
    expect(lines(sent)).toEqual(LEAVING);
    expect(theOne(sent, "leave").answer).toEqual({ name: "default", id: 5 });
    expect(left(script)).toEqual([{ type: "unsubscribed", id: 5, subscription: "default" }]);
    expect(lines(script.step({ type: "drained" }))).toEqual([]);
    expect(script.subscribe()).toEqual({ name: "default", serial: 2 });
  });

  test("waits for no room in the socket", () => {
    const { script, ahead } = leaving();
    script.bufferedBytes = SOCKET_BUFFER_BYTES_MAX;
    expect(lines(committed(script, ahead))).toEqual(LEAVING);
  });

  test("sends at once what is committed and waits for room in the socket", () => {
    const script = new SessionScript();
    const { effects } = script.open({ ack: "none" });
    const asked = script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 100 });
    script.bufferedBytes = SOCKET_BUFFER_BYTES_MAX;
    expect(lines(committed(script, theOne(asked, "commitAhead")))).toEqual([]);
    expect(lines(script.receive({ type: "unsubscribe" }))).toEqual(LEAVING);
  });

  test("sends it though its partition is paused", () => {
    const script = new SessionScript();
    const { effects } = script.open({ ack: "none" });
    const asked = script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 100 });
    script.receive({ type: "pause", partitions: [ORDERS] });
    script.receive({ type: "unsubscribe" });
    expect(lines(committed(script, theOne(asked, "commitAhead")))).toEqual(LEAVING);
  });

  test("waits for no chunk at the end of the log to grow", () => {
    const script = new SessionScript();
    const { effects } = script.open({ ack: "none" });
    const asked = script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 5 });
    script.receive({ type: "unsubscribe" });
    expect(lines(committed(script, theOne(asked, "commitAhead")))).toEqual([
      "send records orders/0 to 5",
      "wait orders/0 at 5",
      "stop waiting default#1",
      "leave billing m1",
    ]);
  });

  const gone = ["stop waiting default#1", "leave billing m1"];
  test("goes at once when it is not committed, or is fenced", () => {
    const failed = leaving();
    const { ref } = failed.ahead;
    expect(lines(failed.script.step({ type: "commitAheadFailed", ref }))).toEqual(gone);
    const fenced = leaving();
    expect(lines(committed(fenced.script, fenced.ahead, true))).toEqual(gone);
  });

  test("goes at once when the partition is lost, or begins anew; nothing more comes of the commit", () => {
    const lost = leaving();
    const loss = lost.script.own(lost.ref, { lost: [{ ...FIRST, reason: "topic_deleted" }] });
    expect(lines(loss)).toEqual(["stop waiting orders/0", "send revoked", ...gone]);
    expect(lines(committed(lost.script, lost.ahead))).toEqual([]);
    const anew = leaving();
    const reset = anew.script.own(anew.ref, { gained: [joinedPartition({ generation: 9 })] });
    expect(lines(reset)).toEqual(["send assigned", "stop waiting orders/0", ...gone]);
    expect(lines(committed(anew.script, anew.ahead))).toEqual([]);
  });

  test("goes at once when the partition stalls", () => {
    const script = new SessionScript();
    const { effects } = script.open({ ack: "none", ackTimeoutMs: 1_000 });
    const first = script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 100 });
    script.bufferedBytes = 500; // the socket does not take them
    const sent = committed(script, theOne(first, "commitAhead"));
    const second = script.answer(theOne(sent, "read"), { count: 5, logEndOffset: 100 });
    script.receive({ type: "unsubscribe", id: 5 });
    const stalled = script.at(1_000).step({ type: "alarm" });
    expect(lines(stalled).filter((line) => !line.startsWith("alarm"))).toEqual([
      "stop waiting orders/0",
      "send revoked",
      "stall 70 in 3 of m1",
      ...gone,
    ]);
    expect(lines(committed(script, theOne(second, "commitAhead")))).toEqual([]);
    expect(left(script)).toMatchObject([{ type: "unsubscribed", id: 5 }]);
  });

  test("is sent it, then goes, though the partition is to be revoked; nothing is released by that", () => {
    const { script, ref, ahead } = leaving();
    expect(lines(script.own(ref, { revoked: [{ ...FIRST, deadlineMs: 5_000 }] }))).toEqual([]);
    expect(lines(committed(script, ahead))).toEqual(LEAVING);
  });

  for (const reason of ["replaced", "expired"] as const) {
    test(`is answered when the membership is ${reason} meanwhile, and does not leave`, () => {
      const { script, ref, ahead } = leaving();
      const ended = script.step({ type: "ended", ref, reason });
      expect(all(ended, "leave")).toEqual([]);
      expect(framesOf(ended).at(-1)).toEqual({
        type: "unsubscribed",
        id: 5,
        subscription: "default",
        code: reason,
      });
      expect(lines(committed(script, ahead))).toEqual([]);
      expect(Object.values(script.session.waiting)).toEqual([0, 0, 0, 0, 0]);
    });
  }

  test("is answered when the client falls silent meanwhile, and leaves once", () => {
    const { script, ahead } = leaving({ sessionTimeoutMs: 6_000 });
    const effects = [2_000, 4_000, 6_000].flatMap((nowMs) => script.at(nowMs).step({ type: "alarm" }));
    expect(all(effects, "leave")).toHaveLength(1);
    expect(framesOf(effects).at(-1)).toMatchObject({ type: "unsubscribed", id: 5, code: "expired" });
    expect(lines(committed(script, ahead))).toEqual([]);
  });

  test("leaves once with its socket, and not as a member that comes back", () => {
    const { script, ahead } = leaving({ instanceId: "tab-7" });
    expect(lines(script.step({ type: "closed" }))).toEqual(gone);
    expect(lines(committed(script, ahead))).toEqual([]);
    const { script: other, ahead: failing } = leaving();
    other.step({ type: "closed" });
    expect(lines(other.step({ type: "commitAheadFailed", ref: failing.ref }))).toEqual([]);
  });

  test("is finished by a server that drains before the socket closes", () => {
    const { script, ahead } = leaving();
    expect(lines(script.step({ type: "draining", retryAfterMs: 500 }))).toEqual(["send draining"]);
    expect(lines(committed(script, ahead))).toEqual(LEAVING);
    expect(lines(script.step({ type: "left", name: "default", id: 5 }))).toEqual([
      "send unsubscribed",
      "close 4000",
    ]);
  });

  test("takes no more frames, and keeps its name until it has left", () => {
    const { script, ahead } = leaving();
    const offsets = [{ ...ORDERS, generation: 3, offset: 0 }];
    const refused = [
      ...script.receive({ type: "unsubscribe", id: 6 }),
      ...script.receive({ type: "seek", id: 7, ...ORDERS, to: "earliest" }),
      ...script.receive({ type: "pause", id: 8, partitions: [ORDERS] }),
      ...script.receive({ type: "release", id: 9, partitions: [ORDERS] }),
      ...script.ack(offsets, { id: 10 }),
    ];
    expect(framesOf(refused)).toMatchObject(
      [6, 7, 8, 9, 10].map((id) => ({ type: "error", id, code: "unknown_subscription" })),
    );
    const again = { type: "subscribe", id: 11, topics: ["orders"], group: "billing" } as const;
    expect(framesOf(script.receive(again))).toMatchObject([{ id: 11, code: "conflict" }]);
    expect(lines(committed(script, ahead))).toEqual(LEAVING);
  });

  test("voids a seek that was on its way, not what is committed", () => {
    const script = new SessionScript();
    const { effects } = script.open({ ack: "none" });
    const asked = script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 100 });
    const seek = theOne(script.receive({ type: "seek", id: 4, ...ORDERS, to: "latest" }), "locate");
    script.receive({ type: "unsubscribe" });
    expect(framesOf(script.locate(seek))).toMatchObject([{ id: 4, code: "unknown_subscription" }]);
    expect(lines(committed(script, theOne(asked, "commitAhead")))).toEqual(LEAVING);
  });

  test("waits for no chunk that a seek has voided before", () => {
    const script = new SessionScript();
    const { effects } = script.open({ ack: "none" });
    script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 100 });
    script.seekAndLocate({ ...ORDERS, to: "latest" });
    expect(lines(script.receive({ type: "unsubscribe" }))).toEqual(gone);
  });

  test("begins no read in the partitions that it still has", () => {
    const two = [joinedPartition(), joinedPartition({ partition: 1, generation: 4 })];
    const script = new SessionScript();
    const { ref, effects } = script.open({ ack: "none" }, two);
    const asked = script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 100 });
    script.receive({ type: "unsubscribe" });
    expect(lines(script.step({ type: "drained" }))).toEqual([]);
    const partition = { ...ref, partitionKey: "orders/1", generation: 4, run: 0 };
    expect(lines(script.step({ type: "grown", ref: partition }))).toEqual([]);
    expect(lines(committed(script, theOne(asked, "commitAhead")))).toEqual(LEAVING);
  });

  test("does not hold up another subscription of the socket", () => {
    const { script, ahead } = leaving();
    const other = script.open({ subscription: "s2", group: "audit" });
    const sent = script.answer(theOne(other.effects, "read"), { count: 1, logEndOffset: 1 });
    expect(lines(sent)).toEqual(["send records orders/0 to 1", "wait orders/0 at 1"]);
    expect(lines(committed(script, ahead))).toEqual(LEAVING);
  });
});

describe("a reader", () => {
  test("is unsubscribed at once: there is no membership to let go", () => {
    const script = new SessionScript();
    const { effects } = script.read({ subscription: "t" });
    const ending = script.receive({ type: "unsubscribe", id: 5, subscription: "t" });
    expect(lines(ending)).toEqual(["stop waiting t#1", "send unsubscribed"]);
    expect(framesOf(ending)).toEqual([{ type: "unsubscribed", id: 5, subscription: "t" }]);
    expect(lines(script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 9 }))).toEqual([]);
  });

  test("that is unsubscribed while it opens is subscribed first, then unsubscribed; nothing is read", () => {
    const script = new SessionScript();
    const opening = script.receive({ type: "subscribe", id: 1, topics: ["orders"], from: "latest" });
    expect(lines(script.receive({ type: "unsubscribe", id: 2 }))).toEqual([]);
    const { ref } = theOne(opening, "openReader");
    const opened = script.step({ type: "readerOpened", ref, partitions: [readerPartition()] });
    expect(lines(opened)).toEqual([
      "send subscribed",
      "send assigned",
      "stop waiting default#1",
      "send unsubscribed",
    ]);
    expect(framesOf(opened).at(-1)).toMatchObject({ id: 2 });
  });

  test("that cannot be opened is told why, with its id, and leaves its name free", () => {
    const script = new SessionScript();
    const opening = script.receive({ type: "subscribe", id: 1, topics: ["orders"], from: "latest" });
    const { ref } = theOne(opening, "openReader");
    const effects = script.step({ type: "openFailed", ref, problem: unknownTopic });
    expect(framesOf(effects)).toMatchObject([{ type: "error", id: 1, code: "unknown_topic" }]);
    expect(script.read().ref).toEqual({ name: "default", serial: 2 });
  });

  test("takes its name from groups as from readers, and its place among a socket's subscriptions", () => {
    const script = new SessionScript();
    script.read({ subscription: "t" });
    const again = { type: "subscribe", id: 1, subscription: "t", topics: ["orders"] } as const;
    expect(lines(script.receive({ ...again, group: "billing" }))).toEqual(["send error conflict"]);
    for (let index = 1; index < SUBSCRIPTIONS_PER_SOCKET_MAX; index += 1)
      script.read({ subscription: `r${index}` });
    expect(lines(script.receive({ ...again, subscription: "more", from: "latest" }))).toEqual([
      "send error bad_request",
    ]);
  });
});

describe("the policies of a subscription", () => {
  const cases: readonly (readonly [reset: SubscribeFrame["reset"], policies: ResetPolicies])[] = [
    [{ ago: 5 }, { missing: { ago: 5 }, outOfRange: { ago: 5 } }],
    [{ timestamp: 5 }, { missing: { timestamp: 5 }, outOfRange: { timestamp: 5 } }],
    [{ missing: { ago: 5 } }, { missing: { ago: 5 }, outOfRange: "earliest" }],
    [{ outOfRange: { timestamp: 5 } }, { missing: "earliest", outOfRange: { timestamp: 5 } }],
  ];
  for (const [reset, policies] of cases) {
    test(`may go by time: ${JSON.stringify(reset)}`, () => {
      const script = new SessionScript();
      const frame = { type: "subscribe", topics: ["orders"], group: "billing", reset } as const;
      expect(theOne(script.receive(frame), "join").request.policies).toEqual(policies);
    });
  }
});
