// What can be wrong with what goes: by compaction, by retention, with a group's age.

import type { EventOf, History, LogRef, SeenLog, TopicSettings } from "../history.ts";
import { KnownRecords } from "../known-records.ts";
import { logKey } from "../log-key.ts";
import { GROUP_IDLE_MS } from "../story-network.ts";
import { type At, type Facts, isOf, type Mutation } from "./mutation.ts";

const FOR_EVER_MS = 1_000_000_000;

export const KEEPING_MUTATIONS: readonly Mutation[] = [
  {
    name: "the newest record of a key is compacted",
    expected: ["lost newest of a key"],
    spoil: (facts) =>
      eachEnd(facts, (end) => {
        if (!end.isCompacted) return [];
        return newestOfKeys(facts, end.log)
          .filter(({ isTombstone }) => !isTombstone)
          .map(({ offset }) => withGone(facts, end, offset));
      }),
  },
  {
    name: "a tombstone is compacted before its time",
    expected: ["deleted too early"],
    spoil: (facts) =>
      eachEnd(facts, (end) => {
        const { log, isCompacted } = end;
        const mayGo = tombstoneTimes(facts, log).some((ms) => ms !== null);
        if (!isCompacted || mayGo) return [];
        return newestOfKeys(facts, log)
          .filter(({ isTombstone }) => isTombstone)
          .map(({ offset }) => withGone(facts, end, offset));
      }),
  },
  {
    name: "a record is compacted in a log that is not",
    expected: ["gap in offsets"],
    spoil: (facts) =>
      eachEnd(facts, (end) =>
        end.isUncompacted ? end.log.records.map(({ offset }) => withGone(facts, end, offset)) : [],
      ),
  },
  {
    name: "the last record of a log is compacted",
    expected: ["lost last record"],
    spoil: (facts) =>
      eachEnd(facts, (end) => {
        const last = end.log.records.at(-1);
        return end.isCompacted && last ? [withGone(facts, end, last.offset)] : [];
      }),
  },
  {
    name: "nothing tells that a record is compacted",
    expected: ["gap in offsets"],
    spoil: function* (facts) {
      for (const { index, event } of facts.all("snapshot"))
        for (const [nth, log] of event.logs.entries()) {
          const gone = log.gone?.filter(
            (each) => each < (facts.seen.finalLogs.get(logKey(log))?.logStartOffset ?? each + 1),
          );
          if (!log.gone || !gone || gone.length === log.gone.length) continue;
          yield facts.replace(index, { ...event, logs: event.logs.with(nth, { ...log, gone }) });
        }
    },
  },
  {
    name: "records are compacted that are too young",
    expected: ["deleted too early"],
    spoil: function* (facts) {
      const records = new KnownRecords(facts.history, facts.seen);
      for (const { index, event } of facts.all("snapshot"))
        for (const log of event.logs)
          if (
            isSet(facts.snapshotBefore(index), log) &&
            log.gone?.some((offset) => isReplaced(records, log, offset))
          )
            yield withSettings(facts, log, { minLagMs: FOR_EVER_MS, tombstoneMs: null });
    },
  },
  {
    name: "a log starts higher, and nobody has asked for it",
    expected: ["kept too little"],
    spoil: (facts) =>
      eachEnd(facts, ({ at, log }) => {
        if (log.records.length === 0 || mayBeShortened(facts, log)) return [];
        const higher = <T extends SeenLog>(bounds: T): T => ({
          ...bounds,
          logStartOffset: bounds.logStartOffset + 1,
        });
        return [
          facts.map((event) => {
            if (event === log) return { ...higher(log), records: log.records.slice(1) };
            if (event !== at.event) return event;
            const logs = at.event.logs.map((each) => (logKey(each) === logKey(log) ? higher(each) : each));
            return { ...at.event, logs };
          }),
        ];
      }),
  },
  {
    name: "a record of a compacted log has no key",
    expected: ["keyless in a compacted log"],
    spoil: (facts) =>
      eachEnd(facts, ({ isCompacted, log }) =>
        isCompacted ? log.records.map(({ value }) => withoutKey(facts, value)) : [],
      ),
  },
  {
    name: "a group that has members expires",
    expected: ["group expired in use"],
    spoil: function* (facts) {
      for (const { index, event } of facts.all("snapshot")) {
        const before = facts.snapshotBefore(index);
        for (const group of event.groups ?? []) {
          const was = before?.groups?.find((each) => each.createdAt === group.createdAt);
          if (!was || !isSoonAfter(event, before) || was.aliveUntilMs <= (event.nowMs ?? 0)) continue;
          yield facts.replace(index, {
            ...event,
            groups: event.groups?.filter((each) => each !== group) ?? [],
          });
        }
      }
    },
  },
  {
    name: "a group expires before its time",
    expected: ["group expired in use"],
    spoil: function* (facts) {
      for (const { index, event } of facts.all("snapshot")) {
        const before = facts.snapshotBefore(index)?.groups ?? [];
        const isThere = new Set(event.groups?.map(({ createdAt }) => createdAt));
        if (before.every(({ createdAt }) => isThere.has(createdAt))) continue;
        yield facts.map((each) => (isOf(each, "groups-expire") ? { ...each, idleMs: FOR_EVER_MS } : each));
      }
    },
  },
];

/** A partition at the end, with the last snapshot of it. */
interface End {
  readonly at: At<"snapshot">;
  readonly log: EventOf<"log">;
  /** In the last two snapshots. */
  readonly isCompacted: boolean;
  readonly isUncompacted: boolean;
}

function* eachEnd(facts: Facts, spoil: (end: End) => readonly History[]): Iterable<History> {
  const [before, at] = [...facts.all("snapshot")].slice(-2);
  if (!before || !at) return;
  for (const { event: log } of facts.all("log")) {
    const [was, is] = [settingsOf(before, log), settingsOf(at, log)];
    const isSame = was?.cleanupVersion === is?.cleanupVersion;
    const isCompacted = is?.isCompacted ?? false;
    yield* spoil({ at, log, isCompacted: isSame && isCompacted, isUncompacted: isSame && !isCompacted });
  }
}

function settingsOf({ event }: At<"snapshot">, log: LogRef): TopicSettings | undefined {
  return event.settings?.find(({ topicId }) => topicId === log.topicId);
}

/** Of the keys of a log each record that is the newest, where all after it are known, the last of all aside. */
function newestOfKeys(facts: Facts, log: EventOf<"log">) {
  const records = new KnownRecords(facts.history, facts.seen);
  return log.records.slice(0, -1).flatMap(({ offset }) => {
    const record = records.at(log, offset);
    if (!record || record.key === null) return [];
    return records.nextOfKey(log, record, log.logEndOffset) === undefined ? [record] : [];
  });
}

/** Nobody could have left and been forgotten between them. */
function isSoonAfter({ nowMs = 0 }: EventOf<"snapshot">, before: EventOf<"snapshot"> | undefined): boolean {
  return Math.abs(nowMs - (before?.nowMs ?? 0)) < GROUP_IDLE_MS;
}

/** Its settings are no longer those of a new topic. */
function isSet(snapshot: EventOf<"snapshot"> | undefined, { topicId }: LogRef): boolean {
  return snapshot?.settings?.some((each) => each.topicId === topicId) ?? false;
}

function isReplaced(records: KnownRecords, log: SeenLog, offset: number): boolean {
  const record = records.at(log, offset);
  // The last of all has come later than the look, perhaps.
  return record !== undefined && typeof records.nextOfKey(log, record, log.logEndOffset) === "number";
}

function withGone(facts: Facts, { at, log }: End, offset: number): History {
  return facts.map((event) => {
    if (event === log) return { ...log, records: log.records.filter((record) => record.offset !== offset) };
    if (event !== at.event) return event;
    const logs = at.event.logs.map((each) =>
      logKey(each) === logKey(log) ? { ...each, gone: [...(each.gone ?? []), offset] } : each,
    );
    return { ...at.event, logs };
  });
}

function withSettings(facts: Facts, { topic, topicId }: LogRef, to: Partial<TopicSettings>): History {
  return facts.map((event) => {
    if (isOf(event, "setting") && event.topic === topic) return { ...event, to: { ...event.to, ...to } };
    if (!isOf(event, "snapshot")) return event;
    const settings = event.settings?.map((each) => (each.topicId === topicId ? { ...each, ...to } : each));
    return { ...event, ...(settings && { settings }) };
  });
}

function withoutKey(facts: Facts, value: string): History {
  return facts.map((event) => {
    if (!isOf(event, "send")) return event;
    const appends = event.appends.map((append) => {
      const nth = append.values.indexOf(value);
      return nth < 0 || !append.keys ? append : { ...append, keys: append.keys.with(nth, null) };
    });
    return { ...event, appends };
  });
}

function tombstoneTimes(facts: Facts, { topic }: LogRef): readonly (number | null)[] {
  return [...facts.all("setting")].flatMap(({ event }) =>
    event.topic === topic && event.to.tombstoneMs !== undefined ? [event.to.tombstoneMs] : [],
  );
}

/** Somebody has asked for a trim, or for a retention. */
function mayBeShortened(facts: Facts, { topic, partition, logStartOffset }: EventOf<"log">): boolean {
  const isTrimmed = [...facts.all("trimming")].some(
    ({ event }) => event.topic === topic && event.partition === partition && event.before > logStartOffset,
  );
  const isRetained = [...facts.all("setting")].some(
    ({ event: { topic: name, to } }) =>
      name === topic &&
      [to.retentionMs, to.retentionBytes, to.retentionRecords].some((limit) => limit != null),
  );
  return isTrimmed || isRetained;
}
