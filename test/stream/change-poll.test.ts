import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { DbError } from "../../src/store/db.ts";
import { ChangePoll } from "../../src/stream/change-poll.ts";
import { failing, openTestDatabase, WatchedDb } from "../support/database.ts";
import { FakeTime } from "../support/fake-time.ts";

const database = await openTestDatabase();
const elsewhere = await database.openSecond();
afterAll(() => database.close());
beforeEach(() => database.empty());

const POLL_INTERVAL_MS = 50;
const OUTAGE_AFTER_MS = 2_000;

function setUp() {
  const watched = new WatchedDb(database.db);
  const time = new FakeTime();
  const seen: string[] = [];
  /** Of the catalog. */
  const versions: number[] = [];
  const faults: { onTopics: Error | undefined } = { onTopics: undefined };
  const poll = new ChangePoll({
    db: watched,
    scheduler: time,
    log: (event) => seen.push(event),
    onGroup: (group, version) => seen.push(`${group} ${version}`),
    onTopics: async (catalogVersion) => {
      seen.push("topics");
      versions.push(catalogVersion);
      const error = faults.onTopics;
      faults.onTopics = undefined;
      if (error) throw error;
    },
    onOutage: () => seen.push("outage"),
  });
  return { watched, time, seen, versions, poll, faults };
}

const changeGroup = (group: string) =>
  elsewhere.write([
    { sql: "UPDATE sequence SET last = last + 1" },
    {
      sql: `INSERT INTO groups (group_id, version, created_at) SELECT :group, last, 0 FROM sequence WHERE true
            ON CONFLICT (group_id) DO UPDATE SET version = excluded.version`,
      args: { group },
    },
  ]);
const createTopic = (topic: string) =>
  elsewhere.write([
    { sql: "INSERT INTO topics (topic, partition_count, created_at) VALUES (:topic, 1, 0)", args: { topic } },
  ]);

describe("ChangePoll", () => {
  test("tells of every group that has changed since, and of topics, each once", async () => {
    const { poll, time, seen } = setUp();
    await changeGroup("before");
    await poll.begin();
    poll.start();
    await changeGroup("a");
    await changeGroup("b");
    await time.advance(POLL_INTERVAL_MS);
    expect(seen).toEqual(["a 2", "b 3"]);
    await changeGroup("a");
    await createTopic("orders");
    await time.advance(POLL_INTERVAL_MS);
    expect(seen.slice(2)).toEqual(["a 4", "topics"]);
    await time.advance(10 * POLL_INTERVAL_MS);
    expect(seen).toHaveLength(4);
  });

  test.each(["UPDATE topics SET partition_count = 2", "DELETE FROM topics"])(
    "tells of topics after %s",
    async (sql) => {
      const { poll, time, seen } = setUp();
      await createTopic("orders");
      await poll.begin();
      poll.start();
      await elsewhere.write([{ sql }]);
      await time.advance(POLL_INTERVAL_MS);
      expect(seen).toEqual(["topics"]);
    },
  );

  test("asks one question a poll, and none while nobody is connected", async () => {
    const { poll, time, watched } = setUp();
    await poll.begin();
    poll.start();
    poll.start();
    await time.advance(4 * POLL_INTERVAL_MS);
    expect(watched.reads).toHaveLength(1 + 4);
    poll.stop();
    await time.advance(60_000);
    expect(watched.reads).toHaveLength(1 + 4);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("that starts again tells of what has changed meanwhile", async () => {
    const { poll, time, seen } = setUp();
    await poll.begin();
    poll.start();
    poll.stop();
    await time.advance(POLL_INTERVAL_MS);
    await changeGroup("a");
    poll.start();
    await time.advance(POLL_INTERVAL_MS);
    expect(seen).toEqual(["a 1"]);
  });

  test("that is stopped and started between two polls goes on as one", async () => {
    const { poll, time } = setUp();
    await poll.begin();
    poll.start();
    poll.stop();
    poll.start();
    await time.advance(10 * POLL_INTERVAL_MS);
    expect(time.pendingDelaysMs).toHaveLength(1);
  });

  test("of a file of its own does nothing", async () => {
    const { poll, time } = setUp();
    poll.start(); // it has not begun
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("that fails says so once, tells of what it missed, and is an outage when it lasts", async () => {
    const { poll, time, seen, watched } = setUp();
    await poll.begin();
    poll.start();
    watched.onRead = () => {
      throw new DbError("io", "scripted");
    };
    await changeGroup("a");
    await time.advance(OUTAGE_AFTER_MS);
    expect(seen).toEqual(["changes could not be read"]);
    await time.advance(POLL_INTERVAL_MS);
    expect(seen).toEqual(["changes could not be read", "outage"]);
    watched.onRead = undefined;
    await time.advance(POLL_INTERVAL_MS);
    expect(seen.slice(2)).toEqual(["a 1"]);
    watched.onRead = failing(new DbError("io", "again"));
    await time.advance(POLL_INTERVAL_MS);
    expect(seen.slice(3)).toEqual(["changes could not be read"]);
  });

  test("asks for topics again where they could not be read, up to the version that it has seen", async () => {
    const { poll, time, seen, versions, faults } = setUp();
    await poll.begin();
    poll.start();
    await createTopic("orders");
    faults.onTopics = new DbError("io", "scripted");
    await time.advance(2 * POLL_INTERVAL_MS);
    expect(seen).toEqual(["topics", "changes could not be read", "topics"]);
    await createTopic("other");
    await time.advance(2 * POLL_INTERVAL_MS);
    expect(versions).toEqual([1, 1, 2]);
  });
});
