// Where every value of a history was sent to and where it was seen, gathered once for all checks.

import { ConsumerPlaces } from "./consumer-places.ts";
import { GoneOffsets } from "./gone-offsets.ts";
import type { EventOf, History, LogRef, SeenRecord, SendEvent, Value } from "./history.ts";
import { logKey } from "./log-key.ts";

/** A record's place, as a key of maps. */
export type PlaceKey = `${string}@${number}`;

export interface Sighting extends SeenRecord {
  readonly log: LogRef;
  /** Who saw it, for the report. */
  readonly by: string;
}

export interface SeenValues {
  readonly sendsByValue: ReadonlyMap<Value, SendEvent>;
  /** By the id of the send. */
  readonly outcomes: ReadonlyMap<string, EventOf<"sent"> | EventOf<"not-sent">>;
  /** One for each place and value: who has seen it first. */
  readonly sightings: readonly Sighting[];
  readonly placesByValue: ReadonlyMap<Value, ReadonlyMap<PlaceKey, Sighting>>;
  readonly valuesByPlace: ReadonlyMap<PlaceKey, ReadonlyMap<Value, Sighting>>;
  /** What each partition holds at the end, by its key. */
  readonly finalLogs: ReadonlyMap<string, EventOf<"log">>;
  readonly finalLogsByTopic: ReadonlyMap<string, ReadonlySet<EventOf<"log">>>;
  readonly finalValues: ReadonlySet<Value>;
  /** What compaction has deleted. */
  readonly gone: GoneOffsets;
  /** Topics that were there under one id only: to others nobody can say which one a send has gone to. */
  readonly steadyTopics: ReadonlySet<string>;
}

export function placeKey(log: LogRef, offset: number): PlaceKey {
  return `${logKey(log)}@${offset}`;
}

export function gatherValues(history: History): SeenValues {
  const sendsByValue = new Map<Value, SendEvent>();
  const outcomes = new Map<string, EventOf<"sent"> | EventOf<"not-sent">>();
  const seen = new Sightings();
  const finalLogs = new Map<string, EventOf<"log">>();
  const finalLogsByTopic = new Map<string, Set<EventOf<"log">>>();
  const finalValues = new Set<Value>();
  const idsByTopic = new Map<string, Set<number>>();
  const places = new ConsumerPlaces();
  const gone = new GoneOffsets();
  const note = ({ topic, topicId }: LogRef) => add(idsByTopic, topic, topicId);

  for (const event of history) {
    if (event.type === "send")
      for (const value of event.appends.flatMap(({ values }) => values)) sendsByValue.set(value, event);
    if (event.type === "sent" || event.type === "not-sent") outcomes.set(event.send, event);
    if (event.type === "assigned") event.partitions.forEach(note);
    if (event.type === "snapshot")
      for (const log of event.logs) {
        note(log);
        for (const record of log.appended ?? []) seen.add({ ...record, log, by: "a look" });
      }
    if (event.type === "log") {
      note(event);
      finalLogs.set(logKey(event), event);
      add(finalLogsByTopic, event.topic, event);
      for (const record of event.records) {
        finalValues.add(record.value);
        seen.add({ ...record, log: event, by: "the log" });
      }
    }
    if (event.type === "polled") {
      const log = places.of(event)?.log;
      if (log) for (const record of event.records) seen.add({ ...record, log, by: event.consumer });
    }
    places.see(event);
    gone.see(event);
  }
  const steadyTopics = [...idsByTopic].filter(([, ids]) => ids.size === 1).map(([topic]) => topic);
  return {
    sendsByValue,
    outcomes,
    ...seen.all(),
    finalLogs,
    finalLogsByTopic,
    finalValues,
    gone,
    steadyTopics: new Set(steadyTopics),
  };
}

/** Where its producer was told that each of its values is. Values without a place are those of a forgotten answer. */
export function toldPlaces(
  send: SendEvent,
  { runs }: EventOf<"sent">,
): ReadonlyMap<Value, { topic: string; partition: number; offset: number }> {
  const placesByTopic = new Map<string, { topic: string; partition: number; offset: number }[]>();
  for (const { topic, partition, offset, count } of runs) {
    const places = placesByTopic.get(topic) ?? [];
    placesByTopic.set(topic, places);
    for (let n = 0; n < count; n += 1) places.push({ topic, partition, offset: offset + n });
  }
  const told = new Map<Value, { topic: string; partition: number; offset: number }>();
  const usedByTopic = new Map<string, number>();
  for (const { topic, values } of send.appends) {
    const used = usedByTopic.get(topic) ?? 0;
    usedByTopic.set(topic, used + values.length);
    for (const [index, value] of values.entries()) {
      const place = placesByTopic.get(topic)?.[used + index];
      if (place) told.set(value, place);
    }
  }
  return told;
}

class Sightings {
  readonly #sightings: Sighting[] = [];
  readonly #placesByValue = new Map<Value, Map<PlaceKey, Sighting>>();
  readonly #valuesByPlace = new Map<PlaceKey, Map<Value, Sighting>>();

  add(sighting: Sighting): void {
    const key = placeKey(sighting.log, sighting.offset);
    const places = this.#placesByValue.get(sighting.value) ?? new Map<PlaceKey, Sighting>();
    if (places.has(key)) return;
    this.#placesByValue.set(sighting.value, places.set(key, sighting));
    const values = this.#valuesByPlace.get(key) ?? new Map<Value, Sighting>();
    this.#valuesByPlace.set(key, values.set(sighting.value, sighting));
    this.#sightings.push(sighting);
  }

  all(): Pick<SeenValues, "sightings" | "placesByValue" | "valuesByPlace"> {
    return {
      sightings: this.#sightings,
      placesByValue: this.#placesByValue,
      valuesByPlace: this.#valuesByPlace,
    };
  }
}

function add<K, V>(sets: Map<K, Set<V>>, key: K, value: V): void {
  const set = sets.get(key) ?? new Set<V>();
  sets.set(key, set.add(value));
}
