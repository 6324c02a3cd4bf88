// The history of one power cut while it is being written, and the values in it.

import type { ClientFrame, ServerFrame } from "../../src/protocol/frames.ts";
import type { HistoryEvent, OffsetEntry, SeenRecord, SendEvent } from "../proof/history.ts";

export type Send = (frame: ClientFrame) => void;

/** What a client must do with its socket; the frames of one socket come to it in order. */
export interface FrameClient {
  onFrame(frame: ServerFrame, send: Send): void;
}

/** A client that is not heard of for so long will not be heard of any more. */
const PATIENCE_MS = 30_000;

export class Journal {
  readonly events: HistoryEvent[] = [];
  /** Sends and acks that were answered. */
  answered = 0;
  /** Of the sends that were answered. */
  records = 0;
  readonly #unanswered = new Set<string>();
  #waiting: (() => void)[] = [];
  #names = 0;
  #hopeless: string | undefined;

  add(event: HistoryEvent): void {
    this.events.push(event);
    if (event.type === "sent" || event.type === "acked") this.answered += 1;
    this.#wake();
  }

  /** A name that nothing in this history has yet. */
  name(what: string): string {
    this.#names += 1;
    return `${what}-${this.#names}`;
  }

  /** Writes down what is about to be sent. Returns its name. */
  send(send: Omit<SendEvent, "type" | "send">): string {
    const name = this.name("send");
    this.#unanswered.add(name);
    this.add({ type: "send", send: name, ...send });
    return name;
  }

  sent(send: string, runs: (HistoryEvent & { type: "sent" })["runs"]): void {
    this.#unanswered.delete(send);
    this.records += runs.reduce((sum, { count }) => sum + count, 0);
    this.add({ type: "sent", send, runs });
  }

  notSent(send: string, code: string): void {
    this.#unanswered.delete(send);
    this.add({ type: "not-sent", send, code });
  }

  acking(consumer: string, offsets: readonly OffsetEntry[]): string {
    const ack = this.name("ack");
    this.add({ type: "acking", consumer, ack, offsets });
    return ack;
  }

  get unanswered(): number {
    return this.#unanswered.size;
  }

  /** Nobody needs to wait any more for what depends on this. */
  giveUp(why: string): void {
    this.#hopeless = why;
    this.#wake();
  }

  /** Resolves when it is so after some event. */
  async until(isMet: () => boolean, what: string): Promise<void> {
    const late = Date.now() + PATIENCE_MS;
    while (!isMet()) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.push(resolve);
      const timer = setTimeout(resolve, late - Date.now());
      await promise.finally(() => clearTimeout(timer));
      if (this.#hopeless !== undefined) throw new Error(`${what}: ${this.#hopeless}`);
      if (Date.now() >= late && !isMet()) throw new Error(`not in ${PATIENCE_MS} ms: ${what}`);
    }
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}

const FILLER = "x";

/** A value's name says how long it is, so that what comes back is known to be whole; histories have the name only. */
export function valueText(name: string, bytes: number): string {
  return `${name}:${bytes}:${FILLER.repeat(bytes)}`;
}

/** The name; or the text itself where it is not what was sent. */
export function valueName(text: unknown): string {
  const [name = "", bytes] = String(text).split(":");
  return valueText(name, Number(bytes)) === text ? name : String(text).slice(0, 100);
}

export function seenRecords(
  records: readonly { readonly offset: number; readonly value?: unknown }[],
): readonly SeenRecord[] {
  return records.map(({ offset, value }) => ({ offset, value: valueName(value) }));
}
