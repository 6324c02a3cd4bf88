// What holds of the records themselves, whoever has seen them.

import type { Anomaly } from "./checker.ts";
import type { EventOf, History } from "./history.ts";
import { logKey } from "./log-key.ts";
import type { SeenValues } from "./seen-values.ts";

export function findLogAnomalies(history: History, seen: SeenValues): readonly Anomaly[] {
  return [
    ...findTwoValues(seen),
    ...findTwoPlaces(seen),
    ...findUnsent(seen),
    ...findGaps(seen),
    ...findBoundsThatWentBack(history),
  ];
}

function findTwoValues({ valuesByPlace }: SeenValues): readonly Anomaly[] {
  return [...valuesByPlace]
    .filter(([, values]) => values.size > 1)
    .map(([place, values]) => ({
      name: "inconsistent offsets",
      says: `${place} is ${[...values].map(([value, { by }]) => `${value} to ${by}`).join(", ")}`,
    }));
}

function findTwoPlaces({ placesByValue }: SeenValues): readonly Anomaly[] {
  return [...placesByValue]
    .filter(([, places]) => places.size > 1)
    .map(([value, places]) => ({
      name: "duplicate",
      says: `${value} is at ${[...places.keys()].join(", ")}`,
    }));
}

function findUnsent({ sightings, sendsByValue }: SeenValues): readonly Anomaly[] {
  return sightings
    .filter(({ value }) => !sendsByValue.has(value))
    .map(({ value, log, offset, by }) => ({
      name: "value changed",
      says: `${by} saw ${value} at ${logKey(log)}@${offset}, which nobody has sent`,
    }));
}

/** What is there, and what snapshots have seen go, is all that there was, once. */
function findGaps({ finalLogs, gone }: SeenValues): readonly Anomaly[] {
  return [...finalLogs.values()].flatMap((log) => {
    const { logStartOffset, logEndOffset, records } = log;
    const expected = Array.from(
      { length: logEndOffset - logStartOffset },
      (_, n) => logStartOffset + n,
    ).filter((offset) => !gone.has(log, offset));
    const isComplete =
      records.length === expected.length && records.every(({ offset }, index) => offset === expected[index]);
    if (isComplete) return [];
    const says = `${logKey(log)} has ${records.length} records from ${logStartOffset} to ${logEndOffset}, ${expected.length} should be there`;
    return [{ name: "gap in offsets", says }] as const;
  });
}

type Bounds = Pick<EventOf<"log">, "logStartOffset" | "logEndOffset">;

function findBoundsThatWentBack(history: History): readonly Anomaly[] {
  const last = new Map<string, Bounds>();
  const anomalies: Anomaly[] = [];
  const see = (log: EventOf<"snapshot">["logs"][number]) => {
    const before = last.get(logKey(log)) ?? log;
    last.set(logKey(log), log);
    if (log.logStartOffset >= before.logStartOffset && log.logEndOffset >= before.logEndOffset) return;
    const text = ({ logStartOffset, logEndOffset }: Bounds) => `[${logStartOffset}, ${logEndOffset})`;
    anomalies.push({
      name: "gap in offsets",
      says: `${logKey(log)} went from ${text(before)} to ${text(log)}`,
    });
  };
  for (const event of history) {
    if (event.type === "snapshot") event.logs.forEach(see);
    if (event.type === "log") see(event);
  }
  return anomalies;
}
