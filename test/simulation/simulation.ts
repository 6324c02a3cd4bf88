// One run: who is there, how long the chaos lasts, and what must hold at its end. All of it follows from the seed.

import { type Anomaly, findAnomalies } from "../proof/checker.ts";
import type { History } from "../proof/history.ts";
import { Dice } from "../support/dice.ts";
import type { SimulatedDatabase } from "./database.ts";
import { drawFaults, type Faults } from "./faults.ts";
import { type MemberOptions, SimulatedMember } from "./members.ts";
import { mend, unleash } from "./nemesis.ts";
import { operate, type Subjects } from "./operators.ts";
import { poll } from "./poller.ts";
import { produceBySql, produceInSequence, produceOnCondition, producePlainly } from "./producers.ts";
import { LOST } from "./server.ts";
import { SocketProducer } from "./socket-producer.ts";
import { Watcher } from "./watcher.ts";
import { type Keys, World } from "./world.ts";

/** `safety`: the faults never end. `liveness`: they do, and then all must be delivered and acknowledged. */
export type Mode = "safety" | "liveness";

export interface Run {
  readonly seed: number;
  readonly mode: Mode;
  /** In words, for whoever looks at the seed. */
  readonly setting: string;
  readonly faults: Faults;
  readonly history: History;
  /** History, servers' logs and disasters, with the virtual time of each. */
  readonly log: readonly string[];
  readonly anomalies: readonly Anomaly[];
  /** What else must not be: a defect in a server's log, an unhandled rejection, an actor that met what cannot be. */
  readonly failures: readonly string[];
  readonly settledAfterMs: number | undefined;
}

const CHAOS_MIN_MS = 4_000;
const CHAOS_MAX_MS = 30_000;
/** Leases and deadlines one after the other take less than a minute; the rest is for one slow member with a long backlog. */
const SETTLED_WITHIN_MS = 600_000;
const LOOK_EVERY_MS = 40;
const START_EVERY_MS = 500;
const GROUP_IDLE_MS = [300, 10_000] as const;

const SUBJECTS: Subjects = {
  topic: "orders",
  groups: ["billing", "mill", "ahead"],
  doomedTopic: "doomed",
  outsideGroup: "outside",
};
const OUTPUT_TOPIC = "made";
const MUST_SETTLE = [
  { group: "billing", topics: ["orders"] },
  { group: "mill", topics: ["orders"] },
  { group: "ahead", topics: ["orders"] },
];

export async function runSeed(database: SimulatedDatabase, seed: number, mode?: Mode): Promise<Run> {
  const dice = new Dice(seed);
  const faults = drawFaults(dice.fork("faults"));
  const sharedBy = dice.pick([0, 2, 3]);
  await database.empty();
  const life = dice.fork("life");
  const keys: Keys = { isEverywhere: life.isLucky(0.7), tombstones: life.pick([0, 0.1, 0.3]) };
  const groupIdleMs = life.isLucky(0.5) ? life.spread(...GROUP_IDLE_MS) : null;
  const world = new World({ database, dice, faults, sharedBy, keys, groupIdleMs });
  const simulation = new Simulation(world, mode ?? dice.pick(["safety", "liveness"] as const));
  await simulation.run();
  return {
    seed,
    mode: simulation.mode,
    setting: sharedBy === 0 ? "one server, own file" : `${sharedBy} servers, shared database`,
    faults,
    history: world.history,
    log: world.log,
    anomalies: findAnomalies(world.history),
    failures: [...world.failures, ...world.log.filter((line) => line.includes(": defect "))],
    settledAfterMs: simulation.settledAfterMs,
  };
}

class Simulation {
  readonly mode: Mode;
  settledAfterMs: number | undefined;
  readonly #world: World;
  readonly #watcher: Watcher;
  #producing = 0;
  #isMended = false;
  #operating: Promise<void> = Promise.resolve();

  constructor(world: World, mode: Mode) {
    this.#world = world;
    this.mode = mode;
    this.#watcher = new Watcher(world.database);
    world.onClockStep = () => this.#look({ isForced: true });
  }

  async run(): Promise<void> {
    const world = this.#world;
    for (let index = 0; index < world.serverCount; index += 1) world.spawn(this.#start(index));
    world.spawn(this.#populate());
    const chaosMs = world.dice.spread(CHAOS_MIN_MS, CHAOS_MAX_MS);
    await this.#pass(chaosMs, () => false);
    world.isEnding = true;
    if (this.mode === "liveness") await this.#settle();
    this.#look();
    if (this.settledAfterMs !== undefined) world.record({ type: "settled", groups: MUST_SETTLE });
    for (const log of this.#watcher.logs()) world.record(log);
    for (const server of world.servers) server.kill();
    await world.time.settle();
  }

  // ── who is there ───────────────────────────────────────────────────────────────────────────────────────

  /** Until it is there for the first time: without a server nothing would happen. */
  async #start(index: number): Promise<void> {
    const world = this.#world;
    while (world.servers[index]?.isReady !== true) {
      await world.startServer(index);
      await world.time.sleep(START_EVERY_MS);
    }
  }

  async #populate(): Promise<void> {
    const world = this.#world;
    const dice = world.dice.fork("population");
    await this.#create(dice, SUBJECTS.topic, dice.between(1, 5));
    await this.#create(dice, OUTPUT_TOPIC, dice.between(1, 2));
    await this.#create(dice, SUBJECTS.doomedTopic, 1);
    for (const member of membersOf(dice)) world.spawn(new SimulatedMember(world, member).run());
    for (const producing of this.#producers(dice)) {
      this.#producing += 1;
      world.spawn(
        producing.then(() => {
          this.#producing -= 1;
        }),
      );
    }
    if (dice.isLucky(0.5)) world.spawn(poll(world, { name: "poller", topic: SUBJECTS.topic }));
    world.spawn(unleash(world));
    this.#operating = operate(world, SUBJECTS);
    world.spawn(this.#operating);
  }

  /** Or it is there, with more partitions: a conflict. */
  async #create(dice: Dice, topic: string, partitionCount: number): Promise<void> {
    for (;;) {
      const answer = await this.#world.call(dice, "PUT", `/v1/topics/${topic}`, { partitionCount });
      if (answer !== LOST && (answer.status < 300 || answer.status === 409)) return;
      await this.#world.time.sleep(100);
    }
  }

  #producers(dice: Dice): readonly Promise<void>[] {
    const world = this.#world;
    const { topic } = SUBJECTS;
    const kinds = [
      () => producePlainly(world, { name: "plain", topic }),
      () => produceInSequence(world, { name: "sequenced", topic }),
      () => new SocketProducer(world, { name: "socket", topic }).run(),
      () => produceOnCondition(world, { name: "careful", topic }),
      () => produceBySql(world, { name: "sql", topic }),
      () => producePlainly(world, { name: "gambler", topic: SUBJECTS.doomedTopic }),
    ];
    return kinds.filter(() => dice.isLucky(0.7)).map((produce) => produce());
  }

  // ── how it goes on ─────────────────────────────────────────────────────────────────────────────────────

  async #settle(): Promise<void> {
    const world = this.#world;
    world.note("the chaos ends");
    world.endChaos();
    world.spawn(
      mend(world)
        .then(() => this.#operating)
        .then(() => {
          this.#isMended = true;
        }),
    );
    const fromMs = world.time.nowMs();
    if (await this.#pass(SETTLED_WITHIN_MS, () => this.#isSettled))
      this.settledAfterMs = world.time.nowMs() - fromMs;
    else world.failures.push(`not settled within ${SETTLED_WITHIN_MS} ms: ${this.#leftOver}`);
  }

  get #isSettled(): boolean {
    return (
      this.#isMended &&
      this.#producing === 0 &&
      MUST_SETTLE.every(({ group, topics }) => this.#watcher.lag(group, topics) === 0) &&
      MUST_SETTLE.every(({ group }) => this.#isAtRest(group)) &&
      this.#watcher.isKeptAsSet()
    );
  }

  /** What a member has stalled on it does not get back for the balance alone. */
  #isAtRest(group: string): boolean {
    const spreadMax = this.#world.stalledGroups.has(group) ? Number.POSITIVE_INFINITY : 1;
    return this.#watcher.isAtRest({ group, topic: SUBJECTS.topic, spreadMax });
  }

  get #leftOver(): string {
    const groups = MUST_SETTLE.map(({ group, topics }) => {
      const rest = this.#isAtRest(group) ? "at rest" : "not at rest";
      return `${group} ${rest}, lag ${this.#watcher.lag(group, topics)}`;
    });
    const kept = this.#watcher.isKeptAsSet() ? "all is kept as it is set" : "not all is kept as it is set";
    return [`${this.#producing} producers`, ...groups, kept].join(", ");
  }

  /** False where the time is over first. */
  async #pass(ms: number, isMet: () => boolean): Promise<boolean> {
    const { time, failures } = this.#world;
    const untilMs = time.nowMs() + ms;
    while (time.nowMs() < untilMs && failures.length === 0) {
      await time.advance(LOOK_EVERY_MS);
      this.#look();
      if (isMet()) return true;
    }
    return false;
  }

  #look(how: { isForced?: boolean } = {}): void {
    const snapshot = this.#watcher.look(how);
    if (!snapshot) return;
    this.#world.record(snapshot);
    this.#world.failures.push(...this.#watcher.disagreements());
  }
}

function membersOf(dice: Dice): readonly MemberOptions[] {
  const { topic, doomedTopic } = SUBJECTS;
  const several = (max: number) => Array.from({ length: dice.between(1, max) }, (_, n) => n);
  const reset = dice.pick(["earliest", "latest"] as const);
  const topics = dice.isLucky(0.5) ? [topic] : [topic, doomedTopic];
  return [
    ...several(4).map((n) => ({ name: `billing${n}`, group: "billing", topics, reset })),
    ...several(3).map((n) => ({
      name: `mill${n}`,
      group: "mill",
      topics: [topic],
      ackMode: n % 2 === 0 ? ("transact" as const) : ("sql" as const),
      outputTopic: OUTPUT_TOPIC,
    })),
    { name: "ahead", group: "ahead", topics: [topic], ackMode: "none" },
    ...several(2).map((n) => ({ name: `reader${n}`, group: null, topics: [topic, OUTPUT_TOPIC] })),
  ];
}
