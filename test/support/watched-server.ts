// A server with something to lose, and a look at all of it after whatever was tried: log ends, committed offsets, what
// producers have written, the guard table, and a subscription that was opened before and must receive the next record.

import { Database } from "bun:sqlite";
import { expect } from "bun:test";
import { join } from "node:path";
import { HttpClient } from "./http-client.ts";
import { startServer, type TestServer, temporaryFolder } from "./server.ts";
import { StreamClient } from "./stream-client.ts";

export const RECORDS_EACH = 10;
/** Topics and producers that cases may write to: their names begin so. Everything else must stay as it is. */
export const FREE = "limits";
/** It has written two batches, in that epoch. */
export const PRODUCER = { id: "writer", epoch: 3 };

const EVERYTHING_ELSE = `topic <> 'witness' AND topic NOT LIKE '${FREE}%'`;
const QUERIES = [
  `SELECT topic, topic_id, partition_count FROM topics WHERE ${EVERYTHING_ELSE} ORDER BY topic`,
  `SELECT topic, partition, log_start_offset, log_end_offset, records, bytes
   FROM partition_stats WHERE ${EVERYTHING_ELSE} ORDER BY topic, partition`,
  `SELECT group_id, topic, partition, committed_offset, metadata
   FROM consumer_lag WHERE ${EVERYTHING_ELSE} ORDER BY group_id, topic, partition`,
  `SELECT group_id, topic, partition, previous_offset, new_offset, cause
   FROM commit_history WHERE ${EVERYTHING_ELSE} ORDER BY group_id, topic, partition, at`,
  `SELECT producer_id, epoch, next_sequence FROM producers
   WHERE producer_id NOT LIKE '${FREE}%' ORDER BY producer_id`,
  `SELECT producer_id, sequence, partitions, runs FROM producer_answers
   WHERE producer_id NOT LIKE '${FREE}%' ORDER BY producer_id, sequence`,
  "SELECT op FROM guard",
];

export class WatchedServer {
  readonly server: TestServer;
  readonly http: HttpClient;
  readonly #witness: StreamClient;
  readonly #database: Database;
  readonly #removeFolder: () => void;
  #witnessed = 0;

  private constructor(server: TestServer, witness: StreamClient, removeFolder: () => void) {
    this.server = server;
    this.http = new HttpClient(server);
    this.#witness = witness;
    this.#database = new Database(server.databasePath, { readonly: true });
    this.#removeFolder = removeFolder;
  }

  /** `orders` has three partitions of ten records, the group `outside` has committed 4 in the first. See PRODUCER. */
  static async start(): Promise<WatchedServer> {
    const folder = temporaryFolder();
    const server = await startServer(join(folder.path, "t.db"), { mode: "serve" });
    const http = new HttpClient(server);
    await http.createTopic("orders", 3);
    for (const partition of [0, 1, 2]) await http.produceNumbers("orders", RECORDS_EACH, partition);
    await http.createTopic("payments");
    for (const sequence of [0, 1]) {
      const batch = { records: [{ value: sequence }], producer: { ...PRODUCER, sequence } };
      expect((await http.call("POST", "/v1/topics/payments/records", batch)).status).toBe(200);
    }
    await http.createTopic("witness");
    await http.createTopic(FREE, 2);
    const offsets = [{ topic: "orders", partition: 0, offset: 4, metadata: "before" }];
    expect((await http.call("POST", "/v1/groups/outside/offsets", { offsets })).status).toBe(200);
    const witness = await StreamClient.open(server.streamUrl, { patienceMs: 10_000 });
    witness.send({ type: "subscribe", topics: ["witness"], group: "witness" });
    await witness.expect("subscribed");
    await witness.expect("assigned");
    return new WatchedServer(server, witness, folder.remove);
  }

  /** A socket of its own for a case. */
  connect(query = ""): Promise<StreamClient> {
    return StreamClient.open(this.server.streamUrl + query, { patienceMs: 10_000 });
  }

  /** What must not change. */
  state(): unknown {
    return QUERIES.map((sql) => this.#database.query(sql).all());
  }

  /** Runs the case, and then everything is as it was, nothing is half done, and others are served. */
  async leavesAllAsItWas<T>(work: () => Promise<T>): Promise<T> {
    const before = this.state();
    const result = await work();
    expect(this.state()).toEqual(before);
    expect(this.#database.query("SELECT count(*) AS n FROM guard").get()).toEqual({ n: 0 });
    await this.expectNextRecord();
    return result;
  }

  async expectNextRecord(): Promise<void> {
    await this.http.produce("witness", [{ value: this.#witnessed }]);
    const { records, topic, partition, generation, next } = await this.#witness.expect("records");
    expect(records).toMatchObject([{ offset: this.#witnessed, value: this.#witnessed }]);
    this.#witness.send({ type: "ack", offsets: [{ topic, partition, generation, offset: next }] });
    await this.#witness.expect("acked");
    this.#witnessed += 1;
  }

  /** Also: nothing of all that was tried was a defect in the server's log. */
  async stop(): Promise<void> {
    this.#database.close();
    expect(await this.server.kill("SIGTERM")).toBe(0);
    const defects = this.server.logged
      .split("\n")
      .filter((line) => /event="(defect|database failed|write failed)"/.test(line));
    this.#removeFolder();
    expect(defects).toEqual([]);
  }
}

/** JSON text, nested so deep. */
export function nested(depth: number): string {
  return "[".repeat(depth) + "]".repeat(depth);
}
