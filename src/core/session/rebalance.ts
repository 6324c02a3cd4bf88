// What a rebalance or a reset does to a subscription of a group. A partition that is revoked with a deadline stays until
// it has changed hands: its acks count and nothing is sent of it. It is let go as soon as all that was sent of it is
// acknowledged.

import type { ReleaseFrame, RevokeReason } from "../../protocol/frames.ts";
import type { OwnedPartition } from "../group-change.ts";
import type { OwnershipChange } from "../ownership.ts";
import { Problem } from "../problem.ts";
import { errorFrame, ok } from "./answers.ts";
import { assignGained, removePartition } from "./assigned.ts";
import type { SessionEffect, SessionEvent } from "./events.ts";
import { withPartitions } from "./positions.ts";
import { find, memberOf, partitionKey, refOf, type Session, type Subscription } from "./state.ts";
import { freeAll, isRevoked, type PartitionDelivery } from "./window.ts";

export function handleOwnership(
  session: Session,
  { ref, change }: Extract<SessionEvent, { type: "ownership" }>,
): readonly SessionEffect[] {
  const subscription = find(session, ref);
  return subscription ? applyOwnership(subscription, change) : [];
}

/** What is lost goes first: a topic that was created again has partitions of the same numbers. */
export function applyOwnership(
  subscription: Subscription,
  { gained, revoked, lost }: OwnershipChange,
): readonly SessionEffect[] {
  const effects: SessionEffect[] = [];
  const before = byId(subscription);
  for (const reason of ["rebalance", "topic_deleted"] as const) {
    const gone = lost.flatMap((each) => (each.reason === reason ? owned(before, each) : []));
    effects.push(...lose(subscription, gone, reason));
  }
  if (gained.length > 0) effects.push(...assignGained(subscription, gained));
  const now = byId(subscription);
  for (const each of revoked)
    for (const partition of owned(now, each)) {
      partition.revocation = "wanted";
      partition.revokeDeadlineMs = each.deadlineMs;
      subscription.revoking.add(partition);
    }
  return effects;
}

/** Tells of what is being revoked, and lets it go, each as soon as it may be. */
export function revokeFurther(session: Session): readonly SessionEffect[] {
  return [...session.subscriptions.values()].flatMap((subscription) =>
    subscription.revoking.size > 0 ? [...tellWanted(subscription), ...releaseFinished(subscription)] : [],
  );
}

/** At most once: not before what is committed ahead has been sent. One frame tells of all that go at the same time. */
function tellWanted(subscription: Subscription): readonly SessionEffect[] {
  const wanted = [...subscription.revoking].filter(
    ({ revocation, isCommittedAhead }) => revocation === "wanted" && !isCommittedAhead,
  );
  const byDeadline = Map.groupBy(wanted, ({ revokeDeadlineMs }) => revokeDeadlineMs);
  return [...byDeadline].flatMap(([deadlineMs, partitions]) =>
    tellRevoking(subscription, partitions, deadlineMs),
  );
}

/** Nothing of them is out any more, and the database has not been told. */
function releaseFinished(subscription: Subscription): readonly SessionEffect[] {
  const finished = [...subscription.revoking].filter(
    ({ revocation, sent }) => revocation === "told" && sent.length === 0,
  );
  return release(subscription, finished);
}

/** The client lets go of what it was sent and has not acknowledged: whoever gets the partition is sent it again. */
export function handleRelease(session: Session, frame: ReleaseFrame): readonly SessionEffect[] {
  return withPartitions(session, frame, (partitions, subscription) => {
    const kept = partitions.find((partition) => !isRevoked(partition));
    if (kept) return [errorFrame(notRevoked(kept), { ...kept, name: subscription.name, id: frame.id })];
    for (const partition of partitions) freeAll(subscription.delivery, partition);
    const told = new Set(partitions.filter(({ revocation }) => revocation === "told"));
    return [...release(subscription, [...told]), ...ok(frame.id)];
  });
}

/** The partitions are gone, now; who was told of that before is not told again. */
export function lose(
  subscription: Subscription,
  lost: readonly PartitionDelivery[],
  reason: RevokeReason,
): readonly SessionEffect[] {
  const untold = lost.filter((partition) => !isRevoked(partition));
  for (const partition of lost) removePartition(subscription, partition);
  return [...stopWaiting(subscription, lost), ...revoked(subscription, untold, { reason, deadlineMs: 0 })];
}

function tellRevoking(
  subscription: Subscription,
  partitions: readonly PartitionDelivery[],
  deadlineMs: number,
): readonly SessionEffect[] {
  for (const partition of partitions) {
    partition.revocation = "told";
    partition.phase = "halted";
    partition.run += 1; // what is being read of it is void
  }
  return [
    ...stopWaiting(subscription, partitions),
    ...revoked(subscription, partitions, { reason: "rebalance", deadlineMs }),
  ];
}

function release(
  subscription: Subscription,
  partitions: readonly PartitionDelivery[],
): readonly SessionEffect[] {
  const member = memberOf(subscription);
  if (!member || partitions.length === 0) return [];
  for (const partition of partitions) partition.revocation = "released";
  const released = partitions.map(({ partitionId, generation }) => ({ partitionId, generation }));
  return [{ type: "release", member, partitions: released }];
}

function stopWaiting(
  subscription: Subscription,
  partitions: readonly PartitionDelivery[],
): readonly SessionEffect[] {
  const ref = refOf(subscription);
  return partitions.map(({ topic, partition }) => {
    return { type: "stopWaiting", ref, partitionKey: partitionKey(topic, partition) };
  });
}

export function revoked(
  { name }: Subscription,
  lost: readonly PartitionDelivery[],
  how: { readonly reason: RevokeReason; readonly deadlineMs: number },
): readonly SessionEffect[] {
  if (lost.length === 0) return [];
  const partitions = lost.map(({ topic, partition, generation }) => ({ topic, partition, generation }));
  return [{ type: "send", frame: { type: "revoked", subscription: name, partitions, ...how } }];
}

// ─────────────────────────────────────────────────────────────────────────────────────────────────────────

type ById = ReadonlyMap<number, PartitionDelivery>;

function byId({ partitions }: Subscription): ById {
  return new Map([...partitions.values()].map((partition) => [partition.partitionId, partition]));
}

function owned(partitions: ById, { partitionId, generation }: OwnedPartition): readonly PartitionDelivery[] {
  const partition = partitions.get(partitionId);
  return partition?.generation === generation ? [partition] : [];
}

function notRevoked({ topic, partition }: PartitionDelivery): Problem {
  return new Problem(
    "conflict",
    `Cannot release topic "${topic}" partition ${partition}: it is not being revoked`,
  );
}
