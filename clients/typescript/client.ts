// Browser-safe. The way in: what users of the library import.

import { TidemarkError } from "./errors.ts";
import { Link } from "./link.ts";
import { PLATFORM } from "./platform.ts";
import { readServerUrl } from "./server-url.ts";

export { ConnectionClosedError, FencedError, SchemaViolationError, TidemarkError } from "./errors.ts";

export interface ClientOptions {
  /** Of the server: `http:`, `https:`, `ws:` or `wss:`. */
  readonly url: string | URL;
}

export interface Client {
  readonly link: Link;
  /** What is under way fails with `closed`. */
  close(): void;
}

/**
 * Connects, and connects again whenever the connection is lost, until `close()`. Returns at once. Throws `bad_url`.
 *
 * @example
 * ```ts
 * import { connect } from "@tidemark/client";
 *
 * const client = connect({ url: "http://127.0.0.1:4500" });
 * client.close();
 * ```
 */
export function connect({ url }: ClientOptions): Client {
  const link = new Link({ url: readServerUrl(url), token: undefined, platform: PLATFORM });
  return { link, close: () => link.close(new TidemarkError("closed", "The client was closed")) };
}
