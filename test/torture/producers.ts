// Producers: over HTTP one request after the other, over the socket several at once. Those with a sequence send again
// until they are answered, to whichever server is there; the others send once, and what is unknown stays so.

import type { ServerFrame } from "../../src/protocol/frames.ts";
import type { StreamClient } from "../support/stream-client.ts";
import type { Load } from "./load.ts";
import {
  conclude,
  eventOf,
  frameOf,
  type Outcome,
  outcomeOfCode,
  runsOf,
  type Send,
  sendOverHttp,
} from "./sends.ts";

/** Fewer than the sixteen whose answers a server keeps. */
const IN_FLIGHT_MAX = 6;
const RECORDS_MAX = 4;

export interface ProducerOptions {
  readonly isIdempotent: boolean;
  /** Each send goes to one of these, or as a transaction to all of them. */
  readonly topics: readonly string[];
  /** Behind each value: how large records are. */
  readonly padding?: number;
}

/** Makes sends, one sequence after the other. */
class Sends {
  readonly #load: Load;
  readonly #name: string;
  readonly #options: ProducerOptions;
  #sequence = 0;

  constructor(load: Load, name: string, options: ProducerOptions) {
    this.#load = load;
    this.#name = name;
    this.#options = options;
  }

  /** In the history from now on. */
  next(): Send {
    const { dice, recorder } = this.#load;
    const { isIdempotent, topics, padding = 0 } = this.#options;
    const name = recorder.name(this.#name);
    const isTransaction = topics.length > 1 && dice.isLucky(0.3);
    const chosen = isTransaction ? topics : [dice.pick(topics)];
    let values = 0;
    const appends = chosen.map((topic) => ({
      topic,
      values: Array.from(
        { length: dice.between(1, RECORDS_MAX) },
        () => `${name}.${values++}${"-".repeat(padding)}`,
      ),
    }));
    const sequence = isIdempotent ? this.#sequence++ : undefined;
    const send = { name, producer: this.#name, sequence, appends };
    recorder.write(eventOf(send));
    return send;
  }
}

/** Until the load sends no more, and all of its own is answered. */
export async function produceOverHttp(load: Load, name: string, options: ProducerOptions): Promise<void> {
  const sends = new Sends(load, name, options);
  while (load.isSending) {
    await load.recorder.opened();
    const outcome = await sendOverHttp(load, sends.next());
    if (outcome.kind === "refused") return; // a problem: a gap would follow
    await load.pace();
  }
}

export async function produceOverSocket(load: Load, name: string, options: ProducerOptions): Promise<void> {
  const producer = new SocketProducer(load, name, options);
  await producer.run();
}

interface Open {
  readonly send: Send;
  wasUnknown: boolean;
}

class SocketProducer {
  readonly #load: Load;
  readonly #sends: Sends;
  readonly #isIdempotent: boolean;
  /** Not answered, by name, the oldest first. */
  readonly #open = new Map<string, Open>();

  constructor(load: Load, name: string, options: ProducerOptions) {
    this.#load = load;
    this.#sends = new Sends(load, name, options);
    this.#isIdempotent = options.isIdempotent;
  }

  async run(): Promise<void> {
    while (this.#load.isSending || this.#open.size > 0) {
      const client = await this.#load.connect();
      if (!client) continue;
      for (const { send } of this.#open.values()) this.#transmit(client, send);
      const how = await this.#converse(client);
      this.#load.hangUp(client);
      await this.#load.recorder.opened();
      for (const open of [...this.#open.values()]) this.#lose(open, how);
    }
  }

  /** `left`: it goes by itself, because one was refused for now and those behind it cannot be taken. */
  async #converse(client: StreamClient): Promise<"cut" | "left"> {
    for (;;) {
      await this.#load.recorder.opened();
      while (this.#load.isSending && this.#open.size < IN_FLIGHT_MAX) {
        const send = this.#sends.next();
        this.#open.set(send.name, { send, wasUnknown: false });
        this.#transmit(client, send);
      }
      if (this.#open.size === 0) return "left";
      const frame = await client.next().catch(() => undefined);
      await this.#load.recorder.opened();
      if (!frame) return "cut";
      if (frame.type === "ping") client.send({ type: "pong" });
      if (!this.#take(frame)) return "left";
      await this.#load.pace();
    }
  }

  #transmit(client: StreamClient, send: Send): void {
    this.#load.tally.asked();
    client.send(frameOf(send));
  }

  /** False where those behind it cannot be taken either. */
  #take(frame: ServerFrame): boolean {
    const open = "id" in frame ? this.#open.get(String(frame.id)) : undefined;
    if (!open) return true;
    if (frame.type === "produced" || frame.type === "transacted") {
      this.#close(open, { kind: "sent", runs: runsOf(open.send, frame.runs.map(Object)) });
      return true;
    }
    if (frame.type !== "error") return true;
    const outcome = outcomeOfCode(frame.code);
    this.#load.tally.code(frame.code);
    const [oldest] = this.#open.values();
    const isBehind = frame.code === "sequence_gap" && oldest !== open;
    if (this.#isIdempotent && (outcome.kind !== "refused" || isBehind)) {
      open.wasUnknown ||= outcome.kind === "unknown";
      return false;
    }
    this.#close(open, outcome);
    return true;
  }

  #close({ send, wasUnknown }: Open, outcome: Outcome): void {
    this.#open.delete(send.name);
    this.#load.tally.ended("answered");
    conclude(this.#load, send, outcome, wasUnknown || outcome.kind === "unknown");
  }

  /** Its connection is gone. */
  #lose(open: Open, how: "cut" | "left"): void {
    this.#load.tally.ended(how);
    open.wasUnknown = true;
    if (this.#isIdempotent) return;
    this.#open.delete(open.send.name);
    conclude(this.#load, open.send, { kind: "unknown" }, true);
  }
}
