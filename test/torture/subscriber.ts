// A subscription that comes back for as long as the load lasts, each time as another consumer of the history.

import type { AckEntry, ServerFrame } from "../../src/protocol/frames.ts";
import type { FrameOf, StreamClient } from "../support/stream-client.ts";
import type { Load } from "./load.ts";

export interface Owned {
  readonly topic: string;
  readonly topicId: number;
  readonly partition: number;
  readonly generation: number;
  /** The next offset that it will be sent. */
  next: number;
  /** Up to here it has asked to commit. */
  asked: number;
}

/** So that who is gone is found out while a run lasts. */
export const SESSION_TIMEOUT_MS = 6_000;
const RETRY_MS = 50;
/** A server in trouble may say so; nobody should be told that it does not understand. */
const PASSING: ReadonlySet<string> = new Set([
  ...["unavailable", "storage_full", "outcome_unknown", "rate_limited"],
  // A transaction or a release that came too late.
  ...["fenced_generation", "conflict", "not_assigned", "unknown_subscription"],
]);

export abstract class Subscriber {
  protected readonly load: Load;
  protected readonly name: string;
  protected readonly owned = new Map<string, Owned>();
  /** Of this connection. */
  protected consumer = "";
  protected client: StreamClient | undefined;
  readonly #group: string | null;
  readonly #isCommittedAhead: boolean;

  constructor(load: Load, name: string, { group, ahead = false }: { group: string | null; ahead?: boolean }) {
    this.load = load;
    this.name = name;
    this.#group = group;
    this.#isCommittedAhead = ahead;
  }

  async run(): Promise<void> {
    while (this.load.isConsuming) {
      this.client = await this.load.connect();
      if (!this.client) continue;
      await this.#live(this.client);
      this.load.hangUp(this.client);
      this.client = undefined;
      this.owned.clear();
      await this.afterEnd();
    }
  }

  protected abstract subscription(): Readonly<Record<string, unknown>>;
  protected onSubscribed(_frame: FrameOf<"subscribed">): void {}
  protected onAssigned(): void {}
  protected onRecords(_frame: FrameOf<"records">): void {}
  protected onRevoked(_frame: FrameOf<"revoked">): void {}
  /** Answers to frames of its own. */
  protected onAnswer(_frame: FrameOf<"acked"> | FrameOf<"transacted"> | FrameOf<"error">): void {}
  /** Of its `subscribe`. */
  protected expectsRefusal(_code: string): boolean {
    return false;
  }
  protected async afterEnd(): Promise<void> {}

  async #live(client: StreamClient): Promise<void> {
    this.consumer = this.load.recorder.name(this.name);
    client.send({
      type: "subscribe",
      id: "join",
      sessionTimeoutMs: SESSION_TIMEOUT_MS,
      ...this.subscription(),
    });
    let hasBegun = false;
    for (;;) {
      const frame = await client.next().catch(() => undefined);
      await this.load.recorder.opened();
      if (!frame || !this.load.isConsuming) break;
      hasBegun ||= frame.type === "subscribed";
      if (frame.type === "error" && !hasBegun) {
        if (!this.expectsRefusal(frame.code)) this.#judge(frame);
        await Bun.sleep(RETRY_MS); // the server said: later
        return;
      }
      if (!this.#take(client, frame)) break;
    }
    if (hasBegun) this.load.recorder.write({ type: "ended", consumer: this.consumer });
  }

  /** False where it is over. */
  #take(client: StreamClient, frame: ServerFrame): boolean {
    switch (frame.type) {
      case "ping":
        client.send({ type: "pong" });
        return true;
      case "subscribed": {
        const [consumer, group, memberId] = [this.consumer, this.#group, frame.memberId ?? ""];
        const isCommittedAhead = this.#isCommittedAhead;
        this.load.recorder.write({ type: "subscribed", consumer, group, memberId, isCommittedAhead });
        this.onSubscribed(frame);
        return true;
      }
      case "assigned":
        this.#gain(frame);
        return true;
      case "records":
        this.#read(frame);
        return true;
      case "revoked":
        this.load.recorder.write({ type: "revoked", consumer: this.consumer, partitions: frame.partitions });
        this.onRevoked(frame);
        for (const partition of frame.partitions) this.owned.delete(keyOf(partition));
        return true;
      case "unsubscribed":
        return false;
      case "error":
        this.#judge(frame);
        this.onAnswer(frame);
        return true;
      case "acked":
      case "transacted":
        this.onAnswer(frame);
        return true;
      default:
        return true;
    }
  }

  #gain({ id, partitions }: FrameOf<"assigned">): void {
    const { consumer } = this;
    const gained = partitions.map(({ metadata: _, reset, ...partition }) => ({
      ...partition,
      ...(reset !== undefined && { reset: typeof reset === "string" ? reset : JSON.stringify(reset) }),
      ...(id !== undefined && { isSought: true }),
    }));
    this.load.recorder.write({ type: "assigned", consumer, partitions: gained });
    for (const { topic, topicId, partition, generation, position } of gained) {
      const next = position ?? 0;
      this.owned.set(keyOf({ topic, partition }), {
        topic,
        topicId,
        partition,
        generation,
        next,
        asked: next,
      });
    }
    this.onAssigned();
  }

  #read(frame: FrameOf<"records">): void {
    const { topic, partition, generation, next } = frame;
    const records = frame.records.map((record) => ({
      offset: record.offset,
      value: "value" in record ? String(record.value) : "bytes",
    }));
    const { consumer } = this;
    this.load.recorder.write({ type: "polled", consumer, topic, partition, generation, records, next });
    this.load.tally.recordsRead += records.length;
    const owned = this.owned.get(keyOf(frame));
    if (owned) owned.next = next;
    this.onRecords(frame);
  }

  #judge({ code, message }: FrameOf<"error">): void {
    this.load.tally.code(code);
    if (!PASSING.has(code)) this.load.problems.push(`${this.consumer} was told ${code}: ${message}`);
  }
}

export function keyOf({ topic, partition }: { readonly topic: string; readonly partition: number }): string {
  return `${topic}/${partition}`;
}

export function entryOf({ topic, partition, generation }: Owned, offset: number): AckEntry {
  return { topic, partition, generation, offset };
}
