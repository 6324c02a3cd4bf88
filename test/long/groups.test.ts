// Groups when servers die, stand still and come back, and when their database does: leases and deadlines in real time.

import { describe, expect, test } from "bun:test";
import type { AckEntry } from "../../src/protocol/frames.ts";
import { type JoinOptions, keyOf, type Member, type Owned, WatchedGroup } from "../groups/member.ts";
import { Place, type PlaceKind } from "../support/cluster.ts";
import { describeLong } from "../support/long.ts";
import { RawSocket } from "../support/raw-socket.ts";
import { HAS_SQLD, SQLD_SKIPPED } from "../support/sqld.ts";

const PROCESS_LEASE_MS = 10_000;
const REVOKE_DEADLINE_MS = 5_000;
/** What is due is found so much later at the most, on a machine that is busy. */
const SLACK_MS = 1_000;
const TEST_TIMEOUT_MS = 60_000;

const KINDS: readonly PlaceKind[] = HAS_SQLD ? ["file", "sqld"] : ["file"];

if (!HAS_SQLD) console.warn(`groups on several servers: ${SQLD_SKIPPED}`);

describeLong("groups", "waits for leases to run out and stops servers and databases for seconds", () => {
  describeShared("a server that is killed", () => {
    longTest("leaves its partitions to others within its lease", async () => {
      await using place = await Place.start("sqld");
      await using group = await newGroup(place, { partitionCount: 4 });
      const [dying, other] = await joinBoth(place, group);
      await produce(place, group, 3);
      await untilAcked(group, 3);
      await produce(place, group, 2, 1);
      const killedAtMs = performance.now();
      await place.server(0).kill("SIGKILL");
      await group.close(dying);
      await group.untilBalanced(4, PROCESS_LEASE_MS + SLACK_MS);
      report("taken over from a killed server", killedAtMs);
      await untilAcked(group, 5);
      expect(await place.committedOffsets(group.name, group.topic)).toEqual([5, 5, 5, 5]);
      expect(await membersOf(place, group)).toEqual([other.memberId]);
      expect(group.ledger.judge()).toEqual([]);
    });

    longTest("before it has read what it was assigned loses nothing", async () => {
      await using place = await Place.start("sqld");
      await using group = await newGroup(place, { partitionCount: 4, records: 5 });
      const survivor = await group.join(place.server(1));
      await untilAcked(group, 5);
      const joined = await group.join(place.server(0));
      const owners = () =>
        place.sql(`SELECT partition FROM consumer_lag WHERE member_id = '${joined.memberId}'`);
      await untilFound(owners, (partitions) => partitions.length > 0, SLACK_MS);
      const killedAtMs = performance.now();
      await place.server(0).kill("SIGKILL");
      console.log(`it had been told of ${joined.owned.size} partitions`);
      await group.close(joined);
      await produce(place, group, 5, 1);
      await untilFound(
        () => membersOf(place, group),
        (members) => members.length === 1,
        PROCESS_LEASE_MS + SLACK_MS,
      );
      report("a member that was just assigned partitions ended", killedAtMs);
      await group.untilBalanced(4);
      await produce(place, group, 5, 1);
      await untilCommitted(place, group);
      expect(survivor.isClosed).toBe(false);
      expect(group.ledger.judge()).toEqual([]);
    });

    longTest("while its member lets partitions go: another server carries the deadline out", async () => {
      await using place = await Place.start("sqld", { servers: 3 });
      await using group = await newGroup(place, { partitionCount: 4, records: 5 });
      const dying = await group.join(place.server(0), { acks: false });
      await dying.untilFrame(() => [...dying.owned.values()].every(({ next }) => next === 5));
      const other = await group.join(place.server(1));
      const { deadlineMs, partitions } = await dying.until("revoked");
      expect(deadlineMs).toBeGreaterThan(REVOKE_DEADLINE_MS - SLACK_MS);
      const revokedAtMs = performance.now();
      await place.server(0).kill("SIGKILL");
      await group.until(() => other.owned.size === 2, "two owned", REVOKE_DEADLINE_MS + SLACK_MS);
      report("the deadline of a killed server carried out", revokedAtMs);
      expect(performance.now() - revokedAtMs).toBeGreaterThan(REVOKE_DEADLINE_MS - SLACK_MS);
      expect([...other.owned.values()].map(({ partition }) => partition).sort()).toEqual(
        partitions.map(({ partition }) => partition).sort(),
      );
      await group.close(dying);
      await group.untilBalanced(4, PROCESS_LEASE_MS + SLACK_MS);
      await untilAcked(group, 5);
      expect(group.ledger.judge()).toEqual([]);
    });
  });

  describeShared("a server that stands still", () => {
    longTest(
      "for longer than its lease finds its member gone, and its client's acks and transaction fenced",
      async () => {
        await using place = await Place.start("sqld");
        await using group = await newGroup(place, { partitionCount: 4 });
        const [sleeper, other] = await joinBoth(place, group, { acks: false });
        await produce(place, group, 5);
        await untilAllSent(sleeper, 5);
        const lost = [...sleeper.owned.values()];
        const results = await place.newTopic({});
        other.acks = true;
        process.kill(place.server(0).pid, "SIGSTOP");
        const stoppedAtMs = performance.now();
        await group.until(() => other.owned.size === 4, "all taken over", PROCESS_LEASE_MS + 3 * SLACK_MS);
        report("taken over from a server that stands still", stoppedAtMs);
        // They wait in its socket, and are the first that it sees.
        const late = sleeper.ack(...lost.map((owned) => ackTo(owned, 5)));
        sleeper.client.send({
          type: "transact",
          id: "late",
          appends: [{ topic: results, records: [{ value: "of who slept" }] }],
          commits: { group: group.name, offsets: lost.map((owned) => ackTo(owned, 5)) },
        });
        await untilSleptFor(stoppedAtMs, 13_000);
        await untilAllSent(other, 5);
        const before = await place.committedOffsets(group.name, group.topic);
        process.kill(place.server(0).pid, "SIGCONT");

        const { offsets } = await sleeper.untilAcked(late);
        expect(offsets.map(({ code }) => code)).toEqual(lost.map(() => "fenced_generation"));
        expect(await sleeper.until("error")).toMatchObject({ id: "late", code: "fenced_generation" });
        expect(await place.sql(`SELECT 1 FROM topic_records WHERE topic = '${results}'`)).toEqual([]);
        expect(await sleeper.until("unsubscribed", 5 * SLACK_MS)).toMatchObject({ code: "expired" });
        expect(sleeper.owned.size).toBe(0);
        const after = await place.committedOffsets(group.name, group.topic);
        for (const [partition, offset] of after.entries())
          expect(offset).toBeGreaterThanOrEqual(before[partition] ?? 0);
        await produce(place, group, 1, 0);
        expect(await membersOf(place, group)).toEqual([other.memberId]);
        group.members.delete(sleeper);
        await other.untilFrame(() => [...other.owned.values()].every(({ next }) => next === 6));
        expect(group.ledger.judge()).toEqual([]);
        const again = await group.join(place.server(0));
        await group.untilBalanced(4, REVOKE_DEADLINE_MS + SLACK_MS);
        await group.close(sleeper, again);
      },
    );
  });

  for (const kind of KINDS) {
    longTest(
      `a member whose client is silent is taken over within its session timeout on one ${kind}`,
      async () => {
        await using place = await Place.start(kind);
        await using group = await newGroup(place, { partitionCount: 2 });
        const sessionTimeoutMs = 6_000;
        // It reads nothing, and so answers no ping either.
        const silent = await RawSocket.openSilent(place.server(0).streamUrl);
        const subscribe = { type: "subscribe", topics: group.topics, group: group.name, sessionTimeoutMs };
        await silent.send([JSON.stringify(subscribe)]);
        const heardAtMs = performance.now();
        await untilFound(
          () => membersOf(place, group),
          (members) => members.length === 1,
          SLACK_MS,
        );
        const other = await group.join(place.server(1), { sessionTimeoutMs });
        await group.until(() => other.owned.size === 1, "one of two");
        const [line = ""] = await place.sql(
          `SELECT partition, generation FROM consumer_lag
         WHERE group_id = '${group.name}' AND member_id <> '${other.memberId}'`,
        );
        const [partition, generation] = line.split("|").map(Number);
        for (const each of [0, 1]) await place.http(1).produceNumbers(group.topic, 3, each);
        await group.until(() => other.owned.size === 2, "taken over", 7_000 + SLACK_MS);
        report(`a silent member on one ${kind} taken over`, heardAtMs);
        expect(performance.now() - heardAtMs).toBeGreaterThan(sessionTimeoutMs - SLACK_MS);
        await untilAcked(group, 3);

        const late = { topic: group.topic, partition, generation, offset: 1 };
        const frames = [
          { type: "pong", id: "alive" },
          { type: "ack", id: "late", offsets: [late] },
          "the end",
        ];
        await silent.send(frames.map((frame) => JSON.stringify(frame)));
        const told = (await silent.readToEnd()).texts.map((text) => JSON.parse(text));
        expect(told).toContainEqual(
          expect.objectContaining({ type: "revoked", reason: "expired", deadlineMs: 0 }),
        );
        expect(told).toContainEqual({ type: "unsubscribed", subscription: "default", code: "expired" });
        expect(told).toContainEqual({ type: "ok", id: "alive" });
        expect(told).toContainEqual(expect.objectContaining({ id: "late", code: "unknown_subscription" }));
        expect(await membersOf(place, group)).toEqual([other.memberId]);
        expect(await place.committedOffsets(group.name, group.topic)).toEqual([3, 3]);
        expect(other.owned.size).toBe(2);
        expect(group.ledger.judge()).toEqual([]);
      },
    );

    longTest(
      `a static member keeps its partitions while its server starts again on one ${kind}`,
      async () => {
        await using place = await Place.start(kind);
        await using group = await newGroup(place, { partitionCount: 4 });
        const first = await group.join(place.server(0), { instanceId: "tab-7" });
        const other = kind === "file" ? undefined : await group.join(place.server(1));
        await group.untilBalanced(4);
        await produce(place, group, 3);
        await untilAcked(group, 3);
        const before = [...first.owned.values()];
        const othersFrames = other?.frames.length;
        await place.server(0).kill("SIGTERM");
        await place.startServer(0);
        await produce(place, group, 2);
        const second = await group.join(place.server(0), { instanceId: "tab-7" });
        await group.close(first);
        expect(namesOf([...second.owned.values()])).toEqual(namesOf(before));
        for (const owned of before) {
          const now = second.owned.get(keyOf(owned));
          expect(now?.generation).toBeGreaterThan(owned.generation);
          expect(now?.position).toBe(3);
        }
        await untilAcked(group, 5);
        const othersNews = other?.frames
          .slice(othersFrames)
          .filter(({ type }) => type === "assigned" || type === "revoked");
        expect(othersNews ?? []).toEqual([]);
        expect(group.ledger.judge()).toEqual([]);
      },
    );
  }

  describeShared("a server that is stopped", () => {
    longTest("by SIGTERM hands its partitions over at once", async () => {
      await using place = await Place.start("sqld");
      await using group = await newGroup(place, { partitionCount: 8 });
      const [leaving, other] = await joinBoth(place, group);
      await produce(place, group, 3);
      await untilAcked(group, 3);
      const stoppedAtMs = performance.now();
      const stopped = place.server(0).kill("SIGTERM");
      await group.until(() => other.owned.size === 8, "all handed over", SLACK_MS);
      report("handed over by SIGTERM", stoppedAtMs);
      expect(await stopped).toBe(0);
      expect(await leaving.client.closed()).toMatchObject({ code: 4000 });
      expect(leaving.frames.map(({ type }) => type)).toContain("draining");
      await group.close(leaving);
      await produce(place, group, 2, 1);
      await untilAcked(group, 5);
      expect(group.ledger.judge()).toEqual([]);
    });
  });

  describeShared("a database", () => {
    interface Outage {
      readonly name: string;
      readonly ms: number;
      readonly begin: (place: Place) => Promise<void> | undefined;
      readonly end: (place: Place) => Promise<void> | undefined;
    }
    const outages: readonly Outage[] = [
      {
        name: "that stands still for 20 s",
        ms: 20_000,
        begin: ({ sqld }) => sqld?.signal("SIGSTOP"),
        end: ({ sqld }) => sqld?.signal("SIGCONT"),
      },
      {
        name: "that is killed and starts again after 15 s",
        ms: 15_000,
        begin: ({ sqld }) => sqld?.signal("SIGKILL"),
        end: ({ sqld }) => sqld?.start(),
      },
      {
        name: "that is stopped and starts again after 3 s",
        ms: 3_000,
        begin: ({ sqld }) => sqld?.signal("SIGTERM"),
        end: ({ sqld }) => sqld?.start(),
      },
    ];

    for (const { name, ms, begin, end } of outages) {
      longTest(`${name} costs nobody anything`, async () => {
        await using place = await Place.start("sqld");
        await using group = await newGroup(place, { partitionCount: 4 });
        const members = [
          await group.join(place.server(0), { sessionTimeoutMs: 6_000 }),
          await group.join(place.server(1), { sessionTimeoutMs: 6_000 }),
          await group.join(place.server(0), { sessionTimeoutMs: 45_000 }),
          await group.join(place.server(1), { sessionTimeoutMs: 45_000 }),
        ];
        await group.untilBalanced(4);
        await produce(place, group, 3);
        await untilAcked(group, 3);
        const owners = group.ownerLines();
        const told = members.map(({ frames }) => frames.length);

        // What is on its way when the database goes may fail, and says that it may be asked for again.
        const answers = new Set<string>();
        let isOver = false;
        const produceOn = async (n: number) => {
          const body = { records: [{ value: n, partition: n }] };
          while (!isOver) {
            const answer = await place.http(n).call("POST", `/v1/topics/${group.topic}/records`, body);
            answers.add(answer.body.code ?? `${answer.status}`);
          }
        };
        const producing = Promise.allSettled([produceOn(0), produceOn(1)]);
        const refusals = Array.from({ length: 16 }, (_, n) => untilRefused(place, n));
        const begunAtMs = performance.now();
        await begin(place);
        expect(new Set(await Promise.all(refusals))).toEqual(new Set(["unavailable"]));
        await untilSleptFor(begunAtMs, ms);
        await end(place);
        const endedAtMs = performance.now();
        isOver = true;
        expect((await producing).map(({ status }) => status)).toEqual(["fulfilled", "fulfilled"]);
        console.log(`a database ${name}: ${[...answers]}`);
        expect(["200", "unavailable", "outcome_unknown"]).toEqual(expect.arrayContaining([...answers]));
        await untilProduced(place, group);
        report(`a database ${name} takes writes again`, endedAtMs);
        const ends = await logEndsOf(place, group);
        await group.until(
          () =>
            ends.every(
              (end, partition) => group.ledger.delivered(keyOf({ topic: group.topic, partition })) >= end,
            ),
          "all delivered",
          5_000,
        );
        report(`a database ${name} streams again`, endedAtMs);
        // Long enough for every lease that had run out to be held against somebody.
        await untilSleptFor(endedAtMs, 9_000);
        expect(group.ownerLines()).toEqual(owners);
        const news = members.flatMap(({ frames }, n) =>
          frames.slice(told[n]).filter(({ type }) => ["assigned", "revoked", "unsubscribed"].includes(type)),
        );
        expect(news).toEqual([]);
        expect(members.map(({ isClosed }) => isClosed)).toEqual([false, false, false, false]);
        await produce(place, group, 1);
        await untilCommitted(place, group);
        expect(await place.sql(`SELECT * FROM commit_history WHERE cause NOT LIKE 'missing%'`)).toEqual([]);
        expect(group.ledger.judge()).toEqual([]);
      });
    }
  });
});

// ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** On several servers, so on sqld only. */
function describeShared(name: string, body: () => void): void {
  describe.skipIf(!HAS_SQLD)(name, body);
}

function longTest(name: string, run: () => Promise<void>): void {
  test(name, run, TEST_TIMEOUT_MS);
}

async function newGroup(
  place: Place,
  options: { partitionCount: number; records?: number },
): Promise<WatchedGroup> {
  return new WatchedGroup(place.newGroup(), [await place.newTopic(options)]);
}

/** On server 0 and on server 1, when each has its half. */
async function joinBoth(place: Place, group: WatchedGroup, options: JoinOptions = {}) {
  const first = await group.join(place.server(0), options);
  const second = await group.join(place.server(1), options);
  await group.until(() => first.owned.size > 0 && first.owned.size === second.owned.size, "halves");
  return [first, second] as const;
}

/** So many records in each partition that somebody owns. */
async function produce(place: Place, group: WatchedGroup, count: number, server = 0): Promise<void> {
  const partitions = ownedBy(group).map(({ partition }) => partition);
  const records = partitions.flatMap((partition) =>
    Array.from({ length: count }, (_, value) => ({ value, partition })),
  );
  await place.http(server).produce(group.topic, records);
}

/** Again and again until the database takes it. */
async function untilProduced(place: Place, { topic }: WatchedGroup): Promise<void> {
  const body = { records: [{ value: "after" }] };
  const path = `/v1/topics/${topic}/records`;
  for (let answer = await place.http(0).call("POST", path, body); answer.status !== 200; )
    answer = await place.http(0).call("POST", path, body);
}

/** Asks until there is no answer; the code that it gets instead. */
async function untilRefused(place: Place, server: number): Promise<string> {
  for (;;) {
    const { status, body } = await place.http(server).call("GET", "/v1/topics");
    if (status !== 200) return body.code;
  }
}

function ownedBy({ members }: WatchedGroup): readonly Owned[] {
  return [...members].flatMap(({ owned }) => [...owned.values()]);
}

function untilAcked(group: WatchedGroup, offset: number): Promise<void> {
  const isMet = () => ownedBy(group).every((owned) => group.ledger.acked(keyOf(owned)) >= offset);
  return group.until(isMet, `all acknowledged up to ${offset}`);
}

async function untilAllSent(member: Member, next: number): Promise<void> {
  await member.untilFrame(
    () => member.owned.size > 0 && [...member.owned.values()].every((owned) => owned.next >= next),
  );
}

async function untilSleptFor(sinceMs: number, ms: number): Promise<void> {
  await Bun.sleep(Math.max(0, sinceMs + ms - performance.now()));
}

/** Looks at the database again and again. */
async function untilFound<T>(
  look: () => Promise<T>,
  isIt: (found: T) => boolean,
  patienceMs: number,
): Promise<T> {
  const endsAtMs = performance.now() + patienceMs;
  for (;;) {
    const found = await look();
    if (isIt(found)) return found;
    if (performance.now() > endsAtMs)
      throw new Error(`not in ${patienceMs} ms: found ${JSON.stringify(found)}`);
    await Bun.sleep(5);
  }
}

/** All that is in the log is acknowledged, as the database knows. */
async function untilCommitted(place: Place, group: WatchedGroup): Promise<void> {
  const ends = await logEndsOf(place, group);
  const committed = () => place.committedOffsets(group.name, group.topic);
  await untilFound(committed, (offsets) => Bun.deepEquals(offsets, ends), 5_000);
}

async function logEndsOf(place: Place, { topic }: WatchedGroup): Promise<readonly number[]> {
  const lines = await place.sql(
    `SELECT log_end_offset FROM partition_stats WHERE topic = '${topic}' ORDER BY partition`,
  );
  return lines.map(Number);
}

function membersOf(place: Place, { name }: WatchedGroup): Promise<readonly string[]> {
  return place.sql(`SELECT member_id FROM group_members WHERE group_id = '${name}' ORDER BY member_id`);
}

function ackTo({ topic, partition, generation }: Owned, offset: number): AckEntry {
  return { topic, partition, generation, offset };
}

function namesOf(partitions: readonly Owned[]): readonly string[] {
  return partitions.map(keyOf).sort();
}

function report(what: string, sinceMs: number): void {
  console.log(`${what} after ${Math.round(performance.now() - sinceMs)} ms`);
}
