// What was answered is there after kill -9, and what is sent again for want of an answer is written once.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { HttpClient } from "../support/http-client.ts";
import { startServer, type TestServer, temporaryFolder } from "../support/server.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";
import { StreamClient } from "../support/stream-client.ts";

const ROUNDS = 8;
const PER_ROUND = 25;
/** Their answers are kept: what is sent again may be any of these. */
const IN_FLIGHT = 16;

interface Answered {
  readonly runs: readonly unknown[];
  readonly duplicate: boolean;
}

/**
 * Sends what is not answered, never more at once than may be sent again, and kills the server when so many more are
 * answered; the rest stays unanswered, whether it was written or not.
 */
async function transactUntilKilled(
  server: TestServer,
  { answered, answers }: { answered: Map<number, Answered>; answers: number },
): Promise<void> {
  const client = await StreamClient.open(server.streamUrl);
  const first = answered.size;
  let next = first;
  const send = () => {
    const records = [{ value: next }];
    client.send({
      type: "transact",
      id: next,
      appends: [
        { topic: "one", records },
        { topic: "two", records },
      ],
      producer: { id: "p", epoch: 0, sequence: next },
    });
    next += 1;
  };
  while (next < first + IN_FLIGHT) send();
  while (answered.size < first + answers) {
    const frame = await client.next();
    if (frame.type !== "transacted") throw new Error(`received ${JSON.stringify(frame)}`);
    answered.set(Number(frame.id), { runs: frame.runs, duplicate: frame.duplicate === true });
    send();
  }
  await server.kill("SIGKILL");
  await client.closed();
}

test("a producer's transactions over kills of the server are each written once, in order, all of it", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "t.db");
  const answered = new Map<number, Answered>();
  const durable: number[] = [];
  const duplicates: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    await using server = await startServer(path);
    const before = answered.size;
    await transactUntilKilled(server, { answered, answers: PER_ROUND });
    duplicates.push([...answered.values()].slice(before).filter(({ duplicate }) => duplicate).length);
    durable.push(Number(stockSqlite(path, "SELECT next_sequence FROM producers")));
    expect(durable.at(-1)).toBeGreaterThanOrEqual(answered.size);
  }
  const written = durable.at(-1) ?? 0;
  const sequences = Array.from({ length: written }, (_, n) => n).join(",");
  for (const topic of ["one", "two"]) {
    const values = stockSqlite(
      path,
      `SELECT group_concat(value) FROM (SELECT value FROM topic_records WHERE topic = '${topic}' ORDER BY offset)`,
    );
    expect(values).toBe(sequences);
  }
  for (const [sequence, { runs }] of answered)
    expect(runs).toEqual(
      ["one", "two"].map((topic) => ({ topic, partition: 0, offset: sequence, count: 1 })),
    );
  // What was written and not answered before a kill is what was a duplicate after it.
  const unanswered = durable.map((count, round) => count - (round + 1) * PER_ROUND);
  expect(duplicates.slice(1)).toEqual(unanswered.slice(0, -1));
}, 30_000);

test("an epoch that was raised is there after a kill: the older stays fenced", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "t.db");
  const produce = (server: TestServer, epoch: number) =>
    new HttpClient(server).call("POST", "/v1/topics/orders/records", {
      records: [{ value: epoch }],
      producer: { id: "p", epoch, sequence: 0 },
    });
  {
    await using server = await startServer(path);
    expect((await produce(server, 0)).status).toBe(200);
    expect((await new HttpClient(server).call("POST", "/v1/producers/p")).body.epoch).toBe(1);
  }
  await using server = await startServer(path);
  expect((await produce(server, 0)).body).toMatchObject({ code: "fenced_producer", expected: 1 });
  expect((await produce(server, 1)).body).toEqual({ runs: [{ partition: 0, offset: 1, count: 1 }] });
});
