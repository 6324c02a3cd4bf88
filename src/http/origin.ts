// No runtime checks where a browser's request comes from: without this any web page that a user has open could
// read and write the log of a server on their own machine.

import type { MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
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

/** For so long a browser need not ask again; what has been taken off the list since is refused all the same. */
const PREFLIGHT_S = 600;

/**
 * Lets the page of an allowed origin read what is answered, a refusal as well: without it a page may open a WebSocket,
 * which asks nobody, and not read one answer over HTTP. It names that one origin, without credentials.
 */
export function shareWithAllowedOrigin(rules: OriginRules): MiddlewareHandler {
  const share = cors({
    origin: (origin) => origin,
    allowMethods: ["GET", "HEAD", "PUT", "POST", "DELETE"],
    allowHeaders: ["Authorization", "Content-Type"],
    exposeHeaders: ["Retry-After"],
    maxAge: PREFLIGHT_S,
  });
  return async (c, next) => {
    // A browser asks nothing of this before it opens a WebSocket, and a 101 is not to be made anew.
    if (c.req.header("upgrade") !== undefined) return next();
    const origin = c.req.header("origin");
    if (origin !== undefined && isAllowed(origin, new URL(c.req.url), rules)) return share(c, next);
    await next();
    c.res.headers.append("vary", "Origin"); // in place: c.header() would make another response of it
  };
}

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
