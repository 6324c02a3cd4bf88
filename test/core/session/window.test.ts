import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  addPartition,
  type ChunkExtent,
  createDelivery,
  type Delivery,
  dropPartition,
  endRead,
  freeAcked,
  moveTo,
  nextRead,
  type PartitionDelivery,
  takeChunk,
} from "../../../src/core/session/window.ts";
import type { Window } from "../../../src/protocol/frames.ts";
import {
  CHUNK_BYTES_MAX,
  CHUNK_RECORDS_MAX,
  SOCKET_WINDOW_BYTES_MAX,
  WINDOW_BYTES_MAX,
  WINDOW_BYTES_MIN,
  WINDOW_RECORDS_MAX,
} from "../../../src/protocol/limits.ts";
import { readSizes } from "../../support/session-script.ts";

const KIB = 1024;
const LOG_END = 1_000_000;

function deliveryOf(
  window: Partial<Window> = {},
  partitions = 1,
): {
  delivery: Delivery;
  turns: PartitionDelivery[];
  first: PartitionDelivery;
} {
  const delivery = createDelivery({ records: 1_000, bytes: 1_024 * KIB, ...window });
  const turns = Array.from({ length: partitions }, (_, partition) => partitionOf(partition, delivery));
  return { delivery, turns, first: turns[0] ?? partitionOf(0) };
}

/** It takes turns in the delivery; without one it stands alone. */
function partitionOf(
  partition: number,
  delivery = createDelivery({ records: 1, bytes: 1 }),
): PartitionDelivery {
  return addPartition(delivery, {
    topic: "orders",
    topicId: 7,
    partition,
    partitionId: 70 + partition,
    generation: 3,
    position: 0,
  });
}

/** What a read of a log of a million records brought. */
const chunkOf = (extent: Partial<ChunkExtent>): ChunkExtent => ({
  count: 0,
  bytes: 0,
  next: 0,
  logStartOffset: 0,
  logEndOffset: LOG_END,
  ...extent,
});

function send(
  delivery: Delivery,
  partition: PartitionDelivery,
  { count, nowMs = 0, ...extent }: { count: number; bytes?: number; next?: number; nowMs?: number },
): boolean {
  const next = (partition.position ?? 0) + count;
  return takeChunk(delivery, partition, { chunk: chunkOf({ next, count, ...extent }), nowMs });
}

const unackedOf = ({ unackedRecords, unackedBytes }: Delivery) => ({ unackedRecords, unackedBytes });
/** `takenBytes`: what other subscriptions of the socket have taken. */
const read = (delivery: Delivery, takenBytes = 0) => {
  const taken = takenBytes + delivery.unackedBytes;
  return nextRead(delivery, { bytes: SOCKET_WINDOW_BYTES_MAX - taken, isEmpty: taken === 0 });
};

describe("nextRead()", () => {
  test("asks for the partition's position and marks it as being read", () => {
    const { delivery, first } = deliveryOf();
    first.position = 42;
    expect(read(delivery)?.request).toMatchObject({ partitionId: 70, from: 42 });
    expect(first.phase).toBe("reading");
    expect(read(delivery)).toBeUndefined();
  });

  test("reads one partition at a time, though another is ready", () => {
    const { delivery } = deliveryOf({}, 2);
    expect(read(delivery)?.partition.partition).toBe(0);
    expect(read(delivery)).toBeUndefined();
  });

  test("finds nothing where no partition is ready", () => {
    const { delivery, first } = deliveryOf();
    first.phase = "waiting";
    expect(read(delivery)).toBeUndefined();
    expect(read(createDelivery({ records: 1, bytes: WINDOW_BYTES_MIN }))).toBeUndefined();
  });

  const limits: readonly {
    readonly title: string;
    readonly window: Window;
    readonly unacked?: { readonly records: number; readonly bytes: number };
    readonly takenBytes?: number;
    readonly expected: { readonly recordsMax: number; readonly bytesMax: number } | undefined;
  }[] = [
    {
      title: "at most what a frame may hold",
      window: { records: WINDOW_RECORDS_MAX, bytes: WINDOW_BYTES_MAX },
      expected: { recordsMax: CHUNK_RECORDS_MAX, bytesMax: CHUNK_BYTES_MAX },
    },
    {
      title: "at most half the window",
      window: { records: 100, bytes: 64 * KIB },
      expected: { recordsMax: 50, bytesMax: 32 * KIB },
    },
    {
      title: "half of an odd window, rounded down",
      window: { records: 9, bytes: 65_537 },
      expected: { recordsMax: 4, bytesMax: 32_768 },
    },
    {
      title: "one record of a window of one",
      window: { records: 1, bytes: 64 * KIB },
      expected: { recordsMax: 1, bytesMax: 32 * KIB },
    },
    {
      title: "at most the records that are left",
      window: { records: 100, bytes: 64 * KIB },
      unacked: { records: 99, bytes: 0 },
      expected: { recordsMax: 1, bytesMax: 32 * KIB },
    },
    {
      title: "at most the bytes that are left",
      window: { records: 100, bytes: 64 * KIB },
      unacked: { records: 1, bytes: 64 * KIB - 1 },
      expected: { recordsMax: 50, bytesMax: 1 },
    },
    {
      title: "at most what the socket has left",
      window: { records: 100, bytes: 64 * KIB },
      takenBytes: SOCKET_WINDOW_BYTES_MAX - 10,
      expected: { recordsMax: 50, bytesMax: 10 },
    },
    {
      title: "nothing when no record is left",
      window: { records: 100, bytes: 64 * KIB },
      unacked: { records: 100, bytes: 0 },
      expected: undefined,
    },
    {
      title: "nothing when no byte is left",
      window: { records: 100, bytes: 64 * KIB },
      unacked: { records: 1, bytes: 64 * KIB },
      expected: undefined,
    },
    {
      title: "nothing when an oversized record is unacknowledged",
      window: { records: 100, bytes: 64 * KIB },
      unacked: { records: 1, bytes: 900 * KIB },
      expected: undefined,
    },
    {
      title: "nothing when the socket has nothing left",
      window: { records: 100, bytes: 64 * KIB },
      takenBytes: SOCKET_WINDOW_BYTES_MAX,
      expected: undefined,
    },
    {
      title: "nothing when the socket has less than nothing left",
      window: { records: 100, bytes: 64 * KIB },
      takenBytes: SOCKET_WINDOW_BYTES_MAX + 1,
      expected: undefined,
    },
  ];
  for (const { title, window, unacked, takenBytes, expected } of limits) {
    test(`asks for ${title}`, () => {
      const { delivery } = deliveryOf(window);
      delivery.unackedRecords = unacked?.records ?? 0;
      delivery.unackedBytes = unacked?.bytes ?? 0;
      const request = read(delivery, takenBytes)?.request;
      if (expected) expect(request).toMatchObject(expected);
      else expect(request).toBeUndefined();
    });
  }

  test("asks for no large record before it is known that one comes", () => {
    const { delivery } = deliveryOf({ bytes: 64 * KIB });
    expect(read(delivery)?.request.loneRecordBytesMax).toBe(0);
  });

  test("asks for a record larger than the window when the window is empty, as far as the socket has room", () => {
    const { delivery, first } = deliveryOf({ bytes: 64 * KIB });
    first.nextRecordBytes = SOCKET_WINDOW_BYTES_MAX - 9;
    expect(read(delivery, 10)).toBeUndefined();
    first.nextRecordBytes = SOCKET_WINDOW_BYTES_MAX - 10;
    expect(read(delivery, 10)?.request.loneRecordBytesMax).toBe(SOCKET_WINDOW_BYTES_MAX - 10);
  });

  test("asks for a record of any size while nothing is unacknowledged on the socket, and only then", () => {
    const { delivery, first } = deliveryOf({ bytes: 64 * KIB });
    first.nextRecordBytes = 2 * SOCKET_WINDOW_BYTES_MAX;
    expect(read(delivery, 1)).toBeUndefined();
    expect(read(delivery)?.request.loneRecordBytesMax).toBe(2 * SOCKET_WINDOW_BYTES_MAX);
  });

  test("asks alike for all who are at the same place, whatever else they have unacknowledged", () => {
    const requests = [0, 100, 700].map((unacked) => {
      const { delivery, first } = deliveryOf({ records: 10_000, bytes: WINDOW_BYTES_MAX });
      first.position = 5_000;
      delivery.unackedRecords = unacked;
      delivery.unackedBytes = unacked * 200;
      return read(delivery)?.request;
    });
    expect(new Set(requests.map((request) => JSON.stringify(request))).size).toBe(1);
  });

  test("comes back to a record that did not fit when there is room for it", () => {
    const { delivery, first } = deliveryOf({ bytes: 64 * KIB });
    send(delivery, first, { count: 1, bytes: 20 * KIB });
    const tooLarge = chunkOf({ next: 1, firstRecordBytes: 50 * KIB });
    expect(takeChunk(delivery, first, { chunk: tooLarge, nowMs: 0 })).toBe(false);
    expect(first).toMatchObject({ position: 1, furthest: 1, phase: "ready" });
    expect(read(delivery)).toBeUndefined();
    freeAcked(delivery, first, { offset: 1, nowMs: 0 });
    expect(read(delivery)?.request.from).toBe(1);
  });

  test("reserves what the read may bring: the frame, or the one record that is known to be larger", () => {
    const { delivery, first } = deliveryOf({ bytes: 64 * KIB });
    read(delivery);
    expect(delivery.reservedBytes).toBe(32 * KIB);
    endRead(delivery, first);
    first.nextRecordBytes = 50 * KIB;
    read(delivery);
    expect(delivery.reservedBytes).toBe(50 * KIB);
  });

  test("lets nobody overtake a record that waits for its room", () => {
    const { delivery, first } = deliveryOf({ bytes: 64 * KIB }, 2);
    send(delivery, first, { count: 1, bytes: 20 * KIB });
    first.nextRecordBytes = 50 * KIB;
    expect(read(delivery)).toBeUndefined();
    freeAcked(delivery, first, { offset: 1, nowMs: 0 });
    expect(read(delivery)?.partition).toBe(first);
  });

  test("gives partitions turns in the order in which they were served last", () => {
    const { delivery } = deliveryOf({}, 3);
    const order = Array.from({ length: 6 }, () => {
      const partition = read(delivery)?.partition ?? partitionOf(-1);
      send(delivery, partition, { count: 1 });
      return partition.partition;
    });
    expect(order).toEqual([0, 1, 2, 0, 1, 2]);
  });
});

describe("takeChunk()", () => {
  test("counts what was sent and moves the position and the furthest position", () => {
    const { delivery, first } = deliveryOf();
    expect(send(delivery, first, { count: 10, bytes: 500 })).toBe(true);
    expect(unackedOf(delivery)).toEqual({ unackedRecords: 10, unackedBytes: 500 });
    expect(first).toMatchObject({ position: 10, furthest: 10, phase: "ready" });
  });

  test("that brought nothing counts nothing and says that there is nothing to send", () => {
    const { delivery, first } = deliveryOf();
    const nothing = chunkOf({ logEndOffset: 0 });
    expect(takeChunk(delivery, first, { chunk: nothing, nowMs: 0 })).toBe(false);
    expect(unackedOf(delivery)).toEqual({ unackedRecords: 0, unackedBytes: 0 });
    expect(first).toMatchObject({ position: 0, furthest: 0, phase: "waiting", sent: [] });
  });

  test("at the log end, or beyond what that was, waits", () => {
    for (const logEndOffset of [9, 10]) {
      const { delivery, first } = deliveryOf();
      takeChunk(delivery, first, {
        chunk: chunkOf({ count: 10, bytes: 1, next: 10, logEndOffset }),
        nowMs: 0,
      });
      expect(first.phase).toBe("waiting");
    }
  });

  test("below the log end stays ready", () => {
    const { delivery, first } = deliveryOf();
    takeChunk(delivery, first, {
      chunk: chunkOf({ count: 10, bytes: 1, next: 10, logEndOffset: 11 }),
      nowMs: 0,
    });
    expect(first.phase).toBe("ready");
  });
});

describe("endRead()", () => {
  test("gives back what was reserved and lets the partition be read again from the same position", () => {
    const { delivery, first } = deliveryOf();
    const before = read(delivery)?.request;
    expect(delivery.reservedBytes).toBeGreaterThan(0);
    endRead(delivery, first);
    expect(delivery.reservedBytes).toBe(0);
    expect(read(delivery)?.request).toEqual(before);
  });
});

describe("freeAcked()", () => {
  /** [0, 10) of 100 bytes, [10, 20) of 200 bytes. */
  const sentTwo = () => {
    const made = deliveryOf();
    send(made.delivery, made.first, { count: 10, bytes: 100 });
    send(made.delivery, made.first, { count: 10, bytes: 200 });
    return made;
  };
  const cases: readonly [acks: readonly number[], unackedRecords: number, unackedBytes: number][] = [
    [[0], 20, 300],
    [[10], 10, 200],
    [[20], 0, 0],
    [[10, 20], 0, 0],
    [[20, 10], 0, 0],
    [[10, 10], 10, 200],
    [[999], 0, 0],
  ];
  for (const [acks, unackedRecords, unackedBytes] of cases) {
    test(`of ${acks.join(", then ")} leaves ${unackedRecords} records, ${unackedBytes} bytes`, () => {
      const { delivery, first } = sentTwo();
      for (const offset of acks) freeAcked(delivery, first, { offset, nowMs: 0 });
      expect(unackedOf(delivery)).toEqual({ unackedRecords, unackedBytes });
    });
  }

  test("inside a frame frees the records that it covers, and bytes never too early", () => {
    const { delivery, first } = sentTwo();
    freeAcked(delivery, first, { offset: 13, nowMs: 0 });
    expect(delivery.unackedRecords).toBe(7);
    expect(delivery.unackedBytes).toBeLessThanOrEqual(200);
    expect(delivery.unackedBytes).toBeGreaterThan(0);
    freeAcked(delivery, first, { offset: 20, nowMs: 0 });
    expect(unackedOf(delivery)).toEqual({ unackedRecords: 0, unackedBytes: 0 });
  });

  test("inside a frame with gaps never frees a record that is not covered", () => {
    const { delivery, first } = deliveryOf();
    send(delivery, first, { count: 3, bytes: 30, next: 100 }); // for instance 10, 98 and 99
    freeAcked(delivery, first, { offset: 11, nowMs: 0 });
    expect(delivery.unackedRecords).toBeGreaterThanOrEqual(2);
    freeAcked(delivery, first, { offset: 99, nowMs: 0 });
    expect(delivery.unackedRecords).toBe(1);
  });

  test("leaves what another partition holds", () => {
    const { delivery, turns } = deliveryOf({}, 2);
    const [first = partitionOf(0), second = partitionOf(1)] = turns;
    send(delivery, first, { count: 10, bytes: 100 });
    send(delivery, second, { count: 4, bytes: 40 });
    freeAcked(delivery, first, { offset: 10, nowMs: 0 });
    expect(unackedOf(delivery)).toEqual({ unackedRecords: 4, unackedBytes: 40 });
  });

  test("never counts below nothing, and at the end there is nothing", () => {
    const chunks = fc.array(
      fc.record({
        count: fc.integer({ min: 1, max: 50 }),
        bytes: fc.integer({ min: 1, max: 5_000 }),
        gap: fc.integer({ min: 0, max: 5 }),
      }),
      { minLength: 1, maxLength: 8 },
    );
    const property = fc.property(chunks, fc.array(fc.nat(500)), (sent, offsets) => {
      const { delivery, first } = deliveryOf();
      for (const { count, bytes, gap } of sent) {
        send(delivery, first, { count, bytes, next: (first.position ?? 0) + count + gap });
      }
      for (const offset of offsets) {
        freeAcked(delivery, first, { offset, nowMs: 0 });
        expect(Math.min(delivery.unackedRecords, delivery.unackedBytes)).toBeGreaterThanOrEqual(0);
      }
      freeAcked(delivery, first, { offset: first.furthest, nowMs: 0 });
      expect(unackedOf(delivery)).toEqual({ unackedRecords: 0, unackedBytes: 0 });
      expect(first.sent).toEqual([]);
    });
    fc.assert(property);
  });
});

describe("a delivery", () => {
  test("sends every record once and in order, whatever the sizes, and comes to an end", () => {
    const sizes = fc.array(
      fc.oneof(fc.integer({ min: 1, max: 2_000 }), fc.integer({ min: 1, max: 200_000 })),
      {
        maxLength: 60,
      },
    );
    const property = fc.property(
      fc.array(sizes, { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 1, max: 20 }),
      (logs, windowRecords) => {
        const { delivery, turns } = deliveryOf(
          { records: windowRecords, bytes: WINDOW_BYTES_MIN },
          logs.length,
        );
        const logOf = ({ partition }: PartitionDelivery) => logs[partition] ?? [];
        const readsMax = 10 * logs.flat().length + 10 * logs.length;
        for (let reads = 0; turns.some(({ phase }) => phase !== "waiting"); reads += 1) {
          expect(reads).toBeLessThan(readsMax);
          const found = read(delivery);
          if (!found) {
            const oldest = turns.find(({ sent }) => sent.length > 0);
            expect(oldest).toBeDefined(); // nothing to read and nothing to acknowledge: stuck
            if (oldest) freeAcked(delivery, oldest, { offset: oldest.sent[0]?.next ?? 0, nowMs: 0 });
            continue;
          }
          expect(found.request.from).toBe(found.partition.furthest);
          const chunk = readSizes(logOf(found.partition), found.request);
          takeChunk(delivery, found.partition, { chunk, nowMs: 0 });
        }
        expect(turns.map(({ furthest }) => furthest)).toEqual(logs.map(({ length }) => length));
      },
    );
    fc.assert(property);
  });
});

describe("unackedSinceMs", () => {
  test("is when the first record was sent of what is out, whatever is sent later", () => {
    const { delivery, first } = deliveryOf();
    expect(first.unackedSinceMs).toBeUndefined();
    send(delivery, first, { count: 1, nowMs: 5 });
    send(delivery, first, { count: 1, nowMs: 9 });
    expect(first.unackedSinceMs).toBe(5);
  });

  test("is when something of it was acknowledged last, and nothing when all of it is", () => {
    const { delivery, first } = deliveryOf();
    send(delivery, first, { count: 10, nowMs: 5 });
    const cases = [
      [0, 5],
      [3, 20],
      [3, 20],
      [2, 20],
      [4, 50],
    ] as const;
    cases.forEach(([offset, sinceMs], index) => {
      freeAcked(delivery, first, { offset, nowMs: 10 * (index + 1) });
      expect(first.unackedSinceMs).toBe(sinceMs);
    });
    freeAcked(delivery, first, { offset: 10, nowMs: 70 });
    expect(first.unackedSinceMs).toBeUndefined();
  });

  test("is not set by a chunk without records", () => {
    const { delivery, first } = deliveryOf();
    takeChunk(delivery, first, { chunk: chunkOf({ next: 5 }), nowMs: 5 });
    expect(first.unackedSinceMs).toBeUndefined();
  });
});

describe("moveTo()", () => {
  test("gives up what the partition holds and what is known of it, and leaves the others", () => {
    const { delivery, turns, first } = deliveryOf({ bytes: 64 * KIB }, 2);
    for (const partition of turns) send(delivery, partition, { count: 10, bytes: 100 });
    first.nextRecordBytes = 50 * KIB;
    moveTo(delivery, first, 3);
    expect(unackedOf(delivery)).toEqual({ unackedRecords: 10, unackedBytes: 100 });
    expect(first).toMatchObject({
      position: 3,
      furthest: 10,
      run: 1,
      phase: "ready",
      sent: [],
      nextRecordBytes: 0,
    });
    expect(first.unackedSinceMs).toBeUndefined();
  });

  test("raises the furthest position, and never lowers it", () => {
    const { delivery, first } = deliveryOf();
    moveTo(delivery, first, 50);
    moveTo(delivery, first, 20);
    moveTo(delivery, first, null);
    expect(first).toMatchObject({ position: null, furthest: 50, run: 3, phase: "halted" });
    expect(read(delivery)).toBeUndefined();
  });

  test("makes a partition that waits ready", () => {
    const { delivery, first } = deliveryOf();
    first.phase = "waiting";
    moveTo(delivery, first, 0);
    expect(read(delivery)?.request.from).toBe(0);
  });
});

describe("dropPartition()", () => {
  test("takes the partition out of the turns and what it holds out of the window", () => {
    const { delivery, turns, first } = deliveryOf({}, 3);
    for (const partition of turns) send(delivery, partition, { count: 10, bytes: 100 });
    dropPartition(delivery, first);
    expect(unackedOf(delivery)).toEqual({ unackedRecords: 20, unackedBytes: 200 });
    expect(delivery.turns.map(({ partition }) => partition)).toEqual([1, 2]);
  });

  test("leaves the room of a read that is under way reserved until it ends", () => {
    const { delivery, first } = deliveryOf({}, 2);
    read(delivery);
    dropPartition(delivery, first);
    expect(read(delivery)).toBeUndefined();
    endRead(delivery, undefined);
    expect(read(delivery)?.partition.partition).toBe(1);
  });
});

test("nextRead() passes over a partition that is paused", () => {
  const { delivery, first } = deliveryOf({}, 2);
  first.isPaused = true;
  expect(read(delivery)?.partition.partition).toBe(1);
  endRead(delivery, delivery.turns[1]);
  first.isPaused = false;
  expect(read(delivery)?.partition.partition).toBe(0);
});
