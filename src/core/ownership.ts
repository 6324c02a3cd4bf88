// What a member has to be told: the difference between what its group's picture gives it and what it was told before.
// It is the same whichever process made the change, so a member learns of a rebalance in one way only.

import type { RevokeReason } from "../protocol/frames.ts";
import type { ResetPolicy } from "../protocol/places.ts";
import type { OwnedPartition } from "./group-change.ts";
import type { GroupMember, GroupPartition, GroupPicture, Ownership } from "./group-picture.ts";
import { type UnplacedPartition, unplacedOf } from "./starts.ts";

/** What a member was told last of each partition that it owns, by partition id. */
export type ToldOwnerships = Map<number, { readonly generation: number; readonly isRevoked: boolean }>;

/** By partition id, for those that untoldMetadata() names. */
export type MetadataById = ReadonlyMap<number, string>;

export interface OwnershipChange {
  readonly gained: readonly GainedPartition[];
  /** They go when all that was sent of them is acknowledged, when they are released, or at the deadline. */
  readonly revoked: readonly (OwnedPartition & { readonly deadlineMs: number })[];
  /** They are gone. One that was revoked before has no more to be said of it. */
  readonly lost: readonly (OwnedPartition & { readonly reason: RevokeReason })[];
}

export interface GainedPartition {
  readonly topic: string;
  readonly topicId: number;
  readonly partition: number;
  readonly partitionId: number;
  readonly generation: number;
  readonly committedOffset: number | null;
  readonly metadata: string | null;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
  /** The policy that gave the place, where one did. */
  readonly reset: ResetPolicy | null;
  /** Set where the policy `none` leaves it without a place. */
  readonly unplaced: UnplacedPartition | null;
}

/** A picture by what is asked of it for each member. */
export interface OwnershipNews {
  readonly ownedByMemberId: ReadonlyMap<string, readonly GroupPartition[]>;
  readonly existingIds: ReadonlySet<number>;
}

export function newsOf({ partitions }: GroupPicture): OwnershipNews {
  const ownedByMemberId = new Map<string, GroupPartition[]>();
  for (const partition of partitions) {
    if (!partition.owner) continue;
    const owned = ownedByMemberId.get(partition.owner.memberId);
    if (owned) owned.push(partition);
    else ownedByMemberId.set(partition.owner.memberId, [partition]);
  }
  return { ownedByMemberId, existingIds: new Set(partitions.map(({ partitionId }) => partitionId)) };
}

/** The partitions whose metadata is to be told with them. */
export function untoldMetadata(
  told: ToldOwnerships,
  { memberId }: Pick<GroupMember, "memberId">,
  { ownedByMemberId }: OwnershipNews,
): readonly number[] {
  const owned = ownedByMemberId.get(memberId) ?? [];
  return owned
    .filter(
      ({ hasMetadata, owner, partitionId }) =>
        hasMetadata && told.get(partitionId)?.generation !== owner?.generation,
    )
    .map(({ partitionId }) => partitionId);
}

/** Changes `told` to what is told now. */
export function tellOwnership(
  told: ToldOwnerships,
  member: GroupMember,
  { ownedByMemberId, existingIds, metadata }: OwnershipNews & { readonly metadata: MetadataById },
): OwnershipChange {
  const gained: GainedPartition[] = [];
  const revoked: OwnershipChange["revoked"][number][] = [];
  const owned = new Set<number>();
  for (const partition of ownedByMemberId.get(member.memberId) ?? []) {
    const { owner, partitionId } = partition;
    if (!owner) continue;
    owned.add(partitionId);
    const { generation, revokeInMs } = owner;
    const before = told.get(partitionId);
    const isNew = before?.generation !== generation;
    if (isNew) gained.push(gainedOf(partition, { owner, member, metadata }));
    const isRevoked = revokeInMs !== null;
    if (isRevoked && (isNew || !before.isRevoked))
      revoked.push({ partitionId, generation, deadlineMs: Math.max(0, revokeInMs) });
    told.set(partitionId, { generation, isRevoked });
  }
  return { gained, revoked, lost: forget(told, owned, existingIds) };
}

function forget(
  told: ToldOwnerships,
  owned: ReadonlySet<number>,
  existingIds: ReadonlySet<number>,
): OwnershipChange["lost"] {
  const lost: OwnershipChange["lost"][number][] = [];
  for (const [partitionId, { generation }] of told) {
    if (owned.has(partitionId)) continue;
    told.delete(partitionId);
    lost.push({
      partitionId,
      generation,
      reason: existingIds.has(partitionId) ? "rebalance" : "topic_deleted",
    });
  }
  return lost;
}

interface Gained {
  readonly owner: Ownership;
  readonly member: GroupMember;
  readonly metadata: MetadataById;
}

function gainedOf(
  partition: GroupPartition,
  { owner: { generation, reset }, member, metadata }: Gained,
): GainedPartition {
  const { topic, topicId, partition: number, partitionId, logStartOffset, logEndOffset } = partition;
  const { committedOffset } = partition;
  return {
    topic,
    topicId,
    partition: number,
    partitionId,
    generation,
    committedOffset,
    metadata: metadata.get(partitionId) ?? null,
    logStartOffset,
    logEndOffset,
    reset,
    unplaced: unplacedOf(partition, member.policies),
  };
}
