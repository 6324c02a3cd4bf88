// What somebody saw of topics with retention or compaction, in one snapshot of the database.

export interface Bounds {
  readonly topic: string;
  readonly partition: number;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
}

/** Its `id` names it, whatever its value: a tombstone has it in its headers. */
export interface KeyedRecord {
  readonly key: string | null;
  readonly id: string;
  readonly isTombstone: boolean;
}

export interface SeenLog extends Bounds {
  readonly records: readonly (KeyedRecord & { readonly offset: number })[];
}

export interface Look {
  /** By the clock of the machine, which is the database's too: before it was asked for, and after it was there. */
  readonly fromMs: number;
  readonly atMs: number;
  /** Upkeep has said that it has nothing to do. */
  readonly isAtRest: boolean;
  readonly retained: readonly Bounds[];
  readonly compacted: readonly SeenLog[];
}

/** The database has whole milliseconds. */
export const CLOCK_MS = 2;

export const ID_HEADER = "id";

/** Of a record as the server or the database has it. */
export function keyedRecord({
  key,
  value,
  headers,
}: {
  key?: string | null | undefined;
  value: unknown;
  headers?: Readonly<Record<string, string>> | null | undefined;
}): KeyedRecord {
  const isTombstone = value === null;
  return {
    key: key ?? null,
    id: isTombstone ? (headers?.[ID_HEADER] ?? "no id") : String(value),
    isTombstone,
  };
}
