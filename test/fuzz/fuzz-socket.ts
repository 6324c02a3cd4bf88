// A client that sends whatever it is given, and keeps account: every id that was sent is answered once, and soon.

import type { ServerFrame } from "../../src/protocol/frames.ts";
import type { Facts } from "./good-frames.ts";

/** A guard against hanging: on a busy machine a disk may stand still for longer than a second. */
export const HANG_MS = 5_000;
const KNOWN_MAX = 6;
/** No mutation makes it. */
const BARRIER_ID = "barrier";

type Id = string | number;

export class FuzzSocket {
  readonly #socket: WebSocket;
  readonly #facts: { acks: Facts["acks"][number][]; memberIds: string[] } = { acks: [], memberIds: [] };
  /** How often each is still to be answered, by its JSON text. */
  readonly #owed = new Map<string, number>();
  #progress: (() => void) | undefined;
  #closed: { readonly code: number } | undefined;
  #failure: Error | undefined;
  /** Records that the server says it has written for this socket. */
  written = 0;
  answers = 0;
  slowestMs = 0;
  lastError: Extract<ServerFrame, { type: "error" }> | undefined;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(String(data)));
    socket.onclose = ({ code }) => {
      this.#closed = { code };
      this.#progress?.();
    };
  }

  static open(url: string): Promise<FuzzSocket> {
    const socket = new WebSocket(url);
    const client = new FuzzSocket(socket);
    return new Promise((resolve, reject) => {
      socket.onopen = () => resolve(client);
      socket.onerror = () => reject(new Error(`cannot connect to ${url}`));
    });
  }

  /** What it was told last, where it was told anything. */
  get facts(): Partial<Facts> {
    const { acks, memberIds } = this.#facts;
    return { ...(acks.length > 0 && { acks }), ...(memberIds.length > 0 && { memberIds }) };
  }

  /** `id`: to be answered. */
  send(text: string, id: Id | undefined): void {
    if (id !== undefined) this.#owe(id, 1);
    this.#socket.send(text);
  }

  /** Resolves when every id is answered. */
  async untilAnswered(): Promise<void> {
    await this.#until(() => this.#owed.size === 0, "is not answered");
    if (this.#closed) throw new Error(`closed with ${this.#closed.code}: ${this.lastError?.message}`);
  }

  /** Writes of a socket are done in their order: when this one is answered, all are, those without an id too. */
  async untilWritten(topic: string): Promise<void> {
    const records = [{ value: BARRIER_ID }];
    this.send(JSON.stringify({ type: "produce", id: BARRIER_ID, topic, records }), BARRIER_ID);
    await this.untilAnswered();
  }

  async closed(): Promise<number> {
    await this.#until(() => this.#closed !== undefined, "is not closed");
    return this.#closed?.code ?? 0;
  }

  async close(): Promise<void> {
    this.#socket.close(1000);
    await this.closed();
  }

  async #until(isMet: () => boolean, what: string): Promise<void> {
    const startMs = performance.now();
    while (!isMet() && !this.#closed && !this.#failure) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      this.#progress = resolve;
      const hung = () => reject(new Error(`${what} after ${HANG_MS} ms: ${[...this.#owed.keys()]}`));
      const timer = setTimeout(hung, HANG_MS - (performance.now() - startMs));
      await promise.finally(() => clearTimeout(timer));
    }
    this.slowestMs = Math.max(this.slowestMs, performance.now() - startMs);
    if (this.#failure) throw this.#failure;
  }

  #owe(id: Id, change: 1 | -1): void {
    const key = JSON.stringify(id);
    const owed = (this.#owed.get(key) ?? 0) + change;
    if (owed === 0) this.#owed.delete(key);
    else this.#owed.set(key, owed);
    if (owed < 0) this.#failure ??= new Error(`${key} is answered and was not asked, or twice`);
  }

  #receive(frame: ServerFrame): void {
    if ("id" in frame && frame.id !== undefined) {
      this.answers += 1;
      this.#owe(frame.id, -1);
    }
    this.#learn(frame);
    this.#progress?.();
  }

  #learn(frame: ServerFrame): void {
    const { acks, memberIds } = this.#facts;
    switch (frame.type) {
      case "produced":
      case "transacted":
        if (!frame.duplicate) for (const { count } of frame.runs) this.written += count;
        return;
      case "records":
        acks.unshift({ ...named(frame), generation: frame.generation, offset: frame.next });
        acks.length = Math.min(acks.length, KNOWN_MAX);
        return;
      case "subscribed":
        if (frame.memberId !== undefined) memberIds.push(frame.memberId);
        return;
      case "error":
        this.lastError = frame;
        return;
      default:
        return;
    }
  }
}

function named({ topic, partition }: { readonly topic: string; readonly partition: number }) {
  return { topic, partition };
}
