// What holds of the answers to producers: what was acknowledged is in the log, where they say, and a send is there as a
// whole or not at all.

import type { Anomaly } from "./checker.ts";
import type { EventOf, SendEvent, Value } from "./history.ts";
import { logKey } from "./log-key.ts";
import { type SeenValues, toldPlaces } from "./seen-values.ts";

export function findAnswerAnomalies(seen: SeenValues): readonly Anomaly[] {
  return [...new Set(seen.sendsByValue.values())].flatMap((send) => {
    const outcome = seen.outcomes.get(send.send);
    if (outcome?.type === "sent") return [...judgeRuns(send, outcome), ...judgeSent(seen, send, outcome)];
    return outcome === undefined ? judgeUnanswered(seen, send) : [];
  });
}

/** An answer names as many places as there are records, in their topics, or none at all. */
function judgeRuns(send: SendEvent, { runs }: EventOf<"sent">): readonly Anomaly[] {
  if (runs.length === 0) return [];
  const unnamed = new Map<string, number>();
  const count = (topic: string, by: number) => unnamed.set(topic, (unnamed.get(topic) ?? 0) + by);
  for (const { topic, values } of send.appends) count(topic, values.length);
  for (const run of runs) count(run.topic, -run.count);
  return [...unnamed]
    .filter(([, left]) => left !== 0)
    .map(([topic, left]) => ({
      name: "value changed",
      says: `${send.send}: its answer names ${-left} places more than it has records for ${topic}`,
    }));
}

function judgeSent(seen: SeenValues, send: SendEvent, outcome: EventOf<"sent">): readonly Anomaly[] {
  const told = toldPlaces(send, outcome);
  return send.appends.flatMap(({ topic, values }) =>
    values.flatMap((value) => judgeAnswered(seen, { value, topic, told: told.get(value) })),
  );
}

interface AnsweredValue {
  readonly value: Value;
  readonly topic: string;
  readonly told: { readonly partition: number; readonly offset: number } | undefined;
}

function judgeAnswered(seen: SeenValues, { value, topic, told }: AnsweredValue): readonly Anomaly[] {
  const sightings = [...(seen.placesByValue.get(value)?.values() ?? [])];
  const elsewhere = sightings.find(
    ({ log, offset }) =>
      log.topic !== topic || (told && (log.partition !== told.partition || offset !== told.offset)),
  );
  const place = told ? ` at ${told.partition}@${told.offset}` : "";
  if (elsewhere) {
    const found = `${logKey(elsewhere.log)}@${elsewhere.offset}`;
    return [
      { name: "value changed", says: `${value} is at ${found}, it was acknowledged${place} of ${topic}` },
    ];
  }
  if (!isMissed(seen, { value, topic, told })) return [];
  return [{ name: "lost write", says: `${value} was acknowledged${place} and is not in ${topic}` }];
}

/** Nobody knows whether it was written: but what is seen of it says that all of it must be there. */
function judgeUnanswered(seen: SeenValues, send: SendEvent): readonly Anomaly[] {
  const values = send.appends.flatMap((append) => append.values);
  if (values.length < 2) return [];
  const witness = values.find((value) => seen.placesByValue.has(value));
  if (witness === undefined) return [];
  return send.appends.flatMap(({ topic, values }) =>
    values
      .filter((value) => !seen.placesByValue.has(value) && isMissed(seen, { value, topic, told: undefined }))
      .map((value) => ({
        name: "lost write" as const,
        says: `${value} is not in ${topic}, and ${witness} of the same send was seen`,
      })),
  );
}

/** It must be in its topic and is not. What a topic of another id held, and what was deleted, nobody can miss. */
function isMissed(seen: SeenValues, { value, topic, told }: AnsweredValue): boolean {
  const logs = seen.finalLogsByTopic.get(topic);
  if (!logs || seen.finalValues.has(value) || !seen.steadyTopics.has(topic)) return false;
  const sighted = [...(seen.placesByValue.get(value)?.values() ?? [])][0];
  const place = told ?? (sighted && { partition: sighted.log.partition, offset: sighted.offset });
  const mayBeDeleted = (log: EventOf<"log">) => {
    if (!place) return log.logStartOffset > 0 || seen.gone.hasAny(log);
    const { partition, offset } = place;
    return log.partition === partition && (offset < log.logStartOffset || seen.gone.has(log, offset));
  };
  return ![...logs].some(mayBeDeleted);
}
