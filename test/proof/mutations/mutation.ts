// What a mutation is, and what it may ask about the good history that it spoils.

import type { AnomalyName } from "../checker.ts";
import { type ConsumerPlace, ConsumerPlaces } from "../consumer-places.ts";
import { groupsAhead } from "../delivery-checks.ts";
import type { EventOf, History, HistoryEvent, LogRef } from "../history.ts";
import { logKey } from "../log-key.ts";
import { gatherValues, type SeenValues } from "../seen-values.ts";

export interface Mutation {
  readonly name: string;
  /** One of them must be found, at each place. */
  readonly expected: readonly AnomalyName[];
  /** One bad history for each place where it does harm. */
  readonly spoil: (facts: Facts) => Iterable<History>;
}

/** An event with its place in the history. */
export interface At<T extends HistoryEvent["type"]> {
  readonly index: number;
  readonly event: EventOf<T>;
}

export class Facts {
  readonly history: History;
  readonly seen: SeenValues;
  readonly groupsAhead: ReadonlySet<string>;
  readonly consumers = new Map<string, EventOf<"subscribed">>();
  /** Where each consumer of a frame, an assignment or a revocation was before it, by the index of the event. */
  readonly #placesBefore: readonly (ConsumerPlace | undefined)[][];

  constructor(history: History) {
    this.history = history;
    this.seen = gatherValues(history);
    this.groupsAhead = groupsAhead(history);
    for (const event of history) if (event.type === "subscribed") this.consumers.set(event.consumer, event);
    const places = new ConsumerPlaces();
    this.#placesBefore = history.map((event) => {
      const before = partitionsOf(event).map((named) => places.of({ ...named, consumer: consumerOf(event) }));
      places.see(event);
      return before;
    });
  }

  *all<T extends HistoryEvent["type"]>(type: T): Iterable<At<T>> {
    for (const [index, event] of this.history.entries()) if (isOf(event, type)) yield { index, event };
  }

  /** With other events in the place of one. */
  replace(index: number, ...events: readonly HistoryEvent[]): History {
    return this.history.toSpliced(index, 1, ...events);
  }

  /** With other events in the places of some. */
  map(change: (event: HistoryEvent, index: number) => HistoryEvent): History {
    return this.history.map(change);
  }

  placeBefore(index: number, nth = 0): ConsumerPlace | undefined {
    return this.#placesBefore[index]?.[nth];
  }

  groupOf(consumer: string): string | null {
    return this.consumers.get(consumer)?.group ?? null;
  }

  /** What comes next of a consumer's partition. */
  nextOf(index: number, named: { topic: string; partition: number }): number | undefined {
    const consumer = consumerOf(this.history[index]);
    const found = this.history.findIndex(
      (event, at) =>
        at > index &&
        consumerOf(event) === consumer &&
        (event.type === "ended" || partitionsOf(event).some((each) => isSame(each, named))),
    );
    return found < 0 ? undefined : found;
  }

  /** The frame that comes next of a consumer's partition, if that is what comes next. */
  nextFrame(index: number, named: { topic: string; partition: number }): At<"polled"> | undefined {
    const next = this.nextOf(index, named);
    const event = next === undefined ? undefined : this.history[next];
    return next !== undefined && event?.type === "polled" ? { index: next, event } : undefined;
  }

  /** The partition as whoever looks next finds it; undefined where it is gone by then. */
  lookAfter(index: number, log: LogRef): EventOf<"snapshot">["logs"][number] | undefined {
    for (const event of this.history.slice(index + 1)) {
      const logs = event.type === "snapshot" ? event.logs : event.type === "log" ? [event] : [];
      const found = logs.find((each) => logKey(each) === logKey(log));
      if (found || event.type === "snapshot") return found;
    }
    return undefined;
  }

  /** Nobody can say that it was deleted when the event was. */
  isKept(index: number, log: LogRef | undefined, offset: number): boolean {
    const look = log && this.lookAfter(index, log);
    return look !== undefined && offset >= look.logStartOffset && !this.seen.gone.has(look, offset);
  }

  /** It has not ended and come again. */
  livesOnce(group: string): boolean {
    const lives = this.history.flatMap((event) =>
      event.type === "snapshot" ? (event.groups ?? []).filter((each) => each.group === group) : [],
    );
    return new Set(lives.map(({ createdAt }) => createdAt)).size <= 1;
  }

  snapshotBefore(index: number): EventOf<"snapshot"> | undefined {
    return this.history.slice(0, index).findLast((event) => isOf(event, "snapshot"));
  }

  snapshotAfter(index: number): At<"snapshot"> | undefined {
    const at = this.history.findIndex((event, each) => each > index && event.type === "snapshot");
    const event = this.history[at];
    return event?.type === "snapshot" ? { index: at, event } : undefined;
  }

  /** Nobody has moved the group there, and the topic is the only one of its name: it has all, or it is wrong. */
  isUntouched(group: string, log: { topic: string; partition: number }): boolean {
    return (
      this.seen.steadyTopics.has(log.topic) &&
      !this.history.some((event) => {
        if (event.type === "passing") return event.group === group && isSame(event, log);
        if (event.type === "snapshot")
          return event.resets.some(
            (row) => row.group === group && isSame(row, log) && (row.offset > 0 || row.previous !== null),
          );
        if (event.type !== "assigned" || this.groupOf(event.consumer) !== group) return false;
        return event.partitions.some((each) => isSame(each, log) && (each.isSought || each.reset));
      })
    );
  }
}

export function isOf<T extends HistoryEvent["type"]>(event: HistoryEvent, type: T): event is EventOf<T> {
  return event.type === type;
}

export function isSame(
  one: { topic: string; partition: number },
  other: { topic: string; partition: number },
): boolean {
  return one.topic === other.topic && one.partition === other.partition;
}

function consumerOf(event: HistoryEvent | undefined): string {
  return event && "consumer" in event ? event.consumer : "";
}

function partitionsOf(event: HistoryEvent): readonly { topic: string; partition: number }[] {
  if (event.type === "polled") return [event];
  return event.type === "assigned" || event.type === "revoked" ? event.partitions : [];
}
