// A program that uses the client library, as Bun, Deno and Node 24 run it without a build. It does what lines on its
// standard input say and writes a journal on its standard output, synchronously: what a handler has returned from is in
// the journal, whenever the process is killed.

import { writeSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { setImmediate as nextTurn } from "node:timers/promises";
import {
  type Batch,
  type Client,
  type Consumer,
  connect,
  type PlacedRecord,
  type Reader,
  TidemarkError,
} from "../../clients/typescript/client.ts";
import type { ReaderEvents } from "../../clients/typescript/reader.ts";
import {
  type Command,
  type ConsumeCommand,
  type Failure,
  type ProduceCommand,
  type ReadCommand,
  type Said,
  SEND_RECORDS,
} from "./worker-messages.ts";

/** A consumer or reader, and what its loop waits for. */
interface Loop {
  readonly source: Consumer | Reader;
  readonly gate: Gate;
  done: Promise<void>;
  inHand: Batch | undefined;
}

/** What consumers and readers tell alike. */
interface Listenable {
  readonly on: <Name extends keyof ReaderEvents>(
    name: Name,
    listener: (event: ReaderEvents[Name]) => void,
  ) => void;
}

interface Gate {
  open: () => void;
  readonly passed: Promise<void>;
}

const SENDS_AT_ONCE = 8;
const loops = new Map<string, Loop>();

function say(said: Said): void {
  let rest = Buffer.from(`${JSON.stringify(said)}\n`);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      if ((error as { code?: string }).code !== "EAGAIN") throw error; // the pipe is full: whoever reads is slower
    }
  }
}

function failureOf(error: unknown): Failure {
  if (!(error instanceof TidemarkError))
    return { name: "", code: "", retriable: false, message: String(error) };
  const { name, code, retriable, message } = error;
  return { name, code, retriable, message };
}

function createGate(isClosed: boolean): Gate {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (!isClosed) resolve();
  return { open: resolve, passed: promise };
}

function loopOf(name: string): Loop {
  const loop = loops.get(name);
  if (!loop) throw new Error(`there is no loop ${name}`);
  return loop;
}

function startLoop(
  { name, isGated = false }: ConsumeCommand | ReadCommand,
  source: Consumer | Reader,
  work: (loop: Loop) => Promise<void>,
): void {
  const loop: Loop = { source, gate: createGate(isGated), done: Promise.resolve(), inHand: undefined };
  loops.set(name, loop);
  loop.done = work(loop).then(
    () => say({ type: "done", name }),
    (error) => say({ type: "done", name, error: failureOf(error) }),
  );
}

function listenTo(name: string, { on }: Listenable): void {
  on("assigned", ({ partitions }) => say({ type: "assigned", name, partitions }));
  on("lost", ({ partition, error: { code, message } }) =>
    say({ type: "lost", name, partition, code, message }),
  );
  on("trouble", ({ code, message }) => say({ type: "trouble", code, message }));
}

function consume(client: Client, command: ConsumeCommand): void {
  const { name, topics, options, as } = command;
  const consumer = client.consume(topics, options);
  consumer.on("revoked", ({ partitions }) =>
    say({ type: "revoked", name, partitions: partitions.map(({ partition }) => partition) }),
  );
  listenTo(name, { on: (type, listener) => consumer.on(type, listener) });
  startLoop(command, consumer, (loop) => {
    if (as === "run") return run(consumer, command, loop);
    return as === "batches" ? goThrough(consumer, command, loop) : goOneByOne(consumer, command, loop);
  });
}

function read(client: Client, command: ReadCommand): void {
  const reader = client.read(command.topics, command.options);
  listenTo(command.name, { on: (type, listener) => reader.on(type, listener) });
  startLoop(command, reader, (loop) => goThrough(reader, command, loop));
}

function run(
  consumer: Consumer,
  { name, throwsEvery, isGated }: ConsumeCommand,
  { gate }: Loop,
): Promise<void> {
  return consumer.run(async (record, { batch }) => {
    const { partition, offset } = record;
    if (isGated) {
      say({ type: "begun", name, topicId: batch.topicId, partition, offset, generation: batch.generation });
      await gate.passed;
    }
    if (throwsEvery !== undefined && offset % throwsEvery === 0) {
      say({ type: "thrown", name, partition, offset });
      throw new Error(`offset ${offset} is not for me`);
    }
    await nextTurn(); // as a handler that does something: the connection may be lost meanwhile
    journal(name, batch, record);
  });
}

async function goThrough(
  source: Consumer | Reader,
  command: ConsumeCommand | ReadCommand,
  loop: Loop,
): Promise<void> {
  const { name, isGated, breaksAtBatch } = command;
  let batches = 0;
  for await (const batch of source) {
    batches += 1;
    loop.inHand = batch;
    const { topicId, partition, generation, next, records } = batch;
    if (isGated) {
      say({ type: "begun", name, topicId, partition, generation, offset: records[0]?.offset ?? next });
      await loop.gate.passed;
    }
    for (const record of records) journal(name, batch, record);
    if (batches === breaksAtBatch) break;
    if (command.do !== "consume" || !command.acksByHand) continue;
    const error = await batch.ack().then(
      () => undefined,
      (reason) => reason,
    );
    // Lost meanwhile: another tenure gets the records.
    if (error) say({ type: "trouble", ...failureOf(error) });
    else say({ type: "acked", name, topicId, partition, next });
  }
}

async function goOneByOne(
  consumer: Consumer,
  { name, isGated }: ConsumeCommand,
  { gate }: Loop,
): Promise<void> {
  for await (const record of consumer.records()) {
    const owned = consumer.partitions.find(({ partition }) => partition === record.partition);
    const { topicId = -1, generation = -1 } = owned ?? {};
    if (isGated) await gate.passed;
    journal(name, { topicId, generation, partition: record.partition }, record);
  }
}

function journal(
  name: string,
  { topicId, partition, generation }: Pick<Batch, "topicId" | "partition" | "generation">,
  { offset, value }: Pick<PlacedRecord, "offset" | "value">,
): void {
  say({ type: "handled", name, topicId, partition, offset, generation, value: Number(value) });
}

/** Some sends at once, as applications do; what is sent in this order stands in this order. */
async function produce(client: Client, { name, topic, from, to }: ProduceCommand): Promise<void> {
  const underWay = new Set<Promise<void>>();
  for (let first = from; first < to; first += SEND_RECORDS) {
    const end = Math.min(first + SEND_RECORDS, to);
    const records = Array.from({ length: end - first }, (_, n) => ({
      value: first + n,
      partition: (first + n) % 4,
    }));
    const sent = client.produce(topic, records).then(() => {
      underWay.delete(sent);
      say({ type: "produced", name, to: end });
    });
    underWay.add(sent);
    if (underWay.size >= SENDS_AT_ONCE) await Promise.race(underWay);
  }
  await Promise.all(underWay);
}

function cursorOf(name: string): void {
  const { source } = loopOf(name);
  if (!("cursor" in source)) throw new Error(`${name} is not a reader`);
  say({ type: "cursor", name, cursor: source.cursor() });
}

async function close(name: string): Promise<void> {
  const { source, done, gate } = loopOf(name);
  const closed = source.close();
  gate.open();
  await closed;
  await done;
}

async function perform(client: Client, command: Command): Promise<void> {
  switch (command.do) {
    case "consume":
      return consume(client, command);
    case "read":
      return read(client, command);
    case "produce":
      return produce(client, command);
    case "open":
      return loopOf(command.name).gate.open();
    case "ack":
      return loopOf(command.name).inHand?.ack();
    case "seek": {
      const { name, partition, offset } = command;
      const { source } = loopOf(name);
      const [topic = ""] = "partitions" in source ? source.partitions.map((each) => each.topic) : [];
      return source.seek({ topic, partition, to: { offset } });
    }
    case "cursor":
      return cursorOf(command.name);
    case "close":
      return close(command.name);
    case "closeClient":
      return client.close();
  }
}

function start(url: string): Client {
  const client = connect({ url });
  client.on("status", (status) => say({ type: "status", status }));
  client.on("trouble", ({ code, message }) => say({ type: "trouble", code, message }));
  client.on("end", (error) => say({ type: "end", error: failureOf(error) }));
  return client;
}

/** Each command by itself: the next one does not wait for it. */
async function answer(client: Client, command: Command): Promise<void> {
  const named = "name" in command ? { name: command.name } : {};
  try {
    await perform(client, command);
    say({ type: "answered", to: command.do, ...named });
  } catch (error) {
    say({ type: "answered", to: command.do, ...named, error: failureOf(error) });
  }
}

try {
  const client = start(process.argv[2] ?? "");
  for await (const line of createInterface({ input: process.stdin })) void answer(client, JSON.parse(line));
  process.exit(0);
} catch (error) {
  say({ type: "end", error: failureOf(error) });
}
