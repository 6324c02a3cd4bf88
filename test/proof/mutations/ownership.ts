// What can be wrong with what consumers are told to own.

import type { AnomalyName } from "../checker.ts";
import type { EventOf, History } from "../history.ts";
import type { At, Facts, Mutation } from "./mutation.ts";

type Assigned = EventOf<"assigned">["partitions"][number];

const WRONG_PLACE: readonly AnomalyName[] = ["reset started at the wrong place"];

export const OWNERSHIP_MUTATIONS: readonly Mutation[] = [
  {
    name: "a consumer was never told of what it is sent",
    expected: ["split ownership"],
    spoil: (facts) =>
      eachPart(facts, ({ at, nth, part }) => {
        // A seek, or a policy, moves within the generation.
        const isNew = facts.placeBefore(at.index, nth)?.generation !== part.generation;
        if (!isNew || !facts.nextFrame(at.index, part)) return undefined;
        return facts.replace(at.index, { ...at.event, partitions: at.event.partitions.toSpliced(nth, 1) });
      }),
  },
  {
    // Where `latest` is, and where a policy by time leads, is not known.
    name: "an ownership begins one above what is committed, or above where the log starts",
    expected: WRONG_PLACE,
    spoil: (facts) =>
      eachPart(facts, (where) => {
        const { position, reset, isSought } = where.part;
        const isJudged = reset === undefined ? isOfGroup(facts, where) : reset === "earliest";
        if (position === null || isSought || !isJudged) return undefined;
        const isLate = reset === "earliest" && position < where.part.logStartOffset;
        return isLate ? undefined : changed(facts, where, { position: position + 1 });
      }),
  },
  {
    name: "an ownership begins one below what is committed",
    expected: WRONG_PLACE,
    spoil: (facts) =>
      eachPart(facts, (where) => {
        const { position, reset, isSought } = where.part;
        if (!position || isSought || reset !== undefined || !isOfGroup(facts, where)) return undefined;
        return changed(facts, where, { position: position - 1 });
      }),
  },
  {
    name: "an ownership begins above the log end",
    expected: WRONG_PLACE,
    spoil: (facts) =>
      eachPart(facts, (where) => {
        const above = where.part.logEndOffset + 1;
        return changed(facts, where, { position: above, committedOffset: above });
      }),
  },
  {
    name: "an ownership waits for a place, and has a committed offset",
    expected: WRONG_PLACE,
    spoil: (facts) =>
      eachPart(facts, (where) => {
        const { committedOffset, logStartOffset, logEndOffset, reset, isSought, generation } = where.part;
        const isUsable =
          committedOffset !== null && committedOffset >= logStartOffset && committedOffset <= logEndOffset;
        const isNew = facts.placeBefore(where.at.index, where.nth)?.generation !== generation;
        if (!isUsable || reset !== undefined || isSought || !isNew) return undefined;
        return changed(facts, where, { position: null });
      }),
  },
  {
    name: "a consumer is told of a place above that from which it is sent",
    expected: ["external non-monotonic poll"],
    spoil: (facts) =>
      eachPart(facts, (where) => {
        const { position, committedOffset } = where.part;
        const frame = facts.nextFrame(where.at.index, where.part);
        // What was trimmed since is passed over.
        if (position === null || frame?.event.records[0]?.offset !== position) return undefined;
        return changed(facts, where, { position: position + 1, committedOffset: (committedOffset ?? 0) + 1 });
      }),
  },
  {
    name: "a consumer is told of a place below that from which it is sent",
    expected: ["external poll skip"],
    spoil: (facts) =>
      eachPart(facts, (where) => {
        const { position, committedOffset } = where.part;
        const frame = facts.nextFrame(where.at.index, where.part);
        if (!position || !frame || !facts.isKept(frame.index, where.part, position - 1)) return undefined;
        return changed(facts, where, { position: position - 1, committedOffset: (committedOffset ?? 0) - 1 });
      }),
  },
  {
    name: "a consumer is told of another generation than that in which it is sent",
    expected: ["split ownership"],
    spoil: (facts) =>
      eachPart(facts, (where) =>
        facts.nextFrame(where.at.index, where.part)
          ? changed(facts, where, { generation: where.part.generation + 1000 })
          : undefined,
      ),
  },
  {
    name: "a consumer is told of another topic of that name",
    expected: ["duplicate"],
    spoil: (facts) =>
      eachPart(facts, (where) => {
        const frame = facts.nextFrame(where.at.index, where.part);
        const isElsewhere = frame?.event.records.some(({ value }) => facts.seen.finalValues.has(value));
        return isElsewhere ? changed(facts, where, { topicId: where.part.topicId + 1000 }) : undefined;
      }),
  },
  {
    name: "two members are told of one generation",
    expected: ["split ownership"],
    spoil: (facts) =>
      eachPart(facts, ({ at, part }) => {
        const { consumer } = at.event;
        const group = facts.groupOf(consumer);
        if (group === null) return undefined;
        const other: EventOf<"subscribed"> = {
          type: "subscribed",
          consumer: "intruder",
          group,
          memberId: "intruder",
          isCommittedAhead: false,
        };
        const told = { ...at.event, consumer: other.consumer, partitions: [part] };
        return facts.replace(at.index, at.event, other, told);
      }),
  },
  {
    name: "a consumer is told of a generation below one that it has had",
    expected: ["split ownership"],
    spoil: (facts) =>
      eachPart(facts, (where) => {
        const before = facts.placeBefore(where.at.index, where.nth);
        if (!before || !isOfGroup(facts, where)) return undefined;
        return changed(facts, where, { generation: before.generation - 0.5 });
      }),
  },
];

interface Where {
  readonly at: At<"assigned">;
  readonly nth: number;
  readonly part: Assigned;
}

function* eachPart(facts: Facts, spoil: (where: Where) => History | undefined): Iterable<History> {
  for (const at of facts.all("assigned"))
    for (const [nth, part] of at.event.partitions.entries()) {
      const spoilt = spoil({ at, nth, part });
      if (spoilt) yield spoilt;
    }
}

function changed(facts: Facts, { at, nth, part }: Where, change: Partial<Assigned>): History {
  const partitions = at.event.partitions.toSpliced(nth, 1, { ...part, ...change });
  return facts.replace(at.index, { ...at.event, partitions });
}

function isOfGroup(facts: Facts, { at }: Where): boolean {
  return facts.groupOf(at.event.consumer) !== null;
}
