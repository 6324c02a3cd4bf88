// The server in workerd, where leases, deadlines and alarms are waited for.

import { expect, setDefaultTimeout, test } from "bun:test";
import type { Rows } from "../../src/store/db.ts";
import { HttpClient } from "../support/http-client.ts";
import { describeLong } from "../support/long.ts";
import { HAS_SQLD, openRemoteTestDb, SQLD_SKIPPED, startSqld } from "../support/sqld.ts";
import { type FrameOf, StreamClient } from "../support/stream-client.ts";
import { startWorker, type WorkerOptions } from "../support/worker.ts";

setDefaultTimeout(90_000);

const OPEN = { TIDEMARK_WITHOUT_CREDENTIALS: "true" };

if (!HAS_SQLD) console.warn(`the server in workerd: ${SQLD_SKIPPED}`);

describeLong("a Worker", "waits for a lease, a deadline and an alarm", () => {
  if (!HAS_SQLD) return;

  test.each<[string, WorkerOptions, string]>([
    ["without a database", { variables: OPEN }, "TURSO_DATABASE_URL is not set"],
    [
      "open to all without being told to",
      { variables: { TURSO_DATABASE_URL: "http://localhost:1" } },
      "TIDEMARK_WITHOUT_CREDENTIALS",
    ],
    [
      "with a setting that makes no sense",
      { variables: { ...OPEN, TURSO_DATABASE_URL: "http://localhost:1", TIDEMARK_AUTO_CREATE: "yes" } },
      "auto-create",
    ],
  ])("%s answers every request with what is missing", async (_, options, detail) => {
    await using worker = await startWorker(options);
    const answer = await new HttpClient(worker).call("PUT", "/v1/topics/orders", {});
    expect(answer).toEqual({
      status: 500,
      body: { status: 500, code: "internal", retriable: false, detail: expect.stringContaining(detail) },
    });
  });

  test("whose database cannot be reached says so, not where it is, and serves when it can", async () => {
    await using own = await startSqld();
    await own.signal("SIGKILL");
    await using worker = await startWorker({ variables: { ...OPEN, TURSO_DATABASE_URL: own.url } });
    const http = new HttpClient(worker);
    const refused = await http.call("GET", "/readyz");
    expect(refused).toMatchObject({ status: 503, body: { code: "unavailable", retriable: true } });
    expect(JSON.stringify(refused.body)).not.toContain(String(own.port));
    await own.start();
    for (;;) {
      const { status, body } = await http.call("GET", "/readyz");
      if (status !== 200) continue; // one that failed is not tried again at once
      expect(body).toMatchObject({ status: "ready", durability: "fsync" });
      return;
    }
  });

  test("is brought back by its alarm for what is due, though nobody asks", async () => {
    await using own = await startSqld();
    await using worker = await startWorker({ variables: { ...OPEN, TURSO_DATABASE_URL: own.url } });
    const http = new HttpClient(worker);
    // A hundredth of that time is the next look: long enough for an alarm.
    const { status } = await http.call("PUT", "/v1/topics/old", { retention: { ms: 1_100_000 } });
    expect(status).toBe(201);
    await http.produceNumbers("old", 10);
    const db = await openRemoteTestDb(own.url);
    const [{ n } = { n: 0 }] = await until(
      () => db.read({ sql: "SELECT count(*) AS n FROM append_times" }),
      ([row]) => Number(row?.n) > 0,
    );
    expect(n).toBeGreaterThan(0);
    await db.write([{ sql: "UPDATE append_times SET at = at - 2000000" }]);
    await until(
      () => db.read({ sql: "SELECT log_start_offset AS n FROM partitions" }),
      ([row]) => row?.n === 10,
    );
    await db.close();
  });

  test("that is killed under load has lost nothing that it acknowledged, and its group goes on from there", async () => {
    await using sqld = await startSqld();
    const variables = { ...OPEN, TURSO_DATABASE_URL: sqld.url };
    const acknowledged: number[] = [];
    let committed = 0;
    {
      await using worker = await startWorker({ variables });
      const http = new HttpClient(worker);
      await http.createTopic("orders", 1);
      const client = await StreamClient.open(`${worker.streamUrl}?topic=orders&group=billing`);
      const lanes = Array.from({ length: 4 }, async (_, lane) => {
        for (let n = 0; acknowledged.length < 400; n += 1) {
          const value = lane * 1_000_000 + n;
          const { status } = await http.call("POST", "/v1/topics/orders/records", { records: [{ value }] });
          if (status === 200) acknowledged.push(value);
        }
      });
      while (committed < 200) committed = (await acknowledgeNext(client)) ?? committed;
      await Promise.race(lanes); // the others are in the middle of something
    }
    await using worker = await startWorker({ variables });
    const path = "/v1/topics/orders/partitions/0/records?limit=10000";
    const { body } = await new HttpClient(worker).call("GET", path);
    const values = new Set(body.records.map(({ value }: { value: number }) => value));
    expect(acknowledged.filter((value) => !values.has(value))).toEqual([]);
    // The killed one's lease runs out first.
    const client = await StreamClient.open(`${worker.streamUrl}?topic=orders&group=billing`);
    const first = await firstRecords(client);
    expect(first.records[0]?.offset).toBeGreaterThanOrEqual(committed);
  });
});

/** Asks sqld itself: to ask the Worker would keep it awake. */
async function until(read: () => Promise<Rows>, isMet: (rows: Rows) => boolean): Promise<Rows> {
  for (;;) {
    const rows = await read();
    if (isMet(rows)) return rows;
  }
}

/** What is committed then, where the next frame says so. */
async function acknowledgeNext(client: StreamClient): Promise<number | undefined> {
  const frame = await client.next();
  if (frame.type === "acked") return frame.offsets[0]?.offset ?? undefined;
  if (frame.type !== "records") return undefined;
  const { topic, partition, generation, next } = frame;
  client.send({ type: "ack", offsets: [{ topic, partition, generation, offset: next }] });
  return undefined;
}

async function firstRecords(client: StreamClient): Promise<FrameOf<"records">> {
  for (;;) {
    const frame = await client.next();
    if (frame.type === "records") return frame;
  }
}
