// Mutations of a frame as JSON: it stays valid JSON, and may stop being a frame.

import type { Dice } from "../support/dice.ts";
import {
  type JsonNode,
  nodeAt,
  removeAt,
  replaceAt,
  type ScalarNode,
  type Slot,
  scalar,
  slotsOf,
  textOf,
  treeOf,
} from "./json-tree.ts";

const LONG_CHARACTERS = 5_000;
const LONG_NAME_CHARACTERS = 1_000;
const HUGE_ARRAY_ITEMS = 10_001;

/** Changes the tree in place, at one place below its root. */
export function mutateTree(dice: Dice, root: JsonNode): void {
  const slots = slotsOf(root);
  if (slots.length === 0) return;
  dice.weighted(MUTATIONS)(dice, dice.pick(slots));
}

type Mutation = (dice: Dice, slot: Slot) => void;

const MUTATIONS: readonly (readonly [number, Mutation])[] = [
  [4, (_, slot) => removeAt(slot)],
  [3, (dice, slot) => double(dice, slot)],
  [4, (dice, slot) => rename(dice, slot)],
  [4, (dice, slot) => replaceAt(slot, dice.pick(OTHER_TYPES)())],
  [10, (dice, slot) => replaceAt(slot, boundaryOf(dice, slot))],
  [3, (dice, slot) => addMember(dice, slot)],
  [2, (_, slot) => slot.parent.kind === "array" && slot.parent.items.reverse()],
  [2, (_, slot) => slot.parent.kind === "object" && slot.parent.members.reverse()],
];

// ── shape ────────────────────────────────────────────────────────────────────────────────────────────────

const OTHER_TYPES: readonly (() => JsonNode)[] = [
  () => scalar(null),
  () => scalar(true),
  () => scalar(7),
  () => scalar("7"),
  () => treeOf([]),
  () => treeOf({}),
  () => treeOf([7]),
  () => treeOf({ length: 1, "0": "orders" }),
];

/** An item or member once more, often not the same: which of two counts? */
function double(dice: Dice, slot: Slot): void {
  const node = dice.oneIn(2) ? nodeAt(slot) : dice.pick(OTHER_TYPES)();
  if (slot.at === "item") slot.parent.items.splice(dice.below(slot.index + 2), 0, node);
  else slot.parent.members.push({ name: slot.parent.members[slot.index]?.name ?? "", node });
}

/** Names that mean something to JavaScript, to JSON, to SQLite or to nobody. */
const ODD_NAMES: readonly string[] = [
  "__proto__",
  "constructor",
  "toString",
  "hasOwnProperty",
  "then",
  "toJSON",
  "length",
  "",
  "a\u0000b",
  "\ud800",
  "type",
  "id",
  "Type",
  "ID",
  "offset",
  "$.a",
  "a.b",
  "n".repeat(LONG_NAME_CHARACTERS),
];

function rename(dice: Dice, slot: Slot): void {
  if (slot.at !== "member") return removeAt(slot);
  const member = slot.parent.members[slot.index];
  if (member) member.name = dice.pick(ODD_NAMES);
}

function addMember(dice: Dice, slot: Slot): void {
  const node = dice.pick(OTHER_TYPES)();
  if (slot.at === "member") slot.parent.members.push({ name: dice.pick(ODD_NAMES), node });
  else slot.parent.items.push(node);
}

// ── values ───────────────────────────────────────────────────────────────────────────────────────────────

const NUMBERS: readonly string[] = [
  "-1",
  "0",
  "-0",
  "1",
  "0.5",
  "1.0",
  "1e0",
  "9007199254740991",
  "9007199254740992",
  "9007199254740993",
  "-9007199254740992",
  "1e400",
  "-1e400",
  "1e-400",
  "0.99999999999999999999",
  "18446744073709551616",
  "2147483648",
  "10000",
  "10001",
  `1${"0".repeat(400)}`,
];

const TEXTS: readonly string[] = [
  "",
  ".",
  "..",
  "a b",
  "\u0000",
  "a\u0000b",
  "\ud800",
  "\udc00\ud800",
  "\ufeff",
  "\u2028\u2029\u202e",
  "ı̇İ",
  "\ud83d\ude00",
  "' OR 1=1 --",
  "%s%n",
  "earliest",
  "latest",
  "current",
  "none",
  "Earliest",
  "AA=",
  "AAE",
  "A",
  "__proto__",
];

function boundaryOf(dice: Dice, slot: Slot): JsonNode {
  const node = nodeAt(slot);
  if (node.kind !== "scalar") return dice.oneIn(150) ? nested(1 + dice.below(20_000)) : blownUp(dice, node);
  if (/^[-0-9]/.test(node.text)) return { kind: "scalar", text: dice.pick(NUMBERS) };
  return node.text.startsWith('"') ? oddText(dice, node) : dice.pick(OTHER_TYPES)();
}

function oddText(dice: Dice, { text }: ScalarNode): ScalarNode {
  switch (dice.below(8)) {
    case 0:
      return { kind: "scalar", text: `"${dice.pick(TEXTS)}"`.replaceAll("\u0000", "\\u0000") }; // surrogates as they are
    case 1:
      return scalar(
        dice.pick(["x", "ü", "😀"]).repeat(1 + dice.below(dice.oneIn(8) ? LONG_CHARACTERS : 300)),
      );
    case 2:
      return scalar(
        "x".repeat(dice.oneIn(8) ? dice.pick([4_096, 4_097, 32_768, 32_769]) : dice.pick([249, 250])),
      );
    case 3:
      return { kind: "scalar", text: text.replace(/[a-z]/g, (letter) => escaped(letter)) };
    default:
      return scalar(dice.pick(TEXTS));
  }
}

/** The same string, said otherwise. */
function escaped(letter: string): string {
  return `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

function blownUp(dice: Dice, node: JsonNode): JsonNode {
  if (node.kind !== "array") return nested(1 + dice.below(dice.oneIn(4) ? 300 : 20));
  const [first = scalar(1)] = node.items;
  const isHuge = dice.oneIn(500) && textOf(first).length < 200;
  return { kind: "array", items: Array(isHuge ? HUGE_ARRAY_ITEMS : dice.below(30)).fill(first) };
}

/** By text: no function that calls itself could write it. */
function nested(depth: number): ScalarNode {
  return { kind: "scalar", text: "[".repeat(depth) + "]".repeat(depth) };
}
