// What holds of a group as a whole: nothing below a committed offset was kept from it, and in the end it has everything.

import type { Anomaly } from "./checker.ts";
import { Coverage } from "./coverage.ts";
import type { EventOf, History, HistoryEvent, LogRef } from "./history.ts";
import { logKey } from "./log-key.ts";

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

class Deliveries {
  readonly anomalies: Anomaly[] = [];
  /** What was delivered, or need not be. */
  readonly #coverage = new Coverage("deliveries");
  readonly #groupsAhead: ReadonlySet<string>;
  /** Of the last snapshot. */
  #committed = new Map<string, number>();
  /** Told once. */
  readonly #told = new Set<string>();

  constructor(ahead: ReadonlySet<string>) {
    this.#groupsAhead = ahead;
  }

  see(event: HistoryEvent): void {
    if (event.type === "polled") this.#seePolled(event);
    this.#coverage.see(event);
    if (event.type === "snapshot") this.#seeSnapshot(event);
    if (event.type === "settled") for (const { group, topics } of event.groups) this.#judgeEnd(group, topics);
  }

  #seePolled(event: EventOf<"polled">): void {
    const whose = this.#coverage.whoseFrame(event);
    if (!whose) return;
    const covered = this.#coverage.of(whose.group, whose.log);
    for (const { offset } of event.records) covered.add(offset, offset + 1);
  }

  #seeSnapshot({ committed }: EventOf<"snapshot">): void {
    this.#committed = new Map(committed.map((row) => [keyOf(row.group, row), row.offset]));
    for (const row of committed) this.#judgeCommitted(row);
  }

  #judgeCommitted(row: EventOf<"snapshot">["committed"][number]): void {
    const log = this.#coverage.logs.get(`${row.topic}/${row.partition}`);
    if (!log || log.topicId !== row.topicId) return;
    const what = `${row.group} has committed ${row.offset} of ${logKey(row)}`;
    if (row.offset > log.logEndOffset)
      this.#tell({ name: "commit past delivered", says: `${what}, which ends at ${log.logEndOffset}` });
    if (this.#groupsAhead.has(row.group)) return;
    const missing = this.#coverage.firstMissing(row.group, row, [log.logStartOffset, row.offset]);
    if (missing === undefined) return;
    if (missing >= this.#coverage.of(row.group, row).end)
      this.#tell({ name: "commit past delivered", says: `${what}, ${missing} was not sent to it` });
    else this.#tell({ name: "undelivered below committed", says: `${what}, ${missing} was passed over` });
  }

  #judgeEnd(group: string, topics: readonly string[]): void {
    for (const log of this.#coverage.logs.values()) {
      if (!topics.includes(log.topic)) continue;
      const missing = this.#coverage.firstMissing(group, log, [log.logStartOffset, log.logEndOffset]);
      if (missing !== undefined && !this.#groupsAhead.has(group))
        this.#tell({ name: "unseen", says: `${group} was never sent ${missing} of ${logKey(log)}` });
      const committed = this.#committed.get(keyOf(group, log));
      if (Math.max(committed ?? 0, log.logStartOffset) < log.logEndOffset)
        this.#tell({
          name: "unacknowledged at the end",
          says: `${group} has committed ${committed} of ${logKey(log)}, which ends at ${log.logEndOffset}`,
        });
    }
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
