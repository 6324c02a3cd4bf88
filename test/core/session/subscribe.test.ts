import { describe, expect, test } from "bun:test";
import { Problem } from "../../../src/core/problem.ts";
import type { SubscriptionRef } from "../../../src/core/session/state.ts";
import type { SubscribeFrame } from "../../../src/protocol/frames.ts";
import { SUBSCRIPTIONS_PER_SOCKET_MAX } from "../../../src/protocol/limits.ts";
import type { ResetPolicies } from "../../../src/protocol/places.ts";
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
      expect(framesOf(second)).toEqual([
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
