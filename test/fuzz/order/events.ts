// What happens beside single frames: several at once, sockets that close, time, an operator's reset.

import { expect } from "bun:test";
import type { Command, FrameCommand } from "./command.ts";
import { GROUP, type Model, TOPIC } from "./model.ts";
import type { Real } from "./real.ts";
import { placeOf } from "./steering.ts";

/** Frames on their way together: each is answered once, and what comes of them is as it must be. */
export class Burst implements Command {
  readonly #commands: readonly FrameCommand[];

  constructor(commands: readonly FrameCommand[]) {
    this.#commands = commands;
  }

  check(model: Readonly<Model>): boolean {
    return this.#commands.every((command) => command.check(model));
  }

  async run(model: Model, real: Real): Promise<void> {
    const asked = this.#commands.map(
      (command) => [command.speaker.socket, command.ask(model).frame] as const,
    );
    for (const [socket, frame] of asked) real.say(socket, model.ask(socket, frame));
    await real.settle(model);
  }

  toString(): string {
    return `at once: ${this.#commands.join("; ")}`;
  }
}

/** The socket is closed, and another one opened. */
export class HangUp implements Command {
  readonly #socket: number;

  constructor(socket: number) {
    this.#socket = socket;
  }

  check(): boolean {
    return true;
  }

  async run(model: Model, real: Real): Promise<void> {
    real.hangUp(this.#socket);
    model.hangUp(this.#socket);
    await real.pass(0);
    await real.connect(this.#socket);
    await real.settle(model);
  }

  toString(): string {
    return `${this.#socket} hangs up`;
  }
}

export class Pass implements Command {
  readonly #ms: number;

  constructor(ms: number) {
    this.#ms = ms;
  }

  check(): boolean {
    return true;
  }

  async run(model: Model, real: Real): Promise<void> {
    await real.pass(this.#ms);
    model.nowMs += this.#ms;
    await real.settle(model);
  }

  toString(): string {
    return `${this.#ms} ms pass`;
  }
}

/** By an operator, over HTTP. */
export class Reset implements Command {
  readonly #to: "earliest" | "latest" | { readonly shift: number };

  constructor(to: "earliest" | "latest" | { readonly shift: number }) {
    this.#to = to;
  }

  check({ isGroupThere }: Readonly<Model>): boolean {
    return isGroupThere;
  }

  async run(model: Model, real: Real): Promise<void> {
    const plan = model.ends.map((end, partition) => {
      const committed = model.committed.get(partition) ?? 0;
      return { topic: TOPIC, partition, from: committed, to: placeOf(this.#to, { committed, end }) };
    });
    const body = { topics: [{ topic: TOPIC }], to: this.#to };
    const answer = await real.call("POST", `/v1/groups/${GROUP}/reset`, body);
    expect(answer).toEqual({ status: 200, body: { plan, applied: true } });
    for (const { partition, to } of plan) model.committed.set(partition, to);
    await real.settle(model);
  }

  toString(): string {
    return `a reset to ${JSON.stringify(this.#to)}`;
  }
}
