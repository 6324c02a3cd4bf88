import type * as v from "valibot";
import { findAmbiguity, foundInstead, type JsonObject, parseJsonObject } from "../core/json-object.ts";
import { decodeUtf8 } from "../core/json-text.ts";
import { Problem } from "../core/problem.ts";
import { BATCH_BYTES_MAX } from "../protocol/limits.ts";
import { judge } from "../protocol/schemas/verdict.ts";

/** The body as text. Throws `batch_too_large`, before it is all in memory, and `bad_request` where it is not UTF-8. */
export async function readBody(request: Request): Promise<string> {
  const announced = Number(request.headers.get("content-length") ?? Number.NaN);
  if (announced > BATCH_BYTES_MAX) throw bodyTooLarge(announced);
  return decodeUtf8(await readBytes(request, Number.isNaN(announced)));
}

/** `what`: how an error calls the body, e.g. "settings of the topic". Throws `bad_request`. */
export function parseBodyObject(body: string, what: string, depthMax?: number): JsonObject {
  const input = parseObject(body, what);
  const ambiguity = findAmbiguity(body, depthMax);
  if (ambiguity !== undefined) throw refusedBody(what, ambiguity);
  return input;
}

/** Members that stand twice are for the caller to find. */
export function parseObject(body: string, what: string): JsonObject {
  const input = parseJsonObject(body);
  if (input) return input;
  throw new Problem("bad_request", `The ${what} must be one JSON object, found ${foundInstead(body)}`);
}

/** Throws `bad_request`, and names the member. */
export function checkBody<const Schema extends v.GenericSchema>(
  schema: Schema,
  input: JsonObject,
  what: string,
): v.InferOutput<Schema> {
  const verdict = judge(schema, input);
  switch (verdict.kind) {
    case "valid":
      return verdict.output;
    case "unknownMember":
      throw refusedBody(what, `there is no member "${verdict.member}"`);
    case "misfit":
    case "notAllowed":
      throw refusedBody(what, verdict.why);
  }
}

export function refusedBody(what: string, why: string): Problem {
  return new Problem("bad_request", `Cannot take the ${what}: ${why}`);
}

/** An announced length is what the runtime reads; without one the body is counted as it comes. */
async function readBytes(request: Request, isCounted: boolean): Promise<Uint8Array> {
  try {
    return isCounted ? await readCounted(request) : new Uint8Array(await request.arrayBuffer());
  } catch (error) {
    if (error instanceof Problem) throw error;
    throw new Problem("bad_request", "The connection ended before the body was whole; nothing was done");
  }
}

async function readCounted(request: Request): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  // Not cancelled: what happens to the rest is the runtime's to say.
  for await (const chunk of request.body?.values({ preventCancel: true }) ?? []) {
    bytes += chunk.length;
    if (bytes > BATCH_BYTES_MAX) throw bodyTooLarge(bytes);
    chunks.push(chunk);
  }
  return joined(chunks, bytes);
}

function joined(chunks: readonly Uint8Array[], bytes: number): Uint8Array {
  const body = new Uint8Array(bytes);
  let at = 0;
  for (const chunk of chunks) {
    body.set(chunk, at);
    at += chunk.length;
  }
  return body;
}

function bodyTooLarge(found: number): Problem {
  return new Problem(
    "batch_too_large",
    `The body has ${found} bytes or more, at most ${BATCH_BYTES_MAX} are allowed`,
    {
      found,
      allowed: BATCH_BYTES_MAX,
    },
  );
}
