// Three servers on one database, members that come and go, servers that stand still, die and are cut off, resets, growth,
// acks new and old, in any order: what must hold of a group at every moment, and that all is delivered in the end.

import { afterAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { AckEntry, ServerFrame } from "../../src/protocol/frames.ts";
import { openTestDatabase } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";
import { type FrameOf, type Instance, type MemoryClient, startInstance } from "../support/instances.ts";
import { isLongRun } from "../support/long.ts";

const SERVERS = 3;
const MEMBERS_MAX = 6;
const PARTITIONS_MAX = 8;
/** Longer than a process lease, a session timeout, a grace and a revoke deadline together. */
const SETTLE_MS = 90_000;
const SESSION_TIMEOUT_MS = 20_000;

const database = await openTestDatabase();
const connections = [database.db, await database.openSecond(), await database.openSecond()];
afterAll(() => database.close());

type ServerAction =
  | { readonly do: "join" | "pause" | "resume" | "crash" | "cutOff" | "letBack"; readonly server: number }
  | { readonly do: "produce"; readonly server: number; readonly partition: number; readonly count: number }
  | { readonly do: "reset"; readonly server: number; readonly to: "earliest" | "latest" | { shift: number } }
  | { readonly do: "grow"; readonly server: number };

type Action =
  | ServerAction
  | { readonly do: "hangUp" | "unsubscribe" | "ack" | "ackOld" | "hold"; readonly member: number }
  | { readonly do: "pass"; readonly ms: number };

const server = fc.nat(SERVERS - 1);
const member = fc.nat(MEMBERS_MAX - 1);
const place = fc.oneof(
  fc.constantFrom("earliest" as const, "latest" as const),
  fc.record({ shift: fc.integer({ min: -20, max: 20 }) }),
);
const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constant("join" as const), server }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constantFrom("pause", "resume", "cutOff", "letBack" as const), server }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("crash" as const), server }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constantFrom("hangUp", "unsubscribe", "hold" as const), member }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constantFrom("ack", "ack", "ackOld" as const), member }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("produce" as const),
      server,
      partition: fc.nat(PARTITIONS_MAX - 1),
      count: fc.integer({ min: 1, max: 20 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("reset" as const), server, to: place }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("grow" as const), server }) },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant("pass" as const),
      ms: fc.constantFrom(1, 60, 200, 1_000, 6_000, 15_000),
    }),
  },
);

const SUBSCRIBE_ID = "subscribe";
const OLD_ACK_ID = "old";

interface Member {
  readonly client: MemoryClient;
  readonly instance: Instance;
  /** Frames that it has not acknowledged. */
  readonly held: AckEntry[];
  readonly acknowledged: AckEntry[];
  /** Acknowledges as it receives. */
  isQuick: boolean;
  /** By partition: what the next record must be. */
  readonly positions: Map<number, number>;
}

/** Everything that has happened, and what is wrong with it. */
class World {
  readonly time = new FakeTime((ms) => database.pass(ms));
  readonly instances: Instance[] = [];
  readonly members: Member[] = [];
  readonly #memberByGeneration = new Map<string, Member>();
  readonly #delivered = new Map<number, Set<number>>();
  /** Below it nothing need have been delivered: a reset passed over it. */
  readonly #floors = new Map<number, number>();
  #committed = new Map<number, number>();
  #historyId = 0;
  #names = 0;
  #partitionCount = 3;

  async begin(): Promise<void> {
    await database.empty();
    for (let index = 0; index < SERVERS; index += 1) await this.#startServer(index);
    await this.instances[0]?.call("PUT", "/v1/topics/orders", { partitionCount: this.#partitionCount });
  }

  async perform(action: Action): Promise<void> {
    await this.#perform(action);
    await this.time.settle();
    await this.#checkCommits();
  }

  async #perform(action: Action): Promise<void> {
    if ("member" in action) return this.#performBy(this.members[action.member], action.do);
    return "ms" in action ? this.time.advance(action.ms) : this.#performOn(action);
  }

  async #performOn(action: ServerAction): Promise<void> {
    const instance = this.instances[action.server];
    if (!instance) throw new Error("no such server");
    switch (action.do) {
      case "join":
        if (!instance.isPaused && this.members.length < MEMBERS_MAX) await this.join(instance);
        return;
      case "pause":
        return instance.pause();
      case "resume":
        return instance.resume();
      case "cutOff":
        return instance.cutOff();
      case "letBack":
        return instance.letBack();
      case "crash":
        instance.crash();
        this.#forgetMembersOf(instance);
        return this.#startServer(action.server);
      case "produce":
        if (this.#isReachable(instance) && action.partition < this.#partitionCount)
          await instance.produce(action.count, action.partition);
        return;
      case "reset":
        if (this.#isReachable(instance))
          await this.#callAndSettle(instance, "POST", "/v1/groups/billing/reset", {
            topics: [{ topic: "orders" }],
            to: action.to,
          });
        return;
      case "grow":
        if (!this.#isReachable(instance) || this.#partitionCount === PARTITIONS_MAX) return;
        this.#partitionCount += 1;
        await this.#callAndSettle(instance, "PUT", "/v1/topics/orders", {
          partitionCount: this.#partitionCount,
        });
    }
  }

  async #callAndSettle(instance: Instance, method: string, path: string, body: unknown): Promise<void> {
    const answered = instance.call(method, path, body);
    await this.time.settle();
    await answered;
  }

  #isReachable(instance: Instance): boolean {
    return !instance.isPaused && instance.watched.onWrite === undefined;
  }

  async #startServer(index: number): Promise<void> {
    const db = connections[index];
    if (!db) throw new Error("no such connection");
    this.#names += 1;
    this.instances[index] = await startInstance({ db, time: this.time, name: `server${this.#names}` });
  }

  async join(instance: Instance): Promise<Member> {
    const client = await instance.connect();
    const joining: Member = {
      client,
      instance,
      held: [],
      acknowledged: [],
      isQuick: true,
      positions: new Map(),
    };
    client.onFrame = (frame) => this.#receive(joining, frame);
    this.members.push(joining);
    client.subscribe({
      id: SUBSCRIBE_ID,
      sessionTimeoutMs: SESSION_TIMEOUT_MS,
      window: { records: 10, bytes: 65_536 },
    });
    await this.time.settle();
    return joining;
  }

  async #performBy(by: Member | undefined, what: string): Promise<void> {
    if (!by || by.client.closed) return;
    if (what === "hold") by.isQuick = !by.isQuick;
    if (what === "hangUp") by.client.hangUp();
    if (what === "unsubscribe") by.client.say({ type: "unsubscribe" });
    if (what === "hangUp" || what === "unsubscribe") this.#forget(by);
    if (what === "ack") this.#ackHeld(by);
    if (what === "ackOld") await this.#ackOld(by);
  }

  #ackHeld(by: Member): void {
    const entries = by.held.splice(0);
    by.acknowledged.push(...entries);
    if (entries.length > 0) by.client.ack(...entries);
  }

  /** An ack of a generation that is over has no effect, and is told so. */
  async #ackOld(by: Member): Promise<void> {
    const owned = await database.rows(
      `SELECT p.partition, a.generation FROM assignments AS a JOIN partitions AS p USING (partition_id)`,
    );
    const isOver = ({ partition, generation }: AckEntry) =>
      !owned.some((row) => row.partition === partition && row.generation === generation);
    const old = by.acknowledged.find(isOver);
    if (old) by.client.say({ type: "ack", id: OLD_ACK_ID, offsets: [old] });
  }

  #forgetMembersOf(instance: Instance): void {
    for (const each of [...this.members]) if (each.instance === instance) this.#forget(each);
  }

  // ── what is received ───────────────────────────────────────────────────────────────────────────────────

  #receive(by: Member, frame: ServerFrame): void {
    if (frame.type === "assigned") this.#receiveAssigned(by, frame);
    if (frame.type === "records") this.#receiveRecords(by, frame);
    if (frame.type === "acked" && frame.id === OLD_ACK_ID)
      for (const { code } of frame.offsets) expect(code).toBe("fenced_generation");
    // A server that is cut off refuses who subscribes.
    const isRefused = frame.type === "error" && frame.id === SUBSCRIBE_ID;
    if (frame.type === "unsubscribed" || isRefused) this.#forget(by);
  }

  #forget(by: Member): void {
    const index = this.members.indexOf(by);
    if (index !== -1) this.members.splice(index, 1);
  }

  #receiveAssigned(by: Member, { partitions }: FrameOf<"assigned">): void {
    for (const { partition, generation, position } of partitions) {
      const key = `${partition}/${generation}`;
      const before = this.#memberByGeneration.get(key);
      if (before && before !== by) throw new Error(`two members have generation ${key}`);
      this.#memberByGeneration.set(key, by);
      by.positions.set(partition, position ?? 0);
    }
  }

  #receiveRecords(by: Member, { partition, generation, records, next, topic }: FrameOf<"records">): void {
    const delivered = this.#delivered.get(partition) ?? new Set();
    this.#delivered.set(partition, delivered);
    for (const { offset } of records) {
      expect(offset).toBe(by.positions.get(partition) ?? -1);
      by.positions.set(partition, offset + 1);
      delivered.add(offset);
    }
    by.held.push({ topic, partition, generation, offset: next });
    if (by.isQuick) this.#ackHeld(by);
  }

  // ── what is committed ──────────────────────────────────────────────────────────────────────────────────

  async #readCommitted(): Promise<Map<number, number>> {
    const rows = await database.rows(
      "SELECT p.partition, c.committed_offset FROM committed_offsets AS c JOIN partitions AS p USING (partition_id)",
    );
    return new Map(rows.map((row) => [Number(row.partition), Number(row.committed_offset)]));
  }

  async #checkCommits(): Promise<void> {
    const history = await database.rows(
      "SELECT history_id, partition, new_offset FROM offset_history WHERE history_id > :after ORDER BY history_id",
      { after: this.#historyId },
    );
    const given = new Set<number>();
    for (const { history_id, partition, new_offset } of history) {
      this.#historyId = Number(history_id);
      given.add(Number(partition));
      const floor = this.#floors.get(Number(partition)) ?? 0;
      this.#floors.set(Number(partition), Math.max(floor, Number(new_offset)));
    }
    const committed = await this.#readCommitted();
    for (const [partition, before] of this.#committed) {
      const now = committed.get(partition) ?? 0;
      if (now < before && !given.has(partition))
        throw new Error(`partition ${partition} went back: ${before} to ${now}`);
    }
    for (const [partition, now] of committed) this.#checkDelivered(partition, now);
    this.#committed = committed;
  }

  #checkDelivered(partition: number, until: number): void {
    for (let offset = this.#floors.get(partition) ?? 0; offset < until; offset += 1)
      if (!this.#delivered.get(partition)?.has(offset))
        throw new Error(`partition ${partition} offset ${offset} is committed and was not delivered`);
  }

  // ── the end ────────────────────────────────────────────────────────────────────────────────────────────

  /** Faults end, everybody acknowledges: then all is delivered, acknowledged and shared out. */
  async end(): Promise<void> {
    for (const instance of this.instances) {
      instance.letBack();
      instance.resume();
    }
    for (const each of this.members) each.isQuick = true;
    await this.time.settle();
    for (const each of [...this.members]) if (!each.client.closed) this.#ackHeld(each);
    const [first] = this.instances;
    if (first) await this.join(first);
    await this.time.advance(SETTLE_MS);
    await this.#checkCommits();
    await this.#checkShares();
    await this.#checkAllDone();
    for (const instance of this.instances) for (const client of instance.clients) client.hangUp();
    await this.time.advance(1_000);
    for (const instance of this.instances) instance.crash();
  }

  async #checkShares(): Promise<void> {
    const shares = await database.rows(
      `SELECT m.member_id, count(a.partition_id) AS n FROM members AS m
       LEFT JOIN assignments AS a ON a.group_id = m.group_id AND a.member_id = m.member_id GROUP BY m.member_id`,
    );
    const counts = shares.map(({ n }) => Number(n));
    expect(counts.reduce((sum, n) => sum + n, 0)).toBe(this.#partitionCount);
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
    expect(shares).toHaveLength(this.members.filter(({ client }) => !client.closed).length);
  }

  async #checkAllDone(): Promise<void> {
    const left = await database.rows("SELECT partition, lag FROM consumer_lag WHERE lag IS NOT 0");
    expect(left).toEqual([]);
    const revoking = await database.rows("SELECT * FROM assignments WHERE revoke_deadline IS NOT NULL");
    expect(revoking).toEqual([]);
  }
}

async function run(actions: readonly Action[]): Promise<void> {
  const world = new World();
  await world.begin();
  for (const each of actions) await world.perform(each);
  await world.end();
}

describe("a group on three servers", () => {
  test(
    "has one owner a partition, forgets no record and comes to rest, whatever happens",
    async () => {
      await fc.assert(fc.asyncProperty(fc.array(action, { minLength: 5, maxLength: 40, size: "max" }), run), {
        numRuns: isLongRun ? 300 : 15,
      });
    },
    { timeout: 600_000 },
  );
});
