// What becomes of a producer's frames, as transcripts: an event, and what is to be done. producer-model.test.ts looks for
// the order of events that nobody has thought of.

import { expect, test } from "bun:test";
import { errorOf, type TidemarkError } from "../../clients/typescript/errors.ts";
import {
  emptyLane,
  type LaneEffect,
  type LaneEvent,
  type LaneItem,
  type LaneRules,
  type LaneState,
  type Written,
} from "../../clients/typescript/producer-lane.ts";
import { hasRoom, stepLane } from "../../clients/typescript/producer-step.ts";

interface Named extends LaneItem {
  readonly name: string;
}

const RULES: LaneRules = { isUp: true, isIdempotent: true, ownId: undefined };
const WRITTEN: Written = { isDuplicate: false };
const LOST = errorOf("connection_lost", "lost");
const REFUSED = errorOf("schema_violation", "Cannot produce records[3]", { facts: { record: 3 } });
const GAP = errorOf("sequence_gap", "gap");

class Lane {
  state: LaneState<Named> = emptyLane(0);
  readonly #rules: LaneRules;

  constructor(rules: Partial<LaneRules> = {}) {
    this.#rules = { ...RULES, ...rules };
  }

  /** Effects as words. */
  step(event: LaneEvent<Named, Written>): readonly string[] {
    const { state, effects } = stepLane(this.state, event, this.#rules);
    this.state = state;
    return effects.map(inWords);
  }

  take(...names: readonly string[]): readonly string[] {
    return this.step({ type: "taken", items: names.map((name) => ({ name, count: 2, tick: 7 })) });
  }

  answer(key: number, answer: Written | TidemarkError = WRITTEN): readonly string[] {
    return this.step({ type: "answered", key, answer });
  }
}

function inWords(effect: LaneEffect<Named, Written>): string {
  const names = (items: readonly Named[]) => items.map(({ name }) => name).join("+");
  switch (effect.type) {
    case "ask":
      return `ask ${effect.frame.epoch}/${effect.frame.sequence} ${names(effect.frame.items)}`;
    case "resolve":
      return `resolve ${names(effect.items)}`;
    case "reject":
      return `reject ${names(effect.items)}: ${effect.error.code} ${effect.error.facts.record ?? ""}`.trim();
    case "putBack":
      return `putBack ${names(effect.items)} alone ${names(effect.alone)}`.trim();
    case "pause":
      return `pause ${effect.failures}`;
    case "end":
      return `end ${effect.error.code}`;
  }
}

test("frames get sequences from 0 by 1 and answers in any order", () => {
  const lane = new Lane();
  expect([...lane.take("a"), ...lane.take("b")]).toEqual(["ask 0/0 a", "ask 0/1 b"]);
  expect(lane.answer(2)).toEqual(["resolve b"]);
  expect(lane.answer(1)).toEqual(["resolve a"]);
  expect(lane.answer(1)).toEqual([]);
});

test("hasRoom() counts from the oldest that is unanswered", () => {
  const lane = new Lane();
  for (const name of ["a", "b", "c"]) lane.take(name);
  expect(hasRoom(lane.state, 4)).toBe(true);
  lane.answer(2);
  lane.answer(3);
  expect(hasRoom(lane.state, 3)).toBe(false);
  lane.answer(1);
  expect(hasRoom(lane.state, 3)).toBe(true);
});

test("what was lost goes again under its sequence, when the connection is back", () => {
  const lane = new Lane({ isUp: false });
  lane.take("a");
  lane.take("b");
  expect([...lane.answer(1, LOST), ...lane.answer(2, LOST)]).toEqual([]);
  expect(hasRoom(lane.state, 5)).toBe(false);
  expect(lane.step({ type: "up" })).toEqual(["ask 0/0 a", "ask 0/1 b"]);
  expect(lane.answer(1, { isDuplicate: true })).toEqual(["resolve a"]);
});

test("what may be tried again waits for all answers, then for its pause, each longer than the last", () => {
  const lane = new Lane();
  lane.take("a");
  lane.take("b");
  expect(lane.answer(1, errorOf("unavailable", "busy"))).toEqual([]);
  expect(lane.answer(2, GAP)).toEqual(["pause 0"]);
  expect(lane.step({ type: "timer" })).toEqual(["ask 0/0 a", "ask 0/1 b"]);
  lane.answer(1, errorOf("storage_full", "full"));
  expect(lane.answer(2, GAP)).toEqual(["pause 1"]);
  expect(lane.step({ type: "up" })).toEqual(["ask 0/0 a", "ask 0/1 b"]);
  expect(lane.step({ type: "timer" })).toEqual([]);
});

test("a refusal that names a record takes its send alone; what is left is gathered anew from its sequence on", () => {
  const lane = new Lane();
  lane.take("a", "b", "c");
  lane.take("d");
  lane.answer(2, GAP);
  expect(lane.answer(1, REFUSED)).toEqual(["reject b: schema_violation 1", "putBack a+c+d alone"]);
  expect(lane.take("a", "c", "d")).toEqual(["ask 0/0 a+c+d"]);
});

test("a refusal that names none is looked for send by send; one of the whole is everybody's", () => {
  const lane = new Lane();
  lane.take("a", "b");
  expect(lane.answer(1, errorOf("bad_request", "no"))).toEqual(["putBack a+b alone a+b"]);
  lane.take("a", "b");
  expect(lane.answer(2, errorOf("unknown_topic", "no"))).toEqual([
    "reject a+b: unknown_topic",
    "putBack  alone",
  ]);
});

test("a refusal behind what may be tried again decides nothing yet", () => {
  const lane = new Lane();
  lane.take("a");
  lane.take("b");
  lane.answer(2, REFUSED);
  expect(lane.answer(1, errorOf("rate_limited", "wait"))).toEqual(["pause 0"]);
  expect(lane.step({ type: "timer" })).toEqual(["ask 0/0 a", "ask 0/1 b"]);
});

test("a refusal of what may have been written is outcome_unknown, and what follows has a new epoch", () => {
  const lane = new Lane();
  lane.take("a");
  lane.take("b");
  lane.answer(1, LOST);
  lane.answer(2, LOST);
  lane.step({ type: "up" });
  lane.answer(1, errorOf("bad_request", "no"));
  expect(lane.answer(2, GAP)).toEqual(["reject a: outcome_unknown", "putBack b alone"]);
  expect(lane.take("b")).toEqual(["ask 1/0 b"]);
});

test("of a user's own id no epoch is taken: it ends", () => {
  const lane = new Lane({ ownId: "mine" });
  lane.take("a");
  lane.answer(1, LOST);
  lane.step({ type: "up" });
  expect(lane.answer(1, errorOf("bad_request", "no"))).toEqual([
    "reject a: outcome_unknown",
    "putBack  alone",
    "end conflict",
  ]);
  expect(hasRoom(lane.state, 5)).toBe(false);
});

test("a gap with nothing before it is a new epoch, or the end of a user's own id", () => {
  for (const ownId of [undefined, "mine"]) {
    const lane = new Lane({ ownId });
    lane.take("a");
    lane.answer(1);
    lane.take("b");
    const done = lane.answer(2, GAP);
    if (ownId) expect(done).toEqual(["reject b: sequence_gap", "end sequence_gap"]);
    else expect([...done, ...lane.take("b")]).toEqual(["putBack b alone", "ask 1/0 b"]);
  }
});

test("what was in doubt when the server forgot the id is never sent again", () => {
  const lane = new Lane();
  lane.take("a");
  lane.answer(1);
  lane.take("b");
  lane.take("c");
  lane.answer(2, errorOf("outcome_unknown", "away"));
  lane.answer(3, GAP);
  lane.step({ type: "timer" });
  lane.answer(2, GAP);
  expect(lane.answer(3, GAP)).toEqual(["reject b: outcome_unknown", "putBack c alone"]);
  expect(lane.take("c")).toEqual(["ask 1/0 c"]);
});

test("what the server failed at is in doubt, and all that is in doubt behind it", () => {
  const lane = new Lane();
  for (const name of ["a", "b", "c"]) lane.take(name);
  lane.answer(1, errorOf("internal", "defect"));
  lane.answer(2, errorOf("outcome_unknown", "away"));
  expect(lane.answer(3, GAP)).toEqual([
    "reject a: outcome_unknown",
    "reject b: outcome_unknown",
    "putBack c alone",
  ]);
  expect(lane.take("c")).toEqual(["ask 1/0 c"]);
});

test("what expires under way is in doubt; what had certainly come to nothing is not", () => {
  const lane = new Lane();
  lane.take("a");
  expect(lane.step({ type: "expired", tick: 6 })).toEqual([]);
  expect(lane.step({ type: "expired", tick: 7 })).toEqual(["reject a: outcome_unknown", "putBack  alone"]);
  lane.take("b");
  lane.answer(2, errorOf("storage_full", "full"));
  expect(lane.step({ type: "expired", tick: 7 })).toEqual(["reject b: storage_full", "putBack  alone"]);
  expect(lane.take("c")).toEqual(["ask 1/0 c"]);
});

test("a fenced producer ends, when all that was before it is answered", () => {
  const lane = new Lane();
  lane.take("a");
  lane.take("b");
  expect(lane.answer(2, errorOf("fenced_producer", "fenced"))).toEqual([]);
  expect(lane.answer(1)).toEqual(["resolve a", "reject b: fenced_producer", "end fenced_producer"]);
});

test("without idempotence what is in doubt is rejected and never sent again; the rest is", () => {
  const lane = new Lane({ isIdempotent: false });
  lane.take("a");
  lane.take("b");
  expect(lane.answer(1, LOST)).toEqual(["reject a: outcome_unknown"]);
  expect(lane.answer(2, errorOf("unavailable", "busy"))).toEqual(["pause 0"]);
  expect(lane.step({ type: "timer" })).toEqual(["ask 0/1 b"]);
});
