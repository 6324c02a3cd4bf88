// Browser-safe. A client that consumes, and nothing else: for pages that count every byte.

import { type ConsumeOptions, Consumer, type Surroundings, type TransactDeadLetters } from "./consumer.ts";
import { Emitter } from "./emitter.ts";
import type { TidemarkError } from "./errors.ts";
import { Link, type Status, type TokenSource } from "./link.ts";
import { PLATFORM, type Platform } from "./platform.ts";
import { readServerUrl, type ServerUrl } from "./server-url.ts";
import { closedError } from "./subscription.ts";
import {
  type AnyTopics,
  type CheckedValueOf,
  createCheck,
  listOf,
  type TopicDefinitions,
  type TopicName,
  type ValueCheck,
  type ValueOf,
} from "./topics.ts";

export type { Batch, BatchOf, ConsumedRecord, PlacedRecord, RecordOf } from "./batch.ts";
export type { Handler, HandlerContext, RetryOptions, RunOptions } from "./batch-source.ts";
export type { ConsumeOptions, Consumer, ConsumerEvents, OwnedPartition } from "./consumer.ts";
export { ConnectionClosedError, FencedError, SchemaViolationError, TidemarkError } from "./errors.ts";
export type { Status, TokenSource } from "./link.ts";
export { defineTopics, type StandardSchema, type TopicDefinitions } from "./topics.ts";

export interface ConnectOptions<Topics, IsChecked extends boolean> {
  /** Of the server, as in `http://127.0.0.1:4500`. */
  readonly url: string | URL;
  /** Or what fetches one: asked anew for each connection. */
  readonly token?: TokenSource | undefined;
  /** Closes the client. */
  readonly signal?: AbortSignal | undefined;
  /** By `defineTopics`: then topics and their values have types. */
  readonly topics?: Topics | undefined;
  /** Whether values are checked against the schemas of `topics`, before they are produced and when they are consumed. */
  readonly check?: IsChecked | undefined;
  /** Of tests: time, chance and sockets. @internal */
  readonly platform?: Platform | undefined;
}

export interface ClientEvents {
  readonly status: Status;
  /** Why a connection was not made, or was lost. It is tried again. */
  readonly trouble: TidemarkError;
  /** It will not be tried again. */
  readonly end: TidemarkError;
}

/** What one consumes of these topics. */
export type ValuesOf<Topics, Name extends string, IsChecked> = {
  readonly [Topic in Name]: IsChecked extends true ? CheckedValueOf<Topics, Topic> : ValueOf<Topics, Topic>;
};

interface Closable {
  close(): Promise<void>;
}

/** Connects when it is first used, and again whenever it has to. */
export class ConsumerClient<Topics extends TopicDefinitions = AnyTopics, IsChecked extends boolean = false>
  implements AsyncDisposable
{
  /** @internal */
  protected readonly platform: Platform;
  /** @internal */
  protected readonly server: {
    readonly url: ServerUrl;
    readonly token: TokenSource | undefined;
    readonly platform: Platform;
  };
  readonly #options: ConnectOptions<Topics, IsChecked>;
  readonly #events = new Emitter<ClientEvents>();
  readonly #open = new Set<Closable>();
  #link: Link | undefined;
  readonly #closeAtAbort = () => void this.close();
  #lastName = 0;
  #end: TidemarkError | undefined;

  /** @internal */
  constructor(options: ConnectOptions<Topics, IsChecked>) {
    const { url, token, signal, platform = PLATFORM } = options;
    this.#options = options;
    this.platform = platform;
    this.server = { url: readServerUrl(url), token, platform };
    signal?.addEventListener("abort", this.#closeAtAbort);
    if (signal?.aborted) this.#end = closedError();
  }

  /**
   * Consumes topics as a member of a group.
   *
   * @example
   * ```ts
   * import { connect } from "@tidemark/client";
   *
   * const tidemark = connect({ url: "http://127.0.0.1:4500" });
   * await tidemark.produce("orders", [{ value: 1 }, { value: 2 }]);
   * const consumer = tidemark.consume("orders", { group: "billing" });
   * await consumer.run(async (record) => {
   *   console.log(record.topic, record.offset, record.value);
   *   if (record.offset === 1) void consumer.close();
   * });
   * await tidemark.close();
   * ```
   */
  consume<const Name extends TopicName<Topics>>(
    topics: Name | readonly Name[],
    options: ConsumeOptions,
  ): Consumer<ValuesOf<Topics, Name, IsChecked>> {
    return this.keep(
      new Consumer<ValuesOf<Topics, Name, IsChecked>>(listOf(topics), options, this.surroundings()),
    );
  }

  /** `waiting` before the first use, and between connections. */
  get status(): Status {
    return this.#end ? "closed" : (this.#link?.status ?? "waiting");
  }

  /** Calls `listener` at each event of that name. Returns what stops it. */
  on<Name extends keyof ClientEvents>(name: Name, listener: (event: ClientEvents[Name]) => void): () => void {
    return this.#events.on(name, listener);
  }

  /** Closes consumers and readers, waits for what is being produced, and disconnects. */
  async close(): Promise<void> {
    this.#options.signal?.removeEventListener("abort", this.#closeAtAbort);
    this.#end ??= closedError();
    await Promise.all([...this.#open].map((each) => each.close()));
    this.#link?.close(this.#end);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal */
  protected transactDeadLetters: TransactDeadLetters | undefined;

  /** The check of a topic's values, where one is wanted. @internal */
  protected checkOf(topic: string): ValueCheck | undefined {
    return this.#options.check ? createCheck(this.#options.topics, topic) : undefined;
  }

  /** Closed with the client. @internal */
  protected keep<Kept extends Closable>(closable: Kept): Kept {
    this.#open.add(closable);
    return closable;
  }

  /** It has been closed before. @internal */
  protected forget(closable: Closable): void {
    this.#open.delete(closable);
  }

  /** @internal */
  protected get link(): Link {
    if (this.#end) throw this.#end;
    this.#link ??= this.#connect();
    return this.#link;
  }

  #connect(): Link {
    const link = new Link(this.server);
    link.listen({
      onStatus: (status) => this.#events.emit("status", status),
      onTrouble: (error) => this.#events.emit("trouble", error),
      onEnd: (error) => {
        this.#end ??= error;
        this.#events.emit("end", error);
      },
    });
    link.start();
    return link;
  }

  /** @internal */
  protected surroundings(): Surroundings {
    this.#lastName += 1;
    return {
      ...{ link: this.link, server: this.server, platform: this.platform, name: `s${this.#lastName}` },
      checkOf: (topic) => this.checkOf(topic),
      transactDeadLetters: this.transactDeadLetters,
      forget: (closable) => this.forget(closable),
    };
  }
}

/**
 * A client of the server at `url`, which consumes. `connect` of "@tidemark/client" reads, produces and administers too.
 *
 * Throws `bad_url` for what is no URL of a server.
 */
export function connect<
  const Topics extends TopicDefinitions = AnyTopics,
  const IsChecked extends boolean = false,
>(options: ConnectOptions<Topics, IsChecked>): ConsumerClient<Topics, IsChecked> {
  return new ConsumerClient(options);
}
