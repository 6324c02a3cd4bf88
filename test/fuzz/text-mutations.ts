// Mutations of a frame as text: seldom valid JSON afterwards.

import type { Dice } from "../support/dice.ts";

export type TextMutation = (dice: Dice, text: string) => string;

/** It stays the same JSON. */
const SPACES: readonly string[] = [" ", "\t", "\n", "\r\n", "  \n\t "];

/** What looks like white space, or like JSON, to somebody. */
const INSERTS: readonly string[] = [
  "\u0000",
  "\ufeff",
  "\u00a0",
  "\u000b",
  "\u2028",
  "\ud800",
  "\udc00",
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  '"',
  "\\",
  "\\u12",
  "\\ud800",
  "//",
  "/**/",
  "NaN",
  "Infinity",
  "undefined",
  "'",
  "0x10",
  "01",
  "+1",
  "1.",
  ".5",
  "1e",
  "-",
];

const MUTATIONS: readonly (readonly [number, TextMutation])[] = [
  [3, (dice, text) => text.slice(0, dice.below(text.length + 1))],
  [2, (dice, text) => text.slice(dice.below(text.length + 1))],
  [3, (dice, text) => spliced(text, dice.below(text.length + 1), { cut: 1 + dice.below(20), insert: "" })],
  [5, (dice, text) => spliced(text, dice.below(text.length + 1), { cut: 0, insert: dice.pick(INSERTS) })],
  [4, flipped],
  [8, spaced],
  [1, (_, text) => `\ufeff${text}`],
  [1, (_, text) => text + text],
  [1, (_, text) => `[${text}]`],
  [1, (_, text) => JSON.stringify(text)],
  [1, (_, text) => text.replaceAll('"', "'")],
  [1, (_, text) => text.replace("{", "{,")],
  [1, (_, text) => text.replace(/\}$/, ",}")],
  [1, utf16AsBytes],
  [1, utf8AsLatin1],
  [1, (dice, text) => dice.pick(["", " ", "null", "0", '""', "[]", "{}", `{"type":${text}}`])],
];

export function mutateText(dice: Dice, text: string): string {
  return dice.weighted(MUTATIONS)(dice, text);
}

function spliced(text: string, at: number, { cut, insert }: { cut: number; insert: string }): string {
  return text.slice(0, at) + insert + text.slice(at + cut);
}

/** One bit of one character. */
function flipped(dice: Dice, text: string): string {
  if (text === "") return text;
  const at = dice.below(text.length);
  const insert = String.fromCharCode(text.charCodeAt(at) ^ (1 << dice.below(7)));
  return spliced(text, at, { cut: 1, insert });
}

/** Mostly between tokens, where it means nothing. */
function spaced(dice: Dice, text: string): string {
  const space = dice.pick(SPACES);
  switch (dice.below(4)) {
    case 0:
      return space + text + space;
    case 1:
      return text.replace(/^\{/, `{${space}`).replace(/\}$/, `${space}}`);
    case 2:
      return text.replaceAll('":', `"${space}:${space}`);
    default:
      return text.replace('{"type', `{${space}"type`);
  }
}

/** UTF-16 that somebody has read as bytes: a NUL behind every character. */
function utf16AsBytes(_: Dice, text: string): string {
  return Buffer.from(text, "utf16le").toString("latin1");
}

function utf8AsLatin1(_: Dice, text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}
