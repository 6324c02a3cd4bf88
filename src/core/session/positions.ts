// What a client does with the positions of its partitions: seek, pause, resume.

import type { FrameId, PartitionName, PauseFrame, ResumeFrame, SeekFrame } from "../../protocol/frames.ts";
import { SEEKS_WAITING_MAX } from "../../protocol/limits.ts";
import { resolvePlace } from "../places.ts";
import { Problem } from "../problem.ts";
import { DEFAULT_SUBSCRIPTION, errorFrame, ok, unknownSubscription } from "./answers.ts";
import { move } from "./assigned.ts";
import type { LocatedFacts, Seek, SessionEffect, SessionEvent } from "./events.ts";
import { find, findOpen, groupOf, partitionKey, refOf, type Session, type Subscription } from "./state.ts";
import type { PartitionDelivery } from "./window.ts";

// ── seek ─────────────────────────────────────────────────────────────────────────────────────────────────

export function handleSeek(session: Session, frame: SeekFrame): readonly SessionEffect[] {
  const name = frame.subscription ?? DEFAULT_SUBSCRIPTION;
  const { id, topic, partition: number, to: place } = frame;
  const subscription = findOpen(session, name);
  if (!subscription) return [errorFrame(unknownSubscription(name), { name, id })];
  const partition = subscription.partitions.get(partitionKey(topic, number));
  const refusal = refuseSeek(session, subscription, { frame, partition });
  if (refusal || !partition) {
    return [errorFrame(refusal ?? notAssigned(frame), { name, id, topic, partition: number })];
  }
  session.waiting.seeks += 1;
  const { generation, partitionId } = partition;
  const ref = refOf(subscription);
  const group = groupOf(subscription);
  return [
    { type: "locate", seek: { ref, id, topic, partition: number, generation, partitionId, group, place } },
  ];
}

function refuseSeek(
  { waiting }: Session,
  { source }: Subscription,
  { frame, partition }: { frame: SeekFrame; partition: PartitionDelivery | undefined },
): Problem | undefined {
  const { to } = frame;
  if (partition?.revocation !== "none") return notAssigned(frame);
  if (source.kind === "reader" && (to === "current" || (typeof to === "object" && "shift" in to)))
    return new Problem(
      "bad_request",
      'A reader has no committed offset: "current" and {"shift"} are for groups',
    );
  if (waiting.seeks < SEEKS_WAITING_MAX) return undefined;
  return new Problem("rate_limited", `${waiting.seeks} seeks are waiting, no more may: wait for "assigned"`);
}

/**
 * At most once, this voids even what is committed ahead and not sent yet: after `assigned` it would be records from
 * before. Who seeks back gets them all the same, and who seeks beyond them skips them like all others on the way. A
 * reset does the same in the operator's name.
 */
export function handleLocated(
  session: Session,
  { seek, outcome }: Extract<SessionEvent, { type: "located" }>,
): readonly SessionEffect[] {
  session.waiting.seeks -= 1;
  const subscription = find(session, seek.ref);
  const { name } = seek.ref;
  const { id, topic, partition: number } = seek;
  const about = { name, id, topic, partition: number };
  if (!subscription || subscription.leaving) return [errorFrame(unknownSubscription(name), about)];
  const partition = subscription.partitions.get(partitionKey(topic, number));
  if (partition?.generation !== seek.generation || partition.revocation !== "none")
    return [errorFrame(notAssigned(seek), about)];
  const target = "problem" in outcome ? outcome.problem : targetOf(seek, outcome);
  if (target instanceof Problem) return [errorFrame(target, about)];
  if ("problem" in outcome) return [];
  const stopWaiting = {
    type: "stopWaiting",
    ref: seek.ref,
    partitionKey: partitionKey(topic, number),
  } as const;
  return [stopWaiting, move(subscription, partition, { ...outcome, position: target }, id)];
}

function targetOf({ place }: Seek, facts: LocatedFacts): number | Problem {
  try {
    return resolvePlace(place, facts);
  } catch (error) {
    if (error instanceof Problem) return error;
    throw error;
  }
}

// ── pause, resume ────────────────────────────────────────────────────────────────────────────────────────

export function handlePause(session: Session, frame: PauseFrame | ResumeFrame): readonly SessionEffect[] {
  return withPartitions(session, frame, (partitions) => {
    for (const partition of partitions) partition.isPaused = frame.type === "pause";
    return ok(frame.id);
  });
}

/** All of them or none: a frame that names a partition which the subscription does not have has no effect. */
export function withPartitions(
  session: Session,
  frame: {
    subscription?: string | undefined;
    id?: FrameId | undefined;
    partitions: readonly PartitionName[];
  },
  use: (partitions: readonly PartitionDelivery[], subscription: Subscription) => readonly SessionEffect[],
): readonly SessionEffect[] {
  const name = frame.subscription ?? DEFAULT_SUBSCRIPTION;
  const subscription = findOpen(session, name);
  if (!subscription) return [errorFrame(unknownSubscription(name), { name, id: frame.id })];
  const found: PartitionDelivery[] = [];
  for (const named of frame.partitions) {
    const partition = subscription.partitions.get(partitionKey(named.topic, named.partition));
    if (!partition) return [errorFrame(notAssigned(named), { name, id: frame.id, ...named })];
    found.push(partition);
  }
  return use(found, subscription);
}

function notAssigned({ topic, partition }: PartitionName): Problem {
  return new Problem(
    "not_assigned",
    `This subscription does not have topic "${topic}" partition ${partition}`,
    {
      topic,
      partition,
    },
  );
}
