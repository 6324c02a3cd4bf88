import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import type { GainRequest, JoinRequest, JoinResult } from "../../src/core/membership.ts";
import { Problem } from "../../src/core/problem.ts";
import { parseJsonProduce } from "../../src/core/produce-request.ts";
import type { MembershipRef } from "../../src/core/session/state.ts";
import { commitOffsets } from "../../src/store/commits.ts";
import { type Db, DbError } from "../../src/store/db.ts";
import { appendRecords } from "../../src/store/records.ts";
import { Topics } from "../../src/store/topics.ts";
import { WriteQueue } from "../../src/store/write-queue.ts";
import { Memberships } from "../../src/stream/memberships.ts";
import { failing, openTestDatabase, START_MS, WatchedDb } from "../support/database.ts";
import { FakeTime, fakeChance } from "../support/fake-time.ts";

const database = await openTestDatabase();
const second = await database.openSecond();
afterAll(() => database.close());
beforeEach(() => database.empty());

const TIMEOUT_MS = 45_000;
/** What a look at the leases waits beyond the one that is due. */
const SLACK_MS = 50;

type Request = Omit<JoinRequest, "newMemberId">;

/** A server's memberships; the clocks of the database and of the server move together. */
function startServer(options: { db?: Db; ids?: string; createsOnFirstUse?: boolean } = {}) {
  const { db = database.db, ids = "id", createsOnFirstUse = true } = options;
  const watched = new WatchedDb(db);
  const time = new FakeTime((ms) => database.pass(ms));
  const events: string[] = [];
  const log = (event: string) => void events.push(event);
  const chance = fakeChance({ ids });
  const queue = new WriteQueue({ db: watched, scheduler: time, chance, log });
  const topics = new Topics({ db: watched, queue, createsOnFirstUse });
  const memberships = new Memberships({ db: watched, topics, queue, scheduler: time, chance, log });
  /** Who was told of the end of a membership, in order. */
  const told: string[] = [];
  const join = (request: Partial<Request> = {}, name = "member") =>
    memberships.join(
      {
        group: "billing",
        topics: ["orders"],
        memberId: undefined,
        instanceId: undefined,
        policies: { missing: "earliest", outOfRange: "earliest" },
        sessionTimeoutMs: TIMEOUT_MS,
        ...request,
      },
      (reason) => told.push(`${name} ${reason}`),
    );
  return { watched, time, events, queue, topics, memberships, told, join };
}

const refOf = ({ memberId, membership }: JoinResult, group = "billing"): MembershipRef => ({
  group,
  memberId,
  membership,
});

const members = () => database.rows("SELECT group_id, member_id, membership FROM members ORDER BY group_id");
const memberIds = async () => (await members()).map(({ member_id }) => member_id);

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "resolved",
    (error) => (error instanceof Problem ? error.code : `defect: ${error}`),
  );
}

describe("Memberships.join()", () => {
  test("brings the member's partitions and what its policies did", async () => {
    const { join, told, topics } = startServer();
    await topics.put("orders", 2);
    const result = await join();
    expect(result).toMatchObject({
      memberId: "id-1",
      membership: 1,
      partitions: [
        { partition: 0, generation: 2, committedOffset: 0 },
        { partition: 1, generation: 3 },
      ],
      resets: [{ partition: 0, from: null, to: 0, policy: "earliest" }, { partition: 1 }],
      unplaced: [],
    });
    expect(told).toEqual([]);
    expect(await members()).toEqual([{ group_id: "billing", member_id: "id-1", membership: 1 }]);
  });

  test("creates its topics where first use does", async () => {
    const { join } = startServer();
    await join({ topics: ["orders", "payments"] });
    expect(await database.rows("SELECT topic FROM topics ORDER BY topic")).toEqual([
      { topic: "orders" },
      { topic: "payments" },
    ]);
  });

  test("of a topic that is not there says so and leaves nothing", async () => {
    const { join } = startServer({ createsOnFirstUse: false });
    expect(await codeOf(join())).toBe("unknown_topic");
    expect(await members()).toEqual([]);
    expect(await database.rows("SELECT * FROM groups")).toEqual([]);
  });

  test("of a second member is a conflict that the first does not notice", async () => {
    const { join, told } = startServer();
    await join({}, "first");
    const before = await members();
    expect(await codeOf(join({}, "second"))).toBe("conflict");
    expect(await codeOf(join({ memberId: "somebody", instanceId: "tab-9" }, "third"))).toBe("conflict");
    expect(await members()).toEqual(before);
    expect(told).toEqual([]);
  });

  test("by many at once lets one in", async () => {
    const { join, watched } = startServer();
    const outcomes = await Promise.all(Array.from({ length: 10 }, () => codeOf(join())));
    expect(outcomes).toEqual(["resolved", ...Array.from({ length: 9 }, () => "conflict")]);
    expect(await members()).toHaveLength(1);
    expect(watched.writes).toHaveLength(2); // the topic and the one join: nobody has tried in vain
  });

  test("of many groups at once goes to disk together", async () => {
    const { join, watched, topics } = startServer();
    await topics.put("orders", 1);
    const before = watched.writes.length;
    const results = await Promise.all(Array.from({ length: 50 }, (_, i) => join({ group: `group-${i}` })));
    expect(watched.writes.length - before).toBe(1);
    expect(new Set(results.map(({ membership }) => membership)).size).toBe(50);
    expect(await members()).toHaveLength(50);
  });

  test("with the memberId of a member takes it over and tells the old one, once", async () => {
    const { join, told } = startServer();
    const first = await join({}, "first");
    const again = await join({ memberId: first.memberId }, "second");
    expect(again.memberId).toBe(first.memberId);
    expect(again.membership).toBeGreaterThan(first.membership);
    expect(told).toEqual(["first replaced"]);
    expect(await members()).toEqual([
      { group_id: "billing", member_id: first.memberId, membership: again.membership },
    ]);
  });

  test("with the instanceId of a member takes it over under a new id and tells the old one, once", async () => {
    const { join, told } = startServer();
    await join({ instanceId: "tab-7" }, "first");
    const again = await join({ instanceId: "tab-7" }, "second");
    expect(again.memberId).toBe("id-2");
    expect(told).toEqual(["first replaced"]);
    expect(await memberIds()).toEqual(["id-2"]);
  });

  test("takes over again and again, and tells each holder once", async () => {
    const { join, told } = startServer();
    const { memberId } = await join({}, "0");
    for (const name of ["1", "2", "3"]) await join({ memberId }, name);
    expect(told).toEqual(["0 replaced", "1 replaced", "2 replaced"]);
  });

  test("takes over in one group and leaves a member of the same name in another alone", async () => {
    const { join, told } = startServer();
    await join({ instanceId: "tab-7" }, "billing");
    await join({ group: "shipping", instanceId: "tab-7" }, "shipping");
    await join({ instanceId: "tab-7" }, "billing again");
    expect(told).toEqual(["billing replaced"]);
    expect(await members()).toHaveLength(2);
  });

  test("after the lease of the other has run out takes its place and tells it", async () => {
    const { join, told, time } = startServer();
    await join({}, "first");
    await time.advance(TIMEOUT_MS - 1);
    expect(await codeOf(join({}, "too early"))).toBe("conflict");
    await time.advance(1);
    await join({}, "second");
    expect(told).toHaveLength(1);
    expect(told[0]).toStartWith("first ");
    expect(await members()).toHaveLength(1);
  });

  test("that fails in the database leaves nothing, and the next one goes on", async () => {
    const { join, watched, topics, told } = startServer();
    await topics.put("orders", 1);
    watched.onWrite = failing(new DbError("io", "scripted"));
    const [failed, next] = await Promise.all([codeOf(join()), codeOf(join())]);
    expect([failed, next]).toEqual(["unavailable", "resolved"]);
    watched.onRead = failing(new DbError("io", "scripted"));
    expect(await codeOf(join({ group: "other" }))).not.toBe("resolved");
    expect(await codeOf(join({ group: "other" }))).toBe("resolved");
    expect(await members()).toHaveLength(2);
    expect(told).toEqual([]);
  });

  test("whose outcome is unknown stands in nobody's way longer than its lease", async () => {
    const { join, watched, topics, time } = startServer();
    await topics.put("orders", 1);
    watched.onWrite = async (statements) => {
      watched.onWrite = undefined;
      await database.db.write(statements); // it was written, and the answer is lost
      throw new DbError("unknown", "scripted");
    };
    expect(await codeOf(join())).toBe("outcome_unknown");
    expect(await codeOf(join())).toBe("conflict");
    await time.advance(TIMEOUT_MS);
    expect(await codeOf(join())).toBe("resolved");
    expect(await members()).toHaveLength(1);
  });

  test("whose outcome is unknown is ended when its lease has run out, though nobody joins", async () => {
    const { join, watched, topics, time } = startServer();
    await topics.put("orders", 1);
    watched.onWrite = async (statements) => {
      watched.onWrite = undefined;
      await database.db.write(statements);
      throw new DbError("unknown", "scripted");
    };
    expect(await codeOf(join())).toBe("outcome_unknown");
    expect(await members()).toHaveLength(1);
    await time.advance(TIMEOUT_MS + SLACK_MS);
    expect(await members()).toEqual([]);
  });
});

describe("Memberships.join() while another server changes the group", () => {
  /** Runs `meanwhile` between the reading of the group and the writing of the join, as often as it is told. */
  function interfere(
    watched: WatchedDb,
    times: number,
    meanwhile: (round: number) => Promise<unknown>,
  ): void {
    let round = 0;
    watched.onRead = async ({ sql }) => {
      if (!sql.includes("partitions_seen") || round === times) return;
      round += 1;
      await meanwhile(round);
    };
  }

  test("looks again and finds the other's member", async () => {
    const here = startServer();
    const there = startServer({ db: second, ids: "other" });
    await here.topics.put("orders", 1);
    interfere(here.watched, 1, () => there.join());
    expect(await codeOf(here.join())).toBe("conflict");
    expect(await memberIds()).toEqual(["other-1"]);
    expect(there.told).toEqual([]);
    expect(await database.rows("SELECT * FROM guard")).toEqual([]);
  });

  test("looks again and joins where the other has left", async () => {
    const here = startServer();
    const there = startServer({ db: second, ids: "other" });
    await here.topics.put("orders", 1);
    interfere(here.watched, 3, async () => there.memberships.leave(refOf(await there.join())));
    const { memberId, partitions } = await here.join();
    expect(await memberIds()).toEqual([memberId]);
    expect(partitions.map(({ generation }) => generation)).toEqual(
      (await database.rows("SELECT generation FROM assignments")).map(({ generation }) => Number(generation)),
    );
  });

  test("gives up as unavailable when the group changes every time, and has written nothing", async () => {
    const here = startServer();
    const there = startServer({ db: second, ids: "other" });
    await here.topics.put("orders", 1);
    interfere(here.watched, 1_000, async () => there.memberships.leave(refOf(await there.join())));
    expect(await codeOf(here.join())).toBe("unavailable");
    expect(await members()).toEqual([]);
    expect(await database.rows("SELECT * FROM guard")).toEqual([]);
  });

  test("of two servers lets one in, whoever is first", async () => {
    const here = startServer();
    const there = startServer({ db: second, ids: "other" });
    await here.topics.put("orders", 1);
    for (let round = 0; round < 10; round += 1) {
      const group = `group-${round}`;
      const outcomes = [codeOf(here.join({ group })), codeOf(there.join({ group }))];
      await here.time.advance(100);
      await there.time.advance(100);
      expect((await Promise.all(outcomes)).toSorted()).toEqual(["conflict", "resolved"]);
    }
    expect(await members()).toHaveLength(10);
  });

  test.each([
    { policy: "earliest", says: "does not say that a policy placed what an ack has placed meanwhile" },
    { policy: "none", says: "does not call a partition unplaced that an ack has placed meanwhile" },
  ] as const)("$says", async ({ policy }) => {
    const { join, queue, topics, watched } = startServer();
    await topics.put("orders", 1);
    await database.run("UPDATE partitions SET log_end_offset = 10");
    await database.run("UPDATE partitions SET log_end_offset = 3");
    const old = await join({ policies: { missing: "none", outOfRange: "none" } });
    const ack = { topic: "orders", partition: 0, offset: 3, metadata: null, refusal: undefined };
    const generation = old.partitions[0]?.generation ?? 0;
    watched.onRead = ({ sql }) => {
      if (!sql.includes("partitions_seen")) return;
      watched.onRead = undefined;
      // Goes to the queue now and to disk in a later turn: after this reading of the group, before the join.
      void queue.submit(commitOffsets("billing", [{ ...ack, generation }]));
    };
    const result = await join({ memberId: old.memberId, policies: { missing: policy, outOfRange: "none" } });
    expect(result.partitions).toMatchObject([{ committedOffset: 3 }]);
    expect(result).toMatchObject({ resets: [], unplaced: [] });
  });
});

describe("Memberships.leave()", () => {
  test("ends the membership and tells nobody", async () => {
    const { join, memberships, told } = startServer();
    await memberships.leave(refOf(await join()));
    expect(await members()).toEqual([]);
    expect(told).toEqual([]);
  });

  test("tells nobody, even when a renewal comes after it", async () => {
    const { join, memberships, told } = startServer();
    const member = refOf(await join());
    const left = memberships.leave(member);
    const renewed = memberships.renew(member);
    await Promise.all([left, renewed]);
    await memberships.renew(member);
    expect(told).toEqual([]);
  });

  test("makes room for a join that is asked for right behind it", async () => {
    const { join, memberships } = startServer();
    const first = await join();
    const left = memberships.leave(refOf(first));
    expect(await codeOf(join())).toBe("resolved");
    await left;
    expect(await memberIds()).toEqual(["id-2"]);
  });

  test("of a membership that was taken over does nothing to the new one", async () => {
    const { join, memberships, told } = startServer();
    const old = await join({}, "old");
    const taken = await join({ memberId: old.memberId }, "new");
    await memberships.leave(refOf(old));
    expect(await members()).toMatchObject([{ membership: taken.membership }]);
    await memberships.renew(refOf(taken));
    expect(told).toEqual(["old replaced"]);
  });

  test("that cannot be written says so, and the group goes on", async () => {
    const { join, memberships, watched } = startServer();
    const member = refOf(await join());
    watched.onWrite = failing(new DbError("full", "scripted"));
    expect(await codeOf(memberships.leave(member))).toBe("storage_full");
    expect(await members()).toHaveLength(1);
    await memberships.leave(member);
    expect(await members()).toEqual([]);
  });
});

describe("Memberships.renew()", () => {
  test("moves the lease and tells nobody", async () => {
    const { join, memberships, told, time } = startServer();
    const member = refOf(await join());
    await time.advance(15_000);
    await memberships.renew(member);
    expect(await database.rows("SELECT lease_expires_at FROM members")).toEqual([
      { lease_expires_at: START_MS + 15_000 + TIMEOUT_MS },
    ]);
    expect(told).toEqual([]);
  });

  test("tells the holder, once, that another server has ended the membership", async () => {
    const here = startServer();
    const there = startServer({ db: second, ids: "other" });
    const joined = await here.join({}, "here");
    const taken = await there.join({ memberId: joined.memberId }, "there");
    expect(here.told).toEqual([]);
    await here.memberships.renew(refOf(joined));
    await here.memberships.renew(refOf(joined));
    expect(here.told).toHaveLength(1);
    expect(there.told).toEqual([]);
    expect(await members()).toMatchObject([{ membership: taken.membership }]);
  });

  test("of an older membership tells nothing to the holder of the new one", async () => {
    const { join, memberships, told } = startServer();
    const old = await join({}, "old");
    await join({ memberId: old.memberId }, "new");
    await memberships.renew(refOf(old));
    expect(told).toEqual(["old replaced"]);
  });
});

describe("Memberships.detach()", () => {
  test("keeps the membership until its lease has run out, then ends it and tells nobody", async () => {
    const { join, memberships, time, told } = startServer();
    const member = refOf(await join({ instanceId: "tab-7" }));
    await time.advance(10_000);
    await memberships.detach(member);
    await time.advance(TIMEOUT_MS - 1); // from the end of its socket, whenever it was renewed before
    expect(await members()).toHaveLength(1);
    await time.advance(1 + SLACK_MS);
    expect(await members()).toEqual([]);
    expect(await database.rows("SELECT * FROM assignments")).toEqual([]);
    expect(told).toEqual([]);
    expect(time.pendingDelaysMs).toEqual([]); // nothing left to look for
  });

  test("of several ends each when its own lease has run out", async () => {
    const { join, memberships, time } = startServer();
    for (const sessionTimeoutMs of [9_000, 6_000, 30_000]) {
      const group = `group-${sessionTimeoutMs}`;
      await memberships.detach(refOf(await join({ group, sessionTimeoutMs, instanceId: "tab" }), group));
    }
    const left = [];
    for (let second = 0; second < 32; second += 1) {
      await time.advance(1_000);
      left.push((await members()).length);
    }
    const expected = Array.from({ length: 32 }, (_, i) => {
      const passedMs = (i + 1) * 1_000;
      return [6_000, 9_000, 30_000].filter((timeoutMs) => passedMs < timeoutMs + SLACK_MS).length;
    });
    expect(left).toEqual(expected);
  });

  test("does not end a membership that was taken over and is renewed", async () => {
    const { join, memberships, time, told } = startServer();
    await memberships.detach(refOf(await join({ instanceId: "tab-7" }, "old")));
    await time.advance(30_000);
    const taken = await join({ instanceId: "tab-7" }, "new");
    for (let beat = 0; beat < 6; beat += 1) {
      await time.advance(15_000);
      await memberships.renew(refOf(taken));
    }
    expect(await members()).toMatchObject([{ membership: taken.membership }]);
    expect(told).toEqual([]);
  });

  test("ends a holder that nobody renews, too, and tells it", async () => {
    const { join, memberships, time, told } = startServer();
    await join({ group: "held", sessionTimeoutMs: 20_000 }, "held");
    await memberships.detach(refOf(await join({ group: "let-go", instanceId: "t" }), "let-go"));
    await time.advance(20_000 + SLACK_MS);
    expect(told).toEqual(["held expired"]);
    expect(await members()).toMatchObject([{ group_id: "let-go" }]);
  });

  test("looks again after a second when the database could not end the lease", async () => {
    const { join, memberships, time, watched, events } = startServer();
    await memberships.detach(refOf(await join({ instanceId: "tab-7" })));
    watched.onWrite = failing(new DbError("io", "1"), new DbError("full", "2"));
    await time.advance(TIMEOUT_MS + SLACK_MS);
    await time.advance(1_000);
    expect(events.filter((event) => event === "leases could not be looked at")).toHaveLength(2);
    expect(await members()).toHaveLength(1);
    await time.advance(1_000);
    expect(await members()).toEqual([]);
  });
});

describe("Memberships.gain()", () => {
  const gainOf = (result: JoinResult, options: Partial<GainRequest> = {}): GainRequest => ({
    ...refOf(result),
    topics: ["orders"],
    policies: { missing: "latest", outOfRange: "latest" },
    lostPartitionIds: [],
    ...options,
  });
  const growTo = (partition: number) =>
    database.run("INSERT INTO partitions (topic_id, partition) VALUES (1, :partition)", { partition });

  test("brings what the topic has grown by, from its beginning", async () => {
    const { join, memberships, told } = startServer();
    const joined = await join();
    await growTo(1);
    expect(await memberships.gain(gainOf(joined))).toMatchObject({
      memberId: joined.memberId,
      membership: joined.membership,
      partitions: [{ partition: 1, generation: 4, committedOffset: 0 }],
      resets: [{ partition: 1, from: null, to: 0, policy: "earliest" }],
      unplaced: [],
    });
    expect(told).toEqual([]);
  });

  test("brings what was lost again, in a new generation", async () => {
    const { join, memberships } = startServer();
    const joined = await join();
    const gained = await memberships.gain(gainOf(joined, { lostPartitionIds: [1] }));
    expect(gained?.partitions).toMatchObject([{ partitionId: 1, committedOffset: 0 }]);
    expect(gained?.partitions[0]?.generation).toBeGreaterThan(joined.partitions[0]?.generation ?? 0);
  });

  test("writes nothing where there is nothing, nor where the membership has ended", async () => {
    const { join, memberships, watched } = startServer();
    const joined = await join();
    const before = watched.writes.length;
    expect(await memberships.gain(gainOf(joined))).toBeUndefined();
    expect(watched.writes).toHaveLength(before);
    await memberships.leave(refOf(joined));
    await growTo(1);
    expect(await memberships.gain(gainOf(joined, { lostPartitionIds: [1] }))).toBeUndefined();
    expect(await database.rows("SELECT * FROM assignments")).toEqual([]);
  });

  test("creates no topic", async () => {
    const { join, memberships } = startServer();
    const joined = await join();
    expect(await memberships.gain(gainOf(joined, { topics: ["orders", "refunds"] }))).toBeUndefined();
    expect(await database.rows("SELECT topic FROM topics")).toEqual([{ topic: "orders" }]);
  });

  test("plans again where another process has changed the group in between", async () => {
    const { join, memberships, watched } = startServer();
    const other = startServer({ db: second, ids: "other" });
    const joined = await join();
    await growTo(1);
    const before = watched.writes.length;
    watched.onWrite = async () => {
      watched.onWrite = undefined;
      await other.memberships.gain(gainOf(joined));
    };
    expect(await memberships.gain(gainOf(joined, { lostPartitionIds: [1] }))).toMatchObject({
      partitions: [{ partitionId: 1 }], // the other one was given by the other process
    });
    expect(watched.writes.length - before).toBe(2);
  });

  test("finds what a policy by time needs", async () => {
    const { join, memberships } = startServer();
    const joined = await join({ policies: { missing: "none", outOfRange: "none" } });
    await database.run("UPDATE partitions SET log_start_offset = 5, log_end_offset = 9");
    await database.run("INSERT INTO committed_offsets VALUES ('billing', 1, 3, NULL, 0)");
    const policies = { missing: "none", outOfRange: { ago: 5 } } as const;
    const gained = await memberships.gain(gainOf(joined, { policies, lostPartitionIds: [1] }));
    expect(gained).toMatchObject({
      partitions: [{ committedOffset: 9 }], // nothing in the log is as young
      resets: [{ from: 3, to: 9, policy: { ago: 5 } }],
    });
  });

  test("waits for its turn behind what the group is doing", async () => {
    const { join, memberships } = startServer();
    const joined = await join();
    await growTo(1);
    const done: string[] = [];
    await Promise.all([
      memberships.leave(refOf(joined)).then(() => done.push("left")),
      memberships.gain(gainOf(joined)).then((gained) => done.push(`gained ${gained}`)),
    ]);
    expect(done).toEqual(["left", "gained undefined"]);
  });
});

describe("Memberships.join() with a policy by time", () => {
  test("starts where the time is, on the database's clock, and records why", async () => {
    const { join, topics, queue } = startServer();
    const records = [3_000, 2_000, 1_000].map((agoMs) => ({ value: 1, timestamp: START_MS - agoMs }));
    const list = parseJsonProduce(JSON.stringify({ records }));
    await queue.submit(appendRecords(await topics.require("orders"), [{ partition: 0, records: list }]));
    const result = await join({ policies: { missing: { ago: 2_500 }, outOfRange: "none" } });
    expect(result).toMatchObject({
      partitions: [{ committedOffset: 1 }],
      resets: [{ from: null, to: 1, policy: { ago: 2_500 } }],
    });
    expect(await database.rows("SELECT cause FROM offset_history")).toEqual([
      { cause: "missing: ago 2500 ms" },
    ]);
  });
});

describe("Memberships.endThoseOfLastRun()", () => {
  test("ends the members without an instance and lets the others run out", async () => {
    const last = startServer();
    await last.join({ group: "a" });
    await last.join({ group: "b", instanceId: "tab-7" });
    const { memberships, time, events, told } = startServer();
    await memberships.endThoseOfLastRun();
    expect(await members()).toMatchObject([{ group_id: "b" }]);
    expect(events).toEqual(["memberships of the last run ended"]);
    await time.advance(TIMEOUT_MS + SLACK_MS);
    expect(await members()).toEqual([]);
    expect([...told, ...last.told]).toEqual([]);
  });

  test("of a file without members does nothing and waits for nothing", async () => {
    const { memberships, time, events } = startServer();
    await memberships.endThoseOfLastRun();
    expect(events).toEqual([]);
    expect(time.pendingDelaysMs).toEqual([]);
  });
});

describe("Memberships.close()", () => {
  test("looks at leases no more", async () => {
    const { join, memberships, time } = startServer();
    await memberships.detach(refOf(await join({ instanceId: "tab-7" })));
    expect(time.pendingDelaysMs).toHaveLength(1);
    memberships.close();
    expect(time.pendingDelaysMs).toEqual([]);
    await time.advance(2 * TIMEOUT_MS);
    expect(await members()).toHaveLength(1);
  });

  test("looks at leases no more, even when a socket that closes after it cannot be let go", async () => {
    const { join, memberships, queue, time } = startServer();
    const member = refOf(await join());
    memberships.close();
    await queue.close();
    expect(await codeOf(memberships.leave(member))).toBe("unavailable");
    await memberships.detach(member);
    expect(time.pendingDelaysMs).toEqual([]);
  });
});
