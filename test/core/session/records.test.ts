import { describe, expect, test } from "bun:test";
import type { GainedPartition } from "../../../src/core/ownership.ts";
import type { SessionEffect } from "../../../src/core/session/events.ts";
import type { PartitionRef, SubscriptionRef } from "../../../src/core/session/state.ts";
import type { SubscribeFrame } from "../../../src/protocol/frames.ts";
import {
  CHUNK_BYTES_MAX,
  CHUNK_RECORDS_MAX,
  SOCKET_BUFFER_BYTES_MAX,
  SOCKET_WINDOW_BYTES_MAX,
  WINDOW_BYTES_MAX,
  WINDOW_BYTES_MIN,
} from "../../../src/protocol/limits.ts";
import {
  all,
  type EffectOf,
  framesOf,
  joinedPartition,
  lines,
  readSizes,
  SessionScript,
  theOne,
} from "../../support/session-script.ts";

const KIB = 1024;
const entryTo = (offset: number, about: { partition?: number; generation?: number } = {}) => ({
  topic: "orders",
  partition: 0,
  generation: 3,
  offset,
  ...about,
});
const partitionRefOf = (ref: SubscriptionRef, about: Partial<PartitionRef> = {}): PartitionRef => ({
  ...ref,
  partitionKey: "orders/0",
  generation: 3,
  run: 0,
  ...about,
});

describe("a partition", () => {
  test("is read from its committed offset, sent, and read on from where that ended", () => {
    const script = new SessionScript();
    const { effects } = script.open({}, [joinedPartition({ committedOffset: 42 })]);
    const read = theOne(effects, "read");
    expect(read.request).toMatchObject({ partitionId: 70, from: 42 });
    const sent = script.answer(read, { count: 2, logEndOffset: 100 });
    expect(lines(sent)).toEqual(["send records orders/0 to 44", "read orders/0 from 44"]);
    expect(framesOf(sent)).toEqual([
      {
        type: "records",
        subscription: "default",
        generation: 3,
        topic: "orders",
        partition: 0,
        records: [
          { offset: 42, timestamp: 0, value: null },
          { offset: 43, timestamp: 0, value: null },
        ],
        next: 44,
        logEndOffset: 100,
      },
    ]);
  });

  test("is not read twice at the same time", () => {
    const script = new SessionScript();
    script.open();
    expect(lines(script.step({ type: "drained" }))).toEqual([]);
    expect(lines(script.receive({ type: "pong" }))).toEqual([]);
  });

  test("at its log end waits; when it has grown it is read from the same position", () => {
    const script = new SessionScript();
    const { ref, effects } = script.open({}, [joinedPartition({ committedOffset: 9, logEndOffset: 9 })]);
    expect(lines(effects).slice(2)).toEqual(["wait orders/0 at 9"]);
    expect(lines(script.step({ type: "drained" }))).toEqual([]);
    expect(lines(script.step({ type: "grown", ref: partitionRefOf(ref) }))).toEqual(["read orders/0 from 9"]);
  });

  test("whose records end at the log end sends them and waits", () => {
    const script = new SessionScript();
    const { effects } = script.open();
    const sent = script.answer(theOne(effects, "read"), { count: 3, logEndOffset: 3 });
    expect(lines(sent)).toEqual(["send records orders/0 to 3", "wait orders/0 at 3"]);
    expect(theOne(sent, "wait")).toMatchObject({ partitionId: 70, position: 3 });
  });

  test("that was said to have grown and has not waits again and sends nothing", () => {
    const script = new SessionScript();
    const { ref } = script.open({}, [joinedPartition({ logEndOffset: 0 })]);
    const again = theOne(script.step({ type: "grown", ref: partitionRefOf(ref) }), "read");
    expect(lines(script.answer(again, { logEndOffset: 0 }))).toEqual(["wait orders/0 at 0"]);
  });

  test("that grows while it is read is not read a second time", () => {
    const script = new SessionScript();
    const { ref } = script.open();
    expect(lines(script.step({ type: "grown", ref: partitionRefOf(ref) }))).toEqual([]);
  });

  test("with a gap where records were removed goes on behind it", () => {
    const script = new SessionScript();
    const { effects } = script.open();
    const sent = script.answer(theOne(effects, "read"), { count: 2, next: 12, logEndOffset: 20 });
    expect(lines(sent)).toEqual(["send records orders/0 to 12", "read orders/0 from 12"]);
  });

  test("in which everything up to the log end was removed sends nothing and waits there", () => {
    const script = new SessionScript();
    const { effects } = script.open();
    const passed = script.answer(theOne(effects, "read"), { count: 0, next: 20, logEndOffset: 20 });
    expect(lines(passed)).toEqual(["wait orders/0 at 20"]);
  });
});

describe("partitions of a subscription", () => {
  const threePartitions = [0, 1, 2].map((partition) => joinedPartition({ partition }));

  /** Each read brings one record; what it brought is acknowledged at once. */
  function readKeys(
    script: SessionScript,
    first: readonly SessionEffect[],
    reads: number,
  ): readonly string[] {
    const keys: string[] = [];
    let read = theOne(first, "read");
    while (keys.length < reads) {
      keys.push(read.ref.partitionKey);
      read = theOne(script.answer(read, { count: 1, logEndOffset: 1_000 }), "read");
    }
    return keys;
  }

  test("take turns", () => {
    const script = new SessionScript();
    const { effects } = script.open({}, threePartitions);
    const round = ["orders/0", "orders/1", "orders/2"];
    expect(readKeys(script, effects, 7)).toEqual([...round, ...round, "orders/0"]);
  });

  test("that wait are passed over, and have their turn when they have grown", () => {
    const script = new SessionScript();
    const { ref, effects } = script.open({}, threePartitions);
    const second = script.answer(theOne(effects, "read"), { logEndOffset: 0 });
    expect(lines(second)).toEqual(["wait orders/0 at 0", "read orders/1 from 0"]);
    const third = script.answer(theOne(second, "read"), { count: 1, logEndOffset: 9 });
    const fourth = script.answer(theOne(third, "read"), { count: 1, logEndOffset: 9 });
    expect(lines(fourth)).toEqual(["send records orders/2 to 1", "read orders/1 from 1"]);
    script.step({ type: "grown", ref: partitionRefOf(ref) });
    const fifth = script.answer(theOne(fourth, "read"), { count: 1, logEndOffset: 9 });
    expect(lines(fifth)).toEqual(["send records orders/1 to 2", "read orders/0 from 0"]);
  });

  test("share one window", () => {
    const script = new SessionScript();
    const { effects } = script.open({ window: { records: 4 } }, threePartitions);
    const second = theOne(script.answer(theOne(effects, "read"), { count: 2, logEndOffset: 9 }), "read");
    expect(second.request.recordsMax).toBe(2);
    const full = script.answer(second, { count: 2, logEndOffset: 9 });
    expect(lines(full)).toEqual(["send records orders/1 to 2"]);
  });

  test("each get their turn, however large the next record of one is, while the others never run dry", () => {
    // The consumer is always one frame behind: the window is never empty.
    const large = [1 * KIB, 50 * KIB, 1 * KIB];
    const small = Array<number>(4_000).fill(1 * KIB);
    const logs: Record<string, readonly number[]> = { "orders/0": large, "orders/1": small };
    const script = new SessionScript();
    const partitions = [joinedPartition(), joinedPartition({ partition: 1, generation: 4 })];
    let effects = script.open({ window: { bytes: 64 * KIB } }, partitions).effects;
    const unacked: { partition: number; generation: number; next: number }[] = [];
    let furthest = 0;
    for (let frames = 0; frames < 60; frames += 1) {
      const reads = [...all(effects, "read")];
      for (let read = reads.shift(); read; read = reads.shift()) {
        const extent = readSizes(logs[read.ref.partitionKey] ?? [], read.request);
        const sent = script.answer(read, extent);
        for (const frame of framesOf(sent)) {
          if (frame.type !== "records") continue;
          unacked.push(frame);
          if (frame.partition === 0) furthest = frame.next;
        }
        reads.push(...all(sent, "read"));
      }
      const oldest = unacked.shift();
      if (!oldest) break;
      const { partition, generation, next } = oldest;
      effects = script.ackAndCommit([entryTo(next, { partition, generation })]);
    }
    expect(furthest).toBe(3);
  });
});

describe("the window", () => {
  const frameCases: readonly {
    readonly title: string;
    readonly window: NonNullable<SubscribeFrame["window"]>;
    readonly recordsMax: number;
    readonly bytesMax: number;
  }[] = [
    { title: "default", window: {}, recordsMax: 500, bytesMax: CHUNK_BYTES_MAX },
    { title: "of 1 record", window: { records: 1 }, recordsMax: 1, bytesMax: CHUNK_BYTES_MAX },
    { title: "of 2 records", window: { records: 2 }, recordsMax: 1, bytesMax: CHUNK_BYTES_MAX },
    { title: "of 7 records", window: { records: 7 }, recordsMax: 3, bytesMax: CHUNK_BYTES_MAX },
    {
      title: "of 999 records",
      window: { records: 999 },
      recordsMax: 499,
      bytesMax: CHUNK_BYTES_MAX,
    },
    {
      title: "of 10,000 records",
      window: { records: 10_000 },
      recordsMax: CHUNK_RECORDS_MAX,
      bytesMax: CHUNK_BYTES_MAX,
    },
    {
      title: "of 64 KiB",
      window: { bytes: WINDOW_BYTES_MIN },
      recordsMax: 500,
      bytesMax: 32 * KIB,
    },
    {
      title: "of 4 MiB",
      window: { bytes: WINDOW_BYTES_MAX },
      recordsMax: 500,
      bytesMax: CHUNK_BYTES_MAX,
    },
  ];
  for (const { title, window, recordsMax, bytesMax } of frameCases) {
    test(`${title}: a frame takes at most half of it, and no more than a frame may hold`, () => {
      const read = theOne(new SessionScript().open({ window }).effects, "read");
      expect(read.request).toMatchObject({ recordsMax, bytesMax });
    });
  }

  test("that is full of records stops reading until an accepted ack frees as many", () => {
    const script = new SessionScript();
    const { effects } = script.open({ window: { records: 10 } });
    const second = theOne(script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 99 }), "read");
    expect(lines(script.answer(second, { count: 5, logEndOffset: 99 }))).toEqual([
      "send records orders/0 to 10",
    ]);
    expect(lines(script.step({ type: "drained" }))).toEqual([]);

    const commit = theOne(script.ack([entryTo(3)]), "commit");
    expect(theOne(script.commit(commit), "read").request).toMatchObject({ from: 10, recordsMax: 3 });
  });

  test("that is full of bytes stops reading until an accepted ack frees them", () => {
    const script = new SessionScript();
    const { effects } = script.open({ window: { bytes: 64 * KIB } });
    const first = script.answer(theOne(effects, "read"), { count: 1, bytes: 32 * KIB, logEndOffset: 99 });
    const second = theOne(first, "read");
    expect(second.request.bytesMax).toBe(32 * KIB);
    expect(lines(script.answer(second, { count: 1, bytes: 32 * KIB, logEndOffset: 99 }))).toEqual([
      "send records orders/0 to 2",
    ]);
    expect(theOne(script.ackAndCommit([entryTo(1)]), "read").request.bytesMax).toBe(32 * KIB);
  });

  test("a record that fits the window, though not half of it, waits for its room and comes alone", () => {
    const script = new SessionScript();
    const { effects } = script.open({ window: { bytes: 64 * KIB } });
    const sizes = [10 * KIB, 10 * KIB, 50 * KIB, 1 * KIB];
    const first = script.answer(theOne(effects, "read"), readSizes(sizes, theOne(effects, "read").request));
    expect(lines(first)).toEqual(["send records orders/0 to 2", "read orders/0 from 2"]);
    const tried = theOne(first, "read");
    expect(lines(script.answer(tried, readSizes(sizes, tried.request)))).toEqual([]);

    const again = theOne(script.ackAndCommit([entryTo(2)]), "read");
    const large = readSizes(sizes, again.request);
    expect(large).toMatchObject({ count: 1, bytes: 50 * KIB });
    expect(lines(script.answer(again, large))).toEqual([
      "send records orders/0 to 3",
      "read orders/0 from 3",
    ]);
  });

  test("a record larger than the window is sent alone, when nothing else is unacknowledged", () => {
    const script = new SessionScript();
    const { effects } = script.open({ window: { bytes: 64 * KIB } });
    const sizes = [1 * KIB, 900 * KIB, 1 * KIB];
    const small = theOne(effects, "read");
    const tried = theOne(script.answer(small, readSizes(sizes, small.request)), "read");
    expect(lines(script.answer(tried, readSizes(sizes, tried.request)))).toEqual([]);
    expect(lines(script.step({ type: "drained" }))).toEqual([]);

    const alone = theOne(script.ackAndCommit([entryTo(1)]), "read");
    const large = readSizes(sizes, alone.request);
    expect(large.count).toBe(1);
    expect(lines(script.answer(alone, large))).toEqual(["send records orders/0 to 2"]);
    expect(lines(script.step({ type: "drained" }))).toEqual([]);
    expect(lines(script.ackAndCommit([entryTo(2)]))).toEqual(["send acked", "read orders/0 from 2"]);
  });
});

describe("the windows of a socket together", () => {
  /** Answers reads first come, first served, while there are any; returns how many bytes are unacknowledged at most. */
  function drive(script: SessionScript, effects: readonly SessionEffect[], sizes: readonly number[]): number {
    const reads = [...all(effects, "read")];
    let bytes = 0;
    for (let read = reads.shift(); read; read = reads.shift()) {
      const extent = readSizes(sizes, read.request);
      const answered = script.answer(read, extent);
      if (all(answered, "sendText").length > 0) bytes += extent.bytes;
      reads.push(...all(answered, "read"));
    }
    return bytes;
  }

  const openMany = (subscriptions: number, bytes: number) => {
    const script = new SessionScript();
    const joins = Array.from({ length: subscriptions }, (_, index) =>
      script.open({ subscription: `s${index}`, group: `g${index}`, window: { bytes, records: 10_000 } }),
    );
    return { script, effects: joins.flatMap(({ effects }) => effects) };
  };

  for (const [subscriptions, recordBytes] of [
    [5, 200 * KIB],
    [64, 1 * KIB],
    [64, 250 * KIB],
  ] as const) {
    test(`${subscriptions} of 4 MiB with records of ${recordBytes / KIB} KiB stay within 16 MiB`, () => {
      const { script, effects } = openMany(subscriptions, WINDOW_BYTES_MAX);
      const sizes = Array<number>(5_000).fill(recordBytes);
      expect(drive(script, effects, sizes)).toBeLessThanOrEqual(SOCKET_WINDOW_BYTES_MAX);
    });
  }

  test("let a record wait that fits its own window and not what the socket has left", () => {
    const { script, effects } = openMany(4, WINDOW_BYTES_MAX);
    const sizes = [...Array<number>(15).fill(256 * KIB), 250 * KIB];
    expect(drive(script, effects, sizes)).toBe(4 * (15 * 256 + 250) * KIB);
    const late = script.open({ subscription: "late", group: "late", window: { bytes: 1_024 * KIB } });
    expect(drive(script, late.effects, [900 * KIB])).toBe(0);

    const freed = script.ackAndCommit([entryTo(16)], { subscription: "s0" });
    expect(drive(script, freed, [900 * KIB])).toBe(900 * KIB);
  });

  test("that are full read on when any one of them is acknowledged", () => {
    const { script, effects } = openMany(5, WINDOW_BYTES_MAX);
    const sizes = Array<number>(64).fill(256 * KIB);
    drive(script, effects, sizes);
    expect(lines(script.step({ type: "drained" }))).toEqual([]);
    const freed = script.ackAndCommit([entryTo(1)], { subscription: "s0" });
    expect(all(freed, "read").length).toBeGreaterThan(0);
  });
});

describe("a socket that holds 2 MiB", () => {
  test("gives no cause to read; one byte less does", () => {
    const script = new SessionScript();
    const ref = script.subscribe();
    script.bufferedBytes = SOCKET_BUFFER_BYTES_MAX;
    expect(lines(script.join(ref))).toEqual(["send subscribed", "send assigned"]);
    expect(lines(script.step({ type: "drained" }))).toEqual([]);
    script.bufferedBytes = SOCKET_BUFFER_BYTES_MAX - 1;
    expect(lines(script.step({ type: "drained" }))).toEqual(["read orders/0 from 0"]);
  });

  test("is answered all the same", () => {
    const script = new SessionScript();
    script.open();
    script.bufferedBytes = SOCKET_BUFFER_BYTES_MAX;
    expect(lines(script.receive({ type: "pong", id: 1 }))).toEqual(["send ok"]);
    expect(lines(script.ackAndCommit([entryTo(0)]))).toEqual(["send acked"]);
  });

  test("is handed no records whose read was on its way; they come when it has drained", () => {
    const script = new SessionScript();
    const { effects } = script.open();
    script.bufferedBytes = SOCKET_BUFFER_BYTES_MAX;
    const held = script.answer(theOne(effects, "read"), { count: 2, logEndOffset: 2 });
    expect(framesOf(held)).toEqual([]);

    script.bufferedBytes = 0;
    let drained = script.step({ type: "drained" });
    for (const read of all(drained, "read")) {
      drained = [...drained, ...script.answer(read, { count: 2, logEndOffset: 2 })];
    }
    expect(framesOf(drained)).toEqual([expect.objectContaining({ type: "records", next: 2 })]);
  });

  test("is not handed one frame for each of 64 subscriptions", () => {
    const script = new SessionScript();
    const reads: EffectOf<"read">[] = [];
    for (let number = 0; number < 64; number += 1) {
      reads.push(theOne(script.open({ subscription: `s${number}`, group: `g${number}` }).effects, "read"));
    }
    for (const read of reads) {
      const sent = script.answer(read, { count: 1, bytes: 256 * KIB, logEndOffset: 9 });
      script.bufferedBytes += all(sent, "sendText").length * 256 * KIB;
    }
    expect(script.bufferedBytes).toBeLessThanOrEqual(SOCKET_BUFFER_BYTES_MAX + 256 * KIB);
  });
});

describe("what comes too late", () => {
  /** "s1" was subscribed, unsubscribed and subscribed again; `earlier` is what was on its way for the first. */
  function subscribeAgain(partitions: readonly GainedPartition[] = [joinedPartition()]) {
    const script = new SessionScript();
    const earlier = script.open({ subscription: "s1" }, partitions);
    script.receive({ type: "unsubscribe", subscription: "s1" });
    const later = script.open({ subscription: "s1", window: { records: 10 } }, partitions);
    return { script, earlier, later };
  }

  test("a chunk of an earlier subscription of the name is not sent and moves nothing", () => {
    const { script, earlier, later } = subscribeAgain();
    const late = script.answer(theOne(earlier.effects, "read"), { count: 7, logEndOffset: 9 });
    expect(lines(late)).toEqual([]);
    const sent = script.answer(theOne(later.effects, "read"), { count: 1, logEndOffset: 9 });
    expect(lines(sent)).toEqual(["send records orders/0 to 1", "read orders/0 from 1"]);
  });

  test("a wake-up of an earlier subscription of the name wakes nobody", () => {
    const { script, earlier, later } = subscribeAgain();
    script.answer(theOne(later.effects, "read"), { logEndOffset: 0 });
    expect(lines(script.step({ type: "grown", ref: partitionRefOf(earlier.ref) }))).toEqual([]);
    expect(lines(script.step({ type: "grown", ref: partitionRefOf(later.ref) }))).toEqual([
      "read orders/0 from 0",
    ]);
  });

  test("a chunk of another generation is not sent and moves nothing", () => {
    const script = new SessionScript();
    const { effects } = script.open();
    const read = theOne(effects, "read");
    const stale = { ...read, ref: { ...read.ref, generation: 2 } };
    expect(lines(script.answer(stale, { count: 7, logEndOffset: 9 }))).toEqual([]);
    const sent = script.answer(read, { count: 1, logEndOffset: 9 });
    expect(lines(sent)).toEqual(["send records orders/0 to 1", "read orders/0 from 1"]);
  });

  test("a wake-up of another generation, or of a partition that is not assigned, wakes nobody", () => {
    const script = new SessionScript();
    const { ref, effects } = script.open();
    script.answer(theOne(effects, "read"), { logEndOffset: 0 });
    expect(lines(script.step({ type: "grown", ref: partitionRefOf(ref, { generation: 2 }) }))).toEqual([]);
    expect(
      lines(script.step({ type: "grown", ref: partitionRefOf(ref, { partitionKey: "orders/1" }) })),
    ).toEqual([]);
  });
});

describe("a reader that acknowledges nothing", () => {
  test("asks to be told when the socket has taken a frame, and the frame leaves the window then", () => {
    const script = new SessionScript();
    const { effects } = script.read({ window: { records: 4 } });
    script.bufferedBytes = 500;
    const sent = script.answer(theOne(effects, "read"), { count: 2, logEndOffset: 9 });
    expect(theOne(sent, "sendText").tellsTaken).toBe(true);
    const full = script.answer(theOne(sent, "read"), { count: 2, logEndOffset: 9 });
    expect(all(full, "read")).toEqual([]);
    script.bufferedBytes = 1;
    expect(lines(script.step({ type: "drained" }))).toEqual([]);
    script.bufferedBytes = 0;
    expect(theOne(script.step({ type: "drained" }), "read").request).toMatchObject({
      from: 4,
      recordsMax: 2,
    });
    expect(script.session.subscriptions.get("default")?.delivery).toMatchObject({
      unackedRecords: 0,
      unackedBytes: 0,
    });
  });

  test("that wants to acknowledge all the same keeps its frames in the window until it has", () => {
    const script = new SessionScript();
    const { effects } = script.read({ ack: "manual", window: { records: 2 } });
    const sent = script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 9 });
    expect(theOne(sent, "sendText").tellsTaken).toBe(false);
    script.answer(theOne(sent, "read"), { count: 1, logEndOffset: 9 });
    expect(lines(script.step({ type: "drained" }))).toEqual([]);
    expect(lines(script.ack([entryTo(1, { generation: 1 })]))).toEqual([
      "send acked",
      "read orders/0 from 2",
    ]);
  });

  test("commits nothing and asks for no commit", () => {
    const script = new SessionScript();
    const { effects } = script.read();
    const sent = script.answer(theOne(effects, "read"), { count: 2, logEndOffset: 2 });
    expect(lines(sent)).toEqual(["send records orders/0 to 2", "wait orders/0 at 2"]);
  });
});

test("a subscription whose window is full does not hold up another of the socket", () => {
  const script = new SessionScript();
  const group = script.open({ subscription: "s1", window: { records: 1 } });
  const full = script.answer(theOne(group.effects, "read"), { count: 1, logEndOffset: 9 });
  expect(all(full, "read")).toEqual([]);
  const reader = script.read({ subscription: "t" });
  const second = script.answer(theOne(reader.effects, "read"), { count: 5, logEndOffset: 9 });
  expect(lines(second)).toEqual(["send records orders/0 to 5", "read orders/0 from 5"]);
  expect(theOne(second, "read").ref.name).toBe("t");
});

describe("a group at most once", () => {
  /** Five records have been read. */
  function readFive(options: Partial<SubscribeFrame> = {}) {
    const script = new SessionScript();
    const { ref, effects } = script.open({ ack: "none", ...options });
    const read = theOne(effects, "read");
    const asked = script.answer(read, { count: 5, logEndOffset: 100 });
    return { script, ref, asked };
  }
  const partitions = [{ topic: "orders", partition: 0 }];
  const committed = (script: SessionScript, ahead: EffectOf<"commitAhead">, isFenced = false) =>
    script.step({ type: "committedAhead", ref: ahead.ref, chunk: ahead.chunk, isFenced });

  test("has the end of a frame committed before it is sent", () => {
    const { script, asked } = readFive();
    expect(lines(asked)).toEqual(["commit ahead billing orders/0=5"]);
    const ahead = theOne(asked, "commitAhead");
    expect(ahead.ack).toEqual({
      topic: "orders",
      partition: 0,
      generation: 3,
      offset: 5,
      metadata: null,
      refusal: undefined,
    });
    expect(lines(script.step({ type: "drained" }))).toEqual([]); // nothing else is read meanwhile
    const sent = committed(script, ahead);
    expect(lines(sent)).toEqual(["send records orders/0 to 5", "read orders/0 from 5"]);
    expect(theOne(sent, "sendText").tellsTaken).toBe(true);
  });

  test("is sent nothing when somebody else has the partition, nor read again", () => {
    const { script, asked } = readFive();
    expect(lines(committed(script, theOne(asked, "commitAhead"), true))).toEqual([]);
    expect(lines(script.step({ type: "drained" }))).toEqual([]);
    expect(script.session.subscriptions.get("default")?.delivery.reservedBytes).toBe(0);
  });

  test("that is fenced in one partition goes on in the others", () => {
    const script = new SessionScript();
    const two = [joinedPartition(), joinedPartition({ partition: 1, generation: 4 })];
    const { effects } = script.open({ ack: "none" }, two);
    const asked = script.answer(theOne(effects, "read"), { count: 1, logEndOffset: 9 });
    expect(lines(committed(script, theOne(asked, "commitAhead"), true))).toEqual(["read orders/1 from 0"]);
  });

  test("reads and commits again what could not be committed, and sends it then", () => {
    const { script, asked } = readFive();
    const { ref } = theOne(asked, "commitAhead");
    const again = script.step({ type: "commitAheadFailed", ref });
    expect(lines(again)).toEqual(["read orders/0 from 0"]);
    const repeated = script.answer(theOne(again, "read"), { count: 5, logEndOffset: 100 });
    expect(lines(committed(script, theOne(repeated, "commitAhead")))[0]).toBe("send records orders/0 to 5");
  });

  test("is sent what is committed though it was paused in between, and nothing after that until it is resumed", () => {
    const { script, asked } = readFive();
    script.receive({ type: "pause", partitions });
    expect(lines(committed(script, theOne(asked, "commitAhead")))).toEqual(["send records orders/0 to 5"]);
    expect(lines(script.receive({ type: "resume", partitions }))).toEqual(["read orders/0 from 5"]);
  });

  test("is sent nothing while it is paused of what was not committed, or nobody knows", () => {
    const { script, asked } = readFive();
    script.receive({ type: "pause", partitions });
    const { ref } = theOne(asked, "commitAhead");
    expect(lines(script.step({ type: "commitAheadFailed", ref }))).toEqual([]);
    expect(lines(script.receive({ type: "resume", partitions }))).toEqual(["read orders/0 from 0"]);

    const reading = new SessionScript();
    const read = theOne(reading.open({ ack: "none" }).effects, "read");
    reading.receive({ type: "pause", partitions });
    expect(lines(reading.answer(read, { count: 5, logEndOffset: 100 }))).toEqual([]);
  });

  for (const isPaused of [false, true]) {
    const title = isPaused ? "a socket that is full and a pause" : "a socket that is full";
    test(`loses nothing by ${title} in between: what is committed waits for room`, () => {
      const { script, asked } = readFive();
      if (isPaused) script.receive({ type: "pause", partitions });
      script.bufferedBytes = SOCKET_BUFFER_BYTES_MAX;
      expect(lines(committed(script, theOne(asked, "commitAhead")))).toEqual([]);
      expect(lines(script.step({ type: "drained" }))).toEqual([]);
      script.bufferedBytes = 0;
      const sent = lines(script.step({ type: "drained" }));
      expect(sent).toEqual(["send records orders/0 to 5", ...(isPaused ? [] : ["read orders/0 from 5"])]);
    });
  }

  test("is not sent all at once what has waited for room in several subscriptions", () => {
    const script = new SessionScript();
    const half = { count: 1, bytes: SOCKET_BUFFER_BYTES_MAX / 2, logEndOffset: 1 };
    const aheads = ["a", "b", "c"].map((name) => {
      const window = { bytes: SOCKET_BUFFER_BYTES_MAX };
      const { effects } = script.open({ ack: "none", subscription: name, group: name, window });
      return theOne(script.answer(theOne(effects, "read"), half), "commitAhead");
    });
    script.bufferedBytes = SOCKET_BUFFER_BYTES_MAX;
    for (const ahead of aheads) committed(script, ahead);
    script.bufferedBytes = 0;
    expect(all(script.step({ type: "drained" }), "sendText")).toHaveLength(2);
    expect(all(script.step({ type: "drained" }), "sendText")).toHaveLength(1);
  });

  test("is sent nothing of what waited for room when the partition is lost, and reads the others", () => {
    const script = new SessionScript();
    const two = [joinedPartition(), joinedPartition({ partition: 1, generation: 4 })];
    const { ref, effects } = script.open({ ack: "none" }, two);
    const asked = script.answer(theOne(effects, "read"), { count: 5, logEndOffset: 100 });
    script.bufferedBytes = SOCKET_BUFFER_BYTES_MAX;
    committed(script, theOne(asked, "commitAhead"));
    script.own(ref, { lost: [{ partitionId: 70, generation: 3, reason: "rebalance" }] });
    script.bufferedBytes = 0;
    expect(lines(script.step({ type: "drained" }))).toEqual(["read orders/1 from 0"]);
  });

  test("is sent nothing of what a seek has voided in between", () => {
    const { script, asked } = readFive();
    const seek = { topic: "orders", partition: 0, to: { offset: 50 } };
    expect(lines(script.seekAndLocate(seek))).toEqual(["stop waiting orders/0", "send assigned"]);
    expect(lines(committed(script, theOne(asked, "commitAhead")))).toEqual(["read orders/0 from 50"]);
  });

  test("is sent nothing of a partition, or to a subscription, that is lost in between", () => {
    const lost = readFive();
    lost.script.own(lost.ref, { lost: [{ partitionId: 70, generation: 3, reason: "topic_deleted" }] });
    expect(lines(committed(lost.script, theOne(lost.asked, "commitAhead")))).toEqual([]);
    expect(lost.script.session.subscriptions.get("default")?.delivery.reservedBytes).toBe(0);

    const ended = readFive();
    ended.script.step({ type: "ended", ref: ended.ref, reason: "replaced" });
    expect(lines(committed(ended.script, theOne(ended.asked, "commitAhead")))).toEqual([]);
  });

  test("has a frame leave the window when the socket has taken it", () => {
    const { script, asked } = readFive({ window: { records: 10 } });
    script.bufferedBytes = 500;
    const sent = committed(script, theOne(asked, "commitAhead"));
    const second = script.answer(theOne(sent, "read"), { count: 5, logEndOffset: 100 });
    expect(all(committed(script, theOne(second, "commitAhead")), "read")).toEqual([]);
    script.bufferedBytes = 0;
    expect(lines(script.step({ type: "drained" }))).toEqual(["read orders/0 from 10"]);
  });

  test("commits nothing for a chunk without records", () => {
    const script = new SessionScript();
    const { effects } = script.open({ ack: "none" });
    expect(lines(script.answer(theOne(effects, "read"), { count: 0, next: 9, logEndOffset: 9 }))).toEqual([
      "wait orders/0 at 9",
    ]);
  });

  test("commits nothing ahead of a position that has left the log", () => {
    const script = new SessionScript();
    const { effects } = script.open({ ack: "none" });
    const asked = script.answer(theOne(effects, "read"), {
      count: 3,
      next: 8,
      logStartOffset: 5,
      logEndOffset: 9,
    });
    expect(lines(asked)).toEqual(["reposition orders/0"]);
  });
});
