import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type AssignablePartition, assignPartitions, type Subscriber } from "../../src/core/assignment.ts";

const TOPICS = ["orders", "refunds", "visits"];
const FIRST_ID = { orders: 100, refunds: 200, visits: 300 } as Readonly<Record<string, number>>;

const member = (memberId: string, ...topics: string[]): Subscriber => ({ memberId, topics });
const partitionsOf = (topic: string, owners: readonly (string | null)[]): readonly AssignablePartition[] =>
  owners.map((ownerMemberId, partition) => ({
    partitionId: (FIRST_ID[topic] ?? 0) + partition,
    topic,
    partition,
    ownerMemberId,
  }));

/** The owners of a topic's partitions, in their order. */
const ownersOf = (topic: string, owners: ReadonlyMap<number, string>, count: number) =>
  Array.from({ length: count }, (_, partition) => owners.get((FIRST_ID[topic] ?? 0) + partition));

/** What a group decides for the owners that it has now. */
function reassign(subscribers: readonly Subscriber[], owners: readonly (string | null)[]) {
  return ownersOf("orders", assignPartitions(subscribers, partitionsOf("orders", owners)), owners.length);
}

const [a, b, c] = ["a", "b", "c"].map((memberId) => member(memberId, "orders")) as [
  Subscriber,
  Subscriber,
  Subscriber,
];

describe("assignPartitions()", () => {
  test.each([
    ["gives the only member everything", [a], [null, null, null], ["a", "a", "a"]],
    ["shares what nobody owns", [a, b], [null, null, null, null], ["a", "a", "b", "b"]],
    [
      "takes from the owner of all what a newcomer needs, no more",
      [a, b],
      ["a", "a", "a", "a"],
      ["a", "a", "b", "b"],
    ],
    ["leaves the one more where it is", [a, b], ["b", "b", "b"], ["b", "b", "a"]],
    [
      "gives what a leaver had to the others, and moves nothing else",
      [a, b],
      ["a", "c", "b", "c"],
      ["a", "a", "b", "b"],
    ],
    ["leaves a balanced group alone", [a, b, c], ["c", "a", "b"], ["c", "a", "b"]],
    ["leaves the newest idle where there are too few partitions", [a, b, c], ["b", "a"], ["b", "a"]],
    ["gives nothing where nobody subscribes", [member("x", "refunds")], ["x", null], [undefined, undefined]],
  ] as const)("%s", (_, subscribers, owners, expected) => {
    expect(reassign(subscribers, owners)).toEqual([...expected]);
  });

  test("takes a partition from an owner that no longer subscribes to its topic", () => {
    expect(reassign([member("a", "refunds"), b], ["a", "a"])).toEqual(["b", "b"]);
  });

  test("gives the one more of a topic to who has less of the others", () => {
    const both = [member("a", "orders", "refunds"), member("b", "orders", "refunds")];
    const partitions = [...partitionsOf("orders", [null]), ...partitionsOf("refunds", [null])];
    const owners = assignPartitions(both, partitions);
    expect([owners.get(100), owners.get(200)]).toEqual(["a", "b"]);
  });

  test("of no members, and of no partitions, is nothing", () => {
    expect(assignPartitions([], partitionsOf("orders", [null]))).toEqual(new Map());
    expect(assignPartitions([a], [])).toEqual(new Map());
  });
});

// ── for any group ────────────────────────────────────────────────────────────────────────────────────────

interface Group {
  readonly subscribers: readonly Subscriber[];
  readonly partitions: readonly AssignablePartition[];
}

const MEMBER_IDS = ["m1", "m2", "m3", "m4", "m5", "m6"];
/** `gone`: of a member that has left. */
const anyOwner = fc.constantFrom(null, "gone", ...MEMBER_IDS);

function anyGroup(sizes: { readonly members: number; readonly partitions: number }): fc.Arbitrary<Group> {
  const subscribers = fc.uniqueArray(
    fc.record({ memberId: fc.constantFrom(...MEMBER_IDS), topics: fc.subarray(TOPICS, { minLength: 1 }) }),
    { selector: ({ memberId }) => memberId, maxLength: sizes.members },
  );
  const owners = fc.array(anyOwner, { maxLength: sizes.partitions });
  const partitions = fc
    .tuple(...TOPICS.map((topic) => owners.map((list) => partitionsOf(topic, list))))
    .map((lists) => lists.flat());
  return fc.record({ subscribers, partitions });
}

function countsIn(
  topic: string,
  { subscribers, partitions }: Group,
  owners: ReadonlyMap<number, string>,
): number[] {
  const members = subscribers.filter(({ topics }) => topics.includes(topic));
  const own = partitions.filter((partition) => partition.topic === topic);
  return members.map(
    ({ memberId }) => own.filter(({ partitionId }) => owners.get(partitionId) === memberId).length,
  );
}

const keptBy = (
  { partitions }: Pick<Group, "partitions">,
  owners: ReadonlyMap<number, string | undefined>,
): number =>
  partitions.filter(({ partitionId, ownerMemberId }) => owners.get(partitionId) === ownerMemberId).length;

const isBalanced = (counts: readonly number[]) =>
  counts.length === 0 || Math.max(...counts) - Math.min(...counts) <= 1;

describe("assignPartitions() of any group", () => {
  const large = anyGroup({ members: 6, partitions: 40 });

  test("gives every partition that somebody wants to one who wants it, and no other", () => {
    fc.assert(
      fc.property(large, (group) => {
        const owners = assignPartitions(group.subscribers, group.partitions);
        for (const { topic, partitionId } of group.partitions) {
          const wanting = group.subscribers.filter(({ topics }) => topics.includes(topic));
          const owner = owners.get(partitionId);
          if (wanting.length === 0) expect(owner).toBeUndefined();
          else expect(wanting.map(({ memberId }) => memberId)).toContain(owner as string);
        }
        expect(
          [...owners.keys()].every((id) => group.partitions.some(({ partitionId }) => partitionId === id)),
        ).toBe(true);
      }),
    );
  });

  test("is balanced in each topic", () => {
    fc.assert(
      fc.property(large, (group) => {
        const owners = assignPartitions(group.subscribers, group.partitions);
        for (const topic of TOPICS) expect(countsIn(topic, group, owners)).toSatisfy(isBalanced);
      }),
    );
  });

  test("is the same whatever the order of members, topics and partitions", () => {
    const shuffled = large.chain((group) =>
      fc.record({
        group: fc.constant(group),
        subscribers: fc.shuffledSubarray([...group.subscribers], { minLength: group.subscribers.length }),
        partitions: fc.shuffledSubarray([...group.partitions], { minLength: group.partitions.length }),
      }),
    );
    fc.assert(
      fc.property(shuffled, ({ group, subscribers, partitions }) => {
        const turned = subscribers.map(({ memberId, topics }) => ({
          memberId,
          topics: [...topics].reverse(),
        }));
        const expected = [...assignPartitions(group.subscribers, group.partitions)].sort();
        expect([...assignPartitions(turned, partitions)].sort()).toEqual(expected);
      }),
    );
  });

  test("done again changes nothing", () => {
    fc.assert(
      fc.property(large, ({ subscribers, partitions }) => {
        const owners = assignPartitions(subscribers, partitions);
        const settled = partitions.map((each) => ({
          ...each,
          ownerMemberId: owners.get(each.partitionId) ?? null,
        }));
        expect(assignPartitions(subscribers, settled)).toEqual(owners);
      }),
    );
  });

  test("moves as little as any balanced assignment could", () => {
    const small = anyGroup({ members: 3, partitions: 5 });
    fc.assert(
      fc.property(small, ({ subscribers, partitions: all }) => {
        for (const topic of TOPICS) {
          const partitions = all.filter((partition) => partition.topic === topic);
          const members = subscribers.filter(({ topics }) => topics.includes(topic));
          if (members.length === 0) continue;
          const found = keptBy({ partitions }, assignPartitions(members, partitions));
          expect(found).toBe(mostThatCanBeKept(members, partitions));
        }
      }),
    );
  });
});

/** By trying all. */
function mostThatCanBeKept(
  members: readonly Subscriber[],
  partitions: readonly AssignablePartition[],
): number {
  const topic = partitions[0]?.topic ?? "";
  let most = 0;
  for (let number = 0; number < members.length ** partitions.length; number += 1) {
    const owners = new Map(
      partitions.map(({ partitionId }, index) => [
        partitionId,
        members[Math.floor(number / members.length ** index) % members.length]?.memberId ?? "",
      ]),
    );
    if (isBalanced(countsIn(topic, { subscribers: members, partitions }, owners)))
      most = Math.max(most, keptBy({ partitions }, owners));
  }
  return most;
}
