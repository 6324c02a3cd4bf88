// A producer on a socket: several batches under way, and after any trouble all that is unanswered goes again, on another.

import type { Dice } from "../support/dice.ts";
import { type Batch, Batches, type Found, type ProducerOptions, pause, recordOutcome } from "./batches.ts";
import type { SimulatedSocket } from "./socket.ts";
import type { World } from "./world.ts";

export class SocketProducer {
  readonly #world: World;
  readonly #dice: Dice;
  readonly #options: ProducerOptions;
  readonly #batches: Batches;
  readonly #inFlightMax: number;
  /** In order. */
  #unanswered: (Batch & { readonly sequence: number })[] = [];
  #sequence = 0;
  #socket: SimulatedSocket | undefined;

  constructor(world: World, options: ProducerOptions) {
    this.#world = world;
    this.#options = options;
    this.#dice = world.dice.fork(options.name);
    this.#batches = new Batches(world, this.#dice, { ...options, isIdempotent: true });
    this.#inFlightMax = this.#dice.between(1, 6);
  }

  async run(): Promise<void> {
    while (!this.#world.isEnding || this.#unanswered.length > 0) {
      await pause(this.#world, this.#dice);
      if (!this.#socket?.isOpen) await this.#connect();
      if (this.#unanswered.length < this.#inFlightMax && !this.#world.isEnding) this.#sendNext();
    }
    this.#socket?.hangUp();
  }

  #sendNext(): void {
    const batch = { ...this.#batches.next(), sequence: this.#sequence };
    this.#sequence += 1;
    this.#unanswered.push(batch);
    this.#send(batch);
  }

  #send({ sequence, records }: Batch & { readonly sequence: number }): void {
    const { name, topic } = this.#options;
    const producer = { id: name, epoch: 0, sequence };
    this.#socket?.send({ type: "produce", id: sequence, topic, records, producer });
  }

  async #connect(): Promise<void> {
    this.#socket = await this.#world.pickServer(this.#dice)?.connect({
      onClose: () => {},
      onFrame: (frame) => {
        if (frame.type === "produced") this.#settle(Number(frame.id), frame);
        if (frame.type === "error") this.#trouble(frame);
        if (frame.type === "draining") this.#socket?.hangUp();
        if (frame.type === "ping") this.#socket?.send({ type: "pong" });
      },
    });
    for (const batch of this.#unanswered) this.#send(batch);
  }

  #settle(sequence: number, found: Found): void {
    const batch = this.#unanswered.find((each) => each.sequence === sequence);
    this.#unanswered = this.#unanswered.filter((each) => each.sequence !== sequence);
    if (batch) recordOutcome(this.#world, { ...batch, topic: this.#options.topic }, found);
  }

  /** A gap is the trouble of the one before it. */
  #trouble({ code, retriable, message }: { code: string; retriable: boolean; message: string }): void {
    if (!retriable && code !== "sequence_gap") throw new Error(`${this.#options.name}: ${code}: ${message}`);
    this.#socket?.hangUp();
  }
}
