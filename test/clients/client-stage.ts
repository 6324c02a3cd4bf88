// What each scenario of the client library stands on: a server that may be killed and comes back on the same port and
// file, topics of four partitions whose values say where they belong, and what the SQL views say in the end.

import { Database } from "bun:sqlite";
import { expect } from "bun:test";
import { join } from "node:path";
import { type ClientRuntime, ClientWorker } from "../support/client-worker.ts";
import { HttpClient } from "../support/http-client.ts";
import { startServer, type TestServer, temporaryFolder } from "../support/server.ts";
import type { Entry } from "./worker-messages.ts";

export const PARTITIONS = 4;

export interface LagRow {
  readonly topic: string;
  readonly partition: number;
  readonly committed_offset: number | null;
  readonly log_end_offset: number;
  readonly lag: number | null;
  readonly member_id: string | null;
}

export class ClientStage implements AsyncDisposable {
  readonly runtime: ClientRuntime;
  server: TestServer;
  readonly http: HttpClient;
  readonly #database: Database;
  readonly #removeFolder: () => void;
  #lastName = 0;

  private constructor(runtime: ClientRuntime, server: TestServer, removeFolder: () => void) {
    this.runtime = runtime;
    this.server = server;
    this.http = new HttpClient(server);
    this.#database = new Database(server.databasePath, { readonly: true });
    this.#removeFolder = removeFolder;
  }

  static async start(runtime: ClientRuntime): Promise<ClientStage> {
    const folder = temporaryFolder({ isInMemory: true });
    const server = await startServer(join(folder.path, "t.db"), { mode: "serve" });
    return new ClientStage(runtime, server, folder.remove);
  }

  worker(url: string = this.server.url): ClientWorker {
    return new ClientWorker(this.runtime, url);
  }

  /** A topic of four partitions, and in them the values 0, 1, … in turns. */
  async createTopic(count = 0): Promise<string> {
    this.#lastName += 1;
    const topic = `t${this.#lastName}`;
    await this.http.createTopic(topic, PARTITIONS);
    await this.fill(topic, count);
    return topic;
  }

  async fill(topic: string, count: number): Promise<void> {
    const records = Array.from({ length: count }, (_, value) => ({ value, partition: value % PARTITIONS }));
    if (count > 0) await this.http.produce(topic, records);
  }

  async restart(signal: NodeJS.Signals): Promise<void> {
    await this.server.kill(signal);
    await this.startAgain();
  }

  /** On the same port and file. */
  async startAgain(): Promise<void> {
    const { databasePath, url } = this.server;
    this.server = await startServer(databasePath, { mode: "serve", port: Number(new URL(url).port) });
  }

  // biome-ignore lint/suspicious/noExplicitAny: a test says by its expectations what it wants to find
  query(sql: string, ...values: (string | number)[]): any[] {
    return this.#database.query(sql).all(...values);
  }

  lag(group: string): readonly LagRow[] {
    return this.query("SELECT * FROM consumer_lag WHERE group_id = ? ORDER BY topic, partition", group);
  }

  committed(group: string): readonly (number | null)[] {
    return this.lag(group).map(({ committed_offset }) => committed_offset);
  }

  /** Everything is committed, and nobody is in the group. */
  expectFinished(group: string, count: number): void {
    const ends = partitionEnds(count);
    expect(
      this.lag(group).map(({ committed_offset, lag, member_id }) => ({ committed_offset, lag, member_id })),
    ).toEqual(ends.map((end) => ({ committed_offset: end, lag: 0, member_id: null })));
    expect(this.query("SELECT * FROM group_members WHERE group_id = ?", group)).toEqual([]);
  }

  /** The log has the values 0 to `count`, each once and in order: what was produced again was written once. */
  expectLog(topic: string, count: number): void {
    const rows: { partition: number; offset: number; value: number }[] = this.query(
      `SELECT partition, offset, CAST(value AS INTEGER) AS value FROM topic_records
       WHERE topic = ? ORDER BY partition, offset`,
      topic,
    );
    expectAllOnce(rows, count);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#database.close();
    await this.server[Symbol.asyncDispose]();
    this.#removeFolder();
  }
}

/** Where each partition ends that has its share of the values 0 to `count`. */
export function partitionEnds(count: number): readonly number[] {
  return Array.from({ length: PARTITIONS }, (_, partition) => Math.ceil((count - partition) / PARTITIONS));
}

/** Offsets in the order of the journal, partition by partition. The values are those that belong there. */
export function offsetsOf(
  journal: readonly Omit<Entry, "topicId" | "generation">[],
): readonly (readonly number[])[] {
  const offsets: number[][] = Array.from({ length: PARTITIONS }, () => []);
  for (const { partition, offset, value } of journal) {
    expect({ partition, offset, value }).toEqual({
      partition,
      offset,
      value: offset * PARTITIONS + partition,
    });
    offsets[partition]?.push(offset);
  }
  return offsets;
}

/** Each record once, in the order of its partition, up to the end. */
export function expectAllOnce(
  journal: readonly (Omit<Entry, "topicId" | "generation"> & { readonly topicId?: number })[],
  count: number,
): void {
  expect(offsetsOf(journal)).toEqual(partitionEnds(count).map((end) => range(0, end)));
  expect(new Set(journal.map(({ topicId }) => topicId)).size).toBe(1);
}

export function range(from: number, to: number): readonly number[] {
  return Array.from({ length: Math.max(0, to - from) }, (_, n) => from + n);
}
