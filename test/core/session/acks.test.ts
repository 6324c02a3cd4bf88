import { describe, expect, test } from "bun:test";
import { Problem } from "../../../src/core/problem.ts";
import type { AckEntry } from "../../../src/protocol/frames.ts";
import {
  acceptedOutcomes,
  all,
  framesOf,
  joinedPartition,
  lines,
  readerPartition,
  SessionScript,
  theOne,
  unplacedPartition,
} from "../../support/session-script.ts";

const entry = (offset: number, about: Partial<AckEntry> = {}): AckEntry => ({
  topic: "orders",
  partition: 0,
  generation: 3,
  offset,
  ...about,
});

/** Two partitions from offset 40; ten records of each are sent, which fills the window. */
function sentTwenty(): SessionScript {
  const script = new SessionScript();
  const partitions = [
    joinedPartition({ committedOffset: 40 }),
    joinedPartition({ partition: 1, generation: 4, committedOffset: 40 }),
  ];
  const { effects } = script.open({ window: { records: 20 } }, partitions);
  const second = script.answer(theOne(effects, "read"), { count: 10, logEndOffset: 100 });
  const full = script.answer(theOne(second, "read"), { count: 10, logEndOffset: 100 });
  expect(lines(full)).toEqual(["send records orders/1 to 50"]);
  return script;
}

describe("an ack", () => {
  test("is committed, and answered when the commit is durable", () => {
    const script = sentTwenty();
    const committing = script.ack([entry(50), entry(45, { partition: 1, generation: 4, metadata: "half" })], {
      id: 2,
    });
    expect(lines(committing)).toEqual(["commit billing orders/0=50, orders/1=45"]);
    const commit = theOne(committing, "commit");
    expect(commit.acks).toEqual([
      { topic: "orders", partition: 0, generation: 3, offset: 50, metadata: null, refusal: undefined },
      { topic: "orders", partition: 1, generation: 4, offset: 45, metadata: "half", refusal: undefined },
    ]);
    expect(framesOf(script.commit(commit))).toEqual([
      {
        type: "acked",
        id: 2,
        subscription: "default",
        offsets: [
          { topic: "orders", partition: 0, offset: 50 },
          { topic: "orders", partition: 1, offset: 45 },
        ],
      },
    ]);
  });

  test("without id is answered without id", () => {
    const [acked] = framesOf(sentTwenty().ackAndCommit([entry(50)]));
    expect(acked).not.toHaveProperty("id");
  });

  test("is answered with what is durable, though somebody else committed further", () => {
    const script = sentTwenty();
    const commit = theOne(script.ack([entry(41)]), "commit");
    const [acked] = framesOf(script.commit(commit, [{ committedOffset: 44, code: undefined }]));
    expect(acked).toMatchObject({ offsets: [{ topic: "orders", partition: 0, offset: 44 }] });
  });

  test("is followed by the records that it made room for, not preceded", () => {
    const script = sentTwenty();
    expect(lines(script.ackAndCommit([entry(50)]))).toEqual(["send acked", "read orders/0 from 50"]);
  });

  test("that could not be written is an error with its id, and frees nothing", () => {
    const script = sentTwenty();
    const { ref, id, acks } = theOne(script.ack([entry(50)], { id: 2 }), "commit");
    const problem = new Problem("unavailable", "The disk does not answer");
    const effects = script.step({ type: "commitFailed", ref, id, acks, problem });
    expect(framesOf(effects)).toEqual([
      {
        type: "error",
        id: 2,
        subscription: "default",
        code: "unavailable",
        message: "The disk does not answer",
        retriable: true,
      },
    ]);
    expect(all(effects, "read")).toEqual([]);
    expect(lines(script.ackAndCommit([entry(50)]))).toEqual(["send acked", "read orders/0 from 50"]);
  });

  test("frees nothing before its commit is durable", () => {
    const script = sentTwenty();
    expect(all(script.ack([entry(50)]), "read")).toEqual([]);
    expect(lines(script.step({ type: "drained" }))).toEqual([]);
  });
});

describe("acks are judged", () => {
  const cases: readonly {
    readonly title: string;
    readonly entry: AckEntry;
    readonly refusal: string | undefined;
  }[] = [
    { title: "at the furthest position sent: taken", entry: entry(50), refusal: undefined },
    { title: "one above it: refused", entry: entry(51), refusal: "offset_out_of_range" },
    {
      title: "far above it: refused",
      entry: entry(Number.MAX_SAFE_INTEGER),
      refusal: "offset_out_of_range",
    },
    { title: "inside what was sent: taken", entry: entry(43), refusal: undefined },
    { title: "at the committed offset: no error", entry: entry(40), refusal: undefined },
    { title: "below the committed offset: no error", entry: entry(0), refusal: undefined },
    {
      title: "of an earlier generation: fenced",
      entry: entry(50, { generation: 2 }),
      refusal: "fenced_generation",
    },
    {
      title: "of a generation that never was: fenced",
      entry: entry(50, { generation: 999 }),
      refusal: "fenced_generation",
    },
    {
      title: "of the neighbour's generation: fenced",
      entry: entry(50, { generation: 4 }),
      refusal: "fenced_generation",
    },
    {
      title: "of an earlier generation and above what was sent: fenced",
      entry: entry(51, { generation: 2 }),
      refusal: "fenced_generation",
    },
    {
      title: "of a partition that is not assigned: refused",
      entry: entry(50, { partition: 2 }),
      refusal: "fenced_generation",
    },
    {
      title: "of a topic that is not subscribed: refused",
      entry: entry(50, { topic: "refunds" }),
      refusal: "fenced_generation",
    },
  ];
  for (const { title, entry: judged, refusal } of cases) {
    test(`${title}, and its neighbour is taken`, () => {
      const script = sentTwenty();
      const neighbour = entry(45, { partition: 1, generation: 4 });
      const { acks } = theOne(script.ack([judged, neighbour]), "commit");
      expect(acks.map((ack) => ack.refusal as string | undefined)).toEqual([refusal, undefined]);
    });
  }

  test("a partition at its start takes its position and nothing above it, before anything was sent", () => {
    const script = new SessionScript();
    script.open({}, [joinedPartition({ committedOffset: 42 })]);
    const refusalOf = (offset: number) => theOne(script.ack([entry(offset)]), "commit").acks[0]?.refusal;
    expect(refusalOf(42)).toBeUndefined();
    expect(refusalOf(43)).toBe("offset_out_of_range");
  });

  test("a partition whose policy none left it without a place takes no ack, not even of offset 0", () => {
    const script = new SessionScript();
    const ref = script.subscribe({ reset: "none" });
    script.join(ref, { partitions: [unplacedPartition({ logStartOffset: 10 })] });
    const { acks } = theOne(script.ack([entry(0)]), "commit");
    expect(acks[0]?.refusal).toBe("offset_out_of_range");
  });

  test("records that were read and not yet sent may not be acknowledged", () => {
    const script = new SessionScript();
    const { effects } = script.open({ window: { records: 10 } });
    script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 100 });
    expect(theOne(script.ack([entry(6)]), "commit").acks[0]?.refusal).toBe("offset_out_of_range");
  });

  test("the furthest position stays where it was when what was sent is acknowledged", () => {
    const script = sentTwenty();
    script.ackAndCommit([entry(50)]);
    expect(theOne(script.ack([entry(50)]), "commit").acks[0]?.refusal).toBeUndefined();
    expect(theOne(script.ack([entry(51)]), "commit").acks[0]?.refusal).toBe("offset_out_of_range");
  });

  test("each refused entry is answered with its code, and the others as if it were not there", () => {
    const script = sentTwenty();
    const commit = theOne(
      script.ack([entry(51), entry(45, { partition: 1, generation: 4 }), entry(1, { partition: 2 })], {
        id: 3,
      }),
      "commit",
    );
    const effects = script.commit(commit, [
      { committedOffset: 40, code: "offset_out_of_range" },
      { committedOffset: 45, code: undefined },
      { committedOffset: null, code: "unknown_partition" },
    ]);
    expect(framesOf(effects)).toEqual([
      {
        type: "acked",
        id: 3,
        subscription: "default",
        offsets: [
          { topic: "orders", partition: 0, offset: 40, code: "offset_out_of_range" },
          { topic: "orders", partition: 1, offset: 45 },
          { topic: "orders", partition: 2, offset: null, code: "unknown_partition" },
        ],
      },
    ]);
    expect(theOne(effects, "read").request.recordsMax).toBe(5);
  });
});

describe("a partition named twice in a frame", () => {
  const cases: readonly { title: string; offsets: readonly number[]; counted: number }[] = [
    { title: "rising", offsets: [43, 47], counted: 47 },
    { title: "falling", offsets: [47, 43], counted: 47 },
    { title: "three times", offsets: [43, 47, 41], counted: 47 },
    { title: "equal", offsets: [47, 47], counted: 47 },
    { title: "with 0", offsets: [0, 47], counted: 47 },
  ];
  for (const { title, offsets, counted } of cases) {
    test(`${title}: counts once, the highest`, () => {
      const script = sentTwenty();
      const commit = theOne(script.ack(offsets.map((offset) => entry(offset))), "commit");
      expect(commit.acks.map(({ offset }) => offset)).toEqual([counted]);
      const effects = script.commit(commit);
      expect(framesOf(effects)).toEqual([
        expect.objectContaining({ offsets: [{ topic: "orders", partition: 0, offset: counted }] }),
      ]);
      expect(theOne(effects, "read").request.recordsMax).toBe(counted - 40);
    });
  }

  test("once refused: the refused entry is answered on its own and the accepted one counts", () => {
    const script = sentTwenty();
    const committing = script.ack([entry(51), entry(45), entry(60, { generation: 2 })]);
    expect(lines(committing)).toEqual([
      "commit billing orders/0=51 (offset_out_of_range), orders/0=45, orders/0=60 (fenced_generation)",
    ]);
    const effects = script.commit(theOne(committing, "commit"));
    expect(theOne(effects, "read").request.recordsMax).toBe(5);
  });

  test("partitions of one number in two topics are two partitions", () => {
    const script = new SessionScript();
    const other = joinedPartition({ topic: "refunds", topicId: 8, partitionId: 80, generation: 4 });
    script.open({ topics: ["orders", "refunds"] }, [joinedPartition(), other]);
    const { acks } = theOne(script.ack([entry(0), entry(0, { topic: "refunds", generation: 4 })]), "commit");
    expect(acks.map(({ topic }) => topic)).toEqual(["orders", "refunds"]);
  });
});

describe("the window is freed", () => {
  test("for accepted entries only: what the session refused frees nothing", () => {
    const script = sentTwenty();
    expect(lines(script.ackAndCommit([entry(51), entry(50, { generation: 2 })]))).toEqual(["send acked"]);
  });

  test("for accepted entries only: what the database refused frees nothing", () => {
    const script = sentTwenty();
    const commit = theOne(script.ack([entry(50)]), "commit");
    const refused = script.commit(commit, [{ committedOffset: 40, code: "fenced_generation" }]);
    expect(lines(refused)).toEqual(["send acked"]);
  });

  test("once for what is acknowledged twice", () => {
    const script = sentTwenty();
    const commits = [45, 45, 43, 40].map((offset) => theOne(script.ack([entry(offset)]), "commit"));
    const [first, ...repeated] = commits.map((commit) => script.commit(commit));
    expect(theOne(first ?? [], "read").request.recordsMax).toBe(5);
    for (const effects of repeated) expect(lines(effects)).toEqual(["send acked"]);
  });

  test("by an ack of what another commit has passed already", () => {
    const script = sentTwenty();
    const commit = theOne(script.ack([entry(45)]), "commit");
    const effects = script.commit(commit, [{ committedOffset: 48, code: undefined }]);
    expect(theOne(effects, "read").request.recordsMax).toBe(5);
  });

  test("not by the commit of an earlier subscription of the same name, which is answered all the same", () => {
    const script = new SessionScript();
    const window = { records: 10 };
    const first = script.open({ window });
    script.answer(theOne(first.effects, "read"), { count: 5, logEndOffset: 99 });
    const late = theOne(script.ack([entry(5)], { id: 1 }), "commit");
    script.receive({ type: "unsubscribe" });

    const again = script.open({ window });
    const second = script.answer(theOne(again.effects, "read"), { count: 5, logEndOffset: 99 });
    script.answer(theOne(second, "read"), { count: 5, logEndOffset: 99 });
    const answered = script.commit(late, acceptedOutcomes(late));
    expect(framesOf(answered)).toEqual([expect.objectContaining({ type: "acked", id: 1 })]);
    expect(all(answered, "read")).toEqual([]);
  });

  test("not by the commit of another generation", () => {
    const script = sentTwenty();
    const commit = theOne(script.ack([entry(50)]), "commit");
    const acks = commit.acks.map((ack) => ({ ...ack, generation: 2 }));
    const effects = script.commit({ ...commit, acks }, [{ committedOffset: 50, code: undefined }]);
    expect(lines(effects)).toEqual(["send acked"]);
  });

  test("by acks in the order in which they were committed, whatever partition they name", () => {
    const script = sentTwenty();
    const commits = [entry(45), entry(50, { partition: 1, generation: 4 }), entry(50)].map((one, id) =>
      theOne(script.ack([one], { id }), "commit"),
    );
    const answers = commits.flatMap((commit) => framesOf(script.commit(commit)));
    expect(answers.map((answer) => ("id" in answer ? answer.id : undefined))).toEqual([0, 1, 2]);
  });
});

describe("an ack of no subscription", () => {
  const cases = [
    { title: "that never was", prepare: () => undefined },
    {
      title: "that is joining",
      prepare: (script: SessionScript) => {
        script.subscribe();
      },
    },
    {
      title: "that is joining and was unsubscribed",
      prepare: (script: SessionScript) => {
        script.subscribe();
        script.receive({ type: "unsubscribe" });
      },
    },
    {
      title: "that was unsubscribed",
      prepare: (script: SessionScript) => {
        script.open();
        script.receive({ type: "unsubscribe" });
      },
    },
    {
      title: "that was replaced",
      prepare: (script: SessionScript) => {
        const { ref } = script.open();
        script.step({ type: "ended", ref, reason: "replaced" });
      },
    },
    {
      title: "of another name",
      prepare: (script: SessionScript) => {
        script.open({ subscription: "s1" });
      },
    },
  ];
  for (const { title, prepare } of cases) {
    test(`${title} is unknown_subscription and commits nothing`, () => {
      const script = new SessionScript();
      prepare(script);
      const effects = script.ack([entry(0)], { id: 4 });
      expect(framesOf(effects)).toEqual([
        {
          type: "error",
          id: 4,
          subscription: "default",
          code: "unknown_subscription",
          message: expect.stringContaining('"default"'),
          retriable: false,
        },
      ]);
      expect(all(effects, "commit")).toEqual([]);
      expect(all(effects, "close")).toEqual([]);
    });
  }

  test("one subscription's partitions are not another's", () => {
    const script = new SessionScript();
    script.open({ subscription: "s1" });
    script.open({ subscription: "s2", group: "audit", topics: ["refunds"] }, [
      joinedPartition({ topic: "refunds", topicId: 8, partitionId: 80, generation: 9 }),
    ]);
    const commit = theOne(script.ack([entry(0)], { subscription: "s2" }), "commit");
    expect(lines([commit])).toEqual(["commit audit orders/0=0 (fenced_generation)"]);
  });
});

describe("an ack of a reader", () => {
  const fromReader = (offset: number, about: Partial<AckEntry> = {}) =>
    entry(offset, { generation: 1, ...about });

  /** Ten of twenty records are out; two partitions are in generations 1 and 2. */
  function sentTen() {
    const script = new SessionScript();
    const partitions = [readerPartition(), readerPartition({ partition: 1 })];
    const { effects } = script.read({ ack: "manual", window: { records: 20 } }, partitions);
    const full = script.answer(theOne(effects, "read"), { count: 10, logEndOffset: 10 });
    return { script, full };
  }

  test("frees the window and commits nothing: it is answered at once, with no offset", () => {
    const { script, full } = sentTen();
    script.answer(theOne(full, "read"), { count: 10, logEndOffset: 100 });
    const effects = script.ack([fromReader(5)], { id: 2 });
    expect(lines(effects)).toEqual(["send acked", "read orders/1 from 10"]);
    expect(framesOf(effects)).toEqual([
      {
        type: "acked",
        id: 2,
        subscription: "default",
        offsets: [{ topic: "orders", partition: 0, offset: null }],
      },
    ]);
    expect(theOne(effects, "read").request.recordsMax).toBe(5);
    expect(script.session.waiting.ackEntries).toBe(0);
  });

  test("is judged as any other, entry by entry, and the accepted ones count", () => {
    const { script } = sentTen();
    const effects = script.ack([
      fromReader(11),
      fromReader(4),
      fromReader(1, { generation: 2 }),
      fromReader(0, { partition: 1, generation: 2 }),
      fromReader(0, { partition: 2 }),
    ]);
    expect(framesOf(effects)).toMatchObject([
      {
        offsets: [
          { partition: 0, offset: null, code: "offset_out_of_range" },
          { partition: 0, offset: null },
          { partition: 0, offset: null, code: "fenced_generation" },
          { partition: 1, offset: null },
          { partition: 2, offset: null, code: "fenced_generation" },
        ],
      },
    ]);
    expect(script.session.subscriptions.get("default")?.delivery.unackedRecords).toBe(6);
  });

  test("that acknowledges nothing by default is answered all the same", () => {
    const script = new SessionScript();
    const { effects } = script.read();
    script.answer(theOne(effects, "read"), { count: 3, logEndOffset: 3 });
    expect(framesOf(script.ack([fromReader(3)], { id: 1 }))).toMatchObject([{ type: "acked", id: 1 }]);
  });
});
