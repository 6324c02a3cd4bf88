// What can be wrong with the frames that a consumer is sent.

import type { EventOf, History, SeenRecord } from "../history.ts";
import { logKey } from "../log-key.ts";
import { type At, type Facts, isSame, type Mutation } from "./mutation.ts";

export const FRAME_MUTATIONS: readonly Mutation[] = [
  {
    name: "the first record of a frame is missing",
    expected: ["external poll skip"],
    spoil: (facts) => eachRecord(facts, (frame, nth) => (nth === 0 ? dropped(facts, frame, nth) : undefined)),
  },
  {
    name: "a later record of a frame is missing",
    expected: ["internal poll skip"],
    spoil: (facts) => eachRecord(facts, (frame, nth) => (nth > 0 ? dropped(facts, frame, nth) : undefined)),
  },
  {
    name: "a record comes twice in a frame",
    expected: ["internal non-monotonic poll"],
    spoil: (facts) =>
      eachRecord(facts, ({ index, event }, nth, record) =>
        facts.replace(index, { ...event, records: event.records.toSpliced(nth, 0, record) }),
      ),
  },
  {
    name: "two records of a frame are swapped",
    expected: ["internal non-monotonic poll"],
    spoil: (facts) =>
      eachRecord(facts, ({ index, event }, nth, record) => {
        const after = event.records[nth + 1];
        const records = after && event.records.toSpliced(nth, 2, after, record);
        return records && facts.replace(index, { ...event, records });
      }),
  },
  {
    name: "a record of a frame has a value that nobody has sent",
    expected: ["value changed"],
    spoil: (facts) => eachRecord(facts, (frame, nth) => withValue(facts, { frame, nth, value: "nobody's" })),
  },
  {
    name: "a record of a frame has the value of another one",
    expected: ["duplicate"],
    spoil: (facts) =>
      eachRecord(facts, (frame, nth, { value }) => {
        const other = [...facts.seen.finalValues].find((each) => each !== value);
        return other === undefined ? undefined : withValue(facts, { frame, nth, value: other });
      }),
  },
  {
    // What is deleted at the end, and nobody else was sent, is known to this one frame only.
    name: "a record of a frame has another value than in the log",
    expected: ["inconsistent offsets"],
    spoil: (facts) =>
      eachRecord(facts, (frame, nth, { offset }) => {
        const log = facts.placeBefore(frame.index)?.log;
        const final = log && facts.seen.finalLogs.get(logKey(log));
        if (!final || offset < final.logStartOffset || facts.seen.gone.has(final, offset)) return undefined;
        return withValue(facts, { frame, nth, value: "nobody's" });
      }),
  },
  {
    name: "a frame comes twice",
    expected: ["external non-monotonic poll"],
    spoil: (facts) => eachFrame(facts, ({ index, event }) => facts.replace(index, event, event)),
  },
  {
    name: "a frame says that it ends one later",
    expected: ["internal poll skip"],
    spoil: (facts) =>
      eachFrame(facts, ({ index, event }) =>
        facts.isKept(index, facts.placeBefore(index)?.log, event.next)
          ? facts.replace(index, { ...event, next: event.next + 1 })
          : undefined,
      ),
  },
  {
    name: "a frame says that it ends before its last record",
    expected: ["internal non-monotonic poll"],
    spoil: (facts) =>
      eachFrame(facts, ({ index, event }) =>
        facts.replace(index, { ...event, next: event.records.at(-1)?.offset ?? 0 }),
      ),
  },
  {
    name: "a frame is missing, and another one follows",
    expected: ["external poll skip"],
    spoil: (facts) =>
      eachFrame(facts, ({ index, event }) => {
        const after = facts.nextFrame(index, event);
        const isMissed = after && facts.isKept(after.index, facts.placeBefore(index)?.log, event.next - 1);
        return isMissed ? facts.replace(index) : undefined;
      }),
  },
  {
    name: "two frames of a partition are swapped",
    expected: ["external non-monotonic poll"],
    spoil: (facts) =>
      eachFrame(facts, ({ index, event }) => {
        const after = facts.nextFrame(index, event);
        return (
          after && facts.map((each) => (each === event ? after.event : each === after.event ? event : each))
        );
      }),
  },
  {
    name: "a frame has another generation",
    expected: ["split ownership"],
    spoil: (facts) =>
      eachFrame(facts, ({ index, event }) =>
        facts.replace(index, { ...event, generation: event.generation + 1000 }),
      ),
  },
  {
    // A reader counts its generations alone: they may be those of another reader.
    name: "a frame comes to another member",
    expected: ["split ownership"],
    spoil: (facts) =>
      eachFrame(facts, ({ index, event }) => {
        if (facts.groupOf(event.consumer) === null) return undefined;
        const other = [...facts.consumers.values()].find(
          ({ consumer, group }) => group !== null && consumer !== event.consumer,
        );
        return other && facts.replace(index, { ...event, consumer: other.consumer });
      }),
  },
  {
    name: "a frame comes after the partition was revoked, or the subscription is over",
    expected: ["split ownership"],
    spoil: (facts) =>
      eachFrame(facts, ({ index, event }) => {
        const next = facts.nextOf(index, event);
        const end = next === undefined ? undefined : facts.history[next];
        const isOver =
          end?.type === "ended" ||
          (end?.type === "revoked" && end.partitions.some((each) => isSame(each, event)));
        return next !== undefined && end && isOver ? facts.replace(next, end, event) : undefined;
      }),
  },
  {
    name: "a frame comes before its assignment",
    expected: ["split ownership"],
    spoil: function* (facts) {
      for (const { index, event } of facts.all("assigned"))
        for (const [nth, each] of event.partitions.entries()) {
          const frame = facts.nextFrame(index, each);
          // A seek, or a policy, moves within the generation.
          if (frame && facts.placeBefore(index, nth)?.generation !== each.generation)
            yield facts.replace(index, frame.event, event);
        }
    },
  },
];

type Spoilt = History | undefined;

function* eachFrame(facts: Facts, spoil: (frame: At<"polled">) => Spoilt): Iterable<History> {
  for (const frame of facts.all("polled")) {
    const spoilt = frame.event.records.length > 0 && spoil(frame);
    if (spoilt) yield spoilt;
  }
}

function* eachRecord(
  facts: Facts,
  spoil: (frame: At<"polled">, nth: number, record: SeenRecord) => Spoilt,
): Iterable<History> {
  for (const frame of facts.all("polled"))
    for (const [nth, record] of frame.event.records.entries()) {
      const spoilt = spoil(frame, nth, record);
      if (spoilt) yield spoilt;
    }
}

/** Undefined where it may have been trimmed. */
function dropped(facts: Facts, { index, event }: At<"polled">, nth: number): Spoilt {
  const offset = event.records[nth]?.offset ?? 0;
  if (!facts.isKept(index, facts.placeBefore(index)?.log, offset)) return undefined;
  return facts.replace(index, { ...event, records: event.records.toSpliced(nth, 1) });
}

function withValue(
  facts: Facts,
  { frame, nth, value }: { frame: At<"polled">; nth: number; value: string },
): History {
  const { index, event } = frame;
  const records: EventOf<"polled">["records"] = event.records.map((record, at) =>
    at === nth ? { ...record, value } : record,
  );
  return facts.replace(index, { ...event, records });
}
