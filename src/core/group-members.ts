// Who is in a group after its members have asked for something, and whose place is whose: the part of a plan that is
// about members. (Who owns which partitions is in group-plan.ts.)

import { GROUP_BYTES_MAX, PARTITIONS_PER_SUBSCRIPTION_MAX } from "../protocol/limits.ts";
import type { GroupChange } from "./group-change.ts";
import {
  type GroupMember,
  type GroupPartition,
  type GroupPicture,
  type JoinRequest,
  memberBytes,
  partitionBytes,
} from "./group-picture.ts";
import { Problem } from "./problem.ts";

export interface PlannedJoin {
  readonly change: GroupChange;
  readonly request: JoinRequest;
  readonly memberId: string;
}

export interface Membership {
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

export type Subscriber = Pick<GroupMember, "memberId" | "topics" | "policies">;

export function planMembership(
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
