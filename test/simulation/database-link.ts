// The way of one server to the database, with what can happen on it. A request may be done and never answered, or long
// after its sender has given it up, or after its sender has died: the link is the network's, not the server's.

import { type InStatement, LibsqlError, type ResultSet } from "@libsql/client/web";
import { type Db, DbError, type Rows, type Statement, type WriteOptions } from "../../src/store/db.ts";
import type { RemoteClient } from "../../src/store/remote.ts";
import type { Dice } from "../support/dice.ts";
import type { FakeTime } from "../support/fake-time.ts";
import type { SimulatedDatabase } from "./database.ts";
import type { CallFaults, FileFaults } from "./faults.ts";
import type { ServerClock } from "./server-clock.ts";

/** As the client of a remote database gives a call up. */
const CALL_DEADLINE_MS = 6_000;
const DELAY_MIN_MS = 0.2;
const DELAY_MAX_MS = 40;
const LATE_MAX_MS = 5_000;

/** What a dead process waits for. */
const NEVER = new Promise<never>(() => {});

type Fate = keyof CallFaults | "answered";

export interface LinkDeps<Faults> {
  readonly database: SimulatedDatabase;
  readonly time: FakeTime;
  readonly dice: Dice;
  readonly faults: () => Faults;
  /** Whose link it is: while it stands still it hears no answers, and when it is dead never. */
  readonly server: ServerClock;
}

export class DatabaseLink implements RemoteClient {
  closed = false;
  /** Nothing comes through. */
  isCut = false;
  readonly #deps: LinkDeps<CallFaults>;

  constructor(deps: LinkDeps<CallFaults>) {
    this.#deps = deps;
  }

  execute(statement: InStatement): Promise<ResultSet> {
    return this.#call(() => this.#deps.database.execute(statement));
  }

  batch(statements: readonly InStatement[]): Promise<ResultSet[]> {
    return this.#call(() => this.#deps.database.batch(statements));
  }

  executeMultiple(): Promise<void> {
    throw new Error("the schema is there before the first server starts");
  }

  close(): void {
    this.closed = true;
  }

  #call<T>(run: () => T): Promise<T> {
    const { server } = this.#deps;
    if (server.isOver) return NEVER;
    return new Promise((resolve, reject) => {
      this.#carry(run).then(
        (result) => server.soon(() => resolve(result)),
        (error) => server.soon(() => reject(error)),
      );
    });
  }

  async #carry<T>(run: () => T): Promise<T> {
    const { time, dice } = this.#deps;
    const fate = this.#draw();
    await time.sleep(dice.spread(DELAY_MIN_MS, DELAY_MAX_MS));
    switch (fate) {
      case "refused":
        throw networkError("ECONNREFUSED");
      case "busy":
        throw new LibsqlError("SQLite error: database is locked", "SQLITE_BUSY");
      case "gateway":
        throw gatewayError();
      case "lost":
        return this.#giveUp();
      case "late":
        time.after(CALL_DEADLINE_MS + dice.below(LATE_MAX_MS), () => void attempt(run));
        return this.#giveUp();
      case "unanswered":
        attempt(run);
        if (dice.isLucky(0.5)) return this.#giveUp();
        throw networkError("ECONNRESET");
      case "answered": {
        const result = run();
        await time.sleep(dice.spread(DELAY_MIN_MS, DELAY_MAX_MS));
        return result;
      }
    }
  }

  #draw(): Fate {
    const { database, dice, faults } = this.#deps;
    const draw = dice.random();
    if (this.isCut || database.isDown) return dice.isLucky(0.5) ? "refused" : "lost";
    let below = 0;
    for (const [fate, probability] of Object.entries(faults())) {
      below += probability;
      if (draw < below) return fate as keyof CallFaults; // an entry of theirs
    }
    return "answered";
  }

  async #giveUp(): Promise<never> {
    await this.#deps.time.sleep(CALL_DEADLINE_MS);
    throw new DOMException("The operation timed out.", "TimeoutError");
  }
}

/** Whoever asked has gone: nobody hears what came of it. */
function attempt(run: () => unknown): void {
  try {
    run();
  } catch {
    // as above
  }
}

function networkError(code: string): Error {
  return Object.assign(new Error(`network: ${code}`), { code });
}

function gatewayError(): Error {
  return Object.assign(new Error("Server returned HTTP status 502"), { status: 502 });
}

/** A file that its server owns, where a write can fail in every way that a file has. */
export class FaultyFile implements Db {
  readonly durability = "fsync";
  readonly isShared = false;
  readonly readsAtOnceMax = 1;
  /** Nothing can be read or written. */
  isCut = false;
  readonly #deps: LinkDeps<FileFaults>;

  constructor(deps: LinkDeps<FileFaults>) {
    this.#deps = deps;
  }

  async read(statement: Statement): Promise<Rows> {
    const { database, server } = this.#deps;
    if (server.isOver) return NEVER;
    if (this.isCut || database.isDown) throw new DbError("io", "the disk does not answer");
    database.tick();
    return database.file.read(statement);
  }

  async write(statements: readonly Statement[], options?: WriteOptions): Promise<readonly Rows[]> {
    const { database, dice, faults, server } = this.#deps;
    if (server.isOver) return NEVER;
    const { busy, full, io, unknown } = faults();
    if (this.isCut || database.isDown || dice.isLucky(io))
      throw new DbError("io", "the disk does not answer");
    if (database.isLocked || dice.isLucky(busy)) throw new DbError("busy", "the lock is held");
    if (dice.isLucky(full)) throw new DbError("full", "the disk is full");
    const isUnknown = dice.isLucky(unknown);
    if (isUnknown && dice.isLucky(0.5)) throw new DbError("unknown", "COMMIT failed");
    database.tick();
    const results = await database.file.write(statements, options);
    database.writes += 1;
    if (isUnknown) throw new DbError("unknown", "COMMIT failed");
    return results;
  }

  script(): Promise<void> {
    throw new Error("the schema is there before the first server starts");
  }

  async dataVersion(): Promise<number> {
    if (this.isCut || this.#deps.database.isDown) throw new DbError("io", "the disk does not answer");
    return (await this.#deps.database.file.dataVersion?.()) ?? 0;
  }

  async close(): Promise<void> {
    // the file is opened once, for all seeds
  }
}
