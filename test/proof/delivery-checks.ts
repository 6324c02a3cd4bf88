// What holds of a group as a whole: nothing below a committed offset was kept from it, and in the end it has everything.

import type { Anomaly } from "./checker.ts";
import { ConsumerPlaces } from "./consumer-places.ts";
import type { EventOf, History, HistoryEvent, LogRef } from "./history.ts";
import { OffsetSet } from "./offset-set.ts";
import { logKey } from "./seen-values.ts";

export function findDeliveryAnomalies(history: History): readonly Anomaly[] {
  const deliveries = new Deliveries(groupsAhead(history));
  for (const event of history) deliveries.see(event);
  return deliveries.anomalies;
}

/** Those that commit what is not delivered yet. */
export function groupsAhead(history: History): ReadonlySet<string> {
  const groups = history.map((event) =>
    event.type === "subscribed" && event.isCommittedAhead ? event.group : null,
  );
  return new Set(groups.filter((group) => group !== null));
}

/** By group and partition: what was delivered, or need not be. */
class Deliveries {
  readonly anomalies: Anomaly[] = [];
  readonly #places = new ConsumerPlaces();
  readonly #groupByConsumer = new Map<string, string>();
  readonly #groupsAhead: ReadonlySet<string>;
  readonly #covered = new Map<string, OffsetSet>();
  /** Of the last snapshot, by topic and partition. */
  #logs = new Map<string, EventOf<"snapshot">["logs"][number]>();
  #committed = new Map<string, number>();
  /** Told once. */
  readonly #told = new Set<string>();

  constructor(ahead: ReadonlySet<string>) {
    this.#groupsAhead = ahead;
  }

  see(event: HistoryEvent): void {
    switch (event.type) {
      case "subscribed":
        this.#seeSubscribed(event);
        break;
      case "assigned":
        this.#seeAssigned(event);
        break;
      case "polled":
        this.#seePolled(event);
        break;
      case "passing":
        this.#pass(event, 0, event.offset);
        break;
      case "snapshot":
        this.#seeSnapshot(event);
        break;
      case "settled":
        for (const { group, topics } of event.groups) this.#judgeEnd(group, topics);
        break;
      default:
        break;
    }
    this.#places.see(event);
  }

  #seeSubscribed({ consumer, group }: EventOf<"subscribed">): void {
    if (group !== null) this.#groupByConsumer.set(consumer, group);
  }

  /** A seek passes over what is between, and so does a policy. */
  #seeAssigned({ consumer, partitions }: EventOf<"assigned">): void {
    const group = this.#groupByConsumer.get(consumer);
    if (group === undefined) return;
    for (const { position, isSought, reset, ...log } of partitions) {
      const before = this.#places.of({ consumer, ...log })?.next ?? 0;
      const isMoved = isSought || reset !== undefined;
      if (isMoved && position !== null) this.#coveredBy(group, log).add(before, position);
    }
  }

  #seePolled(event: EventOf<"polled">): void {
    const group = this.#groupByConsumer.get(event.consumer);
    const log = this.#places.of(event)?.log;
    if (group === undefined || !log) return;
    const covered = this.#coveredBy(group, log);
    for (const { offset } of event.records) covered.add(offset, offset + 1);
  }

  #pass(at: { group: string; topic: string; partition: number }, from: number, until: number): void {
    const log = this.#logs.get(`${at.topic}/${at.partition}`);
    if (log) this.#coveredBy(at.group, log).add(from, until);
  }

  #seeSnapshot({ logs, committed, resets }: EventOf<"snapshot">): void {
    this.#logs = new Map(logs.map((log) => [`${log.topic}/${log.partition}`, log]));
    for (const reset of resets) this.#pass(reset, reset.previous ?? 0, reset.offset);
    this.#committed = new Map(committed.map((row) => [keyOf(row.group, row), row.offset]));
    for (const row of committed) this.#judgeCommitted(row);
  }

  #judgeCommitted(row: EventOf<"snapshot">["committed"][number]): void {
    const log = this.#logs.get(`${row.topic}/${row.partition}`);
    if (!log || this.#groupsAhead.has(row.group)) return;
    const covered = this.#coveredBy(row.group, row);
    const missing = covered.firstMissing(log.logStartOffset, row.offset);
    if (missing === undefined) return;
    const what = `${row.group} has committed ${row.offset} of ${logKey(row)}`;
    if (missing >= covered.end)
      this.#tell({ name: "commit past delivered", says: `${what}, ${missing} was not sent to it` });
    else this.#tell({ name: "undelivered below committed", says: `${what}, ${missing} was passed over` });
  }

  #judgeEnd(group: string, topics: readonly string[]): void {
    for (const log of this.#logs.values()) {
      if (!topics.includes(log.topic)) continue;
      const missing = this.#coveredBy(group, log).firstMissing(log.logStartOffset, log.logEndOffset);
      if (missing !== undefined && !this.#groupsAhead.has(group))
        this.#tell({ name: "unseen", says: `${group} was never sent ${missing} of ${logKey(log)}` });
      const committed = this.#committed.get(keyOf(group, log));
      if ((committed ?? -1) < log.logEndOffset)
        this.#tell({
          name: "unacknowledged at the end",
          says: `${group} has committed ${committed} of ${logKey(log)}, which ends at ${log.logEndOffset}`,
        });
    }
  }

  #coveredBy(group: string, log: LogRef): OffsetSet {
    const key = keyOf(group, log);
    const covered = this.#covered.get(key) ?? new OffsetSet();
    this.#covered.set(key, covered);
    return covered;
  }

  #tell(anomaly: Anomaly): void {
    if (this.#told.has(anomaly.says)) return;
    this.#told.add(anomaly.says);
    this.anomalies.push(anomaly);
  }
}

function keyOf(group: string, log: LogRef): string {
  return `${group} ${logKey(log)}`;
}
