// NATS JetStream: a stream on file storage, async publishing, a durable pull consumer.

import {
  AckPolicy,
  type Consumer,
  type JetStreamClient,
  type JetStreamManager,
  jetstream,
  StorageType,
} from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { BATCH_RECORDS, type Input, inLanes, LANES, rateOf, SINGLE_CLIENTS } from "./input.ts";
import {
  checkReceived,
  findProgram,
  packageVersion,
  programVersion,
  type Quake,
  roundStreams,
  startPeer,
} from "./peer.ts";
import type { Missing, Subject, Trial } from "./subject.ts";

const NAME = "NATS JetStream";
/** What the consumer asks for ahead; with the defaults (100 there, 1,000 unacknowledged) it would often stand still. */
const AHEAD_MESSAGES = 10_000;
const UNACKNOWLEDGED_MAX = 2 * AHEAD_MESSAGES;
const ACK_EVERY = 500;
const CONSUME_LIMIT_MS = 60_000;
const LISTEN = ["--addr", "127.0.0.1", "--port", "-1"];

export async function startNats(input: Input): Promise<Subject | Missing> {
  const program = findProgram("nats-server");
  if (program === null) {
    return { name: NAME, missing: "nats-server is not installed: apt-get install nats-server" };
  }
  await using stack = new AsyncDisposableStack();
  const { pid, announced } = stack.use(await startServer(program));
  const [, servers = ""] = announced;
  const connections = await Promise.all(Array.from({ length: LANES }, () => connect({ servers })));
  for (const connection of connections) stack.defer(() => connection.close());
  const clients = connections.map((connection) => jetstream(connection));
  const trials = await trialsOf(input, clients);
  const version = await versions(program);
  const started = stack.move();
  return {
    name: NAME,
    version,
    durability: "written to the file, not fsynced (nats-server does that every two minutes)",
    trials,
    pid,
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  };
}

function startServer(program: string) {
  return startPeer({
    // Port -1: any that is free.
    command: (folder) => [program, "--jetstream", "--store_dir", folder, ...LISTEN],
    logsTo: "stderr",
    ready: /client connections on (\S+)\n[\s\S]*Server is ready/,
  });
}

async function versions(program: string): Promise<string> {
  const server = await programVersion(program, "nats-server");
  return `${server}, ${await packageVersion("@nats-io/jetstream")} on ${await packageVersion("@nats-io/transport-node")}`;
}

async function trialsOf(input: Input, clients: readonly JetStreamClient[]): Promise<readonly Trial[]> {
  const client = clientOf(clients, 0);
  const manager = await client.jetstreamManager();
  const streams = roundStreams({
    create: (round) => addStream(manager, streamOf(round)),
    fill: (round) => publishBatches(input, clients, streamOf(round)),
    remove: (round) => manager.streams.delete(streamOf(round)),
  });
  const produce: Trial = {
    workload: "produce",
    path: `js.publish() of ${BATCH_RECORDS}, then all their acks; ${LANES} lanes, a connection each`,
    prepare: streams.renew,
    run: (round) => rateOf(input.values.length, () => streams.fill(round)),
  };
  const consume = (how: Consuming): Trial => ({
    workload: "consume",
    path: how.path,
    prepare: async (round) => {
      await streams.ensureFilled(round);
      await addConsumer(manager, streamOf(round), how.policy);
    },
    run: async (round) => consumeAll(input, await client.consumers.get(streamOf(round), how.policy), how),
  });
  return [produce, singleTrial(input, client, manager), consume(ACK_EACH), consume(ACK_ALL)];
}

function streamOf(round: number): string {
  return `quakes-${round}`;
}

function clientOf(clients: readonly JetStreamClient[], lane: number): JetStreamClient {
  return clients[lane] as JetStreamClient; // a lane is below LANES
}

/** It has one subject, of the same name. */
async function addStream(manager: JetStreamManager, name: string): Promise<void> {
  await manager.streams.add({ name, subjects: [name], storage: StorageType.File });
}

function publishBatches(
  { batches }: Input,
  clients: readonly JetStreamClient[],
  stream: string,
): Promise<void> {
  return inLanes(LANES, batches, async (batch, lane) => {
    const client = clientOf(clients, lane);
    await Promise.all(batch.map((value) => client.publish(stream, value)));
  });
}

/** All on one connection: it takes two to three times as many as a connection each. */
function singleTrial({ values, singles }: Input, client: JetStreamClient, manager: JetStreamManager): Trial {
  const name = (round: number) => `singles-${round}`;
  const publish = async (value: string, round: number) => void (await client.publish(name(round), value));
  return {
    workload: "single",
    path: `js.publish(), ${SINGLE_CLIENTS} publishers on one connection`,
    prepare: (round) => addStream(manager, name(round)),
    run: async (round) => {
      const records = values.slice(0, singles);
      const publishAll = () => inLanes(SINGLE_CLIENTS, records, (value) => publish(value, round));
      const figures = await rateOf(records.length, publishAll);
      await manager.streams.delete(name(round));
      return figures;
    },
  };
}

// ── consume ──────────────────────────────────────────────────────────────────────────────────────────────

interface Consuming {
  readonly path: string;
  readonly policy: AckPolicy;
  /** Pushes the ids of `count` records; the ack of the last one is confirmed, and with it those before it. */
  readonly receive: (consumer: Consumer, count: number, ids: string[]) => Promise<void>;
}

const ACK_EACH: Consuming = {
  path: "durable pull consumer, consume() with a callback, an ack a message",
  policy: AckPolicy.Explicit,
  receive: receiveByCallback,
};

const ACK_ALL: Consuming = {
  path: `durable pull consumer, consume() as an iterator, AckPolicy.All, an ack every ${ACK_EVERY} messages`,
  policy: AckPolicy.All,
  receive: receiveByIterator,
};

/** The consumer is named for its policy. */
async function addConsumer(manager: JetStreamManager, stream: string, policy: AckPolicy): Promise<void> {
  await manager.consumers.add(stream, {
    durable_name: policy,
    ack_policy: policy,
    max_ack_pending: UNACKNOWLEDGED_MAX,
  });
}

async function consumeAll(input: Input, consumer: Consumer, { receive }: Consuming) {
  const { length } = input.values;
  const ids: string[] = [];
  const figures = await rateOf(length, () => inTime(receive(consumer, length, ids), ids));
  checkReceived(ids, input);
  const { ack_floor, num_ack_pending } = await consumer.info();
  if (ack_floor.stream_seq !== length || num_ack_pending !== 0) {
    throw new Error(`acknowledged up to ${ack_floor.stream_seq} of ${length}, ${num_ack_pending} pending`);
  }
  return figures;
}

/** With an ack a message, more than twice as fast as the iterator. */
async function receiveByCallback(consumer: Consumer, count: number, ids: string[]): Promise<void> {
  const { promise: isLastAcked, resolve, reject } = Promise.withResolvers<boolean>();
  const messages = await consumer.consume({
    max_messages: AHEAD_MESSAGES,
    callback: (message) => {
      ids.push(message.json<Quake>().id);
      if (ids.length < count) message.ack();
      else message.ackAck().then(resolve, reject);
    },
  });
  await isLastAcked;
  messages.stop();
}

/** With few acks, a little faster than a callback. */
async function receiveByIterator(consumer: Consumer, count: number, ids: string[]): Promise<void> {
  for await (const message of await consumer.consume({ max_messages: AHEAD_MESSAGES })) {
    ids.push(message.json<Quake>().id);
    if (ids.length === count) {
      await message.ackAck();
      break;
    }
    if (ids.length % ACK_EVERY === 0) message.ack();
  }
}

/** A message that is lost would be waited for without end. */
async function inTime(receiving: Promise<void>, ids: readonly string[]): Promise<void> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`stopped after ${ids.length} messages`)), CONSUME_LIMIT_MS);
  try {
    await Promise.race([receiving, promise]);
  } finally {
    clearTimeout(timer);
  }
}
