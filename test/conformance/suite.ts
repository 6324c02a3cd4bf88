// What every runtime has to do, over HTTP and WebSocket alone. A check makes its own topics, groups and producers, so all
// of them may run at once on one server, and again on the same database. They use what Bun and Deno have in common.

import { acks } from "./acks.ts";
import { badInput } from "./bad-input.ts";
import type { Ability, Check, CheckFunction, Runtime } from "./check.ts";
import { descriptions } from "./descriptions.ts";
import { groups } from "./groups.ts";
import { life } from "./life.ts";
import { limits } from "./limits.ts";
import { manySockets } from "./many-sockets.ts";
import { operators } from "./operators.ts";
import { positions } from "./positions.ts";
import { jsonText, produces } from "./produce.ts";
import { producers } from "./producers.ts";
import { reads } from "./read.ts";
import { readers } from "./readers.ts";
import { schemas } from "./schemas.ts";
import { streams } from "./stream.ts";
import { topics } from "./topics.ts";
import { transactions } from "./transactions.ts";

export const CHECKS: readonly Check[] = [
  ...topics,
  ...produces,
  ...jsonText,
  ...producers,
  ...reads,
  ...streams,
  ...positions,
  ...readers,
  ...acks,
  ...groups,
  ...operators,
  ...transactions,
  ...schemas,
  ...life,
  ...limits,
  ...badInput,
  ...manySockets,
  ...descriptions,
];

type Inabilities = Readonly<Record<Runtime, Readonly<Partial<Record<Ability, string>>>>>;

const NO_PONGS =
  "tells a server of no protocol-level pongs: a client that answers only these is closed with 4008, others are not";

/** What a runtime cannot do, each with its reason. What is not here it must do. */
export const CANNOT: Inabilities = {
  bun: {},
  deno: { protocolPings: NO_PONGS },
  workers: { protocolPings: NO_PONGS, embeddedFile: "has no files: its database is a remote one" },
};

/** A check as it is for one runtime. */
export interface PlannedCheck extends Pick<Check, "area" | "name"> {
  /** Absent where the runtime cannot do it, and what holds instead cannot be checked. */
  readonly check?: CheckFunction;
  readonly lacks?: Ability;
}

/** A check that needs what the runtime lacks is replaced by its opposite, and never silently left out. */
export function planFor(
  runtime: Runtime,
  checks: readonly Check[],
  cannot: Inabilities = CANNOT,
): readonly PlannedCheck[] {
  return checks.map(({ area, name, check, needs, otherwise }) => {
    if (needs === undefined || cannot[runtime][needs] === undefined) return { area, name, check };
    return { area, name, lacks: needs, ...otherwise };
  });
}
