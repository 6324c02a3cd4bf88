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
  const judged = judgeJoins(picture, changes);
  const expired = picture.members.filter(({ expiresInMs }) => mayExpire && expiresInMs <= 0);
  const expiredMemberIds = expired.map(({ memberId }) => memberId);
  const ended = new Set([...judged.successors.keys(), ...expiredMemberIds, ...leaversOf(picture, changes)]);
  const members = membersAfter(picture, ended, judged.joins);
  const isReshaped = !isSameShape(picture.members, { members, successors: judged.successors });
  return { ...judged, members, endedMemberIds: [...ended], expiredMemberIds, isReshaped };
}

type JudgedJoins = Pick<Membership, "joins" | "refusals" | "joinedBefore" | "successors">;

/** One after the other: those that are taken in count for the next, those that are refused do not. */
function judgeJoins({ members, partitions }: GroupPicture, changes: readonly GroupChange[]): JudgedJoins {
  const joins: PlannedJoin[] = [];
  const refusals = new Map<GroupChange, Problem>();
  const joinedBefore = new Map<GroupChange, GroupMember>();
  const successors = new Map<string, string>();
  const places = placesIn(members);
  const size = sizeOf(members, topicSizesOf(partitions));
  for (const change of changes) {
    if (change.kind !== "join") continue;
    const { request } = change;
    const before = places.byMemberId.get(request.newMemberId);
    if (before) {
      joinedBefore.set(change, before);
      continue;
    }
    const takenOver = takenOverBy(request, places);
    const replaced = takenOver.filter((member) => !successors.has(member.memberId));
    const refusal = refuseTopics(request, size.topicSizes) ?? takeIn(request, replaced, size);
    if (refusal) {
      refusals.set(change, refusal);
      continue;
    }
    const memberId = takenOver.find((own) => own.memberId === request.memberId)?.memberId;
    const join = { change, request, memberId: memberId ?? request.newMemberId };
    for (const member of takenOver) successors.set(member.memberId, join.memberId);
    joins.push(join);
  }
  return { joins, refusals, joinedBefore, successors };
}

/** Whom a join may take over: by its memberId, or by its instanceId. */
interface Places {
  readonly byMemberId: ReadonlyMap<string, GroupMember>;
  readonly byInstanceId: ReadonlyMap<string | null, readonly GroupMember[]>;
}

function placesIn(members: readonly GroupMember[]): Places {
  return {
    byMemberId: new Map(members.map((member) => [member.memberId, member])),
    byInstanceId: Map.groupBy(members, ({ instanceId }) => instanceId),
  };
}

function takenOverBy(
  { memberId, instanceId }: JoinRequest,
  { byMemberId, byInstanceId }: Places,
): readonly GroupMember[] {
  const own = memberId === undefined ? undefined : byMemberId.get(memberId);
  const named = instanceId === undefined ? undefined : byInstanceId.get(instanceId);
  return [...new Set([...(own ? [own] : []), ...(named ?? [])])];
}

function refuseTopics({ group, topics }: JoinRequest, topicSizes: TopicSizes): Problem | undefined {
  const unknown = topics.find((topic) => !topicSizes.has(topic));
  if (unknown !== undefined) {
    const why = `Cannot subscribe group "${group}" to topic "${unknown}": there is no such topic`;
    return new Problem("unknown_topic", why, { topic: unknown });
  }
  let found = 0;
  for (const topic of new Set(topics)) found += topicSizes.get(topic)?.partitions ?? 0;
  if (found <= PARTITIONS_PER_SUBSCRIPTION_MAX) return undefined;
  return new Problem(
    "bad_request",
    `Cannot subscribe group "${group}" to ${found} partitions: at most ${PARTITIONS_PER_SUBSCRIPTION_MAX} a subscription`,
    { found, allowed: PARTITIONS_PER_SUBSCRIPTION_MAX },
  );
}

function leaversOf({ members }: GroupPicture, changes: readonly GroupChange[]): readonly string[] {
  const left = new Set(
    changes.flatMap((change) => (change.kind === "leave" ? [membershipKey(change.member)] : [])),
  );
  return members.filter((member) => left.has(membershipKey(member))).map(({ memberId }) => memberId);
}

function membershipKey({ memberId, membership }: Pick<GroupMember, "memberId" | "membership">): string {
  return `${membership} ${memberId}`;
}

/** Who takes somebody's place comes behind those that stay, as everybody who joins. */
function membersAfter(
  picture: GroupPicture,
  ended: ReadonlySet<string>,
  joins: readonly PlannedJoin[],
): ReadonlyMap<string, Subscriber> {
  const members = new Map<string, Subscriber>();
  for (const member of picture.members) if (!ended.has(member.memberId)) members.set(member.memberId, member);
  for (const { request, memberId } of joins) members.set(memberId, { ...request, memberId });
  return members;
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
    before.every((member) => isSameTopics(members.get(placeOf(member))?.topics, member.topics))
  );
}

function isSameTopics(now: readonly string[] | undefined, before: readonly string[]): boolean {
  return now === before || new Set(now).symmetricDifference(new Set(before)).size === 0;
}

// ── how large the group becomes ──────────────────────────────────────────────────────────────────────────

/** Of every topic in the picture. */
type TopicSizes = ReadonlyMap<string, { readonly partitions: number; readonly bytes: number }>;

/**
 * What its members and the partitions of their topics take, with the joins that have been taken in so far. Who leaves
 * in the same plan still counts.
 */
interface GroupSize {
  memberBytes: number;
  partitionBytes: number;
  readonly subscriptionsByTopic: Map<string, number>;
  readonly topicSizes: TopicSizes;
}

type Sized = Pick<GroupMember, "topics">;

function topicSizesOf(partitions: readonly GroupPartition[]): TopicSizes {
  const byTopic = Map.groupBy(partitions, ({ topic }) => topic);
  return new Map(
    [...byTopic].map(([topic, own]) => [topic, { partitions: own.length, bytes: partitionBytes(own) }]),
  );
}

function sizeOf(members: readonly Sized[], topicSizes: TopicSizes): GroupSize {
  const size: GroupSize = { memberBytes: 0, partitionBytes: 0, subscriptionsByTopic: new Map(), topicSizes };
  exchange(size, { out: [], in: members });
  return size;
}

/**
 * Counts the join in, and those whose place it takes out, unless it is refused. One that takes no more than they did is
 * taken in though the group is too large already: topics grow.
 */
function takeIn(request: JoinRequest, replaced: readonly Sized[], size: GroupSize): Problem | undefined {
  const before = { ...size };
  exchange(size, { out: replaced, in: [request] });
  const bytes = Math.max(size.memberBytes, size.partitionBytes);
  const takesMore = size.memberBytes > before.memberBytes || size.partitionBytes > before.partitionBytes;
  if (bytes <= GROUP_BYTES_MAX || !takesMore) return undefined;
  exchange(size, { out: [request], in: replaced });
  const why = `Cannot join group "${request.group}": with it the names of its members' topics, or of its partitions, take ${bytes} bytes, at most ${GROUP_BYTES_MAX}`;
  return new Problem("conflict", why, { found: bytes, allowed: GROUP_BYTES_MAX });
}

/** Partitions of a topic count once, while anybody subscribes to it. */
function exchange(
  size: GroupSize,
  members: { readonly out: readonly Sized[]; readonly in: readonly Sized[] },
): void {
  const { subscriptionsByTopic, topicSizes } = size;
  size.memberBytes += memberBytes(members.in) - memberBytes(members.out);
  const count = (topic: string, by: 1 | -1) => {
    const before = subscriptionsByTopic.get(topic) ?? 0;
    subscriptionsByTopic.set(topic, before + by);
    if (Math.min(before, before + by) === 0) size.partitionBytes += by * (topicSizes.get(topic)?.bytes ?? 0);
  };
  for (const { topics } of members.out) for (const topic of topics) count(topic, -1);
  for (const { topics } of members.in) for (const topic of topics) count(topic, 1);
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
