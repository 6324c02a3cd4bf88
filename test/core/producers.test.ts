import { describe, expect, test } from "bun:test";
import { answerRuns, type ProducerState, repeatedAnswer, sequenceProblem } from "../../src/core/producers.ts";

const ANSWER = { partitions: '[["orders",1,40],["audit",0,7]]', runs: "[0,2,1,1,0,3]" };

const stateOf = (epoch: number, nextSequence: number, answer?: ProducerState["answer"]): ProducerState => ({
  epoch,
  nextSequence,
  answer,
});

describe("a sequence", () => {
  test.each([
    // what is known, epoch, sequence, what becomes of it
    [undefined, 0, 0, "written"],
    [undefined, 7, 0, "written"],
    [undefined, 0, 1, "gap, next 0"],
    [stateOf(0, 0), 0, 0, "written"],
    [stateOf(2, 5), 2, 5, "written"],
    [stateOf(2, 5), 2, 6, "gap, next 5"],
    [stateOf(2, 5), 2, Number.MAX_SAFE_INTEGER, "gap, next 5"],
    [stateOf(2, 5, ANSWER), 2, 4, "repeated"],
    [stateOf(2, 5), 2, 0, "repeated, not kept"],
    [stateOf(2, 5, ANSWER), 1, 4, "fenced by 2"],
    [stateOf(2, 5), 1, 5, "fenced by 2"],
    [stateOf(2, 5), 0, 0, "fenced by 2"],
    [stateOf(2, 5, ANSWER), 3, 0, "written"],
    [stateOf(2, 5, ANSWER), 3, 4, "gap, next 0"],
    [stateOf(2, 5), 3, 5, "gap, next 0"],
    [stateOf(2, 0), 2, 0, "written"],
  ] as const)("where %j is known, in epoch %d as %d is %s", (state, epoch, sequence, expected) => {
    const producer = { id: "p", epoch, sequence };
    const repeated = repeatedAnswer(producer, state);
    if (repeated) {
      expect(repeated.duplicate).toBe(true);
      expect(repeated.runs.length > 0 ? "repeated" : "repeated, not kept").toBe(expected);
      return;
    }
    const problem = sequenceProblem(producer, state);
    const { expected: next } = problem?.facts ?? {};
    if (problem)
      expect(problem.facts).toMatchObject({
        producer: "p",
        found: problem.code === "fenced_producer" ? epoch : sequence,
      });
    const said = problem?.code === "fenced_producer" ? `fenced by ${next}` : `gap, next ${next}`;
    expect(problem ? said : "written").toBe(expected);
  });

  test("that is a gap or fenced says which producer, what was found and what is expected", () => {
    const gap = sequenceProblem({ id: "p", epoch: 2, sequence: 9 }, stateOf(2, 5));
    expect(gap?.message).toBe('Cannot take sequence 9 of producer "p" in epoch 2: the next one is 5');
    const fenced = sequenceProblem({ id: "p", epoch: 1, sequence: 5 }, stateOf(2, 5));
    expect(fenced?.message).toBe('Cannot take sequence 5 of producer "p" in epoch 1: its epoch is 2');
  });
});

describe("an answer that is kept", () => {
  test("gives back each run where it was, in the order of the request", () => {
    expect(repeatedAnswer({ id: "p", epoch: 0, sequence: 0 }, stateOf(0, 1, ANSWER))).toEqual({
      runs: [
        { topic: "orders", partition: 1, offset: 40, count: 2 },
        { topic: "audit", partition: 0, offset: 7, count: 1 },
        { topic: "orders", partition: 1, offset: 42, count: 3 },
      ],
      duplicate: true,
    });
  });

  test("is small: two numbers a run", () => {
    expect(
      answerRuns([
        { at: 0, count: 2 },
        { at: 1, count: 1 },
        { at: 0, count: 3 },
      ]),
    ).toBe(ANSWER.runs);
    expect(answerRuns([])).toBe("[]");
  });
});
