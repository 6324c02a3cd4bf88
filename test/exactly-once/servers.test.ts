// Written once, wherever it is sent: sequences, epochs, expectations and the loop of consume, transform, produce over the
// servers of one database.

import { expect, test } from "bun:test";
import type { ServerFrame } from "../../src/protocol/frames.ts";
import { Signal } from "../groups/member.ts";
import { describePlaces, type Place } from "../support/cluster.ts";
import { ackOf } from "../support/stage.ts";
import { StreamClient } from "../support/stream-client.ts";

const SERVERS = [0, 1, 2] as const;

describePlaces("of the servers of a database", (place) => {
  /** One record of the producer, by way of that server. */
  function produce(server: number, topic: string, producer: object, more: object = {}) {
    const body = { records: [{ value: producer, partition: 0 }], producer, ...more };
    return place().http(server).call("POST", `/v1/topics/${topic}/records`, body);
  }

  async function logEnd(topic: string): Promise<number> {
    return (await place().http(0).call("GET", `/v1/topics/${topic}`)).body.partitions[0].logEndOffset;
  }

  test("any takes the next sequence, and any answers one that another has written", async () => {
    const [topic, id] = [await place().newTopic(), place().newName("producer")];
    for (let sequence = 0; sequence < 6; sequence += 1) {
      const runs = [{ partition: 0, offset: sequence, count: 1 }];
      const producer = { id, epoch: 0, sequence };
      expect((await produce(sequence, topic, producer)).body).toEqual({ runs });
      for (const server of SERVERS)
        expect((await produce(server, topic, producer)).body).toEqual({ runs, duplicate: true });
    }
    expect(await logEnd(topic)).toBe(6);
  });

  test("one writes a sequence that is sent to all at once", async () => {
    const [topic, id] = [await place().newTopic(), place().newName("producer")];
    for (let sequence = 0; sequence < 10; sequence += 1) {
      const producer = { id, epoch: 0, sequence };
      const answers = await Promise.all(SERVERS.map((server) => produce(server, topic, producer)));
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
      for (const { body } of answers)
        expect(body.runs).toEqual([{ partition: 0, offset: sequence, count: 1 }]);
      expect(answers.filter(({ body }) => body.duplicate !== true)).toHaveLength(1);
    }
    expect(await logEnd(topic)).toBe(10);
  });

  test("every one fences the older epoch, as soon as any has given a newer", async () => {
    const [topic, id] = [await place().newTopic(), place().newName("producer")];
    expect((await produce(0, topic, { id, epoch: 0, sequence: 0 })).status).toBe(200);
    for (const epoch of [1, 2, 3]) {
      const raised = await place().http(epoch).call("POST", `/v1/producers/${id}`);
      expect(raised.body).toEqual({ id, epoch });
      for (const server of SERVERS)
        expect((await produce(server, topic, { id, epoch: epoch - 1, sequence: 1 })).body).toMatchObject({
          code: "fenced_producer",
          found: epoch - 1,
          expected: epoch,
        });
    }
    expect(await logEnd(topic)).toBe(1);
  });

  test("one writes of all that expect the same end", async () => {
    const [topic, id] = [await place().newTopic(), place().newName("producer")];
    for (let end = 0; end < 10; end += 1) {
      const answers = await Promise.all(
        SERVERS.map((server) =>
          produce(
            server,
            topic,
            { id: `${id}-${end}-${server}`, epoch: 0, sequence: 0 },
            {
              expect: [{ partition: 0, logEndOffset: end }],
            },
          ),
        ),
      );
      expect(answers.map(({ status }) => status).toSorted()).toEqual([200, 409, 409]);
    }
    expect(await logEnd(topic)).toBe(10);
  });

  test("whose workers come, go and are taken over, each record is transformed and produced once", async () => {
    const [partitionCount, records] = [3, 100];
    const source = await place().newTopic({ partitionCount, records });
    const [output, group] = [await place().newTopic(), place().newGroup()];
    const signal = new Signal();
    const read = { records: 0 };
    void countRecords(await readerOf(place(), output), read, signal);
    const workers: Worker[] = [];
    const join = async (server: number, fields: object = {}) =>
      workers.push(await Worker.join(place(), server, { source, output, group, fields }));
    const untilWritten = (count: number) =>
      signal.until(
        () => read.records >= count,
        () => `${read.records} of ${count} are written`,
        15_000,
      );

    await join(0, { instanceId: "stays" });
    await untilWritten(30);
    await join(1);
    await untilWritten(80);
    await join(2, { instanceId: "stays" }); // what the first still sends is fenced
    await untilWritten(120);
    await workers[1]?.close(); // with records in hand
    await join(1);
    await untilWritten(180);
    await join(0, { instanceId: "stays" });
    await untilWritten(220);
    await workers[3]?.close();
    await untilWritten(partitionCount * records);

    const path = `/v1/topics/${output}/partitions/0/records?limit=10000`;
    const { body } = await place().http(1).call("GET", path);
    const values: string[] = body.records.map(({ value }: { value: string }) => value);
    const all = [0, 1, 2].flatMap((partition) =>
      Array.from({ length: records }, (_, offset) => `${partition}/${offset}`),
    );
    expect(values.toSorted()).toEqual(all.toSorted());
    for (const partition of [0, 1, 2])
      expect(values.filter((value) => value.startsWith(`${partition}/`))).toEqual(
        all.filter((value) => value.startsWith(`${partition}/`)),
      );
    expect(await place().committedOffsets(group, source)).toEqual([records, records, records]);
    expect(
      workers.flatMap(({ refusals }) => refusals).filter((code) => code !== "fenced_generation"),
    ).toEqual([]);
    await Promise.all(workers.map((worker) => worker.close()));
  }, 60_000);
});

async function readerOf(place: Place, topic: string): Promise<StreamClient> {
  const client = await StreamClient.open(place.server(1).streamUrl);
  client.send({ type: "subscribe", topics: [topic], from: "earliest" });
  return client;
}

/** Until its socket closes, with the servers at the latest. */
async function countRecords(reader: StreamClient, read: { records: number }, signal: Signal): Promise<void> {
  try {
    for (;;) {
      const frame = await reader.next();
      if (frame.type === "records") read.records += frame.records.length;
      signal.notify();
    }
  } catch {
    signal.notify();
  }
}

interface Work {
  readonly source: string;
  readonly output: string;
  readonly group: string;
  readonly fields: object;
}

/** Answers every frame of records with a transaction that commits it, and never with an ack. */
class Worker {
  readonly refusals: string[] = [];
  readonly #client: StreamClient;
  readonly #work: Work;
  #isClosed = false;

  private constructor(client: StreamClient, work: Work) {
    this.#client = client;
    this.#work = work;
    void this.#listen();
  }

  static async join(place: Place, server: number, work: Work): Promise<Worker> {
    const client = await StreamClient.open(place.server(server).streamUrl);
    const { source, group, fields } = work;
    client.send({ type: "subscribe", topics: [source], group, window: { records: 6 }, ...fields });
    return new Worker(client, work);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#client.close();
  }

  async #listen(): Promise<void> {
    try {
      for (;;) this.#take(await this.#client.next());
    } catch {
      this.#isClosed = true; // all that came before the socket closed has been taken
    }
  }

  #take(frame: ServerFrame): void {
    const { output, group } = this.#work;
    if (frame.type === "ping") this.#client.send({ type: "pong" });
    if (frame.type === "error") this.refusals.push(frame.code);
    if (frame.type === "records")
      this.#client.send({
        type: "transact",
        appends: [
          {
            topic: output,
            records: frame.records.map(({ offset }) => ({ value: `${frame.partition}/${offset}` })),
          },
        ],
        commits: { group, offsets: [ackOf(frame)] },
      });
  }
}
