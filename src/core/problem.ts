import { ERROR_CODES, type ErrorCode } from "../protocol/codes.ts";

/** Numbers and names that a program may act on: `logStartOffset`, `expected`, `found`, `line`, … */
export type ProblemFacts = Readonly<Record<string, unknown>>;

/**
 * The one error type for everything that is expected to fail. The message says what was attempted, what was
 * found and what is allowed; anything else that is thrown is a defect and leaves the server as `internal`.
 */
export class Problem extends Error {
  readonly code: ErrorCode;
  readonly facts: ProblemFacts;

  constructor(code: ErrorCode, message: string, facts: ProblemFacts = {}) {
    super(message);
    this.name = "Problem";
    this.code = code;
    this.facts = facts;
  }

  get isRetriable(): boolean {
    return ERROR_CODES[this.code].retriable;
  }
}
