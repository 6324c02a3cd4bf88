// Nobody ever sees a part of a transaction: not in one snapshot of the database, and not by asking for the rest of what was
// seen. Readers of every kind look on while transactions write the same number to three partitions and commit beside it.

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { Signal } from "../groups/member.ts";
import { describePlaces, Place } from "../support/cluster.ts";
import type { HttpClient } from "../support/http-client.ts";
import { isLongRun } from "../support/long.ts";
import { type FrameOf, StreamClient } from "../support/stream-client.ts";

const TRANSACTIONS = isLongRun ? 100 : 20;
const PATIENCE_MS = 10_000;
/** How often each kind of reader looks in the midst of it. */
const LOOKS_MIN = isLongRun ? 20 : 5;

type Target = readonly [topic: string, partition: number];

interface Scene {
  /** Three partitions of two topics. */
  readonly targets: readonly Target[];
  readonly group: string;
  /** What the group consumes. */
  readonly source: string;
  /** Writes the next number everywhere and commits it, and is durable then. */
  writeNext(): Promise<void>;
  /** How many transactions have been asked for, and how many answered. */
  readonly asked: number;
  readonly answered: number;
  close(): Promise<void>;
}

/** Its writer is on the first of the servers. */
async function setScene(place: Place): Promise<Scene> {
  const source = await place.newTopic({ records: TRANSACTIONS });
  const [one, two, group] = [
    await place.newTopic({ partitionCount: 2 }),
    await place.newTopic(),
    place.newGroup(),
  ];
  const client = await open(place, 0);
  client.send({ type: "subscribe", topics: [source], group, window: { records: 1 } });
  await client.expect("subscribed");
  const { partitions } = await client.expect("assigned");
  await client.expect("records");
  const targets: readonly Target[] = [
    [one, 0],
    [two, 0],
    [one, 1],
  ];
  const generation = partitions[0]?.generation ?? -1;
  let [asked, answered] = [0, 0];
  const writeNext = async () => {
    const number = asked;
    asked += 1;
    client.send({
      type: "transact",
      id: "t",
      appends: targets.map(([topic, partition]) => ({ topic, records: [{ value: number, partition }] })),
      commits: { group, offsets: [{ topic: source, partition: 0, generation, offset: number + 1 }] },
    });
    await untilTransacted(client);
    answered += 1;
  };
  return {
    targets,
    group,
    source,
    writeNext,
    get asked() {
      return asked;
    },
    get answered() {
      return answered;
    },
    close: () => client.close(),
  };
}

function open(place: Place, server: number): Promise<StreamClient> {
  return StreamClient.open(place.server(server).streamUrl, { patienceMs: PATIENCE_MS });
}

/** Each transaction lets the next record in: it is sent beside the answer. */
async function untilTransacted(client: StreamClient): Promise<FrameOf<"transacted">> {
  for (;;) {
    const frame = await client.next();
    if (frame.type === "transacted") return frame;
    if (frame.type !== "records") throw new Error(`received ${JSON.stringify(frame)}`);
  }
}

/** Writes all of it, and no faster than each of the looks has been in the midst of it often enough at the end. */
async function writeWhile(scene: Scene, looks: readonly (() => Promise<void>)[]): Promise<void> {
  const signal = new Signal();
  const counts = looks.map(() => 0);
  let hasFailed = false;
  const isOver = () => hasFailed || scene.answered === TRANSACTIONS;
  const lookOnAndOn = async (look: () => Promise<void>, index: number) => {
    while (!isOver()) {
      await look();
      if (scene.asked < TRANSACTIONS) counts[index] = (counts[index] ?? 0) + 1;
      signal.notify();
    }
  };
  const lookers = looks.map((look, index) =>
    lookOnAndOn(look, index).catch((error) => {
      hasFailed = true;
      signal.notify();
      throw error;
    }),
  );
  const isNobodyLate = () => counts.every((count) => count * TRANSACTIONS >= scene.answered * LOOKS_MIN);
  const write = async () => {
    while (!isOver()) {
      await scene.writeNext();
      await signal.until(
        () => isOver() || isNobodyLate(),
        () => `looks: ${counts}`,
      );
    }
  };
  await Promise.all([...lookers, write()]);
  expect(Math.min(...counts)).toBeGreaterThanOrEqual(LOOKS_MIN - 1);
}

/** The numbers that are in each of the targets, and the committed offset, in one statement. */
function snapshotQuery({ targets, group, source }: Scene): string {
  const inTargets = targets.map(
    ([topic, partition]) => `(SELECT coalesce(group_concat(value, ','), '') FROM
       (SELECT value FROM topic_records WHERE topic = '${topic}' AND partition = ${partition} ORDER BY offset))`,
  );
  const ends = targets.map(
    ([topic, partition]) => `(SELECT log_end_offset FROM partition_stats
       WHERE topic = '${topic}' AND partition = ${partition})`,
  );
  const committed = `(SELECT committed_offset FROM consumer_lag WHERE group_id = '${group}' AND topic = '${source}')`;
  return `SELECT ${[...inTargets, ...ends, committed].join(", ")}`;
}

/** All of them hold the same: the numbers from 0, as many as were committed. */
function expectWhole(
  columns: readonly string[],
  { answered, asked }: { answered: number; asked: number },
): void {
  const committed = Number(columns.at(-1));
  const numbers = Array.from({ length: committed }, (_, n) => n).join(",");
  const end = String(committed);
  expect(columns).toEqual([numbers, numbers, numbers, end, end, end, end]);
  expect(committed).toBeGreaterThanOrEqual(answered);
  expect(committed).toBeLessThanOrEqual(asked);
}

async function endOverHttp(http: HttpClient, [topic, partition]: Target): Promise<number> {
  const path = `/v1/topics/${topic}/partitions/${partition}/records?from=earliest&limit=10000`;
  const { status, body } = await http.call("GET", path);
  expect(status).toBe(200);
  expect(body.logEndOffset).toBe(body.next);
  return body.next;
}

async function committedOverHttp(http: HttpClient, { group }: Scene): Promise<number> {
  return (await http.call("GET", `/v1/groups/${group}`)).body.offsets[0].committedOffset;
}

/** Where each of them ends now, and what is committed. */
function endsNow(http: HttpClient, scene: Scene, targets = scene.targets): Promise<readonly number[]> {
  return Promise.all([...targets.map((target) => endOverHttp(http, target)), committedOverHttp(http, scene)]);
}

describePlaces("of a transaction", (place) => {
  test("a snapshot of the database holds all, its commit too, or nothing", async () => {
    const scene = await setScene(place());
    const query = snapshotQuery(scene);
    const snapshot = async () => (await place().sql(query))[0]?.split("|") ?? [];
    await writeWhile(scene, [
      async () => {
        const { answered } = scene;
        expectWhole(await snapshot(), { answered, asked: scene.asked });
      },
    ]);
    expectWhole(await snapshot(), { answered: TRANSACTIONS, asked: TRANSACTIONS });
    await scene.close();
  }, 20_000);

  test("whoever has fetched a record from one partition finds all of it, on any server, when it asks after that", async () => {
    const scene = await setScene(place());
    const everyOrder = scene.targets.map((target, index) => async () => {
      const seen = await endOverHttp(place().http(index), target);
      const others = scene.targets.filter((other) => other !== target);
      const ends = await endsNow(place().http(index + 1), scene, others);
      expect(Math.min(...ends)).toBeGreaterThanOrEqual(seen);
    });
    const afterTheCommit = async () => {
      const committed = await committedOverHttp(place().http(1), scene);
      const ends = await endsNow(place().http(2), scene);
      expect(Math.min(...ends)).toBeGreaterThanOrEqual(committed);
    };
    await writeWhile(scene, [...everyOrder, afterTheCommit]);
    await scene.close();
  }, 20_000);

  test("whoever is sent a record by a long-poll finds all of it, on any server, when it asks after that", async () => {
    const scene = await setScene(place());
    const pollers = scene.targets.map(([topic, partition], index) => {
      let next = 0;
      return async () => {
        const path = `/v1/topics/${topic}/partitions/${partition}/records?from=${next}&waitMs=1000`;
        const { body } = await place().http(index).call("GET", path);
        next = body.next;
        const ends = await endsNow(place().http(index + 1), scene);
        expect(Math.min(...ends)).toBeGreaterThanOrEqual(next);
      };
    });
    await writeWhile(scene, pollers);
    await scene.close();
  }, 20_000);

  test("whoever is sent a record on a socket finds all of it, on any server, when it asks after that", async () => {
    const scene = await setScene(place());
    const readers = await Promise.all(
      scene.targets.map(async ([topic, partition], index) => {
        const client = await open(place(), index);
        client.send({ type: "subscribe", topics: [topic], from: [{ topic, partition, offset: 0 }] });
        await client.expect("subscribed");
        await client.expect("assigned");
        return client;
      }),
    );
    const reading = readers.map(async (reader, index) => {
      for (let next = 0; next < TRANSACTIONS; ) {
        const frame = await reader.expect("records");
        expect(frame.records.map(({ value }) => value)).toEqual(frame.records.map(({ offset }) => offset));
        next = frame.next;
        const ends = await endsNow(place().http(index + 1), scene);
        expect(Math.min(...ends)).toBeGreaterThanOrEqual(next);
      }
    });
    while (scene.asked < TRANSACTIONS) await scene.writeNext();
    await Promise.all(reading);
    await Promise.all([...readers.map((reader) => reader.close()), scene.close()]);
  }, 20_000);

  test("that is refused nobody sees anything: no offset is missing or used twice", async () => {
    const [one, two] = [await place().newTopic(), await place().newTopic()];
    const [client, reader] = [await open(place(), 0), await open(place(), 1)];
    reader.send({ type: "subscribe", topics: [one, two], from: "earliest" });
    await reader.expect("subscribed");
    await reader.expect("assigned");
    // Every second one expects what is not so. All of them are sent at once and share the flushes of the server.
    for (let number = 0; number < TRANSACTIONS; number += 1)
      client.send({
        type: "transact",
        id: number,
        appends: [one, two].map((topic) => ({ topic, records: [{ value: number }] })),
        ...(number % 2 === 1 && { expect: [{ topic: two, partition: 0, logEndOffset: 0 }] }),
      });
    const answers = await client.nextMany(TRANSACTIONS);
    expect(answers.filter(({ type }) => type === "error")).toHaveLength(TRANSACTIONS / 2);
    const frames: FrameOf<"records">[] = [];
    const seen = () => frames.reduce((sum, { records }) => sum + records.length, 0);
    while (seen() < TRANSACTIONS) frames.push(await reader.expect("records"));
    for (const topic of [one, two]) {
      const records = frames.filter((frame) => frame.topic === topic).flatMap((frame) => frame.records);
      expect(records.map(({ offset }) => offset)).toEqual(
        Array.from({ length: TRANSACTIONS / 2 }, (_, n) => n),
      );
      expect(records.map(({ value }) => value)).toEqual(
        Array.from({ length: TRANSACTIONS / 2 }, (_, n) => 2 * n),
      );
    }
    expect(await reader.untilAnswered()).toEqual([]);
    await Promise.all([client.close(), reader.close()]);
  });
});

test("of a transaction on a file a read transaction of several statements sees one moment: all of it or nothing, whatever is asked when", async () => {
  await using place = await Place.start("file");
  const scene = await setScene(place);
  const database = new Database(place.database, { readonly: true });
  const ends = database.query<{ log_end_offset: number }, [string, number]>(
    "SELECT log_end_offset FROM partition_stats WHERE topic = ? AND partition = ?",
  );
  const committed = database.query<{ committed_offset: number }, [string]>(
    "SELECT committed_offset FROM consumer_lag WHERE group_id = ?",
  );
  const yieldTurn = () => new Promise<void>((resolve) => setImmediate(resolve));
  await writeWhile(scene, [
    async () => {
      database.run("BEGIN");
      const seen = [committed.get(scene.group)?.committed_offset];
      for (const target of scene.targets) {
        await yieldTurn(); // transactions are written meanwhile
        seen.push(ends.get(...target)?.log_end_offset);
      }
      database.run("COMMIT");
      expect(new Set(seen).size).toBe(1);
      await yieldTurn();
    },
  ]);
  database.close();
  await scene.close();
}, 20_000);
