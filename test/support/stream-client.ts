// A plain client of /v1/stream for tests: it sends what it is told to and hands out what comes, in order.

import type { ClientFrame, ServerFrame } from "../../src/protocol/frames.ts";

export type FrameOf<T extends ServerFrame["type"]> = Extract<ServerFrame, { type: T }>;

interface OpenOptions {
  readonly headers?: Record<string, string>;
  readonly patienceMs?: number;
}

export class StreamClient {
  readonly #socket: WebSocket;
  readonly #patienceMs: number;
  readonly #frames: ServerFrame[] = [];
  readonly #texts: string[] = [];
  #lastPong = 0;
  #waiting: (() => void) | undefined;
  #closeEvent: CloseEvent | undefined;

  private constructor(socket: WebSocket, patienceMs: number) {
    this.#socket = socket;
    this.#patienceMs = patienceMs;
    socket.onmessage = ({ data }) => {
      this.#texts.push(String(data));
      this.#frames.push(JSON.parse(String(data)));
      this.#waiting?.();
    };
    socket.onclose = (event) => {
      this.#closeEvent = event;
      this.#waiting?.();
    };
  }

  /** `patienceMs`: a wait that takes longer fails with a message, before the test's own timeout ends its server. */
  static async open(
    url: string,
    { patienceMs = Number.POSITIVE_INFINITY, ...options }: OpenOptions = {},
  ): Promise<StreamClient> {
    // Bun's WebSocket takes headers, the DOM's type does not know it.
    const socket = new WebSocket(url, options as unknown as string[]);
    const client = new StreamClient(socket, patienceMs);
    await new Promise<void>((resolve, reject) => {
      socket.onopen = () => resolve();
      socket.onerror = () => reject(new Error(`cannot connect to ${url}`));
    });
    return client;
  }

  send(frame: ClientFrame | Readonly<Record<string, unknown>>): void {
    this.sendText(JSON.stringify(frame));
  }

  sendText(data: string | Uint8Array): void {
    this.#socket.send(data as string);
  }

  /** The next frame, whatever it is. Rejects when the socket closes first. */
  async next(): Promise<ServerFrame> {
    await this.#until(() => this.#frames.length > 0);
    const frame = this.#frames.shift();
    this.#texts.shift();
    if (!frame) throw new Error(`the socket closed: ${this.#closeEvent?.code} ${this.#closeEvent?.reason}`);
    return frame;
  }

  /** The text of the next frame, byte for byte. */
  async nextText(): Promise<string> {
    await this.#until(() => this.#texts.length > 0);
    const text = this.#texts[0];
    await this.next();
    return text ?? "";
  }

  /** The next frame, which must be of this type. */
  async expect<T extends ServerFrame["type"]>(type: T): Promise<FrameOf<T>> {
    const frame = await this.next();
    if (frame.type !== type) throw new Error(`expected ${type}, received ${JSON.stringify(frame)}`);
    return frame as FrameOf<T>; // its type has just been compared
  }

  /** The next frames up to the answer to a pong sent now, without it: what the server has said until here. */
  async untilAnswered(): Promise<readonly ServerFrame[]> {
    this.#lastPong += 1;
    const id = `pong ${this.#lastPong}`;
    this.send({ type: "pong", id });
    const frames: ServerFrame[] = [];
    for (;;) {
      const frame = await this.next();
      if (frame.type === "ok" && frame.id === id) return frames;
      frames.push(frame);
    }
  }

  /** The next so many frames, whatever they are. */
  async nextMany(count: number): Promise<readonly ServerFrame[]> {
    const frames: ServerFrame[] = [];
    while (frames.length < count) frames.push(await this.next());
    return frames;
  }

  /** The next frames, which must be records, until they hold that many. */
  async expectRecords(count: number): Promise<readonly FrameOf<"records">[]> {
    const frames: FrameOf<"records">[] = [];
    let missing = count;
    while (missing > 0) {
      const frame = await this.expect("records");
      frames.push(frame);
      missing -= frame.records.length;
    }
    if (missing < 0) throw new Error(`expected ${count} records, received ${count - missing}`);
    return frames;
  }

  /** Frames that have come and were not taken. */
  get unread(): readonly ServerFrame[] {
    return this.#frames;
  }

  async closed(): Promise<{ code: number; reason: string }> {
    await this.#until(() => this.#closeEvent !== undefined);
    return { code: this.#closeEvent?.code ?? 0, reason: this.#closeEvent?.reason ?? "" };
  }

  async close(): Promise<void> {
    this.#socket.close(1000);
    await this.closed();
  }

  /** Without a word, as a network does it. */
  cut(): void {
    this.#socket.terminate();
  }

  async #until(isMet: () => boolean): Promise<void> {
    while (!isMet() && this.#closeEvent === undefined) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      this.#waiting = resolve;
      const late = () => reject(new Error(`nothing came in ${this.#patienceMs} ms`));
      const timer = Number.isFinite(this.#patienceMs) ? setTimeout(late, this.#patienceMs) : undefined;
      await promise.finally(() => clearTimeout(timer));
    }
  }
}
