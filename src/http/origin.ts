// No runtime checks where a browser's request comes from: without this any web page that a user has open could
// read and write the log of a server on their own machine.

import type { MiddlewareHandler } from "hono";
import { Problem } from "../core/problem.ts";
import { excerpt } from "../protocol/schemas/verdict.ts";
import { problemResponse } from "./problems.ts";

export interface OriginRules {
  /** Beside the server's own, e.g. `https://app.example`. */
  readonly allowed: readonly string[];
  /** Pages served from this machine, on any port: for development. */
  readonly allowsLoopback: boolean;
}

const LOOPBACK_HOSTS = new Set(["localhost", "127.0.0.1", "[::1]"]);

export function refuseForeignOrigin(rules: OriginRules): MiddlewareHandler {
  return async (c, next) => {
    const url = new URL(c.req.url);
    const origin = c.req.header("origin");
    if (!isOwnHost(url, rules)) return refuse(`Requests to the host ${excerpt(url.host)} are refused`);
    if (origin === undefined || isAllowed(origin, url, rules)) return next();
    return refuse(`Requests from pages of ${excerpt(origin)} are refused`);
  };
}

/**
 * That a page's host is the one it asks is not enough: a page can give its own name this machine's address (DNS
 * rebinding), and then its reads carry no Origin at all. A name that is not this machine's must be listed.
 */
function isOwnHost({ hostname, origin }: URL, { allowed }: OriginRules): boolean {
  return (
    LOOPBACK_HOSTS.has(hostname) || allowed.some((listed) => new URL(listed).host === new URL(origin).host)
  );
}

export function isAllowed(origin: string, url: URL, { allowed, allowsLoopback }: OriginRules): boolean {
  if (allowed.includes(origin)) return true;
  if (!URL.canParse(origin)) return false; // "null": a sandboxed or local page
  const { host, hostname } = new URL(origin);
  return LOOPBACK_HOSTS.has(hostname) && (allowsLoopback || host === url.host);
}

function refuse(why: string): Response {
  return problemResponse(new Problem("forbidden", `${why}: allow them with --allow-origin`));
}
