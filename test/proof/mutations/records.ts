// What can be wrong with the records of the log, and with the answers to producers.

import type { EventOf, History, SendEvent } from "../history.ts";
import { logKey } from "../log-key.ts";
import { type At, type Facts, isOf, type Mutation } from "./mutation.ts";

export const RECORD_MUTATIONS: readonly Mutation[] = [
  {
    name: "a record is missing in the log",
    expected: ["gap in offsets"],
    spoil: (facts) => eachRecord(facts, (records, nth) => records.toSpliced(nth, 1)),
  },
  {
    name: "a record is in the log twice, at one offset",
    expected: ["gap in offsets"],
    spoil: (facts) =>
      eachRecord(facts, (records, nth) => records.toSpliced(nth, 0, ...records.slice(nth, nth + 1))),
  },
  {
    name: "a record has the offset of the next",
    expected: ["gap in offsets"],
    spoil: (facts) =>
      eachRecord(facts, (records, nth) =>
        records.map((record, at) => (at === nth ? { ...record, offset: record.offset + 1 } : record)),
      ),
  },
  {
    name: "a record has the value of another one",
    expected: ["duplicate"],
    spoil: (facts) =>
      eachRecord(facts, (records, nth) => {
        const other = records[nth === 0 ? 1 : 0];
        return other && records.map((each, at) => (at === nth ? { ...each, value: other.value } : each));
      }),
  },
  {
    name: "a record has a value that nobody has sent",
    expected: ["value changed"],
    spoil: (facts) =>
      eachRecord(facts, (records, nth) =>
        records.map((each, at) => (at === nth ? { ...each, value: "nobody's" } : each)),
      ),
  },
  {
    // Of two that nobody was sent, and nobody was told of, nobody knows the order.
    name: "two records of the log have changed their places",
    expected: ["inconsistent offsets", "value changed", "non-monotonic send"],
    spoil: (facts) =>
      eachRecord(facts, (records, nth) => {
        const [one, other] = records.slice(nth, nth + 2);
        if (!one || !other || ![one, other].some(({ value }) => isPlaced(facts, value))) return undefined;
        return records.toSpliced(nth, 2, { ...one, value: other.value }, { ...other, value: one.value });
      }),
  },
  {
    name: "the end of a log is lost, and nobody shows it",
    expected: ["lost write"],
    spoil: loseEnds,
  },
  {
    name: "a partition is lost",
    expected: ["lost write"],
    spoil: function* (facts) {
      for (const { index, event } of facts.all("log")) {
        const isOneOfMany = (facts.seen.finalLogsByTopic.get(event.topic)?.size ?? 0) > 1;
        if (isOneOfMany && event.records.some(({ value }) => isMissable(facts, value)))
          yield facts.replace(index);
      }
    },
  },
  {
    name: "what was acknowledged is called refused",
    expected: ["aborted read"],
    spoil: (facts) =>
      eachAnswer(facts, ({ send, values }) =>
        values.some((value) => facts.seen.placesByValue.has(value))
          ? { type: "not-sent", send, code: "unavailable" }
          : undefined,
      ),
  },
  {
    name: "what was not written is called acknowledged",
    expected: ["lost write"],
    spoil: function* (facts) {
      for (const { index, event } of facts.all("send")) {
        const isWritten = event.appends.some(({ values }) =>
          values.some((value) => facts.seen.placesByValue.has(value)),
        );
        const at = facts.history.findIndex((each) => each.type === "not-sent" && each.send === event.send);
        const isEmpty = event.appends.every(({ values }) => values.length === 0);
        if (isWritten || isEmpty || !event.appends.every(({ topic }) => isUntrimmed(facts, topic))) continue;
        const sent = { type: "sent", send: event.send, runs: [] } as const;
        if (at < 0) yield facts.replace(index, event, sent);
        else yield facts.replace(at, sent);
      }
    },
  },
  {
    name: "an answer names an offset that is one too high",
    expected: ["value changed"],
    spoil: (facts) =>
      eachRun(facts, (runs, nth) =>
        runs.map((run, at) => (at === nth ? { ...run, offset: run.offset + 1 } : run)),
      ),
  },
  {
    name: "an answer names another partition",
    expected: ["value changed"],
    spoil: (facts) =>
      eachRun(facts, (runs, nth) =>
        runs.map((run, at) => (at === nth ? { ...run, partition: run.partition + 1 } : run)),
      ),
  },
  {
    name: "an answer names one record more",
    expected: ["value changed"],
    spoil: (facts) =>
      eachRun(facts, (runs, nth) =>
        runs.map((run, at) => (at === nth ? { ...run, count: run.count + 1 } : run)),
      ),
  },
  {
    name: "an answer leaves a run out",
    expected: ["value changed"],
    spoil: (facts) => eachRun(facts, (runs, nth) => (runs.length > 1 ? runs.toSpliced(nth, 1) : undefined)),
  },
  {
    name: "an answer has a run twice",
    expected: ["value changed"],
    spoil: (facts) => eachRun(facts, (runs, nth) => runs.toSpliced(nth, 0, ...runs.slice(nth, nth + 1))),
  },
  {
    name: "what was seen was never sent",
    expected: ["value changed"],
    spoil: (facts) =>
      eachSend(facts, ({ index, event }) =>
        event.appends.some(({ values }) => values.some((value) => facts.seen.placesByValue.has(value)))
          ? facts.replace(index)
          : undefined,
      ),
  },
  {
    // Of what is not seen at all nobody knows, without an answer.
    name: "a send had a record more than there is",
    expected: ["lost write", "value changed"],
    spoil: (facts) =>
      eachSend(facts, ({ index, event }) => {
        const [append, ...others] = event.appends;
        if (!append?.values.some((value) => facts.seen.placesByValue.has(value))) return undefined;
        if (!isUntrimmed(facts, append.topic)) return undefined;
        const appends = [{ ...append, values: [...append.values, "forgotten"] }, ...others];
        return facts.replace(index, { ...event, appends });
      }),
  },
  {
    name: "two sends of a producer are swapped",
    expected: ["non-monotonic send"],
    spoil: swapSends,
  },
];

function* eachRecord(
  facts: Facts,
  change: (records: EventOf<"log">["records"], nth: number) => EventOf<"log">["records"] | undefined,
): Iterable<History> {
  for (const { index, event } of facts.all("log"))
    for (const nth of event.records.keys()) {
      const records = change(event.records, nth);
      if (records) yield facts.replace(index, { ...event, records });
    }
}

function* eachSend(facts: Facts, spoil: (send: At<"send">) => History | undefined): Iterable<History> {
  for (const send of facts.all("send")) {
    const spoilt = spoil(send);
    if (spoilt) yield spoilt;
  }
}

function* eachAnswer(
  facts: Facts,
  change: (answer: { send: string; values: readonly string[] }) => EventOf<"not-sent"> | undefined,
): Iterable<History> {
  for (const { index, event } of facts.all("sent")) {
    const send = sendOf(facts, event.send);
    const changed = change({ send: event.send, values: send?.appends.flatMap(({ values }) => values) ?? [] });
    if (changed) yield facts.replace(index, changed);
  }
}

type Runs = EventOf<"sent">["runs"];

/** Of sends of which something is seen: what is trimmed may be anywhere. */
function* eachRun(facts: Facts, change: (runs: Runs, nth: number) => Runs | undefined): Iterable<History> {
  for (const { index, event } of facts.all("sent")) {
    const values = sendOf(facts, event.send)?.appends.flatMap((append) => append.values) ?? [];
    if (!values.every((value) => facts.seen.placesByValue.has(value))) continue;
    for (const nth of event.runs.keys()) {
      const runs = change(event.runs, nth);
      if (runs) yield facts.replace(index, { ...event, runs });
    }
  }
}

function* loseEnds(facts: Facts): Iterable<History> {
  for (const { event: log } of facts.all("log")) {
    const last = log.records.at(-1);
    if (!last || !isMissable(facts, last.value)) continue;
    const cut = <T extends { logEndOffset: number }>(bounds: T): T => ({
      ...bounds,
      logEndOffset: Math.min(bounds.logEndOffset, last.offset),
    });
    yield facts.map((event) => {
      if (event === log) return { ...cut(log), records: log.records.slice(0, -1) };
      if (!isOf(event, "snapshot")) return event;
      return { ...event, logs: event.logs.map((each) => (logKey(each) === logKey(log) ? cut(each) : each)) };
    });
  }
}

function* swapSends(facts: Facts): Iterable<History> {
  const before = new Map<string, At<"send">>();
  for (const send of facts.all("send")) {
    const { producer, isIdempotent } = send.event;
    if (!isIdempotent && facts.seen.outcomes.get(send.event.send)?.type !== "sent") continue;
    const other = before.get(producer);
    before.set(producer, send);
    const logs = other && logsOf(facts, other.event);
    if (other && [...logsOf(facts, send.event)].some((log) => logs?.has(log)))
      yield facts.map((event) =>
        event === send.event ? other.event : event === other.event ? send.event : event,
      );
  }
}

function logsOf(facts: Facts, { appends }: SendEvent): ReadonlySet<string> {
  const places = appends.flatMap(({ values }) =>
    values.flatMap((value) => [...(facts.seen.placesByValue.get(value)?.values() ?? [])]),
  );
  return new Set(places.map(({ log }) => logKey(log)));
}

function sendOf(facts: Facts, send: string): SendEvent | undefined {
  const found = facts.history.find((event) => isOf(event, "send") && event.send === send);
  return found?.type === "send" ? found : undefined;
}

/** A consumer was sent it, or its producer was told where it is. */
function isPlaced(facts: Facts, value: string): boolean {
  const send = facts.seen.sendsByValue.get(value);
  const outcome = facts.seen.outcomes.get(send?.send ?? "");
  const isTold = outcome?.type === "sent" && outcome.runs.length > 0;
  const isPolled = facts.history.some(
    (event) => event.type === "polled" && event.records.some((record) => record.value === value),
  );
  return isTold || isPolled;
}

/** It was acknowledged, and nothing explains that it should be gone. */
function isMissable(facts: Facts, value: string): boolean {
  const send = facts.seen.sendsByValue.get(value);
  const outcome = facts.seen.outcomes.get(send?.send ?? "");
  return (
    send !== undefined &&
    outcome?.type === "sent" &&
    send.appends.every(({ topic }) => isUntrimmed(facts, topic))
  );
}

function isUntrimmed(facts: Facts, topic: string): boolean {
  const logs = [...(facts.seen.finalLogsByTopic.get(topic) ?? [])];
  return (
    facts.seen.steadyTopics.has(topic) &&
    logs.length > 0 &&
    logs.every((log) => log.logStartOffset === 0 && !facts.seen.gone.hasAny(log))
  );
}
