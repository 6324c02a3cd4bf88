// What holds of one producer's sends.

import type { Anomaly } from "./checker.ts";
import type { History, SendEvent } from "./history.ts";
import { logKey } from "./log-key.ts";
import type { SeenValues } from "./seen-values.ts";

export function findSendAnomalies(history: History, seen: SeenValues): readonly Anomaly[] {
  return [...findAbortedReads(seen), ...findDisorder(history, seen)];
}

function findAbortedReads({ sightings, sendsByValue, outcomes }: SeenValues): readonly Anomaly[] {
  return sightings.flatMap(({ value, log, offset, by }) => {
    const outcome = outcomes.get(sendsByValue.get(value)?.send ?? "");
    if (outcome?.type !== "not-sent") return [];
    const says = `${by} saw ${value} at ${logKey(log)}@${offset}, whose producer was told ${outcome.code}`;
    return [{ name: "aborted read", says }] as const;
  });
}

/** In every partition the values of a producer must be in the order in which it has sent them. */
function findDisorder(history: History, seen: SeenValues): readonly Anomaly[] {
  const anomalies: Anomaly[] = [];
  /** By producer and partition: its last record there. */
  const last = new Map<string, { value: string; offset: number }>();
  for (const event of history) {
    if (event.type !== "send" || !hasOrder(event, seen)) continue;
    for (const value of event.appends.flatMap(({ values }) => values))
      for (const { log, offset } of seen.placesByValue.get(value)?.values() ?? []) {
        const key = `${event.producer} ${logKey(log)}`;
        const before = last.get(key);
        if (before && before.offset >= offset)
          anomalies.push({
            name: "non-monotonic send",
            says: `${event.producer} sent ${before.value} first, it is at ${before.offset}, and ${value} at ${offset} of ${logKey(log)}`,
          });
        last.set(key, { value, offset });
      }
  }
  return anomalies;
}

/** What a producer without sequences never heard of may come to be written later than what it has sent since. */
function hasOrder(send: SendEvent, { outcomes }: SeenValues): boolean {
  return send.isIdempotent || outcomes.get(send.send)?.type === "sent";
}
