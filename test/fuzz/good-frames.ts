// Good frames of every type that a client sends, in all their variants: what the mutations begin with.

import type { AckEntry } from "../../src/protocol/frames.ts";
import type { Dice } from "../support/dice.ts";

/** What a client of a server knows: the names that are there, and what it was told last. */
export interface Facts {
  readonly topics: readonly string[];
  readonly partitionCount: number;
  readonly groups: readonly string[];
  readonly subscriptions: readonly string[];
  readonly memberIds: readonly string[];
  readonly producers: readonly string[];
  /** As in the last frames of records. */
  readonly acks: readonly AckEntry[];
}

export const NO_FACTS: Facts = {
  topics: ["orders", "refunds", "nowhere"],
  partitionCount: 3,
  groups: ["billing", "audit"],
  subscriptions: ["default", "s1", "s2"],
  memberIds: ["m-1", "b2c7e0a4-9d6f-4f7e-8a51-0c9d7f1e2a33"],
  producers: ["p1", "p2"],
  acks: [{ topic: "orders", partition: 0, generation: 3, offset: 543 }],
};

export type GoodFrame = Readonly<Record<string, unknown>> & { readonly type: string };

export function goodFrame(dice: Dice, facts: Facts): GoodFrame {
  return withId(dice, dice.weighted(KINDS)(new Maker(dice, facts)));
}

function withId(dice: Dice, frame: GoodFrame): GoodFrame {
  if (dice.oneIn(8)) return frame;
  return { id: dice.oneIn(2) ? dice.below(1_000_000) : `id ${dice.below(1_000)} “ü”`, ...frame };
}

const KINDS: readonly (readonly [number, (make: Maker) => GoodFrame])[] = [
  [1, () => ({ type: "auth", token: "secret" })],
  [4, (make) => make.member()],
  [3, (make) => make.reader()],
  [5, (make) => make.ack()],
  [2, (make) => ({ type: "release", ...make.partitions() })],
  [4, (make) => make.seek()],
  [2, (make) => ({ type: "pause", ...make.partitions() })],
  [2, (make) => ({ type: "resume", ...make.partitions() })],
  [5, (make) => make.produce()],
  [4, (make) => make.transact()],
  [3, (make) => ({ type: "unsubscribe", ...make.subscription() })],
  [2, () => ({ type: "pong" })],
];

class Maker {
  readonly #dice: Dice;
  readonly #facts: Facts;

  constructor(dice: Dice, facts: Facts) {
    this.#dice = dice;
    this.#facts = facts;
  }

  subscription() {
    return this.#dice.oneIn(3) ? {} : { subscription: this.#dice.pick(this.#facts.subscriptions) };
  }

  partitions() {
    const count = 1 + this.#dice.below(2);
    return { ...this.subscription(), partitions: this.#list(count, () => this.#partition()) };
  }

  member(): GoodFrame {
    const dice = this.#dice;
    const ack = dice.pick<object>([
      {},
      { ack: "none" },
      { ack: "manual" },
      { ack: "manual", ackTimeoutMs: 60_000 },
    ]);
    return {
      type: "subscribe",
      ...this.subscription(),
      topics: this.#topics(),
      group: dice.pick(this.#facts.groups),
      ...ack,
      ...dice.some({
        reset: dice.pick<unknown>([
          this.#policy(),
          { missing: this.#policy() },
          { outOfRange: this.#policy() },
        ]),
        window: this.#window(),
        sessionTimeoutMs: 6_000 + dice.below(60_000),
      }),
      ...(dice.oneIn(4) ? { instanceId: dice.pick(["tab-7", "tab-8"]) } : {}),
      ...(dice.oneIn(4) ? { memberId: dice.pick(this.#facts.memberIds) } : {}),
    };
  }

  reader(): GoodFrame {
    const dice = this.#dice;
    const topics = this.#topics();
    const starts = topics.map((topic) => ({ topic, partition: 0, offset: dice.below(3) }));
    return {
      type: "subscribe",
      ...this.subscription(),
      topics,
      from: dice.oneIn(3)
        ? starts
        : dice.pick<unknown>(["earliest", "latest", { ago: 1_000 }, { offset: 0 }]),
      ...dice.some({ ack: dice.pick(["manual", "none"]), window: this.#window() }),
      ...(dice.oneIn(4) ? { reset: { outOfRange: this.#policy() } } : {}),
    };
  }

  ack(): GoodFrame {
    const offsets = this.#list(1 + this.#dice.below(3), () => this.#ackEntry());
    return { type: "ack", ...this.subscription(), offsets };
  }

  seek(): GoodFrame {
    const dice = this.#dice;
    const to = dice.pick<unknown>([
      "earliest",
      "latest",
      "current",
      { offset: dice.below(20) },
      { timestamp: 1_740_830_400_000 },
      { ago: dice.below(60_000) },
      { shift: dice.below(21) - 10 },
    ]);
    return { type: "seek", ...this.subscription(), ...this.#partition(), to };
  }

  produce(): GoodFrame {
    const dice = this.#dice;
    return {
      type: "produce",
      topic: dice.pick(this.#facts.topics),
      records: this.#records(),
      ...(dice.oneIn(4) ? { producer: this.#producer() } : {}),
      ...(dice.oneIn(8) ? { expect: [{ partition: 0, logEndOffset: dice.below(50) }] } : {}),
    };
  }

  transact(): GoodFrame {
    const dice = this.#dice;
    const { topic, partition } = this.#partition();
    const commits = { group: dice.pick(this.#facts.groups), offsets: [this.#ackEntry()] };
    return {
      type: "transact",
      appends: this.#topics().map((name) => ({ topic: name, records: this.#records() })),
      ...(dice.oneIn(3) ? { commits } : {}),
      ...(dice.oneIn(4) ? { producer: this.#producer() } : {}),
      ...(dice.oneIn(8) ? { expect: [{ topic, partition, logEndOffset: dice.below(50) }] } : {}),
    };
  }

  #topics(): readonly string[] {
    const { topics } = this.#facts;
    const first = this.#dice.pick(topics);
    return this.#dice.oneIn(2) ? [first] : [first, ...topics.filter((topic) => topic !== first).slice(0, 1)];
  }

  #partition() {
    return {
      topic: this.#dice.pick(this.#facts.topics),
      partition: this.#dice.below(this.#facts.partitionCount),
    };
  }

  #ackEntry(): AckEntry {
    const { generation, offset, ...partition } = this.#dice.pick(this.#facts.acks);
    return { ...partition, generation, offset, ...(this.#dice.oneIn(4) ? { metadata: "line 7" } : {}) };
  }

  #producer() {
    return {
      id: this.#dice.pick(this.#facts.producers),
      epoch: this.#dice.below(3),
      sequence: this.#dice.below(8),
    };
  }

  #policy(): unknown {
    return this.#dice.pick<unknown>(["earliest", "latest", "none", { ago: 60_000 }, { timestamp: 0 }]);
  }

  #window(): object {
    return this.#dice.some({
      records: 1 + this.#dice.below(100),
      bytes: 65_536 + this.#dice.below(65_536),
    });
  }

  #records(): readonly object[] {
    return this.#list(1 + this.#dice.below(3), () => this.#record());
  }

  #record(): object {
    const dice = this.#dice;
    return {
      ...(dice.oneIn(5) ? { bytes: "AAECAwQFBgcICQ==" } : { value: dice.pick(VALUES) }),
      ...dice.some({ key: dice.pick(["u1", "ключ", null]), headers: { trace: "9f2c", "": "" } }),
      ...(dice.oneIn(4) ? { partition: dice.below(this.#facts.partitionCount) } : {}),
      ...(dice.oneIn(4) ? { timestamp: 1_740_830_400_000 + dice.below(1_000) } : {}),
    };
  }

  #list<T>(count: number, make: () => T): readonly T[] {
    return Array.from({ length: count }, make);
  }
}

const VALUES: readonly unknown[] = [
  null,
  true,
  0,
  -1.5,
  "text with \u0000, \ud83d\ude00 and \ud800",
  [],
  {},
  [[1, [2, [3]]]],
  { order: 17, lines: [{ item: "a", price: 9.95 }], __proto__: null },
];
