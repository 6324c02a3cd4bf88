// What can be wrong with what the database has.

import type { EventOf, History } from "../history.ts";
import { logKey } from "../log-key.ts";
import { type At, type Facts, isOf, isSame, type Mutation } from "./mutation.ts";

type Snapshot = EventOf<"snapshot">;
type Committed = Snapshot["committed"][number];
type Owner = Snapshot["owners"][number];
type Bounds = Snapshot["logs"][number];

export const SNAPSHOT_MUTATIONS: readonly Mutation[] = [
  {
    name: "a committed offset is lower than before",
    expected: ["commit went back"],
    spoil: (facts) =>
      eachCommitted(facts, ({ at, row, nth }) => {
        const before = rowBefore(facts, at, row);
        if (!before || before.offset < row.offset || isReset(at.event, row)) return undefined;
        return withCommitted(facts, at, at.event.committed.with(nth, { ...row, offset: row.offset - 1 }));
      }),
  },
  {
    name: "a committed offset is forgotten",
    expected: ["commit went back"],
    spoil: (facts) =>
      eachCommitted(facts, ({ at, row, nth }) => {
        if (!rowBefore(facts, at, row) || isReset(at.event, row)) return undefined;
        return withCommitted(facts, at, at.event.committed.toSpliced(nth, 1));
      }),
  },
  {
    name: "a committed offset is higher than afterwards",
    expected: ["commit went back"],
    spoil: (facts) =>
      eachCommitted(facts, ({ at, row, nth }) => {
        const after = facts.snapshotAfter(at.index);
        const isSteady = after?.event.committed.some(
          (each) => isSameRow(each, row) && each.offset === row.offset,
        );
        if (!after || !isSteady || !isSameGroup(at.event, after.event, row) || isReset(after.event, row))
          return undefined;
        return withCommitted(facts, at, at.event.committed.with(nth, { ...row, offset: row.offset + 1 }));
      }),
  },
  {
    name: "a committed offset is above the log end",
    expected: ["commit past delivered"],
    spoil: (facts) =>
      eachCommitted(facts, ({ at, row, nth }) => {
        const log = at.event.logs.find((each) => logKey(each) === logKey(row));
        const offset = (log?.logEndOffset ?? 0) + 1;
        return log && withCommitted(facts, at, at.event.committed.with(nth, { ...row, offset }));
      }),
  },
  {
    name: "a committed offset is above what was sent",
    expected: ["commit past delivered"],
    spoil: (facts) =>
      eachCommitted(facts, ({ at, row, nth }) => {
        const log = at.event.logs.find((each) => logKey(each) === logKey(row));
        const until = sentUntil(facts, at.index, row);
        const isKept =
          log && until >= log.logStartOffset && until < log.logEndOffset && !facts.seen.gone.has(log, until);
        if (!isKept || facts.groupsAhead.has(row.group) || !facts.isUntouched(row.group, row))
          return undefined;
        return withCommitted(facts, at, at.event.committed.with(nth, { ...row, offset: until + 1 }));
      }),
  },
  {
    name: "a generation is lower than before",
    expected: ["split ownership"],
    spoil: (facts) =>
      eachOwner(facts, ({ at, row, nth }) => {
        const before = facts.snapshotBefore(at.index)?.owners.find((each) => isSameRow(each, row));
        if (before?.generation !== row.generation) return undefined;
        return withOwners(facts, at, at.event.owners.with(nth, { ...row, generation: row.generation - 0.5 }));
      }),
  },
  {
    name: "a generation is higher than afterwards",
    expected: ["split ownership"],
    spoil: (facts) =>
      eachOwner(facts, ({ at, row, nth }) => {
        const after = facts.snapshotAfter(at.index)?.event.owners.find((each) => isSameRow(each, row));
        if (after?.generation !== row.generation) return undefined;
        return withOwners(facts, at, at.event.owners.with(nth, { ...row, generation: row.generation + 0.5 }));
      }),
  },
  {
    name: "a partition has two owners",
    expected: ["split ownership"],
    spoil: (facts) =>
      eachOwner(facts, ({ at, row }) =>
        withOwners(facts, at, [...at.event.owners, { ...row, generation: row.generation + 0.5 }]),
      ),
  },
  {
    name: "a log ends before where it ended",
    expected: ["gap in offsets"],
    spoil: (facts) =>
      eachBounds(facts, (now, before) =>
        now.logEndOffset === before.logEndOffset ? { ...now, logEndOffset: now.logEndOffset - 1 } : undefined,
      ),
  },
  {
    name: "a log starts before where it started",
    expected: ["gap in offsets"],
    spoil: (facts) =>
      eachBounds(facts, (now, before) =>
        now.logStartOffset === before.logStartOffset
          ? { ...now, logStartOffset: now.logStartOffset - 1 }
          : undefined,
      ),
  },
  {
    name: "nothing tells of a reset that went back",
    expected: ["commit went back"],
    spoil: (facts) =>
      eachReset(facts, ({ at, row, nth }) => {
        const key = at.event.committed.find((each) => each.group === row.group && isSame(each, row));
        const before = key && rowBefore(facts, at, key);
        if (!before || before.offset <= key.offset) return undefined;
        return facts.replace(at.index, { ...at.event, resets: at.event.resets.toSpliced(nth, 1) });
      }),
  },
  {
    name: "a reset went further than what is committed",
    expected: ["commit went back"],
    spoil: (facts) =>
      eachReset(facts, ({ at, row, nth }) => {
        const isThere = facts
          .snapshotBefore(at.index)
          ?.logs.some(
            (each) => isSame(each, row) && at.event.logs.some((log) => logKey(log) === logKey(each)),
          );
        if (!isThere) return undefined;
        const resets = at.event.resets.with(nth, { ...row, offset: row.offset + 1000 });
        return facts.replace(at.index, { ...at.event, resets });
      }),
  },
  {
    name: "a group that has settled was never sent a record",
    expected: ["unseen"],
    spoil: (facts) => withoutRecords(facts),
  },
  {
    name: "a group has committed a record that it was never sent",
    expected: ["undelivered below committed"],
    spoil: (facts) => withoutRecords(facts, { isLastKept: true }),
  },
  {
    name: "a group that has settled has not acknowledged all",
    expected: ["unacknowledged at the end"],
    spoil: function* (facts) {
      const last = [...facts.all("snapshot")].at(-1);
      for (const [nth, row] of last?.event.committed.entries() ?? []) {
        const log = last?.event.logs.find((each) => logKey(each) === logKey(row));
        const isKept = log && row.offset > log.logStartOffset && isSettled(facts, row);
        if (last && isKept)
          yield withCommitted(
            facts,
            last,
            last.event.committed.with(nth, { ...row, offset: row.offset - 1 }),
          );
      }
    },
  },
];

interface Row<T> {
  readonly at: At<"snapshot">;
  readonly row: T;
  readonly nth: number;
}

type Spoil<T> = (row: Row<T>) => History | undefined;

function* each<T>(
  facts: Facts,
  rowsOf: (snapshot: Snapshot) => readonly T[],
  spoil: Spoil<T>,
): Iterable<History> {
  for (const at of facts.all("snapshot"))
    for (const [nth, row] of rowsOf(at.event).entries()) {
      const spoilt = spoil({ at, row, nth });
      if (spoilt) yield spoilt;
    }
}

function eachCommitted(facts: Facts, spoil: Spoil<Committed>): Iterable<History> {
  return each(facts, ({ committed }) => committed, spoil);
}

function eachOwner(facts: Facts, spoil: Spoil<Owner>): Iterable<History> {
  return each(facts, ({ owners }) => owners, spoil);
}

/** The last one of each partition in a snapshot: those before it are passed over. */
function eachReset(facts: Facts, spoil: Spoil<Snapshot["resets"][number]>): Iterable<History> {
  return each(
    facts,
    ({ resets }) => resets,
    (reset) => {
      const { at, row } = reset;
      const all = at.event.resets.filter((each) => each.group === row.group && isSame(each, row));
      return all.length === 1 ? spoil(reset) : undefined;
    },
  );
}

function eachBounds(
  facts: Facts,
  change: (now: Bounds, before: Bounds) => Bounds | undefined,
): Iterable<History> {
  return each(
    facts,
    ({ logs }) => logs,
    ({ at, row, nth }) => {
      const before = facts.snapshotBefore(at.index)?.logs.find((each) => logKey(each) === logKey(row));
      const changed = before && change(row, before);
      return changed && facts.replace(at.index, { ...at.event, logs: at.event.logs.with(nth, changed) });
    },
  );
}

/** For each record of a group that is settled: it is in none of the group's frames. */
function* withoutRecords(facts: Facts, { isLastKept = false } = {}): Iterable<History> {
  const groups = [...facts.all("settled")].flatMap(({ event }) => event.groups);
  for (const { group, topics } of groups)
    for (const { event: log } of facts.all("log")) {
      if (facts.groupsAhead.has(group) || !topics.includes(log.topic) || !facts.isUntouched(group, log))
        continue;
      for (const { offset } of isLastKept ? log.records.slice(0, -1) : log.records)
        yield facts.map((event) => {
          if (!isOf(event, "polled") || facts.groupOf(event.consumer) !== group || !isSame(event, log))
            return event;
          return { ...event, records: event.records.filter((record) => record.offset !== offset) };
        });
    }
}

function withCommitted(
  facts: Facts,
  { index, event }: At<"snapshot">,
  committed: readonly Committed[],
): History {
  return facts.replace(index, { ...event, committed });
}

function withOwners(facts: Facts, { index, event }: At<"snapshot">, owners: readonly Owner[]): History {
  return facts.replace(index, { ...event, owners });
}

function isSettled(facts: Facts, { group, topic }: Committed): boolean {
  const settled = [...facts.all("settled")].flatMap(({ event }) => event.groups);
  return settled.some((each) => each.group === group && each.topics.includes(topic));
}

function isSameRow(one: Committed | Owner, other: Committed | Owner): boolean {
  return one.group === other.group && logKey(one) === logKey(other);
}

function rowBefore(facts: Facts, { index, event }: At<"snapshot">, row: Committed): Committed | undefined {
  const before = facts.snapshotBefore(index);
  if (!before || !isSameGroup(before, event, row)) return undefined;
  return before.committed.find((each) => isSameRow(each, row));
}

/** It has not ended between them. */
function isSameGroup(one: Snapshot, other: Snapshot, { group }: Committed): boolean {
  const [was, is] = [one, other].map(({ groups }) => groups?.find((each) => each.group === group));
  return was?.createdAt === is?.createdAt;
}

function isReset({ resets }: Snapshot, { group, ...log }: Committed): boolean {
  return resets.some((row) => row.group === group && isSame(row, log));
}

/** How far the group was sent before. */
function sentUntil(facts: Facts, index: number, { group, ...log }: Committed): number {
  const ends = facts.history
    .slice(0, index)
    .map((event) =>
      event.type === "polled" && facts.groupOf(event.consumer) === group && isSame(event, log)
        ? event.next
        : 0,
    );
  return Math.max(0, ...ends);
}
