// What holds of groups that make records of records in transactions: one of each, as long as nobody has sent the group
// back, and one of all that it has committed.

import type { Anomaly } from "./checker.ts";
import { Coverage } from "./coverage.ts";
import { GroupEnds } from "./group-ends.ts";
import type { EventOf, History, HistoryEvent, LogRef, OffsetEntry, SendEvent } from "./history.ts";
import { logKey } from "./log-key.ts";
import type { SeenValues } from "./seen-values.ts";

export function findExactlyOnceAnomalies(history: History, seen: SeenValues): readonly Anomaly[] {
  const makers = gatherMakers(history, seen);
  if (makers.size === 0) return [];
  return [...findTwice(history, makers), ...findNever(history, seen, makers)];
}

/** A value that is in the log, and the source that the same transaction has committed. */
interface Made {
  readonly value: string;
  readonly source: string;
}

interface Maker {
  readonly made: Made[];
  /** All that it commits, it commits in transactions. */
  isPure: boolean;
}

/** By group. What was made of a topic that came again, nobody can tell apart. */
function gatherMakers(history: History, seen: SeenValues): ReadonlyMap<string, Maker> {
  const makers = new Map<string, Maker>();
  for (const event of history) {
    if (event.type !== "send" || !event.commits) continue;
    const maker = makers.get(event.commits.group) ?? { made: [], isPure: true };
    makers.set(event.commits.group, maker);
    const made = [...madeBy(event, event.commits.offsets)];
    if (!event.appends.every(({ topic, sources }) => sources && isWhole(seen, topic))) maker.isPure = false;
    maker.made.push(...made.filter(({ value }) => seen.finalValues.has(value)));
  }
  for (const group of groupsThatAck(history)) {
    const maker = makers.get(group);
    if (maker) maker.isPure = false;
  }
  return makers;
}

function* madeBy({ appends }: SendEvent, committed: readonly OffsetEntry[]): Iterable<Made> {
  for (const { values, sources = [] } of appends)
    for (const [index, value] of values.entries()) {
      const source = sources[index];
      if (source !== undefined && committed.some((entry) => isCommitted(source, entry)))
        yield { value, source };
    }
}

function isCommitted(source: string, { topic, partition, offset }: OffsetEntry): boolean {
  const [log, at] = source.split("@");
  return log === `${topic}/${partition}` && Number(at) < offset;
}

/** Nothing of it was trimmed, and it was always the same one. */
function isWhole({ steadyTopics, finalLogsByTopic }: SeenValues, topic: string): boolean {
  const logs = finalLogsByTopic.get(topic);
  return logs !== undefined && steadyTopics.has(topic) && [...logs].every((log) => log.logStartOffset === 0);
}

/** Those in which an ack says something that no transaction has said before it. */
function groupsThatAck(history: History): ReadonlySet<string> {
  const groupByConsumer = new Map<string, string>();
  const said = new Set<string>();
  const groups = new Set<string>();
  const text = (group: string, { topic, partition, generation, offset }: OffsetEntry) =>
    `${group} ${topic}/${partition} ${generation} ${offset}`;
  for (const event of history) {
    if (event.type === "subscribed" && event.group !== null) {
      groupByConsumer.set(event.consumer, event.group);
      if (event.isCommittedAhead) groups.add(event.group);
    }
    if (event.type === "send" && event.commits)
      for (const entry of event.commits.offsets) said.add(text(event.commits.group, entry));
    if (event.type !== "acking") continue;
    const group = groupByConsumer.get(event.consumer) ?? "";
    if (event.offsets.some((entry) => !said.has(text(group, entry)))) groups.add(group);
  }
  return groups;
}

// ── twice ────────────────────────────────────────────────────────────────────────────────────────────────

function findTwice(history: History, makers: ReadonlyMap<string, Maker>): readonly Anomaly[] {
  const returns = gatherReturns(history);
  return [...makers].flatMap(([group, { made }]) => {
    const valuesBySource = Map.groupBy(made, ({ source }) => source);
    return [...valuesBySource].flatMap(([source, values]): readonly Anomaly[] => {
      const [log = "", at] = source.split("@");
      const sentBack = (returns.get(`${group} ${log}`) ?? []).filter((sent) => isBelow(sent, Number(at)));
      if (values.length <= 1 + sentBack.length) return [];
      const says = `${group} has made ${values.map(({ value }) => value).join(" and ")} of ${source}`;
      return [{ name: "processed twice", says }];
    });
  });
}

/** The half-open range that a group was sent back over. */
interface Return {
  readonly to: number;
  readonly from: number;
}

function isBelow({ to, from }: Return, offset: number): boolean {
  return to <= offset && offset < from;
}

/** By group, topic and partition. Whoever seeks back may make of a frame more than its commit is for. */
function gatherReturns(history: History): ReadonlyMap<string, readonly Return[]> {
  const groupByConsumer = new Map<string, string>();
  const returns = new Map<string, Return[]>();
  const add = (key: string, sent: Return) => {
    const before = returns.get(key) ?? [];
    before.push(sent);
    returns.set(key, before);
  };
  const ends = new GroupEnds();
  for (const event of history) {
    if (event.type === "subscribed" && event.group !== null) groupByConsumer.set(event.consumer, event.group);
    if (event.type === "snapshot") {
      for (const { group, topic, partition, previous, offset } of event.resets)
        add(`${group} ${topic}/${partition}`, { to: offset, from: previous ?? 0 });
      for (const { committed } of ends.see(event))
        for (const { group, topic, partition } of committed)
          add(`${group} ${topic}/${partition}`, { to: 0, from: Number.POSITIVE_INFINITY });
    }
    if (event.type === "assigned")
      for (const { topic, partition, isSought, position } of event.partitions)
        if (isSought && position !== null)
          add(`${groupByConsumer.get(event.consumer)} ${topic}/${partition}`, {
            to: position,
            from: Number.POSITIVE_INFINITY,
          });
  }
  return returns;
}

// ── never ────────────────────────────────────────────────────────────────────────────────────────────────

/** Judged only of groups that commit in no other way, and whose results are all still there. */
function findNever(
  history: History,
  seen: SeenValues,
  makers: ReadonlyMap<string, Maker>,
): readonly Anomaly[] {
  const coverage = new Coverage("commits");
  let last: EventOf<"snapshot"> | undefined;
  for (const event of history) {
    coverage.see(event);
    if (event.type === "snapshot") last = event;
  }
  const settled = history.filter(isSettled).flatMap(({ groups }) => groups.map(({ group }) => group));
  return (last?.committed ?? []).flatMap((row): readonly Anomaly[] => {
    const maker = makers.get(row.group);
    const log = coverage.logs.get(`${row.topic}/${row.partition}`);
    if (!maker?.isPure || !settled.includes(row.group)) return [];
    if (!log || !seen.steadyTopics.has(row.topic)) return [];
    const covered = coverage.of(row.group, row);
    for (const offset of offsetsMade(maker, row)) covered.add(offset, offset + 1);
    const missing = coverage.firstMissing(row.group, row, [log.logStartOffset, row.offset]);
    if (missing === undefined) return [];
    const says = `${row.group} has committed ${row.offset} of ${logKey(row)} and made nothing of ${missing}`;
    return [{ name: "never processed", says }];
  });
}

function isSettled(event: HistoryEvent): event is EventOf<"settled"> {
  return event.type === "settled";
}

function offsetsMade({ made }: Maker, { topic, partition }: LogRef): readonly number[] {
  const offsets = made.flatMap(({ source }) => {
    const [log, at] = source.split("@");
    return log === `${topic}/${partition}` ? [Number(at)] : [];
  });
  return offsets.sort((one, other) => one - other);
}
