import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Problem } from "../../../src/core/problem.ts";
import type { SessionEffect } from "../../../src/core/session/events.ts";
import type { SubscriptionRef } from "../../../src/core/session/state.ts";
import type { ServerFrame, Window } from "../../../src/protocol/frames.ts";
import {
  CHUNK_BYTES_MAX,
  CHUNK_RECORDS_MAX,
  SOCKET_BUFFER_BYTES_MAX,
  WINDOW_BYTES_MIN,
} from "../../../src/protocol/limits.ts";
import {
  acceptedOutcomes,
  all,
  type EffectOf,
  framesOf,
  joinedPartition,
  joinResult,
  lines,
  readSizes,
  SessionScript,
  theOne,
} from "../../support/session-script.ts";

const KIB = 1024;
const entry = { topic: "orders", partition: 0, generation: 3, offset: 2 };

test("stepSession() carries a consumer from its first frame to its last", () => {
  const script = new SessionScript();
  const ref: SubscriptionRef = { name: "default", serial: 1 };
  const transcript: string[] = [];
  const says = (what: string, effects: readonly SessionEffect[]) => {
    transcript.push(`${what}:`, ...lines(effects).map((line) => `  ${line}`));
    return effects;
  };

  says("opened", script.step({ type: "opened" }));
  says("subscribe", script.receive({ type: "subscribe", id: 1, topics: ["orders"], group: "billing" }));
  const joined = says("joined", script.join(ref));
  says("two records", script.answer(theOne(joined, "read"), { count: 2, logEndOffset: 2 }));
  const acking = says("ack", script.ack([entry], { id: 2 }));
  says("committed", script.commit(theOne(acking, "commit")));
  const grown = script.step({
    type: "grown",
    ref: { ...ref, partitionKey: "orders/0", generation: 3, run: 0 },
  });
  says("grown", grown);
  says("one record", script.answer(theOne(grown, "read"), { count: 1, logEndOffset: 3 }));
  says("pong", script.at(15_000).receive({ type: "pong" }));
  says("alarm", script.at(15_001).step({ type: "alarm" }));
  says("unsubscribe", script.receive({ type: "unsubscribe", id: 3 }));
  says("left", script.step({ type: "left", name: "default", id: 3 }));
  says("closed", script.step({ type: "closed" }));

  expect(transcript).toEqual([
    "opened:",
    "  alarm in 15000",
    "subscribe:",
    "  join billing for default#1",
    "joined:",
    "  send subscribed",
    "  send assigned",
    "  read orders/0 from 0",
    "two records:",
    "  send records orders/0 to 2",
    "  wait orders/0 at 2",
    "ack:",
    "  commit billing orders/0=2",
    "committed:",
    "  send acked",
    "grown:",
    "  read orders/0 from 2",
    "one record:",
    "  send records orders/0 to 3",
    "  wait orders/0 at 3",
    "pong:",
    "alarm:",
    "  renew billing m1",
    "  alarm in 14999",
    "unsubscribe:",
    "  stop waiting default#1",
    "  leave billing m1",
    "left:",
    "  send unsubscribed",
    "closed:",
  ]);
});

describe("a frame that is refused", () => {
  const badFrame = new Problem("bad_frame", "A frame must be one JSON object");
  const badRequest = new Problem("bad_request", 'there is no member "bogus"');

  test("as bad_frame is answered, then the socket is closed with 4400", () => {
    const script = new SessionScript();
    script.open();
    const effects = script.step({ type: "badFrame", problem: badFrame, id: 9 });
    expect(lines(effects)).toEqual(["send error bad_frame", "close 4400"]);
    expect(framesOf(effects)).toEqual([
      { type: "error", id: 9, code: "bad_frame", message: badFrame.message, retriable: false },
    ]);
  });

  test("as bad_request is answered, and the socket and its subscriptions live", () => {
    const script = new SessionScript();
    const opened = script.open();
    const effects = script.step({ type: "badFrame", problem: badRequest, id: undefined });
    expect(lines(effects)).toEqual(["send error bad_request"]);
    expect(framesOf(effects)[0]).not.toHaveProperty("id");
    const sent = script.answer(theOne(opened.effects, "read"), { count: 1, logEndOffset: 1 });
    expect(lines(sent)).toEqual(["send records orders/0 to 1", "wait orders/0 at 1"]);
  });

  test("as bad_frame lets the memberships go when the socket has closed, and not before", () => {
    const script = new SessionScript();
    script.open();
    expect(all(script.step({ type: "badFrame", problem: badFrame, id: 9 }), "leave")).toEqual([]);
    expect(lines(script.step({ type: "closed" }))).toEqual(["stop waiting default#1", "leave billing m1"]);
  });
});

describe("pong", () => {
  test("with an id is answered with ok and the id", () => {
    expect(framesOf(new SessionScript().receive({ type: "pong", id: "p" }))).toEqual([
      { type: "ok", id: "p" },
    ]);
  });

  test("with id 0 is answered, too", () => {
    expect(framesOf(new SessionScript().receive({ type: "pong", id: 0 }))).toEqual([{ type: "ok", id: 0 }]);
  });

  test("without id, or of the protocol, is not answered", () => {
    expect(lines(new SessionScript().receive({ type: "pong" }))).toEqual([]);
    expect(lines(new SessionScript().step({ type: "pong" }))).toEqual([]);
  });
});

test("an answer goes before the records that the same event made room for", () => {
  const script = new SessionScript();
  const ref = script.subscribe();
  script.bufferedBytes = SOCKET_BUFFER_BYTES_MAX;
  script.join(ref);
  script.bufferedBytes = 0;
  expect(lines(script.receive({ type: "pong", id: 1 }))).toEqual(["send ok", "read orders/0 from 0"]);
});

// ── whatever happens, in whatever order ──────────────────────────────────────────────────────────────────

/** A server and a client around one session, moved by chance; it checks every step. */
class World {
  readonly script = new SessionScript();
  readonly #subscriptions = new Map<string, WorldSubscription>();
  readonly #commits: EffectOf<"commit">[] = [];

  constructor(subscriptions: readonly { window: Window; logs: readonly (readonly number[])[] }[]) {
    subscriptions.forEach(({ window, logs }, index) => {
      const name = `s${index}`;
      const partitions = logs.map((sizes, partition) => new WorldPartition({ partition, sizes }));
      this.#subscriptions.set(name, { window, partitions, read: undefined });
      const ref = this.script.subscribe({ subscription: name, group: `g${index}`, window });
      const joined = partitions.map(({ partition, generation, sizes }) =>
        joinedPartition({ partition, generation, logEndOffset: sizes.length }),
      );
      this.see(this.script.join(ref, { partitions: joined }));
    });
  }

  get partitions(): readonly (WorldPartition & { readonly name: string })[] {
    return [...this.#subscriptions].flatMap(([name, { partitions }]) =>
      partitions.map((partition) => Object.assign(partition, { name })),
    );
  }

  get reads(): readonly EffectOf<"read">[] {
    return [...this.#subscriptions.values()].flatMap(({ read }) => read ?? []);
  }

  answerRead(which: number): void {
    const read = pick(this.reads, which);
    const subscription = read && this.#subscriptions.get(read.ref.name);
    if (!read || !subscription) return;
    subscription.read = undefined;
    const sizes = partitionOf(subscription, read.ref.partitionKey).sizes;
    this.see(this.script.answer(read, readSizes(sizes, read.request)));
  }

  /** Acks of two partitions of a subscription in one frame: below, inside, at and above what was sent. */
  ack(which: number, howFar: number): void {
    const first = pick(this.partitions, which);
    const second = pick(this.partitions, which + 1);
    if (!first || !second) return;
    const named = second.name === first.name ? [first, second, first] : [first];
    const offsets = named.map((partition, index) => ({
      topic: "orders",
      partition: partition.partition,
      generation: partition.generation - (howFar % 11 === 10 ? 1 : 0),
      offset: (howFar * (index + 1)) % (partition.furthest + 2),
    }));
    this.see(this.script.ack(offsets, { subscription: first.name }));
  }

  ackEverything(): void {
    for (const { name, partition, generation, furthest } of this.partitions) {
      const offsets = [{ topic: "orders", partition, generation, offset: furthest }];
      this.see(this.script.ack(offsets, { subscription: name }));
    }
    while (this.#commits.length > 0) this.settleCommit("accepted");
  }

  settleCommit(how: "accepted" | "fenced" | "failed"): void {
    const commit = this.#commits.shift();
    if (!commit) return;
    const { ref, id, acks } = commit;
    if (how === "failed") {
      const problem = new Problem("unavailable", "The disk does not answer");
      return this.see(this.script.step({ type: "commitFailed", ref, id, acks, problem }));
    }
    const outcomes = acceptedOutcomes(commit).map((outcome) =>
      how === "fenced" ? { ...outcome, code: "fenced_generation" as const } : outcome,
    );
    const subscription = this.#subscriptions.get(ref.name);
    acks.forEach(({ partition, offset }, index) => {
      const acked = subscription?.partitions[partition];
      if (acked && outcomes[index]?.code === undefined) acked.acked = Math.max(acked.acked, offset);
    });
    this.see(this.script.commit(commit, outcomes));
  }

  grow(which: number, sizes: readonly number[]): void {
    pick(this.partitions, which)?.sizes.push(...sizes);
  }

  /** Tells whoever waits for a partition that has grown. */
  wake(): void {
    for (const partition of this.partitions) {
      const { waiting, sizes } = partition;
      if (!waiting || waiting.position >= sizes.length) continue;
      partition.waiting = undefined;
      this.see(this.script.step({ type: "grown", ref: waiting.ref }));
    }
  }

  buffer(bytes: number): void {
    this.script.bufferedBytes = bytes;
    this.see(this.script.step({ type: "drained" }));
  }

  see(effects: readonly SessionEffect[]): void {
    for (const effect of effects) this.#seeOne(effect);
    for (const subscription of this.#subscriptions.values()) this.#check(subscription);
  }

  #seeOne(effect: SessionEffect): void {
    const isFull = this.script.bufferedBytes >= SOCKET_BUFFER_BYTES_MAX;
    if (effect.type === "commit") this.#commits.push(effect);
    if (effect.type === "read") {
      const subscription = this.#subscriptions.get(effect.ref.name);
      if (isFull || !subscription || subscription.read)
        throw new Error(`no ${lines([effect])} is wanted now`);
      subscription.read = effect;
    }
    if (effect.type === "wait") {
      const subscription = this.#subscriptions.get(effect.ref.name);
      if (subscription) partitionOf(subscription, effect.ref.partitionKey).waiting = effect;
    }
    if (effect.type === "sendText") {
      if (isFull) throw new Error("the socket is full");
      this.#seeRecords(effect);
    }
  }

  #seeRecords(effect: EffectOf<"sendText">): void {
    const [frame] = framesOf([effect]);
    const subscription = frame?.type === "records" && this.#subscriptions.get(frame.subscription);
    if (!subscription || frame?.type !== "records") throw new Error(`what is ${effect.text}?`);
    const partition = partitionOf(subscription, `${frame.topic}/${frame.partition}`);
    const offsets = frame.records.map(({ offset }) => offset);
    expect(offsets).toEqual(offsets.map((_, index) => partition.furthest + index));
    expect(frame.next).toBe(partition.furthest + offsets.length);
    const bytes = sum(partition.sizes.slice(partition.furthest, frame.next));
    partition.furthest = frame.next;
    if (offsets.length === 1) return;
    const { window } = subscription;
    expect(offsets.length).toBeLessThanOrEqual(Math.min(window.records / 2, CHUNK_RECORDS_MAX));
    expect(bytes).toBeLessThanOrEqual(Math.min(window.bytes / 2, CHUNK_BYTES_MAX));
  }

  #check({ window, partitions, read }: WorldSubscription): void {
    const unacked = partitions.flatMap(({ sizes, acked, furthest }) => sizes.slice(acked, furthest));
    expect(unacked.length).toBeLessThanOrEqual(window.records);
    if (unacked.length > 1) expect(sum(unacked)).toBeLessThanOrEqual(window.bytes);
    const isReadable = ({ sizes, furthest, waiting }: WorldPartition) => !waiting && furthest < sizes.length;
    const isFull = this.script.bufferedBytes >= SOCKET_BUFFER_BYTES_MAX;
    if (unacked.length === 0 && !isFull && partitions.some(isReadable)) expect(read).toBeDefined();
  }
}

interface WorldSubscription {
  readonly window: Window;
  readonly partitions: readonly WorldPartition[];
  read: EffectOf<"read"> | undefined;
}

class WorldPartition {
  readonly partition: number;
  readonly generation: number;
  /** Of its records. */
  readonly sizes: number[];
  /** Next offset to be received. */
  furthest = 0;
  /** The highest accepted ack. */
  acked = 0;
  waiting: EffectOf<"wait"> | undefined;

  constructor({ partition, sizes }: { partition: number; sizes: readonly number[] }) {
    this.partition = partition;
    this.generation = 10 * (partition + 1);
    this.sizes = [...sizes];
  }
}

function partitionOf({ partitions }: WorldSubscription, partitionKey: string): WorldPartition {
  const found = partitions.find(({ partition }) => partitionKey === `orders/${partition}`);
  if (!found) throw new Error(`there is no partition ${partitionKey}`);
  return found;
}

function pick<T>(items: readonly T[], which: number): T | undefined {
  return items[which % items.length];
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

const sizesArbitrary = (maxLength: number) =>
  fc.array(fc.oneof(fc.integer({ min: 1, max: 4 * KIB }), fc.integer({ min: 1, max: 100 * KIB })), {
    maxLength,
  });

const moveArbitrary = fc.oneof(
  { weight: 6, arbitrary: fc.record({ move: fc.constant("read" as const), which: fc.nat(9) }) },
  {
    weight: 5,
    arbitrary: fc.record({ move: fc.constant("ack" as const), which: fc.nat(9), howFar: fc.nat(200) }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      move: fc.constant("settle" as const),
      how: fc.constantFrom("accepted" as const, "accepted" as const, "fenced" as const, "failed" as const),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      move: fc.constant("grow" as const),
      which: fc.nat(9),
      sizes: sizesArbitrary(10),
    }),
  },
  { weight: 1, arbitrary: fc.record({ move: fc.constant("wake" as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      move: fc.constant("buffer" as const),
      bytes: fc.constantFrom(0, SOCKET_BUFFER_BYTES_MAX - 1, SOCKET_BUFFER_BYTES_MAX),
    }),
  },
);

type Move = typeof moveArbitrary extends fc.Arbitrary<infer T> ? T : never;

function make(world: World, move: Move): void {
  switch (move.move) {
    case "read":
      return world.answerRead(move.which);
    case "ack":
      return world.ack(move.which, move.howFar);
    case "settle":
      return world.settleCommit(move.how);
    case "grow":
      return world.grow(move.which, move.sizes);
    case "wake":
      return world.wake();
    case "buffer":
      return world.buffer(move.bytes);
  }
}

const subscriptionArbitrary = fc.record({
  window: fc.record({
    records: fc.integer({ min: 1, max: 30 }),
    bytes: fc.integer({ min: WINDOW_BYTES_MIN, max: 3 * WINDOW_BYTES_MIN }),
  }),
  logs: fc.array(sizesArbitrary(40), { minLength: 1, maxLength: 3 }),
});

test("whatever is read, acknowledged and refused, in whatever order: no window is exceeded, nobody gets stuck, every record comes once and in order", () => {
  const property = fc.property(
    fc.array(subscriptionArbitrary, { minLength: 1, maxLength: 3 }),
    fc.array(moveArbitrary, { maxLength: 120 }),
    (subscriptions, moves) => {
      const world = new World(subscriptions);
      for (const move of moves) make(world, move);
      world.buffer(0);
      const recordsLeft = () => sum(world.partitions.map(({ sizes, furthest }) => sizes.length - furthest));
      for (let rounds = 2 * recordsLeft() + 10; recordsLeft() > 0 || world.reads.length > 0; rounds -= 1) {
        expect(rounds).toBeGreaterThan(0);
        for (let reads = world.reads.length; reads > 0; reads -= 1) world.answerRead(0);
        world.wake();
        world.ackEverything();
      }
      expect(recordsLeft()).toBe(0);
    },
  );
  fc.assert(property, { numRuns: 300 });
});

// ── answers ──────────────────────────────────────────────────────────────────────────────────────────────

/** Frames with ids to two subscriptions; joins, commits and leaves end when chance wants it. */
class Correspondence {
  readonly script = new SessionScript();
  readonly answersById = new Map<number, ServerFrame[]>();
  readonly #pending: (EffectOf<"join"> | EffectOf<"commit"> | EffectOf<"leave">)[] = [];
  readonly #joined: SubscriptionRef[] = [];
  #lastId = 0;

  frame(type: "subscribe" | "ack" | "unsubscribe" | "pong" | "refused", subscription: string): void {
    this.#lastId += 1;
    const id = this.#lastId;
    this.answersById.set(id, []);
    switch (type) {
      case "subscribe":
        return this.#see(
          this.script.receive({ type, id, subscription, topics: ["orders"], group: subscription }),
        );
      case "ack":
        return this.#see(this.script.ack([{ ...entry, offset: 0 }], { id, subscription }));
      case "unsubscribe":
        return this.#see(this.script.receive({ type, id, subscription }));
      case "pong":
        return this.#see(this.script.receive({ type, id }));
      case "refused":
        return this.#see(
          this.script.step({ type: "badFrame", problem: new Problem("bad_request", "why"), id }),
        );
    }
  }

  settle(which: number, isDone: boolean): boolean {
    const pending = pick(this.#pending, which);
    if (!pending) return false;
    this.#pending.splice(this.#pending.indexOf(pending), 1);
    this.#see(this.#resultOf(pending, isDone));
    return true;
  }

  #resultOf(
    pending: EffectOf<"join"> | EffectOf<"commit"> | EffectOf<"leave">,
    isDone: boolean,
  ): readonly SessionEffect[] {
    const problem = new Problem("unavailable", "The disk does not answer");
    switch (pending.type) {
      case "join":
        if (!isDone) return this.script.step({ type: "openFailed", ref: pending.ref, problem });
        this.#joined.push(pending.ref);
        return this.script.step({ type: "joined", ref: pending.ref, result: joinResult() });
      case "commit":
        if (isDone) return this.script.commit(pending);
        return this.script.step({
          type: "commitFailed",
          ref: pending.ref,
          id: pending.id,
          acks: pending.acks,
          problem,
        });
      case "leave":
        if (!pending.answer) return [];
        return this.script.step({ type: "left", ...pending.answer, ...(isDone ? {} : { problem }) });
    }
  }

  end(which: number, reason: "replaced" | "expired"): void {
    const ref = pick(this.#joined, which);
    if (ref) this.#see(this.script.step({ type: "ended", ref, reason }));
  }

  #see(effects: readonly SessionEffect[]): void {
    for (const effect of effects) {
      if (effect.type === "join" || effect.type === "commit" || effect.type === "leave")
        this.#pending.push(effect);
    }
    for (const frame of framesOf(effects)) {
      if ("id" in frame && typeof frame.id === "number") this.answersById.get(frame.id)?.push(frame);
    }
  }
}

test("every frame with an id has exactly one answer, however joins, commits and leaves end", () => {
  const name = fc.constantFrom("s1", "s2");
  const type = fc.constantFrom(
    "subscribe" as const,
    "subscribe" as const,
    "ack" as const,
    "unsubscribe" as const,
    "pong" as const,
    "refused" as const,
  );
  const move = fc.oneof(
    {
      weight: 3,
      arbitrary: fc.tuple(type, name).map((args) => (c: Correspondence) => c.frame(...args)),
    },
    {
      weight: 3,
      arbitrary: fc.tuple(fc.nat(5), fc.boolean()).map((args) => (c: Correspondence) => c.settle(...args)),
    },
    {
      weight: 1,
      arbitrary: fc
        .tuple(fc.nat(5), fc.constantFrom("replaced" as const, "expired" as const))
        .map((args) => (c: Correspondence) => c.end(...args)),
    },
  );
  const property = fc.property(fc.array(move, { maxLength: 40 }), (moves) => {
    const correspondence = new Correspondence();
    for (const make of moves) make(correspondence);
    while (correspondence.settle(0, true));
    for (const [id, answers] of correspondence.answersById) {
      expect(`${id}: ${answers.length}`).toBe(`${id}: 1`);
    }
  });
  fc.assert(property, { numRuns: 500 });
});
