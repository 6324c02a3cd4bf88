// Browser-safe. What is done with topics, groups and producers over HTTP.

import type { AckedEntry, DeliveredRecord } from "../../src/protocol/frames.ts";
import type {
  CommittedOffsets,
  Fetched,
  GroupDescription,
  GroupList,
  GroupReset,
  GroupSummary,
  OutsideCommit,
  PartitionBounds,
  ProducerEpoch,
  Readiness,
  ResetPlan,
  TopicDescription,
  TopicList,
  TopicSettings,
  TopicSummary,
} from "../../src/protocol/http.ts";
import type { AgoPlace, ReaderPlace } from "../../src/protocol/places.ts";
import { decodeBase64 } from "./base64.ts";
import { type CallOptions, call, type HttpAnswer, type HttpCall } from "./http.ts";
import type { LinkOptions } from "./link.ts";

export interface PutTopic extends TopicDescription {
  /** It was not there before. */
  readonly created: boolean;
}

export interface RecordsToDelete {
  readonly topic: string;
  readonly partition: number;
  /** The log start offset to come: what is below it goes. At most the log end offset. */
  readonly before: number;
}

export interface RecordsToRead {
  readonly topic: string;
  readonly partition: number;
  /** `"earliest"` by default. A number is an offset. */
  readonly from?: number | Exclude<ReaderPlace, AgoPlace> | undefined;
  /** At most so many records: 1 to 10,000, 500 by default. */
  readonly limit?: number | undefined;
  /** At most so many bytes, or one larger record: 1 to 4,000,000, 1,048,576 by default. */
  readonly maxBytes?: number | undefined;
  /** How many ms to wait while there are none: 0, the default, to 30,000. */
  readonly waitMs?: number | undefined;
}

/** A record with its bytes, where it has some, and else with its value. */
export interface ReadRecord extends Omit<DeliveredRecord, "bytes"> {
  readonly bytes?: Uint8Array<ArrayBuffer> | undefined;
}

export interface ReadRecords extends Omit<Fetched, "records"> {
  readonly records: readonly ReadRecord[];
}

/**
 * Topics, groups and producers, over HTTP. A call is one request, which is never sent again from here. Every call rejects
 * with a `TidemarkError`:
 *
 * - what the server said: its code, with its facts. A name that is none is `bad_request`;
 * - `unavailable`, `storage_full`: nothing was done, it may be sent again. `facts.retryAfterMs` says when;
 * - `outcome_unknown`, `connection_lost`: no answer came. What was to be changed may have been;
 * - `not_a_server`: what answered is not a Tidemark server;
 * - or with the reason of its signal, where that was aborted. What the server has begun it finishes.
 *
 * Whether it was done or not, these may be called again as they are: all that read, `putTopic`, `deleteRecords`, `commit`,
 * `newEpoch` (an epoch that nobody has got is passed over), `reset` with a plan (a `conflict` where it was done),
 * `deleteGroup` and `forgetTopic` (`unknown_group`, `unknown_topic` where it was done). `deleteTopic` would delete what
 * somebody has created anew since, and `reset` to a place would move once more and undo what was committed since: look
 * first where things stand.
 *
 * @example
 * ```ts
 * import { connect } from "@tidemark/client";
 *
 * const tidemark = connect({ url: "http://127.0.0.1:4500" });
 * const { admin } = tidemark;
 * await admin.putTopic("orders", { partitionCount: 4, retention: { ms: 7 * 86_400_000 } });
 * for (const { group, lag } of await admin.groups()) console.log(group, lag);
 * await tidemark.close();
 * ```
 */
export class Admin {
  readonly #server: LinkOptions;

  constructor(server: LinkOptions) {
    this.#server = server;
  }

  /** All topics, by name. */
  async topics(options?: CallOptions): Promise<readonly TopicSummary[]> {
    return (await this.#get<TopicList>(["topics"], options)).topics;
  }

  /** One topic with its partitions. `unknown_topic` where there is none. */
  topic(topic: string, options?: CallOptions): Promise<TopicDescription> {
    return this.#get(["topics", topic], options);
  }

  /**
   * Creates a topic or changes it. What is left out stays as it is, or is the default of a new topic; null is the
   * default. `conflict` for fewer partitions than there are, and for `"compact"` while a record has no key;
   * `bad_request` for settings that are not allowed, a schema that is none among them. Then nothing is changed.
   *
   * @example
   * ```ts
   * import { connect } from "@tidemark/client";
   *
   * const tidemark = connect({ url: "http://127.0.0.1:4500" });
   * const { created } = await tidemark.admin.putTopic("prices", { cleanup: "compact" });
   * console.log(created);
   * await tidemark.close();
   * ```
   */
  async putTopic(topic: string, settings: TopicSettings = {}, options?: CallOptions): Promise<PutTopic> {
    const { status, body } = await this.#call<TopicDescription>("PUT", ["topics", topic], {
      ...options,
      body: settings,
    });
    return { ...body, created: status === 201 };
  }

  /** With its records and all that groups have committed in it. `unknown_topic` where there is none. */
  async deleteTopic(topic: string, options?: CallOptions): Promise<void> {
    await this.#call("DELETE", ["topics", topic], options);
  }

  /**
   * Deletes the records of a partition below an offset. Nothing happens at or below the log start; `offset_out_of_range`
   * above the log end.
   */
  async deleteRecords(
    { topic, partition, before }: RecordsToDelete,
    options?: CallOptions,
  ): Promise<PartitionBounds> {
    const asked = { ...options, query: { before } };
    return (await this.#call<PartitionBounds>("DELETE", recordsOf(topic, partition), asked)).body;
  }

  /**
   * Reads a partition, or waits for its records; commits nothing. To go on, read from `next`. `offset_out_of_range` for
   * an offset outside of the log.
   *
   * @example
   * ```ts
   * import { connect } from "@tidemark/client";
   *
   * const tidemark = connect({ url: "http://127.0.0.1:4500" });
   * let from = 0;
   * for (let count = 0; count < 2; count++) {
   *   const { records, next } = await tidemark.admin.readRecords({ topic: "orders", partition: 0, from, waitMs: 100 });
   *   for (const { offset, value } of records) console.log(offset, value);
   *   from = next;
   * }
   * await tidemark.close();
   * ```
   */
  async readRecords({
    topic,
    partition,
    from,
    limit,
    maxBytes,
    waitMs,
    signal,
  }: RecordsToRead & CallOptions): Promise<ReadRecords> {
    const query = { from: from === undefined ? from : placeText(from), limit, maxBytes, waitMs };
    const { body } = await this.#call<Fetched>("GET", recordsOf(topic, partition), { query, signal });
    return { ...body, records: body.records.map(readRecord) };
  }

  /** All groups, by name, with their lag. */
  async groups(options?: CallOptions): Promise<readonly GroupSummary[]> {
    return (await this.#get<GroupList>(["groups"], options)).groups;
  }

  /** One group with its live members and its offsets. `unknown_group` where there is none. */
  group(group: string, options?: CallOptions): Promise<GroupDescription> {
    return this.#get(["groups", group], options);
  }

  /** With its offsets and its history. `conflict` while it has live members. */
  async deleteGroup(group: string, options?: CallOptions): Promise<void> {
    await this.#call("DELETE", ["groups", group], options);
  }

  /** Takes a topic that the group left out of it. `conflict` while a live member has it. */
  async forgetTopic(group: string, topic: string, options?: CallOptions): Promise<void> {
    await this.#call("DELETE", ["groups", group, "topics", topic], options);
  }

  /**
   * Commits offsets of a group from outside: forward only, and at most the log end. Creates the group. `conflict` while
   * it has live members. Each entry is answered with what is committed now; an entry with a `code` had no effect.
   *
   * @example
   * ```ts
   * import { connect } from "@tidemark/client";
   *
   * const tidemark = connect({ url: "http://127.0.0.1:4500" });
   * const [answer] = await tidemark.admin.commit("billing", [{ topic: "orders", partition: 0, offset: 0 }]);
   * console.log(answer?.offset, answer?.code);
   * await tidemark.close();
   * ```
   */
  async commit(
    group: string,
    offsets: readonly OutsideCommit[],
    options?: CallOptions,
  ): Promise<readonly AckedEntry[]> {
    const path = ["groups", group, "offsets"];
    return (await this.#post<CommittedOffsets>(path, { offsets }, options)).offsets;
  }

  /**
   * Moves committed offsets, back too, also while members are live: they go on from the new place. All of the partitions
   * or none. `conflict` where a plan's `from` is not what is committed any more (facts `expected`, `found`);
   * `no_committed_offset` for a `shift` and `"current"` where nothing is.
   *
   * @example
   * ```ts
   * import { connect } from "@tidemark/client";
   *
   * const tidemark = connect({ url: "http://127.0.0.1:4500" });
   * const { admin } = tidemark;
   * await admin.commit("billing", [{ topic: "orders", partition: 0, offset: 0 }]);
   * const { plan } = await admin.reset("billing", { topics: [{ topic: "orders" }], to: "earliest", dryRun: true });
   * await admin.reset("billing", { plan, reason: "wrong totals since noon" });
   * await tidemark.close();
   * ```
   */
  reset(group: string, reset: GroupReset, options?: CallOptions): Promise<ResetPlan> {
    return this.#post(["groups", group, "reset"], reset, options);
  }

  /**
   * Gives a producer id a new epoch, whose sequences start at 0: whoever goes on in an older one is fenced.
   *
   * @example
   * ```ts
   * import { connect } from "@tidemark/client";
   *
   * const tidemark = connect({ url: "http://127.0.0.1:4500" });
   * const producer = tidemark.producer(await tidemark.admin.newEpoch("checkout-7"));
   * await producer.send("orders", { value: { total: 12.5 } });
   * await tidemark.close();
   * ```
   */
  newEpoch(producer: string, options?: CallOptions): Promise<ProducerEpoch> {
    return this.#post(["producers", producer], undefined, options);
  }

  /** Whether the server can work, and what its database promises. `unavailable` where it cannot. */
  async ready(options?: CallOptions): Promise<Readiness> {
    return (await call<Readiness>(this.#server, { method: "GET", path: ["readyz"], ...options })).body;
  }

  async #get<Body>(path: Path, options: CallOptions | undefined): Promise<Body> {
    return (await this.#call<Body>("GET", path, options)).body;
  }

  async #post<Body>(path: Path, body: unknown, options: CallOptions | undefined): Promise<Body> {
    return (await this.#call<Body>("POST", path, { ...options, body })).body;
  }

  #call<Body>(method: HttpCall["method"], path: Path, asked?: Asked): Promise<HttpAnswer<Body>> {
    return call(this.#server, { method, path: ["v1", ...path], ...asked });
  }
}

type Path = HttpCall["path"];
type Asked = Pick<HttpCall, "body" | "query" | "signal">;

function recordsOf(topic: string, partition: number): Path {
  return ["topics", topic, "partitions", partition, "records"];
}

function placeText(place: NonNullable<RecordsToRead["from"]>): string | number {
  if (typeof place !== "object") return place;
  return "offset" in place ? place.offset : `@${place.timestamp}`;
}

function readRecord({ bytes, ...record }: DeliveredRecord): ReadRecord {
  return bytes === undefined ? record : { ...record, bytes: decodeBase64(bytes) };
}
