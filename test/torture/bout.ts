// One run of one scenario: a stage, a load on it, faults from outside, then rest, and the judgement.

import { join } from "node:path";
import { createTopicsWithLife, FRESH, NEWEST, RETAINED } from "../life/topics.ts";
import { findAnomalies } from "../proof/checker.ts";
import { Dice } from "../support/dice.ts";
import { HttpClient } from "../support/http-client.ts";
import { churnTopics } from "./churn.ts";
import { AheadConsumer, GroupConsumer, Reader } from "./consumers.ts";
import { produceKeyed } from "./keyed-producer.ts";
import { Load } from "./load.ts";
import { operate } from "./operator.ts";
import { pollPartition } from "./poller.ts";
import { produceOverHttp, produceOverSocket } from "./producers.ts";
import { Recorder } from "./recorder.ts";
import { countUnfinished, findBrokenRules, readLogs, type Sight, takeSnapshot } from "./sight.ts";
import { produceBySql } from "./sql-producer.ts";
import { RUNTIMES, Stage } from "./stage.ts";
import { UpkeepWatch } from "./upkeep-watch.ts";
import { SEPARATOR, Worker } from "./worker.ts";

export interface BoutOptions {
  readonly seed: number;
  /** The faults end with whichever comes first. */
  readonly faultsMax: number;
  readonly endsAtMs: number;
  readonly say: (text: string) => void;
}

export interface Verdict {
  readonly faults: number;
  readonly acknowledged: number;
  readonly unknown: number;
  readonly settled: number;
  readonly recordsRead: number;
  /** Anomalies of the history, and whatever else should not be. */
  readonly wrong: readonly string[];
  readonly notes: readonly string[];
}

const SNAPSHOT_EVERY_MS = 200;
const SETTLE_MS = 60_000;
const LOOK_MS = 100;
const ORDERS = { topic: "orders", partitionCount: 4 };
const EVENTS = { topic: "events", partitionCount: 2 };
const ALERTS = { topic: "alerts", partitionCount: 2 };
const BOTH = [ORDERS.topic, EVENTS.topic];
const GROUPS = [
  { group: "billing", topics: BOTH },
  { group: "workers", topics: [ORDERS.topic] },
  { group: "ahead", topics: [EVENTS.topic] },
  { group: "audit", topics: [ALERTS.topic] },
  { group: "keepers", topics: RETAINED },
];

export class Bout implements AsyncDisposable {
  readonly dice: Dice;
  readonly stage: Stage;
  readonly load: Load;
  readonly recorder = new Recorder();
  readonly say: (text: string) => void;
  readonly notes: string[] = [];
  faults = 0;
  /** What was done while there was nothing to harm. */
  #idleFaults = 0;
  readonly #options: BoutOptions;
  readonly #upkeep = new UpkeepWatch();
  #sight: Sight | undefined;
  #lastHistoryId = 0;
  #isWatching = false;
  #watcher: Promise<void> | undefined;
  #producers: Promise<unknown> = Promise.resolve();
  #consumers: Promise<unknown> = Promise.resolve();

  constructor(options: BoutOptions) {
    this.#options = options;
    this.say = options.say;
    this.dice = new Dice(options.seed);
    this.stage = new Stage(this.dice, RUNTIMES[options.seed % RUNTIMES.length]);
    this.load = new Load({ recorder: this.recorder, stage: this.stage, dice: this.dice });
  }

  /** For what goes on beside the scenario and fails. */
  readonly problem = (error: unknown): void => void this.load.problems.push(String(error));

  get databasePath(): string {
    return join(this.stage.folder.path, "t.db");
  }

  /** Whether one more fault is to come. */
  get goesOn(): boolean {
    return this.faults < this.#options.faultsMax && Date.now() < this.#options.endsAtMs;
  }

  /** At most. */
  get faultsLeft(): number {
    return this.#options.faultsMax - this.faults;
  }

  /** A server has to be up. `padding`: makes records larger. `hasChurn`: topics come and go. */
  async begin(sight: Sight, { padding = 0, hasChurn = true } = {}): Promise<void> {
    const { load } = this;
    this.#sight = sight;
    const { url } = await this.stage.pick();
    for (const { topic, partitionCount } of [ORDERS, EVENTS, ALERTS])
      await new HttpClient({ url }).createTopic(topic, partitionCount);
    await createTopicsWithLife(url);
    this.#isWatching = true;
    this.#watcher = this.#watch(sight);
    this.#producers = Promise.all([
      produceOverHttp(load, "careful", { isIdempotent: true, topics: BOTH, padding }),
      produceOverHttp(load, "hopeful", { isIdempotent: false, topics: BOTH, padding }),
      produceOverSocket(load, "pipe", { isIdempotent: true, topics: BOTH, padding }),
      produceOverSocket(load, "tap", { isIdempotent: false, topics: BOTH, padding }),
      produceOverHttp(load, "keeper", { isIdempotent: true, topics: RETAINED, padding }),
      produceOverSocket(load, "stream", { isIdempotent: false, topics: RETAINED, padding }),
      produceKeyed(load, "keyed", { isIdempotent: true, journal: this.#upkeep.journal }),
      produceKeyed(load, "plain", { isIdempotent: false, journal: this.#upkeep.journal }),
      ...(hasChurn ? [churnTopics(load, "churn")] : []),
      ...(sight.path === undefined ? [] : [produceBySql(load, "sql", { path: sight.path, topics: BOTH })]),
      operate(load, { group: "billing", memberless: "outside", trimmed: EVENTS, growing: ALERTS }),
    ]);
    const workers = { group: "workers", topics: [ORDERS.topic], into: ALERTS.topic };
    const members = [
      new GroupConsumer(load, "stranger", { group: "billing", topics: BOTH, comesBack: "as a stranger" }),
      new GroupConsumer(load, "member", { group: "billing", topics: BOTH, comesBack: "by memberId" }),
      new GroupConsumer(load, "static", { group: "billing", topics: BOTH, comesBack: "by instanceId" }),
      new GroupConsumer(load, "auditor", {
        group: "audit",
        topics: [ALERTS.topic],
        comesBack: "by memberId",
      }),
      new GroupConsumer(load, "kept", { group: "keepers", topics: RETAINED, comesBack: "by memberId" }),
      new Worker(load, "numbered", { ...workers, isIdempotent: true }),
      new Worker(load, "fenced", { ...workers, isIdempotent: false }),
      new AheadConsumer(load, "hasty", { group: "ahead", topics: [EVENTS.topic] }),
      new Reader(load, "reader", BOTH),
    ];
    this.#consumers = Promise.all([
      ...members.map((member) => member.run()),
      pollPartition(load, "poller", { topic: ORDERS.topic, partition: 0 }),
      pollPartition(load, "poller", { topic: EVENTS.topic, partition: 1 }),
      pollPartition(load, "poller", { topic: NEWEST.topic, partition: 0 }),
      pollPartition(load, "poller", { topic: FRESH.topic, partition: 1 }),
    ]);
  }

  /** Counts one; `counts` false where it fell while there was nothing to harm. */
  noteFault(counts = true): void {
    if (counts) this.faults += 1;
    else this.#idleFaults += 1;
    if (counts && this.faults % 20 === 0) this.say(`${this.faults} faults`);
  }

  /** At what upkeep has done until now: with no server there, at what it was killed in. */
  async lookAtUpkeep(): Promise<void> {
    if (this.#sight) await this.#upkeep.look(this.#sight);
  }

  /** Lets the load work for a while: how long is what is tried out. */
  async work(minMs: number, maxMs: number): Promise<void> {
    await Bun.sleep(this.dice.between(minMs, maxMs));
  }

  /** All requests of the load at once, and some more milliseconds: then something is always unanswered. */
  async rush(): Promise<void> {
    this.load.isRushing = true;
    await Bun.sleep(this.dice.between(0, 25));
    while (this.load.tally.unanswered === 0) await Bun.sleep(1);
  }

  endRush(): void {
    this.load.isRushing = false;
  }

  /** That many more answers than now, or it is wedged. */
  async expectProgress(when: string, withinMs: number, answers = 20): Promise<void> {
    const { tally, problems } = this.load;
    const wanted = tally.acknowledged + answers;
    const lateAtMs = Date.now() + withinMs;
    while (tally.acknowledged < wanted) {
      if (Date.now() > lateAtMs) {
        problems.push(`wedged: ${when} ${answers} sends took more than ${withinMs} ms`);
        return;
      }
      await Bun.sleep(5);
    }
  }

  /** Faults have ended, and a server is up. */
  async end(): Promise<Verdict> {
    const { load, recorder } = this;
    const sight = this.#sight;
    if (!sight) throw new Error("the bout has not begun");
    this.say("settling");
    load.isSettling = true;
    load.isSending = false;
    await this.#inTime("producers", this.#producers);
    await this.#untilSettled(sight);
    load.stopConsuming();
    await this.#inTime("consumers", this.#consumers);
    this.#isWatching = false;
    await this.#watcher;
    await this.#snapshot(sight);
    await this.#upkeep.look(sight, { isAtRest: true });
    await this.#upkeep.lookOverHttp((await this.stage.pick()).url);
    recorder.write({ type: "settled", groups: GROUPS });
    for (const log of await readLogs(sight)) recorder.write(log);
    return this.#judge(sight);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.load.isSending = false;
    this.load.stopConsuming();
    this.#isWatching = false;
    await this.#watcher;
    await this.stage[Symbol.asyncDispose]();
  }

  async #watch(sight: Sight): Promise<void> {
    while (this.#isWatching) {
      // It cannot be read now: another time.
      await this.#snapshot(sight).catch(() => undefined);
      await this.#upkeep.look(sight).catch(() => undefined);
      await Bun.sleep(SNAPSHOT_EVERY_MS);
    }
  }

  async #snapshot(sight: Sight): Promise<void> {
    const taken = takeSnapshot(sight, { after: this.#lastHistoryId, groupsAhead: new Set(["ahead"]) });
    const write = taken.then(({ event, lastHistoryId }) => {
      this.#lastHistoryId = lastHistoryId;
      this.recorder.write(event);
    });
    await this.recorder.closedDuring(write);
  }

  /** Twice in a row: what somebody still had on the way may come in between. */
  async #untilSettled(sight: Sight): Promise<void> {
    const lateAtMs = Date.now() + SETTLE_MS;
    const groups = GROUPS.map(({ group }) => group);
    for (let settled = 0; settled < 2; ) {
      const unfinished = await this.#countUnfinished(sight, groups).catch(() => -1);
      settled = unfinished === 0 ? settled + 1 : 0;
      if (Date.now() > lateAtMs) {
        this.load.problems.push(
          `not settled: after ${SETTLE_MS} ms ${unfinished} partitions have a lag or want upkeep`,
        );
        return;
      }
      await Bun.sleep(LOOK_MS);
    }
  }

  async #countUnfinished(sight: Sight, groups: readonly string[]): Promise<number> {
    return (await countUnfinished(sight, groups)) + (await this.#upkeep.countLeft(sight));
  }

  async #inTime(who: string, work: Promise<unknown>): Promise<void> {
    const late = Bun.sleep(SETTLE_MS).then(() =>
      this.load.problems.push(`the ${who} did not come to an end`),
    );
    await Promise.race([work, late]);
  }

  async #judge(sight: Sight): Promise<Verdict> {
    const { events } = this.recorder;
    const { acknowledged, unknown, settled, recordsRead, codes } = this.load.tally;
    const anomalies = findAnomalies(events).map(({ name, says }) => `${name}: ${says}`);
    const wrong = [
      ...anomalies,
      ...this.#findUnsettled(),
      ...this.#findTransformedTwice(),
      ...(await findBrokenRules(sight)),
      ...this.#upkeep.findFaults(),
      ...this.load.problems,
      ...this.stage.defects,
    ];
    const answers = [...codes].map(([code, count]) => `${count} ${code}`).join(", ");
    return {
      ...{ faults: this.faults, acknowledged, unknown, settled, recordsRead, wrong },
      notes: [
        ...this.notes,
        ...(this.#idleFaults > 0 ? [`${this.#idleFaults} more fell while nothing was unanswered`] : []),
        this.#upkeep.summary,
        ...(answers ? [`errors answered: ${answers}`] : []),
      ],
    };
  }

  /** Whatever has a sequence must have come to an answer. */
  #findUnsettled(): readonly string[] {
    const open = new Set<string>();
    for (const event of this.recorder.events) {
      if (event.type === "send" && event.isIdempotent) open.add(event.send);
      if (event.type === "sent" || event.type === "not-sent") open.delete(event.send);
    }
    return [...open].map((send) => `${send} has a sequence and was never settled`);
  }

  /** Each record that the workers were given has come out once. */
  #findTransformedTwice(): readonly string[] {
    const logs = this.recorder.events.filter((event) => event.type === "log");
    const valuesOf = (topic: string) =>
      logs.filter((log) => log.topic === topic).flatMap(({ records }) => records.map(({ value }) => value));
    const made = new Map<string, number>();
    for (const value of valuesOf(ALERTS.topic)) {
      const [from = ""] = value.split(SEPARATOR);
      made.set(from, (made.get(from) ?? 0) + 1);
    }
    return valuesOf(ORDERS.topic)
      .filter((value) => made.get(value) !== 1)
      .map((value) => `${value} was transformed ${made.get(value) ?? 0} times`);
  }
}
