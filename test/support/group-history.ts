// Whatever may happen to a group, in any order: decided by planGroup(), written as store/groups.ts writes it, and checked
// after every turn.

import { expect } from "bun:test";
import fc from "fast-check";
import type { GroupChange } from "../../src/core/group-change.ts";
import type { GroupPartition, GroupPicture } from "../../src/core/group-picture.ts";
import { type GroupPlan, isIdle, planGroup } from "../../src/core/group-plan.ts";
import {
  applyPlan,
  joinOf,
  leaveOf,
  NEW_TOPIC,
  NO_GROUP,
  partitionOf,
  releaseOf,
  type StoredGroup,
  topicOf,
} from "./group-picture.ts";

export const TOPICS = ["orders", "refunds", "visits"];

/** What is asked in one turn. Numbers pick one of what is there. */
type Ask =
  | {
      readonly kind: "join";
      readonly topics: readonly string[];
      readonly memberId: number | null;
      readonly instanceId: string | null;
      /** It was written before. */
      readonly isRepeated: boolean;
    }
  | { readonly kind: "leave"; readonly who: number; readonly isStale: boolean }
  | {
      readonly kind: "release" | "stall";
      readonly who: number;
      readonly isStale: boolean;
      /** Every so many of the member's partitions. */
      readonly every: number;
    };

export type Step =
  | { readonly kind: "turn"; readonly asks: readonly Ask[]; readonly mayExpire: boolean }
  | { readonly kind: "expire"; readonly who: number }
  | { readonly kind: "deadline"; readonly every: number }
  | { readonly kind: "grow" | "drop" | "create"; readonly topic: string };

export function anyHistory({ withStalls }: { readonly withStalls: boolean }): fc.Arbitrary<readonly Step[]> {
  const who = fc.nat(5);
  const every = fc.integer({ min: 1, max: 3 });
  const isStale = fc.boolean();
  const join = fc.record<Extract<Ask, { kind: "join" }>>({
    kind: fc.constant("join"),
    topics: fc.subarray(TOPICS, { minLength: 1 }),
    memberId: fc.option(who, { freq: 2 }),
    instanceId: fc.option(fc.constantFrom("t1", "t2"), { freq: 2 }),
    isRepeated: fc.nat(9).map((number) => number === 9),
  });
  const leave = fc.record({ kind: fc.constant("leave" as const), who, isStale });
  const release = fc.record({ kind: fc.constant("release" as const), who, isStale, every });
  const stall = fc.record({ kind: fc.constant("stall" as const), who, isStale, every });
  const ask = fc.oneof<fc.Arbitrary<Ask>[]>(join, join, leave, release, ...(withStalls ? [stall] : []));
  const turn = fc.record({
    kind: fc.constant("turn" as const),
    asks: fc.array(ask, { maxLength: 4 }),
    mayExpire: fc.boolean(),
  });
  const rest = fc.oneof<fc.Arbitrary<Step>[]>(
    fc.record({ kind: fc.constant("expire" as const), who }),
    fc.record({ kind: fc.constant("deadline" as const), every }),
    fc.record({ kind: fc.constantFrom("grow", "drop", "create"), topic: fc.constantFrom(...TOPICS) }),
  );
  return fc.array(fc.oneof({ arbitrary: turn, weight: 3 }, { arbitrary: rest, weight: 2 }), {
    maxLength: 25,
  });
}

/** Every topic that there is is in the picture. */
export interface World extends StoredGroup {
  /** What the group has seen of topics that are gone. */
  readonly seen: ReadonlyMap<string, Pick<GroupPartition, "topicIdSeen" | "partitionsSeen">>;
  readonly topicsCreated: number;
}

const FIRST: World = {
  picture: {
    ...NO_GROUP,
    partitions: [
      ...topicOf("orders", [null, null, null, null, null], NEW_TOPIC),
      ...topicOf("refunds", [null, null], NEW_TOPIC),
    ],
  },
  last: 1_000,
  seen: new Map(),
  topicsCreated: 0,
};

/** Undefined where there is nobody to do it. */
function changeOf(ask: Ask, { picture }: World, id: string): GroupChange | undefined {
  const memberAt = (index: number) => picture.members[index % picture.members.length];
  if (ask.kind === "join") {
    const { topics, isRepeated } = ask;
    const memberId = ask.memberId === null ? undefined : memberAt(ask.memberId)?.memberId;
    const newMemberId = (isRepeated && picture.members[0]?.memberId) || id;
    return joinOf(newMemberId, { topics, memberId, instanceId: ask.instanceId ?? undefined });
  }
  const member = memberAt(ask.who);
  if (!member) return undefined;
  if (ask.kind === "leave") return leaveOf(member.memberId, member.membership - (ask.isStale ? 1 : 0));
  const owned = picture.partitions
    .filter(({ owner }) => owner?.memberId === member.memberId)
    .filter((_, index) => index % ask.every === 0)
    .map(({ partitionId, owner }) => ({
      partitionId,
      generation: (owner?.generation ?? 0) - (ask.isStale ? 1 : 0),
    }));
  const { memberId, membership } = member;
  return { kind: ask.kind, member: { group: picture.group, memberId, membership }, partitions: owned };
}

/** Of several joins for the same place the first: the others have the next turn. */
function withoutRivals(changes: readonly GroupChange[]): readonly GroupChange[] {
  const taken = new Set<string>();
  return changes.filter((change) => {
    if (change.kind !== "join") return true;
    const { memberId, instanceId, newMemberId } = change.request;
    const places = [
      `new ${newMemberId}`,
      memberId && `member ${memberId}`,
      instanceId && `instance ${instanceId}`,
    ];
    const wanted = places.filter((place) => place !== undefined);
    const isFree = !wanted.some((place) => taken.has(place));
    for (const place of wanted) taken.add(place);
    return isFree;
  });
}

/** What readGroup() finds for these changes. */
function seenFor(changes: readonly GroupChange[], { picture }: World): GroupPicture {
  const asked = changes.flatMap((change) => (change.kind === "join" ? change.request.topics : []));
  const wanted = new Set([...asked, ...picture.members.flatMap(({ topics }) => topics)]);
  return { ...picture, partitions: picture.partitions.filter(({ topic }) => wanted.has(topic)) };
}

function ownersChanged(
  { picture, ...world }: World,
  change: (partition: GroupPartition, index: number) => GroupPartition,
): World {
  return { ...world, picture: { ...picture, partitions: picture.partitions.map(change) } };
}

function expire({ picture, ...world }: World, who: number): World {
  const members = picture.members.map((member, index) =>
    index === who % picture.members.length ? { ...member, expiresInMs: 0 } : member,
  );
  return { ...world, picture: { ...picture, members } };
}

function endDeadlines(world: World, every: number): World {
  return ownersChanged(world, (partition, index) => {
    const { owner } = partition;
    if (index % every !== 0 || !owner || owner.revokeInMs === null) return partition;
    return { ...partition, owner: { ...owner, revokeInMs: 0 } };
  });
}

function changeTopic(world: World, kind: "grow" | "drop" | "create", topic: string): World {
  const { picture, seen, topicsCreated } = world;
  const own = picture.partitions.filter((partition) => partition.topic === topic);
  const others = picture.partitions.filter((partition) => partition.topic !== topic);
  const [first] = own;
  if ((first === undefined) !== (kind === "create")) return world;
  const { topicIdSeen, partitionsSeen } = first ?? seen.get(topic) ?? NEW_TOPIC;
  const { topicId } = first ?? { topicId: 20 + topicsCreated };
  const about = { topic, topicId, topicIdSeen, partitionsSeen, committedOffset: null };
  const added = [0, 1].map((index) => partitionOf({ ...about, partition: own.length + index }));
  return {
    ...world,
    seen: new Map([...seen, [topic, { topicIdSeen, partitionsSeen }]]),
    topicsCreated: topicsCreated + (kind === "create" ? 1 : 0),
    picture: { ...picture, partitions: [...others, ...(kind === "drop" ? [] : [...own, ...added])] },
  };
}

function after(world: World, step: Step, index: number): World {
  switch (step.kind) {
    case "turn": {
      const asked = step.asks.flatMap((ask, number) => changeOf(ask, world, `m${index}-${number}`) ?? []);
      return takeTurn(world, withoutRivals(asked), step.mayExpire);
    }
    case "expire":
      return expire(world, step.who);
    case "deadline":
      return endDeadlines(world, step.every);
    default:
      return changeTopic(world, step.kind, step.topic);
  }
}

export function takeTurn(world: World, changes: readonly GroupChange[], mayExpire: boolean): World {
  const picture = seenFor(changes, world);
  const planned = planGroup(picture, changes, { mayExpire });
  const now = isIdle(planned) ? world : { ...world, ...applyPlan(world, planned) };
  checkEnded(picture, planned, { changes, mayExpire });
  checkHandOvers(world, now, { planned, changes });
  checkOwners(now);
  checkNumbers(world, now);
  return now;
}

interface Turn {
  readonly changes: readonly GroupChange[];
  readonly mayExpire: boolean;
}

/** Who leaves, whose lease is over and whose place is taken: they end, and nobody else. */
function checkEnded({ members }: GroupPicture, planned: GroupPlan, { changes, mayExpire }: Turn): void {
  const expected = members.filter(
    ({ memberId, membership, instanceId, expiresInMs }) =>
      (mayExpire && expiresInMs <= 0) ||
      planned.joins.some(
        ({ request }) =>
          request.memberId === memberId || (instanceId !== null && request.instanceId === instanceId),
      ) ||
      changes.some(
        (change) =>
          change.kind === "leave" &&
          change.member.memberId === memberId &&
          change.member.membership === membership,
      ),
  );
  expect([...planned.endedMemberIds].sort()).toEqual(expected.map(({ memberId }) => memberId).sort());
}

/** What has a living owner stays as it is, or is revoked, until the owner lets it go, loses it or its time is over. */
function checkHandOvers(
  before: World,
  { picture }: World,
  { planned, changes }: Pick<Turn, "changes"> & { readonly planned: GroupPlan },
): void {
  const ended = new Set(planned.endedMemberIds);
  for (const [index, { owner, partitionId }] of before.picture.partitions.entries()) {
    if (!owner || ended.has(owner.memberId)) continue;
    const isNamed = (kind: GroupChange["kind"]) =>
      changes.some(
        (change) =>
          "partitions" in change &&
          change.kind === kind &&
          change.partitions.some(
            (named) => named.partitionId === partitionId && named.generation === owner.generation,
          ),
      );
    const now = picture.partitions[index]?.owner;
    if (owner.revokeInMs === null) {
      if (!isNamed("stall"))
        expect(now).toMatchObject({ memberId: owner.memberId, generation: owner.generation });
    } else if (owner.revokeInMs > 0 && !isNamed("release") && !isNamed("stall")) expect(now).toEqual(owner);
    else expect(now?.generation).not.toBe(owner.generation);
  }
}

/** Whoever owns is a member that subscribes to the topic, and whatever somebody subscribes to has an owner. */
function checkOwners({ picture: { members, partitions } }: World): void {
  for (const { topic, owner } of partitions) {
    const member = members.find(({ memberId }) => memberId === owner?.memberId);
    if (owner) expect(member?.topics ?? []).toContain(topic);
    else expect(members.flatMap(({ topics }) => topics)).not.toContain(topic);
  }
  const instances = members.flatMap(({ instanceId }) => instanceId ?? []);
  expect(new Set(instances).size).toBe(instances.length);
}

/** An ownership that goes on keeps its generation; a new one has one that nobody had before. */
function checkNumbers(before: World, { picture }: World): void {
  const known = new Map(before.picture.partitions.map(({ partitionId, owner }) => [partitionId, owner]));
  const generations = picture.partitions.flatMap(({ owner }) => owner?.generation ?? []);
  expect(new Set(generations).size).toBe(generations.length);
  for (const { partitionId, owner } of picture.partitions) {
    const was = known.get(partitionId);
    if (!owner) continue;
    if (was?.generation === owner.generation) expect(owner.memberId).toBe(was.memberId);
    else expect(owner.generation).toBeGreaterThan(before.last);
  }
}

const TURNS_TO_SETTLE_MAX = 3;

/** Everybody lets go at once of what is revoked, until there is nothing to do. */
export function settle(world: World): World {
  let now = world;
  for (let turn = 0; turn <= TURNS_TO_SETTLE_MAX; turn += 1) {
    const { members, partitions } = now.picture;
    const releases = members.map(({ memberId }) =>
      releaseOf(
        memberId,
        partitions.filter(({ owner }) => owner?.memberId === memberId),
      ),
    );
    const next = takeTurn(now, releases, true);
    if (next === now) return now;
    now = next;
  }
  throw new Error(`not settled after ${TURNS_TO_SETTLE_MAX} turns`);
}

export function checkBalance({ picture: { members, partitions } }: World): void {
  for (const topic of TOPICS) {
    const counts = members
      .filter(({ topics }) => topics.includes(topic))
      .map(
        ({ memberId }) =>
          partitions.filter((each) => each.topic === topic && each.owner?.memberId === memberId).length,
      );
    if (counts.length > 0) expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
  }
}

/** Settling moves a partition once: whoever has it before and after has had it all the time. */
export function checkNothingMovedAndCameBack(before: World, settled: World): void {
  const alive = new Set(settled.picture.members.map(({ memberId }) => memberId));
  for (const [index, { owner }] of before.picture.partitions.entries()) {
    const now = settled.picture.partitions[index]?.owner;
    if (owner?.revokeInMs !== null || !alive.has(owner.memberId)) continue;
    if (now?.memberId === owner.memberId) expect(now).toEqual(owner);
  }
}

/** `onWorld`: with what is there after each step. */
export function play(history: readonly Step[], onWorld: (world: World) => void): void {
  let world = FIRST;
  for (const [index, step] of history.entries()) {
    world = after(world, step, index);
    onWorld(world);
  }
}
