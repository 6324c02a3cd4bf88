// A client of /v1/stream with the standard WebSocket: it sends what it is told to, hands out what comes in order, and
// answers `ping` from its message handler. A wait has a deadline, and fails with what has come.

import type { ClientFrame, DeliveredRecord, ServerFrame } from "../../src/protocol/frames.ts";
import type { ServerUnderTest } from "./check.ts";

export type FrameOf<T extends ServerFrame["type"]> = Extract<ServerFrame, { type: T }>;

/** Below a heartbeat: the answer to a ping may set going again what has wrongly come to a stop. */
const PATIENCE_MS = 10_000;
const SHOWN_FRAMES = 8;
const SHOWN_CHARACTERS = 300;

interface Received {
  readonly frame: ServerFrame;
  readonly text: string;
}

/** `using` closes it. */
export class Socket implements Disposable {
  /** The text of the frame that was taken last, byte for byte. */
  text = "";
  readonly #socket: WebSocket;
  readonly #queue: Received[] = [];
  readonly #seen: string[] = [];
  #end: { readonly code: number; readonly reason: string } | undefined;
  #wake: (() => void) | undefined;
  #pongs = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#take(String(data));
    socket.onclose = ({ code, reason }) => {
      this.#end = { code, reason };
      this.#wake?.();
    };
  }

  /** `query`: with its question mark. */
  static async open({ streamUrl }: ServerUnderTest, query = ""): Promise<Socket> {
    const socket = new WebSocket(streamUrl + query);
    const client = new Socket(socket);
    await new Promise<void>((resolve, reject) => {
      socket.onopen = () => resolve();
      socket.onerror = () => reject(new Error(`cannot open ${streamUrl}${query}`));
    });
    return client;
  }

  send(frame: ClientFrame | Readonly<Record<string, unknown>>): void {
    this.#socket.send(JSON.stringify(frame));
  }

  sendText(text: string): void {
    this.#socket.send(text);
  }

  sendBytes(bytes: Uint8Array<ArrayBuffer>): void {
    this.#socket.send(bytes);
  }

  /** The next frame. Rejects when the socket closes first. */
  async next(): Promise<ServerFrame> {
    await this.#until(() => this.#queue.length > 0, "a frame");
    const received = this.#queue.shift();
    if (!received) throw new Error(`the socket closed: ${JSON.stringify(this.#end)}; ${this.#story()}`);
    this.text = received.text;
    return received.frame;
  }

  /** The next frame, which must be of this type. */
  async expect<T extends ServerFrame["type"]>(type: T): Promise<FrameOf<T>> {
    const frame = await this.next();
    if (frame.type !== type) throw new Error(`expected ${type}; ${this.#story()}`);
    return frame as FrameOf<T>; // its type has just been compared
  }

  /** The first frame of this type; those before it are dropped. */
  async until<T extends ServerFrame["type"]>(type: T): Promise<FrameOf<T>> {
    for (;;) {
      const frame = await this.next();
      if (frame.type === type) return frame as FrameOf<T>; // its type has just been compared
    }
  }

  /** The records of the next frames, which must hold so many. */
  async records(count: number): Promise<readonly DeliveredRecord[]> {
    const records: DeliveredRecord[] = [];
    while (records.length < count) records.push(...(await this.expect("records")).records);
    if (records.length > count) throw new Error(`expected ${count} records; ${this.#story()}`);
    return records;
  }

  /** What the server has said until it answers a frame that is sent now. */
  async settle(): Promise<readonly ServerFrame[]> {
    this.#pongs += 1;
    const id = `settle ${this.#pongs}`;
    this.send({ type: "pong", id });
    const frames: ServerFrame[] = [];
    for (;;) {
      const frame = await this.next();
      if (frame.type === "ok" && frame.id === id) return frames;
      frames.push(frame);
    }
  }

  /** How the server closes it, or has closed it. */
  async closed(): Promise<{ readonly code: number; readonly reason: string }> {
    await this.#until(() => this.#end !== undefined, "the end of the socket");
    return this.#end ?? { code: 0, reason: "" };
  }

  async close(): Promise<void> {
    this.#socket.close(1000);
    await this.closed();
  }

  [Symbol.dispose](): void {
    this.#socket.close(1000);
  }

  #take(text: string): void {
    const frame: ServerFrame = JSON.parse(text);
    this.#seen.push(text.slice(0, SHOWN_CHARACTERS));
    if (frame.type === "ping") return this.send({ type: "pong" });
    this.#queue.push({ frame, text });
    this.#wake?.();
  }

  async #until(isMet: () => boolean, what: string): Promise<void> {
    const lateAtMs = Date.now() + PATIENCE_MS;
    while (!isMet() && this.#end === undefined) {
      const leftMs = lateAtMs - Date.now();
      if (leftMs <= 0) throw new Error(`no sign of ${what} in ${PATIENCE_MS} ms; ${this.#story()}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  #story(): string {
    return `received ${this.#seen.length} frames, the last: ${this.#seen.slice(-SHOWN_FRAMES).join(" ")}`;
  }
}
