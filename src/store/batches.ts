// What many ask for in one turn of the event loop, asked of the database together: a statement costs a remote database
// more than what it does.

import type { Scheduler } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import { DbError } from "./db.ts";

export interface BatchesDeps<Request, Result> {
  readonly scheduler: Scheduler;
  readonly requestsMax: number;
  /** Of those that are run together, one heavier one alone. Without it each weighs nothing. */
  readonly weightMax?: number;
  readonly weigh?: (request: Request) => number;
  /** One result for each request, in order. Where the database refuses so many at once, they are run in two halves. */
  readonly run: (requests: readonly Request[]) => Promise<readonly Result[]>;
}

interface Waiting<Request, Result> {
  readonly request: Request;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}

export class Batches<Request, Result> {
  readonly #deps: BatchesDeps<Request, Result>;
  #waiting: Waiting<Request, Result>[] = [];

  constructor(deps: BatchesDeps<Request, Result>) {
    this.#deps = deps;
  }

  /** Rejects with what the run of its batch rejects with. */
  submit(request: Request): Promise<Result> {
    if (this.#waiting.length === 0) this.#deps.scheduler.soon(() => this.#runAll());
    return new Promise((resolve, reject) => this.#waiting.push({ request, resolve, reject }));
  }

  #runAll(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (let first = 0; first < waiting.length; ) {
      const count = this.#countTogether(waiting, first);
      void this.#run(waiting.slice(first, first + count));
      first += count;
    }
  }

  #countTogether(waiting: readonly Waiting<Request, Result>[], first: number): number {
    const { requestsMax, weightMax = 0, weigh = () => 0 } = this.#deps;
    let weight = 0;
    let count = 0;
    for (const { request } of waiting.slice(first, first + requestsMax)) {
      weight += weigh(request);
      if (count > 0 && weight > weightMax) break;
      count += 1;
    }
    return count;
  }

  async #run(batch: readonly Waiting<Request, Result>[]): Promise<void> {
    try {
      const results = await this.#deps.run(batch.map(({ request }) => request));
      for (const [index, { resolve, reject }] of batch.entries()) {
        const result = results[index];
        if (result === undefined) reject(new Error("A batch has fewer results than requests"));
        else resolve(result);
      }
    } catch (error) {
      if (batch.length > 1 && isRefused(error)) return this.#runHalves(batch);
      for (const { reject } of batch) reject(error);
    }
  }

  async #runHalves(batch: readonly Waiting<Request, Result>[]): Promise<void> {
    const middle = Math.ceil(batch.length / 2);
    await this.#run(batch.slice(0, middle));
    await this.#run(batch.slice(middle));
  }
}

/** Nothing was done, by the database's word or by the write queue's. */
function isRefused(error: unknown): boolean {
  if (error instanceof Problem) return error.code === "internal";
  return error instanceof DbError && error.failure === "rejected";
}
