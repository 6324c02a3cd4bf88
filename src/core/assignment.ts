// Who owns which partition when a group has several members: balanced topic by topic, with as few moves as that
// allows. The same members, partitions and owners give the same answer, in whatever order they come.
//
// Within a topic no member has two partitions more than another. Which members have one more than others is where the
// freedom lies: first those that have more already, so that less moves, then those that have less of everything else.

export interface Subscriber {
  readonly memberId: string;
  readonly topics: readonly string[];
}

export interface AssignablePartition {
  readonly partitionId: number;
  readonly topic: string;
  readonly partition: number;
  /** Its owner now; null while nobody is. One that does not subscribe to the topic (any more) loses it. */
  readonly ownerMemberId: string | null;
}

/** The owner of every partition whose topic somebody subscribes to, by partition id. */
export function assignPartitions(
  subscribers: readonly Subscriber[],
  partitions: readonly AssignablePartition[],
): ReadonlyMap<number, string> {
  const loads = new Map(subscribers.map(({ memberId }) => [memberId, 0]));
  const owners = new Map<number, string>();
  const topics = byTopic(partitions).map((topic) => shareOf(topic, subscribers));
  for (const { kept } of topics) for (const [memberId, own] of kept) addLoad(loads, memberId, own.length);
  for (const topic of topics) {
    if (topic.kept.size > 0) assignTopic(topic, { loads, owners });
  }
  return owners;
}

interface TopicShare {
  /** In their order in the topic. */
  readonly partitions: readonly AssignablePartition[];
  /** What each subscriber of the topic has of it now. */
  readonly kept: ReadonlyMap<string, readonly AssignablePartition[]>;
}

interface Result {
  /** Partitions of all topics that each member has, as far as is decided. */
  readonly loads: Map<string, number>;
  readonly owners: Map<number, string>;
}

function byTopic(partitions: readonly AssignablePartition[]): readonly (readonly AssignablePartition[])[] {
  const topics = new Map<string, AssignablePartition[]>();
  for (const partition of partitions) {
    const topic = topics.get(partition.topic);
    if (topic) topic.push(partition);
    else topics.set(partition.topic, [partition]);
  }
  const inOrder = [...topics].sort(([a], [b]) => compare(a, b));
  return inOrder.map(([, topic]) => topic.sort((a, b) => a.partition - b.partition));
}

function shareOf(partitions: readonly AssignablePartition[], subscribers: readonly Subscriber[]): TopicShare {
  const topic = partitions[0]?.topic;
  const kept = new Map<string, AssignablePartition[]>();
  for (const { memberId, topics } of subscribers)
    if (topic !== undefined && topics.includes(topic)) kept.set(memberId, []);
  for (const partition of partitions) kept.get(partition.ownerMemberId ?? "")?.push(partition);
  return { partitions, kept };
}

function assignTopic({ partitions, kept }: TopicShare, { loads, owners }: Result): void {
  const members = [...kept.keys()].sort(
    (a, b) =>
      ownedBy(b, kept) - ownedBy(a, kept) ||
      othersOf(a, loads, kept) - othersOf(b, loads, kept) ||
      compare(a, b),
  );
  const least = Math.floor(partitions.length / members.length);
  const haveOneMore = partitions.length % members.length;
  const vacancies: string[] = [];
  for (const [index, memberId] of members.entries()) {
    const quota = least + (index < haveOneMore ? 1 : 0);
    const own = kept.get(memberId) ?? [];
    for (const { partitionId } of own.slice(0, quota)) owners.set(partitionId, memberId);
    for (let missing = quota - own.length; missing > 0; missing -= 1) vacancies.push(memberId);
    addLoad(loads, memberId, quota - own.length);
  }
  for (const { partitionId } of partitions) {
    const memberId = owners.has(partitionId) ? undefined : vacancies.shift();
    if (memberId !== undefined) owners.set(partitionId, memberId);
  }
}

function ownedBy(memberId: string, kept: TopicShare["kept"]): number {
  return kept.get(memberId)?.length ?? 0;
}

function othersOf(memberId: string, loads: Result["loads"], kept: TopicShare["kept"]): number {
  return (loads.get(memberId) ?? 0) - ownedBy(memberId, kept);
}

function addLoad(loads: Result["loads"], memberId: string, count: number): void {
  loads.set(memberId, (loads.get(memberId) ?? 0) + count);
}

/** By UTF-16 code units: the same everywhere, whatever the locale. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
