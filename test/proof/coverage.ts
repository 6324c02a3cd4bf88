// By group and partition: the offsets that need not be delivered, because somebody has passed over them, and what a
// check adds to them. Fed one event after the other.

import { ConsumerPlaces } from "./consumer-places.ts";
import { GoneOffsets } from "./gone-offsets.ts";
import type { EventOf, HistoryEvent, LogRef } from "./history.ts";
import { logKey } from "./log-key.ts";
import { OffsetSet } from "./offset-set.ts";

type Logs = ReadonlyMap<string, EventOf<"snapshot">["logs"][number]>;

export class Coverage {
  readonly #places = new ConsumerPlaces();
  readonly #groupByConsumer = new Map<string, string>();
  readonly #covered = new Map<string, OffsetSet>();
  readonly #gone = new GoneOffsets();
  /** Of the last snapshot, by topic and partition. */
  #logs: Logs = new Map();
  readonly #isOfCommits: boolean;
  /** Since the last snapshot: they may be carried out in a topic that only the next one tells of. */
  #passing: EventOf<"passing">[] = [];

  /** Of deliveries, or of commits: who moves on loses what it was sent and has not committed. */
  constructor(of: "deliveries" | "commits") {
    this.#isOfCommits = of === "commits";
  }

  of(group: string, log: LogRef): OffsetSet {
    const key = `${group} ${logKey(log)}`;
    const covered = this.#covered.get(key) ?? new OffsetSet();
    this.#covered.set(key, covered);
    return covered;
  }

  /** The lowest that nothing covers, of the half-open range. What is gone nobody can be sent. */
  firstMissing(group: string, log: LogRef, [from, until]: readonly [number, number]): number | undefined {
    const covered = this.of(group, log);
    let missing = covered.firstMissing(from, until);
    while (missing !== undefined && this.#gone.has(log, missing)) {
      covered.add(missing, missing + 1);
      missing = covered.firstMissing(missing, until);
    }
    return missing;
  }

  /** The group that a frame has come to, and the partition that it is of; undefined for readers. */
  whoseFrame(event: EventOf<"polled">): { readonly group: string; readonly log: LogRef } | undefined {
    const group = this.#groupByConsumer.get(event.consumer);
    const log = this.#places.of(event)?.log;
    return group === undefined || !log ? undefined : { group, log };
  }

  get logs(): Logs {
    return this.#logs;
  }

  see(event: HistoryEvent): void {
    if (event.type === "subscribed" && event.group !== null)
      this.#groupByConsumer.set(event.consumer, event.group);
    if (event.type === "assigned") this.#seeAssigned(event);
    if (event.type === "passing") {
      this.#passing.push(event);
      this.#pass(event, 0, event.offset);
    }
    if (event.type === "snapshot") this.#seeSnapshot(event);
    this.#gone.see(event);
    this.#places.see(event);
  }

  /** A seek passes over what is between, and so does a policy. */
  #seeAssigned({ consumer, partitions }: EventOf<"assigned">): void {
    const group = this.#groupByConsumer.get(consumer);
    if (group === undefined) return;
    for (const { position, committedOffset, isSought, reset, ...log } of partitions) {
      const place = this.#places.of({ consumer, ...log });
      const next = place?.log.topicId === log.topicId ? (place.next ?? 0) : 0;
      const before = this.#isOfCommits ? Math.min(next, committedOffset ?? 0) : next;
      const isMoved = isSought || reset !== undefined;
      if (isMoved && position !== null) this.of(group, log).add(before, position);
    }
  }

  #seeSnapshot({ logs, resets }: EventOf<"snapshot">): void {
    this.#logs = new Map(logs.map((log) => [`${log.topic}/${log.partition}`, log]));
    for (const reset of resets) this.#pass(reset, reset.previous ?? 0, reset.offset);
    for (const passing of this.#passing) this.#pass(passing, 0, passing.offset);
    this.#passing = [];
  }

  #pass(at: { group: string; topic: string; partition: number }, from: number, until: number): void {
    const log = this.#logs.get(`${at.topic}/${at.partition}`);
    if (log) this.of(at.group, log).add(from, until);
  }
}
