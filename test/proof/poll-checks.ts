// What holds of the frames of one consumer: every record from its position on, once, in order. Only what the log does
// not hold any more may be passed over.

import type { Anomaly } from "./checker.ts";
import { type ConsumerPlace, ConsumerPlaces } from "./consumer-places.ts";
import type { EventOf, History, LogRef } from "./history.ts";
import { logKey } from "./seen-values.ts";

export function findPollAnomalies(history: History): readonly Anomaly[] {
  const places = new ConsumerPlaces();
  const anomalies: Anomaly[] = [];
  const logStarts = logStartsOf(history);
  const isGone = (log: LogRef, offset: number) => offset < (logStarts.get(logKey(log)) ?? 0);
  for (const event of history) {
    if (event.type === "polled") anomalies.push(...judgePoll(event, places.of(event), isGone));
    places.see(event);
  }
  return anomalies;
}

type IsGone = (log: LogRef, offset: number) => boolean;

/** The highest of each partition, by its key. */
function logStartsOf(history: History): ReadonlyMap<string, number> {
  const starts = new Map<string, number>();
  for (const event of history) {
    const logs = event.type === "snapshot" ? event.logs : event.type === "log" ? [event] : [];
    for (const log of logs)
      starts.set(logKey(log), Math.max(starts.get(logKey(log)) ?? 0, log.logStartOffset));
  }
  return starts;
}

function judgePoll(
  poll: EventOf<"polled">,
  place: ConsumerPlace | undefined,
  isGone: IsGone,
): readonly Anomaly[] {
  const { consumer, topic, partition, generation, records, next } = poll;
  const what = `${consumer}, ${topic}/${partition}, generation ${generation}`;
  if (!place || place.generation !== generation || place.next === null) {
    const owned = place ? `generation ${place.generation} at ${place.next}` : "nothing of it";
    return [{ name: "split ownership", says: `${what}: was sent records and owns ${owned}` }];
  }
  const [first = next, ...others] = records.map(({ offset }) => offset);
  const isSkipped = (offset: number) => !isGone(place.log, offset);
  const between = findBreaks([place.next - 1, first], isSkipped);
  const inside = findBreaks(records.length > 0 ? [first, ...others, next] : [], isSkipped);
  return [
    ...between.map((says) => ({ name: `external ${says.kind}`, says: `${what}: ${says.text}` }) as const),
    ...inside.map((says) => ({ name: `internal ${says.kind}`, says: `${what}: ${says.text}` }) as const),
  ];
}

interface Break {
  readonly kind: "non-monotonic poll" | "poll skip";
  readonly text: string;
}

/** Where one offset is not the successor of the one before, and what is between them is not gone. */
function findBreaks(offsets: readonly number[], isSkipped: (offset: number) => boolean): readonly Break[] {
  return offsets.slice(1).flatMap((offset, index): readonly Break[] => {
    const before = offsets[index] ?? 0;
    if (offset <= before) return [{ kind: "non-monotonic poll", text: `${offset} after ${before}` }];
    for (let missing = before + 1; missing < offset; missing += 1)
      if (isSkipped(missing))
        return [{ kind: "poll skip", text: `${missing} was not sent before ${offset}` }];
    return [];
  });
}
