// Under every order of losses, refusals, repeats and late copies that the dice find: each record that a producer was
// told of is in the log once, where it was told, all or none of its send, in the order of the sends; and of what it was
// told that it was not written, nothing is.

import { expect, test } from "bun:test";
import { TidemarkError } from "../../clients/typescript/errors.ts";
import { Producer } from "../../clients/typescript/producer.ts";
import type { Produced, ProducerOptions } from "../../clients/typescript/producer-options.ts";
import { Dice } from "../support/dice.ts";
import { ProducerWorld, type SentRecord } from "./producer-world.ts";

const SEEDS = 300;
const STEPS = 250;

interface Send {
  readonly number: number;
  readonly topic: string;
  readonly records: readonly SentRecord[];
  outcome?: Produced | TidemarkError;
}

interface Outcome {
  readonly sends: readonly Send[];
  readonly world: ProducerWorld;
}

async function turn(): Promise<void> {
  for (let turns = 0; turns < 10; turns += 1) await null;
}

async function live(seed: number, options: ProducerOptions): Promise<Outcome> {
  const world = new ProducerWorld(new Dice(seed));
  const { dice } = world;
  const producer = new Producer(world.link, world.platform, options);
  const sends: Send[] = [];
  for (let step = 0; step < STEPS; step += 1) {
    dice.weighted<() => void>([
      [6, () => sends.push(startSend(producer, sends.length, dice))],
      [6, () => world.process()],
      [6, () => world.deliver()],
      [2, () => world.advance()],
      [1, () => world.cut()],
      [3, () => world.connect()],
      [2, () => world.processLate()],
      [1, () => makeTrouble(world)],
      [1, () => sends.every(({ outcome }) => outcome) && world.forget()],
    ])();
    if (dice.oneIn(2)) await turn();
  }
  await settle(world, producer);
  return { sends, world };
}

function makeTrouble({ troubles, dice }: ProducerWorld): void {
  troubles.push(
    dice.pick([
      "unavailable",
      "rate_limited",
      "storage_full",
      "outcome_unknown",
      "outcome_unknown",
      "internal",
    ]),
  );
}

function startSend(producer: Producer, number: number, dice: Dice): Send {
  const topic = dice.pick(["a", "b"]);
  const isBad = dice.oneIn(8);
  const records = Array.from({ length: dice.between(1, 4) }, (_, at) => ({
    value: { send: number, ...(isBad && at === 0 && { isBad }) },
  }));
  const send: Send = { number, topic, records };
  const note = (outcome: Produced | TidemarkError) => {
    send.outcome = outcome;
  };
  producer.send(topic, records).then(note, note);
  return send;
}

/** All is well now: whatever is still open comes to its end. */
async function settle(world: ProducerWorld, producer: Producer): Promise<void> {
  world.troubles = [];
  let isClosed = false;
  void producer.close().then(() => {
    isClosed = true;
  });
  for (let step = 0; !isClosed; step += 1) {
    if (step > 10_000) throw new Error("the producer does not come to an end");
    world.connect();
    world.process();
    world.deliver();
    if (world.isIdle) world.advance();
    await turn();
  }
}

function offsetsOf({ topic, number }: Send, { logs }: ProducerWorld): readonly number[] {
  return (logs.get(topic) ?? []).flatMap(({ value }, offset) => (value.send === number ? [offset] : []));
}

function check({ sends, world }: Outcome, isOrdered: boolean): void {
  const lastOffsets = new Map<string, number>();
  for (const send of sends) {
    const { outcome, topic, records } = send;
    const found = offsetsOf(send, world);
    if (outcome === undefined) throw new Error(`send ${send.number} has no outcome`);
    if (outcome instanceof TidemarkError) {
      const allowed = outcome.code === "outcome_unknown" ? [0, records.length] : [0];
      expect(allowed).toContain(found.length);
      continue;
    }
    const [first = -1] = found;
    expect(outcome.runs).toMatchObject([{ partition: 0, offset: first, count: records.length }]);
    expect(found).toEqual(records.map((_, at) => first + at));
    if (isOrdered) expect(first).toBeGreaterThan(lastOffsets.get(topic) ?? -1);
    lastOffsets.set(topic, first);
  }
}

async function checkSeeds(options: ProducerOptions): Promise<ReadonlyMap<string, number>> {
  const seen = new Map<string, number>();
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    const outcome = await live(seed, options);
    try {
      check(outcome, options.idempotent !== false);
    } catch (cause) {
      throw new Error(`seed ${seed}: ${cause}`, { cause });
    }
    for (const [what, count] of outcome.world.seen) seen.set(what, (seen.get(what) ?? 0) + count);
    for (const { outcome: each } of outcome.sends) {
      const what = each instanceof TidemarkError ? `rejected ${each.code}` : "resolved";
      seen.set(what, (seen.get(what) ?? 0) + 1);
    }
  }
  return seen;
}

test("send() writes once and in order, whatever happens on the way", async () => {
  const seen = await checkSeeds({});
  for (const what of ["cut", "late", "duplicate", "sequence_gap", "refused", "forget"])
    expect(seen.get(what) ?? 0).toBeGreaterThan(20);
  expect(seen.get("rejected fenced_producer")).toBeUndefined();
  expect(seen.get("rejected sequence_gap")).toBeUndefined();
  expect(seen.get("rejected conflict")).toBeUndefined();
});

test("send() writes once and in order with a short time to try", async () => {
  const seen = await checkSeeds({ deliveryTimeoutMs: 2_000, inFlight: 16, batchRecords: 6 });
  expect(seen.get("rejected unavailable") ?? 0).toBeGreaterThan(20);
  expect(seen.get("rejected outcome_unknown") ?? 0).toBeGreaterThan(20);
});

test("send() without idempotence writes at most once", async () => {
  const seen = await checkSeeds({ idempotent: false });
  expect(seen.get("rejected outcome_unknown") ?? 0).toBeGreaterThan(20);
  expect(seen.get("sequence_gap")).toBeUndefined();
});
