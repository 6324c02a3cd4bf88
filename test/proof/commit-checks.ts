// What holds of committed offsets: they go forward but for a reset, what was acknowledged stays, only the present
// generation moves them, and an ownership begins where they are.

import type { Anomaly, AnomalyName } from "./checker.ts";
import { groupsAhead } from "./delivery-checks.ts";
import type { EventOf, History, HistoryEvent, LogRef, OffsetEntry } from "./history.ts";
import { logKey } from "./seen-values.ts";

export function findCommitAnomalies(history: History): readonly Anomaly[] {
  const commits = new Commits(groupsAhead(history));
  for (const event of history) commits.see(event);
  return commits.anomalies;
}

/** Of one partition in one group, as the last snapshot and the answers since tell. */
interface GroupLog {
  /** The committed offset cannot be lower, as long as there is no reset. */
  atLeast: number | null;
  /** Undefined: nobody owns it. */
  generation: number | undefined;
  /** The last that somebody owned it in. */
  lastGeneration: number;
  resets: number;
  /** What may have been committed when the generation began, if a snapshot has seen it before its owner did. */
  readonly startsByGeneration: Map<number, readonly (number | null)[]>;
}

/** A commit that is asked for, with what was known before. */
interface Asked {
  readonly group: string;
  readonly entry: OffsetEntry;
  readonly resetsBefore: number;
  /** As a snapshot has said before. */
  readonly isOver: boolean;
}

class Commits {
  readonly anomalies: Anomaly[] = [];
  readonly #groupByConsumer = new Map<string, string>();
  readonly #groupLogs = new Map<string, GroupLog>();
  readonly #topicIds = new Map<string, number>();
  readonly #asked = new Map<string, readonly Asked[]>();
  /** Generations whose owner has begun. */
  readonly #begun = new Set<string>();
  readonly #groupsAhead: ReadonlySet<string>;

  constructor(ahead: ReadonlySet<string>) {
    this.#groupsAhead = ahead;
  }

  see(event: HistoryEvent): void {
    switch (event.type) {
      case "subscribed":
        if (event.group !== null) this.#groupByConsumer.set(event.consumer, event.group);
        return;
      case "assigned":
        return this.#seeAssigned(event);
      case "acking": {
        const group = this.#groupByConsumer.get(event.consumer);
        if (group !== undefined) this.#ask(`ack ${event.ack}`, group, event.offsets);
        return;
      }
      case "acked":
        return this.#seeAcked(event);
      case "send":
        if (event.commits) this.#ask(`send ${event.send}`, event.commits.group, event.commits.offsets);
        return;
      case "sent":
        for (const asked of this.#asked.get(`send ${event.send}`) ?? []) this.#accept(asked, undefined);
        return;
      case "snapshot":
        return this.#seeSnapshot(event);
      default:
        return;
    }
  }

  // ── asking and answering ───────────────────────────────────────────────────────────────────────────────

  #ask(what: string, group: string, offsets: readonly OffsetEntry[]): void {
    this.#asked.set(
      what,
      offsets.map((entry) => {
        const found = this.#find(group, entry);
        return { group, entry, resetsBefore: found?.resets ?? 0, isOver: isOver(found, entry.generation) };
      }),
    );
  }

  #seeAcked({ ack, offsets }: EventOf<"acked">): void {
    for (const asked of this.#asked.get(`ack ${ack}`) ?? []) {
      const { topic, partition } = asked.entry;
      const answer = offsets.find((each) => each.topic === topic && each.partition === partition);
      if (answer && answer.code === undefined) this.#accept(asked, answer.offset);
    }
  }

  #accept({ group, entry, resetsBefore, isOver }: Asked, answered: number | null | undefined): void {
    const what = `${group}: ${entry.offset} of ${entry.topic}/${entry.partition} in generation ${entry.generation}`;
    if (isOver) this.#tell("stale commit accepted", `${what} was over`);
    if (answered !== undefined && (answered ?? -1) < entry.offset)
      this.#tell("commit went back", `${what} was accepted and answered with ${answered}`);
    const found = this.#find(group, entry);
    if (found && found.resets === resetsBefore)
      found.atLeast = Math.max(found.atLeast ?? 0, entry.offset, answered ?? 0);
  }

  // ── what the database has ──────────────────────────────────────────────────────────────────────────────

  #seeSnapshot({ logs, committed, owners, resets }: EventOf<"snapshot">): void {
    for (const { topic, topicId } of logs) this.#topicIds.set(topic, topicId);
    for (const { group, topic, partition, offset } of resets) {
      const found = this.#findOrMake(group, { topic, partition });
      found.resets += 1;
      found.atLeast = offset;
    }
    const offsets = new Map(committed.map((row) => [keyOf(row.group, row), row.offset]));
    const generations = new Map(owners.map((row) => [keyOf(row.group, row), row.generation]));
    const isThere = new Set(logs.map(logKey));
    for (const row of [...committed, ...owners]) this.#findOrMake(row.group, row);
    for (const [key, found] of this.#groupLogs) {
      const [group = "", log = ""] = key.split(" ");
      if (!isThere.has(log)) continue;
      // Between two snapshots a generation may have begun and a policy have moved it on.
      const places = resets.flatMap((row) =>
        row.group === group && this.#keyOfReset(row) === key ? [row.previous, row.offset] : [],
      );
      this.#compare(key, found, { offset: offsets.get(key), generation: generations.get(key), places });
    }
  }

  #compare(
    key: string,
    found: GroupLog,
    now: {
      readonly offset: number | undefined;
      readonly generation: number | undefined;
      readonly places: readonly (number | null)[];
    },
  ): void {
    if (found.atLeast !== null && (now.offset ?? -1) < found.atLeast)
      this.#tell("commit went back", `${key}: from ${found.atLeast} to ${now.offset}, without a reset`);
    found.atLeast = now.offset ?? null;
    found.generation = now.generation;
    found.lastGeneration = Math.max(found.lastGeneration, now.generation ?? -1);
    if (now.generation === undefined || found.startsByGeneration.has(now.generation)) return;
    if (!this.#begun.has(`${key} ${now.generation}`))
      found.startsByGeneration.set(now.generation, [now.offset ?? null, ...now.places]);
  }

  // ── where an ownership begins ──────────────────────────────────────────────────────────────────────────

  #seeAssigned({ consumer, partitions }: EventOf<"assigned">): void {
    const group = this.#groupByConsumer.get(consumer);
    for (const each of partitions) {
      if (each.isSought) continue;
      const what = `${consumer} begins ${logKey(each)} in generation ${each.generation}`;
      // The bounds are those of a moment later: the log may have been trimmed since the policy was applied.
      if (each.reset === "earliest" && (each.position ?? Number.POSITIVE_INFINITY) > each.logStartOffset)
        this.#tell(WRONG_PLACE, `${what} at ${each.position}, the log starts at ${each.logStartOffset}`);
      if ((each.position ?? 0) > each.logEndOffset)
        this.#tell(WRONG_PLACE, `${what} at ${each.position}, the log ends at ${each.logEndOffset}`);
      if (group === undefined) continue;
      // A policy may move a position that a seek has brought below the log start, and leave what is committed.
      if (each.position !== each.committedOffset && each.reset === undefined)
        this.#tell(WRONG_PLACE, `${what} at ${each.position}, committed is ${each.committedOffset}`);
      // What it is sent first may be committed before it is told that it owns the partition.
      if (!this.#groupsAhead.has(group)) this.#judgeStart(keyOf(group, each), each, what);
    }
  }

  #judgeStart(key: string, each: EventOf<"assigned">["partitions"][number], what: string): void {
    const isFirst = !this.#begun.has(`${key} ${each.generation}`);
    this.#begun.add(`${key} ${each.generation}`);
    const starts = this.#groupLogs.get(key)?.startsByGeneration.get(each.generation);
    if (isFirst && starts && each.reset === undefined && !starts.includes(each.committedOffset))
      this.#tell(WRONG_PLACE, `${what} at ${each.committedOffset}, ${starts} was committed when it began`);
  }

  // ─────────────────────────────────────────────────────────────────────────────────────────────────────

  #find(group: string, { topic, partition }: Pick<LogRef, "topic" | "partition">): GroupLog | undefined {
    const topicId = this.#topicIds.get(topic);
    return topicId === undefined
      ? undefined
      : this.#groupLogs.get(keyOf(group, { topic, topicId, partition }));
  }

  #keyOfReset({ group, topic, partition }: EventOf<"snapshot">["resets"][number]): string {
    return keyOf(group, { topic, partition, topicId: this.#topicIds.get(topic) ?? -1 });
  }

  #findOrMake(group: string, log: Pick<LogRef, "topic" | "partition"> & { topicId?: number }): GroupLog {
    const topicId = log.topicId ?? this.#topicIds.get(log.topic) ?? -1;
    const key = keyOf(group, { ...log, topicId });
    const found = this.#groupLogs.get(key) ?? {
      atLeast: null,
      generation: undefined,
      lastGeneration: -1,
      resets: 0,
      startsByGeneration: new Map(),
    };
    this.#groupLogs.set(key, found);
    return found;
  }

  #tell(name: AnomalyName, says: string): void {
    this.anomalies.push({ name, says });
  }
}

const WRONG_PLACE = "reset started at the wrong place";

function isOver(found: GroupLog | undefined, generation: number): boolean {
  if (!found) return false;
  return found.generation === undefined ? generation <= found.lastGeneration : generation < found.generation;
}

function keyOf(group: string, log: LogRef): string {
  return `${group} ${logKey(log)}`;
}
