// Browser-safe. The ways to go through what a subscription brings: batch by batch, record by record, or by a handler with
// partitions side by side. What a schema does not allow goes to the error path on the way.

import { REVOKE_DEADLINE_MS } from "../../src/protocol/limits.ts";
import { Batch, type BatchOf, type ConsumedRecord, type PlacedRecord, type RecordOf } from "./batch.ts";
import { SchemaViolationError, TidemarkError } from "./errors.ts";
import type { Platform } from "./platform.ts";
import type { Subscription } from "./subscription.ts";
import type { ValueCheck } from "./topics.ts";

/** How often a handler is called for one record, and how long is waited between. */
export interface RetryOptions {
  /** In all; 1 by default: no retries. */
  readonly attempts?: number | undefined;
  /** The longest wait before the second attempt; it doubles from one to the next, with full jitter. 100 by default. */
  readonly backoffMs?: number | undefined;
}

export interface RunOptions {
  /** Handlers at the same time, each with a partition of its own. 16 by default. */
  readonly concurrency?: number | undefined;
}

/** What a handler gets beside the record. */
export interface HandlerContext<Values> {
  /** Aborts when the partition is lost: stop, and write nothing more. */
  readonly signal: AbortSignal;
  /** Where the record is from: to acknowledge by hand, or to commit in a transaction. */
  readonly batch: BatchOf<Values>;
  /** From 1. */
  readonly attempt: number;
}

export type Handler<Values> = (record: RecordOf<Values>, context: HandlerContext<Values>) => unknown;

export interface BatchSourceOptions {
  readonly subscription: Subscription;
  readonly platform: Platform;
  readonly group: string | undefined;
  readonly signal: AbortSignal | undefined;
  /** Whether going on from a batch means that it is done. */
  readonly acksWhenDone: boolean;
  readonly deadLetter: string | undefined;
  readonly retry: RetryOptions | undefined;
  readonly checkOf: (topic: string) => ValueCheck | undefined;
  /** What becomes of a record that its schema does not allow, where there is no dead-letter topic. */
  readonly onInvalid: ((record: PlacedRecord, error: SchemaViolationError) => void) | undefined;
}

const CONCURRENCY_DEFAULT = 16;
const RETRY_BACKOFF_MS = 100;

export class BatchSource<Values> {
  readonly #options: BatchSourceOptions;
  readonly #close = () => void this.close();
  #running: Promise<unknown> = Promise.resolve();

  constructor(options: BatchSourceOptions) {
    this.#options = options;
    const { signal } = options;
    if (signal?.aborted) void this.close();
    signal?.addEventListener("abort", this.#close);
  }

  /** A batch is done when the next one is asked for. */
  async *batches(): AsyncGenerator<BatchOf<Values>, void, undefined> {
    try {
      for (let batch = await this.#next(); batch; batch = await this.#next()) {
        yield batch as BatchOf<Values>; // the subscription has no other topics
        this.#finish(batch, true);
      }
      this.#options.signal?.throwIfAborted();
    } finally {
      await this.close();
    }
  }

  /** A record is done when the next one is asked for. */
  async *records(): AsyncGenerator<RecordOf<Values>, void, undefined> {
    for await (const batch of this.batches() as AsyncIterable<Batch>) {
      for (const record of batch.records) {
        if (batch.signal.aborted) break;
        yield batch.place(record) as RecordOf<Values>; // nor its batches
        this.#advance(batch, record);
      }
    }
  }

  /** Until it is closed; rejects with what a handler threw as often as it may. */
  async run(handler: Handler<Values>, { concurrency = CONCURRENCY_DEFAULT }: RunOptions = {}): Promise<void> {
    const lanes = Array.from({ length: concurrency }, () => this.#work(handler));
    this.#running = Promise.allSettled(lanes);
    await this.#running;
    await this.close();
    await Promise.all(lanes);
    this.#options.signal?.throwIfAborted();
  }

  /**
   * Takes nothing more, lets handlers finish the record that they have (for 5 s at most), acknowledges what is done and
   * leaves the group. What a loop has in hand stays unacknowledged.
   */
  async close(): Promise<void> {
    const { subscription, platform, signal } = this.#options;
    signal?.removeEventListener("abort", this.#close); // it may outlive many consumers
    subscription.stopTaking();
    await new Promise<unknown>((resolve) => {
      const stop = platform.startTimer(REVOKE_DEADLINE_MS, () => resolve(undefined));
      void this.#running.then(resolve).finally(stop);
    });
    await subscription.close();
  }

  async #work(handler: Handler<Values>): Promise<void> {
    try {
      for (let batch = await this.#next(); batch; batch = await this.#next()) {
        let isDone = false;
        try {
          isDone = await this.#handleAll(batch, handler);
        } finally {
          this.#finish(batch, isDone);
        }
      }
    } finally {
      this.#options.subscription.stopTaking(); // the others too
    }
  }

  async #next(): Promise<Batch | undefined> {
    const { subscription, group, deadLetter, checkOf } = this.#options;
    for (;;) {
      const taken = await subscription.take();
      if (!taken) return undefined;
      const batch = new Batch({ subscription, group, deadLetter, ...taken });
      const check = checkOf(batch.topic);
      if (check) await this.#keepValid(batch, check);
      // Who acknowledges by hand has to see an empty one too, or nothing frees the room that it takes up.
      if (batch.records.length > 0 || !this.#options.acksWhenDone) return batch;
      this.#finish(batch, true);
    }
  }

  async #keepValid(batch: Batch, check: ValueCheck): Promise<void> {
    const valid: ConsumedRecord[] = [];
    for (const record of batch.records) {
      const value = await check(record.value);
      if (value instanceof SchemaViolationError) this.#handleInvalid(batch, record, value);
      else valid.push({ ...record, value });
    }
    batch.records = valid;
  }

  #handleInvalid(batch: Batch, record: ConsumedRecord, error: SchemaViolationError): void {
    if (this.#options.deadLetter !== undefined) batch.deadLetter(record, error);
    this.#options.onInvalid?.(batch.place(record), error);
  }

  /** Whether it went through: a batch that was lost, or left because it is to stop, is not done. */
  async #handleAll(batch: Batch, handler: Handler<Values>): Promise<boolean> {
    const { subscription } = this.#options;
    for (const record of batch.records) {
      if (batch.signal.aborted || subscription.isLeaving) return batch.signal.aborted;
      const failure = await this.#tryHandler(batch, record, handler);
      if (batch.signal.aborted) return true; // somebody else has it: there is nothing to acknowledge
      if (failure) this.#handleFailure(batch, record, failure);
      this.#advance(batch, record);
    }
    return true;
  }

  async #tryHandler(
    batch: Batch,
    record: ConsumedRecord,
    handler: Handler<Values>,
  ): Promise<{ readonly cause: unknown } | undefined> {
    const { attempts = 1, backoffMs: pauseMs = RETRY_BACKOFF_MS } = this.#options.retry ?? {};
    const { signal } = batch;
    for (let attempt = 1; ; attempt++) {
      try {
        await handler(batch.place(record) as RecordOf<Values>, {
          signal,
          batch: batch as BatchOf<Values>,
          attempt,
        }); // as above
        return undefined;
      } catch (cause) {
        if (attempt >= attempts || signal.aborted) return { cause };
        await this.#pause(pauseMs * 2 ** (attempt - 1), signal);
        if (signal.aborted) return { cause };
      }
    }
  }

  #pause(longestMs: number, signal: AbortSignal): Promise<void> {
    const { platform } = this.#options;
    return new Promise((resolve) => {
      const go = () => {
        stop();
        signal.removeEventListener("abort", go);
        resolve();
      };
      const stop = platform.startTimer(longestMs * platform.random(), go);
      signal.addEventListener("abort", go);
    });
  }

  #handleFailure(batch: Batch, record: ConsumedRecord, { cause }: { readonly cause: unknown }): void {
    if (this.#options.deadLetter !== undefined) return batch.deadLetter(record, cause);
    const { topic, partition } = batch;
    const { offset } = record;
    const why = `The handler failed at topic "${topic}" partition ${partition} offset ${offset}: ${cause}. It is not acknowledged: mend the handler, or name a deadLetter topic`;
    throw new TidemarkError("handler_failed", why, { cause, facts: { topic, partition, offset } });
  }

  #advance({ tenure }: Batch, { offset }: ConsumedRecord): void {
    if (this.#options.acksWhenDone) this.#options.subscription.advance(tenure, offset + 1);
  }

  #finish({ tenure, next }: Batch, isDone: boolean): void {
    const { subscription, acksWhenDone } = this.#options;
    subscription.finish(tenure, isDone && acksWhenDone ? next : undefined);
  }
}
