// bun run bench:groups: what groups cost, on a local file and with two servers on a real sqld (durable, as its operator
// should run it). Every server, sqld and this client are processes of their own; times are from the client's request to
// the frame that shows the effect.

import { join } from "node:path";
import { startServer, type TestServer, temporaryFolder } from "../test/support/server.ts";
import { HAS_SQLD, startSqld } from "../test/support/sqld.ts";

const ROUNDS = 20;
const GROUPS = 1_000;
const MEMBERS = 100;
const LATENCY_RECORDS = 500;
const CRASH_ROUNDS = 3;

interface Frame {
  readonly type: string;
  readonly partitions?: readonly { readonly partition: number }[];
  readonly records?: readonly { readonly value: unknown }[];
  readonly topic: string;
  readonly partition: number;
  readonly generation: number;
  readonly next: number;
}

/** A member that acknowledges all it gets. */
class Member {
  readonly owned = new Set<number>();
  onFrame: (frame: Frame) => void = () => {};
  readonly #socket: WebSocket;

  constructor({ streamUrl }: TestServer, subscribe: Readonly<Record<string, unknown>>) {
    this.#socket = new WebSocket(streamUrl);
    this.#socket.onopen = () => this.#send({ type: "subscribe", ...subscribe });
    this.#socket.onmessage = ({ data }) => this.#receive(JSON.parse(String(data)));
  }

  until(isMet: (frame: Frame) => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.onFrame = (frame) => isMet(frame) && resolve();
    });
  }

  close(): void {
    this.#socket.close();
  }

  #send(frame: object): void {
    this.#socket.send(JSON.stringify(frame));
  }

  #receive(frame: Frame): void {
    if (frame.type === "ping") this.#send({ type: "pong" });
    if (frame.type === "assigned")
      for (const { partition } of frame.partitions ?? []) this.owned.add(partition);
    if (frame.type === "revoked")
      for (const { partition } of frame.partitions ?? []) this.owned.delete(partition);
    if (frame.type === "records") {
      const { topic, partition, generation, next: offset } = frame;
      this.#send({ type: "ack", offsets: [{ topic, partition, generation, offset }] });
    }
    this.onFrame(frame);
  }
}

const results: string[] = [];
const note = (place: string, what: string, value: string) => {
  results.push(`| ${what} | ${place} | ${value} |`);
  console.error(`${place}: ${what}: ${value}`);
};

await onFile();
if (HAS_SQLD) await onSqld();
else console.error("no sqld for this platform: only the local file is measured");
console.log("| what | where | ms: median (max) |");
console.log("|---|---|---|");
for (const line of results) console.log(line);

async function onFile(): Promise<void> {
  using folder = temporaryFolder();
  await using server = await startServer(join(folder.path, "bench.db"));
  await measure("file", [server]);
}

async function onSqld(): Promise<void> {
  await using sqld = await startSqld();
  await using first = await startServer(sqld.url);
  await using second = await startServer(sqld.url);
  await measure("sqld, 2 servers", [first, second]);
  await measureCrossing(first, second);
  await measureCrash(sqld.url, second);
}

async function measure(place: string, servers: readonly TestServer[]): Promise<void> {
  const [first] = servers;
  const serverOf = (index: number) => servers[index % servers.length] as TestServer; // there is at least one
  if (!first) return;
  note(
    place,
    "clean leave → the other member has the partition",
    summary(await takeovers(serverOf(0), serverOf(1))),
  );
  const gaps = await gapsAtJoins(serverOf(0), serverOf(1));
  note(place, "gap in a partition that stays, while a member joins or leaves", summary(gaps.atJoins));
  note(place, "the longest of 100 ms without", summary(gaps.between));
  note(place, `${GROUPS} groups of one member, all assigned`, await manyGroups(serverOf));
  note(
    place,
    `${MEMBERS} members of one group on ${MEMBERS} partitions, one each`,
    await manyMembers(serverOf),
  );
}

async function createTopic({ url }: TestServer, topic: string, partitionCount: number): Promise<void> {
  await fetch(`${url}/v1/topics/${topic}`, { method: "PUT", body: JSON.stringify({ partitionCount }) });
}

async function produce({ url }: TestServer, topic: string, records: readonly object[]): Promise<void> {
  const body = JSON.stringify({ records });
  const response = await fetch(`${url}/v1/topics/${topic}/records`, { method: "POST", body });
  if (!response.ok) throw new Error(await response.text());
}

async function takeovers(one: TestServer, other: TestServer): Promise<readonly number[]> {
  await createTopic(one, "takeover", 1);
  const times: number[] = [];
  let owner = new Member(one, { topics: ["takeover"], group: "takeover" });
  await owner.until(({ type }) => type === "assigned");
  for (let round = 0; round < ROUNDS; round += 1) {
    const next = new Member(round % 2 === 0 ? other : one, { topics: ["takeover"], group: "takeover" });
    await next.until(({ type }) => type === "assigned"); // empty: it waits
    const taken = next.until(({ type, partitions }) => type === "assigned" && partitions?.length === 1);
    const startMs = performance.now();
    owner.close();
    await taken;
    times.push(performance.now() - startMs);
    owner = next;
  }
  owner.close();
  return times;
}

/** One record after the other to a partition that never moves: how long it takes to come, in the worst case of a time. */
async function gapsAtJoins(one: TestServer, other: TestServer) {
  await createTopic(one, "gaps", 4);
  const owner = new Member(one, { topics: ["gaps"], group: "gaps" });
  await owner.until(({ type }) => type === "assigned");
  const delivered = async () => {
    const came = owner.until(({ type, partition }) => type === "records" && partition === 0);
    const startMs = performance.now();
    await produce(one, "gaps", [{ value: 1, partition: 0 }]);
    await came;
    return performance.now() - startMs;
  };
  const worstUntil = async (isOver: () => boolean) => {
    let worst = await delivered();
    while (!isOver()) worst = Math.max(worst, await delivered());
    return worst;
  };
  const between: number[] = [];
  const atJoins: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const endMs = performance.now() + 100;
    between.push(await worstUntil(() => performance.now() > endMs));
    const joining = new Member(other, { topics: ["gaps"], group: "gaps" });
    atJoins.push(await worstUntil(() => joining.owned.size === 2 && owner.owned.size === 2));
    joining.close();
    atJoins.push(await worstUntil(() => owner.owned.size === 4));
  }
  owner.close();
  return { atJoins, between };
}

async function manyGroups(serverOf: (index: number) => TestServer): Promise<string> {
  await createTopic(serverOf(0), "groups", 1);
  return allAssigned(
    GROUPS,
    (index) => new Member(serverOf(index), { topics: ["groups"], group: `g${index}` }),
  );
}

async function manyMembers(serverOf: (index: number) => TestServer): Promise<string> {
  await createTopic(serverOf(0), "members", MEMBERS);
  return allAssigned(
    MEMBERS,
    (index) => new Member(serverOf(index), { topics: ["members"], group: "members" }),
  );
}

/** From the first socket that is opened until every member owns exactly one partition. */
async function allAssigned(count: number, join: (index: number) => Member): Promise<string> {
  const times: number[] = [];
  for (let round = 0; round < 3; round += 1) {
    const startMs = performance.now();
    const members = Array.from({ length: count }, (_, index) => join(index));
    await new Promise<void>((resolve) => {
      const look = () => members.every(({ owned }) => owned.size === 1) && resolve();
      for (const member of members) member.onFrame = ({ type }) => type === "assigned" && look();
    });
    times.push(performance.now() - startMs);
    for (const member of members) member.close();
    await Bun.sleep(1_000);
  }
  return summary(times);
}

async function measureCrossing(producing: TestServer, consuming: TestServer): Promise<void> {
  await createTopic(producing, "crossing", 1);
  for (const [what, pauseMs] of [
    ["append on one server → delivered by the other, 100 records/s", 10],
    ["the same, one record after 0–500 ms of silence", 500],
  ] as const) {
    const member = new Member(consuming, {
      topics: ["crossing"],
      group: `crossing ${pauseMs}`.replace(" ", "-"),
      reset: "latest",
    });
    await member.until(({ type }) => type === "assigned");
    const times: number[] = [];
    for (let sent = 0; sent < (pauseMs > 100 ? LATENCY_RECORDS / 5 : LATENCY_RECORDS); sent += 1) {
      await Bun.sleep(pauseMs > 100 ? Math.random() * pauseMs : pauseMs);
      const came = member.until(({ type }) => type === "records");
      await produce(producing, "crossing", [{ value: sent }]);
      const startMs = performance.now(); // it is durable, and the producer knows it
      await came;
      times.push(performance.now() - startMs);
    }
    member.close();
    note(
      "sqld, 2 servers",
      what,
      `${summary(times)}, p99 ${times.sort((a, b) => a - b)[Math.floor(times.length * 0.99)]?.toFixed(0)}`,
    );
  }
}

async function measureCrash(url: string, survivor: TestServer): Promise<void> {
  const times: number[] = [];
  await createTopic(survivor, "crash", 1);
  for (let round = 0; round < CRASH_ROUNDS; round += 1) {
    await using dying = await startServer(url);
    const group = `crash-${round}`;
    const owner = new Member(dying, { topics: ["crash"], group });
    await owner.until(({ type }) => type === "assigned");
    const next = new Member(survivor, { topics: ["crash"], group });
    await next.until(({ type }) => type === "assigned");
    const taken = next.until(({ type, partitions }) => type === "assigned" && partitions?.length === 1);
    const startMs = performance.now();
    await dying.kill("SIGKILL");
    await taken;
    times.push(performance.now() - startMs);
    next.close();
  }
  note(
    "sqld, 2 servers",
    "kill -9 of a server → the other has its partitions (process lease 10,000)",
    summary(times),
  );
}

function summary(times: readonly number[]): string {
  const sorted = [...times].sort((a, b) => a - b);
  return `${sorted[Math.floor(sorted.length / 2)]?.toFixed(1)} (${sorted.at(-1)?.toFixed(1)})`;
}
