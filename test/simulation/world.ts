// Everything of one run: a database, its servers, whoever uses them, and the history that is written about it. Time
// passes only here, and only when nothing can happen without it.

import type { ServerFrame } from "../../src/protocol/frames.ts";
import type { HistoryEvent } from "../proof/history.ts";
import { START_MS } from "../support/database.ts";
import type { Dice } from "../support/dice.ts";
import { FakeTime } from "../support/fake-time.ts";
import type { SimulatedDatabase } from "./database.ts";
import { type Faults, NO_CALL_FAULTS, NO_FILE_FAULTS, NO_REQUEST_FAULTS } from "./faults.ts";
import { type Answer, LOST, type PresentFaults, SimulatedServer } from "./server.ts";
import type { SimulatedSocket } from "./socket.ts";

export type FrameOf<T extends ServerFrame["type"]> = Extract<ServerFrame, { type: T }>;

const NO_FAULTS: PresentFaults = {
  calls: NO_CALL_FAULTS,
  file: NO_FILE_FAULTS,
  requests: NO_REQUEST_FAULTS,
};
const PATIENCE_MIN_MS = 500;
const PATIENCE_MAX_MS = 20_000;

export interface WorldDeps {
  readonly database: SimulatedDatabase;
  readonly dice: Dice;
  readonly faults: Faults;
  /** 0: one server owns the file. */
  readonly sharedBy: number;
  readonly keys: Keys;
  /** How long a group without members stays; null: for ever. */
  readonly groupIdleMs: number | null;
}

/** What producers give to their records. */
export interface Keys {
  /** All records have one. */
  readonly isEverywhere: boolean;
  /** How many of the records with a key. */
  readonly tombstones: number;
}

export class World {
  readonly time = new FakeTime();
  readonly database: SimulatedDatabase;
  readonly dice: Dice;
  readonly faults: Faults;
  readonly keys: Keys;
  readonly history: HistoryEvent[] = [];
  /** What servers and nemesis did, for whoever looks for the reason of an anomaly. */
  readonly log: string[] = [];
  readonly servers: SimulatedServer[] = [];
  /** In which a member was too slow for its `ackTimeoutMs`. */
  readonly stalledGroups = new Set<string>();
  /** What no fault excuses. */
  readonly failures: string[] = [];
  readonly #chaos = Promise.withResolvers<void>();
  #isChaos = true;
  /** Producers begin nothing new. */
  isEnding = false;
  /** How far the database's clock was set. */
  #clockStepMs = 0;
  /** Looks at the database, whether it has changed or not. */
  onClockStep: () => void = () => {};
  readonly #sharedBy: number;
  readonly #groupIdleMs: number | null;
  #names = 0;

  constructor({ database, dice, faults, sharedBy, keys, groupIdleMs }: WorldDeps) {
    this.database = database;
    this.dice = dice;
    this.faults = faults;
    this.keys = keys;
    this.#sharedBy = sharedBy;
    this.#groupIdleMs = groupIdleMs;
    if (groupIdleMs !== null) this.record({ type: "groups-expire", idleMs: groupIdleMs });
    database.nowMs = () => START_MS + Math.floor(this.time.nowMs()) + this.#clockStepMs;
  }

  record(event: HistoryEvent): void {
    this.history.push(event);
    this.log.push(`${this.time.nowMs().toFixed(1)} ${JSON.stringify(event)}`);
  }

  note(line: string): void {
    this.log.push(`${this.time.nowMs().toFixed(1)} ${line}`);
  }

  /** Between two looks the clock only goes on. */
  stepClock(ms: number): void {
    this.onClockStep();
    this.#clockStepMs += ms;
    this.onClockStep();
  }

  /** Faults come. */
  get isChaos(): boolean {
    return this.#isChaos;
  }

  get chaosEnds(): Promise<void> {
    return this.#chaos.promise;
  }

  endChaos(): void {
    this.#isChaos = false;
    this.#chaos.resolve();
  }

  /** Goes on by itself; that it fails is told. */
  spawn(work: Promise<void>): void {
    work.catch((error: unknown) => {
      this.failures.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
    });
  }

  get serverCount(): number {
    return Math.max(1, this.#sharedBy);
  }

  get ownsFile(): boolean {
    return this.#sharedBy === 0;
  }

  nextName(what: string): string {
    this.#names += 1;
    return `${what}${this.#names}`;
  }

  /** In the place of one that is dead: a file has one owner, as its lock would see to. */
  async startServer(index: number): Promise<void> {
    if (this.servers[index]?.isDead === false) return;
    const name = this.nextName("server");
    const server = new SimulatedServer({
      name,
      database: this.database,
      ownsFile: this.ownsFile,
      groupIdleMs: this.#groupIdleMs,
      time: this.time,
      dice: this.dice.fork(name),
      faults: () => (this.isChaos ? this.faults : NO_FAULTS),
      log: (line) => this.note(line),
    });
    this.servers[index] = server;
    await server.start();
  }

  /** Whoever is up, for who wants to connect. */
  pickServer(dice: Dice): SimulatedServer | undefined {
    const up = this.servers.filter(({ isReady }) => isReady);
    return up.length === 0 ? undefined : dice.pick(up);
  }

  async call(dice: Dice, method: string, path: string, body?: unknown): Promise<Answer | typeof LOST> {
    const server = this.pickServer(dice);
    if (!server) return LOST;
    return server.call(method, path, body, dice.spread(PATIENCE_MIN_MS, PATIENCE_MAX_MS));
  }

  get sockets(): readonly SimulatedSocket[] {
    return this.servers.flatMap(({ sockets }) => sockets);
  }
}
