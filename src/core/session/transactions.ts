// Produces and transactions over the socket: handed on in the order of the frames, answered when durable.

import type { GroupCommits } from "../../protocol/frames.ts";
import type { CheckedFrame } from "../client-frame.ts";
import { producedRuns } from "../transaction.ts";
import { errorFrame } from "./answers.ts";
import type { SessionEffect, SessionEvent, Surroundings } from "./events.ts";
import { groupOf, partitionKey, type Session } from "./state.ts";
import { freeAcked } from "./window.ts";

export function handleTransact(
  session: Session,
  { type, id, transaction }: Extract<CheckedFrame, { type: "produce" | "transact" }>,
): readonly SessionEffect[] {
  session.waiting.transactions += 1;
  return [{ type: "transact", id, answer: type === "produce" ? "produced" : "transacted", transaction }];
}

export function handleTransacted(
  session: Session,
  { id, answer, commits, outcome }: Extract<SessionEvent, { type: "transacted" }>,
  around: Surroundings,
): readonly SessionEffect[] {
  session.waiting.transactions -= 1;
  if ("problem" in outcome) return [errorFrame(outcome.problem, { id })];
  const { runs, duplicate } = outcome.written;
  if (commits) freeCommitted(session, commits, around);
  if (answer === "transacted") return [{ type: "send", frame: { type: answer, id, runs, duplicate } }];
  return [{ type: "send", frame: { type: answer, id, runs: producedRuns(runs), duplicate } }];
}

/** What a transaction has committed is acknowledged, where it is this socket that holds it. */
function freeCommitted(
  { subscriptions }: Session,
  { group, offsets }: GroupCommits,
  { nowMs }: Surroundings,
): void {
  const members = [...subscriptions.values()].filter((subscription) => groupOf(subscription) === group);
  for (const { topic, partition, generation, offset } of offsets)
    for (const { partitions, delivery } of members) {
      const owned = partitions.get(partitionKey(topic, partition));
      if (owned?.generation === generation) freeAcked(delivery, owned, { offset, nowMs });
    }
}
