// The HTTP side of the server under test.

import assert from "node:assert/strict";
import { assertMatches, show } from "./match.ts";

/** An answer that takes longer fails its check, with what was asked. */
const PATIENCE_MS = 20_000;
const DETAIL_CHARACTERS_MAX = 400;
const PIECE_BYTES = 65_536;

/** Of the server under test. */
interface Host {
  readonly url: string;
}

export interface Answer {
  readonly asked: string;
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** Its JSON; undefined where the text is empty. */
  // biome-ignore lint/suspicious/noExplicitAny: a check says by its expectations what it wants to find
  readonly body: any;
}

interface Asked {
  readonly headers?: Readonly<Record<string, string>>;
}

/** `body`: text or bytes as they are, anything else as JSON. */
export async function call(
  { url }: Host,
  method: string,
  path: string,
  body?: unknown,
  { headers = {} }: Asked = {},
): Promise<Answer> {
  const asked = `${method} ${path}`;
  const isReady = body === undefined || typeof body === "string" || body instanceof Uint8Array;
  const sent = isReady ? body : JSON.stringify(body);
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const init = { method, headers, signal, ...(sent === undefined ? {} : { body: sent }) };
  return answerOf(asked, await fetch(url + path, init));
}

/** A POST whose body is a stream, so that its length is not announced. */
export async function callInPieces({ url }: Host, path: string, body: string): Promise<Answer> {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const init = { method: "POST", signal, ...streamed(piecesOf(body)) };
  return answerOf(`POST ${path} in pieces`, await fetch(url + path, init));
}

/** What fetch takes for a body; the DOM's type does not know `duplex`, without which a stream is none. */
export function streamed(body: ReadableStream<Uint8Array>): RequestInit {
  return { body, duplex: "half" } as RequestInit;
}

function piecesOf(body: string): ReadableStream<Uint8Array> {
  const bytes = new TextEncoder().encode(body);
  let at = 0;
  return new ReadableStream({
    pull: (controller) => {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.subarray(at, at + PIECE_BYTES));
      at += PIECE_BYTES;
    },
  });
}

async function answerOf(asked: string, response: Response): Promise<Answer> {
  const text = await response.text();
  return { asked, status: response.status, headers: response.headers, text, body: parsed(text) };
}

/** The body of an answer that must have that status. */
export function bodyOf({ asked, status, text, body }: Answer, expected = 200) {
  assert.equal(status, expected, `${asked}: ${status} ${text.slice(0, DETAIL_CHARACTERS_MAX)}`);
  return body;
}

/** An error as every error is, with this status, this code and these facts. */
export function assertRefused(answer: Answer, status: number, code: string, facts: object = {}): void {
  const { asked, body, headers } = answer;
  assert.equal(answer.status, status, `${asked}: ${answer.status} ${show(body)}`);
  assert.match(headers.get("content-type") ?? "", /^application\/problem\+json\b/, asked);
  assertMatches(body, { status, code, retriable: false, ...facts });
  assert.equal(typeof body.detail, "string", asked);
  assert.ok(body.detail.length > 10 && body.detail.length <= DETAIL_CHARACTERS_MAX, show(body));
}

/** For what is no JSON, as of another server that answers in this one's place. */
function parsed(text: string): unknown {
  try {
    return text === "" ? undefined : JSON.parse(text);
  } catch {
    return { notJson: text };
  }
}
