// A socket between a client and a server of a simulation: bytes take their time in both directions, stay in order, and
// are lost with the connection, at each end at another moment. A slow one fills up.

import type { ServerFrame } from "../../src/protocol/frames.ts";
import type { SocketHandlers, SocketPort } from "../../src/stream/socket.ts";
import type { Dice } from "../support/dice.ts";
import type { FakeTime } from "../support/fake-time.ts";
import type { ServerClock } from "./server-clock.ts";

const DELAY_MAX_MS = 30;
const SLOW_DELAY_MAX_MS = 3_000;
/** Until one end hears that the other is gone. */
const SILENCE_MAX_MS = 2_000;

export interface ClientHandlers {
  readonly onFrame: (frame: ServerFrame) => void;
  /** Once. */
  readonly onClose: (code: number) => void;
}

export class SimulatedSocket {
  readonly port: SocketPort;
  isSlow = false;
  readonly #deps: { readonly time: FakeTime; readonly dice: Dice; readonly server: ServerClock };
  readonly #client: ClientHandlers;
  #server: SocketHandlers | undefined;
  #buffered = 0;
  /** When the last that is on its way arrives. */
  readonly #arrivesAtMs = { toClient: 0, toServer: 0 };
  #isClosedHere = false;
  #isClosedThere = false;

  constructor(deps: { time: FakeTime; dice: Dice; server: ServerClock }, client: ClientHandlers) {
    this.#deps = deps;
    this.#client = client;
    this.port = {
      send: (text) => this.#sendToClient(text),
      bufferedBytes: () => this.#buffered,
      close: (code) => this.#closeByServer(code),
    };
  }

  open(server: SocketHandlers): void {
    this.#server = server;
    server.onOpen();
  }

  get isOpen(): boolean {
    return !this.#isClosedHere;
  }

  /** What the client says. */
  send(frame: Readonly<Record<string, unknown>>): void {
    if (this.#isClosedHere) return;
    const text = JSON.stringify(frame);
    this.#arrive("toServer", () => {
      this.#deps.server.soon(() => {
        if (!this.#isClosedThere) this.#server?.onMessage(text);
      });
    });
  }

  /** The client goes away; or, with `isCut`, the connection does and nobody says so. */
  hangUp({ isCut = false } = {}): void {
    const { time, dice } = this.#deps;
    if (!this.#isClosedHere) {
      if (isCut) time.after(dice.below(SILENCE_MAX_MS), () => this.#closeHere(1006));
      else this.#isClosedHere = true;
    }
    time.after(isCut ? dice.below(SILENCE_MAX_MS) : dice.below(DELAY_MAX_MS), () => this.#closeThere());
  }

  /** Its server has died. */
  lose(): void {
    this.#isClosedThere = true;
    this.#deps.time.after(this.#deps.dice.below(DELAY_MAX_MS), () => this.#closeHere(1006));
  }

  #sendToClient(text: string): void {
    if (this.#isClosedThere) return;
    this.#buffered += text.length;
    this.#arrive("toClient", () => {
      this.#buffered -= text.length;
      if (!this.#isClosedHere) this.#client.onFrame(JSON.parse(text));
      if (!this.#isClosedThere) this.#deps.server.soon(() => this.#isClosedThere || this.#server?.onDrain());
    });
  }

  #closeByServer(code: number): void {
    if (this.#isClosedThere) return;
    this.#isClosedThere = true;
    this.#arrive("toClient", () => this.#closeHere(code));
    this.#server?.onClose(); // before close() returns, as Bun does
  }

  #closeThere(): void {
    if (this.#isClosedThere) return;
    this.#isClosedThere = true;
    this.#deps.server.soon(() => this.#server?.onClose());
  }

  #closeHere(code: number): void {
    if (this.#isClosedHere) return;
    this.#isClosedHere = true;
    this.#client.onClose(code);
  }

  /** In the order of the sending. */
  #arrive(direction: "toClient" | "toServer", run: () => void): void {
    const { time, dice } = this.#deps;
    const delayMs = dice.below(this.isSlow ? SLOW_DELAY_MAX_MS : DELAY_MAX_MS);
    const atMs = Math.max(time.nowMs() + delayMs, this.#arrivesAtMs[direction]);
    this.#arrivesAtMs[direction] = atMs;
    time.after(atMs - time.nowMs(), run);
  }
}
