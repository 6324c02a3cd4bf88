// A connection and a server for a producer, as PROTOCOL.md says what they do, without a network: whatever can come late,
// twice, in another order or not at all, does so when the dice say it. Time is moved by hand.

import { errorOf, type TidemarkError } from "../../clients/typescript/errors.ts";
import type { AnswerListener, LinkListener } from "../../clients/typescript/link.ts";
import type { ProducerLink, ProducerPlatform } from "../../clients/typescript/producer.ts";
import type { ProducerSequence, Run } from "../../src/protocol/frames.ts";
import type { Dice } from "../support/dice.ts";

export interface SentRecord {
  readonly value: { readonly send: number; readonly isBad?: boolean };
}

export interface SentFrame {
  readonly type: string;
  readonly id: number;
  readonly topic: string;
  readonly records: readonly SentRecord[];
  readonly producer?: ProducerSequence;
}

interface UnderWay {
  readonly frame: SentFrame;
  readonly onAnswer: AnswerListener;
}

interface Known {
  epoch: number;
  next: number;
  answers: (readonly Run[])[];
}

type Trouble = "unavailable" | "rate_limited" | "storage_full" | "outcome_unknown" | "internal";

export class ProducerWorld {
  readonly dice: Dice;
  readonly logs = new Map<string, SentRecord[]>();
  readonly frames: SentFrame[] = [];
  /** How often each kind of trouble came: a model in which nothing happens proves nothing. */
  readonly seen = new Map<string, number>();
  /** The next frames come to this. */
  troubles: Trouble[] = [];
  isUp = true;
  #producers = new Map<string, Known>();
  #underWay: UnderWay[] = [];
  #answered: (() => void)[] = [];
  /** Of connections that are lost: the server may still come to them. */
  #late: SentFrame[] = [];
  #asked = new Set<AnswerListener>();
  #listener: LinkListener = {};
  #timers: { at: number; callback: () => void }[] = [];
  #now = 0;
  #lastId = 0;

  constructor(dice: Dice) {
    this.dice = dice;
  }

  readonly platform: ProducerPlatform = {
    startTimer: (delayMs, callback) => {
      const timer = { at: this.#now + delayMs, callback };
      this.#timers.push(timer);
      return () => {
        this.#timers = this.#timers.filter((each) => each !== timer);
      };
    },
    random: () => this.dice.random(),
    createId: () => "p",
  };

  get link(): ProducerLink {
    const world = this;
    return {
      get isUp() {
        return world.isUp;
      },
      end: undefined,
      listen: (listener) => {
        world.#listener = listener;
        return () => {};
      },
      ask: (write, onAnswer) => world.#ask(write, onAnswer),
    };
  }

  get isIdle(): boolean {
    return this.#underWay.length + this.#answered.length === 0;
  }

  /** The server comes to the next frame of this connection. */
  process(): void {
    const next = this.#underWay.shift();
    if (!next) return;
    const answer = this.#judge(next.frame);
    this.#answered.push(() => this.#asked.delete(next.onAnswer) && next.onAnswer(answer));
  }

  /** Any that is there: they come as they are durable. */
  deliver(): void {
    const [deliver] = this.#answered.splice(this.dice.below(this.#answered.length), 1);
    deliver?.();
  }

  /** What was sent and not come to may yet be, in its order; what was answered and not delivered never is. */
  cut(): void {
    if (!this.isUp) return;
    this.#count("cut");
    this.isUp = false;
    this.#late = this.#underWay.map(({ frame }) => frame);
    this.#underWay = [];
    this.#answered = [];
    const asked = [...this.#asked];
    this.#asked.clear();
    for (const onAnswer of asked) onAnswer(errorOf("connection_lost", "lost"));
    this.#listener.onDown?.();
  }

  connect(): void {
    if (this.isUp) return;
    this.isUp = true;
    this.#listener.onUp?.();
  }

  processLate(): void {
    const frame = this.#late.shift();
    if (frame && !("code" in this.#judge(frame))) this.#count("late");
  }

  /** As after seven idle days: nothing is under way any more. */
  forget(): void {
    if (this.#asked.size > 0 || this.#late.length > 0) return;
    this.#count("forget");
    this.#producers.clear();
  }

  advance(): void {
    const next = this.#timers.toSorted((a, b) => a.at - b.at)[0];
    if (!next) return;
    this.#timers = this.#timers.filter((each) => each !== next);
    this.#now = next.at;
    next.callback();
  }

  #ask(write: (id: number) => string, onAnswer: AnswerListener): void {
    if (!this.isUp) throw new Error("asked while there is no connection");
    this.#lastId += 1;
    const frame: SentFrame = JSON.parse(write(this.#lastId));
    this.frames.push(frame);
    this.#asked.add(onAnswer);
    this.#underWay.push({ frame, onAnswer });
  }

  #judge(frame: SentFrame) {
    const trouble = this.troubles.shift();
    if (!trouble) return this.#write(frame);
    this.#count(trouble);
    const mayBeWritten = trouble === "outcome_unknown" || trouble === "internal";
    if (mayBeWritten && this.dice.oneIn(2)) this.#write(frame);
    return errorOf(trouble, trouble);
  }

  #write({ producer, topic, records }: SentFrame) {
    const known = producer && this.#producers.get(producer.id);
    if (producer && known && known.epoch === producer.epoch && producer.sequence < known.next) {
      this.#count("duplicate");
      const runs = known.answers[producer.sequence - known.next + 16] ?? [];
      return { type: "produced", runs, duplicate: true } as const;
    }
    const refusal = this.#refuse(producer, known) ?? this.#refuseRecords(records);
    if (refusal) return refusal;
    const log = this.logs.get(topic) ?? [];
    const runs: Run[] = [{ partition: 0, offset: log.length, count: records.length }];
    this.logs.set(topic, [...log, ...records]);
    if (producer) this.#remember(producer, known, runs);
    return { type: "produced", runs } as const;
  }

  #refuse(producer: ProducerSequence | undefined, known: Known | undefined): TidemarkError | undefined {
    if (!producer) return undefined;
    if (known && producer.epoch < known.epoch) return errorOf("fenced_producer", "fenced");
    const expected = known?.epoch === producer.epoch ? known.next : 0;
    if (producer.sequence === expected) return undefined;
    this.#count("sequence_gap");
    return errorOf("sequence_gap", "gap", { facts: { expected, found: producer.sequence } });
  }

  #refuseRecords(records: readonly SentRecord[]): TidemarkError | undefined {
    const record = records.findIndex(({ value }) => value.isBad);
    if (record === -1) return undefined;
    this.#count("refused");
    const isNamed = records[record]?.value.send !== undefined && this.dice.oneIn(2);
    const facts = isNamed ? { record } : {};
    return errorOf("schema_violation", `Cannot produce records[${record}]`, { facts });
  }

  #remember({ id, epoch, sequence }: ProducerSequence, known: Known | undefined, runs: readonly Run[]): void {
    const answers = known?.epoch === epoch ? known.answers : Array.from({ length: 16 }, () => []);
    this.#producers.set(id, { epoch, next: sequence + 1, answers: [...answers.slice(1), runs] });
  }

  #count(what: string): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + 1);
  }
}
