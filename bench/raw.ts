// The ceilings: what the database and a socket give to a program that does nothing else.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import Database from "libsql";
import { temporaryFolder } from "../test/support/server.ts";
import { startBareWebSocket } from "./bare-websocket.ts";
import { type Input, rateOf } from "./input.ts";
import { packageVersion } from "./peer.ts";
import type { Subject, Trial } from "./subject.ts";

const READ_RECORDS = 500;
const SINGLE_COMMITS = 2_000;

export async function startRaw(input: Input): Promise<Subject> {
  await using stack = new AsyncDisposableStack();
  const { path: folder } = stack.use(temporaryFolder());
  const raw = new RawLog(join(folder, "raw.db"));
  stack.defer(() => raw.close());
  const bare = stack.use(await startBareWebSocket(input));
  const trials = [produceTrial(input, raw), singleTrial(input, raw), consumeTrial(input, raw), bare];
  const version = await packageVersion("libsql");
  const started = stack.move();
  return {
    name: "raw libSQL",
    version,
    durability: "fsynced (WAL, synchronous=FULL)",
    trials,
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  };
}

function produceTrial({ values, batches }: Input, raw: RawLog): Trial {
  return {
    workload: "produce",
    path: "json_each insert in the same process: one partition, all columns, the lock taken as the server does",
    run: (round) =>
      rateOf(values.length, async () => {
        for (const batch of batches) raw.append(round, batch);
      }),
  };
}

function singleTrial({ values }: Input, raw: RawLog): Trial {
  return {
    workload: "single",
    path: "the same, a commit a record, one after the other",
    run: (round) =>
      rateOf(SINGLE_COMMITS, async () => {
        for (const value of values.slice(0, SINGLE_COMMITS)) raw.append(-1 - round, [value]);
      }),
  };
}

function consumeTrial(input: Input, raw: RawLog): Trial {
  const { values, batches } = input;
  return {
    workload: "consume",
    path: `JSON text built in SQL in the same process, ${READ_RECORDS} records a read`,
    prepare: async (round) => {
      for (const batch of raw.isEmpty(round) ? batches : []) raw.append(round, batch);
    },
    run: (round) =>
      rateOf(values.length, async () => {
        for (let offset = 0; offset < values.length; offset += READ_RECORDS) raw.read(round, offset);
      }),
  };
}

/** One partition a round, in a table as the server has it. */
class RawLog {
  readonly #writer: Database.Database;
  readonly #reader: Database.Database;
  readonly #insert: Database.Statement<unknown[]>;
  readonly #read: Database.Statement<unknown[]>;
  readonly #ends = new Map<number, number>();

  constructor(path: string) {
    this.#writer = new Database(path, { timeout: 0 });
    this.#writer.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
    this.#writer.exec(readFileSync(join(import.meta.dir, "../migrations/0001_log.sql"), "utf8"));
    this.#reader = new Database(path, { timeout: 0 });
    this.#insert = this.#writer.prepare(`
      INSERT INTO records (partition_id, offset, timestamp, key, value, headers)
      SELECT ?, ? + key, value ->> 1, value ->> 0, value ->> 3, value ->> 2 FROM json_each(?)`);
    this.#read = this.#reader.prepare(`
      SELECT group_concat(concat('{"offset":', offset, ',"timestamp":', timestamp,
        CASE WHEN key IS NOT NULL THEN ',"key":' || json_quote(key) END, ',"headers":' || headers,
        ',"value":', value, '}')) AS text
      FROM (SELECT * FROM records WHERE partition_id = ? AND offset >= ? ORDER BY offset LIMIT ${READ_RECORDS})`);
  }

  append(partitionId: number, values: readonly string[]): void {
    const offset = this.#ends.get(partitionId) ?? 0;
    const rows = JSON.stringify(values.map((value) => [null, 1_451_608_204_910, null, value]));
    this.#writer.exec("BEGIN; UPDATE write_lock SET n = n WHERE 0");
    this.#insert.run(BigInt(partitionId), BigInt(offset), rows);
    this.#writer.exec("COMMIT");
    this.#ends.set(partitionId, offset + values.length);
  }

  read(partitionId: number, offset: number): void {
    const [row] = this.#read.all(BigInt(partitionId), BigInt(offset));
    if (!row) throw new Error("nothing was read");
  }

  isEmpty(partitionId: number): boolean {
    return !this.#ends.has(partitionId);
  }

  close(): void {
    this.#reader.close();
    this.#writer.close();
  }
}
