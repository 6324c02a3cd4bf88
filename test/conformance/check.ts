// What a check of the conformance suite is. No test runner in here: the suite runs from a test, and from a script.

export type Runtime = "bun" | "deno" | "workers";
export type Database = "file" | "sqld";

/** What not every runtime can do: the table CANNOT in suite.ts says which, and why. */
export type Ability = "protocolPings" | "embeddedFile";

export interface ServerUnderTest {
  /** Without a slash at its end. */
  readonly url: string;
  readonly streamUrl: string;
  readonly runtime: Runtime;
  readonly database: Database;
}

/** In the order of the table of compatibility. */
export const AREAS = [
  "topics",
  "produce",
  "JSON byte for byte",
  "producers",
  "read",
  "stream",
  "positions and windows",
  "readers",
  "acks",
  "groups",
  "operators",
  "transactions",
  "schemas",
  "retention and compaction",
  "limits",
  "bad input",
  "many sockets",
  "descriptions",
  "heartbeats",
] as const;

export type Area = (typeof AREAS)[number];

/** Throws where the server does not do what the contract says. */
export type CheckFunction = (server: ServerUnderTest) => Promise<void>;

export interface Check {
  readonly area: Area;
  readonly name: string;
  readonly check: CheckFunction;
  readonly needs?: Ability;
  /** What holds instead on a runtime that has not what it needs; absent where that cannot be checked. */
  readonly otherwise?: { readonly name: string; readonly check: CheckFunction };
}

/** `checks`: by their names. */
export function checksOf(area: Area, checks: Readonly<Record<string, CheckFunction>>): readonly Check[] {
  return Object.entries(checks).map(([name, check]) => ({ area, name, check }));
}
