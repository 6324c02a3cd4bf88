// Browser-safe. Where a server is.

import { TidemarkError } from "./errors.ts";

export interface ServerUrl {
  /** Of the HTTP interface, without a slash at its end. */
  readonly http: string;
  /** Of the WebSocket. */
  readonly stream: string;
}

const SCHEMES: Readonly<Record<string, readonly [http: string, socket: string]>> = {
  "http:": ["http:", "ws:"],
  "https:": ["https:", "wss:"],
  "ws:": ["http:", "ws:"],
  "wss:": ["https:", "wss:"],
};

const STREAM_PATH = "/v1/stream";

/** Takes `http:`, `https:`, `ws:` and `wss:`, with a path where a proxy adds one. `bad_url` for anything else. */
export function readServerUrl(text: string | URL): ServerUrl {
  const url = URL.canParse(String(text)) ? new URL(text) : undefined;
  const schemes = url && SCHEMES[url.protocol];
  if (!url || !schemes || url.search || url.hash || url.username) {
    throw new TidemarkError(
      "bad_url",
      `Cannot connect to ${JSON.stringify(String(text))}: give the URL of a server, as in "http://127.0.0.1:4500", without a query, a fragment or credentials`,
    );
  }
  const rest = `//${url.host}${url.pathname.replace(/(\/v1\/stream)?\/*$/, "")}`;
  return { http: schemes[0] + rest, stream: schemes[1] + rest + STREAM_PATH };
}
