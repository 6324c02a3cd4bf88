// One rebalance, decided: what a group becomes when members join and leave, leases and deadlines run out, and
// partitions come free. A pure function of a picture and of what was asked; store/groups.ts writes the plan on the
// condition that the group has not changed since, so of two processes that rebalance at once one does it.
//
// Only what moves is touched. A partition with a live owner is first revoked, and changes hands when the owner has let
// it go or the deadline is over; a partition without one goes to its new owner at once, in a new generation.

import { GROUP_BYTES_MAX, PARTITIONS_PER_SUBSCRIPTION_MAX } from "../protocol/limits.ts";
import { assignPartitions } from "./assignment.ts";
import {
  type GroupMember,
  type GroupPartition,
  type GroupPicture,
  type JoinRequest,
  memberBytes,
  partitionBytes,
} from "./group-picture.ts";
import type { TimePlace } from "./places.ts";
import { Problem } from "./problem.ts";
import type { MembershipRef } from "./session/state.ts";
import { neededTime, type PolicyReset, startOf, type TimeOffsets } from "./starts.ts";

/** Partitions of one ownership each: another generation means that it is over already. */
export interface OwnedPartition {
  readonly partitionId: number;
  readonly generation: number;
}

export type GroupChange =
  | { readonly kind: "join"; readonly request: JoinRequest }
  | { readonly kind: "leave"; readonly member: MembershipRef }
  /** Revoked partitions that their owner lets go. */
  | {
      readonly kind: "release";
      readonly member: MembershipRef;
      readonly partitions: readonly OwnedPartition[];
    }
  /** Partitions that their owner has not acknowledged in time. */
  | {
      readonly kind: "stall";
      readonly member: MembershipRef;
      readonly partitions: readonly OwnedPartition[];
    };

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

export interface PlannedJoin {
  readonly change: GroupChange;
  readonly request: JoinRequest;
  readonly memberId: string;
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
  const named = { released: namedBy(changes, "release"), stalled: namedBy(changes, "stall") };
  const claims = picture.partitions.map((partition) => claimOf(partition, membership, named));
  const subscribers = [...membership.members.values()];
  const isUnbalanced =
    membership.isReshaped ||
    claims.some(({ kind, partition }) => kind === "free" && isWanted(partition, subscribers));
  const placed = claims.map((claim) => (claim.kind === "stalled" ? placeStalled(claim, membership) : claim));
  const owners = isUnbalanced ? balance(placed, subscribers) : keep(placed);
  const gains: Gain[] = [];
  const revokedPartitionIds: number[] = [];
  const freedPartitionIds: number[] = [];
  for (const claim of placed) {
    const { kind, partition, memberId } = claim;
    const { partitionId } = partition;
    const next = membership.members.get(nextOwnerOf(claim, owners) ?? "");
    if (kind === "revoking" || (kind === "kept" && next?.memberId === memberId)) continue;
    if (kind === "kept") revokedPartitionIds.push(partitionId);
    else if (next) gains.push({ partition, member: next });
    else if (partition.owner) freedPartitionIds.push(partitionId);
  }
  const { joins, refusals, joinedBefore, endedMemberIds, expiredMemberIds } = membership;
  return {
    joins,
    refusals,
    joinedBefore,
    endedMemberIds,
    expiredMemberIds,
    gains,
    revokedPartitionIds,
    freedPartitionIds,
    topicsSeen: topicsSeenBy(picture, gains),
  };
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

// ── members ──────────────────────────────────────────────────────────────────────────────────────────────

interface Membership {
  /** Who is in the group afterwards, by member id. */
  readonly members: ReadonlyMap<string, Subscriber>;
  /** Whose partitions go to whom, by the member id that they had. */
  readonly successors: ReadonlyMap<string, string>;
  readonly joins: readonly PlannedJoin[];
  readonly refusals: ReadonlyMap<GroupChange, Problem>;
  readonly joinedBefore: ReadonlyMap<GroupChange, GroupMember>;
  readonly endedMemberIds: readonly string[];
  readonly expiredMemberIds: readonly string[];
  /** Who shares which topics is not as it was. */
  readonly isReshaped: boolean;
}

type Subscriber = Pick<GroupMember, "memberId" | "topics" | "policies">;

function planMembership(
  picture: GroupPicture,
  changes: readonly GroupChange[],
  mayExpire: boolean,
): Membership {
  const known = new Map(picture.members.map((member) => [member.memberId, member]));
  const members = new Map<string, Subscriber>(known);
  const successors = new Map<string, string>();
  const joins: PlannedJoin[] = [];
  const refusals = new Map<GroupChange, Problem>();
  const joinedBefore = new Map<GroupChange, GroupMember>();
  for (const change of changes) {
    if (change.kind !== "join") continue;
    const refusal = refuseJoin(change.request, picture);
    const before = known.get(change.request.newMemberId);
    if (before) joinedBefore.set(change, before);
    else if (refusal) refusals.set(change, refusal);
  }
  const expired = picture.members.filter(({ expiresInMs }) => mayExpire && expiresInMs <= 0);
  const gone = [...expired, ...picture.members.filter((member) => hasLeft(member, changes))];
  const ended = new Set<string>();
  for (const change of changes) {
    if (change.kind !== "join" || refusals.has(change) || joinedBefore.has(change)) continue;
    const { request } = change;
    const before = picture.members.filter((member) => isTakenOver(member, request));
    const memberId =
      before.find((member) => member.memberId === request.memberId)?.memberId ?? request.newMemberId;
    for (const { memberId: old } of before) {
      ended.add(old);
      members.delete(old);
      successors.set(old, memberId);
    }
    joins.push({ change, request, memberId });
  }
  for (const { memberId } of gone) {
    ended.add(memberId);
    members.delete(memberId);
  }
  for (const { request, memberId } of joins) members.set(memberId, { ...request, memberId });
  const endedMemberIds = [...ended];
  const expiredMemberIds = expired.map(({ memberId }) => memberId);
  const isReshaped = !isSameShape(picture.members, { members, successors });
  return { members, successors, joins, refusals, joinedBefore, endedMemberIds, expiredMemberIds, isReshaped };
}

/** As many members of the same topics, each in the place of one before: a takeover moves nobody else. */
function isSameShape(
  before: readonly GroupMember[],
  { members, successors }: Pick<Membership, "members" | "successors">,
): boolean {
  const placeOf = ({ memberId }: GroupMember) => successors.get(memberId) ?? memberId;
  return (
    members.size === before.length &&
    new Set(before.map(placeOf)).size === before.length &&
    before.every(
      (member) =>
        new Set(members.get(placeOf(member))?.topics).symmetricDifference(new Set(member.topics)).size === 0,
    )
  );
}

function hasLeft({ memberId, membership }: GroupMember, changes: readonly GroupChange[]): boolean {
  return changes.some(
    (change) =>
      change.kind === "leave" &&
      change.member.memberId === memberId &&
      change.member.membership === membership,
  );
}

function isTakenOver({ memberId, instanceId }: GroupMember, request: JoinRequest): boolean {
  return memberId === request.memberId || (instanceId !== null && instanceId === request.instanceId);
}

function refuseJoin(
  { group, topics }: JoinRequest,
  { members, partitions }: GroupPicture,
): Problem | undefined {
  const found = partitions.filter(({ topic }) => topics.includes(topic));
  const known = new Set(found.map(({ topic }) => topic));
  const unknown = topics.find((topic) => !known.has(topic));
  if (unknown !== undefined) {
    const why = `Cannot subscribe group "${group}" to topic "${unknown}": there is no such topic`;
    return new Problem("unknown_topic", why, { topic: unknown });
  }
  if (found.length > PARTITIONS_PER_SUBSCRIPTION_MAX) {
    return new Problem(
      "bad_request",
      `Cannot subscribe group "${group}" to ${found.length} partitions: at most ${PARTITIONS_PER_SUBSCRIPTION_MAX} a subscription`,
      { found: found.length, allowed: PARTITIONS_PER_SUBSCRIPTION_MAX },
    );
  }
  const bytes = Math.max(memberBytes([...members, { topics }]), partitionBytes(partitions));
  if (bytes <= GROUP_BYTES_MAX) return undefined;
  const why = `Cannot join group "${group}": with it the names of its members' topics, or of its partitions, take ${bytes} bytes, at most ${GROUP_BYTES_MAX}`;
  return new Problem("conflict", why, { found: bytes, allowed: GROUP_BYTES_MAX });
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

/** To another member that subscribes to the topic where there is one, whatever the balance: it is the one that works. */
function placeStalled({ partition, memberId }: Claim, { members }: Membership): Claim {
  const others = [...members.values()].filter(
    (member) => member.memberId !== memberId && member.topics.includes(partition.topic),
  );
  const index = others.length > 0 ? partition.partition % others.length : 0;
  return { kind: "stalled", partition, memberId: others[index]?.memberId ?? memberId };
}

/** A stalled one does not come back for the balance either that a join or a leave in the same plan asks for. */
function nextOwnerOf(
  { kind, partition: { partitionId, owner }, memberId }: Claim,
  owners: ReadonlyMap<number, string>,
): string | null {
  const next = owners.get(partitionId) ?? null;
  return kind === "stalled" && next === owner?.memberId ? memberId : next;
}

function isWanted({ topic }: GroupPartition, subscribers: readonly Subscriber[]): boolean {
  return subscribers.some(({ topics }) => topics.includes(topic));
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
