// What holds of what goes: records by trims, retention and compaction, groups by their age. Each may go only where
// somebody has asked for it, and not before its time. Judged is what snapshots have seen go, so a history without these
// facts is judged in what it has.

import type { Anomaly, AnomalyName } from "./checker.ts";
import { type GroupEnd, GroupEnds } from "./group-ends.ts";
import type {
  EventOf,
  History,
  HistoryEvent,
  KeepSettings,
  LogRef,
  SeenLog,
  TopicSettings,
} from "./history.ts";
import { type KnownRecord, KnownRecords } from "./known-records.ts";
import { logKey } from "./log-key.ts";
import type { SeenValues } from "./seen-values.ts";

export function findKeepAnomalies(history: History, seen: SeenValues): readonly Anomaly[] {
  const keeps = new Keeps(new KnownRecords(history, seen));
  for (const event of history) keeps.see(event);
  return keeps.anomalies;
}

const DAY_MS = 24 * 60 * 60 * 1_000;

const DEFAULTS: Omit<TopicSettings, "topicId"> = {
  retentionMs: null,
  retentionBytes: null,
  retentionRecords: null,
  isCompacted: false,
  minLagMs: null,
  tombstoneMs: null,
  cleanupVersion: 0,
};

/** One snapshot, with all that an age is reckoned from. */
interface Look {
  readonly nowMs: number;
  readonly endsByLog: ReadonlyMap<string, number>;
  readonly versionsByGroup: ReadonlyMap<string, number>;
}

class Keeps {
  readonly anomalies: Anomaly[] = [];
  readonly #records: KnownRecords;
  readonly #looks: Look[] = [];
  readonly #groupEnds = new GroupEnds();
  #startsByLog = new Map<string, number>();
  #settings: readonly TopicSettings[] = [];
  readonly #unanswered = new Map<string, EventOf<"setting">>();
  /** Since the last look. */
  #answered: EventOf<"setting">[] = [];
  /** The furthest that was asked for, by topic and partition. */
  readonly #trims = new Map<string, number>();
  #groupIdleMs = Number.POSITIVE_INFINITY;

  constructor(records: KnownRecords) {
    this.#records = records;
  }

  see(event: HistoryEvent): void {
    switch (event.type) {
      case "trimming": {
        const name = `${event.topic}/${event.partition}`;
        this.#trims.set(name, Math.max(this.#trims.get(name) ?? 0, event.before));
        return;
      }
      case "setting":
        this.#unanswered.set(event.setting, event);
        return;
      case "set": {
        const asked = this.#unanswered.get(event.setting);
        if (asked) this.#answered.push(asked);
        this.#unanswered.delete(event.setting);
        return;
      }
      case "groups-expire":
        this.#groupIdleMs = event.idleMs;
        return;
      case "snapshot":
        return this.#seeSnapshot(event);
      default:
        return;
    }
  }

  #seeSnapshot(snapshot: EventOf<"snapshot">): void {
    const { nowMs, logs, settings = [], groups = [] } = snapshot;
    if (nowMs === undefined) return;
    this.#looks.push({
      nowMs,
      endsByLog: new Map(logs.map((log) => [logKey(log), log.logEndOffset])),
      versionsByGroup: new Map(groups.map(({ group, version }) => [group, version])),
    });
    for (const log of logs) this.#judgeLog(log, settings);
    for (const end of this.#groupEnds.see(snapshot)) this.#judgeGroupEnd(end, nowMs);
    this.#startsByLog = new Map(logs.map((log) => [logKey(log), log.logStartOffset]));
    this.#settings = settings;
    this.#answered = [];
  }

  #judgeLog(log: SeenLog, settings: readonly TopicSettings[]): void {
    const possible = this.#possible(log, settings);
    if (log.logStartOffset > (this.#startsByLog.get(logKey(log)) ?? 0)) this.#judgeStart(log, possible);
    for (const offset of log.gone ?? []) this.#judgeGone(log, offset, possible);
    if (!settings.some(({ topicId, isCompacted }) => topicId === log.topicId && isCompacted)) return;
    const keyless = this.#records.lastWithoutKey(log, log.logEndOffset);
    if (keyless !== undefined && keyless >= log.logStartOffset)
      this.#tell("keyless in a compacted log", `${logKey(log)} is compacted, and ${keyless} has no key`);
  }

  /** The settings that may have held at some moment since the last look. */
  #possible({ topic, topicId }: LogRef, now: readonly TopicSettings[]): Possible {
    const of = (all: readonly TopicSettings[]) => all.find((each) => each.topicId === topicId) ?? DEFAULTS;
    const [before, after] = [of(this.#settings), of(now)];
    const asked = [...this.#unanswered.values(), ...this.#answered].filter((each) => each.topic === topic);
    return {
      isCompacted: before.isCompacted || after.isCompacted || before.cleanupVersion !== after.cleanupVersion,
      hasGaps: after.cleanupVersion > 0,
      all: [before, after, ...asked.map(({ to }) => to)],
    };
  }

  // ── the log start ──────────────────────────────────────────────────────────────────────────────────────

  #judgeStart(log: SeenLog, possible: Possible): void {
    const { logStartOffset: start, logEndOffset: end } = log;
    // Where records are gone already nobody knows which was the last to go.
    const lastToGo = possible.hasGaps ? (this.#startsByLog.get(logKey(log)) ?? 0) : start - 1;
    const isExplained =
      start <= (this.#trims.get(`${log.topic}/${log.partition}`) ?? 0) ||
      limits(possible, "retentionRecords").some((records) => start <= end - records) ||
      limits(possible, "retentionMs").some((ms) => this.#ageOf(log, start - 1) >= ms) ||
      limits(possible, "retentionBytes").some((bytes) => this.#records.weight(log, lastToGo, end) > bytes);
    if (isExplained) return;
    const what = `${logKey(log)} starts at ${start} and ends at ${end}`;
    this.#tell("kept too little", `${what}, which neither a trim nor its retention explains`);
  }

  // ── gaps ───────────────────────────────────────────────────────────────────────────────────────────────

  #judgeGone(log: SeenLog, offset: number, possible: Possible): void {
    const what = `${offset} of ${logKey(log)} is gone`;
    if (!possible.isCompacted) return this.#tell("gap in offsets", `${what}, which is not compacted`);
    if (offset === log.logEndOffset - 1) return this.#tell("lost last record", what);
    const record = this.#records.at(log, offset);
    if (!record || this.#isOldTombstone(log, record, possible)) return;
    const later = this.#records.nextOfKey(log, record, log.logEndOffset);
    if (later === "unknown") return;
    if (later === undefined) {
      const name = record.isTombstone ? "deleted too early" : "lost newest of a key";
      return this.#tell(name, `${what}, and nothing of its key ${record.key} came after it`);
    }
    const ageMs = this.#ageOf(log, later);
    const lagMs = Math.min(...ages(possible, "minLagMs", 0));
    if (ageMs < lagMs)
      this.#tell("deleted too early", `${what}, for ${later}, which is ${ageMs} ms old, not ${lagMs}`);
  }

  #isOldTombstone(log: SeenLog, { offset, isTombstone }: KnownRecord, possible: Possible): boolean {
    if (!isTombstone) return false;
    return this.#ageOf(log, offset) >= Math.min(...ages(possible, "tombstoneMs", DAY_MS));
  }

  // ── groups ─────────────────────────────────────────────────────────────────────────────────────────────

  #judgeGroupEnd({ group: { group, version, aliveUntilMs } }: GroupEnd, nowMs: number): void {
    const sinceLookMs = nowMs - Math.min(...this.#looks.slice(-2).map((look) => look.nowMs));
    // In a longer time its members may have left and their leases with them.
    if (aliveUntilMs > nowMs && sinceLookMs < this.#groupIdleMs)
      this.#tell("group expired in use", `${group} had members until ${aliveUntilMs}, it is ${nowMs}`);
    const idleMs = this.#sinceLast(({ versionsByGroup }) => versionsByGroup.get(group) !== version, 1);
    if (idleMs < this.#groupIdleMs)
      this.#tell("group expired in use", `${group} was changed ${idleMs} ms ago at most`);
  }

  // ── ages ───────────────────────────────────────────────────────────────────────────────────────────────

  /** At most, by the database's clock, which may be set back and forth. */
  #ageOf(log: LogRef, offset: number): number {
    return this.#sinceLast(({ endsByLog }) => (endsByLog.get(logKey(log)) ?? 0) <= offset);
  }

  /** Since the last look but `skipped` of which it is so. */
  #sinceLast(isSo: (look: Look) => boolean, skipped = 0): number {
    const looks = this.#looks.slice(0, this.#looks.length - skipped);
    const nowMs = this.#looks.at(-1)?.nowMs ?? 0;
    const at = looks.findLastIndex(isSo);
    if (at < 0) return Number.POSITIVE_INFINITY;
    return nowMs - Math.min(...this.#looks.slice(at).map((look) => look.nowMs));
  }

  #tell(name: AnomalyName, says: string): void {
    this.anomalies.push({ name, says });
  }
}

interface Possible {
  readonly isCompacted: boolean;
  /** It is compacted, or was so before. */
  readonly hasGaps: boolean;
  readonly all: readonly Partial<KeepSettings>[];
}

function limits(
  { all }: Possible,
  of: "retentionMs" | "retentionBytes" | "retentionRecords",
): readonly number[] {
  return all.flatMap((settings) => settings[of] ?? []);
}

/** What is not named in a change stays as it was before or is afterwards. */
function ages({ all }: Possible, of: "minLagMs" | "tombstoneMs", defaultMs: number): readonly number[] {
  return all.flatMap((settings) => (settings[of] === undefined ? [] : (settings[of] ?? defaultMs)));
}
