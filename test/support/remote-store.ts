// A server's store on a remote database, directly or on the far side of a proxy that loses its answers.

import { expect } from "bun:test";
import type { Scheduler } from "../../src/core/ports.ts";
import { Problem } from "../../src/core/problem.ts";
import { type NewRecord, parseJsonProduce } from "../../src/core/produce-request.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { type Db, DbError } from "../../src/store/db.ts";
import type { RemoteDatabase } from "../../src/store/remote.ts";
import type { Topic } from "../../src/store/topic-tables.ts";
import { Topics } from "../../src/store/topics.ts";
import { WriteQueue } from "../../src/store/write-queue.ts";
import type { CuttingProxy } from "./cutting-proxy.ts";
import { fakeChance } from "./fake-time.ts";
import { openRemoteTestDb, realTime } from "./sqld.ts";

/** Long enough for a slow machine to answer, short enough to wait for. */
export const DEADLINE_MS = 400;
/** As time passes where nothing is waited for. */
const HASTE: Scheduler = {
  ...realTime,
  after: (_, run) => {
    const turn = setImmediate(run);
    return () => clearImmediate(turn);
  },
};

export interface Sides {
  readonly db: Db;
  readonly queue: WriteQueue;
  readonly topics: Topics;
  readonly logged: readonly string[];
}

/** A server's store on the database. */
export function storeOf(db: Db, scheduler: Scheduler = realTime): Sides {
  const logged: string[] = [];
  const log = (event: string, facts = {}) => void logged.push(`${event} ${JSON.stringify(facts)}`);
  const queue = new WriteQueue({ db, scheduler, chance: fakeChance(), log });
  return { db, queue, topics: new Topics({ db, queue, scheduler, log, createsOnFirstUse: true }), logged };
}

export const recordsOf = (...values: readonly string[]): readonly NewRecord[] =>
  parseJsonProduce(`{"records":[${values.map((value) => `{"value":${value}}`).join(",")}]}`).records;

/** To partition 0, or each to its own. */
export const append = ({ queue }: Sides, topic: Topic, ...lists: readonly (readonly NewRecord[])[]) =>
  queue.submit(
    appendRecords(
      topic,
      lists.map((records, partition) => ({ partition, records })),
    ),
  );

export async function valuesIn(
  db: Db,
  { partitionIds: [partition_id = 0] }: Topic,
): Promise<readonly unknown[]> {
  const sql = "SELECT offset, value FROM records WHERE partition_id = :partition_id ORDER BY offset";
  const rows = await db.read({ sql, args: { partition_id } });
  expect(rows.map(({ offset }) => offset)).toEqual(rows.map((_, index) => index));
  return rows.map(({ value }) => value);
}

export async function failureOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    if (error instanceof DbError) return error.failure;
    if (error instanceof Problem) return error.code;
    throw error;
  }
  return "none";
}

/** True for the first so many of those that hold the text. */
export function first(times: number, text: string): (request: string) => boolean {
  let left = times;
  return (request) => {
    if (left === 0 || !request.includes(text)) return false;
    left -= 1;
    return true;
  };
}

export const APPENDS = "INSERT INTO records";

/** A server's store on the far side of the proxy. */
export async function openBehind(proxy: CuttingProxy, options: Partial<RemoteDatabase> = {}): Promise<Sides> {
  const db = await openRemoteTestDb(proxy.url, {
    callDeadlineMs: DEADLINE_MS,
    scheduler: HASTE,
    ...options,
  });
  return storeOf(db, options.scheduler);
}
