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
  const inOrderOfIds = subscribers.toSorted((a, b) => compare(a.memberId, b.memberId));
  const topics = sharesOf(byTopic(partitions), inOrderOfIds);
  for (const { kept } of topics) for (const [memberId, own] of kept) addLoad(loads, memberId, own.length);
  for (const topic of topics) {
    if (topic.kept.size > 0) assignTopic(topic, { loads, owners });
  }
  return owners;
}

interface TopicShare {
  /** In their order in the topic. */
  readonly partitions: readonly AssignablePartition[];
  /** What each subscriber of the topic has of it now, in the order of their ids. */
  readonly kept: ReadonlyMap<string, readonly AssignablePartition[]>;
}

interface Result {
  /** Partitions of all topics that each member has, as far as is decided. */
  readonly loads: Map<string, number>;
  readonly owners: Map<number, string>;
}

/** In the order of their names. */
function byTopic(
  partitions: readonly AssignablePartition[],
): ReadonlyMap<string, readonly AssignablePartition[]> {
  const topics = [...Map.groupBy(partitions, ({ topic }) => topic)].sort(([a], [b]) => compare(a, b));
  for (const [, own] of topics) own.sort((a, b) => a.partition - b.partition);
  return new Map(topics);
}

/** One pass over what everybody subscribes to: there may be thousands of members and of topics. */
function sharesOf(
  topics: ReadonlyMap<string, readonly AssignablePartition[]>,
  subscribers: readonly Subscriber[],
): readonly TopicShare[] {
  const keptByTopic = new Map<string, Map<string, AssignablePartition[]>>();
  for (const topic of topics.keys()) keptByTopic.set(topic, new Map());
  for (const { memberId, topics: wanted } of subscribers)
    for (const topic of wanted) keptByTopic.get(topic)?.set(memberId, []);
  return [...topics].map(([topic, partitions]) => {
    const kept = keptByTopic.get(topic) ?? new Map<string, AssignablePartition[]>();
    for (const partition of partitions) kept.get(partition.ownerMemberId ?? "")?.push(partition);
    return { partitions, kept };
  });
}

function assignTopic({ partitions, kept }: TopicShare, { loads, owners }: Result): void {
  const members = inOrderOfRight(kept, loads);
  const least = Math.floor(partitions.length / members.length);
  const haveOneMore = partitions.length % members.length;
  const vacancies: string[] = [];
  for (const [index, { memberId, own }] of members.entries()) {
    const quota = least + (index < haveOneMore ? 1 : 0);
    for (const { partitionId } of own.slice(0, quota)) owners.set(partitionId, memberId);
    for (let missing = quota - own.length; missing > 0; missing -= 1) vacancies.push(memberId);
    addLoad(loads, memberId, quota - own.length);
  }
  const vacant = vacancies.values();
  for (const { partitionId } of partitions) {
    const memberId = owners.has(partitionId) ? undefined : vacant.next().value;
    if (memberId !== undefined) owners.set(partitionId, memberId);
  }
}

interface Candidate {
  readonly memberId: string;
  /** What it has of the topic now. */
  readonly own: readonly AssignablePartition[];
  /** How many it has of all topics: among those that have as many of this one, who has less of the others. */
  readonly load: number;
}

/** To have one more than others. Among equals the order of their ids, in which they come. */
function inOrderOfRight(kept: TopicShare["kept"], loads: Result["loads"]): readonly Candidate[] {
  const members = [...kept].map(([memberId, own]) => ({ memberId, own, load: loads.get(memberId) ?? 0 }));
  return members.sort((a, b) => b.own.length - a.own.length || a.load - b.load);
}

function addLoad(loads: Result["loads"], memberId: string, count: number): void {
  if (count !== 0) loads.set(memberId, (loads.get(memberId) ?? 0) + count);
}

/** By UTF-16 code units: the same everywhere, whatever the locale. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
