// Browser-safe. Writes records so that each is written once, in the order in which it was handed over. What is decided
// is in producer-step.ts (the frames under way) and producer-queue.ts (what waits); here it is done.

import { errorOf, TidemarkError } from "./errors.ts";
import type { Answer, Link } from "./link.ts";
import { backoffMs } from "./link-step.ts";
import type { Platform } from "./platform.ts";
import {
  type Draft,
  draftSend,
  draftTransaction,
  frameText,
  type Item,
  refreshCommits,
} from "./producer-item.ts";
import {
  emptyLane,
  type LaneEffect,
  type LaneEvent,
  type LaneFrame,
  type LaneState,
  type Written,
} from "./producer-lane.ts";
import {
  type Produced,
  type ProducerOptions,
  readSettings,
  type SendOptions,
  type Settings,
  type Transacted,
  type Transaction,
} from "./producer-options.ts";
import { ProducerQueue } from "./producer-queue.ts";
import { type ProducerRecord, splitRuns } from "./producer-records.ts";
import { expiredError, hasRoom, stepLane } from "./producer-step.ts";

/** What the server wrote for one frame. */
interface FrameWritten extends Written {
  readonly runs: Produced["runs"];
}

/** What a producer needs of a connection. */
export type ProducerLink = Pick<Link, "isUp" | "end" | "listen" | "ask">;

/** And of the runtime. */
export type ProducerPlatform = Pick<Platform, "startTimer" | "random" | "createId">;

interface Flush {
  readonly left: Set<Item>;
  readonly resolve: () => void;
}

/** Characters; a batch of several sends has no more. At three bytes each it is still below what the server takes. */
const BATCH_LENGTH = 1_000_000;
/** How often it is looked whether a send has been tried for long enough. */
const TICKS_PER_TIMEOUT = 16;

/**
 * Writes to topics. Several may share a connection; each keeps its own order.
 *
 * Sends are numbered, so that after a lost connection, or a server that was killed, they are sent again and written
 * once. A send of several records is written all or none; sends to one topic are written in their order and travel
 * together where they can.
 *
 * What a send or a transaction rejects with is a `TidemarkError` (but for the reason of a signal, and what `commits`
 * throws), whose `code` says what happened:
 * - a refusal, `schema_violation` or `unknown_topic` for one: nothing of it was written;
 * - `unavailable`, or what the server said last: not written, and tried for `deliveryTimeoutMs`;
 * - `outcome_unknown`: it may have been written; `cause` says why it was given up;
 * - `rate_limited`: `bufferBytes` are unanswered, and this was not sent. Wait for earlier ones: `flush()` does;
 * - `fenced_producer` (a `FencedError`), `conflict` that asks for a new epoch, `closed`: this producer has ended. What
 *   was under way when the client was closed may have been written.
 *
 * @example
 * ```ts
 * import { connect } from "@tidemark/client";
 *
 * const tidemark = connect({ url: "http://127.0.0.1:4500" });
 * const producer = tidemark.producer({ lingerMs: 5 });
 * for (const id of ["a", "b", "c"]) {
 *   producer.send("orders", { key: id, value: { id } }).catch((error) => console.error(error.code));
 * }
 * await producer.close();
 * await tidemark.close();
 * ```
 */
export class Producer {
  readonly #onClosed: (producer: Producer) => void;
  readonly #link: ProducerLink;
  readonly #platform: ProducerPlatform;
  readonly #settings: Settings;
  readonly #queue: ProducerQueue<Item>;
  readonly #stopListening: () => void;
  readonly #unsettled = new Set<Item>();
  readonly #flushes = new Set<Flush>();
  #lane: LaneState<Item>;
  #id: string | undefined;
  /** Why nothing more is taken. */
  #refusal: TidemarkError | undefined;
  /** Of the unsettled, in characters. */
  #length = 0;
  #tick = 0;
  /** What waits need not wait for others to go with it. */
  #isRipe = false;
  #stopLinger: (() => void) | undefined;
  #stopPause: () => void = () => {};
  #stopTicking: (() => void) | undefined;

  /** Throws `bad_request` for an option out of its range. */
  /** `onClosed`: it needs not be closed any more. @internal */
  constructor(
    link: ProducerLink,
    platform: ProducerPlatform,
    options: ProducerOptions = {},
    onClosed: (producer: Producer) => void = () => {},
  ) {
    this.#onClosed = onClosed;
    this.#link = link;
    this.#platform = platform;
    this.#settings = readSettings(options);
    const { epoch, batchRecords, id } = this.#settings;
    this.#id = id;
    this.#lane = emptyLane(epoch);
    this.#queue = new ProducerQueue({ batchRecords, batchLength: BATCH_LENGTH });
    this.#refusal = link.end;
    this.#stopListening = link.listen({
      onUp: () => this.#step({ type: "up" }),
      onEnd: (error) => this.#endWith(error),
    });
  }

  /**
   * Resolves when all of these records are on disk. They are read at once: what happens to them later does not matter.
   * At most 10,000 records and 4,000,000 bytes, which are written together or not at all.
   */
  send(
    topic: string,
    records: ProducerRecord | readonly ProducerRecord[],
    options: SendOptions = {},
  ): Promise<Produced> {
    return this.#hand(() => draftSend(topic, records, options), options.signal);
  }

  /**
   * Writes records to topics and commits offsets of a group, all of it or nothing. Resolves when it is on disk. It goes
   * the way of the sends: after those before it, before those behind it, and once.
   */
  transact(transaction: Transaction): Promise<Transacted> {
    const transacted = this.#hand(() => draftTransaction(transaction), undefined);
    return transacted as Promise<Transacted>; // the runs of a transaction name their topics
  }

  /** Resolves when all that was sent before is settled, well or not: each send says that itself. Nothing lingers. */
  flush(): Promise<void> {
    if (this.#unsettled.size === 0) return Promise.resolve();
    this.#ripen();
    return new Promise((resolve) => this.#flushes.add({ left: new Set(this.#unsettled), resolve }));
  }

  /** Takes nothing more (`closed`), and resolves when all that was sent before is settled. */
  async close(): Promise<void> {
    this.#refusal ??= errorOf("closed", "Cannot write: the producer was closed");
    await this.flush();
    this.#stopListening();
    this.#onClosed(this);
  }

  // ── from the user to what waits ────────────────────────────────────────────────────────────────────────

  #hand(draft: () => Draft, signal: AbortSignal | undefined): Promise<Produced> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted(); // what throws here rejects
      if (this.#refusal) throw this.#refusal;
      const item = { ...draft(), tick: this.#tick, resolve, reject, stopListening: () => {} };
      this.#requireRoom(item);
      if (signal) item.stopListening = this.#takeBackAt(signal, item);
      this.#unsettled.add(item);
      this.#length += item.text.length;
      this.#queue.push(item);
      this.#startTicking();
      this.#gather();
    });
  }

  #requireRoom({ text }: Item): void {
    const { bufferBytes } = this.#settings;
    if (this.#length === 0 || this.#length + text.length <= bufferBytes) return;
    const why = `Cannot take ${text.length} characters more: ${this.#length} are unanswered, allowed ${bufferBytes}`;
    throw errorOf("rate_limited", why);
  }

  #takeBackAt(signal: AbortSignal, item: Item): () => void {
    const takeBack = () => {
      if (this.#queue.remove((each) => each === item).length > 0) this.#reject(item, signal.reason);
    };
    signal.addEventListener("abort", takeBack);
    return () => signal.removeEventListener("abort", takeBack);
  }

  #gather(): void {
    const { lingerMs } = this.#settings;
    if (this.#isRipe) return; // the next answer, or the connection, takes it along
    if (lingerMs > 0 && this.#queue.isFull) return this.#ripen();
    if (this.#stopLinger) return;
    if (lingerMs > 0) this.#stopLinger = this.#platform.startTimer(lingerMs, () => this.#ripen());
    else this.#ripenAtEndOfTurn();
  }

  #ripenAtEndOfTurn(): void {
    this.#stopLinger = () => {};
    queueMicrotask(() => this.#ripen());
  }

  #ripen(): void {
    this.#stopLinger?.();
    this.#stopLinger = undefined;
    this.#isRipe = true;
    this.#pump();
  }

  // ── from what waits to the server ──────────────────────────────────────────────────────────────────────

  #pump(): void {
    const { inFlight } = this.#settings;
    while (this.#isRipe && this.#link.isUp && hasRoom(this.#lane, inFlight)) {
      const items = this.#queue.take();
      if (!items) this.#isRipe = false;
      else if (this.#hasCommits(items)) this.#apply({ type: "taken", items });
    }
  }

  /** Before it has a sequence: those behind it would come to nothing. */
  #hasCommits(items: readonly Item[]): boolean {
    const [first] = items;
    try {
      if (first) refreshCommits(first);
      return true;
    } catch (error) {
      for (const item of items) this.#reject(item, error);
      return false;
    }
  }

  #step(event: LaneEvent<Item, FrameWritten>): void {
    this.#apply(event);
    this.#pump();
  }

  #apply(event: LaneEvent<Item, FrameWritten>): void {
    const { idempotent, id } = this.#settings;
    const rules = { isUp: this.#link.isUp, isIdempotent: idempotent, ownId: id };
    const { state, effects } = stepLane(this.#lane, event, rules);
    this.#lane = state;
    for (const effect of effects) this.#perform(effect);
  }

  #perform(effect: LaneEffect<Item, FrameWritten>): void {
    switch (effect.type) {
      case "ask":
        return this.#ask(effect.frame);
      case "resolve":
        return this.#resolve(effect.items, effect.answer);
      case "reject":
        for (const item of effect.items) this.#reject(item, effect.error);
        return;
      case "putBack":
        for (const item of effect.alone) item.isAlone = true;
        this.#queue.putBack(effect.items);
        this.#isRipe = true;
        return;
      case "pause":
        return this.#pause(effect.failures);
      case "end":
        return this.#endWith(effect.error);
    }
  }

  #ask(frame: LaneFrame<Item>): void {
    const [first] = frame.items;
    if (first && frame.attempts > 1) refreshCommits(first);
    this.#link.ask(
      (id) => frameText(frame, { id, producerId: this.#producerId() }),
      (answer) => this.#step({ type: "answered", key: frame.key, answer: readAnswer(answer) }),
    );
  }

  /** Not before it is needed: a Worker has no chance outside of a request. */
  #producerId(): string | undefined {
    if (!this.#settings.idempotent) return undefined;
    this.#id ??= this.#platform.createId();
    return this.#id;
  }

  #pause(failures: number): void {
    this.#stopPause();
    const delayMs = backoffMs(failures, this.#platform.random());
    this.#stopPause = this.#platform.startTimer(delayMs, () => this.#step({ type: "timer" }));
  }

  #startTicking(): void {
    this.#stopTicking ??= this.#platform.startTimer(
      this.#settings.deliveryTimeoutMs / TICKS_PER_TIMEOUT,
      () => {
        this.#stopTicking = undefined;
        this.#tick += 1;
        this.#expire(this.#tick - TICKS_PER_TIMEOUT - 1);
        if (this.#unsettled.size > 0) this.#startTicking();
      },
    );
  }

  #expire(tick: number): void {
    for (const item of this.#queue.remove((each) => each.tick <= tick)) this.#reject(item, expiredError());
    this.#step({ type: "expired", tick });
  }

  // ── and back to the user ───────────────────────────────────────────────────────────────────────────────

  #resolve(items: readonly Item[], { runs, isDuplicate }: FrameWritten): void {
    const duplicate = isDuplicate ? ({ duplicate: true } as const) : {};
    const counts = items.map(({ count }) => count);
    const own = items.length === 1 ? [runs] : splitRuns(runs, counts);
    for (const [index, item] of items.entries()) {
      item.resolve({ runs: own[index] ?? [], ...duplicate });
      this.#forget(item);
    }
  }

  #reject(item: Item, reason: unknown): void {
    item.reject(reason);
    this.#forget(item);
  }

  #forget(item: Item): void {
    item.stopListening();
    this.#unsettled.delete(item);
    this.#length -= item.text.length;
    for (const flush of this.#flushes) {
      flush.left.delete(item);
      if (flush.left.size > 0) continue;
      this.#flushes.delete(flush);
      flush.resolve();
    }
    if (this.#unsettled.size > 0) return;
    this.#stopTicking?.();
    this.#stopTicking = undefined;
  }

  #endWith(error: TidemarkError): void {
    this.#refusal ??= error;
    this.#lane = { ...this.#lane, frames: [], end: error };
    this.#queue.remove(() => true);
    this.#stopLinger?.();
    this.#stopPause();
    this.#stopListening();
    for (const item of this.#unsettled) this.#reject(item, error);
  }
}

function readAnswer(answer: Answer | TidemarkError): FrameWritten | TidemarkError {
  if (answer instanceof TidemarkError) return answer;
  if (answer.type === "produced" || answer.type === "transacted")
    return { runs: answer.runs, isDuplicate: answer.duplicate === true };
  return errorOf("internal", `The server answered a write with "${answer.type}"`);
}
