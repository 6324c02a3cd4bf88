// Where to start, as it may be said, and what offset that is. All of it resolves inside [log start, log end].

import { INTEGER_MAX } from "../protocol/limits.ts";
import type { AgoPlace, Place, ReaderPlace, ResetPolicy, TimestampPlace } from "../protocol/places.ts";
import { parseDecimal } from "./decimal.ts";
import { Problem } from "./problem.ts";

/** A place that a URL can say. */
export type FetchPlace = Exclude<ReaderPlace, AgoPlace>;

/** A place that only a look at the timestamps can find. */
export type TimePlace = TimestampPlace | AgoPlace;

export interface LogBounds {
  readonly logStartOffset: number;
  readonly logEndOffset: number;
}

/** As it stands in a URL: `earliest`, `latest`, an offset, or `@` and milliseconds since 1970. */
export function parsePlace(text: string): FetchPlace | undefined {
  if (text === "earliest" || text === "latest") return text;
  const isTime = text.startsWith("@");
  const number = parseDecimal(isTime ? text.slice(1) : text);
  if (number === undefined) return undefined;
  return isTime ? { timestamp: number } : { offset: number };
}

/** To read from before the bounds are known: placeInside() makes the start of 0 and the end of the highest. */
export function assumedOffset(place: Exclude<FetchPlace, TimestampPlace>): number {
  if (place === "earliest") return 0;
  return place === "latest" ? INTEGER_MAX : place.offset;
}

/**
 * The position inside bounds that may have moved since it was found: only an offset that was asked for by number is
 * refused outside of them, as `offset_out_of_range`.
 */
export function placeInside(place: FetchPlace, position: number, bounds: LogBounds): number {
  const inside = clamp(position, bounds);
  if (inside !== position && typeof place === "object" && "offset" in place)
    throw outOfRange(position, bounds);
  return inside;
}

// ── with everything that is known of a partition ─────────────────────────────────────────────────────────

/** What a place depends on. */
export interface PlaceFacts extends LogBounds {
  readonly committedOffset: number | null;
  /** The lowest offset at or after the place's time, else the log end; for a place by time only. */
  readonly offsetAtTime?: number | undefined;
}

/** The place's time, where it is one. */
export function timeOf(place: Place | ResetPolicy): TimePlace | undefined {
  return typeof place === "object" && ("timestamp" in place || "ago" in place) ? place : undefined;
}

/** Throws `offset_out_of_range` for an offset outside of the log, `no_committed_offset` where one is needed. */
export function resolvePlace(place: Place, facts: PlaceFacts): number {
  if (place === "current") return clamp(committedOf(facts), facts);
  if (typeof place === "object" && "shift" in place) return clamp(committedOf(facts) + place.shift, facts);
  if (typeof place === "object" && "offset" in place) return placeInside(place, place.offset, facts);
  return policyOffset(place, facts);
}

/** Where a policy leads that leads anywhere. */
export function policyOffset(policy: Exclude<ResetPolicy, "none">, facts: PlaceFacts): number {
  if (policy === "earliest") return facts.logStartOffset;
  if (policy === "latest") return facts.logEndOffset;
  if (facts.offsetAtTime === undefined) throw new Error("The time of a place was not looked up");
  return clamp(facts.offsetAtTime, facts);
}

/** As the history of commits says it. */
export function policyText(policy: ResetPolicy): string {
  if (typeof policy === "string") return policy;
  return "ago" in policy ? `ago ${policy.ago} ms` : `timestamp ${policy.timestamp}`;
}

function committedOf({ committedOffset }: PlaceFacts): number {
  if (committedOffset !== null) return committedOffset;
  throw new Problem("no_committed_offset", "There is no committed offset to start from");
}

function clamp(offset: number, { logStartOffset, logEndOffset }: LogBounds): number {
  return Math.min(Math.max(offset, logStartOffset), logEndOffset);
}

function outOfRange(found: number, { logStartOffset, logEndOffset }: LogBounds): Problem {
  return new Problem(
    "offset_out_of_range",
    `Cannot read from offset ${found}: log start offset is ${logStartOffset}, log end offset is ${logEndOffset}`,
    { found, logStartOffset, logEndOffset },
  );
}
