// Every committed offset was asked for, by somebody who was not refused: what an ack is answered with is one thing, what
// it has done to the row another.

import type { Anomaly } from "./checker.ts";
import { groupsAhead } from "./delivery-checks.ts";
import type { EventOf, History } from "./history.ts";

interface Asking {
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
}

export function findUnaskedCommits(history: History): readonly Anomaly[] {
  const ahead = groupsAhead(history);
  const before = history.find((event) => event.type === "snapshot")?.committed ?? [];
  const asked = new Set([...before, ...acknowledged(history), ...otherwiseCommitted(history)].map(textOf));
  const unasked = new Map<string, Asking>();
  for (const event of history)
    for (const row of event.type === "snapshot" ? event.committed : [])
      if (!ahead.has(row.group) && !asked.has(textOf(row))) unasked.set(textOf(row), row);
  return [...unasked.keys()].map((what) => ({
    name: "stale commit accepted",
    says: `${what} is committed, and whoever asked for it was refused`,
  }));
}

/** What acks ask for, those entries aside that were refused. */
function acknowledged(history: History): readonly Asking[] {
  const groupByConsumer = new Map<string, string>();
  const answers = new Map<string, EventOf<"acked">>();
  for (const event of history) {
    if (event.type === "subscribed" && event.group !== null) groupByConsumer.set(event.consumer, event.group);
    if (event.type === "acked") answers.set(event.ack, event);
  }
  return history.flatMap((event) => {
    const group = event.type === "acking" ? groupByConsumer.get(event.consumer) : undefined;
    if (event.type !== "acking" || group === undefined) return [];
    const refused = answers.get(event.ack)?.offsets.filter(({ code }) => isRefusal(code)) ?? [];
    return event.offsets
      .filter(({ topic, partition }) => !refused.some((each) => isSame(each, { topic, partition })))
      .map((entry) => ({ ...entry, group }));
  });
}

/** Where the topic is gone, what was committed before has gone with it. */
function isRefusal(code: string | undefined): boolean {
  return code !== undefined && !["outcome_unknown", "unknown_topic", "unknown_partition"].includes(code);
}

/** Transactions that were not refused, resets, commits from outside. */
function otherwiseCommitted(history: History): readonly Asking[] {
  const refused = new Set(history.flatMap((event) => (event.type === "not-sent" ? [event.send] : [])));
  return history.flatMap((event): readonly Asking[] => {
    if (event.type === "passing") return [event];
    if (event.type === "snapshot") return event.resets;
    if (event.type !== "send" || !event.commits || refused.has(event.send)) return [];
    const { group, offsets } = event.commits;
    return offsets.map((entry) => ({ ...entry, group }));
  });
}

type PartitionName = Pick<Asking, "topic" | "partition">;

function isSame(one: PartitionName, other: PartitionName): boolean {
  return one.topic === other.topic && one.partition === other.partition;
}

function textOf({ group, topic, partition, offset }: Asking): string {
  return `${group}: ${offset} of ${topic}/${partition}`;
}
