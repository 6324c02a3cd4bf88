// An operator's reset of a group: which offsets become which. Pure decisions over the group's picture; the write applies
// them exactly, or nothing where an offset has moved since.

import type { PlannedStep, ResetTopic } from "../protocol/http.ts";
import { PARTITIONS_PER_RESET_MAX } from "../protocol/limits.ts";
import type { Place } from "../protocol/places.ts";
import type { GroupPartition, GroupPicture } from "./group-picture.ts";
import type { GroupPlan } from "./group-plan.ts";
import { policyText, resolvePlace, type TimePlace, timeOf } from "./places.ts";
import { Problem } from "./problem.ts";
import type { TimeOffsets } from "./starts.ts";

export interface ResetRequest {
  readonly group: string;
  /** Every topic that is named. */
  readonly topics: readonly string[];
  readonly target: PlaceTarget | PlanTarget;
  readonly isDryRun: boolean;
  readonly reason: string | undefined;
}

export interface PlaceTarget {
  readonly kind: "place";
  readonly topics: readonly ResetTopic[];
  readonly to: Place;
}

export interface PlanTarget {
  readonly kind: "plan";
  readonly steps: readonly PlannedStep[];
}

export interface ResetStep extends PlannedStep {
  readonly partitionId: number;
}

/** The partitions whose place only a look at the timestamps can find. Throws as planReset() does. */
export function timesNeededByReset(
  picture: GroupPicture,
  { target }: ResetRequest,
): readonly { readonly partitionId: number; readonly place: TimePlace }[] {
  const place = target.kind === "place" ? timeOf(target.to) : undefined;
  if (target.kind === "plan" || !place) return [];
  refuseUnknownGroup(picture);
  return selectPartitions(picture, target).map(({ partitionId }) => ({ partitionId, place }));
}

/**
 * Throws `unknown_group`, `unknown_topic`, `unknown_partition`, `offset_out_of_range`, `no_committed_offset` for a place
 * that needs one, and `conflict` where a plan says another `from` than is committed.
 */
export function planReset(
  picture: GroupPicture,
  { target }: ResetRequest,
  times: TimeOffsets,
): readonly ResetStep[] {
  refuseUnknownGroup(picture);
  if (target.kind === "plan") {
    const partitionsByTopic = byTopic(picture);
    return target.steps.map((step) => checkStep(partitionsByTopic, step));
  }
  return selectPartitions(picture, target).map((found) => {
    const offsetAtTime = times.get(found.partitionId);
    return stepOf(
      found,
      about(found, () => resolvePlace(target.to, { ...found, offsetAtTime })),
    );
  });
}

/** Every partition that has an owner gets a new generation, so that what the owner was sent before counts no more. */
export function resetChange(
  picture: GroupPicture,
  { target, reason }: ResetRequest,
  steps: readonly ResetStep[],
) {
  const changed = new Set(steps.map(({ partitionId }) => partitionId));
  const owned = picture.partitions.filter(({ partitionId, owner }) => owner && changed.has(partitionId));
  const members = new Map(picture.members.map((member) => [member.memberId, member]));
  const cause = `reset: ${target.kind === "place" ? placeText(target.to) : "plan"}${reason ? ` (${reason})` : ""}`;
  const plan: GroupPlan = {
    joins: [],
    refusals: new Map(),
    joinedBefore: new Map(),
    endedMemberIds: [],
    expiredMemberIds: [],
    gains: owned.flatMap((partition) => {
      const member = members.get(partition.owner?.memberId ?? "");
      return member && !isRevoked(partition) ? [{ partition, member }] : [];
    }),
    revokedPartitionIds: [],
    // Who is losing it has it no more: the next look gives it to whom it was to go.
    freedPartitionIds: owned.filter(isRevoked).map(({ partitionId }) => partitionId),
    topicsSeen: newTopics(picture, changed),
  };
  const resets = steps.map((step) => ({ ...step, cause, actor: "operator", isExact: true }));
  return { plan, resets };
}

function isRevoked({ owner }: GroupPartition): boolean {
  return owner !== null && owner.revokeInMs !== null;
}

/**
 * One that the group knows and that was created again stays unseen: the partitions that are not reset are still to
 * start at their beginning.
 */
function newTopics({ partitions }: GroupPicture, changed: ReadonlySet<number>): GroupPlan["topicsSeen"] {
  const topics = partitions.filter(
    ({ partitionId, topicIdSeen }) => changed.has(partitionId) && topicIdSeen === null,
  );
  return [...new Map(topics.map(({ topic, topicId }) => [topic, topicId]))].map(([topic, topicId]) => ({
    topic,
    topicId,
    partitions: partitions.filter((partition) => partition.topicId === topicId).length,
  }));
}

// ── which partitions ─────────────────────────────────────────────────────────────────────────────────────

function selectPartitions(picture: GroupPicture, { topics }: PlaceTarget): readonly GroupPartition[] {
  const partitionsByTopic = byTopic(picture);
  const found = topics.flatMap(({ topic, partitions }) => {
    const all = partitionsOf(partitionsByTopic, topic);
    return partitions?.map((partition) => partitionOf(all, topic, partition)) ?? all;
  });
  refuseTooMany(found.length);
  return found;
}

function refuseTooMany(found: number): void {
  if (found <= PARTITIONS_PER_RESET_MAX) return;
  throw new Problem(
    "bad_request",
    `Cannot reset ${found} partitions at once: at most ${PARTITIONS_PER_RESET_MAX} a reset`,
    { found, allowed: PARTITIONS_PER_RESET_MAX },
  );
}

type ByTopic = ReadonlyMap<string, readonly GroupPartition[]>;

/** In their order in the topic. */
function byTopic({ partitions }: GroupPicture): ByTopic {
  const grouped = Map.groupBy(partitions, ({ topic }) => topic);
  for (const own of grouped.values()) own.sort((a, b) => a.partition - b.partition);
  return grouped;
}

function checkStep(partitionsByTopic: ByTopic, { topic, partition, from, to }: PlannedStep): ResetStep {
  const found = partitionOf(partitionsOf(partitionsByTopic, topic), topic, partition);
  if (found.committedOffset !== from) {
    throw new Problem(
      "conflict",
      `Cannot reset topic "${topic}" partition ${partition} from ${from}: its committed offset is ${found.committedOffset} now`,
      { topic, partition, expected: from, found: found.committedOffset },
    );
  }
  return stepOf(
    found,
    about(found, () => resolvePlace({ offset: to }, found)),
  );
}

function refuseUnknownGroup({ version, group }: GroupPicture): void {
  if (version > 0) return;
  throw new Problem("unknown_group", `There is no group "${group}"`, { group });
}

function partitionsOf(partitionsByTopic: ByTopic, topic: string): readonly GroupPartition[] {
  const found = partitionsByTopic.get(topic);
  if (found) return found;
  const why = `Cannot reset topic "${topic}": there is no such topic`;
  throw new Problem("unknown_topic", why, { topic });
}

function partitionOf(all: readonly GroupPartition[], topic: string, partition: number): GroupPartition {
  const found = all[partition];
  if (found) return found;
  const why = `There is no partition ${partition} of topic "${topic}": its partitions are 0 to ${all.length - 1}`;
  throw new Problem("unknown_partition", why, { topic, partition, partitionCount: all.length });
}

function stepOf({ topic, partition, partitionId, committedOffset }: GroupPartition, to: number): ResetStep {
  return { topic, partition, partitionId, from: committedOffset, to };
}

/** A refusal says of which partition it speaks. */
function about({ topic, partition }: GroupPartition, resolve: () => number): number {
  try {
    return resolve();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    const message = `Topic "${topic}" partition ${partition}: ${error.message}`;
    throw new Problem(error.code, message, { ...error.facts, topic, partition });
  }
}

/** As the history of commits says it. */
function placeText(place: Place): string {
  if (place === "current") return place;
  if (typeof place === "object" && "offset" in place) return `offset ${place.offset}`;
  if (typeof place === "object" && "shift" in place) return `shift ${place.shift}`;
  return policyText(place);
}
