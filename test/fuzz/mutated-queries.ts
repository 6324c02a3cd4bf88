// Query strings of /v1/stream that stand for a subscribe frame: good ones, and good ones changed. At least half of them
// are left as they are made.

import type { Dice } from "../support/dice.ts";
import { mutateText } from "./text-mutations.ts";

const PARAMETERS: readonly (readonly [name: string, good: readonly string[]])[] = [
  ["topic", ["orders", "refunds"]],
  ["subscription", ["s1", "default"]],
  ["instanceId", ["tab-7"]],
  ["memberId", ["m-1"]],
  ["reset", ["earliest", "latest", "none", "@1740830400000"]],
  ["ack", ["manual", "none"]],
  ["sessionTimeoutMs", ["6000", "45000"]],
  ["ackTimeoutMs", ["100", "60000"]],
];

const ODD_NAMES = [
  "topics",
  "type",
  "window",
  "__proto__",
  "constructor",
  "",
  "id",
  "Group",
  "topic[]",
  "window.records",
];
const ODD_VALUES = [
  "",
  " ",
  "-1",
  "0",
  "1e9",
  "0x10",
  "NaN",
  "Infinity",
  "9007199254740993",
  "@",
  "@-1",
  "@1.5",
  "{}",
  "%",
  "😀",
  "\u0000",
];

export function mutatedQuery(dice: Dice): string {
  const query = goodQuery(dice);
  switch (dice.below(8)) {
    case 0:
      query.append(dice.pick(ODD_NAMES), dice.pick(ODD_VALUES));
      return String(query);
    case 1:
      query.set(dice.pick([...query.keys()]), dice.pick(ODD_VALUES));
      return String(query);
    case 2:
      query.append(dice.pick([...query.keys()]), dice.pick(["orders", "earliest", "6000"]));
      return String(query);
    case 3:
      return mutateText(dice, String(query));
    default:
      return String(query);
  }
}

function goodQuery(dice: Dice): URLSearchParams {
  const query = new URLSearchParams({ topic: "orders" });
  if (dice.oneIn(3)) query.append("from", dice.pick(["earliest", "latest", "0", "@0"]));
  else query.append("group", "billing");
  for (const [name, good] of PARAMETERS) if (dice.oneIn(5)) query.append(name, dice.pick(good));
  return query;
}
