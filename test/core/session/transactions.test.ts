import { describe, expect, test } from "bun:test";
import type { CheckedFrame } from "../../../src/core/client-frame.ts";
import { parseClientFrame } from "../../../src/core/client-frame.ts";
import { Problem } from "../../../src/core/problem.ts";
import { CLOSE_CODES } from "../../../src/protocol/codes.ts";
import type { AckEntry, SubscribeFrame } from "../../../src/protocol/frames.ts";
import {
  all,
  framesOf,
  joinedPartition,
  lines,
  SessionScript,
  theOne,
  transacted,
} from "../../support/session-script.ts";

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

// ── transactions with commits ────────────────────────────────────────────────────────────────────────────

const RUNS = [{ topic: "audit", partition: 0, offset: 5, count: 1 }];
const TWO = [joinedPartition(), joinedPartition({ partition: 1, generation: 4 })];

function transactFrame(group: string, ...offsets: readonly Partial<AckEntry>[]): CheckedFrame {
  const entries = offsets.map((entry) => ({
    topic: "orders",
    partition: 0,
    generation: 3,
    offset: 10,
    ...entry,
  }));
  const commits = { group, offsets: entries };
  const appends = [{ topic: "audit", records: [{ value: 1 }] }];
  const parsed = parseClientFrame(JSON.stringify({ type: "transact", id: 9, appends, commits }));
  if ("problem" in parsed) throw parsed.problem;
  return parsed.frame;
}

/** As sent and as written. */
function transact(script: SessionScript, group: string, ...offsets: readonly Partial<AckEntry>[]) {
  const effect = theOne(script.receive(transactFrame(group, ...offsets)), "transact");
  return script.step(transacted(effect, { written: { runs: RUNS } }));
}

const unackedOf = ({ session }: SessionScript, name = "default") => {
  const delivery = session.subscriptions.get(name)?.delivery;
  return [delivery?.unackedRecords, delivery?.unackedBytes];
};

/** Ten records of each of two partitions are out. */
function sentTwice(script = new SessionScript(), options: Partial<SubscribeFrame> = {}) {
  script.step({ type: "opened" });
  const { ref, effects } = script.open(options, TWO);
  const sent = script.answer(theOne(effects, "read"), { count: 10, logEndOffset: 10 });
  script.answer(theOne(sent, "read"), { count: 10, logEndOffset: 10 });
  return { script, ref };
}

const revoking = {
  revoked: [{ partitionId: 70, generation: 3, deadlineMs: 5_000 }],
};

describe("a transaction with commits", () => {
  test("is answered with the topics of its runs, and whether it is a repeat", () => {
    const { script } = sentTwice();
    expect(framesOf(transact(script, "billing", {}))).toEqual([{ type: "transacted", id: 9, runs: RUNS }]);
    const effect = theOne(script.receive(transactFrame("billing", {})), "transact");
    const again = script.step(transacted(effect, { written: { runs: [], duplicate: true } }));
    expect(framesOf(again)).toEqual([{ type: "transacted", id: 9, runs: [], duplicate: true }]);
  });

  test("frees nothing before it is durable, then what it covers as an ack does", () => {
    const { script } = sentTwice();
    expect(unackedOf(script)).toEqual([20, 2_000]);
    const effect = theOne(script.receive(transactFrame("billing", { offset: 10 })), "transact");
    expect(unackedOf(script)).toEqual([20, 2_000]);
    script.step(transacted(effect, { written: { runs: RUNS } }));
    expect(unackedOf(script)).toEqual([10, 1_000]);
  });

  test("inside a chunk frees the records below the offset, and the bytes with the last", () => {
    const { script } = sentTwice();
    transact(script, "billing", { offset: 4 });
    expect(unackedOf(script)).toEqual([16, 2_000]);
    transact(script, "billing", { offset: 10 });
    expect(unackedOf(script)).toEqual([10, 1_000]);
  });

  test("of several partitions frees each, and beyond what was sent no more than that", () => {
    const { script } = sentTwice();
    transact(script, "billing", { offset: 1_000 }, { partition: 1, generation: 4, offset: 5 });
    expect(unackedOf(script)).toEqual([5, 1_000]);
  });

  test("makes room for what the window had no room for", () => {
    const script = new SessionScript();
    const { effects } = script.open({ window: { records: 10 } });
    const read = theOne(effects, "read");
    const sent = script.answer(read, { count: 5, logEndOffset: 100 });
    const full = script.answer(theOne(sent, "read"), { count: 5, logEndOffset: 100 });
    expect(lines(full)).not.toContain("read orders/0 from 10");
    expect(lines(transact(script, "billing", { offset: 10 }))).toEqual([
      "send transacted",
      "read orders/0 from 10",
    ]);
  });

  test.each([
    ["another generation", "billing", { generation: 2 }],
    ["a later generation", "billing", { generation: 4 }],
    ["another group", "shipping", {}],
    ["another topic", "billing", { topic: "visits" }],
    ["a partition that is not here", "billing", { partition: 2 }],
  ])("in %s frees nothing", (_, group, about) => {
    const { script } = sentTwice();
    expect(lines(transact(script, group, about))).toEqual(["send transacted"]);
    expect(unackedOf(script)).toEqual([20, 2_000]);
  });

  test("frees the window of the subscription that owns the partition, and no other on the socket", () => {
    const { script } = sentTwice(new SessionScript(), { subscription: "a", group: "billing" });
    sentTwice(script, { subscription: "b", group: "shipping" });
    transact(script, "shipping", {});
    expect([unackedOf(script, "a"), unackedOf(script, "b")]).toEqual([
      [20, 2_000],
      [10, 1_000],
    ]);
    transact(script, "billing", {}, { partition: 1, generation: 4 });
    expect([unackedOf(script, "a"), unackedOf(script, "b")]).toEqual([
      [0, 0],
      [10, 1_000],
    ]);
  });

  test("that is refused frees nothing and lets nothing go", () => {
    const { script, ref } = sentTwice();
    script.own(ref, revoking);
    const effect = theOne(script.receive(transactFrame("billing", {})), "transact");
    const problem = new Problem("fenced_generation", "Somebody else owns it");
    expect(lines(script.step(transacted(effect, { problem })))).toEqual(["send error fenced_generation"]);
    expect(unackedOf(script)).toEqual([20, 2_000]);
  });

  test("lets a partition that is being revoked go when all that was sent of it is committed, not before", () => {
    const { script, ref } = sentTwice();
    script.own(ref, revoking);
    expect(lines(transact(script, "billing", { offset: 9 }))).toEqual(["send transacted"]);
    expect(lines(transact(script, "billing", { partition: 1, generation: 4 }))).toEqual(["send transacted"]);
    expect(lines(transact(script, "billing", { offset: 10 }))).toEqual([
      "send transacted",
      "release 70 in 3 of m1",
    ]);
  });

  test("that is answered after the partition was lost frees nothing, and the rest lives", () => {
    const { script, ref } = sentTwice();
    const effect = theOne(script.receive(transactFrame("billing", {})), "transact");
    script.own(ref, { lost: [{ partitionId: 70, generation: 3, reason: "rebalance" }] });
    const before = unackedOf(script);
    expect(lines(script.step(transacted(effect, { written: { runs: RUNS } })))).toEqual(["send transacted"]);
    expect(unackedOf(script)).toEqual(before);
  });

  test("keeps a draining socket open until it is answered, and then frees what it waited for", () => {
    const { script } = sentTwice();
    const both = [{}, { partition: 1, generation: 4 }];
    const first = theOne(script.receive(transactFrame("billing", ...both)), "transact");
    const second = theOne(script.receive(transactFrame("billing", {})), "transact");
    expect(lines(script.step({ type: "draining", retryAfterMs: 500 }))).toEqual(["send draining"]);
    expect(lines(script.step(transacted(first, { written: { runs: RUNS } })))).toEqual(["send transacted"]);
    const problem = new Problem("conflict", "It is committed");
    expect(lines(script.step(transacted(second, { problem })))).toEqual([
      "send error conflict",
      `close ${CLOSE_CODES.draining}`,
    ]);
  });
});
