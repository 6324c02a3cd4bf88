// One power cut: a server on a disk, its users at work, the power gone at a moment that the seed chooses, a server on
// what the disk has then, and all that can be found wrong with it.

import { Database } from "bun:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { findAnomalies } from "../proof/checker.ts";
import type { History } from "../proof/history.ts";
import { HttpClient } from "../support/http-client.ts";
import { temporaryFolder } from "../support/server.ts";
import { findBrokenRules, sightOfFile } from "../torture/sight.ts";
import { Deletions } from "./deletions.ts";
import { type CacheFate, mountImage, PowerDisk } from "./disk.ts";
import { Journal } from "./journal.ts";
import { COPIES, Load, ORDERS, type Sizes } from "./load.ts";
import { Machine, type Place } from "./machine.ts";
import { readLogs } from "./observer.ts";
import { HttpProducer } from "./producers.ts";
import { UpkeepUsers } from "./upkeep.ts";

export type Scenario = "steady" | "checkpoints" | "deletions" | "upkeep" | "first record" | "first start";

export interface CutOptions {
  readonly scenario: Scenario;
  readonly fate: CacheFate;
  readonly place: Place;
  readonly random: () => number;
  readonly repository?: string | undefined;
  readonly flushes?: boolean;
}

export interface CutOutcome {
  /** Records of the sends that were answered before the cut. */
  readonly records: number;
  /** Sends and acks that were answered before the cut. */
  readonly answered: number;
  /** Sends that were not. */
  readonly unanswered: number;
  readonly blocksInCache: number;
  /** Of these records those that are gone, or are something else now. */
  readonly lost: number;
  /** In words; empty after a cut that did no harm. */
  readonly findings: readonly string[];
}

const SMALL: Sizes = { recordsMax: 4, valueBytesMax: 200 };
/** Every flush is longer than the WAL may be before it is checkpointed. */
const LARGE: Sizes = { recordsMax: 12, valueBytesMax: 100_000 };
const ANSWERS_BEFORE_CUT_MAX = { steady: 900, checkpoints: 60, deletions: 200, upkeep: 500 };
/** From the first folder to the end of the migrations it takes about that long. */
const FIRST_START_MS = 150;
/** A flush takes less: no moment of it is spared. */
const FLUSH_MS = 8;

const KEPT_TOPICS: ReadonlySet<string> = new Set([ORDERS, COPIES]);

/** Between these the power goes. */
interface Users {
  /** Resolves at the moment of the cut. */
  use(machine: Machine): Promise<void>;
  /** All that was answered is known. */
  ended(): Promise<void>;
  /** On what the power cut has left. Resolves to what only they can know to be wrong. */
  finish(url: string): Promise<readonly string[]>;
}

export async function cutPower(options: CutOptions): Promise<CutOutcome> {
  const { scenario, fate, place, repository, flushes = true, random } = options;
  const journal = new Journal();
  const users = usersOf(options, journal);
  using work = temporaryFolder();
  const cut = await cutWhileUsed();
  await users.ended();
  const { answered, unanswered, records } = journal;
  const before = journal.events.length;
  using after = mountImage(cut.image, `${work.path}/after`);
  const findings = await findDamage(after.folder);
  const anomalies = findAnomalies(journal.events);
  const lost = countLost(journal.events, before);
  return {
    ...{ answered, unanswered, records },
    blocksInCache: cut.blocksInCache,
    lost,
    findings: [
      ...(lost > 0 ? [`${lost} records were acknowledged and are not in the log`] : []),
      ...findings,
      ...anomalies.map(({ name, says }) => `${name}: ${says}`),
    ],
  };

  async function cutWhileUsed() {
    using disk = new PowerDisk(work.path, { flushes });
    await using machine = await Machine.start({ folder: disk.folder, place, repository });
    await Promise.race([users.use(machine), machine.untilItEnds()]);
    const keeps = { "all kept": () => true, "all lost": () => false, "some kept": () => random() < 0.5 };
    return disk.cut({ kill: () => machine.kill(), keeps: keeps[fate] });
  }

  async function findDamage(folder: string): Promise<readonly string[]> {
    try {
      await using machine = await Machine.start({ folder, place, repository });
      const found = await users.finish(await machine.ready());
      const { databasePath } = await machine.stop();
      await users.ended();
      // Where topics were deleted, what they have left may be there still.
      const broken = scenario === "upkeep" ? await findBrokenRules(sightOfFile(databasePath)) : [];
      return [...found, ...checkIntegrity(databasePath), ...broken];
    } catch (error) {
      return [`afterwards: ${error instanceof Error ? error.message : String(error)}`];
    }
  }
}

/**
 * Of what was answered in the first `before` events. The checker asks less: to it a topic that has gone, and was created
 * anew by what was sent again, is another topic; but here nobody deletes those two.
 */
function countLost(events: History, before: number): number {
  const found = new Set(
    events.flatMap((event) => (event.type === "log" ? event.records.map(({ value }) => value) : [])),
  );
  const answered = new Set(
    events.slice(0, before).flatMap((event) => (event.type === "sent" ? event.send : [])),
  );
  const values = events
    .flatMap((event) => (event.type === "send" && answered.has(event.send) ? event.appends : []))
    .flatMap(({ topic, values }) => (KEPT_TOPICS.has(topic) ? values : []));
  return values.filter((value) => !found.has(value)).length;
}

function checkIntegrity(databasePath: string): readonly string[] {
  const database = new Database(databasePath, { readwrite: true });
  const rows = database.query<{ integrity_check: string }, []>("PRAGMA integrity_check").all();
  database.close();
  return rows.map((row) => row.integrity_check).filter((text) => text !== "ok");
}

function usersOf({ scenario, random }: CutOptions, journal: Journal): Users {
  switch (scenario) {
    case "first start":
      return {
        use: async (machine) => {
          await machine.hasBegun();
          await sleep(random() * FIRST_START_MS);
        },
        ended: async () => {},
        finish: async (url) => findEmptiness(url),
      };
    case "first record":
      return firstRecord(journal, random);
    case "steady":
    case "checkpoints":
    case "deletions":
    case "upkeep":
      return everybody(scenario, { journal, random });
  }
}

/** Nothing was there to be lost, but the database must be one that can be used. */
async function findEmptiness(url: string): Promise<readonly string[]> {
  const answer = await new HttpClient({ url }).call("POST", "/v1/topics/orders/records", {
    records: [{ value: 1 }],
  });
  return answer.status === 200 ? [] : [`a produce after the first start: ${JSON.stringify(answer)}`];
}

/** One producer, whose first answer ends it all. */
function firstRecord(journal: Journal, random: () => number): Users {
  const options = { id: "first", topic: ORDERS, partitionCount: 1, isIdempotent: true, random, ...SMALL };
  const producer = new HttpProducer(journal, options);
  let ended: Promise<void> | undefined;
  return {
    use: async (machine) => {
      ended = producer.runUntilCut(await machine.ready());
      await journal.until(() => journal.answered > 0, "the first answer");
    },
    ended: async () => ended,
    finish: async (url) => {
      await producer.finish(url);
      for (const log of await readLogs(url)) journal.add(log);
      return [];
    },
  };
}

function everybody(
  scenario: "steady" | "checkpoints" | "deletions" | "upkeep",
  { journal, random }: { journal: Journal; random: () => number },
): Users {
  const load = new Load(journal, { random, sizes: scenario === "checkpoints" ? LARGE : SMALL });
  const deletions = scenario === "deletions" ? new Deletions(journal) : undefined;
  const upkeep = scenario === "upkeep" ? new UpkeepUsers(journal, random) : undefined;
  const answers = 1 + random() * ANSWERS_BEFORE_CUT_MAX[scenario];
  const delayMs = random() * FLUSH_MS;
  let deleted: Promise<void> | undefined;
  let kept: Promise<void> | undefined;
  return {
    use: async (machine) => {
      const url = await machine.ready();
      await deletions?.prepare(url);
      await upkeep?.prepare(url);
      await load.start(url);
      kept = upkeep?.run(url);
      const enough = journal.answered + answers;
      await journal.until(() => journal.answered >= enough, `${answers} answers`);
      deleted = deletions?.run(url);
      // Half of these cuts find it done, the others under way.
      if (random() < 0.5) await deleted;
      await sleep(delayMs);
      await journal.until(() => journal.unanswered > 0, "a send without an answer");
    },
    ended: async () => void (await Promise.all([load.ended(), deleted, kept])),
    finish: async (url) => {
      const undone = (await deletions?.findUndone(url)) ?? [];
      const faults = (await upkeep?.finish(url)) ?? [];
      return [...undone, ...faults, ...(await load.finish(url))];
    },
  };
}
