// Reads of chunks, one for all who want the same chunk: a thousand consumers at the tail cost one query and one text.
// A local file is read once a turn of the event loop, so that a long catch-up lets others in between; of a remote
// database several answers are waited for at once.

import type { Scheduler } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import type { ReadRequest } from "../core/session/window.ts";
import type { Db } from "../store/db.ts";
import { type Chunk, readChunk } from "../store/records.ts";

export class SharedReads {
  readonly #db: Db;
  readonly #scheduler: Scheduler;
  readonly #readsByKey = new Map<string, Promise<Chunk>>();
  readonly #waiting: (() => Promise<unknown>)[] = [];
  #underWay = 0;

  constructor(deps: { db: Db; scheduler: Scheduler }) {
    this.#db = deps.db;
    this.#scheduler = deps.scheduler;
  }

  /** Rejects with a DbError, or with `unknown_partition` where it is gone. */
  read(request: ReadRequest): Promise<Chunk> {
    const { partitionId, from, recordsMax, bytesMax, loneRecordBytesMax } = request;
    const key = [partitionId, from, recordsMax, bytesMax, loneRecordBytesMax].join("/");
    const shared = this.#readsByKey.get(key) ?? this.#enqueue(key, request);
    this.#readsByKey.set(key, shared);
    return shared;
  }

  #enqueue(key: string, request: ReadRequest): Promise<Chunk> {
    return new Promise((resolve, reject) => {
      this.#waiting.push(() => {
        this.#readsByKey.delete(key); // who comes now may want what was appended since
        return this.#readNow(request).then(resolve, reject);
      });
      if (this.#underWay < this.#db.readsAtOnceMax) this.#startNext();
    });
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
