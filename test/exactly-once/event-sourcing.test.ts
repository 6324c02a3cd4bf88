// examples/event-sourcing.ts, several at once on one account: whoever decides by a balance decides by the whole log.

import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { REPOSITORY, startServer, temporaryFolder } from "../support/server.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";

const PROCESSES = 4;

const folder = temporaryFolder();
afterAll(() => folder.remove());

test("an account is never overdrawn, and nobody gives up while there is money for the withdrawal", async () => {
  await using server = await startServer(join(folder.path, "t.db"));
  const command = [process.execPath, join(REPOSITORY, "examples/event-sourcing.ts"), server.url];
  const children = Array.from({ length: PROCESSES }, () => Bun.spawn(command, { stdout: "pipe" }));
  const printed = await Promise.all(children.map(({ stdout }) => new Response(stdout).text()));
  expect(await Promise.all(children.map(({ exited }) => exited))).toEqual(children.map(() => 0));

  const withdrawals = printed.map((line) => Number(/^(\d+) of 10 withdrawals/.exec(line)?.[1]));
  const log = stockSqlite(
    server.databasePath,
    `SELECT coalesce(value ->> 'deposited', -(value ->> 'withdrawn')) FROM topic_records
     WHERE topic = 'accounts' ORDER BY offset`,
  );
  const amounts = log.split("\n").map(Number);
  let balance = 0;
  for (const amount of amounts) {
    balance += amount;
    expect(balance).toBeGreaterThanOrEqual(0);
  }
  expect(amounts.filter((amount) => amount === 100)).toHaveLength(PROCESSES);
  expect(amounts.filter((amount) => amount === -30)).toHaveLength(withdrawals.reduce((sum, n) => sum + n, 0));
  expect(balance).toBeLessThan(30);
}, 30_000);
