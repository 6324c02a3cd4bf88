// Flags over environment over defaults. Values that make no sense are refused by name. Of the flags: command-line.ts.

import * as v from "valibot";
import { INTEGER_MAX } from "../protocol/limits.ts";

export interface Settings {
  readonly mode: "dev" | "serve";
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  readonly database: DatabaseSetting;
  readonly createsTopicsOnFirstUse: boolean;
  readonly allowedOrigins: readonly string[];
  /** How long a group without members keeps its offsets, in ms; null: for ever. */
  readonly offsetRetentionMs: number | null;
  /** Whoever reaches it may read and write, and the operator has said so. */
  readonly isWithoutCredentials: boolean;
}

export type DatabaseSetting =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "remote"; readonly url: string; readonly authToken: string | undefined };

/** Its message is for the person at the terminal. */
export class SettingsError extends Error {
  override readonly name = "SettingsError";
}

/** Why a public address is refused. */
export const OPEN_TO_ALL =
  "everybody who reaches it could read and write, and credentials are not built yet.";

export type Environment = Readonly<Record<string, string | undefined>>;

/** Each flag's environment variable. */
const VARIABLES = {
  port: "PORT",
  host: "HOST",
  db: "TURSO_DATABASE_URL",
  "db-token": "TURSO_AUTH_TOKEN",
  "auto-create": "TIDEMARK_AUTO_CREATE",
  "allow-origin": "TIDEMARK_ALLOW_ORIGIN",
  "offset-retention-ms": "TIDEMARK_OFFSET_RETENTION_MS",
  "without-credentials": "TIDEMARK_WITHOUT_CREDENTIALS",
} as const;

const DEFAULT_PORT = "4500";
const DEFAULT_HOST = "127.0.0.1";
const DEFAULT_DATABASE = "file:./.tidemark/tidemark.db";
const LOOPBACK_HOSTS = new Set(["127.0.0.1", "localhost", "::1"]);

/** Of the command line, by name. */
export type Flags = Partial<Record<keyof typeof VARIABLES, string>>;

/** Throws a SettingsError. */
export function settingsOf(mode: Settings["mode"], flags: Flags, environment: Environment): Settings {
  const value = (name: keyof typeof VARIABLES) => flags[name] ?? (environment[VARIABLES[name]] || undefined);
  const isWithoutCredentials = parseSwitch("without-credentials", value("without-credentials"));
  return {
    mode,
    port: parsePort(value("port") ?? DEFAULT_PORT),
    host: checkHost(value("host") ?? DEFAULT_HOST, isWithoutCredentials),
    database: parseDatabase(value("db") ?? DEFAULT_DATABASE, value("db-token")),
    createsTopicsOnFirstUse: parseSwitch("auto-create", value("auto-create")) || mode === "dev",
    allowedOrigins: parseOrigins(value("allow-origin") ?? ""),
    offsetRetentionMs: parseOffsetRetention(value("offset-retention-ms")),
    isWithoutCredentials,
  };
}

/**
 * For where the platform listens: at an address that everybody reaches, and with a disk, if any, that ends with the
 * process. Throws a SettingsError.
 */
export function requirePlatform(settings: Settings, environment: Environment): Settings {
  if (!environment[VARIABLES.db]) {
    const why = "the platform's disk may not outlive the process";
    throw new SettingsError(
      `${VARIABLES.db} is not set: ${why}. Give the http:, https: or libsql: URL of a database`,
    );
  }
  if (!settings.isWithoutCredentials) {
    throw new SettingsError(
      `refused to serve at an address of the platform: ${OPEN_TO_ALL} Put something in front that asks for them, then ` +
        `set ${VARIABLES["without-credentials"]} to true`,
    );
  }
  return settings;
}

function parsePort(text: string): number {
  const port = v.safeParse(
    v.pipe(v.string(), v.regex(/^\d{1,5}$/), v.transform(Number), v.maxValue(65_535)),
    text,
  );
  if (!port.success) throw new SettingsError(`the port must be 0 to 65535, found "${text}"`);
  return port.output;
}

function checkHost(host: string, isWithoutCredentials: boolean): string {
  if (LOOPBACK_HOSTS.has(host) || (isWithoutCredentials && host !== "")) return host;
  throw new SettingsError(
    `refused to listen on ${host}: ${OPEN_TO_ALL} Listen on ${DEFAULT_HOST} behind a proxy that asks for them, or say ` +
      "--without-credentials where a private network keeps everybody else out",
  );
}

function parseDatabase(url: string, authToken: string | undefined): DatabaseSetting {
  if (url.startsWith("file:")) return { kind: "file", path: parseFile(url) };
  // A host and a port, no more: whatever else an URL can hold may be a secret, and would be printed.
  const [, protocol = "", host = ""] = url.match(/^(https?|libsql):\/\/([^/?#@\s]+)\/?$/) ?? [];
  if (host === "" || !URL.canParse(`${protocol}://${host}`)) {
    throw new SettingsError(
      `cannot open the database ${withoutSecrets(url)}: allowed are file:PATH, and http:, https: or libsql: with a host ` +
        "and a port only; the token goes into TURSO_AUTH_TOKEN",
    );
  }
  return { kind: "remote", url: `${protocol}://${host}`, authToken };
}

function parseFile(url: string): string {
  const path = url.slice("file:".length).replace(/^\/\/(localhost)?(?=\/)/, "");
  if (path === "" || path.includes("?") || path.startsWith("//")) {
    throw new SettingsError(
      `cannot open the database "${url.split("?")[0]}": allowed is file:PATH, without host and parameters`,
    );
  }
  return decodePath(path, url);
}

function decodePath(path: string, url: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    throw new SettingsError(`cannot open the database "${url}": write a percent sign as %25`);
  }
}

function withoutSecrets(url: string): string {
  return URL.canParse(url) ? `${new URL(url).protocol}//${new URL(url).host}` : "that is given";
}

function parseSwitch(name: keyof typeof VARIABLES, text = "false"): boolean {
  if (text === "true" || text === "1") return true;
  if (text === "false" || text === "0") return false;
  throw new SettingsError(`--${name} must be true or false, found "${text}"`);
}

function parseOffsetRetention(text: string | undefined): number | null {
  if (text === undefined) return null;
  const ms = /^\d{1,16}$/.test(text) ? Number(text) : 0;
  if (ms >= 1 && ms <= INTEGER_MAX) return ms;
  throw new SettingsError(`--offset-retention-ms must be a whole number of ms, 1 or more, found "${text}"`);
}

function parseOrigins(list: string): readonly string[] {
  const origins = list
    .split(",")
    .map((origin) => origin.trim())
    .filter((origin) => origin !== "");
  const bad = origins.find((origin) => !URL.canParse(origin) || new URL(origin).origin !== origin);
  if (bad === undefined) return origins;
  throw new SettingsError(`--allow-origin takes origins like https://app.example, found "${bad}"`);
}
