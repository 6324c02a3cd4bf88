// Browser-safe. Where to start in a partition, as it may be said on the wire.

/** The lowest offset whose timestamp is at or after it, else the log end. Milliseconds since 1970. */
export interface TimestampPlace {
  readonly timestamp: number;
}

/** As a timestamp: so many milliseconds before now, on the database's clock. */
export interface AgoPlace {
  readonly ago: number;
}

/** By number: outside [log start, log end] it is `offset_out_of_range`. */
export interface OffsetPlace {
  readonly offset: number;
}

/** From the committed offset: so many offsets forward or, below 0, back; put inside [log start, log end]. */
export interface ShiftPlace {
  readonly shift: number;
}

/** Where a reader may start: it has no committed offset to start from. */
export type ReaderPlace = "earliest" | "latest" | OffsetPlace | TimestampPlace | AgoPlace;

/** `current`: the committed offset. */
export type Place = ReaderPlace | "current" | ShiftPlace;

/** Where to start when there is no usable committed offset. */
export type ResetPolicy = "earliest" | "latest" | "none" | TimestampPlace | AgoPlace;

/**
 * `missing`: nothing is committed. `outOfRange`: what is committed, or the live position, lies outside
 * [log start, log end].
 */
export interface ResetPolicies {
  readonly missing: ResetPolicy;
  readonly outOfRange: ResetPolicy;
}
