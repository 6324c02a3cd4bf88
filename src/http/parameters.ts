// What stands in a request's path and query.

import type { Context } from "hono";
import { Problem } from "../core/problem.ts";
import { excerpt, judge, nameSchema } from "../protocol/schemas.ts";
import type { AppEnv } from "./app.ts";

/** Throws `bad_request` where the path's parameter is no name. */
export function nameParam(c: Context<AppEnv>, noun: "topic" | "group"): string {
  const name = c.req.param(noun) ?? "";
  const verdict = judge(nameSchema, name);
  if (verdict.kind === "valid") return name;
  throw new Problem(
    "bad_request",
    `"${excerpt(name)}" cannot name a ${noun}: a name is 1 to 249 characters of A-Z a-z 0-9 . _ -`,
  );
}

/** Nothing is accepted and ignored. */
export function refuseOtherParameters(c: Context<AppEnv>, allowed: readonly string[] = []): void {
  const parameters = Object.entries(c.req.queries());
  const twice = parameters.find(([, values]) => values.length > 1)?.[0];
  if (twice !== undefined)
    throw new Problem("bad_request", `The parameter "${excerpt(twice)}" is there twice`);
  const other = parameters.map(([name]) => name).find((name) => !allowed.includes(name));
  if (other === undefined) return;
  const hint = other === "key" ? ': it goes with "content-type: application/x-ndjson"' : "";
  throw new Problem("bad_request", `There is no parameter "${excerpt(other)}" here${hint}`);
}
