// Where a group starts in a partition that one of its members gets: at the committed offset, or where a policy says.

import type { ResetPolicies, ResetPolicy } from "../protocol/places.ts";
import type { GroupPartition } from "./group-picture.ts";
import { policyOffset, policyText, type TimePlace, timeOf } from "./places.ts";

/** Where policies by time lead, by partition id, for the partitions that neededTimes() names. */
export type TimeOffsets = ReadonlyMap<number, number>;

const NO_TIMES: TimeOffsets = new Map();

export type Start =
  | { readonly kind: "committed" }
  | ({ readonly kind: "reset" } & PolicyReset)
  | ({ readonly kind: "unplaced" } & UnplacedPartition);

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

/** The policy `none` leaves it without a place. */
export interface UnplacedPartition {
  readonly partitionId: number;
  readonly topic: string;
  readonly partition: number;
  readonly code: "no_committed_offset" | "offset_out_of_range";
  readonly message: string;
}

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

/** Set where an owner with these policies has no place in the partition as it stands. */
export function unplacedOf(partition: GroupPartition, policies: ResetPolicies): UnplacedPartition | null {
  const applied = appliedPolicy(partition, policies);
  return applied?.policy === "none" ? unplaced(partition, applied.reason) : null;
}

/** Set where the partition's start is one that only a look at the timestamps can find. */
export function neededTime(partition: GroupPartition, policies: ResetPolicies): TimePlace | undefined {
  return timeOf(appliedPolicy(partition, policies)?.policy ?? "none");
}

interface AppliedPolicy {
  readonly policy: ResetPolicy;
  readonly reason: keyof ResetPolicies | "new partition";
}

/** Undefined where the group goes on from its committed offset. */
function appliedPolicy(partition: GroupPartition, policies: ResetPolicies): AppliedPolicy | undefined {
  const { committedOffset, logStartOffset, logEndOffset } = partition;
  if (committedOffset === null) {
    if (isNewInKnownTopic(partition)) return { policy: "earliest", reason: "new partition" };
    return { policy: policies.missing, reason: "missing" };
  }
  if (committedOffset >= logStartOffset && committedOffset <= logEndOffset) return undefined;
  return { policy: policies.outOfRange, reason: "outOfRange" };
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
