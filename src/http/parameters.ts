// What stands in the URL of a request. Whatever does not fit is `bad_request` and named.

import type { Context } from "hono";
import { parseDecimal } from "../core/decimal.ts";
import { type FetchPlace, parsePlace } from "../core/places.ts";
import { Problem } from "../core/problem.ts";
import { INTEGER_MAX } from "../protocol/limits.ts";
import { nameSchema } from "../protocol/schemas/client.ts";
import { excerpt, judge } from "../protocol/schemas/verdict.ts";
import type { AppEnv } from "./app.ts";

/** Throws `bad_request` where the path's parameter is no name. */
export function nameParam(c: Context<AppEnv>, noun: "topic" | "group" | "producer"): string {
  const name = c.req.param(noun) ?? "";
  const verdict = judge(nameSchema, name);
  if (verdict.kind === "valid") return name;
  throw new Problem(
    "bad_request",
    `"${excerpt(name)}" cannot name a ${noun}: a name is 1 to 249 characters of A-Z a-z 0-9 . _ -`,
  );
}

/** Which partitions a topic has is not judged here. */
export function partitionParam(c: Context<AppEnv>): number {
  const text = c.req.param("partition") ?? "";
  const partition = parseDecimal(text);
  if (partition !== undefined) return partition;
  throw new Problem("bad_request", `"${excerpt(text)}" cannot name a partition: they are numbered from 0`);
}

export function placeParam(c: Context<AppEnv>, name: string, fallback: FetchPlace): FetchPlace {
  const text = c.req.query(name);
  const place = text === undefined ? fallback : parsePlace(text);
  if (place) return place;
  throw refused(name, text, 'an offset, "earliest", "latest", or "@" and milliseconds since 1970');
}

/** There is no offset that goes without saying. */
export function offsetParam(c: Context<AppEnv>, name: string): number {
  const text = c.req.query(name);
  const offset = text === undefined ? undefined : parseDecimal(text);
  if (offset !== undefined) return offset;
  throw refused(name, text, `there, an offset from 0 to ${INTEGER_MAX}`);
}

export function integerParam(
  c: Context<AppEnv>,
  name: string,
  { min, max, fallback }: { readonly min: number; readonly max: number; readonly fallback: number },
): number {
  const text = c.req.query(name);
  const value = text === undefined ? fallback : parseDecimal(text);
  if (value !== undefined && value >= min && value <= max) return value;
  throw refused(name, text, `an integer from ${min} to ${max}`);
}

/** `hints`: what to say of a parameter that goes with something else. */
export function refuseOtherParameters(
  c: Context<AppEnv>,
  allowed: readonly string[] = [],
  hints: Readonly<Record<string, string>> = {},
): void {
  const parameters = Object.entries(c.req.queries());
  const twice = parameters.find(([, values]) => values.length > 1)?.[0];
  if (twice !== undefined)
    throw new Problem("bad_request", `The parameter "${excerpt(twice)}" is there twice`);
  const other = parameters.map(([name]) => name).find((name) => !allowed.includes(name));
  if (other === undefined) return;
  const hint = Object.hasOwn(hints, other) ? `: ${hints[other]}` : "";
  throw new Problem("bad_request", `There is no parameter "${excerpt(other)}" here${hint}`);
}

function refused(name: string, found: string | undefined, allowed: string): Problem {
  const what = found === undefined ? "nothing" : `"${excerpt(found)}"`;
  return new Problem("bad_request", `"${name}" must be ${allowed}, found ${what}`);
}
