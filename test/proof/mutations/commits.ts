// What can be wrong with acks, with commits in transactions, and with what is made in these.

import type { EventOf, History, OffsetEntry, SendEvent } from "../history.ts";
import { type At, type Facts, isOf, isSame, type Mutation } from "./mutation.ts";

export const COMMIT_MUTATIONS: readonly Mutation[] = [
  {
    name: "an accepted ack is answered with less than it said",
    expected: ["commit went back"],
    spoil: (facts) =>
      eachAck(facts, ({ acked, nth, entry, answer }) =>
        answer.code === undefined ? answered(facts, acked, nth, { offset: entry.offset - 1 }) : undefined,
      ),
  },
  {
    name: "an ack is answered with what is not committed",
    expected: ["commit went back"],
    spoil: (facts) =>
      eachAck(facts, (where) => {
        if (where.answer.code !== undefined || !isJudged(facts, where)) return undefined;
        return answered(facts, where.acked, where.nth, { offset: where.entry.offset + 1000 });
      }),
  },
  {
    name: "an accepted ack is not committed",
    expected: ["commit went back"],
    spoil: (facts) =>
      eachAck(facts, (where) => {
        const after = where.answer.code === undefined && isJudged(facts, where);
        if (!after) return undefined;
        const group = facts.groupOf(where.acking.event.consumer);
        const committed = after.event.committed.map((row) =>
          row.group === group && isSame(row, where.entry) ? { ...row, offset: where.entry.offset - 1 } : row,
        );
        return facts.replace(after.index, { ...after.event, committed });
      }),
  },
  {
    // Only what somebody knew before the ack tells that it was over then.
    name: "an ack in a generation that was over is accepted",
    expected: ["stale commit accepted"],
    spoil: (facts) =>
      eachAck(facts, ({ acking, acked, nth, entry, answer }) => {
        const group = facts.groupOf(acking.event.consumer) ?? "";
        if (answer.code !== "fenced_generation" || !isKnownToBeOver(facts, acking.index, { group, entry }))
          return undefined;
        return answered(facts, acked, nth, { offset: entry.offset, code: undefined });
      }),
  },
  {
    name: "an accepted ack was of an older generation",
    expected: ["stale commit accepted"],
    spoil: (facts) =>
      eachAck(facts, ({ acking, entry, answer }) => {
        if (answer.code !== undefined) return undefined;
        const older = { ...entry, generation: entry.generation - 0.5 };
        const offsets = acking.event.offsets.map((each) => (each === entry ? older : each));
        return facts.replace(acking.index, { ...acking.event, offsets });
      }),
  },
  {
    name: "an accepted ack was above what was sent",
    expected: ["commit past delivered"],
    spoil: (facts) =>
      eachAck(facts, ({ acking, acked, entry, nth, answer }) => {
        if (answer.code !== undefined) return undefined;
        const offset = entry.offset + 1000;
        const asked = acking.event.offsets.map((each) => (each === entry ? { ...each, offset } : each));
        const answers = acked.event.offsets.toSpliced(nth, 1, { ...answer, offset });
        return facts
          .replace(acking.index, { ...acking.event, offsets: asked })
          .with(acked.index, { ...acked.event, offsets: answers });
      }),
  },
  {
    name: "an accepted transaction was of an older generation",
    expected: ["stale commit accepted"],
    spoil: (facts) =>
      eachCommit(facts, ({ at, commits, isDone }) => {
        if (!isDone) return undefined;
        const offsets = commits.offsets.map((entry) => ({ ...entry, generation: entry.generation - 0.5 }));
        return facts.replace(at.index, { ...at.event, commits: { ...commits, offsets } });
      }),
  },
  {
    name: "an accepted transaction commits what was not sent",
    expected: ["commit past delivered"],
    spoil: (facts) =>
      eachCommit(facts, ({ at, commits, isDone }) => {
        if (!isDone) return undefined;
        const offsets = commits.offsets.map((entry) => ({ ...entry, offset: entry.offset + 1000 }));
        return facts.replace(at.index, { ...at.event, commits: { ...commits, offsets } });
      }),
  },
  {
    name: "two values are made of one record",
    expected: ["processed twice"],
    spoil: makeTwice,
  },
  {
    name: "nothing is made of a record",
    expected: ["never processed"],
    spoil: makeNothing,
  },
];

interface Ack {
  readonly acking: At<"acking">;
  readonly acked: At<"acked">;
  readonly entry: OffsetEntry;
  /** Of the answers. */
  readonly nth: number;
  readonly answer: EventOf<"acked">["offsets"][number];
}

function* eachAck(facts: Facts, spoil: (ack: Ack) => History | undefined): Iterable<History> {
  const asked = new Map<string, At<"acking">>();
  for (const acking of facts.all("acking")) asked.set(acking.event.ack, acking);
  for (const acked of facts.all("acked"))
    for (const [nth, answer] of acked.event.offsets.entries()) {
      const acking = asked.get(acked.event.ack);
      const entry = acking?.event.offsets.find((each) => isSame(each, answer));
      const spoilt = acking && entry && spoil({ acking, acked, entry, nth, answer });
      if (spoilt) yield spoilt;
    }
}

function answered(
  facts: Facts,
  { index, event }: At<"acked">,
  nth: number,
  change: Partial<EventOf<"acked">["offsets"][number]>,
): History {
  const offsets = event.offsets.map((each, at) => (at === nth ? { ...each, ...change } : each));
  return facts.replace(index, { ...event, offsets });
}

/** The next snapshot, where no reset, and no other topic of that name, explains what it has. */
function isJudged(facts: Facts, { acking, acked, entry }: Ack): At<"snapshot"> | undefined {
  const group = facts.groupOf(acking.event.consumer);
  const after = facts.snapshotAfter(acked.index);
  if (!after || !facts.seen.steadyTopics.has(entry.topic)) return undefined;
  const between = facts.history.slice(acking.index, after.index + 1);
  const isReset = between.some(
    (event) =>
      event.type === "snapshot" && event.resets.some((row) => row.group === group && isSame(row, entry)),
  );
  return isReset ? undefined : after;
}

function isKnownToBeOver(
  facts: Facts,
  index: number,
  { group, entry }: { readonly group: string; readonly entry: OffsetEntry },
): boolean {
  return facts.history.slice(0, index).some((event) => {
    if (event.type !== "assigned" || facts.groupOf(event.consumer) !== group) return false;
    return event.partitions.some((each) => isSame(each, entry) && each.generation > entry.generation);
  });
}

// ── transactions ─────────────────────────────────────────────────────────────────────────────────────────

interface Commit {
  readonly at: At<"send">;
  readonly commits: NonNullable<SendEvent["commits"]>;
  readonly isDone: boolean;
}

function* eachCommit(facts: Facts, spoil: (commit: Commit) => History | undefined): Iterable<History> {
  for (const at of facts.all("send")) {
    const { commits, appends } = at.event;
    const isDone = appends.some(({ values }) => values.some((value) => facts.seen.finalValues.has(value)));
    const spoilt = commits && spoil({ at, commits, isDone });
    if (spoilt) yield spoilt;
  }
}

interface Made {
  readonly at: At<"send">;
  readonly source: string;
  readonly nth: number;
}

/** What was made of partitions that nobody has moved the group in: all of it, and once. */
function* eachMade(facts: Facts): Iterable<Made> {
  for (const at of facts.all("send")) {
    const [append] = at.event.appends;
    const [entry] = at.event.commits?.offsets ?? [];
    if (!append?.sources || !entry || !at.event.commits) continue;
    if (!facts.isUntouched(at.event.commits.group, entry)) continue;
    for (const [nth, source] of append.sources.entries())
      if (facts.seen.finalValues.has(append.values[nth] ?? "")) yield { at, source, nth };
  }
}

function* makeTwice(facts: Facts): Iterable<History> {
  let before: Made | undefined;
  for (const made of eachMade(facts)) {
    const isLater = before && before.source.split("@")[0] === made.source.split("@")[0];
    const group = made.at.event.commits?.group ?? "";
    // One that has ended and come again makes all once more.
    if (before && isLater && before.source !== made.source && facts.livesOnce(group))
      yield withSource(facts, made, before.source);
    before = made;
  }
}

function* makeNothing(facts: Facts): Iterable<History> {
  for (const made of eachMade(facts)) {
    const [log = "", offset] = made.source.split("@");
    const final = facts.history.find(
      (event) => isOf(event, "log") && `${event.topic}/${event.partition}` === log,
    );
    if (final?.type !== "log" || facts.seen.gone.has(final, Number(offset))) continue;
    if (Number(offset) >= final.logStartOffset) yield withSource(facts, made, "elsewhere/0@0");
  }
}

function withSource(facts: Facts, { at, nth }: Made, source: string): History {
  const [append, ...others] = at.event.appends;
  if (!append?.sources) return facts.history;
  const sources = append.sources.with(nth, source);
  return facts.replace(at.index, { ...at.event, appends: [{ ...append, sources }, ...others] });
}
