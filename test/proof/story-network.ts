// Who is there, and what is on the way between them: everybody learns of what has happened late, in an order of its own,
// as over a network.

import type { Dice } from "../support/dice.ts";
import type { HistoryEvent, OffsetEntry } from "./history.ts";
import { LogModel, type ModelGroup, type ModelPartition, type Ownership } from "./log-model.ts";

/** After so long a group without members may expire. */
export const GROUP_IDLE_MS = 5_000;

/** A subscription, as its client sees it. */
export interface Client {
  readonly name: string;
  readonly group: ModelGroup | undefined;
  /** On the way to it. */
  readonly inbox: HistoryEvent[];
  /** What it has asked for and is not done yet. */
  readonly outbox: (() => void)[];
  /** Of each partition the last frame, with what it was sent and has not acknowledged. */
  readonly held: Map<string, Held>;
  /** A reader's partitions: nobody else knows of them. */
  readonly reads: Map<ModelPartition, Ownership>;
  /** The server knows of it. */
  isSubscribed: boolean;
  isAnswerAwaited: boolean;
}

export interface Held {
  readonly entry: OffsetEntry;
  readonly offsets: readonly number[];
}

/** What a producer has asked for, in order: some of it is done, and not learned yet. */
export interface Producer {
  readonly name: string;
  readonly isIdempotent: boolean;
  readonly outbox: (() => void)[];
  readonly inbox: HistoryEvent[];
}

export class StoryNetwork {
  protected readonly dice: Dice;
  protected readonly model: LogModel;
  protected readonly events: HistoryEvent[] = [];
  protected readonly groups: Record<"billing" | "mill" | "ahead" | "outside", ModelGroup>;
  protected readonly producers: readonly Producer[];
  protected clients: Client[] = [];
  /** What may be carried out at any time, or never. */
  protected late: (() => void)[] = [];
  protected isEnding = false;
  /** All records of topics that may be compacted. */
  protected readonly hasKeys: boolean;
  protected names = 0;

  constructor(dice: Dice) {
    this.dice = dice;
    this.model = new LogModel(dice);
    this.hasKeys = dice.isLucky(0.7);
    const policy = dice.pick(["earliest", "latest", "none"] as const);
    this.groups = {
      billing: this.addGroup("billing", { topics: ["orders", "doomed"], policy }),
      mill: this.addGroup("mill", { topics: ["orders"] }),
      ahead: this.addGroup("ahead", { topics: ["orders"], isAhead: true }),
      outside: this.addGroup("outside", { topics: ["orders"] }),
    };
    const [isSequenced, isPlain] = [{ isIdempotent: true }, { isIdempotent: false }];
    this.producers = [
      { name: "sequenced", ...isSequenced, outbox: [], inbox: [] },
      { name: "plain", ...isPlain, outbox: [], inbox: [] },
    ];
    this.model.create("orders", 2);
    this.model.create("made", 1);
    this.model.create("doomed", 1);
    this.events.push(
      { type: "groups-expire", idleMs: GROUP_IDLE_MS },
      this.model.snapshot(() => false),
    );
  }

  // ── what is under way ──────────────────────────────────────────────────────────────────────────────────

  /** One of what was asked for. */
  protected carryOut(): void {
    const boxes = [...this.producers, ...this.clients].filter(({ outbox }) => outbox.length > 0);
    if (boxes.length > 0) this.dice.pick(boxes).outbox.shift()?.();
    if (this.dice.isLucky(0.1)) this.late.splice(this.dice.below(this.late.length), 1)[0]?.();
  }

  protected learn(): void {
    const boxes = [...this.producers, ...this.clients].filter(({ inbox }) => inbox.length > 0);
    if (boxes.length > 0) this.learnNext(this.dice.pick(boxes));
  }

  protected learnNext(actor: Producer | Client): void {
    const event = actor.inbox.shift();
    if (!event) return;
    this.events.push(event);
    if ("held" in actor) this.note(actor, event);
  }

  protected finish(actor: Producer | Client): void {
    while (actor.inbox.length + actor.outbox.length > 0) {
      this.learnNext(actor);
      actor.outbox.shift()?.();
    }
  }

  protected note(client: Client, event: HistoryEvent): void {
    if (event.type === "polled") {
      const { topic, partition, generation, next, records } = event;
      const entry = { topic, partition, generation, offset: next };
      const before = client.held.get(nameOf(event))?.offsets ?? [];
      client.held.set(nameOf(event), { entry, offsets: [...before, ...records.map(({ offset }) => offset)] });
    }
    if (event.type === "assigned") for (const each of event.partitions) client.held.delete(nameOf(each));
    // Most finish what they hold, in vain.
    if (event.type === "revoked" && this.dice.isLucky(0.2))
      for (const each of event.partitions) client.held.delete(nameOf(each));
    if (event.type === "sent" || event.type === "not-sent") client.isAnswerAwaited = false;
    if (event.type === "ended") this.clients = this.clients.filter((each) => each !== client);
  }

  // ─────────────────────────────────────────────────────────────────────────────────────────────────────

  protected addGroup(name: string, options: Pick<ModelGroup, "topics"> & Partial<ModelGroup>): ModelGroup {
    const group: ModelGroup = {
      name,
      policy: "earliest",
      isAhead: false,
      committed: new Map(),
      owners: new Map(),
      topicsSeen: new Set(),
      partitionsSeen: new Set(),
      life: undefined,
      usedAtMs: this.model.nowMs,
      ...options,
    };
    this.model.groups.push(group);
    return group;
  }

  protected any<T>(items: readonly T[]): T | undefined {
    return items[this.dice.below(items.length)];
  }

  protected nextName(what: string): string {
    this.names += 1;
    return `${what}${this.names}`;
  }
}

export function nameOf({ topic, partition }: { topic: string; partition: number }): string {
  return `${topic}/${partition}`;
}
