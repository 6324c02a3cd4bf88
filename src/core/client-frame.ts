// A client's frame: from text, or from the URL that stands for a subscribe frame, to a frame or to why not.

import type {
  ClientFrame,
  FrameId,
  ProduceFrame,
  SubscribeFrame,
  TransactFrame,
} from "../protocol/frames.ts";
import {
  CLIENT_FRAME_SCHEMAS,
  frameIdSchema,
  produceEnvelopeSchema,
  subscribeFrameSchema,
  transactFrameEnvelopeSchema,
} from "../protocol/schemas/client.ts";
import { excerpt, judge, type Verdict } from "../protocol/schemas/verdict.ts";
import { findAmbiguity, foundInstead, type JsonObject, parseJsonObject } from "./json-object.ts";
import { parsePlace } from "./places.ts";
import { Problem } from "./problem.ts";
import { readProduce, readTransaction, type Transaction } from "./transaction.ts";

/** A frame as the session takes it: records to produce are checked, and still the text that came. */
export type CheckedFrame =
  | Exclude<ClientFrame, ProduceFrame | TransactFrame>
  | (Pick<ProduceFrame | TransactFrame, "type" | "id"> & { readonly transaction: Transaction });

/** A problem of the code `bad_frame` closes the socket; any other is answered. */
export type ParsedFrame = { readonly frame: CheckedFrame } | RefusedFrame;

interface RefusedFrame {
  readonly problem: Problem;
  readonly id: FrameId | undefined;
}

/** In the protocol and not in this server yet. */
const NOT_BUILT_TYPES = new Set(["auth"]);

export function parseClientFrame(text: string): ParsedFrame {
  const input = parseJsonObject(text);
  if (!input) return badFrame(`A frame must be one JSON object, found ${foundInstead(text)}`);
  const { type } = input;
  if (typeof type !== "string") return badFrame('A frame must have a "type" that is a string', input);
  if (NOT_BUILT_TYPES.has(type)) return refused(input, "this frame is not built yet");
  if (type === "produce") return parseWrite(input, judge(produceEnvelopeSchema, input), readProduce, text);
  if (type === "transact")
    return parseWrite(input, judge(transactFrameEnvelopeSchema, input), readTransaction, text);
  if (!isKnownType(type)) return badFrame(`There is no frame of the type "${excerpt(type)}"`, input);
  const parsed = frameOf(input, judge(CLIENT_FRAME_SCHEMAS[type], input));
  if ("problem" in parsed) return parsed;
  const ambiguity = findAmbiguity(text);
  return ambiguity === undefined ? parsed : refused(input, ambiguity);
}

// ── produce, transact ────────────────────────────────────────────────────────────────────────────────────

/** What is wrong inside a record refuses all of them as over HTTP; the frame around it is judged as any other. */
function parseWrite<Envelope extends Pick<ProduceFrame | TransactFrame, "type" | "id">>(
  input: JsonObject,
  verdict: Verdict<Envelope>,
  read: (text: string, envelope: Envelope) => Transaction,
  text: string,
): ParsedFrame {
  if (verdict.kind !== "valid") return refusalOf(input, verdict);
  const { type, id } = verdict.output;
  try {
    return { frame: { type, id, transaction: read(text, verdict.output) } };
  } catch (error) {
    if (error instanceof Problem) return { problem: error, id: idOf(input) };
    throw error;
  }
}

// ── subscribe ────────────────────────────────────────────────────────────────────────────────────────────

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
    members.set(name, memberOfQuery(name, value));
  }
  const input = Object.fromEntries(members);
  return frameOf(input, judge(subscribeFrameSchema, input));
}

/** Numbers and places stand in a URL as `GET …/records` has them; what is none is left to the schema. */
function memberOfQuery(name: string, value: string): unknown {
  if (name === "sessionTimeoutMs" || name === "ackTimeoutMs") return Number(value);
  if (name === "from" || name === "reset") return parsePlace(value) ?? value;
  return value;
}

/** What the schema of its members cannot say: which of them go together. */
function misfitOf(frame: SubscribeFrame): string | undefined {
  const { group, from, ack } = frame;
  if (group === undefined) return misfitOfReader(frame);
  if (from !== undefined)
    return '"from" is for readers, a group starts from its committed offset: seek moves it';
  if (ack === "none" && frame.ackTimeoutMs !== undefined)
    return '"ackTimeoutMs" is for what is acknowledged, and "ack" is "none"';
  return undefined;
}

function misfitOfReader({ topics, from, reset, ...frame }: SubscribeFrame): string | undefined {
  if (from === undefined) return 'give "group", or "from" for a reader';
  const ofGroups = (["instanceId", "memberId", "ackTimeoutMs"] as const).find(
    (member) => frame[member] !== undefined,
  );
  if (ofGroups !== undefined) return `"${ofGroups}" is for members of a group, and there is no "group"`;
  if (typeof reset === "object" && "missing" in reset && reset.missing !== undefined)
    return '"reset.missing" is for groups: a reader has no committed offset';
  return Array.isArray(from) ? misfitOfStarts(topics, from) : undefined;
}

function misfitOfStarts(
  topics: readonly string[],
  starts: readonly { readonly topic: string; readonly partition: number }[],
): string | undefined {
  const stranger = starts.find(({ topic }) => !topics.includes(topic));
  if (stranger) return `"from" names the topic "${stranger.topic}", which is not in "topics"`;
  const names = new Set(starts.map(({ topic, partition }) => `${topic}/${partition}`));
  return names.size < starts.length ? '"from" must not name a partition twice' : undefined;
}

// ── verdicts ─────────────────────────────────────────────────────────────────────────────────────────────

function frameOf(input: JsonObject, verdict: Verdict<CheckedFrame>): ParsedFrame {
  return verdict.kind === "valid" ? checked(input, verdict.output) : refusalOf(input, verdict);
}

function refusalOf(
  input: JsonObject,
  verdict: Exclude<Verdict<unknown>, { readonly kind: "valid" }>,
): RefusedFrame {
  switch (verdict.kind) {
    case "misfit":
      return badFrame(`Cannot read the "${excerpt(String(input.type))}" frame: ${verdict.why}`, input);
    case "unknownMember":
      return refused(input, `there is no member "${verdict.member}"`);
    case "notAllowed":
      return refused(input, verdict.why);
  }
}

function checked(input: JsonObject, frame: CheckedFrame): ParsedFrame {
  const misfit = frame.type === "subscribe" ? misfitOf(frame) : undefined;
  return misfit === undefined ? { frame } : refused(input, misfit);
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

function isKnownType(type: string): type is Exclude<ClientFrame["type"], "produce" | "transact"> {
  return Object.hasOwn(CLIENT_FRAME_SCHEMAS, type);
}
