// Browser-safe. What is wrong with a server that does not take our socket. A WebSocket says nothing of why it did not open,
// and a server that is older than a frame closes with "bad frame": a plain request finds out more.

import { PROTOCOL_REVISION } from "../../src/protocol/revision.ts";
import { errorOf, TidemarkError } from "./errors.ts";
import { call } from "./http.ts";
import type { LinkOptions } from "./link.ts";

/** Producers and transactions came with it: a server before that refuses what this client sends by default. */
export const REVISION_MIN = 3;

const DIAGNOSIS_TIMEOUT_MS = 5_000;
const UPGRADE_REQUIRED = 426;

/** Why a socket to this server did not open. Not retriable: trying again is of no use. */
export async function diagnose(server: LinkOptions): Promise<TidemarkError> {
  const found = await ask(server, ["v1", "stream"]);
  if (!(found instanceof TidemarkError) || found.facts.status === UPGRADE_REQUIRED) {
    return (await findOldServer(server)) ?? unexplained(server);
  }
  return found;
}

/** The error for a server that is too old for this client, where it is one. */
export async function findOldServer(server: LinkOptions): Promise<TidemarkError | undefined> {
  const description = await ask(server, ["openapi.json"]);
  const found = description instanceof Error ? undefined : description.info?.["x-protocol-revision"];
  if (typeof found !== "number" || found >= REVISION_MIN) return undefined;
  const why =
    `The server at ${server.url.http} speaks protocol revision ${found}, this client ${PROTOCOL_REVISION}, which needs ` +
    `${REVISION_MIN} or later: upgrade the server, or use the client of its release`;
  return errorOf("unsupported_revision", why, { facts: { found, expected: REVISION_MIN } });
}

function unexplained({ url }: LinkOptions): TidemarkError {
  const why = `The server answers, but a WebSocket to ${url.stream} does not open: a proxy between may not pass it on`;
  return errorOf("connection_lost", why);
}

/** As much of a description as is looked at. */
interface Description {
  readonly info?: Readonly<Record<string, unknown>>;
}

async function ask(server: LinkOptions, path: readonly string[]): Promise<Description | TidemarkError> {
  const ending = new AbortController();
  const giveUp = () => ending.abort(errorOf("connection_lost", `${server.url.http} gave no answer in time`));
  const stop = server.platform.startTimer(DIAGNOSIS_TIMEOUT_MS, giveUp);
  try {
    const anyone = { ...server, token: undefined }; // who may not do more may ask this
    return (await call<Description>(anyone, { method: "GET", path, signal: ending.signal })).body;
  } catch (error) {
    return error instanceof TidemarkError ? error : errorOf("internal", String(error), { cause: error });
  } finally {
    stop();
  }
}
