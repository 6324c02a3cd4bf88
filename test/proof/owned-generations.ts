// What consumers were told of the generations that they own, and how far each was sent. Fed one event after the other.

import type { EventOf, HistoryEvent, LogRef } from "./history.ts";

export interface OwnedGeneration {
  /** An offset is of a topic by name: its generation tells which one. */
  readonly log: LogRef;
  /** The highest position, by sending or by a seek. Null: it had none. */
  readonly furthest: number | null;
}

interface Named {
  readonly topic: string;
  readonly partition: number;
}

type Generation = Named & { readonly generation: number };

export class OwnedGenerations {
  readonly #subscriptions = new Map<string, EventOf<"subscribed">>();
  readonly #owned = new Map<string, OwnedGeneration>();
  readonly #newest = new Map<string, number>();

  see(event: HistoryEvent): void {
    if (event.type === "subscribed") this.#subscriptions.set(event.consumer, event);
    if (event.type === "assigned")
      for (const { topic, topicId, partition, generation, position } of event.partitions)
        this.#move(event.consumer, { topic, topicId, partition, generation, position });
    if (event.type === "polled") this.#move(event.consumer, { ...event, position: event.next });
  }

  of(group: string, generation: Generation): OwnedGeneration | undefined {
    return this.#owned.get(keyOf(group, generation));
  }

  /** The highest that anybody was told of; -1 where nobody was. */
  newest(group: string, named: Named): number {
    return this.#newest.get(nameOf(group, named)) ?? -1;
  }

  /** `"ack":"none"`. */
  isAhead(consumer: string): boolean {
    return this.#subscriptions.get(consumer)?.isCommittedAhead ?? false;
  }

  #move(consumer: string, to: Generation & { topicId?: number; position: number | null }): void {
    const group = this.#subscriptions.get(consumer)?.group ?? null;
    if (group === null) return;
    const { topic, partition, generation, position } = to;
    const before = this.of(group, to);
    const topicId = to.topicId ?? before?.log.topicId;
    if (topicId === undefined) return;
    const furthest =
      position === null ? (before?.furthest ?? null) : Math.max(before?.furthest ?? 0, position);
    this.#owned.set(keyOf(group, to), { log: { topic, topicId, partition }, furthest });
    this.#newest.set(nameOf(group, to), Math.max(this.newest(group, to), generation));
  }
}

function nameOf(group: string, { topic, partition }: Named): string {
  return `${group} ${topic}/${partition}`;
}

function keyOf(group: string, generation: Generation): string {
  return `${nameOf(group, generation)} ${generation.generation}`;
}
