import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Problem } from "../../../src/core/problem.ts";
import type { SessionEffect, SessionEvent } from "../../../src/core/session/events.ts";
import { all, framesOf, joinResult, lines, SessionScript, theOne } from "../../support/session-script.ts";

const alarm: SessionEvent = { type: "alarm" };

/** Lets alarms ring when they are due, `driftMs` late, up to that time. What the client does comes in between. */
class Clockwork {
  readonly script = new SessionScript();
  readonly #past: { readonly atMs: number; readonly effects: readonly SessionEffect[] }[] = [];
  #alarmAtMs: number | undefined;

  step(event: SessionEvent): readonly SessionEffect[] {
    const effects = this.script.step(event);
    for (const { delayMs } of all(effects, "setAlarm")) this.#alarmAtMs = this.script.nowMs + delayMs;
    this.#past.push({ atMs: this.script.nowMs, effects });
    return effects;
  }

  runUntil(atMs: number, driftMs = 0): void {
    while (this.#alarmAtMs !== undefined && this.#alarmAtMs + driftMs <= atMs) {
      this.script.at(this.#alarmAtMs + driftMs);
      this.#alarmAtMs = undefined;
      this.step(alarm);
    }
    this.script.at(atMs);
  }

  /** When an effect of the type came. */
  timesOf(type: SessionEffect["type"]): readonly number[] {
    return this.#past.flatMap(({ atMs, effects }) => (all(effects, type).length > 0 ? [atMs] : []));
  }

  /** What was done after the start, by time. When leases are renewed is told elsewhere. */
  transcript(): readonly (readonly (number | string)[])[] {
    const later = this.#past.filter(({ atMs }) => atMs > 0);
    return later.map(({ atMs, effects }) => [atMs, ...lines(effects.filter(({ type }) => type !== "renew"))]);
  }
}

function start(...sessionTimeouts: readonly number[]): Clockwork {
  const clockwork = new Clockwork();
  clockwork.step({ type: "opened" });
  sessionTimeouts.forEach((sessionTimeoutMs, index) => {
    const ref = { name: `s${index}`, serial: index + 1 };
    const frame = {
      type: "subscribe",
      subscription: ref.name,
      topics: ["orders"],
      group: `g${index}`,
      sessionTimeoutMs,
    } as const;
    clockwork.step({ type: "frame", frame });
    clockwork.step({ type: "joined", ref, result: joinResult({ memberId: `m${index}` }) });
  });
  return clockwork;
}

describe("silence", () => {
  test("from the opening on is asked three times, then given up", () => {
    const clockwork = start();
    clockwork.runUntil(600_000);
    expect(clockwork.transcript()).toEqual([
      [15_000, "ping", "alarm in 15000"],
      [30_000, "ping", "alarm in 15000"],
      [45_000, "ping", "alarm in 15000"],
      [60_000, "close 4008"],
    ]);
  });

  test("ends a membership at its session timeout: revoked, unsubscribed, left, though the socket lives on", () => {
    const clockwork = start(45_000);
    clockwork.runUntil(600_000);
    expect(clockwork.transcript()).toEqual([
      [15_000, "ping", "alarm in 15000"],
      [30_000, "ping", "alarm in 15000"],
      [
        45_000,
        "leave g0 m0",
        "stop waiting s0#1",
        "send revoked",
        "send unsubscribed expired",
        "ping",
        "alarm in 15000",
      ],
      [60_000, "close 4008"],
    ]);
  });

  test("until a moment before the session timeout ends nothing", () => {
    const effects = start(45_000).script.at(44_999).step(alarm);
    expect(framesOf(effects)).toEqual([]);
    expect(all(effects, "leave")).toEqual([]);
    expect(all(effects, "close")).toEqual([]);
  });

  test("names in revoked what is lost, and that it is gone already", () => {
    const { script } = start(45_000);
    const effects = script.at(45_000).step(alarm);
    expect(framesOf(effects)).toEqual([
      {
        type: "revoked",
        subscription: "s0",
        partitions: [{ topic: "orders", partition: 0, generation: 3 }],
        reason: "expired",
        deadlineMs: 0,
      },
      { type: "unsubscribed", subscription: "s0", code: "expired" },
    ]);
    expect(theOne(effects, "leave")).toEqual({
      type: "leave",
      member: { group: "g0", memberId: "m0", membership: 1 },
    });
  });

  test("ends the membership of a static member, too", () => {
    const script = new SessionScript();
    script.open({ instanceId: "tab-7" });
    const effects = script.at(45_000).step(alarm);
    expect(all(effects, "detach")).toEqual([]);
    expect(all(effects, "leave")).toHaveLength(1);
  });

  test("after the end: acks are unknown_subscription, records that were on their way are not sent", () => {
    const script = new SessionScript();
    const { effects } = script.open();
    script.at(45_000).step(alarm);
    const entry = { topic: "orders", partition: 0, generation: 3, offset: 0 };
    expect(lines(script.ack([entry]))).toEqual(["send error unknown_subscription"]);
    expect(lines(script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 9 }))).toEqual([]);
  });

  test("ends no membership that has not been joined yet", () => {
    const script = new SessionScript();
    const ref = script.subscribe();
    expect(lines(script.at(45_000).step(alarm))).toEqual(["ping", "alarm in 15000"]);
    expect(lines(script.join(ref))).toEqual(["send subscribed", "send assigned", "read orders/0 from 0"]);
  });

  test("renews no lease once a heartbeat has passed", () => {
    const clockwork = start(45_000);
    clockwork.runUntil(600_000);
    expect(clockwork.timesOf("renew").filter((atMs) => atMs > 15_000)).toEqual([]);
  });

  test("ends a short session and leaves a longer one of the same socket alone", () => {
    const { script } = start(6_000, 45_000);
    const effects = script.at(6_000).step(alarm);
    expect(framesOf(effects)).toEqual([
      expect.objectContaining({ type: "revoked", subscription: "s0" }),
      { type: "unsubscribed", subscription: "s0", code: "expired" },
    ]);
    expect(all(effects, "leave").map(({ member }) => member.memberId)).toEqual(["m0"]);
    const entry = { topic: "orders", partition: 0, generation: 3, offset: 0 };
    expect(lines(script.ack([entry], { subscription: "s1" }))).toEqual(["commit g1 orders/0=0"]);
  });
});

describe("a sign of life", () => {
  const problem = new Problem("bad_request", "there is no such member");
  const signs: readonly [title: string, event: SessionEvent][] = [
    ["a pong frame", { type: "frame", frame: { type: "pong" } }],
    ["a pong of the protocol", { type: "pong" }],
    ["any other frame", { type: "frame", frame: { type: "unsubscribe", subscription: "nobody" } }],
    ["a frame that is refused", { type: "badFrame", problem, id: undefined }],
  ];
  for (const [title, event] of signs) {
    test(`${title} starts the count of unanswered pings anew`, () => {
      const clockwork = start();
      clockwork.runUntil(45_000);
      clockwork.runUntil(45_001);
      clockwork.step(event);
      clockwork.runUntil(600_000);
      // Asked at 15, 30 and 45 s, heard of just after that; then three more, and the end.
      const pings = clockwork.timesOf("ping").slice(3);
      expect(pings).toHaveLength(3);
      expect(pings[0]).toBeGreaterThanOrEqual(60_001);
      expect(clockwork.timesOf("close")).toEqual([(pings[2] ?? 0) + 15_000]);
    });

    test(`${title} keeps the memberships`, () => {
      const clockwork = start(45_000);
      clockwork.runUntil(44_000);
      clockwork.step(event);
      clockwork.runUntil(60_000);
      expect(clockwork.timesOf("renew").filter((atMs) => atMs >= 44_000)).not.toEqual([]);
      expect(clockwork.timesOf("leave")).toEqual([]);
      expect(clockwork.timesOf("close")).toEqual([]);
    });
  }

  test("what the server did itself is none", () => {
    const script = new SessionScript();
    const { effects } = script.open();
    script.at(40_000).answer(theOne(effects, "read"), { count: 1, logEndOffset: 9 });
    script.step({ type: "drained" });
    expect(all(script.at(45_000).step(alarm), "leave")).toHaveLength(1);
  });

  test("within the heartbeat renews the lease of every membership, and no ping is due", () => {
    const clockwork = start(45_000, 45_000);
    clockwork.runUntil(14_000);
    const effects = [...clockwork.step({ type: "pong" })];
    clockwork.script.at(15_000);
    effects.push(...clockwork.step(alarm));
    expect(theOne(effects, "setAlarm").delayMs).toBe(14_000);
    expect(all(effects, "ping")).toEqual([]);
    expect(all(effects, "renew").map(({ member }) => member)).toEqual([
      { group: "g0", memberId: "m0", membership: 1 },
      { group: "g1", memberId: "m1", membership: 1 },
    ]);
  });

  test("renews nothing for a subscription that is joining or has gone", () => {
    const { script } = start(45_000, 45_000);
    script.receive({ type: "unsubscribe", subscription: "s0" });
    script.step({ type: "ended", ref: { name: "s1", serial: 2 }, reason: "replaced" });
    script.subscribe({ subscription: "joining" });
    script.at(14_000).step({ type: "pong" });
    expect(all(script.at(15_000).step(alarm), "renew")).toEqual([]);
  });

  test("in answer to each ping keeps the lease, however quick the answer and however late the timer", () => {
    const sessionTimeoutMs = 6_000;
    const heartbeatMs = 2_000;
    const property = fc.property(
      fc.integer({ min: 0, max: 5 }), // how late the timer rings
      fc.array(fc.oneof(fc.integer({ min: 0, max: 5 }), fc.integer({ min: 0, max: heartbeatMs - 10 })), {
        minLength: 8,
        maxLength: 8,
      }), // how long each pong takes
      (driftMs, latencies) => {
        const clockwork = start(sessionTimeoutMs);
        for (const latencyMs of latencies) {
          const pings = clockwork.timesOf("ping").length;
          while (clockwork.timesOf("ping").length === pings)
            clockwork.runUntil(clockwork.script.nowMs + 1, driftMs);
          clockwork.runUntil(clockwork.script.nowMs + latencyMs, driftMs);
          clockwork.step({ type: "pong" });
        }
        const renewals = [0, ...clockwork.timesOf("renew"), clockwork.script.nowMs];
        const gaps = renewals.slice(1).map((atMs, index) => atMs - (renewals[index] ?? 0));
        expect(Math.max(...gaps)).toBeLessThan(sessionTimeoutMs);
        expect(clockwork.timesOf("leave")).toEqual([]);
        expect(clockwork.timesOf("close")).toEqual([]);
      },
    );
    fc.assert(property, { numRuns: 50, examples: [[1, Array(8).fill(0)]] });
  });
});

describe("the heartbeat", () => {
  test("is a third of the session timeout that subscribed names", () => {
    for (const [sessionTimeoutMs, heartbeatMs] of [
      [6_000, 2_000],
      [45_000, 15_000],
      [300_000, 100_000],
    ] as const) {
      const [subscribed] = framesOf(new SessionScript().open({ sessionTimeoutMs }).effects);
      expect(subscribed).toMatchObject({ sessionTimeoutMs, heartbeatMs });
    }
  });

  test("of a socket without subscriptions is 15 s", () => {
    expect(lines(new SessionScript().step({ type: "opened" }))).toEqual(["alarm in 15000"]);
  });

  test("becomes shorter at once when a subscription with a shorter session timeout comes", () => {
    const script = new SessionScript();
    script.step({ type: "opened" });
    const frame = { type: "subscribe", topics: ["orders"], group: "billing" } as const;
    const effects = script.at(10_000).receive({ ...frame, sessionTimeoutMs: 6_000 });
    expect(lines(effects)).toEqual(["join billing for default#1", "alarm in 2000"]);
  });

  test("of the shortest session timeout counts, whichever came first", () => {
    for (const timeouts of [
      [6_000, 45_000],
      [45_000, 6_000],
    ]) {
      const clockwork = start(...timeouts);
      clockwork.runUntil(2_000);
      expect(clockwork.timesOf("ping")).toEqual([2_000]);
    }
  });

  test("becomes longer again when the subscription with the shorter session timeout has gone", () => {
    const { script } = start(6_000, 45_000);
    script.at(1_000).receive({ type: "unsubscribe", subscription: "s0" });
    const effects = script.at(2_000).step(alarm);
    expect(theOne(effects, "setAlarm").delayMs).toBe(14_000);
    expect(all(effects, "ping")).toEqual([]);
  });

  test("of a longer session timeout is longer: nobody is asked before the heartbeat that subscribed named", () => {
    const clockwork = start(300_000);
    clockwork.runUntil(14_000);
    clockwork.step({ type: "pong" });
    clockwork.runUntil(113_999);
    expect(clockwork.timesOf("ping")).toEqual([]);
    clockwork.runUntil(114_000);
    expect(clockwork.timesOf("ping")).toEqual([114_000]);
  });

  test("of a longer session timeout is longer: a silence below the session timeout does not cost the socket", () => {
    const clockwork = start(300_000);
    clockwork.runUntil(299_999);
    expect(clockwork.timesOf("close")).toEqual([]);
    expect(clockwork.timesOf("leave")).toEqual([]);
  });
});

test("a client that subscribes again and again does not put off the renewal of its leases", () => {
  const clockwork = start(45_000);
  for (let atMs = 10_000; atMs <= 120_000; atMs += 10_000) {
    clockwork.runUntil(atMs);
    const about = { subscription: "passing", topics: ["orders"], group: "passing" };
    clockwork.step({ type: "frame", frame: { type: "subscribe", ...about } });
    const problem = new Problem("conflict", "There is a member");
    const ref = { name: "passing", serial: clockwork.script.session.lastSerial };
    clockwork.step({ type: "openFailed", ref, problem });
  }
  const renewals = [0, ...clockwork.timesOf("renew"), 120_000];
  const gapsMs = renewals.slice(1).map((atMs, index) => atMs - Number(renewals[index]));
  expect(Math.max(...gapsMs)).toBeLessThan(45_000);
});

test("a reader keeps the socket's heartbeat by its own session timeout, and has no lease to lose", () => {
  const clockwork = new Clockwork();
  clockwork.step({ type: "opened" });
  const frame = { type: "subscribe", topics: ["orders"], from: "latest", sessionTimeoutMs: 6_000 } as const;
  clockwork.step({ type: "frame", frame });
  const ref = { name: "default", serial: 1 };
  clockwork.step({ type: "readerOpened", ref, partitions: [] });
  clockwork.runUntil(60_000);
  expect(clockwork.transcript()).toEqual([
    [2_000, "ping", "alarm in 2000"],
    [4_000, "ping", "alarm in 2000"],
    [6_000, "ping", "alarm in 2000"],
    [8_000, "close 4008"],
  ]);
  expect([...clockwork.timesOf("renew"), ...clockwork.timesOf("leave")]).toEqual([]);
});
