import { expect, test } from "bun:test";
import { type Deed, findTwoKeepers } from "./keepers.ts";

/** `100 1 take`. */
function deeds(...lines: readonly string[]): readonly Deed[] {
  return lines.map((line) => {
    const [atMs, server, what] = line.split(" ");
    return { atMs: Number(atMs), server: Number(server), what: what as Deed["what"] };
  });
}

test("findTwoKeepers() lets servers take turns, and one take over when the lease is over", () => {
  const turns = ["0 1 take", "5 1 step", "10 2 take", "20 1 end", "21 2 take", "30 2 step", "40 2 step"];
  expect(findTwoKeepers(deeds(...turns))).toEqual([]);
  expect(findTwoKeepers(deeds(...turns, "10021 1 step"))).toEqual([]);
});

test("findTwoKeepers() finds one that does a step while another has the lease, or has renewed it", () => {
  const wrong = "server 2 does upkeep while server 1 has the lease for 9980 ms more";
  expect(findTwoKeepers(deeds("0 1 take", "5 1 step", "10 2 take", "20 2 step"))).toEqual([wrong]);
  const renewed = deeds("0 1 take", "5 1 step", "3400 1 take", "3405 1 step", "10000 2 step");
  expect(findTwoKeepers(renewed)).toHaveLength(1);
});
