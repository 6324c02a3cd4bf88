// A client of the library with the network taken away: sockets that a test opens, feeds and breaks by hand, and time that
// it moves. What the client sent is read back as frames, so that a test reads as what crossed the wire.

import type { Platform } from "../../clients/typescript/platform.ts";
import { ERROR_CODES, type ErrorCode } from "../../src/protocol/codes.ts";
import type { AssignedPartition, ServerFrame } from "../../src/protocol/frames.ts";
import { FakeTime } from "./fake-time.ts";

/** A frame as a client sent it. */
export interface SentFrame extends Readonly<Record<string, unknown>> {
  readonly type: string;
  readonly id?: number;
}

/** One connection of the client. */
export class StageSocket {
  readonly url: string;
  /** What was not read by `take` yet. */
  readonly sent: SentFrame[] = [];
  isClosed = false;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: (() => void) | null = null;

  constructor(url: string) {
    this.url = url;
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  close(): void {
    this.isClosed = true;
  }

  open(): void {
    this.onopen?.();
  }

  /** The server says this. */
  say(...frames: readonly ServerFrame[]): void {
    for (const frame of frames) this.onmessage?.({ data: JSON.stringify(frame) });
  }

  /** The connection ends. */
  end(code = 1006, reason = ""): void {
    this.onclose?.({ code, reason });
  }

  /** The frames sent since the last time, oldest first. */
  take(): readonly SentFrame[] {
    return this.sent.splice(0);
  }

  /** The id of the last frame of this type: what its answer names. */
  takeId(type: string): number {
    const frame = this.sent.findLast((each) => each.type === type);
    if (frame?.id === undefined) throw new Error(`no "${type}" was sent: ${JSON.stringify(this.sent)}`);
    this.sent.length = 0;
    return frame.id;
  }
}

export class ClientStage {
  readonly time: FakeTime = new FakeTime();
  readonly sockets: StageSocket[] = [];
  /** What an HTTP request is answered; by default nobody is there. */
  answer: (url: string) => Response | Promise<Response> = () =>
    Promise.reject(new TypeError("nobody is there"));
  /** Of every draw. */
  chance = 0.5;
  readonly #wakers = new Set<() => void>();

  readonly platform: Platform = {
    startTimer: (delayMs, callback) => this.time.after(delayMs, callback),
    random: () => this.chance,
    createId: () => "id-1",
    openSocket: (url) => {
      const socket = new StageSocket(url);
      this.sockets.push(socket);
      return socket as unknown as WebSocket; // as much of one as the client uses
    },
    fetch: async (url) => this.answer(url),
    onWake: (listener) => {
      this.#wakers.add(listener);
      return () => this.#wakers.delete(listener);
    },
  };

  /** The machine is online again, or the page is seen. */
  wake(): void {
    for (const waken of this.#wakers) waken();
  }

  /** The newest connection, which has opened. */
  async connection(count: number): Promise<StageSocket> {
    await this.time.settle();
    const socket = this.sockets.at(-1);
    if (!socket || this.sockets.length !== count)
      throw new Error(`there were ${this.sockets.length} connections`);
    socket.open();
    await this.time.settle();
    return socket;
  }
}

/** A partition as `assigned` has it. */
export function assignedPartition(
  generation: number,
  position: number,
  others: Partial<AssignedPartition> = {},
): AssignedPartition {
  return {
    ...{ topic: "orders", topicId: 7, partition: 0, generation, position },
    ...{ committedOffset: position, logStartOffset: 0, logEndOffset: 1_000 },
    ...others,
  };
}

export function assignedFrame(partitions: readonly AssignedPartition[], id?: number): ServerFrame {
  return { type: "assigned", id, subscription: "s1", partitions };
}

/** Records from `from` to below `next`, whose values are their offsets. */
export function recordsFrame(
  generation: number,
  { from, next, partition = 0 }: { from: number; next: number; partition?: number },
): ServerFrame {
  const records = Array.from({ length: next - from }, (_, at) => ({
    offset: from + at,
    timestamp: 1_740_830_400_000,
    value: from + at,
  }));
  return {
    ...{ type: "records", subscription: "s1", generation, topic: "orders", partition, records, next },
    logEndOffset: 1_000,
  };
}

export function subscribedFrame(id: number | undefined, memberId?: string): ServerFrame {
  return {
    ...{ type: "subscribed", id, subscription: "s1", memberId, heartbeatMs: 15_000 },
    ...{ sessionTimeoutMs: 45_000, durability: "fsync" },
  };
}

/** An ack of one partition is durable. */
export function ackedFrame(
  id: number,
  offset: number | null,
  others: { partition?: number } = {},
): ServerFrame {
  return {
    type: "acked",
    id,
    subscription: "s1",
    offsets: [{ topic: "orders", partition: 0, offset, ...others }],
  };
}

/** The frame of this id is refused; whether the same may succeed later is for the code to say. */
export function errorFrame(id: number, code: ErrorCode, message = "no"): ServerFrame {
  return { type: "error", id, subscription: "s1", code, message, retriable: ERROR_CODES[code].retriable };
}
