// What a history tells of the records of each partition, wherever it does: their keys, and what they weigh.

import type { EventOf, History, LogRef, SendEvent, Value } from "./history.ts";
import { logKey } from "./log-key.ts";
import { type SeenValues, toldPlaces } from "./seen-values.ts";

export interface KnownRecord {
  readonly offset: number;
  /** Null: it has none. */
  readonly key: string | null;
  readonly isTombstone: boolean;
}

export class KnownRecords {
  readonly #recordsByLog = new Map<string, Map<number, KnownRecord>>();
  readonly #offsetsByKey = new Map<string, number[]>();
  readonly #bytesByLog = new Map<string, Map<number, number>>();

  constructor(history: History, seen: SeenValues) {
    const about = keysOf(history);
    for (const { value, log, offset } of seen.sightings) this.#add(logKey(log), offset, about.get(value));
    for (const [send, outcome] of answers(history, seen))
      for (const [value, { topic, partition, offset }] of toldPlaces(send, outcome)) {
        const topicId = idOf(seen, topic);
        if (topicId !== undefined) this.#add(logKey({ topic, topicId, partition }), offset, about.get(value));
      }
    for (const offsets of this.#offsetsByKey.values()) offsets.sort((one, other) => one - other);
    for (const event of history)
      for (const log of event.type === "snapshot" ? event.logs : [])
        for (const { offset, bytes } of log.appended ?? []) this.#bytesOf(log).set(offset, bytes);
  }

  at(log: LogRef, offset: number): KnownRecord | undefined {
    return this.#recordsByLog.get(logKey(log))?.get(offset);
  }

  /** The next offset of its key below `end`; "unknown" where a record of which nothing is known may be that. */
  nextOfKey(log: LogRef, { offset, key }: KnownRecord, end: number): number | "unknown" | undefined {
    const offsets = key === null ? [] : (this.#offsetsByKey.get(`${logKey(log)} ${key}`) ?? []);
    const next = offsets.find((each) => each > offset && each < end);
    for (let between = offset + 1; between < (next ?? end); between += 1)
      if (!this.at(log, between)) return "unknown";
    return next;
  }

  lastWithoutKey(log: LogRef, end: number): number | undefined {
    return this.#offsetsByKey.get(`${logKey(log)} null`)?.findLast((offset) => offset < end);
  }

  /** Of the half-open range, at most. */
  weight(log: LogRef, from: number, until: number): number {
    let sum = 0;
    for (let offset = from; offset < until; offset += 1)
      sum += this.#bytesOf(log).get(offset) ?? Number.POSITIVE_INFINITY;
    return sum;
  }

  #add(log: string, offset: number, about: Omit<KnownRecord, "offset"> | undefined): void {
    const records = this.#recordsByLog.get(log) ?? new Map<number, KnownRecord>();
    this.#recordsByLog.set(log, records);
    if (!about || records.has(offset)) return;
    records.set(offset, { offset, ...about });
    const name = about.key === null ? `${log} null` : `${log} ${about.key}`;
    const offsets = this.#offsetsByKey.get(name) ?? [];
    this.#offsetsByKey.set(name, offsets);
    offsets.push(offset);
  }

  #bytesOf(log: LogRef): Map<number, number> {
    const bytes = this.#bytesByLog.get(logKey(log)) ?? new Map<number, number>();
    this.#bytesByLog.set(logKey(log), bytes);
    return bytes;
  }
}

function keysOf(history: History): ReadonlyMap<Value, Omit<KnownRecord, "offset">> {
  const about = new Map<Value, Omit<KnownRecord, "offset">>();
  for (const event of history)
    for (const { values, keys, tombstones = [] } of event.type === "send" ? event.appends : [])
      for (const [nth, value] of values.entries()) {
        const key = keys?.[nth];
        if (key !== undefined) about.set(value, { key, isTombstone: tombstones.includes(value) });
      }
  return about;
}

function* answers(history: History, { outcomes }: SeenValues): Iterable<[SendEvent, EventOf<"sent">]> {
  for (const event of history) {
    const outcome = event.type === "send" ? outcomes.get(event.send) : undefined;
    if (event.type === "send" && outcome?.type === "sent") yield [event, outcome];
  }
}

/** Where there was only one of that name. */
function idOf({ steadyTopics, finalLogsByTopic }: SeenValues, topic: string): number | undefined {
  const [log] = finalLogsByTopic.get(topic) ?? [];
  return steadyTopics.has(topic) ? log?.topicId : undefined;
}
