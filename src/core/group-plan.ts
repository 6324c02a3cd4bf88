// One rebalance, decided: what a group becomes when members join and leave, leases and deadlines run out, and
// partitions come free. A pure function of a picture and of what was asked; store/groups.ts writes the plan on the
// condition that the group has not changed since, so of two processes that rebalance at once one does it.
//
// Only what moves is touched. A partition with a live owner is first revoked, and changes hands when the owner has let
// it go or the deadline is over; a partition without one goes to its new owner at once, in a new generation.

import { assignPartitions } from "./assignment.ts";
import type { GroupChange, OwnedPartition } from "./group-change.ts";
import { type Membership, type PlannedJoin, planMembership, type Subscriber } from "./group-members.ts";
import type { GroupMember, GroupPartition, GroupPicture } from "./group-picture.ts";
import type { TimePlace } from "./places.ts";
import type { Problem } from "./problem.ts";
import { neededTime, type PolicyReset, startOf, type TimeOffsets } from "./starts.ts";

export interface GroupPlan {
  readonly joins: readonly PlannedJoin[];
  readonly refusals: ReadonlyMap<GroupChange, Problem>;
  /** Joins that were written before, by a write whose answer was lost: the members that they became. */
  readonly joinedBefore: ReadonlyMap<GroupChange, GroupMember>;
  /** Who left, whose lease has run out, whose place a join takes. */
  readonly endedMemberIds: readonly string[];
  /** Those of them whose lease has run out: one that was renewed meanwhile makes the plan void. */
  readonly expiredMemberIds: readonly string[];
  /** A new generation for each; the owner may be the one that it was. */
  readonly gains: readonly Gain[];
  /** Their owners are told, and go on owning them until they let go or the deadline is over. */
  readonly revokedPartitionIds: readonly number[];
  /** They had an owner, and nobody subscribes to them any more. */
  readonly freedPartitionIds: readonly number[];
  /** The topics as the group has seen them now, where that is news. */
  readonly topicsSeen: readonly TopicSeen[];
}

export interface Gain {
  readonly partition: GroupPartition;
  readonly member: Pick<GroupMember, "memberId" | "policies">;
}

export interface TopicSeen {
  readonly topic: string;
  readonly topicId: number;
  readonly partitions: number;
}

/**
 * Of several joins with the same memberId or instanceId only one may be among the changes. Without changes it plans
 * what is due: the ends of leases and of deadlines, and owners for partitions that have none.
 * `mayExpire`: false while leases may have run out through no fault of their members.
 */
export function planGroup(
  picture: GroupPicture,
  changes: readonly GroupChange[],
  { mayExpire }: { readonly mayExpire: boolean },
): GroupPlan {
  const membership = planMembership(picture, changes, mayExpire);
  const { members, joins, refusals, joinedBefore, endedMemberIds, expiredMemberIds } = membership;
  const named = { released: namedBy(changes, "release"), stalled: namedBy(changes, "stall") };
  const claims = picture.partitions.map((partition) => claimOf(partition, membership, named));
  const subscribers = [...members.values()];
  const isUnbalanced = membership.isReshaped || isAnyWanted(claims, subscribers);
  const placed = placeStalled(claims, subscribers);
  const moves = movesOf(placed, members, isUnbalanced ? balance(placed, subscribers) : keep(placed));
  const topicsSeen = topicsSeenBy(picture, moves.gains);
  return { joins, refusals, joinedBefore, endedMemberIds, expiredMemberIds, ...moves, topicsSeen };
}

/** Whether there is anything to write. */
export function isIdle({ joins, endedMemberIds, gains, ...plan }: GroupPlan): boolean {
  const { revokedPartitionIds, freedPartitionIds } = plan;
  return [joins, endedMemberIds, gains, revokedPartitionIds, freedPartitionIds].every(
    (planned) => planned.length === 0,
  );
}

/** The partitions whose start only a look at the timestamps can find. */
export function timesNeededBy({
  gains,
}: GroupPlan): readonly { readonly partitionId: number; readonly place: TimePlace }[] {
  return gains.flatMap(({ partition, member }) => {
    const place = neededTime(partition, member.policies);
    return place ? [{ partitionId: partition.partitionId, place }] : [];
  });
}

/** What the policies of the new owners commit, in the transaction of the plan. */
export function policyResets(
  { gains }: GroupPlan,
  times: TimeOffsets,
): readonly (PolicyReset & { readonly memberId: string })[] {
  return gains.flatMap(({ partition, member }) => {
    const start = startOf(partition, member.policies, times);
    return start.kind === "reset" ? [{ ...start, memberId: member.memberId }] : [];
  });
}

// ── partitions ───────────────────────────────────────────────────────────────────────────────────────────

/**
 * `kept`: its owner has it. `revoking`: its owner is letting it go. `free`: nobody has it. `stalled`: its owner has just
 * lost it, to the member that it is placed with. `passed`: to a member, in a new generation, whoever had it.
 */
interface Claim {
  readonly kind: "kept" | "revoking" | "free" | "stalled" | "passed";
  readonly partition: GroupPartition;
  readonly memberId: string | null;
}

/** Ownerships that changes name, as ownershipKey() says them: one change may name thousands. */
interface NamedOwnerships {
  readonly released: ReadonlySet<string>;
  readonly stalled: ReadonlySet<string>;
}

function claimOf(
  partition: GroupPartition,
  { members, successors }: Membership,
  { released, stalled }: NamedOwnerships,
): Claim {
  const { owner, partitionId } = partition;
  const free: Claim = { kind: "free", partition, memberId: null };
  if (!owner) return free;
  const { memberId, generation, revokeInMs } = owner;
  const successor = successors.get(memberId);
  if (successor === undefined && !members.has(memberId)) return free;
  const key = ownershipKey(memberId, { partitionId, generation });
  const isRevoked = revokeInMs !== null;
  if (isRevoked && (successor !== undefined || revokeInMs <= 0 || released.has(key))) return free;
  if (successor !== undefined) return { kind: "passed", partition, memberId: successor };
  if (stalled.has(key)) return { kind: "stalled", partition, memberId };
  return isRevoked ? { kind: "revoking", partition, memberId: null } : { kind: "kept", partition, memberId };
}

function namedBy(changes: readonly GroupChange[], kind: "release" | "stall"): ReadonlySet<string> {
  return new Set(
    changes.flatMap((change) =>
      change.kind === kind
        ? change.partitions.map((named) => ownershipKey(change.member.memberId, named))
        : [],
    ),
  );
}

function ownershipKey(memberId: string, { partitionId, generation }: OwnedPartition): string {
  return `${partitionId} ${generation} ${memberId}`;
}

/** Whether somebody subscribes to a partition that nobody has. */
function isAnyWanted(claims: readonly Claim[], subscribers: readonly Subscriber[]): boolean {
  const free = new Set(claims.flatMap(({ kind, partition }) => (kind === "free" ? partition.topic : [])));
  return free.size > 0 && subscribers.some(({ topics }) => topics.some((topic) => free.has(topic)));
}

/** To another member that subscribes to the topic where there is one, whatever the balance: it is the one that works. */
function placeStalled(claims: readonly Claim[], subscribers: readonly Subscriber[]): readonly Claim[] {
  const stalled = new Set(
    claims.flatMap(({ kind, partition }) => (kind === "stalled" ? partition.topic : [])),
  );
  if (stalled.size === 0) return claims;
  const ranks = ranksByTopic(stalled, subscribers);
  const idsByTopic = new Map([...ranks].map(([topic, own]) => [topic, [...own.keys()]]));
  return claims.map((claim) => {
    const { kind, partition, memberId } = claim;
    if (kind !== "stalled" || memberId === null) return claim;
    const ids = idsByTopic.get(partition.topic) ?? [];
    const ownRank = ranks.get(partition.topic)?.get(memberId) ?? ids.length;
    const others = ownRank < ids.length ? ids.length - 1 : ids.length;
    const rank = others > 0 ? partition.partition % others : 0;
    return { kind, partition, memberId: ids[rank < ownRank ? rank : rank + 1] ?? memberId };
  });
}

/** The place of each subscriber of a topic among them, in their order. */
function ranksByTopic(
  topics: ReadonlySet<string>,
  subscribers: readonly Subscriber[],
): ReadonlyMap<string, ReadonlyMap<string, number>> {
  const ranks = new Map([...topics].map((topic) => [topic, new Map<string, number>()]));
  for (const { memberId, topics: wanted } of subscribers) {
    for (const topic of wanted) {
      const own = ranks.get(topic);
      if (own && !own.has(memberId)) own.set(memberId, own.size);
    }
  }
  return ranks;
}

function balance(claims: readonly Claim[], subscribers: readonly Subscriber[]): ReadonlyMap<number, string> {
  return assignPartitions(
    subscribers,
    claims.map(({ partition, memberId }) => ({ ...partition, ownerMemberId: memberId })),
  );
}

function keep(claims: readonly Claim[]): ReadonlyMap<number, string> {
  return new Map(
    claims.flatMap(({ partition, memberId }) =>
      memberId === null ? [] : [[partition.partitionId, memberId]],
    ),
  );
}

function movesOf(
  claims: readonly Claim[],
  members: Membership["members"],
  owners: ReadonlyMap<number, string>,
): Pick<GroupPlan, "gains" | "revokedPartitionIds" | "freedPartitionIds"> {
  const gains: Gain[] = [];
  const revokedPartitionIds: number[] = [];
  const freedPartitionIds: number[] = [];
  for (const claim of claims) {
    const { kind, partition, memberId } = claim;
    const { partitionId } = partition;
    const next = members.get(nextOwnerOf(claim, owners) ?? "");
    if (kind === "revoking" || (kind === "kept" && next?.memberId === memberId)) continue;
    if (kind === "kept") revokedPartitionIds.push(partitionId);
    else if (next) gains.push({ partition, member: next });
    else if (partition.owner) freedPartitionIds.push(partitionId);
  }
  return { gains, revokedPartitionIds, freedPartitionIds };
}

/** A stalled one does not come back for the balance either that a join or a leave in the same plan asks for. */
function nextOwnerOf(
  { kind, partition: { partitionId, owner }, memberId }: Claim,
  owners: ReadonlyMap<number, string>,
): string | null {
  const next = owners.get(partitionId) ?? null;
  return kind === "stalled" && next === owner?.memberId ? memberId : next;
}

/** Of topics that somebody gets a partition of. */
function topicsSeenBy({ partitions }: GroupPicture, gains: readonly Gain[]): readonly TopicSeen[] {
  const gained = new Set(gains.map(({ partition }) => partition.topicId));
  const seen = new Map<number, TopicSeen>();
  for (const { topic, topicId } of partitions) {
    if (gained.has(topicId))
      seen.set(topicId, { topic, topicId, partitions: (seen.get(topicId)?.partitions ?? 0) + 1 });
  }
  const before = new Map(partitions.map((partition) => [partition.topicId, partition]));
  return [...seen.values()].filter(({ topicId, partitions: count }) => {
    const known = before.get(topicId);
    return known?.topicIdSeen !== topicId || known.partitionsSeen !== count;
  });
}
