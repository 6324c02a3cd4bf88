// Reads of chunks, one for all who want the same chunk: a thousand consumers at the tail cost one query and one text.
// A local file is read once a turn of the event loop, so that a long catch-up lets others in between; of a remote
// database several answers are waited for at once.

import type { Scheduler } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import type { ReadRequest } from "../core/session/window.ts";
import type { Db } from "../store/db.ts";
import { type Chunk, readChunk } from "../store/records.ts";

/** So many get a chunk in one turn: each sends it, and what is large takes 50 µs. */
const SHARERS_A_TURN = 100;

interface Sharer {
  readonly resolve: (chunk: Chunk) => void;
  readonly reject: (error: unknown) => void;
}

export class SharedReads {
  readonly #db: Db;
  readonly #scheduler: Scheduler;
  readonly #sharersByKey = new Map<string, Sharer[]>();
  readonly #waiting: (() => Promise<unknown>)[] = [];
  #underWay = 0;

  constructor(deps: { db: Db; scheduler: Scheduler }) {
    this.#db = deps.db;
    this.#scheduler = deps.scheduler;
  }

  get isBusy(): boolean {
    return this.#underWay > 0;
  }

  /** Rejects with a DbError, or with `unknown_partition` where it is gone. */
  read(request: ReadRequest): Promise<Chunk> {
    const { partitionId, from, recordsMax, bytesMax, loneRecordBytesMax } = request;
    const key = [partitionId, from, recordsMax, bytesMax, loneRecordBytesMax].join("/");
    return new Promise((resolve, reject) => {
      const sharers = this.#sharersByKey.get(key) ?? this.#enqueue(key, request);
      sharers.push({ resolve, reject });
    });
  }

  #enqueue(key: string, request: ReadRequest): Sharer[] {
    const sharers: Sharer[] = [];
    this.#sharersByKey.set(key, sharers);
    this.#waiting.push(() => {
      this.#sharersByKey.delete(key); // who comes now may want what was appended since
      return this.#readNow(request).then(
        (chunk) => this.#handOut(sharers, ({ resolve }) => resolve(chunk)),
        (error) => this.#handOut(sharers, ({ reject }) => reject(error)),
      );
    });
    if (this.#underWay < this.#db.readsAtOnceMax) this.#startNext();
    return sharers;
  }

  #handOut(sharers: Sharer[], give: (sharer: Sharer) => void): void {
    for (const sharer of sharers.splice(0, SHARERS_A_TURN)) give(sharer);
    if (sharers.length > 0) this.#scheduler.soon(() => this.#handOut(sharers, give));
  }

  async #readNow(request: ReadRequest): Promise<Chunk> {
    const chunk = await readChunk(this.#db, request);
    if (!chunk) throw new Problem("unknown_partition", "The partition is gone");
    return chunk;
  }

  #startNext(): void {
    const read = this.#waiting.shift();
    if (!read) return;
    this.#underWay += 1;
    this.#scheduler.soon(() => void this.#run(read));
  }

  async #run(read: () => Promise<unknown>): Promise<void> {
    await read();
    this.#underWay -= 1;
    this.#startNext();
  }
}
