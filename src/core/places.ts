// Where a reader starts, as it may be said, and what offset that is. All of it resolves inside [log start, log end].

import { INTEGER_MAX } from "../protocol/limits.ts";
import { parseDecimal } from "./decimal.ts";
import { Problem } from "./problem.ts";

/** `timestamp`: the lowest offset whose timestamp is at or after it, else the log end. */
export type Place = "earliest" | "latest" | { readonly offset: number } | { readonly timestamp: number };

export interface LogBounds {
  readonly logStartOffset: number;
  readonly logEndOffset: number;
}

/** As it stands in a URL: `earliest`, `latest`, an offset, or `@` and milliseconds since 1970. */
export function parsePlace(text: string): Place | undefined {
  if (text === "earliest" || text === "latest") return text;
  const isTime = text.startsWith("@");
  const number = parseDecimal(isTime ? text.slice(1) : text);
  if (number === undefined) return undefined;
  return isTime ? { timestamp: number } : { offset: number };
}

/** To read from before the bounds are known: placeInside() makes the start of 0 and the end of the highest. */
export function assumedOffset(place: Exclude<Place, { readonly timestamp: number }>): number {
  if (place === "earliest") return 0;
  return place === "latest" ? INTEGER_MAX : place.offset;
}

/**
 * The position inside bounds that may have moved since it was found: only an offset that was asked for by number is
 * refused outside of them, as `offset_out_of_range`.
 */
export function placeInside(place: Place, position: number, bounds: LogBounds): number {
  const { logStartOffset, logEndOffset } = bounds;
  const inside = Math.min(Math.max(position, logStartOffset), logEndOffset);
  if (inside !== position && typeof place === "object" && "offset" in place)
    throw outOfRange(position, bounds);
  return inside;
}

function outOfRange(found: number, { logStartOffset, logEndOffset }: LogBounds): Problem {
  return new Problem(
    "offset_out_of_range",
    `Cannot read from offset ${found}: log start offset is ${logStartOffset}, log end offset is ${logEndOffset}`,
    { found, logStartOffset, logEndOffset },
  );
}
