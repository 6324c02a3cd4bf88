// Everybody who uses the server while the power goes, and what they do when it is back.

import { HttpClient } from "../support/http-client.ts";
import { StreamClient } from "../support/stream-client.ts";
import { AckingConsumer, CopyingConsumer, type CopyState } from "./consumers.ts";
import type { FrameClient, Journal, Send } from "./journal.ts";
import { readEnds, readLogs, takeSnapshot } from "./observer.ts";
import { HttpProducer, SocketProducer } from "./producers.ts";

export interface Sizes {
  readonly recordsMax: number;
  readonly valueBytesMax: number;
}

const PARTITIONS = 3;
export const ORDERS = "orders";
export const COPIES = "copies";

export class Load {
  readonly #journal: Journal;
  readonly #socketProducers: readonly SocketProducer[];
  readonly #httpProducers: readonly HttpProducer[];
  readonly #copyState: CopyState = { sequence: 0, unanswered: undefined };
  readonly #ended: Promise<unknown>[] = [];

  constructor(journal: Journal, { random, sizes }: { random: () => number; sizes: Sizes }) {
    this.#journal = journal;
    const options = { topic: ORDERS, partitionCount: PARTITIONS, random, ...sizes };
    const idempotent = (id: string) => ({ ...options, id, isIdempotent: true });
    const plain = (id: string) => ({ ...options, id, isIdempotent: false });
    this.#socketProducers = [new SocketProducer(journal, idempotent("socket"))];
    this.#httpProducers = [idempotent("http"), plain("plain-1"), plain("plain-2")].map(
      (each) => new HttpProducer(journal, each),
    );
  }

  /** Resolves when everybody is at work. */
  async start(url: string): Promise<void> {
    const http = new HttpClient({ url });
    await http.createTopic(ORDERS, PARTITIONS);
    await http.createTopic(COPIES);
    const { copying, acking } = await this.#consume(url);
    await this.#journal.until(
      () => copying.partitionsOwned === PARTITIONS && acking.partitionsOwned === PARTITIONS + 1,
      "the groups have their partitions",
    );
    await takeSnapshot(url, this.#journal);
    for (const producer of this.#socketProducers)
      await this.#connect(url, producer, { begin: (send) => producer.start(send) });
    this.#ended.push(...this.#httpProducers.map((producer) => producer.runUntilCut(url)));
  }

  /** When the server is gone: all that was still answered is in the journal then. */
  async ended(): Promise<void> {
    await Promise.all(this.#ended.splice(0));
  }

  /** What was not answered is sent again, and everything is consumed to its end. Resolves to what was in the way. */
  async finish(url: string): Promise<readonly string[]> {
    await takeSnapshot(url, this.#journal);
    const failures: string[] = [];
    await this.#settle(url).catch((error: unknown) => failures.push(String(error)));
    for (const log of await readLogs(url)) this.#journal.add(log);
    return failures;
  }

  async #settle(url: string): Promise<void> {
    for (const producer of this.#socketProducers) {
      await this.#connect(url, producer, { begin: (send) => producer.finish(send) });
      await this.#journal.until(() => producer.isDone, "what was not answered is answered");
    }
    for (const producer of this.#httpProducers) await producer.finish(url);
    const { copying, acking } = await this.#consume(url);
    const orders = await readEnds(url, [ORDERS]);
    await this.#journal.until(() => copying.hasCommitted(orders), "all is copied");
    const all = await readEnds(url, [ORDERS, COPIES]);
    await this.#journal.until(() => acking.hasCommitted(all), "all is acknowledged");
    await takeSnapshot(url, this.#journal);
    const groups = [copying, acking].map(({ group, topics }) => ({ group, topics }));
    this.#journal.add({ type: "settled", groups });
  }

  async #consume(url: string) {
    const [state, target] = [this.#copyState, COPIES];
    const copying = new CopyingConsumer(this.#journal, { group: "copying", topics: [ORDERS], target, state });
    const acking = new AckingConsumer(this.#journal, { group: "acking", topics: [ORDERS, COPIES] });
    for (const consumer of [copying, acking]) {
      const onEnd = () => this.#journal.add({ type: "ended", consumer: consumer.name });
      await this.#connect(url, consumer, { begin: (send) => consumer.start(send), onEnd });
    }
    return { copying, acking };
  }

  async #connect(url: string, client: FrameClient, { begin, onEnd }: Conversation): Promise<void> {
    const stream = await StreamClient.open(`${url.replace("http", "ws")}/v1/stream`);
    const send: Send = (frame) => stream.send(frame);
    begin(send);
    this.#ended.push(serve(stream, { client, send }).then(onEnd));
  }
}

interface Conversation {
  readonly begin: (send: Send) => void;
  readonly onEnd?: () => void;
}

/** Until the socket has closed and all that came before is read. */
async function serve(
  stream: StreamClient,
  { client, send }: { client: FrameClient; send: Send },
): Promise<void> {
  for (;;) {
    const frame = await stream.next().catch(() => undefined);
    if (frame === undefined) return;
    client.onFrame(frame, send);
  }
}
