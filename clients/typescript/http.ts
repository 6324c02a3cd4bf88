// Browser-safe. One call of the server's HTTP interface. Nothing is sent twice from here: what may be, only who called
// can know.

import { errorOf, errorOfAnswer, TidemarkError } from "./errors.ts";
import type { LinkOptions } from "./link.ts";

const NO_CONTENT = 204;

/** What a call may have beside what it asks. */
export interface CallOptions {
  /**
   * Ends the call: it rejects with the signal's reason. What the server has begun it finishes. Without one there is no
   * limit of time: `AbortSignal.timeout(5_000)` is one of 5,000 ms.
   */
  readonly signal?: AbortSignal | undefined;
}

export interface HttpCall extends CallOptions {
  readonly method: "GET" | "PUT" | "POST" | "DELETE";
  /** Steps of the path behind the server's URL, not encoded. */
  readonly path: readonly (string | number)[];
  /** What is undefined is left out. */
  readonly query?: Readonly<Record<string, string | number | undefined>> | undefined;
  /** JSON */
  readonly body?: unknown;
}

export interface HttpAnswer<Body> {
  readonly status: number;
  /** Undefined where the server sends none. */
  readonly body: Body;
}

/**
 * `Body` is what the protocol says of the route's answer. Rejects with a `TidemarkError`: what the server said, with its
 * facts and `status` (and `retryAfterMs` where it said so), `connection_lost` where no answer came, `not_a_server` where
 * it was none of a Tidemark server's; and with the reason of the signal where that was aborted.
 */
export async function call<Body>(server: LinkOptions, request: HttpCall): Promise<HttpAnswer<Body>> {
  const { signal } = request;
  signal?.throwIfAborted();
  const url = urlOf(server.url.http, request);
  const init = await initOf(server, request);
  try {
    const response = await server.platform.fetch(url, init);
    return answerOf(response, await response.text(), url) as HttpAnswer<Body>; // the server's tests hold it to that
  } catch (cause) {
    signal?.throwIfAborted();
    if (cause instanceof TidemarkError) throw cause;
    const isRead = request.method === "GET";
    throw lostError(`${url} gave no answer${isRead ? "" : ", and what was asked may have been done"}`, cause);
  }
}

function urlOf(http: string, { path, query = {} }: HttpCall): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) search.set(name, String(value));
  }
  return `${http}/${path.map(encodeStep).join("/")}${search.size > 0 ? `?${search}` : ""}`;
}

/** A step of dots would be taken for a way up, also where it is encoded, and the call would be another one. */
function encodeStep(step: string | number): string {
  if (!/^\.{0,2}$/.test(String(step)) && String(step).isWellFormed()) return encodeURIComponent(step);
  throw errorOf(
    "bad_request",
    `${JSON.stringify(step)} cannot be a name: a name is 1 to 249 characters of A-Z a-z 0-9 . _ - and neither . nor ..`,
  );
}

async function initOf({ token }: LinkOptions, { method, body, signal }: HttpCall): Promise<RequestInit> {
  const headers = new Headers();
  if (token !== undefined) headers.set("authorization", `Bearer ${await readToken(token)}`);
  if (body !== undefined) headers.set("content-type", "application/json");
  return {
    method,
    headers,
    ...(body !== undefined && { body: JSON.stringify(body) }),
    ...(signal && { signal }),
  };
}

async function readToken(token: NonNullable<LinkOptions["token"]>): Promise<string> {
  try {
    return typeof token === "function" ? await token() : token;
  } catch (cause) {
    throw errorOf("unauthenticated", "The token could not be fetched", { cause });
  }
}

function answerOf(response: Response, text: string, url: string): HttpAnswer<unknown> {
  const { status, ok } = response;
  const body = parseObject(text);
  if (ok && (body || status === NO_CONTENT)) return { status, body };
  if (!ok && typeof body?.code === "string" && typeof body.detail === "string") {
    throw problemError(response.headers, body.code, body);
  }
  // A proxy speaks for a server that is away, or that it lets nobody ask so often.
  if (status >= 500 || status === 429) throw lostError(`${url} answered ${status}`, undefined);
  throw errorOf(
    "not_a_server",
    `What answers at ${url} is not a Tidemark server of this version: it gave ${status}, ${text.slice(0, 60)}. Check the URL`,
    { facts: { status } },
  );
}

/** What may be anything. */
type Parsed = Readonly<Record<string, unknown>>;

/** Undefined for what is no JSON object: not ours. */
function parseObject(text: string): Parsed | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === "object" && !Array.isArray(parsed) && parsed ? { ...parsed } : undefined;
  } catch {
    return undefined; // not JSON
  }
}

function problemError(
  headers: Headers,
  code: string,
  { detail, retriable: _, ...facts }: Parsed,
): TidemarkError {
  const retryAfterS = headers.get("retry-after");
  const retryAfterMs = retryAfterS === null ? {} : { retryAfterMs: Number(retryAfterS) * 1_000 };
  return errorOfAnswer({ ...facts, ...retryAfterMs, code, message: String(detail) });
}

function lostError(what: string, cause: unknown): TidemarkError {
  const why = cause instanceof Error ? ` (${cause.message})` : "";
  const check =
    "is the server running, is this its URL, and does it allow the origin of this page, if it is one?";
  return errorOf("connection_lost", `${what}: ${check}${why}`, { cause });
}
