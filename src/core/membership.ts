// Who may join a group, what a join brings, and where each partition starts: pure decisions over what was read of
// the group. store/groups.ts reads it and writes the plan, on the condition that the group has not changed since.

import { PARTITIONS_PER_SUBSCRIPTION_MAX } from "../protocol/limits.ts";
import type { ResetPolicies, ResetPolicy } from "../protocol/places.ts";
import { policyOffset, policyText, type TimePlace, timeOf } from "./places.ts";
import { Problem } from "./problem.ts";

export interface JoinRequest {
  readonly group: string;
  readonly topics: readonly string[];
  /** Of an earlier membership, to take it over. */
  readonly memberId: string | undefined;
  /** Static membership: takes over whoever holds this name. */
  readonly instanceId: string | undefined;
  /** For a membership that nobody had. */
  readonly newMemberId: string;
  readonly policies: ResetPolicies;
  readonly sessionTimeoutMs: number;
}

export interface GroupSnapshot {
  /** 0: the group does not exist. */
  readonly version: number;
  readonly members: readonly GroupMember[];
  /** Every partition of the requested topics that exist. */
  readonly partitions: readonly GroupPartition[];
}

export interface GroupMember {
  readonly memberId: string;
  readonly membership: number;
  readonly instanceId: string | null;
  /** The lease has run out and nobody has ended the membership yet. */
  readonly isExpired: boolean;
}

export interface GroupPartition {
  readonly topic: string;
  readonly topicId: number;
  readonly partition: number;
  readonly partitionId: number;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
  readonly committedOffset: number | null;
  /** Its owner; null while nobody is. */
  readonly ownerMemberId: string | null;
  /** How many partitions of a topic of this name the group has seen; 0: it is new to the group. */
  readonly partitionsSeen: number;
  /** The topic of this name that the group has seen; another one means that the topic was created again. */
  readonly topicIdSeen: number | null;
}

export interface JoinPlan extends GainPlan {
  /** Members whose place this one takes, and members whose lease has run out. */
  readonly endedMemberIds: readonly string[];
}

/** Partitions for a member, and what giving them commits. */
export interface GainPlan {
  readonly memberId: string;
  /** Partitions that the member gets, each in a new generation. */
  readonly partitionIds: readonly number[];
  /** What the policies commit, in the same transaction. */
  readonly resets: readonly PolicyReset[];
  /** Partitions that the policy `none` leaves without a place. */
  readonly unplaced: readonly UnplacedPartition[];
  /** The topics as the group has seen them now. */
  readonly topicsSeen: readonly {
    readonly topic: string;
    readonly topicId: number;
    readonly partitions: number;
  }[];
}

/** A member that may get partitions beside those that it has: new ones of its topics, or lost ones anew. */
export interface GainRequest {
  readonly group: string;
  readonly memberId: string;
  readonly membership: number;
  readonly topics: readonly string[];
  readonly policies: ResetPolicies;
  /** Partitions that the member has just lost, and that are its own in the database until the gain is written. */
  readonly lostPartitionIds: readonly number[];
}

/** Where policies by time lead, by partition id, for the partitions that neededTimes() names. */
export type TimeOffsets = ReadonlyMap<number, number>;

const NO_TIMES: TimeOffsets = new Map();

/** What the database says of a join or a gain, once it is durable. */
export interface Joined {
  readonly memberId: string;
  /** Distinguishes this membership from an earlier or later one of the same member. */
  readonly membership: number;
  readonly partitions: readonly JoinedPartition[];
}

export interface JoinResult extends Joined {
  readonly resets: readonly PolicyReset[];
  readonly unplaced: readonly UnplacedPartition[];
}

export interface JoinedPartition {
  readonly topic: string;
  readonly topicId: number;
  readonly partition: number;
  readonly partitionId: number;
  readonly generation: number;
  readonly committedOffset: number | null;
  readonly metadata: string | null;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
}

export interface PolicyReset {
  readonly topic: string;
  readonly partition: number;
  readonly partitionId: number;
  readonly from: number | null;
  readonly to: number;
  /** What `assigned` says in `reset`. A partition new to a topic of the group starts at `earliest` by rule. */
  readonly policy: ResetPolicy;
  readonly cause: string;
}

export interface UnplacedPartition {
  readonly partitionId: number;
  readonly topic: string;
  readonly partition: number;
  readonly code: "no_committed_offset" | "offset_out_of_range";
  readonly message: string;
}

/** Throws `unknown_topic`, or `conflict` where another member is alive: for now a group has one. */
export function planJoin(
  request: JoinRequest,
  snapshot: GroupSnapshot,
  times: TimeOffsets = NO_TIMES,
): JoinPlan {
  const takenOver = snapshot.members.filter((member) => isTakenOver(member, request));
  const expired = snapshot.members.filter((member) => member.isExpired && !takenOver.includes(member));
  refuseSecondMember(request, snapshot.members.length - takenOver.length - expired.length);
  refuseUnknownTopics(request, snapshot);
  refuseTooManyPartitions(request, snapshot);
  return {
    memberId:
      takenOver.find(({ memberId }) => memberId === request.memberId)?.memberId ?? request.newMemberId,
    endedMemberIds: [...takenOver, ...expired].map(({ memberId }) => memberId),
    ...startsOf(snapshot.partitions, request.policies, times),
    topicsSeen: topicsSeen(snapshot.partitions),
  };
}

/** Undefined where the membership has ended. Partitions of other members stay theirs. */
export function planGain(
  request: GainRequest,
  snapshot: GroupSnapshot,
  times: TimeOffsets = NO_TIMES,
): GainPlan | undefined {
  const { memberId, membership, lostPartitionIds, policies } = request;
  if (!snapshot.members.some((member) => member.memberId === memberId && member.membership === membership))
    return undefined;
  const lost = new Set(lostPartitionIds);
  const gained = snapshot.partitions.filter(
    ({ ownerMemberId, partitionId }) =>
      ownerMemberId === null || (ownerMemberId === memberId && lost.has(partitionId)),
  );
  return {
    memberId,
    ...startsOf(gained, policies, times),
    topicsSeen: topicsSeen(snapshot.partitions),
  };
}

function startsOf(partitions: readonly GroupPartition[], policies: ResetPolicies, times: TimeOffsets) {
  const starts = partitions.map((partition) => startOf(partition, policies, times));
  return {
    partitionIds: partitions.map(({ partitionId }) => partitionId),
    resets: starts.filter((start) => start.kind === "reset"),
    unplaced: starts.filter((start) => start.kind === "unplaced"),
  };
}

/** An ack of the member before may have come in between plan and write: then that, and no policy, gave the place. */
export function joinResult(joined: Joined, plan: GainPlan): JoinResult {
  const partitionsById = new Map(joined.partitions.map((partition) => [partition.partitionId, partition]));
  return {
    ...joined,
    resets: plan.resets.filter(
      ({ partitionId, to }) => partitionsById.get(partitionId)?.committedOffset === to,
    ),
    unplaced: plan.unplaced.filter(({ partitionId }) => {
      const partition = partitionsById.get(partitionId);
      return partition !== undefined && !isUsable(partition);
    }),
  };
}

/** A group goes on from its committed offset while that lies inside the log. */
function isUsable(
  partition: Pick<JoinedPartition, "committedOffset" | "logStartOffset" | "logEndOffset">,
): boolean {
  const { committedOffset, logStartOffset, logEndOffset } = partition;
  return committedOffset !== null && committedOffset >= logStartOffset && committedOffset <= logEndOffset;
}

type Start =
  | { readonly kind: "committed" }
  | ({ readonly kind: "reset" } & PolicyReset)
  | ({ readonly kind: "unplaced" } & UnplacedPartition);

/** Where a partition starts for a group that gets it. */
export function startOf(
  partition: GroupPartition,
  policies: ResetPolicies,
  times: TimeOffsets = NO_TIMES,
): Start {
  const applied = appliedPolicy(partition, policies);
  if (!applied) return { kind: "committed" };
  const { policy, reason } = applied;
  if (policy === "none") return { kind: "unplaced", ...unplaced(partition, reason) };
  const { topic, partition: number, partitionId, committedOffset: from } = partition;
  const to = policyOffset(policy, { ...partition, offsetAtTime: times.get(partitionId) });
  const cause = `${reason}: ${policyText(policy)}`;
  return { kind: "reset", topic, partition: number, partitionId, from, to, policy, cause };
}

/** The partitions whose start only a look at the timestamps can find. */
export function neededTimes(
  partitions: readonly GroupPartition[],
  policies: ResetPolicies,
): readonly { readonly partitionId: number; readonly place: TimePlace }[] {
  return partitions.flatMap((partition) => {
    const place = timeOf(appliedPolicy(partition, policies)?.policy ?? "none");
    return place ? [{ partitionId: partition.partitionId, place }] : [];
  });
}

interface AppliedPolicy {
  readonly policy: ResetPolicy;
  readonly reason: keyof ResetPolicies | "new partition";
}

/** Undefined where the group goes on from its committed offset. */
function appliedPolicy(partition: GroupPartition, policies: ResetPolicies): AppliedPolicy | undefined {
  if (isUsable(partition)) return undefined;
  if (partition.committedOffset !== null) return { policy: policies.outOfRange, reason: "outOfRange" };
  if (isNewInKnownTopic(partition)) return { policy: "earliest", reason: "new partition" };
  return { policy: policies.missing, reason: "missing" };
}

function isNewInKnownTopic({ topicId, topicIdSeen, partition, partitionsSeen }: GroupPartition): boolean {
  return topicIdSeen !== null && (topicIdSeen !== topicId || partition >= partitionsSeen);
}

function unplaced(partition: GroupPartition, reason: AppliedPolicy["reason"]): UnplacedPartition {
  const { topic, partition: number, partitionId, committedOffset, logStartOffset, logEndOffset } = partition;
  const place = `topic "${topic}" partition ${number}`;
  const retained = `the log holds [${logStartOffset}, ${logEndOffset})`;
  if (reason !== "outOfRange") {
    const message = `The group has no committed offset for ${place} and its reset policy is "none"; ${retained}`;
    return { partitionId, topic, partition: number, code: "no_committed_offset", message };
  }
  const message = `The group's committed offset ${committedOffset} for ${place} is out of range and its reset policy is "none"; ${retained}`;
  return { partitionId, topic, partition: number, code: "offset_out_of_range", message };
}

function isTakenOver({ memberId, instanceId }: GroupMember, request: JoinRequest): boolean {
  return memberId === request.memberId || (instanceId !== null && instanceId === request.instanceId);
}

function refuseUnknownTopics({ topics, group }: JoinRequest, { partitions }: GroupSnapshot): void {
  const known = new Set(partitions.map(({ topic }) => topic));
  const unknown = topics.find((topic) => !known.has(topic));
  if (unknown === undefined) return;
  throw new Problem(
    "unknown_topic",
    `Cannot subscribe group "${group}" to topic "${unknown}": there is no such topic`,
    {
      topic: unknown,
    },
  );
}

function refuseTooManyPartitions({ group }: JoinRequest, { partitions }: GroupSnapshot): void {
  if (partitions.length <= PARTITIONS_PER_SUBSCRIPTION_MAX) return;
  throw new Problem(
    "bad_request",
    `Cannot subscribe group "${group}" to ${partitions.length} partitions: at most ${PARTITIONS_PER_SUBSCRIPTION_MAX} a subscription`,
    { found: partitions.length, allowed: PARTITIONS_PER_SUBSCRIPTION_MAX },
  );
}

function refuseSecondMember({ group }: JoinRequest, othersAlive: number): void {
  if (othersAlive === 0) return;
  throw new Problem(
    "conflict",
    `Group "${group}" has a live member, and several members a group are not built yet: subscribe with its memberId or instanceId to take it over, or wait until it has left`,
    { group },
  );
}

function topicsSeen(partitions: readonly GroupPartition[]): JoinPlan["topicsSeen"] {
  const seenByTopic = new Map<string, { topic: string; topicId: number; partitions: number }>();
  for (const { topic, topicId } of partitions) {
    const seen = seenByTopic.get(topic);
    seenByTopic.set(topic, { topic, topicId, partitions: (seen?.partitions ?? 0) + 1 });
  }
  return [...seenByTopic.values()];
}
