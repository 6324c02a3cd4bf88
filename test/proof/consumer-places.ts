// What each consumer of a history owns, or reads, and what it must be sent next. Fed one event after the other.

import type { HistoryEvent, LogRef } from "./history.ts";

export interface ConsumerPlace {
  readonly log: LogRef;
  readonly generation: number;
  /** Null: it has no position. */
  readonly next: number | null;
}

interface Named {
  readonly consumer: string;
  readonly topic: string;
  readonly partition: number;
}

export class ConsumerPlaces {
  readonly #placesByConsumer = new Map<string, Map<string, ConsumerPlace>>();

  of({ consumer, topic, partition }: Named): ConsumerPlace | undefined {
    return this.#placesByConsumer.get(consumer)?.get(nameOf(topic, partition));
  }

  /** What the event changes; ask about it before. */
  see(event: HistoryEvent): void {
    switch (event.type) {
      case "assigned":
        for (const { topic, topicId, partition, generation, position } of event.partitions)
          this.#placesOf(event.consumer).set(nameOf(topic, partition), {
            log: { topic, topicId, partition },
            generation,
            next: position,
          });
        return;
      case "polled": {
        const place = this.of(event);
        if (place)
          this.#placesOf(event.consumer).set(nameOf(event.topic, event.partition), {
            ...place,
            next: event.next,
          });
        return;
      }
      case "revoked":
        for (const { topic, partition } of event.partitions)
          this.#placesOf(event.consumer).delete(nameOf(topic, partition));
        return;
      case "ended":
        this.#placesByConsumer.delete(event.consumer);
        return;
      default:
        return;
    }
  }

  #placesOf(consumer: string): Map<string, ConsumerPlace> {
    const places = this.#placesByConsumer.get(consumer) ?? new Map<string, ConsumerPlace>();
    this.#placesByConsumer.set(consumer, places);
    return places;
  }
}

function nameOf(topic: string, partition: number): string {
  return `${topic}/${partition}`;
}
