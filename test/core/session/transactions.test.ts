import { describe, expect, test } from "bun:test";
import type { CheckedFrame } from "../../../src/core/client-frame.ts";
import { parseClientFrame } from "../../../src/core/client-frame.ts";
import { Problem } from "../../../src/core/problem.ts";
import { all, framesOf, lines, SessionScript, theOne, transacted } from "../../support/session-script.ts";

function produceFrame(id?: number): CheckedFrame {
  const records = [{ value: 1 }, { value: 2 }];
  const parsed = parseClientFrame(JSON.stringify({ type: "produce", id, topic: "orders", records }));
  if ("problem" in parsed) throw parsed.problem;
  return parsed.frame;
}

describe("produce", () => {
  test("needs no subscription, and is answered with its runs when they are durable", () => {
    const script = new SessionScript();
    const asked = script.receive(produceFrame(3));
    expect(lines(asked)).toEqual(["write 2 to orders"]);
    const effect = theOne(asked, "transact");
    const [append] = effect.transaction.appends;
    expect(append?.records.map(({ value }) => value)).toEqual(["1", "2"]);
    const run = { partition: 0, offset: 40, count: 2 };
    const written = { runs: [{ topic: "orders", ...run }] };
    expect(framesOf(script.step(transacted(effect, { written })))).toEqual([
      { type: "produced", id: 3, runs: [run] },
    ]);
  });

  test("without id is answered without id", () => {
    const script = new SessionScript();
    const effect = theOne(script.receive(produceFrame()), "transact");
    const [produced] = framesOf(script.step(transacted(effect, { written: { runs: [] } })));
    expect(produced).toEqual({ type: "produced", runs: [] });
  });

  test("that is refused is an error with its id, and the socket lives", () => {
    const script = new SessionScript();
    const effect = theOne(script.receive(produceFrame(3)), "transact");
    const problem = new Problem("unavailable", "The disk does not answer");
    const effects = script.step(transacted(effect, { problem }));
    expect(framesOf(effects)).toEqual([
      {
        type: "error",
        id: 3,
        code: "unavailable",
        message: "The disk does not answer",
        retriable: true,
      },
    ]);
    expect(all(effects, "close")).toEqual([]);
  });

  test("is a sign of life", () => {
    const script = new SessionScript();
    script.at(9_000).receive(produceFrame());
    expect(script.session.lastSeenAtMs).toBe(9_000);
  });
});
