// A producer whose every reply is lost: it sends each batch again until it is told, and each record is stored once.

import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { CuttingProxy } from "../support/cutting-proxy.ts";
import { HttpClient } from "../support/http-client.ts";
import { startServer, temporaryFolder } from "../support/server.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";

const PRODUCES = 1_000;
const PARTITIONS = 4;
const PRODUCER = "counter-1";

interface Run {
  readonly partition: number;
  readonly offset: number;
  readonly count: number;
}

const folder = temporaryFolder();
afterAll(() => folder.remove());

test(`the replies of ${PRODUCES} committed produces are cut: each record is stored once, and its repeat is told where`, async () => {
  await using server = await startServer(join(folder.path, "t.db"));
  using proxy = new CuttingProxy(Number(new URL(server.url).port));
  await new HttpClient(server).createTopic("numbers", PARTITIONS);
  const cut = new Set<string>();
  proxy.isLost = (request) => {
    const sequence = /"sequence":\d+/.exec(request)?.[0] ?? "";
    const isFirst = !cut.has(sequence);
    cut.add(sequence);
    return isFirst;
  };

  const placesTold: string[] = [];
  for (let sequence = 0; sequence < PRODUCES; sequence += 1) {
    // Two records, so that a batch may have two runs; keys, so that they go to all partitions.
    const records = [2 * sequence, 2 * sequence + 1].map((value) => ({ key: `k${value % 31}`, value }));
    const body = JSON.stringify({ records, producer: { id: PRODUCER, epoch: 0, sequence } });
    const send = () =>
      fetch(`${proxy.url}/v1/topics/numbers/records`, { method: "POST", body, keepalive: false });
    const first = await send().then(
      (response) => response.status,
      () => "no reply",
    );
    expect({ sequence, first }).toEqual({ sequence, first: "no reply" });
    const again = (await (await send()).json()) as { runs: readonly Run[]; duplicate: boolean };
    expect({ sequence, duplicate: again.duplicate }).toEqual({ sequence, duplicate: true });
    const places = again.runs.flatMap(({ partition, offset, count }) =>
      Array.from({ length: count }, (_, index) => `${partition}@${offset + index}`),
    );
    for (const [index, place] of places.entries()) placesTold.push(`${2 * sequence + index}:${place}`);
  }

  expect(proxy.lost).toBe(PRODUCES);
  const stored = stockSqlite(
    server.databasePath,
    "SELECT value || ':' || partition || '@' || offset FROM topic_records ORDER BY CAST(value AS INTEGER), offset",
  );
  expect(stored.split("\n")).toEqual(placesTold);
  expect(stockSqlite(server.databasePath, "SELECT epoch, next_sequence FROM producers")).toBe(
    `0|${PRODUCES}`,
  );
}, 60_000);
