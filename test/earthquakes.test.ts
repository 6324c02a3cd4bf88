// The straight path on real input, across a kill -9: in over HTTP, out of a group with an ack a batch, and then every
// record is held against the file.

import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { partitionOfKey } from "../src/core/partitioner.ts";
import { bodiesOf, readEarthquakes } from "./support/earthquakes.ts";
import { seededRandom } from "./support/seeded-random.ts";
import { startServer, type TestServer, temporaryFolder } from "./support/server.ts";
import { stockSqlite } from "./support/stock-sqlite.ts";
import { StreamClient } from "./support/stream-client.ts";

const TOPIC = "quakes";
const GROUP = "watch";
const PARTITION_COUNT = 4;
const LANES = 2;

interface Run {
  readonly partition: number;
  readonly offset: number;
  readonly count: number;
}

/** What both sides of the test have sent and been told. */
interface History {
  /** The runs of every body that was acknowledged. */
  readonly runsByBody: Map<number, readonly Run[]>;
  /** Bodies that were sent and not answered. */
  readonly openBodies: Set<number>;
  /** By partition and offset: the record as text, as the frame had it. */
  readonly delivered: readonly Map<number, string>[];
  /** By partition: the highest offset that an `acked` has called durable. */
  readonly ackedOffsets: number[];
  acksOpen: number;
  acksAnswered: number;
}

const folder = temporaryFolder();
afterAll(() => folder.remove());

const { lines, source } = readEarthquakes();
const bodies = bodiesOf(lines, source === "sample" ? 50 : 5_000);
const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 1_000_000));

test("every earthquake goes in over HTTP and comes out of a group, byte for byte, across a kill -9", async () => {
  console.log(`earthquakes: ${source}, ${lines.length} records, SEED=${seed}`);
  const random = seededRandom(seed);
  const databasePath = join(folder.path, "quakes.db");
  const history = newHistory();

  const first = await startServer(databasePath);
  await createTopic(first);
  const acksBeforeKill = 1 + Math.floor(random() * (source === "sample" ? 3 : 20));
  const turnsBeforeKill = Math.floor(random() * 20_000);
  const atKill = await runUntilKilled(first, history, { acksBeforeKill, turnsBeforeKill });
  console.log(`killed after ${history.acksAnswered} acks; unanswered: ${JSON.stringify(atKill)}`);
  expect(atKill.produces).toBeGreaterThan(0);
  expect(atKill.acks).toBeGreaterThan(0);

  const second = await startServer(databasePath);
  const written = await findWritten(second, history);
  console.log(`written without an answer: ${written.size} bodies`);
  const missing = bodies
    .map((_, body) => body)
    .filter((body) => !history.runsByBody.has(body) && !written.has(body));
  for (const body of missing) await produceBody(second, body, history);
  await consumeAll(second, history);

  compareWithFile(history, written);
  expect(stockSqlite(databasePath, "SELECT count(*), sum(lag) FROM consumer_lag")).toBe(
    `${PARTITION_COUNT}|0`,
  );
  expect(await second.kill("SIGTERM")).toBe(0);
}, 60_000);

function newHistory(): History {
  return {
    runsByBody: new Map(),
    openBodies: new Set(),
    delivered: Array.from({ length: PARTITION_COUNT }, () => new Map()),
    ackedOffsets: Array.from({ length: PARTITION_COUNT }, () => 0),
    acksOpen: 0,
    acksAnswered: 0,
  };
}

async function createTopic({ url }: TestServer): Promise<void> {
  const body = JSON.stringify({ partitionCount: PARTITION_COUNT });
  const response = await fetch(`${url}/v1/topics/${TOPIC}`, { method: "PUT", body });
  expect(response.status).toBe(201);
}

// ── produce ──────────────────────────────────────────────────────────────────────────────────────────────

/** Rejects, and leaves the body open, when the server dies. */
async function produceBody({ url }: TestServer, body: number, history: History): Promise<void> {
  history.openBodies.add(body);
  const response = await fetch(`${url}/v1/topics/${TOPIC}/records?key=/network`, {
    method: "POST",
    headers: { "content-type": "application/x-ndjson" },
    body: bodies[body]?.join("\n") ?? "",
  });
  const { runs } = (await response.json()) as { runs: readonly Run[] };
  expect(response.status).toBe(200);
  history.runsByBody.set(body, runs);
  history.openBodies.delete(body);
}

/** The first half goes in at once; the second while the consumer acknowledges, so that the kill finds one open. */
async function runUntilKilled(
  server: TestServer,
  history: History,
  due: { acksBeforeKill: number; turnsBeforeKill: number },
) {
  const half = Math.floor(bodies.length / 2);
  for (let body = 0; body < half; body += 1) await produceBody(server, body, history);
  const consuming = consume(server, history);
  await turnsUntil(() => history.acksAnswered >= due.acksBeforeKill);
  let next = half;
  const runLane = async () => {
    while (next < bodies.length) await produceBody(server, next++, history);
  };
  const lanes = Promise.allSettled(Array.from({ length: LANES }, runLane));
  // Turns of this event loop are short against a request: the server is met at any point of its work.
  let turns = 0;
  const isLastChance = () => next >= bodies.length;
  await turnsUntil(() => {
    turns += 1;
    return hasOpen(history) && (turns > due.turnsBeforeKill || isLastChance());
  });
  const atKill = { produces: history.openBodies.size, acks: history.acksOpen };
  await server.kill("SIGKILL");
  await Promise.all([consuming, lanes]);
  return atKill;
}

function hasOpen({ openBodies, acksOpen }: History): boolean {
  return openBodies.size > 0 && acksOpen > 0;
}

async function turnsUntil(isMet: () => boolean): Promise<void> {
  while (!isMet()) await new Promise((resolve) => setImmediate(resolve));
}

/** Which of the bodies without an answer were written: the log ends say it, as every body is written whole. */
async function findWritten({ url }: TestServer, history: History): Promise<ReadonlySet<number>> {
  const response = await fetch(`${url}/v1/topics/${TOPIC}`);
  const { partitions } = (await response.json()) as { partitions: readonly { logEndOffset: number }[] };
  const logEnds = partitions.map(({ logEndOffset }) => logEndOffset);
  const answered = [...history.runsByBody.keys()];
  const candidates = subsetsOf([...history.openBodies]).filter((subset) =>
    Bun.deepEquals(countByPartition([...answered, ...subset]), logEnds),
  );
  expect(candidates).toHaveLength(1);
  return new Set(candidates[0]);
}

function countByPartition(indexes: readonly number[]): number[] {
  const counts = Array.from({ length: PARTITION_COUNT }, () => 0);
  for (const index of indexes) {
    for (const line of bodies[index] ?? [])
      counts[partitionOfLine(line)] = (counts[partitionOfLine(line)] ?? 0) + 1;
  }
  return counts;
}

function subsetsOf(items: readonly number[]): readonly (readonly number[])[] {
  const [first, ...rest] = items;
  if (first === undefined) return [[]];
  const others = subsetsOf(rest);
  return [...others, ...others.map((subset) => [first, ...subset])];
}

function partitionOfLine(line: string): number {
  return partitionOfKey(networkOf(line), PARTITION_COUNT);
}

function networkOf(line: string): string {
  return JSON.parse(line).network;
}

// ── consume ──────────────────────────────────────────────────────────────────────────────────────────────

async function consumeAll(server: TestServer, history: History): Promise<void> {
  await consume(server, history, {
    isDone: () =>
      history.acksOpen === 0 && history.delivered.reduce((sum, { size }) => sum + size, 0) === lines.length,
  });
}

/** Acknowledges every frame. Ends when it is done or when the socket closes. */
async function consume(
  server: TestServer,
  history: History,
  { isDone = () => false }: { isDone?: () => boolean } = {},
): Promise<void> {
  const client = await StreamClient.open(`${server.streamUrl}?topic=${TOPIC}&group=${GROUP}`);
  history.acksOpen = 0;
  const positions: number[] = [];
  while (!isDone()) {
    const text = await client.nextText().catch(() => undefined);
    if (text === undefined) return; // the server was killed
    const frame = JSON.parse(text);
    if (frame.type === "assigned") {
      for (const { partition, position } of frame.partitions) {
        positions[partition] = position;
        // What was acknowledged is not sent again, and nothing that was not delivered is passed over.
        expect(position).toBeGreaterThanOrEqual(history.ackedOffsets[partition] ?? 0);
        expect(position).toBeLessThanOrEqual(history.delivered[partition]?.size ?? 0);
      }
    } else if (frame.type === "records") {
      expect(frame.records[0].offset).toBe(positions[frame.partition] ?? Number.NaN);
      positions[frame.partition] = frame.next;
      noteDelivered(history, text, frame);
      const { topic, partition, generation, next: offset } = frame;
      history.acksOpen += 1;
      client.send({ type: "ack", offsets: [{ topic, partition, generation, offset }] });
    } else if (frame.type === "acked") {
      history.acksOpen -= 1;
      history.acksAnswered += 1;
      for (const { partition, offset, code } of frame.offsets) {
        expect(code).toBeUndefined();
        history.ackedOffsets[partition] = offset;
      }
    } else {
      expect(frame.type).toBe("subscribed");
    }
  }
  await client.close();
}

/** A frame's records as they stand in its text; one that comes again must be the same. */
function noteDelivered(
  history: History,
  text: string,
  frame: { partition: number; records: { offset: number }[] },
) {
  const array = text.slice(text.indexOf('"records":[') + '"records":['.length, text.lastIndexOf('],"next":'));
  const records = array.split(/,(?=\{"offset":\d+,"timestamp":)/);
  expect(records).toHaveLength(frame.records.length);
  for (const [index, record] of records.entries()) {
    const offset = frame.records[index]?.offset ?? Number.NaN;
    const before = history.delivered[frame.partition]?.get(offset);
    if (before !== undefined) expect(record).toBe(before);
    history.delivered[frame.partition]?.set(offset, record);
  }
}

// ── compare ──────────────────────────────────────────────────────────────────────────────────────────────

function compareWithFile(history: History, written: ReadonlySet<number>): void {
  const expected = expectedLines(history, written);
  for (const [partition, delivered] of history.delivered.entries()) {
    const offsets = [...delivered.keys()].sort((a, b) => a - b);
    expect(offsets).toEqual(offsets.map((_, index) => index));
    for (const [offset, record] of delivered) {
      const line = expected[partition]?.get(offset) ?? "";
      const { timestamp } = JSON.parse(record);
      const key = JSON.stringify(networkOf(line));
      expect(record).toBe(`{"offset":${offset},"timestamp":${timestamp},"key":${key},"value":${line}}`);
    }
    expect(history.ackedOffsets[partition]).toBe(delivered.size);
  }
}

/** By partition and offset. Answered bodies stand where their runs say; written ones without an answer in the gaps. */
function expectedLines(history: History, written: ReadonlySet<number>): readonly Map<number, string>[] {
  const expected = Array.from({ length: PARTITION_COUNT }, () => new Map<number, string>());
  for (const [body, runs] of history.runsByBody) placeRuns(expected, bodies[body] ?? [], runs);
  const orders = permutationsOf([...written]);
  const fitting = orders.find((order) => {
    const trial = expected.map((places) => new Map(places));
    for (const body of order) placeInGaps(trial, bodies[body] ?? []);
    return trial.every((places, partition) => hasValues(history.delivered[partition], places));
  });
  expect(fitting).toBeDefined();
  for (const body of fitting ?? []) placeInGaps(expected, bodies[body] ?? []);
  return expected;
}

function placeRuns(
  expected: readonly Map<number, string>[],
  body: readonly string[],
  runs: readonly Run[],
): void {
  let index = 0;
  for (const { partition, offset, count } of runs) {
    for (let at = offset; at < offset + count; at += 1) {
      const line = body[index++] ?? "";
      expect(partition).toBe(partitionOfLine(line));
      expect(expected[partition]?.has(at)).toBe(false); // no offset is given twice
      expected[partition]?.set(at, line);
    }
  }
  expect(index).toBe(body.length);
}

function placeInGaps(expected: readonly Map<number, string>[], body: readonly string[]): void {
  const nextGaps = expected.map(() => 0);
  for (const line of body) {
    const partition = partitionOfLine(line);
    const places = expected[partition];
    let gap = nextGaps[partition] ?? 0;
    while (places?.has(gap)) gap += 1;
    places?.set(gap, line);
    nextGaps[partition] = gap + 1;
  }
}

function hasValues(
  delivered: ReadonlyMap<number, string> | undefined,
  places: ReadonlyMap<number, string>,
): boolean {
  return [...places].every(([offset, line]) => delivered?.get(offset)?.endsWith(`"value":${line}}`) ?? false);
}

function permutationsOf(items: readonly number[]): readonly (readonly number[])[] {
  if (items.length === 0) return [[]];
  return items.flatMap((item) =>
    permutationsOf(items.filter((other) => other !== item)).map((rest) => [item, ...rest]),
  );
}
