// How a server learns of what others have changed on a shared database: groups and topics. Like a wake-up it carries no
// data: whoever is concerned reads again. It runs while clients are connected.

import type { Log, Scheduler } from "../core/ports.ts";
import { readChanges, readSeen, type SeenChanges } from "../store/changes.ts";
import type { Db } from "../store/db.ts";

/** A partition changes hands between two processes in about two of these, with the round trips to the database. */
const POLL_INTERVAL_MS = 50;
/** A shorter silence of the database lets no lease run out that is renewed in time. */
const OUTAGE_AFTER_MS = 2_000;

export interface ChangePollDeps {
  readonly db: Db;
  readonly scheduler: Scheduler;
  readonly log: Log;
  readonly onGroup: (group: string, version: number) => void;
  /** They have changed up to this version. What it rejects is asked again: nothing else would tell of these changes. */
  readonly onTopics: (catalogVersion: number) => Promise<void>;
  /** The database does not answer. */
  readonly onOutage: () => void;
}

export class ChangePoll {
  readonly #deps: ChangePollDeps;
  #seen: SeenChanges | undefined;
  #isWanted = false;
  #isRunning = false;
  #failingSinceMs: number | undefined;

  constructor(deps: ChangePollDeps) {
    this.#deps = deps;
  }

  /** Before anything is remembered that could change. */
  async begin(): Promise<void> {
    this.#seen = await readSeen(this.#deps.db);
  }

  start(): void {
    this.#isWanted = this.#seen !== undefined;
    if (this.#isRunning || !this.#isWanted) return;
    this.#isRunning = true;
    this.#pollLater();
  }

  stop(): void {
    this.#isWanted = false;
  }

  #pollLater(): void {
    this.#deps.scheduler.after(POLL_INTERVAL_MS, () => void this.#poll());
  }

  async #poll(): Promise<void> {
    if (this.#isWanted) await this.#look();
    this.#isRunning = this.#isWanted;
    if (this.#isRunning) this.#pollLater();
  }

  async #look(): Promise<void> {
    const { db, scheduler, log, onGroup, onTopics, onOutage } = this.#deps;
    if (!this.#seen) return;
    try {
      const { groups, ...seen } = await readChanges(db, this.#seen);
      for (const [group, version] of groups) onGroup(group, version);
      if (seen.catalogVersion !== this.#seen.catalogVersion) await onTopics(seen.catalogVersion);
      this.#seen = seen;
      this.#failingSinceMs = undefined;
    } catch (error) {
      if (this.#failingSinceMs === undefined) log("changes could not be read", { message: String(error) });
      this.#failingSinceMs ??= scheduler.nowMs();
      if (scheduler.nowMs() - this.#failingSinceMs >= OUTAGE_AFTER_MS) onOutage();
    }
  }
}
