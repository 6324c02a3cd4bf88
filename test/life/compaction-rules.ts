// What must hold of a compacted topic, whenever somebody looks: of every key the newest record that was acknowledged is
// there, or a newer one, unless it was a tombstone whose time is over; the last record of a partition is there; every
// record is what was sent, at its offset; and what is gone stays gone.

import { CLOCK_MS, type KeyedRecord, type Look, type SeenLog } from "./looks.ts";

/** A record that somebody has tried to append. */
export interface SentRecord extends KeyedRecord {
  /** Before that it was not there. */
  readonly askedAtMs: number;
  /** Undefined: nobody knows, or not yet. */
  readonly answer?:
    | { readonly atMs: number; readonly place: { readonly partition: number; readonly offset: number } }
    | "refused"
    | undefined;
}

export interface CompactionStory {
  readonly sent: readonly SentRecord[];
  /** One after the other. */
  readonly looks: readonly Pick<Look, "fromMs" | "atMs" | "isAtRest" | "compacted">[];
  readonly tombstoneMs: number;
}

type Seen = SeenLog["records"][number] & { readonly partition: number };
type Acknowledged = SentRecord & { readonly answer: Exclude<SentRecord["answer"], "refused" | undefined> };

export function findCompactionFaults({ sent, looks, tombstoneMs }: CompactionStory): readonly string[] {
  const records = new SeenRecords(sent);
  const newest = new NewestByKey(sent);
  const sentByKey = Map.groupBy(sent, ({ key }) => key);
  const before = new Map<number, SeenLog>();
  return looks.flatMap(({ fromMs, atMs, isAtRest, compacted }) => {
    const seen = compacted.flatMap((log) =>
      log.records.map((each) => ({ ...each, partition: log.partition })),
    );
    const seenByKey = Map.groupBy(seen, ({ key }) => key);
    const mayBeGone = (record: Acknowledged) =>
      (sentByKey.get(record.key) ?? []).some(
        (each) =>
          isAsNew(each, record) && each.isTombstone && atMs - each.askedAtMs >= tombstoneMs - CLOCK_MS,
      );
    const faults = [
      ...seen.flatMap((each) => records.judge(each)),
      ...compacted.flatMap((log) => judgeLog(log, before.get(log.partition))),
      ...newest.at(fromMs).flatMap((each) => judgeNewest(each, seenByKey.get(each.key) ?? [], mayBeGone)),
      ...(isAtRest ? [...findSecondRecords(seenByKey), ...compacted.flatMap(findOldTombstones)] : []),
    ];
    for (const log of compacted) before.set(log.partition, log);
    return faults;
  });
}

// ── one record ───────────────────────────────────────────────────────────────────────────────────────────

/** Each is what was sent, and where it was before. */
class SeenRecords {
  readonly #sentById: ReadonlyMap<string, SentRecord>;
  readonly #placesById = new Map<string, string>();
  readonly #idsByPlace = new Map<string, string>();

  constructor(sent: readonly SentRecord[]) {
    this.#sentById = new Map(sent.map((each) => [each.id, each]));
    for (const { id, answer } of sent) if (typeof answer === "object") this.#note(id, placeOf(answer.place));
  }

  judge(seen: Seen): readonly string[] {
    const { id, key, isTombstone } = seen;
    const place = placeOf(seen);
    const sent = this.#sentById.get(id);
    if (!sent || sent.key !== key || sent.isTombstone !== isTombstone)
      return [`${place} is ${id} of ${key}, which nobody has sent`];
    if (sent.answer === "refused") return [`${place} is ${id}, which was refused`];
    const [placeBefore = place, idBefore = id] = [this.#placesById.get(id), this.#idsByPlace.get(place)];
    if (placeBefore !== place)
      return [`${id} was at ${placeBefore} and is at ${place}: its offset has changed`];
    if (idBefore !== id) return [`${place} was ${idBefore} and is ${id}: its offset was given again`];
    this.#note(id, place);
    return [];
  }

  #note(id: string, place: string): void {
    this.#placesById.set(id, place);
    this.#idsByPlace.set(place, id);
  }
}

// ── one partition ────────────────────────────────────────────────────────────────────────────────────────

function judgeLog(log: SeenLog, before: SeenLog | undefined): readonly string[] {
  const { partition, logStartOffset, logEndOffset, records } = log;
  const offsets = records.map(({ offset }) => offset);
  const isRising = offsets.every((offset, index) => offset > (offsets[index - 1] ?? logStartOffset - 1));
  const isLastThere = logEndOffset === logStartOffset || offsets.at(-1) === logEndOffset - 1;
  return [
    ...(isRising ? [] : [`the offsets of partition ${partition} do not rise: ${offsets}`]),
    ...(isLastThere
      ? []
      : [`partition ${partition} ends at ${logEndOffset}, its last record is ${offsets.at(-1)}`]),
    ...(before ? judgeChange(log, before) : []),
  ];
}

function judgeChange(log: SeenLog, before: SeenLog): readonly string[] {
  const { partition, logStartOffset, logEndOffset, records } = log;
  const there = new Set(before.records.map(({ offset }) => offset));
  const isSameStart = logStartOffset === before.logStartOffset;
  return [
    ...(isSameStart
      ? []
      : [`partition ${partition} starts at ${logStartOffset}, not ${before.logStartOffset}`]),
    ...(logEndOffset >= before.logEndOffset ? [] : [`partition ${partition} ends at ${logEndOffset} again`]),
    ...records
      .filter(({ offset }) => offset < before.logEndOffset && !there.has(offset))
      .map(({ offset, id }) => `${partition}@${offset} was gone and is back: ${id}`),
  ];
}

// ── one key ──────────────────────────────────────────────────────────────────────────────────────────────

/** What is the newest of a key goes when a newer one is there or, as a tombstone, when nothing else of the key is left. */
function judgeNewest(
  newest: Acknowledged,
  seen: readonly Seen[],
  mayBeGone: (record: Acknowledged) => boolean,
): readonly string[] {
  const { key, id, answer } = newest;
  const { offset } = answer.place;
  if (seen.some((each) => each.offset >= offset)) return [];
  const says = `${id}, the newest record of ${key}, is not at ${placeOf(answer.place)}`;
  const [older] = seen;
  if (older) return [`${says}, and the older ${older.id} is there`];
  return mayBeGone(newest) ? [] : [says];
}

/** The record itself, or one that may be a newer one of its key. */
function isAsNew({ id, answer }: SentRecord, record: Acknowledged): boolean {
  if (id === record.id || answer === undefined) return true;
  return answer !== "refused" && answer.place.offset > record.answer.place.offset;
}

function findSecondRecords(seenByKey: ReadonlyMap<string | null, readonly Seen[]>): readonly string[] {
  return [...seenByKey]
    .filter(([, seen]) => seen.length > 1)
    .map(([key, seen]) => `at rest ${key} has ${seen.length} records, ${seen.map(placeOf)}`);
}

function findOldTombstones({ partition, logEndOffset, records }: SeenLog): readonly string[] {
  return records
    .filter(({ offset, isTombstone }) => isTombstone && offset < logEndOffset - 1)
    .map(({ offset, id }) => `at rest the tombstone ${id} is still at ${partition}@${offset}`);
}

/** Which record of each key was the newest that was acknowledged before a time that only rises. */
class NewestByKey {
  readonly #answered: readonly Acknowledged[];
  readonly #newest = new Map<string | null, Acknowledged>();
  #next = 0;

  constructor(sent: readonly SentRecord[]) {
    this.#answered = sent
      .filter((each): each is Acknowledged => typeof each.answer === "object")
      .sort((one, other) => one.answer.atMs - other.answer.atMs);
  }

  at(ms: number): readonly Acknowledged[] {
    for (; this.#next < this.#answered.length; this.#next += 1) {
      const record = this.#answered[this.#next];
      if (!record || record.answer.atMs >= ms) break;
      const before = this.#newest.get(record.key);
      if (!before || before.answer.place.offset < record.answer.place.offset)
        this.#newest.set(record.key, record);
    }
    return [...this.#newest.values()];
  }
}

function placeOf({ partition, offset }: { readonly partition: number; readonly offset: number }): string {
  return `${partition}@${offset}`;
}
