// What holds of the records themselves, whoever has seen them.

import type { Anomaly } from "./checker.ts";
import type { EventOf, History } from "./history.ts";
import { logKey, type SeenValues, toldPlaces } from "./seen-values.ts";

export function findLogAnomalies(history: History, seen: SeenValues): readonly Anomaly[] {
  return [
    ...findTwoValues(seen),
    ...findTwoPlaces(seen),
    ...findUnsent(seen),
    ...findUntrueAnswers(seen),
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

/** Lost, or elsewhere than the answer said. */
function findUntrueAnswers(seen: SeenValues): readonly Anomaly[] {
  return [...new Set(seen.sendsByValue.values())].flatMap((send) => {
    const outcome = seen.outcomes.get(send.send);
    if (outcome?.type !== "sent") return [];
    const told = toldPlaces(send, outcome);
    return send.appends
      .filter(({ topic }) => seen.steadyTopics.has(topic))
      .flatMap(({ topic, values }) =>
        values.flatMap((value) => judgeAnswer(seen, { value, topic, told: told.get(value) })),
      );
  });
}

interface AnsweredValue {
  readonly value: string;
  readonly topic: string;
  readonly told: { readonly partition: number; readonly offset: number } | undefined;
}

function judgeAnswer(seen: SeenValues, { value, topic, told }: AnsweredValue): readonly Anomaly[] {
  const logs = [...seen.finalLogs.values()].filter((log) => log.topic === topic);
  const sightings = [...(seen.placesByValue.get(value)?.values() ?? [])];
  const elsewhere = sightings.find(
    ({ log, offset }) => told && (log.partition !== told.partition || offset !== told.offset),
  );
  if (told && elsewhere)
    return [
      {
        name: "value changed",
        says: `${value} is at ${logKey(elsewhere.log)}@${elsewhere.offset}, its producer was told ${told.partition}@${told.offset}`,
      },
    ];
  const isTrimmed = told
    ? logs.some((log) => log.partition === told.partition && told.offset < log.logStartOffset)
    : logs.some((log) => log.logStartOffset > 0);
  if (seen.finalValues.has(value) || isTrimmed || logs.length === 0) return [];
  const place = told ? ` at ${told.partition}@${told.offset}` : "";
  return [{ name: "lost write", says: `${value} was acknowledged${place} and is not in ${topic}` }];
}

function findGaps({ finalLogs }: SeenValues): readonly Anomaly[] {
  return [...finalLogs.values()].flatMap((log) => {
    const found = log.records.map(({ offset }) => offset);
    const isDense =
      found.length === log.logEndOffset - log.logStartOffset &&
      found.every((offset, index) => offset === log.logStartOffset + index);
    if (isDense) return [];
    const { logStartOffset, logEndOffset } = log;
    const says = `${logKey(log)} has ${found.length} records from ${logStartOffset} to ${logEndOffset}`;
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
