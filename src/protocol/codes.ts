// Browser-safe. What can go wrong, by name: error codes with their HTTP status, and close codes.

/** `retriable`: the same request may succeed later, unchanged. */
export const ERROR_CODES = {
  bad_request: { status: 400, retriable: false },
  bad_frame: { status: 400, retriable: false },
  unauthenticated: { status: 401, retriable: false },
  forbidden: { status: 403, retriable: false },
  unknown_topic: { status: 404, retriable: false },
  unknown_partition: { status: 404, retriable: false },
  unknown_group: { status: 404, retriable: false },
  unknown_subscription: { status: 404, retriable: false },
  conflict: { status: 409, retriable: false },
  no_committed_offset: { status: 409, retriable: false },
  fenced_generation: { status: 409, retriable: false },
  not_assigned: { status: 409, retriable: false },
  fenced_producer: { status: 409, retriable: false },
  sequence_gap: { status: 409, retriable: false },
  record_too_large: { status: 413, retriable: false },
  batch_too_large: { status: 413, retriable: false },
  frame_too_large: { status: 413, retriable: false },
  offset_out_of_range: { status: 416, retriable: false },
  schema_violation: { status: 422, retriable: false },
  rate_limited: { status: 429, retriable: true },
  internal: { status: 500, retriable: false },
  unavailable: { status: 503, retriable: true },
  outcome_unknown: { status: 504, retriable: true },
  storage_full: { status: 507, retriable: true },
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

/** 1000, 1009 and 44xx mean: do not come back as you are. Anything else: reconnect and resume. */
export const CLOSE_CODES = {
  normal: 1000,
  frameTooLarge: 1009,
  draining: 4000,
  heartbeatMissed: 4008,
  slowDown: 4029,
  badFrame: 4400,
  unauthenticated: 4401,
  forbidden: 4403,
} as const;
