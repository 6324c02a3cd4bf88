// Another process holds the write lock while produces and acks go on, and then all that was acknowledged is held
// against the file: while the server runs, and after a kill -9. What is wrong comes back as sentences.

import { join } from "node:path";
import { Output, startServer, type TestServer } from "./server.ts";
import { stockSqlite } from "./stock-sqlite.ts";
import { StreamClient } from "./stream-client.ts";

const TOPIC = "orders";
const GROUP = "billing";
const PARTITION_COUNT = 4;
const LANES = 4;
const RECORDS_PER_PRODUCE = 5;
const HOLDS_MS = [600, 900, 300, 1_200, 1_000];
const TURNS_BETWEEN_HOLDS = 5;
/** A server that waits for the lock instead of asking again answers none. */
const HEALTH_ANSWERS_PER_HOLD_MIN = 5;
/** With the lock free: a hundred times what a retry needs. */
const WEDGED_MS = 3_000;

export interface BusyOutcome {
  /** Each begins with its kind: `lost`, `wedged`, `refused` or `blocked`. */
  readonly faults: readonly string[];
  readonly acknowledgedProduces: number;
  readonly acknowledgedAcks: number;
}

interface Run {
  readonly partition: number;
  readonly offset: number;
  readonly count: number;
}

/** `repository`: another copy of the sources. */
export async function runBusyScenario(databasePath: string, repository?: string): Promise<BusyOutcome> {
  await using server = await startServer(databasePath, repository === undefined ? {} : { repository });
  const body = JSON.stringify({ partitionCount: PARTITION_COUNT });
  await fetch(`${server.url}/v1/topics/${TOPIC}`, { method: "PUT", body });
  const work = new Work(server);
  await work.run();
  work.compareWithFile("while the server runs");
  await server.kill("SIGKILL");
  work.compareWithFile("after a kill -9");
  return work;
}

class Work implements BusyOutcome {
  acknowledgedProduces = 0;
  acknowledgedAcks = 0;
  readonly #server: TestServer;
  /** By acknowledged value: the `partition|offset` that it was given. */
  readonly #placesByValue = new Map<number, string>();
  /** By partition: what the last `acked` called durable. */
  readonly #ackedOffsets = new Map<number, number>();
  readonly #faults = new Set<string>();
  #onAcked: (() => void)[] = [];
  #lastValue = 0;
  #isStopping = false;
  #isWedged = false;

  constructor(server: TestServer) {
    this.#server = server;
  }

  get faults(): readonly string[] {
    return [...this.#faults];
  }

  async run(): Promise<void> {
    const consumer = await StreamClient.open(`${this.#server.streamUrl}?topic=${TOPIC}&group=${GROUP}`);
    void this.#consume(consumer);
    const lanes = Array.from({ length: LANES }, () => this.#runLane());
    if (await this.#makesProgress("before the lock was ever taken")) await this.#runHolds();
    this.#isStopping = true;
    await this.#inTime("the lanes' last produces", Promise.all(lanes));
    await this.#makesProgress("at the end");
    await this.#inTime("the last acks", this.#untilAllAcked());
  }

  async #runHolds(): Promise<void> {
    const script = join(import.meta.dir, "lock-holder.ts");
    const command = [process.execPath, script, this.#server.databasePath];
    const holder = Bun.spawn(command, { stdin: "pipe", stdout: "pipe", stderr: "inherit" });
    const output = new Output(holder.stdout, holder);
    for (const [index, ms] of HOLDS_MS.entries()) {
      holder.stdin.write(`${ms}\n`);
      await holder.stdin.flush();
      const isTaken = await output.until(new RegExp(`^taken ${index}$`, "m"));
      if (!isTaken) throw new Error("the other process did not get the lock");
      await this.#expectHealth(() => output.text.includes(`released ${index}\n`));
      const makesProgress = await this.#makesProgress(`after hold ${index}`);
      if (!makesProgress || this.#offsetsGivenTwice() > 0) break; // enough is known
    }
    await holder.stdin.end();
    await holder.exited;
  }

  async #expectHealth(isOver: () => boolean): Promise<void> {
    let answers = 0;
    while (!isOver()) {
      const { ok } = await fetch(`${this.#server.url}/healthz`);
      if (ok && !isOver()) answers += 1;
    }
    if (answers < HEALTH_ANSWERS_PER_HOLD_MIN)
      this.#faults.add(`blocked: ${answers} health answers while the lock was held`);
  }

  // ── what the clients do ──────────────────────────────────────────────────────────────────────────────

  /** Produces that begin now are answered, delivered, acknowledged, and their acks answered. */
  async #makesProgress(when: string): Promise<boolean> {
    for (let turn = 0; turn < TURNS_BETWEEN_HOLDS; turn += 1) {
      const isDone = await this.#inTime(`a produce and its ack ${when}`, this.#produceAndConsume());
      if (!isDone) return false;
    }
    return true;
  }

  async #produceAndConsume(): Promise<boolean> {
    const runs = await this.#produce();
    if (!runs) return false;
    for (const { partition, offset, count } of runs) await this.#untilAcked(partition, offset + count);
    return true;
  }

  async #runLane(): Promise<void> {
    while (!this.#isStopping) await this.#produce();
  }

  /** Undefined where it was not acknowledged. */
  async #produce(): Promise<readonly Run[] | undefined> {
    const values = Array.from({ length: RECORDS_PER_PRODUCE }, () => ++this.#lastValue);
    const records = values.map((value) => ({ value, key: `k${value}` }));
    const response = await fetch(`${this.#server.url}/v1/topics/${TOPIC}/records`, {
      method: "POST",
      body: JSON.stringify({ records }),
    });
    const text = await response.text();
    if (response.status !== 200) {
      this.#faults.add(`refused: a produce was answered ${response.status} ${text}`);
      return undefined;
    }
    const { runs } = JSON.parse(text) as { runs: readonly Run[] };
    const places = runs.flatMap(({ partition, offset, count }) =>
      Array.from({ length: count }, (_, n) => `${partition}|${offset + n}`),
    );
    for (const [index, value] of values.entries())
      this.#placesByValue.set(value, places[index] ?? "no place");
    this.acknowledgedProduces += 1;
    return runs;
  }

  /** An ack a frame, until the server goes. */
  async #consume(consumer: StreamClient): Promise<void> {
    for (;;) {
      const frame = await consumer.next().catch(() => undefined);
      if (frame === undefined) return;
      if (frame.type === "records") {
        const { topic, partition, generation, next: offset } = frame;
        consumer.send({ type: "ack", offsets: [{ topic, partition, generation, offset }] });
      } else if (frame.type === "acked") {
        for (const { partition, offset, code } of frame.offsets) {
          if (code !== undefined || offset === null) this.#faults.add(`refused: an ack was answered ${code}`);
          else this.#ackedOffsets.set(partition, offset);
        }
        this.acknowledgedAcks += 1;
        for (const resolve of this.#onAcked.splice(0)) resolve();
      } else if (frame.type === "error") {
        this.#faults.add(`refused: an ack was answered ${frame.code} ${frame.message}`);
      }
    }
  }

  async #untilAcked(partition: number, offset: number): Promise<void> {
    while ((this.#ackedOffsets.get(partition) ?? 0) < offset)
      await new Promise<void>((resolve) => this.#onAcked.push(resolve));
  }

  async #untilAllAcked(): Promise<void> {
    for (const place of this.#placesByValue.values()) {
      const [partition, offset] = place.split("|").map(Number);
      await this.#untilAcked(partition ?? 0, (offset ?? 0) + 1);
    }
  }

  /** Undefined where it is wedged, or was before: once is enough. */
  async #inTime<T>(what: string, promise: Promise<T>): Promise<T | undefined> {
    promise.catch(() => undefined); // what still waits when the server is killed
    if (this.#isWedged) return undefined;
    const { promise: late, resolve } = Promise.withResolvers<undefined>();
    const timer = setTimeout(() => {
      this.#isWedged = true;
      this.#faults.add(`wedged: ${what} took more than ${WEDGED_MS} ms with the lock free`);
      resolve(undefined);
    }, WEDGED_MS);
    const result = await Promise.race([promise, late]);
    clearTimeout(timer);
    return result;
  }

  // ── what the file says ───────────────────────────────────────────────────────────────────────────────

  compareWithFile(when: string): void {
    const { databasePath } = this.#server;
    const records = `SELECT partition, offset, value FROM topic_records WHERE topic = '${TOPIC}'`;
    const stored = new Set(stockSqlite(databasePath, records).split("\n"));
    const acknowledged = [...this.#placesByValue];
    const lost = acknowledged.filter(([value, place]) => !stored.has(`${place}|${value}`));
    if (lost.length > 0)
      this.#faults.add(`lost: ${lost.length} of ${acknowledged.length} acknowledged records ${when}`);
    const givenTwice = this.#offsetsGivenTwice();
    if (givenTwice > 0)
      this.#faults.add(`lost: ${givenTwice} offsets were given to two acknowledged records`);
    const offsets = `SELECT partition, committed_offset FROM consumer_lag WHERE group_id = '${GROUP}'`;
    const committed = new Set(stockSqlite(databasePath, offsets).split("\n"));
    for (const [partition, offset] of this.#ackedOffsets) {
      if (!committed.has(`${partition}|${offset}`))
        this.#faults.add(`lost: the ack of partition ${partition} at ${offset} ${when}`);
    }
  }

  #offsetsGivenTwice(): number {
    return this.#placesByValue.size - new Set(this.#placesByValue.values()).size;
  }
}
