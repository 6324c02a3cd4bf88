// Browser-safe. Says what was done. Acks are gathered: at most two frames of them are on their way, and the next one has
// all that was done meanwhile. An ack names the generation that there is; one that was lost with its connection is made
// anew from what is committed then, and never sent again.

import type { AckEntry, ClientFrame } from "../../src/protocol/frames.ts";
import { ACK_ENTRIES_MAX } from "../../src/protocol/limits.ts";
import { errorOf, TidemarkError } from "./errors.ts";
import type { Answer, AnswerListener } from "./link.ts";
import type { Platform } from "./platform.ts";
import {
  type DeadLetter,
  findAckable,
  keyOf,
  noteCommitted,
  pass,
  type Tenure,
  takeWaiters,
} from "./tenure.ts";

/** When what was done is acknowledged: at once, or when so much or so long was done. */
export interface AckPace {
  readonly everyMs?: number | undefined;
  readonly everyRecords?: number | undefined;
}

/** Writes these records to another topic and commits `offset`, in one transaction. */
export type Bury = (tenure: Tenure, letters: readonly DeadLetter[], offset: number) => Promise<unknown>;

/** What it needs of its subscription. */
export interface AckSenderOptions {
  readonly platform: Platform;
  readonly pace: AckPace;
  readonly bury: Bury | undefined;
  /** Whether the server would take an ack now. */
  readonly isOpen: () => boolean;
  /** Whether somebody waits for it, whatever the pace. */
  readonly isUrgent: (tenure: Tenure) => boolean;
  readonly send: (type: ClientFrame["type"], members: object, onAnswer: AnswerListener) => void;
  /** Calls it after a pause that grows from one to the next, until `succeed`. */
  readonly retry: (again: () => void) => void;
  readonly succeed: () => void;
  /** More of it is durable. */
  readonly settled: (tenure: Tenure) => void;
  readonly trouble: (error: TidemarkError) => void;
  readonly fail: (error: TidemarkError) => void;
}

interface SentAck extends AckEntry {
  readonly tenure: Tenure;
}

/** One that is being written, and one that is read meanwhile. */
const IN_FLIGHT_MAX = 2;

export class AckSender {
  readonly #options: AckSenderOptions;
  /** Those of which more was done than acknowledged. */
  readonly #dirty = new Set<Tenure>();
  #inFlight = 0;
  #recordsDone = 0;
  /** A flush had to wait for an answer. */
  #isFlushDue = false;
  #stopPace: (() => void) | undefined;

  constructor(options: AckSenderOptions) {
    this.#options = options;
  }

  /** Everything of the partition below `offset` is done. */
  advance(tenure: Tenure, offset: number): void {
    const before = Math.min(tenure.processed, tenure.passed);
    if (tenure.isLost || offset <= before) return;
    this.#recordsDone += offset - before;
    pass(tenure, offset);
    this.touch(tenure);
  }

  /** There may be something to say of it. */
  touch(tenure: Tenure): void {
    this.add(tenure);
    const { pace, platform, isUrgent } = this.#options;
    const { everyMs, everyRecords = Infinity } = pace;
    if (everyMs === undefined || this.#recordsDone >= everyRecords || isUrgent(tenure)) return this.flush();
    this.#stopPace ??= platform.startTimer(everyMs, () => this.flush());
  }

  /** The same, for the next flush. */
  add(tenure: Tenure): void {
    this.#dirty.add(tenure);
  }

  /** Nobody wants to hear more of it. */
  forget(tenure: Tenure): void {
    this.#dirty.delete(tenure);
  }

  /** Sends what was done and not yet acknowledged. */
  flush(): void {
    this.#isFlushDue = !this.#options.isOpen() || this.#inFlight >= IN_FLIGHT_MAX;
    if (this.#isFlushDue) return;
    this.stop();
    this.#recordsDone = 0;
    const sent = new Map<string, SentAck>();
    for (const tenure of this.#dirty) {
      if (sent.size === ACK_ENTRIES_MAX) break;
      this.forget(tenure);
      const offset = findAckable(tenure);
      if (offset === undefined) continue;
      if (tenure.deadLetters.some(({ record }) => record.offset < offset)) void this.#bury(tenure, offset);
      else sent.set(keyOf(tenure), ackOf(tenure, offset));
    }
    if (sent.size > 0) this.#send(sent);
  }

  /** Everything of the partition below `offset` is durable. */
  settle(tenure: Tenure, offset: number): void {
    noteCommitted(tenure, offset);
    this.#options.settled(tenure);
  }

  /** Takes back what is to be sent later. */
  stop(): void {
    this.#stopPace?.();
    this.#stopPace = undefined;
  }

  #send(sent: ReadonlyMap<string, SentAck>): void {
    const offsets = [...sent.values()].map(({ tenure: _, ...entry }) => entry);
    this.#inFlight += 1;
    this.#options.send("ack", { offsets }, (answer) => {
      this.#inFlight -= 1;
      this.#handleAnswer(sent, answer);
      if (this.#isFlushDue) this.flush();
    });
  }

  #handleAnswer(sent: ReadonlyMap<string, SentAck>, answer: Answer | TidemarkError): void {
    if (answer instanceof TidemarkError) return this.#handleError(sent, answer);
    if (answer.type !== "acked") return;
    this.#options.succeed();
    for (const { topic, partition, offset, code } of answer.offsets) {
      const entry = sent.get(keyOf({ topic, partition }));
      if (!entry || entry.tenure.generation !== entry.generation) continue; // another `assigned` has said more
      if (code === undefined) this.settle(entry.tenure, Math.max(offset ?? 0, entry.offset));
      else this.#refuse(entry, errorOf(code, `${refusalOf(entry)}: ${code}. ${ADVICE_AT_LOSS}`));
    }
  }

  #refuse({ tenure, offset }: SentAck, error: TidemarkError): void {
    tenure.askedNow = 0;
    for (const { settle } of takeWaiters(tenure, (waiter) => waiter.offset <= offset)) settle(error);
    this.#options.trouble(error);
  }

  #handleError(sent: ReadonlyMap<string, SentAck>, error: TidemarkError): void {
    if (error.code === "connection_lost") return; // the next `assigned` says what became of it
    if (!error.retriable) {
      for (const entry of sent.values()) this.#refuse(entry, error);
      return;
    }
    this.#options.trouble(error);
    for (const { tenure, offset } of sent.values()) {
      tenure.askedNow = 0;
      if (tenure.freed === offset) tenure.freed = 0; // else it has moved: where to, nobody is done with
      this.add(tenure);
    }
    this.#options.retry(() => this.flush());
  }

  async #bury(tenure: Tenure, offset: number): Promise<void> {
    const letters = tenure.deadLetters.filter(({ record }) => record.offset < offset);
    tenure.isInTransaction = true;
    tenure.deadLetters = tenure.deadLetters.filter((letter) => !letters.includes(letter));
    tenure.asked = Math.max(tenure.asked, offset);
    const error = await this.#options.bury?.(tenure, letters, offset).then(() => undefined, toError);
    tenure.isInTransaction = false;
    if (tenure.isLost) return; // the next owner gets the records
    if (error) return this.#options.fail(error);
    this.settle(tenure, offset);
    this.add(tenure);
    this.flush();
  }
}

/** What to do with what is in hand of a partition that somebody else has. */
export const ADVICE_AT_LOSS = "Drop what you have of it: its owner gets it from the committed offset";

function refusalOf({ topic, partition, offset }: SentAck): string {
  return `Cannot commit offset ${offset} of topic "${topic}" partition ${partition}`;
}

function ackOf(tenure: Tenure, offset: number): SentAck {
  const { topic, partition, generation, metadata } = tenure;
  tenure.asked = Math.max(tenure.asked, offset);
  tenure.askedNow = Math.max(tenure.askedNow, offset);
  tenure.freed = tenure.passed;
  tenure.metadata = undefined;
  return { topic, partition, generation, offset, tenure, ...(metadata === undefined ? {} : { metadata }) };
}

function toError(error: unknown): TidemarkError {
  return error instanceof TidemarkError ? error : errorOf("internal", String(error), { cause: error });
}
