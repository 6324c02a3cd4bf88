// What stands below a frame's text: RFC 6455 frames as no client should send them, and as few do.

import type { Dice } from "../support/dice.ts";
import { frameBytes, OPCODE } from "../support/raw-socket.ts";

export interface RawFrames {
  readonly what: string;
  readonly bytes: Buffer;
  /** Of the server's close frame; undefined where it answers the end of the connection and nothing before. */
  readonly code: number | undefined;
  /** A text that must be among the answers. */
  readonly answer?: string;
}

type Make = (dice: Dice) => Omit<RawFrames, "what">;

const PONG = '{"type":"pong","id":"raw"}';
const OK = '{"type":"ok","id":"raw"}';

const PROTOCOL_ERROR = 1002;
const NOT_UTF8 = 1007;
const TOO_LARGE = 1009;
const BAD_FRAME = 4400;

const NOT_UTF8_BYTES: readonly (readonly number[])[] = [
  [0x7b, 0xff, 0x7d],
  [0xc0, 0x80], // an overlong NUL
  [0xed, 0xa0, 0x80], // a surrogate
  [0xf4, 0x90, 0x80, 0x80], // above U+10FFFF
  [0xe2, 0x82], // cut off
];

const KINDS: Readonly<Record<string, Make>> = {
  "a binary frame": () => ({ bytes: frameBytes(OPCODE.binary, PONG), code: BAD_FRAME }),
  "an empty text": () => ({ bytes: frameBytes(OPCODE.text, ""), code: BAD_FRAME }),
  "a text in parts, with control frames between": (dice) => ({
    bytes: inParts(dice),
    code: undefined,
    answer: OK,
  }),
  "bytes that are not UTF-8": (dice) => ({
    bytes: frameBytes(OPCODE.text, Uint8Array.from(dice.pick(NOT_UTF8_BYTES))),
    code: NOT_UTF8,
  }),
  "an unmasked frame": () => ({
    bytes: frameBytes(OPCODE.text, PONG, { isMasked: false }),
    code: PROTOCOL_ERROR,
  }),
  "a length far above the limit": (dice) => ({
    bytes: frameBytes(OPCODE.text, "", {
      declaredLength: dice.pick([2n ** 24n, 2n ** 32n, 2n ** 63n, 2n ** 64n - 1n]),
    }),
    code: TOO_LARGE,
  }),
  "a ping of 125 bytes": () => ({
    bytes: Buffer.concat([frameBytes(OPCODE.ping, "p".repeat(125)), frameBytes(OPCODE.text, PONG)]),
    code: undefined,
    answer: OK,
  }),
  "a pong that nobody asked for": () => ({
    bytes: Buffer.concat([frameBytes(OPCODE.pong, "p"), frameBytes(OPCODE.text, PONG)]),
    code: undefined,
    answer: OK,
  }),
  "a control frame of more than 125 bytes": (dice) => ({
    bytes: frameBytes(controlOf(dice), "p".repeat(126 + dice.below(70_000))),
    code: PROTOCOL_ERROR,
  }),
  "a control frame in parts": (dice) => ({
    bytes: frameBytes(controlOf(dice), "p", { isFinal: false }),
    code: PROTOCOL_ERROR,
  }),
  "an opcode that is none": (dice) => ({
    bytes: frameBytes(dice.pick([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]), PONG),
    code: PROTOCOL_ERROR,
  }),
  "a reserved bit": (dice) => ({
    bytes: frameBytes(OPCODE.text, PONG, { reserved: 1 + dice.below(7) }),
    code: PROTOCOL_ERROR,
  }),
  "a part of nothing": () => ({ bytes: frameBytes(OPCODE.continuation, PONG), code: PROTOCOL_ERROR }),
  "a text inside a text": () => ({
    bytes: Buffer.concat([frameBytes(OPCODE.text, "{", { isFinal: false }), frameBytes(OPCODE.text, PONG)]),
    code: PROTOCOL_ERROR,
  }),
  "a close with a code that is none": (dice) => ({
    bytes: closeOf(dice.pick([0, 999, 1005, 1006])),
    code: PROTOCOL_ERROR,
  }),
  "half a close code": () => ({ bytes: frameBytes(OPCODE.close, "x"), code: PROTOCOL_ERROR }),
  "a close, and more behind it": () => ({
    bytes: Buffer.concat([closeOf(1_000), frameBytes(OPCODE.text, PONG)]),
    code: 1_000,
  }),
  "half a frame": (dice) => ({
    bytes: frameBytes(OPCODE.text, PONG).subarray(0, 1 + dice.below(30)),
    code: undefined,
  }),
  "an HTTP request": () => ({ bytes: Buffer.from("GET / HTTP/1.1\r\n\r\n"), code: PROTOCOL_ERROR }),
};

export const RAW_KINDS = Object.keys(KINDS);

export function rawFrames(dice: Dice, what: string): RawFrames {
  const make = KINDS[what];
  if (!make) throw new RangeError(`there is no ${what}`);
  return { what, ...make(dice) };
}

function controlOf(dice: Dice): number {
  return dice.pick([OPCODE.close, OPCODE.ping, OPCODE.pong]);
}

function closeOf(code: number): Buffer {
  return frameBytes(OPCODE.close, Uint8Array.from([code >> 8, code & 0xff]));
}

function inParts(dice: Dice): Buffer {
  const parts: Buffer[] = [];
  let opcode: number = OPCODE.text;
  for (let at = 0; at < PONG.length; opcode = OPCODE.continuation) {
    const end = at + 1 + dice.below(8);
    parts.push(frameBytes(opcode, PONG.slice(at, end), { isFinal: end >= PONG.length }));
    if (end < PONG.length && dice.oneIn(3)) parts.push(frameBytes(OPCODE.ping, "p"));
    at = end;
  }
  return Buffer.concat(parts);
}
