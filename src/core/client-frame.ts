// A client's frame: from text, or from the URL that stands for a subscribe frame, to a ClientFrame or to why not.

import type { ClientFrame, FrameId } from "../protocol/frames.ts";
import { CLIENT_FRAME_SCHEMAS, excerpt, frameIdSchema, judge, type Verdict } from "../protocol/schemas.ts";
import { findAmbiguity, type JsonObject, parseJsonObject } from "./json-object.ts";
import { Problem } from "./problem.ts";

/** A problem of the code `bad_frame` closes the socket; any other is answered. */
export type ParsedFrame = { readonly frame: ClientFrame } | RefusedFrame;

interface RefusedFrame {
  readonly problem: Problem;
  readonly id: FrameId | undefined;
}

/** In the protocol and not in this server yet. */
const NOT_BUILT_TYPES = new Set(["auth", "release", "seek", "pause", "resume", "produce", "transact"]);
const NOT_BUILT_MEMBERS = new Set(["from", "ackTimeoutMs"]);

export function parseClientFrame(text: string): ParsedFrame {
  const input = parseJsonObject(text);
  if (!input) return badFrame("A frame must be one JSON object");
  const parsed = checkFrame(input);
  if ("problem" in parsed) return parsed;
  const ambiguity = findAmbiguity(text);
  return ambiguity === undefined ? parsed : refused(input, ambiguity);
}

/** `?topic=orders&group=billing&reset=latest` is a subscribe frame; undefined where there are no parameters. */
export function parseSubscribeQuery(query: URLSearchParams): ParsedFrame | undefined {
  if (query.size === 0) return undefined;
  const members = new Map<string, unknown>([
    ["type", "subscribe"],
    ["topics", query.getAll("topic")],
  ]);
  for (const [name, value] of query) {
    if (name === "topic") continue;
    if (members.has(name)) {
      return refused(Object.fromEntries(members), `the URL cannot give "${excerpt(name)}" here, or twice`);
    }
    members.set(name, name === "sessionTimeoutMs" ? Number(value) : value);
  }
  return checkFrame(Object.fromEntries(members));
}

function checkFrame(input: JsonObject): ParsedFrame {
  const { type } = input;
  if (typeof type !== "string") return badFrame('A frame must have a "type" that is a string', input);
  if (NOT_BUILT_TYPES.has(type)) return refused(input, "this frame is not built yet");
  if (!isKnownType(type)) return badFrame(`There is no frame of the type "${excerpt(type)}"`, input);
  if (type === "subscribe" && input.group === undefined) {
    return refused(input, "a subscription without a group (a reader) is not built yet");
  }
  if (namesTimePolicy(input.reset))
    return refused(input, '"reset" by {"ago"} or {"timestamp"} is not built yet');
  return frameOf(input, judge(CLIENT_FRAME_SCHEMAS[type], input));
}

/** Two levels and no deeper: what a client sends may nest for ever, and a walk of it would end the process. */
function namesTimePolicy(reset: unknown): boolean {
  if (!isObject(reset)) return false;
  return [reset, reset.missing, reset.outOfRange].some(
    (policy) => isObject(policy) && ("ago" in policy || "timestamp" in policy),
  );
}

function isObject(input: unknown): input is JsonObject {
  return typeof input === "object" && input !== null;
}

function frameOf(input: JsonObject, verdict: Verdict<ClientFrame>): ParsedFrame {
  switch (verdict.kind) {
    case "valid":
      return { frame: verdict.output };
    case "misfit":
      return badFrame(`Cannot read the "${excerpt(String(input.type))}" frame: ${verdict.why}`, input);
    case "unknownMember":
      return refused(input, unknownMember(verdict.member));
    case "notAllowed":
      return refused(input, verdict.why);
  }
}

function unknownMember(member: string): string {
  return NOT_BUILT_MEMBERS.has(member)
    ? `the member "${member}" is not built yet`
    : `there is no member "${member}"`;
}

function refused(input: JsonObject, why: string): RefusedFrame {
  const problem = new Problem(
    "bad_request",
    `Cannot take the "${excerpt(String(input.type))}" frame: ${why}`,
  );
  return { problem, id: idOf(input) };
}

function badFrame(message: string, input: JsonObject = {}): RefusedFrame {
  return { problem: new Problem("bad_frame", message), id: idOf(input) };
}

/** Only an id that is allowed can be said again as it was. */
function idOf({ id }: JsonObject): FrameId | undefined {
  const verdict = judge(frameIdSchema, id);
  return verdict.kind === "valid" ? verdict.output : undefined;
}

function isKnownType(type: string): type is ClientFrame["type"] {
  return Object.hasOwn(CLIENT_FRAME_SCHEMAS, type);
}
