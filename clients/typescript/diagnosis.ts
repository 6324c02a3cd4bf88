// Browser-safe. What is wrong with a server that does not take our socket. A WebSocket says nothing of why it did not open,
// and a server that is older than a frame closes with "bad frame": a plain request finds out more.

import { PROTOCOL_REVISION } from "../../src/protocol/revision.ts";
import { TidemarkError } from "./errors.ts";
import type { Platform } from "./platform.ts";
import type { ServerUrl } from "./server-url.ts";

/** Producers and transactions came with it: a server before that refuses what this client sends by default. */
export const REVISION_MIN = 3;

export interface Diagnosis {
  readonly error: TidemarkError;
  /** Trying again is of no use. */
  readonly isFinal: boolean;
}

const DIAGNOSIS_TIMEOUT_MS = 5_000;
const UPGRADE_REQUIRED = 426;

/** Why a socket to this server did not open. */
export async function diagnose(url: ServerUrl, platform: Platform): Promise<Diagnosis> {
  const response = await ask(`${url.http}/v1/stream`, platform);
  if (response instanceof Error) {
    const why = `Cannot reach ${url.http}: is the server running, and is this its URL? (${response.message})`;
    return { error: new TidemarkError("connection_lost", why, { cause: response }), isFinal: false };
  }
  if (response.status === UPGRADE_REQUIRED) return (await findOldServer(url, platform)) ?? unexplained(url);
  return judge(url, response.status, await response.text());
}

/** The error for a server that is too old for this client, where it is one. */
export async function findOldServer(url: ServerUrl, platform: Platform): Promise<Diagnosis | undefined> {
  const response = await ask(`${url.http}/openapi.json`, platform);
  if (response instanceof Error || !response.ok) return undefined;
  const found = revisionIn(await response.text());
  if (found === undefined || found >= REVISION_MIN) return undefined;
  const why =
    `The server at ${url.http} speaks protocol revision ${found}; this client speaks ${PROTOCOL_REVISION} and needs ` +
    `${REVISION_MIN} or later: upgrade the server, or use the client of its release`;
  return {
    error: new TidemarkError("unsupported_revision", why, { facts: { found, expected: REVISION_MIN } }),
    isFinal: true,
  };
}

function judge({ http }: ServerUrl, status: number, text: string): Diagnosis {
  const { code, detail } = problemIn(text);
  if (code === "forbidden") return { error: new TidemarkError("forbidden", detail), isFinal: true };
  if (status >= 500 || status === 429) {
    return { error: new TidemarkError("connection_lost", `${http} answers ${status}`), isFinal: false };
  }
  const why = `What answers at ${http} is not a Tidemark server of this version: /v1/stream gave ${status}. Check the URL`;
  return { error: new TidemarkError("not_a_server", why, { facts: { status } }), isFinal: true };
}

function unexplained({ stream }: ServerUrl): Diagnosis {
  const why = `The server answers, but a WebSocket to ${stream} does not open: a proxy between may not pass it on`;
  return { error: new TidemarkError("connection_lost", why), isFinal: false };
}

async function ask(url: string, platform: Platform): Promise<Response | Error> {
  const ending = new AbortController();
  const stop = platform.startTimer(DIAGNOSIS_TIMEOUT_MS, () => ending.abort());
  try {
    return await platform.fetch(url, { signal: ending.signal });
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  } finally {
    stop();
  }
}

function revisionIn(text: string): number | undefined {
  const revision = parse(text)?.info?.["x-protocol-revision"];
  return typeof revision === "number" ? revision : undefined;
}

function problemIn(text: string): { readonly code: string | undefined; readonly detail: string } {
  const problem = parse(text);
  return { code: problem?.code, detail: String(problem?.detail ?? text) };
}

/** What may be anything. */
interface Parsed {
  readonly code?: string;
  readonly detail?: unknown;
  readonly info?: Readonly<Record<string, unknown>>;
}

function parse(text: string): Parsed | undefined {
  try {
    return JSON.parse(text) ?? undefined;
  } catch {
    return undefined; // not JSON: not ours
  }
}
