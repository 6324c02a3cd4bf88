// A consumer group as one read finds it, whole and of one moment: what every decision about the group is made from,
// in whichever server process. store/groups.ts reads it.

import type { ResetPolicies, ResetPolicy } from "../protocol/places.ts";

export interface GroupPicture {
  readonly group: string;
  /** A new one with every change of members or owners; 0: the group does not exist. */
  readonly version: number;
  /** When it was read: ms since 1970, on the database's clock. */
  readonly nowMs: number;
  readonly members: readonly GroupMember[];
  /** Every partition of the topics that members subscribe to, and of those that were asked for, where they exist. */
  readonly partitions: readonly GroupPartition[];
}

export interface GroupMember {
  readonly memberId: string;
  /** Distinguishes this membership from an earlier or later one of the same member. */
  readonly membership: number;
  readonly instanceId: string | null;
  /** The server process that its socket hangs on; null where there is only one. */
  readonly processId: string | null;
  readonly topics: readonly string[];
  readonly policies: ResetPolicies;
  /** Until the lease runs out, its own or its server process's; 0 or less: it has, and nobody has ended the membership yet. */
  readonly expiresInMs: number;
}

export interface GroupPartition {
  readonly topic: string;
  readonly topicId: number;
  readonly partition: number;
  readonly partitionId: number;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
  readonly committedOffset: number | null;
  /** What was said with the last commit may be long: it is read where it is told. */
  readonly hasMetadata: boolean;
  /** Null while nobody owns it. */
  readonly owner: Ownership | null;
  /** How many partitions of a topic of this name the group has seen; 0: it is new to the group. */
  readonly partitionsSeen: number;
  /** The topic of this name that the group has seen; another one means that the topic was created again. */
  readonly topicIdSeen: number | null;
}

export interface Ownership {
  readonly memberId: string;
  readonly generation: number;
  /** Set while it is revoked: until the deadline, 0 or less when that is over. */
  readonly revokeInMs: number | null;
  /** The policy that gave the partition its place when this ownership began; null where the committed offset did. */
  readonly reset: ResetPolicy | null;
}

/** A subscription that wants to be a member. */
export interface JoinRequest {
  readonly group: string;
  readonly topics: readonly string[];
  /** Of an earlier membership, to take it over. */
  readonly memberId: string | undefined;
  /** Static membership: takes over whoever holds this name. */
  readonly instanceId: string | undefined;
  /** For a membership that nobody had. A member of that id is there only where this very join was written already. */
  readonly newMemberId: string;
  readonly policies: ResetPolicies;
  readonly sessionTimeoutMs: number;
}

// ── its size ─────────────────────────────────────────────────────────────────────────────────────────────

/** Ids, offsets, an owner and the names of all that: about what a row takes beside names of topics. */
export const PARTITION_BYTES = 350;
const MEMBER_BYTES = 400;

/** About what they take as the database tells them. */
export function memberBytes(members: readonly Pick<GroupMember, "topics">[]): number {
  let bytes = 0;
  for (const { topics } of members) for (const topic of topics) bytes += topic.length + 3;
  return bytes + members.length * MEMBER_BYTES;
}

/** About what they take as the database tells them. */
export function partitionBytes(partitions: readonly Pick<GroupPartition, "topic">[]): number {
  return partitions.reduce((sum, { topic }) => sum + topic.length + PARTITION_BYTES, 0);
}
