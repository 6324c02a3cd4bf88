// Pictures of consumer groups for the tests of what is decided from them, and what a plan makes of a picture.

import type { GroupChange } from "../../src/core/group-change.ts";
import type {
  GroupMember,
  GroupPartition,
  GroupPicture,
  JoinRequest,
  Ownership,
} from "../../src/core/group-picture.ts";
import { type GroupPlan, policyResets, type TopicSeen } from "../../src/core/group-plan.ts";
import type { TimeOffsets } from "../../src/core/starts.ts";
import type { ResetPolicies } from "../../src/protocol/places.ts";

export const GROUP = "billing";
export const EARLIEST: ResetPolicies = { missing: "earliest", outOfRange: "earliest" };

const TOPIC_IDS: Readonly<Record<string, number>> = { orders: 7, refunds: 8, visits: 9 };

/** The log holds [40, 100), 60 is committed, nobody owns it; the group has seen the topic and three partitions of it. */
export function partitionOf(about: Partial<GroupPartition> = {}): GroupPartition {
  const { topic = "orders", partition = 0 } = about;
  const { topicId = TOPIC_IDS[topic] ?? 1 } = about;
  return {
    topic,
    topicId,
    partition,
    partitionId: topicId * 10_000 + partition,
    logStartOffset: 40,
    logEndOffset: 100,
    committedOffset: 60,
    hasMetadata: false,
    owner: null,
    partitionsSeen: 3,
    topicIdSeen: topicId,
    ...about,
  };
}

/** All partitions of a topic: their owners' member ids, `null` for none, with `~` behind it while it is revoked. */
export function topicOf(
  topic: string,
  owners: readonly (string | null)[],
  about: Partial<GroupPartition> = {},
): readonly GroupPartition[] {
  return owners.map((owner, partition) => {
    const free = partitionOf({ topic, partition, partitionsSeen: owners.length, ...about });
    return owner === null ? free : { ...free, owner: ownershipOf(owner, 100 + partition) };
  });
}

export const NEW_TOPIC = { committedOffset: null, partitionsSeen: 0, topicIdSeen: null };

function ownershipOf(text: string, generation: number): Ownership {
  const isRevoked = text.endsWith("~");
  const memberId = isRevoked ? text.slice(0, -1) : text;
  return { memberId, generation, revokeInMs: isRevoked ? 5_000 : null, reset: null };
}

export function memberOf(memberId: string, about: Partial<GroupMember> = {}): GroupMember {
  return {
    memberId,
    membership: 1,
    instanceId: null,
    processId: null,
    topics: ["orders"],
    policies: EARLIEST,
    expiresInMs: 45_000,
    ...about,
  };
}

/** `members`: those of one topic by their ids alone. */
export function pictureOf(
  members: readonly (string | GroupMember)[],
  partitions: readonly GroupPartition[],
): GroupPicture {
  const all = members.map((member) => (typeof member === "string" ? memberOf(member) : member));
  return { group: GROUP, version: 1, nowMs: 1_000_000, members: all, partitions };
}

export const NO_GROUP: GroupPicture = {
  group: GROUP,
  version: 0,
  nowMs: 1_000_000,
  members: [],
  partitions: [],
};

export function joinOf(newMemberId: string, about: Partial<JoinRequest> = {}) {
  const request: JoinRequest = {
    group: GROUP,
    topics: ["orders"],
    memberId: undefined,
    instanceId: undefined,
    newMemberId,
    policies: EARLIEST,
    sessionTimeoutMs: 45_000,
    ...about,
  };
  return { kind: "join", request } as const;
}

export function leaveOf(memberId: string, membership = 1): GroupChange {
  return { kind: "leave", member: { group: GROUP, memberId, membership } };
}

/** Of the partitions as they are owned now. */
export function releaseOf(memberId: string, partitions: readonly GroupPartition[]): GroupChange {
  return { kind: "release", ...namedBy(memberId, partitions) };
}

/** Of the partitions as they are owned now. */
export function stallOf(memberId: string, partitions: readonly GroupPartition[]): GroupChange {
  return { kind: "stall", ...namedBy(memberId, partitions) };
}

function namedBy(memberId: string, partitions: readonly GroupPartition[]) {
  const owned = partitions.map(({ partitionId, owner }) => ({
    partitionId,
    generation: owner?.generation ?? 0,
  }));
  return { member: { group: GROUP, memberId, membership: 1 }, partitions: owned };
}

// ── what a plan makes of a group ─────────────────────────────────────────────────────────────────────────

/** A group in a database that has given numbers up to `last`. */
export interface StoredGroup {
  readonly picture: GroupPicture;
  readonly last: number;
}

const NO_TIMES: TimeOffsets = new Map();

/** As store/groups.ts writes it: numbers from one sequence, the first is the version and that of the memberships. */
export function applyPlan({ picture, last }: StoredGroup, plan: GroupPlan, times = NO_TIMES): StoredGroup {
  const version = last + 1;
  const resets = new Map(policyResets(plan, times).map((reset) => [reset.partitionId, reset]));
  const owners = new Map(
    plan.gains.map(({ partition, member: { memberId } }, index): [number, Ownership] => {
      const reset = resets.get(partition.partitionId)?.policy ?? null;
      return [partition.partitionId, { memberId, generation: version + 1 + index, revokeInMs: null, reset }];
    }),
  );
  const freed = new Set(plan.freedPartitionIds);
  const revoked = new Set(plan.revokedPartitionIds);
  const partitions = picture.partitions.map((partition) => {
    const { partitionId, committedOffset } = partition;
    const owner = owners.get(partitionId) ?? (freed.has(partitionId) ? null : partition.owner);
    return {
      ...partition,
      ...seenOf(partition, plan.topicsSeen),
      committedOffset: resets.get(partitionId)?.to ?? committedOffset,
      owner: owner && revoked.has(partitionId) ? { ...owner, revokeInMs: 5_000 } : owner,
    };
  });
  return {
    picture: { ...picture, version, members: membersAfter(picture, plan, version), partitions },
    last: version + plan.gains.length,
  };
}

function seenOf({ topic }: GroupPartition, topicsSeen: readonly TopicSeen[]) {
  const seen = topicsSeen.find((each) => each.topic === topic);
  return seen ? { topicIdSeen: seen.topicId, partitionsSeen: seen.partitions } : {};
}

/** Throws where the database would: a member is there already. */
function membersAfter(
  { members }: GroupPicture,
  { endedMemberIds, joins }: GroupPlan,
  membership: number,
): readonly GroupMember[] {
  const left = members.filter(({ memberId }) => !endedMemberIds.includes(memberId));
  const joined = joins.map(({ memberId, request: { instanceId = null, topics, policies } }) =>
    memberOf(memberId, { membership, instanceId, topics, policies }),
  );
  const all = [...left, ...joined].sort((a, b) => (a.memberId < b.memberId ? -1 : 1));
  if (new Set(all.map(({ memberId }) => memberId)).size < all.length)
    throw new Error("a member is there twice");
  return all;
}
