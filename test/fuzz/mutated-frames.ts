// Frames as they come from clients that mean well, from clients with a bug, and from nobody's client, by a seed.
//
// Of 20 frames 5 are good, 10 are good ones changed as JSON (at one to three places), and 5 changed as text, half of
// those as JSON before. So at least 15 of 20 are valid JSON, and more than the 5 good ones pass the schema: much of what
// is changed (numbers, names, the order of members, white space) is still allowed.

import { Dice } from "../support/dice.ts";
import { type Facts, goodFrame, NO_FACTS } from "./good-frames.ts";
import { textOf, treeOf } from "./json-tree.ts";
import { mutateText } from "./text-mutations.ts";
import { mutateTree } from "./tree-mutations.ts";

type Kind = "good" | "tree" | "text" | "both";

const MIX: readonly (readonly [number, Kind])[] = [
  [10, "good"],
  [20, "tree"],
  [5, "text"],
  [5, "both"],
];

export class MutatedFrames {
  readonly #dice: Dice;

  constructor(seed: number) {
    this.#dice = new Dice(seed);
  }

  next(facts: Facts = NO_FACTS): string {
    const dice = this.#dice;
    const kind = dice.weighted(MIX);
    const tree = treeOf(goodFrame(dice, facts));
    const changes = kind === "tree" || kind === "both" ? 1 + dice.below(3) : 0;
    for (let change = 0; change < changes; change += 1) mutateTree(dice, tree);
    const text = textOf(tree);
    return kind === "text" || kind === "both" ? mutateText(dice, text) : text;
  }
}
