// Where groups are tested: one server on a file of its own, or several on one sqld that acknowledges after fsync. A
// test that asks for server(1) gets another process where there is one, and so runs in both.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type Client, createClient } from "@libsql/client/web";
import { HttpClient } from "./http-client.ts";
import { startServer, type TestServer, temporaryFolder } from "./server.ts";
import { HAS_SQLD, SQLD_SKIPPED, type Sqld, startSqld } from "./sqld.ts";
import { stockSqlite } from "./stock-sqlite.ts";

export type PlaceKind = "file" | "sqld";

const PLACE_NAMES = { file: "on one file", sqld: "on one sqld" } as const satisfies Record<PlaceKind, string>;
const DEFECT = /event="(defect|database failed|write failed|read failed)"/;

/** `await using` ends all of it. */
export class Place implements AsyncDisposable {
  /** Undefined on a file. */
  readonly sqld: Sqld | undefined;
  readonly #folder = temporaryFolder();
  readonly #servers: TestServer[] = [];
  readonly #client: Client | undefined;
  #names = 0;

  private constructor(sqld: Sqld | undefined) {
    this.sqld = sqld;
    this.#client = sqld && createClient({ url: sqld.url });
  }

  /** `servers`: how many share the sqld; a file has one. */
  static async start(kind: PlaceKind, { servers = 2 } = {}): Promise<Place> {
    const place = new Place(kind === "sqld" ? await startSqld() : undefined);
    for (let n = 0; n < (kind === "file" ? 1 : servers); n += 1) await place.startServer(n);
    return place;
  }

  /** On a file all are the same. */
  server(n: number): TestServer {
    const server = this.#servers[n % this.#servers.length];
    if (!server) throw new Error("the place has no server");
    return server;
  }

  http(n: number): HttpClient {
    return new HttpClient(this.server(n));
  }

  /** For what stands between a server and it. Throws on a file. */
  get sqldPort(): number {
    if (!this.sqld) throw new Error("this place has no sqld");
    return this.sqld.port;
  }

  /** For `--db`. */
  get database(): string {
    return this.sqld?.url ?? join(this.#folder.path, "t.db");
  }

  /** In the place of one that was ended, or as one more. */
  async startServer(n: number): Promise<TestServer> {
    const server = await startServer(this.database, { mode: "serve" });
    this.#servers[n] = server;
    return server;
  }

  /** Rows as lines, columns separated by `|`, NULL as nothing. */
  async sql(text: string): Promise<readonly string[]> {
    if (!this.#client) {
      // What others have to do in this process comes before: sqlite3 keeps it waiting.
      await new Promise<void>((resolve) => setImmediate(resolve));
      const lines = stockSqlite(this.database, text);
      return lines === "" ? [] : lines.split("\n");
    }
    const { rows, columns } = await this.#client.execute(text);
    return rows.map((row) => columns.map((_, index) => String(row[index] ?? "")).join("|"));
  }

  /** By partition number; of those that have one. */
  async committedOffsets(group: string, topic: string): Promise<readonly number[]> {
    const lines = await this.sql(
      `SELECT committed_offset FROM consumer_lag
       WHERE group_id = '${group}' AND topic = '${topic}' AND committed_offset IS NOT NULL ORDER BY partition`,
    );
    return lines.map(Number);
  }

  /** A topic of its own for a test, with that many records in each partition. */
  async newTopic({ partitionCount = 1, records = 0 } = {}): Promise<string> {
    const topic = this.newName("topic");
    await this.http(0).createTopic(topic, partitionCount);
    for (let partition = 0; records > 0 && partition < partitionCount; partition += 1)
      await this.http(0).produceNumbers(topic, records, partition);
    return topic;
  }

  newGroup(): string {
    return this.newName("group");
  }

  newName(prefix: string): string {
    this.#names += 1;
    return `${prefix}-${this.#names}`;
  }

  /** What the servers logged that should not be. */
  defects(): readonly string[] {
    return this.#servers.flatMap(({ logged }) => logged.split("\n").filter((line) => DEFECT.test(line)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client?.close();
    await Promise.all(this.#servers.map((server) => server[Symbol.asyncDispose]()));
    await this.sqld?.[Symbol.asyncDispose]();
    this.#folder.remove();
  }
}

type PlaceTests = (place: () => Place) => void;

/** The same tests in each place, all of them on the same servers. `place` is there while a test runs. */
export function describePlaces(name: string, body: PlaceTests): void {
  describeEach(name, ["file", "sqld"], body);
}

/** What only a remote database does. */
export function describeSqld(name: string, body: PlaceTests): void {
  describeEach(name, ["sqld"], body);
}

function describeEach(name: string, kinds: readonly PlaceKind[], body: PlaceTests): void {
  if (!HAS_SQLD) console.warn(`${name} ${PLACE_NAMES.sqld}: ${SQLD_SKIPPED}`);
  const here = kinds.filter((kind) => kind !== "sqld" || HAS_SQLD);
  describe.each(here.map((kind) => [PLACE_NAMES[kind], kind] as const))(`${name} %s`, (_, kind) => {
    let place: Place | undefined;
    beforeAll(async () => {
      place = await Place.start(kind, { servers: 3 });
    });
    afterAll(async () => {
      await place?.[Symbol.asyncDispose]();
    });

    const current = () => {
      if (!place) throw new Error("the place has not been started");
      return place;
    };
    body(current);

    test("nothing of all this was a defect in the servers' logs", () => {
      expect(current().defects()).toEqual([]);
    });
  });
}
