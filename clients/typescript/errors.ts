// Browser-safe. What can go wrong in a client: the server's codes, and those of the client's own.

import { CLOSE_CODES, type ErrorCode } from "../../src/protocol/codes.ts";

/**
 * Codes that the server never sends.
 *
 * - `bad_url`: not the URL of a server.
 * - `not_a_server`: what answers there is not a Tidemark server, or one of another version.
 * - `unsupported_revision`: a Tidemark server that is too old for this client.
 * - `closed`: the client or consumer was closed, by you.
 * - `replaced`: another subscription has taken this membership over.
 * - `connection_lost`: the connection was lost before the answer came.
 * - `handler_failed`: what consumes a record threw, as often as it may.
 */
export type ClientCode =
  | "bad_url"
  | "not_a_server"
  | "unsupported_revision"
  | "closed"
  | "replaced"
  | "connection_lost"
  | "handler_failed";

/** What is known beside the code: `expected`, `found`, `logStartOffset`, … as in PROTOCOL.md. */
export type Facts = Readonly<Record<string, unknown>>;

/** Every error of this library is one of these. `message` says what was attempted, what was found, what to do. */
export class TidemarkError extends Error {
  override readonly name: string = "TidemarkError";
  readonly code: ErrorCode | ClientCode;
  /** The same may succeed later, unchanged. */
  readonly retriable: boolean;
  readonly facts: Facts;

  constructor(
    code: ErrorCode | ClientCode,
    message: string,
    { facts = {}, cause }: { readonly facts?: Facts; readonly cause?: unknown } = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.retriable = RETRIABLE.includes(code);
    this.facts = facts;
  }
}

/**
 * Somebody else has what this was for: a partition that was revoked, reset or assigned to another member
 * (`fenced_generation`, `not_assigned`), a producer id with a newer epoch (`fenced_producer`). Nothing was written. Drop
 * what you have in hand: whoever owns it now gets the records from the committed offset.
 */
export class FencedError extends TidemarkError {
  override readonly name: string = "FencedError";
}

/** The connection has ended for good, by one of the close codes that mean: do not come back as you are. */
export class ConnectionClosedError extends TidemarkError {
  override readonly name: string = "ConnectionClosedError";
  /** Of the WebSocket: 1000, 1009 or 4400 to 4999. */
  readonly closeCode: number;

  constructor(closeCode: number, reason: string) {
    super(
      codeOfClose(closeCode),
      `The server closed the connection with ${closeCode}: ${reason || "no reason given"}`,
    );
    this.closeCode = closeCode;
  }
}

/** Where and why a value is not what its schema allows: as Standard Schema says it. */
export interface Issue {
  readonly message: string;
  readonly path?: ReadonlyArray<PropertyKey | { readonly key: PropertyKey }> | undefined;
}

/** A value that the schema of its topic does not allow, found on this side. */
export class SchemaViolationError extends TidemarkError {
  override readonly name: string = "SchemaViolationError";
  readonly issues: readonly Issue[];

  constructor(what: string, issues: readonly Issue[], facts: Facts = {}) {
    super("schema_violation", `${what}: ${issues.map(({ message }) => message).join("; ")}`, { facts });
    this.issues = issues;
  }
}

/** Their names alone: a page does not have to load the whole table for them. A test compares the two. */
export const RETRIABLE: readonly string[] = [
  "connection_lost",
  "outcome_unknown",
  "rate_limited",
  "storage_full",
  "unavailable",
];

const FENCED: readonly string[] = ["fenced_generation", "fenced_producer", "not_assigned"];

/** The error of a code, as the class that it belongs to. */
export function errorOf(
  code: ErrorCode | ClientCode,
  message: string,
  options?: { readonly facts?: Facts; readonly cause?: unknown },
): TidemarkError {
  return FENCED.includes(code)
    ? new FencedError(code, message, options)
    : new TidemarkError(code, message, options);
}

/** What an `error` frame or a problem over HTTP says. A newer server may have codes that are not listed here. */
export function errorOfAnswer({
  type: _,
  id: _id,
  retriable: _retriable,
  message,
  ...facts
}: AnsweredError): TidemarkError {
  return errorOf(facts.code as ErrorCode, message, { facts }); // or a newer one
}

/** As much of either as is needed here. */
interface AnsweredError {
  readonly code: string;
  readonly message: string;
  readonly type?: unknown;
  readonly id?: unknown;
  readonly retriable?: unknown;
}

function codeOfClose(closeCode: number): ErrorCode | ClientCode {
  switch (closeCode) {
    case CLOSE_CODES.frameTooLarge:
      return "frame_too_large";
    case CLOSE_CODES.badFrame:
      return "bad_frame";
    case CLOSE_CODES.unauthenticated:
      return "unauthenticated";
    case CLOSE_CODES.forbidden:
      return "forbidden";
    default:
      return "closed";
  }
}
