// A remote database in real time: the deadlines as they are, and a lock that nobody gives back.

import { expect, test } from "bun:test";
import { createClient } from "@libsql/client/web";
import { HttpClient } from "../support/http-client.ts";
import { describeLong } from "../support/long.ts";
import { refusedServer, startServer } from "../support/server.ts";
import { HAS_SQLD, openRemoteTestDb, SQLD_SKIPPED, startSqld } from "../support/sqld.ts";

const TEST_TIMEOUT_MS = 60_000;
const CALL_DEADLINE_MS = 6_000;
const WRITE_DEADLINE_MS = 15_000;

async function timed<T>(work: Promise<T>): Promise<{ readonly outcome: T; readonly ms: number }> {
  const startedAtMs = performance.now();
  const outcome = await work;
  return { outcome, ms: performance.now() - startedAtMs };
}

if (!HAS_SQLD) console.warn(`a remote database: ${SQLD_SKIPPED}`);

describeLong("a remote database", "waits for real deadlines", () => {
  test.skipIf(!HAS_SQLD)(
    "that stands still is unavailable for reads, unknown for writes, and goes on afterwards",
    async () => {
      await using sqld = await startSqld();
      await using server = await startServer(sqld.url);
      const http = new HttpClient(server);
      await http.produceNumbers("orders", 3);
      await sqld.signal("SIGSTOP");
      const produce = () =>
        http.call("POST", "/v1/topics/orders/records", { records: [{ value: '"frozen"' }] });
      const [read, write] = await Promise.all([timed(http.call("GET", "/readyz")), timed(produce())]);
      await sqld.signal("SIGCONT");
      expect(read.outcome).toMatchObject({ status: 503, body: { code: "unavailable" } });
      expect(read.ms).toBeLessThan(CALL_DEADLINE_MS + 1_000);
      expect(write.outcome.body).toMatchObject({ code: "outcome_unknown" });
      expect(write.ms).toBeGreaterThan(WRITE_DEADLINE_MS - CALL_DEADLINE_MS);
      expect(write.ms).toBeLessThan(WRITE_DEADLINE_MS + CALL_DEADLINE_MS);

      await http.produce("orders", [{ value: 3 }]);
      const { body } = await http.call("GET", "/v1/topics/orders/partitions/0/records");
      const values = body.records.map(({ value }: { value: unknown }) => value);
      expect([
        [0, 1, 2, 3],
        [0, 1, 2, '"frozen"', 3],
      ]).toContainEqual(values);
    },
    TEST_TIMEOUT_MS,
  );

  test.skipIf(!HAS_SQLD)(
    "whose lock a client keeps is written when sqld ends its transaction, in one try",
    async () => {
      await using sqld = await startSqld();
      const db = await openRemoteTestDb(sqld.url);
      const holder = await createClient({ url: sqld.url }).transaction("write");
      await holder.execute("INSERT INTO guard VALUES (1, 1)");
      const written = await timed(db.write([{ sql: "INSERT INTO guard VALUES (2, 1) RETURNING op" }]));
      expect(written.outcome).toEqual([[{ op: 2 }]]);
      expect(written.ms).toBeGreaterThan(4_000);
      expect(await holder.commit().catch((error) => error.code)).toBe("TRANSACTION_TIMEOUT");
      expect(await db.read({ sql: "SELECT op FROM guard" })).toEqual([{ op: 2 }]);
    },
    TEST_TIMEOUT_MS,
  );

  test(
    "that is not there ends the server after 15 s, with a word why",
    async () => {
      const ended = await timed(refusedServer("http://127.0.0.1:1", { env: { TURSO_AUTH_TOKEN: "s3cret" } }));
      expect(ended.outcome).toMatchObject({ exitCode: 2, stdout: "" });
      expect(ended.outcome.stderr).toMatch(
        /^tidemark: cannot open the database http:\/\/127\.0\.0\.1:1: .*\n$/,
      );
      expect(ended.outcome.stderr).not.toContain("s3cret");
      expect(ended.ms).toBeGreaterThan(14_000);
    },
    TEST_TIMEOUT_MS,
  );
});
