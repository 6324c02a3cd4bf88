// Errors as application/problem+json (RFC 9457), each with its code and facts.

import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { Problem } from "../core/problem.ts";
import { ERROR_CODES } from "../protocol/codes.ts";

const RETRY_AFTER_S = "1";

/** `status`: the code's own, unless HTTP has a more telling one (404 for no such route, 405, 426, 501). */
export function problemResponse(
  problem: Problem,
  status: ContentfulStatusCode = ERROR_CODES[problem.code].status,
): Response {
  const { code, message: detail, isRetriable: retriable, facts } = problem;
  const headers = new Headers({ "content-type": "application/problem+json" });
  if (retriable) headers.set("retry-after", RETRY_AFTER_S);
  return new Response(JSON.stringify({ ...facts, status, code, detail, retriable }), { status, headers });
}
