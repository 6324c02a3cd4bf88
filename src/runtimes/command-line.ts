// The settings of a server that is started by a command. Unknown flags are refused by name.

import { parseArgs } from "node:util";
import { type Environment, type Flags, type Settings, SettingsError, settingsOf } from "./settings.ts";

export const USAGE = `usage: tidemark dev|serve [flags]

  --port N            PORT                    4500; 0: any free one
  --host ADDRESS      HOST                    127.0.0.1
  --db URL            TURSO_DATABASE_URL      file:./.tidemark/tidemark.db; or http:, https:, libsql: of a libSQL server
  --db-token TOKEN    TURSO_AUTH_TOKEN        the libSQL server's, where it wants one
  --auto-create       TIDEMARK_AUTO_CREATE    topics come into being on first use (always so in dev)
  --allow-origin LIST TIDEMARK_ALLOW_ORIGIN   names that it is called by, and other sites whose pages may connect,
                                              as https://app.example, separated by commas
  --offset-retention-ms N
                 TIDEMARK_OFFSET_RETENTION_MS    how long a group without members keeps its offsets; for ever without it
  --without-credentials
                 TIDEMARK_WITHOUT_CREDENTIALS    listen on a public address: whoever reaches it may read and write`;

/** Throws a SettingsError. */
export function readSettings(argv: readonly string[], environment: Environment): Settings {
  const [mode, ...rest] = argv;
  if (mode !== "dev" && mode !== "serve") throw new SettingsError(`found ${mode ?? "no command"}\n${USAGE}`);
  return settingsOf(mode, readFlags(rest), environment);
}

function readFlags(args: readonly string[]): Flags {
  const options = {
    port: { type: "string" },
    host: { type: "string" },
    db: { type: "string" },
    "db-token": { type: "string" },
    "auto-create": { type: "boolean" },
    "allow-origin": { type: "string" },
    "offset-retention-ms": { type: "string" },
    "without-credentials": { type: "boolean" },
  } as const satisfies Readonly<Record<keyof Flags, object>>;
  try {
    const { values } = parseArgs({ args: [...args], options, strict: true });
    return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, String(value)]));
  } catch (error) {
    throw new SettingsError(`${error instanceof Error ? error.message : error}\n${USAGE}`);
  }
}
