// Who says what topics keep, and what then goes: by trims, retention and compaction; and groups that expire. All of it as
// the settings say, on a clock that is set back now and then.

import type { Dice } from "../support/dice.ts";
import type { KeepSettings, TopicSettings } from "./history.ts";
import type { ModelGroup, ModelPartition } from "./log-model.ts";
import { StoryMembers } from "./story-members.ts";
import { GROUP_IDLE_MS } from "./story-network.ts";

const PASSES_MAX_MS = 600;
const CLOCK_STEP_MAX_MS = 20_000;

const DEFAULTS: Omit<TopicSettings, "topicId"> = {
  retentionMs: null,
  retentionBytes: null,
  retentionRecords: null,
  isCompacted: false,
  minLagMs: null,
  tombstoneMs: null,
  cleanupVersion: 0,
};

export abstract class StoryKeepers extends StoryMembers {
  /** Otherwise much stays that is trimmed or compacted elsewhere. */
  protected readonly areKeepersBusy: boolean;

  constructor(dice: Dice) {
    super(dice);
    this.areKeepersBusy = dice.isLucky(0.5);
  }

  protected abstract look(): void;

  protected pass(): void {
    this.model.nowMs += this.dice.below(PASSES_MAX_MS);
    for (const group of this.model.groups)
      if (this.membersOf(group).length > 0) group.usedAtMs = this.model.nowMs;
  }

  protected stepClock(): void {
    this.look();
    this.model.nowMs += this.dice.between(-CLOCK_STEP_MAX_MS, CLOCK_STEP_MAX_MS);
    // What was noted after that counts for nothing.
    for (const group of this.model.groups) group.usedAtMs = Math.min(group.usedAtMs, this.model.nowMs);
    this.look();
  }

  protected keep(): void {
    const partitions = this.model.partitions.filter(({ topic }) => topic !== "made");
    const partition = this.dice.pick(partitions);
    const act = this.dice.below(8);
    if (act <= 1) this.set(partition);
    if (act === 2) this.trim(partition);
    if (act === 3) this.retain(partition);
    if (act >= 4 && act <= 6) for (const each of partitions) this.compact(each);
    if (act === 7) this.expireGroups();
  }

  // ── what is asked for ──────────────────────────────────────────────────────────────────────────────────

  protected set({ topic }: ModelPartition): void {
    const { dice } = this;
    const compacted = {
      isCompacted: this.hasKeys,
      minLagMs: dice.pick([null, 1_000]),
      tombstoneMs: dice.pick([null, 1_000]),
    };
    const to = dice.pick<Partial<KeepSettings>>([
      { retentionRecords: dice.pick([null, dice.between(1, 10)]) },
      { retentionBytes: dice.pick([null, dice.between(5, 40)]) },
      { retentionMs: dice.pick([null, dice.between(500, 5_000)]) },
      compacted,
      compacted,
      { isCompacted: this.hasKeys },
      { isCompacted: false },
    ]);
    const setting = this.nextName("setting");
    this.events.push({ type: "setting", setting, topic, to });
    // Nobody is told, and it is carried out at any time, or never.
    if (dice.isLucky(0.2)) this.late.push(() => this.carryOutSetting(topic, to));
    else {
      this.carryOutSetting(topic, to);
      this.events.push({ type: "set", setting });
    }
  }

  protected carryOutSetting(topic: string, to: Partial<KeepSettings>): void {
    const topicId = this.model.of(topic)[0]?.topicId;
    if (topicId === undefined) return;
    const before = this.settingsOf(topicId);
    const isOther = to.isCompacted !== undefined && to.isCompacted !== before.isCompacted;
    const after = { ...before, ...to, topicId, cleanupVersion: before.cleanupVersion + (isOther ? 1 : 0) };
    this.model.settings = [...this.model.settings.filter((each) => each.topicId !== topicId), after];
  }

  protected settingsOf(topicId: number): TopicSettings {
    return this.model.settings.find((each) => each.topicId === topicId) ?? { topicId, ...DEFAULTS };
  }

  protected trim(partition: ModelPartition): void {
    const before = this.dice.between(partition.logStartOffset, partition.values.length);
    const { topic, partition: number } = partition;
    this.events.push({ type: "trimming", topic, partition: number, before });
    const carryOut = () => {
      partition.logStartOffset = Math.max(partition.logStartOffset, before);
    };
    if (this.dice.isLucky(0.2)) this.late.push(carryOut);
    else carryOut();
  }

  // ── what goes ──────────────────────────────────────────────────────────────────────────────────────────

  protected retain(partition: ModelPartition): void {
    const { topicId, values, logStartOffset, gone } = partition;
    const { retentionMs, retentionBytes, retentionRecords } = this.settingsOf(topicId);
    const starts = [logStartOffset];
    if (retentionRecords !== null) starts.push(values.length - retentionRecords);
    if (retentionMs !== null) {
      const young = values.findIndex((_, offset) => this.ageOf(partition, offset) < retentionMs);
      starts.push(young < 0 ? values.length : young);
    }
    if (retentionBytes !== null) {
      let start = values.length;
      let bytes = 0;
      while (start > 0) {
        bytes += gone.has(start - 1) ? 0 : (values[start - 1]?.length ?? 0);
        if (bytes > retentionBytes) break;
        start -= 1;
      }
      starts.push(start);
    }
    partition.logStartOffset = Math.max(...starts);
  }

  /** Some of what may go. */
  protected compact(partition: ModelPartition): void {
    const settings = this.settingsOf(partition.topicId);
    if (!settings.isCompacted) return;
    for (let offset = partition.logStartOffset; offset < partition.values.length - 1; offset += 1)
      if (!partition.gone.has(offset) && this.dice.isLucky(0.8) && this.mayGo(partition, offset, settings))
        partition.gone.add(offset);
  }

  protected mayGo(
    partition: ModelPartition,
    offset: number,
    { minLagMs, tombstoneMs }: TopicSettings,
  ): boolean {
    const { keys, tombstones } = partition;
    const later = keys.findIndex((key, at) => at > offset && key === keys[offset]);
    if (later >= 0 && this.ageOf(partition, later) >= (minLagMs ?? 0)) return true;
    return tombstones.has(offset) && tombstoneMs !== null && this.ageOf(partition, offset) >= tombstoneMs;
  }

  protected ageOf({ appendedAtMs }: ModelPartition, offset: number): number {
    return this.model.nowMs - (appendedAtMs[offset] ?? this.model.nowMs);
  }

  protected expireGroups(): void {
    for (const group of this.model.groups) if (this.isIdle(group)) this.model.expire(group);
  }

  protected isIdle(group: ModelGroup): boolean {
    const isUsed = this.membersOf(group).length > 0 || group.owners.size > 0;
    return !isUsed && this.model.nowMs - group.usedAtMs >= GROUP_IDLE_MS;
  }
}
