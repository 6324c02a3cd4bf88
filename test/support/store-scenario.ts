// Goes through every operation and query of src/store once, on whatever database it is given. Its outcomes are those of
// the database alone: time stands still unless the scenario moves it, and every id is counted. So two databases that do
// the same say the same, word for word.

import type { GroupChange, OwnedPartition } from "../../src/core/group-change.ts";
import type { GroupPicture, JoinRequest } from "../../src/core/group-picture.ts";
import { planGroup, policyResets, timesNeededBy } from "../../src/core/group-plan.ts";
import { Problem } from "../../src/core/problem.ts";
import { type NewRecord, parseJsonProduce } from "../../src/core/produce-request.ts";
import { planReset, type ResetRequest, resetChange, timesNeededByReset } from "../../src/core/reset-plan.ts";
import type { AckRequest } from "../../src/core/session/events.ts";
import type { MembershipRef } from "../../src/core/session/state.ts";
import type { AckEntry } from "../../src/protocol/frames.ts";
import type { ResetPolicies } from "../../src/protocol/places.ts";
import { appendRecords } from "../../src/store/appends.ts";
import { readChanges, readSeen } from "../../src/store/changes.ts";
import { commitOffsets, commitPolicy } from "../../src/store/commits.ts";
import { compactStep, findCompactable, findOutdated, forgetStep } from "../../src/store/compaction.ts";
import type { Db, Statement } from "../../src/store/db.ts";
import { walkGroups, walkProducers } from "../../src/store/expiry.ts";
import { commitFromOutside, deleteGroup, forgetTopic } from "../../src/store/group-changes.ts";
import { readMetadata } from "../../src/store/group-pictures.ts";
import { describeGroup, listGroups } from "../../src/store/group-queries.ts";
import { writeGroups } from "../../src/store/groups.ts";
import {
  endMembershipsWithoutInstance,
  greetProcesses,
  readDue,
  renewAfterOutage,
  renewLease,
  shortenToClock,
} from "../../src/store/leases.ts";
import { findOffsetsAt, readPlaceFacts } from "../../src/store/places.ts";
import { endProcess, keepProcess } from "../../src/store/processes.ts";
import { raiseEpoch, readRepeated } from "../../src/store/producers.ts";
import { readPartitions } from "../../src/store/reader-partitions.ts";
import { readChunk, readLogEnds } from "../../src/store/records.ts";
import {
  findRetainable,
  hasToNote,
  noteLogEnds,
  readWaiting,
  retainStep,
} from "../../src/store/retention.ts";
import { Topics } from "../../src/store/topics.ts";
import type { TransactionWrite } from "../../src/store/transactions.ts";
import { trimStep } from "../../src/store/trims.ts";
import { UpkeepLease } from "../../src/store/upkeep-lease.ts";
import type { WriteQueue } from "../../src/store/write-queue.ts";
import { openQueue, START_MS, WatchedDb } from "./database.ts";
import { FakeTime } from "./fake-time.ts";
import { readGroup } from "./group-store.ts";
import { type AppendTo, transactionOf } from "./transaction-writes.ts";
import { openUpkeep } from "./upkeep.ts";

const GROUP = "billing";
const READ = { recordsMax: 500, bytesMax: 256 * 1024, loneRecordBytesMax: 1024 * 1024 };
const POLICIES: ResetPolicies = { missing: { timestamp: 1_010 }, outOfRange: "earliest" };

export interface ScenarioOutcome {
  /** In order; a Problem by its code and facts. */
  readonly told: readonly (readonly [step: string, outcome: unknown])[];
  /** The text of every statement that was run. */
  readonly sql: ReadonlySet<string>;
}

/** On a database that is migrated and empty; its clock becomes a table. */
export async function runStoreScenario(db: Db): Promise<ScenarioOutcome> {
  await db.script("DROP VIEW clock; CREATE TABLE clock (now_ms INTEGER NOT NULL) STRICT;");
  await db.script(`INSERT INTO clock VALUES (${START_MS});`);
  const scenario = new Scenario(db);
  await changeTopics(scenario);
  await produceAndRead(scenario);
  await trim(scenario);
  await rebalance(scenario);
  await acknowledge(scenario);
  await transact(scenario);
  await reset(scenario);
  await passTime(scenario);
  await openAgain(scenario);
  await changeFromOutside(scenario);
  await keepAndCompact(scenario);
  await expire(scenario);
  await deleteAndPurge(scenario);
  return { told: scenario.told, sql: scenario.sql };
}

class Scenario {
  readonly db: WatchedDb;
  readonly queue: WriteQueue;
  readonly topics: Topics;
  readonly told: [step: string, outcome: unknown][] = [];

  constructor(db: Db) {
    this.db = new WatchedDb(db, { isShared: true });
    this.queue = openQueue(this.db);
    this.topics = new Topics({
      db: this.db,
      queue: this.queue,
      scheduler: new FakeTime(),
      createsOnFirstUse: true,
    });
  }

  get sql(): ReadonlySet<string> {
    return new Set([...this.db.reads, ...this.db.writes.flat()].map(({ sql }) => sql));
  }

  async tell(step: string, work: Promise<unknown>): Promise<void> {
    const outcome = await work.catch((error: unknown) => {
      if (error instanceof Problem) return { refused: error.code, ...error.facts };
      throw new Error(`${step}: ${error}`, { cause: error });
    });
    this.told.push([step, outcome]);
  }

  async pass(ms: number): Promise<void> {
    await this.db.write([{ sql: "UPDATE clock SET now_ms = now_ms + :ms", args: { ms } }]);
  }

  async append(topic: string, records: readonly NewRecord[], partition = 0): Promise<unknown> {
    return this.queue.submit(appendRecords(await this.topics.require(topic), [{ partition, records }]));
  }

  /** Records are [topic, partition, value]. */
  async transact(
    conditions: TransactionWrite["conditions"],
    ...records: readonly (readonly [topic: string, partition: number, value: string])[]
  ): Promise<unknown> {
    const appends: AppendTo[] = [];
    for (const [topic, partition, value] of records)
      appends.push({
        topic: await this.topics.require(topic),
        records: recordsOf(JSON.stringify({ partition, value })),
      });
    return this.queue.submit(transactionOf(this.queue, conditions, ...appends));
  }

  picture(): Promise<GroupPicture> {
    return readGroup(this.db, GROUP, ["orders", "visits"]);
  }

  /** One turn of the group, as stream/group-turns.ts takes it. */
  async change(...changes: readonly GroupChange[]): Promise<unknown> {
    const picture = await this.picture();
    const plan = planGroup(picture, changes, { mayExpire: true });
    const times = await findOffsetsAt(this.db, timesNeededBy(plan));
    const resets = policyResets(plan, times).map(({ memberId, ...policy }) => ({
      ...policy,
      actor: `member ${memberId}`,
      isExact: false,
    }));
    const written = { op: this.queue.nextOp(), picture, plan, resets, topics: [] };
    return [await this.queue.submit(writeGroups([written], "p1")), await this.picture()];
  }

  async member(memberId: string): Promise<MembershipRef> {
    const found = (await this.picture()).members.find((member) => member.memberId === memberId);
    return { group: GROUP, memberId, membership: found?.membership ?? 0 };
  }

  async owned(memberId: string): Promise<readonly (OwnedPartition & { topic: string; partition: number })[]> {
    return (await this.picture()).partitions.flatMap(({ topic, partition, partitionId, owner }) =>
      owner?.memberId === memberId ? [{ topic, partition, partitionId, generation: owner.generation }] : [],
    );
  }

  async rows(sql: Statement["sql"]): Promise<unknown> {
    return this.db.read({ sql });
  }
}

const joinOf = (newMemberId: string, about: Partial<JoinRequest> = {}): GroupChange => ({
  kind: "join",
  request: {
    group: GROUP,
    topics: ["orders"],
    memberId: undefined,
    instanceId: undefined,
    newMemberId,
    policies: POLICIES,
    sessionTimeoutMs: 45_000,
    ...about,
  },
});

const recordsOf = (...texts: readonly string[]) =>
  parseJsonProduce(`{"records":[${texts.join(",")}]}`).records;

/** Values that are their offsets, a timestamp each. */
const numbers = (count: number) =>
  recordsOf(...Array.from({ length: count }, (_, n) => `{"value":${n},"timestamp":${1_000 + n}}`));

// ─────────────────────────────────────────────────────────────────────────────────────────────────────────

async function changeTopics(s: Scenario): Promise<void> {
  const { topics, db } = s;
  await s.tell("what there is at the start", readSeen(db));
  await s.tell("a topic", topics.put("orders", 2));
  await s.tell("more partitions", topics.put("orders", 4));
  await s.tell("fewer partitions", topics.put("orders", 3));
  await s.tell("a topic on first use", topics.require("visits"));
  await s.tell("topics", topics.list());
  await s.tell("a topic that is there", topics.describe("orders"));
  await s.tell("a topic that is not", topics.describe("nothing"));
  await s.tell("topics looked up again", topics.refresh());
  await s.tell("a topic by name", topics.findAgain({ topic: "orders" }));
}

async function produceAndRead(s: Scenario): Promise<void> {
  const { db } = s;
  const chunk = (partitionId: number, from: number, about: Partial<typeof READ> = {}) =>
    readChunk(db, { partitionId, from, ...READ, ...about });
  await s.tell("many records", s.append("orders", numbers(2_500)));
  await s.tell(
    "keys, headers, timestamps",
    s.append(
      "orders",
      recordsOf(
        String.raw`{"key":"k\"\\ü\u0001","headers":{ "a" : "b" },"value":{"n": [2.0, 1E400, -0, 12345678901234567890]}}`,
        '{"key":"","timestamp":9007199254740991,"value":"\\u2028\\ud83d\\ude00"}',
        '{"value":null}',
      ),
      1,
    ),
  );
  await s.tell(
    "bytes",
    s.append("orders", recordsOf('{"bytes":"AP8Q"}', '{"key":"k","value":1}', '{"bytes":""}'), 2),
  );
  await s.tell("large records", s.append("visits", recordsOf(...[1, 2, 3].map(largeRecord))));
  await s.tell("log ends", readLogEnds(db, [1, 2, 3, 4, 5, 99]));
  await s.tell("a chunk", chunk(1, 2_400));
  await s.tell("a chunk of a few", chunk(1, 0, { recordsMax: 3 }));
  await s.tell("a chunk of all kinds", chunk(2, 0));
  await s.tell("a chunk with bytes", chunk(3, 0));
  await s.tell("a chunk that is measured", chunk(5, 0, { bytesMax: 250_000 }));
  await s.tell("a chunk that does not fit", chunk(5, 0, { bytesMax: 10, loneRecordBytesMax: 10 }));
  await s.tell("a chunk at the end", chunk(1, 2_500));
  await s.tell("a chunk of nothing", chunk(99, 0));
  const places = [
    { partitionId: 1, place: { timestamp: 2_345 } },
    { partitionId: 1, place: { ago: 60_000 } },
    { partitionId: 2, place: { ago: 0 } },
    { partitionId: 99, place: { timestamp: 0 } },
  ];
  for (const place of places) await s.tell("offsets at times", findOffsetsAt(db, [place]));
  await s.tell("partitions of a reader", readPartitions(db, ["visits", "nothing", "orders"]));
}

const largeRecord = (n: number) => `{"value":"${String(n).repeat(100_000)}"}`;

async function trim(s: Scenario): Promise<void> {
  for (const before of [1_100, 1_100, 9_999])
    await s.tell(`a trim to ${before}`, s.queue.submit(trimStep({ partitionId: 1, before })));
  await s.tell("a trim of nothing", s.queue.submit(trimStep({ partitionId: 99, before: 1 })));
  await s.tell("the time index", s.rows("SELECT * FROM time_index ORDER BY partition_id, offset"));
  await s.tell("what is left", s.topics.describe("orders"));
}

async function rebalance(s: Scenario): Promise<void> {
  await s.tell("a join", s.change(joinOf("m1")));
  await s.tell("the same join again", s.change(joinOf("m1")));
  await s.tell(
    "a second member",
    s.change(joinOf("m2", { instanceId: "tab-7", topics: ["orders", "visits"] })),
  );
  await s.tell("what others find changed", readChanges(s.db, { version: 0, catalogVersion: 0 }));
  const revoked = (await s.picture()).partitions.filter(({ owner }) => owner?.revokeInMs != null);
  const partitions = revoked.map(({ partitionId, owner }) => ({
    partitionId,
    generation: owner?.generation ?? 0,
  }));
  await s.tell("a release", s.change({ kind: "release", member: await s.member("m1"), partitions }));
  const [stalled] = await s.owned("m1");
  await s.tell(
    "a stall",
    s.change({ kind: "stall", member: await s.member("m1"), partitions: stalled ? [stalled] : [] }),
  );
  await s.tell("a takeover", s.change(joinOf("m3", { instanceId: "tab-7" })));
  await s.tell("more partitions than the group can be read with", s.topics.put("orders", 11_300));
  await s.tell("a leave", s.change({ kind: "leave", member: await s.member("m1") }));
  await s.tell("a plan that comes too late", writeLate(s));
}

/** Planned before somebody else has changed the group. */
async function writeLate(s: Scenario): Promise<unknown> {
  const picture = await s.picture();
  const plan = planGroup(picture, [joinOf("late")], { mayExpire: true });
  await s.change(joinOf("m4"));
  const op = s.queue.nextOp();
  return s.queue.submit(writeGroups([{ op, picture, plan, resets: [], topics: [] }], null));
}

async function acknowledge(s: Scenario): Promise<void> {
  const owned = await s.owned("m3");
  const ackOf = (partition: number, about: Partial<AckRequest> = {}): AckRequest => ({
    topic: "orders",
    partition,
    generation: owned.find((entry) => entry.partition === partition)?.generation ?? -1,
    offset: 2,
    metadata: null,
    refusal: undefined,
    ...about,
  });
  const commit = (...acks: readonly AckRequest[]) => s.queue.submit(commitOffsets(GROUP, acks));
  const all = [0, 1, 2, 3];
  await s.tell("acks", commit(...all.map((partition) => ackOf(partition, { metadata: `of ${partition}` }))));
  const ids = (await s.picture()).partitions.map(({ partitionId }) => partitionId);
  const metadata = readMetadata(s.db, GROUP, ids).then((found) => [...found].toSorted());
  await s.tell("what was said with them", metadata);
  await s.tell("an ack backwards, and twice", commit(ackOf(1, { offset: 1 }), ackOf(1, { offset: 3 })));
  await s.tell(
    "acks that are refused",
    commit(
      ...all.map((partition) => ackOf(partition, { generation: 1, offset: 3 })),
      ackOf(1, { refusal: "offset_out_of_range" }),
      ackOf(9),
      ackOf(0, { topic: "nothing" }),
    ),
  );
  for (const { partitionId, generation } of owned) {
    const policy = { group: GROUP, partitionId, generation, from: 2, to: 1, cause: "outOfRange: earliest" };
    await s.tell("a policy", s.queue.submit(commitPolicy(policy)));
  }
  for (const partitionId of [1, 2, 99])
    await s.tell("a place", readPlaceFacts(s.db, { partitionId, group: GROUP, place: { timestamp: 5 } }));
  await s.tell("groups", listGroups(s.db));
  await s.tell("a group", describeGroup(s.db, GROUP));
  await s.tell("no group", describeGroup(s.db, "nobody"));
}

async function transact(s: Scenario): Promise<void> {
  const { db, queue } = s;
  const producer = (sequence: number, epoch = 0) => ({ id: "p", epoch, sequence });
  await s.tell(
    "a first sequence",
    s.transact({ producer: producer(0) }, ["orders", 1, "1"], ["visits", 0, "2"]),
  );
  await s.tell("it again", s.transact({ producer: producer(0) }, ["orders", 1, "1"], ["visits", 0, "2"]));
  await s.tell("it again, looked up", readRepeated(db, producer(0)));
  await s.tell("one that is not the next", s.transact({ producer: producer(2) }, ["orders", 1, "1"]));
  for (let sequence = 1; sequence <= 17; sequence += 1)
    await s.transact({ producer: producer(sequence) }, ["visits", 0, String(sequence)]);
  await s.tell("the oldest that is kept", readRepeated(db, producer(2)));
  await s.tell("one that is not kept", s.transact({ producer: producer(1) }, ["visits", 0, "1"]));
  await s.tell("a new epoch", queue.submit(raiseEpoch("p")));
  await s.tell("a first epoch", queue.submit(raiseEpoch("q")));
  await s.tell("an older epoch", s.transact({ producer: producer(18) }, ["visits", 0, "1"]));
  await s.tell("producers", s.rows("SELECT * FROM producers ORDER BY producer_id"));
  await s.tell("their answers", s.rows("SELECT * FROM producer_answers ORDER BY producer_id, slot"));

  const expect = (topic: string, partition: number, logEndOffset: number) => ({
    expect: [{ topic, partition, logEndOffset }],
  });
  for (const [step, expected] of [
    ["an expectation that holds", expect("orders", 3, 0)],
    ["an expectation that does not", expect("orders", 3, 0)],
    ["an expectation of an unknown partition", expect("orders", 9, 0)],
    ["an expectation of an unknown topic", expect("nothing", 0, 0)],
  ] as const)
    await s.tell(step, s.transact(expected, ["orders", 3, "1"]));

  const [owned] = await s.owned("m3");
  const commits = (about: Partial<AckEntry>) => ({
    commits: {
      group: GROUP,
      offsets: [
        {
          topic: "orders",
          partition: owned?.partition ?? -1,
          generation: owned?.generation ?? -1,
          ...about,
        } as AckEntry,
      ],
    },
  });
  for (const [step, condition] of [
    ["a commit that advances", commits({ offset: 4, metadata: "m" })],
    ["a commit that does not", commits({ offset: 4 })],
    ["a commit above the log end", commits({ offset: 99_999 })],
    ["a commit of another generation", commits({ offset: 5, generation: 1 })],
    ["a commit in an unknown topic", commits({ offset: 5, topic: "nothing" })],
    ["a commit in an unknown partition", commits({ offset: 5, partition: 9 })],
  ] as const)
    await s.tell(step, s.transact(condition, ["visits", 0, "1"]));
  await s.tell("where the log ends", readLogEnds(db, [1, 2, 3, 4, 5]));
  await s.tell("a schema", s.topics.put("visits", undefined, { schema: '{"type":"number"}' }));
  await s.tell("the same schema", s.topics.put("visits", 1, { schema: '{"type":"number"}' }));
  await s.tell("no schema", s.topics.put("visits", undefined, { schema: null }));
}

async function reset(s: Scenario): Promise<void> {
  const targets: readonly ResetRequest["target"][] = [
    { kind: "place", topics: [{ topic: "orders", partitions: [1] }], to: "latest" },
    { kind: "place", topics: [{ topic: "orders" }], to: { timestamp: 2_200 } },
    { kind: "place", topics: [{ topic: "visits" }], to: { offset: 1 } },
  ];
  for (const target of targets) await s.tell("a reset", resetTo(s, target));
}

async function resetTo(s: Scenario, target: ResetRequest["target"]): Promise<unknown> {
  const request = { group: GROUP, topics: ["orders", "visits"], target, isDryRun: false, reason: "a test" };
  const picture = await s.picture();
  const times = await findOffsetsAt(s.db, timesNeededByReset(picture, request));
  const change = resetChange(picture, request, planReset(picture, request, times));
  const written = await s.queue.submit(
    writeGroups([{ ...change, op: s.queue.nextOp(), picture, topics: [] }], "p1"),
  );
  return [written, await s.picture()];
}

async function passTime(s: Scenario): Promise<void> {
  const { db, queue } = s;
  await s.tell("what is due", readDue(db));
  await s.tell("a renewal", queue.submit(renewLease(await s.member("m3"))));
  await s.tell("a renewal of nobody", queue.submit(renewLease({ ...(await s.member("m3")), membership: 1 })));
  await s.tell("a second process", queue.submit(keepProcess("p2")));
  await s.pass(11_000);
  await s.tell("what is due when a process is dead", readDue(db));
  await s.tell("everybody after an outage", queue.submit(renewAfterOutage([await s.member("m3")], "p1")));
  await s.tell("what is due then", readDue(db));
  await s.tell("a clock that was set back", queue.submit(shortenToClock()));
  await s.tell("leases and deadlines then", s.rows("SELECT * FROM member_leases"));
  await s.pass(300_000);
  await s.tell("what is due when all is over", readDue(db));
  await s.tell("the ends of leases", s.change());
  await s.tell("processes that are dead", queue.submit(keepProcess("p3")));
  await s.tell("processes", s.rows("SELECT * FROM processes ORDER BY process_id"));
}

async function openAgain(s: Scenario): Promise<void> {
  await s.tell("a join", s.change(joinOf("m5")));
  await s.pass(300_000);
  await s.tell("a shared database that is opened", s.queue.submit(greetProcesses()));
  await s.tell("leases", s.rows("SELECT * FROM member_leases"));
  await s.tell("the end of a process", s.queue.submit(endProcess("p1")));
  await s.tell("a file that is opened", s.queue.submit(endMembershipsWithoutInstance()));
  await s.tell("who is left", s.picture());
}

async function changeFromOutside(s: Scenario): Promise<void> {
  const { queue } = s;
  const commit = (...offsets: readonly (readonly [topic: string, partition: number, offset: number])[]) =>
    queue.submit(
      commitFromOutside({
        op: queue.nextOp(),
        group: GROUP,
        offsets: offsets.map(([topic, partition, offset]) => ({ topic, partition, offset, metadata: "job" })),
      }),
    );
  const change = { group: GROUP };
  await s.tell("a commit from outside", commit(["orders", 0, 2_500], ["orders", 0, 2_400], ["visits", 0, 3]));
  await s.tell("entries that are refused", commit(["orders", 9, 0], ["nothing", 0, 0], ["orders", 0, 9_999]));
  await s.tell(
    "a topic to forget",
    queue.submit(forgetTopic({ ...change, op: queue.nextOp(), topic: "visits" })),
  );
  await s.tell(
    "it is forgotten",
    queue.submit(forgetTopic({ ...change, op: queue.nextOp(), topic: "visits" })),
  );
  await s.tell("a join", s.change(joinOf("m6")));
  await s.tell("a commit beside a member", commit(["orders", 1, 3]));
  await s.tell(
    "a topic of a member",
    queue.submit(forgetTopic({ ...change, op: queue.nextOp(), topic: "orders" })),
  );
  await s.tell("a group with a member", queue.submit(deleteGroup({ ...change, op: queue.nextOp() })));
  for (const view of ["consumer_lag", "group_members", "commit_history", "partition_stats", "topic_records"])
    await s.tell(view, s.rows(`SELECT * FROM ${view}`));
  await s.tell("a leave", s.change({ kind: "leave", member: await s.member("m6") }));
}

/** Every step by itself, then all that there is to do. */
async function keepAndCompact(s: Scenario): Promise<void> {
  const { db, queue, topics } = s;
  const upkeep = openUpkeep({ db, queue, processId: "p1" });
  const step = async (name: string, make: typeof retainStep, recordsMax = 3) => {
    const { hasMore } = await queue.submit(make({ partitionId: await partitionIdOf(s, "kept"), recordsMax }));
    await s.tell(`${name}, which leaves more`, Promise.resolve(hasMore));
    await s.tell(`after ${name}`, keptOf(s));
  };
  await s.tell(
    "a topic with limits",
    topics.put("kept", 1, { retention: { records: 20, bytes: 300, ms: 10_000 } }),
  );
  await s.append(
    "kept",
    recordsOf(...Array.from({ length: 30 }, (_, n) => `{"key":"k${n % 7}","value":"${n}"}`)),
  );
  await s.append(
    "kept",
    recordsOf('{"key":"b","bytes":"AP8Q"}', '{"key":"h","value":1,"headers":{"a":"ö"}}'),
  );
  await s.tell("log ends that are not noted", hasToNote(db));
  await s.tell("what waits before", readWaiting(db));
  await queue.submit(noteLogEnds());
  await s.tell("what waits", readWaiting(db));
  await s.tell(
    "what is too much",
    findRetainable(db).then(({ length }) => length),
  );
  await step("a step of retention", retainStep);
  await step("a larger one", retainStep, 500);
  await s.tell(
    "no limits",
    topics.put("kept", undefined, { retention: { records: null, bytes: null, ms: null } }),
  );

  await s.append("kept", recordsOf('{"value":"no key"}'));
  await s.tell("records without a key", topics.put("kept", undefined, { cleanup: "compact" }));
  await s.queue.submit(trimStep({ partitionId: await partitionIdOf(s, "kept"), before: 33 }));
  const compaction = { minLagMs: 5_000, tombstoneMs: 60_000 };
  await s.tell("a compacted topic", topics.put("kept", undefined, { cleanup: "compact", compaction }));
  const keys = ["a", "b", "a", "null", "ü🎉", "a", "b"];
  await s.append(
    "kept",
    recordsOf(...keys.map((key, n) => `{"key":"${key}","value":${key === "null" ? null : n}}`)),
  );
  await queue.submit(noteLogEnds());
  await s.tell(
    "what is too young",
    findCompactable(db).then(({ length }) => length),
  );
  await s.pass(5_000);
  await s.tell(
    "what is old enough",
    findCompactable(db).then(({ length }) => length),
  );
  await step("a step of compaction", compactStep);
  await step("another", compactStep, 2);
  await s.tell("upkeep of the rest", upkeep.run());
  await s.tell("what is left of it", keptOf(s));
  await s.append("kept", recordsOf(largeRecordOf("a"), largeRecordOf("b"), largeRecordOf("a")));
  await s.pass(5_000);
  await s.tell("upkeep of large ones", upkeep.run());
  await s.pass(60_000);
  await step("a step that takes a tombstone", compactStep);
  await s.tell("with retention", topics.put("kept", 1, { retention: { ms: 100_000 } }));
  await s.tell("a trim", queue.submit(trimStep({ partitionId: await partitionIdOf(s, "kept"), before: 39 })));
  await s.append("kept", recordsOf('{"key":"c","value":1}'));
  await s.tell("upkeep of what came", upkeep.run());
  await s.tell("no more compaction", topics.put("kept", 1, { cleanup: "delete" }));
  await s.tell(
    "what is outdated",
    findOutdated(db).then(({ length }) => length),
  );
  await step("a step that forgets", forgetStep, 1);
  await s.tell("upkeep of what is outdated", upkeep.run());
  await s.tell("what is left in the end", keptOf(s));
}

const largeRecordOf = (key: string) => `{"key":"${key}","value":"${key.repeat(300_000)}"}`;

async function partitionIdOf(s: Scenario, topic: string): Promise<number> {
  return (await s.topics.require(topic)).partitionIds[0] ?? 0;
}

async function keptOf(s: Scenario): Promise<unknown> {
  const tables = ["append_times", "compactions", "compacted_keys", "trim_steps", "superseded"];
  const id = await partitionIdOf(s, "kept");
  return [
    await s.rows(`SELECT offset, key, substr(value, 1, 20) AS value FROM records WHERE partition_id = ${id}`),
    await s.rows(`SELECT * FROM partitions WHERE partition_id = ${id}`),
    ...(await Promise.all(tables.map((table) => s.rows(`SELECT * FROM ${table}`)))),
  ];
}

async function expire(s: Scenario): Promise<void> {
  const { db, queue } = s;
  const upkeep = () => openUpkeep({ db, queue, processId: "p1", offsetRetentionMs: 1_000 });
  const lease = (processId: string) => new UpkeepLease({ processId, queue, scheduler: new FakeTime() });
  const [a, b] = [lease("a"), lease("b")];
  await s.tell("a lease", a.hold());
  await s.tell("another's", b.hold());
  await s.tell("the row", s.rows("SELECT * FROM upkeep_lease"));
  await s.tell("upkeep of a server that has not got it", upkeep().run());
  await s.tell("its end", a.end());
  await s.tell("another's then", b.hold());
  await b.end();
  await s.tell("a group that begins to be idle", upkeep().run());
  await s.tell("since when", s.rows("SELECT * FROM idle_groups"));
  await s.pass(1_000);
  await s.tell("groups to expire", Array.fromAsync(walkGroups(db, 1_000)));
  await s.tell("a group that expires", upkeep().run());
  await s.tell("groups that are left", listGroups(db));
  await s.pass(7 * 24 * 3_600_000);
  await s.tell("producers to expire", Array.fromAsync(walkProducers(db)));
  await s.tell("producers that expire", upkeep().run());
  await s.tell("those that are left", s.rows("SELECT * FROM producers"));
  await s.tell("their answers that are left", s.rows("SELECT * FROM producer_answers"));
}

async function deleteAndPurge(s: Scenario): Promise<void> {
  const { db, queue, topics } = s;
  await s.tell("a topic that is deleted", topics.delete("orders"));
  await s.tell("a topic that is gone", topics.delete("orders"));
  await s.tell("one of its name that is too large for a group", topics.put("orders", 11_300));
  await s.tell("what is to be purged", s.rows("SELECT * FROM purges ORDER BY partition_id"));
  await s.tell("upkeep", openUpkeep({ db, queue }).run());
  const offsets = [{ topic: "visits", partition: 0, offset: 3 }];
  await s.tell("a group", queue.submit(commitFromOutside({ op: queue.nextOp(), group: GROUP, offsets })));
  await s.tell("a group that is deleted", queue.submit(deleteGroup({ op: queue.nextOp(), group: GROUP })));
  await s.tell("a group that is gone", queue.submit(deleteGroup({ op: queue.nextOp(), group: GROUP })));
  for (const table of TABLES) await s.tell(table, s.rows(`SELECT * FROM ${table}`));
}

/** Of some a part is left. */
const TABLES = [
  ...["topics", "partitions", "records", "time_index", "purges", "groups", "group_topics", "members"],
  ...["assignments", "committed_offsets", "offset_history", "processes", "sequence", "catalog", "guard"],
  ...["producers", "producer_answers", "append_times", "trim_steps", "compactions", "compacted_keys"],
  ...["superseded", "idle_groups", "upkeep_lease"],
];
