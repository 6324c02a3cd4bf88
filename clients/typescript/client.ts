// Browser-safe. The client of a Tidemark server: one connection for everything, in browsers, Bun, Deno, Node and Workers.

import type { GroupCommits, TopicExpectation } from "../../src/protocol/frames.ts";
import { Admin } from "./admin.ts";
import { Batch } from "./batch.ts";
import type { CommitSource, PartitionOf } from "./consumer.ts";
import {
  ConsumerClient,
  type ConnectOptions as ConsumerConnectOptions,
  type ValuesOf,
} from "./consumer-client.ts";
import { letterOf } from "./dead-letters.ts";
import { errorOf, FencedError, SchemaViolationError, TidemarkError } from "./errors.ts";
import { Producer } from "./producer.ts";
import type { Produced, ProducerOptions, SendOptions, Transacted } from "./producer-options.ts";
import type { ProducerRecord } from "./producer-records.ts";
import { Reader, type ReadOptions } from "./reader.ts";
import { waitReattached } from "./tenure.ts";
import {
  type AnyTopics,
  listOf,
  type RecordFor,
  type TopicDefinitions,
  type TopicName,
  type ValueOf,
} from "./topics.ts";

export type { Admin } from "./admin.ts";
export type { Batch, BatchOf, ConsumedRecord, PlacedRecord, RecordOf } from "./batch.ts";
export type { Handler, HandlerContext, RetryOptions, RunOptions } from "./batch-source.ts";
export type { ConsumeOptions, Consumer, ConsumerEvents, OwnedPartition } from "./consumer.ts";
export type { ClientEvents } from "./consumer-client.ts";
export { ConnectionClosedError, FencedError, SchemaViolationError, TidemarkError } from "./errors.ts";
export type { Status, TokenSource } from "./link.ts";
export type { Producer } from "./producer.ts";
export type { Produced, ProducerOptions, SendOptions, Transacted } from "./producer-options.ts";
export type { ProducerRecord } from "./producer-records.ts";
export type { Cursor, Reader, ReadOptions } from "./reader.ts";
export { defineTopics, type StandardSchema, type TopicDefinitions } from "./topics.ts";

export interface ConnectOptions<Topics, IsChecked extends boolean>
  extends ConsumerConnectOptions<Topics, IsChecked> {
  /** Of `produce` and `transact`. */
  readonly producer?: ProducerOptions | undefined;
}

/** What is written together, all of it or nothing. */
export interface Transaction<Topics = AnyTopics> {
  readonly appends?: readonly AppendOf<Topics>[] | undefined;
  /** Batches that are done with it, of one group: their offsets are committed. */
  readonly commits?: Batch | readonly Batch[] | undefined;
  /** Nothing is written unless these partitions end there. */
  readonly expect?: readonly TopicExpectation[] | undefined;
}

type AppendOf<Topics, Name extends TopicName<Topics> = TopicName<Topics>> = Name extends string
  ? { readonly topic: Name; readonly records: readonly RecordFor<ValueOf<Topics, Name>>[] }
  : never;

interface Append {
  readonly topic: string;
  readonly records: readonly ProducerRecord[];
}

/**
 * A client of the server at `url`. It connects when it is first used, and connects again whenever it has to.
 *
 * Throws `bad_url` for what is no URL of a server.
 *
 * @example
 * ```ts
 * import { connect } from "@tidemark/client";
 *
 * const tidemark = connect({ url: "http://127.0.0.1:4500" });
 * await tidemark.produce("orders", { key: "u1", value: { total: 12.5 } });
 * for await (const batch of tidemark.consume("orders", { group: "billing" })) {
 *   for (const record of batch.records) console.log(record.offset, record.value);
 *   break;
 * }
 * await tidemark.close();
 * ```
 */
export function connect<
  const Topics extends TopicDefinitions = AnyTopics,
  const IsChecked extends boolean = false,
>(options: ConnectOptions<Topics, IsChecked>): Client<Topics, IsChecked> {
  return new Client(options);
}

export class Client<
  Topics extends TopicDefinitions = AnyTopics,
  IsChecked extends boolean = false,
> extends ConsumerClient<Topics, IsChecked> {
  /** Topics, groups and resets, over HTTP. */
  readonly admin: Admin;
  readonly #producerOptions: ProducerOptions | undefined;
  #producer: Producer | undefined;

  /** @internal */
  constructor(options: ConnectOptions<Topics, IsChecked>) {
    super(options);
    this.#producerOptions = options.producer;
    this.admin = new Admin(this.server);
    this.transactDeadLetters = (topic, letters, commits) => {
      const records = letters.map((letter) => letterOf(commits.tenure, letter));
      return this.#transact({ appends: [{ topic, records }] }, [commits]);
    };
  }

  /**
   * Reads topics without a group.
   *
   * @example
   * ```ts
   * import { connect } from "@tidemark/client";
   *
   * const tidemark = connect({ url: "http://127.0.0.1:4500" });
   * await tidemark.produce("orders", { value: 1 });
   * const reader = tidemark.read("orders", { from: "earliest" });
   * for await (const batch of reader) {
   *   console.log(batch.records.length, JSON.stringify(reader.cursor()));
   *   break;
   * }
   * await tidemark.close();
   * ```
   */
  read<const Name extends TopicName<Topics>>(
    topics: Name | readonly Name[],
    options: ReadOptions = {},
  ): Reader<ValuesOf<Topics, Name, IsChecked>> {
    return this.keep(
      new Reader<ValuesOf<Topics, Name, IsChecked>>(listOf(topics), options, this.surroundings()),
    );
  }

  /**
   * Appends records, all or none; resolves when they are durable. What is sent again because an answer was lost is written
   * once. Source: `produce` of PROTOCOL.md.
   */
  async produce<const Name extends TopicName<Topics>>(
    topic: Name,
    records: RecordFor<ValueOf<Topics, Name>> | readonly RecordFor<ValueOf<Topics, Name>>[],
    options?: SendOptions,
  ): Promise<Produced> {
    await this.#check(topic, records);
    return this.#ownProducer().send(topic, records, options);
  }

  /**
   * Appends records to topics and commits what batches were read, all of it or nothing.
   *
   * Rejects with a `FencedError`, and nothing is written, when one of the batches was lost.
   *
   * @example
   * ```ts
   * import { connect } from "@tidemark/client";
   *
   * const tidemark = connect({ url: "http://127.0.0.1:4500" });
   * await tidemark.produce("orders", { value: { total: 120 } });
   * for await (const batch of tidemark.consume("orders", { group: "alerting" })) {
   *   const large = batch.records.map(({ value }) => ({ value }));
   *   await tidemark.transact({ appends: [{ topic: "alerts", records: large }], commits: batch });
   *   break;
   * }
   * await tidemark.close();
   * ```
   */
  async transact({ appends = [], commits = [], expect }: Transaction<Topics>): Promise<Transacted> {
    for (const { topic, records } of appends) await this.#check(topic, records);
    const batches = commits instanceof Batch ? [commits] : commits;
    return this.#transact({ appends, expect }, batches);
  }

  /** A producer of its own: with its own order, pace and id. */
  producer(options?: ProducerOptions): Producer {
    return this.keep(new Producer(this.link, this.platform, options, (closed) => this.forget(closed)));
  }

  async #transact(
    { appends, expect }: Pick<Transaction, "expect"> & { readonly appends: readonly Append[] },
    sources: readonly CommitSource[],
  ): Promise<Transacted> {
    for (;;) {
      await Promise.all(sources.map(({ tenure }) => waitReattached(tenure)));
      for (const { tenure } of sources) tenure.ending.signal.throwIfAborted();
      const generations = sources.map(({ tenure }) => tenure.generation);
      try {
        const transacted = await this.#ownProducer().transact({
          appends,
          expect,
          ...(sources.length > 0 ? { commits: () => merge(sources) } : {}),
        });
        for (const source of sources) source.handleCommitted?.();
        return transacted;
      } catch (error) {
        // Fenced by our own coming back: the connection was lost, and the partition is ours in a new generation.
        const hasMoved = sources.some(
          ({ tenure }, at) => tenure.isDetached || tenure.generation !== generations[at],
        );
        if (isFenced(error) && hasMoved) continue;
        for (const source of sources) if (isFencedBy(error, source.tenure)) source.handleFenced();
        throw error;
      }
    }
  }

  async #check(topic: string, records: ProducerRecord | readonly ProducerRecord[]): Promise<void> {
    const check = this.checkOf(topic);
    if (!check) return;
    for (const [record, { value }] of listOf(records).entries()) {
      const verdict = await check(value);
      if (!(verdict instanceof SchemaViolationError)) continue;
      const what = `Cannot produce records[${record}] to topic "${topic}"`;
      throw new SchemaViolationError(what, verdict.issues, { topic, record });
    }
  }

  #ownProducer(): Producer {
    this.#producer ??= this.producer(this.#producerOptions);
    return this.#producer;
  }
}

/**
 * Also where an earlier copy of it was lost on the way: a generation that is fenced stays so, and a copy that had been
 * written would have been found before the generation was judged.
 */
function isFenced(error: unknown): boolean {
  if (error instanceof TidemarkError && error.code === "outcome_unknown") return isFenced(error.cause);
  return error instanceof FencedError && error.code !== "fenced_producer";
}

function isFencedBy(error: unknown, { topic, partition }: PartitionOf): boolean {
  return error instanceof FencedError && error.facts.topic === topic && error.facts.partition === partition;
}

function merge(sources: readonly CommitSource[]): GroupCommits {
  const all = sources.map((source) => source.commits());
  const group = all[0]?.group ?? "";
  if (all.some((each) => each.group !== group))
    throw errorOf("bad_request", "A transaction commits for one group: these batches are of several");
  return { group, offsets: all.flatMap(({ offsets }) => offsets) };
}
