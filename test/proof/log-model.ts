// A log as it should be, in memory and at once: topics, groups, generations. What its clients learn of it, and when, is
// good-history.ts's.

import type { Dice } from "../support/dice.ts";
import type {
  EventOf,
  LogRef,
  OffsetEntry,
  ResetRow,
  SeenGroup,
  SendEvent,
  TopicSettings,
  Value,
} from "./history.ts";

export type Policy = "earliest" | "latest" | "none";
type Assigned = EventOf<"assigned">["partitions"][number];

export interface ModelPartition extends LogRef {
  /** By offset. */
  readonly values: Value[];
  readonly keys: (string | null)[];
  readonly tombstones: Set<number>;
  readonly appendedAtMs: number[];
  /** Compacted. */
  readonly gone: Set<number>;
  logStartOffset: number;
  /** What a snapshot has told. */
  readonly told: { end: number; readonly gone: Set<number> };
}

export interface Ownership {
  readonly consumer: string;
  readonly generation: number;
  position: number | null;
  furthest: number;
}

export interface ModelGroup {
  readonly name: string;
  readonly policy: Policy;
  readonly isAhead: boolean;
  readonly topics: readonly string[];
  readonly committed: Map<ModelPartition, number>;
  readonly owners: Map<ModelPartition, Ownership>;
  readonly topicsSeen: Set<string>;
  /** Any other of a topic that it has seen is a new one. */
  readonly partitionsSeen: Set<ModelPartition>;
  /** Undefined while there is no such group. */
  life: Pick<SeenGroup, "createdAt" | "version"> | undefined;
  /** By the clock: when it last had members, or was changed. */
  usedAtMs: number;
}

type Append = SendEvent["appends"][number];

const LEASE_MS = 10_000;

export class LogModel {
  nowMs = 1_000_000;
  partitions: readonly ModelPartition[] = [];
  settings: readonly TopicSettings[] = [];
  readonly groups: ModelGroup[] = [];
  readonly #dice: Dice;
  #resets: ResetRow[] = [];
  #generations = 0;
  #topicIds = 0;
  #groupVersions = 0;

  constructor(dice: Dice) {
    this.#dice = dice;
  }

  // ── topics ─────────────────────────────────────────────────────────────────────────────────────────────

  of(topic: string): readonly ModelPartition[] {
    return this.partitions.filter((each) => each.topic === topic);
  }

  find({ topic, partition }: { topic: string; partition: number }): ModelPartition | undefined {
    return this.partitions.find((each) => each.topic === topic && each.partition === partition);
  }

  create(topic: string, count: number): void {
    this.#topicIds += 1;
    for (let partition = 0; partition < count; partition += 1) this.#add(topic, this.#topicIds, partition);
  }

  grow(topic: string): void {
    const [first, ...others] = this.of(topic);
    if (first) this.#add(topic, first.topicId, others.length + 1);
  }

  /** Who owned a partition of it. */
  delete(topic: string): readonly (Ownership & { readonly partition: ModelPartition })[] {
    const gone = this.of(topic);
    this.partitions = this.partitions.filter((each) => each.topic !== topic);
    return this.groups.flatMap(({ owners, committed }) =>
      gone.flatMap((partition) => {
        const owner = owners.get(partition);
        owners.delete(partition);
        committed.delete(partition);
        return owner ? [{ ...owner, partition }] : [];
      }),
    );
  }

  append({ topic, values, keys, tombstones = [] }: Append): EventOf<"sent">["runs"] | undefined {
    const partitions = this.of(topic);
    if (partitions.length === 0) return undefined;
    const runs: { topic: string; partition: number; offset: number; count: number }[] = [];
    for (const [nth, value] of values.entries()) {
      const log = this.#dice.pick(partitions);
      const { partition, values: stored } = log;
      const last = runs.at(-1);
      if (last?.partition === partition) last.count += 1;
      else runs.push({ topic, partition, offset: stored.length, count: 1 });
      if (tombstones.includes(value)) log.tombstones.add(stored.length);
      log.keys.push(keys?.[nth] ?? null);
      log.appendedAtMs.push(this.nowMs);
      stored.push(value);
    }
    return runs;
  }

  #add(topic: string, topicId: number, partition: number): void {
    const records = {
      values: [],
      keys: [],
      tombstones: new Set<number>(),
      appendedAtMs: [],
      gone: new Set<number>(),
    };
    const told = { end: 0, gone: new Set<number>() };
    this.partitions = [
      ...this.partitions,
      { topic, topicId, partition, ...records, logStartOffset: 0, told },
    ];
  }

  // ── ownership ──────────────────────────────────────────────────────────────────────────────────────────

  /** The first time that a group has a topic, its policy holds for all of the topic. */
  subscribe(group: ModelGroup): void {
    this.use(group);
    for (const topic of group.topics) {
      if (group.topicsSeen.has(topic) || this.of(topic).length === 0) continue;
      for (const partition of this.of(topic)) {
        group.partitionsSeen.add(partition);
        this.#place(group, partition, group.policy, "missing");
      }
      group.topicsSeen.add(topic);
    }
  }

  /** Somebody joins or leaves it, or changes it from outside. */
  use(group: ModelGroup): void {
    this.#groupVersions += 1;
    group.life = { createdAt: this.#groupVersions, ...group.life, version: this.#groupVersions };
    group.usedAtMs = this.nowMs;
  }

  /** All of it. */
  expire(group: ModelGroup): void {
    group.committed.clear();
    group.topicsSeen.clear();
    group.partitionsSeen.clear();
    group.life = undefined;
    this.#resets = this.#resets.filter((reset) => reset.group !== group.name);
  }

  /** A new generation, from the committed offset, or where the policy says. */
  assign(group: ModelGroup, partition: ModelPartition, consumer: string): Assigned {
    const committed = group.committed.get(partition);
    const isOutside = committed !== undefined && !isUsable(partition, committed);
    let reset: Policy | undefined;
    if (committed === undefined) {
      const isNew = !group.partitionsSeen.has(partition);
      reset = isNew ? "earliest" : group.policy;
      this.#place(group, partition, reset, isNew ? "new partition" : "missing");
    } else if (isOutside) {
      reset = group.policy;
      this.#place(group, partition, reset, "outOfRange");
    }
    group.partitionsSeen.add(partition);
    const isPlaced = reset !== "none";
    this.#generations += 1;
    const position = isPlaced ? (group.committed.get(partition) ?? null) : null;
    const owner = { consumer, generation: this.#generations, position, furthest: position ?? 0 };
    group.owners.set(partition, owner);
    return this.describe(group, partition, { ...owner, reset: isPlaced ? reset : undefined });
  }

  describe(
    group: ModelGroup | undefined,
    partition: ModelPartition,
    of: {
      readonly generation: number;
      readonly position: number | null;
      readonly reset?: string | undefined;
      readonly isSought?: boolean;
    },
  ): Assigned {
    const { generation, position, reset, isSought } = of;
    return {
      ...boundsOf(partition),
      generation,
      position,
      committedOffset: group?.committed.get(partition) ?? null,
      ...(reset !== undefined && { reset }),
      ...(isSought && { isSought }),
    };
  }

  #place(group: ModelGroup, partition: ModelPartition, policy: Policy, reason: string): void {
    if (policy === "none") return;
    const offset = policy === "earliest" ? partition.logStartOffset : partition.values.length;
    this.reset(group, partition, { offset, cause: `${reason}: ${policy}` });
  }

  reset(
    group: ModelGroup,
    partition: ModelPartition,
    { offset, cause }: { offset: number; cause: string },
  ): void {
    const previous = group.committed.get(partition) ?? null;
    const { topic, partition: number } = partition;
    this.#resets.push({ group: group.name, topic, partition: number, previous, offset, cause });
    group.committed.set(partition, offset);
  }

  /** A position that has left the log, moved by the policy of its group; null: the policy is `none`. */
  reposition(group: ModelGroup, partition: ModelPartition, owner: Ownership): Assigned {
    const committed = group.committed.get(partition);
    if (committed !== undefined && !isUsable(partition, committed))
      this.#place(group, partition, group.policy, "outOfRange");
    const { logStartOffset, values } = partition;
    const places = { earliest: logStartOffset, latest: values.length, none: null };
    owner.position = places[group.policy];
    owner.furthest = Math.max(owner.furthest, owner.position ?? 0);
    const reset = group.policy === "none" ? undefined : group.policy;
    return this.describe(group, partition, { ...owner, reset });
  }

  // ── commits ────────────────────────────────────────────────────────────────────────────────────────────

  commit(group: ModelGroup, entry: OffsetEntry): { offset: number | null; code?: string } {
    const partition = this.find(entry);
    const owner = partition && group.owners.get(partition);
    const committed = (partition && group.committed.get(partition)) ?? null;
    if (!partition || owner?.generation !== entry.generation)
      return { offset: committed, code: "fenced_generation" };
    if (entry.offset > owner.furthest) return { offset: committed, code: "offset_out_of_range" };
    const offset = Math.max(committed ?? 0, entry.offset);
    group.committed.set(partition, offset);
    return { offset };
  }

  /** All of it, or the code that refuses it. */
  transact({ appends, commits }: SendEvent): EventOf<"sent">["runs"] | string {
    const group = this.groups.find(({ name }) => name === commits?.group);
    for (const entry of commits?.offsets ?? []) {
      const partition = this.find(entry);
      if (!group || !partition || (group.committed.get(partition) ?? -1) >= entry.offset) return "conflict";
      const { code } = this.commit(group, entry);
      if (code !== undefined) return code;
    }
    return appends.flatMap((append) => this.append(append) ?? []);
  }

  // ── what there is to see ───────────────────────────────────────────────────────────────────────────────

  /** `isUsed`: it has members. */
  snapshot(isUsed: (group: ModelGroup) => boolean): EventOf<"snapshot"> {
    const { nowMs, settings } = this;
    const resets = this.#resets;
    this.#resets = [];
    const logs = this.partitions.map(lookAt);
    const groups = this.groups.flatMap((group): readonly SeenGroup[] => {
      const aliveUntilMs = isUsed(group) ? nowMs + LEASE_MS : 0;
      return group.life ? [{ group: group.name, ...group.life, aliveUntilMs }] : [];
    });
    const committed = this.groups.flatMap((group) =>
      [...group.committed].map(([log, offset]) => ({ group: group.name, ...refOf(log), offset })),
    );
    const owners = this.groups.flatMap((group) =>
      [...group.owners].map(([log, { generation }]) => ({ group: group.name, ...refOf(log), generation })),
    );
    return { type: "snapshot", nowMs, logs, settings, groups, committed, owners, resets };
  }

  logs(): readonly EventOf<"log">[] {
    return this.partitions.map((log) => ({
      type: "log",
      ...boundsOf(log),
      records: recordsOf(log, log.logStartOffset, log.values.length),
    }));
  }
}

/** What there is of the half-open range. */
export function recordsOf({ values, gone }: ModelPartition, from: number, until: number) {
  const all = values.map((value, offset) => ({ offset, value }));
  return all.slice(from, until).filter(({ offset }) => !gone.has(offset));
}

/** Each record that has come or gone is told once. */
function lookAt(log: ModelPartition): EventOf<"snapshot">["logs"][number] {
  const { told, gone, values, logStartOffset } = log;
  const appended = recordsOf(log, Math.max(told.end, logStartOffset), values.length).map((record) => ({
    ...record,
    bytes: record.value.length,
  }));
  told.end = values.length;
  const newlyGone = [...gone].filter((offset) => !told.gone.has(offset) && offset >= logStartOffset);
  for (const offset of newlyGone) told.gone.add(offset);
  return {
    ...boundsOf(log),
    ...(appended.length > 0 && { appended }),
    ...(newlyGone.length > 0 && { gone: newlyGone }),
  };
}

function isUsable({ logStartOffset, values }: ModelPartition, offset: number): boolean {
  return offset >= logStartOffset && offset <= values.length;
}

function refOf({ topic, topicId, partition }: ModelPartition): LogRef {
  return { topic, topicId, partition };
}

function boundsOf(log: ModelPartition) {
  return { ...refOf(log), logStartOffset: log.logStartOffset, logEndOffset: log.values.length };
}
