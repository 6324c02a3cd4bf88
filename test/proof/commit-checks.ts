// What holds of committed offsets: they go forward but for a reset, what was acknowledged stays, and only the present
// generation moves them, not further than it was sent.

import type { Anomaly, AnomalyName } from "./checker.ts";
import { groupsAhead } from "./delivery-checks.ts";
import { GroupEnds } from "./group-ends.ts";
import type { EventOf, History, HistoryEvent, LogRef, OffsetEntry, Value } from "./history.ts";
import { logKey } from "./log-key.ts";
import { type OwnedGeneration, OwnedGenerations } from "./owned-generations.ts";

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
}

/** A commit that is asked for, with what was known before. */
interface Asked {
  readonly group: string;
  readonly entry: OffsetEntry;
  /** Undefined where nobody knows which of several topics of that name it is for. */
  readonly found: GroupLog | undefined;
  readonly resetsBefore: number;
  readonly isOver: boolean;
}

class Commits {
  readonly anomalies: Anomaly[] = [];
  readonly #groupByConsumer = new Map<string, string>();
  readonly #generations = new OwnedGenerations();
  readonly #groupLogs = new Map<string, GroupLog>();
  readonly #topicIds = new Map<string, number>();
  readonly #asked = new Map<string, readonly Asked[]>();
  /** Sends with commits, by what they append. */
  readonly #sendsByValue = new Map<Value, string>();
  readonly #groupsAhead: ReadonlySet<string>;
  readonly #groupEnds = new GroupEnds();

  constructor(ahead: ReadonlySet<string>) {
    this.#groupsAhead = ahead;
  }

  see(event: HistoryEvent): void {
    this.#generations.see(event);
    switch (event.type) {
      case "subscribed":
        if (event.group !== null) this.#groupByConsumer.set(event.consumer, event.group);
        return;
      case "polled":
        return this.#seePolled(event);
      case "acking": {
        const group = this.#groupByConsumer.get(event.consumer);
        if (group !== undefined) this.#ask(`ack ${event.ack}`, group, event.offsets);
        return;
      }
      case "acked":
        return this.#seeAcked(event);
      case "send":
        return this.#seeSend(event);
      case "sent":
        return this.#acceptSend(event.send);
      case "log":
        return this.#seeRecords(event.records);
      case "snapshot":
        return this.#seeSnapshot(event);
      default:
        return;
    }
  }

  // ── asking and answering ───────────────────────────────────────────────────────────────────────────────

  #ask(what: string, group: string, offsets: readonly OffsetEntry[]): void {
    const asked = offsets.map((entry) => {
      const owned = this.#generations.of(group, entry);
      const found = this.#find(group, owned?.log ?? entry);
      const isBefore = entry.generation < this.#generations.newest(group, entry);
      return {
        group,
        entry,
        found,
        resetsBefore: found?.resets ?? 0,
        isOver: isBefore || isOver(found, entry.generation),
      };
    });
    this.#asked.set(what, asked);
  }

  #seeAcked({ ack, offsets }: EventOf<"acked">): void {
    for (const asked of this.#asked.get(`ack ${ack}`) ?? []) {
      const { topic, partition } = asked.entry;
      const answer = offsets.find((each) => each.topic === topic && each.partition === partition);
      if (answer && answer.code === undefined) this.#accept(asked, answer.offset);
    }
  }

  #seeSend({ send, commits, appends }: EventOf<"send">): void {
    if (!commits) return;
    this.#ask(`send ${send}`, commits.group, commits.offsets);
    for (const value of appends.flatMap(({ values }) => values)) this.#sendsByValue.set(value, send);
  }

  #acceptSend(send: string): void {
    for (const asked of this.#asked.get(`send ${send}`) ?? []) this.#accept(asked, undefined);
    this.#asked.delete(`send ${send}`);
  }

  /** Whoever sees a record of a transaction knows that its commit is done, whatever its producer was told. */
  #seeRecords(records: EventOf<"polled">["records"]): void {
    if (this.#sendsByValue.size === 0) return;
    for (const { value } of records) {
      const send = this.#sendsByValue.get(value);
      if (send !== undefined) this.#acceptSend(send);
    }
  }

  #seePolled(event: EventOf<"polled">): void {
    this.#seeRecords(event.records);
    const group = this.#groupByConsumer.get(event.consumer);
    if (group === undefined || !this.#generations.isAhead(event.consumer)) return;
    // It was committed before it was sent. But for a policy, which moves forward, a reset brings a new generation.
    const owned = this.#generations.of(group, event);
    const found = owned && this.#find(group, owned.log);
    if (found && found.generation === event.generation)
      found.atLeast = Math.max(found.atLeast ?? 0, event.next);
  }

  #accept(asked: Asked, answered: number | null | undefined): void {
    const { group, entry, found, resetsBefore } = asked;
    const what = `${group}: ${entry.offset} of ${entry.topic}/${entry.partition} in generation ${entry.generation}`;
    if (asked.isOver) this.#tell("stale commit accepted", `${what} was over`);
    if (answered !== undefined && (answered ?? -1) < entry.offset)
      this.#tell("commit went back", `${what} was accepted and answered with ${answered}`);
    this.#judgeFurthest(
      what,
      entry,
      this.#groupsAhead.has(group) ? undefined : this.#generations.of(group, entry),
    );
    if (found && found.resets === resetsBefore)
      found.atLeast = Math.max(found.atLeast ?? 0, entry.offset, answered ?? 0);
  }

  #judgeFurthest(what: string, { offset }: OffsetEntry, owned: OwnedGeneration | undefined): void {
    if (owned && offset > (owned.furthest ?? -1))
      this.#tell("commit past delivered", `${what} was accepted, it was sent up to ${owned.furthest}`);
  }

  // ── what the database has ──────────────────────────────────────────────────────────────────────────────

  #seeSnapshot(snapshot: EventOf<"snapshot">): void {
    const { logs, committed, owners, resets } = snapshot;
    for (const { group } of this.#groupEnds.see(snapshot)) this.#forget(group.group);
    const idsBefore = new Map(this.#topicIds);
    for (const { topic, topicId } of logs) this.#topicIds.set(topic, topicId);
    for (const { group, ...reset } of resets) {
      const topicId = this.#topicIds.get(reset.topic);
      if (topicId === undefined) continue;
      const found = this.#findOrMake(group, { ...reset, topicId });
      found.resets += 1;
      // It may be of the topic that had this name before.
      found.atLeast = idsBefore.get(reset.topic) === topicId ? reset.offset : null;
    }
    const offsets = new Map(committed.map((row) => [keyOf(row.group, row), row.offset]));
    const generations = new Map(owners.map((row) => [keyOf(row.group, row), row.generation]));
    const isThere = new Set(logs.map(logKey));
    for (const row of [...committed, ...owners]) this.#findOrMake(row.group, row);
    for (const [key, found] of this.#groupLogs) {
      const [, log = ""] = key.split(" ");
      if (isThere.has(log)) this.#compare(key, found, [offsets.get(key), generations.get(key)]);
    }
  }

  /** It has ended: one of that name begins anew. */
  #forget(group: string): void {
    for (const [key, found] of this.#groupLogs) {
      if (!key.startsWith(`${group} `)) continue;
      found.atLeast = null;
      found.resets += 1;
    }
  }

  #compare(
    key: string,
    found: GroupLog,
    now: readonly [offset: number | undefined, generation: number | undefined],
  ): void {
    const [offset, generation] = now;
    if (found.atLeast !== null && (offset ?? -1) < found.atLeast)
      this.#tell("commit went back", `${key}: from ${found.atLeast} to ${offset}, without a reset`);
    found.atLeast = offset ?? null;
    found.generation = generation;
    found.lastGeneration = Math.max(found.lastGeneration, generation ?? -1);
  }

  // ─────────────────────────────────────────────────────────────────────────────────────────────────────

  #find(group: string, log: Pick<LogRef, "topic" | "partition"> & Partial<LogRef>): GroupLog | undefined {
    const topicId = log.topicId ?? this.#topicIds.get(log.topic);
    return topicId === undefined ? undefined : this.#findOrMake(group, { ...log, topicId });
  }

  #findOrMake(group: string, log: LogRef): GroupLog {
    const key = keyOf(group, log);
    const found = this.#groupLogs.get(key);
    if (found) return found;
    const made = { atLeast: null, generation: undefined, lastGeneration: -1, resets: 0 };
    this.#groupLogs.set(key, made);
    return made;
  }

  #tell(name: AnomalyName, says: string): void {
    this.anomalies.push({ name, says });
  }
}

/** As the last snapshot tells. */
function isOver(found: GroupLog | undefined, generation: number): boolean {
  if (!found) return false;
  return found.generation === undefined ? generation <= found.lastGeneration : generation < found.generation;
}

function keyOf(group: string, log: LogRef): string {
  return `${group} ${logKey(log)}`;
}
