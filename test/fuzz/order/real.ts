// The server of the model: in this process, on a real database in a file, with sockets in memory and time that stands
// still. After every command all has settled, and both are compared.

import { expect } from "bun:test";
import type { ClientFrame, ServerFrame } from "../../../src/protocol/frames.ts";
import type { TestDatabase } from "../../support/database.ts";
import { FakeTime } from "../../support/fake-time.ts";
import { type Instance, type MemoryClient, startInstance } from "../../support/instances.ts";
import { type Model, PARTITIONS, SESSION_TIMEOUT_MS, SOCKETS, TOPIC } from "./model.ts";

/** A member that was alive is there for so long after its socket, and not much longer than its session timeout. */
const SURELY_THERE_MS = SESSION_TIMEOUT_MS / 2;
const SURELY_GONE_MS = 2 * SESSION_TIMEOUT_MS;

interface Assignment {
  readonly memberId: string;
  readonly partition: number;
  readonly generation: number;
  readonly isRevoked: boolean;
}

export class Real {
  readonly #database: TestDatabase;
  readonly #time: FakeTime;
  readonly #instance: Instance;
  readonly #clients: MemoryClient[] = [];
  readonly #received: { readonly socket: number; readonly frame: ServerFrame }[] = [];

  private constructor(database: TestDatabase, time: FakeTime, instance: Instance) {
    this.#database = database;
    this.#time = time;
    this.#instance = instance;
  }

  static async start(database: TestDatabase): Promise<Real> {
    await database.empty();
    const time = new FakeTime((ms) => database.pass(ms));
    const instance = await startInstance({ db: database.db, time, name: "server" });
    const real = new Real(database, time, instance);
    await real.call("PUT", `/v1/topics/${TOPIC}`, { partitionCount: PARTITIONS });
    for (let socket = 0; socket < SOCKETS; socket += 1) await real.connect(socket);
    return real;
  }

  async connect(socket: number): Promise<void> {
    const client = await this.#instance.connect();
    client.onFrame = (frame) => this.#received.push({ socket, frame });
    this.#clients[socket] = client;
  }

  say(socket: number, frame: ClientFrame): void {
    this.#clients[socket]?.say({ ...frame });
  }

  hangUp(socket: number): void {
    this.#clients[socket]?.hangUp();
  }

  /** The status and body of a request, when all has settled. */
  async call(method: string, path: string, body: unknown): Promise<{ status: number; body: unknown }> {
    const answered = this.#instance.call(method, path, body);
    await this.#time.settle();
    const response = await answered;
    return { status: response.status, body: await response.json() };
  }

  pass(ms: number): Promise<void> {
    return this.#time.advance(ms);
  }

  /** Lets all settle, gives what has come to the model, in the order in which it came, and compares. */
  async settle(model: Model): Promise<void> {
    await this.#time.settle();
    for (const { socket, frame } of this.#received.splice(0)) model.receive(socket, frame);
    model.expectSettled();
    expect(this.#clients.map(({ closed }) => closed)).toEqual(this.#clients.map(() => undefined));
    await this.#compareMembers(model);
    await this.#compareOwners(model);
    await this.#compareCommitted(model);
    for (const views of model.sockets) for (const view of views.values()) view.expectCaughtUp(model.ends);
  }

  async #compareMembers(model: Model): Promise<void> {
    const rows = await this.#database.rows("SELECT member_id FROM members");
    const there = new Set(rows.map((row) => String(row.member_id)));
    const isGone = ({ memberId }: { readonly memberId: string }) => !there.has(memberId);
    for (const { sinceMs } of model.detached.filter(isGone))
      expect(model.nowMs - sinceMs).toBeGreaterThan(SURELY_THERE_MS);
    model.detached = model.detached.filter((member) => !isGone(member));
    for (const { sinceMs } of model.detached) expect(model.nowMs - sinceMs).toBeLessThan(SURELY_GONE_MS);
    const known = [...model.members, ...model.detached].map(({ memberId }) => String(memberId));
    expect([...there].sort()).toEqual(known.sort());
  }

  /** Who is sent a partition owns it, nobody else does, and all are shared out evenly where nothing is on its way. */
  async #compareOwners(model: Model): Promise<void> {
    const owned = await this.#readAssignments();
    for (const view of model.members) {
      const own = owned.filter(({ memberId }) => memberId === view.memberId);
      for (const [partition, { generation, isRevoked }] of view.held)
        if (isRevoked && !own.some((each) => each.generation === generation)) view.held.delete(partition); // nobody says so
      const held = [...view.held].map(([partition, { generation, isRevoked }]) => ({
        partition,
        generation,
        isRevoked,
      }));
      const byPartition = (a: { partition: number }, b: { partition: number }) => a.partition - b.partition;
      expect(held.sort(byPartition)).toEqual(own.map(({ memberId: _, ...each }) => each).sort(byPartition));
    }
    const members = [...model.members, ...model.detached];
    if (owned.some(({ isRevoked }) => isRevoked)) return;
    expect(owned).toHaveLength(members.length > 0 ? PARTITIONS : 0);
    const counts = members.map(({ memberId }) => owned.filter((each) => each.memberId === memberId).length);
    if (counts.length > 0) expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
  }

  async #readAssignments(): Promise<readonly Assignment[]> {
    const rows = await this.#database.rows(
      `SELECT a.member_id, p.partition, a.generation, a.revoke_deadline IS NOT NULL AS is_revoked
       FROM assignments AS a JOIN partitions AS p USING (partition_id)`,
    );
    return rows.map((row) => ({
      memberId: String(row.member_id),
      partition: Number(row.partition),
      generation: Number(row.generation),
      isRevoked: row.is_revoked === 1,
    }));
  }

  async #compareCommitted({ committed }: Model): Promise<void> {
    const rows = await this.#database.rows(
      "SELECT p.partition, c.committed_offset FROM committed_offsets AS c JOIN partitions AS p USING (partition_id)",
    );
    const found = new Map(rows.map((row) => [Number(row.partition), Number(row.committed_offset)]));
    for (const [partition, offset] of found) if (!committed.has(partition)) committed.set(partition, offset); // by a policy
    expect(found).toEqual(committed);
  }

  /** Nothing of all that was a surprise to the server. */
  async end(): Promise<void> {
    for (const client of this.#clients) client.hangUp();
    await this.#time.settle();
    this.#instance.crash();
    expect(this.#instance.log).toEqual([]);
  }
}
