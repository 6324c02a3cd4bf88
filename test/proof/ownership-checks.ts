// What holds of owners: a generation is one consumer's, and later ones are greater.

import type { Anomaly } from "./checker.ts";
import type { EventOf, History, HistoryEvent } from "./history.ts";
import { logKey } from "./log-key.ts";

export function findOwnershipAnomalies(history: History): readonly Anomaly[] {
  const owners = new Owners();
  for (const event of history) owners.see(event);
  return owners.anomalies;
}

class Owners {
  readonly anomalies: Anomaly[] = [];
  readonly #groupByConsumer = new Map<string, string>();
  readonly #consumerByGeneration = new Map<string, string>();
  /** The highest that each consumer was told of, by consumer, topic and partition. */
  readonly #toldGenerations = new Map<string, number>();
  /** The highest that a snapshot has seen, by group and partition. */
  readonly #generations = new Map<string, number>();

  see(event: HistoryEvent): void {
    if (event.type === "subscribed" && event.group !== null)
      this.#groupByConsumer.set(event.consumer, event.group);
    if (event.type === "assigned") this.#seeAssigned(event);
    if (event.type === "snapshot") this.#seeSnapshot(event);
  }

  #seeAssigned({ consumer, partitions }: EventOf<"assigned">): void {
    const group = this.#groupByConsumer.get(consumer);
    if (group === undefined) return;
    for (const { generation, ...log } of partitions) {
      const key = `${group} ${logKey(log)} generation ${generation}`;
      const other = this.#consumerByGeneration.get(key) ?? consumer;
      this.#consumerByGeneration.set(key, consumer);
      if (other !== consumer) this.#tell(`${key} is of ${other} and of ${consumer}`);
      // Of a topic created anew, too: no generation of a group comes again.
      const name = `${consumer} ${log.topic}/${log.partition}`;
      const before = this.#toldGenerations.get(name) ?? generation;
      this.#toldGenerations.set(name, Math.max(before, generation));
      if (generation < before) this.#tell(`${name} has generation ${generation} after ${before}`);
    }
  }

  #seeSnapshot({ owners }: EventOf<"snapshot">): void {
    const owned = new Set<string>();
    for (const { group, generation, ...log } of owners) {
      const key = `${group} ${logKey(log)}`;
      if (owned.has(key)) this.#tell(`${key} has two owners at once, one in generation ${generation}`);
      owned.add(key);
      const before = this.#generations.get(key) ?? generation;
      this.#generations.set(key, Math.max(before, generation));
      if (generation < before) this.#tell(`${key} went from generation ${before} to ${generation}`);
    }
  }

  #tell(says: string): void {
    this.anomalies.push({ name: "split ownership", says });
  }
}
