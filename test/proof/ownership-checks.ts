// What holds of owners: a generation is one consumer's, and later ones are greater.

import type { Anomaly } from "./checker.ts";
import type { EventOf, History, HistoryEvent, LogRef } from "./history.ts";
import { logKey } from "./seen-values.ts";

export function findOwnershipAnomalies(history: History): readonly Anomaly[] {
  const owners = new Owners();
  for (const event of history) owners.see(event);
  return owners.anomalies;
}

class Owners {
  readonly anomalies: Anomaly[] = [];
  readonly #groupByConsumer = new Map<string, string>();
  readonly #consumerByGeneration = new Map<string, string>();
  /** The highest that a snapshot has seen, by group and partition. */
  readonly #generations = new Map<string, number>();

  see(event: HistoryEvent): void {
    if (event.type === "subscribed" && event.group !== null)
      this.#groupByConsumer.set(event.consumer, event.group);
    if (event.type === "assigned") this.#seeAssigned(event);
    if (event.type === "snapshot") for (const owner of event.owners) this.#seeOwner(owner);
  }

  #seeAssigned({ consumer, partitions }: EventOf<"assigned">): void {
    const group = this.#groupByConsumer.get(consumer);
    if (group === undefined) return;
    for (const { generation, ...log } of partitions) {
      const key = `${group} ${logKey(log)} generation ${generation}`;
      const other = this.#consumerByGeneration.get(key) ?? consumer;
      this.#consumerByGeneration.set(key, consumer);
      if (other !== consumer) this.#tell(`${key} is of ${other} and of ${consumer}`);
    }
  }

  #seeOwner({ group, generation, ...log }: LogRef & { group: string; generation: number }): void {
    const key = `${group} ${logKey(log)}`;
    const before = this.#generations.get(key) ?? generation;
    this.#generations.set(key, Math.max(before, generation));
    if (generation < before) this.#tell(`${key} went from generation ${before} to ${generation}`);
  }

  #tell(says: string): void {
    this.anomalies.push({ name: "split ownership", says });
  }
}
