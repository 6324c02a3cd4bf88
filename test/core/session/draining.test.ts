import { describe, expect, test } from "bun:test";
import { parseClientFrame } from "../../../src/core/client-frame.ts";
import { Problem } from "../../../src/core/problem.ts";
import type { SessionEvent } from "../../../src/core/session/events.ts";
import { SOCKET_BUFFER_BYTES_MAX } from "../../../src/protocol/limits.ts";
import { all, framesOf, lines, SessionScript, theOne, transacted } from "../../support/session-script.ts";

const draining: SessionEvent = { type: "draining", retryAfterMs: 500 };
const ORDERS = { topic: "orders", partition: 0 };
const entry = (offset: number) => ({ ...ORDERS, generation: 3, offset });

/** Ten records are out and the next are being read. */
function sentTen() {
  const script = new SessionScript();
  const { ref, effects } = script.open();
  const sent = script.answer(theOne(effects, "read"), { count: 10, logEndOffset: 100 });
  return { script, ref, reading: theOne(sent, "read") };
}

describe("draining", () => {
  test("of a socket that holds nothing is told, then it is closed with 4000", () => {
    const script = new SessionScript();
    script.open();
    const effects = script.step(draining);
    expect(lines(effects)).toEqual(["send draining", "close 4000"]);
    expect(framesOf(effects)).toEqual([{ type: "draining", retryAfterMs: 500 }]);
  });

  test("of a socket without a subscription closes it at once", () => {
    expect(lines(new SessionScript().step(draining))).toEqual(["send draining", "close 4000"]);
  });

  test("waits for a subscribe to be answered; one that is cut off while it joins is let go when it has", () => {
    const script = new SessionScript();
    const ref = script.subscribe();
    expect(lines(script.step(draining))).toEqual(["send draining"]);
    expect(lines(script.join(ref))).toEqual(["send subscribed", "send assigned", "close 4000"]);
    const late = new SessionScript();
    const joining = late.subscribe();
    late.step(draining);
    expect(lines(late.step({ type: "drainOverdue" }))).toEqual(["close 4000"]);
    late.step({ type: "closed" });
    expect(lines(late.join(joining))).toEqual(["leave billing m1"]);
  });

  test("waits for the acks of what is out, answers them, and closes with the last", () => {
    const { script } = sentTen();
    expect(lines(script.step(draining))).toEqual(["send draining"]);
    expect(lines(script.ackAndCommit([entry(4)]))).toEqual(["send acked"]);
    expect(lines(script.ackAndCommit([entry(10)], { id: 2 }))).toEqual(["send acked", "close 4000"]);
  });

  test("waits for an ack that is on its way to the disk, though it frees everything", () => {
    const { script } = sentTen();
    const first = theOne(script.ack([entry(10)]), "commit");
    const second = theOne(script.ack([entry(10)], { id: 2 }), "commit");
    script.step(draining);
    expect(lines(script.commit(first))).toEqual(["send acked"]);
    expect(lines(script.commit(second))).toEqual(["send acked", "close 4000"]);
  });

  test("sends no more records: neither what is being read, nor what an ack makes room for, nor growth", () => {
    const { script, reading } = sentTen();
    script.step(draining);
    expect(lines(script.answer(reading, { count: 5, logEndOffset: 100 }))).toEqual([]);
    expect(lines(script.ackAndCommit([entry(4)]))).toEqual(["send acked"]);
    expect(lines(script.step({ type: "grown", ref: reading.ref }))).toEqual([]);
    expect(lines(script.step({ type: "drained" }))).toEqual([]);
  });

  test("of a reader that acknowledges nothing closes when the socket has taken the last byte", () => {
    const script = new SessionScript();
    const { effects } = script.read();
    script.answer(theOne(effects, "read"), { count: 3, logEndOffset: 3 });
    script.bufferedBytes = 100;
    expect(lines(script.step(draining))).toEqual(["send draining"]);
    script.bufferedBytes = 0;
    expect(lines(script.step({ type: "drained" }))).toEqual(["close 4000"]);
  });

  test("sends what was committed ahead, as nobody else will, and reads no more", () => {
    const script = new SessionScript();
    const { effects } = script.open({ ack: "none" });
    const { ref, chunk } = theOne(
      script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 9 }),
      "commitAhead",
    );
    expect(lines(script.step(draining))).toEqual(["send draining"]);
    script.bufferedBytes = 500;
    const sent = script.step({ type: "committedAhead", ref, chunk, isFenced: false });
    expect(lines(sent)).toEqual(["send records orders/0 to 5"]);
    script.bufferedBytes = 0;
    expect(lines(script.step({ type: "drained" }))).toEqual(["close 4000"]);
  });

  test("waits for room in the socket for what was committed ahead", () => {
    const script = new SessionScript();
    const { effects } = script.open({ ack: "none" });
    const { ref, chunk } = theOne(
      script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 9 }),
      "commitAhead",
    );
    script.step(draining);
    script.bufferedBytes = SOCKET_BUFFER_BYTES_MAX;
    expect(lines(script.step({ type: "committedAhead", ref, chunk, isFenced: false }))).toEqual([]);
    script.bufferedBytes = 0;
    expect(lines(script.step({ type: "drained" }))).toEqual(["send records orders/0 to 5"]);
    expect(lines(script.step({ type: "drained" }))).toEqual(["close 4000"]);
  });

  test("closes where nothing could be committed ahead", () => {
    const script = new SessionScript();
    const { effects } = script.open({ ack: "none" });
    const { ref } = theOne(
      script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 9 }),
      "commitAhead",
    );
    script.step(draining);
    expect(lines(script.step({ type: "commitAheadFailed", ref }))).toEqual(["close 4000"]);
  });

  test("commits no chunk ahead that was still being read", () => {
    const script = new SessionScript();
    const { effects } = script.open({ ack: "none" });
    script.receive({ type: "seek", ...ORDERS, to: "latest" }); // keeps the socket open
    script.step(draining);
    expect(lines(script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 9 }))).toEqual([]);
  });

  test("refuses a subscribe as unavailable, with its id", () => {
    const { script } = sentTen();
    script.step(draining);
    const frame = { type: "subscribe", id: 5, subscription: "late", topics: ["orders"], group: "g" } as const;
    const refused = script.receive(frame);
    expect(framesOf(refused)).toMatchObject([
      { type: "error", id: 5, subscription: "late", code: "unavailable", retriable: true },
    ]);
    expect(all(refused, "join")).toEqual([]);
  });

  test("answers a produce, and closes after that", () => {
    const script = new SessionScript();
    const parsed = parseClientFrame('{"type":"produce","id":3,"topic":"orders","records":[{"value":1}]}');
    if ("problem" in parsed) throw parsed.problem;
    const effect = theOne(script.receive(parsed.frame), "transact");
    expect(lines(script.step(draining))).toEqual(["send draining"]);
    const produced = script.step(transacted(effect, { written: { runs: [] } }));
    expect(lines(produced)).toEqual(["send produced", "close 4000"]);
  });

  test("takes a produce that comes after it", () => {
    const { script } = sentTen();
    script.step(draining);
    const parsed = parseClientFrame('{"type":"produce","id":3,"topic":"orders","records":[{"value":1}]}');
    if ("problem" in parsed) throw parsed.problem;
    const effects = script.receive(parsed.frame);
    expect(lines(effects)).toEqual(["write 1 to orders"]);
    const problem = new Problem("unavailable", "The disk does not answer");
    expect(lines(script.step(transacted(theOne(effects, "transact"), { problem })))).toEqual([
      "send error unavailable",
    ]);
    expect(lines(script.ackAndCommit([entry(10)]))).toEqual(["send acked", "close 4000"]);
  });

  test("waits for the answer to a seek, whose records do not come any more", () => {
    const script = new SessionScript();
    script.open();
    const asked = theOne(script.receive({ type: "seek", id: 1, ...ORDERS, to: "latest" }), "locate");
    expect(lines(script.step(draining))).toEqual(["send draining"]);
    expect(lines(script.locate(asked))).toEqual(["stop waiting orders/0", "send assigned", "close 4000"]);
  });

  test("closes where what was out is lost", () => {
    const { script, ref } = sentTen();
    script.step(draining);
    expect(lines(script.step({ type: "ended", ref, reason: "replaced" }))).toEqual([
      "stop waiting default#1",
      "send unsubscribed replaced",
      "close 4000",
    ]);
  });

  test("that takes too long closes whatever is out", () => {
    const { script } = sentTen();
    script.step(draining);
    expect(lines(script.step({ type: "drainOverdue" }))).toEqual(["close 4000"]);
  });

  test("of a socket that is closed already does nothing more", () => {
    const { script } = sentTen();
    script.step(draining);
    expect(all(script.step({ type: "closed" }), "close")).toEqual([]);
    expect(lines(script.step({ type: "drainOverdue" }))).toEqual([]);
  });
});
