// What all clients of one run share.

import type { Dice } from "../support/dice.ts";
import { StreamClient } from "../support/stream-client.ts";
import type { Recorder } from "./recorder.ts";
import type { Stage } from "./stage.ts";
import { Tally } from "./tally.ts";

/** A client that hears nothing for so long gives its socket up: the server pings after two seconds. */
const SOCKET_PATIENCE_MS = 7_000;
const RECONNECT_MS = 20;

export class Load {
  readonly recorder: Recorder;
  readonly stage: Stage;
  readonly dice: Dice;
  readonly tally = new Tally();
  /** What no history would show: an answer that should not be, a worker that did something twice. */
  readonly problems: string[] = [];
  isSending = true;
  isConsuming = true;
  /** Nobody waits between two requests: a fault is about to come. */
  isRushing = false;
  /** Everybody finishes what they have. */
  isSettling = false;
  readonly #clients = new Set<StreamClient>();

  constructor({ recorder, stage, dice }: { recorder: Recorder; stage: Stage; dice: Dice }) {
    this.recorder = recorder;
    this.stage = stage;
    this.dice = dice;
  }

  /** Undefined where nobody answers; then some time has passed. */
  async connect(): Promise<StreamClient | undefined> {
    const { streamUrl } = await this.stage.pick();
    try {
      const client = await StreamClient.open(streamUrl, { patienceMs: SOCKET_PATIENCE_MS });
      this.#clients.add(client);
      return client;
    } catch {
      await Bun.sleep(RECONNECT_MS); // as a client would: there is nothing to wait for
      return undefined;
    }
  }

  hangUp(client: StreamClient): void {
    this.#clients.delete(client);
    client.cut();
  }

  /** Between two requests of a client, so that a history stays as small as can be judged. */
  async pace(): Promise<void> {
    if (!this.isRushing) await Bun.sleep(this.dice.between(5, 40));
  }

  stopConsuming(): void {
    this.isConsuming = false;
    for (const client of this.#clients) client.cut();
  }
}
