// A hundred thousand frames over real sockets to a real server. Whatever is said, each id has one answer, each bad frame
// closes its own socket, and a consumer beside all that gets every record at once.

import { Database } from "bun:sqlite";
import { afterAll, beforeAll, expect, test } from "bun:test";
import { parseClientFrame } from "../../src/core/client-frame.ts";
import { CLIENT_FRAME_BYTES_MAX } from "../../src/protocol/limits.ts";
import { Dice } from "../support/dice.ts";
import { isLongRun } from "../support/long.ts";
import { frameBytes, OPCODE, RawSocket } from "../support/raw-socket.ts";
import { FREE, PRODUCER, WatchedServer } from "../support/watched-server.ts";
import { factsOf } from "./frame-shape.ts";
import { FuzzSocket, HANG_MS } from "./fuzz-socket.ts";
import { type Facts, NO_FACTS } from "./good-frames.ts";
import { MutatedFrames } from "./mutated-frames.ts";
import { RAW_KINDS, type RawFrames, rawFrames } from "./raw-frames.ts";
import { seedOfRun } from "./seed.ts";

const FRAMES = isLongRun ? 100_000 : 3_000;
const TALKS_AT_ONCE = 4;
const FRAMES_A_TALK = 40;
const FRAMES_AT_ONCE_MAX = 8;
/** Topics and groups of their own for so many talks: readers from the beginning are not to read all that was fuzzed. */
const TALKS_A_BLOCK = 16;
const LONG_MS = 1_200_000;
/** A plain run shares its machine with whatever else runs there; the long one measures. */
const SLOWEST_MS = isLongRun ? 1_000 : HANG_MS;

const seed = seedOfRun();
let watched: WatchedServer;

beforeAll(async () => {
  watched = await WatchedServer.start();
});

afterAll(() => watched.stop()); // exit code 0, and no defect in its log

const counts = { total: 0, json: 0, accepted: 0, closed: 0, answers: 0, written: 0, talks: 0 };
const slowestMs = { answer: 0, witness: 0 };

// ── what is said ─────────────────────────────────────────────────────────────────────────────────────────

interface Said {
  readonly text: string;
  readonly id: string | number | undefined;
}

/** Frames for one talk, those that are to be answered apart from those that close. */
class Frames {
  readonly #mutated: MutatedFrames;

  constructor(talkSeed: number) {
    this.#mutated = new MutatedFrames(talkSeed);
  }

  next(facts: Facts): Said & { readonly isBadFrame: boolean } {
    for (;;) {
      const text = this.#mutated.next(facts).toWellFormed(); // as UTF-8 takes it over the wire
      if (Buffer.byteLength(text) > CLIENT_FRAME_BYTES_MAX) continue;
      const { isJson, isBadFrame, id } = factsOf(text);
      counts.total += 1;
      if (isJson) counts.json += 1;
      if ("frame" in parseClientFrame(text)) counts.accepted += 1;
      return { text, id, isBadFrame };
    }
  }
}

/** All that was said last, so that a failure can be read. */
function toldOf(said: readonly Said[]): string {
  return said.map(({ text }) => (text.length > 500 ? `${text.slice(0, 500)}…` : text)).join("\n");
}

// ── one talk ─────────────────────────────────────────────────────────────────────────────────────────────

async function talk(number: number): Promise<void> {
  const talkSeed = seed + number;
  const dice = new Dice(talkSeed);
  const frames = new Frames(talkSeed);
  const block = await blockOf(number);
  const socket = await open();
  const said: Said[] = [];
  const bad: Said[] = [];
  try {
    while (said.length + bad.length < FRAMES_A_TALK) {
      for (let burst = 1 + dice.below(FRAMES_AT_ONCE_MAX); burst > 0; burst -= 1) {
        const { isBadFrame, ...frame } = frames.next({ ...NO_FACTS, ...block, ...socket.facts });
        (isBadFrame ? bad : said).push(frame);
        if (!isBadFrame) socket.send(frame.text, frame.id);
      }
      await socket.untilAnswered();
    }
    await socket.untilWritten(block.topics[0]);
    const [last, ...others] = bad;
    if (last) await closeBy(socket, last);
    else await socket.close();
    await Promise.all(others.map(async (frame) => closeBy(await open(), frame, dice)));
  } catch (error) {
    throw new Error(`SEED=${seed}, talk ${number}: ${String(error)}, after\n${toldOf([...said, ...bad])}`);
  }
  counts.talks += 1;
  counts.answers += socket.answers;
  counts.written += socket.written;
  slowestMs.answer = Math.max(slowestMs.answer, socket.slowestMs);
}

function open(): Promise<FuzzSocket> {
  return FuzzSocket.open(watched.server.streamUrl);
}

/** What comes behind the bad frame is not read any more: it has no answer, and writes nothing. */
async function closeBy(socket: FuzzSocket, { text, id }: Said, dice?: Dice): Promise<void> {
  socket.send(text, id);
  if (dice?.oneIn(4))
    socket.send('{"type":"produce","topic":"orders","records":[{"value":"never"}]}', undefined);
  expect({ text, code: await socket.closed() }).toEqual({ text, code: 4400 });
  expect(socket.lastError).toMatchObject({
    type: "error",
    code: "bad_frame",
    ...(id !== undefined && { id }),
  });
  counts.closed += 1;
}

// ── topics and groups ────────────────────────────────────────────────────────────────────────────────────

interface Block extends Pick<Facts, "groups" | "producers"> {
  readonly topics: readonly [string, string, ...string[]];
}

const blocks = new Map<number, Promise<Block>>();

/** One of its topics is not there. */
async function createBlock(number: number): Promise<Block> {
  const named = (...names: readonly string[]) => names.map((name) => `${FREE}-${name}-${number}`);
  const [orders = "", refunds = ""] = named("orders", "refunds");
  for (const topic of [orders, refunds]) await watched.http.createTopic(topic, NO_FACTS.partitionCount);
  return {
    topics: [orders, refunds, "nowhere"],
    groups: named("billing", "audit"),
    producers: named("p1", "p2"),
  };
}

function blockOf(talkNumber: number): Promise<Block> {
  const number = Math.floor(talkNumber / TALKS_A_BLOCK);
  const block = blocks.get(number) ?? createBlock(number);
  blocks.set(number, block);
  return block;
}

// ── all talks ────────────────────────────────────────────────────────────────────────────────────────────

let looking: Promise<void> = Promise.resolve();

/** That others are served while the other talkers talk. One look at a time. */
function look(): Promise<void> {
  looking = looking.then(async () => {
    const startMs = performance.now();
    await watched.expectNextRecord();
    slowestMs.witness = Math.max(slowestMs.witness, performance.now() - startMs);
    expect((await watched.http.call("GET", "/healthz")).status).toBe(200);
  });
  return looking;
}

async function talkAll(): Promise<void> {
  let talks = 0;
  const talkOn = async () => {
    while (counts.total < FRAMES) {
      talks += 1;
      await talk(talks);
      await look();
    }
  };
  await Promise.all(Array.from({ length: TALKS_AT_ONCE }, talkOn));
}

// ── what is left ─────────────────────────────────────────────────────────────────────────────────────────

function rows(sql: string): readonly unknown[] {
  const database = new Database(watched.server.databasePath, { readonly: true });
  try {
    return database.query(sql).all();
  } finally {
    database.close();
  }
}

const OF_TALKS = `topic LIKE '${FREE}-%'`;
/** Whose counters are not those of its records. */
const UNEVEN_PARTITIONS = `
  SELECT s.topic, s.partition, s.log_start_offset, s.log_end_offset, s.records, count(r.offset) AS found
  FROM partition_stats AS s LEFT JOIN topic_records AS r USING (topic, partition)
  GROUP BY s.topic, s.partition
  HAVING s.records <> count(r.offset) OR s.log_end_offset - s.log_start_offset <> count(r.offset)
      OR (count(r.offset) > 0 AND (min(r.offset) <> s.log_start_offset OR max(r.offset) <> s.log_end_offset - 1))`;
const COMMITTED_OUTSIDE = `
  SELECT * FROM consumer_lag
  WHERE committed_offset < log_start_offset OR committed_offset > log_end_offset
     OR lag <> log_end_offset - max(committed_offset, log_start_offset)`;
const MEMBERS_LEFT = `SELECT * FROM group_members WHERE group_id <> 'witness' AND instance_id IS NULL`;

/** What no frame has named. A producer or a group of another name is one more, and its own. */
function neighbours(): readonly unknown[] {
  return [
    `SELECT * FROM partition_stats WHERE NOT ${OF_TALKS} AND topic <> 'witness' ORDER BY topic, partition`,
    "SELECT * FROM consumer_lag WHERE group_id = 'outside' ORDER BY partition",
    `SELECT * FROM producers WHERE producer_id = '${PRODUCER.id}'`,
  ].map(rows);
}

/** Their sockets are closed; that they have left is written soon after. */
async function untilNobodyIsLeft(): Promise<void> {
  const startMs = performance.now();
  while (rows(MEMBERS_LEFT).length > 0) {
    if (performance.now() - startMs > HANG_MS)
      throw new Error(`members without a socket: ${JSON.stringify(rows(MEMBERS_LEFT))}`);
    await look();
  }
}

test(
  "mutated frames over sockets: each id has one answer, each bad frame closes its socket, and nobody else notices",
  async () => {
    const before = neighbours();
    await talkAll();
    await untilNobodyIsLeft();
    const { total, json, accepted } = counts;
    console.log(`sockets: ${JSON.stringify({ ...counts, slowestMs })}, SEED=${seed}`);
    expect(total).toBeGreaterThanOrEqual(FRAMES);
    expect(json).toBeGreaterThanOrEqual(total / 2);
    expect(accepted).toBeGreaterThanOrEqual(total / 10);
    expect(slowestMs.answer).toBeLessThan(SLOWEST_MS);
    expect(slowestMs.witness).toBeLessThan(SLOWEST_MS);
    expect(neighbours()).toEqual(before);
    expect(watched.server.logged).toBe(""); // nothing was worth a line
    expect(rows(UNEVEN_PARTITIONS)).toEqual([]);
    expect(rows(COMMITTED_OUTSIDE)).toEqual([]);
    expect(rows("SELECT * FROM guard")).toEqual([]);
    expect(rows(`SELECT sum(log_end_offset) AS written FROM partition_stats WHERE ${OF_TALKS}`)).toEqual([
      { written: counts.written },
    ]);
  },
  LONG_MS,
);

// ── below the text ───────────────────────────────────────────────────────────────────────────────────────

const RAW_EACH = isLongRun ? 100 : 3;

/** A member of a group first, so that there is something to let go. */
async function sendRaw(dice: Dice, { bytes, code, answer, what }: RawFrames): Promise<void> {
  const socket = await RawSocket.openSilent(watched.server.streamUrl);
  const subscribe = { type: "subscribe", id: 1, topics: [FREE], group: `${FREE}-raw` };
  await socket.write(frameBytes(OPCODE.text, JSON.stringify(subscribe)));
  const cut = dice.below(bytes.length + 1); // it comes in two pieces, wherever
  await socket.write(bytes.subarray(0, cut));
  await socket.write(bytes.subarray(cut));
  if (code === undefined) socket.end();
  const read = await socket.readToEnd();
  expect({ what, code: read.code }).toEqual({ what, code });
  if (answer !== undefined) expect(read.texts).toContain(answer);
}

test.each(RAW_KINDS)(
  "%s over a socket ends as RFC 6455 and the protocol say, and nobody else notices",
  async (what) => {
    const dice = new Dice(seed);
    for (let sent = 0; sent < RAW_EACH; sent += 1) await sendRaw(dice, rawFrames(dice, what));
    await look();
    await untilNobodyIsLeft();
  },
  LONG_MS,
);
