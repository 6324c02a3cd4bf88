// What must hold of topics with retention, whenever somebody looks. Who has lost what was acknowledged and is not below
// the log start, and whether the rest is dense, the history checker of test/proof/ says.

import { type Bounds, CLOCK_MS, type Look } from "./looks.ts";

export interface Limits {
  readonly ms?: number;
  readonly records?: number;
}

/** `looks`: one after the other. */
export function findRetentionFaults(
  looks: readonly Pick<Look, "fromMs" | "atMs" | "isAtRest" | "retained">[],
  limitsByTopic: Readonly<Record<string, Limits>>,
): readonly string[] {
  const seen = new Map<string, TimedBounds[]>();
  return looks.flatMap(({ fromMs, atMs, isAtRest, retained }) =>
    retained.flatMap((bounds) => {
      const name = `${bounds.topic}/${bounds.partition}`;
      const before = seen.get(name) ?? [];
      const limits = limitsByTopic[bounds.topic] ?? {};
      const now = { ...bounds, fromMs, atMs };
      const faults = [
        ...findReturn(before.at(-1) ?? now, now),
        ...findTooFew(now, limits),
        ...findTooSoon(before, now, limits),
        ...(isAtRest ? findLeft(now, limits) : []),
      ];
      // Older ones say nothing any more, but the last of them.
      const young = before.filter((each) => atMs - each.fromMs < (limits.ms ?? 0));
      seen.set(name, [...young, now]);
      return faults.map((fault) => `${name}: ${fault}`);
    }),
  );
}

interface TimedBounds extends Bounds {
  readonly fromMs: number;
  readonly atMs: number;
}

function findReturn(before: TimedBounds, now: TimedBounds): readonly string[] {
  if (now.logStartOffset >= before.logStartOffset && now.logEndOffset >= before.logEndOffset) return [];
  return [`went back from ${text(before)} to ${text(now)}`];
}

/** So many of the newest are there, or all. */
function findTooFew(now: TimedBounds, { records }: Limits): readonly string[] {
  if (records === undefined || now.logStartOffset <= Math.max(0, now.logEndOffset - records)) return [];
  return [`keeps ${text(now)}, which is less than ${records} records`];
}

/** What was not there at an earlier look was appended after that. */
function findTooSoon(before: readonly TimedBounds[], now: TimedBounds, { ms }: Limits): readonly string[] {
  if (ms === undefined) return [];
  const witness = before.find(
    ({ fromMs, logEndOffset }) => now.logStartOffset > logEndOffset && now.atMs - fromMs < ms - CLOCK_MS,
  );
  if (!witness) return [];
  const ageMs = now.atMs - witness.fromMs;
  return [`offset ${witness.logEndOffset} is gone and cannot be older than ${ageMs} ms of ${ms}`];
}

function findLeft(now: TimedBounds, { ms, records }: Limits): readonly string[] {
  const left = now.logEndOffset - now.logStartOffset;
  const isTooMuch = left > (records ?? Number.POSITIVE_INFINITY) || (ms !== undefined && left > 0);
  return isTooMuch ? [`still has ${text(now)} when all is done`] : [];
}

function text({ logStartOffset, logEndOffset }: Bounds): string {
  return `[${logStartOffset}, ${logEndOffset})`;
}
