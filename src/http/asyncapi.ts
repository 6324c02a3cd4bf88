// GET /v1/stream described as AsyncAPI 3.0, from the schemas of its frames. "receive" and "send" are the server's.

import type * as v from "valibot";
import { CLOSE_CODES } from "../protocol/codes.ts";
import type { ClientFrame, ServerFrame } from "../protocol/frames.ts";
import { CLIENT_FRAME_BYTES_MAX } from "../protocol/limits.ts";
import { CLIENT_FRAME_SCHEMAS } from "../protocol/schemas/client.ts";
import { SERVER_FRAME_SCHEMAS } from "../protocol/schemas/server.ts";
import { INFO } from "./description-info.ts";
import { describeSchema, type UnknownMembers } from "./json-schema.ts";
import { describeStreamQuery } from "./stream-query.ts";

/** A client's frames, and what answers each beside `error`; `ok` comes where the frame had an `id`. */
const CLIENT_FRAMES: Readonly<
  Record<ClientFrame["type"], { readonly summary: string; readonly answer: ServerFrame["type"] }>
> = {
  subscribe: { summary: "Joins a group, or reads without one", answer: "subscribed" },
  ack: { summary: "Commits what was processed", answer: "acked" },
  release: { summary: "Lets partitions that are being revoked go now", answer: "ok" },
  seek: { summary: "Moves the position in a partition, never the committed offset", answer: "assigned" },
  pause: { summary: "No records of these partitions until resume", answer: "ok" },
  resume: { summary: "Ends a pause", answer: "ok" },
  produce: { summary: "Appends records, all of them or none", answer: "produced" },
  transact: { summary: "Appends to several topics and commits, all of it or nothing", answer: "transacted" },
  unsubscribe: { summary: "Ends a subscription and its membership", answer: "unsubscribed" },
  pong: { summary: "The answer to ping", answer: "ok" },
};

/** The server's frames. Of these, what comes without being asked for is an operation of its own. */
const SERVER_FRAMES: Readonly<
  Record<ServerFrame["type"], { readonly summary: string; readonly isOnlyAnswer?: true }>
> = {
  subscribed: { summary: "The subscription is there" },
  assigned: { summary: "For these partitions all before is void: records follow from their positions" },
  records: { summary: "Records of one partition, in offset order" },
  acked: { summary: "What is committed now, entry by entry", isOnlyAnswer: true },
  revoked: { summary: "No records of these partitions follow" },
  unsubscribed: { summary: "The subscription has ended" },
  produced: { summary: "Where the records are; they are durable", isOnlyAnswer: true },
  transacted: { summary: "Where the records are; all of it is durable", isOnlyAnswer: true },
  ok: { summary: "The frame was taken", isOnlyAnswer: true },
  ping: { summary: "Answer with pong, or the socket is closed" },
  draining: { summary: "The server is about to close: finish and reconnect" },
  error: {
    summary: "A frame was refused, or something failed; the socket lives unless the code is bad_frame",
  },
};

const CLOSINGS: Readonly<Record<keyof typeof CLOSE_CODES, string>> = {
  normal: "The client is done",
  frameTooLarge: `A frame had more than ${CLIENT_FRAME_BYTES_MAX} bytes: do not come back with it`,
  draining: "The server stops: reconnect and resume",
  heartbeatMissed: "The pings went unanswered: reconnect and resume",
  slowDown: "The answers were not read: reconnect and resume",
  badFrame: "A frame could not be read: mend the client",
  unauthenticated: "The credentials are missing or wrong",
  forbidden: "The credentials do not allow this",
};

/** JSON. */
export function asyncapiText(): string {
  return JSON.stringify({
    asyncapi: "3.0.0",
    info: {
      ...INFO,
      description:
        "One socket carries any number of subscriptions. Every frame is one JSON object in a text frame.",
    },
    defaultContentType: "application/json",
    channels: { stream: describeChannel() },
    operations: describeOperations(),
    components: {
      messages: {
        ...describeMessages(CLIENT_FRAME_SCHEMAS, CLIENT_FRAMES, "refused"),
        ...describeMessages(SERVER_FRAME_SCHEMAS, SERVER_FRAMES, "ignored"),
      },
    },
  });
}

function describeChannel() {
  const types = [...typesOf(CLIENT_FRAMES), ...typesOf(SERVER_FRAMES)];
  return {
    address: "/v1/stream",
    description:
      "The client speaks first. Query parameters stand for a first subscribe frame; without any there is none.",
    messages: Object.fromEntries(types.map((type) => [type, { $ref: `#/components/messages/${type}` }])),
    bindings: {
      ws: {
        method: "GET",
        query: { type: "object", properties: describeStreamQuery(), additionalProperties: false },
        bindingVersion: "0.1.0",
      },
    },
    "x-close-codes": typesOf(CLOSE_CODES).map((name) => ({
      code: CLOSE_CODES[name],
      name,
      description: CLOSINGS[name],
    })),
  };
}

function describeOperations() {
  const received = typesOf(CLIENT_FRAMES).map((type) => [type, describeReceived(type)]);
  const sent = typesOf(SERVER_FRAMES)
    .filter((type) => !SERVER_FRAMES[type].isOnlyAnswer)
    .map((type) => [type, describeSent(type)]);
  return Object.fromEntries([...received, ...sent]);
}

function describeReceived(type: ClientFrame["type"]) {
  const { summary, answer } = CLIENT_FRAMES[type];
  return { ...operation("receive", type), summary, reply: reply([answer, "error"]) };
}

function describeSent(type: ServerFrame["type"]) {
  const { summary } = SERVER_FRAMES[type];
  return { ...operation("send", type), summary, ...(type === "ping" && { reply: reply(["pong"]) }) };
}

function operation(action: "receive" | "send", type: FrameType) {
  return { action, channel: CHANNEL, messages: [messageInChannel(type)] };
}

function reply(types: readonly FrameType[]) {
  return { channel: CHANNEL, messages: types.map(messageInChannel) };
}

type FrameType = ClientFrame["type"] | ServerFrame["type"];

const CHANNEL = { $ref: "#/channels/stream" };

function messageInChannel(type: FrameType) {
  return { $ref: `#/channels/stream/messages/${type}` };
}

function describeMessages<Type extends FrameType>(
  schemas: Readonly<Record<Type, v.GenericSchema & { readonly entries: object }>>,
  frames: Readonly<Record<Type, { readonly summary: string }>>,
  unknownMembers: UnknownMembers,
) {
  return Object.fromEntries(
    typesOf(schemas).map((type) => [
      type,
      {
        name: type,
        summary: frames[type].summary,
        ...("id" in schemas[type].entries && { correlationId: { location: "$message.payload#/id" } }),
        payload: describeSchema(schemas[type], unknownMembers),
      },
    ]),
  );
}

function typesOf<Type extends string>(byType: Readonly<Record<Type, unknown>>): readonly Type[] {
  return Object.keys(byType) as Type[]; // of constants that have no other keys
}
