// The servers of one run and the database that they share.

import type { Dice } from "../support/dice.ts";
import {
  type ProcessRuntime,
  type ServerOptions,
  startServer,
  type TestServer,
  temporaryFolder,
} from "../support/server.ts";
import { killNow, onBrokenOff } from "./last-rites.ts";

/** Whose servers are tormented, in turn: of an even seed Bun's, of an odd one Deno's. */
export const RUNTIMES: readonly ProcessRuntime[] = ["bun", "deno"];

/** Where clients turn to: a server, or a proxy in front of it. */
export interface Endpoint {
  readonly url: string;
  readonly streamUrl: string;
}

const DEFECT = /event="defect"/;

/** `await using` kills what is left and removes the files. */
export class Stage implements AsyncDisposable {
  readonly folder = temporaryFolder();
  readonly #dice: Dice;
  readonly runtime: ProcessRuntime;
  /** Those that clients may ask, with where they are asked. */
  readonly #up = new Map<TestServer, Endpoint>();
  readonly #started: TestServer[] = [];
  readonly #defects: string[] = [];
  readonly #isDone: () => void;
  #onUp: (() => void)[] = [];

  constructor(dice: Dice, runtime: ProcessRuntime = "bun") {
    this.#dice = dice;
    this.runtime = runtime;
    this.#isDone = onBrokenOff(() => {
      for (const { pid } of this.servers) killNow(pid);
      this.folder.remove();
    });
  }

  get servers(): readonly TestServer[] {
    return [...this.#up.keys()];
  }

  async start(database: string, options: ServerOptions = {}): Promise<TestServer> {
    const server = await startServer(database, { mode: "serve", runtime: this.runtime, ...options });
    this.welcome(server);
    return server;
  }

  /** `endpoint`: where clients find it, if not at its own address. */
  welcome(server: TestServer, endpoint: Endpoint = server): void {
    this.#started.push(server);
    this.#up.set(server, endpoint);
    for (const resolve of this.#onUp.splice(0)) resolve();
  }

  /** Nobody new is sent to it from now on. */
  dismiss(server: TestServer): void {
    this.#up.delete(server);
  }

  /** Signals the server itself, and waits until it is gone. */
  async end(server: TestServer, signal: "SIGKILL" | "SIGTERM"): Promise<number | null> {
    this.dismiss(server);
    const exitCode = await server.kill(signal);
    this.#collect(server);
    return exitCode;
  }

  /** One that is up; waits for one. */
  async pick(): Promise<Endpoint> {
    for (;;) {
      if (this.#up.size > 0) return this.#dice.pick([...this.#up.values()]);
      await new Promise<void>((resolve) => this.#onUp.push(resolve));
    }
  }

  /** What the servers called a defect of their own. */
  get defects(): readonly string[] {
    for (const server of this.#started.slice()) this.#collect(server);
    return this.#defects;
  }

  #collect(server: TestServer): void {
    const at = this.#started.indexOf(server);
    if (at === -1) return;
    this.#started.splice(at, 1);
    this.#defects.push(...server.logged.split("\n").filter((line) => DEFECT.test(line)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.servers.map((server) => server[Symbol.asyncDispose]()));
    this.folder.remove();
    this.#isDone();
  }
}
