import { describe, expect, test } from "bun:test";
import { Problem } from "../../../src/core/problem.ts";
import type { SessionEvent } from "../../../src/core/session/events.ts";
import {
  all,
  framesOf,
  joinedPartition,
  lines,
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
    const partition = { ...ref, partitionKey: "orders/0", generation: 3 };
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
      ...script.step({ type: "grown", ref: { ...ref, partitionKey: "orders/0", generation: 3 } }),
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
    const effects = script.step({ type: "joinFailed", ref, problem });
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
