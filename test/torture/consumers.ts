// Members of groups that acknowledge at random, hold, lose their sockets and come back; one that is committed ahead;
// and a reader.

import type { AckEntry } from "../../src/protocol/frames.ts";
import type { FrameOf } from "../support/stream-client.ts";
import type { Load } from "./load.ts";
import { entryOf, keyOf, type Owned, Subscriber } from "./subscriber.ts";

/** As whom a member comes back when its socket is gone. */
export type ComesBack = "as a stranger" | "by memberId" | "by instanceId";

const STALLED_AFTER_MS = 1_000;

export interface GroupPlace {
  readonly group: string;
  readonly topics: readonly string[];
}

export class GroupConsumer extends Subscriber {
  readonly #place: GroupPlace;
  readonly #comesBack: ComesBack;
  readonly #asked = new Map<string, readonly AckEntry[]>();
  #memberId: string | undefined;
  /** What an earlier consumer of this name has acknowledged last. */
  #stale: readonly AckEntry[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(load: Load, name: string, options: GroupPlace & { readonly comesBack: ComesBack }) {
    super(load, name, options);
    this.#place = options;
    this.#comesBack = options.comesBack;
  }

  protected override subscription() {
    const { group, topics } = this.#place;
    const isKnown = this.#comesBack === "by memberId" && this.#memberId !== undefined;
    return {
      group,
      topics,
      window: { records: this.load.dice.between(20, 200) },
      ...(isKnown && { memberId: this.#memberId }),
      // Who holds what it has loses it, and gets it again.
      ...(this.#comesBack === "as a stranger" && { ackTimeoutMs: STALLED_AFTER_MS }),
      ...(this.#comesBack === "by instanceId" && { instanceId: this.name }),
    };
  }

  protected override onSubscribed({ memberId }: FrameOf<"subscribed">): void {
    this.#memberId = memberId;
  }

  protected override onAssigned(): void {
    if (this.#stale.length > 0 && this.load.dice.isLucky(0.5)) this.#ask(this.#stale);
    this.#stale = [];
  }

  protected override onRecords(): void {
    const { dice, isSettling } = this.load;
    if (isSettling) return this.#askLater(0);
    const fate = dice.between(1, 100);
    if (fate === 1) this.client?.cut();
    else if (fate === 2) this.client?.send({ type: "unsubscribe" });
    else if (fate === 3) this.#seekBack();
    // Some hold what they have: for longer than a frame, not for ever.
    else this.#askLater(dice.isLucky(0.02) ? dice.between(500, 2_000) : dice.between(0, 60));
  }

  protected override onRevoked({ partitions, deadlineMs }: FrameOf<"revoked">): void {
    if (deadlineMs === 0) return;
    const mine = partitions.filter((partition) => this.owned.get(keyOf(partition)) !== undefined);
    if (this.load.isSettling || this.load.dice.isLucky(0.6))
      this.#ask(mine.map((partition) => this.owned.get(keyOf(partition))).flatMap(wholeOf));
    else if (this.load.dice.isLucky(0.8))
      this.client?.send({
        type: "release",
        partitions: mine.map(({ topic, partition }) => ({ topic, partition })),
      });
    // Else the deadline decides.
  }

  protected override onAnswer(frame: FrameOf<"acked"> | FrameOf<"transacted"> | FrameOf<"error">): void {
    const ack = String(frame.id);
    const entries = this.#asked.get(ack);
    this.#asked.delete(ack);
    if (!entries) return;
    if (frame.type === "acked") {
      const offsets = frame.offsets.map(({ code, ...offset }) =>
        code === undefined ? offset : { ...offset, code },
      );
      this.load.recorder.write({ type: "acked", ack, offsets });
      return;
    }
    // An unsubscribe that could not be written has ended it all the same.
    if (frame.type === "error" && frame.code === "unknown_subscription") return this.client?.cut();
    // The database failed: once more.
    for (const entry of entries) {
      const owned = this.owned.get(keyOf(entry));
      if (owned?.generation === entry.generation) owned.asked = -1;
    }
    this.#askLater(100);
  }

  protected override async afterEnd(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#asked.clear();
  }

  #seekBack(): void {
    if (this.owned.size === 0) return;
    const { topic, partition } = this.load.dice.pick([...this.owned.values()]);
    const to = { shift: -this.load.dice.between(0, 10) };
    this.client?.send({ type: "seek", id: "seek", topic, partition, to });
  }

  #askLater(delayMs: number): void {
    this.#timer ??= setTimeout(() => void this.#askForAll(), delayMs);
  }

  async #askForAll(): Promise<void> {
    await this.load.recorder.opened();
    this.#timer = undefined;
    if (!this.client) return;
    const { dice, isSettling } = this.load;
    const entries = [...this.owned.values()].flatMap((owned) => {
      const { asked, next } = owned;
      if (next <= asked) return [];
      owned.asked = isSettling || asked < 0 || dice.isLucky(0.7) ? next : dice.between(asked, next);
      return [entryOf(owned, owned.asked)];
    });
    this.#ask(entries);
    if ([...this.owned.values()].some(({ asked, next }) => asked < next)) this.#askLater(50);
  }

  #ask(entries: readonly AckEntry[]): void {
    if (entries.length === 0 || !this.client) return;
    const ack = this.load.recorder.name("ack");
    const { consumer } = this;
    this.load.recorder.write({ type: "acking", consumer, ack, offsets: entries });
    this.#asked.set(ack, entries);
    this.#stale = entries;
    this.client.send({ type: "ack", id: ack, offsets: entries });
  }
}

/** To its end, if anything of it was sent. */
function wholeOf(owned: Owned | undefined): readonly AckEntry[] {
  return owned ? [entryOf(owned, owned.next)] : [];
}

/** At most once: its offsets are committed before it is sent anything. */
export class AheadConsumer extends Subscriber {
  readonly #place: GroupPlace;

  constructor(load: Load, name: string, place: GroupPlace) {
    super(load, name, { group: place.group, ahead: true });
    this.#place = place;
  }

  protected override subscription() {
    const { group, topics } = this.#place;
    return { group, topics, ack: "none" };
  }
}

/** Owns nothing; goes on where it was. */
export class Reader extends Subscriber {
  readonly #topics: readonly string[];
  readonly #places = new Map<string, { topic: string; topicId: number; partition: number; offset: number }>();

  constructor(load: Load, name: string, topics: readonly string[]) {
    super(load, name, { group: null });
    this.#topics = topics;
  }

  protected override subscription() {
    const from = this.#places.size > 0 ? [...this.#places.values()] : "earliest";
    return { topics: this.#topics, from };
  }

  protected override onAssigned(): void {
    for (const owned of this.owned.values()) this.#note(owned);
  }

  protected override onRecords(frame: FrameOf<"records">): void {
    const owned = this.owned.get(keyOf(frame));
    if (owned) this.#note(owned);
  }

  /** Its place was trimmed while it was away: it begins anew. */
  protected override expectsRefusal(code: string): boolean {
    const isTrimmed = code === "offset_out_of_range";
    if (isTrimmed) this.#places.clear();
    return isTrimmed;
  }

  #note({ topic, topicId, partition, next }: Owned): void {
    this.#places.set(keyOf({ topic, partition }), { topic, topicId, partition, offset: next });
  }
}
