// One server of a simulation: the real one, on its own clock, its own way to the database and its own sockets.

import { createServer, type Server } from "../../src/runtimes/server.ts";
import type { Db } from "../../src/store/db.ts";
import { openRemoteDb } from "../../src/store/remote.ts";
import type { SocketHandlers, SocketPort } from "../../src/stream/socket.ts";
import type { Dice } from "../support/dice.ts";
import type { FakeTime } from "../support/fake-time.ts";
import type { SimulatedDatabase } from "./database.ts";
import { DatabaseLink, FaultyFile } from "./database-link.ts";
import type { CallFaults, FileFaults, RequestFaults } from "./faults.ts";
import { ServerClock } from "./server-clock.ts";
import { type ClientHandlers, SimulatedSocket } from "./socket.ts";

const REQUEST_DELAY_MAX_MS = 30;
const CLOCK_OFFSET_MAX_MS = 100_000;
const CLOCK_RATE_ERROR_MAX = 0.01;

export interface PresentFaults {
  readonly calls: CallFaults;
  readonly file: FileFaults;
  readonly requests: RequestFaults;
}

export interface ServerDeps {
  readonly name: string;
  readonly database: SimulatedDatabase;
  /** It owns the file; else it shares it. */
  readonly ownsFile: boolean;
  /** How long a group without members stays; null: for ever. */
  readonly groupIdleMs: number | null;
  readonly time: FakeTime;
  readonly dice: Dice;
  readonly faults: () => PresentFaults;
  readonly log: (line: string) => void;
}

export interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: whoever asks knows what a status comes with
  readonly body: any;
}

/** Nobody answers: it was done, or it was not. */
export const LOST = "lost";

export class SimulatedServer {
  readonly name: string;
  readonly clock: ServerClock;
  readonly #deps: ServerDeps;
  readonly #links: (DatabaseLink | FaultyFile)[] = [];
  readonly #sockets = new Set<SimulatedSocket>();
  /** Resolves when it dies. */
  readonly #death = Promise.withResolvers<typeof LOST>();
  #server: Server | undefined;
  #isReady = false;

  constructor(deps: ServerDeps) {
    this.name = deps.name;
    this.#deps = deps;
    this.clock = new ServerClock(deps.time, {
      offsetMs: deps.dice.below(CLOCK_OFFSET_MAX_MS),
      rate: 1 + (deps.dice.random() * 2 - 1) * CLOCK_RATE_ERROR_MAX,
    });
  }

  /** Until it listens, or has failed to start, or is dead. */
  async start(): Promise<void> {
    const { dice, log, name, groupIdleMs: offsetRetentionMs } = this.#deps;
    try {
      const server = createServer({
        db: await this.#openDatabase(),
        scheduler: this.clock,
        chance: { random: () => dice.random(), newId: () => `${name}-${dice.below(2 ** 31).toString(36)}` },
        log: (event, facts) => log(`${name}: ${event} ${JSON.stringify(facts ?? {})}`),
        origins: { allowed: [], allowsLoopback: true },
        createsTopicsOnFirstUse: false,
        offsetRetentionMs,
      });
      await server.start();
      this.#server = server;
      this.#isReady = true;
    } catch (error) {
      log(`${name}: did not start: ${error}`);
      this.kill();
    }
  }

  get isReady(): boolean {
    return this.#isReady;
  }

  get isDead(): boolean {
    return this.clock.isOver;
  }

  /** As kill -9 does. */
  kill(): void {
    this.#isReady = false;
    this.clock.end();
    for (const socket of this.#sockets) socket.lose();
    this.#sockets.clear();
    this.#death.resolve(LOST);
  }

  /** As SIGTERM does. */
  async stop(): Promise<void> {
    this.#isReady = false;
    const stopped = this.#server
      ?.stop()
      .catch((error) => this.#deps.log(`${this.name}: stop failed: ${error}`));
    await Promise.race([stopped, this.#death.promise, this.#deps.time.sleep(STOP_DEADLINE_MS)]);
    this.kill();
  }

  /** Its way to the database, for a while. */
  cutOff(isCut: boolean): void {
    for (const link of this.#links) link.isCut = isCut;
  }

  get sockets(): readonly SimulatedSocket[] {
    return [...this.#sockets].filter(({ isOpen }) => isOpen);
  }

  /** Undefined where nobody listens. */
  async connect(client: ClientHandlers): Promise<SimulatedSocket | undefined> {
    const server = this.#server;
    if (!server || !this.#isReady || this.clock.isFrozen) return undefined;
    const { time, dice } = this.#deps;
    const socket = new SimulatedSocket({ time, dice, server: this.clock }, client);
    this.#sockets.add(socket);
    await server.app.fetch(new Request("http://localhost/v1/stream"), {
      upgrade: (_: Request, accept: (port: SocketPort) => SocketHandlers) => {
        socket.open(accept(socket.port));
        return new Response(null);
      },
    });
    return socket;
  }

  /** `patienceMs`: then its client gives up, and does not know. */
  async call(method: string, path: string, body: unknown, patienceMs: number): Promise<Answer | typeof LOST> {
    const { time } = this.#deps;
    const patience = time.sleep(patienceMs).then(() => LOST as typeof LOST);
    return Promise.race([this.#call(method, path, body), patience, this.#death.promise]);
  }

  async #call(method: string, path: string, body: unknown): Promise<Answer | typeof LOST> {
    const { time, dice, faults } = this.#deps;
    const { lost, unanswered } = faults().requests;
    await time.sleep(dice.below(REQUEST_DELAY_MAX_MS));
    const server = this.#server;
    if (!server || this.isDead || dice.isLucky(lost)) return this.#death.promise;
    await new Promise<void>((resolve) => this.clock.soon(resolve));
    const init = { method, ...(body !== undefined && { body: JSON.stringify(body) }) };
    const response = await server.app.fetch(new Request(`http://localhost${path}`, init));
    const text = await response.text();
    await new Promise<void>((resolve) => this.clock.soon(resolve));
    await time.sleep(dice.below(REQUEST_DELAY_MAX_MS));
    if (dice.isLucky(unanswered)) return this.#death.promise;
    return { status: response.status, body: text === "" ? undefined : JSON.parse(text) };
  }

  async #openDatabase(): Promise<Db> {
    const { database, time, dice, faults, ownsFile, name } = this.#deps;
    const link = { database, time, dice, server: this.clock };
    if (ownsFile) {
      const file = new FaultyFile({ ...link, faults: () => faults().file });
      this.#links.push(file);
      return file;
    }
    return openRemoteDb({
      url: "http://simulated",
      authToken: undefined,
      writerId: name,
      scheduler: this.clock,
      connect: () => {
        const remote = new DatabaseLink({ ...link, faults: () => faults().calls });
        this.#links.push(remote);
        return remote;
      },
    });
  }
}

/** As the entry of a runtime gives it. */
const STOP_DEADLINE_MS = 5_000;
