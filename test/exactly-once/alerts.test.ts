// examples/alerts.ts across kill -9 of its server, and of itself. With strace the server dies in the middle of writing a
// commit: by SIGKILL on entering a write of its WAL, behind the records of the append and before the commit's last page.

import { afterAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { bodiesOf, readEarthquakes } from "../support/earthquakes.ts";
import { HttpClient } from "../support/http-client.ts";
import { isLongRun } from "../support/long.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { REPOSITORY, spawnServer, startServer, type TestServer, temporaryFolder } from "../support/server.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";

const PARTITIONS = 4;
const KILLS = isLongRun ? 24 : 3;
/** Writes of the server before it dies: a commit is some ten of them. */
const WRITES_BEFORE_KILL_MIN = 60;
const WRITES_BEFORE_KILL_MAX = 200;
/** So often the sample goes in where the whole file is not there: enough work for all kills. */
const SAMPLE_COPIES = 40;

const folder = temporaryFolder();
afterAll(() => folder.remove());

const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 1_000_000));
const random = seededRandom(seed);
const hasStrace = Bun.which("strace") !== null;
const databasePath = join(folder.path, "t.db");
const tracePath = join(folder.path, "trace");

/** Alerts that are there, and those that should be: of the quakes below the committed offsets, from the same snapshot. */
const COMPARISON = `
  WITH expected AS (
    SELECT q.value ->> 'id' AS id, q.partition, q.offset
    FROM topic_records AS q
    JOIN consumer_lag AS l ON l.group_id = 'alerting' AND l.topic = q.topic AND l.partition = q.partition
    WHERE q.topic = 'quakes' AND q.offset < l.committed_offset AND q.value ->> 'magnitude' > 4
  ), found AS (
    SELECT key AS id, CAST(headers ->> 'origin-partition' AS INTEGER) AS partition,
           CAST(headers ->> 'origin-offset' AS INTEGER) AS offset
    FROM topic_records WHERE topic = 'alerts'
  )
  SELECT (SELECT count(*) FROM expected), (SELECT count(*) FROM found),
         (SELECT count(*) FROM (SELECT * FROM expected EXCEPT SELECT * FROM found)),
         (SELECT count(*) FROM (SELECT * FROM found EXCEPT SELECT * FROM expected))`;

/** Throws unless both are the same set, each once. Returns how many. */
function compareAlerts(): number {
  const [expected, found, missing, tooMany] = stockSqlite(databasePath, COMPARISON).split("|").map(Number);
  expect({ found, missing, tooMany }).toEqual({ found: expected as number, missing: 0, tooMany: 0 });
  return found ?? 0;
}

test(`every quake above magnitude 4 is one alert, across ${KILLS} kills between append and commit`, async () => {
  const { lines: once, source } = readEarthquakes();
  const lines = source === "sample" ? Array.from({ length: SAMPLE_COPIES }, () => once).flat() : once;
  console.log(
    `alerts: ${source}, ${KILLS} kills ${hasStrace ? "in a write of the WAL" : "at any moment: there is no strace"}, SEED=${seed}`,
  );
  const port = await fill(lines);
  let worker = startWorker(port);
  let kills = 0;
  for (let round = 0; kills < KILLS; round += 1) {
    expect(round).toBeLessThan(3 * KILLS);
    if (await runUntilKilled(port)) kills += 1;
    compareAlerts();
    if (round % 4 === 3) {
      worker.kill("SIGKILL");
      await worker.exited;
      worker = startWorker(port);
    }
  }
  await using server = await startServer(databasePath, { port });
  await untilDone(server);
  worker.kill("SIGKILL");
  const alerts = compareAlerts();
  const ofFile = lines.filter((line) => JSON.parse(line).magnitude > 4).length;
  expect(alerts).toBe(ofFile);
  expect(stockSqlite(databasePath, "SELECT sum(lag) FROM consumer_lag")).toBe("0");
}, 300_000);

/** Resolves to a port that is free again: every server after this one listens there. */
async function fill(lines: readonly string[]): Promise<number> {
  await using server = await startServer(databasePath);
  const http = new HttpClient(server);
  await http.createTopic("quakes", PARTITIONS);
  await http.createTopic("alerts", 2);
  for (const body of bodiesOf(lines, 5_000)) {
    const answer = await fetch(`${server.url}/v1/topics/quakes/records?key=/network`, {
      method: "POST",
      headers: { "content-type": "application/x-ndjson" },
      body: body.join("\n"),
    });
    expect(answer.status).toBe(200);
  }
  expect(await server.kill("SIGTERM")).toBe(0);
  return Number(new URL(server.url).port);
}

function startWorker(port: number) {
  const command = [
    process.execPath,
    join(REPOSITORY, "examples/alerts.ts"),
    `ws://127.0.0.1:${port}/v1/stream`,
  ];
  return Bun.spawn(command, { stdout: "ignore", stderr: "ignore" });
}

/** True where it died in a write of its WAL; where there is no strace to tell, while transactions come in. */
async function runUntilKilled(port: number): Promise<boolean> {
  if (!hasStrace) {
    const server = await startServer(databasePath, { port });
    const alerts = 1 + Math.floor(random() * 3);
    for (let seen = 0; seen < alerts; seen += 1) await untilMoreAlerts(server, 5_000);
    await server.kill("SIGKILL");
    return true;
  }
  const writes =
    WRITES_BEFORE_KILL_MIN + Math.floor(random() * (WRITES_BEFORE_KILL_MAX - WRITES_BEFORE_KILL_MIN));
  const inject = `inject=pwrite64:signal=KILL:when=${writes}`;
  const prefix = ["strace", "-f", "-y", "-e", "trace=pwrite64", "-e", inject, "-o", tracePath];
  const server = spawnServer(databasePath, { port, prefix });
  const printed = await new Response(server.stdout).text();
  await server.exited;
  const last = readFileSync(tracePath, "utf8")
    .split("\n")
    .findLast((line) => line.includes("pwrite64("));
  // Before it was ready, or in a checkpoint: no append was under way.
  return printed.includes("tidemark ready") && (last?.includes("-wal>") ?? false);
}

async function untilDone(server: TestServer): Promise<void> {
  const http = new HttpClient(server);
  for (;;) {
    const { body } = await http.call("GET", "/v1/groups");
    if (body.groups[0]?.lag === 0) return;
    await untilMoreAlerts(server, 100);
  }
}

/** Or until the wait is over. */
async function untilMoreAlerts(server: TestServer, waitMs: number): Promise<void> {
  const path = `/v1/topics/alerts/partitions/0/records?from=latest&waitMs=${waitMs}`;
  await new HttpClient(server).call("GET", path);
}
